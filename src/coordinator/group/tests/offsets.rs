//! Commits, fetches, deletions, transactions and retention of offsets.

use crate::model::group::{CommitPartition, DeleteGroup, GroupRequest, ListGroups, OffsetDelete};

use super::*;

const WEEK_MS: i64 = 7 * 24 * 60 * 60 * 1_000;

fn member_commit(member_id: &str, generation_id: i32, offset: Offset) -> OffsetCommit {
    OffsetCommit { member_id: member_id.to_owned(), generation_id, ..commit_request(offset) }
}

fn transactional_commit(producer_id: ProducerId, offset: Offset) -> OffsetCommit {
    OffsetCommit { producer: Some((producer_id, 0)), ..commit_request(offset) }
}

fn delete_orders(bench: &mut Bench) -> Result<Option<GroupError>, GroupError> {
    let topics = vec![ByTopic { topic: topic("orders"), topic_id: None, partitions: vec![0] }];
    match bench.ask(GroupRequest::OffsetDelete(OffsetDelete { group_id: GROUP.to_owned(), topics })) {
        GroupReply::OffsetDelete(reply) => {
            reply.error.map_or(Ok(()), Err).map(|()| reply.topics[0].partitions[0].error)
        }
        other => panic!("{other:?}"),
    }
}

fn delete_group(bench: &mut Bench) -> ReplyToken {
    bench.send(GroupRequest::Delete(DeleteGroup { group_id: GROUP.to_owned() }))
}

fn deleted(bench: &mut Bench, token: ReplyToken) -> Option<GroupError> {
    match bench.reply(token) {
        GroupReply::Delete(reply) => reply.error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_offset_is_visible_only_once_it_is_stored() {
    let mut bench = Bench::new(settings());
    bench.hold_appends();
    let commit = bench.commit(commit_request(42));
    assert!(bench.is_waiting(commit));
    assert_eq!(bench.fetch(), -1);
    bench.end_appends();
    assert_eq!(bench.committed(commit), None);
    assert_eq!(bench.fetch(), 42);
}

#[test]
fn an_offset_that_cannot_be_stored_never_shows() {
    let mut bench = Bench::new(settings());
    bench.hold_appends();
    let commit = bench.commit(commit_request(42));
    bench.fail_appends();
    assert_eq!(bench.committed(commit), Some(GroupError::CoordinatorNotAvailable));
    assert_eq!(bench.fetch(), -1);
    assert_eq!(bench.coordinator.group_count(), 0);
}

#[test]
fn a_stable_fetch_waits_for_commits_under_way() {
    let mut bench = Bench::new(settings());
    bench.hold_appends();
    bench.commit(commit_request(42));
    let fetch = bench.fetch_token(true);
    assert!(bench.is_waiting(fetch));
    bench.end_appends();
    assert_eq!(bench.fetched(fetch), Ok(42));
    bench.hold_appends();
    bench.commit(commit_request(43));
    let fetch = bench.fetch_token(true);
    bench.fail_appends();
    assert_eq!(bench.fetched(fetch), Ok(42));
}

#[test]
fn appends_take_effect_in_their_order_whatever_the_order_of_reports() {
    let mut bench = Bench::new(settings());
    bench.hold_appends();
    let first = bench.commit(commit_request(1));
    let second = bench.commit(commit_request(2));
    bench.held.reverse();
    let (append, records) = bench.held.remove(0);
    let effects = bench.coordinator.appended(append, bench.now_ms);
    assert!(effects.is_empty(), "the first commit is not stored yet");
    bench.end_appends();
    bench.log.extend(records);
    assert_eq!((bench.committed(first), bench.committed(second)), (None, None));
    assert_eq!(bench.fetch(), 2);
}

#[test]
fn a_simple_consumer_makes_a_group_without_a_protocol() {
    let mut bench = Bench::new(settings());
    let commit = bench.commit(commit_request(42));
    assert_eq!(bench.committed(commit), None);
    let described = bench.describe();
    assert_eq!((described.state, described.protocol_type.as_str()), (GroupState::Empty, ""));
    let GroupReply::List(listed) = bench.ask(GroupRequest::List(ListGroups::default())) else { panic!() };
    assert_eq!((listed.groups.len(), listed.groups[0].group_type), (1, "classic"));
}

#[test]
fn commits_are_checked_against_the_group() {
    let mut bench = Bench::new(settings());
    let token = bench.commit(member_commit("anyone", 3, 1));
    assert_eq!(bench.committed(token), Some(GroupError::IllegalGeneration), "no such group");
    let leader = bench.stable_leader();
    let expected = [
        (member_commit(&leader, 1, 1), None),
        (member_commit(&leader, 2, 1), Some(GroupError::IllegalGeneration)),
        (member_commit("anyone", 1, 1), Some(GroupError::UnknownMemberId)),
        (commit_request(1), Some(GroupError::UnknownMemberId)),
        (
            OffsetCommit { group_instance_id: Some("i".to_owned()), ..commit_request(1) },
            Some(GroupError::UnknownMemberId),
        ),
    ];
    for (request, error) in expected {
        let token = bench.commit(request);
        assert_eq!(bench.committed(token), error);
    }
}

#[test]
fn a_member_may_commit_before_it_rejoins_but_not_before_it_has_its_assignment() {
    let mut bench = Bench::new(settings());
    let (leader, follower) = bench.stable_pair();
    let rejoin = bench.join(rejoin_request(&leader));
    let token = bench.commit(member_commit(&follower, 2, 10));
    assert_eq!(bench.committed(token), None);
    bench.join(rejoin_request(&follower));
    assert_eq!(bench.joined(rejoin).generation_id, 3);
    let token = bench.commit(member_commit(&follower, 3, 11));
    assert_eq!(bench.committed(token), Some(GroupError::RebalanceInProgress));
    assert_eq!(bench.fetch(), 10);
}

#[test]
fn a_commit_keeps_the_session_alive() {
    let mut bench = Bench::new(settings());
    let leader = bench.stable_leader();
    for offset in 0..10 {
        bench.pass(SESSION_MS - 1);
        let token = bench.commit(member_commit(&leader, 1, offset));
        assert_eq!(bench.committed(token), None);
    }
}

#[test]
fn a_note_that_is_too_long_is_refused_and_the_other_partitions_stored() {
    let mut bench = Bench::new(GroupSettings { offset_metadata_max_bytes: 4, ..settings() });
    let mut request = commit_request(1);
    let mut long: CommitPartition = request.topics[0].partitions[0].clone();
    long.partition = 1;
    long.metadata = Some("12345".to_owned());
    request.topics[0].partitions.push(long);
    let topic_id = Some(Uuid::from_u128(7));
    request.topics[0].topic_id = topic_id;
    let token = bench.commit(request);
    let GroupReply::OffsetCommit(reply) = bench.reply(token) else { panic!() };
    assert_eq!(reply.topics[0].topic_id, topic_id);
    assert_eq!(reply.topics[0].partitions[0].error, None);
    assert_eq!(reply.topics[0].partitions[1].error, Some(GroupError::OffsetMetadataTooLarge));
    assert_eq!(bench.log.len(), 1);
}

#[test]
fn a_fetch_of_everything_lists_what_was_committed() {
    let mut bench = Bench::new(settings());
    let mut request = commit_request(5);
    request.topics[0].partitions[0].metadata = Some("note".to_owned());
    bench.commit(request);
    let fetch = OffsetFetch {
        group_id: GROUP.to_owned(),
        member_id: None,
        member_epoch: -1,
        topics: None,
        require_stable: false,
    };
    let GroupReply::OffsetFetch(reply) = bench.ask(GroupRequest::OffsetFetch(fetch)) else { panic!() };
    assert_eq!(reply.topics.len(), 1);
    let fetched = &reply.topics[0].partitions[0];
    assert_eq!((fetched.offset, fetched.leader_epoch, fetched.metadata.as_str()), (5, 3, "note"));
}

#[test]
fn offsets_of_a_transaction_count_when_it_commits() {
    let mut bench = Bench::new(settings());
    bench.commit(commit_request(5));
    let token = bench.commit(transactional_commit(77, 9));
    assert_eq!(bench.committed(token), None);
    let stable = bench.fetch_token(true);
    assert_eq!(bench.fetched(stable), Err(GroupError::UnstableOffsetCommit));
    assert_eq!(bench.fetch(), 5);
    assert!(bench.coordinator.has_open_transactions());
    bench.coordinator.end_transaction(77, true, bench.now_ms);
    assert_eq!(bench.fetch(), 9);
    assert!(!bench.coordinator.has_open_transactions());
}

#[test]
fn offsets_of_an_aborted_transaction_are_dropped() {
    let mut bench = Bench::new(settings());
    bench.commit(transactional_commit(77, 9));
    bench.coordinator.end_transaction(77, false, bench.now_ms);
    assert_eq!(bench.fetch(), -1);
    assert_eq!(bench.coordinator.group_count(), 0);
}

#[test]
fn a_transactional_commit_is_undecided_from_the_moment_it_is_sent() {
    let mut bench = Bench::new(settings());
    bench.commit(commit_request(5));
    bench.hold_appends();
    let commit = bench.commit(transactional_commit(77, 9));
    bench.fail_appends();
    assert_eq!(bench.committed(commit), Some(GroupError::CoordinatorNotAvailable));
    let stable = bench.fetch_token(true);
    assert_eq!(bench.fetched(stable), Ok(5));
    assert!(!bench.coordinator.has_open_transactions());
}

#[test]
fn a_transaction_does_not_overwrite_what_was_committed_after_it() {
    let mut bench = Bench::new(settings());
    bench.commit(transactional_commit(77, 9));
    bench.commit(commit_request(12));
    bench.coordinator.end_transaction(77, true, bench.now_ms);
    assert_eq!(bench.fetch(), 12);
}

#[test]
fn the_end_of_a_transaction_takes_its_place_among_the_appends() {
    let mut bench = Bench::new(settings());
    bench.hold_appends();
    let commit = bench.commit(transactional_commit(77, 9));
    let marker = bench.coordinator.ending_transaction(77, true);
    assert!(
        bench.coordinator.appended(marker, bench.now_ms).is_empty(),
        "what lies before it is not there yet"
    );
    assert_eq!(bench.fetch(), -1);
    bench.end_appends();
    assert_eq!(bench.committed(commit), None);
    assert_eq!(bench.fetch(), 9);
    assert!(!bench.coordinator.has_open_transactions());
}

#[test]
fn the_effects_of_a_transactional_commit_name_the_producer() {
    let mut bench = Bench::new(settings());
    let request = GroupRequest::OffsetCommit(transactional_commit(77, 9));
    let effects = bench.coordinator.handle(ReplyToken(0), request, START_MS);
    assert_eq!(effects.producer, Some((77, 0)));
    assert_eq!(effects.records.len(), 1);
}

#[test]
fn offsets_of_subscribed_topics_cannot_be_deleted() {
    let mut bench = Bench::new(settings());
    assert_eq!(delete_orders(&mut bench), Err(GroupError::GroupIdNotFound));
    let leader = bench.stable_leader();
    bench.commit(member_commit(&leader, 1, 5));
    assert_eq!(delete_orders(&mut bench), Ok(Some(GroupError::GroupSubscribedToTopic)));
    bench.leave(&[(&leader, None)]);
    assert_eq!(delete_orders(&mut bench), Ok(None));
    assert_eq!(bench.fetch(), -1);
    assert_eq!(delete_orders(&mut bench), Ok(None), "nothing to delete is no error");
}

#[test]
fn offsets_of_a_group_with_members_of_another_type_cannot_be_deleted() {
    let mut bench = Bench::new(settings());
    let token = bench.join(JoinGroup { protocol_type: "connect".to_owned(), ..join_request() });
    assert_eq!(bench.joined(token).error, None);
    assert_eq!(delete_orders(&mut bench), Err(GroupError::NonEmptyGroup));
}

#[test]
fn a_group_is_deleted_with_its_offsets_once_it_is_empty() {
    let mut bench = Bench::new(settings());
    let token = delete_group(&mut bench);
    assert_eq!(deleted(&mut bench, token), Some(GroupError::GroupIdNotFound));
    let leader = bench.stable_leader();
    bench.commit(member_commit(&leader, 1, 5));
    let token = delete_group(&mut bench);
    assert_eq!(deleted(&mut bench, token), Some(GroupError::NonEmptyGroup));
    bench.leave(&[(&leader, None)]);
    let token = delete_group(&mut bench);
    assert_eq!(deleted(&mut bench, token), None);
    assert_eq!(bench.describe().error, Some(GroupError::GroupIdNotFound));
    assert_eq!(bench.state(), GroupState::Dead);
    bench.reload();
    assert_eq!(bench.coordinator.group_count(), 0);
}

#[test]
fn a_deletion_takes_commits_along_that_are_still_under_way() {
    let mut bench = Bench::new(settings());
    bench.hold_appends();
    bench.commit(commit_request(5));
    let token = delete_group(&mut bench);
    bench.end_appends();
    assert_eq!(deleted(&mut bench, token), None);
    assert_eq!(bench.coordinator.group_count(), 0);
    bench.reload();
    assert_eq!(bench.coordinator.group_count(), 0);
}

#[test]
fn a_deletion_that_cannot_be_stored_deletes_nothing() {
    let mut bench = Bench::new(settings());
    bench.commit(commit_request(5));
    bench.hold_appends();
    let token = delete_group(&mut bench);
    bench.fail_appends();
    assert_eq!(deleted(&mut bench, token), Some(GroupError::CoordinatorNotAvailable));
    assert_eq!(bench.fetch(), 5);
}

#[test]
fn a_group_that_is_joined_while_its_deletion_is_stored_lives_on() {
    let mut bench = Bench::new(settings());
    let leader = bench.stable_leader();
    bench.leave(&[(&leader, None)]);
    bench.hold_appends();
    let token = delete_group(&mut bench);
    let join = bench.join(join_request());
    bench.end_appends();
    assert_eq!(deleted(&mut bench, token), None);
    assert_eq!(bench.joined(join).generation_id, 3);
}

#[test]
fn a_deleted_topic_takes_its_offsets_along() {
    let mut bench = Bench::new(settings());
    bench.commit(commit_request(5));
    let mut other = commit_request(6);
    other.topics[0].topic = topic("payments");
    bench.commit(other);
    let effects = bench.coordinator.topic_deleted(&topic("orders"), bench.now_ms);
    assert_eq!(effects.records.len(), 1);
    bench.carry_out(effects);
    assert_eq!(bench.fetch(), -1);
    assert_eq!(bench.coordinator.snapshot().count(), 1);
}

#[test]
fn offsets_of_a_simple_consumer_expire_after_their_last_commit() {
    let mut bench = Bench::new(settings());
    bench.commit(commit_request(5));
    bench.pass(WEEK_MS / 2);
    bench.commit(commit_request(6));
    bench.pass(WEEK_MS - 1);
    assert_eq!(bench.fetch(), 6);
    bench.pass(1);
    assert_eq!(bench.fetch(), -1);
    assert_eq!(bench.coordinator.group_count(), 0);
    assert_eq!(bench.log.last().unwrap().value, None);
    assert_eq!(bench.coordinator.next_deadline_ms(), None);
}

#[test]
fn offsets_of_a_group_expire_after_it_became_empty() {
    let mut bench = Bench::new(settings());
    let leader = bench.stable_leader();
    bench.commit(member_commit(&leader, 1, 5));
    for _ in 0..2 * WEEK_MS / (SESSION_MS * 100) {
        for _ in 0..101 {
            bench.now_ms += SESSION_MS - 1;
            assert_eq!(bench.heartbeat(&leader, 1), None);
        }
        bench.pass(0);
    }
    bench.leave(&[(&leader, None)]);
    bench.pass(WEEK_MS - 1);
    assert_eq!(bench.fetch(), 5);
    bench.pass(1);
    assert_eq!(bench.fetch(), -1);
    bench.pass(retention::RETENTION_CHECK_MS);
    assert_eq!(bench.coordinator.group_count(), 0);
}

#[test]
fn offsets_of_topics_that_nobody_reads_any_more_expire_in_a_stable_group() {
    let mut bench = Bench::new(GroupSettings { offsets_retention_ms: 60_000, ..settings() });
    let leader = bench.stable_leader();
    let mut unread = member_commit(&leader, 1, 5);
    unread.topics[0].topic = topic("payments");
    bench.commit(unread);
    bench.commit(member_commit(&leader, 1, 6));
    for _ in 0..2 * retention::RETENTION_CHECK_MS / 5_000 {
        bench.pass(5_000);
        assert_eq!(bench.heartbeat(&leader, 1), None);
    }
    assert_eq!(bench.fetch(), 6);
    assert_eq!(bench.coordinator.snapshot().count(), 2, "the group and orders-0");
}

#[test]
fn an_offset_with_a_retention_of_its_own_goes_by_that() {
    let mut bench = Bench::new(settings());
    bench.commit(OffsetCommit { retention_time_ms: 3_600_000, ..commit_request(5) });
    bench.reload();
    bench.pass(3_599_999);
    assert_eq!(bench.fetch(), 5);
    bench.pass(retention::RETENTION_CHECK_MS + 1);
    assert_eq!(bench.fetch(), -1);
}

#[test]
fn tombstones_that_fail_are_tried_again() {
    let mut bench = Bench::new(settings());
    bench.commit(commit_request(5));
    bench.hold_appends();
    bench.pass(WEEK_MS);
    bench.fail_appends();
    assert_eq!(bench.fetch(), 5);
    bench.pass(retention::RETENTION_CHECK_MS);
    assert_eq!(bench.fetch(), -1);
}

#[test]
fn an_empty_group_without_offsets_goes_after_a_while() {
    let mut bench = Bench::new(settings());
    let leader = bench.stable_leader();
    bench.leave(&[(&leader, None)]);
    bench.pass(retention::RETENTION_CHECK_MS);
    assert_eq!(bench.coordinator.group_count(), 0);
    assert_eq!(bench.coordinator.next_deadline_ms(), None);
    bench.reload();
    assert_eq!(bench.coordinator.group_count(), 0);
}

#[test]
fn groups_are_listed_by_state_and_type_in_any_case() {
    let mut bench = Bench::new(settings());
    bench.stable_leader();
    let mut count = |states: &[&str], types: &[&str]| {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let list = ListGroups { states: own(states), types: own(types) };
        match bench.ask(GroupRequest::List(list)) {
            GroupReply::List(reply) => reply.groups.len(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(count(&[], &[]), 1);
    assert_eq!(count(&["empty", " STABLE"], &["Classic"]), 1);
    assert_eq!(count(&["Empty"], &[]), 0);
    assert_eq!(count(&[], &["consumer"]), 0);
}

#[test]
fn a_stable_group_is_described_with_metadata_and_assignments() {
    let mut bench = Bench::new(settings());
    let (leader, _) = bench.stable_pair();
    let described = bench.describe();
    assert_eq!((described.state, described.protocol_name.as_str()), (GroupState::Stable, "range"));
    let member = described.members.iter().find(|member| member.member_id == leader).unwrap();
    assert_eq!((member.client_id.as_str(), member.client_host.as_str()), ("app", "/127.0.0.1"));
    assert_eq!((&member.metadata, &member.assignment[..]), (&subscription("orders"), &b"left"[..]));
    bench.join(rejoin_request(&leader));
    let described = bench.describe();
    assert_eq!((described.state, described.protocol_name.as_str()), (GroupState::PreparingRebalance, ""));
    assert!(described.members[0].metadata.is_empty());
}
