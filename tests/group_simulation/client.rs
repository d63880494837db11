//! A consumer process of the simulation: what it asks, and what it makes of the answers, as real clients do.

use std::collections::BTreeMap;

use bytes::Bytes;

use logstreams::model::TopicName;
use logstreams::model::group::{
    ByTopic, CommitPartition, GroupError, GroupReply, GroupRequest, Heartbeat, JoinGroup, JoinGroupReply,
    JoinedMember, LeaveGroup, LeavingMember, MemberProtocol, NO_GENERATION, OffsetCommit, OffsetFetch,
    ReplyToken, SyncGroup,
};

pub const GROUP: &str = "simulated";
pub const PARTITION_COUNT: u8 = 6;
pub const SESSION_MS: i64 = 6_000;
const REBALANCE_MS: i64 = 9_000;

/// What a client does next, or waits for.
#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    Out,
    ToJoin,
    ToSync {
        assignments: Vec<(String, Bytes)>,
    },
    /// Has an assignment and needs to know where to read on.
    ToFetch {
        partitions: Vec<u8>,
    },
    Member,
}

/// One consumer process.
pub struct Client {
    pub instance_id: Option<String>,
    pub is_modern: bool,
    pub phase: Phase,
    pub member_id: String,
    pub generation_id: i32,
    /// The next offset to read of each partition owned.
    pub positions: BTreeMap<u8, i64>,
    pub waiting_for: Option<ReplyToken>,
    pub paused_until_ms: i64,
    pub heartbeat_ms: i64,
    pub metadata: u8,
}

impl Client {
    pub fn restart(&mut self) {
        self.phase = Phase::ToJoin;
        self.member_id.clear();
        self.generation_id = NO_GENERATION;
        self.positions.clear();
        self.waiting_for = None;
    }

    pub fn rejoin(&mut self) {
        self.phase = Phase::ToJoin;
        self.positions.clear();
    }

    /// What every client does with the errors that all requests share.
    fn suffer(&mut self, error: GroupError) {
        match error {
            GroupError::UnknownMemberId => {
                self.member_id.clear();
                self.rejoin();
            }
            GroupError::IllegalGeneration | GroupError::RebalanceInProgress => self.rejoin(),
            GroupError::FencedInstanceId => self.phase = Phase::Out,
            GroupError::GroupMaxSizeReached => self.restart(),
            GroupError::CoordinatorNotAvailable | GroupError::NotCoordinator => {}
            other => panic!("no client should meet {other:?}"),
        }
    }

    pub fn sync_request(&self, assignments: Vec<(String, Bytes)>) -> GroupRequest {
        GroupRequest::Sync(SyncGroup {
            group_id: GROUP.to_owned(),
            generation_id: self.generation_id,
            member_id: self.member_id.clone(),
            group_instance_id: self.instance_id.clone(),
            protocol_type: Some("consumer".to_owned()),
            protocol_name: Some("simple".to_owned()),
            assignments,
        })
    }

    pub fn join_request(&self) -> GroupRequest {
        // A subscription to the topic "t", then bytes of the client's own.
        let metadata = Bytes::from(vec![0, 1, 0, 0, 0, 1, 0, 1, b't', self.metadata]);
        GroupRequest::Join(JoinGroup {
            group_id: GROUP.to_owned(),
            member_id: self.member_id.clone(),
            group_instance_id: self.instance_id.clone(),
            client_id: "client".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
            session_timeout_ms: i32::try_from(SESSION_MS).unwrap(),
            rebalance_timeout_ms: i32::try_from(REBALANCE_MS).unwrap(),
            protocol_type: "consumer".to_owned(),
            protocols: vec![MemberProtocol { name: "simple".to_owned(), metadata }],
            require_known_member_id: self.is_modern,
            supports_skipping_assignment: self.is_modern,
            reason: None,
        })
    }

    pub fn heartbeat_request(&self) -> GroupRequest {
        GroupRequest::Heartbeat(Heartbeat {
            group_id: GROUP.to_owned(),
            generation_id: self.generation_id,
            member_id: self.member_id.clone(),
            group_instance_id: self.instance_id.clone(),
        })
    }

    pub fn leave_request(&self) -> GroupRequest {
        let leaving = LeavingMember {
            member_id: self.member_id.clone(),
            group_instance_id: self.instance_id.clone(),
            reason: None,
        };
        GroupRequest::Leave(LeaveGroup { group_id: GROUP.to_owned(), members: vec![leaving] })
    }

    /// Commits what it has read of all its partitions.
    pub fn commit_request(&self) -> GroupRequest {
        commit_request(self.generation_id, &self.member_id, self.instance_id.as_deref(), &self.positions)
    }
}

pub fn commit_request(
    generation_id: i32,
    member_id: &str,
    instance_id: Option<&str>,
    positions: &BTreeMap<u8, i64>,
) -> GroupRequest {
    let commit = |(&partition, &offset): (&u8, &i64)| CommitPartition {
        partition: i32::from(partition),
        offset,
        leader_epoch: 0,
        metadata: None,
        commit_timestamp_ms: None,
    };
    let partitions = positions.iter().map(commit).collect();
    GroupRequest::OffsetCommit(OffsetCommit {
        group_id: GROUP.to_owned(),
        generation_id,
        member_id: member_id.to_owned(),
        group_instance_id: instance_id.map(str::to_owned),
        retention_time_ms: -1,
        producer: None,
        topics: vec![ByTopic { topic: topic(), topic_id: None, partitions }],
    })
}

pub fn fetch_request(partitions: Vec<u8>, require_stable: bool) -> GroupRequest {
    let partitions = partitions.into_iter().map(i32::from).collect();
    GroupRequest::OffsetFetch(OffsetFetch {
        group_id: GROUP.to_owned(),
        member_id: None,
        member_epoch: -1,
        topics: Some(vec![ByTopic { topic: topic(), topic_id: None, partitions }]),
        require_stable,
    })
}

/// What a client makes of a reply.
pub fn receive(client: &mut Client, reply: GroupReply, now_ms: i64) {
    match reply {
        GroupReply::Join(joined) => receive_joined(client, joined),
        GroupReply::Sync(synced) => match synced.error {
            Some(error) => client.suffer(error),
            None => {
                client.heartbeat_ms = now_ms;
                client.phase = Phase::ToFetch { partitions: synced.assignment.to_vec() };
            }
        },
        GroupReply::OffsetFetch(fetched) => {
            let at = |offset: i64| offset.max(0);
            let offsets = fetched.topics[0].partitions.iter();
            client.positions =
                offsets.map(|it| (u8::try_from(it.partition).unwrap(), at(it.offset))).collect();
            client.phase = Phase::Member;
        }
        GroupReply::Heartbeat(reply) => reply.error.into_iter().for_each(|error| client.suffer(error)),
        GroupReply::OffsetCommit(reply) => {
            if let Some(error) = reply.topics[0].partitions[0].error {
                client.suffer(error);
            }
        }
        GroupReply::Leave(_) => {}
        other => panic!("{other:?} was not asked for"),
    }
}

fn receive_joined(client: &mut Client, joined: JoinGroupReply) {
    match joined.error {
        Some(GroupError::MemberIdRequired) => client.member_id = joined.member_id,
        Some(error) => client.suffer(error),
        None => {
            let is_assigning = joined.leader == joined.member_id && !joined.skip_assignment;
            let assignments = if is_assigning { assign(&joined) } else { Vec::new() };
            client.member_id = joined.member_id;
            client.generation_id = joined.generation_id;
            client.phase = Phase::ToSync { assignments };
        }
    }
}

/// Deals the partitions out in turn.
fn assign(joined: &JoinGroupReply) -> Vec<(String, Bytes)> {
    let count = joined.members.len();
    let dealt = |index: usize| (0..PARTITION_COUNT).filter(move |&it| usize::from(it) % count == index);
    let member = |(index, member): (usize, &JoinedMember)| {
        (member.member_id.clone(), dealt(index).collect::<Vec<u8>>().into())
    };
    joined.members.iter().enumerate().map(member).collect()
}

fn topic() -> TopicName {
    TopicName::new("t").unwrap()
}
