//! The stream groups that this shard keeps: one [`StreamGroups`] for each partition of `__stream_groups` that it owns.
//!
//! Requests for one group go one at a time: bring it into line with what its coordinator has committed, append what the
//! verb makes, take that in, commit what has changed, and only then reply.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use ahash::AHashMap;

use super::state_log::{self, StateEntry, StateLog};
use super::{Shard, ShardReply, ShardRequest};
use crate::base::clock;
use crate::coordinator::group::{StateRecord, offsets_partition_for};
use crate::coordinator::stream_group::{Committed, OWN_COMMIT, StreamGroupSettings, StreamGroups};
use crate::model::group::{
    ByTopic, CommitPartition, GroupError, GroupReply, GroupRequest, NO_COMMITTED_OFFSET, NO_GENERATION,
    OffsetCommit, OffsetDelete, OffsetFetch,
};
use crate::model::stream_group::{
    StreamGroupError, StreamGroupKey, StreamGroupReply, StreamGroupRequest, StreamGroupVerb,
};
use crate::model::{
    CONSUMER_OFFSETS_TOPIC, NO_LEADER_EPOCH, Offset, PartitionIndex, STREAM_GROUPS_TOPIC, TopicName,
    TopicPartition,
};
use crate::partition::Partition;
use crate::runtime::local::{Event, TurnQueue, oneshot};
use crate::runtime::spawn_detached;

/// Queues of groups beyond which those that nobody is in are swept out.
const QUEUES_COUNT_MAX: usize = 1_000;

/// The keepers of one shard, by partition of the state topic.
#[derive(Default)]
pub(super) struct StreamGroupHosts(RefCell<BTreeMap<PartitionIndex, Rc<Host>>>);

struct Host {
    log: StateLog,
    groups: RefCell<StreamGroups>,
    queues: RefCell<AHashMap<StreamGroupKey, Rc<TurnQueue>>>,
    is_loaded: Cell<bool>,
    loaded: Event,
}

impl Host {
    /// The place in line of a request for `key`.
    fn queue(&self, key: &StreamGroupKey) -> Rc<TurnQueue> {
        let mut queues = self.queues.borrow_mut();
        if queues.len() >= QUEUES_COUNT_MAX {
            queues.retain(|_, queue| Rc::strong_count(queue) > 1);
        }
        queues.entry(key.clone()).or_default().clone()
    }
}

impl Shard {
    /// Asks a stream group that this shard keeps. A client that goes away does not stop what was begun for it: what is in
    /// the log must be taken in.
    pub(super) async fn ask_stream_group(self: &Rc<Self>, request: StreamGroupRequest) -> StreamGroupReply {
        let shard = self.clone();
        let (answer, awaited) = oneshot();
        spawn_detached(async move { answer.give(shard.answer_stream_group(request).await) });
        awaited.await.unwrap_or_else(|| unavailable("the request was given up"))
    }

    async fn answer_stream_group(self: &Rc<Self>, request: StreamGroupRequest) -> StreamGroupReply {
        let StreamGroupRequest { key, verb } = request;
        let Some(host) = self.stream_group_host(&key.group) else {
            return unavailable("another shard keeps the group now");
        };
        let queue = host.queue(&key);
        let ticket = queue.draw();
        ticket.turn().await;
        while !host.is_loaded.get() {
            host.loaded.wait().await;
        }
        let answered = self.ask_in_turn(&host, &key, &verb).await;
        drop(ticket);
        let reply = answered.unwrap_or_else(StreamGroupReply::Refused);
        self.snapshot_stream_groups(&host).await;
        reply
    }

    async fn ask_in_turn(
        self: &Rc<Self>,
        host: &Rc<Host>,
        key: &StreamGroupKey,
        verb: &StreamGroupVerb,
    ) -> Result<StreamGroupReply, StreamGroupError> {
        let committed = self.fetch_committed(key).await?;
        let now_ms = clock::now_ms();
        if verb.is_read_only() {
            return Ok(host.groups.borrow().look(key, verb, committed, now_ms));
        }
        let moves = host.groups.borrow().sync(key, committed);
        self.take_in(host, moves).await?;
        if let Some(Committed { offset, is_own: false }) = committed {
            // Whoever committed this may be a consumer that goes on doing so: then the group is not ours.
            self.commit_group_offset(key, offset).await?;
        }
        let planned = host.groups.borrow().plan(key, verb, now_ms);
        if let (StreamGroupVerb::Create(position), StreamGroupReply::Done) = (verb, &planned.reply) {
            // Before there is a group, so that one whose offset somebody else owns never comes to be.
            self.commit_group_offset(key, position.next_offset).await?;
        }
        self.take_in(host, planned.records).await?;
        note_seen(host, key, verb, &planned.reply, now_ms);
        let committable = host.groups.borrow().committable(key);
        match committable {
            Some(offset) if committed != Some(Committed { offset, is_own: true }) => {
                if let Err(error) = self.commit_group_offset(key, offset).await {
                    // The state is in the log, and the next request commits it.
                    tracing::warn!(group = key.group, place = %key.place, %error, "cannot commit for a stream group");
                }
            }
            None if matches!(planned.reply, StreamGroupReply::Count(1)) => self.delete_committed(key).await,
            _ => {}
        }
        Ok(planned.reply)
    }

    /// Appends records and takes them in.
    async fn take_in(
        self: &Rc<Self>,
        host: &Rc<Host>,
        records: Vec<StateRecord>,
    ) -> Result<(), StreamGroupError> {
        if records.is_empty() {
            return Ok(());
        }
        self.flusher.touch(host.log.partition().topic_partition());
        let pairs: Vec<_> =
            records.iter().map(|record| (Some(record.key.clone()), record.value.clone())).collect();
        let appended = host.log.append(pairs, None).await;
        appended
            .map_err(|error| StreamGroupError::NotAvailable(format!("cannot store group state: {error}")))?;
        for record in &records {
            if let Err(error) = host.groups.borrow_mut().replay(&record.key, record.value.as_deref()) {
                unreachable!("the record was made by the same schema: {error}");
            }
        }
        Ok(())
    }

    /// The names of the stream groups of this shard that read a partition.
    pub(super) fn stream_group_names(&self, place: &TopicPartition) -> Vec<String> {
        self.stream_groups.0.borrow().values().flat_map(|host| host.groups.borrow().names(place)).collect()
    }

    fn stream_group_host(&self, group: &str) -> Option<Rc<Host>> {
        let image = self.image();
        let count = image.topic(STREAM_GROUPS_TOPIC)?.partitions.len();
        let partition = offsets_partition_for(group, PartitionIndex::try_from(count).ok()?);
        self.stream_groups.0.borrow().get(&partition).cloned()
    }

    /// Begins to keep the groups of a state partition that has just been opened.
    pub(super) async fn load_stream_groups(self: &Rc<Self>, partition: Rc<Partition>) {
        let index = partition.topic_partition().partition;
        let config = self.config();
        let host = Rc::new(Host {
            log: StateLog::new(partition),
            groups: RefCell::new(StreamGroups::new(StreamGroupSettings {
                pending_max: config.redis_group_pending_max,
                consumers_max: config.redis_group_consumers_max,
            })),
            queues: RefCell::default(),
            is_loaded: Cell::new(false),
            loaded: Event::new(),
        });
        self.stream_groups.0.borrow_mut().insert(index, host.clone());
        let replayed = state_log::replay(host.log.partition(), |entry| {
            let StateEntry::Record { key: Some(key), value, .. } = entry else { return };
            if let Err(error) = host.groups.borrow_mut().replay(key, value) {
                let partition = host.log.partition().topic_partition();
                tracing::error!(%partition, %error, "a record of the stream groups' topic is skipped");
            }
        })
        .await;
        if let Err(error) = replayed {
            tracing::error!(partition = %host.log.partition().topic_partition(), %error, "cannot load stream groups");
        }
        host.is_loaded.set(true);
        host.loaded.notify();
    }

    /// Forgets the groups on a topic that is gone.
    pub(super) fn forget_topic_stream_groups(self: &Rc<Self>, topic: &TopicName) {
        for host in self.stream_groups.0.borrow().values() {
            let records = host.groups.borrow().topic_deleted(topic);
            self.take_in_detached(host, records);
        }
    }

    /// Forgets a group on all that it reads, since its coordinator has deleted it.
    pub(super) fn forget_stream_group(self: &Rc<Self>, group: &str) {
        if let Some(host) = self.stream_group_host(group) {
            let records = host.groups.borrow().group_deleted(group);
            self.take_in_detached(&host, records);
        }
    }

    fn take_in_detached(self: &Rc<Self>, host: &Rc<Host>, records: Vec<StateRecord>) {
        let (shard, host) = (self.clone(), host.clone());
        spawn_detached(async move {
            if let Err(error) = shard.take_in(&host, records).await {
                tracing::error!(partition = %host.log.partition().topic_partition(), %error, "cannot forget stream groups");
            }
        });
    }

    /// Keeps nothing any more, because the server stops.
    pub(super) fn close_stream_groups(&self) {
        self.stream_groups.0.borrow_mut().clear();
    }

    /// Rewrites the live state at the log's end and lets the rest go, once the log is mostly history.
    async fn snapshot_stream_groups(self: &Rc<Self>, host: &Rc<Host>) {
        let live = || {
            let groups = host.groups.borrow();
            groups.snapshot().map(|record| (Some(record.key), record.value)).collect::<Vec<_>>()
        };
        host.log.rewrite_if_grown(|| host.groups.borrow().live_bytes(), live).await;
    }

    async fn fetch_committed(
        self: &Rc<Self>,
        key: &StreamGroupKey,
    ) -> Result<Option<Committed>, StreamGroupError> {
        let request = GroupRequest::OffsetFetch(OffsetFetch {
            group_id: key.group.clone(),
            member_id: None,
            member_epoch: -1,
            topics: Some(vec![by_topic(&key.place, key.place.partition)]),
            require_stable: false,
        });
        let GroupReply::OffsetFetch(reply) = self.ask_coordinator(request).await? else {
            return Err(not_available("the group's coordinator is not available"));
        };
        if let Some(error) = reply.error {
            return Err(refusal(error));
        }
        let fetched = reply.topics.into_iter().flat_map(|topic| topic.partitions).next();
        let Some(fetched) = fetched else { return Ok(None) };
        match fetched.error {
            Some(error) => Err(refusal(error)),
            None if fetched.offset == NO_COMMITTED_OFFSET => Ok(None),
            None => Ok(Some(Committed { offset: fetched.offset, is_own: fetched.metadata == OWN_COMMIT })),
        }
    }

    async fn commit_group_offset(
        self: &Rc<Self>,
        key: &StreamGroupKey,
        offset: Offset,
    ) -> Result<(), StreamGroupError> {
        let partition = CommitPartition {
            partition: key.place.partition,
            offset,
            leader_epoch: NO_LEADER_EPOCH,
            metadata: Some(OWN_COMMIT.to_owned()),
            commit_timestamp_ms: None,
        };
        let request = GroupRequest::OffsetCommit(OffsetCommit {
            group_id: key.group.clone(),
            generation_id: NO_GENERATION,
            member_id: String::new(),
            group_instance_id: None,
            retention_time_ms: -1,
            producer: None,
            topics: vec![by_topic(&key.place, partition)],
        });
        let GroupReply::OffsetCommit(reply) = self.ask_coordinator(request).await? else {
            return Err(not_available("the group's coordinator is not available"));
        };
        let error = reply.topics.iter().flat_map(|topic| &topic.partitions).find_map(|result| result.error);
        error.map_or(Ok(()), |error| Err(refusal(error)))
    }

    /// A group that was destroyed leaves no offset behind; if one stays, it becomes a group again when it is next used.
    async fn delete_committed(self: &Rc<Self>, key: &StreamGroupKey) {
        let request = GroupRequest::OffsetDelete(OffsetDelete {
            group_id: key.group.clone(),
            topics: vec![by_topic(&key.place, key.place.partition)],
        });
        if let Err(error) = self.ask_coordinator(request).await {
            tracing::warn!(group = key.group, place = %key.place, %error, "cannot delete a group's offset");
        }
    }

    async fn ask_coordinator(self: &Rc<Self>, request: GroupRequest) -> Result<GroupReply, StreamGroupError> {
        let owner = {
            let image = self.image();
            let topic = image.topic(CONSUMER_OFFSETS_TOPIC);
            let count = topic.and_then(|topic| PartitionIndex::try_from(topic.partitions.len()).ok());
            let partition = offsets_partition_for(request.group_id().unwrap_or_default(), count.unwrap_or(1));
            topic.and_then(|topic| topic.owner(partition))
        };
        let Some(owner) = owner else { return Err(not_available("the offsets topic is not there")) };
        match self.call(owner, ShardRequest::GroupOnceLoaded(request)).await {
            ShardReply::Group(reply) => Ok(reply),
            _ => Err(not_available("the group's coordinator is not available")),
        }
    }
}

/// Notes for people when a consumer was last seen.
fn note_seen(
    host: &Host,
    key: &StreamGroupKey,
    verb: &StreamGroupVerb,
    reply: &StreamGroupReply,
    now_ms: i64,
) {
    let (consumer, is_active) = match (verb, reply) {
        (StreamGroupVerb::Begin { consumer }, _) => (consumer, false),
        (StreamGroupVerb::Deliver { consumer, entries, .. }, StreamGroupReply::Delivered(_)) => {
            (consumer, !entries.is_empty())
        }
        (StreamGroupVerb::Claim(claim), StreamGroupReply::Claimed(claimed)) => {
            (&claim.consumer, !claimed.is_empty())
        }
        (StreamGroupVerb::History { consumer, .. }, StreamGroupReply::Pending(shown)) => {
            (consumer, !shown.is_empty())
        }
        _ => return,
    };
    host.groups.borrow_mut().touch(key, consumer, is_active, now_ms);
}

fn by_topic<P>(place: &TopicPartition, partition: P) -> ByTopic<P> {
    ByTopic { topic: place.topic.clone(), topic_id: None, partitions: vec![partition] }
}

fn unavailable(why: &str) -> StreamGroupReply {
    StreamGroupReply::Refused(not_available(why))
}

fn not_available(why: &str) -> StreamGroupError {
    StreamGroupError::NotAvailable(why.to_owned())
}

fn refusal(error: GroupError) -> StreamGroupError {
    match error {
        GroupError::UnknownMemberId | GroupError::RebalanceInProgress | GroupError::IllegalGeneration => {
            StreamGroupError::HasMembers
        }
        other => StreamGroupError::NotAvailable(other.to_string()),
    }
}
