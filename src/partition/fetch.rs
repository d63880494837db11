//! Read: how far a reader may see, and what it gets.

use std::rc::Rc;

use bytes::Bytes;

use super::{FetchWaiter, Partition, PartitionError};
use crate::model::{LeaderEpoch, Offset, ProducerId};
use crate::storage::ReadRequest;

/// How far a reader may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IsolationLevel {
    /// Up to the high watermark.
    ReadUncommitted,
    /// Up to the last stable offset.
    ReadCommitted,
}

/// What a reader asks of one partition.
#[derive(Debug, Clone, Copy)]
pub struct ReadSpec {
    /// From where on.
    pub offset: Offset,
    /// Most bytes; the first batch comes whole even if it is larger, when `at_least_one`.
    pub max_bytes: usize,
    /// Whether one batch shall come whatever its size.
    pub at_least_one: bool,
    /// How far the reader may see.
    pub isolation: IsolationLevel,
    /// The leader epoch that the client believes in, or -1.
    pub current_leader_epoch: LeaderEpoch,
}

/// What a partition gave.
#[derive(Debug, Clone, Default)]
pub struct PartitionRead {
    /// The first offset that readers may not see yet.
    pub high_watermark: Offset,
    /// The first offset of an open transaction, or the high watermark.
    pub last_stable_offset: Offset,
    /// The first offset that there is.
    pub log_start_offset: Offset,
    /// Aborted transactions among the batches, for read_committed: producer and first offset.
    pub aborted_transactions: Vec<(ProducerId, Offset)>,
    /// Whole record batches, as they lie on disk.
    pub chunks: Vec<Bytes>,
    /// The bytes in `chunks`.
    pub size_bytes: usize,
}

impl Partition {
    /// Reads whole batches from the one that contains the offset; nothing at the end.
    ///
    /// # Errors
    /// `OffsetOutOfRange`, the leader epoch errors, or `Storage`.
    pub async fn read(&self, spec: &ReadSpec) -> Result<PartitionRead, PartitionError> {
        self.check_leader_epoch(spec.current_leader_epoch)?;
        let end_offset = self.visible_end(spec.isolation);
        let log_start_offset = self.log.log_start_offset();
        if spec.offset < log_start_offset || spec.offset > self.log.log_end_offset() {
            return Err(self.out_of_range(spec.offset));
        }
        let mut read = PartitionRead {
            high_watermark: self.high_watermark(),
            last_stable_offset: self.last_stable_offset(),
            log_start_offset,
            ..PartitionRead::default()
        };
        if spec.offset >= end_offset || (spec.max_bytes == 0 && !spec.at_least_one) {
            return Ok(read);
        }
        let request = ReadRequest {
            offset: spec.offset,
            end_offset,
            max_bytes: spec.max_bytes,
            at_least_one: spec.at_least_one,
        };
        let view = match self.log.try_read(&request) {
            Some(view) => view?,
            None => Box::pin(self.log.read(&request)).await?, // in a box: few reads need its room
        };
        if spec.isolation == IsolationLevel::ReadCommitted {
            let aborted = self.log.aborted_transactions(spec.offset, view.next_offset).await?;
            read.aborted_transactions =
                aborted.into_iter().map(|aborted| (aborted.producer_id, aborted.first_offset)).collect();
        }
        read.chunks = view.chunks;
        read.size_bytes = view.size_bytes;
        Ok(read)
    }

    /// Watches this partition for more than a reader at `offset` can see now; satisfied at once if there is more, or if
    /// a read would refuse the offset.
    pub fn watch(&self, offset: Offset, isolation: IsolationLevel, waiter: &Rc<FetchWaiter>) {
        if offset < self.visible_end(isolation) || offset > self.log.log_end_offset() {
            waiter.satisfy();
        } else {
            self.waiters.add(waiter);
        }
    }

    /// Wakes all who wait, because the partition is going away or the server stops.
    pub fn wake_waiters(&self) {
        self.waiters.wake_all();
    }

    pub(super) fn visible_end(&self, isolation: IsolationLevel) -> Offset {
        match isolation {
            IsolationLevel::ReadUncommitted => self.high_watermark(),
            IsolationLevel::ReadCommitted => self.last_stable_offset(),
        }
    }

    pub(super) fn out_of_range(&self, offset: Offset) -> PartitionError {
        PartitionError::OffsetOutOfRange {
            offset,
            log_start_offset: self.log.log_start_offset(),
            high_watermark: self.high_watermark(),
        }
    }
}
