//! JoinGroup and the way to a stable generation.

use super::*;

fn max_size(group_max_size: usize) -> Bench {
    Bench::new(GroupSettings { group_max_size, ..settings() })
}

#[test]
fn a_first_member_leads_generation_one() {
    let mut bench = Bench::new(settings());
    let token = bench.join(join_request());
    let reply = bench.joined(token);
    assert_eq!((reply.error, reply.generation_id), (None, 1));
    assert_eq!(reply.leader, reply.member_id);
    assert!(reply.member_id.starts_with("app-"));
    assert_eq!(reply.protocol_type.as_deref(), Some("consumer"));
    assert_eq!(reply.protocol_name.as_deref(), Some("range"));
    assert_eq!(reply.members.len(), 1);
    assert_eq!(reply.members[0].metadata, subscription("orders"));
    assert_eq!(bench.state(), GroupState::CompletingRebalance);
}

#[test]
fn a_new_client_is_told_its_id_and_comes_back_with_it() {
    let mut bench = Bench::new(settings());
    let token = bench.join(JoinGroup { require_known_member_id: true, ..join_request() });
    let told = bench.joined(token);
    assert_eq!(told.error, Some(GroupError::MemberIdRequired));
    assert_eq!(bench.state(), GroupState::Empty);
    let token = bench.join(JoinGroup { require_known_member_id: true, ..rejoin_request(&told.member_id) });
    assert_eq!(bench.joined(token).generation_id, 1);
}

#[test]
fn a_client_that_does_not_come_back_with_its_id_leaves_no_trace() {
    let mut bench = Bench::new(settings());
    let token = bench.join(JoinGroup { require_known_member_id: true, ..join_request() });
    let told = bench.joined(token);
    bench.pass(SESSION_MS);
    assert_eq!(bench.coordinator.group_count(), 0);
    assert_eq!(bench.coordinator.next_deadline_ms(), None);
    let token = bench.join(rejoin_request(&told.member_id));
    assert_eq!(bench.joined(token).error, Some(GroupError::UnknownMemberId));
    assert!(bench.log.is_empty());
}

#[test]
fn a_made_up_pending_id_with_an_instance_id_is_unknown() {
    let mut bench = Bench::new(settings());
    let token = bench.join(JoinGroup { require_known_member_id: true, ..join_request() });
    let told = bench.joined(token);
    let token = bench.join(JoinGroup { member_id: told.member_id, ..static_join_request("i") });
    assert_eq!(bench.joined(token).error, Some(GroupError::UnknownMemberId));
}

#[test]
fn the_first_rebalance_waits_for_more_members_and_again_after_each() {
    let mut bench = Bench::new(GroupSettings { group_initial_rebalance_delay_ms: 3_000, ..settings() });
    let first = bench.join(join_request());
    bench.pass(2_000);
    let second = bench.join(join_request());
    bench.pass(1_000);
    assert!(bench.is_waiting(first), "the newcomer of 2,000 ms extends the wait to 6,000 ms");
    bench.pass(3_000);
    let (first, second) = (bench.joined(first), bench.joined(second));
    assert_eq!((first.generation_id, second.generation_id), (1, 1));
    assert_eq!(first.leader, second.leader);
    assert_eq!(first.members.len() + second.members.len(), 2, "only the leader learns of the members");
}

#[test]
fn the_first_rebalance_never_waits_longer_than_the_rebalance_timeout() {
    let mut bench = Bench::new(GroupSettings { group_initial_rebalance_delay_ms: 3_000, ..settings() });
    let first = bench.join(JoinGroup { rebalance_timeout_ms: 7_000, ..join_request() });
    for _ in 0..6 {
        bench.pass(1_000);
        bench.join(JoinGroup { rebalance_timeout_ms: 7_000, ..join_request() });
    }
    assert!(bench.is_waiting(first));
    bench.pass(1_000);
    assert_eq!(bench.joined(first).generation_id, 1);
}

#[test]
fn a_second_member_makes_the_first_rejoin() {
    let mut bench = Bench::new(settings());
    let leader = bench.stable_leader();
    let newcomer = bench.join(join_request());
    assert!(bench.is_waiting(newcomer));
    assert_eq!(bench.heartbeat(&leader, 1), Some(GroupError::RebalanceInProgress));
    let rejoin = bench.join(rejoin_request(&leader));
    assert_eq!(bench.joined(rejoin).members.len(), 2);
    assert_eq!(bench.joined(newcomer).generation_id, 2);
}

#[test]
fn members_that_do_not_rejoin_in_time_are_out() {
    let mut bench = Bench::new(settings());
    let leader = bench.stable_leader();
    let newcomer = bench.join(join_request());
    for _ in 0..REBALANCE_MS / 5_000 {
        assert_eq!(bench.heartbeat(&leader, 1), Some(GroupError::RebalanceInProgress));
        bench.pass(5_000);
    }
    let reply = bench.joined(newcomer);
    assert_eq!((reply.generation_id, reply.members.len()), (2, 1));
    assert_eq!(bench.heartbeat(&leader, 2), Some(GroupError::UnknownMemberId));
}

#[test]
fn a_pending_member_holds_the_generation_up_until_it_joins() {
    let mut bench = Bench::new(settings());
    let leader = bench.stable_leader();
    let newcomer = bench.join(join_request());
    let token = bench.join(JoinGroup { require_known_member_id: true, ..join_request() });
    let pending = bench.joined(token).member_id;
    let rejoin = bench.join(rejoin_request(&leader));
    assert!(bench.is_waiting(rejoin) && bench.is_waiting(newcomer));
    let last = bench.join(rejoin_request(&pending));
    assert_eq!(bench.joined(rejoin).members.len(), 3);
    assert_eq!(bench.joined(last).generation_id, 2);
}

#[test]
fn a_follower_that_rejoins_unchanged_is_told_of_the_present_generation() {
    let mut bench = Bench::new(settings());
    let (leader, follower) = bench.stable_pair();
    let token = bench.join(rejoin_request(&follower));
    let reply = bench.joined(token);
    assert_eq!((reply.generation_id, reply.leader.as_str()), (2, leader.as_str()));
    assert!(reply.members.is_empty());
    assert_eq!(bench.state(), GroupState::Stable);
    let token = bench.sync(&follower, 2, &[]);
    assert_eq!(bench.synced(token).assignment, "right");
}

#[test]
fn a_follower_with_another_subscription_starts_a_rebalance() {
    let mut bench = Bench::new(settings());
    let (_, follower) = bench.stable_pair();
    let metadata = subscription("payments");
    let protocols = vec![MemberProtocol { name: "range".to_owned(), metadata }];
    let token = bench.join(JoinGroup { protocols, ..rejoin_request(&follower) });
    assert!(bench.is_waiting(token));
    assert_eq!(bench.state(), GroupState::PreparingRebalance);
}

#[test]
fn the_leader_of_a_stable_group_starts_a_rebalance_by_rejoining() {
    let mut bench = Bench::new(settings());
    let (leader, _) = bench.stable_pair();
    let token = bench.join(rejoin_request(&leader));
    assert!(bench.is_waiting(token));
    assert_eq!(bench.state(), GroupState::PreparingRebalance);
}

#[test]
fn a_member_that_lost_its_reply_hears_it_again_before_the_sync() {
    let mut bench = Bench::new(settings());
    let token = bench.join(join_request());
    let first = bench.joined(token);
    let token = bench.join(rejoin_request(&first.member_id));
    assert_eq!(bench.joined(token), first);
}

#[test]
fn a_join_that_supersedes_another_answers_it() {
    let mut bench = Bench::new(settings());
    let leader = bench.stable_leader();
    bench.join(join_request());
    let newcomer_again = bench.join(join_request());
    let first = bench.join(rejoin_request(&leader));
    assert_eq!(bench.joined(first).generation_id, 2);
    let member = bench.joined(newcomer_again).member_id;
    let old = bench.join(JoinGroup { protocols: vec![], ..rejoin_request(&member) });
    assert_eq!(bench.joined(old).error, Some(GroupError::InconsistentGroupProtocol));
    bench.join(join_request());
    let old = bench.join(rejoin_request(&member));
    let new = bench.join(rejoin_request(&member));
    assert_eq!(bench.joined(old).error, Some(GroupError::RebalanceInProgress));
    assert!(bench.is_waiting(new));
}

#[test]
fn protocols_are_chosen_by_vote_among_those_that_all_support() {
    let protocol = |name: &str| MemberProtocol { name: name.to_owned(), metadata: Bytes::new() };
    let names = |names: &[&str]| names.iter().map(|name| protocol(name)).collect::<Vec<_>>();
    let mut bench = Bench::new(GroupSettings { group_initial_rebalance_delay_ms: 1, ..settings() });
    let first = bench.join(JoinGroup { protocols: names(&["a", "b", "c"]), ..join_request() });
    bench.join(JoinGroup { protocols: names(&["d", "c", "b", "c"]), ..join_request() });
    bench.join(JoinGroup { protocols: names(&["c", "b"]), ..join_request() });
    let stranger = bench.join(JoinGroup { protocols: names(&["a"]), ..join_request() });
    assert_eq!(bench.joined(stranger).error, Some(GroupError::InconsistentGroupProtocol));
    bench.pass(2);
    assert_eq!(bench.joined(first).protocol_name.as_deref(), Some("c"));
}

#[test]
fn another_protocol_type_or_none_is_refused() {
    let mut bench = Bench::new(settings());
    let token = bench.join(JoinGroup { protocols: vec![], ..join_request() });
    assert_eq!(bench.joined(token).error, Some(GroupError::InconsistentGroupProtocol));
    assert_eq!(bench.coordinator.group_count(), 0);
    bench.stable_leader();
    let token = bench.join(JoinGroup { protocol_type: "connect".to_owned(), ..join_request() });
    assert_eq!(bench.joined(token).error, Some(GroupError::InconsistentGroupProtocol));
}

#[test]
fn a_group_that_everybody_left_while_it_was_joined_takes_newcomers() {
    let mut bench = Bench::new(GroupSettings { group_initial_rebalance_delay_ms: 3_000, ..settings() });
    let token = bench.join(JoinGroup { require_known_member_id: true, ..join_request() });
    let first = bench.joined(token).member_id;
    bench.join(rejoin_request(&first));
    bench.leave(&[(&first, None)]);
    assert_eq!(bench.state(), GroupState::PreparingRebalance);
    let newcomer = bench.join(join_request());
    bench.pass(6_000);
    assert_eq!(bench.joined(newcomer).generation_id, 1);
}

#[test]
fn session_timeouts_out_of_bounds_are_refused() {
    let mut bench = Bench::new(settings());
    for session_timeout_ms in [-1, 5_999, 30 * 60 * 1_000 + 1] {
        let token = bench.join(JoinGroup { session_timeout_ms, ..join_request() });
        assert_eq!(bench.joined(token).error, Some(GroupError::InvalidSessionTimeout));
    }
}

#[test]
fn a_full_group_refuses_newcomers_and_keeps_its_members() {
    let mut bench = max_size(1);
    let leader = bench.stable_leader();
    let token = bench.join(join_request());
    assert_eq!(bench.joined(token).error, Some(GroupError::GroupMaxSizeReached));
    assert_eq!(bench.heartbeat(&leader, 1), None);
}

#[test]
fn a_group_above_a_lowered_limit_keeps_the_quickest_members() {
    let mut bench = Bench::new(settings());
    let (leader, follower) = bench.stable_pair();
    bench.coordinator.settings.group_max_size = 1;
    bench.reload();
    assert_eq!(bench.state(), GroupState::PreparingRebalance);
    let quick = bench.join(rejoin_request(&follower));
    let slow = bench.join(rejoin_request(&leader));
    assert_eq!(bench.joined(slow).error, Some(GroupError::GroupMaxSizeReached));
    assert_eq!(bench.joined(quick).members.len(), 1);
}

#[test]
fn no_more_groups_are_made_than_allowed() {
    let mut bench = Bench::new(GroupSettings { groups_max: 1, ..settings() });
    bench.stable_leader();
    let token = bench.join(JoinGroup { group_id: "other".to_owned(), ..join_request() });
    assert_eq!(bench.joined(token).error, Some(GroupError::GroupsMaxReached));
    let token = bench.commit(OffsetCommit { group_id: "third".to_owned(), ..commit_request(1) });
    assert_eq!(bench.committed(token), Some(GroupError::GroupsMaxReached));
}

#[test]
fn names_that_do_not_fit_a_record_are_refused() {
    let mut bench = Bench::new(settings());
    let long = "x".repeat(40_000);
    let token = bench.join(JoinGroup { group_id: long.clone(), ..join_request() });
    assert_eq!(bench.joined(token).error, Some(GroupError::InvalidGroupId));
    let token = bench.join(JoinGroup { group_id: String::new(), ..join_request() });
    assert_eq!(bench.joined(token).error, Some(GroupError::InvalidGroupId));
    for request in [
        JoinGroup { client_id: "x".repeat(32_767), ..join_request() },
        JoinGroup { client_host: long.clone(), ..join_request() },
        JoinGroup { protocol_type: long.clone(), ..join_request() },
        JoinGroup { group_instance_id: Some(long.clone()), ..join_request() },
        JoinGroup {
            protocols: vec![MemberProtocol { name: long, metadata: Bytes::new() }],
            ..join_request()
        },
    ] {
        let token = bench.join(request);
        assert_eq!(bench.joined(token).error, Some(GroupError::InvalidRequest));
    }
}

#[test]
fn a_coordinator_that_still_loads_says_so() {
    let mut bench = Bench::unloaded(settings());
    let token = bench.join(join_request());
    assert_eq!(bench.joined(token).error, Some(GroupError::CoordinatorLoadInProgress));
    assert_eq!(bench.heartbeat("anyone", 1), None);
}
