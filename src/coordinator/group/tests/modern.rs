//! Consumer groups (KIP-848): epochs and fencing, revoking before assigning, static members, failed appends,
//! expressions, commits, and the way from the classic protocol and back.

use std::collections::BTreeMap;

use super::*;
use crate::coordinator::group::topics::TopicsView;
use crate::model::PartitionIndex;
use crate::model::group::{
    ConsumerHeartbeat, ConsumerHeartbeatReply, DescribeModernGroup, ListGroups, ModernGroupState,
};

/// Topics by name, with their numbers of partitions.
#[derive(Debug, Default)]
struct Topics(u64, BTreeMap<String, PartitionIndex>);

impl TopicsView for Topics {
    fn version(&self) -> u64 {
        self.0
    }

    fn by_name(&self, name: &str) -> Option<(Uuid, PartitionIndex)> {
        self.1.get(name).map(|count| (id_of(name), *count))
    }

    fn by_id(&self, id: Uuid) -> Option<(TopicName, PartitionIndex)> {
        let found = self.1.iter().find(|(name, _)| id_of(name) == id)?;
        Some((topic(found.0), *found.1))
    }

    fn group_config(&self, _group_id: &str, _name: &str) -> Option<i64> {
        None
    }

    fn for_each_name(&self, each: &mut dyn FnMut(&str)) {
        self.1.keys().for_each(|name| each(name));
    }
}

fn id_of(name: &str) -> Uuid {
    Uuid::from_u128(name.bytes().fold(0, |id, byte| id * 256 + u128::from(byte)))
}

fn modern_settings() -> GroupSettings {
    let consumer = ConsumerSettings { assignment_interval_ms: 0, ..ConsumerSettings::default() };
    GroupSettings { consumer, ..settings() }
}

fn modern_bench() -> Bench {
    let mut bench = Bench::new(modern_settings());
    bench.set_topics(1, &[("orders", 4), ("audit", 2)]);
    bench
}

fn blank(member_id: &str, member_epoch: i32) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        group_id: GROUP.to_owned(),
        member_id: member_id.to_owned(),
        member_epoch,
        instance_id: None,
        rack_id: None,
        rebalance_timeout_ms: None,
        topics: None,
        topic_regex: None,
        assignor: None,
        owned: None,
        client_id: "app".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
    }
}

fn joining(member_id: &str) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        rebalance_timeout_ms: Some(30_000),
        topics: Some(vec!["orders".to_owned()]),
        owned: Some(BTreeMap::new()),
        ..blank(member_id, 0)
    }
}

fn owning(member_id: &str, epoch: i32, partitions: &[PartitionIndex]) -> ConsumerHeartbeat {
    let owned = BTreeMap::from([(id_of("orders"), partitions.iter().copied().collect())]);
    ConsumerHeartbeat { owned: Some(owned), ..blank(member_id, epoch) }
}

impl Bench {
    fn set_topics(&mut self, version: u64, topics: &[(&str, PartitionIndex)]) {
        let topics = topics.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        self.coordinator.set_topics(Arc::new(Topics(version, topics)));
    }

    fn reload_with_topics(&mut self) {
        let topics = self.coordinator.topics.clone();
        self.reload();
        self.coordinator.set_topics(topics);
    }

    fn beat(&mut self, heartbeat: ConsumerHeartbeat) -> ConsumerHeartbeatReply {
        match self.ask(GroupRequest::ConsumerHeartbeat(heartbeat)) {
            GroupReply::ConsumerHeartbeat(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    fn refused(&mut self, heartbeat: ConsumerHeartbeat) -> GroupError {
        self.beat(heartbeat).error.unwrap()
    }

    fn modern_state(&mut self) -> ModernGroupState {
        let describe = DescribeModernGroup { group_id: GROUP.to_owned() };
        match self.ask(GroupRequest::DescribeConsumer(describe)) {
            GroupReply::DescribeConsumer(described) => described.state,
            other => panic!("{other:?}"),
        }
    }
}

/// The epoch and, if it was told, what the member may have of "orders".
fn told(reply: &ConsumerHeartbeatReply) -> (i32, Option<Vec<PartitionIndex>>) {
    assert_eq!(reply.error, None);
    let of_orders = |assignment: &crate::model::group::TopicPartitions| {
        assignment.get(&id_of("orders")).into_iter().flatten().copied().collect()
    };
    (reply.member_epoch, reply.assignment.as_ref().map(of_orders))
}

#[test]
fn a_member_gives_partitions_up_before_another_gets_them() {
    let mut bench = modern_bench();
    assert_eq!(told(&bench.beat(joining("a"))), (1, Some(vec![0, 1, 2, 3])));
    assert_eq!(told(&bench.beat(joining("b"))), (2, Some(vec![])));
    let kept = told(&bench.beat(owning("a", 1, &[0, 1, 2, 3])));
    assert_eq!(kept, (1, Some(vec![0, 1])), "it stays in its epoch until it has given up the rest");
    assert_eq!(told(&bench.beat(blank("b", 2))), (2, None));
    assert_eq!(bench.modern_state(), ModernGroupState::Reconciling);
    assert_eq!(told(&bench.beat(owning("a", 1, &[0, 1]))), (2, None));
    assert_eq!(told(&bench.beat(blank("b", 2))), (2, Some(vec![2, 3])));
    assert_eq!(bench.modern_state(), ModernGroupState::Stable);
}

#[test]
fn a_wrong_epoch_is_fenced_but_the_one_before_a_lost_reply_is_not() {
    let mut bench = modern_bench();
    bench.beat(joining("a"));
    assert_eq!(bench.refused(blank("a", 2)), GroupError::FencedMemberEpoch);
    assert_eq!(bench.refused(blank("nobody", 1)), GroupError::UnknownMemberId);
    bench.set_topics(2, &[("orders", 5)]);
    assert_eq!(told(&bench.beat(blank("a", 1))).0, 2);
    assert_eq!(told(&bench.beat(owning("a", 1, &[0, 1]))).0, 2, "the reply may have been lost");
    assert_eq!(bench.refused(blank("a", 1)), GroupError::FencedMemberEpoch);
    assert_eq!(bench.refused(owning("a", 1, &[7])), GroupError::FencedMemberEpoch);
    assert_eq!(told(&bench.beat(joining("a"))), (2, Some(vec![0, 1, 2, 3, 4])));
}

#[test]
fn silence_and_slow_revocation_end_a_membership() {
    let mut bench = modern_bench();
    bench.beat(joining("a"));
    bench.beat(joining("b"));
    bench.beat(owning("a", 1, &[0, 1, 2, 3]));
    for _ in 0..2 {
        bench.pass(10_000);
        bench.beat(blank("b", 2));
        bench.beat(owning("a", 1, &[0, 1, 2, 3]));
    }
    bench.pass(10_000);
    assert_eq!(bench.refused(blank("a", 1)), GroupError::UnknownMemberId, "it kept what was taken from it");
    assert_eq!(told(&bench.beat(blank("b", 2))), (3, Some(vec![0, 1, 2, 3])));
    bench.pass(46_000);
    assert_eq!(bench.modern_state(), ModernGroupState::Empty);
}

#[test]
fn a_static_member_that_leaves_for_a_while_keeps_its_place_for_its_successor() {
    let mut bench = modern_bench();
    let named = |heartbeat| ConsumerHeartbeat { instance_id: Some("i".to_owned()), ..heartbeat };
    bench.beat(named(joining("a")));
    assert_eq!(bench.refused(named(joining("b"))), GroupError::UnreleasedInstanceId);
    bench.beat(named(blank("a", -2)));
    bench.reload_with_topics();
    assert_eq!(told(&bench.beat(named(joining("b")))), (1, Some(vec![0, 1, 2, 3])), "nothing moved");
    assert_eq!(bench.refused(named(blank("a", 1))), GroupError::FencedInstanceId);
    assert_eq!(bench.refused(blank("a", 1)), GroupError::UnknownMemberId);
}

#[test]
fn what_could_not_be_stored_is_refused_and_stored_with_the_next_heartbeat() {
    let mut bench = modern_bench();
    bench.beat(joining("a"));
    bench.hold_appends();
    let lost = bench.send(GroupRequest::ConsumerHeartbeat(joining("b")));
    let waiting = bench.send(GroupRequest::ConsumerHeartbeat(owning("a", 1, &[0, 1, 2, 3])));
    assert!(bench.is_waiting(lost) && bench.is_waiting(waiting));
    bench.fail_appends();
    match bench.reply(lost) {
        GroupReply::ConsumerHeartbeat(reply) => {
            assert_eq!(reply.error, Some(GroupError::CoordinatorNotAvailable))
        }
        other => panic!("{other:?}"),
    }
    // What came meanwhile had its own try, with all that was missing.
    bench.end_appends();
    match bench.reply(waiting) {
        GroupReply::ConsumerHeartbeat(reply) => assert_eq!(told(&reply), (1, Some(vec![0, 1]))),
        other => panic!("{other:?}"),
    }
    bench.reload_with_topics();
    assert_eq!(told(&bench.beat(owning("a", 1, &[0, 1]))).0, 2);
    assert_eq!(told(&bench.beat(joining("b"))), (2, Some(vec![2, 3])));
}

#[test]
fn expressions_find_topics_and_new_ones_as_they_come() {
    let mut bench = modern_bench();
    let by = |regex: &str| ConsumerHeartbeat {
        topics: Some(Vec::new()),
        topic_regex: Some(regex.to_owned()),
        ..joining("a")
    };
    assert_eq!(bench.refused(by("ord[")), GroupError::InvalidRegularExpression);
    assert_eq!(bench.coordinator.group_count(), 0);
    assert_eq!(told(&bench.beat(by("ord.*"))), (1, Some(vec![0, 1, 2, 3])));
    bench.set_topics(2, &[("orders", 4), ("ordinary", 1)]);
    bench.pass(5_000);
    let reply = bench.beat(blank("a", 1));
    assert_eq!(reply.assignment.unwrap().keys().count(), 2);
    bench.reload_with_topics();
    assert_eq!(told(&bench.beat(blank("a", 2))), (2, None), "nothing new after a restart");
}

#[test]
fn commits_and_fetches_must_carry_an_epoch_that_fits() {
    let mut bench = modern_bench();
    bench.beat(joining("a"));
    let from = |member: &str, epoch| OffsetCommit {
        generation_id: epoch,
        member_id: member.to_owned(),
        ..commit_request(7)
    };
    for (member, epoch, error) in [
        ("", -1, Some(GroupError::UnknownMemberId)),
        ("b", 1, Some(GroupError::UnknownMemberId)),
        ("a", 2, Some(GroupError::StaleMemberEpoch)),
        ("a", 1, None),
    ] {
        let token = bench.commit(from(member, epoch));
        assert_eq!(bench.committed(token), error, "{member} in {epoch}");
    }
    // The member has had orders-0 since epoch 1, so an old epoch of its own will do (KIP-1251).
    bench.set_topics(2, &[("orders", 5)]);
    bench.beat(blank("a", 1));
    let token = bench.commit(from("a", 1));
    assert_eq!(bench.committed(token), None);
    let token = bench.commit(from("a", 0));
    assert_eq!(bench.committed(token), Some(GroupError::StaleMemberEpoch));
    assert_eq!(bench.fetch(), 7);
}

#[test]
fn each_describe_knows_only_its_own_type_and_a_listing_knows_all() {
    let mut bench = modern_bench();
    bench.beat(joining("a"));
    let described = bench.describe();
    assert_eq!((described.error, described.is_of_other_type), (Some(GroupError::GroupIdNotFound), true));
    let list = |types: &[&str], states: &[&str]| ListGroups {
        states: states.iter().map(|it| (*it).to_owned()).collect(),
        types: types.iter().map(|it| (*it).to_owned()).collect(),
    };
    for (types, states, count) in
        [(&["Consumer"][..], &[][..], 1), (&["classic"], &[], 0), (&[], &["stable"], 1), (&[], &["empty"], 0)]
    {
        assert_eq!(bench.coordinator.list(&list(types, states)).groups.len(), count, "{types:?} {states:?}");
    }
}

/// A consumer's subscription to orders that has these partitions (version 1).
fn subscription_owning(partitions: &[PartitionIndex]) -> Bytes {
    let mut bytes = vec![0, 1, 0, 0, 0, 1, 0, 6];
    bytes.extend_from_slice(b"orders");
    bytes.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 6]);
    bytes.extend_from_slice(b"orders");
    put_partitions(&mut bytes, partitions);
    bytes.into()
}

/// An assignment of partitions of orders (version 1).
fn assignment_of(partitions: &[PartitionIndex]) -> Bytes {
    let mut bytes = vec![0, 1, 0, 0, 0, 1, 0, 6];
    bytes.extend_from_slice(b"orders");
    put_partitions(&mut bytes, partitions);
    bytes.extend_from_slice(&[0xff, 0xff, 0xff, 0xff]);
    bytes.into()
}

fn put_partitions(bytes: &mut Vec<u8>, partitions: &[PartitionIndex]) {
    bytes.extend_from_slice(&u32::try_from(partitions.len()).unwrap().to_be_bytes());
    partitions.iter().for_each(|partition| bytes.extend_from_slice(&partition.to_be_bytes()));
}

fn classic_join(member_id: &str, owned: &[PartitionIndex]) -> JoinGroup {
    let metadata = subscription_owning(owned);
    let protocols = vec![MemberProtocol { name: "range".to_owned(), metadata }];
    JoinGroup { protocols, ..rejoin_request(member_id) }
}

impl Bench {
    fn sync_all(&mut self, member_id: &str, generation_id: i32, assignment: Option<Bytes>) -> SyncGroupReply {
        let assignments = assignment.into_iter().map(|bytes| (member_id.to_owned(), bytes)).collect();
        let reply = self.ask(GroupRequest::Sync(SyncGroup {
            group_id: GROUP.to_owned(),
            generation_id,
            member_id: member_id.to_owned(),
            group_instance_id: None,
            protocol_type: Some("consumer".to_owned()),
            protocol_name: Some("range".to_owned()),
            assignments,
        }));
        match reply {
            GroupReply::Sync(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    /// A classic group of one member that has all of orders; its id.
    fn classic_owner(&mut self) -> String {
        let token = self.join(classic_join("", &[]));
        let member = self.joined(token).member_id;
        self.sync_all(&member, 1, Some(assignment_of(&[0, 1, 2, 3])));
        member
    }
}

#[test]
fn a_group_becomes_a_consumer_group_and_a_classic_one_again_while_its_members_live() {
    let mut bench = modern_bench();
    let old = bench.classic_owner();
    assert_eq!(told(&bench.beat(joining("new"))), (2, Some(vec![])));
    bench.reload_with_topics();
    // The old member learns by a heartbeat that it shall join again, and gives up by joining.
    assert_eq!(bench.heartbeat(&old, 1), Some(GroupError::RebalanceInProgress));
    let token = bench.join(classic_join(&old, &[0, 1, 2, 3]));
    let joined = bench.joined(token);
    assert_eq!((joined.error, joined.generation_id, joined.leader.as_str()), (None, 1, ""));
    assert_eq!(bench.sync_all(&old, 1, None).assignment, assignment_of(&[0, 1]));
    assert_eq!(
        bench.heartbeat(&old, 1),
        Some(GroupError::RebalanceInProgress),
        "it has still to give up the rest"
    );
    let token = bench.join(classic_join(&old, &[0, 1]));
    assert_eq!(bench.joined(token).generation_id, 2);
    assert_eq!(bench.sync_all(&old, 2, None).assignment, assignment_of(&[0, 1]));
    assert_eq!(bench.heartbeat(&old, 2), None);
    assert_eq!(told(&bench.beat(blank("new", 2))), (2, Some(vec![2, 3])));

    bench.beat(blank("new", -1));
    bench.reload_with_topics();
    assert_eq!(bench.state(), GroupState::Stable);
    let token = bench.join(classic_join(&old, &[0, 1]));
    let joined = bench.joined(token);
    assert_eq!((joined.generation_id, joined.leader), (3, old.clone()), "it leads, and assigns");
    bench.sync_all(&old, 3, Some(assignment_of(&[0, 1, 2, 3])));
    assert_eq!(bench.heartbeat(&old, 3), None);
    assert_eq!(bench.modern_state(), ModernGroupState::Dead);
}

#[test]
fn migration_may_be_forbidden_and_custom_assignors_forbid_it() {
    let mut bench = modern_bench();
    let old = bench.classic_owner();
    bench.coordinator.settings.consumer.may_upgrade = false;
    assert_eq!(bench.refused(joining("new")), GroupError::GroupIdNotFound);
    bench.coordinator.settings.consumer.may_upgrade = true;
    let token = bench.join(classic_join(&old, &[0, 1, 2, 3]));
    let generation_id = bench.joined(token).generation_id;
    let mut with_user_data = assignment_of(&[0, 1, 2, 3]).to_vec();
    with_user_data.truncate(with_user_data.len() - 4);
    with_user_data.extend_from_slice(&[0, 0, 0, 1, 42]);
    bench.sync_all(&old, generation_id, Some(with_user_data.into()));
    assert_eq!(bench.refused(joining("new")), GroupError::GroupIdNotFound);
    assert_eq!(bench.heartbeat(&old, generation_id), None, "nothing has changed for it");
}

#[test]
fn a_group_without_members_changes_its_protocol_and_keeps_its_offsets() {
    let mut bench = modern_bench();
    let token = bench.commit(commit_request(5));
    assert_eq!(bench.committed(token), None);
    bench.beat(joining("a"));
    bench.beat(blank("a", -1));
    let old = bench.classic_owner();
    bench.reload_with_topics();
    assert_eq!((bench.state(), bench.fetch()), (GroupState::Stable, 5));
    bench.leave(&[(&old, None)]);
    bench.beat(joining("b"));
    assert_eq!((bench.modern_state(), bench.fetch()), (ModernGroupState::Stable, 5));
    bench.beat(blank("b", -1));
    assert_eq!(
        bench.ask(GroupRequest::Delete(crate::model::group::DeleteGroup { group_id: GROUP.to_owned() })),
        GroupReply::Delete(crate::model::group::DeleteGroupReply { error: None })
    );
    bench.reload_with_topics();
    assert_eq!(bench.coordinator.group_count(), 0);
}

#[test]
fn a_share_group_without_members_outlives_a_reload_until_it_is_deleted() {
    let mut bench = modern_bench();
    let named = || DescribeModernGroup { group_id: GROUP.to_owned() };
    let state = |bench: &mut Bench, request| match bench.ask(request) {
        GroupReply::DescribeConsumer(described) => described.error.map_or(Ok(described.state), Err),
        other => panic!("{other:?}"),
    };
    let missing = Err(GroupError::GroupIdNotFound);
    assert_eq!(state(&mut bench, GroupRequest::DescribeShare(named())), missing);
    bench.hold_appends();
    let token = bench.send(GroupRequest::EnsureShare(named()));
    assert!(bench.is_waiting(token), "a group is told of before it is stored");
    bench.end_appends();
    bench.reload_with_topics();
    assert_eq!(state(&mut bench, GroupRequest::EnsureShare(named())), Ok(ModernGroupState::Empty));
    assert_eq!(state(&mut bench, GroupRequest::DescribeConsumer(named())), missing);
    bench.ask(GroupRequest::Delete(crate::model::group::DeleteGroup { group_id: GROUP.to_owned() }));
    assert_eq!(state(&mut bench, GroupRequest::DescribeShare(named())), missing);
    bench.reload_with_topics();
    assert_eq!(state(&mut bench, GroupRequest::DescribeShare(named())), missing);
    bench.beat(joining("a"));
    assert_eq!(state(&mut bench, GroupRequest::EnsureShare(named())), missing, "it is a consumer group now");
}
