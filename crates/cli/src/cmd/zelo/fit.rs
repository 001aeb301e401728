use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use jointly_eval::calibration::{Example, Map, Method};
use jointly_eval::data::Label;
use jointly_train::zelo::fit::{Fit as Fitted, FitOptions, Tournament};
use jointly_train::zelo::report::Report;
use jointly_train::zelo::votes::Vote;
use serde::Serialize;

use super::{Link, at_least_0, refused};
use crate::Global;
use crate::error::{CliError, Result};
use crate::input::{Lines, json_problem};
use crate::model;
use crate::output::{Output, Sink, printable, say, to_json};
use crate::pool::{self, PoolArguments};

/// Fit a graded label for each document to votes, and say what the votes are worth
#[derive(Args)]
#[command(after_help = format!("\
{}

VOTES: JSON lines with `query`, `a`, `b`, `query_b` if b belongs to another query, `judge`, `vote` (the share for b, from 0 to 1;
null is an abstention), and `swapped` if the judge saw b first. Lines of a judge on the same pair all count.

Fitted are a score e for each document, of mean 0 in its query; a scale and a bias for each judge; and, from pairs across
queries, an offset b for each query. FITTED is the pool with, for each document: `label` (e + b), `target` (1 / (1 + exp(-A (e + b) -
C))), `standard_error` (of e within its query; what no votes connect is joined by the prior alone), and `judged`, the label that it
had; and, for each query, `bias` (b) and its `bias_standard_error` (for at most {} queries). Queries without votes are left
out.

Report: a query is separated if some documents never lost anything to the others, so that without the prior their scores would be
infinite; reliability is the share of the scores' variance that is not error.", pool::HELP, jointly_train::zelo::fit::BIAS_ERRORS))]
pub struct Fit {
    /// Queries with candidates, judged or not
    #[arg(value_name = "DATA")]
    data: PathBuf,
    #[command(flatten)]
    pool: PoolArguments,
    /// What judges said; `-` is standard input
    #[arg(long, value_name = "VOTES", required = true)]
    votes: Vec<PathBuf>,
    /// Write the pool with its labels here, as groups
    #[arg(long, short, value_name = "FITTED")]
    output: Option<PathBuf>,
    /// Write the report here, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Replace these files if they exist
    #[arg(long)]
    force: bool,
    /// How a difference of scores becomes the probability of a vote
    #[arg(long, value_enum, default_value_t = Link::Thurstone)]
    link: Link,
    /// The prior of the scores, exp(-X/2 e²): larger draws them together; with 0 some votes have no fit
    #[arg(long, value_name = "X", default_value_t = FitOptions::PRIOR, value_parser = at_least_0)]
    prior: f64,
    /// The prior of the queries' offsets, above 0
    #[arg(long, value_name = "X", default_value_t = FitOptions::BIAS_PRIOR, value_parser = at_least_0)]
    bias_prior: f64,
    /// Take all judges to be alike, and without bias
    #[arg(long)]
    equal_judges: bool,
    /// A and C of the target [default: A of the link's slope, about 2.26 or 1, and C 0]
    #[arg(long, value_name = "A,C", value_parser = numbers, allow_hyphen_values = true, conflicts_with = "level")]
    map: Option<[f64; 2]>,
    /// Fit A and C to the labels that the pool has: relevant from this one on
    #[arg(long, value_name = "LABEL")]
    level: Option<Label>,
}

fn numbers(text: &str) -> std::result::Result<[f64; 2], String> {
    let number = |text: &str| text.trim().parse().ok().filter(|value: &f64| value.is_finite());
    let pair = text.split_once(',').and_then(|(a, c)| Some([number(a)?, number(c)?]));
    match pair {
        Some([a, c]) if a > 0.0 => Ok([a, c]),
        Some(_) => Err("A must be above 0".into()),
        None => Err("two numbers with a comma between them are expected".into()),
    }
}

/// A query of the output; the names are part of the interface.
#[derive(Serialize)]
struct Query<'a> {
    query_id: &'a str,
    query: &'a str,
    bias: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bias_standard_error: Option<f64>,
    documents: Vec<Document<'a>>,
}

#[derive(Serialize)]
struct Document<'a> {
    id: &'a str,
    text: &'a str,
    label: f64,
    target: f64,
    standard_error: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    judged: Option<Label>,
}

/// The report as JSON.
#[derive(Serialize)]
struct Printed<'a> {
    link: jointly_train::zelo::Link,
    prior: f64,
    bias_prior: f64,
    map: Target,
    #[serde(flatten)]
    report: &'a Report,
}

/// σ(a y + c).
#[derive(Clone, Copy, Serialize)]
struct Target {
    a: f64,
    c: f64,
    /// Labels that it was fitted to.
    labels: usize,
}

impl Target {
    fn apply(&self, label: f64) -> f64 {
        1.0 / (1.0 + (-(self.a * label + self.c)).exp())
    }
}

impl Fit {
    pub fn run(self, global: Global) -> Result<()> {
        Sink::check(self.output.as_deref(), self.force)?;
        Sink::check(self.json.as_deref(), self.force)?;
        let mut tournament = Tournament::new();
        let mut ids = Vec::new();
        // For --level: the labels of each query.
        let mut labels: Vec<Vec<Option<Label>>> = Vec::new();
        let bar = model::bar(None, "{spinner} reading {pos} queries", global);
        self.pool.each(&self.data, |query| {
            let documents = query.documents.iter().map(|document| document.id.as_str());
            tournament.add_query(&query.id, documents).map_err(refused)?;
            if self.level.is_some() {
                labels.push(query.documents.iter().map(|document| document.label).collect());
            }
            ids.push(query.id);
            bar.inc(1);
            Ok(())
        })?;
        bar.finish();
        self.read_votes(&mut tournament, global)?;

        let bar = model::bar(None, "{spinner} fitting, {elapsed}", global);
        bar.enable_steady_tick(std::time::Duration::from_millis(200));
        let threads = NonZeroUsize::new(model::threads(global)).unwrap_or(NonZeroUsize::MIN);
        let options = FitOptions::new()
            .link(self.link.library())
            .prior(self.prior)
            .bias_prior(self.bias_prior)
            .calibrate(!self.equal_judges)
            .threads(threads);
        let fit = tournament.fit(&options).map_err(refused)?;
        bar.finish();
        let target = self.target(&fit, &labels)?;
        drop(labels);

        if let Some(output) = &self.output {
            self.write(output, &fit, &ids, target)?;
        }
        let report = &fit.report;
        if let Some(path) = &self.json {
            let (link, prior, bias_prior) = (self.link.library(), self.prior, self.bias_prior);
            let mut sink = Sink::open(Some(path), self.force)?;
            sink.line(to_json(&Printed { link, prior, bias_prior, map: target, report })?)?;
            sink.finish()?;
        }
        print(report, target)?;
        if !report.judges_settled && !global.quiet {
            say(format_args!("the judges' scales had not settled after {} rounds", report.rounds));
        }
        Ok(())
    }

    fn read_votes(&self, tournament: &mut Tournament, global: Global) -> Result<()> {
        let bar = model::bar(None, "{spinner} reading {pos} votes", global);
        for path in &self.votes {
            let mut lines = Lines::open(path)?;
            while let Some(line) = lines.next_line() {
                let line = line?;
                if line.text.trim().is_empty() {
                    continue;
                }
                let vote: Vote<'_> = serde_json::from_str(&line.text)
                    .map_err(|error| lines.error(line.number, json_problem(&error)))?;
                tournament.add(&vote).map_err(|error| lines.error(line.number, error))?;
                if line.number.is_multiple_of(1 << 12) {
                    bar.inc(1 << 12);
                }
            }
        }
        bar.finish();
        Ok(())
    }

    fn target(&self, fit: &Fitted, labels: &[Vec<Option<Label>>]) -> Result<Target> {
        let Some(level) = self.level else {
            let [a, c] = self.map.unwrap_or([self.link.logits(), 0.0]);
            return Ok(Target { a, c, labels: 0 });
        };
        let of_query = |(place, labels): (usize, &Vec<Option<Label>>)| {
            let scores = fit.scores(place).filter(|scores| scores.is_voted)?;
            let example = |(score, label): (&f64, &Option<Label>)| {
                Some(Example { logit: score + scores.bias, relevant: (*label)? >= level })
            };
            Some(scores.scores.iter().zip(labels).filter_map(example).collect::<Vec<_>>())
        };
        let examples = labels.iter().enumerate().filter_map(of_query).collect::<Vec<_>>().concat();
        let fault = |problem: &str| CliError::Input(format!("{}: {problem}", self.data.display()));
        if examples.is_empty() {
            return Err(fault("--level needs documents that are judged and voted on, and there are none"));
        }
        match Method::Platt.fit(&examples)? {
            Map::Platt { a, b } => Ok(Target { a, c: b, labels: examples.len() }),
            _ => Err(fault("--level: the labels do not rise with the scores")),
        }
    }

    /// The second time that the pool is read: its texts are not kept.
    fn write(&self, output: &std::path::Path, fit: &Fitted, ids: &[String], target: Target) -> Result<()> {
        let changed =
            || CliError::Input(format!("{}: it has changed while it was read", self.data.display()));
        let mut sink = Sink::open(Some(output), self.force)?;
        let mut place = 0;
        self.pool.each(&self.data, |query| {
            let scores = fit.scores(place).filter(|scores| scores.scores.len() == query.documents.len());
            let scores = scores.filter(|_| ids[place] == query.id).ok_or_else(changed)?;
            place += 1;
            if !scores.is_voted {
                return Ok(());
            }
            let document = |(place, document): (usize, &'_ pool::Document)| {
                let label = scores.scores[place] + scores.bias;
                (label, scores.standard_errors[place], document.label)
            };
            let numbers: Vec<_> = query.documents.iter().enumerate().map(document).collect();
            let documents = query.documents.iter().zip(numbers);
            let documents = documents.map(|(document, (label, standard_error, judged))| Document {
                id: &document.id,
                text: &document.text,
                label,
                target: target.apply(label),
                standard_error,
                judged,
            });
            sink.line(to_json(&Query {
                query_id: &query.id,
                query: &query.text,
                bias: scores.bias,
                bias_standard_error: scores.bias_standard_error,
                documents: documents.collect(),
            })?)
        })?;
        if place != ids.len() {
            return Err(changed());
        }
        sink.finish()
    }
}

/// Pairs of judges that are printed.
const SHOWN: usize = 20;

fn print(report: &Report, target: Target) -> Result<()> {
    let mut output = Output::new();
    let mut row = |name: &str, text: std::fmt::Arguments<'_>| output.line(format_args!("{name:<18}{text}"));
    let abstentions: u64 = report.judges.iter().map(|judge| judge.abstentions).sum();
    row("queries", format_args!("{}, {} without votes", report.queries, report.queries_without_votes))?;
    row("documents", format_args!("{}, {} without votes", report.documents, report.documents_without_votes))?;
    let fewest = report.fewest_votes;
    row(
        "votes",
        format_args!(
            "{} on {} pairs, {fewest} at least for a document; {abstentions} abstentions",
            report.votes, report.pairs
        ),
    )?;
    row("disconnected", format_args!("{} queries", report.disconnected_queries))?;
    row(
        "separated",
        format_args!(
            "{} queries; {} documents undefeated, {} winless",
            report.separated_queries, report.undefeated_documents, report.winless_documents
        ),
    )?;
    let circles = report.intransitive_triples as f64 / report.triples.max(1) as f64;
    row(
        "intransitive",
        format_args!(
            "{} of {} triples, {:.2} % (votes at random: 25 %)",
            report.intransitive_triples,
            report.triples,
            100.0 * circles
        ),
    )?;
    row("standard error", format_args!("{:.4}, median", report.median_standard_error))?;
    row("reliability", format_args!("{:.4}", report.reliability))?;
    let across = &report.across;
    match across.votes {
        0 => row("across queries", format_args!("no votes: labels of different queries cannot be compared"))?,
        votes => row(
            "across queries",
            format_args!(
                "{votes} votes on {} queries, {} in {}",
                across.queries,
                report.queries,
                parts(across.parts)
            ),
        )?,
    }
    let fitted = match target.labels {
        0 => String::new(),
        labels => format!(", fitted to {labels} labels"),
    };
    row("target", format_args!("1 / (1 + exp(-({:.4} label {:+.4}))){fitted}", target.a, target.c))?;
    output.line("")?;
    output.line("judge                    votes  abstained   scale    bias  with scores")?;
    for judge in &report.judges {
        let agrees = judge.with_scores.map_or("-".to_string(), |share| format!("{share:.4}"));
        let name = printable(&judge.judge);
        let (votes, abstentions, scale, bias) = (judge.votes, judge.abstentions, judge.scale, judge.bias);
        output.line(format_args!(
            "{name:<20} {votes:9}  {abstentions:9}  {scale:6.3}  {bias:+6.3}  {agrees:>11}"
        ))?;
    }
    if !report.agreement.is_empty() {
        output.line("")?;
        output.line("agreement                                      pairs   agree")?;
        for of in report.agreement.iter().take(SHOWN) {
            let (a, b) = (printable(&of.a), printable(&of.b));
            let who = if of.a == of.b { format!("{a}, asked twice") } else { format!("{a}, {b}") };
            output.line(format_args!("{who:<40} {:11}  {:6.4}", of.pairs, of.agree))?;
        }
        if let Some(more) = report.agreement.len().checked_sub(SHOWN).filter(|more| *more > 0) {
            output.line(format_args!("and {more} more; --json has them all"))?;
        }
    }
    output.flush()
}

fn parts(count: u64) -> String {
    if count == 1 { "one part".into() } else { format!("{count} parts that no vote connects") }
}
