//! The end of a transaction: by its producer, by a producer that takes over, or because it took too long.
//!
//! Source: Kafka's TransactionCoordinator.endTransaction and endTransactionWithTV1; KIP-98, KIP-890.

use std::sync::Arc;

use crate::model::group::ReplyToken;
use crate::model::transaction::{
    EndTransaction, TransactionError, TransactionReply, TransactionState, TransactionVersion,
};
use crate::model::{NO_PRODUCER_ID, ProducerId};

use super::changes::{Pending, Then};
use super::schema::NO_TIME;
use super::{Effects, LAST_PRODUCER_EPOCH, RETRY_MS, TimerKey, Transaction, TransactionCoordinator};

/// What a request to end a transaction comes to.
enum Ending {
    /// The transaction ends now.
    Now,
    /// It ended like that before; the client did not hear.
    Again,
}

impl TransactionCoordinator {
    pub(super) fn end_transaction(
        &mut self,
        token: ReplyToken,
        end: &EndTransaction,
        now_ms: i64,
        effects: &mut Effects,
    ) -> Result<(), TransactionError> {
        let transaction = self.of_producer(&end.transactional_id)?;
        let ending = if end.version.bumps_epoch() {
            transaction.ending_with_new_epoch(end)?
        } else {
            transaction.ending(end)?
        };
        let value = &transaction.value;
        match ending {
            Ending::Again => {
                effects.reply(token, TransactionReply::End(Ok((value.producer_id, value.producer_epoch))));
            }
            Ending::Now => {
                let id = transaction.id.clone();
                let needs_new_id = end.version.bumps_epoch() && transaction.is_epoch_exhausted();
                let next_producer_id = if needs_new_id { self.take_producer_id()? } else { NO_PRODUCER_ID };
                let state = match end.is_commit {
                    true => TransactionState::PrepareCommit,
                    false => TransactionState::PrepareAbort,
                };
                let transaction = self.of_producer(&id)?;
                let bumps_epoch = end.version.bumps_epoch();
                let change = transaction.prepared(state, bumps_epoch, next_producer_id, now_ms);
                self.propose(&id, Pending { then: Then::End(token), ..change }, effects);
            }
        }
        Ok(())
    }

    /// Aborts a transaction that was open for longer than its producer said.
    pub(super) fn time_out(&mut self, id: &Arc<str>, now_ms: i64, effects: &mut Effects) {
        let Some(transaction) = self.transactions.get(id) else { return };
        if transaction.value.state != TransactionState::Ongoing {
            return;
        }
        if transaction.pending.is_some() {
            // It may be just ending, or growing; the former leaves nothing to time out.
            return self.timers.set(TimerKey::Timeout(id.clone()), now_ms.saturating_add(RETRY_MS));
        }
        tracing::info!(transactional_id = %id, timeout_ms = transaction.value.timeout_ms,
            "a transaction took too long and is aborted");
        self.abort_and_fence(id, Then::TimeOut, now_ms, effects);
    }
}

impl Transaction {
    /// Transaction versions before 2: the epoch stays, so only the state tells a repetition from the next request.
    fn ending(&self, end: &EndTransaction) -> Result<Ending, TransactionError> {
        if self.value.producer_id != end.producer_id {
            return Err(TransactionError::InvalidProducerIdMapping);
        }
        if self.value.producer_epoch != end.producer_epoch {
            return Err(TransactionError::ProducerFenced);
        }
        if self.is_busy() {
            return Err(TransactionError::ConcurrentTransactions);
        }
        match (self.value.state, end.is_commit) {
            (TransactionState::Ongoing, _) => Ok(Ending::Now),
            (TransactionState::CompleteCommit, true) | (TransactionState::CompleteAbort, false) => {
                Ok(Ending::Again)
            }
            _ => Err(TransactionError::InvalidTransactionState),
        }
    }

    /// Transaction version 2: the epoch of a repetition is one below the present one. To abort a transaction that has
    /// not begun is allowed, since a client cannot know whether its first records arrived.
    fn ending_with_new_epoch(&self, end: &EndTransaction) -> Result<Ending, TransactionError> {
        if self.is_busy() {
            return Err(TransactionError::ConcurrentTransactions);
        }
        let value = &self.value;
        let is_repetition_with_old_id = value.previous_producer_id == end.producer_id
            && end.producer_epoch == LAST_PRODUCER_EPOCH
            && value.producer_epoch == 0
            && value.previous_producer_id != value.producer_id;
        if value.producer_id != end.producer_id && !is_repetition_with_old_id {
            return Err(TransactionError::InvalidProducerIdMapping);
        }
        // Only what ended with a new epoch can have ended by this request: a producer of an older kind that has taken over
        // meanwhile has the next epoch, too, and must not lend it to the one before (which Kafka lets happen).
        let is_repetition = value.version.bumps_epoch()
            && (is_repetition_with_old_id || end.producer_epoch.checked_add(1) == Some(value.producer_epoch));
        if !(value.producer_epoch == end.producer_epoch || (value.state.is_complete() && is_repetition)) {
            return Err(TransactionError::ProducerFenced);
        }
        match (value.state, end.is_commit) {
            (TransactionState::Ongoing, _) => Ok(Ending::Now),
            (TransactionState::CompleteCommit, true) if is_repetition => Ok(Ending::Again),
            (TransactionState::CompleteAbort, false) if is_repetition => Ok(Ending::Again),
            (TransactionState::CompleteCommit, false) if !is_repetition => Ok(Ending::Now),
            (TransactionState::CompleteAbort, false) => Ok(Ending::Now),
            (TransactionState::Empty, false) => Ok(Ending::Now),
            _ => Err(TransactionError::InvalidTransactionState),
        }
    }

    /// The change that decides the outcome. The epoch of the markers is above that of the records if `bumps_epoch`.
    pub(super) fn prepared(
        &self,
        state: TransactionState,
        bumps_epoch: bool,
        next_producer_id: ProducerId,
        now_ms: i64,
    ) -> Pending {
        let mut next = self.value.clone();
        let mut last_producer_epoch = self.last_producer_epoch;
        next.state = state;
        next.previous_producer_id = next.producer_id;
        next.next_producer_id = next_producer_id;
        next.version = TransactionVersion::V0;
        if bumps_epoch {
            last_producer_epoch = next.producer_epoch;
            next.producer_epoch = next.producer_epoch.saturating_add(1);
            next.version = TransactionVersion::V2;
        }
        if self.value.state != TransactionState::Ongoing || next.start_ms == NO_TIME {
            next.start_ms = now_ms; // nothing was added, so it begins and ends now
        }
        next.last_update_ms = now_ms;
        Pending { next: Some(next), last_producer_epoch, then: Then::TimeOut }
    }
}
