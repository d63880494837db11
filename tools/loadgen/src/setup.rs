//! From a command line to clients that are ready to connect: finds or makes the topic, agrees on versions, asks for
//! producer ids and start offsets, shares the work among the clients.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{EndTxnRequest, FetchRequest, ProduceRequest};

use crate::batch::BatchTemplate;
use crate::cli::{Command, CommonArgs, ConsumeArgs, ProduceArgs};
use crate::clock::{MILLISECOND_NS, UnixOffset};
use crate::cluster::{self, Cluster, TopicPlan, View};
use crate::consume::{ConsumePlan, Consumer, Goal, Inspect, StartOffset};
use crate::control::{Control, EARLIEST, LATEST};
use crate::keys::{self, Keys};
use crate::process;
use crate::produce::{FrameCache, Identity, ProducePlan, Producer};
use crate::timeline::Timeline;
use crate::transaction::{self, END_TXN_VERSION, PRODUCE_VERSION_MIN, TransactionLimits};

/// Descriptors for everything but client connections.
const SPARE_DESCRIPTORS: u64 = 64;
/// How long the leaders of a new topic may refuse to be asked for offsets.
const OFFSETS_TIMEOUT: Duration = Duration::from_secs(15);
const OFFSETS_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// What the producers tell the consumers of the same run.
#[derive(Clone, Default)]
pub struct Handover {
    pub acknowledged: Arc<AtomicU64>,
    pub received: Arc<AtomicU64>,
    pub producers_are_done: Arc<AtomicBool>,
}

/// Clients, not yet connected, and what they share.
pub struct Setup {
    pub producers: Vec<Producer>,
    pub consumers: Vec<Consumer>,
    pub partition_count: usize,
    pub unix: UnixOffset,
    /// In the stamps of this run.
    pub run_id: u32,
    pub timeline: Arc<OnceLock<Timeline>>,
    pub handover: Handover,
}

/// What both kinds of clients need.
struct Common<'a> {
    args: &'a CommonArgs,
    control: Control,
    cluster: Arc<Cluster>,
    setup: Setup,
}

/// Prepares the clients of a command.
///
/// # Errors
/// If the broker cannot be reached or cannot do what is asked.
pub fn prepare(command: &Command) -> Result<Setup> {
    let args = command.common();
    let mut control = Control::bootstrap(&args.bootstrap)?;
    let plan = TopicPlan {
        names: args.topic_names(),
        partitions: args.partitions,
        replication: args.replication,
        configs: args.topic_configs.clone(),
    };
    let view = cluster::ensure_topics(&mut control, &plan)?;
    raise_descriptor_limit(command, &view)?;
    let partition_count = view.leaders.len();
    let unix = UnixOffset::take();
    let cluster = Cluster::start(view, args.bootstrap.clone())?;
    let setup = Setup {
        producers: Vec::new(),
        consumers: Vec::new(),
        partition_count,
        unix,
        run_id: fresh_run_id(unix),
        timeline: Arc::new(OnceLock::new()),
        handover: Handover::default(),
    };
    let mut common = Common { args, control, cluster, setup };
    if let Some(consume) = command.consume() {
        // Before the producers, so that consumers begin in front of their first message.
        add_consumers(&mut common, command, consume)?;
    }
    if let Some(produce) = command.produce() {
        add_producers(&mut common, command, produce)?;
    }
    Ok(common.setup)
}

fn add_producers(common: &mut Common<'_>, command: &Command, produce: &ProduceArgs) -> Result<()> {
    let template = BatchTemplate::new(
        usize::try_from(produce.message_bytes)?,
        usize::try_from(produce.batch_bytes)?,
        produce.batch_messages.unwrap_or(u32::MAX),
        produce.compression,
        (produce.keys != Keys::None).then_some(keys::KEY_BYTES),
    )?;
    let version = common.control.apis.version::<ProduceRequest>()?;
    if produce.transactional {
        let ends_with = common.control.apis.version::<EndTxnRequest>()?;
        ensure!(
            version >= PRODUCE_VERSION_MIN && ends_with >= END_TXN_VERSION,
            "--transactional needs a broker with transaction version 2 (Produce 12, EndTxn 5), and this one has \
             Produce {version}, EndTxn {ends_with}"
        );
    }
    let transactions = TransactionLimits {
        messages_max: produce.transaction_messages,
        open_ns_max: nanoseconds(produce.transaction_interval)?,
    };
    let plan = Arc::new(ProducePlan {
        version,
        transactions: produce.transactional.then_some(transactions),
        keys: produce.keys,
        acks: produce.acks.code(),
        in_flight_max: produce.in_flight,
        linger_ns: (produce.linger_ms * MILLISECOND_NS as f64) as u64,
        rate_per_s: Some(produce.rate).filter(|&rate| rate > 0.0),
        producer_count: produce.connections,
        template,
        run_id: command.is_stamped().then_some(common.setup.run_id),
        unix: common.setup.unix,
        delivery_timeout_ns: nanoseconds(common.args.delivery_timeout)?,
        request_timeout_ns: nanoseconds(common.args.request_timeout)?,
        cluster: Arc::clone(&common.cluster),
        timeline: Arc::clone(&common.setup.timeline),
        acknowledged: Arc::clone(&common.setup.handover.acknowledged),
        frames: FrameCache::default(),
    });
    let partitions: Arc<[usize]> = (0..common.setup.partition_count).collect();
    let by_bytes = common.args.bytes.map(|bytes| bytes.div_ceil(produce.message_bytes.max(1)));
    let total = match (common.args.messages, by_bytes) {
        (Some(messages), Some(by_bytes)) => Some(messages.min(by_bytes)),
        (messages, by_bytes) => messages.or(by_bytes),
    };
    for index in 0..produce.connections {
        let identity = if produce.transactional {
            let id = format!("loadgen-{:08x}-{index}", common.setup.run_id);
            Identity::Transactional(transactional(common, id)?)
        } else if produce.idempotent {
            Identity::Idempotent(common.control.init_producer_id()?)
        } else {
            Identity::None
        };
        let quota = total.map(|total| share_of(total, index, produce.connections));
        let (plan, partitions) = (Arc::clone(&plan), Arc::clone(&partitions));
        common.setup.producers.push(Producer::new(plan, partitions, index, identity, quota)?);
    }
    Ok(())
}

fn transactional(common: &mut Common<'_>, id: String) -> Result<transaction::Identity> {
    let identity = common.control.init_transactional_id(id)?;
    // Its connection is one of those that the producer has anyway.
    ensure!(
        common.cluster.view().leaders.contains(&Some(identity.coordinator)),
        "broker {} coordinates the transactions and leads no partition of the topic; use more partitions",
        identity.coordinator
    );
    Ok(identity)
}

fn add_consumers(common: &mut Common<'_>, command: &Command, consume: &ConsumeArgs) -> Result<()> {
    let (count, partition_count) = (consume.consumers, common.setup.partition_count);
    let verify = common.args.verify;
    let is_both = matches!(command, Command::Both { .. });
    ensure!(
        count <= partition_count || !(verify || is_both),
        "{count} consumers for {partition_count} partitions would read messages more than once"
    );
    let run_id = is_both.then_some(common.setup.run_id);
    let handover = &common.setup.handover;
    let goal = if is_both {
        Goal::Producers {
            acknowledged: Arc::clone(&handover.acknowledged),
            are_done: Arc::clone(&handover.producers_are_done),
            received: Arc::clone(&handover.received),
        }
    } else if consume.exit_at_end {
        Goal::End
    } else if common.args.messages.is_some() || common.args.bytes.is_some() {
        Goal::Count {
            messages: common.args.messages.unwrap_or(u64::MAX),
            wire_bytes: common.args.bytes.unwrap_or(u64::MAX),
            consumed_messages: Arc::default(),
            consumed_bytes: Arc::default(),
        }
    } else {
        Goal::Time
    };
    let plan = Arc::new(ConsumePlan {
        version: common.control.apis.version::<FetchRequest>()?,
        max_wait_ms: consume.max_wait_ms,
        read_committed: consume.read_committed,
        min_bytes: clamp_i32(consume.fetch_min_bytes),
        max_bytes: clamp_i32(consume.fetch_max_bytes),
        partition_max_bytes: clamp_i32(consume.partition_max_bytes),
        rewind: consume.rewind,
        inspect: match (verify, is_both) {
            (true, _) => Inspect::Verify(run_id),
            (false, true) => Inspect::Stamps(run_id),
            (false, false) => Inspect::Nothing,
        },
        goal,
        unix: common.setup.unix,
        request_timeout_ns: nanoseconds(common.args.request_timeout)?,
        failure_timeout_ns: nanoseconds(common.args.delivery_timeout)?,
        cluster: Arc::clone(&common.cluster),
        timeline: Arc::clone(&common.setup.timeline),
    });
    let starts = start_offsets(common, consume)?;
    for index in 0..count {
        let mine: Vec<StartOffset> = if count <= partition_count {
            starts.iter().skip(index).step_by(count).copied().collect()
        } else {
            vec![starts[index % partition_count]]
        };
        common.setup.consumers.push(Consumer::new(Arc::clone(&plan), &mine));
    }
    Ok(())
}

/// Asks each leader for the ends of its partitions' logs.
fn start_offsets(common: &Common<'_>, consume: &ConsumeArgs) -> Result<Vec<StartOffset>> {
    let mut starts = Vec::new();
    let view = common.cluster.view();
    for (address, partitions) in cluster::partitions_by_leader(&view) {
        let mut control = Control::connect(&address)?;
        let places = partitions.iter().map(|&partition| {
            let (topic, number) = view.place_of(partition);
            Ok((view.topics[topic].name.as_str(), i32::try_from(number)?))
        });
        let places: Vec<(&str, i32)> = places.collect::<Result<_>>()?;
        let first = list_offsets(&mut control, &places, EARLIEST)?;
        let end = list_offsets(&mut control, &places, LATEST)?;
        for ((&partition, &log_start), &end) in partitions.iter().zip(&first).zip(&end) {
            let offset =
                if consume.from_beginning || consume.rewind || consume.exit_at_end { log_start } else { end };
            starts.push(StartOffset { partition, offset, log_start, end });
        }
    }
    starts.sort_unstable_by_key(|start| start.partition);
    Ok(starts)
}

/// A new topic's leaders may be in the metadata before they know it themselves.
fn list_offsets(control: &mut Control, places: &[(&str, i32)], end: i64) -> Result<Vec<i64>> {
    let deadline = Instant::now() + OFFSETS_TIMEOUT;
    loop {
        match control.list_offsets(places, end) {
            Err(error)
                if Instant::now() < deadline
                    && error.downcast_ref::<ResponseError>().is_some_and(cluster::is_transient) =>
            {
                thread::sleep(OFFSETS_POLL_INTERVAL);
            }
            outcome => return outcome,
        }
    }
}

fn raise_descriptor_limit(command: &Command, view: &View) -> Result<()> {
    let clients = command.produce().map_or(0, |produce| produce.connections)
        + command.consume().map_or(0, |consume| consume.consumers);
    let brokers = view.addresses.len().max(1);
    process::raise_descriptor_limit(u64::try_from(clients * brokers)? + SPARE_DESCRIPTORS)
}

/// Client `index`'s part of `total`, the first ones taking the remainder.
fn share_of(total: u64, index: usize, count: usize) -> u64 {
    let (index, count) = (index as u64, count as u64);
    total / count + u64::from(index < total % count)
}

fn fresh_run_id(unix: UnixOffset) -> u32 {
    let now = unix.unix_ns(crate::clock::monotonic_ns());
    // The low bits of the time in microseconds: runs on one topic are seconds apart.
    u32::try_from((now / 1_000) & u64::from(u32::MAX)).expect("masked") ^ std::process::id()
}

fn nanoseconds(duration: Duration) -> Result<u64> {
    Ok(u64::try_from(duration.as_nanos())?)
}

fn clamp_i32(number: u64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::share_of;

    #[test]
    fn shares_add_up() {
        for (total, count) in [(10, 3), (2, 5), (0, 4), (1_000_001, 8)] {
            let sum: u64 = (0..count).map(|index| share_of(total, index, count)).sum();
            assert_eq!(sum, total);
        }
    }
}
