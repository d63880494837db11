//! One member of a consumer group: joins, keeps its place by heartbeats, commits offsets of what it is assigned.
//!
//! Lives on: a `worker`, with one connection to its group's coordinator and one request under way. Speaks the classic
//! protocol (JoinGroup, SyncGroup, Heartbeat; the leader deals the partitions out) or that of KIP-848
//! (ConsumerGroupHeartbeat). Heartbeats are due at times fixed when the member settles, and their latency counts from
//! there. Does not: fetch.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, bail};
use bytes::{BufMut, Bytes, BytesMut};
use clap::ValueEnum;
use kafka_protocol::error::{ParseResponseErrorCode, ResponseError};
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions as OwnedPartitions;
use kafka_protocol::messages::consumer_protocol_assignment::TopicPartition;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, ConsumerProtocolAssignment,
    ConsumerProtocolSubscription, GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse,
    OffsetCommitRequest, SyncGroupRequest, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, Request, StrBytes};
use serde::Serialize;
use uuid::Uuid;

use crate::clock::MILLISECOND_NS;
use crate::link::OutFrame;
use crate::stats::Window;
use crate::wire::{ApiTable, decode_response, encode_request};
use crate::worker::{Client, Links, Turn};

/// How long a member waits before it asks a coordinator again that is not ready.
const RETRY_NS: u64 = 100 * MILLISECOND_NS;
/// The only node that a member talks to.
const COORDINATOR: usize = 0;
/// Version of the subscriptions and assignments within JoinGroup and SyncGroup.
const EMBEDDED_VERSION: i16 = 0;
const PROTOCOL_TYPE: &str = "consumer";
const ASSIGNOR: &str = "range";

/// Which protocol the members speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// JoinGroup, SyncGroup, Heartbeat.
    Classic,
    /// ConsumerGroupHeartbeat (KIP-848).
    Consumer,
}

/// What all members share.
pub struct GroupPlan {
    pub protocol: Protocol,
    pub apis: ApiTable,
    pub topic: StrBytes,
    pub partitions: i32,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    pub heartbeat_interval_ns: u64,
    pub commit_interval_ns: u64,
    /// When heartbeats count; unset until all are settled.
    pub window: OnceLock<Window>,
    /// Members that have their partitions.
    pub settled: AtomicUsize,
    /// Members that have committed at least once.
    pub committed: AtomicUsize,
}

/// The request under way.
#[derive(Clone, Copy)]
enum Asked {
    Join,
    Sync,
    Heartbeat,
    ConsumerHeartbeat,
    Commit,
}

enum Place {
    /// Not in the group, or called to join anew.
    Outside,
    /// Joined; who else is, if this member leads.
    Joined { members: Vec<StrBytes> },
    /// Has its partitions.
    Settled,
}

/// A member. Made in order; `position` of `count` spreads heartbeats over the interval.
pub struct Member {
    plan: Arc<GroupPlan>,
    group: StrBytes,
    address: String,
    links: Links,
    place: Place,
    asked: Option<Asked>,
    sent_ns: u64,
    correlation_id: i32,
    member_id: StrBytes,
    /// Generation, or member epoch.
    epoch: i32,
    partitions: Vec<i32>,
    /// What to tell the coordinator of KIP-848 that this member owns, if that has changed.
    owned: Option<Vec<OwnedPartitions>>,
    share: f64,
    not_before_ns: u64,
    heartbeat_due_ns: u64,
    commit_due_ns: u64,
    was_settled: bool,
    has_committed: bool,
}

impl Member {
    pub fn new(
        plan: Arc<GroupPlan>,
        group: StrBytes,
        address: String,
        position: usize,
        count: usize,
    ) -> Self {
        let mut links = Links::default();
        links.index_of(0);
        let member_id = match plan.protocol {
            Protocol::Classic => StrBytes::default(),
            Protocol::Consumer => StrBytes::from_string(Uuid::from_u64_pair(1, position as u64).to_string()),
        };
        Self {
            plan,
            group,
            address,
            links,
            place: Place::Outside,
            asked: None,
            sent_ns: 0,
            correlation_id: 0,
            member_id,
            epoch: 0,
            partitions: Vec::new(),
            owned: Some(Vec::new()),
            share: position as f64 / count as f64,
            not_before_ns: 0,
            heartbeat_due_ns: 0,
            commit_due_ns: 0,
            was_settled: false,
            has_committed: false,
        }
    }

    /// The next request and when it is due.
    fn next(&self) -> (Asked, u64) {
        match self.place {
            Place::Outside if self.plan.protocol == Protocol::Classic => (Asked::Join, self.not_before_ns),
            Place::Outside => (Asked::ConsumerHeartbeat, self.not_before_ns),
            Place::Joined { .. } => (Asked::Sync, self.not_before_ns),
            Place::Settled => {
                let heartbeat = match self.plan.protocol {
                    Protocol::Classic => Asked::Heartbeat,
                    Protocol::Consumer => Asked::ConsumerHeartbeat,
                };
                if self.heartbeat_due_ns <= self.commit_due_ns {
                    (heartbeat, self.heartbeat_due_ns)
                } else {
                    (Asked::Commit, self.commit_due_ns)
                }
            }
        }
    }

    fn send(&mut self, asked: Asked, turn: &mut Turn<'_>) -> Result<()> {
        let head = match asked {
            Asked::Join => self.encode(&self.join()?)?,
            Asked::Sync => self.encode(&self.sync()?)?,
            Asked::Heartbeat => self.encode(
                &HeartbeatRequest::default()
                    .with_group_id(GroupId(self.group.clone()))
                    .with_generation_id(self.epoch)
                    .with_member_id(self.member_id.clone()),
            )?,
            Asked::ConsumerHeartbeat => {
                let heartbeat = self.consumer_heartbeat();
                self.owned = None;
                self.encode(&heartbeat)?
            }
            Asked::Commit => self.encode(&self.commit())?,
        };
        self.asked = Some(asked);
        self.sent_ns = turn.now_ns;
        self.links.send(COORDINATOR, OutFrame { head, batch: None, tail: &[] }, turn)?;
        self.links.spent.clear();
        Ok(())
    }

    fn encode<R: Request>(&self, request: &R) -> Result<Vec<u8>> {
        encode_request(request, self.plan.apis.version::<R>()?, self.correlation_id)
    }

    fn decode<R: Request>(&self, frame: Bytes) -> Result<R::Response> {
        Ok(decode_response::<R>(frame, self.plan.apis.version::<R>()?)?.1)
    }

    fn join(&self) -> Result<JoinGroupRequest> {
        let subscription = ConsumerProtocolSubscription::default().with_topics(vec![self.plan.topic.clone()]);
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(StrBytes::from_static_str(ASSIGNOR))
            .with_metadata(embedded(&subscription)?);
        Ok(JoinGroupRequest::default()
            .with_group_id(GroupId(self.group.clone()))
            .with_session_timeout_ms(self.plan.session_timeout_ms)
            .with_rebalance_timeout_ms(self.plan.rebalance_timeout_ms)
            .with_member_id(self.member_id.clone())
            .with_protocol_type(StrBytes::from_static_str(PROTOCOL_TYPE))
            .with_protocols(vec![protocol]))
    }

    /// The leader deals out the partitions in turn; the others only ask for theirs.
    fn sync(&self) -> Result<SyncGroupRequest> {
        let Place::Joined { members } = &self.place else {
            bail!("a member that has not joined cannot sync")
        };
        let mut assignments = Vec::with_capacity(members.len());
        for (position, member) in members.iter().enumerate() {
            let partitions: Vec<i32> =
                (0..self.plan.partitions).skip(position).step_by(members.len()).collect();
            let topic = TopicPartition::default()
                .with_topic(TopicName(self.plan.topic.clone()))
                .with_partitions(partitions);
            let assignment = ConsumerProtocolAssignment::default().with_assigned_partitions(vec![topic]);
            assignments.push(
                SyncGroupRequestAssignment::default()
                    .with_member_id(member.clone())
                    .with_assignment(embedded(&assignment)?),
            );
        }
        Ok(SyncGroupRequest::default()
            .with_group_id(GroupId(self.group.clone()))
            .with_generation_id(self.epoch)
            .with_member_id(self.member_id.clone())
            .with_protocol_type(Some(StrBytes::from_static_str(PROTOCOL_TYPE)))
            .with_protocol_name(Some(StrBytes::from_static_str(ASSIGNOR)))
            .with_assignments(assignments))
    }

    /// All fields when joining, only what has changed afterwards.
    fn consumer_heartbeat(&self) -> ConsumerGroupHeartbeatRequest {
        let is_joining = self.epoch == 0;
        ConsumerGroupHeartbeatRequest::default()
            .with_group_id(GroupId(self.group.clone()))
            .with_member_id(self.member_id.clone())
            .with_member_epoch(self.epoch)
            .with_rebalance_timeout_ms(if is_joining { self.plan.rebalance_timeout_ms } else { -1 })
            .with_subscribed_topic_names(is_joining.then(|| vec![TopicName(self.plan.topic.clone())]))
            .with_topic_partitions(self.owned.clone())
    }

    fn commit(&self) -> OffsetCommitRequest {
        let partitions = self.partitions.iter().map(|&partition| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(partition)
                .with_committed_offset(0)
                .with_committed_leader_epoch(-1)
        });
        let topic = OffsetCommitRequestTopic::default()
            .with_name(TopicName(self.plan.topic.clone()))
            .with_partitions(partitions.collect());
        OffsetCommitRequest::default()
            .with_group_id(GroupId(self.group.clone()))
            .with_generation_id_or_member_epoch(self.epoch)
            .with_member_id(self.member_id.clone())
            .with_retention_time_ms(-1)
            .with_topics(vec![topic])
    }

    fn on_joined(&mut self, response: &JoinGroupResponse, now_ns: u64) -> Result<()> {
        match response.error_code.err() {
            None => {
                self.epoch = response.generation_id;
                self.member_id = response.member_id.clone();
                let members = response.members.iter().map(|member| member.member_id.clone()).collect();
                self.place = Place::Joined { members };
                Ok(())
            }
            Some(ResponseError::MemberIdRequired) => {
                self.member_id = response.member_id.clone();
                Ok(())
            }
            Some(error) => self.begin_again(error, "JoinGroup", now_ns),
        }
    }

    fn on_consumer_heartbeat(&mut self, response: ConsumerGroupHeartbeatResponse, now_ns: u64) -> Result<()> {
        if let Some(error) = response.error_code.err() {
            return self.begin_again(error, "ConsumerGroupHeartbeat", now_ns);
        }
        let had_joined = self.epoch != 0;
        self.epoch = response.member_epoch;
        let Some(assignment) = response.assignment else {
            if had_joined && !self.partitions.is_empty() {
                self.settle(now_ns);
            } else {
                self.not_before_ns = now_ns + RETRY_NS;
            }
            return Ok(());
        };
        self.partitions =
            assignment.topic_partitions.iter().flat_map(|topic| topic.partitions.clone()).collect();
        let owned = assignment.topic_partitions.into_iter().map(|topic| {
            OwnedPartitions::default().with_topic_id(topic.topic_id).with_partitions(topic.partitions)
        });
        // The coordinator waits to hear that we have let go of what is not ours any more.
        self.owned = Some(owned.collect());
        self.not_before_ns = now_ns;
        self.heartbeat_due_ns = now_ns;
        Ok(())
    }

    /// Heartbeats and commits are spread over their intervals, as those of consumers that were started one by one are.
    fn settle(&mut self, now_ns: u64) {
        if matches!(self.place, Place::Settled) {
            return;
        }
        self.place = Place::Settled;
        let part = |interval_ns: u64| (interval_ns as f64 * self.share) as u64;
        self.heartbeat_due_ns = now_ns + part(self.plan.heartbeat_interval_ns);
        self.commit_due_ns = now_ns + part(self.plan.commit_interval_ns);
        if !self.was_settled {
            self.was_settled = true;
            self.plan.settled.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Joins anew, or asks again, after an error that groups live with.
    fn begin_again(&mut self, error: ResponseError, request: &str, now_ns: u64) -> Result<()> {
        match error {
            ResponseError::CoordinatorLoadInProgress
            | ResponseError::CoordinatorNotAvailable
            | ResponseError::NotCoordinator => {}
            ResponseError::RebalanceInProgress => self.place = Place::Outside,
            ResponseError::IllegalGeneration
            | ResponseError::UnknownMemberId
            | ResponseError::FencedMemberEpoch
            | ResponseError::StaleMemberEpoch => {
                self.place = Place::Outside;
                self.epoch = 0;
                self.owned = Some(Vec::new());
                if self.plan.protocol == Protocol::Classic {
                    self.member_id = StrBytes::default();
                }
            }
            error => bail!("{request} of group {}: {error}", self.group),
        }
        self.not_before_ns = now_ns + RETRY_NS;
        Ok(())
    }

    fn count_heartbeat(&mut self, turn: &mut Turn<'_>) {
        let due_ns = self.heartbeat_due_ns;
        self.heartbeat_due_ns += self.plan.heartbeat_interval_ns;
        let Some(window) = self.plan.window.get() else { return };
        let tally = &mut turn.interval.consume;
        tally.count(window, turn.now_ns, 1, 0);
        if window.contains(due_ns) {
            tally.latency.saturating_record(turn.now_ns.saturating_sub(due_ns));
            tally.service.saturating_record(turn.now_ns.saturating_sub(self.sent_ns));
        }
    }
}

impl Client for Member {
    fn links(&mut self) -> &mut Links {
        &mut self.links
    }

    fn unconnected(&self) -> Result<Vec<(usize, String)>> {
        Ok(vec![(COORDINATOR, self.address.clone())])
    }

    fn pump(&mut self, turn: &mut Turn<'_>) -> Result<Option<u64>> {
        if self.asked.is_some() {
            return Ok(None);
        }
        let (asked, due_ns) = self.next();
        if due_ns > turn.now_ns {
            return Ok(Some(due_ns));
        }
        self.send(asked, turn)?;
        Ok(None)
    }

    fn on_frame(&mut self, _link: usize, frame: Bytes, turn: &mut Turn<'_>) -> Result<()> {
        let asked = self.asked.take().context("a reply to nothing")?;
        self.correlation_id += 1;
        let now_ns = turn.now_ns;
        match asked {
            Asked::Join => self.on_joined(&self.decode::<JoinGroupRequest>(frame)?, now_ns),
            Asked::Sync => {
                let response = self.decode::<SyncGroupRequest>(frame)?;
                if let Some(error) = response.error_code.err() {
                    return self.begin_again(error, "SyncGroup", now_ns);
                }
                self.partitions = assigned(response.assignment)?;
                self.settle(now_ns);
                Ok(())
            }
            Asked::Heartbeat => {
                self.count_heartbeat(turn);
                match self.decode::<HeartbeatRequest>(frame)?.error_code.err() {
                    None => Ok(()),
                    Some(error) => self.begin_again(error, "Heartbeat", now_ns),
                }
            }
            Asked::ConsumerHeartbeat => {
                if matches!(self.place, Place::Settled) {
                    self.count_heartbeat(turn);
                }
                let response = self.decode::<ConsumerGroupHeartbeatRequest>(frame)?;
                self.on_consumer_heartbeat(response, now_ns)
            }
            Asked::Commit => {
                self.commit_due_ns += self.plan.commit_interval_ns;
                let waited_ns = now_ns.saturating_sub(self.sent_ns);
                if self.plan.window.get().is_some_and(|window| window.contains(self.sent_ns)) {
                    turn.interval.consume.commit.saturating_record(waited_ns);
                }
                let response = self.decode::<OffsetCommitRequest>(frame)?;
                let mut partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
                match partitions.find_map(|partition| partition.error_code.err()) {
                    Some(error) => self.begin_again(error, "OffsetCommit", now_ns),
                    None => {
                        if !self.has_committed {
                            self.has_committed = true;
                            self.plan.committed.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(())
                    }
                }
            }
        }
    }

    fn on_lost(&mut self, _link: usize, error: anyhow::Error, _turn: &mut Turn<'_>) -> Result<()> {
        Err(error.context(format!("a member of {} lost its coordinator", self.group)))
    }

    fn is_done(&self) -> bool {
        false // members stay until the run ends
    }

    fn abandon(&mut self, _turn: &mut Turn<'_>) {}
}

/// A subscription or an assignment as it travels within a request: its version and itself.
fn embedded(message: &impl Encodable) -> Result<Bytes> {
    let mut bytes = BytesMut::new();
    bytes.put_i16(EMBEDDED_VERSION);
    message.encode(&mut bytes, EMBEDDED_VERSION)?;
    Ok(bytes.freeze())
}

fn assigned(mut bytes: Bytes) -> Result<Vec<i32>> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let version = i16::from_be_bytes(bytes.split_to(2).as_ref().try_into()?);
    let assignment = ConsumerProtocolAssignment::decode(&mut bytes, version)?;
    Ok(assignment.assigned_partitions.into_iter().flat_map(|topic| topic.partitions).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::{Arc, OnceLock};

    use kafka_protocol::protocol::StrBytes;

    use super::{GroupPlan, Member, Place, Protocol, assigned};
    use crate::wire::ApiTable;

    #[test]
    fn a_leader_deals_out_every_partition_once() {
        let plan = GroupPlan {
            protocol: Protocol::Classic,
            apis: ApiTable::default(),
            topic: StrBytes::from_static_str("orders"),
            partitions: 20,
            session_timeout_ms: 45_000,
            rebalance_timeout_ms: 60_000,
            heartbeat_interval_ns: 1,
            commit_interval_ns: 1,
            window: OnceLock::new(),
            settled: AtomicUsize::new(0),
            committed: AtomicUsize::new(0),
        };
        let group = StrBytes::from_static_str("group");
        let mut leader = Member::new(Arc::new(plan), group, "127.0.0.1:9092".to_owned(), 0, 3);
        let members = ["a", "b", "c"].map(StrBytes::from_static_str).to_vec();
        leader.place = Place::Joined { members: members.clone() };
        let sync = leader.sync().expect("has joined");
        let dealt_to: Vec<_> = sync.assignments.iter().map(|dealt| dealt.member_id.clone()).collect();
        assert_eq!(dealt_to, members);
        let dealt =
            sync.assignments.into_iter().flat_map(|dealt| assigned(dealt.assignment).expect("an assignment"));
        let mut dealt: Vec<i32> = dealt.collect();
        dealt.sort_unstable();
        assert_eq!(dealt, (0..20).collect::<Vec<_>>());
    }
}
