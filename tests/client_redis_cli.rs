//! The stock redis-cli at the Redis door: what a person would type, and what is printed.

#![allow(clippy::disallowed_methods, reason = "the tests wait for other processes, in real time")]

mod support;

use std::thread;
use std::time::{Duration, Instant};
use support::clients::Client;
use support::process::{PATIENCE, Process};
use support::records::{Record, now_ms};
use support::redis::{logstreams, logstreams_with, redis_cli, start_redis_cli};
use support::server::{Options, Server};

macro_rules! on_one_two_and_eight_shards {
    ($($scenario:ident)*) => {
        on_one_two_and_eight_shards!(@shards one_shard 1 $($scenario)*);
        on_one_two_and_eight_shards!(@shards two_shards 2 $($scenario)*);
        on_one_two_and_eight_shards!(@shards eight_shards 8 $($scenario)*);
    };
    (@shards $module:ident $shards:literal $($scenario:ident)*) => {
        mod $module {
            $(#[test]
            fn $scenario() {
                crate::$scenario($shards);
            })*
        }
    };
}

on_one_two_and_eight_shards! {
    what_is_published_reaches_subscribers_and_patterns
    a_durable_subscription_goes_on_after_subscriber_and_server_were_killed
    a_subscription_replays_from_the_start_a_time_or_an_offset
    a_blocked_reader_is_woken_by_an_entry
    a_dead_consumers_entries_are_claimed_by_another_over_a_killed_server
    a_subscription_to_many_partitions_gets_all_of_them
}

/// A `redis-cli` that is subscribed, once it says so.
fn subscribed(address: &str, args: &[&str]) -> Process {
    let mut process = start_redis_cli(address, args);
    for name in &args[1..] {
        expect(&mut process, &[&args[0].to_lowercase(), name]);
        next(&mut process);
    }
    process
}

fn next(process: &mut Process) -> String {
    process.next_line(Instant::now() + PATIENCE).unwrap_or_else(|| process.fail("ended"))
}

fn expect(process: &mut Process, lines: &[&str]) {
    for line in lines {
        let seen = next(process);
        if seen != *line {
            process.fail(&format!("says {seen:?} and not {line:?}"));
        }
    }
}

/// The next message's payload; its channel must be that.
fn payload(process: &mut Process, channel: &str) -> String {
    expect(process, &["message", channel]);
    next(process)
}

fn payloads(process: &mut Process, channel: &str, count: usize) -> Vec<String> {
    (0..count).map(|_| payload(process, channel)).collect()
}

fn publish(server: &Server, channel: &str, messages: &[&str]) {
    for message in messages {
        redis_cli(server.redis(), &["PUBLISH", channel, message]);
    }
}

fn what_is_published_reaches_subscribers_and_patterns(shards: usize) {
    let server = logstreams(shards);
    let address = server.redis();
    assert_eq!(redis_cli(address, &["PING"]), ["PONG"]);
    assert_eq!(redis_cli(address, &["PUBLISH", "news.one", "nobody hears"]), ["0"]);
    let mut first = subscribed(address, &["SUBSCRIBE", "news.one", "news.two"]);
    let mut second = subscribed(address, &["SUBSCRIBE", "news.one"]);
    let mut third = subscribed(address, &["PSUBSCRIBE", "news.*"]);
    assert_eq!(redis_cli(address, &["PUBLISH", "news.one", "hello"]), ["3"]);
    assert_eq!(redis_cli(address, &["PUBLISH", "news.two", "größe"]), ["2"]);
    // A channel that nobody knew when the pattern was subscribed to.
    assert_eq!(redis_cli(address, &["PUBLISH", "news.three", "new"]), ["1"]);
    expect(&mut second, &["message", "news.one", "hello"]);
    let mut seen = [payload_of_any(&mut first), payload_of_any(&mut first)];
    seen.sort();
    assert_eq!(
        seen,
        [("news.one".to_owned(), "hello".to_owned()), ("news.two".to_owned(), "größe".to_owned())]
    );
    let mut seen: Vec<[String; 4]> = (0..3).map(|_| [(); 4].map(|()| next(&mut third))).collect();
    seen.sort();
    assert_eq!(
        seen,
        [
            ["pmessage", "news.*", "news.one", "hello"],
            ["pmessage", "news.*", "news.three", "new"],
            ["pmessage", "news.*", "news.two", "größe"],
        ]
    );
    // What was published is in the log, heard or not.
    let log = redis_cli(address, &["XRANGE", "news.one", "-", "+"]);
    assert_eq!([&log[1..3], &log[4..6]].concat(), ["value", "nobody hears", "value", "hello"]);
}

fn payload_of_any(process: &mut Process) -> (String, String) {
    expect(process, &["message"]);
    (next(process), next(process))
}

fn a_durable_subscription_goes_on_after_subscriber_and_server_were_killed(shards: usize) {
    let mut server = logstreams(shards);
    let channel = "orders@billing";
    let mut subscriber = subscribed(server.redis(), &["SUBSCRIBE", channel]);
    publish(&server, "orders", &["1", "2", "3"]);
    assert_eq!(payloads(&mut subscriber, channel, 3), ["1", "2", "3"]);
    wait_for_committed(&server, "orders", "billing", 3);
    subscriber.kill_dash_nine();
    publish(&server, "orders", &["4", "5"]);
    server.kill_dash_nine();
    server.start_again();
    publish(&server, "orders", &["6"]);
    let mut subscriber = subscribed(server.redis(), &["SUBSCRIBE", channel]);
    publish(&server, "orders", &["7"]);
    assert_eq!(payloads(&mut subscriber, channel, 4), ["4", "5", "6", "7"]);

    // The server goes away under the subscriber; another one, of the same group, hears the rest.
    wait_for_committed(&server, "orders", "billing", 7);
    server.kill_dash_nine();
    server.start_again();
    publish(&server, "orders", &["8"]);
    let mut subscriber = subscribed(server.redis(), &["SUBSCRIBE", channel]);
    assert_eq!(payload(&mut subscriber, channel), "8");
    // Another group has its own place: it begins now.
    let mut audit = subscribed(server.redis(), &["SUBSCRIBE", "orders@audit"]);
    publish(&server, "orders", &["9"]);
    assert_eq!(payload(&mut subscriber, channel), "9");
    assert_eq!(payload(&mut audit, "orders@audit"), "9");
}

/// Acknowledgement is implicit and soon, not at once: waits until the group stands at `offset`.
fn wait_for_committed(server: &Server, stream: &str, group: &str, offset: usize) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let info = redis_cli(server.redis(), &["XINFO", "GROUPS", stream]);
        // One group after the other: name and value in turn.
        let groups = info.split(|line| line == "name").skip(1);
        let mine = groups.into_iter().find(|fields| fields[0] == group);
        let last = mine.and_then(|fields| {
            fields.iter().position(|field| field == "last-delivered-id").map(|at| fields[at + 1].clone())
        });
        let next =
            last.as_deref().and_then(|id| id.rsplit_once('-')?.1.parse::<usize>().ok()).map(|last| last + 1);
        if next == Some(offset) {
            return;
        }
        assert!(Instant::now() < deadline, "group {group} never stood at {offset}: {info:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn a_subscription_replays_from_the_start_a_time_or_an_offset(shards: usize) {
    let server = logstreams(shards);
    let long_ago = now_ms() - 20 * 60 * 1000;
    let record = |timestamp, value: &str| Record {
        timestamp,
        key: None,
        value: Some(value.as_bytes().to_vec()),
        headers: vec![],
    };
    let old: Vec<Record> = (0..3).map(|n| record(long_ago + n, &format!("old {n}"))).collect();
    redis_cli(server.redis(), &["PUBLISH", "t", "first"]);
    redis_cli(server.redis(), &["XTRIM", "t", "MAXLEN", "0"]);
    let acks = Client::ConfluentKafka.produce(server.bootstrap(), &[("t".to_owned(), "none")], &old);
    assert!(acks.failed.is_empty(), "{:?}", acks.failed);
    publish(&server, "t", &["new 0", "new 1"]);

    // The first record is trimmed away, so that the oldest has offset 1.
    let everything = ["old 0", "old 1", "old 2", "new 0", "new 1"];
    let places =
        [("earliest", 0), ("0", 0), ("1", 0), ("2", 1), ("5", 4), ("-1h", 0), ("-10m", 3), ("-1300s", 0)];
    let mut subscribers = Vec::new();
    for (place, first) in places {
        let channel = format!("t@{place}");
        let mut subscriber = subscribed(server.redis(), &["SUBSCRIBE", &channel]);
        let expected = &everything[first..];
        assert_eq!(payloads(&mut subscriber, &channel, expected.len()), expected, "from {place}");
        subscribers.push((channel, subscriber));
    }
    publish(&server, "t", &["live"]);
    for (channel, subscriber) in &mut subscribers {
        assert_eq!(payload(subscriber, channel), "live", "after the replay of {channel}");
    }
}

fn a_blocked_reader_is_woken_by_an_entry(shards: usize) {
    let server = logstreams(shards);
    let address = server.redis();
    redis_cli(address, &["XADD", "s", "*", "value", "before"]);
    let mut reader =
        start_redis_cli(address, &["XREAD", "BLOCK", "60000", "STREAMS", "s", "later", "$", "$"]);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(reader.ready_line(), None, "nothing is new yet");
    let id = redis_cli(address, &["XADD", "later", "*", "key", "k", "value", "v", "lang", "de"]).remove(0);
    expect(&mut reader, &["later", &id, "key", "k", "value", "v", "lang", "de"]);
    reader.expect_success();
    let mut reader = start_redis_cli(address, &["XREAD", "BLOCK", "0", "STREAMS", "s", "$"]);
    thread::sleep(Duration::from_millis(100));
    redis_cli(address, &["PUBLISH", "s", "published"]);
    next(&mut reader);
    next(&mut reader);
    expect(&mut reader, &["value", "published"]);
    reader.expect_success();
}

fn a_dead_consumers_entries_are_claimed_by_another_over_a_killed_server(shards: usize) {
    let mut server = logstreams(shards);
    let cli = |server: &Server, line: &str| redis_cli(server.redis(), &line.split(' ').collect::<Vec<_>>());
    cli(&server, "XGROUP CREATE jobs workers $ MKSTREAM");
    let ids: Vec<String> =
        (0..6).map(|n| cli(&server, &format!("XADD jobs * value job{n}")).remove(0)).collect();
    let one = cli(&server, "XREADGROUP GROUP workers one COUNT 3 STREAMS jobs >");
    let two = cli(&server, "XREADGROUP GROUP workers two COUNT 3 STREAMS jobs >");
    let entries = |ids: &[String], first: usize| -> Vec<String> {
        let entry = |(n, id): (usize, &String)| [id.clone(), "value".to_owned(), format!("job{}", n + first)];
        ids.iter().enumerate().flat_map(entry).collect()
    };
    assert_eq!(one[1..], entries(&ids[..3], 0));
    assert_eq!(two[1..], entries(&ids[3..], 3));
    assert_eq!(cli(&server, &format!("XACK jobs workers {} {} {}", ids[0], ids[3], ids[4])), ["3"]);

    // Consumer one waits for more and dies, and so does the server.
    let mut blocked = start_redis_cli(
        server.redis(),
        &["XREADGROUP", "GROUP", "workers", "one", "BLOCK", "0", "STREAMS", "jobs", ">"],
    );
    thread::sleep(Duration::from_millis(100));
    blocked.kill_dash_nine();
    server.kill_dash_nine();
    server.start_again();
    let pending = cli(&server, "XPENDING jobs workers");
    assert_eq!(
        pending,
        ["3", ids[1].as_str(), ids[5].as_str(), "one", "2", "two", "1"],
        "what XPENDING says"
    );
    let claimed = cli(&server, "XAUTOCLAIM jobs workers two 0 0 COUNT 2");
    assert_eq!(claimed[0], ids[5], "where to claim on");
    assert_eq!(claimed[1..7], entries(&ids[1..3], 1));
    assert_eq!(cli(&server, &format!("XACK jobs workers {} {} {}", ids[1], ids[2], ids[5])), ["3"]);
    server.kill_dash_nine();
    server.start_again();
    assert_eq!(cli(&server, "XPENDING jobs workers")[0], "0");
    assert_eq!(cli(&server, "XLEN jobs"), ["6"]);
    let id = cli(&server, "XADD jobs * value job6").remove(0);
    let seen = cli(&server, "XREADGROUP GROUP workers two STREAMS jobs >");
    assert_eq!(seen[1..], [id.as_str(), "value", "job6"], "the group reads on where it was");
}

fn a_subscription_to_many_partitions_gets_all_of_them(shards: usize) {
    let server = logstreams_with(Options { shards, ..Options::default() }.set("num.partitions", "8"));
    redis_cli(server.redis(), &["PUBLISH", "wide", "begin"]);
    let mut subscriber = subscribed(server.redis(), &["SUBSCRIBE", "wide@fans"]);
    let mut from_start = subscribed(server.redis(), &["SUBSCRIBE", "wide@earliest"]);
    let records: Vec<Record> = support::records::records(0, 400)
        .into_iter()
        .map(|record| Record { value: Some(format!("{}", record.sequence()).into_bytes()), ..record })
        .collect();
    let acks = Client::ConfluentKafka.produce(server.bootstrap(), &[("wide".to_owned(), "lz4")], &records);
    assert!(acks.failed.is_empty(), "{:?}", acks.failed);
    let all: Vec<usize> = (0..400).collect();
    for (channel, subscriber) in [("wide@fans", &mut subscriber), ("wide@earliest", &mut from_start)] {
        let mut seen = Vec::new();
        while seen.len() < all.len() {
            let message = payload(subscriber, channel);
            if message != "begin" {
                seen.push(message.parse::<usize>().expect("a number"));
            }
        }
        // Each partition in order, and so each key.
        let mut last = std::collections::BTreeMap::new();
        for &number in &seen {
            let partition = acks.acked[&("wide".to_owned(), number)].0;
            assert!(last.insert(partition, number) < Some(number), "partition {partition} out of order");
        }
        seen.sort_unstable();
        assert_eq!(seen, all, "{channel}");
    }
}
