//! Files through the page cache.
//!
//! `write_at` runs on the shard's thread: a positioned write into the page cache is the one blocking call allowed there
//! (DESIGN section 3 has the measurements). Everything that may wait for the device (open, sync, cold reads, truncate)
//! goes to the blocking pool. A handle is cheap to clone; the descriptor closes with the last one.

use std::fs::OpenOptions;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::executor::blocking;
use super::fault::{self, Operation};
use super::{mapped_file, process};

/// Starting write-back keeps a processor busy, and the kernel gives it to nobody else within one call: so much at a time.
const WRITE_BACK_PIECE_BYTES: i64 = 256 * 1024;
/// The same for write-back that has time: pieces, and a rest behind each, so short and so seldom that a request which meets
/// one hardly waits.
const PACED_PIECE_BYTES: i64 = 128 * 1024;
const PACED_REST: Duration = Duration::from_millis(2);
/// Whether a thread of a blocking pool is resting between pieces: one at a time, as the pools are there for others, too.
static IS_PACING: AtomicBool = AtomicBool::new(false);

/// How fast write-back is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// At once.
    Busy,
    /// Spread over 16 ms for each MiB, unless another file's is.
    Leisurely,
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// It must exist; reads only.
    Read,
    /// It must exist; reads and writes.
    ReadWrite,
    /// Made if missing; reads and writes.
    Create,
    /// Must not exist; reads and writes.
    CreateNew,
}

/// An open file.
#[derive(Clone, Debug)]
pub struct File {
    inner: Arc<std::fs::File>,
    path: Arc<PathBuf>,
}

impl File {
    /// Opens on the blocking pool.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn open(path: &Path, mode: OpenMode) -> io::Result<File> {
        fault::check(Operation::Open, path)?;
        let path = path.to_owned();
        blocking(move || File::open_now(&path, mode)).await
    }

    /// Opens on the calling thread: for the blocking pool, start-up and tools only.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open_now(path: &Path, mode: OpenMode) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_CLOEXEC);
        match mode {
            OpenMode::Read => &mut options,
            OpenMode::ReadWrite => options.write(true),
            OpenMode::Create => options.write(true).create(true).truncate(false),
            OpenMode::CreateNew => options.write(true).create_new(true),
        };
        let inner = Arc::new(options.open(path)?);
        Ok(File { inner, path: Arc::new(path.to_owned()) })
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes.
    ///
    /// # Errors
    /// The kernel's.
    pub fn len(&self) -> io::Result<u64> {
        Ok(self.inner.metadata()?.len())
    }

    /// Whether it has no bytes.
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Writes all of `bytes` at `position` into the page cache, on this thread.
    ///
    /// # Errors
    /// The kernel's; bytes before the failure may have been written.
    pub fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let allowed = fault::check_write(&self.path, &self.inner, position, bytes.len())?;
        self.inner.write_all_at(&bytes[..allowed], position)?;
        if allowed < bytes.len() { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
    }

    /// Writes all of `chunks` one after another from `position` on, on this thread.
    ///
    /// # Errors
    /// As [`File::write_at`].
    pub fn write_chunks_at(&self, chunks: &[Bytes], position: u64) -> io::Result<()> {
        if let [chunk] = chunks {
            return self.write_at(chunk, position);
        }
        let total: usize = chunks.iter().map(Bytes::len).sum();
        let mut allowed = fault::check_write(&self.path, &self.inner, position, total)?;
        let torn = allowed < total;
        let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let taken = chunk.len().min(allowed);
            allowed -= taken;
            slices.push(IoSlice::new(&chunk[..taken]));
        }
        self.write_slices_at(&mut slices, position)?;
        if torn { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
    }

    /// Writes all of `bytes` at `position` on the blocking pool: for large writes that nobody waits for.
    ///
    /// # Errors
    /// As [`File::write_at`].
    pub async fn write_at_pooled(&self, bytes: Vec<u8>, position: u64) -> io::Result<()> {
        let allowed = fault::check_write(&self.path, &self.inner, position, bytes.len())?;
        let file = self.clone();
        blocking(move || {
            file.inner.write_all_at(&bytes[..allowed], position)?;
            if allowed < bytes.len() { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
        })
        .await
    }

    fn write_slices_at(&self, slices: &mut [IoSlice<'_>], mut position: u64) -> io::Result<()> {
        /// The kernel's limit of buffers in a call.
        const SLICES_MAX: usize = 1024;
        let mut rest = slices;
        loop {
            IoSlice::advance_slices(&mut rest, 0); // drops empty ones
            if rest.is_empty() {
                return Ok(());
            }
            let count = rest.len().min(SLICES_MAX);
            match rustix::io::pwritev(&*self.inner, &rest[..count], position) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    position += written as u64;
                    IoSlice::advance_slices(&mut rest, written);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads up to `length` bytes at `position`, fewer only at the end of the file. Bytes that lie in the page cache are
    /// read on this thread, others on the blocking pool.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn read_at(&self, position: u64, length: usize) -> io::Result<Bytes> {
        fault::check(Operation::Read, &self.path)?;
        let mut buffer = Vec::with_capacity(length);
        self.read_resident(&mut buffer, position);
        if buffer.len() == length {
            return Ok(buffer.into());
        }
        let file = self.clone();
        blocking(move || {
            file.read_rest(&mut buffer, position, length)?;
            Ok(buffer.into())
        })
        .await
    }

    /// Reads on the calling thread, waiting for the device: for the blocking pool, start-up and tools only.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read_at_now(&self, position: u64, length: usize) -> io::Result<Bytes> {
        let mut buffer = Vec::with_capacity(length);
        self.read_rest(&mut buffer, position, length)?;
        Ok(buffer.into())
    }

    /// Replaces what is in `buffer` by up to `length` bytes at `position`, on the calling thread: for the blocking pool,
    /// start-up and tools only.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read_into_now(&self, buffer: &mut Vec<u8>, position: u64, length: usize) -> io::Result<()> {
        buffer.clear();
        self.read_rest(buffer, position, length)
    }

    /// Reads what the page cache has, without waiting.
    fn read_resident(&self, buffer: &mut Vec<u8>, position: u64) {
        let spare = buffer.spare_capacity_mut();
        let slice = libc::iovec { iov_base: spare.as_mut_ptr().cast(), iov_len: spare.len() };
        let Ok(position) = libc::off_t::try_from(position) else { return };
        // SAFETY: `slice` describes writable memory owned by `buffer`; the kernel writes at most its length.
        let read =
            unsafe { libc::preadv2(self.inner.as_raw_fd(), &raw const slice, 1, position, libc::RWF_NOWAIT) };
        if let Ok(read) = usize::try_from(read) {
            // SAFETY: the kernel has initialised the first `read` bytes of the spare capacity of an empty vector.
            unsafe { buffer.set_len(read) };
        }
    }

    fn read_rest(&self, buffer: &mut Vec<u8>, position: u64, length: usize) -> io::Result<()> {
        while buffer.len() < length {
            let at = position + buffer.len() as u64;
            buffer.reserve(length - buffer.len());
            match rustix::io::pread(&*self.inner, rustix::buffer::spare_capacity(buffer), at) {
                Ok(0) => break,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        buffer.truncate(length);
        Ok(())
    }

    /// Maps `length` bytes from the beginning of the file, which may be more than it has: only what is written may be
    /// touched, and the file must never get shorter than what was touched.
    ///
    /// # Errors
    /// The kernel's.
    pub fn map(&self, length: usize) -> io::Result<Bytes> {
        mapped_file::map_ahead(&self.inner, length)
    }

    /// Makes all written bytes durable (fdatasync, on the blocking pool).
    ///
    /// # Errors
    /// The kernel's. After one nobody can know what is on the disk: the caller must not trust the file again.
    pub async fn sync_data(&self) -> io::Result<()> {
        fault::check(Operation::Sync, &self.path)?;
        let file = self.clone();
        blocking(move || file.inner.sync_data()).await?;
        fault::synced(&self.path);
        Ok(())
    }

    /// Makes all written bytes durable on the calling thread: for the blocking pool and start-up only.
    ///
    /// # Errors
    /// As [`File::sync_data`].
    pub fn sync_data_now(&self) -> io::Result<()> {
        self.inner.sync_data()
    }

    /// Asks the kernel to start writing this range back, so that dirty pages never pile up until it throttles us.
    pub async fn start_write_back(&self, position: u64, length: u64, pace: Pace) {
        let (Ok(start), Ok(end)) = (i64::try_from(position), i64::try_from(position + length)) else {
            return;
        };
        let file = self.clone();
        blocking(move || {
            let rests = pace == Pace::Leisurely && !IS_PACING.swap(true, Ordering::Relaxed);
            let piece_bytes = if rests { PACED_PIECE_BYTES } else { WRITE_BACK_PIECE_BYTES };
            let mut at = start;
            while at < end {
                let length = piece_bytes.min(end - at);
                // SAFETY: a plain system call on an open descriptor; it touches no memory of ours.
                unsafe {
                    libc::sync_file_range(file.inner.as_raw_fd(), at, length, libc::SYNC_FILE_RANGE_WRITE)
                };
                at += length;
                if rests {
                    process::pause(PACED_REST);
                }
            }
            if rests {
                IS_PACING.store(false, Ordering::Relaxed);
            }
        })
        .await;
    }

    /// Reserves disk space for `length` bytes from `position` on, behind the end of the file: its length stays as it is.
    /// `truncate` gives back what was not used. While the kernel does it, whoever writes to the file has to wait; `begun` is
    /// told on the blocking thread that this time begins.
    ///
    /// # Errors
    /// The kernel's: no space, or a file system that cannot reserve.
    pub async fn reserve(
        &self,
        position: u64,
        length: u64,
        begun: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let file = self.clone();
        let reserve = move || {
            begun();
            Ok(rustix::fs::fallocate(&*file.inner, rustix::fs::FallocateFlags::KEEP_SIZE, position, length)?)
        };
        blocking(reserve).await
    }

    /// Cuts or extends the file to `length` bytes.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn truncate(&self, length: u64) -> io::Result<()> {
        fault::check(Operation::Truncate, &self.path)?;
        let file = self.clone();
        blocking(move || file.inner.set_len(length)).await
    }

    /// Cuts or extends on the calling thread: for the blocking pool and start-up only.
    ///
    /// # Errors
    /// The kernel's.
    pub fn truncate_now(&self, length: u64) -> io::Result<()> {
        self.inner.set_len(length)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{File, OpenMode};
    use crate::runtime::block_on;
    use crate::runtime::fault::{self, Operation, Verdict};

    #[test]
    fn chunks_are_written_and_read_back_and_reads_stop_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        block_on(async {
            let file = File::open(&dir.path().join("f"), OpenMode::Create).await.unwrap();
            let chunks = [Bytes::from_static(b"abc"), Bytes::new(), Bytes::from_static(b"defg")];
            file.write_chunks_at(&chunks, 2).unwrap();
            assert_eq!(file.read_at(0, 100).await.unwrap(), b"\0\0abcdefg"[..]);
            assert_eq!(file.read_at(4, 2).await.unwrap(), b"cd"[..]);
            file.truncate(3).await.unwrap();
            assert_eq!(file.len().unwrap(), 3);
        });
    }

    #[test]
    fn a_power_cut_takes_back_what_was_not_synced() {
        let dir = tempfile::tempdir().unwrap();
        block_on(async {
            let plan = fault::install(|_, _, _| Verdict::Pass);
            let file = File::open(&dir.path().join("f"), OpenMode::Create).await.unwrap();
            file.write_at(b"durable", 0).unwrap();
            file.sync_data().await.unwrap();
            file.write_at(b"lost", 4).unwrap();
            plan.power_cut(|_, _| false).unwrap();
            assert_eq!(file.read_at(0, 100).await.unwrap(), b"durable"[..]);
        });
    }

    #[test]
    fn a_torn_write_leaves_its_first_bytes_and_an_error() {
        let dir = tempfile::tempdir().unwrap();
        block_on(async {
            let _plan = fault::install(|operation, _, _| match operation {
                Operation::Write => Verdict::Torn(2),
                _ => Verdict::Pass,
            });
            let file = File::open(&dir.path().join("f"), OpenMode::Create).await.unwrap();
            assert!(file.write_at(b"abcd", 0).is_err());
            assert_eq!(file.read_at(0, 100).await.unwrap(), b"ab"[..]);
        });
    }
}
