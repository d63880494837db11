//! The schema against bytes that Kafka wrote, and against rubbish.

use proptest::prelude::*;

use super::{
    Bytes, GroupValue, MemberValue, OffsetValue, SchemaError, StateKey, group_key, offset_key,
    subscribed_topics,
};
use crate::model::TopicName;

/// What Kafka 4.3.1's generated classes wrote for the values below, one line per version.
const KAFKA_OFFSET_VALUES: [&str; 5] = [
    "0000000000000000126700046e6f74650000018bcfe5687b",
    "0001000000000000126700046e6f74650000018bcfe5687bffffffffffffffff",
    "0002000000000000126700046e6f74650000018bcfe5687b",
    "000300000000000012670000000700046e6f74650000018bcfe5687b",
    "0004000000000000126700000007056e6f74650000018bcfe5687b01001000000000000000010000000000000002",
];
const KAFKA_GROUP_VALUES: [&str; 5] = [
    "00000008636f6e73756d657200000005000572616e676500026d310000000100026d31000163000a2f3132372e302e302e310000afc800000003010203000000020405",
    "00010008636f6e73756d657200000005000572616e676500026d310000000100026d31000163000a2f3132372e302e302e310000ea600000afc800000003010203000000020405",
    "00020008636f6e73756d657200000005000572616e676500026d310000018bcfe569c80000000100026d31000163000a2f3132372e302e302e310000ea600000afc800000003010203000000020405",
    "00030008636f6e73756d657200000005000572616e676500026d310000018bcfe569c80000000100026d3100026931000163000a2f3132372e302e302e310000ea600000afc800000003010203000000020405",
    "000409636f6e73756d6572000000050672616e6765036d310000018bcfe569c802036d3103693102630b2f3132372e302e302e310000ea600000afc8040102030304050000",
];

fn from_hex(hex: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).unwrap();
    hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) * 16 + digit(pair[1])).collect()
}

fn kafkas_offset() -> OffsetValue {
    OffsetValue {
        offset: 4711,
        leader_epoch: 7,
        metadata: "note".to_owned(),
        commit_timestamp_ms: 1_700_000_000_123,
        expire_timestamp_ms: None,
    }
}

fn kafkas_group() -> GroupValue {
    GroupValue {
        protocol_type: "consumer".to_owned(),
        generation_id: 5,
        protocol_name: Some("range".to_owned()),
        leader: Some("m1".to_owned()),
        state_timestamp_ms: Some(1_700_000_000_456),
        members: vec![MemberValue {
            member_id: "m1".to_owned(),
            group_instance_id: Some("i1".to_owned()),
            client_id: "c".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
            rebalance_timeout_ms: 60_000,
            session_timeout_ms: 45_000,
            subscription: Bytes::from_static(&[1, 2, 3]),
            assignment: Bytes::from_static(&[4, 5]),
        }],
    }
}

#[test]
fn offset_values_of_every_version_kafka_wrote_are_read() {
    for (version, hex) in KAFKA_OFFSET_VALUES.iter().enumerate() {
        let mut expected = kafkas_offset();
        expected.leader_epoch = if version >= 3 { 7 } else { -1 };
        assert_eq!(OffsetValue::decode(&from_hex(hex)), Ok(expected), "version {version}");
    }
}

#[test]
fn group_values_of_every_version_kafka_wrote_are_read() {
    for (version, hex) in KAFKA_GROUP_VALUES.iter().enumerate() {
        let mut expected = kafkas_group();
        if version < 3 {
            expected.members[0].group_instance_id = None;
        }
        if version < 2 {
            expected.state_timestamp_ms = None;
        }
        if version < 1 {
            expected.members[0].rebalance_timeout_ms = expected.members[0].session_timeout_ms;
        }
        assert_eq!(GroupValue::decode(&from_hex(hex)), Ok(expected), "version {version}");
    }
}

#[test]
fn what_is_written_is_what_kafka_writes() {
    assert_eq!(kafkas_offset().encode(), from_hex(KAFKA_OFFSET_VALUES[3]));
    assert_eq!(kafkas_group().encode(), from_hex(KAFKA_GROUP_VALUES[3]));
    assert_eq!(
        offset_key("billing", "orders", 3),
        from_hex("0001000762696c6c696e6700066f726465727300000003")
    );
    assert_eq!(group_key("billing"), from_hex("0002000762696c6c696e67"));
}

#[test]
fn keys_of_other_kinds_of_groups_are_skipped() {
    for version in 3i16..=40 {
        assert_eq!(StateKey::decode(&version.to_be_bytes()), Ok(None));
    }
    assert_eq!(StateKey::decode(&[0]), Err(SchemaError::CutShort));
}

#[test]
fn a_value_of_a_later_version_is_refused_by_name() {
    assert_eq!(OffsetValue::decode(&[0, 5, 0, 0]), Err(SchemaError::ValueVersion(5)));
    assert_eq!(GroupValue::decode(&[0xff, 0xff]), Err(SchemaError::ValueVersion(-1)));
}

#[test]
fn a_count_of_billions_takes_no_memory() {
    let mut bytes = kafkas_group().encode().to_vec();
    let count_at = 2 + 2 + 8 + 4 + 2 + 5 + 2 + 2 + 8;
    bytes[count_at..count_at + 4].copy_from_slice(&i32::MAX.to_be_bytes());
    assert_eq!(GroupValue::decode(&bytes), Err(SchemaError::CutShort));
}

#[test]
fn the_topics_of_a_subscription_are_read_whatever_follows_them() {
    let mut metadata = vec![0, 3, 0, 0, 0, 2, 0, 1, b'a', 0, 2, b'b', b'c'];
    assert_eq!(subscribed_topics(&metadata), Some(vec!["a".to_owned(), "bc".to_owned()]));
    metadata.extend_from_slice(&[0xff; 9]);
    assert_eq!(subscribed_topics(&metadata), Some(vec!["a".to_owned(), "bc".to_owned()]));
    assert_eq!(subscribed_topics(&metadata[..5]), None);
    assert_eq!(subscribed_topics(&[]), None);
}

fn any_offset() -> impl Strategy<Value = OffsetValue> {
    (any::<i64>(), any::<i32>(), ".{0,40}", any::<i64>(), proptest::option::of(0..i64::MAX)).prop_map(
        |(offset, leader_epoch, metadata, commit_timestamp_ms, expire_timestamp_ms)| OffsetValue {
            offset,
            // An expiring value has no room for the epoch.
            leader_epoch: if expire_timestamp_ms.is_some() { -1 } else { leader_epoch },
            metadata,
            commit_timestamp_ms,
            expire_timestamp_ms,
        },
    )
}

fn any_bytes() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn any_member() -> impl Strategy<Value = MemberValue> {
    let names = (".{0,20}", proptest::option::of(".{0,20}"), ".{0,20}", ".{0,20}");
    (names, 0..i32::MAX, 0..i32::MAX, any_bytes(), any_bytes()).prop_map(
        |(names, rebalance_timeout_ms, session_timeout_ms, subscription, assignment)| MemberValue {
            member_id: names.0,
            group_instance_id: names.1,
            client_id: names.2,
            client_host: names.3,
            rebalance_timeout_ms,
            session_timeout_ms,
            subscription,
            assignment,
        },
    )
}

fn any_group() -> impl Strategy<Value = GroupValue> {
    let protocol = proptest::option::of(".{0,20}");
    let leader = proptest::option::of(".{0,20}");
    let timestamp = proptest::option::of(0..i64::MAX);
    let members = proptest::collection::vec(any_member(), 0..5);
    (".{0,20}", any::<i32>(), protocol, leader, timestamp, members).prop_map(
        |(protocol_type, generation_id, protocol_name, leader, state_timestamp_ms, members)| GroupValue {
            protocol_type,
            generation_id,
            protocol_name,
            leader,
            state_timestamp_ms,
            members,
        },
    )
}

proptest! {
    #[test]
    fn what_was_written_is_read_back(
        offset in any_offset(), group in any_group(),
        group_id in ".{0,40}", topic in "[a-zA-Z0-9_-]{1,40}", partition: i32,
    ) {
        prop_assert_eq!(OffsetValue::decode(&offset.encode()), Ok(offset));
        prop_assert_eq!(GroupValue::decode(&group.encode()), Ok(group));
        let key = StateKey::decode(&offset_key(&group_id, &topic, partition));
        let topic = TopicName::new(&topic).unwrap();
        prop_assert_eq!(key, Ok(Some(StateKey::Offset { group_id: group_id.clone(), topic, partition })));
        prop_assert_eq!(StateKey::decode(&group_key(&group_id)), Ok(Some(StateKey::Group { group_id })));
    }

    #[test]
    fn a_record_cut_anywhere_is_an_error_and_not_a_panic(group in any_group(), cut: prop::sample::Index) {
        let bytes = group.encode();
        let cut = cut.index(bytes.len());
        prop_assert!(GroupValue::decode(&bytes[..cut]).is_err());
    }

    #[test]
    fn rubbish_is_answered_with_an_error_or_a_value(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200), version in 0u8..6,
    ) {
        let _ = (StateKey::decode(&bytes), OffsetValue::decode(&bytes), subscribed_topics(&bytes));
        if bytes.len() >= 2 {
            bytes[0] = 0;
            bytes[1] = version;
        }
        let _ = (StateKey::decode(&bytes), OffsetValue::decode(&bytes), GroupValue::decode(&bytes));
    }
}
