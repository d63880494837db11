//! ShareAcknowledge (key 79), versions 1 and 2 (KIP-932).
//!
//! 2: renewed locks, and the reply tells how long a lock lasts (KIP-1222); both by hand, since the crate's last is
//! version 1. What ShareFetch says of records goes through here, too.

use std::collections::BTreeMap;

use bytes::BytesMut;
use kafka_protocol::error::ResponseError;

use super::share_fetch::{shared, unknown};
use super::{Answer, ApiRow, Outcome, RequestContext};
use crate::kafka::share_session::{FINAL_EPOCH, INITIAL_EPOCH, SessionError, SessionKey, ShareSessions};
use crate::kafka::wire::{Malformed, Reader, Writer};
use crate::kafka::{error_code, frame};
use crate::model::Uuid;
use crate::model::share::{AcknowledgeType, AcknowledgementBatch, ShareError, SharedPartition};

/// The first version with renewed locks.
const RENEW_VERSION: i16 = 2;

/// What a member says of records of a partition: none where a number is no known type.
pub(super) type Acknowledgements = Vec<Option<AcknowledgementBatch>>;

struct Wanted {
    group_id: String,
    member_id: String,
    epoch: i32,
    is_renewal: bool,
    partitions: Vec<(SessionKey, Acknowledgements)>,
}

pub(super) async fn answer(ctx: &RequestContext<'_>, body: BytesMut) -> Result<Answer, Malformed> {
    let wanted = decode(ctx.version(), body)?;
    let told = Box::pin(handle(ctx, wanted)).await;
    let (chunks, size_bytes) = told.encode(ctx.version()).finish();
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
    let is_renewal = version >= RENEW_VERSION && reader.read_bool()?;
    let partitions = read_partitions(&mut reader)?;
    reader.skip_tagged_fields()?;
    Ok(Wanted { group_id, member_id, epoch, is_renewal, partitions })
}

/// Reads partitions by topic, each with an array of acknowledgement batches.
pub(super) fn read_partitions(reader: &mut Reader) -> Result<Vec<(SessionKey, Acknowledgements)>, Malformed> {
    let mut partitions = Vec::new();
    for _ in 0..reader.read_required_count()? {
        let topic_id = reader.read_uuid()?;
        for _ in 0..reader.read_required_count()? {
            let partition = reader.read_i32()?;
            let batches = read_batches(reader)?;
            reader.skip_tagged_fields()?;
            partitions.push(((topic_id, partition), batches));
        }
        reader.skip_tagged_fields()?;
    }
    Ok(partitions)
}

fn read_batches(reader: &mut Reader) -> Result<Acknowledgements, Malformed> {
    let mut batches = Vec::new();
    for _ in 0..reader.read_required_count()? {
        let first_offset = reader.read_i64()?;
        let last_offset = reader.read_i64()?;
        let mut types = Some(Vec::new());
        for _ in 0..reader.read_required_count()? {
            let kind = AcknowledgeType::of(reader.read_i8()?);
            types = types.zip(kind).map(|(mut types, kind)| {
                types.push(kind);
                types
            });
        }
        reader.skip_tagged_fields()?;
        batches.push(types.map(|types| AcknowledgementBatch { first_offset, last_offset, types }));
    }
    Ok(batches)
}

async fn handle(ctx: &RequestContext<'_>, wanted: Wanted) -> Told {
    let lock_ms = ctx.broker().share_settings(&wanted.group_id).limits.record_lock_duration_ms;
    let lock_ms = i32::try_from(lock_ms).unwrap_or(i32::MAX);
    let refuse = |error| Told { error: Some(error), lock_ms, results: BTreeMap::new() };
    if wanted.group_id.is_empty() || wanted.member_id.is_empty() {
        return refuse(ResponseError::InvalidRequest);
    }
    if let Err(error) = enter(ctx.share_sessions, &wanted.group_id, &wanted.member_id, wanted.epoch) {
        return refuse(session_code(error));
    }
    let mut results: BTreeMap<SessionKey, Option<ResponseError>> = BTreeMap::new();
    let mut known = Vec::new();
    for (key, batches) in wanted.partitions {
        match shared(ctx, key) {
            Some(shared) => known.push((key, shared, batches)),
            None => drop(results.insert(key, Some(unknown(ctx, key.0)))),
        }
    }
    let carried = carry_out(ctx, &wanted.group_id, &wanted.member_id, known, wanted.is_renewal).await;
    results.extend(carried.into_iter().map(|(key, result)| (key, result.err().map(error_code::of_share))));
    if wanted.epoch == FINAL_EPOCH {
        ctx.share_sessions.end(&wanted.group_id, &wanted.member_id);
    }
    Told { error: None, lock_ms, results }
}

/// The reply.
struct Told {
    error: Option<ResponseError>,
    lock_ms: i32,
    results: BTreeMap<SessionKey, Option<ResponseError>>,
}

impl Told {
    fn encode(&self, version: i16) -> Writer {
        let mut out = Writer::new(true);
        out.put_i32(0); // throttle time
        put_error(&mut out, self.error);
        if version >= RENEW_VERSION {
            out.put_i32(self.lock_ms);
        }
        let mut topics: BTreeMap<Uuid, Vec<(i32, Option<ResponseError>)>> = BTreeMap::new();
        for ((topic_id, partition), error) in &self.results {
            topics.entry(*topic_id).or_default().push((*partition, *error));
        }
        out.put_count(topics.len());
        for (topic_id, partitions) in topics {
            out.put_uuid(topic_id);
            out.put_count(partitions.len());
            for (partition, error) in partitions {
                out.put_i32(partition);
                put_error(&mut out, error);
                put_no_leader(&mut out);
                out.end_struct();
            }
            out.end_struct();
        }
        out.put_count(0); // node endpoints
        out.end_struct();
        out
    }
}

/// An error code and the sentence that goes with it.
pub(super) fn put_error(out: &mut Writer, error: Option<ResponseError>) {
    out.put_i16(error.map_or(error_code::NONE, |error| error.code()));
    out.put_nullable_string(error.map(|error| error.to_string()).as_deref());
}

/// The leader is who answers.
pub(super) fn put_no_leader(out: &mut Writer) {
    out.put_i32(0);
    out.put_i32(0);
    out.end_struct();
}

/// Hands acknowledgements to the partitions; one result for each.
pub(super) async fn carry_out(
    ctx: &RequestContext<'_>,
    group_id: &str,
    member_id: &str,
    partitions: Vec<(SessionKey, SharedPartition, Acknowledgements)>,
    is_renewal: bool,
) -> Vec<(SessionKey, Result<(), ShareError>)> {
    let mut results = Vec::with_capacity(partitions.len());
    let (mut keys, mut asked) = (Vec::new(), Vec::new());
    for (key, shared, batches) in partitions {
        let batches: Option<Vec<AcknowledgementBatch>> = batches.into_iter().collect();
        // Locks are renewed only by those who say that they do (KIP-1222).
        let is_allowed =
            |batch: &AcknowledgementBatch| is_renewal || !batch.types.contains(&AcknowledgeType::Renew);
        match batches.filter(|batches| batches.iter().all(is_allowed)) {
            Some(batches) => {
                keys.push(key);
                asked.push((shared, batches));
            }
            None => results.push((key, Err(ShareError::InvalidRequest))),
        }
    }
    let answers = ctx.broker().share_acknowledge(group_id, member_id, asked).await;
    results.extend(keys.into_iter().zip(answers));
    results
}

/// Goes on with a session, or begins to end it.
pub(super) fn enter(
    sessions: &ShareSessions,
    group_id: &str,
    member_id: &str,
    epoch: i32,
) -> Result<(), SessionError> {
    match epoch {
        INITIAL_EPOCH => Err(SessionError::InvalidEpoch),
        FINAL_EPOCH if sessions.has(group_id, member_id) => Ok(()),
        FINAL_EPOCH => Err(SessionError::NotFound),
        epoch => sessions.go_on(group_id, member_id, epoch),
    }
}

pub(super) fn session_code(error: SessionError) -> ResponseError {
    match error {
        SessionError::NotFound => ResponseError::ShareSessionNotFound,
        SessionError::InvalidEpoch => ResponseError::InvalidShareSessionEpoch,
        SessionError::LimitReached => ResponseError::ShareSessionLimitReached,
    }
}
