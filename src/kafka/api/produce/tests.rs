//! The hand-written codec against the crate's, in every version.

use bytes::{Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ProduceRequest as WireRequest, ProduceResponse as WireResponse, TopicName, TransactionalId,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use proptest::prelude::*;

use super::{Produced, Response, ResponsePartition, ResponseTopic, decode, encode};
use crate::broker::{BrokerError, PartitionProduced};
use crate::kafka::api::ApiRow;
use crate::kafka::error_code;
use crate::model::Uuid;

fn row() -> &'static ApiRow {
    ApiRow::of_key(0).unwrap()
}

type Partitions = Vec<(i32, Option<Vec<u8>>)>;

proptest! {
    #[test]
    fn a_request_of_the_crates_encoder_is_read_alike(
        version in 3i16..=13,
        transactional_id in proptest::option::of("[a-z]{0,9}"),
        acks: i16,
        timeout_ms: i32,
        topics in proptest::collection::vec(
            ("[a-z]{0,200}", any::<u128>(), proptest::collection::vec(
                (any::<i32>(), proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300))), 0..4)),
            0..4,
        ),
    ) {
        let topics: Vec<(String, u128, Partitions)> = topics;
        let mut sent = WireRequest::default()
            .with_transactional_id(transactional_id.clone().map(|id| TransactionalId(StrBytes::from_string(id))))
            .with_acks(acks)
            .with_timeout_ms(timeout_ms);
        for (name, id, partitions) in &topics {
            let partition_data = partitions.iter().map(|(index, records)| {
                PartitionProduceData::default()
                    .with_index(*index)
                    .with_records(records.clone().map(Bytes::from))
            });
            let topic = TopicProduceData::default().with_partition_data(partition_data.collect());
            sent.topic_data.push(if version >= 13 {
                topic.with_topic_id(Uuid::from_u128(*id))
            } else {
                topic.with_name(TopicName(StrBytes::from_string(name.clone())))
            });
        }
        if version >= 9 {
            sent.unknown_tagged_fields.insert(77, Bytes::from_static(b"from the future"));
        }
        let mut body = BytesMut::new();
        sent.encode(&mut body, version).unwrap();
        // Cut anywhere, it is refused and nothing panics.
        for end in 0..body.len() {
            prop_assert!(decode(BytesMut::from(&body[..end]), version, row().is_flexible(version)).is_err());
        }
        let read = decode(body, version, row().is_flexible(version)).unwrap();
        prop_assert_eq!(read.transactional_id.map(|id| id.to_string()), transactional_id);
        prop_assert_eq!((read.acks, read.timeout_ms), (acks, timeout_ms));
        prop_assert_eq!(read.topics.len(), topics.len());
        for (read, (name, id, partitions)) in read.topics.into_iter().zip(topics) {
            if version >= 13 {
                prop_assert_eq!(read.id, Uuid::from_u128(id));
            } else {
                prop_assert_eq!(&*read.name, name.as_str());
            }
            let read: Partitions = read
                .partitions
                .into_iter()
                .map(|partition| (partition.index, partition.records.map(|records| records.to_vec())))
                .collect();
            prop_assert_eq!(read, partitions);
        }
    }

    #[test]
    fn rubbish_is_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), version in 3i16..=13) {
        let _ = decode(BytesMut::from(&bytes[..]), version, row().is_flexible(version));
    }
}

#[test]
fn the_crates_decoder_reads_every_reply_alike() {
    let done = PartitionProduced { base_offset: Ok(70_000), log_append_time_ms: 1234, log_start_offset: 17 };
    let failed = PartitionProduced {
        base_offset: Err(BrokerError::CorruptMessage("CRC".to_owned())),
        log_append_time_ms: -1,
        log_start_offset: -1,
    };
    let id = Uuid::from_u128(7);
    for version in row().min..=row().max {
        let mut response = Response {
            topics: vec![
                ResponseTopic {
                    name: StrBytes::from_static_str("orders"),
                    id,
                    partitions: vec![
                        ResponsePartition { index: 3, result: Produced::Asked },
                        ResponsePartition {
                            index: 9,
                            result: Produced::Refused(
                                ResponseError::UnknownTopicOrPartition,
                                "no such".to_owned(),
                            ),
                        },
                        ResponsePartition { index: 4, result: Produced::Asked },
                    ],
                },
                ResponseTopic { name: StrBytes::from_static_str("empty"), id, partitions: Vec::new() },
            ],
        };
        assert_eq!(response.first_error(), Some(ResponseError::UnknownServerError));
        response.complete(vec![done.clone(), failed.clone()]);
        let (chunks, size_bytes) = encode(&response, version, row().is_flexible(version)).finish();
        let mut bytes: Bytes = chunks.concat().into();
        assert_eq!(bytes.len(), size_bytes);
        let read = WireResponse::decode(&mut bytes, version).unwrap();
        assert!(bytes.is_empty(), "version {version}");
        assert_eq!(read.responses.len(), 2);
        if version >= 13 {
            assert_eq!(read.responses[0].topic_id, id);
        } else {
            assert_eq!(&*read.responses[0].name, "orders");
        }
        let partitions = &read.responses[0].partition_responses;
        let codes: Vec<(i32, i16)> =
            partitions.iter().map(|partition| (partition.index, partition.error_code)).collect();
        assert_eq!(codes, [(3, error_code::NONE), (9, 3), (4, 2)]);
        assert_eq!((partitions[0].base_offset, partitions[0].log_append_time_ms), (70_000, 1234));
        assert_eq!((partitions[1].base_offset, partitions[2].base_offset), (-1, -1));
        assert_eq!(partitions[0].log_start_offset, if version >= 5 { 17 } else { -1 });
        let message = partitions[2].error_message.as_deref();
        assert_eq!(message, if version >= 8 { Some("CRC") } else { None });
        // The crate's encoder makes the same bytes.
        let mut again = BytesMut::new();
        read.encode(&mut again, version).unwrap();
        assert_eq!(again, chunks.concat(), "version {version}");
    }
}

#[test]
fn records_are_split_off_without_a_copy() {
    let mut body = BytesMut::new();
    WireRequest::default()
        .with_topic_data(vec![TopicProduceData::default().with_partition_data(vec![
            PartitionProduceData::default().with_records(Some(Bytes::from(vec![7; 1000]))),
        ])])
        .encode(&mut body, 3)
        .unwrap();
    let range = body.as_ptr_range();
    let mut request = decode(body, 3, false).unwrap();
    let mut records = request.topics[0].partitions[0].records.take().unwrap();
    assert!(range.contains(&records.as_ptr()));
    records[0] = 1; // and it is ours to change
}
