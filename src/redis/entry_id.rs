//! Entry ids: `<timestamp_ms>-<offset>`.
//!
//! The offset is the record's number in its partition, and where it is given it alone decides. An id without it names a
//! moment, which the time index resolves; `<ms>-0` does too, since no entry but a partition's first has that offset and
//! users write it for "from that moment on". `0` and `0-0` lie before every entry.

use super::entries::{self, Wanted};
use super::error_reply::ErrorReply;
use super::resp::digits;
use crate::broker::{Broker, IsolationLevel, OffsetQuery, OffsetSpec};
use crate::model::stream_group::StreamEntryId;
use crate::model::{NO_LEADER_EPOCH, Offset, TopicPartition};

/// Beyond every offset.
pub(super) const OFFSET_MAX: Offset = Offset::MAX - 1;

/// A bulk string of two numbers of 19 digits.
const ID_REPLY_BYTES_MAX: usize = "$39\r\n".len() + 39 + "\r\n".len();

/// An id as a client wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryId {
    /// Before every entry.
    Start,
    /// Behind every entry.
    End,
    /// This very entry, or where it would be: its offset and its time.
    At(Offset, i64),
    /// The first entry of this moment, in milliseconds, or where it would be.
    Moment(i64),
    /// Behind the last entry of this moment.
    AfterMoment(i64),
}

/// Appends the id of a record as a bulk string. A record without a timestamp has 0 in its place.
pub(super) fn write_id(out: &mut Vec<u8>, timestamp_ms: i64, offset: Offset) {
    let timestamp_ms = timestamp_ms.max(0);
    out.reserve(ID_REPLY_BYTES_MAX);
    out.push(b'$');
    digits(out, i64::from(digit_count(timestamp_ms) + 1 + digit_count(offset)));
    out.extend_from_slice(b"\r\n");
    digits(out, timestamp_ms);
    out.push(b'-');
    digits(out, offset);
    out.extend_from_slice(b"\r\n");
}

/// Of a number that is not negative.
fn digit_count(number: i64) -> u32 {
    number.checked_ilog10().map_or(1, |log| log + 1)
}

/// Reads `<ms>-<offset>` or `<ms>`.
///
/// # Errors
/// If it is neither.
pub(super) fn parse(text: &[u8]) -> Result<EntryId, ErrorReply> {
    let text = std::str::from_utf8(text).map_err(|_| ErrorReply::invalid_id())?;
    let (time, offset) = match text.split_once('-') {
        Some((time, offset)) => (number(time)?, Some(number(offset)?)),
        None => (number(text)?, None),
    };
    let time_ms = i64::try_from(time).unwrap_or(i64::MAX);
    Ok(match offset {
        None | Some(0) if time == 0 => EntryId::Start,
        None | Some(0) => EntryId::Moment(time_ms),
        Some(offset) => match Offset::try_from(offset) {
            Ok(offset) if offset <= OFFSET_MAX => EntryId::At(offset, time_ms),
            _ => EntryId::AfterMoment(time_ms), // as `<ms>-18446744073709551615`, Redis's largest
        },
    })
}

/// Reads the id of one entry, which must be complete.
///
/// # Errors
/// If it is no id, or names no entry.
pub(super) fn parse_entry(text: &[u8]) -> Result<StreamEntryId, ErrorReply> {
    let offset = match (parse(text)?, text.contains(&b'-')) {
        (EntryId::At(offset, _), _) => offset,
        (EntryId::Moment(_) | EntryId::Start, true) => 0,
        _ => return Err(ErrorReply::invalid_id()),
    };
    let time = text.split(|byte| *byte == b'-').next().and_then(|time| std::str::from_utf8(time).ok());
    let timestamp_ms = time.and_then(|time| time.parse().ok()).unwrap_or(i64::MAX);
    Ok(StreamEntryId { offset, timestamp_ms })
}

fn number(text: &str) -> Result<u64, ErrorReply> {
    if text.starts_with('+') {
        return Err(ErrorReply::invalid_id());
    }
    text.parse().map_err(|_| ErrorReply::invalid_id())
}

/// Where a range begins: the id, and whether it is left out.
///
/// # Errors
/// If it is no id, or an exclusive one that has no neighbour.
pub(super) fn parse_bound(text: &[u8]) -> Result<(EntryId, bool), ErrorReply> {
    match text {
        b"-" => Ok((EntryId::Start, false)),
        b"+" => Ok((EntryId::End, false)),
        [b'(', rest @ ..] => Ok((parse(rest)?, true)),
        _ => Ok((parse(text)?, false)),
    }
}

/// The first offset at or behind `id`, or behind it when `exclusive`.
///
/// # Errors
/// The broker's.
pub(super) async fn first_offset(
    broker: &Broker,
    place: &TopicPartition,
    id: EntryId,
    exclusive: bool,
) -> Result<Offset, ErrorReply> {
    Ok(match id {
        EntryId::Start => 0,
        EntryId::End => OFFSET_MAX,
        EntryId::At(offset, time_ms) if is_of(broker, place, offset, time_ms).await? => {
            offset + Offset::from(exclusive)
        }
        EntryId::At(_, time_ms) => offset_at(broker, place, time_ms).await?.0,
        EntryId::Moment(time_ms) => {
            let (offset, is_exact) = offset_at(broker, place, time_ms).await?;
            // `<ms>-0` names the partition's first entry exactly when that has this time.
            if exclusive && is_exact && offset == 0 { 1 } else { offset }
        }
        EntryId::AfterMoment(time_ms) => offset_at(broker, place, time_ms.saturating_add(1)).await?.0,
    })
}

/// The last offset at or before `id`, or before it when `exclusive`; -1 if there is none. `is_moment_whole` says that a
/// moment without an offset includes all of its entries, as at the end of a range.
///
/// # Errors
/// The broker's.
pub(super) async fn last_offset(
    broker: &Broker,
    place: &TopicPartition,
    id: EntryId,
    exclusive: bool,
    is_moment_whole: bool,
) -> Result<Offset, ErrorReply> {
    Ok(match id {
        EntryId::Start => -1,
        EntryId::End => OFFSET_MAX,
        EntryId::At(offset, time_ms) if is_of(broker, place, offset, time_ms).await? => {
            offset - Offset::from(exclusive)
        }
        // No entry has this id: what is older than its time lies before it.
        EntryId::At(_, time_ms) => offset_at(broker, place, time_ms).await?.0 - 1,
        EntryId::Moment(time_ms) if is_moment_whole && !exclusive => {
            offset_at(broker, place, time_ms.saturating_add(1)).await?.0 - 1
        }
        EntryId::Moment(time_ms) => {
            let (offset, is_exact) = offset_at(broker, place, time_ms).await?;
            if !exclusive && is_exact && offset == 0 { 0 } else { offset - 1 }
        }
        EntryId::AfterMoment(time_ms) => offset_at(broker, place, time_ms.saturating_add(1)).await?.0 - 1,
    })
}

/// The first offset behind an entry that a reader has seen; cheaper than [`first_offset`], as it trusts the offset.
///
/// # Errors
/// The broker's.
pub(super) async fn offset_behind(
    broker: &Broker,
    place: &TopicPartition,
    id: EntryId,
) -> Result<Offset, ErrorReply> {
    match id {
        EntryId::At(offset, 1..) => Ok(offset + 1),
        id => first_offset(broker, place, id, true).await,
    }
}

/// Whether the entry at `offset` has that time in its id. One that is gone, or not there yet, may have had it.
async fn is_of(
    broker: &Broker,
    place: &TopicPartition,
    offset: Offset,
    time_ms: i64,
) -> Result<bool, ErrorReply> {
    let wanted = Wanted { from: offset, last: offset, count: 1, max_bytes: usize::MAX };
    let read = entries::read(broker, place, wanted, |_, _| {}).await?;
    Ok(read.ends.first().is_none_or(|entry| entry.offset != offset || entry.timestamp_ms == time_ms))
}

/// The first offset whose record is of that moment or later (the end if there is none), and whether it is of that very
/// moment.
async fn offset_at(
    broker: &Broker,
    place: &TopicPartition,
    time_ms: i64,
) -> Result<(Offset, bool), ErrorReply> {
    let found = list_offset(broker, place, OffsetSpec::Timestamp(time_ms)).await?;
    match found.0 {
        offset if offset >= 0 => Ok((offset, found.1 == time_ms)),
        _ => Ok((list_offset(broker, place, OffsetSpec::Latest).await?.0, false)),
    }
}

/// Asks the partition's owner for one offset; offset and timestamp, -1 each if there is none.
///
/// # Errors
/// The broker's.
pub(super) async fn list_offset(
    broker: &Broker,
    place: &TopicPartition,
    spec: OffsetSpec,
) -> Result<(Offset, i64), ErrorReply> {
    let query = OffsetQuery { topic_partition: place.clone(), spec, current_leader_epoch: NO_LEADER_EPOCH };
    let mut answers = broker.list_offsets(IsolationLevel::ReadCommitted, vec![query]).await;
    let listed = answers.pop().unwrap_or(Err(crate::broker::BrokerError::ShardUnavailable))?;
    Ok((listed.offset, listed.timestamp))
}

#[cfg(test)]
mod tests {
    use super::{EntryId, parse, parse_bound, parse_entry, write_id};

    #[test]
    fn ids_are_read_as_written() {
        let parsed = |text: &str| parse(text.as_bytes()).ok();
        assert_eq!(parsed("1690000000000-5"), Some(EntryId::At(5, 1_690_000_000_000)));
        assert_eq!(parsed("1690000000000"), Some(EntryId::Moment(1_690_000_000_000)));
        assert_eq!(parsed("1690000000000-0"), Some(EntryId::Moment(1_690_000_000_000)));
        assert_eq!((parsed("0"), parsed("0-0")), (Some(EntryId::Start), Some(EntryId::Start)));
        assert_eq!(parsed("7-18446744073709551615"), Some(EntryId::AfterMoment(7)));
        for wrong in ["", "-", "+", "x", "1-", "-1", "1-x", "1-2-3", "+1", "$", "18446744073709551616"] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
        assert_eq!(parse_bound(b"(5-6").unwrap(), (EntryId::At(6, 5), true));
        assert!(parse_bound(b"(").is_err());
    }

    #[test]
    fn an_id_names_the_entry_that_it_was_written_for() {
        for (timestamp, offset) in
            [(1_690_000_000_000, 0), (0, 0), (5, 0), (0, 9), (-1, 3), (7, i64::MAX - 1)]
        {
            let mut bulk = Vec::new();
            write_id(&mut bulk, timestamp, offset);
            let text = String::from_utf8(bulk).unwrap();
            let (length, rest) = text[1..].split_once("\r\n").unwrap();
            let text = rest.strip_suffix("\r\n").unwrap();
            assert_eq!(length, text.len().to_string());
            let id = parse_entry(text.as_bytes()).unwrap();
            assert_eq!((id.offset, id.timestamp_ms), (offset, timestamp.max(0)));
        }
        assert!(parse_entry(b"1690000000000").is_err(), "a moment is no entry");
    }
}
