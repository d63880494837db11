//! Transactional producers, their coordinator, its log, the partitions that they write to, and their misfortunes, run by a
//! seed.
//!
//! Producers of one transactional id fight for it, crash, write after they were fenced; replies get lost; appends fail;
//! markers arrive one by one; the coordinator is killed at any step and comes back from its log, with or without what
//! was being appended. What must hold:
//! - a token is answered exactly once;
//! - a producer's epoch never goes back, and a producer id is never given twice;
//! - an outcome never changes once it is in the log;
//! - a transaction is seen in all its partitions or in none; one whose commit was acknowledged is seen, one whose abort
//!   was acknowledged is not;
//! - when the misfortunes end, every transaction ends, and no partition keeps one open.
//!
//! `TRANSACTION_SIMULATION_SEEDS=20000` runs more seeds, `TRANSACTION_SIMULATION_SEED=7` one of them.

#[path = "support/random.rs"]
mod random;
#[path = "transaction_simulation/world.rs"]
mod world;

use logstreams::model::transaction::{
    AddPartitions, EndTransaction, InitProducerId, TransactionError, TransactionReply, TransactionRequest,
    TransactionVersion,
};
use logstreams::model::{ProducerEpoch, ProducerId};

use world::{PARTITION_COUNT, Question, World, partition};

const STEP_COUNT: usize = 1_200;
const ID_COUNT: usize = 3;
const PRODUCER_COUNT: usize = 5;
const SEED_COUNT: u64 = if cfg!(debug_assertions) { 500 } else { 4_000 };

/// What a producer is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    ToInit,
    Ready,
    /// Writes of its transaction are under way or done.
    Open,
    ToEnd {
        is_commit: bool,
    },
}

/// One process with a transactional id.
#[derive(Debug, Clone)]
struct Producer {
    id: usize,
    version: TransactionVersion,
    phase: Phase,
    known: Option<(ProducerId, ProducerEpoch)>,
    /// The number of the transaction that it is in.
    transaction: usize,
    /// Partitions that it has told the coordinator of (before version 2).
    added: Vec<usize>,
    is_waiting: bool,
    /// Writes that are not answered yet.
    writes: usize,
    has_failed_write: bool,
}

impl Producer {
    fn restart(&mut self) {
        self.phase = Phase::ToInit;
        self.known = None;
        self.is_waiting = false;
        self.writes = 0;
        self.has_failed_write = false;
        self.added.clear();
    }
}

/// The producers and the world that they live in.
struct Simulation {
    world: World,
    producers: Vec<Producer>,
    calm_steps: u64,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut world = World::new(seed);
        let calm_steps = [6, 25, 100][world.random.index(3)];
        let producer = |index: usize| Producer {
            id: index % ID_COUNT,
            version: if index.is_multiple_of(2) { TransactionVersion::V2 } else { TransactionVersion::V0 },
            phase: Phase::ToInit,
            known: None,
            transaction: 0,
            added: Vec::new(),
            is_waiting: false,
            writes: 0,
            has_failed_write: false,
        };
        Simulation {
            world,
            producers: (0..PRODUCER_COUNT).map(producer).collect(),
            calm_steps: calm_steps as u64,
        }
    }

    fn step(&mut self) {
        if self.world.random.one_in(self.calm_steps) {
            match self.world.random.index(12) {
                0..4 => {
                    // It dies; what it has sent may still arrive.
                    let index = self.world.random.index(PRODUCER_COUNT);
                    self.world.forget_producer(index);
                    self.producers[index].restart();
                }
                4..6 => {
                    let ms = self.world.random.up_to_ms(70_000);
                    self.world.pass(ms);
                }
                6..8 => self.world.lose_a_reply(),
                _ => {
                    self.world.kill_coordinator();
                    self.producers.iter_mut().for_each(|producer| producer.is_waiting = false);
                }
            }
            return;
        }
        match self.world.random.index(100) {
            0..40 => {
                let index = self.world.random.index(PRODUCER_COUNT);
                self.act(index);
            }
            40..60 => self.deliver(),
            60..75 => self.world.end_append(),
            75..85 => self.world.write_a_marker(),
            85..95 => self.world.go_on_with_a_write(),
            _ => {
                let ms = self.world.random.up_to_ms(400);
                self.world.pass(ms);
            }
        }
        self.hear_of_writes();
    }

    fn act(&mut self, index: usize) {
        let producer = self.producers[index].clone();
        if producer.is_waiting {
            return;
        }
        let id = format!("id-{}", producer.id);
        let Some((producer_id, producer_epoch)) = producer.known else {
            let present = None;
            let init = InitProducerId { transactional_id: id, timeout_ms: 60_000, present };
            return self.ask(index, TransactionRequest::InitProducerId(init));
        };
        match producer.phase {
            Phase::ToInit => {}
            Phase::Ready => {
                self.producers[index].transaction = self.world.begin_transaction();
                self.producers[index].phase = Phase::Open;
            }
            Phase::Open if producer.has_failed_write && producer.writes == 0 => {
                self.producers[index].phase = Phase::ToEnd { is_commit: false };
            }
            Phase::Open if producer.writes == 0 && self.world.random.one_in(4) => {
                let is_commit = !self.world.random.one_in(3);
                self.producers[index].phase = Phase::ToEnd { is_commit };
            }
            Phase::Open if producer.has_failed_write => {}
            Phase::Open => {
                let to = self.world.random.index(PARTITION_COUNT);
                let bumps_epoch = producer.version.bumps_epoch();
                if bumps_epoch || producer.added.contains(&to) {
                    self.producers[index].writes += 1;
                    let transaction = producer.transaction;
                    let from = (index, id, producer_id, producer_epoch, producer.version);
                    return self.world.begin_write(from, transaction, to);
                }
                let add = AddPartitions {
                    transactional_id: id,
                    producer_id,
                    producer_epoch,
                    version: producer.version,
                    partitions: vec![partition(to)],
                };
                self.ask(index, TransactionRequest::AddPartitions(add));
            }
            // A client of the old kind that has added nothing has nothing to end.
            Phase::ToEnd { .. } if producer.added.is_empty() && !producer.version.bumps_epoch() => {
                self.producers[index].phase = Phase::Ready;
                self.producers[index].has_failed_write = false;
            }
            Phase::ToEnd { is_commit } => {
                // Version 2 has written nothing: there may be no transaction to commit.
                let is_commit = is_commit && !self.world.is_empty(producer.transaction);
                self.producers[index].phase = Phase::ToEnd { is_commit };
                if is_commit {
                    self.world.asked_to_commit(producer.transaction);
                }
                let end = EndTransaction {
                    transactional_id: id,
                    producer_id,
                    producer_epoch,
                    version: producer.version,
                    is_commit,
                };
                self.ask(index, TransactionRequest::End(end));
            }
        }
    }

    fn ask(&mut self, index: usize, request: TransactionRequest) {
        self.producers[index].is_waiting = true;
        self.world.ask(Question::Producer(index), request);
    }

    fn hear_of_writes(&mut self) {
        for (index, has_failed) in self.world.take_write_results() {
            let producer = &mut self.producers[index];
            producer.writes = producer.writes.saturating_sub(1);
            producer.has_failed_write |= has_failed;
        }
    }

    /// Hands over one reply.
    fn deliver(&mut self) {
        let Some((index, request, reply)) = self.world.next_reply() else { return };
        let producer = &mut self.producers[index];
        producer.is_waiting = false;
        match (request, reply) {
            (_, TransactionReply::InitProducerId(Ok(given))) => {
                producer.known = Some(given);
                producer.phase = Phase::Ready;
                producer.added.clear();
                producer.has_failed_write = false;
            }
            (TransactionRequest::AddPartitions(add), TransactionReply::AddPartitions(Ok(()))) => {
                producer.added.push(usize::try_from(add.partitions[0].partition).unwrap());
            }
            (TransactionRequest::End(end), TransactionReply::End(Ok(next))) => {
                self.world.acknowledge(producer.transaction, end.is_commit);
                producer.known = Some(next);
                producer.phase = Phase::Ready;
                producer.added.clear();
                producer.has_failed_write = false;
            }
            (_, TransactionReply::InitProducerId(Err(error)))
            | (_, TransactionReply::AddPartitions(Err(error)))
            | (_, TransactionReply::End(Err(error))) => match error {
                TransactionError::ConcurrentTransactions
                | TransactionError::CoordinatorNotAvailable
                | TransactionError::CoordinatorLoadInProgress => {} // it asks again
                TransactionError::ProducerFenced
                | TransactionError::InvalidProducerIdMapping
                | TransactionError::InvalidTransactionState => producer.restart(),
                other => panic!("no producer should meet {other:?}"),
            },
            (request, reply) => panic!("{reply:?} is no answer to {request:?}"),
        }
    }

    /// The misfortunes end: everything must come to an end.
    fn calm_down(&mut self) {
        self.world.is_calm = true;
        for _ in 0..40 {
            for index in 0..PRODUCER_COUNT {
                self.act(index);
            }
            for _ in 0..200 {
                self.world.end_append();
                self.world.write_a_marker();
                self.world.go_on_with_a_write();
                self.deliver();
                self.hear_of_writes();
            }
            self.world.pass(1_000);
        }
        // Nobody goes on: what is open is aborted when its time has come.
        for _ in 0..4 {
            self.world.pass(61_000);
            for _ in 0..400 {
                self.world.end_append();
                self.world.write_a_marker();
                self.world.go_on_with_a_write();
                self.world.next_reply();
            }
        }
        self.world.check_the_end();
    }
}

fn run(seed: u64) {
    let mut simulation = Simulation::new(seed);
    for _ in 0..STEP_COUNT {
        simulation.step();
    }
    simulation.calm_down();
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn transactions_hold_their_promises_through_every_misfortune() {
    if let Some(seed) = variable("TRANSACTION_SIMULATION_SEED") {
        return run(seed);
    }
    for seed in 0..variable("TRANSACTION_SIMULATION_SEEDS").unwrap_or(SEED_COUNT) {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!("the simulation failed: TRANSACTION_SIMULATION_SEED={seed} reproduces it");
            std::panic::resume_unwind(panic);
        }
    }
}
