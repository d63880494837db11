//! Looking at the new groups: ConsumerGroupDescribe, ShareGroupDescribe.

use crate::coordinator::group::{GroupCoordinator, GroupSettings};
use crate::model::group::{DescribeModernGroup, DescribeModernGroupReply, DescribedModernMember, GroupError};

use super::{Kind, ModernGroup};

/// Kafka's only assignor of share groups.
const SHARE_ASSIGNOR: &str = "simple";

impl GroupCoordinator {
    pub(in crate::coordinator::group) fn describe_modern(
        &self,
        kind: Kind,
        describe: &DescribeModernGroup,
    ) -> DescribeModernGroupReply {
        let group = self.groups.get(describe.group_id.as_str());
        match group.and_then(|group| group.modern.as_deref()).filter(|modern| modern.kind == kind) {
            Some(modern) => modern.describe(&self.settings),
            None => DescribeModernGroupReply {
                is_of_other_type: group.is_some(),
                ..DescribeModernGroupReply::refused(GroupError::GroupIdNotFound)
            },
        }
    }
}

impl ModernGroup {
    fn describe(&self, settings: &GroupSettings) -> DescribeModernGroupReply {
        let members = self.members.iter().map(|(id, member)| DescribedModernMember {
            member_id: id.to_string(),
            instance_id: member.info.instance_id.clone(),
            rack_id: member.info.rack_id.clone(),
            epoch: member.current.epoch,
            client_id: member.info.client_id.clone(),
            client_host: member.info.client_host.clone(),
            topics: member.info.topics.iter().cloned().collect(),
            topic_regex: member.info.topic_regex.clone(),
            assignment: member.current.all_partitions(),
            target: self.targets.get(id).cloned().unwrap_or_default(),
            is_classic: member.info.classic.is_some(),
        });
        let assignor = match self.kind {
            Kind::Consumer => self.preferred_assignor(&settings.consumer.assignors).name(),
            Kind::Share => SHARE_ASSIGNOR,
        };
        DescribeModernGroupReply {
            error: None,
            is_of_other_type: false,
            state: self.state(),
            epoch: self.epoch,
            assignment_epoch: self.assignment_epoch,
            assignor: assignor.to_owned(),
            members: members.collect(),
        }
    }
}
