//! `kill -9` again and again while a stock producer writes with acks=all. The producer lives through all of it, since
//! the server comes back on the same port. What was acknowledged is there at the end: exactly once for an idempotent
//! producer, at least once for a plain one.

#![allow(clippy::disallowed_methods, reason = "the tests wait for other processes, in real time")]

mod support;

use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::clients::{Client, Idempotence};
use support::modes::unique;
use support::process::{PATIENCE, Process};
use support::records::{Acks, Consumed, mixed, records};
use support::server::{Options, Program, Server};

/// Kafka needs seconds for a start, and is here only to prove the test.
fn rounds() -> u64 {
    if Program::under_test() == Program::Kafka { 4 } else { 50 }
}

#[test]
fn an_idempotent_producers_records_are_there_exactly_once() {
    let (acks, consumed) = kill_and_kill_again(Client::ConfluentKafka, Idempotence::On, 2);
    assert_exactly_once(&acks, &consumed);
}

#[test]
fn an_idempotent_franz_go_producers_records_are_there_exactly_once() {
    let (acks, consumed) = kill_and_kill_again(Client::FranzGo, Idempotence::On, 1);
    assert_exactly_once(&acks, &consumed);
}

#[test]
fn a_plain_producers_records_are_there_at_least_once() {
    let (acks, consumed) = kill_and_kill_again(Client::ConfluentKafka, Idempotence::Off, 2);
    let mut copies: HashMap<usize, usize> = HashMap::new();
    for found in &consumed {
        *copies.entry(found.record.sequence()).or_default() += 1;
    }
    let lost: Vec<_> = acks.acked.keys().filter(|(_, line)| !copies.contains_key(line)).collect();
    assert!(lost.is_empty(), "{} acknowledged records are lost, such as {:?}", lost.len(), lost[0]);
}

/// Every line was acknowledged in the end, so every line is there, once, in the order of its partition.
fn assert_exactly_once(acks: &Acks, consumed: &[Consumed]) {
    let mut places: HashMap<usize, (i32, i64)> = HashMap::new();
    let mut last: HashMap<i32, usize> = HashMap::new();
    for found in consumed {
        let sequence = found.record.sequence();
        let place = (found.partition, found.offset);
        if let Some(before) = places.insert(sequence, place) {
            panic!("record {sequence} is at {before:?} and again at {place:?} (partition, offset)");
        }
        let before = last.insert(found.partition, sequence);
        assert!(before < Some(sequence), "record {sequence} at {place:?} comes after record {before:?}");
    }
    for ((_, line), &(partition, offset)) in &acks.acked {
        let place = places.get(line);
        let place = place
            .unwrap_or_else(|| panic!("record {line} was acknowledged at {partition}, {offset} and is lost"));
        assert_eq!(place.0, partition, "record {line} was acknowledged in another partition");
        // A duplicate that the server recognised is acknowledged without its offset by some clients.
        assert!(offset < 0 || place.1 == offset, "record {line} is at {place:?}, acknowledged at {offset}");
    }
    assert_eq!(places.len(), acks.acked.len(), "records that nobody sent");
}

/// Returns all acknowledgements and all that is in the topic in the end.
fn kill_and_kill_again(client: Client, idempotence: Idempotence, shards: usize) -> (Acks, Vec<Consumed>) {
    let mut server = Server::start(Options { shards, ..Options::default() });
    let topic = unique("crash");
    client.create(server.bootstrap(), std::slice::from_ref(&topic), 4, &[]);
    let mut producer = client.produce_on_and_on(server.bootstrap(), &topic, idempotence);
    let feeder = Feeder::start(&mut producer);
    let mut acks = Acks::default();

    for round in 0..rounds() {
        // Kill only while the producer is being served, at a moment that differs from round to round.
        let served = acks.acked.len() + 50;
        let deadline = Instant::now() + PATIENCE;
        while acks.acked.len() < served {
            let line = producer.next_line(deadline);
            acks.read(&line.unwrap_or_else(|| producer.fail("ended early")));
        }
        thread::sleep(Duration::from_millis(mixed(round) % 150));
        server.kill_dash_nine();
        while let Some(line) = producer.ready_line() {
            acks.read(&line);
        }
        server.start_again();
    }

    let sent = feeder.stop();
    let deadline = Instant::now() + PATIENCE;
    while let Some(line) = producer.next_line(deadline) {
        acks.read(&line);
    }
    producer.expect_success();
    assert_eq!(acks.failed, [] as [String; 0], "sends failed though the server always came back");
    assert_eq!(acks.acked.len(), sent, "lines without an answer");
    let consumed = client.consume(server.bootstrap(), std::slice::from_ref(&topic));
    server.stop();
    (acks, consumed)
}

/// Feeds a producer steadily from a thread of its own.
struct Feeder {
    stopping: Arc<AtomicBool>,
    thread: thread::JoinHandle<usize>,
}

impl Feeder {
    fn start(producer: &mut Process) -> Feeder {
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopping);
        let mut stdin = producer.take_stdin();
        let thread = thread::spawn(move || {
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                let lines: String = records(sent, 10).iter().map(|record| record.to_line()).collect();
                if stdin.write_all(lines.as_bytes()).is_err() {
                    break;
                }
                sent += 10;
                thread::sleep(Duration::from_millis(10));
            }
            sent
        });
        Feeder { stopping, thread }
    }

    /// Closes the producer's input and says how many lines it got.
    fn stop(self) -> usize {
        self.stopping.store(true, Ordering::Relaxed);
        self.thread.join().expect("the feeder does not panic")
    }
}
