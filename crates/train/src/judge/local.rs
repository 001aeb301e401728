//! A model of this program as judge: it scores each document by itself, and compares the scores.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jointly::{BiEncoder, CrossEncoder, Pair, Role, ScoreOptions};

use super::{Ballot, Error, Halt, Item, Judge, Ledger, Question, Result, Side, digest, short_hash};

/// Pairs between two looks at whether to stop: enough that the queries of a bi-encoder fill a batch.
const BLOCK: usize = 512;
/// Pairs from which the scale is found.
const SAMPLE: usize = 256;
/// What the typical difference of two scores becomes, in logits: a vote of 0.88.
const TYPICAL_LOGIT: f64 = 2.0;

/// What gives scores.
pub enum Scorer {
    /// Reads query and document together; its logits are compared.
    Cross(Box<CrossEncoder>),
    /// Compares two vectors by their product.
    Bi(Box<BiEncoder>),
}

/// A cross-encoder or a bi-encoder as judge. Its vote is `sigma(scale * (score of b - score of a))`.
pub struct LocalJudge {
    name: String,
    scorer: Scorer,
    identity: String,
    scale: f64,
    hard: bool,
    /// Score of each query and document, and whether a part of it was not read.
    scores: Mutex<HashMap<Key, (f64, bool)>>,
    vectors: Vectors,
}

/// What a bi-encoder gave for documents: the pools of many queries share them.
type Vectors = Mutex<HashMap<Key, Vec<f32>>>;

type Key = [u8; 16];

fn key(side: &Side<'_>) -> Key {
    digest(&[side.query, side.document])
}

impl LocalJudge {
    /// With hard votes only who wins counts, and the scale does not matter.
    ///
    /// # Errors
    /// [`Error::Model`], if the model's files cannot be read.
    pub fn new(name: impl Into<String>, scorer: Scorer, hard: bool) -> Result<Self> {
        let name = name.into();
        let identity = scorer
            .identity()
            .map_err(|source| Error::Model { judge: name.clone(), source: Box::new(source) })?;
        let (scores, vectors) = (Mutex::default(), Mutex::default());
        Ok(Self { name, scorer, identity, scale: 1.0, hard, scores, vectors })
    }

    /// Takes the vectors of these documents as they are: a bi-encoder made them before.
    #[must_use]
    pub fn knowing<'a>(mut self, documents: impl Iterator<Item = (&'a str, Vec<f32>)>) -> Self {
        let known = self.vectors.get_mut().unwrap_or_else(PoisonError::into_inner);
        known.extend(documents.map(|(text, vector)| (digest(&[text]), vector)));
        self
    }

    /// Multiplies differences of scores by this number.
    #[must_use]
    pub fn scale(mut self, scale: f64) -> Self {
        self.scale = scale;
        self
    }

    /// Finds a scale by which the typical difference (root mean square) of two documents of a query is 2, so that a vote
    /// for it is 0.88. It looks at 256 of the pairs at most, evenly spread.
    ///
    /// # Errors
    /// [`Error::Model`]; [`Error::Options`] if all scores are the same.
    pub fn fit_scale(mut self, items: &[Item<'_>]) -> Result<Self> {
        if self.hard {
            return Ok(self);
        }
        let mut own: Vec<&Item<'_>> = items.iter().filter(|item| item.ids.query_b.is_none()).collect();
        if own.is_empty() {
            own = items.iter().collect();
        }
        let step = own.len().div_ceil(SAMPLE).max(1);
        let sample: Vec<&Item<'_>> = own.into_iter().step_by(step).collect();
        if sample.is_empty() {
            return Ok(self);
        }
        let scores = self.scores_of(&sample.iter().flat_map(|item| [item.a, item.b]).collect::<Vec<_>>())?;
        let squares: f64 = scores.chunks_exact(2).map(|pair| (pair[1].0 - pair[0].0).powi(2)).sum();
        let typical = (squares / sample.len() as f64).sqrt();
        if typical < 1e-12 {
            let problem =
                "it gives all documents the same score; --scale sets a scale all the same".to_owned();
            return Err(Error::Options { judge: self.name, problem });
        }
        // Few digits: they are part of what the votes depend on.
        let scale = TYPICAL_LOGIT / typical;
        let digits = 10_f64.powi(3 - scale.log10().floor() as i32);
        self.scale = (scale * digits).round() / digits;
        Ok(self)
    }

    /// The factor in use; none for hard votes.
    pub fn scale_in_use(&self) -> Option<f64> {
        (!self.hard).then_some(self.scale)
    }

    /// The scores of these, each computed once.
    fn scores_of(&self, sides: &[Side<'_>]) -> Result<Vec<(f64, bool)>> {
        let mut known = self.scores.lock().unwrap_or_else(PoisonError::into_inner);
        let keys: Vec<Key> = sides.iter().map(key).collect();
        let mut missing: Vec<(Key, Side<'_>)> = Vec::new();
        for (key, side) in keys.iter().zip(sides) {
            if !known.contains_key(key) && !missing.iter().any(|(other, _)| other == key) {
                missing.push((*key, *side));
            }
        }
        let sides: Vec<Side<'_>> = missing.iter().map(|(_, side)| *side).collect();
        let computed = self.scorer.score(&sides, &self.vectors);
        let computed =
            computed.map_err(|source| Error::Model { judge: self.name.clone(), source: Box::new(source) })?;
        known.extend(missing.into_iter().map(|(key, _)| key).zip(computed));
        Ok(keys.iter().filter_map(|key| known.get(key).copied()).collect())
    }
}

impl Scorer {
    fn score(&self, sides: &[Side<'_>], vectors: &Vectors) -> jointly::Result<Vec<(f64, bool)>> {
        match self {
            Self::Cross(model) => {
                let pairs: Vec<Pair<'_>> =
                    sides.iter().map(|side| Pair { query: side.query, document: side.document }).collect();
                let scores = model.score_pairs_with(&pairs, &ScoreOptions::new())?;
                Ok(scores.iter().map(|score| (f64::from(score.logit), score.truncated)).collect())
            }
            Self::Bi(model) => {
                let queries = model.embed(&unique(sides.iter().map(|side| side.query)), Role::Query)?;
                let places = places(sides.iter().map(|side| side.query));
                let mut known = vectors.lock().unwrap_or_else(PoisonError::into_inner);
                let mut texts = unique(sides.iter().map(|side| side.document));
                texts.retain(|text| !known.contains_key(&digest(&[text])));
                let documents = model.embed(&texts, Role::Document)?;
                known.extend(
                    texts
                        .iter()
                        .enumerate()
                        .map(|(row, text)| (digest(&[text]), documents.row(row).to_vec())),
                );
                let product = |side: &Side<'_>| {
                    let query = queries.row(places.get(side.query).copied().unwrap_or_default());
                    let document = known.get(&digest(&[side.document])).map_or(&[][..], Vec::as_slice);
                    let sum: f64 =
                        query.iter().zip(document).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                    // What lies beyond a vector's longest text is not told.
                    (sum, false)
                };
                Ok(sides.iter().map(product).collect())
            }
        }
    }

    fn identity(&self) -> jointly::Result<String> {
        let (files, max_length, precision) = match self {
            Self::Cross(model) => (model.files(), model.info().max_length, model.info().precision),
            Self::Bi(model) => (model.files(), model.info().max_length, model.info().precision),
        };
        Ok(format!("{} {max_length} {precision}", jointly::receipt::identity(files)?))
    }
}

fn places<'a>(texts: impl Iterator<Item = &'a str>) -> HashMap<&'a str, usize> {
    let mut places = HashMap::new();
    for text in texts {
        let next = places.len();
        places.entry(text).or_insert(next);
    }
    places
}

fn unique<'a>(texts: impl Iterator<Item = &'a str> + Clone) -> Vec<&'a str> {
    let places = places(texts);
    let mut all: Vec<(&str, usize)> = places.into_iter().collect();
    all.sort_unstable_by_key(|(_, place)| *place);
    all.into_iter().map(|(text, _)| text).collect()
}

/// The vote of one who only says who wins.
pub(crate) fn hard(difference: f64) -> f64 {
    match difference.partial_cmp(&0.0) {
        Some(std::cmp::Ordering::Greater) => 1.0,
        Some(std::cmp::Ordering::Less) => 0.0,
        _ => 0.5,
    }
}

impl Judge for LocalJudge {
    fn name(&self) -> &str {
        &self.name
    }

    fn settings(&self) -> String {
        let scale = self.scale_in_use().map_or_else(|| "hard".to_owned(), |scale| scale.to_string());
        short_hash(&["local", &self.identity, &scale], 12)
    }

    fn reads_in_order(&self) -> bool {
        false
    }

    fn appetite(&self) -> (usize, usize) {
        (BLOCK, 1)
    }

    fn ask(&self, questions: &[Question<'_>], _: &Ledger, halt: &Halt<'_>) -> Result<Vec<Ballot>> {
        if halt.is_wanted() {
            return Err(Error::Interrupted);
        }
        let sides: Vec<Side<'_>> = questions.iter().flat_map(|question| [question.a, question.b]).collect();
        let scores = self.scores_of(&sides)?;
        let ballot = |pair: &[(f64, bool)]| {
            let difference = pair[1].0 - pair[0].0;
            let vote =
                if self.hard { hard(difference) } else { 1.0 / (1.0 + (-self.scale * difference).exp()) };
            let cut = pair.iter().map(|(_, truncated)| u32::from(*truncated)).sum();
            Ballot { vote: Some(vote), cut, ..Ballot::default() }
        };
        Ok(scores.chunks_exact(2).map(ballot).collect())
    }
}
