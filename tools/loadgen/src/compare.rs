//! `loadgen compare`: results files to charts.
//!
//! Reads what `--json` wrote of single runs, what `run --json` wrote of scenarios, and what `tools/compare/run --json`
//! wrote of several brokers. Runs of the same side at the same work are rounds: their histograms are added, of their
//! other numbers the median is drawn.
//! Writes one file per chart: `latency-WORK.svg`, `bars-METRIC.svg`, `growth-WORK.svg`.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use serde::Deserialize;

use crate::chart::{self, Bar, BarGroup, Line};
use crate::stats::latency_histogram;

/// Points of a latency curve from one nine to the next.
const POINTS_PER_NINE: usize = 30;
/// Where curves end, however many samples there are: 99.9999 %.
const NINES_MAX: f64 = 6.0;
const US_NS: f64 = 1e3;
/// What bars are drawn of, with what the chart says about it.
const BAR_METRICS: &[(&str, &str, &str)] = &[
    ("MB/s", "Throughput", "MB/s of record batches; longer is better"),
    ("messages/s", "Throughput in messages", "messages/s; longer is better"),
    (
        "broker CPU s/GB",
        "Broker CPU per gigabyte",
        "CPU seconds per 10^9 bytes of record batches; shorter is better",
    ),
    ("broker CPU us/request", "Broker CPU per request", "CPU microseconds per request; shorter is better"),
    ("RSS MB", "Broker memory", "resident MB at most, mapped files included; shorter is better"),
];

/// Draw results files as SVG: latency by percentile, and bars of throughput and CPU.
#[derive(Args, Clone, Debug)]
pub struct CompareArgs {
    /// Results of `--json`, of single runs, scenarios or tools/compare; files with equal labels are rounds.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// What each file is called, in their order; default is the file's name without its ending.
    #[arg(long, value_delimiter = ',')]
    pub labels: Vec<String>,
    /// Write the charts into this directory.
    #[arg(long)]
    pub svg: PathBuf,
}

/// A results file of several brokers.
#[derive(Deserialize)]
struct Comparison {
    sides: Vec<String>,
    /// The works in the order of the tables.
    #[serde(default)]
    order: Vec<String>,
    #[serde(default)]
    works: BTreeMap<String, BTreeMap<String, BTreeMap<String, Vec<f64>>>>,
    #[serde(default)]
    reports: Vec<SideReport>,
    #[serde(default)]
    growth: BTreeMap<String, GrowthTable>,
    /// Short names of works, for files.
    #[serde(default)]
    short_names: HashMap<String, String>,
}

#[derive(Deserialize)]
struct SideReport {
    side: String,
    work: String,
    report: RunReport,
}

/// Samples by side and by how far the thing has grown.
#[derive(Deserialize)]
struct GrowthTable {
    metric: String,
    sides: BTreeMap<String, Vec<(f64, Vec<f64>)>>,
}

/// A scenario's results.
#[derive(Deserialize)]
struct Steps {
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    name: String,
    report: Option<RunReport>,
}

/// Of a single run's results, what is drawn.
#[derive(Deserialize)]
struct RunReport {
    command: String,
    produce: Option<RunDirection>,
    consume: Option<RunDirection>,
    broker: Option<RunBroker>,
}

#[derive(Deserialize)]
struct RunDirection {
    messages_per_s: f64,
    mb_per_s: f64,
    latency_us: Option<RunLatency>,
    end_to_end_us: Option<RunLatency>,
}

#[derive(Deserialize)]
struct RunLatency {
    hdr: String,
}

#[derive(Deserialize)]
struct RunBroker {
    s_per_gb: Option<f64>,
    us_per_request: Option<f64>,
    rss_window_peak_bytes: f64,
}

/// Everything that the files hold, by work and side. Works and sides keep the order of their appearance.
#[derive(Default)]
struct Findings {
    sides: Vec<String>,
    works: Vec<String>,
    /// By work and what is timed (`latency`, `end to end`): a histogram per side.
    histograms: BTreeMap<(usize, &'static str), BTreeMap<usize, Histogram<u64>>>,
    /// By metric, work and side.
    samples: HashMap<(String, usize, usize), Vec<f64>>,
    growth: BTreeMap<String, GrowthTable>,
    short_names: HashMap<String, String>,
}

/// Draws the charts and returns their paths.
///
/// # Errors
/// If a file is none of the three kinds, or a chart cannot be written.
pub fn run(args: &CompareArgs) -> Result<Vec<PathBuf>> {
    ensure!(
        args.labels.is_empty() || args.labels.len() == args.files.len(),
        "{} labels for {} files",
        args.labels.len(),
        args.files.len()
    );
    let mut findings = Findings::default();
    for (index, path) in args.files.iter().enumerate() {
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let label = args.labels.get(index).cloned().unwrap_or(stem);
        let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        findings.read(&text, &label).with_context(|| format!("{} is no results file", path.display()))?;
    }
    fs::create_dir_all(&args.svg).with_context(|| format!("creating {}", args.svg.display()))?;
    findings.draw(&args.svg)
}

impl Findings {
    fn read(&mut self, text: &str, label: &str) -> Result<()> {
        let value: serde_json::Value = serde_json::from_str(text)?;
        if value.get("sides").is_some() {
            let comparison: Comparison = serde_json::from_value(value)?;
            for side in &comparison.sides {
                position(&mut self.sides, side);
            }
            for work in &comparison.order {
                position(&mut self.works, work);
            }
            for SideReport { side, work, report } in &comparison.reports {
                self.add_histograms(side, work, report)?;
            }
            for (work, metrics) in &comparison.works {
                for (metric, by_side) in metrics {
                    for (side, values) in by_side {
                        values.iter().for_each(|&value| self.add_sample(metric, work, side, value));
                    }
                }
            }
            self.growth.extend(comparison.growth);
            self.short_names.extend(comparison.short_names);
        } else if value.get("steps").is_some() {
            for step in serde_json::from_value::<Steps>(value)?.steps {
                if let Some(report) = &step.report {
                    self.add_report(label, &step.name, report)?;
                }
            }
        } else {
            let report: RunReport = serde_json::from_value(value)?;
            self.add_report(label, &report.command, &report)?;
        }
        Ok(())
    }

    fn add_report(&mut self, side: &str, work: &str, report: &RunReport) -> Result<()> {
        self.add_histograms(side, work, report)?;
        if let Some(direction) = report.produce.as_ref().or(report.consume.as_ref()) {
            self.add_sample("MB/s", work, side, direction.mb_per_s);
            self.add_sample("messages/s", work, side, direction.messages_per_s);
        }
        if let Some(broker) = &report.broker {
            let metrics =
                [("broker CPU s/GB", broker.s_per_gb), ("broker CPU us/request", broker.us_per_request)];
            for (metric, value) in metrics {
                value.into_iter().for_each(|value| self.add_sample(metric, work, side, value));
            }
            self.add_sample("RSS MB", work, side, broker.rss_window_peak_bytes / 1e6);
        }
        Ok(())
    }

    fn add_sample(&mut self, metric: &str, work: &str, side: &str, value: f64) {
        let (work, side) = (position(&mut self.works, work), position(&mut self.sides, side));
        self.samples.entry((metric.to_string(), work, side)).or_default().push(value);
    }

    fn add_histograms(&mut self, side: &str, work: &str, report: &RunReport) -> Result<()> {
        let (work, side) = (position(&mut self.works, work), position(&mut self.sides, side));
        for (direction, what) in [(&report.produce, "latency"), (&report.consume, "fetch latency")] {
            let Some(direction) = direction else { continue };
            for (what, latency) in [(what, &direction.latency_us), ("end to end", &direction.end_to_end_us)] {
                let Some(latency) = latency else { continue };
                let bytes = STANDARD.decode(&latency.hdr).context("a histogram is damaged")?;
                let histogram: Histogram<u64> =
                    Deserializer::new().deserialize(&mut &bytes[..]).context("a histogram is damaged")?;
                let by_side = self.histograms.entry((work, what)).or_default();
                by_side.entry(side).or_insert_with(latency_histogram).add(&histogram)?;
            }
        }
        Ok(())
    }

    fn draw(&self, directory: &Path) -> Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        let mut write = |name: &str, svg: String| -> Result<()> {
            let path = directory.join(format!("{name}.svg"));
            fs::write(&path, svg).with_context(|| format!("writing {}", path.display()))?;
            paths.push(path);
            Ok(())
        };
        for (&(work, what), by_side) in &self.histograms {
            let lines: Vec<Line> = by_side
                .iter()
                .map(|(&side, histogram)| Line {
                    side,
                    name: self.sides[side].clone(),
                    points: curve(histogram),
                })
                .collect();
            let work = &self.works[work];
            let note = format!("{what} by percentile, both axes logarithmic; lower is better");
            let kind = if what == "latency" { "latency".to_string() } else { format!("latency-{what}") };
            write(
                &slug(&format!("{kind}-{}", self.short_name(work))),
                chart::percentiles(work, &note, &lines),
            )?;
        }
        for &(metric, title, note) in BAR_METRICS {
            let groups: Vec<BarGroup> = (0..self.works.len())
                .map(|work| BarGroup { title: self.works[work].clone(), bars: self.bars(metric, work) })
                .filter(|group| !group.bars.is_empty())
                .collect();
            if !groups.is_empty() {
                write(&slug(&format!("bars-{metric}")), chart::bars(title, note, &groups))?;
            }
        }
        for (work, table) in &self.growth {
            let lines = table.sides.iter().map(|(side, points)| Line {
                side: self.sides.iter().position(|known| known == side).unwrap_or(0),
                name: side.clone(),
                points: points.iter().map(|(at, values)| [*at, spread(values)[1]]).collect(),
            });
            let lines: Vec<Line> = lines.filter(|line| !line.points.is_empty()).collect();
            write(
                &slug(&format!("growth-{}", self.short_name(work))),
                chart::growth(work, &table.metric, &lines),
            )?;
        }
        Ok(paths)
    }

    fn short_name<'a>(&'a self, work: &'a str) -> &'a str {
        self.short_names.get(work).map_or(work, String::as_str)
    }

    fn bars(&self, metric: &str, work: usize) -> Vec<Bar> {
        (0..self.sides.len())
            .filter_map(|side| {
                let values = self.samples.get(&(metric.to_string(), work, side))?;
                let [smallest, middle, largest] = spread(values);
                Some(Bar { side, name: self.sides[side].clone(), middle, smallest, largest })
            })
            .collect()
    }
}

/// Percentiles and microseconds, evenly spaced on the scale of nines, as far as the count allows.
fn curve(histogram: &Histogram<u64>) -> Vec<[f64; 2]> {
    let nines = (histogram.len().max(1) as f64).log10().min(NINES_MAX);
    let count = (nines * POINTS_PER_NINE as f64) as usize;
    // The very first point would be the minimum, which stretches the scale and says nothing.
    let quantiles =
        (1..=count.max(1)).map(|index| 1.0 - 10f64.powf(-(index as f64) / POINTS_PER_NINE as f64));
    quantiles
        .map(|quantile| [quantile * 100.0, histogram.value_at_quantile(quantile) as f64 / US_NS])
        .collect()
}

/// Smallest, median and largest.
fn spread(values: &[f64]) -> [f64; 3] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(0.0);
    let middle = sorted.len() / 2;
    let median = if sorted.len().is_multiple_of(2) {
        (at(middle.saturating_sub(1)) + at(middle)) / 2.0
    } else {
        at(middle)
    };
    [at(0), median, at(sorted.len().saturating_sub(1))]
}

fn position(names: &mut Vec<String>, name: &str) -> usize {
    names.iter().position(|known| known == name).unwrap_or_else(|| {
        names.push(name.to_string());
        names.len() - 1
    })
}

/// A file name: small letters, digits and single dashes.
fn slug(name: &str) -> String {
    let words = name.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let mut slug = words.collect::<Vec<_>>().join("-").to_ascii_lowercase();
    slug.truncate(80);
    slug
}

#[cfg(test)]
mod tests {
    use super::{Findings, curve, slug, spread};
    use crate::report::Percentiles;
    use crate::stats::latency_histogram;

    #[test]
    fn rounds_of_a_side_are_added_and_every_kind_of_file_is_read() {
        let mut histogram = latency_histogram();
        (1..=1_000u64).for_each(|us| histogram.saturating_record(us * 1_000));
        let latency = serde_json::to_value(Percentiles::of(&histogram)).expect("plain data");
        let report = serde_json::json!({
            "command": "produce", "consume": null,
            "produce": {"messages_per_s": 10.0, "mb_per_s": 2.0, "latency_us": latency, "end_to_end_us": null},
            "broker": {"s_per_gb": 0.5, "us_per_request": null, "rss_window_peak_bytes": 5e6},
        });
        let mut findings = Findings::default();
        findings.read(&report.to_string(), "a").expect("a run");
        findings.read(&report.to_string(), "a").expect("a second round");
        let steps =
            serde_json::json!({"steps": [{"name": "x", "report": report}, {"name": "y", "report": null}]});
        findings.read(&steps.to_string(), "b").expect("a scenario");
        let comparison = serde_json::json!({
            "sides": ["a", "c"],
            "works": {"x": {"MB/s": {"a": [1.0, 3.0]}}},
            "reports": [{"side": "c", "work": "x", "report": report}],
            "growth": {"g": {"metric": "us", "sides": {"a": [[1.0, [2.0]], [10.0, [3.0, 4.0, 5.0]]]}}},
        });
        findings.read(&comparison.to_string(), "unused").expect("a comparison");
        assert_eq!(findings.sides, ["a", "b", "c"]);
        assert_eq!(findings.works, ["produce", "x"]);
        assert_eq!(findings.histograms[&(0, "latency")][&0].len(), 2_000);
        assert_eq!(findings.bars("MB/s", 1).len(), 2);
        let directory = std::env::temp_dir().join(format!("loadgen-compare-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a place");
        let paths = findings.draw(&directory).expect("draws");
        assert!(paths.iter().any(|path| path.ends_with("growth-g.svg")), "{paths:?}");
        std::fs::remove_dir_all(&directory).expect("ours");
        assert!(findings.read("{}", "d").is_err());
    }

    #[test]
    fn a_curve_ends_where_the_samples_do() {
        let mut histogram = latency_histogram();
        (1..=1_000u64).for_each(|us| histogram.saturating_record(us * 1_000));
        let curve = curve(&histogram);
        let &[percentile, us] = curve.last().expect("points");
        assert!((99.89..=99.91).contains(&percentile) && us > 990.0, "{percentile} {us}");
    }

    #[test]
    fn names_and_medians() {
        assert_eq!(slug("bars-broker CPU s/GB"), "bars-broker-cpu-s-gb");
        assert_eq!(spread(&[3.0, 1.0, 2.0]), [1.0, 2.0, 3.0]);
        assert_eq!(spread(&[4.0, 2.0])[1], 3.0);
    }
}
