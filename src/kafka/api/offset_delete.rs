//! OffsetDelete (key 47), version 0 (KIP-496).
//!
//! Partitions that do not exist are refused here, the others go to the group's coordinator.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use super::RequestContext;
use crate::kafka::error_code;
use crate::model::group::{ByTopic, GroupError, GroupReply, GroupRequest, OffsetDelete, OffsetDeleteReply};

/// Marks a partition whose answer the coordinator gives; no error has this code.
const ASKED: i16 = i16::MIN;

pub(super) async fn handle(ctx: &RequestContext<'_>, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let image = ctx.broker().image();
    let mut asked = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let known = image.topic(&topic.name);
        let mut existing = Vec::new();
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let index = partition.partition_index;
            let exists = known.is_some_and(|known| known.owner(index).is_some());
            let error = if exists { ASKED } else { ResponseError::UnknownTopicOrPartition.code() };
            let response = OffsetDeleteResponsePartition::default();
            partitions.push(response.with_partition_index(index).with_error_code(error));
            if exists {
                existing.push(index);
            }
        }
        if let Some(known) = known.filter(|_| !existing.is_empty()) {
            asked.push(ByTopic { topic: known.name.clone(), topic_id: None, partitions: existing });
        }
        topics.push(OffsetDeleteResponseTopic::default().with_name(topic.name).with_partitions(partitions));
    }
    drop(image);
    // Asked even when no partition is left: whether the group exists must be told.
    let delete = OffsetDelete { group_id: request.group_id.to_string(), topics: asked };
    let reply = match ctx.group(GroupRequest::OffsetDelete(delete)).await {
        GroupReply::OffsetDelete(reply) => reply,
        _ => OffsetDeleteReply { error: Some(GroupError::CoordinatorNotAvailable), topics: Vec::new() },
    };
    if reply.error.is_some() {
        return OffsetDeleteResponse::default().with_error_code(error_code::group_code(reply.error));
    }
    let mut results = reply.topics.into_iter().flat_map(|topic| topic.partitions);
    for partition in topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
        if partition.error_code == ASKED {
            partition.error_code =
                results.next().map_or(ResponseError::UnknownServerError.code(), |result| {
                    error_code::group_code(result.error)
                });
        }
    }
    OffsetDeleteResponse::default().with_topics(topics)
}
