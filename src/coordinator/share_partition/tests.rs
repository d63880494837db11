//! A share partition against a plain model: one entry for each record.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::{SharePartition, ShareSettings};
use crate::coordinator::share_partition::StoredState;
use crate::model::Offset;
use crate::model::share::{AcknowledgeType, AcknowledgementBatch, ShareError};

const LOCK_MS: i64 = 30_000;

fn settings() -> ShareSettings {
    ShareSettings {
        record_lock_duration_ms: LOCK_MS,
        delivery_count_limit: 3,
        partition_max_record_locks: 100,
        is_renew_enabled: true,
    }
}

fn member(name: &str) -> Arc<str> {
    name.into()
}

fn ack(first: Offset, last: Offset, kind: AcknowledgeType) -> AcknowledgementBatch {
    AcknowledgementBatch { first_offset: first, last_offset: last, types: vec![kind] }
}

#[test]
fn what_is_accepted_is_done_and_what_is_released_comes_again() {
    let mut partition = SharePartition::new(settings(), 10);
    let acquired = partition.acquire(&member("a"), 8..20, &[(8, 13), (14, 19)], 100, false, 0);
    assert_eq!(
        acquired.iter().map(|it| (it.first_offset, it.last_offset)).collect::<Vec<_>>(),
        [(10, 13), (14, 19)]
    );
    assert_eq!(partition.next_fetch_offset(), Some(20));
    let batches = [ack(10, 12, AcknowledgeType::Accept), ack(14, 15, AcknowledgeType::Release)];
    let changes = partition.acknowledge("a", &batches, 1).unwrap();
    assert_eq!((changes.start_offset, changes.batches.len()), (13, 2));
    assert_eq!(partition.next_fetch_offset(), Some(14));
    let again = partition.acquire(&member("b"), 14..20, &[(14, 19)], 100, false, 2);
    assert_eq!(
        again.iter().map(|it| (it.first_offset, it.last_offset, it.delivery_count)).collect::<Vec<_>>(),
        [(14, 15, 2)]
    );
}

#[test]
fn only_who_holds_the_lock_may_acknowledge_and_all_of_it_counts_or_none() {
    let mut partition = SharePartition::new(settings(), 0);
    partition.acquire(&member("a"), 0..5, &[(0, 4)], 100, false, 0);
    partition.acquire(&member("b"), 5..10, &[(5, 9)], 100, false, 0);
    let before = partition.runs.clone();
    let batches = [ack(0, 4, AcknowledgeType::Accept), ack(5, 5, AcknowledgeType::Accept)];
    assert_eq!(partition.acknowledge("a", &batches, 0), Err(ShareError::InvalidRecordState));
    assert_eq!(partition.runs, before);
    let beyond = [ack(9, 10, AcknowledgeType::Accept)];
    assert_eq!(partition.acknowledge("b", &beyond, 0), Err(ShareError::InvalidRequest));
    let twice = [ack(5, 6, AcknowledgeType::Accept), ack(6, 7, AcknowledgeType::Accept)];
    assert_eq!(partition.acknowledge("b", &twice, 0), Err(ShareError::InvalidRequest));
}

#[test]
fn a_lock_ends_after_its_time_and_after_so_many_deliveries_nobody_gets_the_record() {
    let mut partition = SharePartition::new(settings(), 0);
    for delivery in 1..=3 {
        let now_ms = i64::from(delivery) * 100_000;
        let acquired = partition.acquire(&member("a"), 0..1, &[(0, 0)], 1, false, now_ms);
        assert_eq!(acquired[0].delivery_count, delivery);
        assert_eq!(partition.next_deadline_ms(), Some(now_ms + LOCK_MS));
        assert!(partition.expire(now_ms + LOCK_MS - 1).is_empty());
        assert_eq!(partition.expire(now_ms + LOCK_MS).batches.len(), 1);
    }
    assert_eq!(partition.start_offset(), 1);
}

#[test]
fn what_fails_again_and_again_is_delivered_by_halves_and_at_last_alone() {
    let limits = ShareSettings { delivery_count_limit: 5, ..settings() };
    let mut partition = SharePartition::new(limits, 0);
    let batches = [(0, 7), (8, 9)];
    let mut deliver = |kind| {
        let acquired = partition.acquire(&member("a"), 0..10, &batches, 100, false, 0);
        for it in &acquired {
            partition.acknowledge("a", &[ack(it.first_offset, it.last_offset, kind)], 0).unwrap();
        }
        acquired.iter().map(|it| (it.first_offset, it.last_offset, it.delivery_count)).collect::<Vec<_>>()
    };
    for count in 1..=3 {
        assert_eq!(deliver(AcknowledgeType::Release), [(0, 7, count), (8, 9, count)]);
    }
    assert_eq!(deliver(AcknowledgeType::Release), [(0, 3, 4)]);
    assert_eq!(deliver(AcknowledgeType::Release), [(0, 0, 5)]);
    // The first of them was the bad one: it is archived, and the others are still there.
    assert_eq!(deliver(AcknowledgeType::Accept), [(1, 1, 5)]);
    assert_eq!(deliver(AcknowledgeType::Accept), [(2, 2, 5)]);
    assert_eq!(deliver(AcknowledgeType::Accept), [(3, 3, 5)]);
    assert_eq!(deliver(AcknowledgeType::Accept), [(4, 7, 4)]);
    assert_eq!(deliver(AcknowledgeType::Accept), [(8, 8, 4)]);
    assert_eq!(deliver(AcknowledgeType::Accept), [(9, 9, 4)]);
    assert_eq!(partition.start_offset(), 10);
}

#[test]
fn a_renewed_lock_lasts_longer() {
    let mut partition = SharePartition::new(settings(), 0);
    partition.acquire(&member("a"), 0..2, &[(0, 1)], 2, false, 0);
    assert!(partition.acknowledge("a", &[ack(1, 1, AcknowledgeType::Renew)], 20_000).unwrap().is_empty());
    assert_eq!(partition.expire(LOCK_MS).batches.len(), 1);
    assert_eq!(partition.next_deadline_ms(), Some(20_000 + LOCK_MS));
}

#[test]
fn no_more_records_are_on_their_way_than_may_be() {
    let mut partition = SharePartition::new(settings(), 0);
    partition.acquire(&member("a"), 0..99, &[(0, 98)], 1_000, false, 0);
    assert_eq!(partition.next_fetch_offset(), Some(99));
    partition.acquire(&member("a"), 99..121, &[(99, 120)], 1_000, false, 0);
    assert_eq!(partition.next_fetch_offset(), None);
    partition.acknowledge("a", &[ack(0, 60, AcknowledgeType::Accept)], 0).unwrap();
    assert_eq!(partition.next_fetch_offset(), Some(121));
}

#[test]
fn a_strict_reader_gets_no_more_than_it_asked_for() {
    let mut partition = SharePartition::new(settings(), 0);
    let acquired = partition.acquire(&member("a"), 0..10, &[(0, 9)], 4, true, 0);
    assert_eq!((acquired[0].first_offset, acquired[0].last_offset), (0, 3));
    assert_eq!(partition.next_fetch_offset(), Some(4));
}

/// One record of the model.
#[derive(Debug, Clone, PartialEq)]
enum Model {
    Free,
    Locked(usize, i64),
    Done,
}

proptest! {
    #[test]
    fn a_share_partition_does_what_a_plain_map_of_records_would(
        steps in proptest::collection::vec((0u8..8, 0usize..3, 0i64..50, 1i64..12, 0i8..5), 0..120),
    ) {
        let limits = ShareSettings { partition_max_record_locks: 1_000, delivery_count_limit: 3, ..settings() };
        let names = ["a", "b", "c"];
        let mut partition = SharePartition::new(limits, 0);
        let mut stored = StoredState::new(0, 0);
        let mut model: BTreeMap<i64, (Model, i16)> = BTreeMap::new();
        let mut now_ms = 0;
        for (action, who, first, length, kind) in steps {
            let last = first + length;
            let changes = match action {
                0..3 => {
                    let worn = |record: Option<&(Model, i16)>| matches!(record, Some((Model::Free, 2)));
                    let is_suspect = (first..=last).any(|offset| worn(model.get(&offset)));
                    let all = partition.acquire(&member(names[who]), first..last + 1, &[(first, last)], 1_000, false, now_ms);
                    if all.iter().any(|acquired| acquired.delivery_count == 3) {
                        prop_assert!(matches!(&all[..], [only] if only.first_offset == only.last_offset));
                    }
                    for acquired in &all {
                        for offset in acquired.first_offset..=acquired.last_offset {
                            let record = model.entry(offset).or_insert((Model::Free, 0));
                            prop_assert_eq!(&record.0, &Model::Free);
                            *record = (Model::Locked(who, now_ms + LOCK_MS), record.1 + 1);
                            prop_assert_eq!(record.1, acquired.delivery_count);
                        }
                    }
                    let end = partition.end_offset;
                    for offset in first..=last {
                        model.entry(offset).or_insert((Model::Free, 0));
                    }
                    for offset in 0..end {
                        model.entry(offset).or_insert((Model::Done, 0));
                    }
                    let mut left_free = (first..=last).filter(|offset| model[offset].0 == Model::Free);
                    prop_assert!(left_free.all(|_| is_suspect && !all.is_empty()), "an offered record was not locked");
                    Default::default()
                }
                3..6 => {
                    let batch = ack(first, last, AcknowledgeType::of(kind).unwrap());
                    let from = first.max(partition.start_offset());
                    let is_own = (from..=last).all(|it| matches!(model.get(&it), Some((Model::Locked(by, _), _)) if *by == who));
                    match partition.acknowledge(names[who], &[batch], now_ms) {
                        Ok(changes) => {
                            prop_assert!(is_own || from > last);
                            for offset in from..=last {
                                let record = model.get_mut(&offset).unwrap();
                                record.0 = match kind {
                                    2 if record.1 < 3 => Model::Free,
                                    4 => Model::Locked(who, now_ms + LOCK_MS),
                                    _ => Model::Done,
                                };
                            }
                            changes
                        }
                        Err(_) => {
                            prop_assert!(!is_own);
                            Default::default()
                        }
                    }
                }
                6 => {
                    now_ms += first * 1_000;
                    for (state, count) in model.values_mut() {
                        if matches!(state, Model::Locked(_, until) if *until <= now_ms) {
                            *state = if *count < 3 { Model::Free } else { Model::Done };
                        }
                    }
                    partition.expire(now_ms)
                }
                _ => {
                    for (state, count) in model.values_mut() {
                        if matches!(state, Model::Locked(by, _) if *by == who) {
                            *state = if *count < 3 { Model::Free } else { Model::Done };
                        }
                    }
                    partition.release_member(names[who])
                }
            };
            partition.check_invariants();
            if !changes.is_empty() {
                stored.apply(changes.start_offset, &changes.batches);
            }
            let free = model.iter().find(|(_, record)| record.0 == Model::Free).map(|(offset, _)| *offset);
            prop_assert_eq!(partition.next_fetch_offset(), free.or(Some(partition.end_offset)));
            let undone = model.iter().find(|(_, record)| record.0 != Model::Done).map(|(offset, _)| *offset);
            prop_assert_eq!(partition.start_offset(), undone.unwrap_or(partition.end_offset));
        }
        // After a restart what is done stays done, and everything else is free.
        let restored = SharePartition::restore(limits, stored.start_offset, &stored.batches);
        restored.check_invariants();
        for (offset, (state, _)) in &model {
            let is_done = *offset < restored.start_offset()
                || restored.parts(*offset, *offset, |run| run.is_done()).len() == 1;
            if *state == Model::Done && *offset < stored.start_offset {
                prop_assert!(is_done);
            }
            if *state != Model::Done {
                prop_assert!(!is_done, "a record that was not done is lost: {offset}");
            }
        }
    }
}
