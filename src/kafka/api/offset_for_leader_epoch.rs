//! OffsetForLeaderEpoch (key 23), versions 2 to 4 (KIP-320).
//!
//! 3: replica id | 4: flexible. Consumers ask it after a fetch that tells them of another leader epoch.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use super::RequestContext;
use crate::kafka::error_code;
use crate::model::TopicPartition;

/// Marks a partition whose answer the broker gives; no error has this code.
const ASKED: i16 = i16::MIN;

pub(super) async fn handle(
    ctx: &RequestContext<'_>,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let image = ctx.broker().image();
    let mut queries = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let known = image.topic(&topic.topic);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let response = EpochEndOffset::default()
                .with_partition(partition.partition)
                .with_leader_epoch(-1)
                .with_end_offset(-1);
            let owner = known.and_then(|known| Some((known, known.owner(partition.partition)?)));
            partitions.push(match owner {
                Some((known, owner)) => {
                    ctx.work.count(owner, 0);
                    let topic_partition = TopicPartition::new(known.name.clone(), partition.partition);
                    queries.push((topic_partition, partition.current_leader_epoch, partition.leader_epoch));
                    response.with_error_code(ASKED)
                }
                None => response.with_error_code(ResponseError::UnknownTopicOrPartition.code()),
            });
        }
        topics
            .push(OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions));
    }
    drop(image);
    let mut ends =
        if queries.is_empty() { Vec::new() } else { ctx.broker().offset_for_leader_epoch(queries).await }
            .into_iter();
    for partition in topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
        if partition.error_code != ASKED {
            continue;
        }
        match ends.next() {
            Some(Ok(end)) => {
                partition.error_code = error_code::NONE;
                partition.leader_epoch = end.leader_epoch;
                partition.end_offset = end.end_offset;
            }
            Some(Err(error)) => partition.error_code = error_code::of(&error).code(),
            None => partition.error_code = ResponseError::UnknownServerError.code(),
        }
    }
    OffsetForLeaderEpochResponse::default().with_topics(topics)
}
