//! What reading, checking and building record batches costs, in GB/s of batch bytes (and of plain bytes for codecs)
//! and nanoseconds per record, on one thread.
//!
//! Run by `cargo bench --bench record_batch`. Every line is the median of rounds
//! that are interleaved, with the slowest and fastest beside it. The batches stay in cache, as they do behind a
//! socket.

#[path = "support/mod.rs"]
mod support;

use std::hint::black_box;
use std::ops::ControlFlow;

use logstreams::base::clock;
use logstreams::base::units::{KIB, MIB};
use logstreams::record::{
    BatchBuilder, BatchHeader, Compression, Headers, TimestampType, ValidationLimits, check_crc,
    for_each_record, transcode, validate, validate_records,
};
use support::{NOW_MS, Series, scaled};

/// Bytes that each case handles in a round.
const ROUND_BYTES: usize = 16 * MIB;

fn limits() -> ValidationLimits {
    ValidationLimits {
        max_message_bytes: usize::MAX,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: 3_600_000,
        now_ms: NOW_MS + 1000,
        requires_keys: false,
    }
}

/// Values of words with numbers between them, which codecs shrink to about a quarter.
fn value(record_bytes: usize, seed: &mut u64) -> Vec<u8> {
    let mut text = Vec::new();
    while text.len() < record_bytes {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let word = ["order", "customer", "amount", "status", "shipped", "null", "warehouse"]
            [(*seed >> 40) as usize % 7];
        text.extend_from_slice(word.as_bytes());
        text.extend_from_slice(((*seed >> 33) % 10_000).to_string().as_bytes());
    }
    text.truncate(record_bytes);
    text
}

fn build(compression: Compression, batch_bytes: usize, values: &[Vec<u8>]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(compression);
    for (value, number) in values.iter().cycle().zip(0..) {
        if builder.size_bytes() + value.len() > batch_bytes {
            break;
        }
        builder.append(NOW_MS + number / 10, None, Some(value), Headers::NONE).expect("fits");
    }
    builder.finish().to_vec()
}

struct Case {
    name: String,
    bytes: usize,
    records: i32,
    work: Box<dyn Fn()>,
    seconds: Series,
    gb_per_second: Series,
}

impl Case {
    fn new(name: String, bytes: usize, records: i32, work: impl Fn() + 'static) -> Self {
        Case {
            name,
            bytes,
            records,
            work: Box::new(work),
            seconds: Series::default(),
            gb_per_second: Series::default(),
        }
    }

    fn round(&mut self) {
        let times = scaled((ROUND_BYTES / self.bytes).max(1), 1);
        let start = clock::monotonic();
        for _ in 0..times {
            (self.work)();
        }
        let seconds = start.elapsed().as_secs_f64() / times as f64;
        self.seconds.push(seconds);
        self.gb_per_second.push(self.bytes as f64 / 1e9 / seconds);
    }

    fn report(&self) {
        println!(
            "{:<44} {:>18} GB/s {:>8.1} ns/record {:>9.1} us/batch",
            self.name,
            self.gb_per_second,
            self.seconds.median() * 1e9 / f64::from(self.records),
            self.seconds.median() * 1e6
        );
    }
}

fn main() {
    let mut seed = 7;
    let mut cases = Vec::new();
    for record_bytes in [100, KIB] {
        let values = (0..1000).map(|_| value(record_bytes, &mut seed)).collect::<Vec<_>>();
        for batch_bytes in [16 * KIB, 64 * KIB, 256 * KIB, MIB] {
            let batch = build(Compression::None, batch_bytes, &values);
            let header = BatchHeader::parse(&batch).expect("a batch");
            let (bytes, records) = (batch.len(), header.record_count);
            let name = |work: &str| format!("{work} {} KiB of {record_bytes} B", batch_bytes / KIB);
            let copy = batch.clone();
            cases.push(Case::new(name("crc only"), bytes, records, move || {
                check_crc(black_box(&copy), &header).expect("valid");
            }));
            let copy = batch.clone();
            cases.push(Case::new(name("validate_records"), bytes, records, move || {
                black_box(validate_records(black_box(&copy), &header, &limits()).expect("valid"));
            }));
            let copy = batch.clone();
            cases.push(Case::new(name("validate"), bytes, records, move || {
                black_box(validate(black_box(&copy), &limits()).expect("valid"));
            }));
        }
        let plain = build(Compression::None, 256 * KIB, &values);
        let header = BatchHeader::parse(&plain).expect("a batch");
        let (bytes, records) = (plain.len(), header.record_count);
        let copy = plain.clone();
        cases.push(Case::new(
            format!("for_each_record 256 KiB of {record_bytes} B"),
            bytes,
            records,
            move || {
                let mut sum = 0;
                for_each_record(black_box(&copy), |record| {
                    sum += record.value.map_or(0, <[u8]>::len);
                    ControlFlow::Continue(())
                })
                .expect("valid");
                black_box(sum);
            },
        ));
        let few = values.clone();
        cases.push(Case::new(format!("build 256 KiB of {record_bytes} B"), bytes, records, move || {
            black_box(build(Compression::None, 256 * KIB, &few));
        }));
        for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
            for batch_bytes in [4 * KIB, 256 * KIB] {
                let batch = build(codec, batch_bytes, &values);
                let plain = build(Compression::None, batch_bytes, &values);
                let records = BatchHeader::parse(&batch).expect("a batch").record_count;
                let ratio = plain.len() as f64 / batch.len() as f64;
                let name =
                    format!("validate {codec} {} KiB of {record_bytes} B ({ratio:.1}:1)", batch_bytes / KIB);
                cases.push(Case::new(name, plain.len(), records, move || {
                    black_box(validate(black_box(&batch), &limits()).expect("valid"));
                }));
                let name = format!("transcode to {codec} {} KiB of {record_bytes} B", batch_bytes / KIB);
                cases.push(Case::new(name, plain.len(), records, move || {
                    black_box(transcode(black_box(&plain), codec, usize::MAX).expect("valid"));
                }));
            }
        }
    }
    support::interleave(&mut cases, Case::round);
    cases.iter().for_each(Case::report);
}
