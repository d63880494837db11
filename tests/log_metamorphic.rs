//! The same work under many odd settings must be answered alike: direct writes or page cache, a segment cache of one,
//! tiny segments, no tail cache, an index entry per batch or none at all, one descriptor for all.

mod log_support;

use log_support::{Setup, after_close, after_crash, append, open, read_from};
use logstreams::runtime::block_on;
use logstreams::storage::{LogOptions, ShardStorageLimits, StartHint, WritePath};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Append { timestamps: Vec<i64>, value_bytes: usize },
    Read { place: f64, max_bytes: usize },
    FindTimestamp { timestamp: i64 },
    MaxTimestamp,
    DeleteBefore { place: f64 },
    Flush,
    Restart,
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    let timestamps = prop::collection::vec(0..1_000i64, 1..10);
    let sizes = prop_oneof![0..300usize, 3_000..9_000usize];
    prop_oneof![
        8 => (timestamps, sizes).prop_map(|(timestamps, value_bytes)| Step::Append { timestamps, value_bytes }),
        4 => (0.0..1.0f64, 1..100_000usize).prop_map(|(place, max_bytes)| Step::Read { place, max_bytes }),
        1 => (0..1_100i64).prop_map(|timestamp| Step::FindTimestamp { timestamp }),
        1 => Just(Step::MaxTimestamp),
        1 => (0.0..1.0f64).prop_map(|place| Step::DeleteBefore { place }),
        1 => Just(Step::Flush),
        1 => Just(Step::Restart),
        1 => Just(Step::Kill),
    ]
}

fn setups() -> Vec<Setup> {
    let plain = LogOptions { file_delete_delay_ms: 0, ..LogOptions::default() };
    let limits = ShardStorageLimits::default();
    let no_tail = ShardStorageLimits { tail_cache_bytes: 0, ..limits.clone() };
    let tight = ShardStorageLimits {
        tail_cache_bytes: 20_000,
        segment_cache_count: 1,
        segment_cache_bytes: 1,
        cold_read_bytes: 0,
        active_open_count: 1,
    };
    let dma = LogOptions { write_path: WritePath::Dma, ..plain.clone() };
    let tiny = |options: &LogOptions| LogOptions { segment_bytes: 10_000, ..options.clone() };
    let setup = |name, options, limits: &ShardStorageLimits| Setup { name, options, limits: limits.clone() };
    vec![
        setup("plain", plain.clone(), &limits),
        setup("no tail cache", plain.clone(), &no_tail),
        setup("tiny segments, tight caches", tiny(&plain), &tight),
        setup("an index entry per batch", LogOptions { index_interval_bytes: 0, ..tiny(&plain) }, &no_tail),
        setup("no index entries", LogOptions { index_interval_bytes: 1 << 40, ..plain.clone() }, &no_tail),
        setup("direct writes", dma.clone(), &limits),
        setup(
            "direct writes, one block at a time",
            LogOptions { dma_write_bytes: 4_096, ..dma.clone() },
            &no_tail,
        ),
        setup("direct writes, tiny segments", tiny(&dma), &tight),
    ]
}

/// Does the work and notes every answer.
async fn transcript(setup: &Setup, steps: &[Step]) -> Vec<String> {
    let dir = log_support::temporary_directory();
    let mut log = open(setup, dir.path(), StartHint::default()).await;
    let mut answers = Vec::new();
    let place = |log: &logstreams::storage::Log, place: f64| {
        let (start, end) = (log.log_start_offset(), log.log_end_offset());
        start + ((end - start) as f64 * place) as i64
    };
    for step in steps {
        let answer = match step {
            Step::Append { timestamps, value_bytes } => {
                format!("{:?}", append(&log, timestamps, *value_bytes).await.unwrap().len())
            }
            Step::Read { place: at, max_bytes } => {
                format!("{:?}", read_from(&log, place(&log, *at), *max_bytes).await)
            }
            Step::FindTimestamp { timestamp } => {
                let found = log.offset_for_timestamp(*timestamp, log.log_end_offset()).await;
                format!("{:?}", found.unwrap().map(|found| (found.offset, found.timestamp)))
            }
            Step::MaxTimestamp => {
                // Where the front was cut inside a batch the answer may depend on the segments, as in Kafka.
                let found = log.max_timestamp(log.log_end_offset()).await.unwrap();
                if log.log_start_offset() == 0 { format!("{found:?}") } else { String::new() }
            }
            Step::DeleteBefore { place: at } => {
                format!("{:?}", log.delete_records_before(place(&log, *at)).await.unwrap())
            }
            Step::Flush => format!("{:?}", log.flush().await.unwrap()),
            Step::Restart => {
                let checkpoint = log.close().await.unwrap();
                log = open(setup, dir.path(), after_close(checkpoint)).await;
                String::new()
            }
            Step::Kill => {
                log.wait_written(log.log_end_offset()).await.unwrap();
                log.settle().await; // a killed process has no writes under way either
                let checkpoint = log.checkpoint();
                log = open(setup, dir.path(), after_crash(Some(checkpoint))).await;
                String::new()
            }
        };
        answers.push(format!("{step:?}: {answer} [{}, {})", log.log_start_offset(), log.log_end_offset()));
    }
    answers.push(format!("{:?}", read_from(&log, log.log_start_offset(), 50_000).await));
    answers.push(format!("epoch {}", log.leader_epoch()));
    log.close().await.unwrap();
    answers
}

/// Does the work under all settings; every answer must be that of the plain ones.
fn assert_alike(steps: &[Step]) {
    let setups = setups();
    let (plain, odd) = setups.split_first().unwrap();
    block_on(async {
        let expected = transcript(plain, steps).await;
        for setup in odd {
            assert_eq!(transcript(setup, steps).await, expected, "{}", setup.name);
        }
    });
}

#[test]
fn a_log_that_nobody_writes_to_has_the_same_epoch_under_all_settings() {
    assert_alike(&[Step::Kill, Step::Restart, Step::Restart, Step::Kill, Step::Restart, Step::Kill]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn settings_change_no_answer(steps in prop::collection::vec(step(), 1..40)) {
        assert_alike(&steps);
    }
}
