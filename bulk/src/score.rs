//! `jointly score` for Parquet: the pairs of a file, row by row, and on from where it stopped.
//!
//! Parquet cannot be appended to, so the output grows as parts in the folder `OUT.partial`, each of [`BLOCK_ROWS`] rows and
//! renamed when it is whole. `job.json` says which [`Job`] they are of. At the end they are put together.

use std::fs::{self, File, TryLockError};
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use datafusion::arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use datafusion::arrow::compute::BatchCoalescer;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datafusion::prelude::ident;
use futures::StreamExt;
use serde::{Deserialize, Serialize};

use crate::engine::{BATCH_ROWS, Engine, Identity, Problem};
use crate::error::{Error, Result};
use crate::functions::{as_text, column_fields, columns, fault};
use crate::model::{Global, ModelArguments, ScoringArguments};
use crate::output::{Format, Output, folder_of};
use crate::sql;
use crate::tables::{Files, place};

/// Rows of a part: what an interruption costs at most.
const BLOCK_ROWS: usize = BATCH_ROWS;

/// Score the pairs of a file, row by row, and go on after an interruption: what `jointly score` does with Parquet
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Input: columns `query` and `document`, and of `id`, `query_id` and `document_id` those that there are.
Output: `row` (of the input, from 1), the ids, `logit`, `score`, `probability` (of a calibrated model), `tokens`, `truncated`,
and `span_start` and `span_end` with windows. It grows in the folder FILE.partial; an interrupted run goes on where it
stopped when the same command is given again.")]
pub struct Score {
    /// The pairs: .parquet, .csv, .tsv or .jsonl
    #[arg(value_name = "PAIRS")]
    pairs: PathBuf,
    /// Write here: .parquet, .csv or .jsonl
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Replace the output file, and begin anew
    #[arg(long)]
    force: bool,
}

/// What parts belong to: going on with anything else would mix two outputs in one file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Job {
    input: PathBuf,
    input_bytes: u64,
    input_modified_ns: Option<u64>,
    model: Identity,
    /// Instruction set and device: another one rounds otherwise.
    processor: String,
    options: String,
}

impl Job {
    fn new(input: &Path, engine: &Engine, options: &jointly::ScoreOptions) -> Result<Self> {
        let at = |error: io::Error| Error::file(input, &error);
        let metadata = fs::metadata(input).map_err(at)?;
        let since = metadata.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        let info = engine.model().info();
        Ok(Self {
            input: fs::canonicalize(input).map_err(at)?,
            input_bytes: metadata.len(),
            input_modified_ns: since.map(|time| time.as_nanos() as u64),
            model: engine.identity().clone(),
            processor: format!("{}, {}", info.isa, info.device),
            options: format!("{options:?}"),
        })
    }

    /// What differs, for the message.
    fn difference(&self, earlier: &Self) -> &'static str {
        if self.input != earlier.input {
            "another input file"
        } else if (self.input_bytes, self.input_modified_ns)
            != (earlier.input_bytes, earlier.input_modified_ns)
        {
            "an input file that has been changed since"
        } else if self.processor != earlier.processor {
            "another instruction set (JOINTLY_ISA chooses one) or device"
        } else if self.options != earlier.options {
            "other options"
        } else if self.model.model == earlier.model.model {
            "another precision or calibration"
        } else {
            "another model"
        }
    }
}

impl Score {
    /// Scores the pairs that are not scored yet.
    ///
    /// # Errors
    /// If the input, the model or a file is at fault; what is said names the row.
    pub async fn run(
        self,
        model: &ModelArguments,
        scoring: &ScoringArguments,
        global: &Global,
    ) -> Result<()> {
        if let (Ok(input), Ok(output)) = (fs::canonicalize(&self.pairs), fs::canonicalize(&self.output))
            && input == output
        {
            return Err(Error::Input(format!("{} is both input and output", self.output.display())));
        }
        Output::check(Some(&self.output), self.force)?;
        let format = Format::of(&self.output)?;
        let name = self.pairs.to_string_lossy();
        if name.contains(['*', '?', '[']) && !self.pairs.exists() {
            return Err(Error::Input(format!("{name}: one file is scored; `jointly sql` takes patterns")));
        }
        let engine = model.load(global, None)?;
        let scoring = scoring.scoring();
        let (options, has_spans) = (scoring.options(false), scoring.windows);
        let context = sql::local(&engine, scoring)?;
        let table = Files::new(context.state()).open(&name).await?;
        let schema = table.schema();
        for text in ["query", "document"] {
            check_text(&schema, text, &name)?;
        }
        let job = Job::new(&self.pairs, &engine, &options)?;
        let parts = Parts::open(&self.output, &job, self.force)?;
        let done = parts.done()?;
        if done > 0 && !global.quiet {
            crate::say(format_args!("going on after row {}", done * BLOCK_ROWS));
        }
        let progress =
            (!global.quiet && io::stderr().is_terminal()).then(|| sql::report(Arc::clone(&engine)));

        let ids =
            ["id", "query_id", "document_id"].into_iter().filter(|id| schema.field_with_name(id).is_ok());
        let wanted: Vec<_> = ["query", "document"].into_iter().chain(ids).map(ident).collect();
        let frame = context.read_table(table)?.select(wanted)?.limit(done * BLOCK_ROWS, None)?;
        let in_schema = Arc::clone(frame.schema().inner());
        let is_calibrated = engine.model().calibration().is_some();
        let schema = out_schema(&in_schema, is_calibrated, has_spans);
        let mut batches = frame.execute_stream().await?;
        let mut blocks = BatchCoalescer::new(in_schema, BLOCK_ROWS);
        let mut number = done;
        let mut is_end = false;
        while !is_end {
            match batches.next().await.transpose()? {
                Some(batch) => blocks.push_batch(batch)?,
                None => {
                    blocks.finish_buffered_batch()?;
                    is_end = true;
                }
            }
            while let Some(block) = blocks.next_completed_batch() {
                let first = number * BLOCK_ROWS;
                let scored = score_block(&engine, &options, &block, first).map_err(|(problem, row)| {
                    let place = place(&self.pairs, first + row);
                    let fault = fault(problem, ["query", "document"]);
                    let message = format!("{place}: {}", fault.message);
                    if fault.is_input { Error::Input(message) } else { Error::Failed(message) }
                })?;
                parts.write(number, &project(&scored, &schema)?)?;
                number += 1;
            }
        }
        if let Some(progress) = progress {
            progress.abort();
        }
        parts.finish(number, &schema, (&self.output, format))
    }
}

fn check_text(schema: &SchemaRef, column: &str, file: &str) -> Result<()> {
    let Ok(field) = schema.field_with_name(column) else {
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        return Err(Error::Input(format!("{file}: no column {column}; there are {}", names.join(", "))));
    };
    match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => Ok(()),
        DataType::Dictionary(_, values) if matches!(**values, DataType::Utf8 | DataType::LargeUtf8) => Ok(()),
        other => Err(Error::Input(format!(
            "{file}: column {column} is {other}, and has to be text; `jointly sql` can CAST it"
        ))),
    }
}

/// Row, ids, and the values of scores that there can be.
fn out_schema(input: &Schema, is_calibrated: bool, has_spans: bool) -> SchemaRef {
    let mut fields = vec![Arc::new(Field::new("row", DataType::UInt64, false))];
    fields.extend(input.fields().iter().skip(2).cloned());
    let wanted = |name: &str| match name {
        "probability" => is_calibrated,
        "windows" | "span_start" | "span_end" => has_spans,
        _ => true,
    };
    fields.extend(column_fields().iter().filter(|field| wanted(field.name())).cloned());
    Arc::new(Schema::new(fields))
}

/// The columns of `schema`, out of more.
fn project(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let column = |field: &Arc<Field>| batch.column_by_name(field.name()).cloned();
    let columns: Option<Vec<ArrayRef>> = schema.fields().iter().map(column).collect();
    let columns = columns.ok_or_else(|| Error::Failed("a column of the output was not computed".into()))?;
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// All columns that an output can have; else what is wrong, and with which row of the block.
fn score_block(
    engine: &Engine,
    options: &jointly::ScoreOptions,
    block: &RecordBatch,
    first: usize,
) -> std::result::Result<RecordBatch, (Problem, usize)> {
    let other = |error: datafusion::arrow::error::ArrowError| {
        let problem = jointly::Error::InvalidOption { option: "input", problem: error.to_string() };
        (Problem::All(problem), 0)
    };
    let queries = as_text(block.column(0)).map_err(other)?;
    let documents = as_text(block.column(1)).map_err(other)?;
    let scores = engine.scores(&queries, &documents, options).map_err(|problem| {
        let row = match &problem {
            Problem::NullQuery(row) | Problem::Row(row, _) => *row,
            Problem::All(_) => 0,
        };
        (problem, row)
    })?;
    let rows: UInt64Array = (0..block.num_rows()).map(|row| (first + row + 1) as u64).collect();
    let mut fields = vec![Arc::new(Field::new("row", DataType::UInt64, false))];
    fields.extend(block.schema().fields().iter().skip(2).cloned());
    fields.extend(column_fields().iter().cloned());
    let mut arrays: Vec<ArrayRef> = vec![Arc::new(rows)];
    arrays.extend(block.columns().iter().skip(2).cloned());
    arrays.extend(columns(&scores));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(other)
}

/// The folder of parts.
struct Parts {
    folder: PathBuf,
    /// Locked as long as this process writes here.
    _lock: File,
}

impl Parts {
    fn open(output: &Path, job: &Job, force: bool) -> Result<Self> {
        let mut folder = output.as_os_str().to_owned();
        folder.push(".partial");
        let folder = PathBuf::from(folder);
        fs::create_dir_all(&folder).map_err(|error| Error::file(&folder, &error))?;
        let at = |path: &Path| {
            let path = path.to_path_buf();
            move |error: io::Error| Error::file(&path, &error)
        };
        let lock = folder.join("lock");
        let lock_file = File::create(&lock).map_err(at(&lock))?;
        match lock_file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Failed(format!("{}: another process is writing it", folder.display())));
            }
            // Not every file system has locks; on such a one the user takes care.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(Error::file(&lock, &error)),
        }
        // Another process may have finished since the first look.
        Output::check(Some(output), force)?;
        let parts = Self { folder, _lock: lock_file };
        let state = parts.folder.join("job.json");
        let earlier = match fs::read(&state) {
            Ok(text) => Some(serde_json::from_slice::<Job>(&text).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::file(&state, &error)),
        };
        match earlier {
            Some(Some(earlier)) if !force && earlier == *job => return Ok(parts),
            Some(earlier) if !force => {
                let difference = earlier
                    .map_or("something else, or its state is damaged", |earlier| job.difference(&earlier));
                return Err(Error::Input(format!(
                    "{}: begun with {difference}; give the same again, or --force to begin anew",
                    parts.folder.display()
                )));
            }
            _ => {}
        }
        // In this order: at no time does the state speak of parts that are not its own.
        match fs::remove_file(&state) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&state)(error)),
            _ => {}
        }
        for number in 0.. {
            match fs::remove_file(parts.path(number)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                result => result.map_err(at(&parts.path(number)))?,
            }
        }
        let text = serde_json::to_vec_pretty(job).map_err(|error| Error::Failed(error.to_string()))?;
        let new = parts.folder.join("job.json.new");
        // On the disk before it has its name, and its name before there are parts.
        fs::write(&new, text).and_then(|()| File::open(&new)?.sync_all()).map_err(at(&new))?;
        fs::rename(&new, &state).map_err(at(&state))?;
        sync_folder(&parts.folder)?;
        Ok(parts)
    }

    fn path(&self, number: usize) -> PathBuf {
        self.folder.join(format!("{number:08}.parquet"))
    }

    /// How many parts there are that need not be scored again: whole ones. The last may be shorter; it is scored again.
    fn done(&self) -> Result<usize> {
        let mut number = 0;
        while self.path(number).exists() && rows(&self.path(number))? == BLOCK_ROWS {
            number += 1;
        }
        Ok(number)
    }

    fn write(&self, number: usize, batch: &RecordBatch) -> Result<()> {
        let path = self.path(number);
        let mut output = Output::open(Some(&path), Format::Parquet, &batch.schema())?;
        output.write(batch)?;
        output.finish()?;
        sync_folder(&self.folder)
    }

    /// Puts the parts together, and takes them away.
    fn finish(self, count: usize, schema: &SchemaRef, (path, format): (&Path, Format)) -> Result<()> {
        // Not under OUT.partial, where the parts lie.
        let whole = self.folder.join("whole");
        let mut output = Output::open(Some(&whole), format, schema)?;
        for number in 0..count {
            let part = self.path(number);
            let file = File::open(&part).map_err(|error| Error::file(&part, &error))?;
            for batch in ParquetRecordBatchReaderBuilder::try_new(file)?.build()? {
                output.write(&batch?)?;
            }
        }
        output.finish()?;
        fs::rename(&whole, path).map_err(|error| Error::file(path, &error))?;
        // The parts go when the whole is there for good.
        sync_folder(folder_of(path))?;
        fs::remove_dir_all(&self.folder).map_err(|error| Error::file(&self.folder, &error))
    }
}

/// Has the names in a folder outlive a power cut. Where folders cannot be opened, the system does it in its own time.
fn sync_folder(folder: &Path) -> Result<()> {
    match File::open(folder) {
        Ok(opened) => opened.sync_all().map_err(|error| Error::file(folder, &error)),
        Err(_) => Ok(()),
    }
}

fn rows(path: &Path) -> Result<usize> {
    let file = File::open(path).map_err(|error| Error::file(path, &error))?;
    Ok(ParquetRecordBatchReaderBuilder::try_new(file)?.metadata().file_metadata().num_rows() as usize)
}
