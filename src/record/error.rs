//! What can be wrong with the bytes of a batch.

use super::compression::Compression;

/// Why bytes are not a readable record batch.
///
/// These are findings about bytes from a client or a disk, never about our own code. `validate::InvalidBatch` adds
/// the rules for producers and names Kafka's error code of each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes end before the batch does: a torn tail on disk, or the cut last batch of a fetch.
    #[error("the batch takes {needed_bytes} bytes but only {available_bytes} are there")]
    Truncated {
        /// Bytes that the batch (or its header) takes.
        needed_bytes: usize,
        /// Bytes that were given.
        available_bytes: usize,
    },
    /// More bytes than the one batch that was expected.
    #[error("{extra_bytes} bytes follow the batch of {size_bytes} bytes")]
    TrailingBytes {
        /// The size of the batch.
        size_bytes: usize,
        /// What follows it.
        extra_bytes: usize,
    },
    /// The magic byte is not 2: a message set from before Kafka 0.11, or no batch at all.
    #[error("the magic byte is {found}, not 2")]
    Magic {
        /// The magic byte.
        found: i8,
    },
    /// The batch length cannot hold a header.
    #[error("the batch length {found} is below the least possible 49")]
    Length {
        /// The length field.
        found: i32,
    },
    /// The record count is negative.
    #[error("the record count {found} is negative")]
    RecordCount {
        /// The count field.
        found: i32,
    },
    /// The last offset delta is negative.
    #[error("the last offset delta {found} is negative")]
    LastOffsetDelta {
        /// The field.
        found: i32,
    },
    /// The checksum does not fit the bytes.
    #[error("the batch carries CRC {stored:#010x} but its bytes give {computed:#010x}")]
    Crc {
        /// What the header says.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// The compression bits name no codec.
    #[error("unknown compression codec {id}")]
    UnknownCodec {
        /// The codec bits of the attributes.
        id: u8,
    },
    /// The compressed stream cannot be read.
    #[error("the {codec} stream is broken: {reason}")]
    Decompression {
        /// The codec of the batch.
        codec: Compression,
        /// What the decompressor says.
        reason: String,
    },
    /// The batch decompresses to more than `DECOMPRESSED_BYTES_MAX`, or rewritten takes more than its limit.
    #[error("the batch becomes larger than {limit_bytes} bytes")]
    TooLarge {
        /// The bound.
        limit_bytes: usize,
    },
    /// A record's bytes do not follow the format.
    #[error("record {index} is malformed: {problem}")]
    Record {
        /// The record's place in the batch, from 0.
        index: i32,
        /// What is wrong with it.
        problem: RecordProblem,
    },
    /// Bytes are left over after the declared count of records.
    #[error("bytes are left over after {record_count} records")]
    RecordsLeftOver {
        /// The declared count.
        record_count: i32,
    },
    /// The batch is not a control batch with a readable record.
    #[error("the control record is malformed: {reason}")]
    ControlRecord {
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// What is wrong inside one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordProblem {
    /// The bytes end before the record does.
    #[error("its bytes end too early")]
    Cut,
    /// The length of the record is negative.
    #[error("its length is negative")]
    Length,
    /// The record is larger than `RECORD_BYTES_MAX`.
    #[error("it is larger than the limit for one record")]
    TooLarge,
    /// A varint is cut, too long or too large.
    #[error("a varint is cut, too long or too large")]
    Varint,
    /// The key is longer than the record, or its length is below -1.
    #[error("its key length is wrong")]
    Key,
    /// The value is longer than the record, or its length is below -1.
    #[error("its value length is wrong")]
    Value,
    /// The header count is negative or larger than the bytes allow.
    #[error("its header count is wrong")]
    HeaderCount,
    /// A header's key or value length is wrong.
    #[error("the length of a header is wrong")]
    Header,
    /// The fields end before the record's length does.
    #[error("its length is larger than its fields")]
    LeftOver,
}
