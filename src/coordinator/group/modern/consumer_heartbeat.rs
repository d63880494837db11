//! ConsumerGroupHeartbeat: joining a consumer group, saying what one reads and has, and learning what one may have.
//!
//! Every heartbeat does as much as is due: takes in what the member says, raises the group's epoch if that (or the
//! topics) changed what is to be assigned, makes a new assignment if it is older than the group, and moves the member
//! one step towards it.
//! Source: KIP-848; Kafka's GroupMetadataManager.consumerGroupHeartbeat.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::coordinator::group::schema::STRING_BYTES_MAX;
use crate::coordinator::group::turn::Turn;
use crate::coordinator::group::{Effects, GroupCoordinator, TimerKey};
use crate::model::Uuid;
use crate::model::group::{
    ConsumerHeartbeat, ConsumerHeartbeatReply, GroupError, GroupReply, JOIN_EPOCH, LEAVE_EPOCH,
    LEAVE_STATIC_EPOCH, ReplyToken, TopicPartitions,
};

use super::assignor::{AssignedTo, Assignor, ToAssign, share};
use super::reconcile::Reconciliation;
use super::{Current, Kind, Member, MemberInfo, MemberState, ModernGroup, topic_regex};

/// Shortest time between two looks for topics that match expressions, unless there are new expressions.
const REGEX_REFRESH_MS_MIN: i64 = 1_000;

impl GroupCoordinator {
    pub(in crate::coordinator::group) fn consumer_heartbeat(
        &mut self,
        token: ReplyToken,
        heartbeat: ConsumerHeartbeat,
        now_ms: i64,
    ) -> Effects {
        let checked = self.check_consumer_heartbeat(&heartbeat);
        self.modern_heartbeat(token, heartbeat, now_ms, checked, |turn, heartbeat| {
            turn.consumer_heartbeat(token, heartbeat)
        })
    }

    /// A heartbeat that was `checked`, in its group's turn; who joins makes the group. Refused if there is no such group, or
    /// as `act` has it.
    pub(super) fn modern_heartbeat(
        &mut self,
        token: ReplyToken,
        heartbeat: ConsumerHeartbeat,
        now_ms: i64,
        checked: Result<(), GroupError>,
        act: impl FnOnce(&mut Turn<'_>, ConsumerHeartbeat) -> Result<(), GroupError>,
    ) -> Effects {
        let group_id = heartbeat.group_id.clone();
        let mut effects = Effects::default();
        let mut refused = checked.err();
        if refused.is_none() {
            if heartbeat.member_epoch == JOIN_EPOCH {
                self.ensure_group(&group_id, now_ms);
            }
            refused = Some(GroupError::GroupIdNotFound);
            effects = self.turn_alone(&group_id, now_ms, |turn| refused = act(turn, heartbeat).err());
        }
        if let Some(error) = refused {
            let reply = GroupReply::ConsumerHeartbeat(ConsumerHeartbeatReply::refused(error));
            effects.replies.push((token, reply));
        }
        effects
    }

    fn check_consumer_heartbeat(&self, heartbeat: &ConsumerHeartbeat) -> Result<(), GroupError> {
        let names = [&heartbeat.instance_id, &heartbeat.rack_id, &heartbeat.topic_regex];
        let names = names.into_iter().flatten().chain([
            &heartbeat.member_id,
            &heartbeat.client_id,
            &heartbeat.client_host,
        ]);
        let topics = heartbeat.topics.iter().flatten();
        if names.chain(topics).any(|name| name.len() > STRING_BYTES_MAX) {
            return Err(GroupError::InvalidRequest);
        }
        if let Some(assignor) = &heartbeat.assignor
            && !self.settings.consumer.assignors.iter().any(|known| known.name() == assignor)
        {
            return Err(GroupError::UnsupportedAssignor);
        }
        if heartbeat.member_epoch == JOIN_EPOCH && !self.has_room_for_group(&heartbeat.group_id) {
            return Err(GroupError::GroupsMaxReached);
        }
        Ok(())
    }
}

impl Turn<'_> {
    fn consumer_heartbeat(
        &mut self,
        token: ReplyToken,
        heartbeat: ConsumerHeartbeat,
    ) -> Result<(), GroupError> {
        if matches!(heartbeat.member_epoch, LEAVE_EPOCH | LEAVE_STATIC_EPOCH) {
            return self.leave_consumer_group(token, &heartbeat);
        }
        // Nothing may fail once something has changed.
        let regex = heartbeat.topic_regex.as_deref().filter(|regex| !regex.is_empty());
        let is_known = |regex: &&str| {
            self.group.modern.as_deref().is_some_and(|modern| modern.regexes.contains_key(*regex))
        };
        if let Some(new) = regex.filter(|regex| !is_known(regex)) {
            topic_regex::compile(new)?;
        }
        self.enter_consumer_protocol(heartbeat.member_epoch == JOIN_EPOCH)?;
        let member_id = self.find_consumer_member(&heartbeat)?;
        let before = self.modern_member(&member_id).cloned();
        let info = updated_info(before.as_ref().map(|member| &member.info), &heartbeat);
        let is_subscription_changed = self.take_in_member(&member_id, info);
        self.update_assignment();
        self.reconcile(&member_id, is_subscription_changed, heartbeat.owned.as_ref());
        self.extend_modern_session(&member_id);

        let Some(member) = self.modern_member(&member_id) else { return Err(GroupError::UnknownMemberId) };
        let is_full = heartbeat.rebalance_timeout_ms.is_some()
            && (heartbeat.topics.is_some() || heartbeat.topic_regex.is_some())
            && heartbeat.owned.is_some();
        let partitions = member.current.partitions();
        let is_assignment_new = before.is_none_or(|before| before.current.partitions() != partitions);
        let heartbeat_interval_ms =
            self.heartbeat_interval_ms("consumer", self.settings.consumer.heartbeat_interval_ms);
        let reply = ConsumerHeartbeatReply {
            error: None,
            member_id: member_id.to_string(),
            member_epoch: member.current.epoch,
            heartbeat_interval_ms,
            assignment: (heartbeat.member_epoch == JOIN_EPOCH || is_full || is_assignment_new)
                .then_some(partitions),
        };
        self.reply_when_stored(token, GroupReply::ConsumerHeartbeat(reply));
        Ok(())
    }

    /// Makes sure that the group is a consumer group; one without members becomes one when a member joins.
    fn enter_consumer_protocol(&mut self, is_join: bool) -> Result<(), GroupError> {
        match &self.group.modern {
            Some(modern) if modern.kind == Kind::Consumer => Ok(()),
            Some(_) => Err(GroupError::GroupIdNotFound),
            None if !is_join => Err(GroupError::GroupIdNotFound),
            None if self.group.classic.member_count() == 0 => {
                self.leave_classic_protocol();
                self.group.modern = Some(Box::new(ModernGroup::new(Kind::Consumer, self.now_ms)));
                Ok(())
            }
            None => self.upgrade(),
        }
    }

    /// The member that the heartbeat is from: known, new, or in the place of a static one.
    fn find_consumer_member(&mut self, heartbeat: &ConsumerHeartbeat) -> Result<Arc<str>, GroupError> {
        let is_join = heartbeat.member_epoch == JOIN_EPOCH;
        let member_count_max = self.settings.consumer.max_size;
        let Some(modern) = self.group.modern.as_deref_mut() else { return Err(GroupError::GroupIdNotFound) };
        let known = modern.member(&heartbeat.member_id);
        if known.is_none() && modern.member_count() >= member_count_max {
            return Err(GroupError::GroupMaxSizeReached);
        }
        let member_id: Arc<str> = match heartbeat.member_id.as_str() {
            "" => (self.ids)().to_string().into(),
            given => given.into(),
        };
        let holder = heartbeat.instance_id.as_deref().map(|id| modern.static_member_id(id).cloned());
        match holder {
            // A dynamic member.
            None => match known {
                Some(member) => check_epoch(&member.current, heartbeat)?,
                None if is_join => {}
                None => return Err(GroupError::UnknownMemberId),
            },
            Some(None) if is_join => {}
            Some(None) => return Err(GroupError::UnknownMemberId),
            Some(Some(holder)) if is_join => {
                let Some(held) = modern.member(&holder) else { return Err(GroupError::UnknownMemberId) };
                if held.info.classic.is_none() && held.current.epoch != LEAVE_STATIC_EPOCH {
                    return Err(GroupError::UnreleasedInstanceId);
                }
                self.replace_static_member(&holder, &member_id);
            }
            Some(Some(holder)) if *holder != *member_id => return Err(GroupError::FencedInstanceId),
            Some(Some(holder)) => {
                let held = modern.member(&holder).ok_or(GroupError::UnknownMemberId)?;
                check_epoch(&held.current, heartbeat)?;
            }
        }
        Ok(member_id)
    }

    /// Gives a static member's place to another member id, which has all to learn of it.
    pub(in crate::coordinator::group) fn replace_static_member(
        &mut self,
        old_id: &Arc<str>,
        new_id: &Arc<str>,
    ) {
        self.end_membership(old_id);
        if let Some(modern) = self.group.modern.as_deref_mut() {
            modern.replace_member(old_id, new_id.clone());
        }
    }

    /// Takes in what a member says of itself, and raises the group's epoch if that or the topics ask for another
    /// assignment. Whether the member reads something else now.
    pub(in crate::coordinator::group) fn take_in_member(
        &mut self,
        member_id: &Arc<str>,
        info: MemberInfo,
    ) -> bool {
        let (now_ms, topics) = (self.now_ms, self.topics.clone());
        let refresh_ms = self.settings.consumer.regex_refresh_interval_ms;
        let Some(modern) = self.group.modern.as_deref_mut() else { return false };
        let before = modern.member(member_id).map(|member| &member.info);
        let is_new = before.is_none();
        let is_subscription_changed = before
            .is_none_or(|before| before.topics != info.topics || before.topic_regex != info.topic_regex);
        modern.put_info(member_id, info);
        let is_regex_changed = modern.refresh_regexes(&topics, refresh_ms, now_ms);
        let is_stale = modern.topics_version != Some(topics.version());
        if is_new || is_subscription_changed || is_regex_changed {
            modern.bump_epoch(&topics);
        } else if is_stale {
            modern.bump_epoch_if_topics_changed(&topics);
        }
        is_subscription_changed || is_regex_changed
    }

    /// Makes a new assignment if it is older than the group and the last one is not too young.
    pub(in crate::coordinator::group) fn update_assignment(&mut self) {
        let (now_ms, topics) = (self.now_ms, self.topics.clone());
        let settings = &self.settings.consumer;
        let Some(modern) = self.group.modern.as_deref_mut() else { return };
        let (interval_ms, name) = match modern.kind {
            Kind::Consumer => (settings.assignment_interval_ms, "consumer.assignment.interval.ms"),
            Kind::Share => (self.settings.share.assignment_interval_ms, "share.assignment.interval.ms"),
        };
        let interval_ms = topics.group_config(&self.group.id, name).unwrap_or(interval_ms);
        let is_due = interval_ms == 0
            || modern.assignment_ms == 0
            || now_ms >= modern.assignment_ms.saturating_add(interval_ms);
        if modern.assignment_epoch >= modern.epoch || !is_due {
            return;
        }
        let assignor = modern.preferred_assignor(&settings.assignors);
        tracing::debug!(group = &*self.group.id, epoch = modern.epoch, "a new assignment is made");
        modern.assign(assignor, &topics, now_ms);
    }

    /// Moves a member one step towards what it shall have.
    pub(in crate::coordinator::group) fn reconcile(
        &mut self,
        member_id: &Arc<str>,
        is_subscription_changed: bool,
        owned: Option<&TopicPartitions>,
    ) {
        let topics = self.topics.clone();
        let Some(modern) = self.group.modern.as_deref_mut() else { return };
        let Some(member) = modern.member(member_id) else { return };
        if !is_subscription_changed && member.current.is_reconciled_to(modern.assignment_epoch) {
            return;
        }
        let step = Reconciliation {
            target: modern.target(member_id),
            target_epoch: modern.assignment_epoch,
            subscribed: &modern.topic_ids_of(&member.info, &topics),
            is_subscription_changed,
            owned,
            is_held_by_other: &|topic, partition| modern.is_held_by_other(topic, partition, member_id),
        };
        let next = step.step(&member.current);
        if next == member.current {
            return;
        }
        let (is_revoking, is_classic) = (next.state == MemberState::Unrevoked, member.info.classic.is_some());
        let timeout_ms = i64::from(member.info.rebalance_timeout_ms);
        modern.set_current(member_id, next);
        let key = TimerKey::Revocation(self.group.id.clone(), member_id.clone());
        match is_revoking && !is_classic {
            true => self.timers.set(key, self.now_ms.saturating_add(timeout_ms)),
            false => self.timers.cancel(&key),
        }
    }

    /// A setting of this group, or the broker's.
    pub(super) fn group_config(&self, name: &str, of_broker: i64) -> i64 {
        self.topics.group_config(&self.group.id, name).unwrap_or(of_broker)
    }

    pub(super) fn heartbeat_interval_ms(&self, protocol: &str, of_broker: i32) -> i32 {
        let own = self.group_config(&format!("{protocol}.heartbeat.interval.ms"), i64::from(of_broker));
        i32::try_from(own).unwrap_or(of_broker)
    }

    pub(in crate::coordinator::group) fn modern_member(&self, member_id: &str) -> Option<&Member> {
        self.group.modern.as_ref()?.member(member_id)
    }

    /// Lets a member live for its session timeout from now.
    pub(in crate::coordinator::group) fn extend_modern_session(&mut self, member_id: &Arc<str>) {
        let Some(member) = self.modern_member(member_id) else { return };
        let is_share = self.group.modern.as_deref().is_some_and(|modern| modern.kind == Kind::Share);
        let timeout_ms = match &member.info.classic {
            _ if is_share => {
                self.group_config("share.session.timeout.ms", self.settings.share.session_timeout_ms)
            }
            Some(classic) => i64::from(classic.session_timeout_ms),
            None => {
                self.group_config("consumer.session.timeout.ms", self.settings.consumer.session_timeout_ms)
            }
        };
        self.set_session(member_id, timeout_ms);
    }
}

/// Whether the heartbeat's epoch is the member's, or the one before it from a member that missed the last reply.
fn check_epoch(current: &Current, heartbeat: &ConsumerHeartbeat) -> Result<(), GroupError> {
    let epoch = heartbeat.member_epoch;
    let is_late = epoch == current.previous_epoch
        && heartbeat.owned.as_ref().is_some_and(|owned| is_within(owned, &current.partitions()));
    match epoch {
        JOIN_EPOCH => Ok(()),
        _ if epoch == current.epoch => Ok(()),
        _ if epoch < current.epoch && is_late => Ok(()),
        _ => Err(GroupError::FencedMemberEpoch),
    }
}

fn is_within(owned: &TopicPartitions, assigned: &TopicPartitions) -> bool {
    owned.iter().all(|(topic, partitions)| {
        partitions.is_empty() || assigned.get(topic).is_some_and(|assigned| partitions.is_subset(assigned))
    })
}

fn updated_info(before: Option<&MemberInfo>, heartbeat: &ConsumerHeartbeat) -> MemberInfo {
    let mut info = before.cloned().unwrap_or_default();
    if heartbeat.instance_id.is_some() {
        info.instance_id.clone_from(&heartbeat.instance_id);
    }
    if heartbeat.rack_id.is_some() {
        info.rack_id.clone_from(&heartbeat.rack_id);
    }
    if let Some(timeout_ms) = heartbeat.rebalance_timeout_ms {
        info.rebalance_timeout_ms = timeout_ms;
    }
    if let Some(topics) = &heartbeat.topics {
        info.topics = topics.iter().cloned().collect();
    }
    if let Some(regex) = &heartbeat.topic_regex {
        info.topic_regex = Some(regex.clone()).filter(|regex| !regex.is_empty());
    }
    if heartbeat.assignor.is_some() {
        info.assignor.clone_from(&heartbeat.assignor);
    }
    info.client_id.clone_from(&heartbeat.client_id);
    info.client_host.clone_from(&heartbeat.client_host);
    info.classic = None;
    info
}

impl ModernGroup {
    /// Looks anew for the topics of expressions: at once for new ones, now and then for the others. Whether any of
    /// them has other topics than before.
    fn refresh_regexes(&mut self, topics: &super::Topics, refresh_ms: i64, now_ms: i64) -> bool {
        let wanted: BTreeSet<String> =
            self.members.values().filter_map(|member| member.info.topic_regex.clone()).collect();
        let mut is_changed = false;
        for gone in self.regexes.keys().filter(|regex| !wanted.contains(*regex)).cloned().collect::<Vec<_>>()
        {
            self.drop_regex(&gone);
            is_changed = true;
        }
        for regex in wanted {
            let before = self.regexes.get(&regex);
            let is_due = before.is_none_or(|before| {
                let age_ms = now_ms.saturating_sub(before.resolved_ms);
                (before.version != topics.version() && age_ms >= REGEX_REFRESH_MS_MIN) || age_ms >= refresh_ms
            });
            if !is_due {
                continue;
            }
            let found = topic_regex::resolve(&regex, topics);
            is_changed |= before.is_none_or(|before| before.topics != found);
            self.put_regex(
                regex,
                super::ResolvedRegex { topics: found, version: topics.version(), resolved_ms: now_ms },
            );
        }
        is_changed
    }

    /// The assignor that most members wish, or the first that is configured.
    pub(super) fn preferred_assignor(&self, known: &[Assignor]) -> Assignor {
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for name in self.members.values().filter_map(|member| member.info.assignor.as_deref()) {
            *votes.entry(name).or_default() += 1;
        }
        let most = votes.into_iter().max_by_key(|(_, count)| *count);
        most.and_then(|(name, _)| Assignor::of_name(name))
            .or_else(|| known.first().copied())
            .unwrap_or(Assignor::Uniform)
    }

    fn assign(&mut self, assignor: Assignor, topics: &super::Topics, now_ms: i64) {
        let mut partition_counts = BTreeMap::new();
        let mut members = Vec::with_capacity(self.members.len());
        for (id, member) in &self.members {
            let ids: BTreeSet<Uuid> = self.topic_ids_of(&member.info, topics);
            for id in &ids {
                if let Some((_, count)) = topics.by_id(*id) {
                    partition_counts.insert(*id, count);
                }
            }
            let instance_id = member.info.instance_id.as_deref();
            members.push(AssignedTo { id, instance_id, topics: ids, previous: self.targets.get(id) });
        }
        let group = ToAssign { members, partition_counts };
        let assignment = match self.kind {
            Kind::Consumer => assignor.assign(&group),
            Kind::Share => share(&group),
        };
        self.set_assignment(assignment, now_ms);
    }
}
