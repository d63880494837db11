//! LogStreams: the message log that one Linux server deserves.
//!
//! The modules below are listed by floor, lowest first, which is also the reading order. An import only ever
//! points to a lower floor; `tests/tidy.rs` keeps it so. ARCHITECTURE.md tells how requests flow through them.

// Floor 0: words and bytes; no I/O, no async.
pub mod base;
pub mod model;
// Floor 1: services of the ground.
pub mod config;
pub mod record;
pub mod runtime;
// Floor 2: one partition's log on disk.
pub mod storage;
// Floor 3: neighbours that do not import each other.
pub mod coordinator;
pub mod metadata;
pub mod partition;
// Floor 4: all that one core owns.
pub mod shard;
// Floor 5: protocol-free verbs.
pub mod broker;
// Floor 6: fronts, strangers to each other.
pub mod kafka;
pub mod redis;
// Floor 7: the server around them.
pub mod server;
// Floor 8: tools on files.
pub mod dump;
