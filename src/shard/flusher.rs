//! The lazy flusher: bounds what a power cut can take to `flush.ms`, without anybody waiting for it.
//!
//! A partition that is written to is put in line once, to be synced when its time has come. Nothing runs while nothing
//! is written. The flusher also looks at the free space of the disk, since only writing uses it up.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::Shard;
use crate::base::clock;
use crate::model::TopicPartition;
use crate::partition::Partition;
use crate::runtime::executor::TaskQueue;
use crate::runtime::local::Event;
use crate::runtime::{blocking, process, sleep, timeout, yield_if_needed};
use crate::storage::StorageError;

/// Partitions that are synced side by side.
const FLUSHES_AT_ONCE: usize = 2;
/// From so many on, partitions are synced by one sync of the whole file system.
const SYNC_TOGETHER_MIN: usize = 32;
/// How often the free space is looked at while something is written.
const DISK_CHECK_INTERVAL_MS: i64 = 1000;
/// How often it is looked at while the disk is low.
const DISK_LOW_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The partitions that wait to be synced.
#[derive(Default)]
pub(super) struct Flusher {
    /// When each is due, with a number that keeps entries apart.
    due: RefCell<BTreeMap<(i64, u64), TopicPartition>>,
    queued: RefCell<ahash::AHashSet<TopicPartition>>,
    next_number: Cell<u64>,
    touched: Event,
    disk_checked_ms: Cell<i64>,
}

impl Flusher {
    /// Puts a partition that is being written in line, unless it is there already.
    pub(super) fn touch(&self, topic_partition: &TopicPartition) {
        if self.queued.borrow().contains(topic_partition) {
            return;
        }
        self.queued.borrow_mut().insert(topic_partition.clone());
        let number = self.next_number.get();
        self.next_number.set(number + 1);
        // Its own flush.ms counts from the first unsynced byte; the flusher looks at it when it takes the entry out.
        self.due.borrow_mut().insert((0, number), topic_partition.clone());
        self.touched.notify();
    }
}

impl Shard {
    /// Starts the flusher's tasks.
    pub(super) fn start_flusher(self: &Rc<Self>, queue: &TaskQueue) {
        for _ in 0..FLUSHES_AT_ONCE {
            let shard = self.clone();
            queue.spawn_detached(async move { shard.flush_lazily().await });
        }
    }

    async fn flush_lazily(self: Rc<Self>) {
        while !self.is_stopping() {
            let first = self.flusher.due.borrow().keys().next().copied();
            let now_ms = clock::now_ms();
            match first {
                None => futures_lite::future::or(self.flusher.touched.wait(), self.stopping()).await,
                Some((due_ms, _)) if due_ms > now_ms => {
                    let wait = Duration::from_millis(u64::try_from(due_ms - now_ms).unwrap_or(0));
                    timeout(wait, self.stopping()).await;
                }
                Some(_) if self.due_count(now_ms) >= SYNC_TOGETHER_MIN => self.flush_all_due(now_ms).await,
                Some(key) => {
                    let taken = self.flusher.due.borrow_mut().remove(&key);
                    if let Some(topic_partition) = taken {
                        self.flush_when_due(key.1, topic_partition, now_ms).await;
                    }
                }
            }
        }
    }

    /// Syncs the partition if its oldest unsynced byte is older than `flush.ms`; else puts it back for then.
    async fn flush_when_due(&self, number: u64, topic_partition: TopicPartition, now_ms: i64) {
        let partition = self.partition(&topic_partition);
        let unsynced = partition.and_then(|partition| due_ms(&partition).map(|due_ms| (partition, due_ms)));
        let Some((partition, due_ms)) = unsynced else {
            self.flusher.queued.borrow_mut().remove(&topic_partition);
            return;
        };
        if due_ms > now_ms {
            self.flusher.due.borrow_mut().insert((due_ms, number), topic_partition);
            return;
        }
        // Out of line before the sync, so that what is written meanwhile gets a new entry.
        self.flusher.queued.borrow_mut().remove(&topic_partition);
        self.flush(&partition).await;
        self.check_disk(now_ms).await;
    }

    /// How many places in line have come to their time, as far as that matters.
    fn due_count(&self, now_ms: i64) -> usize {
        self.flusher.due.borrow().range(..=(now_ms, u64::MAX)).take(SYNC_TOGETHER_MIN).count()
    }

    /// As [`Shard::flush_when_due`] for all whose place in line has come, with one sync for all.
    async fn flush_all_due(&self, now_ms: i64) {
        let later = self.flusher.due.borrow_mut().split_off(&(now_ms, u64::MAX));
        let taken = self.flusher.due.replace(later);
        let mut unsynced = Vec::new();
        for ((_, number), topic_partition) in taken {
            yield_if_needed().await;
            let Some(partition) = self.partition(&topic_partition) else {
                self.flusher.queued.borrow_mut().remove(&topic_partition);
                continue;
            };
            match due_ms(&partition) {
                Some(due_ms) if due_ms > now_ms => {
                    self.flusher.due.borrow_mut().insert((due_ms, number), topic_partition);
                }
                due => {
                    self.flusher.queued.borrow_mut().remove(&topic_partition);
                    unsynced.extend(due.map(|_| partition));
                }
            }
        }
        if !self.sync_together(&unsynced).await {
            for partition in unsynced {
                self.flush(&partition).await;
            }
        }
        self.check_disk(now_ms).await;
    }

    /// Makes many partitions durable by one sync of the file system that they share; whether it did: not for a few, nor if
    /// that sync fails.
    pub(super) async fn sync_together(&self, partitions: &[Rc<Partition>]) -> bool {
        let dirty: Vec<_> = partitions.iter().filter(|partition| partition.log().needs_sync()).collect();
        let Some(file_system) = self.file_system.as_ref().filter(|_| dirty.len() >= SYNC_TOGETHER_MIN) else {
            return false;
        };
        let covers: Vec<_> = dirty.iter().map(|partition| partition.log().begin_sync()).collect();
        let synced = file_system.sync().await;
        for (partition, cover) in dirty.iter().zip(covers) {
            partition.log().end_sync(cover, synced.is_ok());
        }
        if let Err(error) = &synced {
            tracing::warn!(%error, "the file system could not be synced; each file is synced instead");
        }
        synced.is_ok()
    }

    async fn flush(&self, partition: &Partition) {
        if let Err(error) = partition.log().flush().await
            && !matches!(error, StorageError::Closed { .. })
        {
            let partition = partition.topic_partition();
            tracing::error!(%partition, %error, "the lazy flusher could not sync a partition");
        }
    }

    /// Stops appends while less than `disk.reserve.bytes` is free.
    async fn check_disk(&self, now_ms: i64) {
        if now_ms - self.flusher.disk_checked_ms.get() >= DISK_CHECK_INTERVAL_MS {
            self.flusher.disk_checked_ms.set(now_ms);
            self.look_at_disk().await;
        }
    }

    /// Looks at the free space until the disk has room again or the server stops.
    pub(super) async fn look_at_disk(&self) {
        loop {
            let data_dir = self.data_dir.clone();
            let Ok(space) = blocking(move || process::disk_space(&data_dir)).await else { return };
            let free_bytes = space.free_bytes;
            let reserve_bytes = self.config().disk_reserve_bytes;
            let low = free_bytes < reserve_bytes;
            if low != self.storage.disk_low.get() {
                self.storage.disk_low.set(low);
                if low {
                    tracing::error!(
                        free_bytes,
                        reserve_bytes,
                        "the disk is nearly full: producers are refused until there is room (delete topics, shorten \
                         retention, or lower disk.reserve.bytes)"
                    );
                } else {
                    tracing::info!(free_bytes, "the disk has room again");
                }
            }
            if !low || self.is_stopping() {
                return;
            }
            sleep(DISK_LOW_CHECK_INTERVAL).await;
        }
    }
}

/// When what is unsynced of a partition has to be synced, if anything is.
fn due_ms(partition: &Partition) -> Option<i64> {
    let flush_ms = i64::try_from(partition.config().flush_ms).unwrap_or(i64::MAX);
    partition.log().dirty_since_ms().map(|since_ms| since_ms.saturating_add(flush_ms))
}
