//! What lies in the root of a data directory.
//!
//! `partition.metadata` is two lines, `version: 0` and `topic_id: <id>`, the id as Kafka writes ids: base 64 for URLs,
//! without padding. Source: Kafka `PartitionMetadataFile`, `LogManager.loadLogs`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::model::TopicPartition;
use crate::runtime::{self, directory};

use super::error::StorageError;
use super::file_names::{DirName, PARTITION_METADATA};

const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A partition that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundPartition {
    /// Its name.
    pub topic_partition: TopicPartition,
    /// Its directory.
    pub dir: PathBuf,
    /// Its topic's id; `None` where `partition.metadata` is missing or malformed.
    pub topic_id: Option<Uuid>,
    /// Bytes of its files, for spreading partitions over shards.
    pub size_bytes: u64,
}

/// Lists the partitions in `data_dir`, sorted by name. Directories of partitions that were being removed are removed in
/// the background; names that are not Kafka's or ours are left alone.
///
/// # Errors
/// The kernel's about the root; a partition that cannot be looked into is listed all the same.
pub async fn scan_data_dir(data_dir: &Path) -> Result<Vec<FoundPartition>, StorageError> {
    let root = data_dir.to_owned();
    let scanned = runtime::blocking(move || scan_now(&root)).await;
    let (found, dying) = scanned.map_err(|error| StorageError::io("list", data_dir, error))?;
    if !dying.is_empty() {
        runtime::spawn_detached(async move {
            for dir in dying {
                if let Err(error) = directory::remove_all(&dir).await {
                    tracing::warn!(dir = %dir.display(), %error, "cannot remove what is left of a deleted partition");
                }
            }
        });
    }
    Ok(found)
}

fn scan_now(data_dir: &Path) -> io::Result<(Vec<FoundPartition>, Vec<PathBuf>)> {
    let (mut found, mut dying) = (Vec::new(), Vec::new());
    for name in directory::list_now(data_dir)? {
        let dir = data_dir.join(&name);
        if !dir.is_dir() {
            continue;
        }
        match DirName::parse(&name) {
            DirName::Partition(topic_partition) => {
                let topic_id =
                    fs::read(dir.join(PARTITION_METADATA)).ok().and_then(|bytes| parse_metadata(&bytes));
                let size_bytes = files_bytes(&dir);
                found.push(FoundPartition { topic_partition, dir, topic_id, size_bytes });
            }
            DirName::Deleting => dying.push(dir),
            DirName::Foreign => {}
        }
    }
    found.sort_unstable_by(|one, other| one.topic_partition.cmp(&other.topic_partition));
    Ok((found, dying))
}

fn files_bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// Writes `partition.metadata`.
pub(super) fn write_partition_metadata(path: &Path, topic_id: Uuid) -> io::Result<()> {
    let text = format!("version: 0\ntopic_id: {}", to_base64(topic_id));
    directory::replace_small_now(path, text.as_bytes(), false)
}

fn parse_metadata(bytes: &[u8]) -> Option<Uuid> {
    let mut lines = std::str::from_utf8(bytes).ok()?.lines();
    if lines.next()?.strip_prefix("version:")?.trim() != "0" {
        return None;
    }
    from_base64(lines.next()?.strip_prefix("topic_id:")?.trim())
}

fn to_base64(id: Uuid) -> String {
    let bits = id.as_u128();
    // 22 characters of six bits, the last with only two bits of the id in front.
    (0..22u32)
        .map(|place| {
            let six = if place < 21 { (bits >> (122 - 6 * place)) & 63 } else { (bits << 4) & 63 };
            char::from(*BASE64_URL.get(six as usize).unwrap_or(&b'A')) // six bits are below 64
        })
        .collect()
}

fn from_base64(text: &str) -> Option<Uuid> {
    if text.len() != 22 {
        return None;
    }
    let mut bits = 0u128;
    for (place, character) in text.bytes().enumerate() {
        let six = BASE64_URL.iter().position(|known| *known == character)? as u128;
        bits = if place < 21 { bits << 6 | six } else { bits << 2 | six >> 4 };
    }
    Some(Uuid::from_u128(bits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::block_on;

    #[test]
    fn topic_ids_are_written_as_kafka_writes_them() {
        let id = Uuid::from_bytes([0x8a, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xff]);
        assert_eq!(to_base64(id), "igECAwQFBgcICQoLDA0O_w"); // as python's base64.urlsafe_b64encode has it
        assert_eq!(from_base64(&to_base64(id)), Some(id));
        assert_eq!(from_base64("igECAwQFBgcICQoLDA0O"), None);
        assert_eq!(from_base64("igECAwQFBgcICQoLDA0O+w"), None);
    }

    #[test]
    fn partitions_are_found_foreign_names_are_left_alone_and_dying_ones_removed() {
        let root = tempfile::tempdir().unwrap();
        for name in ["orders-1", "orders-0", "lost+found", "orders-2.0123456789abcdef0123456789abcdef-delete"]
        {
            std::fs::create_dir(root.path().join(name)).unwrap();
        }
        std::fs::write(root.path().join("notes-3"), "a file").unwrap();
        let id = Uuid::from_u128(7);
        write_partition_metadata(&root.path().join("orders-0").join(PARTITION_METADATA), id).unwrap();
        let found = block_on(async {
            let found = scan_data_dir(root.path()).await.unwrap();
            runtime::sleep(std::time::Duration::from_millis(100)).await;
            found
        });
        let names: Vec<_> = found.iter().map(|found| found.topic_partition.to_string()).collect();
        assert_eq!(names, ["orders-0", "orders-1"]);
        assert_eq!(found[0].topic_id, Some(id));
        assert_eq!(found[1].topic_id, None);
        assert_eq!(
            directory::list_now(root.path()).unwrap(),
            ["lost+found", "notes-3", "orders-0", "orders-1"]
        );
    }
}
