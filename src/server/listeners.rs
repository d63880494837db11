//! The listening sockets: one for the server, or with `shard.listeners` one for each shard.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use super::ServerError;
use crate::base::clock;
use crate::config::Config;
use crate::runtime::tcp;

/// How long an address may stay taken before that is an error.
const TAKEN_PATIENCE: Duration = Duration::from_secs(2);
/// How often it is tried meanwhile.
const TAKEN_RETRY: Duration = Duration::from_millis(10);

/// Bound sockets that nobody accepts from yet.
pub(super) struct Listeners {
    sockets: Vec<(TcpListener, SocketAddr)>,
}

impl Listeners {
    /// Binds the Kafka address; with shard listeners also the ports that follow it, one for each shard (with port 0 each
    /// shard gets a free port of its own).
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
            sockets.push(bind(address)?);
        }
        Ok(Listeners { sockets })
    }

    /// The ports, in shard order.
    pub(super) fn ports(&self) -> Vec<u16> {
        self.sockets.iter().map(|(_, address)| address.port()).collect()
    }

    /// Where clients find the server.
    pub(super) fn first_address(&self) -> SocketAddr {
        self.sockets[0].1
    }

    /// The sockets for the shards: all of them have one, or only shard 0.
    pub(super) fn into_shards(self, shards: usize) -> impl Iterator<Item = Option<TcpListener>> {
        let rest = shards.saturating_sub(self.sockets.len());
        self.sockets.into_iter().map(|(socket, _)| Some(socket)).chain((0..rest).map(|_| None))
    }
}

/// A server that was killed leaves its sockets to the kernel, which closes them only when it has wound up the rings that
/// wait on them; whoever restarts it at once finds the address taken for some milliseconds.
fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServerError> {
    let started = clock::monotonic();
    let bound = loop {
        match tcp::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && started.elapsed() < TAKEN_PATIENCE => {
                pause(TAKEN_RETRY);
            }
            bound => break bound,
        }
    };
    let bound = bound.and_then(|socket| socket.local_addr().map(|address| (socket, address)));
    bound.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ServerError::AddressInUse(address),
        _ => ServerError::Listen { address, source },
    })
}

#[allow(clippy::disallowed_methods)] // `main`'s thread, before there is a shard
fn pause(duration: Duration) {
    std::thread::sleep(duration);
}
