//! DescribeShareGroupOffsets (key 90), version 0 (KIP-932).

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_share_group_offsets_request::DescribeShareGroupOffsetsRequestGroup;
use kafka_protocol::messages::describe_share_group_offsets_response::{
    DescribeShareGroupOffsetsResponseGroup, DescribeShareGroupOffsetsResponsePartition,
    DescribeShareGroupOffsetsResponseTopic,
};
use kafka_protocol::messages::{
    DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsResponse, TopicName,
};

use super::{RequestContext, share_group, text};
use crate::kafka::error_code;
use crate::model::{Offset, PartitionIndex, Uuid};

/// "Nobody has read of it".
const NO_OFFSET: Offset = -1;

pub(super) async fn handle(
    ctx: &RequestContext<'_>,
    request: DescribeShareGroupOffsetsRequest,
) -> DescribeShareGroupOffsetsResponse {
    let mut groups = Vec::with_capacity(request.groups.len());
    for group in request.groups {
        groups.push(describe(ctx, group).await);
    }
    DescribeShareGroupOffsetsResponse::default().with_groups(groups)
}

async fn describe(
    ctx: &RequestContext<'_>,
    group: DescribeShareGroupOffsetsRequestGroup,
) -> DescribeShareGroupOffsetsResponseGroup {
    let answer = DescribeShareGroupOffsetsResponseGroup::default().with_group_id(group.group_id.clone());
    match share_group(ctx, &group.group_id).await {
        // A group that there is not has read nothing, which is no error, as in Kafka.
        Ok(_) | Err((ResponseError::GroupIdNotFound, _)) => {}
        Err((error, message)) => {
            return answer.with_error_code(error.code()).with_error_message(message.map(text));
        }
    }
    let mut offsets: BTreeMap<Uuid, BTreeMap<PartitionIndex, Offset>> = BTreeMap::new();
    for (key, start_offset) in ctx.broker().share_offsets(&group.group_id).await {
        offsets.entry(key.topic_id).or_default().insert(key.partition, start_offset);
    }
    let image = ctx.broker().image();
    let Some(asked) = group.topics else {
        let topics = offsets.into_iter().filter_map(|(id, partitions)| {
            let name = TopicName(text(image.topic_by_id(id)?.name.as_str()));
            let partitions = partitions.into_iter().map(|(index, offset)| known(index, offset)).collect();
            Some(topic(name, id, partitions))
        });
        return answer.with_topics(topics.collect());
    };
    let topics = asked.into_iter().map(|asked| match image.topic(&asked.topic_name) {
        Some(found) => {
            let own = offsets.get(&found.id);
            let offset_of = |index| own.and_then(|own| own.get(&index)).copied().unwrap_or(NO_OFFSET);
            let partitions = asked.partitions.into_iter().map(|index| known(index, offset_of(index))).collect();
            topic(asked.topic_name, found.id, partitions)
        }
        None => {
            let error = ResponseError::UnknownTopicOrPartition;
            let partitions = asked.partitions.into_iter().map(|index| {
                DescribeShareGroupOffsetsResponsePartition::default()
                    .with_partition_index(index)
                    .with_error_code(error.code())
                    .with_error_message(Some(text(error.to_string())))
            });
            topic(asked.topic_name, Uuid::nil(), partitions.collect())
        }
    });
    answer.with_topics(topics.collect())
}

fn known(index: PartitionIndex, offset: Offset) -> DescribeShareGroupOffsetsResponsePartition {
    DescribeShareGroupOffsetsResponsePartition::default()
        .with_partition_index(index)
        .with_start_offset(offset)
        .with_error_code(error_code::NONE)
}

fn topic(
    name: TopicName,
    id: Uuid,
    partitions: Vec<DescribeShareGroupOffsetsResponsePartition>,
) -> DescribeShareGroupOffsetsResponseTopic {
    DescribeShareGroupOffsetsResponseTopic::default()
        .with_topic_name(name)
        .with_topic_id(id)
        .with_partitions(partitions)
}
