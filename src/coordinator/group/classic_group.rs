//! One classic group: its members, votes, leader, generation and state.
//!
//! Only bookkeeping: every method leaves the counts in order and nothing here replies, arms a timer or writes a
//! record (see `rebalance` for that).
//! Invariants: `leader` is a member, and set exactly when there are members; `awaiting_join_count` members have a
//! join token; `protocol_votes` counts the members that support each protocol; a static member's instance id leads
//! to its member id; nobody is both a member and a pending one.
//! Source: Kafka's ClassicGroup and ClassicGroupMember.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::model::group::{
    CONSUMER_PROTOCOL_TYPE, GroupError, GroupState, JoinedMember, MemberProtocol, ReplyToken,
};

use super::schema::{self, GroupValue, MemberValue};

/// One member of a group.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: Arc<str>,
    pub(super) instance_id: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) session_timeout_ms: i32,
    pub(super) rebalance_timeout_ms: i32,
    /// Best first.
    pub(super) protocols: Vec<MemberProtocol>,
    pub(super) assignment: Bytes,
    /// Whether the member has not yet seen a JoinGroup reply; such a one may expire while it waits.
    pub(super) is_new: bool,
    awaiting_join: Option<ReplyToken>,
    pub(super) awaiting_sync: Option<ReplyToken>,
}

impl Member {
    /// The token of the join that waits for the next generation.
    pub(super) fn awaiting_join(&self) -> Option<ReplyToken> {
        self.awaiting_join
    }

    /// Whether silence is excused: a waiting client sends no heartbeats.
    pub(super) fn is_excused(&self) -> bool {
        !self.is_new && (self.awaiting_join.is_some() || self.awaiting_sync.is_some())
    }

    pub(super) fn metadata(&self, protocol_name: Option<&str>) -> Bytes {
        let chosen = self.protocols.iter().find(|protocol| Some(protocol.name.as_str()) == protocol_name);
        chosen.map(|protocol| protocol.metadata.clone()).unwrap_or_default()
    }
}

/// What a new member brings along.
pub(super) struct NewMember {
    pub(super) id: Arc<str>,
    pub(super) instance_id: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) session_timeout_ms: i32,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) protocols: Vec<MemberProtocol>,
}

/// The extension that the first rebalance of an empty group still has.
#[derive(Debug, Clone, Copy)]
pub(super) struct InitialDelay {
    pub(super) delay_ms: i64,
    pub(super) remaining_ms: i64,
}

/// A group's membership.
#[derive(Debug)]
pub(super) struct ClassicGroup {
    state: GroupState,
    previous_state: GroupState,
    /// Since when the state holds; none for groups from old records.
    pub(super) state_timestamp_ms: Option<i64>,
    /// None for a group that only commits offsets.
    pub(super) protocol_type: Option<String>,
    pub(super) protocol_name: Option<String>,
    pub(super) generation_id: i32,
    leader: Option<Arc<str>>,
    members: BTreeMap<Arc<str>, Member>,
    static_members: HashMap<String, Arc<str>>,
    /// Were told their id and have not come back with it (KIP-394).
    pub(super) pending_joins: BTreeSet<Arc<str>>,
    /// Have not sent SyncGroup in this generation.
    pub(super) pending_syncs: BTreeSet<Arc<str>>,
    awaiting_join_count: usize,
    protocol_votes: HashMap<String, usize>,
    /// None when the members' metadata could not be understood.
    subscribed_topics: Option<HashSet<String>>,
    pub(super) new_member_added: bool,
    pub(super) initial_delay: Option<InitialDelay>,
    /// The generation whose assignment is on its way to the log.
    pub(super) assignment_in_flight: Option<i32>,
}

impl ClassicGroup {
    /// A group without members.
    pub(super) fn empty(now_ms: Option<i64>) -> Self {
        ClassicGroup {
            state: GroupState::Empty,
            previous_state: GroupState::Dead,
            state_timestamp_ms: now_ms,
            protocol_type: None,
            protocol_name: None,
            generation_id: 0,
            leader: None,
            members: BTreeMap::new(),
            static_members: HashMap::new(),
            pending_joins: BTreeSet::new(),
            pending_syncs: BTreeSet::new(),
            awaiting_join_count: 0,
            protocol_votes: HashMap::new(),
            subscribed_topics: None,
            new_member_added: false,
            initial_delay: None,
            assignment_in_flight: None,
        }
    }

    /// The group that a stored generation describes: stable, or empty without members.
    pub(super) fn from_value(value: GroupValue) -> Self {
        let mut group = ClassicGroup::empty(value.state_timestamp_ms);
        group.generation_id = value.generation_id;
        for member in value.members {
            group.restore_member(member, value.protocol_name.as_deref());
        }
        if !group.members.is_empty() {
            group.state = GroupState::Stable;
            let stored = value.leader.and_then(|leader| group.members.get_key_value(leader.as_str()));
            group.leader = stored.map(|(id, _)| id.clone()).or(group.leader);
        }
        group.protocol_name = value.protocol_name;
        group.protocol_type = Some(value.protocol_type).filter(|name| !name.is_empty());
        group.subscribed_topics = group.read_subscribed_topics();
        group
    }

    fn restore_member(&mut self, value: MemberValue, protocol_name: Option<&str>) {
        let is_taken = |instance_id: &String| self.static_members.contains_key(instance_id);
        if self.members.contains_key(value.member_id.as_str())
            || value.group_instance_id.as_ref().is_some_and(is_taken)
        {
            return;
        }
        let assignment = value.assignment.clone();
        let protocols = value.protocols(protocol_name);
        let id: Arc<str> = value.member_id.into();
        self.add(NewMember {
            id: id.clone(),
            instance_id: value.group_instance_id,
            client_id: value.client_id,
            client_host: value.client_host,
            session_timeout_ms: value.session_timeout_ms,
            rebalance_timeout_ms: value.rebalance_timeout_ms,
            protocols,
        });
        if let Some(member) = self.members.get_mut(&id) {
            member.assignment = assignment;
            member.is_new = false;
        }
    }

    /// What to store of this generation with the given assignments.
    pub(super) fn to_value(&self, assignment_of: impl Fn(&Member) -> Bytes) -> GroupValue {
        let store = |member: &Member| MemberValue {
            member_id: member.id.to_string(),
            group_instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            subscription: member.metadata(self.protocol_name.as_deref()),
            assignment: assignment_of(member),
        };
        GroupValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation_id: self.generation_id,
            protocol_name: self.protocol_name.clone(),
            leader: self.leader.as_deref().map(str::to_owned),
            state_timestamp_ms: self.state_timestamp_ms,
            members: self.members.values().map(store).collect(),
        }
    }

    pub(super) fn state(&self) -> GroupState {
        self.state
    }

    pub(super) fn is_in(&self, state: GroupState) -> bool {
        self.state == state
    }

    /// Whether the rebalance under way is the first since the group was empty.
    pub(super) fn is_initial_rebalance(&self) -> bool {
        self.state == GroupState::PreparingRebalance && self.previous_state == GroupState::Empty
    }

    pub(super) fn set_state(&mut self, state: GroupState, now_ms: i64) {
        self.previous_state = self.state;
        self.state = state;
        self.state_timestamp_ms = Some(now_ms);
    }

    pub(super) fn member(&self, member_id: &str) -> Option<&Member> {
        self.members.get(member_id)
    }

    pub(super) fn member_mut(&mut self, member_id: &str) -> Option<&mut Member> {
        self.members.get_mut(member_id)
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    pub(super) fn members_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.members.values_mut()
    }

    pub(super) fn member_count(&self) -> usize {
        self.members.len()
    }

    pub(super) fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    /// The leader's id, empty without members.
    pub(super) fn leader_or_empty(&self) -> &str {
        self.leader.as_deref().unwrap_or_default()
    }

    pub(super) fn static_member_id(&self, instance_id: &str) -> Option<Arc<str>> {
        self.static_members.get(instance_id).cloned()
    }

    /// Whether a join by `member_id` (empty for a new member) stays within `member_count_max`.
    ///
    /// While members join, only those that have joined count, so that a group above a lowered limit keeps the
    /// quickest.
    pub(super) fn has_room_for(&self, member_id: &str, member_count_max: usize) -> bool {
        match self.state {
            GroupState::Empty | GroupState::Dead => true,
            GroupState::PreparingRebalance => {
                let is_waiting = self.member(member_id).is_some_and(|member| member.awaiting_join.is_some());
                is_waiting || self.awaiting_join_count < member_count_max
            }
            GroupState::CompletingRebalance | GroupState::Stable => {
                self.members.contains_key(member_id) || self.members.len() < member_count_max
            }
        }
    }

    /// Whether a member with these protocols could be part of the group.
    pub(super) fn supports(&self, protocol_type: &str, protocols: &[MemberProtocol]) -> bool {
        if self.state == GroupState::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|protocol| self.is_common_protocol(&protocol.name))
    }

    /// Checks that the member is in the group, and that nobody has taken over its instance id.
    pub(super) fn check_member(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance_id) = instance_id {
            match self.static_members.get(instance_id) {
                None => return Err(GroupError::UnknownMemberId),
                Some(current) if &**current != member_id => return Err(GroupError::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) { Ok(()) } else { Err(GroupError::UnknownMemberId) }
    }

    /// Adds a member; the first one is the leader.
    pub(super) fn add(&mut self, new: NewMember) {
        if let Some(instance_id) = &new.instance_id {
            self.static_members.insert(instance_id.clone(), new.id.clone());
        }
        self.leader.get_or_insert_with(|| new.id.clone());
        self.pending_joins.remove(&new.id);
        let member = Member {
            id: new.id.clone(),
            instance_id: new.instance_id,
            client_id: new.client_id,
            client_host: new.client_host,
            session_timeout_ms: new.session_timeout_ms,
            rebalance_timeout_ms: new.rebalance_timeout_ms,
            protocols: new.protocols,
            assignment: Bytes::new(),
            is_new: true,
            awaiting_join: None,
            awaiting_sync: None,
        };
        self.count_votes(&member);
        self.members.insert(new.id, member);
    }

    /// Removes a member or a pending one; if it led, another member leads.
    pub(super) fn remove(&mut self, member_id: &str) -> Option<Member> {
        self.pending_joins.remove(member_id);
        self.pending_syncs.remove(member_id);
        let member = self.members.remove(member_id)?;
        self.uncount_votes(&member);
        self.awaiting_join_count -= usize::from(member.awaiting_join.is_some());
        if let Some(instance_id) = &member.instance_id {
            self.static_members.remove(instance_id);
        }
        if self.is_leader(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
        Some(member)
    }

    /// Gives a static member's place, assignment and leadership to a new member id; the caller has answered the
    /// old one's tokens.
    pub(super) fn replace_static(&mut self, old_id: &str, new_id: Arc<str>) {
        let led = self.is_leader(old_id);
        let Some(mut member) = self.remove(old_id) else { return };
        member.id = new_id.clone();
        member.awaiting_join = None;
        member.awaiting_sync = None;
        member.is_new = false;
        if let Some(instance_id) = &member.instance_id {
            self.static_members.insert(instance_id.clone(), new_id.clone());
        }
        if led || self.leader.is_none() {
            self.leader = Some(new_id.clone());
        }
        self.count_votes(&member);
        self.members.insert(new_id, member);
    }

    /// Takes what a member's new join says of its protocols and times.
    pub(super) fn update(
        &mut self,
        member_id: &str,
        protocols: Vec<MemberProtocol>,
        rebalance_timeout_ms: i32,
        session_timeout_ms: i32,
    ) {
        let Some(mut member) = self.members.remove(member_id) else { return };
        self.uncount_votes(&member);
        member.protocols = protocols;
        member.rebalance_timeout_ms = rebalance_timeout_ms;
        member.session_timeout_ms = session_timeout_ms;
        self.count_votes(&member);
        self.members.insert(member.id.clone(), member);
    }

    /// Lets the member wait for the next generation; the token it waited with before comes back.
    pub(super) fn await_join(&mut self, member_id: &str, token: ReplyToken) -> Option<ReplyToken> {
        let member = self.members.get_mut(member_id)?;
        let superseded = member.awaiting_join.replace(token);
        self.awaiting_join_count += usize::from(superseded.is_none());
        superseded
    }

    /// Ends the member's wait for the next generation.
    pub(super) fn take_join(&mut self, member_id: &str) -> Option<ReplyToken> {
        let token = self.members.get_mut(member_id)?.awaiting_join.take();
        self.awaiting_join_count -= usize::from(token.is_some());
        token
    }

    pub(super) fn has_all_members_joined(&self) -> bool {
        self.awaiting_join_count == self.members.len() && self.pending_joins.is_empty()
    }

    /// How long the slowest member may take to rejoin.
    pub(super) fn rebalance_timeout_ms(&self) -> i64 {
        let timeouts_ms = self.members.values().map(|member| i64::from(member.rebalance_timeout_ms));
        timeouts_ms.max().unwrap_or(0).max(0)
    }

    /// Makes sure that the leader is one of those who joined; false if nobody did.
    pub(super) fn elect_joined_leader(&mut self) -> bool {
        let has_joined = |member: &Member| member.awaiting_join.is_some();
        if self.leader.as_ref().and_then(|id| self.members.get(id)).is_some_and(has_joined) {
            return true;
        }
        match self.members.values().find(|member| has_joined(member)) {
            Some(member) => {
                self.leader = Some(member.id.clone());
                true
            }
            None => false,
        }
    }

    /// Fixes the next generation with the members of now.
    pub(super) fn start_next_generation(&mut self, now_ms: i64) {
        self.generation_id = self.generation_id.checked_add(1).unwrap_or(1);
        self.protocol_name = self.select_protocol();
        self.subscribed_topics = self.read_subscribed_topics();
        self.pending_syncs.clear();
        let state = match self.members.is_empty() {
            true => GroupState::Empty,
            false => GroupState::CompletingRebalance,
        };
        self.set_state(state, now_ms);
    }

    /// The protocol that all members support and most prefer; the leader's order decides a tie.
    pub(super) fn select_protocol(&self) -> Option<String> {
        let leader = self.members.get(self.leader.as_ref()?)?;
        let mut votes: HashMap<&str, usize> = HashMap::new();
        for member in self.members.values() {
            if let Some(vote) = member.protocols.iter().find(|it| self.is_common_protocol(&it.name)) {
                *votes.entry(&vote.name).or_default() += 1;
            }
        }
        let mut chosen: Option<(&str, usize)> = None;
        for candidate in leader.protocols.iter().filter(|it| self.is_common_protocol(&it.name)) {
            let count = votes.get(candidate.name.as_str()).copied().unwrap_or(0);
            if chosen.is_none_or(|(_, most)| count > most) {
                chosen = Some((&candidate.name, count));
            }
        }
        chosen.map(|(name, _)| name.to_owned())
    }

    /// All members as the leader gets to know them.
    pub(super) fn joined_members(&self) -> Vec<JoinedMember> {
        let tell = |member: &Member| JoinedMember {
            member_id: member.id.to_string(),
            group_instance_id: member.instance_id.clone(),
            metadata: member.metadata(self.protocol_name.as_deref()),
        };
        self.members.values().map(tell).collect()
    }

    pub(super) fn uses_consumer_protocol(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER_PROTOCOL_TYPE)
    }

    pub(super) fn knows_subscribed_topics(&self) -> bool {
        self.subscribed_topics.is_some()
    }

    /// Whether a member reads `topic`; assumed of consumers whose subscriptions cannot be read.
    pub(super) fn is_subscribed_to(&self, topic: &str) -> bool {
        match &self.subscribed_topics {
            Some(topics) => topics.contains(topic),
            None => self.uses_consumer_protocol(),
        }
    }

    /// Notes what the members read, from what they say of the chosen protocol.
    pub(super) fn learn_subscribed_topics(&mut self) {
        self.subscribed_topics = self.read_subscribed_topics();
    }

    fn read_subscribed_topics(&self) -> Option<HashSet<String>> {
        if !self.uses_consumer_protocol() {
            return None;
        }
        if self.members.is_empty() {
            return Some(HashSet::new());
        }
        let protocol_name = self.protocol_name.as_deref()?;
        let mut topics = HashSet::new();
        for member in self.members.values() {
            topics.extend(schema::subscribed_topics(&member.metadata(Some(protocol_name)))?);
        }
        Some(topics)
    }

    /// Whether all members support the protocol; any will do where there are none.
    fn is_common_protocol(&self, protocol_name: &str) -> bool {
        self.protocol_votes.get(protocol_name).copied().unwrap_or(0) == self.members.len()
    }

    fn count_votes(&mut self, member: &Member) {
        for protocol in &member.protocols {
            *self.protocol_votes.entry(protocol.name.clone()).or_default() += 1;
        }
    }

    fn uncount_votes(&mut self, member: &Member) {
        for protocol in &member.protocols {
            if let Some(count) = self.protocol_votes.get_mut(&protocol.name) {
                *count -= 1;
                if *count == 0 {
                    self.protocol_votes.remove(&protocol.name);
                }
            }
        }
    }

    /// The invariants of the header, for tests.
    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        let joining = self.members.values().filter(|member| member.awaiting_join.is_some()).count();
        assert_eq!(joining, self.awaiting_join_count);
        match &self.leader {
            Some(leader) => assert!(self.members.contains_key(leader)),
            None => assert!(self.members.is_empty()),
        }
        for (name, count) in &self.protocol_votes {
            let supports = |member: &&Member| member.protocols.iter().any(|it| it.name == *name);
            assert_eq!(self.members.values().filter(supports).count(), *count, "{name}");
        }
        assert!(self.pending_joins.iter().all(|id| !self.members.contains_key(id)));
        assert!(self.pending_syncs.iter().all(|id| self.members.contains_key(id)));
        for (instance_id, id) in &self.static_members {
            assert_eq!(self.members[id].instance_id.as_ref(), Some(instance_id));
        }
    }
}
