//! Loading one partition's directory: list, tidy, look, repair, rebuild.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use uuid::Uuid;

use crate::model::{Offset, TopicPartition};
use crate::runtime::directory::{self, replace_small_now};
use crate::runtime::file::{File, OpenMode};

use super::super::checkpoint::LogCheckpoint;
use super::super::data_dir;
use super::super::error::StorageError;
use super::super::file_names::{FileName, LEADER_EPOCH_CHECKPOINT, PARTITION_METADATA, SegmentFile};
use super::super::leader_epoch_cache::{self, EpochEntry};
use super::super::offset_index::OffsetIndex;
use super::super::options::LogOptions;
use super::super::producer_state::{self, ProducerStateManager};
use super::super::segment::SegmentIndexes;
use super::super::time_index::{MaxTimestamp, TimeIndex};
use super::super::transaction_index::TransactionIndex;
use super::scan::{Walk, Walked, walk};
use super::{LastStop, LookAt, Repair, checkpoint_state, classify, look_at, repair};

/// An index that ends further than this before the segment's end is built anew.
const INDEX_GAP_BYTES_MAX: u64 = 1 << 20;

/// What a start knows about a log before it looks.
#[derive(Debug, Clone)]
pub(in crate::storage) struct Known {
    pub(in crate::storage) topic_partition: TopicPartition,
    pub(in crate::storage) dir: PathBuf,
    pub(in crate::storage) options: LogOptions,
    pub(in crate::storage) last_stop: LastStop,
    pub(in crate::storage) checkpoint: Option<LogCheckpoint>,
    pub(in crate::storage) topic_id: Option<Uuid>,
}

/// A log as recovery leaves it.
pub(in crate::storage) struct Recovered {
    pub(in crate::storage) sealed: Vec<RecoveredSealed>,
    pub(in crate::storage) active: RecoveredActive,
    pub(in crate::storage) log_start_offset: Offset,
    pub(in crate::storage) log_end_offset: Offset,
    /// Everything before it is durable.
    pub(in crate::storage) recovery_point: Offset,
    /// Files that were looked at and may not be durable yet.
    pub(in crate::storage) unsynced: Vec<PathBuf>,
    pub(in crate::storage) producers: ProducerStateManager,
    pub(in crate::storage) epochs: Vec<EpochEntry>,
    pub(in crate::storage) epochs_unsaved: bool,
    /// Whether the directory was made just now.
    pub(in crate::storage) is_new: bool,
}

/// A sealed segment.
pub(in crate::storage) struct RecoveredSealed {
    pub(in crate::storage) base_offset: Offset,
    pub(in crate::storage) size_bytes: u64,
    pub(in crate::storage) modified_ms: i64,
    pub(in crate::storage) max: Option<MaxTimestamp>,
}

/// The active segment.
pub(in crate::storage) struct RecoveredActive {
    pub(in crate::storage) base_offset: Offset,
    pub(in crate::storage) size_bytes: u64,
    /// Indexes that were rebuilt, with the first batch's largest timestamp; else they lie in their files.
    pub(in crate::storage) rebuilt: Option<(SegmentIndexes, Option<i64>)>,
}

/// A segment's file as listed.
#[derive(Debug, Clone, Copy)]
struct Listed {
    base_offset: Offset,
    size_bytes: u64,
    modified_ms: i64,
}

/// What a look at one segment brought.
struct Looked {
    walked: Walked,
    indexes: SegmentIndexes,
    first_timestamp: Option<i64>,
}

/// Loads a directory, repairing what a crash left behind. Blocks; for the blocking pool.
///
/// # Errors
/// The kernel's. Damage is no error: it is set aside and told in the log.
pub(in crate::storage) fn recover(known: &Known) -> Result<Recovered, StorageError> {
    Recovery { known, listed: Vec::new(), snapshots: Vec::new() }.run()
}

struct Recovery<'k> {
    known: &'k Known,
    listed: Vec<Listed>,
    snapshots: Vec<Offset>,
}

impl Recovery<'_> {
    fn run(mut self) -> Result<Recovered, StorageError> {
        let dir = &self.known.dir;
        let is_new = self.make_directory()?;
        if is_new {
            return Ok(self.empty(self.checkpointed_end(), Vec::new(), true));
        }
        self.list_and_tidy()?;
        let (epochs, epochs_whole) = read_epochs(dir)?;
        let Some(&last) = self.listed.last() else {
            return Ok(self.empty(self.checkpointed_end(), epochs, false));
        };
        let known_active = Some((last.base_offset, last.size_bytes));
        let state = checkpoint_state(self.known.checkpoint.as_ref(), known_active);
        let mut loading = Loading::new(&self, epochs, !epochs_whole);
        match (look_at(self.known.last_stop, state), self.known.checkpoint.and_then(|known| known.end)) {
            (LookAt::Nothing, Some(end)) => loading.trust(end.log_end_offset)?,
            (LookAt::ActiveEnd, _) if loading.look_at_active_end()? => {}
            (LookAt::Everything, _) => loading.look_behind(0)?,
            _ => loading.look_behind(self.known.checkpoint.map_or(0, |known| known.recovery_point))?,
        }
        loading.finish()
    }

    /// Makes the directory and `partition.metadata` where they are missing; whether the directory was.
    fn make_directory(&self) -> Result<bool, StorageError> {
        let dir = &self.known.dir;
        let is_new = match fs::create_dir(dir) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(dir).map_err(|error| StorageError::io("create", dir, error))?;
                true
            }
            Err(error) => return Err(StorageError::io("create", dir, error)),
        };
        if let Some(topic_id) = self.known.topic_id {
            let path = dir.join(PARTITION_METADATA);
            if is_new || !path.exists() {
                data_dir::write_partition_metadata(&path, topic_id)
                    .map_err(|error| StorageError::io("create", &path, error))?;
            }
        }
        Ok(is_new)
    }

    /// The offset at which a log without files goes on: never one that was given out before.
    fn checkpointed_end(&self) -> Offset {
        self.known.checkpoint.map_or(0, |known| {
            let end = known.end.map_or(0, |end| end.log_end_offset);
            known.log_start_offset.max(known.recovery_point).max(end)
        })
    }

    fn empty(&self, offset: Offset, mut epochs: Vec<EpochEntry>, is_new: bool) -> Recovered {
        let largest = epochs.last().map_or(-1, |entry| entry.epoch);
        let begins_epoch = epochs.is_empty() || self.known.last_stop == LastStop::Unclean;
        let epochs_unsaved = begins_epoch && leader_epoch_cache::assign(&mut epochs, largest + 1, offset);
        Recovered {
            sealed: Vec::new(),
            active: RecoveredActive { base_offset: offset, size_bytes: 0, rebuilt: None },
            log_start_offset: offset,
            log_end_offset: offset,
            recovery_point: offset,
            unsynced: Vec::new(),
            producers: ProducerStateManager::new(Vec::new(), offset),
            epochs,
            epochs_unsaved,
            is_new,
        }
    }

    fn list_and_tidy(&mut self) -> Result<(), StorageError> {
        let dir = &self.known.dir;
        let list = || directory::list_now(dir).map_err(|error| StorageError::io("list", dir, error));
        let names = list()?;
        let mut changed = finish_swaps(dir, &names)?;
        for name in names.iter().filter(|name| FileName::parse(name) == FileName::Leftover) {
            let path = dir.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StorageError::io("remove", &path, error));
                }
                _ => changed = true, // the file remover of a log that was closed just now may have been faster
            }
        }
        for name in if changed { list()? } else { names } {
            match FileName::parse(&name) {
                FileName::Segment(SegmentFile::Log, base_offset) => {
                    let path = dir.join(name);
                    let metadata =
                        fs::metadata(&path).map_err(|error| StorageError::io("stat", &path, error))?;
                    let modified =
                        metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
                    self.listed.push(Listed {
                        base_offset,
                        size_bytes: metadata.len(),
                        modified_ms: modified
                            .map_or(0, |time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX)),
                    });
                }
                FileName::Segment(SegmentFile::Snapshot, offset) => self.snapshots.push(offset),
                _ => {}
            }
        }
        self.listed.sort_unstable_by_key(|listed| listed.base_offset);
        self.snapshots.sort_unstable();
        Ok(())
    }
}

/// Loading a directory that has segments.
struct Loading<'k> {
    known: &'k Known,
    listed: Vec<Listed>,
    snapshots: Vec<Offset>,
    /// What was looked at, by place in `listed`.
    looked: Vec<Option<Looked>>,
    producers: ProducerStateManager,
    epochs: Vec<EpochEntry>,
    epochs_unsaved: bool,
    unsynced: Vec<PathBuf>,
    log_end_offset: Offset,
    recovery_point: Offset,
    /// The log goes on in a new segment at its end.
    goes_on_anew: bool,
}

impl<'k> Loading<'k> {
    fn new(recovery: &Recovery<'k>, epochs: Vec<EpochEntry>, epochs_unsaved: bool) -> Self {
        Loading {
            known: recovery.known,
            listed: recovery.listed.clone(),
            snapshots: recovery.snapshots.clone(),
            looked: recovery.listed.iter().map(|_| None).collect(),
            producers: ProducerStateManager::default(),
            epochs,
            epochs_unsaved,
            unsynced: Vec::new(),
            log_end_offset: 0,
            recovery_point: 0,
            goes_on_anew: false,
        }
    }

    fn log_path(&self, slot: usize) -> PathBuf {
        let base_offset = self.listed.get(slot).map_or(0, |listed| listed.base_offset);
        SegmentFile::Log.path(&self.known.dir, base_offset)
    }

    /// The checkpoint tells the end; only producer state may have to be brought up to it.
    fn trust(&mut self, log_end_offset: Offset) -> Result<(), StorageError> {
        let (_, snapshot_offset) = self.load_snapshot(log_end_offset)?;
        if snapshot_offset < log_end_offset {
            self.replay_producers(snapshot_offset, self.listed.len())?;
        }
        (self.log_end_offset, self.recovery_point) = (log_end_offset, log_end_offset);
        Ok(())
    }

    /// Finds the end of a log that was closed cleanly, by the headers behind the last index entry. Whether it is whole.
    fn look_at_active_end(&mut self) -> Result<bool, StorageError> {
        let slot = self.listed.len() - 1;
        let Some(&active) = self.listed.get(slot) else { return Ok(false) };
        let path = self.log_path(slot);
        let file =
            File::open_now(&path, OpenMode::Read).map_err(|error| StorageError::io("open", &path, error))?;
        let position = read_offset_index(&self.known.dir, active.base_offset, active.size_bytes)
            .map_or(0, |index| index.last_position());
        let look = Walk {
            position,
            size_bytes: active.size_bytes,
            expected_offset: active.base_offset,
            check_from: Offset::MAX,
        };
        let walked =
            walk(&file, look, |_, _, _| {}).map_err(|error| StorageError::io("read", &path, error))?;
        if walked.damage.is_some() {
            return Ok(false);
        }
        self.trust(walked.next_offset)?;
        Ok(true)
    }

    /// Looks at everything from the segment that holds the recovery point on, and repairs what it finds.
    fn look_behind(&mut self, recovery_point: Offset) -> Result<(), StorageError> {
        let first =
            self.listed.partition_point(|listed| listed.base_offset <= recovery_point).saturating_sub(1);
        let first_offset = self.listed.get(first).map_or(0, |listed| listed.base_offset);
        let (_, snapshot_offset) = self.load_snapshot(recovery_point.max(first_offset))?;
        if snapshot_offset < first_offset {
            self.replay_producers(snapshot_offset, first)?;
        }
        let mut slot = first;
        let mut expected_offset = first_offset;
        while let Some(&listed) = self.listed.get(slot) {
            expected_offset = expected_offset.max(listed.base_offset);
            let looked = self.look_at_segment(slot, expected_offset, recovery_point, snapshot_offset)?;
            expected_offset = looked.walked.next_offset;
            let is_last = slot + 1 == self.listed.len();
            let found = classify(looked.walked.damage.as_ref(), expected_offset, is_last, recovery_point);
            let repair = repair(found, !is_last);
            self.apply(repair, slot, &looked, recovery_point)?;
            if let Some(place) = self.looked.get_mut(slot) {
                *place = Some(looked);
            }
            self.unsynced.push(self.log_path(slot));
            if repair == Repair::SetAside {
                break;
            }
            self.log_end_offset = expected_offset;
            slot += 1;
        }
        self.recovery_point = recovery_point.min(self.log_end_offset);
        self.begin_epoch();
        self.remove_snapshots_behind(self.log_end_offset)
    }

    fn look_at_segment(
        &mut self,
        slot: usize,
        expected_offset: Offset,
        check_from: Offset,
        snapshot_offset: Offset,
    ) -> Result<Looked, StorageError> {
        let Some(&listed) = self.listed.get(slot) else {
            unreachable!("the caller looks at listed segments")
        };
        let path = self.log_path(slot);
        let file =
            File::open_now(&path, OpenMode::Read).map_err(|error| StorageError::io("open", &path, error))?;
        let mut indexes = SegmentIndexes::new(listed.base_offset);
        let mut first_timestamp = None;
        let look = Walk { position: 0, size_bytes: listed.size_bytes, expected_offset, check_from };
        let (producers, epochs) = (&self.producers, &mut self.epochs);
        let mut epochs_changed = false;
        let walked = walk(&file, look, |header, position, bytes| {
            indexes.note(header, position, self.known.options.index_interval_bytes);
            first_timestamp.get_or_insert(header.max_timestamp);
            epochs_changed |= leader_epoch_cache::assign(epochs, header.leader_epoch, header.base_offset);
            if header.base_offset >= snapshot_offset
                && let Some(aborted) = producers.update(header, bytes)
            {
                indexes.transactions.push(aborted);
            }
        })
        .map_err(|error| StorageError::io("read", &path, error))?;
        self.epochs_unsaved |= epochs_changed;
        if snapshot_offset > listed.base_offset {
            // Markers before the snapshot were not replayed; their transactions lie in the file if anywhere.
            let saved = read_transaction_index(&self.known.dir, listed.base_offset);
            indexes.transactions = saved.merged_with(&indexes.transactions, snapshot_offset);
        }
        Ok(Looked { walked, indexes, first_timestamp })
    }

    fn apply(
        &mut self,
        repair: Repair,
        slot: usize,
        looked: &Looked,
        recovery_point: Offset,
    ) -> Result<(), StorageError> {
        let path = self.log_path(slot);
        let io = |error| StorageError::io("repair", &path, error);
        let damage = looked.walked.damage.as_ref();
        let reason = damage.map_or("the file is too short", |damage| damage.reason.as_str());
        let position = looked.walked.valid_bytes;
        let expected_offset = looked.walked.next_offset;
        match repair {
            Repair::Keep => return Ok(()),
            Repair::Trim => super::repair::cut(&path, position).map_err(io)?,
            Repair::CutTail => {
                tracing::warn!(topic_partition = %self.known.topic_partition, file = %path.display(), position,
                    expected_offset, reason, "a torn tail was cut");
                super::repair::cut(&path, position).map_err(io)?;
            }
            Repair::SetAside => {
                let end = self.set_aside(slot, position, recovery_point.max(expected_offset))?;
                tracing::error!(topic_partition = %self.known.topic_partition, file = %path.display(), position,
                    expected_offset, goes_on_at = end, reason,
                    "damaged records were set aside; the log goes on behind them");
                (self.log_end_offset, self.goes_on_anew) = (end, true);
            }
        }
        if let Some(listed) = self.listed.get_mut(slot) {
            listed.size_bytes = position;
        }
        Ok(())
    }

    /// Moves everything behind `position` of segment `slot` away; returns an offset behind all that was there.
    fn set_aside(&mut self, slot: usize, position: u64, at_least: Offset) -> Result<Offset, StorageError> {
        let path = self.log_path(slot);
        let mut end = at_least;
        for behind in (slot + 1..self.listed.len()).rev() {
            if behind + 1 == self.listed.len() {
                end = end.max(self.last_offset_seen(behind)?);
            }
            let base_offset = self.listed.get(behind).map_or(0, |listed| listed.base_offset);
            super::repair::set_segment_aside(&self.known.dir, base_offset)
                .map_err(|error| StorageError::io("set aside", &self.log_path(behind), error))?;
        }
        self.listed.truncate(slot + 1);
        self.looked.truncate(slot + 1);
        super::repair::set_rest_aside(&path, position)
            .map_err(|error| StorageError::io("set aside", &path, error))?;
        Ok(end)
    }

    /// The end of what can be made out in a segment that is about to be set aside.
    fn last_offset_seen(&self, slot: usize) -> Result<Offset, StorageError> {
        let Some(&listed) = self.listed.get(slot) else { return Ok(0) };
        let path = self.log_path(slot);
        let file =
            File::open_now(&path, OpenMode::Read).map_err(|error| StorageError::io("open", &path, error))?;
        let look = Walk {
            position: 0,
            size_bytes: listed.size_bytes,
            expected_offset: listed.base_offset,
            check_from: Offset::MAX,
        };
        let walked =
            walk(&file, look, |_, _, _| {}).map_err(|error| StorageError::io("read", &path, error))?;
        Ok(walked.next_offset)
    }

    /// After an unclean stop offsets may come to name other records than before: a new epoch says so.
    fn begin_epoch(&mut self) {
        let kept = self.epochs.partition_point(|entry| entry.start_offset < self.log_end_offset.max(1));
        self.epochs_unsaved |= kept < self.epochs.len();
        let largest = self.epochs.last().map_or(-1, |entry| entry.epoch);
        self.epochs.truncate(kept);
        if self.known.last_stop == LastStop::Unclean || self.goes_on_anew {
            let start_offset = self.log_end_offset;
            self.epochs_unsaved |= leader_epoch_cache::assign(&mut self.epochs, largest + 1, start_offset);
        }
    }

    /// Loads the newest good snapshot that is not behind `offset`. Returns whether there was one, and its offset.
    fn load_snapshot(&mut self, offset: Offset) -> Result<(bool, Offset), StorageError> {
        let candidates = self.snapshots.iter().rev().copied().filter(|snapshot| *snapshot <= offset);
        for snapshot in candidates {
            let path = SegmentFile::Snapshot.path(&self.known.dir, snapshot);
            let bytes = fs::read(&path).map_err(|error| StorageError::io("read", &path, error))?;
            match producer_state::parse(&bytes) {
                Some(entries) => {
                    self.producers = ProducerStateManager::new(entries, snapshot);
                    return Ok((true, snapshot));
                }
                None => {
                    tracing::warn!(file = %path.display(), "a producer snapshot is damaged and was skipped")
                }
            }
        }
        let start = self.listed.first().map_or(0, |listed| listed.base_offset);
        self.producers = ProducerStateManager::new(Vec::new(), start);
        Ok((false, start))
    }

    /// Brings producer state forward from `from` by the headers of the segments before place `end`.
    fn replay_producers(&mut self, from: Offset, end: usize) -> Result<(), StorageError> {
        let first = self.listed.partition_point(|listed| listed.base_offset <= from).saturating_sub(1);
        for slot in first..end {
            let Some(&listed) = self.listed.get(slot) else { break };
            let path = self.log_path(slot);
            let file = File::open_now(&path, OpenMode::Read)
                .map_err(|error| StorageError::io("open", &path, error))?;
            let look = Walk {
                position: 0,
                size_bytes: listed.size_bytes,
                expected_offset: listed.base_offset,
                check_from: Offset::MAX,
            };
            walk(&file, look, |header, _, bytes| {
                if header.base_offset >= from {
                    self.producers.update(header, bytes);
                }
            })
            .map_err(|error| StorageError::io("read", &path, error))?;
        }
        Ok(())
    }

    /// Snapshots of a future that was cut off must not come true later.
    fn remove_snapshots_behind(&mut self, offset: Offset) -> Result<(), StorageError> {
        for snapshot in self.snapshots.iter().filter(|snapshot| **snapshot > offset) {
            let path = SegmentFile::Snapshot.path(&self.known.dir, *snapshot);
            fs::remove_file(&path).map_err(|error| StorageError::io("remove", &path, error))?;
        }
        self.snapshots.retain(|snapshot| *snapshot <= offset);
        Ok(())
    }

    /// Snapshots that belong to no segment are of no use, except the newest one.
    fn remove_stray_snapshots(&mut self) {
        let newest = self.snapshots.last().copied();
        let bases: Vec<Offset> = self.listed.iter().map(|listed| listed.base_offset).collect();
        for snapshot in &self.snapshots {
            if Some(*snapshot) != newest && bases.binary_search(snapshot).is_err() {
                // Only tidiness is lost when this fails.
                let _ = fs::remove_file(SegmentFile::Snapshot.path(&self.known.dir, *snapshot));
            }
        }
    }

    fn finish(mut self) -> Result<Recovered, StorageError> {
        self.remove_stray_snapshots();
        let first_base = self.listed.first().map_or(0, |listed| listed.base_offset);
        let log_start_offset =
            self.known.checkpoint.map_or(first_base, |known| known.log_start_offset.max(first_base));
        if log_start_offset > self.log_end_offset {
            // Records up to the start were deleted, and with them their offsets: none is given out again.
            (self.log_end_offset, self.goes_on_anew) = (log_start_offset, true);
        }
        self.producers.set_end_offset(self.log_end_offset);
        if self.epochs.is_empty() {
            self.epochs.push(EpochEntry { epoch: 0, start_offset: log_start_offset });
            self.epochs_unsaved = true;
        }
        let active = if self.goes_on_anew { self.new_active() } else { self.last_as_active() };
        let sealed = self.sealed_segments()?;
        Ok(Recovered {
            sealed,
            active,
            log_start_offset,
            log_end_offset: self.log_end_offset,
            recovery_point: self.recovery_point.min(self.log_end_offset),
            unsynced: self.unsynced,
            producers: self.producers,
            epochs: self.epochs,
            epochs_unsaved: self.epochs_unsaved,
            is_new: false,
        })
    }

    fn new_active(&self) -> RecoveredActive {
        RecoveredActive { base_offset: self.log_end_offset, size_bytes: 0, rebuilt: None }
    }

    /// Takes the last segment off the lists.
    fn last_as_active(&mut self) -> RecoveredActive {
        let looked = self.looked.pop().flatten();
        let Some(listed) = self.listed.pop() else { return self.new_active() };
        RecoveredActive {
            base_offset: listed.base_offset,
            size_bytes: listed.size_bytes,
            rebuilt: looked.map(|looked| (looked.indexes, looked.first_timestamp)),
        }
    }

    fn sealed_segments(&mut self) -> Result<Vec<RecoveredSealed>, StorageError> {
        let mut sealed = Vec::with_capacity(self.listed.len());
        for (listed, looked) in self.listed.iter().zip(self.looked.drain(..)) {
            let max = match looked {
                Some(mut looked) => {
                    looked.indexes.finish();
                    write_indexes(&self.known.dir, listed.base_offset, &looked.indexes)?;
                    Some(looked.indexes.max)
                }
                None => None,
            };
            let Listed { base_offset, size_bytes, modified_ms } = *listed;
            sealed.push(RecoveredSealed { base_offset, size_bytes, modified_ms, max });
        }
        Ok(sealed)
    }
}

/// Puts finished cleanings in the place of the segments they were made of (Kafka's swap, which a crash interrupted).
fn finish_swaps(dir: &Path, names: &[String]) -> Result<bool, StorageError> {
    let swaps: Vec<_> = names
        .iter()
        .filter_map(|name| match FileName::parse(name) {
            FileName::Swap(file, base_offset) => Some((file, base_offset, dir.join(name))),
            _ => None,
        })
        .collect();
    for (file, base_offset, path) in &swaps {
        let io = |error| StorageError::io("finish a cleaning", path, error);
        if *file != SegmentFile::Log {
            continue;
        }
        let swap = File::open_now(path, OpenMode::Read).map_err(io)?;
        let look = Walk {
            position: 0,
            size_bytes: swap.len().map_err(io)?,
            expected_offset: *base_offset,
            check_from: Offset::MAX,
        };
        let end = walk(&swap, look, |_, _, _| {}).map_err(io)?.next_offset;
        for name in names {
            if let FileName::Segment(_, offset) = FileName::parse(name)
                && (*base_offset..end).contains(&offset)
                && FileName::parse(name) != FileName::Segment(SegmentFile::Snapshot, offset)
            {
                fs::remove_file(dir.join(name)).map_err(io)?;
            }
        }
    }
    for (file, base_offset, path) in &swaps {
        let target = file.path(dir, *base_offset);
        fs::rename(path, target).map_err(|error| StorageError::io("finish a cleaning", path, error))?;
    }
    Ok(!swaps.is_empty())
}

/// The epochs of the file, and whether the file was there and whole.
fn read_epochs(dir: &Path) -> Result<(Vec<EpochEntry>, bool), StorageError> {
    let path = dir.join(LEADER_EPOCH_CHECKPOINT);
    match fs::read(&path) {
        Ok(bytes) => {
            Ok(leader_epoch_cache::parse(&bytes).map_or((Vec::new(), false), |entries| (entries, true)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((Vec::new(), false)),
        Err(error) => Err(StorageError::io("read", &path, error)),
    }
}

fn read_offset_index(dir: &Path, base_offset: Offset, size_bytes: u64) -> Option<OffsetIndex> {
    OffsetIndex::parse(base_offset, &fs::read(SegmentFile::Index.path(dir, base_offset)).ok()?, size_bytes)
}

fn read_transaction_index(dir: &Path, base_offset: Offset) -> TransactionIndex {
    let bytes = fs::read(SegmentFile::TransactionIndex.path(dir, base_offset)).unwrap_or_default();
    TransactionIndex::parse(&bytes)
}

/// Loads the indexes of a segment from their files, or builds them anew where a file is missing, impossible, or ends
/// far before the segment does. The flag tells whether the files have them.
///
/// # Errors
/// The kernel's about the segment's file.
pub(in crate::storage) fn load_segment_indexes(
    dir: &Path,
    base_offset: Offset,
    size_bytes: u64,
    interval_bytes: u64,
) -> io::Result<(SegmentIndexes, bool)> {
    let transactions = read_transaction_index(dir, base_offset);
    let offsets = read_offset_index(dir, base_offset, size_bytes);
    let times = fs::read(SegmentFile::TimeIndex.path(dir, base_offset))
        .ok()
        .and_then(|bytes| TimeIndex::parse(base_offset, &bytes));
    if let (Some(offsets), Some(times)) = (offsets, times)
        && size_bytes.saturating_sub(offsets.last_position()) <= INDEX_GAP_BYTES_MAX + interval_bytes
        && (times.len() > 0 || size_bytes == 0)
    {
        return Ok((SegmentIndexes::from_files(base_offset, offsets, times, transactions, size_bytes), true));
    }
    let file = File::open_now(&SegmentFile::Log.path(dir, base_offset), OpenMode::Read)?;
    let mut indexes = SegmentIndexes::new(base_offset);
    let look = Walk { position: 0, size_bytes, expected_offset: base_offset, check_from: Offset::MAX };
    walk(&file, look, |header, position, _| indexes.note(header, position, interval_bytes))?;
    indexes.transactions = transactions;
    Ok((indexes, false))
}

/// Replaces the index files of a segment.
fn write_indexes(dir: &Path, base_offset: Offset, indexes: &SegmentIndexes) -> Result<(), StorageError> {
    let mut files = vec![
        (SegmentFile::Index, indexes.offsets.to_bytes(0)),
        (SegmentFile::TimeIndex, indexes.times.to_bytes(0)),
    ];
    let transactions = SegmentFile::TransactionIndex.path(dir, base_offset);
    if indexes.transactions.len() > 0 || transactions.exists() {
        files.push((SegmentFile::TransactionIndex, indexes.transactions.to_bytes(0)));
    }
    for (file, bytes) in files {
        let path = file.path(dir, base_offset);
        // A mapped or half-read old file stays as it is: the new one takes its name.
        replace_small_now(&path, &bytes, false).map_err(|error| StorageError::io("replace", &path, error))?;
    }
    Ok(())
}

/// The last entry of a sealed segment's time index, where the file ends with one.
pub(in crate::storage) fn read_last_time_entry(dir: &Path, base_offset: Offset) -> Option<MaxTimestamp> {
    let file = File::open_now(&SegmentFile::TimeIndex.path(dir, base_offset), OpenMode::Read).ok()?;
    let entry_bytes = super::super::time_index::ENTRY_BYTES;
    let start = file.len().ok()?.checked_sub(entry_bytes as u64)?;
    let bytes = file.read_at_now(start, entry_bytes).ok()?;
    TimeIndex::parse(base_offset, &bytes)?.last()
}
