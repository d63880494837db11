//! The records of `__consumer_offsets`, byte for byte Kafka's, so that Kafka's tools read our state log and we theirs.
//!
//! Key and value begin with a version (i16, all numbers big endian); the key's version says what the record is.
//!
//! ```text
//! key 0, 1  offset       group string, topic string, partition i32
//! key 2     group        group string
//! key 3 ..  consumer, share and streams groups: not ours, skipped
//!
//! offset value   0: offset i64, metadata string, commit timestamp i64
//!                1: ... + expire timestamp i64 (written when the client asked for its own retention)
//!                2: as 0
//!                3: offset i64, leader epoch i32, metadata string, commit timestamp i64   (what we write)
//!                4: as 3, flexible; tag 0 topic id
//! group value    0: protocol type, generation i32, protocol?, leader?, members[]
//!                   member: id, client id, client host, session timeout i32, subscription bytes, assignment bytes
//!                1: member: + rebalance timeout i32 before the session timeout
//!                2: + current state timestamp i64 before the members
//!                3: member: + group instance id? after the id                             (what we write)
//!                4: as 3, flexible
//! ```
//! A string is i16 length and bytes, -1 for null ("?"); bytes and arrays have an i32 length. In flexible versions every
//! length is an unsigned varint of length + 1, and tagged fields end each struct.
//!
//! A value of `None` is a tombstone. The tests hold bytes that Kafka 4.3.1's own classes wrote.
//! Source: Kafka's group-coordinator/src/main/resources/common/message/{OffsetCommit,GroupMetadata}{Key,Value}.json.

pub(in crate::coordinator) mod writer;

use bytes::Bytes;

use crate::model::group::MemberProtocol;
use crate::model::{LeaderEpoch, NO_LEADER_EPOCH, Offset, PartitionIndex, TopicName};

use super::super::reader::Reader;

/// Longest string that a record holds.
pub const STRING_BYTES_MAX: usize = i16::MAX as usize;

const OFFSET_KEY_VERSION: i16 = 1;
const GROUP_KEY_VERSION: i16 = 2;
const OFFSET_VALUE_VERSION: i16 = 3;
/// The only version with an expiry of its own.
const OFFSET_VALUE_VERSION_EXPIRING: i16 = 1;
const GROUP_VALUE_VERSION: i16 = 3;
const VALUE_VERSION_MAX: i16 = 4;
/// The first flexible version of both values.
const FLEXIBLE_FROM: i16 = 4;
/// "Not set" in the timestamps and timeouts of a record.
const NOT_SET: i32 = -1;

/// One record for the state log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateRecord {
    /// What the record is about.
    pub key: Bytes,
    /// What is so from now on; none if it is no more.
    pub value: Option<Bytes>,
}

/// Why the bytes of a record could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// The bytes end inside a field.
    #[error("the record is cut short")]
    CutShort,
    /// A length is negative, or too large to be written again.
    #[error("a length in the record is out of range")]
    Length,
    /// A string is not UTF-8.
    #[error("a string in the record is not UTF-8")]
    NotUtf8,
    /// A value version that this server does not know.
    #[error("the record has the unknown value version {0}")]
    ValueVersion(i16),
    /// A topic that cannot exist.
    #[error("the record names an illegal topic")]
    TopicName,
    /// A transaction's status that this server does not know.
    #[error("the record has the unknown transaction status {0}")]
    Status(i8),
}

/// What a record is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateKey {
    /// A committed offset.
    Offset {
        /// The group.
        group_id: String,
        /// The topic.
        topic: TopicName,
        /// The partition.
        partition: PartitionIndex,
    },
    /// A group's generation and members.
    Group {
        /// The group.
        group_id: String,
    },
}

impl StateKey {
    /// Reads a record's key; none for keys of a kind that this coordinator does not keep.
    pub fn decode(bytes: &[u8]) -> Result<Option<StateKey>, SchemaError> {
        let mut reader = Reader::new(bytes);
        let version = reader.i16()?;
        match version {
            0 | OFFSET_KEY_VERSION => {
                let group_id = reader.string()?;
                let topic = TopicName::new(&reader.string()?).map_err(|_| SchemaError::TopicName)?;
                Ok(Some(StateKey::Offset { group_id, topic, partition: reader.i32()? }))
            }
            GROUP_KEY_VERSION => Ok(Some(StateKey::Group { group_id: reader.string()? })),
            _ => Ok(None),
        }
    }
}

/// The key of a committed offset.
pub fn offset_key(group_id: &str, topic: &str, partition: PartitionIndex) -> Bytes {
    let mut out = Vec::with_capacity(2 + 2 + group_id.len() + 2 + topic.len() + 4);
    put_i16(&mut out, OFFSET_KEY_VERSION);
    put_string(&mut out, group_id);
    put_string(&mut out, topic);
    put_i32(&mut out, partition);
    out.into()
}

/// The key of a group's metadata.
pub fn group_key(group_id: &str) -> Bytes {
    let mut out = Vec::with_capacity(2 + 2 + group_id.len());
    put_i16(&mut out, GROUP_KEY_VERSION);
    put_string(&mut out, group_id);
    out.into()
}

/// A committed offset as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetValue {
    /// The next offset to read.
    pub offset: Offset,
    /// The epoch of the last record read, or -1.
    pub leader_epoch: LeaderEpoch,
    /// The client's note.
    pub metadata: String,
    /// When it was committed.
    pub commit_timestamp_ms: i64,
    /// When it expires, if the client said so itself.
    pub expire_timestamp_ms: Option<i64>,
}

impl OffsetValue {
    /// The record's value.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(2 + 8 + 4 + 2 + self.metadata.len() + 8 + 8);
        let version = match self.expire_timestamp_ms {
            Some(_) => OFFSET_VALUE_VERSION_EXPIRING,
            None => OFFSET_VALUE_VERSION,
        };
        put_i16(&mut out, version);
        put_i64(&mut out, self.offset);
        if version == OFFSET_VALUE_VERSION {
            put_i32(&mut out, self.leader_epoch);
        }
        put_string(&mut out, &self.metadata);
        put_i64(&mut out, self.commit_timestamp_ms);
        if let Some(expire_timestamp_ms) = self.expire_timestamp_ms {
            put_i64(&mut out, expire_timestamp_ms);
        }
        out.into()
    }

    /// Reads a record's value, versions 0 to 4.
    pub fn decode(bytes: &[u8]) -> Result<OffsetValue, SchemaError> {
        let mut reader = Reader::new(bytes);
        let version = reader.value_version(VALUE_VERSION_MAX, FLEXIBLE_FROM)?;
        let offset = reader.i64()?;
        let leader_epoch = if version >= 3 { reader.i32()? } else { NO_LEADER_EPOCH };
        let metadata = reader.string()?;
        let commit_timestamp_ms = reader.i64()?;
        let expire_timestamp_ms = if version == OFFSET_VALUE_VERSION_EXPIRING { reader.i64()? } else { -1 };
        Ok(OffsetValue {
            offset,
            leader_epoch,
            metadata,
            commit_timestamp_ms,
            expire_timestamp_ms: set_i64(expire_timestamp_ms),
        })
    }
}

/// A group's generation as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupValue {
    /// The family of protocols; empty for a group that only commits.
    pub protocol_type: String,
    /// The generation.
    pub generation_id: i32,
    /// The protocol chosen.
    pub protocol_name: Option<String>,
    /// The member that assigned.
    pub leader: Option<String>,
    /// Since when the group is in its state.
    pub state_timestamp_ms: Option<i64>,
    /// The members with their assignments.
    pub members: Vec<MemberValue>,
}

/// A member as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberValue {
    /// The member.
    pub member_id: String,
    /// Its static name.
    pub group_instance_id: Option<String>,
    /// The client id it joined with.
    pub client_id: String,
    /// The address it joined from.
    pub client_host: String,
    /// How long it may take to rejoin.
    pub rebalance_timeout_ms: i32,
    /// Silence after which it is removed.
    pub session_timeout_ms: i32,
    /// Its metadata for the chosen protocol.
    pub subscription: Bytes,
    /// What the leader gave it.
    pub assignment: Bytes,
}

impl GroupValue {
    /// The record's value.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        put_i16(&mut out, GROUP_VALUE_VERSION);
        put_string(&mut out, &self.protocol_type);
        put_i32(&mut out, self.generation_id);
        put_nullable_string(&mut out, self.protocol_name.as_deref());
        put_nullable_string(&mut out, self.leader.as_deref());
        put_i64(&mut out, self.state_timestamp_ms.unwrap_or(i64::from(NOT_SET)));
        put_length(&mut out, self.members.len());
        for member in &self.members {
            member.encode(&mut out);
        }
        out.into()
    }

    /// Reads a record's value, versions 0 to 4.
    pub fn decode(bytes: &[u8]) -> Result<GroupValue, SchemaError> {
        let mut reader = Reader::new(bytes);
        let version = reader.value_version(VALUE_VERSION_MAX, FLEXIBLE_FROM)?;
        let protocol_type = reader.string()?;
        let generation_id = reader.i32()?;
        let protocol_name = reader.nullable_string()?;
        let leader = reader.nullable_string()?;
        let state_timestamp_ms = if version >= 2 { reader.i64()? } else { i64::from(NOT_SET) };
        let count = reader.array_length()?;
        // The count is not trusted with memory: every member takes bytes, and those run out first.
        let mut members = Vec::new();
        for _ in 0..count {
            members.push(MemberValue::decode(&mut reader, version)?);
        }
        Ok(GroupValue {
            protocol_type,
            generation_id,
            protocol_name,
            leader,
            state_timestamp_ms: set_i64(state_timestamp_ms),
            members,
        })
    }
}

impl MemberValue {
    fn encode(&self, out: &mut Vec<u8>) {
        put_string(out, &self.member_id);
        put_nullable_string(out, self.group_instance_id.as_deref());
        put_string(out, &self.client_id);
        put_string(out, &self.client_host);
        put_i32(out, self.rebalance_timeout_ms);
        put_i32(out, self.session_timeout_ms);
        put_bytes(out, &self.subscription);
        put_bytes(out, &self.assignment);
    }

    fn decode(reader: &mut Reader<'_>, version: i16) -> Result<MemberValue, SchemaError> {
        let member_id = reader.string()?;
        let group_instance_id = if version >= 3 { reader.nullable_string()? } else { None };
        let client_id = reader.string()?;
        let client_host = reader.string()?;
        let rebalance_timeout_ms = if version >= 1 { reader.i32()? } else { NOT_SET };
        let session_timeout_ms = reader.i32()?;
        let subscription = reader.bytes()?;
        let assignment = reader.bytes()?;
        reader.tagged_fields()?;
        Ok(MemberValue {
            member_id,
            group_instance_id,
            client_id,
            client_host,
            // Before version 1 a rebalance waited for as long as a session.
            rebalance_timeout_ms: match rebalance_timeout_ms {
                NOT_SET => session_timeout_ms,
                set => set,
            },
            session_timeout_ms,
            subscription,
            assignment,
        })
    }

    /// What a reloaded member is known to be able to do: only the protocol that was chosen is stored.
    pub fn protocols(&self, protocol_name: Option<&str>) -> Vec<MemberProtocol> {
        let name = protocol_name.unwrap_or_default().to_owned();
        vec![MemberProtocol { name, metadata: self.subscription.clone() }]
    }
}

/// The topics that a consumer's subscription names, or none if `metadata` is not a subscription.
///
/// Reads what all versions of Kafka's ConsumerProtocolSubscription begin with: version i16, topics as an array of
/// strings.
pub fn subscribed_topics(metadata: &[u8]) -> Option<Vec<String>> {
    let mut reader = Reader::new(metadata);
    let version = reader.i16().ok()?;
    if version < 0 {
        return None;
    }
    let count = reader.array_length().ok()?;
    let mut topics = Vec::new();
    for _ in 0..count {
        topics.push(reader.string().ok()?);
    }
    Some(topics)
}

fn set_i64(value: i64) -> Option<i64> {
    (value != i64::from(NOT_SET)).then_some(value)
}

fn put_i16(out: &mut Vec<u8>, value: i16) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_i32(out: &mut Vec<u8>, value: i32) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_i64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Verbs refuse longer strings and `Reader` does not read any, so the assertion is about our own code.
pub(in crate::coordinator) fn put_string(out: &mut Vec<u8>, value: &str) {
    let length = i16::try_from(value.len()).ok();
    assert!(length.is_some(), "a string of {} bytes came past the checks of the verbs", value.len());
    put_i16(out, length.unwrap_or(i16::MAX));
    out.extend_from_slice(value.as_bytes());
}

fn put_nullable_string(out: &mut Vec<u8>, value: Option<&str>) {
    match value {
        Some(value) => put_string(out, value),
        None => put_i16(out, -1),
    }
}

/// Members and their bytes come in frames far below 2 GiB.
fn put_length(out: &mut Vec<u8>, length: usize) {
    let checked = i32::try_from(length).ok();
    assert!(checked.is_some(), "{length} items are more than a frame can have brought");
    put_i32(out, checked.unwrap_or(i32::MAX));
}

fn put_bytes(out: &mut Vec<u8>, value: &[u8]) {
    put_length(out, value.len());
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests;
