//! One group's turn: the group, what it may touch, and what it puts out.
//!
//! The phases (`join`, `sync`, `rebalance`, `membership`, `retention`) are verbs of `Turn`. It is made by
//! `GroupCoordinator::turn` for the length of one call.

use std::sync::Arc;

use bytes::Bytes;

use crate::model::group::{GroupError, GroupReply, JoinGroupReply, ReplyToken, SyncGroupReply};
use crate::model::{ProducerEpoch, ProducerId};

use super::super::timers::Timers;
use super::appends::{AfterAppend, AfterGroupStored};
use super::classic_group::{ClassicGroup, Member};
use super::schema::{self, StateRecord};
use super::topics::Topics;
use super::{Group, GroupSettings, IdSource, TimerKey};

/// Effects in the making.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) replies: Vec<(ReplyToken, GroupReply)>,
    pub(super) records: Vec<StateRecord>,
    /// What waits for the records to be in the log.
    pub(super) after: Vec<AfterAppend>,
    pub(super) producer: Option<(ProducerId, ProducerEpoch)>,
}

impl Output {
    pub(super) fn reply(&mut self, token: ReplyToken, reply: GroupReply) {
        self.replies.push((token, reply));
    }

    /// Answers a member's waiting join and sync, if any, with `error`; the join names `reply_id` as the member.
    pub(super) fn refuse_member(
        &mut self,
        classic: &mut ClassicGroup,
        member_id: &str,
        reply_id: &str,
        error: GroupError,
    ) {
        if let Some(token) = classic.take_join(member_id) {
            self.reply(token, GroupReply::Join(JoinGroupReply::refused(reply_id, error)));
        }
        if let Some(token) = classic.member_mut(member_id).and_then(|member| member.awaiting_sync.take()) {
            self.reply(token, GroupReply::Sync(SyncGroupReply::refused(error)));
        }
    }
}

/// One group and its surroundings for the length of one call.
pub(super) struct Turn<'a> {
    pub(super) group: &'a mut Group,
    pub(super) timers: &'a mut Timers<TimerKey>,
    pub(super) settings: &'a GroupSettings,
    pub(super) topics: &'a Topics,
    pub(super) ids: &'a mut IdSource,
    pub(super) output: &'a mut Output,
    pub(super) now_ms: i64,
}

impl Turn<'_> {
    pub(super) fn classic(&mut self) -> &mut ClassicGroup {
        &mut self.group.classic
    }

    pub(super) fn refuse_join(&mut self, token: ReplyToken, member_id: &str, error: GroupError) {
        self.output.reply(token, GroupReply::Join(JoinGroupReply::refused(member_id, error)));
    }

    pub(super) fn refuse_sync(&mut self, token: ReplyToken, error: GroupError) {
        self.output.reply(token, GroupReply::Sync(SyncGroupReply::refused(error)));
    }

    /// A member's current generation, as its JoinGroup reply.
    pub(super) fn joined(&self, member_id: &str, skip_assignment: bool) -> JoinGroupReply {
        let classic = &self.group.classic;
        JoinGroupReply {
            error: None,
            generation_id: classic.generation_id,
            protocol_type: classic.protocol_type.clone(),
            protocol_name: classic.protocol_name.clone(),
            leader: classic.leader_or_empty().to_owned(),
            skip_assignment,
            member_id: member_id.to_owned(),
            members: if classic.is_leader(member_id) { classic.joined_members() } else { Vec::new() },
        }
    }

    /// Removes a member, answering what it waited for, or a pending one.
    pub(super) fn remove_member(&mut self, member_id: &str) {
        self.output.refuse_member(&mut self.group.classic, member_id, "", GroupError::UnknownMemberId);
        self.group.classic.remove(member_id);
        self.timers.cancel(&self.session_key(member_id));
    }

    /// Lets a member live for its session timeout from now.
    pub(super) fn extend_session(&mut self, member_id: &str) {
        let Some(member) = self.group.classic.member(member_id) else { return };
        let (id, timeout_ms) = (member.id.clone(), i64::from(member.session_timeout_ms));
        let deadline_ms = self.deadline_ms(timeout_ms);
        self.timers.set(TimerKey::Session(self.group.id.clone(), id), deadline_ms);
    }

    /// As `extend_session` with another timeout, or for a pending member.
    pub(super) fn set_session(&mut self, member_id: &Arc<str>, timeout_ms: i64) {
        let deadline_ms = self.deadline_ms(timeout_ms);
        self.timers.set(TimerKey::Session(self.group.id.clone(), member_id.clone()), deadline_ms);
    }

    fn session_key(&self, member_id: &str) -> TimerKey {
        TimerKey::Session(self.group.id.clone(), member_id.into())
    }

    pub(super) fn set_join_timer(&mut self, delay_ms: i64) {
        self.timers.set(TimerKey::Join(self.group.id.clone()), self.deadline_ms(delay_ms));
    }

    pub(super) fn cancel_join_timer(&mut self) {
        self.timers.cancel(&TimerKey::Join(self.group.id.clone()));
    }

    pub(super) fn set_sync_timer(&mut self, delay_ms: i64) {
        self.timers.set(TimerKey::Sync(self.group.id.clone()), self.deadline_ms(delay_ms));
    }

    pub(super) fn cancel_sync_timer(&mut self) {
        self.timers.cancel(&TimerKey::Sync(self.group.id.clone()));
    }

    /// Looks after offsets in `delay_ms`, or earlier if that is planned already.
    pub(super) fn plan_retention(&mut self, delay_ms: i64) {
        let deadline_ms = self.deadline_ms(delay_ms);
        self.timers.set_if_earlier(TimerKey::Retention(self.group.id.clone()), deadline_ms);
    }

    fn deadline_ms(&self, delay_ms: i64) -> i64 {
        self.now_ms.saturating_add(delay_ms)
    }

    /// Sends the group's record with the given assignments to the log.
    pub(super) fn store_group(&mut self, assignment_of: impl Fn(&Member) -> Bytes, then: AfterGroupStored) {
        let value = self.group.classic.to_value(assignment_of).encode();
        self.group.store.unmark_classic();
        self.output
            .records
            .push(StateRecord { key: schema::group_key(&self.group.id), value: Some(value.clone()) });
        self.await_append(AfterAppend::GroupStored { group_id: self.group.id.clone(), value, then });
    }

    /// Lets something wait for the records of this turn.
    pub(super) fn await_append(&mut self, after: AfterAppend) {
        self.group.appends_under_way += 1;
        self.output.after.push(after);
    }
}
