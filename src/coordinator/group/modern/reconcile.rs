//! One member's next step from what it has to what it shall have.
//!
//! ```text
//!            gives up what it must not keep         takes what is free
//! (old epoch) Unrevoked  ----------------->  (new epoch) Stable, or Unreleased while others hold some of it
//! ```
//! A member first gives up what it must not keep, and only then moves to the new epoch; what it is to get it gets as
//! soon as nobody else holds it.
//! Source: KIP-848, "Assignment Process"; Kafka's CurrentAssignmentBuilder.

use std::collections::BTreeSet;

use crate::model::group::TopicPartitions;
use crate::model::{PartitionIndex, Uuid};

use super::{Assigned, Current, MemberState};

/// What the step is made with.
pub(super) struct Reconciliation<'a> {
    /// What the member shall have, and in which epoch.
    pub(super) target: Option<&'a TopicPartitions>,
    pub(super) target_epoch: i32,
    /// The topics that it reads now; it keeps none of others.
    pub(super) subscribed: &'a BTreeSet<Uuid>,
    /// Whether it has just changed what it reads.
    pub(super) is_subscription_changed: bool,
    /// The partitions that it says it has; none if it did not say.
    pub(super) owned: Option<&'a TopicPartitions>,
    /// Whether another member holds the partition.
    pub(super) is_held_by_other: &'a dyn Fn(Uuid, PartitionIndex) -> bool,
}

impl Reconciliation<'_> {
    /// What the member has from now on.
    pub(super) fn step(&self, current: &Current) -> Current {
        let owns_revoked = self.owns_any_of(&current.revoking);
        match current.state {
            MemberState::Stable if current.epoch != self.target_epoch => self.advance(current),
            MemberState::Unrevoked if !owns_revoked => self.advance(current),
            MemberState::Unreleased => self.advance(current),
            MemberState::Stable | MemberState::Unrevoked if self.is_subscription_changed => {
                self.give_up_unsubscribed(current)
            }
            MemberState::Stable | MemberState::Unrevoked => current.clone(),
        }
    }

    /// Whether the member says that it has one of them, or says nothing.
    fn owns_any_of(&self, partitions: &Assigned) -> bool {
        let Some(owned) = self.owned else { return true };
        partitions.iter().any(|(topic, partitions)| {
            owned.get(topic).is_some_and(|owned| partitions.keys().any(|it| owned.contains(it)))
        })
    }

    fn shall_have(&self, topic: Uuid, partition: PartitionIndex) -> bool {
        self.subscribed.contains(&topic)
            && self.target.and_then(|target| target.get(&topic)).is_some_and(|it| it.contains(&partition))
    }

    /// Towards the target.
    fn advance(&self, current: &Current) -> Current {
        let (mut assigned, revoking) = split(&current.assigned, |topic, it| self.shall_have(topic, it));
        if !revoking.is_empty() && self.owns_any_of(&revoking) {
            return Current {
                epoch: current.epoch,
                previous_epoch: current.epoch,
                state: MemberState::Unrevoked,
                assigned,
                revoking,
            };
        }
        let mut is_any_held = false;
        for (topic, partitions) in self.target.into_iter().flatten() {
            if !self.subscribed.contains(topic) {
                continue;
            }
            for partition in partitions {
                if (self.is_held_by_other)(*topic, *partition) {
                    is_any_held = true;
                } else {
                    assigned.entry(*topic).or_default().entry(*partition).or_insert(self.target_epoch);
                }
            }
        }
        Current {
            epoch: self.target_epoch,
            previous_epoch: current.epoch,
            state: if is_any_held { MemberState::Unreleased } else { MemberState::Stable },
            assigned,
            revoking: Assigned::new(),
        }
    }

    /// Nothing of topics that the member does not read any more.
    fn give_up_unsubscribed(&self, current: &Current) -> Current {
        let (assigned, dropped) = split(&current.assigned, |topic, _| self.subscribed.contains(&topic));
        if dropped.is_empty() {
            return current.clone();
        }
        let mut revoking = current.revoking.clone();
        for (topic, partitions) in dropped {
            revoking.entry(topic).or_default().extend(partitions);
        }
        let next = Current { assigned, previous_epoch: current.epoch, ..current.clone() };
        match self.owns_any_of(&revoking) {
            true => Current { state: MemberState::Unrevoked, revoking, ..next },
            false => next,
        }
    }
}

/// Those that `keep` wants, and the others.
fn split(assigned: &Assigned, keep: impl Fn(Uuid, PartitionIndex) -> bool) -> (Assigned, Assigned) {
    let (mut kept, mut others) = (Assigned::new(), Assigned::new());
    for (topic, partitions) in assigned {
        for (partition, epoch) in partitions {
            let side = if keep(*topic, *partition) { &mut kept } else { &mut others };
            side.entry(*topic).or_default().insert(*partition, *epoch);
        }
    }
    (kept, others)
}
