//! A group, its clients, its log and their misfortunes, run by a seed.
//!
//! Members join, crash, pause past their sessions, come back, leave; replies get lost, clients ask twice, commits
//! arrive a generation late; appends fail; the coordinator is killed at any step and comes back from its log, with or
//! without what was being appended. What must hold:
//! - a token is answered exactly once;
//! - in one generation no partition is given to two members (a static member's successor counts as the same);
//! - generations that were handed out only grow;
//! - an offset that is fetched is exactly what the log says, a stable fetch waits for what was being stored when it
//!   came, and members never commit one backwards;
//! - when the misfortunes end, the group becomes stable, stays so, and every partition has an owner.
//!
//! The clients do what real ones do with each error. `GROUP_SIMULATION_SEEDS=20000` runs more seeds,
//! `GROUP_SIMULATION_SEED=7` one of them.

#[path = "group_simulation/client.rs"]
mod client;
#[path = "support/random.rs"]
mod random;

use std::collections::{BTreeMap, HashMap, VecDeque};

use logstreams::coordinator::group::schema::{OffsetValue, StateKey};
use logstreams::coordinator::group::{AppendId, Effects, GroupCoordinator, GroupSettings, StateRecord};
use logstreams::model::Uuid;
use logstreams::model::group::{
    GroupError, GroupReply, GroupRequest, ListGroups, NO_GENERATION, ReplyToken, SyncGroup, SyncGroupReply,
};

use random::Random;

use client::{Client, PARTITION_COUNT, Phase, SESSION_MS, commit_request, fetch_request, receive};

const HEARTBEAT_MS: i64 = 1_500;
const STEP_COUNT: usize = 800;
const CLIENT_COUNT: usize = 5;
const SEED_COUNT: u64 = if cfg!(debug_assertions) { 500 } else { 4_000 };

/// What the log says, record by record.
#[derive(Default)]
struct LogModel {
    offsets: BTreeMap<u8, i64>,
    /// Who was given a partition in a generation.
    owners: HashMap<(i32, u8), String>,
    handed_out_generation: i32,
}

impl LogModel {
    fn apply(&mut self, record: &StateRecord, is_by_admin: bool) {
        match (StateKey::decode(&record.key).unwrap().unwrap(), &record.value) {
            (StateKey::Offset { partition, .. }, Some(value)) => {
                let partition = u8::try_from(partition).unwrap();
                let offset = OffsetValue::decode(value).unwrap().offset;
                let before = self.offsets.insert(partition, offset).unwrap_or(-1);
                assert!(
                    is_by_admin || offset >= before,
                    "partition {partition} went from {before} to {offset}"
                );
            }
            (StateKey::Offset { partition, .. }, None) => {
                self.offsets.remove(&u8::try_from(partition).unwrap());
            }
            (StateKey::Group { .. }, Some(_)) => {}
            // A new group of the same name counts from one again.
            (StateKey::Group { .. }, None) => {
                self.owners.clear();
                self.handed_out_generation = 0;
            }
        }
    }
}

/// Who asked what under a token.
struct Question {
    /// None for an admin.
    client: Option<usize>,
    request: GroupRequest,
    /// What was being appended when it came.
    behind: Option<AppendId>,
}

struct Append {
    id: AppendId,
    records: Vec<StateRecord>,
    is_by_admin: bool,
}

struct World {
    random: Random,
    now_ms: i64,
    settings: GroupSettings,
    coordinator: GroupCoordinator,
    incarnation: u128,
    log: Vec<StateRecord>,
    model: LogModel,
    appends: VecDeque<Append>,
    clients: Vec<Client>,
    next_token: u64,
    questions: HashMap<ReplyToken, Question>,
    mail: VecDeque<(Question, ReplyToken, GroupReply)>,
    /// Commits that are still in the network.
    delayed: Vec<GroupRequest>,
    /// Steps between two misfortunes.
    calm_steps: u64,
    is_calm: bool,
    is_quiet: bool,
}

fn new_coordinator(settings: &GroupSettings, incarnation: u128) -> GroupCoordinator {
    let mut number = incarnation << 64;
    let ids = move || {
        number += 1;
        Uuid::from_u128(number)
    };
    GroupCoordinator::with_ids(settings.clone(), Box::new(ids))
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let settings = GroupSettings {
            group_initial_rebalance_delay_ms: [0, 0, 700][random.below(3) as usize],
            group_max_size: [3, 100, 100, 100][random.below(4) as usize],
            ..GroupSettings::default()
        };
        let client = |index: usize| Client {
            instance_id: index.is_multiple_of(2).then(|| format!("instance-{index}")),
            is_modern: index < 3,
            phase: Phase::Out,
            member_id: String::new(),
            generation_id: NO_GENERATION,
            positions: BTreeMap::new(),
            waiting_for: None,
            paused_until_ms: 0,
            heartbeat_ms: 0,
            metadata: 0,
        };
        let mut world = World {
            coordinator: new_coordinator(&settings, 0),
            settings,
            calm_steps: [8, 30, 120][random.below(3) as usize],
            random,
            now_ms: 1_700_000_000_000,
            incarnation: 0,
            log: Vec::new(),
            model: LogModel::default(),
            appends: VecDeque::new(),
            clients: (0..CLIENT_COUNT).map(client).collect(),
            next_token: 0,
            questions: HashMap::new(),
            mail: VecDeque::new(),
            delayed: Vec::new(),
            is_calm: false,
            is_quiet: false,
        };
        let effects = world.coordinator.loaded(world.now_ms);
        world.carry_out(effects, false);
        world
    }

    fn step(&mut self) {
        if self.random.one_in(self.calm_steps) {
            return self.suffer_misfortune();
        }
        match self.random.below(100) {
            0..45 => {
                let client = self.random.below(CLIENT_COUNT as u64) as usize;
                self.act(client);
            }
            45..70 => self.deliver_mail(),
            70..88 => self.end_append(),
            88 => self.ask_as_admin(),
            89 => self.deliver_delayed(),
            _ => {
                let ms = self.random.up_to_ms(300);
                self.pass(ms);
            }
        }
    }

    fn suffer_misfortune(&mut self) {
        let index = self.random.below(CLIENT_COUNT as u64) as usize;
        let client = &mut self.clients[index];
        match self.random.below(40) {
            0..6 => client.restart(),
            6..10 => client.phase = Phase::Out,
            10..15 => client.paused_until_ms = self.now_ms + self.random.up_to_ms(3 * SESSION_MS),
            15..19 => client.metadata = client.metadata.wrapping_add(1),
            19..24 => client.waiting_for = None,
            24..30 => self.deliver_delayed(),
            30..34 => {
                let ms = self.random.up_to_ms(2 * SESSION_MS);
                self.pass(ms);
            }
            34 if self.random.one_in(4) => {
                let ms = self.random.up_to_ms(1_000_000);
                self.pass(ms);
            }
            _ => self.kill_coordinator(),
        }
    }

    /// Lets one client do what it is up to.
    fn act(&mut self, index: usize) {
        let client = &self.clients[index];
        if client.waiting_for.is_some() || self.now_ms < client.paused_until_ms {
            return;
        }
        let request = match client.phase.clone() {
            Phase::Out if self.is_calm || self.random.one_in(4) => return self.clients[index].restart(),
            Phase::Out => return,
            Phase::ToJoin => client.join_request(),
            Phase::ToSync { assignments } => client.sync_request(assignments),
            Phase::ToFetch { partitions } => fetch_request(partitions, true),
            Phase::Member => match self.member_request(index) {
                Some(request) => request,
                None => return,
            },
        };
        self.ask(Some(index), request);
    }

    fn member_request(&mut self, index: usize) -> Option<GroupRequest> {
        let is_calm = self.is_calm;
        let client = &mut self.clients[index];
        if self.now_ms - client.heartbeat_ms >= HEARTBEAT_MS {
            client.heartbeat_ms = self.now_ms;
            return Some(client.heartbeat_request());
        }
        match self.random.below(12) {
            0 if !is_calm => {
                let request = client.leave_request();
                client.phase = Phase::Out;
                Some(request)
            }
            1 if !is_calm => {
                client.rejoin();
                None
            }
            2..8 if !client.positions.is_empty() && !self.is_quiet => {
                let read = self.random.below(5).cast_signed();
                client.positions.values_mut().for_each(|position| *position += read);
                let commit = client.commit_request();
                if is_calm || !self.random.one_in(10) {
                    return Some(commit);
                }
                // The connection breaks; what it carried may arrive at any time. The client has other wishes when it
                // is back, so that it does not stay in this generation.
                client.metadata = client.metadata.wrapping_add(1);
                client.rejoin();
                self.delayed.push(commit);
                None
            }
            _ => None,
        }
    }

    fn deliver_delayed(&mut self) {
        if !self.delayed.is_empty() {
            let index = self.random.below(self.delayed.len() as u64) as usize;
            let request = self.delayed.swap_remove(index);
            self.ask(None, request);
        }
    }

    fn ask_as_admin(&mut self) {
        let request = match self.random.below(4) {
            0 => {
                let offset = self.random.below(30).cast_signed();
                let partition = self.random.below(u64::from(PARTITION_COUNT)) as u8;
                commit_request(NO_GENERATION, "", None, &BTreeMap::from([(partition, offset)]))
            }
            1 => GroupRequest::List(ListGroups::default()),
            _ => fetch_request((0..PARTITION_COUNT).collect(), self.random.one_in(2)),
        };
        self.ask(None, request);
    }

    fn ask(&mut self, client: Option<usize>, request: GroupRequest) {
        let token = ReplyToken(self.next_token);
        self.next_token += 1;
        let is_admin_commit = matches!(&request,
            GroupRequest::OffsetCommit(commit) if commit.generation_id == NO_GENERATION);
        let behind = self.appends.back().map(|append| append.id);
        self.questions.insert(token, Question { client, request: request.clone(), behind });
        if let Some(index) = client {
            self.clients[index].waiting_for = Some(token);
        }
        let effects = self.coordinator.handle(token, request, self.now_ms);
        self.carry_out(effects, is_admin_commit);
    }

    fn carry_out(&mut self, effects: Effects, is_by_admin: bool) {
        for (token, reply) in effects.replies {
            let question = self.questions.remove(&token);
            let question = question.unwrap_or_else(|| panic!("{token:?} was not open for {reply:?}"));
            self.check_reply(&question, &reply);
            self.mail.push_back((question, token, reply));
        }
        if let Some(id) = effects.append {
            assert!(!effects.records.is_empty());
            self.appends.push_back(Append { id, records: effects.records, is_by_admin });
        }
    }

    /// What must be true of a reply when it leaves the coordinator.
    fn check_reply(&mut self, question: &Question, reply: &GroupReply) {
        match (&question.request, reply) {
            (GroupRequest::Join(_), GroupReply::Join(joined)) if joined.error.is_none() => {
                assert!(joined.generation_id >= self.model.handed_out_generation);
            }
            (GroupRequest::Sync(sync), GroupReply::Sync(synced)) if synced.error.is_none() => {
                self.check_assignment(sync, synced);
            }
            (GroupRequest::OffsetFetch(fetch), GroupReply::OffsetFetch(fetched)) => {
                let is_under_way = |id: AppendId| self.appends.iter().any(|append| append.id == id);
                assert!(!fetch.require_stable || !question.behind.is_some_and(is_under_way));
                for offset in &fetched.topics[0].partitions {
                    let partition = u8::try_from(offset.partition).unwrap();
                    let in_log = self.model.offsets.get(&partition).copied().unwrap_or(-1);
                    assert_eq!(offset.offset, in_log, "partition {partition}");
                }
            }
            _ => {}
        }
    }

    fn check_assignment(&mut self, sync: &SyncGroup, synced: &SyncGroupReply) {
        assert!(sync.generation_id >= self.model.handed_out_generation);
        self.model.handed_out_generation = sync.generation_id;
        let owner = sync.group_instance_id.as_ref().unwrap_or(&sync.member_id);
        for &partition in &synced.assignment {
            let first =
                self.model.owners.entry((sync.generation_id, partition)).or_insert_with(|| owner.clone());
            assert_eq!(first, owner, "partition {partition} in generation {}", sync.generation_id);
        }
    }

    fn deliver_mail(&mut self) {
        let Some((question, token, reply)) = self.mail.pop_front() else { return };
        let Some(index) = question.client else { return };
        let client = &mut self.clients[index];
        if client.waiting_for != Some(token) {
            return; // the process that asked is gone
        }
        client.waiting_for = None;
        let is_lost = !self.is_calm && self.random.one_in(25);
        if !is_lost && client.phase != Phase::Out {
            receive(client, reply, self.now_ms);
        }
    }

    fn end_append(&mut self) {
        let Some(append) = self.appends.pop_front() else { return };
        let effects = if !self.is_calm && self.random.one_in(10) {
            self.coordinator.append_failed(append.id, GroupError::CoordinatorNotAvailable, self.now_ms)
        } else {
            self.store(append.records, append.is_by_admin);
            self.coordinator.appended(append.id, self.now_ms)
        };
        self.carry_out(effects, false);
    }

    fn store(&mut self, records: Vec<StateRecord>, is_by_admin: bool) {
        for record in records {
            self.model.apply(&record, is_by_admin);
            self.log.push(record);
        }
    }

    fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        while self.coordinator.next_deadline_ms().is_some_and(|deadline_ms| deadline_ms <= self.now_ms) {
            let effects = self.coordinator.on_timer(self.now_ms);
            self.carry_out(effects, false);
        }
    }

    /// The coordinator dies, some of what it was appending reaches the log, and another one takes over.
    fn kill_coordinator(&mut self) {
        let reached = self.random.below(self.appends.len() as u64 + 1) as usize;
        for append in std::mem::take(&mut self.appends).into_iter().take(reached) {
            self.store(append.records, append.is_by_admin);
        }
        if self.random.one_in(3) {
            self.rewrite_log(reached);
        }
        // Connections break: whoever waits asks again.
        self.questions.clear();
        self.mail.clear();
        self.clients.iter_mut().for_each(|client| client.waiting_for = None);
        self.incarnation += 1;
        self.coordinator = new_coordinator(&self.settings, self.incarnation);
        for record in &self.log {
            self.coordinator.replay(&record.key, record.value.as_deref(), None, self.now_ms).unwrap();
        }
        let effects = self.coordinator.loaded(self.now_ms);
        self.carry_out(effects, false);
    }

    /// Replaces the log by a snapshot of the dying coordinator, if that knew all that is in the log.
    fn rewrite_log(&mut self, reached: usize) {
        if reached == 0 {
            self.log = self.coordinator.snapshot().collect();
        }
    }

    /// The misfortunes end: the group must become stable with every partition owned.
    fn calm_down(&mut self) {
        self.is_calm = true;
        self.clients.iter_mut().for_each(|client| client.paused_until_ms = 0);
        let mut settled_generation = 0;
        for round in 0..500 {
            if round == 250 {
                self.is_quiet = true;
                settled_generation = self.model.handed_out_generation;
            }
            for index in 0..CLIENT_COUNT {
                self.act(index);
                while !self.appends.is_empty() || !self.mail.is_empty() {
                    self.end_append();
                    self.deliver_mail();
                }
            }
            self.pass(100);
        }
        assert_eq!(self.model.handed_out_generation, settled_generation, "the group goes on rebalancing");
        let mut owners = vec![0; usize::from(PARTITION_COUNT)];
        for client in self.clients.iter().filter(|client| client.phase == Phase::Member) {
            client.positions.keys().for_each(|&partition| owners[usize::from(partition)] += 1);
        }
        assert_eq!(owners, vec![1; usize::from(PARTITION_COUNT)], "{:?}", self.group_state());
        assert_eq!(self.group_state(), "Stable");
    }

    fn group_state(&mut self) -> &'static str {
        let request = GroupRequest::List(ListGroups::default());
        let effects = self.coordinator.handle(ReplyToken(u64::MAX), request, self.now_ms);
        match &effects.replies[0].1 {
            GroupReply::List(listed) => listed.groups.first().map_or("Dead", |group| group.state),
            other => panic!("{other:?}"),
        }
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
        assert!(self.model.offsets.is_empty());
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
fn groups_hold_their_promises_through_every_misfortune() {
    if let Some(seed) = variable("GROUP_SIMULATION_SEED") {
        return run(seed);
    }
    for seed in 0..variable("GROUP_SIMULATION_SEEDS").unwrap_or(SEED_COUNT) {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!("the simulation failed: GROUP_SIMULATION_SEED={seed} reproduces it");
            std::panic::resume_unwind(panic);
        }
    }
}
