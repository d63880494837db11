//! Consumer groups: each request goes to the shard that coordinates its group.

use super::Broker;
use crate::model::group::{GroupReply, GroupRequest, ListGroups, ListGroupsReply};
use crate::model::ShardId;

impl Broker {
    /// Asks the coordinator of the request's group. JoinGroup and SyncGroup may take as long as a rebalance.
    /// Makes the offsets topic on first use.
    pub async fn group(&self, request: GroupRequest) -> GroupReply {
        let _ = request;
        todo!()
    }

    /// Asks every coordinator for its groups.
    pub async fn list_groups(&self, request: ListGroups) -> ListGroupsReply {
        let _ = request;
        todo!()
    }

    /// The shard that coordinates the group; makes the offsets topic on first use, as Kafka does.
    ///
    /// # Errors
    /// If the offsets topic cannot be made.
    pub async fn group_coordinator(&self, group_id: &str) -> Result<ShardId, super::BrokerError> {
        let _ = group_id;
        todo!()
    }
}
