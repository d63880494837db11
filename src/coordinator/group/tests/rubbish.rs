//! Requests that no sane client sends, in any order, at any time.

use proptest::prelude::*;

use crate::model::group::{DeleteGroup, OffsetDelete};

use super::*;

/// Member ids that may or may not exist: numbers as the bench gives them, and strangers.
fn any_member_id() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just(String::new()),
        6 => (1u128..8).prop_map(|number| format!("app-{}", Uuid::from_u128(number))),
        3 => (1u128..8).prop_map(|number| format!("i-{}", Uuid::from_u128(number))),
        1 => ".{0,5}",
    ]
}

fn any_instance_id() -> impl Strategy<Value = Option<String>> {
    proptest::option::of(prop_oneof![Just("i".to_owned()), Just("j".to_owned())])
}

fn any_timeout_ms() -> impl Strategy<Value = i32> {
    prop_oneof![4 => Just(10_000), 1 => any::<i32>()]
}

fn any_group_id() -> impl Strategy<Value = String> {
    prop_oneof![8 => Just(GROUP.to_owned()), 1 => ".{0,3}"]
}

fn any_protocols() -> impl Strategy<Value = Vec<MemberProtocol>> {
    let metadata = proptest::collection::vec(any::<u8>(), 0..8).prop_map(Bytes::from);
    let protocol = ("[ab]{1}", metadata).prop_map(|(name, metadata)| MemberProtocol { name, metadata });
    proptest::collection::vec(protocol, 0..3)
}

fn any_join() -> impl Strategy<Value = GroupRequest> {
    let who = (any_group_id(), any_member_id(), any_instance_id());
    let how = (any_timeout_ms(), any_timeout_ms(), any_protocols(), any::<bool>(), any::<bool>());
    (who, how).prop_map(|((group_id, member_id, group_instance_id), how)| {
        GroupRequest::Join(JoinGroup {
            group_id,
            member_id,
            group_instance_id,
            session_timeout_ms: how.0,
            rebalance_timeout_ms: how.1,
            protocols: how.2,
            require_known_member_id: how.3,
            supports_skipping_assignment: how.4,
            ..join_request()
        })
    })
}

fn any_sync() -> impl Strategy<Value = GroupRequest> {
    let assignments = proptest::collection::vec((any_member_id(), Just(Bytes::from_static(b"x"))), 0..3);
    let who = (any_group_id(), any_member_id(), any_instance_id());
    (who, -1..6i32, assignments).prop_map(
        |((group_id, member_id, group_instance_id), generation_id, assignments)| {
            GroupRequest::Sync(SyncGroup {
                group_id,
                generation_id,
                member_id,
                group_instance_id,
                protocol_type: None,
                protocol_name: None,
                assignments,
            })
        },
    )
}

fn any_heartbeat_or_leave() -> impl Strategy<Value = GroupRequest> {
    let who = (any_group_id(), any_member_id(), any_instance_id());
    (who, -1..6i32, any::<bool>()).prop_map(
        |((group_id, member_id, group_instance_id), generation_id, is_leave)| {
            if is_leave {
                let member = LeavingMember { member_id, group_instance_id, reason: None };
                GroupRequest::Leave(LeaveGroup { group_id, members: vec![member.clone(), member] })
            } else {
                GroupRequest::Heartbeat(Heartbeat { group_id, generation_id, member_id, group_instance_id })
            }
        },
    )
}

fn any_offset_request() -> impl Strategy<Value = GroupRequest> {
    let who = (any_group_id(), any_member_id(), -1..6i32);
    let producer = proptest::option::of((0..3i64, Just(0i16)));
    (who, any::<i64>(), any::<i64>(), producer, 0..5u8).prop_map(
        |(who, offset, retention_time_ms, producer, kind)| {
            let (group_id, member_id, generation_id) = who;
            let topics = vec![ByTopic { topic: topic("orders"), topic_id: None, partitions: vec![0, 0, -1] }];
            match kind {
                0 => GroupRequest::Delete(DeleteGroup { group_id }),
                1 => GroupRequest::OffsetDelete(OffsetDelete { group_id, topics }),
                2 => GroupRequest::OffsetFetch(OffsetFetch {
                    group_id,
                    member_id: None,
                    member_epoch: -1,
                    topics: Some(topics),
                    require_stable: true,
                }),
                _ => GroupRequest::OffsetCommit(OffsetCommit {
                    group_id,
                    member_id,
                    generation_id,
                    retention_time_ms,
                    producer,
                    ..commit_request(offset)
                }),
            }
        },
    )
}

#[derive(Debug, Clone)]
enum Step {
    Ask(Box<GroupRequest>),
    Pass(i64),
    TurnBack(i64),
    EndAppends,
    FailAppends,
    EndTransaction(ProducerId, bool),
    DeleteTopic,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => any_join().prop_map(|request| Step::Ask(Box::new(request))),
        4 => any_sync().prop_map(|request| Step::Ask(Box::new(request))),
        3 => any_heartbeat_or_leave().prop_map(|request| Step::Ask(Box::new(request))),
        3 => any_offset_request().prop_map(|request| Step::Ask(Box::new(request))),
        2 => (0..40_000i64).prop_map(Step::Pass),
        1 => (0..i64::MAX / 4).prop_map(Step::Pass),
        1 => (0..1_000_000i64).prop_map(Step::TurnBack),
        4 => Just(Step::EndAppends),
        1 => Just(Step::FailAppends),
        1 => (0..3i64, any::<bool>()).prop_map(|(producer_id, is_commit)| Step::EndTransaction(producer_id, is_commit)),
        1 => Just(Step::DeleteTopic),
    ]
}

fn take(bench: &mut Bench, step: Step) {
    match step {
        Step::Ask(request) => {
            bench.send(*request);
        }
        Step::Pass(ms) => {
            bench.now_ms = bench.now_ms.saturating_add(ms);
            let effects = bench.coordinator.on_timer(bench.now_ms);
            bench.carry_out(effects);
        }
        Step::TurnBack(ms) => bench.now_ms -= ms,
        Step::EndAppends => bench.end_appends(),
        Step::FailAppends => bench.fail_appends(),
        Step::EndTransaction(producer_id, is_commit) => {
            bench.coordinator.end_transaction(producer_id, is_commit, bench.now_ms);
        }
        Step::DeleteTopic => {
            let effects = bench.coordinator.topic_deleted(&topic("orders"), bench.now_ms);
            bench.carry_out(effects);
        }
    }
    bench.hold_appends();
}

proptest! {
    #[test]
    fn rubbish_is_answered_and_breaks_nothing(steps in proptest::collection::vec(any_step(), 0..80)) {
        let mut bench = Bench::new(settings());
        bench.hold_appends();
        for step in steps {
            take(&mut bench, step);
        }
        let effects = bench.coordinator.close(GroupError::NotCoordinator);
        bench.carry_out(effects);
        let answered = bench.replies.len() as u64;
        prop_assert_eq!(answered, bench.next_token, "every token is answered once");
        bench.reload();
    }
}
