//! The bytes that consumers of the classic protocol put into JoinGroup and SyncGroup: subscriptions and assignments.
//!
//! ```text
//! subscription  version i16, topics string[], user data bytes?, (1:) owned {topic string, partitions i32[]}[],
//!               (2:) generation i32, (3:) rack string?
//! assignment    version i16, {topic string, partitions i32[]}[], user data bytes?
//! ```
//! Source: Kafka's ConsumerProtocolSubscription.json and ConsumerProtocolAssignment.json.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::coordinator::group::schema::{STRING_BYTES_MAX, SchemaError};
use crate::coordinator::group::topics::Topics;
use crate::coordinator::reader::Reader;
use crate::model::PartitionIndex;
use crate::model::group::TopicPartitions;

/// What a consumer of the classic protocol reads and has.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    pub(super) topics: BTreeSet<String>,
    pub(super) owned: Vec<(String, Vec<PartitionIndex>)>,
    pub(super) rack_id: Option<String>,
}

/// What a consumer of the classic protocol was given.
#[derive(Debug, Default)]
pub(super) struct GivenAssignment {
    pub(super) partitions: Vec<(String, Vec<PartitionIndex>)>,
    /// Whether an assignor of the clients' own put something beside it.
    pub(super) has_user_data: bool,
}

pub(super) fn read_subscription(bytes: &[u8]) -> Result<Subscription, SchemaError> {
    let mut reader = Reader::new(bytes);
    let version = read_version(&mut reader)?;
    let mut subscription = Subscription::default();
    for _ in 0..reader.array_length()? {
        subscription.topics.insert(reader.string()?);
    }
    skip_user_data(&mut reader)?;
    if version >= 1 {
        subscription.owned = read_partitions(&mut reader)?;
    }
    if version >= 2 {
        reader.i32()?;
    }
    if version >= 3 {
        subscription.rack_id = reader.nullable_string()?;
    }
    Ok(subscription)
}

pub(super) fn read_assignment(bytes: &[u8]) -> Result<GivenAssignment, SchemaError> {
    if bytes.is_empty() {
        return Ok(GivenAssignment::default());
    }
    let mut reader = Reader::new(bytes);
    read_version(&mut reader)?;
    let partitions = read_partitions(&mut reader)?;
    Ok(GivenAssignment { partitions, has_user_data: skip_user_data(&mut reader)? > 0 })
}

/// An assignment in the version of the member's subscription.
pub(super) fn write_assignment(subscription: &[u8], partitions: &TopicPartitions, topics: &Topics) -> Bytes {
    let version = read_version(&mut Reader::new(subscription)).unwrap_or(0);
    let named = partitions.iter().filter_map(|(id, partitions)| Some((topics.by_id(*id)?.0, partitions)));
    let named: Vec<_> = named.filter(|(name, _)| name.as_str().len() <= STRING_BYTES_MAX).collect();
    let mut out = version.to_be_bytes().to_vec();
    put_length(&mut out, named.len());
    for (name, partitions) in named {
        let length = i16::try_from(name.as_str().len()).unwrap_or(i16::MAX);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(name.as_str().as_bytes());
        put_length(&mut out, partitions.len());
        partitions.iter().for_each(|partition| out.extend_from_slice(&partition.to_be_bytes()));
    }
    out.extend_from_slice(&(-1i32).to_be_bytes());
    out.into()
}

/// The partitions by id; of topics that there are.
pub(super) fn by_id(partitions: &[(String, Vec<PartitionIndex>)], topics: &Topics) -> TopicPartitions {
    let mut found = TopicPartitions::new();
    for (name, partitions) in partitions {
        if let Some((id, _)) = topics.by_name(name) {
            found.entry(id).or_default().extend(partitions);
        }
    }
    found
}

fn read_version(reader: &mut Reader<'_>) -> Result<i16, SchemaError> {
    let version = reader.i16()?;
    if version < 0 { Err(SchemaError::ValueVersion(version)) } else { Ok(version) }
}

fn read_partitions(reader: &mut Reader<'_>) -> Result<Vec<(String, Vec<PartitionIndex>)>, SchemaError> {
    let mut topics = Vec::new();
    for _ in 0..reader.array_length()? {
        let name = reader.string()?;
        let mut partitions = Vec::new();
        for _ in 0..reader.array_length()? {
            partitions.push(reader.i32()?);
        }
        topics.push((name, partitions));
    }
    Ok(topics)
}

/// The length of the user data, which is passed over.
fn skip_user_data(reader: &mut Reader<'_>) -> Result<usize, SchemaError> {
    match reader.nullable_array_length()? {
        Some(length) => {
            for _ in 0..length {
                reader.i8()?;
            }
            Ok(length)
        }
        None => Ok(0),
    }
}

/// Far below 2 GiB, as partitions are counted in an i32 and came from frames.
fn put_length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&i32::try_from(length).unwrap_or(i32::MAX).to_be_bytes());
}
