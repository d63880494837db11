//! The real binary on a directory of its own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    /// HOST:PORT of the Kafka door.
    pub address: String,
    /// Its data directory.
    pub data_dir: tempfile::TempDir,
}

impl Server {
    /// Starts the server with options `key=value` and waits until it is ready.
    pub fn start(options: &[&str]) -> Server {
        let data_dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_logstreams"));
        command.arg("serve").arg("--data-dir").arg(data_dir.path());
        command.args(["--kafka-addr", "127.0.0.1:0", "--redis-addr", "off", "--admin-addr", "off"]);
        for option in options {
            command.arg("-o").arg(option);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = lines.next().expect("a ready line").unwrap();
        let address = ready
            .split_whitespace()
            .find_map(|word| word.strip_prefix("kafka="))
            .unwrap_or_else(|| panic!("no address in: {ready}"))
            .to_owned();
        Server { child, address, data_dir }
    }

    /// A line of /proc/PID/status in KiB, such as "VmHWM".
    pub fn memory_kib(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// How many files and sockets the process has open.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Whether the process still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
