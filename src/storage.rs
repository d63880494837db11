//! One partition's log on disk, in Kafka's layout.
//!
//! Reading order: `log` (the segments in order: append, read, flush, retention), `segment` (one segment; the on-disk
//! format is drawn there), `segment_appender` (the two write paths), `segment_reader`, `segment_cache` and `tail_cache`
//! (where reads come from), the indexes, `producer_state`, `leader_epoch_cache`, then what happens at start:
//! `data_dir`, `checkpoint`, `recovery`; and at the end: `retention`, `file_remover`.
//!
//! Lives on: the shard that owns the partition; nothing here crosses a thread except plain values for the blocking pool.
//! Promise: what `flush` covered survives a power cut, what `written_offset` covers survives a killed process, and no
//! bytes on the disk make anything here panic.
//! Does not: validate batches or assign offsets (`record`, `partition`), decide when to flush (`shard::flusher`), read
//! the clock (times are arguments).

pub mod checkpoint;
mod cold_reads;
mod data_dir;
mod error;
mod file_names;
mod file_remover;
mod leader_epoch_cache;
mod log;
mod offset_index;
mod options;
mod producer_state;
pub mod recovery;
mod retention;
mod segment;
mod segment_appender;
mod segment_cache;
mod segment_reader;
mod shard_storage;
mod tail_cache;
mod time_index;
mod transaction_index;

pub use checkpoint::{LogCheckpoint, LogEnd};
pub use data_dir::{FoundPartition, scan_data_dir};
pub use error::StorageError;
pub use file_names::partition_dir_name;
pub use file_remover::FileRemover;
pub use log::{
    AppendBatch, Appended, Log, ReadRequest, ReadView, RetentionReport, SegmentInfo, StartHint,
    TimestampedOffset,
};
pub use options::{LogOptions, WritePath};
pub use producer_state::{
    ProducerCheck, ProducerError, ProducerInfo, ProducerStateManager, VerificationGuard, Verified,
};
pub use segment_cache::SegmentCache;
pub use shard_storage::{ShardStorage, ShardStorageLimits};
pub use tail_cache::TailCache;
pub use transaction_index::AbortedTransaction;
