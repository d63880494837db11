//! Produce: split by owner, append there, answer in the order asked.
//!
//! In two phases, as the order on a connection needs only the first: [`Broker::produce`] resolves when every part has
//! taken its place in line at its partition, and the [`Producing`] that it gives resolves when all are acknowledged.

use bytes::BytesMut;

use super::router::Split;
use super::{Broker, BrokerError, ProduceTransaction};
use crate::model::{Offset, TopicPartition};
use crate::partition::Appended;
use crate::shard::{Dispatched, ShardReply, ShardRequest};

/// When a produce is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    /// Never: the client does not wait for an answer.
    None,
    /// When it is in the log and the topic's flush policy is satisfied.
    Leader,
    /// The same: one node has one replica. `min.insync.replicas` above 1 refuses it, as in Kafka.
    All,
}

/// Batches for several partitions.
#[derive(Debug)]
pub struct ProduceRequest {
    /// When to acknowledge.
    pub acks: Acks,
    /// How long the client waits for the acknowledgement.
    pub timeout_ms: i32,
    /// Whose transaction the transactional ones of the batches belong to.
    pub transaction: Option<ProduceTransaction>,
    /// One entry for each partition; the answer has the same order.
    pub partitions: Vec<PartitionProduce>,
}

/// Batches for one partition.
#[derive(Debug)]
pub struct PartitionProduce {
    /// Where they go.
    pub topic_partition: TopicPartition,
    /// One record batch, as it came; ours to stamp.
    pub records: BytesMut,
}

/// What became of one partition's batches.
#[derive(Debug, Clone)]
pub struct PartitionProduced {
    /// The offset of the first record, or why nothing was appended.
    pub base_offset: Result<Offset, BrokerError>,
    /// The append time in milliseconds for topics with LogAppendTime, else -1.
    pub log_append_time_ms: i64,
    /// The first offset that the partition holds.
    pub log_start_offset: Offset,
}

/// A produce that has been dispatched.
pub struct Producing {
    dispatched: Vec<(Vec<usize>, Dispatched)>,
    gathered: Vec<Option<Result<Appended, BrokerError>>>,
}

impl Producing {
    /// Waits for all acknowledgements; one answer for each partition, in the order of the request.
    pub async fn finish(mut self) -> Vec<PartitionProduced> {
        // The part of this shard was dispatched last and only runs when awaited: it goes first.
        for (indexes, asked) in self.dispatched.into_iter().rev() {
            let mut answers = match asked.answer().await {
                ShardReply::Appended(answers) => answers.into_iter(),
                _ => Vec::new().into_iter(),
            };
            for index in indexes {
                let answer = answers.next().map_or(Err(BrokerError::ShardUnavailable), |answer| Ok(answer?));
                self.gathered[index] = Some(answer);
            }
        }
        self.gathered
            .into_iter()
            .map(|answer| produced(answer.unwrap_or(Err(BrokerError::ShardUnavailable))))
            .collect()
    }
}

fn produced(answer: Result<Appended, BrokerError>) -> PartitionProduced {
    match answer {
        Ok(Appended { base_offset, log_append_time_ms, log_start_offset }) => {
            PartitionProduced { base_offset: Ok(base_offset), log_append_time_ms, log_start_offset }
        }
        Err(error) => {
            PartitionProduced { base_offset: Err(error), log_append_time_ms: -1, log_start_offset: -1 }
        }
    }
}

impl Broker {
    /// Hands every part to its partition, in order. The first parts of a transaction are shown to belong to it before.
    pub async fn produce(&self, request: ProduceRequest) -> Producing {
        let mut verified = match &request.transaction {
            Some(transaction) => self.verify_produce(transaction, &request.partitions).await,
            None => Vec::new(),
        }
        .into_iter();
        let mut split = Split::new(self.shards(), request.partitions.len());
        for (index, PartitionProduce { topic_partition, records }) in
            request.partitions.into_iter().enumerate()
        {
            let verified = match verified.next().unwrap_or(Ok(None)) {
                Ok(verified) => verified,
                Err(error) => {
                    split.refuse(index, error);
                    continue;
                }
            };
            if topic_partition.topic.is_internal() {
                let text = format!("Cannot append to internal topic {}", topic_partition.topic);
                split.refuse(index, BrokerError::InvalidTopic(text));
                continue;
            }
            match self.owner(&topic_partition) {
                Ok(owner) => split.add(owner, index, (topic_partition, records, verified)),
                Err(error) => split.refuse(index, error),
            }
        }
        let Split { parts, gathered } = split;
        let acks_all = request.acks == Acks::All;
        let mut dispatched = Vec::new();
        for (shard, (indexes, batches)) in self.remote_first(parts) {
            let append = ShardRequest::Append { batches, acks_all };
            dispatched.push((indexes, self.shard.dispatch(shard, append).await));
        }
        Producing { dispatched, gathered }
    }
}
