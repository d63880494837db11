//! Produce: split by owner, append there, answer in the order asked.
//!
//! In two phases, as the order on a connection needs only the first: [`Broker::produce`] resolves when every part has
//! taken its place in line at its partition, and the [`Producing`] that it gives resolves when all are acknowledged.

use bytes::BytesMut;

use super::router::{Split, next_of};
use super::{Broker, BrokerError, ProduceTransaction};
use crate::model::{Offset, ShardId, TopicPartition};
use crate::partition::{Appended, PartitionError, Verified};
use crate::shard::{Dispatched, PlacedBatch, ShardReply, ShardRequest};

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
pub enum Producing {
    /// One batch, as most requests have, or why it was refused.
    One(Result<Dispatched, BrokerError>),
    /// Batches, by the shards that they went to: their places in the request, and the shard's answer to come.
    Many {
        /// What was dispatched.
        dispatched: Vec<(Vec<usize>, Dispatched)>,
        /// What was refused at once, each at its place in the request.
        gathered: Vec<Option<Result<Appended, BrokerError>>>,
    },
}

impl Producing {
    /// Waits for all acknowledgements; one answer for each partition, in the order of the request.
    pub async fn finish(self) -> Vec<PartitionProduced> {
        let (dispatched, mut gathered) = match self {
            Producing::Many { dispatched, gathered } => (dispatched, gathered),
            Producing::One(Err(error)) => return vec![produced(Err(error))],
            Producing::One(Ok(asked)) => return vec![produced(next_of(&mut answers_of(asked).await))],
        };
        // The part of this shard was dispatched last and only runs when awaited: it goes first.
        for (indexes, asked) in dispatched.into_iter().rev() {
            let mut answers = answers_of(asked).await;
            for index in indexes {
                gathered[index] = Some(next_of(&mut answers));
            }
        }
        gathered
            .into_iter()
            .map(|answer| produced(answer.unwrap_or(Err(BrokerError::ShardUnavailable))))
            .collect()
    }
}

type Answers = std::vec::IntoIter<Result<Appended, PartitionError>>;

async fn answers_of(asked: Dispatched) -> Answers {
    match asked.answer().await {
        ShardReply::Appended(answers) => answers.into_iter(),
        _ => Vec::new().into_iter(),
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
            // In a box: few requests need its room.
            Some(transaction) => Box::pin(self.verify_produce(transaction, &request.partitions)).await,
            None => Vec::new(),
        }
        .into_iter();
        let acks_all = request.acks == Acks::All;
        let mut partitions = request.partitions;
        if partitions.len() == 1
            && let Some(only) = partitions.pop()
        {
            return Producing::One(match self.place(only, verified.next()) {
                Ok((owner, batch)) => {
                    let append = ShardRequest::Append { batches: vec![batch], acks_all };
                    Ok(self.shard.dispatch(owner, append).await)
                }
                Err(error) => Err(error),
            });
        }
        let mut split = Split::new(self.shards(), partitions.len());
        for (index, part) in partitions.into_iter().enumerate() {
            match self.place(part, verified.next()) {
                Ok((owner, batch)) => split.add(owner, index, batch),
                Err(error) => split.refuse(index, error),
            }
        }
        let Split { parts, gathered } = split;
        let mut dispatched = Vec::new();
        for (shard, (indexes, batches)) in self.remote_first(parts) {
            let append = ShardRequest::Append { batches, acks_all };
            dispatched.push((indexes, self.shard.dispatch(shard, append).await));
        }
        Producing::Many { dispatched, gathered }
    }

    /// Appends one batch, which has what many wanted appended and so need not wait for others, with acks=1.
    pub async fn append_gathered(&self, part: PartitionProduce) -> PartitionProduced {
        match self.place(part, None) {
            Ok((owner, batch)) if owner == self.shard.id() => {
                produced(self.shard.append(batch, false, true).await.map_err(BrokerError::from))
            }
            Ok((owner, batch)) => {
                let append = ShardRequest::Append { batches: vec![batch], acks_all: false };
                let asked = self.shard.dispatch(owner, append).await;
                produced(next_of(&mut answers_of(asked).await))
            }
            Err(error) => produced(Err(error)),
        }
    }

    /// Where a partition's batch goes, with what the coordinator said of its transaction.
    fn place(
        &self,
        part: PartitionProduce,
        verified: Option<Result<Option<Verified>, BrokerError>>,
    ) -> Result<(ShardId, PlacedBatch), BrokerError> {
        let PartitionProduce { topic_partition, records } = part;
        let verified = verified.unwrap_or(Ok(None))?;
        if topic_partition.topic.is_internal() {
            let text = format!("Cannot append to internal topic {}", topic_partition.topic);
            return Err(BrokerError::InvalidTopic(text));
        }
        let owner = self.owner(&topic_partition)?;
        Ok((owner, (topic_partition, records, verified)))
    }
}
