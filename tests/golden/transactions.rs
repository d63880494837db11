//! The golden requests of transactions. No producer has the ids that they name.

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::{self as m, GroupId, ProducerId, TransactionalId};

use super::{TOPIC, encoded, name, text};

fn id() -> TransactionalId {
    TransactionalId(text("golden-transaction"))
}

pub fn add_partitions(version: i16) -> (bool, BytesMut) {
    let topic = |topic: &str| {
        m::add_partitions_to_txn_request::AddPartitionsToTxnTopic::default()
            .with_name(name(topic))
            .with_partitions(vec![0])
    };
    let request = m::AddPartitionsToTxnRequest::default();
    if version < 4 {
        let request = request
            .with_v3_and_below_transactional_id(id())
            .with_v3_and_below_producer_id(ProducerId(77))
            .with_v3_and_below_producer_epoch(3)
            .with_v3_and_below_topics(vec![topic(TOPIC)]);
        return encoded(&request, version);
    }
    let transaction = |topics, verify_only| {
        m::add_partitions_to_txn_request::AddPartitionsToTxnTransaction::default()
            .with_transactional_id(id())
            .with_producer_id(ProducerId(77))
            .with_producer_epoch(3)
            .with_verify_only(verify_only)
            .with_topics(topics)
    };
    let transactions = vec![
        transaction(vec![topic(TOPIC)], true),
        transaction(vec![topic(TOPIC), topic("golden-unknown")], false),
    ];
    encoded(&request.with_transactions(transactions), version)
}

pub fn add_offsets(version: i16) -> (bool, BytesMut) {
    let request = m::AddOffsetsToTxnRequest::default()
        .with_transactional_id(id())
        .with_producer_id(ProducerId(77))
        .with_producer_epoch(3)
        .with_group_id(GroupId(text("golden-group")));
    encoded(&request, version)
}

pub fn end(version: i16) -> (bool, BytesMut) {
    let request = m::EndTxnRequest::default()
        .with_transactional_id(id())
        .with_producer_id(ProducerId(77))
        .with_producer_epoch(3)
        .with_committed(true);
    encoded(&request, version)
}

/// Version 2, which the crate does not write, is version 1 with the transaction's version behind the coordinator's epoch.
pub fn write_markers(version: i16) -> (bool, BytesMut) {
    let topic = |topic: &str, index| {
        m::write_txn_markers_request::WritableTxnMarkerTopic::default()
            .with_name(name(topic))
            .with_partition_indexes(vec![index])
    };
    let marker = m::write_txn_markers_request::WritableTxnMarker::default()
        .with_producer_id(ProducerId(77))
        .with_producer_epoch(3)
        .with_topics(vec![topic(TOPIC, 99), topic("golden-unknown", 0)]);
    let (flexible, mut body) = encoded(&m::WriteTxnMarkersRequest::default().with_markers(vec![marker]), 1);
    if version >= 2 {
        let tagged_fields = body.split_off(body.len() - 2); // the marker's and the request's, both empty
        body.put_i8(2);
        body.unsplit(tagged_fields);
    }
    (flexible, body)
}

pub fn commit_offsets(version: i16) -> (bool, BytesMut) {
    let partition = |index| {
        m::txn_offset_commit_request::TxnOffsetCommitRequestPartition::default()
            .with_partition_index(index)
            .with_committed_offset(1)
    };
    let topic = m::txn_offset_commit_request::TxnOffsetCommitRequestTopic::default()
        .with_name(name(TOPIC))
        .with_partitions(vec![partition(0), partition(99)]);
    let request = m::TxnOffsetCommitRequest::default()
        .with_transactional_id(id())
        .with_group_id(GroupId(text("golden-group")))
        .with_producer_id(ProducerId(77))
        .with_producer_epoch(3)
        .with_topics(vec![topic]);
    encoded(&request, version)
}

pub fn describe(version: i16) -> (bool, BytesMut) {
    encoded(&m::DescribeTransactionsRequest::default().with_transactional_ids(vec![id()]), version)
}

pub fn list(version: i16) -> (bool, BytesMut) {
    let mut request = m::ListTransactionsRequest::default()
        .with_state_filters(vec![text("Ongoing"), text("Sleeping")])
        .with_producer_id_filters(vec![ProducerId(77)]);
    if version >= 1 {
        request.duration_filter = 10;
    }
    if version >= 2 {
        request.transactional_id_pattern = Some(text("golden-.*"));
    }
    encoded(&request, version)
}
