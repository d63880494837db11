//! The runtime seam: the only place that names tokio and the kernel's calls.
//!
//! Owns executors, timers, sockets, files, the blocking pool and the channels between shards, so that nobody above
//! knows which runtime runs. `unsafe` lives here and nowhere else. Files consult [`fault`] before they act, so that
//! tests can break or cut the disk under real code.

// `unsafe` is allowed in this module alone: raw reads into uninitialised memory, mappings and signals need it.
#![allow(unsafe_code)]

pub mod append_buffer;
pub mod directory;
pub mod dma_file;
pub mod executor;
pub mod fault;
pub mod file;
pub mod local;
pub mod mapped_file;
pub mod mesh;
pub mod process;
pub mod receive_buffer;
pub mod spin;
pub mod tcp;
pub mod timer;

pub use executor::{
    block_on, blocking, catch_panic, spawn, spawn_detached, yield_if_needed, yield_now, yield_to_ready,
};
pub use timer::{FOREVER, sleep, timeout};
