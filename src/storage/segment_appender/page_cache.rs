//! Appends through the page cache: one positioned write per append, on the shard's thread.
//!
//! Write-back is started early, off the shard, every few MiB, so that dirty pages never pile up until the kernel makes
//! the writer wait (PERF.md, "write-back"). A write that failed half way is cut off before the next one, so that none
//! of its batches can come back to life behind a shorter one.

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use bytes::Bytes;

use crate::base::units::MIB;
use crate::runtime::{self, file::File};

/// Write-back starts once so many bytes are new.
const WRITE_BACK_BYTES: u64 = 4 * MIB as u64;

/// The page-cache write path of one segment.
pub(crate) struct PageCacheAppender {
    file: File,
    /// Whether a failed write may have left bytes behind the segment's end.
    torn: Cell<bool>,
    /// Write-back was started up to here.
    write_back_position: Cell<u64>,
    /// Whether one is under way.
    writing_back: Rc<Cell<bool>>,
}

impl PageCacheAppender {
    /// Appends to `file`, whose data ends at `position`. With `torn` there may be more bytes behind it.
    pub(crate) fn new(file: File, position: u64, torn: bool) -> Self {
        PageCacheAppender {
            file,
            torn: Cell::new(torn),
            write_back_position: Cell::new(position),
            writing_back: Rc::new(Cell::new(false)),
        }
    }

    pub(super) fn append(&self, chunks: &[Bytes], position: u64) -> io::Result<()> {
        if let Err(error) = self.file.write_chunks_at(chunks, position) {
            self.torn.set(true);
            return Err(error);
        }
        let end = position + chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
        if end - self.write_back_position.get() >= WRITE_BACK_BYTES && !self.writing_back.get() {
            self.start_write_back(end);
        }
        Ok(())
    }

    fn start_write_back(&self, end: u64) {
        let start = self.write_back_position.replace(end);
        self.writing_back.set(true);
        let (file, writing_back) = (self.file.clone(), self.writing_back.clone());
        runtime::spawn_detached(async move {
            file.start_write_back(start, end - start).await;
            writing_back.set(false);
        });
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.torn.get()
    }

    pub(super) async fn make_ready(&self, position: u64) -> io::Result<()> {
        if self.torn.get() {
            self.file.truncate(position).await?;
            self.torn.set(false);
        }
        Ok(())
    }

    pub(super) async fn sync(&self) -> io::Result<()> {
        self.file.sync_data().await
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }
}
