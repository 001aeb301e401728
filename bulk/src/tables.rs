//! Files as tables: `FROM 'pairs.parquet'`, `FROM 'logs/*.jsonl'`.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::csv::reader::Format as CsvRows;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{TableProvider, UrlTableFactory};
use datafusion::common::plan_err;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::datasource::source_as_provider;
use datafusion::error::Result;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::object_store::ObjectStore;
use datafusion::parquet::file::reader::{FileReader, SerializedFileReader};
use datafusion::prelude::{SessionConfig, SessionContext, ident};
use futures::{StreamExt, TryStreamExt};

use crate::functions::as_text;

/// Finds the files that a name in SQL means.
#[derive(Debug)]
pub struct Files {
    state: SessionState,
}

/// How a file is written.
#[derive(Debug, Clone, PartialEq)]
struct Form {
    kind: &'static str,
    compression: FileCompressionType,
    /// With which its name ends.
    ending: String,
}

/// The endings of names that say how a file is written.
const KINDS: [(&str, &str); 6] = [
    ("parquet", "parquet"),
    ("csv", "csv"),
    ("tsv", "tsv"),
    ("jsonl", "json"),
    ("ndjson", "json"),
    ("json", "json"),
];

/// Rows of a CSV file that say of what types its columns are.
const TYPED_ROWS: usize = 1000;

impl Files {
    /// For tables of this session.
    pub fn new(state: SessionState) -> Self {
        Self { state }
    }

    /// The files that a name or pattern means, as a table.
    ///
    /// # Errors
    /// If there are none, or they are not all written in one way that is known.
    pub async fn open(&self, name: &str) -> Result<Arc<ListingTable>> {
        let paths = self.expand(name).await?;
        let Some(form) = paths.first().and_then(|path| form(path)) else {
            let known: Vec<&str> = KINDS.iter().map(|(ending, _)| *ending).collect();
            return plan_err!("{name}: its name ends in none of .{}", known.join(", ."));
        };
        if let Some(other) = paths.iter().find(|path| self::form(path).as_ref() != Some(&form)) {
            return plan_err!("{name}: {} is not .{} like the first one", other.display(), form.ending);
        }
        self.table(&paths, &form).await
    }

    async fn table(&self, paths: &[PathBuf], form: &Form) -> Result<Arc<ListingTable>> {
        let urls = paths.iter().map(|path| url(path)).collect::<Result<Vec<_>>>()?;
        let delimiter = if form.kind == "tsv" { b'\t' } else { b',' };
        let is_csv = matches!(form.kind, "csv" | "tsv");
        let format: Arc<dyn FileFormat> = match form.kind {
            // Ballista's shuffles do not take views of strings yet.
            "parquet" => Arc::new(ParquetFormat::default().with_force_view_types(false)),
            "json" => Arc::new(JsonFormat::default().with_file_compression_type(form.compression)),
            _ => Arc::new(
                CsvFormat::default()
                    .with_has_header(true)
                    .with_delimiter(delimiter)
                    // Documents have lines. It keeps a file from being read by several at once.
                    .with_newlines_in_values(true)
                    .with_file_compression_type(form.compression),
            ),
        };
        let options = ListingOptions::new(format).with_file_extension(&form.ending);
        let config = ListingTableConfig::new_with_multi_paths(urls).with_listing_options(options);
        let config = if is_csv {
            config.with_schema(csv_schema(paths, delimiter, form.compression)?)
        } else {
            config.infer_schema(&self.state).await?
        };
        Ok(Arc::new(ListingTable::try_new(config)?))
    }

    /// A pattern is resolved here, once: who runs a piece of the query reads these files and no others.
    async fn expand(&self, name: &str) -> Result<Vec<PathBuf>> {
        if name.contains("://") {
            return plan_err!(
                "{name}: only files are read, by their path; mount or copy what lies elsewhere"
            );
        }
        if !name.contains(['*', '?', '[']) {
            let path = Path::new(name);
            return match path.metadata() {
                Ok(metadata) if metadata.is_dir() => {
                    plan_err!("{name}: is a folder; name its files, as {name}/*.parquet")
                }
                Ok(_) => Ok(vec![std::path::absolute(path)?]),
                Err(error) => plan_err!("{name}: {error}"),
            };
        }
        let pattern = ListingTableUrl::parse(name)?;
        let store = self.state.runtime_env().object_store(&pattern)?;
        // Not by way of the session, which remembers what lay in a folder.
        let found: Vec<_> = store.list(Some(pattern.prefix())).try_collect().await?;
        let mut paths: Vec<PathBuf> = found
            .into_iter()
            .filter(|file| pattern.contains(&file.location, true))
            .map(|file| Path::new("/").join(file.location.to_string()))
            .collect();
        paths.sort_unstable();
        if paths.is_empty() {
            return plan_err!("{name}: matches no file");
        }
        Ok(paths)
    }
}

#[async_trait]
impl UrlTableFactory for Files {
    async fn try_new(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        // Any other name is a mistake of another kind, which DataFusion describes well.
        if !name.contains(['.', '/', '*']) {
            return Ok(None);
        }
        Ok(Some(self.open(name).await?))
    }
}

/// Names and types of the columns of CSV files, by their first rows. DataFusion would look at pieces of a file, and takes a line
/// within a quoted text for the end of one.
fn csv_schema(paths: &[PathBuf], delimiter: u8, compression: FileCompressionType) -> Result<SchemaRef> {
    let format = CsvRows::default().with_header(true).with_delimiter(delimiter);
    let mut fields: Vec<Field> = Vec::new();
    for (index, path) in paths.iter().enumerate() {
        let file = BufReader::new(compression.convert_read(File::open(path)?)?);
        let (schema, _) = match format.infer_schema(file, Some(TYPED_ROWS)) {
            Ok(inferred) => inferred,
            Err(error) => return plan_err!("{}: {error}", path.display()),
        };
        let found: Vec<Field> = schema.fields().iter().map(|field| Field::clone(field)).collect();
        if index == 0 {
            fields = found;
            continue;
        }
        if !fields.iter().map(Field::name).eq(found.iter().map(Field::name)) {
            return plan_err!("{}: has not the columns of {}", path.display(), paths[0].display());
        }
        for (field, other) in fields.iter_mut().zip(found) {
            let either = match (field.data_type(), other.data_type()) {
                (a, b) if a == b => continue,
                (DataType::Null, other) => other.clone(),
                (known, DataType::Null) => known.clone(),
                (DataType::Int64 | DataType::Float64, DataType::Int64 | DataType::Float64) => {
                    DataType::Float64
                }
                _ => DataType::Utf8,
            };
            field.set_data_type(either);
        }
    }
    // Else what comes after these rows would be passed over in silence.
    for field in fields.iter_mut().filter(|field| field.data_type().is_null()) {
        field.set_data_type(DataType::Utf8);
    }
    Ok(Arc::new(Schema::new(fields)))
}

fn url(path: &Path) -> Result<ListingTableUrl> {
    // Not by its text, in which a bracket would be a pattern.
    match url::Url::from_file_path(path) {
        Ok(url) => ListingTableUrl::try_new(url, None),
        Err(()) => plan_err!("{}: is no path that can be read", path.display()),
    }
}

/// How a file is written, by its name: `x.csv`, `x.csv.gz`.
fn form(path: &Path) -> Option<Form> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let (stem, compression, packed) = match name.rsplit_once('.')? {
        (stem, "gz") => (stem, FileCompressionType::GZIP, ".gz"),
        (stem, "zst") => (stem, FileCompressionType::ZSTD, ".zst"),
        (stem, "bz2") => (stem, FileCompressionType::BZIP2, ".bz2"),
        (stem, "xz") => (stem, FileCompressionType::XZ, ".xz"),
        _ => (name.as_str(), FileCompressionType::UNCOMPRESSED, ""),
    };
    let (_, ending) = stem.rsplit_once('.')?;
    let (_, kind) = KINDS.into_iter().find(|(known, _)| *known == ending)?;
    // As written, not in lower case: it is compared with names.
    let end = path.file_name()?.to_str()?;
    let length = ending.len() + packed.len();
    Some(Form { kind, compression, ending: end.get(end.len() - length..)?.to_string() })
}

/// Where a query's tables have the first null or empty text in a column of this name: file, row and row group, in words; and whether
/// the query reads every row of one such table alone, so that it is the row that it stumbled over.
///
/// # Errors
/// If a file cannot be read.
pub async fn locate(plan: &LogicalPlan, column: &str) -> Result<Option<(String, bool)>> {
    let mut tables = Vec::new();
    let mut reads_all = true;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Ok(provider) = source_as_provider(&scan.source)
            && let Some(table) = provider.downcast_ref::<ListingTable>()
            && table.schema().field_with_name(column).is_ok()
        {
            tables.push((table.table_paths().clone(), table.options().clone(), table.schema()));
        }
        reads_all &= !matches!(node, LogicalPlan::Filter(_) | LogicalPlan::Join(_) | LogicalPlan::Limit(_));
        Ok(TreeNodeRecursion::Continue)
    })?;
    let is_it = reads_all && tables.len() == 1;
    // Here, whoever runs the query: rows are counted in the order of the file.
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    for (paths, options, schema) in tables {
        for path in paths {
            let config = ListingTableConfig::new(path.clone())
                .with_listing_options(options.clone())
                .with_schema(Arc::clone(&schema));
            let Ok(file) = path.get_url().to_file_path() else { continue };
            let table = context.read_table(Arc::new(ListingTable::try_new(config)?))?;
            let mut batches = table.select(vec![ident(column)])?.execute_stream().await?;
            let mut before = 0;
            while let Some(batch) = batches.next().await.transpose()? {
                let texts = as_text(batch.column(0))?;
                if let Some(row) =
                    texts.iter().position(|text| text.is_none_or(|text| text.trim().is_empty()))
                {
                    return Ok(Some((place(&file, before + row), is_it)));
                }
                before += batch.num_rows();
            }
        }
    }
    Ok(None)
}

/// A row of a file in words: counted from 1, with its row group if it has such.
pub fn place(file: &Path, row: usize) -> String {
    let group = File::open(file)
        .ok()
        .and_then(|opened| SerializedFileReader::new(opened).ok())
        .and_then(|reader| {
            let mut end = 0;
            reader.metadata().row_groups().iter().position(|group| {
                end += group.num_rows() as usize;
                row < end
            })
        })
        .map_or_else(String::new, |group| format!(" (row group {group})"));
    format!("{}: row {}{group}", file.display(), row + 1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_how_a_file_is_written() {
        let kind = |name: &str| form(Path::new(name)).map(|form| (form.kind, form.ending));
        assert_eq!(kind("a/x.parquet"), Some(("parquet", "parquet".into())));
        assert_eq!(kind("x.CSV.gz"), Some(("csv", "CSV.gz".into())));
        assert_eq!(kind("x.b.ndjson"), Some(("json", "ndjson".into())));
        assert_eq!(kind("x.tsv"), Some(("tsv", "tsv".into())));
        for none in ["x", "x.txt", "csv", "x.gz", "parquet"] {
            assert_eq!(kind(none), None, "{none}");
        }
        assert_eq!(form(Path::new("x.csv.zst")).unwrap().compression, FileCompressionType::ZSTD);
    }
}
