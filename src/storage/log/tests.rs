//! The log on a real directory: append, read, roll, reopen, retention, flush.

use std::ops::ControlFlow;
use std::path::Path;

use super::*;
use crate::model::TopicName;
use crate::record::{self, BatchBuilder, Compression, Headers};
use crate::runtime::block_on;
use crate::storage::ShardStorageLimits;

pub(super) fn orders() -> TopicPartition {
    TopicPartition::new(TopicName::new("orders").unwrap(), 0)
}

/// A batch of `count` records of about `value_bytes` each, with timestamps `timestamp`, `timestamp + 1`, ...
pub(super) fn batch(log: &Log, count: i64, value_bytes: usize, timestamp: i64) -> AppendBatch {
    let offset = log.log_end_offset();
    let mut builder = BatchBuilder::new(Compression::None).with_base_offset(offset, log.leader_epoch());
    for number in 0..count {
        let value = vec![(offset + number) as u8; value_bytes];
        builder.append(timestamp + number, None, Some(&value), Headers::NONE).unwrap();
    }
    let bytes = builder.finish().freeze();
    let header = BatchHeader::parse(&bytes).unwrap();
    AppendBatch { bytes, header }
}

pub(super) async fn append(log: &Log, count: i64, value_bytes: usize, timestamp: i64) -> Appended {
    log.append(vec![batch(log, count, value_bytes, timestamp)], timestamp).await.unwrap()
}

pub(super) async fn open_with(dir: &Path, options: LogOptions, start: StartHint) -> Log {
    let shared = ShardStorage::new(ShardStorageLimits::default());
    open_shared(dir, options, shared, start).await
}

pub(super) async fn open_shared(
    dir: &Path,
    options: LogOptions,
    shared: Rc<ShardStorage>,
    start: StartHint,
) -> Log {
    Log::open(orders(), dir.join("orders-0"), options, shared, start, 0).await.unwrap()
}

/// The offsets of all records from `offset` on.
pub(super) async fn offsets_from(log: &Log, mut offset: Offset) -> Vec<Offset> {
    let mut offsets = Vec::new();
    let wanted = offset;
    loop {
        let request =
            ReadRequest { offset, end_offset: log.log_end_offset(), max_bytes: 10_000, at_least_one: true };
        let view = log.read(&request).await.unwrap();
        if view.is_empty() {
            offsets.retain(|offset| *offset >= wanted);
            return offsets;
        }
        for batch in view.chunks.iter().flat_map(|chunk| record::Batches::new(chunk)) {
            let batch = batch.unwrap();
            batch.check_crc().unwrap();
            record::for_each_record(batch.bytes, |record| {
                offsets.push(record.offset);
                ControlFlow::Continue(())
            })
            .unwrap();
        }
        assert!(view.next_offset > offset);
        offset = view.next_offset;
    }
}

fn small_segments() -> LogOptions {
    LogOptions { segment_bytes: 4_000, index_interval_bytes: 500, ..LogOptions::default() }
}

#[test]
fn batches_are_read_back_across_segments_from_the_middle_of_a_batch() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let limits = ShardStorageLimits { tail_cache_bytes: 1_000, ..ShardStorageLimits::default() };
        let log =
            open_shared(dir.path(), small_segments(), ShardStorage::new(limits), StartHint::default()).await;
        for number in 0..50 {
            append(&log, 10, 50, number * 100).await;
        }
        assert!(log.segments().len() > 5);
        assert_eq!(log.log_end_offset(), 500);
        assert_eq!(offsets_from(&log, 0).await, (0..500).collect::<Vec<_>>());
        assert_eq!(offsets_from(&log, 123).await, (123..500).collect::<Vec<_>>());
        let request = ReadRequest { offset: 123, end_offset: 500, max_bytes: 1, at_least_one: true };
        assert_eq!(log.read(&request).await.unwrap().next_offset, 130);
        let beyond = ReadRequest { offset: 501, ..request };
        assert!(matches!(log.read(&beyond).await, Err(StorageError::OffsetOutOfRange { .. })));
    });
}

#[test]
fn a_log_that_was_just_dropped_comes_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let log = open_with(dir.path(), small_segments(), StartHint::default()).await;
        for number in 0..30 {
            append(&log, 10, 50, number * 100).await;
        }
        let segments = log.segments();
        drop(log);
        let log = open_with(dir.path(), small_segments(), StartHint::default()).await;
        assert_eq!(log.log_end_offset(), 300);
        assert_eq!(offsets_from(&log, 0).await, (0..300).collect::<Vec<_>>());
        assert_eq!(log.segments().len(), segments.len());
        assert_eq!(log.leader_epoch(), 1, "a new life after an unclean stop");
        append(&log, 10, 50, 5_000).await;
        assert_eq!(offsets_from(&log, 290).await, (290..310).collect::<Vec<_>>());
        assert_eq!(log.end_offset_for_leader_epoch(0), (0, 300));
    });
}

#[test]
fn a_log_that_was_closed_opens_without_a_look() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let log = open_with(dir.path(), small_segments(), StartHint::default()).await;
        for number in 0..30 {
            append(&log, 10, 50, number * 100).await;
        }
        let checkpoint = log.close().await.unwrap();
        assert!(matches!(log.check_online(), Err(StorageError::Closed { .. })));
        let start = StartHint { clean_shutdown: true, checkpoint: Some(checkpoint), topic_id: None };
        let log = open_with(dir.path(), small_segments(), start).await;
        assert_eq!((log.log_end_offset(), log.flushed_offset(), log.leader_epoch()), (300, 300, 0));
        assert_eq!(offsets_from(&log, 5).await, (5..300).collect::<Vec<_>>());
        append(&log, 10, 50, 5_000).await;
        assert_eq!(log.log_end_offset(), 310);
        let found = log.offset_for_timestamp(1_205, 310).await.unwrap().unwrap();
        assert_eq!((found.offset, found.timestamp), (125, 1_205));
        assert_eq!(log.max_timestamp(310).await.unwrap().unwrap().offset, 309);
        assert_eq!(log.max_timestamp(300).await.unwrap().unwrap().offset, 299);
        assert_eq!(log.offset_for_timestamp(9_999, 310).await.unwrap(), None);
    });
}

#[test]
fn a_sync_of_many_logs_covers_what_was_written_when_it_began() {
    let dir = tempfile::tempdir().unwrap();
    block_on(async {
        let log = open_with(dir.path(), LogOptions::default(), StartHint::default()).await;
        append(&log, 3, 10, 1_000).await;
        assert!(log.needs_sync());
        let failed = log.begin_sync();
        log.end_sync(failed, false);
        assert_eq!((log.needs_sync(), log.flushed_offset(), log.dirty_since_ms()), (true, 0, Some(1_000)));

        let cover = log.begin_sync();
        append(&log, 2, 10, 2_000).await;
        log.end_sync(cover, true);
        // What came meanwhile waits for a sync of its own, from its own time on.
        assert_eq!((log.needs_sync(), log.flushed_offset(), log.dirty_since_ms()), (true, 3, Some(2_000)));

        let cover = log.begin_sync();
        log.end_sync(cover, true);
        assert_eq!((log.needs_sync(), log.flushed_offset(), log.dirty_since_ms()), (false, 5, None));
    });
}
