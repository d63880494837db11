//! Connections and the shards they live on: counting, admitting, placing, moving.
//!
//! The counts are shared by all shards, as atomics that are touched when a connection opens, moves or closes. The
//! addresses are behind a lock that is taken at those moments only, and only when `max.connections.per.ip` is set.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;

use crate::config::Config;
use crate::kafka;
use crate::model::ShardId;

/// Connections on their way to a shard; beyond it the acceptor waits.
pub(super) const ADOPTIONS_UNDER_WAY_MAX: usize = 1024;

/// Which protocol a connection speaks, and what goes with it.
pub(super) enum Door {
    /// Kafka's.
    Kafka(kafka::ConnectionState),
    /// Redis's.
    Redis(SocketAddr),
}

/// A connection on its way to a shard.
pub(super) struct Adoption {
    /// The socket.
    pub(super) stream: Arc<TcpStream>,
    /// Bytes read and not yet handled.
    pub(super) leftover: BytesMut,
    /// The door through which it came.
    pub(super) door: Door,
    /// Its place in the counts.
    pub(super) place: Place,
}

/// How many connections there are, by shard and by address.
pub(super) struct ConnectionCounts {
    by_shard: Vec<AtomicUsize>,
    by_ip: Mutex<HashMap<IpAddr, usize>>,
}

impl ConnectionCounts {
    pub(super) fn new(shards: usize) -> Self {
        ConnectionCounts {
            by_shard: (0..shards).map(|_| AtomicUsize::new(0)).collect(),
            by_ip: Mutex::default(),
        }
    }

    /// Counts a new connection in, unless the limits forbid it; the answer names the limit.
    pub(super) fn admit(
        self: &Arc<Self>,
        peer: SocketAddr,
        shard: ShardId,
        config: &Config,
    ) -> Result<Place, &'static str> {
        let open: usize = self.by_shard.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        if open >= config.max_connections {
            return Err("max.connections");
        }
        let counted_ip = match config.max_connections_per_ip {
            limit if limit >= i32::MAX as usize => None,
            limit => {
                let mut by_ip = self.by_ip.lock().unwrap_or_else(PoisonError::into_inner);
                let count = by_ip.entry(peer.ip()).or_default();
                if *count >= limit {
                    return Err("max.connections.per.ip");
                }
                *count += 1;
                Some(peer.ip())
            }
        };
        self.by_shard[shard].fetch_add(1, Ordering::Relaxed);
        Ok(Place { counts: self.clone(), shard, counted_ip })
    }

    /// The shard with the fewest connections.
    pub(super) fn least_loaded(&self) -> ShardId {
        let count = |shard: &usize| self.by_shard[*shard].load(Ordering::Relaxed);
        (0..self.by_shard.len()).min_by_key(count).unwrap_or(0)
    }
}

/// One connection's place in the counts, given up when dropped.
pub(super) struct Place {
    counts: Arc<ConnectionCounts>,
    shard: ShardId,
    counted_ip: Option<IpAddr>,
}

impl Place {
    /// The connection lives on another shard from now on.
    pub(super) fn move_to(&mut self, shard: ShardId) {
        self.counts.by_shard[self.shard].fetch_sub(1, Ordering::Relaxed);
        self.counts.by_shard[shard].fetch_add(1, Ordering::Relaxed);
        self.shard = shard;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.counts.by_shard[self.shard].fetch_sub(1, Ordering::Relaxed);
        if let Some(ip) = self.counted_ip {
            let mut by_ip = self.counts.by_ip.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(count) = by_ip.get_mut(&ip) {
                *count -= 1;
                if *count == 0 {
                    by_ip.remove(&ip);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::ConnectionCounts;
    use crate::config::Config;

    #[test]
    fn limits_hold_and_places_are_given_back() {
        let config =
            Config::from_options(&[("max.connections", "3"), ("max.connections.per.ip", "2")]).unwrap();
        let counts = Arc::new(ConnectionCounts::new(2));
        let (one, other) = ("10.0.0.1:1".parse().unwrap(), "10.0.0.2:1".parse().unwrap());
        let first = counts.admit(one, 0, &config).unwrap_or_else(|limit| panic!("{limit}"));
        assert_eq!(counts.least_loaded(), 1);
        let _second = counts.admit(one, 1, &config).unwrap_or_else(|limit| panic!("{limit}"));
        assert_eq!(counts.admit(one, 1, &config).err(), Some("max.connections.per.ip"));
        let _third = counts.admit(other, 1, &config).unwrap_or_else(|limit| panic!("{limit}"));
        assert_eq!(counts.admit(other, 0, &config).err(), Some("max.connections"));
        drop(first);
        assert!(counts.admit(one, 0, &config).is_ok());
    }
}
