//! The words of the next generation of the group protocol (KIP-848): ConsumerGroupHeartbeat, ConsumerGroupDescribe.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{PartitionIndex, Uuid};

use super::GroupError;

/// The epoch of a heartbeat by which a member joins, or joins again without any partition.
pub const JOIN_EPOCH: i32 = 0;
/// The epoch by which a member leaves for good.
pub const LEAVE_EPOCH: i32 = -1;
/// The epoch by which a static member leaves for a while.
pub const LEAVE_STATIC_EPOCH: i32 = -2;
/// The type that ListGroups gives groups of this protocol.
pub const CONSUMER_GROUP_TYPE: &str = "consumer";

/// The type, and the protocol type, that ListGroups gives share groups (KIP-932).
pub const SHARE_GROUP_TYPE: &str = "share";

/// Partitions by topic id.
pub type TopicPartitions = BTreeMap<Uuid, BTreeSet<PartitionIndex>>;

/// Joins, keeps up, changes or ends a membership; the reply may bring a new assignment. What a member does not
/// mention has not changed since its last heartbeat.
#[derive(Debug, Clone)]
pub struct ConsumerHeartbeat {
    /// The group.
    pub group_id: String,
    /// The member's id of its own making; empty lets the coordinator choose one (v0).
    pub member_id: String,
    /// The member's epoch, or one of [`JOIN_EPOCH`], [`LEAVE_EPOCH`], [`LEAVE_STATIC_EPOCH`].
    pub member_epoch: i32,
    /// The static member's own name.
    pub instance_id: Option<String>,
    /// Where the member stands.
    pub rack_id: Option<String>,
    /// How long it may take to give up partitions.
    pub rebalance_timeout_ms: Option<i32>,
    /// The topics it reads.
    pub topics: Option<Vec<String>>,
    /// Further topics, as an expression that whole names match; empty for none.
    pub topic_regex: Option<String>,
    /// The assignor it wishes.
    pub assignor: Option<String>,
    /// The partitions that it has.
    pub owned: Option<TopicPartitions>,
    /// The client id of the connection.
    pub client_id: String,
    /// The client's address as descriptions show it ("/127.0.0.1").
    pub client_host: String,
}

/// What the member is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerHeartbeatReply {
    /// Set when the heartbeat was refused; the rest has no meaning then.
    pub error: Option<GroupError>,
    /// The member.
    pub member_id: String,
    /// The epoch that its next heartbeat is to carry.
    pub member_epoch: i32,
    /// Time between heartbeats.
    pub heartbeat_interval_ms: i32,
    /// All that the member may have now; none when nothing has changed.
    pub assignment: Option<TopicPartitions>,
}

impl ConsumerHeartbeatReply {
    /// The reply to a heartbeat that was refused.
    pub fn refused(error: GroupError) -> Self {
        ConsumerHeartbeatReply {
            error: Some(error),
            member_id: String::new(),
            member_epoch: 0,
            heartbeat_interval_ms: 0,
            assignment: None,
        }
    }
}

/// Where a group of the new protocols stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ModernGroupState {
    /// No members.
    Empty,
    /// The assignment to aim at is older than the group.
    Assigning,
    /// Members are on their way to their assignments.
    Reconciling,
    /// Every member has what it shall have.
    Stable,
    /// There is no such group.
    Dead,
}

impl ModernGroupState {
    /// Kafka's name of the state.
    pub fn name(self) -> &'static str {
        match self {
            ModernGroupState::Empty => "Empty",
            ModernGroupState::Assigning => "Assigning",
            ModernGroupState::Reconciling => "Reconciling",
            ModernGroupState::Stable => "Stable",
            ModernGroupState::Dead => "Dead",
        }
    }
}

/// Asks for one group of the given type.
#[derive(Debug, Clone)]
pub struct DescribeModernGroup {
    /// The group.
    pub group_id: String,
}

/// A group of the new protocols.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribeModernGroupReply {
    /// `GroupIdNotFound` also when the group is of another type.
    pub error: Option<GroupError>,
    /// Whether a group of another type has that id.
    pub is_of_other_type: bool,
    /// Its state.
    pub state: ModernGroupState,
    /// Its epoch.
    pub epoch: i32,
    /// The epoch of the assignment that its members aim at.
    pub assignment_epoch: i32,
    /// The assignor in use.
    pub assignor: String,
    /// The members, by id.
    pub members: Vec<DescribedModernMember>,
}

impl DescribeModernGroupReply {
    /// The reply about a group that cannot be described.
    pub fn refused(error: GroupError) -> Self {
        DescribeModernGroupReply {
            error: Some(error),
            is_of_other_type: false,
            state: ModernGroupState::Dead,
            epoch: 0,
            assignment_epoch: 0,
            assignor: String::new(),
            members: Vec::new(),
        }
    }
}

/// One member of a group of the new protocols.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedModernMember {
    /// The member.
    pub member_id: String,
    /// Its static name.
    pub instance_id: Option<String>,
    /// Where it stands.
    pub rack_id: Option<String>,
    /// Its epoch.
    pub epoch: i32,
    /// The client id of its connection.
    pub client_id: String,
    /// The address of its connection.
    pub client_host: String,
    /// The topics it named.
    pub topics: Vec<String>,
    /// The expression it gave, if any.
    pub topic_regex: Option<String>,
    /// What it has.
    pub assignment: TopicPartitions,
    /// What it shall have.
    pub target: TopicPartitions,
    /// Whether it speaks the classic protocol.
    pub is_classic: bool,
}
