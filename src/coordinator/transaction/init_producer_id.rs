//! InitProducerId: a producer takes a transactional id over.
//!
//! Source: Kafka's TransactionCoordinator.handleInitProducerId and TransactionMetadata; KIP-360.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::model::group::ReplyToken;
use crate::model::transaction::{InitProducerId, TransactionError, TransactionState};
use crate::model::{NO_PRODUCER_EPOCH, NO_PRODUCER_ID, ProducerEpoch, ProducerId};

use super::changes::{Pending, Then};
use super::schema::{NO_TIME, TransactionValue};
use super::{Effects, LAST_PRODUCER_EPOCH, Transaction, TransactionCoordinator, new_value};

/// How a producer goes on.
enum Grant {
    /// With the next epoch; the one before it is remembered for a client that asks again.
    Epoch { epoch: ProducerEpoch, last: ProducerEpoch },
    /// With a new id, since the epochs of the old one are used up.
    NewId,
}

impl TransactionCoordinator {
    pub(super) fn init_producer_id(
        &mut self,
        token: ReplyToken,
        init: &InitProducerId,
        now_ms: i64,
        effects: &mut Effects,
    ) -> Result<(), TransactionError> {
        if init.timeout_ms <= 0 || init.timeout_ms > self.settings.transaction_max_timeout_ms {
            return Err(TransactionError::InvalidTransactionTimeout);
        }
        self.ensure_transaction(init)?;
        let transaction = self.of_producer(&init.transactional_id)?;
        if transaction.is_busy() {
            return Err(TransactionError::ConcurrentTransactions);
        }
        if !init.present.is_none_or(|present| transaction.may_go_on(present)) {
            return Err(TransactionError::ProducerFenced);
        }
        let id = transaction.id.clone();
        if transaction.value.state == TransactionState::Ongoing {
            self.abort_and_fence(&id, Then::Fence(token), now_ms, effects);
            return Ok(());
        }
        let grant = transaction.grant(init.present.map(|(_, epoch)| epoch))?;
        self.grant(&id, token, init, &grant, now_ms, effects)
    }

    /// Makes an entry for an id that was not there, or was forgotten.
    fn ensure_transaction(&mut self, init: &InitProducerId) -> Result<(), TransactionError> {
        if self.transactions.contains_key(init.transactional_id.as_str()) {
            return Ok(());
        }
        if self.transactions.len() >= self.settings.transactional_ids_max {
            return Err(TransactionError::TransactionalIdsMaxReached);
        }
        let value = new_value(self.take_producer_id()?, init.timeout_ms);
        let id: Arc<str> = init.transactional_id.as_str().into();
        let last_producer_epoch = NO_PRODUCER_EPOCH;
        self.transactions.insert(id.clone(), Transaction { id, value, last_producer_epoch, pending: None });
        Ok(())
    }

    fn grant(
        &mut self,
        id: &Arc<str>,
        token: ReplyToken,
        init: &InitProducerId,
        grant: &Grant,
        now_ms: i64,
        effects: &mut Effects,
    ) -> Result<(), TransactionError> {
        let new_producer_id = match grant {
            Grant::NewId => Some(self.take_producer_id()?),
            Grant::Epoch { .. } => None,
        };
        let transaction = self.of_producer(id)?;
        let old = &transaction.value;
        let mut next = TransactionValue {
            previous_producer_id: old.producer_id,
            next_producer_id: NO_PRODUCER_ID,
            timeout_ms: init.timeout_ms,
            state: TransactionState::Empty,
            partitions: BTreeSet::new(),
            last_update_ms: now_ms,
            start_ms: NO_TIME,
            ..*old
        };
        let last_producer_epoch = match *grant {
            Grant::Epoch { epoch, last } => {
                next.producer_epoch = epoch;
                last
            }
            Grant::NewId => {
                next.producer_id = new_producer_id.unwrap_or(old.producer_id);
                next.producer_epoch = 0;
                if init.present.is_some() { old.producer_epoch } else { NO_PRODUCER_EPOCH }
            }
        };
        let then = Then::GiveProducerId(token);
        self.propose(id, Pending { next: Some(next), last_producer_epoch, then }, effects);
        Ok(())
    }

    /// Aborts the open transaction with an epoch above that of whoever opened it.
    pub(super) fn abort_and_fence(&mut self, id: &Arc<str>, then: Then, now_ms: i64, effects: &mut Effects) {
        let Some(transaction) = self.transactions.get(id) else { return };
        let change = transaction.prepared(TransactionState::PrepareAbort, true, NO_PRODUCER_ID, now_ms);
        self.propose(id, Pending { then, ..change }, effects);
    }
}

impl Transaction {
    /// Whether a producer that says who it is may be right: it has the id in force, or the one before, all of whose
    /// epochs it has used up.
    fn may_go_on(&self, (producer_id, epoch): (ProducerId, ProducerEpoch)) -> bool {
        self.value.producer_epoch == NO_PRODUCER_EPOCH
            || producer_id == self.value.producer_id
            || (producer_id == self.value.previous_producer_id && epoch >= LAST_PRODUCER_EPOCH)
    }

    /// How a producer with this epoch (none: one that does not say) goes on.
    fn grant(&self, present: Option<ProducerEpoch>) -> Result<Grant, TransactionError> {
        let epoch = self.value.producer_epoch;
        let is_last = |present| present == self.last_producer_epoch && present != NO_PRODUCER_EPOCH;
        if self.is_epoch_exhausted() {
            let may_have_new = present.is_none_or(|present| present == epoch || is_last(present));
            return may_have_new.then_some(Grant::NewId).ok_or(TransactionError::ProducerFenced);
        }
        match present {
            None => Ok(Grant::Epoch { epoch: epoch + 1, last: NO_PRODUCER_EPOCH }),
            Some(present) if present == epoch || epoch == NO_PRODUCER_EPOCH => {
                Ok(Grant::Epoch { epoch: epoch + 1, last: epoch })
            }
            // It asks again because it did not hear the answer.
            Some(present) if is_last(present) => Ok(Grant::Epoch { epoch, last: present }),
            Some(_) => Err(TransactionError::ProducerFenced),
        }
    }
}
