//! Reading documents: one on each line, or JSON lines.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use crate::error::Result;
use crate::input::{self, Lines};

/// One document of the input.
#[derive(Debug)]
pub struct Document {
    /// Passed through as it is.
    pub id: Option<Value>,
    /// What is scored.
    pub text: String,
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
            let document = parsed().map_err(|error| lines.error(line.number, input::json_problem(&error)))?;
            Document { id: document.id, text: document.text }
        } else {
            Document { id: None, text: line.text }
        });
    }
    Ok(())
}
