//! What the benches share: how often to repeat, medians with their spread, tables, batches and places to put logs.
//!
//! A bench measures when `cargo bench` runs it. Run by `cargo test --benches`, or with `--quick`, it does one tiny round,
//! which shows that it works and whose figures mean nothing.
#![allow(dead_code)] // each bench uses a part

use std::fmt;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use logstreams::model::{Offset, TopicName, TopicPartition};
use logstreams::record::{BatchBuilder, BatchHeader, Compression, Headers, Stamp, ValidBatch};
use logstreams::storage::{AppendBatch, Log, LogOptions, ShardStorage, StartHint};

/// Rounds of a measurement.
const ROUNDS: usize = 5;
/// Samples that must lie beyond a percentile before it is told.
const SAMPLES_BEYOND_MIN: f64 = 3.0;
/// The time of all batches.
pub const NOW_MS: i64 = 1_700_000_000_000;

/// Whether one tiny round is enough.
pub fn is_quick() -> bool {
    let mut is_measured = false; // cargo says `--bench` when it does not test
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--quick" => return true,
            "--bench" => is_measured = true,
            _ => {}
        }
    }
    !is_measured
}

/// `measured`, or `quick` where one tiny round is enough.
pub fn scaled(measured: usize, quick: usize) -> usize {
    if is_quick() { quick } else { measured }
}

/// Runs `round` for each case in turn, and all of that several times, so that what the machine does beside falls on all
/// cases alike.
pub fn interleave<C>(cases: &mut [C], mut round: impl FnMut(&mut C)) {
    for _ in 0..scaled(ROUNDS, 1) {
        cases.iter_mut().for_each(&mut round);
    }
}

/// Nanoseconds of CPU that the calling thread has used.
pub fn thread_cpu_ns() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("the kernel tells");
    stat.split(' ').next().and_then(|ns| ns.parse().ok()).expect("a number")
}

/// One figure of every round.
#[derive(Debug, Clone, Default)]
pub struct Series(Vec<f64>);

impl Series {
    /// Notes a round's figure.
    pub fn push(&mut self, figure: f64) {
        self.0.push(figure);
        self.0.sort_by(f64::total_cmp);
    }

    /// The middle one.
    pub fn median(&self) -> f64 {
        self.0.get(self.0.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// The figures in a unit `factor` times as small.
    pub fn scaled(&self, factor: f64) -> Series {
        Series(self.0.iter().map(|figure| figure * factor).collect())
    }
}

/// The median, with the smallest and the largest beside it.
impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(least), Some(most)) = (self.0.first(), self.0.last()) else { return write!(f, "-") };
        let digits = if *most < 10.0 { 2 } else { usize::from(*most < 100.0) };
        write!(f, "{:.digits$} ({least:.digits$}-{most:.digits$})", self.median())
    }
}

/// How long each of many things took, over all rounds.
#[derive(Debug, Clone, Default)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// Notes one.
    pub fn push(&mut self, latency: Duration) {
        self.0.push(latency);
    }

    /// The percentile in microseconds; `-` when there are too few samples to tell.
    pub fn percentile_us(&self, percent: f64) -> String {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let beyond = sorted.len() as f64 * (1.0 - percent / 100.0);
        if beyond < SAMPLES_BEYOND_MIN {
            return "-".to_owned();
        }
        let latency = sorted[sorted.len() - 1 - beyond as usize];
        format!("{:.1}", latency.as_secs_f64() * 1e6)
    }
}

/// Rows of text below their headings.
pub struct Table(Vec<Vec<String>>);

impl Table {
    /// A table with these headings.
    pub fn new(headings: &[&str]) -> Self {
        Table(vec![headings.iter().map(|&heading| heading.to_owned()).collect()])
    }

    /// Adds a row.
    pub fn row(&mut self, cells: &[&dyn fmt::Display]) {
        self.0.push(cells.iter().map(ToString::to_string).collect());
    }

    /// Prints it under a title.
    pub fn print(&self, title: &str) {
        println!("\n{title}");
        let width = |column: usize| self.0.iter().map(|row| row[column].len()).max().unwrap_or(0);
        for row in &self.0 {
            let cells = row.iter().enumerate().map(|(column, cell)| match column {
                0 => format!("{cell:<0$}", width(column)),
                _ => format!("{cell:>0$}", width(column)),
            });
            println!("  {}", cells.collect::<Vec<_>>().join("  "));
        }
    }
}

/// Seconds of CPU that all threads of this process have used. What the kernel does for it later (writing back pages) is
/// not in it.
pub fn cpu_seconds() -> f64 {
    #[allow(unsafe_code)]
    // SAFETY: `rusage` is plain data, for which zeroes are a value, and the call writes to nothing else.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &raw mut usage), 0);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// A xorshift generator: the same numbers in every run.
pub struct Numbers(pub u64);

impl Numbers {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// The next number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// An uncompressed batch of exactly `size_bytes` of noise in records of `record_bytes`, as a producer sends it.
pub fn batch(size_bytes: usize, record_bytes: usize) -> BytesMut {
    let mut numbers = Numbers(7);
    let noise: Vec<u8> = (0..size_bytes).map(|_| numbers.next() as u8).collect();
    let mut builder = BatchBuilder::new(Compression::None);
    let mut at = 0;
    while builder.size_bytes() + 2 * record_bytes < size_bytes {
        let value = &noise[at..at + record_bytes];
        builder.append(NOW_MS, None, Some(value), Headers::NONE).expect("a record fits");
        at += record_bytes;
    }
    // The last record takes what is left.
    let with_last = |length: usize| {
        let mut builder = builder.clone();
        builder.append(NOW_MS, None, Some(&noise[..length]), Headers::NONE).expect("a record fits");
        builder
    };
    let room = size_bytes - builder.size_bytes();
    let whole = (0..room).rev().map(with_last).find(|builder| builder.size_bytes() <= size_bytes);
    whole.expect("a batch has room for a record").finish()
}

/// Copies of a producer's batch as the log takes them, one behind the other from `base_offset` on.
pub fn assigned(batch: &[u8], base_offset: Offset, count: usize) -> Vec<AppendBatch> {
    let header = BatchHeader::parse(batch).expect("a batch");
    let valid = ValidBatch { header, stamp: Stamp::Keep, max_timestamp: header.max_timestamp };
    let mut next_offset = base_offset;
    (0..count)
        .map(|_| {
            let mut bytes = BytesMut::from(batch);
            let header = valid.assign(&mut bytes, next_offset, 0);
            next_offset = header.next_offset();
            AppendBatch { bytes: bytes.freeze(), header }
        })
        .collect()
}

/// A directory on the real file system, removed when dropped: direct writes do not work on a tmpfs.
pub fn temporary_directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the target directory can be written to")
}

/// The partition of every log.
pub fn topic_partition() -> TopicPartition {
    TopicPartition::new(TopicName::new("orders").expect("a legal name"), 0)
}

/// Opens the log in `dir`.
pub async fn open(dir: &Path, options: &LogOptions, shared: &Rc<ShardStorage>, start: StartHint) -> Log {
    let dir = dir.join("orders-0");
    let opened = Log::open(topic_partition(), dir, options.clone(), shared.clone(), start, NOW_MS).await;
    opened.expect("the log opens")
}

/// Appends copies of a batch to a log until it holds `size_bytes` more, a stretch at a time.
pub async fn fill(log: &Log, batch: &[u8], size_bytes: usize) {
    const STRETCH_BYTES: usize = 16 << 20;
    let mut left = size_bytes / batch.len();
    while left > 0 {
        let count = left.min((STRETCH_BYTES / batch.len()).max(1));
        for append in assigned(batch, log.log_end_offset(), count) {
            log.append(vec![append], NOW_MS).await.expect("the log takes appends");
        }
        left -= count;
    }
}

/// A size in the largest unit that it is whole in.
pub fn size(bytes: usize) -> String {
    match bytes {
        bytes if bytes >= 1 << 20 && bytes % (1 << 20) == 0 => format!("{} MiB", bytes >> 20),
        bytes if bytes % (1 << 10) == 0 => format!("{} KiB", bytes >> 10),
        bytes => format!("{bytes} B"),
    }
}
