//! A bi-encoder where a cross-encoder could be.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use jointly::rank::Scorer;
use jointly::rank::listwise::quote::digest;
use jointly::text::EncodedPair;
use jointly::{BiEncoder, Role, Score, ScoreScale};

/// Documents of so many texts are kept; then all are forgotten, which costs time and nothing else.
const MOST_VECTORS: usize = 1 << 16;

/// A bi-encoder as a scorer: the product of two vectors. Vectors of documents are kept for the next query, which reads no tokens
/// of theirs.
pub struct BiScorer {
    model: Arc<BiEncoder>,
    known: Mutex<HashMap<[u8; 16], Arc<Known>>>,
    /// The query that was read last, for the next batch of its documents.
    asked: Mutex<Option<([u8; 16], Arc<Known>)>>,
}

/// A text, read.
struct Known {
    vector: Vec<f32>,
    truncated: bool,
}

impl fmt::Debug for BiScorer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BiScorer").field("model", &self.model).finish_non_exhaustive()
    }
}

impl BiScorer {
    /// A scorer that has read nothing yet.
    pub fn new(model: impl Into<Arc<BiEncoder>>) -> Self {
        Self { model: model.into(), known: Mutex::default(), asked: Mutex::default() }
    }

    /// A query, and the tokens that were read for it now.
    fn ask(&self, query: &str) -> jointly::Result<(Arc<Known>, usize)> {
        let last = || self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let key = digest(&[query]);
        if let Some((_, known)) = last().as_ref().filter(|(last, _)| *last == key) {
            return Ok((Arc::clone(known), 0));
        }
        let (vectors, encoded) = self.model.embed_encoded(&[query], Role::Query)?;
        let truncated = encoded.iter().any(EncodedPair::truncated);
        let known = Arc::new(Known { vector: vectors.row(0).to_vec(), truncated });
        *last() = Some((key, Arc::clone(&known)));
        Ok((known, encoded.iter().map(|text| text.input_ids.len()).sum()))
    }
}

impl Scorer for BiScorer {
    fn scale(&self) -> ScoreScale {
        ScoreScale::Ordinal
    }

    fn score(&self, query: &str, documents: &[&str]) -> jointly::Result<Vec<Score>> {
        let keys: Vec<[u8; 16]> = documents.iter().map(|text| digest(&[text])).collect();
        let mut known: Vec<Option<Arc<Known>>> = {
            let all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            keys.iter().map(|key| all.get(key).cloned()).collect()
        };
        let todo: Vec<usize> = (0..keys.len()).filter(|&place| known[place].is_none()).collect();
        let texts: Vec<&str> = todo.iter().map(|&place| documents[place]).collect();
        let (vectors, encoded) = self.model.embed_encoded(&texts, Role::Document)?;
        let mut tokens = vec![0; documents.len()];
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() + todo.len() > MOST_VECTORS {
            all.clear();
        }
        for (row, (&place, text)) in todo.iter().zip(&encoded).enumerate() {
            tokens[place] = text.input_ids.len();
            let vector = vectors.row(row).to_vec();
            let embedded = Arc::new(Known { vector, truncated: text.truncated() });
            all.insert(keys[place], Arc::clone(&embedded));
            known[place] = Some(embedded);
        }
        drop(all);
        let (asked, of_query) = self.ask(query)?;
        // The query is read once: its tokens are the first document's.
        if let Some(first) = tokens.first_mut() {
            *first += of_query;
        }
        let score = |(embedded, tokens): (&Option<Arc<Known>>, usize)| {
            let vector = embedded.as_ref().map_or(&[][..], |embedded| embedded.vector.as_slice());
            let product: f32 = asked.vector.iter().zip(vector).map(|(a, b)| a * b).sum();
            Score {
                logit: product,
                score: product,
                probability: None,
                tokens,
                truncated: asked.truncated || embedded.as_ref().is_some_and(|embedded| embedded.truncated),
                windows: 1,
                span: None,
            }
        };
        Ok(known.iter().zip(tokens).map(score).collect())
    }
}
