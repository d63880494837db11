//! What it costs to take a request apart and to build the reply, per message.
//!
//! Decoding is `kafka::check_request`: frame, header and body as a connection reads them, with one copy of the frame
//! that a connection does not make; "copy of the frame" is that copy alone. Records are one batch of 128 bytes a
//! partition, which decoding does not look into. Replies to Produce and Fetch are built and framed as the server does,
//! from the broker's answers on; that to Metadata is encoded by the `kafka-protocol` crate, as all others are.

#[path = "support/mod.rs"]
mod support;

use std::hint::black_box;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    BrokerId, FetchRequest, MetadataRequest, MetadataResponse, ProduceRequest, TopicName,
};
use kafka_protocol::protocol::{Encodable, Request, StrBytes};
use logstreams::base::clock;
use logstreams::kafka;
use logstreams::model::Uuid;
use support::{Series, Table, scaled};

/// The newest version of each, as current clients speak them.
const PRODUCE_VERSION: i16 = 13;
const FETCH_VERSION: i16 = 17;
const METADATA_VERSION: i16 = 13;
const PARTITIONS: [i32; 2] = [1, 100];
const BATCH_BYTES: usize = 128;
/// Bytes that a round handles, at about a nanosecond each.
const ROUND_BYTES: usize = 20_000_000;

struct Case {
    name: String,
    bytes: usize,
    work: Box<dyn Fn()>,
    nanoseconds: Series,
}

impl Case {
    fn new(name: String, bytes: usize, work: impl Fn() + 'static) -> Self {
        Case { name, bytes, work: Box::new(work), nanoseconds: Series::default() }
    }

    fn round(&mut self) {
        let times = scaled((ROUND_BYTES / (self.bytes + 100)).max(1), 1);
        let start = clock::monotonic();
        for _ in 0..times {
            (self.work)();
        }
        self.nanoseconds.push(start.elapsed().as_secs_f64() * 1e9 / times as f64);
    }
}

/// A whole request frame.
fn frame<R: Request>(request: &R, version: i16) -> BytesMut {
    let mut frame = BytesMut::new();
    frame.put_i32(0); // the size comes when it is known
    frame.put_i16(R::KEY);
    frame.put_i16(version);
    frame.put_i32(7); // correlation id
    frame.put_i16(5);
    frame.put_slice(b"bench"); // client id
    frame.put_u8(0); // tagged fields
    request.encode(&mut frame, version).expect("the crate can encode it");
    let size = i32::try_from(frame.len() - size_of::<i32>()).expect("a small frame");
    frame[..size_of::<i32>()].copy_from_slice(&size.to_be_bytes());
    frame
}

fn produce(partitions: i32) -> BytesMut {
    let records = support::batch(BATCH_BYTES, BATCH_BYTES).freeze();
    let partitions = (0..partitions)
        .map(|index| PartitionProduceData::default().with_index(index).with_records(Some(records.clone())));
    let topic = TopicProduceData::default().with_topic_id(Uuid::from_u128(1));
    let topic = topic.with_partition_data(partitions.collect());
    frame(&ProduceRequest::default().with_acks(-1).with_topic_data(vec![topic]), PRODUCE_VERSION)
}

fn fetch(partitions: i32) -> BytesMut {
    let partitions = (0..partitions)
        .map(|index| FetchPartition::default().with_partition(index).with_partition_max_bytes(1 << 20));
    let topic = FetchTopic::default().with_topic_id(Uuid::from_u128(1)).with_partitions(partitions.collect());
    frame(&FetchRequest::default().with_max_bytes(50 << 20).with_topics(vec![topic]), FETCH_VERSION)
}

fn topic_name(number: i32) -> TopicName {
    TopicName(StrBytes::from_string(format!("orders-{number}")))
}

fn metadata(topics: i32) -> BytesMut {
    let topics =
        (0..topics).map(|number| MetadataRequestTopic::default().with_name(Some(topic_name(number))));
    frame(&MetadataRequest::default().with_topics(Some(topics.collect())), METADATA_VERSION)
}

/// One topic of so many partitions on one broker.
fn metadata_response(partitions: i32) -> MetadataResponse {
    let broker = MetadataResponseBroker::default()
        .with_node_id(BrokerId(1))
        .with_host(StrBytes::from_static_str("localhost"))
        .with_port(9092);
    let partitions = (0..partitions).map(|index| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(BrokerId(1))
            .with_replica_nodes(vec![BrokerId(1)])
            .with_isr_nodes(vec![BrokerId(1)])
    });
    let topic = MetadataResponseTopic::default()
        .with_name(Some(topic_name(0)))
        .with_topic_id(Uuid::from_u128(1))
        .with_partitions(partitions.collect());
    MetadataResponse::default().with_brokers(vec![broker]).with_topics(vec![topic])
}

fn decoding(name: &str, request: BytesMut) -> [Case; 2] {
    kafka::check_request(&request).expect("a legal request");
    let copied = request.clone();
    let bytes = request.len();
    [
        Case::new(format!("decode {name}"), bytes, move || {
            kafka::check_request(black_box(&request)).expect("a legal request");
        }),
        Case::new("  copy of the frame".to_owned(), bytes, move || {
            black_box(BytesMut::from(black_box(&copied[..])));
        }),
    ]
}

fn replying(name: &str, request: BytesMut, partitions: i32) -> Case {
    let records: Bytes = support::batch(BATCH_BYTES, BATCH_BYTES).freeze();
    let reply = move || {
        // A cheap part of the measurement: the frame is copied for its header.
        kafka::sample_reply(request.clone(), partitions, &records).expect("a legal request")
    };
    let bytes = reply().iter().map(Bytes::len).sum();
    Case::new(format!("reply to {name}"), bytes, move || {
        black_box(reply());
    })
}

fn main() {
    let mut cases = Vec::new();
    for partitions in PARTITIONS {
        let name = |api: &str, version: i16, of: &str| format!("{api} v{version}, {partitions} {of}");
        let (produce_name, fetch_name) =
            (name("Produce", PRODUCE_VERSION, "partitions"), name("Fetch", FETCH_VERSION, "partitions"));
        cases.extend(decoding(&produce_name, produce(partitions)));
        cases.extend(decoding(&fetch_name, fetch(partitions)));
        cases.extend(decoding(&name("Metadata", METADATA_VERSION, "topics"), metadata(partitions)));
        // The header of the smallest request will do.
        cases.push(replying(&produce_name, produce(1), partitions));
        cases.push(replying(&fetch_name, fetch(1), partitions));
        let response = metadata_response(partitions);
        let bytes = response.compute_size(METADATA_VERSION).expect("it can be encoded");
        cases.push(Case::new(
            format!("reply to {}", name("Metadata", METADATA_VERSION, "partitions")),
            bytes,
            move || {
                let mut frame = BytesMut::with_capacity(
                    response.compute_size(METADATA_VERSION).expect("it can be encoded"),
                );
                black_box(&response).encode(&mut frame, METADATA_VERSION).expect("it can be encoded");
                black_box(frame);
            },
        ));
    }
    support::interleave(&mut cases, Case::round);
    let mut table = Table::new(&["work", "frame bytes", "ns"]);
    for case in &cases {
        table.row(&[&case.name, &case.bytes, &case.nanoseconds]);
    }
    table.print("Requests taken apart, replies built");
}
