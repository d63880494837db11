//! A data directory that Apache Kafka 4.3.1 left behind is served as it is: topics with their ids, records, configs,
//! and the offsets that groups committed; and it can be written on.

mod support;

use std::collections::BTreeSet;
use support::clients::{CODECS, Client};
use support::records::{assert_exactly, records};
use support::server::{Options, Program, Server};
use support::tools;

const GROUP: &str = "readers";

#[test]
fn a_directory_of_apache_kafka_is_served_and_written_on() {
    let client = Client::Java;
    let mut kafka = Server::start_program(Program::Kafka, Options::default());
    let targets: Vec<(String, &str)> = CODECS.iter().map(|&codec| (format!("kept-{codec}"), codec)).collect();
    let topics: Vec<String> = targets.iter().map(|(topic, _)| topic.clone()).collect();
    client.create(kafka.bootstrap(), &topics, 4, &["retention.ms=86400000", "segment.bytes=1048576"]);
    let mut sent = records(0, 5_000);
    let mut acks = client.produce(kafka.bootstrap(), &targets, &sent);
    let mut member = client.member(kafka.bootstrap(), GROUP, &topics[0], Some(2_000));
    member.listen_to_the_end();
    let described: Vec<Vec<String>> = topics.iter().map(|topic| describe(&kafka, topic)).collect();
    kafka.stop();

    let mut server = Server::start(Options { data: Some(kafka.data_dir()), ..Options::default() });
    for (topic, described) in topics.iter().zip(&described) {
        assert_eq!(describe(&server, topic), *described, "id, partitions or configs of {topic} changed");
    }
    let consumed = client.consume(server.bootstrap(), &topics);
    for topic in &topics {
        assert_exactly(topic, &sent, &acks, &consumed);
    }

    // The group goes on where it stood.
    let mut rest = client.member(server.bootstrap(), GROUP, &topics[0], Some(3_000));
    rest.listen_to_the_end();
    let seen: BTreeSet<usize> =
        member.records.iter().chain(&rest.records).map(|found| found.record.sequence()).collect();
    assert_eq!(seen.len(), 5_000, "the group read records twice or missed some");

    // New records follow the old ones, and both are there after a restart.
    let more = records(sent.len(), 1_000);
    let more_acks = client.produce(server.bootstrap(), &targets, &more);
    let lines_before = sent.len();
    acks.acked
        .extend(more_acks.acked.into_iter().map(|((topic, line), at)| ((topic, line + lines_before), at)));
    acks.failed.extend(more_acks.failed);
    sent.extend(more);
    server.restart();
    let consumed = client.consume(server.bootstrap(), &topics);
    for topic in &topics {
        assert_exactly(topic, &sent, &acks, &consumed);
    }
    server.stop();
}

/// What `kafka-topics --describe` says of a topic, without the brokers, which are others now.
fn describe(server: &Server, topic: &str) -> Vec<String> {
    let args = ["--bootstrap-server", server.bootstrap(), "--describe", "--topic", topic];
    let lines = tools::run("org.apache.kafka.tools.TopicCommand", &args);
    let mut facts = Vec::new();
    for line in lines.iter().filter(|line| line.contains(topic)) {
        for fact in line.split('\t').map(str::trim) {
            let (name, value) = fact.split_once(':').unwrap_or((fact, ""));
            match name {
                "Configs" => {
                    let mut configs: Vec<&str> = value.trim().split(',').collect();
                    configs.sort_unstable();
                    facts.extend(configs.into_iter().map(|config| format!("config {config}")));
                }
                "Topic" | "TopicId" | "PartitionCount" | "Partition" => {
                    facts.push(format!("{name}: {}", value.trim()))
                }
                _ => {}
            }
        }
    }
    assert!(facts.iter().any(|fact| fact.starts_with("TopicId: ")), "{lines:?}");
    assert!(facts.contains(&"config retention.ms=86400000".to_owned()), "{lines:?}");
    facts
}
