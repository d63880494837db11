//! What appending costs, by batch size and write path.
//!
//! Three tables. `Log::append`, back to back: GB/s until all is written (a killed process loses nothing) and until all
//! is synced as well, CPU seconds per GB until written; beside it, measured alone, the latency of an append with one
//! under way, from the call until it is written. `Partition::append`, 64 asked for at once, which checks the batches and
//! groups them: the same figures, the latency being that of one of the 64. Group commit: `flush.messages=1`, so every
//! append waits for a sync, which those who wait together share.
//! Batches are made before the clock starts. Every round has a new log.

#[path = "support/mod.rs"]
mod support;

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use logstreams::base::clock;
use logstreams::base::units::{KIB, MIB};
use logstreams::config::TopicConfig;
use logstreams::partition::Partition;
use logstreams::runtime::fault::{self, Operation, Verdict};
use logstreams::runtime::{block_on, spawn, yield_if_needed};
use logstreams::storage::{Log, LogOptions, ShardStorage, ShardStorageLimits, StartHint, WritePath};
use support::{Latencies, NOW_MS, Series, Table, scaled};

const BATCH_SIZES: [usize; 4] = [KIB, 16 * KIB, 64 * KIB, MIB];
const RECORD_BYTES: usize = KIB;
const WRITE_PATHS: [(WritePath, &str); 2] = [(WritePath::PageCache, "page_cache"), (WritePath::Dma, "dma")];
/// Bytes that a round streams.
const STREAM_BYTES: usize = 96 * MIB;
/// Bytes and appends of a round of which each waits for the one before.
const ALONE_BYTES: usize = 32 * MIB;
const ALONE_COUNT: usize = 1_000;
/// Appends that are asked for at once.
const AT_ONCE: usize = 64;
/// Who appends at once in the group commit.
const APPENDERS: [usize; 3] = [1, 8, 64];
/// Appends of a round of the group commit.
const COMMITS: usize = 256;

async fn open(dir: &Path, write_path: WritePath) -> Log {
    let options = LogOptions { write_path, ..LogOptions::default() };
    let shared = ShardStorage::new(ShardStorageLimits::default());
    let log = support::open(dir, &options, &shared, StartHint::default()).await;
    support::fill(&log, &support::batch(KIB, KIB), KIB).await; // the file is there
    log.flush().await.expect("the log can be synced");
    log
}

async fn open_partition(dir: &Path, write_path: WritePath, config: TopicConfig) -> Rc<Partition> {
    Partition::new(support::topic_partition(), open(dir, write_path).await, Arc::new(config))
}

/// Whom the batches are given to.
#[derive(Clone, Copy, PartialEq)]
enum Floor {
    Log,
    Partition,
}

struct AppendCase {
    floor: Floor,
    batch: BytesMut,
    write_path: (WritePath, &'static str),
    gb_per_second: Series,
    gb_per_second_synced: Series,
    cpu_seconds_per_gb: Series,
    latencies: Latencies,
}

impl AppendCase {
    fn new(floor: Floor, batch_bytes: usize, write_path: (WritePath, &'static str)) -> Self {
        AppendCase {
            floor,
            batch: support::batch(batch_bytes, RECORD_BYTES),
            write_path,
            gb_per_second: Series::default(),
            gb_per_second_synced: Series::default(),
            cpu_seconds_per_gb: Series::default(),
            latencies: Latencies::default(),
        }
    }

    fn round(&mut self) {
        let dir = support::temporary_directory();
        block_on(async {
            match self.floor {
                Floor::Log => {
                    self.stream(&dir.path().join("stream")).await;
                    self.alone(&dir.path().join("alone")).await;
                }
                Floor::Partition => self.at_once(dir.path()).await,
            }
        });
    }

    async fn stream(&mut self, dir: &Path) {
        let log = open(dir, self.write_path.0).await;
        let count = scaled(STREAM_BYTES / self.batch.len(), 4);
        let batches = support::assigned(&self.batch, log.log_end_offset(), count);
        let (start, cpu) = (clock::monotonic(), support::cpu_seconds());
        for batch in batches {
            log.append(vec![batch], NOW_MS).await.expect("appended");
            yield_if_needed().await;
        }
        log.wait_written(log.log_end_offset()).await.expect("written");
        self.note(count, start.elapsed().as_secs_f64(), support::cpu_seconds() - cpu);
        log.flush().await.expect("synced");
        self.note_synced(count, start.elapsed().as_secs_f64());
        log.settle().await;
    }

    async fn alone(&mut self, dir: &Path) {
        let log = open(dir, self.write_path.0).await;
        let count = scaled((ALONE_BYTES / self.batch.len()).min(ALONE_COUNT), 4);
        for batch in support::assigned(&self.batch, log.log_end_offset(), count) {
            let start = clock::monotonic();
            log.append(vec![batch], NOW_MS).await.expect("appended");
            log.wait_written(log.log_end_offset()).await.expect("written");
            self.latencies.push(start.elapsed());
        }
        log.settle().await;
    }

    async fn at_once(&mut self, dir: &Path) {
        let partition = open_partition(dir, self.write_path.0, TopicConfig::default()).await;
        let count = scaled((STREAM_BYTES / self.batch.len()).max(AT_ONCE), AT_ONCE);
        let mut batches = vec![self.batch.clone(); count].into_iter();
        let (start, cpu) = (clock::monotonic(), support::cpu_seconds());
        while batches.len() > 0 {
            let asked = clock::monotonic();
            let appends: Vec<_> = batches
                .by_ref()
                .take(AT_ONCE)
                .map(|batch| partition.append(batch, true, false, None))
                .collect();
            for append in appends {
                append.await.expect("appended");
                self.latencies.push(asked.elapsed());
            }
        }
        self.note(count, start.elapsed().as_secs_f64(), support::cpu_seconds() - cpu);
        partition.log().flush().await.expect("synced");
        self.note_synced(count, start.elapsed().as_secs_f64());
        partition.log().settle().await;
    }

    fn note(&mut self, count: usize, seconds: f64, cpu_seconds: f64) {
        let gb = (count * self.batch.len()) as f64 / 1e9;
        self.gb_per_second.push(gb / seconds);
        self.cpu_seconds_per_gb.push(cpu_seconds / gb);
    }

    fn note_synced(&mut self, count: usize, seconds: f64) {
        self.gb_per_second_synced.push((count * self.batch.len()) as f64 / 1e9 / seconds);
    }
}

fn measure_appends(floor: Floor, batch_sizes: &[usize], title: &str) {
    let mut cases = Vec::new();
    for &batch_bytes in batch_sizes {
        for write_path in WRITE_PATHS {
            cases.push(AppendCase::new(floor, batch_bytes, write_path));
        }
    }
    support::interleave(&mut cases, AppendCase::round);
    let mut table = Table::new(&[
        "batch",
        "path",
        "GB/s written",
        "GB/s synced",
        "CPU s/GB",
        "p50 us",
        "p99 us",
        "p99.9 us",
    ]);
    for case in &cases {
        table.row(&[
            &support::size(case.batch.len()),
            &case.write_path.1,
            &case.gb_per_second,
            &case.gb_per_second_synced,
            &case.cpu_seconds_per_gb,
            &case.latencies.percentile_us(50.0),
            &case.latencies.percentile_us(99.0),
            &case.latencies.percentile_us(99.9),
        ]);
    }
    table.print(title);
}

struct CommitCase {
    appenders: usize,
    write_path: (WritePath, &'static str),
    appends_per_second: Series,
    latencies: Latencies,
}

impl CommitCase {
    fn appends_each(&self) -> usize {
        scaled(COMMITS, APPENDERS[2]).div_ceil(self.appenders)
    }

    fn round(&mut self) {
        let dir = support::temporary_directory();
        let (seconds, latencies) = block_on(self.commit(dir.path()));
        self.appends_per_second.push(latencies.len() as f64 / seconds);
        latencies.into_iter().for_each(|latency| self.latencies.push(latency));
    }

    async fn commit(&self, dir: &Path) -> (f64, Vec<std::time::Duration>) {
        let config = TopicConfig { flush_messages: 1, ..TopicConfig::default() };
        let partition = open_partition(dir, self.write_path.0, config).await;
        let (batch, appends_each) = (support::batch(KIB, KIB), self.appends_each());
        let start = clock::monotonic();
        let tasks: Vec<_> = (0..self.appenders)
            .map(|_| {
                let (partition, batch) = (partition.clone(), batch.clone());
                spawn(async move {
                    let mut latencies = Vec::with_capacity(appends_each);
                    for _ in 0..appends_each {
                        let asked = clock::monotonic();
                        partition.append(batch.clone(), true, false, None).await.expect("appended");
                        latencies.push(asked.elapsed());
                    }
                    latencies
                })
            })
            .collect();
        let mut latencies = Vec::new();
        for task in tasks {
            latencies.extend(task.await);
        }
        let seconds = start.elapsed().as_secs_f64();
        partition.log().settle().await;
        (seconds, latencies)
    }

    /// Syncs of the segment for each append, counted in a round that is not timed: counting costs.
    fn syncs_per_append(&self) -> f64 {
        let dir = support::temporary_directory();
        let syncs = Rc::new(Cell::new(0u32));
        let seen = syncs.clone();
        let _plan = fault::install(move |operation, path, _| {
            if operation == Operation::Sync && path.extension().is_some_and(|extension| extension == "log") {
                seen.set(seen.get() + 1);
            }
            Verdict::Pass
        });
        let (_, latencies) = block_on(self.commit(dir.path()));
        f64::from(syncs.get()) / latencies.len() as f64
    }
}

fn measure_group_commit() {
    let mut cases = Vec::new();
    for appenders in APPENDERS {
        for write_path in WRITE_PATHS {
            let (appends_per_second, latencies) = (Series::default(), Latencies::default());
            cases.push(CommitCase { appenders, write_path, appends_per_second, latencies });
        }
    }
    support::interleave(&mut cases, CommitCase::round);
    let mut table =
        Table::new(&["appenders", "path", "appends/s", "syncs/append", "p50 us", "p99 us", "p99.9 us"]);
    for case in &cases {
        table.row(&[
            &case.appenders,
            &case.write_path.1,
            &case.appends_per_second,
            &format!("{:.3}", case.syncs_per_append()),
            &case.latencies.percentile_us(50.0),
            &case.latencies.percentile_us(99.0),
            &case.latencies.percentile_us(99.9),
        ]);
    }
    table.print("Group commit: Partition::append of 1 KiB batches with flush.messages=1");
}

fn main() {
    measure_appends(Floor::Log, &BATCH_SIZES, "Log::append; latency with one under way, until written");
    measure_appends(
        Floor::Partition,
        &BATCH_SIZES[..2],
        &format!("Partition::append, {AT_ONCE} asked for at once; latency of each"),
    );
    measure_group_commit();
}
