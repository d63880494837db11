//! DescribeLogDirs (key 35), versions 1 to 4 (KIP-113).
//!
//! 2: flexible | 3: top-level error | 4: total and usable bytes (KIP-827).
//!
//! There is one log directory. No replica lags and none moves.

use std::collections::BTreeMap;

use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse, TopicName as WireTopicName};

use super::{RequestContext, text};
use crate::model::{TopicName, TopicPartition};

pub(super) async fn handle(
    ctx: &RequestContext<'_>,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let wanted = request.topics.map(|topics| {
        topics
            .into_iter()
            .filter_map(|topic| Some((TopicName::new(&topic.topic).ok()?, topic.partitions)))
            .flat_map(|(topic, partitions)| {
                partitions.into_iter().map(move |partition| TopicPartition::new(topic.clone(), partition))
            })
            .collect()
    });
    let mut topics: BTreeMap<TopicName, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for partition in ctx.broker().describe_log_dir(wanted).await {
        let TopicPartition { topic, partition: index } = partition.topic_partition;
        topics.entry(topic).or_default().push(
            DescribeLogDirsPartition::default()
                .with_partition_index(index)
                .with_partition_size(i64::try_from(partition.size_bytes).unwrap_or(i64::MAX)),
        );
    }
    let topics = topics.into_iter().map(|(topic, mut partitions)| {
        partitions.sort_unstable_by_key(|partition| partition.partition_index);
        DescribeLogDirsTopic::default()
            .with_name(WireTopicName(text(topic.as_str())))
            .with_partitions(partitions)
    });
    let (total_bytes, usable_bytes) = ctx.broker().log_dir_space().await;
    let result = DescribeLogDirsResult::default()
        .with_log_dir(text(ctx.broker().log_dir_path()))
        .with_topics(topics.collect())
        .with_total_bytes(total_bytes)
        .with_usable_bytes(usable_bytes);
    DescribeLogDirsResponse::default().with_results(vec![result])
}
