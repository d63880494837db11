//! Control batches: the marks by which the server ends a transaction in a partition.
//!
//! ```text
//! key   = version i16 (0) | type i16 (0 abort, 1 commit, others: Kafka's own quorum)
//! value = version i16 (0) | coordinator epoch i32          (of abort and commit)
//! ```
//!
//! A control batch has attribute bit 5 and one record. Source: Kafka `ControlRecordType`, `EndTransactionMarker`,
//! `MemoryRecords.writeEndTransactionalMarker`; KIP-98.

use std::ops::ControlFlow;

use bytes::BytesMut;

use crate::model::{ProducerEpoch, ProducerId};

use super::builder::BatchBuilder;
use super::compression::Compression;
use super::error::BatchError;
use super::header::{BatchHeader, NO_SEQUENCE};
use super::view::{Headers, RecordView, for_each_record_of};

const KEY_VERSION: i16 = 0;
const MARKER_VERSION: i16 = 0;
const ABORT_TYPE: i16 = 0;
const COMMIT_TYPE: i16 = 1;

/// What a control record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlType {
    /// The producer's open transaction is void.
    Abort,
    /// The producer's open transaction holds.
    Commit,
    /// A type that this server does not write; readers skip it.
    Other(i16),
}

/// A control record, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlRecord {
    /// What it says.
    pub control_type: ControlType,
    /// The epoch of the transaction coordinator that wrote it; 0 where the type has none.
    pub coordinator_epoch: i32,
}

/// The batch that ends a producer's transaction in one partition: transactional, control, without sequence.
pub fn end_transaction_batch(
    producer_id: ProducerId,
    producer_epoch: ProducerEpoch,
    commits: bool,
    coordinator_epoch: i32,
    now_ms: i64,
) -> BytesMut {
    let [v1, v2] = KEY_VERSION.to_be_bytes();
    let [t1, t2] = if commits { COMMIT_TYPE } else { ABORT_TYPE }.to_be_bytes();
    let [m1, m2] = MARKER_VERSION.to_be_bytes();
    let [e1, e2, e3, e4] = coordinator_epoch.to_be_bytes();
    let mut builder = BatchBuilder::new(Compression::None)
        .with_producer(producer_id, producer_epoch, NO_SEQUENCE)
        .transactional()
        .control();
    let key = [v1, v2, t1, t2];
    let value = [m1, m2, e1, e2, e3, e4];
    let appended = builder.append(now_ms, Some(&key), Some(&value), Headers::NONE);
    debug_assert!(appended.is_ok(), "ten bytes fit a batch");
    builder.finish()
}

/// Reads the first record of a control batch.
///
/// # Errors
/// `ControlRecord` when the batch is no control batch or its record has not the form above; else as
/// `for_each_record`.
pub fn parse_control_batch(batch: &[u8]) -> Result<ControlRecord, BatchError> {
    let header = BatchHeader::parse(batch)?;
    if !header.is_control() {
        return Err(BatchError::ControlRecord { reason: "the batch is not a control batch" });
    }
    let mut found = Err(BatchError::ControlRecord { reason: "the batch has no record" });
    for_each_record_of(batch, &header, |record| {
        found = parse_record(&record);
        ControlFlow::Break(())
    })?;
    found
}

fn parse_record(record: &RecordView<'_>) -> Result<ControlRecord, BatchError> {
    let malformed = |reason| BatchError::ControlRecord { reason };
    // Longer keys and values are newer versions, whose beginnings stay the same.
    let Some(&[v1, v2, t1, t2]) = record.key.and_then(<[u8]>::first_chunk) else {
        return Err(malformed("the key is cut"));
    };
    if i16::from_be_bytes([v1, v2]) < 0 {
        return Err(malformed("the version of the key is negative"));
    }
    let control_type = match i16::from_be_bytes([t1, t2]) {
        ABORT_TYPE => ControlType::Abort,
        COMMIT_TYPE => ControlType::Commit,
        other => return Ok(ControlRecord { control_type: ControlType::Other(other), coordinator_epoch: 0 }),
    };
    let Some(&[v1, v2, e1, e2, e3, e4]) = record.value.and_then(<[u8]>::first_chunk) else {
        return Err(malformed("the value is cut"));
    };
    if i16::from_be_bytes([v1, v2]) < 0 {
        return Err(malformed("the version of the value is negative"));
    }
    Ok(ControlRecord { control_type, coordinator_epoch: i32::from_be_bytes([e1, e2, e3, e4]) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Header;

    #[test]
    fn what_ends_a_transaction_is_read_back() {
        for commits in [true, false] {
            let batch = end_transaction_batch(77, 4, commits, 12, 1000);
            let control_type = if commits { ControlType::Commit } else { ControlType::Abort };
            assert_eq!(
                parse_control_batch(&batch),
                Ok(ControlRecord { control_type, coordinator_epoch: 12 })
            );
            let header = BatchHeader::parse(&batch).unwrap();
            assert!(header.is_control() && header.is_transactional());
            assert_eq!(
                (header.producer_id, header.producer_epoch, header.base_sequence),
                (77, 4, NO_SEQUENCE)
            );
        }
    }

    #[test]
    fn control_records_of_other_makers_are_read_or_named() {
        let parse = |key: &[u8], value: &[u8]| {
            let mut builder = BatchBuilder::new(Compression::None).control();
            builder.append(0, Some(key), Some(value), [Header { key: b"h", value: None }]).unwrap();
            parse_control_batch(&builder.finish())
        };
        let found = |control_type, coordinator_epoch| Ok(ControlRecord { control_type, coordinator_epoch });
        assert_eq!(parse(&[0, 5, 0, 1, 9], &[0, 1, 0, 0, 0, 2, 9]), found(ControlType::Commit, 2));
        assert_eq!(parse(&[0, 0, 0, 2], b""), found(ControlType::Other(2), 0));
        for (key, value) in [
            (b"".as_slice(), b"".as_slice()),
            (&[0, 0, 0], &[0; 6]),
            (&[0xff, 0, 0, 1], &[0; 6]),
            (&[0, 0, 0, 1], &[0; 5]),
            (&[0, 0, 0, 1], &[0xff, 0, 0, 0, 0, 0]),
        ] {
            assert!(matches!(parse(key, value), Err(BatchError::ControlRecord { .. })), "{key:?} {value:?}");
        }
        assert!(parse_control_batch(&BatchBuilder::new(Compression::None).finish()).is_err());
        assert!(parse_control_batch(&BatchBuilder::new(Compression::None).control().finish()).is_err());
    }
}
