//! The command line, and the checks that need no broker.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;

use crate::bare::BareArgs;
use crate::bare_server::BareServerArgs;
use crate::compare::CompareArgs;
use crate::compression::Compression;
use crate::groups::{CommittedArgs, GroupsArgs};
use crate::keys::Keys;
use crate::payload::STAMP_BYTES;
use crate::pubsub::PubsubArgs;
use crate::scenario::RunArgs;

const IDEMPOTENT_IN_FLIGHT_MAX: usize = 5;

/// Drives any Kafka-protocol broker with a measured load.
#[derive(Parser, Debug)]
#[command(version, about)]
pub struct Cli {
    #[command(subcommand)]
    pub action: Action,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Action {
    #[command(flatten)]
    Load(Box<Command>),
    Run(RunArgs),
    Groups(GroupsArgs),
    Committed(CommittedArgs),
    Pubsub(PubsubArgs),
    Bare(BareArgs),
    /// The other end of `bare`.
    #[command(hide = true)]
    BareServer(BareServerArgs),
    Compare(CompareArgs),
}

/// A load on a broker.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Send messages; measure throughput and the time to the acknowledgement.
    Produce {
        #[command(flatten)]
        common: CommonArgs,
        #[command(flatten)]
        produce: ProduceArgs,
    },
    /// Fetch messages; measure throughput and the time of a fetch.
    Consume {
        #[command(flatten)]
        common: CommonArgs,
        #[command(flatten)]
        consume: ConsumeArgs,
    },
    /// Send and fetch at once; also measure the time from the intended send to the reading.
    Both {
        #[command(flatten)]
        common: CommonArgs,
        #[command(flatten)]
        produce: ProduceArgs,
        #[command(flatten)]
        consume: ConsumeArgs,
    },
}

#[derive(Args, Clone, Debug, Serialize)]
pub struct CommonArgs {
    /// Brokers to begin with, `HOST:PORT[,HOST:PORT...]`.
    #[arg(long, default_value = "127.0.0.1:9092")]
    pub bootstrap: String,
    /// The topic.
    #[arg(long, default_value = "loadgen")]
    pub topic: String,
    /// So many topics, TOPIC-0, TOPIC-1, ..., all used alike; without it the one called TOPIC.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub topics: Option<u32>,
    /// Create the topic (each topic) with so many partitions if it is missing.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    pub partitions: Option<i32>,
    /// Replication factor of a topic that is created; -1 is the broker's default.
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    pub replication: i16,
    /// Configuration of a topic that is created, `KEY=VALUE`; repeatable.
    #[arg(long = "topic-config", value_parser = parse_pair)]
    pub topic_configs: Vec<(String, String)>,
    /// Delete the topics at the end of a run that went well.
    #[arg(long)]
    pub delete_topic: bool,
    /// End after so much measured time, e.g. `10s`, `500ms`, `2m`. Default 10s unless a count is given.
    #[arg(long, value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// End after so many measured messages, all clients together.
    #[arg(long)]
    pub messages: Option<u64>,
    /// End after so many measured bytes, e.g. `1GiB`: of values when producing, of batches when consuming.
    #[arg(long, value_parser = parse_bytes)]
    pub bytes: Option<u64>,
    /// Run so long before measuring.
    #[arg(long, value_parser = parse_duration, default_value = "0s")]
    pub warmup: Duration,
    /// How long after the end answers are awaited; what is then open counts with the time it waited so far.
    #[arg(long, value_parser = parse_duration, default_value = "10s")]
    pub drain: Duration,
    /// A request without a reply for so long breaks its connection.
    #[arg(long, value_parser = parse_duration, default_value = "30s")]
    pub request_timeout: Duration,
    /// A message, partition or broker that fails for so long ends the run.
    #[arg(long, value_parser = parse_duration, default_value = "60s")]
    pub delivery_timeout: Duration,
    /// Threads for producers, and as many for consumers.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// CPUs to run on, e.g. `1` or `2,3`; threads take turns.
    #[arg(long, value_delimiter = ',')]
    pub pin: Vec<usize>,
    /// Report this process's CPU and memory over the measured window.
    #[arg(long)]
    pub broker_pid: Option<u32>,
    /// Write latencies as an HdrHistogram interval log (V2), one entry a second; values in ns, column Max in ms.
    #[arg(long)]
    pub hdr_log: Option<String>,
    /// Write results as JSON to a file, or to standard output (`-`).
    #[arg(long)]
    pub json: Option<String>,
    /// No progress line each second.
    #[arg(long)]
    pub quiet: bool,
    /// Progress as a view that redraws itself, where standard error is a terminal; else lines.
    #[arg(long)]
    pub view: bool,
    /// Stamp payloads and check that nothing is lost, doubled or damaged.
    #[arg(long)]
    pub verify: bool,
}

#[derive(Args, Clone, Debug, Serialize)]
pub struct ProduceArgs {
    /// Producers; each has a connection to every broker that leads a partition.
    #[arg(long, default_value_t = 1)]
    pub connections: usize,
    /// Messages a second of all producers together (open loop); 0 is as fast as possible (closed loop).
    #[arg(long, default_value_t = 0.0)]
    pub rate: f64,
    /// Bytes of a message's value.
    #[arg(long, value_parser = parse_bytes, default_value = "1024")]
    pub message_bytes: u64,
    /// Most bytes of a batch.
    #[arg(long, value_parser = parse_bytes, default_value = "64KiB")]
    pub batch_bytes: u64,
    /// Most messages of a batch; default is what fits.
    #[arg(long)]
    pub batch_messages: Option<u32>,
    /// Keys: `none` (batches go to the partitions in turn), `uniform:N`, `zipf:N` or `zipf:N:EXPONENT`. A key's partition is
    /// that of Kafka's default partitioner (murmur2).
    #[arg(long, value_parser = Keys::parse, default_value = "none")]
    pub keys: Keys,
    /// How long a message may wait for its batch to fill (open loop).
    #[arg(long, default_value_t = 0.0)]
    pub linger_ms: f64,
    /// Requests in flight per connection.
    #[arg(long, default_value_t = 5)]
    pub in_flight: usize,
    /// Which acknowledgement to wait for.
    #[arg(long, value_enum, default_value = "all")]
    pub acks: Acks,
    #[arg(long, value_enum, default_value = "none")]
    pub compression: Compression,
    /// Number batches so that the broker drops doubles (needs --acks all and at most 5 in flight).
    #[arg(long)]
    pub idempotent: bool,
    /// Send in transactions that are committed (implies --idempotent).
    #[arg(long)]
    pub transactional: bool,
    /// Commit a transaction after so many messages.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub transaction_messages: u64,
    /// Commit a transaction after so long, however few messages it has.
    #[arg(long, value_parser = parse_duration, default_value = "1s")]
    pub transaction_interval: Duration,
}

#[derive(Args, Clone, Debug, Serialize)]
pub struct ConsumeArgs {
    /// Consumers. Up to the number of partitions they share them; beyond it each extra one reads a partition anew.
    #[arg(long, default_value_t = 1)]
    pub consumers: usize,
    /// A fetch is answered once so much is there.
    #[arg(long, value_parser = parse_bytes, default_value = "1")]
    pub fetch_min_bytes: u64,
    /// Most bytes of a fetch.
    #[arg(long, value_parser = parse_bytes, default_value = "50MiB")]
    pub fetch_max_bytes: u64,
    /// Most bytes of a partition in a fetch.
    #[arg(long, value_parser = parse_bytes, default_value = "1MiB")]
    pub partition_max_bytes: u64,
    /// A fetch is answered after so long, whatever is there.
    #[arg(long, default_value_t = 500)]
    pub max_wait_ms: i32,
    /// See only what is committed.
    #[arg(long)]
    pub read_committed: bool,
    /// Begin at the log's start, not at its end.
    #[arg(long)]
    pub from_beginning: bool,
    /// At the log's end (as it was at the start of the run) begin again.
    #[arg(long)]
    pub rewind: bool,
    /// End at the log's end as it was at the start of the run.
    #[arg(long)]
    pub exit_at_end: bool,
}

impl CommonArgs {
    /// The names of all topics of the run.
    pub fn topic_names(&self) -> Vec<String> {
        match self.topics {
            None => vec![self.topic.clone()],
            Some(count) => (0..count).map(|index| format!("{}-{index}", self.topic)).collect(),
        }
    }
}

/// Kafka's acknowledgement levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
pub enum Acks {
    #[value(name = "0")]
    #[serde(rename = "0")]
    None,
    #[value(name = "1")]
    #[serde(rename = "1")]
    Leader,
    #[value(name = "all", alias = "-1")]
    #[serde(rename = "all")]
    All,
}

impl Acks {
    /// The number on the wire.
    pub fn code(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Leader => 1,
            Self::All => -1,
        }
    }
}

impl Command {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Produce { .. } => "produce",
            Self::Consume { .. } => "consume",
            Self::Both { .. } => "both",
        }
    }

    pub fn common(&self) -> &CommonArgs {
        match self {
            Self::Produce { common, .. } | Self::Consume { common, .. } | Self::Both { common, .. } => common,
        }
    }

    pub fn produce(&self) -> Option<&ProduceArgs> {
        match self {
            Self::Produce { produce, .. } | Self::Both { produce, .. } => Some(produce),
            Self::Consume { .. } => None,
        }
    }

    pub fn consume(&self) -> Option<&ConsumeArgs> {
        match self {
            Self::Consume { consume, .. } | Self::Both { consume, .. } => Some(consume),
            Self::Produce { .. } => None,
        }
    }

    /// Whether payloads carry stamps.
    pub fn is_stamped(&self) -> bool {
        self.common().verify || matches!(self, Self::Both { .. })
    }

    /// Refuses what cannot work.
    ///
    /// # Errors
    /// A sentence about the first contradiction.
    pub fn check(&self) -> Result<()> {
        let common = self.common();
        ensure!(common.threads > 0, "--threads must be at least 1");
        if let Some(produce) = self.produce() {
            ensure!(produce.connections > 0, "--connections must be at least 1");
            ensure!(produce.in_flight > 0, "--in-flight must be at least 1");
            ensure!(produce.rate >= 0.0 && produce.rate.is_finite(), "--rate is a number from 0");
            ensure!(produce.linger_ms >= 0.0 && produce.linger_ms < 1e6, "--linger-ms is a number from 0");
            ensure!(produce.message_bytes <= produce.batch_bytes.max(1 << 29), "--message-bytes is absurd");
            if produce.idempotent || produce.transactional {
                let flag = if produce.transactional { "--transactional" } else { "--idempotent" };
                ensure!(produce.acks == Acks::All, "{flag} needs --acks all");
                ensure!(
                    produce.in_flight <= IDEMPOTENT_IN_FLIGHT_MAX,
                    "{flag} allows {IDEMPOTENT_IN_FLIGHT_MAX} requests in flight"
                );
            }
            if self.is_stamped() && produce.message_bytes < STAMP_BYTES as u64 {
                bail!("stamped messages (--verify, both) need --message-bytes of at least {STAMP_BYTES}");
            }
        }
        if let Some(consume) = self.consume() {
            ensure!(consume.consumers > 0, "--consumers must be at least 1");
            ensure!(!(consume.rewind && common.verify), "--rewind reads messages again, --verify minds");
            ensure!(!(consume.rewind && consume.exit_at_end), "--rewind and --exit-at-end contradict");
            if matches!(self, Self::Both { .. }) {
                ensure!(
                    !consume.rewind && !consume.exit_at_end,
                    "--rewind and --exit-at-end are for consume"
                );
            }
        }
        Ok(())
    }

    /// The measured time, if time ends the run.
    pub fn duration(&self) -> Option<Duration> {
        let common = self.common();
        let is_counted = common.messages.is_some()
            || common.bytes.is_some()
            || self.consume().is_some_and(|consume| consume.exit_at_end);
        common.duration.or(if is_counted { None } else { Some(Duration::from_secs(10)) })
    }
}

/// `10s`, `500ms`, `2m`, or a bare number of seconds.
///
/// # Errors
/// If it is none of these.
pub fn parse_duration(text: &str) -> Result<Duration> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let seconds_per_unit = match &text[digits.len()..] {
        "" | "s" => 1.0,
        "ms" => 1e-3,
        "us" => 1e-6,
        "m" => 60.0,
        "h" => 3_600.0,
        unit => bail!("unknown unit {unit}: use us, ms, s, m or h"),
    };
    Ok(Duration::try_from_secs_f64(digits.parse::<f64>()? * seconds_per_unit)?)
}

/// `65536`, `64KiB`, `1MB`, ...
///
/// # Errors
/// If the number or the unit is none, or too much.
pub fn parse_bytes(text: &str) -> Result<u64> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        unit => bail!("unknown unit {unit}: use B, KiB, MiB, GiB, kB, MB or GB"),
    };
    digits.parse::<u64>()?.checked_mul(unit).ok_or_else(|| anyhow::anyhow!("{text} is too much"))
}

fn parse_pair(text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_string(), value.to_string())),
        _ => bail!("expected KEY=VALUE, not {text}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::{CommandFactory, Parser};

    use super::{Action, Cli, parse_bytes, parse_duration};

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_and_bytes_read_as_people_write_them() {
        assert_eq!(parse_duration("1.5").expect("seconds"), Duration::from_millis(1_500));
        assert_eq!(parse_duration("250ms").expect("milliseconds"), Duration::from_millis(250));
        assert_eq!(parse_duration("2m").expect("minutes"), Duration::from_secs(120));
        assert!(parse_duration("-1s").is_err());
        assert!(parse_duration("1 fortnight").is_err());
        assert_eq!(parse_bytes("64KiB").expect("bytes"), 65_536);
        assert_eq!(parse_bytes("2GB").expect("bytes"), 2_000_000_000);
        assert!(parse_bytes("1XB").is_err());
    }

    #[test]
    fn contradictions_are_refused_before_anything_is_sent() {
        for (line, word) in [
            ("produce --idempotent --acks 1", "--acks all"),
            ("produce --idempotent --in-flight 6", "in flight"),
            ("both --message-bytes 10", "--message-bytes"),
            ("consume --rewind --verify", "--rewind"),
            ("produce --connections 0", "--connections"),
        ] {
            let words = std::iter::once("loadgen").chain(line.split(' '));
            let Action::Load(command) = Cli::try_parse_from(words).expect("parses").action else {
                panic!("{line} is no load");
            };
            let error = command.check().expect_err(line);
            assert!(error.to_string().contains(word), "{line}: {error}");
        }
    }
}
