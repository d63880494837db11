//! What a partition has to do with transactions beside taking their records: it says which are open, and takes markers.

use std::rc::Rc;

use super::{Partition, PartitionError};
use crate::base::clock;
use crate::model::{ProducerEpoch, ProducerId};
use crate::record;
use crate::storage::VerificationGuard;

/// What a partition knows of a producer's transaction before its next batch is appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionStart {
    /// The transaction is open here: there is nothing to ask.
    Open,
    /// The coordinator has to say whether the partition is in it.
    Unknown(VerificationGuard),
}

/// The mark that ends a producer's transaction in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    /// Whose transaction.
    pub producer_id: ProducerId,
    /// The producer's epoch; above that of the records if `has_new_epoch`.
    pub producer_epoch: ProducerEpoch,
    /// The epoch of the coordinator that decided it.
    pub coordinator_epoch: i32,
    /// How it ends.
    pub is_commit: bool,
    /// Whether the epoch is that of no other transaction (transaction version 2), so that a repeated marker is recognised.
    pub has_new_epoch: bool,
}

impl Partition {
    /// What is known here of the transaction of `producer_id` in `epoch`.
    pub fn transaction_start(&self, producer_id: ProducerId, epoch: ProducerEpoch) -> TransactionStart {
        match self.log.producers().verification_guard(producer_id, epoch) {
            None => TransactionStart::Open,
            Some(guard) => TransactionStart::Unknown(guard),
        }
    }

    /// Whether the marker is in the log already.
    pub fn has_marker(&self, marker: &Marker) -> bool {
        marker.has_new_epoch && self.log.producers().has_marker(marker.producer_id, marker.producer_epoch)
    }

    /// Appends a marker. The place in line is taken now; resolves when the topic's flush policy is satisfied.
    ///
    /// # Errors
    /// `Producer` when the producer or the coordinator was replaced meanwhile; `Storage`.
    pub fn append_marker(
        self: &Rc<Self>,
        marker: &Marker,
    ) -> impl Future<Output = Result<(), PartitionError>> + use<> {
        let batch = record::end_transaction_batch(
            marker.producer_id,
            marker.producer_epoch,
            marker.is_commit,
            marker.coordinator_epoch,
            clock::now_ms(),
        );
        let appending = self.append_state(batch, None);
        async move { appending.await.map(|_| ()) }
    }
}
