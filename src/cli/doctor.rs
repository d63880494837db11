//! Examines the machine: what a log needs, whether it is there, and the command that cures it.
//!
//! Runs on the main thread before any shard exists. Each check reads its facts and hands them to a `judge_` function
//! that knows nothing of the machine, so that every verdict can be tested.
//! Does not: change anything, bar a probe file in the data directory that it removes again.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use logstreams::config::Config;
use rustix::process::{Resource, getrlimit};

/// Oldest kernel that can be asked for bytes only if the page cache has them (preadv2 with RWF_NOWAIT).
const KERNEL_MIN: (u32, u32) = (4, 14);
/// Oldest kernel that brings a mapped file's pages in on request (MADV_POPULATE_READ).
const KERNEL_GOOD: (u32, u32) = (5, 14);
/// File descriptors beside those of connections and cached segments.
const OPEN_FILES_SPARE: u64 = 1024;
/// Direct I/O writes whole blocks of this size from memory aligned to it.
const BLOCK_BYTES: usize = 4096;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    /// As it should be.
    Ok,
    /// Works, with a drawback.
    Warn,
    /// Keeps the server from starting or storing.
    Fail,
}

/// One line of the examination.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    level: Level,
    what: &'static str,
    finding: String,
    cure: Option<String>,
}

impl Finding {
    fn ok(what: &'static str, finding: impl Into<String>) -> Self {
        Finding { level: Level::Ok, what, finding: finding.into(), cure: None }
    }

    fn warn(what: &'static str, finding: impl Into<String>, cure: impl Into<String>) -> Self {
        Finding { level: Level::Warn, what, finding: finding.into(), cure: Some(cure.into()) }
    }

    fn fail(what: &'static str, finding: impl Into<String>, cure: impl Into<String>) -> Self {
        Finding { level: Level::Fail, what, finding: finding.into(), cure: Some(cure.into()) }
    }

    /// Whether the server cannot work like this.
    pub(super) fn is_failure(&self) -> bool {
        self.level == Level::Fail
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "fail",
        };
        write!(f, "{level:<4}  {}: {}", self.what, self.finding)?;
        match &self.cure {
            Some(cure) => write!(f, "; cure: {cure}"),
            None => Ok(()),
        }
    }
}

/// Makes every check, in the order in which a start would stumble.
pub(super) fn examine(config: &Config) -> Vec<Finding> {
    let mut findings = vec![
        judge_kernel(&read("/proc/sys/kernel/osrelease")),
        // The server raises the soft limit to the hard one by itself.
        judge_open_files(getrlimit(Resource::Nofile).maximum, config),
        judge_memory_maps(&read("/proc/sys/vm/max_map_count"), config.segment_cache_count),
    ];
    findings.extend(examine_data_dir(config));
    findings
}

/// The content of a kernel file without its line end; empty when it cannot be read.
fn read(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim_end().to_owned()).unwrap_or_default()
}

fn judge_kernel(release: &str) -> Finding {
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) < KERNEL_MIN => Finding::fail(
            "kernel",
            format!("{release} is older than {}.{}", KERNEL_MIN.0, KERNEL_MIN.1),
            "install a newer kernel (6.1 or later is best)",
        ),
        (Some(major), Some(minor)) if (major, minor) < KERNEL_GOOD => Finding::warn(
            "kernel",
            format!(
                "{release}: reads of old data may hold a shard up before {}.{}",
                KERNEL_GOOD.0, KERNEL_GOOD.1
            ),
            "install a newer kernel (6.1 or later is best)",
        ),
        (Some(_), Some(_)) => Finding::ok("kernel", release),
        _ => Finding::warn("kernel", format!("release '{release}' not understood"), "uname -r"),
    }
}

fn judge_open_files(limit: Option<u64>, config: &Config) -> Finding {
    let Some(limit) = limit else {
        return Finding::ok("open files", "unlimited");
    };
    let connections = u64::try_from(config.max_connections).unwrap_or(u64::MAX);
    let segments = u64::try_from(config.segment_cache_count).unwrap_or(u64::MAX);
    let needed = connections.saturating_add(segments).saturating_add(OPEN_FILES_SPARE);
    if limit < needed {
        return Finding::warn(
            "open files",
            format!("{limit}, but max.connections and segment.cache.count may take {needed}"),
            format!("ulimit -n {needed} (systemd: LimitNOFILE={needed}; docker: --ulimit nofile={needed})"),
        );
    }
    Finding::ok("open files", limit.to_string())
}

fn judge_memory_maps(max_map_count: &str, segment_cache_count: usize) -> Finding {
    // Up to three maps for one segment: log, offset index, time index.
    let needed = segment_cache_count.saturating_mul(3).saturating_add(4096);
    match max_map_count.parse::<usize>() {
        Ok(count) if count < needed => Finding::warn(
            "memory maps",
            format!("vm.max_map_count is {count}, segment.cache.count may take {needed}"),
            format!("sysctl -w vm.max_map_count={needed}"),
        ),
        Ok(count) => Finding::ok("memory maps", format!("vm.max_map_count is {count}")),
        Err(_) => Finding::ok("memory maps", "no limit known"),
    }
}

fn examine_data_dir(config: &Config) -> Vec<Finding> {
    let data_dir = &config.data_dir;
    // A directory that the first start will make is judged by the one it will lie in.
    let Some(existing) = nearest_existing(data_dir) else {
        return vec![Finding::fail(
            "data directory",
            format!("{} cannot be reached", data_dir.display()),
            format!("mkdir -p {}", data_dir.display()),
        )];
    };
    let probe = probe_writes(&existing);
    let mut findings = vec![judge_writable(data_dir, &existing, probe.writable)];
    let mount = find_mount(&read("/proc/self/mountinfo"), &existing);
    findings.push(judge_file_system(mount.as_ref()));
    if let Some(direct) = probe.direct {
        findings.push(judge_direct_io(direct));
    }
    findings.push(judge_write_cache(write_cache_of(&existing), mount.as_ref()));
    findings.push(match rustix::fs::statvfs(&existing) {
        Ok(stat) => judge_free_space(stat.f_bavail.saturating_mul(stat.f_frsize), config.disk_reserve_bytes),
        Err(error) => Finding::warn("free space", error.to_string(), format!("df {}", existing.display())),
    });
    findings
}

/// `path` made absolute, or the nearest directory above it that exists.
fn nearest_existing(path: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(path).ok()?;
    absolute.ancestors().find_map(|ancestor| ancestor.canonicalize().ok())
}

/// What came of writing a probe file.
struct Probe {
    writable: io::Result<()>,
    /// Not known where nothing can be written at all.
    direct: Option<io::Result<()>>,
}

fn probe_writes(directory: &Path) -> Probe {
    /// One block with the alignment that direct I/O asks for.
    #[repr(align(4096))]
    struct Block([u8; BLOCK_BYTES]);

    let path = directory.join(format!(".logstreams-doctor-{}", std::process::id()));
    let writable = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .and_then(|mut file: File| file.write_all(b"probe"));
    let direct = writable.is_ok().then(|| {
        let mut file = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(&path)?;
        file.write_all(&Block([0; BLOCK_BYTES]).0)
    });
    // A probe that could not be made needs no removal; one that stays behind is harmless.
    let _ = fs::remove_file(&path);
    Probe { writable, direct }
}

fn judge_writable(data_dir: &Path, existing: &Path, writable: io::Result<()>) -> Finding {
    let shown = data_dir.display();
    match writable {
        Ok(()) if data_dir.is_dir() => Finding::ok("data directory", format!("{shown} is writable")),
        Ok(()) => Finding::ok("data directory", format!("{shown} does not exist yet and can be made")),
        Err(error) => {
            // Only the data directory itself may change hands, never one above it.
            let cure = if data_dir.is_dir() {
                format!("sudo chown -R $(id -un) {shown}")
            } else {
                format!("sudo install -d -o $(id -un) {shown}, or another --data-dir")
            };
            Finding::fail("data directory", format!("{} is not writable: {error}", existing.display()), cure)
        }
    }
}

/// A line of mountinfo, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    kind: String,
    options: String,
}

/// The mount that `path` lies on: the last one listed among those with the longest fitting mount point.
fn find_mount(mountinfo: &str, path: &Path) -> Option<Mount> {
    let mut best: Option<(usize, Mount)> = None;
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let Some(mount_point) = left.split(' ').nth(4) else { continue };
        let mount_point = mount_point.replace("\\040", " ");
        let mut right = right.split(' ');
        let (kind, options) = (right.next().unwrap_or_default(), right.nth(1).unwrap_or_default());
        let length = Path::new(&mount_point).components().count();
        if path.starts_with(&mount_point) && best.as_ref().is_none_or(|(longest, _)| length >= *longest) {
            best = Some((length, Mount { kind: kind.to_owned(), options: options.to_owned() }));
        }
    }
    best.map(|(_, mount)| mount)
}

fn judge_file_system(mount: Option<&Mount>) -> Finding {
    let what = "file system";
    let Some(mount) = mount else {
        return Finding::warn(what, "not known", "use ext4 or xfs");
    };
    let (finding, cure) = match mount.kind.as_str() {
        kind @ ("ext4" | "xfs") => return Finding::ok(what, kind),
        "overlay" => (
            "overlay: slow, and gone with the container",
            "mount a volume: docker run -v /srv/logstreams:/data",
        ),
        "tmpfs" | "ramfs" => ("memory, gone at the next boot", "--data-dir on an ext4 or xfs disk"),
        "nfs" | "nfs4" | "cifs" | "smb3" | "9p" => (
            "a network file system: syncs and locks are not trustworthy",
            "--data-dir on a local ext4 or xfs disk",
        ),
        "btrfs" | "zfs" | "bcachefs" => (
            "copy-on-write: every append moves blocks",
            "--data-dir on ext4 or xfs (btrfs: chattr +C on the directory)",
        ),
        _ => ("neither ext4 nor xfs, so not tried", "--data-dir on an ext4 or xfs disk"),
    };
    Finding::warn(what, format!("{}: {finding}", mount.kind), cure)
}

fn judge_direct_io(direct: io::Result<()>) -> Finding {
    match direct {
        Ok(()) => Finding::ok("direct I/O", format!("possible in blocks of {BLOCK_BYTES}")),
        Err(error) => Finding::warn(
            "direct I/O",
            format!("not possible here: {error}"),
            "-o write.path=page_cache, or a data directory on ext4 or xfs",
        ),
    }
}

/// The write cache of the block device under `path`; `None` where no device is to be seen.
fn write_cache_of(path: &Path) -> Option<String> {
    let device = fs::metadata(path).ok()?.dev();
    let link = format!("/sys/dev/block/{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let directory = fs::canonicalize(link).ok()?;
    // A partition's queue is that of its disk, one level up.
    [directory.as_path(), directory.parent()?]
        .into_iter()
        .find_map(|directory| fs::read_to_string(directory.join("queue/write_cache")).ok())
        .map(|text| text.trim().to_owned())
}

fn judge_write_cache(write_cache: Option<String>, mount: Option<&Mount>) -> Finding {
    let what = "write cache";
    let unsafe_option = mount.and_then(|mount| {
        mount
            .options
            .split(',')
            .find(|option| matches!(*option, "nobarrier" | "barrier=0"))
            .map(str::to_owned)
    });
    match (write_cache.as_deref(), unsafe_option) {
        (Some("write back"), Some(option)) => Finding::warn(
            what,
            format!("write back, and mounted with {option}: a power cut takes what was synced"),
            "mount -o remount,barrier=1 on its mount point",
        ),
        (Some("write back"), None) => Finding::ok(what, "write back; each sync flushes it"),
        (Some(other), _) => Finding::ok(what, other),
        (None, _) => Finding::ok(what, "no block device to be seen from here"),
    }
}

fn judge_free_space(free_bytes: u64, reserve_bytes: u64) -> Finding {
    let what = "free space";
    let cure = "free some space, retain less (log.retention.bytes), or lower disk.reserve.bytes";
    let mib = |bytes: u64| bytes / (1024 * 1024);
    let finding = format!("{} MiB, {} MiB of them reserved", mib(free_bytes), mib(reserve_bytes));
    if free_bytes <= reserve_bytes {
        Finding::fail(what, format!("{finding}: appends are refused"), cure)
    } else if free_bytes - reserve_bytes < reserve_bytes {
        Finding::warn(what, finding, cure)
    } else {
        Finding::ok(what, finding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_measured_against_what_is_configured() -> Result<(), Box<dyn std::error::Error>> {
        let config = Config::from_options(&[("max.connections", "100"), ("segment.cache.count", "10")])?;
        assert_eq!(judge_open_files(Some(1000), &config).level, Level::Warn);
        assert_eq!(judge_open_files(Some(1134), &config).level, Level::Ok);
        assert_eq!(judge_memory_maps("65530", 1024).level, Level::Ok);
        assert_eq!(judge_memory_maps("65530", 100_000).level, Level::Warn);
        Ok(())
    }

    #[test]
    fn old_kernels_fail_and_odd_ones_do_not() {
        assert_eq!(judge_kernel("3.10.0-1160.el7").level, Level::Fail);
        assert_eq!(judge_kernel("5.4.0-150-generic").level, Level::Warn);
        assert_eq!(judge_kernel("6.18.44-fc").level, Level::Ok);
        assert_eq!(judge_kernel("5.15").level, Level::Ok);
        assert_eq!(judge_kernel("").level, Level::Warn);
    }

    #[test]
    fn the_innermost_mount_counts() {
        let mountinfo = "27 1 254:0 / / rw - ext4 /dev/vda rw,discard\n\
                         30 27 0:25 / /data rw - overlay overlay rw\n\
                         31 30 8:1 / /data/my\\040disk rw shared:1 - xfs /dev/sda1 rw,nobarrier\n";
        let kind = |path: &str| find_mount(mountinfo, Path::new(path)).map(|mount| mount.kind);
        assert_eq!(kind("/srv/x").as_deref(), Some("ext4"));
        assert_eq!(kind("/data/x").as_deref(), Some("overlay"));
        assert_eq!(kind("/database").as_deref(), Some("ext4"));
        assert_eq!(kind("/data/my disk/x").as_deref(), Some("xfs"));
        let mount = find_mount(mountinfo, Path::new("/data/my disk"));
        assert_eq!(judge_file_system(mount.as_ref()).level, Level::Ok);
        assert_eq!(judge_write_cache(Some("write back".into()), mount.as_ref()).level, Level::Warn);
        assert_eq!(judge_write_cache(Some("write through".into()), mount.as_ref()).level, Level::Ok);
        assert_eq!(judge_file_system(find_mount(mountinfo, Path::new("/data")).as_ref()).level, Level::Warn);
    }

    #[test]
    fn too_little_space_fails_before_the_server_would() {
        assert_eq!(judge_free_space(100, 100).level, Level::Fail);
        assert_eq!(judge_free_space(199, 100).level, Level::Warn);
        assert_eq!(judge_free_space(200, 100).level, Level::Ok);
    }

    #[test]
    fn a_directory_that_does_not_exist_yet_is_judged_by_its_parent() -> io::Result<()> {
        let parent = tempfile::tempdir()?;
        let child = parent.path().join("a/b");
        let existing = nearest_existing(&child).ok_or(io::ErrorKind::NotFound)?;
        assert_eq!(existing, parent.path().canonicalize()?);
        let probe = probe_writes(&existing);
        assert_eq!(judge_writable(&child, &existing, probe.writable).level, Level::Ok);
        assert_eq!(fs::read_dir(parent.path())?.count(), 0, "the probe file stayed behind");
        let refused = judge_writable(&child, &existing, Err(io::ErrorKind::PermissionDenied.into()));
        assert!(refused.is_failure());
        assert!(!refused.to_string().contains("chown"), "a directory above must keep its owner: {refused}");
        Ok(())
    }
}
