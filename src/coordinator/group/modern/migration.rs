//! A group's way from the classic protocol to the new one and back, while its members live.
//!
//! A classic group becomes a consumer group when a member of that protocol joins: its members keep what they have and go
//! on by the classic protocol (`classic_members`), the coordinator assigns. When the last member of the new protocol
//! is gone the group is a classic one again, and its members choose a leader.
//! Source: KIP-848, "Online Migration"; Kafka's GroupMetadataManager.convertToConsumerGroup and convertToClassicGroup.

use std::sync::Arc;

use crate::coordinator::group::classic_group::{ClassicGroup, NewMember};
use crate::coordinator::group::schema::SchemaError;
use crate::coordinator::group::turn::Turn;
use crate::model::group::{CONSUMER_PROTOCOL_TYPE, GroupError, GroupState};

use super::{ClassicPart, Current, Dirty, Kind, Member, MemberInfo, ModernGroup, consumer_protocol};

impl Turn<'_> {
    /// Ends the classic life of a group without members.
    pub(super) fn leave_classic_protocol(&mut self) {
        if self.group.stored.is_some() || self.group.appends_under_way > 0 {
            self.group.store.mark(Dirty::Classic);
        }
        self.cancel_join_timer();
        self.cancel_sync_timer();
        self.group.classic = ClassicGroup::empty(Some(self.now_ms));
    }

    /// Makes a classic group with members a consumer group.
    pub(super) fn upgrade(&mut self) -> Result<(), GroupError> {
        let classic = &self.group.classic;
        let settings = &self.settings.consumer;
        if !settings.may_upgrade
            || !classic.uses_consumer_protocol()
            || classic.member_count() > settings.max_size
        {
            return Err(GroupError::GroupIdNotFound);
        }
        let modern = self.modern_from_classic()?;
        // Those who wait for a generation learn at their next join how the group goes on.
        let member_ids: Vec<Arc<str>> = classic.members().map(|member| member.id.clone()).collect();
        for member_id in &member_ids {
            let error = GroupError::RebalanceInProgress;
            self.output.refuse_member(&mut self.group.classic, member_id, member_id, error);
        }
        self.leave_classic_protocol();
        self.group.store.mark(Dirty::Classic);
        self.group.modern = Some(Box::new(modern));
        for member_id in &member_ids {
            self.extend_modern_session(member_id);
        }
        tracing::debug!(group = &*self.group.id, "the classic group is a consumer group now");
        Ok(())
    }

    fn modern_from_classic(&self) -> Result<ModernGroup, GroupError> {
        let classic = &self.group.classic;
        let epoch = classic.generation_id;
        let mut modern = ModernGroup::new(Kind::Consumer, self.now_ms);
        modern.start_at(epoch, self.now_ms);
        // A generation that has not formed yet has no protocol: then each member's first one says what it reads.
        for member in classic.members() {
            let chosen = classic.protocol_name.as_deref();
            let chosen = member.protocols.iter().find(|protocol| Some(protocol.name.as_str()) == chosen);
            let Some(protocol) = chosen.or(member.protocols.first()) else { continue };
            let malformed = |_: SchemaError| GroupError::GroupIdNotFound;
            let subscription = consumer_protocol::read_subscription(&protocol.metadata).map_err(malformed)?;
            let given = consumer_protocol::read_assignment(&member.assignment).map_err(malformed)?;
            if given.has_user_data {
                // An assignor of the clients' own would lose it.
                return Err(GroupError::GroupIdNotFound);
            }
            let target = consumer_protocol::by_id(&given.partitions, self.topics);
            let with_epoch = |(topic, partitions): (&_, &std::collections::BTreeSet<_>)| {
                (*topic, partitions.iter().map(|partition| (*partition, epoch)).collect())
            };
            let current = Current {
                epoch,
                previous_epoch: epoch,
                assigned: target.iter().map(with_epoch).collect(),
                ..Current::default()
            };
            let info = MemberInfo {
                instance_id: member.instance_id.clone(),
                rack_id: subscription.rack_id,
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                rebalance_timeout_ms: member.rebalance_timeout_ms,
                topics: subscription.topics,
                classic: Some(ClassicPart {
                    session_timeout_ms: member.session_timeout_ms,
                    protocols: member.protocols.clone(),
                }),
                ..MemberInfo::default()
            };
            modern.adopt(&member.id, Member { info, current }, target);
        }
        Ok(modern)
    }

    /// Whether the group could be a classic one, were it not for `except`.
    pub(super) fn may_downgrade(&self, except: Option<&str>) -> bool {
        let Some(modern) = self.group.modern.as_deref() else { return false };
        let others = modern.members.iter().filter(|(id, _)| Some(&***id) != except);
        self.settings.consumer.may_downgrade
            && modern.kind == Kind::Consumer
            && modern.member_count() <= self.settings.group_max_size
            && others.into_iter().all(|(_, member)| member.info.classic.is_some())
    }

    /// Makes the group a classic, stable one. All its members speak the classic protocol.
    pub(super) fn downgrade(&mut self) {
        let Some(modern) = self.group.modern.as_deref() else { return };
        let mut classic = ClassicGroup::empty(Some(self.now_ms));
        classic.generation_id = modern.epoch();
        classic.protocol_type = Some(CONSUMER_PROTOCOL_TYPE.to_owned());
        let mut member_ids = Vec::new();
        for (id, member) in &modern.members {
            let Some(part) = &member.info.classic else { continue };
            member_ids.push(id.clone());
            classic.add(NewMember {
                id: id.clone(),
                instance_id: member.info.instance_id.clone(),
                client_id: member.info.client_id.clone(),
                client_host: member.info.client_host.clone(),
                session_timeout_ms: part.session_timeout_ms,
                rebalance_timeout_ms: member.info.rebalance_timeout_ms,
                protocols: part.protocols.clone(),
            });
        }
        classic.protocol_name = classic.select_protocol();
        let protocol_name = classic.protocol_name.clone();
        for (id, target) in &modern.targets {
            let Some(member) = classic.member_mut(id) else { continue };
            let metadata = member.metadata(protocol_name.as_deref());
            member.assignment = consumer_protocol::write_assignment(&metadata, target, self.topics);
            member.is_new = false;
        }
        classic.set_state(GroupState::Stable, self.now_ms);
        classic.learn_subscribed_topics();
        for member_id in &member_ids {
            self.cancel_member_timers(member_id);
        }
        self.group.classic = classic;
        self.group.drop_modern();
        self.group.store.mark(Dirty::Classic);
        for member_id in &member_ids {
            self.extend_session(member_id);
        }
        tracing::debug!(group = &*self.group.id, "the consumer group is a classic group now");
    }

    /// Ends the new life of a group without members, for a member of the classic protocol.
    pub(in crate::coordinator::group) fn leave_modern_protocol_if_empty(&mut self) {
        let is_empty_consumer = |modern: &ModernGroup| modern.kind == Kind::Consumer && modern.is_empty();
        if self.group.modern.as_deref().is_some_and(is_empty_consumer) {
            self.group.drop_modern();
        }
    }
}

impl ModernGroup {
    /// A group that was a classic one up to this generation.
    fn start_at(&mut self, epoch: i32, now_ms: i64) {
        (self.epoch, self.assignment_epoch) = (epoch, epoch);
        self.empty_since_ms = now_ms;
        self.changed.extend([super::About::Epoch, super::About::TargetEpoch]);
    }

    fn adopt(&mut self, id: &Arc<str>, member: Member, target: crate::model::group::TopicPartitions) {
        self.put_info(id, member.info);
        self.set_current(id, member.current);
        self.targets.insert(id.clone(), target);
        self.changed.insert(super::About::Target(id.clone()));
    }
}
