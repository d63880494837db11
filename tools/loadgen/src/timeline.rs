//! When a run starts, when it counts, and when it gives up. Known once everybody is connected.

use crate::stats::Window;

/// The instants of a run on the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Timeline {
    /// The first message of an open loop is meant to leave here; warm-up begins.
    pub start_ns: u64,
    /// What counts.
    pub window: Window,
    /// How long after the window's end answers are awaited.
    pub drain_ns: u64,
}

impl Timeline {
    /// When everything ends, whatever is open.
    pub fn deadline_ns(&self) -> u64 {
        self.window.end_ns.saturating_add(self.drain_ns)
    }
}
