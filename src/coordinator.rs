//! Coordinators: what Kafka calls the group and transaction coordinators, as state machines without I/O.
//!
//! A verb takes an event and the time and gives back [`group::Effects`] or their like: records to append to a state
//! log, and replies. The shard that owns the state log's partition carries them out. Nothing here reads a clock,
//! waits, or knows of files, sockets or other shards, so that a seed and a fake clock can run all of it
//! (`tests/group_simulation.rs`, `tests/transaction_simulation.rs`).

pub mod group;
mod reader;
pub mod share_partition;
pub mod share_states;
pub mod stream_group;
mod timers;
pub mod transaction;
