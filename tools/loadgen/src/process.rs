//! What the kernel says about processes: the broker's CPU and memory, our own limits and place.

use std::fs;

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

/// CPU and memory of a process at one instant.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessSample {
    /// CPU seconds since the process began, all threads, in user mode and in the kernel.
    pub user_s: f64,
    pub system_s: f64,
    /// Resident memory now, and the part of it that is not mapped files.
    pub rss_bytes: u64,
    pub rss_anonymous_bytes: u64,
    /// The most that was ever resident.
    pub rss_peak_bytes: u64,
}

impl ProcessSample {
    /// Reads `/proc/PID/stat` and `/proc/PID/status`. CPU comes in ticks of usually 10 ms.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn take(pid: u32) -> Result<Self> {
        let read = |name: &str| {
            let path = format!("/proc/{pid}/{name}");
            fs::read_to_string(&path).with_context(|| format!("reading {path}: is the broker gone?"))
        };
        Self::parse(&read("stat")?, &read("status")?)
    }

    fn parse(stat: &str, status: &str) -> Result<Self> {
        // The second field is the command in parentheses and may contain anything, so count from behind it.
        let (_, fields) = stat.rsplit_once(')').context("/proc stat without a command")?;
        let mut fields = fields.split_ascii_whitespace().skip(11);
        let ticks_per_s = rustix::param::clock_ticks_per_second() as f64;
        let mut seconds = || -> Result<f64> {
            let ticks: u64 = fields.next().context("/proc stat is short")?.parse()?;
            Ok(ticks as f64 / ticks_per_s)
        };
        let (user_s, system_s) = (seconds()?, seconds()?);
        let bytes_of = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            let kib = line.trim_start_matches(':').trim().trim_end_matches(" kB");
            kib.parse::<u64>().unwrap_or(0) * 1_024
        };
        Ok(Self {
            user_s,
            system_s,
            rss_bytes: bytes_of("VmRSS"),
            rss_anonymous_bytes: bytes_of("RssAnon"),
            rss_peak_bytes: bytes_of("VmHWM"),
        })
    }

    /// User and system together.
    pub fn cpu_s(&self) -> f64 {
        self.user_s + self.system_s
    }
}

/// Binds the calling thread, and those that it starts, to one CPU.
///
/// # Errors
/// If there is no such CPU.
pub fn pin_to_cpu(cpu: usize) -> Result<()> {
    ensure!(cpu < CpuSet::MAX_CPU, "there is no CPU {cpu}");
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).with_context(|| format!("pinning to CPU {cpu}"))
}

/// Allows `needed` descriptors: raises the soft limit, and the hard one if we may.
///
/// # Errors
/// If the hard limit is lower and we may not raise it.
pub fn raise_descriptor_limit(needed: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let maximum = limit.maximum.map(|maximum| maximum.max(needed));
    setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum }).with_context(|| {
        format!(
            "{needed} open files are needed, one for each connection, and this process may have {}. Raise the hard limit \
             as root: `ulimit -Hn {needed}` in the shell that starts loadgen, LimitNOFILE={needed} in a systemd unit, or \
             nofile in /etc/security/limits.conf",
            limit.maximum.unwrap_or_default()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::ProcessSample;

    #[test]
    fn a_command_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "42 (a ) b) c) S 1 42 42 0 -1 4194560 100 0 0 0 250 150 0 0 20 0 1 0 1 1 1";
        let status = "Name:\ta\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nRssAnon:\t     512 kB\n";
        let sample = ProcessSample::parse(stat, status).expect("sound");
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        assert_eq!((sample.user_s * ticks, sample.system_s * ticks), (250.0, 150.0));
        assert_eq!((sample.rss_bytes, sample.rss_peak_bytes), (1 << 20, 2 << 20));
        assert_eq!(sample.rss_anonymous_bytes, 1 << 19);
    }

    #[test]
    fn our_own_process_can_be_sampled() {
        let sample = ProcessSample::take(std::process::id()).expect("we exist");
        assert!(sample.rss_bytes > 0);
        assert!(ProcessSample::take(u32::MAX).is_err());
    }
}
