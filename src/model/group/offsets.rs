//! The words of committed offsets: OffsetCommit, TxnOffsetCommit, OffsetFetch, OffsetDelete.

use crate::model::{LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, TopicName, Uuid};

use super::GroupError;

/// "No committed offset" in an OffsetFetch reply.
pub const NO_COMMITTED_OFFSET: Offset = -1;

/// Partitions or results under a topic, with the id that the client named it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByTopic<P> {
    /// The topic.
    pub topic: TopicName,
    /// Handed back as it came; the coordinator knows topics by name.
    pub topic_id: Option<Uuid>,
    /// One entry per partition.
    pub partitions: Vec<P>,
}

/// Stores how far the group has read. Answered once stored.
#[derive(Debug, Clone)]
pub struct OffsetCommit {
    /// The group.
    pub group_id: String,
    /// The member's generation, or [`super::NO_GENERATION`] from outside the group.
    pub generation_id: i32,
    /// The member, or empty.
    pub member_id: String,
    /// Its static name.
    pub group_instance_id: Option<String>,
    /// Own retention of these offsets (OffsetCommit v2 to v4); -1 for the server's.
    pub retention_time_ms: i64,
    /// The producer of a TxnOffsetCommit: the offsets count only when its transaction commits.
    pub producer: Option<(ProducerId, ProducerEpoch)>,
    /// What to store.
    pub topics: Vec<ByTopic<CommitPartition>>,
}

/// The offset to store for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitPartition {
    /// The partition.
    pub partition: PartitionIndex,
    /// The next offset to read.
    pub offset: Offset,
    /// The leader epoch of the last record read; -1 when not known.
    pub leader_epoch: LeaderEpoch,
    /// The client's note.
    pub metadata: Option<String>,
    /// The time of the commit as the client sees it (OffsetCommit v1).
    pub commit_timestamp_ms: Option<i64>,
}

/// Which offsets were stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetCommitReply {
    /// All partitions of the request, in its order.
    pub topics: Vec<ByTopic<PartitionResult>>,
}

/// Whether a verb worked for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionResult {
    /// The partition.
    pub partition: PartitionIndex,
    /// None when it worked.
    pub error: Option<GroupError>,
}

/// Asks how far the group has read.
#[derive(Debug, Clone)]
pub struct OffsetFetch {
    /// The group.
    pub group_id: String,
    /// The member (v9 and later); classic groups do not look at it.
    pub member_id: Option<String>,
    /// The member's epoch (v9 and later); classic groups do not look at it.
    pub member_epoch: i32,
    /// Which partitions, or all that have an offset.
    pub topics: Option<Vec<ByTopic<PartitionIndex>>>,
    /// Whether to refuse offsets that an open transaction may still change (KIP-447).
    pub require_stable: bool,
}

/// How far the group has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetFetchReply {
    /// Set when the request failed as a whole.
    pub error: Option<GroupError>,
    /// All partitions of the request, in its order, or all that have an offset.
    pub topics: Vec<ByTopic<FetchedOffset>>,
}

/// The committed offset of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedOffset {
    /// The partition.
    pub partition: PartitionIndex,
    /// The offset, or [`NO_COMMITTED_OFFSET`].
    pub offset: Offset,
    /// The leader epoch stored beside it, or -1.
    pub leader_epoch: LeaderEpoch,
    /// The note stored beside it.
    pub metadata: String,
    /// Set when this partition cannot be answered.
    pub error: Option<GroupError>,
}

/// Forgets committed offsets of topics that no member subscribes to.
#[derive(Debug, Clone)]
pub struct OffsetDelete {
    /// The group.
    pub group_id: String,
    /// What to forget.
    pub topics: Vec<ByTopic<PartitionIndex>>,
}

/// Which offsets were forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetDeleteReply {
    /// Set when the request failed as a whole; `topics` is empty then.
    pub error: Option<GroupError>,
    /// All partitions of the request, in its order.
    pub topics: Vec<ByTopic<PartitionResult>>,
}

impl OffsetCommit {
    /// The reply that refuses every partition of the commit with `error`.
    pub fn refused(&self, error: GroupError) -> OffsetCommitReply {
        let refuse =
            |commit: &CommitPartition| PartitionResult { partition: commit.partition, error: Some(error) };
        OffsetCommitReply { topics: self.topics.iter().map(|topic| topic.map_partitions(refuse)).collect() }
    }
}

impl<P> ByTopic<P> {
    /// The same topic with what `convert` makes of each partition.
    pub fn map_partitions<Q>(&self, convert: impl FnMut(&P) -> Q) -> ByTopic<Q> {
        ByTopic {
            topic: self.topic.clone(),
            topic_id: self.topic_id,
            partitions: self.partitions.iter().map(convert).collect(),
        }
    }
}
