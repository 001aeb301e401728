//! `jointly-sql score`, the built program: killed, and gone on.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use common::{batch, bits, ids_and_bits, model, model_path, pairs, scores, write};
use datafusion::arrow::array::{AsArray, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use jointly::ScoreOptions;
use jointly_bulk::engine::{Engine, Scoring};
use jointly_bulk::sql;

fn score(pairs: &Path, output: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jointly-sql"));
    command.arg("score").arg(pairs).arg("-o").arg(output).arg("--model").arg(model_path("tiny-bert"));
    command.args(["--threads", "1"]).env("JOINTLY_PACKED_CACHE", "off");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[track_caller]
fn ok(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    errors
}

#[track_caller]
fn fails(output: &Output, parts: &[&str]) {
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(parts.iter().all(|part| errors.contains(part)), "{errors:?} does not say {parts:?}");
}

async fn read(path: &Path) -> Vec<(i64, u32)> {
    let context = sql::local(&Arc::new(Engine::new(model(), None).unwrap()), Scoring::default()).unwrap();
    ids_and_bits(&context, &format!("SELECT id, logit FROM '{}' ORDER BY \"row\"", path.display())).await
}

#[tokio::test]
async fn what_was_killed_goes_on_and_has_every_pair_once_with_the_librarys_bits() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let pairs = pairs(30_000);
    write(&at("pairs.parquet"), &batch(&pairs));
    let expected: Vec<(i64, u32)> =
        (0..).zip(bits(&scores(&model(), &pairs, &ScoreOptions::new()))).collect();

    let mut killed = score(&at("pairs.parquet"), &at("out.parquet")).spawn().unwrap();
    while !at("out.parquet.partial/00000001.parquet").exists() {
        assert!(killed.try_wait().unwrap().is_none(), "it ended before it could be killed");
        std::thread::sleep(Duration::from_millis(2));
    }
    killed.kill().unwrap(); // SIGKILL
    killed.wait().unwrap();
    assert!(!at("out.parquet").exists());
    let parts = fs::read_dir(at("out.parquet.partial")).unwrap().count();

    // With anything else it does not go on.
    let other =
        score(&at("pairs.parquet"), &at("out.parquet")).args(["--max-length", "50"]).output().unwrap();
    fails(&other, &["out.parquet.partial", "other options", "--force"]);

    let said = ok(&score(&at("pairs.parquet"), &at("out.parquet")).output().unwrap());
    assert!(said.contains("going on after row"), "{said} ({parts} files)");
    assert_eq!(read(&at("out.parquet")).await, expected);
    assert!(!at("out.parquet.partial").exists());

    fails(&score(&at("pairs.parquet"), &at("out.parquet")).output().unwrap(), &["exists", "--force"]);
    ok(&score(&at("pairs.parquet"), &at("out.parquet")).arg("--force").output().unwrap());
    assert_eq!(read(&at("out.parquet")).await, expected);
}

#[tokio::test]
async fn formats_mix_and_the_columns_are_those_of_the_help() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let pairs = pairs(50);
    write(&at("pairs.jsonl"), &batch(&pairs));
    write(&at("pairs.parquet"), &batch(&pairs));
    let expected: Vec<(i64, u32)> =
        (0..).zip(bits(&scores(&model(), &pairs, &ScoreOptions::new()))).collect();
    for (input, output) in
        [("pairs.jsonl", "a.parquet"), ("pairs.parquet", "b.jsonl"), ("pairs.parquet", "c.csv")]
    {
        ok(&score(&at(input), &at(output)).output().unwrap());
        assert_eq!(read(&at(output)).await, expected, "{input} to {output}");
    }
    let names = |file: &str| fs::read_to_string(at(file)).unwrap().lines().next().unwrap().to_string();
    assert_eq!(names("c.csv"), "row,id,logit,score,tokens,truncated");
    ok(&score(&at("pairs.parquet"), &at("d.csv")).args(["--long", "windows"]).output().unwrap());
    assert_eq!(names("d.csv"), "row,id,logit,score,tokens,truncated,windows,span_start,span_end");

    // No pairs are scored as well.
    write(&at("none.parquet"), &batch(&[]));
    ok(&score(&at("none.parquet"), &at("e.csv")).output().unwrap());
    assert_eq!(fs::read_to_string(at("e.csv")).unwrap(), "row,id,logit,score,tokens,truncated\n");
}

#[test]
fn wrong_input_is_said_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let good = batch(&pairs(10_000));
    let queries = good.column(1).as_string::<i32>();
    let queries: StringArray = (0..10_000).map(|i| (i != 9000).then(|| queries.value(i))).collect();
    let columns = vec![Arc::clone(good.column(0)), Arc::new(queries), Arc::clone(good.column(2))];
    write(&at("null.parquet"), &RecordBatch::try_new(good.schema(), columns).unwrap());
    let output = score(&at("null.parquet"), &at("out.csv")).output().unwrap();
    fails(&output, &["null.parquet: row 9001 (row group 1): column query is null"]);

    let schema = Schema::new(vec![
        Field::new("query", DataType::Utf8, true),
        Field::new("document", DataType::Int64, true),
    ]);
    let columns: Vec<Arc<dyn datafusion::arrow::array::Array>> =
        vec![Arc::new(StringArray::from(vec!["x"])), Arc::new(Int64Array::from(vec![1]))];
    write(&at("type.parquet"), &RecordBatch::try_new(Arc::new(schema), columns).unwrap());
    fails(
        &score(&at("type.parquet"), &at("x.csv")).output().unwrap(),
        &["type.parquet: column document is Int64", "text"],
    );
    write(&at("column.parquet"), &good.project(&[0, 1]).unwrap());
    fails(
        &score(&at("column.parquet"), &at("x.csv")).output().unwrap(),
        &["no column document; there are id, query"],
    );
    fails(&score(&at("absent.parquet"), &at("x.csv")).output().unwrap(), &["absent.parquet"]);
    fails(&score(&at("column.parquet"), &at("x.txt")).output().unwrap(), &["x.txt", ".jsonl"]);
    fails(&score(&at("*.parquet"), &at("x.csv")).output().unwrap(), &["one file", "patterns"]);
    let itself = score(&at("null.parquet"), &at("null.parquet")).arg("--force").output().unwrap();
    fails(&itself, &["null.parquet is both input and output"]);
    assert!(at("null.parquet").exists());
}
