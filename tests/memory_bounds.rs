//! What well-behaved clients make the real binary hold: little more than its limits say.

#![allow(clippy::disallowed_methods, reason = "the tests wait for another process, in real time")]

mod support;

#[path = "golden/requests.rs"]
#[allow(dead_code)] // shared with wire_golden.rs
mod requests;
#[path = "golden/server.rs"]
#[allow(dead_code)] // shared with wire_golden.rs
mod server;

use std::io::Write;
use std::time::{Duration, Instant};

use requests::{TOPIC, batch, connect, create_topic, frame, produce_body, read_reply};
use support::process::PATIENCE;
use support::redis::logstreams_with;
use support::resp::{Connection, Reply};
use support::server::Options;

const BATCH_BYTES: usize = 64 << 10;
const TAIL_CACHE_MIB: u64 = 32;

/// The tail cache keeps batches where the network put them. A producer that sends a few at a time and waits leaves most
/// of each read's room unused; that room must serve the next read, not be kept with the batch.
#[test]
fn batches_that_come_in_bursts_hold_little_more_than_the_tail_cache_may_have() {
    let limit = format!("tail.cache.bytes={}", TAIL_CACHE_MIB << 20);
    let server = server::Server::start(&["shards=1", "log.level=error", &limit]);
    let mut stream = connect(&server.address);
    create_topic(&mut stream, TOPIC, 1);
    let before_kib = server.memory_kib("RssAnon");
    let records = batch(&vec![b'v'; BATCH_BYTES]);
    let request = frame(0, 8, 1, false, &produce_body(TOPIC, 0, 1, Some(&records)));
    for burst in (1..=5).cycle().take(1_000) {
        stream.write_all(&request.repeat(burst)).unwrap();
        for _ in 0..burst {
            read_reply(&mut stream).expect("an open connection");
        }
    }
    let held_kib = server.memory_kib("RssAnon") - before_kib;
    assert!(held_kib < 2 * TAIL_CACHE_MIB * 1024, "{held_kib} KiB for a tail cache of {TAIL_CACHE_MIB} MiB");
}

/// What a start after a crash looks at is bounded by what was written since the last checkpoint, not since the start.
#[test]
fn a_server_that_runs_notes_how_far_its_logs_are_durable() {
    let options = Options { shards: 1, ..Options::default() };
    let options = options.set("num.partitions", "1").set("log.segment.bytes", "1048576");
    let mut server = logstreams_with(options);
    let mut writer = Connection::open(server.redis());
    let value = "v".repeat(BATCH_BYTES);
    for _ in 0..50 {
        assert!(!matches!(writer.call(&["XADD", "orders", "*", "field", &value]), Reply::Error(_)));
    }
    let checkpoint = server.data_dir().join("recovery-point-offset-checkpoint");
    let deadline = Instant::now() + PATIENCE;
    let recovery_point = loop {
        let text = std::fs::read_to_string(&checkpoint).unwrap_or_default();
        let noted = text.lines().find_map(|line| line.strip_prefix("orders 0 ")?.parse::<u64>().ok());
        if let Some(offset @ 1..) = noted {
            break offset;
        }
        assert!(Instant::now() < deadline, "no recovery point: {text}");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(recovery_point <= 50, "{recovery_point}");
    server.kill_dash_nine();
    server.start_again();
    let mut reader = Connection::open(server.redis());
    assert_eq!(reader.call(&["XLEN", "orders"]).integer(), 50);
}
