//! Appends through the page cache: one positioned write per append, on the shard's thread.
//!
//! Write-back is started early, off the shard, every few MiB, so that dirty pages never pile up until the kernel makes
//! the writer wait; piece by piece with rests between them where there is time for that (PERF.md, "write-back"). Room ahead
//! of a busy segment is reserved in steps, behind the end of the file: writing into reserved blocks takes a quarter less CPU
//! than having each write reserve its own (PERF.md, "reserved room"). While the kernel reserves it holds the file; appends
//! then wait without holding the shard's thread. A write that failed half way is cut off before the next one, so that none
//! of its batches can come back to life behind a shorter one.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::base::clock;
use crate::base::units::MIB;
use crate::runtime;
use crate::runtime::file::{File, Pace};
use crate::runtime::local::Event;

/// Write-back starts once so many bytes are new.
const WRITE_BACK_BYTES: u64 = 4 * MIB as u64;
/// It may take its time if they took longer than this to come: twice what it takes at leisure.
const LEISURE_MIN: Duration = Duration::from_millis(128);
/// Room is reserved in steps of half of what the segment holds, within these bounds; a smaller segment gets none.
const RESERVE_STEP_BYTES_MIN: u64 = 4 * MIB as u64;
const RESERVE_STEP_BYTES_MAX: u64 = 64 * MIB as u64;

/// The least that a mapping for readers covers.
const MAP_BYTES_MIN: u64 = 16 * MIB as u64;

/// The page-cache write path of one segment.
pub(crate) struct PageCacheAppender {
    file: File,
    /// Whether a failed write may have left bytes behind the segment's end.
    torn: Cell<bool>,
    /// Write-back was started up to here.
    write_back_position: Cell<u64>,
    /// When that was.
    write_back_started: Cell<Instant>,
    /// Whether one is under way.
    writing_back: Rc<Cell<bool>>,
    reservation: Rc<Reservation>,
    /// The file as mapped for readers, somewhat ahead of its end.
    map: RefCell<Bytes>,
    /// No room is reserved behind this, and the mapping need not reach further.
    segment_bytes: u64,
}

/// The room ahead of a segment.
struct Reservation {
    /// Room is reserved up to here; `None` when it is not wanted (any more).
    end: Cell<Option<u64>>,
    /// Whether there may be some: reserved in this life, or left by a killed run.
    may_exist: Cell<bool>,
    is_under_way: Cell<bool>,
    /// Whether the kernel is at it, and holds the file: a write would have the shard's thread wait, for seconds if the
    /// allocator's own blocks have to come from a busy disk.
    holds_file: Arc<AtomicBool>,
    settled: Event,
}

impl PageCacheAppender {
    /// Appends to `file`, whose data ends at `position`, up to about `segment_bytes`. With `torn` there may be more
    /// bytes behind the data.
    pub(crate) fn new(file: File, position: u64, torn: bool, segment_bytes: u64) -> Self {
        PageCacheAppender {
            file,
            torn: Cell::new(torn),
            write_back_position: Cell::new(position),
            write_back_started: Cell::new(clock::monotonic()),
            writing_back: Rc::new(Cell::new(false)),
            reservation: Rc::new(Reservation {
                end: Cell::new(Some(0)),
                may_exist: Cell::new(position > 0),
                is_under_way: Cell::new(false),
                holds_file: Arc::default(),
                settled: Event::new(),
            }),
            map: RefCell::new(Bytes::new()),
            segment_bytes,
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
        self.reserve_ahead(end);
        Ok(())
    }

    /// Reserves the next step of room when less than half a step is left.
    fn reserve_ahead(&self, data_end: u64) {
        let reservation = &self.reservation;
        let Some(reserved_end) = reservation.end.get() else { return };
        let step = (data_end / 2).min(RESERVE_STEP_BYTES_MAX);
        let start = reserved_end.max(data_end);
        let length = step.min(self.segment_bytes.saturating_sub(start));
        if step < RESERVE_STEP_BYTES_MIN
            || length == 0
            || start - data_end >= step / 2
            || reservation.is_under_way.replace(true)
        {
            return;
        }
        reservation.may_exist.set(true);
        let (file, reservation) = (self.file.clone(), reservation.clone());
        runtime::spawn_detached(async move {
            let holds_file = reservation.holds_file.clone();
            let reserved = file.reserve(start, length, move || holds_file.store(true, Relaxed)).await;
            reservation.holds_file.store(false, Relaxed);
            if let Err(error) = &reserved {
                // Appends say for themselves whether the disk is full.
                tracing::debug!(file = %file.path().display(), %error, "no room is reserved any more");
            }
            let end = reservation.end.get().filter(|_| reserved.is_ok()).map(|_| start + length);
            reservation.end.set(end);
            reservation.is_under_way.set(false);
            reservation.settled.notify();
        });
    }

    fn start_write_back(&self, end: u64) {
        let start = self.write_back_position.replace(end);
        let now = clock::monotonic();
        let took = now.saturating_duration_since(self.write_back_started.replace(now));
        let pace = if took > LEISURE_MIN { Pace::Leisurely } else { Pace::Busy };
        self.writing_back.set(true);
        let (file, writing_back) = (self.file.clone(), self.writing_back.clone());
        runtime::spawn_detached(async move {
            file.start_write_back(start, end - start, pace).await;
            writing_back.set(false);
        });
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.torn.get() && !self.reservation.holds_file.load(Relaxed)
    }

    /// Gives back the room behind the data, and cuts off what a failed write left there. Reserves none from then on.
    pub(super) async fn trim(&self, size_bytes: u64) -> io::Result<()> {
        self.reservation.end.set(None);
        self.settle().await;
        if self.reservation.may_exist.get() || self.torn.get() {
            self.file.truncate(size_bytes).await?;
            self.torn.set(false);
        }
        Ok(())
    }

    /// Waits until no room is being reserved.
    pub(super) async fn settle(&self) {
        while self.reservation.is_under_way.get() {
            self.reservation.settled.wait().await;
        }
    }

    pub(super) async fn make_ready(&self, position: u64) -> io::Result<()> {
        self.settle().await;
        if self.torn.get() {
            self.file.truncate(position).await?;
            self.torn.set(false);
        }
        Ok(())
    }

    /// The first `size_bytes` of the segment, all of which must be written. The mapping reaches ahead of the data and is
    /// made anew when the data outgrows it; views of the old one stay valid.
    pub(super) fn map_written(&self, size_bytes: u64) -> Option<Bytes> {
        let length = usize::try_from(size_bytes).ok()?;
        let mut map = self.map.borrow_mut();
        if map.len() < length {
            let ahead = (size_bytes * 2).clamp(MAP_BYTES_MIN, self.segment_bytes.max(MAP_BYTES_MIN));
            match self.file.map(usize::try_from(ahead.max(size_bytes)).ok()?) {
                Ok(larger) => *map = larger,
                Err(error) => {
                    tracing::debug!(file = %self.file.path().display(), %error, "cannot map an active segment");
                    return None;
                }
            }
        }
        Some(map.slice(..length))
    }

    pub(super) async fn sync(&self) -> io::Result<()> {
        self.file.sync_data().await
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::poll_once;

    use super::*;
    use crate::runtime::block_on;
    use crate::runtime::file::OpenMode;

    #[test]
    fn an_append_waits_while_the_kernel_holds_the_file() {
        let dir = tempfile::tempdir().unwrap();
        block_on(async {
            let file = File::open(&dir.path().join("f"), OpenMode::Create).await.unwrap();
            let appender = PageCacheAppender::new(file, 0, false, 1 << 30);
            let reservation = appender.reservation.clone();
            assert!(appender.is_ready());
            reservation.is_under_way.set(true);
            assert!(appender.is_ready(), "it may still stand in line, behind slow work");
            reservation.holds_file.store(true, Relaxed);
            assert!(!appender.is_ready());
            let mut ready = std::pin::pin!(appender.make_ready(0));
            assert!(poll_once(&mut ready).await.is_none());
            reservation.holds_file.store(false, Relaxed);
            reservation.is_under_way.set(false);
            reservation.settled.notify();
            ready.await.unwrap();
            assert!(appender.is_ready());
        });
    }

    #[test]
    fn a_busy_segment_has_room_reserved_behind_its_end() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        block_on(async {
            let path = dir.path().join("f");
            let file = File::open(&path, OpenMode::Create).await.unwrap();
            let appender = PageCacheAppender::new(file, 0, false, 1 << 30);
            let size_bytes = 2 * RESERVE_STEP_BYTES_MIN;
            let chunk = Bytes::from(vec![0; usize::try_from(size_bytes).unwrap()]);
            appender.append(&[chunk], 0).unwrap();
            appender.settle().await;
            assert!(appender.is_ready());
            let reserved = || std::fs::metadata(&path).unwrap();
            assert_eq!(reserved().len(), size_bytes);
            assert!(reserved().blocks() * 512 >= size_bytes + RESERVE_STEP_BYTES_MIN);
            appender.trim(size_bytes).await.unwrap();
            assert!(reserved().blocks() * 512 < size_bytes + RESERVE_STEP_BYTES_MIN);
        });
    }
}
