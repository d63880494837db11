//! Results: for people on the console, for scripts as JSON, for HdrHistogram's tools as an interval log.
//!
//! MB and GB are 10^6 and 10^9 bytes of record batches on the wire. CPU per GB, per message and per request are of what
//! was answered within the measured window, over the CPU used within it.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer as _, V2DeflateSerializer};
use serde::Serialize;

use crate::process::ProcessSample;
use crate::stats::Tally;
use crate::verify::Verdict;

const GB: f64 = 1e9;
const MB: f64 = 1e6;
const US_NS: f64 = 1e3;

/// Percentiles in microseconds, and all that they were taken from.
#[derive(Clone, Debug, Serialize)]
pub struct Percentiles {
    pub count: u64,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub p99_99: f64,
    pub max: f64,
    /// The histogram in nanoseconds: HdrHistogram's V2 encoding, deflated, as base64.
    pub hdr: String,
}

impl Percentiles {
    /// Reads a histogram of nanoseconds; `None` if it is empty.
    pub fn of(histogram: &Histogram<u64>) -> Option<Self> {
        if histogram.is_empty() {
            return None;
        }
        let us = |quantile| histogram.value_at_quantile(quantile) as f64 / US_NS;
        let mut encoded = Vec::new();
        V2DeflateSerializer::new().serialize(histogram, &mut encoded).expect("memory takes all bytes");
        Some(Self {
            count: histogram.len(),
            mean: histogram.mean() / US_NS,
            p50: us(0.5),
            p90: us(0.9),
            p99: us(0.99),
            p99_9: us(0.999),
            p99_99: us(0.999_9),
            max: histogram.max() as f64 / US_NS,
            hdr: STANDARD.encode(encoded),
        })
    }

    /// The percentiles for people.
    pub fn to_text(&self) -> String {
        let [p50, p90, p99, p99_9, p99_99, max] =
            [self.p50, self.p90, self.p99, self.p99_9, self.p99_99, self.max].map(grouped);
        format!("p50 {p50}  p90 {p90}  p99 {p99}  p99.9 {p99_9}  p99.99 {p99_99}  max {max}  (us)")
    }
}

/// One direction's results.
#[derive(Debug, Serialize)]
pub struct Direction {
    pub messages: u64,
    pub wire_bytes: u64,
    pub requests: u64,
    pub retries: u64,
    /// Messages without an answer at the end. Their latencies are lower bounds.
    pub unfinished: u64,
    pub messages_per_s: f64,
    pub mb_per_s: f64,
    pub requests_per_s: f64,
    /// Produce: per message, from the intended send (open loop) or the send (closed loop). Consume: per fetch.
    pub latency_us: Option<Percentiles>,
    /// Produce: per request, from the actual send.
    pub service_us: Option<Percentiles>,
    /// Consume, stamped: per message, from the intended send to the reading.
    pub end_to_end_us: Option<Percentiles>,
    /// Produce, transactional: per transaction, from the request to commit it to the answer.
    pub commit_us: Option<Percentiles>,
    /// Transactions that were committed.
    pub commits: u64,
}

impl Direction {
    /// Rates of a tally over a window.
    pub fn new(tally: &Tally, window: Duration) -> Self {
        let per_s = |amount: f64| amount / window.as_secs_f64().max(f64::MIN_POSITIVE);
        Self {
            messages: tally.messages,
            wire_bytes: tally.wire_bytes,
            requests: tally.requests,
            retries: tally.retries,
            unfinished: tally.unfinished,
            messages_per_s: per_s(tally.messages as f64),
            mb_per_s: per_s(tally.wire_bytes as f64 / MB),
            requests_per_s: per_s(tally.requests as f64),
            latency_us: Percentiles::of(&tally.latency),
            service_us: Percentiles::of(&tally.service),
            end_to_end_us: Percentiles::of(&tally.end_to_end),
            commit_us: Percentiles::of(&tally.commit),
            commits: tally.commit.len(),
        }
    }
}

/// CPU over the window, and what it comes to.
#[derive(Debug, Serialize)]
pub struct Cpu {
    pub cpu_s: f64,
    /// CPU seconds per second.
    pub cores: f64,
    pub s_per_gb: Option<f64>,
    pub s_per_million_messages: Option<f64>,
    pub us_per_request: Option<f64>,
}

impl Cpu {
    /// Divides CPU seconds by the work done.
    pub fn new(cpu_s: f64, window: Duration, work: &Direction) -> Self {
        let per = |amount: f64| if amount > 0.0 { Some(cpu_s / amount) } else { None };
        Self {
            cpu_s,
            cores: cpu_s / window.as_secs_f64().max(f64::MIN_POSITIVE),
            s_per_gb: per(work.wire_bytes as f64 / GB),
            s_per_million_messages: per(work.messages as f64 / 1e6),
            us_per_request: per(work.requests as f64 / 1e6),
        }
    }
}

/// The broker over the window.
#[derive(Debug, Serialize)]
pub struct Broker {
    pub pid: u32,
    #[serde(flatten)]
    pub cpu: Cpu,
    pub cpu_user_s: f64,
    pub cpu_system_s: f64,
    /// The most of the samples taken once a second.
    pub rss_window_peak_bytes: u64,
    /// Of those, memory that is not mapped files.
    pub rss_anonymous_window_peak_bytes: u64,
    /// The most since the broker began.
    pub rss_peak_bytes: u64,
}

impl Broker {
    /// From samples at both ends of the window and the peaks between.
    pub fn new(
        pid: u32,
        [first, last, peak]: [ProcessSample; 3],
        window: Duration,
        work: &Direction,
    ) -> Self {
        Self {
            pid,
            cpu: Cpu::new(last.cpu_s() - first.cpu_s(), window, work),
            cpu_user_s: last.user_s - first.user_s,
            cpu_system_s: last.system_s - first.system_s,
            rss_window_peak_bytes: peak.rss_bytes,
            rss_anonymous_window_peak_bytes: peak.rss_anonymous_bytes,
            rss_peak_bytes: last.rss_peak_bytes,
        }
    }
}

/// All results of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    pub loadgen: &'static str,
    pub command: &'static str,
    pub options: serde_json::Value,
    pub partitions: usize,
    pub started_unix_ms: i64,
    pub window_s: f64,
    pub produce: Option<Direction>,
    pub consume: Option<Direction>,
    pub verify: Option<Verdict>,
    pub broker: Option<Broker>,
    pub loadgen_cpu: Cpu,
}

impl Report {
    /// What was verified, if anything, is clean.
    pub fn is_clean(&self) -> bool {
        self.verify.is_none_or(|verify| verify.is_clean())
    }

    /// The report for people.
    ///
    /// # Errors
    /// None that writing to a string can have.
    pub fn to_text(&self) -> Result<String> {
        let mut text = String::new();
        writeln!(text, "{}  {} partitions  {:.2} s measured", self.command, self.partitions, self.window_s)?;
        for (name, direction) in [("produced", &self.produce), ("consumed", &self.consume)] {
            let Some(direction) = direction else { continue };
            writeln!(
                text,
                "  {name:<10} {} messages  {} messages/s  {:.1} MB/s  {} requests/s",
                grouped(direction.messages as f64),
                grouped(direction.messages_per_s),
                direction.mb_per_s,
                grouped(direction.requests_per_s),
            )?;
            if direction.commits > 0 {
                writeln!(text, "  {:<10} {} transactions committed", "", grouped(direction.commits as f64))?;
            }
            if direction.retries + direction.unfinished > 0 {
                let (retries, unfinished) = (direction.retries, direction.unfinished);
                writeln!(
                    text,
                    "  {:<10} {retries} retries, {unfinished} messages unanswered at the end",
                    ""
                )?;
            }
            let latency_name = if name == "produced" { "latency" } else { "fetch" };
            for (what, percentiles) in [
                (latency_name, &direction.latency_us),
                ("service", &direction.service_us),
                ("end to end", &direction.end_to_end_us),
                ("commit", &direction.commit_us),
            ] {
                let Some(of) = percentiles else { continue };
                writeln!(text, "  {what:<10} {}", of.to_text())?;
            }
        }
        if let Some(verify) = &self.verify {
            let word = if verify.is_clean() { "clean" } else { "NOT CLEAN" };
            writeln!(
                text,
                "  {:<10} {word}: {} received, {} lost, {} doubled, {} damaged, {} out of order",
                "verify",
                grouped(verify.received as f64),
                verify.lost,
                verify.doubled,
                verify.damaged_messages + verify.damaged_batches,
                verify.out_of_order,
            )?;
            if verify.resent > 0 {
                let resent = grouped(verify.resent as f64);
                writeln!(text, "  {:<10} {resent} messages were sent again, so doubles are no fault", "")?;
            }
        }
        if let Some(broker) = &self.broker {
            write_cpu(&mut text, "broker", &broker.cpu)?;
            writeln!(
                text,
                "  {:<10} user {:.2} s, system {:.2} s; resident {:.0} MB at most ({:.0} MB anonymous)",
                "",
                broker.cpu_user_s,
                broker.cpu_system_s,
                broker.rss_window_peak_bytes as f64 / MB,
                broker.rss_anonymous_window_peak_bytes as f64 / MB,
            )?;
        }
        write_cpu(&mut text, "loadgen", &self.loadgen_cpu)?;
        Ok(text)
    }
}

fn write_cpu(text: &mut String, name: &str, cpu: &Cpu) -> Result<()> {
    write!(text, "  {name:<10} CPU {:.2} s ({:.0} % of a core)", cpu.cpu_s, cpu.cores * 100.0)?;
    if let (Some(gb), Some(million), Some(request)) =
        (cpu.s_per_gb, cpu.s_per_million_messages, cpu.us_per_request)
    {
        write!(text, "  {gb:.3} s/GB  {million:.3} s/million messages  {request:.1} us/request")?;
    }
    writeln!(text)?;
    Ok(())
}

/// A number for people: whole and with thousands apart, or with a decimal if it is small.
pub fn grouped(number: f64) -> String {
    if number < 100.0 && number.fract() != 0.0 {
        return format!("{number:.1}");
    }
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// One second's line.
pub fn progress_line(
    elapsed: Duration,
    is_warm: bool,
    second: &[(&str, &Tally)],
    total: &Histogram<u64>,
) -> String {
    let mut line = format!("{:>4.0} s", elapsed.as_secs_f64());
    for (name, tally) in second {
        let (messages, megabytes) = (tally.all_messages as f64, tally.all_wire_bytes as f64 / MB);
        let _ = write!(line, "  {name} {} msgs/s {megabytes:.1} MB/s", grouped(messages));
    }
    if !total.is_empty() {
        let us = |quantile| grouped(total.value_at_quantile(quantile) as f64 / US_NS);
        let _ = write!(line, "  p50 {} p99 {} max {} us so far", us(0.5), us(0.99), us(1.0));
    } else if !is_warm {
        line.push_str("  warming up");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(grouped(0.0), "0");
        assert_eq!(grouped(42.25), "42.2");
        assert_eq!(grouped(999.0), "999");
        assert_eq!(grouped(1_000.4), "1,000");
        assert_eq!(grouped(1_234_567.0), "1,234,567");
    }
}
