//! Closing: everything reaches the disk, so that the next start need not look.

use super::super::checkpoint::LogCheckpoint;
use super::super::error::StorageError;
use super::super::file_names::SegmentFile;
use super::{Log, LogState};

impl Log {
    /// Flushes, writes indexes, producers' snapshot and epochs, cuts off prepared room, and closes the files. The
    /// checkpoint is what the caller writes down (`checkpoint::write`) before it sets the clean-shutdown marker. All
    /// later calls answer `Closed`.
    ///
    /// # Errors
    /// As `flush`, and `Io` when the file cannot be trimmed. The log is then closed, but not cleanly: the caller must
    /// not set the marker.
    pub async fn close(&self) -> Result<LogCheckpoint, StorageError> {
        let state = &self.0;
        let _turn = state.structure.take().await;
        state.check_open()?;
        let closed = state.close_files().await;
        let checkpoint = self.checkpoint();
        state.forget();
        closed.map(|()| checkpoint)
    }

    /// Waits until no write of this log is under way, however they end. For tests that drop a log as a kill would.
    pub async fn settle(&self) {
        let awake = self.0.active().awake.borrow().clone();
        if let Some(awake) = awake {
            awake.appender.settle().await;
        }
    }
}

impl LogState {
    async fn close_files(&self) -> Result<(), StorageError> {
        let active = self.active();
        let awake = active.awake.borrow().clone();
        let rebuilt = active.recovered.borrow().is_some() && active.size_bytes.get() > 0;
        let awake = match awake {
            None if rebuilt => Some(self.awake(&active).await?), // recovery's indexes are not in the files yet
            other => other,
        };
        let is_empty = active.base_offset == 0 && active.size_bytes.get() == 0;
        if let Some(awake) = awake {
            self.wait_written(self.log_end_offset.get()).await?;
            let path = SegmentFile::Log.path(&self.dir, active.base_offset);
            let trimmed = awake.appender.trim(active.size_bytes.get()).await;
            trimmed.map_err(|error| StorageError::io("truncate", &path, error))?;
            if !is_empty {
                self.flush_to(self.log_end_offset.get()).await?;
                self.finish_segment(&active, &awake).await;
                return Ok(());
            }
        }
        if is_empty && self.epochs.latest() == 0 {
            return Ok(()); // nothing was ever appended, so nothing is worth writing down
        }
        self.persist_epochs().await
    }
}
