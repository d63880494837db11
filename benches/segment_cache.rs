//! What sealed segments cost to read, by segment size and by how many bytes of them may be mapped.
//!
//! 256 MiB in 16 KiB batches, all in the page cache. Readers take one batch at a time. Which one follows a zipf
//! distribution (s = 1) over the log's 256 stretches of 1 MiB, the same for every segment size: in one case the newest
//! stretch is the favourite and the oldest the last, in the other the ranks are scattered over the log.
//! A hit is a read that `Log::try_read` answers; a miss maps the segment and loads its indexes on the blocking pool. The
//! caches stay warm from round to round.

#[path = "support/mod.rs"]
mod support;

use std::path::Path;

use logstreams::base::clock;
use logstreams::base::units::{KIB, MIB};
use logstreams::runtime::block_on;
use logstreams::storage::{
    Log, LogCheckpoint, LogOptions, ReadRequest, ShardStorage, ShardStorageLimits, StartHint,
};
use support::{Latencies, Numbers, Series, Table, scaled};

const LOG_BYTES: usize = 256 * MIB;
const BATCH_BYTES: usize = 16 * KIB;
const SEGMENT_SIZES: [usize; 3] = [MIB, 16 * MIB, 64 * MIB];
const CAPACITIES: [usize; 3] = [64 * MIB, 128 * MIB, 256 * MIB];
const STRETCH_BYTES: usize = MIB;
const READS: usize = 2_000;

/// Draws stretches of the log.
struct Zipf {
    /// The weight of all ranks up to each, the last being all.
    weights: Vec<f64>,
    /// The stretch of each rank.
    stretches: Vec<usize>,
}

impl Zipf {
    fn new(stretches: Vec<usize>) -> Self {
        let weights = (1..=stretches.len()).scan(0.0, |sum, rank| {
            *sum += 1.0 / rank as f64;
            Some(*sum)
        });
        Zipf { weights: weights.collect(), stretches }
    }

    fn newest_first(count: usize) -> Self {
        Zipf::new((0..count).rev().collect())
    }

    fn scattered(count: usize) -> Self {
        let mut numbers = Numbers(11);
        let mut stretches: Vec<usize> = (0..count).collect();
        for at in (1..count).rev() {
            stretches.swap(at, numbers.below(at + 1));
        }
        Zipf::new(stretches)
    }

    fn draw(&self, numbers: &mut Numbers) -> usize {
        let place = (numbers.next() >> 11) as f64 / (1u64 << 53) as f64; // 53 bits, so in 0..1
        let whole = self.weights.last().copied().unwrap_or(0.0);
        let rank = self.weights.partition_point(|weight| *weight <= place * whole);
        self.stretches[rank.min(self.stretches.len() - 1)]
    }
}

struct Case<'z> {
    segment_bytes: usize,
    capacity: usize,
    favourites: &'static str,
    zipf: &'z Zipf,
    log: Log,
    shared: std::rc::Rc<ShardStorage>,
    numbers: Numbers,
    hit_percent: Series,
    latencies: Latencies,
    miss_latencies: Latencies,
}

fn options(segment_bytes: usize) -> LogOptions {
    LogOptions { segment_bytes: segment_bytes as u64, ..LogOptions::default() }
}

/// Writes a log whose active segment has one batch.
async fn write(dir: &Path, segment_bytes: usize, log_bytes: usize) -> LogCheckpoint {
    let shared = ShardStorage::new(ShardStorageLimits::default());
    let log = support::open(dir, &options(segment_bytes), &shared, StartHint::default()).await;
    support::fill(&log, &support::batch(BATCH_BYTES, KIB), log_bytes + BATCH_BYTES).await;
    log.close().await.expect("closed")
}

impl Case<'_> {
    async fn read(&mut self, count: usize) {
        let active_base_offset = self.log.segments().last().map_or(0, |segment| segment.base_offset);
        let offsets_per_stretch = active_base_offset as usize / self.zipf.stretches.len();
        let mut hits = 0;
        for _ in 0..count {
            let stretch = self.zipf.draw(&mut self.numbers);
            let offset = stretch * offsets_per_stretch + self.numbers.below(offsets_per_stretch);
            let request = ReadRequest {
                offset: offset as i64,
                end_offset: active_base_offset,
                max_bytes: BATCH_BYTES,
                at_least_one: true,
            };
            let start = clock::monotonic();
            let found = self.log.try_read(&request);
            let is_hit = found.is_some();
            let view = match found {
                Some(view) => view,
                None => self.log.read(&request).await,
            };
            let latency = start.elapsed();
            assert_eq!(view.expect("read").size_bytes, BATCH_BYTES);
            hits += usize::from(is_hit);
            self.latencies.push(latency);
            if !is_hit {
                self.miss_latencies.push(latency);
            }
        }
        self.hit_percent.push(hits as f64 * 100.0 / count as f64);
    }

    /// Reads until the cache is as full as it gets, and forgets the figures.
    async fn warm_up(&mut self) {
        self.read(scaled(READS, 10)).await;
        (self.hit_percent, self.latencies, self.miss_latencies) = Default::default();
    }
}

async fn measure() {
    let log_bytes = scaled(LOG_BYTES, *SEGMENT_SIZES.last().unwrap_or(&MIB));
    let stretches = log_bytes / STRETCH_BYTES;
    let zipfs = [("newest", Zipf::newest_first(stretches)), ("scattered", Zipf::scattered(stretches))];
    let mut dirs = Vec::new();
    let mut cases = Vec::new();
    for segment_bytes in SEGMENT_SIZES {
        let dir = support::temporary_directory();
        let checkpoint = write(dir.path(), segment_bytes, log_bytes).await;
        for (favourites, zipf) in &zipfs {
            for capacity in CAPACITIES {
                let limits = ShardStorageLimits {
                    tail_cache_bytes: 0,
                    segment_cache_count: usize::MAX,
                    segment_cache_bytes: capacity as u64,
                    ..ShardStorageLimits::default()
                };
                let shared = ShardStorage::new(limits);
                let start = StartHint { clean_shutdown: true, checkpoint: Some(checkpoint), topic_id: None };
                let log = support::open(dir.path(), &options(segment_bytes), &shared, start).await;
                let mut case = Case {
                    segment_bytes,
                    capacity,
                    favourites,
                    zipf,
                    log,
                    shared,
                    numbers: Numbers(7),
                    hit_percent: Series::default(),
                    latencies: Latencies::default(),
                    miss_latencies: Latencies::default(),
                };
                case.warm_up().await;
                cases.push(case);
            }
        }
        dirs.push(dir);
    }
    for _ in 0..scaled(5, 1) {
        for case in &mut cases {
            case.read(scaled(READS, 10)).await;
        }
    }
    print(&cases);
}

fn print(cases: &[Case<'_>]) {
    let mut table = Table::new(&[
        "favourites",
        "segment",
        "capacity",
        "mapped",
        "hits %",
        "p50 us",
        "p99 us",
        "miss p50 us",
        "miss p99 us",
    ]);
    for case in cases {
        table.row(&[
            &case.favourites,
            &support::size(case.segment_bytes),
            &support::size(case.capacity),
            &case.shared.segment_cache.count(),
            &case.hit_percent,
            &case.latencies.percentile_us(50.0),
            &case.latencies.percentile_us(99.0),
            &case.miss_latencies.percentile_us(50.0),
            &case.miss_latencies.percentile_us(99.0),
        ]);
    }
    table.print("Reads of one 16 KiB batch from sealed segments");
}

fn main() {
    block_on(measure());
}
