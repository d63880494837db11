//! Record batches, version 2: the bytes on the wire, which are the bytes on disk.
//!
//! ```text
//! batch  = header (61 bytes, `header`) + records, plain or compressed as one stream (`compression`)
//! record = length, attributes, timestamp delta, offset delta, key, value, headers (`view`)
//! ```
//!
//! Reading order: `header` (one batch's first 61 bytes), `batches` (many batches in a row), `view` (the records
//! inside), those that make bytes (`builder`, `control`, `transcode`), then `validate` (what a client may send).
//!
//! Promise: no input makes anything here panic, and memory stays bounded by the input's size and the constants
//! `RECORD_BYTES_MAX` and `DECOMPRESSED_BYTES_MAX`.
//! Does not: I/O, read the clock, know topics. Source: Kafka `DefaultRecordBatch`, `DefaultRecord`.

mod aborted;
mod batches;
mod builder;
mod compression;
mod control;
mod cursor;
mod error;
mod header;
mod legacy;
mod stream;
mod transcode;
mod validate;
mod view;

pub use aborted::AbortedTransactions;
pub use batches::{Batch, Batches};
pub use builder::{BatchBuilder, BatchFull};
pub use compression::{Compression, Decompressor, compress};
pub use control::{ControlRecord, ControlType, end_transaction_batch, parse_control_batch};
pub use error::{BatchError, RecordProblem};
pub use header::{
    BATCH_HEADER_BYTES, BATCH_LENGTH_MIN, BatchHeader, LOG_OVERHEAD_BYTES, MAGIC_V2, NO_SEQUENCE,
    TimestampType, assign_offset, check_crc, increment_sequence, stamp_create_time, stamp_log_append_time,
};
pub use legacy::legacy_magic;
pub use stream::{DECOMPRESSED_BYTES_MAX, RECORD_BYTES_MAX};
pub use transcode::{Retained, emptied, retain_records, transcode};
pub use validate::{
    InvalidBatch, Stamp, ValidBatch, ValidationLimits, only_batch, recompress, validate,
    validate_header_and_crc, validate_records,
};
pub use view::{Header, Headers, RecordView, for_each_record};

#[cfg(test)]
mod tests;
