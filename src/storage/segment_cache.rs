//! Mapped sealed segments: the least recently read ones are unmapped when there are too many.
//!
//! An entry holds the mapping of the batches and the segment's indexes in memory, loaded together on the blocking pool
//! at the first read and given up together. Eviction drops the entry: the mapping goes, and with it the file, once the
//! last view that a reader holds is gone (`mapped_file`). Several readers that miss the same segment load it once.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use lru::LruCache;

use crate::model::Offset;
use crate::runtime::local::Event;

use super::segment::SegmentIndexes;

/// A segment by its log's number within the shard and its base offset.
pub(super) type SegmentKey = (u64, Offset);

/// A sealed segment that can be read.
pub(super) struct LoadedSegment {
    /// Its batches.
    pub(super) map: Bytes,
    /// Its indexes.
    pub(super) indexes: SegmentIndexes,
}

/// The loaded segments of all logs of a shard.
pub struct SegmentCache {
    count_max: usize,
    bytes_max: u64,
    used_bytes: Cell<u64>,
    evicted_count: Cell<u64>,
    segments: RefCell<LruCache<SegmentKey, Rc<LoadedSegment>>>,
    loading: RefCell<BTreeMap<SegmentKey, Rc<Event>>>,
}

impl SegmentCache {
    /// A cache of at most `count_max` segments and `bytes_max` mapped bytes; one segment is always allowed.
    pub fn new(count_max: usize, bytes_max: u64) -> Self {
        SegmentCache {
            count_max: count_max.max(1),
            bytes_max,
            used_bytes: Cell::new(0),
            evicted_count: Cell::new(0),
            segments: RefCell::new(LruCache::unbounded()), // bounded by `make_room`, in count and bytes
            loading: RefCell::default(),
        }
    }

    /// Segments that are mapped now.
    pub fn count(&self) -> usize {
        self.segments.borrow().len()
    }

    /// Bytes that are mapped now (readers may hold more for a moment).
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.get()
    }

    /// Segments that were given up for others so far.
    pub fn evicted_count(&self) -> u64 {
        self.evicted_count.get()
    }

    /// The segment, if it is loaded; counts as a use.
    pub(super) fn get(&self, key: SegmentKey) -> Option<Rc<LoadedSegment>> {
        self.segments.borrow_mut().get(&key).cloned()
    }

    /// The segment, loaded by `load` if need be.
    pub(super) async fn get_or_load<E>(
        &self,
        key: SegmentKey,
        load: impl AsyncFnOnce() -> Result<LoadedSegment, E>,
    ) -> Result<Rc<LoadedSegment>, E> {
        loop {
            if let Some(segment) = self.get(key) {
                return Ok(segment);
            }
            let under_way = self.loading.borrow().get(&key).cloned();
            match under_way {
                Some(event) => event.wait().await,
                None => break,
            }
        }
        let _loading = Loading::begin(self, key); // tells the others, even if this future is dropped
        let segment = Rc::new(load().await?);
        self.insert(key, segment.clone());
        Ok(segment)
    }

    fn insert(&self, key: SegmentKey, segment: Rc<LoadedSegment>) {
        self.used_bytes.set(self.used_bytes.get() + segment.map.len() as u64);
        if let Some(replaced) = self.segments.borrow_mut().put(key, segment) {
            self.used_bytes.set(self.used_bytes.get() - replaced.map.len() as u64);
        }
        self.make_room();
    }

    fn make_room(&self) {
        let mut segments = self.segments.borrow_mut();
        while segments.len() > self.count_max
            || (self.used_bytes.get() > self.bytes_max && segments.len() > 1)
        {
            let Some((key, segment)) = segments.pop_lru() else { return };
            self.on_evicted(key, &segment);
        }
    }

    /// The eviction callback: counts; dropping the entry unmaps and closes.
    fn on_evicted(&self, (log, base_offset): SegmentKey, segment: &LoadedSegment) {
        self.used_bytes.set(self.used_bytes.get() - segment.map.len() as u64);
        self.evicted_count.set(self.evicted_count.get() + 1);
        tracing::trace!(log, base_offset, "a segment was unmapped");
    }

    /// Gives up a segment that is about to be removed.
    pub(super) fn remove(&self, key: SegmentKey) {
        if let Some(segment) = self.segments.borrow_mut().pop(&key) {
            self.used_bytes.set(self.used_bytes.get() - segment.map.len() as u64);
        }
    }
}

/// Marks a segment as being loaded until dropped.
struct Loading<'a> {
    cache: &'a SegmentCache,
    key: SegmentKey,
}

impl<'a> Loading<'a> {
    fn begin(cache: &'a SegmentCache, key: SegmentKey) -> Self {
        cache.loading.borrow_mut().insert(key, Rc::default());
        Loading { cache, key }
    }
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        if let Some(event) = self.cache.loading.borrow_mut().remove(&self.key) {
            event.notify();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{self, block_on};

    fn loaded(bytes: usize) -> LoadedSegment {
        LoadedSegment { map: Bytes::from(vec![0; bytes]), indexes: SegmentIndexes::new(0) }
    }

    async fn load(cache: &SegmentCache, base_offset: Offset, bytes: usize) {
        cache.get_or_load((0, base_offset), async || Ok::<_, ()>(loaded(bytes))).await.unwrap();
    }

    #[test]
    fn the_least_recently_read_go_when_there_are_too_many_segments_or_bytes() {
        block_on(async {
            let cache = SegmentCache::new(2, 1_000);
            load(&cache, 0, 100).await;
            load(&cache, 1, 100).await;
            assert!(cache.get((0, 0)).is_some());
            load(&cache, 2, 100).await;
            assert!(cache.get((0, 1)).is_none() && cache.get((0, 0)).is_some());
            load(&cache, 3, 950).await;
            assert_eq!((cache.count(), cache.used_bytes(), cache.evicted_count()), (1, 950, 3));
            load(&cache, 4, 5_000).await;
            assert_eq!((cache.count(), cache.used_bytes()), (1, 5_000), "one is always allowed");
            cache.remove((0, 4));
            assert_eq!((cache.count(), cache.used_bytes()), (0, 0));
        });
    }

    #[test]
    fn readers_that_miss_together_load_once_and_a_failed_load_can_be_tried_again() {
        block_on(async {
            let cache = Rc::new(SegmentCache::new(2, 1_000));
            let loads = Rc::new(Cell::new(0));
            let failed = cache.get_or_load((0, 0), async || Err("broken")).await;
            assert_eq!(failed.err(), Some("broken"));
            let tasks: Vec<_> = (0..3)
                .map(|_| {
                    let (cache, loads) = (cache.clone(), loads.clone());
                    runtime::spawn(async move {
                        let slow = async || {
                            runtime::yield_now().await;
                            loads.set(loads.get() + 1);
                            Ok::<_, ()>(loaded(10))
                        };
                        cache.get_or_load((0, 0), slow).await.unwrap();
                    })
                })
                .collect();
            for task in tasks {
                task.await;
            }
            assert_eq!(loads.get(), 1);
        });
    }
}
