//! XADD with its options, XTRIM; and what a log cannot do.

use super::parse::{self, Options};
use super::{Call, CommandResult, Flow};
use crate::base::clock;
use crate::broker::{Broker, OffsetSpec};
use crate::model::{Offset, TopicPartition};
use crate::redis::entry_id::{self, EntryId, list_offset};
use crate::redis::error_reply::ErrorReply;
use crate::redis::stream_name::{self, StreamName};
use crate::redis::writes::Writes;

/// What is to go.
#[derive(Debug, Clone, Copy)]
enum Trim {
    /// All but the newest so many.
    MaxLen(Offset),
    /// All before this one.
    MinId(EntryId),
}

impl Trim {
    /// Reads `MAXLEN|MINID [=|~] threshold [LIMIT count]`, if that comes next. Both forms are exact here.
    fn parse(options: &mut Options<'_>) -> Result<Option<Trim>, ErrorReply> {
        let is_max_len = options.take("MAXLEN");
        if !is_max_len && !options.take("MINID") {
            return Ok(None);
        }
        let is_approximate = !options.take("=") && options.take("~");
        let threshold = options.value()?;
        let trim = if is_max_len {
            match parse::integer(threshold)? {
                length if length >= 0 => Trim::MaxLen(length),
                _ => return Err(ErrorReply::err("The MAXLEN argument must be >= 0.")),
            }
        } else {
            Trim::MinId(entry_id::parse(threshold)?)
        };
        if options.take("LIMIT") {
            if !is_approximate {
                return Err(ErrorReply::err(
                    "syntax error, LIMIT cannot be used without the special ~ option",
                ));
            }
            parse::count(options.value()?)?;
        }
        Ok(Some(trim))
    }

    /// Moves the stream's first entry; answers how many entries went.
    async fn apply(self, broker: &Broker, place: &TopicPartition) -> Result<Offset, ErrorReply> {
        let start = list_offset(broker, place, OffsetSpec::Earliest).await?.0;
        let end = list_offset(broker, place, OffsetSpec::Latest).await?.0;
        let wanted = match self {
            Trim::MaxLen(length) => end.saturating_sub(length),
            Trim::MinId(id) => entry_id::first_offset(broker, place, id, false).await?,
        };
        let wanted = wanted.clamp(start, end);
        if wanted == start {
            return Ok(0);
        }
        for deleted in broker.delete_records(vec![(place.clone(), wanted)]).await {
            deleted?;
        }
        Ok(wanted - start)
    }
}

/// XADD key [NOMKSTREAM] [MAXLEN|MINID ...] *|id field value [field value ...]
pub(super) async fn xadd(call: &mut Call<'_>) -> CommandResult {
    let broker = call.client.broker().clone();
    let mut options = Options::new(call.args, 2);
    let (mut makes_stream, mut trim) = (true, None);
    loop {
        if options.take("NOMKSTREAM") {
            makes_stream = false;
        } else if let Some(found) = Trim::parse(&mut options)? {
            if trim.replace(found).is_some() {
                return Err(ErrorReply::err(
                    "syntax error, MAXLEN and MINID options at the same time are not compatible",
                ));
            }
        } else {
            break;
        }
    }
    let id = options.value()?;
    let first_field = options.at();
    let words = call.args.len().saturating_sub(first_field);
    if words == 0 || words % 2 == 1 {
        return Err(ErrorReply::arity("xadd"));
    }
    let wanted = WantedId::parse(id)?;
    let name = StreamName::parse(call.arg(1))?;
    if !makes_stream && broker.image().topic(name.topic).is_none() {
        call.out.null();
        return Ok(Flow::Continue);
    }
    if matches!(wanted, WantedId::Given(..)) && broker.image().topic(name.topic).is_none() {
        return Err(WantedId::not_ours_to_choose()); // no topic is made for a refusal
    }
    let topic = stream_name::topic_or_create(&broker, name.topic).await?;
    // Of several partitions the record's key chooses one, as for Kafka's clients; what looks at the stream as a whole
    // needs its name.
    let needs_place = name.partition.is_some() || trim.is_some() || wanted != WantedId::Any;
    let place = if needs_place { Some(name.partition_of(&topic)?) } else { None };
    let timestamp_ms = match &place {
        Some(place) => wanted.check(&broker, place).await?,
        None => None,
    };
    let now_ms = clock::now_ms();
    let mut writes = Writes::alone(call.client, now_ms);
    let timestamp_ms = timestamp_ms.unwrap_or(now_ms);
    if !writes.add_entry(&broker, call.arg(1), timestamp_ms, &call.args, first_field) {
        return Err(ErrorReply::err("the entry cannot be appended"));
    }
    writes.finish(&broker, call.out).await;
    if let (Some(trim), Some(place)) = (trim, &place) {
        trim.apply(&broker, place).await?;
    }
    Ok(Flow::Continue)
}

/// The id that the client wants for its entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WantedId {
    /// `*`
    Any,
    /// `<ms>-*`
    At(i64),
    /// A complete one.
    Given(i64, Offset),
}

impl WantedId {
    fn parse(text: &[u8]) -> Result<Self, ErrorReply> {
        let number = |text: &[u8]| parse::integer(text).ok().filter(|number| *number >= 0);
        if text == b"*" {
            return Ok(WantedId::Any);
        }
        let (time, offset) = match text.iter().position(|byte| *byte == b'-') {
            Some(dash) => (&text[..dash], &text[dash + 1..]),
            None => (text, &b"0"[..]),
        };
        let time_ms = number(time).ok_or_else(ErrorReply::invalid_id)?;
        if offset == b"*" {
            return Ok(WantedId::At(time_ms));
        }
        match (time_ms, number(offset).ok_or_else(ErrorReply::invalid_id)?) {
            (0, 0) => Err(ErrorReply::err("The ID specified in XADD must be greater than 0-0")),
            (time_ms, offset) => Ok(WantedId::Given(time_ms, offset)),
        }
    }

    /// The timestamp to write, if it is not now.
    async fn check(self, broker: &Broker, place: &TopicPartition) -> Result<Option<i64>, ErrorReply> {
        let (time_ms, offset) = match self {
            WantedId::Any => return Ok(None),
            WantedId::At(time_ms) => (time_ms, None),
            WantedId::Given(time_ms, offset) => (time_ms, Some(offset)),
        };
        let last_ms = list_offset(broker, place, OffsetSpec::MaxTimestamp).await?.1;
        let end = list_offset(broker, place, OffsetSpec::Latest).await?.0;
        if time_ms < last_ms || (time_ms == last_ms && offset.is_some_and(|offset| offset < end)) {
            return Err(ErrorReply::err(
                "The ID specified in XADD is equal or smaller than the target stream top item",
            ));
        }
        if offset.is_some() { Err(WantedId::not_ours_to_choose()) } else { Ok(Some(time_ms)) }
    }

    fn not_ours_to_choose() -> ErrorReply {
        ErrorReply::err(
            "the part of an ID behind the '-' is the entry's offset, which the log gives; write * or <ms>-*",
        )
    }
}

/// XTRIM key MAXLEN|MINID [=|~] threshold [LIMIT count]
pub(super) async fn xtrim(call: &mut Call<'_>) -> CommandResult {
    let mut options = Options::new(call.args, 2);
    let trim = Trim::parse(&mut options)?.filter(|_| options.is_done()).ok_or_else(ErrorReply::syntax)?;
    let broker = call.client.broker();
    let trimmed = match stream_name::find(broker, call.arg(1)).await? {
        Some(place) if place.topic.is_internal() => {
            return Err(ErrorReply::err(format_args!("topic '{}' is the server's own", place.topic)));
        }
        Some(place) => trim.apply(broker, &place).await?,
        None => 0,
    };
    call.out.integer(trimmed);
    Ok(Flow::Continue)
}

pub(super) async fn xdel(_call: &mut Call<'_>) -> CommandResult {
    Err(ErrorReply::err(
        "XDEL is not supported: a log does not give single entries back; XTRIM lets the oldest ones go",
    ))
}

pub(super) async fn xsetid(_call: &mut Call<'_>) -> CommandResult {
    Err(ErrorReply::err("XSETID is not supported: the log numbers its entries"))
}

#[cfg(test)]
mod tests {
    use super::WantedId;

    #[test]
    fn an_id_may_leave_its_offset_to_the_log() {
        let parsed = |text: &str| WantedId::parse(text.as_bytes()).ok();
        assert_eq!(parsed("*"), Some(WantedId::Any));
        assert_eq!(parsed("5-*"), Some(WantedId::At(5)));
        assert_eq!(parsed("5-7"), Some(WantedId::Given(5, 7)));
        assert_eq!(parsed("5"), Some(WantedId::Given(5, 0)));
        for wrong in ["", "x", "-*", "5-x", "*-5", "-1-1"] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }
}
