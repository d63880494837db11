//! The partitions of this shard as share groups read them: locks, acknowledgements, and their ends.
//!
//! The state machine of a (group, partition) is loaded from the share coordinator at first use and kept while the group
//! reads; every change goes back there before it is answered. Locks end by a timer of their own.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;

use super::request::{
    ShareAcknowledge, ShareFetch, ShareRead, ShareStateReply, ShareStateRequest, ShareWait,
};
use super::share_states::state_owner;
use super::{Shard, ShardReply, ShardRequest};
use crate::base::clock;
use crate::coordinator::share_partition::{Changes, SharePartition, ShareSettings, StateBatch, StoredState};
use crate::model::share::{AcknowledgementBatch, ShareError, ShareKey, SharedPartition};
use crate::model::{NO_LEADER_EPOCH, Offset, Uuid};
use crate::partition::{FetchWaiter, IsolationLevel, OffsetSpec, Partition, ReadSpec};
use crate::record::{AbortedTransactions, Batches};
use crate::runtime::local::TurnQueue;
use crate::runtime::{spawn_detached, timeout};

/// Where a group begins that has read nothing of a partition yet (share.auto.offset.reset).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShareOffsetReset {
    /// At the first record there is.
    Earliest,
    /// Behind the last.
    Latest,
    /// At the first record that is no older than so many milliseconds.
    ByDuration(i64),
}

/// How a group reads.
#[derive(Debug, Clone, Copy)]
pub struct ShareGroupSettings {
    /// The limits of each partition.
    pub limits: ShareSettings,
    /// Where it begins.
    pub reset: ShareOffsetReset,
    /// How far it may see (`share.isolation.level`).
    pub isolation: IsolationLevel,
}

/// All of one shard.
#[derive(Default)]
pub(super) struct SharePartitions {
    hosts: RefCell<AHashMap<ShareKey, Rc<ShareHost>>>,
}

struct ShareHost {
    key: ShareKey,
    partition: Rc<Partition>,
    state_epoch: i32,
    machine: RefCell<SharePartition>,
    /// How far the group may see now.
    isolation: Cell<IsolationLevel>,
    /// One reader looks for records at a time.
    readers: TurnQueue,
    /// Those who wait for records to become free.
    waiters: RefCell<Vec<Weak<FetchWaiter>>>,
    has_timer: Cell<bool>,
    /// Set when the state has been taken away; whoever still holds the host begins anew.
    is_closed: Cell<bool>,
}

/// What one partition may give of a fetch.
struct Wanted {
    max_records: i64,
    is_strict: bool,
    max_bytes: usize,
    /// Whether its first batch comes whole even if it is larger than `max_bytes`.
    at_least_one: bool,
}

impl Shard {
    /// Finds and locks records for a member, partition by partition, within the limits of the whole request.
    pub(super) async fn share_fetch(
        self: &Rc<Self>,
        fetch: ShareFetch,
    ) -> Vec<Result<ShareRead, ShareError>> {
        let member: Arc<str> = fetch.member_id.as_str().into();
        let mut left_records = fetch.max_records;
        let mut left_bytes = fetch.max_bytes;
        let mut at_least_one = fetch.at_least_one;
        let mut answers = Vec::with_capacity(fetch.partitions.len());
        for shared in &fetch.partitions {
            if left_records <= 0 || left_bytes == 0 {
                answers.push(Ok(ShareRead::default()));
                continue;
            }
            let wanted = Wanted {
                max_records: left_records,
                is_strict: fetch.is_strict,
                max_bytes: left_bytes,
                at_least_one,
            };
            let answer = match self.share_host(&fetch.group_id, shared, fetch.settings).await {
                Ok(host) => self.read_shared(&host, &member, wanted).await,
                Err(error) => Err(error),
            };
            if let Ok(read) = &answer {
                let count: i64 = read.acquired.iter().map(|it| it.last_offset - it.first_offset + 1).sum();
                left_records -= count;
                left_bytes = left_bytes.saturating_sub(read.size_bytes);
                at_least_one &= read.acquired.is_empty();
            }
            answers.push(answer);
        }
        answers
    }

    async fn read_shared(
        self: &Rc<Self>,
        host: &Rc<ShareHost>,
        member: &Arc<str>,
        wanted: Wanted,
    ) -> Result<ShareRead, ShareError> {
        let ticket = host.readers.draw();
        ticket.turn().await;
        let forgotten = host.machine.borrow_mut().forget_before(host.partition.log_start_offset());
        self.store_share_changes(host, forgotten).await?;
        let Some(offset) = host.machine.borrow().next_fetch_offset() else { return Ok(ShareRead::default()) };
        let spec = ReadSpec {
            offset,
            max_bytes: wanted.max_bytes,
            at_least_one: wanted.at_least_one,
            isolation: host.isolation.get(),
            current_leader_epoch: NO_LEADER_EPOCH,
        };
        let read = host.partition.read(&spec).await.map_err(|error| {
            tracing::debug!(partition = %host.partition.topic_partition(), %error, "a share group cannot read");
            ShareError::UnknownPartition
        })?;
        // Records of aborted transactions are for nobody; there are none where everything may be seen.
        let mut aborted = AbortedTransactions::new(&read.aborted_transactions);
        let (mut offered, mut read_to): (Vec<(Offset, Offset)>, Offset) = (Vec::new(), offset);
        for batch in read.chunks.iter().flat_map(|chunk| Batches::new(chunk).map_while(Result::ok)) {
            read_to = batch.header.next_offset();
            if !aborted.cover(&batch) {
                offered.push((batch.header.base_offset, batch.header.last_offset()));
            }
        }
        if host.is_closed.get() {
            return Err(ShareError::StateNotAvailable);
        }
        let now_ms = clock::now_ms();
        let acquired = host.machine.borrow_mut().acquire(
            member,
            offset..read_to,
            &offered,
            wanted.max_records,
            wanted.is_strict,
            now_ms,
        );
        if acquired.is_empty() {
            return Ok(ShareRead::default());
        }
        self.time_locks(host);
        Ok(ShareRead { chunks: read.chunks, size_bytes: read.size_bytes, acquired })
    }

    /// Takes in acknowledgements, each partition for itself.
    pub(super) async fn share_acknowledge(
        self: &Rc<Self>,
        request: ShareAcknowledge,
    ) -> Vec<Result<(), ShareError>> {
        let mut answers = Vec::with_capacity(request.partitions.len());
        for (shared, batches) in &request.partitions {
            answers.push(self.acknowledge_shared(&request, shared, batches).await);
        }
        answers
    }

    async fn acknowledge_shared(
        self: &Rc<Self>,
        request: &ShareAcknowledge,
        shared: &SharedPartition,
        batches: &[AcknowledgementBatch],
    ) -> Result<(), ShareError> {
        let host = self.share_host(&request.group_id, shared, request.settings).await?;
        let now_ms = clock::now_ms();
        let changes = host.machine.borrow_mut().acknowledge(&request.member_id, batches, now_ms)?;
        host.wake_waiters();
        self.store_share_changes(&host, changes).await
    }

    /// Frees what a member has locked in these partitions, as its session has ended.
    pub(super) async fn share_release(
        self: &Rc<Self>,
        group_id: &str,
        member_id: &str,
        partitions: &[SharedPartition],
    ) {
        for shared in partitions {
            let host = self.share_partitions.hosts.borrow().get(&key_of(group_id, shared)).cloned();
            let Some(host) = host else { continue };
            let changes = host.machine.borrow_mut().release_member(member_id);
            host.wake_waiters();
            // What cannot be stored is delivered once more than it counts.
            let _ = self.store_share_changes(&host, changes).await;
        }
    }

    /// Resolves when one of the partitions may have records for the group, or the time is up, or it was cancelled;
    /// whether before the time was up.
    pub(super) async fn share_wait(self: &Rc<Self>, wait: ShareWait) -> bool {
        let waiter = FetchWaiter::new(1);
        for shared in &wait.partitions {
            let host = self.share_partitions.hosts.borrow().get(&key_of(&wait.group_id, shared)).cloned();
            match host {
                Some(host) => host.watch(&waiter),
                None => waiter.satisfy(), // it was taken away: the next read says so
            }
        }
        self.wait_for(wait.id, &waiter, wait.timeout_ms).await
    }

    /// Drops what is known of share partitions; the next reader loads it again.
    pub(super) fn close_share_partitions(&self, is_closed: impl Fn(&ShareKey) -> bool) {
        self.share_partitions.hosts.borrow_mut().retain(|key, host| {
            let closes = is_closed(key);
            if closes {
                host.is_closed.set(true);
                host.wake_waiters();
            }
            !closes
        });
    }

    /// Drops the share partitions of a topic that is gone.
    pub(super) fn close_shares_of_topic(&self, topic_id: Uuid) {
        self.close_share_partitions(|key| key.topic_id == topic_id);
    }

    async fn share_host(
        self: &Rc<Self>,
        group_id: &str,
        shared: &SharedPartition,
        settings: ShareGroupSettings,
    ) -> Result<Rc<ShareHost>, ShareError> {
        let key = key_of(group_id, shared);
        if let Some(host) = self.share_partitions.hosts.borrow().get(&key) {
            host.machine.borrow_mut().set_settings(settings.limits);
            host.isolation.set(settings.isolation);
            return Ok(host.clone());
        }
        let partition = self.partition(&shared.topic_partition).ok_or(ShareError::UnknownPartition)?;
        let state = self.load_share(&key, &partition, settings.reset).await?;
        // Another request may have been quicker.
        let mut hosts = self.share_partitions.hosts.borrow_mut();
        if let Some(host) = hosts.get(&key) {
            return Ok(host.clone());
        }
        let limit = self.config().group_share_partitions_max.div_ceil(self.shards);
        if hosts.len() >= limit {
            hosts.retain(|_, host| host.is_in_use());
        }
        if hosts.len() >= limit {
            return Err(ShareError::StateNotAvailable);
        }
        let machine = SharePartition::restore(settings.limits, state.start_offset, &state.batches);
        let host = Rc::new(ShareHost {
            key: key.clone(),
            partition,
            state_epoch: state.state_epoch,
            machine: RefCell::new(machine),
            isolation: Cell::new(settings.isolation),
            readers: TurnQueue::new(),
            waiters: RefCell::default(),
            has_timer: Cell::new(false),
            is_closed: Cell::new(false),
        });
        hosts.insert(key, host.clone());
        Ok(host)
    }

    /// The stored state; a group that begins has one made for it.
    async fn load_share(
        self: &Rc<Self>,
        key: &ShareKey,
        partition: &Rc<Partition>,
        reset: ShareOffsetReset,
    ) -> Result<StoredState, ShareError> {
        let read = self.ask_share_state(key, ShareStateRequest::Read(key.clone())).await?;
        let ShareStateReply::State(found) = read else { return Err(ShareError::StateNotAvailable) };
        if let Some(state) = found?.filter(|state| state.start_offset >= 0) {
            return Ok(state);
        }
        let spec = match reset {
            ShareOffsetReset::Earliest => OffsetSpec::Earliest,
            ShareOffsetReset::Latest => OffsetSpec::Latest,
            ShareOffsetReset::ByDuration(ms) => OffsetSpec::Timestamp(clock::now_ms().saturating_sub(ms)),
        };
        let isolation = IsolationLevel::ReadUncommitted;
        let listed = partition.list_offset(spec, isolation, NO_LEADER_EPOCH).await;
        let start_offset = match listed {
            Ok(found) if found.offset >= 0 => found.offset,
            Ok(_) => partition.high_watermark(),
            Err(_) => return Err(ShareError::UnknownPartition),
        };
        let initialize = ShareStateRequest::Initialize { key: key.clone(), start_offset };
        match self.ask_share_state(key, initialize).await? {
            ShareStateReply::State(made) => made?.ok_or(ShareError::StateNotAvailable),
            _ => Err(ShareError::StateNotAvailable),
        }
    }

    async fn ask_share_state(
        self: &Rc<Self>,
        key: &ShareKey,
        request: ShareStateRequest,
    ) -> Result<ShareStateReply, ShareError> {
        let (_, owner) = state_owner(&self.image(), key).ok_or(ShareError::StateNotAvailable)?;
        match self.call(owner, ShardRequest::ShareState(request)).await {
            ShardReply::ShareState(reply) => Ok(reply),
            _ => Err(ShareError::StateNotAvailable),
        }
    }

    async fn store_share_changes(
        self: &Rc<Self>,
        host: &Rc<ShareHost>,
        changes: Changes,
    ) -> Result<(), ShareError> {
        if changes.is_empty() {
            return Ok(());
        }
        let batches: Vec<StateBatch> = changes.batches;
        let (key, state_epoch) = (host.key.clone(), host.state_epoch);
        let write =
            ShareStateRequest::Write { key, state_epoch, start_offset: changes.start_offset, batches };
        let written = match self.ask_share_state(&host.key, write).await? {
            ShareStateReply::Written(written) => written,
            _ => Err(ShareError::StateNotAvailable),
        };
        if written == Err(ShareError::FencedStateEpoch) {
            self.close_share_partitions(|key| *key == host.key);
        }
        written
    }

    /// Sees to it that locks end in time: a task lives while there are any.
    fn time_locks(self: &Rc<Self>, host: &Rc<ShareHost>) {
        if host.has_timer.replace(true) {
            return;
        }
        let (shard, host) = (self.clone(), host.clone());
        spawn_detached(async move {
            loop {
                let deadline = host.machine.borrow().next_deadline_ms();
                let Some(deadline_ms) = deadline.filter(|_| !host.is_closed.get() && !shard.is_stopping())
                else {
                    break;
                };
                let wait_ms = u64::try_from(deadline_ms - clock::now_ms()).unwrap_or(0);
                if wait_ms > 0 {
                    timeout(Duration::from_millis(wait_ms), shard.stopping()).await;
                    continue;
                }
                let changes = host.machine.borrow_mut().expire(clock::now_ms());
                host.wake_waiters();
                let _ = shard.store_share_changes(&host, changes).await;
            }
            host.has_timer.set(false);
        });
    }
}

impl ShareHost {
    fn watch(&self, waiter: &Rc<FetchWaiter>) {
        // What is free before the end is there at once; at the end it has yet to come.
        if let Some(offset) = self.machine.borrow().next_fetch_offset() {
            self.partition.watch(offset, self.isolation.get(), waiter);
        }
        let mut waiters = self.waiters.borrow_mut();
        waiters.retain(|waiter| waiter.strong_count() > 0);
        waiters.push(Rc::downgrade(waiter));
    }

    fn wake_waiters(&self) {
        for waiter in self.waiters.take().into_iter().filter_map(|waiter| waiter.upgrade()) {
            waiter.satisfy();
        }
    }

    fn is_in_use(&self) -> bool {
        self.machine.borrow().next_deadline_ms().is_some()
            || self.waiters.borrow().iter().any(|waiter| waiter.strong_count() > 0)
    }
}

fn key_of(group_id: &str, shared: &SharedPartition) -> ShareKey {
    ShareKey {
        group_id: group_id.to_owned(),
        topic_id: shared.topic_id,
        partition: shared.topic_partition.partition,
    }
}
