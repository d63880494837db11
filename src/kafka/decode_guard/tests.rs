//! What the guard lets through and what it refuses; `tests/bad_input.rs` tries it on every API and version.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{FetchRequest, MetadataRequest, TopicName};
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::{Guard, NO_LENGTH, SLACK, VARINT_BYTES_MAX, decode};

fn guard(bytes: &[u8]) -> Guard {
    Guard {
        bytes: Bytes::copy_from_slice(bytes),
        replace: true,
        replaced: false,
        varint: [0; VARINT_BYTES_MAX],
        varint_bytes: 0,
    }
}

#[test]
fn large_plain_integers_survive_the_second_pass() {
    // Every i32 of a fetch looks like a hostile count; none is one.
    for version in 4..=18 {
        let partition = FetchPartition::default()
            .with_partition(i32::MAX)
            .with_partition_max_bytes(i32::MAX)
            .with_fetch_offset(i64::MAX);
        let topic = FetchTopic::default().with_partitions(vec![partition]);
        let sent = FetchRequest::default()
            .with_max_wait_ms(i32::MAX)
            .with_min_bytes(-2)
            .with_max_bytes(i32::MAX)
            .with_topics(vec![topic]);
        let mut body = BytesMut::new();
        sent.encode(&mut body, version).unwrap();
        assert_eq!(decode::<FetchRequest>(body.freeze(), version).unwrap(), sent);
    }
}

#[test]
fn a_hostile_count_is_an_error_in_either_form() {
    let mut plain = BytesMut::new();
    plain.put_i32(i32::MAX);
    assert!(decode::<MetadataRequest>(plain.freeze(), 1).is_err());
    let compact = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0]);
    assert!(decode::<MetadataRequest>(compact, 9).is_err());
}

#[test]
fn a_true_count_is_taken_however_many_elements_it_has() {
    for version in [1, 9] {
        let topic =
            MetadataRequestTopic::default().with_name(Some(TopicName(StrBytes::from_static_str("t"))));
        let sent = MetadataRequest::default().with_topics(Some(vec![topic; 100_000]));
        let mut body = BytesMut::new();
        sent.encode(&mut body, version).unwrap();
        assert_eq!(decode::<MetadataRequest>(body.freeze(), version).unwrap(), sent);
    }
}

#[test]
fn a_count_may_exceed_the_bytes_left_by_the_slack_and_no_more() {
    let bytes_behind = 3;
    for (over, is_replaced) in [(0, false), (SLACK, false), (SLACK + 1, true)] {
        let count = i32::try_from(bytes_behind + over).unwrap();
        let mut guard = guard(&[&count.to_be_bytes()[..], &[0; 3]].concat());
        let expected = if is_replaced { NO_LENGTH } else { count };
        assert_eq!(guard.try_get_i32().unwrap(), expected);
        assert_eq!(guard.replaced, is_replaced);
    }
}

#[test]
fn a_boolean_before_a_varint_does_not_hide_it() {
    // The boolean 0x80 looks like the beginning of a varint, so that the real one would seem to end early.
    let hostile = [0x80, 0x80, 0x80, 0x80, 0x80, 0x0f];
    let mut guard = guard(&hostile);
    let outcome: Result<Vec<u8>, _> = hostile.iter().map(|_| guard.try_get_u8()).collect();
    assert!(outcome.is_err());
}

#[test]
fn a_varint_that_does_not_end_is_judged_as_the_crate_reads_it() {
    // The crate stops after five bytes whether or not the fifth says that more follow.
    let mut guard = guard(&[0xff; 10]);
    let outcome: Result<Vec<u8>, _> = (0..5).map(|_| guard.try_get_u8()).collect();
    assert!(outcome.is_err());
}
