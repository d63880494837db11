//! Appending.

use bytes::Bytes;

use crate::model::Offset;

use super::super::error::StorageError;
use super::super::options::SEGMENT_BYTES_MAX;
use super::super::segment::{ActiveSegment, AwakeSegment};
use super::{AppendBatch, Appended, Log, LogState};

impl Log {
    /// Appends batches whose offsets are assigned and ascend from the end of the log. All of them or none.
    ///
    /// Suspends only when the segment rolls or was at rest, or when direct writes have fallen too far behind. When it
    /// resolves, readers on this shard can see the batches and `log_end_offset` has moved; `wait_written` and `flush`
    /// tell how safe they are. Must not be dropped half way while it suspends; at worst nothing is appended then.
    ///
    /// # Errors
    /// `DiskFull`, `Io` (both leave the log as it was), `Offline`, `Closed`, `AppendTooLarge`.
    ///
    /// # Panics
    /// When there is no batch, or offsets do not ascend from the log end: the caller assigns them.
    pub async fn append(&self, batches: Vec<AppendBatch>, now_ms: i64) -> Result<Appended, StorageError> {
        self.0.append(&batches, now_ms).await
    }
}

impl LogState {
    async fn append(&self, batches: &[AppendBatch], now_ms: i64) -> Result<Appended, StorageError> {
        let _turn = self.structure.take().await;
        self.check_online()?;
        let (first, last) = self.check_offsets(batches);
        let size_bytes: u64 = batches.iter().map(|batch| batch.bytes.len() as u64).sum();
        if size_bytes > SEGMENT_BYTES_MAX {
            let topic_partition = self.topic_partition.clone();
            return Err(StorageError::AppendTooLarge { topic_partition, bytes: size_bytes });
        }
        if self.shared.disk_low.get() {
            return Err(StorageError::DiskFull { topic_partition: self.topic_partition.clone() });
        }
        let mut active = self.active();
        let mut awake = self.awake(&active).await?;
        if self.must_roll(&active, &awake, size_bytes, batches, now_ms) {
            Box::pin(self.roll(first, now_ms)).await?;
            active = self.active();
            awake = self.awake(&active).await?;
        }
        self.write(&active, &awake, batches, last).await?;
        self.note(&active, &awake, batches);
        self.log_end_offset.set(last);
        self.flush.appended(now_ms);
        self.shared.log_used(self.id);
        Ok(Appended { base_offset: first, log_end_offset: last, size_bytes })
    }

    fn check_offsets(&self, batches: &[AppendBatch]) -> (Offset, Offset) {
        let end = self.log_end_offset.get();
        let mut next = end;
        for AppendBatch { bytes, header } in batches {
            assert!(header.base_offset >= next, "offset {} after {next}", header.base_offset);
            debug_assert_eq!(bytes.len(), header.size_bytes());
            next = header.next_offset();
        }
        let first = batches.first().map(|batch| batch.header.base_offset);
        (first.expect("an append has at least one batch"), next)
    }

    fn must_roll(
        &self,
        active: &ActiveSegment,
        awake: &AwakeSegment,
        more_bytes: u64,
        batches: &[AppendBatch],
        now_ms: i64,
    ) -> bool {
        let size_bytes = active.size_bytes.get();
        if size_bytes == 0 {
            return false;
        }
        let options = self.options.borrow();
        let timestamp = batches.iter().map(|batch| batch.header.max_timestamp).max().unwrap_or(now_ms);
        let last_offset = batches.last().map_or(0, |batch| batch.header.last_offset());
        let indexes = awake.indexes.borrow();
        size_bytes + more_bytes > options.segment_bytes_effective()
            || active.age_ms(now_ms, timestamp) > options.segment_ms.saturating_sub(active.jitter_ms)
            || indexes.offsets.size_bytes() >= options.segment_index_bytes
            || indexes.times.size_bytes() >= options.segment_index_bytes
            || last_offset - active.base_offset > i64::from(i32::MAX)
    }

    async fn write(
        &self,
        active: &ActiveSegment,
        awake: &AwakeSegment,
        batches: &[AppendBatch],
        next_offset: Offset,
    ) -> Result<(), StorageError> {
        let position = active.size_bytes.get();
        let appender = &awake.appender;
        let failed = |error| StorageError::write(&self.topic_partition, appender.file().path(), error);
        if !appender.is_ready() {
            appender.make_ready(position).await.map_err(failed)?;
        }
        match batches {
            [batch] => appender.append(std::slice::from_ref(&batch.bytes), position, next_offset),
            _ => {
                let chunks: Vec<Bytes> = batches.iter().map(|batch| batch.bytes.clone()).collect();
                appender.append(&chunks, position, next_offset)
            }
        }
        .map_err(failed)
    }

    /// Takes batches into indexes, producer state, epochs and the tail cache.
    fn note(&self, active: &ActiveSegment, awake: &AwakeSegment, batches: &[AppendBatch]) {
        let interval_bytes = self.options.borrow().index_interval_bytes;
        let mut indexes = awake.indexes.borrow_mut();
        for AppendBatch { bytes, header } in batches {
            let position = active.size_bytes.get();
            if position == 0 {
                active.first_timestamp.set(Some(header.max_timestamp));
            }
            indexes.note(header, position, interval_bytes);
            active.size_bytes.set(position + bytes.len() as u64);
            if let Some(aborted) = self.producers.update(header, bytes) {
                indexes.transactions.push(aborted);
            }
            self.epochs.assign(header.leader_epoch, header.base_offset);
            self.shared.tail_cache.push(&self.tail, header, bytes);
        }
        drop(indexes);
        if awake.appender.is_written_at_once() {
            let next_offset = batches.last().map_or(0, |batch| batch.header.next_offset());
            self.written.advance(next_offset);
        }
    }
}
