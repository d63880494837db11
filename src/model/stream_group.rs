//! The words of groups that read a stream entry by entry: what a front asks of a group's keeper and what it is told.
//!
//! A group reads one partition of a topic: entries are delivered to consumers, are pending until they are acknowledged,
//! and may be claimed by another consumer meanwhile. Plain values that may cross shards.
//! Source: the XGROUP, XREADGROUP, XACK, XPENDING, XCLAIM, XAUTOCLAIM and XINFO commands of Redis 7.

use super::{Offset, TopicPartition};

/// An entry: its offset, which alone decides, and the time in its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamEntryId {
    /// The record's offset.
    pub offset: Offset,
    /// The record's timestamp.
    pub timestamp_ms: i64,
}

/// How far a group has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupPosition {
    /// The next entry to be delivered.
    pub next_offset: Offset,
    /// The time in the id of the entry before; -1 if it is not known.
    pub last_timestamp_ms: i64,
}

/// One group on one partition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamGroupKey {
    /// The group, which is Kafka's group of the same name.
    pub group: String,
    /// What it reads.
    pub place: TopicPartition,
}

/// One request to a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamGroupRequest {
    /// Which group.
    pub key: StreamGroupKey,
    /// What is asked.
    pub verb: StreamGroupVerb,
}

/// What is asked of a group. Offsets are those of entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamGroupVerb {
    /// Make the group; it begins there.
    Create(GroupPosition),
    /// Go on from another place; what is pending stays so.
    SetPosition(GroupPosition),
    /// Forget the group on this partition.
    Destroy,
    /// Make a consumer.
    CreateConsumer(String),
    /// Forget a consumer, and what is pending for it.
    DeleteConsumer(String),
    /// Where the next delivery begins. Notes that the consumer was seen; a new one is made when it is given something.
    Begin {
        /// Who asks.
        consumer: String,
    },
    /// Deliver entries to a consumer, if the group's position still is `from`.
    Deliver {
        /// To whom.
        consumer: String,
        /// The position at which they were read.
        from: Offset,
        /// The position behind them.
        to: GroupPosition,
        /// The entries.
        entries: Vec<StreamEntryId>,
        /// Whether an entry that is pending already (the group was set back) stays as it is: NOACK.
        keeps_pending: bool,
    },
    /// These entries are done with; an id whose time is another is none of them.
    Acknowledge(Vec<StreamEntryId>),
    /// What is pending, in sum.
    Summary,
    /// What is pending, entry by entry.
    Pending(PendingFilter),
    /// Give pending entries to a consumer.
    Claim(Claim),
    /// Deliver what is pending for a consumer anew: its history.
    History {
        /// Whose.
        consumer: String,
        /// Entries behind this one; -1 for all.
        after: Offset,
        /// At most so many.
        count: usize,
        /// The log has entries from here on; what it has let go is shown, and is no delivery.
        log_start_offset: Offset,
    },
    /// Everything but the pending entries.
    Describe,
}

impl StreamGroupVerb {
    /// Whether the verb leaves the group as it is.
    pub fn is_read_only(&self) -> bool {
        matches!(self, StreamGroupVerb::Summary | StreamGroupVerb::Pending(_) | StreamGroupVerb::Describe)
    }
}

/// Which pending entries are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingFilter {
    /// The first offset.
    pub first: Offset,
    /// The last offset, itself wanted.
    pub last: Offset,
    /// At most so many.
    pub count: usize,
    /// Only those of this consumer.
    pub consumer: Option<String>,
    /// Only those delivered at least so long ago.
    pub min_idle_ms: i64,
}

/// XCLAIM, and XAUTOCLAIM once it knows which entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The new owner.
    pub consumer: String,
    /// Which entries; their times matter only for those that are not pending.
    pub entries: Vec<StreamEntryId>,
    /// Only those delivered at least so long ago.
    pub min_idle_ms: i64,
    /// When they count as delivered; now if it is not said.
    pub delivered_ms: Option<i64>,
    /// How often they count as delivered; once more than before if it is not said, unless `keeps_count`.
    pub delivery_count: Option<i64>,
    /// Leave the delivery count as it is (JUSTID).
    pub keeps_count: bool,
    /// Claim entries as well that are not pending (FORCE).
    pub forces: bool,
}

/// The answer to a verb.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamGroupReply {
    /// It is done.
    Done,
    /// To `CreateConsumer`, `DeleteConsumer`, `Acknowledge` and `Destroy`: how many.
    Count(usize),
    /// To `Deliver`: the entries that became pending by it.
    Delivered(Vec<StreamEntryId>),
    /// To `Begin`: the position. To `Deliver`: another consumer was faster, and this is the position now.
    Position(Offset),
    /// To `Summary`.
    Summary(PendingSummary),
    /// To `Pending` and `History`.
    Pending(Vec<PendingEntry>),
    /// To `Claim`: the entries claimed.
    Claimed(Vec<StreamEntryId>),
    /// To `Describe`.
    Described(StreamGroupDescription),
    /// Nothing was changed.
    Refused(StreamGroupError),
}

/// Why a group refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamGroupError {
    /// There is no such group on this partition.
    #[error("there is no such group")]
    NoGroup,
    /// The group is there already.
    #[error("the group is there already")]
    GroupExists,
    /// A limit of the configuration.
    #[error("{0}")]
    LimitReached(String),
    /// The state could not be stored or read just now.
    #[error("{0}")]
    NotAvailable(String),
    /// Members that speak Kafka's protocol own the group's offsets.
    #[error("the group has members that speak Kafka's protocol")]
    HasMembers,
}

/// An entry that was delivered and not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingEntry {
    /// Which one.
    pub id: StreamEntryId,
    /// Its owner.
    pub consumer: String,
    /// When it was last delivered, in milliseconds.
    pub delivered_ms: i64,
    /// How often.
    pub delivery_count: i64,
}

/// All pending entries of a group in sum.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PendingSummary {
    /// How many.
    pub count: usize,
    /// The first one.
    pub first: Option<StreamEntryId>,
    /// The last one.
    pub last: Option<StreamEntryId>,
    /// How many each consumer has, if any.
    pub by_consumer: Vec<(String, usize)>,
}

/// A group without its pending entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamGroupDescription {
    /// How far it has read.
    pub position: GroupPosition,
    /// What is committed: the first entry that is not acknowledged.
    pub committed_offset: Offset,
    /// How many entries are pending.
    pub pending_count: usize,
    /// Its consumers.
    pub consumers: Vec<StreamConsumer>,
}

/// A consumer of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamConsumer {
    /// Its name.
    pub name: String,
    /// How many entries are pending for it.
    pub pending_count: usize,
    /// When it last asked for something, in milliseconds.
    pub seen_ms: i64,
    /// When it last was given something, in milliseconds; -1 for never.
    pub active_ms: i64,
}
