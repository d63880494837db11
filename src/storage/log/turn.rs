//! Taking turns within a shard: an asynchronous lock without a queue.

use std::cell::Cell;

use crate::runtime::local::Event;

/// Held by one task at a time. Whoever waits tries again when it is free; nobody starves, because holders are short.
#[derive(Default)]
pub(super) struct Turn {
    taken: Cell<bool>,
    free: Event,
}

/// Gives the turn back when dropped.
pub(super) struct Taken<'t>(&'t Turn);

impl Turn {
    /// Waits for the turn; does not suspend when it is free.
    pub(super) async fn take(&self) -> Taken<'_> {
        while self.taken.get() {
            self.free.wait().await;
        }
        self.taken.set(true);
        Taken(self)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.taken.set(false);
        self.0.free.notify();
    }
}
