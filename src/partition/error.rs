//! Why a partition refused.

use crate::model::Offset;
use crate::record::InvalidBatch;
use crate::storage::{ProducerError, StorageError};

/// Why an append, a read or a question was refused. May cross shards.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PartitionError {
    /// This shard has no such partition.
    #[error("this server does not host this topic-partition")]
    UnknownPartition,
    /// The producer's batch breaks a rule.
    #[error(transparent)]
    Invalid(#[from] InvalidBatch),
    /// The producer's sequence or epoch does not follow from what it wrote before.
    #[error(transparent)]
    Producer(#[from] ProducerError),
    /// The offset is outside what the partition holds.
    #[error("offset {offset} is outside {log_start_offset}..{high_watermark}")]
    OffsetOutOfRange {
        /// What was asked for.
        offset: Offset,
        /// The first offset that there is.
        log_start_offset: Offset,
        /// The first offset that readers may not see.
        high_watermark: Offset,
    },
    /// The client believes in an older epoch.
    #[error("the leader epoch in the request is older than the partition's")]
    FencedLeaderEpoch,
    /// The client believes in an epoch that the partition has not reached.
    #[error("the leader epoch in the request is newer than the partition's")]
    UnknownLeaderEpoch,
    /// The topic asks for more replicas than one node has.
    #[error("min.insync.replicas is {0}, and one node has one replica")]
    NotEnoughReplicas(i32),
    /// The disk failed or is full.
    #[error("{0}")]
    Storage(String),
}

impl From<StorageError> for PartitionError {
    fn from(error: StorageError) -> Self {
        PartitionError::Storage(error.to_string())
    }
}
