//! The hand-written reply against the crate's decoder and encoder, in every version.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::FetchResponse as WireResponse;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use proptest::prelude::*;

use super::{PartitionAnswer, encode, refuse_zstd};
use crate::broker::FetchedPartition;
use crate::kafka::api::ApiRow;
use crate::kafka::fetch_session::{TopicRef, Wanted};
use crate::model::Uuid;

fn row() -> &'static ApiRow {
    ApiRow::of_key(1).unwrap()
}

fn wanted(topic: TopicRef, partition: i32) -> Wanted {
    Wanted { topic, partition, offset: 0, max_bytes: 1 << 20, current_leader_epoch: -1 }
}

fn answer(
    error: i16,
    offsets: (i64, i64, i64),
    aborted: &[(i64, i64)],
    chunks: &[Vec<u8>],
) -> PartitionAnswer {
    let chunks: Vec<Bytes> = chunks.iter().cloned().map(Bytes::from).collect();
    PartitionAnswer {
        error,
        fetched: FetchedPartition {
            error: None,
            high_watermark: offsets.0,
            last_stable_offset: offsets.1,
            log_start_offset: offsets.2,
            aborted_transactions: aborted.to_vec(),
            size_bytes: chunks.iter().map(Bytes::len).sum(),
            chunks,
        },
    }
}

/// Error, offsets, aborted transactions, chunks.
type Given = (i16, (i64, i64, i64), Vec<(i64, i64)>, Vec<Vec<u8>>);

proptest! {
    #[test]
    fn the_crate_reads_and_writes_every_reply_alike(
        version in 4i16..=18,
        error: i16,
        session_id: i32,
        aborted_is_null: bool,
        topics in proptest::collection::vec(
            proptest::collection::vec(
                (
                    any::<i16>(),
                    any::<(i64, i64, i64)>(),
                    proptest::collection::vec(any::<(i64, i64)>(), 0..3),
                    proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..4),
                ),
                1..4,
            ),
            0..4,
        ),
    ) {
        let topics: Vec<Vec<Given>> = topics;
        let mut partitions = Vec::new();
        let mut answers = Vec::new();
        for (topic, given) in topics.iter().enumerate() {
            let topic = if version >= 13 {
                TopicRef::Id(Uuid::from_u128(topic as u128 + 1))
            } else {
                TopicRef::Name(StrBytes::from_string(format!("topic-{topic}")))
            };
            for (partition, (error, offsets, aborted, chunks)) in given.iter().enumerate() {
                partitions.push(wanted(topic.clone(), partition as i32));
                answers.push(answer(*error, *offsets, aborted, chunks));
            }
        }
        let flexible = row().is_flexible(version);
        let writer = encode(version, flexible, error, session_id, aborted_is_null, &partitions, answers);
        let (chunks, size_bytes) = writer.finish();
        let bytes = chunks.concat();
        prop_assert_eq!(bytes.len(), size_bytes);
        let mut rest = Bytes::from(bytes.clone());
        let read = WireResponse::decode(&mut rest, version).unwrap();
        prop_assert!(rest.is_empty());
        if version >= 7 {
            prop_assert_eq!((read.error_code, read.session_id), (error, session_id));
        }
        prop_assert_eq!(read.responses.len(), topics.len());
        for (read, given) in read.responses.iter().zip(&topics) {
            prop_assert_eq!(read.partitions.len(), given.len());
            for (read, (error, offsets, aborted, chunks)) in read.partitions.iter().zip(given) {
                prop_assert_eq!(read.error_code, *error);
                prop_assert_eq!((read.high_watermark, read.last_stable_offset), (offsets.0, offsets.1));
                prop_assert_eq!(read.records.as_deref(), Some(&chunks.concat()[..]));
                let is_null = aborted_is_null || *error != 0;
                prop_assert_eq!(read.aborted_transactions.as_ref().map(Vec::len), (!is_null).then_some(aborted.len()));
            }
        }
        let mut again = BytesMut::new();
        read.encode(&mut again, version).unwrap();
        prop_assert_eq!(&again[..], &bytes[..]);
    }
}

#[test]
fn record_chunks_are_handed_on_as_they_are() {
    let chunk = Bytes::from(vec![5; 4096]);
    let mut given = answer(0, (1, 1, 0), &[], &[]);
    given.fetched.chunks = vec![chunk.clone(), chunk.clone()];
    let topic = TopicRef::Name(StrBytes::from_static_str("orders"));
    let (chunks, _) = encode(11, false, 0, 0, true, &[wanted(topic, 0)], vec![given]).finish();
    assert_eq!(chunks.iter().filter(|sent| sent.as_ptr() == chunk.as_ptr()).count(), 2);
}

#[test]
fn zstd_is_kept_from_clients_that_do_not_know_it() {
    let mut batch = vec![0; 61];
    batch[8..12].copy_from_slice(&49i32.to_be_bytes());
    batch[16] = 2; // magic
    let mut plain = answer(0, (1, 1, 0), &[], &[batch.clone(), batch.clone()]);
    refuse_zstd(&mut plain);
    assert_eq!((plain.error, plain.fetched.chunks.len()), (0, 2));
    let mut compressed = batch.clone();
    compressed[22] = 4; // attributes: zstd
    let mut zstd = answer(0, (1, 1, 0), &[], &[batch.clone(), [batch, compressed].concat()]);
    refuse_zstd(&mut zstd);
    assert_eq!((zstd.error, zstd.fetched.chunks.len()), (76, 0));
}
