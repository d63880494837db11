//! XPENDING, XINFO GROUPS, XINFO CONSUMERS.

use super::groups::{Group, entry_at, no_group, place_of_group, put_id, unexpected};
use super::parse::{self, Options};
use super::{Call, CommandResult, Flow};
use crate::base::clock;
use crate::broker::{Broker, OffsetSpec};
use crate::model::group::ListGroups;
use crate::model::stream_group::{
    GroupPosition, PendingEntry, PendingFilter, StreamEntryId, StreamGroupDescription, StreamGroupReply,
    StreamGroupVerb,
};
use crate::model::{NO_TIMESTAMP, Offset, TopicPartition};
use crate::redis::entry_id::{self, OFFSET_MAX, list_offset};
use crate::redis::error_reply::ErrorReply;
use crate::redis::group_offsets;
use crate::redis::resp::Encoder;
use crate::redis::stream_name;
use crate::runtime::yield_if_needed;

/// XPENDING key group [[IDLE min-idle-ms] start end count [consumer]]
pub(super) async fn xpending(call: &mut Call<'_>) -> CommandResult {
    let broker = call.client.broker();
    let place = place_of_group(broker, call.arg(1), call.arg(2)).await?;
    let group = Group::new(broker, &place, call.arg(2))?;
    if call.args.len() == 3 {
        summary(call, &group).await?;
        return Ok(Flow::Continue);
    }
    let mut options = Options::new(call.args, 3);
    let min_idle_ms = if options.take("IDLE") { parse::integer(options.value()?)? } else { 0 };
    let (start, start_exclusive) = entry_id::parse_bound(options.value()?)?;
    let end_text = options.value()?;
    let (end, end_exclusive) = entry_id::parse_bound(end_text)?;
    let count = usize::try_from(parse::integer(options.value()?)?).unwrap_or(0);
    let consumer = options.next().map(|name| parse::text(name, "consumer's name")).transpose()?;
    if !options.is_done() {
        return Err(ErrorReply::syntax());
    }
    let first = entry_id::first_offset(broker, &place, start, start_exclusive).await?;
    let last = entry_id::last_offset(broker, &place, end, end_exclusive, !end_text.contains(&b'-')).await?;
    let filter = PendingFilter { first, last, count, consumer, min_idle_ms };
    let pending = match group.ask(StreamGroupVerb::Pending(filter)).await? {
        StreamGroupReply::Pending(pending) => pending,
        other => return Err(unexpected(&other)),
    };
    let now_ms = clock::now_ms();
    call.out.array(pending.len());
    for entry in &pending {
        call.out.array(4);
        put_id(call.out, entry.id);
        call.out.bulk(entry.consumer.as_bytes());
        call.out.integer((now_ms - entry.delivered_ms).max(0));
        call.out.integer(entry.delivery_count);
    }
    Ok(Flow::Continue)
}

async fn summary(call: &mut Call<'_>, group: &Group<'_>) -> Result<(), ErrorReply> {
    let summary = match group.ask(StreamGroupVerb::Summary).await? {
        StreamGroupReply::Summary(summary) => summary,
        other => return Err(unexpected(&other)),
    };
    call.out.array(4);
    call.out.count(summary.count);
    let (Some(first), Some(last)) = (summary.first, summary.last) else {
        (0..2).for_each(|_| call.out.null());
        call.out.null_array();
        return Ok(());
    };
    put_id(call.out, first);
    put_id(call.out, last);
    call.out.array(summary.by_consumer.len());
    for (name, count) in &summary.by_consumer {
        call.out.array(2);
        call.out.bulk(name.as_bytes());
        call.out.bulk(count.to_string().as_bytes());
    }
    Ok(())
}

/// The groups that read a partition: those that read it entry by entry, and those that have committed an offset of it.
pub(super) async fn group_names(
    broker: &Broker,
    place: &TopicPartition,
) -> Result<Vec<(String, Option<Offset>)>, ErrorReply> {
    let streams = broker.stream_group_names(place).await;
    let mut names: Vec<(String, Option<Offset>)> = streams.into_iter().map(|name| (name, None)).collect();
    let stream_count = names.len();
    for listed in broker.list_groups(ListGroups::default()).await.groups {
        if names[..stream_count].binary_search_by(|(name, _)| name.cmp(&listed.group_id)).is_ok() {
            continue;
        }
        let committed =
            group_offsets::committed(broker, &listed.group_id, &place.topic, &[place.partition]).await?;
        if let Some(offset) = committed.into_iter().flatten().next() {
            names.push((listed.group_id, Some(offset)));
        }
        yield_if_needed().await;
    }
    names.sort_unstable();
    Ok(names)
}

/// XINFO GROUPS key
pub(super) async fn info_groups(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let broker = call.client.broker();
    let place = stream_name::existing(broker, call.arg(2)).await?;
    let end = list_offset(broker, &place, OffsetSpec::Latest).await?.0;
    let mut described = Vec::new();
    for (name, committed) in group_names(broker, &place).await? {
        let description = match committed {
            Some(offset) => without_deliveries(offset),
            None => match describe(broker, &place, &name).await {
                Ok(description) => description,
                Err(error) if error.0.starts_with("NOGROUP") => continue, // destroyed meanwhile
                Err(error) => return Err(error),
            },
        };
        let last_delivered = last_delivered(broker, &place, &description).await?;
        described.push((name, description, last_delivered));
    }
    call.out.array(described.len());
    for (name, group, last_delivered) in described {
        put_group(call.out, &name, &group, last_delivered, end);
    }
    Ok(())
}

/// The id of the last entry that a group was given; 0-0 for none. If its time is not known, since the group was moved by
/// a commit and the entry is gone, 0 stands for it.
pub(super) async fn last_delivered(
    broker: &Broker,
    place: &TopicPartition,
    group: &StreamGroupDescription,
) -> Result<StreamEntryId, ErrorReply> {
    let GroupPosition { next_offset, last_timestamp_ms } = group.position;
    let offset = (next_offset - 1).max(0);
    let unknown = StreamEntryId { offset, timestamp_ms: 0 };
    match (next_offset, last_timestamp_ms) {
        (0, _) => Ok(unknown),
        (_, NO_TIMESTAMP) => Ok(entry_at(broker, place, offset).await?.unwrap_or(unknown)),
        (_, timestamp_ms) => Ok(StreamEntryId { offset, timestamp_ms }),
    }
}

fn put_group(
    out: &mut Encoder,
    name: &str,
    group: &StreamGroupDescription,
    last_delivered: StreamEntryId,
    end: Offset,
) {
    out.map(6);
    out.bulk(b"name");
    out.bulk(name.as_bytes());
    out.bulk(b"consumers");
    out.count(group.consumers.len());
    out.bulk(b"pending");
    out.count(group.pending_count);
    out.bulk(b"last-delivered-id");
    put_id(out, last_delivered);
    put_numbers(out, group, end);
}

fn put_numbers(out: &mut Encoder, group: &StreamGroupDescription, end: Offset) {
    out.bulk(b"entries-read");
    out.integer(group.position.next_offset);
    out.bulk(b"lag");
    out.integer((end - group.position.next_offset).max(0));
}

/// A group that has never read entry by entry: its offset says all.
fn without_deliveries(offset: Offset) -> StreamGroupDescription {
    StreamGroupDescription {
        position: GroupPosition { next_offset: offset, last_timestamp_ms: NO_TIMESTAMP },
        committed_offset: offset,
        pending_count: 0,
        consumers: Vec::new(),
    }
}

async fn describe(
    broker: &Broker,
    place: &TopicPartition,
    name: &str,
) -> Result<StreamGroupDescription, ErrorReply> {
    match Group::new(broker, place, name.as_bytes())?.ask(StreamGroupVerb::Describe).await? {
        StreamGroupReply::Described(description) => Ok(description),
        other => Err(unexpected(&other)),
    }
}

/// XINFO CONSUMERS key group
pub(super) async fn info_consumers(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let broker = call.client.broker();
    let place = stream_name::existing(broker, call.arg(2)).await?;
    let name = parse::text(call.arg(3), "group's name")?;
    let description = describe(broker, &place, &name).await.map_err(|error| {
        if error.0.starts_with("NOGROUP") { no_group(call.arg(2), call.arg(3)) } else { error }
    })?;
    let now_ms = clock::now_ms();
    call.out.array(description.consumers.len());
    for consumer in description.consumers {
        call.out.map(3);
        call.out.bulk(b"name");
        call.out.bulk(consumer.name.as_bytes());
        call.out.bulk(b"pending");
        call.out.count(consumer.pending_count);
        call.out.bulk(b"idle");
        call.out.integer((now_ms - consumer.seen_ms).max(0));
    }
    Ok(())
}

/// A group of XINFO STREAM FULL, with at most `count` of its pending entries, and of each consumer's.
pub(super) async fn put_group_in_full(
    call: &mut Call<'_>,
    place: &TopicPartition,
    name: &str,
    committed: Option<Offset>,
    end: Offset,
    count: usize,
) -> Result<(), ErrorReply> {
    let broker = call.client.broker().clone();
    let description = match committed {
        Some(offset) => without_deliveries(offset),
        None => describe(&broker, place, name).await?,
    };
    let last = last_delivered(&broker, place, &description).await?;
    let pending = pending_of(&broker, place, name, committed, None, count).await?;
    call.out.map(7);
    call.out.bulk(b"name");
    call.out.bulk(name.as_bytes());
    call.out.bulk(b"last-delivered-id");
    put_id(call.out, last);
    put_numbers(call.out, &description, end);
    call.out.bulk(b"pel-count");
    call.out.count(description.pending_count);
    call.out.bulk(b"pending");
    call.out.array(pending.len());
    for entry in &pending {
        call.out.array(4);
        put_id(call.out, entry.id);
        call.out.bulk(entry.consumer.as_bytes());
        call.out.integer(entry.delivered_ms);
        call.out.integer(entry.delivery_count);
    }
    call.out.bulk(b"consumers");
    call.out.array(description.consumers.len());
    for consumer in description.consumers {
        let pending = pending_of(&broker, place, name, committed, Some(consumer.name.clone()), count).await?;
        call.out.map(4);
        call.out.bulk(b"name");
        call.out.bulk(consumer.name.as_bytes());
        call.out.bulk(b"seen-time");
        call.out.integer(consumer.seen_ms);
        call.out.bulk(b"pel-count");
        call.out.count(consumer.pending_count);
        call.out.bulk(b"pending");
        call.out.array(pending.len());
        for entry in &pending {
            call.out.array(3);
            put_id(call.out, entry.id);
            call.out.integer(entry.delivered_ms);
            call.out.integer(entry.delivery_count);
        }
    }
    Ok(())
}

async fn pending_of(
    broker: &Broker,
    place: &TopicPartition,
    name: &str,
    committed: Option<Offset>,
    consumer: Option<String>,
    count: usize,
) -> Result<Vec<PendingEntry>, ErrorReply> {
    if committed.is_some() {
        return Ok(Vec::new());
    }
    let filter = PendingFilter { first: 0, last: OFFSET_MAX, count, consumer, min_idle_ms: 0 };
    match Group::new(broker, place, name.as_bytes())?.ask(StreamGroupVerb::Pending(filter)).await? {
        StreamGroupReply::Pending(pending) => Ok(pending),
        other => Err(unexpected(&other)),
    }
}
