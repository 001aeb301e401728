//! Cascades from files, over models of this machine; and what is said about what they did.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use jointly::rank::listwise::quote::digest;
use jointly::rank::{Cascade, CrossScorer, Guarantee, Outcome, Scorer, Stage, StageReport};
use jointly::{BiEncoder, CrossEncoder, LoadOptions, Role, Score, ScoreOptions, ScoreScale};
use jointly_cascade::{CascadeFile, ModelSpec, Models, OtherSpec, SharedScorer};
use jointly_chat::ListwiseSpec;
use serde::Serialize;

use crate::Global;
use crate::error::{CliError, Result};
use crate::input;
use crate::model;

/// Reads a file of a cascade.
pub fn read(path: &Path) -> Result<CascadeFile> {
    Ok(CascadeFile::parse(&path.display().to_string(), &input::whole(path)?)?)
}

/// Reads a file and loads its models.
pub fn load(path: &Path, long: &ScoreOptions, global: Global) -> Result<Cascade<'static>> {
    let mut models = LocalModels::new(long, global);
    read(path)?.build(&mut models)
}

/// Models that are loaded once, however many stages name them.
pub struct LocalModels {
    /// What holds for all stages: windows, for example.
    long: ScoreOptions,
    global: Global,
    cross: HashMap<(String, Option<jointly::Precision>), Arc<CrossEncoder>>,
    bi: HashMap<String, Arc<BiEncoder>>,
}

impl LocalModels {
    pub fn new(long: &ScoreOptions, global: Global) -> Self {
        Self { long: long.clone(), global, cross: HashMap::new(), bi: HashMap::new() }
    }
}

impl Models for LocalModels {
    type Error = CliError;

    fn scorer(&mut self, spec: &ModelSpec) -> Result<SharedScorer> {
        if let Some(name) = spec.model.strip_prefix("bi:") {
            return self.vectors(name, spec);
        }
        let precision = spec.precision.precision();
        let key = (spec.model.clone(), precision);
        let model = match self.cross.get(&key) {
            Some(model) => Arc::clone(model),
            None => {
                let options = match precision {
                    Some(precision) => LoadOptions::new().precision(precision),
                    None => LoadOptions::new().auto_precision(),
                };
                let model = Arc::new(model::load(&spec.model, options, self.global)?);
                self.cross.insert(key, Arc::clone(&model));
                model
            }
        };
        let mut options = self.long.clone();
        if let Some(max_length) = spec.max_length {
            options = options.max_length(max_length.min(model.info().max_length));
        }
        if let Some(instruction) = &spec.instruction {
            options = options.instruction(instruction);
        }
        Ok(Arc::new(CrossScorer::new(model, options)))
    }

    fn bi_encoder(&mut self, name: &str) -> Result<Arc<BiEncoder>> {
        if let Some(model) = self.bi.get(name) {
            return Ok(Arc::clone(model));
        }
        let (files, _) = model::find_bi_encoder(name, self.global)?;
        let model = Arc::new(model::load_bi_encoder(files, LoadOptions::new(), self.global)?);
        self.bi.insert(name.to_string(), Arc::clone(&model));
        Ok(model)
    }

    /// The stage that asks a language model. Nothing ends it from outside but the end of the process.
    fn other(&mut self, spec: &OtherSpec) -> Result<Option<Box<dyn Stage + Send>>> {
        static GO_ON: AtomicBool = AtomicBool::new(false);
        if spec.kind != "listwise" {
            return Ok(None);
        }
        let wrong = |problem: String| CliError::Input(format!("a stage of the kind listwise: {problem}"));
        let spec: ListwiseSpec = spec
            .table
            .clone()
            .try_into()
            .map_err(|error: toml::de::Error| wrong(error.message().to_string()))?;
        Ok(Some(Box::new(spec.build(&GO_ON).map_err(wrong)?)))
    }
}

impl LocalModels {
    /// A bi-encoder as a stage: the product of two vectors. Vectors of documents are kept for the next query.
    fn vectors(&mut self, name: &str, spec: &ModelSpec) -> Result<SharedScorer> {
        if spec.instruction.is_some() {
            return Err(CliError::Input(format!("bi:{name}: a bi-encoder takes no instruction")));
        }
        let mut options = LoadOptions::new();
        options = match spec.precision.precision() {
            Some(precision) => options.precision(precision),
            None => options.auto_precision(),
        };
        if let Some(max_length) = spec.max_length {
            options = options.max_length(max_length);
        }
        let (files, _) = model::find_bi_encoder(name, self.global)?;
        let model = model::load_bi_encoder(files, options, self.global)?;
        Ok(Arc::new(Vectors { model, known: Mutex::default() }))
    }
}

/// Documents of so many texts are kept; then all are forgotten, which costs time and nothing else.
const MOST_VECTORS: usize = 1 << 16;

/// See [`LocalModels::vectors`].
struct Vectors {
    model: BiEncoder,
    known: Mutex<HashMap<[u8; 16], Arc<Vec<f32>>>>,
}

impl Scorer for Vectors {
    fn scale(&self) -> ScoreScale {
        ScoreScale::Ordinal
    }

    fn score(&self, query: &str, documents: &[&str]) -> jointly::Result<Vec<Score>> {
        let keys: Vec<[u8; 16]> = documents.iter().map(|text| digest(&[text])).collect();
        let mut known: Vec<Option<Arc<Vec<f32>>>> = {
            let all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            keys.iter().map(|key| all.get(key).cloned()).collect()
        };
        let todo: Vec<usize> = (0..keys.len()).filter(|&place| known[place].is_none()).collect();
        let texts: Vec<&str> = todo.iter().map(|&place| documents[place]).collect();
        let embedded = self.model.embed(&texts, Role::Document)?;
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() + todo.len() > MOST_VECTORS {
            all.clear();
        }
        for (row, &place) in todo.iter().enumerate() {
            let vector = Arc::new(embedded.row(row).to_vec());
            all.insert(keys[place], Arc::clone(&vector));
            known[place] = Some(vector);
        }
        drop(all);
        let asked = self.model.embed(&[query], Role::Query)?;
        let tokens = self.model.encode(query, Role::Query)?.input_ids.len();
        let score = |vector: &Option<Arc<Vec<f32>>>| {
            let vector = vector.as_ref().map_or(&[][..], |vector| vector.as_slice());
            let product: f32 = asked.row(0).iter().zip(vector).map(|(a, b)| a * b).sum();
            Score {
                logit: product,
                score: product,
                probability: None,
                tokens,
                truncated: false,
                windows: 1,
                span: None,
            }
        };
        Ok(known.iter().map(score).collect())
    }
}

/// What a stage did, as it is printed; the names are part of the interface.
#[derive(Serialize)]
pub struct StageRow {
    pub name: String,
    pub incoming: usize,
    pub read: usize,
    pub kept: usize,
    pub ms: f64,
    pub pairs: u64,
    pub tokens: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub usd: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guarantee: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives references")]
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

impl From<&StageReport> for StageRow {
    fn from(report: &StageReport) -> Self {
        Self {
            name: report.name.clone(),
            incoming: report.incoming,
            read: report.read,
            kept: report.kept,
            ms: (report.elapsed.as_secs_f64() * 1e6).round() / 1e3,
            pairs: report.spent.pairs,
            tokens: report.spent.tokens,
            usd: report.spent.usd,
            stop: report.stop.map(jointly::rank::Stop::name),
            guarantee: report.guarantee.as_ref().map(in_words),
            notes: report.notes.clone(),
        }
    }
}

/// What an answer promises, in a sentence.
fn in_words(guarantee: &Guarantee) -> String {
    match guarantee {
        Guarantee::Settled { top_n } => {
            format!("proven: no document that was not read can be among the first {top_n}")
        }
        Guarantee::SameTop { top_n, slack, confidence, confirmed } => {
            let sure = confidence.map_or("if the slack is enough".to_string(), |confidence| {
                format!("with a probability of {:.4} for queries like the audited ones", confidence)
            });
            format!(
                "the first {top_n} are those of the exact model, {sure} (slack {slack}, {confirmed} confirmed)"
            )
        }
        Guarantee::Heuristic { rule } => format!("a guess: {rule}"),
        _ => "see the library".to_string(),
    }
}

/// For people: a line for each stage, and why it ended early.
pub fn report(outcome: &Outcome) -> Vec<String> {
    let rows: Vec<StageRow> = outcome.stages.iter().map(StageRow::from).collect();
    let width = rows.iter().map(|row| console::measure_text_width(&row.name)).max().unwrap_or(0);
    let mut lines = Vec::new();
    for row in rows {
        let name = console::pad_str(&row.name, width, console::Alignment::Left, None);
        let StageRow { incoming, read, kept, ms, tokens, usd, .. } = row;
        let mut line =
            format!("{name}  {incoming} in, {read} read, {kept} kept, {ms:.1} ms, {tokens} tokens");
        if usd > 0.0 {
            line.push_str(&format!(", ${usd:.6}"));
        }
        if let Some(stop) = row.stop {
            line.push_str(&format!("; ended early: {stop}"));
        }
        for note in row.guarantee.iter().chain(&row.notes) {
            line.push_str(&format!("; {note}"));
        }
        lines.push(line);
    }
    lines
}
