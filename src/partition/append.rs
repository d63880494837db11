//! Append: what is allowed, which offset it gets, when it is acknowledged.
//!
//! Appends queue up in the order in which they are asked for. One task of the partition empties the queue, and what it
//! finds there together goes to the log as one group: one write for many requests (see [`super::append_group`]).

use std::future::Future;
use std::rc::Rc;

use bytes::BytesMut;

use super::append_group::{Origin, QueuedAppend};
use super::{Partition, PartitionError};
use crate::base::clock;
use crate::config::{self, CompressionType};
use crate::model::{NO_TIMESTAMP, Offset};
use crate::record::{self, BatchHeader, Compression, TimestampType, ValidBatch, ValidationLimits};
use crate::runtime;
use crate::runtime::local::oneshot;
use crate::storage::{ProducerCheck, Verified};

/// Compressed batches above this are checked on the blocking pool: decompressing them takes longer than the hop.
const INLINE_DECOMPRESSION_BYTES_MAX: usize = 16 * 1024;

/// An append that has been acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The offset of its first record.
    pub base_offset: Offset,
    /// The time of the append for topics with LogAppendTime, else -1.
    pub log_append_time_ms: i64,
    /// The first offset that the partition holds.
    pub log_start_offset: Offset,
}

impl Partition {
    /// Appends a producer's batch; one of a transaction that is not open here needs the coordinator's word that it may.
    /// The place in line is taken by this call, so calls are carried out in their order, whether or not what it returns
    /// is polled. Resolves when the topic's flush policy is satisfied. One that is not `is_gathered` lets all who are
    /// ready take their places behind it before it is written with them.
    ///
    /// # Errors
    /// Nothing was appended, unless the error is `Storage` after a failed sync or a direct write: then the batch may be
    /// in the log, and the producer's retry is what finds out.
    pub fn append(
        self: &Rc<Self>,
        records: BytesMut,
        acks_all: bool,
        is_gathered: bool,
        verified: Option<Verified>,
    ) -> impl Future<Output = Result<Appended, PartitionError>> + use<> {
        self.queue_append(records, Origin::Producer { acks_all, verified }, is_gathered)
    }

    /// Appends a batch that this server made itself (state records, markers); its records need no checking, its producer
    /// must not be fenced, and its transaction needs the coordinator's word as that of a producer's batch does.
    pub fn append_state(
        self: &Rc<Self>,
        batch: BytesMut,
        verified: Option<Verified>,
    ) -> impl Future<Output = Result<Appended, PartitionError>> + use<> {
        self.queue_append(batch, Origin::Server { verified }, false)
    }

    fn queue_append(
        self: &Rc<Self>,
        records: BytesMut,
        origin: Origin,
        is_gathered: bool,
    ) -> impl Future<Output = Result<Appended, PartitionError>> + use<> {
        let (answer, awaited) = oneshot();
        if self.appends.push(QueuedAppend { records, origin, answer }) {
            runtime::spawn_detached(self.clone().append_queued(is_gathered));
        }
        async move {
            let gone = || Err(PartitionError::Storage("the append was given up".to_owned()));
            awaited.await.unwrap_or_else(gone)
        }
    }

    /// Decides over the batch in front of the queue.
    pub(super) async fn check(
        &self,
        records: BytesMut,
        origin: Origin,
    ) -> Result<(BytesMut, ValidBatch), PartitionError> {
        match origin {
            Origin::Producer { acks_all, .. } => {
                self.check_replicas(acks_all)?;
                self.validated(records).await
            }
            Origin::Server { .. } => {
                let header = BatchHeader::parse(&records).map_err(record::InvalidBatch::Corrupt)?;
                let max_timestamp = header.max_timestamp;
                Ok((records, ValidBatch { header, stamp: record::Stamp::Keep, max_timestamp }))
            }
        }
    }

    fn check_replicas(&self, acks_all: bool) -> Result<(), PartitionError> {
        let needed = self.config.borrow().min_insync_replicas;
        if acks_all && needed > 1 { Err(PartitionError::NotEnoughReplicas(needed)) } else { Ok(()) }
    }

    /// The request's one batch, checked and under the topic's codec; what takes long is done off the shard's thread.
    async fn validated(&self, mut records: BytesMut) -> Result<(BytesMut, ValidBatch), PartitionError> {
        let limits = self.validation_limits();
        let size_bytes = record::only_batch(&records)?.len();
        records.truncate(size_bytes);
        let header = record::validate_header_and_crc(&records, &limits)?;
        let recompress = self.recompression(&header);
        if recompress.is_none() && !is_long_to_decompress(&header) {
            let valid = record::validate_records(&records, &header, &limits)?;
            return Ok((records, valid));
        }
        runtime::blocking(move || {
            let valid = record::validate_records(&records, &header, &limits)?;
            match recompress {
                None => Ok((records, valid)),
                Some(codec) => Ok(record::recompress(&records, &valid, codec, limits.max_message_bytes)?),
            }
        })
        .await
    }

    /// The codec that config `compression.type` wants instead of the one that a batch has.
    fn recompression(&self, header: &BatchHeader) -> Option<Compression> {
        let wanted = match self.config.borrow().compression_type {
            CompressionType::Producer => return None,
            CompressionType::Uncompressed => Compression::None,
            CompressionType::Gzip => Compression::Gzip,
            CompressionType::Snappy => Compression::Snappy,
            CompressionType::Lz4 => Compression::Lz4,
            CompressionType::Zstd => Compression::Zstd,
        };
        header.compression().is_ok_and(|codec| codec != wanted).then_some(wanted)
    }

    /// Whether [`Partition::check`] will wait for the blocking pool, as far as the header tells.
    pub(super) fn check_takes_long(&self, records: &[u8]) -> bool {
        BatchHeader::parse(records)
            .is_ok_and(|header| self.recompression(&header).is_some() || is_long_to_decompress(&header))
    }

    fn validation_limits(&self) -> ValidationLimits {
        let config = self.config.borrow();
        ValidationLimits {
            max_message_bytes: config.max_message_bytes,
            timestamp_type: match config.message_timestamp_type {
                config::TimestampType::CreateTime => TimestampType::CreateTime,
                config::TimestampType::LogAppendTime => TimestampType::LogAppendTime,
            },
            timestamp_before_max_ms: config.message_timestamp_before_max_ms,
            timestamp_after_max_ms: config.message_timestamp_after_max_ms,
            now_ms: clock::now_ms(),
            requires_keys: false,
        }
    }

    /// Refuses a batch that its producer may not append; gives the first answer to one that it sends again, with the
    /// offset behind it.
    pub(super) fn known_duplicate(
        &self,
        header: &BatchHeader,
        origin: Origin,
    ) -> Result<Option<(Appended, Offset)>, PartitionError> {
        if !header.has_producer_id() {
            return Ok(None);
        }
        let producers = self.log.producers();
        match producers.check(header, matches!(origin, Origin::Producer { .. }))? {
            ProducerCheck::Append => {
                let (Origin::Producer { verified, .. } | Origin::Server { verified }) = origin;
                producers.check_verified(header, verified)?;
                Ok(None)
            }
            ProducerCheck::Duplicate { base_offset, last_offset, append_time_ms } => {
                let stamped =
                    self.config.borrow().message_timestamp_type == config::TimestampType::LogAppendTime;
                let append_time_ms = if stamped { append_time_ms } else { NO_TIMESTAMP };
                Ok(Some((self.appended(base_offset, append_time_ms), last_offset + 1)))
            }
        }
    }

    /// Refuses a marker of a producer or a coordinator that was replaced.
    pub(super) fn check_marker(&self, header: &BatchHeader, marker: &[u8]) -> Result<(), PartitionError> {
        let control = record::parse_control_batch(marker).map_err(record::InvalidBatch::Corrupt)?;
        let producers = self.log.producers();
        Ok(producers.check_marker(header.producer_id, header.producer_epoch, control.coordinator_epoch)?)
    }

    pub(super) fn appended(&self, base_offset: Offset, log_append_time_ms: i64) -> Appended {
        Appended { base_offset, log_append_time_ms, log_start_offset: self.log.log_start_offset() }
    }

    /// As [`Partition::acknowledge`], if there is nothing to wait for; whether there was nothing.
    pub(super) fn acknowledge_now(&self, next_offset: Offset) -> bool {
        let flush_messages = self.config.borrow().flush_messages;
        let written_offset = self.log.written_offset();
        let is_safe = flush_messages > 1
            && written_offset >= next_offset
            && next_offset - self.log.flushed_offset() < flush_messages;
        if is_safe {
            self.advance_high_watermark(written_offset);
        }
        is_safe
    }

    /// Waits until everything before `next_offset` satisfies the flush policy, then lets readers see it.
    pub(super) async fn acknowledge(&self, next_offset: Offset) -> Result<(), PartitionError> {
        let flush_messages = self.config.borrow().flush_messages;
        if flush_messages == 1 {
            while self.log.flushed_offset() < next_offset {
                self.log.flush().await?;
            }
            self.advance_high_watermark(self.log.flushed_offset());
            return Ok(());
        }
        self.log.wait_written(next_offset).await?;
        self.advance_high_watermark(self.log.written_offset());
        if next_offset - self.log.flushed_offset() >= flush_messages {
            self.log.flush().await?;
        }
        Ok(())
    }
}

/// Whether decompressing a batch takes longer than the hop to the blocking pool.
fn is_long_to_decompress(header: &BatchHeader) -> bool {
    let compressed = header.compression().is_ok_and(|codec| codec != Compression::None);
    compressed && header.size_bytes() > INLINE_DECOMPRESSION_BYTES_MAX
}
