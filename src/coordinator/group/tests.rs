//! A coordinator with a log, a clock and a mailbox around it, and the corner cases of each verb.

mod joining;
mod modern;
mod offsets;
mod reloading;
mod rubbish;
mod static_members;
mod staying;

use std::collections::BTreeMap;

use crate::model::group::{
    ByTopic, CommitPartition, DescribeGroup, DescribeGroupReply, Heartbeat, JoinGroup, JoinGroupReply,
    LeaveGroup, LeavingMember, LeftMember, MemberProtocol, NO_GENERATION, OffsetCommit, OffsetFetch,
    SyncGroup, SyncGroupReply,
};
use crate::model::{Offset, TopicName, Uuid};

use super::*;

const GROUP: &str = "billing";
const SESSION_MS: i64 = 10_000;
const REBALANCE_MS: i64 = 30_000;
/// A Monday in 2023; retention reckons with wall-clock time.
const START_MS: i64 = 1_700_000_000_000;

fn settings() -> GroupSettings {
    GroupSettings::default()
}

/// The subscription of a consumer that reads `topic`.
fn subscription(topic: &str) -> Bytes {
    let mut bytes = vec![0, 1, 0, 0, 0, 1];
    bytes.extend_from_slice(&u16::try_from(topic.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(topic.as_bytes());
    bytes.extend_from_slice(&[0xff, 0xff, 0xff, 0xff]);
    bytes.into()
}

fn range_protocol() -> Vec<MemberProtocol> {
    vec![MemberProtocol { name: "range".to_owned(), metadata: subscription("orders") }]
}

/// A JoinGroup as an old client (before KIP-394) sends it first.
fn join_request() -> JoinGroup {
    JoinGroup {
        group_id: GROUP.to_owned(),
        member_id: String::new(),
        group_instance_id: None,
        client_id: "app".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        session_timeout_ms: i32::try_from(SESSION_MS).unwrap(),
        rebalance_timeout_ms: i32::try_from(REBALANCE_MS).unwrap(),
        protocol_type: "consumer".to_owned(),
        protocols: range_protocol(),
        require_known_member_id: false,
        supports_skipping_assignment: false,
        reason: None,
    }
}

fn rejoin_request(member_id: &str) -> JoinGroup {
    JoinGroup { member_id: member_id.to_owned(), ..join_request() }
}

fn static_join_request(instance_id: &str) -> JoinGroup {
    JoinGroup {
        group_instance_id: Some(instance_id.to_owned()),
        require_known_member_id: true,
        supports_skipping_assignment: true,
        ..join_request()
    }
}

fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

/// A commit of one offset of orders-0 from outside the group.
fn commit_request(offset: Offset) -> OffsetCommit {
    let partition =
        CommitPartition { partition: 0, offset, leader_epoch: 3, metadata: None, commit_timestamp_ms: None };
    OffsetCommit {
        group_id: GROUP.to_owned(),
        generation_id: NO_GENERATION,
        member_id: String::new(),
        group_instance_id: None,
        retention_time_ms: -1,
        producer: None,
        topics: vec![ByTopic { topic: topic("orders"), topic_id: None, partitions: vec![partition] }],
    }
}

/// The world around a coordinator: appends succeed at once unless they are held back.
struct Bench {
    coordinator: GroupCoordinator,
    now_ms: i64,
    log: Vec<StateRecord>,
    /// Appends that have begun and not ended, with their records.
    held: Vec<(AppendId, Vec<StateRecord>)>,
    is_holding: bool,
    next_token: u64,
    replies: BTreeMap<ReplyToken, GroupReply>,
}

impl Bench {
    fn new(settings: GroupSettings) -> Self {
        let mut bench = Bench::unloaded(settings);
        bench.load();
        bench
    }

    fn unloaded(settings: GroupSettings) -> Self {
        let mut number = 0u128;
        let ids = move || {
            number += 1;
            Uuid::from_u128(number)
        };
        Bench {
            coordinator: GroupCoordinator::with_ids(settings, Box::new(ids)),
            now_ms: START_MS,
            log: Vec::new(),
            held: Vec::new(),
            is_holding: false,
            next_token: 0,
            replies: BTreeMap::new(),
        }
    }

    fn load(&mut self) {
        let effects = self.coordinator.loaded(self.now_ms);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Effects) {
        self.coordinator.check_invariants();
        assert_eq!(effects.append.is_some(), !effects.records.is_empty());
        for (token, reply) in effects.replies {
            assert!(self.replies.insert(token, reply).is_none(), "{token:?} was answered twice");
        }
        let Some(append) = effects.append else { return };
        self.held.push((append, effects.records));
        if !self.is_holding {
            self.end_appends();
        }
    }

    fn hold_appends(&mut self) {
        self.is_holding = true;
    }

    /// Lets all held appends succeed, and later ones too.
    fn end_appends(&mut self) {
        self.is_holding = false;
        while !self.held.is_empty() {
            let (append, records) = self.held.remove(0);
            self.log.extend(records);
            let effects = self.coordinator.appended(append, self.now_ms);
            self.carry_out(effects);
        }
    }

    /// Lets all held appends fail; later ones succeed.
    fn fail_appends(&mut self) {
        self.is_holding = false;
        for (append, _) in std::mem::take(&mut self.held) {
            let effects =
                self.coordinator.append_failed(append, GroupError::CoordinatorNotAvailable, self.now_ms);
            self.carry_out(effects);
        }
    }

    /// Lets time pass, timer by timer.
    fn pass(&mut self, ms: i64) {
        let end_ms = self.now_ms + ms;
        while let Some(deadline_ms) = self.coordinator.next_deadline_ms().filter(|&at_ms| at_ms <= end_ms) {
            self.now_ms = self.now_ms.max(deadline_ms);
            let effects = self.coordinator.on_timer(self.now_ms);
            self.carry_out(effects);
        }
        self.now_ms = end_ms;
    }

    /// A new coordinator reads what the log holds.
    fn reload(&mut self) {
        let mut fresh = Bench::unloaded(self.coordinator.settings.clone());
        fresh.now_ms = self.now_ms;
        fresh.log = std::mem::take(&mut self.log);
        for record in &fresh.log {
            fresh.coordinator.replay(&record.key, record.value.as_deref(), None, fresh.now_ms).unwrap();
        }
        *self = fresh;
        self.load();
    }

    fn send(&mut self, request: GroupRequest) -> ReplyToken {
        let token = ReplyToken(self.next_token);
        self.next_token += 1;
        let effects = self.coordinator.handle(token, request, self.now_ms);
        self.carry_out(effects);
        token
    }

    fn is_waiting(&self, token: ReplyToken) -> bool {
        !self.replies.contains_key(&token)
    }

    fn reply(&mut self, token: ReplyToken) -> GroupReply {
        self.replies.remove(&token).unwrap_or_else(|| panic!("{token:?} has no reply"))
    }

    fn ask(&mut self, request: GroupRequest) -> GroupReply {
        let token = self.send(request);
        self.reply(token)
    }

    fn join(&mut self, request: JoinGroup) -> ReplyToken {
        self.send(GroupRequest::Join(request))
    }

    fn joined(&mut self, token: ReplyToken) -> JoinGroupReply {
        match self.reply(token) {
            GroupReply::Join(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    fn sync(
        &mut self,
        member_id: &str,
        generation_id: i32,
        assignments: &[(&str, &'static str)],
    ) -> ReplyToken {
        let assignments =
            assignments.iter().map(|(id, bytes)| ((*id).to_owned(), Bytes::from_static(bytes.as_bytes())));
        self.send(GroupRequest::Sync(SyncGroup {
            group_id: GROUP.to_owned(),
            generation_id,
            member_id: member_id.to_owned(),
            group_instance_id: None,
            protocol_type: Some("consumer".to_owned()),
            protocol_name: Some("range".to_owned()),
            assignments: assignments.collect(),
        }))
    }

    fn synced(&mut self, token: ReplyToken) -> SyncGroupReply {
        match self.reply(token) {
            GroupReply::Sync(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    fn heartbeat(&mut self, member_id: &str, generation_id: i32) -> Option<GroupError> {
        let heartbeat = Heartbeat {
            group_id: GROUP.to_owned(),
            generation_id,
            member_id: member_id.to_owned(),
            group_instance_id: None,
        };
        match self.ask(GroupRequest::Heartbeat(heartbeat)) {
            GroupReply::Heartbeat(reply) => reply.error,
            other => panic!("{other:?}"),
        }
    }

    fn leave(&mut self, members: &[(&str, Option<&str>)]) -> Vec<LeftMember> {
        let leaving = |&(member_id, instance_id): &(&str, Option<&str>)| LeavingMember {
            member_id: member_id.to_owned(),
            group_instance_id: instance_id.map(str::to_owned),
            reason: None,
        };
        let leave = LeaveGroup { group_id: GROUP.to_owned(), members: members.iter().map(leaving).collect() };
        match self.ask(GroupRequest::Leave(leave)) {
            GroupReply::Leave(reply) => reply.members,
            other => panic!("{other:?}"),
        }
    }

    fn commit(&mut self, request: OffsetCommit) -> ReplyToken {
        self.send(GroupRequest::OffsetCommit(request))
    }

    /// The result of a commit of one partition.
    fn committed(&mut self, token: ReplyToken) -> Option<GroupError> {
        match self.reply(token) {
            GroupReply::OffsetCommit(reply) => reply.topics[0].partitions[0].error,
            other => panic!("{other:?}"),
        }
    }

    fn fetch_token(&mut self, require_stable: bool) -> ReplyToken {
        let orders = ByTopic { topic: topic("orders"), topic_id: None, partitions: vec![0] };
        self.send(GroupRequest::OffsetFetch(OffsetFetch {
            group_id: GROUP.to_owned(),
            member_id: None,
            member_epoch: -1,
            topics: Some(vec![orders]),
            require_stable,
        }))
    }

    fn fetched(&mut self, token: ReplyToken) -> Result<Offset, GroupError> {
        match self.reply(token) {
            GroupReply::OffsetFetch(reply) => {
                let fetched = &reply.topics[0].partitions[0];
                fetched.error.map_or(Ok(fetched.offset), Err)
            }
            other => panic!("{other:?}"),
        }
    }

    /// The committed offset of orders-0, -1 if there is none.
    fn fetch(&mut self) -> Offset {
        let token = self.fetch_token(false);
        self.fetched(token).unwrap()
    }

    fn describe(&mut self) -> DescribeGroupReply {
        match self.ask(GroupRequest::Describe(DescribeGroup { group_id: GROUP.to_owned() })) {
            GroupReply::Describe(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    fn state(&mut self) -> GroupState {
        self.describe().state
    }

    /// One member that leads a stable generation 1 and owns everything; its id.
    fn stable_leader(&mut self) -> String {
        let token = self.join(join_request());
        let leader = self.joined(token).member_id;
        let token = self.sync(&leader, 1, &[(&leader, "all")]);
        assert_eq!(self.synced(token).assignment, "all");
        leader
    }

    /// Two members in a stable generation 2: (leader, follower).
    fn stable_pair(&mut self) -> (String, String) {
        let leader = self.stable_leader();
        let follower_join = self.join(join_request());
        let leader_join = self.join(rejoin_request(&leader));
        let follower = self.joined(follower_join).member_id;
        assert_eq!(self.joined(leader_join).leader, leader);
        let follower_sync = self.sync(&follower, 2, &[]);
        let leader_sync = self.sync(&leader, 2, &[(&leader, "left"), (&follower, "right")]);
        assert_eq!(self.synced(follower_sync).assignment, "right");
        assert_eq!(self.synced(leader_sync).assignment, "left");
        (leader, follower)
    }
}

#[test]
fn groups_hash_to_partitions_as_in_java() {
    assert_eq!(offsets_partition_for("", 50), 0);
    assert_eq!(offsets_partition_for("a", 50), 97 % 50);
    assert_eq!(offsets_partition_for("billing", 1 << 30), JAVA_HASH_OF_BILLING & ((1 << 30) - 1));
    assert_eq!(offsets_partition_for("billing", 50), 39);
    assert_eq!(offsets_partition_for("größe-\u{1F600}", i32::MAX), JAVA_HASH_OF_NON_ASCII);
    assert_eq!(offsets_partition_for("billing", 1), 0);
}

// What jshell says of "billing".hashCode() and "größe-😀".hashCode().
const JAVA_HASH_OF_BILLING: i32 = -109_829_509;
const JAVA_HASH_OF_NON_ASCII: i32 = 175_616_671;

#[test]
fn groups_can_move_to_another_thread() {
    fn is_send<T: Send>() {}
    is_send::<GroupCoordinator>();
    is_send::<Effects>();
    is_send::<GroupRequest>();
    is_send::<GroupReply>();
}
