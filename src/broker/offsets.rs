//! Questions about offsets and logs: ListOffsets, leader epochs, DeleteRecords, log dirs, producers.

use super::{
    Broker, BrokerError, EpochEnd, IsolationLevel, ListedOffset, MetadataLog, OffsetSpec, ProducerDescription,
};
use crate::model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TopicPartition};
use crate::runtime::{blocking, process};
use crate::shard::{ControllerReply, ControllerRequest, ShardReply, ShardRequest};

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

/// One partition in the log directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogDirPartition {
    /// Which one.
    pub topic_partition: TopicPartition,
    /// Bytes of its segments.
    pub size_bytes: u64,
}

impl Broker {
    /// Answers each question, in order.
    pub async fn list_offsets(
        &self,
        isolation: IsolationLevel,
        queries: Vec<OffsetQuery>,
    ) -> Vec<Result<ListedOffset, BrokerError>> {
        let questions = queries
            .into_iter()
            .map(|query| (query.topic_partition, (query.spec, query.current_leader_epoch)))
            .collect();
        let request = |queries: Vec<(TopicPartition, (OffsetSpec, LeaderEpoch))>| {
            let flat = |(topic_partition, (spec, epoch))| (topic_partition, spec, epoch);
            ShardRequest::ListOffsets { queries: queries.into_iter().map(flat).collect(), isolation }
        };
        let answers = |reply| match reply {
            ShardReply::ListedOffsets(answers) => Some(answers),
            _ => None,
        };
        self.ask_owners(questions, request, answers).await
    }

    /// For each (partition, current leader epoch, leader epoch) where that epoch ends (KIP-320), in order.
    pub async fn offset_for_leader_epoch(
        &self,
        queries: Vec<(TopicPartition, LeaderEpoch, LeaderEpoch)>,
    ) -> Vec<Result<EpochEnd, BrokerError>> {
        let questions = queries
            .into_iter()
            .map(|(topic_partition, believed, epoch)| (topic_partition, (believed, epoch)))
            .collect();
        let request = |queries: Vec<(TopicPartition, (LeaderEpoch, LeaderEpoch))>| {
            let flat = |(topic_partition, (believed, epoch))| (topic_partition, believed, epoch);
            ShardRequest::EpochEnds(queries.into_iter().map(flat).collect())
        };
        let answers = |reply| match reply {
            ShardReply::EpochEnds(answers) => Some(answers),
            _ => None,
        };
        self.ask_owners(questions, request, answers).await
    }

    /// Moves the log start offset of each partition up to the given offset (-1: the high watermark); answers the new one.
    pub async fn delete_records(
        &self,
        requests: Vec<(TopicPartition, Offset)>,
    ) -> Vec<Result<Offset, BrokerError>> {
        let answers = |reply| match reply {
            ShardReply::DeletedRecords(answers) => Some(answers),
            _ => None,
        };
        self.ask_owners(requests, ShardRequest::DeleteRecords, answers).await
    }

    /// The sizes of the partitions asked for, or of all (internal ones too).
    pub async fn describe_log_dir(&self, wanted: Option<Vec<TopicPartition>>) -> Vec<LogDirPartition> {
        let mut found = Vec::new();
        for shard in 0..self.shards() {
            if let ShardReply::Sizes(sizes) =
                self.shard.call(shard, ShardRequest::Sizes(wanted.clone())).await
            {
                found.extend(
                    sizes
                        .into_iter()
                        .map(|(topic_partition, size_bytes)| LogDirPartition { topic_partition, size_bytes }),
                );
            }
        }
        found.sort_by(|a, b| a.topic_partition.cmp(&b.topic_partition));
        found
    }

    /// How far the metadata log has come.
    ///
    /// # Errors
    /// If it is not open.
    pub async fn metadata_log(&self) -> Result<MetadataLog, BrokerError> {
        match self.shard.call(0, ShardRequest::Control(ControllerRequest::MetadataLog)).await {
            ShardReply::Controlled(ControllerReply::MetadataLog(log)) => Ok(log?),
            _ => Err(BrokerError::ShardUnavailable),
        }
    }

    /// The absolute path of the data directory.
    pub fn log_dir_path(&self) -> String {
        self.shard.data_dir().display().to_string()
    }

    /// Total and usable bytes of the file system of the data directory; -1 each if unknown.
    pub async fn log_dir_space(&self) -> (i64, i64) {
        let data_dir = self.shard.data_dir().to_owned();
        let space = blocking(move || process::disk_space(&data_dir)).await;
        let number = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
        space.map_or((-1, -1), |space| (number(space.total_bytes), number(space.free_bytes)))
    }

    /// The producers that each partition knows, in order.
    pub async fn describe_producers(
        &self,
        partitions: Vec<TopicPartition>,
    ) -> Vec<Result<Vec<ProducerDescription>, BrokerError>> {
        let questions = partitions.into_iter().map(|partition| (partition, ())).collect();
        let request = |partitions: Vec<(TopicPartition, ())>| {
            ShardRequest::Producers(partitions.into_iter().map(|(partition, ())| partition).collect())
        };
        let answers = |reply| match reply {
            ShardReply::Producers(answers) => Some(answers),
            _ => None,
        };
        self.ask_owners(questions, request, answers).await
    }

    /// Gives a new producer its id and epoch (idempotence without transactions).
    ///
    /// # Errors
    /// If the block of ids could not be recorded.
    pub async fn init_producer_id(&self) -> Result<(ProducerId, ProducerEpoch), BrokerError> {
        match self.shard.next_producer_id().await {
            Ok(producer_id) => Ok((producer_id, 0)),
            Err(error) => Err(error.map_or(BrokerError::ShardUnavailable, BrokerError::from)),
        }
    }
}
