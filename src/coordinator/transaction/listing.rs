//! ListTransactions and DescribeTransactions (KIP-664).

use crate::model::transaction::{
    DescribedTransaction, ListTransactions, ListedTransaction, TransactionError, TransactionState,
};

use super::{Transaction, TransactionCoordinator};

impl TransactionCoordinator {
    /// The transactional ids that fit, in order.
    ///
    /// # Errors
    /// `CoordinatorLoadInProgress`.
    pub fn list(
        &self,
        wanted: &ListTransactions,
        now_ms: i64,
    ) -> Result<Vec<ListedTransaction>, TransactionError> {
        if !self.is_loaded {
            return Err(TransactionError::CoordinatorLoadInProgress);
        }
        let fits = |transaction: &&Transaction| {
            let value = &transaction.value;
            let open_ms = now_ms.saturating_sub(value.start_ms);
            value.state != TransactionState::Dead
                && (wanted.producer_ids.is_empty() || wanted.producer_ids.contains(&value.producer_id))
                && (wanted.states.is_empty() || wanted.states.contains(&value.state))
                && (wanted.longer_than_ms < 0 || open_ms > wanted.longer_than_ms)
                && wanted.pattern.as_ref().is_none_or(|pattern| pattern.fits(&transaction.id))
        };
        let listed = |transaction: &Transaction| ListedTransaction {
            transactional_id: transaction.id.to_string(),
            producer_id: transaction.value.producer_id,
            state: transaction.value.state,
        };
        Ok(self.transactions.values().filter(fits).map(listed).collect())
    }

    pub(super) fn describe(&self, transactional_id: &str) -> Result<DescribedTransaction, TransactionError> {
        let transaction = self.transactions.get(transactional_id);
        let value = match transaction.map(|transaction| &transaction.value) {
            Some(value) if value.state != TransactionState::Dead => value,
            _ => return Err(TransactionError::TransactionalIdNotFound),
        };
        Ok(DescribedTransaction {
            state: value.state,
            producer_id: value.producer_id,
            producer_epoch: value.producer_epoch,
            timeout_ms: value.timeout_ms,
            start_ms: value.start_ms,
            partitions: value.partitions.iter().cloned().collect(),
        })
    }
}
