//! SyncGroup: the leader's assignments, and handing them out once they are stored.
//!
//! Source: Kafka's GroupMetadataManager.classicGroupSyncToClassicGroup and expirePendingSync.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::model::group::{GroupError, GroupReply, GroupState, ReplyToken, SyncGroup, SyncGroupReply};

use super::appends::AfterGroupStored;
use super::classic_group::Member;
use super::retention::RETENTION_CHECK_MS;
use super::turn::Turn;
use super::{Effects, GroupCoordinator};

impl GroupCoordinator {
    pub(super) fn sync(&mut self, token: ReplyToken, sync: &SyncGroup, now_ms: i64) -> Effects {
        if !self.groups.contains_key(sync.group_id.as_str()) {
            let refused = SyncGroupReply::refused(GroupError::UnknownMemberId);
            return Effects::reply(token, GroupReply::Sync(refused));
        }
        self.turn_alone(&sync.group_id, now_ms, |turn| turn.sync(token, sync))
    }
}

impl Turn<'_> {
    fn sync(&mut self, token: ReplyToken, sync: &SyncGroup) {
        if self.group.modern.is_some() {
            return self.sync_consumer_group(token, sync);
        }
        if let Err(error) = self.check_sync(sync) {
            return self.refuse_sync(token, error);
        }
        match self.classic().state() {
            GroupState::Empty | GroupState::Dead => self.refuse_sync(token, GroupError::UnknownMemberId),
            GroupState::PreparingRebalance => self.refuse_sync(token, GroupError::RebalanceInProgress),
            GroupState::CompletingRebalance => self.sync_completing(token, sync),
            GroupState::Stable => {
                self.note_sync(&sync.member_id);
                let synced = self.synced(&sync.member_id);
                self.output.reply(token, GroupReply::Sync(synced));
            }
        }
    }

    fn check_sync(&mut self, sync: &SyncGroup) -> Result<(), GroupError> {
        let classic = self.classic();
        classic.check_member(&sync.member_id, sync.group_instance_id.as_deref())?;
        if sync.generation_id != classic.generation_id {
            return Err(GroupError::IllegalGeneration);
        }
        if differ(&sync.protocol_type, &classic.protocol_type)
            || differ(&sync.protocol_name, &classic.protocol_name)
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        Ok(())
    }

    fn sync_completing(&mut self, token: ReplyToken, sync: &SyncGroup) {
        let classic = self.classic();
        let Some(member) = classic.member_mut(&sync.member_id) else {
            return self.refuse_sync(token, GroupError::UnknownMemberId);
        };
        if let Some(superseded) = member.awaiting_sync.replace(token) {
            self.refuse_sync(superseded, GroupError::RebalanceInProgress);
        }
        self.note_sync(&sync.member_id);
        let classic = self.classic();
        let generation_id = classic.generation_id;
        // A leader that repeats itself while its first words are being stored only waits for them.
        if classic.is_leader(&sync.member_id) && classic.assignment_in_flight != Some(generation_id) {
            classic.assignment_in_flight = Some(generation_id);
            self.store_assignments(generation_id, &sync.assignments);
        }
    }

    fn store_assignments(&mut self, generation_id: i32, assignments: &[(String, Bytes)]) {
        let is_member = |id: &str| self.group.classic.member(id).is_some();
        let assignments: HashMap<String, Bytes> =
            assignments.iter().filter(|(id, _)| is_member(id)).cloned().collect();
        let then = AfterGroupStored::Assign { generation_id, assignments: assignments.clone() };
        self.store_group(|member| assignments.get(&*member.id).cloned().unwrap_or_default(), then);
    }

    /// The assignments of a generation are stored: if it is still the one, hand them out.
    pub(super) fn assign(&mut self, generation_id: i32, assignments: &HashMap<String, Bytes>) {
        if !self.is_completing(generation_id) {
            return;
        }
        for member in self.classic().members_mut() {
            member.assignment = assignments.get(&*member.id).cloned().unwrap_or_default();
        }
        let now_ms = self.now_ms;
        self.classic().set_state(GroupState::Stable, now_ms);
        for (member_id, token) in self.take_syncs() {
            let synced = self.synced(&member_id);
            self.output.reply(token, GroupReply::Sync(synced));
            self.extend_session(&member_id);
        }
        self.plan_retention(RETENTION_CHECK_MS);
    }

    /// The assignments of a generation could not be stored: everybody joins again.
    pub(super) fn assignment_not_stored(&mut self, generation_id: i32, error: GroupError) {
        if self.is_completing(generation_id) {
            self.reset_assignments(error);
            self.prepare_rebalance("the assignment could not be stored");
        }
    }

    fn is_completing(&self, generation_id: i32) -> bool {
        let classic = &self.group.classic;
        classic.is_in(GroupState::CompletingRebalance) && classic.generation_id == generation_id
    }

    /// Takes all assignments away and tells those who wait for one.
    pub(super) fn reset_assignments(&mut self, error: GroupError) {
        for member in self.classic().members_mut() {
            member.assignment = Bytes::new();
        }
        for (member_id, token) in self.take_syncs() {
            self.refuse_sync(token, error);
            self.extend_session(&member_id);
        }
    }

    fn take_syncs(&mut self) -> Vec<(Arc<str>, ReplyToken)> {
        let take = |member: &mut Member| member.awaiting_sync.take().map(|token| (member.id.clone(), token));
        self.classic().members_mut().filter_map(take).collect()
    }

    fn synced(&self, member_id: &str) -> SyncGroupReply {
        let classic = &self.group.classic;
        SyncGroupReply {
            error: None,
            protocol_type: classic.protocol_type.clone(),
            protocol_name: classic.protocol_name.clone(),
            assignment: classic.member(member_id).map(|member| member.assignment.clone()).unwrap_or_default(),
        }
    }

    fn note_sync(&mut self, member_id: &str) {
        self.classic().pending_syncs.remove(member_id);
        if self.classic().pending_syncs.is_empty() {
            self.cancel_sync_timer();
        }
    }

    /// The sync timer has come: members that never asked for their assignment are out.
    pub(super) fn expire_sync(&mut self) {
        if !matches!(self.classic().state(), GroupState::CompletingRebalance | GroupState::Stable) {
            return;
        }
        let absent = std::mem::take(&mut self.classic().pending_syncs);
        if absent.is_empty() {
            return;
        }
        for member_id in &absent {
            self.remove_member(member_id);
        }
        self.prepare_rebalance("members did not ask for their assignment");
    }
}

fn differ(asked: &Option<String>, current: &Option<String>) -> bool {
    matches!((asked, current), (Some(asked), Some(current)) if asked != current)
}
