//! XLEN and XINFO STREAM.

use super::group_info::{group_names, info_consumers, info_groups, put_group_in_full};
use super::groups::put_id;
use super::parse::{self, Options};
use super::{Call, CommandResult, Flow, unknown_subcommand};
use crate::broker::{Broker, OffsetSpec};
use crate::model::stream_group::StreamEntryId;
use crate::model::{Offset, TopicPartition};
use crate::redis::entries::{self, Entries, EntryEnd, Wanted, encode_entry};
use crate::redis::entry_id::{OFFSET_MAX, list_offset};
use crate::redis::error_reply::ErrorReply;
use crate::redis::stream_name;

/// Offsets before the end among which the last entry is looked for: markers of transactions are no entries.
const LAST_ENTRY_WINDOW: Offset = 64;
/// Entries, and pending entries of each group, that FULL shows unless COUNT says otherwise.
const FULL_COUNT: usize = 10;
/// Before every entry.
const NO_ENTRY: StreamEntryId = StreamEntryId { offset: 0, timestamp_ms: 0 };

/// Counts offsets, as Kafka's tools count lag: markers of transactions and aborted records among them.
pub(super) async fn xlen(call: &mut Call<'_>) -> CommandResult {
    let broker = call.client.broker();
    let length = match stream_name::find(broker, call.arg(1)).await? {
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
        ("STREAM", 3..) => stream(call).await?,
        ("GROUPS", 3) => info_groups(call).await?,
        ("CONSUMERS", 4) => info_consumers(call).await?,
        ("HELP", 2) => {
            call.out.array(1);
            call.out.simple("XINFO CONSUMERS key group | GROUPS key | STREAM key [FULL [COUNT count]]");
        }
        ("STREAM" | "GROUPS" | "CONSUMERS", _) => return Err(ErrorReply::arity("xinfo")),
        _ => return Err(unknown_subcommand("XINFO", call.arg(1))),
    }
    Ok(Flow::Continue)
}

/// Where a stream begins and ends.
struct Extent {
    start: Offset,
    end: Offset,
    first: Entries,
    last: Entries,
}

async fn stream(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let mut options = Options::new(call.args, 3);
    let is_full = options.take("FULL");
    let mut count = FULL_COUNT;
    if is_full && options.take("COUNT") {
        // As in Redis: none and less than none mean all.
        count = usize::try_from(parse::integer(options.value()?)?).unwrap_or(0);
        count = if count == 0 { usize::MAX } else { count };
    }
    if !options.is_done() {
        return Err(ErrorReply::syntax());
    }
    let broker = call.client.broker().clone();
    let place = stream_name::existing(&broker, call.arg(2)).await?;
    let start = list_offset(&broker, &place, OffsetSpec::Earliest).await?.0;
    let end = list_offset(&broker, &place, OffsetSpec::Latest).await?.0;
    let max_bytes = call.client.front.limits.reply_bytes;
    let first = read(&broker, &place, start, 1, max_bytes).await?;
    let last = read(&broker, &place, start.max(end - LAST_ENTRY_WINDOW), usize::MAX, max_bytes).await?;
    let groups = group_names(&broker, &place).await?;
    let extent = Extent { start, end, first, last };
    call.out.map(if is_full { 9 } else { 10 });
    put_extent(call, &extent);
    if !is_full {
        call.out.bulk(b"groups");
        call.out.count(groups.len());
        let ends =
            [("first-entry", extent.first.iter().next()), ("last-entry", extent.last.iter().next_back())];
        for (name, entry) in ends {
            call.out.bulk(name.as_bytes());
            match entry {
                Some((_, bytes)) => call.out.raw(bytes),
                None => call.out.null(),
            }
        }
        return Ok(());
    }
    let entries = read(&broker, &place, start, count, max_bytes).await?;
    call.out.bulk(b"entries");
    call.out.array(entries.len());
    call.out.raw_owned(entries.bytes);
    call.out.bulk(b"groups");
    call.out.array(groups.len());
    for (name, committed) in groups {
        put_group_in_full(call, &place, &name, committed, end, count).await?;
    }
    Ok(())
}

fn put_extent(call: &mut Call<'_>, extent: &Extent) {
    let out = &mut *call.out;
    // The numbers of a tree that there is not are those of the smallest one.
    for (name, number) in
        [("length", extent.end - extent.start), ("radix-tree-keys", 1), ("radix-tree-nodes", 2)]
    {
        out.bulk(name.as_bytes());
        out.integer(number);
    }
    out.bulk(b"last-generated-id");
    let unknown = match extent.end {
        0 => NO_ENTRY,
        end => StreamEntryId { offset: end - 1, timestamp_ms: 0 },
    };
    put_id(out, extent.last.ends.last().map_or(unknown, EntryEnd::id));
    out.bulk(b"max-deleted-entry-id");
    put_id(out, NO_ENTRY);
    out.bulk(b"entries-added");
    out.integer(extent.end);
    out.bulk(b"recorded-first-entry-id");
    put_id(out, extent.first.ends.first().map_or(NO_ENTRY, EntryEnd::id));
}

async fn read(
    broker: &Broker,
    place: &TopicPartition,
    from: Offset,
    count: usize,
    max_bytes: usize,
) -> Result<Entries, ErrorReply> {
    let wanted = Wanted { from, last: OFFSET_MAX, count, max_bytes };
    entries::read(broker, place, wanted, encode_entry).await
}
