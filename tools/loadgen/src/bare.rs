//! `loadgen bare`: the floor under a broker's cost, measured by the same client on the same machine.
//!
//! A child process receives batches from a loopback socket, checks their CRC-32C and writes them to a file
//! (`bare_server`). This process sends them as `produce` does: same batches, so many in flight, CPU and memory of the other
//! process over the same kind of window. A broker's CPU per GB divided by this one's is what being a broker costs.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, IoSlice, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::Serialize;

use crate::bare_server::ANSWER_BYTES;
use crate::batch::{BatchBuffer, BatchHeader, BatchTemplate};
use crate::cli::{parse_bytes, parse_duration};
use crate::clock::{UnixOffset, monotonic_ns, process_cpu_ns};
use crate::compression::Compression;
use crate::control;
use crate::process::{self, ProcessSample};
use crate::report::{Broker, Cpu, Direction, Report};
use crate::stats::{Tally, Window};

/// Send batches to a bare loop (receive, check CRC-32C, write to a file): the floor under a broker's CPU per GB.
#[derive(Args, Clone, Debug, Serialize)]
pub struct BareArgs {
    /// End after so many measured bytes of batches.
    #[arg(long, value_parser = parse_bytes, default_value = "4GB")]
    pub bytes: u64,
    /// End after so much measured time at the latest.
    #[arg(long, value_parser = parse_duration, default_value = "60s")]
    pub duration: Duration,
    /// Run so long before measuring.
    #[arg(long, value_parser = parse_duration, default_value = "0s")]
    pub warmup: Duration,
    /// Bytes of a message's value.
    #[arg(long, value_parser = parse_bytes, default_value = "1024")]
    pub message_bytes: u64,
    /// Most bytes of a batch.
    #[arg(long, value_parser = parse_bytes, default_value = "64KiB")]
    pub batch_bytes: u64,
    /// Batches in flight.
    #[arg(long, default_value_t = 5)]
    pub in_flight: usize,
    /// Bytes of the server's receive buffer.
    #[arg(long, value_parser = parse_bytes, default_value = "512KiB")]
    pub receive_bytes: u64,
    /// The server writes all batches of a read by one pwritev, and answers them together.
    #[arg(long)]
    pub coalesce: bool,
    /// The server's file is made here and removed at the end.
    #[arg(long, default_value = ".")]
    pub dir: PathBuf,
    /// CPUs to run on; the server stays on any.
    #[arg(long, value_delimiter = ',')]
    pub pin: Vec<usize>,
    /// CPUs of the server; only the first is used.
    #[arg(long, value_delimiter = ',')]
    pub pin_server: Vec<usize>,
    /// Write results as JSON to a file, or to standard output (`-`).
    #[arg(long)]
    pub json: Option<String>,
}

/// The child process and its file, both gone when this is dropped.
struct Server {
    child: Child,
    file: PathBuf,
    port: u16,
}

impl Server {
    fn start(args: &BareArgs, batch_bytes: usize) -> Result<Self> {
        if let Some(&cpu) = args.pin_server.first() {
            process::pin_to_cpu(cpu)?; // The child inherits it.
        }
        let file = args.dir.join(format!("loadgen-bare-{}", std::process::id()));
        let receive_bytes = usize::try_from(args.receive_bytes)?.max(batch_bytes + (4 << 10));
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("bare-server").arg("--file").arg(&file);
        command.arg("--receive-bytes").arg(receive_bytes.to_string());
        if args.coalesce {
            command.arg("--coalesce");
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut server = Self { child, file, port: 0 };
        let mut line = String::new();
        let stdout = server.child.stdout.take().context("the child has no output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        server.port = line.trim().parse().context("the bare server did not start")?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill(); // It may have ended by itself.
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.file);
    }
}

/// CPU of both processes at an edge of the window.
struct Sample {
    own_cpu_ns: u64,
    server: ProcessSample,
}

impl Sample {
    fn take(server: &Server) -> Result<Self> {
        Ok(Self { own_cpu_ns: process_cpu_ns(), server: ProcessSample::take(server.child.id())? })
    }
}

/// Runs the loop.
///
/// # Errors
/// If the server cannot be started, or gives up.
pub fn run(args: &BareArgs) -> Result<Report> {
    ensure!(args.in_flight > 0, "--in-flight must be at least 1");
    let template = BatchTemplate::new(
        usize::try_from(args.message_bytes)?,
        usize::try_from(args.batch_bytes)?,
        u32::MAX,
        Compression::None,
        None,
    )?;
    let batch_bytes = usize::try_from(args.batch_bytes.max(args.message_bytes))?;
    let server = Server::start(args, batch_bytes)?;
    if let Some(&cpu) = args.pin.first() {
        process::pin_to_cpu(cpu)?;
    }
    let mut stream = control::connect(&format!("127.0.0.1:{}", server.port))?;
    let unix = UnixOffset::take();
    let start_ns = monotonic_ns();
    let window_start_ns = start_ns + u64::try_from(args.warmup.as_nanos())?;
    let end_ns = window_start_ns + u64::try_from(args.duration.as_nanos())?;
    let window = Window { start_ns: window_start_ns, end_ns };
    let (mut tally, mut batch, mut in_flight) = (Tally::new(), BatchBuffer::default(), VecDeque::new());
    let mut first = None;
    let mut answers = vec![0; ANSWER_BYTES * args.in_flight];
    let last = loop {
        let now_ns = monotonic_ns();
        if first.is_none() && now_ns >= window.start_ns {
            first = Some(Sample::take(&server)?);
        }
        if now_ns >= window.end_ns || tally.wire_bytes >= args.bytes {
            break Sample::take(&server)?;
        }
        while in_flight.len() < args.in_flight {
            let header = BatchHeader {
                count: template.count_max(),
                timestamp_ms: unix.unix_ms(now_ns),
                producer_id: -1,
                producer_epoch: -1,
                base_sequence: -1,
                is_transactional: false,
            };
            template.write(&mut batch, &header)?;
            send(&mut stream, batch.as_slice()).context("the bare server is gone")?;
            in_flight.push_back((monotonic_ns(), batch.as_slice().len() as u64));
        }
        let mut count = stream.read(&mut answers).context("the bare server is gone")?;
        let torn = count % ANSWER_BYTES;
        if count == 0 {
            bail!("the bare server closed the connection");
        } else if torn > 0 {
            stream.read_exact(&mut answers[count..count + ANSWER_BYTES - torn])?;
            count += ANSWER_BYTES - torn;
        }
        let now_ns = monotonic_ns();
        for _ in 0..count / ANSWER_BYTES {
            let (sent_ns, bytes) = in_flight.pop_front().context("an answer to no batch")?;
            let messages = u64::from(template.count_max());
            tally.count(&window, now_ns, messages, bytes);
            if window.contains(now_ns) {
                let waited_ns = now_ns - sent_ns;
                let _ = tally.latency.record_n(waited_ns, messages);
                tally.service.saturating_record(waited_ns);
            }
        }
    };
    report(args, &server, &window, &tally, unix, [first.context("nothing was measured")?, last])
}

fn report(
    args: &BareArgs,
    server: &Server,
    window: &Window,
    tally: &Tally,
    unix: UnixOffset,
    [first, last]: [Sample; 2],
) -> Result<Report> {
    let measured = Duration::from_nanos(tally.last_ns.saturating_sub(window.start_ns));
    let produce = Direction::new(tally, measured);
    let own_cpu_s = Duration::from_nanos(last.own_cpu_ns - first.own_cpu_ns).as_secs_f64();
    Ok(Report {
        loadgen: env!("CARGO_PKG_VERSION"),
        command: "bare",
        options: serde_json::json!({ "bare": args }),
        partitions: 1,
        started_unix_ms: unix.unix_ms(window.start_ns),
        window_s: measured.as_secs_f64(),
        broker: Some(Broker::new(
            server.child.id(),
            [first.server, last.server, last.server],
            measured,
            &produce,
        )),
        loadgen_cpu: Cpu::new(own_cpu_s, measured, &produce),
        produce: Some(produce),
        consume: None,
        verify: None,
    })
}

fn send(stream: &mut TcpStream, batch: &[u8]) -> Result<()> {
    let size = u32::try_from(batch.len())?.to_be_bytes();
    let written = stream.write_vectored(&[IoSlice::new(&size), IoSlice::new(batch)])?;
    // A blocking socket takes all of it, unless a signal or a timeout comes between.
    if written < size.len() {
        stream.write_all(&size[written..])?;
    }
    Ok(stream.write_all(&batch[written.saturating_sub(size.len())..])?)
}
