//! The words of transactions: what a producer asks of its transaction coordinator and what it is told.
//!
//! Plain values without their wire form, so that every front, the broker, the shard and the coordinator share them.
//! All of them may cross shards.
//! Source: Kafka's InitProducerId, AddPartitionsToTxn, EndTxn, ListTransactions and DescribeTransactions messages;
//! KIP-98 (transactions), KIP-360 (a producer brings its id and epoch), KIP-664 (listing), KIP-890 (transaction
//! version 2: a new epoch for each transaction).

use std::fmt;

use regex::{Regex, RegexBuilder};

use super::{ProducerEpoch, ProducerId, TopicPartition};

/// Most memory that a compiled pattern of ListTransactions may take.
const PATTERN_BYTES_MAX: usize = 1024 * 1024;

/// How a producer's client does transactions (KIP-890).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransactionVersion {
    /// The epoch stays from transaction to transaction; partitions are announced by AddPartitionsToTxn.
    V0,
    /// As 0, with records of the state log in the newer form.
    V1,
    /// Every transaction ends with a new epoch; partitions are added by the produce request itself.
    V2,
}

impl TransactionVersion {
    /// The level in features and records.
    pub fn level(self) -> i16 {
        self as i16
    }

    /// The version of a level; levels to come are taken for the highest known.
    pub fn of_level(level: i16) -> Self {
        match level {
            ..=0 => TransactionVersion::V0,
            1 => TransactionVersion::V1,
            _ => TransactionVersion::V2,
        }
    }

    /// Whether a transaction ends with a new epoch.
    pub fn bumps_epoch(self) -> bool {
        self == TransactionVersion::V2
    }
}

/// Where a transactional id stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransactionState {
    /// A producer has the id and has begun nothing.
    Empty,
    /// A transaction is open.
    Ongoing,
    /// It will be committed, whatever happens; the markers are being written.
    PrepareCommit,
    /// It will be aborted, whatever happens; the markers are being written.
    PrepareAbort,
    /// The last transaction was committed, everywhere.
    CompleteCommit,
    /// The last transaction was aborted, everywhere.
    CompleteAbort,
    /// The id is being forgotten.
    Dead,
}

impl TransactionState {
    /// All states.
    pub const ALL: [TransactionState; 7] = [
        TransactionState::Empty,
        TransactionState::Ongoing,
        TransactionState::PrepareCommit,
        TransactionState::PrepareAbort,
        TransactionState::CompleteCommit,
        TransactionState::CompleteAbort,
        TransactionState::Dead,
    ];

    /// Kafka's name of the state.
    pub fn name(self) -> &'static str {
        match self {
            TransactionState::Empty => "Empty",
            TransactionState::Ongoing => "Ongoing",
            TransactionState::PrepareCommit => "PrepareCommit",
            TransactionState::PrepareAbort => "PrepareAbort",
            TransactionState::CompleteCommit => "CompleteCommit",
            TransactionState::CompleteAbort => "CompleteAbort",
            TransactionState::Dead => "Dead",
        }
    }

    /// The state of that name.
    pub fn of_name(name: &str) -> Option<Self> {
        TransactionState::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether the outcome is decided and not everywhere yet.
    pub fn is_prepared(self) -> bool {
        matches!(self, TransactionState::PrepareCommit | TransactionState::PrepareAbort)
    }

    /// Whether the last transaction has ended everywhere.
    pub fn is_complete(self) -> bool {
        matches!(self, TransactionState::CompleteCommit | TransactionState::CompleteAbort)
    }
}

impl fmt::Display for TransactionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a transaction coordinator may have to refuse with. Each is one of Kafka's error codes unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TransactionError {
    /// The transactional id is not this producer id's.
    #[error("the producer id is not the one of the transactional id")]
    InvalidProducerIdMapping,
    /// A newer instance of the producer has taken over. Fatal for the client.
    #[error("a newer producer with the same transactional id has taken over")]
    ProducerFenced,
    /// As `ProducerFenced`, where the partition is asked and not the coordinator: the client may abort and go on.
    #[error("the producer's epoch is not the current one")]
    InvalidProducerEpoch,
    /// The last transaction is still being ended: try again.
    #[error("the producer's last transaction is still being completed")]
    ConcurrentTransactions,
    /// The transaction is not in a state in which this can be done.
    #[error("the transaction is not in a state in which this can be done")]
    InvalidTransactionState,
    /// The partition is not in the transaction; the client may abort and go on (KIP-890).
    #[error("the partition is not in the producer's transaction, which must be aborted")]
    TransactionAbortable,
    /// Not above 0, or above `transaction.max.timeout.ms`.
    #[error("the transaction timeout is not above 0 or above transaction.max.timeout.ms")]
    InvalidTransactionTimeout,
    /// No producer uses this transactional id.
    #[error("there is no such transactional id")]
    TransactionalIdNotFound,
    /// The transactional id is empty, or too long to be stored.
    #[error("the transactional id is empty or too long")]
    InvalidRequest,
    /// A batch of a transaction in a request without transactional id. (TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
    #[error("the request has transactional records and no transactional id")]
    TransactionalIdMissing,
    /// The state could not be stored just now: try again.
    #[error("the transaction coordinator cannot store its state now")]
    CoordinatorNotAvailable,
    /// The coordinator still replays its log: try again.
    #[error("the transaction coordinator is loading")]
    CoordinatorLoadInProgress,
    /// Another shard coordinates the transactional id now: find the coordinator again.
    #[error("this is not the coordinator of the transactional id")]
    NotCoordinator,
    /// The coordinator holds `transactional.ids.max` ids. (POLICY_VIOLATION: Kafka has no such limit.)
    #[error("this server has as many transactional ids as it may have (transactional.ids.max)")]
    TransactionalIdsMaxReached,
}

/// One request to the coordinator of one transactional id.
#[derive(Debug, Clone)]
pub enum TransactionRequest {
    /// See [`InitProducerId`].
    InitProducerId(InitProducerId),
    /// See [`AddPartitions`].
    AddPartitions(AddPartitions),
    /// As [`AddPartitions`], but only asks whether the partitions are in the transaction.
    VerifyPartitions(AddPartitions),
    /// See [`EndTransaction`].
    End(EndTransaction),
    /// Asks how the transactional id stands.
    Describe {
        /// The transactional id.
        transactional_id: String,
    },
}

/// The answer to the [`TransactionRequest`] of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransactionReply {
    /// The producer's id and epoch.
    InitProducerId(Result<(ProducerId, ProducerEpoch), TransactionError>),
    /// All partitions are in the transaction.
    AddPartitions(Result<(), TransactionError>),
    /// Whether each partition is in the transaction, in the order of the request.
    VerifyPartitions(Result<Vec<bool>, TransactionError>),
    /// The outcome is stored. The id and epoch that the producer goes on with: those it has, or new ones with
    /// transaction version 2.
    End(Result<(ProducerId, ProducerEpoch), TransactionError>),
    /// How it stands.
    Describe(Result<DescribedTransaction, TransactionError>),
}

/// Gives a producer the transactional id: a new epoch that fences all before, and the end of what they left open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitProducerId {
    /// The transactional id.
    pub transactional_id: String,
    /// How long a transaction of this producer may stay open.
    pub timeout_ms: i32,
    /// The id and epoch that the producer has, if it goes on after an error (KIP-360).
    pub present: Option<(ProducerId, ProducerEpoch)>,
}

/// Puts partitions into the producer's transaction, and begins one if none is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddPartitions {
    /// The transactional id.
    pub transactional_id: String,
    /// The producer.
    pub producer_id: ProducerId,
    /// Its epoch.
    pub producer_epoch: ProducerEpoch,
    /// How its client does transactions.
    pub version: TransactionVersion,
    /// Which partitions.
    pub partitions: Vec<TopicPartition>,
}

/// Commits or aborts the producer's transaction. Answered when the outcome is stored; the markers follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndTransaction {
    /// The transactional id.
    pub transactional_id: String,
    /// The producer.
    pub producer_id: ProducerId,
    /// Its epoch.
    pub producer_epoch: ProducerEpoch,
    /// How its client does transactions.
    pub version: TransactionVersion,
    /// Whether to commit.
    pub is_commit: bool,
}

/// How a transactional id stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedTransaction {
    /// Its state.
    pub state: TransactionState,
    /// Its producer.
    pub producer_id: ProducerId,
    /// The producer's epoch.
    pub producer_epoch: ProducerEpoch,
    /// How long a transaction may stay open.
    pub timeout_ms: i32,
    /// When the open (or last) transaction began; -1 for none.
    pub start_ms: i64,
    /// What is in the transaction, in order.
    pub partitions: Vec<TopicPartition>,
}

/// Asks for the transactional ids that fit.
#[derive(Debug, Clone, Default)]
pub struct ListTransactions {
    /// In one of these states; any if there is none.
    pub states: Vec<TransactionState>,
    /// Of one of these producers; any if there is none.
    pub producer_ids: Vec<ProducerId>,
    /// Open for longer than this; -1 for any.
    pub longer_than_ms: i64,
    /// Of a name like this.
    pub pattern: Option<IdPattern>,
}

/// A transactional id of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedTransaction {
    /// The transactional id.
    pub transactional_id: String,
    /// Its producer.
    pub producer_id: ProducerId,
    /// Its state.
    pub state: TransactionState,
}

/// A pattern for whole transactional ids, of a kind that is matched in linear time (RE2's).
#[derive(Debug, Clone)]
pub struct IdPattern(Regex);

impl IdPattern {
    /// Compiles a pattern; none if it is no regular expression, or too large a one.
    pub fn new(pattern: &str) -> Option<Self> {
        let whole = format!("^(?:{pattern})$");
        // On its own first, so that nothing escapes the parentheses.
        RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build().ok()?;
        RegexBuilder::new(&whole).size_limit(PATTERN_BYTES_MAX).build().ok().map(IdPattern)
    }

    /// Whether the whole of `id` fits.
    pub fn fits(&self, id: &str) -> bool {
        self.0.is_match(id)
    }
}

impl TransactionRequest {
    /// The transactional id that the request is about.
    pub fn transactional_id(&self) -> &str {
        match self {
            TransactionRequest::InitProducerId(request) => &request.transactional_id,
            TransactionRequest::AddPartitions(request) | TransactionRequest::VerifyPartitions(request) => {
                &request.transactional_id
            }
            TransactionRequest::End(request) => &request.transactional_id,
            TransactionRequest::Describe { transactional_id } => transactional_id,
        }
    }

    /// The reply that refuses the request.
    pub fn refused(&self, error: TransactionError) -> TransactionReply {
        match self {
            TransactionRequest::InitProducerId(_) => TransactionReply::InitProducerId(Err(error)),
            TransactionRequest::AddPartitions(_) => TransactionReply::AddPartitions(Err(error)),
            TransactionRequest::VerifyPartitions(_) => TransactionReply::VerifyPartitions(Err(error)),
            TransactionRequest::End(_) => TransactionReply::End(Err(error)),
            TransactionRequest::Describe { .. } => TransactionReply::Describe(Err(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{IdPattern, TransactionState};

    #[test]
    fn a_pattern_is_about_the_whole_id() {
        let pattern = IdPattern::new("orders-[0-9]+|payments").unwrap();
        assert!(pattern.fits("orders-12") && pattern.fits("payments"));
        assert!(!pattern.fits("orders-12x") && !pattern.fits("my-payments"));
        assert!(IdPattern::new("(").is_none() && IdPattern::new("a)|(b").is_none());
        assert!(IdPattern::new("((a{500}){500}){500}").is_none(), "it would take too much memory");
    }

    #[test]
    fn states_are_found_by_their_names() {
        for state in TransactionState::ALL {
            assert_eq!(TransactionState::of_name(state.name()), Some(state));
        }
        assert_eq!(TransactionState::of_name("empty"), None);
    }
}
