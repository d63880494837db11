//! Members with a name of their own (KIP-345).

use super::*;

/// A static member "i" that leads a stable generation 1; its id.
fn stable_static(bench: &mut Bench) -> String {
    let token = bench.join(static_join_request("i"));
    let leader = bench.joined(token).member_id;
    assert!(leader.starts_with("i-"));
    let token = bench.sync(&leader, 1, &[(&leader, "all")]);
    assert_eq!(bench.synced(token).assignment, "all");
    leader
}

#[test]
fn a_static_member_comes_back_without_a_rebalance() {
    let mut bench = Bench::new(settings());
    let old = stable_static(&mut bench);
    let token = bench.join(static_join_request("i"));
    let reply = bench.joined(token);
    assert_ne!(reply.member_id, old);
    assert_eq!((reply.error, reply.generation_id), (None, 1));
    assert_eq!(reply.leader, reply.member_id);
    assert!(reply.skip_assignment);
    assert_eq!(reply.members.len(), 1);
    let token = bench.sync(&reply.member_id, 1, &[]);
    assert_eq!(bench.synced(token).assignment, "all");
    bench.reload();
    assert_eq!(bench.heartbeat(&reply.member_id, 1), None);
}

#[test]
fn an_old_client_is_told_of_the_leader_before_so_that_it_does_not_assign() {
    let mut bench = Bench::new(settings());
    let old = stable_static(&mut bench);
    let token = bench.join(JoinGroup { supports_skipping_assignment: false, ..static_join_request("i") });
    let reply = bench.joined(token);
    assert_eq!((reply.leader.as_str(), reply.skip_assignment), (old.as_str(), false));
    assert!(reply.members.is_empty());
}

#[test]
fn the_old_bearer_of_an_instance_id_is_fenced() {
    let mut bench = Bench::new(settings());
    let old = stable_static(&mut bench);
    let token = bench.join(static_join_request("i"));
    assert_eq!(bench.joined(token).error, None);
    let heartbeat = Heartbeat {
        group_id: GROUP.to_owned(),
        generation_id: 1,
        member_id: old.clone(),
        group_instance_id: Some("i".to_owned()),
    };
    let reply = bench.ask(GroupRequest::Heartbeat(heartbeat));
    assert!(
        matches!(reply, GroupReply::Heartbeat(reply) if reply.error == Some(GroupError::FencedInstanceId))
    );
    let token = bench.join(JoinGroup { member_id: old.clone(), ..static_join_request("i") });
    assert_eq!(bench.joined(token).error, Some(GroupError::FencedInstanceId));
    assert_eq!(bench.leave(&[(&old, Some("i"))])[0].error, Some(GroupError::FencedInstanceId));
}

#[test]
fn requests_of_the_old_bearer_that_wait_are_fenced() {
    let mut bench = Bench::new(settings());
    let old = stable_static(&mut bench);
    bench.join(join_request());
    let token = bench.join(static_join_request("other"));
    assert!(bench.is_waiting(token));
    let waiting = bench.join(static_join_request("other"));
    assert_eq!(bench.joined(token).error, Some(GroupError::FencedInstanceId));
    bench.join(JoinGroup { member_id: old, ..static_join_request("i") });
    assert_eq!(bench.joined(waiting).generation_id, 2);
}

#[test]
fn a_static_member_that_returns_during_the_sync_starts_a_rebalance() {
    let mut bench = Bench::new(settings());
    let token = bench.join(static_join_request("i"));
    let old = bench.joined(token).member_id;
    bench.hold_appends();
    let sync = bench.sync(&old, 1, &[(&old, "all")]);
    let back = bench.join(static_join_request("i"));
    assert_eq!(bench.synced(sync).error, Some(GroupError::FencedInstanceId));
    assert_eq!(bench.joined(back).generation_id, 2);
    bench.end_appends();
    assert_eq!(bench.state(), GroupState::CompletingRebalance);
}

#[test]
fn a_return_that_changes_the_chosen_protocol_starts_a_rebalance() {
    let mut bench = Bench::new(settings());
    stable_static(&mut bench);
    let sticky = MemberProtocol { name: "sticky".to_owned(), metadata: subscription("orders") };
    let mut protocols = range_protocol();
    protocols.insert(0, sticky);
    let token = bench.join(JoinGroup { protocols, ..static_join_request("i") });
    let reply = bench.joined(token);
    assert_eq!((reply.generation_id, reply.protocol_name.as_deref()), (2, Some("sticky")));
}

#[test]
fn a_return_that_cannot_be_stored_fails_and_can_be_tried_again() {
    let mut bench = Bench::new(settings());
    stable_static(&mut bench);
    bench.hold_appends();
    let token = bench.join(static_join_request("i"));
    assert!(bench.is_waiting(token));
    bench.fail_appends();
    assert_eq!(bench.joined(token).error, Some(GroupError::CoordinatorNotAvailable));
    let token = bench.join(static_join_request("i"));
    assert_eq!(bench.joined(token).generation_id, 1);
    assert_eq!(bench.coordinator.member_count(), 1);
}

#[test]
fn two_returns_at_once_leave_one_member_and_answer_both() {
    let mut bench = Bench::new(settings());
    stable_static(&mut bench);
    bench.hold_appends();
    let first = bench.join(static_join_request("i"));
    let second = bench.join(static_join_request("i"));
    assert_eq!(bench.joined(first).error, Some(GroupError::FencedInstanceId));
    bench.end_appends();
    let second = bench.joined(second).member_id;
    assert_eq!(bench.coordinator.member_count(), 1);
    bench.reload();
    assert_eq!(bench.heartbeat(&second, 1), None);
}

#[test]
fn a_rebalance_that_overtakes_a_return_answers_it() {
    let mut bench = Bench::new(settings());
    stable_static(&mut bench);
    bench.hold_appends();
    let back = bench.join(static_join_request("i"));
    let newcomer = bench.join(join_request());
    assert_eq!(bench.joined(newcomer).generation_id, 2, "the returned member has joined already");
    assert_eq!(bench.joined(back).generation_id, 2);
    bench.end_appends();
}

#[test]
fn an_admin_removes_a_static_member_by_its_name() {
    let mut bench = Bench::new(settings());
    stable_static(&mut bench);
    assert_eq!(bench.leave(&[("", Some("nobody"))])[0].error, Some(GroupError::UnknownMemberId));
    assert_eq!(bench.leave(&[("", Some("i"))])[0].error, None);
    assert_eq!(bench.state(), GroupState::Empty);
}

#[test]
fn a_static_member_that_is_late_keeps_its_place_until_its_session_ends() {
    let mut bench = Bench::new(settings());
    let session_timeout_ms = 1_000_000;
    let token = bench.join(JoinGroup { session_timeout_ms, ..static_join_request("i") });
    let late = bench.joined(token).member_id;
    let token = bench.sync(&late, 1, &[(&late, "all")]);
    bench.synced(token);
    let newcomer = bench.join(join_request());
    bench.pass(REBALANCE_MS);
    let reply = bench.joined(newcomer);
    assert_eq!((reply.generation_id, reply.members.len()), (2, 2));
    assert_eq!(reply.leader, reply.member_id, "who is absent cannot lead");
}

#[test]
fn absent_static_members_without_a_rebalance_timeout_keep_no_timer_spinning() {
    let mut bench = Bench::new(settings());
    let token = bench.join(JoinGroup { rebalance_timeout_ms: -1, ..static_join_request("i") });
    let absent = bench.joined(token).member_id;
    let token = bench.sync(&absent, 1, &[(&absent, "all")]);
    bench.synced(token);
    let token = bench.join(JoinGroup { rebalance_timeout_ms: -1, ..static_join_request("j") });
    bench.pass(0);
    let newcomer = bench.joined(token).member_id;
    let _ = bench.leave(&[(&newcomer, Some("j"))]);
    bench.pass(0);
    assert!(bench.coordinator.next_deadline_ms() > Some(bench.now_ms));
}

#[test]
fn a_group_of_absent_static_members_waits_for_them() {
    let mut bench = Bench::new(settings());
    let old = stable_static(&mut bench);
    let newcomer = bench.join(join_request());
    let newcomer_id = {
        bench.join(JoinGroup { member_id: old.clone(), ..static_join_request("i") });
        bench.joined(newcomer).member_id
    };
    bench.sync(&old, 2, &[]);
    bench.leave(&[(&newcomer_id, None)]);
    assert_eq!(bench.state(), GroupState::PreparingRebalance);
    bench.pass(SESSION_MS);
    assert_eq!(bench.state(), GroupState::Empty);
}
