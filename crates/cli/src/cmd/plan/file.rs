//! The plan as a cascade file.

use std::fmt::Write;

use super::report::Report;
use super::search::{Planned, Step};
use super::speed::Part;

/// In the format of `jointly rerank --cascade`.
pub fn cascade(planned: &Planned, parts: &[Part], report: &Report<'_>) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# Written by jointly plan {}.", env!("CARGO_PKG_VERSION"));
    for line in report.summary() {
        let _ = writeln!(text, "# {}", line.replace(['\n', '\r'], " "));
    }
    let steps = &planned.chosen().steps;
    for (number, Step { part, depth }) in steps.iter().enumerate() {
        let part = &parts[*part];
        let prefix = if part.is_bi() { "bi:" } else { "" };
        let precision = match part.named.0.precision {
            None => "auto",
            Some(precision) => precision.name(),
        };
        let _ = writeln!(text, "\n[[stage]]");
        let _ = writeln!(text, "name = {}", quoted(&part.name));
        let _ = writeln!(text, "model = {}", quoted(&format!("{prefix}{}", part.named.0.name)));
        let _ = writeln!(text, "precision = {}", quoted(precision));
        // Scores and times are of texts of this length.
        let _ = writeln!(text, "max_length = {}", part.description.max_length);
        if number == 0 {
            let _ = writeln!(text, "depth = {depth}");
        }
        if let Some(next) = steps.get(number + 1) {
            let _ = writeln!(text, "keep = {}", next.depth);
        }
    }
    text
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
