//! Three kinds of charts: latency by percentile, bars by work, a figure as something grows.
//!
//! Every line and bar carries its name beside it, so no legend is needed. Does not: read files (see `compare`).

use crate::report::grouped;
use crate::svg::{Svg, side_class, text_width};

const WIDTH: f64 = 760.0;
const MARGIN: f64 = 16.0;
const NOTE_HEIGHT: f64 = 17.0;
const PLOT_HEIGHT: f64 = 320.0;
const TICK_WIDTH: f64 = 58.0;
/// Least distance between the labels at the ends of lines.
const LABEL_HEIGHT: f64 = 15.0;
const FONT_PX: f64 = 12.0;

/// A named line. Sides keep their colour in all charts.
pub struct Line {
    pub side: usize,
    pub name: String,
    pub points: Vec<[f64; 2]>,
}

/// One bar: the middle of the samples, and their smallest and largest.
pub struct Bar {
    pub side: usize,
    pub name: String,
    pub middle: f64,
    pub smallest: f64,
    pub largest: f64,
}

/// Bars of one work.
pub struct BarGroup {
    pub title: String,
    pub bars: Vec<Bar>,
}

/// Latency in microseconds (y, logarithmic) by percentile (x: each step one more nine). Points are (percentile, us).
pub fn percentiles(title: &str, note: &str, lines: &[Line]) -> String {
    // 0 % stands at 0, 90 % at 1, 99 % at 2, ...
    let nines = |percentile: f64| -(1.0 - (percentile / 100.0).min(0.999_999_999)).log10();
    let lines: Vec<Line> = lines
        .iter()
        .map(|line| Line {
            side: line.side,
            name: line.name.clone(),
            points: line.points.iter().map(|&[percentile, us]| [nines(percentile), us.max(1e-3)]).collect(),
        })
        .collect();
    let most = bounds(&lines, 0).1.ceil().max(2.0);
    let ticks = (0..=most as usize).map(|nines| (nines as f64, percentile_name(nines))).collect();
    let x = Axis { low: 0.0, high: most, logarithmic: false, ticks };
    let (low, high) = bounds(&lines, 1);
    draw_lines(title, note, &x, &Axis::logarithmic(low, high, &microseconds), &lines)
}

/// A figure (y, from 0) as something grows (x, logarithmic).
pub fn growth(title: &str, note: &str, lines: &[Line]) -> String {
    let (low, high) = bounds(lines, 0);
    let mut stops: Vec<f64> =
        lines.iter().flat_map(|line| line.points.iter().map(|point| point[0])).collect();
    stops.sort_by(f64::total_cmp);
    stops.dedup();
    let ticks = stops.iter().map(|&stop| (stop, grouped(stop))).collect();
    let x = Axis { low, high: high.max(low * 1.01), logarithmic: true, ticks };
    draw_lines(title, note, &x, &Axis::from_zero(bounds(lines, 1).1), lines)
}

/// Groups of bars from 0, one below the other. Whiskers show the smallest and the largest sample.
pub fn bars(title: &str, note: &str, groups: &[BarGroup]) -> String {
    const BAR_HEIGHT: f64 = 15.0;
    const ROW_HEIGHT: f64 = 20.0;
    const GROUP_TITLE_HEIGHT: f64 = 22.0;
    const GROUP_GAP: f64 = 10.0;
    let all = || groups.iter().flat_map(|group| &group.bars);
    let name_width = all().map(|bar| text_width(&bar.name, FONT_PX)).fold(0.0, f64::max) + 10.0;
    let value_width = all().map(|bar| text_width(&figure(bar.middle), FONT_PX)).fold(0.0, f64::max) + 12.0;
    let most = all().map(|bar| bar.largest.max(bar.middle)).fold(f64::MIN_POSITIVE, f64::max);
    let left = MARGIN + name_width;
    let length = (WIDTH - MARGIN - value_width - left).max(100.0);
    let height = MARGIN
        + groups
            .iter()
            .map(|group| GROUP_TITLE_HEIGHT + group.bars.len() as f64 * ROW_HEIGHT + GROUP_GAP)
            .sum::<f64>();
    let header = Header::new(title, note);
    let mut svg = header.begin(height);
    let mut y = header.height() + 8.0;
    for group in groups {
        svg.text(MARGIN, y + 12.0, "", &shortened(&group.title, WIDTH - 2.0 * MARGIN));
        y += GROUP_TITLE_HEIGHT;
        for bar in &group.bars {
            let middle_y = y + BAR_HEIGHT / 2.0;
            let x_of = |value: f64| left + length * value / most;
            svg.text(left - 8.0, middle_y + 4.0, "note end", &bar.name);
            let width = (x_of(bar.middle) - left).max(1.0);
            svg.bar([left, y], [width, BAR_HEIGHT], &side_class(bar.side));
            let mut value_x = left + width;
            if bar.largest > bar.smallest {
                let (low, high) = (x_of(bar.smallest), x_of(bar.largest));
                svg.line([low, middle_y], [high, middle_y], "spread");
                for x in [low, high] {
                    svg.line([x, middle_y - 3.0], [x, middle_y + 3.0], "spread");
                }
                value_x = value_x.max(high);
            }
            svg.text(value_x + 6.0, middle_y + 4.0, "", &figure(bar.middle));
            y += ROW_HEIGHT;
        }
        y += GROUP_GAP;
    }
    svg.finish()
}

struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From a power of ten or 2 or 5 of it below `low` to one above `high`.
    fn logarithmic(low: f64, high: f64, name: &dyn Fn(f64) -> String) -> Self {
        let low = low.max(1e-3);
        let high = high.max(low * 1.5);
        let steps = if (high / low).log10() > 4.0 { &[1.0][..] } else { &[1.0, 2.0, 5.0][..] };
        let mut stops = Vec::new();
        let mut decade = 10f64.powf(low.log10().floor());
        while decade < high * 10.0 {
            stops.extend(steps.iter().map(|step| decade * step));
            decade *= 10.0;
        }
        let first = stops.iter().rposition(|&stop| stop <= low * 1.001).unwrap_or(0);
        let stops = &stops[first..];
        let low = stops[0];
        let top = stops.iter().copied().find(|&stop| stop >= high).unwrap_or(high);
        let ticks = stops.iter().filter(|&&stop| stop <= top).map(|&stop| (stop, name(stop))).collect();
        Self { low, high: top, logarithmic: true, ticks }
    }

    fn from_zero(high: f64) -> Self {
        let high = high.max(f64::MIN_POSITIVE) * 1.05;
        let raw = high / 5.0;
        let decade = 10f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|step| step * decade).into_iter().find(|&step| step >= raw);
        let step = step.unwrap_or(raw);
        let count = (high / step).ceil();
        let ticks = (0..=count as usize).map(|index| index as f64 * step).map(|stop| (stop, figure(stop)));
        Self { low: 0.0, high: count * step, logarithmic: false, ticks: ticks.collect() }
    }

    /// Where a value lies between the ends, 0 to 1.
    fn share(&self, value: f64) -> f64 {
        if self.logarithmic {
            (value.max(f64::MIN_POSITIVE) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }
}

fn draw_lines(title: &str, note: &str, x: &Axis, y: &Axis, lines: &[Line]) -> String {
    let name_width = lines.iter().map(|line| text_width(&line.name, FONT_PX)).fold(0.0, f64::max) + 14.0;
    let (left, right) = (MARGIN + TICK_WIDTH, WIDTH - MARGIN - name_width);
    let header = Header::new(title, note);
    let (top, bottom) = (header.height() + 10.0, header.height() + 10.0 + PLOT_HEIGHT);
    let x_of = |value: f64| left + (right - left) * x.share(value);
    let y_of = |value: f64| bottom - (bottom - top) * y.share(value);
    let mut svg = header.begin(10.0 + PLOT_HEIGHT + 34.0);
    for (stop, name) in &y.ticks {
        let class = if y_of(*stop) >= bottom - 0.5 { "axis" } else { "grid" };
        svg.line([left, y_of(*stop)], [right, y_of(*stop)], class);
        svg.text(left - 8.0, y_of(*stop) + 4.0, "tick end", name);
    }
    for (stop, name) in &x.ticks {
        svg.line([x_of(*stop), top], [x_of(*stop), bottom + 4.0], "grid");
        svg.text(x_of(*stop), bottom + 18.0, "tick middle", name);
    }
    let mut ends: Vec<(f64, f64, &Line)> = Vec::new();
    for line in lines {
        let points: Vec<[f64; 2]> = line.points.iter().map(|&[px, py]| [x_of(px), y_of(py)]).collect();
        svg.polyline(&points, &side_class(line.side));
        if points.len() <= x.ticks.len() {
            for &point in &points {
                svg.dot(point, &side_class(line.side));
            }
        }
        if let Some(&[end_x, end_y]) = points.last() {
            ends.push((end_y, end_x, line));
        }
    }
    // Labels stand at the ends of their lines, pushed apart downward where they would overlap.
    ends.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut free_from = f64::MIN;
    for (end_y, end_x, line) in ends {
        let label_y = end_y.max(free_from);
        free_from = label_y + LABEL_HEIGHT;
        svg.text(end_x + 8.0, label_y + 4.0, &side_class(line.side), &line.name);
    }
    svg.finish()
}

/// The lines above a chart. A title too long for one line goes on in the notes behind its colon.
struct Header {
    title: String,
    notes: Vec<String>,
}

impl Header {
    fn new(title: &str, note: &str) -> Self {
        // The title is written larger and bold.
        let width = WIDTH - 2.0 * MARGIN;
        let title_width = width * FONT_PX / 16.0;
        let (title, detail) = match title.split_once(": ") {
            Some((title, detail))
                if text_width(title, FONT_PX) + text_width(detail, FONT_PX) > title_width =>
            {
                (title, Some(detail))
            }
            _ => (title, None),
        };
        let notes = detail.into_iter().chain([note]).map(|note| shortened(note, width));
        Self { title: shortened(title, title_width), notes: notes.collect() }
    }

    fn height(&self) -> f64 {
        27.0 + self.notes.len() as f64 * NOTE_HEIGHT
    }

    /// A picture of so much height below the header, with the header in it.
    fn begin(&self, height: f64) -> Svg {
        let mut svg = Svg::new(WIDTH, self.height() + height, &self.title);
        svg.text(MARGIN, 22.0, "title", &self.title);
        for (index, note) in self.notes.iter().enumerate() {
            svg.text(MARGIN, 39.0 + index as f64 * NOTE_HEIGHT, "note", note);
        }
        svg
    }
}

/// The smallest and largest coordinate of all lines.
fn bounds(lines: &[Line], coordinate: usize) -> (f64, f64) {
    let values = || lines.iter().flat_map(|line| line.points.iter().map(move |point| point[coordinate]));
    (values().fold(f64::INFINITY, f64::min), values().fold(f64::MIN_POSITIVE, f64::max))
}

fn percentile_name(nines: usize) -> String {
    match nines {
        0 => "0 %".to_string(),
        1 => "90 %".to_string(),
        2 => "99 %".to_string(),
        more => format!("99.{} %", "9".repeat(more - 2)),
    }
}

/// A duration for people, from microseconds.
fn microseconds(us: f64) -> String {
    match us {
        us if us < 1e3 => format!("{} us", figure(us)),
        us if us < 1e6 => format!("{} ms", figure(us / 1e3)),
        us => format!("{} s", figure(us / 1e6)),
    }
}

/// A number with about three digits.
fn figure(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_string(),
        size if size < 0.1 => format!("{value:.3}"),
        size if size < 10.0 => {
            let text = format!("{value:.2}");
            text.trim_end_matches('0').trim_end_matches('.').to_string()
        }
        size if size < 100.0 => format!("{value:.1}").trim_end_matches(".0").to_string(),
        _ => grouped(value),
    }
}

fn shortened(text: &str, width: f64) -> String {
    if text_width(text, FONT_PX) <= width {
        return text.to_string();
    }
    let mut short = String::new();
    for letter in text.chars() {
        short.push(letter);
        if text_width(&short, FONT_PX) > width - FONT_PX {
            break;
        }
    }
    short + "…"
}

#[cfg(test)]
mod tests {
    use super::{
        Axis, Bar, BarGroup, Line, bars, figure, growth, microseconds, percentile_name, percentiles,
    };

    #[test]
    fn axes_hold_what_is_drawn_between_round_numbers() {
        let axis = Axis::logarithmic(37.0, 8_200.0, &microseconds);
        assert_eq!((axis.low, axis.high), (20.0, 10_000.0));
        assert!(axis.share(37.0) > 0.0 && axis.share(8_200.0) < 1.0);
        let axis = Axis::from_zero(2.3);
        assert!(axis.share(2.3) < 1.0 && axis.ticks.len() > 3, "{:?}", axis.ticks);
    }

    #[test]
    fn numbers_are_written_short() {
        assert_eq!(microseconds(20_000.0), "20 ms");
        assert_eq!(percentile_name(4), "99.99 %");
        assert_eq!([figure(0.825), figure(12.5), figure(1_071.2)], ["0.82", "12.5", "1,071"]);
    }

    #[test]
    fn charts_of_nothing_much_are_still_pictures() {
        let line = || Line { side: 0, name: "one".to_string(), points: vec![[0.0, 5.0], [99.0, 5.0]] };
        assert!(percentiles("t", "n", &[line()]).contains("99 %"));
        assert!(growth("t", "n", &[Line { points: vec![[1.0, 0.0]], ..line() }]).contains("polyline"));
        let bar = Bar { side: 0, name: "one".to_string(), middle: 0.0, smallest: 0.0, largest: 0.0 };
        assert!(bars("t", "n", &[BarGroup { title: "work".to_string(), bars: vec![bar] }]).contains("work"));
    }
}
