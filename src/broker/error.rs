//! What any front may have to tell a client. Fronts turn these into their protocol's codes, nobody else does.

use crate::model::Offset;
use crate::model::transaction::TransactionError;
use crate::partition::PartitionError;
use crate::record::InvalidBatch;
use crate::storage::ProducerError;

/// Why a verb was refused. The text, where there is one, is for the client's eyes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// No such topic, or the topic has no such partition.
    #[error("this server does not host this topic-partition")]
    UnknownTopicOrPartition,
    /// No topic has this id.
    #[error("this server does not host this topic id")]
    UnknownTopicId,
    /// The name breaks the rules for topic names.
    #[error("{0}")]
    InvalidTopic(String),
    /// Create: the name is taken.
    #[error("{0}")]
    TopicAlreadyExists(String),
    /// Create: a count of partitions that cannot be.
    #[error("{0}")]
    InvalidPartitions(String),
    /// Create: more replicas than the one node has.
    #[error("{0}")]
    InvalidReplicationFactor(String),
    /// Create: an assignment that names other nodes.
    #[error("{0}")]
    InvalidReplicaAssignment(String),
    /// A config that is unknown, out of bounds or not supported.
    #[error("{0}")]
    InvalidConfig(String),
    /// A request that contradicts itself.
    #[error("{0}")]
    InvalidRequest(String),
    /// Allowed by the protocol, refused by this server's settings or limits.
    #[error("{0}")]
    PolicyViolation(String),
    /// The offset is outside what the partition holds.
    #[error("offset {offset} is outside {log_start_offset}..{high_watermark}")]
    OffsetOutOfRange {
        /// What was asked for.
        offset: Offset,
        /// The first offset that there is.
        log_start_offset: Offset,
        /// The first offset that there is not.
        high_watermark: Offset,
    },
    /// The client believes in an older epoch of this partition.
    #[error("the leader epoch in the request is older than the partition's")]
    FencedLeaderEpoch,
    /// The client believes in an epoch that this partition has not reached.
    #[error("the leader epoch in the request is newer than the partition's")]
    UnknownLeaderEpoch,
    /// A batch whose bytes are damaged: sizes, CRC or compression.
    #[error("{0}")]
    CorruptMessage(String),
    /// A batch that is whole but breaks a rule.
    #[error("{0}")]
    InvalidRecord(String),
    /// A record's timestamp is too far from the server's clock.
    #[error("{0}")]
    InvalidTimestamp(String),
    /// A batch larger than `max.message.bytes`.
    #[error("{0}")]
    MessageTooLarge(String),
    /// A compression type that this server or this request version does not know.
    #[error("{0}")]
    UnsupportedCompression(String),
    /// Message formats before v2 are not taken.
    #[error("{0}")]
    UnsupportedForMessageFormat(String),
    /// An idempotent producer has left a gap.
    #[error("{0}")]
    OutOfOrderSequence(String),
    /// A newer producer with this id has taken over.
    #[error("{0}")]
    InvalidProducerEpoch(String),
    /// A marker of a transaction coordinator that was replaced.
    #[error("{0}")]
    TransactionCoordinatorFenced(String),
    /// A producer id that this server did not give.
    #[error("{0}")]
    UnknownProducerId(String),
    /// A transaction cannot be begun, gone on with or ended like this.
    #[error("{0}")]
    Transaction(TransactionError),
    /// The topic asks for more replicas than one node has.
    #[error("{0}")]
    NotEnoughReplicas(String),
    /// The disk failed or is full; worth retrying.
    #[error("{0}")]
    Storage(String),
    /// The owning shard has stopped or its queue is gone; worth retrying.
    #[error("the shard that owns this is not available")]
    ShardUnavailable,
    /// It took longer than the client allowed.
    #[error("the request timed out")]
    TimedOut,
    /// Known to Kafka, not (yet) done by this version.
    #[error("{0}")]
    Unsupported(String),
}

impl From<PartitionError> for BrokerError {
    fn from(error: PartitionError) -> Self {
        let text = error.to_string();
        match error {
            PartitionError::UnknownPartition => BrokerError::UnknownTopicOrPartition,
            PartitionError::Invalid(invalid) => refused_batch(&invalid),
            PartitionError::Producer(ProducerError::OutOfOrderSequence { .. }) => {
                BrokerError::OutOfOrderSequence(text)
            }
            PartitionError::Producer(ProducerError::InvalidEpoch { .. }) => {
                BrokerError::InvalidProducerEpoch(text)
            }
            PartitionError::Producer(ProducerError::CoordinatorFenced { .. }) => {
                BrokerError::TransactionCoordinatorFenced(text)
            }
            PartitionError::Producer(
                ProducerError::TransactionOpen { .. } | ProducerError::NotInTransaction { .. },
            ) => BrokerError::Transaction(TransactionError::InvalidTransactionState),
            PartitionError::OffsetOutOfRange { offset, log_start_offset, high_watermark } => {
                BrokerError::OffsetOutOfRange { offset, log_start_offset, high_watermark }
            }
            PartitionError::FencedLeaderEpoch => BrokerError::FencedLeaderEpoch,
            PartitionError::UnknownLeaderEpoch => BrokerError::UnknownLeaderEpoch,
            PartitionError::NotEnoughReplicas(_) => BrokerError::NotEnoughReplicas(text),
            PartitionError::Storage(text) => BrokerError::Storage(text),
        }
    }
}

/// Kafka's answer to a batch that breaks a rule; see [`InvalidBatch`] for why each is what it is.
fn refused_batch(invalid: &InvalidBatch) -> BrokerError {
    let text = invalid.to_string();
    match invalid {
        InvalidBatch::Corrupt(_) | InvalidBatch::Decompression(_) => BrokerError::CorruptMessage(text),
        InvalidBatch::TooLarge { .. } => BrokerError::MessageTooLarge(text),
        InvalidBatch::UnknownCodec { .. } => BrokerError::UnsupportedCompression(text),
        InvalidBatch::Timestamp { .. } | InvalidBatch::TimestampType => BrokerError::InvalidTimestamp(text),
        InvalidBatch::NoBatch
        | InvalidBatch::MoreThanOneBatch { .. }
        | InvalidBatch::LegacyMagic { .. }
        | InvalidBatch::BaseOffset { .. }
        | InvalidBatch::NoRecords { .. }
        | InvalidBatch::OffsetRange { .. }
        | InvalidBatch::ControlBatch
        | InvalidBatch::BaseSequence { .. }
        | InvalidBatch::MalformedRecord(_)
        | InvalidBatch::OffsetDelta { .. }
        | InvalidBatch::KeyMissing { .. } => BrokerError::InvalidRecord(text),
    }
}
