//! What stands in a file.

use std::time::Duration;

use jointly::Precision;
use jointly::rank::Budget;
use serde::Deserialize;
use serde::de::Error as _;
use toml::{Table, Value};

use crate::Error;

/// A cascade as it is written.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CascadeFile {
    /// What it is called in messages.
    pub name: String,
    /// What a query may cost.
    pub budget: BudgetSpec,
    /// The stages, in their order.
    pub stages: Vec<StageSpec>,
}

/// What a query may cost.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct BudgetSpec {
    /// Milliseconds.
    pub ms: Option<f64>,
    /// Tokens read and written by models.
    pub tokens: Option<u64>,
    /// US dollars.
    pub usd: Option<f64>,
}

/// One stage.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum StageSpec {
    /// Read, score, sort, keep the best.
    Rescore(Box<RescoreSpec>),
    /// Screen with a cheap model or precision, confirm with the exact one.
    Confirm(Box<ConfirmSpec>),
    /// Maximal marginal relevance.
    Mmr(DiversitySpec),
    /// A determinantal point process.
    Dpp(DiversitySpec),
    /// Cover the sub-queries of the request.
    Xquad(Box<XquadSpec>),
    /// Near-duplicate removal.
    Distinct(DistinctSpec),
    /// Compare the first two by two.
    Duo(Box<DuoSpec>),
    /// Read all of them together.
    OnePass(Box<OnePassSpec>),
    /// A kind that this crate does not know; whoever builds the cascade may.
    Other(OtherSpec),
}

impl StageSpec {
    /// The models that score for it, in the order in which [`CascadeFile::build`] asks [`Models`](crate::Models) for their scorers.
    #[must_use]
    pub fn models(&self) -> Vec<&ModelSpec> {
        match self {
            Self::Rescore(spec) => vec![&spec.model],
            Self::Confirm(spec) => vec![&spec.screen, &spec.model],
            Self::Xquad(spec) => vec![&spec.model],
            Self::Duo(spec) => vec![&spec.model],
            _ => Vec::new(),
        }
    }
}

/// A model, and how it reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[non_exhaustive]
pub struct ModelSpec {
    /// A folder, a bundle, a hub id, or `default`.
    pub model: String,
    /// What its layers multiply in.
    #[serde(default)]
    pub precision: PrecisionSpec,
    /// The longest pair in tokens.
    pub max_length: Option<usize>,
    /// What to look for, for models whose template takes an instruction.
    pub instruction: Option<String>,
}

/// What the layers of a model multiply in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PrecisionSpec {
    /// The fastest that the model's receipt certifies.
    Auto,
    /// This one.
    Exactly(Precision),
    /// Nothing is said: f32.
    #[default]
    Unsaid,
}

impl PrecisionSpec {
    /// None is `auto`.
    #[must_use]
    pub fn precision(self) -> Option<Precision> {
        match self {
            Self::Auto => None,
            Self::Exactly(precision) => Some(precision),
            Self::Unsaid => Some(Precision::F32),
        }
    }
}

impl<'de> Deserialize<'de> for PrecisionSpec {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        if name == "auto" {
            return Ok(Self::Auto);
        }
        let found = Precision::ALL.into_iter().find(|precision| precision.name() == name);
        found
            .map(Self::Exactly)
            .ok_or_else(|| D::Error::custom(format!("precision {name:?}: it is auto, f32, bf16 or int8")))
    }
}

/// See [`Rescore`](jointly::rank::Rescore).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RescoreSpec {
    /// The model.
    pub model: ModelSpec,
    /// What it is called in reports.
    pub name: Option<String>,
    /// How many it reads.
    pub depth: Option<usize>,
    /// How many it keeps.
    pub keep: Option<usize>,
    /// What it orders by.
    pub blend: Option<BlendSpec>,
    /// The weight of the model when it interpolates.
    pub weight: Option<f64>,
    /// When it may end early.
    pub early_stop: Option<EarlyStopSpec>,
    /// Of the early stop: how many of the first must stay.
    pub top_n: Option<usize>,
    /// Of an early stop on no change: how many batches.
    pub patience: Option<usize>,
    /// Keeps only what is relevant with this probability.
    pub min_probability: Option<f64>,
    /// Keeps only what has this score.
    pub min_score: Option<f64>,
    /// Keeps so many in any case.
    pub min_keep: Option<usize>,
    /// Pairs at a time.
    pub batch_pairs: Option<usize>,
    /// The price of the model.
    pub usd_per_million_tokens: Option<f64>,
}

/// What a stage orders by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum BlendSpec {
    /// The model alone.
    Model,
    /// The model and the first stage's score.
    Interpolate,
    /// The model's order and the first stage's.
    Rrf,
}

/// When a stage may end early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum EarlyStopSpec {
    /// When nothing left can reach the first `top_n`.
    Proven,
    /// When the first `top_n` have not changed for some batches.
    Unchanged,
}

/// What of the exact model's first documents stays; see [`Same`](jointly::rank::Same).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SameSpec {
    /// They and their order.
    #[default]
    Order,
    /// They, in any order.
    Set,
}

/// See [`Confirm`](jointly::rank::Confirm).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ConfirmSpec {
    /// The exact model.
    pub model: ModelSpec,
    /// The model that screens; the same model, if nothing else is said.
    pub screen: ModelSpec,
    /// What it is called in reports.
    pub name: Option<String>,
    /// How many of the first are to be the exact model's.
    pub top_n: usize,
    /// Whether in its order.
    pub same: SameSpec,
    /// How far from the cut documents are confirmed, in logits.
    pub slack: f64,
    /// How likely that is enough.
    pub confidence: Option<f64>,
    /// How many it screens.
    pub depth: Option<usize>,
    /// How many it keeps.
    pub keep: Option<usize>,
}

/// See [`Mmr`](jointly::rank::Mmr) and [`Dpp`](jointly::rank::Dpp).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct DiversitySpec {
    /// 1 is relevance alone, 0 diversity alone.
    #[serde(default = "usual_lambda")]
    pub lambda: f64,
    /// How many it keeps.
    pub keep: usize,
    /// What says how alike documents are.
    #[serde(default)]
    pub similarity: SimilaritySpec,
    /// Takes any values as relevance, between their smallest and largest.
    #[serde(default)]
    pub min_max: bool,
    /// What it is called in reports.
    pub name: Option<String>,
}

fn usual_lambda() -> f64 {
    0.7
}

/// What says how alike documents are: `shingles`, `shingles:N` (words in a run), or `bi:MODEL`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SimilaritySpec {
    /// Runs of so many words.
    Shingles(usize),
    /// The vectors of a bi-encoder.
    Bi(String),
}

impl Default for SimilaritySpec {
    fn default() -> Self {
        Self::Shingles(3)
    }
}

impl<'de> Deserialize<'de> for SimilaritySpec {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.split_once(':') {
            None if text == "shingles" => Ok(Self::default()),
            Some(("shingles", words)) if words.parse::<usize>().is_ok_and(|words| words > 0) => {
                Ok(Self::Shingles(words.parse().unwrap_or(1)))
            }
            Some(("bi", model)) if !model.is_empty() => Ok(Self::Bi(model.into())),
            _ => {
                Err(D::Error::custom(format!("similarity {text:?}: it is shingles, shingles:N or bi:MODEL")))
            }
        }
    }
}

/// See [`Xquad`](jointly::rank::Xquad).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct XquadSpec {
    /// Reads each document with each sub-query.
    pub model: ModelSpec,
    /// 1 is relevance alone.
    pub lambda: f64,
    /// How many it keeps.
    pub keep: usize,
    /// What it is called in reports.
    pub name: Option<String>,
}

/// See [`Distinct`](jointly::rank::Distinct).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct DistinctSpec {
    /// From here on documents are duplicates.
    #[serde(default = "usual_limit")]
    pub limit: f64,
    /// What says how alike documents are.
    #[serde(default)]
    pub similarity: SimilaritySpec,
    /// What it is called in reports.
    pub name: Option<String>,
}

fn usual_limit() -> f64 {
    0.8
}

/// See [`Duo`](jointly::rank::Duo) and [`DuoScorer`](jointly::rank::DuoScorer).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DuoSpec {
    /// Reads two documents as one text.
    pub model: ModelSpec,
    /// What it is called in reports.
    pub name: Option<String>,
    /// How many of the first are compared; they are kept.
    pub depth: usize,
    /// How preferences become one order.
    pub aggregate: AggregateSpec,
    /// Where the documents stand in the text.
    pub template: Option<String>,
    /// Each document is cut to so many characters.
    pub max_chars: usize,
    /// Pairs at a time.
    pub batch_pairs: Option<usize>,
}

/// Two of them fit into 512 tokens of English.
fn usual_max_chars() -> usize {
    1000
}

/// How preferences become one order; see [`Aggregate`](jointly::rank::Aggregate).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AggregateSpec {
    /// A Thurstone fit.
    #[default]
    Thurstone,
    /// Their sum.
    Sum,
}

/// See [`OnePass`](jointly::rank::listwise::OnePass).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct OnePassSpec {
    /// The model, and what to look for; its `max_length` is of a whole list.
    pub model: ModelSpec,
    /// What it is called in reports.
    pub name: Option<String>,
    /// How many it reads.
    pub depth: Option<usize>,
    /// How many it keeps.
    pub keep: Option<usize>,
    /// Most documents of one sequence.
    pub block: Option<usize>,
    /// A longer query is cut.
    pub max_query_tokens: Option<usize>,
    /// A longer document is cut.
    pub max_document_tokens: Option<usize>,
}

/// A stage of a kind that this crate does not know.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct OtherSpec {
    /// Its `kind`.
    pub kind: String,
    /// Its other keys.
    pub table: Table,
}

impl OtherSpec {
    /// Its keys, by whoever knows the kind.
    ///
    /// # Errors
    /// The key that is unknown, missing or of another type, in words.
    pub fn read<T: serde::de::DeserializeOwned>(&self) -> Result<T, String> {
        self.table.clone().try_into().map_err(|error: toml::de::Error| error.message().to_string())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    budget: BudgetSpec,
    #[serde(default)]
    stage: Vec<Table>,
}

impl CascadeFile {
    /// Reads the text of a file; `name` is what it is called in messages.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Stage`].
    pub fn parse(name: &str, text: &str) -> Result<Self, Error> {
        let fault = |problem: String| Error::File { file: name.to_string(), problem };
        let raw: Raw = toml::from_str(text)
            .map_err(|error| fault(error.to_string().trim_end().replace('\n', "\n  ")))?;
        let BudgetSpec { ms, tokens, usd } = raw.budget;
        for (key, value) in [("ms", ms), ("usd", usd)] {
            if let Some(value) = value.filter(|value| !(*value > 0.0 && value.is_finite())) {
                return Err(fault(format!("budget.{key}: {value}; it is a number above 0")));
            }
        }
        if tokens == Some(0) {
            return Err(fault("budget.tokens: 0; it is a number above 0".into()));
        }
        if raw.stage.is_empty() {
            return Err(fault("no stage in it: a stage begins with [[stage]]".into()));
        }
        let stages = raw.stage.into_iter().enumerate().map(|(place, table)| {
            stage(table).map_err(|problem| Error::Stage {
                file: name.to_string(),
                number: place + 1,
                problem,
            })
        });
        let stages: Vec<StageSpec> = stages.collect::<Result<_, _>>()?;
        if usd.is_some() && !stages.iter().any(may_cost) {
            return Err(fault(
                "budget.usd: no stage has a price, so it limits nothing; set usd_per_million_tokens of a rescore stage".into(),
            ));
        }
        Ok(Self { name: name.to_string(), budget: raw.budget, stages })
    }
}

/// Whether it has a price. What the keys of an unknown kind say is for whoever knows it.
fn may_cost(stage: &StageSpec) -> bool {
    match stage {
        StageSpec::Rescore(spec) => spec.usd_per_million_tokens.is_some_and(|usd| usd > 0.0),
        StageSpec::Other(_) => true,
        _ => false,
    }
}

impl BudgetSpec {
    /// For a cascade.
    #[must_use]
    pub fn budget(self) -> Budget {
        let mut budget = Budget::new();
        if let Some(time) = self.ms.and_then(|ms| Duration::try_from_secs_f64(ms / 1e3).ok()) {
            budget = budget.time(time);
        }
        if let Some(tokens) = self.tokens {
            budget = budget.tokens(tokens);
        }
        if let Some(usd) = self.usd {
            budget = budget.usd(usd);
        }
        budget
    }
}

fn stage(mut table: Table) -> Result<StageSpec, String> {
    let kind = match table.remove("kind") {
        None => "rescore".to_string(),
        Some(Value::String(kind)) => kind,
        Some(other) => return Err(format!("kind is {other}; it is a text")),
    };
    let mut keys = Keys { table, kind: kind.clone() };
    let spec = match kind.as_str() {
        "rescore" => StageSpec::Rescore(Box::new(rescore(&mut keys)?)),
        "confirm" => StageSpec::Confirm(Box::new(confirm(&mut keys)?)),
        "xquad" => StageSpec::Xquad(Box::new(XquadSpec {
            model: keys.model("")?.ok_or("model is missing")?,
            lambda: finite("lambda", keys.take("lambda")?)?.unwrap_or_else(usual_lambda),
            keep: keys.take("keep")?.ok_or("keep is missing")?,
            name: keys.take("name")?,
        })),
        "duo" => StageSpec::Duo(Box::new(duo(&mut keys)?)),
        "one-pass" => StageSpec::OnePass(Box::new(OnePassSpec {
            model: keys.model("")?.ok_or("model is missing")?,
            name: keys.take("name")?,
            depth: keys.take("depth")?,
            keep: keys.take("keep")?,
            block: keys.take("block")?,
            max_query_tokens: keys.take("max_query_tokens")?,
            max_document_tokens: keys.take("max_document_tokens")?,
        })),
        "mmr" => StageSpec::Mmr(diversity(&mut keys)?),
        "dpp" => StageSpec::Dpp(diversity(&mut keys)?),
        "distinct" => {
            let spec: DistinctSpec = keys.rest()?;
            finite("limit", Some(spec.limit))?;
            StageSpec::Distinct(spec)
        }
        _ => return Ok(StageSpec::Other(OtherSpec { kind, table: keys.table })),
    };
    match keys.table.keys().next() {
        Some(key) => Err(format!("{key} is no key of the kind {kind}")),
        None => Ok(spec),
    }
}

/// The keys of a stage that have not been read yet.
struct Keys {
    table: Table,
    kind: String,
}

impl Keys {
    fn take<T: serde::de::DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>, String> {
        let Some(value) = self.table.remove(key) else { return Ok(None) };
        value.try_into().map(Some).map_err(|error: toml::de::Error| format!("{key}: {}", error.message()))
    }

    /// Everything that is left.
    fn rest<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, String> {
        let table = std::mem::take(&mut self.table);
        table.try_into().map_err(|error: toml::de::Error| format!("{}: {}", self.kind, error.message()))
    }

    /// The model whose keys begin with this.
    fn model(&mut self, prefix: &str) -> Result<Option<ModelSpec>, String> {
        let key = |key: &str| format!("{prefix}{key}");
        let precision = self.take::<PrecisionSpec>(&key("precision"))?;
        let max_length = self.take(&key("max_length"))?;
        let instruction = self.take(&key("instruction"))?;
        let Some(model) = self.take(&key("model"))? else {
            return match precision.is_some() || max_length.is_some() || instruction.is_some() {
                true => Err(format!("{} is missing", key("model"))),
                false => Ok(None),
            };
        };
        Ok(Some(ModelSpec { model, precision: precision.unwrap_or_default(), max_length, instruction }))
    }
}

/// TOML knows nan and inf, with which no comparison means anything.
fn finite(key: &str, value: Option<f64>) -> Result<Option<f64>, String> {
    match value.filter(|value| !value.is_finite()) {
        Some(value) => Err(format!("{key}: {value}; it is a finite number")),
        None => Ok(value),
    }
}

fn diversity(keys: &mut Keys) -> Result<DiversitySpec, String> {
    let spec: DiversitySpec = keys.rest()?;
    finite("lambda", Some(spec.lambda))?;
    Ok(spec)
}

fn duo(keys: &mut Keys) -> Result<DuoSpec, String> {
    let spec = DuoSpec {
        model: keys.model("")?.ok_or("model is missing")?,
        name: keys.take("name")?,
        depth: keys.take("depth")?.ok_or("depth is missing: n documents are n (n - 1) readings")?,
        aggregate: keys.take("aggregate")?.unwrap_or_default(),
        template: keys.take("template")?,
        max_chars: keys.take("max_chars")?.unwrap_or_else(usual_max_chars),
        batch_pairs: keys.take("batch_pairs")?,
    };
    for (key, value, least) in [("depth", spec.depth, 2), ("max_chars", spec.max_chars, 1)] {
        if value < least {
            return Err(format!("{key}: {value}; at least {least} is needed"));
        }
    }
    Ok(spec)
}

fn rescore(keys: &mut Keys) -> Result<RescoreSpec, String> {
    let spec = RescoreSpec {
        model: keys.model("")?.ok_or("model is missing")?,
        name: keys.take("name")?,
        depth: keys.take("depth")?,
        keep: keys.take("keep")?,
        blend: keys.take("blend")?,
        weight: finite("weight", keys.take("weight")?)?,
        early_stop: keys.take("early_stop")?,
        top_n: keys.take("top_n")?,
        patience: keys.take("patience")?,
        min_probability: finite("min_probability", keys.take("min_probability")?)?,
        min_score: finite("min_score", keys.take("min_score")?)?,
        min_keep: keys.take("min_keep")?,
        batch_pairs: keys.take("batch_pairs")?,
        usd_per_million_tokens: keys.take("usd_per_million_tokens")?,
    };
    let interpolates = spec.blend == Some(BlendSpec::Interpolate);
    if interpolates != spec.weight.is_some() {
        return Err("blend = \"interpolate\" and weight go together".into());
    }
    if spec.early_stop.is_some() != spec.top_n.is_some() {
        return Err("early_stop and top_n go together".into());
    }
    if spec.patience.is_some() && spec.early_stop != Some(EarlyStopSpec::Unchanged) {
        return Err("patience is for early_stop = \"unchanged\"".into());
    }
    if let Some(usd) = spec.usd_per_million_tokens.filter(|usd| !(*usd >= 0.0 && usd.is_finite())) {
        return Err(format!("usd_per_million_tokens: {usd}; it is a number from 0"));
    }
    Ok(spec)
}

fn confirm(keys: &mut Keys) -> Result<ConfirmSpec, String> {
    let screen_precision = keys.take::<PrecisionSpec>("screen_precision")?;
    let screen_model: Option<String> = keys.take("screen_model")?;
    let model = keys.model("")?.ok_or("model is missing")?;
    let screen = ModelSpec {
        model: screen_model.unwrap_or_else(|| model.model.clone()),
        precision: screen_precision.unwrap_or_default(),
        ..model.clone()
    };
    if screen == model {
        return Err(
            "the screen is the model itself; screen_precision or screen_model says what differs".into()
        );
    }
    Ok(ConfirmSpec {
        model,
        screen,
        name: keys.take("name")?,
        top_n: keys.take("top_n")?.unwrap_or(10),
        same: keys.take("same")?.unwrap_or_default(),
        slack: finite("slack", keys.take("slack")?)?.ok_or("slack is missing; jointly audit measures it")?,
        confidence: finite("confidence", keys.take("confidence")?)?,
        depth: keys.take("depth")?,
        keep: keys.take("keep")?,
    })
}
