//! One log behind two doors: what Kafka clients write Redis clients read, and the reverse, byte for byte; and a group
//! is the same group at both.

#![allow(clippy::disallowed_methods, reason = "the tests wait for other processes, in real time")]

mod support;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Command;
use std::sync::Mutex;
use support::clients::{CODECS, Client};
use support::process;
use support::records::{Acks, Consumed, Record, assert_exactly, records};
use support::redis::{logstreams, logstreams_with, redis_cli};
use support::resp::{Connection, Reply};
use support::server::{Options, Server};
use support::tools;
use tempfile::NamedTempFile;

/// An entry as a record at its place.
fn consumed(topic: &str, partition: i32, entry: &Reply) -> Consumed {
    let [id, fields] = entry.items() else { panic!("{entry} is no entry") };
    let id = id.text();
    let (timestamp, offset) = id.split_once('-').expect("an id");
    let mut record =
        Record { timestamp: timestamp.parse().expect("a time"), key: None, value: None, headers: Vec::new() };
    for pair in fields.items().chunks(2) {
        let value = pair[1].bytes().to_vec();
        match pair[0].bytes() {
            b"key" => record.key = Some(value),
            b"value" => record.value = Some(value),
            name => record.headers.push((String::from_utf8(name.to_vec()).expect("UTF-8"), Some(value))),
        }
    }
    Consumed { topic: topic.to_owned(), partition, offset: offset.parse().expect("an offset"), record }
}

fn range(connection: &mut Connection, topic: &str) -> Vec<Consumed> {
    let entries = connection.call(&["XRANGE", topic, "-", "+"]);
    entries.items().iter().map(|entry| consumed(topic, 0, entry)).collect()
}

fn produce(server: &Server, client: Client, topic: &str, codec: &str, records: &[Record]) -> Acks {
    let acks = client.produce(server.bootstrap(), &[(topic.to_owned(), codec)], records);
    assert_eq!((acks.failed.len(), acks.acked.len()), (0, records.len()), "{:?}", acks.failed.first());
    acks
}

/// Null and empty values, binary headers, and batches of every codec.
#[test]
fn records_of_kafka_clients_in_every_codec_are_read_whole() {
    let server = logstreams(2);
    let sent = records(0, 1500);
    for (client, protocol) in [(Client::ConfluentKafka, 2), (Client::FranzGo, 3)] {
        for codec in CODECS {
            let topic = format!("{client:?}-{codec}");
            client.create(server.bootstrap(), std::slice::from_ref(&topic), 1, &[]);
            let acks = produce(&server, client, &topic, codec, &sent);
            let mut connection = Connection::of_protocol(server.redis(), protocol);
            assert_eq!(connection.call(&["XLEN", &topic]), Reply::Integer(1500));
            assert_exactly(&topic, &sent, &acks, &range(&mut connection, &topic));

            // Pages and the way back lead over the same batches.
            let mut pages = Vec::new();
            let mut last = "0".to_owned();
            loop {
                let page = connection.call(&["XREAD", "COUNT", "97", "STREAMS", &topic, &last]);
                let entries = match &page {
                    Reply::Map(streams) => streams[0].1.items(),
                    Reply::Array(streams) => streams[0].items()[1].items(),
                    _ => break,
                };
                pages.extend(entries.iter().map(|entry| consumed(&topic, 0, entry)));
                last = entries.last().expect("a page is not empty").items()[0].text();
            }
            assert_exactly(&topic, &sent, &acks, &pages);
            let back = connection.call(&["XREVRANGE", &topic, "+", "-"]);
            let back: Vec<_> = back.items().iter().rev().map(|entry| consumed(&topic, 0, entry)).collect();
            assert_exactly(&topic, &sent, &acks, &back);
        }
    }
}

#[test]
fn kcat_produces_and_redis_cli_reads() {
    let server = logstreams(2);
    let mut file = NamedTempFile::new().expect("a temporary file");
    writeln!(file, "key one:größe 1\nkey two:2").expect("writing to a temporary file");
    let path = file.path().to_str().expect("a plain path");
    kcat(
        &server,
        &["-P", "-t", "t", "-K:", "-H", "source=file", "-H", "empty=", "-X", "acks=all", "-l", path],
    );
    let stamps = kcat(&server, &["-C", "-q", "-e", "-t", "t", "-f", "%T-%o\n"]);
    let seen = redis_cli(server.redis(), &["XRANGE", "t", "-", "+"]);
    let fields = |key, value| ["key", key, "value", value, "source", "file", "empty", ""];
    let expected = [
        &[stamps[0].as_str()][..],
        &fields("key one", "größe 1"),
        &[stamps[1].as_str()],
        &fields("key two", "2"),
    ];
    assert_eq!(seen, expected.concat());
}

#[test]
fn redis_cli_writes_and_kcat_reads() {
    let server = logstreams(2);
    let first =
        redis_cli(server.redis(), &["XADD", "t", "*", "key", "k", "value", "größe", "lang", "de", "n", "1"]);
    redis_cli(server.redis(), &["PUBLISH", "t", "published"]);
    let third = redis_cli(server.redis(), &["XADD", "t", "*", "only", "header"]);
    let seen = kcat(&server, &["-C", "-q", "-e", "-t", "t", "-f", "%T-%o|%K|%k|%S|%s|%h\n"]);
    assert_eq!(seen[0], format!("{}|1|k|7|größe|lang=de,n=1", first[0]));
    assert!(seen[1].ends_with("-1|-1||9|published|"), "{seen:?}");
    assert_eq!(seen[2], format!("{}|-1||-1||only=header", third[0]));
}

/// Every byte value, sizes from nothing to a megabyte less a bit, and a partition for each.
#[test]
fn entries_are_read_by_kafka_clients_byte_for_byte() {
    let server = logstreams(2);
    let mut connection = Connection::of_protocol(server.redis(), 3);
    let sent: Vec<Record> = records(0, 500)
        .into_iter()
        .map(|record| Record {
            // A field that is not given is null; XADD cannot say more.
            key: record.key.or(Some((0..=255).collect())),
            value: record.value.or_else(|| Some(vec![0x0a; 900_000])),
            ..record
        })
        .collect();
    let mut stamped = Vec::new();
    let mut acks = Acks::default();
    for (line, record) in sent.iter().enumerate() {
        let mut command: Vec<&[u8]> = vec![b"XADD", b"t", b"*"];
        command.extend([b"key".as_slice(), record.key.as_deref().expect("a key")]);
        command.extend([b"value".as_slice(), record.value.as_deref().expect("a value")]);
        for (name, value) in &record.headers {
            command.extend([name.as_bytes(), value.as_deref().unwrap_or_default()]);
        }
        let id = connection.call(&command).text();
        let (timestamp, offset) = id.split_once('-').expect("an id");
        acks.acked.insert(("t".to_owned(), line), (0, offset.parse().expect("an offset")));
        stamped.push(Record { timestamp: timestamp.parse().expect("a time"), ..record.clone() });
    }
    for client in [Client::ConfluentKafka, Client::FranzGo, Client::Java] {
        assert_exactly("t", &stamped, &acks, &client.consume(server.bootstrap(), &["t".to_owned()]));
    }
    assert_exactly("t", &stamped, &acks, &range(&mut connection, "t"));
}

/// Reads for a consumer of the group and acknowledges.
fn read_and_acknowledge(
    connection: &mut Connection,
    topic: &str,
    group: &str,
    count: usize,
) -> Vec<Consumed> {
    let count = count.to_string();
    let command = ["XREADGROUP", "GROUP", group, "redis", "COUNT", &count, "STREAMS", topic, ">"];
    let answer = connection.call(&command);
    let Reply::Map(streams) = &answer else { panic!("{} is answered by {answer}", command.join(" ")) };
    let entries = streams[0].1.items();
    let ids: Vec<String> = entries.iter().map(|entry| entry.items()[0].text()).collect();
    let mut ack = vec!["XACK", topic, group];
    ack.extend(ids.iter().map(String::as_str));
    let acknowledged = usize::try_from(connection.call(&ack).integer()).expect("a count");
    assert_eq!(acknowledged, entries.len());
    entries.iter().map(|entry| consumed(topic, 0, entry)).collect()
}

#[test]
fn a_group_moves_from_kafka_to_redis_and_back_without_a_gap() {
    let server = logstreams(2);
    for client in [Client::ConfluentKafka, Client::Java] {
        let (topic, group) = (format!("t-{client:?}"), format!("g-{client:?}"));
        let sent = records(0, 900);
        produce(&server, client, &topic, "none", &sent);
        let mut seen = Vec::new();
        let kafka_reads = |seen: &mut Vec<Consumed>| {
            let mut member = client.member(server.bootstrap(), &group, &topic, Some(200));
            member.listen_to_the_end();
            assert_eq!(member.records.len(), 200);
            seen.append(&mut member.records);
        };
        let mut redis = Connection::of_protocol(server.redis(), 3);
        kafka_reads(&mut seen);
        // No XGROUP CREATE: the group is there.
        seen.extend(read_and_acknowledge(&mut redis, &topic, &group, 150));
        seen.extend(read_and_acknowledge(&mut redis, &topic, &group, 150));
        describe_shows_lag(&server, &group, &topic, 500, 900);
        kafka_reads(&mut seen);
        seen.extend(read_and_acknowledge(&mut redis, &topic, &group, 100));
        let offsets: Vec<i64> = seen.iter().map(|found| found.offset).collect();
        assert!(offsets.iter().copied().eq(0..800), "a gap or a repetition: {offsets:?}");
        for found in &seen {
            assert_eq!(found.record, sent[found.record.sequence()]);
        }
        let info = redis.call(&["XINFO", "GROUPS", &topic]);
        let info = &info.items()[0];
        assert_eq!(info.field("name").map(Reply::text), Some(group));
        assert_eq!(info.field("lag").map(Reply::integer), Some(100), "{info}");
        assert_eq!(info.field("pending").map(Reply::integer), Some(0), "{info}");
    }
}

/// What waits for its acknowledgement holds the committed offset back, so that nothing is passed over.
#[test]
fn an_entry_that_waits_for_its_acknowledgement_is_not_passed_over_by_a_kafka_consumer() {
    let server = logstreams(2);
    let sent = records(0, 300);
    produce(&server, Client::ConfluentKafka, "t", "none", &sent);
    let mut redis = Connection::of_protocol(server.redis(), 3);
    assert_eq!(redis.call(&["XGROUP", "CREATE", "t", "g", "0"]), Reply::Simple("OK".to_owned()));
    let answer = redis.call(&["XREADGROUP", "GROUP", "g", "redis", "COUNT", "100", "STREAMS", "t", ">"]);
    let Reply::Map(streams) = &answer else { panic!("XREADGROUP is answered by {answer}") };
    let ids: Vec<String> = streams[0].1.items().iter().map(|entry| entry.items()[0].text()).collect();
    let mut ack = vec!["XACK", "t", "g"];
    // All but the 41st.
    ack.extend(ids.iter().map(String::as_str).filter(|id| *id != ids[40]));
    assert_eq!(redis.call(&ack), Reply::Integer(99));
    let mut member = Client::ConfluentKafka.member(server.bootstrap(), "g", "t", Some(200));
    member.listen_to_the_end();
    let seen: Vec<i64> = member.records.iter().map(|found| found.offset).collect();
    assert_eq!(seen[0], 40, "the Kafka consumer begins at what was not acknowledged");
}

fn describe_shows_lag(server: &Server, group: &str, topic: &str, offset: u64, end: u64) {
    let args = ["--bootstrap-server", server.bootstrap(), "--describe", "--group", group];
    let lines = tools::run("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", &args);
    let row = lines.iter().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = row.into_iter().find(|fields| fields.first() == Some(&group) && fields.get(1) == Some(&topic));
    let row = row.unwrap_or_else(|| panic!("no row of {group} and {topic} in {lines:#?}"));
    let (offset, end, lag) = (offset.to_string(), end.to_string(), (end - offset).to_string());
    assert_eq!(row[3..6], [offset.as_str(), &end, &lag], "{lines:#?}");
}

#[test]
fn an_open_or_aborted_transaction_is_not_read() {
    let server = logstreams(2);
    let script = r#"
import sys
from confluent_kafka import Producer
settings = {"bootstrap.servers": sys.argv[1], "transactional.id": "kit"}
producer = Producer(settings)
producer.init_transactions(60)
for number, commit in enumerate([True, False, True]):
    producer.begin_transaction()
    producer.produce("t", value=str(number))
    producer.flush()
    (producer.commit_transaction if commit else producer.abort_transaction)()
producer.begin_transaction()
producer.produce("t", value="open")
producer.flush()
"#;
    let mut python = Command::new(support::clients::installed("venv/bin/python"));
    process::run("a transactional producer", python.args(["-c", script, server.bootstrap()]), Vec::new());
    let mut redis = Connection::of_protocol(server.redis(), 3);
    let values: Vec<_> = range(&mut redis, "t").into_iter().map(|found| found.record.value).collect();
    assert_eq!(values, [Some(b"0".to_vec()), Some(b"2".to_vec())]);
}

/// Streams of more partitions than one are named with their partition.
#[test]
fn the_partitions_of_a_topic_are_streams_of_their_own() {
    let server = logstreams_with(Options::default().set("num.partitions", "4"));
    let sent = records(0, 400);
    let acks = produce(&server, Client::ConfluentKafka, "t", "none", &sent);
    let mut redis = Connection::of_protocol(server.redis(), 3);
    let all: Vec<Consumed> = (0..4)
        .flat_map(|partition| {
            let entries = redis.call(&["XRANGE", &format!("t/{partition}"), "-", "+"]);
            entries.items().iter().map(|entry| consumed("t", partition, entry)).collect::<Vec<_>>()
        })
        .collect();
    assert_exactly("t", &sent, &acks, &all);
    let mut lengths = BTreeMap::new();
    for found in &all {
        *lengths.entry(found.partition).or_insert(0) += 1;
    }
    for (partition, length) in lengths {
        assert_eq!(redis.call(&["XLEN", &format!("t/{partition}")]), Reply::Integer(length));
    }
    // As Kafka's Java client does: an entry goes where its key says.
    for found in all.iter().filter(|found| found.record.key.is_some()).take(20) {
        let key = found.record.key.as_deref().expect("a key");
        let partition = java_partition(&server, key);
        let before = length(&mut redis, partition);
        assert!(matches!(
            redis.call(&[b"XADD".as_slice(), b"t", b"*", b"key", key, b"value", b"v"]),
            Reply::Bulk(_)
        ));
        assert_eq!(
            length(&mut redis, partition),
            before + 1,
            "the key {} leads elsewhere",
            key.escape_ascii()
        );
    }
    // A stream has one order, so that whoever reads must name one of several partitions.
    for command in [&["XRANGE", "t", "-", "+"][..], &["XREVRANGE", "t", "+", "-"]] {
        let reply = redis.call(command);
        assert!(
            matches!(&reply, Reply::Error(text) if text.contains("t/0")),
            "{} is answered by {reply}",
            command[0]
        );
    }
}

fn length(redis: &mut Connection, partition: i32) -> i64 {
    redis.call(&["XLEN", &format!("t/{partition}")]).integer()
}

/// Where Kafka's Java client sends a key.
fn java_partition(server: &Server, key: &[u8]) -> i32 {
    static PLACES: Mutex<BTreeMap<Vec<u8>, i32>> = Mutex::new(BTreeMap::new());
    let mut places = PLACES.lock().expect("no test panics here");
    if places.is_empty() {
        let probes = records(0, 200);
        Client::Java.create(server.bootstrap(), &["java".to_owned()], 4, &[]);
        produce(server, Client::Java, "java", "none", &probes);
        for found in Client::Java.consume(server.bootstrap(), &["java".to_owned()]) {
            places.extend(found.record.key.map(|key| (key, found.partition)));
        }
    }
    places[key]
}

fn kcat(server: &Server, args: &[&str]) -> Vec<String> {
    let mut command = Command::new("kcat");
    command.args(["-b", server.bootstrap()]).args(args);
    process::run(format!("kcat {}", args.join(" ")), &mut command, Vec::new())
}
