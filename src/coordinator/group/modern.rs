//! One group of the new protocols, whose assignments the coordinator makes: consumer groups (KIP-848) and share
//! groups (KIP-932).
//!
//! Only bookkeeping: members, epochs, what each has and shall have. Every change goes through a method that notes which
//! record is to be written (`store`), so that state and log cannot part.
//! Invariants: a partition of a consumer group is held (assigned, or still to be given up) by one member at most, and
//! `holders` says by whom; the group's epoch never goes back; a member's epoch only moves towards the epoch of the
//! assignment; a static member's instance id leads to its member id.
//! Source: Kafka's ModernGroup, ConsumerGroup, ShareGroup and their members.

pub(super) mod assignor;
mod classic_members;
mod consumer_heartbeat;
mod consumer_protocol;
mod describe;
mod leave;
mod migration;
mod offset_checks;
mod reconcile;
mod records;
mod replay;
mod share_heartbeat;
mod store;
mod topic_regex;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::model::group::{MemberProtocol, ModernGroupState, TopicPartitions};
use crate::model::{PartitionIndex, Uuid};

use super::topics::Topics;

pub use records::{About, Kind, ModernKey, ModernValue};

pub(super) use store::{Dirty, ModernStore};

/// Partitions by topic id, each with the epoch at which the member was given it.
pub(super) type Assigned = BTreeMap<Uuid, BTreeMap<PartitionIndex, i32>>;

/// Where a member stands on the way to what it shall have. The numbers are those of the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum MemberState {
    /// It has what the assignment of its epoch gives it.
    #[default]
    Stable,
    /// It has still to give partitions up.
    Unrevoked,
    /// It waits for partitions that others have still to give up.
    Unreleased,
}

/// What a member says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct MemberInfo {
    pub(super) instance_id: Option<String>,
    pub(super) rack_id: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) topics: BTreeSet<String>,
    /// Never empty.
    pub(super) topic_regex: Option<String>,
    pub(super) assignor: Option<String>,
    /// Set when it speaks the classic protocol.
    pub(super) classic: Option<ClassicPart>,
}

/// What a member of the classic protocol brings into a consumer group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClassicPart {
    pub(super) session_timeout_ms: i32,
    /// Best first, never empty.
    pub(super) protocols: Vec<MemberProtocol>,
}

/// What a member has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Current {
    pub(super) epoch: i32,
    /// The epoch before, in case the reply that told of the present one was lost.
    pub(super) previous_epoch: i32,
    pub(super) state: MemberState,
    pub(super) assigned: Assigned,
    /// Taken away but perhaps not yet given up.
    pub(super) revoking: Assigned,
}

/// One member.
#[derive(Debug, Clone, Default)]
pub(super) struct Member {
    pub(super) info: MemberInfo,
    pub(super) current: Current,
}

/// The topics that an expression matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResolvedRegex {
    pub(super) topics: BTreeSet<String>,
    /// The version of the topics it was resolved against.
    pub(super) version: u64,
    pub(super) resolved_ms: i64,
}

/// One group.
#[derive(Debug)]
pub(super) struct ModernGroup {
    pub(super) kind: Kind,
    epoch: i32,
    /// What the group's epoch knows of its topics.
    metadata_hash: i64,
    assignment_epoch: i32,
    /// When the assignment was made; 0 when not known.
    assignment_ms: i64,
    members: BTreeMap<Arc<str>, Member>,
    static_members: HashMap<String, Arc<str>>,
    targets: HashMap<Arc<str>, TopicPartitions>,
    holders: HashMap<(Uuid, PartitionIndex), Arc<str>>,
    regexes: BTreeMap<String, ResolvedRegex>,
    /// The version of the topics that the group was last looked at with.
    topics_version: Option<u64>,
    /// Since when it has no members, as far as is known.
    pub(super) empty_since_ms: i64,
    /// The records that are to be written.
    changed: BTreeSet<About>,
}

impl ModernGroup {
    pub(super) fn new(kind: Kind, now_ms: i64) -> Self {
        ModernGroup {
            kind,
            epoch: 0,
            metadata_hash: 0,
            assignment_epoch: 0,
            assignment_ms: 0,
            members: BTreeMap::new(),
            static_members: HashMap::new(),
            targets: HashMap::new(),
            holders: HashMap::new(),
            regexes: BTreeMap::new(),
            topics_version: None,
            empty_since_ms: now_ms,
            changed: BTreeSet::new(),
        }
    }

    /// The group is there, with an assignment to nobody; its epochs are what Kafka's are then.
    pub(super) fn begin_without_members(&mut self) {
        (self.epoch, self.assignment_epoch) = (1, 1);
        self.changed.extend([About::Epoch, About::TargetEpoch]);
    }

    fn take_changed(&mut self) -> BTreeSet<About> {
        std::mem::take(&mut self.changed)
    }

    /// A member says something of itself, perhaps for the first time.
    pub(super) fn put_info(&mut self, member_id: &Arc<str>, info: MemberInfo) {
        let is_new = !self.members.contains_key(member_id);
        let member = self.members.entry(member_id.clone()).or_default();
        if member.info == info && !is_new {
            return;
        }
        if let Some(instance_id) = &member.info.instance_id
            && self.static_members.get(instance_id) == Some(member_id)
        {
            self.static_members.remove(instance_id);
        }
        if let Some(instance_id) = &info.instance_id {
            self.static_members.insert(instance_id.clone(), member_id.clone());
        }
        member.info = info;
        self.changed.insert(About::Member(member_id.clone()));
    }

    pub(super) fn set_current(&mut self, member_id: &Arc<str>, current: Current) {
        self.drop_holds(member_id);
        let Some(member) = self.members.get_mut(member_id) else { return };
        member.current = current;
        self.take_holds(member_id);
        self.changed.insert(About::Current(member_id.clone()));
    }

    pub(super) fn remove_member(&mut self, member_id: &Arc<str>, now_ms: i64) -> Option<Member> {
        self.drop_holds(member_id);
        let member = self.members.remove(member_id)?;
        self.targets.remove(member_id);
        if let Some(instance_id) = &member.info.instance_id
            && self.static_members.get(instance_id) == Some(member_id)
        {
            self.static_members.remove(instance_id);
        }
        let id = member_id;
        self.changed.extend([
            About::Member(id.clone()),
            About::Target(id.clone()),
            About::Current(id.clone()),
        ]);
        if self.members.is_empty() {
            self.empty_since_ms = now_ms;
        }
        Some(member)
    }

    /// Gives a member's place, with all that it has and shall have, to another id in epoch 0.
    pub(super) fn replace_member(&mut self, old_id: &Arc<str>, new_id: Arc<str>) {
        let target = self.targets.get(old_id).cloned();
        let since_ms = self.empty_since_ms;
        let Some(member) = self.remove_member(old_id, since_ms) else { return };
        let current = Current { epoch: 0, previous_epoch: 0, ..member.current };
        self.put_info(&new_id, member.info);
        self.set_current(&new_id, current);
        if let Some(target) = target {
            self.targets.insert(new_id.clone(), target);
            self.changed.insert(About::Target(new_id));
        }
    }

    fn put_regex(&mut self, regex: String, resolved: ResolvedRegex) {
        self.changed.insert(About::Regex(regex.clone()));
        self.regexes.insert(regex, resolved);
    }

    fn drop_regex(&mut self, regex: &str) {
        if self.regexes.remove(regex).is_some() {
            self.changed.insert(About::Regex(regex.to_owned()));
        }
    }

    /// The group needs a new assignment.
    pub(super) fn bump_epoch(&mut self, topics: &Topics) {
        self.metadata_hash = self.compute_metadata_hash(topics);
        self.topics_version = Some(topics.version());
        self.epoch = self.epoch.saturating_add(1);
        self.changed.insert(About::Epoch);
    }

    /// As `bump_epoch` if the topics that the group reads are not what they were.
    pub(super) fn bump_epoch_if_topics_changed(&mut self, topics: &Topics) {
        if self.compute_metadata_hash(topics) != self.metadata_hash {
            return self.bump_epoch(topics);
        }
        self.topics_version = Some(topics.version());
    }

    /// What the members shall have, as of the group's epoch.
    fn set_assignment(&mut self, assignment: assignor::Assignment, now_ms: i64) {
        for (id, target) in assignment {
            if self.targets.get(&id) != Some(&target) {
                self.changed.insert(About::Target(id.clone()));
                self.targets.insert(id, target);
            }
        }
        self.assignment_epoch = self.epoch;
        self.assignment_ms = now_ms;
        self.changed.insert(About::TargetEpoch);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn member_count(&self) -> usize {
        self.members.len()
    }

    pub(super) fn member(&self, member_id: &str) -> Option<&Member> {
        self.members.get(member_id)
    }

    pub(super) fn member_ids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.members.keys()
    }

    pub(super) fn epoch(&self) -> i32 {
        self.epoch
    }

    pub(super) fn assignment_epoch(&self) -> i32 {
        self.assignment_epoch
    }

    pub(super) fn static_member_id(&self, instance_id: &str) -> Option<&Arc<str>> {
        self.static_members.get(instance_id)
    }

    pub(super) fn target(&self, member_id: &str) -> Option<&TopicPartitions> {
        self.targets.get(member_id)
    }

    pub(super) fn state(&self) -> ModernGroupState {
        if self.members.is_empty() {
            ModernGroupState::Empty
        } else if self.epoch > self.assignment_epoch {
            ModernGroupState::Assigning
        } else if self.members.values().all(|member| member.current.is_reconciled_to(self.assignment_epoch)) {
            ModernGroupState::Stable
        } else {
            ModernGroupState::Reconciling
        }
    }

    /// Whether a member reads `topic`, by name or by expression.
    pub(super) fn is_subscribed_to(&self, topic: &str) -> bool {
        self.members.values().any(|member| member.info.topics.contains(topic))
            || self.regexes.values().any(|resolved| resolved.topics.contains(topic))
    }

    /// All topics that any member reads.
    fn subscribed_topics(&self) -> BTreeSet<&str> {
        let by_name = self.members.values().flat_map(|member| &member.info.topics);
        let by_regex = self.regexes.values().flat_map(|resolved| &resolved.topics);
        by_name.chain(by_regex).map(String::as_str).collect()
    }

    /// The topics that a member reads and that there are, by id.
    pub(super) fn topic_ids_of(&self, info: &MemberInfo, topics: &Topics) -> BTreeSet<Uuid> {
        let by_regex = info.topic_regex.as_ref().and_then(|regex| self.regexes.get(regex));
        let by_regex = by_regex.into_iter().flat_map(|resolved| &resolved.topics);
        info.topics.iter().chain(by_regex).filter_map(|name| topics.by_name(name)).map(|(id, _)| id).collect()
    }

    /// A number that changes when the topics that the group reads come, go or grow (FNV-1a, never 0 with topics).
    fn compute_metadata_hash(&self, topics: &Topics) -> i64 {
        const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0000_0100_0000_01b3;
        let mut hash = OFFSET_BASIS;
        let mut is_any = false;
        for name in self.subscribed_topics() {
            let Some((id, count)) = topics.by_name(name) else { continue };
            is_any = true;
            for byte in id.as_bytes().iter().chain(&count.to_be_bytes()) {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
            }
        }
        if is_any { hash.cast_signed() } else { 0 }
    }

    /// Whether another member than `member_id` holds the partition.
    pub(super) fn is_held_by_other(&self, topic: Uuid, partition: PartitionIndex, member_id: &str) -> bool {
        self.holders.get(&(topic, partition)).is_some_and(|holder| &**holder != member_id)
    }

    fn take_holds(&mut self, member_id: &Arc<str>) {
        let Some(member) = self.members.get(member_id) else { return };
        if self.kind == Kind::Share {
            return;
        }
        for key in member.current.held() {
            self.holders.entry(key).or_insert_with(|| member_id.clone());
        }
    }

    fn drop_holds(&mut self, member_id: &str) {
        let Some(member) = self.members.get(member_id) else { return };
        for key in member.current.held() {
            if self.holders.get(&key).is_some_and(|holder| &**holder == member_id) {
                self.holders.remove(&key);
            }
        }
    }

    /// The invariants of the header, for tests.
    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        if self.kind == Kind::Consumer {
            let mut seen = HashMap::new();
            for (id, member) in &self.members {
                for key in member.current.held() {
                    assert_eq!(seen.insert(key, id), None, "{key:?} is held twice");
                    assert_eq!(self.holders.get(&key), Some(id));
                }
            }
            assert_eq!(seen.len(), self.holders.len());
        }
        assert!(self.assignment_epoch <= self.epoch);
        for (id, member) in &self.members {
            assert!(member.current.epoch <= self.assignment_epoch, "{id} is ahead of the assignment");
            if let Some(instance_id) = &member.info.instance_id {
                assert_eq!(self.static_members.get(instance_id), Some(id));
            }
        }
        assert!(self.targets.keys().all(|id| self.members.contains_key(id)));
    }
}

impl Current {
    pub(super) fn is_reconciled_to(&self, epoch: i32) -> bool {
        self.state == MemberState::Stable && self.epoch == epoch
    }

    /// Every partition that nobody else may have.
    fn held(&self) -> impl Iterator<Item = (Uuid, PartitionIndex)> {
        let each = |(topic, partitions): (&Uuid, &BTreeMap<PartitionIndex, i32>)| {
            let topic = *topic;
            partitions.keys().map(move |partition| (topic, *partition)).collect::<Vec<_>>()
        };
        self.assigned.iter().chain(&self.revoking).flat_map(each)
    }

    /// Everything that the member may still have, without epochs.
    pub(super) fn all_partitions(&self) -> TopicPartitions {
        let mut all = TopicPartitions::new();
        for (topic, partition) in self.held() {
            all.entry(topic).or_default().insert(partition);
        }
        all
    }

    /// The assigned partitions without their epochs.
    pub(super) fn partitions(&self) -> TopicPartitions {
        without_epochs(&self.assigned)
    }
}

/// Partitions without their epochs.
pub(super) fn without_epochs(assigned: &Assigned) -> TopicPartitions {
    assigned.iter().map(|(topic, partitions)| (*topic, partitions.keys().copied().collect())).collect()
}
