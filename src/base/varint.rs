//! Variable-length integers as Kafka writes them: LEB128, signed ones zigzag-encoded.
//!
//! Records use the signed form (`read_i32`, `read_i64`), flexible protocol messages the unsigned one.

/// Most bytes that a 32-bit varint takes.
pub const MAX_VARINT32_BYTES: usize = 5;
/// Most bytes that a 64-bit varint takes.
pub const MAX_VARINT64_BYTES: usize = 10;

/// Reads an unsigned 64-bit varint off the front of `bytes`; `None` when it is cut short or too long.
#[inline]
pub fn read_u64(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for (index, &byte) in bytes.iter().enumerate().take(MAX_VARINT64_BYTES) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            *bytes = &bytes[index + 1..];
            return Some(value);
        }
    }
    None
}

/// Reads an unsigned 32-bit varint off the front of `bytes`; `None` when it is cut short or too large.
#[inline]
pub fn read_u32(bytes: &mut &[u8]) -> Option<u32> {
    read_u64(bytes).and_then(|value| u32::try_from(value).ok())
}

/// Reads a zigzag 64-bit varint off the front of `bytes`.
#[inline]
pub fn read_i64(bytes: &mut &[u8]) -> Option<i64> {
    read_u64(bytes).map(|raw| ((raw >> 1) as i64) ^ -((raw & 1) as i64))
}

/// Reads a zigzag 32-bit varint off the front of `bytes`; `None` when the value does not fit.
#[inline]
pub fn read_i32(bytes: &mut &[u8]) -> Option<i32> {
    read_i64(bytes).and_then(|value| i32::try_from(value).ok())
}

/// Appends an unsigned varint.
pub fn write_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends an unsigned varint.
pub fn write_u32(out: &mut Vec<u8>, value: u32) {
    write_u64(out, u64::from(value));
}

/// Appends a zigzag varint.
pub fn write_i64(out: &mut Vec<u8>, value: i64) {
    write_u64(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Appends a zigzag varint.
pub fn write_i32(out: &mut Vec<u8>, value: i32) {
    write_i64(out, i64::from(value));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_written_is_read_back(value: i64, small: i32) {
            let mut bytes = Vec::new();
            write_i64(&mut bytes, value);
            write_i32(&mut bytes, small);
            write_u64(&mut bytes, value as u64);
            let mut rest = bytes.as_slice();
            prop_assert_eq!(read_i64(&mut rest), Some(value));
            prop_assert_eq!(read_i32(&mut rest), Some(small));
            prop_assert_eq!(read_u64(&mut rest), Some(value as u64));
            prop_assert!(rest.is_empty());
        }
    }

    #[test]
    fn a_varint_that_is_cut_or_never_ends_is_refused() {
        assert_eq!(read_u64(&mut [0x80u8].as_slice()), None);
        assert_eq!(read_u64(&mut [0xffu8; 11].as_slice()), None);
        assert_eq!(read_u32(&mut [0xff, 0xff, 0xff, 0xff, 0x7f].as_slice()), None);
    }
}
