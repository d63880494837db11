//! The Kafka door: everything between a socket's bytes and the verbs of [`crate::broker`].
//!
//! ```text
//! bytes -> connection (one task per socket) -> frame (lengths, headers) -> api (the table) -> api/* (one file per API)
//!       -> broker verbs -> api/* -> reply -> connection (replies leave in the order of the requests)
//! ```
//!
//! Messages come from the `kafka-protocol` crate, read through `decode_guard`; Produce and Fetch, the two that carry
//! records, are framed by hand with `wire` so that record bytes are never copied. What the broker refuses becomes a
//! Kafka error code in `error_code` and nowhere else.
//!
//! Does not: touch files, storage, shards or coordinators. Source: the message definitions of Apache Kafka 4.

use bytes::{Bytes, BytesMut};

use crate::base::units::MIB;
use crate::model::PartitionIndex;

mod wire;

mod frame;

mod decode_guard;
mod error_code;
mod features;
mod fetch_session;
mod share_session;

mod api;
mod connection;
mod front;

pub use api::{ApiRow, api_rows};
pub use connection::{ConnectionEnd, ConnectionState, resume, serve};
pub use front::Front;

/// Decodes a request frame, its size included, as a connection would, and does nothing with it: for fuzzing and tests.
///
/// # Errors
/// Why a connection would be closed.
pub fn check_request(bytes: &[u8]) -> Result<(), String> {
    let check = || {
        let frame::Found::Whole(size) = frame::find(bytes, MIB * 100)? else {
            return Err(wire::Malformed("the frame is cut".to_owned()));
        };
        let (header, body) = frame::split_header(BytesMut::from(&bytes[..size]))?;
        if header.row.serves(header.version) {
            api::check(header.row, header.version, body)
        } else {
            Err(wire::Malformed("the version is not served".to_owned()))
        }
    };
    check().map_err(|error| error.to_string())
}

/// Builds the reply that goes to the socket for a request frame: for benches. A Produce of so many partitions that were
/// all appended to, or a Fetch of so many, each with `records`; nothing for other APIs.
///
/// # Errors
/// As [`check_request`].
#[doc(hidden)]
pub fn sample_reply(
    request: BytesMut,
    partitions: PartitionIndex,
    records: &Bytes,
) -> Result<Vec<Bytes>, String> {
    let (header, _) = frame::split_header(request).map_err(|error| error.to_string())?;
    Ok(match header.row.key {
        api::ApiKey::Produce => api::sample_produce_reply(&header, partitions),
        api::ApiKey::Fetch => api::sample_fetch_reply(&header, partitions, records),
        _ => Vec::new(),
    })
}
