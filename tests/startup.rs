//! Starting where one cannot: the real binary ends with one sentence that names the cause and the cure, and not with 0.
//! And where one can although something is amiss.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

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

/// Where standard error is a file on a disk that has become full, each line of it fails.
#[test]
fn a_log_that_cannot_be_written_stops_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_logstreams"));
    command.args(["serve", "--redis-addr", "off", "--admin-addr", "off", "--kafka-addr", "127.0.0.1:0"]);
    command.args(["-o", "log.level=debug"]).arg("--data-dir").arg(dir.path().join("data"));
    let mut server = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(full).spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let address = ready.trim().strip_prefix("ready kafka=").map(str::to_owned);
    // A connection is worth a line at this level, too.
    let greeted = address.as_ref().map(|address| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(b"\0\0\0\x0a\0\x12\0\0\0\0\0\x07\xff\xff").unwrap(); // ApiVersions 0
        let mut reply = [0; 10];
        stream.read_exact(&mut reply).map(|()| reply)
    });
    server.kill().unwrap();
    server.wait().unwrap();
    let greeted = greeted.unwrap_or_else(|| panic!("not ready: {ready:?}")).expect("a reply");
    assert_eq!(greeted[4..], [0, 0, 0, 7, 0, 0], "correlation id and no error");
}
