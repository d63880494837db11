//! XADDs and PUBLISHes that follow on each other in one read: as few record batches as can be, and one append.
//!
//! Consecutive records of one partition share a batch. Each command has its own reply, in order. What needs more than a
//! plain append (a topic to be made, an id of one's own, trimming) is not taken here.

use bytes::BytesMut;

use super::client::Client;
use super::entries::{KEY_FIELD, VALUE_FIELD};
use super::entry_id::write_id;
use super::error_reply::ErrorReply;
use super::resp::{Args, Encoder};
use super::stream_name::StreamName;
use crate::base::murmur2;
use crate::base::units::KIB;
use crate::broker::{Acks, Broker, PartitionProduce, PartitionProduced, ProduceRequest, TopicImage};
use crate::config::TopicConfig;
use crate::model::{PartitionIndex, TopicName, TopicPartition};
use crate::record::{BatchBuilder, Compression, Header};

/// A batch takes no further record beyond this: whoever reads one entry reads its batch.
const BATCH_BYTES_MAX: usize = 128 * KIB;
/// The bytes of a record's own fields, at most, and of a batch's header.
const OVERHEAD_BYTES: usize = 128;
/// What is gathered before it is appended, at most.
const GATHERED_BYTES_MAX: usize = 1024 * KIB;
/// The client waits for no other acknowledgement than ours.
const NO_TIMEOUT_MS: i32 = i32::MAX;

/// Records on their way to the log and the replies owed for them.
pub(super) struct Writes {
    client_id: u64,
    now_ms: i64,
    batches: Vec<Batch>,
    replies: Vec<Owed>,
    gathered_bytes: usize,
    /// Where the last key led.
    last: Option<Located>,
}

struct Batch {
    place: TopicPartition,
    builder: BatchBuilder,
    bytes_max: usize,
}

struct Owed {
    batch: usize,
    index: i64,
    timestamp_ms: i64,
    /// For PUBLISH: the reply is how many subscribers this has.
    channel: Option<TopicName>,
    /// Counted before the append: whoever subscribes later reads from behind it.
    subscribers: usize,
}

struct Located {
    key: Vec<u8>,
    topic: TopicName,
    partition_count: usize,
    /// The partition that the key names; none where record keys decide.
    partition: Option<PartitionIndex>,
    bytes_max: usize,
}

impl Located {
    /// Where a record with this key goes: as Kafka's clients choose. Records without a key go where all of one client's
    /// go, so that they stay in order.
    fn partition_for(&self, record_key: Option<&[u8]>, client_id: u64) -> PartitionIndex {
        self.partition.unwrap_or_else(|| {
            let count = self.partition_count.max(1);
            let chosen = match record_key {
                Some(key) => murmur2::partition_of(key, count),
                None => (client_id % count as u64) as usize,
            };
            PartitionIndex::try_from(chosen).unwrap_or(0)
        })
    }
}

impl Writes {
    pub(super) fn new(client: &Client, now_ms: i64) -> Self {
        Writes {
            client_id: client.id(),
            now_ms,
            batches: Vec::new(),
            replies: Vec::new(),
            gathered_bytes: 0,
            last: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.replies.is_empty()
    }

    /// Whether it is time to append.
    pub(super) fn is_full(&self) -> bool {
        self.gathered_bytes >= GATHERED_BYTES_MAX
    }

    /// Takes the command in if it is a plain XADD or PUBLISH to a topic that is there.
    pub(super) fn add(&mut self, client: &Client, args: &Args<'_>) -> bool {
        let Some(name) = args.get(0) else { return false };
        if name.eq_ignore_ascii_case(b"XADD") {
            let is_plain = args.len() >= 5 && args.len() % 2 == 1 && args.get(2) == Some(b"*");
            is_plain
                && self.locate(client.broker(), args.get(1).unwrap_or_default())
                && self.append_entry(self.now_ms, args, 3)
        } else if name.eq_ignore_ascii_case(b"PUBLISH") || name.eq_ignore_ascii_case(b"SPUBLISH") {
            args.len() == 3
                && self.locate(client.broker(), args.get(1).unwrap_or_default())
                && self.append_payload(args.get(2).unwrap_or_default())
        } else {
            false
        }
    }

    /// Appends one entry to the stream `key`: its fields are the arguments from `first_field` on, in pairs.
    pub(super) fn add_entry(
        &mut self,
        broker: &Broker,
        key: &[u8],
        timestamp_ms: Option<i64>,
        args: &Args<'_>,
        first_field: usize,
    ) -> bool {
        self.locate(broker, key) && self.append_entry(timestamp_ms.unwrap_or(self.now_ms), args, first_field)
    }

    /// Finds out where a key leads, unless the last one was the same.
    fn locate(&mut self, broker: &Broker, key: &[u8]) -> bool {
        if self.last.as_ref().is_some_and(|last| last.key == key) {
            return true;
        }
        let Ok(name) = StreamName::parse(key) else { return false };
        let image = broker.image();
        let Some(topic) = image.topic(name.topic).filter(|topic| broker.is_ready(topic)) else {
            return false;
        };
        if name.partition.is_some_and(|partition| topic.partition(partition).is_none()) {
            return false;
        }
        self.last = Some(Located {
            key: key.to_vec(),
            topic: topic.name.clone(),
            partition_count: topic.partitions.len(),
            partition: name.partition,
            bytes_max: bytes_max(broker, topic),
        });
        true
    }

    fn append_entry(&mut self, timestamp_ms: i64, args: &Args<'_>, first_field: usize) -> bool {
        let fields = Fields::of(args, first_field);
        let size_bytes = args.from(first_field).map(|word| word.len() + 5).sum::<usize>() + OVERHEAD_BYTES;
        let Some((batch, builder)) = self.batch(fields.key, size_bytes) else { return false };
        let index = i64::from(builder.record_count());
        if builder.append(timestamp_ms, fields.key, fields.value, fields.headers()).is_err() {
            return false;
        }
        self.replies.push(Owed { batch, index, timestamp_ms, channel: None, subscribers: 0 });
        self.gathered_bytes += size_bytes;
        true
    }

    fn append_payload(&mut self, payload: &[u8]) -> bool {
        let timestamp_ms = self.now_ms;
        let size_bytes = payload.len() + OVERHEAD_BYTES;
        let Some((batch, builder)) = self.batch(None, size_bytes) else { return false };
        let index = i64::from(builder.record_count());
        if builder.append(timestamp_ms, None, Some(payload), std::iter::empty::<Header<'_>>()).is_err() {
            return false;
        }
        let channel = Some(self.batches[batch].place.topic.clone());
        self.replies.push(Owed { batch, index, timestamp_ms, channel, subscribers: 0 });
        self.gathered_bytes += size_bytes;
        true
    }

    /// The batch that the next record of so many bytes goes to: the last one of its partition, unless that is full.
    fn batch(&mut self, record_key: Option<&[u8]>, size_bytes: usize) -> Option<(usize, &mut BatchBuilder)> {
        let last = self.last.as_ref()?;
        let partition = last.partition_for(record_key, self.client_id);
        let is_of = |batch: &Batch| batch.place.partition == partition && batch.place.topic == last.topic;
        let newest = self.batches.iter().rposition(is_of).filter(|index| {
            let batch = &self.batches[*index];
            batch.builder.size_bytes() + size_bytes <= batch.bytes_max
        });
        let index = newest.unwrap_or_else(|| {
            let place = TopicPartition::new(last.topic.clone(), partition);
            let builder = BatchBuilder::new(Compression::None);
            self.batches.push(Batch { place, builder, bytes_max: last.bytes_max });
            self.batches.len() - 1
        });
        Some((index, &mut self.batches[index].builder))
    }

    /// Appends what was gathered and writes the replies.
    pub(super) async fn finish(&mut self, client: &Client, out: &mut Encoder) {
        if self.is_empty() {
            return;
        }
        let batches = std::mem::take(&mut self.batches);
        let mut replies = std::mem::take(&mut self.replies);
        self.gathered_bytes = 0;
        count_subscribers(client.broker(), &mut replies);
        let appended = append(client.broker(), batches).await;
        for owed in &replies {
            match appended
                .get(owed.batch)
                .map(|produced| (&produced.base_offset, produced.log_append_time_ms))
            {
                Some((Ok(_), _)) if owed.channel.is_some() => out.count(owed.subscribers),
                Some((Ok(base_offset), stamped_ms)) => {
                    let timestamp_ms = if stamped_ms >= 0 { stamped_ms } else { owed.timestamp_ms };
                    write_id(out.as_mut_vec(), timestamp_ms, base_offset + owed.index);
                }
                Some((Err(error), _)) => out.error(&ErrorReply::from(error.clone()).0),
                None => out.error("TRYAGAIN the append was given up"),
            }
        }
    }
}

/// Counts the subscribers that each owed reply tells of; those of consecutive ones to one channel once.
fn count_subscribers(broker: &Broker, replies: &mut [Owed]) {
    let mut last: Option<(&TopicName, usize)> = None;
    for owed in replies {
        let Some(channel) = &owed.channel else { continue };
        owed.subscribers = match last {
            Some((counted, count)) if counted == channel => count,
            _ => broker.subscribers_of(channel),
        };
        last = Some((channel, owed.subscribers));
    }
}

async fn append(broker: &Broker, batches: Vec<Batch>) -> Vec<PartitionProduced> {
    let partitions = batches
        .into_iter()
        .map(|batch| {
            let records: BytesMut = batch.builder.finish();
            PartitionProduce { topic_partition: batch.place, records }
        })
        .collect();
    let request =
        ProduceRequest { acks: Acks::Leader, timeout_ms: NO_TIMEOUT_MS, transaction: None, partitions };
    broker.produce(request).await.finish().await
}

/// How large a batch to the topic may be.
fn bytes_max(broker: &Broker, topic: &TopicImage) -> usize {
    let config = broker.config();
    let limit = if topic.configs.is_empty() {
        config.message_max_bytes
    } else {
        TopicConfig::resolve_internal(&config, &topic.configs)
            .map_or(config.message_max_bytes, |topic| topic.max_message_bytes)
    };
    limit.min(BATCH_BYTES_MAX)
}

/// The fields of an entry as the parts of a record.
struct Fields<'a, I> {
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    pairs: I,
}

impl<'a> Fields<'a, std::iter::Empty<(&'a [u8], &'a [u8])>> {
    fn of(
        args: &Args<'a>,
        first_field: usize,
    ) -> Fields<'a, impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone + use<'a>> {
        let names = args.from(first_field).step_by(2);
        let values = args.from(first_field + 1).step_by(2);
        let pairs = names.zip(values);
        let first = |wanted: &[u8]| pairs.clone().find(|(name, _)| *name == wanted).map(|(_, value)| value);
        Fields { key: first(KEY_FIELD), value: first(VALUE_FIELD), pairs }
    }
}

impl<'a, I: Iterator<Item = (&'a [u8], &'a [u8])> + Clone> Fields<'a, I> {
    /// Every field that is neither the key nor the value; a second `key` or `value` is a field like any other.
    fn headers(&self) -> impl Iterator<Item = Header<'a>> + Clone {
        let (mut seen_key, mut seen_value) = (false, false);
        self.pairs.clone().filter_map(move |(name, value)| {
            let is_first = |seen: &mut bool| !std::mem::replace(seen, true);
            let is_taken = (name == KEY_FIELD && is_first(&mut seen_key))
                || (name == VALUE_FIELD && is_first(&mut seen_value));
            (!is_taken).then_some(Header { key: name, value: Some(value) })
        })
    }
}
