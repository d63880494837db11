//! Who shall read which partition: pure functions of the members, what they read, and what they were to have before.
//!
//! - `uniform` gives every member about as many partitions and moves as few as it can;
//! - `range` gives each member a range of every topic, so that topics of equal size are read by the same members side
//!   by side;
//! - `share` lets members share partitions: every partition has a reader, every member something to read.
//!
//! Source: KIP-848 and KIP-932; Kafka's UniformAssignor, RangeAssignor, SimpleAssignor.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::model::group::TopicPartitions;
use crate::model::{PartitionIndex, Uuid};

/// A way of assigning partitions to the members of a consumer group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assignor {
    /// Equal shares, few moves.
    Uniform,
    /// A range of each topic.
    Range,
}

impl Assignor {
    /// The assignor of that name.
    pub fn of_name(name: &str) -> Option<Assignor> {
        match name {
            "uniform" => Some(Assignor::Uniform),
            "range" => Some(Assignor::Range),
            _ => None,
        }
    }

    /// Kafka's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Assignor::Uniform => "uniform",
            Assignor::Range => "range",
        }
    }

    pub(super) fn assign(self, group: &ToAssign<'_>) -> Assignment {
        match self {
            Assignor::Uniform => uniform(group),
            Assignor::Range => range(group),
        }
    }
}

/// Who reads what.
pub(super) type Assignment = BTreeMap<Arc<str>, TopicPartitions>;

/// One member to be given partitions.
pub(super) struct AssignedTo<'a> {
    pub(super) id: &'a Arc<str>,
    pub(super) instance_id: Option<&'a str>,
    /// The topics that it reads; each is in `ToAssign::partition_counts`.
    pub(super) topics: BTreeSet<Uuid>,
    /// What it was to have before.
    pub(super) previous: Option<&'a TopicPartitions>,
}

/// A group whose partitions are to be assigned.
pub(super) struct ToAssign<'a> {
    /// By member id.
    pub(super) members: Vec<AssignedTo<'a>>,
    pub(super) partition_counts: BTreeMap<Uuid, PartitionIndex>,
}

impl ToAssign<'_> {
    fn nothing(&self) -> Assignment {
        self.members.iter().map(|member| (member.id.clone(), TopicPartitions::new())).collect()
    }

    /// For each topic the members that read it, by their place in `members`.
    fn readers(&self) -> BTreeMap<Uuid, Vec<usize>> {
        let mut readers: BTreeMap<Uuid, Vec<usize>> = BTreeMap::new();
        for (index, member) in self.members.iter().enumerate() {
            for topic in &member.topics {
                readers.entry(*topic).or_default().push(index);
            }
        }
        readers
    }

    fn count(&self, topic: Uuid) -> PartitionIndex {
        self.partition_counts.get(&topic).copied().unwrap_or(0)
    }
}

fn range(group: &ToAssign<'_>) -> Assignment {
    let mut assignment = group.nothing();
    for (topic, mut readers) in group.readers() {
        // Static members first, by their names, so that a restart does not change the order.
        readers.sort_by_key(|&index| {
            let member = &group.members[index];
            (member.instance_id.is_none(), member.instance_id, member.id.clone())
        });
        let count = group.count(topic);
        let reader_count = PartitionIndex::try_from(readers.len()).unwrap_or(PartitionIndex::MAX).max(1);
        let (share, mut extra) = (count / reader_count, count % reader_count);
        let mut next = 0;
        for index in readers {
            let size = share + PartitionIndex::from(extra > 0);
            extra -= PartitionIndex::from(extra > 0);
            if size > 0 {
                let own = assignment.entry(group.members[index].id.clone()).or_default();
                own.insert(topic, (next..next + size).collect());
            }
            next += size;
        }
    }
    assignment
}

/// Partitions in the hands of members, with a count for each member.
struct Hands {
    owners: HashMap<(Uuid, PartitionIndex), usize>,
    counts: Vec<usize>,
    /// The partitions of each member, in order.
    held: Vec<BTreeSet<(Uuid, PartitionIndex)>>,
}

impl Hands {
    fn new(member_count: usize) -> Self {
        Hands {
            owners: HashMap::new(),
            counts: vec![0; member_count],
            held: vec![BTreeSet::new(); member_count],
        }
    }

    fn give(&mut self, key: (Uuid, PartitionIndex), to: usize) {
        if let Some(from) = self.owners.insert(key, to) {
            self.counts[from] -= 1;
            self.held[from].remove(&key);
        }
        self.counts[to] += 1;
        self.held[to].insert(key);
    }

    fn into_assignment(self, group: &ToAssign<'_>) -> Assignment {
        let mut assignment = group.nothing();
        for (member, held) in group.members.iter().zip(self.held) {
            let own = assignment.entry(member.id.clone()).or_default();
            for (topic, partition) in held {
                own.entry(topic).or_default().insert(partition);
            }
        }
        assignment
    }
}

fn uniform(group: &ToAssign<'_>) -> Assignment {
    let readers = group.readers();
    let is_homogeneous = readers.values().all(|it| it.len() == group.members.len());
    let mut hands = Hands::new(group.members.len());
    let total: usize = readers.keys().map(|topic| usize::try_from(group.count(*topic)).unwrap_or(0)).sum();
    let member_count = group.members.len().max(1);
    // With equal subscriptions nobody keeps more than its share; who had more than the floor may keep one of the rest.
    let (share, mut extra) = (total / member_count, total % member_count);
    for (index, member) in group.members.iter().enumerate() {
        for (topic, partitions) in member.previous.into_iter().flatten() {
            if !member.topics.contains(topic) {
                continue;
            }
            for &partition in partitions {
                let is_taken =
                    partition >= group.count(*topic) || hands.owners.contains_key(&(*topic, partition));
                let is_full = is_homogeneous && hands.counts[index] >= share + usize::from(extra > 0);
                if !is_taken && !is_full {
                    hands.give((*topic, partition), index);
                }
            }
        }
        if hands.counts[index] > share {
            extra = extra.saturating_sub(1);
        }
    }
    let free = |hands: &Hands, topic: Uuid| -> Vec<(Uuid, PartitionIndex)> {
        let keys = (0..group.count(topic)).map(|partition| (topic, partition));
        keys.filter(|key| !hands.owners.contains_key(key)).collect()
    };
    if is_homogeneous {
        let mut unfilled =
            BTreeSet::from_iter((0..group.members.len()).map(|index| (hands.counts[index], index)));
        for topic in readers.keys() {
            for key in free(&hands, *topic) {
                let Some((count, index)) = unfilled.pop_first() else { break };
                hands.give(key, index);
                unfilled.insert((count + 1, index));
            }
        }
    } else {
        // Topics with few readers first, as the others leave more of a choice.
        let mut topics: Vec<(usize, Uuid)> = readers.iter().map(|(topic, it)| (it.len(), *topic)).collect();
        topics.sort_unstable();
        for (_, topic) in topics {
            for key in free(&hands, topic) {
                let least = readers[&topic].iter().copied().min_by_key(|&index| hands.counts[index]);
                if let Some(index) = least {
                    hands.give(key, index);
                }
            }
        }
        balance(&readers, &mut hands);
    }
    hands.into_assignment(group)
}

/// Moves partitions to members that may have them and have at least two fewer, until there are none. Every move makes
/// the sum of the squares of the counts smaller, so it ends.
fn balance(readers: &BTreeMap<Uuid, Vec<usize>>, hands: &mut Hands) {
    loop {
        let mut is_moved = false;
        let mut fullest: Vec<usize> = (0..hands.counts.len()).collect();
        fullest.sort_by_key(|&index| std::cmp::Reverse(hands.counts[index]));
        for from in fullest {
            let topics: BTreeSet<Uuid> = hands.held[from].iter().map(|(topic, _)| *topic).collect();
            for topic in topics {
                loop {
                    let least = readers[&topic].iter().copied().min_by_key(|&index| hands.counts[index]);
                    let Some(to) = least.filter(|&to| hands.counts[to] + 2 <= hands.counts[from]) else {
                        break;
                    };
                    let last = hands.held[from].range((topic, 0)..=(topic, PartitionIndex::MAX)).next_back();
                    let Some(&key) = last else { break };
                    hands.give(key, to);
                    is_moved = true;
                }
            }
        }
        if !is_moved {
            return;
        }
    }
}

/// Every partition has at least one of its topic's readers; with more readers than partitions the partitions are
/// spread over them evenly. Members keep what they had where that keeps the balance.
pub(super) fn share(group: &ToAssign<'_>) -> Assignment {
    let mut assignment = group.nothing();
    for (topic, readers) in group.readers() {
        let count = usize::try_from(group.count(topic)).unwrap_or(0);
        if count == 0 {
            continue;
        }
        // As many places as needed for each partition to have one and each reader to have one.
        let places = count.max(readers.len());
        let partition_max = places.div_ceil(count);
        let reader_max = places.div_ceil(readers.len());
        let mut readers_of = vec![0; count];
        let mut counts = vec![0; readers.len()];
        let mut has: BTreeSet<(usize, usize)> = BTreeSet::new();
        for (place, &index) in readers.iter().enumerate() {
            let before = group.members[index].previous.and_then(|previous| previous.get(&topic));
            for partition in before.into_iter().flatten().filter_map(|&it| usize::try_from(it).ok()) {
                if partition < count && readers_of[partition] < partition_max && counts[place] < reader_max {
                    readers_of[partition] += 1;
                    counts[place] += 1;
                    has.insert((place, partition));
                }
            }
        }
        // Partitions without a reader go to the members with the fewest, then members without a partition join the
        // partitions with the fewest readers.
        for partition in (0..count).filter(|&it| readers_of[it] == 0).collect::<Vec<_>>() {
            if let Some(place) = (0..readers.len()).min_by_key(|&place| counts[place]) {
                counts[place] += 1;
                readers_of[partition] += 1;
                has.insert((place, partition));
            }
        }
        for place in (0..readers.len()).filter(|&it| counts[it] == 0).collect::<Vec<_>>() {
            if let Some(partition) = (0..count).min_by_key(|&partition| readers_of[partition]) {
                readers_of[partition] += 1;
                has.insert((place, partition));
            }
        }
        for (place, partition) in has {
            let own = assignment.entry(group.members[readers[place]].id.clone()).or_default();
            own.entry(topic)
                .or_default()
                .insert(PartitionIndex::try_from(partition).unwrap_or(PartitionIndex::MAX));
        }
    }
    assignment
}

#[cfg(test)]
mod tests;
