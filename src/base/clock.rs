//! The only reader of time.
//!
//! `now_ms` is wall time for record timestamps and retention; `monotonic` is for deadlines. State machines take
//! the time as an argument and never call this module, so that tests can hold the clock.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Wall-clock milliseconds since the Unix epoch, as Kafka's timestamps.
#[allow(clippy::disallowed_methods)] // this module is where time comes from
pub fn now_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

/// Monotonic time, for deadlines and durations.
#[allow(clippy::disallowed_methods)] // this module is where time comes from
pub fn monotonic() -> Instant {
    Instant::now()
}

/// Monotonic time since the first call, the same for all shards: for what several of them do at the same moment.
pub fn since_start() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    monotonic().saturating_duration_since(*START.get_or_init(monotonic))
}
