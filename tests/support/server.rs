//! Servers under test: LogStreams, or Apache Kafka 4.3.1 as the reference, each alone in a temporary directory on
//! free ports of the loopback address.

use crate::support::clients;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a server may take to come up. A bound, not an expectation: recovery may scan, machines may be busy.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// LogStreams promises to be gone five seconds after SIGTERM.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Which program serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    LogStreams,
    Kafka,
}

impl Program {
    /// The program that `LOGSTREAMS_TEST_TARGET` asks to test.
    pub fn under_test() -> Program {
        match std::env::var("LOGSTREAMS_TEST_TARGET").as_deref() {
            Ok("kafka") => Program::Kafka,
            Ok("logstreams") | Err(_) => Program::LogStreams,
            Ok(other) => panic!("LOGSTREAMS_TEST_TARGET is kafka or logstreams, not {other}"),
        }
    }
}

/// How to start a server. Kafka has no shards and listens on one port whatever is said here.
#[derive(Clone, Debug)]
pub struct Options {
    pub shards: usize,
    pub shard_listeners: bool,
    /// Whether LogStreams opens its Redis door.
    pub redis: bool,
    /// Broker properties by Kafka's names, for either program.
    pub settings: Vec<(String, String)>,
    /// Data that another server left behind, to start on a copy of.
    pub data: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Options {
        Options { shards: 2, shard_listeners: false, redis: false, settings: Vec::new(), data: None }
    }
}

impl Options {
    pub fn set(mut self, key: &str, value: &str) -> Options {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }
}

/// A server that is running, or was stopped and can be started again on its data.
pub struct Server {
    program: Program,
    options: Options,
    directory: TempDir,
    /// Fixed for Kafka and for restarts, so that a living client finds the server again.
    port: u16,
    bootstrap: String,
    /// The Redis door, if it was asked for.
    redis: String,
    child: Option<Child>,
}

impl Server {
    /// Starts the program under test.
    pub fn start(options: Options) -> Server {
        Server::start_program(Program::under_test(), options)
    }

    pub fn start_program(program: Program, options: Options) -> Server {
        let directory = TempDir::with_prefix("logstreams-test-").expect("a temporary directory");
        let port = if program == Program::Kafka { free_port() } else { 0 };
        let (bootstrap, redis) = (String::new(), "127.0.0.1:0".to_owned());
        let mut server = Server { program, options, directory, port, bootstrap, redis, child: None };
        if let Some(data) = server.options.data.take() {
            copy_tree(&data, &server.data_dir());
        } else if program == Program::Kafka {
            server.format_kafka();
        }
        server.launch();
        server
    }

    pub fn program(&self) -> Program {
        self.program
    }

    /// `HOST:PORT` for clients to begin with.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// `HOST:PORT` of the Redis door.
    pub fn redis(&self) -> &str {
        assert!(self.options.redis, "the options do not ask for the Redis door");
        &self.redis
    }

    /// The running process, for a look at its memory.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the server runs").id()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Clean stop and start.
    pub fn restart(&mut self) {
        self.stop();
        self.launch();
    }

    /// Starts again after [`Server::stop`] or [`Server::kill_dash_nine`].
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "the server still runs");
        self.launch();
    }

    /// SIGTERM; LogStreams must be gone within five seconds, with exit code 0.
    pub fn stop(&mut self) {
        let mut child = self.child.take().expect("the server runs");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("our own child");
        let patience = if self.program == Program::Kafka { START_PATIENCE } else { STOP_PATIENCE };
        let Some(status) = wait(&mut child, patience) else {
            self.child = Some(child);
            panic!("the server ignores SIGTERM for {patience:?}\n{}", self.log());
        };
        if self.program == Program::LogStreams {
            assert!(status.success(), "SIGTERM ended the server with {status}\n{}", self.log());
        }
    }

    pub fn kill_dash_nine(&mut self) {
        let mut child = self.child.take().expect("the server runs");
        child.kill().expect("our own child");
        child.wait().expect("our own child");
    }

    /// The end of what the server wrote on standard error, over all its starts.
    pub fn log(&self) -> String {
        let log = fs::read(self.log_path()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        format!("--- end of the server's log\n{}\n---", lines[lines.len().saturating_sub(100)..].join("\n"))
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("server.log")
    }

    fn launch(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_path()).expect("a log file");
        let mut command = match self.program {
            Program::LogStreams => self.logstreams_command(),
            Program::Kafka => self.kafka_command(),
        };
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        self.child = Some(child);
        let (sender, ready) = channel();
        thread::spawn(move || {
            // Read to the end, so that the server never waits for a full pipe.
            for line in stdout.lines().map_while(Result::ok) {
                if let Some(doors) = doors_of_ready_line(&line) {
                    let _ = sender.send(doors);
                }
            }
        });
        let doors = match ready.recv_timeout(START_PATIENCE) {
            Ok(doors) => doors,
            Err(error) => panic!("the server does not become ready ({error})\n{}", self.log()),
        };
        let door =
            |name: &str| doors.iter().find(|(door, _)| door == name).map(|(_, address)| address.clone());
        self.bootstrap = door("kafka").unwrap_or_else(|| format!("127.0.0.1:{}", self.port));
        if self.options.redis {
            self.redis = door("redis").unwrap_or_else(|| panic!("no Redis door is open\n{}", self.log()));
        }
        if !self.options.shard_listeners {
            let (_, port) = self.bootstrap.rsplit_once(':').expect("HOST:PORT");
            self.port = port.parse().expect("a port");
        }
    }

    fn logstreams_command(&self) -> Command {
        let mut command = logstreams();
        command.arg("serve").arg("--data-dir").arg(self.data_dir());
        command.arg("--kafka-addr").arg(format!("127.0.0.1:{}", self.port));
        command.args(["--redis-addr", if self.options.redis { &self.redis } else { "off" }]);
        command.args(["--admin-addr", "off"]);
        command.arg("--shards").arg(self.options.shards.to_string());
        for (key, value) in &self.options.settings {
            command.arg("-o").arg(format!("{key}={value}"));
        }
        if self.options.shard_listeners {
            command.args(["-o", "shard.listeners=true"]);
        }
        command
    }

    fn kafka_command(&self) -> Command {
        self.write_kafka_properties();
        let mut command = clients::java();
        command.args(["-Xmx512m", "-XX:+UseSerialGC"]);
        // Standard output carries the log, so that the line that tells of the start is seen.
        command.arg("-Dorg.slf4j.simpleLogger.logFile=System.out");
        command.arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn");
        command.arg("-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info");
        command.arg("kafka.Kafka").arg(self.kafka_properties());
        command
    }

    fn kafka_properties(&self) -> PathBuf {
        self.directory.path().join("kafka.properties")
    }

    fn write_kafka_properties(&self) {
        let (port, controller_port) = (self.port, free_port());
        let data = self.data_dir();
        let mut text = format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
             controller.listener.names=CONTROLLER\n\
             log.dirs={}\n\
             offsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=4\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             share.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\n",
            data.display()
        );
        for (key, value) in &self.options.settings {
            text.push_str(&format!("{key}={value}\n"));
        }
        fs::write(self.kafka_properties(), text).expect("a properties file");
    }

    fn format_kafka(&self) {
        self.write_kafka_properties();
        let mut command = clients::java();
        command.args([
            "kafka.tools.StorageTool",
            "format",
            "--standalone",
            "--cluster-id",
            "bG9nc3RyZWFtcy10ZXN0cw",
        ]);
        command.arg("--config").arg(self.kafka_properties());
        crate::support::process::run("kafka.tools.StorageTool", &mut command, Vec::new());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// The binary that cargo built, or the one that `LOGSTREAMS_BIN` names, without the settings that our environment
/// may hold: it takes every `LOGSTREAMS_*` variable for one.
pub fn logstreams() -> Command {
    let mut command =
        Command::new(std::env::var_os("LOGSTREAMS_BIN").unwrap_or(env!("CARGO_BIN_EXE_logstreams").into()));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LOGSTREAMS_") {
            command.env_remove(name);
        }
    }
    command
}

/// The open doors and their addresses of `ready kafka=127.0.0.1:41234 ...`; none of Kafka's announcement, which tells
/// no address.
fn doors_of_ready_line(line: &str) -> Option<Vec<(String, String)>> {
    if line.contains("Kafka Server started") {
        return Some(Vec::new());
    }
    let pairs = line.strip_prefix("ready ")?.split(' ').filter_map(|pair| pair.split_once('='));
    Some(pairs.map(|(door, address)| (door.to_owned(), address.to_owned())).collect())
}

fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().expect("our own child can be waited for") {
            return Some(status);
        }
        if Instant::now() > deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// A port that nobody listens on, below those that the kernel gives to outgoing connections, and never the same
/// twice from one process.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 2000).expect("less than 2000") * 10;
    for _ in 0..20_000 {
        let port = 12_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

/// Copies a data directory as `cp -r` does.
pub fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a new directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("a directory entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a file type").is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}
