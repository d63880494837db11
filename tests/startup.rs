//! Starting where one cannot: the real binary ends with one sentence that names the cause and the cure, and not with 0.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Starts a server that is expected to end by itself, and waits for that.
fn start_in_vain(data_dir: &Path, address: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_logstreams"));
    command.args(["serve", "--redis-addr", "off", "--admin-addr", "off", "--kafka-addr", address]);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LOGSTREAMS_")) {
        command.env_remove(name);
    }
    command.arg("--data-dir").arg(data_dir).stdin(Stdio::null()).output().expect("the binary runs")
}

/// The last line on standard error, of a start that must have failed.
fn sentence(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "nothing is ready: {output:?}");
    let errors = String::from_utf8_lossy(&output.stderr);
    let last = errors.lines().last().unwrap_or_default().to_owned();
    assert!(last.starts_with("error: "), "{errors}");
    last
}

#[test]
fn a_directory_that_another_server_uses_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let mut first = Command::new(env!("CARGO_BIN_EXE_logstreams"))
        .args(["serve", "--redis-addr", "off", "--admin-addr", "off", "--kafka-addr", "127.0.0.1:0"])
        .arg("--data-dir")
        .arg(&data_dir)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut ready = String::new();
    let stdout = first.stdout.take().expect("piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut ready).unwrap();
    assert!(ready.starts_with("ready kafka=127.0.0.1:"), "{ready}");

    let said = sentence(&start_in_vain(&data_dir, "127.0.0.1:0"));
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(said.contains("another process") && said.contains("--data-dir"), "{said}");
}

#[test]
fn a_port_that_is_taken_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = sentence(&start_in_vain(&dir.path().join("data"), &address));
    assert!(said.contains(&address) && said.contains("--kafka-addr"), "{said}");
}

#[test]
fn a_directory_that_cannot_be_made_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"in the way").unwrap();
    let said = sentence(&start_in_vain(&file.join("data"), "127.0.0.1:0"));
    assert!(said.contains("data directory") && said.contains("--data-dir"), "{said}");
}
