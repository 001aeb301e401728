//! Comparing the best two by two.

use crate::error::{Error, Result};
use crate::score::ScoreScale;

use super::budget::Spent;
use super::scorer::Scorer;
use super::stage::{Applied, Context, Kept, Placed, Stage};

/// Says which of two documents answers a query better: a model that reads all three texts together ([`DuoScorer`]), or a service.
pub trait Preference: Sync {
    /// For each pair, how likely the first is the better one.
    ///
    /// # Errors
    /// Those of the model.
    fn prefer(&self, query: &str, pairs: &[(&str, &str)]) -> Result<Preferred>;
}

/// What a [`Preference`] says of pairs of documents.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Preferred {
    /// For each pair, how likely the first is the better one, from 0 to 1.
    pub probabilities: Vec<f64>,
    /// What that cost.
    pub spent: Spent,
    /// Pairs of which not all was read.
    pub cut: usize,
}

impl<P: Preference + ?Sized> Preference for Box<P> {
    fn prefer(&self, query: &str, pairs: &[(&str, &str)]) -> Result<Preferred> {
        (**self).prefer(query, pairs)
    }
}

impl<P: Preference + ?Sized> Preference for &P {
    fn prefer(&self, query: &str, pairs: &[(&str, &str)]) -> Result<Preferred> {
        (**self).prefer(query, pairs)
    }
}

/// How preferences become one order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Aggregate {
    /// Thurstone's case V: the least squares fit of one number for each document to the z of every preference. A clear preference
    /// counts for more than a narrow one.
    /// Source: Mosteller, Psychometrika 1951; the link is that of zELO, `(1 + erf(z)) / 2`.
    #[default]
    Thurstone,
    /// The sum of a document's preferences over all others.
    /// Source: Pradeep, Nogueira and Lin, arXiv 2101.05667 (duoT5's SUM).
    Sum,
}

/// A preference nearer to 0 or 1 than this says no more than this: one certain answer must not decide everything.
const LEAST_DOUBT: f64 = 0.01;

/// Compares each of the first `depth` with each other, in both orders, so that a liking for the first text of a pair cancels
/// out. That is `depth * (depth - 1)` pairs: for the last ten or twenty.
#[derive(Debug, Clone)]
pub struct Duo<P> {
    name: String,
    preference: P,
    depth: usize,
    aggregate: Aggregate,
    batch_pairs: usize,
}

impl<P: Preference> Duo<P> {
    /// Compares the first `depth`, and keeps them.
    #[must_use]
    pub fn new(preference: P, depth: usize) -> Self {
        Self { name: "duo".into(), preference, depth, aggregate: Aggregate::Thurstone, batch_pairs: 16 }
    }

    /// What it is called in reports.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How preferences become one order.
    #[must_use]
    pub fn aggregate(mut self, aggregate: Aggregate) -> Self {
        self.aggregate = aggregate;
        self
    }

    /// Pairs asked at a time; at least 1.
    #[must_use]
    pub fn batch_pairs(mut self, pairs: usize) -> Self {
        self.batch_pairs = pairs.max(1);
        self
    }
}

impl<P: Preference> Stage for Duo<P> {
    fn name(&self) -> &str {
        &self.name
    }

    /// If the budget ends it before all pairs are compared, the order stays as it came.
    fn apply(&self, context: &Context<'_>, incoming: &[Placed]) -> Result<Applied> {
        let head = &incoming[..incoming.len().min(self.depth)];
        let texts = context.texts(head);
        let count = head.len();
        let pairs: Vec<(usize, usize)> =
            (0..count).flat_map(|a| (0..count).filter(move |b| *b != a).map(move |b| (a, b))).collect();
        // preferred[a][b]: how likely a is better than b, the mean of both orders.
        let mut preferred = vec![vec![0.5; count]; count];
        let mut cut = 0;
        for batch in pairs.chunks(self.batch_pairs) {
            if let stop @ Some(_) = context.meter.stop() {
                return Ok(Applied::unchanged(head).stop(stop));
            }
            let asked: Vec<(&str, &str)> = batch.iter().map(|&(a, b)| (texts[a], texts[b])).collect();
            let Preferred { probabilities: found, spent, cut: of_batch } =
                self.preference.prefer(context.query(), &asked)?;
            context.meter.spend(spent);
            cut += of_batch;
            let broken = |problem| Error::Stage { stage: self.name.clone(), problem };
            if found.len() != batch.len() {
                return Err(broken(format!("{} preferences for {} pairs", found.len(), batch.len())));
            }
            if let Some(wrong) = found.iter().find(|value| !(0.0..=1.0).contains(*value)) {
                return Err(broken(format!("a preference is {wrong}; it is from 0 to 1")));
            }
            for (&(a, b), probability) in batch.iter().zip(found) {
                preferred[a][b] += (probability - 0.5) / 2.0;
                preferred[b][a] -= (probability - 0.5) / 2.0;
            }
        }
        let value = |a: usize| -> f64 {
            let of = (0..count).filter(|b| *b != a).map(|b| preferred[a][b]);
            match self.aggregate {
                Aggregate::Sum => of.sum(),
                // Every document is compared with every other: the least squares fit is the mean.
                Aggregate::Thurstone => of.map(z).sum::<f64>() / count as f64,
            }
        };
        let mut kept: Vec<Kept> = head
            .iter()
            .enumerate()
            .map(|(a, placed)| Kept { index: placed.index, value: value(a) })
            .collect();
        kept.sort_by(|a, b| b.value.total_cmp(&a.value));
        let applied = Applied::new(kept).read(count);
        Ok(match cut {
            0 => applied,
            cut => applied
                .note(format!("{cut} of {} pairs of documents were not read to their ends", pairs.len())),
        })
    }
}

/// A [`Scorer`] that reads two documents as one text, as a [`Preference`]: a cross-encoder that was trained to say whether the
/// first of two passages answers better, or one that is told so by its instruction. Of a model that can only say how
/// relevant one text is, the answers mean nothing.
#[derive(Debug, Clone)]
pub struct DuoScorer<S> {
    scorer: S,
    /// What stands before the first document, between both, and after the second.
    around: [String; 3],
    max_chars: usize,
}

impl<S: Scorer> DuoScorer<S> {
    /// Where the documents stand, if nothing else is said.
    pub const DEFAULT_TEMPLATE: &'static str = "Passage A: {a}\n\nPassage B: {b}";

    /// With the default template and documents of any length.
    ///
    /// # Errors
    /// [`Error::WrongScale`] for a scorer whose scores are only an order: no probability can be made of them.
    pub fn new(scorer: S) -> Result<Self> {
        let scale = scorer.scale();
        if scale == ScoreScale::Ordinal {
            let hint = "no preference can be made of a mere order";
            let needed = ScoreScale::Probability;
            return Err(Error::WrongScale { stage: "duo".into(), found: scale, needed, hint });
        }
        Self { scorer, around: Default::default(), max_chars: usize::MAX }.template(Self::DEFAULT_TEMPLATE)
    }

    /// The text that the model reads in place of a document, in which `{a}` and then `{b}` stand for the two.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if they do not.
    pub fn template(mut self, template: &str) -> Result<Self> {
        let parts = template.split_once("{a}").and_then(|(before, rest)| {
            let (between, after) = rest.split_once("{b}")?;
            Some([before, between, after].map(String::from))
        });
        let problem = || format!("{template:?}; it has {{a}} and behind it {{b}}");
        self.around = parts.ok_or_else(|| Error::InvalidOption { option: "template", problem: problem() })?;
        Ok(self)
    }

    /// Each document is cut to so many characters, so that a long first one does not hide the second; at least 1.
    #[must_use]
    pub fn max_chars(mut self, max_chars: usize) -> Self {
        self.max_chars = max_chars.max(1);
        self
    }

    /// As much of a text as is read, and whether that is not all.
    fn cut<'t>(&self, text: &'t str) -> (&'t str, bool) {
        match text.char_indices().nth(self.max_chars) {
            Some((end, _)) => (&text[..end], true),
            None => (text, false),
        }
    }
}

impl<S: Scorer> Preference for DuoScorer<S> {
    fn prefer(&self, query: &str, pairs: &[(&str, &str)]) -> Result<Preferred> {
        let [before, between, after] = &self.around;
        let join = |&(a, b): &(&str, &str)| {
            let ((a, is_a_cut), (b, is_b_cut)) = (self.cut(a), self.cut(b));
            (format!("{before}{a}{between}{b}{after}"), is_a_cut || is_b_cut)
        };
        let joined: Vec<(String, bool)> = pairs.iter().map(join).collect();
        let texts: Vec<&str> = joined.iter().map(|(text, _)| text.as_str()).collect();
        let scores = self.scorer.score(query, &texts)?;
        let is_logit = self.scorer.scale() == ScoreScale::Logit;
        let probability = |score: f32| match is_logit {
            true => 1.0 / (1.0 + (-f64::from(score)).exp()),
            false => f64::from(score),
        };
        let tokens = scores.iter().map(|score| score.tokens as u64).sum();
        let is_cut = joined.iter().zip(&scores).filter(|((_, is_cut), score)| *is_cut || score.truncated);
        let cut = is_cut.count();
        Ok(Preferred {
            probabilities: scores.iter().map(|score| probability(score.score)).collect(),
            spent: Spent { calls: 1, pairs: pairs.len() as u64, tokens, usd: 0.0 },
            cut,
        })
    }
}

/// The z of which `(1 + erf(z)) / 2` is the probability, by Newton's method; from the logistic curve's, which is near it.
fn z(probability: f64) -> f64 {
    let p = probability.clamp(LEAST_DOUBT, 1.0 - LEAST_DOUBT);
    let mut z = (p / (1.0 - p)).ln() / 2.4;
    for _ in 0..6 {
        let slope = (-z * z).exp() / std::f64::consts::PI.sqrt();
        z -= (0.5 * libm::erfc(-z) - p) / slope;
    }
    z
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn z_is_the_inverse_of_the_link() {
        for p in [0.01, 0.02, 0.1, 0.3, 0.5, 0.77, 0.9, 0.99] {
            assert!((0.5 * libm::erfc(-z(p)) - p).abs() < 1e-14, "{p}");
        }
        assert_eq!(z(0.5), 0.0);
        assert_eq!((z(0.0), z(1.0)), (z(0.01), z(0.99)));
    }
}
