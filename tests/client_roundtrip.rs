//! Every stock client reads back exactly what it wrote, in every codec and every mode of the server; and every
//! client reads what another one wrote.

mod support;

use support::clients::{CODECS, Client};
use support::modes::{Mode, for_every_mode_and_client, unique};
use support::records::{Consumed, assert_exactly, records};

for_every_mode_and_client!(reads_back_what_it_wrote, crate::reads_back_what_it_wrote);

fn reads_back_what_it_wrote(mode: Mode, client: Client) {
    write_and_read(mode, client, client, mode.sized(10_000, 2_000));
}

/// Each client reads what its neighbour wrote: all encoders and all decoders meet a stranger.
#[test]
fn each_client_reads_what_another_wrote() {
    let ring = [
        Client::ConfluentKafka,
        Client::Sarama,
        Client::KafkaJs,
        Client::Java,
        Client::KafkaPython,
        Client::FranzGo,
        Client::Aiokafka,
    ];
    for (at, &writer) in ring.iter().enumerate() {
        write_and_read(Mode::TwoShards, writer, ring[(at + 1) % ring.len()], 1_000);
    }
}

fn write_and_read(mode: Mode, writer: Client, reader: Client, count: usize) {
    let server = mode.shared();
    let name = unique(&format!("{writer:?}"));
    let targets: Vec<(String, &str)> =
        CODECS.iter().map(|&codec| (format!("{name}-{codec}"), codec)).collect();
    let topics: Vec<String> = targets.iter().map(|(topic, _)| topic.clone()).collect();
    writer.create(server.bootstrap(), &topics, 8, &[]);

    let sent = records(0, count);
    let acks = writer.produce(server.bootstrap(), &targets, &sent);
    let consumed = reader.consume(server.bootstrap(), &topics);
    for topic in &topics {
        assert_exactly(topic, &sent, &acks, &consumed);
        let used = |partition| consumed.iter().any(|found: &Consumed| found.partition == partition);
        assert!((0..8).all(used), "{topic}: the keys did not reach all partitions");
    }
}
