//! The report of a run: its log as curves, on one page.

use std::fmt::Write as _;
use std::path::Path;

use jointly_eval::format::Lines;
use jointly_train::trainer::Event;

use crate::error::Result;
use crate::plot::{Axis, Plot, STYLE, colour, escape};

/// Points of a curve, at most: each is a mean.
const POINTS: usize = 200;

/// Writes the page of the run in `folder`; `settings` are its name and value pairs.
pub fn write(folder: &Path, settings: &[(&str, String)]) -> Result<()> {
    let mut lines = Lines::open(folder.join("log.jsonl"))?;
    let (mut loss, mut norm, mut rate, mut dev) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut pairs_done, mut tokens_done, mut seconds_done, mut last_seconds) = (0, 0, 0.0, 0.0);
    while let Some((_, line)) = lines.next_line()? {
        match serde_json::from_str(line) {
            Ok(Event::Step { step, loss: of_step, norm: length, rate: of, pairs, tokens, seconds }) => {
                let at = step as f64;
                loss.push((at, of_step));
                norm.push((at, length));
                rate.push((at, of));
                pairs_done += pairs;
                tokens_done += tokens;
                // The clock begins anew where a run was resumed.
                seconds_done += if seconds < last_seconds { seconds } else { seconds - last_seconds };
                last_seconds = seconds;
            }
            Ok(Event::Dev { step, ndcg, .. }) => dev.push((step as f64, ndcg)),
            _ => {}
        }
    }
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Training</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>Training</h1>\n\
         <p class=\"note\">jointly {}; {} updates, {pairs_done} pairs, {tokens_done} tokens, {:.1} minutes.</p>\n<div class=\"plots\">\n",
        env!("CARGO_PKG_VERSION"),
        loss.len(),
        seconds_done / 60.0
    );
    let curves = [
        ("Loss", loss, "mean over the queries of an update, smoothed"),
        ("NDCG@10 of the dev set", dev, "measured with the program that users run"),
        ("Norm of the gradient", norm, "before clipping, smoothed"),
        ("Learning rate", rate, ""),
    ];
    for (place, (name, points, note)) in curves.iter().enumerate() {
        if points.is_empty() {
            continue;
        }
        let points = if name.starts_with("NDCG") { points.clone() } else { smooth(points) };
        let mut plot = Plot::new(
            name,
            Axis::linear(points.iter().map(|point| point.0), "update"),
            Axis::linear(points.iter().map(|point| point.1), name),
        );
        plot.line(&points, colour(place), "");
        if name.starts_with("NDCG") {
            points.iter().for_each(|at| {
                plot.point(*at, colour(place), &format!("{:.4} after {} updates", at.1, at.0))
            });
        }
        let _ = writeln!(
            html,
            "<figure>{}<figcaption>{name}{}{note}</figcaption></figure>",
            plot.done(),
            if note.is_empty() { "" } else { ": " }
        );
    }
    html.push_str("</div>\n<h2>Settings</h2>\n<table><tbody>\n");
    for (name, value) in settings {
        let _ = writeln!(html, "<tr><td>{name}</td><td class=\"says\">{}</td></tr>", escape(value));
    }
    html.push_str("</tbody></table>\n</body>\n</html>\n");
    let path = folder.join("report.html");
    std::fs::write(&path, html).map_err(|error| crate::error::CliError::file(&path, &error))
}

/// Means of neighbours, so that a curve can be seen.
fn smooth(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let part = points.len().div_ceil(POINTS);
    let mean = |part: &[(f64, f64)]| {
        let n = part.len() as f64;
        (part.iter().map(|p| p.0).sum::<f64>() / n, part.iter().map(|p| p.1).sum::<f64>() / n)
    };
    points.chunks(part).map(mean).collect()
}
