//! Consumer groups (KIP-848), their clients, their log and their misfortunes, run by a seed.
//!
//! Members join, crash, pause past their sessions, come back, leave for good or for a while, change what they read;
//! replies get lost; topics come and grow; appends fail; the coordinator is killed at any step and comes back from
//! its log, with or without what was being appended. What must hold:
//! - a token is answered exactly once;
//! - in the log no partition is ever held by two members, and the group's epoch never goes back;
//! - no member is told to take a partition that another living member still has;
//! - a member's epoch never goes back while it is a member;
//! - members never commit an offset backwards;
//! - when the misfortunes end, every member has what it shall have, every partition has one owner, and it stays so.
//!
//! `CONSUMER_GROUP_SIMULATION_SEEDS=20000` runs more seeds, `CONSUMER_GROUP_SIMULATION_SEED=7` one of them.

#[path = "consumer_group_simulation/client.rs"]
mod client;
#[path = "support/random.rs"]
mod random;
#[path = "consumer_group_simulation/topics.rs"]
mod topics;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use logstreams::coordinator::group::modern::{About, ModernKey, ModernValue};
use logstreams::coordinator::group::schema::{OffsetValue, StateKey};
use logstreams::coordinator::group::{
    AppendId, ConsumerSettings, Effects, GroupCoordinator, GroupSettings, StateRecord,
};
use logstreams::model::Uuid;
use logstreams::model::group::{
    DescribeModernGroup, GroupError, GroupReply, GroupRequest, ModernGroupState, ReplyToken,
};

use random::Random;

use client::{Client, Key, Phase};
use topics::World as TopicWorld;

const GROUP: &str = "g";
const SESSION_MS: i64 = 45_000;
const HEARTBEAT_MS: i64 = 5_000;
const STEP_COUNT: usize = 800;
const CLIENT_COUNT: usize = 5;
const SEED_COUNT: u64 = if cfg!(debug_assertions) { 200 } else { 4_000 };

/// What the log says, record by record.
#[derive(Default)]
struct LogModel {
    offsets: BTreeMap<(String, i32), i64>,
    group_epoch: i32,
    /// What each member holds.
    held: BTreeMap<String, BTreeSet<(Uuid, i32)>>,
    members: BTreeSet<String>,
}

impl LogModel {
    fn apply(&mut self, record: &StateRecord) {
        if let Some(StateKey::Offset { topic, partition, .. }) = StateKey::decode(&record.key).unwrap() {
            let key = (topic.to_string(), partition);
            match &record.value {
                Some(value) => {
                    let offset = OffsetValue::decode(value).unwrap().offset;
                    let before = self.offsets.insert(key.clone(), offset).unwrap_or(-1);
                    assert!(offset >= before, "{key:?} went from {before} to {offset}");
                }
                None => drop(self.offsets.remove(&key)),
            }
            return;
        }
        let Some(key) = ModernKey::decode(&record.key).unwrap() else { return };
        let value = record.value.as_ref().map(|value| ModernValue::decode(&key, value).unwrap());
        match (key.about, value) {
            (About::Epoch, Some(ModernValue::Epoch(epoch, _))) => {
                assert!(epoch >= self.group_epoch, "the group's epoch went back");
                self.group_epoch = epoch;
            }
            // A new group of the same name counts from one again.
            (About::Epoch, None) => self.group_epoch = 0,
            (About::Member(id), Some(_)) => drop(self.members.insert(id.to_string())),
            (About::Member(id), None) => drop(self.members.remove(&*id)),
            (About::Current(id), Some(ModernValue::Current(current))) => {
                self.held.insert(id.to_string(), current.held().into_iter().collect());
            }
            (About::Current(id), None) => drop(self.held.remove(&*id)),
            _ => {}
        }
    }

    /// After all records of one append.
    fn check(&self) {
        let mut seen = HashMap::new();
        for (id, held) in &self.held {
            for key in held {
                assert_eq!(seen.insert(key, id), None, "{key:?} is held twice in the log");
            }
        }
    }
}

/// Who asked what under a token.
struct Question {
    /// None for a process that is gone.
    client: Option<(usize, u64)>,
    request: GroupRequest,
}

struct Append {
    id: AppendId,
    records: Vec<StateRecord>,
}

struct World {
    random: Random,
    now_ms: i64,
    settings: GroupSettings,
    coordinator: GroupCoordinator,
    incarnation: u128,
    log: Vec<StateRecord>,
    model: LogModel,
    topics: TopicWorld,
    appends: VecDeque<Append>,
    clients: Vec<Client>,
    next_token: u64,
    next_member: u128,
    questions: HashMap<ReplyToken, Question>,
    mail: VecDeque<(Question, ReplyToken, GroupReply)>,
    /// Commits that are still in the network.
    delayed: Vec<GroupRequest>,
    /// Steps between two misfortunes.
    calm_steps: u64,
    is_calm: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let consumer = ConsumerSettings {
            assignment_interval_ms: [0, 0, 1_000][random.below(3) as usize],
            max_size: [3, 100, 100, 100][random.below(4) as usize],
            ..ConsumerSettings::default()
        };
        let settings = GroupSettings { consumer, ..GroupSettings::default() };
        let mut world = World {
            coordinator: GroupCoordinator::new(settings.clone()),
            settings,
            calm_steps: [8, 30, 120][random.below(3) as usize],
            now_ms: 1_700_000_000_000,
            incarnation: 0,
            log: Vec::new(),
            model: LogModel::default(),
            topics: TopicWorld::new(),
            appends: VecDeque::new(),
            clients: (0..CLIENT_COUNT).map(Client::new).collect(),
            next_token: 0,
            next_member: 0,
            questions: HashMap::new(),
            mail: VecDeque::new(),
            delayed: Vec::new(),
            is_calm: false,
            random,
        };
        world.revive_coordinator();
        world
    }

    fn revive_coordinator(&mut self) {
        let mut number = (self.incarnation + 1) << 64;
        let ids = move || {
            number += 1;
            Uuid::from_u128(number)
        };
        self.coordinator = GroupCoordinator::with_ids(self.settings.clone(), Box::new(ids));
        self.coordinator.set_topics(self.topics.view());
        for record in &self.log {
            self.coordinator.replay(&record.key, record.value.as_deref(), None, self.now_ms).unwrap();
        }
        let effects = self.coordinator.loaded(self.now_ms);
        self.carry_out(effects);
    }

    fn step(&mut self) {
        if self.random.one_in(self.calm_steps) {
            return self.suffer_misfortune();
        }
        match self.random.below(100) {
            0..50 => {
                let client = self.random.below(CLIENT_COUNT as u64) as usize;
                self.act(client);
            }
            50..72 => self.deliver_mail(),
            72..90 => self.end_append(),
            90 => self.deliver_delayed(),
            _ => {
                let ms = self.random.up_to_ms(1_500);
                self.pass(ms);
            }
        }
    }

    fn suffer_misfortune(&mut self) {
        let index = self.random.below(CLIENT_COUNT as u64) as usize;
        match self.random.below(44) {
            0..5 => self.restart_client(index),
            5..8 => self.clients[index].phase = Phase::Out,
            8..13 => {
                self.clients[index].paused_until_ms = self.now_ms + self.random.up_to_ms(3 * SESSION_MS);
            }
            13..17 => {
                let choice = self.random.below(4);
                self.clients[index].change_subscription(choice);
            }
            17..22 => self.clients[index].lose_connection(),
            22..25 => self.deliver_delayed(),
            25..29 => {
                let ms = self.random.up_to_ms(2 * SESSION_MS);
                self.pass(ms);
            }
            29..33 => {
                self.topics.change(&mut self.random);
                self.coordinator.set_topics(self.topics.view());
            }
            33..36 if self.clients[index].phase == Phase::Member => {
                let is_for_a_while = self.random.one_in(2);
                let request = self.clients[index].leave(is_for_a_while);
                self.ask(None, request);
            }
            _ => self.kill_coordinator(),
        }
    }

    fn restart_client(&mut self, index: usize) {
        self.next_member += 1;
        let id = self.next_member;
        self.clients[index].restart(format!("member-{id}"), id as u64);
    }

    /// Lets one client do what it is up to.
    fn act(&mut self, index: usize) {
        if self.clients[index].is_waiting() || self.now_ms < self.clients[index].paused_until_ms {
            return;
        }
        let request = match self.clients[index].phase {
            Phase::Out if self.is_calm || self.random.one_in(4) => return self.restart_client(index),
            Phase::Out => return,
            Phase::ToJoin => self.clients[index].join(),
            Phase::Member => match self.member_request(index) {
                Some(request) => request,
                None => return,
            },
        };
        self.ask(Some(index), request);
    }

    fn member_request(&mut self, index: usize) -> Option<GroupRequest> {
        let now_ms = self.now_ms;
        let client = &mut self.clients[index];
        if let Some(fetch) = client.fetch(&self.topics) {
            return Some(fetch);
        }
        if client.has_news || now_ms - client.heartbeat_ms >= HEARTBEAT_MS {
            client.heartbeat_ms = now_ms;
            let is_full = self.random.one_in(3);
            return Some(client.heartbeat(is_full));
        }
        if client.positions.is_empty() || self.random.one_in(2) {
            return None;
        }
        let read = self.random.below(5).cast_signed();
        client.positions.values_mut().for_each(|position| *position += read);
        let commit = client.commit(&self.topics)?;
        if self.is_calm || !self.random.one_in(10) {
            return Some(commit);
        }
        // The process dies; what it sent may arrive at any time.
        self.delayed.push(commit);
        self.restart_client(index);
        None
    }

    fn deliver_delayed(&mut self) {
        if !self.delayed.is_empty() {
            let index = self.random.below(self.delayed.len() as u64) as usize;
            let request = self.delayed.swap_remove(index);
            self.ask(None, request);
        }
    }

    fn ask(&mut self, client: Option<usize>, request: GroupRequest) {
        let token = ReplyToken(self.next_token);
        self.next_token += 1;
        let asker = client.map(|index| (index, self.clients[index].process));
        self.questions.insert(token, Question { client: asker, request: request.clone() });
        if let Some(index) = client {
            self.clients[index].waiting_for = Some(token);
        }
        let effects = self.coordinator.handle(token, request, self.now_ms);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Effects) {
        for (token, reply) in effects.replies {
            let question = self.questions.remove(&token);
            let question = question.unwrap_or_else(|| panic!("{token:?} was not open for {reply:?}"));
            self.check_reply(&question, &reply);
            self.mail.push_back((question, token, reply));
        }
        if let Some(id) = effects.append {
            assert!(!effects.records.is_empty());
            self.appends.push_back(Append { id, records: effects.records });
        }
    }

    /// What must be true of a reply when it leaves the coordinator.
    fn check_reply(&mut self, question: &Question, reply: &GroupReply) {
        match (&question.request, reply) {
            (GroupRequest::ConsumerHeartbeat(asked), GroupReply::ConsumerHeartbeat(told))
                if told.error.is_none() && asked.member_epoch >= 0 =>
            {
                let held = self.model.held.get(&told.member_id).cloned().unwrap_or_default();
                for (topic, partitions) in told.assignment.iter().flatten() {
                    for partition in partitions {
                        let key = (*topic, *partition);
                        assert!(held.contains(&key), "{key:?} is given before the log says so");
                        self.check_nobody_has(&told.member_id, key);
                    }
                }
            }
            (GroupRequest::OffsetFetch(_), GroupReply::OffsetFetch(fetched)) => {
                for topic in &fetched.topics {
                    for offset in &topic.partitions {
                        let key = (topic.topic.to_string(), offset.partition);
                        let in_log = self.model.offsets.get(&key).copied().unwrap_or(-1);
                        assert_eq!(offset.offset, in_log, "{key:?}");
                    }
                }
            }
            _ => {}
        }
    }

    /// No other member that the log knows has the partition.
    fn check_nobody_has(&self, member_id: &str, key: Key) {
        for other in self.clients.iter().filter(|other| other.phase == Phase::Member) {
            let is_other = other.member_id != member_id && self.model.members.contains(&other.member_id);
            assert!(
                !is_other || !other.owned.contains(&key),
                "{key:?} is given to {member_id} while {} has it",
                other.member_id
            );
        }
    }

    fn deliver_mail(&mut self) {
        let Some((question, token, reply)) = self.mail.pop_front() else { return };
        let Some((index, process)) = question.client else { return };
        let client = &mut self.clients[index];
        if client.waiting_for != Some(token) || client.process != process {
            return; // the process that asked is gone
        }
        client.waiting_for = None;
        let is_lost = !self.is_calm && self.random.one_in(25);
        if is_lost {
            client.has_lost_reply = true;
        } else if client.phase != Phase::Out {
            client.receive(&question.request, reply, &self.topics);
        }
    }

    fn end_append(&mut self) {
        let Some(append) = self.appends.pop_front() else { return };
        let effects = if !self.is_calm && self.random.one_in(10) {
            self.coordinator.append_failed(append.id, GroupError::CoordinatorNotAvailable, self.now_ms)
        } else {
            self.store(append.records);
            self.coordinator.appended(append.id, self.now_ms)
        };
        self.carry_out(effects);
    }

    fn store(&mut self, records: Vec<StateRecord>) {
        for record in records {
            self.model.apply(&record);
            self.log.push(record);
        }
        self.model.check();
    }

    fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        while self.coordinator.next_deadline_ms().is_some_and(|deadline_ms| deadline_ms <= self.now_ms) {
            let effects = self.coordinator.on_timer(self.now_ms);
            self.carry_out(effects);
        }
    }

    /// The coordinator dies, some of what it was appending reaches the log, and another one takes over.
    fn kill_coordinator(&mut self) {
        let reached = self.random.below(self.appends.len() as u64 + 1) as usize;
        let is_quiet = self.appends.is_empty();
        for append in std::mem::take(&mut self.appends).into_iter().take(reached) {
            self.store(append.records);
        }
        if is_quiet && self.random.one_in(3) {
            self.log = self.coordinator.snapshot().collect();
            self.model = LogModel::default();
            self.log.iter().for_each(|record| self.model.apply(record));
            self.model.check();
        }
        // Connections break: whoever waits asks again.
        self.questions.clear();
        self.mail.clear();
        self.clients.iter_mut().for_each(Client::lose_connection);
        self.incarnation += 1;
        self.revive_coordinator();
    }

    /// The misfortunes end: every member gets what it shall have, and keeps it.
    fn calm_down(&mut self) {
        self.is_calm = true;
        self.clients.iter_mut().for_each(|client| client.paused_until_ms = 0);
        let mut settled_epoch = 0;
        for round in 0..400 {
            if round == 250 {
                settled_epoch = self.model.group_epoch;
            }
            for index in 0..CLIENT_COUNT {
                self.act(index);
                while !self.appends.is_empty() || !self.mail.is_empty() {
                    self.end_append();
                    self.deliver_mail();
                }
            }
            self.pass(1_000);
        }
        assert_eq!(self.model.group_epoch, settled_epoch, "the group goes on rebalancing");
        let mut owned = BTreeMap::new();
        let members = || self.clients.iter().filter(|client| client.phase == Phase::Member);
        for (index, client) in members().enumerate() {
            for key in &client.owned {
                assert_eq!(owned.insert(*key, index), None, "{key:?} has two owners");
            }
        }
        let wanted: BTreeSet<Key> = members().flat_map(|client| self.topics.read_by(client)).collect();
        assert_eq!(owned.into_keys().collect::<BTreeSet<_>>(), wanted, "not every partition has an owner");
        let describe = DescribeModernGroup { group_id: GROUP.to_owned() };
        let request = GroupRequest::DescribeConsumer(describe);
        let effects = self.coordinator.handle(ReplyToken(u64::MAX), request, self.now_ms);
        let GroupReply::DescribeConsumer(described) = &effects.replies[0].1 else { panic!("no description") };
        assert_eq!(described.state, ModernGroupState::Stable);
        assert_eq!(described.epoch, self.model.group_epoch);
    }

    /// Everybody is gone: nothing may be left open, and in the end nothing may be left at all.
    fn end(&mut self) {
        self.clients.iter_mut().for_each(|client| client.phase = Phase::Out);
        for _ in 0..20 {
            self.pass(60_000);
            while !self.appends.is_empty() {
                self.end_append();
            }
        }
        assert!(self.questions.is_empty(), "{} tokens were never answered", self.questions.len());
        for _ in 0..4 {
            self.pass(self.settings.offsets_retention_ms);
            while !self.appends.is_empty() {
                self.end_append();
            }
        }
        assert_eq!(self.coordinator.group_count(), 0);
        assert_eq!(self.coordinator.next_deadline_ms(), None);
        assert!(self.model.offsets.is_empty() && self.model.members.is_empty() && self.model.held.is_empty());
    }
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..STEP_COUNT {
        world.step();
    }
    world.calm_down();
    world.end();
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn consumer_groups_hold_their_promises_through_every_misfortune() {
    if let Some(seed) = variable("CONSUMER_GROUP_SIMULATION_SEED") {
        return run(seed);
    }
    for seed in 0..variable("CONSUMER_GROUP_SIMULATION_SEEDS").unwrap_or(SEED_COUNT) {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!("the simulation failed: CONSUMER_GROUP_SIMULATION_SEED={seed} reproduces it");
            std::panic::resume_unwind(panic);
        }
    }
}
