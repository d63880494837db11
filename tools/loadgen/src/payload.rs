//! What a message's value contains: filler, or a stamp followed by filler.
//!
//! ```text
//! 0        4          8             16               24       28      32
//! | magic  | producer | sequence    | intended time  | run id | crc32c | filler ...
//! | "LGv1" | u32      | u64         | u64 Unix ns    | u32    | u32    |
//! ```
//!
//! Big-endian. `sequence` counts the messages of one producer to one partition from 0, so a reader of a partition sees
//! every gap at once. The CRC covers the whole value but itself. Filler is random capital letters, as in Kafka's own
//! ProducerPerformance, so compression finds what it would find there.

use anyhow::{Result, ensure};

use crate::crc32c::Crc32c;

/// Bytes of the stamp; a stamped message is at least this long.
pub const STAMP_BYTES: usize = 32;
const MAGIC: [u8; 4] = *b"LGv1";
const CRC_POSITION: usize = 28;

/// Who sent a message, which one it is, and when it was meant to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub run_id: u32,
    pub producer: u32,
    pub sequence: u64,
    pub intended_unix_ns: u64,
}

/// What a reader finds in a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Not written by loadgen with a stamp.
    Foreign,
    /// The magic is there, the CRC does not match the bytes.
    Damaged,
    /// A sound stamp.
    Stamp(Stamp),
}

/// Fills `value` with letters from a small xorshift generator.
pub fn fill(value: &mut [u8], seed: u64) {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for byte in value {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = b'A' + u8::try_from((state >> 32) % 26).expect("below 26");
    }
}

/// Writes the stamp over the first bytes of `value` and the CRC of the whole.
///
/// # Errors
/// If the value is shorter than a stamp.
pub fn stamp(value: &mut [u8], stamp: &Stamp) -> Result<()> {
    ensure!(value.len() >= STAMP_BYTES, "a stamped message needs {STAMP_BYTES} bytes, not {}", value.len());
    value[0..4].copy_from_slice(&MAGIC);
    value[4..8].copy_from_slice(&stamp.producer.to_be_bytes());
    value[8..16].copy_from_slice(&stamp.sequence.to_be_bytes());
    value[16..24].copy_from_slice(&stamp.intended_unix_ns.to_be_bytes());
    value[24..28].copy_from_slice(&stamp.run_id.to_be_bytes());
    let crc = value_crc(value);
    value[CRC_POSITION..STAMP_BYTES].copy_from_slice(&crc.to_be_bytes());
    Ok(())
}

/// Reads the stamp; `check_crc` also reads the whole value.
pub fn read(value: &[u8], check_crc: bool) -> Found {
    if value.len() < STAMP_BYTES || value[0..4] != MAGIC {
        return Found::Foreign;
    }
    let u32_at =
        |position: usize| u32::from_be_bytes(value[position..position + 4].try_into().expect("4 bytes"));
    let u64_at =
        |position: usize| u64::from_be_bytes(value[position..position + 8].try_into().expect("8 bytes"));
    if check_crc && u32_at(CRC_POSITION) != value_crc(value) {
        return Found::Damaged;
    }
    Found::Stamp(Stamp {
        producer: u32_at(4),
        sequence: u64_at(8),
        intended_unix_ns: u64_at(16),
        run_id: u32_at(24),
    })
}

fn value_crc(value: &[u8]) -> u32 {
    let mut crc = Crc32c::new();
    crc.update(&value[..CRC_POSITION]);
    crc.update(&value[STAMP_BYTES..]);
    crc.finish()
}

#[cfg(test)]
mod tests {
    use super::{Found, STAMP_BYTES, Stamp, fill, read, stamp};

    const STAMP: Stamp = Stamp { run_id: 7, producer: 3, sequence: 1 << 40, intended_unix_ns: 123_456_789 };

    #[test]
    fn a_stamp_reads_back() {
        for length in [STAMP_BYTES, STAMP_BYTES + 1, 1_024] {
            let mut value = vec![0; length];
            fill(&mut value, 1);
            stamp(&mut value, &STAMP).expect("long enough");
            assert_eq!(read(&value, true), Found::Stamp(STAMP));
        }
    }

    #[test]
    fn every_flipped_bit_behind_the_magic_is_damage() {
        let mut value = vec![0; 64];
        fill(&mut value, 2);
        stamp(&mut value, &STAMP).expect("long enough");
        for bit in 32..64 * 8 {
            value[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&value, true), Found::Damaged, "bit {bit}");
            value[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn a_short_or_plain_value_is_foreign() {
        assert_eq!(read(b"", true), Found::Foreign);
        assert_eq!(read(&[b'A'; 100], true), Found::Foreign);
        assert!(stamp(&mut [0; STAMP_BYTES - 1], &STAMP).is_err());
    }
}
