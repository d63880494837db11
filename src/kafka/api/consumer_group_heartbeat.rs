//! ConsumerGroupHeartbeat (key 68), versions 0 and 1.
//!
//! 1: subscriptions by regular expression (KIP-848), the member makes its own id (KIP-1082).

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::consumer_group_heartbeat_response::{Assignment, TopicPartitions as Told};
use kafka_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use kafka_protocol::protocol::StrBytes;

use super::{RequestContext, text};
use crate::kafka::error_code;
use crate::model::group::{
    ConsumerHeartbeat, ConsumerHeartbeatReply, GroupError, GroupReply, GroupRequest, JOIN_EPOCH, LEAVE_EPOCH,
    LEAVE_STATIC_EPOCH, TopicPartitions,
};

/// The first version in which members make their own ids.
const OWN_ID_VERSION: i16 = 1;
/// "Has not changed".
const UNCHANGED: i32 = -1;

pub(super) async fn handle(
    ctx: &RequestContext<'_>,
    request: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    if let Some(wrong) = find_wrong(&request, ctx.version()) {
        return ConsumerGroupHeartbeatResponse::default()
            .with_error_code(ResponseError::InvalidRequest.code())
            .with_error_message(Some(StrBytes::from_static_str(wrong)));
    }
    let own = |name: StrBytes| name.to_string();
    let heartbeat = ConsumerHeartbeat {
        group_id: request.group_id.to_string(),
        member_id: own(request.member_id),
        member_epoch: request.member_epoch,
        instance_id: request.instance_id.map(own),
        rack_id: request.rack_id.map(own),
        rebalance_timeout_ms: Some(request.rebalance_timeout_ms).filter(|&it| it != UNCHANGED),
        topics: request
            .subscribed_topic_names
            .map(|names| names.iter().map(|name| name.as_str().to_owned()).collect()),
        topic_regex: request.subscribed_topic_regex.map(own),
        assignor: request.server_assignor.map(own),
        owned: request.topic_partitions.map(|topics| {
            let mut owned: TopicPartitions = BTreeMap::new();
            for topic in topics {
                owned.entry(topic.topic_id).or_default().extend(topic.partitions);
            }
            owned
        }),
        client_id: ctx.client_id().to_owned(),
        client_host: ctx.client_host(),
    };
    match ctx.group(GroupRequest::ConsumerHeartbeat(heartbeat)).await {
        GroupReply::ConsumerHeartbeat(reply) => told(reply),
        _ => told(ConsumerHeartbeatReply::refused(GroupError::CoordinatorNotAvailable)),
    }
}

/// What makes the request one that nobody should send, in Kafka's words.
fn find_wrong(request: &ConsumerGroupHeartbeatRequest, version: i16) -> Option<&'static str> {
    let epoch = request.member_epoch;
    let is_empty = |name: &Option<StrBytes>| name.as_ref().is_some_and(|name| name.trim().is_empty());
    let needs_id = version >= OWN_ID_VERSION || epoch > 0 || epoch == LEAVE_EPOCH;
    if needs_id && request.member_id.trim().is_empty() {
        return Some("MemberId can't be empty.");
    }
    if request.group_id.trim().is_empty() {
        return Some("GroupId can't be empty.");
    }
    if is_empty(&request.instance_id) {
        return Some("InstanceId can't be empty.");
    }
    if is_empty(&request.rack_id) {
        return Some("RackId can't be empty.");
    }
    match epoch {
        JOIN_EPOCH if request.rebalance_timeout_ms == UNCHANGED => {
            Some("RebalanceTimeoutMs must be provided in first request.")
        }
        JOIN_EPOCH if request.topic_partitions.as_ref().is_none_or(|owned| !owned.is_empty()) => {
            Some("TopicPartitions must be empty when (re-)joining.")
        }
        JOIN_EPOCH
            if request.subscribed_topic_names.is_none() && request.subscribed_topic_regex.is_none() =>
        {
            Some("Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.")
        }
        LEAVE_STATIC_EPOCH if request.instance_id.is_none() => Some("InstanceId can't be null."),
        _ if epoch < LEAVE_STATIC_EPOCH => Some("MemberEpoch is invalid."),
        _ => None,
    }
}

fn told(reply: ConsumerHeartbeatReply) -> ConsumerGroupHeartbeatResponse {
    if let Some(error) = reply.error {
        return ConsumerGroupHeartbeatResponse::default()
            .with_error_code(error_code::of_group(error).code())
            .with_error_message(Some(text(error.to_string())));
    }
    let assignment = reply.assignment.map(|partitions| {
        let topics = partitions.into_iter().map(|(id, partitions)| {
            Told::default().with_topic_id(id).with_partitions(partitions.into_iter().collect())
        });
        Assignment::default().with_topic_partitions(topics.collect())
    });
    ConsumerGroupHeartbeatResponse::default()
        .with_member_id(Some(text(reply.member_id)))
        .with_member_epoch(reply.member_epoch)
        .with_heartbeat_interval_ms(reply.heartbeat_interval_ms)
        .with_assignment(assignment)
}
