//! Frames: a length, a header, a body.
//!
//! ```text
//! request  = size i32 | api key i16 | api version i16 | correlation id i32 | client id, nullable string
//!            [| tagged fields, in flexible versions] | body
//! response = size i32 | correlation id i32 [| tagged fields, in flexible versions except ApiVersions] | body
//! ```
//!
//! Lengths are judged before anything is allocated for them. Source: the protocol guide; KIP-482, KIP-511.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::api::{ApiKey, ApiRow};
use super::wire::{Malformed, Reader};
use crate::base::units::MIB;

/// Bytes of the size before each frame.
pub(super) const SIZE_BYTES: usize = size_of::<i32>();
/// Bytes of a request up to the correlation id.
const FIXED_HEADER_BYTES: usize = 8;
/// The largest request of an API that carries no records; none comes near it.
const FRAME_WITHOUT_RECORDS_MAX_BYTES: usize = 16 * MIB;

/// What stands at the front of a receive buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Not even a size.
    Nothing,
    /// Part of a frame; so many bytes make it whole, its size included.
    Partial(usize),
    /// A whole frame of so many bytes, its size included.
    Whole(usize),
}

/// Looks at the front of a receive buffer.
///
/// # Errors
/// A size that is negative or larger than `max_bytes`, or larger than the API in it may be.
pub(super) fn find(buffer: &[u8], max_bytes: usize) -> Result<Found, Malformed> {
    let Some((size, rest)) = buffer.split_first_chunk() else { return Ok(Found::Nothing) };
    let size = i32::from_be_bytes(*size);
    let Ok(body_bytes) = usize::try_from(size) else {
        return Err(Malformed(format!("the frame's size is {size}")));
    };
    if body_bytes > max_bytes {
        return Err(Malformed(format!(
            "the frame has {body_bytes} bytes, socket.request.max.bytes allows {max_bytes}"
        )));
    }
    if body_bytes < FIXED_HEADER_BYTES {
        return Err(Malformed(format!("a frame of {body_bytes} bytes has no room for its header")));
    }
    if body_bytes > FRAME_WITHOUT_RECORDS_MAX_BYTES
        && let Some((key, _)) = rest.split_first_chunk()
        && i16::from_be_bytes(*key) != ApiKey::Produce.key()
    {
        return Err(Malformed(format!(
            "the frame has {body_bytes} bytes and api key {}, only Produce may have more than \
             {FRAME_WITHOUT_RECORDS_MAX_BYTES}",
            i16::from_be_bytes(*key)
        )));
    }
    let total = SIZE_BYTES + body_bytes;
    Ok(if buffer.len() < total { Found::Partial(total) } else { Found::Whole(total) })
}

/// The bytes that make the frame in front whole, its size included, if it says so and is not whole. It may say anything.
pub(super) fn size_hint(buffer: &[u8]) -> Option<usize> {
    match find(buffer, usize::MAX) {
        Ok(Found::Partial(total)) => Some(total),
        _ => None,
    }
}

/// A request's header without what no handler needs.
#[derive(Debug, Clone)]
pub(super) struct RequestHeader {
    /// The API, if it is one of ours.
    pub(super) row: &'static ApiRow,
    /// Its version, which may be one that is not served.
    pub(super) version: i16,
    /// Handed back with the reply.
    pub(super) correlation_id: i32,
    /// The client's name for itself.
    pub(super) client_id: Option<StrBytes>,
}

/// Takes a whole frame apart into header and body.
///
/// # Errors
/// An API key that is not ours, or a header that is cut.
pub(super) fn split_header(mut frame: BytesMut) -> Result<(RequestHeader, BytesMut), Malformed> {
    frame.advance(SIZE_BYTES);
    let key = frame.get_i16();
    let version = frame.get_i16();
    let correlation_id = frame.get_i32();
    let Some(row) = ApiRow::of_key(key) else {
        return Err(Malformed(format!("api key {key} (version {version}) is not served")));
    };
    // The client id keeps its 16-bit length in flexible headers too, so that old servers can read it.
    let mut reader = Reader::new(frame, false);
    let client_id = reader.read_nullable_string()?;
    let mut reader = reader.into_flexible(row.is_flexible(version));
    reader.skip_tagged_fields()?;
    Ok((RequestHeader { row, version, correlation_id, client_id }, reader.into_rest()))
}

/// A reply ready for the socket, in pieces.
pub(super) type Reply = Vec<Bytes>;

/// Frames a message of the `kafka-protocol` crate in the form of `version`, which is that of the request but for a few.
///
/// # Errors
/// What the crate finds wrong with the message: a fault of ours, never of the client.
pub(super) fn encode_reply_as(
    header: &RequestHeader,
    version: i16,
    message: &impl Encodable,
) -> Result<Reply, Malformed> {
    let wrong = |error| Malformed(format!("cannot encode {} v{version}: {error}", header.row.name));
    let body_bytes = message.compute_size(version).map_err(wrong)?;
    let mut frame = BytesMut::with_capacity(SIZE_BYTES + 5 + body_bytes);
    frame.put_i32(0); // the size comes when it is known
    put_response_header(&mut frame, header);
    message.encode(&mut frame, version).map_err(wrong)?;
    let size = i32::try_from(frame.len() - SIZE_BYTES)
        .map_err(|_| Malformed(format!("a {} reply of {} bytes", header.row.name, frame.len())))?;
    frame[..SIZE_BYTES].copy_from_slice(&size.to_be_bytes());
    Ok(vec![frame.freeze()])
}

/// Frames a message that lies in pieces.
pub(super) fn frame_chunks(header: &RequestHeader, chunks: Vec<Bytes>, body_bytes: usize) -> Reply {
    let mut start = BytesMut::with_capacity(SIZE_BYTES + 5);
    start.put_i32(0);
    put_response_header(&mut start, header);
    // A fetch is bounded by fetch.max.bytes and one batch, all others by far less.
    let size = i32::try_from(start.len() - SIZE_BYTES + body_bytes).unwrap_or(i32::MAX);
    start[..SIZE_BYTES].copy_from_slice(&size.to_be_bytes());
    let mut reply = Vec::with_capacity(chunks.len() + 1);
    reply.push(start.freeze());
    reply.extend(chunks);
    reply
}

fn put_response_header(frame: &mut BytesMut, header: &RequestHeader) {
    frame.put_i32(header.correlation_id);
    // A client that asks with a version too new for us must be able to read the reply: its header has no tagged
    // fields in any version (KIP-511).
    if header.row.is_flexible(header.version) && header.row.key != ApiKey::ApiVersions {
        frame.put_u8(0);
    }
}

#[cfg(test)]
mod tests {
    use super::{Found, find};

    #[test]
    fn sizes_are_judged_before_the_bytes_are_there() {
        let frame = |size: i32, rest: &[u8]| [&size.to_be_bytes()[..], rest].concat();
        assert_eq!(find(&[0, 0, 0], 1000).unwrap(), Found::Nothing);
        assert_eq!(find(&frame(10, &[0; 9]), 1000).unwrap(), Found::Partial(14));
        assert_eq!(find(&frame(10, &[0; 12]), 1000).unwrap(), Found::Whole(14));
        assert!(find(&frame(-1, &[]), 1000).is_err());
        assert!(find(&frame(1001, &[]), 1000).is_err());
        assert!(find(&frame(7, &[]), 1000).is_err());
        let large = 17 << 20;
        assert!(find(&frame(large, &[0, 3]), 1 << 30).is_err(), "Metadata");
        assert!(matches!(find(&frame(large, &[0, 0]), 1 << 30).unwrap(), Found::Partial(_)), "Produce");
    }
}
