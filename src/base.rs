//! Ground words: units, varints, checksums, time and chance.
//!
//! Owns nothing. Every floor may call it; it calls nobody.

pub mod clock;
pub mod crc32c;
pub mod glob;
pub mod murmur2;
pub mod random;
pub mod units;
pub mod varint;
