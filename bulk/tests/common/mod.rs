//! What the tests share: a tiny model, and pairs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Float32Type, Int64Type, Schema};
use datafusion::prelude::SessionContext;
use jointly::{CrossEncoder, LoadOptions, Pair, Score, ScoreOptions};
use jointly_bulk::output::{Format, Output};

pub fn model_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata").join(name).canonicalize().unwrap()
}

pub fn model() -> CrossEncoder {
    CrossEncoder::load(model_path("tiny-bert"), LoadOptions::new().threads(1)).unwrap()
}

/// Pairs of all lengths; every eighth query is another one.
pub fn pairs(count: usize) -> Vec<(String, String)> {
    let words =
        ["bridge", "jaguar", "no", "vaccine", "1897", "river", "\"quoted\"", "a, b", "Ärger", "line\nline"];
    (0..count)
        .map(|i| {
            let document: Vec<&str> = (0..(i * 7) % 40).map(|k| words[(i + k * k) % words.len()]).collect();
            (format!("how old is {} {}", words[(i / 8) % 5], i / 8), format!("{i} {}", document.join(" ")))
        })
        .collect()
}

pub fn scores(model: &CrossEncoder, pairs: &[(String, String)], options: &ScoreOptions) -> Vec<Score> {
    let pairs: Vec<Pair<'_>> = pairs.iter().map(|(query, document)| Pair { query, document }).collect();
    model.score_pairs_with(&pairs, options).unwrap()
}

pub fn bits(scores: &[Score]) -> Vec<u32> {
    scores.iter().map(|score| score.logit.to_bits()).collect()
}

/// Columns id (from 0), query and document.
pub fn batch(pairs: &[(String, String)]) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..pairs.len() as i64));
    let text = |text: fn(&(String, String)) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(pairs.iter().map(text)))
    };
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("query", DataType::Utf8, true),
        Field::new("document", DataType::Utf8, true),
    ]);
    let columns = vec![ids, text(|pair| &pair.0), text(|pair| &pair.1)];
    RecordBatch::try_new(Arc::new(schema), columns).unwrap()
}

pub fn write(path: &Path, batch: &RecordBatch) {
    let mut output = Output::open(Some(path), Format::of(path).unwrap(), &batch.schema()).unwrap();
    output.write(batch).unwrap();
    output.finish().unwrap();
}

/// The two columns that a query gives, however they are held: ids, and the bits of numbers in 32 bits.
pub async fn ids_and_bits(context: &SessionContext, sql: &str) -> Vec<(i64, u32)> {
    let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
    let mut rows = Vec::new();
    for batch in batches {
        let ids = cast(batch.column(0), &DataType::Int64).unwrap();
        let numbers = cast(batch.column(1), &DataType::Float32).unwrap();
        assert_eq!((ids.null_count(), numbers.null_count()), (0, 0));
        let ids = ids.as_primitive::<Int64Type>().values().to_vec();
        let numbers = numbers.as_primitive::<Float32Type>().values().to_vec();
        rows.extend(ids.into_iter().zip(numbers.into_iter().map(f32::to_bits)));
    }
    rows
}
