//! CreateTopics (key 19), versions 2 to 7.
//!
//! 4: -1 for the default counts (KIP-464) | 5: flexible, the new topic's configs (KIP-525) | 6: quotas (KIP-599)
//! | 7: topic id (KIP-516).
//!
//! The reply comes when every shard knows the topic; the timeout is ignored. A name that stands twice in a request is
//! refused once, as in Kafka.

use ahash::AHashMap;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse, TopicName as WireTopicName};

use super::{RequestContext, config_source, text};
use crate::broker::{BrokerError, CreatedTopic, NewTopic};
use crate::config::TopicConfig;
use crate::kafka::error_code;

/// The first version that tells the new topic's configs.
const CONFIGS_VERSION: i16 = 5;

pub(super) async fn handle(ctx: &RequestContext<'_>, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let mut named: AHashMap<WireTopicName, usize> = AHashMap::new();
    for topic in &request.topics {
        *named.entry(topic.name.clone()).or_default() += 1;
    }
    let mut results = Vec::with_capacity(request.topics.len());
    let mut names = Vec::with_capacity(request.topics.len());
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        match named.get(&topic.name) {
            Some(1) => {
                names.push(topic.name.clone());
                topics.push(new_topic(topic));
            }
            Some(_) => {
                named.remove(&topic.name); // one refusal for all of them
                results.push(
                    CreatableTopicResult::default()
                        .with_name(topic.name)
                        .with_error_code(ResponseError::InvalidRequest.code())
                        .with_error_message(Some(text("Duplicate topic name."))),
                );
            }
            None => {}
        }
    }
    let created = ctx.broker().create_topics(topics, request.validate_only).await;
    results.extend(names.into_iter().zip(created).map(|(name, created)| result(ctx, name, created)));
    CreateTopicsResponse::default().with_topics(results)
}

fn new_topic(topic: CreatableTopic) -> NewTopic {
    let assignment = topic
        .assignments
        .into_iter()
        .map(|assigned| (assigned.partition_index, assigned.broker_ids.into_iter().map(|id| id.0).collect()))
        .collect();
    let configs = topic
        .configs
        .into_iter()
        .map(|config| (config.name.to_string(), config.value.map(|value| value.to_string())))
        .collect();
    NewTopic {
        name: topic.name.to_string(),
        partition_count: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignment,
        configs,
    }
}

fn result(
    ctx: &RequestContext<'_>,
    name: WireTopicName,
    created: Result<CreatedTopic, BrokerError>,
) -> CreatableTopicResult {
    let result = CreatableTopicResult::default()
        .with_name(name)
        .with_error_code(error_code::code(&created))
        .with_error_message(error_code::message(&created));
    let Ok(created) = created else { return result };
    let result = result.with_topic_id(created.topic.id);
    if ctx.version() < CONFIGS_VERSION {
        return result;
    }
    let configs = TopicConfig::described(&ctx.broker().config(), &created.topic.configs)
        .into_iter()
        .map(|config| {
            CreatableTopicConfigs::default()
                .with_name(text(config.name))
                .with_value(config.value.map(text))
                .with_read_only(config.read_only)
                .with_config_source(config_source(config.source))
                .with_is_sensitive(config.sensitive)
        })
        .collect();
    result
        .with_num_partitions(i32::try_from(created.topic.partitions.len()).unwrap_or(i32::MAX))
        .with_replication_factor(1)
        .with_configs(Some(configs))
}
