//! DescribeShareGroupOffsets (key 90), versions 0 and 1 (KIP-932).
//!
//! 1: the reply tells the lag (KIP-1226). By hand, since the crate's last is version 0.

use std::collections::BTreeMap;

use bytes::BytesMut;
use kafka_protocol::error::ResponseError;
use kafka_protocol::protocol::StrBytes;

use super::share_acknowledge::put_error;
use super::{Answer, ApiRow, Outcome, RequestContext, share_group};
use crate::broker::{IsolationLevel, OffsetQuery, OffsetSpec, ShareProgress};
use crate::kafka::error_code;
use crate::kafka::frame;
use crate::kafka::wire::{Malformed, Reader, Writer};
use crate::model::{NO_LEADER_EPOCH, Offset, PartitionIndex, TopicName, TopicPartition, Uuid};

/// The first version whose reply tells the lag.
const LAG_VERSION: i16 = 1;
/// "Nobody has read of it".
const NO_OFFSET: Offset = -1;
/// "Not known".
const NO_LAG: i64 = -1;

struct WantedGroup {
    group_id: String,
    /// None: all that the group has read of.
    topics: Option<Vec<(StrBytes, Vec<PartitionIndex>)>>,
}

#[derive(Default)]
struct ToldGroup {
    group_id: String,
    topics: Vec<ToldTopic>,
    error: Option<(ResponseError, Option<String>)>,
}

struct ToldTopic {
    name: String,
    id: Uuid,
    partitions: Vec<ToldPartition>,
}

struct ToldPartition {
    index: PartitionIndex,
    start_offset: Offset,
    lag: i64,
    error: Option<ResponseError>,
}

pub(super) async fn answer(ctx: &RequestContext<'_>, body: BytesMut) -> Result<Answer, Malformed> {
    let mut told = Vec::new();
    for wanted in decode(body)? {
        told.push(Box::pin(describe(ctx, wanted)).await);
    }
    let (chunks, size_bytes) = encode(ctx.version(), &told).finish();
    Ok(Answer::Now(Outcome::Reply(frame::frame_chunks(&ctx.header, chunks, size_bytes))))
}

/// See [`super::check`].
pub(super) fn check(_row: &ApiRow, _version: i16, body: BytesMut) -> Result<(), Malformed> {
    decode(body).map(drop)
}

fn decode(body: BytesMut) -> Result<Vec<WantedGroup>, Malformed> {
    let mut reader = Reader::new(body, true);
    let mut groups = Vec::new();
    for _ in 0..reader.read_required_count()? {
        let group_id = reader.read_string()?.to_string();
        let topics = match reader.read_count()? {
            None => None,
            Some(count) => Some((0..count).map(|_| read_topic(&mut reader)).collect::<Result<_, _>>()?),
        };
        reader.skip_tagged_fields()?;
        groups.push(WantedGroup { group_id, topics });
    }
    reader.skip_tagged_fields()?;
    Ok(groups)
}

fn read_topic(reader: &mut Reader) -> Result<(StrBytes, Vec<PartitionIndex>), Malformed> {
    let name = reader.read_string()?;
    let count = reader.read_required_count()?;
    let partitions = (0..count).map(|_| reader.read_i32()).collect::<Result<_, _>>()?;
    reader.skip_tagged_fields()?;
    Ok((name, partitions))
}

async fn describe(ctx: &RequestContext<'_>, wanted: WantedGroup) -> ToldGroup {
    let group_id = wanted.group_id;
    match share_group(ctx, &group_id).await {
        // A group that there is not has read nothing, which is no error, as in Kafka.
        Ok(_) | Err((ResponseError::GroupIdNotFound, _)) => {}
        Err(error) => return ToldGroup { group_id, error: Some(error), ..ToldGroup::default() },
    }
    let mut progress: BTreeMap<Uuid, BTreeMap<PartitionIndex, ShareProgress>> = BTreeMap::new();
    for found in ctx.broker().share_progress(&group_id).await {
        progress.entry(found.key.topic_id).or_default().insert(found.key.partition, found);
    }
    let image = ctx.broker().image();
    let mut topics = Vec::new();
    match wanted.topics {
        None => {
            for (id, found) in progress {
                let Some(name) = image.topic_by_id(id).map(|topic| topic.name.clone()) else { continue };
                let wanted = found.keys().copied().collect();
                let partitions = tell(ctx, &name, wanted, &found).await;
                topics.push(ToldTopic { name: name.as_str().to_owned(), id, partitions });
            }
        }
        Some(asked) => {
            for (name, wanted) in asked {
                let (id, partitions) = match image.topic(&name) {
                    Some(topic) => {
                        let found = progress.remove(&topic.id).unwrap_or_default();
                        (topic.id, tell(ctx, &topic.name, wanted, &found).await)
                    }
                    None => (Uuid::nil(), wanted.into_iter().map(unknown).collect()),
                };
                topics.push(ToldTopic { name: name.to_string(), id, partitions });
            }
        }
    }
    ToldGroup { group_id, topics, error: None }
}

fn unknown(index: PartitionIndex) -> ToldPartition {
    let error = Some(ResponseError::UnknownTopicOrPartition);
    ToldPartition { index, start_offset: NO_OFFSET, lag: NO_LAG, error }
}

/// Where the group stands in partitions of a topic, and how many records lie before it that are not done.
async fn tell(
    ctx: &RequestContext<'_>,
    topic: &TopicName,
    wanted: Vec<PartitionIndex>,
    found: &BTreeMap<PartitionIndex, ShareProgress>,
) -> Vec<ToldPartition> {
    let query = |index: &PartitionIndex| OffsetQuery {
        topic_partition: TopicPartition::new(topic.clone(), *index),
        spec: OffsetSpec::Latest,
        current_leader_epoch: NO_LEADER_EPOCH,
    };
    let queries = wanted.iter().map(query).collect();
    let ends = ctx.broker().list_offsets(IsolationLevel::ReadUncommitted, queries).await;
    let told = wanted.into_iter().zip(ends).map(|(index, end)| {
        let known = found.get(&index).filter(|progress| progress.start_offset >= 0);
        let start_offset = known.map_or(NO_OFFSET, |progress| progress.start_offset);
        let lag = known.zip(end.ok()).map(|(progress, end)| {
            (end.offset - progress.start_offset - progress.delivery_complete_count).max(0)
        });
        ToldPartition { index, start_offset, lag: lag.unwrap_or(NO_LAG), error: None }
    });
    told.collect()
}

fn encode(version: i16, groups: &[ToldGroup]) -> Writer {
    let mut out = Writer::new(true);
    out.put_i32(0); // throttle time
    out.put_count(groups.len());
    for group in groups {
        out.put_nullable_string(Some(&group.group_id));
        out.put_count(group.topics.len());
        for topic in &group.topics {
            out.put_nullable_string(Some(&topic.name));
            out.put_uuid(topic.id);
            out.put_count(topic.partitions.len());
            for partition in &topic.partitions {
                out.put_i32(partition.index);
                out.put_i64(partition.start_offset);
                out.put_i32(0); // leader epoch
                if version >= LAG_VERSION {
                    out.put_i64(partition.lag);
                }
                put_error(&mut out, partition.error);
                out.end_struct();
            }
            out.end_struct();
        }
        let error = group.error.as_ref();
        out.put_i16(error.map_or(error_code::NONE, |(error, _)| error.code()));
        out.put_nullable_string(error.and_then(|(_, message)| message.as_deref()));
        out.end_struct();
    }
    out.end_struct();
    out
}
