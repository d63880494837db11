//! What keeps the server from starting: each a sentence with its cause and its cure.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why the server did not start, or did not stop cleanly.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The data directory cannot be made.
    #[error(
        "cannot create the data directory {path}: {source}; choose another with --data-dir, or give this user the \
             right to create it"
    )]
    CreateDataDir {
        /// The directory.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Somebody else uses the data directory.
    #[error(
        "another process (a LogStreams or a Kafka) uses the data directory {path}; stop it, or choose another \
             directory with --data-dir"
    )]
    DataDirLocked {
        /// The directory.
        path: PathBuf,
    },
    /// The data directory cannot be written.
    #[error(
        "cannot write to the data directory {path}: {source}; give this user the right to write there, or choose \
             another with --data-dir"
    )]
    DataDirNotWritable {
        /// The directory.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The data directory cannot be read.
    #[error("cannot read {path}: {source}; check its permissions and the disk")]
    ReadDataDir {
        /// The file or directory.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// An address cannot be understood.
    #[error(
        "cannot resolve the address {address}: {source}; give a host name or an IP address that this machine knows"
    )]
    Resolve {
        /// As it was given.
        address: String,
        /// The resolver's reason.
        source: io::Error,
    },
    /// Somebody else listens there.
    #[error(
        "the Kafka address {0} is taken by another process; stop it, or choose another with --kafka-addr"
    )]
    AddressInUse(SocketAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another address with --kafka-addr")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Somebody else listens where Redis clients should come in.
    #[error(
        "the Redis address {0} is taken by another process; stop it, or choose another with --redis-addr (off for none)"
    )]
    RedisAddressInUse(SocketAddr),
    /// The Redis address cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another address with --redis-addr (off for none)")]
    ListenRedis {
        /// The address.
        address: SocketAddr,
        /// The kernel's reason.
        source: io::Error,
    },
    /// An executor could not be started, or ended abnormally.
    #[error("{0}")]
    Executor(String),
    /// The topics could not be loaded.
    #[error("cannot load the topics: {0}")]
    Load(String),
    /// The marker of a clean stop could not be written.
    #[error("cannot write the checkpoint files: {0}; the next start will check the logs")]
    Checkpoint(String),
}
