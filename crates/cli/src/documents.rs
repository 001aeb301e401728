//! Reading documents: one on each line, or JSON lines.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use crate::error::{CliError, Result};
use crate::input::{self, Lines};

/// One document of the input.
#[derive(Debug)]
pub struct Document {
    /// Passed through as it is.
    pub id: Option<Value>,
    /// What is scored.
    pub text: String,
    /// What the first stage gave it: `first_stage_score` as it stands there, else `score` if that is a number.
    pub first_stage_score: Option<Value>,
}

/// What makes a line one of JSON lines. Whether its text can be used is not asked: a document that cannot is an error,
/// and no reason to take the line for plain text.
#[derive(Deserialize)]
struct Probe {
    #[serde(rename = "text")]
    _text: IgnoredAny,
}

#[derive(Deserialize)]
struct JsonDocument {
    text: String,
    id: Option<Value>,
    first_stage_score: Option<Value>,
    score: Option<Value>,
}

impl From<JsonDocument> for Document {
    fn from(document: JsonDocument) -> Self {
        let JsonDocument { text, id, first_stage_score, score } = document;
        // Anything may be called a score; what is no number is somebody else's.
        let score = score.filter(Value::is_number);
        Self { id, text, first_stage_score: first_stage_score.or(score) }
    }
}

/// What the first stage gave each document, in their order; none if it gave none of them anything.
///
/// # Errors
/// If some documents have such a score and one, which is named, has none or no number.
pub fn first_stage_scores(documents: &[Document]) -> Result<Option<Vec<f64>>> {
    if documents.iter().all(|document| document.first_stage_score.is_none()) {
        return Ok(None);
    }
    let score = |(place, document): (usize, &Document)| {
        let named = || match &document.id {
            Some(id) => format!("document {place} ({id})"),
            None => format!("document {place}"),
        };
        match &document.first_stage_score {
            None => Err(CliError::Input(format!(
                "{} has no `first_stage_score`, and others have one; all or none",
                named()
            ))),
            Some(value) => value.as_f64().ok_or_else(|| {
                CliError::Input(format!("{}: `first_stage_score` is {value}; it is a number", named()))
            }),
        }
    };
    documents.iter().enumerate().map(score).collect::<Result<_>>().map(Some)
}

/// Reads all of `lines`. Unless `jsonl` says it, the first line that is not blank settles whether they are JSON.
pub fn read(lines: &mut Lines, mut jsonl: Option<bool>, documents: &mut Vec<Document>) -> Result<()> {
    while let Some(line) = lines.next_line() {
        let line = line?;
        if line.text.trim().is_empty() {
            continue;
        }
        let parsed = || serde_json::from_str::<JsonDocument>(&line.text);
        let jsonl = match jsonl {
            Some(jsonl) => jsonl,
            None => {
                let with_text = serde_json::from_str::<Probe>(&line.text).is_ok();
                if !with_text && serde_json::from_str::<Map<String, Value>>(&line.text).is_ok() {
                    let problem = "a JSON object without `text`; --input lines takes lines as they are";
                    return Err(lines.error(line.number, problem.to_string()));
                }
                *jsonl.insert(with_text)
            }
        };
        documents.push(if jsonl {
            parsed().map_err(|error| lines.error(line.number, input::json_problem(&error)))?.into()
        } else {
            Document { id: None, text: line.text, first_stage_score: None }
        });
    }
    Ok(())
}
