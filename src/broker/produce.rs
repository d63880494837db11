//! Produce: split by owner, append there, answer in the order asked.
//!
//! In two phases, as the order on a connection needs only the first: [`Broker::produce`] resolves when every part has
//! been handed to its partition in order, and the [`Producing`] that it gives resolves when all are acknowledged.

use bytes::BytesMut;

use super::{Broker, BrokerError};
use crate::model::{Offset, TopicPartition};

/// When a produce is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    /// Never: the client does not wait for an answer.
    None,
    /// When it is in the log.
    Leader,
    /// When the topic's flush policy is satisfied.
    All,
}

/// Batches for several partitions.
#[derive(Debug)]
pub struct ProduceRequest {
    /// When to acknowledge.
    pub acks: Acks,
    /// How long the client waits for the acknowledgement.
    pub timeout_ms: i32,
    /// One entry for each partition; the answer has the same order.
    pub partitions: Vec<PartitionProduce>,
}

/// Batches for one partition.
#[derive(Debug)]
pub struct PartitionProduce {
    /// Where they go.
    pub topic_partition: TopicPartition,
    /// One or more record batches, one after the other, as they came; ours to stamp.
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
pub struct Producing {}

impl Producing {
    /// Waits for all acknowledgements; one answer for each partition, in the order of the request.
    pub async fn finish(self) -> Vec<PartitionProduced> {
        todo!()
    }
}

impl Broker {
    /// Hands every part to its partition, in order.
    pub async fn produce(&self, request: ProduceRequest) -> Producing {
        let _ = request;
        todo!()
    }
}
