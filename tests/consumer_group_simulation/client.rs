//! A consumer of the new protocol, as real ones behave.

use std::collections::{BTreeMap, BTreeSet};

use logstreams::model::Uuid;
use logstreams::model::group::{
    ByTopic, CommitPartition, ConsumerHeartbeat, GroupError, GroupReply, GroupRequest, JOIN_EPOCH,
    LEAVE_EPOCH, LEAVE_STATIC_EPOCH, OffsetCommit, OffsetFetch, ReplyToken, TopicPartitions,
};

use crate::GROUP;
use crate::topics::World;

/// A partition of a topic.
pub type Key = (Uuid, i32);

/// What a client is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It does not run.
    Out,
    /// It wants to (re-)join.
    ToJoin,
    /// It is a member, as far as it knows.
    Member,
}

/// One client process after another.
pub struct Client {
    instance_id: Option<String>,
    pub phase: Phase,
    /// Counts the processes.
    pub process: u64,
    pub member_id: String,
    epoch: i32,
    pub owned: BTreeSet<Key>,
    /// Where it reads, once it has asked for the committed offset.
    pub positions: BTreeMap<Key, i64>,
    pub waiting_for: Option<ReplyToken>,
    pub paused_until_ms: i64,
    pub heartbeat_ms: i64,
    /// Whether the coordinator is to hear of something at once.
    pub has_news: bool,
    /// Whether it cannot know what became of its last request.
    pub has_lost_reply: bool,
    topics: BTreeSet<String>,
    regex: Option<String>,
    is_subscription_new: bool,
}

impl Client {
    pub fn new(index: usize) -> Self {
        let mut client = Client {
            instance_id: index.is_multiple_of(2).then(|| format!("instance-{index}")),
            phase: Phase::Out,
            process: 0,
            member_id: String::new(),
            epoch: 0,
            owned: BTreeSet::new(),
            positions: BTreeMap::new(),
            waiting_for: None,
            paused_until_ms: 0,
            heartbeat_ms: 0,
            has_news: false,
            has_lost_reply: false,
            topics: BTreeSet::new(),
            regex: None,
            is_subscription_new: false,
        };
        client.change_subscription(index as u64 % 4);
        client
    }

    pub fn is_waiting(&self) -> bool {
        self.waiting_for.is_some()
    }

    /// Another process takes the client's place.
    pub fn restart(&mut self, member_id: String, process: u64) {
        self.phase = Phase::ToJoin;
        self.member_id = member_id;
        self.process = process;
        self.drop_all();
        self.waiting_for = None;
        self.has_lost_reply = false;
    }

    fn drop_all(&mut self) {
        self.epoch = 0;
        self.owned.clear();
        self.positions.clear();
    }

    pub fn lose_connection(&mut self) {
        if self.waiting_for.take().is_some() {
            self.has_lost_reply = true;
        }
    }

    pub fn change_subscription(&mut self, choice: u64) {
        let (topics, regex): (&[&str], _) = match choice {
            0 => (&["ta", "tb"], None),
            1 => (&["ta"], None),
            2 => (&[], Some("t.*")),
            _ => (&["other"], Some("ta|tb")),
        };
        self.topics = topics.iter().map(|name| (*name).to_owned()).collect();
        self.regex = regex.map(str::to_owned);
        self.is_subscription_new = true;
        self.has_news = true;
    }

    pub fn reads(&self, topic: &str) -> bool {
        let by_regex = match self.regex.as_deref() {
            Some("t.*") => topic.starts_with('t'),
            Some(_) => topic == "ta" || topic == "tb",
            None => false,
        };
        by_regex || self.topics.contains(topic)
    }

    fn blank(&self, member_epoch: i32) -> ConsumerHeartbeat {
        ConsumerHeartbeat {
            group_id: GROUP.to_owned(),
            member_id: self.member_id.clone(),
            member_epoch,
            instance_id: self.instance_id.clone(),
            rack_id: None,
            rebalance_timeout_ms: None,
            topics: None,
            topic_regex: None,
            assignor: None,
            owned: None,
            client_id: "client".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
        }
    }

    fn owned_partitions(&self) -> TopicPartitions {
        let mut owned = TopicPartitions::new();
        for (topic, partition) in &self.owned {
            owned.entry(*topic).or_default().insert(*partition);
        }
        owned
    }

    fn full(&self, member_epoch: i32) -> ConsumerHeartbeat {
        ConsumerHeartbeat {
            rebalance_timeout_ms: Some(60_000),
            topics: Some(self.topics.iter().cloned().collect()),
            topic_regex: Some(self.regex.clone().unwrap_or_default()),
            owned: Some(self.owned_partitions()),
            ..self.blank(member_epoch)
        }
    }

    pub fn join(&mut self) -> GroupRequest {
        self.drop_all();
        self.is_subscription_new = false;
        GroupRequest::ConsumerHeartbeat(self.full(JOIN_EPOCH))
    }

    /// What is new, or everything.
    pub fn heartbeat(&mut self, is_full: bool) -> GroupRequest {
        let heartbeat = if is_full || self.has_lost_reply || self.is_subscription_new {
            self.full(self.epoch)
        } else if self.has_news {
            ConsumerHeartbeat { owned: Some(self.owned_partitions()), ..self.blank(self.epoch) }
        } else {
            self.blank(self.epoch)
        };
        self.has_news = false;
        self.has_lost_reply = false;
        self.is_subscription_new = false;
        GroupRequest::ConsumerHeartbeat(heartbeat)
    }

    pub fn leave(&mut self, is_for_a_while: bool) -> GroupRequest {
        self.phase = Phase::Out;
        self.owned.clear();
        self.positions.clear();
        let epoch = match is_for_a_while && self.instance_id.is_some() {
            true => LEAVE_STATIC_EPOCH,
            false => LEAVE_EPOCH,
        };
        GroupRequest::ConsumerHeartbeat(self.blank(epoch))
    }

    /// Asks for the committed offsets of what it has just been given.
    pub fn fetch(&self, world: &World) -> Option<GroupRequest> {
        let missing: Vec<&Key> = self.owned.iter().filter(|key| !self.positions.contains_key(*key)).collect();
        let topics = by_topic(world, missing.into_iter().map(|key| (*key, key.1)));
        (!topics.is_empty() && !self.has_news).then(|| {
            GroupRequest::OffsetFetch(OffsetFetch {
                group_id: GROUP.to_owned(),
                member_id: Some(self.member_id.clone()),
                member_epoch: self.epoch,
                topics: Some(topics),
                require_stable: true,
            })
        })
    }

    pub fn commit(&self, world: &World) -> Option<GroupRequest> {
        let commit = |(key, offset): (&Key, &i64)| {
            let commit = CommitPartition {
                partition: key.1,
                offset: *offset,
                leader_epoch: 0,
                metadata: None,
                commit_timestamp_ms: None,
            };
            (*key, commit)
        };
        let topics = by_topic(world, self.positions.iter().map(commit));
        (!topics.is_empty()).then(|| {
            GroupRequest::OffsetCommit(OffsetCommit {
                group_id: GROUP.to_owned(),
                generation_id: self.epoch,
                member_id: self.member_id.clone(),
                group_instance_id: self.instance_id.clone(),
                retention_time_ms: -1,
                producer: None,
                topics,
            })
        })
    }

    pub fn receive(&mut self, request: &GroupRequest, reply: GroupReply, world: &World) {
        match (request, reply) {
            (GroupRequest::ConsumerHeartbeat(asked), GroupReply::ConsumerHeartbeat(told)) => match told.error
            {
                None => {
                    assert_eq!(told.member_id, self.member_id);
                    assert!(
                        asked.member_epoch == JOIN_EPOCH || told.member_epoch >= self.epoch,
                        "the member's epoch went back"
                    );
                    self.epoch = told.member_epoch;
                    self.phase = Phase::Member;
                    if let Some(assignment) = told.assignment {
                        self.take(&assignment);
                    }
                }
                Some(error) => self.suffer(error),
            },
            (_, GroupReply::OffsetFetch(fetched)) => match fetched.error {
                None => {
                    for topic in fetched.topics {
                        let id = self
                            .owned
                            .iter()
                            .map(|key| key.0)
                            .find(|id| world.name(*id).as_ref() == Some(&topic.topic));
                        let Some(id) = id else { continue };
                        for offset in topic.partitions {
                            let key = (id, offset.partition);
                            if self.owned.contains(&key) {
                                self.positions.insert(key, offset.offset.max(0));
                            }
                        }
                    }
                }
                Some(error) => self.suffer(error),
            },
            (_, GroupReply::OffsetCommit(reply)) => {
                if let Some(error) = reply.topics[0].partitions[0].error {
                    self.suffer(error);
                }
            }
            (_, other) => panic!("{other:?} was not asked for"),
        }
    }

    /// Gives up what is not assigned any more, takes what is new, and says so.
    fn take(&mut self, assignment: &TopicPartitions) {
        let assigned: BTreeSet<Key> =
            assignment.iter().flat_map(|(id, it)| it.iter().map(|partition| (*id, *partition))).collect();
        self.has_news |= assigned != self.owned;
        self.positions.retain(|key, _| assigned.contains(key));
        self.owned = assigned;
    }

    fn suffer(&mut self, error: GroupError) {
        match error {
            GroupError::UnknownMemberId | GroupError::FencedMemberEpoch | GroupError::GroupIdNotFound => {
                self.drop_all();
                self.phase = Phase::ToJoin;
            }
            GroupError::FencedInstanceId => {
                self.drop_all();
                self.phase = Phase::Out;
            }
            // It goes on with the epoch that the next heartbeat brings.
            GroupError::StaleMemberEpoch => self.has_news = true,
            // Its place is taken: whoever was put out of a group that is full again hears this, not that it is unknown.
            GroupError::GroupMaxSizeReached => {
                self.drop_all();
                self.phase = Phase::ToJoin;
            }
            GroupError::UnreleasedInstanceId => {}
            GroupError::CoordinatorNotAvailable | GroupError::NotCoordinator => self.has_lost_reply = true,
            other => panic!("no client should meet {other:?}"),
        }
    }
}

fn by_topic<P>(world: &World, partitions: impl Iterator<Item = (Key, P)>) -> Vec<ByTopic<P>> {
    let mut topics: BTreeMap<Uuid, Vec<P>> = BTreeMap::new();
    partitions.for_each(|((id, _), partition)| topics.entry(id).or_default().push(partition));
    let named = topics
        .into_iter()
        .filter_map(|(id, partitions)| Some(ByTopic { topic: world.name(id)?, topic_id: None, partitions }));
    named.collect()
}
