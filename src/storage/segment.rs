//! One segment of a log: a run of record batches in one file, with sparse indexes beside it.
//!
//! The on-disk format, drawn once (all integers big endian):
//!
//! ```text
//! <topic>-<partition>/
//!   00000000000000000000.log         batch batch batch ...          `record::header` draws a batch
//!   00000000000000000000.index       relative offset u32, position u32          `offset_index`
//!   00000000000000000000.timeindex   timestamp i64, relative offset u32         `time_index`
//!   00000000000000000000.txnindex    only with aborted transactions             `transaction_index`
//!   00000000000000001234.log         the next segment, named by its first offset (its base offset)
//!   00000000000000001234.snapshot    producer state before offset 1234          `producer_state`
//!   leader-epoch-checkpoint          epoch, start offset                        `leader_epoch_cache`
//!   partition.metadata               topic id                                   `data_dir`
//! ```
//!
//! The last segment is *active*: it grows, its indexes live in memory and reach their files when it is sealed, closed or
//! put to rest. All others are *sealed*: never changed again, only read and, some day, removed. Bytes on disk are bytes
//! on the wire. Behind the data of an active segment there may be zeros (room prepared for direct writes); the end of
//! the log is where the next batch does not check out, never the length of a file.
//! Source: Kafka `LogSegment`, `UnifiedLog`.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;

use crate::model::Offset;
use crate::record::BatchHeader;

use super::file_names::SegmentFile;
use super::offset_index::OffsetIndex;
use super::segment_appender::SegmentAppender;
use super::time_index::{MaxTimestamp, TimeIndex};
use super::transaction_index::TransactionIndex;

/// The indexes of one segment, and what is needed to go on building them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SegmentIndexes {
    pub(super) offsets: OffsetIndex,
    pub(super) times: TimeIndex,
    pub(super) transactions: TransactionIndex,
    pub(super) max: MaxTimestamp,
    bytes_since_entry: u64,
}

impl SegmentIndexes {
    /// Indexes of an empty segment.
    pub(super) fn new(base_offset: Offset) -> Self {
        SegmentIndexes {
            offsets: OffsetIndex::new(base_offset),
            times: TimeIndex::new(base_offset),
            transactions: TransactionIndex::default(),
            max: MaxTimestamp::none(base_offset),
            bytes_since_entry: 0,
        }
    }

    /// Indexes as read from their files, for a segment of `size_bytes`.
    pub(super) fn from_files(
        base_offset: Offset,
        offsets: OffsetIndex,
        times: TimeIndex,
        transactions: TransactionIndex,
        size_bytes: u64,
    ) -> Self {
        let max = times.last().unwrap_or(MaxTimestamp::none(base_offset));
        let bytes_since_entry = size_bytes.saturating_sub(offsets.last_position());
        SegmentIndexes { offsets, times, transactions, max, bytes_since_entry }
    }

    /// Takes in a batch at `position`: an entry is due when more than `interval_bytes` lie behind the last one.
    pub(super) fn note(&mut self, header: &BatchHeader, position: u64, interval_bytes: u64) {
        if header.max_timestamp > self.max.timestamp {
            self.max = MaxTimestamp { timestamp: header.max_timestamp, offset: header.last_offset() };
        }
        if self.bytes_since_entry > interval_bytes {
            self.offsets.push(header.last_offset(), position);
            self.times.maybe_push(self.max);
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry += header.size_bytes() as u64;
    }

    /// Adds the last time entry, which tells the largest timestamp of the segment to whoever opens it next.
    pub(super) fn finish(&mut self) {
        self.times.maybe_push(self.max);
    }
}

/// How many entries of each index are in the files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PersistedEntries {
    pub(super) offsets: usize,
    pub(super) times: usize,
    pub(super) transactions: usize,
}

/// The segment that grows.
pub(super) struct ActiveSegment {
    pub(super) base_offset: Offset,
    /// When it was made (or opened), for rolling by time where records carry no timestamps.
    pub(super) created_ms: i64,
    /// What jitter takes off `segment.ms` for this segment.
    pub(super) jitter_ms: i64,
    /// Bytes of whole batches in it.
    pub(super) size_bytes: Cell<u64>,
    /// The first batch's largest timestamp, from which its age counts; `None` while it is empty or not looked at.
    pub(super) first_timestamp: Cell<Option<i64>>,
    /// Its open file and its indexes; `None` while it rests.
    pub(super) awake: RefCell<Option<Rc<AwakeSegment>>>,
    /// Indexes that recovery rebuilt; the first to wake it takes them instead of the files.
    pub(super) recovered: RefCell<Option<SegmentIndexes>>,
}

/// What an active segment has while it is in use.
pub(super) struct AwakeSegment {
    pub(super) appender: SegmentAppender,
    pub(super) indexes: RefCell<SegmentIndexes>,
    pub(super) persisted: Cell<PersistedEntries>,
}

impl ActiveSegment {
    /// A segment without bytes.
    pub(super) fn empty(base_offset: Offset, now_ms: i64, jitter_ms: i64) -> Self {
        ActiveSegment {
            base_offset,
            created_ms: now_ms,
            jitter_ms,
            size_bytes: Cell::new(0),
            first_timestamp: Cell::new(None),
            awake: RefCell::new(None),
            recovered: RefCell::new(Some(SegmentIndexes::new(base_offset))),
        }
    }

    /// How long its oldest record has been there, as a batch with `timestamp` sees it (Kafka's `timeWaitedForRoll`).
    pub(super) fn age_ms(&self, now_ms: i64, timestamp: i64) -> i64 {
        match self.first_timestamp.get() {
            Some(first) if first >= 0 => timestamp.saturating_sub(first),
            _ => now_ms.saturating_sub(self.created_ms),
        }
    }
}

/// A segment that never changes again.
pub(super) struct SealedSegment {
    pub(super) base_offset: Offset,
    pub(super) size_bytes: u64,
    /// When its file was last changed, for retention where records carry no timestamps.
    pub(super) modified_ms: i64,
    /// Its largest timestamp; `None` until its time index was looked at.
    pub(super) max: Cell<Option<MaxTimestamp>>,
    /// Whether it has aborted transactions; `None` until its file of them was looked for.
    pub(super) has_aborted: Cell<Option<bool>>,
}

impl SealedSegment {
    /// The path of its batches.
    pub(super) fn log_path(&self, dir: &Path) -> std::path::PathBuf {
        SegmentFile::Log.path(dir, self.base_offset)
    }
}
