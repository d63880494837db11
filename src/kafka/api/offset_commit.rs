//! OffsetCommit (key 8), versions 2 to 10.
//!
//! 5: no more retention time | 6: leader epoch (KIP-320) | 7: static members (KIP-345) | 8: flexible | 9: new group
//! protocol's errors (KIP-848) | 10: topic ids, read by hand since the crate's last request is version 9.
//!
//! Partitions that do not exist are refused here, the others go to the group's coordinator.

use bytes::BytesMut;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::{GroupId, OffsetCommitRequest, OffsetCommitResponse};

use super::{Answer, ApiRow, RequestContext, reply};
use crate::kafka::wire::{Malformed, Reader};
use crate::kafka::{decode_guard, error_code};
use crate::model::group::{ByTopic, CommitPartition, GroupReply, GroupRequest, OffsetCommit};

/// The last version with a retention time of the client's own.
const RETENTION_VERSION: i16 = 4;

/// The first version that names topics by id.
const TOPIC_ID_VERSION: i16 = 10;

pub(super) async fn answer(ctx: &RequestContext<'_>, body: BytesMut) -> Result<Answer, Malformed> {
    let request = decode(ctx.version(), body)?;
    Ok(reply(ctx, &Box::pin(handle(ctx, request)).await))
}

/// See [`super::check`].
pub(super) fn check(_row: &ApiRow, version: i16, body: BytesMut) -> Result<(), Malformed> {
    decode(version, body).map(drop)
}

fn decode(version: i16, body: BytesMut) -> Result<OffsetCommitRequest, Malformed> {
    if version < TOPIC_ID_VERSION {
        return decode_guard::decode(body.freeze(), version);
    }
    let mut reader = Reader::new(body, true);
    let mut request = OffsetCommitRequest::default()
        .with_group_id(GroupId(reader.read_string()?))
        .with_generation_id_or_member_epoch(reader.read_i32()?)
        .with_member_id(reader.read_string()?)
        .with_group_instance_id(reader.read_nullable_string()?);
    for _ in 0..reader.read_required_count()? {
        let mut topic = OffsetCommitRequestTopic::default().with_topic_id(reader.read_uuid()?);
        for _ in 0..reader.read_required_count()? {
            topic.partitions.push(
                OffsetCommitRequestPartition::default()
                    .with_partition_index(reader.read_i32()?)
                    .with_committed_offset(reader.read_i64()?)
                    .with_committed_leader_epoch(reader.read_i32()?)
                    .with_committed_metadata(reader.read_nullable_string()?),
            );
            reader.skip_tagged_fields()?;
        }
        reader.skip_tagged_fields()?;
        request.topics.push(topic);
    }
    reader.skip_tagged_fields()?;
    Ok(request)
}

async fn handle(ctx: &RequestContext<'_>, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let by_id = ctx.version() >= TOPIC_ID_VERSION;
    let image = ctx.broker().image();
    let mut asked = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let known = if by_id { image.topic_by_id(topic.topic_id) } else { image.topic(&topic.name) };
        let mut commits = Vec::new();
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let exists = known.is_some_and(|known| known.owner(partition.partition_index).is_some());
            let error = match known {
                _ if exists => ASKED,
                None if by_id => ResponseError::UnknownTopicId.code(),
                _ => ResponseError::UnknownTopicOrPartition.code(),
            };
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
        topics.push(
            OffsetCommitResponseTopic::default()
                .with_name(topic.name)
                .with_topic_id(topic.topic_id)
                .with_partitions(partitions),
        );
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
