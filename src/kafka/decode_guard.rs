//! Reads the `kafka-protocol` crate's messages without trusting their counts.
//!
//! The crate's array decoders reserve memory for the count they read before they have seen one element, so a frame of
//! a few bytes could ask for gigabytes and end the process. The crate reads everything through [`Buf`], which is where
//! [`Guard`] stands:
//!
//! - **Compact counts** are varints, read byte by byte. One that is larger than the bytes left is an error at once.
//! - **Plain counts** are 32-bit integers and look like any other (a timeout, a leader epoch). One that is larger than
//!   the bytes left is therefore replaced by -2, which no length may be, and remembered. If decoding then fails, it was
//!   a length or the message was broken anyway. If decoding succeeds, none of the replaced integers was a length, and
//!   the message is decoded once more as it came.
//!
//! Promise: no count is ever larger than the bytes left, give or take [`SLACK`]; so what is reserved is bounded by the
//! frame times the size of one element.
//! Source: `kafka_protocol::protocol::types` 0.18 (`Array`, `CompactArray`, `Bytes`, `UnsignedVarInt`).

use std::ops::Range;

use bytes::{Buf, Bytes, TryGetError};
use kafka_protocol::protocol::Decodable;
use kafka_protocol::protocol::buf::{ByteBuf, NotEnoughBytesError};

use super::wire::Malformed;

/// How far a count may exceed the bytes left. It keeps small tags and timeouts out of suspicion, and reserving for
/// that many elements hurts nobody.
const SLACK: usize = 128;
/// Stands in for an integer that might be a hostile count; every length decoder refuses it.
const NO_LENGTH: i32 = -2;
/// Most bytes that the crate reads for one varint.
const VARINT_BYTES_MAX: usize = 5;

/// Decodes a request's body.
///
/// # Errors
/// Bytes that are no such message, or bytes left over behind it.
pub(super) fn decode<T: Decodable>(body: Bytes, version: i16) -> Result<T, Malformed> {
    let (message, replaced) = decode_once(body.clone(), version, true)?;
    if replaced { decode_once(body, version, false).map(|(message, _)| message) } else { Ok(message) }
}

fn decode_once<T: Decodable>(body: Bytes, version: i16, replace: bool) -> Result<(T, bool), Malformed> {
    let mut guard =
        Guard { bytes: body, replace, replaced: false, varint: [0; VARINT_BYTES_MAX], varint_bytes: 0 };
    let message = T::decode(&mut guard, version).map_err(|error| Malformed(error.to_string()))?;
    // Bytes behind the message are Kafka's to ignore, and so ours.
    Ok((message, guard.replaced))
}

/// Bytes that watch what is read from them.
struct Guard {
    bytes: Bytes,
    /// Whether suspicious integers are replaced.
    replace: bool,
    /// Whether one was.
    replaced: bool,
    /// The last bytes that were read one by one with nothing else in between, oldest first.
    varint: [u8; VARINT_BYTES_MAX],
    varint_bytes: usize,
}

impl Guard {
    /// Notes a byte that may belong to a varint, and judges every varint that may end with it.
    ///
    /// Booleans are read byte by byte too, so a varint may begin at any of the noted bytes that are followed by
    /// continuation bytes only; well-meaning clients write 0 or 1 for them, which end a varint and begin none.
    fn note(&mut self, byte: u8) -> Result<(), TryGetError> {
        if self.varint_bytes == VARINT_BYTES_MAX {
            self.varint.copy_within(1.., 0);
            self.varint_bytes -= 1;
        }
        self.varint[self.varint_bytes] = byte;
        self.varint_bytes += 1;
        let noted = &self.varint[..self.varint_bytes];
        let ends = byte < 0x80;
        for start in 0..noted.len() {
            let bytes = &noted[start..];
            // The crate takes what it has after five bytes, whether or not the fifth ends the varint.
            if !ends && bytes.len() < VARINT_BYTES_MAX {
                break;
            }
            let value = bytes
                .iter()
                .zip((0..32).step_by(7))
                .fold(0u32, |value, (byte, shift)| value | (u32::from(byte & 0x7f) << shift));
            // A compact length is one less than what is written.
            if value as usize > self.bytes.len() + 1 + SLACK {
                return Err(TryGetError { requested: value as usize, available: self.bytes.len() });
            }
        }
        if ends {
            self.varint_bytes = 0;
        }
        Ok(())
    }
}

impl Buf for Guard {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.varint_bytes = 0;
        self.bytes.advance(count);
    }

    fn try_get_u8(&mut self) -> Result<u8, TryGetError> {
        let byte = self.bytes.try_get_u8()?;
        self.note(byte)?;
        Ok(byte)
    }

    fn try_get_i32(&mut self) -> Result<i32, TryGetError> {
        self.varint_bytes = 0;
        let value = self.bytes.try_get_i32()?;
        if self.replace && usize::try_from(value).is_ok_and(|count| count > self.bytes.len() + SLACK) {
            self.replaced = true;
            return Ok(NO_LENGTH);
        }
        Ok(value)
    }
}

impl ByteBuf for Guard {
    fn peek_bytes(&mut self, range: Range<usize>) -> Bytes {
        self.bytes.slice(range)
    }

    fn get_bytes(&mut self, size: usize) -> Bytes {
        self.varint_bytes = 0;
        self.bytes.split_to(size)
    }

    fn try_get_bytes(&mut self, size: usize) -> Result<Bytes, NotEnoughBytesError> {
        if size > self.bytes.len() { Err(NotEnoughBytesError) } else { Ok(self.get_bytes(size)) }
    }
}

#[cfg(test)]
mod tests;
