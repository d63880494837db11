//! Fetch: one read for each partition, grouped by shard, with a wait in the middle when there is too little.

use bytes::Bytes;

use super::{Broker, BrokerError};
use crate::model::{LeaderEpoch, Offset, ProducerId, TopicPartition};

/// How far a reader may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IsolationLevel {
    /// Up to the high watermark.
    ReadUncommitted,
    /// Up to the last stable offset.
    ReadCommitted,
}

/// A read of several partitions.
#[derive(Debug, Clone)]
pub struct FetchRequest {
    /// How long to wait for `min_bytes`.
    pub max_wait_ms: i32,
    /// How many bytes make an answer worth sending.
    pub min_bytes: i32,
    /// Most bytes in the whole answer (the first batch comes whole even if it is larger).
    pub max_bytes: i32,
    /// How far the reader may see.
    pub isolation: IsolationLevel,
    /// One entry for each partition; the answer has the same order.
    pub partitions: Vec<FetchPartition>,
}

/// A read of one partition.
#[derive(Debug, Clone)]
pub struct FetchPartition {
    /// What to read.
    pub topic_partition: TopicPartition,
    /// From where on.
    pub offset: Offset,
    /// Most bytes from this partition.
    pub max_bytes: i32,
    /// The leader epoch that the client believes in, or -1.
    pub current_leader_epoch: LeaderEpoch,
}

/// What one partition gave.
#[derive(Debug, Clone, Default)]
pub struct FetchedPartition {
    /// Why it gave nothing, if something is wrong.
    pub error: Option<BrokerError>,
    /// The first offset that is not yet visible, or -1.
    pub high_watermark: Offset,
    /// The first offset of an open transaction, or the high watermark.
    pub last_stable_offset: Offset,
    /// The first offset that there is, or -1.
    pub log_start_offset: Offset,
    /// Aborted transactions among the batches, for read_committed: producer and first offset.
    pub aborted_transactions: Vec<(ProducerId, Offset)>,
    /// Whole record batches, as they lie on disk.
    pub chunks: Vec<Bytes>,
    /// The bytes in `chunks`.
    pub size_bytes: usize,
}

impl Broker {
    /// Reads; waits up to `max_wait_ms` for `min_bytes`. One answer for each partition, in the order of the request.
    pub async fn fetch(&self, request: FetchRequest) -> Vec<FetchedPartition> {
        let _ = request;
        todo!()
    }
}
