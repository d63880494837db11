//! What the broker refuses, in Redis's words. Nowhere else does a broker error become a reply.

use crate::broker::BrokerError;

/// An error reply, its code in front: `ERR ...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ErrorReply(pub(super) String);

impl ErrorReply {
    /// A reply with the general code.
    pub(super) fn err(text: impl std::fmt::Display) -> Self {
        ErrorReply(format!("ERR {text}"))
    }

    /// The command's words do not follow its grammar.
    pub(super) fn syntax() -> Self {
        ErrorReply::err("syntax error")
    }

    /// An argument that should be a number is none, or out of its bounds.
    pub(super) fn not_an_integer() -> Self {
        ErrorReply::err("value is not an integer or out of range")
    }

    /// An entry id that is none.
    pub(super) fn invalid_id() -> Self {
        ErrorReply::err("Invalid stream ID specified as stream command argument")
    }

    /// The stream must be there for this command.
    pub(super) fn no_such_key() -> Self {
        ErrorReply::err("no such key")
    }

    /// The number of arguments does not fit the command.
    pub(super) fn arity(name: &str) -> Self {
        ErrorReply::err(format_args!("wrong number of arguments for '{}' command", name.to_ascii_lowercase()))
    }
}

impl From<BrokerError> for ErrorReply {
    fn from(error: BrokerError) -> Self {
        let text = error.to_string();
        match error {
            BrokerError::UnknownTopicOrPartition | BrokerError::UnknownTopicId => ErrorReply::no_such_key(),
            BrokerError::OffsetOutOfRange { .. } => ErrorReply::err(text),
            BrokerError::Storage(_) => ErrorReply(format!("MISCONF cannot write to disk: {text}; try again")),
            BrokerError::ShardUnavailable | BrokerError::TimedOut => ErrorReply(format!("TRYAGAIN {text}")),
            BrokerError::NotEnoughReplicas(_) => ErrorReply(format!("NOREPLICAS {text}")),
            BrokerError::MessageTooLarge(_) => {
                ErrorReply::err(format_args!("{text}; send less, or raise max.message.bytes of the topic"))
            }
            BrokerError::InvalidTopic(_)
            | BrokerError::TopicAlreadyExists(_)
            | BrokerError::InvalidPartitions(_)
            | BrokerError::InvalidReplicationFactor(_)
            | BrokerError::InvalidReplicaAssignment(_)
            | BrokerError::InvalidConfig(_)
            | BrokerError::InvalidRequest(_)
            | BrokerError::PolicyViolation(_)
            | BrokerError::FencedLeaderEpoch
            | BrokerError::UnknownLeaderEpoch
            | BrokerError::CorruptMessage(_)
            | BrokerError::InvalidRecord(_)
            | BrokerError::InvalidTimestamp(_)
            | BrokerError::UnsupportedCompression(_)
            | BrokerError::UnsupportedForMessageFormat(_)
            | BrokerError::OutOfOrderSequence(_)
            | BrokerError::InvalidProducerEpoch(_)
            | BrokerError::TransactionCoordinatorFenced(_)
            | BrokerError::UnknownProducerId(_)
            | BrokerError::Transaction(_)
            | BrokerError::Unsupported(_) => ErrorReply::err(text),
        }
    }
}
