//! Transactions: the coordinator of the transactional ids of one `__transaction_state` partition.
//!
//! Lives on: the shard that owns the partition; never shared. Created empty, fed the partition's records by
//! `replay`, opened by `loaded`, ended by `close`.
//!
//! How to drive it. A verb ([`TransactionCoordinator::handle`]) takes a request, a token to answer it by, and the time,
//! and gives [`Effects`]. The caller
//! 1. sends `replies`,
//! 2. appends each of `records` to the partition, in their order, and reports the end of each append with
//!    [`TransactionCoordinator::appended`] or [`TransactionCoordinator::append_failed`],
//! 3. writes `markers` into the partitions that they name, until all of them are written, and then calls
//!    [`TransactionCoordinator::markers_written`],
//! 4. keeps a timer for [`TransactionCoordinator::next_deadline_ms`] and calls [`TransactionCoordinator::on_timer`] then,
//! 5. sees to it that the coordinator has a producer id to give away (`needs_producer_id`, `give_producer_id`) before it
//!    hands over a request.
//!
//! Promise: every token is answered exactly once (at the latest by `close`); whatever is answered is in the log; the
//! outcome of a transaction never changes once its record is in the log, and its markers are ordered again after a
//! restart until it is complete; a producer's epoch never goes back.
//! A transactional id has one change under way at a time; who comes meanwhile is told `ConcurrentTransactions`.
//! Source: Kafka 4's TransactionCoordinator, TransactionStateManager and TransactionMetadata.
//! Differs from Kafka in: timeouts and expiry happen when they are due and not at the next look; an epoch that could not
//! be fenced because the log failed is not remembered as such, since the next record is written behind whatever reached
//! the log; transactional ids are counted against `transactional_ids_max`.

mod add_partitions;
mod changes;
mod end_transaction;
mod init_producer_id;
mod listing;
mod replay;
pub mod schema;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::group::offsets_partition_for;
use super::group::schema::STRING_BYTES_MAX;
use super::timers::Timers;
use crate::model::group::ReplyToken;
use crate::model::transaction::{
    TransactionError, TransactionReply, TransactionRequest, TransactionState, TransactionVersion,
};
use crate::model::{
    NO_PRODUCER_EPOCH, NO_PRODUCER_ID, PartitionIndex, ProducerEpoch, ProducerId, TopicPartition,
};

use changes::Pending;
use schema::TransactionValue;

pub use super::group::StateRecord;
pub use changes::AppendId;

/// Most timers that one call of `on_timer` serves, so that it never holds the shard for long.
const TIMERS_PER_CALL_MAX: usize = 1_000;
/// When to try again what the log did not take, or what another change was in the way of.
const RETRY_MS: i64 = 500;
/// The last epoch that a producer may have; the one behind it is for fencing it.
const LAST_PRODUCER_EPOCH: ProducerEpoch = ProducerEpoch::MAX - 1;

/// The partition of `__transaction_state` that keeps `transactional_id`, by the hash that groups have too.
pub fn transaction_partition_for(transactional_id: &str, partition_count: PartitionIndex) -> PartitionIndex {
    offsets_partition_for(transactional_id, partition_count)
}

/// The limits and times that transactions live by, named as in the configuration.
#[derive(Debug, Clone)]
pub struct TransactionSettings {
    /// Longest timeout that a producer may ask for.
    pub transaction_max_timeout_ms: i32,
    /// How long a transactional id is remembered when nothing happens to it.
    pub transactional_id_expiration_ms: i64,
    /// Most transactional ids in this coordinator.
    pub transactional_ids_max: usize,
}

impl Default for TransactionSettings {
    fn default() -> Self {
        TransactionSettings {
            transaction_max_timeout_ms: 15 * 60 * 1_000,
            transactional_id_expiration_ms: 7 * 24 * 60 * 60 * 1_000,
            transactional_ids_max: usize::MAX,
        }
    }
}

/// What the caller is to carry out for the coordinator; see the module's header.
#[derive(Debug, Default)]
#[must_use = "records are to be appended, markers to be written and replies to be sent"]
pub struct Effects {
    /// To be sent now.
    pub replies: Vec<(ReplyToken, TransactionReply)>,
    /// To be appended to the partition, each with the name by which its end is reported.
    pub records: Vec<(AppendId, StateRecord)>,
    /// To be written into the partitions of transactions that have ended.
    pub markers: Vec<MarkerOrder>,
}

/// The markers that end one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkerOrder {
    /// Whose transaction.
    pub transactional_id: Arc<str>,
    /// The producer that wrote it.
    pub producer_id: ProducerId,
    /// The epoch of the markers; with transaction version 2 above that of the records.
    pub producer_epoch: ProducerEpoch,
    /// How it ends.
    pub is_commit: bool,
    /// How its client does transactions.
    pub version: TransactionVersion,
    /// Where the markers go.
    pub partitions: Vec<TopicPartition>,
}

/// What is to happen to a transactional id at a deadline.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum TimerKey {
    /// Its transaction has been open for long enough.
    Timeout(Arc<str>),
    /// Nothing has happened to it for long enough.
    Expiration(Arc<str>),
    /// All markers are written, and that could not be stored.
    Completion(Arc<str>),
}

/// One transactional id.
#[derive(Debug)]
struct Transaction {
    id: Arc<str>,
    /// As in the log, or, while it has no epoch, a producer that nothing is stored of yet.
    value: TransactionValue,
    /// The epoch before the present one, for a client that asks again; not in the log.
    last_producer_epoch: ProducerEpoch,
    /// The change under way.
    pending: Option<Pending>,
}

impl Transaction {
    /// Whether the next change has to wait.
    fn is_busy(&self) -> bool {
        self.pending.is_some() || self.value.state.is_prepared()
    }

    fn is_epoch_exhausted(&self) -> bool {
        self.value.producer_epoch >= LAST_PRODUCER_EPOCH
    }
}

/// The coordinator of all transactional ids that hash to one partition of `__transaction_state`.
pub struct TransactionCoordinator {
    settings: TransactionSettings,
    is_loaded: bool,
    /// Ordered, so that what a seed produced once it produces again.
    transactions: BTreeMap<Arc<str>, Transaction>,
    timers: Timers<TimerKey>,
    /// Whose change each append carries.
    appends: HashMap<AppendId, Arc<str>>,
    next_append: u64,
    spare_producer_id: Option<ProducerId>,
}

impl TransactionCoordinator {
    /// An empty coordinator that waits for `replay` and `loaded`.
    pub fn new(settings: TransactionSettings) -> Self {
        TransactionCoordinator {
            settings,
            is_loaded: false,
            transactions: BTreeMap::new(),
            timers: Timers::new(),
            appends: HashMap::new(),
            next_append: 0,
            spare_producer_id: None,
        }
    }

    /// Serves one request; `token` is answered in these effects or in later ones.
    pub fn handle(&mut self, token: ReplyToken, request: TransactionRequest, now_ms: i64) -> Effects {
        let mut effects = Effects::default();
        let id = request.transactional_id();
        let refused = if id.is_empty() || id.len() > STRING_BYTES_MAX {
            Some(TransactionError::InvalidRequest)
        } else if !self.is_loaded {
            Some(TransactionError::CoordinatorLoadInProgress)
        } else {
            None
        };
        if let Some(error) = refused {
            effects.reply(token, request.refused(error));
            return effects;
        }
        match request {
            TransactionRequest::InitProducerId(init) => {
                if let Err(error) = self.init_producer_id(token, &init, now_ms, &mut effects) {
                    effects.reply(token, TransactionReply::InitProducerId(Err(error)));
                }
            }
            TransactionRequest::AddPartitions(add) => {
                if let Err(error) = self.add_partitions(token, &add, now_ms, &mut effects) {
                    effects.reply(token, TransactionReply::AddPartitions(Err(error)));
                }
            }
            TransactionRequest::VerifyPartitions(verify) => {
                let verified = self.verify_partitions(&verify);
                effects.reply(token, TransactionReply::VerifyPartitions(verified));
            }
            TransactionRequest::End(end) => {
                if let Err(error) = self.end_transaction(token, &end, now_ms, &mut effects) {
                    effects.reply(token, TransactionReply::End(Err(error)));
                }
            }
            TransactionRequest::Describe { transactional_id } => {
                let described = self.describe(&transactional_id);
                effects.reply(token, TransactionReply::Describe(described));
            }
        }
        effects
    }

    /// Whether the coordinator has no producer id to give away.
    pub fn needs_producer_id(&self) -> bool {
        self.spare_producer_id.is_none()
    }

    /// A producer id that nobody has.
    pub fn give_producer_id(&mut self, producer_id: ProducerId) {
        self.spare_producer_id = Some(producer_id);
    }

    fn take_producer_id(&mut self) -> Result<ProducerId, TransactionError> {
        self.spare_producer_id.take().ok_or(TransactionError::CoordinatorLoadInProgress)
    }

    /// When `on_timer` is to be called next; none while nothing is due. It may be early, never late.
    pub fn next_deadline_ms(&self) -> Option<i64> {
        self.timers.next_wake_ms()
    }

    /// Does what is due: timeouts, expiry, and what is to be tried again. Serves a bounded number of deadlines; when
    /// more are due, `next_deadline_ms` says so.
    pub fn on_timer(&mut self, now_ms: i64) -> Effects {
        let mut effects = Effects::default();
        for _ in 0..TIMERS_PER_CALL_MAX {
            match self.timers.pop_expired(now_ms) {
                Some(TimerKey::Timeout(id)) => self.time_out(&id, now_ms, &mut effects),
                Some(TimerKey::Expiration(id)) => self.expire(&id, now_ms, &mut effects),
                Some(TimerKey::Completion(id)) => self.complete(&id, now_ms, &mut effects),
                None => break,
            }
        }
        effects
    }

    /// Answers everything that waits, with `error`, since the partition leaves this shard or the server stops. The
    /// coordinator is empty afterwards and takes nothing in until it is loaded again.
    pub fn close(&mut self, error: TransactionError) -> Effects {
        let mut effects = Effects::default();
        for transaction in std::mem::take(&mut self.transactions).into_values() {
            if let Some(pending) = transaction.pending {
                pending.refuse(error, &mut effects);
            }
        }
        self.is_loaded = false;
        self.appends.clear();
        self.timers = Timers::new();
        effects
    }

    /// The number of transactional ids.
    pub fn transactional_id_count(&self) -> usize {
        self.transactions.len()
    }

    /// Something that has to do with an expected producer; who is not expected is told so.
    fn of_producer(&mut self, transactional_id: &str) -> Result<&mut Transaction, TransactionError> {
        self.transactions.get_mut(transactional_id).ok_or(TransactionError::InvalidProducerIdMapping)
    }
}

impl Effects {
    fn reply(&mut self, token: ReplyToken, reply: TransactionReply) {
        self.replies.push((token, reply));
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.replies.is_empty() && self.records.is_empty() && self.markers.is_empty()
    }
}

/// A producer that has just been given `producer_id`, of which nothing is stored.
fn new_value(producer_id: ProducerId, timeout_ms: i32) -> TransactionValue {
    TransactionValue {
        producer_id,
        previous_producer_id: NO_PRODUCER_ID,
        next_producer_id: NO_PRODUCER_ID,
        producer_epoch: NO_PRODUCER_EPOCH,
        timeout_ms,
        state: TransactionState::Empty,
        partitions: BTreeSet::new(),
        last_update_ms: schema::NO_TIME,
        start_ms: schema::NO_TIME,
        version: TransactionVersion::V0,
    }
}

#[cfg(test)]
mod tests;
