//! XREADGROUP.

use std::rc::Rc;

use futures_lite::future;

use super::groups::{Group, place_of_group, put_id, read_these, unexpected};
use super::parse;
use super::stream_read::{ReadOptions, put_streams, wait_for_entries};
use super::{Call, CommandResult, Flow, WhenSent};
use crate::broker::{Broker, OffsetSpec};
use crate::model::stream_group::{
    GroupPosition, StreamEntryId, StreamGroupKey, StreamGroupReply, StreamGroupRequest, StreamGroupVerb,
};
use crate::model::{NO_TIMESTAMP, Offset, TopicPartition};
use crate::redis::entries::{self, Entries, EntryEnd, Wanted, encode_entry};
use crate::redis::entry_id::{self, EntryId, OFFSET_MAX, list_offset};
use crate::redis::error_reply::ErrorReply;
use crate::redis::link::Link;
use crate::redis::resp::{Encoder, Protocol};
use crate::runtime::spawn_detached;

/// Entries that one command delivers of one stream at most, whatever COUNT says.
const DELIVERED_COUNT_MAX: usize = 10_000;

/// One stream of the command.
struct Reading<'a> {
    name: &'a [u8],
    place: TopicPartition,
    /// New entries, or what is pending behind this entry.
    after: After,
    /// Where the group stood when nothing new was found.
    position: Offset,
}

#[derive(Clone, Copy)]
enum After {
    New,
    Pending(Offset),
}

/// XREADGROUP GROUP group consumer [COUNT count] [BLOCK ms] [NOACK] STREAMS key [key ...] id [id ...]
pub(super) async fn xreadgroup(call: &mut Call<'_>) -> CommandResult {
    if call.word(1) != "GROUP" {
        return Err(ErrorReply::err("Missing GROUP option for XREADGROUP"));
    }
    let group_name = call.arg(2);
    let consumer = parse::text(call.arg(3), "consumer's name")?;
    let options = ReadOptions::parse(call, 4, "xreadgroup", true)?;
    let broker = call.client.broker().clone();
    let mut readings = Vec::with_capacity(options.keys.len());
    for (name, id) in options.keys.iter().zip(&options.ids) {
        let place = place_of_group(&broker, name, group_name).await.map_err(in_xreadgroup)?;
        readings.push(Reading { name, place, after: after_of(id)?, position: 0 });
    }
    // History is answered at once, even with nothing.
    let waits = readings.iter().all(|reading| matches!(reading.after, After::New));
    loop {
        let changed = broker.image_changed();
        let mut found = Vec::new();
        let mut left_bytes = call.client.front.limits.reply_bytes;
        for reading in &mut readings {
            let group = Group::new(&broker, &reading.place, group_name)?;
            let count = options.count.min(DELIVERED_COUNT_MAX);
            let read = match reading.after {
                After::Pending(after) => {
                    let protocol = call.out.protocol();
                    let read = history(&broker, &group, &consumer, after, count, left_bytes, protocol);
                    read.await.map_err(in_xreadgroup)?
                }
                After::New => {
                    let delivering = deliver(&broker, &group, &consumer, count, left_bytes, options.no_ack);
                    let (read, ids) = delivering.await.map_err(in_xreadgroup)?;
                    reading.position = read.next_offset;
                    if options.no_ack && !ids.is_empty() {
                        let then = acknowledge_when_sent(&broker, &call.client.link, &group.key, ids);
                        call.when_sent.borrow_mut().push(then);
                    }
                    read
                }
            };
            left_bytes = left_bytes.saturating_sub(read.bytes.len());
            if !read.is_empty() || matches!(reading.after, After::Pending(_)) {
                found.push((reading.name, read));
            }
        }
        if !found.is_empty() {
            put_streams(call.out, found);
            return Ok(Flow::Continue);
        }
        let left = options.deadline.left().filter(|_| waits && !broker.is_stopping());
        let Some(left) = left else { break };
        let places = readings.iter().map(|reading| (reading.place.clone(), reading.position)).collect();
        future::or(wait_for_entries(&broker, places, left), changed).await;
    }
    call.out.null_array();
    Ok(Flow::Continue)
}

fn in_xreadgroup(error: ErrorReply) -> ErrorReply {
    if error.0.starts_with("NOGROUP") {
        return ErrorReply(format!("{} in XREADGROUP with GROUP option", error.0));
    }
    error
}

fn after_of(id: &[u8]) -> Result<After, ErrorReply> {
    match id {
        b">" => Ok(After::New),
        b"$" => Err(ErrorReply::err(
            "The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this consumer by \
             specifying a proper ID, or use the > ID to get new messages. The $ ID would just return an empty result set.",
        )),
        id => match entry_id::parse(id)? {
            EntryId::At(offset, _) => Ok(After::Pending(offset)),
            _ if id.contains(&b'-') && id != b"0-0" => Ok(After::Pending(0)), // the partition's first entry
            _ => Ok(After::Pending(-1)),
        },
    }
}

/// Delivers what is new; with it which entries became pending by that. Another consumer may be faster; then the next
/// entries are tried.
async fn deliver(
    broker: &Broker,
    group: &Group<'_>,
    consumer: &str,
    count: usize,
    max_bytes: usize,
    no_ack: bool,
) -> Result<(Entries, Vec<StreamEntryId>), ErrorReply> {
    let begin = StreamGroupVerb::Begin { consumer: consumer.to_owned() };
    let mut position = match group.ask(begin).await? {
        StreamGroupReply::Position(position) => position,
        other => return Err(unexpected(&other)),
    };
    loop {
        let wanted = Wanted { from: position, last: OFFSET_MAX, count, max_bytes };
        let read = entries::read(broker, &group.key.place, wanted, encode_entry).await?;
        if read.next_offset <= position {
            return Ok((read, Vec::new())); // nothing is there, not even markers to step over
        }
        let deliver = StreamGroupVerb::Deliver {
            consumer: consumer.to_owned(),
            from: position,
            to: GroupPosition {
                next_offset: read.next_offset,
                last_timestamp_ms: read.ends.last().map_or(NO_TIMESTAMP, |entry| entry.timestamp_ms),
            },
            entries: read.ends.iter().map(EntryEnd::id).collect(),
            keeps_pending: no_ack,
        };
        match group.ask(deliver).await? {
            StreamGroupReply::Delivered(ids) => return Ok((read, ids)),
            StreamGroupReply::Position(moved) => position = moved,
            other => return Err(unexpected(&other)),
        }
    }
}

/// What is pending for the consumer; an entry that is gone is shown without fields.
async fn history(
    broker: &Broker,
    group: &Group<'_>,
    consumer: &str,
    after: Offset,
    count: usize,
    max_bytes: usize,
    protocol: Protocol,
) -> Result<Entries, ErrorReply> {
    let log_start_offset = list_offset(broker, &group.key.place, OffsetSpec::Earliest).await?.0;
    let history = StreamGroupVerb::History { consumer: consumer.to_owned(), after, count, log_start_offset };
    let pending = match group.ask(history).await? {
        StreamGroupReply::Pending(pending) => pending,
        other => return Err(unexpected(&other)),
    };
    let ids: Vec<StreamEntryId> = pending.iter().map(|entry| entry.id).collect();
    let mut found = Entries::default();
    for (id, entry) in read_these(broker, &group.key.place, &ids, max_bytes).await? {
        match entry {
            Some(entry) => found.bytes.extend(entry),
            None => {
                let mut gone = Encoder::new(protocol);
                gone.array(2);
                put_id(&mut gone, id);
                gone.null_array();
                found.bytes.append(gone.as_mut_vec());
            }
        }
        let StreamEntryId { offset, timestamp_ms } = id;
        found.ends.push(EntryEnd { offset, timestamp_ms, end: found.bytes.len() });
    }
    Ok(found)
}

/// NOACK: the entries are pending until they have reached the socket, and then acknowledged.
fn acknowledge_when_sent(
    broker: &Rc<Broker>,
    link: &Rc<Link>,
    key: &StreamGroupKey,
    ids: Vec<StreamEntryId>,
) -> WhenSent {
    let (broker, link, key) = (broker.clone(), link.clone(), key.clone());
    Box::new(move |mark| {
        spawn_detached(async move {
            link.wait_while(|link| link.sent_bytes() < mark).await;
            if link.sent_bytes() >= mark {
                let verb = StreamGroupVerb::Acknowledge(ids);
                let reply = broker.stream_group(StreamGroupRequest { key, verb }).await;
                if let StreamGroupReply::Refused(error) = reply {
                    tracing::warn!(%error, "cannot acknowledge what was sent; it stays pending");
                }
            }
        });
    })
}
