//! Back from the log, and rewriting it.

use super::*;

#[test]
fn a_stable_group_is_back_with_its_assignments() {
    let mut bench = Bench::new(settings());
    let (leader, follower) = bench.stable_pair();
    bench.reload();
    assert_eq!(bench.heartbeat(&leader, 2), None);
    let token = bench.sync(&follower, 2, &[]);
    assert_eq!(bench.synced(token).assignment, "right");
    bench.pass(SESSION_MS);
    assert_eq!(bench.state(), GroupState::Empty, "sessions count from the reload");
}

#[test]
fn a_generation_that_was_not_stored_is_taken_back() {
    let mut bench = Bench::new(settings());
    let leader = bench.stable_leader();
    let token = bench.join(rejoin_request(&leader));
    assert_eq!(bench.joined(token).generation_id, 2);
    bench.reload();
    let token = bench.sync(&leader, 2, &[(&leader, "all")]);
    assert_eq!(bench.synced(token).error, Some(GroupError::IllegalGeneration));
    let token = bench.join(rejoin_request(&leader));
    assert_eq!(bench.joined(token).generation_id, 2);
}

#[test]
fn a_snapshot_replayed_is_the_same_state() {
    let mut bench = Bench::new(settings());
    let (leader, _) = bench.stable_pair();
    let mut commit = commit_request(9);
    commit.generation_id = 2;
    commit.member_id = leader.clone();
    bench.commit(commit);
    bench.commit(OffsetCommit { group_id: "simple".to_owned(), ..commit_request(3) });
    let described = bench.describe();
    let snapshot: Vec<StateRecord> = bench.coordinator.snapshot().collect();
    let estimate = bench.coordinator.live_bytes();
    let exact: usize = snapshot.iter().map(|it| it.key.len() + it.value.as_ref().unwrap().len() + 10).sum();
    assert_eq!(estimate, exact as u64);
    bench.log = snapshot.clone();
    bench.reload();
    assert_eq!(bench.describe(), described);
    assert_eq!(bench.fetch(), 9);
    assert_eq!(bench.coordinator.snapshot().collect::<Vec<_>>(), snapshot);
}

#[test]
fn a_snapshot_in_the_middle_of_a_rebalance_holds_what_is_in_the_log() {
    let mut bench = Bench::new(settings());
    let leader = bench.stable_leader();
    bench.join(join_request());
    let snapshot: Vec<StateRecord> = bench.coordinator.snapshot().collect();
    assert_eq!(snapshot, bench.log);
    bench.log = snapshot;
    bench.reload();
    assert_eq!(bench.heartbeat(&leader, 1), None);
}

#[test]
fn a_transaction_is_replayed_up_to_its_marker() {
    let mut bench = Bench::unloaded(settings());
    let record = |offset| schema::OffsetValue {
        offset,
        leader_epoch: -1,
        metadata: String::new(),
        commit_timestamp_ms: START_MS,
        expire_timestamp_ms: None,
    };
    let key = schema::offset_key(GROUP, "orders", 0);
    bench.coordinator.replay(&key, Some(&record(1).encode()), None, START_MS).unwrap();
    bench.coordinator.replay(&key, Some(&record(2).encode()), Some(77), START_MS).unwrap();
    bench.coordinator.replay(&key, Some(&record(3).encode()), Some(78), START_MS).unwrap();
    bench.coordinator.end_transaction(77, true, START_MS);
    bench.load();
    assert_eq!(bench.fetch(), 2);
    let stable = bench.fetch_token(true);
    assert_eq!(bench.fetched(stable), Err(GroupError::UnstableOffsetCommit));
}

#[test]
fn records_of_other_groups_kinds_and_rubbish_change_nothing() {
    let mut bench = Bench::unloaded(settings());
    assert_eq!(bench.coordinator.replay(&[0, 17, 0, 1, b'g'], Some(&[0, 0]), None, START_MS), Ok(()));
    assert!(bench.coordinator.replay(&[], None, None, START_MS).is_err());
    let key = schema::group_key(GROUP);
    assert!(bench.coordinator.replay(&key, Some(&[0, 3, 0]), None, START_MS).is_err());
    assert_eq!(bench.coordinator.replay(&key, None, None, START_MS), Ok(()));
    bench.load();
    assert_eq!(bench.coordinator.group_count(), 0);
}

#[test]
fn a_stored_group_with_an_unknown_leader_or_doubled_members_is_mended() {
    let member = |id: &str| schema::MemberValue {
        member_id: id.to_owned(),
        group_instance_id: Some("i".to_owned()),
        client_id: String::new(),
        client_host: String::new(),
        rebalance_timeout_ms: -5,
        session_timeout_ms: -5,
        subscription: Bytes::new(),
        assignment: Bytes::new(),
    };
    let value = schema::GroupValue {
        protocol_type: "consumer".to_owned(),
        generation_id: i32::MAX,
        protocol_name: None,
        leader: Some("nobody".to_owned()),
        state_timestamp_ms: None,
        members: vec![member("a"), member("a"), member("b")],
    };
    let mut bench = Bench::unloaded(settings());
    bench.coordinator.replay(&schema::group_key(GROUP), Some(&value.encode()), None, START_MS).unwrap();
    bench.load();
    bench.coordinator.check_invariants();
    assert_eq!(bench.describe().members.len(), 1);
    bench.pass(0);
    assert_eq!(bench.state(), GroupState::Empty);
}
