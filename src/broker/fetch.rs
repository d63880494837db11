//! Fetch: one read for each partition, grouped by shard, with a wait in the middle when there is too little.
//!
//! Nothing polls: a fetch that found too little is parked with the partitions' owners and woken by the append that
//! brings enough, or by its deadline.

use std::time::Duration;

use bytes::Bytes;

use super::{Broker, BrokerError};
use crate::base::clock;
use crate::model::{LeaderEpoch, Offset, ProducerId, ShardId, TopicPartition};
use crate::partition::{IsolationLevel, PartitionRead, ReadSpec};
use crate::runtime::local::Event;
use crate::runtime::{spawn, timeout};
use crate::shard::{ShardReply, ShardRequest};

/// Waits of at least this end on the grid.
const COARSE_WAIT_MIN: Duration = Duration::from_millis(400);
const WAIT_GRID: Duration = Duration::from_millis(25);
const _: () = assert!(WAIT_GRID.as_millis() * 16 <= COARSE_WAIT_MIN.as_millis());

/// A read of several partitions.
#[derive(Debug, Clone)]
pub struct FetchRequest {
    /// How long to wait for `min_bytes`.
    pub max_wait_ms: i32,
    /// How many bytes make an answer worth sending.
    pub min_bytes: i32,
    /// Most bytes in the whole answer (the first batch comes whole even if it is larger).
    pub max_bytes: i32,
    /// How far the reader may see.
    pub isolation: IsolationLevel,
    /// One entry for each partition; the answer has the same order.
    pub partitions: Vec<FetchPartition>,
}

/// A read of one partition.
#[derive(Debug, Clone)]
pub struct FetchPartition {
    /// What to read.
    pub topic_partition: TopicPartition,
    /// From where on.
    pub offset: Offset,
    /// Most bytes from this partition.
    pub max_bytes: i32,
    /// The leader epoch that the client believes in, or -1.
    pub current_leader_epoch: LeaderEpoch,
}

/// What one partition gave.
#[derive(Debug, Clone)]
pub struct FetchedPartition {
    /// Why it gave nothing, if something is wrong.
    pub error: Option<BrokerError>,
    /// The first offset that is not yet visible, or -1.
    pub high_watermark: Offset,
    /// The first offset of an open transaction, or the high watermark.
    pub last_stable_offset: Offset,
    /// The first offset that there is, or -1.
    pub log_start_offset: Offset,
    /// Aborted transactions among the batches, for read_committed: producer and first offset.
    pub aborted_transactions: Vec<(ProducerId, Offset)>,
    /// Whole record batches, as they lie on disk.
    pub chunks: Vec<Bytes>,
    /// The bytes in `chunks`.
    pub size_bytes: usize,
}

impl FetchedPartition {
    fn refused(error: BrokerError) -> Self {
        FetchedPartition {
            error: Some(error),
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            aborted_transactions: Vec::new(),
            chunks: Vec::new(),
            size_bytes: 0,
        }
    }

    fn read(read: PartitionRead) -> Self {
        FetchedPartition {
            error: None,
            high_watermark: read.high_watermark,
            last_stable_offset: read.last_stable_offset,
            log_start_offset: read.log_start_offset,
            aborted_transactions: read.aborted_transactions,
            chunks: read.chunks,
            size_bytes: read.size_bytes,
        }
    }

    fn visible_end(&self, isolation: IsolationLevel) -> Offset {
        match isolation {
            IsolationLevel::ReadUncommitted => self.high_watermark,
            IsolationLevel::ReadCommitted => self.last_stable_offset,
        }
    }
}

impl Broker {
    /// Reads; waits up to `max_wait_ms` for `min_bytes`. One answer for each partition, in the order of the request.
    pub async fn fetch(&self, request: FetchRequest) -> Vec<FetchedPartition> {
        let max_wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
        let min_bytes = i64::from(request.min_bytes.min(request.max_bytes));
        let started = clock::monotonic();
        loop {
            let fetched = self.read_once(&request).await;
            let found_bytes: i64 = fetched.iter().map(|partition| partition.size_bytes as i64).sum();
            let left = max_wait.saturating_sub(started.elapsed());
            let enough =
                found_bytes >= min_bytes || fetched.iter().any(|partition| partition.error.is_some());
            if enough || left.is_zero() || request.partitions.is_empty() || self.is_stopping() {
                return fetched;
            }
            let missing_bytes = min_bytes - found_bytes;
            let seen = request.partitions.iter().zip(&fetched).map(|(partition, found)| {
                (&partition.topic_partition, partition.offset.max(found.visible_end(request.isolation)))
            });
            let waited = self.wait_for_more(seen, request.isolation, missing_bytes, wait_time(left)).await;
            if waited == Waited::InVain && missing_bytes == 1 && !self.is_stopping() {
                return fetched; // not one byte came, so another look would find the same
            }
        }
    }

    async fn read_once(&self, request: &FetchRequest) -> Vec<FetchedPartition> {
        let max_bytes = usize::try_from(request.max_bytes).unwrap_or(0).min(self.config().fetch_max_bytes);
        let spec_of = |partition: &FetchPartition| ReadSpec {
            offset: partition.offset,
            max_bytes: usize::try_from(partition.max_bytes).unwrap_or(0).min(max_bytes),
            // Whichever partition has something first may overstep the limits, so that no reader gets stuck.
            at_least_one: true,
            isolation: request.isolation,
            current_leader_epoch: partition.current_leader_epoch,
        };
        // One partition of this shard, as a reader of the newest records mostly has, needs nobody to be asked.
        if let [only] = &request.partitions[..]
            && self.owner(&only.topic_partition).is_ok_and(|owner| owner == self.shard.id())
        {
            let read = self.shard.read(&only.topic_partition, &spec_of(only)).await;
            return vec![
                read.map_or_else(|error| FetchedPartition::refused(error.into()), FetchedPartition::read),
            ];
        }
        let reads =
            request.partitions.iter().map(|part| (part.topic_partition.clone(), spec_of(part))).collect();
        let answers = self
            .ask_owners(
                reads,
                |reads| ShardRequest::Read { reads, max_bytes },
                |reply| match reply {
                    ShardReply::Read(answers) => Some(answers),
                    _ => None,
                },
            )
            .await;
        let mut fetched: Vec<FetchedPartition> = answers
            .into_iter()
            .map(|answer| answer.map_or_else(FetchedPartition::refused, FetchedPartition::read))
            .collect();
        keep_within(&mut fetched, max_bytes);
        fetched
    }

    /// Resolves when one of the partitions has more for a reader who stands at its offset, or is not there, or after
    /// `max_wait`.
    pub async fn wait_for_records(
        &self,
        positions: impl Iterator<Item = (&TopicPartition, Offset)>,
        isolation: IsolationLevel,
        max_wait: Duration,
    ) {
        self.wait_for_more(positions, isolation, 1, wait_time(max_wait)).await;
    }

    /// Resolves when one of the owners has more than was seen, or when the time is up: then in vain.
    async fn wait_for_more<'a>(
        &self,
        seen: impl Iterator<Item = (&'a TopicPartition, Offset)>,
        isolation: IsolationLevel,
        missing_bytes: i64,
        left: Duration,
    ) -> Waited {
        let seen: Vec<_> = seen.collect();
        let timeout_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
        let id = self.shard.wait_id();
        let here = self.shard.id();
        if seen.iter().all(|(place, _)| self.owner(place).is_ok_and(|owner| owner == here)) {
            let seen = seen.into_iter();
            return match self.shard.wait_for_bytes(id, seen, isolation, missing_bytes, timeout_ms).await {
                true => Waited::Woken,
                false => Waited::InVain,
            };
        }
        let mut positions: Vec<Vec<(TopicPartition, Offset)>> = vec![Vec::new(); self.shards()];
        for (topic_partition, offset) in seen {
            match self.owner(topic_partition) {
                Ok(owner) => positions[owner].push((topic_partition.clone(), offset)),
                Err(_) => return Waited::Woken, // the next read says what is wrong
            }
        }
        let waiting_on: Vec<ShardId> =
            (0..self.shards()).filter(|shard| !positions[*shard].is_empty()).collect();
        // Several owners do not know of each other's bytes: any of them wakes us, and we read again.
        let missing_bytes = if waiting_on.len() == 1 { missing_bytes } else { 1 };
        let wait = |positions| ShardRequest::Wait { id, positions, isolation, missing_bytes, timeout_ms };
        let waits = waiting_on.into_iter().map(|shard| (shard, wait(std::mem::take(&mut positions[shard]))));
        self.wait_on_owners(id, waits.collect(), left).await
    }

    /// Asks each owner to answer when there is something, all under one name; resolves with the first of them.
    pub(super) async fn wait_on_owners(
        &self,
        id: u64,
        mut waits: Vec<(ShardId, ShardRequest)>,
        left: Duration,
    ) -> Waited {
        if let [(only, _)] = waits[..]
            && only == self.shard.id()
            && let Some((_, wait)) = waits.pop()
        {
            let reply = self.shard.call(only, wait).await;
            return if matches!(reply, ShardReply::WaitedInVain) { Waited::InVain } else { Waited::Woken };
        }
        let woken = std::rc::Rc::new(Event::new());
        let wake = woken.wait();
        let mut cancel = CancelWaits { broker: self, id, shards: Vec::new(), waits: Vec::new() };
        for (shard, wait) in waits {
            let asked = self.shard.dispatch(shard, wait).await;
            let woken = woken.clone();
            cancel.shards.push(shard);
            cancel.waits.push(spawn(async move {
                // In vain: our own time is up as well.
                if !matches!(asked.answer().await, ShardReply::WaitedInVain) {
                    woken.notify();
                }
            }));
        }
        if timeout(left, wake).await.is_some() {
            return Waited::Woken;
        }
        cancel.shards.clear(); // their time is up, too
        Waited::InVain
    }
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    /// There is something to look at.
    Woken,
    /// The time was up.
    InVain,
}

/// How long to wait for a client that allows for `left`. Long waits end together, on a coarse grid of time and up to a
/// sixteenth late: many idle consumers then cost few wake-ups.
fn wait_time(left: Duration) -> Duration {
    if left < COARSE_WAIT_MIN {
        return left;
    }
    let grid_ns = WAIT_GRID.as_nanos();
    let end_ns = (clock::since_start() + left).as_nanos();
    let late_ns = end_ns.next_multiple_of(grid_ns) - end_ns;
    left + Duration::from_nanos(u64::try_from(late_ns).unwrap_or(0))
}

/// Tells the owners that nobody waits any more, however the wait has ended.
struct CancelWaits<'a> {
    broker: &'a Broker,
    id: u64,
    shards: Vec<ShardId>,
    waits: Vec<crate::runtime::executor::Task<()>>,
}

impl Drop for CancelWaits<'_> {
    fn drop(&mut self) {
        self.waits.clear(); // cancels the tasks
        let (shard, id) = (self.broker.shard.clone(), self.id);
        for owner in self.shards.drain(..).filter(|owner| *owner != shard.id()) {
            let shard = shard.clone();
            crate::runtime::spawn_detached(async move {
                shard.call(owner, ShardRequest::CancelWait { id }).await;
            });
        }
    }
}

/// Several shards may each have found as much as the whole answer may hold: what comes later in the request goes.
fn keep_within(fetched: &mut [FetchedPartition], max_bytes: usize) {
    let mut total_bytes = 0usize;
    for partition in fetched {
        if total_bytes > 0 && total_bytes + partition.size_bytes > max_bytes {
            partition.chunks.clear();
            partition.size_bytes = 0;
            partition.aborted_transactions.clear();
        }
        total_bytes += partition.size_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_waits_end_together_and_at_most_a_sixteenth_late() {
        assert_eq!(wait_time(Duration::from_millis(399)), Duration::from_millis(399));
        for asked_ms in [400, 500, 511, 30_000] {
            let asked = Duration::from_millis(asked_ms);
            let wait = wait_time(asked);
            assert!(wait >= asked && wait <= asked + asked / 16, "{asked:?}: {wait:?}");
        }
    }
}
