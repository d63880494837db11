//! CRC-32C (Castagnoli, RFC 3720), the checksum of record batches.

/// The CRC-32C of `bytes`.
pub fn checksum(bytes: &[u8]) -> u32 {
    // The crate widens every CRC to u64; the upper half is zero for a 32-bit one.
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

#[cfg(test)]
mod tests {
    use super::checksum;

    #[test]
    fn the_check_value_of_the_standard_comes_out() {
        assert_eq!(checksum(b"123456789"), 0xE306_9283);
    }
}
