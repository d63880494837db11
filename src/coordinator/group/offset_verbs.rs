//! OffsetCommit, TxnOffsetCommit, OffsetFetch, OffsetDelete, and the end of transactions.
//!
//! Source: Kafka's OffsetMetadataManager and ClassicGroup.validateOffsetCommit.

use std::sync::Arc;

use crate::model::group::{
    ByTopic, CommitPartition, GroupError, GroupReply, GroupState, NO_GENERATION, OffsetCommit,
    OffsetCommitReply, OffsetDelete, OffsetDeleteReply, OffsetFetch, OffsetFetchReply, PartitionResult,
    ReplyToken,
};
use crate::model::{PartitionIndex, ProducerId, TopicName};

use super::appends::AfterAppend;
use super::classic_group::ClassicGroup;
use super::offsets::{self, OffsetKey};
use super::retention::RETENTION_CHECK_MS;
use super::schema::{self, OffsetValue, STRING_BYTES_MAX, StateRecord};
use super::topics::Topics;
use super::turn::{Output, Turn};
use super::{Effects, Group, GroupCoordinator, GroupSettings};

impl GroupCoordinator {
    /// Whoever is not in a group may commit while it is empty; the first such commit makes the group.
    pub(super) fn commit_offsets(
        &mut self,
        token: ReplyToken,
        commit: &OffsetCommit,
        now_ms: i64,
    ) -> Effects {
        let refuse = |error| Effects::reply(token, GroupReply::OffsetCommit(commit.refused(error)));
        match self.groups.get(commit.group_id.as_str()) {
            Some(group) => {
                if let Err(error) = check_group_commit(group, commit, &self.topics) {
                    return refuse(error);
                }
            }
            // OffsetCommit from v9 on says GroupIdNotFound here; clients take both to mean the same.
            None if commit.generation_id > NO_GENERATION => return refuse(GroupError::IllegalGeneration),
            None if !self.has_room_for_group(&commit.group_id) => {
                return refuse(GroupError::GroupsMaxReached);
            }
            None => {}
        }
        self.ensure_group(&commit.group_id, now_ms);
        let effects = self.turn_alone(&commit.group_id, now_ms, |turn| turn.commit_offsets(token, commit));
        if let Some((producer_id, _)) = effects.producer {
            let group_id: Arc<str> = commit.group_id.as_str().into();
            self.transactions.entry(producer_id).or_default().insert(group_id);
        }
        effects
    }

    /// Answers from what is stored. A fetch that wants stable offsets first waits for commits that are on their way
    /// to the log: whoever commits and then leaves a partition has committed before the next owner looks.
    pub(super) fn fetch_offsets(&mut self, token: ReplyToken, fetch: OffsetFetch) -> Effects {
        let group = self.groups.get(fetch.group_id.as_str()).filter(|_| fetch.require_stable);
        let last_append = group.and_then(|group| group.last_append);
        match last_append.and_then(|append| self.appends.get_mut(&append)) {
            Some(waiting) => {
                waiting.after.push(AfterAppend::Fetch { token, fetch });
                Effects::default()
            }
            None => Effects::reply(token, GroupReply::OffsetFetch(self.fetched(&fetch))),
        }
    }

    pub(super) fn fetched(&self, fetch: &OffsetFetch) -> OffsetFetchReply {
        let group = self.groups.get(fetch.group_id.as_str());
        if let Some(modern) = group.and_then(|group| group.modern.as_deref())
            && let Err(error) = modern.check_fetch(fetch)
        {
            return OffsetFetchReply { error: Some(error), topics: Vec::new() };
        }
        let none = |topic: &ByTopic<PartitionIndex>| {
            topic.map_partitions(|&partition| offsets::no_offset(partition, None))
        };
        let topics = match (group, &fetch.topics) {
            (Some(group), Some(topics)) => group.offsets.fetch(topics, fetch.require_stable),
            (Some(group), None) => group.offsets.fetch_all(fetch.require_stable),
            (None, Some(topics)) => topics.iter().map(none).collect(),
            (None, None) => Vec::new(),
        };
        OffsetFetchReply { error: None, topics }
    }

    pub(super) fn delete_offsets(
        &mut self,
        token: ReplyToken,
        delete: &OffsetDelete,
        now_ms: i64,
    ) -> Effects {
        let refuse = |error| {
            let reply = OffsetDeleteReply { error: Some(error), topics: Vec::new() };
            Effects::reply(token, GroupReply::OffsetDelete(reply))
        };
        let Some(group) = self.groups.get(delete.group_id.as_str()) else {
            return refuse(GroupError::GroupIdNotFound);
        };
        if !group.is_empty() && group.modern.is_none() && !group.classic.uses_consumer_protocol() {
            return refuse(GroupError::NonEmptyGroup);
        }
        let known = self.offset_keys(&delete.group_id);
        self.turn_alone(&delete.group_id, now_ms, |turn| turn.delete_offsets(token, delete, &known))
    }

    /// Forgets every group's offsets of a topic that was deleted.
    pub fn topic_deleted(&mut self, topic: &TopicName, now_ms: i64) -> Effects {
        let mut output = Output::default();
        let group_ids: Vec<Arc<str>> = self.groups.keys().cloned().collect();
        for group_id in group_ids {
            let mut offsets = self.offset_keys(&group_id);
            offsets.retain(|(of_topic, _)| of_topic == topic);
            if !offsets.is_empty() {
                self.turn(&group_id, &mut output, now_ms, |turn| turn.forget(offsets, false, None));
            }
        }
        self.finish(output)
    }

    /// The marker that commits or aborts a producer's transaction is in the log of this partition. To be called in
    /// the order of the log, at replay too.
    pub fn end_transaction(&mut self, producer_id: ProducerId, is_commit: bool, now_ms: i64) {
        for group_id in self.transactions.remove(&producer_id).unwrap_or_default() {
            self.turn_silently(&group_id, now_ms, |turn| {
                turn.group.offsets.end_transaction(producer_id, is_commit);
                turn.plan_retention(RETENTION_CHECK_MS);
            });
        }
    }

    /// Every partition that a group has an offset for, in the log or on its way there; sorted, each once.
    pub(super) fn offset_keys(&self, group_id: &str) -> Vec<OffsetKey> {
        let Some(group) = self.groups.get(group_id) else { return Vec::new() };
        let mut keys = group.offsets.keys();
        for after in self.appends.values().flat_map(|append| &append.after) {
            if let AfterAppend::OffsetsStored { group_id: of_group, offsets, .. } = after
                && &**of_group == group_id
            {
                keys.extend(offsets.iter().map(|(key, _)| key.clone()));
            }
        }
        keys.sort();
        keys.dedup();
        keys
    }

    /// Offsets whose records are in the log; a producer's are held until its transaction ends.
    pub(super) fn store_offsets(
        &mut self,
        group_id: &Arc<str>,
        producer_id: Option<ProducerId>,
        offsets: Vec<(OffsetKey, OffsetValue)>,
        now_ms: i64,
    ) {
        self.ensure_group(group_id, now_ms);
        let Some(group) = self.groups.get_mut(group_id) else { return };
        for (key, value) in offsets {
            match producer_id {
                Some(producer_id) => group.offsets.put_undecided(producer_id, key, value, self.sequence),
                None => group.offsets.put(key, value, self.sequence),
            }
            self.sequence += 1;
        }
        let retention_ms = self.settings.offsets_retention_ms;
        self.turn_silently(group_id, now_ms, |turn| turn.plan_retention(retention_ms));
    }

    /// Tombstones that are in the log.
    pub(super) fn forget(&mut self, group_id: &str, offsets: &[OffsetKey], is_group: bool) {
        let Some(group) = self.groups.get_mut(group_id) else { return };
        for key in offsets {
            group.offsets.remove(key);
        }
        group.offsets.drop_decided();
        if is_group {
            group.stored = None;
        }
    }
}

impl Turn<'_> {
    fn commit_offsets(&mut self, token: ReplyToken, commit: &OffsetCommit) {
        let is_in_session =
            matches!(self.classic().state(), GroupState::Stable | GroupState::PreparingRebalance);
        if commit.producer.is_none() && is_in_session && self.group.modern.is_none() {
            self.extend_session(&commit.member_id);
        }
        let mut offsets: Vec<(OffsetKey, OffsetValue)> = Vec::new();
        let mut topics = Vec::with_capacity(commit.topics.len());
        for topic in &commit.topics {
            topics.push(topic.map_partitions(|partition| {
                let checked = stored_value(partition, commit, self.settings, self.now_ms);
                let error = checked.as_ref().err().copied();
                if let Ok(value) = checked {
                    offsets.push(((topic.topic.clone(), partition.partition), value));
                }
                PartitionResult { partition: partition.partition, error }
            }));
        }
        let reply = OffsetCommitReply { topics };
        if offsets.is_empty() {
            return self.output.reply(token, GroupReply::OffsetCommit(reply));
        }
        self.store_offsets(token, reply, commit, offsets);
    }

    fn store_offsets(
        &mut self,
        token: ReplyToken,
        reply: OffsetCommitReply,
        commit: &OffsetCommit,
        offsets: Vec<(OffsetKey, OffsetValue)>,
    ) {
        let producer_id = commit.producer.map(|(producer_id, _)| producer_id);
        for (key, value) in &offsets {
            if let Some(producer_id) = producer_id {
                self.group.offsets.begin_undecided(producer_id, key.clone());
            }
            let key = schema::offset_key(&self.group.id, &key.0, key.1);
            self.output.records.push(StateRecord { key, value: Some(value.encode()) });
        }
        self.output.producer = commit.producer;
        let group_id = self.group.id.clone();
        self.await_append(AfterAppend::OffsetsStored { group_id, producer_id, offsets, token, reply });
    }

    fn delete_offsets(&mut self, token: ReplyToken, delete: &OffsetDelete, known: &[OffsetKey]) {
        let mut forgotten: Vec<OffsetKey> = Vec::new();
        let mut topics = Vec::with_capacity(delete.topics.len());
        for topic in &delete.topics {
            let is_subscribed = self.group.is_subscribed_to(&topic.topic);
            topics.push(topic.map_partitions(|&partition| {
                let key = (topic.topic.clone(), partition);
                if !is_subscribed && known.binary_search(&key).is_ok() {
                    forgotten.push(key);
                }
                let error = is_subscribed.then_some(GroupError::GroupSubscribedToTopic);
                PartitionResult { partition, error }
            }));
        }
        forgotten.sort();
        forgotten.dedup();
        let reply = GroupReply::OffsetDelete(OffsetDeleteReply { error: None, topics });
        match forgotten.is_empty() {
            true => self.output.reply(token, reply),
            false => self.forget(forgotten, false, Some((token, reply))),
        }
    }
}

/// Whether a commit comes from where it says, whichever protocol the group speaks.
fn check_group_commit(group: &Group, commit: &OffsetCommit, topics: &Topics) -> Result<(), GroupError> {
    match &group.modern {
        Some(modern) => modern.check_commit(commit, topics),
        None => check_commit(&group.classic, commit),
    }
}

/// Whether a commit to a classic group comes from where it says: from the current generation, or from outside an empty group.
fn check_commit(classic: &ClassicGroup, commit: &OffsetCommit) -> Result<(), GroupError> {
    let is_empty = classic.is_in(GroupState::Empty);
    let is_transactional = commit.producer.is_some();
    if commit.generation_id < 0 && is_empty {
        return Ok(());
    }
    if commit.generation_id >= 0 || !commit.member_id.is_empty() || commit.group_instance_id.is_some() {
        classic.check_member(&commit.member_id, commit.group_instance_id.as_deref())?;
        if commit.generation_id != classic.generation_id {
            return Err(GroupError::IllegalGeneration);
        }
    } else if !is_transactional && !is_empty {
        return Err(GroupError::UnknownMemberId);
    }
    // The member is of this generation but has no assignment yet, so it commits what it should not own any more.
    if !is_transactional && classic.is_in(GroupState::CompletingRebalance) {
        return Err(GroupError::RebalanceInProgress);
    }
    Ok(())
}

fn stored_value(
    partition: &CommitPartition,
    commit: &OffsetCommit,
    settings: &GroupSettings,
    now_ms: i64,
) -> Result<OffsetValue, GroupError> {
    let metadata = partition.metadata.clone().unwrap_or_default();
    if metadata.len() > settings.offset_metadata_max_bytes.min(STRING_BYTES_MAX) {
        return Err(GroupError::OffsetMetadataTooLarge);
    }
    let own_retention_ms = Some(commit.retention_time_ms).filter(|&retention_ms| retention_ms >= 0);
    Ok(OffsetValue {
        offset: partition.offset,
        leader_epoch: partition.leader_epoch,
        metadata,
        commit_timestamp_ms: partition.commit_timestamp_ms.unwrap_or(now_ms),
        expire_timestamp_ms: own_retention_ms.map(|retention_ms| now_ms.saturating_add(retention_ms)),
    })
}
