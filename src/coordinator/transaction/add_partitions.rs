//! AddPartitionsToTxn, AddOffsetsToTxn and what a produce request of transaction version 2 adds by itself.
//!
//! Source: Kafka's TransactionCoordinator.handleAddPartitionsToTransaction and handleVerifyPartitionsInTransaction.

use crate::model::group::ReplyToken;
use crate::model::transaction::{AddPartitions, TransactionError, TransactionReply, TransactionState};

use super::changes::{Pending, Then};
use super::{Effects, TransactionCoordinator};

impl TransactionCoordinator {
    pub(super) fn add_partitions(
        &mut self,
        token: ReplyToken,
        add: &AddPartitions,
        now_ms: i64,
        effects: &mut Effects,
    ) -> Result<(), TransactionError> {
        let transaction = self.of_producer(&add.transactional_id)?;
        // First, since the change under way may be what gives the producer the id that it already uses.
        if transaction.is_busy() {
            return Err(TransactionError::ConcurrentTransactions);
        }
        let value = &transaction.value;
        if value.producer_id != add.producer_id {
            return Err(TransactionError::InvalidProducerIdMapping);
        }
        if value.producer_epoch != add.producer_epoch {
            return Err(TransactionError::ProducerFenced);
        }
        let is_ongoing = value.state == TransactionState::Ongoing;
        if is_ongoing && add.partitions.iter().all(|partition| value.partitions.contains(partition)) {
            effects.reply(token, TransactionReply::AddPartitions(Ok(())));
            return Ok(());
        }
        let mut next = value.clone();
        next.state = TransactionState::Ongoing;
        next.previous_producer_id = value.producer_id;
        next.partitions.extend(add.partitions.iter().cloned());
        next.last_update_ms = now_ms;
        next.version = add.version;
        if !is_ongoing {
            next.start_ms = now_ms;
        }
        let (id, last_producer_epoch) = (transaction.id.clone(), transaction.last_producer_epoch);
        let then = Then::AddPartitions(token);
        self.propose(&id, Pending { next: Some(next), last_producer_epoch, then }, effects);
        Ok(())
    }

    pub(super) fn verify_partitions(
        &mut self,
        verify: &AddPartitions,
    ) -> Result<Vec<bool>, TransactionError> {
        let transaction = self.of_producer(&verify.transactional_id)?;
        let value = &transaction.value;
        if value.producer_id != verify.producer_id {
            return Err(TransactionError::InvalidProducerIdMapping);
        }
        if value.producer_epoch != verify.producer_epoch {
            return Err(TransactionError::ProducerFenced);
        }
        if value.state.is_prepared() {
            return Err(TransactionError::ConcurrentTransactions);
        }
        Ok(verify.partitions.iter().map(|partition| value.partitions.contains(partition)).collect())
    }
}
