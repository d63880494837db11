//! Transactions with every stock client: records are moved from topic to topic in transactions, some of which are aborted,
//! and arrive exactly once for readers at read_committed, whoever is killed meanwhile.

#![allow(clippy::disallowed_methods, reason = "the tests wait for other processes, in real time")]

mod support;

use std::thread;
use std::time::{Duration, Instant};
use support::clients::Client;
use support::modes::{Mode, unique};
use support::process::{PATIENCE, Process};
use support::records::{Consumed, Record, mixed, now_ms};
use support::server::{Options, Program, Server};

mod moving {
    crate::support::modes::for_every_mode_and_client!(
        what_is_moved_in_transactions_arrives_exactly_once,
        crate::what_is_moved_in_transactions_arrives_exactly_once
    );
}

const COUNT: usize = 400;

/// The second move reads what the first one wrote, aborted transactions among it.
fn what_is_moved_in_transactions_arrives_exactly_once(mode: Mode, client: Client) {
    let server = mode.shared();
    let bootstrap = server.bootstrap();
    let topics = ["plain", "once", "twice"].map(unique);
    client.create(bootstrap, &topics, 3, &[]);
    let acks = client.produce(bootstrap, &[(topics[0].clone(), "none")], &numbered(COUNT));
    assert_eq!((acks.failed.len(), acks.acked.len()), (0, COUNT), "{:?}", acks.failed.first());
    for hop in 0..2 {
        let (id, group) = (unique("mover"), unique("movers"));
        let route = (topics[hop].as_str(), topics[hop + 1].as_str());
        let mut mover = client.transact(bootstrap, &id, &group, route, COUNT);
        let moved = Moved::listen(&mut mover);
        mover.expect_success();
        assert_eq!(moved.committed, COUNT);
        assert!(moved.aborted > 0, "no transaction was aborted, so the test has tested little");
    }
    for reader in [Client::Java, Client::ConfluentKafka] {
        let seen = reader.consume_committed(bootstrap, &topics[2..]);
        assert_exactly_once(&seen, COUNT, &format!("{reader:?}"));
    }
    let all = Client::Java.consume(bootstrap, &topics[2..]);
    assert!(all.len() > COUNT, "what was aborted is not in the log");
}

#[test]
fn transactions_of_a_java_client_survive_the_killing_of_the_server() {
    kill_the_server_under(Client::Java, 1);
}

#[test]
fn transactions_of_librdkafka_survive_the_killing_of_the_server() {
    kill_the_server_under(Client::ConfluentKafka, 2);
}

#[test]
fn transactions_of_franz_go_survive_the_killing_of_the_server() {
    kill_the_server_under(Client::FranzGo, 1);
}

/// `kill -9` again and again while records are moved in transactions.
fn kill_the_server_under(client: Client, shards: usize) {
    // Kafka needs seconds for a start, and is here only to prove the test.
    let rounds = if Program::under_test() == Program::Kafka { 3 } else { 12 };
    let count = 20_000;
    let mut server = Server::start(Options { shards, ..Options::default() });
    let topics = ["plain", "moved"].map(unique);
    client.create(server.bootstrap(), &topics, 3, &[]);
    let acks = client.produce(server.bootstrap(), &[(topics[0].clone(), "none")], &numbered(count));
    assert_eq!(acks.acked.len(), count);
    let route = (topics[0].as_str(), topics[1].as_str());
    let mut mover = client.transact(server.bootstrap(), &unique("mover"), &unique("movers"), route, count);
    let mut moved = Moved::default();
    for round in 0..rounds {
        // Kill only while the mover is being served, at a moment that differs from round to round.
        let served = moved.committed + 200;
        let deadline = Instant::now() + PATIENCE;
        while moved.committed < served.min(count) {
            let line = mover.next_line(deadline);
            moved.read(&line.unwrap_or_else(|| mover.fail("ended early")));
        }
        thread::sleep(Duration::from_millis(mixed(round) % 150));
        server.kill_dash_nine();
        server.start_again();
    }
    while let Some(line) = mover.next_line(Instant::now() + PATIENCE) {
        moved.read(&line);
    }
    mover.expect_success();
    assert_eq!(moved.committed, count);
    let seen = Client::Java.consume_committed(server.bootstrap(), &topics[1..]);
    assert_exactly_once(&seen, count, "Java");
    server.stop();
}

/// What a mover says that it has done.
#[derive(Debug, Default)]
struct Moved {
    committed: usize,
    aborted: usize,
}

impl Moved {
    fn listen(mover: &mut Process) -> Moved {
        let mut moved = Moved::default();
        let deadline = Instant::now() + PATIENCE;
        while let Some(line) = mover.next_line(deadline) {
            moved.read(&line);
        }
        moved
    }

    fn read(&mut self, line: &str) {
        match *line.split('\t').collect::<Vec<_>>() {
            ["committed", count] => self.committed += count.parse::<usize>().expect("a count"),
            ["aborted", count] => self.aborted += count.parse::<usize>().expect("a count"),
            _ => panic!("transact says {line:?}"),
        }
    }
}

/// Records whose values are numbers.
fn numbered(count: usize) -> Vec<Record> {
    let record = |number: usize| Record {
        timestamp: now_ms(),
        key: Some(format!("key-{}", number % 97).into_bytes()),
        value: Some(number.to_string().into_bytes()),
        headers: Vec::new(),
    };
    (0..count).map(record).collect()
}

fn number(record: &Record) -> usize {
    let text = record.value.clone().and_then(|value| String::from_utf8(value).ok());
    text.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{record:?} has no number"))
}

fn assert_exactly_once(seen: &[Consumed], count: usize, who: &str) {
    let mut sequences: Vec<usize> = seen.iter().map(|found| number(&found.record)).collect();
    sequences.sort_unstable();
    assert_eq!(sequences.len(), count, "{who} sees a wrong number of records");
    assert!(sequences.into_iter().eq(0..count), "{who} sees some records twice and others never");
}
