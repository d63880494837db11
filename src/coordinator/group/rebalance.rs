//! From one generation to the next: waiting for members to join, and fixing who did.
//!
//! ```text
//! Empty --join--> PreparingRebalance --all joined, or time is up--> CompletingRebalance --assigned--> Stable
//!   ^                    |    ^                                            |                            |
//!   +---- all left ------+    +------- join, leave, session expired -------+----------------------------+
//! ```
//! Source: Kafka's GroupMetadataManager.prepareRebalance, completeClassicGroupJoin and
//! tryCompleteInitialRebalanceElseSchedule.

use std::sync::Arc;

use bytes::Bytes;

use crate::model::group::{GroupError, GroupReply, GroupState};

use super::appends::AfterGroupStored;
use super::classic_group::{InitialDelay, Member};
use super::retention::RETENTION_CHECK_MS;
use super::turn::Turn;

/// Shortest time between two looks for absent static members; their rebalance timeout may be nothing at all.
const POSTPONED_JOIN_MS_MIN: i64 = 1_000;

impl Turn<'_> {
    /// Starts a rebalance where the state allows one, or ends the join phase if nobody is missing any more.
    pub(super) fn rebalance(&mut self, reason: &'static str) {
        match self.classic().state() {
            GroupState::Empty | GroupState::CompletingRebalance | GroupState::Stable => {
                self.prepare_rebalance(reason);
            }
            GroupState::PreparingRebalance | GroupState::Dead => self.complete_join_if_all_joined(),
        }
    }

    pub(super) fn prepare_rebalance(&mut self, reason: &'static str) {
        if self.classic().is_in(GroupState::CompletingRebalance) {
            self.reset_assignments(GroupError::RebalanceInProgress);
        }
        self.classic().pending_syncs.clear();
        self.cancel_sync_timer();
        let is_initial = self.classic().is_in(GroupState::Empty);
        let now_ms = self.now_ms;
        self.classic().set_state(GroupState::PreparingRebalance, now_ms);
        tracing::debug!(group = &*self.group.id, reason, "group prepares to rebalance");
        if is_initial {
            self.start_initial_delay();
        } else if self.classic().has_all_members_joined() {
            self.complete_join();
        } else {
            let timeout_ms = self.classic().rebalance_timeout_ms();
            self.set_join_timer(timeout_ms);
        }
    }

    /// The first members of an empty group wait a little for others, so that starting ten consumers does not cost
    /// ten generations (KIP-134).
    fn start_initial_delay(&mut self) {
        let delay_ms = self.settings.group_initial_rebalance_delay_ms;
        if delay_ms <= 0 {
            return self.complete_join();
        }
        let remaining_ms = (self.classic().rebalance_timeout_ms() - delay_ms).max(0);
        self.classic().new_member_added = false;
        self.classic().initial_delay = Some(InitialDelay { delay_ms, remaining_ms });
        self.set_join_timer(delay_ms);
    }

    /// The join timer has come.
    pub(super) fn expire_join(&mut self) {
        if !self.classic().is_in(GroupState::PreparingRebalance) {
            return;
        }
        let has_newcomer = self.classic().new_member_added;
        match self.classic().initial_delay {
            Some(delay) if has_newcomer && delay.remaining_ms > 0 => {
                let delay_ms = self.settings.group_initial_rebalance_delay_ms.min(delay.remaining_ms);
                let remaining_ms = (delay.remaining_ms - delay.delay_ms).max(0);
                self.classic().new_member_added = false;
                self.classic().initial_delay = Some(InitialDelay { delay_ms, remaining_ms });
                self.set_join_timer(delay_ms);
            }
            _ => self.complete_join(),
        }
    }

    /// Ends the join phase if nobody is missing; the initial delay is always sat out.
    pub(super) fn complete_join_if_all_joined(&mut self) {
        let classic = self.classic();
        if classic.is_in(GroupState::PreparingRebalance)
            && !classic.is_initial_rebalance()
            && classic.has_all_members_joined()
        {
            self.complete_join();
        }
    }

    /// Ends the join phase: dynamic members that did not come are out, and those that did form the generation.
    pub(super) fn complete_join(&mut self) {
        self.cancel_join_timer();
        self.classic().initial_delay = None;
        self.remove_absent_members();
        if !self.classic().elect_joined_leader() && self.classic().member_count() > 0 {
            // Only static members are left and none came: wait until they do or their sessions expire.
            let timeout_ms = self.classic().rebalance_timeout_ms().max(POSTPONED_JOIN_MS_MIN);
            return self.set_join_timer(timeout_ms);
        }
        let now_ms = self.now_ms;
        self.classic().start_next_generation(now_ms);
        if self.classic().is_in(GroupState::Empty) {
            self.store_group(|_| Bytes::new(), AfterGroupStored::Nothing);
            self.plan_retention(RETENTION_CHECK_MS);
        } else {
            self.announce_generation();
        }
    }

    fn remove_absent_members(&mut self) {
        let is_absent = |member: &&Member| member.awaiting_join().is_none() && member.instance_id.is_none();
        let absent: Vec<Arc<str>> =
            self.classic().members().filter(is_absent).map(|member| member.id.clone()).collect();
        for member_id in absent {
            self.remove_member(&member_id);
        }
    }

    fn announce_generation(&mut self) {
        let classic = self.classic();
        tracing::debug!(
            generation = classic.generation_id,
            members = classic.member_count(),
            leader = classic.leader_or_empty(),
            "group has a new generation"
        );
        let member_ids: Vec<Arc<str>> = classic.members().map(|member| member.id.clone()).collect();
        for member_id in member_ids {
            if let Some(token) = self.classic().take_join(&member_id) {
                let joined = self.joined(&member_id, false);
                self.output.reply(token, GroupReply::Join(joined));
            }
            self.extend_session(&member_id);
            if let Some(member) = self.classic().member_mut(&member_id) {
                member.is_new = false;
            }
            self.classic().pending_syncs.insert(member_id);
        }
        let timeout_ms = self.classic().rebalance_timeout_ms();
        self.set_sync_timer(timeout_ms);
    }
}
