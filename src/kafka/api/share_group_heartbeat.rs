//! ShareGroupHeartbeat (key 76), version 1 (KIP-932).

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::share_group_heartbeat_response::{Assignment, TopicPartitions as Told};
use kafka_protocol::messages::{ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse};
use kafka_protocol::protocol::StrBytes;

use super::{RequestContext, text};
use crate::kafka::error_code;
use crate::model::group::{
    ConsumerHeartbeat, ConsumerHeartbeatReply, GroupError, GroupReply, GroupRequest, JOIN_EPOCH, LEAVE_EPOCH,
};

pub(super) async fn handle(
    ctx: &RequestContext<'_>,
    request: ShareGroupHeartbeatRequest,
) -> ShareGroupHeartbeatResponse {
    if let Some(wrong) = find_wrong(&request) {
        return ShareGroupHeartbeatResponse::default()
            .with_error_code(ResponseError::InvalidRequest.code())
            .with_error_message(Some(StrBytes::from_static_str(wrong)));
    }
    let topics = request.subscribed_topic_names;
    let heartbeat = ConsumerHeartbeat {
        group_id: request.group_id.to_string(),
        member_id: request.member_id.to_string(),
        member_epoch: request.member_epoch,
        instance_id: None,
        rack_id: request.rack_id.map(|id| id.to_string()),
        rebalance_timeout_ms: None,
        topics: topics.map(|names| names.iter().map(|name| name.as_str().to_owned()).collect()),
        topic_regex: None,
        assignor: None,
        owned: None,
        client_id: ctx.client_id().to_owned(),
        client_host: ctx.client_host(),
    };
    match ctx.group(GroupRequest::ShareHeartbeat(heartbeat)).await {
        GroupReply::ConsumerHeartbeat(reply) => told(reply),
        _ => told(ConsumerHeartbeatReply::refused(GroupError::CoordinatorNotAvailable)),
    }
}

/// What makes the request one that nobody should send, in Kafka's words.
fn find_wrong(request: &ShareGroupHeartbeatRequest) -> Option<&'static str> {
    if request.member_id.trim().is_empty() {
        return Some("MemberId can't be empty.");
    }
    if request.group_id.trim().is_empty() {
        return Some("GroupId can't be empty.");
    }
    if request.rack_id.as_ref().is_some_and(|id| id.trim().is_empty()) {
        return Some("RackId can't be empty.");
    }
    match request.member_epoch {
        JOIN_EPOCH if request.subscribed_topic_names.as_ref().is_none_or(Vec::is_empty) => {
            Some("SubscribedTopicNames must be set in first request.")
        }
        epoch if epoch < LEAVE_EPOCH => Some("MemberEpoch is invalid."),
        _ => None,
    }
}

fn told(reply: ConsumerHeartbeatReply) -> ShareGroupHeartbeatResponse {
    if let Some(error) = reply.error {
        return ShareGroupHeartbeatResponse::default()
            .with_error_code(error_code::of_group(error).code())
            .with_error_message(Some(text(error.to_string())));
    }
    let assignment = reply.assignment.map(|partitions| {
        let topics = partitions.into_iter().map(|(id, partitions)| {
            Told::default().with_topic_id(id).with_partitions(partitions.into_iter().collect())
        });
        Assignment::default().with_topic_partitions(topics.collect())
    });
    ShareGroupHeartbeatResponse::default()
        .with_member_id(Some(text(reply.member_id)))
        .with_member_epoch(reply.member_epoch)
        .with_heartbeat_interval_ms(reply.heartbeat_interval_ms)
        .with_assignment(assignment)
}
