//! DeleteShareGroupOffsets (key 92), version 0 (KIP-932): a group without members forgets what it read of topics.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_share_group_offsets_response::DeleteShareGroupOffsetsResponseTopic;
use kafka_protocol::messages::{DeleteShareGroupOffsetsRequest, DeleteShareGroupOffsetsResponse};

use super::{RequestContext, empty_share_group, text};
use crate::kafka::error_code;
use crate::model::group::GroupRequest;

pub(super) async fn handle(
    ctx: &RequestContext<'_>,
    request: DeleteShareGroupOffsetsRequest,
) -> DeleteShareGroupOffsetsResponse {
    if let Err((error, message)) =
        empty_share_group(ctx, &request.group_id, GroupRequest::DescribeShare).await
    {
        return DeleteShareGroupOffsetsResponse::default()
            .with_error_code(error.code())
            .with_error_message(message.map(text));
    }
    let image = ctx.broker().image();
    let known: Vec<_> = request
        .topics
        .iter()
        .filter_map(|topic| image.topic(&topic.topic_name))
        .map(|topic| topic.id)
        .collect();
    let forgotten = ctx.broker().forget_share_topics(&request.group_id, &known).await;
    let topics = request.topics.into_iter().map(|topic| {
        let found = image.topic(&topic.topic_name).map(|found| found.id);
        let error = match found {
            Some(_) => forgotten.err().map(error_code::of_share),
            None => Some(ResponseError::UnknownTopicOrPartition),
        };
        DeleteShareGroupOffsetsResponseTopic::default()
            .with_topic_name(topic.topic_name)
            .with_topic_id(found.unwrap_or_default())
            .with_error_code(error.map_or(error_code::NONE, |error| error.code()))
            .with_error_message(error.map(|error| text(error.to_string())))
    });
    DeleteShareGroupOffsetsResponse::default().with_responses(topics.collect())
}
