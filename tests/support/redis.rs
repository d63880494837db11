//! The Redis door under test and Redis itself as its reference; the programs of Redis's client libraries; redis-cli.
//!
//! With `LOGSTREAMS_TEST_TARGET=redis` the subject is Redis too: it is how those tests are proven that ask for
//! nothing that Redis has not.

use crate::support::clients::installed;
use crate::support::process::{self, PATIENCE, Process};
use crate::support::server::{Options, Program, Server, free_port};
use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use tempfile::TempDir;

/// A redis-server in memory.
pub struct Redis {
    address: String,
    process: Process,
    directory: TempDir,
}

impl Redis {
    pub fn start() -> Redis {
        let directory = TempDir::with_prefix("logstreams-test-").expect("a temporary directory");
        let port = free_port();
        let mut command = Command::new("redis-server");
        command.args([
            "--bind",
            "127.0.0.1",
            "--port",
            &port.to_string(),
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command.arg("--dir").arg(directory.path());
        let mut process = Process::spawn("redis-server", &mut command);
        let deadline = Instant::now() + PATIENCE;
        loop {
            match process.next_line(deadline) {
                Some(line) if line.contains("Ready to accept connections") => break,
                Some(_) => {}
                None => process.fail("ended at its start"),
            }
        }
        Redis { address: format!("127.0.0.1:{port}"), process, directory }
    }

    pub fn address(&self) -> &str {
        &self.address
    }
}

/// What is under test.
pub enum Subject {
    LogStreams(Server),
    Redis(Redis),
}

impl Subject {
    /// A server of its own for a test, with so many shards.
    pub fn start(shards: usize) -> Subject {
        if std::env::var("LOGSTREAMS_TEST_TARGET").is_ok_and(|target| target == "redis") {
            return Subject::Redis(Redis::start());
        }
        Subject::LogStreams(logstreams(shards))
    }

    pub fn address(&self) -> &str {
        match self {
            Subject::LogStreams(server) => server.redis(),
            Subject::Redis(redis) => redis.address(),
        }
    }
}

/// LogStreams with its Redis door, where a topic has one partition, as a stream of Redis's has one order.
pub fn logstreams(shards: usize) -> Server {
    logstreams_with(Options { shards, ..Options::default() }.set("num.partitions", "1"))
}

/// LogStreams with its Redis door and these options.
pub fn logstreams_with(options: Options) -> Server {
    let options = Options { redis: true, ..options }.set("auto.create.topics.enable", "true");
    Server::start_program(Program::LogStreams, options)
}

/// A library with a program in tests/clients/.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    RedisPy,
    Ioredis,
    GoRedis,
}

impl Library {
    fn command(self, address: &str, protocol: u8) -> Command {
        let source =
            |program: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(program);
        let mut command = match self {
            Library::RedisPy => {
                let mut command = Command::new(installed("venv/bin/python"));
                command.arg(source("redis-py/client.py"));
                command
            }
            Library::Ioredis => {
                let mut command = Command::new("node");
                command.env("NODE_PATH", installed("ioredis/node_modules")).arg(source("ioredis/client.js"));
                command
            }
            Library::GoRedis => Command::new(installed("go/go-redis")),
        };
        command.args(["--address", address, "--protocol", &protocol.to_string()]);
        command
    }

    /// Takes the steps of a scenario on names that begin with `prefix`: pairs of what was done and what was seen.
    pub fn scenario(
        self,
        address: &str,
        protocol: u8,
        scenario: &str,
        prefix: &str,
    ) -> Vec<(String, String)> {
        let mut command = self.command(address, protocol);
        command.args(["scenario", scenario, prefix]);
        let lines = process::run(format!("{self:?} {scenario} at {address}"), &mut command, Vec::new());
        let steps = lines.iter().map(|line| {
            let mut fields = line.splitn(3, '\t');
            let (Some("step"), Some(name), Some(seen)) = (fields.next(), fields.next(), fields.next()) else {
                panic!("a scenario says {line:?}");
            };
            (name.to_owned(), seen.to_owned())
        });
        steps.collect()
    }

    /// A verb that goes on until its input is closed.
    pub fn start(self, address: &str, protocol: u8, verb: &[&str]) -> Process {
        Process::spawn(format!("{self:?} {}", verb.join(" ")), self.command(address, protocol).args(verb))
    }
}

fn redis_cli_command(address: &str, args: &[&str]) -> Command {
    let (host, port) = address.rsplit_once(':').expect("HOST:PORT");
    let mut command = Command::new("redis-cli");
    command.args(["-h", host, "-p", port]).args(args);
    command
}

/// What the stock `redis-cli` prints.
pub fn redis_cli(address: &str, args: &[&str]) -> Vec<String> {
    let name = format!("redis-cli {}", args.join(" "));
    process::run(name, &mut redis_cli_command(address, args), Vec::new())
}

/// A `redis-cli` that goes on.
pub fn start_redis_cli(address: &str, args: &[&str]) -> Process {
    Process::spawn(format!("redis-cli {}", args.join(" ")), &mut redis_cli_command(address, args))
}

/// Gives entry ids the same names whichever server made them: by the order in which they are first seen.
#[derive(Default)]
pub struct IdNames {
    names: HashMap<String, usize>,
}

impl IdNames {
    /// `text` with every `<13 digits>-<digits>` replaced by `#N`.
    pub fn rename(&mut self, text: &str) -> String {
        let mut renamed = String::new();
        let mut rest = text;
        while let Some(start) = rest.find(|char: char| char.is_ascii_digit()) {
            let (before, from) = rest.split_at(start);
            renamed.push_str(before);
            let digits = |text: &str| text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
            let (time, after) = from.split_at(digits(from));
            let sequence =
                after.strip_prefix('-').map(|after| &after[..digits(after)]).filter(|text| !text.is_empty());
            let length = match sequence {
                Some(sequence) if time.len() == 13 => {
                    let count = self.names.len() + 1;
                    let id = from[..time.len() + 1 + sequence.len()].to_owned();
                    let length = id.len();
                    renamed.push_str(&format!("#{}", self.names.entry(id).or_insert(count)));
                    length
                }
                _ => {
                    renamed.push_str(time);
                    time.len()
                }
            };
            rest = &from[length..];
        }
        renamed + rest
    }
}
