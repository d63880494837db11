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
// Floor 3: neighbours that do not import each other.
pub mod coordinator;
pub mod metadata;
