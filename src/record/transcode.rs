//! Writes a batch anew: under another codec, or with fewer records.

use std::io::{self, ErrorKind, Read, Write};
use std::ops::ControlFlow;

use bytes::BytesMut;

use crate::base::units::KIB;
use crate::model::NO_TIMESTAMP;

use super::builder::{BatchBuilder, seal};
use super::compression::{Compression, Compressor, Decompressor};
use super::error::BatchError;
use super::header::{BATCH_HEADER_BYTES, BatchHeader, DELETE_HORIZON_BIT};
use super::stream::DECOMPRESSED_BYTES_MAX;
use super::view::{RecordView, for_each_record_of, record_bytes};

/// What goes from codec to codec at a time.
const COPY_BYTES: usize = 32 * KIB;

/// The same batch with its records under codec `to`: config `compression.type` where it is not `producer`.
///
/// Everything else stays: offsets, timestamps, producer, flags, and the plain bytes of every record. The records are
/// not checked (see `validate`). Streams from codec to codec, so it holds no more than the new batch, which may have
/// `size_bytes_max` bytes (`max.message.bytes`); it belongs off the shard's thread all the same.
///
/// # Errors
/// What `BatchHeader::parse` and decompression find; `TooLarge` when the new batch is.
pub fn transcode(batch: &[u8], to: Compression, size_bytes_max: usize) -> Result<BytesMut, BatchError> {
    let header = BatchHeader::parse(batch)?;
    let records = record_bytes(batch, &header)?;
    let from = header.compression()?;
    if from == to || header.record_count == 0 {
        return Ok(BytesMut::from(batch.get(..header.size_bytes()).unwrap_or(batch)));
    }
    let mut plain = Decompressor::new(from, records)?;
    let mut out =
        BoundedBytes { bytes: vec![0; BATCH_HEADER_BYTES], bytes_max: size_bytes_max, is_full: false };
    let plain_bytes = (from == Compression::None).then_some(records.len());
    match recompress(&mut plain, plain_bytes, to, &mut out) {
        _ if out.is_full => Err(BatchError::TooLarge { limit_bytes: size_bytes_max }),
        Err(error) => Err(BatchError::Decompression { codec: from, reason: error.to_string() }),
        Ok(()) => Ok(seal(out.bytes, header, to)),
    }
}

fn recompress(
    plain: &mut impl Read,
    plain_bytes: Option<usize>,
    to: Compression,
    out: &mut BoundedBytes,
) -> io::Result<()> {
    let mut compressor = Compressor::new(to, out, plain_bytes)?;
    let mut window = vec![0; COPY_BYTES];
    let mut left = DECOMPRESSED_BYTES_MAX;
    loop {
        let count = plain.read(&mut window)?;
        if count == 0 {
            return compressor.finish();
        }
        left = left
            .checked_sub(count)
            .ok_or_else(|| io::Error::other("more plain bytes than one batch may have"))?;
        compressor.write_all(&window[..count])?;
    }
}

/// Bytes that do not grow beyond a bound.
struct BoundedBytes {
    bytes: Vec<u8>,
    bytes_max: usize,
    is_full: bool,
}

impl Write for &mut BoundedBytes {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        if more.len() > self.bytes_max.saturating_sub(self.bytes.len()) {
            self.is_full = true;
            return Err(ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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

    #[test]
    fn a_batch_that_outgrows_the_topics_limit_is_refused() {
        let mut builder = BatchBuilder::new(Compression::Zstd);
        builder.append(0, None, Some(&[7; 1_000_000]), Headers::NONE).unwrap();
        let batch = builder.finish();
        let refused = transcode(&batch, Compression::None, 1_000_000);
        assert_eq!(refused, Err(BatchError::TooLarge { limit_bytes: 1_000_000 }));
        assert_eq!(transcode(&batch, Compression::None, 1_000_100).unwrap().len(), 1_000_072);
        assert!(transcode(&batch, Compression::Lz4, 10_000).is_ok());
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
