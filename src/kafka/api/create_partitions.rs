//! CreatePartitions (key 37), versions 0 to 3 (KIP-195).
//!
//! 2: flexible | 3: quotas (KIP-599).
//!
//! The reply comes when every shard knows the partitions; the timeout is ignored. A topic that stands twice in a
//! request is refused once, as in Kafka.

use ahash::AHashMap;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, TopicName as WireTopicName,
};

use super::{RequestContext, text};
use crate::broker::NewPartitions;
use crate::kafka::error_code;

pub(super) async fn handle(
    ctx: &RequestContext<'_>,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let mut named: AHashMap<WireTopicName, usize> = AHashMap::new();
    for topic in &request.topics {
        *named.entry(topic.name.clone()).or_default() += 1;
    }
    let mut results = Vec::with_capacity(request.topics.len());
    let mut names = Vec::new();
    let mut wanted = Vec::new();
    for topic in request.topics {
        match named.get(&topic.name) {
            Some(1) => {
                let assignments = topic.assignments.map(|assignments| {
                    let assignments = assignments.into_iter();
                    assignments
                        .map(|assigned| assigned.broker_ids.into_iter().map(|id| id.0).collect())
                        .collect()
                });
                wanted.push(NewPartitions {
                    name: topic.name.to_string(),
                    total_count: topic.count,
                    assignments,
                });
                names.push(topic.name);
            }
            Some(_) => {
                named.remove(&topic.name); // one refusal for all of them
                results.push(
                    CreatePartitionsTopicResult::default()
                        .with_name(topic.name)
                        .with_error_code(ResponseError::InvalidRequest.code())
                        .with_error_message(Some(text("Duplicate topic name."))),
                );
            }
            None => {}
        }
    }
    let created = ctx.broker().create_partitions(wanted, request.validate_only).await;
    results.extend(names.into_iter().zip(created).map(|(name, created)| {
        CreatePartitionsTopicResult::default()
            .with_name(name)
            .with_error_code(error_code::code(&created))
            .with_error_message(error_code::message(&created))
    }));
    CreatePartitionsResponse::default().with_results(results)
}
