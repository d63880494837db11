//! Kafka's error codes for what the broker and the group coordinator refuse. No other module chooses one for them.

use kafka_protocol::error::ResponseError;
use kafka_protocol::protocol::StrBytes;

use crate::broker::BrokerError;
use crate::model::group::GroupError;
use crate::model::share::ShareError;
use crate::model::transaction::TransactionError;

/// "No error" on the wire.
pub(super) const NONE: i16 = 0;

/// Kafka's error for what the broker refuses.
pub(super) fn of(error: &BrokerError) -> ResponseError {
    match error {
        BrokerError::UnknownTopicOrPartition => ResponseError::UnknownTopicOrPartition,
        BrokerError::UnknownTopicId => ResponseError::UnknownTopicId,
        BrokerError::InvalidTopic(_) => ResponseError::InvalidTopicException,
        BrokerError::TopicAlreadyExists(_) => ResponseError::TopicAlreadyExists,
        BrokerError::InvalidPartitions(_) => ResponseError::InvalidPartitions,
        BrokerError::InvalidReplicationFactor(_) => ResponseError::InvalidReplicationFactor,
        BrokerError::InvalidReplicaAssignment(_) => ResponseError::InvalidReplicaAssignment,
        BrokerError::InvalidConfig(_) => ResponseError::InvalidConfig,
        BrokerError::InvalidRequest(_) => ResponseError::InvalidRequest,
        BrokerError::PolicyViolation(_) => ResponseError::PolicyViolation,
        BrokerError::OffsetOutOfRange { .. } => ResponseError::OffsetOutOfRange,
        BrokerError::FencedLeaderEpoch => ResponseError::FencedLeaderEpoch,
        BrokerError::UnknownLeaderEpoch => ResponseError::UnknownLeaderEpoch,
        BrokerError::CorruptMessage(_) => ResponseError::CorruptMessage,
        BrokerError::InvalidRecord(_) => ResponseError::InvalidRecord,
        BrokerError::InvalidTimestamp(_) => ResponseError::InvalidTimestamp,
        BrokerError::MessageTooLarge(_) => ResponseError::MessageTooLarge,
        BrokerError::UnsupportedCompression(_) => ResponseError::UnsupportedCompressionType,
        BrokerError::UnsupportedForMessageFormat(_) => ResponseError::UnsupportedForMessageFormat,
        BrokerError::OutOfOrderSequence(_) => ResponseError::OutOfOrderSequenceNumber,
        BrokerError::InvalidProducerEpoch(_) => ResponseError::InvalidProducerEpoch,
        BrokerError::TransactionCoordinatorFenced(_) => ResponseError::TransactionCoordinatorFenced,
        BrokerError::Transaction(error) => of_partition_transaction(*error),
        BrokerError::UnknownProducerId(_) => ResponseError::UnknownProducerId,
        BrokerError::NotEnoughReplicas(_) => ResponseError::NotEnoughReplicas,
        BrokerError::Storage(_) => ResponseError::KafkaStorageError,
        // Makes clients refresh their metadata and try again.
        BrokerError::ShardUnavailable => ResponseError::NotLeaderOrFollower,
        BrokerError::TimedOut => ResponseError::RequestTimedOut,
        BrokerError::Unsupported(_) => ResponseError::UnsupportedVersion,
    }
}

/// Kafka's error for what the transaction has against a batch. Older clients do not try again when they hear of the
/// coordinator, so Kafka tells them something that they do try again after, and that asks for no new metadata.
fn of_partition_transaction(error: TransactionError) -> ResponseError {
    match error {
        TransactionError::ConcurrentTransactions
        | TransactionError::CoordinatorLoadInProgress
        | TransactionError::CoordinatorNotAvailable
        | TransactionError::NotCoordinator => ResponseError::NotEnoughReplicas,
        other => of_transaction(other),
    }
}

/// Kafka's error for what a transaction coordinator refuses.
pub(super) fn of_transaction(error: TransactionError) -> ResponseError {
    match error {
        TransactionError::InvalidProducerIdMapping => ResponseError::InvalidProducerIdMapping,
        TransactionError::ProducerFenced => ResponseError::ProducerFenced,
        TransactionError::InvalidProducerEpoch => ResponseError::InvalidProducerEpoch,
        TransactionError::ConcurrentTransactions => ResponseError::ConcurrentTransactions,
        TransactionError::InvalidTransactionState => ResponseError::InvalidTxnState,
        TransactionError::TransactionAbortable => ResponseError::TransactionAbortable,
        TransactionError::InvalidTransactionTimeout => ResponseError::InvalidTransactionTimeout,
        TransactionError::TransactionalIdNotFound => ResponseError::TransactionalIdNotFound,
        TransactionError::InvalidRequest => ResponseError::InvalidRequest,
        TransactionError::TransactionalIdMissing => ResponseError::TransactionalIdAuthorizationFailed,
        TransactionError::CoordinatorNotAvailable => ResponseError::CoordinatorNotAvailable,
        TransactionError::CoordinatorLoadInProgress => ResponseError::CoordinatorLoadInProgress,
        TransactionError::NotCoordinator => ResponseError::NotCoordinator,
        TransactionError::TransactionalIdsMaxReached => ResponseError::PolicyViolation,
    }
}

/// The code of a result.
pub(super) fn code<T>(result: &Result<T, BrokerError>) -> i16 {
    result.as_ref().err().map_or(NONE, |error| of(error).code())
}

/// The sentence that goes with a result's code.
pub(super) fn message<T>(result: &Result<T, BrokerError>) -> Option<StrBytes> {
    result.as_ref().err().map(|error| StrBytes::from_string(error.to_string()))
}

/// Kafka's error for what a group coordinator refuses.
pub(super) fn of_group(error: GroupError) -> ResponseError {
    match error {
        GroupError::UnknownMemberId => ResponseError::UnknownMemberId,
        GroupError::IllegalGeneration => ResponseError::IllegalGeneration,
        GroupError::RebalanceInProgress => ResponseError::RebalanceInProgress,
        GroupError::InconsistentGroupProtocol => ResponseError::InconsistentGroupProtocol,
        GroupError::FencedInstanceId => ResponseError::FencedInstanceId,
        GroupError::MemberIdRequired => ResponseError::MemberIdRequired,
        GroupError::GroupMaxSizeReached => ResponseError::GroupMaxSizeReached,
        GroupError::InvalidSessionTimeout => ResponseError::InvalidSessionTimeout,
        GroupError::InvalidGroupId => ResponseError::InvalidGroupId,
        GroupError::InvalidRequest => ResponseError::InvalidRequest,
        GroupError::NonEmptyGroup => ResponseError::NonEmptyGroup,
        GroupError::GroupIdNotFound => ResponseError::GroupIdNotFound,
        GroupError::GroupSubscribedToTopic => ResponseError::GroupSubscribedToTopic,
        GroupError::OffsetMetadataTooLarge => ResponseError::OffsetMetadataTooLarge,
        GroupError::CoordinatorNotAvailable => ResponseError::CoordinatorNotAvailable,
        GroupError::CoordinatorLoadInProgress => ResponseError::CoordinatorLoadInProgress,
        GroupError::NotCoordinator => ResponseError::NotCoordinator,
        GroupError::UnstableOffsetCommit => ResponseError::UnstableOffsetCommit,
        GroupError::Transaction(error) => of_transaction(error),
        GroupError::FencedMemberEpoch => ResponseError::FencedMemberEpoch,
        GroupError::StaleMemberEpoch => ResponseError::StaleMemberEpoch,
        GroupError::UnsupportedAssignor => ResponseError::UnsupportedAssignor,
        GroupError::UnreleasedInstanceId => ResponseError::UnreleasedInstanceId,
        GroupError::InvalidRegularExpression => ResponseError::InvalidRegularExpression,
        // Kafka knows no limit on groups. Clients take this one for what it is: final, and about a limit.
        GroupError::GroupsMaxReached => ResponseError::GroupMaxSizeReached,
    }
}

/// Kafka's error for what a share group is refused for a partition.
pub(super) fn of_share(error: ShareError) -> ResponseError {
    match error {
        ShareError::InvalidRequest => ResponseError::InvalidRequest,
        ShareError::InvalidRecordState => ResponseError::InvalidRecordState,
        ShareError::UnknownPartition => ResponseError::UnknownTopicOrPartition,
        // Clients refresh their metadata and try again.
        ShareError::StateNotAvailable | ShareError::FencedStateEpoch => ResponseError::NotLeaderOrFollower,
    }
}

/// The code of a group's answer.
pub(super) fn group_code(error: Option<GroupError>) -> i16 {
    error.map_or(NONE, |error| of_group(error).code())
}
