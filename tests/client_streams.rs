//! Kafka Streams with `exactly_once_v2` counts the words of a real text while the application and the server are killed at
//! random: every word is counted exactly once, in the end and at every step on the way.

#![allow(clippy::disallowed_methods, reason = "the test waits for other processes, in real time")]

mod support;

use std::collections::HashMap;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use support::clients::{self, Client};
use support::process::{PATIENCE, Process};
use support::records::{Record, mixed, now_ms};
use support::server::{Options, Program, Server};

/// How long the counting may take after the last kill: what is a minute here may be ten on a busy machine.
const COUNTING_PATIENCE: Duration = Duration::from_secs(600);

/// Kafka needs seconds for a start, and is here only to prove the test.
fn rounds() -> u64 {
    if Program::under_test() == Program::Kafka { 3 } else { 12 }
}

#[test]
fn every_word_is_counted_exactly_once_whoever_is_killed() {
    let mut server = Server::start(Options::default());
    let topics = ["text", "counts"].map(str::to_owned);
    Client::Java.create(server.bootstrap(), &topics, 4, &[]);
    let text = text();
    let mut expected: HashMap<String, usize> = HashMap::new();
    for word in words(&text) {
        *expected.entry(word).or_default() += 1;
    }
    let lines = lines(&text);
    let acks = Client::ConfluentKafka.produce(server.bootstrap(), &[("text".to_owned(), "lz4")], &lines);
    assert_eq!(acks.acked.len(), lines.len());

    let mut application = Some(count_words(&server));
    for round in 0..rounds() {
        thread::sleep(Duration::from_millis(2_000 + mixed(round) % 3_000));
        if mixed(round + 1_000).is_multiple_of(2) {
            server.kill_dash_nine();
            server.start_again();
        } else if let Some(mut killed) = application.take() {
            killed.kill_dash_nine();
            application = Some(count_words(&server));
        }
    }
    let total: usize = expected.values().sum();
    let deadline = Instant::now() + COUNTING_PATIENCE;
    loop {
        let seen = Client::Java.consume_committed(server.bootstrap(), &topics[1..]);
        let mut counted: HashMap<String, usize> = HashMap::new();
        for found in &seen {
            let word = string(found.record.key.clone());
            let count: usize = string(found.record.value.clone()).parse().expect("a count");
            let last = counted.insert(word.clone(), count).unwrap_or(0);
            assert_eq!(count, last + 1, "{word:?} at {} of partition {}", found.offset, found.partition);
        }
        if seen.len() == total {
            assert_eq!(counted, expected);
            break;
        }
        assert!(seen.len() < total, "{} words of {total} are counted", seen.len());
        assert!(Instant::now() < deadline, "only {} words of {total} are counted", seen.len());
        thread::sleep(Duration::from_secs(2));
    }
    drop(application);
    server.stop();
}

fn count_words(server: &Server) -> Process {
    let mut command = clients::java();
    command.args([
        "-Xmx512m",
        "-XX:+UseSerialGC",
        "WordCount",
        server.bootstrap(),
        "word-count",
        "text",
        "counts",
    ]);
    command.arg(server.data_dir().with_file_name("streams"));
    let mut application = Process::spawn("WordCount", &mut command);
    let deadline = Instant::now() + PATIENCE;
    // Killed before it has begun it would prove nothing.
    while application.next_line(deadline).unwrap_or_else(|| application.fail("ended early"))
        != "state\tREBALANCING"
    {}
    application
}

/// More than three megabytes that people wrote: this program and its documents.
fn text() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = String::new();
    for file in ["README.md", "ARCHITECTURE.md", "CONFIGURATION.md", "PERF.md"] {
        text.push_str(&std::fs::read_to_string(root.join(file)).expect("a document"));
    }
    for directory in ["src", "tests", "tools", "benches"] {
        read_all(&root.join(directory), &mut text);
    }
    text
}

fn read_all(directory: &Path, text: &mut String) {
    let mut paths: Vec<_> = std::fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            read_all(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(&path).expect("a source file"));
        }
    }
}

/// As the application splits them.
fn words(text: &str) -> impl Iterator<Item = String> {
    let lower: Vec<String> = text.lines().map(str::to_lowercase).collect();
    lower.into_iter().flat_map(|line| {
        let is_other = |letter: char| !letter.is_ascii_lowercase();
        line.split(is_other).filter(|word| !word.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    })
}

fn lines(text: &str) -> Vec<Record> {
    let timestamp = now_ms();
    let record = |line: &str| Record {
        timestamp,
        key: None,
        value: Some(line.as_bytes().to_vec()),
        headers: Vec::new(),
    };
    text.lines().map(record).collect()
}

fn string(bytes: Option<Vec<u8>>) -> String {
    String::from_utf8(bytes.expect("a key and a value")).expect("text")
}
