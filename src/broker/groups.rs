//! Consumer groups: each request goes to the shard that coordinates its group.

use std::sync::Arc;

use super::{Broker, BrokerError, TopicImage};
use crate::coordinator::group::offsets_partition_for;
use crate::model::group::{GroupError, GroupReply, GroupRequest, ListGroups, ListGroupsReply};
use crate::model::{CONSUMER_OFFSETS_TOPIC, PartitionIndex, ShardId};
use crate::shard::{ShardReply, ShardRequest};

impl Broker {
    /// Asks the coordinator of the request's group. JoinGroup and SyncGroup may take as long as a rebalance.
    /// Makes the offsets topic on first use.
    pub async fn group(&self, request: GroupRequest) -> GroupReply {
        let deletion = matches!(request, GroupRequest::Delete(_)).then(|| request.clone());
        let reply = self.ask_coordinator(request, ShardRequest::Group).await;
        if let Some(deletion) = deletion {
            self.follow_group_deletion(&deletion, &reply).await;
        }
        reply
    }

    /// Asks the coordinator of the request's group, once it has loaded what it keeps.
    pub async fn group_once_loaded(&self, request: GroupRequest) -> GroupReply {
        self.ask_coordinator(request, ShardRequest::GroupOnceLoaded).await
    }

    async fn ask_coordinator(
        &self,
        request: GroupRequest,
        asked: fn(GroupRequest) -> ShardRequest,
    ) -> GroupReply {
        let refused = request.refused(GroupError::CoordinatorNotAvailable);
        let Ok(shard) = self.group_coordinator(request.group_id().unwrap_or_default()).await else {
            return refused;
        };
        match self.shard.call(shard, asked(request)).await {
            ShardReply::Group(reply) => reply,
            _ => refused,
        }
    }

    /// Asks every coordinator for its groups.
    pub async fn list_groups(&self, request: ListGroups) -> ListGroupsReply {
        let mut listed = ListGroupsReply::default();
        for shard in 0..self.shards() {
            match self.shard.call(shard, ShardRequest::ListGroups(request.clone())).await {
                ShardReply::ListedGroups(reply) => {
                    listed.error = listed.error.or(reply.error);
                    listed.groups.extend(reply.groups);
                }
                _ => listed.error = Some(GroupError::CoordinatorNotAvailable),
            }
        }
        listed
    }

    /// The shard that coordinates the group; makes the offsets topic on first use, as Kafka does.
    ///
    /// # Errors
    /// If the offsets topic cannot be made.
    pub async fn group_coordinator(&self, group_id: &str) -> Result<ShardId, BrokerError> {
        let topic = self.offsets_topic().await?;
        let count = PartitionIndex::try_from(topic.partitions.len()).unwrap_or(PartitionIndex::MAX);
        topic.owner(offsets_partition_for(group_id, count)).ok_or(BrokerError::UnknownTopicOrPartition)
    }

    pub(super) async fn offsets_topic(&self) -> Result<Arc<TopicImage>, BrokerError> {
        self.internal_topic(CONSUMER_OFFSETS_TOPIC, self.config().offsets_topic_num_partitions).await
    }
}
