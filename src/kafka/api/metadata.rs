//! Metadata (key 3), versions 0 to 13.
//!
//! 0: an empty list asks for all topics, from 1 on null does | 1: rack, controller, internal topics | 2: cluster id
//! | 4: automatic creation only if the client wants it | 5: offline replicas | 7: leader epoch | 8: authorized operations
//! | 9: flexible | 10: topic ids | 11: no more cluster operations | 12: topics by id (KIP-516) | 13: top-level error.
//!
//! A topic that is created on the spot is there in the same reply; Kafka says LEADER_NOT_AVAILABLE first.

use std::sync::Arc;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName as WireTopicName};

use super::{CLUSTER_OPERATIONS, NO_OPERATIONS, RequestContext, TOPIC_OPERATIONS, text};
use crate::broker::TopicImage;
use crate::kafka::error_code;
use crate::model::{PartitionIndex, TopicName, TopicPartition, Uuid};

pub(super) async fn handle(ctx: &RequestContext<'_>, request: MetadataRequest) -> MetadataResponse {
    let version = ctx.version();
    let operations =
        if request.include_topic_authorized_operations { TOPIC_OPERATIONS } else { NO_OPERATIONS };
    let may_create = version < 4 || request.allow_auto_topic_creation;
    let wants_all = match &request.topics {
        None => true,
        Some(topics) => version == 0 && topics.is_empty(),
    };
    let mut topics = Vec::new();
    if wants_all {
        let image = ctx.broker().image();
        topics.extend(image.topics().map(|topic| topic_of(ctx, topic, operations)));
    }
    for topic in request.topics.into_iter().flatten() {
        let by_id = !topic.topic_id.is_nil();
        topics.push(match topic.name {
            // Versions 10 and 11 carry ids that nobody may use yet.
            name if version < 12 && (by_id || name.is_none()) => {
                failed(name, topic.topic_id, ResponseError::InvalidRequest)
            }
            _ if by_id => match ctx.broker().image().topic_by_id(topic.topic_id) {
                Some(known) => topic_of(ctx, known, operations),
                None => failed(None, topic.topic_id, ResponseError::UnknownTopicId),
            },
            Some(name) => by_name(ctx, name, may_create, operations).await,
            None => failed(None, topic.topic_id, ResponseError::UnknownTopicId),
        });
    }
    let cluster_operations = if request.include_cluster_authorized_operations && (8..=10).contains(&version) {
        CLUSTER_OPERATIONS
    } else {
        NO_OPERATIONS
    };
    MetadataResponse::default()
        .with_brokers(nodes(ctx))
        .with_cluster_id(Some(text(ctx.broker().cluster_id())))
        .with_controller_id(BrokerId(ctx.broker().node_id(0)))
        .with_topics(topics)
        .with_cluster_authorized_operations(cluster_operations)
}

fn nodes(ctx: &RequestContext<'_>) -> Vec<MetadataResponseBroker> {
    let rack = ctx.broker().config().broker_rack.clone().map(text);
    let nodes = ctx.broker().nodes(ctx.dialled).into_iter();
    nodes
        .map(|node| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(node.id))
                .with_host(text(node.host))
                .with_port(i32::from(node.port))
                .with_rack(rack.clone())
        })
        .collect()
}

async fn by_name(
    ctx: &RequestContext<'_>,
    name: WireTopicName,
    may_create: bool,
    operations: i32,
) -> MetadataResponseTopic {
    let known = ctx.broker().image().topic(&name).cloned();
    let found: Result<Arc<TopicImage>, ResponseError> = match known {
        Some(topic) => Ok(topic),
        None if TopicName::new(&name).is_err() => Err(ResponseError::InvalidTopicException),
        None if may_create => {
            ctx.broker().auto_create_topic(&name).await.map_err(|error| error_code::of(&error))
        }
        None => Err(ResponseError::UnknownTopicOrPartition),
    };
    match found {
        Ok(topic) => topic_of(ctx, &topic, operations),
        Err(error) => failed(Some(name), Uuid::nil(), error),
    }
}

fn topic_of(ctx: &RequestContext<'_>, topic: &TopicImage, operations: i32) -> MetadataResponseTopic {
    let partitions = topic.partitions.iter().zip(0..).map(|(partition, index): (_, PartitionIndex)| {
        let leader = BrokerId(ctx.broker().node_id(partition.owner));
        let leader_epoch = ctx.broker().leader_epoch(&TopicPartition::new(topic.name.clone(), index));
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(leader)
            .with_leader_epoch(leader_epoch)
            .with_replica_nodes(vec![leader])
            .with_isr_nodes(vec![leader])
    });
    MetadataResponseTopic::default()
        .with_name(Some(WireTopicName(text(topic.name.as_str()))))
        .with_topic_id(topic.id)
        .with_is_internal(topic.name.is_internal())
        .with_partitions(partitions.collect())
        .with_topic_authorized_operations(operations)
}

/// Only versions from 12 on can leave the name out.
fn failed(name: Option<WireTopicName>, id: Uuid, error: ResponseError) -> MetadataResponseTopic {
    let is_internal =
        name.as_ref().and_then(|name| TopicName::new(name).ok()).is_some_and(|name| name.is_internal());
    MetadataResponseTopic::default()
        .with_error_code(error.code())
        .with_name(name)
        .with_topic_id(id)
        .with_is_internal(is_internal)
        .with_topic_authorized_operations(NO_OPERATIONS)
}
