use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use jointly::batch::Batch;
use jointly::{CrossEncoder, LoadOptions, Pair, Precision, ScoreOptions};
use jointly_eval::audit::{self, Outcome, RBO_P, Scored, at_least, loses_less};
use jointly_eval::screen::{Level, Needs, Same};
use jointly_eval::significance::{CompareOptions, Comparison, Interval, Verdict, compare};
use jointly_eval::{JudgeOptions, JudgedRun, Missing, PerQuery, Retrieved, Run};
use serde::Serialize;

use crate::Global;
use crate::cache::{self, Cache};
use crate::cmd::eval::made_by;
use crate::error::{CliError, Result};
use crate::model::{self, LongArguments};
use crate::output::{Output, to_json, write_file};
use crate::pool::{self, Pool, PoolArguments};

/// Pairs that are computed layer by layer: each is the first candidate of a query.
const TRACED: usize = 16;

/// Say what a precision, a quantisation or a new version of a model does to the order of documents
#[derive(Args)]
#[command(after_help = format!("\
{}
Compared are the scores of MODEL in --precision with those of the reference: another model in f32, or, if --against is f32,
bf16 or int8, the same model in that.
The limits that are given must be shown to hold on queries like these: the 95 % interval of Kendall's tau and of the overlap
must lie above theirs, and the loss of NDCG be shown to be smaller than its limit (one side of TOST, at 0.05). The status is
4 if one does not hold, also if these are too few queries to tell, unless --allow-inconclusive. Fewer than six never can.
The table on screening says what it costs to look at everything with the candidate and to confirm with the reference only what
may be among the first --top-n: with the slack of a line they stay the reference's with that probability, for queries like these;
in its order, or, in the second table, in any order, which costs less.
--cascade writes that as a file for `jointly rerank --cascade`.", pool::HELP))]
pub struct Audit {
    /// What is looked at: a folder, bundle, hub id, or `default`
    #[arg(value_name = "MODEL")]
    model: String,
    /// The reference: another model, or f32, bf16 or int8 of the same one
    #[arg(long, value_name = "MODEL|PRECISION")]
    against: String,
    /// What MODEL's layers multiply in
    #[arg(long, value_parser = model::precision(), default_value = "f32")]
    precision: Precision,
    /// Queries with candidates, judged or not
    #[arg(long, value_name = "DATA")]
    on: PathBuf,
    #[command(flatten)]
    pool: PoolArguments,
    /// The largest loss of NDCG@10 that is accepted; the judgements must be there
    #[arg(long, value_name = "X", value_parser = positive)]
    max_ndcg_loss: Option<f64>,
    /// The smallest mean of Kendall's tau-b that is accepted
    #[arg(long, value_name = "X", value_parser = share)]
    min_tau: Option<f64>,
    /// The smallest mean overlap of the first ten that is accepted
    #[arg(long, value_name = "X", value_parser = share)]
    min_overlap: Option<f64>,
    /// Pass where these are too few queries to tell
    #[arg(long)]
    allow_inconclusive: bool,
    /// Longest pair in tokens, template included [default: each model's own maximum]
    #[arg(long, value_name = "N")]
    max_length: Option<usize>,
    /// Use models whose receipt does not hold
    #[arg(long)]
    no_receipt_check: bool,
    /// Screening: the first N are to stay those of the reference
    #[arg(long, value_name = "N", default_value_t = 10)]
    top_n: usize,
    /// Write a cascade that screens with the candidate and confirms with the reference
    #[arg(long, value_name = "FILE")]
    cascade: Option<PathBuf>,
    /// What of the first N is to stay in that cascade: their order, or only which they are
    #[arg(long, value_name = "WHAT", value_parser = same(), default_value = "order", requires = "cascade")]
    same: Same,
    /// How likely the first N of that cascade are to be the reference's [default: what the largest slack found gives]
    #[arg(long, value_name = "P", value_parser = share, requires = "cascade")]
    confidence: Option<f64>,
    /// Replace that file if it exists
    #[arg(long, requires = "cascade")]
    force: bool,
    /// Keep scores in this folder, that of `jointly eval --cache` or another, and take those that are there: an audit that was killed goes on
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    long: LongArguments,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

fn same() -> impl TypedValueParser<Value = Same> {
    PossibleValuesParser::new(["order", "set"])
        .map(|what| if what == "set" { Same::Set } else { Same::Order })
}

fn share(text: &str) -> std::result::Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_string())?;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err("it must be from 0 to 1".to_string()) }
}

fn positive(text: &str) -> std::result::Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_string())?;
    if value > 0.0 && value <= 1.0 { Ok(value) } else { Err("it must be above 0, and 1 at most".to_string()) }
}

/// What is printed as JSON; the names are part of the interface.
#[derive(Serialize)]
struct Printed<'a> {
    candidate: Named,
    reference: Named,
    queries: usize,
    pairs: usize,
    difference: &'a audit::Difference,
    flips: &'a [audit::Flips],
    ties_created: u64,
    ties_broken: u64,
    overlap: Vec<Mean>,
    tau: Mean,
    without_tau: usize,
    rbo: Mean,
    layers: Option<Vec<Layer>>,
    layers_missing: Option<String>,
    ndcg_at_10: Option<Ndcg>,
    screening: Screening,
    limits: Vec<Limit>,
    passed: bool,
}

/// What it gives to screen with the candidate and to confirm with the reference.
#[derive(Serialize)]
struct Screening {
    top_n: usize,
    candidate_ms_per_pair: f64,
    reference_ms_per_pair: f64,
    /// So that they stay in their order.
    levels: Vec<Screened>,
    /// So that they stay, in any order.
    set_levels: Vec<Screened>,
}

#[derive(Serialize)]
struct Screened {
    #[serde(flatten)]
    level: Level,
    /// The time of the cascade, as a share of the reference's alone.
    cost: f64,
}

#[derive(Serialize)]
struct Named {
    model: String,
    precision: String,
}

/// The mean over the queries, its 95 % interval, and the worst query.
#[derive(Serialize)]
struct Mean {
    #[serde(skip_serializing_if = "Option::is_none")]
    k: Option<usize>,
    mean: f64,
    interval: Interval,
    lowest: f64,
    lowest_query: String,
}

#[derive(Serialize)]
struct Layer {
    name: String,
    relative_error: f64,
}

#[derive(Serialize)]
struct Ndcg {
    comparison: Comparison,
    verdict: Verdict,
}

#[derive(Serialize)]
struct Limit {
    name: &'static str,
    limit: f64,
    found: f64,
    outcome: Outcome,
}

impl Audit {
    pub fn run(self, global: Global) -> Result<()> {
        let of_precision =
            Precision::ALL.into_iter().find(|precision| precision.name() == self.against.as_str());
        let (reference_name, reference_precision) = match of_precision {
            Some(precision) => (self.model.as_str(), precision),
            None => (self.against.as_str(), Precision::F32),
        };
        if (self.model.as_str(), self.precision) == (reference_name, reference_precision) {
            let problem =
                "both are the same model in the same precision; --precision or --against says what differs";
            return Err(CliError::Input(format!("{} in {}: {problem}", self.model, self.precision)));
        }
        if let Some(path) = self.cascade.as_ref().filter(|path| path.exists() && !self.force) {
            return Err(CliError::Input(format!("{} exists; --force replaces it", path.display())));
        }
        let pool = self.pool.read(&self.on)?;
        // What the k-th smallest of q needs can promise is k / (q + 1).
        let most = pool.queries.len() as f64 / (pool.queries.len() + 1) as f64;
        if let Some(confidence) = self.confidence.filter(|confidence| *confidence > most) {
            let (on, count) = (self.on.display(), pool.queries.len());
            let problem = format!("{count} queries can promise {most:.4} at most");
            return Err(CliError::Input(format!("{on}: --confidence {confidence}: {problem}")));
        }
        let is_judged = pool.queries.iter().any(|query| pool.qrels.get(&query.id).is_some());
        if self.max_ndcg_loss.is_some() && !is_judged {
            let problem = "--max-ndcg-loss needs judgements, and there are none";
            return Err(CliError::Input(format!("{}: {problem}", self.on.display())));
        }
        let options = self.long.options();
        let load = |name: &str, precision| {
            let load = LoadOptions::new()
                .precision(precision)
                .check_receipt(!self.no_receipt_check)
                .without_calibration();
            model::load(
                name,
                self.max_length.iter().fold(load, |load, length| load.max_length(*length)),
                global,
            )
        };
        let reference = load(reference_name, reference_precision)?;
        let candidate = load(&self.model, self.precision)?;
        let logits = |model: &CrossEncoder| -> Result<(Vec<Vec<f64>>, f64)> {
            let mut cache = match &self.cache {
                Some(folder) => Some(Cache::open(folder, &made_by(model, &options)?)?),
                None => None,
            };
            let scored = pool.score(model, &options, cache.as_mut(), global)?;
            // With the threads of now, else with those of the first pair: all are from the cache then.
            let ms = |threads| cache::Scored::mean_ms(scored.iter().flatten(), threads);
            let other = || ms(scored.iter().flatten().next()?.threads);
            Ok((pool::logits(&scored), ms(model.info().threads).or_else(other).unwrap_or(0.0)))
        };
        let (by_reference, reference_ms) = logits(&reference)?;
        let (by_candidate, candidate_ms) = logits(&candidate)?;
        let scored: Vec<Scored> = pool
            .queries
            .iter()
            .zip(by_reference.iter().zip(&by_candidate))
            .map(|(query, (reference, candidate))| Scored {
                query: query.id.clone(),
                reference: reference.clone(),
                candidate: candidate.clone(),
            })
            .collect();
        let audit = audit::Audit::new(&scored)?;
        let comparison = match is_judged {
            true => Some(self.ndcg(&pool, &by_reference, &by_candidate)?),
            false => None,
        };
        let limits = self.limits(&audit, comparison.as_ref());
        let screening = self.screening(&scored, candidate_ms, reference_ms);
        if let Some(path) = &self.cascade {
            let exact = (reference_name, reference_precision);
            write_file(path, &self.cascade_file(&screening, exact)?)?;
        }
        let is_passed = |limit: &Limit| match limit.outcome {
            Outcome::Holds => true,
            Outcome::Fails => false,
            Outcome::TooFewQueries => self.allow_inconclusive,
        };
        let passed = limits.iter().all(is_passed);
        let layers = layers(&reference, &candidate, &pool, &options)?;
        let named = |model: &CrossEncoder| Named {
            model: model.info().source.clone(),
            precision: model.info().precision.to_string(),
        };
        let printed = Printed {
            candidate: named(&candidate),
            reference: named(&reference),
            queries: audit.queries,
            pairs: audit.pairs,
            difference: &audit.difference,
            flips: &audit.flips,
            ties_created: audit.ties_created,
            ties_broken: audit.ties_broken,
            overlap: audit.overlap.iter().map(|(k, values)| Mean { k: Some(*k), ..mean(values) }).collect(),
            tau: mean(&audit.tau),
            without_tau: audit.without_tau,
            rbo: mean(&audit.rbo),
            layers_missing: layers.as_ref().err().cloned(),
            layers: layers.ok(),
            ndcg_at_10: comparison.map(|comparison| Ndcg { verdict: comparison.verdict(), comparison }),
            screening,
            limits,
            passed,
        };
        print(self.format, &printed)?;
        if passed {
            return Ok(());
        }
        let failed: Vec<String> = printed
            .limits
            .iter()
            .filter(|limit| !is_passed(limit))
            .map(|limit| format!("{} {}: {}", limit.name, limit.limit, limit.outcome))
            .collect();
        Err(CliError::NotHeld(format!("not passed: {}", failed.join("; "))))
    }

    /// NDCG@10 of the two orders, over the queries of the pool that are judged.
    fn ndcg(&self, pool: &Pool, reference: &[Vec<f64>], candidate: &[Vec<f64>]) -> Result<Comparison> {
        let options = JudgeOptions::new().missing(Missing::Skip);
        let evaluated = |scores: &[Vec<f64>]| {
            let mut run = Run::new();
            for (query, scores) in pool.queries.iter().zip(scores) {
                // By rank, so that equal logits keep the order that a ranking gives them.
                let ranked = audit::ranking(scores).into_iter().enumerate();
                let retrieved = ranked.map(|(rank, place)| {
                    Retrieved::new(query.documents[place].id.as_str(), (query.documents.len() - rank) as f64)
                });
                run.insert(&query.id, retrieved.collect())?;
            }
            JudgedRun::new(&pool.qrels, &run, options)?.evaluate("ndcg@10".parse()?)
        };
        let options = CompareOptions::new().margin(self.max_ndcg_loss.unwrap_or(DEFAULT_MARGIN));
        Ok(compare(&evaluated(reference)?, &evaluated(candidate)?, options)?)
    }

    fn screening(
        &self,
        scored: &[Scored],
        candidate_ms_per_pair: f64,
        reference_ms_per_pair: f64,
    ) -> Screening {
        let levels = |same| {
            let needs = Needs::new(scored, self.top_n, same);
            let asked =
                LEVELS.into_iter().chain(self.confidence).filter_map(|confidence| needs.level(confidence));
            let mut levels: Vec<Level> = asked.chain(needs.largest()).collect();
            levels.sort_by(|a, b| a.confidence.total_cmp(&b.confidence));
            levels.dedup_by(|a, b| a.confidence == b.confidence);
            let cost = |level: &Level| {
                (candidate_ms_per_pair + level.confirmed * reference_ms_per_pair) / reference_ms_per_pair
            };
            levels.into_iter().map(|level| Screened { cost: cost(&level), level }).collect()
        };
        Screening {
            top_n: self.top_n,
            candidate_ms_per_pair,
            reference_ms_per_pair,
            levels: levels(Same::Order),
            set_levels: levels(Same::Set),
        }
    }

    /// The stage, as a file.
    fn cascade_file(&self, screening: &Screening, (model, precision): (&str, Precision)) -> Result<String> {
        let (levels, same) = match self.same {
            Same::Order => (&screening.levels, ""),
            Same::Set => (&screening.set_levels, "same = \"set\"\n"),
        };
        let of = |asked: f64| levels.iter().find(|screened| screened.level.confidence == asked);
        let level = self.confidence.map_or(levels.last(), of);
        let Some(Screened { level, .. }) = level else {
            return Err(CliError::Failed(format!("{}: no query to measure with", self.on.display())));
        };
        let quoted = |text: &str| to_json(&text); // JSON's strings are TOML's basic strings
        let mut text = format!("# Written by jointly audit, on {:?}.\n", self.on.display().to_string());
        text.push_str(&format!(
            "# Long documents were read with {}; so must they be where this is used.\n",
            self.long.said()
        ));
        text.push_str(&format!(
            "[[stage]]\nkind = \"confirm\"\nmodel = {}\nprecision = \"{precision}\"\n",
            quoted(model)?
        ));
        if model != self.model {
            text.push_str(&format!("screen_model = {}\n", quoted(&self.model)?));
        }
        text.push_str(&format!("screen_precision = \"{}\"\n", self.precision));
        if let Some(max_length) = self.max_length {
            text.push_str(&format!("max_length = {max_length}\n"));
        }
        if let Some(instruction) = &self.long.instruction {
            text.push_str(&format!("instruction = {}\n", quoted(instruction)?));
        }
        text.push_str(&format!(
            "top_n = {}\n{same}slack = {:?}\nconfidence = {:?}\n",
            screening.top_n, level.slack, level.confidence
        ));
        Ok(text)
    }

    fn limits(&self, audit: &audit::Audit, comparison: Option<&Comparison>) -> Vec<Limit> {
        let mut limits = Vec::new();
        if let (Some(limit), Some(comparison)) = (self.max_ndcg_loss, comparison) {
            let outcome = loses_less(comparison, ALPHA);
            limits.push(Limit { name: "--max-ndcg-loss", limit, found: -comparison.difference, outcome });
        }
        let first_ten = audit.overlap.last().map(|(_, values)| values);
        for (name, limit, values) in
            [("--min-tau", self.min_tau, Some(&audit.tau)), ("--min-overlap", self.min_overlap, first_ten)]
        {
            if let (Some(limit), Some(values)) = (limit, values) {
                let (_, outcome) = at_least(values, limit);
                limits.push(Limit { name, limit, found: values.mean(), outcome });
            }
        }
        limits
    }
}

/// The margin of TOST where none is stated.
const DEFAULT_MARGIN: f64 = 0.005;
/// As of the comparison.
const ALPHA: f64 = 0.05;
/// How likely a slack is to be enough, in the lines of the table.
const LEVELS: [f64; 5] = [0.9, 0.95, 0.99, 0.995, 0.999];

fn mean(values: &PerQuery) -> Mean {
    let lowest = values.0.iter().min_by(|a, b| a.1.total_cmp(b.1));
    let (lowest_query, lowest) =
        lowest.map_or((String::new(), 0.0), |(query, value)| (query.clone(), *value));
    let (interval, _) = if values.0.is_empty() {
        (Interval { low: 0.0, high: 0.0 }, Outcome::TooFewQueries)
    } else {
        at_least(values, 0.0)
    };
    Mean { k: None, mean: values.mean(), interval, lowest, lowest_query }
}

/// How far the output of each layer of the candidate lies from the reference's, relative to its size; or why that cannot be
/// said.
fn layers(
    reference: &CrossEncoder,
    candidate: &CrossEncoder,
    pool: &Pool,
    options: &ScoreOptions,
) -> Result<std::result::Result<Vec<Layer>, String>> {
    let shape = |model: &CrossEncoder| {
        let info = model.info();
        (info.architecture, info.layers, info.hidden_size)
    };
    let ((a, layers_a, size_a), (b, layers_b, size_b)) = (shape(reference), shape(candidate));
    if shape(reference) != shape(candidate) {
        let reason =
            format!("{b} with {layers_b} layers of {size_b} values against {a} with {layers_a} of {size_a}");
        return Ok(Err(format!("layers cannot be compared: {reason}")));
    }
    let first = pool.queries.iter().filter_map(|query| Some((query.text.as_str(), query.documents.first()?)));
    let pairs: Vec<Pair<'_>> =
        first.take(TRACED).map(|(query, document)| Pair { query, document: &document.text }).collect();
    let encoded = reference.encode_pairs(&pairs, options)?;
    if encoded != candidate.encode_pairs(&pairs, options)? {
        return Ok(Err(
            "layers cannot be compared: the two models read these texts as different tokens".into()
        ));
    }
    let mut found: Vec<(String, f64, f64)> = Vec::new();
    for pair in encoded.iter().filter_map(|windows| windows.first()) {
        let batch = Batch::pack([&pair.pair]);
        let mut outputs = Vec::new();
        let mut keep = |name: &str, matrix: &jointly::nn::Matrix| {
            outputs.push((name.to_string(), matrix.data.to_vec()));
        };
        drop(reference.trace(&batch, &mut keep));
        let mut place = 0;
        let mut measure = |name: &str, matrix: &jointly::nn::Matrix| {
            let Some((of, values)) = outputs.get(place) else { return };
            if of == name {
                let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
                let error = squares(
                    &mut matrix.data.iter().zip(values.iter()).map(|(c, r)| f64::from(*c) - f64::from(*r)),
                );
                let size = squares(&mut values.iter().map(|value| f64::from(*value)));
                match found.get_mut(place) {
                    Some((_, errors, sizes)) => (*errors, *sizes) = (*errors + error, *sizes + size),
                    None => found.push((of.clone(), error, size)),
                }
            }
            place += 1;
        };
        drop(candidate.trace(&batch, &mut measure));
    }
    let relative = |(name, error, size): (String, f64, f64)| Layer {
        name,
        relative_error: if size > 0.0 { (error / size).sqrt() } else { 0.0 },
    };
    Ok(Ok(found.into_iter().map(relative).collect()))
}

fn print(format: Format, printed: &Printed<'_>) -> Result<()> {
    let mut output = Output::new();
    if format == Format::Json {
        output.json(printed)?;
        return output.flush();
    }
    let Printed { candidate, reference, difference, .. } = printed;
    output.line(format_args!("candidate  {} in {}", candidate.model, candidate.precision))?;
    output.line(format_args!("reference  {} in {}", reference.model, reference.precision))?;
    output.line(format_args!("{} queries, {} pairs", printed.queries, printed.pairs))?;
    output.line("")?;
    output.line("logits                 value  of the spread")?;
    for (name, value) in [
        ("mean difference", difference.mean),
        ("mean distance", difference.mean_distance),
        ("median distance", difference.median_distance),
        ("90 % below", difference.p90_distance),
        ("99 % below", difference.p99_distance),
        ("largest distance", difference.largest_distance),
    ] {
        let relative = if difference.spread > 0.0 { 100.0 * value / difference.spread } else { 0.0 };
        output.line(format_args!("{name:<18} {value:9.5}  {relative:12.3} %"))?;
    }
    output.line(format_args!(
        "{:<18} {:9.5}  (standard deviation within a query)",
        "spread", difference.spread
    ))?;
    output.line("")?;
    output.line("pairs of documents by the reference's margin")?;
    output.line("margin, spreads         pairs    flipped")?;
    for bin in printed.flips {
        let range = match bin.to {
            Some(to) => format!("{} to {to}", bin.from),
            None => format!("from {}", bin.from),
        };
        let share = if bin.pairs == 0 { 0.0 } else { 100.0 * bin.flipped as f64 / bin.pairs as f64 };
        output.line(format_args!("{range:<18} {:10}  {:8} ({share:.3} %)", bin.pairs, bin.flipped))?;
    }
    output.line(format_args!("ties created {}, broken {}", printed.ties_created, printed.ties_broken))?;
    output.line("")?;
    output.line("agreement            mean  [95 %]            lowest  query")?;
    let named = printed.overlap.iter().map(|of| (format!("overlap@{}", of.k.unwrap_or(0)), of));
    let others = [("tau-b".to_string(), &printed.tau), (format!("RBO, p = {RBO_P}"), &printed.rbo)];
    for (name, Mean { mean, interval, lowest, lowest_query, .. }) in named.chain(others) {
        let Interval { low, high } = interval;
        let query = crate::output::printable(lowest_query);
        output.line(format_args!("{name:<16} {mean:8.4}  [{low:.4}, {high:.4}]  {lowest:8.4}  {query}"))?;
    }
    if printed.without_tau > 0 {
        output
            .line(format_args!("{} queries have no tau: one score for all documents", printed.without_tau))?;
    }
    output.line("")?;
    match (&printed.layers, &printed.layers_missing) {
        (Some(layers), _) => {
            output.line("layer               relative error of its output")?;
            for Layer { name, relative_error } in layers {
                output.line(format_args!("{name:<18} {relative_error:10.6}"))?;
            }
        }
        (None, reason) => output.line(reason.as_deref().unwrap_or("no layers"))?,
    }
    if let Some(Ndcg { comparison, .. }) = &printed.ndcg_at_10 {
        output.line("")?;
        output.line(format_args!("NDCG@10  {comparison}"))?;
    }
    let Screening { top_n, levels, set_levels, candidate_ms_per_pair, reference_ms_per_pair } =
        &printed.screening;
    output.line("")?;
    output.line(format_args!(
        "screening with the candidate ({candidate_ms_per_pair:.2} ms a pair), confirming with the reference ({reference_ms_per_pair:.2} ms)"
    ))?;
    for (levels, what) in [(levels, "their order"), (set_levels, "any order")] {
        output.line(format_args!(
            "the first {top_n} stay, in {what:<11}   slack  confirmed   cost  held out"
        ))?;
        for Screened { level: Level { confidence, slack, confirmed, same_top }, cost } in levels {
            output.line(format_args!(
                "  with probability {confidence:.5}     {slack:9.4} {:9.1} % {:4.0} %  {:6.2} %",
                confirmed * 100.0,
                cost * 100.0,
                same_top * 100.0
            ))?;
        }
    }
    output.line("")?;
    for Limit { name, limit, found, outcome } in &printed.limits {
        output.line(format_args!("{name:<16} {limit}: {found:.4}, {outcome}"))?;
    }
    output.line(match (printed.limits.is_empty(), printed.passed) {
        (true, _) => "no limit was stated",
        (_, true) => "passed",
        (_, false) => "not passed",
    })?;
    output.flush()
}
