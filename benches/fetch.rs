//! What reading from a log costs, by where the bytes come from and `max_bytes`.
//!
//! A read is `Log::try_read` at a random offset of 32 MiB in 16 KiB batches: from the tail cache, from the mapping of
//! the active segment, from mappings of sealed segments; all of it in memory, so it never waits. Two figures: the read
//! alone, which hands out views and touches headers at most, and the read with every byte of its answer summed up, as
//! the cost of bytes that something else (a copy into the socket) will touch. GB/s is of the second.

#[path = "support/mod.rs"]
mod support;

use std::hint::black_box;

use logstreams::base::clock;
use logstreams::base::units::{KIB, MIB};
use logstreams::runtime::block_on;
use logstreams::storage::{
    Log, LogOptions, ReadRequest, ReadView, ShardStorage, ShardStorageLimits, StartHint,
};
use support::{Numbers, Series, Table, scaled};

const LOG_BYTES: usize = 32 * MIB;
const BATCH_BYTES: usize = 16 * KIB;
const MAX_BYTES: [usize; 3] = [16 * KIB, 128 * KIB, MIB];
/// Bytes that a round reads, and the most reads that it does for it.
const ROUND_BYTES: usize = 512 * MIB;

/// A log that answers from one place.
struct Source {
    name: &'static str,
    log: Log,
    /// Offsets that are there.
    end_offset: i64,
    _dir: tempfile::TempDir,
}

impl Source {
    async fn new(name: &'static str, tail_cache_bytes: usize, segment_bytes: usize) -> Self {
        let dir = support::temporary_directory();
        let shared = ShardStorage::new(ShardStorageLimits { tail_cache_bytes, ..Default::default() });
        let options = LogOptions { segment_bytes: segment_bytes as u64, ..LogOptions::default() };
        let log = support::open(dir.path(), &options, &shared, StartHint::default()).await;
        support::fill(&log, &support::batch(BATCH_BYTES, KIB), LOG_BYTES).await;
        // What is sealed ends where the last segment begins; a log of one segment has nothing else.
        let last_base_offset = log.segments().last().map_or(0, |segment| segment.base_offset);
        let end_offset = if last_base_offset == 0 { log.log_end_offset() } else { last_base_offset };
        let source = Source { name, log, end_offset, _dir: dir };
        source.read_all().await;
        source
    }

    /// Maps what is to be mapped.
    async fn read_all(&self) {
        let mut offset = 0;
        while offset < self.end_offset {
            let view = self.log.read(&self.request(offset, MIB)).await.expect("read");
            offset = view.next_offset;
        }
    }

    fn request(&self, offset: i64, max_bytes: usize) -> ReadRequest {
        ReadRequest { offset, end_offset: self.end_offset, max_bytes, at_least_one: true }
    }
}

fn sum(view: &ReadView) -> u64 {
    let words = view.chunks.iter().flat_map(|chunk| chunk.as_chunks::<8>().0);
    words.fold(0, |sum, word| sum ^ u64::from_le_bytes(*word))
}

struct Case<'s> {
    source: &'s Source,
    max_bytes: usize,
    nanoseconds: Series,
    nanoseconds_summed: Series,
    gb_per_second_summed: Series,
}

impl Case<'_> {
    fn round(&mut self) {
        let count = scaled(ROUND_BYTES / self.max_bytes, 10);
        let (seconds, _) = self.read(count, |view| {
            black_box(view);
        });
        self.nanoseconds.push(seconds * 1e9 / count as f64);
        let (seconds, bytes) = self.read(count, |view| {
            black_box(sum(&view));
        });
        self.nanoseconds_summed.push(seconds * 1e9 / count as f64);
        self.gb_per_second_summed.push(bytes as f64 / 1e9 / seconds);
    }

    fn read(&self, count: usize, mut with: impl FnMut(ReadView)) -> (f64, usize) {
        let mut numbers = Numbers(7);
        let mut bytes = 0;
        let start = clock::monotonic();
        for _ in 0..count {
            let offset = numbers.below(self.source.end_offset as usize) as i64;
            let view = self.source.log.try_read(&self.source.request(offset, self.max_bytes));
            let view = view.expect("the bytes are in memory").expect("read");
            bytes += view.size_bytes;
            with(view);
        }
        (start.elapsed().as_secs_f64(), bytes)
    }
}

async fn measure() {
    let sources = [
        Source::new("tail cache", 2 * LOG_BYTES, 2 * LOG_BYTES).await,
        Source::new("mapped active segment", 0, 2 * LOG_BYTES).await,
        Source::new("mapped sealed segments of 4 MiB", 0, 4 * MIB).await,
    ];
    let mut cases = Vec::new();
    for source in &sources {
        for max_bytes in MAX_BYTES {
            cases.push(Case {
                source,
                max_bytes,
                nanoseconds: Series::default(),
                nanoseconds_summed: Series::default(),
                gb_per_second_summed: Series::default(),
            });
        }
    }
    support::interleave(&mut cases, Case::round);
    let mut table = Table::new(&["from", "max_bytes", "ns/read", "ns/read, summed", "GB/s, summed"]);
    for case in &cases {
        table.row(&[
            &case.source.name,
            &support::size(case.max_bytes),
            &case.nanoseconds,
            &case.nanoseconds_summed,
            &case.gb_per_second_summed,
        ]);
    }
    table.print("Log::try_read, 16 KiB batches");
}

fn main() {
    block_on(measure());
}
