//! Share groups (KIP-932): each partition's records are locked and acknowledged where the partition lives, what a group
//! has read is kept by the share coordinators.

use std::time::Duration;

use bytes::Bytes;

use super::{Broker, BrokerError, IsolationLevel};
use crate::base::clock;
use crate::config;
use crate::coordinator::share_partition::ShareSettings;
use crate::model::group::{DeleteGroupReply, GroupReply, GroupRequest};
use crate::model::share::{AcknowledgementBatch, AcquiredRecords, ShareError, ShareKey, SharedPartition};
use crate::model::{Offset, SHARE_GROUP_STATE_TOPIC, ShardId, Uuid};
use crate::runtime::{spawn_detached, timeout};
use crate::shard::{
    ShardReply, ShardRequest, ShareAcknowledge, ShareFetch, ShareGroupSettings, ShareOffsetReset, ShareRead,
    ShareStateReply, ShareStateRequest, ShareWait,
};

/// A member's wish for records of the partitions that its session names.
#[derive(Debug, Clone)]
pub struct ShareFetchRequest {
    /// The group.
    pub group_id: String,
    /// The member.
    pub member_id: String,
    /// How long to wait for the first record.
    pub max_wait_ms: i32,
    /// Most bytes in the whole answer (the first batch comes whole even if it is larger); none at all if not positive.
    pub max_bytes: i32,
    /// About how many records at most; exactly when `is_strict`. None at all if not positive.
    pub max_records: i32,
    /// Whether `max_records` is not to be exceeded for the sake of whole batches.
    pub is_strict: bool,
    /// From where, the first first.
    pub partitions: Vec<SharedPartition>,
}

/// What one partition gave.
#[derive(Debug, Clone, Default)]
pub struct SharedRecords {
    /// Why it gave nothing, if something is wrong.
    pub error: Option<ShareError>,
    /// Whole record batches, as they lie on disk; only those acquired are meant.
    pub chunks: Vec<Bytes>,
    /// What is locked for the member now.
    pub acquired: Vec<AcquiredRecords>,
}

/// How far a group has come in one partition.
#[derive(Debug, Clone)]
pub struct ShareProgress {
    /// Whose and where.
    pub key: ShareKey,
    /// The first record that is not done, or -1 while nobody has decided.
    pub start_offset: Offset,
    /// How many records behind it are done.
    pub delivery_complete_count: i64,
}

impl Broker {
    /// How a share group reads, by its own configs over the broker's.
    pub fn share_settings(&self, group_id: &str) -> ShareGroupSettings {
        let config = self.config();
        let image = self.image();
        let own = |name: &str| image.group_config(group_id, name);
        let number = |name: &str, of_broker: i64| {
            own(name).and_then(|text| config::group_number(&config, name, text)).unwrap_or(of_broker)
        };
        let lock_ms = i64::from(config.group_share_record_lock_duration_ms);
        let delivery_count_limit = i64::from(config.group_share_delivery_count_limit);
        let max_record_locks = i64::from(config.group_share_partition_max_record_locks);
        let reset = own(config::SHARE_AUTO_OFFSET_RESET).and_then(read_reset);
        let isolation = match own(config::SHARE_ISOLATION_LEVEL) {
            Some("read_committed") => IsolationLevel::ReadCommitted,
            _ => IsolationLevel::ReadUncommitted,
        };
        ShareGroupSettings {
            limits: ShareSettings {
                record_lock_duration_ms: number("share.record.lock.duration.ms", lock_ms),
                delivery_count_limit: i16::try_from(number(
                    "share.delivery.count.limit",
                    delivery_count_limit,
                ))
                .unwrap_or(i16::MAX),
                partition_max_record_locks: number("share.partition.max.record.locks", max_record_locks),
                is_renew_enabled: own(config::SHARE_RENEW_ACKNOWLEDGE_ENABLE) != Some("false"),
            },
            reset: reset.unwrap_or(ShareOffsetReset::Latest),
            isolation,
        }
    }

    /// Locks records for a member; waits up to `max_wait_ms` for the first. One answer for each partition, in order.
    pub async fn share_fetch(&self, request: ShareFetchRequest) -> Vec<SharedRecords> {
        if self.share_state_topic().await.is_err() {
            let refused = SharedRecords { error: Some(ShareError::StateNotAvailable), ..Default::default() };
            return vec![refused; request.partitions.len()];
        }
        let max_wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
        if request.max_bytes <= 0 || request.max_records <= 0 {
            timeout(max_wait, self.stopping()).await;
            return vec![SharedRecords::default(); request.partitions.len()];
        }
        let started = clock::monotonic();
        loop {
            let found = self.share_fetch_once(&request).await;
            let left = max_wait.saturating_sub(started.elapsed());
            let is_enough = found.iter().any(|part| part.error.is_some() || !part.acquired.is_empty());
            if is_enough || left.is_zero() || request.partitions.is_empty() || self.is_stopping() {
                return found;
            }
            self.wait_for_shared(&request, left).await;
        }
    }

    async fn share_fetch_once(&self, request: &ShareFetchRequest) -> Vec<SharedRecords> {
        let settings = self.share_settings(&request.group_id);
        let mut left_records = i64::from(request.max_records);
        let mut at_least_one = true;
        let mut left_bytes =
            usize::try_from(request.max_bytes).unwrap_or(0).min(self.config().fetch_max_bytes);
        let mut found = vec![SharedRecords::default(); request.partitions.len()];
        // One owner after the other, as what one gives the next may not: records that are locked must be told.
        for (shard, indexes) in self.share_owners(&request.partitions, &mut found) {
            if left_records <= 0 || left_bytes == 0 {
                break;
            }
            let fetch = ShareFetch {
                group_id: request.group_id.clone(),
                member_id: request.member_id.clone(),
                partitions: indexes.iter().map(|&index| request.partitions[index].clone()).collect(),
                max_records: left_records,
                max_bytes: left_bytes,
                at_least_one,
                is_strict: request.is_strict,
                settings,
            };
            let reply = self.shard.call(shard, ShardRequest::ShareFetch(fetch)).await;
            let mut answers = match reply {
                ShardReply::ShareFetched(answers) => answers.into_iter(),
                _ => Vec::new().into_iter(),
            };
            for index in indexes {
                let answer = answers.next().unwrap_or(Err(ShareError::UnknownPartition));
                found[index] = match answer {
                    Ok(ShareRead { chunks, size_bytes, acquired }) => {
                        let count: i64 = acquired.iter().map(|it| it.last_offset - it.first_offset + 1).sum();
                        left_records -= count;
                        left_bytes = left_bytes.saturating_sub(size_bytes);
                        at_least_one &= acquired.is_empty();
                        SharedRecords { error: None, chunks, acquired }
                    }
                    Err(error) => SharedRecords { error: Some(error), ..Default::default() },
                };
            }
        }
        found
    }

    async fn wait_for_shared(&self, request: &ShareFetchRequest, left: Duration) {
        let id = self.shard.wait_id();
        let timeout_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut ignored = vec![SharedRecords::default(); request.partitions.len()];
        let waits =
            self.share_owners(&request.partitions, &mut ignored).into_iter().map(|(shard, indexes)| {
                let partitions = indexes.iter().map(|&index| request.partitions[index].clone()).collect();
                let group_id = request.group_id.clone();
                (shard, ShardRequest::ShareWait(ShareWait { id, group_id, partitions, timeout_ms }))
            });
        self.wait_on_owners(id, waits.collect(), left).await;
    }

    /// The places of the partitions by owner, beginning with that of the first; partitions without one are refused.
    fn share_owners(
        &self,
        partitions: &[SharedPartition],
        found: &mut [SharedRecords],
    ) -> Vec<(ShardId, Vec<usize>)> {
        let mut owners: Vec<(ShardId, Vec<usize>)> = Vec::new();
        for (index, shared) in partitions.iter().enumerate() {
            match self.owner(&shared.topic_partition) {
                Ok(owner) => match owners.iter_mut().find(|(shard, _)| *shard == owner) {
                    Some((_, indexes)) => indexes.push(index),
                    None => owners.push((owner, vec![index])),
                },
                Err(_) => found[index].error = Some(ShareError::UnknownPartition),
            }
        }
        owners
    }

    /// Hands in what a member says of records; one answer for each partition, in order.
    pub async fn share_acknowledge(
        &self,
        group_id: &str,
        member_id: &str,
        partitions: Vec<(SharedPartition, Vec<AcknowledgementBatch>)>,
    ) -> Vec<Result<(), ShareError>> {
        if self.share_state_topic().await.is_err() {
            return vec![Err(ShareError::StateNotAvailable); partitions.len()];
        }
        let settings = self.share_settings(group_id);
        let mut answers = vec![Err(ShareError::UnknownPartition); partitions.len()];
        let shared: Vec<SharedPartition> = partitions.iter().map(|(shared, _)| shared.clone()).collect();
        let mut ignored = vec![SharedRecords::default(); partitions.len()];
        for (shard, indexes) in self.share_owners(&shared, &mut ignored) {
            let acknowledge = ShareAcknowledge {
                group_id: group_id.to_owned(),
                member_id: member_id.to_owned(),
                partitions: indexes.iter().map(|&index| partitions[index].clone()).collect(),
                settings,
            };
            let reply = self.shard.call(shard, ShardRequest::ShareAcknowledge(acknowledge)).await;
            if let ShardReply::ShareAcknowledged(results) = reply {
                indexes.into_iter().zip(results).for_each(|(index, result)| answers[index] = result);
            }
        }
        answers
    }

    /// Frees what a member has locked. Does not wait.
    pub fn share_release(&self, group_id: String, member_id: String, partitions: Vec<SharedPartition>) {
        let mut ignored = vec![SharedRecords::default(); partitions.len()];
        for (owner, indexes) in self.share_owners(&partitions, &mut ignored) {
            let release = ShardRequest::ShareRelease {
                group_id: group_id.clone(),
                member_id: member_id.clone(),
                partitions: indexes.into_iter().map(|index| partitions[index].clone()).collect(),
            };
            let shard = self.shard.clone();
            spawn_detached(async move {
                shard.call(owner, release).await;
            });
        }
    }

    /// How far the group has come in each partition that it reads.
    pub async fn share_progress(&self, group_id: &str) -> Vec<ShareProgress> {
        let mut found = Vec::new();
        for shard in 0..self.shards() {
            let list = ShareStateRequest::List { group_id: group_id.to_owned() };
            let reply = self.shard.call(shard, ShardRequest::ShareState(list)).await;
            if let ShardReply::ShareState(ShareStateReply::Listed(listed)) = reply {
                found.extend(listed.into_iter().map(|(key, state)| ShareProgress {
                    key,
                    start_offset: state.start_offset,
                    delivery_complete_count: state.delivery_complete_count(),
                }));
            }
        }
        found.sort_by(|left, right| left.key.cmp(&right.key));
        found
    }

    /// Lets the group, which must have no members, go on from other offsets.
    ///
    /// # Errors
    /// One answer for each partition.
    pub async fn alter_share_offsets(&self, offsets: Vec<(ShareKey, Offset)>) -> Vec<Result<(), ShareError>> {
        if self.share_state_topic().await.is_err() {
            return vec![Err(ShareError::StateNotAvailable); offsets.len()];
        }
        self.close_shares(offsets.iter().map(|(key, _)| key.clone()).collect()).await;
        let mut answers = Vec::with_capacity(offsets.len());
        for (key, start_offset) in offsets {
            let Some(owner) = self.share_state_owner(&key) else {
                answers.push(Err(ShareError::StateNotAvailable));
                continue;
            };
            let request = ShareStateRequest::Initialize { key, start_offset };
            let reply = self.shard.call(owner, ShardRequest::ShareState(request)).await;
            answers.push(match reply {
                ShardReply::ShareState(ShareStateReply::State(made)) => made.map(|_| ()),
                _ => Err(ShareError::StateNotAvailable),
            });
        }
        answers
    }

    /// Forgets what the group, which must have no members, has read of topics.
    ///
    /// # Errors
    /// If it could not be stored.
    pub async fn forget_share_topics(&self, group_id: &str, topic_ids: &[Uuid]) -> Result<(), ShareError> {
        let all = self.share_progress(group_id).await;
        let keys: Vec<ShareKey> = all
            .into_iter()
            .map(|progress| progress.key)
            .filter(|key| topic_ids.contains(&key.topic_id))
            .collect();
        self.close_shares(keys.clone()).await;
        self.forget_share_states(ShareStateRequest::Forget { keys }).await
    }

    /// Deletes a group of any type; a share group's state goes with it.
    pub async fn delete_group(&self, request: GroupRequest) -> GroupReply {
        let group_id = request.group_id().unwrap_or_default().to_owned();
        let reply = self.group(request).await;
        if !matches!(reply, GroupReply::Delete(DeleteGroupReply { error: None }))
            || self.image().topic(SHARE_GROUP_STATE_TOPIC).is_none()
        {
            return reply;
        }
        let keys = self.share_progress(&group_id).await.into_iter().map(|progress| progress.key).collect();
        self.close_shares(keys).await;
        // What is left would only be found again by a group of the same name.
        let _ = self.forget_share_states(ShareStateRequest::ForgetGroup { group_id }).await;
        reply
    }

    async fn forget_share_states(&self, request: ShareStateRequest) -> Result<(), ShareError> {
        let mut result = Ok(());
        for shard in 0..self.shards() {
            let reply = self.shard.call(shard, ShardRequest::ShareState(request.clone())).await;
            result = result.and(match reply {
                ShardReply::ShareState(ShareStateReply::Written(written)) => written,
                _ => Err(ShareError::StateNotAvailable),
            });
        }
        result
    }

    async fn close_shares(&self, keys: Vec<ShareKey>) {
        for shard in 0..self.shards() {
            self.shard.call(shard, ShardRequest::ShareClose(keys.clone())).await;
        }
    }

    fn share_state_owner(&self, key: &ShareKey) -> Option<ShardId> {
        let image = self.image();
        let topic = image.topic(SHARE_GROUP_STATE_TOPIC)?;
        let count = i32::try_from(topic.partitions.len()).ok()?;
        topic.owner(key.state_partition(count))
    }

    /// Makes the state topic on first use, as Kafka does.
    async fn share_state_topic(&self) -> Result<(), BrokerError> {
        let count = self.config().share_coordinator_state_topic_num_partitions;
        self.internal_topic(SHARE_GROUP_STATE_TOPIC, count).await.map(drop)
    }
}

/// Kafka's words for where a share group begins: `earliest`, `latest`, or `by_duration:` and an ISO 8601 duration.
pub(super) fn read_reset(text: &str) -> Option<ShareOffsetReset> {
    match text {
        "earliest" => Some(ShareOffsetReset::Earliest),
        "latest" => Some(ShareOffsetReset::Latest),
        _ => read_duration_ms(text.strip_prefix("by_duration:")?).map(ShareOffsetReset::ByDuration),
    }
}

/// Days, hours, minutes and seconds, as in "P3DT4H5M6.5S".
fn read_duration_ms(text: &str) -> Option<i64> {
    let rest = text.strip_prefix('P').or_else(|| text.strip_prefix('p'))?.to_ascii_uppercase();
    let (days, times) = rest.split_once('T').unwrap_or((&rest, ""));
    let mut total_ms = 0.0;
    let mut is_any = false;
    for (part, units) in
        [(days, &[('D', 86_400_000.0)][..]), (times, &[('H', 3_600_000.0), ('M', 60_000.0), ('S', 1_000.0)])]
    {
        let mut rest = part;
        for (unit, unit_ms) in units {
            if let Some((number, behind)) = rest.split_once(*unit) {
                total_ms += number.parse::<f64>().ok().filter(|number| *number >= 0.0)? * unit_ms;
                (rest, is_any) = (behind, true);
            }
        }
        if !rest.is_empty() {
            return None;
        }
    }
    #[allow(clippy::cast_possible_truncation, reason = "saturates, and far below")]
    is_any.then_some(total_ms as i64)
}

#[cfg(test)]
mod tests {
    use super::{ShareOffsetReset, read_reset};

    #[test]
    fn the_start_of_a_group_is_read_as_kafka_writes_it() {
        let by = |ms| Some(ShareOffsetReset::ByDuration(ms));
        assert_eq!(read_reset("earliest"), Some(ShareOffsetReset::Earliest));
        assert_eq!(read_reset("by_duration:PT1H30M"), by(5_400_000));
        assert_eq!(read_reset("by_duration:P1DT0.5S"), by(86_400_500));
        for wrong in [
            "",
            "none",
            "by_duration:",
            "by_duration:P",
            "by_duration:1H",
            "by_duration:PT1X",
            "by_duration:PT-1S",
        ] {
            assert_eq!(read_reset(wrong), None, "{wrong}");
        }
    }
}
