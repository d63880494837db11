//! What assignments must be like, whoever the members are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::{AssignedTo, Assignment, Assignor, ToAssign, share};
use crate::model::Uuid;

fn topic(number: usize) -> Uuid {
    Uuid::from_u128(number as u128 + 1)
}

/// Members by what they read (bits of a mask), topics by their sizes.
fn assign(
    masks: &[u8],
    sizes: &[i32],
    previous: &Assignment,
    assign: impl Fn(&ToAssign<'_>) -> Assignment,
) -> Assignment {
    let ids: Vec<Arc<str>> = (0..masks.len()).map(|number| format!("member-{number}").into()).collect();
    let members = ids.iter().zip(masks).map(|(id, mask)| AssignedTo {
        id,
        instance_id: None,
        topics: (0..sizes.len()).filter(|bit| mask & (1 << bit) != 0).map(topic).collect(),
        previous: previous.get(id),
    });
    let partition_counts: BTreeMap<_, _> =
        sizes.iter().enumerate().map(|(number, size)| (topic(number), *size)).collect();
    assign(&ToAssign { members: members.collect(), partition_counts })
}

fn counts(assignment: &Assignment) -> Vec<usize> {
    assignment.values().map(|own| own.values().map(BTreeSet::len).sum()).collect()
}

/// Every partition that somebody reads is given to exactly one who reads it.
fn check_exclusive(masks: &[u8], sizes: &[i32], assignment: &Assignment) {
    let mut given = BTreeSet::new();
    for (own, mask) in assignment.values().zip(masks) {
        for (id, partitions) in own {
            let number = usize::try_from(id.as_u128() - 1).unwrap();
            assert!(mask & (1 << number) != 0, "a member was given what it does not read");
            partitions.iter().for_each(|partition| assert!(given.insert((*id, *partition)), "given twice"));
        }
    }
    for (number, size) in sizes.iter().enumerate() {
        let is_read = masks.iter().any(|mask| mask & (1 << number) != 0);
        let count = given.iter().filter(|(id, _)| *id == topic(number)).count();
        assert_eq!(count, if is_read { usize::try_from(*size).unwrap() } else { 0 });
    }
}

fn moved(before: &Assignment, after: &Assignment) -> usize {
    let kept = |(id, own): (&Arc<str>, &crate::model::group::TopicPartitions)| -> usize {
        let now = |topic: &Uuid| after.get(id).and_then(|own| own.get(topic));
        own.iter()
            .map(|(topic, it)| it.len() - now(topic).map_or(0, |now| now.intersection(it).count()))
            .sum()
    };
    before.iter().map(kept).sum()
}

#[test]
fn a_range_is_a_range_of_every_topic() {
    let assignment = assign(&[3, 3, 3], &[7, 2], &Assignment::new(), |group| Assignor::Range.assign(group));
    let of = |name: &str, number: usize| -> Vec<i32> {
        assignment[name].get(&topic(number)).into_iter().flatten().copied().collect()
    };
    assert_eq!((of("member-0", 0), of("member-0", 1)), (vec![0, 1, 2], vec![0]));
    assert_eq!((of("member-1", 0), of("member-1", 1)), (vec![3, 4], vec![1]));
    assert_eq!((of("member-2", 0), of("member-2", 1)), (vec![5, 6], vec![]));
}

#[test]
fn a_newcomer_takes_no_more_than_its_share_and_nothing_else_moves() {
    let uniform = |group: &ToAssign<'_>| Assignor::Uniform.assign(group);
    let before = assign(&[1, 1, 1], &[24], &Assignment::new(), uniform);
    let after = assign(&[1, 1, 1, 1], &[24], &before, uniform);
    assert_eq!(counts(&after), [6, 6, 6, 6]);
    assert_eq!(moved(&before, &after), 6);
    let mut without: Assignment = after.clone();
    without.remove("member-3");
    let back = assign(&[1, 1, 1], &[24], &without, uniform);
    assert_eq!((counts(&back), moved(&without, &back)), (vec![8, 8, 8], 0));
}

proptest! {
    #[test]
    fn uniform_and_range_give_every_partition_to_one_reader(
        masks in proptest::collection::vec(0u8..8, 1..8),
        sizes in proptest::collection::vec(0i32..20, 3),
        masks_after in proptest::collection::vec(0u8..8, 1..8),
        sizes_after in proptest::collection::vec(0i32..20, 3),
    ) {
        for assignor in [Assignor::Uniform, Assignor::Range] {
            let first = assign(&masks, &sizes, &Assignment::new(), |group| assignor.assign(group));
            check_exclusive(&masks, &sizes, &first);
            let second = assign(&masks_after, &sizes_after, &first, |group| assignor.assign(group));
            check_exclusive(&masks_after, &sizes_after, &second);
        }
    }

    #[test]
    fn uniform_shares_are_equal_where_all_read_the_same_and_stay_where_nothing_changes(
        member_count in 1usize..12,
        later_count in 1usize..12,
        sizes in proptest::collection::vec(0i32..20, 2),
    ) {
        let uniform = |group: &ToAssign<'_>| Assignor::Uniform.assign(group);
        let first = assign(&vec![3; member_count], &sizes, &Assignment::new(), uniform);
        let second = assign(&vec![3; later_count], &sizes, &first, uniform);
        for shares in [counts(&first), counts(&second)] {
            prop_assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
        }
        let again = assign(&vec![3; later_count], &sizes, &second, uniform);
        prop_assert_eq!(&again, &second);
    }

    #[test]
    fn mixed_subscriptions_end_where_no_move_would_help(
        masks in proptest::collection::vec(1u8..8, 1..8),
        sizes in proptest::collection::vec(0i32..20, 3),
    ) {
        let given = assign(&masks, &sizes, &Assignment::new(), |group| Assignor::Uniform.assign(group));
        let counts = counts(&given);
        for (from, own) in given.values().enumerate() {
            for (number, _) in sizes.iter().enumerate().filter(|(number, _)| own.contains_key(&topic(*number))) {
                for (to, mask) in masks.iter().enumerate() {
                    prop_assert!(mask & (1 << number) == 0 || counts[to] + 2 > counts[from]);
                }
            }
        }
    }

    #[test]
    fn sharing_leaves_no_partition_and_no_member_without_the_other(
        masks in proptest::collection::vec(0u8..4, 1..10),
        sizes in proptest::collection::vec(0i32..8, 2),
        masks_after in proptest::collection::vec(0u8..4, 1..10),
    ) {
        let first = assign(&masks, &sizes, &Assignment::new(), share);
        let second = assign(&masks_after, &sizes, &first, share);
        for (masks, assignment) in [(&masks, &first), (&masks_after, &second)] {
            for (number, size) in sizes.iter().enumerate() {
                let id = topic(number);
                let readers: Vec<_> = assignment.values().zip(masks).filter(|(_, mask)| *mask & (1 << number) != 0).collect();
                let read: BTreeSet<i32> = readers.iter().flat_map(|(own, _)| own.get(&id)).flatten().copied().collect();
                prop_assert_eq!(read.len(), if readers.is_empty() { 0 } else { usize::try_from(*size).unwrap() });
                prop_assert!(*size == 0 || readers.iter().all(|(own, _)| own.contains_key(&id)));
            }
        }
    }
}
