//! Every name and suffix that may lie in a data directory.
//!
//! ```text
//! <topic>-<partition>/                       a partition
//! <topic>-<partition>.<uuid>-delete/         a partition that is being removed
//! <base offset, 20 digits>.log               record batches
//!                         .index .timeindex .txnindex       see `segment`
//! <offset, 20 digits>.snapshot               producer state before that offset
//! leader-epoch-checkpoint  partition.metadata
//! <name>.deleted                             renamed by retention, unlinked later
//! <name>.cleaned  <name>.swap                a cleaning that was under way
//! <name>.set-aside                           what recovery found damaged and did not dare to delete (ours)
//! <name>.tmp                                 a small file that was being replaced
//! ```
//!
//! Source: Kafka `LogFileUtils`, `UnifiedLog`, `LocalLog.parseTopicPartitionName`.

use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::model::{Offset, TopicName, TopicPartition};

pub(super) const LEADER_EPOCH_CHECKPOINT: &str = "leader-epoch-checkpoint";
pub(super) const PARTITION_METADATA: &str = "partition.metadata";
pub(super) const DELETED_SUFFIX: &str = ".deleted";
pub(super) const SET_ASIDE_SUFFIX: &str = ".set-aside";
const CLEANED_SUFFIX: &str = ".cleaned";
const SWAP_SUFFIX: &str = ".swap";
const TEMPORARY_SUFFIX: &str = ".tmp";
const DELETE_DIR_SUFFIX: &str = "-delete";
/// Digits of an offset in a file name, so that names sort as numbers do.
const OFFSET_DIGITS: usize = 20;
/// Longest name that file systems take.
const NAME_BYTES_MAX: usize = 255;

/// The files that belong to one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SegmentFile {
    /// Record batches.
    Log,
    /// Offset index.
    Index,
    /// Time index.
    TimeIndex,
    /// Aborted transactions.
    TransactionIndex,
    /// Producer state before the segment.
    Snapshot,
}

impl SegmentFile {
    /// All of them.
    pub(super) const ALL: [SegmentFile; 5] = [
        SegmentFile::Log,
        SegmentFile::Index,
        SegmentFile::TimeIndex,
        SegmentFile::TransactionIndex,
        SegmentFile::Snapshot,
    ];

    fn suffix(self) -> &'static str {
        match self {
            SegmentFile::Log => ".log",
            SegmentFile::Index => ".index",
            SegmentFile::TimeIndex => ".timeindex",
            SegmentFile::TransactionIndex => ".txnindex",
            SegmentFile::Snapshot => ".snapshot",
        }
    }

    /// Its path for `offset`.
    pub(super) fn path(self, dir: &Path, offset: Offset) -> PathBuf {
        dir.join(format!("{offset:0OFFSET_DIGITS$}{}", self.suffix()))
    }
}

/// What a name in a partition's directory means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileName {
    /// A live file of the segment or snapshot at this offset.
    Segment(SegmentFile, Offset),
    /// A finished cleaning that is to take the place of older segments.
    Swap(SegmentFile, Offset),
    /// Left over from something that was under way; of no use.
    Leftover,
    /// Not ours to touch (or read by its full name).
    Other,
}

impl FileName {
    /// Tells what `name` means.
    pub(super) fn parse(name: &str) -> FileName {
        if name.ends_with(DELETED_SUFFIX)
            || name.ends_with(CLEANED_SUFFIX)
            || name.ends_with(TEMPORARY_SUFFIX)
        {
            return FileName::Leftover;
        }
        if let Some(inner) = name.strip_suffix(SWAP_SUFFIX) {
            return parse_segment_file(inner)
                .map_or(FileName::Other, |(file, offset)| FileName::Swap(file, offset));
        }
        parse_segment_file(name).map_or(FileName::Other, |(file, offset)| FileName::Segment(file, offset))
    }
}

fn parse_segment_file(name: &str) -> Option<(SegmentFile, Offset)> {
    let (digits, suffix) = name.split_at_checked(OFFSET_DIGITS)?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let file = SegmentFile::ALL.into_iter().find(|file| file.suffix() == suffix)?;
    Some((file, digits.parse().ok()?))
}

/// `path` with `suffix` behind it.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The directory of a partition within a data directory.
pub fn partition_dir_name(topic_partition: &TopicPartition) -> String {
    topic_partition.to_string()
}

/// What a name in a data directory means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DirName {
    /// A partition.
    Partition(TopicPartition),
    /// A partition that is being removed.
    Deleting,
    /// Not ours.
    Foreign,
}

impl DirName {
    /// Tells what `name` means.
    pub(super) fn parse(name: &str) -> DirName {
        if let Some(rest) = name.strip_suffix(DELETE_DIR_SUFFIX)
            && let Some((partition, uuid)) = rest.rsplit_once('.')
            && uuid.len() == 32
            && uuid.bytes().all(|byte| byte.is_ascii_hexdigit())
            && partition.contains('-')
        {
            return DirName::Deleting;
        }
        parse_partition(name).map_or(DirName::Foreign, DirName::Partition)
    }
}

fn parse_partition(name: &str) -> Option<TopicPartition> {
    let (topic, partition) = name.rsplit_once('-')?;
    if partition.is_empty() || !partition.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let parsed = TopicPartition::new(TopicName::new(topic).ok()?, partition.parse().ok()?);
    (parsed.to_string() == name).then_some(parsed) // no leading zeros
}

/// The name under which a partition's directory waits for removal. A long topic name is cut, as Kafka does.
pub(super) fn deleting_dir_name(topic_partition: &TopicPartition, id: Uuid) -> String {
    let suffix = format!("-{}.{}{DELETE_DIR_SUFFIX}", topic_partition.partition, id.simple());
    let topic = topic_partition.topic.as_str();
    let kept = topic.len().min(NAME_BYTES_MAX - suffix.len());
    format!("{}{suffix}", &topic[..kept]) // topic names are ASCII
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_files_are_named_and_read_back() {
        for file in SegmentFile::ALL {
            let path = file.path(Path::new("/d"), 1_234);
            let name = path.file_name().unwrap().to_str().unwrap();
            assert_eq!(FileName::parse(name), FileName::Segment(file, 1_234));
        }
        assert_eq!(FileName::parse("00000000000000000007.log.swap"), FileName::Swap(SegmentFile::Log, 7));
        assert_eq!(FileName::parse("00000000000000000007.log.deleted"), FileName::Leftover);
        assert_eq!(FileName::parse("7.log"), FileName::Other);
        assert_eq!(FileName::parse("99999999999999999999.log"), FileName::Other);
        assert_eq!(FileName::parse("partition.metadata"), FileName::Other);
    }

    #[test]
    fn only_partition_directories_are_taken_for_such() {
        let orders = TopicPartition::new(TopicName::new("orders-eu").unwrap(), 12);
        assert_eq!(DirName::parse("orders-eu-12"), DirName::Partition(orders.clone()));
        assert_eq!(DirName::parse(&deleting_dir_name(&orders, Uuid::new_v4())), DirName::Deleting);
        for foreign in ["lost+found", "orders", "orders-", "orders-01", "a b-1", "orders-1.x-delete"] {
            assert_eq!(DirName::parse(foreign), DirName::Foreign, "{foreign}");
        }
    }

    #[test]
    fn the_name_of_a_dying_directory_is_never_too_long() {
        let long = TopicPartition::new(TopicName::new(&"x".repeat(249)).unwrap(), 99_999);
        let name = deleting_dir_name(&long, Uuid::new_v4());
        assert_eq!(name.len(), 255);
        assert_eq!(DirName::parse(&name), DirName::Deleting);
    }
}
