//! DescribeProducers (key 61), version 0 (KIP-664): the idempotent producers that a partition knows.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use kafka_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse, ProducerId};

use super::{RequestContext, text};
use crate::kafka::error_code;
use crate::model::TopicPartition;

/// Marks a partition whose answer the broker gives; no error has this code.
const ASKED: i16 = i16::MIN;

pub(super) async fn handle(
    ctx: &RequestContext<'_>,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let image = ctx.broker().image();
    let mut asked = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let known = image.topic(&topic.name);
        let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
        for index in topic.partition_indexes {
            let response = PartitionResponse::default().with_partition_index(index);
            partitions.push(match known.filter(|known| known.owner(index).is_some()) {
                Some(known) => {
                    asked.push(TopicPartition::new(known.name.clone(), index));
                    response.with_error_code(ASKED)
                }
                None => response.with_error_code(ResponseError::UnknownTopicOrPartition.code()),
            });
        }
        topics.push(TopicResponse::default().with_name(topic.name).with_partitions(partitions));
    }
    drop(image);
    let mut described =
        if asked.is_empty() { Vec::new() } else { ctx.broker().describe_producers(asked).await }.into_iter();
    for partition in topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
        if partition.error_code != ASKED {
            continue;
        }
        match described.next() {
            Some(Ok(producers)) => {
                partition.error_code = error_code::NONE;
                let producers = producers.into_iter().map(|producer| {
                    ProducerState::default()
                        .with_producer_id(ProducerId(producer.producer_id))
                        .with_producer_epoch(i32::from(producer.producer_epoch))
                        .with_last_sequence(producer.last_sequence)
                        .with_last_timestamp(producer.last_timestamp_ms)
                        .with_coordinator_epoch(producer.coordinator_epoch)
                        .with_current_txn_start_offset(producer.current_transaction_start_offset)
                });
                partition.active_producers = producers.collect();
            }
            Some(Err(error)) => {
                partition.error_code = error_code::of(&error).code();
                partition.error_message = Some(text(error.to_string()));
            }
            None => partition.error_code = ResponseError::UnknownServerError.code(),
        }
    }
    DescribeProducersResponse::default().with_topics(topics)
}
