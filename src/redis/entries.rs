//! Records as stream entries: reading them off the log and writing them as replies.
//!
//! The record's key is the field `key`, its value the field `value`, its headers are further fields in their order; null
//! key and value have no field. Readers see what is below the last stable offset, without control records and without
//! records of aborted transactions, out of batches of any codec.

use std::ops::ControlFlow;

use super::entry_id::write_id;
use super::error_reply::ErrorReply;
use super::resp::digits;
use crate::base::units::KIB;
use crate::broker::{Broker, BrokerError, FetchPartition, FetchRequest, FetchedPartition, IsolationLevel};
use crate::model::stream_group::StreamEntryId;
use crate::model::{NO_LEADER_EPOCH, Offset, TopicPartition};
use crate::record::{AbortedTransactions, Batches, Compression, RecordView, for_each_record};
use crate::runtime;

/// Field of the record's key.
pub(super) const KEY_FIELD: &[u8] = b"key";
/// Field of the record's value.
pub(super) const VALUE_FIELD: &[u8] = b"value";

/// How far readers of this door see.
pub(super) const ISOLATION: IsolationLevel = IsolationLevel::ReadCommitted;

/// Compressed batches above this are read on the blocking pool: decompressing them takes longer than the hop.
const INLINE_DECOMPRESSION_BYTES_MAX: usize = 16 * KIB;
/// Bytes of log asked for at a time: few for a few entries, many for many.
const READ_BYTES_MIN: usize = 16 * KIB;
const READ_BYTES_MAX: usize = 512 * KIB;
/// What an entry is taken to have when the read is planned.
const ENTRY_BYTES_GUESS: usize = KIB;

/// How one record becomes bytes.
pub(super) type Encode = fn(&mut Vec<u8>, &RecordView<'_>);

/// Which records are wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// The first offset.
    pub(super) from: Offset,
    /// The last offset, itself wanted.
    pub(super) last: Offset,
    /// Most records.
    pub(super) count: usize,
    /// Once so many bytes are encoded, no further record is.
    pub(super) max_bytes: usize,
}

/// One encoded record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EntryEnd {
    /// Its offset.
    pub(super) offset: Offset,
    /// Its timestamp.
    pub(super) timestamp_ms: i64,
    /// Where its bytes end.
    pub(super) end: usize,
}

impl EntryEnd {
    /// The entry's id.
    pub(super) fn id(&self) -> StreamEntryId {
        StreamEntryId { offset: self.offset, timestamp_ms: self.timestamp_ms }
    }
}

/// Encoded records, oldest first.
#[derive(Debug, Default)]
pub(super) struct Entries {
    pub(super) bytes: Vec<u8>,
    pub(super) ends: Vec<EntryEnd>,
    /// Where to read on.
    pub(super) next_offset: Offset,
    /// Whether reading ended because of count or bytes, and not for want of records.
    pub(super) is_full: bool,
}

impl Entries {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes of each entry.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (Offset, &[u8])> {
        self.ends.iter().enumerate().map(|(index, entry)| {
            let start = index.checked_sub(1).map_or(0, |before| self.ends[before].end);
            (entry.offset, &self.bytes[start..entry.end])
        })
    }
}

/// Writes a record as an entry: its id, and its fields with their values.
pub(super) fn encode_entry(out: &mut Vec<u8>, record: &RecordView<'_>) {
    out.extend_from_slice(b"*2\r\n");
    write_id(out, record.timestamp, record.offset);
    let fields = usize::from(record.key.is_some())
        + usize::from(record.value.is_some())
        + record.headers.size_hint().0;
    out.push(b'*');
    put_length(out, 2 * fields);
    if let Some(key) = record.key {
        put_bulk(out, KEY_FIELD);
        put_bulk(out, key);
    }
    if let Some(value) = record.value {
        put_bulk(out, VALUE_FIELD);
        put_bulk(out, value);
    }
    for header in record.headers {
        put_bulk(out, header.key);
        put_bulk(out, header.value.unwrap_or_default());
    }
}

/// Writes the payload of a push: the record's value.
pub(super) fn encode_payload(out: &mut Vec<u8>, record: &RecordView<'_>) {
    put_bulk(out, record.value.unwrap_or_default());
}

fn put_bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'$');
    put_length(out, bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    digits(out, i64::try_from(length).unwrap_or(i64::MAX));
    out.extend_from_slice(b"\r\n");
}

/// What to fetch of one partition.
pub(super) fn fetch_of(place: &TopicPartition, from: Offset, max_bytes: usize) -> FetchPartition {
    FetchPartition {
        topic_partition: place.clone(),
        offset: from,
        max_bytes: i32::try_from(max_bytes).unwrap_or(i32::MAX),
        current_leader_epoch: NO_LEADER_EPOCH,
    }
}

/// A fetch of what is there of partitions, as this door reads them.
pub(super) fn fetch_request(partitions: Vec<FetchPartition>) -> FetchRequest {
    FetchRequest { max_wait_ms: 0, min_bytes: 1, max_bytes: i32::MAX, isolation: ISOLATION, partitions }
}

/// Bytes of log worth asking for when so many entries are wanted.
pub(super) fn read_bytes(count: usize) -> usize {
    count.saturating_mul(ENTRY_BYTES_GUESS).clamp(READ_BYTES_MIN, READ_BYTES_MAX)
}

/// Reads records that are there now. A `from` before the log's start begins at the start, one behind the end finds
/// nothing and is told where the end is.
///
/// # Errors
/// The broker's.
pub(super) async fn read(
    broker: &Broker,
    place: &TopicPartition,
    wanted: Wanted,
    encode: Encode,
) -> Result<Entries, ErrorReply> {
    let mut found = Entries { next_offset: wanted.from, ..Entries::default() };
    while found.next_offset <= wanted.last && !found.is_full {
        let part = fetch_of(place, found.next_offset, read_bytes(wanted.count - found.len()));
        let fetched = broker.fetch(fetch_request(vec![part])).await.pop();
        let Some(fetched) = fetched else { break };
        match start_over(&fetched, found.next_offset)? {
            StartOver::At(offset) => {
                found.next_offset = offset;
                continue;
            }
            StartOver::Behind(end) => {
                found.next_offset = end;
                break;
            }
            StartOver::No if fetched.size_bytes == 0 => break,
            StartOver::No => {}
        }
        found = decode(fetched, wanted, found, encode).await?;
        runtime::yield_if_needed().await;
    }
    Ok(found)
}

/// What a fetch that was refused means for a reader.
pub(super) enum StartOver {
    /// It was not refused.
    No,
    /// The records before this offset are gone.
    At(Offset),
    /// The offset lies behind the end, which is here.
    Behind(Offset),
}

/// Tells a reader at `offset` where to go on when its offset is not in the log.
///
/// # Errors
/// Any other refusal.
pub(super) fn start_over(fetched: &FetchedPartition, offset: Offset) -> Result<StartOver, ErrorReply> {
    match &fetched.error {
        None => Ok(StartOver::No),
        Some(BrokerError::OffsetOutOfRange { log_start_offset, high_watermark, .. }) => {
            let is_before = offset < *log_start_offset;
            Ok(if is_before { StartOver::At(*log_start_offset) } else { StartOver::Behind(*high_watermark) })
        }
        Some(error) => Err(error.clone().into()),
    }
}

/// Adds what was fetched to `found`; large compressed batches are decoded on the blocking pool.
///
/// # Errors
/// If the log holds what cannot be read.
pub(super) async fn decode(
    fetched: FetchedPartition,
    wanted: Wanted,
    mut found: Entries,
    encode: Encode,
) -> Result<Entries, ErrorReply> {
    let may_take_long = fetched.size_bytes > INLINE_DECOMPRESSION_BYTES_MAX;
    let takes_long = may_take_long
        && fetched.chunks.iter().any(|chunk| {
            Batches::new(chunk).filter_map(Result::ok).any(|batch| {
                batch.bytes.len() > INLINE_DECOMPRESSION_BYTES_MAX
                    && batch.header.compression().is_ok_and(|codec| codec != Compression::None)
            })
        });
    let decode = move || {
        decode_now(&fetched, wanted, &mut found, encode)?;
        Ok(found)
    };
    if takes_long { runtime::blocking(decode).await } else { decode() }
}

fn decode_now(
    fetched: &FetchedPartition,
    wanted: Wanted,
    found: &mut Entries,
    encode: Encode,
) -> Result<(), ErrorReply> {
    let unreadable = |error: crate::record::BatchError| {
        tracing::error!(%error, "a batch of the log cannot be read");
        ErrorReply::err(format_args!("a batch of the log cannot be read: {error}"))
    };
    // One copy of what is read, not one more each time that there is no room: entries take about what their records take.
    let left_bytes = (wanted.count - found.len()).saturating_mul(ENTRY_BYTES_GUESS);
    let expected = fetched.size_bytes.min(left_bytes);
    found.bytes.reserve(expected + expected / 8);
    let mut aborted = AbortedTransactions::new(&fetched.aborted_transactions);
    for batch in fetched.chunks.iter().flat_map(|chunk| Batches::new(chunk)) {
        let batch = batch.map_err(unreadable)?;
        let header = &batch.header;
        if !aborted.cover(&batch) && !header.is_control() {
            for_each_record(batch.bytes, |record| {
                if record.offset < found.next_offset {
                    return ControlFlow::Continue(());
                }
                let is_enough = found.len() >= wanted.count || found.bytes.len() >= wanted.max_bytes;
                if is_enough || record.offset > wanted.last {
                    found.is_full = true;
                    return ControlFlow::Break(());
                }
                encode(&mut found.bytes, &record);
                found.ends.push(EntryEnd {
                    offset: record.offset,
                    timestamp_ms: record.timestamp.max(0),
                    end: found.bytes.len(),
                });
                found.next_offset = record.offset + 1;
                ControlFlow::Continue(())
            })
            .map_err(unreadable)?;
        }
        if found.is_full {
            break;
        }
        found.next_offset = found.next_offset.max(header.next_offset());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::ProducerId;
    use crate::record::{BatchBuilder, Header, end_transaction_batch};

    fn fetched(batches: Vec<Bytes>, aborted: Vec<(ProducerId, Offset)>) -> FetchedPartition {
        FetchedPartition {
            error: None,
            high_watermark: 100,
            last_stable_offset: 100,
            log_start_offset: 0,
            aborted_transactions: aborted,
            size_bytes: batches.iter().map(Bytes::len).sum(),
            chunks: batches,
        }
    }

    fn batch(builder: BatchBuilder, base_offset: Offset, values: &[&str]) -> Bytes {
        let mut builder = builder.with_base_offset(base_offset, 0);
        for value in values {
            let none = std::iter::empty::<Header<'_>>();
            builder.append(7, None, Some(value.as_bytes()), none).unwrap();
        }
        builder.finish().freeze()
    }

    fn plain() -> BatchBuilder {
        BatchBuilder::new(Compression::None)
    }

    fn offsets(
        fetched: &FetchedPartition,
        from: Offset,
        last: Offset,
        count: usize,
    ) -> (Vec<Offset>, Offset) {
        let mut found = Entries { next_offset: from, ..Entries::default() };
        decode_now(fetched, Wanted { from, last, count, max_bytes: 1000 }, &mut found, encode_payload)
            .unwrap();
        (found.ends.iter().map(|entry| entry.offset).collect(), found.next_offset)
    }

    #[test]
    fn only_wanted_records_are_read_and_the_rest_is_found_again() {
        let log = fetched(vec![batch(plain(), 0, &["a", "b", "c"]), batch(plain(), 3, &["d"])], vec![]);
        assert_eq!(offsets(&log, 1, OFFSETS, 100), (vec![1, 2, 3], 4));
        assert_eq!(offsets(&log, 1, 2, 100), (vec![1, 2], 3));
        assert_eq!(offsets(&log, 0, OFFSETS, 2), (vec![0, 1], 2));
        assert_eq!(offsets(&log, 9, OFFSETS, 2), (vec![], 9));
    }

    const OFFSETS: Offset = Offset::MAX;

    #[test]
    fn aborted_and_control_records_are_not_shown() {
        let producer = |id| plain().with_producer(id, 0, 0).transactional();
        let marker = |id, offset, commits| {
            let mut marker = end_transaction_batch(id, 0, commits, 0, 7);
            crate::record::assign_offset(&mut marker, offset, 0);
            marker.freeze()
        };
        let log = fetched(
            vec![
                batch(producer(1), 0, &["aborted"]),
                batch(producer(2), 1, &["committed"]),
                batch(plain(), 2, &["plain"]),
                marker(1, 3, false),
                batch(producer(1), 4, &["committed later"]),
                marker(2, 5, true),
                marker(1, 6, true),
            ],
            vec![(1, 0)],
        );
        assert_eq!(offsets(&log, 0, OFFSETS, 100), (vec![1, 2, 4], 7));
    }

    #[test]
    fn a_record_becomes_fields_in_order() {
        let mut builder = plain();
        let headers = [Header { key: b"h", value: Some(b"1") }, Header { key: b"n", value: None }];
        builder.append(5, Some(b"k"), None, headers).unwrap();
        let log = fetched(vec![builder.finish().freeze()], vec![]);
        let mut found = Entries::default();
        let wanted = Wanted { from: 0, last: 10, count: 10, max_bytes: 1000 };
        decode_now(&log, wanted, &mut found, encode_entry).unwrap();
        let expected =
            "*2\r\n$3\r\n5-0\r\n*6\r\n$3\r\nkey\r\n$1\r\nk\r\n$1\r\nh\r\n$1\r\n1\r\n$1\r\nn\r\n$0\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&found.bytes), expected);
    }
}
