//! Bi-encoders against Transformers in fp32, on the tiny checkpoints of `testdata/embed-*`; and a text's vector is
//! bit-identical alone, in any batch, and on any number of threads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::testdata;
use jointly::rank::{Budget, Cascade, Distinct, Embedded, Request, Stop};
use jointly::{BiEncoder, CrossEncoder, LoadOptions, Precision, Role};
use serde::Deserialize;

/// The bar of the project, on each value of a vector of length 1.
const MAX_DIFFERENCE: f32 = 1e-4;

#[derive(Deserialize)]
struct Expected {
    texts: Vec<ExpectedText>,
}

#[derive(Deserialize)]
struct ExpectedText {
    role: String,
    text: String,
    tokens: usize,
    truncated: bool,
    embedding: Vec<f32>,
}

impl ExpectedText {
    fn role(&self) -> Role {
        match self.role.as_str() {
            "query" => Role::Query,
            "document" => Role::Document,
            other => panic!("{other}"),
        }
    }
}

const FOLDERS: [&str; 2] = ["embed-bert", "embed-mpnet"];

fn load(name: &str, options: LoadOptions) -> (BiEncoder, Vec<ExpectedText>) {
    let folder = testdata().join(name);
    let expected: Expected =
        serde_json::from_slice(&fs::read(folder.join("embeddings.json")).unwrap()).unwrap();
    (BiEncoder::load(folder, options).unwrap(), expected.texts)
}

#[test]
fn every_vector_equals_transformers() {
    for name in FOLDERS {
        let (model, texts) = load(name, LoadOptions::new());
        assert!(texts.iter().any(|text| text.truncated), "{name}: one text is longer than the model reads");
        let mut largest = 0.0_f32;
        for text in &texts {
            let encoded = model.encode(&text.text, text.role()).unwrap();
            assert_eq!(
                (encoded.input_ids.len(), encoded.truncated()),
                (text.tokens, text.truncated),
                "{name}: {:?}",
                text.text
            );
            let found = model.embed(&[&text.text], text.role()).unwrap();
            assert_eq!((found.rows, found.cols), (1, text.embedding.len()), "{name}");
            for (a, b) in found.row(0).iter().zip(&text.embedding) {
                largest = largest.max((a - b).abs());
            }
        }
        assert!(largest <= MAX_DIFFERENCE, "{name}: a value differs by {largest}");
        println!("{name}: {} texts, largest difference {largest:e}", texts.len());
    }
}

#[test]
fn prompts_make_a_query_another_vector_than_a_document() {
    let same = |name| {
        let (model, _) = load(name, LoadOptions::new());
        let vector = |role| model.embed(&["jaguar speed"], role).unwrap();
        vector(Role::Query) == vector(Role::Document)
    };
    assert!(same("embed-bert"), "it has no prompts");
    assert!(!same("embed-mpnet"), "it has two");
}

#[test]
fn a_vector_does_not_depend_on_its_neighbours_or_on_threads() {
    for name in FOLDERS {
        for precision in Precision::ALL {
            let options = |threads| LoadOptions::new().precision(precision).threads(threads);
            let (alone, texts) = load(name, options(1));
            // More than are computed at a time.
            let texts: Vec<&str> = texts.iter().map(|text| text.text.as_str()).cycle().take(2100).collect();
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            for threads in [1, 2, 5] {
                let together = load(name, options(threads)).0.embed(&texts, Role::Document).unwrap();
                for row in (0..40).chain(2040..2100) {
                    let one = alone.embed(&texts[row..=row], Role::Document).unwrap();
                    assert_eq!(
                        bits(together.row(row)),
                        bits(one.row(0)),
                        "{name} in {precision}, {threads} threads, text {row}"
                    );
                }
            }
        }
    }
}

#[test]
fn no_texts_give_no_vectors() {
    let (model, _) = load("embed-bert", LoadOptions::new());
    let none: [&str; 0] = [];
    assert_eq!(model.embed(&none, Role::Query).unwrap().rows, 0);
}

/// What a likeness by vectors costs is spent from the query's budget, batch by batch.
#[test]
fn likeness_by_vectors_keeps_to_the_budget() {
    let (model, _) = load("embed-bert", LoadOptions::new());
    let texts: Vec<String> = (0..40).map(|i| format!("The bridge of number {i} fell.")).collect();
    let tokens = |texts: &[String]| -> u64 {
        texts.iter().map(|text| model.encode(text, Role::Document).unwrap().input_ids.len() as u64).sum()
    };
    let cascade = Cascade::new().stage(Distinct::new(0.9, Embedded::new(&model)).unwrap());
    let documents: Vec<&str> = texts.iter().map(String::as_str).collect();
    let run = |budget| cascade.run(&Request::new("bridge", &documents).budget(budget)).unwrap();
    let all = run(Budget::new());
    assert_eq!((all.spent.tokens, all.stop), (tokens(&texts), None));
    let some = run(Budget::new().tokens(1));
    assert_eq!((some.spent.tokens, some.stop), (tokens(&texts[..16]), Some(Stop::Tokens)));
    assert_eq!(some.hits.iter().map(|placed| placed.index).collect::<Vec<_>>(), (0..40).collect::<Vec<_>>());
}

/// A copy of `embed-bert` with a file written anew.
fn changed(file: &str, content: &str) -> (tempfile::TempDir, PathBuf) {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let to = to.join(path.file_name().unwrap());
            if path.is_dir() { copy(&path, &to) } else { _ = fs::copy(&path, to).unwrap() }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    copy(&testdata().join("embed-bert"), &path);
    fs::write(path.join(file), content).unwrap();
    (folder, path)
}

#[test]
fn what_is_no_bi_encoder_is_refused_and_the_message_says_why() {
    let fails = |path: &Path, message: &str| {
        let error = BiEncoder::load(path, LoadOptions::new()).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    };
    fails(&testdata().join("tiny-bert"), "modules.json: type: there is no such file; a bi-encoder is");
    fails(&testdata().join("tiny-ettin"), "the modules give one value, which is a score");
    fails(&testdata().join("tiny-zerank"), "the modules give one value, which is a score");
    let transformer = r#"{"path": "", "type": "sentence_transformers.models.Transformer"}"#;
    let pooling = r#"{"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}"#;
    for (file, content, message) in [
        ("modules.json", format!("[{transformer}]"), "nothing follows the transformer"),
        (
            "modules.json",
            format!(r#"[{transformer}, {pooling}, {{"path": "x", "type": "a.WeightedLayerPooling"}}]"#),
            "has WeightedLayerPooling where a module is looked for",
        ),
        (
            "1_Pooling/config.json",
            r#"{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true}"#.into(),
            "not exactly one of cls, mean",
        ),
        ("sentence_bert_config.json", r#"{"max_seq_length": 2}"#.into(), "max_length 2 leaves no room"),
    ] {
        let (_keep, path) = changed(file, &content);
        fails(&path, message);
    }
    let (_keep, path) = changed("config_sentence_transformers.json", r#"{"prompts": {"query": "q: "}}"#);
    let pooling = r#"{"pooling_mode": "mean", "include_prompt": false}"#;
    fs::write(path.join("1_Pooling/config.json"), pooling).unwrap();
    fails(&path, "include_prompt: false, but the folder has prompts");

    // And a bi-encoder is no reranker.
    let error =
        CrossEncoder::load(testdata().join("embed-bert"), LoadOptions::new()).unwrap_err().to_string();
    assert!(error.contains("give 36 values a pair, not 1; this looks like a bi-encoder"), "{error}");
}

#[test]
fn lower_case_is_made_where_the_folder_asks_for_it() {
    let (_keep, path) =
        changed("sentence_bert_config.json", r#"{"max_seq_length": 64, "do_lower_case": true}"#);
    let ids = |path: &Path, text: &str| {
        let model = BiEncoder::load(path, LoadOptions::new()).unwrap();
        model.encode(text, Role::Query).unwrap().input_ids
    };
    // The tokenizer itself would take a capital letter for another one.
    let tokenizer = fs::read_to_string(path.join("tokenizer.json")).unwrap();
    assert!(tokenizer.contains("\"lowercase\": true"));
    fs::write(path.join("tokenizer.json"), tokenizer.replace("\"lowercase\": true", "\"lowercase\": false"))
        .unwrap();
    assert_eq!(ids(&path, "BRIDGE"), ids(&path, "bridge"));
    fs::write(path.join("sentence_bert_config.json"), r#"{"max_seq_length": 64}"#).unwrap();
    assert_ne!(ids(&path, "BRIDGE"), ids(&path, "bridge"));
}
