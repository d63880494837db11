//! Produce (key 0), versions 3 to 13. Framed by hand: record bytes stay where the socket put them.
//!
//! 3: first with record batches v2 | 5: log start offset | 7: zstd (KIP-110) | 8: record errors (KIP-467) | 9: flexible
//! | 10: current leader (KIP-951) | 11, 12: transactions v2 (KIP-890) | 13: topic ids (KIP-516).
//!
//! Versions 0 to 2 are advertised for librdkafka's sake and refused by closing the connection, as Kafka does
//! (KAFKA-18659). With acks=0 there is no reply; an error then closes the connection.
//! Up to version 11 transactional producers have added the partitions before; from 12 on this request adds them.
//! Differs from Kafka: a partition named twice is appended to twice, and no partition has record errors or a leader
//! hint.

use bytes::BytesMut;
use kafka_protocol::error::ResponseError;
use kafka_protocol::protocol::StrBytes;

use super::{Answer, ApiRow, Outcome, RequestContext};
use crate::broker::{
    Acks, PartitionProduce, PartitionProduced, ProduceRequest, ProduceTransaction, TopicImage,
    TransactionSupport,
};
use crate::kafka::error_code;
use crate::kafka::frame::{self, RequestHeader};
use crate::kafka::wire::{Malformed, Reader, Writer};
use crate::model::transaction::TransactionError;
use crate::model::{PartitionIndex, TopicPartition, Uuid};
use crate::record::Compression;

/// The first version that names topics by id.
const TOPIC_ID_VERSION: i16 = 13;
/// The first version whose clients know zstd.
const ZSTD_VERSION: i16 = 7;
/// The first version that knows TRANSACTION_ABORTABLE.
const ABORTABLE_VERSION: i16 = 11;
/// The first version that adds partitions to the transaction by itself.
const ADDING_VERSION: i16 = 12;
/// The bit of a batch's attributes that says that it belongs to a transaction.
const TRANSACTIONAL_BIT: u8 = 0b1_0000;
/// Where a batch's attributes lie; the last of their bytes has the codec.
const ATTRIBUTES_LOW_POSITION: usize = 22;

/// A decoded request; what it names is a view of the frame.
#[derive(Debug)]
struct Request {
    transactional_id: Option<StrBytes>,
    acks: i16,
    timeout_ms: i32,
    topics: Vec<RequestTopic>,
}

#[derive(Debug)]
struct RequestTopic {
    name: StrBytes,
    id: Uuid,
    partitions: Vec<RequestPartition>,
}

#[derive(Debug)]
struct RequestPartition {
    index: PartitionIndex,
    records: Option<BytesMut>,
}

/// A reply in the making.
struct Response {
    topics: Vec<ResponseTopic>,
}

struct ResponseTopic {
    name: StrBytes,
    id: Uuid,
    partitions: Vec<ResponsePartition>,
}

struct ResponsePartition {
    index: PartitionIndex,
    result: Produced,
}

/// What is known of one partition.
enum Produced {
    /// The broker has it; its answers come in the order asked.
    Asked,
    /// It was not handed to the broker.
    Refused(ResponseError, String),
    /// The broker's answer.
    Done(PartitionProduced),
}

pub(super) async fn answer(ctx: &RequestContext<'_>, body: BytesMut) -> Result<Answer, Malformed> {
    let request = decode(body, ctx.version(), ctx.header.row.is_flexible(ctx.version()))?;
    let acks = match request.acks {
        0 => Some(Acks::None),
        1 => Some(Acks::Leader),
        -1 => Some(Acks::All),
        _ => None,
    };
    let silent = acks == Some(Acks::None);
    let timeout_ms = request.timeout_ms;
    let transaction = request.transactional_id.as_ref().map(|id| ProduceTransaction {
        transactional_id: id.to_string(),
        support: transaction_support(ctx.version()),
    });
    let (mut response, partitions) = plan(ctx, request, acks.is_some());
    let header = ctx.header.clone();
    if partitions.is_empty() {
        return Ok(Answer::Now(outcome(&header, &response, silent)));
    }
    let acks = acks.unwrap_or(Acks::Leader); // with other acks nothing was planned
    let producing = ctx.broker().produce(ProduceRequest { acks, timeout_ms, transaction, partitions }).await;
    Ok(Answer::Later(Box::pin(async move {
        response.complete(producing.finish().await);
        outcome(&header, &response, silent)
    })))
}

/// See [`super::check`].
pub(super) fn check(row: &ApiRow, version: i16, body: BytesMut) -> Result<(), Malformed> {
    decode(body, version, row.is_flexible(version)).map(drop)
}

/// Sorts out what can be handed to the broker.
fn plan(
    ctx: &RequestContext<'_>,
    request: Request,
    acks_are_valid: bool,
) -> (Response, Vec<PartitionProduce>) {
    let image = ctx.broker().image();
    let mut planned = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let known = if ctx.version() >= TOPIC_ID_VERSION {
            image.topic_by_id(topic.id).ok_or(ResponseError::UnknownTopicId)
        } else {
            image.topic(&topic.name).ok_or(ResponseError::UnknownTopicOrPartition)
        };
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let checked = if !acks_are_valid {
                Err((ResponseError::InvalidRequiredAcks, "acks must be 0, 1 or -1".to_owned()))
            } else if request.transactional_id.is_none() && has_attribute(&partition, TRANSACTIONAL_BIT) {
                let error = TransactionError::TransactionalIdMissing;
                Err((error_code::of_transaction(error), error.to_string()))
            } else {
                known
                    .map_err(|error| (error, error.to_string()))
                    .and_then(|known| admit(ctx, known, partition.index, partition.records))
            };
            let result = match checked {
                Ok(planned_partition) => {
                    planned.push(planned_partition);
                    Produced::Asked
                }
                Err((error, message)) => Produced::Refused(error, message),
            };
            partitions.push(ResponsePartition { index: partition.index, result });
        }
        topics.push(ResponseTopic { name: topic.name, id: topic.id, partitions });
    }
    (Response { topics }, planned)
}

fn admit(
    ctx: &RequestContext<'_>,
    topic: &TopicImage,
    partition: PartitionIndex,
    records: Option<BytesMut>,
) -> Result<PartitionProduce, (ResponseError, String)> {
    let refuse = |error: ResponseError, message: &str| Err((error, message.to_owned()));
    let Some(owner) = topic.owner(partition) else {
        return refuse(ResponseError::UnknownTopicOrPartition, "the topic has no such partition");
    };
    let Some(records) = records.filter(|records| !records.is_empty()) else {
        return refuse(ResponseError::InvalidRecord, "a partition must have exactly one record batch");
    };
    if ctx.version() < ZSTD_VERSION && is_zstd(&records) {
        return refuse(ResponseError::UnsupportedCompressionType, "zstd needs Produce version 7");
    }
    ctx.work.count(owner, records.len());
    Ok(PartitionProduce { topic_partition: TopicPartition::new(topic.name.clone(), partition), records })
}

fn transaction_support(version: i16) -> TransactionSupport {
    match version {
        ADDING_VERSION.. => TransactionSupport::AddsPartitions,
        ABORTABLE_VERSION => TransactionSupport::Abortable,
        _ => TransactionSupport::Plain,
    }
}

/// Whether the batch has a bit of its attributes set.
fn has_attribute(partition: &RequestPartition, bit: u8) -> bool {
    let attributes = partition.records.as_ref().and_then(|records| records.get(ATTRIBUTES_LOW_POSITION));
    attributes.is_some_and(|attributes| attributes & bit != 0)
}

fn is_zstd(records: &[u8]) -> bool {
    records.get(ATTRIBUTES_LOW_POSITION).is_some_and(|attributes| {
        Compression::from_attributes(i16::from(*attributes)).is_ok_and(|codec| codec == Compression::Zstd)
    })
}

impl Response {
    /// Puts the broker's answers, which come in the order asked, to their partitions.
    fn complete(&mut self, produced: Vec<PartitionProduced>) {
        let asked = self
            .topics
            .iter_mut()
            .flat_map(|topic| &mut topic.partitions)
            .filter(|partition| matches!(partition.result, Produced::Asked));
        for (partition, produced) in asked.zip(produced) {
            partition.result = Produced::Done(produced);
        }
    }

    /// The first thing that went wrong.
    fn first_error(&self) -> Option<ResponseError> {
        self.topics.iter().flat_map(|topic| &topic.partitions).find_map(|partition| partition.result.error())
    }
}

impl Produced {
    fn error(&self) -> Option<ResponseError> {
        match self {
            Produced::Asked => Some(ResponseError::UnknownServerError),
            Produced::Refused(error, _) => Some(*error),
            Produced::Done(produced) => produced.base_offset.as_ref().err().map(error_code::of),
        }
    }

    fn message(&self) -> Option<String> {
        match self {
            Produced::Asked => None,
            Produced::Refused(_, message) => Some(message.clone()),
            Produced::Done(produced) => produced.base_offset.as_ref().err().map(ToString::to_string),
        }
    }
}

fn outcome(header: &RequestHeader, response: &Response, silent: bool) -> Outcome {
    match (silent, response.first_error()) {
        (false, _) => {
            let flexible = header.row.is_flexible(header.version);
            let (chunks, size_bytes) = encode(response, header.version, flexible).finish();
            Outcome::Reply(frame::frame_chunks(header, chunks, size_bytes))
        }
        (true, None) => Outcome::Silent,
        (true, Some(error)) => Outcome::Close(format!("a produce with acks=0 failed: {error}")),
    }
}

/// Frames the answer to a request for so many partitions of one topic, all of which were appended to. For benches.
pub(in crate::kafka) fn sample_reply(header: &RequestHeader, partitions: PartitionIndex) -> frame::Reply {
    let appended = |index| ResponsePartition {
        index,
        result: Produced::Done(PartitionProduced {
            base_offset: Ok(1_000_000),
            log_append_time_ms: -1,
            log_start_offset: 0,
        }),
    };
    let partitions = (0..partitions).map(appended).collect();
    let topic = ResponseTopic { name: StrBytes::from_static_str("orders"), id: Uuid::nil(), partitions };
    match outcome(header, &Response { topics: vec![topic] }, false) {
        Outcome::Reply(reply) => reply,
        Outcome::Silent | Outcome::Close(_) => Vec::new(), // only of acks=0
    }
}

fn decode(body: BytesMut, version: i16, flexible: bool) -> Result<Request, Malformed> {
    let mut reader = Reader::new(body, flexible);
    let transactional_id = reader.read_nullable_string()?;
    let acks = reader.read_i16()?;
    let timeout_ms = reader.read_i32()?;
    let mut topics = Vec::new();
    for _ in 0..reader.read_required_count()? {
        let (name, id) = if version >= TOPIC_ID_VERSION {
            (StrBytes::new(), reader.read_uuid()?)
        } else {
            (reader.read_string()?, Uuid::nil())
        };
        let mut partitions = Vec::new();
        for _ in 0..reader.read_required_count()? {
            let index = reader.read_i32()?;
            let records = reader.read_nullable_bytes()?;
            reader.skip_tagged_fields()?;
            partitions.push(RequestPartition { index, records });
        }
        reader.skip_tagged_fields()?;
        topics.push(RequestTopic { name, id, partitions });
    }
    reader.skip_tagged_fields()?;
    Ok(Request { transactional_id, acks, timeout_ms, topics })
}

fn encode(response: &Response, version: i16, flexible: bool) -> Writer {
    let mut writer = Writer::new(flexible);
    writer.put_count(response.topics.len());
    for topic in &response.topics {
        if version >= TOPIC_ID_VERSION {
            writer.put_uuid(topic.id);
        } else {
            writer.put_nullable_string(Some(&topic.name));
        }
        writer.put_count(topic.partitions.len());
        for partition in &topic.partitions {
            let (base_offset, log_append_time_ms, log_start_offset) = match &partition.result {
                Produced::Done(produced) => match produced.base_offset {
                    Ok(offset) => (offset, produced.log_append_time_ms, produced.log_start_offset),
                    Err(_) => (-1, -1, -1),
                },
                Produced::Asked | Produced::Refused(..) => (-1, -1, -1),
            };
            writer.put_i32(partition.index);
            writer.put_i16(partition.result.error().map_or(error_code::NONE, |error| error.code()));
            writer.put_i64(base_offset);
            writer.put_i64(log_append_time_ms);
            if version >= 5 {
                writer.put_i64(log_start_offset);
            }
            if version >= 8 {
                writer.put_count(0); // record errors
                writer.put_nullable_string(partition.result.message().as_deref());
            }
            writer.end_struct();
        }
        writer.end_struct();
    }
    writer.put_i32(0); // throttle time
    writer.end_struct();
    writer
}

#[cfg(test)]
mod tests;
