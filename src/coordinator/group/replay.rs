//! The way back from the log, and the log again from the state.
//!
//! Source: Kafka's GroupMetadataManager.replay and onLoaded, OffsetMetadataManager.replay.

use std::sync::Arc;

use bytes::Bytes;

use crate::model::ProducerId;
use crate::model::group::GroupState;

use super::classic_group::ClassicGroup;
use super::modern::ModernKey;
use super::offsets::OffsetKey;
use super::schema::{self, GroupValue, OffsetValue, SchemaError, StateKey, StateRecord};
use super::turn::{Output, Turn};
use super::{Effects, Group, GroupCoordinator};

/// What a record takes in the log beside its key and value.
const RECORD_OVERHEAD_BYTES: u64 = 10;

impl GroupCoordinator {
    /// Takes in one record of the partition, in the order of the log; `producer_id` if it is part of a transaction
    /// (whose end comes by `end_transaction`). Records of other kinds of groups are passed over.
    ///
    /// # Errors
    /// When the record cannot be read; it has changed nothing then, and replay may go on.
    pub fn replay(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        producer_id: Option<ProducerId>,
        now_ms: i64,
    ) -> Result<(), SchemaError> {
        match StateKey::decode(key)? {
            Some(StateKey::Group { group_id }) => self.replay_group(&group_id, value, now_ms),
            Some(StateKey::Offset { group_id, topic, partition }) => {
                self.replay_offset(&group_id, (topic, partition), value, producer_id, now_ms)
            }
            None => match ModernKey::decode(key)? {
                Some(key) => self.replay_modern(&key, value, now_ms),
                None => Ok(()),
            },
        }
    }

    /// The log has been replayed: members live for one session timeout from now, and requests are served.
    pub fn loaded(&mut self, now_ms: i64) -> Effects {
        self.is_loaded = true;
        let mut output = Output::default();
        let group_ids: Vec<Arc<str>> = self.groups.keys().cloned().collect();
        for group_id in group_ids {
            self.turn(&group_id, &mut output, now_ms, |turn| turn.loaded());
        }
        self.finish(output)
    }

    /// Every record that is needed to have the present state again, for rewriting the state log. Offsets of open
    /// transactions are not among them (`has_open_transactions`), nor is what is still being appended.
    pub fn snapshot(&self) -> impl Iterator<Item = StateRecord> + '_ {
        self.groups.values().flat_map(|group| {
            let key = schema::group_key(&group.id);
            let own = group
                .stored
                .iter()
                .map(move |value| StateRecord { key: key.clone(), value: Some(value.clone()) });
            let modern = group.modern.iter().flat_map(|modern| modern.snapshot(&group.id));
            own.chain(modern).chain(group.offsets.records(&group.id))
        })
    }

    /// Whether offsets of open transactions are held, which only the log has and a snapshot has not.
    pub fn has_open_transactions(&self) -> bool {
        !self.transactions.is_empty()
    }

    /// About how many bytes `snapshot` takes in the log. Walks all offsets.
    pub fn live_bytes(&self) -> u64 {
        self.groups.values().map(Group::live_bytes).sum()
    }

    fn replay_group(&mut self, group_id: &str, value: Option<&[u8]>, now_ms: i64) -> Result<(), SchemaError> {
        let Some(bytes) = value else {
            if let Some(group) = self.groups.get_mut(group_id) {
                group.stored = None;
                group.classic = ClassicGroup::empty(Some(now_ms));
            }
            self.forget_if_unused(group_id);
            return Ok(());
        };
        let classic = ClassicGroup::from_value(GroupValue::decode(bytes)?);
        self.ensure_group(group_id, now_ms);
        if let Some(group) = self.groups.get_mut(group_id) {
            group.classic = classic;
            // The later record says which protocol the group speaks.
            group.modern = None;
            group.stored = Some(Bytes::copy_from_slice(bytes));
        }
        Ok(())
    }

    fn replay_offset(
        &mut self,
        group_id: &str,
        key: OffsetKey,
        value: Option<&[u8]>,
        producer_id: Option<ProducerId>,
        now_ms: i64,
    ) -> Result<(), SchemaError> {
        let Some(bytes) = value else {
            self.forget(group_id, &[key], false);
            self.forget_if_unused(group_id);
            return Ok(());
        };
        let value = OffsetValue::decode(bytes)?;
        let group_id: Arc<str> = group_id.into();
        if let Some(producer_id) = producer_id {
            self.transactions.entry(producer_id).or_default().insert(group_id.clone());
        }
        self.store_offsets(&group_id, producer_id, vec![(key, value)], now_ms);
        Ok(())
    }
}

impl Group {
    fn live_bytes(&self) -> u64 {
        let key_bytes = 4 + self.id.len();
        let own_bytes = self.stored.as_ref().map_or(0, |value| key_bytes + value.len());
        let offset_bytes: usize = self
            .offsets
            .iter()
            .map(|(topic, _, value)| key_bytes + 6 + topic.len() + 24 + value.metadata.len())
            .sum();
        let record_count = self.offsets.iter().count() + usize::from(self.stored.is_some());
        let modern_bytes = self.modern.as_ref().map_or(0, |modern| modern.live_bytes(&self.id));
        (own_bytes + offset_bytes) as u64 + modern_bytes + RECORD_OVERHEAD_BYTES * record_count as u64
    }
}

impl Turn<'_> {
    fn loaded(&mut self) {
        self.modern_loaded();
        let member_ids: Vec<Arc<str>> = self.classic().members().map(|member| member.id.clone()).collect();
        for member_id in &member_ids {
            self.extend_session(member_id);
        }
        self.plan_retention(0);
        if member_ids.len() > self.settings.group_max_size && self.classic().is_in(GroupState::Stable) {
            self.prepare_rebalance("the group has more members than it may have");
        }
    }
}
