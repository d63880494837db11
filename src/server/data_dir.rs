//! The data directory before the shards: lock and identity.
//!
//! Runs on `main`'s thread, where waiting for the disk holds nobody.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::ServerError;
use crate::base::random;
use crate::runtime::directory::{self, DirectoryLock};

/// Kafka's file with the identity of a node and its cluster.
const IDENTITY_FILE: &str = "meta.properties";
/// The base64 alphabet for URLs (RFC 4648, section 5), in which Kafka writes its ids.
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The data directory, locked for as long as this lives.
pub(super) struct DataDir {
    path: PathBuf,
    cluster_id: String,
    _lock: DirectoryLock,
}

impl DataDir {
    /// Makes the directory if it is missing, locks it and reads or makes its identity.
    pub(super) fn open(path: &Path) -> Result<Self, ServerError> {
        let given = path.to_owned();
        fs::create_dir_all(path)
            .map_err(|source| ServerError::CreateDataDir { path: given.clone(), source })?;
        let path = path.canonicalize().map_err(|source| ServerError::ReadDataDir { path: given, source })?;
        let lock = DirectoryLock::take(&path).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => ServerError::DataDirLocked { path: path.clone() },
            _ => ServerError::DataDirNotWritable { path: path.clone(), source },
        })?;
        let cluster_id = read_or_make_identity(&path)
            .map_err(|source| ServerError::DataDirNotWritable { path: path.clone(), source })?;
        Ok(DataDir { path, cluster_id, _lock: lock })
    }

    /// The absolute path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The id of the cluster that this directory belongs to.
    pub(super) fn cluster_id(&self) -> &str {
        &self.cluster_id
    }
}

/// The cluster's id out of `meta.properties`, which is written if it is missing.
fn read_or_make_identity(dir: &Path) -> io::Result<String> {
    let path = dir.join(IDENTITY_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let id = text.lines().find_map(|line| line.strip_prefix("cluster.id="));
            if let Some(id) = id {
                return Ok(id.trim().to_owned());
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let cluster_id = base64_of(random::uuid().as_bytes());
    let directory_id = base64_of(random::uuid().as_bytes());
    let text = format!("version=1\nnode.id=0\ncluster.id={cluster_id}\ndirectory.id={directory_id}\n");
    directory::replace_small_now(&path, text.as_bytes(), true)?;
    Ok(cluster_id)
}

/// 16 bytes as 22 characters, without padding.
fn base64_of(bytes: &[u8; 16]) -> String {
    let mut text = String::with_capacity(22);
    for group in bytes.chunks(3) {
        let number = group.iter().fold(0u32, |number, byte| (number << 8) | u32::from(*byte))
            << (8 * (3 - group.len()));
        for place in 0..=group.len() {
            text.push(char::from(BASE64[(number >> (18 - 6 * place)) as usize & 63]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{DataDir, base64_of};
    use crate::server::ServerError;

    #[test]
    fn ids_have_kafkas_form() {
        assert_eq!(base64_of(&[0; 16]), "A".repeat(22));
        assert_eq!(base64_of(&[0xff; 16]), "_____________________w");
    }

    #[test]
    fn a_directory_keeps_its_identity_and_admits_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path()).unwrap();
        let id = first.cluster_id().to_owned();
        assert!(matches!(DataDir::open(dir.path()), Err(ServerError::DataDirLocked { .. })));
        drop(first);
        assert_eq!(DataDir::open(dir.path()).unwrap().cluster_id(), id);
    }
}
