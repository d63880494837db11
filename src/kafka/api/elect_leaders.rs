//! ElectLeaders (key 43), versions 0 to 2. The one node leads all partitions, so there is never anything to do.
//!
//! 1: the kind of election (KIP-460) | 2: flexible.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse, TopicName};

use super::{RequestContext, text};

pub(super) async fn handle(ctx: &RequestContext<'_>, request: ElectLeadersRequest) -> ElectLeadersResponse {
    let image = ctx.broker().image();
    let Some(topics) = request.topic_partitions else {
        // Asked for all, Kafka lists every topic but only those partitions that got another leader.
        let topics = image
            .topics()
            .map(|topic| ReplicaElectionResult::default().with_topic(TopicName(text(topic.name.as_str()))));
        return ElectLeadersResponse::default().with_replica_election_results(topics.collect());
    };
    let topics = topics.into_iter().map(|topic| {
        let known = image.topic(&topic.topic);
        let results = topic.partitions.into_iter().map(|partition| {
            let (error, message) = match known {
                Some(known) if known.partition(partition).is_some() => (
                    ResponseError::ElectionNotNeeded,
                    "Leader election not needed for topic partition.".to_owned(),
                ),
                Some(_) => (
                    ResponseError::UnknownTopicOrPartition,
                    format!("No such partition as {}-{partition}", topic.topic.as_str()),
                ),
                None => (
                    ResponseError::UnknownTopicOrPartition,
                    format!("No such topic as {}", topic.topic.as_str()),
                ),
            };
            PartitionResult::default()
                .with_partition_id(partition)
                .with_error_code(error.code())
                .with_error_message(Some(text(message)))
        });
        let results = results.collect();
        ReplicaElectionResult::default().with_topic(topic.topic).with_partition_result(results)
    });
    ElectLeadersResponse::default().with_replica_election_results(topics.collect())
}
