//! Rolling: the active segment is sealed and a new one begins at the end of the log.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;

use crate::model::Offset;
use crate::runtime::directory;
use crate::runtime::file::{File, OpenMode};

use super::super::error::StorageError;
use super::super::file_names::{LEADER_EPOCH_CHECKPOINT, SegmentFile};
use super::super::segment::{ActiveSegment, AwakeSegment, PersistedEntries, SealedSegment};
use super::open::jitter_ms;
use super::{Log, LogState};

impl LogState {
    /// Seals the active segment and begins a new one at `base_offset`. The caller holds the structure's turn.
    ///
    /// Only a new file that cannot be made is an error (nothing has changed then); indexes and snapshots that cannot be
    /// written are rebuilt when they are needed.
    pub(super) async fn roll(&self, base_offset: Offset, now_ms: i64) -> Result<(), StorageError> {
        let old = self.active();
        let awake = self.awake(&old).await?;
        self.wait_written(self.log_end_offset.get()).await?;
        let path = SegmentFile::Log.path(&self.dir, old.base_offset);
        let trimmed = awake.appender.trim(old.size_bytes.get()).await;
        trimmed.map_err(|error| StorageError::io("truncate", &path, error))?;
        let new = Rc::new(ActiveSegment::empty(base_offset, now_ms, jitter_ms(&self.options())));
        self.awake(&new).await?; // makes the file
        self.finish_segment(&old, &awake).await;
        let max = awake.indexes.borrow().max;
        let has_aborted = awake.indexes.borrow().transactions.len() > 0;
        let sealed = Rc::new(SealedSegment {
            base_offset: old.base_offset,
            size_bytes: old.size_bytes.get(),
            modified_ms: now_ms,
            max: Cell::new(Some(max)),
            has_aborted: Cell::new(Some(has_aborted)),
        });
        self.flush.sealed(path, base_offset);
        self.sealed.borrow_mut().push_back(sealed);
        *self.active.borrow_mut() = new;
        Ok(())
    }

    /// Writes what belongs to a segment that ends here: its indexes, the producers' snapshot, the epochs.
    pub(super) async fn finish_segment(&self, segment: &ActiveSegment, awake: &AwakeSegment) {
        awake.indexes.borrow_mut().finish();
        let results = [
            self.persist_indexes(segment.base_offset, awake).await,
            self.persist_snapshot(false).await,
            self.persist_epochs().await,
        ];
        for error in results.into_iter().filter_map(Result::err) {
            tracing::warn!(topic_partition = %self.topic_partition, %error,
                "what can be rebuilt could not be written; the next start takes longer");
        }
    }

    /// Appends new index entries to their files.
    pub(super) async fn persist_indexes(
        &self,
        base_offset: Offset,
        awake: &AwakeSegment,
    ) -> Result<(), StorageError> {
        let from = awake.persisted.get();
        let (parts, to) = {
            let indexes = awake.indexes.borrow();
            let to = PersistedEntries {
                offsets: indexes.offsets.len(),
                times: indexes.times.len(),
                transactions: indexes.transactions.len(),
            };
            let parts = [
                (SegmentFile::Index, from.offsets, 8, indexes.offsets.to_bytes(from.offsets), true),
                (SegmentFile::TimeIndex, from.times, 12, indexes.times.to_bytes(from.times), true),
                (
                    SegmentFile::TransactionIndex,
                    from.transactions,
                    34,
                    indexes.transactions.to_bytes(from.transactions),
                    to.transactions > 0,
                ),
            ];
            (parts, to)
        };
        for (file, entries_before, entry_bytes, bytes, is_needed) in parts {
            let path = file.path(&self.dir, base_offset);
            if is_needed && (!bytes.is_empty() || entries_before == 0) {
                write_behind(&path, (entries_before * entry_bytes) as u64, bytes)
                    .await
                    .map_err(|error| StorageError::write(&self.topic_partition, &path, error))?;
            }
        }
        awake.persisted.set(to);
        Ok(())
    }

    /// Writes the producers' snapshot if there is something new.
    pub(super) async fn persist_snapshot(&self, durable: bool) -> Result<(), StorageError> {
        let Some((offset, bytes)) = self.producers.snapshot() else { return Ok(()) };
        let path = SegmentFile::Snapshot.path(&self.dir, offset);
        let written = directory::replace_small(&path, bytes, durable).await;
        written.map_err(|error| StorageError::write(&self.topic_partition, &path, error))?;
        self.producers.snapshot_written(offset);
        Ok(())
    }

    /// Writes the leader epochs if they have changed.
    pub(super) async fn persist_epochs(&self) -> Result<(), StorageError> {
        let Some(bytes) = self.epochs.take_unsaved() else { return Ok(()) };
        let path = self.dir.join(LEADER_EPOCH_CHECKPOINT);
        let written = directory::replace_small(&path, bytes, false).await;
        written.map_err(|error| {
            self.epochs.mark_unsaved();
            StorageError::write(&self.topic_partition, &path, error)
        })
    }
}

/// Makes `bytes` what the file has from `position` to its end.
async fn write_behind(path: &Path, position: u64, bytes: Vec<u8>) -> std::io::Result<()> {
    let file = File::open(path, OpenMode::Create).await?;
    let end = position + bytes.len() as u64;
    file.write_at_pooled(bytes, position).await?;
    if file.len()? > end { file.truncate(end).await } else { Ok(()) }
}

impl Log {
    /// Seals the active segment now, if it holds anything.
    ///
    /// # Errors
    /// As `append`.
    pub async fn roll(&self, now_ms: i64) -> Result<(), StorageError> {
        let _turn = self.0.structure.take().await;
        self.0.check_online()?;
        if self.0.active().size_bytes.get() == 0 {
            return Ok(());
        }
        self.0.roll(self.0.log_end_offset.get(), now_ms).await
    }
}
