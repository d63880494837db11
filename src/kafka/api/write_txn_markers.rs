//! WriteTxnMarkers (key 27), versions 1 and 2: markers for partitions, whoever decided so.
//!
//! 1: flexible | 2: the transaction's version (KIP-1228), read by hand since the crate's last request is version 1.
//!
//! Brokers send it to each other, which one node has no need of; Kafka's admin client sends it to end a transaction that
//! its coordinator has forgotten (KIP-664).

use bytes::BytesMut;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use kafka_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use kafka_protocol::messages::{ProducerId, TopicName, WriteTxnMarkersRequest, WriteTxnMarkersResponse};

use super::{Answer, ApiRow, RequestContext, reply_as};
use crate::broker::Marker;
use crate::kafka::wire::{Malformed, Reader};
use crate::kafka::{decode_guard, error_code};
use crate::model::TopicPartition;
use crate::model::transaction::TransactionVersion;

/// The last version that the crate knows.
const CRATE_VERSION_MAX: i16 = 1;

/// A marker and the version of its transaction.
type Versioned = (WritableTxnMarker, TransactionVersion);

pub(super) async fn answer(ctx: &RequestContext<'_>, body: BytesMut) -> Result<Answer, Malformed> {
    let markers = decode(ctx.version(), body)?;
    Ok(reply_as(ctx, CRATE_VERSION_MAX, &Box::pin(handle(ctx, markers)).await))
}

/// See [`super::check`].
pub(super) fn check(_row: &ApiRow, version: i16, body: BytesMut) -> Result<(), Malformed> {
    decode(version, body).map(drop)
}

fn decode(version: i16, body: BytesMut) -> Result<Vec<Versioned>, Malformed> {
    if version <= CRATE_VERSION_MAX {
        let request: WriteTxnMarkersRequest = decode_guard::decode(body.freeze(), version)?;
        return Ok(request.markers.into_iter().map(|marker| (marker, TransactionVersion::V0)).collect());
    }
    let mut reader = Reader::new(body, true);
    let mut markers = Vec::new();
    for _ in 0..reader.read_required_count()? {
        let mut marker = WritableTxnMarker::default()
            .with_producer_id(ProducerId(reader.read_i64()?))
            .with_producer_epoch(reader.read_i16()?)
            .with_transaction_result(reader.read_bool()?);
        for _ in 0..reader.read_required_count()? {
            let mut topic = WritableTxnMarkerTopic::default().with_name(TopicName(reader.read_string()?));
            for _ in 0..reader.read_required_count()? {
                topic.partition_indexes.push(reader.read_i32()?);
            }
            reader.skip_tagged_fields()?;
            marker.topics.push(topic);
        }
        marker.coordinator_epoch = reader.read_i32()?;
        let level = reader.read_i8()?;
        reader.skip_tagged_fields()?;
        markers.push((marker, TransactionVersion::of_level(i16::from(level))));
    }
    reader.skip_tagged_fields()?;
    Ok(markers)
}

async fn handle(ctx: &RequestContext<'_>, markers: Vec<Versioned>) -> WriteTxnMarkersResponse {
    let mut results = Vec::with_capacity(markers.len());
    for (marker, version) in markers {
        results.push(write(ctx, marker, version).await);
    }
    WriteTxnMarkersResponse::default().with_markers(results)
}

async fn write(
    ctx: &RequestContext<'_>,
    request: WritableTxnMarker,
    version: TransactionVersion,
) -> WritableTxnMarkerResult {
    let marker = Marker {
        producer_id: request.producer_id.0,
        producer_epoch: request.producer_epoch,
        coordinator_epoch: request.coordinator_epoch,
        is_commit: request.transaction_result,
        has_new_epoch: version.bumps_epoch(),
    };
    let image = ctx.broker().image();
    let named = request.topics.iter().flat_map(|topic| {
        let known = image.topic(&topic.name);
        topic.partition_indexes.iter().map(move |&index| {
            let known = known.filter(|known| known.owner(index).is_some())?;
            Some(TopicPartition::new(known.name.clone(), index))
        })
    });
    let known: Vec<Option<TopicPartition>> = named.collect();
    drop(image);
    let asked: Vec<TopicPartition> = known.iter().flatten().cloned().collect();
    let written = if asked.is_empty() { Vec::new() } else { ctx.broker().write_markers(marker, asked).await };
    let mut written = written.into_iter();
    let mut codes = known.into_iter().map(|known| match known {
        Some(_) => written
            .next()
            .map_or(ResponseError::UnknownServerError.code(), |result| error_code::code(&result)),
        None => ResponseError::UnknownTopicOrPartition.code(),
    });
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partition_indexes.iter().map(|index| {
            WritableTxnMarkerPartitionResult::default()
                .with_partition_index(*index)
                .with_error_code(codes.next().unwrap_or(ResponseError::UnknownServerError.code()))
        });
        WritableTxnMarkerTopicResult::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    WritableTxnMarkerResult::default().with_producer_id(request.producer_id).with_topics(topics.collect())
}
