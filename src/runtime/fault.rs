//! A disk that fails on purpose, for tests.
//!
//! A test installs a [`FaultPlan`] on its thread; every file operation of the runtime then asks it first. The plan can
//! fail or shorten the n-th operation, report a full disk, and keep enough history to undo, at a simulated power cut,
//! every byte that was never synced. Without a plan the cost is one thread-local flag.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What the code under test is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Write bytes at a position.
    Write,
    /// Make written bytes durable.
    Sync,
    /// Create or open a file.
    Open,
    /// Read bytes.
    Read,
    /// Change names: rename, unlink, make or remove a directory.
    Directory,
    /// Change a file's length or reserve room in it.
    Truncate,
}

/// What happens to an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes ahead.
    Pass,
    /// It fails with this `errno`.
    Fail(i32),
    /// A write stops after so many bytes and then fails with `EIO`: a torn write.
    Torn(usize),
}

/// Decides over each operation: its kind, its path and its number since the plan was installed.
pub type Judge = Box<dyn FnMut(Operation, &Path, u64) -> Verdict>;

/// What is installed.
pub struct FaultPlan {
    judge: Judge,
    operations: u64,
    /// For each file with unsynced writes: its length when it was last synced, and the bytes overwritten since.
    unsynced: BTreeMap<PathBuf, UnsyncedFile>,
}

struct UnsyncedFile {
    synced_bytes: u64,
    overwritten: Vec<(u64, Vec<u8>)>,
}

thread_local! {
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
    static PLAN: RefCell<Option<FaultPlan>> = const { RefCell::new(None) };
}

/// Installs a plan on this thread until the guard is dropped.
pub fn install(judge: impl FnMut(Operation, &Path, u64) -> Verdict + 'static) -> FaultGuard {
    PLAN.with_borrow_mut(|plan| {
        *plan = Some(FaultPlan { judge: Box::new(judge), operations: 0, unsynced: BTreeMap::new() });
    });
    ACTIVE.set(true);
    FaultGuard(())
}

/// Keeps a plan installed.
#[must_use]
pub struct FaultGuard(());

impl FaultGuard {
    /// How many operations the plan has judged.
    pub fn operations(&self) -> u64 {
        PLAN.with_borrow(|plan| plan.as_ref().map_or(0, |plan| plan.operations))
    }

    /// Takes back every write that was not synced, as a power cut may, and forgets them.
    /// `keep` decides for each overwritten range (path, position) whether it survived after all.
    ///
    /// # Errors
    /// The real file system's.
    pub fn power_cut(&self, mut keep: impl FnMut(&Path, u64) -> bool) -> io::Result<()> {
        let unsynced =
            PLAN.with_borrow_mut(|plan| plan.as_mut().map(|plan| std::mem::take(&mut plan.unsynced)));
        for (path, file) in unsynced.into_iter().flatten() {
            let Ok(open) = OpenOptions::new().write(true).open(&path) else { continue };
            let mut length = file.synced_bytes;
            for (position, old) in file.overwritten.iter().rev() {
                if keep(&path, *position) {
                    length = length.max(position + old.len() as u64);
                } else {
                    open.write_all_at(old, *position)?;
                }
            }
            open.set_len(length.min(open.metadata()?.len()))?;
        }
        Ok(())
    }
}

impl Drop for FaultGuard {
    fn drop(&mut self) {
        ACTIVE.set(false);
        PLAN.with_borrow_mut(|plan| *plan = None);
    }
}

/// Asks the plan about an operation that is all or nothing.
pub(super) fn check(operation: Operation, path: &Path) -> io::Result<()> {
    if !ACTIVE.get() {
        return Ok(());
    }
    match judge(operation, path) {
        Verdict::Pass => Ok(()),
        Verdict::Fail(errno) => Err(io::Error::from_raw_os_error(errno)),
        Verdict::Torn(_) => Err(io::Error::from_raw_os_error(libc::EIO)),
    }
}

/// Asks the plan about a write; the answer is how many bytes may be written (then the write fails if it is fewer).
pub(super) fn check_write(path: &Path, file: &File, position: u64, bytes: usize) -> io::Result<usize> {
    if !ACTIVE.get() {
        return Ok(bytes);
    }
    let allowed = match judge(Operation::Write, path) {
        Verdict::Pass => bytes,
        Verdict::Torn(allowed) => allowed.min(bytes),
        Verdict::Fail(errno) => return Err(io::Error::from_raw_os_error(errno)),
    };
    PLAN.with_borrow_mut(|plan| {
        let Some(plan) = plan else { return Ok(()) };
        let length = file.metadata()?.len();
        let entry = plan
            .unsynced
            .entry(path.to_owned())
            .or_insert_with(|| UnsyncedFile { synced_bytes: length, overwritten: Vec::new() });
        let mut old = vec![0; allowed];
        if position < length {
            let there = usize::try_from(length - position).unwrap_or(usize::MAX).min(allowed);
            // A handle of our own: the file under test may be open for writing only, or for direct I/O.
            File::open(path)?.read_exact_at(&mut old[..there], position)?;
        }
        entry.overwritten.push((position, old));
        Ok::<_, io::Error>(())
    })?;
    Ok(allowed)
}

/// Tells the plan that a sync of `path` has succeeded.
pub(super) fn synced(path: &Path) {
    if ACTIVE.get() {
        PLAN.with_borrow_mut(|plan| plan.as_mut().map(|plan| plan.unsynced.remove(path)));
    }
}

fn judge(operation: Operation, path: &Path) -> Verdict {
    PLAN.with_borrow_mut(|plan| {
        let Some(plan) = plan else { return Verdict::Pass };
        plan.operations += 1;
        (plan.judge)(operation, path, plan.operations)
    })
}
