//! How alike documents are: by their words, by their vectors, or as the caller says.

use std::borrow::Borrow;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::bi_encoder::{BiEncoder, Role};
use crate::error::Result;

use super::budget::{Spent, Stop};
use super::stage::{Context, Placed};
use super::turns::{AtOnce, Turns, in_turn};

/// Texts that a model reads between two looks at the budget, where there is one.
const BATCH: usize = 16;

/// What a [`Similarity`] says of documents, or why it had to stop before it had looked at all of them.
pub type Looked<'a> = ControlFlow<Stop, Box<dyn Alike + 'a>>;

/// Says how alike documents are: 1 is the same, 0 is nothing in common.
pub trait Similarity: Sync {
    /// Looks at all documents once, within what the meter allows.
    ///
    /// # Errors
    /// Those of the model, where there is one.
    fn prepare<'a>(&'a self, context: &Context<'a>, documents: &[Placed]) -> Result<Looked<'a>>;
}

/// Documents that a [`Similarity`] has looked at.
pub trait Alike {
    /// How alike the documents at two places of the list are, at most 1. Cosines may be below 0.
    fn between(&self, a: usize, b: usize) -> f64;
}

impl<S: Similarity + ?Sized> Similarity for Box<S> {
    fn prepare<'a>(&'a self, context: &Context<'a>, documents: &[Placed]) -> Result<Looked<'a>> {
        (**self).prepare(context, documents)
    }
}

/// The share of runs of words that two texts have in common (Jaccard). Needs no model; finds copies and near copies, not
/// the same said in other words.
#[derive(Debug, Clone, Copy)]
pub struct Shingles {
    words: usize,
}

impl Shingles {
    /// Runs of `words` words; at least 1. Three is usual; 1 compares the sets of words.
    #[must_use]
    pub fn new(words: usize) -> Self {
        Self { words: words.max(1) }
    }

    /// The hashes of a text's runs, sorted, each once. A text shorter than a run is one run.
    fn of(self, text: &str) -> Vec<u64> {
        let words: Vec<String> = text
            .split(|letter: char| !letter.is_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(str::to_lowercase)
            .collect();
        let hash = |run: &[String]| {
            let mut hasher = DefaultHasher::new();
            run.hash(&mut hasher);
            hasher.finish()
        };
        let mut runs: Vec<u64> = match words.len() {
            0 => Vec::new(),
            count => words.windows(self.words.min(count)).map(hash).collect(),
        };
        runs.sort_unstable();
        runs.dedup();
        runs
    }
}

impl Similarity for Shingles {
    fn prepare<'a>(&'a self, context: &Context<'a>, documents: &[Placed]) -> Result<Looked<'a>> {
        let runs = context.texts(documents).into_iter().map(|text| self.of(text)).collect();
        Ok(ControlFlow::Continue(Box::new(Runs(runs))))
    }
}

struct Runs(Vec<Vec<u64>>);

impl Alike for Runs {
    fn between(&self, a: usize, b: usize) -> f64 {
        let (a, b) = (&self.0[a], &self.0[b]);
        let (mut i, mut j, mut common) = (0, 0, 0);
        while i < a.len() && j < b.len() {
            match a[i].cmp(&b[j]) {
                std::cmp::Ordering::Less => i += 1,
                std::cmp::Ordering::Greater => j += 1,
                std::cmp::Ordering::Equal => (i, j, common) = (i + 1, j + 1, common + 1),
            }
        }
        let all = a.len() + b.len() - common;
        // Two texts without a word are the same.
        if all == 0 { 1.0 } else { common as f64 / all as f64 }
    }
}

/// The cosine of a bi-encoder's vectors.
#[derive(Clone)]
pub struct Embedded<M> {
    model: M,
    turns: Arc<dyn Turns>,
}

impl<M: std::fmt::Debug> std::fmt::Debug for Embedded<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedded").field("model", &self.model).finish_non_exhaustive()
    }
}

impl<M: Borrow<BiEncoder> + Sync> Embedded<M> {
    /// `model` is a [`BiEncoder`], a reference to one, or an `Arc` of one.
    #[must_use]
    pub fn new(model: M) -> Self {
        Self { model, turns: Arc::new(AtOnce) }
    }

    /// Reads each batch when its turn has come.
    #[must_use]
    pub fn turns(mut self, turns: Arc<dyn Turns>) -> Self {
        self.turns = turns;
        self
    }
}

impl<M: Borrow<BiEncoder> + Sync> Similarity for Embedded<M> {
    fn prepare<'a>(&'a self, context: &Context<'a>, documents: &[Placed]) -> Result<Looked<'a>> {
        let model = self.model.borrow();
        let texts = context.texts(documents);
        let mut all = Cosines::default();
        let batch = if context.meter.is_limited() { BATCH } else { texts.len().max(1) };
        for texts in texts.chunks(batch) {
            if let Some(stop) = context.meter.stop() {
                return Ok(ControlFlow::Break(stop));
            }
            let (vectors, encoded) = in_turn(&*self.turns, || model.embed_encoded(texts, Role::Document))?;
            let tokens = encoded.iter().map(|text| text.input_ids.len() as u64).sum();
            context.meter.spend(Spent { calls: 1, tokens, ..Spent::default() });
            (0..vectors.rows).for_each(|row| all.push(vectors.row(row)));
        }
        Ok(ControlFlow::Continue(Box::new(all)))
    }
}

/// Vectors of length 1, one for each place of the list.
#[derive(Default)]
struct Cosines(Vec<Vec<f64>>);

impl Cosines {
    /// Adds the next vector, of any length. One that is 0 has nothing in common with any other.
    fn push(&mut self, vector: &[f32]) {
        let values: Vec<f64> = vector.iter().map(|value| f64::from(*value)).collect();
        let norm = values.iter().map(|value| value * value).sum::<f64>().sqrt();
        self.0.push(values.iter().map(|value| if norm > 0.0 { value / norm } else { 0.0 }).collect());
    }
}

impl Alike for Cosines {
    fn between(&self, a: usize, b: usize) -> f64 {
        if a == b {
            return 1.0;
        }
        self.0[a].iter().zip(&self.0[b]).map(|(a, b)| a * b).sum::<f64>().min(1.0)
    }
}

/// What the caller says of two documents, by their indices in the request.
pub struct Given<F>(pub F);

impl<F> std::fmt::Debug for Given<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Given")
    }
}

impl<F: Fn(usize, usize) -> f64 + Sync> Similarity for Given<F> {
    fn prepare<'a>(&'a self, _: &Context<'a>, documents: &[Placed]) -> Result<Looked<'a>> {
        let indices = documents.iter().map(|placed| placed.index).collect();
        Ok(ControlFlow::Continue(Box::new(Asked { of: &self.0, indices })))
    }
}

struct Asked<'a, F> {
    of: &'a F,
    indices: Vec<usize>,
}

impl<F: Fn(usize, usize) -> f64> Alike for Asked<'_, F> {
    fn between(&self, a: usize, b: usize) -> f64 {
        (self.of)(self.indices[a], self.indices[b])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_by_hand() {
        let mut cosines = Cosines::default();
        for vector in [[3.0, 4.0], [-8.0, 6.0], [0.3, 0.4], [0.0, 0.0]] {
            cosines.push(&vector);
        }
        assert_eq!(cosines.between(0, 1), 0.0);
        assert!((cosines.between(0, 2) - 1.0).abs() < 1e-7); // 0.3 and 0.4 are rounded to f32
        assert_eq!((cosines.between(0, 3), cosines.between(3, 3)), (0.0, 1.0));
    }

    #[test]
    fn shingles_by_hand() {
        let of = |words: usize, a: &str, b: &str| {
            let shingles = Shingles::new(words);
            Runs(vec![shingles.of(a), shingles.of(b)]).between(0, 1)
        };
        assert_eq!(of(1, "A b, c!", "c B d"), 0.5); // {a b c} and {b c d}
        assert_eq!(of(2, "a b c", "a b d"), 1.0 / 3.0); // {ab bc} and {ab bd}
        assert_eq!(of(3, "a b", "a b"), 1.0);
        assert_eq!(of(3, "a b", "a b c"), 0.0);
        assert_eq!(of(3, "", "..."), 1.0);
        assert_eq!(of(3, "", "a"), 0.0);
    }
}
