//! The report as one page: no script, no picture and no font from elsewhere.

use std::fmt::Write as _;

use super::p_value;
use super::report::{CollectionReport, DepthCurve, MetricRow, Reliability, Report};
use crate::plot::{Axis, Plot, STYLE, colour, escape};

/// The whole page.
pub fn page(report: &Report) -> String {
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Evaluation of rankers</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>Evaluation of rankers</h1>\n\
         <p class=\"note\">jointly {}, {} threads. Differences are to <b>{}</b>.</p>\n",
        report.version,
        report.threads,
        escape(&report.baseline)
    );
    models(report, &mut html);
    html.push_str(
        "<p>Each difference has its 95 % bootstrap interval, and p of a paired randomisation test, corrected by Holm's \
         method for the rankers of the table. <b>No difference</b> means that the difference was shown to be smaller than \
         the margin. <b>Too few queries to tell</b> means that neither a difference nor its absence could be shown; the last \
         column but one says which difference so many queries can find.</p>\n",
    );
    for collection in &report.collections {
        section(report, collection, &mut html);
    }
    html.push_str("</body>\n</html>\n");
    html
}

fn models(report: &Report, html: &mut String) {
    html.push_str(
        "<div class=\"wide\"><table><thead><tr><th>ranker</th><th class=\"says\">model</th><th>precision</th>\
         <th>longest, tokens</th><th>instruction set</th><th>SHA-256 of its files</th></tr></thead><tbody>\n",
    );
    for (place, ranker) in report.rankers.iter().enumerate() {
        let key = format!("<span class=\"key\" style=\"background:{}\"></span>", colour(place));
        let name = escape(&ranker.name);
        if ranker.models.is_empty() {
            let _ = writeln!(
                html,
                "<tr><td>{key}{name}</td><td class=\"says\">none</td><td></td><td></td><td></td><td></td></tr>"
            );
        }
        for model in &ranker.models {
            // A cascade may have several models, or none.
            let hash = model.sha256.get(..12).map(|start| format!("<code>{start}…</code>"));
            let hash = hash.unwrap_or_default();
            let _ = writeln!(
                html,
                "<tr><td>{key}{name}</td><td class=\"says\">{} ({}, {})</td><td>{}</td><td>{}</td><td>{}</td>\
                 <td>{hash}</td></tr>",
                escape(&model.model),
                model.kind,
                model.architecture,
                model.precision,
                model.max_length,
                escape(&model.isa)
            );
        }
    }
    html.push_str("</tbody></table></div>\n");
}

fn section(report: &Report, collection: &CollectionReport, html: &mut String) {
    let CollectionReport { name, path, candidates, queries, pairs, depth, relevant_from, .. } = collection;
    let _ = writeln!(
        html,
        "<h2>{}</h2>\n<p class=\"note\"><code>{}</code>: {queries} judged queries, {pairs} pairs, up to {depth} candidates for each query from {}; \
         relevant from label {relevant_from} on.{}{}{}</p>",
        escape(name),
        escape(path),
        escape(candidates),
        note(collection.queries_without_candidates, "judged queries have no candidates and count as 0"),
        note(collection.queries_without_judgements, "queries have no judgements and count nowhere"),
        note(
            collection.queries_without_subtopics.unwrap_or(0),
            "judged queries have no judgements by subtopic and do not count in alpha_ndcg"
        )
    );
    for (place, metric) in report.metrics.iter().enumerate() {
        table(report, collection, place, metric, html);
    }
    html.push_str("<div class=\"plots\">\n");
    figure(
        html,
        &cost(report, collection),
        "Quality against cost. Time beyond the first stage for each query, as it was measured when \
        the pairs were scored; a bi-encoder's is that of the query alone. A ranker without a known cost is not drawn; the dashed line is the baseline.",
    );
    if !collection.depth_curves.is_empty() {
        let says: Vec<String> = collection
            .depth_curves
            .iter()
            .map(|curve| format!("<b>{}</b> {}", escape(&curve.ranker), escape(&curve.says)))
            .collect();
        let caption =
            format!("Only the best so many candidates of the first stage are reranked. {}.", says.join(". "));
        figure(html, &depths(report, &collection.depth_curves), &caption);
    }
    for (place, row) in collection.results.iter().enumerate().filter(|(_, row)| row.ranker != report.baseline)
    {
        let Some(baseline) = collection.results.iter().find(|row| row.ranker == report.baseline) else {
            continue;
        };
        let (Some(values), Some(base)) = (row.metrics.first(), baseline.metrics.first()) else { continue };
        let (svg, counts) = gains(values, base, colour(place));
        let caption = format!(
            "<b>{}</b> minus {}, {} of each query, the largest gain first: {counts}.",
            escape(&row.ranker),
            escape(&report.baseline),
            escape(&values.metric)
        );
        figure(html, &svg, &caption);
    }
    for reliability in &collection.reliability {
        let place = report.rankers.iter().position(|ranker| ranker.name == reliability.ranker).unwrap_or(0);
        let caption = format!(
            "<b>{}</b>: what its probability means. {} judged pairs, {} of them relevant, in {} bins of equal mass; expected calibration error \
             {:.3}, Brier score {:.3}. On the dashed line, 0.8 means that 80 % are relevant. These are candidates of a first stage, \
             not documents at large.",
            escape(&reliability.ranker),
            reliability.pairs,
            reliability.relevant,
            reliability.bins.len(),
            reliability.ece,
            reliability.brier
        );
        figure(html, &reliable(reliability, colour(place)), &caption);
    }
    html.push_str("</div>\n");
}

fn note(count: usize, what: &str) -> String {
    if count == 0 { String::new() } else { format!(" {count} {what}.") }
}

fn figure(html: &mut String, svg: &str, caption: &str) {
    let _ = writeln!(html, "<figure>\n{svg}<figcaption>{caption}</figcaption>\n</figure>");
}

fn table(report: &Report, collection: &CollectionReport, place: usize, metric: &str, html: &mut String) {
    let _ = write!(
        html,
        "<h3>{}</h3>\n<div class=\"wide\"><table><thead><tr><th>ranker</th><th>mean</th><th>difference</th><th>95 % interval</th>\
         <th>p (Holm)</th><th>won / lost</th><th>ms per query</th><th>can be found</th><th class=\"says\">verdict</th></tr></thead><tbody>\n",
        escape(metric)
    );
    for row in &collection.results {
        let value = &row.metrics[place];
        let ms = row.ms_per_query.map_or("not known".into(), |ms| format!("{ms:.1}"));
        let (name, mean) = (escape(&row.ranker), value.mean);
        let Some(compared) = &value.comparison else {
            let says =
                if row.ranker == report.baseline { "baseline" } else { "one query: nothing to compare" };
            let _ = writeln!(
                html,
                "<tr><td>{name}</td><td>{mean:.4}</td><td></td><td></td><td></td><td></td><td>{ms}</td><td></td><td class=\"says\">{says}</td></tr>"
            );
            continue;
        };
        let numbers = &compared.numbers;
        let _ = writeln!(
            html,
            "<tr><td>{name}</td><td>{mean:.4}</td><td>{:+.4}</td><td>{:+.4} to {:+.4}</td><td>{}</td><td>{} / {}</td><td>{ms}</td>\
             <td>{:.4}</td><td class=\"says {}\">{}</td></tr>",
            numbers.difference,
            numbers.interval.low,
            numbers.interval.high,
            escape(&p_value(numbers.different.holm)),
            numbers.wins,
            numbers.losses,
            numbers.detectable,
            compared.verdict,
            escape(&compared.says)
        );
    }
    html.push_str("</tbody></table></div>\n");
}

/// Quality against cost.
fn cost(report: &Report, collection: &CollectionReport) -> String {
    let points: Vec<(usize, f64, f64)> = collection
        .results
        .iter()
        .enumerate()
        .filter_map(|(place, row)| Some((place, row.ms_per_query?, row.metrics.first()?.mean)))
        .filter(|(_, ms, _)| *ms > 0.0)
        .collect();
    let metric = &report.metrics[0];
    // The first stage of a pool has no cost, but what it is worth can be seen all the same.
    let base = collection.results.iter().find(|row| row.ranker == report.baseline);
    let base = base.and_then(|row| row.metrics.first()).map(|row| row.mean);
    let x = Axis::logarithmic(points.iter().map(|point| point.1), "ms per query");
    let y = Axis::linear(points.iter().map(|point| point.2).chain(base), metric);
    let (from, to) = (
        points.iter().map(|point| point.1).fold(f64::INFINITY, f64::min),
        points.iter().map(|point| point.1).fold(0.0, f64::max),
    );
    let mut plot = Plot::new(&format!("{metric} against ms per query"), x, y);
    if let Some(base) = base.filter(|_| !points.is_empty()) {
        plot.line(&[(from / 1.6, base), (to * 1.6, base)], "#888888", "4 4");
    }
    for (place, ms, mean) in &points {
        let name = &collection.results[*place].ranker;
        plot.point((*ms, *mean), colour(*place), &format!("{name}: {mean:.4}, {ms:.1} ms"));
    }
    // Names after all points, so as to keep clear of them.
    for (place, ms, mean) in points {
        plot.name((ms, mean), &collection.results[place].ranker);
    }
    plot.done()
}

/// The depth curves of all cross-encoders.
fn depths(report: &Report, curves: &[DepthCurve]) -> String {
    let all = || curves.iter().flat_map(|curve| &curve.points);
    let most = all().map(|point| point.depth).max().unwrap_or(1) as f64;
    let metric = &report.metrics[0];
    let mut ticks: Vec<f64> = all().map(|point| point.depth as f64).collect();
    ticks.sort_unstable_by(f64::total_cmp);
    ticks.dedup();
    // Names of depths that lie too close to each other cannot be read.
    let mut last = f64::NEG_INFINITY;
    ticks.retain(|tick| {
        let is_far = *tick - last >= most * 0.05;
        if is_far {
            last = *tick;
        }
        is_far
    });
    let x = Axis::exact(0.0, most * 1.02, "candidates reranked").with_ticks(ticks);
    let y = Axis::linear(all().map(|point| point.mean), metric);
    let mut plot = Plot::new(&format!("{metric} against the number of candidates reranked"), x, y);
    for curve in curves {
        let place = report.rankers.iter().position(|ranker| ranker.name == curve.ranker).unwrap_or(0);
        let points: Vec<(f64, f64)> =
            curve.points.iter().map(|point| (point.depth as f64, point.mean)).collect();
        plot.line(&points, colour(place), "");
        for (point, at) in curve.points.iter().zip(&points) {
            plot.point(*at, colour(place), &format!("{}, {}: {:.4}", curve.ranker, point.depth, point.mean));
        }
    }
    plot.done()
}

/// Per-query gains, sorted; and how many there are of each kind.
fn gains(values: &MetricRow, baseline: &MetricRow, colour: &str) -> (String, String) {
    let mut gains: Vec<(&str, f64)> = values
        .per_query
        .iter()
        .map(|(query, value)| (query.as_str(), value - baseline.per_query.get(query).copied().unwrap_or(0.0)))
        .collect();
    gains.sort_by(|a, b| b.1.total_cmp(&a.1));
    let counts = [
        (gains.iter().filter(|gain| gain.1 > 0.0).count(), "gain"),
        (gains.iter().filter(|gain| gain.1 == 0.0).count(), "stay"),
        (gains.iter().filter(|gain| gain.1 < 0.0).count(), "lose"),
    ];
    let counts: Vec<String> = counts.iter().map(|(count, what)| format!("{count} {what}")).collect();
    let x = Axis::exact(0.0, gains.len().max(1) as f64, "queries");
    let y = Axis::linear(
        gains.iter().map(|gain| gain.1).chain([0.0]),
        &format!("difference of {}", values.metric),
    );
    let mut plot = Plot::new("gain of each query, sorted", x, y);
    for (place, (query, gain)) in gains.iter().enumerate() {
        let fill = if *gain < 0.0 { "#b3b9c0" } else { colour };
        let from = place as f64;
        plot.bar((from + 0.08, from + 0.92), *gain, fill, &format!("{query}: {gain:+.4}"));
    }
    (plot.done(), counts.join(", "))
}

fn reliable(reliability: &Reliability, colour: &str) -> String {
    let x = Axis::exact(0.0, 1.0, "probability that the model gives");
    let y = Axis::exact(0.0, 1.0, "share that is relevant");
    let mut plot = Plot::new("share of relevant documents against the model's probability", x, y);
    plot.line(&[(0.0, 0.0), (1.0, 1.0)], "#888888", "4 4");
    let points: Vec<(f64, f64)> =
        reliability.bins.iter().map(|bin| (bin.probability, bin.relevant)).collect();
    plot.line(&points, colour, "");
    for (bin, at) in reliability.bins.iter().zip(&points) {
        plot.line(&[(at.0, bin.low), (at.0, bin.high)], colour, "");
        let says = format!(
            "probability {:.3}: {:.3} relevant [{:.3}, {:.3}], {} pairs",
            bin.probability, bin.relevant, bin.low, bin.high, bin.pairs
        );
        plot.point(*at, colour, &says);
    }
    plot.done()
}
