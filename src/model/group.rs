//! The words of consumer groups: what a client asks of a group's coordinator and what it is told.
//!
//! Plain values of Kafka's group protocols without their wire form, so that every front, the broker, the shard
//! and the coordinator share them. All of them may cross shards.
//! Source: Kafka's JoinGroup, SyncGroup, Heartbeat, LeaveGroup, OffsetCommit, TxnOffsetCommit, OffsetFetch,
//! OffsetDelete, ListGroups, DescribeGroups and DeleteGroups messages; KIP-62 (rebalance timeout), KIP-345 (static
//! members), KIP-394 (MEMBER_ID_REQUIRED), KIP-447 (stable offsets), KIP-814 (skip assignment).

mod admin;
mod consumer;
mod offsets;

use std::fmt;

use bytes::Bytes;

use super::transaction::TransactionError;

pub use admin::{
    DeleteGroup, DeleteGroupReply, DescribeGroup, DescribeGroupReply, DescribedMember, ListGroups,
    ListGroupsReply, ListedGroup,
};
pub use consumer::{
    CONSUMER_GROUP_TYPE, ConsumerHeartbeat, ConsumerHeartbeatReply, DescribeModernGroup,
    DescribeModernGroupReply, DescribedModernMember, JOIN_EPOCH, LEAVE_EPOCH, LEAVE_STATIC_EPOCH,
    ModernGroupState, SHARE_GROUP_TYPE, TopicPartitions,
};
pub use offsets::{
    ByTopic, CommitPartition, FetchedOffset, NO_COMMITTED_OFFSET, OffsetCommit, OffsetCommitReply,
    OffsetDelete, OffsetDeleteReply, OffsetFetch, OffsetFetchReply, PartitionResult,
};

/// "No generation": a commit from a client that does not take part in the group.
pub const NO_GENERATION: i32 = -1;
/// The protocol type of Kafka's own consumers; their subscriptions can be read.
pub const CONSUMER_PROTOCOL_TYPE: &str = "consumer";
/// The type that ListGroups gives groups of this protocol.
pub const CLASSIC_GROUP_TYPE: &str = "classic";

/// Names a request whose reply may come later; given by the caller and answered exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplyToken(pub u64);

/// Where a group stands between two generations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GroupState {
    /// No members; offsets may remain.
    Empty,
    /// Members are joining the next generation.
    PreparingRebalance,
    /// The generation is fixed; its leader owes the assignment.
    CompletingRebalance,
    /// Every member can have its assignment.
    Stable,
    /// There is no such group.
    Dead,
}

impl GroupState {
    /// Kafka's name of the state.
    pub fn name(self) -> &'static str {
        match self {
            GroupState::Empty => "Empty",
            GroupState::PreparingRebalance => "PreparingRebalance",
            GroupState::CompletingRebalance => "CompletingRebalance",
            GroupState::Stable => "Stable",
            GroupState::Dead => "Dead",
        }
    }
}

impl fmt::Display for GroupState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a coordinator may have to refuse with. Each is one of Kafka's error codes unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum GroupError {
    /// The member is not in the group: join again with no member id.
    #[error("the member is not known to the group")]
    UnknownMemberId,
    /// The generation has passed: join again.
    #[error("the generation is not the group's current one")]
    IllegalGeneration,
    /// The group is between generations: join again.
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    /// No common protocol with the members, or another protocol type.
    #[error("the protocol type or protocols do not fit the group's")]
    InconsistentGroupProtocol,
    /// Another client took over this instance id. Fatal for the client.
    #[error("another member took over the group instance id")]
    FencedInstanceId,
    /// Join again with the member id in the reply (KIP-394).
    #[error("join again with the given member id")]
    MemberIdRequired,
    /// The group has `group.max.size` members.
    #[error("the group has as many members as it may have")]
    GroupMaxSizeReached,
    /// The session timeout is outside the configured bounds.
    #[error("the session timeout is outside the allowed bounds")]
    InvalidSessionTimeout,
    /// The group id is empty where it must not be, or too long.
    #[error("the group id is not valid")]
    InvalidGroupId,
    /// A name in the request is longer than a record can hold. (INVALID_REQUEST)
    #[error("a field of the request is out of its bounds")]
    InvalidRequest,
    /// The group has members and so cannot be deleted.
    #[error("the group has members")]
    NonEmptyGroup,
    /// There is no such group.
    #[error("there is no such group")]
    GroupIdNotFound,
    /// Offsets of a topic that members subscribe to cannot be deleted.
    #[error("the group is subscribed to the topic")]
    GroupSubscribedToTopic,
    /// The note beside a committed offset is longer than `offset.metadata.max.bytes`.
    #[error("the metadata of the offset is too large")]
    OffsetMetadataTooLarge,
    /// The state could not be stored just now: try again.
    #[error("the coordinator cannot store its state now")]
    CoordinatorNotAvailable,
    /// The coordinator still replays its log: try again.
    #[error("the coordinator is loading")]
    CoordinatorLoadInProgress,
    /// Another shard owns the group now: find the coordinator again.
    #[error("this is not the coordinator of the group")]
    NotCoordinator,
    /// A transaction that commits this offset is still open: try again.
    #[error("a transaction holds an undecided offset")]
    UnstableOffsetCommit,
    /// What the transaction that offsets were to be committed in has against it.
    #[error("{0}")]
    Transaction(TransactionError),
    /// The member's epoch is not the one that its next heartbeat must carry: give everything up and join again.
    #[error("the member epoch is not the current one; the member must give up its partitions and join again")]
    FencedMemberEpoch,
    /// The epoch is not the member's: try again with the one that the next heartbeat brings.
    #[error("the member epoch is not the current one")]
    StaleMemberEpoch,
    /// No such assignor.
    #[error("the assignor is not supported")]
    UnsupportedAssignor,
    /// The instance id belongs to a member that has not left.
    #[error("the group instance id is still in use by another member")]
    UnreleasedInstanceId,
    /// The subscription is not a regular expression.
    #[error("the regular expression is not valid")]
    InvalidRegularExpression,
    /// The coordinator holds `groups.max` groups. Not a code of Kafka's, which has no such limit.
    #[error("the coordinator has as many groups as it may have")]
    GroupsMaxReached,
}

/// One request to the coordinator of one group (ListGroups: to each coordinator).
#[derive(Debug, Clone)]
pub enum GroupRequest {
    /// See [`JoinGroup`].
    Join(JoinGroup),
    /// See [`SyncGroup`].
    Sync(SyncGroup),
    /// See [`Heartbeat`].
    Heartbeat(Heartbeat),
    /// See [`LeaveGroup`].
    Leave(LeaveGroup),
    /// See [`OffsetCommit`].
    OffsetCommit(OffsetCommit),
    /// See [`OffsetFetch`].
    OffsetFetch(OffsetFetch),
    /// See [`OffsetDelete`].
    OffsetDelete(OffsetDelete),
    /// See [`ListGroups`].
    List(ListGroups),
    /// See [`DescribeGroup`].
    Describe(DescribeGroup),
    /// See [`DeleteGroup`].
    Delete(DeleteGroup),
    /// See [`ConsumerHeartbeat`].
    ConsumerHeartbeat(ConsumerHeartbeat),
    /// A consumer group (KIP-848) is asked for.
    DescribeConsumer(DescribeModernGroup),
    /// As [`ConsumerHeartbeat`], to a share group (KIP-932), which looks at fewer of its fields.
    ShareHeartbeat(ConsumerHeartbeat),
    /// A share group (KIP-932) is asked for.
    DescribeShare(DescribeModernGroup),
    /// As `DescribeShare`, and makes the group if there is none of that name.
    EnsureShare(DescribeModernGroup),
}

/// The answer to the [`GroupRequest`] of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupReply {
    /// See [`JoinGroupReply`].
    Join(JoinGroupReply),
    /// See [`SyncGroupReply`].
    Sync(SyncGroupReply),
    /// See [`HeartbeatReply`].
    Heartbeat(HeartbeatReply),
    /// See [`LeaveGroupReply`].
    Leave(LeaveGroupReply),
    /// See [`OffsetCommitReply`].
    OffsetCommit(OffsetCommitReply),
    /// See [`OffsetFetchReply`].
    OffsetFetch(OffsetFetchReply),
    /// See [`OffsetDeleteReply`].
    OffsetDelete(OffsetDeleteReply),
    /// See [`ListGroupsReply`].
    List(ListGroupsReply),
    /// See [`DescribeGroupReply`].
    Describe(DescribeGroupReply),
    /// See [`DeleteGroupReply`].
    Delete(DeleteGroupReply),
    /// See [`ConsumerHeartbeatReply`]; to `ShareHeartbeat` as well.
    ConsumerHeartbeat(ConsumerHeartbeatReply),
    /// See [`DescribeModernGroupReply`]; to `DescribeShare` and `EnsureShare` as well.
    DescribeConsumer(DescribeModernGroupReply),
}

/// A way of assigning partitions that a member offers, with what it tells the leader for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberProtocol {
    /// The protocol's name, for consumers that of an assignor ("range").
    pub name: String,
    /// The member's words for the leader, for consumers their subscription.
    pub metadata: Bytes,
}

/// Asks to be a member of the group's next generation. Answered when that generation has formed.
#[derive(Debug, Clone)]
pub struct JoinGroup {
    /// The group.
    pub group_id: String,
    /// The member's id, empty on first contact.
    pub member_id: String,
    /// The static member's own name (KIP-345).
    pub group_instance_id: Option<String>,
    /// The client id of the connection, part of the new member's id.
    pub client_id: String,
    /// The client's address as DescribeGroups shows it ("/127.0.0.1").
    pub client_host: String,
    /// Silence after which the member is removed.
    pub session_timeout_ms: i32,
    /// How long the member may take to rejoin; fronts put the session timeout here for JoinGroup v0.
    pub rebalance_timeout_ms: i32,
    /// The family of protocols ("consumer", "connect").
    pub protocol_type: String,
    /// The protocols that the member can do, best first.
    pub protocols: Vec<MemberProtocol>,
    /// Whether a new dynamic member must come back with the id it is given (JoinGroup v4 and later).
    pub require_known_member_id: bool,
    /// Whether a returning static leader can be told to keep the assignment (JoinGroup v9 and later).
    pub supports_skipping_assignment: bool,
    /// Why the client joins, for the log.
    pub reason: Option<String>,
}

/// What the leader learns of each member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedMember {
    /// The member.
    pub member_id: String,
    /// Its static name.
    pub group_instance_id: Option<String>,
    /// Its metadata for the chosen protocol.
    pub metadata: Bytes,
}

/// The new generation, or why the join failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinGroupReply {
    /// Set when the join failed; then only `member_id` has a meaning.
    pub error: Option<GroupError>,
    /// The generation joined; -1 on error.
    pub generation_id: i32,
    /// The group's protocol type.
    pub protocol_type: Option<String>,
    /// The protocol chosen by vote.
    pub protocol_name: Option<String>,
    /// The member that assigns.
    pub leader: String,
    /// Whether the leader is to leave the assignment as it is (KIP-814).
    pub skip_assignment: bool,
    /// The member's id, to be used from now on.
    pub member_id: String,
    /// All members, for the leader only.
    pub members: Vec<JoinedMember>,
}

impl JoinGroupReply {
    /// The reply of a join that failed.
    pub fn refused(member_id: &str, error: GroupError) -> Self {
        JoinGroupReply {
            error: Some(error),
            generation_id: NO_GENERATION,
            protocol_type: None,
            protocol_name: None,
            leader: String::new(),
            skip_assignment: false,
            member_id: member_id.to_owned(),
            members: Vec::new(),
        }
    }
}

/// Asks for the member's assignment, and brings everybody's if the member is the leader.
#[derive(Debug, Clone)]
pub struct SyncGroup {
    /// The group.
    pub group_id: String,
    /// The generation joined.
    pub generation_id: i32,
    /// The member.
    pub member_id: String,
    /// Its static name.
    pub group_instance_id: Option<String>,
    /// The protocol type the member believes in (v5 and later).
    pub protocol_type: Option<String>,
    /// The protocol the member believes in (v5 and later).
    pub protocol_name: Option<String>,
    /// From the leader: (member id, assignment).
    pub assignments: Vec<(String, Bytes)>,
}

/// The member's assignment. Answered once the leader's assignments are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncGroupReply {
    /// Set when there is no assignment.
    pub error: Option<GroupError>,
    /// The group's protocol type.
    pub protocol_type: Option<String>,
    /// The protocol of the generation.
    pub protocol_name: Option<String>,
    /// What the leader gave this member.
    pub assignment: Bytes,
}

impl SyncGroupReply {
    /// The reply of a sync that failed.
    pub fn refused(error: GroupError) -> Self {
        SyncGroupReply {
            error: Some(error),
            protocol_type: None,
            protocol_name: None,
            assignment: Bytes::new(),
        }
    }
}

/// Says that the member lives.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    /// The group.
    pub group_id: String,
    /// The member's generation.
    pub generation_id: i32,
    /// The member.
    pub member_id: String,
    /// Its static name.
    pub group_instance_id: Option<String>,
}

/// Whether the member may go on; `RebalanceInProgress` tells it to join again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatReply {
    /// None when all is well.
    pub error: Option<GroupError>,
}

/// Takes members out of the group. LeaveGroup before v3 names one member and gives its error as the reply's own.
#[derive(Debug, Clone)]
pub struct LeaveGroup {
    /// The group.
    pub group_id: String,
    /// Who leaves; one member before v3.
    pub members: Vec<LeavingMember>,
}

/// One member that leaves.
#[derive(Debug, Clone)]
pub struct LeavingMember {
    /// The member; empty when an admin removes a static member by name.
    pub member_id: String,
    /// The static member's name.
    pub group_instance_id: Option<String>,
    /// Why, for the log.
    pub reason: Option<String>,
}

/// Which members left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaveGroupReply {
    /// Set when the request failed as a whole.
    pub error: Option<GroupError>,
    /// One per member of the request, in its order.
    pub members: Vec<LeftMember>,
}

/// Whether one member left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftMember {
    /// As in the request.
    pub member_id: String,
    /// As in the request.
    pub group_instance_id: Option<String>,
    /// None when it left.
    pub error: Option<GroupError>,
}

impl GroupRequest {
    /// The group that the request is for; none for a listing.
    pub fn group_id(&self) -> Option<&str> {
        match self {
            GroupRequest::Join(request) => Some(&request.group_id),
            GroupRequest::Sync(request) => Some(&request.group_id),
            GroupRequest::Heartbeat(request) => Some(&request.group_id),
            GroupRequest::Leave(request) => Some(&request.group_id),
            GroupRequest::OffsetCommit(request) => Some(&request.group_id),
            GroupRequest::OffsetFetch(request) => Some(&request.group_id),
            GroupRequest::OffsetDelete(request) => Some(&request.group_id),
            GroupRequest::List(_) => None,
            GroupRequest::Describe(request) => Some(&request.group_id),
            GroupRequest::Delete(request) => Some(&request.group_id),
            GroupRequest::ConsumerHeartbeat(request) => Some(&request.group_id),
            GroupRequest::DescribeConsumer(request) => Some(&request.group_id),
            GroupRequest::ShareHeartbeat(request) => Some(&request.group_id),
            GroupRequest::DescribeShare(request) | GroupRequest::EnsureShare(request) => {
                Some(&request.group_id)
            }
        }
    }

    /// The reply that refuses the whole request with `error`, partition by partition where the reply has no other
    /// place for it. Fronts use it too when they cannot reach a coordinator.
    pub fn refused(&self, error: GroupError) -> GroupReply {
        let error_of_all = Some(error);
        match self {
            GroupRequest::Join(join) => GroupReply::Join(JoinGroupReply::refused(&join.member_id, error)),
            GroupRequest::Sync(_) => GroupReply::Sync(SyncGroupReply::refused(error)),
            GroupRequest::Heartbeat(_) => GroupReply::Heartbeat(HeartbeatReply { error: error_of_all }),
            GroupRequest::Leave(_) => {
                GroupReply::Leave(LeaveGroupReply { error: error_of_all, members: Vec::new() })
            }
            GroupRequest::OffsetCommit(commit) => GroupReply::OffsetCommit(commit.refused(error)),
            GroupRequest::OffsetFetch(_) => {
                GroupReply::OffsetFetch(OffsetFetchReply { error: error_of_all, topics: Vec::new() })
            }
            GroupRequest::OffsetDelete(_) => {
                GroupReply::OffsetDelete(OffsetDeleteReply { error: error_of_all, topics: Vec::new() })
            }
            GroupRequest::List(_) => {
                GroupReply::List(ListGroupsReply { error: error_of_all, groups: Vec::new() })
            }
            GroupRequest::Describe(describe) => {
                GroupReply::Describe(DescribeGroupReply::refused(&describe.group_id, error))
            }
            GroupRequest::Delete(_) => GroupReply::Delete(DeleteGroupReply { error: error_of_all }),
            GroupRequest::ConsumerHeartbeat(_) | GroupRequest::ShareHeartbeat(_) => {
                GroupReply::ConsumerHeartbeat(ConsumerHeartbeatReply::refused(error))
            }
            GroupRequest::DescribeConsumer(_)
            | GroupRequest::DescribeShare(_)
            | GroupRequest::EnsureShare(_) => {
                GroupReply::DescribeConsumer(DescribeModernGroupReply::refused(error))
            }
        }
    }
}

impl GroupReply {
    /// The same reply with `error` wherever there was none: what it told of could not be stored.
    pub fn refused(self, error: GroupError) -> GroupReply {
        let refuse = |result: &PartitionResult| PartitionResult {
            partition: result.partition,
            error: result.error.or(Some(error)),
        };
        let refuse_all = |topics: &[ByTopic<PartitionResult>]| -> Vec<ByTopic<PartitionResult>> {
            topics.iter().map(|topic| topic.map_partitions(refuse)).collect()
        };
        match self {
            GroupReply::OffsetCommit(mut commit) => {
                commit.topics = refuse_all(&commit.topics);
                GroupReply::OffsetCommit(commit)
            }
            GroupReply::OffsetDelete(mut delete) => {
                delete.topics = refuse_all(&delete.topics);
                GroupReply::OffsetDelete(delete)
            }
            GroupReply::Delete(_) => GroupReply::Delete(DeleteGroupReply { error: Some(error) }),
            GroupReply::Join(join) => GroupReply::Join(JoinGroupReply::refused(&join.member_id, error)),
            GroupReply::Sync(_) => GroupReply::Sync(SyncGroupReply::refused(error)),
            GroupReply::Heartbeat(_) => GroupReply::Heartbeat(HeartbeatReply { error: Some(error) }),
            GroupReply::Leave(_) => {
                GroupReply::Leave(LeaveGroupReply { error: Some(error), members: Vec::new() })
            }
            GroupReply::ConsumerHeartbeat(_) => {
                GroupReply::ConsumerHeartbeat(ConsumerHeartbeatReply::refused(error))
            }
            GroupReply::DescribeConsumer(_) => {
                GroupReply::DescribeConsumer(DescribeModernGroupReply::refused(error))
            }
            // No other reply waits for records.
            other => other,
        }
    }
}
