//! One partition's log: its segments in order.
//!
//! ```text
//! log start                                   flushed          written        log end
//!     |  sealed segment | sealed | active ........|...............|..............|
//!                                  survives a power cut   a killed process   in memory
//! ```
//!
//! Lives on: the shard that owns the partition; a cheap handle (`Clone`), never shared with another thread. Made by
//! `open`, ended by `close` or `delete`; a log that is just dropped is what a killed process leaves.
//! Invariants: flushed <= written <= log end; offsets of batches ascend; a log end that was reached is never undone
//! within a life, and a number that was given out is never given to another record after damage (`recovery`).
//! Calls that may overlap: everything with everything, except that appends come one at a time (the partition's own
//! lock), because offsets are assigned before them. No borrow is held over an await; state is read anew after each.
//! Does not: validate, assign offsets, know the high watermark.

mod aborted;
mod append;
mod close;
mod flush;
mod open;
mod read;
mod retain;
mod roll;
mod timestamps;
mod turn;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};

use bytes::Bytes;

use crate::model::{LeaderEpoch, Offset, TopicPartition};
use crate::record::BatchHeader;
use crate::runtime::local::Event;

use super::checkpoint::{LogCheckpoint, LogEnd};
use super::error::StorageError;
use super::leader_epoch_cache::LeaderEpochCache;
use super::options::LogOptions;
use super::producer_state::ProducerStateManager;
use super::segment::{ActiveSegment, SealedSegment};
use super::shard_storage::ShardStorage;
use super::tail_cache::LogTail;
use turn::Turn;

pub use open::StartHint;
pub use read::{ReadRequest, ReadView};
pub use retain::RetentionReport;
pub use timestamps::TimestampedOffset;

/// A batch that is ready to be appended: validated, with its offsets and leader epoch in place.
#[derive(Debug, Clone)]
pub struct AppendBatch {
    /// The whole batch.
    pub bytes: Bytes,
    /// Its header, decoded from those bytes.
    pub header: BatchHeader,
}

/// What an append did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The first offset appended.
    pub base_offset: Offset,
    /// The end of the log now.
    pub log_end_offset: Offset,
    /// Bytes appended.
    pub size_bytes: u64,
}

/// A segment as shown to operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its first offset.
    pub base_offset: Offset,
    /// Its size.
    pub size_bytes: u64,
    /// Its largest timestamp where that is known without looking.
    pub max_timestamp: Option<i64>,
    /// Whether it is the one that grows.
    pub is_active: bool,
}

/// A handle of a log.
#[derive(Clone)]
pub struct Log(Rc<LogState>);

/// Whether a log takes appends.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    Online,
    /// A sync failed.
    Offline(String),
    /// Closed or deleted.
    Closed,
}

/// What all handles of a log share.
pub(super) struct LogState {
    me: Weak<LogState>,
    id: u64,
    topic_partition: TopicPartition,
    dir: PathBuf,
    options: RefCell<Rc<LogOptions>>,
    shared: Rc<ShardStorage>,
    condition: RefCell<Condition>,
    /// Held by whatever changes the list of segments, and by appends.
    structure: Turn,
    sealed: RefCell<VecDeque<Rc<SealedSegment>>>,
    active: RefCell<Rc<ActiveSegment>>,
    /// Held while the active segment is being woken.
    waking: Turn,
    log_start_offset: Cell<Offset>,
    log_end_offset: Cell<Offset>,
    tail: Rc<LogTail>,
    written: Rc<WrittenOffset>,
    flush: flush::FlushState,
    producers: ProducerStateManager,
    epochs: LeaderEpochCache,
}

/// How far a log is written: what survives a killed process.
pub(super) struct WrittenOffset {
    offset: Cell<Offset>,
    changed: Event,
    /// Why the bytes behind it are not written, while that is so.
    error: RefCell<Option<std::sync::Arc<std::io::Error>>>,
}

impl WrittenOffset {
    fn new(offset: Offset) -> Rc<Self> {
        Rc::new(WrittenOffset { offset: Cell::new(offset), changed: Event::new(), error: RefCell::new(None) })
    }

    /// The offset.
    pub(super) fn get(&self) -> Offset {
        self.offset.get()
    }

    /// Why the bytes behind it are not written, while that is so.
    pub(super) fn error(&self) -> Option<std::sync::Arc<std::io::Error>> {
        self.error.borrow().clone()
    }

    /// The bytes behind it cannot be written for now.
    pub(super) fn fail(&self, error: std::sync::Arc<std::io::Error>) {
        *self.error.borrow_mut() = Some(error);
        self.changed.notify();
    }

    /// They are being tried again.
    pub(super) fn recover(&self) {
        *self.error.borrow_mut() = None;
    }

    /// All before `offset` is written.
    pub(super) fn advance(&self, offset: Offset) {
        if offset > self.offset.get() {
            self.offset.set(offset);
            self.changed.notify();
        }
    }
}

impl Log {
    /// Which partition it is.
    pub fn topic_partition(&self) -> &TopicPartition {
        &self.0.topic_partition
    }

    /// Where it lies.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// How it behaves.
    pub fn options(&self) -> Rc<LogOptions> {
        self.0.options.borrow().clone()
    }

    /// Changes how it behaves from now on; a new write path holds from the next segment on.
    pub fn set_options(&self, options: LogOptions) {
        *self.0.options.borrow_mut() = Rc::new(options);
    }

    /// The first offset that readers may ask for.
    pub fn log_start_offset(&self) -> Offset {
        self.0.log_start_offset.get()
    }

    /// The offset that the next record gets.
    pub fn log_end_offset(&self) -> Offset {
        self.0.log_end_offset.get()
    }

    /// All before it survives a killed process.
    pub fn written_offset(&self) -> Offset {
        self.0.written.get()
    }

    /// All before it survives a power cut.
    pub fn flushed_offset(&self) -> Offset {
        self.0.flush.flushed_offset.get()
    }

    /// Since when something waits to be flushed; `None` when all is.
    pub fn dirty_since_ms(&self) -> Option<i64> {
        self.0.flush.dirty_since_ms.get()
    }

    /// Bytes of all segments.
    pub fn size_bytes(&self) -> u64 {
        let sealed: u64 = self.0.sealed.borrow().iter().map(|segment| segment.size_bytes).sum();
        sealed + self.0.active.borrow().size_bytes.get()
    }

    /// How many more bytes the active segment takes before it rolls.
    pub fn room_bytes(&self) -> usize {
        let used_bytes = self.0.active.borrow().size_bytes.get();
        let room_bytes = self.0.options.borrow().segment_bytes_effective().saturating_sub(used_bytes);
        usize::try_from(room_bytes).unwrap_or(usize::MAX)
    }

    /// The segments, oldest first.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let sealed = self.0.sealed.borrow();
        let mut infos: Vec<SegmentInfo> = sealed
            .iter()
            .map(|segment| SegmentInfo {
                base_offset: segment.base_offset,
                size_bytes: segment.size_bytes,
                max_timestamp: segment.max.get().map(|max| max.timestamp),
                is_active: false,
            })
            .collect();
        let active = self.0.active.borrow();
        let awake = active.awake.borrow();
        infos.push(SegmentInfo {
            base_offset: active.base_offset,
            size_bytes: active.size_bytes.get(),
            max_timestamp: awake.as_ref().map(|awake| awake.indexes.borrow().max.timestamp),
            is_active: true,
        });
        infos
    }

    /// What the next start may believe.
    pub fn checkpoint(&self) -> LogCheckpoint {
        let active = self.0.active.borrow();
        LogCheckpoint {
            log_start_offset: self.log_start_offset(),
            recovery_point: self.flushed_offset(),
            end: Some(LogEnd {
                log_end_offset: self.log_end_offset(),
                active_base_offset: active.base_offset,
                active_size_bytes: active.size_bytes.get(),
            }),
        }
    }

    /// What is known about the producers that write to it.
    pub fn producers(&self) -> &ProducerStateManager {
        &self.0.producers
    }

    /// The epoch that new batches carry.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.0.epochs.latest()
    }

    /// The epoch that the batch at `offset` carries, if it is known.
    pub fn leader_epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        self.0.epochs.at(offset)
    }

    /// Where `epoch` ended, and the epoch that this is the end of: the largest one known that is not above it.
    /// (-1, -1) when that is not known.
    pub fn end_offset_for_leader_epoch(&self, epoch: LeaderEpoch) -> (LeaderEpoch, Offset) {
        self.0.epochs.end_offset(epoch, self.log_end_offset())
    }

    /// Whether it takes appends; the reason if not.
    ///
    /// # Errors
    /// `Offline`, `Closed`.
    pub fn check_online(&self) -> Result<(), StorageError> {
        self.0.check_online()
    }
}

impl LogState {
    fn check_online(&self) -> Result<(), StorageError> {
        let topic_partition = || self.topic_partition.clone();
        match &*self.condition.borrow() {
            Condition::Online => Ok(()),
            Condition::Offline(reason) => {
                Err(StorageError::Offline { topic_partition: topic_partition(), reason: reason.clone() })
            }
            Condition::Closed => Err(StorageError::Closed { topic_partition: topic_partition() }),
        }
    }

    fn check_open(&self) -> Result<(), StorageError> {
        match &*self.condition.borrow() {
            Condition::Closed => Err(StorageError::Closed { topic_partition: self.topic_partition.clone() }),
            _ => Ok(()),
        }
    }

    fn active(&self) -> Rc<ActiveSegment> {
        self.active.borrow().clone()
    }

    fn options(&self) -> Rc<LogOptions> {
        self.options.borrow().clone()
    }
}

impl Drop for LogState {
    fn drop(&mut self) {
        self.shared.log_rests(self.id);
        self.shared.tail_cache.forget(&self.tail);
        for segment in self.sealed.borrow().iter() {
            self.shared.segment_cache.remove((self.id, segment.base_offset));
        }
    }
}

#[cfg(test)]
mod tests;
