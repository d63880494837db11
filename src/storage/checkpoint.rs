//! What a start may believe about logs before it has looked at them.
//!
//! Files in the root of a data directory, each a version, a count and one line per partition, replaced whole:
//!
//! ```text
//! recovery-point-offset-checkpoint    <topic> <partition> <offset>      Kafka's: all before it is durable
//! log-start-offset-checkpoint         <topic> <partition> <offset>      Kafka's: where the log begins
//! logstreams-log-end-checkpoint       <topic> <partition> <log end offset> <active base offset> <active bytes>
//! .kafka_cleanshutdown                {"version":"0","broker_epoch":"-1"}: the last stop was a clean one
//! ```
//!
//! Each file is written whole for many partitions at once. A line that does not parse is skipped with a warning: the
//! partition is then scanned, which is slow but right. Source: Kafka `CheckpointFile`, `OffsetCheckpointFile`,
//! `CleanShutdownFileHandler`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::model::{Offset, TopicName, TopicPartition};
use crate::runtime::directory;
use crate::runtime::executor::blocking;

use super::error::StorageError;

const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
const LOG_STARTS: &str = "log-start-offset-checkpoint";
const LOG_ENDS: &str = "logstreams-log-end-checkpoint";
const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
const CLEAN_SHUTDOWN_JSON: &str = r#"{"version":"0","broker_epoch":"-1"}"#;
/// Version of all these files.
const VERSION: &str = "0";

/// What is known about one log without looking at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogCheckpoint {
    /// Where the log begins: retention and DeleteRecords move it.
    pub log_start_offset: Offset,
    /// Everything before it is durable and was whole when it was synced.
    pub recovery_point: Offset,
    /// Where the log ended; absent when only Kafka's files were there.
    pub end: Option<LogEnd>,
}

/// Where a log ended when the checkpoint was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEnd {
    /// The offset behind the last record.
    pub log_end_offset: Offset,
    /// The base offset of the active segment.
    pub active_base_offset: Offset,
    /// Its size, without what was prepared behind the data.
    pub active_size_bytes: u64,
}

/// Reads what the last run wrote into `data_dir`. Missing files are no error.
///
/// # Errors
/// The kernel's.
pub async fn read(data_dir: &Path) -> Result<BTreeMap<TopicPartition, LogCheckpoint>, StorageError> {
    let recovery_points = read_file(data_dir, RECOVERY_POINTS, parse_offset).await?;
    let log_starts = read_file(data_dir, LOG_STARTS, parse_offset).await?;
    let log_ends = read_file(data_dir, LOG_ENDS, parse_end).await?;
    let mut checkpoints = BTreeMap::new();
    for topic_partition in recovery_points.keys().chain(log_starts.keys()).chain(log_ends.keys()) {
        checkpoints.entry(topic_partition.clone()).or_insert_with(|| LogCheckpoint {
            log_start_offset: log_starts.get(topic_partition).copied().unwrap_or(0),
            recovery_point: recovery_points.get(topic_partition).copied().unwrap_or(0),
            end: log_ends.get(topic_partition).copied(),
        });
    }
    Ok(checkpoints)
}

/// Replaces the checkpoints in `data_dir` with these, durably.
///
/// # Errors
/// The kernel's. Each file is then either the old one or the new one.
pub async fn write(
    data_dir: &Path,
    checkpoints: Arc<BTreeMap<TopicPartition, LogCheckpoint>>,
) -> Result<(), StorageError> {
    // Ten thousand partitions are many lines: not on an executor's thread.
    let [ends, log_starts, recovery_points] = blocking(move || texts(&checkpoints)).await;
    // The end first and the recovery point last: a crash in between leaves a recovery point that is too low, never one
    // that is too high.
    replace(data_dir, LOG_ENDS, ends).await?;
    replace(data_dir, LOG_STARTS, log_starts).await?;
    replace(data_dir, RECOVERY_POINTS, recovery_points).await
}

/// The three files: ends, log start offsets, recovery points.
fn texts(checkpoints: &BTreeMap<TopicPartition, LogCheckpoint>) -> [Vec<u8>; 3] {
    let offsets = |of: fn(&LogCheckpoint) -> Offset| {
        lines(
            checkpoints
                .iter()
                .map(|(at, checkpoint)| format!("{} {} {}", at.topic, at.partition, of(checkpoint))),
        )
    };
    let ends = lines(checkpoints.iter().filter_map(|(at, checkpoint)| {
        let LogEnd { log_end_offset, active_base_offset, active_size_bytes } = checkpoint.end?;
        Some(format!(
            "{} {} {log_end_offset} {active_base_offset} {active_size_bytes}",
            at.topic, at.partition
        ))
    }));
    [ends, offsets(|checkpoint| checkpoint.log_start_offset), offsets(|checkpoint| checkpoint.recovery_point)]
}

/// Notes that the stop was clean: every log was closed and its checkpoint written.
///
/// # Errors
/// The kernel's.
pub async fn write_clean_shutdown_marker(data_dir: &Path) -> Result<(), StorageError> {
    replace(data_dir, CLEAN_SHUTDOWN, CLEAN_SHUTDOWN_JSON.as_bytes().to_vec()).await
}

/// Whether the last stop was clean. The marker is removed, durably, before this returns: the next start after a crash
/// must not find it.
///
/// # Errors
/// The kernel's.
pub async fn take_clean_shutdown_marker(data_dir: &Path) -> Result<bool, StorageError> {
    let path = data_dir.join(CLEAN_SHUTDOWN);
    let found = directory::read_small(&path).await.map_err(|error| StorageError::io("read", &path, error))?;
    if found.is_none() {
        return Ok(false);
    }
    directory::unlink(&path).await.map_err(|error| StorageError::io("remove", &path, error))?;
    directory::sync(data_dir).await.map_err(|error| StorageError::io("sync", data_dir, error))?;
    Ok(true)
}

async fn replace(data_dir: &Path, name: &str, bytes: Vec<u8>) -> Result<(), StorageError> {
    let path = data_dir.join(name);
    directory::replace_small(&path, bytes, true)
        .await
        .map_err(|error| StorageError::io("replace", &path, error))
}

async fn read_file<T>(
    data_dir: &Path,
    name: &str,
    parse: fn(&mut std::str::SplitAsciiWhitespace<'_>) -> Option<T>,
) -> Result<BTreeMap<TopicPartition, T>, StorageError> {
    let path = data_dir.join(name);
    let bytes = directory::read_small(&path).await.map_err(|error| StorageError::io("read", &path, error))?;
    let Some(bytes) = bytes else { return Ok(BTreeMap::new()) };
    let Some(lines) = parse_lines(&bytes) else {
        tracing::warn!(file = %path.display(), "a checkpoint file is malformed; its partitions will be scanned");
        return Ok(BTreeMap::new());
    };
    Ok(lines.filter_map(|line| parse_line(line, parse)).collect())
}

fn parse_line<T>(
    line: &str,
    parse: fn(&mut std::str::SplitAsciiWhitespace<'_>) -> Option<T>,
) -> Option<(TopicPartition, T)> {
    let mut fields = line.split_ascii_whitespace();
    let topic = TopicName::new(fields.next()?).ok()?;
    let partition = fields.next()?.parse().ok()?;
    let value = parse(&mut fields)?;
    fields.next().is_none().then_some((TopicPartition::new(topic, partition), value))
}

fn parse_offset(fields: &mut std::str::SplitAsciiWhitespace<'_>) -> Option<Offset> {
    fields.next()?.parse().ok().filter(|offset| *offset >= 0)
}

fn parse_end(fields: &mut std::str::SplitAsciiWhitespace<'_>) -> Option<LogEnd> {
    let log_end_offset = parse_offset(fields)?;
    let active_base_offset = parse_offset(fields)?;
    let active_size_bytes = fields.next()?.parse().ok()?;
    Some(LogEnd { log_end_offset, active_base_offset, active_size_bytes })
}

/// The form of Kafka's checkpoint files: version, count, lines.
pub(super) fn lines(entries: impl Iterator<Item = String>) -> Vec<u8> {
    let entries: Vec<String> = entries.collect();
    let mut text = format!("{VERSION}\n{}\n", entries.len());
    for entry in entries {
        text.push_str(&entry);
        text.push('\n');
    }
    text.into_bytes()
}

/// The lines of a file in that form; `None` when version or count do not fit.
pub(super) fn parse_lines(bytes: &[u8]) -> Option<impl Iterator<Item = &str>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.lines();
    if lines.next()? != VERSION {
        return None;
    }
    let count: usize = lines.next()?.parse().ok()?;
    (lines.clone().count() == count).then_some(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::block_on;

    fn orders(partition: i32) -> TopicPartition {
        TopicPartition::new(TopicName::new("orders").unwrap(), partition)
    }

    #[test]
    fn checkpoints_are_read_back_and_the_files_are_kafkas() {
        let dir = tempfile::tempdir().unwrap();
        let end = LogEnd { log_end_offset: 20, active_base_offset: 10, active_size_bytes: 999 };
        let written = BTreeMap::from([
            (orders(0), LogCheckpoint { log_start_offset: 1, recovery_point: 15, end: Some(end) }),
            (orders(1), LogCheckpoint { log_start_offset: 0, recovery_point: 0, end: None }),
        ]);
        block_on(async {
            assert!(read(dir.path()).await.unwrap().is_empty());
            write(dir.path(), Arc::new(written.clone())).await.unwrap();
            assert_eq!(read(dir.path()).await.unwrap(), written);
        });
        let text = std::fs::read_to_string(dir.path().join(RECOVERY_POINTS)).unwrap();
        assert_eq!(text, "0\n2\norders 0 15\norders 1 0\n");
    }

    #[test]
    fn malformed_lines_and_files_are_as_good_as_missing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(RECOVERY_POINTS), "0\n3\norders 0 15\norders x 15\norders 1 -4\n")
            .unwrap();
        std::fs::write(dir.path().join(LOG_STARTS), "0\n3\norders 0 5\n").unwrap();
        std::fs::write(dir.path().join(LOG_ENDS), [0xff, 0xfe]).unwrap();
        block_on(async {
            let found = read(dir.path()).await.unwrap();
            assert_eq!(found.len(), 1);
            let expected = LogCheckpoint { log_start_offset: 0, recovery_point: 15, end: None };
            assert_eq!(found.get(&orders(0)), Some(&expected));
        });
    }

    #[test]
    fn the_clean_shutdown_marker_is_good_for_one_start() {
        let dir = tempfile::tempdir().unwrap();
        block_on(async {
            assert!(!take_clean_shutdown_marker(dir.path()).await.unwrap());
            write_clean_shutdown_marker(dir.path()).await.unwrap();
            assert!(take_clean_shutdown_marker(dir.path()).await.unwrap());
            assert!(!take_clean_shutdown_marker(dir.path()).await.unwrap());
        });
    }
}
