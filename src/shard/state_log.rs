//! State logs: what the server must remember, as records in an internal topic, replayed at start.
//!
//! One mechanism for all of them: read the partition front to back and hand every record to the state machine; append
//! what the machine wants remembered; when the log has grown far beyond the live state, write the live state again and
//! let everything before it go (compaction by snapshot).

use std::ops::ControlFlow;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use crate::base::clock;
use crate::base::units::MIB;
use crate::model::Offset;
use crate::partition::{IsolationLevel, Partition, PartitionError, ReadSpec};
use crate::record::{self, BatchBuilder, Batches, Compression};
use crate::runtime;

/// Bytes read at a time during replay.
const REPLAY_READ_BYTES: usize = MIB;
/// Records go into batches of about this size.
const BATCH_BYTES_MAX: usize = 512 * 1024;

/// One record of a state log: a key (which metadata records do not have) and a value, or none for "no more".
pub(super) type KeyValue = (Option<Bytes>, Option<Bytes>);

/// Hands every record of `partition` to `apply`, oldest first; gives way to other tasks in between. Returns the offset
/// behind the last record.
///
/// # Errors
/// If the log cannot be read. Batches that cannot be parsed are skipped with an error in the log.
pub(super) async fn replay(
    partition: &Rc<Partition>,
    mut apply: impl FnMut(Option<&[u8]>, Option<&[u8]>),
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
pub(super) fn replay_chunk(
    partition: &Rc<Partition>,
    bytes: &[u8],
    apply: &mut impl FnMut(Option<&[u8]>, Option<&[u8]>),
) -> Offset {
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
        if batch.header.is_control() {
            continue;
        }
        let done = record::for_each_record(batch.bytes, |record| {
            apply(record.key, record.value);
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

/// Appends `records` in as few batches as fit; resolves when all are in the log. The place in line is taken now.
pub(super) fn append<R>(
    partition: &Rc<Partition>,
    records: R,
) -> impl Future<Output = Result<Option<Offset>, PartitionError>> + use<R>
where
    R: IntoIterator<Item = KeyValue>,
{
    let appends: Vec<_> =
        batches(records).into_iter().map(|batch| Partition::append_internal(partition, batch)).collect();
    async move {
        let mut first_offset = None;
        for append in appends {
            let appended = append.await?;
            first_offset.get_or_insert(appended.base_offset);
        }
        Ok(first_offset)
    }
}

fn batches(records: impl IntoIterator<Item = KeyValue>) -> Vec<BytesMut> {
    let now_ms = clock::now_ms();
    let mut finished = Vec::new();
    let mut batch = BatchBuilder::new(Compression::None);
    for (key, value) in records {
        if batch.size_bytes() >= BATCH_BYTES_MAX {
            finished.push(std::mem::replace(&mut batch, BatchBuilder::new(Compression::None)).finish());
        }
        // A batch is full at 2 GiB of records, which `BATCH_BYTES_MAX` keeps far away.
        let _ = batch.append(now_ms, key.as_deref(), value.as_deref(), std::iter::empty());
    }
    if batch.record_count() > 0 {
        finished.push(batch.finish());
    }
    finished
}
