//! Writes SVG files that look right on white and on black without anything else being loaded.
//!
//! A picture paints its own background, so it is readable also where the page's theme and the system's disagree. Colours
//! are classes: `s0`, `s1`, ... for the sides under comparison, chosen so that most colour-blind readers tell them apart.

use std::fmt::Write as _;

/// Colours there are for sides; further ones begin again.
pub const SIDE_COLOURS: usize = 6;

/// How wide a letter is on average, in ems: no font is at hand to ask.
const GLYPH_EMS: f64 = 0.56;

const STYLE: &str = "
text { font: 12px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #24292f }
.title { font-size: 15px; font-weight: 600 }
.note { fill: #656d76 }
.tick { font-size: 11px; fill: #656d76 }
.end { text-anchor: end }
.middle { text-anchor: middle }
.back { fill: #ffffff }
.grid { stroke: #d8dee4; stroke-width: 1 }
.axis { stroke: #8c959f; stroke-width: 1 }
.spread { stroke: #24292f; stroke-width: 1.2; fill: none; opacity: 0.65 }
polyline { fill: none; stroke-width: 2; stroke-linejoin: round }
";

const DARK_STYLE: &str = "
text { fill: #e6edf3 }
.note, .tick { fill: #9198a1 }
.back { fill: #0d1117 }
.grid { stroke: #2a313c }
.axis { stroke: #6e7681 }
.spread { stroke: #e6edf3 }
";

const LIGHT_SIDES: [&str; SIDE_COLOURS] = ["#0969da", "#bc4c00", "#1a7f37", "#8250df", "#bf3989", "#57606a"];
const DARK_SIDES: [&str; SIDE_COLOURS] = ["#58a6ff", "#f0883e", "#3fb950", "#bc8cff", "#f778ba", "#9198a1"];

/// A picture under way.
pub struct Svg {
    width: f64,
    height: f64,
    title: String,
    body: String,
}

impl Svg {
    /// An empty picture of so many pixels; the title is what a screen reader says.
    pub fn new(width: f64, height: f64, title: &str) -> Self {
        Self { width, height, title: title.to_string(), body: String::new() }
    }

    /// Text whose baseline begins (or ends, or is centred, by class) at a point.
    pub fn text(&mut self, x: f64, y: f64, class: &str, text: &str) {
        let text = escape(text);
        let _ = writeln!(self.body, r#"<text x="{x:.1}" y="{y:.1}" class="{class}">{text}</text>"#);
    }

    /// A straight line.
    pub fn line(&mut self, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2], class: &str) {
        let _ = writeln!(
            self.body,
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" class="{class}"/>"#
        );
    }

    /// A filled box with slightly rounded corners.
    pub fn bar(&mut self, [x, y]: [f64; 2], [width, height]: [f64; 2], class: &str) {
        let _ = writeln!(
            self.body,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" rx="2" class="{class}"/>"#
        );
    }

    /// A dot.
    pub fn dot(&mut self, [x, y]: [f64; 2], class: &str) {
        let _ = writeln!(self.body, r#"<circle cx="{x:.1}" cy="{y:.1}" r="3" class="{class}"/>"#);
    }

    /// A line through points.
    pub fn polyline(&mut self, points: &[[f64; 2]], class: &str) {
        let points: Vec<String> = points.iter().map(|[x, y]| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(self.body, r#"<polyline points="{}" class="{class}"/>"#, points.join(" "));
    }

    /// The file's text.
    pub fn finish(self) -> String {
        let Self { width, height, title, body } = self;
        let title = escape(&title);
        let (light, dark) = (side_rules(&LIGHT_SIDES), side_rules(&DARK_SIDES));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
             viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-label=\"{title}\">\n<title>{title}</title>\n\
             <style>{STYLE}{light}@media (prefers-color-scheme: dark) {{{DARK_STYLE}{dark}}}\n</style>\n\
             <rect class=\"back\" width=\"{width:.0}\" height=\"{height:.0}\" rx=\"6\"/>\n{body}</svg>\n"
        )
    }
}

/// About how wide a text of this font size is.
pub fn text_width(text: &str, font_px: f64) -> f64 {
    text.chars().count() as f64 * font_px * GLYPH_EMS
}

/// The class of a side's colour.
pub fn side_class(side: usize) -> String {
    format!("s{}", side % SIDE_COLOURS)
}

fn side_rules(colours: &[&str]) -> String {
    let mut rules = String::new();
    for (side, colour) in colours.iter().enumerate() {
        let _ = writeln!(
            rules,
            "rect.s{side}, circle.s{side}, text.s{side} {{ fill: {colour} }} \
             polyline.s{side} {{ stroke: {colour} }}"
        );
    }
    rules
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::Svg;

    #[test]
    fn a_picture_holds_its_texts_escaped_and_both_themes() {
        let mut svg = Svg::new(100.0, 50.0, "a & b");
        svg.text(1.0, 2.0, "title", "p < 0.5 \"quoted\"");
        svg.polyline(&[[0.0, 1.0], [2.0, 3.0]], "s1");
        let text = svg.finish();
        assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n"));
        assert!(text.contains("p &lt; 0.5 &quot;quoted&quot;") && text.contains("<title>a &amp; b</title>"));
        assert!(text.contains("prefers-color-scheme: dark") && text.contains("0.0,1.0 2.0,3.0"));
    }
}
