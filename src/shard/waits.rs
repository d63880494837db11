//! Fetches that wait here for bytes, some of them on behalf of other shards.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ahash::AHashMap;

use super::Shard;
use crate::model::{Offset, TopicPartition};
use crate::partition::{FetchWaiter, IsolationLevel};
use crate::runtime::{sleep, timeout};

/// How long a reader rests that is one too many to be woken.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// The waits under way, by the asker's name for them.
#[derive(Default)]
pub(super) struct Waits {
    waiting: RefCell<AHashMap<u64, Rc<FetchWaiter>>>,
    next_id: Cell<u64>,
}

impl Waits {
    /// Ends a wait; one that has ended already is no error.
    pub(super) fn cancel(&self, id: u64) {
        let cancelled = self.waiting.borrow_mut().remove(&id);
        if let Some(waiter) = cancelled {
            waiter.satisfy();
        }
    }
}

impl Shard {
    /// A name for a wait that no other wait of any shard has.
    pub fn wait_id(&self) -> u64 {
        let count = self.waits.next_id.get();
        self.waits.next_id.set(count + 1);
        count * self.shards as u64 + self.id as u64
    }

    /// Resolves when the partitions have more for a reader at these offsets, or the time is up, or it was cancelled;
    /// whether before the time was up.
    pub async fn wait_for_bytes(
        &self,
        id: u64,
        positions: impl Iterator<Item = (&TopicPartition, Offset)>,
        isolation: IsolationLevel,
        missing_bytes: i64,
        timeout_ms: u64,
    ) -> bool {
        let waiter = FetchWaiter::new(missing_bytes);
        for (topic_partition, offset) in positions {
            match self.partition(topic_partition) {
                Some(partition) => partition.watch(offset, isolation, &waiter),
                None => waiter.satisfy(), // it was deleted: the next read says so
            }
        }
        self.wait_for(id, &waiter, timeout_ms).await
    }

    /// Waits until `waiter` is satisfied or the time is up, or it was cancelled; whether before the time was up.
    /// Beyond `shard.fetch.waiters.max` a wait is not noted and ends before long, so that its reader looks again.
    pub(super) async fn wait_for(&self, id: u64, waiter: &Rc<FetchWaiter>, timeout_ms: u64) -> bool {
        if self.is_stopping() {
            return true;
        }
        let left = Duration::from_millis(timeout_ms);
        if self.waits.waiting.borrow().len() >= self.config().shard_fetch_waiters_max {
            sleep(left.min(LOOK_AGAIN)).await;
            return left > LOOK_AGAIN;
        }
        self.waits.waiting.borrow_mut().insert(id, waiter.clone());
        let _forget = Forget { waits: &self.waits, id };
        timeout(left, waiter.wait()).await.is_some()
    }
}

/// Takes the wait off the list however its future ends.
struct Forget<'a> {
    waits: &'a Waits,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.waits.waiting.borrow_mut().remove(&self.id);
    }
}
