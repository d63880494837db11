//! The first 61 bytes of a record batch.
//!
//! ```text
//!  position  bytes  field                  covered by the CRC
//!         0      8  base offset            no: assigned by the server
//!         8      4  batch length           no: counts the bytes after itself
//!        12      4  partition leader epoch no: assigned by the server
//!        16      1  magic = 2              no
//!        17      4  CRC-32C                -  of everything from the attributes to the end
//!        21      2  attributes             yes
//!        23      4  last offset delta      yes
//!        27      8  base timestamp         yes
//!        35      8  max timestamp          yes
//!        43      8  producer id            yes
//!        51      2  producer epoch         yes
//!        53      4  base sequence          yes
//!        57      4  record count           yes
//!        61         records                yes
//!
//! attributes: bits 0-2 codec | 3 timestamp type | 4 transactional | 5 control | 6 delete horizon | 7-15 unused
//! ```
//!
//! All integers are big endian. Source: Kafka `DefaultRecordBatch`, KIP-98, KIP-534 (delete horizon).

use crate::base::crc32c;
use crate::model::{LeaderEpoch, NO_PRODUCER_ID, Offset, ProducerEpoch, ProducerId};

use super::compression::Compression;
use super::error::BatchError;

pub(super) const BASE_OFFSET_POSITION: usize = 0;
pub(super) const LENGTH_POSITION: usize = BASE_OFFSET_POSITION + size_of::<Offset>();
pub(super) const LEADER_EPOCH_POSITION: usize = LENGTH_POSITION + size_of::<i32>();
pub(super) const MAGIC_POSITION: usize = LEADER_EPOCH_POSITION + size_of::<LeaderEpoch>();
pub(super) const CRC_POSITION: usize = MAGIC_POSITION + size_of::<i8>();
pub(super) const ATTRIBUTES_POSITION: usize = CRC_POSITION + size_of::<u32>();
pub(super) const LAST_OFFSET_DELTA_POSITION: usize = ATTRIBUTES_POSITION + size_of::<i16>();
pub(super) const BASE_TIMESTAMP_POSITION: usize = LAST_OFFSET_DELTA_POSITION + size_of::<i32>();
pub(super) const MAX_TIMESTAMP_POSITION: usize = BASE_TIMESTAMP_POSITION + size_of::<i64>();
pub(super) const PRODUCER_ID_POSITION: usize = MAX_TIMESTAMP_POSITION + size_of::<i64>();
pub(super) const PRODUCER_EPOCH_POSITION: usize = PRODUCER_ID_POSITION + size_of::<ProducerId>();
pub(super) const BASE_SEQUENCE_POSITION: usize = PRODUCER_EPOCH_POSITION + size_of::<ProducerEpoch>();
pub(super) const RECORD_COUNT_POSITION: usize = BASE_SEQUENCE_POSITION + size_of::<i32>();

/// Bytes before the first record.
pub const BATCH_HEADER_BYTES: usize = RECORD_COUNT_POSITION + size_of::<i32>();
/// Bytes that the batch length does not count: the base offset and the length itself.
pub const LOG_OVERHEAD_BYTES: usize = LENGTH_POSITION + size_of::<i32>();
/// The least value of the batch length field: a header without records.
pub const BATCH_LENGTH_MIN: i32 = (BATCH_HEADER_BYTES - LOG_OVERHEAD_BYTES) as i32;
/// The only magic byte that is served.
pub const MAGIC_V2: i8 = 2;
/// "No sequence" on the wire and on disk.
pub const NO_SEQUENCE: i32 = -1;

const _: () = assert!(BATCH_HEADER_BYTES == 61 && LOG_OVERHEAD_BYTES == 12 && BATCH_LENGTH_MIN == 49);

pub(super) const CODEC_MASK: i16 = 0b0000_0111;
pub(super) const LOG_APPEND_TIME_BIT: i16 = 0b0000_1000;
pub(super) const TRANSACTIONAL_BIT: i16 = 0b0001_0000;
pub(super) const CONTROL_BIT: i16 = 0b0010_0000;
pub(super) const DELETE_HORIZON_BIT: i16 = 0b0100_0000;

/// Who gave the records their timestamps: config `message.timestamp.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TimestampType {
    /// The producer.
    #[default]
    CreateTime,
    /// The server; every record of the batch has the batch's max timestamp.
    LogAppendTime,
}

/// The decoded first 61 bytes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record that the batch had when it was written.
    pub base_offset: Offset,
    /// Bytes that follow this field.
    pub batch_length: i32,
    /// The epoch of the leader that appended the batch.
    pub leader_epoch: LeaderEpoch,
    /// Format version; always 2 after `parse`.
    pub magic: i8,
    /// CRC-32C of everything behind it.
    pub crc: u32,
    /// Codec and flags.
    pub attributes: i16,
    /// Last offset minus base offset, kept when compaction removes records; the sequences count the same way.
    pub last_offset_delta: i32,
    /// Timestamp that the records' deltas count from; the delete horizon where bit 6 is set.
    pub base_timestamp: i64,
    /// Largest timestamp of the records, or the append time.
    pub max_timestamp: i64,
    /// Producer id, -1 for none.
    pub producer_id: ProducerId,
    /// Producer epoch, -1 for none.
    pub producer_epoch: ProducerEpoch,
    /// Sequence of the first record, -1 for none.
    pub base_sequence: i32,
    /// Records in the batch; may be 0 in a batch that compaction emptied.
    pub record_count: i32,
}

impl BatchHeader {
    /// Decodes a header and checks what can be checked without the records: the magic byte, the least length, and
    /// that neither count nor last offset delta is negative.
    ///
    /// `bytes` may end anywhere behind the header; whether the whole batch is there is `Batches`' question.
    ///
    /// # Errors
    /// `Magic` as soon as 17 bytes tell it, `Truncated` below 61 bytes, `Length`, `LastOffsetDelta`, `RecordCount`.
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        let header = BatchHeader::decode(bytes)?;
        if header.last_offset_delta < 0 {
            return Err(BatchError::LastOffsetDelta { found: header.last_offset_delta });
        }
        if header.record_count < 0 {
            return Err(BatchError::RecordCount { found: header.record_count });
        }
        Ok(header)
    }

    /// `parse` without a look at the counts, for a header whose CRC is yet to be checked.
    pub(super) fn decode(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        if let Some(&magic) = bytes.get(MAGIC_POSITION)
            && magic.cast_signed() != MAGIC_V2
        {
            return Err(BatchError::Magic { found: magic.cast_signed() });
        }
        let Some(header) = bytes.first_chunk::<BATCH_HEADER_BYTES>() else {
            return Err(BatchError::Truncated {
                needed_bytes: BATCH_HEADER_BYTES,
                available_bytes: bytes.len(),
            });
        };
        let header = BatchHeader {
            base_offset: i64::from_be_bytes(field::<BASE_OFFSET_POSITION, 8>(header)),
            batch_length: i32::from_be_bytes(field::<LENGTH_POSITION, 4>(header)),
            leader_epoch: i32::from_be_bytes(field::<LEADER_EPOCH_POSITION, 4>(header)),
            magic: i8::from_be_bytes(field::<MAGIC_POSITION, 1>(header)),
            crc: u32::from_be_bytes(field::<CRC_POSITION, 4>(header)),
            attributes: i16::from_be_bytes(field::<ATTRIBUTES_POSITION, 2>(header)),
            last_offset_delta: i32::from_be_bytes(field::<LAST_OFFSET_DELTA_POSITION, 4>(header)),
            base_timestamp: i64::from_be_bytes(field::<BASE_TIMESTAMP_POSITION, 8>(header)),
            max_timestamp: i64::from_be_bytes(field::<MAX_TIMESTAMP_POSITION, 8>(header)),
            producer_id: i64::from_be_bytes(field::<PRODUCER_ID_POSITION, 8>(header)),
            producer_epoch: i16::from_be_bytes(field::<PRODUCER_EPOCH_POSITION, 2>(header)),
            base_sequence: i32::from_be_bytes(field::<BASE_SEQUENCE_POSITION, 4>(header)),
            record_count: i32::from_be_bytes(field::<RECORD_COUNT_POSITION, 4>(header)),
        };
        if header.batch_length < BATCH_LENGTH_MIN {
            return Err(BatchError::Length { found: header.batch_length });
        }
        Ok(header)
    }

    /// Writes the header over the first 61 bytes of `out`, as it stands (the CRC is not computed).
    pub(super) fn write(&self, out: &mut [u8; BATCH_HEADER_BYTES]) {
        put(out, BASE_OFFSET_POSITION, self.base_offset.to_be_bytes());
        put(out, LENGTH_POSITION, self.batch_length.to_be_bytes());
        put(out, LEADER_EPOCH_POSITION, self.leader_epoch.to_be_bytes());
        put(out, MAGIC_POSITION, self.magic.to_be_bytes());
        put(out, CRC_POSITION, self.crc.to_be_bytes());
        put(out, ATTRIBUTES_POSITION, self.attributes.to_be_bytes());
        put(out, LAST_OFFSET_DELTA_POSITION, self.last_offset_delta.to_be_bytes());
        put(out, BASE_TIMESTAMP_POSITION, self.base_timestamp.to_be_bytes());
        put(out, MAX_TIMESTAMP_POSITION, self.max_timestamp.to_be_bytes());
        put(out, PRODUCER_ID_POSITION, self.producer_id.to_be_bytes());
        put(out, PRODUCER_EPOCH_POSITION, self.producer_epoch.to_be_bytes());
        put(out, BASE_SEQUENCE_POSITION, self.base_sequence.to_be_bytes());
        put(out, RECORD_COUNT_POSITION, self.record_count.to_be_bytes());
    }

    /// Bytes of the whole batch, header included.
    pub fn size_bytes(&self) -> usize {
        LOG_OVERHEAD_BYTES + usize::try_from(self.batch_length).unwrap_or(0)
    }

    /// Offset of the last record that the batch had when it was written.
    pub fn last_offset(&self) -> Offset {
        self.base_offset.wrapping_add(i64::from(self.last_offset_delta))
    }

    /// The offset behind the batch.
    pub fn next_offset(&self) -> Offset {
        self.last_offset().wrapping_add(1)
    }

    /// Sequence of the last record, -1 without sequences. Behind `i32::MAX` comes 0, as in Kafka.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence == NO_SEQUENCE {
            return NO_SEQUENCE;
        }
        increment_sequence(self.base_sequence, self.last_offset_delta)
    }

    /// The codec of the records.
    ///
    /// # Errors
    /// `UnknownCodec` for codec bits 5 to 7.
    pub fn compression(&self) -> Result<Compression, BatchError> {
        Compression::from_attributes(self.attributes)
    }

    /// Who gave the records their timestamps.
    pub fn timestamp_type(&self) -> TimestampType {
        if self.has(LOG_APPEND_TIME_BIT) { TimestampType::LogAppendTime } else { TimestampType::CreateTime }
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.has(TRANSACTIONAL_BIT)
    }

    /// Whether the records are the server's own marks (commit, abort), hidden from applications.
    pub fn is_control(&self) -> bool {
        self.has(CONTROL_BIT)
    }

    /// Whether an idempotent or transactional producer sent the batch.
    pub fn has_producer_id(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }

    /// When compaction may drop the tombstones and markers of this batch; then `base_timestamp` holds that time.
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        self.has(DELETE_HORIZON_BIT).then_some(self.base_timestamp)
    }

    /// The timestamp that all records share, if the server stamped them.
    pub fn log_append_time(&self) -> Option<i64> {
        match self.timestamp_type() {
            TimestampType::CreateTime => None,
            TimestampType::LogAppendTime => Some(self.max_timestamp),
        }
    }

    fn has(&self, bit: i16) -> bool {
        self.attributes & bit != 0
    }
}

/// The sequence `increment` places behind `sequence`; behind `i32::MAX` comes 0 (Kafka `incrementSequence`).
pub fn increment_sequence(sequence: i32, increment: i32) -> i32 {
    // Neither is negative, so the masked sum is the sum modulo 2^31.
    sequence.wrapping_add(increment) & i32::MAX
}

/// Checks the CRC-32C of the batch at the start of `batch`.
///
/// # Errors
/// `Crc` when the bytes do not fit it, `Truncated` when they are not all there.
pub fn check_crc(batch: &[u8], header: &BatchHeader) -> Result<(), BatchError> {
    let covered = batch
        .get(ATTRIBUTES_POSITION..header.size_bytes())
        .ok_or(BatchError::Truncated { needed_bytes: header.size_bytes(), available_bytes: batch.len() })?;
    let computed = crc32c::checksum(covered);
    if computed == header.crc { Ok(()) } else { Err(BatchError::Crc { stored: header.crc, computed }) }
}

/// Gives the batch its place in the partition. Both fields lie outside the CRC, so nothing else changes.
///
/// `batch` starts with a batch that was validated; too short a slice is a mistake of the caller and stays as it is.
pub fn assign_offset(batch: &mut [u8], base_offset: Offset, leader_epoch: LeaderEpoch) {
    let Some(header) = batch.first_chunk_mut::<BATCH_HEADER_BYTES>() else {
        debug_assert!(false, "assign_offset needs a whole batch");
        return;
    };
    put(header, BASE_OFFSET_POSITION, base_offset.to_be_bytes());
    put(header, LEADER_EPOCH_POSITION, leader_epoch.to_be_bytes());
}

/// Stamps the batch with the server's time: sets attribute bit 3 and the max timestamp, and computes the CRC anew.
///
/// `batch` is exactly one batch that was validated.
pub fn stamp_log_append_time(batch: &mut [u8], now_ms: i64) {
    stamp(batch, LOG_APPEND_TIME_BIT, now_ms);
}

/// Corrects the max timestamp to what the records say, clears attribute bit 3, and computes the CRC anew.
///
/// `batch` is exactly one batch that was validated.
pub fn stamp_create_time(batch: &mut [u8], max_timestamp: i64) {
    stamp(batch, 0, max_timestamp);
}

fn stamp(batch: &mut [u8], timestamp_type_bit: i16, max_timestamp: i64) {
    let Some(header) = batch.first_chunk_mut::<BATCH_HEADER_BYTES>() else {
        debug_assert!(false, "a stamp needs a whole batch");
        return;
    };
    let attributes = i16::from_be_bytes(field::<ATTRIBUTES_POSITION, 2>(header));
    let attributes = attributes & !LOG_APPEND_TIME_BIT | timestamp_type_bit;
    put(header, ATTRIBUTES_POSITION, attributes.to_be_bytes());
    put(header, MAX_TIMESTAMP_POSITION, max_timestamp.to_be_bytes());
    write_crc(batch);
}

/// Computes the CRC of the one batch that `batch` is and writes it into its place.
pub(super) fn write_crc(batch: &mut [u8]) {
    let Some((header, covered)) = batch.split_at_mut_checked(ATTRIBUTES_POSITION) else { return };
    let crc = crc32c::checksum(covered);
    if let Some(place) = header.get_mut(CRC_POSITION..) {
        place.copy_from_slice(&crc.to_be_bytes());
    }
}

/// The `BYTES` bytes at `POSITION`; that they lie in the header is checked when this is compiled.
#[inline]
fn field<const POSITION: usize, const BYTES: usize>(header: &[u8; BATCH_HEADER_BYTES]) -> [u8; BYTES] {
    const { assert!(POSITION + BYTES <= BATCH_HEADER_BYTES) };
    let mut bytes = [0; BYTES];
    bytes.copy_from_slice(&header[POSITION..POSITION + BYTES]);
    bytes
}

/// Puts a field at one of the position constants.
#[inline]
fn put<const BYTES: usize>(header: &mut [u8; BATCH_HEADER_BYTES], position: usize, bytes: [u8; BYTES]) {
    header[position..position + BYTES].copy_from_slice(&bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_to_zero_behind_the_largest() {
        assert_eq!(increment_sequence(5, 3), 8);
        assert_eq!(increment_sequence(i32::MAX - 1, 1), i32::MAX);
        assert_eq!(increment_sequence(i32::MAX, 1), 0);
        assert_eq!(increment_sequence(i32::MAX - 2, 10), 7);
        assert_eq!(increment_sequence(i32::MAX, i32::MAX), i32::MAX - 1);
    }

    #[test]
    fn a_header_is_written_as_it_is_read() {
        let header = BatchHeader {
            base_offset: 0x0102_0304_0506_0708,
            batch_length: 1000,
            leader_epoch: 9,
            magic: MAGIC_V2,
            crc: 0xdead_beef,
            attributes: CONTROL_BIT | TRANSACTIONAL_BIT | DELETE_HORIZON_BIT | 4,
            last_offset_delta: 11,
            base_timestamp: -12,
            max_timestamp: 13,
            producer_id: 14,
            producer_epoch: 15,
            base_sequence: i32::MAX,
            record_count: 12,
        };
        let mut bytes = [0; BATCH_HEADER_BYTES];
        header.write(&mut bytes);
        assert_eq!(BatchHeader::parse(&bytes), Ok(header));
        assert_eq!(bytes[..8], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!((bytes[16], &bytes[17..21]), (2, [0xde, 0xad, 0xbe, 0xef].as_slice()));
        assert_eq!((header.size_bytes(), header.next_offset()), (1012, 0x0102_0304_0506_0714));
        assert!(header.is_control() && header.is_transactional() && header.has_producer_id());
        assert_eq!((header.compression(), header.delete_horizon_ms()), (Ok(Compression::Zstd), Some(-12)));
        assert_eq!((header.timestamp_type(), header.last_sequence()), (TimestampType::CreateTime, 10));
    }
}
