use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use jointly::calibration::{Calibration, FILE};
use jointly_eval::calibration::{
    Choice, Drift, Example, FEWEST_SCORES, Histogram, Map, Method, Reliability, Report, Split, Threshold,
    choose, kept_from, split_queries, threshold,
};
use jointly_eval::data::Label;
use jointly_eval::format::Lines;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Global;
use crate::error::{CliError, Result};
use crate::model::{LongArguments, ModelArguments};
use crate::output::{Output, say, write_file};
use crate::pool::{self, Pool, PoolArguments};

/// Fit what a score means as a probability, on judged pairs; or look whether live scores still look the same
#[derive(Args)]
#[command(after_help = format!("\
{} A JSON line with `logit`, as `jointly score` prints it, and `query_id` and `label` is not scored again.
The queries are divided, never the pairs of one: a map is fitted on one part and looked at on the other. Without --method,
that with the lowest log loss in five-fold cross-validation within the first part is taken. What is written goes into the
model's folder as {FILE}, or to -o; --calibration of the other commands reads it from anywhere. Rankings go by the logit.
--check: drift if the population stability index is above --max-psi, or the largest difference of the cumulative
distributions above --max-ks and no luck (p below 0.01); {FEWEST_SCORES} scores at least. The status is 4 then.", pool::HELP))]
pub struct Calibrate {
    /// Judged pairs
    #[arg(required_unless_present = "check")]
    data: Option<PathBuf>,
    #[command(flatten)]
    pool: PoolArguments,
    /// The label that a document must have at least to count as relevant
    #[arg(long, value_name = "N", default_value_t = 1)]
    level: Label,
    /// Documents without a label: leave them out, or count them as not relevant
    #[arg(long, value_enum, default_value_t = Unjudged::Skip)]
    unjudged: Unjudged,
    /// The share of the queries to fit on; the others are held out
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    split: f64,
    /// Which queries these are
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The kind of map [default: by cross-validation]
    #[arg(long, value_enum)]
    method: Option<Kind>,
    /// Find the threshold that has this precision; may be given several times
    #[arg(long, value_name = "P")]
    precision_at: Vec<f64>,
    /// Write here instead of into the model's folder
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace an earlier calibration
    #[arg(long)]
    force: bool,
    /// Compare these scores (JSON lines with `logit`) with those that the calibration was made on, and do no more
    #[arg(long, value_name = "SCORES", conflicts_with_all = ["data", "output", "method", "precision_at"])]
    check: Option<PathBuf>,
    /// --check: the largest population stability index
    #[arg(long, value_name = "X", default_value_t = 0.25)]
    max_psi: f64,
    /// --check: the largest difference of the cumulative distributions
    #[arg(long, value_name = "X", default_value_t = 0.1)]
    max_ks: f64,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    long: LongArguments,
    #[command(flatten)]
    model: ModelArguments,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Unjudged {
    Skip,
    Irrelevant,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Platt,
    Temperature,
    Isotonic,
    Beta,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

impl Kind {
    fn method(self) -> Method {
        match self {
            Self::Platt => Method::Platt,
            Self::Temperature => Method::Temperature,
            Self::Isotonic => Method::Isotonic,
            Self::Beta => Method::Beta,
        }
    }
}

/// What `calibration.json` holds, beside what scoring needs.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(flatten)]
    calibration: &'a Calibration,
    created_with: String,
    model_name: String,
    precision: String,
    max_length: usize,
    fitted_on: &'a FittedOn,
    cross_validated_log_loss: &'a [(&'static str, Option<f64>)],
    scores: &'a Histogram,
}

#[derive(Serialize)]
struct FittedOn {
    files: Vec<FileHash>,
    level: Label,
    unjudged: Unjudged,
    split: f64,
    seed: u64,
    queries: usize,
    pairs: usize,
    relevant: usize,
    held_out_queries: usize,
    held_out_pairs: usize,
    held_out_relevant: usize,
}

#[derive(Serialize)]
struct FileHash {
    name: String,
    sha256: String,
}

/// The whole of what is printed as JSON; the names are part of the interface.
#[derive(Serialize)]
struct Printed<'a> {
    model: &'a str,
    output: String,
    map: &'a Map,
    fitted_on: &'a FittedOn,
    cross_validated_log_loss: &'a [(&'static str, Option<f64>)],
    fit: &'a Report,
    held_out: Option<&'a Report>,
    held_out_uncalibrated: Option<&'a Report>,
    thresholds: &'a [Target],
}

/// A threshold found on the pairs that were fitted on, and what it does to those that were not.
#[derive(Serialize)]
struct Target {
    precision_at: f64,
    probability: Option<f64>,
    fit: Option<Threshold>,
    held_out: Option<Threshold>,
}

impl Calibrate {
    pub fn run(self, global: Global) -> Result<()> {
        if let Some(scores) = &self.check {
            return self.check(scores);
        }
        let range = |name: &str, value: f64| {
            let problem =
                || CliError::Input(format!("--{name} is {value}; it must be above 0, and 1 at most"));
            if value > 0.0 && value <= 1.0 { Ok(()) } else { Err(problem()) }
        };
        range("split", self.split)?;
        self.precision_at.iter().try_for_each(|precision| range("precision-at", *precision))?;
        let output = self.output()?;
        let Some(data) = &self.data else { return Err(CliError::Input("DATA is missing".into())) };
        let pool = self.pool.read(data)?;
        let model = self.model.load_uncalibrated(global)?;
        let logits = self.logits(&pool, &model, global)?;

        let (mut queries, mut examples) = (Vec::new(), Vec::new());
        for (query, logits) in pool.queries.iter().zip(&logits) {
            for (document, logit) in query.documents.iter().zip(logits) {
                let label = match (document.label, self.unjudged) {
                    (Some(label), _) => label,
                    (None, Unjudged::Irrelevant) => Label::MIN,
                    (None, Unjudged::Skip) => continue,
                };
                queries.push(query.id.as_str());
                examples.push(Example { logit: *logit, relevant: label >= self.level });
            }
        }
        if examples.is_empty() {
            let problem = "no pair has a label; --judgements names a file of them";
            return Err(CliError::Input(format!("{}: {problem}", data.display())));
        }
        let parts = split_queries(&queries, self.split, self.seed);
        let of = |part: Split| {
            let chosen = parts.iter().zip(queries.iter().zip(&examples)).filter(|(of, _)| **of == part);
            chosen.map(|(_, (query, example))| (*query, *example)).unzip::<_, _, Vec<&str>, Vec<Example>>()
        };
        let ((fit_queries, fit), (held_queries, held_out)) = (of(Split::Fit), of(Split::HeldOut));
        let choice = match self.method {
            Some(kind) => Choice { method: kind.method(), log_loss: Vec::new() },
            None => choose(&fit_queries, &fit, self.seed)?,
        };
        let map = choice.method.fit(&fit)?;
        let calibration = Calibration::new(model.files(), library_map(&map)?)?;

        let losses: Vec<(&'static str, Option<f64>)> =
            choice.log_loss.iter().map(|(method, loss)| (method.name(), *loss)).collect();
        let relevant = |examples: &[Example]| examples.iter().filter(|example| example.relevant).count();
        let fitted_on = FittedOn {
            files: pool.files.iter().map(|path| hash(path)).collect::<Result<_>>()?,
            level: self.level,
            unjudged: self.unjudged,
            split: self.split,
            seed: self.seed,
            queries: distinct(&fit_queries),
            pairs: fit.len(),
            relevant: relevant(&fit),
            held_out_queries: distinct(&held_queries),
            held_out_pairs: held_out.len(),
            held_out_relevant: relevant(&held_out),
        };
        let all: Vec<f64> = logits.concat();
        let info = model.info();
        let written = Written {
            calibration: &calibration,
            created_with: format!("jointly {}", env!("CARGO_PKG_VERSION")),
            model_name: self.model.model.rsplit('/').next().unwrap_or_default().to_string(),
            precision: info.precision.to_string(),
            max_length: info.max_length,
            fitted_on: &fitted_on,
            cross_validated_log_loss: &losses,
            scores: &Histogram::new(&all),
        };
        write(&output, &written)?;

        let score_map = |logit: f64| f64::from(info.score_map.apply(logit as f32));
        let is_probability = info.score_scale == jointly::ScoreScale::Probability;
        let report = |examples: &[Example]| Report::new(examples, |logit| map.apply(logit), BINS);
        let fit_report = report(&fit);
        let held_report = (!held_out.is_empty()).then(|| report(&held_out));
        let before =
            (is_probability && !held_out.is_empty()).then(|| Report::new(&held_out, score_map, BINS));
        let thresholds: Vec<Target> = self
            .precision_at
            .iter()
            .map(|&precision_at| {
                let fit = threshold(&fit, precision_at);
                Target {
                    precision_at,
                    probability: fit.map(|found| map.apply(found.logit)),
                    fit,
                    held_out: fit
                        .filter(|_| !held_out.is_empty())
                        .map(|found| kept_from(&held_out, found.logit)),
                }
            })
            .collect();
        let printed = Printed {
            model: &info.source,
            output: output.display().to_string(),
            map: &map,
            fitted_on: &fitted_on,
            cross_validated_log_loss: &losses,
            fit: &fit_report,
            held_out: held_report.as_ref(),
            held_out_uncalibrated: before.as_ref(),
            thresholds: &thresholds,
        };
        print(self.format, &printed)?;
        if held_out.is_empty() && !global.quiet {
            say("no query was held out: how good the probabilities are on others is not known");
        }
        Ok(())
    }

    /// Where the calibration goes; known before anything is computed.
    fn output(&self) -> Result<PathBuf> {
        let output = match &self.output {
            Some(output) => output.clone(),
            None => self.beside("-o names a file for it")?,
        };
        if output.exists() && !self.force {
            return Err(CliError::Input(format!("{} exists; --force replaces it", output.display())));
        }
        Ok(output)
    }

    /// The calibration's place in the model's folder.
    fn beside(&self, hint: &str) -> Result<PathBuf> {
        let folder = Path::new(&self.model.model);
        if !folder.is_dir() {
            let model = &self.model.model;
            return Err(CliError::Input(format!(
                "{model} is no folder that a calibration can lie in; {hint}"
            )));
        }
        Ok(folder.join(FILE))
    }

    fn logits(&self, pool: &Pool, model: &jointly::CrossEncoder, global: Global) -> Result<Vec<Vec<f64>>> {
        let given =
            pool.queries.iter().flat_map(|query| &query.documents).filter(|d| d.logit.is_some()).count();
        if given == 0 {
            return Ok(pool::logits(&pool.score(model, &self.long.options(), None, global)?));
        }
        if given < pool.pairs() {
            let problem = format!("{given} of {} lines have a `logit`; all have one, or none", pool.pairs());
            return Err(CliError::Input(problem));
        }
        let of = |query: &pool::Query| query.documents.iter().filter_map(|document| document.logit).collect();
        Ok(pool.queries.iter().map(of).collect())
    }

    fn check(&self, scores: &Path) -> Result<()> {
        #[derive(Deserialize)]
        struct Stored {
            scores: Histogram,
        }
        #[derive(Deserialize)]
        struct Row {
            logit: f64,
        }
        #[derive(Serialize)]
        struct Checked {
            #[serde(flatten)]
            drift: Drift,
            max_psi: f64,
            max_ks: f64,
            drifted: bool,
        }
        let path = match &self.model.calibration {
            Some(path) => path.clone(),
            None => self.beside("--calibration names its file")?,
        };
        let text = fs::read(&path).map_err(|error| CliError::open(&path, &error))?;
        let fault = |problem: String| CliError::Input(format!("{}: {problem}", path.display()));
        let stored: Stored = serde_json::from_slice(&text).map_err(|error| fault(error.to_string()))?;
        if !stored.scores.is_sound() {
            return Err(fault("its `scores` are no histogram; fit it again with `jointly calibrate`".into()));
        }
        let mut lines = Lines::open(scores)?;
        let mut live = Vec::new();
        while let Some((number, line)) = lines.next_line()? {
            let row: Row = serde_json::from_str(line).map_err(|error| {
                CliError::Input(format!(
                    "{}:{number}: {}",
                    scores.display(),
                    crate::input::json_problem(&error)
                ))
            })?;
            live.push(row.logit);
        }
        if live.len() < FEWEST_SCORES {
            let problem =
                format!("{} scores; {FEWEST_SCORES} are needed to tell drift from luck", live.len());
            return Err(CliError::Input(format!("{}: {problem}", scores.display())));
        }
        let drift = stored.scores.drift(&live);
        let drifted = drift.psi > self.max_psi || (drift.ks > self.max_ks && drift.ks_p < 0.01);
        let checked = Checked { drift, max_psi: self.max_psi, max_ks: self.max_ks, drifted };
        let Drift { scores: count, psi, ks, ks_p, below, above } = drift;
        let mut output = Output::new();
        match self.format {
            Format::Json => output.json(&checked)?,
            Format::Text => {
                output.line(format_args!("scores                      {count}"))?;
                output.line(format_args!("population stability index  {psi:.4} (limit {})", self.max_psi))?;
                output.line(format_args!(
                    "Kolmogorov-Smirnov          {ks:.4} (limit {}), p {ks_p:.4}",
                    self.max_ks
                ))?;
                output.line(format_args!("share in the lowest bin     {below:+.4}"))?;
                output.line(format_args!("share in the highest bin    {above:+.4}"))?;
            }
        }
        output.flush()?;
        if drifted {
            let problem = "the scores have drifted: probabilities and thresholds may no longer hold; judge some pairs and \
                           calibrate again";
            return Err(CliError::NotHeld(format!("{}: {problem}", scores.display())));
        }
        if self.format == Format::Text {
            let mut output = Output::new();
            output.line("no drift")?;
            output.flush()?;
        }
        Ok(())
    }
}

/// Bins of each reliability table.
const BINS: usize = 10;

/// The map as the library reads it. Both have one JSON form.
fn library_map(map: &Map) -> Result<jointly::calibration::ProbabilityMap> {
    let value = serde_json::to_value(map).and_then(serde_json::from_value);
    value.map_err(|error| CliError::Failed(error.to_string()))
}

fn distinct(queries: &[&str]) -> usize {
    queries.iter().collect::<std::collections::HashSet<_>>().len()
}

fn hash(path: &Path) -> Result<FileHash> {
    let mut hash = Sha256::new();
    let mut file = fs::File::open(path).map_err(|error| CliError::open(path, &error))?;
    std::io::copy(&mut file, &mut hash).map_err(|error| CliError::file(path, &error))?;
    let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(FileHash { name, sha256 })
}

fn write(path: &Path, written: &Written<'_>) -> Result<()> {
    let text = serde_json::to_string_pretty(written).map_err(|error| CliError::Failed(error.to_string()))?;
    write_file(path, &(text + "\n"))
}

fn print(format: Format, printed: &Printed<'_>) -> Result<()> {
    let mut output = Output::new();
    if format == Format::Json {
        output.json(printed)?;
        return output.flush();
    }
    let FittedOn { queries, pairs, relevant, held_out_queries, held_out_pairs, held_out_relevant, .. } =
        printed.fitted_on;
    output.line(format_args!("model     {}", printed.model))?;
    output.line(format_args!("fitted on {queries} queries, {pairs} pairs, {relevant} relevant"))?;
    output.line(format_args!(
        "held out  {held_out_queries} queries, {held_out_pairs} pairs, {held_out_relevant} relevant"
    ))?;
    if !printed.cross_validated_log_loss.is_empty() {
        output.line("log loss, cross-validated on the part that is fitted on:")?;
        for (method, loss) in printed.cross_validated_log_loss {
            let loss = loss.map_or("cannot be fitted".to_string(), |loss| format!("{loss:.4}"));
            output.line(format_args!("  {method:<12}{loss}"))?;
        }
    }
    output.line(format_args!("map       {}: {}", printed.map.method(), printed.map))?;
    output.line("")?;
    output.line("                 log loss   Brier  reliability  resolution  uncertainty  within  ECE width  ECE mass")?;
    let reports = [
        ("fitted on", Some(printed.fit)),
        ("held out", printed.held_out),
        ("  model's score", printed.held_out_uncalibrated),
    ];
    for (name, report) in reports {
        let Some(Report { log_loss, brier, equal_width, equal_mass, .. }) = report else { continue };
        output.line(format_args!(
            "{name:<16} {log_loss:8.4}  {:6.4}  {:11.4}  {:10.4}  {:11.4}  {:6.4}  {:9.4}  {:8.4}",
            brier.score,
            brier.reliability,
            brier.resolution,
            brier.uncertainty,
            brier.within,
            equal_width.ece,
            equal_mass.ece
        ))?;
    }
    if let Some(report) = printed.held_out {
        table(&mut output, "bins of equal width", &report.equal_width)?;
        table(&mut output, "bins of equal mass", &report.equal_mass)?;
    }
    if !printed.thresholds.is_empty() {
        output.line("")?;
        output.line("thresholds, found on the part that is fitted on:")?;
    }
    for target in printed.thresholds {
        let (Some(found), Some(probability)) = (&target.fit, target.probability) else {
            output.line(format_args!("  precision {}: no threshold has it", target.precision_at))?;
            continue;
        };
        output.line(format_args!(
            "  precision {}: logit {:.4}, probability {probability:.4}: precision {}, recall {:.4}",
            target.precision_at,
            found.logit,
            precision(found),
            found.recall
        ))?;
        if let Some(held) = &target.held_out {
            output.line(format_args!(
                "    held out: precision {}, recall {:.4}",
                precision(held),
                held.recall
            ))?;
        }
    }
    output.line("")?;
    output.line(format_args!("written to {}", printed.output))?;
    output.flush()
}

fn precision(threshold: &Threshold) -> String {
    let Threshold { precision, interval, kept, .. } = threshold;
    format!("{precision:.4} [{:.4}, {:.4}] of {kept}", interval.low, interval.high)
}

fn table(output: &mut Output, name: &str, table: &Reliability) -> Result<()> {
    output.line("")?;
    output.line(format_args!("held out, {name}: largest gap {:.4}", table.mce))?;
    output.line("  probabilities      pairs    said   found  [95 %]")?;
    for bin in &table.bins {
        output.line(format_args!(
            "  {:.4} to {:.4}  {:7}  {:.4}  {:.4}  [{:.4}, {:.4}]",
            bin.low, bin.high, bin.pairs, bin.said, bin.found, bin.interval.low, bin.interval.high
        ))?;
    }
    Ok(())
}
