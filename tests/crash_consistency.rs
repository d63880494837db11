//! The disk stops at each write and each sync in turn, then the power goes: every write that was not synced is taken
//! back, or kept, or kept in part. After the reopening nothing acknowledged is lost, what is there is whole, and the log
//! goes on.
//!
//! Acknowledged means by the policy in force: after `flush` where every append is flushed, after `wait_written` where the
//! process is killed but the power stays.

mod log_support;

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;

use log_support::{Setup, TestRecord, after_crash, append, open, read_from};
use logstreams::runtime::fault::{self, Operation, Verdict};
use logstreams::runtime::{self, block_on};
use logstreams::storage::{
    Log, LogCheckpoint, LogOptions, ShardStorageLimits, StartHint, StorageError, WritePath,
};

const VALUE_BYTES: usize = 700;

/// Small appends that roll often, or large ones in one segment, which prepared zeros run ahead of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    Small,
    Large,
}

impl Size {
    /// Enough for rolls, index files and snapshots; for zeros written ahead and data that catches up with them.
    fn appends(self) -> i64 {
        match self {
            Size::Small => 14,
            Size::Large => 6,
        }
    }

    fn value_bytes(self) -> usize {
        match self {
            Size::Small => VALUE_BYTES,
            Size::Large => 20_000,
        }
    }
}

fn setup(write_path: WritePath, size: Size) -> Setup {
    let options = LogOptions {
        segment_bytes: if size == Size::Small { 9_000 } else { 1 << 20 },
        index_interval_bytes: 500,
        write_path,
        dma_write_bytes: 8_192,
        ..LogOptions::default()
    };
    Setup { name: "crash", options, limits: ShardStorageLimits::default() }
}

/// What was there when the disk stopped.
struct Crashed {
    /// All that was appended, acknowledged or not.
    appended: Vec<TestRecord>,
    /// Everything before it was acknowledged.
    acknowledged: i64,
    /// What a shard would have written down last.
    checkpoint: Option<LogCheckpoint>,
}

/// Appends and acknowledges until an error or the end. With `flush_every`, every so many appends are flushed, and only
/// that acknowledges them; else what is written is acknowledged.
async fn work(log: &Log, flush_every: Option<i64>, size: Size) -> Crashed {
    let mut crashed = Crashed { appended: Vec::new(), acknowledged: 0, checkpoint: None };
    for number in 0..size.appends() {
        let Ok(records) = append(log, &[number * 10, number * 10 + 1], size.value_bytes()).await else {
            break;
        };
        crashed.appended.extend(records);
        let end = log.log_end_offset();
        let acknowledged = match flush_every {
            Some(every) if number % every != 0 => continue,
            Some(_) => log.flush().await.map(drop),
            None => log.wait_written(end).await,
        };
        if acknowledged.is_err() {
            break;
        }
        crashed.acknowledged = end;
        if number % 4 == 0 {
            crashed.checkpoint = Some(log.checkpoint());
        }
    }
    crashed
}

/// Reopens after the crash and holds it against what was acknowledged.
async fn check(setup: &Setup, dir: &Path, crashed: &Crashed, story: &str) {
    let log = open(setup, dir, after_crash(crashed.checkpoint)).await;
    let end = log.log_end_offset();
    assert!(end >= crashed.acknowledged, "{story}: lost {end}..{}", crashed.acknowledged);
    let found = read_from(&log, 0, 5_000).await;
    let (acknowledged, beyond) = found.split_at(crashed.acknowledged as usize);
    assert_eq!(acknowledged, &crashed.appended[..crashed.acknowledged as usize], "{story}");
    // Beyond that a power cut may leave a hole where one segment's bytes were lost and the next one's were not; what is
    // there is right, in order, and under its own offsets.
    assert!(beyond.is_sorted_by_key(|record| record.offset), "{story}");
    assert!(
        beyond.iter().all(|record| crashed.appended.get(record.offset as usize) == Some(record)),
        "{story}"
    );
    let more = append(&log, &[9_999], VALUE_BYTES).await.unwrap();
    assert_eq!(read_from(&log, end, 5_000).await, more, "{story}: the log goes on");
    assert_eq!(log.flush().await.unwrap(), end + 1, "{story}");
    let checkpoint = log.close().await.unwrap();
    let log = open(setup, dir, log_support::after_close(checkpoint)).await;
    assert_eq!(read_from(&log, 0, 5_000).await.len(), found.len() + 1, "{story}: and closes");
}

/// How the disk stops, and what of the unsynced writes survives.
#[derive(Debug, Clone, Copy)]
struct Story {
    write_path: WritePath,
    stops_at: Operation,
    number: u64,
    torn_at: Option<usize>,
    kept: Kept,
    flush_every: Option<i64>,
    size: Size,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// The process is killed, the power stays.
    All,
    /// A power cut takes all that was not synced.
    Nothing,
    /// A power cut takes every second write.
    Half,
}

/// Plays one story; whether the disk stopped at all.
async fn play(story: Story) -> bool {
    if std::env::var_os("STORIES").is_some() {
        eprintln!("{story:?}");
    }
    let dir = log_support::temporary_directory();
    let setup = setup(story.write_path, story.size);
    let (seen, stopped) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
    let log = open(&setup, dir.path(), StartHint::default()).await;
    let plan = {
        let (seen, stopped) = (seen.clone(), stopped.clone());
        fault::install(move |operation, _, _| {
            if stopped.get() {
                return if operation == Operation::Read { Verdict::Pass } else { Verdict::Fail(libc::EIO) };
            }
            if operation == story.stops_at {
                seen.set(seen.get() + 1);
                if seen.get() == story.number {
                    stopped.set(true);
                    return story.torn_at.map_or(Verdict::Fail(libc::EIO), Verdict::Torn);
                }
            }
            Verdict::Pass
        })
    };
    let crashed = work(&log, story.flush_every, story.size).await;
    log.settle().await;
    drop(log);
    runtime::sleep(std::time::Duration::from_millis(2)).await; // tasks that still hold the log end
    let mut number = 0;
    match story.kept {
        Kept::All => {}
        Kept::Nothing => plan.power_cut(|_, _| false).unwrap(),
        Kept::Half => plan
            .power_cut(|_, _| {
                number += 1;
                number % 2 == 0
            })
            .unwrap(),
    }
    drop(plan);
    check(&setup, dir.path(), &crashed, &format!("{story:?}")).await;
    stopped.get()
}

fn play_all(write_path: WritePath, size: Size) {
    block_on(async {
        for (kept, flush_every) in [
            (Kept::All, None),
            (Kept::Nothing, Some(1)),
            (Kept::Nothing, Some(4)),
            (Kept::Half, Some(1)),
            (Kept::Half, Some(4)),
        ] {
            for (stops_at, torn_at) in [
                (Operation::Write, None),
                (Operation::Write, Some(100)),
                (Operation::Write, Some(4_096)),
                (Operation::Sync, None),
                (Operation::Truncate, None),
            ] {
                let mut number = 1;
                while play(Story { write_path, stops_at, number, torn_at, kept, flush_every, size }).await {
                    number += 1;
                }
            }
        }
    });
}

#[test]
fn nothing_acknowledged_is_lost_with_the_page_cache() {
    play_all(WritePath::PageCache, Size::Small);
}

#[test]
fn nothing_acknowledged_is_lost_with_direct_writes() {
    play_all(WritePath::Dma, Size::Small);
}

#[test]
fn nothing_acknowledged_is_lost_with_direct_writes_behind_prepared_zeros() {
    play_all(WritePath::Dma, Size::Large);
}

#[test]
fn no_batch_of_a_failed_append_comes_back_to_life() {
    block_on(async {
        let dir = log_support::temporary_directory();
        let setup = setup(WritePath::PageCache, Size::Small);
        let log = open(&setup, dir.path(), StartHint::default()).await;
        let batch = |offset, timestamp| {
            let records = log_support::records(offset, &[timestamp], 100);
            (log_support::batch(&log, &records), records)
        };
        let (first, _) = batch(0, 1);
        let whole = first.bytes.len() * 2;
        let plan = fault::install(move |operation, _, _| match operation {
            Operation::Write => Verdict::Torn(whole),
            _ => Verdict::Pass,
        });
        // Two of three batches reach the file before the disk fails.
        let refused = log.append(vec![first, batch(1, 2).0, batch(2, 3).0], 0).await;
        assert!(refused.is_err() && log.log_end_offset() == 0);
        drop(plan);
        let (other, expected) = batch(0, 77);
        log.append(vec![other], 0).await.unwrap();
        drop(log);
        let log = open(&setup, dir.path(), after_crash(None)).await;
        assert_eq!(read_from(&log, 0, 5_000).await, expected);
    });
}

#[test]
fn a_full_disk_refuses_appends_and_the_log_goes_on_when_there_is_room() {
    for write_path in [WritePath::PageCache, WritePath::Dma] {
        block_on(async {
            let dir = log_support::temporary_directory();
            let log = open(&setup(write_path, Size::Small), dir.path(), StartHint::default()).await;
            let mut expected = append(&log, &[1, 2], VALUE_BYTES).await.unwrap();
            log.wait_written(2).await.unwrap();
            let plan = fault::install(|operation, _, _| match operation {
                Operation::Write => Verdict::Fail(libc::ENOSPC),
                _ => Verdict::Pass,
            });
            let mut refused = 0;
            for _ in 0..5 {
                // With direct writes the first append is taken and fails later; it is not acknowledged.
                match append(&log, &[3, 4], VALUE_BYTES).await {
                    Ok(records) => {
                        expected.extend(records);
                        let unwritten = log.wait_written(log.log_end_offset()).await;
                        assert!(matches!(unwritten, Err(StorageError::DiskFull { .. })), "{unwritten:?}");
                    }
                    Err(error) => {
                        assert!(matches!(error, StorageError::DiskFull { .. }), "{error}");
                        refused += 1;
                    }
                }
            }
            assert!(refused >= 4 && log.written_offset() == 2, "{write_path:?}");
            assert_eq!(read_from(&log, 0, 5_000).await, expected, "reads go on");
            drop(plan);
            expected.extend(append(&log, &[5, 6], VALUE_BYTES).await.unwrap());
            assert_eq!(log.flush().await.unwrap(), log.log_end_offset());
            drop(log);
            let log = open(&setup(write_path, Size::Small), dir.path(), after_crash(None)).await;
            assert_eq!(read_from(&log, 0, 5_000).await, expected, "{write_path:?}");
        });
    }
}

#[test]
fn after_a_failed_sync_the_log_is_offline_until_it_is_opened_again() {
    block_on(async {
        let dir = log_support::temporary_directory();
        let setup = setup(WritePath::PageCache, Size::Small);
        let log = open(&setup, dir.path(), StartHint::default()).await;
        let expected = append(&log, &[1, 2], VALUE_BYTES).await.unwrap();
        let plan = fault::install(|operation, _, _| match operation {
            Operation::Sync => Verdict::Fail(libc::EIO),
            _ => Verdict::Pass,
        });
        assert!(log.flush().await.is_err());
        drop(plan);
        assert!(matches!(log.flush().await, Err(StorageError::Offline { .. })));
        assert!(matches!(append(&log, &[3], VALUE_BYTES).await, Err(StorageError::Offline { .. })));
        assert_eq!(read_from(&log, 0, 5_000).await, expected, "reads go on");
        assert!(log.close().await.is_err(), "not a clean stop");
        let log = open(&setup, dir.path(), after_crash(None)).await;
        append(&log, &[3], VALUE_BYTES).await.unwrap();
        assert_eq!(log.flush().await.unwrap(), 3);
    });
}
