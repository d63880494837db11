//! Removing the front of a log: retention, DeleteRecords, and the whole log.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use crate::base::random;
use crate::model::Offset;
use crate::runtime;

use super::super::error::StorageError;
use super::super::file_names::{DELETED_SUFFIX, SegmentFile, deleting_dir_name, with_suffix};
use super::super::retention::{self, Deletable, Limits, SegmentFacts};
use super::super::segment::SealedSegment;
use super::{Condition, Log, LogState};

/// What one pass of retention did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetentionReport {
    /// Segments that were removed.
    pub segments: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Producers that were forgotten because they were idle.
    pub expired_producers: usize,
    /// The start of the log afterwards.
    pub log_start_offset: Offset,
}

impl Log {
    /// Removes segments that are too old or too many, and forgets idle producers. Rolls the active segment if all of it
    /// is too old. Nothing at or behind `high_watermark` goes.
    ///
    /// # Errors
    /// `Io`; what was removed before stays removed.
    pub async fn apply_retention(
        &self,
        now_ms: i64,
        high_watermark: Offset,
    ) -> Result<RetentionReport, StorageError> {
        let state = &self.0;
        let _turn = state.structure.take().await;
        state.check_online()?;
        let options = state.options();
        let expired_producers = state.producers.expire(now_ms, options.producer_id_expiration_ms);
        let limits = Limits {
            retention_ms: options.retention_ms,
            retention_bytes: options.retention_bytes,
            log_start_offset: state.log_start_offset.get(),
            high_watermark,
        };
        let found = retention::deletable(&state.segment_facts().await?, &limits, now_ms);
        let bytes = state.remove_front(found, now_ms).await?;
        Ok(RetentionReport {
            segments: found.count(),
            bytes,
            expired_producers,
            log_start_offset: state.log_start_offset.get(),
        })
    }

    /// Moves the start of the log to `offset` (at most its end) and removes the segments before it. Returns the start.
    ///
    /// # Errors
    /// `OffsetOutOfRange` behind the end; `Io`.
    pub async fn delete_records_before(&self, offset: Offset) -> Result<Offset, StorageError> {
        let state = &self.0;
        let _turn = state.structure.take().await;
        state.check_online()?;
        let (log_start_offset, log_end_offset) = (state.log_start_offset.get(), state.log_end_offset.get());
        if offset > log_end_offset {
            let topic_partition = state.topic_partition.clone();
            return Err(StorageError::OffsetOutOfRange {
                topic_partition,
                offset,
                log_start_offset,
                log_end_offset,
            });
        }
        state.advance_start(offset);
        let before_start = {
            let sealed = state.sealed.borrow();
            let bases = sealed.iter().map(|segment| segment.base_offset).skip(1);
            let ends = bases.chain([state.active.borrow().base_offset]);
            ends.take_while(|end| *end <= offset).count().min(sealed.len())
        };
        state.remove_front(Deletable { before_start, ..Deletable::default() }, 0).await?;
        Ok(state.log_start_offset.get())
    }

    /// Removes the log for good: its directory is renamed at once, its files go later, off the shard. Readers keep what
    /// they hold. All later calls answer `Closed`.
    ///
    /// # Errors
    /// `Io` when the directory cannot be renamed; the log is closed all the same.
    pub async fn delete(&self) -> Result<(), StorageError> {
        let state = &self.0;
        let _turn = state.structure.take().await;
        state.check_open()?;
        state.forget();
        let name = deleting_dir_name(&state.topic_partition, random::uuid());
        let target = state.dir.parent().map_or_else(|| PathBuf::from(&name), |parent| parent.join(&name));
        let renamed = runtime::directory::rename(&state.dir, &target).await;
        renamed.map_err(|error| StorageError::io("rename", &state.dir, error))?;
        let delay = Duration::from_millis(state.options().file_delete_delay_ms);
        state.shared.file_remover.remove_directory(target, delay);
        Ok(())
    }
}

impl LogState {
    async fn segment_facts(&self) -> Result<Vec<SegmentFacts>, StorageError> {
        let sealed: Vec<Rc<SealedSegment>> = self.sealed.borrow().iter().cloned().collect();
        let mut facts = Vec::with_capacity(sealed.len() + 1);
        for (slot, segment) in sealed.iter().enumerate() {
            let max = self.max_timestamp_of(segment).await?;
            let end_offset =
                sealed.get(slot + 1).map_or_else(|| self.active().base_offset, |next| next.base_offset);
            let largest_timestamp = if max.timestamp >= 0 { max.timestamp } else { segment.modified_ms };
            facts.push(SegmentFacts { end_offset, size_bytes: segment.size_bytes, largest_timestamp });
        }
        let active = self.active();
        if active.size_bytes.get() > 0 {
            let max = self.awake(&active).await?.indexes.borrow().max;
            let largest_timestamp = if max.timestamp >= 0 { max.timestamp } else { active.created_ms };
            let (end_offset, size_bytes) = (self.log_end_offset.get(), active.size_bytes.get());
            facts.push(SegmentFacts { end_offset, size_bytes, largest_timestamp });
        }
        Ok(facts)
    }

    /// Removes the first segments; the active one is rolled first if it is among them. Returns their bytes.
    async fn remove_front(&self, found: Deletable, now_ms: i64) -> Result<u64, StorageError> {
        let count = found.count();
        if count == 0 {
            return Ok(0);
        }
        if count > self.sealed.borrow().len() {
            self.roll(self.log_end_offset.get(), now_ms).await?;
        }
        let gone: Vec<Rc<SealedSegment>> = self.sealed.borrow_mut().drain(..count).collect();
        let first = self.sealed.borrow().front().map(|segment| segment.base_offset);
        self.advance_start(first.unwrap_or_else(|| self.active.borrow().base_offset));
        for segment in &gone {
            self.shared.segment_cache.remove((self.id, segment.base_offset));
        }
        tracing::info!(topic_partition = %self.topic_partition, segments = count, by_time = found.by_time,
            by_size = found.by_size, before_start = found.before_start,
            log_start_offset = self.log_start_offset.get(), "old segments are removed");
        self.rename_deleted(&gone).await?;
        Ok(gone.iter().map(|segment| segment.size_bytes).sum())
    }

    async fn rename_deleted(&self, gone: &[Rc<SealedSegment>]) -> Result<(), StorageError> {
        let dir = self.dir.clone();
        let bases: Vec<Offset> = gone.iter().map(|segment| segment.base_offset).collect();
        let renamed = runtime::blocking(move || {
            let mut renamed = Vec::new();
            let mut failed = None;
            for path in bases.iter().flat_map(|base| SegmentFile::ALL.map(|file| file.path(&dir, *base))) {
                let target = with_suffix(&path, DELETED_SUFFIX);
                match std::fs::rename(&path, &target) {
                    Ok(()) => renamed.push(target),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => failed = Some((path, error)),
                }
            }
            (renamed, failed)
        });
        let (renamed, failed) = renamed.await;
        let delay = Duration::from_millis(self.options().file_delete_delay_ms);
        self.shared.file_remover.remove_files(renamed, delay);
        match failed {
            // It is out of the log; the next start finds it again and retention takes it again.
            Some((path, error)) => Err(StorageError::io("rename", &path, error)),
            None => Ok(()),
        }
    }

    /// Moves the start of the log forward.
    fn advance_start(&self, offset: Offset) {
        if offset > self.log_start_offset.get() {
            self.log_start_offset.set(offset);
            self.epochs.truncate_before(offset);
        }
    }

    /// Drops what the log holds in memory and refuses all further calls.
    pub(super) fn forget(&self) {
        *self.condition.borrow_mut() = Condition::Closed;
        self.written.changed.notify();
        self.shared.tail_cache.forget(&self.tail);
        for segment in self.sealed.borrow().iter() {
            self.shared.segment_cache.remove((self.id, segment.base_offset));
        }
        self.shared.log_rests(self.id);
        *self.active().awake.borrow_mut() = None;
    }
}
