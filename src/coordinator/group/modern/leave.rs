//! The ends of memberships in the new groups: leaving, silence, and revocations that take too long.
//!
//! Source: Kafka's GroupMetadataManager.consumerGroupLeave and consumerGroupFenceMembers.

use std::sync::Arc;

use crate::coordinator::group::TimerKey;
use crate::coordinator::group::retention::RETENTION_CHECK_MS;
use crate::coordinator::group::turn::Turn;
use crate::model::group::{
    ConsumerHeartbeat, ConsumerHeartbeatReply, GroupError, GroupReply, LEAVE_STATIC_EPOCH, ReplyToken,
};

use super::{Assigned, Current, Kind};

impl Turn<'_> {
    pub(super) fn leave_consumer_group(
        &mut self,
        token: ReplyToken,
        heartbeat: &ConsumerHeartbeat,
    ) -> Result<(), GroupError> {
        let modern = self.group.modern.as_deref().filter(|modern| modern.kind == Kind::Consumer);
        let modern = modern.ok_or(GroupError::GroupIdNotFound)?;
        let member_id = match &heartbeat.instance_id {
            None => modern.member(&heartbeat.member_id).map(|_| Arc::from(heartbeat.member_id.as_str())),
            Some(instance_id) => match modern.static_member_id(instance_id) {
                Some(holder) if **holder != *heartbeat.member_id => return Err(GroupError::FencedInstanceId),
                holder => holder.cloned(),
            },
        };
        let member_id = member_id.ok_or(GroupError::UnknownMemberId)?;
        if heartbeat.instance_id.is_some() && heartbeat.member_epoch == LEAVE_STATIC_EPOCH {
            self.leave_for_a_while(&member_id);
        } else {
            self.fence_members(&[member_id]);
        }
        let reply = ConsumerHeartbeatReply {
            error: None,
            member_id: heartbeat.member_id.clone(),
            member_epoch: heartbeat.member_epoch,
            heartbeat_interval_ms: 0,
            assignment: None,
        };
        self.reply_when_stored(token, GroupReply::ConsumerHeartbeat(reply));
        Ok(())
    }

    /// A static member keeps its place until its session ends, and gives it to whoever comes with its name.
    fn leave_for_a_while(&mut self, member_id: &Arc<str>) {
        let Some(current) = self.modern_member(member_id).map(|member| &member.current) else { return };
        let mut assigned = current.assigned.clone();
        assigned.values_mut().flat_map(|partitions| partitions.values_mut()).for_each(|epoch| *epoch = 0);
        let left =
            Current { epoch: LEAVE_STATIC_EPOCH, assigned, revoking: Assigned::new(), ..current.clone() };
        self.timers.cancel(&TimerKey::Revocation(self.group.id.clone(), member_id.clone()));
        if let Some(modern) = self.group.modern.as_deref_mut() {
            modern.set_current(member_id, left);
        }
    }

    /// Takes members out of the group; if only members of the classic protocol remain, the group returns to it.
    pub(in crate::coordinator::group) fn fence_members(&mut self, member_ids: &[Arc<str>]) {
        let (now_ms, topics) = (self.now_ms, self.topics.clone());
        for member_id in member_ids {
            self.end_membership(member_id);
        }
        let Some(modern) = self.group.modern.as_deref_mut() else { return };
        let removed = member_ids.iter().filter_map(|id| modern.remove_member(id, now_ms)).count();
        if removed == 0 {
            return;
        }
        modern.drop_unused_regexes();
        let is_empty = modern.is_empty();
        // Without a new epoch, so that the members' epochs are the generation they are told to leave.
        if !is_empty && self.may_downgrade(None) {
            self.downgrade();
            return self.rebalance("the group returned to the classic protocol");
        }
        let Some(modern) = self.group.modern.as_deref_mut() else { return };
        modern.bump_epoch(&topics);
        if is_empty {
            self.plan_retention(RETENTION_CHECK_MS);
        }
    }

    /// Nothing is waited for from this member any more, and nothing old is told to it.
    pub(super) fn end_membership(&mut self, member_id: &Arc<str>) {
        self.cancel_member_timers(member_id);
        self.group.store.refuse_member(member_id);
    }

    pub(super) fn cancel_member_timers(&mut self, member_id: &Arc<str>) {
        let group_id = &self.group.id;
        for key in [TimerKey::Session, TimerKey::Revocation, TimerKey::MemberJoin, TimerKey::MemberSync] {
            self.timers.cancel(&key(group_id.clone(), member_id.clone()));
        }
    }

    /// A timer of a member has come: its session, or the time to give partitions up, to join again, or to sync.
    pub(in crate::coordinator::group) fn expire_member(&mut self, member_id: &Arc<str>) {
        if self.modern_member(member_id).is_some() {
            tracing::debug!(group = &*self.group.id, member = &**member_id, "group member is removed");
            self.fence_members(std::slice::from_ref(member_id));
        }
    }
}

impl super::ModernGroup {
    fn drop_unused_regexes(&mut self) {
        let used = |regex: &str| {
            self.members.values().any(|member| member.info.topic_regex.as_deref() == Some(regex))
        };
        let unused: Vec<String> = self.regexes.keys().filter(|regex| !used(regex)).cloned().collect();
        unused.iter().for_each(|regex| self.drop_regex(regex));
    }
}
