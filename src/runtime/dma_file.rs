//! Files written past the page cache (O_DIRECT, on the blocking pool).
//!
//! Positions, lengths and buffers are multiples of [`DMA_ALIGNMENT_BYTES`]. Several writes may be under way at once,
//! but never two to the same block. A write under way goes on to its end even if nobody waits for it any more; it keeps
//! its buffer alive.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;

use super::executor::blocking;
use super::fault::{self, Operation};

/// What direct I/O is aligned to here: the block size of common devices and file systems.
pub const DMA_ALIGNMENT_BYTES: usize = 4096;

/// Memory that is aligned for direct I/O.
pub struct DmaBuffer {
    memory: NonNull<u8>,
    length: usize,
}

// SAFETY: the buffer owns its memory alone, as a `Box<[u8]>` would, and that is bound to no thread.
unsafe impl Send for DmaBuffer {}
// SAFETY: a shared buffer can only be read.
unsafe impl Sync for DmaBuffer {}

impl DmaBuffer {
    /// A buffer of `length` bytes, zeroed.
    pub fn zeroed(length: usize) -> Self {
        if length == 0 {
            return DmaBuffer { memory: NonNull::dangling(), length };
        }
        let layout = Self::layout(length);
        // SAFETY: the layout has a size other than zero.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(memory) = NonNull::new(memory) else { handle_alloc_error(layout) };
        DmaBuffer { memory, length }
    }

    fn layout(length: usize) -> Layout {
        Layout::from_size_align(length, DMA_ALIGNMENT_BYTES)
            .expect("a buffer is smaller than the address space")
    }

    /// Its bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the memory is `length` initialised bytes that live as long as `self` and change only through `&mut`.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.length) }
    }

    /// Its bytes, to be filled.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `&mut self` makes this the only access.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.length) }
    }

    /// Makes it shareable, so that a write that failed can be tried again.
    pub fn share(self) -> SharedDmaBuffer {
        SharedDmaBuffer(Arc::new(self))
    }
}

impl Drop for DmaBuffer {
    fn drop(&mut self) {
        if self.length > 0 {
            // SAFETY: `zeroed` allocated the memory with this layout, and nobody else frees it.
            unsafe { dealloc(self.memory.as_ptr(), Self::layout(self.length)) };
        }
    }
}

impl AsRef<[u8]> for DmaBuffer {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

/// A filled buffer that several writes may use one after another.
#[derive(Clone)]
pub struct SharedDmaBuffer(Arc<DmaBuffer>);

impl SharedDmaBuffer {
    /// Its bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// The buffer for filling anew, if nobody else holds it.
    pub fn reclaim(self) -> Option<DmaBuffer> {
        Arc::try_unwrap(self.0).ok()
    }
}

/// A file open for direct writes.
pub struct DmaFile {
    file: Arc<fs::File>,
    path: PathBuf,
}

impl DmaFile {
    /// Opens for writing; makes the file if it is missing.
    ///
    /// # Errors
    /// The kernel's; `EINVAL` where the file system has no direct I/O.
    pub async fn open(path: &Path) -> io::Result<DmaFile> {
        fault::check(Operation::Open, path)?;
        let path = path.to_owned();
        blocking(move || {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).custom_flags(libc::O_DIRECT);
            Ok(DmaFile { file: Arc::new(options.open(&path)?), path })
        })
        .await
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A buffer of `length` bytes, zeroed.
    pub fn buffer(&self, length: usize) -> DmaBuffer {
        DmaBuffer::zeroed(length)
    }

    /// Writes the whole buffer at `position`.
    ///
    /// # Errors
    /// The kernel's; part of the buffer may have been written.
    pub async fn write_at(&self, buffer: DmaBuffer, position: u64) -> io::Result<()> {
        self.write_shared_at(&buffer.share(), position).await
    }

    /// As [`DmaFile::write_at`], with a buffer that the caller keeps.
    ///
    /// # Errors
    /// The kernel's; part of the buffer may have been written.
    pub async fn write_shared_at(&self, buffer: &SharedDmaBuffer, position: u64) -> io::Result<()> {
        let length = buffer.as_slice().len();
        assert!(
            length.is_multiple_of(DMA_ALIGNMENT_BYTES) && position.is_multiple_of(DMA_ALIGNMENT_BYTES as u64)
        );
        let allowed = fault::check_write(&self.path, &self.file, position, length)?;
        if allowed < length {
            return self.write_torn(buffer.as_slice(), position, allowed).await;
        }
        let (file, buffer) = (self.file.clone(), buffer.clone());
        blocking(move || file.write_all_at(buffer.as_slice(), position)).await
    }

    /// Writes the whole blocks among the first `allowed` bytes and fails, as a fault plan wants it.
    async fn write_torn(&self, bytes: &[u8], position: u64, allowed: usize) -> io::Result<()> {
        let kept = allowed / DMA_ALIGNMENT_BYTES * DMA_ALIGNMENT_BYTES;
        if kept > 0 {
            let mut torn = self.buffer(kept);
            torn.as_mut_slice().copy_from_slice(&bytes[..kept]);
            let file = self.file.clone();
            blocking(move || file.write_all_at(torn.as_slice(), position)).await?;
        }
        Err(io::Error::from_raw_os_error(libc::EIO))
    }

    /// Reads up to `length` bytes at `position` past the page cache; neither need be aligned.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn read_at(&self, position: u64, length: usize) -> io::Result<bytes::Bytes> {
        fault::check(Operation::Read, &self.path)?;
        let file = self.file.clone();
        blocking(move || {
            let block = DMA_ALIGNMENT_BYTES as u64;
            let start = position / block * block;
            let skipped = usize::try_from(position - start).unwrap_or(0);
            let mut buffer = DmaBuffer::zeroed((skipped + length).next_multiple_of(DMA_ALIGNMENT_BYTES));
            let filled = fill_now(&file, start, buffer.as_mut_slice())?;
            let end = filled.clamp(skipped, skipped + length);
            Ok(bytes::Bytes::from_owner(buffer).slice(skipped..end))
        })
        .await
    }

    /// Makes all completed writes durable.
    ///
    /// # Errors
    /// The kernel's. After one nobody can know what is on the disk: the caller must not trust the file again.
    pub async fn sync_data(&self) -> io::Result<()> {
        fault::check(Operation::Sync, &self.path)?;
        let file = self.file.clone();
        blocking(move || file.sync_data()).await?;
        fault::synced(&self.path);
        Ok(())
    }

    /// Reserves room up to `length` bytes, extending the file.
    ///
    /// # Errors
    /// The kernel's, such as a full disk.
    pub async fn allocate(&self, length: u64) -> io::Result<()> {
        fault::check(Operation::Truncate, &self.path)?;
        let file = self.file.clone();
        blocking(move || {
            rustix::fs::fallocate(&*file, rustix::fs::FallocateFlags::empty(), 0, length)
                .map_err(io::Error::from)
        })
        .await
    }

    /// Cuts the file to `length` bytes.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn truncate(&self, length: u64) -> io::Result<()> {
        fault::check(Operation::Truncate, &self.path)?;
        let file = self.file.clone();
        blocking(move || file.set_len(length)).await
    }

    /// Closes the file; all writes must have been awaited.
    ///
    /// # Errors
    /// None today; a file system that reports errors late reports them at the sync.
    pub async fn close(self) -> io::Result<()> {
        blocking(move || drop(self)).await;
        Ok(())
    }
}

/// Fills `buffer` with the file's bytes from `position` on, past the page cache, and returns how many there were: fewer
/// only at the end of the file. `position` and the buffer are aligned. Blocks, so call it on the blocking pool.
///
/// # Errors
/// The kernel's; `InvalidInput` where the file system has no direct I/O.
pub fn read_direct_now(path: &Path, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
    fault::check(Operation::Read, path)?;
    let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path)?;
    fill_now(&file, position, buffer)
}

fn fill_now(file: &fs::File, position: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    // Only a read that ends with the file fills part of a block.
    while filled < buffer.len() && filled.is_multiple_of(DMA_ALIGNMENT_BYTES) {
        match file.read_at(&mut buffer[filled..], position + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::{DMA_ALIGNMENT_BYTES, DmaFile};
    use crate::runtime::block_on;

    #[test]
    fn blocks_written_directly_are_read_back() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap(); // a temporary directory may be a tmpfs
        block_on(async {
            let path = dir.path().join("f");
            let file = DmaFile::open(&path).await.unwrap();
            for block in 0..3u8 {
                let mut buffer = file.buffer(DMA_ALIGNMENT_BYTES);
                buffer.as_mut_slice().fill(block);
                file.write_at(buffer, u64::from(block) * DMA_ALIGNMENT_BYTES as u64).await.unwrap();
            }
            file.sync_data().await.unwrap();
            assert_eq!(file.read_at(4095, 2).await.unwrap(), [0u8, 1][..]);
            file.truncate(10_000).await.unwrap();
            file.close().await.unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().len(), 10_000);
        });
    }
}
