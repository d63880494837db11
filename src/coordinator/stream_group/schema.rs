//! The records of `__stream_groups`.
//!
//! ```text
//! key   = kind i16 | group string | topic string | partition i32 | by kind: nothing, consumer string, or offset i64
//! value = version i16 (0) | by kind:
//!   0 position  next offset i64 | time of the entry before i64 (ms, -1: unknown)
//!   1 consumer  seen i64 (ms) | given something i64 (ms, -1: never)
//!   2 pending   consumer string | delivered i64 (ms) | delivery count i64 | timestamp of the entry i64 (ms)
//! ```
//!
//! Strings are a length i16 and UTF-8. A record without a value takes back what the key stands for; a position taken
//! back takes the whole group with it.

use bytes::Bytes;

use crate::coordinator::group::StateRecord;
use crate::model::stream_group::{GroupPosition, StreamEntryId, StreamGroupKey};
use crate::model::{Offset, PartitionIndex, TopicName, TopicPartition};

const POSITION_KIND: i16 = 0;
const CONSUMER_KIND: i16 = 1;
const PENDING_KIND: i16 = 2;
const VALUE_VERSION: i16 = 0;

/// Longest name of a group or a consumer in bytes; what a length field can say.
pub const NAME_BYTES_MAX: usize = i16::MAX as usize;

/// A record that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// A kind of key that this version does not know.
    #[error("unknown kind of record: {0}")]
    Kind(i16),
    /// A version of the value that this version does not know.
    #[error("unknown version of a value: {0}")]
    Version(i16),
    /// The bytes end too early.
    #[error("the record is cut short")]
    CutShort,
    /// A name that is no text, or no topic.
    #[error("a name in the record is not legal")]
    Name,
}

/// One change of one group, as a record tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// The next entry to be delivered.
    Position(GroupPosition),
    /// The group is gone.
    Forget,
    /// A consumer came.
    Consumer { name: String, seen_ms: i64, active_ms: i64 },
    /// A consumer went.
    ConsumerGone(String),
    /// An entry was delivered.
    Pending { id: StreamEntryId, consumer: String, delivered_ms: i64, delivery_count: i64 },
    /// An entry is done with.
    Done(Offset),
}

impl Change {
    pub(super) fn encode(&self, key: &StreamGroupKey) -> StateRecord {
        let mut head = Writer::default();
        let mut value = Writer::default();
        value.i16(VALUE_VERSION);
        let kind = match self {
            Change::Position(_) | Change::Forget => POSITION_KIND,
            Change::Consumer { .. } | Change::ConsumerGone(_) => CONSUMER_KIND,
            Change::Pending { .. } | Change::Done(_) => PENDING_KIND,
        };
        head.i16(kind);
        head.string(&key.group);
        head.string(&key.place.topic);
        head.i32(key.place.partition);
        let has_value = match self {
            Change::Position(position) => {
                value.i64(position.next_offset);
                value.i64(position.last_timestamp_ms);
                true
            }
            Change::Consumer { name, seen_ms, active_ms } => {
                head.string(name);
                value.i64(*seen_ms);
                value.i64(*active_ms);
                true
            }
            Change::Pending { id, consumer, delivered_ms, delivery_count } => {
                head.i64(id.offset);
                value.string(consumer);
                value.i64(*delivered_ms);
                value.i64(*delivery_count);
                value.i64(id.timestamp_ms);
                true
            }
            Change::Forget => false,
            Change::ConsumerGone(name) => {
                head.string(name);
                false
            }
            Change::Done(offset) => {
                head.i64(*offset);
                false
            }
        };
        StateRecord { key: head.0.into(), value: has_value.then(|| Bytes::from(value.0)) }
    }

    pub(super) fn decode(key: &[u8], value: Option<&[u8]>) -> Result<(StreamGroupKey, Change), SchemaError> {
        let mut head = Reader(key);
        let kind = head.i16()?;
        let group = head.string()?;
        let topic = TopicName::new(&head.string()?).map_err(|_| SchemaError::Name)?;
        let place = TopicPartition::new(topic, head.i32()?);
        let value = value.map(Reader::of_value).transpose()?;
        let change = match (kind, value) {
            (POSITION_KIND, Some(mut value)) => {
                Change::Position(GroupPosition { next_offset: value.i64()?, last_timestamp_ms: value.i64()? })
            }
            (POSITION_KIND, None) => Change::Forget,
            (CONSUMER_KIND, Some(mut value)) => {
                Change::Consumer { name: head.string()?, seen_ms: value.i64()?, active_ms: value.i64()? }
            }
            (CONSUMER_KIND, None) => Change::ConsumerGone(head.string()?),
            (PENDING_KIND, Some(mut value)) => Change::Pending {
                consumer: value.string()?,
                delivered_ms: value.i64()?,
                delivery_count: value.i64()?,
                id: StreamEntryId { offset: head.i64()?, timestamp_ms: value.i64()? },
            },
            (PENDING_KIND, None) => Change::Done(head.i64()?),
            (kind, _) => return Err(SchemaError::Kind(kind)),
        };
        Ok((StreamGroupKey { group, place }, change))
    }
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn i16(&mut self, value: i16) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn i32(&mut self, value: PartitionIndex) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    fn i64(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    /// Longer names are refused before a verb is planned.
    fn string(&mut self, text: &str) {
        debug_assert!(text.len() <= NAME_BYTES_MAX);
        self.i16(i16::try_from(text.len()).unwrap_or(i16::MAX));
        self.0.extend_from_slice(text.as_bytes());
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Begins behind the version of a value.
    fn of_value(bytes: &'a [u8]) -> Result<Self, SchemaError> {
        let mut reader = Reader(bytes);
        match reader.i16()? {
            VALUE_VERSION => Ok(reader),
            version => Err(SchemaError::Version(version)),
        }
    }

    fn i16(&mut self) -> Result<i16, SchemaError> {
        self.array().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, SchemaError> {
        self.array().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, SchemaError> {
        self.array().map(i64::from_be_bytes)
    }

    fn string(&mut self) -> Result<String, SchemaError> {
        let length = usize::try_from(self.i16()?).map_err(|_| SchemaError::Name)?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(SchemaError::CutShort)?;
        self.0 = rest;
        std::str::from_utf8(text).map(str::to_owned).map_err(|_| SchemaError::Name)
    }

    fn array<const COUNT: usize>(&mut self) -> Result<[u8; COUNT], SchemaError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(SchemaError::CutShort)?;
        self.0 = rest;
        Ok(*array)
    }
}
