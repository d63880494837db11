//! Fetch (key 1), versions 4 to 18. The reply is framed by hand: record bytes go to the socket as they lie in the log.
//!
//! 4: read_committed | 5: log start offset | 7: sessions (KIP-227) | 9: current leader epoch (KIP-320) | 10: zstd
//! (KIP-110) | 11: rack (KIP-392) | 12: flexible, diverging epochs | 13: topic ids (KIP-516) | 15: replica state
//! | 16: node endpoints (KIP-951) | 17: directory id | 18: high watermark of the replica.
//!
//! Ignored: rack, replica id and state (there is one node and no follower), last fetched epoch.
//! Differs from Kafka: zstd is refused to versions before 10 by the batches that a reply holds, not by the topic's
//! config; no leader hints. Sessions: see [`crate::kafka::fetch_session`].

use bytes::{Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::FetchRequest;

use super::{Answer, ApiRow, Outcome, RequestContext};
use crate::base::clock;
use crate::broker::{self, FetchPartition, FetchedPartition, IsolationLevel};
use crate::kafka::fetch_session::{NO_SESSION, Relation, Resolved, Told, TopicRef, Wanted};
use crate::kafka::frame::{self, RequestHeader};
use crate::kafka::wire::{Malformed, Writer};
use crate::kafka::{decode_guard, error_code};
use crate::model::{PartitionIndex, TopicPartition, Uuid};
use crate::record::{Batches, Compression};

/// The first version whose clients know zstd.
const ZSTD_VERSION: i16 = 10;
/// The first version that names topics by id.
const TOPIC_ID_VERSION: i16 = 13;

/// What the reply says of one partition.
struct PartitionAnswer {
    error: i16,
    fetched: FetchedPartition,
}

pub(super) async fn answer(ctx: &RequestContext<'_>, body: BytesMut) -> Result<Answer, Malformed> {
    let request: FetchRequest = decode_guard::decode(body.freeze(), ctx.version())?;
    let resolved = ctx.front.sessions.borrow_mut().resolve(&request, ctx.version(), clock::monotonic());
    let resolved = match resolved {
        Ok(resolved) => resolved,
        Err(error) => return Ok(reply(&ctx.header, error.code(), NO_SESSION, true, &[], Vec::new())),
    };
    let isolation = isolation_level(request.isolation_level);
    let mut answers = fetch(ctx, &request, isolation, &resolved.wanted).await;
    if ctx.version() < ZSTD_VERSION {
        answers.iter_mut().for_each(refuse_zstd);
    }
    Ok(complete(ctx, &resolved, isolation, answers))
}

/// See [`super::check`].
pub(super) fn check(_row: &ApiRow, version: i16, body: BytesMut) -> Result<(), Malformed> {
    decode_guard::decode::<FetchRequest>(body.freeze(), version).map(drop)
}

/// Kafka's number of an isolation level.
pub(super) fn isolation_level(number: i8) -> IsolationLevel {
    if number == 1 { IsolationLevel::ReadCommitted } else { IsolationLevel::ReadUncommitted }
}

/// One answer for each partition, in order.
async fn fetch(
    ctx: &RequestContext<'_>,
    request: &FetchRequest,
    isolation: IsolationLevel,
    wanted: &[Wanted],
) -> Vec<PartitionAnswer> {
    let image = ctx.broker().image();
    let mut answers: Vec<Option<PartitionAnswer>> = Vec::with_capacity(wanted.len());
    let mut partitions = Vec::with_capacity(wanted.len());
    for wanted in wanted {
        let topic = match &wanted.topic {
            TopicRef::Name(name) => image.topic(name).ok_or(ResponseError::UnknownTopicOrPartition),
            TopicRef::Id(id) => image.topic_by_id(*id).ok_or(ResponseError::UnknownTopicId),
        };
        let owner = topic.and_then(|topic| {
            let owner = topic.owner(wanted.partition).ok_or(ResponseError::UnknownTopicOrPartition)?;
            Ok((topic, owner))
        });
        answers.push(match owner {
            Ok((topic, owner)) => {
                ctx.work.count(owner, 0);
                partitions.push(FetchPartition {
                    topic_partition: TopicPartition::new(topic.name.clone(), wanted.partition),
                    offset: wanted.offset,
                    max_bytes: wanted.max_bytes,
                    current_leader_epoch: wanted.current_leader_epoch,
                });
                None
            }
            Err(error) => Some(PartitionAnswer::refused(error)),
        });
    }
    drop(image); // a long poll must not keep an old image alive
    let mut fetched = if partitions.is_empty() {
        Vec::new()
    } else {
        let limit = i32::try_from(ctx.front.limits.fetch_max_bytes).unwrap_or(i32::MAX);
        let request = broker::FetchRequest {
            max_wait_ms: request.max_wait_ms.max(0),
            min_bytes: request.min_bytes.max(0),
            max_bytes: request.max_bytes.clamp(0, limit),
            isolation,
            partitions,
        };
        ctx.broker().fetch(request).await
    }
    .into_iter();
    let mut take = || {
        fetched
            .next()
            .map_or_else(|| PartitionAnswer::refused(ResponseError::UnknownServerError), PartitionAnswer::of)
    };
    answers.into_iter().map(|answer| answer.unwrap_or_else(&mut take)).collect()
}

impl PartitionAnswer {
    fn of(fetched: FetchedPartition) -> Self {
        match &fetched.error {
            Some(error) => PartitionAnswer::refused(error_code::of(error)),
            None => PartitionAnswer { error: error_code::NONE, fetched },
        }
    }

    fn refused(error: ResponseError) -> Self {
        let fetched = FetchedPartition {
            error: None,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            aborted_transactions: Vec::new(),
            chunks: Vec::new(),
            size_bytes: 0,
        };
        PartitionAnswer { error: error.code(), fetched }
    }

    fn told(&self) -> Told {
        Told {
            is_error: self.error != error_code::NONE,
            high_watermark: self.fetched.high_watermark,
            log_start_offset: self.fetched.log_start_offset,
            records_bytes: self.fetched.size_bytes,
        }
    }
}

/// Takes away batches that the client cannot read, saying so.
fn refuse_zstd(answer: &mut PartitionAnswer) {
    let mut batches =
        answer.fetched.chunks.iter().flat_map(|chunk| Batches::new(chunk)).filter_map(Result::ok);
    let has_zstd = batches.any(|batch| {
        Compression::from_attributes(batch.header.attributes).is_ok_and(|codec| codec == Compression::Zstd)
    });
    if has_zstd {
        *answer = PartitionAnswer::refused(ResponseError::UnsupportedCompressionType);
    }
}

fn complete(
    ctx: &RequestContext<'_>,
    resolved: &Resolved,
    isolation: IsolationLevel,
    answers: Vec<PartitionAnswer>,
) -> Answer {
    let told: Vec<Told> = answers.iter().map(PartitionAnswer::told).collect();
    let completed =
        ctx.front.sessions.borrow_mut().complete(resolved, &told, ctx.version(), clock::monotonic());
    let header = &ctx.header;
    let aborted_is_null = isolation == IsolationLevel::ReadUncommitted;
    match completed {
        Ok((session_id, _)) if !matches!(resolved.relation, Relation::Of { .. }) => {
            reply(header, error_code::NONE, session_id, aborted_is_null, &resolved.wanted, answers)
        }
        Ok((session_id, belongs)) => {
            let (wanted, answers): (Vec<Wanted>, Vec<PartitionAnswer>) = resolved
                .wanted
                .iter()
                .zip(answers)
                .zip(belongs)
                .filter(|(_, belongs)| *belongs)
                .map(|((wanted, answer), _)| (wanted.clone(), answer))
                .unzip();
            reply(header, error_code::NONE, session_id, aborted_is_null, &wanted, answers)
        }
        Err(error) => reply(header, error.code(), NO_SESSION, true, &[], Vec::new()),
    }
}

fn reply(
    header: &RequestHeader,
    error: i16,
    session_id: i32,
    aborted_is_null: bool,
    wanted: &[Wanted],
    answers: Vec<PartitionAnswer>,
) -> Answer {
    let flexible = header.row.is_flexible(header.version);
    let writer = encode(header.version, flexible, error, session_id, aborted_is_null, wanted, answers);
    let (chunks, size_bytes) = writer.finish();
    Answer::Now(Outcome::Reply(frame::frame_chunks(header, chunks, size_bytes)))
}

/// Frames the answer to a request without a session for so many partitions of one topic, each with `records`. For
/// benches.
pub(in crate::kafka) fn sample_reply(
    header: &RequestHeader,
    partitions: PartitionIndex,
    records: &Bytes,
) -> frame::Reply {
    let topic = TopicRef::Id(Uuid::nil());
    let wanted = |partition| Wanted {
        topic: topic.clone(),
        partition,
        offset: 0,
        max_bytes: i32::MAX,
        current_leader_epoch: -1,
    };
    let fetched = || FetchedPartition {
        error: None,
        high_watermark: 1_000_000,
        last_stable_offset: 1_000_000,
        log_start_offset: 0,
        aborted_transactions: Vec::new(),
        size_bytes: records.len(),
        chunks: vec![records.clone()],
    };
    let answers = (0..partitions).map(|_| PartitionAnswer::of(fetched())).collect();
    let wanted: Vec<Wanted> = (0..partitions).map(wanted).collect();
    match reply(header, error_code::NONE, NO_SESSION, true, &wanted, answers) {
        Answer::Now(Outcome::Reply(reply)) => reply,
        Answer::Now(_) | Answer::Later(_) => Vec::new(), // never
    }
}

fn encode(
    version: i16,
    flexible: bool,
    error: i16,
    session_id: i32,
    aborted_is_null: bool,
    wanted: &[Wanted],
    answers: Vec<PartitionAnswer>,
) -> Writer {
    let mut writer = Writer::new(flexible);
    writer.put_i32(0); // throttle time
    if version >= 7 {
        writer.put_i16(error);
        writer.put_i32(session_id);
    }
    let topics = wanted.chunk_by(|left, right| left.topic == right.topic);
    writer.put_count(topics.clone().count());
    let mut answers = answers.into_iter();
    for partitions in topics {
        match &partitions[0].topic {
            TopicRef::Id(id) if version >= TOPIC_ID_VERSION => writer.put_uuid(*id),
            TopicRef::Name(name) => writer.put_nullable_string(Some(name)),
            TopicRef::Id(_) => writer.put_nullable_string(Some("")), // cannot be: sessions keep the two apart
        }
        writer.put_count(partitions.len());
        for (wanted, answer) in partitions.iter().zip(&mut answers) {
            writer.put_i32(wanted.partition);
            put_partition(&mut writer, version, aborted_is_null, answer);
        }
        writer.end_struct();
    }
    writer.end_struct();
    writer
}

fn put_partition(writer: &mut Writer, version: i16, aborted_is_null: bool, answer: PartitionAnswer) {
    let fetched = answer.fetched;
    writer.put_i16(answer.error);
    writer.put_i64(fetched.high_watermark);
    writer.put_i64(fetched.last_stable_offset);
    if version >= 5 {
        writer.put_i64(fetched.log_start_offset);
    }
    if aborted_is_null || answer.error != error_code::NONE {
        writer.put_null_array();
    } else {
        writer.put_count(fetched.aborted_transactions.len());
        for (producer_id, first_offset) in fetched.aborted_transactions {
            writer.put_i64(producer_id);
            writer.put_i64(first_offset);
            writer.end_struct();
        }
    }
    if version >= 11 {
        writer.put_i32(-1); // preferred read replica
    }
    let size_bytes = fetched.chunks.iter().map(Bytes::len).sum();
    writer.put_chunks(fetched.chunks, size_bytes);
    writer.end_struct();
}

#[cfg(test)]
mod tests;
