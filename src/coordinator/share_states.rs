//! The share coordinator: what share groups have read of partitions, as `__share_group_state` keeps it (KIP-932).
//!
//! Lives on: the shard that owns the partition of the state topic; one for each. No I/O: a write gives the record that is
//! to be appended, `replay` takes records back in. The state counts at once; whoever wrote it waits for the append.
//!
//! ```text
//! key 0   group string, topic id uuid, partition i32    snapshot: all of it
//! key 1   the same                                      update: what has changed since
//! ```
//! Source: Kafka's share-coordinator/src/main/resources/common/message/Share{Snapshot,Update}{Key,Value}.json.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::group::StateRecord;
use super::group::schema::SchemaError;
use super::group::schema::writer::Writer;
use super::reader::Reader;
use super::share_partition::{DeliveryState, StateBatch, StoredState};
use crate::model::share::ShareKey;
use crate::model::{Offset, Uuid};

const SNAPSHOT_KEY_VERSION: i16 = 0;
const UPDATE_KEY_VERSION: i16 = 1;
/// Updates behind a snapshot before there is another: Kafka's
/// share.coordinator.snapshot.update.records.per.snapshot.
const UPDATES_PER_SNAPSHOT: u32 = 500;

/// The states of one partition of the state topic.
#[derive(Debug, Default)]
pub struct ShareStates {
    /// With the number of updates behind each one's snapshot.
    states: BTreeMap<ShareKey, (StoredState, u32)>,
}

impl ShareStates {
    /// The state, if there is one.
    pub fn get(&self, key: &ShareKey) -> Option<&StoredState> {
        self.states.get(key).map(|(state, _)| state)
    }

    /// All states of a group.
    pub fn of_group<'a>(
        &'a self,
        group_id: &'a str,
    ) -> impl Iterator<Item = (&'a ShareKey, &'a StoredState)> {
        let of_group = self.states.iter().filter(move |(key, _)| key.group_id == group_id);
        of_group.map(|(key, (state, _))| (key, state))
    }

    /// How many states there are.
    pub fn count(&self) -> usize {
        self.states.len()
    }

    /// Makes the state anew, with nothing read behind `start_offset`. The epoch goes up, so that who knew the state
    /// before cannot write it any more.
    pub fn initialize(&mut self, key: &ShareKey, start_offset: Offset, now_ms: i64) -> StateRecord {
        let before = self.states.get(key).map(|(state, _)| (state.state_epoch, state.snapshot_epoch));
        let mut state =
            StoredState::new(before.map_or(0, |(epoch, _)| epoch.saturating_add(1)), start_offset);
        state.snapshot_epoch = before.map_or(0, |(_, epoch)| epoch.saturating_add(1));
        let record = snapshot_record(key, &state, now_ms);
        self.states.insert(key.clone(), (state, 0));
        record
    }

    /// Lays changes over the state; none if there is no such state, or it has been made anew since `state_epoch`.
    pub fn write(
        &mut self,
        key: &ShareKey,
        state_epoch: i32,
        start_offset: Offset,
        batches: &[StateBatch],
        now_ms: i64,
    ) -> Option<StateRecord> {
        let (state, updates) =
            self.states.get_mut(key).filter(|(state, _)| state.state_epoch == state_epoch)?;
        state.apply(start_offset, batches);
        *updates += 1;
        if *updates < UPDATES_PER_SNAPSHOT {
            return Some(update_record(key, state, start_offset, batches));
        }
        *updates = 0;
        state.snapshot_epoch = state.snapshot_epoch.saturating_add(1);
        Some(snapshot_record(key, state, now_ms))
    }

    /// Forgets states; the records say so.
    pub fn forget(&mut self, is_forgotten: impl Fn(&ShareKey) -> bool) -> Vec<StateRecord> {
        let keys: Vec<ShareKey> = self.states.keys().filter(|key| is_forgotten(key)).cloned().collect();
        let mut records = Vec::with_capacity(2 * keys.len());
        for key in keys {
            self.states.remove(&key);
            for version in [SNAPSHOT_KEY_VERSION, UPDATE_KEY_VERSION] {
                records.push(StateRecord { key: encode_key(version, &key), value: None });
            }
        }
        records
    }

    /// Every record that is needed to have the present states again.
    pub fn snapshot(&self, now_ms: i64) -> impl Iterator<Item = StateRecord> + '_ {
        self.states.iter().map(move |(key, (state, _))| snapshot_record(key, state, now_ms))
    }

    /// About how many bytes `snapshot` takes in the log.
    pub fn live_bytes(&self) -> u64 {
        const STATE_BYTES: usize = 100;
        const BATCH_BYTES: usize = 24;
        let bytes = |(key, (state, _)): (&ShareKey, &(StoredState, u32))| {
            STATE_BYTES + key.group_id.len() + BATCH_BYTES * state.batches.len()
        };
        self.states.iter().map(bytes).sum::<usize>() as u64
    }

    /// Takes in one record of the log, in its order. Records of other kinds are passed over.
    ///
    /// # Errors
    /// When the record cannot be read; it has changed nothing then.
    pub fn replay(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), SchemaError> {
        let mut reader = Reader::new(key);
        let version = reader.i16()?;
        if version != SNAPSHOT_KEY_VERSION && version != UPDATE_KEY_VERSION {
            return Ok(());
        }
        let group_id = reader.string()?;
        let topic_id = Uuid::from_bytes(reader.array()?);
        let key = ShareKey { group_id, topic_id, partition: reader.i32()? };
        let Some(value) = value else {
            if version == SNAPSHOT_KEY_VERSION {
                self.states.remove(&key);
            }
            return Ok(());
        };
        let mut reader = Reader::new(value);
        reader.flexible_version(0)?;
        if version == SNAPSHOT_KEY_VERSION {
            let state = read_snapshot(&mut reader)?;
            self.states.insert(key, (state, 0));
            return Ok(());
        }
        let snapshot_epoch = reader.i32()?;
        let leader_epoch = reader.i32()?;
        let start_offset = reader.i64()?;
        let batches = read_batches(&mut reader)?;
        if let Some((state, updates)) = self.states.get_mut(&key)
            && state.snapshot_epoch == snapshot_epoch
        {
            state.leader_epoch = leader_epoch;
            state.apply(start_offset, &batches);
            *updates += 1;
        }
        Ok(())
    }
}

fn encode_key(version: i16, key: &ShareKey) -> Bytes {
    let mut out = Vec::with_capacity(24 + key.group_id.len());
    out.extend_from_slice(&version.to_be_bytes());
    super::group::schema::put_string(&mut out, &key.group_id);
    out.extend_from_slice(key.topic_id.as_bytes());
    out.extend_from_slice(&key.partition.to_be_bytes());
    out.into()
}

fn snapshot_record(key: &ShareKey, state: &StoredState, now_ms: i64) -> StateRecord {
    let mut out = Writer::new();
    out.i32(state.snapshot_epoch);
    out.i32(state.state_epoch);
    out.i32(state.leader_epoch);
    out.i64(state.start_offset);
    out.i64(now_ms);
    out.i64(now_ms);
    put_batches(&mut out, &state.batches);
    put_complete_count(&mut out, state);
    StateRecord { key: encode_key(SNAPSHOT_KEY_VERSION, key), value: Some(out.finish()) }
}

fn update_record(
    key: &ShareKey,
    state: &StoredState,
    start_offset: Offset,
    batches: &[StateBatch],
) -> StateRecord {
    let mut out = Writer::new();
    out.i32(state.snapshot_epoch);
    out.i32(state.leader_epoch);
    out.i64(start_offset);
    put_batches(&mut out, batches);
    put_complete_count(&mut out, state);
    StateRecord { key: encode_key(UPDATE_KEY_VERSION, key), value: Some(out.finish()) }
}

fn put_batches(out: &mut Writer, batches: &[StateBatch]) {
    out.length(batches.len());
    for batch in batches {
        out.i64(batch.first_offset);
        out.i64(batch.last_offset);
        out.i8(batch.state.number());
        out.i16(batch.delivery_count);
        out.no_tags();
    }
}

/// How many records behind the start offset are done (KIP-1226).
fn put_complete_count(out: &mut Writer, state: &StoredState) {
    let count = i32::try_from(state.delivery_complete_count()).unwrap_or(i32::MAX);
    out.only_tag(|field| field.i32(count));
}

fn read_snapshot(reader: &mut Reader<'_>) -> Result<StoredState, SchemaError> {
    let snapshot_epoch = reader.i32()?;
    let state_epoch = reader.i32()?;
    let leader_epoch = reader.i32()?;
    let start_offset = reader.i64()?;
    let _created_ms = reader.i64()?;
    let _written_ms = reader.i64()?;
    let batches = read_batches(reader)?;
    Ok(StoredState { snapshot_epoch, state_epoch, leader_epoch, start_offset, batches })
}

fn read_batches(reader: &mut Reader<'_>) -> Result<Vec<StateBatch>, SchemaError> {
    let mut batches = Vec::new();
    for _ in 0..reader.array_length()? {
        batches.push(StateBatch {
            first_offset: reader.i64()?,
            last_offset: reader.i64()?,
            state: DeliveryState::of(reader.i8()?),
            delivery_count: reader.i16()?,
        });
        reader.tagged_fields()?;
    }
    reader.tagged_fields()?;
    Ok(batches)
}

#[cfg(test)]
mod tests;
