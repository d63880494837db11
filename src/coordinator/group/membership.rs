//! Staying in a group and leaving it: heartbeats, LeaveGroup, and sessions that expire.
//!
//! Source: Kafka's GroupMetadataManager.classicGroupHeartbeat, classicGroupLeave and
//! expireClassicGroupMemberHeartbeat.

use std::sync::Arc;

use crate::model::group::{
    GroupError, GroupReply, GroupState, Heartbeat, HeartbeatReply, LeaveGroup, LeaveGroupReply,
    LeavingMember, LeftMember, ReplyToken,
};

use super::turn::Turn;
use super::{Effects, GroupCoordinator, TimerKey};

impl GroupCoordinator {
    pub(super) fn heartbeat(&mut self, token: ReplyToken, heartbeat: &Heartbeat, now_ms: i64) -> Effects {
        let mut error = Some(GroupError::UnknownMemberId);
        let mut effects =
            self.turn_alone(&heartbeat.group_id, now_ms, |turn| error = turn.heartbeat(heartbeat).err());
        effects.replies.push((token, GroupReply::Heartbeat(HeartbeatReply { error })));
        effects
    }

    pub(super) fn leave(&mut self, token: ReplyToken, leave: &LeaveGroup, now_ms: i64) -> Effects {
        if self.groups.get(leave.group_id.as_str()).is_some_and(|group| group.modern.is_some()) {
            return self.turn_alone(&leave.group_id, now_ms, |turn| turn.leave_as_classic(token, leave));
        }
        let mut members: Vec<LeftMember> = Vec::with_capacity(leave.members.len());
        let mut effects =
            self.turn_alone(&leave.group_id, now_ms, |turn| members = turn.leave(&leave.members));
        if members.len() < leave.members.len() {
            let unknown = |member| left(member, Err(GroupError::UnknownMemberId));
            members = leave.members.iter().map(unknown).collect();
        }
        effects.replies.push((token, GroupReply::Leave(LeaveGroupReply { error: None, members })));
        effects
    }
}

impl Turn<'_> {
    fn heartbeat(&mut self, heartbeat: &Heartbeat) -> Result<(), GroupError> {
        if self.group.modern.is_some() {
            return self.heartbeat_consumer_group(heartbeat);
        }
        let classic = self.classic();
        classic.check_member(&heartbeat.member_id, heartbeat.group_instance_id.as_deref())?;
        if heartbeat.generation_id != classic.generation_id {
            return Err(GroupError::IllegalGeneration);
        }
        let state = classic.state();
        self.extend_session(&heartbeat.member_id);
        match state {
            GroupState::CompletingRebalance | GroupState::Stable => Ok(()),
            GroupState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            GroupState::Empty | GroupState::Dead => Err(GroupError::UnknownMemberId),
        }
    }

    fn leave(&mut self, leaving: &[LeavingMember]) -> Vec<LeftMember> {
        let members: Vec<LeftMember> =
            leaving.iter().map(|member| left(member, self.leave_one(member))).collect();
        let has_anyone_left = members.iter().any(|member| member.error.is_none());
        if has_anyone_left && !self.classic().is_in(GroupState::Empty) {
            self.rebalance("a member left");
        }
        members
    }

    fn leave_one(&mut self, member: &LeavingMember) -> Result<(), GroupError> {
        let instance_id = member.group_instance_id.as_deref();
        if member.member_id.is_empty() {
            // An admin removes a static member by its name.
            let named = instance_id.and_then(|id| self.group.classic.static_member_id(id));
            self.remove_member(&named.ok_or(GroupError::UnknownMemberId)?);
        } else {
            if !self.classic().pending_joins.contains(member.member_id.as_str()) {
                self.classic().check_member(&member.member_id, instance_id)?;
            }
            self.remove_member(&member.member_id);
        }
        Ok(())
    }

    /// The session timer of a member, or of a pending one, has come.
    pub(super) fn expire_session(&mut self, member_id: &str) {
        let classic = self.classic();
        if classic.member(member_id).is_some_and(|member| member.is_excused()) {
            // The reply it waits for starts its session anew.
            return;
        }
        let was_pending = classic.pending_joins.contains(member_id);
        if !was_pending && classic.member(member_id).is_none() {
            return;
        }
        tracing::debug!(member = member_id, was_pending, "group member's session expired");
        self.remove_member(member_id);
        match self.classic().state() {
            GroupState::Stable | GroupState::CompletingRebalance if !was_pending => {
                self.prepare_rebalance("a member's session expired");
            }
            GroupState::PreparingRebalance if self.classic().has_all_members_joined() => self.complete_join(),
            _ => {}
        }
    }

    /// Ends the session of an id that another one replaces.
    pub(super) fn remove_session(&mut self, member_id: &Arc<str>) {
        self.timers.cancel(&TimerKey::Session(self.group.id.clone(), member_id.clone()));
    }
}

fn left(member: &LeavingMember, result: Result<(), GroupError>) -> LeftMember {
    LeftMember {
        member_id: member.member_id.clone(),
        group_instance_id: member.group_instance_id.clone(),
        error: result.err(),
    }
}
