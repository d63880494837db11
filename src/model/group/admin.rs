//! The words for looking at groups and deleting them: ListGroups, DescribeGroups, DeleteGroups.

use bytes::Bytes;

use super::{GroupError, GroupState};

/// Asks a coordinator for its groups.
#[derive(Debug, Clone, Default)]
pub struct ListGroups {
    /// Names of states in any case; empty for all.
    pub states: Vec<String>,
    /// Names of group types in any case; empty for all.
    pub types: Vec<String>,
}

/// The groups of one coordinator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListGroupsReply {
    /// Set when the coordinator cannot tell.
    pub error: Option<GroupError>,
    /// The groups, by id.
    pub groups: Vec<ListedGroup>,
}

/// One group of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedGroup {
    /// The group.
    pub group_id: String,
    /// Its protocol type; empty when only offsets were committed.
    pub protocol_type: String,
    /// Kafka's name of its state.
    pub state: &'static str,
    /// Kafka's name of its type: [`super::CLASSIC_GROUP_TYPE`], [`super::CONSUMER_GROUP_TYPE`].
    pub group_type: &'static str,
}

/// Asks for one group's members.
#[derive(Debug, Clone)]
pub struct DescribeGroup {
    /// The group.
    pub group_id: String,
}

/// One group's state and members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribeGroupReply {
    /// `GroupIdNotFound` goes with state `Dead`; DescribeGroups before v6 shows the state and no error.
    pub error: Option<GroupError>,
    /// Whether a group that does not speak the classic protocol has that id.
    pub is_of_other_type: bool,
    /// The group.
    pub group_id: String,
    /// Its state.
    pub state: GroupState,
    /// Its protocol type; empty when only offsets were committed.
    pub protocol_type: String,
    /// The protocol of the generation; empty unless stable.
    pub protocol_name: String,
    /// The members, by id.
    pub members: Vec<DescribedMember>,
}

impl DescribeGroupReply {
    /// The reply about a group that cannot be described.
    pub fn refused(group_id: &str, error: GroupError) -> Self {
        DescribeGroupReply {
            error: Some(error),
            is_of_other_type: false,
            group_id: group_id.to_owned(),
            state: GroupState::Dead,
            protocol_type: String::new(),
            protocol_name: String::new(),
            members: Vec::new(),
        }
    }
}

/// One member of a description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedMember {
    /// The member.
    pub member_id: String,
    /// Its static name.
    pub group_instance_id: Option<String>,
    /// The client id it joined with.
    pub client_id: String,
    /// The address it joined from.
    pub client_host: String,
    /// Its metadata for the chosen protocol; empty unless stable.
    pub metadata: Bytes,
    /// Its assignment.
    pub assignment: Bytes,
}

/// Deletes a group without members, its offsets with it.
#[derive(Debug, Clone)]
pub struct DeleteGroup {
    /// The group.
    pub group_id: String,
}

/// Whether the group was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteGroupReply {
    /// None when it is gone.
    pub error: Option<GroupError>,
}
