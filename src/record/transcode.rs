//! Writes a batch anew: under another codec, with its records numbered, or with fewer records.

use std::borrow::Cow;
use std::io::Read;
use std::ops::ControlFlow;

use bytes::BytesMut;

use crate::model::NO_TIMESTAMP;

use super::builder::{BatchBuilder, seal};
use super::compression::{Compression, Decompressor, compress};
use super::error::BatchError;
use super::header::{BATCH_HEADER_BYTES, BatchHeader, DELETE_HORIZON_BIT};
use super::stream::DECOMPRESSED_BYTES_MAX;
use super::view::{RecordView, for_each_record_of, record_bytes};

/// The same batch with its records under codec `to`: config `compression.type` where it is not `producer`.
///
/// Everything else stays: offsets, timestamps, producer, flags, and the plain bytes of every record. The records are
/// not checked (see `validate`). Holds the whole batch decompressed, so it belongs off the shard's thread.
///
/// # Errors
/// What `BatchHeader::parse` and decompression find; `TooLarge` beyond `DECOMPRESSED_BYTES_MAX`.
pub fn transcode(batch: &[u8], to: Compression) -> Result<BytesMut, BatchError> {
    let header = BatchHeader::parse(batch)?;
    let records = record_bytes(batch, &header)?;
    let from = header.compression()?;
    if from == to || header.record_count == 0 {
        return Ok(BytesMut::from(batch.get(..header.size_bytes()).unwrap_or(batch)));
    }
    let plain = plain_records(from, records)?;
    let mut out = vec![0; BATCH_HEADER_BYTES];
    compress(to, &plain, &mut out)
        .map_err(|error| BatchError::Decompression { codec: to, reason: error.to_string() })?;
    Ok(seal(out, header, to))
}

/// The same records under codec `to` with offset deltas 0, 1, 2, ..., whatever they were before.
///
/// Kafka does this silently to compressed batches of producers that number wrongly; here `validate` refuses them
/// (`InvalidBatch::OffsetDelta`) and the caller may choose to come here instead.
///
/// # Errors
/// As `for_each_record`; `TooLarge` when the result would not fit a batch.
pub fn renumber(batch: &[u8], to: Compression) -> Result<BytesMut, BatchError> {
    let header = BatchHeader::parse(batch)?;
    let mut builder = BatchBuilder::like(&BatchHeader { last_offset_delta: 0, ..header }, to);
    let mut is_full = false;
    for_each_record_of(batch, &header, |record| {
        let appended = builder.append(record.timestamp, record.key, record.value, record.headers);
        is_full = appended.is_err();
        if is_full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if is_full {
        return Err(BatchError::TooLarge { limit_bytes: DECOMPRESSED_BYTES_MAX });
    }
    Ok(builder.finish())
}

/// What compaction leaves of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Retained {
    /// Every record; the batch stays as it is.
    All,
    /// Some records, or all of them with a delete horizon that the batch did not have yet.
    Some(BytesMut),
    /// No record. The batch goes, or stays as `emptied` if its producer's sequence must be remembered.
    Nothing,
}

/// Keeps the records that `keep` says yes to; each is asked about once, in order.
///
/// Base offset, last offset delta, leader epoch, producer, sequence, flags and codec stay, so offsets have gaps and the
/// producer's state can be rebuilt. With `delete_horizon_ms`, a batch that has no horizon yet gets that one (in place
/// of its base timestamp). Source: Kafka `MemoryRecords.filterTo`.
///
/// # Errors
/// As `for_each_record`; `TooLarge` when the result would not fit a batch.
pub fn retain_records(
    batch: &[u8],
    delete_horizon_ms: Option<i64>,
    mut keep: impl FnMut(&RecordView<'_>) -> bool,
) -> Result<Retained, BatchError> {
    let header = BatchHeader::parse(batch)?;
    let new_horizon = delete_horizon_ms.filter(|_| header.delete_horizon_ms().is_none());
    let mut kept_header = header;
    if let Some(horizon_ms) = new_horizon {
        kept_header.attributes |= DELETE_HORIZON_BIT;
        kept_header.base_timestamp = horizon_ms;
    }
    let mut builder = BatchBuilder::like(&kept_header, header.compression()?);
    let mut is_full = false;
    for_each_record_of(batch, &header, |record| {
        if keep(&record) {
            let RecordView { offset_delta, timestamp, key, value, headers, .. } = record;
            is_full = builder.append_at(offset_delta, timestamp, key, value, headers).is_err();
        }
        if is_full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if is_full {
        return Err(BatchError::TooLarge { limit_bytes: DECOMPRESSED_BYTES_MAX });
    }
    if builder.record_count() == 0 {
        Ok(Retained::Nothing)
    } else if builder.record_count() == header.record_count && new_horizon.is_none() {
        Ok(Retained::All)
    } else {
        Ok(Retained::Some(builder.finish()))
    }
}

/// The bare header that stands for a batch without its records: same offsets, producer, sequence, flags and max
/// timestamp, no codec. Source: Kafka `DefaultRecordBatch.writeEmptyHeader`.
pub fn emptied(header: &BatchHeader) -> BytesMut {
    let base_timestamp = NO_TIMESTAMP;
    let attributes = header.attributes & !DELETE_HORIZON_BIT;
    let header = BatchHeader { record_count: 0, base_timestamp, attributes, ..*header };
    seal(vec![0; BATCH_HEADER_BYTES], header, Compression::None)
}

fn plain_records(codec: Compression, records: &[u8]) -> Result<Cow<'_, [u8]>, BatchError> {
    if codec == Compression::None {
        return Ok(Cow::Borrowed(records));
    }
    let mut plain = Vec::new();
    let read = Decompressor::new(codec, records)?
        .take(DECOMPRESSED_BYTES_MAX + 1)
        .read_to_end(&mut plain)
        .map_err(|error| BatchError::Decompression { codec, reason: error.to_string() })?;
    if read as u64 > DECOMPRESSED_BYTES_MAX {
        return Err(BatchError::TooLarge { limit_bytes: DECOMPRESSED_BYTES_MAX });
    }
    Ok(Cow::Owned(plain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Headers, check_crc, for_each_record};

    fn ten_records(codec: Compression) -> BytesMut {
        let mut builder = BatchBuilder::new(codec).with_producer(8, 1, 100).with_base_offset(1000, 3);
        for number in 0..10u8 {
            builder.append(500 + i64::from(number), Some(&[number]), Some(b"value"), Headers::NONE).unwrap();
        }
        builder.finish()
    }

    fn offsets(batch: &[u8]) -> Vec<(i64, i64)> {
        let mut offsets = Vec::new();
        for_each_record(batch, |record| {
            offsets.push((record.offset, record.timestamp));
            ControlFlow::Continue(())
        })
        .unwrap();
        offsets
    }

    #[test]
    fn compaction_keeps_offsets_and_sequences() {
        for codec in Compression::ALL {
            let batch = ten_records(codec);
            let retained = retain_records(&batch, None, |record| record.offset % 4 == 0).unwrap();
            let Retained::Some(rewritten) = retained else { panic!("{retained:?}") };
            assert_eq!(offsets(&rewritten), [(1000, 500), (1004, 504), (1008, 508)]);
            let (before, after) =
                (BatchHeader::parse(&batch).unwrap(), BatchHeader::parse(&rewritten).unwrap());
            check_crc(&rewritten, &after).unwrap();
            assert_eq!(
                (after.last_offset(), after.last_sequence()),
                (before.last_offset(), before.last_sequence())
            );
            assert_eq!((after.record_count, after.max_timestamp), (3, 508));
            assert_eq!(after.compression().unwrap(), codec);
            // And once more over what is left.
            assert_eq!(retain_records(&rewritten, None, |_| true), Ok(Retained::All));
            assert_eq!(retain_records(&rewritten, None, |_| false), Ok(Retained::Nothing));
        }
    }

    #[test]
    fn a_delete_horizon_is_set_once_and_changes_no_timestamp() {
        let batch = ten_records(Compression::Zstd);
        let Ok(Retained::Some(rewritten)) = retain_records(&batch, Some(9_000_000), |_| true) else {
            panic!()
        };
        assert_eq!(BatchHeader::parse(&rewritten).unwrap().delete_horizon_ms(), Some(9_000_000));
        assert_eq!(offsets(&rewritten), offsets(&batch));
        assert_eq!(retain_records(&rewritten, Some(10_000_000), |_| true), Ok(Retained::All));
    }

    #[test]
    fn an_emptied_batch_still_tells_of_its_producer() {
        let before = BatchHeader::parse(&ten_records(Compression::Gzip)).unwrap();
        let batch = emptied(&before);
        let after = BatchHeader::parse(&batch).unwrap();
        check_crc(&batch, &after).unwrap();
        assert_eq!(offsets(&batch), []);
        assert_eq!((after.producer_id, after.last_sequence(), after.last_offset()), (8, 109, 1009));
        assert_eq!((after.max_timestamp, after.base_timestamp), (509, NO_TIMESTAMP));
    }
}
