//! The records of the new groups in `__consumer_offsets`, byte for byte Kafka's.
//!
//! ```text
//! key                        consumer  share   value, version 0, flexible
//! group string                   3       11    epoch i32, (share: metadata hash i64) | tag 0: metadata hash i64
//! group string                   4       -     not written since 4.1; passed over
//! group string, member string    5       10    member: (consumer: instance?), rack?, client, host, topics[], ...
//! group string                   6       12    assignment epoch i32 | tag 0: timestamp i64
//! group string, member string    7       13    target: (topic id, partitions[])[]
//! group string, member string    8       14    epoch i32, previous epoch i32, state i8, assigned[], (revoking[])
//! group string, regex string    16       -     topics[], version i64, timestamp i64
//! group string                   -       15    share partitions: initializing[], initialized[], deleting[]
//! ```
//! Source: Kafka's group-coordinator/src/main/resources/common/message/{Consumer,Share}Group*.json.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::coordinator::group::schema::SchemaError;
use crate::coordinator::group::schema::writer::Writer;
use crate::coordinator::reader::Reader;
use crate::model::group::{MemberProtocol, TopicPartitions};
use crate::model::{PartitionIndex, Uuid};

use super::{Assigned, ClassicPart, Current, MemberInfo, MemberState, ResolvedRegex};

const VALUE_VERSION: i16 = 0;

/// The protocol of a new group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Each partition has one reader (KIP-848).
    Consumer,
    /// Readers share partitions (KIP-932).
    Share,
}

/// What of a group a record is about, in the order in which records are written: should the log end between two
/// batches, a group's epoch is ahead of its assignment, and the assignment ahead of the members.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum About {
    /// The group's epoch.
    Epoch,
    /// The topics as versions before 4.1 kept them.
    OldTopics,
    /// What a member says of itself.
    Member(Arc<str>),
    /// The topics of an expression.
    Regex(String),
    /// What a member shall have.
    Target(Arc<str>),
    /// The epoch of the assignment.
    TargetEpoch,
    /// What a member has.
    Current(Arc<str>),
    /// Which share partitions have state.
    SharePartitions,
}

/// What a record of a new group is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModernKey {
    /// The group's protocol.
    pub kind: Kind,
    /// The group.
    pub group_id: String,
    /// What of it.
    pub about: About,
}

impl ModernKey {
    /// Reads a record's key; none for keys of other kinds.
    ///
    /// # Errors
    /// When the bytes are not such a key.
    pub fn decode(bytes: &[u8]) -> Result<Option<ModernKey>, SchemaError> {
        let mut reader = Reader::new(bytes);
        let version = reader.i16()?;
        let kind = match version {
            3..=8 | 16 => Kind::Consumer,
            10..=15 => Kind::Share,
            _ => return Ok(None),
        };
        let group_id = reader.string()?;
        let about = match version {
            3 | 11 => About::Epoch,
            4 => About::OldTopics,
            5 | 10 => About::Member(reader.string()?.into()),
            6 | 12 => About::TargetEpoch,
            7 | 13 => About::Target(reader.string()?.into()),
            8 | 14 => About::Current(reader.string()?.into()),
            16 => About::Regex(reader.string()?),
            _ => About::SharePartitions,
        };
        Ok(Some(ModernKey { kind, group_id, about }))
    }
}

/// The key of a record; `about` must be something that groups of this kind have.
pub(super) fn key(kind: Kind, group_id: &str, about: &About) -> Bytes {
    let (version, suffix): (i16, &str) = match (kind, about) {
        (Kind::Consumer, About::Epoch) => (3, ""),
        (_, About::OldTopics) => (4, ""),
        (Kind::Consumer, About::Member(member_id)) => (5, member_id),
        (Kind::Consumer, About::TargetEpoch) => (6, ""),
        (Kind::Consumer, About::Target(member_id)) => (7, member_id),
        (Kind::Consumer, About::Current(member_id)) => (8, member_id),
        (Kind::Share, About::Member(member_id)) => (10, member_id),
        (Kind::Share, About::Epoch) => (11, ""),
        (Kind::Share, About::TargetEpoch) => (12, ""),
        (Kind::Share, About::Target(member_id)) => (13, member_id),
        (Kind::Share, About::Current(member_id)) => (14, member_id),
        (_, About::SharePartitions) => (15, ""),
        (_, About::Regex(regex)) => (16, regex),
    };
    let mut out = Vec::with_capacity(6 + group_id.len() + suffix.len());
    out.extend_from_slice(&version.to_be_bytes());
    put_key_string(&mut out, group_id);
    if matches!(about, About::Member(_) | About::Target(_) | About::Current(_) | About::Regex(_)) {
        put_key_string(&mut out, suffix);
    }
    out.into()
}

/// Verbs refuse longer strings and `Reader` does not read any, so the cut is never made.
fn put_key_string(out: &mut Vec<u8>, text: &str) {
    debug_assert!(text.len() <= super::super::schema::STRING_BYTES_MAX);
    let length = i16::try_from(text.len()).unwrap_or(i16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&text.as_bytes()[..usize::from(length.unsigned_abs())]);
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModernValue {
    /// The group's epoch and what it knows of its topics.
    Epoch(i32, i64),
    /// What a member says of itself.
    Member(Box<MemberRecord>),
    /// The topics of an expression.
    Regex(RegexRecord),
    /// What a member shall have.
    Target(TopicPartitions),
    /// The epoch of the assignment and when it was made.
    TargetEpoch(i32, i64),
    /// What a member has.
    Current(CurrentRecord),
    /// Something that is not kept.
    Other,
}

/// What a member says of itself, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberRecord(pub(super) MemberInfo);

/// What a member has, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurrentRecord(pub(super) Current);

/// The topics of an expression, as they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegexRecord(pub(super) ResolvedRegex);

impl CurrentRecord {
    /// The member's epoch.
    pub fn epoch(&self) -> i32 {
        self.0.epoch
    }

    /// Every partition that nobody else may have.
    pub fn held(&self) -> Vec<(Uuid, PartitionIndex)> {
        self.0.held().collect()
    }
}

impl ModernValue {
    /// Reads the value of the record with this key.
    ///
    /// # Errors
    /// When the bytes are not such a value.
    pub fn decode(key: &ModernKey, bytes: &[u8]) -> Result<ModernValue, SchemaError> {
        let mut reader = Reader::new(bytes);
        reader.flexible_version(VALUE_VERSION)?;
        Ok(match &key.about {
            About::Epoch => {
                let epoch = reader.i32()?;
                let mut hash = if key.kind == Kind::Share { reader.i64()? } else { 0 };
                reader.read_tagged_fields(|tag, field| {
                    if tag == 0 && key.kind == Kind::Consumer {
                        hash = field.i64()?;
                    }
                    Ok(())
                })?;
                ModernValue::Epoch(epoch, hash)
            }
            About::Member(_) => {
                ModernValue::Member(Box::new(MemberRecord(read_member(key.kind, &mut reader)?)))
            }
            About::Regex(_) => {
                let topics = read_strings(&mut reader)?;
                let version = reader.i64()?.cast_unsigned();
                ModernValue::Regex(RegexRecord(ResolvedRegex { topics, version, resolved_ms: reader.i64()? }))
            }
            About::Target(_) => ModernValue::Target(super::without_epochs(&read_partitions(&mut reader, 0)?)),
            About::TargetEpoch => {
                let (epoch, mut made_ms) = (reader.i32()?, 0);
                reader.read_tagged_fields(|tag, field| {
                    if tag == 0 {
                        made_ms = field.i64()?;
                    }
                    Ok(())
                })?;
                ModernValue::TargetEpoch(epoch, made_ms)
            }
            About::Current(_) => {
                let (epoch, previous_epoch) = (reader.i32()?, reader.i32()?);
                let state = match reader.i8()? {
                    1 => MemberState::Unrevoked,
                    2 => MemberState::Unreleased,
                    _ => MemberState::Stable,
                };
                let assigned = read_partitions(&mut reader, epoch)?;
                let revoking = match key.kind {
                    Kind::Consumer => read_partitions(&mut reader, epoch)?,
                    Kind::Share => Assigned::new(),
                };
                ModernValue::Current(CurrentRecord(Current {
                    epoch,
                    previous_epoch,
                    state,
                    assigned,
                    revoking,
                }))
            }
            About::OldTopics | About::SharePartitions => ModernValue::Other,
        })
    }
}

fn read_member(kind: Kind, reader: &mut Reader<'_>) -> Result<MemberInfo, SchemaError> {
    let mut info = MemberInfo::default();
    if kind == Kind::Consumer {
        info.instance_id = reader.nullable_string()?;
    }
    info.rack_id = reader.nullable_string()?;
    info.client_id = reader.string()?;
    info.client_host = reader.string()?;
    info.topics = read_strings(reader)?;
    if kind == Kind::Share {
        return Ok(info);
    }
    info.topic_regex = reader.nullable_string()?.filter(|regex| !regex.is_empty());
    info.rebalance_timeout_ms = reader.i32()?;
    info.assignor = reader.nullable_string()?;
    let mut classic = None;
    reader.read_tagged_fields(|tag, field| {
        if tag == 0 {
            classic = read_classic_part(field)?;
        }
        Ok(())
    })?;
    info.classic = classic;
    Ok(info)
}

/// A nullable struct: a byte that is negative for null, then its fields.
fn read_classic_part(reader: &mut Reader<'_>) -> Result<Option<ClassicPart>, SchemaError> {
    if reader.i8()? < 0 {
        return Ok(None);
    }
    let session_timeout_ms = reader.i32()?;
    let mut protocols = Vec::new();
    for _ in 0..reader.array_length()? {
        protocols.push(MemberProtocol { name: reader.string()?, metadata: reader.bytes()? });
        reader.tagged_fields()?;
    }
    reader.tagged_fields()?;
    Ok(Some(ClassicPart { session_timeout_ms, protocols }))
}

fn read_strings(reader: &mut Reader<'_>) -> Result<BTreeSet<String>, SchemaError> {
    let mut strings = BTreeSet::new();
    for _ in 0..reader.array_length()? {
        strings.insert(reader.string()?);
    }
    Ok(strings)
}

fn read_partitions(reader: &mut Reader<'_>, default_epoch: i32) -> Result<Assigned, SchemaError> {
    let mut assigned = Assigned::new();
    for _ in 0..reader.array_length()? {
        let topic = Uuid::from_bytes(reader.array()?);
        let mut partitions = Vec::new();
        for _ in 0..reader.array_length()? {
            partitions.push(reader.i32()?);
        }
        let mut epochs = Vec::new();
        reader.read_tagged_fields(|tag, field| {
            if tag == 0 {
                for _ in 0..field.nullable_array_length()?.unwrap_or(0) {
                    epochs.push(field.i32()?);
                }
            }
            Ok(())
        })?;
        let epochs = epochs.into_iter().chain(std::iter::repeat(default_epoch));
        assigned.entry(topic).or_default().extend(partitions.into_iter().zip(epochs));
    }
    Ok(assigned)
}

fn put_targets(out: &mut Writer, targets: &TopicPartitions) {
    out.length(targets.len());
    for (topic, partitions) in targets {
        out.uuid(*topic);
        out.length(partitions.len());
        partitions.iter().for_each(|partition| out.i32(*partition));
        out.no_tags();
    }
}

fn put_assigned(out: &mut Writer, assigned: &Assigned) {
    out.length(assigned.len());
    for (topic, partitions) in assigned {
        out.uuid(*topic);
        out.length(partitions.len());
        partitions.keys().for_each(|partition| out.i32(*partition));
        out.only_tag(|field| {
            field.length(partitions.len());
            partitions.values().for_each(|epoch| field.i32(*epoch));
        });
    }
}

pub(super) fn epoch_value(kind: Kind, epoch: i32, metadata_hash: i64) -> Bytes {
    let mut out = Writer::new();
    out.i32(epoch);
    match kind {
        Kind::Consumer => out.only_tag(|field| field.i64(metadata_hash)),
        Kind::Share => {
            out.i64(metadata_hash);
            out.no_tags();
        }
    }
    out.finish()
}

pub(super) fn member_value(kind: Kind, info: &MemberInfo) -> Bytes {
    let mut out = Writer::new();
    if kind == Kind::Consumer {
        out.nullable_string(info.instance_id.as_deref());
    }
    out.nullable_string(info.rack_id.as_deref());
    out.string(&info.client_id);
    out.string(&info.client_host);
    out.strings(&info.topics);
    if kind == Kind::Consumer {
        out.nullable_string(info.topic_regex.as_deref());
        out.i32(info.rebalance_timeout_ms);
        out.nullable_string(info.assignor.as_deref());
        if let Some(classic) = &info.classic {
            out.only_tag(|field| put_classic_part(field, classic));
            return out.finish();
        }
    }
    out.no_tags();
    out.finish()
}

fn put_classic_part(out: &mut Writer, classic: &ClassicPart) {
    out.i8(1);
    out.i32(classic.session_timeout_ms);
    out.length(classic.protocols.len());
    for protocol in &classic.protocols {
        out.string(&protocol.name);
        out.bytes(&protocol.metadata);
        out.no_tags();
    }
    out.no_tags();
}

pub(super) fn regex_value(resolved: &ResolvedRegex) -> Bytes {
    let mut out = Writer::new();
    out.strings(&resolved.topics);
    out.i64(resolved.version.cast_signed());
    out.i64(resolved.resolved_ms);
    out.no_tags();
    out.finish()
}

pub(super) fn target_value(target: &TopicPartitions) -> Bytes {
    let mut out = Writer::new();
    put_targets(&mut out, target);
    out.no_tags();
    out.finish()
}

pub(super) fn target_epoch_value(epoch: i32, made_ms: i64) -> Bytes {
    let mut out = Writer::new();
    out.i32(epoch);
    out.only_tag(|field| field.i64(made_ms));
    out.finish()
}

pub(super) fn current_value(kind: Kind, current: &Current) -> Bytes {
    let mut out = Writer::new();
    out.i32(current.epoch);
    out.i32(current.previous_epoch);
    out.i8(match current.state {
        MemberState::Stable => 0,
        MemberState::Unrevoked => 1,
        MemberState::Unreleased => 2,
    });
    match kind {
        Kind::Consumer => {
            put_assigned(&mut out, &current.assigned);
            put_assigned(&mut out, &current.revoking);
        }
        Kind::Share => put_targets(&mut out, &current.partitions()),
    }
    out.no_tags();
    out.finish()
}
