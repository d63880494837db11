//! What each verb means: the records that it makes and the reply that it gives.

use std::collections::BTreeMap;

use super::schema::{Change, NAME_BYTES_MAX};
use super::state::{NEVER_MS, Pending, StreamGroup};
use super::{Planned, StreamGroups};
use crate::coordinator::group::StateRecord;
use crate::model::Offset;
use crate::model::stream_group::{
    Claim, GroupPosition, PendingEntry, PendingFilter, PendingSummary, StreamConsumer, StreamEntryId,
    StreamGroupDescription, StreamGroupError, StreamGroupKey, StreamGroupReply, StreamGroupVerb,
};

impl Planned {
    fn reply(reply: StreamGroupReply) -> Self {
        Planned { records: Vec::new(), reply }
    }

    fn refused(error: StreamGroupError) -> Self {
        Planned::reply(StreamGroupReply::Refused(error))
    }
}

/// A group and the records that a verb makes of it.
struct Planning<'a> {
    key: &'a StreamGroupKey,
    group: &'a StreamGroup,
    records: Vec<StateRecord>,
    now_ms: i64,
}

impl Planning<'_> {
    fn put(&mut self, change: &Change) {
        self.records.push(change.encode(self.key));
    }

    /// Makes the consumer, unless it is there; whether it was made.
    fn put_consumer(&mut self, name: &str) -> bool {
        let is_new = !self.group.consumers.contains_key(name);
        if is_new {
            self.put(&Change::Consumer { name: name.to_owned(), seen_ms: self.now_ms, active_ms: NEVER_MS });
        }
        is_new
    }

    fn reply(self, reply: StreamGroupReply) -> Planned {
        Planned { records: self.records, reply }
    }
}

impl StreamGroups {
    /// What `verb` comes to; the state changes when the records are replayed.
    pub fn plan(&self, key: &StreamGroupKey, verb: &StreamGroupVerb, now_ms: i64) -> Planned {
        let Some(group) = self.groups.get(key) else { return plan_without_group(key, verb) };
        let mut planning = Planning { key, group, records: Vec::new(), now_ms };
        if let Some(error) = self.limit_reached(group, verb) {
            return Planned::refused(error);
        }
        match verb {
            StreamGroupVerb::Create(_) => Planned::refused(StreamGroupError::GroupExists),
            StreamGroupVerb::SetPosition(position) => {
                planning.put(&Change::Position(*position));
                planning.reply(StreamGroupReply::Done)
            }
            StreamGroupVerb::Destroy => {
                Planned { records: group.tombstones(key), reply: StreamGroupReply::Count(1) }
            }
            StreamGroupVerb::CreateConsumer(name) => {
                let count = usize::from(planning.put_consumer(name));
                planning.reply(StreamGroupReply::Count(count))
            }
            StreamGroupVerb::DeleteConsumer(name) => delete_consumer(planning, name),
            StreamGroupVerb::Begin { .. } => {
                Planned::reply(StreamGroupReply::Position(group.position.next_offset))
            }
            StreamGroupVerb::Deliver { consumer, from, to, entries, keeps_pending } => {
                let becomes_pending =
                    |id: &&StreamEntryId| !keeps_pending || !group.pending.contains_key(&id.offset);
                let entries = entries.iter().filter(becomes_pending).copied().collect();
                deliver(planning, consumer, *from, *to, entries)
            }
            StreamGroupVerb::Acknowledge(entries) => acknowledge(planning, entries),
            StreamGroupVerb::Summary => Planned::reply(StreamGroupReply::Summary(summary(group))),
            StreamGroupVerb::Pending(filter) => {
                Planned::reply(StreamGroupReply::Pending(pending(group, filter, now_ms)))
            }
            StreamGroupVerb::Claim(wanted) => claim(planning, wanted),
            StreamGroupVerb::History { consumer, after, count, log_start_offset } => {
                history(planning, consumer, (*after, *count), *log_start_offset)
            }
            StreamGroupVerb::Describe => Planned::reply(StreamGroupReply::Described(describe(group))),
        }
    }

    fn limit_reached(&self, group: &StreamGroup, verb: &StreamGroupVerb) -> Option<StreamGroupError> {
        let new_consumer = match verb {
            StreamGroupVerb::CreateConsumer(name) | StreamGroupVerb::Begin { consumer: name } => Some(name),
            StreamGroupVerb::Deliver { consumer, .. } | StreamGroupVerb::History { consumer, .. } => {
                Some(consumer)
            }
            StreamGroupVerb::Claim(claim) => Some(&claim.consumer),
            _ => None,
        };
        if let Some(name) = new_consumer.filter(|name| !group.consumers.contains_key(*name)) {
            if name.len() > NAME_BYTES_MAX {
                return Some(StreamGroupError::LimitReached("the consumer's name is too long".to_owned()));
            }
            if group.consumers.len() >= self.settings.consumers_max {
                return Some(StreamGroupError::LimitReached(format!(
                    "the group has {} consumers, which is redis.group.consumers.max; XGROUP DELCONSUMER takes one away",
                    group.consumers.len()
                )));
            }
        }
        let new_pending = match verb {
            StreamGroupVerb::Deliver { entries, .. } => entries.len(),
            _ => 0,
        };
        (group.pending.len() + new_pending > self.settings.pending_max).then(|| {
            StreamGroupError::LimitReached(format!(
                "the group would have more than {} pending entries, which is redis.group.pending.max; XACK some",
                self.settings.pending_max
            ))
        })
        .filter(|_| new_pending > 0)
    }
}

fn plan_without_group(key: &StreamGroupKey, verb: &StreamGroupVerb) -> Planned {
    match verb {
        StreamGroupVerb::Create(_) if key.group.is_empty() || key.group.len() > NAME_BYTES_MAX => {
            Planned::refused(StreamGroupError::LimitReached(
                "the group's name is empty or too long".to_owned(),
            ))
        }
        StreamGroupVerb::Create(position) => {
            Planned { records: vec![Change::Position(*position).encode(key)], reply: StreamGroupReply::Done }
        }
        StreamGroupVerb::Destroy | StreamGroupVerb::Acknowledge(_) => {
            Planned::reply(StreamGroupReply::Count(0))
        }
        _ => Planned::refused(StreamGroupError::NoGroup),
    }
}

fn delete_consumer(mut planning: Planning<'_>, name: &str) -> Planned {
    let Some(consumer) = planning.group.consumers.get(name) else {
        return Planned::reply(StreamGroupReply::Count(0));
    };
    for offset in &consumer.pending {
        planning.put(&Change::Done(*offset));
    }
    planning.put(&Change::ConsumerGone(name.to_owned()));
    planning.reply(StreamGroupReply::Count(consumer.pending.len()))
}

fn deliver(
    mut planning: Planning<'_>,
    consumer: &str,
    from: Offset,
    to: GroupPosition,
    entries: Vec<StreamEntryId>,
) -> Planned {
    let position = planning.group.position.next_offset;
    if position != from {
        return Planned::reply(StreamGroupReply::Position(position));
    }
    planning.put_consumer(consumer);
    for id in &entries {
        // An entry that is still pending, after the group was set back, counts as new: as in Redis.
        planning.put(&Change::Pending {
            id: *id,
            consumer: consumer.to_owned(),
            delivered_ms: planning.now_ms,
            delivery_count: 1,
        });
    }
    planning.put(&Change::Position(to));
    planning.reply(StreamGroupReply::Delivered(entries))
}

fn acknowledge(mut planning: Planning<'_>, entries: &[StreamEntryId]) -> Planned {
    let pending = &planning.group.pending;
    let is_known =
        |id: &&StreamEntryId| pending.get(&id.offset).is_some_and(|pending| pending.id(id.offset) == **id);
    let mut known: Vec<Offset> = entries.iter().filter(is_known).map(|id| id.offset).collect();
    known.sort_unstable();
    known.dedup();
    for offset in &known {
        planning.put(&Change::Done(*offset));
    }
    planning.reply(StreamGroupReply::Count(known.len()))
}

/// An entry that is named twice is claimed twice, as in Redis.
fn claim(mut planning: Planning<'_>, wanted: &Claim) -> Planned {
    let now_ms = planning.now_ms;
    let delivered_ms = wanted.delivered_ms.unwrap_or(now_ms);
    let mut claimed: Vec<StreamEntryId> = Vec::new();
    let mut counts: BTreeMap<Offset, i64> = BTreeMap::new();
    for id in &wanted.entries {
        let pending = planning.group.pending.get(&id.offset);
        let (is_known, delivered_before_ms, count_before) = match (counts.get(&id.offset), pending) {
            (Some(count), _) => (true, delivered_ms, *count),
            (None, Some(pending)) => {
                (pending.id(id.offset) == *id, pending.delivered_ms, pending.delivery_count)
            }
            (None, None) => (wanted.forces, i64::MIN, 1),
        };
        if !is_known || now_ms.saturating_sub(delivered_before_ms) < wanted.min_idle_ms {
            continue;
        }
        let counted = if wanted.keeps_count { count_before } else { count_before + 1 };
        let delivery_count = wanted.delivery_count.unwrap_or(counted);
        if claimed.is_empty() {
            planning.put_consumer(&wanted.consumer);
        }
        let consumer = wanted.consumer.clone();
        planning.put(&Change::Pending { id: *id, consumer, delivered_ms, delivery_count });
        counts.insert(id.offset, delivery_count);
        claimed.push(*id);
    }
    planning.reply(StreamGroupReply::Claimed(claimed))
}

/// What is pending for one consumer. Being shown it again counts as a delivery, as in Redis.
fn history(
    mut planning: Planning<'_>,
    consumer: &str,
    (after, count): (Offset, usize),
    log_start_offset: Offset,
) -> Planned {
    planning.put_consumer(consumer);
    let own = planning.group.consumers.get(consumer);
    let offsets =
        own.into_iter().flat_map(|consumer| consumer.pending.range(after.saturating_add(1)..)).take(count);
    let mut shown = Vec::new();
    for offset in offsets {
        let Some(pending) = planning.group.pending.get(offset) else { continue };
        let delivered = Change::Pending {
            id: pending.id(*offset),
            consumer: consumer.to_owned(),
            delivered_ms: planning.now_ms,
            delivery_count: pending.delivery_count + 1,
        };
        shown.push(entry(*offset, pending));
        if *offset >= log_start_offset {
            planning.records.push(delivered.encode(planning.key));
        }
    }
    planning.reply(StreamGroupReply::Pending(shown))
}

fn entry(offset: Offset, pending: &Pending) -> PendingEntry {
    PendingEntry {
        id: pending.id(offset),
        consumer: pending.consumer.clone(),
        delivered_ms: pending.delivered_ms,
        delivery_count: pending.delivery_count,
    }
}

fn pending(group: &StreamGroup, filter: &PendingFilter, now_ms: i64) -> Vec<PendingEntry> {
    if filter.first > filter.last {
        return Vec::new();
    }
    let range = filter.first..=filter.last;
    let is_idle = |pending: &Pending| now_ms - pending.delivered_ms >= filter.min_idle_ms;
    match &filter.consumer {
        None => {
            let all = group.pending.range(range).filter(|(_, pending)| is_idle(pending));
            all.take(filter.count).map(|(offset, pending)| entry(*offset, pending)).collect()
        }
        Some(name) => {
            let own = group.consumers.get(name).into_iter().flat_map(|own| own.pending.range(range.clone()));
            let all = own.filter_map(|offset| Some((offset, group.pending.get(offset)?)));
            let idle = all.filter(|(_, pending)| is_idle(pending));
            idle.take(filter.count).map(|(offset, pending)| entry(*offset, pending)).collect()
        }
    }
}

fn summary(group: &StreamGroup) -> PendingSummary {
    let with_pending = group.consumers.iter().filter(|(_, consumer)| !consumer.pending.is_empty());
    PendingSummary {
        count: group.pending.len(),
        first: group.pending.first_key_value().map(|(offset, pending)| pending.id(*offset)),
        last: group.pending.last_key_value().map(|(offset, pending)| pending.id(*offset)),
        by_consumer: with_pending.map(|(name, consumer)| (name.clone(), consumer.pending.len())).collect(),
    }
}

fn describe(group: &StreamGroup) -> StreamGroupDescription {
    let consumers = group.consumers.iter().map(|(name, consumer)| StreamConsumer {
        name: name.clone(),
        pending_count: consumer.pending.len(),
        seen_ms: consumer.seen_ms,
        active_ms: consumer.active_ms,
    });
    StreamGroupDescription {
        position: group.position,
        committed_offset: group.committable(),
        pending_count: group.pending.len(),
        consumers: consumers.collect(),
    }
}
