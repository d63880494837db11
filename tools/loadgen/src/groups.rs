//! `loadgen groups` and `loadgen committed`: what a broker's group coordinator costs and how fast it is back.
//!
//! `groups` fills consumer groups with members that heartbeat and commit but fetch nothing, and measures heartbeats,
//! commits, the broker's CPU and its memory per member. `committed`, started while the broker starts, measures how long it
//! takes until every group's committed offsets are answered.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use kafka_protocol::error::{ParseResponseErrorCode, ResponseError};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::{GroupId, OffsetFetchRequest, OffsetFetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use serde::Serialize;

use crate::cli::parse_duration;
use crate::clock::{MILLISECOND_NS, SECOND_NS, monotonic_ns};
use crate::cluster::{self, TopicPlan};
use crate::control::{Control, GROUP_KEY_TYPE};
use crate::member::{GroupPlan, Member, Protocol};
use crate::process::{self, ProcessSample};
use crate::report::{Cpu, Direction, Percentiles, grouped};
use crate::stats::{Interval, SharedInterval, Window};
use crate::worker::Worker;

/// Descriptors for everything but the members' connections.
const SPARE_DESCRIPTORS: u64 = 64;
/// How long groups may take to settle, and a broker to answer for all of them.
const SETTLE_NS_MAX: u64 = 120 * SECOND_NS;
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// OffsetFetch takes many groups from here on.
const OFFSET_FETCH_GROUPS_VERSION: i16 = 8;
/// Groups that one OffsetFetch asks for.
const GROUPS_PER_FETCH: usize = 100;

/// Which groups, and what they have committed.
#[derive(Args, Clone, Debug, Serialize)]
pub struct WhichGroups {
    /// Brokers to begin with, `HOST:PORT[,HOST:PORT...]`.
    #[arg(long, default_value = "127.0.0.1:9092")]
    pub bootstrap: String,
    /// The topic that all groups subscribe to; created if it is missing. The groups are called TOPIC-0, TOPIC-1, ...
    #[arg(long, default_value = "loadgen-groups")]
    pub topic: String,
    /// Partitions of the topic, each committed by each group.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i32).range(1..))]
    pub partitions: i32,
    /// Consumer groups.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    pub groups: u32,
    /// Write results as JSON to a file, or to standard output (`-`).
    #[arg(long)]
    pub json: Option<String>,
}

impl WhichGroups {
    fn names(&self) -> Vec<StrBytes> {
        (0..self.groups).map(|index| StrBytes::from_string(format!("{}-{index}", self.topic))).collect()
    }
}

/// Fill consumer groups with members that heartbeat and commit; measure heartbeats and what members cost the broker.
#[derive(Args, Clone, Debug, Serialize)]
pub struct GroupsArgs {
    #[command(flatten)]
    pub which: WhichGroups,
    /// Members of each group, with a connection each.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    pub members: u32,
    #[arg(long, value_enum, default_value = "classic")]
    pub protocol: Protocol,
    /// How often a member sends a heartbeat.
    #[arg(long, value_parser = parse_duration, default_value = "3s")]
    pub heartbeat_interval: Duration,
    /// How often a member commits.
    #[arg(long, value_parser = parse_duration, default_value = "5s")]
    pub commit_interval: Duration,
    /// Measured time, once all groups are settled.
    #[arg(long, value_parser = parse_duration, default_value = "10s")]
    pub duration: Duration,
    /// Report this process's CPU and memory.
    #[arg(long)]
    pub broker_pid: Option<u32>,
}

/// Wait until the committed offsets of all groups are answered; measure how long that takes from now.
#[derive(Args, Clone, Debug, Serialize)]
pub struct CommittedArgs {
    #[command(flatten)]
    pub which: WhichGroups,
}

/// What `groups` found.
#[derive(Debug, Serialize)]
pub struct GroupsReport {
    pub loadgen: &'static str,
    pub command: &'static str,
    pub options: GroupsArgs,
    /// From the first request to join until every member had its partitions.
    pub settled_after_ms: f64,
    /// Per heartbeat: latency from when it was due, service from its send.
    pub heartbeats: Direction,
    /// Per OffsetCommit of a member's partitions, from its send.
    pub commits_us: Option<Percentiles>,
    pub broker: Option<BrokerOfGroups>,
}

/// The broker while it served the groups.
#[derive(Debug, Serialize)]
pub struct BrokerOfGroups {
    pub pid: u32,
    #[serde(flatten)]
    pub cpu: Cpu,
    /// Anonymous memory before the members came, and when the measuring ended.
    pub rss_anonymous_before_bytes: u64,
    pub rss_anonymous_after_bytes: u64,
    pub bytes_per_member: f64,
}

/// What `committed` found.
#[derive(Debug, Serialize)]
pub struct CommittedReport {
    pub loadgen: &'static str,
    pub command: &'static str,
    pub options: CommittedArgs,
    pub answered_after_ms: f64,
}

/// Runs `groups`.
///
/// # Errors
/// If the broker cannot be reached, refuses a member, or does not settle the groups.
pub fn run(args: &GroupsArgs) -> Result<GroupsReport> {
    let member_count = args.which.groups as usize * args.members as usize;
    process::raise_descriptor_limit(member_count as u64 + SPARE_DESCRIPTORS)?;
    let mut control = Control::bootstrap(&args.which.bootstrap)?;
    let plan = Arc::new(plan(args, &mut control)?);
    let mut members = Vec::with_capacity(member_count);
    for group in args.which.names() {
        let (_, address) = control.find_coordinator(&group, GROUP_KEY_TYPE)?;
        for _ in 0..args.members {
            let position = members.len();
            members.push(Member::new(plan.clone(), group.clone(), address.clone(), position, member_count));
        }
    }
    let before = sample(args.broker_pid)?;
    let shared = SharedInterval::new();
    let mut worker = Worker::new(members, shared.clone())?;
    worker.connect()?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let begun_ns = monotonic_ns();
        let working = scope.spawn(|| worker.run(&stop, || u64::MAX));
        let watch = || {
            wait_for_all(&plan.settled, member_count, "have their partitions", || working.is_finished())?;
            let settled_after_ms = (monotonic_ns() - begun_ns) as f64 / MILLISECOND_NS as f64;
            wait_for_all(&plan.committed, member_count, "have committed", || working.is_finished())?;
            let (first, start_ns) = (sample(args.broker_pid)?, monotonic_ns());
            let end_ns = start_ns + u64::try_from(args.duration.as_nanos())?;
            plan.window.get_or_init(|| Window { start_ns, end_ns });
            thread::sleep(args.duration);
            let last = sample(args.broker_pid)?;
            let mut interval = Interval::new();
            shared.swap(&mut interval);
            report(args, settled_after_ms, &interval, [before, first, last], member_count)
        };
        let watched = watch();
        stop.store(true, Ordering::Relaxed);
        working.join().expect("no panic among the members")?;
        watched
    })
}

fn plan(args: &GroupsArgs, control: &mut Control) -> Result<GroupPlan> {
    let topics = TopicPlan {
        names: vec![args.which.topic.clone()],
        partitions: Some(args.which.partitions),
        replication: -1,
        configs: Vec::new(),
    };
    let view = cluster::ensure_topics(control, &topics)?;
    let (partitions, wanted) = (view.leaders.len(), args.which.partitions);
    ensure!(
        i32::try_from(partitions)? == wanted,
        "{} has {partitions} partitions, not {wanted}",
        args.which.topic
    );
    Ok(GroupPlan {
        protocol: args.protocol,
        apis: control.apis.clone(),
        topic: StrBytes::from_string(args.which.topic.clone()),
        partitions: wanted,
        session_timeout_ms: 45_000,
        rebalance_timeout_ms: 60_000,
        heartbeat_interval_ns: u64::try_from(args.heartbeat_interval.as_nanos())?,
        commit_interval_ns: u64::try_from(args.commit_interval.as_nanos())?,
        window: OnceLock::new(),
        settled: AtomicUsize::new(0),
        committed: AtomicUsize::new(0),
    })
}

fn sample(pid: Option<u32>) -> Result<Option<ProcessSample>> {
    pid.map(ProcessSample::take).transpose()
}

fn wait_for_all(count: &AtomicUsize, all: usize, what: &str, is_over: impl Fn() -> bool) -> Result<()> {
    let deadline_ns = monotonic_ns() + SETTLE_NS_MAX;
    while count.load(Ordering::Relaxed) < all {
        ensure!(!is_over(), "the members gave up");
        let so_far = count.load(Ordering::Relaxed);
        ensure!(
            monotonic_ns() < deadline_ns,
            "{so_far} of {all} members {what} after {} s",
            SETTLE_NS_MAX / SECOND_NS
        );
        thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

fn report(
    args: &GroupsArgs,
    settled_after_ms: f64,
    interval: &Interval,
    [before, first, last]: [Option<ProcessSample>; 3],
    member_count: usize,
) -> Result<GroupsReport> {
    let heartbeats = Direction::new(&interval.consume, args.duration);
    let broker = match (args.broker_pid, before, first, last) {
        (Some(pid), Some(before), Some(first), Some(last)) => Some(BrokerOfGroups {
            pid,
            cpu: Cpu::new(last.cpu_s() - first.cpu_s(), args.duration, &heartbeats),
            rss_anonymous_before_bytes: before.rss_anonymous_bytes,
            rss_anonymous_after_bytes: last.rss_anonymous_bytes,
            bytes_per_member: last.rss_anonymous_bytes.saturating_sub(before.rss_anonymous_bytes) as f64
                / member_count as f64,
        }),
        _ => None,
    };
    Ok(GroupsReport {
        loadgen: env!("CARGO_PKG_VERSION"),
        command: "groups",
        options: args.clone(),
        settled_after_ms,
        commits_us: Percentiles::of(&interval.consume.commit),
        heartbeats,
        broker,
    })
}

impl GroupsReport {
    /// The report for people.
    ///
    /// # Errors
    /// None that writing to a string can have.
    pub fn to_text(&self) -> Result<String> {
        let mut text = String::new();
        let (groups, members) = (self.options.which.groups, self.options.members);
        writeln!(
            text,
            "groups  {groups} of {members} members, settled after {:.0} ms",
            self.settled_after_ms
        )?;
        for (what, percentiles) in [
            ("heartbeat", &self.heartbeats.latency_us),
            ("service", &self.heartbeats.service_us),
            ("commit", &self.commits_us),
        ] {
            let Some(of) = percentiles else { continue };
            writeln!(text, "  {what:<10} {} times  {}", grouped(of.count as f64), of.to_text())?;
        }
        if let Some(broker) = &self.broker {
            writeln!(
                text,
                "  {:<10} CPU {:.1} % of a core; {:.0} MB anonymous, {:.1} kB a member",
                "broker",
                broker.cpu.cores * 100.0,
                broker.rss_anonymous_after_bytes as f64 / 1e6,
                broker.bytes_per_member / 1e3,
            )?;
        }
        Ok(text)
    }
}

/// Runs `committed`.
///
/// # Errors
/// If the broker is not up in time, or says that something was never committed.
pub fn run_committed(args: &CommittedArgs) -> Result<CommittedReport> {
    let begun_ns = monotonic_ns();
    let deadline_ns = begun_ns + SETTLE_NS_MAX;
    let mut control = loop {
        match Control::bootstrap(&args.which.bootstrap) {
            Ok(control) => break control,
            Err(error) if monotonic_ns() > deadline_ns => return Err(error),
            Err(_) => thread::sleep(POLL_INTERVAL),
        }
    };
    let version = control.apis.version::<OffsetFetchRequest>()?;
    ensure!(
        version >= OFFSET_FETCH_GROUPS_VERSION,
        "the broker serves OffsetFetch {version}, of one group at a time"
    );
    for groups in args.which.names().chunks(GROUPS_PER_FETCH) {
        let request = offset_fetch(&args.which, groups);
        while !is_answered(&control.call(&request)?, groups.len(), args.which.partitions)? {
            ensure!(monotonic_ns() < deadline_ns, "the broker still loads its groups");
            thread::sleep(POLL_INTERVAL);
        }
    }
    Ok(CommittedReport {
        loadgen: env!("CARGO_PKG_VERSION"),
        command: "committed",
        options: args.clone(),
        answered_after_ms: (monotonic_ns() - begun_ns) as f64 / MILLISECOND_NS as f64,
    })
}

fn offset_fetch(which: &WhichGroups, groups: &[StrBytes]) -> OffsetFetchRequest {
    let topic = OffsetFetchRequestTopics::default()
        .with_name(TopicName(StrBytes::from_string(which.topic.clone())))
        .with_partition_indexes((0..which.partitions).collect());
    let groups = groups.iter().map(|group| {
        OffsetFetchRequestGroup::default()
            .with_group_id(GroupId(group.clone()))
            .with_member_epoch(-1)
            .with_topics(Some(vec![topic.clone()]))
    });
    OffsetFetchRequest::default().with_groups(groups.collect())
}

/// Whether all were answered; `false` while the coordinator loads.
fn is_answered(response: &OffsetFetchResponse, groups: usize, partitions: i32) -> Result<bool> {
    ensure!(
        response.groups.len() == groups,
        "OffsetFetch answered for {} groups of {groups}",
        response.groups.len()
    );
    for group in &response.groups {
        match group.error_code.err() {
            None => {}
            Some(
                ResponseError::CoordinatorLoadInProgress
                | ResponseError::NotCoordinator
                | ResponseError::CoordinatorNotAvailable,
            ) => {
                return Ok(false);
            }
            Some(error) => bail!("OffsetFetch of {}: {error}", group.group_id.0),
        }
        let found = group.topics.iter().flat_map(|topic| &topic.partitions);
        let committed = found.filter(|partition| partition.committed_offset >= 0).count();
        let missing = || format!("{} has {committed} of {partitions} offsets", group.group_id.0);
        (i32::try_from(committed)? == partitions).then_some(()).with_context(missing)?;
    }
    Ok(true)
}
