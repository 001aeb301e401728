//! SQL on one machine, against the library.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use common::{batch, bits, ids_and_bits, model, pairs, scores, write};
use datafusion::arrow::array::{Array, AsArray, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{Float32Type, UInt32Type, UInt64Type};
use datafusion::prelude::SessionContext;
use jointly::calibration::{Calibration, ProbabilityMap};
use jointly::{CrossEncoder, LoadOptions, Long, ScoreOptions, WindowOptions};
use jointly_bulk::Error;
use jointly_bulk::engine::{Engine, Scoring};
use jointly_bulk::output::Format;
use jointly_bulk::sql;

fn context(model: CrossEncoder) -> SessionContext {
    sql::local(&Arc::new(Engine::new(model, None).unwrap()), Scoring::default()).unwrap()
}

#[tokio::test]
async fn every_format_in_and_out_has_the_librarys_bits() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let pairs = pairs(300);
    let expected: Vec<(i64, u32)> = bits(&scores(&model(), &pairs, &ScoreOptions::new()))
        .into_iter()
        .zip(0..)
        .map(|(bits, id)| (id, bits))
        .collect();
    for name in ["in.parquet", "in.csv", "in.jsonl"] {
        write(&at(name), &batch(&pairs));
    }
    fs::copy(at("in.jsonl"), at("in.ndjson")).unwrap();
    let context = context(model());
    for input in ["in.parquet", "in.csv", "in.jsonl", "in.ndjson"] {
        for output in ["out.parquet", "out.csv", "out.jsonl"] {
            let sql =
                format!("SELECT id, rerank_logit(query, document) AS logit FROM '{}'", at(input).display());
            let path = at(output);
            let _ = fs::remove_file(&path);
            sql::run(&context, &sql, Some(&path), Format::of(&path).unwrap()).await.unwrap();
            // The session remembers the tables that it has seen.
            let read = self::context(model());
            let found = ids_and_bits(&read, &format!("SELECT * FROM '{}'", path.display())).await;
            assert_eq!(found, expected, "{input} to {output}");
        }
    }
}

#[tokio::test]
async fn tab_separated_and_packed_files_and_patterns() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("x.tsv"), "query\tdocument\nhow old\tit is, old\n").unwrap();
    let context = context(model());
    let sql = format!("SELECT 0, rerank_logit(query, document) FROM '{}'", at("x.tsv").display());
    let pair = [("how old".to_string(), "it is, old".to_string())];
    let expected = bits(&scores(&model(), &pair, &ScoreOptions::new()));
    assert_eq!(ids_and_bits(&context, &sql).await, [(0, expected[0])]);

    // A text that comes late is a text.
    let late = format!("id,query,document\n{}0,how old,\"it is, old\"\n", "1,a,\n".repeat(1500));
    fs::write(at("late.csv"), late).unwrap();
    let file = at("late.csv").display().to_string();
    let sql = format!("SELECT id, rerank_logit(query, document) FROM '{file}' WHERE id = 0");
    assert_eq!(ids_and_bits(&context, &sql).await, [(0, expected[0])]);

    // A column is of the type that holds it in all files.
    fs::write(at("id-1.csv"), "id,query,document\n1,a,b\n").unwrap();
    fs::write(at("id-2.csv"), "id,query,document\nx,how old,\"it is, old\"\n").unwrap();
    let files = at("id-*.csv").display().to_string();
    let sql = format!("SELECT 0, rerank_logit(query, document) FROM '{files}' WHERE id = 'x'");
    assert_eq!(ids_and_bits(&context, &sql).await, [(0, expected[0])]);

    let all = pairs(60);
    write(&at("part-1.parquet"), &batch(&all).slice(0, 25));
    write(&at("part-2.parquet"), &batch(&all).slice(25, 35));
    let pattern = at("part-*.parquet");
    let sql = format!("SELECT id, rerank_logit(query, document) FROM '{}'", pattern.display());
    let expected = bits(&scores(&model(), &all, &ScoreOptions::new()));
    let found = ids_and_bits(&context, &sql).await;
    assert_eq!(found, (0..).zip(expected).collect::<Vec<_>>(), "in the order of the files");
}

async fn one_batch(context: &SessionContext, sql: &str) -> RecordBatch {
    let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
    assert_eq!(batches.len(), 1, "{sql}");
    batches[0].clone()
}

#[tokio::test]
async fn each_function_gives_what_the_library_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("calibration.json");
    let map = ProbabilityMap::Platt { a: 1.5, b: -0.25 };
    let calibration = Calibration::new(model().files(), map).unwrap();
    fs::write(&path, serde_json::to_string(&calibration).unwrap()).unwrap();
    let calibrated = || {
        let options = LoadOptions::new().threads(1).calibration(&path);
        CrossEncoder::load(common::model_path("tiny-bert"), options).unwrap()
    };
    // Documents of up to some 400 tokens, for a model that reads 96.
    let long: Vec<(String, String)> =
        pairs(24).into_iter().map(|(query, document)| (query, document.repeat(9))).collect();
    let file = folder.path().join("x.parquet");
    write(&file, &batch(&long));
    let context = context(calibrated());
    let found = one_batch(
        &context,
        &format!(
            "SELECT rerank(query, document) AS r, rerank_score(query, document) AS s,
                    rerank_probability(query, document) AS p, rerank_span(query, document) AS span
             FROM '{}'",
            file.display()
        ),
    )
    .await;
    let plain = scores(&calibrated(), &long, &ScoreOptions::new());
    let windows = ScoreOptions::new().long(Long::Windows(WindowOptions::new()));
    let windows = scores(&calibrated(), &long, &windows);
    let all = found.column(0).as_struct();
    let float = |name: &str| all.column_by_name(name).unwrap().as_primitive::<Float32Type>().clone();
    let span = found.column(3).as_struct();
    let place = |name: &str| span.column_by_name(name).unwrap().as_primitive::<UInt64Type>().clone();
    let texts = span.column_by_name("text").unwrap().as_string::<i32>();
    let mut truncated = 0;
    for (row, score) in plain.iter().enumerate() {
        assert_eq!(float("logit").value(row).to_bits(), score.logit.to_bits());
        assert_eq!(float("score").value(row).to_bits(), score.score.to_bits());
        assert_eq!(found.column(1).as_primitive::<Float32Type>().value(row).to_bits(), score.score.to_bits());
        let probability = score.probability.unwrap();
        assert_eq!(float("probability").value(row), probability);
        assert_eq!(found.column(2).as_primitive::<Float32Type>().value(row), probability);
        let tokens = all.column_by_name("tokens").unwrap().as_primitive::<UInt32Type>();
        assert_eq!(tokens.value(row) as usize, score.tokens);
        assert_eq!(all.column_by_name("truncated").unwrap().as_boolean().value(row), score.truncated);
        truncated += usize::from(score.truncated);
        assert!(all.column_by_name("span_start").unwrap().is_null(row), "no windows were asked for");

        let best = windows[row].span.clone().unwrap();
        assert_eq!(
            (place("start").value(row) as usize, place("end").value(row) as usize),
            (best.start, best.end)
        );
        let text: String = long[row].1.chars().skip(best.start).take(best.len()).collect();
        assert_eq!(texts.value(row), text);
    }
    assert!(truncated > 0 && windows.iter().any(|score| score.windows > 1));
}

#[tokio::test]
async fn options_of_the_session_are_those_of_the_library() {
    let folder = tempfile::tempdir().unwrap();
    let long: Vec<(String, String)> =
        pairs(16).into_iter().map(|(query, document)| (query, document.repeat(9))).collect();
    let file = folder.path().join("x.parquet");
    write(&file, &batch(&long));
    let scoring = Scoring {
        windows: true,
        stride: Some(16),
        max_windows: Some(5),
        max_length: Some(64),
        ..Scoring::default()
    };
    let context = sql::local(&Arc::new(Engine::new(model(), None).unwrap()), scoring).unwrap();
    let sql = format!("SELECT id, rerank_logit(query, document) FROM '{}'", file.display());
    let options = ScoreOptions::new()
        .long(Long::Windows(WindowOptions::new().stride(16).max_windows(5)))
        .max_length(64);
    let expected = bits(&scores(&model(), &long, &options));
    assert_eq!(ids_and_bits(&context, &sql).await, (0..).zip(expected).collect::<Vec<_>>());
}

#[tokio::test]
async fn sorting_filtering_and_ranking_within_groups() {
    let folder = tempfile::tempdir().unwrap();
    let pairs = pairs(5000); // more than two batches
    let file = folder.path().join("x.parquet");
    write(&file, &batch(&pairs));
    let context = context(model());
    let scores = scores(&model(), &pairs, &ScoreOptions::new());
    let mut order: Vec<usize> = (0..pairs.len()).collect();
    order.sort_by(|&a, &b| scores[b].logit.total_cmp(&scores[a].logit).then(a.cmp(&b)));
    let half = scores[order[order.len() / 2]].logit;
    let expected: Vec<(i64, u32)> = order
        .iter()
        .filter(|&&i| scores[i].logit > half)
        .map(|&i| (i as i64, scores[i].logit.to_bits()))
        .collect();
    assert!(expected.len() > 1000);
    let sql = format!(
        "SELECT id, rerank_logit(query, document) AS logit FROM '{}'
         WHERE rerank_logit(query, document) > CAST({half} AS REAL) ORDER BY logit DESC, id",
        file.display()
    );
    assert_eq!(ids_and_bits(&context, &sql).await, expected);

    let sql = format!(
        "SELECT id, CAST(row_number() OVER (PARTITION BY query ORDER BY logit DESC, id) AS REAL) AS rank
         FROM (SELECT id, query, rerank_logit(query, document) AS logit FROM '{}') ORDER BY id",
        file.display()
    );
    let rank = |i: usize| {
        let group = i / 8 * 8..(i / 8 * 8 + 8).min(pairs.len());
        let better =
            |&j: &usize| scores[j].logit > scores[i].logit || (scores[j].logit == scores[i].logit && j < i);
        1 + group.filter(better).count()
    };
    let expected: Vec<(i64, u32)> =
        (0..pairs.len()).map(|i| (i as i64, (rank(i) as f32).to_bits())).collect();
    assert_eq!(ids_and_bits(&context, &sql).await, expected);
}

#[tokio::test]
async fn a_null_document_has_no_score() {
    let context = context(model());
    let sql = "SELECT rerank_score(q, d) AS s, rerank(q, d) AS r, rerank_span(q, d) AS span
               FROM (VALUES ('how old', 'very'), ('how old', NULL), ('how old', '')) AS t(q, d)";
    let found = one_batch(&context, sql).await;
    for column in found.columns() {
        assert_eq!((0..3).map(|row| column.is_null(row)).collect::<Vec<_>>(), [false, true, false]);
    }
}

#[tokio::test]
async fn what_cannot_be_done_is_said_with_file_row_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let context = context(model());
    let good = batch(&pairs(20_000));
    write(&at("good.parquet"), &good);
    let spoil = |row: usize, text: Option<&str>| {
        let queries = good.column(1).as_string::<i32>();
        let queries: StringArray =
            (0..good.num_rows()).map(|i| if i == row { text } else { Some(queries.value(i)) }).collect();
        let columns = vec![Arc::clone(good.column(0)), Arc::new(queries), Arc::clone(good.column(2))];
        RecordBatch::try_new(good.schema(), columns).unwrap()
    };
    write(&at("null.parquet"), &spoil(17_000, None));
    write(&at("empty.jsonl"), &spoil(7, Some("  ")));
    fs::write(at("x.txt"), "query\n").unwrap();

    let fails = async |sql: &str, file: &str, format: Format, parts: &[&str]| {
        let sql = sql.replace("$", &at(file).display().to_string());
        let output = at("out");
        let output = Some(output.as_path()).filter(|_| format != Format::Table);
        let Err(error) = sql::run(&context, &sql, output, format).await else { panic!("{sql}") };
        let Error::Input(message) = &error else { panic!("{sql}: {error:?}") };
        for part in parts {
            assert!(message.contains(part), "{sql}: {message:?} does not say {part:?}");
        }
        assert!(!at("out").exists());
    };
    let score = "SELECT rerank_score(query, document) FROM '$'";
    let null = ["null.parquet: row 17001 (row group 2)", "column query is null"];
    fails(score, "null.parquet", Format::Csv, &null).await;
    let some = "SELECT rerank_score(query, document) FROM '$' WHERE document IS NOT NULL";
    let null = [
        "column query is null",
        "leaves such rows out; the first null or empty one in the file is",
        "null.parquet: row 17001 (row group 2)",
    ];
    fails(some, "null.parquet", Format::Csv, &null).await;
    fails(score, "empty.jsonl", Format::Csv, &["empty.jsonl: row 8: column query is empty"]).await;
    fails(
        "SELECT rerank_score(id, document) FROM '$'",
        "good.parquet",
        Format::Csv,
        &["rerank_score", "column id is Int64", "CAST(id AS VARCHAR)"],
    )
    .await;
    fails("SELECT rerank_score(query) FROM '$'", "good.parquet", Format::Csv, &["rerank_score"]).await;
    fails("SELECT nothing FROM '$'", "good.parquet", Format::Csv, &["nothing"]).await;
    fails("SELECT rerank_thing(query) FROM '$'", "good.parquet", Format::Csv, &["rerank_thing"]).await;
    fails(score, "absent.parquet", Format::Csv, &["absent.parquet", "No such file"]).await;
    fails(score, "absent-*.parquet", Format::Csv, &["absent-*.parquet", "matches no file"]).await;
    fails(score, "*.*", Format::Csv, &["*.*"]).await;
    fs::write(at("one-1.csv"), "query,document\na,b\n").unwrap();
    fs::write(at("one-2.csv"), "query,text\na,b\n").unwrap();
    fails(score, "one-*.csv", Format::Csv, &["one-2.csv", "not the columns of", "one-1.csv"]).await;
    fails(score, "x.txt", Format::Csv, &["x.txt", ".parquet"]).await;
    fails(score, "", Format::Csv, &["is a folder"]).await;
    fails("SELECT 1 FROM 's3://x/y.parquet'", "", Format::Csv, &["only files"]).await;
    fails(
        "SELECT rerank(query, document) AS r FROM '$'",
        "good.parquet",
        Format::Csv,
        &["column r is a struct"],
    )
    .await;
    fails(
        "SELECT rerank_probability(query, document) FROM '$'",
        "good.parquet",
        Format::Csv,
        &["no calibration"],
    )
    .await;
    fails("COPY (SELECT 1) TO '$'", "out.csv", Format::Table, &["DML"]).await;
    fails("CREATE TABLE t (x INT)", "", Format::Table, &["DDL"]).await;
    fails("SELEC 1", "", Format::Table, &["SELEC"]).await;
    assert!(
        matches!(Format::of(Path::new("x.txt")), Err(Error::Input(message)) if message.contains("x.txt"))
    );
}
