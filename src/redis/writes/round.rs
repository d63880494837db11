//! Rounds: what the connections of a shard want appended to one partition in one moment, in as few record batches as
//! can be.
//!
//! The first record of a moment opens its partition's round. Whoever opened it lets all who are ready add to it, then
//! closes it and appends all of it at once. Nothing waits for a round to fill, nor one partition's round for another's.
//! Promise: records are in the log in the order in which they were added to their round.
//! Bounds: a batch by `BATCH_BYTES_MAX`, a round by `ROUND_BYTES_MAX`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ahash::AHashMap;
use bytes::BytesMut;

use crate::base::murmur2;
use crate::base::units::KIB;
use crate::broker::{Acks, Broker, PartitionProduce, PartitionProduced, ProduceRequest, TopicImage};
use crate::config::TopicConfig;
use crate::model::{Offset, PartitionIndex, TopicName, TopicPartition};
use crate::record::{BatchBuilder, Compression, Header};
use crate::redis::stream_name::StreamName;
use crate::runtime::local::{Answer, Awaited, oneshot};

/// A batch takes no further record beyond this: whoever reads one entry reads its batch.
const BATCH_BYTES_MAX: usize = 128 * KIB;
/// A round takes no further record beyond this.
const ROUND_BYTES_MAX: usize = 1024 * KIB;
/// Nobody waits for another acknowledgement than ours.
const NO_TIMEOUT_MS: i32 = i32::MAX;

/// What became of a round's batches, in their order.
pub(super) type Appended = Rc<[PartitionProduced]>;

/// The rounds that may be added to now, one a partition. A shard's connections share one of these; what must not be mixed
/// with others' records has its own.
#[derive(Default)]
pub(in crate::redis) struct Rounds {
    open: RefCell<AHashMap<TopicPartition, Rc<Round>>>,
    /// Where the last name led, until its round is closed.
    last: RefCell<Option<Located>>,
}

/// Where a stream's or channel's name leads.
struct Located {
    name: Vec<u8>,
    topic: TopicName,
    partition_count: usize,
    /// The partition that the name names; none where record keys decide.
    partition: Option<PartitionIndex>,
    batch_bytes_max: usize,
    /// The round that was added to last.
    round: Option<Rc<Round>>,
}

/// The records of one partition's round.
pub(super) struct Round {
    place: TopicPartition,
    batch_bytes_max: usize,
    batches: RefCell<Vec<BatchBuilder>>,
    size_bytes: Cell<usize>,
    waiting: RefCell<Vec<Answer<Appended>>>,
}

/// What became of a record.
pub(super) struct Added {
    pub(super) round: Rc<Round>,
    pub(super) spot: Spot,
    /// If it was the first, the round is the caller's to append.
    pub(super) opened: Option<OpenedRound>,
}

/// A round that its holder has to append. Dropped without that it fails those who wait for it.
pub(super) struct OpenedRound {
    rounds: Rc<Rounds>,
    round: Rc<Round>,
}

/// Where a record is in its round.
#[derive(Clone, Copy)]
pub(super) struct Spot {
    pub(super) batch: usize,
    /// Among the records of the batch.
    pub(super) index: Offset,
}

/// A record to append.
pub(super) struct NewRecord<'a, H> {
    pub(super) timestamp_ms: i64,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) headers: H,
    /// What it takes of a batch, at most.
    pub(super) bytes_max: usize,
}

impl Rounds {
    /// Adds a record of the client for the stream or channel `name`; none if that is not a topic that is there.
    pub(super) fn add<'h, H>(
        self: &Rc<Self>,
        broker: &Broker,
        client_id: u64,
        name: &[u8],
        record: NewRecord<'_, H>,
    ) -> Option<Added>
    where
        H: IntoIterator<Item = Header<'h>, IntoIter: Clone>,
    {
        let mut last = self.last.borrow_mut();
        let located = match &mut *last {
            Some(located) if located.name == name => located,
            last => last.insert(Located::find(broker, name)?),
        };
        let partition = located.partition_for(record.key, client_id);
        let usable = |round: &Rc<Round>| round.place.partition == partition && !round.is_full();
        let (round, opened) = match located.round.take().filter(usable) {
            Some(round) => (round, None),
            None => self.round_of(located, partition),
        };
        located.round = Some(round.clone());
        drop(last);
        let spot = round.add(record)?;
        Some(Added { round, spot, opened })
    }

    /// The partition's open round, or a new one.
    fn round_of(
        self: &Rc<Self>,
        located: &Located,
        partition: PartitionIndex,
    ) -> (Rc<Round>, Option<OpenedRound>) {
        let place = TopicPartition::new(located.topic.clone(), partition);
        let mut open = self.open.borrow_mut();
        if let Some(round) = open.get(&place).filter(|round| !round.is_full()) {
            return (round.clone(), None);
        }
        let round = Rc::new(Round::new(place.clone(), located.batch_bytes_max));
        open.insert(place, round.clone());
        (round.clone(), Some(OpenedRound { rounds: self.clone(), round }))
    }

    /// Nobody adds to `round` any more. Idempotent.
    fn close(&self, round: &Rc<Round>) {
        let is_it = |other: &Rc<Round>| Rc::ptr_eq(other, round);
        self.last.borrow_mut().take_if(|last| last.round.as_ref().is_some_and(is_it));
        let mut open = self.open.borrow_mut();
        if open.get(&round.place).is_some_and(is_it) {
            open.remove(&round.place);
        } // else it was full, and another one has taken its place
    }
}

impl Located {
    fn find(broker: &Broker, name: &[u8]) -> Option<Self> {
        let stream = StreamName::parse(name).ok()?;
        let image = broker.image();
        let topic = image.topic(stream.topic).filter(|topic| broker.is_ready(topic))?;
        if stream.partition.is_some_and(|partition| topic.partition(partition).is_none()) {
            return None;
        }
        Some(Located {
            name: name.to_vec(),
            topic: topic.name.clone(),
            partition_count: topic.partitions.len(),
            partition: stream.partition,
            batch_bytes_max: batch_bytes_max(broker, topic),
            round: None,
        })
    }

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

/// How large a batch to the topic may be.
fn batch_bytes_max(broker: &Broker, topic: &TopicImage) -> usize {
    let config = broker.config();
    let limit = if topic.configs.is_empty() {
        config.message_max_bytes
    } else {
        TopicConfig::resolve_internal(&config, &topic.configs)
            .map_or(config.message_max_bytes, |topic| topic.max_message_bytes)
    };
    limit.min(BATCH_BYTES_MAX)
}

impl Round {
    fn new(place: TopicPartition, batch_bytes_max: usize) -> Self {
        Round {
            place,
            batch_bytes_max,
            batches: RefCell::default(),
            size_bytes: Cell::new(0),
            waiting: RefCell::default(),
        }
    }

    pub(super) fn topic(&self) -> &TopicName {
        &self.place.topic
    }

    /// Whether it takes no more.
    pub(super) fn is_full(&self) -> bool {
        self.size_bytes.get() >= ROUND_BYTES_MAX
    }

    /// Adds a record to the last batch, unless that is full.
    fn add<'h, H>(&self, record: NewRecord<'_, H>) -> Option<Spot>
    where
        H: IntoIterator<Item = Header<'h>, IntoIter: Clone>,
    {
        let NewRecord { timestamp_ms, key, value, headers, bytes_max } = record;
        let mut batches = self.batches.borrow_mut();
        if batches.last().is_none_or(|last| last.size_bytes() + bytes_max > self.batch_bytes_max) {
            batches.push(BatchBuilder::new(Compression::None));
        }
        let batch = batches.len() - 1;
        let builder = &mut batches[batch];
        let index = Offset::from(builder.record_count());
        builder.append(timestamp_ms, key, value, headers).ok()?;
        self.size_bytes.set(self.size_bytes.get() + bytes_max);
        Some(Spot { batch, index })
    }

    /// Resolves when all of it was appended; to nothing if it never was.
    pub(super) fn appended(&self) -> Awaited<Appended> {
        let (answer, awaited) = oneshot();
        self.waiting.borrow_mut().push(answer);
        awaited
    }
}

impl OpenedRound {
    /// Appends what was added and tells those who wait.
    pub(super) async fn append(self, broker: &Broker) {
        self.rounds.close(&self.round);
        let mut batches: Vec<_> = self
            .round
            .batches
            .take()
            .into_iter()
            .map(|batch| {
                let records: BytesMut = batch.finish();
                PartitionProduce { topic_partition: self.round.place.clone(), records }
            })
            .collect();
        let appended: Appended = if batches.len() == 1
            && let Some(only) = batches.pop()
        {
            Rc::new([broker.append_gathered(only).await])
        } else {
            let request = ProduceRequest {
                acks: Acks::Leader,
                timeout_ms: NO_TIMEOUT_MS,
                transaction: None,
                partitions: batches,
            };
            broker.produce(request).await.finish().await.into()
        };
        for answer in self.round.waiting.take() {
            answer.give(appended.clone());
        }
    }
}

impl Drop for OpenedRound {
    fn drop(&mut self) {
        self.rounds.close(&self.round);
        self.round.waiting.take();
    }
}
