//! Which batches of a read belong to aborted transactions.
//!
//! A read under read_committed comes with a list of aborted transactions (producer and first offset); its batches are
//! the reader's to leave out, as Kafka's clients do.

use std::collections::BTreeSet;

use super::batches::Batch;
use super::control::{ControlType, parse_control_batch};

/// The aborted transactions that are open at the batch which is being read.
pub struct AbortedTransactions {
    /// First offset and producer of those still to come, the nearest last.
    coming: Vec<(i64, i64)>,
    open: BTreeSet<i64>,
}

impl AbortedTransactions {
    /// Of (producer id, first offset), in any order.
    pub fn new(aborted: &[(i64, i64)]) -> Self {
        let mut coming: Vec<_> = aborted.iter().map(|(producer, first)| (*first, *producer)).collect();
        coming.sort_unstable_by(|left, right| right.cmp(left));
        AbortedTransactions { coming, open: BTreeSet::new() }
    }

    /// Whether the records of the next batch were aborted. Every batch of the read is to be shown, in order.
    pub fn cover(&mut self, batch: &Batch<'_>) -> bool {
        let header = &batch.header;
        while let Some((_, producer)) = self.coming.pop_if(|(first, _)| *first <= header.base_offset) {
            self.open.insert(producer);
        }
        if header.is_control() {
            let control = parse_control_batch(batch.bytes);
            if control.is_ok_and(|control| control.control_type == ControlType::Abort) {
                self.open.remove(&header.producer_id);
            }
            return false;
        }
        header.is_transactional() && self.open.contains(&header.producer_id)
    }
}
