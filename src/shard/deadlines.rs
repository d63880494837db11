//! Timers of the coordinators: they exist while something has a deadline, and nothing ticks.

use std::time::Duration;

use super::Shard;
use crate::base::clock;
use crate::runtime::local::Event;
use crate::runtime::timeout;

/// The longest sleep between two looks at the deadlines.
const SLEEP_MAX: Duration = Duration::from_secs(3600);

impl Shard {
    /// Calls `serve` with the time whenever something is due, until the server stops. It does what is due by then and says
    /// when the next is; `changed` tells that this may have moved.
    pub(super) async fn serve_deadlines(&self, changed: &Event, serve: impl Fn(i64) -> Option<i64>) {
        while !self.is_stopping() {
            let changed = changed.wait(); // before the look, so that a change meanwhile is not missed
            let now_ms = clock::now_ms();
            let sleep_for = serve(now_ms).map_or(SLEEP_MAX, |due_ms| {
                Duration::from_millis(u64::try_from(due_ms - now_ms).unwrap_or(0)).min(SLEEP_MAX)
            });
            timeout(sleep_for, futures_lite::future::or(changed, self.stopping())).await;
        }
    }
}
