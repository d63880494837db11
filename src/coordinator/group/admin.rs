//! Looking at groups and deleting them: ListGroups, DescribeGroups, DeleteGroups.
//!
//! Source: Kafka's GroupMetadataManager.listGroups and describeGroups, GroupCoordinatorShard.deleteGroups.

use crate::model::group::{
    CLASSIC_GROUP_TYPE, CONSUMER_GROUP_TYPE, CONSUMER_PROTOCOL_TYPE, DeleteGroup, DeleteGroupReply,
    DescribeGroup, DescribeGroupReply, DescribedMember, GroupError, GroupReply, GroupState, ListGroups,
    ListGroupsReply, ListedGroup, ReplyToken, SHARE_GROUP_TYPE,
};

use super::modern::Kind;
use super::{Effects, Group, GroupCoordinator};

impl GroupCoordinator {
    /// The groups that fit the filters.
    pub fn list(&self, list: &ListGroups) -> ListGroupsReply {
        let listed =
            self.groups.values().map(|group| group.list()).filter(|group| {
                is_wanted(&list.types, group.group_type) && is_wanted(&list.states, group.state)
            });
        ListGroupsReply { error: None, groups: listed.collect() }
    }

    pub(super) fn describe(&self, describe: &DescribeGroup) -> DescribeGroupReply {
        match self.groups.get(describe.group_id.as_str()) {
            Some(group) if group.modern.is_none() => group.describe(),
            other => DescribeGroupReply {
                is_of_other_type: other.is_some(),
                ..DescribeGroupReply::refused(&describe.group_id, GroupError::GroupIdNotFound)
            },
        }
    }

    pub(super) fn delete_group(&mut self, token: ReplyToken, delete: &DeleteGroup, now_ms: i64) -> Effects {
        let reply = |error| GroupReply::Delete(DeleteGroupReply { error });
        let Some(group) = self.groups.get(delete.group_id.as_str()) else {
            return Effects::reply(token, reply(Some(GroupError::GroupIdNotFound)));
        };
        if !group.is_empty() {
            return Effects::reply(token, reply(Some(GroupError::NonEmptyGroup)));
        }
        let offsets = self.offset_keys(&delete.group_id);
        self.turn_alone(&delete.group_id, now_ms, |turn| {
            if turn.group.modern.is_some() {
                if !offsets.is_empty() {
                    turn.forget(offsets, false, None);
                }
                turn.group.drop_modern();
                return turn.reply_when_stored(token, reply(None));
            }
            // The tombstone of the group's record is written even if there is no record: one may be on its way.
            turn.forget(offsets, true, Some((token, reply(None))));
        })
    }
}

impl Group {
    fn list(&self) -> ListedGroup {
        let (state, protocol_type, group_type) = match &self.modern {
            Some(modern) => match modern.kind {
                Kind::Consumer => (modern.state().name(), CONSUMER_PROTOCOL_TYPE, CONSUMER_GROUP_TYPE),
                Kind::Share => (modern.state().name(), SHARE_GROUP_TYPE, SHARE_GROUP_TYPE),
            },
            None => {
                let protocol_type = self.classic.protocol_type.as_deref().unwrap_or_default();
                (self.classic.state().name(), protocol_type, CLASSIC_GROUP_TYPE)
            }
        };
        let (group_id, protocol_type) = (self.id.to_string(), protocol_type.to_owned());
        ListedGroup { group_id, protocol_type, state, group_type }
    }

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
            is_of_other_type: false,
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
