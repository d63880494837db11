//! Finding records by timestamp.
//!
//! The time index narrows the search to a stretch of one segment; then batch headers are looked at, and the records of
//! the one batch that can hold the answer. All reading goes through `Log::read`, so it makes no difference where the
//! bytes are. Source: Kafka `UnifiedLog.fetchOffsetByTimestamp`, `LogSegment.findOffsetByTimestamp`.

use std::ops::ControlFlow;
use std::rc::Rc;

use crate::base::units::MIB;
use crate::model::{LeaderEpoch, NO_TIMESTAMP, Offset};
use crate::record::{self, Batches};
use crate::runtime;

use super::super::error::StorageError;
use super::super::recovery;
use super::super::segment::SealedSegment;
use super::super::time_index::MaxTimestamp;
use super::{Log, LogState, ReadRequest};

/// Read at once while looking for a timestamp.
const STEP_BYTES: usize = MIB;

/// A record found by its timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampedOffset {
    /// The record.
    pub offset: Offset,
    /// Its timestamp.
    pub timestamp: i64,
    /// The epoch it was written in.
    pub leader_epoch: LeaderEpoch,
}

/// A stretch of the log and what the time index knows about it.
struct Stretch {
    /// The first offset behind it.
    end_offset: Offset,
    /// Its largest timestamp.
    max: MaxTimestamp,
    /// Where to begin looking for the wanted timestamp.
    from: Offset,
}

impl Log {
    /// The first record whose timestamp is at least `timestamp`, before `end_offset`.
    ///
    /// # Errors
    /// As `read`.
    pub async fn offset_for_timestamp(
        &self,
        timestamp: i64,
        end_offset: Offset,
    ) -> Result<Option<TimestampedOffset>, StorageError> {
        let state = &self.0;
        for base_offset in state.base_offsets() {
            let Some(stretch) = state.stretch(base_offset, timestamp).await? else { continue };
            if stretch.max.timestamp < timestamp {
                continue;
            }
            let range = stretch.from..stretch.end_offset.min(end_offset);
            let found = self.find(range, |max| max >= timestamp, |record| record >= timestamp).await?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The first record with the largest timestamp before `end_offset`.
    ///
    /// # Errors
    /// As `read`.
    pub async fn max_timestamp(&self, end_offset: Offset) -> Result<Option<TimestampedOffset>, StorageError> {
        let state = &self.0;
        let mut best: Option<MaxTimestamp> = None;
        for base_offset in state.base_offsets() {
            let Some(stretch) = state.stretch(base_offset, i64::MAX).await? else { continue };
            let is_better = |max: &MaxTimestamp| best.is_none_or(|best| best.timestamp < max.timestamp);
            let max = if stretch.max.offset < end_offset {
                Some(stretch.max)
            } else if is_better(&stretch.max) {
                self.largest(base_offset, end_offset).await?
            } else {
                None
            };
            best = max.filter(|max| max.timestamp > NO_TIMESTAMP && is_better(max)).or(best);
        }
        let Some(best) = best else { return Ok(None) };
        let from = best.offset.max(state.log_start_offset.get());
        self.find(from..end_offset, |max| max == best.timestamp, |record| record == best.timestamp).await
    }

    /// The first record in `offsets` that fits, in a batch whose largest timestamp fits.
    async fn find(
        &self,
        offsets: std::ops::Range<Offset>,
        batch_fits: impl Fn(i64) -> bool,
        record_fits: impl Fn(i64) -> bool,
    ) -> Result<Option<TimestampedOffset>, StorageError> {
        let mut offset = offsets.start.max(self.log_start_offset());
        while offset < offsets.end {
            let request =
                ReadRequest { offset, end_offset: offsets.end, max_bytes: STEP_BYTES, at_least_one: true };
            let view = self.read(&request).await?;
            if view.is_empty() {
                return Ok(None);
            }
            for batch in view.chunks.iter().flat_map(|chunk| Batches::new(chunk)).flatten() {
                if !batch_fits(batch.header.max_timestamp) {
                    continue;
                }
                let mut found = None;
                let walked = record::for_each_record(batch.bytes, |record| {
                    let is_inside = (self.log_start_offset()..offsets.end).contains(&record.offset);
                    if is_inside && record_fits(record.timestamp) {
                        let (offset, timestamp) = (record.offset, record.timestamp);
                        let leader_epoch = batch.header.leader_epoch;
                        found = Some(TimestampedOffset { offset, timestamp, leader_epoch });
                        return ControlFlow::Break(());
                    }
                    ControlFlow::Continue(())
                });
                if let (None, Err(error)) = (found, walked) {
                    tracing::warn!(topic_partition = %self.topic_partition(), base_offset = batch.header.base_offset,
                        %error, "a batch cannot be searched for a timestamp");
                }
                if found.is_some() {
                    return Ok(found);
                }
            }
            offset = view.next_offset;
            runtime::yield_if_needed().await;
        }
        Ok(None)
    }

    /// The largest timestamp from `offset` to `end_offset`, by headers.
    async fn largest(
        &self,
        offset: Offset,
        end_offset: Offset,
    ) -> Result<Option<MaxTimestamp>, StorageError> {
        let mut offset = offset.max(self.log_start_offset());
        let mut largest: Option<MaxTimestamp> = None;
        while offset < end_offset {
            let request = ReadRequest { offset, end_offset, max_bytes: STEP_BYTES, at_least_one: true };
            let view = self.read(&request).await?;
            if view.is_empty() {
                break;
            }
            for batch in view.chunks.iter().flat_map(|chunk| Batches::new(chunk)).flatten() {
                if largest.is_none_or(|largest| largest.timestamp < batch.header.max_timestamp) {
                    let (timestamp, offset) = (batch.header.max_timestamp, batch.header.last_offset());
                    largest = Some(MaxTimestamp { timestamp, offset });
                }
            }
            offset = view.next_offset;
            runtime::yield_if_needed().await;
        }
        Ok(largest)
    }
}

impl LogState {
    /// The base offsets of all segments, oldest first.
    fn base_offsets(&self) -> Vec<Offset> {
        let sealed = self.sealed.borrow();
        sealed.iter().map(|segment| segment.base_offset).chain([self.active.borrow().base_offset]).collect()
    }

    fn sealed_at(&self, base_offset: Offset) -> Option<Rc<SealedSegment>> {
        let sealed = self.sealed.borrow();
        let slot = sealed.binary_search_by_key(&base_offset, |segment| segment.base_offset).ok()?;
        sealed.get(slot).cloned()
    }

    /// What the indexes of the segment at `base_offset` say; `None` when it is gone or empty.
    async fn stretch(&self, base_offset: Offset, timestamp: i64) -> Result<Option<Stretch>, StorageError> {
        if let Some(segment) = self.sealed_at(base_offset) {
            let end_offset = self.next_base_offset(base_offset);
            let max = self.max_timestamp_of(&segment).await?;
            if max.timestamp < timestamp {
                return Ok(Some(Stretch { end_offset, max, from: base_offset }));
            }
            let loaded = match self.load(&segment).await {
                Ok(loaded) => loaded,
                Err(_) if self.sealed_at(base_offset).is_none() => return Ok(None), // removed meanwhile
                Err(error) => return Err(error),
            };
            let from = loaded.indexes.times.lookup(timestamp);
            return Ok(Some(Stretch { end_offset, max: loaded.indexes.max, from }));
        }
        let active = self.active();
        if active.base_offset != base_offset || active.size_bytes.get() == 0 {
            return Ok(None);
        }
        let awake = self.awake(&active).await?;
        let indexes = awake.indexes.borrow();
        let from = indexes.times.lookup(timestamp);
        Ok(Some(Stretch { end_offset: self.log_end_offset.get(), max: indexes.max, from }))
    }

    fn next_base_offset(&self, base_offset: Offset) -> Offset {
        let sealed = self.sealed.borrow();
        let behind = sealed.partition_point(|segment| segment.base_offset <= base_offset);
        sealed.get(behind).map_or_else(|| self.active.borrow().base_offset, |next| next.base_offset)
    }

    /// The largest timestamp of a sealed segment, looked up once.
    pub(super) async fn max_timestamp_of(
        &self,
        segment: &SealedSegment,
    ) -> Result<MaxTimestamp, StorageError> {
        if let Some(max) = segment.max.get() {
            return Ok(max);
        }
        let (dir, base_offset, size_bytes) = (self.dir.clone(), segment.base_offset, segment.size_bytes);
        let interval_bytes = self.options().index_interval_bytes;
        let look = move || match recovery::read_last_time_entry(&dir, base_offset) {
            Some(max) => Ok(max),
            None => recovery::load_segment_indexes(&dir, base_offset, size_bytes, interval_bytes)
                .map(|(indexes, _)| indexes.max),
        };
        let looked = runtime::blocking(look).await;
        let max = looked.map_err(|error| StorageError::io("read", &segment.log_path(&self.dir), error))?;
        segment.max.set(Some(max));
        Ok(max)
    }
}
