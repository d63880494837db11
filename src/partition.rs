//! One partition: what may be appended, what may be read, and who waits for more.
//!
//! Lives on: the shard that owns it; never shared. Owns the partition's [`storage::Log`](crate::storage::Log).
//! Keeps: log start offset <= last stable offset <= high watermark <= log end offset. Readers never see past the high
//! watermark, which is what the topic's flush policy has made durable enough to acknowledge.
//! Does not: know protocols, other partitions or other shards.

mod append;
mod append_group;
mod error;
mod fetch;
mod fetch_waiters;
mod offsets;
mod transactions;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

pub use append::Appended;
pub use error::PartitionError;
pub use fetch::{IsolationLevel, PartitionRead, ReadSpec};
pub use fetch_waiters::FetchWaiter;
pub use offsets::{EpochEnd, ListedOffset, OffsetSpec, ProducerDescription};
pub use transactions::{Marker, TransactionStart};

use crate::config::TopicConfig;
use crate::model::{LeaderEpoch, Offset, TopicPartition};
use crate::storage::{Log, LogOptions};

pub use crate::storage::Verified;

use append_group::AppendQueue;
use fetch_waiters::FetchWaiters;

/// One partition, open on its shard.
pub struct Partition {
    topic_partition: TopicPartition,
    log: Log,
    config: RefCell<Arc<TopicConfig>>,
    /// Appends happen one at a time, in the order in which they were asked for.
    appends: AppendQueue,
    high_watermark: Cell<Offset>,
    /// Bytes appended since the high watermark last moved.
    unseen_bytes: Cell<u64>,
    waiters: FetchWaiters,
}

impl Partition {
    /// Takes over an open log.
    pub fn new(topic_partition: TopicPartition, log: Log, config: Arc<TopicConfig>) -> Rc<Self> {
        // Whatever recovery found in the log was written before this start, so every policy but "synced" is satisfied,
        // and opening has synced what it kept.
        let high_watermark = Cell::new(log.log_end_offset());
        log.producers().on_high_watermark(log.log_end_offset());
        Rc::new(Partition {
            topic_partition,
            log,
            config: RefCell::new(config),
            appends: AppendQueue::default(),
            high_watermark,
            unseen_bytes: Cell::new(0),
            waiters: FetchWaiters::default(),
        })
    }

    /// Which partition this is.
    pub fn topic_partition(&self) -> &TopicPartition {
        &self.topic_partition
    }

    /// The log underneath, for maintenance.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The topic's configs in force.
    pub fn config(&self) -> Arc<TopicConfig> {
        self.config.borrow().clone()
    }

    /// Puts new configs in force.
    pub fn set_config(&self, config: Arc<TopicConfig>, options: LogOptions) {
        *self.config.borrow_mut() = config;
        self.log.set_options(options);
    }

    /// The first offset that there is.
    pub fn log_start_offset(&self) -> Offset {
        self.log.log_start_offset()
    }

    /// The next offset to be written.
    pub fn log_end_offset(&self) -> Offset {
        self.log.log_end_offset()
    }

    /// The first offset that readers may not see yet.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark.get()
    }

    /// The first offset of the oldest open transaction (what was deleted from it does not count), or the high watermark.
    pub fn last_stable_offset(&self) -> Offset {
        let high_watermark = self.high_watermark.get();
        self.log
            .producers()
            .first_unstable_offset()
            .map_or(high_watermark, |offset| offset.max(self.log.log_start_offset()).min(high_watermark))
    }

    /// The epoch that new batches are stamped with.
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.log.leader_epoch()
    }

    /// Refuses a client that believes in another epoch (-1: it does not say).
    ///
    /// # Errors
    /// `FencedLeaderEpoch` or `UnknownLeaderEpoch`, as in KIP-320.
    pub fn check_leader_epoch(&self, believed: LeaderEpoch) -> Result<(), PartitionError> {
        match believed.cmp(&self.leader_epoch()) {
            _ if believed < 0 => Ok(()),
            std::cmp::Ordering::Less => Err(PartitionError::FencedLeaderEpoch),
            std::cmp::Ordering::Greater => Err(PartitionError::UnknownLeaderEpoch),
            std::cmp::Ordering::Equal => Ok(()),
        }
    }

    /// Lets readers see up to `offset`, and wakes those who wait for it.
    fn advance_high_watermark(&self, offset: Offset) {
        let before = self.high_watermark.get();
        if offset <= before {
            return;
        }
        let stable_before = self.last_stable_offset();
        self.high_watermark.set(offset);
        self.log.producers().on_high_watermark(offset);
        let unseen_bytes = self.unseen_bytes.take();
        // The end of a transaction shows more than was appended just now; who waits for it looks anew.
        let shows_more = stable_before < before && self.last_stable_offset() > stable_before;
        if shows_more {
            self.waiters.wake_all();
        } else {
            self.waiters.notify(unseen_bytes);
        }
    }
}
