//! JoinGroup: who may be in the next generation.
//!
//! A newcomer is given an id (and, since KIP-394, told to come back with it), a known member says again what it can
//! do, a static member takes its old place over (KIP-345). Most joins are answered by `rebalance`, when the generation
//! has formed.
//! Source: Kafka's GroupMetadataManager.classicGroupJoinToClassicGroup and what it calls.

use std::sync::Arc;

use crate::model::group::{GroupError, GroupReply, GroupState, JoinGroup, JoinGroupReply, ReplyToken};

use super::appends::{AfterGroupStored, StaticWelcome};
use super::classic_group::NewMember;
use super::schema::STRING_BYTES_MAX;
use super::turn::Turn;
use super::{Effects, GroupCoordinator};

/// A newcomer that waits for its first generation cannot send heartbeats, so it is given this long before it counts
/// as gone. Kafka's CLASSIC_GROUP_NEW_MEMBER_JOIN_TIMEOUT_MS.
const NEW_MEMBER_JOIN_TIMEOUT_MS: i64 = 5 * 60 * 1_000;
/// Most newcomers of a group that were told their id and have not come back. Kafka has no such limit.
const PENDING_JOIN_COUNT_MAX: usize = 10_000;
/// What a new id adds to the client id or instance id: "-" and a UUID.
const MEMBER_ID_SUFFIX_BYTES: usize = 1 + 36;

impl GroupCoordinator {
    pub(super) fn join(&mut self, token: ReplyToken, mut join: JoinGroup, now_ms: i64) -> Effects {
        let refuse =
            |error| Effects::reply(token, GroupReply::Join(JoinGroupReply::refused(&join.member_id, error)));
        let session_timeouts_ms =
            self.settings.group_min_session_timeout_ms..=self.settings.group_max_session_timeout_ms;
        if !session_timeouts_ms.contains(&join.session_timeout_ms) {
            return refuse(GroupError::InvalidSessionTimeout);
        }
        if !names_fit_a_record(&join) {
            return refuse(GroupError::InvalidRequest);
        }
        // Only a newcomer makes a group; a member of a group that is gone has to start over.
        if !join.member_id.is_empty() && !self.groups.contains_key(join.group_id.as_str()) {
            return refuse(GroupError::UnknownMemberId);
        }
        if !self.has_room_for_group(&join.group_id) {
            return refuse(GroupError::GroupsMaxReached);
        }
        keep_first_of_each_protocol(&mut join);
        self.ensure_group(&join.group_id, now_ms);
        let group_id = join.group_id.clone();
        self.turn_alone(&group_id, now_ms, |turn| turn.join(token, join))
    }
}

impl Turn<'_> {
    fn join(&mut self, token: ReplyToken, join: JoinGroup) {
        self.leave_modern_protocol_if_empty();
        if self.group.modern.is_some() {
            return self.join_consumer_group(token, join);
        }
        let member_count_max = self.settings.group_max_size;
        if !self.classic().has_room_for(&join.member_id, member_count_max) {
            self.remove_member(&join.member_id);
            self.refuse_join(token, "", GroupError::GroupMaxSizeReached);
            self.complete_join_if_all_joined();
        } else if !self.classic().supports(&join.protocol_type, &join.protocols) {
            self.refuse_join(token, &join.member_id, GroupError::InconsistentGroupProtocol);
        } else if join.member_id.is_empty() {
            self.join_new(token, join);
        } else if self.classic().pending_joins.contains(join.member_id.as_str()) {
            self.join_pending(token, join);
        } else {
            self.join_known(token, join);
        }
    }

    fn join_new(&mut self, token: ReplyToken, join: JoinGroup) {
        let prefix = join.group_instance_id.as_ref().unwrap_or(&join.client_id);
        let member_id: Arc<str> = format!("{prefix}-{}", (self.ids)()).into();
        let place = join.group_instance_id.as_ref().and_then(|id| self.group.classic.static_member_id(id));
        match place {
            Some(old_id) => self.take_over(token, join, &old_id, member_id),
            None if join.group_instance_id.is_none() && join.require_known_member_id => {
                self.require_member_id(token, &join, member_id);
            }
            None => self.add_member(token, join, member_id),
        }
    }

    fn require_member_id(&mut self, token: ReplyToken, join: &JoinGroup, member_id: Arc<str>) {
        if self.classic().pending_joins.len() >= PENDING_JOIN_COUNT_MAX {
            return self.refuse_join(token, "", GroupError::GroupMaxSizeReached);
        }
        self.refuse_join(token, &member_id, GroupError::MemberIdRequired);
        self.set_session(&member_id, i64::from(join.session_timeout_ms));
        self.classic().pending_joins.insert(member_id);
    }

    fn join_pending(&mut self, token: ReplyToken, join: JoinGroup) {
        // Ids are handed out to dynamic members only; whoever uses one with an instance id made it up.
        if join.group_instance_id.is_some() {
            return self.refuse_join(token, &join.member_id, GroupError::UnknownMemberId);
        }
        let member_id: Arc<str> = join.member_id.as_str().into();
        self.add_member(token, join, member_id);
    }

    fn add_member(&mut self, token: ReplyToken, join: JoinGroup, member_id: Arc<str>) {
        let classic = self.classic();
        if classic.is_initial_rebalance() {
            classic.new_member_added = true;
        }
        if classic.member_count() == 0 {
            classic.protocol_type = Some(join.protocol_type);
        }
        classic.add(NewMember {
            id: member_id.clone(),
            instance_id: join.group_instance_id,
            client_id: join.client_id,
            client_host: join.client_host,
            session_timeout_ms: join.session_timeout_ms,
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            protocols: join.protocols,
        });
        self.await_join(&member_id, token);
        self.set_session(&member_id, NEW_MEMBER_JOIN_TIMEOUT_MS);
        self.rebalance("a member joined");
    }

    fn join_known(&mut self, token: ReplyToken, join: JoinGroup) {
        let instance_id = join.group_instance_id.as_deref();
        if let Err(error) = self.classic().check_member(&join.member_id, instance_id) {
            return self.refuse_join(token, &join.member_id, error);
        }
        let classic = self.classic();
        let is_leader = classic.is_leader(&join.member_id);
        let is_unchanged =
            classic.member(&join.member_id).is_some_and(|member| member.protocols == join.protocols);
        // A member that lost its JoinGroup reply, or a follower without news, is told of the present generation. The
        // leader of a stable group rejoins to have partitions assigned anew.
        let needs_rebalance = match classic.state() {
            GroupState::PreparingRebalance => true,
            GroupState::CompletingRebalance => !is_unchanged,
            GroupState::Stable => is_leader || !is_unchanged,
            GroupState::Empty | GroupState::Dead => {
                return self.refuse_join(token, &join.member_id, GroupError::UnknownMemberId);
            }
        };
        if needs_rebalance {
            self.update_member(token, join);
            self.rebalance("a member rejoined");
        } else {
            let joined = self.joined(&join.member_id, false);
            self.output.reply(token, GroupReply::Join(joined));
        }
    }

    fn update_member(&mut self, token: ReplyToken, join: JoinGroup) {
        let JoinGroup { member_id, protocols, rebalance_timeout_ms, session_timeout_ms, .. } = join;
        self.classic().update(&member_id, protocols, rebalance_timeout_ms, session_timeout_ms);
        self.await_join(&member_id, token);
    }

    /// A join that supersedes one of the same member answers it.
    fn await_join(&mut self, member_id: &str, token: ReplyToken) {
        if let Some(superseded) = self.classic().await_join(member_id, token) {
            self.refuse_join(superseded, member_id, GroupError::RebalanceInProgress);
        }
    }

    /// A static member comes (back) without an id: whoever holds its place is fenced.
    fn take_over(&mut self, token: ReplyToken, join: JoinGroup, old_id: &Arc<str>, new_id: Arc<str>) {
        let leader_before = self.classic().leader_or_empty().to_owned();
        let supports_skipping_assignment = join.supports_skipping_assignment;
        self.output.refuse_member(&mut self.group.classic, old_id, old_id, GroupError::FencedInstanceId);
        self.remove_session(old_id);
        self.classic().replace_static(old_id, new_id.clone());
        self.update_member(token, JoinGroup { member_id: new_id.to_string(), ..join });
        self.extend_session(&new_id);
        match self.classic().state() {
            GroupState::Stable if self.keeps_protocol() => {
                let generation_id = self.classic().generation_id;
                let welcome = StaticWelcome { generation_id, leader_before, supports_skipping_assignment };
                self.store_group(
                    |member| member.assignment.clone(),
                    AfterGroupStored::WelcomeStaticMember { member_id: new_id, token, welcome },
                );
            }
            // The leader may be assigning to the old id just now, so the generation cannot be kept.
            _ => self.rebalance("a static member came back"),
        }
    }

    fn keeps_protocol(&self) -> bool {
        self.group.classic.select_protocol() == self.group.classic.protocol_name
    }
}

/// Strings have an i16 length in a record.
fn names_fit_a_record(join: &JoinGroup) -> bool {
    let instance_id_bytes = join.group_instance_id.as_ref().map_or(0, String::len);
    join.client_id.len().max(instance_id_bytes) + MEMBER_ID_SUFFIX_BYTES <= STRING_BYTES_MAX
        && join.client_host.len() <= STRING_BYTES_MAX
        && join.protocol_type.len() <= STRING_BYTES_MAX
        && join.protocols.iter().all(|protocol| protocol.name.len() <= STRING_BYTES_MAX)
}

/// Names are unique in Kafka's collection of protocols; votes count on it.
fn keep_first_of_each_protocol(join: &mut JoinGroup) {
    let mut seen = std::collections::HashSet::new();
    join.protocols.retain(|protocol| seen.insert(protocol.name.clone()));
}
