//! Random work on a log against a plain `Vec`: appends, reads, lookups by time, truncation of the front, rolls, clean
//! restarts and kills (the log is dropped, nothing is closed). Whatever the order, the log answers like the `Vec`.

mod log_support;

use log_support::{Setup, TestRecord, after_close, after_crash, append, open, read_from, records};
use logstreams::runtime::block_on;
use logstreams::storage::{Log, LogOptions, ReadRequest, ShardStorageLimits, StartHint, StorageError};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Append {
        timestamps: Vec<i64>,
        value_bytes: usize,
    },
    AppendTwo {
        value_bytes: usize,
    },
    Read {
        place: f64,
        max_bytes: usize,
    },
    FindTimestamp {
        timestamp: i64,
    },
    FindMaxTimestamp,
    DeleteBefore {
        place: f64,
    },
    Flush,
    Roll,
    /// Memory forgets what is on the disk.
    Cool,
    Restart,
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    let timestamps = prop::collection::vec(0..1_000i64, 1..20);
    prop_oneof![
        8 => (timestamps, 0..400usize).prop_map(|(timestamps, value_bytes)| Step::Append { timestamps, value_bytes }),
        1 => (0..9_000usize).prop_map(|value_bytes| Step::AppendTwo { value_bytes }),
        4 => (0.0..1.1f64, 1..20_000usize).prop_map(|(place, max_bytes)| Step::Read { place, max_bytes }),
        2 => (0..1_100i64).prop_map(|timestamp| Step::FindTimestamp { timestamp }),
        1 => Just(Step::FindMaxTimestamp),
        1 => (0.0..1.0f64).prop_map(|place| Step::DeleteBefore { place }),
        1 => Just(Step::Flush),
        1 => Just(Step::Roll),
        2 => Just(Step::Cool),
        1 => Just(Step::Restart),
        1 => Just(Step::Kill),
    ]
}

/// What the log must hold.
#[derive(Default)]
struct Model {
    records: Vec<TestRecord>,
    start: i64,
}

impl Model {
    fn end(&self) -> i64 {
        self.records.len() as i64
    }

    fn place(&self, place: f64) -> i64 {
        self.start + ((self.end() - self.start) as f64 * place) as i64
    }

    fn from(&self, offset: i64) -> &[TestRecord] {
        &self.records[offset as usize..]
    }
}

fn setup() -> Setup {
    let options = LogOptions {
        segment_bytes: 6_000,
        index_interval_bytes: 300,
        file_delete_delay_ms: 0,
        ..LogOptions::default()
    };
    let limits = ShardStorageLimits {
        tail_cache_bytes: 8_000,
        segment_cache_count: 2,
        segment_cache_bytes: 1 << 20,
        cold_read_bytes: 3 << 20,
        active_open_count: 1,
    };
    Setup { name: "small", options, limits }
}

async fn run(steps: Vec<Step>) {
    let dir = log_support::temporary_directory();
    let setup = setup();
    let mut log = open(&setup, dir.path(), StartHint::default()).await;
    let mut model = Model::default();
    for step in steps {
        take(&setup, dir.path(), &mut log, &mut model, step).await;
        assert_eq!((log.log_start_offset(), log.log_end_offset()), (model.start, model.end()));
        assert!(log.flushed_offset() <= log.written_offset() && log.written_offset() <= log.log_end_offset());
    }
    assert_eq!(read_from(&log, model.start, 3_000).await, model.from(model.start));
}

async fn take(setup: &Setup, dir: &std::path::Path, log: &mut Log, model: &mut Model, step: Step) {
    match step {
        Step::Append { timestamps, value_bytes } => {
            model.records.extend(append(log, &timestamps, value_bytes).await.unwrap());
        }
        Step::AppendTwo { value_bytes } => {
            let first = records(model.end(), &[500, 501], value_bytes);
            let second = records(model.end() + 2, &[400], value_bytes);
            let batches = vec![log_support::batch(log, &first), log_support::batch(log, &second)];
            log.append(batches, 500).await.unwrap();
            model.records.extend(first.into_iter().chain(second));
        }
        Step::Read { place, max_bytes } => {
            let offset = model.place(place);
            if offset > model.end() {
                let request = ReadRequest { offset, end_offset: i64::MAX, max_bytes, at_least_one: true };
                assert!(matches!(log.read(&request).await, Err(StorageError::OffsetOutOfRange { .. })));
            } else {
                assert_eq!(read_from(log, offset, max_bytes).await, model.from(offset));
            }
        }
        Step::FindTimestamp { timestamp } => {
            let found = log.offset_for_timestamp(timestamp, model.end()).await.unwrap();
            let expected = model.from(model.start).iter().find(|record| record.timestamp >= timestamp);
            let expected = expected.map(|record| (record.offset, record.timestamp));
            assert_eq!(found.map(|found| (found.offset, found.timestamp)), expected);
        }
        Step::FindMaxTimestamp => {
            // Kafka's rule for the batch that holds the largest timestamp, even if the front of it was deleted.
            let found = log.max_timestamp(model.end()).await.unwrap();
            let largest = model.from(model.start).iter().map(|record| record.timestamp).max();
            if let Some(found) = found {
                assert!(found.offset >= model.start);
                assert!(found.timestamp <= largest.unwrap());
            }
            if model.start == 0 {
                assert_eq!(found.map(|found| found.timestamp), largest);
                let first = largest.and_then(|largest| {
                    model
                        .records
                        .iter()
                        .find(|record| record.timestamp == largest)
                        .map(|record| record.offset)
                });
                assert_eq!(found.map(|found| found.offset), first);
            }
        }
        Step::DeleteBefore { place } => {
            let offset = model.place(place);
            assert_eq!(log.delete_records_before(offset).await.unwrap(), offset);
            model.start = offset;
        }
        Step::Flush => assert_eq!(log.flush().await.unwrap(), model.end()),
        Step::Roll => log.roll(0).await.unwrap(),
        Step::Cool => log_support::forget_pages(log.dir()),
        Step::Restart => {
            let checkpoint = log.close().await.unwrap();
            *log = open(setup, dir, after_close(checkpoint)).await;
            assert_eq!(log.flushed_offset(), model.end());
        }
        Step::Kill => {
            let checkpoint = log.checkpoint(); // the log start is checkpointed by the shard; the rest may be old
            *log = open(setup, dir, after_crash(Some(checkpoint))).await;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_log_answers_like_a_vec(steps in prop::collection::vec(step(), 1..60)) {
        block_on(run(steps));
    }
}
