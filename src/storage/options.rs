//! How one log behaves: the storage part of a topic's configuration, resolved.

use crate::base::units::{GIB, KIB, MIB};
use crate::runtime::dma_file::DMA_ALIGNMENT_BYTES;

/// No segment file grows beyond this: positions in Kafka's indexes are signed 32-bit numbers.
pub(super) const SEGMENT_BYTES_MAX: u64 = i32::MAX as u64;

/// How appended bytes get to the disk. PERF.md, "write paths", says when which is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WritePath {
    /// Positioned writes into the page cache on the shard's thread.
    PageCache,
    /// Direct writes of whole blocks, several under way at once.
    Dma,
}

/// The options of one log. The names are Kafka's topic options where the meaning is the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// `segment.bytes`: the active segment rolls before it would grow beyond this.
    pub segment_bytes: u64,
    /// `segment.ms`: the active segment rolls when its first record is older than this.
    pub segment_ms: i64,
    /// `segment.jitter.ms`: up to this much is taken off `segment_ms`, so that segments do not roll all at once.
    pub segment_jitter_ms: i64,
    /// `index.interval.bytes`: one index entry per so many bytes of log.
    pub index_interval_bytes: u64,
    /// `segment.index.bytes`: the segment rolls when its offset index would grow beyond this.
    pub segment_index_bytes: u64,
    /// `retention.ms`: segments whose newest record is older go; -1 keeps them.
    pub retention_ms: i64,
    /// `retention.bytes`: oldest segments go while the rest is still this large; -1 keeps them.
    pub retention_bytes: i64,
    /// `flush.messages`: a sync is due after so many records; 1 acknowledges after the sync. Read by the caller.
    pub flush_messages: i64,
    /// `flush.ms`: a sync is due after so many milliseconds. Read by the caller.
    pub flush_ms: i64,
    /// `file.delete.delay.ms`: between renaming a deleted file and unlinking it.
    pub file_delete_delay_ms: u64,
    /// `producer.id.expiration.ms`: an idle producer is forgotten after this.
    pub producer_id_expiration_ms: i64,
    /// Which write path new active segments take.
    pub write_path: WritePath,
    /// Bytes per direct write; rounded to whole blocks.
    pub dma_write_bytes: usize,
}

impl Default for LogOptions {
    /// Kafka's defaults.
    fn default() -> Self {
        LogOptions {
            segment_bytes: GIB as u64,
            segment_ms: 7 * 24 * 60 * 60 * 1000,
            segment_jitter_ms: 0,
            index_interval_bytes: 4 * KIB as u64,
            segment_index_bytes: 10 * MIB as u64,
            retention_ms: 7 * 24 * 60 * 60 * 1000,
            retention_bytes: -1,
            flush_messages: i64::MAX,
            flush_ms: i64::MAX,
            file_delete_delay_ms: 60_000,
            producer_id_expiration_ms: 24 * 60 * 60 * 1000,
            write_path: WritePath::PageCache,
            dma_write_bytes: 128 * KIB,
        }
    }
}

impl LogOptions {
    /// `segment_bytes` within what the format allows.
    pub(super) fn segment_bytes_effective(&self) -> u64 {
        self.segment_bytes.clamp(1, SEGMENT_BYTES_MAX)
    }

    /// `dma_write_bytes` in whole blocks.
    pub(super) fn dma_write_bytes_effective(&self) -> usize {
        self.dma_write_bytes.next_multiple_of(DMA_ALIGNMENT_BYTES).clamp(DMA_ALIGNMENT_BYTES, 8 * MIB)
    }
}
