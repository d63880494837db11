//! Questions about offsets: first, last, by time, by epoch; and moving the start.

use super::{IsolationLevel, Partition, PartitionError};
use crate::model::{LeaderEpoch, NO_LEADER_EPOCH, NO_TIMESTAMP, Offset, ProducerEpoch, ProducerId};

/// Which offset is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The first one there is.
    Earliest,
    /// The next one to be written that the reader may see.
    Latest,
    /// The record with the highest timestamp (KIP-734).
    MaxTimestamp,
    /// The first record with at least this timestamp in milliseconds.
    Timestamp(i64),
}

/// The answer: offset -1 and timestamp -1 when no record fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedOffset {
    /// The offset, or -1.
    pub offset: Offset,
    /// The record's timestamp where the question was about time, else -1.
    pub timestamp: i64,
    /// The leader epoch of the offset, or -1.
    pub leader_epoch: LeaderEpoch,
}

/// Where a leader epoch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEnd {
    /// The largest epoch that is not larger than the one asked for, or -1.
    pub leader_epoch: LeaderEpoch,
    /// Its end offset, or -1.
    pub end_offset: Offset,
}

/// An idempotent producer that a partition knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerDescription {
    /// Its id.
    pub producer_id: ProducerId,
    /// Its epoch.
    pub producer_epoch: ProducerEpoch,
    /// The last sequence number it wrote.
    pub last_sequence: i32,
    /// When it wrote last, in milliseconds.
    pub last_timestamp_ms: i64,
    /// The epoch of the transaction coordinator, or -1.
    pub coordinator_epoch: i32,
    /// First offset of its open transaction, or -1.
    pub current_transaction_start_offset: Offset,
}

/// "No such offset" on the wire.
const NO_OFFSET: Offset = -1;

impl Partition {
    /// Answers one question of ListOffsets.
    ///
    /// # Errors
    /// The leader epoch errors, or `Storage`.
    pub async fn list_offset(
        &self,
        spec: OffsetSpec,
        isolation: IsolationLevel,
        believed_epoch: LeaderEpoch,
    ) -> Result<ListedOffset, PartitionError> {
        self.check_leader_epoch(believed_epoch)?;
        let end_offset = self.visible_end(isolation);
        let at = |offset, leader_epoch| ListedOffset { offset, timestamp: NO_TIMESTAMP, leader_epoch };
        let found = match spec {
            OffsetSpec::Earliest => {
                let start = self.log_start_offset();
                return Ok(at(start, self.log.leader_epoch_at(start).unwrap_or(NO_LEADER_EPOCH)));
            }
            OffsetSpec::Latest => return Ok(at(end_offset, self.leader_epoch())),
            OffsetSpec::MaxTimestamp => self.log.max_timestamp(end_offset).await?,
            OffsetSpec::Timestamp(timestamp) => self.log.offset_for_timestamp(timestamp, end_offset).await?,
        };
        Ok(found.map_or(
            ListedOffset { offset: NO_OFFSET, timestamp: NO_TIMESTAMP, leader_epoch: NO_LEADER_EPOCH },
            |found| ListedOffset {
                offset: found.offset,
                timestamp: found.timestamp,
                leader_epoch: found.leader_epoch,
            },
        ))
    }

    /// Where the leader epoch `epoch` ends.
    ///
    /// # Errors
    /// The leader epoch errors.
    pub fn epoch_end(
        &self,
        believed_epoch: LeaderEpoch,
        epoch: LeaderEpoch,
    ) -> Result<EpochEnd, PartitionError> {
        self.check_leader_epoch(believed_epoch)?;
        let (leader_epoch, end_offset) = self.log.end_offset_for_leader_epoch(epoch);
        Ok(EpochEnd { leader_epoch, end_offset })
    }

    /// Moves the log start offset up to `offset` (-1: the high watermark) and answers the new one.
    ///
    /// # Errors
    /// `OffsetOutOfRange` past the high watermark, or `Storage`.
    pub async fn delete_records_before(&self, offset: Offset) -> Result<Offset, PartitionError> {
        let high_watermark = self.high_watermark();
        let offset = if offset == -1 { high_watermark } else { offset };
        if offset < 0 || offset > high_watermark {
            return Err(self.out_of_range(offset));
        }
        Ok(self.log.delete_records_before(offset).await?)
    }

    /// The idempotent producers that have written here lately.
    pub fn describe_producers(&self) -> Vec<ProducerDescription> {
        self.log
            .producers()
            .list()
            .into_iter()
            .map(|producer| ProducerDescription {
                producer_id: producer.producer_id,
                producer_epoch: producer.producer_epoch,
                last_sequence: producer.last_sequence,
                last_timestamp_ms: producer.last_timestamp,
                coordinator_epoch: producer.coordinator_epoch,
                current_transaction_start_offset: producer.transaction_first_offset.unwrap_or(NO_OFFSET),
            })
            .collect()
    }
}
