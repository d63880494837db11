//! What the Kafka connections of one shard share.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::connection::Link;
use super::fetch_session::FetchSessionCache;
use super::share_session::ShareSessionCount;
use crate::base::clock;
use crate::broker::Broker;
use crate::config::Config;
use crate::runtime::local::Event;
use crate::runtime::receive_buffer::SpareRooms;
use crate::runtime::{self, sleep};

/// How often silent connections are looked for, at most and at least.
const WATCH_INTERVAL_MIN: Duration = Duration::from_millis(100);
const WATCH_INTERVAL_MAX: Duration = Duration::from_secs(30);

/// Shared by the connections of one shard; one on each shard.
///
/// Life cycle: made when the shard starts; a watching task runs while there are connections, closes the silent ones,
/// and closes all when the server stops.
pub struct Front {
    /// The verbs.
    pub(super) broker: Rc<Broker>,
    /// The fetch sessions of this shard (KIP-227).
    pub(super) sessions: RefCell<FetchSessionCache>,
    /// The limits in force when the shard started.
    pub(super) limits: Limits,
    /// How many share sessions its connections have (KIP-932).
    pub(super) share_session_count: ShareSessionCount,
    inflight_bytes: Cell<usize>,
    inflight_freed: Event,
    connections: RefCell<Vec<Weak<Link>>>,
    /// What connections left over of their read buffers.
    pub(super) spare_rooms: Rc<SpareRooms>,
    is_watching: Cell<bool>,
}

/// What one connection, and all of a shard, may take.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// The largest request.
    pub(super) request_max_bytes: usize,
    /// Bytes of requests under way on one connection.
    pub(super) connection_inflight_max_bytes: usize,
    /// Bytes of requests under way on all connections of the shard.
    pub(super) shard_inflight_max_bytes: usize,
    /// The largest answer to one fetch.
    pub(super) fetch_max_bytes: usize,
    /// Silence after which a connection is closed.
    pub(super) idle: Duration,
}

impl Limits {
    fn of(config: &Config) -> Self {
        Limits {
            request_max_bytes: config.socket_request_max_bytes,
            connection_inflight_max_bytes: config.connection_inflight_max_bytes,
            shard_inflight_max_bytes: config.shard_inflight_max_bytes,
            fetch_max_bytes: config.fetch_max_bytes,
            idle: Duration::from_millis(config.connections_max_idle_ms),
        }
    }
}

impl Front {
    /// The Kafka door of one shard.
    pub fn new(broker: Rc<Broker>) -> Rc<Self> {
        let config = broker.config();
        // Clients spread over the shards, and so do their sessions.
        let session_slots = config.max_incremental_fetch_session_cache_slots.div_ceil(broker.shards().max(1));
        Rc::new(Front {
            broker,
            sessions: RefCell::new(FetchSessionCache::new(session_slots)),
            limits: Limits::of(&config),
            share_session_count: ShareSessionCount::default(),
            inflight_bytes: Cell::new(0),
            inflight_freed: Event::new(),
            connections: RefCell::new(Vec::new()),
            spare_rooms: Rc::default(),
            is_watching: Cell::new(false),
        })
    }

    /// How many fetch sessions this shard remembers.
    pub fn fetch_session_count(&self) -> usize {
        self.sessions.borrow().len()
    }

    /// Counts a request's bytes until the guard is dropped.
    pub(super) fn count_inflight(self: &Rc<Self>, bytes: usize) -> Inflight {
        self.inflight_bytes.set(self.inflight_bytes.get() + bytes);
        Inflight { front: self.clone(), bytes }
    }

    /// Waits until the shard may read more requests.
    pub(super) async fn may_read(&self) {
        while self.inflight_bytes.get() >= self.limits.shard_inflight_max_bytes {
            self.inflight_freed.wait().await;
        }
    }

    /// Has a connection closed when it has been silent for too long or the server stops.
    pub(super) fn watch(self: &Rc<Self>, connection: &Rc<Link>) {
        self.connections.borrow_mut().push(Rc::downgrade(connection));
        if !self.is_watching.replace(true) {
            let front = self.clone();
            runtime::spawn_detached(async move {
                front.watch_all().await;
                front.is_watching.set(false);
            });
        }
    }

    async fn watch_all(&self) {
        let interval = (self.limits.idle / 4).clamp(WATCH_INTERVAL_MIN, WATCH_INTERVAL_MAX);
        loop {
            futures_lite::future::or(sleep(interval), self.broker.stopping()).await;
            let stopping = self.broker.is_stopping();
            let now = clock::monotonic();
            self.connections.borrow_mut().retain(|connection| {
                let Some(connection) = connection.upgrade() else { return false };
                if stopping {
                    connection.stop();
                } else if connection.is_silent_since(now, self.limits.idle) {
                    connection.close();
                }
                !stopping
            });
            if stopping || self.connections.borrow().is_empty() {
                return;
            }
        }
    }
}

/// Bytes of a request under way.
pub(super) struct Inflight {
    front: Rc<Front>,
    bytes: usize,
}

impl Inflight {
    /// The bytes that it counts.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Inflight {
    fn drop(&mut self) {
        let before = self.front.inflight_bytes.get();
        let after = before - self.bytes;
        self.front.inflight_bytes.set(after);
        let limit = self.front.limits.shard_inflight_max_bytes;
        if before >= limit && after < limit {
            self.front.inflight_freed.notify();
        }
    }
}
