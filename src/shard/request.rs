//! The closed list of what may cross from one shard to another.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::controller::{ControllerReply, ControllerRequest};
use super::share_partitions::ShareGroupSettings;
use super::subscribers::Listening;
use crate::coordinator::share_partition::{StateBatch, StoredState};
use crate::metadata::ClusterImage;
use crate::model::group::{GroupReply, GroupRequest, ListGroups, ListGroupsReply};
use crate::model::share::{AcknowledgementBatch, AcquiredRecords, ShareError, ShareKey, SharedPartition};
use crate::model::stream_group::{StreamGroupReply, StreamGroupRequest};
use crate::model::transaction::{
    ListTransactions, ListedTransaction, TransactionError, TransactionReply, TransactionRequest,
};
use crate::model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, ShardId, TopicPartition};
use crate::partition::{
    Appended, EpochEnd, IsolationLevel, ListedOffset, Marker, OffsetSpec, PartitionError, PartitionRead,
    ProducerDescription, ReadSpec, TransactionStart, Verified,
};
use crate::storage::LogCheckpoint;

/// A batch to append: where, what, and what the coordinator said of its transaction.
pub type PlacedBatch = (TopicPartition, BytesMut, Option<Verified>);

/// What one shard asks of another (or of itself). Lists are answered entry by entry, in their order.
#[derive(Debug)]
pub enum ShardRequest {
    /// Append one batch to each partition.
    Append {
        /// The batches.
        batches: Vec<PlacedBatch>,
        /// Whether the producer asked for acks=all.
        acks_all: bool,
    },
    /// Read each partition once, without waiting; in all at most `max_bytes`.
    Read {
        /// Where, and what.
        reads: Vec<(TopicPartition, ReadSpec)>,
        /// Most bytes of the whole answer, but for the first batch.
        max_bytes: usize,
    },
    /// Answer when these partitions have more for a reader, or when the time is up, or at `CancelWait`.
    Wait {
        /// The asking shard's name for this wait.
        id: u64,
        /// Where the reader stands.
        positions: Vec<(TopicPartition, Offset)>,
        /// How far it may see.
        isolation: IsolationLevel,
        /// How many more bytes it wants.
        missing_bytes: i64,
        /// How long it waits.
        timeout_ms: u64,
    },
    /// The asker no longer waits.
    CancelWait {
        /// The name of the wait.
        id: u64,
    },
    /// Answer questions of ListOffsets.
    ListOffsets {
        /// Where, what, and the leader epoch that the client believes in.
        queries: Vec<(TopicPartition, OffsetSpec, LeaderEpoch)>,
        /// How far the reader may see.
        isolation: IsolationLevel,
    },
    /// Where leader epochs end: partition, believed epoch, epoch asked for.
    EpochEnds(Vec<(TopicPartition, LeaderEpoch, LeaderEpoch)>),
    /// Move log start offsets.
    DeleteRecords(Vec<(TopicPartition, Offset)>),
    /// The sizes of these partitions, or of all.
    Sizes(Option<Vec<TopicPartition>>),
    /// The producers of each partition.
    Producers(Vec<TopicPartition>),
    /// What each partition knows of a producer's transaction.
    TransactionStarts {
        /// Who.
        producer_id: ProducerId,
        /// Its epoch.
        producer_epoch: ProducerEpoch,
        /// Where.
        partitions: Vec<TopicPartition>,
    },
    /// Append a marker to each partition.
    WriteMarkers {
        /// What ends, and how.
        marker: Marker,
        /// Where.
        partitions: Vec<TopicPartition>,
    },
    /// A request to the coordinator of a transactional id.
    Transaction {
        /// What is asked.
        request: TransactionRequest,
        /// How long to wait for a change under way before refusing for its sake.
        wait_ms: u64,
    },
    /// The transactional ids that this shard coordinates.
    ListTransactions(ListTransactions),
    /// A request to the coordinator of a group.
    Group(GroupRequest),
    /// The same, but a coordinator that is loading is waited for: for those whose protocol has no "try again".
    GroupOnceLoaded(GroupRequest),
    /// A request to the coordinator of a group that stores what it stores in a producer's transaction.
    GroupInTransaction {
        /// What is asked.
        request: GroupRequest,
        /// What the transaction's coordinator said of the partition of the offsets topic.
        verified: Option<Verified>,
    },
    /// The groups that this shard coordinates.
    ListGroups(ListGroups),
    /// A request to the keeper of a stream group.
    StreamGroup(StreamGroupRequest),
    /// The stream groups kept here that read a partition.
    StreamGroupNames(TopicPartition),
    /// A group was deleted.
    ForgetStreamGroup(String),
    /// A shard has so many subscribers now.
    CountSubscribers {
        /// Of what.
        listening: Listening,
        /// Which shard.
        shard: ShardId,
        /// How many.
        count: u32,
    },
    /// A change that only shard 0 makes.
    Control(ControllerRequest),
    /// What every shard knows has changed: open what is new, remove what is gone.
    Publish {
        /// The new state of things.
        image: Arc<ClusterImage>,
        /// At start: what is known of the partitions on disk.
        starts: Vec<StartPartition>,
    },
    /// Lock records for a member of a share group.
    ShareFetch(ShareFetch),
    /// Answer when these partitions may have records for a share group, or when the time is up, or at `CancelWait`.
    ShareWait(ShareWait),
    /// Take in what a member of a share group says of records.
    ShareAcknowledge(ShareAcknowledge),
    /// Free what a member has locked.
    ShareRelease {
        /// The group.
        group_id: String,
        /// The member.
        member_id: String,
        /// Where.
        partitions: Vec<SharedPartition>,
    },
    /// Drop what is known of these; the next reader loads it again.
    ShareClose(Vec<ShareKey>),
    /// A request to the share coordinators of the shard.
    ShareState(ShareStateRequest),
    /// The leader epochs of the partitions where they are not 0.
    LeaderEpochs,
    /// How far each partition has come, for the checkpoint files.
    Checkpoint,
    /// Close every partition for good and say how far each has come.
    Close,
}

/// A member's wish for records.
#[derive(Debug, Clone)]
pub struct ShareFetch {
    /// The group.
    pub group_id: String,
    /// The member.
    pub member_id: String,
    /// Where, the first first.
    pub partitions: Vec<SharedPartition>,
    /// About how many records at most; exactly when `is_strict`.
    pub max_records: i64,
    /// Most bytes of the whole answer, but for the first batch.
    pub max_bytes: usize,
    /// Whether the first batch comes whole even if it is larger, as nothing has been found elsewhere.
    pub at_least_one: bool,
    /// Whether `max_records` is not to be exceeded for the sake of whole batches.
    pub is_strict: bool,
    /// How the group reads.
    pub settings: ShareGroupSettings,
}

/// What one partition gave.
#[derive(Debug, Clone, Default)]
pub struct ShareRead {
    /// Whole record batches, as they lie on disk.
    pub chunks: Vec<Bytes>,
    /// The bytes in `chunks`.
    pub size_bytes: usize,
    /// Which of the records are locked for the member now.
    pub acquired: Vec<AcquiredRecords>,
}

/// A wait for records.
#[derive(Debug, Clone)]
pub struct ShareWait {
    /// The asking shard's name for this wait.
    pub id: u64,
    /// The group.
    pub group_id: String,
    /// Where.
    pub partitions: Vec<SharedPartition>,
    /// How long.
    pub timeout_ms: u64,
}

/// What a member says of records.
#[derive(Debug, Clone)]
pub struct ShareAcknowledge {
    /// The group.
    pub group_id: String,
    /// The member.
    pub member_id: String,
    /// Where, and what.
    pub partitions: Vec<(SharedPartition, Vec<AcknowledgementBatch>)>,
    /// How the group reads.
    pub settings: ShareGroupSettings,
}

/// What is asked of the share coordinators of a shard.
#[derive(Debug, Clone)]
pub enum ShareStateRequest {
    /// The state, if there is one.
    Read(ShareKey),
    /// All states of a group.
    List {
        /// The group.
        group_id: String,
    },
    /// Make the state anew.
    Initialize {
        /// Whose.
        key: ShareKey,
        /// From where on the group reads.
        start_offset: Offset,
    },
    /// Lay changes over the state.
    Write {
        /// Whose.
        key: ShareKey,
        /// The epoch that the writer knows.
        state_epoch: i32,
        /// The first record that is not done.
        start_offset: Offset,
        /// What has changed behind it.
        batches: Vec<StateBatch>,
    },
    /// Forget these states, as far as they are here.
    Forget {
        /// Which.
        keys: Vec<ShareKey>,
    },
    /// Forget all states of a group.
    ForgetGroup {
        /// The group.
        group_id: String,
    },
}

/// The answer to a [`ShareStateRequest`].
#[derive(Debug, Clone)]
pub enum ShareStateReply {
    /// To `Read` and `Initialize`.
    State(Result<Option<StoredState>, ShareError>),
    /// To `List`.
    Listed(Vec<(ShareKey, StoredState)>),
    /// To `Write`, `Forget` and `ForgetGroup`: whether it is in the log.
    Written(Result<(), ShareError>),
}

/// What is known of a partition before it is opened at start.
#[derive(Debug, Clone)]
pub struct StartPartition {
    /// Which one.
    pub topic_partition: TopicPartition,
    /// How far it had come at the last checkpoint.
    pub checkpoint: Option<LogCheckpoint>,
    /// Whether the last run closed it properly.
    pub clean: bool,
}

/// The answer to the [`ShardRequest`] of the same name.
#[derive(Debug)]
pub enum ShardReply {
    /// To `Append`.
    Appended(Vec<Result<Appended, PartitionError>>),
    /// To `Read`.
    Read(Vec<Result<PartitionRead, PartitionError>>),
    /// To `ListOffsets`.
    ListedOffsets(Vec<Result<ListedOffset, PartitionError>>),
    /// To `EpochEnds`.
    EpochEnds(Vec<Result<EpochEnd, PartitionError>>),
    /// To `DeleteRecords`.
    DeletedRecords(Vec<Result<Offset, PartitionError>>),
    /// To `Sizes`.
    Sizes(Vec<(TopicPartition, u64)>),
    /// To `Producers`.
    Producers(Vec<Result<Vec<ProducerDescription>, PartitionError>>),
    /// To `TransactionStarts`.
    TransactionStarts(Vec<Result<TransactionStart, PartitionError>>),
    /// To `WriteMarkers`.
    MarkersWritten(Vec<Result<(), PartitionError>>),
    /// To `Transaction`.
    Transaction(TransactionReply),
    /// To `ListTransactions`.
    ListedTransactions(Result<Vec<ListedTransaction>, TransactionError>),
    /// To `Group` and `GroupInTransaction`.
    Group(GroupReply),
    /// To `ListGroups`.
    ListedGroups(ListGroupsReply),
    /// To `StreamGroup`.
    StreamGroup(StreamGroupReply),
    /// To `StreamGroupNames`.
    StreamGroupNames(Vec<String>),
    /// To `Control`.
    Controlled(ControllerReply),
    /// To `ShareFetch`.
    ShareFetched(Vec<Result<ShareRead, ShareError>>),
    /// To `ShareAcknowledge`.
    ShareAcknowledged(Vec<Result<(), ShareError>>),
    /// To `ShareState`.
    ShareState(ShareStateReply),
    /// To `LeaderEpochs`.
    LeaderEpochs(Vec<(TopicPartition, LeaderEpoch)>),
    /// To `Checkpoint`.
    Checkpoints(Vec<(TopicPartition, LogCheckpoint)>),
    /// To `Close`.
    Closed {
        /// How far each partition had come.
        checkpoints: Vec<(TopicPartition, LogCheckpoint)>,
        /// Whether all could be closed properly.
        all_closed: bool,
    },
    /// To `Wait` and `ShareWait` when the time was up.
    WaitedInVain,
    /// To `Wait` and `ShareWait` otherwise, `CancelWait`, `ShareRelease`, `ShareClose` and `Publish`.
    Done,
    /// The shard could not be asked.
    Unavailable,
}
