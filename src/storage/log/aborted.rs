//! Which transactions a reader at READ_COMMITTED has to drop.

use super::super::error::StorageError;
use super::super::file_names::SegmentFile;
use super::super::segment::SealedSegment;
use super::super::transaction_index::AbortedTransaction;
use super::{Log, LogState};
use crate::model::Offset;
use crate::runtime;

impl Log {
    /// Aborted transactions that overlap `from..to`, for readers at READ_COMMITTED, by their first offset.
    ///
    /// A marker may lie in any later segment, so all are asked that have aborted transactions at all; the others cost a
    /// look at a flag.
    ///
    /// # Errors
    /// As `read`.
    pub async fn aborted_transactions(
        &self,
        from: Offset,
        to: Offset,
    ) -> Result<Vec<AbortedTransaction>, StorageError> {
        let mut found = Vec::new();
        self.0.collect_aborted(from, to, &mut found).await?;
        found.sort_unstable_by_key(|aborted| (aborted.first_offset, aborted.last_offset));
        Ok(found)
    }
}

impl LogState {
    async fn collect_aborted(
        &self,
        from: Offset,
        to: Offset,
        found: &mut Vec<AbortedTransaction>,
    ) -> Result<(), StorageError> {
        let sealed: Vec<_> = {
            let sealed = self.sealed.borrow();
            let first = sealed.partition_point(|segment| segment.base_offset <= from).saturating_sub(1);
            sealed.iter().skip(first).cloned().collect()
        };
        for segment in sealed {
            if self.has_aborted(&segment).await
                && self.load(&segment).await?.indexes.transactions.collect(from, to, found)
            {
                return Ok(());
            }
        }
        let active = self.active();
        if active.size_bytes.get() > 0 {
            let awake = self.awake(&active).await?;
            awake.indexes.borrow().transactions.collect(from, to, found);
        }
        Ok(())
    }

    /// Whether a segment has aborted transactions: its file of them exists only then.
    async fn has_aborted(&self, segment: &SealedSegment) -> bool {
        if let Some(known) = segment.has_aborted.get() {
            return known;
        }
        let path = SegmentFile::TransactionIndex.path(&self.dir, segment.base_offset);
        let has_file = runtime::blocking(move || path.exists()).await;
        segment.has_aborted.set(Some(has_file));
        has_file
    }
}
