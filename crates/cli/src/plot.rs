//! Plots as SVG, and the pages they stand on: sizes in the units of a picture 560 wide, text as text, nothing from elsewhere.

use std::fmt::Write as _;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 46.0;

/// What all pages look like.
pub const STYLE: &str = "\
:root{color-scheme:light}body{font:15px/1.5 system-ui,sans-serif;color:#1c2024;background:#fff;max-width:1240px;margin:2rem auto;\
padding:0 1rem}h1{font-size:1.6rem;margin-bottom:.2rem}h2{margin-top:2.6rem;border-top:1px solid #d8dce1;padding-top:1.2rem}\
h3{margin:1.6rem 0 .4rem;font-size:1.05rem}p{max-width:75ch}.note{color:#555}table{border-collapse:collapse;font-variant-numeric:\
tabular-nums;font-size:14px}.wide{overflow-x:auto}th,td{padding:.3rem .55rem;text-align:right;border-bottom:1px solid #e3e6ea;\
white-space:nowrap}th{color:#444;font-weight:600}th:first-child,td:first-child,td.says,th.says{text-align:left}td.says{\
white-space:normal;min-width:14rem}td:first-child{white-space:normal;max-width:17rem}.better{color:#00664a}.worse{color:#a33b00}.plots{display:grid;gap:1rem 2rem;\
grid-template-columns:repeat(auto-fit,minmax(min(440px,100%),1fr))}figure{margin:0}figcaption{font-size:13px;color:#444}\
svg{width:100%;height:auto}.key{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.35em}\
code{font-size:.92em}";

/// Colours that people who see few can tell apart (Okabe and Ito's), dark enough for lines on white.
pub const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#444444"];

pub fn colour(place: usize) -> &'static str {
    COLOURS[place % COLOURS.len()]
}

/// Text as it must stand in HTML and SVG.
pub fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
        out
    })
}

/// One axis: values and where they lie.
pub struct Axis {
    low: f64,
    high: f64,
    is_log: bool,
    ticks: Vec<f64>,
    label: String,
}

impl Axis {
    /// From values, a little wider than they are.
    pub fn linear(values: impl Iterator<Item = f64>, label: &str) -> Self {
        let (low, high) = range(values);
        let room = ((high - low) * 0.06).max(1e-3);
        Self::exact(low - room, high + room, label)
    }

    /// From `low` to `high`.
    pub fn exact(low: f64, high: f64, label: &str) -> Self {
        let rough = (high - low) / 5.0;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * power).find(|step| *step >= rough);
        let step = step.unwrap_or(power);
        let first = (low / step).ceil() as i64;
        let last = (high / step + 1e-9).floor() as i64;
        let ticks = (first..=last).map(|tick| tick as f64 * step).collect();
        Self { low, high, is_log: false, ticks, label: label.into() }
    }

    /// A logarithmic one. All values are above 0.
    pub fn logarithmic(values: impl Iterator<Item = f64>, label: &str) -> Self {
        let (low, high) = range(values);
        let (low, high) = ((low / 1.6).log10(), (high * 1.6).log10());
        let ticks = (low.floor() as i32..=high.ceil() as i32)
            .flat_map(|power| [1.0, 3.0].map(|step| step * 10_f64.powi(power)))
            .filter(|tick| (low..=high).contains(&tick.log10()))
            .collect();
        Self { low, high, is_log: true, ticks, label: label.into() }
    }

    /// Ticks at these values.
    pub fn with_ticks(mut self, ticks: Vec<f64>) -> Self {
        self.ticks = ticks;
        self
    }

    /// From 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let value = if self.is_log { value.log10() } else { value };
        (value - self.low) / (self.high - self.low)
    }
}

fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if low <= high { (low, high) } else { (1.0, 1.0) }
}

/// A number as short as it can be read.
fn short(value: f64) -> String {
    let text = if value == 0.0 || (0.001..10_000.0).contains(&value.abs()) {
        format!("{value:.3}")
    } else {
        return format!("{value:.0e}");
    };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
}

/// A picture that is being drawn.
pub struct Plot {
    svg: String,
    x: Axis,
    y: Axis,
    /// What no name may cover, points and other names: left, right and base line.
    names: Vec<(f64, f64, f64)>,
}

impl Plot {
    /// Axes and their grid. `title` is what somebody who does not see the picture is told.
    pub fn new(title: &str, x: Axis, y: Axis) -> Self {
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\" \
             xmlns=\"http://www.w3.org/2000/svg\" font-family=\"system-ui, sans-serif\" font-size=\"12\">\n",
            escape(title)
        );
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for tick in &y.ticks {
            let at = bottom - y.place(*tick) * (bottom - TOP);
            let _ = writeln!(
                svg,
                "<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"#e3e6ea\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555\">{}</text>",
                LEFT - 7.0,
                at + 4.0,
                short(*tick)
            );
        }
        for tick in &x.ticks {
            let at = LEFT + x.place(*tick) * (right - LEFT);
            let _ = writeln!(
                svg,
                "<path d=\"M{at:.1} {bottom}v5\" stroke=\"#999\"/>\
                 <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555\">{}</text>",
                bottom + 18.0,
                short(*tick)
            );
        }
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {TOP}V{bottom}H{right}\" fill=\"none\" stroke=\"#999\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#333\">{}</text>\
             <text transform=\"translate(14 {:.1}) rotate(-90)\" text-anchor=\"middle\" fill=\"#333\">{}</text>",
            f64::midpoint(LEFT, right),
            HEIGHT - 8.0,
            escape(&x.label),
            f64::midpoint(TOP, bottom),
            escape(&y.label)
        );
        Self { svg, x, y, names: Vec::new() }
    }

    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        (LEFT + self.x.place(x) * (right - LEFT), bottom - self.y.place(y) * (bottom - TOP))
    }

    /// A point that says what it is when it is pointed at.
    pub fn point(&mut self, at: (f64, f64), colour: &str, says: &str) {
        let (x, y) = self.at(at);
        self.names.push((x - 6.0, x + 6.0, y + 4.0));
        let _ = writeln!(
            self.svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\" fill=\"{colour}\"><title>{}</title></circle>",
            escape(says)
        );
    }

    /// A name beside a point, on the side where there is room, and not upon another name or a point that is there.
    pub fn name(&mut self, at: (f64, f64), name: &str) {
        let (x, y) = self.at(at);
        let is_left = x > WIDTH * 0.5;
        let (anchor, x) = if is_left { ("end", x - 9.0) } else { ("start", x + 9.0) };
        // No letter of this size is wider on average.
        let width = 6.5 * name.chars().count() as f64;
        let from = if is_left { x - width } else { x };
        let is_free = |y: f64| {
            let apart = |other: &(f64, f64, f64)| {
                (y - other.2).abs() >= 13.0 || from + width < other.0 || other.1 < from
            };
            y > TOP && y < HEIGHT - BOTTOM && self.names.iter().all(apart)
        };
        let offsets = (0..18).flat_map(|step| [4.0 + 7.0 * f64::from(step), 4.0 - 7.0 * f64::from(step)]);
        let y = offsets.map(|offset| y + offset).find(|y| is_free(*y)).unwrap_or(y);
        self.names.push((from, from + width, y));
        let _ = writeln!(
            self.svg,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"#333\">{}</text>",
            escape(name)
        );
    }

    pub fn line(&mut self, points: &[(f64, f64)], colour: &str, dashes: &str) {
        let mut path = String::new();
        for (place, point) in points.iter().enumerate() {
            let (x, y) = self.at(*point);
            let _ = write!(path, "{}{x:.1} {y:.1}", if place == 0 { 'M' } else { 'L' });
        }
        let _ = writeln!(
            self.svg,
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"/>"
        );
    }

    /// A bar from zero, one of so many.
    pub fn bar(&mut self, (from, to): (f64, f64), value: f64, colour: &str, says: &str) {
        let ((left, zero), (right, end)) = (self.at((from, 0.0)), self.at((to, value)));
        let (top, height) = (zero.min(end), (zero - end).abs());
        let _ = writeln!(
            self.svg,
            "<rect x=\"{left:.2}\" y=\"{top:.1}\" width=\"{:.2}\" height=\"{:.1}\" fill=\"{colour}\"><title>{}</title></rect>",
            (right - left).max(0.3),
            height.max(0.6),
            escape(says)
        );
    }

    pub fn done(mut self) -> String {
        self.svg.push_str("</svg>\n");
        self.svg
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_take_any_range() {
        for values in [vec![], vec![0.5], vec![0.0, 1.0], vec![-3e-9, 2e-9], vec![1e6, 2e6]] {
            let axis = Axis::linear(values.iter().copied(), "x");
            assert!(axis.ticks.len() < 20 && !axis.ticks.is_empty(), "{values:?}");
            assert!(values.iter().all(|value| (0.0..=1.0).contains(&axis.place(*value))));
        }
        let axis = Axis::logarithmic([0.2, 900.0].into_iter(), "x");
        assert!(axis.place(0.2) > 0.0 && axis.place(900.0) < 1.0 && axis.ticks.contains(&10.0));
        assert_eq!(["0", "0.25", "100"].map(String::from), [0.0, 0.25, 100.0].map(short));
    }

    #[test]
    fn no_text_ends_its_place() {
        assert_eq!(escape("<a href=\"x\">&\u{7}"), "&lt;a href=&quot;x&quot;&gt;&amp; ");
    }
}
