//! One record, seen in the bytes of its batch.
//!
//! ```text
//! length: varint          bytes that follow
//! attributes: i8          unused
//! timestamp delta: varlong   offset delta: varint
//! key length: varint (-1 = null), key   value length: varint (-1 = null), value
//! header count: varint, then per header: key length: varint, key, value length: varint (-1 = null), value
//! ```
//!
//! Varints are zigzag-encoded. Source: Kafka `DefaultRecord`.

use std::ops::ControlFlow;

use crate::model::Offset;

use super::compression::{Compression, Decompressor};
use super::cursor::Cursor;
use super::error::{BatchError, RecordProblem};
use super::header::{BATCH_HEADER_BYTES, BatchHeader};
use super::stream::RecordStream;

/// One record; its bytes stay where they lie.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    /// The record's number in the partition.
    pub offset: Offset,
    /// Its distance from the batch's base offset.
    pub offset_delta: i32,
    /// Milliseconds since the epoch, -1 for none; the append time where the server stamps.
    pub timestamp: i64,
    /// What compaction and partitioning go by.
    pub key: Option<&'a [u8]>,
    /// The payload; null is a tombstone in a compacted topic.
    pub value: Option<&'a [u8]>,
    /// Names and values beside the payload.
    pub headers: Headers<'a>,
}

/// One header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The name, UTF-8 by convention (not checked, as in Kafka).
    pub key: &'a [u8],
    /// The value.
    pub value: Option<&'a [u8]>,
}

/// The headers of a record, read again on each pass. Their form was checked when the record was.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    cursor: Cursor<'a>,
    left: i32,
}

impl Headers<'_> {
    /// No headers.
    pub const NONE: Headers<'static> = Headers { cursor: Cursor::new(&[]), left: 0 };

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        read_header(&mut self.cursor)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.left).unwrap_or(0);
        (left, Some(left))
    }
}

#[inline]
fn read_header<'a>(cursor: &mut Cursor<'a>) -> Option<Header<'a>> {
    let key_length = usize::try_from(cursor.varint()?).ok()?;
    let key = cursor.take(key_length)?;
    let value = cursor.nullable()?;
    Some(Header { key, value })
}

/// What a record's deltas count from.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordBase {
    offset: Offset,
    timestamp: i64,
    log_append_time: Option<i64>,
}

impl RecordBase {
    pub(super) fn of(header: &BatchHeader) -> Self {
        RecordBase {
            offset: header.base_offset,
            timestamp: header.base_timestamp,
            log_append_time: header.log_append_time(),
        }
    }
}

/// Reads the record at the front of plain record bytes, its length first.
#[inline]
pub(super) fn read_record<'a>(
    records: &mut Cursor<'a>,
    base: &RecordBase,
) -> Result<RecordView<'a>, RecordProblem> {
    let length = records.varint().ok_or(RecordProblem::Varint)?;
    let length = usize::try_from(length).map_err(|_| RecordProblem::Length)?;
    parse_body(records.take(length).ok_or(RecordProblem::Cut)?, base)
}

/// Reads a record whose length was already taken off.
#[inline]
pub(super) fn parse_body<'a>(body: &'a [u8], base: &RecordBase) -> Result<RecordView<'a>, RecordProblem> {
    let mut cursor = Cursor::new(body);
    cursor.byte().ok_or(RecordProblem::Cut)?; // attributes: no bit has a meaning yet
    let timestamp_delta = cursor.varlong().ok_or(RecordProblem::Varint)?;
    let offset_delta = cursor.varint().ok_or(RecordProblem::Varint)?;
    let key = cursor.nullable().ok_or(RecordProblem::Key)?;
    let value = cursor.nullable().ok_or(RecordProblem::Value)?;
    let left = cursor.varint().ok_or(RecordProblem::Varint)?;
    let headers = Headers { cursor, left };
    match left {
        0 if cursor.is_empty() => {}
        0 => return Err(RecordProblem::LeftOver),
        _ => check_headers(headers)?,
    }
    // Both sums wrap as Java's do, so that every reader sees the same numbers.
    let offset = base.offset.wrapping_add(i64::from(offset_delta));
    let timestamp = base.log_append_time.unwrap_or(base.timestamp.wrapping_add(timestamp_delta));
    Ok(RecordView { offset, offset_delta, timestamp, key, value, headers })
}

fn check_headers(headers: Headers<'_>) -> Result<(), RecordProblem> {
    let Headers { mut cursor, left } = headers;
    // A header takes two bytes at least; the bound also keeps a lying count from being walked.
    if usize::try_from(left).map_or(true, |count| count > cursor.rest().len()) {
        return Err(RecordProblem::HeaderCount);
    }
    for _ in 0..left {
        read_header(&mut cursor).ok_or(RecordProblem::Header)?;
    }
    if cursor.is_empty() { Ok(()) } else { Err(RecordProblem::LeftOver) }
}

/// Calls `f` with each record of the one batch at the start of `batch`, until it breaks or the records end.
///
/// Decompresses as needed, in a window (never the whole batch at once): the view's bytes are good for one call. The
/// CRC is not checked. When `f` breaks, what follows is not looked at.
///
/// # Errors
/// Whatever is wrong with header, compression or a record; records before the bad one were already handed to `f`.
pub fn for_each_record(
    batch: &[u8],
    f: impl FnMut(RecordView<'_>) -> ControlFlow<()>,
) -> Result<(), BatchError> {
    let header = BatchHeader::parse(batch)?;
    for_each_record_of(batch, &header, f)
}

/// `for_each_record` for a header that is already decoded.
pub(super) fn for_each_record_of(
    batch: &[u8],
    header: &BatchHeader,
    mut f: impl FnMut(RecordView<'_>) -> ControlFlow<()>,
) -> Result<(), BatchError> {
    let records = record_bytes(batch, header)?;
    let base = RecordBase::of(header);
    match header.compression()? {
        Compression::None => {
            let mut cursor = Cursor::new(records);
            for index in 0..header.record_count {
                let record = read_record(&mut cursor, &base)
                    .map_err(|problem| BatchError::Record { index, problem })?;
                if f(record).is_break() {
                    return Ok(());
                }
            }
            if cursor.is_empty() {
                Ok(())
            } else {
                Err(BatchError::RecordsLeftOver { record_count: header.record_count })
            }
        }
        codec => {
            if header.record_count == 0 {
                return Ok(()); // emptied by compaction; what the codec makes of nothing is not our question
            }
            let mut stream = RecordStream::new(Decompressor::new(codec, records)?, codec, records.len());
            for index in 0..header.record_count {
                let body = stream.next_body(index)?;
                let record =
                    parse_body(body, &base).map_err(|problem| BatchError::Record { index, problem })?;
                if f(record).is_break() {
                    return Ok(());
                }
            }
            stream.expect_end(header.record_count)
        }
    }
}

/// The record section of the one batch at the start of `batch`, plain or compressed.
pub(super) fn record_bytes<'a>(batch: &'a [u8], header: &BatchHeader) -> Result<&'a [u8], BatchError> {
    batch
        .get(BATCH_HEADER_BYTES..header.size_bytes())
        .ok_or(BatchError::Truncated { needed_bytes: header.size_bytes(), available_bytes: batch.len() })
}
