//! Message sets from before Kafka 0.11 (magic 0 and 1), which are recognised and refused.
//!
//! Kafka 4 refuses them too: `ProduceRequest.validateRecords` answers INVALID_RECORD for a produce of version 3 or
//! later whose first magic byte is not 2. They share with batches of version 2 the offset, the length, and the place
//! of the magic byte:
//!
//! ```text
//! offset: i64 | message size: i32 | CRC-32: u32 | magic: i8 | ...
//! ```

use super::header::MAGIC_POSITION;

/// The magic byte of an old message set at the start of `bytes`, if that is what is there.
pub fn legacy_magic(bytes: &[u8]) -> Option<i8> {
    bytes.get(MAGIC_POSITION).map(|magic| magic.cast_signed()).filter(|magic| matches!(magic, 0 | 1))
}
