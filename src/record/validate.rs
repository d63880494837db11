//! What a producer may send.
//!
//! Three steps, so that the dear one can go elsewhere: `only_batch` (the produce request holds exactly one batch),
//! `validate_header_and_crc` (cheap, 61 bytes and the checksum), `validate_records` (one pass of varints without
//! allocation for plain batches; a streaming decompression, best done off the shard's thread, for compressed ones).
//! `validate` is the last two in a row.
//!
//! The codes in the docs of `InvalidBatch` are what Kafka answers. Source: Kafka `ProduceRequest.validateRecords`,
//! `UnifiedLog.analyzeAndValidateRecords`, `LogValidator`, `DefaultRecordBatch`, `DefaultRecord`.

use bytes::BytesMut;

use crate::model::{LeaderEpoch, NO_TIMESTAMP, Offset};

use super::compression::{Compression, Decompressor};
use super::cursor::Cursor;
use super::error::BatchError;
use super::header::{
    BatchHeader, TimestampType, assign_offset, check_crc, stamp_create_time, stamp_log_append_time,
};
use super::legacy::legacy_magic;
use super::stream::RecordStream;
use super::transcode::transcode;
use super::view::{RecordBase, RecordView, parse_body, read_record, record_bytes};

/// The topic's rules that a batch is held against.
#[derive(Clone, Copy, Debug)]
pub struct ValidationLimits {
    /// Largest batch, header included: `max.message.bytes`.
    pub max_message_bytes: usize,
    /// Who stamps the records: `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// How far a record's timestamp may lie in the past: `message.timestamp.before.max.ms`; `i64::MAX` is no bound.
    pub timestamp_before_max_ms: i64,
    /// How far a record's timestamp may lie in the future: `message.timestamp.after.max.ms`; `i64::MAX` is no bound.
    pub timestamp_after_max_ms: i64,
    /// The server's clock.
    pub now_ms: i64,
    /// Whether every record needs a key, as in a compacted topic.
    pub requires_keys: bool,
}

/// Why a producer's batch is refused, with Kafka's error code for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBatch {
    /// There is no whole batch at all. INVALID_RECORD.
    #[error("the produce request has no whole record batch")]
    NoBatch,
    /// Something follows the first batch. INVALID_RECORD.
    #[error("the produce request has more than one record batch: {extra_bytes} bytes follow the first")]
    MoreThanOneBatch {
        /// Bytes behind the first batch.
        extra_bytes: usize,
    },
    /// A message set of the time before Kafka 0.11. INVALID_RECORD (that is how produce version 3 and later answers
    /// it; UNSUPPORTED_FOR_MESSAGE_FORMAT is about topics that are stored in the old format, which we do not have).
    #[error("record batches need magic 2, this one has {magic}")]
    LegacyMagic {
        /// 0 or 1.
        magic: i8,
    },
    /// Magic, lengths or checksum are wrong, so this is no batch or a damaged one. CORRUPT_MESSAGE.
    #[error("the batch is corrupt: {0}")]
    Corrupt(#[source] BatchError),
    /// Larger than `max.message.bytes`. MESSAGE_TOO_LARGE.
    #[error("the batch has {size_bytes} bytes, more than the topic's limit of {limit_bytes}")]
    TooLarge {
        /// The batch's size.
        size_bytes: usize,
        /// The topic's limit.
        limit_bytes: usize,
    },
    /// The codec bits are 5 to 7. UNSUPPORTED_COMPRESSION_TYPE (Kafka: UNKNOWN_SERVER_ERROR, by an exception that
    /// nobody meant to reach a client).
    #[error("unknown compression codec {id}")]
    UnknownCodec {
        /// The codec bits.
        id: u8,
    },
    /// Compressed rubbish, or more than `DECOMPRESSED_BYTES_MAX` of it. INVALID_RECORD. (Kafka: UNKNOWN_SERVER_ERROR,
    /// likewise. Both end the producer's attempts; CORRUPT_MESSAGE would have it send the same bytes for two minutes,
    /// and the CRC says that they are what it meant to send.)
    #[error("the compressed records cannot be read: {0}")]
    Decompression(#[source] BatchError),
    /// A producer's base offset is not 0. INVALID_RECORD.
    #[error("the base offset of a producer's batch should be 0, but it is {base_offset}")]
    BaseOffset {
        /// The field.
        base_offset: Offset,
    },
    /// The batch has no records, or a negative count of them. INVALID_RECORD.
    #[error("the batch has {record_count} records")]
    NoRecords {
        /// The field.
        record_count: i32,
    },
    /// Record count and last offset delta contradict each other. INVALID_RECORD.
    #[error("the batch has {record_count} records but a last offset delta of {last_offset_delta}")]
    OffsetRange {
        /// The count.
        record_count: i32,
        /// The delta, which should be the count less 1.
        last_offset_delta: i32,
    },
    /// Clients do not write control batches. INVALID_RECORD.
    #[error("clients are not allowed to write control records")]
    ControlBatch,
    /// A producer id without a sequence. INVALID_RECORD.
    #[error("the batch has a producer id and the invalid base sequence {base_sequence}")]
    BaseSequence {
        /// The field.
        base_sequence: i32,
    },
    /// A record does not follow the format, or bytes follow the last one. INVALID_RECORD.
    #[error("{0}")]
    MalformedRecord(#[source] BatchError),
    /// The records are not numbered 0, 1, 2, ... INVALID_RECORD. (Kafka does not look at plain records and stores the
    /// wrong numbers; on compressed ones it means to write the batch anew, which 4.3 fails at with
    /// UNKNOWN_SERVER_ERROR.)
    #[error("record {index} has offset delta {offset_delta}")]
    OffsetDelta {
        /// The record's place in the batch.
        index: i32,
        /// What it says of itself.
        offset_delta: i32,
    },
    /// A record without a key for a compacted topic. INVALID_RECORD.
    #[error("record {index} has no key, which a compacted topic does not accept")]
    KeyMissing {
        /// The record's place in the batch.
        index: i32,
    },
    /// A timestamp outside the topic's range. INVALID_TIMESTAMP.
    #[error("timestamp {timestamp} of record {index} is out of range [{earliest}, {latest}]")]
    Timestamp {
        /// The record's place in the batch.
        index: i32,
        /// Its timestamp.
        timestamp: i64,
        /// The earliest that is accepted now.
        earliest: i64,
        /// The latest that is accepted now.
        latest: i64,
    },
    /// A producer set timestamp type LogAppendTime. INVALID_TIMESTAMP.
    #[error("producers should not set the timestamp type to LogAppendTime")]
    TimestampType,
}

impl InvalidBatch {
    /// The record that is to blame, for the record errors of a produce response.
    pub fn record_index(&self) -> Option<i32> {
        match *self {
            InvalidBatch::MalformedRecord(BatchError::Record { index, .. })
            | InvalidBatch::OffsetDelta { index, .. }
            | InvalidBatch::KeyMissing { index }
            | InvalidBatch::Timestamp { index, .. } => Some(index),
            _ => None,
        }
    }
}

/// What has to be written into a batch so that its timestamp fields tell the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// Nothing: the producer's header is right, and so is its CRC.
    Keep,
    /// The producer's max timestamp or type is not what the records say (`stamp_create_time`).
    CreateTime {
        /// What the records say.
        max_timestamp: i64,
    },
    /// The topic has the server's time (`stamp_log_append_time`).
    LogAppendTime {
        /// The server's clock.
        now_ms: i64,
    },
}

/// A batch that may be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValidBatch {
    /// The header as the producer sent it.
    pub header: BatchHeader,
    /// What `assign` will write into the timestamp fields.
    pub stamp: Stamp,
    /// Largest timestamp of the batch once it is stamped, for the time index; -1 for none.
    pub max_timestamp: i64,
}

impl ValidBatch {
    /// Makes the producer's batch the log's: stamps it, gives it its offset and leader epoch, and returns the header
    /// as it now is. `batch` is the slice that was validated.
    pub fn assign(&self, batch: &mut [u8], base_offset: Offset, leader_epoch: LeaderEpoch) -> BatchHeader {
        match self.stamp {
            Stamp::Keep => {}
            Stamp::CreateTime { max_timestamp } => stamp_create_time(batch, max_timestamp),
            Stamp::LogAppendTime { now_ms } => stamp_log_append_time(batch, now_ms),
        }
        assign_offset(batch, base_offset, leader_epoch);
        BatchHeader::parse(batch).unwrap_or(self.header)
    }
}

/// The one whole batch that a produce request must hold for a partition.
///
/// Bytes behind it that do not make a whole batch are cut off, as Kafka does.
///
/// # Errors
/// `NoBatch`, `LegacyMagic`, `MoreThanOneBatch`, and `Corrupt` for lengths and magic bytes that cannot be.
pub fn only_batch(records: &[u8]) -> Result<&[u8], InvalidBatch> {
    let batch = first_batch(records)?.ok_or(InvalidBatch::NoBatch)?;
    let behind = records.get(batch.len()..).unwrap_or_default();
    match first_batch(behind) {
        Ok(None) => Ok(batch),
        Ok(Some(_)) | Err(_) => Err(InvalidBatch::MoreThanOneBatch { extra_bytes: behind.len() }),
    }
}

fn first_batch(records: &[u8]) -> Result<Option<&[u8]>, InvalidBatch> {
    if let Some(magic) = legacy_magic(records) {
        return Err(InvalidBatch::LegacyMagic { magic });
    }
    match BatchHeader::decode(records) {
        Ok(header) => Ok(records.get(..header.size_bytes())),
        Err(BatchError::Truncated { .. }) => Ok(None),
        Err(error) => Err(InvalidBatch::Corrupt(error)),
    }
}

/// Checks one batch wholly; see the two halves.
///
/// # Errors
/// Those of `validate_header_and_crc` and `validate_records`.
pub fn validate(batch: &[u8], limits: &ValidationLimits) -> Result<ValidBatch, InvalidBatch> {
    let header = validate_header_and_crc(batch, limits)?;
    validate_records(batch, &header, limits)
}

/// A valid batch under another codec: config `compression.type` where it is not `producer`. Belongs off the shard's thread.
///
/// # Errors
/// `TooLarge` when the new batch is larger than `size_bytes_max`; `Decompression`.
pub fn recompress(
    batch: &[u8],
    valid: &ValidBatch,
    codec: Compression,
    size_bytes_max: usize,
) -> Result<(BytesMut, ValidBatch), InvalidBatch> {
    let recompressed = transcode(batch, codec, size_bytes_max).map_err(|error| match error {
        BatchError::TooLarge { limit_bytes } => {
            InvalidBatch::TooLarge { size_bytes: limit_bytes.saturating_add(1), limit_bytes }
        }
        error => InvalidBatch::Decompression(error),
    })?;
    let header = BatchHeader::parse(&recompressed).map_err(InvalidBatch::Corrupt)?;
    Ok((recompressed, ValidBatch { header, ..*valid }))
}

/// The first half: everything that needs no record.
///
/// `batch` is exactly one batch (see `only_batch`). The order is Kafka's: what the CRC covers is judged only once the
/// CRC holds, so that bytes that were damaged on the way are CORRUPT_MESSAGE, which producers send again.
///
/// # Errors
/// `LegacyMagic`, `NoBatch`, `MoreThanOneBatch`, `Corrupt`, `TooLarge`, `UnknownCodec`, `BaseOffset`, `NoRecords`,
/// `OffsetRange`, `ControlBatch`, `BaseSequence`, `TimestampType`.
pub fn validate_header_and_crc(batch: &[u8], limits: &ValidationLimits) -> Result<BatchHeader, InvalidBatch> {
    if let Some(magic) = legacy_magic(batch) {
        return Err(InvalidBatch::LegacyMagic { magic });
    }
    let header = BatchHeader::decode(batch).map_err(|error| match error {
        BatchError::Truncated { .. } => InvalidBatch::NoBatch,
        other => InvalidBatch::Corrupt(other),
    })?;
    let size_bytes = header.size_bytes();
    match batch.len().checked_sub(size_bytes) {
        None => return Err(InvalidBatch::NoBatch),
        Some(0) => {}
        Some(extra_bytes) => return Err(InvalidBatch::MoreThanOneBatch { extra_bytes }),
    }
    if header.base_offset != 0 {
        return Err(InvalidBatch::BaseOffset { base_offset: header.base_offset });
    }
    if size_bytes > limits.max_message_bytes {
        return Err(InvalidBatch::TooLarge { size_bytes, limit_bytes: limits.max_message_bytes });
    }
    check_crc(batch, &header).map_err(InvalidBatch::Corrupt)?;

    let BatchHeader { record_count, last_offset_delta, base_sequence, .. } = header;
    if let Err(BatchError::UnknownCodec { id }) = header.compression() {
        return Err(InvalidBatch::UnknownCodec { id });
    }
    if record_count <= 0 {
        return Err(InvalidBatch::NoRecords { record_count });
    }
    if last_offset_delta != record_count - 1 {
        return Err(InvalidBatch::OffsetRange { record_count, last_offset_delta });
    }
    if header.is_control() {
        return Err(InvalidBatch::ControlBatch);
    }
    if header.has_producer_id() && base_sequence < 0 {
        return Err(InvalidBatch::BaseSequence { base_sequence });
    }
    // In a topic with the producers' time Kafka lets the type pass and corrects it, unless there is no time at all.
    let has_server_time = limits.timestamp_type == TimestampType::LogAppendTime;
    if header.timestamp_type() == TimestampType::LogAppendTime
        && (has_server_time || header.max_timestamp == NO_TIMESTAMP)
    {
        return Err(InvalidBatch::TimestampType);
    }
    Ok(header)
}

/// The second half: every record, decompressed in a window where it must be.
///
/// # Errors
/// `MalformedRecord`, `Decompression`, `OffsetDelta`, `KeyMissing`, `Timestamp`, `TimestampType`.
pub fn validate_records(
    batch: &[u8],
    header: &BatchHeader,
    limits: &ValidationLimits,
) -> Result<ValidBatch, InvalidBatch> {
    let records = record_bytes(batch, header).map_err(InvalidBatch::Corrupt)?;
    let mut check = RecordCheck::new(limits);
    let codec = header.compression().map_err(InvalidBatch::Corrupt)?;
    match codec {
        Compression::None => validate_plain(records, header, &mut check)?,
        codec => validate_compressed(codec, records, header, &mut check)?,
    }
    Ok(check.finish(header))
}

fn validate_plain(
    records: &[u8],
    header: &BatchHeader,
    check: &mut RecordCheck<'_>,
) -> Result<(), InvalidBatch> {
    let base = RecordBase::of(header);
    let mut cursor = Cursor::new(records);
    for index in 0..header.record_count {
        let record = read_record(&mut cursor, &base)
            .map_err(|problem| InvalidBatch::MalformedRecord(BatchError::Record { index, problem }))?;
        check.record(index, &record)?;
    }
    if cursor.is_empty() {
        Ok(())
    } else {
        let record_count = header.record_count;
        Err(InvalidBatch::MalformedRecord(BatchError::RecordsLeftOver { record_count }))
    }
}

fn validate_compressed(
    codec: Compression,
    records: &[u8],
    header: &BatchHeader,
    check: &mut RecordCheck<'_>,
) -> Result<(), InvalidBatch> {
    let base = RecordBase::of(header);
    let decompressor = Decompressor::new(codec, records).map_err(blame)?;
    let mut stream = RecordStream::new(decompressor, codec, records.len());
    for index in 0..header.record_count {
        let body = stream.next_body(index).map_err(blame)?;
        let record = parse_body(body, &base)
            .map_err(|problem| InvalidBatch::MalformedRecord(BatchError::Record { index, problem }))?;
        check.record(index, &record)?;
    }
    stream.expect_end(header.record_count).map_err(blame)
}

/// Sorts what the stream of records found: the codec's trouble or the records'.
fn blame(error: BatchError) -> InvalidBatch {
    match error {
        BatchError::Decompression { .. } | BatchError::TooLarge { .. } => InvalidBatch::Decompression(error),
        other => InvalidBatch::MalformedRecord(other),
    }
}

/// The rules for single records.
struct RecordCheck<'a> {
    limits: &'a ValidationLimits,
    earliest: i64,
    latest: i64,
    max_timestamp: i64,
}

impl<'a> RecordCheck<'a> {
    fn new(limits: &'a ValidationLimits) -> Self {
        let (mut earliest, mut latest) = (i64::MIN, i64::MAX);
        // Where the server stamps, its time takes the place of whatever the records say.
        if limits.timestamp_type == TimestampType::CreateTime {
            if limits.timestamp_before_max_ms < i64::MAX {
                earliest = limits.now_ms.saturating_sub(limits.timestamp_before_max_ms);
            }
            if limits.timestamp_after_max_ms < i64::MAX {
                latest = limits.now_ms.saturating_add(limits.timestamp_after_max_ms);
            }
        }
        RecordCheck { limits, earliest, latest, max_timestamp: NO_TIMESTAMP }
    }

    #[inline]
    fn record(&mut self, index: i32, record: &RecordView<'_>) -> Result<(), InvalidBatch> {
        let &RecordView { offset_delta, timestamp, key, .. } = record;
        if offset_delta != index {
            return Err(InvalidBatch::OffsetDelta { index, offset_delta });
        }
        if self.limits.requires_keys && key.is_none() {
            return Err(InvalidBatch::KeyMissing { index });
        }
        if (timestamp < self.earliest || timestamp > self.latest) && timestamp != NO_TIMESTAMP {
            let (earliest, latest) = (self.earliest, self.latest);
            return Err(InvalidBatch::Timestamp { index, timestamp, earliest, latest });
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        Ok(())
    }

    fn finish(self, header: &BatchHeader) -> ValidBatch {
        let stamp = match self.limits.timestamp_type {
            TimestampType::LogAppendTime => Stamp::LogAppendTime { now_ms: self.limits.now_ms },
            TimestampType::CreateTime
                if header.timestamp_type() == TimestampType::CreateTime
                    && header.max_timestamp == self.max_timestamp =>
            {
                Stamp::Keep
            }
            TimestampType::CreateTime => Stamp::CreateTime { max_timestamp: self.max_timestamp },
        };
        let max_timestamp = match stamp {
            Stamp::LogAppendTime { now_ms } => now_ms,
            Stamp::Keep | Stamp::CreateTime { .. } => self.max_timestamp,
        };
        ValidBatch { header: *header, stamp, max_timestamp }
    }
}
