//! One partition as one share group reads it (KIP-932): which records are free, locked, and done.
//!
//! Lives on: the shard that owns the partition; one for each group that shares it. No I/O and no clock: the caller reads
//! batches and offers them ([`SharePartition::acquire`]), hands in acknowledgements, calls `expire` when
//! [`SharePartition::next_deadline_ms`] has come, and stores what each change gives back ([`Changes`]).
//!
//! ```text
//!                      start offset                      end offset
//!   done, forgotten        |  available acquired done ...    |  not offered to anybody yet
//!
//!   Available --acquire--> Acquired --accept--> Acknowledged
//!       ^                     |  +----reject, gap--> Archived
//!       +--release, lock ends-+  (Archived instead once it was delivered as often as it may be)
//! ```
//! Invariants: runs cover [start offset, end offset) without a gap or an overlap, and neighbours differ; the first run is
//! never done, so that the start offset moves with every record that is done in turn; an acquired run has a member and a
//! deadline.
//! What was delivered half as often as it may be is searched for the record that makes its consumers fail: fewer records
//! at a time, and at last each alone, so that it is archived without others.
//! Delivery counts of locked records are stored only when the lock ends, so a crash may deliver a record once more than
//! it counts; it never loses one.
//! Source: KIP-932; Kafka's SharePartition.

mod state;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::model::Offset;
use crate::model::share::{AcknowledgeType, AcknowledgementBatch, AcquiredRecords, ShareError};

pub use state::{DeliveryState, StateBatch, StoredState};

/// The limits that a share partition lives by, named as in the configuration after `group.share.`.
#[derive(Debug, Clone, Copy)]
pub struct ShareSettings {
    /// How long a record is locked for the member that acquired it.
    pub record_lock_duration_ms: i64,
    /// How often a record is delivered at most.
    pub delivery_count_limit: i16,
    /// Most records between start offset and end offset.
    pub partition_max_record_locks: i64,
    /// Whether a member may keep a record for another lock duration (`share.renew.acknowledge.enable`).
    pub is_renew_enabled: bool,
}

/// Where a record stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    Available,
    Acquired { member: Arc<str>, deadline_ms: i64 },
    Acknowledged,
    Archived,
}

/// Records in a row that share their fate.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    last: Offset,
    standing: Standing,
    delivery_count: i16,
}

/// What is to be stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// The start offset, after the change.
    pub start_offset: Offset,
    /// The records whose state changed, as they are now.
    pub batches: Vec<StateBatch>,
}

impl Changes {
    /// Whether there is nothing to store.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }
}

/// How far one group has come in one partition.
#[derive(Debug, Clone)]
pub struct SharePartition {
    settings: ShareSettings,
    start_offset: Offset,
    end_offset: Offset,
    runs: BTreeMap<Offset, Run>,
}

impl SharePartition {
    /// A partition of which the group has read nothing behind `start_offset`.
    pub fn new(settings: ShareSettings, start_offset: Offset) -> Self {
        SharePartition { settings, start_offset, end_offset: start_offset, runs: BTreeMap::new() }
    }

    /// The partition as it was stored. Nobody holds a lock; gaps between the stored batches are available.
    pub fn restore(settings: ShareSettings, start_offset: Offset, batches: &[StateBatch]) -> Self {
        let mut partition = SharePartition::new(settings, start_offset);
        for batch in batches {
            let first = batch.first_offset.max(partition.end_offset);
            if batch.last_offset < first {
                continue;
            }
            if first > partition.end_offset {
                partition.push(partition.end_offset, first - 1, Standing::Available, 0);
            }
            let standing = match batch.state {
                DeliveryState::Available => Standing::Available,
                DeliveryState::Acknowledged => Standing::Acknowledged,
                DeliveryState::Archived => Standing::Archived,
            };
            partition.push(first, batch.last_offset, standing, batch.delivery_count);
        }
        partition.settle(&[(start_offset, partition.end_offset)]);
        partition
    }

    /// The limits from now on.
    pub fn set_settings(&mut self, settings: ShareSettings) {
        self.settings = settings;
    }

    /// The first record that is not done.
    pub fn start_offset(&self) -> Offset {
        self.start_offset
    }

    /// From where records shall be offered: the first that is available, or the first that nobody was offered yet.
    /// None while so many records are on their way that no more may be.
    pub fn next_fetch_offset(&self) -> Option<Offset> {
        let available = self.runs.iter().find(|(_, run)| run.standing == Standing::Available);
        match available {
            Some((first, _)) => Some(*first),
            None => (self.room() > 0).then_some(self.end_offset),
        }
    }

    fn room(&self) -> i64 {
        self.settings.partition_max_record_locks - (self.end_offset - self.start_offset)
    }

    /// Locks available records of the offered batches (first and last offset of each, in order, as they were found in
    /// `read`) for `member`: whole batches until there are at least `max_records`, and exactly that many when
    /// `is_strict`. What of `read` lies outside of the batches has no records for anybody and counts as done.
    pub fn acquire(
        &mut self,
        member: &Arc<str>,
        read: Range<Offset>,
        offered: &[(Offset, Offset)],
        max_records: i64,
        is_strict: bool,
        now_ms: i64,
    ) -> Vec<AcquiredRecords> {
        let deadline_ms = now_ms.saturating_add(self.settings.record_lock_duration_ms);
        let lock = Standing::Acquired { member: member.clone(), deadline_ms };
        let end_offset = self.end_offset;
        let mut acquired = Vec::new();
        let mut left = max_records;
        let mut expected = read.start;
        for &(first, last) in offered {
            self.skip(expected, first - 1);
            expected = last + 1;
            if last >= self.end_offset && self.room() > 0 {
                self.push(self.end_offset, last, Standing::Available, 0);
            }
            let available: Vec<(Offset, Offset)> =
                self.parts(first, last, |run| run.standing == Standing::Available);
            let is_suspect =
                available.iter().any(|(first, _)| self.count_at(*first) >= self.suspicious_count());
            // One that keeps failing shall not wear out others: its batch does not come with other batches.
            if !is_suspect || acquired.is_empty() {
                left -= self.acquire_in_batch(
                    &available,
                    last - first + 1,
                    left,
                    is_strict,
                    &lock,
                    &mut acquired,
                );
            }
            if is_suspect {
                left = 0;
            }
            if left <= 0 {
                break;
            }
        }
        if left > 0 {
            self.skip(expected, read.end - 1);
        }
        self.settle(&[(read.start.min(end_offset), self.end_offset.min(read.end))]);
        acquired
    }

    /// Locks the available parts of one batch of `length` offsets; how many records that were.
    fn acquire_in_batch(
        &mut self,
        available: &[(Offset, Offset)],
        length: i64,
        max_records: i64,
        is_strict: bool,
        lock: &Standing,
        acquired: &mut Vec<AcquiredRecords>,
    ) -> i64 {
        let (mut count, mut together) = (0, i64::MAX);
        for &(first, last) in available {
            let delivered = self.count_at(first);
            together = together.min(self.most_together(length, delivered));
            if count >= max_records.min(together) {
                break;
            }
            let most = if is_strict { max_records.min(together) } else { together };
            let last = last.min(first.saturating_add(most - count - 1));
            let delivery_count = delivered.saturating_add(1);
            self.set(first, last, lock, Some(delivery_count));
            acquired.push(AcquiredRecords { first_offset: first, last_offset: last, delivery_count });
            count += last - first + 1;
        }
        count
    }

    /// How often a record was delivered when it is thought to be what makes its consumers fail: half of its deliveries.
    fn suspicious_count(&self) -> i16 {
        (self.settings.delivery_count_limit.saturating_add(1) / 2).max(2)
    }

    /// Most records of a batch of `length` offsets to lock together, if one of them was delivered so often: fewer by half
    /// with each delivery from the suspicious count on, and alone the last time, so that it is not archived with others.
    fn most_together(&self, length: i64, delivery_count: i16) -> i64 {
        let next_count = delivery_count.saturating_add(1);
        let failures = next_count.saturating_sub(self.suspicious_count());
        if failures <= 0 {
            i64::MAX
        } else if next_count >= self.settings.delivery_count_limit {
            1
        } else {
            length.checked_shr(failures.unsigned_abs().into()).unwrap_or(0).max(1)
        }
    }

    /// There are no records in [first, last] that anybody is to have.
    fn skip(&mut self, first: Offset, last: Offset) {
        let known = self.parts(first, last, |run| run.standing == Standing::Available);
        known.into_iter().for_each(|(first, last)| self.set(first, last, &Standing::Archived, None));
        if last >= self.end_offset && self.room() > 0 {
            self.push(self.end_offset, last, Standing::Archived, 0);
        }
    }

    /// Takes in what a member says of records that it has locked. All of it counts, or none.
    ///
    /// # Errors
    /// `InvalidRequest` for batches that are none, `InvalidRecordState` when a record is not locked by the member.
    pub fn acknowledge(
        &mut self,
        member: &str,
        batches: &[AcknowledgementBatch],
        now_ms: i64,
    ) -> Result<Changes, ShareError> {
        let mut parts: Vec<(Offset, Offset, AcknowledgeType)> = Vec::new();
        let mut behind: Option<Offset> = None;
        for batch in batches {
            let count = batch.last_offset.checked_sub(batch.first_offset).map_or(0, |span| span + 1);
            let is_ordered = behind.is_none_or(|behind| batch.first_offset > behind);
            let is_type_for_each = i64::try_from(batch.types.len()).is_ok_and(|types| types == count);
            if batch.first_offset < 0
                || count <= 0
                || !is_ordered
                || !(batch.types.len() == 1 || is_type_for_each)
                || batch.last_offset >= self.end_offset
            {
                return Err(ShareError::InvalidRequest);
            }
            behind = Some(batch.last_offset);
            // What lies before the start offset has been decided by other means.
            let known = by_type(batch)
                .into_iter()
                .map(|(first, last, kind)| (first.max(self.start_offset), last, kind));
            parts.extend(known.filter(|(first, last, _)| first <= last));
        }
        if !parts.iter().all(|(first, last, kind)| self.may_acknowledge(member, *first, *last, *kind)) {
            return Err(ShareError::InvalidRecordState);
        }
        for (first, last, kind) in &parts {
            self.acknowledge_part(member, *first, *last, *kind, now_ms);
        }
        let touched: Vec<(Offset, Offset)> = parts.iter().map(|(first, last, _)| (*first, *last)).collect();
        let changes = self.changes(&touched);
        self.settle(&touched);
        Ok(Changes { start_offset: self.start_offset, ..changes })
    }

    /// Whether the member has locked all of [first, last], and may say `kind` of it.
    fn may_acknowledge(&self, member: &str, first: Offset, last: Offset, kind: AcknowledgeType) -> bool {
        let own = self.parts(first, last, |run| run.is_locked_by(member));
        let is_all_own = own.iter().map(|(first, last)| last - first + 1).sum::<i64>() == last - first + 1;
        is_all_own && (kind != AcknowledgeType::Renew || self.settings.is_renew_enabled)
    }

    fn acknowledge_part(
        &mut self,
        member: &str,
        first: Offset,
        last: Offset,
        kind: AcknowledgeType,
        now_ms: i64,
    ) {
        match kind {
            AcknowledgeType::Accept => self.set(first, last, &Standing::Acknowledged, None),
            AcknowledgeType::Gap | AcknowledgeType::Reject => {
                self.set(first, last, &Standing::Archived, None)
            }
            AcknowledgeType::Release => {
                let by_count = self.parts(first, last, |_| true);
                by_count.into_iter().for_each(|(first, last)| self.free(first, last));
            }
            AcknowledgeType::Renew => {
                let deadline_ms = now_ms.saturating_add(self.settings.record_lock_duration_ms);
                self.set(first, last, &Standing::Acquired { member: member.into(), deadline_ms }, None);
            }
        }
    }

    /// Frees everything that a member has locked, as its session ended.
    pub fn release_member(&mut self, member: &str) -> Changes {
        self.free_all(|run| run.is_locked_by(member))
    }

    /// Frees every lock that has ended.
    pub fn expire(&mut self, now_ms: i64) -> Changes {
        self.free_all(
            |run| matches!(run.standing, Standing::Acquired { deadline_ms, .. } if deadline_ms <= now_ms),
        )
    }

    /// When the next lock ends.
    pub fn next_deadline_ms(&self) -> Option<i64> {
        let deadline = |run: &Run| match run.standing {
            Standing::Acquired { deadline_ms, .. } => Some(deadline_ms),
            _ => None,
        };
        self.runs.values().filter_map(deadline).min()
    }

    /// Records before `log_start_offset` are gone.
    pub fn forget_before(&mut self, log_start_offset: Offset) -> Changes {
        if log_start_offset <= self.start_offset {
            return Changes::default();
        }
        let before = self.start_offset;
        if log_start_offset >= self.end_offset {
            self.runs.clear();
            (self.start_offset, self.end_offset) = (log_start_offset, log_start_offset);
        } else {
            // Who has locked them may still say so; nobody else gets them.
            let first = self.start_offset;
            let unlocked = self.parts(first, log_start_offset - 1, |run| run.standing == Standing::Available);
            unlocked.iter().for_each(|(first, last)| self.set(*first, *last, &Standing::Archived, None));
            self.settle(&unlocked);
        }
        let gone = StateBatch {
            first_offset: before,
            last_offset: log_start_offset - 1,
            state: DeliveryState::Archived,
            delivery_count: 0,
        };
        Changes { start_offset: self.start_offset, batches: vec![gone] }
    }

    fn free_all(&mut self, is_freed: impl Fn(&Run) -> bool) -> Changes {
        let freed: Vec<(Offset, Offset)> = self
            .runs
            .iter()
            .filter(|(_, run)| is_freed(run))
            .map(|(first, run)| (*first, run.last))
            .collect();
        freed.iter().for_each(|(first, last)| self.free(*first, *last));
        let changes = self.changes(&freed);
        self.settle(&freed);
        Changes { start_offset: self.start_offset, ..changes }
    }

    /// Makes locked records (of equal delivery counts) available, or archives them if they were delivered often enough.
    fn free(&mut self, first: Offset, last: Offset) {
        let is_worn_out = self.count_at(first) >= self.settings.delivery_count_limit;
        let standing = if is_worn_out { Standing::Archived } else { Standing::Available };
        self.set(first, last, &standing, None);
    }

    fn count_at(&self, offset: Offset) -> i16 {
        self.runs.range(..=offset).next_back().map_or(0, |(_, run)| run.delivery_count)
    }

    /// The parts of the runs in [first, last] that `wanted` wants.
    fn parts(&self, first: Offset, last: Offset, wanted: impl Fn(&Run) -> bool) -> Vec<(Offset, Offset)> {
        if last < first {
            return Vec::new();
        }
        let begin = self.runs.range(..=first).next_back().map_or(first, |(begin, _)| *begin);
        let parts =
            self.runs.range(begin..=last.max(begin)).filter(|(_, run)| run.last >= first && wanted(run));
        parts.map(|(begin, run)| ((*begin).max(first), run.last.min(last))).collect()
    }

    /// Appends a run at the end.
    fn push(&mut self, first: Offset, last: Offset, standing: Standing, delivery_count: i16) {
        self.runs.insert(first, Run { last, standing, delivery_count });
        self.end_offset = last + 1;
    }

    /// Gives [first, last], which lies within the runs, another standing; counts stay unless one is given.
    fn set(&mut self, first: Offset, last: Offset, standing: &Standing, delivery_count: Option<i16>) {
        self.split_at(first);
        self.split_at(last + 1);
        for run in self.runs.range_mut(first..=last).map(|(_, run)| run) {
            run.standing = standing.clone();
            run.delivery_count = delivery_count.unwrap_or(run.delivery_count);
        }
    }

    fn split_at(&mut self, offset: Offset) {
        let Some((_, run)) = self.runs.range_mut(..offset).next_back() else { return };
        if run.last >= offset {
            let behind = run.clone();
            run.last = offset - 1;
            self.runs.insert(offset, behind);
        }
    }

    /// Joins neighbours that have become alike by what was done to these records, and moves the start offset over what is
    /// done.
    fn settle(&mut self, touched: &[(Offset, Offset)]) {
        for &(first, last) in touched {
            self.join(first, last);
        }
        while let Some(first) = self.runs.first_entry()
            && first.get().is_done()
        {
            self.start_offset = first.remove().last + 1;
        }
    }

    /// Joins the runs of [first, last] and the two beside it, as far as they are alike.
    fn join(&mut self, first: Offset, last: Offset) {
        let begin = self.runs.range(..first).next_back().map_or(first, |(begin, _)| *begin);
        let mut before: Option<Offset> = None;
        for at in self.runs.range(begin..=last + 1).map(|(at, _)| *at).collect::<Vec<_>>() {
            let run = self.runs.get(&at).cloned();
            let earlier = before.and_then(|before| self.runs.get_mut(&before));
            match (earlier, run) {
                (Some(earlier), Some(run)) if earlier.is_like(&run) => {
                    earlier.last = run.last;
                    self.runs.remove(&at);
                }
                _ => before = Some(at),
            }
        }
    }

    /// The state of these records for the log. Locked ones are stored as available.
    fn changes(&self, touched: &[(Offset, Offset)]) -> Changes {
        let mut batches: Vec<StateBatch> = Vec::new();
        for &(first, last) in touched {
            for (first_offset, last_offset) in self.parts(first, last, |_| true) {
                let Some((_, run)) = self.runs.range(..=first_offset).next_back() else { continue };
                let state = match run.standing {
                    Standing::Available => DeliveryState::Available,
                    Standing::Acknowledged => DeliveryState::Acknowledged,
                    Standing::Archived => DeliveryState::Archived,
                    // A lock that was made longer.
                    Standing::Acquired { .. } => continue,
                };
                batches.push(StateBatch {
                    first_offset,
                    last_offset,
                    state,
                    delivery_count: run.delivery_count,
                });
            }
        }
        Changes { start_offset: self.start_offset, batches }
    }

    /// The invariants of the header.
    #[cfg(test)]
    fn check_invariants(&self) {
        let mut at = self.start_offset;
        for (first, run) in &self.runs {
            assert_eq!(*first, at);
            assert!(run.last >= *first);
            at = run.last + 1;
            assert!(
                self.runs.get(&at).is_none_or(|next| !run.is_like(next)),
                "{first} and {at} could be one run"
            );
        }
        assert_eq!(at, self.end_offset);
        assert!(self.runs.first_key_value().is_none_or(|(_, run)| !run.is_done()));
    }
}

impl Run {
    fn is_locked_by(&self, member: &str) -> bool {
        matches!(&self.standing, Standing::Acquired { member: by, .. } if **by == *member)
    }

    fn is_done(&self) -> bool {
        matches!(self.standing, Standing::Acknowledged | Standing::Archived)
    }

    /// Whether two runs can be one; how often done records were delivered does not matter any more.
    fn is_like(&self, other: &Run) -> bool {
        self.standing == other.standing && (self.delivery_count == other.delivery_count || self.is_done())
    }
}

/// The batch in parts of one type each.
fn by_type(batch: &AcknowledgementBatch) -> Vec<(Offset, Offset, AcknowledgeType)> {
    if let [only] = batch.types[..] {
        return vec![(batch.first_offset, batch.last_offset, only)];
    }
    let mut parts: Vec<(Offset, Offset, AcknowledgeType)> = Vec::new();
    for (offset, kind) in (batch.first_offset..).zip(&batch.types) {
        match parts.last_mut() {
            Some((_, last, before)) if before == kind => *last = offset,
            _ => parts.push((offset, offset, *kind)),
        }
    }
    parts
}

#[cfg(test)]
mod tests;
