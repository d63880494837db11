//! A consumer: fetches its partitions from their leaders, counts, and reads stamps when asked.
//!
//! Lives on: one worker thread. One fetch in flight per broker, without fetch sessions: every request names every partition,
//! so a broker is asked the same whether it keeps sessions or not. The order of partitions rotates, since a broker fills a
//! reply from the front.
//! Counting reads batch headers only. Stamps (end-to-end latency, `--verify`) cost a walk over the records.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::Bytes;
use kafka_protocol::error::{ParseResponseErrorCode, ResponseError};
use kafka_protocol::messages::FetchRequest;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};

use crate::aborted::Aborted;
use crate::batch_view::BatchView;
use crate::clock::{MILLISECOND_NS, UnixOffset};
use crate::cluster::{Cluster, is_transient, message_of};
use crate::control::topic_name;
use crate::leader_links::{BACKOFF_NS, LeaderLinks, earliest};
use crate::link::OutFrame;
use crate::payload::{self, Found, Stamp};
use crate::timeline::Timeline;
use crate::verify::{StreamId, Verifier};
use crate::wire::{decode_response, encode_request};
use crate::worker::{Client, Links, Turn};

/// How often a consumer looks whether the producers of its run are done.
const LOOK_NS: u64 = 20 * MILLISECOND_NS;
/// Topics are named by id from here on.
const TOPIC_ID_VERSION: i16 = 13;

/// What to do with the records themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inspect {
    /// Count by batch headers.
    Nothing,
    /// Read stamps of this run (any run if `None`) for end-to-end latency.
    Stamps(Option<u32>),
    /// The same, and check CRCs and sequences.
    Verify(Option<u32>),
}

/// What ends consuming, besides the window.
#[derive(Clone)]
pub enum Goal {
    /// The end of the window.
    Time,
    /// So many messages and bytes within the window, all consumers together.
    Count {
        messages: u64,
        wire_bytes: u64,
        consumed_messages: Arc<AtomicU64>,
        consumed_bytes: Arc<AtomicU64>,
    },
    /// The log's end as it was at the start.
    End,
    /// All that the producers of this run had acknowledged.
    Producers { acknowledged: Arc<AtomicU64>, are_done: Arc<AtomicBool>, received: Arc<AtomicU64> },
}

/// What all consumers of a run share.
pub struct ConsumePlan {
    pub version: i16,
    pub max_wait_ms: i32,
    pub read_committed: bool,
    pub min_bytes: i32,
    pub max_bytes: i32,
    pub partition_max_bytes: i32,
    /// At the end of a partition, begin again.
    pub rewind: bool,
    pub inspect: Inspect,
    pub goal: Goal,
    pub unix: UnixOffset,
    pub request_timeout_ns: u64,
    /// A partition or broker that fails for this long ends the run.
    pub failure_timeout_ns: u64,
    pub cluster: Arc<Cluster>,
    pub timeline: Arc<OnceLock<Timeline>>,
}

/// Where a consumer begins in one partition.
#[derive(Clone, Copy, Debug)]
pub struct StartOffset {
    /// Its index among the partitions of all topics.
    pub partition: usize,
    pub offset: i64,
    /// Where `rewind` begins again.
    pub log_start: i64,
    /// Where `Goal::End` stops and `rewind` turns round.
    pub end: i64,
}

struct Partition {
    start: StartOffset,
    next_offset: i64,
    paused_until_ns: u64,
    failing_since_ns: Option<u64>,
}

struct InFlight {
    correlation_id: i32,
    sent_ns: u64,
}

/// One consumer.
pub struct Consumer {
    plan: Arc<ConsumePlan>,
    /// In ascending order of their indexes.
    partitions: Vec<Partition>,
    /// Partitions that have not reached their start's `end`.
    unended_count: usize,
    /// No partition is paused at or after this instant.
    paused_until_ns: u64,
    first_partition: usize,
    leaders: LeaderLinks,
    /// The fetch in flight of each link.
    in_flight: Vec<Option<InFlight>>,
    next_correlation_id: i32,
    pub verifier: Verifier,
    done: bool,
}

impl Consumer {
    /// A consumer of `starts` (in ascending order) that has connected to nobody yet.
    pub fn new(plan: Arc<ConsumePlan>, starts: &[StartOffset]) -> Self {
        let indexes = starts.iter().map(|start| start.partition).collect();
        let leaders = LeaderLinks::new(Arc::clone(&plan.cluster), indexes, plan.failure_timeout_ns);
        let partitions = starts.iter().map(|&start| Partition {
            start,
            next_offset: start.offset,
            paused_until_ns: 0,
            failing_since_ns: None,
        });
        Self {
            plan,
            partitions: partitions.collect(),
            unended_count: starts.iter().filter(|start| start.offset < start.end).count(),
            paused_until_ns: 0,
            first_partition: 0,
            in_flight: (0..leaders.count()).map(|_| None).collect(),
            leaders,
            next_correlation_id: 0,
            verifier: Verifier::default(),
            done: false,
        }
    }

    /// The indexes of its partitions.
    pub fn partitions(&self) -> impl Iterator<Item = usize> + '_ {
        self.partitions.iter().map(|partition| partition.start.partition)
    }

    fn timeline(&self) -> &Timeline {
        self.plan.timeline.get().expect("set before the workers run")
    }

    /// Asks a broker for all partitions it leads that are not paused.
    fn fetch(&mut self, link: usize, turn: &mut Turn<'_>) -> Result<()> {
        let count = self.partitions.len();
        let mut topics: Vec<FetchTopic> = Vec::new();
        let mut last_topic = None;
        for step in 0..count {
            let slot = (self.first_partition + step) % count;
            let partition = &self.partitions[slot];
            if self.leaders.link_of(slot) != Some(link) || turn.now_ns < partition.paused_until_ns {
                continue;
            }
            let (topic_index, number) = self.leaders.view().place_of(partition.start.partition);
            if last_topic != Some(topic_index) {
                last_topic = Some(topic_index);
                let topic = &self.leaders.view().topics[topic_index];
                topics.push(if self.plan.version >= TOPIC_ID_VERSION {
                    FetchTopic::default().with_topic_id(topic.id)
                } else {
                    FetchTopic::default().with_topic(topic_name(&topic.name))
                });
            }
            let asked = FetchPartition::default()
                .with_partition(i32::try_from(number)?)
                .with_fetch_offset(partition.next_offset)
                .with_partition_max_bytes(self.plan.partition_max_bytes);
            topics.last_mut().expect("pushed above").partitions.push(asked);
        }
        self.first_partition = (self.first_partition + 1) % count.max(1);
        if topics.is_empty() {
            return Ok(());
        }
        let request = FetchRequest::default()
            .with_max_wait_ms(self.plan.max_wait_ms)
            .with_isolation_level(i8::from(self.plan.read_committed))
            .with_min_bytes(self.plan.min_bytes)
            .with_max_bytes(self.plan.max_bytes)
            .with_topics(topics);
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id = self.next_correlation_id.wrapping_add(1) & i32::MAX;
        let head = encode_request(&request, self.plan.version, correlation_id)?;
        self.in_flight[link] = Some(InFlight { correlation_id, sent_ns: turn.now_ns });
        if let Err(error) = self.leaders.links.send(link, OutFrame { head, batch: None, tail: &[] }, turn) {
            self.leaders.links.close(link);
            self.on_lost(link, error, turn)?;
        }
        self.leaders.links.spent.clear();
        Ok(())
    }

    /// Handles one partition's answer; returns messages and bytes that are new.
    fn on_partition(
        &mut self,
        topic: &FetchableTopicResponse,
        data: &PartitionData,
        turn: &mut Turn<'_>,
    ) -> Result<(u64, u64)> {
        let view = self.leaders.view();
        let index = view.index_of(topic.topic.as_str(), topic.topic_id, data.partition_index);
        let slot = index.and_then(|index| {
            self.partitions.binary_search_by_key(&index, |partition| partition.start.partition).ok()
        });
        let (index, slot) = index.zip(slot).with_context(|| {
            format!("a fetch reply about partition {}, which was not asked", data.partition_index)
        })?;
        if let Some(error) = data.error_code.err() {
            self.on_refused(slot, error, data.log_start_offset, turn)?;
            return Ok((0, 0));
        }
        self.partitions[slot].failing_since_ns = None;
        let records = data.records.as_deref().unwrap_or_default();
        let first_wanted = self.partitions[slot].next_offset;
        let (mut rest, mut messages) = (records, 0);
        let mut aborted = Aborted::new(data);
        while let Some(batch) = BatchView::cut(&mut rest)
            .with_context(|| format!("reading {} at {first_wanted}", self.leaders.view().name_of(index)))?
        {
            let next_offset = self.partitions[slot].next_offset;
            if batch.last_offset < next_offset {
                continue;
            }
            // A fetch into the middle of a batch brings the whole batch.
            let skipped = u64::try_from(next_offset - batch.base_offset).unwrap_or(0);
            if aborted.keeps(&batch) {
                messages += u64::from(batch.record_count).saturating_sub(skipped);
                self.inspect(&batch, index, next_offset, turn);
            }
            self.partitions[slot].next_offset = batch.last_offset + 1;
        }
        let partition = &mut self.partitions[slot];
        ensure!(
            records.is_empty() || partition.next_offset > first_wanted,
            "{}: {} bytes at offset {first_wanted} without one whole new batch",
            self.leaders.view().name_of(index),
            records.len()
        );
        let end = partition.start.end;
        if first_wanted < end && partition.next_offset >= end {
            self.unended_count = self.unended_count.saturating_sub(1);
        }
        if self.plan.rewind && partition.next_offset >= partition.start.end {
            partition.next_offset = partition.start.log_start;
        }
        Ok((messages, (records.len() - rest.len()) as u64))
    }

    fn inspect(&mut self, batch: &BatchView<'_>, partition: usize, next_offset: i64, turn: &mut Turn<'_>) {
        let (run_id, verify) = match self.plan.inspect {
            Inspect::Nothing => return,
            Inspect::Stamps(run_id) => (run_id, false),
            Inspect::Verify(run_id) => (run_id, true),
        };
        let window = self.timeline().window;
        let unix = self.plan.unix;
        let verifier = &mut self.verifier;
        if verify && !batch.crc_holds() {
            verifier.observe_damaged_batch();
            return;
        }
        let (now_unix_ns, mut received) = (unix.unix_ns(turn.now_ns), 0);
        let walked = batch.for_each_record(|offset, value| {
            if offset < next_offset {
                return;
            }
            match payload::read(value, verify) {
                Found::Stamp(stamp) if run_id.is_none_or(|run_id| run_id == stamp.run_id) => {
                    received += 1;
                    let intended_ns = unix.monotonic_ns(stamp.intended_unix_ns);
                    if window.contains(intended_ns) {
                        let latency_ns = now_unix_ns.saturating_sub(stamp.intended_unix_ns);
                        turn.interval.consume.end_to_end.saturating_record(latency_ns);
                    }
                    if verify {
                        let Stamp { run_id, producer, sequence, .. } = stamp;
                        verifier.observe(StreamId { run_id, producer, partition }, sequence);
                    }
                }
                Found::Stamp(_) | Found::Foreign => verifier.observe_foreign(),
                Found::Damaged => verifier.observe_damaged_message(),
            }
        });
        if walked.is_err() {
            verifier.observe_damaged_batch();
        }
        if let Goal::Producers { received: all, .. } = &self.plan.goal {
            all.fetch_add(received, Ordering::Relaxed);
        }
    }

    fn on_refused(
        &mut self,
        slot: usize,
        error: ResponseError,
        log_start: i64,
        turn: &mut Turn<'_>,
    ) -> Result<()> {
        let partition = &mut self.partitions[slot];
        turn.interval.consume.retries += 1;
        if error == ResponseError::OffsetOutOfRange && self.plan.rewind && log_start >= 0 {
            // Retention took the beginning away.
            partition.start.log_start = log_start;
            partition.next_offset = log_start;
            return Ok(());
        }
        let since = *partition.failing_since_ns.get_or_insert(turn.now_ns);
        let is_hopeless = turn.now_ns - since > self.plan.failure_timeout_ns;
        if !is_transient(&error) || is_hopeless {
            let name = self.leaders.view().name_of(partition.start.partition);
            bail!("fetching {name} at offset {}: {}", partition.next_offset, message_of(&error, None));
        }
        partition.paused_until_ns = turn.now_ns + BACKOFF_NS;
        self.paused_until_ns = partition.paused_until_ns;
        self.leaders.request_refresh();
        Ok(())
    }

    fn has_reached_goal(&self, now_ns: u64) -> bool {
        let is_over = now_ns >= self.timeline().window.end_ns;
        match &self.plan.goal {
            Goal::Time => is_over,
            Goal::Count { messages, wire_bytes, consumed_messages, consumed_bytes } => {
                is_over
                    || consumed_messages.load(Ordering::Relaxed) >= *messages
                    || consumed_bytes.load(Ordering::Relaxed) >= *wire_bytes
            }
            Goal::End => is_over || self.unended_count == 0,
            Goal::Producers { acknowledged, are_done, received } => {
                are_done.load(Ordering::Acquire)
                    && received.load(Ordering::Relaxed) >= acknowledged.load(Ordering::Relaxed)
            }
        }
    }
}

impl Client for Consumer {
    fn links(&mut self) -> &mut Links {
        &mut self.leaders.links
    }

    fn unconnected(&self) -> Result<Vec<(usize, String)>> {
        self.leaders.unconnected()
    }

    fn pump(&mut self, turn: &mut Turn<'_>) -> Result<Option<u64>> {
        self.done = self.done || self.has_reached_goal(turn.now_ns);
        if self.done {
            return Ok(None);
        }
        let timeline = *self.timeline();
        if turn.now_ns < timeline.start_ns {
            return Ok(Some(timeline.start_ns));
        }
        if self.leaders.follow(turn)? {
            self.in_flight.resize_with(self.leaders.count(), || None);
        }
        let mut wake = Some(timeline.window.end_ns).filter(|&end_ns| end_ns > turn.now_ns);
        wake = earliest(wake, self.leaders.wake_ns(turn.now_ns));
        for link in 0..self.leaders.count() {
            if let Some(in_flight) = &self.in_flight[link] {
                let expires_ns = in_flight.sent_ns + self.plan.request_timeout_ns;
                if turn.now_ns > expires_ns {
                    self.leaders.links.close(link);
                    self.on_lost(link, anyhow!("no reply within the request timeout"), turn)?;
                } else {
                    wake = earliest(wake, Some(expires_ns + MILLISECOND_NS));
                }
            } else if self.leaders.links.is_open(link) {
                self.fetch(link, turn)?;
            }
        }
        if self.paused_until_ns > turn.now_ns {
            let paused = self.partitions.iter().map(|partition| partition.paused_until_ns);
            wake = earliest(wake, paused.filter(|&until_ns| until_ns > turn.now_ns).min());
        }
        if matches!(self.plan.goal, Goal::Producers { .. } | Goal::Count { .. }) {
            wake = earliest(wake, Some(turn.now_ns + LOOK_NS));
        }
        Ok(wake)
    }

    fn on_frame(&mut self, link: usize, frame: Bytes, turn: &mut Turn<'_>) -> Result<()> {
        let (correlation_id, response) =
            decode_response::<FetchRequest>(frame, self.plan.version).context("decoding a Fetch reply")?;
        self.leaders.on_reply(link);
        let asked = self.in_flight[link].take().context("a reply to no request")?;
        ensure!(asked.correlation_id == correlation_id, "reply {correlation_id} to {}", asked.correlation_id);
        if let Some(error) = response.error_code.err() {
            bail!("fetching: {}", message_of(&error, None));
        }
        let (mut messages, mut wire_bytes) = (0, 0);
        for topic in &response.responses {
            for data in &topic.partitions {
                let (partition_messages, partition_bytes) = self.on_partition(topic, data, turn)?;
                messages += partition_messages;
                wire_bytes += partition_bytes;
            }
        }
        let window = self.timeline().window;
        turn.interval.consume.count(&window, turn.now_ns, messages, wire_bytes);
        if window.contains(turn.now_ns) {
            let waited_ns = turn.now_ns.saturating_sub(asked.sent_ns);
            turn.interval.consume.latency.saturating_record(waited_ns);
            if let Goal::Count { consumed_messages, consumed_bytes, .. } = &self.plan.goal {
                consumed_messages.fetch_add(messages, Ordering::Relaxed);
                consumed_bytes.fetch_add(wire_bytes, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn on_lost(&mut self, link: usize, error: anyhow::Error, turn: &mut Turn<'_>) -> Result<()> {
        self.in_flight[link] = None;
        turn.interval.consume.retries += 1;
        self.leaders.on_lost(link, error, turn.now_ns)
    }

    fn is_done(&self) -> bool {
        self.done
    }

    fn abandon(&mut self, _turn: &mut Turn<'_>) {}
}
