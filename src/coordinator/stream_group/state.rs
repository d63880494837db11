//! One group's state, and how a change changes it.
//!
//! Invariant: an offset is pending for exactly the consumer in whose set it is.

use std::collections::{BTreeMap, BTreeSet};

use super::schema::Change;
use crate::coordinator::group::StateRecord;
use crate::model::Offset;
use crate::model::stream_group::{GroupPosition, StreamEntryId, StreamGroupKey};

/// "Never" in place of a time.
pub(super) const NEVER_MS: i64 = -1;

/// A group on one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StreamGroup {
    pub(super) position: GroupPosition,
    pub(super) pending: BTreeMap<Offset, Pending>,
    pub(super) consumers: BTreeMap<String, Consumer>,
}

/// An entry that was delivered and not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) consumer: String,
    pub(super) delivered_ms: i64,
    pub(super) delivery_count: i64,
    /// The time in the entry's id.
    pub(super) timestamp_ms: i64,
}

impl Pending {
    /// The id of this entry, which lies at `offset`.
    pub(super) fn id(&self, offset: Offset) -> StreamEntryId {
        StreamEntryId { offset, timestamp_ms: self.timestamp_ms }
    }
}

/// One consumer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Consumer {
    pub(super) pending: BTreeSet<Offset>,
    /// When it last asked for something, as far as is known.
    pub(super) seen_ms: i64,
    /// When it last was given something, or never.
    pub(super) active_ms: i64,
}

impl Default for StreamGroup {
    fn default() -> Self {
        StreamGroup {
            position: GroupPosition { next_offset: 0, last_timestamp_ms: NEVER_MS },
            pending: BTreeMap::new(),
            consumers: BTreeMap::new(),
        }
    }
}

impl StreamGroup {
    /// The first entry that is not acknowledged.
    pub(super) fn committable(&self) -> Offset {
        let next_offset = self.position.next_offset;
        self.pending.first_key_value().map_or(next_offset, |(offset, _)| (*offset).min(next_offset))
    }

    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::Position(position) => self.position = position,
            Change::Forget => *self = StreamGroup::default(),
            Change::Consumer { name, seen_ms, active_ms } => {
                self.consumers.entry(name).or_insert(Consumer { seen_ms, active_ms, ..Consumer::default() });
            }
            Change::ConsumerGone(name) => {
                for offset in self.consumers.remove(&name).unwrap_or_default().pending {
                    self.pending.remove(&offset);
                }
            }
            Change::Pending { id, consumer, delivered_ms, delivery_count } => {
                let StreamEntryId { offset, timestamp_ms } = id;
                self.done(offset);
                let owner = self.consumers.entry(consumer.clone()).or_insert(Consumer {
                    seen_ms: delivered_ms,
                    active_ms: NEVER_MS,
                    ..Consumer::default()
                });
                owner.pending.insert(offset);
                owner.seen_ms = owner.seen_ms.max(delivered_ms);
                owner.active_ms = owner.active_ms.max(delivered_ms);
                self.pending.insert(offset, Pending { consumer, delivered_ms, delivery_count, timestamp_ms });
            }
            Change::Done(offset) => self.done(offset),
        }
    }

    fn done(&mut self, offset: Offset) {
        let Some(pending) = self.pending.remove(&offset) else { return };
        if let Some(consumer) = self.consumers.get_mut(&pending.consumer) {
            consumer.pending.remove(&offset);
        }
    }

    /// The records that hold this state.
    pub(super) fn records(&self, key: &StreamGroupKey) -> impl Iterator<Item = StateRecord> {
        let position = Change::Position(self.position);
        let consumers = self.consumers.iter().map(|(name, consumer)| Change::Consumer {
            name: name.clone(),
            seen_ms: consumer.seen_ms,
            active_ms: consumer.active_ms,
        });
        let pending = self.pending.iter().map(|(offset, pending)| Change::Pending {
            id: pending.id(*offset),
            consumer: pending.consumer.clone(),
            delivered_ms: pending.delivered_ms,
            delivery_count: pending.delivery_count,
        });
        [position].into_iter().chain(consumers).chain(pending).map(|change| change.encode(key))
    }

    /// The records that take all of it back; the group's own last, so that a cut leaves a group and no orphans.
    pub(super) fn tombstones(&self, key: &StreamGroupKey) -> Vec<StateRecord> {
        let pending = self.pending.keys().map(|offset| Change::Done(*offset));
        let consumers = self.consumers.keys().map(|name| Change::ConsumerGone(name.clone()));
        pending.chain(consumers).chain([Change::Forget]).map(|change| change.encode(key)).collect()
    }
}
