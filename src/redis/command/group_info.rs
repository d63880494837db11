//! XPENDING, XINFO GROUPS, XINFO CONSUMERS.

use super::groups::{Group, ids_of, no_group, place_of_group, unexpected};
use super::parse::{self, Options};
use super::{Call, CommandResult, Flow};
use crate::base::clock;
use crate::broker::{Broker, OffsetSpec};
use crate::model::group::ListGroups;
use crate::model::stream_group::{
    PendingFilter, StreamGroupDescription, StreamGroupReply, StreamGroupVerb,
};
use crate::model::{Offset, TopicPartition};
use crate::redis::entry_id::{self, list_offset};
use crate::redis::error_reply::ErrorReply;
use crate::redis::group_offsets;
use crate::redis::resp::Encoder;
use crate::redis::stream_name;
use crate::runtime::yield_if_needed;

/// XPENDING key group [[IDLE min-idle-ms] start end count [consumer]]
pub(super) async fn xpending(call: &mut Call<'_>) -> CommandResult {
    let broker = call.client.broker();
    let place = place_of_group(broker, call.arg(1), call.arg(2))?;
    let group = Group::new(broker, &place, call.arg(2))?;
    if call.args.len() == 3 {
        summary(call, &place, &group).await?;
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
    let offsets: Vec<Offset> = pending.iter().map(|entry| entry.offset).collect();
    let ids = ids_of(broker, &place, &offsets).await?;
    let now_ms = clock::now_ms();
    call.out.array(pending.len());
    for (entry, id) in pending.iter().zip(ids) {
        call.out.array(4);
        call.out.raw(&id);
        call.out.bulk(entry.consumer.as_bytes());
        call.out.integer((now_ms - entry.delivered_ms).max(0));
        call.out.integer(entry.delivery_count);
    }
    Ok(Flow::Continue)
}

async fn summary(
    call: &mut Call<'_>,
    place: &TopicPartition,
    group: &Group<'_>,
) -> Result<(), ErrorReply> {
    let summary = match group.ask(StreamGroupVerb::Summary).await? {
        StreamGroupReply::Summary(summary) => summary,
        other => return Err(unexpected(&other)),
    };
    // Each by itself, since the two may be the same.
    let mut ids = Vec::with_capacity(2);
    for offset in summary.first.into_iter().chain(summary.last) {
        ids.extend(ids_of(call.client.broker(), place, &[offset]).await?);
    }
    call.out.array(4);
    call.out.count(summary.count);
    let [first, last] = &ids[..] else {
        (0..2).for_each(|_| call.out.null());
        call.out.null_array();
        return Ok(());
    };
    call.out.raw(first);
    call.out.raw(last);
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
    let place = stream_name::existing(broker, call.arg(2))?;
    let end = list_offset(broker, &place, OffsetSpec::Latest).await?.0;
    let mut described = Vec::new();
    for (name, committed) in group_names(broker, &place).await? {
        let description = match committed {
            // It has never read entry by entry, so its offset says all.
            Some(offset) => StreamGroupDescription {
                next_offset: offset,
                committed_offset: offset,
                pending_count: 0,
                consumers: Vec::new(),
            },
            None => match describe(broker, &place, &name).await {
                Ok(description) => description,
                Err(error) if error.0.starts_with("NOGROUP") => continue, // destroyed meanwhile
                Err(error) => return Err(error),
            },
        };
        let last_delivered = match description.next_offset {
            next if next > 0 => ids_of(broker, &place, &[next - 1]).await?.concat(),
            _ => b"$3\r\n0-0\r\n".to_vec(),
        };
        described.push((name, description, last_delivered));
    }
    call.out.array(described.len());
    for (name, group, last_delivered) in described {
        put_group(call.out, &name, &group, &last_delivered, end);
    }
    Ok(())
}

fn put_group(out: &mut Encoder, name: &str, group: &StreamGroupDescription, last_delivered: &[u8], end: Offset) {
    out.map(6);
    out.bulk(b"name");
    out.bulk(name.as_bytes());
    out.bulk(b"consumers");
    out.count(group.consumers.len());
    out.bulk(b"pending");
    out.count(group.pending_count);
    out.bulk(b"last-delivered-id");
    out.raw(last_delivered);
    out.bulk(b"entries-read");
    out.integer(group.next_offset);
    out.bulk(b"lag");
    out.integer((end - group.next_offset).max(0));
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
    let place = stream_name::existing(broker, call.arg(2))?;
    let name = parse::text(call.arg(3), "group's name")?;
    let description = describe(broker, &place, &name).await.map_err(|error| {
        if error.0.starts_with("NOGROUP") { no_group(call.arg(2), call.arg(3)) } else { error }
    })?;
    let now_ms = clock::now_ms();
    call.out.array(description.consumers.len());
    for consumer in description.consumers {
        call.out.map(4);
        call.out.bulk(b"name");
        call.out.bulk(consumer.name.as_bytes());
        call.out.bulk(b"pending");
        call.out.count(consumer.pending_count);
        call.out.bulk(b"idle");
        call.out.integer((now_ms - consumer.seen_ms).max(0));
        call.out.bulk(b"inactive");
        call.out.integer(if consumer.active_ms < 0 { -1 } else { (now_ms - consumer.active_ms).max(0) });
    }
    Ok(())
}
