//! The records of `__transaction_state`, byte for byte Kafka's, so that Kafka's tools read our state log and we theirs.
//!
//! Key and value begin with a version (i16, all numbers big endian).
//!
//! ```text
//! key 0     transactional id string
//! value 0   producer id i64, epoch i16, timeout i32, status i8, partitions[]?, last update i64, start i64
//!               partitions: topic string, partition ids i32[]
//! value 1   the same, flexible, with tagged fields at the end:                                  (what we write)
//!               tag 0 previous producer id i64, 1 next producer id i64, 2 client's transaction version i16
//! ```
//! Lengths are as in the records of `__consumer_offsets`. Partitions are null while no transaction was begun.
//! A value of `None` is a tombstone. The tests hold bytes that Kafka 4.3.1's own classes wrote.
//! Source: Kafka's transaction-coordinator/src/main/resources/common/message/TransactionLog{Key,Value}.json.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::super::group::schema::SchemaError;
use super::super::reader::Reader;
use crate::base::varint;
use crate::model::transaction::{TransactionState, TransactionVersion};
use crate::model::{NO_PRODUCER_ID, ProducerEpoch, ProducerId, TopicName, TopicPartition};

const KEY_VERSION: i16 = 0;
const VALUE_VERSION: i16 = 1;
const FLEXIBLE_FROM: i16 = 1;
const PREVIOUS_PRODUCER_ID_TAG: u32 = 0;
const NEXT_PRODUCER_ID_TAG: u32 = 1;
const VERSION_TAG: u32 = 2;
/// "No time" in the timestamps of a record.
pub const NO_TIME: i64 = -1;

/// Reads a record's key: the transactional id; none for a key of a kind to come.
///
/// # Errors
/// When the bytes are no such key.
pub fn decode_key(bytes: &[u8]) -> Result<Option<String>, SchemaError> {
    let mut reader = Reader::new(bytes);
    match reader.i16()? {
        KEY_VERSION => Ok(Some(reader.string()?)),
        _ => Ok(None),
    }
}

/// The key of a transactional id.
pub fn key(transactional_id: &str) -> Bytes {
    let mut out = Vec::with_capacity(2 + 2 + transactional_id.len());
    out.extend_from_slice(&KEY_VERSION.to_be_bytes());
    let length = i16::try_from(transactional_id.len()).ok();
    assert!(length.is_some(), "the verbs refuse ids that are longer");
    out.extend_from_slice(&length.unwrap_or(i16::MAX).to_be_bytes());
    out.extend_from_slice(transactional_id.as_bytes());
    out.into()
}

/// How a transactional id stands, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionValue {
    /// Its producer.
    pub producer_id: ProducerId,
    /// The producer id before this one, or [`NO_PRODUCER_ID`].
    pub previous_producer_id: ProducerId,
    /// The producer id that takes over once the transaction is complete, or [`NO_PRODUCER_ID`].
    pub next_producer_id: ProducerId,
    /// The producer's epoch.
    pub producer_epoch: ProducerEpoch,
    /// How long a transaction may stay open.
    pub timeout_ms: i32,
    /// The state.
    pub state: TransactionState,
    /// What is in the transaction.
    pub partitions: BTreeSet<TopicPartition>,
    /// When the state was entered.
    pub last_update_ms: i64,
    /// When the transaction began, or [`NO_TIME`].
    pub start_ms: i64,
    /// How the client does transactions.
    pub version: TransactionVersion,
}

impl TransactionValue {
    /// The record's value.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(64 + 16 * self.partitions.len());
        out.extend_from_slice(&VALUE_VERSION.to_be_bytes());
        out.extend_from_slice(&self.producer_id.to_be_bytes());
        out.extend_from_slice(&self.producer_epoch.to_be_bytes());
        out.extend_from_slice(&self.timeout_ms.to_be_bytes());
        out.extend_from_slice(&status_of(self.state).to_be_bytes());
        self.encode_partitions(&mut out);
        out.extend_from_slice(&self.last_update_ms.to_be_bytes());
        out.extend_from_slice(&self.start_ms.to_be_bytes());
        self.encode_tags(&mut out);
        out.into()
    }

    fn encode_partitions(&self, out: &mut Vec<u8>) {
        if self.state == TransactionState::Empty {
            return varint::write_u32(out, 0);
        }
        let in_order: Vec<&TopicPartition> = self.partitions.iter().collect();
        let topics = in_order.chunk_by(|left, right| left.topic == right.topic);
        put_count(out, topics.clone().count());
        for partitions in topics {
            let topic = partitions[0].topic.as_bytes();
            put_count(out, topic.len());
            out.extend_from_slice(topic);
            put_count(out, partitions.len());
            for partition in partitions {
                out.extend_from_slice(&partition.partition.to_be_bytes());
            }
            varint::write_u32(out, 0); // tagged fields
        }
    }

    fn encode_tags(&self, out: &mut Vec<u8>) {
        let mut tags: Vec<(u32, Vec<u8>)> = Vec::new();
        for (tag, producer_id) in [
            (PREVIOUS_PRODUCER_ID_TAG, self.previous_producer_id),
            (NEXT_PRODUCER_ID_TAG, self.next_producer_id),
        ] {
            if producer_id != NO_PRODUCER_ID {
                tags.push((tag, producer_id.to_be_bytes().to_vec()));
            }
        }
        if self.version != TransactionVersion::V0 {
            tags.push((VERSION_TAG, self.version.level().to_be_bytes().to_vec()));
        }
        varint::write_u32(out, u32::try_from(tags.len()).unwrap_or(u32::MAX));
        for (tag, bytes) in tags {
            varint::write_u32(out, tag);
            varint::write_u32(out, u32::try_from(bytes.len()).unwrap_or(u32::MAX));
            out.extend_from_slice(&bytes);
        }
    }

    /// Reads a record's value, versions 0 and 1.
    ///
    /// # Errors
    /// When the bytes are no such value.
    pub fn decode(bytes: &[u8]) -> Result<TransactionValue, SchemaError> {
        let mut reader = Reader::new(bytes);
        reader.value_version(VALUE_VERSION, FLEXIBLE_FROM)?;
        let producer_id = reader.i64()?;
        let producer_epoch = reader.i16()?;
        let timeout_ms = reader.i32()?;
        let state = state_of(reader.i8()?)?;
        let partitions = decode_partitions(&mut reader)?;
        let mut value = TransactionValue {
            producer_id,
            previous_producer_id: NO_PRODUCER_ID,
            next_producer_id: NO_PRODUCER_ID,
            producer_epoch,
            timeout_ms,
            state,
            partitions,
            last_update_ms: reader.i64()?,
            start_ms: reader.i64()?,
            version: TransactionVersion::V0,
        };
        reader.read_tagged_fields(|tag, field| {
            match tag {
                PREVIOUS_PRODUCER_ID_TAG => value.previous_producer_id = field.i64()?,
                NEXT_PRODUCER_ID_TAG => value.next_producer_id = field.i64()?,
                VERSION_TAG => value.version = TransactionVersion::of_level(field.i16()?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(value)
    }
}

fn decode_partitions(reader: &mut Reader<'_>) -> Result<BTreeSet<TopicPartition>, SchemaError> {
    let mut partitions = BTreeSet::new();
    // The counts are not trusted with memory: every entry takes bytes, and those run out first.
    for _ in 0..reader.nullable_array_length()?.unwrap_or(0) {
        let topic = TopicName::new(&reader.string()?).map_err(|_| SchemaError::TopicName)?;
        for _ in 0..reader.array_length()? {
            partitions.insert(TopicPartition::new(topic.clone(), reader.i32()?));
        }
        reader.tagged_fields()?;
    }
    Ok(partitions)
}

/// A compact length: one more than it is.
fn put_count(out: &mut Vec<u8>, count: usize) {
    varint::write_u32(out, u32::try_from(count + 1).unwrap_or(u32::MAX));
}

/// Kafka's number of a state.
fn status_of(state: TransactionState) -> i8 {
    match state {
        TransactionState::Empty => 0,
        TransactionState::Ongoing => 1,
        TransactionState::PrepareCommit => 2,
        TransactionState::PrepareAbort => 3,
        TransactionState::CompleteCommit => 4,
        TransactionState::CompleteAbort => 5,
        TransactionState::Dead => 6,
    }
}

fn state_of(status: i8) -> Result<TransactionState, SchemaError> {
    let found = TransactionState::ALL.into_iter().find(|&state| status_of(state) == status);
    found.ok_or(SchemaError::Status(status))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn partition(topic: &str, partition: i32) -> TopicPartition {
        TopicPartition::new(TopicName::new(topic).unwrap(), partition)
    }

    prop_compose! {
        fn values()(
            ids in (0i64..9, -1i64..9, -1i64..9),
            producer_epoch in -1i16..=i16::MAX,
            timeout_ms in any::<i32>(),
            state in 1usize..7,
            partitions in proptest::collection::btree_set(("[a-c]{1,3}", 0i32..9), 0..9),
            times in (any::<i64>(), any::<i64>()),
            level in 0i16..3,
        ) -> TransactionValue {
            TransactionValue {
                producer_id: ids.0,
                previous_producer_id: ids.1,
                next_producer_id: ids.2,
                producer_epoch,
                timeout_ms,
                state: TransactionState::ALL[state],
                partitions: partitions.iter().map(|(topic, index)| partition(topic, *index)).collect(),
                last_update_ms: times.0,
                start_ms: times.1,
                version: TransactionVersion::of_level(level),
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value in values()) {
            prop_assert_eq!(TransactionValue::decode(&value.encode()), Ok(value));
        }

        #[test]
        fn rubbish_is_refused_and_never_trusted(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = TransactionValue::decode(&bytes);
            let _ = decode_key(&bytes);
        }

        #[test]
        fn a_cut_value_is_refused(value in values(), cut in 1usize..30) {
            let bytes = value.encode();
            let end = bytes.len().saturating_sub(cut);
            prop_assert!(TransactionValue::decode(&bytes[..end]).is_err());
        }
    }

    #[test]
    fn keys_are_read_back() {
        assert_eq!(decode_key(&key("orders")), Ok(Some("orders".to_owned())));
        assert_eq!(decode_key(&[0, 7]), Ok(None));
        assert_eq!(decode_key(&[0, 0, 0, 9, b'x']), Err(SchemaError::CutShort));
    }
}
