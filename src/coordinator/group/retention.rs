//! Forgetting: offsets that have expired, and groups that hold nothing any more.
//!
//! A group has at most one retention timer. It looks at all offsets, writes tombstones for the expired ones and plans
//! the next look for when the next one can expire.
//! Source: Kafka's GroupCoordinatorShard.cleanupGroupMetadata and ClassicGroup.offsetExpirationCondition; KIP-211.

use crate::model::group::{GroupReply, GroupState, ReplyToken};

use super::Group;
use super::appends::AfterAppend;
use super::offsets::OffsetKey;
use super::schema::{self, OffsetValue, StateRecord};
use super::turn::Turn;

/// Time between two looks where nothing better is known: Kafka's offsets.retention.check.interval.ms.
pub(super) const RETENTION_CHECK_MS: i64 = 10 * 60 * 1_000;

/// What one look at a group's offsets finds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Expiry {
    pub(super) expired: Vec<OffsetKey>,
    /// Whether nothing keeps the group in memory once the expired offsets are gone.
    pub(super) is_group_expired: bool,
    /// When to look again; none if only a new generation can change something.
    pub(super) next_look_ms: Option<i64>,
}

impl Group {
    /// Which offsets have expired at `now_ms`.
    ///
    /// An empty group keeps its offsets for the retention time after it became empty; a group that only commits
    /// keeps each one for that long after its commit, and so does a stable group of consumers for topics that nobody
    /// reads any more. An offset with its own expiry goes by that.
    pub(super) fn find_expired(&self, now_ms: i64, retention_ms: i64) -> Expiry {
        let check_ms = now_ms.saturating_add(RETENTION_CHECK_MS);
        let classic = &self.classic;
        let is_empty = self.is_empty();
        let is_stable_and_readable = classic.is_in(GroupState::Stable)
            && classic.uses_consumer_protocol()
            && classic.knows_subscribed_topics();
        let mut found = Expiry::default();
        if !is_empty && !is_stable_and_readable && self.modern.is_none() {
            return found;
        }
        let empty_since_ms =
            classic.state_timestamp_ms.filter(|_| is_empty && classic.protocol_type.is_some());
        let mut is_any_kept = self.offsets.has_open_transactions();
        for (topic, partition, value) in self.offsets.iter() {
            let key = (topic.clone(), partition);
            let expires_ms = expires_ms(value, empty_since_ms, retention_ms);
            if self.is_subscribed_to(topic) {
                is_any_kept = true;
            } else if expires_ms > now_ms {
                is_any_kept = true;
                found.look_by(expires_ms);
            } else if self.offsets.has_undecided(&key) {
                found.look_by(check_ms);
            } else {
                found.expired.push(key);
            }
        }
        found.is_group_expired = self.is_idle() && !is_any_kept && self.has_been_empty_for_a_check(now_ms);
        // Look again at what may go soon, and after tombstones, should they not reach the log.
        if !found.expired.is_empty() || (is_empty && found.next_look_ms.is_none()) {
            found.look_by(check_ms);
        }
        found
    }

    /// A consumer that restarts finds its generation where it was.
    fn has_been_empty_for_a_check(&self, now_ms: i64) -> bool {
        let since_ms = match &self.modern {
            Some(modern) => modern.empty_since_ms,
            None => self.classic.state_timestamp_ms.unwrap_or(i64::MIN),
        };
        now_ms.saturating_sub(since_ms) >= RETENTION_CHECK_MS
    }
}

impl Expiry {
    fn look_by(&mut self, look_ms: i64) {
        self.next_look_ms = Some(self.next_look_ms.map_or(look_ms, |next_ms| next_ms.min(look_ms)));
    }
}

fn expires_ms(value: &OffsetValue, empty_since_ms: Option<i64>, retention_ms: i64) -> i64 {
    let since_ms = empty_since_ms.unwrap_or(value.commit_timestamp_ms);
    value.expire_timestamp_ms.unwrap_or(since_ms.saturating_add(retention_ms))
}

impl Turn<'_> {
    /// The retention timer has come.
    pub(super) fn expire_offsets(&mut self) {
        let found = self.group.find_expired(self.now_ms, self.settings.offsets_retention_ms);
        if let Some(next_look_ms) = found.next_look_ms {
            self.plan_retention(next_look_ms.saturating_sub(self.now_ms));
        }
        if found.is_group_expired {
            self.group.drop_modern();
        }
        let is_group_forgotten = found.is_group_expired && self.group.stored.is_some();
        if !found.expired.is_empty() || is_group_forgotten {
            self.forget(found.expired, is_group_forgotten, None);
        }
    }

    /// Sends tombstones for offsets, and for the group's own record if `is_group`, to the log. There must be at least
    /// one.
    pub(super) fn forget(
        &mut self,
        offsets: Vec<OffsetKey>,
        is_group: bool,
        reply: Option<(ReplyToken, GroupReply)>,
    ) {
        for (topic, partition) in &offsets {
            let key = schema::offset_key(&self.group.id, topic, *partition);
            self.output.records.push(StateRecord { key, value: None });
        }
        if is_group {
            let key = schema::group_key(&self.group.id);
            self.output.records.push(StateRecord { key, value: None });
        }
        let group_id = self.group.id.clone();
        self.await_append(AfterAppend::Forgotten { group_id, offsets, is_group, reply });
    }
}
