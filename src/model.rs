//! The nouns that every floor shares: topics, partitions, offsets, shards.
//!
//! Plain values without I/O. `position` is always a byte in a file, `offset` always a record's number.

pub mod group;
pub mod share;
pub mod stream_group;
mod topic_name;
pub mod transaction;

use std::fmt;

pub use topic_name::{IllegalTopicName, TopicName};
pub use uuid::Uuid;

/// A record's number within its partition.
pub type Offset = i64;
/// The epoch of a partition's leader; this server stamps the epoch of the partition's current life.
pub type LeaderEpoch = i32;
/// A producer's id, given by InitProducerId; -1 for a producer that is not idempotent.
pub type ProducerId = i64;
/// A producer's epoch; a higher one fences the lower.
pub type ProducerEpoch = i16;
/// A partition's number within its topic.
pub type PartitionIndex = i32;
/// A shard's number: 0 up to the count of shards.
pub type ShardId = usize;

/// "No producer id" on the wire and on disk.
pub const NO_PRODUCER_ID: ProducerId = -1;
/// "No producer epoch" on the wire and on disk.
pub const NO_PRODUCER_EPOCH: ProducerEpoch = -1;
/// "No leader epoch" on the wire and on disk.
pub const NO_LEADER_EPOCH: LeaderEpoch = -1;
/// "No timestamp" on the wire and on disk.
pub const NO_TIMESTAMP: i64 = -1;

/// The internal topic that holds committed offsets and group metadata.
pub const CONSUMER_OFFSETS_TOPIC: &str = "__consumer_offsets";
/// The internal topic that holds transaction state.
pub const TRANSACTION_STATE_TOPIC: &str = "__transaction_state";
/// The internal topic that holds what groups that read entry by entry have pending.
pub const STREAM_GROUPS_TOPIC: &str = "__stream_groups";
/// The internal topic that holds what share groups have read.
pub const SHARE_GROUP_STATE_TOPIC: &str = "__share_group_state";
/// The internal topic that holds topics, configs and producer-id blocks.
pub const CLUSTER_METADATA_TOPIC: &str = "__cluster_metadata";

/// One partition of one topic, by name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic.
    pub topic: TopicName,
    /// The partition's number within it.
    pub partition: PartitionIndex,
}

impl TopicPartition {
    /// Names partition `partition` of `topic`.
    pub fn new(topic: TopicName, partition: PartitionIndex) -> Self {
        TopicPartition { topic, partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

impl fmt::Debug for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
