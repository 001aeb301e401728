//! What gives scores.

use std::borrow::Borrow;

use crate::cross_encoder::{CrossEncoder, Pair, ScoreOptions};
use crate::error::Result;
use crate::score::{Score, ScoreScale};

/// Anything that scores documents against a query: a cross-encoder of this process, the queue of a server, a service.
pub trait Scorer: Sync {
    /// What [`Score::score`] is.
    fn scale(&self) -> ScoreScale;

    /// One score for each document, in the order given. A document's score must not depend on those beside it: stages ask in
    /// batches of any size.
    ///
    /// # Errors
    /// Those of the scorer; [`Error::Pair`](crate::Error::Pair) names the document by its place in `documents`.
    fn score(&self, query: &str, documents: &[&str]) -> Result<Vec<Score>>;
}

impl<S: Scorer + ?Sized> Scorer for &S {
    fn scale(&self) -> ScoreScale {
        (**self).scale()
    }

    fn score(&self, query: &str, documents: &[&str]) -> Result<Vec<Score>> {
        (**self).score(query, documents)
    }
}

impl<S: Scorer + Send + ?Sized> Scorer for std::sync::Arc<S> {
    fn scale(&self) -> ScoreScale {
        (**self).scale()
    }

    fn score(&self, query: &str, documents: &[&str]) -> Result<Vec<Score>> {
        (**self).score(query, documents)
    }
}

impl<S: Scorer + ?Sized> Scorer for Box<S> {
    fn scale(&self) -> ScoreScale {
        (**self).scale()
    }

    fn score(&self, query: &str, documents: &[&str]) -> Result<Vec<Score>> {
        (**self).score(query, documents)
    }
}

/// With the default [`ScoreOptions`]; [`CrossScorer`] takes others.
impl Scorer for CrossEncoder {
    fn scale(&self) -> ScoreScale {
        self.info().score_scale
    }

    fn score(&self, query: &str, documents: &[&str]) -> Result<Vec<Score>> {
        score(self, (query, documents), &ScoreOptions::new())
    }
}

/// A cross-encoder that scores with options of its own: windows, a maximum length, an instruction.
#[derive(Debug, Clone)]
pub struct CrossScorer<M> {
    model: M,
    options: ScoreOptions,
}

impl<M: Borrow<CrossEncoder> + Sync> CrossScorer<M> {
    /// `model` is a [`CrossEncoder`], a reference to one, or an `Arc` of one.
    #[must_use]
    pub fn new(model: M, options: ScoreOptions) -> Self {
        Self { model, options }
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &CrossEncoder {
        self.model.borrow()
    }
}

impl<M: Borrow<CrossEncoder> + Sync> Scorer for CrossScorer<M> {
    fn scale(&self) -> ScoreScale {
        self.model().info().score_scale
    }

    fn score(&self, query: &str, documents: &[&str]) -> Result<Vec<Score>> {
        score(self.model(), (query, documents), &self.options)
    }
}

fn score(
    model: &CrossEncoder,
    (query, documents): (&str, &[&str]),
    options: &ScoreOptions,
) -> Result<Vec<Score>> {
    let pairs: Vec<Pair<'_>> = documents.iter().map(|&document| Pair { query, document }).collect();
    model.score_pairs_with(&pairs, options)
}
