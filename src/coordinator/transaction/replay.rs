//! The way back from the log, and the log again from the state.

use std::sync::Arc;

use crate::model::NO_PRODUCER_EPOCH;
use crate::model::transaction::TransactionState;

use super::super::group::schema::SchemaError;
use super::schema::{self, TransactionValue};
use super::{Effects, StateRecord, Transaction, TransactionCoordinator};

/// What a record takes in the log beside its partitions.
const RECORD_OVERHEAD_BYTES: u64 = 100;
/// About what a partition of a transaction takes in the log.
const PARTITION_BYTES: u64 = 16;

impl TransactionCoordinator {
    /// Takes in one record of the partition, in the order of the log.
    ///
    /// # Errors
    /// When the record cannot be read; it has changed nothing then, and replay may go on.
    pub fn replay(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), SchemaError> {
        let Some(id) = schema::decode_key(key)? else { return Ok(()) };
        let id: Arc<str> = id.into();
        let value = value.map(TransactionValue::decode).transpose()?;
        match value.filter(|value| value.state != TransactionState::Dead) {
            Some(value) => {
                let last_producer_epoch = NO_PRODUCER_EPOCH;
                let transaction = Transaction { id: id.clone(), value, last_producer_epoch, pending: None };
                self.transactions.insert(id, transaction);
            }
            None => drop(self.transactions.remove(&id)),
        }
        Ok(())
    }

    /// The log has been replayed: open transactions go on to live by their timeouts, the markers of those that have
    /// ended are ordered once more, and requests are served.
    pub fn loaded(&mut self, now_ms: i64) -> Effects {
        self.is_loaded = true;
        let mut effects = Effects::default();
        let ids: Vec<Arc<str>> = self.transactions.keys().cloned().collect();
        for id in ids {
            self.entered(&id, now_ms, &mut effects);
        }
        effects
    }

    /// Every record that is needed to have the present state again, for rewriting the state log. What is still being
    /// appended is not among them.
    pub fn snapshot(&self) -> impl Iterator<Item = StateRecord> + '_ {
        self.transactions.values().filter(|transaction| transaction.is_stored()).map(|transaction| {
            StateRecord { key: schema::key(&transaction.id), value: Some(transaction.value.encode()) }
        })
    }

    /// About how many bytes `snapshot` takes in the log. Walks all ids.
    pub fn live_bytes(&self) -> u64 {
        let bytes = |transaction: &Transaction| {
            let partitions = transaction.value.partitions.len() as u64;
            RECORD_OVERHEAD_BYTES + transaction.id.len() as u64 + PARTITION_BYTES * partitions
        };
        self.transactions.values().map(bytes).sum()
    }
}

impl Transaction {
    fn is_stored(&self) -> bool {
        self.value.producer_epoch != NO_PRODUCER_EPOCH
    }
}
