//! The records of `__cluster_metadata`, in the schema of Kafka's KRaft log.
//!
//! Kafka's tools can decode our log (`kafka-dump-log --cluster-metadata-decoder`) and we read the topics, configs and
//! producer-id blocks out of a directory that Kafka wrote. Kinds that mean nothing on one node (registrations, fences,
//! features, ...) are skipped when read and never written.
//! Source: KIP-631 and the definitions of TopicRecord, PartitionRecord, ConfigRecord, RemoveTopicRecord and
//! ProducerIdsRecord. A value is: frame version (1), kind, kind's version (all unsigned varints), then the fields in
//! flexible form.

use crate::base::varint::{read_u32, write_u32};
use crate::model::{LeaderEpoch, PartitionIndex, ProducerId, Uuid};

const FRAME_VERSION: u32 = 1;
const KIND_TOPIC: u32 = 2;
const KIND_PARTITION: u32 = 3;
const KIND_CONFIG: u32 = 4;
const KIND_REMOVE_TOPIC: u32 = 9;
const KIND_PRODUCER_IDS: u32 = 15;

/// ConfigRecord's number for a topic.
const RESOURCE_TOPIC: i8 = 2;
/// ConfigRecord's number for a broker.
const RESOURCE_BROKER: i8 = 4;
/// ConfigRecord's number for a group.
const RESOURCE_GROUP: i8 = 32;

/// Whose config a record sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigOwner {
    /// The topic of that name.
    Topic(String),
    /// The broker with that id, or every broker when empty.
    Broker(String),
    /// The group of that name.
    Group(String),
}

/// One change of what every shard knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetadataRecord {
    /// A topic exists.
    Topic {
        /// Its name.
        name: String,
        /// Its id.
        id: Uuid,
    },
    /// A topic has a partition.
    Partition {
        /// The topic's id.
        topic_id: Uuid,
        /// The partition's index.
        partition: PartitionIndex,
        /// The node that leads it; the only replica here.
        leader: i32,
        /// The epoch of its leader.
        leader_epoch: LeaderEpoch,
    },
    /// A config is set, or back to its default when the value is `None`.
    Config {
        /// Whose.
        owner: ConfigOwner,
        /// The key.
        name: String,
        /// The value.
        value: Option<String>,
    },
    /// A topic is gone, with its partitions and configs.
    RemoveTopic {
        /// Its id.
        id: Uuid,
    },
    /// Producer ids below this one have been given out.
    ProducerIds {
        /// The first id of the next block.
        next_producer_id: ProducerId,
    },
}

/// A record of a kind that we know, whose bytes do not fit it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a metadata record of kind {kind} version {version} cannot be read")]
pub struct MalformedRecord {
    kind: u32,
    version: u32,
}

impl MetadataRecord {
    /// The record's value, as it stands in the log (the key is null).
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        let mut head = |kind| {
            write_u32(&mut out, FRAME_VERSION);
            write_u32(&mut out, kind);
            write_u32(&mut out, 0); // the kind's version
        };
        match self {
            MetadataRecord::Topic { name, id } => {
                head(KIND_TOPIC);
                put_string(&mut out, Some(name));
                out.extend_from_slice(id.as_bytes());
            }
            MetadataRecord::Partition { topic_id, partition, leader, leader_epoch } => {
                head(KIND_PARTITION);
                out.extend_from_slice(&partition.to_be_bytes());
                out.extend_from_slice(topic_id.as_bytes());
                put_int_array(&mut out, &[*leader]); // replicas
                put_int_array(&mut out, &[*leader]); // in-sync replicas
                put_int_array(&mut out, &[]); // replicas being removed
                put_int_array(&mut out, &[]); // replicas being added
                out.extend_from_slice(&leader.to_be_bytes());
                out.extend_from_slice(&leader_epoch.to_be_bytes());
                out.extend_from_slice(&0i32.to_be_bytes()); // partition epoch
            }
            MetadataRecord::Config { owner, name, value } => {
                head(KIND_CONFIG);
                let (kind, resource) = match owner {
                    ConfigOwner::Topic(topic) => (RESOURCE_TOPIC, topic),
                    ConfigOwner::Broker(broker) => (RESOURCE_BROKER, broker),
                    ConfigOwner::Group(group) => (RESOURCE_GROUP, group),
                };
                out.extend_from_slice(&kind.to_be_bytes());
                put_string(&mut out, Some(resource));
                put_string(&mut out, Some(name));
                put_string(&mut out, value.as_deref());
            }
            MetadataRecord::RemoveTopic { id } => {
                head(KIND_REMOVE_TOPIC);
                out.extend_from_slice(id.as_bytes());
            }
            MetadataRecord::ProducerIds { next_producer_id } => {
                head(KIND_PRODUCER_IDS);
                out.extend_from_slice(&0i32.to_be_bytes()); // broker id
                out.extend_from_slice(&0i64.to_be_bytes()); // broker epoch
                out.extend_from_slice(&next_producer_id.to_be_bytes());
            }
        }
        write_u32(&mut out, 0); // no tagged fields
        out
    }

    /// Reads a record's value; `None` for kinds that mean nothing here.
    ///
    /// # Errors
    /// When a kind that we know cannot be read.
    pub fn decode(mut value: &[u8]) -> Result<Option<Self>, MalformedRecord> {
        let bytes = &mut value;
        let head = (read_u32(bytes), read_u32(bytes), read_u32(bytes));
        let (Some(FRAME_VERSION), Some(kind), Some(version)) = head else {
            return Err(MalformedRecord { kind: head.1.unwrap_or(0), version: head.2.unwrap_or(0) });
        };
        let record = match kind {
            KIND_TOPIC => decode_topic(bytes),
            KIND_PARTITION => decode_partition(bytes),
            KIND_CONFIG => match decode_config(bytes) {
                Some(Some(record)) => Some(record),
                Some(None) => return Ok(None), // of a client, a group, ...
                None => None,
            },
            KIND_REMOVE_TOPIC => take_uuid(bytes).map(|id| MetadataRecord::RemoveTopic { id }),
            KIND_PRODUCER_IDS => decode_producer_ids(bytes),
            _ => return Ok(None),
        };
        record.map(Some).ok_or(MalformedRecord { kind, version })
    }
}

fn decode_topic(bytes: &mut &[u8]) -> Option<MetadataRecord> {
    Some(MetadataRecord::Topic { name: take_string(bytes)??, id: take_uuid(bytes)? })
}

fn decode_partition(bytes: &mut &[u8]) -> Option<MetadataRecord> {
    let partition = take_i32(bytes)?;
    let topic_id = take_uuid(bytes)?;
    for _ in 0..4 {
        skip_int_array(bytes)?; // replicas, in-sync, being removed, being added
    }
    let leader = take_i32(bytes)?;
    let leader_epoch = take_i32(bytes)?;
    take_i32(bytes)?; // partition epoch
    Some(MetadataRecord::Partition { topic_id, partition, leader, leader_epoch })
}

fn decode_config(bytes: &mut &[u8]) -> Option<Option<MetadataRecord>> {
    let kind = take_i8(bytes)?;
    let resource = take_string(bytes)??;
    let name = take_string(bytes)??;
    let value = take_string(bytes)?;
    let owner = match kind {
        RESOURCE_TOPIC => ConfigOwner::Topic(resource),
        RESOURCE_BROKER => ConfigOwner::Broker(resource),
        RESOURCE_GROUP => ConfigOwner::Group(resource),
        _ => return Some(None),
    };
    Some(Some(MetadataRecord::Config { owner, name, value }))
}

fn decode_producer_ids(bytes: &mut &[u8]) -> Option<MetadataRecord> {
    take(bytes, 4 + 8)?; // broker id and epoch
    Some(MetadataRecord::ProducerIds { next_producer_id: take_i64(bytes)? })
}

fn put_string(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => {
            write_u32(out, u32::try_from(text.len() + 1).unwrap_or(u32::MAX));
            out.extend_from_slice(text.as_bytes());
        }
        None => write_u32(out, 0),
    }
}

fn put_int_array(out: &mut Vec<u8>, numbers: &[i32]) {
    write_u32(out, u32::try_from(numbers.len() + 1).unwrap_or(u32::MAX));
    for number in numbers {
        out.extend_from_slice(&number.to_be_bytes());
    }
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn take_i8(bytes: &mut &[u8]) -> Option<i8> {
    Some(i8::from_be_bytes(take(bytes, 1)?.try_into().ok()?))
}

fn take_i32(bytes: &mut &[u8]) -> Option<i32> {
    Some(i32::from_be_bytes(take(bytes, 4)?.try_into().ok()?))
}

fn take_i64(bytes: &mut &[u8]) -> Option<i64> {
    Some(i64::from_be_bytes(take(bytes, 8)?.try_into().ok()?))
}

fn take_uuid(bytes: &mut &[u8]) -> Option<Uuid> {
    Uuid::from_slice(take(bytes, 16)?).ok()
}

/// A compact nullable string; the inner `None` is null.
#[allow(clippy::option_option)] // malformed and null are two different things
fn take_string(bytes: &mut &[u8]) -> Option<Option<String>> {
    match read_u32(bytes)? {
        0 => Some(None),
        length => {
            let text = take(bytes, length as usize - 1)?;
            Some(Some(std::str::from_utf8(text).ok()?.to_owned()))
        }
    }
}

fn skip_int_array(bytes: &mut &[u8]) -> Option<()> {
    let count = read_u32(bytes)?.saturating_sub(1) as usize;
    take(bytes, count.checked_mul(4)?).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_is_read_back_as_it_was_written() {
        let id = Uuid::from_u128(7);
        for record in [
            MetadataRecord::Topic { name: "orders".to_owned(), id },
            MetadataRecord::Partition { topic_id: id, partition: 3, leader: 1, leader_epoch: 5 },
            MetadataRecord::Config {
                owner: ConfigOwner::Topic("orders".to_owned()),
                name: "retention.ms".to_owned(),
                value: Some("1000".to_owned()),
            },
            MetadataRecord::Config {
                owner: ConfigOwner::Broker(String::new()),
                name: "log.retention.ms".to_owned(),
                value: None,
            },
            MetadataRecord::RemoveTopic { id },
            MetadataRecord::ProducerIds { next_producer_id: 4000 },
        ] {
            let encoded = record.encode();
            assert_eq!(MetadataRecord::decode(&encoded), Ok(Some(record.clone())));
            for cut in 3..encoded.len() - 1 {
                assert!(MetadataRecord::decode(&encoded[..cut]).is_err(), "{record:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn kinds_that_mean_nothing_on_one_node_are_skipped() {
        assert_eq!(MetadataRecord::decode(&[1, 27, 0, 1, 2, 3]), Ok(None));
    }
}
