//! The coordinator, its log and the partitions: everything that the producers of the simulation cannot see.

use crate::random::Random;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use logstreams::coordinator::transaction::schema::{self, TransactionValue};
use logstreams::coordinator::transaction::{
    AppendId, Effects, MarkerOrder, StateRecord, TransactionCoordinator, TransactionSettings,
};
use logstreams::model::group::ReplyToken;
use logstreams::model::transaction::{
    AddPartitions, ListTransactions, TransactionError, TransactionReply, TransactionRequest,
    TransactionState, TransactionVersion,
};
use logstreams::model::{ProducerEpoch, ProducerId, TopicName, TopicPartition};

pub const PARTITION_COUNT: usize = 3;

pub fn partition(index: usize) -> TopicPartition {
    TopicPartition::new(TopicName::new("t").unwrap(), i32::try_from(index).unwrap())
}

/// Who asked under a token.
#[derive(Debug, Clone, Copy)]
pub enum Question {
    Producer(usize),
    Write(u64),
}

/// What a partition knows of a producer.
#[derive(Debug, Default, Clone)]
struct ProducerState {
    epoch: ProducerEpoch,
    open: Vec<usize>,
    marker_count: u64,
}

/// A partition: the transactions whose records a reader at READ_COMMITTED sees, and those that are open.
#[derive(Debug, Default)]
struct Partition {
    seen: BTreeSet<usize>,
    producers: HashMap<ProducerId, ProducerState>,
}

impl Partition {
    fn fences(&self, producer_id: ProducerId, epoch: ProducerEpoch) -> bool {
        self.producers.get(&producer_id).is_some_and(|state| epoch < state.epoch)
    }

    fn is_open(&self, producer_id: ProducerId, epoch: ProducerEpoch) -> bool {
        let state = self.producers.get(&producer_id);
        state.is_some_and(|state| state.epoch == epoch && !state.open.is_empty())
    }

    fn marker_count(&self, producer_id: ProducerId) -> u64 {
        self.producers.get(&producer_id).map_or(0, |state| state.marker_count)
    }

    fn write(&mut self, producer_id: ProducerId, epoch: ProducerEpoch, transaction: usize) {
        let state = self.producers.entry(producer_id).or_default();
        state.epoch = epoch;
        state.open.push(transaction);
    }

    fn mark(&mut self, order: &MarkerOrder) {
        if self.fences(order.producer_id, order.producer_epoch) {
            return;
        }
        let state = self.producers.entry(order.producer_id).or_default();
        state.epoch = order.producer_epoch;
        state.marker_count += 1;
        let ended = std::mem::take(&mut state.open);
        if order.is_commit {
            self.seen.extend(ended);
        }
    }
}

/// A record on its way to a partition.
struct Write {
    number: u64,
    producer: usize,
    add: AddPartitions,
    transaction: usize,
    to: usize,
    /// The markers that the partition had when the coordinator was asked; none while it was not.
    guard: Option<u64>,
    is_allowed: bool,
}

/// What became of a transaction as its producer sees it.
#[derive(Debug, Default, Clone)]
struct Fate {
    written_to: BTreeSet<usize>,
    asked_to_commit: bool,
    acknowledged: Option<bool>,
}

pub struct World {
    pub random: Random,
    pub is_calm: bool,
    now_ms: i64,
    coordinator: TransactionCoordinator,
    next_producer_id: ProducerId,
    log: Vec<StateRecord>,
    last: BTreeMap<String, TransactionValue>,
    appends: VecDeque<(AppendId, StateRecord)>,
    orders: Vec<(MarkerOrder, Vec<TopicPartition>)>,
    partitions: Vec<Partition>,
    writes: Vec<Write>,
    write_results: Vec<(usize, bool)>,
    fates: Vec<Fate>,
    next_number: u64,
    questions: HashMap<ReplyToken, (Question, TransactionRequest)>,
    mail: VecDeque<(usize, TransactionRequest, TransactionReply)>,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut world = World {
            random: Random(seed),
            is_calm: false,
            now_ms: 1_700_000_000_000,
            coordinator: TransactionCoordinator::new(TransactionSettings::default()),
            next_producer_id: 100,
            log: Vec::new(),
            last: BTreeMap::new(),
            appends: VecDeque::new(),
            orders: Vec::new(),
            partitions: (0..PARTITION_COUNT).map(|_| Partition::default()).collect(),
            writes: Vec::new(),
            write_results: Vec::new(),
            fates: Vec::new(),
            next_number: 0,
            questions: HashMap::new(),
            mail: VecDeque::new(),
        };
        // Epochs that are nearly used up, so that producer ids change within a run.
        if world.random.one_in(2) {
            world.age_ids();
        }
        let effects = world.coordinator.loaded(world.now_ms);
        world.carry_out(effects);
        world
    }

    fn age_ids(&mut self) {
        for id in 0..2 {
            let value = TransactionValue {
                producer_id: id,
                previous_producer_id: id,
                next_producer_id: -1,
                producer_epoch: ProducerEpoch::MAX - 6,
                timeout_ms: 60_000,
                state: TransactionState::CompleteCommit,
                partitions: BTreeSet::new(),
                last_update_ms: self.now_ms,
                start_ms: self.now_ms,
                version: TransactionVersion::V2,
            };
            let record = StateRecord { key: schema::key(&format!("id-{id}")), value: Some(value.encode()) };
            self.coordinator.replay(&record.key, record.value.as_deref()).unwrap();
            self.store(record);
        }
    }

    pub fn begin_transaction(&mut self) -> usize {
        self.fates.push(Fate::default());
        self.fates.len() - 1
    }

    pub fn is_empty(&self, transaction: usize) -> bool {
        self.fates[transaction].written_to.is_empty()
    }

    pub fn asked_to_commit(&mut self, transaction: usize) {
        self.fates[transaction].asked_to_commit = true;
    }

    pub fn acknowledge(&mut self, transaction: usize, is_commit: bool) {
        self.fates[transaction].acknowledged = Some(is_commit);
    }

    pub fn ask(&mut self, question: Question, request: TransactionRequest) {
        if self.coordinator.needs_producer_id() {
            self.coordinator.give_producer_id(self.next_producer_id);
            self.next_producer_id += 1;
        }
        let token = ReplyToken(self.next_number);
        self.next_number += 1;
        self.questions.insert(token, (question, request.clone()));
        let effects = self.coordinator.handle(token, request, self.now_ms);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Effects) {
        for (token, reply) in effects.replies {
            let question = self.questions.remove(&token);
            match question.unwrap_or_else(|| panic!("{token:?} was not open for {reply:?}")) {
                (Question::Producer(index), request) => self.mail.push_back((index, request, reply)),
                (Question::Write(number), _) => self.hear_of_write(number, &reply),
            }
        }
        self.appends.extend(effects.records);
        for order in effects.markers {
            let missing = order.partitions.clone();
            self.orders.push((order, missing));
        }
    }

    pub fn next_reply(&mut self) -> Option<(usize, TransactionRequest, TransactionReply)> {
        self.mail.pop_front()
    }

    /// A reply that does not arrive: the producer takes it for a broken connection and asks again.
    pub fn lose_a_reply(&mut self) {
        if let Some((index, request, _)) = self.mail.pop_front() {
            let error = TransactionError::CoordinatorNotAvailable;
            let reply = request.refused(error);
            self.mail.push_back((index, request, reply));
        }
    }

    /// The process is gone; what it has sent may still arrive.
    pub fn forget_producer(&mut self, index: usize) {
        self.mail.retain(|(to, ..)| *to != index);
        for write in self.writes.iter_mut().filter(|write| write.producer == index) {
            write.producer = usize::MAX;
        }
        self.write_results.retain(|(of, _)| *of != index);
        let open: Vec<ReplyToken> = self
            .questions
            .iter()
            .filter(|(_, (question, _))| matches!(question, Question::Producer(of) if *of == index))
            .map(|(token, _)| *token)
            .collect();
        for token in open {
            if let Some(asked) = self.questions.get_mut(&token) {
                asked.0 = Question::Write(u64::MAX); // nobody hears the answer
            }
        }
    }

    pub fn begin_write(
        &mut self,
        (producer, id, producer_id, producer_epoch, version): (
            usize,
            String,
            ProducerId,
            ProducerEpoch,
            TransactionVersion,
        ),
        transaction: usize,
        to: usize,
    ) {
        let number = self.next_number;
        self.next_number += 1;
        let add = AddPartitions {
            transactional_id: id,
            producer_id,
            producer_epoch,
            version,
            partitions: vec![partition(to)],
        };
        let write = Write { number, producer, add, transaction, to, guard: None, is_allowed: false };
        self.writes.push(write);
    }

    /// A write makes its next step: the partition looks, the coordinator is asked, the record is appended.
    pub fn go_on_with_a_write(&mut self) {
        if self.writes.is_empty() {
            return;
        }
        let index = self.random.index(self.writes.len());
        let write = &mut self.writes[index];
        let (producer_id, epoch) = (write.add.producer_id, write.add.producer_epoch);
        let at = &self.partitions[write.to];
        let is_open = at.is_open(producer_id, epoch);
        if write.guard.is_none() && !is_open {
            write.guard = Some(at.marker_count(producer_id));
            let (number, add) = (write.number, write.add.clone());
            let request = match add.version.bumps_epoch() {
                true => TransactionRequest::AddPartitions(add),
                false => TransactionRequest::VerifyPartitions(add),
            };
            return self.ask(Question::Write(number), request);
        }
        if !write.is_allowed && !is_open {
            return; // the coordinator has not answered
        }
        let write = self.writes.swap_remove(index);
        let at = &mut self.partitions[write.to];
        let is_current = write.guard == Some(at.marker_count(producer_id));
        if at.fences(producer_id, epoch) || !(is_open || is_current) {
            return self.write_results.push((write.producer, true));
        }
        at.write(producer_id, epoch, write.transaction);
        self.fates[write.transaction].written_to.insert(write.to);
        self.write_results.push((write.producer, false));
    }

    fn hear_of_write(&mut self, number: u64, reply: &TransactionReply) {
        let Some(index) = self.writes.iter().position(|write| write.number == number) else { return };
        let write = &mut self.writes[index];
        match reply {
            TransactionReply::AddPartitions(Ok(())) => write.is_allowed = true,
            TransactionReply::VerifyPartitions(Ok(are_in)) if are_in[0] => write.is_allowed = true,
            // It asks again.
            TransactionReply::AddPartitions(Err(TransactionError::ConcurrentTransactions))
            | TransactionReply::VerifyPartitions(Err(TransactionError::ConcurrentTransactions)) => {
                write.guard = None;
            }
            _ => {
                let write = self.writes.swap_remove(index);
                self.write_results.push((write.producer, true));
            }
        }
    }

    pub fn take_write_results(&mut self) -> Vec<(usize, bool)> {
        let mut results = std::mem::take(&mut self.write_results);
        results.retain(|(producer, _)| *producer != usize::MAX);
        results
    }

    pub fn end_append(&mut self) {
        let Some((append, record)) = self.appends.pop_front() else { return };
        let effects = if !self.is_calm && self.random.one_in(12) {
            if self.random.one_in(3) {
                self.log.push(record); // it is there after all, and only whoever reads the log next will know
            }
            self.coordinator.append_failed(append, TransactionError::CoordinatorNotAvailable, self.now_ms)
        } else {
            self.store(record);
            self.coordinator.appended(append, self.now_ms)
        };
        self.carry_out(effects);
    }

    /// Takes a record into the log, and holds it against the one before.
    fn store(&mut self, record: StateRecord) {
        let id = schema::decode_key(&record.key).unwrap().unwrap();
        if let Some(bytes) = &record.value {
            let value = TransactionValue::decode(bytes).unwrap();
            if let Some(last) = self.last.get(&id) {
                check_succession(last, &value);
            }
            self.last.insert(id, value);
        }
        self.log.push(record);
    }

    pub fn write_a_marker(&mut self) {
        if self.orders.is_empty() {
            return;
        }
        let index = self.random.index(self.orders.len());
        let (order, missing) = &mut self.orders[index];
        let place = self.random.index(missing.len());
        let to = usize::try_from(missing.swap_remove(place).partition).unwrap();
        self.partitions[to].mark(order);
        if missing.is_empty() {
            let (order, _) = self.orders.swap_remove(index);
            let effects = self.coordinator.markers_written(&order, self.now_ms);
            self.carry_out(effects);
        }
    }

    pub fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        while self.coordinator.next_deadline_ms().is_some_and(|deadline_ms| deadline_ms <= self.now_ms) {
            let effects = self.coordinator.on_timer(self.now_ms);
            self.carry_out(effects);
        }
    }

    /// The coordinator dies, some of what it was appending reaches the log, and another one takes over. Sometimes the log
    /// was rewritten just before.
    pub fn kill_coordinator(&mut self) {
        let reached = self.random.index(self.appends.len() + 1);
        if reached == 0 && self.random.one_in(3) {
            self.log = self.coordinator.snapshot().collect();
        }
        for (_, record) in std::mem::take(&mut self.appends).into_iter().take(reached) {
            self.store(record);
        }
        self.orders.clear();
        self.questions.clear();
        self.mail.clear();
        for write in std::mem::take(&mut self.writes) {
            // Whoever waits for the coordinator hears that it is gone; what has its word may still arrive.
            if write.is_allowed || write.guard.is_none() {
                self.writes.push(write);
            } else {
                self.write_results.push((write.producer, true));
            }
        }
        self.coordinator = TransactionCoordinator::new(TransactionSettings::default());
        self.last.clear();
        for record in &self.log {
            if let Some(bytes) = &record.value {
                let id = schema::decode_key(&record.key).unwrap().unwrap();
                self.last.insert(id, TransactionValue::decode(bytes).unwrap());
            }
            self.coordinator.replay(&record.key, record.value.as_deref()).unwrap();
        }
        let effects = self.coordinator.loaded(self.now_ms);
        self.carry_out(effects);
    }

    pub fn check_the_end(&mut self) {
        assert!(self.questions.is_empty(), "{} tokens were never answered", self.questions.len());
        assert!(self.orders.is_empty() && self.appends.is_empty() && self.writes.is_empty());
        for listed in
            self.coordinator.list(&ListTransactions { longer_than_ms: -1, ..Default::default() }, 0).unwrap()
        {
            assert!(
                listed.state == TransactionState::Empty || listed.state.is_complete(),
                "{listed:?} has not ended"
            );
        }
        for (index, at) in self.partitions.iter().enumerate() {
            for (producer_id, state) in &at.producers {
                assert!(
                    state.open.is_empty(),
                    "partition {index} keeps {state:?} of producer {producer_id} open"
                );
            }
        }
        for (number, fate) in self.fates.iter().enumerate() {
            self.check_fate(number, fate);
        }
    }

    fn check_fate(&self, number: usize, fate: &Fate) {
        let seen_in: BTreeSet<usize> =
            (0..PARTITION_COUNT).filter(|&index| self.partitions[index].seen.contains(&number)).collect();
        let is_whole = seen_in == fate.written_to;
        assert!(
            seen_in.is_empty() || is_whole,
            "transaction {number} is half visible: {fate:?}, in {seen_in:?}"
        );
        match fate.acknowledged {
            Some(true) => assert!(is_whole, "transaction {number} was acknowledged and is lost: {fate:?}"),
            Some(false) => {
                assert!(seen_in.is_empty(), "transaction {number} was aborted and is seen: {fate:?}")
            }
            None => assert!(
                fate.asked_to_commit || seen_in.is_empty(),
                "transaction {number} is seen, and nobody wanted to commit it: {fate:?}"
            ),
        }
    }
}

/// What must hold between two records of one transactional id.
fn check_succession(last: &TransactionValue, next: &TransactionValue) {
    if next.producer_id == last.producer_id {
        assert!(next.producer_epoch >= last.producer_epoch, "an epoch goes back: {last:?}, {next:?}");
    } else {
        assert!(next.producer_id > last.producer_id, "a producer id comes back: {last:?}, {next:?}");
        assert_eq!(next.producer_epoch, 0);
    }
    let complete = match last.state {
        TransactionState::PrepareCommit => TransactionState::CompleteCommit,
        TransactionState::PrepareAbort => TransactionState::CompleteAbort,
        _ => return,
    };
    // A kill may put an outcome into the log that nobody was told of; the same one may then be decided again.
    assert!(next.state == complete || next.state == last.state, "an outcome changes: {last:?}, {next:?}");
}
