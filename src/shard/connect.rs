//! The way to the other shards: requests out, answers back, each in the order in which it was sent.
//!
//! A call is two-phase: [`Shard::dispatch`] resolves when the request is in the owner's queue (or, on the owner, has
//! taken its place), [`Dispatched::answer`] when the answer is there. Queues are bounded: a sender waits while the
//! owner's is full.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use ahash::AHashMap;

use super::{Shard, ShardReply, ShardRequest};
use crate::model::ShardId;
use crate::runtime::local::{Answer, Awaited, oneshot};
use crate::runtime::mesh::{self, Mesh, MeshEnds, MeshReceiver};
use crate::runtime::{catch_panic, spawn_detached};

/// What travels between shards.
pub enum Letter {
    /// A request and the sender's number for it.
    Request(u64, ShardRequest),
    /// The answer to the request of that number.
    Reply(u64, ShardReply),
}

/// One shard's ends of the mesh, before its executor runs.
pub type ShardEnds = MeshEnds<Letter>;

/// Makes the mesh for `shards` shards.
pub fn shard_ends(shards: usize) -> Vec<ShardEnds> {
    mesh::mesh(shards)
}

/// The connected mesh and the calls under way.
pub(super) struct ShardConnections {
    mesh: Mesh<Letter>,
    next_call: Cell<u64>,
    calls: RefCell<AHashMap<u64, Answer<ShardReply>>>,
}

/// A request that has been handed to its owner.
pub enum Dispatched {
    /// It runs here.
    Here(Pin<Box<dyn Future<Output = ShardReply>>>),
    /// It is in another shard's queue.
    There(Awaited<ShardReply>),
    /// The owner has stopped.
    Nowhere,
}

impl Dispatched {
    /// The owner's answer.
    pub async fn answer(self) -> ShardReply {
        match self {
            Dispatched::Here(reply) => reply.await,
            Dispatched::There(reply) => reply.await.unwrap_or(ShardReply::Unavailable),
            Dispatched::Nowhere => ShardReply::Unavailable,
        }
    }
}

impl ShardConnections {
    pub(super) fn new(mesh: Mesh<Letter>) -> Self {
        ShardConnections { mesh, next_call: Cell::new(0), calls: RefCell::new(AHashMap::new()) }
    }
}

impl Shard {
    /// Hands `request` to shard `to`; requests of one task to one partition keep their order.
    pub async fn dispatch(self: &Rc<Self>, to: ShardId, request: ShardRequest) -> Dispatched {
        if to == self.id {
            return Dispatched::Here(self.apply(request));
        }
        Box::pin(self.send_request(to, request)).await // in a box: what is done here needs no room for it
    }

    async fn send_request(self: &Rc<Self>, to: ShardId, request: ShardRequest) -> Dispatched {
        let number = self.connections.next_call.get();
        self.connections.next_call.set(number + 1);
        let (answer, awaited) = oneshot();
        self.connections.calls.borrow_mut().insert(number, answer);
        if self.connections.mesh.send(to, Letter::Request(number, request)).await.is_err() {
            self.connections.calls.borrow_mut().remove(&number);
            return Dispatched::Nowhere;
        }
        Dispatched::There(awaited)
    }

    /// Asks shard `to` and waits for its answer.
    pub async fn call(self: &Rc<Self>, to: ShardId, request: ShardRequest) -> ShardReply {
        self.dispatch(to, request).await.answer().await
    }

    /// Receives what the other shards send, until they stop.
    pub(super) fn receive(self: &Rc<Self>, receivers: Vec<MeshReceiver<Letter>>) {
        for mut receiver in receivers {
            let shard = self.clone();
            spawn_detached(async move {
                while let Some(letter) = receiver.recv().await {
                    shard.open_letter(receiver.from, letter);
                }
            });
        }
    }

    fn open_letter(self: &Rc<Self>, from: ShardId, letter: Letter) {
        match letter {
            Letter::Reply(number, reply) => {
                if let Some(answer) = self.connections.calls.borrow_mut().remove(&number) {
                    answer.give(reply);
                }
            }
            Letter::Request(number, request) => {
                // `apply` takes the request's place in line at once; only the rest runs in a task of its own.
                let working = self.apply(request);
                let shard = self.clone();
                spawn_detached(async move {
                    let reply = catch_panic(working).await.unwrap_or_else(|panic| {
                        tracing::error!(shard = shard.id, panic, "a request of another shard has panicked");
                        ShardReply::Unavailable
                    });
                    // A shard that has stopped no longer needs the answer.
                    let _ = shard.connections.mesh.send(from, Letter::Reply(number, reply)).await;
                });
            }
        }
    }
}
