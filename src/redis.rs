//! The Redis door: everything between a socket's bytes and the verbs of [`crate::broker`].
//!
//! ```text
//! bytes -> connection (one task per socket) -> resp (commands) -> writes (XADD, PUBLISH: many to an append)
//!                                                             \-> command (the tables) -> broker verbs -> reply
//! records -> fan_out (read once for all at the tail) -> link (what is on its way to one socket)
//! ```
//!
//! A topic is a stream and a channel; `entries` says how a record becomes an entry, `entry_id` what an id is,
//! `stream_name` how a partition is named. What the broker refuses becomes an error reply in `error_reply` and nowhere
//! else.
//!
//! Does not: touch files, storage, shards or coordinators; know the Kafka door. Source: the commands and RESP of Redis 7.

mod resp;

mod entries;
mod entry_id;
mod error_reply;
mod group_offsets;
mod link;
mod stream_name;

mod client;
mod client_table;
mod fan_out;
mod subscriptions;
mod writes;

mod command;
mod connection;
mod front;

pub use client_table::ClientTable;
pub use connection::serve;
pub use front::Front;
