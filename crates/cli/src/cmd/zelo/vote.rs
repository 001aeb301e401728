use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use jointly::{LoadOptions, Precision};
use jointly_eval::format::Lines;
use jointly_retrieve::Index;
use jointly_train::judge::{
    self, ApiKey, Ask, Budget, ChatJudge, ChatOptions, Ending, Item, Journal, Judge, LabelJudge, LocalJudge,
    Pair, Price, Progress, ResponseFormat, RunOptions, Scorer, Side, Tally,
};
use jointly_train::zelo::simulate::SimulatedJudge;
use serde::Serialize;

use super::simulate;
use crate::Global;
use crate::error::{CliError, Result};
use crate::interrupt;
use crate::model;
use crate::output::{Output, printable, say};
use crate::pool::{self, Pool, PoolArguments};

/// Ask judges which document of each pair is more relevant
#[derive(Args)]
#[command(after_help = "\
A judge is one of:
  URL#MODEL   a language model behind an endpoint that speaks the chat-completions protocol, URL without /chat/completions:
              http://localhost:8080/v1#qwen
  MODEL       a cross-encoder of this program: a folder, a bundle, a hub id, or `default`
  bi:MODEL    a bi-encoder
  index:INDEX the bi-encoder of an index that `jointly index --dense` made of the same documents, with the vectors there
  labels      the labels of POOLS: the higher one wins; it abstains where they are equal or missing
  simulated   knows the relevance that documents of `jointly zelo simulate` state, and errs; simulated:SCALE[:BIAS] as there
each with a name for the votes before it, if the last part of the model's name is not to be it: big=https://host/v1#model.
Several judges are an ensemble: each votes on every pair.

PAIRS has JSON lines with the ids `query`, `a`, `b`, and `query_b` where b is measured by a query of its own; the texts are
in POOLS. The votes file has these and `judge`, `vote` (the share for b, from 0 to 1; null is an abstention, and `reason`
says why), `swapped` (b was shown first), `prompt_tokens`, `completion_tokens`, `cost`. It grows vote by vote. Given again
after an interruption, the command goes on where it stopped and asks nothing twice, except for what had no answer. When all
is asked, the file is sorted by pair and judge.")]
pub struct Vote {
    /// Queries with their documents
    #[arg(value_name = "POOLS", long_help = format!("Queries with their documents\n\n{}", pool::HELP))]
    pools: PathBuf,
    #[command(flatten)]
    pool: PoolArguments,
    /// The pairs to vote on, as `jointly zelo sample` writes them
    #[arg(value_name = "PAIRS")]
    pairs: PathBuf,
    /// The votes file; goes on with it if it exists
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Who votes: URL#MODEL, MODEL or bi:MODEL (see below); repeatable
    #[arg(long = "judge", required = true, value_name = "[NAME=]JUDGE")]
    judges: Vec<Spec>,
    /// Ask language models about both orders of each pair, instead of one drawn by lot
    #[arg(long)]
    both_orders: bool,
    /// For the lots
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Votes of 0, 0.5 and 1 only
    #[arg(long)]
    hard: bool,
    /// Throw away the votes that the file has, and begin anew
    #[arg(long)]
    force: bool,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,

    /// What a language model answers with
    #[arg(long, value_enum, default_value_t = AskArgument::Score, help_heading = "Language models")]
    ask: AskArgument,
    /// Environment variable with the key of the endpoint, or of one judge's; no key is sent without it
    #[arg(long, value_name = "[NAME=]VARIABLE", help_heading = "Language models")]
    api_key_env: Vec<String>,
    /// What a million tokens of prompts and of answers cost, for all judges or for one: 0.15/0.6
    #[arg(long, value_name = "[NAME=]IN/OUT", help_heading = "Language models")]
    price: Vec<String>,
    /// Stop before all votes of the file together cost more, in the currency of the prices
    #[arg(long, value_name = "AMOUNT", help_heading = "Language models")]
    max_cost: Option<f64>,
    /// Stop before all votes of the file together take more tokens
    #[arg(long, value_name = "N", help_heading = "Language models")]
    max_tokens_total: Option<u64>,
    /// Requests at once to each judge
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Language models")]
    concurrency: u16,
    /// Seconds for one request
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..), help_heading = "Language models")]
    timeout: u64,
    /// How often a request is made that is refused for now (429, 5xx), hangs or breaks off
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100), help_heading = "Language models")]
    attempts: u32,
    /// Most tokens of an answer [default: enough for what is asked; models that think need more]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Language models")]
    answer_tokens: Option<u32>,
    /// Each text is cut to so many characters, and counted as cut
    #[arg(long, value_name = "N", default_value_t = ChatOptions::DEFAULT_MAX_CHARS, help_heading = "Language models")]
    max_chars: usize,
    /// 0 is the likeliest answer
    #[arg(long, value_name = "T", default_value_t = 0.0, help_heading = "Language models")]
    temperature: f64,
    /// How the server is told the form of the answer; what it does not know is left out by itself
    #[arg(long, value_enum, default_value_t = FormatArgument::JsonSchema, help_heading = "Language models")]
    response_format: FormatArgument,

    /// Soft votes are sigma(SCALE * difference of the scores) [default: 2 divided by the typical difference]
    #[arg(long, value_name = "SCALE", help_heading = "Models of this program")]
    scale: Option<f64>,
    /// What the layers multiply in; index:INDEX multiplies as it was made
    #[arg(long, value_parser = model::precision(), default_value = "f32", help_heading = "Models of this program")]
    precision: Precision,
    /// Longest pair in tokens; index:INDEX has a length of its own [default: the model's own maximum]
    #[arg(long, value_name = "N", help_heading = "Models of this program")]
    max_length: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AskArgument {
    /// A number from -1 to 1
    Score,
    /// A few words about both documents, then the number
    Reasons,
    /// A or B, and where the server tells them, the probabilities of both as the vote
    Letter,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatArgument {
    JsonSchema,
    JsonObject,
    None,
}

/// The judge that says what the labels of the pools say.
const LABELS: &str = "labels";
/// The one that knows the truth of simulated documents.
const SIMULATED: &str = "simulated";

/// A judge as it is named on the command line.
#[derive(Debug, Clone, PartialEq)]
struct Spec {
    name: String,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Chat {
        base: String,
        model: String,
    },
    Cross(String),
    Bi(String),
    Index(String),
    Labels,
    /// Its scale and its bias.
    Simulated(f64, f64),
}

impl FromStr for Spec {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (name, spec) = match text.split_once('=') {
            // A path or a URL may have = in it.
            Some((name, spec)) if !name.contains(['/', ':', '#']) => (Some(name), spec),
            _ => (None, text),
        };
        let kind = if spec.starts_with("http://") || spec.starts_with("https://") {
            let (base, model) =
                spec.split_once('#').ok_or("the model is missing: URL#MODEL, as the server calls it")?;
            Kind::Chat { base: base.to_owned(), model: model.to_owned() }
        } else if let Some(model) = spec.strip_prefix("bi:") {
            Kind::Bi(model.to_owned())
        } else if let Some(index) = spec.strip_prefix("index:") {
            Kind::Index(index.to_owned())
        } else if spec == LABELS {
            Kind::Labels
        } else if spec == SIMULATED {
            Kind::Simulated(1.0, 0.0)
        } else if let Some(how) = spec.strip_prefix("simulated:") {
            let (scale, bias) = simulate::judge(how)?;
            Kind::Simulated(scale, bias)
        } else {
            Kind::Cross(spec.to_owned())
        };
        let model = match &kind {
            Kind::Chat { model, .. } | Kind::Cross(model) | Kind::Bi(model) | Kind::Index(model) => model,
            Kind::Labels => LABELS,
            Kind::Simulated(..) => SIMULATED,
        };
        let last = model.trim_end_matches('/').rsplit('/').next().unwrap_or(model);
        let name = name.unwrap_or(last).to_owned();
        if name.is_empty() || model.is_empty() {
            return Err("a judge is URL#MODEL, MODEL or bi:MODEL, with or without NAME= before it".into());
        }
        Ok(Self { name, kind })
    }
}

/// Pairs with their texts.
type Texts<'p> = Vec<(Pair, [Side<'p>; 2])>;

/// What a run came to.
#[derive(Serialize)]
struct Summary<'a> {
    ending: &'static str,
    pairs: usize,
    /// Lines of PAIRS that name the same pair again.
    repeated: usize,
    asked_now: u64,
    seconds: f64,
    tokens: u64,
    cost: f64,
    judges: Vec<JudgeSummary<'a>>,
}

/// What a judge did, all runs together.
#[derive(Serialize)]
struct JudgeSummary<'a> {
    judge: &'a str,
    #[serde(flatten)]
    tally: Tally,
    prompt_tokens: u64,
    completion_tokens: u64,
    cost: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    scale: Option<f64>,
}

impl Vote {
    pub fn run(self, global: Global) -> Result<()> {
        self.check()?;
        let pool = self.pool.read(&self.pools)?;
        let (pairs, repeated) = self.read_pairs(&pool)?;
        let items: Vec<Item<'_>> = pairs.iter().map(|(ids, [a, b])| Item { ids, a: *a, b: *b }).collect();
        let mut scales = HashMap::new();
        let mut judges: Vec<Box<dyn Judge>> = Vec::new();
        for spec in &self.judges {
            judges.push(self.judge(spec, (&pool, &items), &mut scales, global)?);
        }
        let judges: Vec<&dyn Judge> = judges.iter().map(AsRef::as_ref).collect();
        let mut journal = Journal::open(&self.output, self.force)?;

        let template = "[{bar:30}] {pos}/{len} {msg}, {eta} left";
        let bar = model::bar(Some(0), template, global);
        let (started, mut last) = (Instant::now(), Progress::default());
        let mut observe = |progress: &Progress| {
            if last.questions == 0 {
                bar.set_length(progress.questions);
                bar.set_position(progress.known);
                bar.reset_eta(); // what was there already says nothing about the speed
            }
            bar.set_position(progress.known + progress.asked);
            bar.set_message(message(progress, started.elapsed()));
            last = *progress;
        };
        let options = RunOptions {
            both_orders: self.both_orders,
            seed: self.seed,
            budget: Budget { max_tokens: self.max_tokens_total, max_cost: self.max_cost },
        };
        let ending =
            judge::run(&judges, &items, &mut journal, &options, (interrupt::orderly(), &mut observe));
        bar.finish_and_clear();
        let ids = || pairs.iter().map(|(ids, _)| ids);
        let of_judge = |judge: &dyn Judge, name| {
            let usage = journal.usage_of(name);
            JudgeSummary {
                judge: name,
                tally: journal.tally(name, ids(), judge.reads_in_order()),
                prompt_tokens: usage.prompt_tokens,
                completion_tokens: usage.completion_tokens,
                cost: usage.cost,
                scale: scales.get(name).copied(),
            }
        };
        let names: Vec<&str> = self.judges.iter().map(|spec| spec.name.as_str()).collect();
        let summary = Summary {
            ending: match &ending {
                Ok(Ending::Complete) => "complete",
                Ok(Ending::BudgetSpent) => "budget spent",
                Ok(Ending::Interrupted) => "interrupted",
                Err(_) => "failed",
            },
            pairs: pairs.len(),
            repeated,
            asked_now: last.asked,
            seconds: started.elapsed().as_secs_f64(),
            tokens: journal.usage().tokens(),
            cost: journal.usage().cost,
            judges: judges.iter().zip(&names).map(|(judge, name)| of_judge(*judge, name)).collect(),
        };
        self.print(&summary)?;
        let left = last.questions - last.known - last.asked;
        let again = "the same command goes on from there";
        match ending? {
            Ending::Complete => {
                journal.sort(ids(), &names)?;
                Ok(())
            }
            Ending::BudgetSpent => Err(CliError::Failed(format!(
                "stopped with {left} questions left, because the next one might exceed the budget; with a larger one {again}"
            ))),
            Ending::Interrupted => {
                say(format_args!("interrupted with {left} questions left; {again}"));
                std::process::exit(interrupt::STATUS)
            }
        }
    }

    fn check(&self) -> Result<()> {
        let bad = |problem: String| Err(CliError::Input(problem));
        let mut names = HashSet::new();
        for spec in &self.judges {
            if !names.insert(spec.name.as_str()) {
                return bad(format!("two judges are called {}; name them: first=..., second=...", spec.name));
            }
        }
        for (flag, values) in [("--price", &self.price), ("--api-key-env", &self.api_key_env)] {
            for value in values {
                if let Some((name, _)) = value.split_once('=')
                    && !names.contains(name)
                {
                    return bad(format!("{flag} {value}: no judge is called {name}"));
                }
            }
        }
        let is_amount = |value: f64| value.is_finite() && value >= 0.0;
        if self.max_cost.is_some_and(|cost| !is_amount(cost)) {
            return bad("--max-cost is a number that is not negative".into());
        }
        if self.scale.is_some_and(|scale| !is_amount(scale) || scale == 0.0) {
            return bad("--scale is a number above 0".into());
        }
        let output = fs::canonicalize(&self.output);
        for input in [&self.pools, &self.pairs] {
            if let (Ok(output), Ok(input)) = (&output, fs::canonicalize(input))
                && *output == input
            {
                return bad(format!("{} is both input and output", output.display()));
            }
        }
        Ok(())
    }

    /// The pairs with their texts, each once, and how many were there again.
    fn read_pairs<'p>(&self, pool: &'p Pool) -> Result<(Texts<'p>, usize)> {
        let mut texts: HashMap<&str, (&str, HashMap<&str, &str>)> = HashMap::new();
        for query in &pool.queries {
            let documents =
                query.documents.iter().map(|document| (document.id.as_str(), document.text.as_str()));
            texts.insert(&query.id, (&query.text, documents.collect()));
        }
        let (mut pairs, mut seen, mut repeated) = (Vec::new(), HashSet::new(), 0);
        let mut lines = Lines::open(&self.pairs)?;
        while let Some((number, line)) = lines.next_line()? {
            let fault =
                |problem: String| CliError::Input(format!("{}:{number}: {problem}", self.pairs.display()));
            let ids: Pair =
                serde_json::from_str(line).map_err(|error| fault(crate::input::json_problem(&error)))?;
            let side = |query: &str, document: &str| {
                let place = self.pools.display();
                let (text, documents) =
                    texts.get(query).ok_or_else(|| fault(format!("query {query} is not in {place}")))?;
                let document = documents.get(document).ok_or_else(|| {
                    fault(format!("document {document} is not among those of query {query} in {place}"))
                })?;
                Ok::<_, CliError>(Side { query: text, document })
            };
            let query_b = ids.query_b.as_deref().unwrap_or(&ids.query);
            if (query_b, &ids.b) == (ids.query.as_str(), &ids.a) {
                return Err(fault(format!("document {} is compared with itself", ids.a)));
            }
            let sides = [side(&ids.query, &ids.a)?, side(query_b, &ids.b)?];
            if seen.insert(ids.clone()) {
                pairs.push((ids, sides));
            } else {
                repeated += 1;
            }
        }
        if pairs.is_empty() {
            return Err(CliError::Input(format!("{}: no pair in it", self.pairs.display())));
        }
        Ok((pairs, repeated))
    }

    fn judge(
        &self,
        spec: &Spec,
        (pool, items): (&Pool, &[Item<'_>]),
        scales: &mut HashMap<String, f64>,
        global: Global,
    ) -> Result<Box<dyn Judge>> {
        let mut load = LoadOptions::new().precision(self.precision);
        if let Some(max_length) = self.max_length {
            load = load.max_length(max_length);
        }
        let mut known = Vec::new();
        let scorer = match &spec.kind {
            Kind::Chat { base, model } => return self.chat(&spec.name, base, model),
            Kind::Labels => {
                let labels = pool.queries.iter().flat_map(|query| {
                    let labelled =
                        |d: &pool::Document| Some(((query.id.clone(), d.id.clone()), i64::from(d.label?)));
                    query.documents.iter().filter_map(labelled).collect::<Vec<_>>()
                });
                return Ok(Box::new(LabelJudge::new(&spec.name, labels.collect())));
            }
            Kind::Simulated(scale, bias) => {
                let judge = SimulatedJudge::new(&spec.name, self.seed).scale(*scale).bias(*bias);
                return Ok(Box::new(if self.hard { judge.hard() } else { judge }));
            }
            Kind::Cross(name) => {
                Scorer::Cross(Box::new(model::load(name, load.without_calibration(), global)?))
            }
            Kind::Bi(name) => Scorer::Bi(Box::new(model::bi_encoder(name, load, global)?)),
            Kind::Index(path) => {
                let path = Path::new(path);
                let index = Index::open(path)?;
                let rows: HashMap<&str, u32> =
                    (0..index.len() as u32).map(|document| (index.id(document), document)).collect();
                for document in pool.queries.iter().flat_map(|query| &query.documents) {
                    if let Some(&row) = rows.get(document.id.as_str()) {
                        known.push((document.text.as_str(), index.vector(row)?.to_vec()));
                    }
                }
                Scorer::Bi(Box::new(model::of_index((path, &index), None, global)?))
            }
        };
        let judge = LocalJudge::new(&spec.name, scorer, self.hard)?.knowing(known.into_iter());
        let judge = match self.scale {
            Some(scale) => judge.scale(scale),
            None => judge.fit_scale(items)?,
        };
        if let Some(scale) = judge.scale_in_use() {
            scales.insert(spec.name.clone(), scale);
        }
        Ok(Box::new(judge))
    }

    fn chat(&self, name: &str, base: &str, model: &str) -> Result<Box<dyn Judge>> {
        let mut options = ChatOptions::new(base, model);
        name.clone_into(&mut options.name);
        options.ask = match self.ask {
            AskArgument::Score => Ask::Score,
            AskArgument::Reasons => Ask::Reasons,
            AskArgument::Letter => Ask::Letter,
        };
        options.client.response_format = match self.response_format {
            FormatArgument::JsonSchema => ResponseFormat::JsonSchema,
            FormatArgument::JsonObject => ResponseFormat::JsonObject,
            FormatArgument::None => ResponseFormat::None,
        };
        options.hard = self.hard;
        options.answer_tokens = self.answer_tokens;
        options.client.temperature = self.temperature;
        options.max_chars = self.max_chars;
        options.client.timeout = Duration::from_secs(self.timeout);
        options.client.attempts = self.attempts;
        options.client.concurrency = self.concurrency.into();
        match for_judge(&self.price, name) {
            Some(text) => options.client.price = price(text)?,
            None if self.max_cost.is_some() => {
                let problem =
                    format!("--max-cost needs the price of {name}: --price IN/OUT for a million tokens");
                return Err(CliError::Input(problem));
            }
            None => {}
        }
        if let Some(variable) = for_judge(&self.api_key_env, name) {
            options.client.key = Some(ApiKey::from_env(variable).map_err(CliError::Input)?);
        }
        Ok(Box::new(ChatJudge::new(options)?))
    }

    fn print(&self, summary: &Summary<'_>) -> Result<()> {
        let mut output = Output::new();
        if self.json {
            output.json(summary)?;
            return output.flush();
        }
        for of in &summary.judges {
            let Tally { votes, abstentions, unanswered, ties, first_share, both_orders, agreeing } = of.tally;
            let mut line = format!("{}: {votes} votes, {ties} of them ties", printable(of.judge));
            if abstentions > 0 {
                line += &format!(", {abstentions} abstentions");
            }
            if unanswered > 0 {
                line += &format!(", {unanswered} without an answer");
            }
            if let Some(share) = first_share {
                line += &format!("; share of what is shown first {share:.3}");
            }
            if both_orders > 0 {
                line += &format!("; {agreeing} of {both_orders} pairs the same in both orders");
            }
            if of.prompt_tokens > 0 {
                line += &format!("; {} + {} tokens", of.prompt_tokens, of.completion_tokens);
            }
            if of.cost > 0.0 {
                line += &format!(", cost {:.4}", of.cost);
            }
            if let Some(scale) = of.scale {
                line += &format!("; scale {scale}");
            }
            output.line(line)?;
        }
        output.flush()?;
        if summary.repeated > 0 {
            say(format_args!(
                "{} pairs stand in {} more than once; asked once",
                summary.repeated,
                shown(&self.pairs)
            ));
        }
        Ok(())
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// The value for this judge, else the one for all.
fn for_judge<'a>(values: &'a [String], name: &str) -> Option<&'a str> {
    let own =
        |value: &'a String| value.split_once('=').filter(|(judge, _)| *judge == name).map(|(_, value)| value);
    let of_all = || values.iter().rfind(|value| !value.contains('=')).map(String::as_str);
    values.iter().rev().find_map(own).or_else(of_all)
}

fn price(text: &str) -> Result<Price> {
    let number = |text: &str| text.parse::<f64>().ok().filter(|value| value.is_finite() && *value >= 0.0);
    text.split_once('/')
        .and_then(|(input, output)| Some(Price { input: number(input)?, output: number(output)? }))
        .ok_or_else(|| CliError::Input(format!("--price {text}: two numbers are wanted, as in 0.15/0.6")))
}

/// What stands beside the bar.
fn message(progress: &Progress, elapsed: Duration) -> String {
    let speed = progress.asked as f64 / elapsed.as_secs_f64().max(1e-3);
    let mut text = format!("votes, {speed:.1}/s");
    if progress.abstained > 0 {
        text += &format!(", {} abstentions", progress.abstained);
    }
    if progress.usage.tokens() > 0 {
        text += &format!(", {} tokens", progress.usage.tokens());
    }
    if progress.usage.cost > 0.0 {
        text += &format!(", cost {:.4}", progress.usage.cost);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judges_are_read_as_they_are_written() {
        let parse = |text: &str| text.parse::<Spec>();
        let chat = |base: &str, model: &str| Kind::Chat { base: base.into(), model: model.into() };
        let found = parse("http://localhost:8080/v1#org/qwen:3=x").unwrap();
        assert_eq!(
            found,
            Spec { name: "qwen:3=x".into(), kind: chat("http://localhost:8080/v1", "org/qwen:3=x") }
        );
        assert_eq!(
            parse("big=https://h/v1#m").unwrap(),
            Spec { name: "big".into(), kind: chat("https://h/v1", "m") }
        );
        assert_eq!(parse("a/b=c/").unwrap(), Spec { name: "b=c".into(), kind: Kind::Cross("a/b=c/".into()) });
        assert_eq!(
            parse("v=bi:models/x").unwrap(),
            Spec { name: "v".into(), kind: Kind::Bi("models/x".into()) }
        );
        assert_eq!(parse("default").unwrap().kind, Kind::Cross("default".into()));
        for wrong in ["", "bi:", "x=", "https://h/v1", "https://h/v1#", "=default"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_value_for_one_judge_goes_before_that_for_all() {
        let values = ["1/2", "a=3/4"].map(String::from);
        assert_eq!((for_judge(&values, "a"), for_judge(&values, "b")), (Some("3/4"), Some("1/2")));
        assert_eq!(for_judge(&values[1..], "b"), None);
        assert_eq!(price("0.15/0.6").unwrap(), Price { input: 0.15, output: 0.6 });
        assert!(["", "1", "1/x", "-1/2", "nan/1"].iter().all(|text| price(text).is_err()));
    }
}
