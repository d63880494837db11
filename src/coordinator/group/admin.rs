//! Looking at groups and deleting them: ListGroups, DescribeGroups, DeleteGroups.
//!
//! Source: Kafka's GroupMetadataManager.listGroups and describeGroups, GroupCoordinatorShard.deleteGroups.

use crate::model::group::{
    CLASSIC_GROUP_TYPE, DeleteGroup, DeleteGroupReply, DescribeGroup, DescribeGroupReply, DescribedMember,
    GroupError, GroupReply, GroupState, ListGroups, ListGroupsReply, ListedGroup, ReplyToken,
};

use super::{Effects, Group, GroupCoordinator};

impl GroupCoordinator {
    /// The groups that fit the filters.
    pub fn list(&self, list: &ListGroups) -> ListGroupsReply {
        let is_type_wanted = is_wanted(&list.types, CLASSIC_GROUP_TYPE);
        let listed = self
            .groups
            .values()
            .filter(|group| is_type_wanted && is_wanted(&list.states, group.classic.state().name()))
            .map(|group| ListedGroup {
                group_id: group.id.to_string(),
                protocol_type: group.classic.protocol_type.clone().unwrap_or_default(),
                state: group.classic.state(),
                group_type: CLASSIC_GROUP_TYPE,
            });
        ListGroupsReply { error: None, groups: listed.collect() }
    }

    pub(super) fn describe(&self, describe: &DescribeGroup) -> DescribeGroupReply {
        match self.groups.get(describe.group_id.as_str()) {
            Some(group) => group.describe(),
            None => DescribeGroupReply::refused(&describe.group_id, GroupError::GroupIdNotFound),
        }
    }

    pub(super) fn delete_group(&mut self, token: ReplyToken, delete: &DeleteGroup, now_ms: i64) -> Effects {
        let reply = |error| GroupReply::Delete(DeleteGroupReply { error });
        let Some(group) = self.groups.get(delete.group_id.as_str()) else {
            return Effects::reply(token, reply(Some(GroupError::GroupIdNotFound)));
        };
        if !group.classic.is_in(GroupState::Empty) {
            return Effects::reply(token, reply(Some(GroupError::NonEmptyGroup)));
        }
        let offsets = self.offset_keys(&delete.group_id);
        self.turn_alone(&delete.group_id, now_ms, |turn| {
            // The tombstone of the group's record is written even if there is no record: one may be on its way.
            turn.forget(offsets, true, Some((token, reply(None))));
        })
    }
}

impl Group {
    fn describe(&self) -> DescribeGroupReply {
        let classic = &self.classic;
        let is_stable = classic.is_in(GroupState::Stable);
        let protocol_name = classic.protocol_name.as_deref().filter(|_| is_stable);
        let members = classic.members().map(|member| DescribedMember {
            member_id: member.id.to_string(),
            group_instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: member.metadata(protocol_name),
            assignment: member.assignment.clone(),
        });
        DescribeGroupReply {
            error: None,
            group_id: self.id.to_string(),
            state: classic.state(),
            protocol_type: classic.protocol_type.clone().unwrap_or_default(),
            protocol_name: protocol_name.unwrap_or_default().to_owned(),
            members: members.collect(),
        }
    }
}

/// As Kafka filters: no names let everything through, and case and blanks around a name do not matter.
fn is_wanted(names: &[String], name: &str) -> bool {
    names.is_empty() || names.iter().any(|wanted| wanted.trim().eq_ignore_ascii_case(name))
}
