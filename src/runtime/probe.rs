//! Asks the kernel for what the executors will need, before one is made, and names cause and cure.

use std::io;

/// What the probe found wrong: one sentence with cause and cure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}; {cure}")]
pub struct ProbeError {
    /// What is wrong.
    pub cause: String,
    /// What cures it.
    pub cure: String,
}

/// Locked memory that one executor's rings need on kernels that count it.
const MEMLOCK_BYTES_PER_SHARD: u64 = 512 * 1024;

/// Checks io_uring and the memlock limit for `shards` executors.
///
/// # Errors
/// The first thing that is wrong.
pub fn probe(shards: usize) -> Result<(), ProbeError> {
    probe_io_uring()?;
    probe_memlock(shards)
}

/// Sets up a ring of two entries and closes it again.
///
/// # Errors
/// Why the kernel refused, and how to allow it.
pub fn probe_io_uring() -> Result<(), ProbeError> {
    let mut params = [0u8; 120]; // struct io_uring_params, all zero: plain defaults
    // SAFETY: io_uring_setup(2) reads and writes exactly sizeof(struct io_uring_params) = 120 bytes.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 2u32, params.as_mut_ptr()) };
    if let Ok(fd) = i32::try_from(fd)
        && fd >= 0
    {
        // SAFETY: the descriptor was just returned to us and nobody else knows it.
        unsafe { libc::close(fd) };
        return Ok(());
    }
    Err(io_uring_refused(&io::Error::last_os_error()))
}

fn io_uring_refused(error: &io::Error) -> ProbeError {
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    let (cause, cure) = match (error.raw_os_error(), disabled.trim()) {
        (_, "2") => (
            "io_uring is switched off on this machine (kernel.io_uring_disabled=2)".to_owned(),
            "run 'sysctl -w kernel.io_uring_disabled=0'".to_owned(),
        ),
        (_, "1") => (
            "io_uring is only for privileged processes here (kernel.io_uring_disabled=1)".to_owned(),
            "run 'sysctl -w kernel.io_uring_disabled=0', or join the group of kernel.io_uring_group"
                .to_owned(),
        ),
        (Some(libc::ENOSYS), _) => (
            "this kernel has no io_uring".to_owned(),
            "run Linux 5.8 or newer, or let the sandbox pass io_uring_setup".to_owned(),
        ),
        (Some(libc::EPERM), _) => (
            "io_uring is forbidden here, most likely by a seccomp profile (Docker's default one does)"
                .to_owned(),
            "run the container with '--security-opt seccomp=unconfined' or a profile that allows \
             io_uring_setup, io_uring_enter and io_uring_register"
                .to_owned(),
        ),
        (Some(libc::ENOMEM), _) => (
            "the kernel has no locked memory left for an io_uring".to_owned(),
            "raise the limit: 'ulimit -l unlimited', or LimitMEMLOCK=infinity in the service".to_owned(),
        ),
        _ => (format!("io_uring cannot be set up: {error}"), "run 'logstreams doctor'".to_owned()),
    };
    ProbeError { cause, cure }
}

fn probe_memlock(shards: usize) -> Result<(), ProbeError> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock);
    let needed = MEMLOCK_BYTES_PER_SHARD; // the limit holds per ring set-up, not for the sum, on kernels since 5.12
    match limit.current {
        Some(current) if current < needed => Err(ProbeError {
            cause: format!(
                "the limit of locked memory is {current} bytes, and each of the {shards} shards needs {needed}"
            ),
            cure: "raise it: 'ulimit -l unlimited', or LimitMEMLOCK=infinity in the service".to_owned(),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_cause_and_cure() {
        let refused = io_uring_refused(&io::Error::from_raw_os_error(libc::EPERM));
        assert!(refused.to_string().contains("seccomp"), "{refused}");
    }
}
