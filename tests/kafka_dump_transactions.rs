//! Kafka's own `kafka-dump-log` reads what transactions leave behind: their state log, markers, aborted-transaction
//! indexes and producer snapshots.

#![allow(clippy::disallowed_methods, reason = "the test waits for other processes, in real time")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;
use support::clients::Client;
use support::process::PATIENCE;
use support::records::{Record, now_ms};
use support::server::{Options, Server};
use support::tools;

const DUMP_LOG_SEGMENTS: &str = "org.apache.kafka.tools.DumpLogSegments";
const COUNT: usize = 300;

#[test]
fn kafka_dump_log_reads_what_transactions_leave_behind() {
    let mut server = Server::start(Options::default().set("transaction.state.log.num.partitions", "1"));
    let topics = ["plain", "moved"].map(str::to_owned);
    Client::Java.create(server.bootstrap(), &topics, 1, &[]);
    let acks = Client::Java.produce(server.bootstrap(), &[("plain".to_owned(), "none")], &numbered(COUNT));
    assert_eq!(acks.acked.len(), COUNT);
    let mut mover =
        Client::Java.transact(server.bootstrap(), "the-mover", "movers", ("plain", "moved"), COUNT);
    while mover.next_line(Instant::now() + PATIENCE).is_some() {}
    mover.expect_success();
    server.stop();

    let states =
        dump(&server.data_dir().join("__transaction_state-0"), "log", &["--transaction-log-decoder"]);
    assert_no_complaint(&states);
    let of_mover: Vec<&String> = states.iter().filter(|line| line.contains("the-mover")).collect();
    // Empty, Ongoing, PrepareCommit, PrepareAbort, CompleteCommit, CompleteAbort by Kafka's numbers.
    for status in 0..6 {
        let text = format!("\"transactionStatus\":{status}");
        assert!(of_mover.iter().any(|line| line.contains(&text)), "no state {status} among {of_mover:#?}");
    }
    let moved = server.data_dir().join("moved-0");
    let markers = dump(&moved, "log", &["--print-data-log"]);
    assert_no_complaint(&markers);
    for marker in ["endTxnMarker: COMMIT", "endTxnMarker: ABORT"] {
        assert!(markers.iter().any(|line| line.contains(marker)), "no {marker}");
    }
    let aborted = dump(&moved, "txnindex", &[]);
    assert!(aborted.iter().any(|line| line.contains("firstOffset: ")), "{aborted:#?}");
    let producers = dump(&moved, "snapshot", &[]);
    assert!(producers.iter().any(|line| line.contains("currentTxnFirstOffset: ")), "{producers:#?}");
}

/// Records whose values are numbers, so that none of them breaks a line of the dump.
fn numbered(count: usize) -> Vec<Record> {
    let record = |number: usize| Record {
        timestamp: now_ms(),
        key: Some(format!("key-{number}").into_bytes()),
        value: Some(number.to_string().into_bytes()),
        headers: Vec::new(),
    };
    (0..count).map(record).collect()
}

fn dump(directory: &Path, extension: &str, options: &[&str]) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a partition's directory");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    files.sort();
    let list: Vec<&str> = files.iter().map(|path| path.to_str().expect("a plain path")).collect();
    tools::run(DUMP_LOG_SEGMENTS, &[&["--files", &list.join(",")], options].concat())
}

/// Every line is one of those that a healthy log gives.
fn assert_no_complaint(lines: &[String]) {
    for line in lines {
        let is_healthy = ["Dumping ", "Log starting offset: ", "baseOffset: ", "| offset: "]
            .iter()
            .any(|start| line.starts_with(start));
        assert!(is_healthy && !line.contains("isvalid: false"), "kafka-dump-log complains: {line}");
    }
}
