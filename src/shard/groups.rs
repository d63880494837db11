//! The groups that this shard coordinates: one coordinator for each partition of `__consumer_offsets` that it owns.
//!
//! Carries out what the state machines ask for: records into the offsets partition, replies to those who wait, a timer
//! for the next deadline. The machines themselves do no I/O.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use ahash::AHashMap;

use super::state_log::{self, StateEntry, StateLog};
use super::{Shard, topics_view};
use crate::base::clock;
use crate::config::Config;
use crate::coordinator::group::{
    Assignor, ConsumerSettings, Effects, GroupCoordinator, GroupSettings, ShareGroupSettings,
    offsets_partition_for,
};
use crate::model::group::{GroupError, GroupReply, GroupRequest, ListGroups, ListGroupsReply, ReplyToken};
use crate::model::transaction::TransactionError;
use crate::model::{CONSUMER_OFFSETS_TOPIC, PartitionIndex, TopicName};
use crate::partition::{Marker, Partition, PartitionError, Verified};
use crate::runtime::local::{Answer, Event, oneshot};
use crate::runtime::spawn_detached;
use crate::storage::ProducerError;

/// The coordinators of one shard, by partition of the offsets topic.
#[derive(Default)]
pub(super) struct Groups {
    hosts: RefCell<BTreeMap<PartitionIndex, Rc<GroupHost>>>,
    next_token: Cell<u64>,
    waiting: RefCell<AHashMap<ReplyToken, Answer<GroupReply>>>,
    deadline_changed: Event,
}

struct GroupHost {
    log: StateLog,
    coordinator: RefCell<GroupCoordinator>,
    /// Whether the partition has been replayed; no marker may be written before.
    is_loaded: Cell<bool>,
    loaded: Event,
}

impl Shard {
    /// Asks the coordinator of the request's group; a join or sync may take as long as a rebalance. `verified` is what a
    /// transaction's coordinator said, if the request is part of one.
    pub(super) async fn ask_group(
        self: &Rc<Self>,
        request: GroupRequest,
        verified: Option<Verified>,
    ) -> GroupReply {
        let group_id = request.group_id().unwrap_or_default().to_owned();
        let Some(host) = self.group_host(&group_id) else {
            return request.refused(GroupError::NotCoordinator);
        };
        let number = self.groups.next_token.get();
        self.groups.next_token.set(number + 1);
        let token = ReplyToken(number);
        let (answer, awaited) = oneshot();
        let refused = request.refused(GroupError::NotCoordinator);
        self.groups.waiting.borrow_mut().insert(token, answer);
        let effects = host.coordinator.borrow_mut().handle(token, request, clock::now_ms());
        self.carry_out_verified(&host, effects, verified);
        awaited.await.unwrap_or(refused)
    }

    /// As [`Shard::ask_group`], after the end of loading.
    pub(super) async fn ask_group_once_loaded(self: &Rc<Self>, request: GroupRequest) -> GroupReply {
        if let Some(host) = self.group_host(request.group_id().unwrap_or_default()) {
            while !host.is_loaded.get() {
                host.loaded.wait().await;
            }
        }
        self.ask_group(request, None).await
    }

    /// The groups of all coordinators of this shard.
    pub(super) fn list_groups(self: &Rc<Self>, request: &ListGroups) -> ListGroupsReply {
        let mut listed = ListGroupsReply::default();
        for host in self.groups.hosts.borrow().values() {
            let reply = host.coordinator.borrow().list(request);
            listed.groups.extend(reply.groups);
            listed.error = listed.error.or(reply.error);
        }
        listed
    }

    fn group_host(&self, group_id: &str) -> Option<Rc<GroupHost>> {
        let image = self.image();
        let count = image.topic(CONSUMER_OFFSETS_TOPIC)?.partitions.len();
        let partition = offsets_partition_for(group_id, PartitionIndex::try_from(count).ok()?);
        self.groups.hosts.borrow().get(&partition).cloned()
    }

    /// Sends replies, appends records, and goes on with what their append brings.
    fn carry_out(self: &Rc<Self>, host: &Rc<GroupHost>, effects: Effects) {
        self.carry_out_verified(host, effects, None);
    }

    fn carry_out_verified(
        self: &Rc<Self>,
        host: &Rc<GroupHost>,
        effects: Effects,
        verified: Option<Verified>,
    ) {
        for (token, reply) in effects.replies {
            if let Some(answer) = self.groups.waiting.borrow_mut().remove(&token) {
                answer.give(reply);
            }
        }
        self.groups.deadline_changed.notify();
        let Some(append) = effects.append else { return };
        self.flusher.touch(host.log.partition().topic_partition());
        let records = effects.records.into_iter().map(|record| (Some(record.key), record.value));
        // The place in line is taken here, in the order of the verbs; a client that goes away does not stop it.
        let appending = host.log.append(records, effects.producer.map(|producer| (producer, verified)));
        let (shard, host) = (self.clone(), host.clone());
        spawn_detached(async move {
            let appended = appending.await;
            let now_ms = clock::now_ms();
            let effects = match appended {
                Ok(_) => host.coordinator.borrow_mut().appended(append, now_ms),
                Err(error) => {
                    let partition = host.log.partition().topic_partition();
                    tracing::error!(%partition, %error, "cannot store group state");
                    host.coordinator.borrow_mut().append_failed(append, refusal(&error), now_ms)
                }
            };
            shard.carry_out(&host, effects);
            shard.snapshot_if_grown(&host).await;
        });
    }

    /// Begins to coordinate the groups of an offsets partition that has just been opened.
    pub(super) async fn load_groups(self: &Rc<Self>, partition: Rc<Partition>) {
        let index = partition.topic_partition().partition;
        let mut coordinator = GroupCoordinator::new(settings(&self.config()));
        coordinator.set_topics(topics_view::of(self.image(), self.config()));
        let host = Rc::new(GroupHost {
            log: StateLog::new(partition),
            coordinator: RefCell::new(coordinator),
            is_loaded: Cell::new(false),
            loaded: Event::new(),
        });
        // Known at once, so that clients hear "loading" and not "not here".
        self.groups.hosts.borrow_mut().insert(index, host.clone());
        let now_ms = clock::now_ms();
        let partition = host.log.partition();
        let replayed = state_log::replay(partition, |entry| {
            let mut coordinator = host.coordinator.borrow_mut();
            let replayed = match entry {
                StateEntry::Record { key: Some(key), value, producer_id } => {
                    coordinator.replay(key, value, producer_id, now_ms)
                }
                StateEntry::Record { key: None, .. } => Ok(()),
                StateEntry::TransactionEnd { producer_id, is_commit } => {
                    coordinator.end_transaction(producer_id, is_commit, now_ms);
                    Ok(())
                }
            };
            if let Err(error) = replayed {
                let partition = partition.topic_partition();
                tracing::error!(%partition, %error, "a record of the offsets topic is skipped");
            }
        })
        .await;
        if let Err(error) = replayed {
            tracing::error!(partition = %partition.topic_partition(), %error, "cannot load groups");
        }
        host.is_loaded.set(true);
        host.loaded.notify();
        let effects = host.coordinator.borrow_mut().loaded(clock::now_ms());
        self.carry_out(&host, effects);
    }

    /// Lets every coordinator know of the present topics.
    pub(super) fn tell_groups_of_topics(&self) {
        let topics = topics_view::of(self.image(), self.config());
        for host in self.groups.hosts.borrow().values() {
            host.coordinator.borrow_mut().set_topics(topics.clone());
        }
    }

    /// Forgets the offsets of a topic that is gone.
    pub(super) fn forget_topic_offsets(self: &Rc<Self>, topic: &TopicName) {
        let hosts: Vec<_> = self.groups.hosts.borrow().values().cloned().collect();
        for host in hosts {
            let effects = host.coordinator.borrow_mut().topic_deleted(topic, clock::now_ms());
            self.carry_out(&host, effects);
        }
    }

    /// Answers all who wait, because the server stops.
    pub(super) fn close_groups(self: &Rc<Self>) {
        let hosts = std::mem::take(&mut *self.groups.hosts.borrow_mut());
        for host in hosts.into_values() {
            let effects = host.coordinator.borrow_mut().close(GroupError::CoordinatorNotAvailable);
            self.carry_out(&host, effects);
        }
    }

    /// Serves the deadlines of all coordinators, each when it is due.
    pub(super) async fn run_group_timers(self: Rc<Self>) {
        let serve = |now_ms| {
            let hosts: Vec<_> = self.groups.hosts.borrow().values().cloned().collect();
            let serve_one = |host: Rc<_>| self.serve_group_deadline(&host, now_ms);
            hosts.into_iter().filter_map(serve_one).min()
        };
        self.serve_deadlines(&self.groups.deadline_changed, serve).await;
    }

    fn serve_group_deadline(self: &Rc<Self>, host: &Rc<GroupHost>, now_ms: i64) -> Option<i64> {
        if host.coordinator.borrow().next_deadline_ms().is_some_and(|due_ms| due_ms <= now_ms) {
            let effects = host.coordinator.borrow_mut().on_timer(now_ms);
            self.carry_out(host, effects);
        }
        host.coordinator.borrow().next_deadline_ms()
    }

    /// Rewrites the live state at the log's end and lets the rest go, once the log is mostly history.
    async fn snapshot_if_grown(self: &Rc<Self>, host: &Rc<GroupHost>) {
        let coordinator = &host.coordinator;
        if !host.log.may_be_rewritten() || coordinator.borrow().has_open_transactions() {
            return;
        }
        let live = || {
            let coordinator = coordinator.borrow();
            coordinator.snapshot().map(|record| (Some(record.key), record.value)).collect::<Vec<_>>()
        };
        host.log.rewrite_if_grown(|| coordinator.borrow().live_bytes(), live).await;
    }

    /// Appends the marker that ends a transaction to an offsets partition; what the transaction has committed there
    /// counts from then on. Resolves when the marker is in the log.
    pub(super) async fn end_group_transaction(
        self: &Rc<Self>,
        partition: &Rc<Partition>,
        marker: Marker,
    ) -> Result<(), PartitionError> {
        let host = self.groups.hosts.borrow().get(&partition.topic_partition().partition).cloned();
        let Some(host) = host.filter(|host| host.is_loaded.get()) else {
            return Err(PartitionError::UnknownPartition); // whoever writes it tries again
        };
        let append = host.coordinator.borrow_mut().ending_transaction(marker.producer_id, marker.is_commit);
        // The place in line is taken here, in the order in which the coordinator named the appends.
        let appending = (!partition.has_marker(&marker)).then(|| partition.append_marker(&marker));
        let appending = host.log.follow(async move {
            match appending {
                Some(appending) => appending.await,
                None => Ok(()),
            }
        });
        let shard = self.clone();
        let (answer, awaited) = oneshot();
        // A caller that goes away must not leave the append without its report.
        spawn_detached(async move {
            let appended = appending.await;
            let now_ms = clock::now_ms();
            let effects = match &appended {
                Ok(()) => host.coordinator.borrow_mut().appended(append, now_ms),
                Err(_) => {
                    let error = GroupError::CoordinatorNotAvailable;
                    host.coordinator.borrow_mut().append_failed(append, error, now_ms)
                }
            };
            shard.carry_out(&host, effects);
            answer.give(appended);
            shard.snapshot_if_grown(&host).await;
        });
        awaited.await.unwrap_or(Err(PartitionError::UnknownPartition))
    }
}

/// What a member is told when what it asked for could not be stored.
fn refusal(error: &PartitionError) -> GroupError {
    match error {
        PartitionError::Producer(ProducerError::InvalidEpoch { .. }) => {
            GroupError::Transaction(TransactionError::InvalidProducerEpoch)
        }
        PartitionError::Producer(ProducerError::NotInTransaction { .. }) => {
            GroupError::Transaction(TransactionError::InvalidTransactionState)
        }
        _ => GroupError::CoordinatorNotAvailable,
    }
}

fn settings(config: &Config) -> GroupSettings {
    GroupSettings {
        group_min_session_timeout_ms: config.group_min_session_timeout_ms,
        group_max_session_timeout_ms: config.group_max_session_timeout_ms,
        group_initial_rebalance_delay_ms: i64::from(config.group_initial_rebalance_delay_ms),
        group_max_size: config.group_max_size,
        groups_max: config.groups_max,
        offsets_retention_ms: config.offsets_retention_minutes.saturating_mul(60_000),
        offset_metadata_max_bytes: config.offset_metadata_max_bytes,
        consumer: consumer_settings(config),
        share: ShareGroupSettings {
            session_timeout_ms: i64::from(config.group_share_session_timeout_ms),
            heartbeat_interval_ms: config.group_share_heartbeat_interval_ms,
            max_size: config.group_share_max_size,
            assignment_interval_ms: i64::from(config.group_share_assignment_interval_ms),
        },
    }
}

fn consumer_settings(config: &Config) -> ConsumerSettings {
    let policy = config.group_consumer_migration_policy;
    ConsumerSettings {
        session_timeout_ms: i64::from(config.group_consumer_session_timeout_ms),
        heartbeat_interval_ms: config.group_consumer_heartbeat_interval_ms,
        max_size: config.group_consumer_max_size,
        assignors: vec![Assignor::Uniform, Assignor::Range],
        assignment_interval_ms: i64::from(config.group_consumer_assignment_interval_ms),
        regex_refresh_interval_ms: i64::from(config.group_consumer_regex_refresh_interval_ms),
        may_upgrade: policy.may_upgrade(),
        may_downgrade: policy.may_downgrade(),
    }
}
