//! What is known about the producers that write to one log: their last sequences and open transactions.
//!
//! Per producer id: epoch, the last five batches (to recognise a resent one), the coordinator's epoch, and where its
//! open transaction began. Kept in memory, written to `<offset>.snapshot` when a segment rolls and when the log closes,
//! rebuilt at recovery from the last snapshot and the batch headers behind it.
//!
//! ```text
//! snapshot = version: i16 (1) | CRC-32C: u32 of all behind it | count: i32 | entries
//! entry    = producer id: i64 | epoch: i16 | last sequence: i32 | last offset: i64 | offset delta: i32
//!          | timestamp: i64 | coordinator epoch: i32 | first offset of the open transaction: i64 (-1 for none)
//! ```
//!
//! Source: Kafka `ProducerStateManager`, `ProducerStateEntry`, `ProducerAppendInfo`; KIP-98, KIP-360, KIP-890.

mod snapshot;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

use ahash::AHashMap;

use crate::model::{NO_PRODUCER_EPOCH, NO_TIMESTAMP, Offset, ProducerEpoch, ProducerId};
use crate::record::{self, BatchHeader, ControlType, NO_SEQUENCE};

use super::transaction_index::AbortedTransaction;

pub(super) use snapshot::{parse, to_bytes};

/// Batches per producer that are remembered, Kafka's bound on a producer's requests in flight.
const BATCHES_MAX: usize = 5;
/// No transaction marker was seen yet.
const NO_COORDINATOR_EPOCH: i32 = -1;

/// What to do with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProducerCheck {
    /// It is new.
    Append,
    /// It is in the log already; answer as if it had just been appended, once it is as durable as a new one would be.
    Duplicate {
        /// Its first offset.
        base_offset: Offset,
        /// Its last offset.
        last_offset: Offset,
        /// Its largest timestamp.
        append_time_ms: i64,
    },
}

/// Where a producer's transactions had come to in a log when the coordinator was asked whether the partition is in the
/// open one. If one of them has ended since, the answer is void.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerificationGuard(Option<Offset>);

/// The coordinator's word that the partition is in the producer's open transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Taken before the coordinator was asked.
    pub guard: VerificationGuard,
    /// Whether a producer that this log does not know must begin with sequence 0: with transaction version 2 every
    /// transaction does (KIP-890).
    pub begins_at_zero: bool,
}

/// Why a batch is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProducerError {
    /// Something before it is missing, or it is older than what is remembered.
    #[error("producer {producer_id} sent sequence {sequence} behind {last_sequence}")]
    OutOfOrderSequence {
        /// Who.
        producer_id: ProducerId,
        /// The batch's first sequence.
        sequence: i32,
        /// The last sequence in the log; -1 for none.
        last_sequence: i32,
    },
    /// A newer instance of the producer has taken over.
    #[error("producer {producer_id} has epoch {epoch}, below {current_epoch}")]
    InvalidEpoch {
        /// Who.
        producer_id: ProducerId,
        /// The batch's epoch.
        epoch: ProducerEpoch,
        /// The epoch in force.
        current_epoch: ProducerEpoch,
    },
    /// A plain batch while a transaction of the same producer is open.
    #[error("producer {producer_id} has an open transaction since offset {first_offset}")]
    TransactionOpen {
        /// Who.
        producer_id: ProducerId,
        /// Where the transaction began.
        first_offset: Offset,
    },
    /// A batch of a transaction that this partition was not added to, or that has ended.
    #[error("the partition is not in an open transaction of producer {producer_id}")]
    NotInTransaction {
        /// Who.
        producer_id: ProducerId,
    },
    /// The marker comes from a coordinator that was replaced.
    #[error("the marker for producer {producer_id} has coordinator epoch {epoch}, below {current_epoch}")]
    CoordinatorFenced {
        /// Whose transaction.
        producer_id: ProducerId,
        /// The marker's coordinator epoch.
        epoch: i32,
        /// The one in force.
        current_epoch: i32,
    },
}

/// One remembered batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RememberedBatch {
    last_sequence: i32,
    last_offset: Offset,
    offset_delta: i32,
    timestamp: i64,
}

impl RememberedBatch {
    fn base_offset(&self) -> Offset {
        self.last_offset - i64::from(self.offset_delta)
    }

    fn base_sequence(&self) -> i32 {
        // Sequences count from 0 to i32::MAX and around.
        self.last_sequence.wrapping_sub(self.offset_delta) & i32::MAX
    }
}

/// One producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProducerEntry {
    epoch: ProducerEpoch,
    coordinator_epoch: i32,
    last_timestamp: i64,
    transaction_first_offset: Option<Offset>,
    /// Where its last marker lies; not in snapshots, since no request outlives the server.
    last_marker_offset: Option<Offset>,
    batches: VecDeque<RememberedBatch>,
}

impl ProducerEntry {
    fn new() -> Self {
        ProducerEntry {
            epoch: NO_PRODUCER_EPOCH,
            coordinator_epoch: NO_COORDINATOR_EPOCH,
            last_timestamp: NO_TIMESTAMP,
            transaction_first_offset: None,
            last_marker_offset: None,
            batches: VecDeque::new(),
        }
    }

    fn last_sequence(&self) -> i32 {
        self.batches.back().map_or(NO_SEQUENCE, |batch| batch.last_sequence)
    }

    fn set_epoch(&mut self, epoch: ProducerEpoch) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.batches.clear();
        }
    }

    fn is_expired(&self, now_ms: i64, expiration_ms: i64) -> bool {
        self.transaction_first_offset.is_none() && now_ms.saturating_sub(self.last_timestamp) >= expiration_ms
    }
}

/// A producer as DescribeProducers shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerInfo {
    /// Its id.
    pub producer_id: ProducerId,
    /// Its epoch.
    pub producer_epoch: ProducerEpoch,
    /// The last sequence in the log; -1 for none.
    pub last_sequence: i32,
    /// When it wrote last.
    pub last_timestamp: i64,
    /// The coordinator's epoch of its last marker; -1 for none.
    pub coordinator_epoch: i32,
    /// Where its open transaction began; `None` without one.
    pub transaction_first_offset: Option<Offset>,
}

#[derive(Debug, Default, Clone)]
struct State {
    producers: AHashMap<ProducerId, ProducerEntry>,
    /// Open transactions by their first offset.
    ongoing: BTreeMap<Offset, ProducerId>,
    /// Ended transactions by their first offset, with the offset of the marker, until the high watermark passes it.
    ended: BTreeMap<Offset, Offset>,
    /// The offset up to which the log is reflected here.
    end_offset: Offset,
    /// The offset of the last snapshot.
    snapshot_offset: Offset,
}

/// The producers of one log.
#[derive(Debug, Default)]
pub struct ProducerStateManager {
    state: RefCell<State>,
}

impl ProducerStateManager {
    /// Starts from a snapshot that was taken at `offset`, or from nothing.
    pub(super) fn new(entries: Vec<(ProducerId, ProducerEntry)>, offset: Offset) -> Self {
        let mut state = State { end_offset: offset, snapshot_offset: offset, ..State::default() };
        for (producer_id, entry) in entries {
            if let Some(first_offset) = entry.transaction_first_offset {
                state.ongoing.insert(first_offset, producer_id);
            }
            state.producers.insert(producer_id, entry);
        }
        ProducerStateManager { state: RefCell::new(state) }
    }

    /// Whether a batch with this header may be appended. Batches from clients need sequences in order; those of our own
    /// coordinators (offset commits, markers) only need an epoch that is not fenced.
    ///
    /// # Errors
    /// Why it may not.
    pub fn check(&self, header: &BatchHeader, is_from_client: bool) -> Result<ProducerCheck, ProducerError> {
        if !header.has_producer_id() {
            return Ok(ProducerCheck::Append);
        }
        let state = self.state.borrow();
        match state.producers.get(&header.producer_id) {
            Some(entry) => check_known(entry, header, is_from_client),
            None => Ok(ProducerCheck::Append), // as Kafka: state may have expired, so any sequence may begin
        }
    }

    /// What to ask the coordinator before a batch of this producer's transaction may be appended; none when the
    /// transaction is open here already.
    pub fn verification_guard(
        &self,
        producer_id: ProducerId,
        epoch: ProducerEpoch,
    ) -> Option<VerificationGuard> {
        let state = self.state.borrow();
        let entry = state.producers.get(&producer_id);
        let is_open =
            |entry: &ProducerEntry| entry.epoch == epoch && entry.transaction_first_offset.is_some();
        let guard = VerificationGuard(entry.and_then(|entry| entry.last_marker_offset));
        (!entry.is_some_and(is_open)).then_some(guard)
    }

    /// Whether a batch of a client's transaction may be appended, as far as the transaction is concerned: it is open
    /// here, or the coordinator has said that the partition is in it and no marker came since.
    ///
    /// # Errors
    /// `NotInTransaction`; `OutOfOrderSequence` for a batch that should have been the first.
    pub fn check_verified(
        &self,
        header: &BatchHeader,
        verified: Option<Verified>,
    ) -> Result<(), ProducerError> {
        if !header.is_transactional() {
            return Ok(());
        }
        let producer_id = header.producer_id;
        let Some(guard) = self.verification_guard(producer_id, header.producer_epoch) else { return Ok(()) };
        let Some(verified) = verified.filter(|verified| verified.guard == guard) else {
            return Err(ProducerError::NotInTransaction { producer_id });
        };
        let is_known = self.state.borrow().producers.contains_key(&producer_id);
        if verified.begins_at_zero && !is_known && header.base_sequence > 0 {
            let (sequence, last_sequence) = (header.base_sequence, NO_SEQUENCE);
            return Err(ProducerError::OutOfOrderSequence { producer_id, sequence, last_sequence });
        }
        Ok(())
    }

    /// Whether the marker that ends the transaction of version 2 with this epoch is here already: its epoch is of no other
    /// transaction.
    pub fn has_marker(&self, producer_id: ProducerId, epoch: ProducerEpoch) -> bool {
        let state = self.state.borrow();
        let has = |entry: &ProducerEntry| entry.epoch == epoch && entry.transaction_first_offset.is_none();
        state.producers.get(&producer_id).is_some_and(has)
    }

    /// Whether a transaction marker may be appended.
    ///
    /// # Errors
    /// `CoordinatorFenced` or `InvalidEpoch`.
    pub fn check_marker(
        &self,
        producer_id: ProducerId,
        epoch: ProducerEpoch,
        coordinator_epoch: i32,
    ) -> Result<(), ProducerError> {
        let state = self.state.borrow();
        let Some(entry) = state.producers.get(&producer_id) else { return Ok(()) };
        if epoch < entry.epoch {
            return Err(ProducerError::InvalidEpoch { producer_id, epoch, current_epoch: entry.epoch });
        }
        if coordinator_epoch < entry.coordinator_epoch {
            return Err(ProducerError::CoordinatorFenced {
                producer_id,
                epoch: coordinator_epoch,
                current_epoch: entry.coordinator_epoch,
            });
        }
        Ok(())
    }

    /// Takes in a batch that is in the log now. Returns the transaction that it aborted, if it did.
    pub(super) fn update(&self, header: &BatchHeader, batch: &[u8]) -> Option<AbortedTransaction> {
        let mut state = self.state.borrow_mut();
        state.end_offset = header.next_offset();
        if !header.has_producer_id() {
            return None;
        }
        if header.is_control() { state.update_marker(header, batch) } else { state.update_data(header) }
    }

    /// All producers, by id.
    pub fn list(&self) -> Vec<ProducerInfo> {
        let state = self.state.borrow();
        let mut infos: Vec<ProducerInfo> = state
            .producers
            .iter()
            .map(|(&producer_id, entry)| ProducerInfo {
                producer_id,
                producer_epoch: entry.epoch,
                last_sequence: entry.last_sequence(),
                last_timestamp: entry.last_timestamp,
                coordinator_epoch: entry.coordinator_epoch,
                transaction_first_offset: entry.transaction_first_offset,
            })
            .collect();
        infos.sort_unstable_by_key(|info| info.producer_id);
        infos
    }

    /// Count of producers.
    pub fn count(&self) -> usize {
        self.state.borrow().producers.len()
    }

    /// Forgets producers that are idle for `expiration_ms` and have no open transaction. Returns how many.
    pub fn expire(&self, now_ms: i64, expiration_ms: i64) -> usize {
        let mut state = self.state.borrow_mut();
        let before = state.producers.len();
        state.producers.retain(|_, entry| !entry.is_expired(now_ms, expiration_ms));
        before - state.producers.len()
    }

    /// The first offset that a READ_COMMITTED reader may not see yet: the start of the oldest transaction that is open,
    /// or whose marker lies at or behind the high watermark.
    pub fn first_unstable_offset(&self) -> Option<Offset> {
        let state = self.state.borrow();
        let open = state.ongoing.first_key_value().map(|(&first, _)| first);
        let ended = state.ended.first_key_value().map(|(&first, _)| first);
        open.into_iter().chain(ended).min()
    }

    /// Whether a transaction of this producer is open.
    pub fn has_open_transaction(&self, producer_id: ProducerId) -> bool {
        let state = self.state.borrow();
        state.producers.get(&producer_id).is_some_and(|entry| entry.transaction_first_offset.is_some())
    }

    /// Transactions whose marker the high watermark has passed are settled.
    pub fn on_high_watermark(&self, high_watermark: Offset) {
        let mut state = self.state.borrow_mut();
        if !state.ended.is_empty() {
            state.ended.retain(|_, marker| *marker >= high_watermark);
        }
    }

    /// The bytes of a snapshot and the offset for its name, if the log has grown since the last one.
    pub(super) fn snapshot(&self) -> Option<(Offset, Vec<u8>)> {
        let state = self.state.borrow();
        (state.end_offset > state.snapshot_offset).then(|| (state.end_offset, to_bytes(&state.producers)))
    }

    /// The snapshot at `offset` is on the disk.
    pub(super) fn snapshot_written(&self, offset: Offset) {
        let mut state = self.state.borrow_mut();
        state.snapshot_offset = state.snapshot_offset.max(offset);
    }

    /// The offset up to which the log is reflected here; moves when recovery skips a gap.
    pub(super) fn set_end_offset(&self, offset: Offset) {
        let mut state = self.state.borrow_mut();
        state.end_offset = state.end_offset.max(offset);
    }
}

fn check_known(
    entry: &ProducerEntry,
    header: &BatchHeader,
    is_from_client: bool,
) -> Result<ProducerCheck, ProducerError> {
    let producer_id = header.producer_id;
    if is_from_client
        && header.producer_epoch == entry.epoch
        && header.base_sequence != NO_SEQUENCE
        && let Some(batch) = entry.batches.iter().find(|batch| {
            batch.last_sequence == header.last_sequence() && batch.base_sequence() == header.base_sequence
        })
    {
        return Ok(ProducerCheck::Duplicate {
            base_offset: batch.base_offset(),
            last_offset: batch.last_offset,
            append_time_ms: batch.timestamp,
        });
    }
    if header.producer_epoch < entry.epoch {
        let (epoch, current_epoch) = (header.producer_epoch, entry.epoch);
        return Err(ProducerError::InvalidEpoch { producer_id, epoch, current_epoch });
    }
    if is_from_client {
        check_sequence(entry, header)?;
    }
    match entry.transaction_first_offset {
        Some(first_offset) if !header.is_transactional() => {
            Err(ProducerError::TransactionOpen { producer_id, first_offset })
        }
        _ => Ok(ProducerCheck::Append),
    }
}

fn check_sequence(entry: &ProducerEntry, header: &BatchHeader) -> Result<(), ProducerError> {
    let sequence = header.base_sequence;
    let last_sequence = entry.last_sequence();
    let in_order = if entry.epoch == NO_PRODUCER_EPOCH {
        true
    } else if header.producer_epoch != entry.epoch || last_sequence == NO_SEQUENCE {
        sequence == 0 // a new epoch, or one in which only a marker was seen
    } else {
        sequence == record::increment_sequence(last_sequence, 1)
    };
    if in_order {
        return Ok(());
    }
    Err(ProducerError::OutOfOrderSequence { producer_id: header.producer_id, sequence, last_sequence })
}

impl State {
    fn update_data(&mut self, header: &BatchHeader) -> Option<AbortedTransaction> {
        let entry = self.producers.entry(header.producer_id).or_insert_with(ProducerEntry::new);
        entry.set_epoch(header.producer_epoch);
        if entry.batches.len() == BATCHES_MAX {
            entry.batches.pop_front();
        }
        entry.batches.push_back(RememberedBatch {
            last_sequence: header.last_sequence(),
            last_offset: header.last_offset(),
            offset_delta: header.last_offset_delta,
            timestamp: header.max_timestamp,
        });
        entry.last_timestamp = header.max_timestamp;
        if header.is_transactional() && entry.transaction_first_offset.is_none() {
            entry.transaction_first_offset = Some(header.base_offset);
            self.ongoing.insert(header.base_offset, header.producer_id);
        }
        None
    }

    fn update_marker(&mut self, header: &BatchHeader, batch: &[u8]) -> Option<AbortedTransaction> {
        let control = record::parse_control_batch(batch).ok()?; // emptied by compaction, or nothing of ours
        if matches!(control.control_type, ControlType::Other(_)) {
            return None;
        }
        let entry = self.producers.entry(header.producer_id).or_insert_with(ProducerEntry::new);
        entry.set_epoch(header.producer_epoch);
        entry.coordinator_epoch = control.coordinator_epoch;
        entry.last_timestamp = header.max_timestamp;
        entry.last_marker_offset = Some(header.base_offset);
        let first_offset = entry.transaction_first_offset.take()?;
        self.ongoing.remove(&first_offset);
        let last_offset = header.base_offset;
        self.ended.insert(first_offset, last_offset);
        let next_open = self.ongoing.first_key_value().map(|(&first, _)| first);
        (control.control_type == ControlType::Abort).then(|| AbortedTransaction {
            producer_id: header.producer_id,
            first_offset,
            last_offset,
            last_stable_offset: next_open.unwrap_or(last_offset + 1),
        })
    }
}

#[cfg(test)]
mod tests;
