//! OffsetCommit (key 8), versions 2 to 9.
//!
//! 5: no more retention time | 6: leader epoch (KIP-320) | 7: static members (KIP-345) | 8: flexible | 9: new group
//! protocol's errors (KIP-848).
//!
//! Partitions that do not exist are refused here, the others go to the group's coordinator.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};

use super::RequestContext;
use crate::kafka::error_code;
use crate::model::group::{ByTopic, CommitPartition, GroupReply, GroupRequest, OffsetCommit};

/// The last version with a retention time of the client's own.
const RETENTION_VERSION: i16 = 4;

pub(super) async fn handle(ctx: &RequestContext<'_>, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let image = ctx.broker().image();
    let mut asked = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let known = image.topic(&topic.name);
        let mut commits = Vec::new();
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let exists = known.is_some_and(|known| known.owner(partition.partition_index).is_some());
            let error = if exists { ASKED } else { ResponseError::UnknownTopicOrPartition.code() };
            partitions.push(
                OffsetCommitResponsePartition::default()
                    .with_partition_index(partition.partition_index)
                    .with_error_code(error),
            );
            if exists {
                commits.push(commit(partition));
            }
        }
        if let Some(known) = known.filter(|_| !commits.is_empty()) {
            asked.push(ByTopic { topic: known.name.clone(), topic_id: None, partitions: commits });
        }
        topics.push(OffsetCommitResponseTopic::default().with_name(topic.name).with_partitions(partitions));
    }
    drop(image);
    if !asked.is_empty() {
        let has_retention = ctx.version() <= RETENTION_VERSION;
        let commit = OffsetCommit {
            group_id: request.group_id.to_string(),
            generation_id: request.generation_id_or_member_epoch,
            member_id: request.member_id.to_string(),
            group_instance_id: request.group_instance_id.map(|id| id.to_string()),
            retention_time_ms: if has_retention { request.retention_time_ms } else { -1 },
            producer: None,
            topics: asked,
        };
        let reply = match ctx.group(GroupRequest::OffsetCommit(commit)).await {
            GroupReply::OffsetCommit(reply) => reply.topics,
            _ => Vec::new(),
        };
        let mut results = reply.into_iter().flat_map(|topic| topic.partitions);
        for partition in topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            if partition.error_code == ASKED {
                partition.error_code =
                    results.next().map_or(ResponseError::CoordinatorNotAvailable.code(), |result| {
                        error_code::group_code(result.error)
                    });
            }
        }
    }
    OffsetCommitResponse::default().with_topics(topics)
}

/// Marks a partition whose answer the coordinator gives; no error has this code.
const ASKED: i16 = i16::MIN;

fn commit(partition: OffsetCommitRequestPartition) -> CommitPartition {
    CommitPartition {
        partition: partition.partition_index,
        offset: partition.committed_offset,
        leader_epoch: partition.committed_leader_epoch,
        metadata: partition.committed_metadata.map(|metadata| metadata.to_string()),
        commit_timestamp_ms: None,
    }
}
