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

use crate::base::units::MIB;
use resp::{Decoded, Decoder};

/// Decodes commands as a connection would, and does nothing with them: for fuzzing. How many there are.
///
/// # Errors
/// Why a connection would be closed.
pub fn check_commands(mut bytes: &[u8]) -> Result<usize, String> {
    let limits = resp::Limits { bulk_bytes: MIB, elements: 10_000, command_bytes: MIB };
    let mut decoder = Decoder::new(limits);
    let mut count = 0;
    while let Decoded::Command(size) = decoder.decode(bytes).map_err(|error| error.to_string())? {
        let (command, rest) = bytes.split_at(size);
        decoder.args(command).from(0).for_each(drop);
        bytes = rest;
        count += 1;
    }
    Ok(count)
}

pub use client_table::ClientTable;
pub use connection::serve;
pub use front::Front;
