//! The live view: a few lines that redraw themselves each second where they stand.
//!
//! Plain ANSI: the cursor goes up over the lines of the last drawing, and each is written anew. Lines are cut to the
//! terminal's width, since a wrapped one would break the count. Does not: measure (see `run`), decide whether there is a
//! terminal (see `View::open`'s caller).

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::process::ProcessSample;
use crate::report::grouped;
use crate::stats::{Interval, Tally};

const MB: f64 = 1e6;
const US_NS: f64 = 1e3;
/// Seconds of history in a sparkline.
const HISTORY: usize = 40;
const SPARKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const LABEL_WIDTH: usize = 12;

/// What a drawing is made from.
pub struct Moment<'a> {
    pub elapsed: Duration,
    /// Warming up, measuring, or waiting for the last answers.
    pub phase: &'static str,
    /// What happened since the last drawing, and since the beginning.
    pub second: &'a Interval,
    pub total: &'a Interval,
    pub second_length: Duration,
    pub broker: Option<ProcessSample>,
    pub own_cpu: Duration,
}

/// The drawings of a run.
pub struct View {
    title: String,
    produces: bool,
    consumes: bool,
    out_history: VecDeque<f64>,
    in_history: VecDeque<f64>,
    cpu_history: VecDeque<f64>,
    last_broker: Option<ProcessSample>,
    last_own_cpu: Duration,
    drawn_lines: usize,
}

impl View {
    /// A view that has drawn nothing yet.
    pub fn new(title: String, produces: bool, consumes: bool) -> Self {
        Self {
            title,
            produces,
            consumes,
            out_history: VecDeque::new(),
            in_history: VecDeque::new(),
            cpu_history: VecDeque::new(),
            last_broker: None,
            last_own_cpu: Duration::ZERO,
            drawn_lines: 0,
        }
    }

    /// The next drawing, with the control sequences that put it over the last one.
    pub fn draw(&mut self, moment: &Moment<'_>, width: usize) -> String {
        let lines = self.lines(moment);
        let mut out = String::new();
        if self.drawn_lines > 0 {
            let _ = write!(out, "\x1b[{}A", self.drawn_lines);
        }
        for (index, (label, text)) in lines.iter().enumerate() {
            let room = width.saturating_sub(LABEL_WIDTH + 1);
            let text: String = text.chars().take(room).collect();
            let label: String = label.chars().take(width.saturating_sub(1)).collect();
            let style = if index == 0 { "1" } else { "36" };
            let _ = write!(out, "\r\x1b[{style}m{label:<LABEL_WIDTH$}\x1b[0m{text}\x1b[K\r\n");
        }
        self.drawn_lines = lines.len();
        out
    }

    fn lines(&mut self, moment: &Moment<'_>) -> Vec<(String, String)> {
        let seconds = moment.second_length.as_secs_f64().max(1e-3);
        let title = format!("{}   {:.0} s   {}", self.title, moment.elapsed.as_secs_f64(), moment.phase);
        let mut lines = vec![("loadgen".to_string(), title)];
        let directions = [
            (self.produces, "out", &mut self.out_history, &moment.second.produce, &moment.total.produce),
            (self.consumes, "in", &mut self.in_history, &moment.second.consume, &moment.total.consume),
        ];
        for (_, name, history, second, total) in directions.into_iter().filter(|direction| direction.0) {
            remember(history, second.all_wire_bytes as f64 / seconds);
            lines.push((name.to_string(), throughput(second, total, seconds, history)));
        }
        let (produce, consume) = (&moment.total.produce, &moment.total.consume);
        for (name, histogram) in
            [("latency", &produce.latency), ("end to end", &consume.end_to_end), ("fetch", &consume.latency)]
        {
            if !histogram.is_empty() {
                lines.push((name.to_string(), percentiles(histogram)));
            }
        }
        let own = moment.own_cpu.saturating_sub(self.last_own_cpu).as_secs_f64() / seconds;
        self.last_own_cpu = moment.own_cpu;
        let mut own_text = format!("loadgen {:.0} %", own * 100.0);
        if let Some(sample) = moment.broker {
            if let Some(last) = self.last_broker {
                remember(&mut self.cpu_history, (sample.cpu_s() - last.cpu_s()) / seconds);
            }
            let cores = self.cpu_history.back().copied().unwrap_or(0.0);
            let sparks = sparkline(&self.cpu_history);
            own_text = format!("broker {:.0} % of a core  {sparks}  {own_text}", cores * 100.0);
            self.last_broker = Some(sample);
            lines.push(("CPU".to_string(), own_text));
            let megabytes = |bytes: u64| grouped((bytes as f64 / MB).round());
            let (all, anonymous) = (megabytes(sample.rss_bytes), megabytes(sample.rss_anonymous_bytes));
            lines.push(("memory".to_string(), format!("broker {all} MB, {anonymous} MB of it anonymous")));
        } else {
            lines.push(("CPU".to_string(), own_text));
        }
        let retries = produce.retries + consume.retries;
        if retries > 0 {
            lines.push(("retries".to_string(), grouped(retries as f64)));
        }
        lines
    }
}

fn throughput(second: &Tally, total: &Tally, seconds: f64, history: &VecDeque<f64>) -> String {
    format!(
        "{} msgs/s  {} MB/s  {}  total {} msgs, {} MB",
        grouped((second.all_messages as f64 / seconds).round()),
        grouped(second.all_wire_bytes as f64 / MB / seconds),
        sparkline(history),
        grouped(total.all_messages as f64),
        grouped((total.all_wire_bytes as f64 / MB).round()),
    )
}

fn percentiles(histogram: &Histogram<u64>) -> String {
    let us = |quantile| grouped((histogram.value_at_quantile(quantile) as f64 / US_NS).round());
    format!(
        "p50 {}  p90 {}  p99 {}  p99.9 {}  p99.99 {}  max {} us",
        us(0.5),
        us(0.9),
        us(0.99),
        us(0.999),
        us(0.999_9),
        us(1.0)
    )
}

fn remember(history: &mut VecDeque<f64>, value: f64) {
    if history.len() == HISTORY {
        history.pop_front();
    }
    history.push_back(value);
}

/// One block a value, from nothing to the largest of them.
fn sparkline(history: &VecDeque<f64>) -> String {
    let most = history.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let spark = |value: &f64| SPARKS[((value / most * 7.0).round() as usize).min(7)];
    history.iter().map(spark).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Moment, View, remember, sparkline};
    use crate::clock::MILLISECOND_NS;
    use crate::process::ProcessSample;
    use crate::stats::Interval;

    #[test]
    fn a_drawing_covers_the_last_one_and_fits_the_width() {
        let mut view = View::new("produce to bulk (8 partitions)".to_string(), true, false);
        let mut interval = Interval::new();
        interval.produce.all_messages = 12_345;
        interval.produce.all_wire_bytes = 50_000_000;
        interval.produce.latency.saturating_record(3 * MILLISECOND_NS);
        let moment = Moment {
            elapsed: Duration::from_secs(3),
            phase: "measuring",
            second: &interval,
            total: &interval,
            second_length: Duration::from_secs(1),
            broker: Some(ProcessSample { user_s: 1.0, rss_bytes: 5_000_000, ..ProcessSample::default() }),
            own_cpu: Duration::from_millis(100),
        };
        let first = view.draw(&moment, 100);
        assert!(!first.contains("\x1b[5A") && first.contains("12,345 msgs/s  50 MB/s"), "{first}");
        assert!(first.contains("p99 3,0") && first.contains("broker 5 MB"), "{first}");
        let second = view.draw(&moment, 40);
        assert!(second.starts_with("\x1b[5A"), "{second}");
        let longest =
            second.split("\r\n").map(|line| line.split('m').next_back().unwrap_or(line).len()).max();
        assert!(longest.is_some_and(|longest| longest <= 60), "{second}");
    }

    #[test]
    fn sparks_show_the_newest_seconds_by_their_share_of_the_largest() {
        let mut history = [1.0, 0.0, 2.0].into();
        assert_eq!(sparkline(&history), "▅▁█");
        (0..100).for_each(|_| remember(&mut history, 1.0));
        assert_eq!(sparkline(&history).chars().count(), 40);
    }
}
