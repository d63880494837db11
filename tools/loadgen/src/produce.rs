//! A producer: takes batches from an open or a closed loop (`source`), sends each to its partition's leader.
//!
//! Lives on: one worker thread. A producer has a connection to every broker that leads a partition. One batch per request,
//! as librdkafka.
//! Open loop: messages are due by the schedule. A batch leaves when it is full, when its first message has waited for the
//! linger time, or when nothing more is to come, and a request may be in flight.
//! Closed loop: full batches whenever a request may be in flight.
//! Order: after a failure a partition sends nothing until all its requests in flight are answered, then repeats the failed
//! batches oldest first. With idempotence this keeps every message exactly once and in order.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::Bytes;
use kafka_protocol::error::{ParseResponseErrorCode, ResponseError};
use kafka_protocol::messages::ProduceRequest;

use crate::batch::{BatchBuffer, BatchHeader, BatchTemplate};
use crate::clock::{MILLISECOND_NS, UnixOffset};
use crate::cluster::{Cluster, is_transient, message_of};
use crate::keys::{self, Keys, Sampler};
use crate::leader_links::{BACKOFF_NS, LeaderLinks, earliest};
use crate::link::OutFrame;
use crate::payload::{self, Stamp};
use crate::produce_frame::ProduceFrame;
use crate::schedule::Schedule;
use crate::source::{BatchLimits, Gatherer, Messages, Room, Source, Step};
use crate::timeline::Timeline;
use crate::transaction::{self, Ended, TransactionLimits, Transactions};
use crate::wire::decode_response;
use crate::worker::{Client, Links, Turn};

/// The broker's own limit for answering with acks=all.
const ACK_TIMEOUT_MS: i32 = 30_000;
/// Kafka's sequence numbers wrap to 0 behind the largest i32.
const SEQUENCE_COUNT: u64 = 1 << 31;

/// What all producers of a run share.
pub struct ProducePlan {
    pub version: i16,
    pub acks: i16,
    pub in_flight_max: usize,
    pub linger_ns: u64,
    pub keys: Keys,
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
    /// When transactions are committed, if there are any.
    pub transactions: Option<TransactionLimits>,
    pub frames: FrameCache,
}

/// How the broker knows a producer.
pub enum Identity {
    /// Not at all.
    None,
    /// By id and epoch, so that it drops doubles.
    Idempotent((i64, i16)),
    /// By a transactional id.
    Transactional(transaction::Identity),
}

/// The fixed parts of requests, one per topic, made once for all producers.
#[derive(Default)]
pub struct FrameCache(Mutex<Option<(u64, Arc<[ProduceFrame]>)>>);

/// A batch that was sent and not yet acknowledged; enough to build it again.
#[derive(Debug)]
struct Ticket {
    partition: usize,
    /// The first message's number among those of this producer to this partition.
    first_sequence: u64,
    messages: Messages,
    correlation_id: i32,
    wire_bytes: u64,
    /// When it was first sent and when it was last sent.
    first_sent_ns: u64,
    sent_ns: u64,
}

/// Small, since there may be thousands in each of thousands of producers.
#[derive(Clone, Copy, Default)]
struct Partition {
    next_sequence: u64,
    /// The first one in the epoch of the open transaction.
    epoch_first_sequence: u64,
    acknowledged_count: u64,
    in_flight: u32,
}

/// What a partition with failed batches has beyond the others.
#[derive(Default)]
struct Trouble {
    /// Failed batches by first sequence.
    retries: BTreeMap<u64, Ticket>,
    paused_until_ns: u64,
}

/// One producer.
pub struct Producer {
    plan: Arc<ProducePlan>,
    index: usize,
    /// Idempotent: what InitProducerId gave, or the end of the last transaction.
    identity: Option<(i64, i16)>,
    transactions: Option<Transactions>,
    transactional_id: Option<String>,
    /// Messages to send within the window; `None` if time ends the run.
    quota: Option<u64>,
    source: Option<Source>,
    partitions: Vec<Partition>,
    troubles: HashMap<usize, Trouble>,
    next_partition: usize,
    frames: Arc<[ProduceFrame]>,
    leaders: LeaderLinks,
    /// Per link: requests in flight, oldest first.
    in_flight: Vec<VecDeque<Ticket>>,
    /// Messages in batches that failed at least once.
    pub retried_count: u64,
    /// Plain records of a compressed, stamped batch.
    scratch: Vec<u8>,
    next_correlation_id: i32,
    done: bool,
}

impl Producer {
    /// A producer of `partitions` (all of them) that has connected to nobody yet.
    ///
    /// # Errors
    /// If the request cannot be encoded.
    pub fn new(
        plan: Arc<ProducePlan>,
        partitions: Arc<[usize]>,
        index: usize,
        identity: Identity,
        quota: Option<u64>,
    ) -> Result<Self> {
        let count = partitions.len();
        let leaders = LeaderLinks::new(Arc::clone(&plan.cluster), partitions, plan.delivery_timeout_ns);
        let (identity, in_transactions) = match identity {
            Identity::None => (None, None),
            Identity::Idempotent(producer) => (Some(producer), None),
            Identity::Transactional(of) => (Some((of.producer_id, of.producer_epoch)), Some(of)),
        };
        let transactional_id = in_transactions.as_ref().map(|of| of.transactional_id.clone());
        let frames = plan.frames(&leaders, transactional_id.as_deref())?;
        let transactions =
            plan.transactions.zip(in_transactions).map(|(limits, of)| Transactions::new(limits, &of));
        Ok(Self {
            transactions,
            transactional_id,
            plan,
            index,
            identity,
            quota,
            source: None,
            partitions: vec![Partition::default(); count],
            troubles: HashMap::new(),
            next_partition: index % count,
            frames,
            in_flight: (0..leaders.count()).map(|_| VecDeque::new()).collect(),
            leaders,
            retried_count: 0,
            scratch: Vec::new(),
            next_correlation_id: 0,
            done: false,
        })
    }

    /// Acknowledged messages of each partition.
    pub fn acknowledged_counts(&self) -> impl Iterator<Item = u64> + '_ {
        self.partitions.iter().map(|partition| partition.acknowledged_count)
    }

    /// Whether its messages carry stamps.
    pub fn is_stamping(&self) -> bool {
        self.plan.run_id.is_some()
    }

    /// Whether the broker drops what it sends again.
    pub fn is_idempotent(&self) -> bool {
        self.identity.is_some()
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
        let limits =
            BatchLimits { count_max: self.plan.template.count_max(), linger_ns: self.plan.linger_ns };
        let gatherer = Sampler::new(self.plan.keys, self.index as u64)
            .map(|sampler| Gatherer::new(sampler, self.leaders.view().spans()));
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
                Source::scheduled(schedule, by_time.min(by_count), limits, gatherer)
            }
            None => Source::saturating(self.quota.unwrap_or(u64::MAX), limits, gatherer),
        }
    }

    /// Follows a new view; reconnects what is lost and needed.
    fn keep_links(&mut self, turn: &Turn<'_>) -> Result<()> {
        if self.leaders.follow(turn)? {
            self.frames = self.plan.frames(&self.leaders, self.transactional_id.as_deref())?;
            self.in_flight.resize_with(self.leaders.count(), VecDeque::new);
        }
        Ok(())
    }

    fn link_has_room(&self, link: usize) -> bool {
        self.in_flight[link].len() < self.plan.in_flight_max && self.leaders.links.is_flushed(link)
    }

    /// Repeats failed batches of partitions that are quiet again. Returns when to try next.
    fn send_retries(&mut self, turn: &mut Turn<'_>) -> Result<Option<u64>> {
        let mut wake = None;
        if self.troubles.is_empty() {
            return Ok(None);
        }
        let mut troubled: Vec<usize> = self.troubles.keys().copied().collect();
        troubled.sort_unstable();
        for index in troubled {
            if self.partitions[index].in_flight > 0 {
                continue;
            }
            let paused_until_ns = self.troubles.get(&index).map_or(0, |trouble| trouble.paused_until_ns);
            if turn.now_ns < paused_until_ns {
                wake = earliest(wake, Some(paused_until_ns));
                continue;
            }
            // Oldest first; what finds no room waits for the next answer and this partition's silence.
            while let Some(link) = self.leaders.link_of(index).filter(|&link| self.link_has_room(link)) {
                let Some(trouble) = self.troubles.get_mut(&index) else { break };
                let Some((_, ticket)) = trouble.retries.pop_first() else { break };
                if trouble.retries.is_empty() {
                    self.troubles.remove(&index);
                }
                self.send(link, ticket, turn)?;
            }
        }
        Ok(wake)
    }

    /// Sends what the source has. Returns when it will have more.
    fn send_new(&mut self, turn: &mut Turn<'_>) -> Result<Option<u64>> {
        let timeline = *self.timeline();
        loop {
            let mut source = self.source.take().expect("set by pump");
            let step = source.next(turn.now_ns, &timeline, self);
            self.source = Some(source);
            let draft = match step {
                Step::Send(draft) => draft,
                Step::Wait(wake) => return Ok(wake),
            };
            let partition = &mut self.partitions[draft.partition];
            let ticket = Ticket {
                partition: draft.partition,
                first_sequence: partition.next_sequence,
                messages: draft.messages,
                correlation_id: 0,
                wire_bytes: 0,
                first_sent_ns: turn.now_ns,
                sent_ns: turn.now_ns,
            };
            partition.next_sequence += u64::from(ticket.messages.count());
            if let Some(transactions) = &mut self.transactions {
                transactions.add(u64::from(ticket.messages.count()), turn.now_ns);
            }
            let link = self.leaders.link_of(ticket.partition).context("a batch without a place to go")?;
            self.send(link, ticket, turn)?;
        }
    }

    /// Builds the ticket's batch and sends it.
    fn send(&mut self, link: usize, mut ticket: Ticket, turn: &mut Turn<'_>) -> Result<()> {
        let mut out = turn.pool.pop().unwrap_or_default();
        let mut batch = out.batch.take().unwrap_or_default();
        let (producer_id, producer_epoch) = self.identity.unwrap_or((-1, -1));
        let base_sequence = match self.identity {
            Some(_) => {
                let of_epoch = ticket.first_sequence - self.partitions[ticket.partition].epoch_first_sequence;
                i32::try_from(of_epoch % SEQUENCE_COUNT).expect("below 2^31")
            }
            None => -1,
        };
        let header = BatchHeader {
            count: ticket.messages.count(),
            timestamp_ms: self.plan.unix.unix_ms(turn.now_ns),
            producer_id,
            producer_epoch,
            base_sequence,
            is_transactional: self.transactions.is_some(),
        };
        if self.plan.run_id.is_none() && self.plan.keys == Keys::None {
            self.plan.template.write(&mut batch, &header)?;
        } else {
            self.write_filled(&mut batch, &header, &ticket)?;
        }
        ticket.correlation_id = self.next_correlation_id;
        self.next_correlation_id = self.next_correlation_id.wrapping_add(1) & i32::MAX;
        ticket.wire_bytes = batch.as_slice().len() as u64;
        ticket.sent_ns = turn.now_ns;
        let (topic, number) = self.leaders.view().place_of(ticket.partition);
        let frame = &self.frames[topic];
        let batch_bytes = batch.as_slice().len();
        frame.write_head(&mut out.head, ticket.correlation_id, i32::try_from(number)?, batch_bytes);
        out.batch = Some(batch);
        out.tail = frame.tail();
        self.partitions[ticket.partition].in_flight += 1;
        self.in_flight[link].push_back(ticket);
        if let Err(error) = self.leaders.links.send(link, out, turn) {
            self.leaders.links.close(link);
            self.on_lost(link, error, turn)?;
        }
        turn.pool.append(&mut self.leaders.links.spent);
        if self.plan.acks == 0 {
            self.complete_written(turn);
        }
        Ok(())
    }

    /// Writes a batch whose records have keys, stamps, or both.
    fn write_filled(&mut self, batch: &mut BatchBuffer, header: &BatchHeader, ticket: &Ticket) -> Result<()> {
        let schedule = self.source.as_ref().expect("set by pump").schedule();
        let (unix, producer, run_id) = (self.plan.unix, self.number(), self.plan.run_id);
        self.plan.template.write_filled(batch, &mut self.scratch, header, |position, key, value| {
            let (index, key_number) = ticket.messages.at(position);
            if let Some(number) = key_number {
                keys::write_key(number, key);
            }
            let Some(run_id) = run_id else { return Ok(()) };
            let intended_ns = schedule.map_or(ticket.first_sent_ns, |schedule| schedule.intended_ns(index));
            let stamp = Stamp {
                run_id,
                producer,
                sequence: ticket.first_sequence + u64::from(position),
                intended_unix_ns: unix.unix_ns(intended_ns),
            };
            payload::stamp(value, &stamp)
        })
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
        let count = u64::from(ticket.messages.count());
        self.partitions[ticket.partition].acknowledged_count += count;
        self.plan.acknowledged.fetch_add(count, Ordering::Relaxed);
        let (now_ns, tally) = (turn.now_ns, &mut turn.interval.produce);
        tally.count(&window, now_ns, count, ticket.wire_bytes);
        match self.source.as_ref().expect("set by pump").schedule() {
            Some(schedule) => {
                let intended = |index| schedule.intended_ns(index);
                tally.record_scheduled(&window, intended, ticket.messages.indexes(), now_ns);
            }
            None if window.contains(now_ns) => {
                let _ = tally.latency.record_n(now_ns.saturating_sub(ticket.first_sent_ns), count);
            }
            None => {}
        }
        if window.contains(now_ns) {
            tally.service.saturating_record(now_ns.saturating_sub(ticket.sent_ns));
        }
    }

    /// Commits the open transaction once it is full, or nothing more is to come, and nothing of it is in flight.
    fn end_transaction(&mut self, is_exhausted: bool, is_quiet: bool, turn: &mut Turn<'_>) -> Result<()> {
        let now_ns = turn.now_ns;
        let (Some(transactions), Some(identity)) = (&mut self.transactions, self.identity) else {
            return Ok(());
        };
        if is_quiet && transactions.is_open() && (is_exhausted || transactions.is_full(now_ns)) {
            transactions.begin_to_end(now_ns);
        }
        if let Some(link) = transactions.silent_link(now_ns, self.plan.request_timeout_ns) {
            self.leaders.links.close(link);
            return self.on_lost(link, anyhow!("no reply within the request timeout"), turn);
        }
        let link = self.leaders.links.index_of(transactions.coordinator);
        if !transactions.is_due(now_ns) || !self.leaders.links.is_open(link) {
            return Ok(());
        }
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id = correlation_id.wrapping_add(1) & i32::MAX;
        let head = transactions.request(link, correlation_id, identity, now_ns)?;
        if let Err(error) = self.leaders.links.send(link, OutFrame { head, batch: None, tail: &[] }, turn) {
            self.leaders.links.close(link);
            self.on_lost(link, error, turn)?;
        }
        Ok(())
    }

    fn on_end_of_transaction(&mut self, frame: Bytes, turn: &mut Turn<'_>) -> Result<()> {
        let window = self.timeline().window;
        let Some(transactions) = &mut self.transactions else { return Ok(()) };
        let give_up_ns = self.plan.delivery_timeout_ns;
        if let Ended::Committed { identity, took_ns } =
            transactions.on_answer(frame, turn.now_ns, give_up_ns)?
        {
            self.identity = Some(identity);
            for partition in &mut self.partitions {
                partition.epoch_first_sequence = partition.next_sequence;
            }
            if window.contains(turn.now_ns) {
                turn.interval.produce.commit.saturating_record(took_ns);
            }
        }
        Ok(())
    }

    /// Whether a transaction is open that takes no more.
    fn is_transaction_full(&self) -> bool {
        let is_full = |transactions: &Transactions| transactions.is_full(crate::clock::monotonic_ns());
        self.transactions.as_ref().is_some_and(is_full)
    }

    /// Puts a batch aside for another try.
    fn retry_later(&mut self, ticket: Ticket, turn: &mut Turn<'_>, why: &str) -> Result<()> {
        let age_ns = turn.now_ns.saturating_sub(ticket.first_sent_ns);
        ensure!(
            age_ns <= self.plan.delivery_timeout_ns,
            "a batch to {} was not acknowledged within {} ms: {why}",
            self.leaders.view().name_of(ticket.partition),
            age_ns / MILLISECOND_NS
        );
        turn.interval.produce.retries += 1;
        self.retried_count += u64::from(ticket.messages.count());
        let trouble = self.troubles.entry(ticket.partition).or_default();
        trouble.paused_until_ns = turn.now_ns + BACKOFF_NS;
        trouble.retries.insert(ticket.first_sequence, ticket);
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
        let follows_failure = self.troubles.contains_key(&ticket.partition);
        let is_echo = error == ResponseError::OutOfOrderSequenceNumber && follows_failure;
        if is_transient(&error) || is_echo {
            return self.retry_later(ticket, turn, why);
        }
        bail!("producing to {}: {why}", self.leaders.view().name_of(ticket.partition))
    }
}

impl Room for Producer {
    fn next_partition(&mut self) -> Option<usize> {
        if !self.is_open() {
            return None;
        }
        let count = self.partitions.len();
        for step in 0..count {
            let index = (self.next_partition + step) % count;
            if self.takes(index) {
                self.next_partition = (index + 1) % count;
                return Some(index);
            }
        }
        None
    }

    fn takes(&self, partition: usize) -> bool {
        !self.troubles.contains_key(&partition)
            && !self.is_transaction_full()
            && self.leaders.link_of(partition).is_some_and(|link| self.link_has_room(link))
    }

    fn is_open(&self) -> bool {
        !self.is_transaction_full() && (0..self.leaders.count()).any(|link| self.link_has_room(link))
    }
}

impl Client for Producer {
    fn links(&mut self) -> &mut Links {
        &mut self.leaders.links
    }

    fn unconnected(&self) -> Result<Vec<(usize, String)>> {
        self.leaders.unconnected()
    }

    fn pump(&mut self, turn: &mut Turn<'_>) -> Result<Option<u64>> {
        if self.source.is_none() {
            self.source = Some(self.source());
        }
        turn.pool.append(&mut self.leaders.links.spent);
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
        let source = self.source.as_ref().expect("set above");
        let is_exhausted = source.is_exhausted(turn.now_ns, self.timeline());
        let is_quiet = self.troubles.is_empty() && self.in_flight.iter().all(VecDeque::is_empty);
        self.end_transaction(is_exhausted, is_quiet, turn)?;
        let has_open = self.transactions.as_ref().is_some_and(Transactions::is_open);
        self.done = is_exhausted && is_quiet && !has_open;
        if self.done {
            return Ok(None);
        }
        wake = earliest(wake, self.transactions.as_ref().and_then(Transactions::due_ns).filter(|_| is_quiet));
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
        if self.transactions.as_ref().is_some_and(|transactions| transactions.waits_on(link)) {
            self.leaders.on_reply(link);
            return self.on_end_of_transaction(frame, turn);
        }
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
        if let Some(transactions) = &mut self.transactions {
            transactions.on_lost(link, turn.now_ns);
        }
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
        let open = open.chain(self.troubles.values().flat_map(|trouble| trouble.retries.values()));
        let Some(source) = &self.source else { return };
        match source.schedule() {
            Some(schedule) => {
                let before = tally.latency.len();
                let indexes = open.flat_map(|ticket| ticket.messages.indexes()).chain(source.unsent());
                tally.record_scheduled(&window, |index| schedule.intended_ns(index), indexes, now_ns);
                tally.unfinished += tally.latency.len() - before;
            }
            None => {
                for ticket in open {
                    let count = u64::from(ticket.messages.count());
                    let _ = tally.latency.record_n(now_ns.saturating_sub(ticket.first_sent_ns), count);
                    tally.unfinished += count;
                }
            }
        }
    }
}

impl ProducePlan {
    /// The fixed parts of requests in the view that `leaders` follows.
    fn frames(&self, leaders: &LeaderLinks, transactional_id: Option<&str>) -> Result<Arc<[ProduceFrame]>> {
        let new_frames = || {
            let topics = leaders.view().topics.iter();
            let frame = topics.map(|topic| {
                let (topic, acks) = ((topic.name.as_str(), topic.id), self.acks);
                ProduceFrame::new(self.version, topic, transactional_id, acks, ACK_TIMEOUT_MS)
            });
            frame.collect::<Result<Arc<[ProduceFrame]>>>()
        };
        if transactional_id.is_some() {
            return new_frames(); // no other producer has this id
        }
        let mut cached = self.frames.0.lock().expect("no panic under this lock");
        if let Some((version, frames)) = &*cached
            && *version == leaders.view_version()
        {
            return Ok(Arc::clone(frames));
        }
        let frames = new_frames()?;
        *cached = Some((leaders.view_version(), Arc::clone(&frames)));
        Ok(frames)
    }
}
