//! What a plan comes to, for people and programs.

use jointly_eval::Metric;
use jointly_eval::significance::{Interval, Tested};
use serde::Serialize;

use super::picture::{Picture, Row};
use super::search::{Candidate, Planned, Point, mean};
use super::speed::{Cost, Part};
use crate::cmd::eval::{Collection, Description};
use crate::error::Result;
use crate::output::{Output, printable};

/// The names are part of the interface.
#[derive(Serialize)]
pub struct Report<'a> {
    version: &'static str,
    collections: Vec<&'a str>,
    queries: usize,
    pairs: usize,
    metric: String,
    margin: f64,
    folds: usize,
    threads: usize,
    cascades_tried: usize,
    scorers: Vec<Scorer<'a>>,
    reference: Entry<'a>,
    front: Vec<FrontRow<'a>>,
    plan: Chosen<'a>,
    cost: Picture,
}

#[derive(Serialize)]
struct Scorer<'a> {
    name: &'a str,
    #[serde(flatten)]
    description: &'a Description,
    ms_per_query: f64,
    tokens_per_pair: f64,
    timed_pairs: usize,
    /// Of all threads, in its precision.
    peak_gflop_per_s: Option<f64>,
    share_of_peak: Option<f64>,
}

#[derive(Serialize)]
struct Entry<'a> {
    stages: Vec<Stage<'a>>,
    mean: f64,
    ms_per_query: f64,
    pairs_per_query: f64,
    tokens_per_query: f64,
    gflop_per_query: f64,
}

#[derive(Serialize)]
struct Stage<'a> {
    scorer: &'a str,
    depth: usize,
    pairs_per_query: f64,
    ms_per_query: f64,
}

#[derive(Serialize)]
struct FrontRow<'a> {
    #[serde(flatten)]
    entry: Entry<'a>,
    held_out: f64,
    /// Of the held-out metric, to the reference.
    difference: Option<f64>,
    interval: Option<Interval>,
    no_loss: Option<Tested>,
    shows_no_loss: bool,
    says: String,
}

#[derive(Serialize)]
struct Chosen<'a> {
    /// From 0, in the front.
    place: usize,
    #[serde(flatten)]
    entry: Entry<'a>,
    /// It was shown that it loses less than the margin.
    shown: bool,
    /// Of the reference's time.
    share_of_reference_ms: f64,
}

impl<'a> Report<'a> {
    pub fn new(
        planned: &'a Planned,
        parts: &'a [Part],
        cost: Picture,
        (collections, metric, threads): (&'a [Collection], Metric, usize),
    ) -> Self {
        let chosen = planned.chosen();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            collections: collections.iter().map(|collection| collection.name.as_str()).collect(),
            queries: planned.queries.len(),
            pairs: collections.iter().map(Collection::pairs).sum(),
            metric: metric.to_string(),
            margin: planned.margin,
            folds: planned.folds,
            threads,
            cascades_tried: planned.candidates.len(),
            scorers: parts
                .iter()
                .map(|part| Scorer {
                    name: &part.name,
                    description: &part.description,
                    ms_per_query: part.ms_of_all(),
                    tokens_per_pair: part.tokens_per_pair(),
                    timed_pairs: part.timed_pairs,
                    peak_gflop_per_s: part.peak.map(|peak| peak / 1e9),
                    share_of_peak: part.share_of_peak,
                })
                .collect(),
            reference: entry(planned.reference(), parts),
            front: planned.front.iter().map(|point| front_row(planned, point, parts)).collect(),
            plan: Chosen {
                place: planned.chosen,
                entry: entry(chosen, parts),
                shown: planned.is_shown,
                share_of_reference_ms: chosen.cost.ms / planned.reference().cost.ms,
            },
            cost,
        }
    }

    /// The plan in a few sentences.
    pub fn summary(&self) -> Vec<String> {
        let Chosen { place, entry, share_of_reference_ms, shown } = &self.plan;
        let row = &self.front[*place];
        let mut lines = vec![format!("{}: {}", self.collections.join(", "), path_of(&entry.stages))];
        let compared = match (row.difference, row.interval) {
            (Some(difference), Some(interval)) => {
                format!(", {difference:+.4} [{:+.4}, {:+.4}] to the reference", interval.low, interval.high)
            }
            _ => String::new(),
        };
        lines.push(format!("{} held out: {:.4}{compared}", self.metric, row.held_out));
        lines.push(format!(
            "{:.1} ms per query, {:.2} of the reference ({})",
            entry.ms_per_query,
            share_of_reference_ms,
            path_of(&self.reference.stages)
        ));
        lines.push(match shown {
            true => format!("shown on {} queries: it loses less than {}", self.queries, self.margin),
            false => format!("{} queries do not show that it loses less than {}", self.queries, self.margin),
        });
        lines
    }

    pub fn print(&self) -> Result<()> {
        let mut output = Output::new();
        output.line(format_args!(
            "{}: {} queries, {} pairs, {} cascades, {} threads",
            printable(&self.collections.join(", ")),
            self.queries,
            self.pairs,
            self.cascades_tried,
            self.threads
        ))?;
        output.line("scorers, over all candidates")?;
        for scorer in &self.scorers {
            let peak = match (scorer.share_of_peak, scorer.peak_gflop_per_s) {
                (Some(share), Some(peak)) => {
                    format!(", {:.0} % of the peak of {peak:.0} GFLOP/s", 100.0 * share)
                }
                _ => String::new(),
            };
            output.line(format_args!(
                "  {}  {:.2} ms/query, {:.0} tokens/pair{peak}",
                printable(scorer.name),
                scorer.ms_per_query,
                scorer.tokens_per_pair
            ))?;
        }
        output.line(format_args!(
            "{}; reference {}: {:.4} in {:.2} ms/query",
            self.metric,
            printable(&path_of(&self.reference.stages)),
            self.reference.mean,
            self.reference.ms_per_query
        ))?;
        output.line("  ms/query    mean  held out  difference")?;
        for (place, row) in self.front.iter().enumerate() {
            let mark = if place == self.plan.place { '*' } else { ' ' };
            let compared = match (row.difference, row.interval) {
                (Some(difference), Some(Interval { low, high })) => {
                    format!("{difference:+.4} [{low:+.4}, {high:+.4}]")
                }
                _ => "-".into(),
            };
            output.line(format_args!(
                "{mark} {:>8.2}  {:.4}    {:.4}  {compared}  {}: {}",
                row.entry.ms_per_query,
                row.entry.mean,
                row.held_out,
                printable(&path_of(&row.entry.stages)),
                row.says
            ))?;
        }
        output.line("cost of 1,000 queries")?;
        output.line("  tokens/query  GFLOP/query   ms/query    J/query   USD/1,000")?;
        let number = |value: Option<f64>| value.map_or("-".to_string(), short);
        for row in &self.cost.rows {
            let Row { tokens_per_query, gflop_per_query, ms_per_query, joules_per_query, .. } = row;
            output.line(format_args!(
                "  {:>12.0}  {:>11}  {:>9}  {:>9}  {:>10}  {}",
                tokens_per_query,
                number(*gflop_per_query),
                number(*ms_per_query),
                number(*joules_per_query),
                number(row.usd_per_1000_queries),
                printable(&row.what)
            ))?;
        }
        for line in self.summary() {
            output.line(printable(&line))?;
        }
        output.flush()
    }
}

/// Three digits that mean something.
fn short(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 1.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.4}")
    }
}

fn entry<'a>(candidate: &Candidate, parts: &'a [Part]) -> Entry<'a> {
    let Cost { pairs, tokens, flops, ms } = candidate.cost;
    let stages = candidate.steps.iter().zip(&candidate.of_step).map(|(step, cost)| Stage {
        scorer: &parts[step.part].name,
        depth: step.depth,
        pairs_per_query: cost.pairs,
        ms_per_query: cost.ms,
    });
    Entry {
        stages: stages.collect(),
        mean: candidate.mean,
        ms_per_query: ms,
        pairs_per_query: pairs,
        tokens_per_query: tokens,
        gflop_per_query: flops / 1e9,
    }
}

fn front_row<'a>(planned: &Planned, point: &Point, parts: &'a [Part]) -> FrontRow<'a> {
    let comparison = point.comparison.as_ref();
    let says = match comparison {
        _ if point.candidate == planned.reference => "the reference".to_string(),
        _ if point.is_shown => format!("loses less than {}", planned.margin),
        Some(comparison) => comparison.verdict().to_string(),
        None => "nothing to compare".to_string(),
    };
    FrontRow {
        entry: entry(&planned.candidates[point.candidate], parts),
        held_out: mean(&point.held_out),
        difference: comparison.map(|comparison| comparison.difference),
        interval: comparison.map(|comparison| comparison.interval),
        no_loss: comparison.map(|comparison| comparison.no_loss),
        shows_no_loss: point.is_shown,
        says,
    }
}

/// `100 > small, 20 > large`: how many each scorer reads.
fn path_of(stages: &[Stage<'_>]) -> String {
    if stages.is_empty() {
        return "the first stage alone".into();
    }
    stages.iter().map(|stage| format!("{} > {}", stage.depth, stage.scorer)).collect::<Vec<_>>().join(" > ")
}
