//! What happens to appends that are queued in one moment.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;

use super::super::{Appended, Partition, PartitionError};
use crate::config::{CompressionType, TopicConfig};
use crate::model::{ProducerEpoch, TopicName, TopicPartition};
use crate::record::{self, BatchBuilder, Batches, Compression, Headers};
use crate::runtime::fault::{self, Operation, Verdict};
use crate::runtime::{block_on, spawn};
use crate::storage::{
    Log, LogOptions, ProducerError, ReadRequest, ShardStorage, ShardStorageLimits, StartHint,
};

async fn partition(dir: &Path, options: LogOptions) -> Rc<Partition> {
    partition_of(dir, options, TopicConfig::default()).await
}

async fn partition_of(dir: &Path, options: LogOptions, config: TopicConfig) -> Rc<Partition> {
    let orders = TopicPartition::new(TopicName::new("orders").unwrap(), 0);
    let shared = ShardStorage::new(ShardStorageLimits::default());
    let log = Log::open(orders.clone(), dir.join("orders-0"), options, shared, StartHint::default(), 0);
    Partition::new(orders, log.await.unwrap(), Arc::new(config))
}

fn batch_of(producer: Option<(i64, ProducerEpoch, i32)>, records: usize) -> BytesMut {
    let mut builder = BatchBuilder::new(Compression::None);
    if let Some((id, epoch, base_sequence)) = producer {
        builder = builder.with_producer(id, epoch, base_sequence);
    }
    for _ in 0..records {
        builder.append(1, None, Some(b"value"), Headers::NONE).unwrap();
    }
    builder.finish()
}

/// Queues all batches in one moment; their answers in the same order.
async fn append_at_once(
    partition: &Rc<Partition>,
    batches: Vec<BytesMut>,
) -> Vec<Result<Appended, PartitionError>> {
    let queued: Vec<_> =
        batches.into_iter().map(|batch| spawn(partition.append(batch, true, false, None))).collect();
    let mut answers = Vec::new();
    for answer in queued {
        answers.push(answer.await);
    }
    answers
}

fn base_offsets(answers: &[Result<Appended, PartitionError>]) -> Vec<Option<i64>> {
    answers.iter().map(|answer| answer.as_ref().ok().map(|appended| appended.base_offset)).collect()
}

/// Counts the writes to segments from now on.
fn count_writes() -> (fault::FaultGuard, Rc<Cell<u32>>) {
    let writes = Rc::new(Cell::new(0));
    let seen = writes.clone();
    let plan = fault::install(move |operation, path, _| {
        if operation == Operation::Write && path.extension().is_some_and(|extension| extension == "log") {
            seen.set(seen.get() + 1);
        }
        Verdict::Pass
    });
    (plan, writes)
}

#[test]
fn appends_of_one_moment_are_written_together_and_answered_in_order() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let partition = partition(dir.path(), LogOptions::default()).await;
        let (_plan, writes) = count_writes();
        let answers = append_at_once(&partition, (0..5).map(|_| batch_of(None, 3)).collect()).await;
        assert_eq!(base_offsets(&answers), [Some(0), Some(3), Some(6), Some(9), Some(12)]);
        assert_eq!((partition.high_watermark(), writes.get()), (15, 1));
    });
}

#[test]
fn an_idempotent_producers_batches_share_a_write_and_their_repetition_gets_the_first_answer() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let partition = partition(dir.path(), LogOptions::default()).await;
        let (_plan, writes) = count_writes();
        let batch = |sequence| batch_of(Some((7, 0, sequence)), 2);
        let batches = vec![batch(0), batch(2), batch_of(None, 1), batch(4), batch(2), batch(6)];
        let answers = append_at_once(&partition, batches).await;
        assert_eq!(base_offsets(&answers), [Some(0), Some(2), Some(4), Some(5), Some(2), Some(7)]);
        assert_eq!((partition.log_end_offset(), writes.get()), (9, 2), "the repetition ends the first group");
    });
}

#[test]
fn a_gap_in_the_middle_of_a_group_is_refused_alone() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let partition = partition(dir.path(), LogOptions::default()).await;
        let batch = |epoch, sequence| batch_of(Some((7, epoch, sequence)), 1);
        let batches = vec![batch(1, 0), batch(1, 1), batch(1, 5), batch(1, 2), batch(0, 3), BytesMut::new()];
        let answers = append_at_once(&partition, batches).await;
        assert_eq!(base_offsets(&answers), [Some(0), Some(1), None, Some(2), None, None]);
        let refused = |answer: &Result<Appended, PartitionError>| answer.clone().err();
        assert!(matches!(
            refused(&answers[2]),
            Some(PartitionError::Producer(ProducerError::OutOfOrderSequence { sequence: 5, .. }))
        ));
        assert!(matches!(
            refused(&answers[4]),
            Some(PartitionError::Producer(ProducerError::InvalidEpoch { epoch: 0, .. }))
        ));
        assert!(matches!(refused(&answers[5]), Some(PartitionError::Invalid(_))));
    });
}

#[test]
fn a_batch_is_stored_under_the_codec_that_the_topic_asks_for() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let config = TopicConfig { compression_type: CompressionType::Zstd, ..TopicConfig::default() };
        let partition = partition_of(dir.path(), LogOptions::default(), config).await;
        let answers = append_at_once(&partition, (0..3).map(|_| batch_of(None, 100)).collect()).await;
        assert_eq!(base_offsets(&answers), [Some(0), Some(100), Some(200)]);
        let request = ReadRequest { offset: 0, end_offset: 300, max_bytes: 1 << 20, at_least_one: true };
        let view = partition.log().read(&request).await.unwrap();
        let mut values = Vec::new();
        for batch in view.chunks.iter().flat_map(|chunk| Batches::new(chunk)) {
            let batch = batch.unwrap();
            batch.check_crc().unwrap();
            assert_eq!(batch.header.compression().unwrap(), Compression::Zstd);
            record::for_each_record(batch.bytes, |record| {
                values.push((record.offset, record.value.unwrap().to_vec()));
                ControlFlow::Continue(())
            })
            .unwrap();
        }
        assert_eq!(values, (0..300).map(|offset| (offset, b"value".to_vec())).collect::<Vec<_>>());
    });
}

#[test]
fn a_group_ends_where_the_segment_does() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let batch_bytes = batch_of(None, 10).len();
        let options = LogOptions { segment_bytes: 3 * batch_bytes as u64 + 1, ..LogOptions::default() };
        let partition = partition(dir.path(), options).await;
        let answers = append_at_once(&partition, (0..7).map(|_| batch_of(None, 10)).collect()).await;
        assert!(answers.iter().all(Result::is_ok));
        let bases: Vec<_> = partition.log().segments().iter().map(|segment| segment.base_offset).collect();
        assert_eq!(bases, [0, 30, 60]);
    });
}

#[test]
fn a_group_that_cannot_be_written_is_refused_as_a_whole_and_the_next_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let partition = partition(dir.path(), LogOptions::default()).await;
        assert!(partition.append(batch_of(None, 1), true, false, None).await.is_ok());
        let plan = fault::install(|operation, _, _| match operation {
            Operation::Write => Verdict::Fail(libc::ENOSPC),
            _ => Verdict::Pass,
        });
        let answers = append_at_once(&partition, (0..3).map(|_| batch_of(None, 1)).collect()).await;
        assert!(
            answers.iter().all(|answer| matches!(answer, Err(PartitionError::Storage(_)))),
            "{answers:?}"
        );
        assert_eq!(partition.log_end_offset(), 1);
        drop(plan);
        let answers = append_at_once(&partition, (0..3).map(|_| batch_of(None, 1)).collect()).await;
        assert_eq!(base_offsets(&answers), [Some(1), Some(2), Some(3)]);
    });
}

#[test]
fn an_append_is_answered_once_the_flush_policy_of_its_topic_is_satisfied() {
    let policies = [(i64::MAX, [0, 0, 0, 0]), (3, [0, 0, 3, 3]), (1, [1, 2, 3, 4])];
    for (flush_messages, flushed_offsets) in policies {
        let dir = tempfile::tempdir().unwrap();
        block_on(async {
            let config = TopicConfig { flush_messages, ..TopicConfig::default() };
            let partition = partition_of(dir.path(), LogOptions::default(), config).await;
            for (end, flushed) in (1..).zip(flushed_offsets) {
                assert!(partition.append(batch_of(None, 1), true, false, None).await.is_ok());
                let found = (partition.high_watermark(), partition.log().flushed_offset());
                assert_eq!(found, (end, flushed), "flush.messages={flush_messages}");
            }
        });
    }
}

#[test]
fn a_gathered_append_is_in_the_log_before_others_get_their_turn() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let partition = partition(dir.path(), LogOptions::default()).await;
        let gathered = partition.append(batch_of(None, 2), true, true, None);
        assert_eq!(partition.high_watermark(), 2);
        let other = partition.append(batch_of(None, 1), true, false, None);
        let behind_it = partition.append(batch_of(None, 1), true, true, None);
        assert_eq!(partition.log_end_offset(), 2, "one that gathers is in front of it");
        let answers = [gathered.await, other.await, behind_it.await];
        assert_eq!(base_offsets(&answers), [Some(0), Some(2), Some(3)]);
    });
}
