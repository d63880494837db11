//! Groups that read entry by entry: each request goes to the shard that keeps its group.

use super::{Broker, BrokerError};
use crate::coordinator::group::offsets_partition_for;
use crate::model::group::{GroupReply, GroupRequest};
use crate::model::stream_group::{StreamGroupError, StreamGroupReply, StreamGroupRequest};
use crate::model::{PartitionIndex, STREAM_GROUPS_TOPIC, ShardId, TopicPartition};
use crate::shard::{ShardReply, ShardRequest};

impl Broker {
    /// Asks a stream group. Makes the topics that keep groups on first use.
    pub async fn stream_group(&self, request: StreamGroupRequest) -> StreamGroupReply {
        let unavailable = |why: String| StreamGroupReply::Refused(StreamGroupError::NotAvailable(why));
        // Its offset is committed where Kafka's groups commit theirs.
        if let Err(error) = self.group_coordinator(&request.key.group).await {
            return unavailable(error.to_string());
        }
        let shard = match self.stream_group_keeper(&request.key.group).await {
            Ok(shard) => shard,
            Err(error) => return unavailable(error.to_string()),
        };
        match self.shard.call(shard, ShardRequest::StreamGroup(request)).await {
            ShardReply::StreamGroup(reply) => reply,
            _ => unavailable("the shard that keeps the group is not available".to_owned()),
        }
    }

    /// The names of the stream groups that read a partition, sorted.
    pub async fn stream_group_names(&self, place: &TopicPartition) -> Vec<String> {
        let mut names = Vec::new();
        for shard in 0..self.shards() {
            if let ShardReply::StreamGroupNames(of_shard) =
                self.shard.call(shard, ShardRequest::StreamGroupNames(place.clone())).await
            {
                names.extend(of_shard);
            }
        }
        names.sort_unstable();
        names
    }

    /// A group that its coordinator has deleted is deleted as a stream group, too.
    pub(super) async fn follow_group_deletion(&self, request: &GroupRequest, reply: &GroupReply) {
        if let (GroupRequest::Delete(delete), GroupReply::Delete(deleted)) = (request, reply)
            && deleted.error.is_none()
            && self.image().topic(STREAM_GROUPS_TOPIC).is_some()
            && let Ok(shard) = self.stream_group_keeper(&delete.group_id).await
        {
            self.shard.call(shard, ShardRequest::ForgetStreamGroup(delete.group_id.clone())).await;
        }
    }

    async fn stream_group_keeper(&self, group: &str) -> Result<ShardId, BrokerError> {
        let partition_count = self.config().redis_groups_topic_num_partitions;
        let topic = self.internal_topic(STREAM_GROUPS_TOPIC, partition_count).await?;
        let count = PartitionIndex::try_from(topic.partitions.len()).unwrap_or(PartitionIndex::MAX);
        topic.owner(offsets_partition_for(group, count)).ok_or(BrokerError::UnknownTopicOrPartition)
    }
}
