//! What the logs of one shard share: caches, the file remover, the disk's state.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use lru::LruCache;

use crate::base::units::{GIB, MIB};

use super::cold_reads::ColdReads;
use super::file_remover::FileRemover;
use super::log::LogState;
use super::segment_cache::SegmentCache;
use super::tail_cache::TailCache;

/// Bounds of what the logs of one shard share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardStorageLimits {
    /// Bytes of recent batches kept in memory.
    pub tail_cache_bytes: usize,
    /// Mapped sealed segments.
    pub segment_cache_count: usize,
    /// Bytes of mapped sealed segments (address space, not memory).
    pub segment_cache_bytes: u64,
    /// Bytes read past the page cache for readers of old data, those on their way to clients included.
    pub cold_read_bytes: usize,
    /// Active segments that hold a descriptor and their indexes; the one that was used longest ago is put to rest.
    pub active_open_count: usize,
}

impl Default for ShardStorageLimits {
    fn default() -> Self {
        ShardStorageLimits {
            tail_cache_bytes: 64 * MIB,
            segment_cache_count: 256,
            segment_cache_bytes: 64 * GIB as u64,
            cold_read_bytes: 32 * MIB,
            active_open_count: 4_096,
        }
    }
}

/// Shared by all logs of a shard, in an `Rc`. Never leaves the shard.
pub struct ShardStorage {
    /// Recent batches.
    pub tail_cache: TailCache,
    /// Mapped sealed segments.
    pub segment_cache: SegmentCache,
    /// Readers of what is on the disk only.
    pub cold_reads: Rc<ColdReads>,
    /// Unlinks what retention and topic deletion have given up.
    pub file_remover: Rc<FileRemover>,
    /// Set by the shard while the disk has less room than its reserve: appends are refused.
    pub disk_low: Cell<bool>,
    next_log_id: Cell<u64>,
    active_open_count_max: usize,
    /// Logs whose active segment is awake, by use.
    awake: RefCell<LruCache<u64, Weak<LogState>>>,
}

impl ShardStorage {
    /// Makes the shared parts.
    pub fn new(limits: ShardStorageLimits) -> Rc<Self> {
        Rc::new(ShardStorage {
            tail_cache: TailCache::new(limits.tail_cache_bytes),
            segment_cache: SegmentCache::new(limits.segment_cache_count, limits.segment_cache_bytes),
            cold_reads: ColdReads::new(limits.cold_read_bytes),
            file_remover: FileRemover::new(),
            disk_low: Cell::new(false),
            next_log_id: Cell::new(0),
            active_open_count_max: limits.active_open_count.max(1),
            awake: RefCell::new(LruCache::unbounded()), // bounded by `log_woke`
        })
    }

    /// Active segments that hold a descriptor now.
    pub fn active_open_count(&self) -> usize {
        self.awake.borrow().len()
    }

    /// Whether one more active segment may hold a descriptor without another being put to rest.
    pub(super) fn has_room_for_active(&self) -> bool {
        self.awake.borrow().len() < self.active_open_count_max
    }

    /// The active segment of a log is in use.
    pub(super) fn log_used(&self, id: u64) {
        self.awake.borrow_mut().promote(&id);
    }

    /// The active segment of a log woke up. Returns a log that has to rest for it, the one used longest ago.
    pub(super) fn log_woke(&self, id: u64, log: Weak<LogState>) -> Option<Rc<LogState>> {
        let mut awake = self.awake.borrow_mut();
        awake.put(id, log);
        if awake.len() <= self.active_open_count_max {
            return None;
        }
        awake.pop_lru().and_then(|(_, log)| log.upgrade())
    }

    /// A log is gone or at rest.
    pub(super) fn log_rests(&self, id: u64) {
        self.awake.borrow_mut().pop(&id);
    }

    /// A number that names a log within the shard for as long as the process lives.
    pub(super) fn new_log_id(&self) -> u64 {
        let id = self.next_log_id.get();
        self.next_log_id.set(id + 1);
        id
    }
}
