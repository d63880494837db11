//! Groups that read a stream entry by entry: positions, consumers, pending entries. The half of a group that XREADGROUP
//! adds to Kafka's, which keeps the committed offset.
//!
//! Lives on: the shard that owns a partition of `__stream_groups`; holds the groups that hash to it. Created empty and
//! fed the partition's records by [`StreamGroups::replay`].
//!
//! How to drive it. Requests for one group go one at a time. For each, the caller
//! 1. fetches the group's committed offset and hands it to [`StreamGroups::sync`], appends the records that gives, and
//!    hands them to `replay`,
//! 2. calls [`StreamGroups::plan`], appends its records, hands them to `replay`, and only then replies,
//! 3. commits [`StreamGroups::committable`] under [`OWN_COMMIT`] if that is not what is committed.
//!
//! Promise: state changes by `replay` and nothing else, so that what is loaded again is what was; nothing is delivered,
//! claimed or acknowledged in memory that is not in the log.
//!
//! One group, two protocols: the committed offset is the first entry that is not acknowledged, which is where a Kafka
//! consumer goes on, and what lag is counted from. A commit without our mark came from outside. If it says something
//! else than we do, it moves the group: entries before it are done with, those behind it will be delivered anew, and
//! nothing is pending any more.
//! Source: Redis 7's streams (t_stream.c's consumer groups) for what the verbs mean.

mod plan;
pub mod schema;
mod state;

use std::collections::BTreeMap;

use crate::coordinator::group::StateRecord;
use crate::model::stream_group::{GroupPosition, StreamGroupKey, StreamGroupReply, StreamGroupVerb};
use crate::model::{NO_TIMESTAMP, Offset, TopicName, TopicPartition};

use schema::{Change, SchemaError};
use state::StreamGroup;

/// The note beside offsets that were committed for a stream group.
pub const OWN_COMMIT: &str = "stream-group";

/// The limits of groups, named as in the configuration.
#[derive(Debug, Clone, Copy)]
pub struct StreamGroupSettings {
    /// Most pending entries of one group.
    pub pending_max: usize,
    /// Most consumers of one group.
    pub consumers_max: usize,
}

/// What a request comes to.
#[derive(Debug, PartialEq)]
#[must_use = "the records are to be appended before the reply is sent"]
pub struct Planned {
    /// To be appended in one go and then replayed.
    pub records: Vec<StateRecord>,
    /// To be sent after that.
    pub reply: StreamGroupReply,
}

/// What is committed for a group, as its coordinator says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The offset.
    pub offset: Offset,
    /// Whether it was committed under [`OWN_COMMIT`].
    pub is_own: bool,
}

/// The stream groups of one partition of the state topic.
pub struct StreamGroups {
    settings: StreamGroupSettings,
    groups: BTreeMap<StreamGroupKey, StreamGroup>,
}

impl StreamGroups {
    /// Without any group.
    pub fn new(settings: StreamGroupSettings) -> Self {
        StreamGroups { settings, groups: BTreeMap::new() }
    }

    /// Takes in a record that is in the log.
    ///
    /// # Errors
    /// If it is none of ours; nothing has changed then.
    pub fn replay(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), SchemaError> {
        let (key, change) = Change::decode(key, value)?;
        if change == Change::Forget {
            self.groups.remove(&key);
        } else {
            let group = self.groups.entry(key).or_default();
            group.apply(change);
        }
        Ok(())
    }

    /// Brings the group into line with what is committed for it; the records to append and replay before anything else.
    #[must_use = "the records are to be appended and replayed"]
    pub fn sync(&self, key: &StreamGroupKey, committed: Option<Committed>) -> Vec<StateRecord> {
        let Some(committed) = committed else { return Vec::new() };
        match self.groups.get(key) {
            None => vec![Change::Position(moved_to(committed)).encode(key)],
            Some(group) if committed.is_own || committed.offset == group.committable() => Vec::new(),
            Some(group) => {
                let pending = group.pending.keys().map(|offset| Change::Done(*offset).encode(key));
                pending.chain([Change::Position(moved_to(committed)).encode(key)]).collect()
            }
        }
    }

    /// What a verb that changes nothing would say once the group is in line with what is committed.
    pub fn look(
        &self,
        key: &StreamGroupKey,
        verb: &StreamGroupVerb,
        committed: Option<Committed>,
        now_ms: i64,
    ) -> StreamGroupReply {
        let Some(committed) = committed.filter(|_| !self.sync(key, committed).is_empty()) else {
            return self.plan(key, verb, now_ms).reply;
        };
        // Somebody else has moved the group, which then has nothing pending.
        let mut moved = StreamGroups::new(self.settings);
        let position = Change::Position(moved_to(committed)).encode(key);
        let taken_in = moved.replay(&position.key, position.value.as_deref());
        debug_assert!(taken_in.is_ok(), "the record is of our own making");
        moved.plan(key, verb, now_ms).reply
    }

    /// The offset to commit: the first entry that is not acknowledged. None if there is no such group.
    pub fn committable(&self, key: &StreamGroupKey) -> Option<Offset> {
        self.groups.get(key).map(StreamGroup::committable)
    }

    /// Notes that a consumer was seen and, if `is_active`, was given something. For people; not stored by itself.
    pub fn touch(&mut self, key: &StreamGroupKey, consumer: &str, is_active: bool, now_ms: i64) {
        if let Some(consumer) = self.groups.get_mut(key).and_then(|group| group.consumers.get_mut(consumer)) {
            consumer.seen_ms = now_ms;
            if is_active {
                consumer.active_ms = now_ms;
            }
        }
    }

    /// The names of the groups that read a partition.
    pub fn names(&self, place: &TopicPartition) -> Vec<String> {
        self.groups.keys().filter(|key| key.place == *place).map(|key| key.group.clone()).collect()
    }

    /// The records that forget all groups on a topic, since it is deleted.
    #[must_use = "the records are to be appended and replayed"]
    pub fn topic_deleted(&self, topic: &TopicName) -> Vec<StateRecord> {
        self.forget(|key| key.place.topic == *topic)
    }

    /// The records that forget a group on all that it reads, since it is deleted.
    #[must_use = "the records are to be appended and replayed"]
    pub fn group_deleted(&self, group: &str) -> Vec<StateRecord> {
        self.forget(|key| key.group == group)
    }

    fn forget(&self, is_meant: impl Fn(&StreamGroupKey) -> bool) -> Vec<StateRecord> {
        self.groups
            .iter()
            .filter(|(key, _)| is_meant(key))
            .flat_map(|(key, group)| group.tombstones(key))
            .collect()
    }

    /// The records that hold the whole state.
    pub fn snapshot(&self) -> impl Iterator<Item = StateRecord> {
        self.groups.iter().flat_map(|(key, group)| group.records(key))
    }

    /// About how large the snapshot is.
    pub fn live_bytes(&self) -> u64 {
        /// A record with its names, roughly.
        const RECORD_BYTES: usize = 100;
        let records = |group: &StreamGroup| 1 + group.consumers.len() + group.pending.len();
        (self.groups.values().map(records).sum::<usize>() * RECORD_BYTES) as u64
    }
}

/// Where somebody else has moved a group.
fn moved_to(committed: Committed) -> GroupPosition {
    GroupPosition { next_offset: committed.offset, last_timestamp_ms: NO_TIMESTAMP }
}

#[cfg(test)]
mod tests;
