//! A request and its reply for every API and version that is served, as text in `tests/golden/`.
//!
//! One server answers all of them in a fixed order. Of each reply it is checked that the `kafka-protocol` crate reads
//! all of its bytes and would write the same ones; the file keeps the request's bytes and what the reply says, with
//! what differs from run to run masked. `UPDATE_GOLDEN=1 cargo test --test wire_golden` writes the files anew.

#[path = "golden/requests.rs"]
#[allow(dead_code)] // shared with bad_input.rs
mod requests;
#[path = "golden/server.rs"]
#[allow(dead_code)] // shared with bad_input.rs
mod server;

use std::collections::BTreeSet;
use std::fmt::{Debug, Write};
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{self as m, ApiKey, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable};
use requests::{Known, TOPIC, connect, exchange, request};
use server::Server;

/// Options that make replies the same in every run.
const OPTIONS: &[&str] = &[
    "shards=1",
    "group.initial.rebalance.delay.ms=0",
    "offsets.topic.num.partitions=1",
    "transaction.state.log.num.partitions=1",
];

/// Characters of a cluster id.
const CLUSTER_ID_LENGTH: usize = 22;

#[test]
fn every_api_and_version_answers_as_before() {
    let server = Server::start(OPTIONS);
    let mut stream = connect(&server.address);
    let known = prepare(&mut stream);
    let mut masks = vec![
        (server.data_dir.path().display().to_string(), "DATA_DIR"),
        (server.address.rsplit_once(':').unwrap().1.to_owned(), "PORT"),
    ];
    let mut written = BTreeSet::new();
    let mut different = Vec::new();
    for row in logstreams::kafka::api_rows() {
        for version in row.min..=row.max {
            let sent = request(row.key(), version, known);
            assert_eq!(logstreams::kafka::check_request(&sent), Ok(()), "{} v{version}", row.name);
            let Some(reply) = exchange(&mut stream, &sent) else {
                panic!("{} v{version}: the server closed the connection", row.name);
            };
            let said = read(row.key(), version, &reply);
            // Told by Metadata before any other reply names it: 22 characters of base64.
            let quoted = said.split("cluster_id: ").nth(1).and_then(|rest| rest.split('"').nth(1));
            if let Some(cluster_id) = quoted.filter(|quoted| quoted.len() == CLUSTER_ID_LENGTH) {
                masks.push((cluster_id.to_owned(), "CLUSTER_ID"));
            }
            let sent_text = mask_bytes(&sent, known);
            let text = format!(
                "{} version {version}\n\nrequest\n{sent_text}\nreply\n{}\n",
                row.name,
                mask(&said, &masks)
            );
            let file = format!("{:02}_{}_v{version:02}.txt", row.key(), row.name);
            if !agrees(&golden_dir().join(&file), &text) {
                different.push(format!("{file}\n{text}"));
            }
            written.insert(file);
        }
    }
    for entry in std::fs::read_dir(golden_dir()).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        if file.ends_with(".txt") && !written.contains(&file) {
            assert!(is_update(), "tests/golden/{file} belongs to no API; UPDATE_GOLDEN=1 removes it");
            std::fs::remove_file(golden_dir().join(file)).unwrap();
        }
    }
    assert!(different.is_empty(), "differs (UPDATE_GOLDEN=1 accepts):\n{}", different.join("\n"));
}

/// Makes the topics that the requests are about.
fn prepare(stream: &mut std::net::TcpStream) -> Known {
    let topic_id = requests::create_topic(stream, TOPIC, 1);
    requests::create_topic(stream, "golden-grows", 1);
    Known { topic_id }
}

fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn is_update() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some()
}

fn agrees(path: &Path, text: &str) -> bool {
    if is_update() {
        std::fs::write(path, text).unwrap();
    }
    std::fs::read_to_string(path).is_ok_and(|before| before == text)
}

/// What a reply says, after checking that its bytes are what the crate would write.
fn read(key: i16, version: i16, reply: &[u8]) -> String {
    fn body<R: Decodable + Encodable + Debug>(mut rest: Bytes, version: i16) -> String {
        let bytes = rest.clone();
        let response = R::decode(&mut rest, version).unwrap();
        assert!(rest.is_empty(), "{} bytes behind the reply", rest.len());
        let mut again = BytesMut::new();
        response.encode(&mut again, version).unwrap();
        assert_eq!(again, bytes, "the crate would write other bytes");
        format!("{response:#?}")
    }
    // The crate ends at version 10 of ListOffsets, 1 of WriteTxnMarkers, ShareFetch and ShareAcknowledge and 0 of
    // DescribeShareGroupOffsets; the next ones have their form.
    let served = version;
    let version = match key {
        2 => version.min(10),
        27 | 78 | 79 => version.min(1),
        90 => 0,
        _ => version,
    };
    macro_rules! bodies {
        ($rest:ident, $($key:literal $response:ident),* $(,)?) => {
            match key {
                $($key => body::<m::$response>($rest, version),)*
                _ => panic!("no response type for api key {key}"),
            }
        };
    }
    let header_version = ApiKey::try_from(key).unwrap().response_header_version(version);
    let mut rest = Bytes::copy_from_slice(reply);
    let header = ResponseHeader::decode(&mut rest, header_version).unwrap();
    assert_eq!(header.correlation_id, 7);
    if key == 79 && served >= 2 {
        // Version 2 has the duration of locks behind throttle time, error and (no) message.
        rest = [&rest[..7], &rest[11..]].concat().into();
    }
    if key == 90 && served >= 1 {
        // Version 1 has the lag of the one partition before the ends of partition, topic, group and reply.
        let end = rest.len() - 10;
        rest = [&rest[..end - 8], &rest[end..]].concat().into();
    }
    bodies!(
        rest, 0 ProduceResponse, 1 FetchResponse, 2 ListOffsetsResponse, 3 MetadataResponse,
        8 OffsetCommitResponse, 9 OffsetFetchResponse, 10 FindCoordinatorResponse, 11 JoinGroupResponse,
        12 HeartbeatResponse, 13 LeaveGroupResponse, 14 SyncGroupResponse, 15 DescribeGroupsResponse,
        16 ListGroupsResponse, 18 ApiVersionsResponse, 19 CreateTopicsResponse, 20 DeleteTopicsResponse,
        21 DeleteRecordsResponse, 22 InitProducerIdResponse, 23 OffsetForLeaderEpochResponse,
        24 AddPartitionsToTxnResponse, 25 AddOffsetsToTxnResponse, 26 EndTxnResponse,
        27 WriteTxnMarkersResponse, 28 TxnOffsetCommitResponse,
        29 DescribeAclsResponse, 30 CreateAclsResponse, 31 DeleteAclsResponse,
        32 DescribeConfigsResponse, 33 AlterConfigsResponse, 35 DescribeLogDirsResponse,
        37 CreatePartitionsResponse, 42 DeleteGroupsResponse, 43 ElectLeadersResponse,
        44 IncrementalAlterConfigsResponse, 46 ListPartitionReassignmentsResponse,
        47 OffsetDeleteResponse, 48 DescribeClientQuotasResponse, 50 DescribeUserScramCredentialsResponse,
        55 DescribeQuorumResponse, 57 UpdateFeaturesResponse, 60 DescribeClusterResponse,
        61 DescribeProducersResponse, 65 DescribeTransactionsResponse, 66 ListTransactionsResponse,
        68 ConsumerGroupHeartbeatResponse, 69 ConsumerGroupDescribeResponse,
        74 ListConfigResourcesResponse, 75 DescribeTopicPartitionsResponse,
        76 ShareGroupHeartbeatResponse, 77 ShareGroupDescribeResponse, 78 ShareFetchResponse,
        79 ShareAcknowledgeResponse, 90 DescribeShareGroupOffsetsResponse, 91 AlterShareGroupOffsetsResponse,
        92 DeleteShareGroupOffsetsResponse,
    )
}

/// Puts words in the place of what differs from run to run, and leaves out empty tagged fields.
fn mask(said: &str, masks: &[(String, &str)]) -> String {
    let mut text = String::new();
    for line in said.lines() {
        if line.trim() == "unknown_tagged_fields: {}," {
            continue;
        }
        let mut line = line.to_owned();
        for (value, word) in masks {
            line = line.replace(value, word);
        }
        for field in
            ["total_bytes: ", "usable_bytes: ", "last_fetch_timestamp: ", "last_caught_up_timestamp: "]
        {
            if let Some((before, value)) = line.split_once(field)
                && value != "-1,"
            {
                line = format!("{before}{field}SOME,");
            }
        }
        let _ = writeln!(text, "{}", mask_uuids(&line));
    }
    text
}

/// Masks random ids: 8-4-4-4-12 hexadecimal digits.
fn mask_uuids(line: &str) -> String {
    const SHAPE: [usize; 5] = [8, 4, 4, 4, 12];
    const LENGTH: usize = 36;
    let mut line = line.to_owned();
    let mut at = 0;
    while at + LENGTH <= line.len() {
        let is_uuid = line.get(at..at + LENGTH).is_some_and(|part| {
            let groups: Vec<&str> = part.split('-').collect();
            groups.iter().map(|group| group.len()).eq(SHAPE)
                && groups.iter().all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()))
                && !part.starts_with("00000000-0000-0000")
        });
        if is_uuid {
            line.replace_range(at..at + LENGTH, "UUID");
        }
        at += 1;
    }
    line
}

/// The request's bytes, 16 to a line, with the topic's id masked.
fn mask_bytes(bytes: &[u8], known: Known) -> String {
    let id = known.topic_id.as_bytes();
    let id_at = bytes.windows(id.len()).position(|window| window == id);
    let mut text = String::new();
    for (row, line) in bytes.chunks(16).enumerate() {
        let words = line.iter().enumerate().map(|(column, byte)| {
            let at = row * 16 + column;
            match id_at {
                Some(start) if (start..start + id.len()).contains(&at) => "id".to_owned(),
                _ => format!("{byte:02x}"),
            }
        });
        let _ = writeln!(text, "{}", words.collect::<Vec<_>>().join(" "));
    }
    text
}
