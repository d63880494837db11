//! DescribeTopicPartitions (key 75), version 0 (KIP-966): topics in the order of their names, a bounded number of
//! partitions at a time, with a cursor to go on from. The Java Admin client describes topics with it.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::{
    BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName as WireTopicName,
};

use super::{NO_OPERATIONS, RequestContext, TOPIC_OPERATIONS, text};
use crate::broker::TopicImage;
use crate::model::{PartitionIndex, TopicName, TopicPartition};

/// Most partitions in one reply: Kafka's `max.request.partition.size.limit`.
const PARTITIONS_MAX: usize = 2000;

pub(super) async fn handle(
    ctx: &RequestContext<'_>,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let image = ctx.broker().image();
    let mut names: Vec<String> = if request.topics.is_empty() {
        image.topics().map(|topic| topic.name.to_string()).collect()
    } else {
        request.topics.iter().map(|topic| topic.name.to_string()).collect()
    };
    names.sort_unstable();
    names.dedup();
    let cursor = request.cursor.as_ref();
    let mut first_partition =
        cursor.and_then(|cursor| usize::try_from(cursor.partition_index).ok()).unwrap_or(0);
    if let Some(cursor) = cursor {
        let begin = names.partition_point(|name| name.as_str() < cursor.topic_name.as_str());
        names.drain(..begin);
        if names.first().is_none_or(|name| name.as_str() != cursor.topic_name.as_str()) {
            first_partition = 0; // the topic that the cursor stands at has gone
        }
    }
    let limit = usize::try_from(request.response_partition_limit).unwrap_or(0).clamp(1, PARTITIONS_MAX);
    let mut left = limit;
    let mut topics = Vec::new();
    let mut next_cursor = None;
    for name in names {
        if left == 0 {
            next_cursor = Some(cursor_at(&name, 0));
            break;
        }
        let first = std::mem::take(&mut first_partition);
        match image.topic(&name) {
            Some(topic) => {
                let count = topic.partitions.len();
                let end = count.min(first.saturating_add(left));
                topics.push(described(ctx, topic, first, end));
                left -= end.saturating_sub(first);
                if end < count {
                    next_cursor = Some(cursor_at(&name, PartitionIndex::try_from(end).unwrap_or(0)));
                    break;
                }
            }
            // With all topics asked for, one that goes away meanwhile is no error.
            None if request.topics.is_empty() => {}
            None => topics.push(unknown(&name)),
        }
    }
    DescribeTopicPartitionsResponse::default().with_topics(topics).with_next_cursor(next_cursor)
}

fn cursor_at(name: &str, partition: PartitionIndex) -> Cursor {
    Cursor::default().with_topic_name(WireTopicName(text(name))).with_partition_index(partition)
}

fn described(
    ctx: &RequestContext<'_>,
    topic: &TopicImage,
    first: usize,
    end: usize,
) -> DescribeTopicPartitionsResponseTopic {
    let partitions = topic.partitions.iter().zip(0..).take(end).skip(first);
    let partitions = partitions.map(|(partition, index): (_, PartitionIndex)| {
        let leader = BrokerId(ctx.broker().node_id(partition.owner));
        let leader_epoch = ctx.broker().leader_epoch(&TopicPartition::new(topic.name.clone(), index));
        DescribeTopicPartitionsResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(leader)
            .with_leader_epoch(leader_epoch)
            .with_replica_nodes(vec![leader])
            .with_isr_nodes(vec![leader])
            .with_eligible_leader_replicas(Some(Vec::new()))
            .with_last_known_elr(Some(Vec::new()))
    });
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(WireTopicName(text(topic.name.as_str()))))
        .with_topic_id(topic.id)
        .with_is_internal(topic.name.is_internal())
        .with_partitions(partitions.collect())
        .with_topic_authorized_operations(TOPIC_OPERATIONS)
}

fn unknown(name: &str) -> DescribeTopicPartitionsResponseTopic {
    let error = match TopicName::new(name) {
        Ok(_) => ResponseError::UnknownTopicOrPartition,
        Err(_) => ResponseError::InvalidTopicException,
    };
    DescribeTopicPartitionsResponseTopic::default()
        .with_error_code(error.code())
        .with_name(Some(WireTopicName(text(name))))
        .with_topic_authorized_operations(NO_OPERATIONS)
}
