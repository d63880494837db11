//! Making appended batches durable, many waiters at a time.
//!
//! At most one sync of a log is under way. Whoever comes while it runs waits for it; one of them then starts the next,
//! which covers all that was appended meanwhile (group commit). Segments that were sealed since the last sync are
//! synced first, so durable bytes always form a prefix. After a failed sync the kernel may have dropped the pages, so
//! the log goes offline until it is opened, and looked at, anew.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};

use crate::model::Offset;
use crate::runtime::directory;
use crate::runtime::file::{File, OpenMode};
use crate::runtime::local::Event;

use super::super::error::StorageError;
use super::super::recovery::Recovered;
use super::{Condition, Log, LogState};

/// How far a log is durable, and what is not.
pub(super) struct FlushState {
    pub(super) flushed_offset: Cell<Offset>,
    pub(super) dirty_since_ms: Cell<Option<i64>>,
    is_running: Cell<bool>,
    finished: Event,
    /// Segment files beside the active one that wait for their sync.
    unsynced: RefCell<Vec<PathBuf>>,
    /// Whether names in the directory have changed, and whether the directory itself is new.
    names_changed: Cell<bool>,
    is_new: Cell<bool>,
}

impl FlushState {
    pub(super) fn new(recovered: &Recovered, now_ms: i64) -> Self {
        let is_dirty = recovered.recovery_point < recovered.log_end_offset;
        FlushState {
            flushed_offset: Cell::new(recovered.recovery_point),
            dirty_since_ms: Cell::new(is_dirty.then_some(now_ms)),
            is_running: Cell::new(false),
            finished: Event::new(),
            unsynced: RefCell::new(if is_dirty { recovered.unsynced.clone() } else { Vec::new() }),
            names_changed: Cell::new(false),
            is_new: Cell::new(recovered.is_new),
        }
    }

    /// Something was appended.
    pub(super) fn appended(&self, now_ms: i64) {
        if self.dirty_since_ms.get().is_none() {
            self.dirty_since_ms.set(Some(now_ms));
        }
    }

    /// A segment was sealed; a name was added.
    pub(super) fn sealed(&self, path: PathBuf, _next_offset: Offset) {
        self.unsynced.borrow_mut().push(path);
    }

    /// A name was added to the directory.
    pub(super) fn directory_changed(&self) {
        self.names_changed.set(true);
    }
}

/// The right to sync; given back, with a word to those who wait, when dropped.
struct Running<'s>(&'s FlushState);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.is_running.set(false);
        self.0.finished.notify();
    }
}

impl Log {
    /// Makes everything that is appended now durable, and returns the offset up to which the log is. May be called by
    /// many at once, and dropped at any time.
    ///
    /// # Errors
    /// `Offline` after a failed sync, now or earlier; `DiskFull` or `Io` when the bytes could not be written at all.
    pub async fn flush(&self) -> Result<Offset, StorageError> {
        self.0.flush_to(self.0.log_end_offset.get()).await
    }

    /// Waits until all before `offset` survives a killed process.
    ///
    /// # Errors
    /// Why it cannot be written; it is tried again with the next append.
    pub async fn wait_written(&self, offset: Offset) -> Result<(), StorageError> {
        self.0.wait_written(offset).await
    }
}

/// What a sync of the whole file system that begins now will make durable of a log.
pub struct SyncCover {
    offset: Offset,
    sealed: Vec<PathBuf>,
    dirty_since_ms: Option<i64>,
    names_changed: bool,
}

impl Log {
    /// Whether something is written that is not durable yet, and can be made so.
    pub fn needs_sync(&self) -> bool {
        let state = &self.0;
        let is_dirty =
            state.flush.flushed_offset.get() < state.written.get() || state.flush.names_changed.get();
        is_dirty && state.check_online().is_ok()
    }

    /// Before many logs are synced at once by `FileSystem::sync`. `end_sync` must follow.
    pub fn begin_sync(&self) -> SyncCover {
        let state = &self.0;
        SyncCover {
            offset: state.written.get(),
            sealed: state.flush.unsynced.borrow().clone(),
            dirty_since_ms: state.flush.dirty_since_ms.take(),
            names_changed: state.flush.names_changed.replace(false),
        }
    }

    /// That sync has ended.
    pub fn end_sync(&self, cover: SyncCover, is_synced: bool) {
        let flush = &self.0.flush;
        if is_synced {
            flush.flushed_offset.set(flush.flushed_offset.get().max(cover.offset));
            flush.unsynced.borrow_mut().retain(|path| !cover.sealed.contains(path));
            if cover.names_changed {
                flush.is_new.set(false);
            }
        } else {
            flush.names_changed.set(flush.names_changed.get() || cover.names_changed);
        }
        let is_clean = flush.flushed_offset.get() == self.0.log_end_offset.get();
        if !is_clean && (!is_synced || flush.dirty_since_ms.get().is_none()) {
            flush.dirty_since_ms.set(cover.dirty_since_ms); // or direct writes were still under way
        }
    }
}

impl LogState {
    pub(super) async fn flush_to(&self, target: Offset) -> Result<Offset, StorageError> {
        loop {
            let flushed = self.flush.flushed_offset.get();
            if flushed >= target {
                return Ok(flushed);
            }
            self.check_online()?;
            if self.flush.is_running.get() {
                self.flush.finished.wait().await;
                continue;
            }
            self.flush.is_running.set(true);
            let running = Running(&self.flush);
            self.flush_once(target).await?;
            drop(running);
        }
    }

    async fn flush_once(&self, target: Offset) -> Result<(), StorageError> {
        if let Some(awake) = self.active().awake.borrow().as_ref() {
            awake.appender.retry();
        }
        self.wait_written(target).await?;
        // All that is written now will be durable then, not only what was asked for.
        let covered = self.written.get();
        let dirty_since_ms = self.flush.dirty_since_ms.take();
        let synced = self.sync_files().await;
        if let Err(error) = &synced {
            self.check_open()?; // its files went while they were synced: nobody needs them any more
            self.flush.dirty_since_ms.set(dirty_since_ms);
            self.go_offline(error);
        }
        synced?;
        self.flush.flushed_offset.set(self.flush.flushed_offset.get().max(covered));
        if covered == self.log_end_offset.get() {
            self.flush.dirty_since_ms.set(None);
        } else if self.flush.dirty_since_ms.get().is_none() {
            self.flush.dirty_since_ms.set(dirty_since_ms); // direct writes were still under way
        }
        Ok(())
    }

    async fn sync_files(&self) -> Result<(), StorageError> {
        let active = self.active();
        let sealed = self.flush.unsynced.borrow().clone();
        for path in &sealed {
            sync_file(path).await?;
        }
        let awake = active.awake.borrow().clone();
        if let Some(awake) = awake {
            let synced = awake.appender.sync().await;
            synced.map_err(|error| StorageError::io("sync", awake.appender.file().path(), error))?;
        }
        if self.flush.names_changed.replace(false) {
            let synced = self.sync_names().await;
            if synced.is_err() {
                self.flush.names_changed.set(true);
            }
            synced?;
        }
        self.flush.unsynced.borrow_mut().retain(|path| !sealed.contains(path));
        Ok(())
    }

    async fn sync_names(&self) -> Result<(), StorageError> {
        directory::sync(&self.dir).await.map_err(|error| StorageError::io("sync", &self.dir, error))?;
        if self.flush.is_new.get()
            && let Some(parent) = self.dir.parent()
        {
            directory::sync(parent).await.map_err(|error| StorageError::io("sync", parent, error))?;
            self.flush.is_new.set(false);
        }
        Ok(())
    }

    fn go_offline(&self, error: &StorageError) {
        tracing::error!(topic_partition = %self.topic_partition, %error, "a sync failed; the log is offline");
        let mut condition = self.condition.borrow_mut();
        if *condition == Condition::Online {
            *condition = Condition::Offline(error.to_string());
        }
    }

    pub(super) async fn wait_written(&self, offset: Offset) -> Result<(), StorageError> {
        let offset = offset.min(self.log_end_offset.get());
        while self.written.get() < offset {
            if let Some(error) = self.written.error() {
                let path = self.dir.clone();
                return Err(match error.kind() {
                    std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                        StorageError::DiskFull { topic_partition: self.topic_partition.clone() }
                    }
                    _ => StorageError::Io { action: "write", path, source: error },
                });
            }
            self.check_open()?;
            self.written.changed.wait().await;
        }
        Ok(())
    }
}

/// Syncs a segment that may have been removed meanwhile.
async fn sync_file(path: &Path) -> Result<(), StorageError> {
    let file = match File::open(path, OpenMode::Read).await {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StorageError::io("open", path, error)),
    };
    file.sync_data().await.map_err(|error| StorageError::io("sync", path, error))
}
