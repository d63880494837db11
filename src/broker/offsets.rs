//! Questions about offsets and logs: ListOffsets, leader epochs, DeleteRecords, log dirs, producers.

use super::{Broker, BrokerError, IsolationLevel};
use crate::model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TopicPartition};

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

/// One question of ListOffsets.
#[derive(Debug, Clone)]
pub struct OffsetQuery {
    /// Of which partition.
    pub topic_partition: TopicPartition,
    /// Which offset.
    pub spec: OffsetSpec,
    /// The leader epoch that the client believes in, or -1.
    pub current_leader_epoch: LeaderEpoch,
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

/// One partition in the log directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogDirPartition {
    /// Which one.
    pub topic_partition: TopicPartition,
    /// Bytes of its segments.
    pub size_bytes: u64,
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

impl Broker {
    /// Answers each question, in order.
    pub async fn list_offsets(
        &self,
        isolation: IsolationLevel,
        queries: Vec<OffsetQuery>,
    ) -> Vec<Result<ListedOffset, BrokerError>> {
        let _ = (isolation, queries);
        todo!()
    }

    /// For each (partition, current leader epoch, leader epoch) where that epoch ends (KIP-320), in order.
    pub async fn offset_for_leader_epoch(
        &self,
        queries: Vec<(TopicPartition, LeaderEpoch, LeaderEpoch)>,
    ) -> Vec<Result<EpochEnd, BrokerError>> {
        let _ = queries;
        todo!()
    }

    /// Moves the log start offset of each partition up to the given offset (-1: the high watermark); answers the new one.
    pub async fn delete_records(
        &self,
        requests: Vec<(TopicPartition, Offset)>,
    ) -> Vec<Result<Offset, BrokerError>> {
        let _ = requests;
        todo!()
    }

    /// The sizes of the partitions asked for, or of all (internal ones too).
    pub async fn describe_log_dir(&self, wanted: Option<Vec<TopicPartition>>) -> Vec<LogDirPartition> {
        let _ = wanted;
        todo!()
    }

    /// The absolute path of the data directory.
    pub fn log_dir_path(&self) -> String {
        todo!()
    }

    /// Total and usable bytes of the file system of the data directory; -1 each if unknown.
    pub async fn log_dir_space(&self) -> (i64, i64) {
        todo!()
    }

    /// The producers that each partition knows, in order.
    pub async fn describe_producers(
        &self,
        partitions: Vec<TopicPartition>,
    ) -> Vec<Result<Vec<ProducerDescription>, BrokerError>> {
        let _ = partitions;
        todo!()
    }

    /// Gives a new producer its id and epoch (idempotence without transactions).
    ///
    /// # Errors
    /// If the block of ids could not be recorded.
    pub async fn init_producer_id(&self) -> Result<(ProducerId, ProducerEpoch), BrokerError> {
        todo!()
    }
}
