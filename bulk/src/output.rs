//! Writing what a query gives, batch after batch.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::csv::WriterBuilder as CsvBuilder;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::json::writer::{LineDelimited, WriterBuilder as JsonBuilder};
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::file::properties::WriterProperties;

use tempfile::TempPath;

use crate::error::{Error, Result};

/// Rows of a row group: what a task of a cluster reads at least, and what is held in memory until it is written.
pub const ROW_GROUP_ROWS: usize = 1 << 13;
/// Rows of a table that anybody reads.
const TABLE_ROWS: usize = 1000;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Parquet
    Parquet,
    /// Comma-separated, with a line of names
    Csv,
    /// JSON lines
    Jsonl,
    /// For people; on standard output only
    Table,
}

impl Format {
    /// The format that a file's name asks for.
    ///
    /// # Errors
    /// If its ending is none that can be written.
    pub fn of(path: &Path) -> Result<Self> {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
        match ending.as_deref() {
            Some("parquet") => Ok(Self::Parquet),
            Some("csv") => Ok(Self::Csv),
            Some("jsonl" | "ndjson") => Ok(Self::Jsonl),
            _ => Err(Error::Input(format!(
                "{}: its name ends in none of .parquet, .csv, .jsonl (--format says it otherwise)",
                path.display()
            ))),
        }
    }
}

/// Where rows go. A file appears under its name when it is whole; until then it lies beside it under a name of its own, and goes with
/// this.
pub struct Output {
    sink: Sink,
    file: Option<(Partial, PathBuf)>,
}

enum Sink {
    Parquet(Box<ArrowWriter<Target>>),
    Csv(Box<datafusion::arrow::csv::Writer<Target>>),
    Jsonl(datafusion::arrow::json::Writer<Target, LineDelimited>),
    Table { batches: Vec<RecordBatch>, schema: SchemaRef, rows: usize, target: Target },
}

type Target = Box<dyn Write + Send>;

impl Output {
    /// Refuses a file that exists, unless it may be replaced: to know before anything is computed.
    ///
    /// # Errors
    /// [`Error::Input`] if it exists.
    pub fn check(path: Option<&Path>, force: bool) -> Result<()> {
        match path.filter(|path| path.exists() && !force) {
            Some(path) => Err(Error::Input(format!("{} exists; --force replaces it", path.display()))),
            None => Ok(()),
        }
    }

    /// Opens a file, or standard output.
    ///
    /// # Errors
    /// If the file cannot be written, or the format cannot hold these columns.
    pub fn open(path: Option<&Path>, format: Format, schema: &SchemaRef) -> Result<Self> {
        if matches!(format, Format::Csv)
            && let Some(field) = schema.fields().iter().find(|field| field.data_type().is_nested())
        {
            return Err(Error::Input(format!(
                "column {} is a {}, and CSV has none: take a field of it, as in rerank(query, document)['logit']",
                field.name(),
                if matches!(field.data_type(), datafusion::arrow::datatypes::DataType::Struct(_)) {
                    "struct"
                } else {
                    "list"
                }
            )));
        }
        let (target, file): (Target, _) = match path {
            None => (Box::new(BufWriter::new(io::stdout())), None),
            Some(path) => {
                let (opened, partial) = Partial::beside(path).map_err(|error| Error::file(path, &error))?;
                (Box::new(BufWriter::new(opened)), Some((partial, path.to_path_buf())))
            }
        };
        let sink = match format {
            Format::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
                    .build();
                let schema = SchemaRef::clone(schema);
                Sink::Parquet(Box::new(ArrowWriter::try_new(target, schema, Some(properties))?))
            }
            Format::Csv => Sink::Csv(Box::new(CsvBuilder::new().with_header(true).build(target))),
            Format::Jsonl => Sink::Jsonl(JsonBuilder::new().with_explicit_nulls(true).build(target)),
            Format::Table => {
                Sink::Table { batches: Vec::new(), schema: SchemaRef::clone(schema), rows: 0, target }
            }
        };
        let mut output = Self { sink, file };
        if let Sink::Csv(_) = &output.sink {
            // So that there are names where there are no rows.
            output.write(&RecordBatch::new_empty(SchemaRef::clone(schema)))?;
        }
        Ok(output)
    }

    /// Writes rows.
    ///
    /// # Errors
    /// If they cannot be written; [`Error::ClosedPipe`] if whoever read them has gone.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match &mut self.sink {
            Sink::Parquet(writer) => writer.write(batch).map_err(Error::from),
            Sink::Csv(writer) => writer.write(batch).map_err(Error::from),
            Sink::Jsonl(writer) => writer.write(batch).map_err(Error::from),
            Sink::Table { batches, rows, .. } => {
                let room = TABLE_ROWS.saturating_sub(*rows).min(batch.num_rows());
                *rows += batch.num_rows();
                if room > 0 {
                    batches.push(batch.slice(0, room));
                }
                Ok(())
            }
        }
        .map_err(closed)
    }

    /// Writes what is still held, and gives the file its name.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(self) -> Result<()> {
        let flushed = match self.sink {
            Sink::Parquet(writer) => {
                let mut target = writer.into_inner().map_err(Error::from)?;
                target.flush()
            }
            Sink::Csv(writer) => writer.into_inner().flush(),
            Sink::Jsonl(mut writer) => {
                writer.finish().map_err(Error::from).map_err(closed)?;
                writer.into_inner().flush()
            }
            Sink::Table { batches, schema, rows, mut target } => {
                let table = if batches.is_empty() {
                    pretty_format_batches(&[RecordBatch::new_empty(schema)])?
                } else {
                    pretty_format_batches(&batches)?
                };
                let more = rows.saturating_sub(TABLE_ROWS);
                writeln!(target, "{table}")
                    .and_then(|()| match more {
                        0 => Ok(()),
                        _ => writeln!(target, "{more} more rows: -o FILE or --format csv writes all"),
                    })
                    .and_then(|()| target.flush())
            }
        };
        let place = self.file.as_ref().map_or(Path::new("standard output"), |(_, path)| path);
        flushed.map_err(|error| Error::file(place, &error))?;
        if let Some((partial, path)) = self.file {
            partial.persist(&path).map_err(|error| Error::file(&path, &error))?;
        }
        Ok(())
    }
}

/// The folder that a file lies in.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The files that are not whole yet.
static PARTIAL: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn partial() -> MutexGuard<'static, Vec<PathBuf>> {
    PARTIAL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes the files that are not whole: for a program that ends in the middle of its work.
pub fn remove_partial() {
    for path in partial().drain(..) {
        // It may have been given its name, or have been removed.
        let _ = std::fs::remove_file(path);
    }
}

/// A file that is not whole yet; it goes with this.
struct Partial(TempPath);

impl Partial {
    /// A new one in the folder of `path`, with the rights of any other new file.
    fn beside(path: &Path) -> io::Result<(File, Self)> {
        let mut prefix = OsString::from(".");
        prefix.push(path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::IsADirectory))?);
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(".partial");
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let (file, path) = builder.tempfile_in(folder_of(path))?.into_parts();
        partial().push(path.to_path_buf());
        Ok((file, Self(path)))
    }

    /// Gives it its name, when what it holds is on the disk.
    fn persist(self, path: &Path) -> io::Result<()> {
        File::open(&self.0)?.sync_all()?;
        std::fs::rename(&self.0, path)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        partial().retain(|path| *path != *self.0);
    }
}

/// A closed pipe is told by its text: Arrow's writers keep no more of an error.
fn closed(error: Error) -> Error {
    if error.to_string().contains("Broken pipe") { Error::ClosedPipe } else { error }
}
