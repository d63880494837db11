//! The committed offsets of a group, as this door reads and stores them.
//!
//! A coordinator that is loading is waited for: client libraries take a refused SUBSCRIBE for a subscription and then wait
//! for messages that never come.

use super::error_reply::ErrorReply;
use crate::broker::Broker;
use crate::model::group::{
    ByTopic, CommitPartition, GroupError, GroupReply, GroupRequest, NO_COMMITTED_OFFSET, NO_GENERATION,
    OffsetCommit, OffsetFetch,
};
use crate::model::{NO_LEADER_EPOCH, Offset, PartitionIndex, TopicName};

/// The server's own retention.
const DEFAULT_RETENTION: i64 = -1;

/// Stores how far `group` has read the partitions of `topic`.
///
/// # Errors
/// If the group has members that speak Kafka's protocol, or its coordinator cannot store.
pub(super) async fn commit(
    broker: &Broker,
    group: &str,
    topic: &TopicName,
    offsets: &[(PartitionIndex, Offset)],
) -> Result<(), ErrorReply> {
    let partition = |(partition, offset): &(PartitionIndex, Offset)| CommitPartition {
        partition: *partition,
        offset: *offset,
        leader_epoch: NO_LEADER_EPOCH,
        metadata: None,
        commit_timestamp_ms: None,
    };
    let partitions = offsets.iter().map(partition).collect();
    let request = GroupRequest::OffsetCommit(OffsetCommit {
        group_id: group.to_owned(),
        generation_id: NO_GENERATION,
        member_id: String::new(),
        group_instance_id: None,
        retention_time_ms: DEFAULT_RETENTION,
        producer: None,
        topics: vec![ByTopic { topic: topic.clone(), topic_id: None, partitions }],
    });
    let GroupReply::OffsetCommit(reply) = broker.group_once_loaded(request).await else {
        return Err(refused(group, GroupError::CoordinatorNotAvailable));
    };
    let error = reply.topics.iter().flat_map(|topic| &topic.partitions).find_map(|result| result.error);
    error.map_or(Ok(()), |error| Err(refused(group, error)))
}

/// How far `group` has read each of the partitions; none where it has stored nothing.
///
/// # Errors
/// If the coordinator cannot tell.
pub(super) async fn committed(
    broker: &Broker,
    group: &str,
    topic: &TopicName,
    partitions: &[PartitionIndex],
) -> Result<Vec<Option<Offset>>, ErrorReply> {
    let wanted = ByTopic { topic: topic.clone(), topic_id: None, partitions: partitions.to_vec() };
    let request = GroupRequest::OffsetFetch(OffsetFetch {
        group_id: group.to_owned(),
        member_id: None,
        member_epoch: -1,
        topics: Some(vec![wanted]),
        require_stable: false,
    });
    let GroupReply::OffsetFetch(reply) = broker.group_once_loaded(request).await else {
        return Err(refused(group, GroupError::CoordinatorNotAvailable));
    };
    if let Some(error) = reply.error {
        return Err(refused(group, error));
    }
    let fetched = reply.topics.iter().flat_map(|topic| &topic.partitions);
    fetched
        .map(|fetched| match fetched.error {
            Some(error) => Err(refused(group, error)),
            None => Ok(Some(fetched.offset).filter(|offset| *offset != NO_COMMITTED_OFFSET)),
        })
        .collect()
}

/// A coordinator's refusal in Redis's words.
pub(super) fn refused(group: &str, error: GroupError) -> ErrorReply {
    match error {
        GroupError::CoordinatorNotAvailable | GroupError::NotCoordinator => {
            ErrorReply(format!("TRYAGAIN the coordinator of group '{group}' is not available"))
        }
        GroupError::UnknownMemberId | GroupError::RebalanceInProgress | GroupError::IllegalGeneration => {
            ErrorReply::err(format_args!(
                "group '{group}' has members that speak Kafka's protocol; stop them first, or use another group"
            ))
        }
        other => ErrorReply::err(format_args!("group '{group}': {other}")),
    }
}
