//! The stock clients: how each program of tests/clients/ is started, and its verbs as functions.
//!
//! tests/clients/README.md has the contract of the lines that go in and come out.

use crate::support::process::{self, PATIENCE, Process};
use crate::support::records::{Acks, Consumed, Record};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// The codecs of the protocol.
pub const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// A client with a program of its own. kcat is driven by its test directly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    ConfluentKafka,
    KafkaPython,
    Aiokafka,
    KafkaJs,
    FranzGo,
    Sarama,
    Java,
}

/// How sure a producer should be of exactly one copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idempotence {
    /// As the client does it when nothing is said.
    ClientDefault,
    On,
    Off,
}

/// Where `install` puts what the clients need.
pub fn installed(path: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("a target directory");
    let path = target.join("clients").join(path);
    assert!(path.exists(), "{} is missing: run ./test, which installs the clients", path.display());
    path
}

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(path)
}

/// A Java virtual machine with Kafka's jars, made to start fast rather than to run long.
pub fn java() -> Command {
    let mut command = Command::new("java");
    command.args(["-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-classpath"]);
    command.arg(format!("{}:{}/*", installed("java").display(), installed("kafka/libs").display()));
    command
}

fn python(program: &str) -> Command {
    let mut command = Command::new(installed("venv/bin/python"));
    command.arg(source(program));
    command
}

impl Client {
    fn command(self, bootstrap: &str) -> Command {
        let mut command = match self {
            Client::ConfluentKafka => python("confluent-kafka/client.py"),
            Client::KafkaPython => python("kafka-python/client.py"),
            Client::Aiokafka => python("aiokafka/client.py"),
            Client::KafkaJs => {
                let mut command = Command::new("node");
                command.env("NODE_PATH", installed("kafkajs/node_modules"));
                command.env("KAFKAJS_NO_PARTITIONER_WARNING", "1").arg(source("kafkajs/client.js"));
                command
            }
            Client::FranzGo => Command::new(installed("go/franz-go")),
            Client::Sarama => Command::new(installed("go/sarama")),
            Client::Java => {
                let mut command = java();
                command.args(["-Xmx256m", "-XX:+UseSerialGC", "Client"]);
                command
            }
        };
        command.arg("--bootstrap").arg(bootstrap);
        command
    }

    fn run<S: AsRef<str>>(self, bootstrap: &str, verb: &str, args: &[S], input: Vec<u8>) -> Vec<String> {
        let mut command = self.command(bootstrap);
        command.arg(verb).args(args.iter().map(S::as_ref));
        process::run(format!("{self:?} {verb}"), &mut command, input)
    }

    pub fn create(self, bootstrap: &str, topics: &[String], partitions: u32, configs: &[&str]) {
        let mut args = vec![topics.join(","), partitions.to_string()];
        args.extend(configs.iter().map(|&config| config.to_owned()));
        self.run(bootstrap, "create", &args, Vec::new());
    }

    /// Sends `records` to each of `targets`, pairs of topic and codec.
    pub fn produce(self, bootstrap: &str, targets: &[(String, &str)], records: &[Record]) -> Acks {
        let args: Vec<String> = targets.iter().map(|(topic, codec)| format!("{topic}:{codec}")).collect();
        let input: String = records.iter().map(Record::to_line).collect();
        let mut acks = Acks::default();
        for line in self.run(bootstrap, "produce", &args, input.into_bytes()) {
            acks.read(&line);
        }
        acks
    }

    /// A producer that is fed line by line and lives until its input is closed.
    pub fn produce_on_and_on(self, bootstrap: &str, topic: &str, idempotence: Idempotence) -> Process {
        let mut command = self.command(bootstrap);
        command.arg("produce");
        match idempotence {
            Idempotence::ClientDefault => {}
            Idempotence::On => drop(command.arg("--idempotent")),
            Idempotence::Off => drop(command.arg("--plain")),
        }
        Process::spawn(format!("{self:?} produce"), command.arg(format!("{topic}:none")))
    }

    /// All records of `topics`, each partition in order.
    pub fn consume(self, bootstrap: &str, topics: &[String]) -> Vec<Consumed> {
        self.consume_with(bootstrap, topics)
    }

    /// As `consume`, without what was aborted or is still open. Java and confluent-kafka only.
    pub fn consume_committed(self, bootstrap: &str, topics: &[String]) -> Vec<Consumed> {
        let mut args = vec!["--committed".to_owned()];
        args.extend_from_slice(topics);
        self.consume_with(bootstrap, &args)
    }

    fn consume_with(self, bootstrap: &str, args: &[String]) -> Vec<Consumed> {
        let lines = self.run(bootstrap, "consume", args, Vec::new());
        lines
            .iter()
            .map(|line| line.split('\t').collect::<Vec<_>>())
            .map(|fields| {
                assert_eq!(fields[0], "record", "consume says {fields:?}");
                Consumed::from_fields(&fields[1..])
            })
            .collect()
    }

    /// Begins to move `count` records from one topic to another in transactions, each exactly once.
    pub fn transact(
        self,
        bootstrap: &str,
        id: &str,
        group: &str,
        (input, output): (&str, &str),
        count: usize,
    ) -> Process {
        let mut command = self.command(bootstrap);
        command.args(["transact", id, group, input, output]).arg(count.to_string());
        Process::spawn(format!("{self:?} transact {id}"), &mut command)
    }

    /// Joins `group`; with `count` the member leaves after so many records.
    pub fn member(self, bootstrap: &str, group: &str, topic: &str, count: Option<usize>) -> Member {
        self.member_with(bootstrap, group, topic, count, &[])
    }

    /// As `member`, by the protocol of KIP-848.
    pub fn modern_member(self, bootstrap: &str, group: &str, topic: &str, count: Option<usize>) -> Member {
        self.member_with(bootstrap, group, topic, count, &["--modern"])
    }

    fn member_with(
        self,
        bootstrap: &str,
        group: &str,
        topic: &str,
        count: Option<usize>,
        flags: &[&str],
    ) -> Member {
        let mut command = self.command(bootstrap);
        command.arg("member").args(flags);
        if let Some(count) = count {
            command.arg("--count").arg(count.to_string());
        }
        command.args([group, topic]);
        Member {
            process: Process::spawn(format!("{self:?} member of {group}"), &mut command),
            assigned: Vec::new(),
            records: Vec::new(),
            committed: BTreeMap::new(),
        }
    }

    /// Runs the client's administrative scenario and returns the steps that it took.
    pub fn admin(self, bootstrap: &str, name: &str) -> Vec<String> {
        let lines = self.run(bootstrap, "admin", &[name], Vec::new());
        lines.iter().map(|line| line.strip_prefix("step\t").unwrap_or(line).to_owned()).collect()
    }
}

impl Acks {
    /// Takes in one line of `produce`.
    pub fn read(&mut self, line: &str) {
        match *line.split('\t').collect::<Vec<_>>() {
            ["ack", topic, line, partition, offset] => {
                let place = (partition.parse().expect("a partition"), offset.parse().expect("an offset"));
                let before =
                    self.acked.insert((topic.to_owned(), line.parse().expect("a line number")), place);
                assert_eq!(before, None, "line {line} of {topic} was acknowledged twice");
            }
            ["failed", ..] => self.failed.push(line.to_owned()),
            _ => panic!("produce says {line:?}"),
        }
    }
}

/// A member of a consumer group and what it has told us.
pub struct Member {
    pub process: Process,
    /// The partitions that it owns now.
    pub assigned: Vec<i32>,
    /// All that it has consumed.
    pub records: Vec<Consumed>,
    /// The last offset that it committed, by partition.
    pub committed: BTreeMap<i32, i64>,
}

impl Drop for Member {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!(
                "a member that owns {:?} has consumed {} records and committed {:?}",
                self.assigned,
                self.records.len(),
                self.committed
            );
        }
    }
}

impl Member {
    /// Takes in what the member has said so far.
    pub fn listen(&mut self) {
        while let Some(line) = self.process.ready_line() {
            self.read(&line);
        }
    }

    /// Waits until the member has left by itself, and takes in all that it said.
    pub fn listen_to_the_end(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while let Some(line) = self.process.next_line(deadline) {
            self.read(&line);
        }
        self.process.expect_success();
    }

    fn read(&mut self, line: &str) {
        let fields: Vec<&str> = line.split('\t').collect();
        match fields[0] {
            "assigned" => {
                self.assigned =
                    fields[1].split_terminator(',').map(|id| id.parse().expect("a partition")).collect();
            }
            "record" => self.records.push(Consumed::from_fields(&fields[1..])),
            "committed" => {
                for pair in fields[1].split(',') {
                    let (partition, offset) = pair.split_once(':').expect("PARTITION:OFFSET");
                    let offset = offset.parse().expect("an offset");
                    self.committed.insert(partition.parse().expect("a partition"), offset);
                }
            }
            "commit-failed" => {}
            _ => panic!("member says {line:?}"),
        }
    }
}

/// Listens to the members until the condition holds; a bound, not an expectation.
pub fn wait_until(what: &str, members: &mut [&mut Member], condition: impl Fn(&[&Member]) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        for member in &mut *members {
            member.listen();
        }
        let seen: Vec<&Member> = members.iter().map(|member| &**member).collect();
        if condition(&seen) {
            return;
        }
        if Instant::now() > deadline {
            let state: Vec<_> = seen
                .iter()
                .map(|member| (&member.assigned, member.records.len(), &member.committed))
                .collect();
            panic!("waited in vain until {what}; members (assigned, consumed, committed): {state:?}");
        }
        thread::sleep(Duration::from_millis(20));
    }
}
