//! The topic table and the shard table as one immutable value.

use std::collections::BTreeMap;
use std::sync::Arc;

use ahash::AHashMap;

use crate::model::{LeaderEpoch, PartitionIndex, ShardId, TopicName, TopicPartition, Uuid};

/// One topic: its id, its partitions and the configs that were set on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicImage {
    /// The name.
    pub name: TopicName,
    /// The id, as `partition.metadata` keeps it.
    pub id: Uuid,
    /// The partitions, by index.
    pub partitions: Vec<PartitionImage>,
    /// Configs set on this topic, by Kafka's topic-level names.
    pub configs: BTreeMap<String, String>,
}

/// One partition of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionImage {
    /// The shard that owns it in this run of the server. Ownership is not stored.
    pub owner: ShardId,
    /// The epoch of its leader in this run of the server, as its owner found it when it opened the log.
    pub leader_epoch: LeaderEpoch,
}

impl TopicImage {
    /// The partition, if there is such a one.
    pub fn partition(&self, partition: PartitionIndex) -> Option<&PartitionImage> {
        self.partitions.get(usize::try_from(partition).ok()?)
    }

    /// The shard that owns `partition`, if there is such a partition.
    pub fn owner(&self, partition: PartitionIndex) -> Option<ShardId> {
        self.partition(partition).map(|partition| partition.owner)
    }
}

/// All topics, by name and by id, with the dynamic configs of the broker.
#[derive(Debug, Clone, Default)]
pub struct ClusterImage {
    by_name: BTreeMap<TopicName, Arc<TopicImage>>,
    by_id: AHashMap<Uuid, Arc<TopicImage>>,
    /// Broker configs that were altered while running.
    pub broker_configs: BTreeMap<String, String>,
    /// Configs set on groups, by group and name.
    pub group_configs: BTreeMap<String, BTreeMap<String, String>>,
    /// Counts up with every change, so that a late copy is recognised.
    pub version: u64,
}

impl ClusterImage {
    /// A config that was set on a group.
    pub fn group_config(&self, group_id: &str, name: &str) -> Option<&str> {
        self.group_configs.get(group_id)?.get(name).map(String::as_str)
    }

    /// The topic of that name.
    pub fn topic(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.by_name.get(name)
    }

    /// The topic with that id.
    pub fn topic_by_id(&self, id: Uuid) -> Option<&Arc<TopicImage>> {
        self.by_id.get(&id)
    }

    /// All topics in the order of their names.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.by_name.values()
    }

    /// How many topics there are.
    pub fn topic_count(&self) -> usize {
        self.by_name.len()
    }

    /// Puts in a topic, replacing one of the same name.
    pub fn insert(&mut self, topic: TopicImage) {
        let topic = Arc::new(topic);
        if let Some(replaced) = self.by_name.insert(topic.name.clone(), topic.clone()) {
            self.by_id.remove(&replaced.id);
        }
        self.by_id.insert(topic.id, topic);
    }

    /// Puts in the leader epochs that the owners have found.
    pub fn set_leader_epochs(&mut self, epochs: impl IntoIterator<Item = (TopicPartition, LeaderEpoch)>) {
        for (TopicPartition { topic, partition }, leader_epoch) in epochs {
            let Some(known) = self.by_name.get(&topic) else { continue };
            let mut changed = TopicImage::clone(known);
            let index = usize::try_from(partition).unwrap_or(usize::MAX);
            if let Some(partition) = changed.partitions.get_mut(index) {
                partition.leader_epoch = leader_epoch;
                self.insert(changed);
            }
        }
    }

    /// Takes a topic out.
    pub fn remove(&mut self, name: &str) -> Option<Arc<TopicImage>> {
        let removed = self.by_name.remove(name)?;
        self.by_id.remove(&removed.id);
        Some(removed)
    }
}
