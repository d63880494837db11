//! `kill -9` of servers and of subscribers, two hundred times each, while entries are written without a pause. Nothing
//! that was acknowledged to its writer is lost to its readers.

#![allow(clippy::disallowed_methods, reason = "the tests wait for other processes, in real time")]

#[path = "golden/requests.rs"]
#[allow(dead_code, reason = "shared with the golden frames")]
mod requests;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use kafka_protocol::messages::{GroupId, offset_commit_request as commit};
use kafka_protocol::protocol::Encodable;
use support::process::{PATIENCE, Process};
use support::records::mixed;
use support::redis::{Library, logstreams, logstreams_with};
use support::resp::{Connection, Reply};
use support::server::{Options, Server};

const ROUNDS: u64 = 50;

#[test]
fn a_group_loses_nothing_when_workers_and_servers_are_killed() {
    workers_and_servers_are_killed(1);
}

#[test]
fn a_group_loses_nothing_when_workers_and_servers_of_two_shards_are_killed() {
    workers_and_servers_are_killed(2);
}

#[test]
fn a_durable_subscription_loses_nothing_when_servers_are_killed() {
    subscribers_or_servers_are_killed(1, Victim::Server);
}

#[test]
fn a_durable_subscription_loses_nothing_when_subscribers_and_servers_are_killed() {
    subscribers_or_servers_are_killed(2, Victim::Both);
}

#[test]
fn who_subscribes_while_groups_are_loaded_is_not_refused() {
    let options = Options::default().set("offsets.topic.num.partitions", "1").set("num.partitions", "100");
    let mut server = logstreams_with(options);
    // Libraries of Redis take no refusal for SUBSCRIBE: they would wait for messages that never come.
    let mut subscriber = Connection::open(server.redis());
    assert_eq!(subscriber.call(&["SUBSCRIBE", "orders@billing"]).items().len(), 3);
    let mut reader = Connection::open(server.redis());
    assert_eq!(reader.call(&["XGROUP", "CREATE", "orders/0", "readers", "0"]).text(), "OK");
    commit_offsets_of_many_groups(&server, "orders");
    for _ in 0..3 {
        server.kill_dash_nine();
        server.start_again();
        let [mut subscriber, mut reader] = [(); 2].map(|()| Connection::open(server.redis()));
        let confirmed = subscriber.call(&["SUBSCRIBE", "orders@billing"]);
        assert!(matches!(confirmed, Reply::Array(_)), "SUBSCRIBE is answered by {confirmed}");
        let pending = reader.call(&["XPENDING", "orders/0", "readers"]);
        assert!(matches!(pending, Reply::Array(_)), "XPENDING is answered by {pending}");
    }
    server.stop();
}

/// So many that reading them all at the next start takes a while.
fn commit_offsets_of_many_groups(server: &Server, topic: &str) {
    let mut stream = requests::connect(server.bootstrap());
    for group in 0..2_000 {
        let partition =
            |partition| commit::OffsetCommitRequestPartition::default().with_partition_index(partition);
        let topics = commit::OffsetCommitRequestTopic::default()
            .with_name(requests::name(topic))
            .with_partitions((0..100).map(partition).collect());
        let mut body = BytesMut::new();
        kafka_protocol::messages::OffsetCommitRequest::default()
            .with_group_id(GroupId(requests::text(format!("group-{group}"))))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![topics])
            .encode(&mut body, 7)
            .expect("a version that is there");
        requests::exchange(&mut stream, &requests::frame(8, 7, 1, false, &body)).expect("an answer");
    }
}

/// Writes numbered entries from a thread of its own, through a client that lives through all restarts.
struct Writer {
    client: Process,
    stopping: Arc<AtomicBool>,
    feeder: Option<thread::JoinHandle<()>>,
    acknowledged: BTreeSet<usize>,
}

impl Writer {
    fn start(server: &Server, stream: &str) -> Writer {
        let mut client = Library::GoRedis.start(server.redis(), 3, &["add", stream]);
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopping);
        let mut stdin = client.take_stdin();
        let feeder = thread::spawn(move || {
            for number in 0.. {
                if stop.load(Ordering::Relaxed) || writeln!(stdin, "{number}").is_err() {
                    return;
                }
                thread::sleep(Duration::from_millis(2));
            }
        });
        Writer { client, stopping, feeder: Some(feeder), acknowledged: BTreeSet::new() }
    }

    fn read(&mut self, line: &str) {
        let fields: Vec<&str> = line.split('\t').collect();
        assert_eq!(fields[0], "added", "the writer says {line:?}");
        self.acknowledged.insert(fields[1].parse().expect("a number"));
    }

    fn listen(&mut self) {
        while let Some(line) = self.client.ready_line() {
            self.read(&line);
        }
    }

    /// Every line that was written is acknowledged in the end, the server being there.
    fn stop(mut self) -> BTreeSet<usize> {
        self.stopping.store(true, Ordering::Relaxed);
        self.feeder.take().expect("stopped once").join().expect("the feeder does not panic");
        let deadline = Instant::now() + PATIENCE;
        while let Some(line) = self.client.next_line(deadline) {
            self.read(&line);
        }
        self.client.expect_success();
        self.acknowledged
    }
}

/// How often each number was seen.
struct Seen {
    /// The first word of a line that says so; the third is the number.
    tag: &'static str,
    times: BTreeMap<usize, usize>,
}

impl Seen {
    fn of(tag: &'static str) -> Seen {
        Seen { tag, times: BTreeMap::new() }
    }

    fn note(&mut self, line: &str) {
        if let [tag, _, value] = *line.split('\t').collect::<Vec<_>>()
            && tag == self.tag
        {
            *self.times.entry(number_of(value)).or_default() += 1;
        }
    }

    fn listen(&mut self, process: &mut Process) {
        while let Some(line) = process.ready_line() {
            self.note(&line);
        }
    }

    /// Takes in all that a dead process has said.
    fn listen_to_the_end(&mut self, process: &mut Process) {
        while let Some(line) = process.next_line(Instant::now() + PATIENCE) {
            self.note(&line);
        }
    }

    fn count(&self) -> usize {
        self.times.len()
    }

    fn has(&self, number: usize) -> bool {
        self.times.contains_key(&number)
    }

    fn repeated(&self) -> usize {
        self.times.values().filter(|&&times| times > 1).count()
    }
}

fn number_of(hex: &str) -> usize {
    let digits: Vec<u8> = hex
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hexadecimal"))
        .collect();
    String::from_utf8(digits).expect("ASCII").parse().expect("a number")
}

/// Both workers of a group, or one of them and the server, die again and again; what a dead one had is in its history,
/// since the next one has its name.
fn workers_and_servers_are_killed(shards: usize) {
    let mut server = logstreams(shards);
    support::redis::redis_cli(server.redis(), &["XGROUP", "CREATE", "jobs", "workers", "0", "MKSTREAM"]);
    let mut writer = Writer::start(&server, "jobs");
    let start = |server: &Server, name: &str| {
        Library::GoRedis.start(server.redis(), 3, &["work", "jobs", "workers", name])
    };
    let mut workers = [start(&server, "one"), start(&server, "two")];
    let mut seen = Seen::of("entry");
    for round in 0..ROUNDS {
        let both_die = round % 2 == 0;
        wait_for("entries that nobody has seen", || {
            let before = seen.count();
            thread::sleep(Duration::from_millis(10));
            writer.listen();
            workers.iter_mut().for_each(|worker| seen.listen(worker));
            seen.count() > before
        });
        thread::sleep(Duration::from_millis(mixed(round) % 60));
        workers[0].kill_dash_nine();
        thread::sleep(Duration::from_millis(mixed(round + 1000) % 20));
        server.kill_dash_nine();
        if both_die {
            workers[1].kill_dash_nine();
        }
        server.start_again();
        for (worker, name) in workers.iter_mut().zip(["one", "two"]).take(if both_die { 2 } else { 1 }) {
            seen.listen_to_the_end(worker);
            *worker = start(&server, name);
        }
    }
    let acknowledged = writer.stop();
    wait_for("every acknowledged entry to be seen", || {
        workers.iter_mut().for_each(|worker| seen.listen(worker));
        acknowledged.iter().all(|number| seen.has(*number))
    });
    println!("{} entries, {} of them seen more than once", acknowledged.len(), seen.repeated());
    // Whatever was read is acknowledged in the end.
    wait_for("no entry to be pending", || {
        support::redis::redis_cli(server.redis(), &["XPENDING", "jobs", "workers"])[0] == "0"
    });
    for worker in &mut workers {
        worker.close_stdin();
        worker.expect_success();
    }
    server.stop();
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Victim {
    /// Only servers: the client library reconnects and subscribes anew.
    Server,
    /// Servers and subscribers in turn.
    Both,
}

fn subscribers_or_servers_are_killed(shards: usize, victim: Victim) {
    let mut server = logstreams(shards);
    let channel = "orders@billing";
    let start = |server: &Server| {
        let mut process = Library::GoRedis.start(server.redis(), 3, &["subscribe", channel]);
        let line = process.next_line(Instant::now() + PATIENCE);
        assert_eq!(line.as_deref(), Some("subscribed\torders@billing"));
        process
    };
    let mut subscriber = start(&server);
    let mut writer = Writer::start(&server, "orders");
    let mut seen = Seen::of("message");
    for round in 0..ROUNDS {
        wait_for("a message that nobody has seen", || {
            let before = seen.count();
            thread::sleep(Duration::from_millis(10));
            writer.listen();
            seen.listen(&mut subscriber);
            seen.count() > before
        });
        thread::sleep(Duration::from_millis(mixed(round) % 60));
        if victim == Victim::Both {
            subscriber.kill_dash_nine();
            seen.listen_to_the_end(&mut subscriber);
        }
        server.kill_dash_nine();
        server.start_again();
        if victim == Victim::Both {
            subscriber = start(&server);
        }
    }
    let acknowledged = writer.stop();
    let newest = *acknowledged.last().expect("entries");
    wait_for("the newest entry to be seen", || {
        seen.listen(&mut subscriber);
        seen.has(newest)
    });
    let lost: Vec<_> = acknowledged.iter().filter(|number| !seen.has(**number)).collect();
    println!("{} entries, {} of them seen more than once", acknowledged.len(), seen.repeated());
    assert!(lost.is_empty(), "{} of {} messages are lost: {lost:?}", lost.len(), acknowledged.len());
    subscriber.close_stdin();
    subscriber.expect_success();
    server.stop();
}

/// A bound, not an expectation.
fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
