use std::collections::BTreeMap;

use super::Lines;
use crate::data::{Label, Qrels, Retrieved, Run};
use crate::error::{Fault, Result};

/// Rows of a file by query, kept with their line numbers until all are there and duplicates can be told.
pub(super) struct Rows<K, V> {
    queries: BTreeMap<String, Vec<Row<K, V>>>,
}

struct Row<K, V> {
    key: K,
    value: V,
    line: u64,
}

/// A document, and its subtopic where the file has them.
pub(super) trait Key: Ord {
    fn document(&self) -> &str;
}

impl Key for String {
    fn document(&self) -> &str {
        self
    }
}

impl Key for (String, String) {
    fn document(&self) -> &str {
        &self.0
    }
}

impl<K: Key, V> Rows<K, V> {
    pub(super) fn new() -> Self {
        Self { queries: BTreeMap::new() }
    }

    pub(super) fn push(&mut self, line: u64, query: &str, key: K, value: V) {
        let row = Row { key, value, line };
        match self.queries.get_mut(query) {
            Some(rows) => rows.push(row),
            None => {
                self.queries.insert(query.to_string(), vec![row]);
            }
        }
    }

    /// Every query with its rows, in the order of the file.
    ///
    /// `Error::Empty` if there are none; `Fault::DuplicateDocument` for the first line whose document was there before.
    fn finish(
        self,
        lines: &Lines,
        what: &'static str,
    ) -> Result<impl Iterator<Item = (String, Vec<Row<K, V>>)>> {
        if self.queries.is_empty() {
            return Err(lines.empty(what));
        }
        let mut duplicate: Option<(u64, Fault)> = None;
        for (query, rows) in &self.queries {
            let mut sorted: Vec<&Row<K, V>> = rows.iter().collect();
            sorted.sort_by(|a, b| a.key.cmp(&b.key));
            for pair in sorted.windows(2) {
                let [first, second] = pair else { continue };
                if first.key == second.key && duplicate.as_ref().is_none_or(|(line, _)| second.line < *line) {
                    let document = second.key.document().to_string();
                    let fault =
                        Fault::DuplicateDocument { query: query.clone(), document, first: first.line };
                    duplicate = Some((second.line, fault));
                }
            }
        }
        match duplicate {
            Some((line, fault)) => Err(lines.error(line, fault)),
            None => Ok(self.queries.into_iter()),
        }
    }
}

impl Rows<String, Label> {
    pub(super) fn into_qrels(self, lines: &Lines) -> Result<Qrels> {
        let mut qrels = Qrels::new();
        for (query, rows) in self.finish(lines, "judgement")? {
            for row in rows {
                qrels.insert(&query, &row.key, row.value);
            }
        }
        Ok(qrels)
    }
}

impl Rows<(String, String), Label> {
    pub(super) fn into_qrels(self, lines: &Lines) -> Result<Qrels> {
        let mut qrels = Qrels::new();
        for (query, rows) in self.finish(lines, "judgement")? {
            for row in rows {
                let (document, subtopic) = &row.key;
                qrels.insert_subtopic(&query, subtopic, document, row.value);
            }
        }
        Ok(qrels)
    }
}

impl Rows<String, f64> {
    pub(super) fn into_run(self, lines: &Lines) -> Result<Run> {
        let mut run = Run::new();
        for (query, rows) in self.finish(lines, "retrieved document")? {
            run.insert(&query, rows.into_iter().map(|row| Retrieved::new(row.key, row.value)).collect())?;
        }
        Ok(run)
    }
}

/// A label as it stands in a file.
pub(super) fn label(text: &str) -> std::result::Result<Label, Fault> {
    text.parse().map_err(|_| Fault::BadLabel { found: text.to_string() })
}

/// A score as it stands in a file.
pub(super) fn score(text: &str) -> std::result::Result<f64, Fault> {
    match text.parse::<f64>() {
        Ok(score) if score.is_finite() => Ok(score),
        _ => Err(Fault::BadScore { found: text.to_string() }),
    }
}

/// The columns of a line, which are exactly N; `expected` names them in the message.
pub(super) fn columns<'a, const N: usize>(
    found: impl Iterator<Item = &'a str>,
    expected: &'static str,
) -> std::result::Result<[&'a str; N], Fault> {
    let found: Vec<&str> = found.collect();
    found.try_into().map_err(|found: Vec<&str>| Fault::Columns { found: found.len(), expected })
}

/// An id as it stands in a file: anything but nothing.
pub(super) fn id<'a>(text: &'a str, column: &'static str) -> std::result::Result<&'a str, Fault> {
    if text.trim_ascii().is_empty() { Err(Fault::EmptyColumn { column }) } else { Ok(text) }
}
