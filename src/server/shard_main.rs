//! What runs on a shard's executor: the shard itself, the acceptor, the connections, and the orders of `main`'s thread.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;

use super::connections::{Adoption, ConnectionCounts, Door, Place};
use super::listeners::ShardListeners;
use crate::broker::{Broker, Identity};
use crate::kafka::{self, ConnectionEnd, ConnectionState};
use crate::model::ShardId;
use crate::redis;
use crate::runtime::local::Event;
use crate::runtime::tcp::{Listener, Stream};
use crate::runtime::{catch_panic, sleep, spawn, spawn_detached, timeout};
use crate::shard::{Shard, ShardEnds, ShardOptions, find_partitions};

/// How long the acceptor rests after the kernel refused a connection (mostly: no descriptors left).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// In the place of a peer where only the door is asked for.
const NOBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// What `main`'s thread tells a shard.
pub(super) enum Order {
    /// Let clients in; accept from these sockets, as far as the shard has them.
    Serve(ShardListeners),
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
    pub(super) redis_clients: Arc<redis::ClientTable>,
    pub(super) redis_port: u16,
}

impl ShardMain {
    /// The shard's whole life.
    pub(super) async fn run(self) {
        let shard = Shard::start(self.options, self.ends).await;
        if shard.id() == 0 {
            let loaded = load(&shard).await;
            let _ = self.report.send_async(Report::Loaded(loaded)).await;
        }
        let broker = Rc::new(Broker::new(shard.clone(), self.identity));
        let doors = Rc::new(Doors {
            kafka: kafka::Front::new(broker.clone()),
            redis: redis::Front::new(broker, self.redis_clients, self.redis_port),
            shard: shard.clone(),
            adoptions: self.adoptions,
            counts: self.counts,
            open: Cell::new(0),
            one_closed: Event::new(),
        });
        let mut accepting = Vec::new();
        let mut adopting = None;
        while let Ok(order) = self.orders.recv_async().await {
            match order {
                Order::Serve(ShardListeners { kafka, redis }) => {
                    let kafka_door: fn(SocketAddr) -> Door = |peer| Door::Kafka(ConnectionState { peer });
                    for (listener, door) in [(kafka, kafka_door), (redis, Door::Redis)] {
                        let accept = |listener| spawn(doors.clone().accept(listener, door));
                        accepting.extend(listener.map(accept));
                    }
                    adopting = Some(spawn(doors.clone().adopt(self.adopted.clone())));
                }
                Order::Drain(limit) => {
                    accepting.clear();
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
    kafka: Rc<kafka::Front>,
    redis: Rc<redis::Front>,
    shard: Rc<Shard>,
    adoptions: Vec<flume::Sender<Adoption>>,
    counts: Arc<ConnectionCounts>,
    open: Cell<usize>,
    one_closed: Event,
}

impl Doors {
    /// Accepts connections. With a listener of its own the shard keeps them; the server's one listener spreads them.
    async fn accept(self: Rc<Self>, listener: TcpListener, door: fn(SocketAddr) -> Door) {
        let listener = match Listener::new(listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "cannot accept connections");
                return;
            }
        };
        let keeps = self.shard.config().shard_listeners && matches!(door(NOBODY), Door::Kafka(_));
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection; raise the limit of open files if this goes on");
                    sleep(ACCEPT_RETRY).await;
                    continue;
                }
            };
            let shard = if keeps { self.shard.id() } else { self.counts.least_loaded() };
            match self.counts.admit(peer, shard, &self.shard.config()) {
                Ok(place) => {
                    let door = door(peer);
                    self.deliver(shard, Adoption { stream, leftover: BytesMut::new(), door, place }).await;
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
            let Adoption { stream, leftover, door, place } = adoption;
            doors.live(stream, leftover, door, place).await;
            doors.open.set(doors.open.get() - 1);
            doors.one_closed.notify();
        });
    }

    /// A connection's life on this shard.
    async fn live(
        self: &Rc<Self>,
        stream: Arc<std::net::TcpStream>,
        leftover: BytesMut,
        door: Door,
        mut place: Place,
    ) {
        let peer = match &door {
            Door::Kafka(state) => state.peer,
            Door::Redis(peer) => *peer,
        };
        let stream = match Stream::new(stream) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%peer, %error, "cannot serve a connection");
                return;
            }
        };
        let state = match door {
            Door::Kafka(state) => state,
            Door::Redis(_) => return redis::serve(stream, peer, self.redis.clone()).await,
        };
        match catch_panic(kafka::resume(stream, state, leftover, self.kafka.clone())).await {
            Ok(ConnectionEnd::Closed) => {}
            Ok(ConnectionEnd::HandOver { shard, stream, leftover, state }) => {
                place.move_to(shard);
                let (stream, door) = (stream.into_inner(), Door::Kafka(state));
                self.deliver(shard, Adoption { stream, leftover, door, place }).await;
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
