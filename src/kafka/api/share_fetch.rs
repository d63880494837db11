//! ShareFetch (key 78), versions 1 and 2 (KIP-932).
//!
//! 1: records and batch limits | 2: strict limits, renewed locks (KIP-1206, KIP-1222). By hand, since the crate's last
//! is version 1, and so that records go out as they lie on disk. Both versions of the reply have the same form.
//!
//! Acknowledgements that ride along are carried out first. What a reply brings is locked for the member; batches come
//! whole, and the list of acquired records says which of them are meant.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use kafka_protocol::error::ResponseError;

use super::share_acknowledge::{self, Acknowledgements, put_error, put_no_leader};
use super::{Answer, ApiRow, Outcome, RequestContext};
use crate::broker::{ShareFetchRequest, SharedRecords};
use crate::kafka::share_session::{FINAL_EPOCH, INITIAL_EPOCH, SessionKey};
use crate::kafka::wire::{Malformed, Reader, Writer};
use crate::kafka::{error_code, frame};
use crate::model::share::{ShareError, SharedPartition};
use crate::model::{TopicPartition, Uuid};

/// The first version with strict limits and renewed locks.
const RENEW_VERSION: i16 = 2;
/// "Not more records than asked for" as the way of acquiring.
const RECORD_LIMIT_MODE: i8 = 1;

/// The request.
struct Wanted {
    group_id: String,
    member_id: String,
    epoch: i32,
    max_wait_ms: i32,
    max_bytes: i32,
    max_records: i32,
    is_strict: bool,
    is_renewal: bool,
    /// Whether all limits are 0, as they must be where locks are renewed.
    wants_nothing: bool,
    /// With what is said of records of each.
    partitions: Vec<(SessionKey, Acknowledgements)>,
    forgotten: Vec<SessionKey>,
}

pub(super) async fn answer(ctx: &RequestContext<'_>, body: BytesMut) -> Result<Answer, Malformed> {
    let wanted = decode(ctx.version(), body)?;
    let (chunks, size_bytes) = Box::pin(handle(ctx, wanted)).await.encode().finish();
    Ok(Answer::Now(Outcome::Reply(frame::frame_chunks(&ctx.header, chunks, size_bytes))))
}

/// See [`super::check`].
pub(super) fn check(_row: &ApiRow, version: i16, body: BytesMut) -> Result<(), Malformed> {
    decode(version, body).map(drop)
}

fn decode(version: i16, body: BytesMut) -> Result<Wanted, Malformed> {
    let mut reader = Reader::new(body, true);
    let group_id = reader.read_nullable_string()?.map(|id| id.to_string()).unwrap_or_default();
    let member_id = reader.read_nullable_string()?.map(|id| id.to_string()).unwrap_or_default();
    let epoch = reader.read_i32()?;
    let max_wait_ms = reader.read_i32()?;
    let min_bytes = reader.read_i32()?;
    let max_bytes = reader.read_i32()?;
    let max_records = reader.read_i32()?;
    let _batch_size = reader.read_i32()?;
    let is_strict = version >= RENEW_VERSION && reader.read_i8()? == RECORD_LIMIT_MODE;
    let is_renewal = version >= RENEW_VERSION && reader.read_bool()?;
    let wants_nothing = max_wait_ms == 0 && min_bytes == 0 && max_bytes == 0 && max_records == 0;
    let partitions = share_acknowledge::read_partitions(&mut reader)?;
    let mut forgotten = Vec::new();
    for _ in 0..reader.read_required_count()? {
        let topic_id = reader.read_uuid()?;
        for _ in 0..reader.read_required_count()? {
            forgotten.push((topic_id, reader.read_i32()?));
        }
        reader.skip_tagged_fields()?;
    }
    reader.skip_tagged_fields()?;
    Ok(Wanted {
        group_id,
        member_id,
        epoch,
        max_wait_ms,
        max_bytes,
        max_records,
        is_strict,
        is_renewal,
        wants_nothing,
        partitions,
        forgotten,
    })
}

async fn handle(ctx: &RequestContext<'_>, wanted: Wanted) -> Reply {
    let refuse = |error| Reply { error: Some(error), ..Reply::default() };
    if wanted.group_id.is_empty() || wanted.member_id.is_empty() {
        return refuse(ResponseError::InvalidRequest);
    }
    if wanted.is_renewal && !wanted.wants_nothing {
        return refuse(ResponseError::InvalidRequest);
    }
    let has_acknowledgements = wanted.partitions.iter().any(|(_, batches)| !batches.is_empty());
    if wanted.epoch == INITIAL_EPOCH && has_acknowledgements {
        return refuse(ResponseError::InvalidRequest);
    }
    let (group_id, member_id) = (wanted.group_id.as_str(), wanted.member_id.as_str());
    let sessions = ctx.share_sessions;
    let entered = match wanted.epoch {
        INITIAL_EPOCH => sessions.begin(group_id, member_id),
        epoch => share_acknowledge::enter(sessions, group_id, member_id, epoch),
    };
    if let Err(error) = entered {
        return refuse(share_acknowledge::session_code(error));
    }
    let mut told: BTreeMap<SessionKey, Told> = BTreeMap::new();
    let mut acknowledged = Vec::new();
    let mut added = Vec::new();
    for (key, batches) in wanted.partitions {
        let Some(shared) = shared(ctx, key) else {
            told.entry(key).or_default().error = Some(unknown(ctx, key.0));
            continue;
        };
        if !batches.is_empty() {
            acknowledged.push((key, shared.clone(), batches));
        }
        added.push((key, shared));
    }
    for (key, result) in
        share_acknowledge::carry_out(ctx, group_id, member_id, acknowledged, wanted.is_renewal).await
    {
        told.entry(key).or_default().acknowledge_error = result.err().map(error_code::of_share);
    }
    if wanted.epoch == FINAL_EPOCH {
        sessions.end(group_id, member_id);
    } else {
        sessions.change(group_id, member_id, added, &wanted.forgotten);
        if !wanted.is_renewal {
            let partitions = sessions.partitions(group_id, member_id);
            let (keys, partitions): (Vec<SessionKey>, Vec<SharedPartition>) = partitions.into_iter().unzip();
            // Who waits for the result of an acknowledgement does not wait for records.
            let max_wait_ms = if told.is_empty() { wanted.max_wait_ms } else { 0 };
            let request = ShareFetchRequest {
                group_id: wanted.group_id.clone(),
                member_id: wanted.member_id.clone(),
                max_wait_ms,
                max_bytes: wanted.max_bytes,
                max_records: wanted.max_records,
                is_strict: wanted.is_strict,
                partitions,
            };
            let found = ctx.broker().share_fetch(request).await;
            for (key, records) in keys.into_iter().zip(found) {
                if records.error.is_some() || !records.acquired.is_empty() {
                    told.entry(key).or_default().take(records);
                }
            }
        }
    }
    let lock_ms = ctx.broker().share_settings(group_id).limits.record_lock_duration_ms;
    Reply { error: None, lock_ms: i32::try_from(lock_ms).unwrap_or(i32::MAX), partitions: told }
}

/// The reply.
#[derive(Default)]
struct Reply {
    error: Option<ResponseError>,
    lock_ms: i32,
    partitions: BTreeMap<SessionKey, Told>,
}

impl Reply {
    fn encode(self) -> Writer {
        let mut out = Writer::new(true);
        out.put_i32(0); // throttle time
        put_error(&mut out, self.error);
        out.put_i32(self.lock_ms);
        let mut topics: BTreeMap<Uuid, Vec<(i32, Told)>> = BTreeMap::new();
        for ((topic_id, partition), told) in self.partitions {
            topics.entry(topic_id).or_default().push((partition, told));
        }
        out.put_count(topics.len());
        for (topic_id, partitions) in topics {
            out.put_uuid(topic_id);
            out.put_count(partitions.len());
            for (partition, told) in partitions {
                told.encode(partition, &mut out);
            }
            out.end_struct();
        }
        out.put_count(0); // node endpoints
        out.end_struct();
        out
    }
}

/// What the reply says of one partition.
#[derive(Default)]
struct Told {
    error: Option<ResponseError>,
    acknowledge_error: Option<ResponseError>,
    records: SharedRecords,
}

impl Told {
    fn take(&mut self, records: SharedRecords) {
        self.error = self.error.or(records.error.map(error_code::of_share));
        self.records = records;
    }

    fn encode(self, partition: i32, out: &mut Writer) {
        out.put_i32(partition);
        put_error(out, self.error);
        put_error(out, self.acknowledge_error);
        put_no_leader(out);
        let size_bytes = self.records.chunks.iter().map(Bytes::len).sum();
        out.put_chunks(self.records.chunks, size_bytes);
        out.put_count(self.records.acquired.len());
        for acquired in &self.records.acquired {
            out.put_i64(acquired.first_offset);
            out.put_i64(acquired.last_offset);
            out.put_i16(acquired.delivery_count);
            out.end_struct();
        }
        out.end_struct();
    }
}

/// The partition by its topic's name, if there is such a partition.
pub(super) fn shared(ctx: &RequestContext<'_>, (topic_id, partition): SessionKey) -> Option<SharedPartition> {
    let image = ctx.broker().image();
    let topic = image.topic_by_id(topic_id)?;
    topic.partition(partition)?;
    Some(SharedPartition { topic_partition: TopicPartition::new(topic.name.clone(), partition), topic_id })
}

/// Why there is no such partition.
pub(super) fn unknown(ctx: &RequestContext<'_>, topic_id: Uuid) -> ResponseError {
    match ctx.broker().image().topic_by_id(topic_id) {
        Some(_) => error_code::of_share(ShareError::UnknownPartition),
        None => ResponseError::UnknownTopicId,
    }
}
