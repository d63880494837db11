//! Kafka's own `kafka-dump-log` reads our segments and indexes without complaint, and `logstreams dump` tells the
//! same story about them.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use support::clients::{CODECS, Client};
use support::process;
use support::records::{Record, mixed, now_ms};
use support::server::{Options, Program, Server};
use support::tools;

const DUMP_LOG_SEGMENTS: &str = "org.apache.kafka.tools.DumpLogSegments";
const SEGMENT_BYTES: &str = "segment.bytes=1048576";
const RECORD_COUNT: usize = 10_000;
/// So few of our records may be larger compressed than they are.
const FEW_RECORDS: usize = 3;

#[test]
fn kafka_dump_log_has_no_complaint_and_agrees_with_logstreams_dump() {
    let mut server = Server::start(Options::default());
    let sent = plain_records();
    // Each writes all codecs in its own manner: batches of one size or another, frames of one encoder or another.
    let writers = [Client::Java, Client::ConfluentKafka, Client::KafkaJs];
    let mut topics = Vec::new();
    for writer in writers {
        let targets: Vec<(String, &str)> =
            CODECS.iter().map(|&codec| (format!("{writer:?}-{codec}"), codec)).collect();
        let names: Vec<String> = targets.iter().map(|(topic, _)| topic.clone()).collect();
        writer.create(server.bootstrap(), &names, 1, &[SEGMENT_BYTES]);
        let acks = writer.produce(server.bootstrap(), &targets, &sent);
        assert_eq!((acks.failed.len(), acks.acked.len()), (0, CODECS.len() * sent.len()));
        topics.extend(targets);
    }
    server.stop();

    for (topic, codec) in &topics {
        let directory = server.data_dir().join(format!("{topic}-0"));
        let logs = files(&directory, "log");
        assert!(logs.len() >= 2, "{topic} has {} segments; the test wants several", logs.len());
        let batches = check_logs(topic, codec, &logs, &sent);
        let batch_count = batches.values().map(Vec::len).sum();
        check_indexes(topic, &files(&directory, "index"), batch_count);
        check_indexes(topic, &files(&directory, "timeindex"), batch_count);
        if server.program() == Program::LogStreams {
            for log in &logs {
                assert_eq!(logstreams_dump(log), batches[log], "{topic}: logstreams dump disagrees");
            }
        }
    }
}

/// Records whose text survives a dump to lines, and does not compress to nothing.
fn plain_records() -> Vec<Record> {
    (0..RECORD_COUNT)
        .map(|number| {
            let noise = |at: u64| format!("{:016x}", mixed(number as u64 * 100 + at));
            Record {
                timestamp: now_ms(),
                key: Some(format!("key-{number}").into_bytes()),
                value: Some((0..18).map(noise).collect::<String>().into_bytes()),
                headers: vec![("number".to_owned(), Some(number.to_string().into_bytes()))],
            }
        })
        .collect()
}

fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a directory entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    files.sort();
    files
}

fn dump(files: &[PathBuf], options: &[&str]) -> Vec<String> {
    let list: Vec<&str> = files.iter().map(|path| path.to_str().expect("a plain path")).collect();
    tools::run(DUMP_LOG_SEGMENTS, &[&["--files", &list.join(",")], options].concat())
}

/// What both dumps say of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Batch {
    base_offset: i64,
    last_offset: i64,
    count: usize,
    position: u64,
    size: u64,
    codec: String,
    crc: u32,
    valid: bool,
}

impl Batch {
    /// From words like `name: value` or `name=value`, by the names that each dump uses.
    fn read(fields: &BTreeMap<&str, &str>, names: [&str; 8]) -> Batch {
        let get =
            |at: usize| *fields.get(names[at]).unwrap_or_else(|| panic!("no {} among {fields:?}", names[at]));
        fn number<T: std::str::FromStr>(text: &str) -> T {
            text.parse().unwrap_or_else(|_| panic!("not a number: {text}"))
        }
        Batch {
            base_offset: number(get(0)),
            last_offset: number(get(1)),
            count: number(get(2)),
            position: number(get(3)),
            size: number(get(4)),
            codec: get(5).to_owned(),
            crc: number(get(6)),
            valid: get(7) == "true",
        }
    }
}

/// Kafka's dump of the segments: every line is one of those that a healthy log gives, the batches follow each other
/// in offset and position, and the records are the ones that were sent.
fn check_logs(topic: &str, codec: &str, logs: &[PathBuf], sent: &[Record]) -> BTreeMap<PathBuf, Vec<Batch>> {
    let mut batches: BTreeMap<PathBuf, Vec<Batch>> = BTreeMap::new();
    let mut log = PathBuf::new();
    let (mut next_offset, mut next_position, mut next_record) = (0, 0, 0);
    for line in dump(logs, &["--deep-iteration", "--print-data-log"]) {
        if let Some(path) = line.strip_prefix("Dumping ") {
            log = PathBuf::from(path);
            next_position = 0;
        } else if let Some(base_offset) = line.strip_prefix("Log starting offset: ") {
            assert_eq!(
                base_offset.parse::<i64>().ok(),
                Some(next_offset),
                "{topic}: name of {}",
                log.display()
            );
        } else if line.starts_with("baseOffset: ") {
            let words: Vec<&str> = line.split(' ').collect();
            let fields = words.chunks(2).map(|pair| (pair[0].trim_end_matches(':'), pair[1])).collect();
            let names =
                ["baseOffset", "lastOffset", "count", "position", "size", "compresscodec", "crc", "isvalid"];
            let batch = Batch::read(&fields, names);
            assert!(batch.valid, "{topic}: {line}");
            assert_eq!((batch.base_offset, batch.position), (next_offset, next_position), "{topic}: {line}");
            // A client may leave a few records as they are when compression would not make them smaller.
            let is_left_as_it_is = batch.codec == "none" && batch.count <= FEW_RECORDS;
            assert!(batch.codec == codec || is_left_as_it_is, "{topic}: {line}");
            next_offset = batch.last_offset + 1;
            next_position += batch.size;
            batches.entry(log.clone()).or_default().push(batch);
        } else if let Some(record) = line.strip_prefix("| offset: ") {
            let sent = &sent[next_record];
            let text =
                |bytes: &Option<Vec<u8>>| String::from_utf8(bytes.clone().expect("not null")).expect("text");
            let expected =
                format!("headerKeys: [number] key: {} payload: {}", text(&sent.key), text(&sent.value));
            assert!(
                record.starts_with(&format!("{next_record} CreateTime: {} ", sent.timestamp)),
                "{topic}: {line}"
            );
            assert!(record.ends_with(&expected), "{topic}: {line}");
            next_record += 1;
        } else {
            panic!("{topic}: kafka-dump-log complains of {}: {line}", log.display());
        }
    }
    assert_eq!(next_record, sent.len(), "{topic}: records in the dump");
    assert!(batches.values().flatten().any(|batch| batch.codec == codec), "{topic}: nothing is compressed");
    for log in logs {
        let end = batches[log].iter().map(|batch| batch.size).sum::<u64>();
        assert_eq!(end, fs::metadata(log).expect("a log").len(), "{topic}: bytes after the last batch");
    }
    batches
}

/// The checks that a broker does when it starts, then every entry against the log.
fn check_indexes(topic: &str, indexes: &[PathBuf], batch_count: usize) {
    let sane: Vec<String> = dump(indexes, &["--index-sanity-check"]);
    for index in indexes {
        // A segment with a single batch has no entry, and of an empty offset index the tool says just that.
        let verdict = |words| sane.contains(&format!("{} {words}", index.display()));
        let is_empty = fs::metadata(index).expect("an index").len() == 0;
        let is_sane = verdict("passed sanity check.") || is_empty && verdict("is empty.");
        assert!(is_sane, "{topic}: {} is not sane: {sane:#?}", index.display());
    }
    let mut entries = 0;
    for line in dump(indexes, &[]) {
        let is_entry = ["offset: ", "timestamp: "].iter().any(|start| line.starts_with(start));
        let is_heading = line.starts_with("Dumping ") || line.ends_with(" is empty.");
        assert!(is_entry || is_heading, "{topic}: kafka-dump-log complains: {line}");
        entries += usize::from(is_entry);
    }
    // Java's small batches make many entries; a client of few large batches may come by with none.
    assert!(
        entries > 0 || batch_count <= 2 * indexes.len(),
        "{topic}: {batch_count} batches and no index entry"
    );
}

/// `file PATH size=..`, then for each batch
/// `batch base_offset=.. last_offset=.. count=.. position=.. size=.. codec=.. crc=.. valid=..` and its records.
fn logstreams_dump(log: &Path) -> Vec<Batch> {
    let mut command = support::server::logstreams();
    command.arg("dump").arg("--records").arg(log);
    let mut batches: Vec<Batch> = Vec::new();
    let mut next_offset = None;
    for line in process::run("logstreams dump", &mut command, Vec::new()) {
        let (kind, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let fields: BTreeMap<&str, &str> = rest.split(' ').filter_map(|pair| pair.split_once('=')).collect();
        match kind {
            "file" => assert!(line.contains(log.to_str().expect("a plain path")), "{line}"),
            "batch" => {
                let names =
                    ["base_offset", "last_offset", "count", "position", "size", "codec", "crc", "valid"];
                batches.push(Batch::read(&fields, names));
                next_offset = batches.last().map(|batch| batch.base_offset);
            }
            "record" => {
                let offset = fields["offset"].parse().ok();
                assert_eq!(offset, next_offset, "{line}");
                let key = format!("key-{}", fields["offset"]);
                assert!(fields["key"].contains(&key), "{line}");
                next_offset = next_offset.map(|offset| offset + 1);
            }
            _ => panic!("logstreams dump says {line:?}"),
        }
        let last_offset = batches.last().map(|batch| batch.last_offset + 1);
        assert!(next_offset <= last_offset, "more records than the batch before has: {line}");
    }
    let last_offset = batches.last().map(|batch| batch.last_offset + 1);
    assert_eq!(next_offset, last_offset, "{}: the last batch lacks records", log.display());
    batches
}
