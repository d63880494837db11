//! XCLAIM and XAUTOCLAIM.

use super::groups::{Group, ids_of, lost_id, place_of_group, read_these, unexpected};
use super::parse::{self, Options};
use super::{Call, CommandResult, Flow};
use crate::base::clock;
use crate::broker::Broker;
use crate::model::Offset;
use crate::model::stream_group::{Claim, PendingFilter, StreamGroupReply, StreamGroupVerb};
use crate::redis::entries::encode_entry;
use crate::redis::entry_id::{self, OFFSET_MAX};
use crate::redis::error_reply::ErrorReply;
use crate::redis::resp::Encoder;

/// Entries that XAUTOCLAIM claims unless COUNT says otherwise.
const AUTOCLAIM_COUNT: usize = 100;

/// XCLAIM key group consumer min-idle-ms id [id ...] [IDLE ms] [TIME ms] [RETRYCOUNT n] [FORCE] [JUSTID]
pub(super) async fn xclaim(call: &mut Call<'_>) -> CommandResult {
    let broker = call.client.broker();
    let place = place_of_group(broker, call.arg(1), call.arg(2))?;
    let group = Group::new(broker, &place, call.arg(2))?;
    let mut claim = Claim {
        consumer: parse::text(call.arg(3), "consumer's name")?,
        offsets: Vec::new(),
        min_idle_ms: min_idle(call.arg(4), "XCLAIM")?,
        delivered_ms: None,
        delivery_count: None,
        keeps_count: false,
        forces: false,
    };
    let mut options = Options::new(call.args, 5);
    while let Some(offset) = call.args.get(options.at()).and_then(|id| entry_id::parse_entry(id).ok()) {
        claim.offsets.push(offset);
        options.next();
    }
    if claim.offsets.is_empty() {
        return Err(ErrorReply::invalid_id());
    }
    let now_ms = clock::now_ms();
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
        } else {
            let word = String::from_utf8_lossy(options.value()?).into_owned();
            return Err(ErrorReply::err(format_args!("Unrecognized XCLAIM option '{word}'")));
        }
    }
    let just_ids = claim.keeps_count;
    let claimed = claim_of(&group, claim).await?;
    put_claimed(broker, &group, call.out, claimed, just_ids, call.client.front.limits.reply_bytes).await?;
    Ok(Flow::Continue)
}

/// XAUTOCLAIM key group consumer min-idle-ms start [COUNT count] [JUSTID]
pub(super) async fn xautoclaim(call: &mut Call<'_>) -> CommandResult {
    let broker = call.client.broker();
    let place = place_of_group(broker, call.arg(1), call.arg(2))?;
    let group = Group::new(broker, &place, call.arg(2))?;
    let consumer = parse::text(call.arg(3), "consumer's name")?;
    let min_idle_ms = min_idle(call.arg(4), "XAUTOCLAIM")?;
    let (start, exclusive) = entry_id::parse_bound(call.arg(5))?;
    let first = entry_id::first_offset(broker, &place, start, exclusive).await?;
    let mut options = Options::new(call.args, 6);
    let (mut count, mut just_ids) = (AUTOCLAIM_COUNT, false);
    while !options.is_done() {
        if options.take("COUNT") {
            count = parse::count(options.value()?).ok().filter(|count| *count > 0).ok_or_else(|| {
                ErrorReply::err("COUNT must be > 0")
            })?;
        } else if options.take("JUSTID") {
            just_ids = true;
        } else {
            return Err(ErrorReply::syntax());
        }
    }
    // One more than wanted, which is where the next call begins.
    let filter =
        PendingFilter { first, last: OFFSET_MAX, count: count.saturating_add(1), consumer: None, min_idle_ms };
    let pending = match group.ask(StreamGroupVerb::Pending(filter)).await? {
        StreamGroupReply::Pending(pending) => pending,
        other => return Err(unexpected(&other)),
    };
    let mut offsets: Vec<Offset> = pending.iter().map(|entry| entry.offset).collect();
    let next = if offsets.len() > count { offsets.pop() } else { None };
    let next_id = match next {
        Some(next) => ids_of(broker, &place, &[next]).await?.concat(),
        None => b"$3\r\n0-0\r\n".to_vec(),
    };
    let claim = Claim {
        consumer,
        offsets,
        min_idle_ms,
        delivered_ms: None,
        delivery_count: None,
        keeps_count: just_ids,
        forces: false,
    };
    let claimed = claim_of(&group, claim).await?;
    call.out.array(3);
    call.out.raw(&next_id);
    let gone =
        put_claimed(broker, &group, call.out, claimed, just_ids, call.client.front.limits.reply_bytes).await?;
    call.out.array(gone.len());
    gone.iter().for_each(|offset| call.out.raw(&lost_id(*offset)));
    Ok(Flow::Continue)
}

fn min_idle(text: &[u8], command: &str) -> Result<i64, ErrorReply> {
    let min_idle = parse::integer(text);
    let min_idle =
        min_idle.map_err(|_| ErrorReply::err(format_args!("Invalid min-idle-time argument for {command}")))?;
    Ok(min_idle.max(0))
}

async fn claim_of(group: &Group<'_>, claim: Claim) -> Result<Vec<Offset>, ErrorReply> {
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
    mut claimed: Vec<Offset>,
    just_ids: bool,
    max_bytes: usize,
) -> Result<Vec<Offset>, ErrorReply> {
    claimed.sort_unstable();
    let encode = if just_ids { crate::redis::entries::encode_id } else { encode_entry };
    let read = read_these(broker, &group.key.place, &claimed, encode, max_bytes).await?;
    let gone: Vec<Offset> =
        read.iter().filter(|(_, entry)| entry.is_none()).map(|(offset, _)| *offset).collect();
    if !gone.is_empty() {
        group.count(StreamGroupVerb::Acknowledge(gone.clone())).await?;
    }
    out.array(read.len() - gone.len());
    read.iter().filter_map(|(_, entry)| entry.as_ref()).for_each(|entry| out.raw(entry));
    Ok(gone)
}
