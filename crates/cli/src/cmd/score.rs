use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use jointly::{CrossEncoder, Error, Pair, ScoreOptions};
use serde::Serialize;
use serde_json::Value;

use crate::Global;
use crate::cmd::sql;
use crate::error::{CliError, Result};
use crate::input::{self, Lines};
use crate::model::{self, LongArguments, ModelArguments};
use crate::output::{Output, say, to_json};
use crate::pairs::{Form, Pairs, Record};
use crate::resume::{Done, Job, Partial};

/// Pairs read, scored and written together: bounds the memory.
const MAX_BLOCK_PAIRS: usize = 1024;
/// The first block, and the smallest: blocks grow and shrink until they take about [`BLOCK_TIME`], which is what an
/// interruption costs at most, and how often the progress bar moves.
const MIN_BLOCK_PAIRS: usize = 32;
const BLOCK_TIME: Duration = Duration::from_secs(2);

/// Score pairs, one line out for each line in, in the same order
#[derive(Args)]
#[command(after_help = "\
Input: JSON lines with `query` and `document` and optional `id`, `query_id`, `document_id`; or TSV with 2 columns (query,
document), 3 (id, query, document) or 4 (query_id, document_id, query, document), without quotes or escapes. Without
--input, names in .jsonl, .ndjson and .tsv say which; else a first line that begins with { means JSON lines. Blank lines
are passed over.
Output: JSON lines with `line` (of the input, from 1), the ids, `logit`, `score`, `probability` (of a calibrated model),
`tokens`, `truncated`, and `span` with windows. With -o, the output grows in FILE.partial, and an interrupted run goes on
where it stopped when the same command is given again (not if the input is a pipe).
Parquet: PAIRS or FILE named .parquet is read or written by the program jointly-sql, see `jointly sql --help`.")]
pub struct Score {
    /// The pairs; `-` is standard input
    #[arg(value_name = "PAIRS")]
    pairs: PathBuf,
    /// Write here instead of to standard output; resumes after an interruption
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace the output file, and begin anew
    #[arg(long, requires = "output")]
    force: bool,
    /// How PAIRS is written [auto: by its name, else by its first line]
    #[arg(long, value_enum, default_value_t = Input::Auto)]
    input: Input,
    /// Count lines that cannot be used and go on, instead of stopping at the first
    #[arg(long)]
    skip_bad: bool,
    #[command(flatten)]
    long: LongArguments,
    #[command(flatten)]
    model: ModelArguments,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Input {
    Auto,
    Jsonl,
    Tsv,
}

/// One line of the output; the names and their order are part of the interface.
#[derive(Serialize)]
struct Row<'a> {
    line: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query_id: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    document_id: Option<&'a Value>,
    logit: f32,
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    probability: Option<f32>,
    tokens: usize,
    truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    span: Option<[usize; 2]>,
}

impl<'a> Row<'a> {
    fn new(line: u64, record: &'a Record, score: &jointly::Score) -> Self {
        Self {
            line,
            id: record.id.as_ref(),
            query_id: record.query_id.as_ref(),
            document_id: record.document_id.as_ref(),
            logit: score.logit,
            score: score.score,
            probability: score.probability,
            tokens: score.tokens,
            truncated: score.truncated,
            span: score.span.as_ref().map(|span| [span.start, span.end]),
        }
    }
}

impl Score {
    pub fn run(self, global: Global) -> Result<()> {
        let is_parquet =
            |path: &Path| path.extension().is_some_and(|end| end.eq_ignore_ascii_case("parquet"));
        if is_parquet(&self.pairs) || self.output.as_deref().is_some_and(is_parquet) {
            return self.with_parquet();
        }
        let lines = Lines::open(&self.pairs)?;
        if let (Some(output), Ok(input)) = (&self.output, fs::canonicalize(&self.pairs))
            && fs::canonicalize(output).is_ok_and(|output| output == input)
        {
            return Err(CliError::Input(format!("{} is both input and output", output.display())));
        }
        let model = self.model.load(global)?;
        let options = self.long.options();
        let (mut sink, done) = match &self.output {
            None => (Sink::Stdout(Output::new()), Done::default()),
            Some(output) => {
                let job = Job::new(&self.pairs, &model, &options)?;
                let (partial, done) = Partial::open(output, job.as_ref(), self.force)?;
                (Sink::File(Box::new(partial)), done)
            }
        };
        if done.line > 0 && !global.quiet {
            say(format_args!("going on after line {}", done.line));
        }
        let mut reader = Pairs::new(lines, self.form(), self.skip_bad);
        let scored = self.score(&mut reader, &mut sink, done, (&model, &options, global))?;
        // A file of another format is no success because all of it was skipped.
        if let (count @ 1.., Some(first)) = reader.skipped()
            && done.rows + scored == 0
        {
            return Err(CliError::Input(format!("none of {count} lines could be used; the first: {first}")));
        }
        sink.finish()?;
        if let (count, Some(first)) = reader.skipped()
            && !global.quiet
        {
            let lines = if count == 1 { "line" } else { "lines" };
            say(format_args!("{count} {lines} skipped, the first being {first}"));
        }
        Ok(())
    }

    /// Parquet is read and written by the program that has SQL, with the arguments as they are.
    fn with_parquet(&self) -> Result<()> {
        let problem = if self.output.is_none() {
            "Parquet is scored into a file: -o names it"
        } else if self.skip_bad || self.input != Input::Auto {
            "--skip-bad and --input are for JSON lines and TSV, not for Parquet"
        } else {
            return sql::become_program(std::env::args_os().skip(1));
        };
        Err(CliError::Input(problem.into()))
    }

    /// Block after block, to the end or to the first line that stops the run: how many were scored. What comes before that line is
    /// written.
    fn score(
        &self,
        reader: &mut Pairs,
        sink: &mut Sink,
        done: Done,
        (model, options, global): (&CrossEncoder, &ScoreOptions, Global),
    ) -> Result<u64> {
        let total = fs::metadata(&self.pairs).ok().filter(fs::Metadata::is_file).map(|file| file.len());
        let template = match total {
            Some(_) => "[{bar:30}] {percent}% {msg}, {eta} left",
            None => "{spinner} {msg}",
        };
        let bar = model::bar(total, template, global);
        reader.pass_over(done.line, done.rows)?;
        if total.is_some() {
            bar.set_position(reader.lines().bytes());
            bar.reset_eta(); // reading is not scoring
        }
        let started = Instant::now();
        let (mut scored, mut block_pairs) = (0_u64, MIN_BLOCK_PAIRS);
        loop {
            let (mut block, mut stop) = reader.block(block_pairs);
            if block.is_empty() && stop.is_none() {
                return Ok(scored);
            }
            let block_started = Instant::now();
            let scores = loop {
                match try_score(model, options, &block, reader.lines())? {
                    Ok(scores) => break scores,
                    Err((index, error)) => match reader.bad(error) {
                        Ok(()) => drop(block.remove(index)),
                        Err(error) => {
                            block.truncate(index);
                            stop = Some(error);
                        }
                    },
                }
            };
            for ((line, record), score) in block.iter().zip(&scores) {
                sink.line(&to_json(&Row::new(*line, record, score))?)?;
            }
            sink.flush()?;
            if let Some(error) = stop {
                return Err(error);
            }
            scored += block.len() as u64;
            bar.set_position(if total.is_some() { reader.lines().bytes() } else { scored });
            let rate = scored as f64 / started.elapsed().as_secs_f64().max(1e-3);
            bar.set_message(format!("{scored} pairs, {rate:.0}/s"));
            let elapsed = block_started.elapsed();
            if elapsed * 2 < BLOCK_TIME {
                block_pairs = (block_pairs * 2).min(MAX_BLOCK_PAIRS);
            } else if elapsed > BLOCK_TIME * 2 {
                block_pairs = (block_pairs / 2).max(MIN_BLOCK_PAIRS);
            }
        }
    }

    fn form(&self) -> Option<Form> {
        match self.input {
            Input::Jsonl => Some(Form::Jsonl),
            Input::Tsv => Some(Form::Tsv),
            Input::Auto if input::is_jsonl(&self.pairs) => Some(Form::Jsonl),
            Input::Auto
                if self.pairs.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("tsv")) =>
            {
                Some(Form::Tsv)
            }
            Input::Auto => None,
        }
    }
}

/// The scores of a block, or its first pair that cannot be scored and why.
#[allow(clippy::type_complexity)] // a name for it would say less
fn try_score(
    model: &CrossEncoder,
    options: &ScoreOptions,
    block: &[(u64, Record)],
    lines: &Lines,
) -> Result<std::result::Result<Vec<jointly::Score>, (usize, CliError)>> {
    let pairs: Vec<Pair<'_>> =
        block.iter().map(|(_, record)| Pair { query: &record.query, document: &record.document }).collect();
    match model.score_pairs_with(&pairs, options) {
        Ok(scores) => Ok(Ok(scores)),
        Err(Error::Pair { index, source }) => match *source {
            // Wrong for every line, not for this one.
            source @ (Error::InvalidOption { .. } | Error::NoRoom { .. }) => Err(source.into()),
            source if source.kind() == jointly::ErrorKind::Input => {
                Ok(Err((index, lines.error(block[index].0, source))))
            }
            source => Err(CliError::Failed(format!("{}: {source}", lines.place(block[index].0)))),
        },
        Err(Error::NotFinite { index, logit }) => {
            let place = lines.place(block[index].0);
            Err(CliError::Failed(format!("{place}: the model gave {logit}, which is not a score")))
        }
        Err(error) => Err(error.into()),
    }
}

/// Where the scores go.
enum Sink {
    Stdout(Output),
    File(Box<Partial>),
}

impl Sink {
    fn line(&mut self, row: &str) -> Result<()> {
        match self {
            Self::Stdout(output) => output.line(row),
            Self::File(partial) => partial.line(row),
        }
    }

    fn flush(&mut self) -> Result<()> {
        match self {
            Self::Stdout(output) => output.flush(),
            Self::File(partial) => partial.flush(),
        }
    }

    fn finish(self) -> Result<()> {
        match self {
            Self::Stdout(mut output) => output.flush(),
            Self::File(partial) => partial.finish(),
        }
    }
}
