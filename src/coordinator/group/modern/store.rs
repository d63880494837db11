//! How a group of the new protocols gets into the log: one append at a time, everything that has changed with it.
//!
//! The state in memory runs ahead of the log; no reply does. A reply waits until the log holds all that the state it
//! speaks of came from. While an append is under way further changes gather and go with the next one. If an append
//! fails, those who waited for it are refused and its records, with their values of then, go with the next append: the
//! log is never left with a later change without an earlier one.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::coordinator::group::Group;
use crate::coordinator::group::appends::AfterAppend;
use crate::coordinator::group::schema::{self, StateRecord};
use crate::coordinator::group::turn::Turn;
use crate::model::group::{GroupError, GroupReply, ReplyToken};

use super::{About, Kind, ModernGroup, records};

/// A record that is to be written with what is so by then.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::coordinator::group) enum Dirty {
    /// The group as a classic one.
    Classic,
    /// A record of the group as a new one.
    Modern(Kind, About),
}

/// What waits for the log.
#[derive(Debug, Default)]
pub(in crate::coordinator::group) struct ModernStore {
    dirty: BTreeSet<Dirty>,
    is_appending: bool,
    waiting: Vec<(ReplyToken, GroupReply)>,
}

impl ModernStore {
    pub(in crate::coordinator::group) fn is_idle(&self) -> bool {
        self.dirty.is_empty() && !self.is_appending && self.waiting.is_empty()
    }

    pub(in crate::coordinator::group) fn mark(&mut self, dirty: Dirty) {
        self.dirty.insert(dirty);
    }

    /// The classic record is being written by other means.
    pub(in crate::coordinator::group) fn unmark_classic(&mut self) {
        self.dirty.remove(&Dirty::Classic);
    }

    pub(in crate::coordinator::group) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(in crate::coordinator::group) fn end_append(&mut self) {
        self.is_appending = false;
    }

    /// As `end_append` when the records did not reach the log.
    pub(in crate::coordinator::group) fn fail_append(&mut self, mut records: BTreeSet<Dirty>) {
        self.is_appending = false;
        self.dirty.append(&mut records);
    }

    /// A member is gone: what it has not been told yet is not so any more.
    pub(super) fn refuse_member(&mut self, member_id: &str) {
        for (_, reply) in &mut self.waiting {
            let is_of_member = match reply {
                GroupReply::ConsumerHeartbeat(heartbeat) => heartbeat.member_id == member_id,
                GroupReply::Join(join) => join.member_id == member_id,
                _ => false,
            };
            if is_of_member {
                *reply = reply.clone().refused(GroupError::UnknownMemberId);
            }
        }
    }

    /// A member that has asked again (since it took its first request for lost) gets one answer to both: what the first one
    /// gave may have been given back since, and one append tells the log of it all.
    fn overtake(&mut self, newer: &GroupReply) {
        let GroupReply::ConsumerHeartbeat(newer) = newer else { return };
        if newer.assignment.is_none() {
            return;
        }
        for (_, reply) in &mut self.waiting {
            if let GroupReply::ConsumerHeartbeat(earlier) = reply
                && earlier.error.is_none()
                && earlier.member_id == newer.member_id
            {
                earlier.clone_from(newer);
            }
        }
    }

    pub(in crate::coordinator::group) fn take_waiting(&mut self) -> Vec<(ReplyToken, GroupReply)> {
        std::mem::take(&mut self.waiting)
    }
}

impl Group {
    /// Takes the group out of the new protocol: all its records are to go.
    pub(in crate::coordinator::group) fn drop_modern(&mut self) {
        if let Some(modern) = self.modern.take() {
            for about in modern.all_records() {
                self.store.mark(Dirty::Modern(modern.kind, about));
            }
        }
    }

    fn record(&self, dirty: &Dirty) -> StateRecord {
        match dirty {
            Dirty::Classic => {
                let is_classic = self.modern.is_none() && self.classic.member_count() > 0;
                let value =
                    is_classic.then(|| self.classic.to_value(|member| member.assignment.clone()).encode());
                StateRecord { key: schema::group_key(&self.id), value }
            }
            Dirty::Modern(kind, about) => {
                let modern = self.modern.as_ref().filter(|modern| modern.kind == *kind);
                let value = modern.and_then(|modern| modern.record_value(about));
                StateRecord { key: records::key(*kind, &self.id, about), value }
            }
        }
    }
}

impl Turn<'_> {
    /// Answers once the log holds what the group is now.
    pub(in crate::coordinator::group) fn reply_when_stored(&mut self, token: ReplyToken, reply: GroupReply) {
        self.group.store.overtake(&reply);
        self.group.store.waiting.push((token, reply));
    }

    /// Ends a turn: sends changes to the log unless an append is under way, or replies if there are none.
    pub(in crate::coordinator::group) fn settle_modern(&mut self) {
        let group = &mut *self.group;
        if let Some(modern) = &mut group.modern {
            let kind = modern.kind;
            group.store.dirty.extend(modern.take_changed().into_iter().map(|it| Dirty::Modern(kind, it)));
        }
        if group.store.is_appending {
            return;
        }
        let replies = group.store.take_waiting();
        if group.store.dirty.is_empty() {
            return self.output.replies.extend(replies);
        }
        group.store.is_appending = true;
        let dirty = std::mem::take(&mut group.store.dirty);
        let mut classic: Option<Option<Bytes>> = None;
        for about in &dirty {
            let record = group.record(about);
            if *about == Dirty::Classic {
                classic = Some(record.value.clone());
            }
            self.output.records.push(record);
        }
        let group_id = group.id.clone();
        self.await_append(AfterAppend::ModernStored { group_id, records: dirty, classic, replies });
    }
}

impl ModernGroup {
    /// What the record says now; none if it is to be no more.
    pub(super) fn record_value(&self, about: &About) -> Option<Bytes> {
        match about {
            About::Epoch => Some(records::epoch_value(self.kind, self.epoch, self.metadata_hash)),
            About::OldTopics | About::SharePartitions => None,
            About::Member(id) => {
                self.members.get(id).map(|member| records::member_value(self.kind, &member.info))
            }
            About::Regex(regex) => self.regexes.get(regex).map(records::regex_value),
            About::Target(id) => self.targets.get(id).map(records::target_value),
            About::TargetEpoch => {
                let (epoch, made_ms) = (self.assignment_epoch, self.assignment_ms);
                (epoch > 0).then(|| records::target_epoch_value(epoch, made_ms))
            }
            About::Current(id) => {
                let current = self.members.get(id).map(|member| &member.current);
                current.filter(|it| it.epoch != 0).map(|it| records::current_value(self.kind, it))
            }
        }
    }

    /// Every record that the group has or may have had.
    fn all_records(&self) -> BTreeSet<About> {
        let mut all = self.changed.clone();
        all.extend([About::Epoch, About::TargetEpoch]);
        all.extend(self.regexes.keys().cloned().map(About::Regex));
        for id in self.members.keys() {
            all.extend([About::Member(id.clone()), About::Target(id.clone()), About::Current(id.clone())]);
        }
        all
    }

    /// The records that hold the group, for a snapshot.
    pub(in crate::coordinator::group) fn snapshot(&self, group_id: &str) -> Vec<StateRecord> {
        let record = |about: About| {
            let value = self.record_value(&about)?;
            Some(StateRecord { key: records::key(self.kind, group_id, &about), value: Some(value) })
        };
        self.all_records().into_iter().filter_map(record).collect()
    }

    /// About how many bytes the group takes in a snapshot.
    pub(in crate::coordinator::group) fn live_bytes(&self, group_id: &str) -> u64 {
        const MEMBER_BYTES: usize = 300;
        const PARTITION_BYTES: usize = 16;
        let keys = (2 + 3 * self.members.len()) * (group_id.len() + 40);
        let subscriptions: usize =
            self.members.values().flat_map(|member| &member.info.topics).map(String::len).sum();
        let bytes =
            keys + subscriptions + self.members.len() * MEMBER_BYTES + self.holders.len() * PARTITION_BYTES;
        bytes as u64
    }
}
