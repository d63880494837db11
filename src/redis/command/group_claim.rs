//! XCLAIM and XAUTOCLAIM.

use super::groups::{Group, place_of_group, put_id, read_these, unexpected};
use super::parse::{self, Options};
use super::{Call, CommandResult, Flow};
use crate::base::clock;
use crate::broker::Broker;
use crate::model::stream_group::{
    Claim, GroupPosition, PendingFilter, StreamEntryId, StreamGroupReply, StreamGroupVerb,
};
use crate::redis::entry_id::{self, OFFSET_MAX};
use crate::redis::error_reply::ErrorReply;
use crate::redis::resp::Encoder;

/// Entries that XAUTOCLAIM claims unless COUNT says otherwise.
const AUTOCLAIM_COUNT: usize = 100;

/// XCLAIM key group consumer min-idle-ms id [id ...] [IDLE ms] [TIME ms] [RETRYCOUNT n] [FORCE] [JUSTID] [LASTID id]
pub(super) async fn xclaim(call: &mut Call<'_>) -> CommandResult {
    let broker = call.client.broker();
    let place = place_of_group(broker, call.arg(1), call.arg(2)).await?;
    let group = Group::new(broker, &place, call.arg(2))?;
    let mut claim = Claim {
        consumer: parse::text(call.arg(3), "consumer's name")?,
        entries: Vec::new(),
        min_idle_ms: min_idle(call.arg(4), "XCLAIM")?,
        delivered_ms: None,
        delivery_count: None,
        keeps_count: false,
        forces: false,
    };
    let mut options = Options::new(call.args, 5);
    while let Some(id) = call.args.get(options.at()).and_then(|id| entry_id::parse_entry(id).ok()) {
        claim.entries.push(id);
        options.next();
    }
    if claim.entries.is_empty() {
        return Err(ErrorReply::invalid_id());
    }
    let now_ms = clock::now_ms();
    let mut last_id = None;
    while !options.is_done() {
        if options.take("IDLE") {
            claim.delivered_ms = Some(now_ms.saturating_sub(parse::integer(options.value()?)?.max(0)));
        } else if options.take("TIME") {
            claim.delivered_ms = Some(parse::integer(options.value()?)?.clamp(0, now_ms));
        } else if options.take("RETRYCOUNT") {
            claim.delivery_count = Some(parse::integer(options.value()?)?.max(0));
        } else if options.take("FORCE") {
            claim.forces = true;
        } else if options.take("JUSTID") {
            claim.keeps_count = true;
        } else if options.take("LASTID") {
            last_id = Some(entry_id::parse_entry(options.value()?)?);
        } else {
            let word = String::from_utf8_lossy(options.value()?).into_owned();
            return Err(ErrorReply::err(format_args!("Unrecognized XCLAIM option '{word}'")));
        }
    }
    let just_ids = claim.keeps_count;
    if let Some(last) = last_id {
        raise_position(&group, last).await?;
    }
    let claimed = claim_of(&group, claim).await?;
    put_claimed(broker, &group, call.out, claimed, just_ids, call.client.front.limits.reply_bytes).await?;
    Ok(Flow::Continue)
}

/// XAUTOCLAIM key group consumer min-idle-ms start [COUNT count] [JUSTID]
pub(super) async fn xautoclaim(call: &mut Call<'_>) -> CommandResult {
    let broker = call.client.broker();
    let consumer = parse::text(call.arg(3), "consumer's name")?;
    let min_idle_ms = min_idle(call.arg(4), "XAUTOCLAIM")?;
    let (start, exclusive) = entry_id::parse_bound(call.arg(5))?;
    let mut options = Options::new(call.args, 6);
    let (mut count, mut just_ids) = (AUTOCLAIM_COUNT, false);
    while !options.is_done() {
        if options.take("COUNT") {
            count = parse::count(options.value()?)
                .ok()
                .filter(|count| *count > 0)
                .ok_or_else(|| ErrorReply::err("COUNT must be > 0"))?;
        } else if options.take("JUSTID") {
            just_ids = true;
        } else {
            return Err(ErrorReply::syntax());
        }
    }
    let place = place_of_group(broker, call.arg(1), call.arg(2)).await?;
    let group = Group::new(broker, &place, call.arg(2))?;
    let first = entry_id::first_offset(broker, &place, start, exclusive).await?;
    // One more than wanted, which is where the next call begins.
    let filter = PendingFilter {
        first,
        last: OFFSET_MAX,
        count: count.saturating_add(1),
        consumer: None,
        min_idle_ms,
    };
    let pending = match group.ask(StreamGroupVerb::Pending(filter)).await? {
        StreamGroupReply::Pending(pending) => pending,
        other => return Err(unexpected(&other)),
    };
    let mut entries: Vec<StreamEntryId> = pending.iter().map(|entry| entry.id).collect();
    let next = if entries.len() > count { entries.pop() } else { None };
    let claim = Claim {
        consumer,
        entries,
        min_idle_ms,
        delivered_ms: None,
        delivery_count: None,
        keeps_count: just_ids,
        forces: false,
    };
    let claimed = claim_of(&group, claim).await?;
    call.out.array(3);
    put_id(call.out, next.unwrap_or(StreamEntryId { offset: 0, timestamp_ms: 0 }));
    let gone = put_claimed(broker, &group, call.out, claimed, just_ids, call.client.front.limits.reply_bytes)
        .await?;
    call.out.array(gone.len());
    gone.iter().for_each(|id| put_id(call.out, *id));
    Ok(Flow::Continue)
}

fn min_idle(text: &[u8], command: &str) -> Result<i64, ErrorReply> {
    let min_idle = parse::integer(text);
    let min_idle = min_idle
        .map_err(|_| ErrorReply::err(format_args!("Invalid min-idle-time argument for {command}")))?;
    Ok(min_idle.max(0))
}

/// LASTID: the group has delivered at least up to this entry.
async fn raise_position(group: &Group<'_>, last: StreamEntryId) -> Result<(), ErrorReply> {
    let StreamGroupReply::Described(description) = group.ask(StreamGroupVerb::Describe).await? else {
        return Ok(());
    };
    let position =
        GroupPosition { next_offset: last.offset.saturating_add(1), last_timestamp_ms: last.timestamp_ms };
    if position.next_offset > description.position.next_offset {
        group.ask(StreamGroupVerb::SetPosition(position)).await?;
    }
    Ok(())
}

async fn claim_of(group: &Group<'_>, claim: Claim) -> Result<Vec<StreamEntryId>, ErrorReply> {
    match group.ask(StreamGroupVerb::Claim(claim)).await? {
        StreamGroupReply::Claimed(claimed) => Ok(claimed),
        other => Err(unexpected(&other)),
    }
}

/// Writes what was claimed. Entries that the log has let go meanwhile are done with: they are acknowledged, not shown,
/// and given back.
async fn put_claimed(
    broker: &Broker,
    group: &Group<'_>,
    out: &mut Encoder,
    claimed: Vec<StreamEntryId>,
    just_ids: bool,
    max_bytes: usize,
) -> Result<Vec<StreamEntryId>, ErrorReply> {
    let mut named = claimed.clone();
    named.sort_unstable();
    named.dedup();
    let read = read_these(broker, &group.key.place, &named, max_bytes).await?;
    let entry_of = |id: &StreamEntryId| {
        read.binary_search_by_key(id, |(id, _)| *id).ok().and_then(|index| read[index].1.as_ref())
    };
    let gone: Vec<StreamEntryId> = named.into_iter().filter(|id| entry_of(id).is_none()).collect();
    if !gone.is_empty() {
        group.count(StreamGroupVerb::Acknowledge(gone.clone())).await?;
    }
    let shown = claimed.iter().filter_map(|id| Some((id, entry_of(id)?)));
    out.array(shown.clone().count());
    for (id, entry) in shown {
        if just_ids {
            put_id(out, *id);
        } else {
            out.raw(entry);
        }
    }
    Ok(gone)
}
