//! DescribeQuorum (key 55), versions 0 to 2: the metadata log and its one voter (KIP-595, KIP-853).
//!
//! 1: fetch times | 2: nodes and directories.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_quorum_response::{
    Listener, Node, PartitionData, ReplicaState, TopicData,
};
use kafka_protocol::messages::{BrokerId, DescribeQuorumRequest, DescribeQuorumResponse};

use super::{RequestContext, text};
use crate::base::clock;
use crate::kafka::error_code;
use crate::model::CLUSTER_METADATA_TOPIC;

/// The first version that tells how voters can be reached.
const NODES_VERSION: i16 = 2;
/// The name of the listener.
const LISTENER: &str = "PLAINTEXT";

pub(super) async fn handle(
    ctx: &RequestContext<'_>,
    request: DescribeQuorumRequest,
) -> DescribeQuorumResponse {
    let asks_for_metadata = matches!(request.topics.as_slice(),
        [topic] if topic.topic_name.as_str() == CLUSTER_METADATA_TOPIC
            && matches!(topic.partitions.as_slice(), [partition] if partition.partition_index == 0));
    if !asks_for_metadata {
        let topics = request.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.into_iter().map(|partition| {
                PartitionData::default()
                    .with_partition_index(partition.partition_index)
                    .with_error_code(ResponseError::UnknownTopicOrPartition.code())
            });
            let partitions = partitions.collect();
            TopicData::default().with_topic_name(topic.topic_name).with_partitions(partitions)
        });
        return DescribeQuorumResponse::default().with_topics(topics.collect());
    }
    let broker = ctx.broker();
    let quorum = match broker.metadata_log().await {
        Ok(quorum) => quorum,
        Err(error) => {
            return DescribeQuorumResponse::default()
                .with_error_code(error_code::of(&error).code())
                .with_error_message(Some(text(error.to_string())));
        }
    };
    let now_ms = clock::now_ms();
    let node_id = BrokerId(broker.node_id(0));
    let voter = ReplicaState::default()
        .with_replica_id(node_id)
        .with_log_end_offset(quorum.end_offset)
        .with_last_fetch_timestamp(now_ms)
        .with_last_caught_up_timestamp(now_ms);
    let partition = PartitionData::default()
        .with_leader_id(node_id)
        .with_leader_epoch(quorum.leader_epoch)
        .with_high_watermark(quorum.end_offset)
        .with_current_voters(vec![voter]);
    let topic = request.topics.into_iter().map(|topic| topic.topic_name);
    let topics =
        topic.map(|name| TopicData::default().with_topic_name(name).with_partitions(vec![partition.clone()]));
    let response = DescribeQuorumResponse::default().with_topics(topics.collect());
    if ctx.version() < NODES_VERSION {
        return response;
    }
    let listeners = broker.nodes(ctx.dialled).into_iter().take(1).map(|node| {
        Listener::default().with_name(text(LISTENER)).with_host(text(node.host)).with_port(node.port)
    });
    let node = Node::default().with_node_id(node_id).with_listeners(listeners.collect());
    response.with_nodes(vec![node])
}
