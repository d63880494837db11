//! Unlinks files that were given up, later and one by one.
//!
//! Retention and topic deletion only rename (so that readers in the middle of a file keep it, and a mistake can be
//! undone for a while); the unlinking happens here, after the delay, on the blocking pool, one file per step with a
//! pause between steps, so that removing terabytes never stalls anybody. Files that are still waiting when the process
//! ends are removed at the next start (`recovery`, `data_dir`).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::base::clock;
use crate::runtime::{self, directory};

/// Between two unlinks.
const STEP_PAUSE: Duration = Duration::from_millis(2);

/// The files of one shard that wait to be unlinked. A task runs only while there are any.
#[derive(Default)]
pub struct FileRemover {
    waiting: RefCell<VecDeque<Waiting>>,
    running: Cell<bool>,
}

struct Waiting {
    due: Instant,
    path: PathBuf,
    is_directory: bool,
}

impl FileRemover {
    pub(super) fn new() -> Rc<Self> {
        Rc::default()
    }

    /// Count of files and directories that wait.
    pub fn waiting_count(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// Unlinks these files after `delay`.
    pub(super) fn remove_files(self: &Rc<Self>, paths: impl IntoIterator<Item = PathBuf>, delay: Duration) {
        let due = clock::monotonic() + delay;
        let waiting = paths.into_iter().map(|path| Waiting { due, path, is_directory: false });
        self.waiting.borrow_mut().extend(waiting);
        self.start();
    }

    /// Unlinks all files of this directory and then the directory, after `delay`.
    pub(super) fn remove_directory(self: &Rc<Self>, path: PathBuf, delay: Duration) {
        let due = clock::monotonic() + delay;
        self.waiting.borrow_mut().push_back(Waiting { due, path, is_directory: true });
        self.start();
    }

    fn start(self: &Rc<Self>) {
        if !self.running.replace(true) {
            let remover = self.clone();
            runtime::spawn_detached(async move {
                while remover.step().await {}
                remover.running.set(false);
            });
        }
    }

    /// Removes what is due first; whether more waits.
    async fn step(&self) -> bool {
        let Some(next) = self.take_next() else { return false };
        runtime::sleep(next.due.saturating_duration_since(clock::monotonic())).await;
        let removed = if next.is_directory {
            self.remove_directory_in_steps(&next.path).await
        } else {
            directory::unlink(&next.path).await
        };
        if let Err(error) = removed {
            tracing::warn!(path = %next.path.display(), %error, "cannot remove a file; the next start tries again");
        }
        runtime::sleep(STEP_PAUSE).await;
        true
    }

    fn take_next(&self) -> Option<Waiting> {
        let mut waiting = self.waiting.borrow_mut();
        let (slot, _) = waiting.iter().enumerate().min_by_key(|(_, entry)| entry.due)?;
        waiting.remove(slot)
    }

    async fn remove_directory_in_steps(&self, path: &std::path::Path) -> std::io::Result<()> {
        for name in directory::list(path).await? {
            directory::unlink(&path.join(name)).await?;
            runtime::sleep(STEP_PAUSE).await;
        }
        directory::remove_all(path).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::block_on;

    #[test]
    fn files_and_directories_go_after_their_delay_in_the_order_they_are_due() {
        let dir = tempfile::tempdir().unwrap();
        let (late, early, tree) =
            (dir.path().join("late"), dir.path().join("early"), dir.path().join("tree"));
        for file in [&late, &early] {
            std::fs::write(file, b"x").unwrap();
        }
        std::fs::create_dir(&tree).unwrap();
        std::fs::write(tree.join("f"), b"x").unwrap();
        block_on(async {
            let remover = FileRemover::new();
            remover.remove_files([early.clone()], Duration::from_millis(50));
            remover.remove_directory(tree.clone(), Duration::ZERO);
            remover.remove_files([late.clone()], Duration::from_secs(3_600));
            assert!(early.exists());
            runtime::sleep(Duration::from_millis(400)).await;
        });
        assert!(late.exists() && !early.exists() && !tree.exists());
    }
}
