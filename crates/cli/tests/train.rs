//! `jointly mine` and `jointly train`, as users run them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn jointly(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_jointly")).args(arguments).output().unwrap()
}

fn done(arguments: &[&str]) -> String {
    let output = jointly(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn refused(arguments: &[&str], status: i32) -> String {
    let output = jointly(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
    said
}

fn tiny() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/tiny-bert");
    path.to_str().unwrap().to_string()
}

const WORDS: [&str; 6] = ["oak", "river", "jaguar", "lungs", "bridge", "fog"];

/// Each word's query, and two passages about each.
fn collection(folder: &Path) {
    fs::create_dir_all(folder.join("qrels")).unwrap();
    let mut corpus = String::new();
    let mut queries = String::new();
    let mut qrels = String::from("query-id\tcorpus-id\tscore\n");
    for word in WORDS {
        for part in 0..2 {
            let text = format!("A passage about {word}, the {part}. of two.");
            corpus += &format!("{{\"_id\": \"{word}-{part}\", \"title\": \"\", \"text\": \"{text}\"}}\n");
        }
        queries += &format!("{{\"_id\": \"q-{word}\", \"text\": \"what about {word}\"}}\n");
        qrels += &format!("q-{word}\t{word}-0\t1\n");
    }
    fs::write(folder.join("corpus.jsonl"), corpus).unwrap();
    fs::write(folder.join("queries.jsonl"), queries).unwrap();
    fs::write(folder.join("qrels/train.tsv"), qrels).unwrap();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn from_a_collection_to_a_model() {
    let temporary = tempfile::tempdir().unwrap();
    let at = |name: &str| -> PathBuf { temporary.path().join(name) };
    let (folder, index, run, pools, model) =
        (at("collection"), at("index"), at("first.run"), at("pools.jsonl"), at("run"));
    collection(&folder);
    done(&["index", text(&folder), "-o", text(&index), "--quiet"]);
    done(&["retrieve", text(&index), "--queries", text(&folder), "-k", "6", "-o", text(&run), "--quiet"]);
    let one = format!("{}=3", text(&run));
    let mine = ["mine", text(&folder), "--run", &one, "--random", "1", "-o", text(&pools)];
    assert!(done(&mine).contains("6 queries; 6 known documents"));
    assert!(refused(&mine, 2).contains("--force replaces it"));
    // Without qrels no document is known; a split that is asked for must be there.
    let plain = temporary.path().join("plain");
    fs::create_dir(&plain).unwrap();
    for name in ["corpus.jsonl", "queries.jsonl"] {
        fs::copy(folder.join(name), plain.join(name)).unwrap();
    }
    let unlabelled = temporary.path().join("unlabelled.jsonl");
    let mine = ["mine", text(&plain), "--run", &one, "-o", text(&unlabelled)];
    assert!(done(&mine).contains("6 queries; 0 known documents, 0 others"));
    let split = [&mine[..], &["--force", "--split", "train"]].concat();
    assert!(refused(&split, 2).contains("qrels.tsv"));

    let train = |more: &[&str]| -> Vec<String> {
        let files = [&tiny(), "--data", text(&pools), "-o", text(&model), "--dev", text(&pools)];
        let options = ["--max-length", "40", "--queries", "3", "--lr", "1e-3"];
        ["train"].iter().chain(&files).chain(&options).chain(more).map(ToString::to_string).collect()
    };
    let call = |more: &[&str]| -> String {
        let arguments = train(more);
        done(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let said = call(&["--steps", "6"]);
    assert!(said.contains("final: after 6 updates") && said.contains("best: dev NDCG@10"), "{said}");
    // What was trained is a model like any other.
    let final_model = model.join("final");
    let ranking = done(&[
        "rerank",
        "--quiet",
        "--model",
        text(&final_model),
        "--query",
        "oak",
        &pools_text(&pools, temporary.path()),
    ]);
    assert!(!ranking.is_empty());
    let page = fs::read_to_string(model.join("report.html")).unwrap();
    assert!(page.contains("6 updates") && page.contains("<svg") && page.contains("Learning rate"));
    // The same command again has nothing left to do; another one is refused.
    assert!(call(&["--steps", "6"]).contains("after 6 updates"));
    let other = train(&["--steps", "7"]);
    let other: Vec<&str> = other.iter().map(String::as_str).collect();
    assert!(refused(&other, 2).contains("steps 6 there, 7 here"));
}

/// A file with a text a line.
fn pools_text(pools: &Path, folder: &Path) -> String {
    let first = fs::read_to_string(pools).unwrap();
    let first: serde_json::Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
    let texts: Vec<&str> = first["documents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|document| document["text"].as_str().unwrap())
        .collect();
    let path = folder.join("documents.txt");
    fs::write(&path, texts.join("\n")).unwrap();
    text(&path).to_string()
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let data = temporary.path().join("data.jsonl");
    let run = temporary.path().join("run");
    let line = r#"{"query": "q", "documents": [{"text": "a", "label": 2}, {"text": "b", "label": 0}]}"#;
    fs::write(&data, line).unwrap();
    let call = |model: &str, more: &[&str], status| {
        let mut arguments =
            vec!["train", model, "--data", text(&data), "-o", text(&run), "--max-length", "32"];
        arguments.extend(more);
        refused(&arguments, status)
    };
    assert!(call(&tiny(), &[], 2).contains("data.jsonl:1: document 0"), "bce wants probabilities");
    assert!(call(&tiny(), &["--loss", "hinge"], 2).contains("losses: mse"));
    assert!(
        call(&tiny(), &["--loss", "mse", "--freeze", "nothing."], 2).contains("no parameter's name begins")
    );
    let decoder = tiny().replace("tiny-bert", "tiny-qwen3");
    assert!(call(&decoder, &["--loss", "mse"], 1).contains("what can be trained is bert"));
}
