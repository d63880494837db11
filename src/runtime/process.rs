//! The process and its machine: signals, CPUs that it may use, limits.

use std::io;
use std::time::Duration;

/// A signal that asks the server to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopSignal {
    /// Ctrl-C.
    Interrupt,
    /// `kill`, and what service managers send.
    Terminate,
}

fn stop_signals() -> libc::sigset_t {
    // SAFETY: sigset_t is plain data that sigemptyset initialises; the signal numbers are valid.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGINT);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        set
    }
}

/// Blocks the stop signals in this thread and all that it starts later, so that only [`wait_for_stop_signal`] sees
/// them. Call it first thing in `main`. SIGPIPE is ignored: a closed socket is an error of its connection only.
pub fn block_stop_signals() {
    let set = stop_signals();
    // SAFETY: both calls take valid arguments and change only this process's signal state.
    unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    }
}

/// Waits for the next stop signal; a plain thread's call.
pub fn wait_for_stop_signal() -> StopSignal {
    let set = stop_signals();
    let mut signal = 0;
    loop {
        // SAFETY: `set` and `signal` are valid for the call.
        if unsafe { libc::sigwait(&raw const set, &raw mut signal) } == 0 {
            return if signal == libc::SIGINT { StopSignal::Interrupt } else { StopSignal::Terminate };
        }
    }
}

/// The CPUs that this process may run on, by affinity and cgroup cpusets.
pub fn allowed_cpus() -> Vec<usize> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect(),
        Err(_) => vec![0],
    }
}

/// Has the kernel back memory in pages of 4 KiB. The allocator asks for huge ones, and whoever first touches one waits
/// until 2 MiB are zeroed: half a millisecond and more, on a shard's thread. Bulk loses nothing, as buffers are used
/// again and again.
pub fn avoid_huge_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::warn!(%error, "huge pages stay on; some requests may take longer");
    }
}

/// Stops the calling thread for so long: `main`'s, or one of the blocking pool. A shard's uses [`super::sleep`].
#[expect(clippy::disallowed_methods, reason = "not on a shard's thread")]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// Lifts the soft limit of open files to the hard one and returns it: each partition in use holds a descriptor.
pub fn raise_open_files_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            return limit.maximum.unwrap_or(u64::MAX);
        }
    }
    limit.current.unwrap_or(u64::MAX)
}

/// The room of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// All of it.
    pub total_bytes: u64,
    /// What this process may still use.
    pub free_bytes: u64,
}

/// The room of the file system that holds `path`. Blocks.
///
/// # Errors
/// The kernel's, if the path cannot be looked at.
pub fn disk_space(path: &std::path::Path) -> io::Result<DiskSpace> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(DiskSpace {
        total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
    })
}

/// What this process takes of its machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory; 0 if unknown.
    pub resident_bytes: u64,
    /// CPU time in the kernel.
    pub system_cpu: Duration,
    /// CPU time outside of it.
    pub user_cpu: Duration,
}

/// What this process takes now. Reads from `/proc`, which never waits for a device but is no business of a shard's thread.
pub fn usage() -> Usage {
    let word = |path: &str, index: usize| -> Option<u64> {
        let text = std::fs::read_to_string(path).ok()?;
        // The command's name, in parentheses, may have blanks.
        let text = text.rsplit_once(") ").map_or(text.as_str(), |(_, rest)| rest);
        text.split_ascii_whitespace().nth(index)?.parse().ok()
    };
    let pages = word("/proc/self/statm", 1).unwrap_or(0);
    // Fields 14 and 15 of stat(5); what was cut off are the first two.
    let ticks = |index| word("/proc/self/stat", index).unwrap_or(0);
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    let time = |ticks: u64| Duration::from_secs_f64(ticks as f64 / per_second as f64);
    Usage {
        resident_bytes: pages * rustix::param::page_size() as u64,
        user_cpu: time(ticks(11)),
        system_cpu: time(ticks(12)),
    }
}
