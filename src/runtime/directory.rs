//! Names on disk: directories, renames, unlinks, small files written whole, and the data directory's lock.
//!
//! Everything that may wait for the device runs on the blocking pool.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::executor::blocking;
use super::fault::{self, Operation};

/// Makes a directory and its missing parents.
///
/// # Errors
/// The kernel's.
pub async fn create(path: &Path) -> io::Result<()> {
    fault::check(Operation::Directory, path)?;
    let path = path.to_owned();
    blocking(move || fs::create_dir_all(path)).await
}

/// Renames a file or directory within one file system; atomic for all who look.
///
/// # Errors
/// The kernel's.
pub async fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fault::check(Operation::Directory, from)?;
    let (from, to) = (from.to_owned(), to.to_owned());
    blocking(move || fs::rename(from, to)).await
}

/// Unlinks a file; one that is missing already is no error.
///
/// # Errors
/// The kernel's.
pub async fn unlink(path: &Path) -> io::Result<()> {
    fault::check(Operation::Directory, path)?;
    let path = path.to_owned();
    blocking(move || ignore_missing(fs::remove_file(path))).await
}

/// Removes a directory with all that is in it; one that is missing already is no error.
///
/// # Errors
/// The kernel's.
pub async fn remove_all(path: &Path) -> io::Result<()> {
    fault::check(Operation::Directory, path)?;
    let path = path.to_owned();
    blocking(move || ignore_missing(fs::remove_dir_all(path))).await
}

/// The names in a directory, sorted.
///
/// # Errors
/// The kernel's.
pub async fn list(path: &Path) -> io::Result<Vec<String>> {
    let path = path.to_owned();
    blocking(move || list_now(&path)).await
}

/// The names in a directory, sorted; for the blocking pool, start-up and tools only.
///
/// # Errors
/// The kernel's.
pub fn list_now(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Makes the names in a directory durable.
///
/// # Errors
/// The kernel's.
pub async fn sync(path: &Path) -> io::Result<()> {
    fault::check(Operation::Sync, path)?;
    let path = path.to_owned();
    blocking(move || File::open(path)?.sync_all()).await
}

/// The file system that a directory lies on, held open: what goes wrong in writing back, the kernel reports at the next
/// sync through a descriptor that was open by then.
pub struct FileSystem {
    directory: Arc<File>,
    path: PathBuf,
}

impl FileSystem {
    /// Opens on the calling thread: for start-up only.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open_now(path: &Path) -> io::Result<FileSystem> {
        Ok(FileSystem { directory: Arc::new(File::open(path)?), path: path.to_owned() })
    }

    /// Makes everything durable that is written to it, whatever file it is in.
    ///
    /// # Errors
    /// The kernel's, for anything written since the last sync.
    pub async fn sync(&self) -> io::Result<()> {
        fault::check(Operation::Sync, &self.path)?;
        let directory = self.directory.clone();
        blocking(move || Ok(rustix::fs::syncfs(&*directory)?)).await
    }
}

/// Reads a small file whole; `None` if there is none.
///
/// # Errors
/// The kernel's.
pub async fn read_small(path: &Path) -> io::Result<Option<Vec<u8>>> {
    fault::check(Operation::Read, path)?;
    let path = path.to_owned();
    blocking(move || match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    })
    .await
}

/// Replaces a small file: after a crash it holds either the old bytes or the new ones. Durable when `durable`.
///
/// # Errors
/// The kernel's.
pub async fn replace_small(path: &Path, bytes: Vec<u8>, durable: bool) -> io::Result<()> {
    fault::check(Operation::Write, path)?;
    let path = path.to_owned();
    blocking(move || replace_small_now(&path, &bytes, durable)).await
}

/// As [`replace_small`]; for the blocking pool and start-up only.
///
/// # Errors
/// The kernel's.
pub fn replace_small_now(path: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp"); // Kafka ignores and removes such files too
    let temporary = PathBuf::from(temporary);
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    if durable {
        file.sync_all()?;
    }
    drop(file);
    fs::rename(&temporary, path)?;
    if durable && let Some(parent) = path.parent() {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

fn ignore_missing(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// An exclusive lock on a directory, held until dropped (Kafka's `.lock` file, so that Kafka and we exclude each other).
#[derive(Debug)]
pub struct DirectoryLock(#[allow(dead_code)] File); // the descriptor is the lock

impl DirectoryLock {
    /// Takes the lock.
    ///
    /// # Errors
    /// `WouldBlock` when another process holds it; otherwise the kernel's.
    pub fn take(directory: &Path) -> io::Result<DirectoryLock> {
        let file = File::options().create(true).truncate(false).write(true).open(directory.join(".lock"))?;
        // Kafka's Java FileLock is a POSIX record lock; flock would not see it. Both are taken, so that neither a Kafka
        // nor a second LogStreams (even one in another container on the same file system) gets in.
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(
            |error| {
                if error == rustix::io::Errno::ACCESS { rustix::io::Errno::AGAIN } else { error }
            },
        )?;
        Ok(DirectoryLock(file))
    }
}

#[cfg(test)]
mod tests {
    use super::{DirectoryLock, list_now, replace_small_now};

    #[test]
    fn a_locked_directory_cannot_be_locked_again() {
        let dir = tempfile::tempdir().unwrap();
        let held = DirectoryLock::take(dir.path()).unwrap();
        let second = DirectoryLock::take(dir.path()).unwrap_err();
        assert_eq!(second.kind(), std::io::ErrorKind::WouldBlock);
        drop(held);
        DirectoryLock::take(dir.path()).unwrap();
    }

    #[test]
    fn a_replaced_file_leaves_no_temporary_one() {
        let dir = tempfile::tempdir().unwrap();
        replace_small_now(&dir.path().join("a"), b"1", true).unwrap();
        replace_small_now(&dir.path().join("a"), b"2", false).unwrap();
        assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"2");
        assert_eq!(list_now(dir.path()).unwrap(), ["a"]);
    }
}
