//! XRANGE, XREVRANGE, XREAD.

use std::time::{Duration, Instant};

use futures_lite::future;

use super::parse::{self, Options};
use super::{Call, CommandResult, Flow};
use crate::base::clock;
use crate::broker::{Broker, OffsetSpec};
use crate::model::{Offset, TopicPartition};
use crate::redis::entries::{self, Entries, Wanted, encode_entry};
use crate::redis::entry_id::{self, OFFSET_MAX, list_offset};
use crate::redis::error_reply::ErrorReply;
use crate::redis::resp::{Encoder, Protocol};
use crate::redis::stream_name;
use crate::runtime::sleep;

/// Offsets that XREVRANGE looks at in one go.
const WINDOW_COUNT_MIN: usize = 64;
const WINDOW_COUNT_MAX: usize = 4096;
/// How long one wait for entries lasts; it is taken up again until the client's time is up.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// XRANGE key start end [COUNT count]
pub(super) async fn xrange(call: &mut Call<'_>) -> CommandResult {
    range(call, call.arg(2), call.arg(3), false).await
}

/// XREVRANGE key end start [COUNT count]
pub(super) async fn xrevrange(call: &mut Call<'_>) -> CommandResult {
    range(call, call.arg(3), call.arg(2), true).await
}

async fn range(call: &mut Call<'_>, start: &[u8], end: &[u8], is_reverse: bool) -> CommandResult {
    let (first_id, first_exclusive) = entry_id::parse_bound(start)?;
    let (last_id, last_exclusive) = entry_id::parse_bound(end)?;
    let mut options = Options::new(call.args, 4);
    let mut count = usize::MAX;
    while !options.is_done() {
        if !options.take("COUNT") {
            return Err(ErrorReply::syntax());
        }
        count = usize::try_from(parse::integer(options.value()?)?).unwrap_or(0);
    }
    let broker = call.client.broker();
    let Some(place) = stream_name::find(broker, call.arg(1)).await? else {
        call.out.array(0);
        return Ok(Flow::Continue);
    };
    if count == 0 {
        call.out.null_array();
        return Ok(Flow::Continue);
    }
    let from = entry_id::first_offset(broker, &place, first_id, first_exclusive).await?;
    let is_moment_whole = !end.contains(&b'-');
    let last = entry_id::last_offset(broker, &place, last_id, last_exclusive, is_moment_whole).await?;
    let max_bytes = call.client.front.limits.reply_bytes;
    let wanted = Wanted { from, last, count, max_bytes };
    if is_reverse {
        put_reverse(call.out, read_back(broker, &place, wanted).await?, count);
    } else {
        let found = entries::read(broker, &place, wanted, encode_entry).await?;
        if found.is_full && found.len() < count && found.bytes.len() >= max_bytes {
            return Err(too_large());
        }
        call.out.array(found.len());
        call.out.raw_owned(found.bytes);
    }
    Ok(Flow::Continue)
}

fn too_large() -> ErrorReply {
    ErrorReply::err(
        "the reply would be larger than redis.reply.max.bytes; ask with COUNT, and go on behind the last entry",
    )
}

/// Reads the range from its end on, window by window, the newest window first.
async fn read_back(
    broker: &Broker,
    place: &TopicPartition,
    wanted: Wanted,
) -> Result<Vec<Entries>, ErrorReply> {
    let start = list_offset(broker, place, OffsetSpec::Earliest).await?.0;
    let end = list_offset(broker, place, OffsetSpec::Latest).await?.0;
    let first = wanted.from.max(start);
    let mut last = wanted.last.min(end - 1);
    let (mut windows, mut count, mut bytes) = (Vec::new(), 0, 0);
    while last >= first && count < wanted.count {
        let window = (wanted.count - count).clamp(WINDOW_COUNT_MIN, WINDOW_COUNT_MAX);
        let from = first.max(last - (window as Offset - 1));
        let part = Wanted { from, last, count: usize::MAX, max_bytes: wanted.max_bytes };
        let found = entries::read(broker, place, part, encode_entry).await?;
        count += found.len();
        bytes += found.bytes.len();
        if bytes > wanted.max_bytes {
            return Err(too_large());
        }
        windows.push(found);
        last = from - 1;
    }
    Ok(windows)
}

fn put_reverse(out: &mut Encoder, windows: Vec<Entries>, count: usize) {
    let total: usize = windows.iter().map(Entries::len).sum();
    out.array(total.min(count));
    let newest_first = windows.iter().flat_map(|window| window.iter().rev());
    newest_first.take(count).for_each(|(_, entry)| out.raw(entry));
}

/// How XREAD and XREADGROUP are to read: `[COUNT count] [BLOCK ms] STREAMS key... id...`.
pub(super) struct ReadOptions<'a> {
    pub(super) count: usize,
    pub(super) deadline: Deadline,
    pub(super) no_ack: bool,
    pub(super) keys: Vec<&'a [u8]>,
    pub(super) ids: Vec<&'a [u8]>,
}

/// How long a command may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deadline {
    /// Not at all.
    Now,
    /// Until then.
    At(Instant),
    /// For ever.
    Never,
}

impl Deadline {
    /// How long the next wait may last; none when the time is up.
    pub(super) fn left(self) -> Option<Duration> {
        match self {
            Deadline::Now => None,
            Deadline::Never => Some(WAIT_MAX),
            Deadline::At(end) => {
                Some(end.saturating_duration_since(clock::monotonic())).filter(|left| !left.is_zero())
            }
        }
    }
}

impl<'a> ReadOptions<'a> {
    /// `command` is the name for error texts; `is_group` allows NOACK.
    pub(super) fn parse(
        call: &Call<'a>,
        at: usize,
        command: &str,
        is_group: bool,
    ) -> Result<Self, ErrorReply> {
        let mut options = Options::new(call.args, at);
        let (mut count, mut deadline, mut no_ack) = (usize::MAX, Deadline::Now, false);
        loop {
            if options.take("COUNT") {
                // As in Redis: none and less than none mean no limit.
                count = usize::try_from(parse::integer(options.value()?)?).unwrap_or(0);
                count = if count == 0 { usize::MAX } else { count };
            } else if options.take("BLOCK") {
                let ms = parse::integer(options.value()?)
                    .map_err(|_| ErrorReply::err("timeout is not an integer or out of range"))?;
                let ms = u64::try_from(ms).map_err(|_| ErrorReply::err("timeout is negative"))?;
                deadline = match clock::monotonic().checked_add(Duration::from_millis(ms)) {
                    _ if !call.may_wait => Deadline::Now,
                    Some(end) if ms > 0 => Deadline::At(end),
                    _ => Deadline::Never,
                };
            } else if is_group && options.take("NOACK") {
                no_ack = true;
            } else if options.take("STREAMS") {
                break;
            } else {
                return Err(ErrorReply::syntax());
            }
        }
        let rest: Vec<&[u8]> = call.args.from(options.at()).collect();
        if rest.is_empty() || rest.len() % 2 == 1 {
            return Err(ErrorReply::err(format_args!(
                "Unbalanced '{command}' list of streams: for each stream key an ID or '$' must be specified."
            )));
        }
        let (keys, ids) = rest.split_at(rest.len() / 2);
        Ok(ReadOptions { count, deadline, no_ack, keys: keys.to_vec(), ids: ids.to_vec() })
    }
}

/// One stream of XREAD.
struct Reading<'a> {
    key: &'a [u8],
    /// None while there is no such topic.
    place: Option<TopicPartition>,
    from: Offset,
}

/// XREAD [COUNT count] [BLOCK ms] STREAMS key [key ...] id [id ...]
pub(super) async fn xread(call: &mut Call<'_>) -> CommandResult {
    let options = ReadOptions::parse(call, 1, "xread", false)?;
    let broker = call.client.broker().clone();
    let mut readings = Vec::with_capacity(options.keys.len());
    for (key, id) in options.keys.iter().zip(&options.ids) {
        let place = stream_name::find(&broker, key).await?;
        let from = match (&place, *id) {
            (_, b">") => {
                return Err(ErrorReply::err(
                    "The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option.",
                ));
            }
            (Some(place), b"$") => list_offset(&broker, place, OffsetSpec::Latest).await?.0,
            (Some(place), id) => entry_id::offset_behind(&broker, place, entry_id::parse(id)?).await?,
            (None, b"$") => 0,
            (None, id) => entry_id::parse(id).map(|_| 0)?,
        };
        readings.push(Reading { key, place, from });
    }
    loop {
        let changed = broker.image_changed();
        let found = read_all(call, &mut readings, options.count).await?;
        if !found.is_empty() {
            put_streams(call.out, found);
            return Ok(Flow::Continue);
        }
        let Some(left) = options.deadline.left().filter(|_| !broker.is_stopping()) else { break };
        let places = readings.iter().filter_map(|reading| Some((reading.place.clone()?, reading.from)));
        future::or(wait_for_entries(&broker, places.collect(), left), changed).await;
    }
    call.out.null_array();
    Ok(Flow::Continue)
}

async fn read_all<'a>(
    call: &Call<'_>,
    readings: &mut [Reading<'a>],
    count: usize,
) -> Result<Vec<(&'a [u8], Entries)>, ErrorReply> {
    let broker = call.client.broker();
    let mut left_bytes = call.client.front.limits.reply_bytes;
    let mut found = Vec::new();
    for reading in readings {
        if reading.place.is_none() {
            reading.place = stream_name::find(broker, reading.key).await?;
        }
        let Some(place) = &reading.place else { continue };
        let wanted = Wanted { from: reading.from, last: OFFSET_MAX, count, max_bytes: left_bytes };
        let read = entries::read(broker, place, wanted, encode_entry).await?;
        reading.from = read.next_offset;
        left_bytes = left_bytes.saturating_sub(read.bytes.len());
        if !read.is_empty() {
            found.push((reading.key, read));
        }
    }
    Ok(found)
}

/// Writes streams with their entries, a map in RESP3.
pub(super) fn put_streams(out: &mut Encoder, streams: Vec<(&[u8], Entries)>) {
    let is_map = out.protocol() == Protocol::Resp3;
    if is_map {
        out.map(streams.len());
    } else {
        out.array(streams.len());
    }
    for (key, entries) in streams {
        if !is_map {
            out.array(2);
        }
        out.bulk(key);
        out.array(entries.len());
        out.raw_owned(entries.bytes);
    }
}

/// Resolves when one of the partitions has something at its offset, or after `left`. Without partitions, after `left`.
pub(super) async fn wait_for_entries(broker: &Broker, places: Vec<(TopicPartition, Offset)>, left: Duration) {
    if places.is_empty() {
        return sleep(left).await;
    }
    let positions = places.iter().map(|(place, from)| (place, *from));
    broker.wait_for_records(positions, entries::ISOLATION, left).await;
}
