use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::ProgressBar;
use jointly_eval::Metric;
use jointly_eval::significance::CompareOptions;

use crate::Global;
use crate::cache::{Cache, default_folder};
use crate::error::{CliError, Result};
use crate::model;
use crate::output::{Output, printable, say, write_file};

mod cascade;
mod collection;
mod html;
mod ranker;
mod report;
mod stages;
mod words;

use cascade::CachedCascade;
use report::{CollectionReport, Judge, RankerEntry, Report};
use stages::StageSums;

// `slices` and `plan` score and rank in the same way.
pub(super) use collection::{Collection, Search, Source};
pub(super) use ranker::{Description, Kind, Loaded, Method, Model, OfModels, Ranker, Scores, made_by, order};

/// Say whether a ranker helps on judged queries, by how much, and whether that is more than luck
#[derive(Args)]
#[command(after_help = "\
COLLECTION is a path, with settings behind it after commas:
  FOLDER[,split=NAME]                           a BEIR folder: corpus.jsonl, queries.jsonl, qrels/NAME.tsv [split: test]
  POOL.groups.jsonl[,qrels=FILE]                a reranking pool, judged by its labels or by FILE (which is better: what was
                                                judged and not retrieved counts too)
  TEXTS,queries=FILE,qrels=FILE                 documents, queries, judgements: JSON lines or TSV; TREC's or BEIR's qrels
and for each of them name=NAME, level=N (relevant from this label on, for the metrics that know only relevant and not;
TREC Deep Learning has 2), sample=N (so many judged queries, chosen by seed=N). run=FILE behind a folder or texts takes the
candidates from a TREC run; without it they are the best of BM25. Each file also as .gz or .zst.

subtopics=FILE behind any of them names judgements by subtopic (TREC's diversity qrels: query, subtopic, document, label), for
alpha_ndcg@N (alpha 0.5): does the top cover what the query may have meant, or say one thing ten times? The other metrics take
the other judgements; of a query that has none, a document's label is the highest of its subtopics.

RANKER is one of these, and may have NAME= before it. All rankers order the same candidates of the first stage.
  first                 as the candidates came: the scores of the pool, of the run, or of BM25
  bm25                  BM25 over the texts of the collection (of a pool, only those in it)
  bi:MODEL              a bi-encoder
  hybrid:MODEL          the first stage and a bi-encoder, by reciprocal rank fusion
  cross:MODEL           a cross-encoder; `cross:default` is the embedded model
  RANKER > N > RANKER   a cascade of two: the second puts the best N of the first in order
  cascade:FILE          a cascade from a file (docs/cascades.md), without its budget; only what a stage reads is scored
MODEL may end in @auto, @f32, @bf16 or @int8; f32 if nothing is said.

The table has, for each metric, the mean, the difference to the baseline with its 95 % bootstrap interval, p of the
randomisation test with Holm's correction for the rankers of the table, and a verdict. `no difference` was shown (TOST,
--margin); `too few queries to tell` was not, and says which difference so many queries can find.

Scores are kept in the cache folder: what was scored once is not scored again, and a run that was killed goes on.")]
pub struct Eval {
    /// What to evaluate on
    #[arg(value_name = "COLLECTION", required = true)]
    collections: Vec<Source>,
    /// What to compare; may be given often [default: first and cross:default]
    #[arg(long = "ranker", short, value_name = "RANKER")]
    rankers: Vec<Ranker>,
    /// The ranker that the others are compared with [default: the first one]
    #[arg(long, value_name = "RANKER")]
    baseline: Option<String>,
    /// Metrics, separated by commas; plots show the first one [default: ndcg@10,mrr@10,recall@100; with subtopics= behind every collection alpha_ndcg@10 too]
    #[arg(long, value_name = "METRIC", value_delimiter = ',')]
    metric: Vec<Metric>,
    /// Candidates for each query, at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = positive())]
    depth: usize,
    /// Depths of the depth curve, separated by commas
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "10,20,50,100,200,500", value_parser = positive())]
    depths: Vec<usize>,
    /// A difference smaller than this does not matter
    #[arg(long, value_name = "X", default_value_t = 0.01)]
    margin: f64,
    /// Longest text or pair in tokens [default: each model's own maximum]
    #[arg(long, value_name = "N")]
    max_length: Option<usize>,
    /// The folder for scores and indexes [default: jointly/eval in the user's cache folder]
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,
    /// Write all numbers here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a report with plots here: one file that needs no other
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Replace these files if they exist
    #[arg(long)]
    force: bool,
}

fn positive() -> impl clap::builder::TypedValueParser<Value = usize> {
    use clap::builder::TypedValueParser as _;
    clap::builder::RangedU64ValueParser::<u64>::new().range(1..=1_000_000).map(|number| number as usize)
}

impl Eval {
    pub fn run(self, global: Global) -> Result<()> {
        for path in [&self.json, &self.html].into_iter().flatten() {
            if path.exists() && !self.force {
                return Err(CliError::Input(format!("{} exists; --force replaces it", path.display())));
            }
        }
        let (rankers, baseline) = self.rankers()?;
        let metrics = self.metrics()?;
        for source in &self.collections {
            source.check_metrics(&metrics)?;
        }
        let options = CompareOptions::new().margin(self.margin);
        if !(self.margin > 0.0 && self.margin.is_finite()) {
            return Err(CliError::Input(format!("--margin {}: a number above 0 is expected", self.margin)));
        }
        let folder = match &self.cache {
            Some(folder) => folder.clone(),
            None => default_folder()?,
        };
        fs::create_dir_all(&folder).map_err(|error| CliError::file(&folder, &error))?;
        let search = Search { depth: self.depth, cache: &folder, threads: model::threads(global) };
        let collections = self.load(&search, global)?;

        let (models, descriptions) = self.score(&rankers, &collections, &search, global)?;
        let judge = Judge { rankers: &rankers, baseline, metrics: &metrics, depths: &self.depths, options };
        let collections: Vec<CollectionReport> = collections
            .iter()
            .zip(&models)
            .map(|(collection, models)| judge.collection(collection, models, &search))
            .collect::<Result<_>>()?;
        let of_ranker = |ranker: &Ranker| {
            let of_model = |(model, kind): (&Model, Kind)| descriptions.get(&(model.clone(), kind)).cloned();
            let models = ranker.method.models().into_iter().filter_map(of_model).collect();
            RankerEntry { name: ranker.name.clone(), models }
        };
        let report = Report {
            version: env!("CARGO_PKG_VERSION"),
            baseline: rankers[baseline].name.clone(),
            metrics: metrics.iter().map(Metric::to_string).collect(),
            options,
            threads: model::threads(global),
            rankers: rankers.iter().map(of_ranker).collect(),
            collections,
        };
        let mut output = Output::new();
        table(&report, &mut output)?;
        output.flush()?;
        if let Some(path) = &self.json {
            let mut text =
                serde_json::to_string_pretty(&report).map_err(|e| CliError::Failed(e.to_string()))?;
            text.push('\n');
            write_file(path, &text)?;
        }
        if let Some(path) = &self.html {
            write_file(path, &html::page(&report))?;
        }
        Ok(())
    }

    /// The metrics that were asked for, or the usual ones; that of subtopics is one of them if every collection has it.
    fn metrics(&self) -> Result<Vec<Metric>> {
        if !self.metric.is_empty() {
            return Ok(self.metric.clone());
        }
        let of_subtopics = self.collections.iter().all(Source::has_subtopics).then_some("alpha_ndcg@10");
        let names = ["ndcg@10", "mrr@10", "recall@100"].into_iter().chain(of_subtopics);
        Ok(names.map(str::parse::<Metric>).collect::<jointly_eval::Result<Vec<_>>>()?)
    }

    /// The rankers, none of which has another's name, and which of them is the baseline.
    fn rankers(&self) -> Result<(Vec<Ranker>, usize)> {
        let mut rankers = self.rankers.clone();
        if rankers.is_empty() {
            let parse = |text: &str| text.parse::<Ranker>().map_err(CliError::Input);
            rankers = vec![parse("first")?, parse("cross:default")?];
        }
        for (place, ranker) in rankers.iter().enumerate() {
            if rankers[..place].iter().any(|other| other.name == ranker.name) {
                let name = &ranker.name;
                return Err(CliError::Input(format!(
                    "two rankers are called {name}; --ranker NAME=RANKER gives one another name"
                )));
            }
        }
        let Some(name) = &self.baseline else { return Ok((rankers, 0)) };
        let same = |ranker: &Ranker| {
            ranker.name == *name || name.parse::<Ranker>().is_ok_and(|named| named.method == ranker.method)
        };
        match rankers.iter().position(same) {
            Some(baseline) => Ok((rankers, baseline)),
            None => Err(CliError::Input(format!("--baseline {name}: it is none of the rankers"))),
        }
    }

    fn load(&self, search: &Search<'_>, global: Global) -> Result<Vec<Collection>> {
        let mut collections: Vec<Collection> = Vec::new();
        let bar = model::bar(Some(self.collections.len() as u64), "reading {pos}/{len}", global);
        for source in &self.collections {
            let collection = source.load(search)?;
            if collections.iter().any(|other| other.name == collection.name) {
                return Err(CliError::Input(format!(
                    "two collections are called {}; name=NAME behind a path gives one another name",
                    collection.name
                )));
            }
            let notes = [
                (collection.missing, "judged queries have no candidates; each counts as 0"),
                (collection.unjudged, "queries with candidates have no judgements; they count nowhere"),
                (
                    collection.without_subtopics().unwrap_or(0),
                    "judged queries have no judgements by subtopic; they do not count in alpha_ndcg",
                ),
            ];
            for (count, what) in notes.iter().filter(|(count, _)| *count > 0 && !global.quiet) {
                bar.suspend(|| say(format_args!("{}: {count} {what}", collection.path.display())));
            }
            collections.push(collection);
            bar.inc(1);
        }
        Ok(collections)
    }

    /// Runs every model over every collection, one model after the other.
    #[allow(clippy::type_complexity)] // for each collection, and for each model
    fn score(
        &self,
        rankers: &[Ranker],
        collections: &[Collection],
        search: &Search<'_>,
        global: Global,
    ) -> Result<(Vec<OfModels>, HashMap<(Model, Kind), Description>)> {
        let mut all: Vec<OfModels> = collections.iter().map(|_| HashMap::new()).collect();
        let mut descriptions = HashMap::new();
        for (named, kind) in rankers.iter().flat_map(|ranker| ranker.method.models()) {
            let key = (named.clone(), kind);
            if descriptions.contains_key(&key) {
                continue;
            }
            let mut at_work = AtWork::load((named, kind), search.cache, self.max_length, global)?;
            for (collection, models) in collections.iter().zip(&mut all) {
                let bar = model::bar(
                    Some(collection.pairs() as u64),
                    "{msg} [{bar:30}] {pos}/{len} pairs, {eta} left",
                    global,
                );
                bar.set_message(format!("{} on {}", named.name, collection.name));
                let scores: Scores = at_work.score(collection, &bar)?;
                drop(bar);
                if scores.cached > 0 && !global.quiet {
                    let (name, cached, computed) = (&collection.name, scores.cached, scores.computed);
                    say(format_args!(
                        "{} on {name}: {cached} pairs from the cache, {computed} computed",
                        named.name
                    ));
                }
                for warning in scores.stages.iter().filter_map(StageSums::warning).filter(|_| !global.quiet) {
                    say(format_args!("{} on {}: {warning}", named.name, collection.name));
                }
                models.insert(key.clone(), scores);
            }
            descriptions.insert(key, at_work.description());
        }
        Ok((all, descriptions))
    }
}

/// What gives scores for a collection.
pub(super) enum AtWork {
    Model(Loaded, Cache, Description),
    Cascade(CachedCascade),
}

impl AtWork {
    pub(super) fn load(
        (named, kind): (&Model, Kind),
        folder: &Path,
        max_length: Option<usize>,
        global: Global,
    ) -> Result<Self> {
        if kind == Kind::Cascade {
            return CachedCascade::load(Path::new(&named.name), folder, max_length, global)
                .map(Self::Cascade);
        }
        let (loaded, description) = Loaded::load(kind, named, max_length, global)?;
        let cache = Cache::open(folder, &loaded.made(&description)?)?;
        Ok(Self::Model(loaded, cache, description))
    }

    pub(super) fn score(&mut self, collection: &Collection, bar: &ProgressBar) -> Result<Scores> {
        match self {
            Self::Model(loaded, cache, _) => loaded.score(collection, cache, bar),
            Self::Cascade(cascade) => cascade.score(collection, bar),
        }
    }

    pub(super) fn description(&self) -> Description {
        match self {
            Self::Model(_, _, description) => description.clone(),
            Self::Cascade(cascade) => cascade.description(),
        }
    }
}

/// For people: a block for each collection, a table for each metric.
fn table(report: &Report, output: &mut Output) -> Result<()> {
    let width =
        report.rankers.iter().map(|ranker| console::measure_text_width(&ranker.name)).max().unwrap_or(0);
    for collection in &report.collections {
        let CollectionReport { name, queries, pairs, candidates, .. } = collection;
        output.line(format_args!(
            "{}: {queries} queries, {pairs} pairs, candidates from {}",
            printable(name),
            printable(candidates)
        ))?;
        for (place, metric) in report.metrics.iter().enumerate() {
            output.line(format_args!("  {metric}"))?;
            for row in &collection.results {
                let cost = row.ms_per_query.map_or("-".to_string(), |ms| format!("{ms:.1}"));
                let pad = " ".repeat(width - console::measure_text_width(&row.ranker));
                let value = &row.metrics[place];
                output.line(format_args!(
                    "    {}{pad}  {:.4}  {cost:>8} ms/query  {}",
                    printable(&row.ranker),
                    value.mean,
                    compared(value, *row.ranker == report.baseline)
                ))?;
            }
        }
        for curve in &collection.depth_curves {
            output.line(format_args!("  depth, {}: {}", printable(&curve.ranker), curve.says))?;
        }
        for reliability in &collection.reliability {
            output.line(format_args!(
                "  probability, {}: expected calibration error {:.3}, Brier {:.3} over {} judged pairs",
                printable(&reliability.ranker),
                reliability.ece,
                reliability.brier,
                reliability.pairs
            ))?;
        }
    }
    Ok(())
}

/// Difference, interval, p and verdict.
fn compared(value: &report::MetricRow, is_baseline: bool) -> String {
    let Some(compared) = &value.comparison else {
        return if is_baseline { "baseline".into() } else { "one query: nothing to compare".into() };
    };
    let numbers = &compared.numbers;
    let can_find = match compared.verdict {
        // It says so itself.
        "too_few_queries" => String::new(),
        _ => format!(" ({} queries can find {:.4})", numbers.queries, numbers.detectable),
    };
    format!(
        "{:+.4} [{:+.4}, {:+.4}]  p {}  {}{can_find}",
        numbers.difference,
        numbers.interval.low,
        numbers.interval.high,
        p_value(numbers.different.holm),
        compared.says
    )
}

pub(super) fn p_value(p: f64) -> String {
    if p < 1e-4 { "<0.0001".into() } else { format!("{p:.4}") }
}
