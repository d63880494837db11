//! `loadgen pubsub`: PUBLISH to many subscribers of a server that speaks the Redis protocol.
//!
//! One thread publishes to a channel, another has all of its subscribers (`subscribers`). A message counts once for each of
//! them. **End to end** is from its intended send time (open loop, `--rate`) to its reading by a subscriber, **service** from
//! its actual send. Where they differ in an open loop, the publisher was late: not scheduled, or `--pipeline` answers were
//! due. It looks at its answers only then: woken by each, it would take the processor from a subscriber.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
use serde::Serialize;

use crate::cli::{parse_bytes, parse_duration};
use crate::clock::{self, MILLISECOND_NS, UnixOffset, monotonic_ns, process_cpu_ns};
use crate::control;
use crate::payload::{self, Stamp};
use crate::process::{self, ProcessSample};
use crate::report::{Broker, Cpu, Direction, Report};
use crate::schedule::Schedule;
use crate::stats::{Tally, Window};
use crate::subscribers::{Published, SENT_AT, Subscribers, encode, subscribe};

/// What those who never read are sent before: more than sockets hold, less than Redis closes a client for.
const DEAF_MESSAGES: usize = 100;
const DEAF_MESSAGE_BYTES: usize = 64 << 10;
/// From the last preparation to the first message.
const LEAD_NS: u64 = 50 * MILLISECOND_NS;
/// Descriptors beside the subscribers' sockets.
const DESCRIPTORS_BESIDE: u64 = 64;

/// Publish to subscribers at the Redis protocol; measure deliveries and the time until a subscriber has a message.
#[derive(Args, Clone, Debug, Serialize)]
pub struct PubsubArgs {
    /// The server, `HOST:PORT`.
    #[arg(long, default_value = "127.0.0.1:6379")]
    pub server: String,
    /// The channel; default is one of this process's own.
    #[arg(long)]
    pub channel: Option<String>,
    /// Subscribers that read.
    #[arg(long, default_value_t = 1)]
    pub subscribers: usize,
    /// Subscribers beside them that never read; they are sent 6.5 MB before.
    #[arg(long, default_value_t = 0)]
    pub deaf: usize,
    /// Messages a second (open loop); 0 is as fast as possible (closed loop).
    #[arg(long, default_value_t = 0.0)]
    pub rate: f64,
    /// PUBLISHes without an answer, at most.
    #[arg(long, default_value_t = 64)]
    pub pipeline: usize,
    /// Bytes of a message.
    #[arg(long, value_parser = parse_bytes, default_value = "100")]
    pub message_bytes: u64,
    /// End after so much measured time. Default 10s unless a count is given.
    #[arg(long, value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// End after so many messages, warm-up included.
    #[arg(long)]
    pub messages: Option<u64>,
    /// Run so long before measuring.
    #[arg(long, value_parser = parse_duration, default_value = "0s")]
    pub warmup: Duration,
    /// How long after the end messages are awaited; one that has not come then ends the run with an error.
    #[arg(long, value_parser = parse_duration, default_value = "60s")]
    pub drain: Duration,
    /// CPUs to run on, e.g. `1` or `2,3`: the publisher on the first, the subscribers on the next.
    #[arg(long, value_delimiter = ',')]
    pub pin: Vec<usize>,
    /// Report this process's CPU and memory over the measured window.
    #[arg(long)]
    pub broker_pid: Option<u32>,
    /// Write results as JSON to a file, or to standard output (`-`).
    #[arg(long)]
    pub json: Option<String>,
}

impl PubsubArgs {
    fn check(&self) -> Result<()> {
        ensure!(self.subscribers > 0, "--subscribers must be at least 1");
        ensure!(self.pipeline > 0, "--pipeline must be at least 1");
        ensure!(
            self.rate >= 0.0 && self.rate.is_finite(),
            "--rate must be a number of messages a second, or 0"
        );
        ensure!(
            self.message_bytes >= SENT_AT.end as u64,
            "--message-bytes must be at least {}: messages tell when they were sent",
            SENT_AT.end
        );
        Ok(())
    }

    /// The measured window of a run that begins at `start_ns`.
    fn window(&self, start_ns: u64) -> Result<Window> {
        let start_ns = start_ns + u64::try_from(self.warmup.as_nanos())?;
        let duration = self.duration.or(self.messages.is_none().then_some(Duration::from_secs(10)));
        let end_ns = match duration {
            Some(duration) => start_ns + u64::try_from(duration.as_nanos())?,
            None => u64::MAX,
        };
        Ok(Window { start_ns, end_ns })
    }
}

/// The connection that publishes.
struct Publisher {
    stream: TcpStream,
    /// One PUBLISH, its message at `stamp_at`.
    command: Vec<u8>,
    stamp_at: usize,
    message_bytes: usize,
    /// What each is answered by.
    answer: Vec<u8>,
    unanswered: usize,
}

impl Publisher {
    fn new(stream: TcpStream, channel: &str, message_bytes: usize, subscribers: usize) -> Self {
        let mut message = vec![0; message_bytes];
        payload::fill(&mut message, 1);
        let command = encode(&[b"PUBLISH", channel.as_bytes(), &message]);
        let stamp_at = command.len() - message_bytes - 2;
        let answer = format!(":{subscribers}\r\n").into_bytes();
        Self { stream, command, stamp_at, message_bytes, answer, unanswered: 0 }
    }

    /// Adds a PUBLISH that is about to be sent to `out`.
    fn encode(&mut self, stamp: &Stamp, out: &mut Vec<u8>) -> Result<()> {
        let message = &mut self.command[self.stamp_at..][..self.message_bytes];
        message[SENT_AT].copy_from_slice(&monotonic_ns().to_be_bytes());
        payload::stamp(message, stamp)?;
        out.extend_from_slice(&self.command);
        self.unanswered += 1;
        Ok(())
    }

    /// Waits until all are answered.
    fn take_answers(&mut self) -> Result<()> {
        let mut answers = vec![0; self.answer.len() * self.unanswered];
        self.stream.read_exact(&mut answers).context("the server does not answer PUBLISH")?;
        self.unanswered = 0;
        let wrong = answers.chunks(self.answer.len()).any(|answer| answer != self.answer);
        ensure!(
            !wrong,
            "PUBLISH is answered by {:?} and not by the number of subscribers",
            String::from_utf8_lossy(&answers[..answers.len().min(100)])
        );
        Ok(())
    }

    /// Publishes until the end of the window, or `messages`; returns how many.
    fn run(&mut self, args: &PubsubArgs, start_ns: u64, published: &Published) -> Result<u64> {
        let messages = args.messages.unwrap_or(u64::MAX);
        let schedule = (args.rate > 0.0).then(|| Schedule::new(start_ns, args.rate, 0, 1));
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
        sleep_until(&timer, start_ns)?;
        let (mut count, mut out) = (0, Vec::new());
        while count < messages && published.count().is_none() {
            // Of an open loop one at its time, of a closed one as many as the pipeline holds.
            let batch = if schedule.is_some() { 1 } else { (messages - count).min(args.pipeline as u64) };
            let intended_ns = schedule.map_or_else(monotonic_ns, |schedule| schedule.intended_ns(count));
            if intended_ns >= published.window.end_ns {
                break;
            }
            if schedule.is_some() && intended_ns > monotonic_ns() {
                sleep_until(&timer, intended_ns)?;
            }
            out.clear();
            for sequence in count..count + batch {
                let intended_unix_ns = published.unix.unix_ns(intended_ns);
                let stamp = Stamp { run_id: published.run_id, producer: 0, sequence, intended_unix_ns };
                self.encode(&stamp, &mut out)?;
            }
            self.stream.write_all(&out).context("the server takes no more messages")?;
            count += batch;
            if self.unanswered >= args.pipeline {
                self.take_answers()?;
            }
        }
        self.take_answers()?;
        Ok(count)
    }
}

/// Sleeps until an instant of the monotonic clock, without the slack of other ways to sleep.
fn sleep_until(timer: &OwnedFd, instant_ns: u64) -> Result<()> {
    clock::arm(timer, instant_ns)?;
    rustix::io::retry_on_intr(|| rustix::io::read(timer, &mut [0; 8]))?;
    Ok(())
}

/// Subscribers that never read, with more on its way to each than its socket holds.
fn subscribe_deaf(args: &PubsubArgs, channel: &str, stream: &TcpStream) -> Result<Vec<TcpStream>> {
    let deaf = (0..args.deaf).map(|_| subscribe(&args.server, channel)).collect::<Result<Vec<_>>>()?;
    if !deaf.is_empty() {
        let mut filler = Publisher::new(stream.try_clone()?, channel, DEAF_MESSAGE_BYTES, deaf.len());
        for _ in 0..DEAF_MESSAGES {
            filler.stream.write_all(&filler.command)?;
            filler.unanswered = 1;
            filler.take_answers()?;
        }
    }
    Ok(deaf)
}

/// CPU of both processes at an edge of the window.
struct Sample {
    own_cpu_ns: u64,
    server: Option<ProcessSample>,
}

impl Sample {
    fn take(args: &PubsubArgs) -> Result<Self> {
        let server = args.broker_pid.map(ProcessSample::take).transpose()?;
        Ok(Self { own_cpu_ns: process_cpu_ns(), server })
    }
}

/// Runs the load.
///
/// # Errors
/// If the server is not there or hangs up, or a message does not reach every subscriber as it should.
pub fn run(args: &PubsubArgs) -> Result<Report> {
    args.check()?;
    process::raise_descriptor_limit((args.subscribers + args.deaf) as u64 + DESCRIPTORS_BESIDE)?;
    let message_bytes = usize::try_from(args.message_bytes)?;
    let channel = args.channel.clone().unwrap_or_else(|| format!("loadgen-{}", std::process::id()));
    let stream = control::connect(&args.server)?;
    let deaf = subscribe_deaf(args, &channel, &stream)?;
    let mut subscribers = Subscribers::new(&args.server, &channel, args.subscribers, message_bytes)?;
    let mut publisher = Publisher::new(stream, &channel, message_bytes, args.subscribers + deaf.len());

    let start_ns = monotonic_ns() + LEAD_NS;
    let window = args.window(start_ns)?;
    let published =
        Published::new(std::process::id(), UnixOffset::take(), window, u64::try_from(args.drain.as_nanos())?);
    let pin = |turn: usize| {
        let cpu = args.pin.iter().cycle().nth(turn);
        cpu.map_or(Ok(()), |&cpu| process::pin_to_cpu(cpu))
    };
    thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            let outcome = pin(0).and_then(|()| publisher.run(args, start_ns, &published));
            published.end(*outcome.as_ref().unwrap_or(&0));
            outcome
        });
        let receiving = scope.spawn(|| {
            let outcome = pin(1).and_then(|()| subscribers.run(&published));
            outcome.inspect_err(|_| published.end(0))
        });
        thread::sleep(Duration::from_nanos(window.start_ns.saturating_sub(monotonic_ns())));
        let first = Sample::take(args)?;
        let messages = publishing.join().expect("the publisher does not panic")?;
        let tally = receiving.join().expect("the subscribers do not panic")?;
        report(args, &published, messages, &tally, [first, Sample::take(args)?])
    })
}

fn report(
    args: &PubsubArgs,
    published: &Published,
    messages: u64,
    tally: &Tally,
    [first, last]: [Sample; 2],
) -> Result<Report> {
    let measured = Duration::from_nanos(tally.last_ns.saturating_sub(published.window.start_ns));
    let consume = Direction::new(tally, measured);
    let own_cpu_s = Duration::from_nanos(last.own_cpu_ns - first.own_cpu_ns).as_secs_f64();
    let broker = match (args.broker_pid, first.server, last.server) {
        (Some(pid), Some(first), Some(last)) => {
            Some(Broker::new(pid, [first, last, last], measured, &consume))
        }
        _ => None,
    };
    Ok(Report {
        loadgen: env!("CARGO_PKG_VERSION"),
        command: "pubsub",
        options: serde_json::json!({ "pubsub": args, "published": messages }),
        partitions: 1,
        started_unix_ms: published.unix.unix_ms(published.window.start_ns),
        window_s: measured.as_secs_f64(),
        produce: None,
        broker,
        loadgen_cpu: Cpu::new(own_cpu_s, measured, &consume),
        consume: Some(consume),
        verify: None,
    })
}
