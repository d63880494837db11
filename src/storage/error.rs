//! What can go wrong on this floor.

use std::io;
use std::path::{Path, PathBuf};

use crate::model::{Offset, TopicPartition};

/// Why a call on a log failed. `is_retriable` tells whether the same call may succeed later.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The offset is not in the log; a reader starts over by its reset policy.
    #[error("offset {offset} of {topic_partition} is outside {log_start_offset}..={log_end_offset}")]
    OffsetOutOfRange {
        /// The log.
        topic_partition: TopicPartition,
        /// What was asked for.
        offset: Offset,
        /// The first offset that is there.
        log_start_offset: Offset,
        /// The offset behind the last one.
        log_end_offset: Offset,
    },
    /// No room, or less than the reserve. Nothing was appended.
    #[error("no room on the disk for {topic_partition}")]
    DiskFull {
        /// The log.
        topic_partition: TopicPartition,
    },
    /// The kernel reported an error.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was being done, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The kernel's error. Shared, because one failure may answer many waiters.
        source: std::sync::Arc<io::Error>,
    },
    /// A sync failed, so nobody can know what is on the disk. Reads go on; reopen the log to append again.
    #[error("{topic_partition} is offline: {reason}")]
    Offline {
        /// The log.
        topic_partition: TopicPartition,
        /// What happened.
        reason: String,
    },
    /// The log was closed or deleted.
    #[error("{topic_partition} is closed")]
    Closed {
        /// The log.
        topic_partition: TopicPartition,
    },
    /// Bytes on the disk are not what they must be.
    #[error("{} is damaged at position {position}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        position: u64,
        /// Expected and found.
        reason: String,
    },
    /// One append is larger than a segment can ever be.
    #[error("an append of {bytes} bytes to {topic_partition} does not fit any segment")]
    AppendTooLarge {
        /// The log.
        topic_partition: TopicPartition,
        /// Its size.
        bytes: u64,
    },
}

impl StorageError {
    /// Wraps the kernel's error.
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        StorageError::Io { action, path: path.to_owned(), source: source.into() }
    }

    /// Wraps the kernel's error about a write: a full disk has its own variant.
    pub(super) fn write(topic_partition: &TopicPartition, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                StorageError::DiskFull { topic_partition: topic_partition.clone() }
            }
            _ => StorageError::io("write", path, source),
        }
    }

    /// Whether the same call may succeed later without anybody's doing.
    pub fn is_retriable(&self) -> bool {
        matches!(self, StorageError::DiskFull { .. } | StorageError::Io { .. })
    }
}
