//! SyncGroup, Heartbeat, LeaveGroup and sessions.

use super::*;

#[test]
fn an_assignment_is_handed_out_only_once_it_is_stored() {
    let mut bench = Bench::new(settings());
    let token = bench.join(join_request());
    let leader = bench.joined(token).member_id;
    bench.hold_appends();
    let token = bench.sync(&leader, 1, &[(&leader, "all")]);
    assert!(bench.is_waiting(token));
    assert_eq!(bench.state(), GroupState::CompletingRebalance);
    bench.end_appends();
    assert_eq!(bench.synced(token).assignment, "all");
    assert_eq!(bench.state(), GroupState::Stable);
}

#[test]
fn an_assignment_that_cannot_be_stored_makes_everybody_rejoin() {
    let mut bench = Bench::new(settings());
    let token = bench.join(join_request());
    let leader = bench.joined(token).member_id;
    bench.hold_appends();
    let token = bench.sync(&leader, 1, &[(&leader, "all")]);
    bench.fail_appends();
    assert_eq!(bench.synced(token).error, Some(GroupError::CoordinatorNotAvailable));
    assert_eq!(bench.state(), GroupState::PreparingRebalance);
    let token = bench.join(rejoin_request(&leader));
    assert_eq!(bench.joined(token).generation_id, 2);
}

#[test]
fn a_rebalance_while_the_assignment_is_being_stored_wins() {
    let mut bench = Bench::new(settings());
    let token = bench.join(join_request());
    let leader = bench.joined(token).member_id;
    bench.hold_appends();
    let sync = bench.sync(&leader, 1, &[(&leader, "all")]);
    let newcomer = bench.join(join_request());
    assert_eq!(bench.synced(sync).error, Some(GroupError::RebalanceInProgress));
    bench.end_appends();
    assert_eq!(bench.state(), GroupState::PreparingRebalance);
    assert!(bench.is_waiting(newcomer));
}

#[test]
fn a_leader_that_repeats_its_sync_does_not_change_what_is_stored() {
    let mut bench = Bench::new(settings());
    let token = bench.join(join_request());
    let leader = bench.joined(token).member_id;
    bench.hold_appends();
    let first = bench.sync(&leader, 1, &[(&leader, "first")]);
    let second = bench.sync(&leader, 1, &[(&leader, "second")]);
    assert_eq!(bench.synced(first).error, Some(GroupError::RebalanceInProgress));
    assert_eq!(bench.held.len(), 1);
    bench.end_appends();
    assert_eq!(bench.synced(second).assignment, "first");
}

#[test]
fn members_that_the_leader_forgot_get_an_empty_assignment_and_strangers_none() {
    let mut bench = Bench::new(settings());
    let (leader, follower) = bench.stable_pair();
    let rejoin = bench.join(rejoin_request(&leader));
    bench.join(rejoin_request(&follower));
    assert_eq!(bench.joined(rejoin).generation_id, 3);
    let follower_sync = bench.sync(&follower, 3, &[]);
    bench.sync(&leader, 3, &[("stranger", "all")]);
    let synced = bench.synced(follower_sync);
    assert_eq!((synced.error, synced.assignment.len()), (None, 0));
}

#[test]
fn a_sync_is_checked_against_member_generation_and_protocol() {
    let mut bench = Bench::new(settings());
    let token = bench.sync("anyone", 1, &[]);
    assert_eq!(bench.synced(token).error, Some(GroupError::UnknownMemberId));
    let leader = bench.stable_leader();
    let token = bench.sync("anyone", 1, &[]);
    assert_eq!(bench.synced(token).error, Some(GroupError::UnknownMemberId));
    let token = bench.sync(&leader, 7, &[]);
    assert_eq!(bench.synced(token).error, Some(GroupError::IllegalGeneration));
    let token = bench.send(GroupRequest::Sync(SyncGroup {
        group_id: GROUP.to_owned(),
        generation_id: 1,
        member_id: leader,
        group_instance_id: None,
        protocol_type: None,
        protocol_name: Some("sticky".to_owned()),
        assignments: vec![],
    }));
    assert_eq!(bench.synced(token).error, Some(GroupError::InconsistentGroupProtocol));
}

#[test]
fn members_that_never_sync_are_out_after_the_rebalance_timeout() {
    let mut bench = Bench::new(settings());
    let (leader, follower) = bench.stable_pair();
    let rejoin = bench.join(rejoin_request(&leader));
    bench.join(rejoin_request(&follower));
    assert_eq!(bench.joined(rejoin).generation_id, 3);
    bench.sync(&leader, 3, &[(&leader, "all")]);
    for _ in 0..REBALANCE_MS / 5_000 {
        let _ = bench.heartbeat(&leader, 3);
        let _ = bench.heartbeat(&follower, 3);
        bench.pass(5_000);
    }
    assert_eq!(bench.state(), GroupState::PreparingRebalance);
    assert_eq!(bench.heartbeat(&follower, 3), Some(GroupError::UnknownMemberId));
    assert_eq!(bench.heartbeat(&leader, 3), Some(GroupError::RebalanceInProgress));
}

#[test]
fn heartbeats_keep_a_member_and_silence_removes_it() {
    let mut bench = Bench::new(settings());
    let (leader, follower) = bench.stable_pair();
    for _ in 0..20 {
        bench.pass(SESSION_MS - 1);
        assert_eq!(bench.heartbeat(&leader, 2), None);
        assert_eq!(bench.heartbeat(&follower, 2), None);
    }
    bench.pass(SESSION_MS - 1);
    assert_eq!(bench.heartbeat(&leader, 2), None);
    bench.pass(1);
    assert_eq!(bench.heartbeat(&leader, 2), Some(GroupError::RebalanceInProgress));
    assert_eq!(bench.heartbeat(&follower, 2), Some(GroupError::UnknownMemberId));
    assert_eq!(bench.heartbeat(&leader, 1), Some(GroupError::IllegalGeneration));
}

#[test]
fn the_last_member_that_falls_silent_leaves_an_empty_group_that_is_stored() {
    let mut bench = Bench::new(settings());
    bench.stable_leader();
    bench.pass(SESSION_MS);
    assert_eq!(bench.state(), GroupState::Empty);
    let last = last_stored_group(&bench);
    assert_eq!((last.generation_id, last.members.len()), (2, 0));
    assert_eq!(last.protocol_type, "consumer");
}

fn last_stored_group(bench: &Bench) -> schema::GroupValue {
    let key = schema::group_key(GROUP);
    let record = bench.log.iter().rfind(|record| record.key == key).unwrap();
    schema::GroupValue::decode(record.value.as_ref().unwrap()).unwrap()
}

#[test]
fn a_newcomer_whose_join_waits_too_long_is_told_to_start_over() {
    let mut bench = Bench::new(settings());
    let leader = bench.stable_leader();
    let hour_ms = 3_600_000;
    let rejoin = bench.join(JoinGroup { rebalance_timeout_ms: hour_ms, ..rejoin_request(&leader) });
    let generation_id = bench.joined(rejoin).generation_id;
    bench.sync(&leader, generation_id, &[(&leader, "all")]);
    let newcomer = bench.join(join_request());
    for _ in 0..5 * 60 {
        bench.pass(1_000);
        let _ = bench.heartbeat(&leader, generation_id);
    }
    assert_eq!(bench.joined(newcomer).error, Some(GroupError::UnknownMemberId));
    assert_eq!(bench.coordinator.member_count(), 1);
}

#[test]
fn a_member_that_waits_for_the_others_needs_no_heartbeat() {
    let mut bench = Bench::new(settings());
    let (leader, follower) = bench.stable_pair();
    let waiting = bench.join(rejoin_request(&leader));
    for _ in 0..REBALANCE_MS / 5_000 - 1 {
        let _ = bench.heartbeat(&follower, 2);
        bench.pass(5_000);
    }
    assert!(bench.is_waiting(waiting));
    bench.join(rejoin_request(&follower));
    assert_eq!(bench.joined(waiting).members.len(), 2);
}

#[test]
fn a_member_that_leaves_makes_the_others_rejoin() {
    let mut bench = Bench::new(settings());
    let (leader, follower) = bench.stable_pair();
    assert_eq!(bench.leave(&[(&follower, None)])[0].error, None);
    assert_eq!(bench.heartbeat(&leader, 2), Some(GroupError::RebalanceInProgress));
    assert_eq!(
        bench.leave(&[(&follower, None), ("stranger", None)])[0].error,
        Some(GroupError::UnknownMemberId)
    );
    assert_eq!(bench.leave(&[(&leader, None)])[0].error, None);
    assert_eq!(bench.state(), GroupState::Empty);
}

#[test]
fn a_member_that_leaves_while_its_requests_wait_has_them_answered() {
    let mut bench = Bench::new(settings());
    let (leader, follower) = bench.stable_pair();
    let join = bench.join(rejoin_request(&leader));
    bench.leave(&[(&leader, None)]);
    assert_eq!(bench.joined(join).error, Some(GroupError::UnknownMemberId));
    let rejoin = bench.join(rejoin_request(&follower));
    let reply = bench.joined(rejoin);
    assert_eq!((reply.generation_id, reply.leader), (3, follower.clone()));
    bench.hold_appends();
    let sync = bench.sync(&follower, 3, &[]);
    bench.leave(&[(&follower, None)]);
    assert_eq!(bench.synced(sync).error, Some(GroupError::UnknownMemberId));
    bench.end_appends();
    assert_eq!(bench.state(), GroupState::Empty);
}

#[test]
fn a_pending_member_may_leave() {
    let mut bench = Bench::new(settings());
    let token = bench.join(JoinGroup { require_known_member_id: true, ..join_request() });
    let pending = bench.joined(token).member_id;
    assert_eq!(bench.leave(&[(&pending, None)])[0].error, None);
    assert_eq!(bench.coordinator.group_count(), 0);
}

#[test]
fn leaving_a_group_that_is_not_there_names_every_member_unknown() {
    let mut bench = Bench::new(settings());
    let left = bench.leave(&[("a", None), ("", Some("i"))]);
    assert!(left.iter().all(|member| member.error == Some(GroupError::UnknownMemberId)));
    assert_eq!(left[1].group_instance_id.as_deref(), Some("i"));
}

#[test]
fn closing_answers_everybody_who_waits() {
    let mut bench = Bench::new(settings());
    let (leader, _) = bench.stable_pair();
    let join = bench.join(rejoin_request(&leader));
    bench.hold_appends();
    let commit = bench.commit(OffsetCommit { group_id: "other".to_owned(), ..commit_request(1) });
    let effects = bench.coordinator.close(GroupError::NotCoordinator);
    bench.carry_out(effects);
    assert_eq!(bench.joined(join).error, Some(GroupError::NotCoordinator));
    assert_eq!(bench.committed(commit), Some(GroupError::NotCoordinator));
    bench.end_appends();
    assert_eq!(bench.coordinator.group_count(), 0);
}
