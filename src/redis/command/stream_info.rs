//! XLEN and XINFO.

use super::group_info::{group_names, info_consumers, info_groups};
use super::{Call, CommandResult, Flow, unknown_subcommand};
use crate::broker::OffsetSpec;
use crate::model::TopicPartition;
use crate::redis::entries::{self, Entries, Wanted, encode_entry, encode_id};
use crate::redis::entry_id::{OFFSET_MAX, list_offset};
use crate::redis::error_reply::ErrorReply;
use crate::redis::stream_name;

/// Offsets before the end among which the last entry is looked for: markers of transactions are no entries.
const LAST_ENTRY_WINDOW: i64 = 64;

/// Counts offsets, as Kafka's tools count lag: markers of transactions and aborted records among them.
pub(super) async fn xlen(call: &mut Call<'_>) -> CommandResult {
    let broker = call.client.broker();
    let length = match stream_name::find(broker, call.arg(1))? {
        Some(place) => {
            let start = list_offset(broker, &place, OffsetSpec::Earliest).await?.0;
            list_offset(broker, &place, OffsetSpec::Latest).await?.0 - start
        }
        None => 0,
    };
    call.out.integer(length.max(0));
    Ok(Flow::Continue)
}

pub(super) async fn xinfo(call: &mut Call<'_>) -> CommandResult {
    match (call.word(1).as_str(), call.args.len()) {
        ("STREAM", 3) => stream(call).await?,
        ("STREAM", _) => {
            return Err(ErrorReply::err("XINFO STREAM FULL is not supported; use XINFO STREAM, XINFO GROUPS and XPENDING"));
        }
        ("GROUPS", 3) => info_groups(call).await?,
        ("CONSUMERS", 4) => info_consumers(call).await?,
        ("HELP", 2) => {
            call.out.array(1);
            call.out.simple("XINFO CONSUMERS key group | GROUPS key | STREAM key");
        }
        ("GROUPS" | "CONSUMERS", _) => return Err(ErrorReply::arity("xinfo")),
        _ => return Err(unknown_subcommand("XINFO", call.arg(1))),
    }
    Ok(Flow::Continue)
}

async fn stream(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let broker = call.client.broker().clone();
    let place = stream_name::existing(&broker, call.arg(2))?;
    let start = list_offset(&broker, &place, OffsetSpec::Earliest).await?.0;
    let end = list_offset(&broker, &place, OffsetSpec::Latest).await?.0;
    let first = read(&broker, &place, start, 1).await?;
    let last = read(&broker, &place, start.max(end - LAST_ENTRY_WINDOW), usize::MAX).await?;
    let group_count = group_names(&broker, &place).await?.len();
    let id_at = async |offset: Option<i64>| -> Result<Vec<u8>, ErrorReply> {
        let Some(offset) = offset else { return Ok(b"$3\r\n0-0\r\n".to_vec()) };
        let wanted = Wanted { from: offset, last: offset, count: 1, max_bytes: usize::MAX };
        Ok(entries::read(&broker, &place, wanted, encode_id).await?.bytes)
    };
    let first_id = id_at(first.ends.first().map(|entry| entry.offset)).await?;
    let last_id = id_at(last.ends.last().map(|entry| entry.offset)).await?;
    let out = &mut *call.out;
    out.map(9);
    for (name, number) in
        [("length", end - start), ("radix-tree-keys", 0), ("radix-tree-nodes", 0), ("entries-added", end)]
    {
        out.bulk(name.as_bytes());
        out.integer(number);
    }
    out.bulk(b"last-generated-id");
    out.raw(&last_id);
    out.bulk(b"recorded-first-entry-id");
    out.raw(&first_id);
    out.bulk(b"groups");
    out.count(group_count);
    for (name, entry) in [("first-entry", first.iter().next()), ("last-entry", last.iter().next_back())] {
        out.bulk(name.as_bytes());
        match entry {
            Some((_, bytes)) => out.raw(bytes),
            None => out.null(),
        }
    }
    Ok(())
}

async fn read(
    broker: &crate::broker::Broker,
    place: &TopicPartition,
    from: i64,
    count: usize,
) -> Result<Entries, ErrorReply> {
    let wanted = Wanted { from, last: OFFSET_MAX, count, max_bytes: usize::MAX };
    entries::read(broker, place, wanted, encode_entry).await
}
