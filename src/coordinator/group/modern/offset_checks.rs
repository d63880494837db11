//! Who may commit and fetch offsets of a group of the new protocols.
//!
//! A commit is let in when it carries the member's epoch, or an older one from since when the member has the
//! partitions (KIP-1251): it read them then, and nobody else has read them since.
//! Source: Kafka's ConsumerGroup.validateOffsetCommit and validateOffsetFetch.

use crate::coordinator::group::topics::Topics;
use crate::model::group::{GroupError, NO_GENERATION, OffsetCommit, OffsetFetch};
use crate::model::{PartitionIndex, Uuid};

use super::{Kind, Member, ModernGroup};

impl ModernGroup {
    pub(in crate::coordinator::group) fn check_commit(
        &self,
        commit: &OffsetCommit,
        topics: &Topics,
    ) -> Result<(), GroupError> {
        let epoch = commit.generation_id;
        if self.kind == Kind::Share {
            return Err(GroupError::GroupIdNotFound);
        }
        if epoch < 0 && self.is_empty() {
            return Ok(());
        }
        let is_anonymous =
            epoch == NO_GENERATION && commit.member_id.is_empty() && commit.group_instance_id.is_none();
        if commit.producer.is_some() && is_anonymous {
            return Ok(());
        }
        let member = self.member(&commit.member_id).ok_or(GroupError::UnknownMemberId)?;
        if epoch == member.current.epoch {
            return Ok(());
        }
        let has_them = epoch < member.current.epoch
            && commit.topics.iter().all(|topic| {
                let id = topics.by_name(&topic.topic).map(|(id, _)| id);
                topic.partitions.iter().all(|it| member.has_since(id, it.partition, epoch))
            });
        if has_them { Ok(()) } else { Err(member.wrong_epoch()) }
    }

    pub(in crate::coordinator::group) fn check_fetch(&self, fetch: &OffsetFetch) -> Result<(), GroupError> {
        if self.kind == Kind::Share {
            return Err(GroupError::GroupIdNotFound);
        }
        let Some(member_id) = &fetch.member_id else {
            return if fetch.member_epoch < 0 { Ok(()) } else { Err(GroupError::UnknownMemberId) };
        };
        let member = self.member(member_id).ok_or(GroupError::UnknownMemberId)?;
        match fetch.member_epoch == member.current.epoch {
            true => Ok(()),
            false => Err(member.wrong_epoch()),
        }
    }
}

impl Member {
    fn has_since(&self, topic: Option<Uuid>, partition: PartitionIndex, epoch: i32) -> bool {
        let Some(topic) = topic else { return false };
        let in_part = |part: &super::Assigned| part.get(&topic).and_then(|it| it.get(&partition)).copied();
        let since = in_part(&self.current.assigned).or_else(|| in_part(&self.current.revoking));
        since.is_some_and(|since| since <= epoch)
    }

    fn wrong_epoch(&self) -> GroupError {
        match self.info.classic {
            Some(_) => GroupError::IllegalGeneration,
            None => GroupError::StaleMemberEpoch,
        }
    }
}
