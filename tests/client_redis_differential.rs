//! The same commands, word for word, to Redis and to LogStreams: both must answer alike, down to the type of every
//! reply, in both protocols. First what users write and what they get wrong, then random walks.
//!
//! Ids differ by nature (`<ms>-<offset>` against `<ms>-<sequence>`) and are named by the order of their appearance; of
//! errors only the code is compared; times since something happened and the insides of Redis's trees are blanked.

#![allow(clippy::disallowed_methods, reason = "ids are made of the time")]

mod support;

use std::thread;
use std::time::{Duration, Instant};
use support::process::PATIENCE;
use support::records::mixed;
use support::redis::{IdNames, Redis, Subject};
use support::resp::{Connection, Reply, encode};

/// What the servers are asked, one command a line. `NAME = COMMAND` keeps the id that comes back, `{NAME}` stands for
/// it.
const STREAMS: &str = include_str!("redis_scripts/streams.txt");
const STREAM_ERRORS: &str = include_str!("redis_scripts/stream_errors.txt");
const GROUPS: &str = include_str!("redis_scripts/groups.txt");
const GROUP_ERRORS: &str = include_str!("redis_scripts/group_errors.txt");
const CONNECTION: &str = include_str!("redis_scripts/connection.txt");

/// Commands where LogStreams answers otherwise by design, and why.
const DIFFERENT: [(&str, &str); 1] = [(
    "XRANGE s 0-0 0-5",
    "the offset of an id alone decides, so 0-5 is the sixth entry and not a moment in 1970",
)];

mod script {
    macro_rules! scripts {
        ($($name:ident $script:ident)*) => {
            mod resp2 {
                $(#[test]
                fn $name() { crate::agree_on_a_script(crate::$script, 2); })*
            }
            mod resp3 {
                $(#[test]
                fn $name() { crate::agree_on_a_script(crate::$script, 3); })*
            }
        };
    }

    scripts! {
        streams_are_written_read_and_trimmed_alike STREAMS
        wrong_stream_commands_are_refused_alike STREAM_ERRORS
        groups_deliver_acknowledge_and_claim_alike GROUPS
        wrong_group_commands_are_refused_alike GROUP_ERRORS
        connections_and_keys_are_handled_alike CONNECTION
    }
}

/// The two servers, and what is known of their answers.
struct Pair {
    redis: Side,
    subject: Side,
    /// Whether what Redis counts of a group's reading is to be compared. It takes entries that were trimmed before the
    /// group came to them for entries that wait; we count what is there.
    compares_counters: bool,
}

struct Side {
    connection: Connection,
    ids: Vec<(String, String)>,
    names: IdNames,
}

impl Side {
    fn new(address: &str, protocol: u8) -> Side {
        let connection = Connection::of_protocol(address, protocol);
        Side { connection, ids: Vec::new(), names: IdNames::default() }
    }

    /// The reply to a command line, what may differ blanked.
    fn ask(&mut self, line: &str) -> Reply {
        let words: Vec<Vec<u8>> = line.split(' ').map(|word| self.with_ids(word).into_bytes()).collect();
        blank(&words, &self.connection.call(&words))
    }

    fn with_ids(&self, word: &str) -> String {
        let mut word = word.replace("{EMPTY}", "");
        for (name, id) in self.ids.iter().rev() {
            if word.contains('{') {
                word = word.replace(&format!("{{{name}}}"), id);
            }
        }
        word
    }
}

impl Pair {
    /// Asks both; a complaint if the answers differ. Under `name` the id that came is kept.
    fn ask(&mut self, name: Option<&str>, line: &str) -> Option<String> {
        if line.starts_with("XADD") {
            // Ids are told apart by their text, and two streams may have the same in one millisecond.
            thread::sleep(Duration::from_millis(2));
        }
        let right = self.redis.ask(line);
        let seen = self.subject.ask(line);
        let seen = with_counters_of(&right, &seen, self.compares_counters);
        if let Some(name) = name {
            for (side, reply) in [(&mut self.redis, &right), (&mut self.subject, &seen)] {
                let Reply::Bulk(id) = reply else { panic!("{line}: {reply} is no id") };
                side.ids.push((name.to_owned(), String::from_utf8_lossy(id).into_owned()));
            }
        }
        let right_reads = self.redis.names.rename(&right.to_string());
        let seen_reads = self.subject.names.rename(&seen.to_string());
        let by_design = DIFFERENT.iter().any(|(command, _)| *command == line);
        let differ = right_reads != seen_reads && !by_design;
        differ.then(|| format!("{line}\n  Redis:  {right_reads}\n  we say: {seen_reads}"))
    }
}

/// `seen` with Redis's counters of a group's reading where ours may be others: where Redis has given up counting, as it
/// does after SETID, or everywhere unless they are `compared`.
fn with_counters_of(right: &Reply, seen: &Reply, compared: bool) -> Reply {
    let is_counter = |name: &Reply| {
        ["lag", "entries-read"].iter().any(|field| *name == Reply::Bulk(field.as_bytes().to_vec()))
    };
    match (right, seen) {
        (Reply::Array(right), Reply::Array(seen)) if right.len() == seen.len() => {
            let mut previous_counts = false;
            let items = right.iter().zip(seen).map(|(right, seen)| {
                let taken = previous_counts && (right.is_null() || !compared);
                previous_counts = is_counter(right);
                if taken { right.clone() } else { with_counters_of(right, seen, compared) }
            });
            Reply::Array(items.collect())
        }
        (Reply::Map(right), Reply::Map(seen)) if right.len() == seen.len() => {
            let pairs = right.iter().zip(seen).map(|((name, right), (seen_name, seen))| {
                let taken = is_counter(name) && (right.is_null() || !compared);
                let value = if taken { right.clone() } else { with_counters_of(right, seen, compared) };
                (seen_name.clone(), value)
            });
            Reply::Map(pairs.collect())
        }
        _ => seen.clone(),
    }
}

/// What may differ from moment to moment, or is Redis's own affair.
const BLANK_FIELDS: [&str; 9] = [
    "idle",
    "inactive",
    "radix-tree-keys",
    "radix-tree-nodes",
    "seen-time",
    "active-time",
    "entries-added",
    "max-deleted-entry-id",
    "recorded-first-entry-id",
];

fn blank(words: &[Vec<u8>], reply: &Reply) -> Reply {
    let command = words[0].to_ascii_uppercase();
    match reply {
        Reply::Error(text) => Reply::Error(text.split(' ').next().unwrap_or_default().to_owned()),
        Reply::Array(rows) if command == b"XPENDING" && words.len() > 3 => {
            let without_idle = |row: &Reply| {
                let mut row = row.items().to_vec();
                row[2] = Reply::Simple("idle".to_owned());
                Reply::Array(row)
            };
            Reply::Array(rows.iter().map(without_idle).collect())
        }
        Reply::Array(names) if command == b"KEYS" => {
            let mut names = names.clone();
            names.sort_by_key(Reply::to_string);
            Reply::Array(names)
        }
        reply if command == b"XINFO" => blank_fields(reply),
        reply => reply.clone(),
    }
}

fn blank_fields(reply: &Reply) -> Reply {
    let blanked = || Reply::Simple("*".to_owned());
    let is_blank =
        |name: &Reply| BLANK_FIELDS.iter().any(|field| *name == Reply::Bulk(field.as_bytes().to_vec()));
    match reply {
        Reply::Map(pairs) => Reply::Map(
            pairs
                .iter()
                .filter(|(name, _)| *name != Reply::Bulk(b"inactive".to_vec()))
                .map(|(name, value)| {
                    (name.clone(), if is_blank(name) { blanked() } else { blank_fields(value) })
                })
                .collect(),
        ),
        // A field of Redis 7.2, which names the same moment.
        Reply::Array(items) if items.iter().any(|item| *item == Reply::Bulk(b"inactive".to_vec())) => {
            let pairs = items.chunks(2).filter(|pair| pair[0] != Reply::Bulk(b"inactive".to_vec()));
            blank_fields(&Reply::Array(pairs.flatten().cloned().collect()))
        }
        Reply::Array(items) => {
            let mut previous_is_blank = false;
            let items = items.iter().map(|item| {
                let value = if previous_is_blank { blanked() } else { blank_fields(item) };
                previous_is_blank = is_blank(item);
                value
            });
            Reply::Array(items.collect())
        }
        // The moment of a delivery.
        Reply::Integer(1_000_000_000_000..) => blanked(),
        other => other.clone(),
    }
}

fn with_both(protocol: u8, test: impl FnOnce(&mut Pair)) {
    let redis = Redis::start();
    let subject = Subject::start(if protocol == 2 { 1 } else { 2 });
    test(&mut Pair {
        redis: Side::new(redis.address(), protocol),
        subject: Side::new(subject.address(), protocol),
        compares_counters: true,
    });
}

fn agree_on_a_script(script: &str, protocol: u8) {
    with_both(protocol, |pair| {
        let lines: Vec<&str> = script.lines().filter(|line| !line.is_empty()).collect();
        let mut wrong = Vec::new();
        for line in &lines {
            let (name, line) = match line.split_once(" = ") {
                Some((name, line)) if !name.contains(' ') => (Some(name), line),
                _ => (None, *line),
            };
            wrong.extend(pair.ask(name, line));
        }
        assert!(wrong.is_empty(), "{} of {} answers differ\n{}", wrong.len(), lines.len(), wrong.join("\n"));
    });
}

#[test]
fn a_killed_client_is_gone_whatever_it_was_doing() {
    let (redis, subject) = (Redis::start(), Subject::start(2));
    for address in [redis.address(), subject.address()] {
        let connect = || Connection::open(address);
        let id = |client: &mut Connection| client.call(&["CLIENT", "ID"]).integer().to_string();
        let (mut idle, mut waiting, mut subscriber, mut killer) =
            (connect(), connect(), connect(), connect());
        let (idle_id, waiting_id, own_id) = (id(&mut idle), id(&mut waiting), id(&mut killer));
        let waits = encode(&["XREAD", "BLOCK", "0", "STREAMS", "s", "$"]);
        waiting.send_raw(&waits).expect("the server reads");
        subscriber.call(&["SUBSCRIBE", "channel"]);
        let idle_address = idle.socket().local_addr().expect("an address").to_string();

        assert_eq!(killer.call(&["CLIENT", "KILL", &idle_address]), Reply::Simple("OK".to_owned()));
        assert!(idle.is_at_its_end());
        let both = ["CLIENT", "KILL", "ID", &waiting_id, "TYPE", "pubsub"];
        assert_eq!(killer.call(&both), Reply::Integer(0), "it is no subscriber");
        assert_eq!(killer.call(&["CLIENT", "KILL", "ID", &waiting_id]), Reply::Integer(1));
        assert!(waiting.is_at_its_end());
        assert_eq!(killer.call(&["CLIENT", "KILL", "TYPE", "pubsub"]), Reply::Integer(1));
        assert!(subscriber.is_at_its_end());

        let id_of_nobody = ["CLIENT", "KILL", "ID", &idle_id];
        let deadline = Instant::now() + PATIENCE;
        while killer.call(&id_of_nobody) != Reply::Integer(0) {
            assert!(Instant::now() < deadline, "{address}: a killed client is still there");
        }
        assert_eq!(killer.call(&["CLIENT", "KILL", "ID", &own_id]), Reply::Integer(0), "it skips itself");
        let own = ["CLIENT", "KILL", "ID", &own_id, "SKIPME", "no"];
        assert_eq!(killer.call(&own), Reply::Integer(1), "the answer comes first");
        assert!(killer.is_at_its_end());

        let mut killer = connect();
        let own_id = id(&mut killer);
        killer.call(&["MULTI"]);
        killer.call(&["CLIENT", "KILL", "ID", &own_id, "SKIPME", "no"]);
        assert_eq!(killer.call(&["EXEC"]), Reply::Array(vec![Reply::Integer(1)]));
        assert!(killer.is_at_its_end());
    }
}

#[test]
fn a_client_that_wants_no_replies_hears_of_its_subscriptions_all_the_same() {
    let (redis, subject) = (Redis::start(), Subject::start(2));
    for protocol in [2, 3] {
        let [expected, seen] = [redis.address(), subject.address()].map(|address| {
            let mut client = Connection::of_protocol(address, protocol);
            let mut send = |commands: &[&[&str]], replies: usize| -> Vec<Reply> {
                let bytes: Vec<u8> = commands.iter().flat_map(|command| encode(command)).collect();
                client.send_raw(&bytes).expect("the server reads");
                (0..replies).map(|_| client.receive().expect("a confirmation")).collect()
            };
            let off = ["CLIENT", "REPLY", "OFF"];
            let mut heard = send(&[&["PING"], &off, &["PING"], &["SUBSCRIBE", "channel", "other"]], 3);
            Connection::open(address).call(&["PUBLISH", "channel", "hello"]);
            heard.extend(send(&[], 1));
            let unsubscribe = ["UNSUBSCRIBE", "channel", "other"];
            let on = ["CLIENT", "REPLY", "ON"];
            heard.extend(send(&[&["PING"], &unsubscribe, &["PUNSUBSCRIBE"], &["PING"], &on, &["PING"]], 5));
            heard
        });
        assert_eq!(expected, seen, "version {protocol}");
    }
}

/// A generator of commands that mean something, over two streams, two groups and three consumers.
struct Walk {
    state: u64,
    added: usize,
    /// What was added before was deleted with its stream.
    deleted: usize,
    /// Commands that must come before anything else.
    next: Vec<String>,
}

impl Walk {
    fn below(&mut self, bound: usize) -> usize {
        self.state = mixed(self.state);
        usize::try_from(self.state % bound as u64).expect("less than the bound")
    }

    fn one_of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    fn stream(&mut self) -> &'static str {
        self.one_of(&["s", "t"])
    }

    fn group(&mut self) -> &'static str {
        self.one_of(&["g", "h"])
    }

    fn consumer(&mut self) -> &'static str {
        self.one_of(&["one", "two", "three"])
    }

    /// An entry that was added lately to the stream, or an end.
    fn id(&mut self, stream: &str) -> String {
        let newest = self.added;
        let number = newest - self.below((newest - self.deleted + 1).min(24));
        let number = if Walk::stream_of(number) == stream { number } else { number.saturating_sub(1) };
        if number <= self.deleted || self.below(8) == 0 { "0-0".to_owned() } else { format!("{{{number}}}") }
    }

    /// Entries go to the streams in turn, so that an id's number tells its stream.
    fn stream_of(number: usize) -> &'static str {
        if number.is_multiple_of(2) { "s" } else { "t" }
    }

    /// An entry that was added lately to the stream, if there is any.
    fn entry(&mut self, stream: &str) -> String {
        let id = self.id(stream);
        if id == "0-0" { "1-999999".to_owned() } else { id }
    }

    /// Makes the consumer at once. Redis 7.0 makes one that reads nothing only with the first entry that it gets, Redis
    /// 7.2 and we before that.
    fn with_consumer(&mut self, stream: &str, group: &str, consumer: &str) {
        self.next.push(format!("XGROUP CREATECONSUMER {stream} {group} {consumer}"));
    }

    /// The next command, and whether its answer is the id of a new entry.
    fn next(&mut self) -> (Option<String>, String) {
        if let Some(line) = self.next.pop() {
            return (None, line);
        }
        let (s, g, c) = (self.stream(), self.group(), self.consumer());
        let count = 1 + self.below(4);
        let line = match self.below(40) {
            0..=11 => {
                let s = Walk::stream_of(self.added + 1);
                let trim = match self.below(12) {
                    0 => format!("MAXLEN {} ", 5 + self.below(10)),
                    1 => format!("MINID {} ", self.id(s)),
                    _ => String::new(),
                };
                self.added += 1;
                let number = self.added;
                return (
                    Some(number.to_string()),
                    format!("XADD {s} {trim}* key k{} value v{number}", number % 7),
                );
            }
            12..=17 => format!("XREADGROUP GROUP {g} {c} COUNT {count} STREAMS {s} >"),
            18 => format!("XREADGROUP GROUP {g} {c} COUNT {count} NOACK STREAMS {s} >"),
            19..=20 => format!("XREADGROUP GROUP {g} {c} COUNT {count} STREAMS {s} {}", self.id(s)),
            21..=23 => format!("XACK {s} {g} {} {} {}", self.entry(s), self.entry(s), self.entry(s)),
            24 => format!("XCLAIM {s} {g} {c} 0 {} JUSTID", self.entry(s)),
            25 => format!("XCLAIM {s} {g} {c} 0 {}", self.entry(s)),
            26 => format!("XAUTOCLAIM {s} {g} {c} 0 {} COUNT {count}", self.id(s)),
            27 => format!("XPENDING {s} {g}"),
            28 => format!("XPENDING {s} {g} - + 20"),
            29 => format!("XPENDING {s} {g} {} {} 5 {c}", self.id(s), self.id(s)),
            30 => format!("XRANGE {s} {} {}", self.id(s), self.id(s)),
            31 => format!("XREVRANGE {s} + ({} COUNT {count}", self.id(s)),
            32 => format!("XREAD COUNT {count} STREAMS s t {} {}", self.id("s"), self.id("t")),
            33 => format!("XLEN {s}"),
            34 => format!("XINFO CONSUMERS {s} {g}"),
            35 => format!("XINFO GROUPS {s}"),
            36 => format!("XTRIM {s} MAXLEN {}", 8 + self.below(20)),
            37 => match self.below(6) {
                0 => format!("XGROUP DESTROY {s} {g}"),
                1 => {
                    self.with_consumer(s, g, c);
                    format!("XGROUP DELCONSUMER {s} {g} {c}")
                }
                2 => format!("XGROUP CREATECONSUMER {s} {g} {c}"),
                3 => format!("XGROUP SETID {s} {g} {}", self.id(s)),
                4 if self.below(6) == 0 => {
                    self.deleted = self.added;
                    format!("DEL {s}")
                }
                _ => format!("XINFO STREAM {s}"),
            },
            _ => {
                for consumer in ["one", "two", "three"] {
                    self.with_consumer(s, g, consumer);
                }
                format!("XGROUP CREATE {s} {g} {} MKSTREAM", self.one_of(&["0", "$"]))
            }
        };
        (None, line)
    }
}

fn agree_on_a_walk(seed: u64, protocol: u8) {
    with_both(protocol, |pair| {
        pair.compares_counters = false;
        let mut walk = Walk { state: mixed(seed), added: 0, deleted: 0, next: Vec::new() };
        let mut story = Vec::new();
        for _ in 0..1500 {
            let (name, line) = walk.next();
            if let Some(complaint) = pair.ask(name.as_deref(), &line) {
                let last = story[story.len().saturating_sub(25)..].join("\n");
                panic!("seed {seed}, after {} commands\n{last}\n{complaint}", story.len());
            }
            story.push(line);
        }
    });
}

#[test]
fn random_commands_are_answered_alike() {
    for seed in 1..=8 {
        agree_on_a_walk(seed, 2);
    }
}

#[test]
fn random_commands_are_answered_alike_in_resp3() {
    for seed in 7..=9 {
        agree_on_a_walk(seed, 3);
    }
}
