//! Reads from the disk past the page cache, ahead of sequential readers.
//!
//! A reader that catches up with old data takes it block by block straight from the device (direct I/O on the blocking
//! pool). When a block is handed out, the next one is already being read, so that the reader finds it in memory. Half
//! the CPU of bringing the same bytes into the page cache and mapping them (PERF.md), and no page that others need is
//! pushed out. A second reader of the same stretch goes through the page cache instead, where all later ones find it.
//! Bounded by a number of blocks; without a free one, and wherever anything is unusual (no direct I/O on this file system,
//! an I/O error, a batch larger than a block), the caller is told to take the way through the page cache, which also
//! reports what is wrong.

use std::cell::{Cell, RefCell};
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use lru::LruCache;

use crate::base::clock;
use crate::base::units::{KIB, MIB};
use crate::model::Offset;
use crate::record::BatchHeader;
use crate::runtime::dma_file::{DMA_ALIGNMENT_BYTES, DmaBuffer, read_direct_now};
use crate::runtime::local::Event;
use crate::runtime::{self, spawn_detached};

use super::log::{ReadRequest, ReadView};
use super::segment_cache::SegmentKey;
use super::segment_reader::{LOOK_BYTES, Selected, select};

/// What a client asks of one partition at a time by default (`max.partition.fetch.bytes`), and what an index entry may lie
/// ahead of it.
const BLOCK_BYTES: usize = MIB + 2 * LOOK_BYTES;
/// Blocks that nobody uses are kept for the next reader up to this many.
const SPARE_BLOCKS_MAX: usize = 16;
/// A block that was read ahead is taken away from a reader that has not come for it for so long, if another needs it.
const UNCLAIMED_MAX: Duration = Duration::from_secs(1);
/// For so many segments it is known how far they were read.
const FRONTIERS_MAX: usize = 1_024;
const _: () = assert!(BLOCK_BYTES.is_multiple_of(DMA_ALIGNMENT_BYTES) && LOOK_BYTES >= 4 * KIB);

/// A stretch of a segment's file from which to read.
#[derive(Clone, Copy)]
pub(super) struct ColdSpan<'a> {
    /// The segment.
    pub(super) key: SegmentKey,
    /// Its file.
    pub(super) path: &'a Path,
    /// Where to begin: at a batch that is not behind the wanted one.
    pub(super) position: u64,
    /// Where the readable bytes end.
    pub(super) end: u64,
}

/// The cold readers of all logs of a shard.
pub struct ColdReads {
    blocks: Arc<Blocks>,
    /// Where a reader will go on, by its log and offset: what was read ahead for it.
    ahead: RefCell<LruCache<(u64, Offset), Rc<Ahead>>>,
    /// How far a segment was read past the page cache.
    frontiers: RefCell<LruCache<SegmentKey, u64>>,
    /// The file system has no direct I/O.
    unsupported: Cell<bool>,
}

/// A block that was read ahead, or is being read.
struct Ahead {
    /// Where in the segment it begins: at a batch.
    position: u64,
    /// `None` while it is being read; empty if that failed.
    bytes: RefCell<Option<Bytes>>,
    arrived: Event,
    since: Instant,
}

impl ColdReads {
    /// At most `bytes_max` bytes in blocks, those on their way to clients included.
    pub fn new(bytes_max: usize) -> Rc<Self> {
        let (spare_sender, spare) = flume::bounded(SPARE_BLOCKS_MAX);
        Rc::new(ColdReads {
            blocks: Arc::new(Blocks {
                count_max: bytes_max / BLOCK_BYTES,
                lent: AtomicUsize::new(0),
                spare_sender,
                spare,
            }),
            ahead: RefCell::new(LruCache::unbounded()), // each entry holds a block
            frontiers: RefCell::new(LruCache::new(
                NonZeroUsize::new(FRONTIERS_MAX).expect("the constant is not zero"),
            )),
            unsupported: Cell::new(false),
        })
    }

    /// Bytes in blocks that are in use now.
    pub fn used_bytes(&self) -> usize {
        self.blocks.lent.load(Ordering::Relaxed) * BLOCK_BYTES
    }

    /// Reads whole batches; `None` means that the way through the page cache is the one to take.
    pub(super) async fn read(
        self: &Rc<Self>,
        span: &ColdSpan<'_>,
        request: &ReadRequest,
    ) -> Option<ReadView> {
        let (position, bytes) = match self.take_ahead(span, request.offset).await {
            Some(found) => found,
            None => (span.position, self.read_first(span).await?),
        };
        let total = usize::try_from(span.end.checked_sub(position)?).ok()?;
        let Selected::Batches(range, next_offset) = select(&bytes, total, request, |end| end <= bytes.len())
        else {
            return None;
        };
        let mut view = ReadView::empty(request.offset);
        view.push(bytes.slice(range.clone()), next_offset);
        if range.end < total {
            let rest = bytes.slice(range.end..);
            let wanted = request.max_bytes.min(MIB).min(total - range.end);
            let rest = (rest.len() >= wanted && begins_with_a_batch(&rest)).then_some(rest);
            let next = ColdSpan { position: position + range.end as u64, ..*span };
            self.prepare(&next, next_offset, rest);
        }
        Some(view)
    }

    /// A reader comes to the beginning of this segment soon: its first block is read now.
    pub(super) fn read_ahead(self: &Rc<Self>, beginning: &ColdSpan<'_>) {
        let (log, base_offset) = beginning.key;
        if !self.ahead.borrow().contains(&(log, base_offset)) {
            self.prepare(beginning, base_offset, None);
        }
    }

    /// Has the block ready with which a reader goes on at `offset`: `rest`, or one that is read now. The span begins at a
    /// batch which does not begin behind that offset.
    fn prepare(self: &Rc<Self>, span: &ColdSpan<'_>, offset: Offset, rest: Option<Bytes>) {
        let (arrived, since) = (Event::new(), clock::monotonic());
        let ahead = Rc::new(Ahead { position: span.position, bytes: RefCell::new(rest), arrived, since });
        if ahead.bytes.borrow().is_none() {
            let Some(block) = self.lend() else { return };
            let read = self.clone().read_block(block, span);
            let ahead = ahead.clone();
            spawn_detached(async move {
                let bytes = read.await;
                *ahead.bytes.borrow_mut() = Some(bytes.unwrap_or_default());
                ahead.arrived.notify();
            });
        }
        self.ahead.borrow_mut().put((span.key.0, offset), ahead);
    }

    /// What was read ahead for a reader at `offset`, waiting for it if it is on its way.
    async fn take_ahead(&self, span: &ColdSpan<'_>, offset: Offset) -> Option<(u64, Bytes)> {
        let key = (span.key.0, offset);
        let ahead = self.ahead.borrow_mut().get(&key)?.clone();
        loop {
            let arrived = ahead.arrived.wait();
            if let Some(bytes) = &*ahead.bytes.borrow() {
                self.ahead.borrow_mut().pop(&key);
                return (ahead.position < span.end && !bytes.is_empty())
                    .then(|| (ahead.position, bytes.clone()));
            }
            arrived.await;
        }
    }

    /// The block in which a reader begins, unless that was read before and should now go into the page cache.
    async fn read_first(self: &Rc<Self>, span: &ColdSpan<'_>) -> Option<Bytes> {
        let frontier = self.frontiers.borrow_mut().get(&span.key).copied();
        if self.unsupported.get()
            || span.position >= span.end
            || frontier.is_some_and(|frontier| span.position < frontier)
        {
            return None;
        }
        let block = self.lend()?;
        self.clone().read_block(block, span).await
    }

    /// Fills the block with what the span begins with: nothing behind its end, where an append may be under way.
    fn read_block(
        self: Rc<Self>,
        mut block: Block,
        span: &ColdSpan<'_>,
    ) -> impl Future<Output = Option<Bytes>> + use<> {
        let (segment, path) = (span.key, span.path.to_owned());
        let start = span.position / DMA_ALIGNMENT_BYTES as u64 * DMA_ALIGNMENT_BYTES as u64;
        let skipped = (span.position - start) as usize;
        let readable = usize::try_from(span.end - start).unwrap_or(usize::MAX);
        async move {
            let read = runtime::blocking(move || {
                let filled = read_direct_now(&path, start, block.memory_mut())?;
                Ok::<_, io::Error>((filled.min(readable), block))
            });
            match read.await {
                Ok((filled, block)) => {
                    let end = start + filled as u64;
                    let mut frontiers = self.frontiers.borrow_mut();
                    let before = frontiers.get(&segment).copied().unwrap_or(0);
                    frontiers.put(segment, end.max(before));
                    (skipped < filled).then(|| Bytes::from_owner(block).slice(skipped..filled))
                }
                Err(error) => {
                    let unsupported = error.kind() == io::ErrorKind::InvalidInput;
                    self.unsupported.set(self.unsupported.get() || unsupported);
                    tracing::debug!(%error, "a direct read failed; the page cache is used instead");
                    None
                }
            }
        }
    }

    /// A block, if need be that of a reader who seems to be gone.
    fn lend(&self) -> Option<Block> {
        self.blocks.lend().or_else(|| {
            let mut ahead = self.ahead.borrow_mut();
            let (_, oldest) = ahead.peek_lru()?;
            if oldest.since.elapsed() < UNCLAIMED_MAX {
                return None; // many readers: taking from each other they would read everything twice
            }
            ahead.pop_lru();
            self.blocks.lend()
        })
    }
}

fn begins_with_a_batch(bytes: &[u8]) -> bool {
    BatchHeader::parse(bytes).is_ok_and(|header| header.size_bytes() <= bytes.len())
}

/// The memory of all blocks: a bounded number is lent out, some spare ones are kept.
struct Blocks {
    count_max: usize,
    lent: AtomicUsize,
    spare_sender: flume::Sender<DmaBuffer>,
    spare: flume::Receiver<DmaBuffer>,
}

impl Blocks {
    fn lend(self: &Arc<Self>) -> Option<Block> {
        if self.lent.fetch_add(1, Ordering::Relaxed) >= self.count_max {
            self.lent.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let memory = self.spare.try_recv().unwrap_or_else(|_| DmaBuffer::zeroed(BLOCK_BYTES));
        Some(Block { memory: Some(memory), home: self.clone() })
    }
}

/// A block in use; it goes back when the last view of it is gone, on whichever thread that is.
struct Block {
    memory: Option<DmaBuffer>,
    home: Arc<Blocks>,
}

impl Block {
    fn memory_mut(&mut self) -> &mut [u8] {
        self.memory.as_mut().map_or(&mut [], DmaBuffer::as_mut_slice)
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        self.memory.as_ref().map_or(&[], DmaBuffer::as_slice)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.home.lent.fetch_sub(1, Ordering::Relaxed);
        if let Some(memory) = self.memory.take() {
            let _ = self.home.spare_sender.try_send(memory); // enough spare ones: freed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{BatchBuilder, Compression, Headers};
    use crate::runtime::block_on;

    /// A file of batches of one record each.
    fn file_of_batches(path: &Path, count: Offset, value_bytes: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for offset in 0..count {
            let mut builder = BatchBuilder::new(Compression::None).with_base_offset(offset, 0);
            builder.append(0, None, Some(&vec![offset as u8; value_bytes]), Headers::NONE).unwrap();
            bytes.extend_from_slice(&builder.finish());
        }
        std::fs::write(path, &bytes).unwrap();
        bytes
    }

    /// Reads on from `offset` at `position`; the bytes, and where it ended or was sent to the page cache.
    async fn read_on(
        cold_reads: &Rc<ColdReads>,
        path: &Path,
        (mut offset, mut position): (Offset, u64),
        end: u64,
        max_bytes: usize,
    ) -> (Vec<u8>, Offset) {
        let mut found = Vec::new();
        while position < end {
            let span = ColdSpan { key: (7, 0), path, position, end };
            let request = ReadRequest { offset, end_offset: Offset::MAX, max_bytes, at_least_one: true };
            let Some(view) = cold_reads.read(&span, &request).await else { break };
            position += view.size_bytes as u64;
            offset = view.next_offset;
            found.extend(view.chunks.iter().flat_map(|chunk| chunk.iter().copied()));
        }
        (found, offset)
    }

    #[test]
    fn a_reader_gets_every_batch_once_whatever_it_takes_at_a_time_and_the_blocks_come_back() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap(); // a temporary directory may be a tmpfs
        let path = dir.path().join("f");
        let bytes = file_of_batches(&path, 300, 10_000);
        for max_bytes in [1, 100_000, MIB, 10 * MIB] {
            block_on(async {
                let cold_reads = ColdReads::new(3 * BLOCK_BYTES);
                let (found, offset) =
                    read_on(&cold_reads, &path, (0, 0), bytes.len() as u64, max_bytes).await;
                assert_eq!((found == bytes, offset, cold_reads.used_bytes()), (true, 300, 0));
            });
        }
    }

    #[test]
    fn a_second_reader_a_huge_batch_and_one_reader_too_many_are_sent_to_the_page_cache() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let (path, huge) = (dir.path().join("f"), dir.path().join("huge"));
        let bytes = file_of_batches(&path, 300, 10_000);
        let end = bytes.len() as u64;
        let huge_bytes = file_of_batches(&huge, 2, BLOCK_BYTES).len() as u64;
        block_on(async {
            let cold_reads = ColdReads::new(2 * BLOCK_BYTES);
            assert_eq!(read_on(&cold_reads, &huge, (0, 0), huge_bytes, MIB).await.1, 0);
            let cold_reads = ColdReads::new(2 * BLOCK_BYTES);
            assert_eq!(read_on(&cold_reads, &path, (0, 0), end, MIB).await.1, 300);
            assert_eq!(read_on(&cold_reads, &path, (0, 0), end, MIB).await.1, 0, "for the second reader");
            let cold_reads = ColdReads::new(BLOCK_BYTES);
            let held = cold_reads.blocks.lend();
            assert_eq!(
                read_on(&cold_reads, &path, (0, 0), end, MIB).await.1,
                0,
                "while all blocks are in use"
            );
            drop(held);
            assert!(read_on(&cold_reads, &path, (0, 0), end, MIB).await.1 > 0);
        });
    }

    #[test]
    fn nothing_behind_the_end_is_given_out_though_the_file_goes_on() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = dir.path().join("f");
        let bytes = file_of_batches(&path, 300, 10_000);
        let batch_bytes = BatchHeader::parse(&bytes).unwrap().size_bytes();
        block_on(async {
            let cold_reads = ColdReads::new(4 * BLOCK_BYTES);
            let early_end = (150 * batch_bytes) as u64;
            let (found, offset) = read_on(&cold_reads, &path, (0, 0), early_end, MIB).await;
            assert_eq!((found == bytes[..150 * batch_bytes], offset), (true, 150));
            let (rest, offset) = read_on(&cold_reads, &path, (150, early_end), bytes.len() as u64, MIB).await;
            assert_eq!((rest == bytes[150 * batch_bytes..], offset), (true, 300));
        });
    }
}
