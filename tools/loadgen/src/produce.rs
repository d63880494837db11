//! A producer: takes messages from an open or a closed loop, batches them, sends each batch to its partition's leader.
//!
//! Lives on: one worker thread. A producer has a connection to every broker that leads a partition, and writes to all
//! partitions in turn, a batch at a time (the sticky partitioner of Kafka's clients). One batch per request, as librdkafka.
//! Open loop: messages are due by the schedule. A batch leaves when it is full, when its first message has waited for the
//! linger time, or when nothing more is to come, and a request may be in flight; it takes all messages that are due, up to
//! the batch limit. Due messages wait in no queue, only in the arithmetic of the schedule, so a stalled broker costs no memory.
//! Closed loop: full batches whenever a request may be in flight.
//! Order: after a failure a partition sends nothing until all its requests in flight are answered, then repeats the failed
//! batches oldest first. With idempotence this keeps every message exactly once and in order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::Bytes;
use kafka_protocol::error::{ParseResponseErrorCode, ResponseError};
use kafka_protocol::messages::ProduceRequest;

use crate::batch::{BatchHeader, BatchTemplate};
use crate::clock::{MILLISECOND_NS, UnixOffset};
use crate::cluster::{Cluster, is_transient, message_of};
use crate::leader_links::{BACKOFF_NS, LeaderLinks, earliest};
use crate::link::OutFrame;
use crate::payload::{self, Stamp};
use crate::produce_frame::ProduceFrame;
use crate::schedule::Schedule;
use crate::timeline::Timeline;
use crate::wire::decode_response;
use crate::worker::{Client, Links, Turn};

/// The broker's own limit for answering with acks=all.
const ACK_TIMEOUT_MS: i32 = 30_000;
/// Kafka's sequence numbers wrap to 0 behind the largest i32.
const SEQUENCE_COUNT: u64 = 1 << 31;

/// What all producers of a run share.
pub struct ProducePlan {
    pub topic: String,
    pub version: i16,
    pub acks: i16,
    pub in_flight_max: usize,
    pub linger_ns: u64,
    /// Messages a second of all producers together; `None` is the closed loop.
    pub rate_per_s: Option<f64>,
    pub producer_count: usize,
    pub template: BatchTemplate,
    /// Stamp payloads with this run's id.
    pub run_id: Option<u32>,
    pub unix: UnixOffset,
    /// A batch that is not acknowledged after this time ends the run.
    pub delivery_timeout_ns: u64,
    /// A request without a reply for this time breaks its connection.
    pub request_timeout_ns: u64,
    pub cluster: Arc<Cluster>,
    pub timeline: Arc<OnceLock<Timeline>>,
    /// Messages acknowledged in the whole run, for consumers that wait for them.
    pub acknowledged: Arc<AtomicU64>,
}

/// A batch that was sent and not yet acknowledged; enough to build it again.
#[derive(Clone, Copy, Debug)]
struct Ticket {
    partition: usize,
    /// The first message's number among those of this producer to this partition.
    first_sequence: u64,
    /// The first message's index in the schedule (open loop).
    first_index: u64,
    count: u32,
    correlation_id: i32,
    wire_bytes: u64,
    /// When it was first sent and when it was last sent.
    first_sent_ns: u64,
    sent_ns: u64,
}

#[derive(Default)]
struct Partition {
    next_sequence: u64,
    acknowledged_count: u64,
    in_flight: usize,
    /// Failed batches by first sequence.
    retries: BTreeMap<u64, Ticket>,
    paused_until_ns: u64,
}

/// Where messages come from.
enum Source {
    Scheduled { schedule: Schedule, next: u64, end: u64 },
    Saturating { remaining: u64 },
}

/// One producer.
pub struct Producer {
    plan: Arc<ProducePlan>,
    index: usize,
    /// Idempotent: what InitProducerId gave.
    identity: Option<(i64, i16)>,
    /// Messages to send within the window; `None` if time ends the run.
    quota: Option<u64>,
    source: Option<Source>,
    partitions: Vec<Partition>,
    next_partition: usize,
    frame: ProduceFrame,
    leaders: LeaderLinks,
    /// Per link: requests in flight, oldest first.
    in_flight: Vec<VecDeque<Ticket>>,
    /// Batches in all `retries`.
    retry_count: usize,
    spare: Vec<OutFrame>,
    /// Plain records of a compressed, stamped batch.
    scratch: Vec<u8>,
    next_correlation_id: i32,
    done: bool,
}

impl Producer {
    /// A producer that has connected to nobody yet.
    ///
    /// # Errors
    /// If the request cannot be encoded.
    pub fn new(
        plan: Arc<ProducePlan>,
        index: usize,
        identity: Option<(i64, i16)>,
        quota: Option<u64>,
    ) -> Result<Self> {
        let count = plan.cluster.view().leaders.len();
        let leaders =
            LeaderLinks::new(Arc::clone(&plan.cluster), (0..count).collect(), plan.delivery_timeout_ns);
        let frame = new_frame(&plan, &leaders)?;
        Ok(Self {
            plan,
            index,
            identity,
            quota,
            source: None,
            partitions: (0..count).map(|_| Partition::default()).collect(),
            next_partition: index % count,
            frame,
            in_flight: vec![VecDeque::new(); leaders.count()],
            leaders,
            retry_count: 0,
            spare: Vec::new(),
            scratch: Vec::new(),
            next_correlation_id: 0,
            done: false,
        })
    }

    /// Opens every connection that the current view asks for.
    ///
    /// # Errors
    /// If a broker does not accept.
    pub fn connect(&mut self, turn: &Turn<'_>) -> Result<()> {
        self.leaders.connect(turn)
    }

    /// Acknowledged messages of each partition.
    pub fn acknowledged_counts(&self) -> impl Iterator<Item = u64> + '_ {
        self.partitions.iter().map(|partition| partition.acknowledged_count)
    }

    /// This producer's number in stamps.
    pub fn number(&self) -> u32 {
        u32::try_from(self.index).expect("few producers")
    }

    fn timeline(&self) -> &Timeline {
        self.plan.timeline.get().expect("set before the workers run")
    }

    fn source(&self) -> Source {
        let timeline = self.timeline();
        match self.plan.rate_per_s {
            Some(rate) => {
                let schedule = Schedule::new(timeline.start_ns, rate, self.index, self.plan.producer_count);
                let due_before = |instant: u64| schedule.due_count(instant.saturating_sub(1));
                let by_time = match timeline.window.end_ns {
                    u64::MAX => u64::MAX,
                    end_ns => due_before(end_ns),
                };
                let by_count =
                    self.quota.map_or(u64::MAX, |quota| due_before(timeline.window.start_ns) + quota);
                let end = by_time.min(by_count);
                Source::Scheduled { schedule, next: 0, end }
            }
            None => Source::Saturating { remaining: self.quota.unwrap_or(u64::MAX) },
        }
    }

    /// Follows a new view; reconnects what is lost and needed.
    fn keep_links(&mut self, turn: &Turn<'_>) -> Result<()> {
        if self.leaders.follow(turn)? {
            self.frame = new_frame(&self.plan, &self.leaders)?;
            self.in_flight.resize_with(self.leaders.count(), VecDeque::new);
        }
        Ok(())
    }

    fn link_has_room(&self, link: usize) -> bool {
        self.in_flight[link].len() < self.plan.in_flight_max && self.leaders.links.is_flushed(link)
    }

    /// The next partition in turn that may be sent to now.
    fn pick_partition(&mut self, now_ns: u64) -> Option<usize> {
        if !(0..self.leaders.count()).any(|link| self.link_has_room(link)) {
            return None;
        }
        let count = self.partitions.len();
        for step in 0..count {
            let index = (self.next_partition + step) % count;
            let partition = &self.partitions[index];
            let ready = partition.retries.is_empty() && now_ns >= partition.paused_until_ns;
            if ready && self.leaders.link_of(index).is_some_and(|link| self.link_has_room(link)) {
                self.next_partition = (index + 1) % count;
                return Some(index);
            }
        }
        None
    }

    /// Repeats failed batches of partitions that are quiet again. Returns when to try next.
    fn send_retries(&mut self, turn: &mut Turn<'_>) -> Result<Option<u64>> {
        let mut wake = None;
        if self.retry_count == 0 {
            return Ok(None);
        }
        for index in 0..self.partitions.len() {
            let partition = &self.partitions[index];
            if partition.retries.is_empty() || partition.in_flight > 0 {
                continue;
            }
            if turn.now_ns < partition.paused_until_ns {
                wake = earliest(wake, Some(partition.paused_until_ns));
                continue;
            }
            // Oldest first; what finds no room waits for the next answer and this partition's silence.
            while let Some(link) = self.leaders.link_of(index).filter(|&link| self.link_has_room(link)) {
                let Some((_, ticket)) = self.partitions[index].retries.pop_first() else { break };
                self.retry_count -= 1;
                self.send(link, ticket, turn)?;
            }
        }
        Ok(wake)
    }

    /// Sends what the source has. Returns when it will have more.
    fn send_new(&mut self, turn: &mut Turn<'_>) -> Result<Option<u64>> {
        let timeline = *self.timeline();
        let count_max = u64::from(self.plan.template.count_max());
        loop {
            let (first_index, count) = match self.source.as_ref().expect("set by pump") {
                Source::Scheduled { schedule, next, end } => {
                    let due = schedule.due_count(turn.now_ns).min(*end).saturating_sub(*next);
                    if next >= end {
                        return Ok(None);
                    }
                    let lingers_until = schedule.intended_ns(*next) + self.plan.linger_ns;
                    let is_last = next + due == *end;
                    if due == 0 || due < count_max && turn.now_ns < lingers_until && !is_last {
                        let full_at = schedule.intended_ns((next + count_max).min(*end) - 1);
                        return Ok(Some(lingers_until.min(full_at)));
                    }
                    (*next, due.min(count_max))
                }
                Source::Saturating { remaining } => {
                    if *remaining == 0 || turn.now_ns >= timeline.window.end_ns {
                        return Ok(None);
                    }
                    if turn.now_ns < timeline.start_ns {
                        return Ok(Some(timeline.start_ns));
                    }
                    (0, count_max.min(*remaining))
                }
            };
            let Some(index) = self.pick_partition(turn.now_ns) else { return Ok(None) };
            let partition = &mut self.partitions[index];
            let ticket = Ticket {
                partition: index,
                first_sequence: partition.next_sequence,
                first_index,
                count: u32::try_from(count)?,
                correlation_id: 0,
                wire_bytes: 0,
                first_sent_ns: turn.now_ns,
                sent_ns: turn.now_ns,
            };
            partition.next_sequence += count;
            match self.source.as_mut().expect("set by pump") {
                Source::Scheduled { next, .. } => *next += count,
                Source::Saturating { remaining } => {
                    // Messages before the window are not part of the quota.
                    if turn.now_ns >= timeline.window.start_ns {
                        *remaining -= count;
                    }
                }
            }
            let link = self.leaders.link_of(index).expect("picked");
            self.send(link, ticket, turn)?;
        }
    }

    /// Builds the ticket's batch and sends it.
    fn send(&mut self, link: usize, mut ticket: Ticket, turn: &mut Turn<'_>) -> Result<()> {
        let mut out = self.spare.pop().unwrap_or_default();
        let mut batch = out.batch.take().unwrap_or_default();
        let (producer_id, producer_epoch) = self.identity.unwrap_or((-1, -1));
        let base_sequence = match self.identity {
            Some(_) => i32::try_from(ticket.first_sequence % SEQUENCE_COUNT).expect("below 2^31"),
            None => -1,
        };
        let header = BatchHeader {
            count: ticket.count,
            timestamp_ms: self.plan.unix.unix_ms(turn.now_ns),
            producer_id,
            producer_epoch,
            base_sequence,
        };
        match self.plan.run_id {
            None => self.plan.template.write(&mut batch, &header)?,
            Some(run_id) => {
                let schedule = match self.source.as_ref().expect("set by pump") {
                    Source::Scheduled { schedule, .. } => Some(*schedule),
                    Source::Saturating { .. } => None,
                };
                let (unix, producer) = (self.plan.unix, self.number());
                self.plan.template.write_stamped(
                    &mut batch,
                    &mut self.scratch,
                    &header,
                    |index, value| {
                        let intended_ns = schedule.map_or(ticket.first_sent_ns, |schedule| {
                            schedule.intended_ns(ticket.first_index + u64::from(index))
                        });
                        let stamp = Stamp {
                            run_id,
                            producer,
                            sequence: ticket.first_sequence + u64::from(index),
                            intended_unix_ns: unix.unix_ns(intended_ns),
                        };
                        payload::stamp(value, &stamp)
                    },
                )?;
            }
        }
        ticket.correlation_id = self.next_correlation_id;
        self.next_correlation_id = self.next_correlation_id.wrapping_add(1) & i32::MAX;
        ticket.wire_bytes = batch.as_slice().len() as u64;
        ticket.sent_ns = turn.now_ns;
        let partition_index = i32::try_from(ticket.partition)?;
        self.frame.write_head(&mut out.head, ticket.correlation_id, partition_index, batch.as_slice().len());
        out.batch = Some(batch);
        out.tail = self.frame.tail();
        self.partitions[ticket.partition].in_flight += 1;
        self.in_flight[link].push_back(ticket);
        if let Err(error) = self.leaders.links.send(link, out, turn) {
            self.leaders.links.close(link);
            self.on_lost(link, error, turn)?;
        }
        self.spare.append(&mut self.leaders.links.spent);
        if self.plan.acks == 0 {
            self.complete_written(turn);
        }
        Ok(())
    }

    /// acks=0: a request is done once it is in the socket; no reply comes.
    fn complete_written(&mut self, turn: &mut Turn<'_>) {
        for link in 0..self.in_flight.len() {
            while self.in_flight[link].len() > self.leaders.links.unsent_count(link) {
                let Some(ticket) = self.in_flight[link].pop_front() else { break };
                self.partitions[ticket.partition].in_flight -= 1;
                self.complete(&ticket, turn);
            }
        }
    }

    fn complete(&mut self, ticket: &Ticket, turn: &mut Turn<'_>) {
        let window = self.timeline().window;
        let count = u64::from(ticket.count);
        self.partitions[ticket.partition].acknowledged_count += count;
        self.plan.acknowledged.fetch_add(count, Ordering::Relaxed);
        let (now_ns, tally) = (turn.now_ns, &mut turn.interval.produce);
        tally.count(&window, now_ns, count, ticket.wire_bytes);
        match self.source.as_ref().expect("set by pump") {
            Source::Scheduled { schedule, .. } => {
                let intended = |index| schedule.intended_ns(index);
                tally.record_scheduled(&window, intended, ticket.first_index, count, now_ns);
            }
            Source::Saturating { .. } if window.contains(now_ns) => {
                let _ = tally.latency.record_n(now_ns.saturating_sub(ticket.first_sent_ns), count);
            }
            Source::Saturating { .. } => {}
        }
        if window.contains(now_ns) {
            tally.service.saturating_record(now_ns.saturating_sub(ticket.sent_ns));
        }
    }

    /// Puts a batch aside for another try.
    fn retry_later(&mut self, ticket: Ticket, turn: &mut Turn<'_>, why: &str) -> Result<()> {
        let age_ns = turn.now_ns.saturating_sub(ticket.first_sent_ns);
        ensure!(
            age_ns <= self.plan.delivery_timeout_ns,
            "a batch to {}-{} was not acknowledged within {} ms: {why}",
            self.plan.topic,
            ticket.partition,
            age_ns / MILLISECOND_NS
        );
        turn.interval.produce.retries += 1;
        let partition = &mut self.partitions[ticket.partition];
        partition.paused_until_ns = turn.now_ns + BACKOFF_NS;
        partition.retries.insert(ticket.first_sequence, ticket);
        self.retry_count += 1;
        self.leaders.request_refresh();
        Ok(())
    }

    fn on_refused(
        &mut self,
        ticket: Ticket,
        error: ResponseError,
        why: &str,
        turn: &mut Turn<'_>,
    ) -> Result<()> {
        // A gap in the sequence is only the echo of an earlier failed batch, if there is one.
        let follows_failure = !self.partitions[ticket.partition].retries.is_empty();
        let is_echo = error == ResponseError::OutOfOrderSequenceNumber && follows_failure;
        if is_transient(&error) || is_echo {
            return self.retry_later(ticket, turn, why);
        }
        bail!("producing to {}-{}: {why}", self.plan.topic, ticket.partition)
    }
}

impl Client for Producer {
    fn links(&mut self) -> &mut Links {
        &mut self.leaders.links
    }

    fn pump(&mut self, turn: &mut Turn<'_>) -> Result<Option<u64>> {
        if self.source.is_none() {
            self.source = Some(self.source());
        }
        self.spare.append(&mut self.leaders.links.spent);
        if self.plan.acks == 0 {
            self.complete_written(turn);
        }
        self.keep_links(turn)?;
        for link in 0..self.in_flight.len() {
            let oldest = self.in_flight[link].front().map(|ticket| ticket.sent_ns);
            if oldest.is_some_and(|sent| turn.now_ns.saturating_sub(sent) > self.plan.request_timeout_ns) {
                self.leaders.links.close(link);
                self.on_lost(link, anyhow!("no reply within the request timeout"), turn)?;
            }
        }
        let retry_wake = self.send_retries(turn)?;
        let mut wake = earliest(retry_wake, self.send_new(turn)?);
        let is_exhausted = match self.source.as_ref().expect("set above") {
            Source::Scheduled { next, end, .. } => next >= end,
            Source::Saturating { remaining } => {
                *remaining == 0 || turn.now_ns >= self.timeline().window.end_ns
            }
        };
        let is_quiet = self.retry_count == 0 && self.in_flight.iter().all(VecDeque::is_empty);
        self.done = is_exhausted && is_quiet;
        if self.done {
            return Ok(None);
        }
        // Times at which something happens without any event: the end, a dead connection, a silent broker.
        wake = earliest(wake, self.leaders.wake_ns(turn.now_ns));
        for in_flight in &self.in_flight {
            let oldest = in_flight.front().map(|ticket| ticket.sent_ns);
            wake = earliest(wake, oldest.map(|sent| sent + self.plan.request_timeout_ns + MILLISECOND_NS));
        }
        if !is_exhausted && turn.now_ns < self.timeline().window.end_ns {
            wake = earliest(wake, Some(self.timeline().window.end_ns));
        }
        Ok(wake)
    }

    fn on_frame(&mut self, link: usize, frame: Bytes, turn: &mut Turn<'_>) -> Result<()> {
        let (correlation_id, response) = decode_response::<ProduceRequest>(frame, self.plan.version)
            .context("decoding a Produce reply")?;
        self.leaders.on_reply(link);
        let ticket = self.in_flight[link].pop_front().context("a reply to no request")?;
        ensure!(
            correlation_id == ticket.correlation_id,
            "reply {correlation_id} where {} was due",
            ticket.correlation_id
        );
        self.partitions[ticket.partition].in_flight -= 1;
        let answer = response.responses.first().and_then(|topic| topic.partition_responses.first());
        let answer = answer.context("a Produce reply without the partition")?;
        match answer.error_code.err() {
            // A duplicate is a batch whose first acknowledgement was lost.
            None | Some(ResponseError::DuplicateSequenceNumber) => self.complete(&ticket, turn),
            Some(error) => {
                let why = message_of(&error, answer.error_message.as_ref());
                self.on_refused(ticket, error, &why, turn)?;
            }
        }
        Ok(())
    }

    fn on_lost(&mut self, link: usize, error: anyhow::Error, turn: &mut Turn<'_>) -> Result<()> {
        let why = format!("{error:#}");
        for ticket in std::mem::take(&mut self.in_flight[link]) {
            self.partitions[ticket.partition].in_flight -= 1;
            self.retry_later(ticket, turn, &why)?;
        }
        self.leaders.on_lost(link, error, turn.now_ns)
    }

    fn is_done(&self) -> bool {
        self.done
    }

    fn abandon(&mut self, turn: &mut Turn<'_>) {
        let (window, now_ns) = (self.timeline().window, turn.now_ns);
        let tally = &mut turn.interval.produce;
        let open = self.in_flight.iter().flatten();
        let open = open.chain(self.partitions.iter().flat_map(|partition| partition.retries.values()));
        match self.source.as_ref() {
            Some(Source::Scheduled { schedule, next, end }) => {
                let before = tally.latency.len();
                let unsent = (*next, end.saturating_sub(*next));
                let ranges = open.map(|ticket| (ticket.first_index, u64::from(ticket.count)));
                for (first, count) in ranges.chain([unsent]) {
                    tally.record_scheduled(
                        &window,
                        |index| schedule.intended_ns(index),
                        first,
                        count,
                        now_ns,
                    );
                }
                tally.unfinished += tally.latency.len() - before;
            }
            Some(Source::Saturating { .. }) => {
                for ticket in open {
                    let count = u64::from(ticket.count);
                    let _ = tally.latency.record_n(now_ns.saturating_sub(ticket.first_sent_ns), count);
                    tally.unfinished += count;
                }
            }
            None => {}
        }
    }
}

fn new_frame(plan: &ProducePlan, leaders: &LeaderLinks) -> Result<ProduceFrame> {
    ProduceFrame::new(plan.version, &plan.topic, leaders.view().topic_id, plan.acks, ACK_TIMEOUT_MS)
}
