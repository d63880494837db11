//! Files written past the page cache (O_DIRECT through io_uring).
//!
//! Positions, lengths and buffers are multiples of [`DMA_ALIGNMENT_BYTES`]. Several writes may be under way at once,
//! but never two to the same block; a write under way is never cancelled, so await it.

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use glommio::io::OpenOptions;

use super::fault::{self, Operation};

/// What direct I/O is aligned to here: the block size of common devices and file systems.
pub const DMA_ALIGNMENT_BYTES: usize = 4096;

/// Memory that is aligned for direct I/O.
pub struct DmaBuffer(glommio::io::DmaBuffer);

impl DmaBuffer {
    /// Its bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Its bytes, to be filled.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.0.as_bytes_mut()
    }
}

impl DmaBuffer {
    /// Makes it shareable, so that a write that failed can be tried again.
    pub fn share(self) -> SharedDmaBuffer {
        SharedDmaBuffer(Rc::new(self.0))
    }
}

/// A filled buffer that several writes may use one after another.
#[derive(Clone)]
pub struct SharedDmaBuffer(Rc<glommio::io::DmaBuffer>);

impl SharedDmaBuffer {
    /// Its bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The buffer for filling anew, if nobody else holds it.
    pub fn reclaim(self) -> Option<DmaBuffer> {
        Rc::try_unwrap(self.0).ok().map(DmaBuffer)
    }
}

/// A file open for direct writes.
pub struct DmaFile {
    file: Rc<glommio::io::DmaFile>,
    /// A plain handle of the same file, which only a fault plan looks at.
    plain: std::fs::File,
    path: PathBuf,
}

impl DmaFile {
    /// Opens for writing; makes the file if it is missing.
    ///
    /// # Errors
    /// The kernel's; `EINVAL` where the file system has no direct I/O.
    pub async fn open(path: &Path) -> io::Result<DmaFile> {
        fault::check(Operation::Open, path)?;
        let file = OpenOptions::new().read(true).write(true).create(true).dma_open(path).await?;
        let shown = path.to_owned();
        let plain = super::blocking(move || std::fs::File::open(shown)).await?;
        Ok(DmaFile { file: Rc::new(file), plain, path: path.to_owned() })
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A buffer of `length` bytes, zeroed.
    pub fn buffer(&self, length: usize) -> DmaBuffer {
        let mut buffer = self.file.alloc_dma_buffer(length);
        buffer.as_bytes_mut().fill(0);
        DmaBuffer(buffer)
    }

    /// Writes the whole buffer at `position`.
    ///
    /// # Errors
    /// The kernel's; part of the buffer may have been written.
    pub async fn write_at(&self, buffer: DmaBuffer, position: u64) -> io::Result<()> {
        let length = buffer.0.len();
        assert!(
            length.is_multiple_of(DMA_ALIGNMENT_BYTES) && position.is_multiple_of(DMA_ALIGNMENT_BYTES as u64)
        );
        let allowed = fault::check_write(&self.path, &self.plain, position, length)?;
        if allowed < length {
            return self.write_torn(buffer.as_slice(), position, allowed).await;
        }
        let written = self.file.write_at(buffer.0, position).await?;
        if written < length { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) }
    }

    /// As [`DmaFile::write_at`], with a buffer that the caller keeps.
    ///
    /// # Errors
    /// The kernel's; part of the buffer may have been written.
    pub async fn write_shared_at(&self, buffer: &SharedDmaBuffer, position: u64) -> io::Result<()> {
        let length = buffer.0.len();
        assert!(
            length.is_multiple_of(DMA_ALIGNMENT_BYTES) && position.is_multiple_of(DMA_ALIGNMENT_BYTES as u64)
        );
        let allowed = fault::check_write(&self.path, &self.plain, position, length)?;
        if allowed < length {
            return self.write_torn(buffer.as_slice(), position, allowed).await;
        }
        let written = self.file.write_rc_at(buffer.0.clone(), position).await?;
        if written < length { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) }
    }

    /// Writes the whole blocks among the first `allowed` bytes and fails, as a fault plan wants it.
    async fn write_torn(&self, bytes: &[u8], position: u64, allowed: usize) -> io::Result<()> {
        let kept = allowed / DMA_ALIGNMENT_BYTES * DMA_ALIGNMENT_BYTES;
        if kept > 0 {
            let mut torn = self.buffer(kept);
            torn.as_mut_slice().copy_from_slice(&bytes[..kept]);
            self.file.write_at(torn.0, position).await?;
        }
        Err(io::Error::from_raw_os_error(libc::EIO))
    }

    /// Reads up to `length` bytes at `position` past the page cache; neither need be aligned.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn read_at(&self, position: u64, length: usize) -> io::Result<bytes::Bytes> {
        fault::check(Operation::Read, &self.path)?;
        let read = self.file.read_at(position, length).await?;
        Ok(bytes::Bytes::copy_from_slice(&read))
    }

    /// Makes all completed writes durable.
    ///
    /// # Errors
    /// The kernel's. After one nobody can know what is on the disk: the caller must not trust the file again.
    pub async fn sync_data(&self) -> io::Result<()> {
        fault::check(Operation::Sync, &self.path)?;
        self.file.fdatasync().await?;
        fault::synced(&self.path);
        Ok(())
    }

    /// Reserves room up to `length` bytes, extending the file.
    ///
    /// # Errors
    /// The kernel's, such as a full disk.
    pub async fn allocate(&self, length: u64) -> io::Result<()> {
        fault::check(Operation::Truncate, &self.path)?;
        Ok(self.file.pre_allocate(length, false).await?)
    }

    /// Cuts the file to `length` bytes.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn truncate(&self, length: u64) -> io::Result<()> {
        fault::check(Operation::Truncate, &self.path)?;
        Ok(self.file.truncate(length).await?)
    }

    /// Closes the file; all writes must have been awaited.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn close(self) -> io::Result<()> {
        self.file.close_rc().await?;
        Ok(())
    }
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
