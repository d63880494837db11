//! CRC-32C (Castagnoli), the checksum of record batches and of stamped payloads.

use crc_fast::{CrcAlgorithm, Digest, checksum};

/// The CRC-32C of one run of bytes.
pub fn of(bytes: &[u8]) -> u32 {
    low_32(checksum(CrcAlgorithm::Crc32Iscsi, bytes))
}

/// A CRC-32C over several runs of bytes.
pub struct Crc32c(Digest);

impl Crc32c {
    /// The CRC of no bytes.
    pub fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc32Iscsi))
    }

    /// Continues with `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The CRC of all bytes so far.
    pub fn finish(&self) -> u32 {
        low_32(self.0.finalize())
    }
}

fn low_32(value: u64) -> u32 {
    u32::try_from(value).expect("a 32-bit CRC")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_check_value_of_the_standard_holds() {
        assert_eq!(super::of(b"123456789"), 0xE306_9283);
        let mut crc = super::Crc32c::new();
        crc.update(b"1234");
        crc.update(b"56789");
        assert_eq!(crc.finish(), 0xE306_9283);
    }
}
