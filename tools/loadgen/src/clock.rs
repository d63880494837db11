//! The only reader of time.
//!
//! Everything inside a run is measured on CLOCK_MONOTONIC in nanoseconds. Payloads carry Unix time so that another
//! process can read them; it is the monotonic clock plus an offset taken once per process, so it never steps during a run.

use std::os::fd::AsFd;

use anyhow::Result;
use rustix::time::{ClockId, Itimerspec, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_settime};

/// Nanoseconds per second.
pub const SECOND_NS: u64 = 1_000_000_000;
/// Nanoseconds per millisecond.
pub const MILLISECOND_NS: u64 = 1_000_000;

/// Nanoseconds on the monotonic clock.
pub fn monotonic_ns() -> u64 {
    read_ns(ClockId::Monotonic)
}

/// CPU nanoseconds that this process has used, all threads, user and system.
pub fn process_cpu_ns() -> u64 {
    read_ns(ClockId::ProcessCPUTime)
}

fn read_ns(id: ClockId) -> u64 {
    let time = clock_gettime(id);
    u64::try_from(time.tv_sec).unwrap_or(0) * SECOND_NS + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Has a timerfd on the monotonic clock expire once, at `instant_ns`.
///
/// # Errors
/// If the kernel refuses.
pub fn arm(timer: impl AsFd, instant_ns: u64) -> Result<()> {
    let it_value = Timespec {
        tv_sec: i64::try_from(instant_ns / SECOND_NS)?,
        tv_nsec: i64::try_from(instant_ns % SECOND_NS)?,
    };
    let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
    timerfd_settime(timer, TimerfdTimerFlags::ABSTIME, &once)?;
    Ok(())
}

/// Turns monotonic into Unix nanoseconds by an offset taken once.
#[derive(Clone, Copy, Debug)]
pub struct UnixOffset(u64);

impl UnixOffset {
    /// Reads both clocks back to back.
    pub fn take() -> Self {
        let monotonic = monotonic_ns();
        Self(read_ns(ClockId::Realtime).saturating_sub(monotonic))
    }

    /// Unix nanoseconds of a monotonic instant.
    pub fn unix_ns(self, monotonic_ns: u64) -> u64 {
        self.0 + monotonic_ns
    }

    /// The monotonic instant of Unix nanoseconds.
    pub fn monotonic_ns(self, unix_ns: u64) -> u64 {
        unix_ns.saturating_sub(self.0)
    }

    /// Unix milliseconds of a monotonic instant: Kafka's record timestamp.
    pub fn unix_ms(self, monotonic_ns: u64) -> i64 {
        i64::try_from(self.unix_ns(monotonic_ns) / MILLISECOND_NS).unwrap_or(i64::MAX)
    }
}
