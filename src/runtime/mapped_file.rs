//! Mapped files: sealed segments in memory without a copy.
//!
//! A mapping is handed out as [`Bytes`], so every slice of it keeps it alive. The last slice to go hands the mapping to
//! a thread of its own for unmapping, because unmapping a large resident file takes milliseconds. Mapped bytes never change
//! and are never cut off (sealed segments are only ever unlinked, active ones only grow, and what they give back lies
//! behind their data), which is what makes the mapping safe.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::OnceLock;

use bytes::Bytes;
use memmap2::{Mmap, MmapOptions};

use super::fault::{self, Operation};

struct MappedFile(Option<Mmap>);

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        if let Some(map) = self.0.take()
            && let Err(unsent) = unmapper().send(map)
        {
            drop(unsent); // the thread could not be started: unmap here
        }
    }
}

fn unmapper() -> &'static flume::Sender<Mmap> {
    static UNMAPPER: OnceLock<flume::Sender<Mmap>> = OnceLock::new();
    UNMAPPER.get_or_init(|| {
        // Unbounded on purpose: each entry is a mapping that exists anyway, and waiting here would hold a shard.
        let (sender, receiver) = flume::unbounded::<Mmap>();
        let thread = std::thread::Builder::new().name("unmapper".to_owned());
        // Without the thread the receiver is dropped and every send fails, which the caller handles.
        let _ = thread.spawn(move || receiver.iter().for_each(drop));
        sender
    })
}

/// Maps the whole file for reading. Blocks, so call it on the blocking pool.
///
/// # Errors
/// The kernel's. An empty file gives empty bytes.
pub fn map_now(path: &Path) -> io::Result<Bytes> {
    fault::check(Operation::Open, path)?;
    let file = File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the module's promise: nobody shortens or rewrites a file that is mapped.
    let map = unsafe { Mmap::map(&file) }?;
    Ok(Bytes::from_owner(MappedFile(Some(map))))
}

/// Maps the first `length` bytes of a file that grows: pages behind its end exist once it has grown over them. Takes no
/// look at the file, so it does not block.
///
/// # Errors
/// The kernel's.
pub(super) fn map_ahead(file: &File, length: usize) -> io::Result<Bytes> {
    // SAFETY: the caller's promise in `runtime::file::File::map`: bytes that are written never change, the file is never
    // cut below them, and nothing behind them is touched.
    let map = unsafe { MmapOptions::new().len(length).map(file) }?;
    Ok(Bytes::from_owner(MappedFile(Some(map))))
}

/// Tells the kernel that this mapping will be read front to back (the ancestor's `set_sequential_hint`).
pub fn set_sequential_hint(mapped: &Bytes) {
    advise(mapped, libc::MADV_SEQUENTIAL);
}

/// Whether every page of `view`, a slice of a mapping, is in memory, so that reading it cannot fault.
pub fn is_resident(view: &[u8]) -> bool {
    if view.is_empty() {
        return true;
    }
    let page = page_bytes();
    let start = view.as_ptr() as usize / page * page;
    let length = view.as_ptr() as usize + view.len() - start;
    let mut pages = vec![0u8; length.div_ceil(page)];
    // SAFETY: the range covers whole pages of one live mapping, and `pages` has an entry for each of them.
    let asked = unsafe { libc::mincore(start as *mut libc::c_void, length, pages.as_mut_ptr()) };
    asked == 0 && pages.iter().all(|page| page & 1 == 1)
}

/// Brings every page of `view` into memory. Blocks, so call it on the blocking pool.
pub fn prefault_now(view: &[u8]) {
    advise(view, libc::MADV_POPULATE_READ);
}

/// Asks the kernel to read `view` in soon, without waiting for it.
pub fn read_ahead(view: &[u8]) {
    advise(view, libc::MADV_WILLNEED);
}

fn advise(view: &[u8], advice: libc::c_int) {
    if view.is_empty() {
        return;
    }
    let page = page_bytes();
    let start = view.as_ptr() as usize / page * page;
    let length = view.as_ptr() as usize + view.len() - start;
    // SAFETY: the range covers whole pages of one live mapping, and both advices leave its contents alone.
    unsafe { libc::madvise(start as *mut libc::c_void, length, advice) };
}

fn page_bytes() -> usize {
    static PAGE: OnceLock<usize> = OnceLock::new();
    *PAGE.get_or_init(rustix::param::page_size)
}

#[cfg(test)]
mod tests {
    use super::{is_resident, map_now, prefault_now};

    #[test]
    fn a_view_outlives_its_file_and_can_be_made_resident() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let bytes: Vec<u8> = (0..100_000u32).map(|number| number as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let view = map_now(&path).unwrap().slice(5_000..90_000);
        std::fs::remove_file(&path).unwrap();
        prefault_now(&view);
        assert!(is_resident(&view));
        assert_eq!(view, bytes[5_000..90_000]);
    }
}
