//! The committed offsets of one group, and those that open transactions may yet commit.
//!
//! Invariants: an offset is here only after its record is in the log. `sequence` follows the order of the log, so
//! that a transaction's commit never overwrites an offset that was stored after it.
//! Source: Kafka's OffsetMetadataManager; KIP-447 for undecided offsets.

use std::collections::BTreeMap;

use crate::model::group::{ByTopic, FetchedOffset, GroupError, NO_COMMITTED_OFFSET};
use crate::model::{NO_LEADER_EPOCH, PartitionIndex, ProducerId, TopicName};

use super::schema::{self, OffsetValue, StateRecord};

/// One partition of one topic, as a key.
pub(super) type OffsetKey = (TopicName, PartitionIndex);

#[derive(Debug, Clone)]
struct Stored {
    value: OffsetValue,
    sequence: u64,
}

/// What an open transaction holds for one partition.
#[derive(Debug, Default)]
struct Undecided {
    /// Records on their way to the log; they count as undecided already.
    in_flight: u32,
    stored: Option<Stored>,
}

/// The offsets of one group.
#[derive(Debug, Default)]
pub(super) struct GroupOffsets {
    committed: BTreeMap<TopicName, BTreeMap<PartitionIndex, Stored>>,
    undecided: BTreeMap<ProducerId, BTreeMap<OffsetKey, Undecided>>,
}

impl GroupOffsets {
    pub(super) fn is_empty(&self) -> bool {
        self.committed.is_empty() && self.undecided.is_empty()
    }

    pub(super) fn has_open_transactions(&self) -> bool {
        !self.undecided.is_empty()
    }

    /// Stores an offset whose record is in the log at `sequence`.
    pub(super) fn put(&mut self, key: OffsetKey, value: OffsetValue, sequence: u64) {
        self.committed.entry(key.0).or_default().insert(key.1, Stored { value, sequence });
    }

    /// Forgets an offset, and what open transactions hold for its partition. `drop_decided` is to follow.
    pub(super) fn remove(&mut self, key: &OffsetKey) {
        if let Some(partitions) = self.committed.get_mut(&key.0) {
            partitions.remove(&key.1);
            if partitions.is_empty() {
                self.committed.remove(&key.0);
            }
        }
        for held in self.undecided.values_mut() {
            if let Some(undecided) = held.get_mut(key) {
                undecided.stored = None;
            }
        }
    }

    /// Notes that a transaction's offset is on its way to the log.
    pub(super) fn begin_undecided(&mut self, producer_id: ProducerId, key: OffsetKey) {
        self.undecided.entry(producer_id).or_default().entry(key).or_default().in_flight += 1;
    }

    /// Holds a transaction's offset whose record is in the log; ends `begin_undecided`, if it was announced.
    pub(super) fn put_undecided(
        &mut self,
        producer_id: ProducerId,
        key: OffsetKey,
        value: OffsetValue,
        sequence: u64,
    ) {
        let undecided = self.undecided.entry(producer_id).or_default().entry(key).or_default();
        undecided.in_flight = undecided.in_flight.saturating_sub(1);
        undecided.stored = Some(Stored { value, sequence });
    }

    /// Ends `begin_undecided` for an offset that did not reach the log. `drop_decided` is to follow.
    pub(super) fn cancel_undecided(&mut self, producer_id: ProducerId, key: &OffsetKey) {
        if let Some(undecided) = self.undecided.get_mut(&producer_id).and_then(|held| held.get_mut(key)) {
            undecided.in_flight = undecided.in_flight.saturating_sub(1);
        }
    }

    /// Whether a transaction holds anything here.
    pub(super) fn holds_for(&self, producer_id: ProducerId) -> bool {
        self.undecided.contains_key(&producer_id)
    }

    /// Decides what a transaction's offsets come to.
    pub(super) fn end_transaction(&mut self, producer_id: ProducerId, is_commit: bool) {
        let Some(held) = self.undecided.get_mut(&producer_id) else { return };
        for (key, undecided) in held {
            let Some(stored) = undecided.stored.take().filter(|_| is_commit) else { continue };
            let partitions = self.committed.entry(key.0.clone()).or_default();
            if partitions.get(&key.1).is_none_or(|current| current.sequence < stored.sequence) {
                partitions.insert(key.1, stored);
            }
        }
        self.drop_decided();
    }

    /// Forgets transactions that hold nothing any more.
    pub(super) fn drop_decided(&mut self) {
        self.undecided.retain(|_, held| {
            held.retain(|_, undecided| undecided.in_flight > 0 || undecided.stored.is_some());
            !held.is_empty()
        });
    }

    pub(super) fn has_undecided(&self, key: &OffsetKey) -> bool {
        self.undecided.values().any(|held| held.contains_key(key))
    }

    fn value(&self, key: &OffsetKey) -> Option<&OffsetValue> {
        self.committed.get(&key.0)?.get(&key.1).map(|stored| &stored.value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&TopicName, PartitionIndex, &OffsetValue)> {
        self.committed.iter().flat_map(|(topic, partitions)| {
            partitions.iter().map(move |(&partition, stored)| (topic, partition, &stored.value))
        })
    }

    /// Every partition with an offset, committed or undecided.
    pub(super) fn keys(&self) -> Vec<OffsetKey> {
        let mut keys: Vec<OffsetKey> =
            self.iter().map(|(topic, partition, _)| (topic.clone(), partition)).collect();
        keys.extend(self.undecided.values().flat_map(BTreeMap::keys).cloned());
        keys
    }

    /// What a client is told of the listed partitions.
    pub(super) fn fetch(
        &self,
        topics: &[ByTopic<PartitionIndex>],
        require_stable: bool,
    ) -> Vec<ByTopic<FetchedOffset>> {
        let fetch_topic = |topic: &ByTopic<PartitionIndex>| {
            topic.map_partitions(|&partition| {
                self.fetch_one(&(topic.topic.clone(), partition), require_stable)
            })
        };
        topics.iter().map(fetch_topic).collect()
    }

    /// What a client is told of all partitions with a committed offset.
    pub(super) fn fetch_all(&self, require_stable: bool) -> Vec<ByTopic<FetchedOffset>> {
        let list = |(topic, partitions): (&TopicName, &BTreeMap<PartitionIndex, Stored>)| ByTopic {
            topic: topic.clone(),
            topic_id: None,
            partitions: partitions.keys().copied().collect(),
        };
        let topics: Vec<_> = self.committed.iter().map(list).collect();
        self.fetch(&topics, require_stable)
    }

    fn fetch_one(&self, key: &OffsetKey, require_stable: bool) -> FetchedOffset {
        let error = (require_stable && self.has_undecided(key)).then_some(GroupError::UnstableOffsetCommit);
        match self.value(key).filter(|_| error.is_none()) {
            Some(value) => FetchedOffset {
                partition: key.1,
                offset: value.offset,
                leader_epoch: value.leader_epoch,
                metadata: value.metadata.clone(),
                error,
            },
            None => no_offset(key.1, error),
        }
    }

    /// The records that hold the committed offsets.
    pub(super) fn records(&self, group_id: &str) -> impl Iterator<Item = StateRecord> {
        self.iter().map(move |(topic, partition, value)| StateRecord {
            key: schema::offset_key(group_id, topic, partition),
            value: Some(value.encode()),
        })
    }
}

/// What a client is told of a partition without an offset.
pub(super) fn no_offset(partition: PartitionIndex, error: Option<GroupError>) -> FetchedOffset {
    FetchedOffset {
        partition,
        offset: NO_COMMITTED_OFFSET,
        leader_epoch: NO_LEADER_EPOCH,
        metadata: String::new(),
        error,
    }
}
