//! AlterShareGroupOffsets (key 91), version 0 (KIP-932): a group without members goes on from elsewhere. A group that is
//! not there yet is made, as Kafka does: so it can be told where to begin.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::alter_share_group_offsets_request::AlterShareGroupOffsetsRequestTopic;
use kafka_protocol::messages::alter_share_group_offsets_response::{
    AlterShareGroupOffsetsResponsePartition, AlterShareGroupOffsetsResponseTopic,
};
use kafka_protocol::messages::{AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsResponse};

use super::{RequestContext, empty_share_group, text};
use crate::kafka::error_code;
use crate::model::group::GroupRequest;
use crate::model::share::ShareKey;
use crate::model::{Offset, Uuid};

pub(super) async fn handle(
    ctx: &RequestContext<'_>,
    request: AlterShareGroupOffsetsRequest,
) -> AlterShareGroupOffsetsResponse {
    let (mut topics, offsets) = resolve(ctx, request.group_id.as_str(), request.topics);
    let asked = if offsets.is_empty() { GroupRequest::DescribeShare } else { GroupRequest::EnsureShare };
    match empty_share_group(ctx, &request.group_id, asked).await {
        Ok(()) => {}
        // Nothing to be kept: each partition has its own error.
        Err((ResponseError::GroupIdNotFound, _)) if offsets.is_empty() => {}
        Err((error, message)) => {
            return AlterShareGroupOffsetsResponse::default()
                .with_error_code(error.code())
                .with_error_message(message.map(text));
        }
    }
    let mut results = ctx.broker().alter_share_offsets(offsets).await.into_iter();
    for partition in topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
        if partition.error_code == ASKED {
            let error = results.next().and_then(Result::err).map(error_code::of_share);
            partition.error_code = error.map_or(error_code::NONE, |error| error.code());
            partition.error_message = error.map(|error| text(error.to_string()));
        }
    }
    AlterShareGroupOffsetsResponse::default().with_responses(topics)
}

/// The answers, some of which are still to be given ([`ASKED`]), and in the same order what is asked for them.
fn resolve(
    ctx: &RequestContext<'_>,
    group_id: &str,
    asked: Vec<AlterShareGroupOffsetsRequestTopic>,
) -> (Vec<AlterShareGroupOffsetsResponseTopic>, Vec<(ShareKey, Offset)>) {
    let image = ctx.broker().image();
    let mut offsets = Vec::new();
    let mut topics = Vec::with_capacity(asked.len());
    for topic in asked {
        let known = image.topic(&topic.topic_name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let index = partition.partition_index;
            let answer = AlterShareGroupOffsetsResponsePartition::default().with_partition_index(index);
            let found = known.filter(|known| known.partition(index).is_some());
            partitions.push(match found {
                Some(found) => {
                    let group_id = group_id.to_owned();
                    let key = ShareKey { group_id, topic_id: found.id, partition: index };
                    offsets.push((key, partition.start_offset));
                    answer.with_error_code(ASKED)
                }
                None => {
                    let error = ResponseError::UnknownTopicOrPartition;
                    answer.with_error_code(error.code()).with_error_message(Some(text(error.to_string())))
                }
            });
        }
        topics.push(
            AlterShareGroupOffsetsResponseTopic::default()
                .with_topic_name(topic.topic_name)
                .with_topic_id(known.map_or(Uuid::nil(), |known| known.id))
                .with_partitions(partitions),
        );
    }
    (topics, offsets)
}

/// Marks a partition whose answer the share coordinator gives; no error has this code.
const ASKED: i16 = i16::MIN;
