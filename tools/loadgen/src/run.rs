//! A run from the first connection to the report.
//!
//! The main thread lets all clients connect, then fixes the timeline. From there it only sleeps until the next second or
//! the edge of the measured window, samples CPU and memory there, and gathers what the workers counted. Whatever ends a
//! worker with an error ends the run.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriter, IntervalLogWriterBuilder, Tag};
use rustix::termios::tcgetwinsize;

use crate::cli::{Command, CommonArgs};
use crate::clock::{MILLISECOND_NS, SECOND_NS, monotonic_ns, process_cpu_ns};
use crate::control::Control;
use crate::crew::Crew;
use crate::process::{self, ProcessSample};
use crate::report::{Broker, Cpu, Direction, Report, progress_line};
use crate::setup::{self, Setup};
use crate::stats::{Interval, Tally, Window};
use crate::timeline::Timeline;
use crate::verify::{Ledger, StreamId, Verdict, Verifier};
use crate::view::{Moment, View};

/// From "all are connected" to the first message.
const START_DELAY_NS: u64 = 10 * MILLISECOND_NS;
/// Values of the interval log are nanoseconds; its Max column is milliseconds.
const HDR_MAX_DIVISOR: f64 = MILLISECOND_NS as f64;

/// Columns of a terminal that does not say how many it has.
const DEFAULT_WIDTH: usize = 80;

type HdrLog<'a> = IntervalLogWriter<'a, 'a, BufWriter<File>, V2DeflateSerializer>;

/// Runs a command. What its producers had acknowledged goes into the ledger, and what its consumers verify is held
/// against what is there.
///
/// # Errors
/// The first thing that could not go on, of the broker, the clients or the result files.
pub fn run(command: &Command, ledger: &mut Ledger) -> Result<Report> {
    command.check()?;
    let args = command.common();
    if let Some(&cpu) = args.pin.first() {
        process::pin_to_cpu(cpu)?;
    }
    let mut setup = setup::prepare(command)?;
    let mut crew = Crew::start(&mut setup, args)?;
    crew.await_connected()?;
    let timeline = fix_timeline(command, &setup)?;
    let mut watch = Watch::new(command, timeline, setup.partition_count);
    let mut serializer = V2DeflateSerializer::new();
    let mut hdr_file = match &args.hdr_log {
        Some(path) => Some(BufWriter::new(File::create(path).with_context(|| format!("creating {path}"))?)),
        None => None,
    };
    let mut hdr_log = match &mut hdr_file {
        Some(file) => Some(begin_hdr_log(file, &mut serializer)?),
        None => None,
    };
    crew.begin();
    watch.follow(&mut crew, &setup, &mut hdr_log)?;
    drop(hdr_log);
    if let Some(file) = &mut hdr_file {
        file.flush().context("writing the latency log")?;
    }
    let topic = ledger_name(args);
    note_acknowledged(&topic, &setup, &crew, ledger);
    let is_verified = args.verify && !crew.consumers.is_empty();
    let reads_all = command.produce().is_some()
        || command.consume().is_some_and(|consume| consume.from_beginning && consume.exit_at_end);
    let verdict = is_verified.then(|| verdict(&topic, &setup, &crew, reads_all, ledger));
    if args.delete_topic {
        Control::bootstrap(&args.bootstrap)?.delete_topics(&args.topic_names())?;
        ledger.forget(&topic);
    }
    watch.report(&setup, verdict)
}

fn fix_timeline(command: &Command, setup: &Setup) -> Result<Timeline> {
    let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos());
    let args = command.common();
    let start_ns = monotonic_ns() + START_DELAY_NS;
    let window_start_ns = start_ns + nanoseconds(args.warmup)?;
    let window_end_ns = match command.duration() {
        Some(duration) => window_start_ns + nanoseconds(duration)?,
        None => u64::MAX,
    };
    let window = Window { start_ns: window_start_ns, end_ns: window_end_ns };
    let timeline = Timeline { start_ns, window, drain_ns: nanoseconds(args.drain)? };
    setup.timeline.set(timeline).map_err(|_| anyhow!("the timeline is fixed once"))?;
    Ok(timeline)
}

fn begin_hdr_log<'a>(
    file: &'a mut BufWriter<File>,
    serializer: &'a mut V2DeflateSerializer,
) -> Result<HdrLog<'a>> {
    let now = SystemTime::now();
    IntervalLogWriterBuilder::new()
        .add_comment("loadgen: values in nanoseconds, Max in milliseconds")
        .with_start_time(now)
        .with_base_time(now)
        .with_max_value_divisor(HDR_MAX_DIVISOR)
        .begin_log_with(file, serializer)
        .context("writing the latency log")
}

/// Runs on the same topics of the same brokers share what was acknowledged.
fn ledger_name(args: &CommonArgs) -> String {
    format!("{} {} {}", args.bootstrap, args.topic, args.topics.unwrap_or(0))
}

fn note_acknowledged(topic: &str, setup: &Setup, crew: &Crew, ledger: &mut Ledger) {
    for producer in crew.producers.iter().filter(|producer| producer.is_stamping()) {
        for (partition, acknowledged_count) in producer.acknowledged_counts().enumerate() {
            if acknowledged_count > 0 {
                let id = StreamId { run_id: setup.run_id, producer: producer.number(), partition };
                ledger.note(topic, id, acknowledged_count);
            }
        }
        if !producer.is_idempotent() {
            ledger.note_resent(topic, producer.retried_count);
        }
    }
}

/// Adds up what the consumers found; what is acknowledged but lies beyond all that they read is lost, too, if they were to
/// read all.
fn verdict(topic: &str, setup: &Setup, crew: &Crew, reads_all: bool, ledger: &Ledger) -> Verdict {
    let mut sum = Verdict { resent: ledger.resent(topic), ..Verdict::default() };
    let mut reader_of = vec![None; setup.partition_count];
    for consumer in &crew.consumers {
        sum.add(&consumer.verifier.verdict());
        consumer.partitions().for_each(|partition| reader_of[partition] = Some(&consumer.verifier));
    }
    if reads_all {
        // Those of this run: a reader that began at the log's end knows nothing of earlier ones.
        let is_of_this_run = |id: &StreamId| crew.producers.is_empty() || id.run_id == setup.run_id;
        for &(id, acknowledged_count) in ledger.streams(topic).iter().filter(|(id, _)| is_of_this_run(id)) {
            let reader = reader_of.get(id.partition).copied().flatten();
            sum.lost += reader.map_or(0, |reader: &Verifier| reader.missing_at_end(id, acknowledged_count));
        }
    }
    sum
}

/// CPU and memory at an edge of the window.
#[derive(Clone, Copy)]
struct Sample {
    own_cpu_ns: u64,
    broker: ProcessSample,
}

/// The main thread's view of a run.
struct Watch<'a> {
    command: &'a Command,
    timeline: Timeline,
    total: Interval,
    first: Option<Sample>,
    last: Option<Sample>,
    peak: ProcessSample,
    finished_ns: u64,
    view: Option<View>,
}

impl<'a> Watch<'a> {
    fn new(command: &'a Command, timeline: Timeline, partition_count: usize) -> Self {
        let args = command.common();
        let has_view = args.view && !args.quiet && std::io::stderr().is_terminal();
        let view = has_view.then(|| {
            let topics = args.topics.map_or(String::new(), |count| format!("{count} topics "));
            let title = format!("{} {topics}{} ({partition_count} partitions)", command.name(), args.topic);
            View::new(title, command.produce().is_some(), command.consume().is_some())
        });
        Self {
            command,
            timeline,
            total: Interval::new(),
            first: None,
            last: None,
            peak: ProcessSample::default(),
            finished_ns: 0,
            view,
        }
    }

    /// Sleeps, samples and gathers until all workers are back.
    fn follow(&mut self, crew: &mut Crew, setup: &Setup, hdr_log: &mut Option<HdrLog<'_>>) -> Result<()> {
        let window = self.timeline.window;
        let (mut second, mut spare) = (Interval::new(), Interval::new());
        let mut tick_ns = self.timeline.start_ns + SECOND_NS;
        let mut was_producing = crew.is_producing();
        loop {
            let mut now_ns = monotonic_ns();
            let edge_ns = if self.first.is_none() { window.start_ns } else { window.end_ns };
            let next_ns = if self.last.is_none() { tick_ns.min(edge_ns) } else { tick_ns };
            crew.wait(Duration::from_nanos(next_ns.saturating_sub(now_ns)))?;
            now_ns = monotonic_ns();
            if was_producing && !crew.is_producing() {
                was_producing = false;
                crew.set_consumer_deadline(now_ns + self.timeline.drain_ns);
                setup.handover.producers_are_done.store(true, Ordering::Release);
            }
            if self.first.is_none() && now_ns >= window.start_ns {
                self.first = Some(self.sample()?);
            }
            // A run that a count ends is over when its producers are, or when everybody is.
            let is_over = now_ns >= window.end_ns
                || crew.is_home()
                || (window.end_ns == u64::MAX && !was_producing && self.command.produce().is_some());
            if self.last.is_none() && is_over {
                self.last = Some(self.sample()?);
            }
            if now_ns >= tick_ns || crew.is_home() {
                for shared in &crew.intervals {
                    shared.swap(&mut spare);
                    second.add(&spare);
                    spare.reset();
                }
                self.total.add(&second);
                let length = Duration::from_nanos(now_ns.saturating_sub(tick_ns - SECOND_NS));
                if let Some(log) = hdr_log {
                    self.log_interval(log, &second, now_ns, length)?;
                }
                let broker = self.observe_peak()?;
                if self.view.is_some() {
                    self.draw_view(&second, now_ns, length, broker, crew.is_home());
                } else if !self.command.common().quiet && now_ns >= tick_ns {
                    self.print_progress(&second, now_ns);
                }
                second.reset();
                tick_ns += SECOND_NS;
            }
            if crew.is_home() {
                self.finished_ns = now_ns;
                return Ok(());
            }
        }
    }

    fn sample(&mut self) -> Result<Sample> {
        let broker = self.observe_peak()?;
        Ok(Sample { own_cpu_ns: process_cpu_ns(), broker })
    }

    fn observe_peak(&mut self) -> Result<ProcessSample> {
        let Some(pid) = self.command.common().broker_pid else { return Ok(ProcessSample::default()) };
        let sample = ProcessSample::take(pid)?;
        if self.first.is_some() && self.last.is_none() {
            self.peak.rss_bytes = self.peak.rss_bytes.max(sample.rss_bytes);
            self.peak.rss_anonymous_bytes = self.peak.rss_anonymous_bytes.max(sample.rss_anonymous_bytes);
        }
        Ok(sample)
    }

    fn log_interval(
        &self,
        log: &mut HdrLog<'_>,
        second: &Interval,
        now_ns: u64,
        length: Duration,
    ) -> Result<()> {
        let start =
            Duration::from_nanos(now_ns.saturating_sub(self.timeline.start_ns)).saturating_sub(length);
        for (name, histogram) in [
            ("produce", &second.produce.latency),
            ("fetch", &second.consume.latency),
            ("end_to_end", &second.consume.end_to_end),
        ] {
            if !histogram.is_empty() {
                log.write_histogram(histogram, start, length, Tag::new(name))
                    .map_err(|error| anyhow!("writing the latency log: {error:?}"))?;
            }
        }
        Ok(())
    }

    fn print_progress(&self, second: &Interval, now_ns: u64) {
        let mut rates: Vec<(&str, &Tally)> = Vec::new();
        let mut latency = &self.total.consume.latency;
        if self.command.consume().is_some() {
            rates.push(("in", &second.consume));
        }
        if self.command.produce().is_some() {
            rates.insert(0, ("out", &second.produce));
            latency = &self.total.produce.latency;
        }
        let elapsed = Duration::from_nanos(now_ns.saturating_sub(self.timeline.start_ns));
        let is_warm = now_ns >= self.timeline.window.start_ns;
        eprintln!("{}", progress_line(elapsed, is_warm, &rates, latency));
    }

    fn draw_view(
        &mut self,
        second: &Interval,
        now_ns: u64,
        length: Duration,
        broker: ProcessSample,
        is_over: bool,
    ) {
        let window = self.timeline.window;
        let moment = Moment {
            elapsed: Duration::from_nanos(now_ns.saturating_sub(self.timeline.start_ns)),
            phase: match now_ns {
                _ if is_over => "done",
                now_ns if now_ns < window.start_ns => "warming up",
                now_ns if now_ns < window.end_ns => "measuring",
                _ => "waiting for the last answers",
            },
            second,
            total: &self.total,
            second_length: length,
            broker: self.command.common().broker_pid.map(|_| broker),
            own_cpu: Duration::from_nanos(process_cpu_ns()),
        };
        let width = tcgetwinsize(std::io::stderr()).map_or(0, |size| usize::from(size.ws_col));
        let width = if width == 0 { DEFAULT_WIDTH } else { width };
        if let Some(view) = &mut self.view {
            eprint!("{}", view.draw(&moment, width));
        }
    }

    /// How long was measured: the window, or until the last answer if a count ended the run.
    fn measured(&self) -> Duration {
        let window = self.timeline.window;
        let last_ns = self.total.produce.last_ns.max(self.total.consume.last_ns);
        let end_ns = if self.finished_ns >= window.end_ns { window.end_ns } else { last_ns };
        Duration::from_nanos(end_ns.saturating_sub(window.start_ns))
    }

    fn report(&self, setup: &Setup, verify: Option<Verdict>) -> Result<Report> {
        let (command, window) = (self.command, self.measured());
        let produce = command.produce().map(|_| Direction::new(&self.total.produce, window));
        let consume = command.consume().map(|_| Direction::new(&self.total.consume, window));
        let work = produce.as_ref().or(consume.as_ref()).context("a command without work")?;
        let (first, last) = self
            .first
            .zip(self.last)
            .context("the run ended within its warm-up, before anything was measured")?;
        let broker = command.common().broker_pid.map(|pid| {
            let peak = ProcessSample { ..self.peak };
            Broker::new(pid, [first.broker, last.broker, peak], window, work)
        });
        let own_cpu_s = Duration::from_nanos(last.own_cpu_ns - first.own_cpu_ns).as_secs_f64();
        Ok(Report {
            loadgen: env!("CARGO_PKG_VERSION"),
            command: command.name(),
            options: serde_json::json!({
                "common": command.common(),
                "produce": command.produce(),
                "consume": command.consume(),
            }),
            partitions: setup.partition_count,
            started_unix_ms: setup.unix.unix_ms(self.timeline.start_ns),
            window_s: window.as_secs_f64(),
            loadgen_cpu: Cpu::new(own_cpu_s, window, work),
            produce,
            consume,
            verify,
            broker,
        })
    }
}
