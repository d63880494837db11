//! ShareGroupHeartbeat: joining a share group and learning which partitions to read; and how such a group begins.
//!
//! As a consumer group's, but nothing has to be given up before another member may have it: partitions are shared.
//! Source: KIP-932; Kafka's GroupMetadataManager.shareGroupHeartbeat.

use std::sync::Arc;

use crate::coordinator::group::schema::STRING_BYTES_MAX;
use crate::coordinator::group::turn::Turn;
use crate::coordinator::group::{Effects, GroupCoordinator};
use crate::model::group::{
    ConsumerHeartbeat, ConsumerHeartbeatReply, DescribeModernGroup, DescribeModernGroupReply, GroupError,
    GroupReply, JOIN_EPOCH, LEAVE_EPOCH, ReplyToken,
};

use super::{Assigned, Current, Kind, MemberInfo, MemberState, ModernGroup};

impl GroupCoordinator {
    pub(in crate::coordinator::group) fn share_heartbeat(
        &mut self,
        token: ReplyToken,
        heartbeat: ConsumerHeartbeat,
        now_ms: i64,
    ) -> Effects {
        let is_join = heartbeat.member_epoch == JOIN_EPOCH;
        let checked = match () {
            () if has_long_name(&heartbeat) => Err(GroupError::InvalidRequest),
            () if is_join && !self.has_room_for_group(&heartbeat.group_id) => {
                Err(GroupError::GroupsMaxReached)
            }
            () => Ok(()),
        };
        self.modern_heartbeat(token, heartbeat, now_ms, checked, |turn, heartbeat| {
            turn.share_heartbeat(token, heartbeat)
        })
    }

    /// Makes sure that there is a share group of that name, perhaps one without members: somebody wants to say where it
    /// is to begin. Refused if the group is of another protocol.
    pub(in crate::coordinator::group) fn ensure_share_group(
        &mut self,
        token: ReplyToken,
        ensure: &DescribeModernGroup,
        now_ms: i64,
    ) -> Effects {
        let group_id = ensure.group_id.as_str();
        if !self.has_room_for_group(group_id) {
            let refused = DescribeModernGroupReply::refused(GroupError::GroupsMaxReached);
            return Effects::reply(token, GroupReply::DescribeConsumer(refused));
        }
        self.ensure_group(group_id, now_ms);
        self.turn_silently(group_id, now_ms, |turn| {
            if let Some(modern) = turn.begin_share_group_if_new() {
                modern.begin_without_members();
            }
        });
        let described = GroupReply::DescribeConsumer(self.describe_modern(Kind::Share, ensure));
        self.turn_alone(group_id, now_ms, |turn| turn.reply_when_stored(token, described))
    }
}

fn has_long_name(heartbeat: &ConsumerHeartbeat) -> bool {
    let names = [&heartbeat.member_id, &heartbeat.client_id, &heartbeat.client_host].into_iter();
    let mut names = names.chain(&heartbeat.rack_id).chain(heartbeat.topics.iter().flatten());
    names.any(|name| name.len() > STRING_BYTES_MAX)
}

impl Turn<'_> {
    /// A name that nothing is known of becomes a share group, which is returned.
    fn begin_share_group_if_new(&mut self) -> Option<&mut ModernGroup> {
        let group = &mut *self.group;
        let is_known = group.modern.is_some() || group.stored.is_some() || !group.offsets.is_empty();
        if is_known || !group.is_idle() {
            return None;
        }
        Some(group.modern.insert(Box::new(ModernGroup::new(Kind::Share, self.now_ms))))
    }

    fn share_heartbeat(&mut self, token: ReplyToken, heartbeat: ConsumerHeartbeat) -> Result<(), GroupError> {
        let is_join = heartbeat.member_epoch == JOIN_EPOCH;
        if is_join {
            self.begin_share_group_if_new();
        }
        let modern = self.group.modern.as_deref().filter(|modern| modern.kind == Kind::Share);
        let modern = modern.ok_or(GroupError::GroupIdNotFound)?;
        let known = modern.member(&heartbeat.member_id).map(|member| member.current.clone());
        let member_id: Arc<str> = heartbeat.member_id.as_str().into();
        if heartbeat.member_epoch == LEAVE_EPOCH {
            known.ok_or(GroupError::UnknownMemberId)?;
            self.fence_members(std::slice::from_ref(&member_id));
            let reply = ConsumerHeartbeatReply {
                error: None,
                member_id: heartbeat.member_id,
                member_epoch: LEAVE_EPOCH,
                heartbeat_interval_ms: 0,
                assignment: None,
            };
            self.reply_when_stored(token, GroupReply::ConsumerHeartbeat(reply));
            return Ok(());
        }
        match &known {
            None if !is_join => return Err(GroupError::UnknownMemberId),
            None if modern.member_count() >= self.settings.share.max_size => {
                return Err(GroupError::GroupMaxSizeReached);
            }
            None => {}
            Some(current) => {
                let epoch = heartbeat.member_epoch;
                if !is_join && epoch != current.epoch && epoch != current.previous_epoch {
                    return Err(GroupError::FencedMemberEpoch);
                }
            }
        }
        let before = self.modern_member(&member_id).cloned();
        let mut info: MemberInfo = before.map(|member| member.info).unwrap_or_default();
        if heartbeat.rack_id.is_some() {
            info.rack_id.clone_from(&heartbeat.rack_id);
        }
        if let Some(topics) = &heartbeat.topics {
            info.topics = topics.iter().cloned().collect();
        }
        info.client_id.clone_from(&heartbeat.client_id);
        info.client_host.clone_from(&heartbeat.client_host);
        self.take_in_member(&member_id, info);
        self.update_assignment();
        self.share_out(&member_id);
        self.extend_modern_session(&member_id);
        let Some(member) = self.modern_member(&member_id) else { return Err(GroupError::UnknownMemberId) };
        let partitions = member.current.partitions();
        let is_new = known.is_none_or(|known| known.partitions() != partitions);
        let heartbeat_interval_ms =
            self.heartbeat_interval_ms("share", self.settings.share.heartbeat_interval_ms);
        let is_told = is_join || heartbeat.topics.is_some() || is_new;
        let reply = ConsumerHeartbeatReply {
            error: None,
            member_id: heartbeat.member_id,
            member_epoch: member.current.epoch,
            heartbeat_interval_ms,
            assignment: is_told.then_some(partitions),
        };
        self.reply_when_stored(token, GroupReply::ConsumerHeartbeat(reply));
        Ok(())
    }

    /// Gives a member what it shall have, at once.
    fn share_out(&mut self, member_id: &Arc<str>) {
        let Some(modern) = self.group.modern.as_deref_mut() else { return };
        let Some(member) = modern.member(member_id) else { return };
        let epoch = modern.assignment_epoch();
        if member.current.is_reconciled_to(epoch) {
            return;
        }
        let target = modern.target(member_id).cloned().unwrap_or_default();
        let assigned: Assigned = target
            .into_iter()
            .map(|(topic, partitions)| (topic, partitions.into_iter().map(|it| (it, epoch)).collect()))
            .collect();
        let next = Current {
            epoch,
            previous_epoch: member.current.epoch,
            state: MemberState::Stable,
            assigned,
            revoking: Assigned::new(),
        };
        modern.set_current(member_id, next);
    }
}
