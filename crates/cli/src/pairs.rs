//! Reading pairs: JSON lines or TSV.

use serde::Deserialize;
use serde_json::Value;

use crate::error::{CliError, Result};
use crate::input::{self, LineError, Lines};

/// A block ends early when its texts reach this size.
const MAX_BLOCK_BYTES: usize = 32 << 20;

/// How pairs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// JSON lines with `query` and `document`.
    Jsonl,
    /// 2, 3 or 4 columns.
    Tsv,
}

/// One pair of the input.
#[derive(Debug, Deserialize)]
pub struct Record {
    /// What is asked.
    pub query: String,
    /// What may answer it.
    pub document: String,
    /// Passed through as it is, like the other two.
    pub id: Option<Value>,
    /// The query's id.
    pub query_id: Option<Value>,
    /// The document's id.
    pub document_id: Option<Value>,
}

/// Records, line by line.
pub struct Pairs {
    lines: Lines,
    /// Settled by the first line if nothing else says it.
    form: Option<Form>,
    /// TSV: columns of the first line; a stray tab in a later one must not move its texts.
    columns: Option<usize>,
    skip_bad: bool,
    skipped: u64,
    first_skipped: Option<CliError>,
}

impl Pairs {
    /// Reads pairs off `lines`. Without `form` the first line settles it. With `skip_bad`, lines that cannot be used
    /// are counted and passed over.
    pub fn new(lines: Lines, form: Option<Form>, skip_bad: bool) -> Self {
        Self { lines, form, columns: None, skip_bad, skipped: 0, first_skipped: None }
    }

    /// The lines that are read.
    pub fn lines(&self) -> &Lines {
        &self.lines
    }

    /// How many lines were passed over, and what was wrong with the first.
    pub fn skipped(&self) -> (u64, Option<&CliError>) {
        (self.skipped, self.first_skipped.as_ref())
    }

    /// The next pairs, at most `pairs` of them, and what stops the run after them.
    pub fn block(&mut self, pairs: usize) -> (Vec<(u64, Record)>, Option<CliError>) {
        let (mut block, mut bytes) = (Vec::new(), 0);
        while block.len() < pairs && bytes < MAX_BLOCK_BYTES {
            match self.next_pair() {
                Ok(Some((number, record))) => {
                    bytes += record.query.len() + record.document.len();
                    block.push((number, record));
                }
                Ok(None) => break,
                Err(error) => return (block, Some(error)),
            }
        }
        (block, None)
    }

    /// Reads over the lines that an earlier run has dealt with: up to `last_line`, with `rows` scores written. Bad
    /// ones were skipped then, whatever `--skip-bad` says now, or they would have stopped it.
    pub fn pass_over(&mut self, last_line: u64, rows: u64) -> Result<()> {
        if last_line == 0 {
            return Ok(());
        }
        let skip_bad = std::mem::replace(&mut self.skip_bad, true);
        let mut pairs = 0;
        while let Some((number, _)) = self.next_pair()? {
            pairs += 1;
            if number >= last_line {
                break;
            }
        }
        self.skip_bad = skip_bad;
        // Those that could be read but not scored.
        self.skipped += u64::saturating_sub(pairs, rows);
        Ok(())
    }

    /// The next pair and its line number; none at the end.
    pub fn next_pair(&mut self) -> Result<Option<(u64, Record)>> {
        while let Some(line) = self.lines.next_line() {
            let line = match line {
                Ok(line) => line,
                Err(LineError::Bad(error)) => {
                    self.bad(error)?;
                    continue;
                }
                Err(LineError::Fatal(error)) => return Err(error),
            };
            if line.text.trim().is_empty() {
                continue;
            }
            let is_json = line.text.trim_start().starts_with('{');
            let form = *self.form.get_or_insert(if is_json { Form::Jsonl } else { Form::Tsv });
            let record =
                if form == Form::Tsv { tsv(&line.text, &mut self.columns) } else { json(&line.text) };
            match record {
                Ok(record) => return Ok(Some((line.number, record))),
                Err(problem) => {
                    let error = self.lines.error(line.number, problem);
                    self.bad(error)?;
                }
            }
        }
        Ok(None)
    }

    /// Counts a line that cannot be used, or gives the error back if that is to stop the run.
    pub fn bad(&mut self, error: CliError) -> Result<()> {
        if !self.skip_bad {
            return Err(error);
        }
        self.skipped += 1;
        self.first_skipped.get_or_insert(error);
        Ok(())
    }
}

fn json(text: &str) -> std::result::Result<Record, String> {
    serde_json::from_str(text).map_err(|error| input::json_problem(&error)).and_then(with_query)
}

fn tsv(text: &str, expected: &mut Option<usize>) -> std::result::Result<Record, String> {
    let columns: Vec<&str> = text.split('\t').collect();
    if let Some(expected) = expected.filter(|expected| *expected != columns.len()) {
        return Err(format!("{}; the first line has {expected}", counted(columns.len())));
    }
    let (ids, query, document) = match columns[..] {
        [query, document] => ([None, None, None], query, document),
        [id, query, document] => ([Some(id), None, None], query, document),
        [query_id, document_id, query, document] => {
            ([None, Some(query_id), Some(document_id)], query, document)
        }
        _ => {
            let found = counted(columns.len());
            return Err(format!(
                "{found}; a pair has 2, 3 or 4, apart by tabs (--input jsonl reads JSON lines)"
            ));
        }
    };
    *expected = Some(columns.len());
    let [id, query_id, document_id] = ids.map(|id| id.map(Value::from));
    with_query(Record { query: query.into(), document: document.into(), id, query_id, document_id })
}

fn counted(columns: usize) -> String {
    format!("{columns} {}", if columns == 1 { "column" } else { "columns" })
}

fn with_query(record: Record) -> std::result::Result<Record, String> {
    if record.query.trim().is_empty() { Err(jointly::Error::EmptyQuery.to_string()) } else { Ok(record) }
}
