//! Writes a batch anew: under another codec, or with its records numbered.

use std::borrow::Cow;
use std::io::Read;
use std::ops::ControlFlow;

use bytes::BytesMut;

use super::builder::{BatchBuilder, seal};
use super::compression::{Compression, Decompressor, compress};
use super::error::BatchError;
use super::header::{BATCH_HEADER_BYTES, BatchHeader};
use super::stream::DECOMPRESSED_BYTES_MAX;
use super::view::{for_each_record_of, record_bytes};

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
