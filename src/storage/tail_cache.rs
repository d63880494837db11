//! The newest batches of every log of a shard, in memory, so that readers at the tail never touch a file.
//!
//! A log's tail is a row of chunks without gaps up to the log's end. Small batches are packed side by side into one
//! buffer (so that a few hundred bytes never pin a large network buffer, and a reader gets them as one slice); large
//! ones stay where the network put them. The shard's limit counts all logs together; the oldest chunk of any log goes
//! first. A chunk with bytes that are not in the file yet (direct writes under way) stays until they are.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

use bytes::Bytes;

use crate::base::units::KIB;
use crate::model::Offset;
use crate::record::BatchHeader;
use crate::runtime::append_buffer::AppendBuffer;

use super::log::{ReadRequest, ReadView};

/// Batches below this are packed; copying so little costs less than what a kept network buffer would.
const PACK_BELOW_BYTES: usize = 8 * KIB;
/// The first pack of a log; each next one is twice as large, so that quiet logs stay cheap.
const PACK_BYTES_MIN: usize = 4 * KIB;
/// The largest pack.
const PACK_BYTES_MAX: usize = 64 * KIB;
/// What a chunk costs beside its bytes, roughly.
const CHUNK_OVERHEAD_BYTES: usize = 128;

/// The chunks of all logs of a shard, oldest first.
pub struct TailCache {
    limit_bytes: usize,
    used_bytes: Cell<usize>,
    next_chunk_id: Cell<u64>,
    order: RefCell<VecDeque<(Weak<LogTail>, u64)>>,
}

/// The tail of one log.
pub(super) struct LogTail {
    chunks: RefCell<VecDeque<Chunk>>,
    /// Bytes from here on are in no file yet.
    pinned_from: Cell<Offset>,
}

struct Chunk {
    id: u64,
    base_offset: Offset,
    next_offset: Offset,
    cost_bytes: usize,
    content: Content,
}

enum Content {
    /// One batch in memory that is shared with whoever brought it.
    Shared(Bytes),
    /// Many batches, one behind the other.
    Packed { buffer: AppendBuffer, batches: Vec<PackedBatch>, capacity: usize },
}

/// Where a batch ends, in offsets and in its pack.
struct PackedBatch {
    next_offset: Offset,
    end: usize,
}

impl TailCache {
    /// A cache of at most `limit_bytes`.
    pub fn new(limit_bytes: usize) -> Self {
        TailCache {
            limit_bytes,
            used_bytes: Cell::new(0),
            next_chunk_id: Cell::new(0),
            order: RefCell::new(VecDeque::new()),
        }
    }

    /// Bytes held now.
    pub fn used_bytes(&self) -> usize {
        self.used_bytes.get()
    }

    /// Appends a batch to a log's tail and makes room.
    pub(super) fn push(&self, tail: &Rc<LogTail>, header: &BatchHeader, bytes: &Bytes) {
        if bytes.len() >= PACK_BELOW_BYTES {
            self.add_chunk(tail, header, bytes.len(), Content::Shared(bytes.clone()));
        } else if !tail.pack(header, bytes) {
            let capacity = tail.next_pack_bytes().max(bytes.len());
            let mut buffer = AppendBuffer::with_capacity(capacity);
            buffer.push(bytes);
            let batches = vec![PackedBatch { next_offset: header.next_offset(), end: bytes.len() }];
            self.add_chunk(tail, header, capacity, Content::Packed { buffer, batches, capacity });
        }
        self.make_room();
    }

    fn add_chunk(&self, tail: &Rc<LogTail>, header: &BatchHeader, bytes: usize, content: Content) {
        let id = self.next_chunk_id.get();
        self.next_chunk_id.set(id + 1);
        let cost_bytes = bytes + CHUNK_OVERHEAD_BYTES;
        self.used_bytes.set(self.used_bytes.get() + cost_bytes);
        self.order.borrow_mut().push_back((Rc::downgrade(tail), id));
        let (base_offset, next_offset) = (header.base_offset, header.next_offset());
        tail.chunks.borrow_mut().push_back(Chunk { id, base_offset, next_offset, cost_bytes, content });
    }

    /// Drops the oldest chunks until the limit holds or only pinned ones are left.
    fn make_room(&self) {
        let mut order = self.order.borrow_mut();
        let mut tries = order.len();
        while self.used_bytes.get() > self.limit_bytes && tries > 0 {
            tries -= 1;
            let Some((weak, id)) = order.pop_front() else { return };
            let Some(tail) = weak.upgrade() else { continue };
            let mut chunks = tail.chunks.borrow_mut();
            match chunks.front() {
                Some(chunk) if chunk.id == id && chunk.next_offset > tail.pinned_from.get() => {
                    order.push_back((weak, id));
                }
                Some(chunk) if chunk.id == id => {
                    self.used_bytes.set(self.used_bytes.get() - chunk.cost_bytes);
                    chunks.pop_front();
                }
                // A pinned older chunk of this log went to the back of the row; this one waits behind it.
                Some(chunk) if chunk.id < id => order.push_back((weak, id)),
                _ => {}
            }
        }
    }

    /// Drops all chunks of a log.
    pub(super) fn forget(&self, tail: &Rc<LogTail>) {
        self.order.borrow_mut().retain(|(weak, _)| weak.as_ptr() != Rc::as_ptr(tail));
        for chunk in tail.chunks.borrow_mut().drain(..) {
            self.used_bytes.set(self.used_bytes.get() - chunk.cost_bytes);
        }
    }
}

impl LogTail {
    /// An empty tail.
    pub(super) fn new() -> Rc<Self> {
        Rc::new(LogTail { chunks: RefCell::new(VecDeque::new()), pinned_from: Cell::new(Offset::MAX) })
    }

    /// From here on nothing is evicted, because no file has it yet.
    pub(super) fn pin_from(&self, offset: Offset) {
        self.pinned_from.set(offset);
    }

    /// The first offset that is here; `None` when nothing is.
    #[cfg(test)]
    fn start_offset(&self) -> Option<Offset> {
        self.chunks.borrow().front().map(|chunk| chunk.base_offset)
    }

    fn next_pack_bytes(&self) -> usize {
        match self.chunks.borrow().back().map(|chunk| &chunk.content) {
            Some(Content::Packed { capacity, .. }) => (capacity * 2).min(PACK_BYTES_MAX),
            Some(Content::Shared(_)) => PACK_BYTES_MAX,
            None => PACK_BYTES_MIN,
        }
    }

    /// Puts a batch into the last pack if there is one with room.
    fn pack(&self, header: &BatchHeader, bytes: &[u8]) -> bool {
        let mut chunks = self.chunks.borrow_mut();
        let Some(chunk) = chunks.back_mut() else { return false };
        let Content::Packed { buffer, batches, .. } = &mut chunk.content else { return false };
        if buffer.remaining() < bytes.len() {
            return false;
        }
        buffer.push(bytes);
        batches.push(PackedBatch { next_offset: header.next_offset(), end: buffer.len() });
        chunk.next_offset = header.next_offset();
        true
    }

    /// Answers a read if its offset is here.
    pub(super) fn read(&self, request: &ReadRequest) -> Option<ReadView> {
        let chunks = self.chunks.borrow();
        if chunks.front()?.base_offset > request.offset {
            return None;
        }
        let first = chunks.partition_point(|chunk| chunk.next_offset <= request.offset);
        let mut view = ReadView::empty(request.offset);
        for chunk in chunks.range(first..) {
            if !chunk.read_into(request, &mut view) {
                break;
            }
        }
        Some(view)
    }
}

impl Chunk {
    /// Adds what fits; whether the next chunk may go on.
    fn read_into(&self, request: &ReadRequest, view: &mut ReadView) -> bool {
        match &self.content {
            Content::Shared(bytes) => {
                if !request.takes(view.size_bytes, bytes.len(), self.next_offset) {
                    return false;
                }
                view.push(bytes.clone(), self.next_offset);
                true
            }
            Content::Packed { buffer, batches, .. } => {
                let first = batches.partition_point(|batch| batch.next_offset <= request.offset);
                let start =
                    first.checked_sub(1).and_then(|slot| batches.get(slot)).map_or(0, |batch| batch.end);
                let (mut end, mut next_offset) = (start, None);
                for batch in batches.iter().skip(first) {
                    if !request.takes(view.size_bytes + (end - start), batch.end - end, batch.next_offset) {
                        break;
                    }
                    (end, next_offset) = (batch.end, Some(batch.next_offset));
                }
                if let Some(next_offset) = next_offset {
                    view.push(buffer.view(start..end), next_offset);
                }
                next_offset == Some(self.next_offset)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(base_offset: Offset, size: usize) -> (BatchHeader, Bytes) {
        let header = BatchHeader {
            base_offset,
            batch_length: i32::try_from(size).unwrap() - 12,
            leader_epoch: 0,
            magic: 2,
            crc: 0,
            attributes: 0,
            last_offset_delta: 9,
            base_timestamp: 0,
            max_timestamp: 0,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            record_count: 10,
        };
        (header, Bytes::from(vec![u8::try_from(base_offset / 10 % 251).unwrap(); size]))
    }

    fn fill(cache: &TailCache, tail: &Rc<LogTail>, numbers: std::ops::Range<i64>, size: usize) {
        for number in numbers {
            let (header, bytes) = batch(number * 10, size);
            cache.push(tail, &header, &bytes);
        }
    }

    fn request(offset: Offset, end_offset: Offset, max_bytes: usize) -> ReadRequest {
        ReadRequest { offset, end_offset, max_bytes, at_least_one: true }
    }

    #[test]
    fn small_batches_come_out_as_few_slices_and_begin_with_the_one_that_holds_the_offset() {
        let (cache, tail) = (TailCache::new(1 << 20), LogTail::new());
        fill(&cache, &tail, 0..100, 200);
        let view = tail.read(&request(15, 1_000, 1 << 20)).unwrap();
        assert_eq!((view.size_bytes, view.next_offset), (99 * 200, 1_000));
        assert!(view.chunks.len() <= 4, "{}", view.chunks.len());
        assert_eq!(view.chunks[0][0], 1);
    }

    #[test]
    fn reads_stop_at_whole_batches_at_the_bound_and_at_the_limit() {
        let (cache, tail) = (TailCache::new(1 << 20), LogTail::new());
        fill(&cache, &tail, 0..10, 200);
        fill(&cache, &tail, 10..12, 20_000);
        assert_eq!(tail.read(&request(0, 35, 1 << 20)).unwrap().next_offset, 30);
        assert_eq!(tail.read(&request(0, 1_000, 450)).unwrap().next_offset, 20);
        assert_eq!(tail.read(&request(0, 1_000, 10)).unwrap().next_offset, 10, "at least one");
        assert_eq!(tail.read(&request(90, 1_000, 20_200)).unwrap().next_offset, 110);
        let none = ReadRequest { at_least_one: false, ..request(0, 1_000, 10) };
        assert_eq!(tail.read(&none).unwrap().size_bytes, 0);
    }

    #[test]
    fn the_oldest_chunks_of_any_log_go_first() {
        let (cache, old, new) = (TailCache::new(70_000), LogTail::new(), LogTail::new());
        fill(&cache, &old, 0..3, 20_000);
        fill(&cache, &new, 0..2, 20_000);
        assert_eq!(old.start_offset(), Some(20));
        assert_eq!(new.start_offset(), Some(0));
        assert!(cache.used_bytes() <= 70_000);
        assert!(old.read(&request(5, 100, 100)).is_none());
    }

    #[test]
    fn what_is_in_no_file_yet_stays() {
        let (cache, tail, other) = (TailCache::new(50_000), LogTail::new(), LogTail::new());
        tail.pin_from(0);
        fill(&cache, &tail, 0..5, 20_000);
        fill(&cache, &other, 0..1, 20_000);
        assert_eq!(tail.start_offset(), Some(0));
        tail.pin_from(40);
        fill(&cache, &other, 1..2, 20_000);
        assert!(cache.used_bytes() <= 50_000);
        assert_eq!(tail.start_offset(), Some(40));
        tail.pin_from(Offset::MAX);
        fill(&cache, &other, 2..6, 20_000);
        assert_eq!(tail.start_offset(), None);
        cache.forget(&other);
        assert_eq!(cache.used_bytes(), 0);
    }
}
