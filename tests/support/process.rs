//! Child processes with bounded waits, whose output is shown when they fail and who never outlive their owner.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long any child may take for anything before the test gives up. A bound, not an expectation.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A running child. Standard output arrives as lines, standard error is kept for the day something fails.
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Arc<Mutex<String>>,
    exited: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` with all three standard streams in our hands.
    pub fn spawn(name: impl Into<String>, command: &mut Command) -> Process {
        let name = name.into();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start ({error}): run ./test, which installs it"));
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let errors = Arc::new(Mutex::new(String::new()));
        let mut stderr = child.stderr.take().expect("stderr is piped");
        let kept = Arc::clone(&errors);
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(size @ 1..) = stderr.read(&mut chunk) {
                kept.lock().unwrap().push_str(&String::from_utf8_lossy(&chunk[..size]));
            }
        });
        let stdin = child.stdin.take();
        Process { name, child, stdin, lines, errors, exited: None }
    }

    /// The next line of standard output, or `None` once the stream has ended. Panics when `deadline` passes.
    pub fn next_line(&mut self, deadline: Instant) -> Option<String> {
        match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => self.fail("said nothing for too long"),
        }
    }

    /// A line that has already arrived.
    pub fn ready_line(&mut self) -> Option<String> {
        self.lines.try_recv().ok()
    }

    /// Hands over standard input, so that a thread of the test can feed it while another reads.
    pub fn take_stdin(&mut self) -> ChildStdin {
        self.stdin.take().expect("standard input is taken once")
    }

    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// What the child said before is still to be read.
    pub fn kill_dash_nine(&mut self) {
        // The child may have ended by itself; then there is nobody to kill.
        let _ = self.child.kill();
        self.exited = self.child.wait().ok();
    }

    /// Waits for the end of the child and panics with its output unless it exited with 0.
    pub fn expect_success(&mut self) {
        self.stdin = None;
        let deadline = Instant::now() + PATIENCE;
        while self.exited.is_none() {
            self.exited = self.child.try_wait().expect("our own child can be waited for");
            if Instant::now() > deadline {
                self.fail("does not end");
            }
            thread::sleep(Duration::from_millis(5));
        }
        if !self.exited.is_some_and(|status| status.success()) {
            self.fail("failed");
        }
    }

    fn errors(&self) -> String {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Panics with all that is known of the child.
    pub fn fail(&mut self, what: &str) -> ! {
        let status = self.exited.map_or("still running".to_owned(), |status| status.to_string());
        // Give the collecting thread a moment with the last words of a child that has just ended.
        thread::sleep(Duration::from_millis(100));
        let unread: Vec<String> = self.lines.try_iter().collect();
        let unread = unread[unread.len().saturating_sub(20)..].join("\n");
        let errors = self.errors();
        panic!("{} {what} ({status})\n--- unread output\n{unread}\n--- standard error\n{errors}", self.name);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.exited.is_none() {
            self.kill_dash_nine();
        }
        if thread::panicking() {
            eprintln!("--- standard error of {}\n{}", self.name, self.errors());
        }
    }
}

/// Runs `command` with `input` as its standard input until it ends, and returns the lines that it printed.
pub fn run(name: impl Into<String>, command: &mut Command, input: Vec<u8>) -> Vec<String> {
    let mut process = Process::spawn(name, command);
    let mut stdin = process.take_stdin();
    // An own thread, since the child may answer before it has read everything. A child that ends early breaks the
    // pipe; its exit code says why.
    let feeder = thread::spawn(move || drop(stdin.write_all(&input)));
    let deadline = Instant::now() + PATIENCE;
    let mut lines = Vec::new();
    while let Some(line) = process.next_line(deadline) {
        lines.push(line);
    }
    process.expect_success();
    feeder.join().expect("the feeder does not panic");
    lines
}
