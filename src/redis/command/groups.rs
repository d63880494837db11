//! Groups that read entry by entry: XGROUP, XACK; and what the commands of the family share.
//!
//! A group is Kafka's group of the same name; see [`crate::coordinator`]'s stream groups for how the two go together.

use super::group_claim::{xautoclaim, xclaim};
use super::group_info::xpending;
use super::group_read::xreadgroup;
use super::parse::{self, Options};
use super::{Call, CommandResult, Flow, commands, unknown_subcommand};
use crate::broker::{Broker, OffsetSpec};
use crate::model::stream_group::{
    GroupPosition, StreamEntryId, StreamGroupError, StreamGroupKey, StreamGroupReply, StreamGroupRequest,
    StreamGroupVerb,
};
use crate::model::{NO_TIMESTAMP, Offset, TopicPartition};
use crate::redis::entries::{self, EntryEnd, Wanted, encode_entry};
use crate::redis::entry_id::{self, EntryId, list_offset};
use crate::redis::error_reply::ErrorReply;
use crate::redis::resp::Encoder;
use crate::redis::stream_name;

/// Entries closer together than this are read in one go.
const READ_GAP_MAX: Offset = 64;

commands! { "stream":
    "XACK" -4 (Write Fast) (1 1 1) "Acknowledges entries." => xack;
    "XAUTOCLAIM" -6 (Write Fast) (1 1 1) "Gives a consumer what others have not acknowledged for long." => xautoclaim;
    "XCLAIM" -6 (Write Fast) (1 1 1) "Gives a consumer entries that are pending for others." => xclaim;
    "XGROUP" -2 (Write) (2 2 1) "Makes, moves and destroys groups and their consumers." => xgroup;
    "XPENDING" -3 (ReadOnly) (1 1 1) "Returns what is delivered and not acknowledged." => xpending;
    "XREADGROUP" -7 (Write Blocking MovableKeys) (0 0 0) "Delivers entries to a consumer, waiting for them." => xreadgroup;
}

/// A group on one partition, as a command names it.
pub(super) struct Group<'a> {
    broker: &'a Broker,
    pub(super) key: StreamGroupKey,
}

impl<'a> Group<'a> {
    pub(super) fn new(broker: &'a Broker, place: &TopicPartition, name: &[u8]) -> Result<Self, ErrorReply> {
        let group = parse::text(name, "group's name")?;
        if group.is_empty() {
            return Err(ErrorReply::err("the group's name is empty"));
        }
        Ok(Group { broker, key: StreamGroupKey { group, place: place.clone() } })
    }

    /// Asks the group's keeper.
    ///
    /// # Errors
    /// Its refusal.
    pub(super) async fn ask(&self, verb: StreamGroupVerb) -> Result<StreamGroupReply, ErrorReply> {
        let request = StreamGroupRequest { key: self.key.clone(), verb };
        match self.broker.stream_group(request).await {
            StreamGroupReply::Refused(error) => Err(self.refused(&error)),
            reply => Ok(reply),
        }
    }

    /// As [`Group::ask`], for a verb that is answered with a count.
    pub(super) async fn count(&self, verb: StreamGroupVerb) -> Result<usize, ErrorReply> {
        match self.ask(verb).await? {
            StreamGroupReply::Count(count) => Ok(count),
            other => Err(unexpected(&other)),
        }
    }

    fn refused(&self, error: &StreamGroupError) -> ErrorReply {
        let StreamGroupKey { group, place } = &self.key;
        match error {
            StreamGroupError::NoGroup => no_group(place.topic.as_bytes(), group.as_bytes()),
            StreamGroupError::GroupExists => {
                ErrorReply("BUSYGROUP Consumer Group name already exists".to_owned())
            }
            StreamGroupError::LimitReached(text) => ErrorReply::err(text),
            StreamGroupError::NotAvailable(text) => ErrorReply(format!("TRYAGAIN {text}")),
            StreamGroupError::HasMembers => ErrorReply::err(format_args!(
                "group '{group}' has members that speak Kafka's protocol; stop them first, or use another group"
            )),
        }
    }
}

pub(super) fn no_group(key: &[u8], group: &[u8]) -> ErrorReply {
    ErrorReply(format!(
        "NOGROUP No such key '{}' or consumer group '{}'",
        String::from_utf8_lossy(key),
        String::from_utf8_lossy(group)
    ))
}

/// A reply of another verb: a fault of ours.
pub(super) fn unexpected(reply: &StreamGroupReply) -> ErrorReply {
    tracing::error!(?reply, "a stream group answers another question");
    ErrorReply::err("internal error")
}

/// The partition that `key` names; missing, it has no group either.
pub(super) async fn place_of_group(
    broker: &Broker,
    key: &[u8],
    group: &[u8],
) -> Result<TopicPartition, ErrorReply> {
    stream_name::find(broker, key).await?.ok_or_else(|| no_group(key, group))
}

/// Reads these entries, which are in ascending order: each as it is in a reply, or none if it is gone.
pub(super) async fn read_these(
    broker: &Broker,
    place: &TopicPartition,
    ids: &[StreamEntryId],
    max_bytes: usize,
) -> Result<Vec<(StreamEntryId, Option<Vec<u8>>)>, ErrorReply> {
    let mut found = Vec::with_capacity(ids.len());
    let mut bytes = 0;
    for run in ids.chunk_by(|left, right| right.offset - left.offset <= READ_GAP_MAX) {
        let (first, last) = (run[0].offset, run[run.len() - 1].offset);
        let mut wanted = run.iter().copied().peekable();
        let mut from = first;
        while wanted.peek().is_some() {
            let range = Wanted { from, last, count: usize::MAX, max_bytes };
            let read = entries::read(broker, place, range, encode_entry).await?;
            for (offset, entry) in read.iter() {
                while let Some(gone) = wanted.next_if(|wanted| wanted.offset < offset) {
                    found.push((gone, None));
                }
                if let Some(id) = wanted.next_if(|wanted| wanted.offset == offset) {
                    bytes += entry.len();
                    found.push((id, Some(entry.to_vec())));
                }
            }
            if !read.is_full || read.is_empty() {
                break;
            }
            from = read.next_offset;
        }
        found.extend(wanted.map(|gone| (gone, None)));
        if bytes > max_bytes {
            return Err(ErrorReply::err(
                "the reply would be larger than redis.reply.max.bytes; ask for fewer entries",
            ));
        }
    }
    Ok(found)
}

/// Writes the id of an entry.
pub(super) fn put_id(out: &mut Encoder, id: StreamEntryId) {
    entry_id::write_id(out.as_mut_vec(), id.timestamp_ms, id.offset);
}

/// XACK key group id [id ...]
async fn xack(call: &mut Call<'_>) -> CommandResult {
    let broker = call.client.broker();
    let ids = call.args.from(3).map(entry_id::parse_entry).collect::<Result<_, _>>()?;
    let count = match stream_name::find(broker, call.arg(1)).await? {
        Some(place) => {
            Group::new(broker, &place, call.arg(2))?.count(StreamGroupVerb::Acknowledge(ids)).await?
        }
        None => 0,
    };
    call.out.count(count);
    Ok(Flow::Continue)
}

/// XGROUP CREATE|SETID|DESTROY|CREATECONSUMER|DELCONSUMER key group ...
async fn xgroup(call: &mut Call<'_>) -> CommandResult {
    let subcommand = call.word(1);
    match (subcommand.as_str(), call.args.len()) {
        ("CREATE", 5..) => create(call).await,
        ("SETID", 5..) => set_id(call).await,
        ("DESTROY", 4) => answer_count(call, StreamGroupVerb::Destroy).await,
        ("CREATECONSUMER", 5) => {
            let consumer = parse::text(call.arg(4), "consumer's name")?;
            answer_count(call, StreamGroupVerb::CreateConsumer(consumer)).await
        }
        ("DELCONSUMER", 5) => {
            let consumer = parse::text(call.arg(4), "consumer's name")?;
            answer_count(call, StreamGroupVerb::DeleteConsumer(consumer)).await
        }
        ("HELP", 2) => {
            call.out.array(1);
            call.out.simple("XGROUP CREATE | CREATECONSUMER | DELCONSUMER | DESTROY | SETID key group ...");
            Ok(Flow::Continue)
        }
        ("CREATE" | "SETID" | "DESTROY" | "CREATECONSUMER" | "DELCONSUMER", _) => {
            Err(ErrorReply::arity(&format!("xgroup|{subcommand}")))
        }
        _ => Err(unknown_subcommand("XGROUP", call.arg(1))),
    }
}

fn missing_stream() -> ErrorReply {
    ErrorReply::err(
        "The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM \
         option to create an empty stream automatically.",
    )
}

async fn create(call: &mut Call<'_>) -> CommandResult {
    let broker = call.client.broker();
    let makes_stream = group_options(call, true)?;
    let start = GroupStart::parse(call.arg(4))?;
    let place = if makes_stream {
        stream_name::find_or_create(broker, call.arg(2)).await?
    } else {
        stream_name::find(broker, call.arg(2)).await?.ok_or_else(missing_stream)?
    };
    if place.topic.is_internal() {
        return Err(ErrorReply::err(format_args!("topic '{}' is the server's own", place.topic)));
    }
    let position = start.position(broker, &place).await?;
    Group::new(broker, &place, call.arg(3))?.ask(StreamGroupVerb::Create(position)).await?;
    call.ok()
}

async fn set_id(call: &mut Call<'_>) -> CommandResult {
    let broker = call.client.broker();
    group_options(call, false)?;
    let place = stream_name::find(broker, call.arg(2)).await?.ok_or_else(missing_stream)?;
    let start = match call.arg(4) {
        b"-" => GroupStart::Behind(EntryId::Start),
        b"+" => GroupStart::End, // beyond the last entry a group cannot have read
        id => GroupStart::parse(id)?,
    };
    let position = start.position(broker, &place).await?;
    Group::new(broker, &place, call.arg(3))?.ask(StreamGroupVerb::SetPosition(position)).await?;
    call.ok()
}

/// `[MKSTREAM] [ENTRIESREAD n]`; entries are counted by their offsets, so the latter changes nothing.
fn group_options(call: &Call<'_>, may_make_stream: bool) -> Result<bool, ErrorReply> {
    let mut options = Options::new(call.args, 5);
    let mut makes_stream = false;
    while !options.is_done() {
        if may_make_stream && options.take("MKSTREAM") {
            makes_stream = true;
        } else if options.take("ENTRIESREAD") {
            parse::integer(options.value()?)?;
        } else {
            return Err(ErrorReply::syntax());
        }
    }
    Ok(makes_stream)
}

/// The last entry that a group is told to have read.
#[derive(Clone, Copy)]
enum GroupStart {
    /// `$`: all of them.
    End,
    Behind(EntryId),
}

impl GroupStart {
    fn parse(id: &[u8]) -> Result<Self, ErrorReply> {
        if id == b"$" { Ok(GroupStart::End) } else { entry_id::parse(id).map(GroupStart::Behind) }
    }

    async fn position(self, broker: &Broker, place: &TopicPartition) -> Result<GroupPosition, ErrorReply> {
        let end = list_offset(broker, place, OffsetSpec::Latest).await?.0;
        let next_offset = match self {
            GroupStart::End => end,
            GroupStart::Behind(id) => entry_id::first_offset(broker, place, id, true).await?.min(end),
        };
        let last = match next_offset {
            0 => None,
            next_offset => entry_at(broker, place, next_offset - 1).await?,
        };
        let last_timestamp_ms = match (last, self) {
            (Some(last), _) => last.timestamp_ms,
            // The entry is gone: only the client still knows its time.
            (None, GroupStart::Behind(EntryId::At(offset, time_ms))) if offset + 1 == next_offset => time_ms,
            (None, _) => NO_TIMESTAMP,
        };
        Ok(GroupPosition { next_offset, last_timestamp_ms })
    }
}

/// The id of the entry at `offset`, if there is one.
pub(super) async fn entry_at(
    broker: &Broker,
    place: &TopicPartition,
    offset: Offset,
) -> Result<Option<StreamEntryId>, ErrorReply> {
    let wanted = Wanted { from: offset, last: offset, count: 1, max_bytes: usize::MAX };
    let read = entries::read(broker, place, wanted, |_, _| {}).await?;
    Ok(read.ends.first().map(EntryEnd::id).filter(|id| id.offset == offset))
}

async fn answer_count(call: &mut Call<'_>, verb: StreamGroupVerb) -> CommandResult {
    let broker = call.client.broker();
    let place = stream_name::find(broker, call.arg(2)).await?.ok_or_else(missing_stream)?;
    let count = Group::new(broker, &place, call.arg(3))?.count(verb).await?;
    call.out.count(count);
    Ok(Flow::Continue)
}
