//! DeleteRecords (key 21), versions 0 to 2 (KIP-107).
//!
//! 2: flexible. Offset -1 stands for the high watermark. The timeout is ignored: nothing here waits for replicas.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};

use super::RequestContext;
use crate::kafka::error_code;
use crate::model::TopicPartition;

/// Marks a partition whose answer the broker gives; no error has this code.
const ASKED: i16 = i16::MIN;

pub(super) async fn handle(ctx: &RequestContext<'_>, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let image = ctx.broker().image();
    let mut wanted = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let known = image.topic(&topic.name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let index = partition.partition_index;
            let result =
                DeleteRecordsPartitionResult::default().with_partition_index(index).with_low_watermark(-1);
            partitions.push(match known.filter(|known| known.owner(index).is_some()) {
                Some(known) => {
                    wanted.push((TopicPartition::new(known.name.clone(), index), partition.offset));
                    result.with_error_code(ASKED)
                }
                None => result.with_error_code(ResponseError::UnknownTopicOrPartition.code()),
            });
        }
        topics.push(DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions));
    }
    drop(image);
    let mut deleted =
        if wanted.is_empty() { Vec::new() } else { ctx.broker().delete_records(wanted).await }.into_iter();
    for partition in topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
        if partition.error_code != ASKED {
            continue;
        }
        match deleted.next() {
            Some(Ok(low_watermark)) => {
                partition.error_code = error_code::NONE;
                partition.low_watermark = low_watermark;
            }
            Some(Err(error)) => partition.error_code = error_code::of(&error).code(),
            None => partition.error_code = ResponseError::UnknownServerError.code(),
        }
    }
    DeleteRecordsResponse::default().with_topics(topics)
}
