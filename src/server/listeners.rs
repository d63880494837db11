//! The listening sockets: one for Kafka, or with `shard.listeners` one for each shard; and one for Redis.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use super::ServerError;
use crate::base::clock;
use crate::config::{Config, OptionalAddr};
use crate::runtime::{process, tcp};

/// How long an address may stay taken before that is an error.
const TAKEN_PATIENCE: Duration = Duration::from_secs(2);
/// How often it is tried meanwhile.
const TAKEN_RETRY: Duration = Duration::from_millis(10);

/// Bound sockets that nobody accepts from yet.
pub(super) struct Listeners {
    kafka: Vec<(TcpListener, SocketAddr)>,
    redis: Option<(TcpListener, SocketAddr)>,
}

/// The sockets that one shard accepts from.
#[derive(Default)]
pub(super) struct ShardListeners {
    /// Kafka clients come in here.
    pub(super) kafka: Option<TcpListener>,
    /// Redis clients come in here.
    pub(super) redis: Option<TcpListener>,
}

impl Listeners {
    /// Binds the Kafka address; with shard listeners also the ports that follow it, one for each shard (with port 0 each
    /// shard gets a free port of its own). Then the Redis address; if that is the default and taken, there is no Redis
    /// door, which is said in the log.
    pub(super) fn bind(config: &Config, shards: usize) -> Result<Self, ServerError> {
        let first = config
            .kafka_addr
            .resolve()
            .map_err(|source| ServerError::Resolve { address: config.kafka_addr.to_string(), source })?;
        let count = if config.shard_listeners { shards } else { 1 };
        let mut sockets = Vec::with_capacity(count);
        for index in 0..count {
            let port = match first.port() {
                0 => Some(0),
                port => u16::try_from(index).ok().and_then(|index| port.checked_add(index)),
            };
            let mut address = first;
            let Some(port) = port else {
                let source = io::Error::other(format!("shard {index} would need a port above 65535"));
                return Err(ServerError::Listen { address, source });
            };
            address.set_port(port);
            sockets.push(bind(address, TAKEN_PATIENCE).map_err(|error| kafka_error(address, error))?);
        }
        Ok(Listeners { kafka: sockets, redis: bind_redis(config)? })
    }

    /// The Kafka ports, in shard order.
    pub(super) fn ports(&self) -> Vec<u16> {
        self.kafka.iter().map(|(_, address)| address.port()).collect()
    }

    /// Where Redis clients find the server, if they do.
    pub(super) fn redis_address(&self) -> Option<SocketAddr> {
        self.redis.as_ref().map(|(_, address)| *address)
    }

    /// The line that says where clients find the server.
    pub(super) fn ready_line(&self) -> String {
        let redis = self.redis_address().map(|address| format!(" redis={address}")).unwrap_or_default();
        format!("ready kafka={}{redis}", self.kafka[0].1)
    }

    /// The sockets for the shards: for Kafka all of them have one, or only shard 0; for Redis shard 0 has it.
    pub(super) fn into_shards(self, shards: usize) -> impl Iterator<Item = ShardListeners> {
        let rest = shards.saturating_sub(self.kafka.len());
        let kafka = self.kafka.into_iter().map(|(socket, _)| Some(socket)).chain((0..rest).map(|_| None));
        let mut redis = self.redis.map(|(socket, _)| socket);
        kafka.map(move |kafka| ShardListeners { kafka, redis: redis.take() })
    }
}

/// Binds the Redis address, if there is one.
fn bind_redis(config: &Config) -> Result<Option<(TcpListener, SocketAddr)>, ServerError> {
    let OptionalAddr::On(given) = &config.redis_addr else { return Ok(None) };
    let address =
        given.resolve().map_err(|source| ServerError::Resolve { address: given.to_string(), source })?;
    let is_asked_for = config.is_given("redis.addr");
    let patience = if is_asked_for { TAKEN_PATIENCE } else { Duration::ZERO };
    match bind(address, patience) {
        Ok(bound) => Ok(Some(bound)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && !is_asked_for => {
            tracing::warn!(
                "there is no Redis door: {address} is taken by another process; choose another address with --redis-addr"
            );
            Ok(None)
        }
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Err(ServerError::RedisAddressInUse(address))
        }
        Err(source) => Err(ServerError::ListenRedis { address, source }),
    }
}

fn kafka_error(address: SocketAddr, source: io::Error) -> ServerError {
    match source.kind() {
        io::ErrorKind::AddrInUse => ServerError::AddressInUse(address),
        _ => ServerError::Listen { address, source },
    }
}

/// A server that was killed keeps its sockets until the kernel has quite ended the process; whoever restarts it at once
/// finds the address taken for some milliseconds.
fn bind(address: SocketAddr, patience: Duration) -> io::Result<(TcpListener, SocketAddr)> {
    let started = clock::monotonic();
    let bound = loop {
        match tcp::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && started.elapsed() < patience => {
                process::pause(TAKEN_RETRY);
            }
            bound => break bound,
        }
    };
    bound.and_then(|socket| socket.local_addr().map(|address| (socket, address)))
}
