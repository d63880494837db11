//! Members of the classic protocol in a consumer group: JoinGroup, SyncGroup, Heartbeat and LeaveGroup in the terms of
//! the new protocol.
//!
//! A generation is the member's epoch. A join is a heartbeat with all that the member reads and has; its reply is the
//! next epoch, the sync brings the partitions, and a heartbeat answers RebalanceInProgress when another join would
//! bring something new. Nobody is the leader.
//! Source: KIP-848, "Online Migration"; Kafka's GroupMetadataManager.classicGroupJoinToConsumerGroup and its like.

use std::sync::Arc;

use crate::coordinator::group::TimerKey;
use crate::coordinator::group::turn::Turn;
use crate::model::group::{
    CONSUMER_PROTOCOL_TYPE, GroupError, GroupReply, Heartbeat, JoinGroup, JoinGroupReply, LeaveGroup,
    LeaveGroupReply, LeavingMember, LeftMember, ReplyToken, SyncGroup, SyncGroupReply,
};

use super::{ClassicPart, Kind, Member, MemberInfo, MemberState, ModernGroup, consumer_protocol};

impl Turn<'_> {
    pub(in crate::coordinator::group) fn join_consumer_group(&mut self, token: ReplyToken, join: JoinGroup) {
        let member_id = join.member_id.clone();
        if let Err((error, id)) = self.try_join_consumer_group(token, join) {
            self.refuse_join(token, id.as_deref().unwrap_or(&member_id), error);
        }
    }

    fn try_join_consumer_group(
        &mut self,
        token: ReplyToken,
        join: JoinGroup,
    ) -> Result<(), (GroupError, Option<String>)> {
        let plain = |error| (error, None);
        let settings = &self.settings.consumer;
        let modern = self.group.modern.as_deref().filter(|modern| modern.kind == Kind::Consumer);
        let modern = modern.ok_or(plain(GroupError::InconsistentGroupProtocol))?;
        if !settings.may_upgrade && !settings.may_downgrade {
            return Err(plain(GroupError::InconsistentGroupProtocol));
        }
        if modern.member(&join.member_id).is_none() && modern.member_count() >= settings.max_size {
            return Err(plain(GroupError::GroupMaxSizeReached));
        }
        if !modern.supports_classic(&join) {
            return Err(plain(GroupError::InconsistentGroupProtocol));
        }
        let first = join.protocols.first().ok_or(plain(GroupError::InconsistentGroupProtocol))?;
        let subscription = consumer_protocol::read_subscription(&first.metadata)
            .map_err(|_| plain(GroupError::InconsistentGroupProtocol))?;
        let is_unknown = join.member_id.is_empty();
        let member_id: Arc<str> = match is_unknown {
            true => (self.ids)().to_string().into(),
            false => join.member_id.as_str().into(),
        };
        let holder = join.group_instance_id.as_deref().map(|id| modern.static_member_id(id).cloned());
        match holder {
            None if is_unknown && join.require_known_member_id => {
                return Err((GroupError::MemberIdRequired, Some(member_id.to_string())));
            }
            None => {}
            Some(None) if is_unknown => {}
            Some(None) => return Err(plain(GroupError::UnknownMemberId)),
            Some(Some(holder)) if is_unknown => self.replace_static_member(&holder, &member_id),
            Some(Some(holder)) if holder != member_id => return Err(plain(GroupError::FencedInstanceId)),
            Some(Some(_)) => {}
        }
        let is_static = join.group_instance_id.is_some();
        let protocol_name = first.name.clone();
        let session_timeout_ms = i64::from(join.session_timeout_ms);
        let rebalance_timeout_ms = i64::from(join.rebalance_timeout_ms);
        let owned = consumer_protocol::by_id(&subscription.owned, self.topics);
        let info = MemberInfo {
            instance_id: join.group_instance_id,
            rack_id: subscription.rack_id,
            client_id: join.client_id,
            client_host: join.client_host,
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            topics: subscription.topics,
            topic_regex: None,
            assignor: None,
            classic: Some(ClassicPart {
                session_timeout_ms: join.session_timeout_ms,
                protocols: join.protocols,
            }),
        };
        let is_changed = self.take_in_member(&member_id, info);
        // A static member that comes back by the classic protocol may have been the last of the new one.
        let is_downgrade = is_static && self.may_downgrade(None);
        if !is_downgrade {
            self.update_assignment();
        }
        self.reconcile(&member_id, is_changed, Some(&owned));
        let generation_id = self.modern_member(&member_id).map_or(-1, |member| member.current.epoch);
        let group_id = self.group.id.clone();
        if is_downgrade {
            let is_stale = self.group.modern.as_deref().is_some_and(|it| it.assignment_epoch() < it.epoch());
            self.downgrade();
            if is_stale {
                self.rebalance("the group returned to the classic protocol");
            }
        } else {
            self.timers.cancel(&TimerKey::MemberJoin(group_id.clone(), member_id.clone()));
            self.set_session(&member_id, session_timeout_ms);
            let due_ms = self.now_ms.saturating_add(rebalance_timeout_ms);
            self.timers.set(TimerKey::MemberSync(group_id, member_id.clone()), due_ms);
        }
        let reply = JoinGroupReply {
            error: None,
            generation_id,
            protocol_type: Some(CONSUMER_PROTOCOL_TYPE.to_owned()),
            protocol_name: Some(protocol_name),
            leader: String::new(),
            skip_assignment: false,
            member_id: member_id.to_string(),
            members: Vec::new(),
        };
        self.reply_when_stored(token, GroupReply::Join(reply));
        Ok(())
    }

    pub(in crate::coordinator::group) fn sync_consumer_group(&mut self, token: ReplyToken, sync: &SyncGroup) {
        match self.try_sync_consumer_group(sync) {
            Ok(reply) => self.reply_when_stored(token, GroupReply::Sync(reply)),
            Err(error) => self.refuse_sync(token, error),
        }
    }

    fn try_sync_consumer_group(&mut self, sync: &SyncGroup) -> Result<SyncGroupReply, GroupError> {
        let (member_id, member) = self.classic_member(&sync.member_id, sync.group_instance_id.as_deref())?;
        let part = member.info.classic.as_ref().ok_or(GroupError::UnknownMemberId)?;
        if member.current.epoch != sync.generation_id {
            return Err(GroupError::IllegalGeneration);
        }
        let first = part.protocols.first().ok_or(GroupError::InconsistentGroupProtocol)?;
        if sync.protocol_type.as_deref().is_some_and(|name| name != CONSUMER_PROTOCOL_TYPE)
            || sync.protocol_name.as_deref().is_some_and(|name| name != first.name)
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        let assignment_epoch = self.group.modern.as_deref().map_or(0, ModernGroup::assignment_epoch);
        if assignment_epoch > member.current.epoch && member.current.state != MemberState::Unrevoked {
            self.await_member_join(&member_id);
            return Err(GroupError::RebalanceInProgress);
        }
        let assignment =
            consumer_protocol::write_assignment(&first.metadata, &member.current.partitions(), self.topics);
        self.timers.cancel(&TimerKey::MemberSync(self.group.id.clone(), member_id.clone()));
        self.extend_modern_session(&member_id);
        Ok(SyncGroupReply {
            error: None,
            protocol_type: sync.protocol_type.clone(),
            protocol_name: sync.protocol_name.clone(),
            assignment,
        })
    }

    pub(in crate::coordinator::group) fn heartbeat_consumer_group(
        &mut self,
        heartbeat: &Heartbeat,
    ) -> Result<(), GroupError> {
        let (member_id, member) =
            self.classic_member(&heartbeat.member_id, heartbeat.group_instance_id.as_deref())?;
        if member.current.epoch != heartbeat.generation_id {
            return Err(GroupError::IllegalGeneration);
        }
        self.extend_modern_session(&member_id);
        let Some(modern) = self.group.modern.as_deref() else { return Err(GroupError::UnknownMemberId) };
        let is_rejoin_due = member.current.epoch < modern.assignment_epoch()
            || member.current.state == MemberState::Unrevoked
            || (member.current.state == MemberState::Unreleased && !modern.waits_for_others(&member_id));
        if is_rejoin_due {
            self.await_member_join(&member_id);
            return Err(GroupError::RebalanceInProgress);
        }
        Ok(())
    }

    pub(in crate::coordinator::group) fn leave_as_classic(&mut self, token: ReplyToken, leave: &LeaveGroup) {
        let mut leaving: Vec<Arc<str>> = Vec::new();
        let mut members = Vec::with_capacity(leave.members.len());
        for member in &leave.members {
            let found = self.find_leaving(member);
            members.push(LeftMember {
                member_id: member.member_id.clone(),
                group_instance_id: member.group_instance_id.clone(),
                error: found.as_ref().err().copied(),
            });
            leaving.extend(found.ok());
        }
        self.fence_members(&leaving);
        self.reply_when_stored(token, GroupReply::Leave(LeaveGroupReply { error: None, members }));
    }

    fn find_leaving(&self, leaving: &LeavingMember) -> Result<Arc<str>, GroupError> {
        let modern = self.group.modern.as_deref().filter(|modern| modern.kind == Kind::Consumer);
        let modern = modern.ok_or(GroupError::UnknownMemberId)?;
        match &leaving.group_instance_id {
            None => modern.known_id(&leaving.member_id),
            Some(instance_id) => {
                let holder = modern.static_member_id(instance_id).ok_or(GroupError::UnknownMemberId)?;
                // An admin removes a static member by its name.
                match leaving.member_id.is_empty() || **holder == *leaving.member_id {
                    true => Ok(holder.clone()),
                    false => Err(GroupError::FencedInstanceId),
                }
            }
        }
    }

    /// The member, which must speak the classic protocol.
    fn classic_member(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<(Arc<str>, Member), GroupError> {
        let modern = self.group.modern.as_deref().ok_or(GroupError::UnknownMemberId)?;
        let id = modern.known_id(member_id);
        let id = match instance_id {
            None => id?,
            Some(instance_id) => {
                let holder = modern.static_member_id(instance_id).ok_or(GroupError::UnknownMemberId)?;
                if **holder != *member_id {
                    return Err(GroupError::FencedInstanceId);
                }
                id?
            }
        };
        let member = modern.member(&id).filter(|member| member.info.classic.is_some());
        let member = member.ok_or(GroupError::UnknownMemberId)?;
        Ok((id, member.clone()))
    }

    /// The member has been told to join again and is given the time of a rebalance.
    fn await_member_join(&mut self, member_id: &Arc<str>) {
        let Some(member) = self.modern_member(member_id) else { return };
        let due_ms = self.now_ms.saturating_add(i64::from(member.info.rebalance_timeout_ms));
        self.timers.set_if_earlier(TimerKey::MemberJoin(self.group.id.clone(), member_id.clone()), due_ms);
    }
}

impl ModernGroup {
    fn known_id(&self, member_id: &str) -> Result<Arc<str>, GroupError> {
        self.members.get_key_value(member_id).map(|(id, _)| id.clone()).ok_or(GroupError::UnknownMemberId)
    }

    /// Whether all members of the classic protocol share one of the member's protocols.
    fn supports_classic(&self, join: &JoinGroup) -> bool {
        let others = || self.members.values().filter_map(|member| member.info.classic.as_ref());
        let is_common = |name: &str| others().all(|it| it.protocols.iter().any(|it| it.name == name));
        join.protocol_type == CONSUMER_PROTOCOL_TYPE
            && join.protocols.iter().any(|protocol| is_common(&protocol.name))
    }

    /// Whether others still hold something that the member shall have.
    fn waits_for_others(&self, member_id: &str) -> bool {
        self.target(member_id).into_iter().flatten().any(|(topic, partitions)| {
            partitions.iter().any(|partition| self.is_held_by_other(*topic, *partition, member_id))
        })
    }
}
