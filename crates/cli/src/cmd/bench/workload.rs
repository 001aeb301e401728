//! What is scored: pairs of a file, or pairs of a stated length out of the text of `samples/`.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use jointly::{CrossEncoder, Error, Pair, ScoreOptions};

use crate::error::{CliError, Result};
use crate::input::{self, Lines};
use crate::pairs::{Form, Pairs};

const QUERY: &str = "how long does a hearing aid battery last";
const TEXT: &str = include_str!("../../../../../samples/hearing-aids.txt");

/// Pairs, and how they are read.
pub struct Workload {
    pub name: String,
    pairs: Vec<(String, String)>,
    /// The lines of the file that they come from.
    lines: Option<Vec<u64>>,
    options: ScoreOptions,
    /// Tokens that each pair must have.
    tokens: Option<usize>,
}

impl Workload {
    /// The pairs of a file, as `score` reads it.
    pub fn read(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            // Each of the processes that measure memory reads it again.
            return Err(CliError::Input("--pairs -: the pairs must be in a file".into()));
        }
        let form = if input::is_jsonl(path) {
            Some(Form::Jsonl)
        } else {
            path.extension().filter(|ending| ending.eq_ignore_ascii_case("tsv")).map(|_| Form::Tsv)
        };
        let mut reader = Pairs::new(Lines::open(path)?, form, false);
        let (mut pairs, mut lines) = (Vec::new(), Vec::new());
        while let Some((line, record)) = reader.next_pair()? {
            pairs.push((record.query, record.document));
            lines.push(line);
        }
        let name = path.display().to_string();
        if pairs.is_empty() {
            return Err(CliError::Input(format!("{name}: there are no pairs in it")));
        }
        Ok(Self { name, pairs, lines: Some(lines), options: ScoreOptions::new(), tokens: None })
    }

    /// `count` different pairs of one query and the words of the samples, each cut to `tokens`.
    pub fn of_length(tokens: usize, count: usize) -> Self {
        let words: Vec<&str> = TEXT.split_whitespace().collect();
        // Each begins at another word; when they run out, every second word is taken, then every third, ...
        let document = |index: usize| {
            let step = 1 + index / words.len();
            (0..tokens).map(|i| words[(index + i * step) % words.len()]).collect::<Vec<_>>().join(" ")
        };
        Self {
            name: format!("{tokens} tokens"),
            pairs: (0..count).map(|index| (QUERY.to_string(), document(index))).collect(),
            lines: None,
            options: ScoreOptions::new().max_length(tokens),
            tokens: Some(tokens),
        }
    }

    /// The number of pairs.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Scores the pairs, `batch` of them at a time; `done` is told how long each time took. The
    /// logits, in order.
    pub fn score(
        &self,
        model: &CrossEncoder,
        batch: usize,
        mut done: impl FnMut(Duration),
    ) -> Result<Vec<f32>> {
        let pairs = self.pairs();
        let mut logits = Vec::with_capacity(pairs.len());
        for (first, pairs) in pairs.chunks(batch).enumerate().map(|(i, pairs)| (i * batch, pairs)) {
            let started = Instant::now();
            let scores = model.score_pairs_with(pairs, &self.options);
            done(started.elapsed());
            let scores = scores.map_err(|error| self.error(first, error))?;
            logits.extend(scores.iter().map(|score| score.logit));
        }
        Ok(logits)
    }

    /// The lengths in tokens of the pairs, and how many pairs of a file are left out: what the model reads as the same pair
    /// is computed once, so that a benchmark of it would count work that is not done.
    pub fn prepare(&mut self, model: &CrossEncoder) -> Result<(Vec<usize>, usize)> {
        let most = model.info().max_length;
        let unusable = |problem: String| Err(CliError::Input(problem));
        if let Some(tokens) = self.tokens.filter(|tokens| *tokens > most) {
            return unusable(format!("--tokens {tokens}: this model reads at most {most} tokens"));
        }
        let encoded =
            model.encode_pairs(&self.pairs(), &self.options).map_err(|error| self.error(0, error))?;
        let mut seen = HashSet::new();
        let is_new: Vec<bool> = encoded
            .iter()
            .map(|windows| {
                seen.insert(windows.iter().map(|window| &window.pair.input_ids).collect::<Vec<_>>())
            })
            .collect();
        let mut lengths: Vec<usize> = encoded
            .iter()
            .map(|windows| windows.iter().map(|window| window.pair.input_ids.len()).sum())
            .collect();
        let repeated = is_new.iter().filter(|is_new| !**is_new).count();
        if let Some(tokens) = self.tokens {
            if lengths.iter().any(|length| *length != tokens) {
                return unusable(format!(
                    "--tokens {tokens}: the template and the query leave no room for a document"
                ));
            }
            if repeated > 0 {
                let (count, different) = (lengths.len(), seen.len());
                return unusable(format!(
                    "--tokens {tokens} --count {count}: only {different} pairs of that length differ; ask for fewer"
                ));
            }
        } else {
            retain(&mut self.pairs, &is_new);
            retain(&mut lengths, &is_new);
            if let Some(lines) = &mut self.lines {
                retain(lines, &is_new);
            }
        }
        Ok((lengths, repeated))
    }

    fn pairs(&self) -> Vec<Pair<'_>> {
        self.pairs.iter().map(|(query, document)| Pair { query, document }).collect()
    }

    /// With the line of the file, if the pairs are from one.
    fn error(&self, first: usize, error: Error) -> CliError {
        match (error, &self.lines) {
            (Error::Pair { index, source }, Some(lines)) => {
                let place = format!("{}:{}", self.name, lines[first + index]);
                match source.kind() {
                    jointly::ErrorKind::Input => CliError::Input(format!("{place}: {source}")),
                    _ => CliError::Failed(format!("{place}: {source}")),
                }
            }
            (error, _) => error.into(),
        }
    }
}

fn retain<T>(items: &mut Vec<T>, wanted: &[bool]) {
    let mut wanted = wanted.iter();
    items.retain(|_| wanted.next().is_some_and(|wanted| *wanted));
}
