//! Commands of many connections that the server finds in one moment: they share record batches, and nothing else.

#![allow(clippy::disallowed_methods, reason = "the tests wait for other processes, in real time")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use support::process::{self, PATIENCE};
use support::records::now_ms;
use support::redis::logstreams;
use support::resp::{Connection, Reply, encode};
use support::server::Server;

const CONNECTIONS: usize = 40;

/// Sends each connection's bytes while the server stands still, and lets it go on.
fn in_one_moment(server: &Server, connections: &mut [Connection], bytes: &[Vec<u8>]) {
    let pid = Pid::from_raw(i32::try_from(server.pid()).expect("a process id")).expect("not 0");
    kill_process(pid, Signal::STOP).expect("our own child");
    let deadline = Instant::now() + PATIENCE;
    let stands_still = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", server.pid())).expect("the server lives");
        stat.contains(") T ")
    };
    while !stands_still() {
        assert!(Instant::now() < deadline, "the server does not stand still");
        thread::sleep(Duration::from_millis(1));
    }
    for (connection, bytes) in connections.iter_mut().zip(bytes) {
        connection.send_raw(bytes).expect("the kernel takes it");
    }
    kill_process(pid, Signal::CONT).expect("our own child");
}

fn open(server: &Server, count: usize) -> Vec<Connection> {
    (0..count).map(|_| Connection::open(server.redis())).collect()
}

/// How many records each batch of a topic's only partition has.
fn batch_sizes(server: &Server, topic: &str) -> Vec<usize> {
    let log = server.data_dir().join(format!("{topic}-0/00000000000000000000.log"));
    let mut command = support::server::logstreams();
    command.arg("dump").arg(log);
    let lines = process::run("logstreams dump", &mut command, Vec::new());
    let batches = lines.iter().filter(|line| line.starts_with("batch "));
    let count = |line: &String| {
        let count = line.split(' ').find_map(|word| word.strip_prefix("count="));
        count.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no count in {line}"))
    };
    batches.map(count).collect()
}

#[test]
fn commands_of_one_moment_share_record_batches_and_have_replies_of_their_own() {
    let server = logstreams(1);
    let mut connections = open(&server, CONNECTIONS);
    connections[0].call(&["SUBSCRIBE", "moment"]);
    let bytes: Vec<Vec<u8>> = (1..CONNECTIONS)
        .map(|number| {
            let words = |from: usize| format!("{number}-{from}");
            match number % 4 {
                0 => encode(&["PUBLISH", "moment", &words(0)]),
                // Several at once keep their order.
                1 => (0..3).flat_map(|at| encode(&["XADD", "moment", "*", "value", &words(at)])).collect(),
                _ => encode(&["XADD", "moment", "*", "value", &words(0)]),
            }
        })
        .collect();
    in_one_moment(&server, &mut connections[1..], &bytes);

    let mut ids = BTreeSet::new();
    let mut reader = Connection::open(server.redis());
    let mut sent = 0;
    for (number, connection) in connections.iter_mut().enumerate().skip(1) {
        let count = if number % 4 == 1 { 3 } else { 1 };
        let mut last_offset = -1;
        for at in 0..count {
            sent += 1;
            let reply = connection.receive().expect("a reply");
            if number % 4 == 0 {
                assert_eq!(reply, Reply::Integer(1), "one subscriber");
                continue;
            }
            let id = reply.text();
            let offset: i64 = id.split_once('-').and_then(|(_, offset)| offset.parse().ok()).expect("an id");
            assert!(offset > last_offset, "connection {number}: {id} behind offset {last_offset}");
            last_offset = offset;
            let found = reader.call(&["XRANGE", "moment", &id, &id]).to_string();
            assert!(found.contains(&format!("{number}-{at}")), "{id} is {found}");
            assert!(ids.insert(id), "an id is given twice");
        }
    }
    for _ in 0..sent {
        let push = connections[0].receive().expect("a push");
        assert_eq!(push.items()[1].text(), "moment");
    }
    let sizes = batch_sizes(&server, "moment");
    assert_eq!(sizes.iter().sum::<usize>(), sent);
    assert!(sizes.len() <= CONNECTIONS / 8, "{sent} records are in batches of {sizes:?}");
}

#[test]
fn what_the_log_refuses_of_one_connection_is_refused_nobody_else() {
    let server = logstreams(1);
    let mut connections = open(&server, CONNECTIONS);
    connections[0].call(&["XADD", "moment", "*", "value", "first"]);
    let too_far = format!("{}-*", now_ms() + 10 * 24 * 3_600_000);
    let too_large = "x".repeat(2 << 20);
    let bytes: Vec<Vec<u8>> = (0..CONNECTIONS)
        .map(|number| match number % 10 {
            3 => encode(&["XADD", "moment", &too_far, "value", "future"]),
            5 if number == 5 => encode(&["XADD", "moment", "*", "value", &too_large]),
            7 => {
                let entry = |at| encode(&["XADD", "moment", "*", "value", at]);
                [encode(&["MULTI"]), entry("a"), entry("b"), encode(&["EXEC"])].concat()
            }
            _ => encode(&["XADD", "moment", "*", "value", "good"]),
        })
        .collect();
    // The large one does not fit a socket that nobody reads.
    let large = bytes[5].clone();
    let (head, tail) = large.split_at(1_000);
    let mut bytes = bytes;
    bytes[5] = head.to_vec();
    in_one_moment(&server, &mut connections, &bytes);
    connections[5].send_raw(tail).expect("the server reads");

    let mut good = 1;
    for (number, connection) in connections.iter_mut().enumerate() {
        let reply = connection.receive().expect("a reply");
        match number % 10 {
            3 => assert!(matches!(reply, Reply::Error(_)), "{number}: {reply}"),
            5 if number == 5 => assert!(matches!(reply, Reply::Error(_)), "{number}: {reply}"),
            7 => {
                connection.receive().expect("QUEUED");
                connection.receive().expect("QUEUED");
                let ids = connection.receive().expect("the ids");
                assert_eq!(ids.items().len(), 2, "{ids}");
                good += 2;
            }
            _ => {
                assert!(!matches!(reply, Reply::Error(_)), "{number}: {reply}");
                good += 1;
            }
        }
    }
    assert_eq!(connections[0].call(&["XLEN", "moment"]), Reply::Integer(good));
    let twos = batch_sizes(&server, "moment").iter().filter(|size| **size == 2).count();
    assert!(twos >= CONNECTIONS / 10, "each transaction is a batch of its own, and there are {twos}");
}
