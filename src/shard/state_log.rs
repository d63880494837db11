//! State logs: what the server must remember, as records in an internal topic, replayed at start.
//!
//! One mechanism for all of them: read the partition front to back and hand every record to the state machine; append
//! what the machine wants remembered; when the log has grown far beyond the live state, write the live state again and
//! let everything before it go (compaction by snapshot).

use std::cell::Cell;
use std::ops::ControlFlow;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use crate::base::clock;
use crate::base::units::MIB;
use crate::model::{Offset, ProducerEpoch, ProducerId};
use crate::partition::{IsolationLevel, Partition, PartitionError, ReadSpec, Verified};
use crate::record::{self, BatchBuilder, BatchHeader, Batches, Compression, ControlType, NO_SEQUENCE};
use crate::runtime;

/// Bytes read at a time during replay.
const REPLAY_READ_BYTES: usize = MIB;
/// Records go into batches of about this size.
const BATCH_BYTES_MAX: usize = 512 * 1024;

/// A log below this is never rewritten.
const REWRITE_BYTES_MIN: u64 = 16 * MIB as u64;
/// The log is rewritten when it is this many times larger than the live state.
const REWRITE_GROWTH_MIN: u64 = 4;

/// One record of a state log: a key (which metadata records do not have) and a value, or none for "no more".
pub(super) type KeyValue = (Option<Bytes>, Option<Bytes>);

/// A producer's id and epoch.
pub(super) type Producer = (ProducerId, ProducerEpoch);

/// What a state log holds, as replay meets it.
#[derive(Debug, Clone, Copy)]
pub(super) enum StateEntry<'a> {
    /// A record; of a producer's transaction if `producer_id` is given, and then void until that is committed.
    Record { key: Option<&'a [u8]>, value: Option<&'a [u8]>, producer_id: Option<ProducerId> },
    /// A producer's transaction ends here.
    TransactionEnd { producer_id: ProducerId, is_commit: bool },
}

/// Hands everything in `partition` to `apply`, oldest first; gives way to other tasks in between. Returns the offset
/// behind the last record.
///
/// # Errors
/// If the log cannot be read. Batches that cannot be parsed are skipped with an error in the log.
pub(super) async fn replay(
    partition: &Rc<Partition>,
    mut apply: impl FnMut(StateEntry<'_>),
) -> Result<Offset, PartitionError> {
    let mut offset = partition.log_start_offset();
    loop {
        let read = partition
            .read(&ReadSpec {
                offset,
                max_bytes: REPLAY_READ_BYTES,
                at_least_one: true,
                isolation: IsolationLevel::ReadUncommitted,
                current_leader_epoch: -1,
            })
            .await?;
        if read.size_bytes == 0 {
            return Ok(offset);
        }
        for chunk in &read.chunks {
            offset = offset.max(replay_chunk(partition, chunk, &mut apply));
        }
        runtime::yield_if_needed().await;
    }
}

/// Applies the batches in `bytes`; returns the offset behind the last of them.
fn replay_chunk(partition: &Rc<Partition>, bytes: &[u8], apply: &mut impl FnMut(StateEntry<'_>)) -> Offset {
    let mut next_offset = 0;
    for batch in Batches::new(bytes) {
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => {
                tracing::error!(partition = %partition.topic_partition(), %error, "unreadable batch in a state log");
                break;
            }
        };
        next_offset = batch.header.next_offset();
        let header = batch.header;
        if header.is_control() {
            replay_marker(&header, batch.bytes, apply);
            continue;
        }
        let producer_id = header.is_transactional().then_some(header.producer_id);
        let done = record::for_each_record(batch.bytes, |record| {
            apply(StateEntry::Record { key: record.key, value: record.value, producer_id });
            ControlFlow::Continue(())
        });
        if let Err(error) = done {
            let base_offset = batch.header.base_offset;
            tracing::error!(
                partition = %partition.topic_partition(), base_offset, %error,
                "unreadable records in a state log"
            );
        }
    }
    next_offset
}

fn replay_marker(header: &BatchHeader, batch: &[u8], apply: &mut impl FnMut(StateEntry<'_>)) {
    let Ok(control) = record::parse_control_batch(batch) else { return };
    let is_commit = match control.control_type {
        ControlType::Commit => true,
        ControlType::Abort => false,
        ControlType::Other(_) => return,
    };
    apply(StateEntry::TransactionEnd { producer_id: header.producer_id, is_commit });
}

/// Appends `records` in as few batches as fit, as a part of the producer's transaction if one is given (with what its
/// coordinator has said); resolves when all are in the log. The place in line is taken now.
pub(super) fn append<R>(
    partition: &Rc<Partition>,
    records: R,
    producer: Option<(Producer, Option<Verified>)>,
) -> impl Future<Output = Result<Option<Offset>, PartitionError>> + use<R>
where
    R: IntoIterator<Item = KeyValue>,
{
    let appends: Vec<_> = batches(records, producer.map(|(producer, _)| producer))
        .into_iter()
        .map(|batch| partition.append_state(batch, producer.and_then(|(_, verified)| verified)))
        .collect();
    async move {
        let mut first_offset = None;
        for append in appends {
            let appended = append.await?;
            first_offset.get_or_insert(appended.base_offset);
        }
        Ok(first_offset)
    }
}

/// The log of one state machine, and how many of its appends the machine has not been told of.
pub(super) struct StateLog {
    partition: Rc<Partition>,
    appends_under_way: Rc<Cell<usize>>,
    /// Size of the log below which it is not rewritten. To weigh the live state is a walk over all of it, which an append
    /// cannot pay each time.
    rewrite_at_bytes: Cell<u64>,
}

impl StateLog {
    /// The log in this partition; no append is under way.
    pub(super) fn new(partition: Rc<Partition>) -> Self {
        StateLog {
            partition,
            appends_under_way: Rc::default(),
            rewrite_at_bytes: Cell::new(REWRITE_BYTES_MIN),
        }
    }

    /// Where it lies.
    pub(super) fn partition(&self) -> &Rc<Partition> {
        &self.partition
    }

    /// As [`append`], followed.
    pub(super) fn append<R>(
        &self,
        records: R,
        producer: Option<(Producer, Option<Verified>)>,
    ) -> impl Future<Output = Result<Option<Offset>, PartitionError>> + use<R>
    where
        R: IntoIterator<Item = KeyValue>,
    {
        self.follow(append(&self.partition, records, producer))
    }

    /// Counts an append as under way from now until its outcome is there, which the machine must be told before anything
    /// else is awaited. To be awaited to its end, whatever becomes of who asked for it.
    pub(super) fn follow<T, F: Future<Output = T>>(
        &self,
        appending: F,
    ) -> impl Future<Output = T> + use<T, F> {
        let under_way = self.appends_under_way.clone();
        under_way.set(under_way.get() + 1);
        async move {
            let appended = appending.await;
            under_way.set(under_way.get() - 1);
            appended
        }
    }

    /// Whether the log is so large that rewriting it may pay, and may be: an append that is not in the machine yet would
    /// be missing from what is written, and lie before it.
    pub(super) fn may_be_rewritten(&self) -> bool {
        self.partition.log().size_bytes() >= self.rewrite_at_bytes.get() && self.appends_under_way.get() == 0
    }

    /// Rewrites a log that is mostly history: `live`, a state of `live_bytes` that is all that the log says so far, is
    /// written behind it, and everything before is let go. The place in line is taken before anything waits, so whatever
    /// is decided later lies behind.
    pub(super) async fn rewrite_if_grown<R>(&self, live_bytes: impl FnOnce() -> u64, live: impl FnOnce() -> R)
    where
        R: IntoIterator<Item = KeyValue>,
    {
        if !self.may_be_rewritten() {
            return;
        }
        let worthwhile_bytes = live_bytes().saturating_mul(REWRITE_GROWTH_MIN).max(REWRITE_BYTES_MIN);
        if self.partition.log().size_bytes() < worthwhile_bytes {
            self.rewrite_at_bytes.set(worthwhile_bytes);
            return;
        }
        self.rewrite_at_bytes.set(u64::MAX); // one at a time
        let result = match append(&self.partition, live(), None).await {
            Ok(Some(first_offset)) => self.partition.delete_records_before(first_offset).await.map(drop),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            tracing::error!(partition = %self.partition.topic_partition(), %error, "cannot rewrite a state log");
        }
        // History goes by whole segments, and not at all after an error.
        let left_bytes = self.partition.log().size_bytes();
        self.rewrite_at_bytes.set(worthwhile_bytes.max(left_bytes.saturating_add(REWRITE_BYTES_MIN)));
    }
}

fn batches(records: impl IntoIterator<Item = KeyValue>, producer: Option<Producer>) -> Vec<BytesMut> {
    let now_ms = clock::now_ms();
    let new_batch = || {
        let batch = BatchBuilder::new(Compression::None);
        match producer {
            // The server's own records have no sequence, as Kafka's have none.
            Some((producer_id, epoch)) => {
                batch.with_producer(producer_id, epoch, NO_SEQUENCE).transactional()
            }
            None => batch,
        }
    };
    let mut finished = Vec::new();
    let mut batch = new_batch();
    for (key, value) in records {
        if batch.size_bytes() >= BATCH_BYTES_MAX {
            finished.push(std::mem::replace(&mut batch, new_batch()).finish());
        }
        // A batch is full at 2 GiB of records, which `BATCH_BYTES_MAX` keeps far away.
        let _ = batch.append(now_ms, key.as_deref(), value.as_deref(), std::iter::empty());
    }
    if batch.record_count() > 0 {
        finished.push(batch.finish());
    }
    finished
}
