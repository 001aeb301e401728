use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::Args;
use jointly_train::zelo::fit::FitOptions;
use jointly_train::zelo::sample::Sampler;
use jointly_train::zelo::simulate::{Power, SimulatedJudge, World, ask, grade, power, text};
use jointly_train::zelo::votes::Pair;
use serde::Serialize;

use super::sample::even;
use super::{Link, at_least_0, refused};
use crate::Global;
use crate::error::{CliError, Result};
use crate::model;
use crate::output::{Output, Sink, say, to_json};

/// Say how many votes are needed, by judges that know the truth and err; or write such a pool with its votes
#[derive(Args)]
#[command(after_help = "\
The relevance of a query's documents is normal with a standard deviation of 1.41, around a value of the query (--spread). A
judge sees the difference of two with noise and votes 1 / (1 + exp(-difference)).
Without -o: for each --k, and for all pairs, Kendall's tau of fitted scores and truth, and how many of the ten most relevant
documents are among the ten best scores. Give --judge as often as there are judges; each votes on every pair.
With -o: FOLDER/pool.groups.jsonl (each document's text states its relevance), FOLDER/pairs.jsonl and FOLDER/votes.jsonl, for
`jointly zelo fit` and the rest of the way.")]
pub struct Simulate {
    /// How many queries
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = count())]
    queries: usize,
    /// Documents of each query
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = count())]
    documents: usize,
    /// A judge: its scale, and its bias towards what it sees second; 1 is sure where the truth is, 0.5 half as sure
    #[arg(long = "judge", value_name = "SCALE[:BIAS]", value_parser = judge, default_value = "1")]
    judges: Vec<(f64, f64)>,
    /// The standard deviation of the noise on what a judge sees
    #[arg(long, value_name = "X", default_value_t = 0.2, value_parser = at_least_0)]
    noise: f64,
    /// The part of a vote that is a random number
    #[arg(long, value_name = "X", default_value_t = 0.02, value_parser = share)]
    random: f64,
    /// How often a judge abstains
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = share)]
    abstain: f64,
    /// Votes of 0 or 1 only, as of a judge that must decide
    #[arg(long)]
    hard: bool,
    /// Comparisons of each document: even numbers; with -o one [default: 2,4,8,16; with -o 8]
    #[arg(long, value_name = "K,...", value_delimiter = ',', value_parser = even)]
    k: Vec<usize>,
    /// Comparisons of each query with others, for -o: an even number, or 0 for none
    #[arg(long, value_name = "K", default_value = "8", value_parser = even, requires = "output")]
    across: usize,
    /// How much queries differ in how relevant their documents are: a standard deviation
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = at_least_0)]
    spread: f64,
    /// The same seed gives the same votes
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// How the fit takes votes
    #[arg(long, value_enum, default_value_t = Link::Thurstone)]
    link: Link,
    /// The prior of the fit
    #[arg(long, value_name = "X", default_value_t = FitOptions::PRIOR, value_parser = at_least_0)]
    prior: f64,
    /// Write a pool, pairs and votes into this folder
    #[arg(long, short, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// Replace these files if they exist
    #[arg(long, requires = "output")]
    force: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

fn count() -> clap::builder::RangedU64ValueParser<usize> {
    clap::builder::RangedU64ValueParser::new().range(1..=1 << 24)
}

fn share(text: &str) -> std::result::Result<f64, String> {
    let value = at_least_0(text)?;
    if value <= 1.0 { Ok(value) } else { Err("it must be 1 at most".into()) }
}

/// A judge's scale and bias.
pub fn judge(text: &str) -> std::result::Result<(f64, f64), String> {
    let (scale, bias) = text.split_once(':').unwrap_or((text, "0"));
    let bias = bias.parse().ok().filter(|bias: &f64| bias.is_finite()).ok_or("the bias is not a number")?;
    Ok((at_least_0(scale)?, bias))
}

/// A query of the pool; `relevance` is for whoever looks.
#[derive(Serialize)]
struct Query<'a> {
    query_id: &'a str,
    query: String,
    documents: Vec<Document<'a>>,
}

#[derive(Serialize)]
struct Document<'a> {
    id: &'a str,
    text: String,
    label: i8,
    relevance: f64,
}

/// The names are part of the interface.
#[derive(Serialize)]
struct Printed<'a> {
    queries: usize,
    documents: usize,
    judges: usize,
    seed: u64,
    results: &'a [Power],
}

impl Simulate {
    pub fn run(self, global: Global) -> Result<()> {
        let judges: Vec<SimulatedJudge> = (1..)
            .zip(&self.judges)
            .map(|(number, (scale, bias))| {
                let judge = SimulatedJudge::new(format!("simulated-{number}"), self.seed)
                    .scale(*scale)
                    .bias(*bias)
                    .noise(self.noise)
                    .random(self.random)
                    .abstains(self.abstain);
                if self.hard { judge.hard() } else { judge }
            })
            .collect();
        let world = World::new(self.queries, self.documents, self.seed).spread(self.spread);
        match &self.output {
            Some(folder) => self.write(folder, &world, &judges, global),
            None => self.power(&world, &judges, global),
        }
    }

    fn power(&self, world: &World, judges: &[SimulatedJudge], global: Global) -> Result<()> {
        if self.documents < 2 {
            return Err(CliError::Input("--documents 1: one document cannot be compared".into()));
        }
        let given: Vec<usize> = if self.k.is_empty() { vec![2, 4, 8, 16] } else { self.k.clone() };
        if given.contains(&0) {
            return Err(CliError::Input("--k 0: without comparisons there is nothing to fit".into()));
        }
        let threads = NonZeroUsize::new(model::threads(global)).unwrap_or(NonZeroUsize::MIN);
        let options = FitOptions::new().link(self.link.library()).prior(self.prior).threads(threads);
        let bar = model::bar(Some(given.len() as u64 + 1), "[{bar:30}] {pos}/{len}", global);
        let mut results = Vec::new();
        // More than all pairs is no sparse tournament.
        for k in given.into_iter().filter(|k| *k < self.documents).map(Some).chain([None]) {
            results.push(power(world, judges, k, &options).map_err(refused)?);
            bar.inc(1);
        }
        bar.finish();
        let mut output = Output::new();
        if self.format == Format::Json {
            let (queries, documents, seed) = (self.queries, self.documents, self.seed);
            output.json(&Printed { queries, documents, judges: judges.len(), seed, results: &results })?;
            return output.flush();
        }
        output.line("    k  pairs/query  votes/query     tau  (s.e.)  of the best ten  standard error")?;
        for Power { k, pairs, tau, tau_standard_error, top_10, median_standard_error } in &results {
            let k = k.map_or("all".to_string(), |k| k.to_string());
            let votes = pairs * judges.len();
            output.line(format_args!(
                "{k:>5}  {pairs:11}  {votes:11}  {tau:6.4}  {tau_standard_error:6.4}  {top_10:15.4}  {median_standard_error:14.4}"
            ))?;
        }
        output.flush()
    }

    fn write(&self, folder: &Path, world: &World, judges: &[SimulatedJudge], global: Global) -> Result<()> {
        let k = match self.k[..] {
            [] => 8,
            [k] => k,
            _ => return Err(CliError::Input("-o takes one --k".into())),
        };
        let paths = ["pool.groups.jsonl", "pairs.jsonl", "votes.jsonl"].map(|name| folder.join(name));
        paths.iter().try_for_each(|path| Sink::check(Some(path), self.force))?;
        fs::create_dir_all(folder).map_err(|error| CliError::file(folder, &error))?;
        let sink = |path: &PathBuf| Sink::open(Some(path), self.force);
        let (mut pool, mut pairs, mut votes) = (sink(&paths[0])?, sink(&paths[1])?, sink(&paths[2])?);
        let sampler = |k: usize| NonZeroUsize::new(k / 2).map(|cycles| Sampler::new(cycles, self.seed));
        let mut number = 0;
        let mut ask_all = |pair: &Pair, a: f64, b: f64| -> Result<()> {
            pairs.line(to_json(pair)?)?;
            for judge in judges {
                votes.line(to_json(&ask(judge, pair, a, b))?)?;
                number += 1;
            }
            Ok(())
        };
        let documents = world.documents();
        let bar = model::bar(Some(self.queries as u64), "[{bar:30}] {pos}/{len} queries, {eta} left", global);
        for query in world.queries() {
            let relevances = world.relevances(&query);
            let of = documents.iter().zip(&relevances).map(|(id, relevance)| Document {
                id,
                text: text(*relevance),
                label: grade(*relevance),
                relevance: *relevance,
            });
            let (query_id, documents_of) = (query.as_str(), of.collect());
            pool.line(to_json(&Query {
                query_id,
                query: format!("simulated query {query}"),
                documents: documents_of,
            })?)?;
            let places = sampler(k).map(|sampler| sampler.within_places(&query, documents.len()));
            for (a, b) in places.into_iter().flatten() {
                let (query, a_id, b_id) = (query.clone(), documents[a].clone(), documents[b].clone());
                ask_all(&Pair { query, a: a_id, query_b: None, b: b_id }, relevances[a], relevances[b])?;
            }
            bar.inc(1);
        }
        let queries: Vec<String> = world.queries().collect();
        let across =
            sampler(self.across).map(|sampler| sampler.across(&vec![documents.len(); queries.len()]));
        for pair in across.into_iter().flatten() {
            let ((query, a), (query_b, b)) = (pair.a, pair.b);
            let (query, query_b) = (&queries[query], &queries[query_b]);
            let (a_relevance, b_relevance) = (world.relevances(query)[a], world.relevances(query_b)[b]);
            let (a, b) = (documents[a].clone(), documents[b].clone());
            ask_all(
                &Pair { query: query.clone(), a, query_b: Some(query_b.clone()), b },
                a_relevance,
                b_relevance,
            )?;
        }
        pool.finish()?;
        pairs.finish()?;
        votes.finish()?;
        if !global.quiet {
            say(format_args!("{}: {} queries, {number} votes", folder.display(), self.queries));
        }
        Ok(())
    }
}
