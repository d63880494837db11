//! kcat, the client that operators have at hand: files in and out byte for byte, metadata, offsets by time, groups.

#![allow(clippy::disallowed_methods, reason = "the tests wait for other processes, in real time")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use support::clients::CODECS;
use support::modes::{Mode, unique};
use support::process::{self, PATIENCE, Process};
use support::records::mixed;
use tempfile::NamedTempFile;

macro_rules! in_every_mode {
    ($($scenario:ident)*) => {
        in_every_mode!(@mode one_shard OneShard $($scenario)*);
        in_every_mode!(@mode two_shards TwoShards $($scenario)*);
        in_every_mode!(@mode eight_shards EightShards $($scenario)*);
        in_every_mode!(@mode two_shard_listeners TwoShardListeners $($scenario)*);
        in_every_mode!(@mode eight_shard_listeners EightShardListeners $($scenario)*);
    };
    (@mode $module:ident $mode:ident $($scenario:ident)*) => {
        mod $module {
            $(#[test]
            fn $scenario() {
                crate::$scenario(crate::support::modes::Mode::$mode);
            })*
        }
    };
}

in_every_mode! {
    a_text_file_comes_back_line_by_line
    metadata_lists_brokers_topics_and_partitions
    offsets_are_found_by_time
    the_last_records_are_read_from_the_end
    headers_are_kept
    two_members_share_a_group
}

/// How every consuming call prints a record.
const FORMAT: &str = "%p\t%o\t%T\t%k\t%s\t%h\n";

struct Printed {
    partition: i32,
    offset: i64,
    timestamp: i64,
    key: String,
    value: String,
    headers: String,
}

impl Printed {
    fn read(line: &str) -> Printed {
        let &[partition, offset, timestamp, key, value, headers] = &*line.split('\t').collect::<Vec<_>>()
        else {
            panic!("kcat prints {line:?}");
        };
        Printed {
            partition: partition.parse().expect("a partition"),
            offset: offset.parse().expect("an offset"),
            timestamp: timestamp.parse().expect("a timestamp"),
            key: key.to_owned(),
            value: value.to_owned(),
            headers: headers.to_owned(),
        }
    }
}

fn command(bootstrap: &str, args: &[&str]) -> Command {
    let mut command = Command::new("kcat");
    command.args(["-b", bootstrap]).args(args);
    command
}

fn kcat(bootstrap: &str, args: &[&str]) -> Vec<String> {
    process::run(format!("kcat {}", args.join(" ")), &mut command(bootstrap, args), Vec::new())
}

/// Sends `KEY:VALUE` lines.
fn produce(bootstrap: &str, topic: &str, lines: &[String], extra: &[&str]) {
    let mut file = NamedTempFile::new().expect("a temporary file");
    for line in lines {
        writeln!(file, "{line}").expect("writing to a temporary file");
    }
    let path = file.path().to_str().expect("a plain path");
    // One request in flight, because librdkafka without idempotence may reorder what it must retry, and the first
    // batch for a topic that is created on the way is retried.
    let args = ["-P", "-t", topic, "-K:", "-X", "acks=all", "-X", "max.in.flight=1"];
    kcat(bootstrap, &[&args[..], extra, &["-l", path]].concat());
}

/// Everything from `from` to the end of each partition.
fn consume(bootstrap: &str, topic: &str, from: &str) -> Vec<Printed> {
    let lines = kcat(bootstrap, &["-C", "-q", "-e", "-t", topic, "-o", from, "-f", FORMAT]);
    lines.iter().map(|line| Printed::read(line)).collect()
}

/// The lines of a text file: numbered, keyed, of all lengths, with no character that kcat or we use as separator.
fn text(count: usize) -> Vec<String> {
    const WORDS: [&str; 8] =
        ["stream", "log", "append", "the", "durable", "größer", "=", "{\"json\": [1, 2]}"];
    (0..count)
        .map(|number| {
            let mut noise = mixed(number as u64);
            let mut line = format!("key{}:{number:07}", noise % 211);
            while !noise.is_multiple_of(11) {
                write!(line, " {}", WORDS[noise as usize % WORDS.len()]).expect("writing to a string");
                noise = mixed(noise);
            }
            line
        })
        .collect()
}

/// The topics of this test are created by being written to.
fn a_text_file_comes_back_line_by_line(mode: Mode) {
    let server = mode.shared();
    let lines = text(mode.sized(100_000, 5_000));
    for codec in CODECS {
        let topic = unique(codec);
        produce(server.bootstrap(), &topic, &lines, &["-z", codec]);
        let found = consume(server.bootstrap(), &topic, "beginning");
        assert_in_order(&topic, &found);
        let mut found: Vec<String> = found.iter().map(|at| format!("{}:{}", at.key, at.value)).collect();
        found.sort_by(|a, b| {
            a.split_once(':').map(|(_, value)| value).cmp(&b.split_once(':').map(|(_, value)| value))
        });
        assert_eq!(found.len(), lines.len(), "{topic}: lines lost or doubled");
        for (found, line) in found.iter().zip(&lines) {
            assert_eq!(found, line, "{topic}: the line changed on the way");
        }
    }
}

/// Offsets without a gap from 0, and within each partition the order of the file.
fn assert_in_order(topic: &str, found: &[Printed]) {
    let mut last: BTreeMap<i32, (i64, &str)> = BTreeMap::new();
    for at in found {
        let (offset, value) = last.insert(at.partition, (at.offset, &at.value)).unwrap_or((-1, ""));
        assert_eq!(at.offset, offset + 1, "{topic}-{}: a gap", at.partition);
        assert!(value < at.value.as_str(), "{topic}-{}: {:?} after {value:?}", at.partition, at.value);
    }
    assert_eq!(last.len(), 8, "{topic}: the keys did not reach all partitions");
}

fn metadata_lists_brokers_topics_and_partitions(mode: Mode) {
    let server = mode.shared();
    let topic = unique("listed");
    produce(server.bootstrap(), &topic, &text(10), &[]);

    let listed = kcat(server.bootstrap(), &["-L", "-t", &topic]).join("\n");
    assert!(listed.contains(&format!("topic \"{topic}\" with 8 partitions:")), "{listed}");
    for partition in 0..8 {
        assert!(listed.contains(&format!("    partition {partition}, leader ")), "{listed}");
    }
    let json = kcat(server.bootstrap(), &["-L", "-J"]).join("");
    assert!(json.contains(&format!("{{\"topic\":\"{topic}\",\"partitions\":[{{\"partition\":0,")), "{json}");

    // With shard listeners each shard is a broker of its own, and all of them lead.
    let brokers: BTreeSet<&str> = json
        .split("\"brokers\":")
        .nth(1)
        .expect("brokers")
        .split("\"topics\"")
        .next()
        .expect("brokers come first")
        .split("{\"id\":")
        .skip(1)
        .collect();
    let leaders: BTreeSet<&str> =
        listed.split(", leader ").skip(1).filter_map(|rest| rest.split(',').next()).collect();
    let expected = match (server.program(), mode) {
        (support::server::Program::LogStreams, Mode::TwoShardListeners) => 2,
        (support::server::Program::LogStreams, Mode::EightShardListeners) => 8,
        _ => 1,
    };
    assert_eq!(brokers.len(), expected, "brokers in {json}");
    assert_eq!(leaders.len(), expected, "leaders in {listed}");
}

fn offsets_are_found_by_time(mode: Mode) {
    let server = mode.shared();
    let topic = unique("timed");
    for half in text(200).chunks(100) {
        produce(server.bootstrap(), &topic, half, &["-p", "0"]);
        // So that the halves differ in their timestamps.
        thread::sleep(Duration::from_millis(5));
    }
    let found = consume(server.bootstrap(), &topic, "beginning");
    assert_eq!(found.len(), 200);
    let start_of_second_half = found[100].timestamp;
    for asked in [found[0].timestamp, start_of_second_half, start_of_second_half - 1] {
        let expected = found.iter().find(|at| at.timestamp >= asked).expect("the last is late enough").offset;
        let answer = kcat(server.bootstrap(), &["-Q", "-t", &format!("{topic}:0:{asked}")]);
        assert_eq!(answer, [format!("{topic} [0] offset {expected}")], "for the time {asked}");
    }
    let after = found[199].timestamp + 1;
    let answer = kcat(server.bootstrap(), &["-Q", "-t", &format!("{topic}:0:{after}")]);
    assert_eq!(answer, [format!("{topic} [0] offset -1")], "for a time after all records");
}

fn the_last_records_are_read_from_the_end(mode: Mode) {
    let server = mode.shared();
    let topic = unique("tail");
    let lines = text(500);
    produce(server.bootstrap(), &topic, &lines, &["-p", "3"]);
    let args = ["-C", "-q", "-e", "-t", &topic, "-p", "3", "-f", FORMAT, "-o"];
    let found = kcat(server.bootstrap(), &[&args[..], &["-10"]].concat());
    let found: Vec<Printed> = found.iter().map(|line| Printed::read(line)).collect();
    assert_eq!(found.iter().map(|at| at.offset).collect::<Vec<_>>(), (490..500).collect::<Vec<_>>());
    for (at, line) in found.iter().zip(&lines[490..]) {
        assert_eq!(format!("{}:{}", at.key, at.value), *line);
    }
    let at_end = kcat(server.bootstrap(), &[&args[..], &["end"]].concat());
    assert_eq!(at_end, [] as [String; 0], "nothing is after the end");
}

fn headers_are_kept(mode: Mode) {
    let server = mode.shared();
    let topic = unique("headers");
    produce(
        server.bootstrap(),
        &topic,
        &text(20),
        &["-H", "source=file", "-H", "empty=", "-H", "source=again"],
    );
    let found = consume(server.bootstrap(), &topic, "beginning");
    assert_eq!(found.len(), 20);
    for at in found {
        assert_eq!(at.headers, "source=file,empty=,source=again");
    }
}

fn two_members_share_a_group(mode: Mode) {
    let server = mode.shared();
    let (topic, group) = (unique("group"), unique("members"));
    let lines = text(600);
    produce(server.bootstrap(), &topic, &lines[..300], &[]);
    let join = || {
        let settings = ["-X", "auto.offset.reset=earliest", "-X", "session.timeout.ms=6000"];
        // Unbuffered, since the output is watched while kcat runs.
        let args = ["-u", "-f", FORMAT, "-G", &group, &topic];
        Process::spawn("kcat -G", &mut command(server.bootstrap(), &[&settings[..], &args].concat()))
    };
    let mut members = [join(), join()];
    let mut seen: [BTreeSet<String>; 2] = [BTreeSet::new(), BTreeSet::new()];
    let mut listen = |members: &mut [Process; 2], wanted: &dyn Fn(&[BTreeSet<String>; 2]) -> bool| {
        let deadline = Instant::now() + PATIENCE;
        while !wanted(&seen) {
            assert!(Instant::now() < deadline, "the members saw {} and {}", seen[0].len(), seen[1].len());
            for (member, seen) in members.iter_mut().zip(&mut seen) {
                while let Some(line) = member.ready_line() {
                    let at = Printed::read(&line);
                    seen.insert(format!("{}:{}", at.key, at.value));
                }
            }
            thread::sleep(Duration::from_millis(20));
        }
    };
    let all = |count: usize| {
        let lines = &lines;
        move |seen: &[BTreeSet<String>; 2]| {
            lines[..count].iter().all(|line| seen[0].contains(line) || seen[1].contains(line))
        }
    };
    listen(&mut members, &all(300));

    // Both own partitions once both see what is new; until the second has joined, the first sees it all.
    let mut sent = 300;
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "the two members never shared");
        let batch: Vec<String> = (0..64).map(|n| format!("key{n}:again {sent:07} {n}")).collect();
        produce(server.bootstrap(), &topic, &batch, &[]);
        let both = std::cell::Cell::new(false);
        listen(&mut members, &|seen| {
            both.set(
                batch.iter().any(|line| seen[0].contains(line))
                    && batch.iter().any(|line| seen[1].contains(line)),
            );
            batch.iter().all(|line| seen[0].contains(line) || seen[1].contains(line))
        });
        if both.get() {
            break;
        }
        sent += 1;
    }

    // One is killed, the other reads on.
    members[0].kill_dash_nine();
    produce(server.bootstrap(), &topic, &lines[300..], &[]);
    listen(&mut members, &all(600));
}
