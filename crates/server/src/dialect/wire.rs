//! Writing answers: what the dialects have in common.

use std::ops::Range;

use http::{HeaderMap, StatusCode};
use jointly::{Score, ScoreScale};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Rendered;
use crate::FailureKind;

/// A score between 0 and 1, the same in every dialect: what the model's authors publish if that is such a number (of zerank,
/// `sigmoid(z / 5)`); else the calibrated probability if the model has a calibration; else the sigmoid of the logit.
pub(super) fn unit(scale: ScoreScale, score: &Score) -> f32 {
    match (scale, score.probability) {
        (ScoreScale::Probability, _) => score.score,
        (_, Some(probability)) => probability,
        // In f64 and rounded once, as the library maps its own.
        _ => (1.0 / (1.0 + (-f64::from(score.logit)).exp())) as f32,
    }
}

/// The status that most vendors give. Dialects override what theirs has another one for.
pub(super) fn status(kind: FailureKind) -> StatusCode {
    match kind {
        FailureKind::Invalid | FailureKind::TooLong => StatusCode::BAD_REQUEST,
        kind => kind.status(),
    }
}

/// An answer in JSON.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Rendered {
    match serde_json::to_vec(body) {
        Ok(body) => Rendered { status, headers: HeaderMap::new(), body },
        // Our own types have no maps with odd keys, which is all that serde_json refuses.
        Err(error) => Rendered {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            headers: HeaderMap::new(),
            body: format!("the answer could not be written: {error}").into_bytes(),
        },
    }
}

/// `{"text": ...}`, as many vendors write the documents of an answer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TextDocument<'a> {
    /// The text.
    pub(super) text: &'a str,
}

/// A document of an answer as the client wrote it.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Echo<'a> {
    /// A string, in an object.
    Text(TextDocument<'a>),
    /// An object, byte by byte.
    Object(&'a RawValue),
}

/// `{"detail": ...}`, as services written with FastAPI say what is wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Detail<'a> {
    /// What is wrong.
    pub(super) detail: &'a str,
}

/// `{"prompt_tokens": ..., "total_tokens": ...}`, as in OpenAI's API.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(super) struct TokenUsage {
    /// Tokens that were read.
    pub(super) prompt_tokens: usize,
    /// The same: nothing is written.
    pub(super) total_tokens: usize,
}

impl TokenUsage {
    /// So many tokens that were read.
    pub(super) fn new(tokens: usize) -> Self {
        Self { prompt_tokens: tokens, total_tokens: tokens }
    }
}

/// The part of a text between two code points.
pub(super) fn part<'t>(text: &'t str, span: &Range<usize>) -> &'t str {
    let place = |n: usize| text.char_indices().nth(n).map_or(text.len(), |(place, _)| place);
    text.get(place(span.start)..place(span.end)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_in_code_points() {
        let text = "caf\u{e9} \u{1f600}!";
        assert_eq!(part(text, &(3..6)), "\u{e9} \u{1f600}");
        assert_eq!(part(text, &(5..99)), "\u{1f600}!");
        assert_eq!(part(text, &(9..12)), "");
    }

    #[test]
    fn a_score_is_the_authors_own_else_calibrated_else_a_sigmoid() {
        let mut score = Score {
            logit: 5.4062,
            score: 0.7467,
            probability: Some(0.9),
            tokens: 9,
            truncated: false,
            windows: 1,
            span: None,
        };
        assert_eq!(unit(ScoreScale::Probability, &score), 0.7467);
        assert_eq!(unit(ScoreScale::Logit, &score), 0.9);
        score.probability = None;
        assert!((unit(ScoreScale::Logit, &score) - 0.995_53).abs() < 1e-5);
        score.logit = f32::MIN;
        assert_eq!(unit(ScoreScale::Logit, &score), 0.0);
    }
}
