//! ListOffsets (key 2), versions 1 to 11.
//!
//! 2: isolation level | 4: leader epochs (KIP-320) | 6: flexible | 7: max timestamp (KIP-734) | 8: earliest local offset
//! (KIP-405) | 9: latest tiered offset (KIP-1005) | 10: timeout (KIP-1075) | 11: earliest offset that waits
//! for its upload (KIP-1023), in the form of version 10, the crate's last.
//!
//! There is no tiered storage: the earliest local offset is the earliest, and no offset is tiered or waits to be. The timeout is
//! ignored: nothing here waits. A partition named twice is refused in both places, as in Kafka.

use ahash::{AHashMap, AHashSet};
use bytes::BytesMut;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};

use super::fetch::isolation_level;
use super::{Answer, ApiRow, RequestContext, reply_as};
use crate::broker::{BrokerError, ListedOffset, OffsetQuery, OffsetSpec};
use crate::kafka::wire::Malformed;
use crate::kafka::{decode_guard, error_code};
use crate::model::TopicPartition;

/// The last version that the crate knows; version 11 has its form.
const CRATE_VERSION_MAX: i16 = 10;
/// The first version with leader epochs.
const LEADER_EPOCH_VERSION: i16 = 4;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

/// What a number in the place of a timestamp asks for.
enum Asked {
    Spec(OffsetSpec),
    /// There is no such offset on this server.
    Nothing,
    /// The request's version does not know it.
    Unsupported,
}

fn asked(timestamp: i64, version: i16) -> Asked {
    match timestamp {
        LATEST => Asked::Spec(OffsetSpec::Latest),
        EARLIEST => Asked::Spec(OffsetSpec::Earliest),
        MAX_TIMESTAMP if version >= 7 => Asked::Spec(OffsetSpec::MaxTimestamp),
        EARLIEST_LOCAL if version >= 8 => Asked::Spec(OffsetSpec::Earliest),
        LATEST_TIERED if version >= 9 => Asked::Nothing,
        EARLIEST_PENDING_UPLOAD if version >= 11 => Asked::Nothing,
        0.. => Asked::Spec(OffsetSpec::Timestamp(timestamp)),
        _ => Asked::Unsupported,
    }
}

pub(super) async fn answer(ctx: &RequestContext<'_>, body: BytesMut) -> Result<Answer, Malformed> {
    let form = ctx.version().min(CRATE_VERSION_MAX);
    let request = decode_guard::decode(body.freeze(), form)?;
    Ok(reply_as(ctx, form, &Box::pin(handle(ctx, request)).await))
}

/// See [`super::check`].
pub(super) fn check(_row: &ApiRow, version: i16, body: BytesMut) -> Result<(), Malformed> {
    decode_guard::decode::<ListOffsetsRequest>(body.freeze(), version.min(CRATE_VERSION_MAX)).map(drop)
}

async fn handle(ctx: &RequestContext<'_>, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let image = ctx.broker().image();
    let mut seen = AHashSet::new();
    let mut named_twice = AHashSet::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            let key = (topic.name.clone(), partition.partition_index);
            if !seen.insert(key.clone()) {
                named_twice.insert(key);
            }
        }
    }
    let mut queries = Vec::new();
    let mut places = AHashMap::new(); // (topic, partition) by position in the request -> position in `queries`
    let mut topics = Vec::with_capacity(request.topics.len());
    for (topic_position, topic) in request.topics.into_iter().enumerate() {
        let known = image.topic(&topic.name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for (position, partition) in topic.partitions.into_iter().enumerate() {
            let response =
                ListOffsetsPartitionResponse::default().with_partition_index(partition.partition_index);
            let refuse = |error: ResponseError| response.clone().with_error_code(error.code());
            let spec = asked(partition.timestamp, ctx.version());
            let owner = known.and_then(|topic| Some((topic, topic.owner(partition.partition_index)?)));
            partitions.push(if named_twice.contains(&(topic.name.clone(), partition.partition_index)) {
                refuse(ResponseError::InvalidRequest)
            } else {
                match (owner, spec) {
                    (None, _) => refuse(ResponseError::UnknownTopicOrPartition),
                    (_, Asked::Unsupported) => refuse(ResponseError::UnsupportedVersion),
                    (_, Asked::Nothing) => response,
                    (Some((topic, owner)), Asked::Spec(spec)) => {
                        ctx.work.count(owner, 0);
                        places.insert((topic_position, position), queries.len());
                        queries.push(OffsetQuery {
                            topic_partition: TopicPartition::new(
                                topic.name.clone(),
                                partition.partition_index,
                            ),
                            spec,
                            current_leader_epoch: partition.current_leader_epoch,
                        });
                        response
                    }
                }
            });
        }
        topics.push(ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions));
    }
    if !queries.is_empty() {
        let listed = ctx.broker().list_offsets(isolation_level(request.isolation_level), queries).await;
        for (topic_position, topic) in topics.iter_mut().enumerate() {
            for (position, partition) in topic.partitions.iter_mut().enumerate() {
                if let Some(place) = places.get(&(topic_position, position)) {
                    put(partition, listed.get(*place), ctx.version());
                }
            }
        }
    }
    ListOffsetsResponse::default().with_topics(topics)
}

fn put(
    partition: &mut ListOffsetsPartitionResponse,
    listed: Option<&Result<ListedOffset, BrokerError>>,
    version: i16,
) {
    match listed {
        Some(Ok(listed)) => {
            partition.offset = listed.offset;
            partition.timestamp = listed.timestamp;
            if version >= LEADER_EPOCH_VERSION {
                partition.leader_epoch = listed.leader_epoch;
            }
        }
        Some(Err(error)) => partition.error_code = error_code::of(error).code(),
        None => partition.error_code = ResponseError::UnknownServerError.code(),
    }
}
