//! TxnOffsetCommit (key 28), versions 0 to 5: offsets that count when the producer's transaction commits.
//!
//! 2: leader epoch (KIP-320) | 3: flexible, the group's generation and member (KIP-447) | 4: TRANSACTION_ABORTABLE | 5: the
//! offsets' partition becomes part of the transaction by this request (KIP-890).

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::txn_offset_commit_request::TxnOffsetCommitRequestPartition;
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};

use super::RequestContext;
use crate::broker::TransactionSupport;
use crate::kafka::error_code;
use crate::model::group::{ByTopic, CommitPartition, GroupError, GroupReply, OffsetCommit};
use crate::model::transaction::TransactionError;

/// The first version whose clients try again when told that the coordinator is loading (KAFKA-7296).
const LOADING_VERSION: i16 = 2;
/// The first version that knows TRANSACTION_ABORTABLE.
const ABORTABLE_VERSION: i16 = 4;
/// The first version that adds the offsets' partition by itself.
const ADDING_VERSION: i16 = 5;
/// Marks a partition whose answer the coordinator gives; no error has this code.
const ASKED: i16 = i16::MIN;

pub(super) async fn handle(
    ctx: &RequestContext<'_>,
    request: TxnOffsetCommitRequest,
) -> TxnOffsetCommitResponse {
    let image = ctx.broker().image();
    let mut asked = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let known = image.topic(&topic.name);
        let mut commits = Vec::new();
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let exists = known.is_some_and(|known| known.owner(partition.partition_index).is_some());
            let code = if exists { ASKED } else { ResponseError::UnknownTopicOrPartition.code() };
            partitions.push(
                TxnOffsetCommitResponsePartition::default()
                    .with_partition_index(partition.partition_index)
                    .with_error_code(code),
            );
            if exists {
                commits.push(commit(partition));
            }
        }
        if let Some(known) = known.filter(|_| !commits.is_empty()) {
            asked.push(ByTopic { topic: known.name.clone(), topic_id: None, partitions: commits });
        }
        topics
            .push(TxnOffsetCommitResponseTopic::default().with_name(topic.name).with_partitions(partitions));
    }
    drop(image);
    if !asked.is_empty() {
        let commit = OffsetCommit {
            group_id: request.group_id.to_string(),
            generation_id: request.generation_id,
            member_id: request.member_id.to_string(),
            group_instance_id: request.group_instance_id.map(|id| id.to_string()),
            retention_time_ms: -1,
            producer: Some((request.producer_id.0, request.producer_epoch)),
            topics: asked,
        };
        let errors = ask(ctx, &request.transactional_id, commit).await;
        let mut errors = errors.into_iter();
        for partition in topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            if partition.error_code == ASKED {
                let error = errors.next().unwrap_or(Some(GroupError::CoordinatorNotAvailable));
                partition.error_code = code(ctx.version(), error);
            }
        }
    }
    TxnOffsetCommitResponse::default().with_topics(topics)
}

/// One answer for each partition of the commit.
async fn ask(
    ctx: &RequestContext<'_>,
    transactional_id: &str,
    commit: OffsetCommit,
) -> Vec<Option<GroupError>> {
    if let Ok(shard) = ctx.broker().group_coordinator(&commit.group_id).await {
        ctx.work.count(shard, 0);
    }
    let support = match ctx.version() {
        ADDING_VERSION.. => TransactionSupport::AddsPartitions,
        ABORTABLE_VERSION => TransactionSupport::Abortable,
        _ => TransactionSupport::Plain,
    };
    match ctx.broker().commit_offsets_in_transaction(transactional_id, support, commit).await {
        GroupReply::OffsetCommit(reply) => {
            reply.topics.into_iter().flat_map(|topic| topic.partitions).map(|result| result.error).collect()
        }
        _ => Vec::new(),
    }
}

/// The code of a partition's answer. What older clients would not try again is told them in words that they would.
fn code(version: i16, error: Option<GroupError>) -> i16 {
    let is_busy = error == Some(GroupError::Transaction(TransactionError::ConcurrentTransactions));
    let is_loading = error == Some(GroupError::CoordinatorLoadInProgress);
    if version < LOADING_VERSION && (is_busy || is_loading) {
        ResponseError::CoordinatorNotAvailable.code()
    } else if version < ADDING_VERSION && is_busy {
        ResponseError::CoordinatorLoadInProgress.code()
    } else {
        error_code::group_code(error)
    }
}

fn commit(partition: TxnOffsetCommitRequestPartition) -> CommitPartition {
    CommitPartition {
        partition: partition.partition_index,
        offset: partition.committed_offset,
        leader_epoch: partition.committed_leader_epoch,
        metadata: partition.committed_metadata.map(|metadata| metadata.to_string()),
        commit_timestamp_ms: None,
    }
}
