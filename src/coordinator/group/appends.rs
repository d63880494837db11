//! What happens when records have reached the log, or have not.
//!
//! Invariant: state that a crash must not take back (offsets, assignments handed out, deletions) changes here and
//! nowhere else.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use crate::model::ProducerId;
use crate::model::group::{
    GroupError, GroupReply, GroupRequest, GroupState, OffsetCommitReply, OffsetFetch, ReplyToken,
};

use super::modern::Dirty;
use super::offsets::OffsetKey;
use super::schema::OffsetValue;
use super::turn::{Output, Turn};
use super::{Effects, GroupCoordinator};

/// Names one append of records between its start and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppendId(pub(super) u64);

/// An append under way.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) after: Vec<AfterAppend>,
    /// Set when its end is reported before that of an earlier one.
    pub(super) outcome: Option<Result<(), GroupError>>,
}

/// One thing that waits for an append.
#[derive(Debug)]
pub(super) enum AfterAppend {
    /// A group's record.
    GroupStored { group_id: Arc<str>, value: Bytes, then: AfterGroupStored },
    /// Offsets, to be committed or, for a producer, held until its transaction ends.
    OffsetsStored {
        group_id: Arc<str>,
        producer_id: Option<ProducerId>,
        offsets: Vec<(OffsetKey, OffsetValue)>,
        token: ReplyToken,
        reply: OffsetCommitReply,
    },
    /// Tombstones of offsets, and of the group's record if `is_group`.
    Forgotten {
        group_id: Arc<str>,
        offsets: Vec<OffsetKey>,
        is_group: bool,
        reply: Option<(ReplyToken, GroupReply)>,
    },
    /// The marker that ends a producer's transaction.
    TransactionEnded { producer_id: ProducerId, is_commit: bool },
    /// What has changed of a group of the new protocols, and the replies that speak of it.
    ModernStored {
        group_id: Arc<str>,
        records: BTreeSet<Dirty>,
        /// The group's classic record, if it was among them.
        classic: Option<Option<Bytes>>,
        replies: Vec<(ReplyToken, GroupReply)>,
    },
    /// A fetch that wants to see what was being stored when it came.
    Fetch { token: ReplyToken, fetch: OffsetFetch },
}

/// What the record of a group was written for.
#[derive(Debug)]
pub(super) enum AfterGroupStored {
    /// The group became empty; nobody waits.
    Nothing,
    /// The leader's assignments for a generation.
    Assign { generation_id: i32, assignments: HashMap<String, Bytes> },
    /// A static member came back in a stable group and waits to hear so.
    WelcomeStaticMember { member_id: Arc<str>, token: ReplyToken, welcome: StaticWelcome },
}

/// What a returned static member is told.
#[derive(Debug)]
pub(super) struct StaticWelcome {
    pub(super) generation_id: i32,
    /// The leader before the takeover, told to clients that cannot be told to skip the assignment (KIP-345).
    pub(super) leader_before: String,
    pub(super) supports_skipping_assignment: bool,
}

impl AfterAppend {
    /// The group on whose behalf records are appended.
    pub(super) fn group_id(&self) -> Option<&Arc<str>> {
        match self {
            AfterAppend::GroupStored { group_id, .. } => Some(group_id),
            AfterAppend::OffsetsStored { group_id, .. } => Some(group_id),
            AfterAppend::Forgotten { group_id, .. } => Some(group_id),
            AfterAppend::ModernStored { group_id, .. } => Some(group_id),
            AfterAppend::TransactionEnded { .. } | AfterAppend::Fetch { .. } => None,
        }
    }
}

impl GroupCoordinator {
    /// The marker that ends a producer's transaction is about to be appended to the partition: its offsets are decided
    /// when that is reported, in the order of the appends.
    pub fn ending_transaction(&mut self, producer_id: ProducerId, is_commit: bool) -> AppendId {
        let after = vec![AfterAppend::TransactionEnded { producer_id, is_commit }];
        self.begin_append(after)
    }

    /// Gives an append its name and its place in the order.
    pub(super) fn begin_append(&mut self, after: Vec<AfterAppend>) -> AppendId {
        let append = AppendId(self.next_append);
        self.next_append += 1;
        self.appends.insert(append, Append { after, outcome: None });
        append
    }

    /// The records of `append` are in the log: what waited for them becomes so, once all earlier appends have ended
    /// too. An id that is not (or no longer) known changes nothing.
    pub fn appended(&mut self, append: AppendId, now_ms: i64) -> Effects {
        self.end_append(append, Ok(()), now_ms)
    }

    /// The records of `append` could not be written: nothing that waited for them becomes so, and who waited is told
    /// `error` (CoordinatorNotAvailable makes clients try again). The records must not appear in the log later.
    pub fn append_failed(&mut self, append: AppendId, error: GroupError, now_ms: i64) -> Effects {
        self.end_append(append, Err(error), now_ms)
    }

    fn end_append(&mut self, append: AppendId, outcome: Result<(), GroupError>, now_ms: i64) -> Effects {
        if let Some(ended) = self.appends.get_mut(&append) {
            ended.outcome = Some(outcome);
        }
        let mut output = Output::default();
        while let Some(first) = self.appends.first_entry()
            && let Some(outcome) = first.get().outcome
        {
            for after in first.remove().after {
                let group_id = self.end_append_of(&after);
                match outcome {
                    Ok(()) => self.finish_append(after, now_ms, &mut output),
                    Err(error) => self.fail_append(after, error, now_ms, &mut output),
                }
                self.forget_if_unused(group_id.as_deref().unwrap_or_default());
            }
        }
        self.finish(output)
    }

    /// Notes that the group, which is given back, has one append less under way.
    fn end_append_of(&mut self, after: &AfterAppend) -> Option<Arc<str>> {
        let group_id = after.group_id()?;
        let group = self.groups.get_mut(group_id)?;
        group.appends_under_way = group.appends_under_way.saturating_sub(1);
        Some(group.id.clone())
    }

    fn finish_append(&mut self, after: AfterAppend, now_ms: i64, output: &mut Output) {
        match after {
            AfterAppend::GroupStored { group_id, value, then } => {
                if let Some(group) = self.groups.get_mut(&group_id) {
                    group.stored = Some(value);
                }
                self.turn(&group_id, output, now_ms, |turn| turn.group_stored(then));
            }
            AfterAppend::OffsetsStored { group_id, producer_id, offsets, token, reply } => {
                self.store_offsets(&group_id, producer_id, offsets, now_ms);
                output.reply(token, GroupReply::OffsetCommit(reply));
            }
            AfterAppend::Forgotten { group_id, offsets, is_group, reply } => {
                self.forget(&group_id, &offsets, is_group);
                output.replies.extend(reply);
            }
            AfterAppend::TransactionEnded { producer_id, is_commit } => {
                self.end_transaction(producer_id, is_commit, now_ms);
            }
            AfterAppend::ModernStored { group_id, classic, replies, .. } => {
                output.replies.extend(replies);
                if let Some(group) = self.groups.get_mut(&group_id) {
                    group.store.end_append();
                    if let Some(stored) = classic {
                        group.stored = stored;
                    }
                }
                // What has changed meanwhile goes next.
                self.turn(&group_id, output, now_ms, |_| {});
            }
            AfterAppend::Fetch { token, fetch } => {
                output.reply(token, GroupReply::OffsetFetch(self.fetched(&fetch)));
            }
        }
    }

    fn fail_append(&mut self, after: AfterAppend, error: GroupError, now_ms: i64, output: &mut Output) {
        match after {
            AfterAppend::GroupStored { group_id, then, .. } => {
                self.turn(&group_id, output, now_ms, |turn| turn.group_not_stored(then, error));
            }
            AfterAppend::OffsetsStored { group_id, producer_id, offsets, token, reply } => {
                self.drop_offsets(&group_id, producer_id, &offsets);
                output.reply(token, GroupReply::OffsetCommit(reply).refused(error));
            }
            AfterAppend::Forgotten { reply, .. } => {
                output.replies.extend(reply.map(|(token, reply)| (token, reply.refused(error))));
            }
            AfterAppend::ModernStored { group_id, records, replies, .. } => {
                let refuse = |(token, reply): (_, GroupReply)| (token, reply.refused(error));
                output.replies.extend(replies.into_iter().map(refuse));
                let Some(group) = self.groups.get_mut(&group_id) else { return };
                group.store.fail_append(records);
                // Those who came meanwhile have their try; without them the next heartbeat has it.
                if group.store.has_waiting() {
                    self.turn(&group_id, output, now_ms, |_| {});
                }
            }
            AfterAppend::TransactionEnded { .. } => {} // whoever wrote the marker writes it again
            AfterAppend::Fetch { token, fetch } => {
                output.reply(token, GroupReply::OffsetFetch(self.fetched(&fetch)));
            }
        }
    }

    /// Answers what waits for an append that nobody will report any more.
    pub(super) fn drop_append(&mut self, after: AfterAppend, error: GroupError, output: &mut Output) {
        match after {
            // Whoever waits for a group's record waits as a member, too, and is answered as such.
            AfterAppend::GroupStored { .. } | AfterAppend::TransactionEnded { .. } => {}
            AfterAppend::OffsetsStored { token, reply, .. } => {
                output.reply(token, GroupReply::OffsetCommit(reply).refused(error));
            }
            AfterAppend::Forgotten { reply, .. } => {
                output.replies.extend(reply.map(|(token, reply)| (token, reply.refused(error))));
            }
            AfterAppend::ModernStored { replies, .. } => {
                let refuse = |(token, reply): (_, GroupReply)| (token, reply.refused(error));
                output.replies.extend(replies.into_iter().map(refuse));
            }
            AfterAppend::Fetch { token, fetch } => {
                output.reply(token, GroupRequest::OffsetFetch(fetch).refused(error));
            }
        }
    }

    fn drop_offsets(
        &mut self,
        group_id: &str,
        producer_id: Option<ProducerId>,
        offsets: &[(OffsetKey, OffsetValue)],
    ) {
        let (Some(producer_id), Some(group)) = (producer_id, self.groups.get_mut(group_id)) else { return };
        for (key, _) in offsets {
            group.offsets.cancel_undecided(producer_id, key);
        }
        group.offsets.drop_decided();
        if !group.offsets.holds_for(producer_id)
            && let Some(group_ids) = self.transactions.get_mut(&producer_id)
        {
            group_ids.remove(group_id);
            if group_ids.is_empty() {
                self.transactions.remove(&producer_id);
            }
        }
    }
}

impl Turn<'_> {
    fn group_stored(&mut self, then: AfterGroupStored) {
        match then {
            AfterGroupStored::Nothing => {}
            AfterGroupStored::Assign { generation_id, assignments } => {
                self.assign(generation_id, &assignments)
            }
            AfterGroupStored::WelcomeStaticMember { member_id, token, welcome } => {
                if self.awaits_welcome(&member_id, token, welcome.generation_id) {
                    self.welcome_static_member(&member_id, token, &welcome);
                }
            }
        }
    }

    fn group_not_stored(&mut self, then: AfterGroupStored, error: GroupError) {
        match then {
            AfterGroupStored::Nothing => {}
            AfterGroupStored::Assign { generation_id, .. } => {
                self.assignment_not_stored(generation_id, error)
            }
            AfterGroupStored::WelcomeStaticMember { member_id, token, welcome } => {
                if self.awaits_welcome(&member_id, token, welcome.generation_id) {
                    self.output.refuse_member(&mut self.group.classic, &member_id, "", error);
                    self.extend_session(&member_id);
                }
            }
        }
    }

    /// Whether the static member still waits for its welcome; a rebalance that began meanwhile answers it instead.
    fn awaits_welcome(&self, member_id: &str, token: ReplyToken, generation_id: i32) -> bool {
        let classic = &self.group.classic;
        classic.is_in(GroupState::Stable)
            && classic.generation_id == generation_id
            && classic.member(member_id).is_some_and(|member| member.awaiting_join() == Some(token))
    }

    fn welcome_static_member(&mut self, member_id: &Arc<str>, token: ReplyToken, welcome: &StaticWelcome) {
        self.classic().take_join(member_id);
        self.extend_session(member_id);
        let is_leader = self.classic().is_leader(member_id);
        let mut joined = self.joined(member_id, is_leader && welcome.supports_skipping_assignment);
        if !welcome.supports_skipping_assignment {
            // A leader that does not know itself as one leaves the assignment as it is.
            joined.leader.clone_from(&welcome.leader_before);
            joined.members.clear();
        }
        self.output.reply(token, GroupReply::Join(joined));
    }
}
