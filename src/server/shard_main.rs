//! What runs on a shard's executor: the shard itself, the acceptor, the connections, and the orders of `main`'s thread.

use std::cell::Cell;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;

use super::connections::{Adoption, ConnectionCounts, Place};
use crate::broker::{Broker, Identity};
use crate::kafka::{self, ConnectionEnd, ConnectionState, Front};
use crate::model::ShardId;
use crate::runtime::local::Event;
use crate::runtime::tcp::{Listener, Stream};
use crate::runtime::{catch_panic, sleep, spawn, spawn_detached, timeout};
use crate::shard::{Shard, ShardEnds, ShardOptions, find_partitions};

/// How long the acceptor rests after the kernel refused a connection (mostly: no descriptors left).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What `main`'s thread tells a shard.
pub(super) enum Order {
    /// Let clients in; accept from this socket, if the shard has one.
    Serve(Option<TcpListener>),
    /// Let no more clients in, answer those who wait, and close the connections within this time.
    Drain(Duration),
    /// To shard 0: have all shards close their partitions.
    Close,
    /// End.
    End,
}

/// What a shard tells `main`'s thread.
pub(super) enum Report {
    /// From shard 0: all shards have opened their partitions, or why not.
    Loaded(Result<(), String>),
    /// The connections are closed.
    Drained,
    /// From shard 0: all partitions are closed and the marker of a clean stop is written, or why not.
    Closed(Result<(), String>),
}

/// Everything that a shard takes along to its thread.
pub(super) struct ShardMain {
    pub(super) options: ShardOptions,
    pub(super) ends: ShardEnds,
    pub(super) identity: Identity,
    pub(super) orders: flume::Receiver<Order>,
    pub(super) report: flume::Sender<Report>,
    pub(super) adopted: flume::Receiver<Adoption>,
    pub(super) adoptions: Vec<flume::Sender<Adoption>>,
    pub(super) counts: Arc<ConnectionCounts>,
}

impl ShardMain {
    /// The shard's whole life.
    pub(super) async fn run(self) {
        let shard = Shard::start(self.options, self.ends).await;
        if shard.id() == 0 {
            let loaded = load(&shard).await;
            let _ = self.report.send_async(Report::Loaded(loaded)).await;
        }
        let doors = Rc::new(Doors {
            front: Front::new(Rc::new(Broker::new(shard.clone(), self.identity))),
            shard: shard.clone(),
            adoptions: self.adoptions,
            counts: self.counts,
            open: Cell::new(0),
            one_closed: Event::new(),
        });
        let mut accepting = None;
        let mut adopting = None;
        while let Ok(order) = self.orders.recv_async().await {
            match order {
                Order::Serve(listener) => {
                    accepting = listener.map(|listener| spawn(doors.clone().accept(listener)));
                    adopting = Some(spawn(doors.clone().adopt(self.adopted.clone())));
                }
                Order::Drain(limit) => {
                    drop(accepting.take());
                    drop(adopting.take());
                    shard.begin_stop();
                    timeout(limit, doors.all_closed()).await;
                    let _ = self.report.send_async(Report::Drained).await;
                }
                Order::Close => {
                    let closed = shard.close_all().await.map_err(|error| error.to_string());
                    let _ = self.report.send_async(Report::Closed(closed)).await;
                }
                Order::End => return,
            }
        }
    }
}

async fn load(shard: &Rc<Shard>) -> Result<(), String> {
    let (topics, starts) = find_partitions(shard.data_dir()).await.map_err(|error| error.to_string())?;
    shard.load_cluster(topics, starts).await.map_err(|error| error.to_string())
}

/// The doors of one shard and who is inside.
struct Doors {
    front: Rc<Front>,
    shard: Rc<Shard>,
    adoptions: Vec<flume::Sender<Adoption>>,
    counts: Arc<ConnectionCounts>,
    open: Cell<usize>,
    one_closed: Event,
}

impl Doors {
    /// Accepts connections. With a listener of its own the shard keeps them; the server's one listener spreads them.
    async fn accept(self: Rc<Self>, listener: TcpListener) {
        let listener = match Listener::new(listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "cannot accept connections");
                return;
            }
        };
        let shard_listeners = self.shard.config().shard_listeners;
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection; raise the limit of open files if this goes on");
                    sleep(ACCEPT_RETRY).await;
                    continue;
                }
            };
            let shard = if shard_listeners { self.shard.id() } else { self.counts.least_loaded() };
            match self.counts.admit(peer, shard, &self.shard.config()) {
                Ok(place) => {
                    let state = ConnectionState { peer };
                    self.deliver(shard, Adoption { stream, leftover: BytesMut::new(), state, place }).await;
                }
                Err(limit) => tracing::warn!(%peer, limit, "a connection is refused: the limit is reached"),
            }
        }
    }

    /// Takes in the connections that other shards send.
    async fn adopt(self: Rc<Self>, adopted: flume::Receiver<Adoption>) {
        while let Ok(adoption) = adopted.recv_async().await {
            self.take_in(adoption);
        }
    }

    async fn deliver(self: &Rc<Self>, shard: ShardId, adoption: Adoption) {
        if shard == self.shard.id() {
            self.take_in(adoption);
        } else {
            // A shard that has ended takes nobody in: the connection closes.
            let _ = self.adoptions[shard].send_async(adoption).await;
        }
    }

    fn take_in(self: &Rc<Self>, adoption: Adoption) {
        let doors = self.clone();
        doors.open.set(doors.open.get() + 1);
        spawn_detached(async move {
            let Adoption { stream, leftover, state, place } = adoption;
            doors.live(stream, leftover, state, place).await;
            doors.open.set(doors.open.get() - 1);
            doors.one_closed.notify();
        });
    }

    /// A connection's life on this shard.
    async fn live(
        self: &Rc<Self>,
        stream: std::net::TcpStream,
        leftover: BytesMut,
        state: ConnectionState,
        mut place: Place,
    ) {
        let peer = state.peer;
        let stream = match Stream::new(stream) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%peer, %error, "cannot serve a connection");
                return;
            }
        };
        match catch_panic(kafka::resume(stream, state, leftover, self.front.clone())).await {
            Ok(ConnectionEnd::Closed) => {}
            Ok(ConnectionEnd::HandOver { shard, stream, leftover, state }) => {
                place.move_to(shard);
                self.deliver(shard, Adoption { stream: stream.into_inner(), leftover, state, place }).await;
            }
            Err(panic) => tracing::error!(%peer, panic, "a connection has panicked and is closed"),
        }
    }

    async fn all_closed(&self) {
        while self.open.get() > 0 {
            self.one_closed.wait().await;
        }
    }
}
