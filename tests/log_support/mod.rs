//! What the tests of the log share: batches whose contents follow from their offsets, and ways to open and read.
#![allow(dead_code)] // each test file uses a part

use std::ops::ControlFlow;
use std::path::Path;
use std::rc::Rc;

use logstreams::model::{Offset, TopicName, TopicPartition};
use logstreams::record::{self, BatchBuilder, BatchHeader, Compression, Headers};
use logstreams::storage::{
    AppendBatch, Log, LogCheckpoint, LogOptions, ReadRequest, ShardStorage, ShardStorageLimits, StartHint,
    StorageError,
};

/// A record as the tests know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestRecord {
    pub offset: Offset,
    pub timestamp: i64,
    pub value: Vec<u8>,
}

/// One way to set up a log.
#[derive(Debug, Clone)]
pub struct Setup {
    pub name: &'static str,
    pub options: LogOptions,
    pub limits: ShardStorageLimits,
}

/// A directory on the real file system: direct writes do not work on a tmpfs.
pub fn temporary_directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Takes the files of a directory out of the page cache, as far as the file system does that.
pub fn forget_pages(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let file = std::fs::File::open(entry.unwrap().path()).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
}

pub fn topic_partition() -> TopicPartition {
    TopicPartition::new(TopicName::new("orders").unwrap(), 0)
}

pub async fn open(setup: &Setup, dir: &Path, start: StartHint) -> Log {
    let shared = ShardStorage::new(setup.limits.clone());
    open_shared(setup, dir, shared, start).await
}

pub async fn open_shared(setup: &Setup, dir: &Path, shared: Rc<ShardStorage>, start: StartHint) -> Log {
    let dir = dir.join("orders-0");
    Log::open(topic_partition(), dir, setup.options.clone(), shared, start, 0).await.unwrap()
}

/// What a start after a crash knows: the last checkpoint, and no clean stop.
pub fn after_crash(checkpoint: Option<LogCheckpoint>) -> StartHint {
    StartHint { clean_shutdown: false, checkpoint, topic_id: None }
}

/// What a start after a clean stop knows.
pub fn after_close(checkpoint: LogCheckpoint) -> StartHint {
    StartHint { clean_shutdown: true, checkpoint: Some(checkpoint), topic_id: None }
}

/// The records that a batch of `timestamps` at `offset` holds.
pub fn records(offset: Offset, timestamps: &[i64], value_bytes: usize) -> Vec<TestRecord> {
    let records = timestamps.iter().zip(offset..);
    records
        .map(|(&timestamp, offset)| {
            let value = (0..value_bytes).map(|place| (offset as usize * 31 + place) as u8).collect();
            TestRecord { offset, timestamp, value }
        })
        .collect()
}

/// A batch of these records.
pub fn batch(log: &Log, records: &[TestRecord]) -> AppendBatch {
    let mut builder =
        BatchBuilder::new(Compression::None).with_base_offset(records[0].offset, log.leader_epoch());
    for record in records {
        builder.append(record.timestamp, None, Some(&record.value), Headers::NONE).unwrap();
    }
    let bytes = builder.finish().freeze();
    let header = BatchHeader::parse(&bytes).unwrap();
    AppendBatch { bytes, header }
}

/// Appends one batch at the end of the log.
pub async fn append(
    log: &Log,
    timestamps: &[i64],
    value_bytes: usize,
) -> Result<Vec<TestRecord>, StorageError> {
    let records = records(log.log_end_offset(), timestamps, value_bytes);
    log.append(vec![batch(log, &records)], timestamps[0]).await?;
    Ok(records)
}

/// All records from `offset` on, read in steps of `max_bytes`, with every checksum checked.
pub async fn read_from(log: &Log, offset: Offset, max_bytes: usize) -> Vec<TestRecord> {
    let mut found = Vec::new();
    let mut at = offset;
    loop {
        let request =
            ReadRequest { offset: at, end_offset: log.log_end_offset(), max_bytes, at_least_one: true };
        let view = log.read(&request).await.unwrap();
        if view.is_empty() {
            return found;
        }
        for batch in view.chunks.iter().flat_map(|chunk| record::Batches::new(chunk)) {
            let batch = batch.unwrap();
            batch.check_crc().unwrap();
            record::for_each_record(batch.bytes, |record| {
                if record.offset >= offset {
                    let value = record.value.unwrap().to_vec();
                    found.push(TestRecord { offset: record.offset, timestamp: record.timestamp, value });
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        }
        assert!(view.next_offset > at);
        at = view.next_offset;
    }
}
