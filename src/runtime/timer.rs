//! Timers of 1 ms granularity. Nothing ticks: a timer exists while something waits for it.

use std::future::Future;
use std::time::Duration;

/// Longer than anybody waits: no timer exists for it.
pub const FOREVER: Duration = Duration::from_millis(u64::MAX);

/// Sleeps without holding the shard.
pub async fn sleep(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Runs `future` for at most `duration`; `None` when the time was up first (the future is then dropped).
pub async fn timeout<T>(duration: Duration, future: impl Future<Output = T>) -> Option<T> {
    if duration >= FOREVER {
        return Some(future.await);
    }
    futures_lite::future::or(async { Some(future.await) }, async {
        sleep(duration).await;
        None
    })
    .await
}
