//! The two decision tables of recovery: every situation hits exactly one row, and the directory on the disk ends up as
//! the row says.

mod log_support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use log_support::{Setup, TestRecord, after_close, after_crash, append, open, read_from};
use logstreams::runtime::block_on;
use logstreams::storage::recovery::{
    CheckpointState, Found, LastStop, LookAt, REPAIR_TABLE, Repair, START_TABLE, look_at, repair,
};
use logstreams::storage::{LogCheckpoint, LogOptions, ShardStorageLimits, StartHint};

const STOPS: [LastStop; 2] = [LastStop::Clean, LastStop::Unclean];
const CHECKPOINTS: [CheckpointState; 4] =
    [CheckpointState::Missing, CheckpointState::WithoutEnd, CheckpointState::Fits, CheckpointState::Differs];
const FOUND: [Found; 4] = [Found::Nothing, Found::Zeros, Found::DamageBehind, Found::DamageBefore];

#[test]
fn every_start_hits_exactly_one_row() {
    for stop in STOPS {
        for checkpoint in CHECKPOINTS {
            let rows = START_TABLE.iter().filter(|row| row.matches(stop, checkpoint)).count();
            assert_eq!(rows, 1, "{stop:?} {checkpoint:?}");
        }
    }
}

#[test]
fn every_finding_hits_exactly_one_row() {
    for found in FOUND {
        for segments_behind in [false, true] {
            let rows = REPAIR_TABLE
                .iter()
                .filter(|row| row.found == found && row.segments_behind == segments_behind)
                .count();
            assert_eq!(rows, 1, "{found:?} {segments_behind}");
        }
    }
}

#[test]
fn nothing_durable_is_ever_cut_and_only_a_clean_stop_goes_without_a_look() {
    for segments_behind in [false, true] {
        assert_eq!(repair(Found::DamageBefore, segments_behind), Repair::SetAside);
    }
    for checkpoint in CHECKPOINTS {
        assert_ne!(look_at(LastStop::Unclean, checkpoint), LookAt::Nothing);
    }
}

fn setup() -> Setup {
    let options = LogOptions { segment_bytes: 5_000, index_interval_bytes: 500, ..LogOptions::default() };
    // Nothing cached: what is read comes from the files.
    let limits = ShardStorageLimits { tail_cache_bytes: 0, ..ShardStorageLimits::default() };
    Setup { name: "recovery", options, limits }
}

/// A closed log of 20 batches of 2 records in several segments, and its checkpoint.
async fn closed_log(dir: &Path) -> (Vec<TestRecord>, LogCheckpoint) {
    let log = open(&setup(), dir, StartHint::default()).await;
    let mut records = Vec::new();
    for number in 0..20 {
        records.extend(append(&log, &[number * 10, number * 10 + 1], 400).await.unwrap());
    }
    let checkpoint = log.close().await.unwrap();
    (records, checkpoint)
}

/// The `.log` files, oldest first.
fn log_files(dir: &Path) -> Vec<PathBuf> {
    files(dir, ".log")
}

fn files(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("orders-0")).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries.filter(|path| path.to_str().unwrap().ends_with(suffix)).collect();
    found.sort();
    found
}

fn flip(path: &Path, position: u64) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, position).unwrap();
    file.write_all_at(&[byte[0] ^ 0xff], position).unwrap();
}

fn append_bytes(path: &Path, bytes: &[u8]) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(bytes, file.metadata().unwrap().len()).unwrap();
}

fn base_offset(path: &Path) -> i64 {
    path.file_stem().unwrap().to_str().unwrap().parse().unwrap()
}

#[test]
fn a_clean_stop_with_a_fitting_checkpoint_is_believed_without_a_look() {
    block_on(async {
        let dir = log_support::temporary_directory();
        let (records, checkpoint) = closed_log(dir.path()).await;
        let active = log_files(dir.path()).pop().unwrap();
        flip(&active, 100); // would be noticed by any look at checksums
        let log = open(&setup(), dir.path(), after_close(checkpoint)).await;
        assert_eq!(log.log_end_offset(), records.len() as i64);
        assert_eq!(log.leader_epoch(), 0);
    });
}

#[test]
fn a_clean_stop_whose_checkpoint_does_not_fit_is_looked_at() {
    block_on(async {
        let dir = log_support::temporary_directory();
        let (records, checkpoint) = closed_log(dir.path()).await;
        append_bytes(&log_files(dir.path()).pop().unwrap(), b"what is this");
        let log = open(&setup(), dir.path(), after_close(checkpoint)).await;
        assert_eq!(read_from(&log, 0, 3_000).await, records);
    });
}

#[test]
fn a_directory_that_kafka_closed_opens_by_the_headers_at_its_end() {
    block_on(async {
        let dir = log_support::temporary_directory();
        let (records, checkpoint) = closed_log(dir.path()).await;
        for known in [Some(LogCheckpoint { end: None, ..checkpoint }), None] {
            let start = StartHint { clean_shutdown: true, checkpoint: known, topic_id: None };
            let log = open(&setup(), dir.path(), start).await;
            assert_eq!((log.log_end_offset(), log.leader_epoch()), (records.len() as i64, 0));
            assert_eq!(read_from(&log, 0, 3_000).await, records);
        }
    });
}

#[test]
fn without_a_checkpoint_everything_is_looked_at_and_lost_indexes_are_rebuilt() {
    block_on(async {
        let dir = log_support::temporary_directory();
        let (records, _) = closed_log(dir.path()).await;
        let before: Vec<_> = files(dir.path(), "index").iter().map(|path| fs::read(path).unwrap()).collect();
        let indexes = files(dir.path(), "index");
        for (number, path) in indexes.iter().enumerate() {
            match number % 3 {
                0 => fs::remove_file(path).unwrap(),
                1 => fs::write(path, [0xff; 21]).unwrap(),
                _ => fs::write(path, vec![0; 10 * 1024]).unwrap(), // as Kafka preallocates
            }
        }
        let log = open(&setup(), dir.path(), after_crash(None)).await;
        assert_eq!(read_from(&log, 0, 3_000).await, records);
        log.close().await.unwrap();
        let after: Vec<_> = indexes.iter().map(|path| fs::read(path).unwrap()).collect();
        assert_eq!(after, before, "rebuilt as they were");
    });
}

#[test]
fn a_torn_tail_is_cut_and_the_log_goes_on_in_a_new_epoch() {
    block_on(async {
        let dir = log_support::temporary_directory();
        let (mut records, checkpoint) = closed_log(dir.path()).await;
        let active = log_files(dir.path()).pop().unwrap();
        let length = fs::metadata(&active).unwrap().len();
        fs::File::options().write(true).open(&active).unwrap().set_len(length - 7).unwrap();
        let synced = LogCheckpoint { recovery_point: 30, end: None, ..checkpoint };
        let log = open(&setup(), dir.path(), after_crash(Some(synced))).await;
        assert_eq!(log.log_end_offset(), 38);
        records.truncate(38);
        assert_eq!(read_from(&log, 0, 3_000).await, records);
        assert_eq!((log.leader_epoch(), log.end_offset_for_leader_epoch(0)), (1, (0, 38)));
        assert!(files(dir.path(), ".set-aside").is_empty());
        records.extend(append(&log, &[777], 10).await.unwrap());
        assert_eq!(read_from(&log, 0, 3_000).await, records);
    });
}

#[test]
fn prepared_zeros_are_trimmed() {
    block_on(async {
        let dir = log_support::temporary_directory();
        let (records, checkpoint) = closed_log(dir.path()).await;
        let active = log_files(dir.path()).pop().unwrap();
        let length = fs::metadata(&active).unwrap().len();
        append_bytes(&active, &[0; 100_000]);
        let log = open(&setup(), dir.path(), after_crash(Some(checkpoint))).await;
        assert_eq!(read_from(&log, 0, 3_000).await, records);
        assert_eq!(fs::metadata(&active).unwrap().len(), length);
    });
}

#[test]
fn damage_before_the_recovery_point_is_set_aside_and_no_offset_is_given_out_twice() {
    block_on(async {
        let dir = log_support::temporary_directory();
        let (records, checkpoint) = closed_log(dir.path()).await;
        let active = log_files(dir.path()).pop().unwrap();
        let before = fs::read(&active).unwrap();
        let (start, second) = (base_offset(&active) as usize, 2 * (61 + 400 + 400));
        flip(&active, 16); // the magic byte of its first batch: found even without checksums
        let log =
            open(&setup(), dir.path(), after_crash(Some(LogCheckpoint { end: None, ..checkpoint }))).await;
        assert_eq!(log.log_end_offset(), 40);
        let mut expected = records[..start].to_vec();
        assert_eq!(read_from(&log, 0, 3_000).await, expected);
        let aside = files(dir.path(), ".set-aside");
        assert_eq!(aside.len(), 1);
        let kept = fs::read(&aside[0]).unwrap();
        assert_eq!((kept.len(), &kept[second..]), (before.len(), &before[second..]), "nothing was deleted");
        expected.extend(append(&log, &[777], 10).await.unwrap());
        assert_eq!(expected.last().unwrap().offset, 40);
        let checkpoint = log.close().await.unwrap();
        let log = open(&setup(), dir.path(), after_close(checkpoint)).await;
        assert_eq!(read_from(&log, 0, 3_000).await, expected, "reads go over the gap");
        assert_eq!(read_from(&log, start as i64 + 1, 3_000).await.len(), 1);
    });
}

#[test]
fn a_hole_with_segments_behind_it_is_set_aside_with_them() {
    block_on(async {
        let dir = log_support::temporary_directory();
        let (records, _) = closed_log(dir.path()).await;
        let logs = log_files(dir.path());
        let second = base_offset(&logs[1]) as usize;
        flip(&logs[1], 200);
        let log = open(&setup(), dir.path(), after_crash(None)).await;
        assert_eq!(log.log_end_offset(), 40, "behind all that was there");
        assert_eq!(read_from(&log, 0, 3_000).await, records[..second]);
        assert_eq!(log_files(dir.path()).len(), 3, "the prefix, the emptied one, the new one");
        assert_eq!(files(dir.path(), ".log.set-aside").len(), logs.len() - 2);
        append(&log, &[777], 10).await.unwrap();
        assert_eq!(read_from(&log, 0, 3_000).await.len(), second + 1);
    });
}

#[test]
fn a_file_that_ends_before_the_recovery_point_is_damage_too() {
    block_on(async {
        let dir = log_support::temporary_directory();
        let (records, checkpoint) = closed_log(dir.path()).await;
        let active = log_files(dir.path()).pop().unwrap();
        fs::File::options().write(true).open(&active).unwrap().set_len(0).unwrap();
        let log = open(&setup(), dir.path(), after_crash(Some(checkpoint))).await;
        assert_eq!(log.log_end_offset(), 40);
        assert_eq!(read_from(&log, 0, 3_000).await, records[..base_offset(&active) as usize]);
    });
}

#[test]
fn a_lost_directory_goes_on_behind_what_the_checkpoint_knew() {
    block_on(async {
        let dir = log_support::temporary_directory();
        let (_, checkpoint) = closed_log(dir.path()).await;
        fs::remove_dir_all(dir.path().join("orders-0")).unwrap();
        let log = open(&setup(), dir.path(), after_crash(Some(checkpoint))).await;
        assert_eq!((log.log_start_offset(), log.log_end_offset()), (40, 40));
        append(&log, &[1], 10).await.unwrap();
        drop(log);
        let log = open(&setup(), dir.path(), after_crash(None)).await;
        assert_eq!((log.log_start_offset(), log.log_end_offset()), (40, 41));
    });
}
