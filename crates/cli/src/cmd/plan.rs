use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use clap::Args;
use jointly_eval::Metric;

use crate::Global;
use crate::cache::{Cache, default_folder};
use crate::cmd::eval::{Collection, Kind, Loaded, Method, Model, OfModels, Ranker, Search, Source};
use crate::error::{CliError, Result};
use crate::model;
use crate::output::{Output, say, write_file};

mod file;
mod judge;
mod picture;
mod prices;
mod report;
mod search;
mod speed;

use picture::Picture;
use prices::Prices;
use report::Report;
use search::{Planner, Room};
use speed::{Part, Timing};

/// Find the cheapest cascade that loses nothing that matters, and say what it costs
#[derive(Args)]
#[command(after_help = "\
COLLECTION is what `jointly eval` takes: a BEIR folder, a pool, or texts with queries and judgements (see there).

SCORER is bi:MODEL or cross:MODEL, which may end in @auto, @f32, @bf16 or @int8; `cross:default` is the embedded model. Every
cascade of them is tried: one scorer after another, each dearer than the one before it, each with fewer candidates. Scores
come from the cache of `jointly eval`; what is not there is computed once. No cascade is run for its score.

What a cascade costs is computed: the operations of the pairs that it reads, by the time that this machine takes for them,
measured on --time-queries of the queries. A bi-encoder costs its query; documents have their vectors before.

The front has the cascades that no other beats in both time and metric. `held out` is the metric of queries that had no say: in
each of --folds parts, the best cascade for the same time is chosen on the others. The plan is the cheapest of the front
that is shown to lose less than --margin to the reference (TOST on held-out queries, Holm's correction for the front). If
none is, it is the cheapest whose held-out loss is smaller, and the plan says that this was not shown; --output then
writes it all the same.

Where nobody has judged a pool, --judge-with takes a scorer's own order for the truth: its best ten have the labels 10 to 1.
The plan then keeps the order of that scorer; whether that order is good, it does not know.")]
pub struct Plan {
    /// What to plan for; several are one set of queries
    #[arg(value_name = "COLLECTION", required = true)]
    collections: Vec<Source>,
    /// What a cascade may be made of; may be given often [default: cross:default@int8 and cross:default@f32]
    #[arg(long = "scorer", short, value_name = "SCORER")]
    scorers: Vec<Ranker>,
    /// The scorer that nothing must be lost to, alone over all candidates [default: the best one alone]
    #[arg(long, value_name = "SCORER")]
    reference: Option<Ranker>,
    /// Take this scorer's order for the truth instead of judgements; only for pools
    #[arg(long, value_name = "SCORER")]
    judge_with: Option<Ranker>,
    /// What is to be large
    #[arg(long, value_name = "METRIC", default_value = "ndcg@10")]
    metric: Metric,
    /// A loss smaller than this does not matter
    #[arg(long, value_name = "X", default_value_t = 0.005)]
    margin: f64,
    /// Candidates for each query, at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = positive())]
    depth: usize,
    /// How many candidates a scorer may read, separated by commas; all of them is always tried
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "10,20,30,50,100,200,500", value_parser = positive())]
    depths: Vec<usize>,
    /// Scorers in a cascade, at most
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=4))]
    max_stages: u8,
    /// Parts of the queries for the held-out metric
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(2..=20))]
    folds: u8,
    /// Only cascades that take no longer for a query, in milliseconds
    #[arg(long, value_name = "MS")]
    max_ms: Option<f64>,
    /// Queries that times are measured on
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = positive())]
    time_queries: usize,
    /// What machine, services and language models cost: see docs/plan.md
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// Longest text or pair in tokens [default: each model's own maximum]
    #[arg(long, value_name = "N")]
    max_length: Option<usize>,
    /// The folder for scores and indexes [default: jointly/eval in the user's cache folder]
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,
    /// Write the cascade here, for `jointly rerank --cascade`
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write all numbers here; `-` is standard output, in place of the table
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Replace these files if they exist
    #[arg(long)]
    force: bool,
}

fn positive() -> impl clap::builder::TypedValueParser<Value = usize> {
    use clap::builder::TypedValueParser as _;
    clap::builder::RangedU64ValueParser::<u64>::new().range(1..=1_000_000).map(|number| number as usize)
}

/// A scorer's model, and which kind it is.
pub(super) type Named = (Model, Kind);

/// A scorer is one model.
fn named(ranker: &Ranker) -> Result<Named> {
    match &ranker.method {
        Method::Bi(model) => Ok((model.clone(), Kind::Bi)),
        Method::Cross(model) => Ok((model.clone(), Kind::Cross)),
        _ => Err(CliError::Input(format!("{}: a scorer is bi:MODEL or cross:MODEL", ranker.name))),
    }
}

impl Plan {
    pub fn run(self, global: Global) -> Result<()> {
        let is_stdout = |path: &&PathBuf| path.as_os_str() == "-";
        for path in [&self.json, &self.output].into_iter().flatten().filter(|path| !is_stdout(path)) {
            if path.exists() && !self.force {
                return Err(CliError::Input(format!("{} exists; --force replaces it", path.display())));
            }
        }
        if !(self.margin > 0.0 && self.margin.is_finite()) {
            return Err(CliError::Input(format!("--margin {}: a number above 0 is expected", self.margin)));
        }
        if self.max_ms.is_some_and(|ms| !(ms >= 0.0 && ms.is_finite())) {
            return Err(CliError::Input("--max-ms: a number that is not negative is expected".into()));
        }
        for source in &self.collections {
            source.check_metrics(std::slice::from_ref(&self.metric))?;
        }
        let prices = match &self.prices {
            Some(path) => Prices::read(path)?,
            None => Prices::default(),
        };
        let scorers = self.scorers()?;
        let folder = match &self.cache {
            Some(folder) => folder.clone(),
            None => default_folder()?,
        };
        fs::create_dir_all(&folder).map_err(|error| CliError::file(&folder, &error))?;
        let search = Search { depth: self.depth, cache: &folder, threads: model::threads(global) };
        let mut collections = self.load(&search)?;
        if let Some(judge) = &self.judge_with {
            judge::judge(&mut collections, &named(judge)?, (self.max_length, &search), global)?;
        }
        let (parts, models) = self.score(&scorers, &collections, &search, global)?;
        let room = Room {
            depths: &self.depths,
            max_stages: self.max_stages.into(),
            folds: self.folds.into(),
            max_ms: self.max_ms,
        };
        let reference = match &self.reference {
            Some(ranker) => {
                let wanted = named(ranker)?;
                let place = parts.iter().position(|part| part.named == wanted);
                Some(place.ok_or_else(|| {
                    CliError::Input(format!("--reference {}: it is none of the scorers", ranker.name))
                })?)
            }
            None => None,
        };
        let planner = Planner {
            parts: &parts,
            collections: &collections,
            models: &models,
            metric: self.metric,
            margin: self.margin,
        };
        let planned = planner.plan(&room, reference)?;
        let picture = Picture::paint(&planned, &parts, (&collections, &prices));
        let report =
            Report::new(&planned, &parts, picture, (&collections, self.metric, model::threads(global)));
        match &self.json {
            Some(path) if path.as_os_str() == "-" => {
                let mut output = Output::new();
                output.json(&report)?;
                output.flush()?;
            }
            _ => report.print()?,
        }
        if let Some(path) = self.json.as_ref().filter(|path| !is_stdout(path)) {
            let mut text =
                serde_json::to_string_pretty(&report).map_err(|e| CliError::Failed(e.to_string()))?;
            text.push('\n');
            write_file(path, &text)?;
        }
        if let Some(path) = &self.output {
            if planned.chosen().steps.is_empty() {
                let path = path.display();
                return Err(CliError::NotHeld(format!(
                    "{path} is not written: the plan is the first stage as it is"
                )));
            }
            write_file(path, &file::cascade(&planned, &parts, &report))?;
            if !global.quiet && !planned.is_shown {
                say(format_args!(
                    "{}: written, but these queries do not show that it loses less than {}",
                    path.display(),
                    self.margin
                ));
            }
        }
        Ok(())
    }

    fn scorers(&self) -> Result<Vec<(String, Named)>> {
        let mut rankers = self.scorers.clone();
        if rankers.is_empty() {
            let parse = |text: &str| text.parse::<Ranker>().map_err(CliError::Input);
            rankers = vec![parse("cross:default@int8")?, parse("cross:default@f32")?];
        }
        let mut found: Vec<(String, Named)> = Vec::new();
        for ranker in &rankers {
            let named = named(ranker)?;
            if found.iter().any(|(name, other)| *name == ranker.name || *other == named) {
                return Err(CliError::Input(format!("the scorer {} is given twice", ranker.name)));
            }
            found.push((ranker.name.clone(), named));
        }
        Ok(found)
    }

    fn load(&self, search: &Search<'_>) -> Result<Vec<Collection>> {
        let mut collections: Vec<Collection> = Vec::new();
        for source in &self.collections {
            let collection = match self.judge_with {
                Some(_) => source.load_unjudged(search)?,
                None => source.load(search)?,
            };
            if collections.iter().any(|other| other.name == collection.name) {
                return Err(CliError::Input(format!(
                    "two collections are called {}; name=NAME behind a path gives one another name",
                    collection.name
                )));
            }
            collections.push(collection);
        }
        let queries: usize = collections.iter().map(|collection| collection.queries.len()).sum();
        if queries < usize::from(self.folds) {
            return Err(CliError::Input(format!("{queries} queries are too few for {} folds", self.folds)));
        }
        Ok(collections)
    }

    /// Scores of all pairs by each scorer, from the cache where it has them; and its speed here.
    fn score(
        &self,
        scorers: &[(String, Named)],
        collections: &[Collection],
        search: &Search<'_>,
        global: Global,
    ) -> Result<(Vec<Part>, Vec<OfModels>)> {
        let mut all: Vec<OfModels> = collections.iter().map(|_| HashMap::new()).collect();
        let mut parts = Vec::new();
        for (name, named) in scorers {
            let (mut loaded, description) = Loaded::load(named.1, &named.0, self.max_length, global)?;
            let mut cache = Cache::open(search.cache, &loaded.made(&description)?)?;
            for (collection, models) in collections.iter().zip(&mut all) {
                let bar = model::bar(
                    Some(collection.pairs() as u64),
                    "{msg} [{bar:30}] {pos}/{len} pairs, {eta} left",
                    global,
                );
                bar.set_message(format!("{name} on {}", collection.name));
                let scores = loaded.score(collection, &mut cache, &bar)?;
                drop(bar);
                if scores.cached > 0 && !global.quiet {
                    let (cached, computed) = (scores.cached, scores.computed);
                    say(format_args!(
                        "{name} on {}: {cached} pairs from the cache, {computed} computed",
                        collection.name
                    ));
                }
                models.insert(named.clone(), scores);
            }
            let timing = Timing { queries: self.time_queries, threads: search.threads };
            parts.push(Part::measure((name, named), &loaded, (collections, &timing), description)?);
        }
        // A cascade goes from cheap to dear.
        parts.sort_by(|a, b| a.ms_of_all().total_cmp(&b.ms_of_all()));
        Ok((parts, all))
    }
}
