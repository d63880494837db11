//! XADDs and PUBLISHes that follow on each other in one read: added to the rounds of their partitions, answered together.
//!
//! Each command has its own reply, in order. What needs more than a plain append (a topic to be made, an id of one's own,
//! trimming) is not taken here.

mod round;

use std::rc::Rc;

use self::round::{Added, Appended, NewRecord, OpenedRound, Round, Spot};
use super::client::Client;
use super::entries::{KEY_FIELD, VALUE_FIELD};
use super::entry_id::write_id;
use super::error_reply::ErrorReply;
use super::resp::{Args, Encoder};
use crate::broker::Broker;
use crate::record::{Header, Headers};
use crate::runtime::local::Awaited;
use crate::runtime::{spawn_detached, yield_to_ready};

pub(super) use self::round::Rounds;

/// The bytes of a record's own fields, at most, and of a batch's header.
const OVERHEAD_BYTES: usize = 128;
/// Rounds that one read adds to before it waits for them: they are searched for the one that a record went to.
const JOINED_MAX: usize = 256;

/// Replies owed for records on their way to the log.
pub(super) struct Writes {
    rounds: Rc<Rounds>,
    client_id: u64,
    now_ms: i64,
    joined: Vec<Joined>,
    /// Those of them that are ours to append.
    opened: Vec<OpenedRound>,
    replies: Vec<Owed>,
}

/// A round that has records of ours.
struct Joined {
    round: Rc<Round>,
    appended: Awaited<Appended>,
}

struct Owed {
    /// Among those that were joined.
    round: usize,
    spot: Spot,
    kind: OwedKind,
}

enum OwedKind {
    /// The entry's id.
    Entry { timestamp_ms: i64 },
    /// How many subscribers the channel has. Counted before the append: whoever subscribes later reads from behind it.
    Subscribers(usize),
}

impl Writes {
    /// Writes that share record batches with those of other connections.
    pub(super) fn shared(client: &Client, now_ms: i64) -> Self {
        Writes::to(client.front.rounds.clone(), client, now_ms)
    }

    /// Writes that have record batches of their own: what the log refuses of them is nobody else's.
    pub(super) fn alone(client: &Client, now_ms: i64) -> Self {
        Writes::to(Rc::default(), client, now_ms)
    }

    fn to(rounds: Rc<Rounds>, client: &Client, now_ms: i64) -> Self {
        Writes {
            rounds,
            client_id: client.id(),
            now_ms,
            joined: Vec::new(),
            opened: Vec::new(),
            replies: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.replies.is_empty()
    }

    /// Whether it is time to wait for the log. Of the rounds only the last one added to can have become full.
    pub(super) fn is_full(&self) -> bool {
        let last = self.replies.last().map(|owed| &self.joined[owed.round].round);
        self.joined.len() >= JOINED_MAX || last.is_some_and(|round| round.is_full())
    }

    /// Takes the command in if it is a plain XADD or PUBLISH to a topic that is there.
    pub(super) fn add(&mut self, client: &Client, args: &Args<'_>) -> bool {
        let Some(name) = args.get(0) else { return false };
        if name.eq_ignore_ascii_case(b"XADD") {
            let is_plain = args.len() >= 5 && args.len() % 2 == 1 && args.get(2) == Some(b"*");
            is_plain && self.add_entry(client.broker(), args.get(1).unwrap_or_default(), self.now_ms, args, 3)
        } else if name.eq_ignore_ascii_case(b"PUBLISH") || name.eq_ignore_ascii_case(b"SPUBLISH") {
            args.len() == 3 && self.add_payload(client.broker(), args)
        } else {
            false
        }
    }

    /// Adds one entry to the stream `key`: its fields are the arguments from `first_field` on, in pairs.
    pub(super) fn add_entry(
        &mut self,
        broker: &Broker,
        key: &[u8],
        timestamp_ms: i64,
        args: &Args<'_>,
        first_field: usize,
    ) -> bool {
        let fields = Fields::of(args, first_field);
        let bytes_max = args.from(first_field).map(|word| word.len() + 5).sum::<usize>() + OVERHEAD_BYTES;
        let headers = fields.headers();
        let record = NewRecord { timestamp_ms, key: fields.key, value: fields.value, headers, bytes_max };
        let Some(added) = self.rounds.add(broker, self.client_id, key, record) else { return false };
        self.owe(added, OwedKind::Entry { timestamp_ms });
        true
    }

    /// Adds the payload of a PUBLISH.
    fn add_payload(&mut self, broker: &Broker, args: &Args<'_>) -> bool {
        let (channel, payload) = (args.get(1).unwrap_or_default(), args.get(2).unwrap_or_default());
        let record = NewRecord {
            timestamp_ms: self.now_ms,
            key: None,
            value: Some(payload),
            headers: Headers::NONE,
            bytes_max: payload.len() + OVERHEAD_BYTES,
        };
        let Some(added) = self.rounds.add(broker, self.client_id, channel, record) else { return false };
        let count = match self.replies.last().map(|last| (&self.joined[last.round].round, &last.kind)) {
            Some((round, OwedKind::Subscribers(count))) if Rc::ptr_eq(round, &added.round) => *count,
            _ => broker.subscribers_of(added.round.topic()),
        };
        self.owe(added, OwedKind::Subscribers(count));
        true
    }

    fn owe(&mut self, added: Added, kind: OwedKind) {
        let Added { round, spot, opened } = added;
        self.opened.extend(opened);
        let known = self.joined.iter().rposition(|joined| Rc::ptr_eq(&joined.round, &round));
        let round = known.unwrap_or_else(|| {
            let appended = round.appended();
            self.joined.push(Joined { round, appended });
            self.joined.len() - 1
        });
        self.replies.push(Owed { round, spot, kind });
    }

    /// Appends what is ours to append, waits for the rest, and writes the replies.
    pub(super) async fn finish(&mut self, broker: &Rc<Broker>, out: &mut Encoder) {
        if let Some(last) = self.opened.pop() {
            yield_to_ready().await; // they may have more for these rounds
            for other in self.opened.drain(..) {
                let broker = broker.clone();
                spawn_detached(async move { other.append(&broker).await });
            }
            last.append(broker).await;
        }
        let mut appended = Vec::with_capacity(self.joined.len());
        for joined in self.joined.drain(..) {
            appended.push(joined.appended.await);
        }
        if self.replies.iter().any(|owed| matches!(owed.kind, OwedKind::Subscribers(1..))) {
            yield_to_ready().await; // who waits for a message gets it before its publisher gets the reply
        }
        for owed in self.replies.drain(..) {
            let produced = appended[owed.round].as_ref().and_then(|appended| appended.get(owed.spot.batch));
            match (produced.map(|produced| (&produced.base_offset, produced.log_append_time_ms)), owed.kind) {
                (Some((Ok(_), _)), OwedKind::Subscribers(count)) => out.count(count),
                (Some((Ok(base_offset), stamped_ms)), OwedKind::Entry { timestamp_ms }) => {
                    let timestamp_ms = if stamped_ms >= 0 { stamped_ms } else { timestamp_ms };
                    write_id(out.as_mut_vec(), timestamp_ms, base_offset + owed.spot.index);
                }
                (Some((Err(error), _)), _) => out.error(&ErrorReply::from(error.clone()).0),
                (None, _) => out.error("TRYAGAIN the append was given up"),
            }
        }
    }
}

/// The fields of an entry as the parts of a record.
struct Fields<'a, I> {
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    pairs: I,
}

impl<'a> Fields<'a, std::iter::Empty<(&'a [u8], &'a [u8])>> {
    fn of(
        args: &Args<'a>,
        first_field: usize,
    ) -> Fields<'a, impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone + use<'a>> {
        let names = args.from(first_field).step_by(2);
        let values = args.from(first_field + 1).step_by(2);
        let pairs = names.zip(values);
        let first = |wanted: &[u8]| pairs.clone().find(|(name, _)| *name == wanted).map(|(_, value)| value);
        Fields { key: first(KEY_FIELD), value: first(VALUE_FIELD), pairs }
    }
}

impl<'a, I: Iterator<Item = (&'a [u8], &'a [u8])> + Clone> Fields<'a, I> {
    /// Every field that is neither the key nor the value; a second `key` or `value` is a field like any other.
    fn headers(&self) -> impl Iterator<Item = Header<'a>> + Clone {
        let (mut seen_key, mut seen_value) = (false, false);
        self.pairs.clone().filter_map(move |(name, value)| {
            let is_first = |seen: &mut bool| !std::mem::replace(seen, true);
            let is_taken = (name == KEY_FIELD && is_first(&mut seen_key))
                || (name == VALUE_FIELD && is_first(&mut seen_value));
            (!is_taken).then_some(Header { key: name, value: Some(value) })
        })
    }
}
