//! `jointly zelo`, run as users run it, on simulated pools.

// The helpers of the tests are tests too.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::HashMap;
use std::fs;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn zelo(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jointly"));
    command.stdin(Stdio::null()).arg("zelo").args(arguments).output().unwrap()
}

#[track_caller]
fn ok(arguments: &[&str]) -> String {
    let output = zelo(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn fails(arguments: &[&str], message: &str) {
    let output = zelo(arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains(message), "{errors:?} does not say {message:?}");
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A folder that goes when the test ends, and names in it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn file(&self, name: &str, text: &str) -> String {
        fs::write(self.0.path().join(name), text).unwrap();
        self.at(name)
    }
}

/// Two queries, of three documents and two.
const POOL: &str = r#"{"query_id": "q1", "query": "?", "documents": [{"id": "a", "text": "A", "label": 2}, {"id": "b", "text": "B", "label": 0}, {"id": "c", "text": "C"}]}
{"query_id": "q2", "query": "!", "documents": [{"id": "a", "text": "A"}, {"id": "z", "text": "Z", "label": 1}]}
"#;

fn vote(pair: &str, share: &str) -> String {
    format!("{{{pair}, \"judge\": \"j\", \"vote\": {share}}}\n")
}

const AB: &str = r#""query": "q1", "a": "a", "b": "b""#;
const BC: &str = r#""query": "q1", "a": "b", "b": "c""#;
const ACROSS: &str = r#""query": "q1", "a": "a", "query_b": "q2", "b": "z""#;

#[test]
fn sample_connects_documents_and_queries() {
    let place = Place::new();
    let pool = place.file("pool.groups.jsonl", POOL);
    let pairs = lines(&ok(&["sample", &pool, "--k", "4", "--across", "2", "--seed", "7"]));
    let of = |query: &str, is_across: bool| {
        let of = |pair: &&Value| pair["query"] == query && pair.get("query_b").is_some() == is_across;
        pairs.iter().filter(of).count()
    };
    // Two cycles of three documents, of two documents one pair each; of two queries one.
    assert_eq!((of("q1", false), of("q2", false), of("q1", true) + of("q2", true)), (6, 2, 1));
    assert_eq!(pairs.len(), 9);
    assert!(pairs.iter().all(|pair| pair.get("query_b").is_some() || pair["a"] != pair["b"]));
    let file = place.at("pairs.jsonl");
    let same = ["sample", &pool, "--k", "4", "--across", "2", "--seed", "7", "-o", &file];
    assert_eq!(ok(&same), "");
    assert_eq!(lines(&fs::read_to_string(&file).unwrap()), pairs);
    fails(&same, "exists; --force replaces it");
    ok(&[&same[..], &["--force"]].concat());
    assert_ne!(lines(&ok(&["sample", &pool, "--k", "4", "--across", "2", "--seed", "8"])), pairs);
    fails(&["sample", &pool, "--k", "3"], "it must be even");
    fails(&["sample", &pool, "--k", "0", "--across", "0"], "no pair at all");
    let alone = place.file("alone.tsv", "q\td\n");
    fails(&["sample", &alone], "nothing can be compared");
}

#[test]
fn fit_writes_the_pool_with_labels() {
    let place = Place::new();
    let pool = place.file("pool.groups.jsonl", POOL);
    let votes =
        [vote(AB, "0.1"), vote(BC, "null"), vote(BC, "0.7"), "\n".into(), vote(ACROSS, "0.9")].concat();
    let votes = place.file("votes.jsonl", &votes);
    let (fitted, json) = (place.at("fitted.groups.jsonl"), place.at("report.json"));
    let text = ok(&[
        "fit",
        &pool,
        "--votes",
        &votes,
        "-o",
        &fitted,
        "--json",
        &json,
        "--equal-judges",
        "--map",
        "2,-1",
    ]);
    assert!(text.contains("2, 1 without votes") && text.contains("1 abstentions"), "{text}");
    let rows = lines(&fs::read_to_string(&fitted).unwrap());
    // q2 has no vote within it.
    assert_eq!(rows.len(), 1);
    let documents = rows[0]["documents"].as_array().unwrap();
    let number = |value: &Value| value.as_f64().unwrap();
    let labels: Vec<f64> = documents.iter().map(|document| number(&document["label"])).collect();
    assert!(labels[0] > labels[2] && labels[2] > labels[1], "{labels:?}");
    let mean = labels.iter().sum::<f64>() / 3.0;
    // Worse than q2's best, so its offset is below 0.
    assert!((mean - number(&rows[0]["bias"])).abs() < 1e-9 && mean < 0.0, "{labels:?}");
    for (document, label) in documents.iter().zip(&labels) {
        assert!((number(&document["target"]) - 1.0 / (1.0 + (-(2.0 * label - 1.0)).exp())).abs() < 1e-12);
        assert!(number(&document["standard_error"]) > 0.0);
    }
    assert_eq!((&documents[0]["judged"], documents[2].get("judged")), (&Value::from(2), None));
    assert_eq!((&rows[0]["query_id"], &documents[1]["text"]), (&Value::from("q1"), &Value::from("B")));
    let report: Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    assert_eq!((&report["votes"], &report["across"]["parts"]), (&Value::from(2), &Value::from(1)));
    assert_eq!(
        (&report["judges"][0]["abstentions"], &report["map"]["a"]),
        (&Value::from(1), &Value::from(2.0))
    );
    fails(&["fit", &pool, "--votes", &votes, "-o", &fitted], "exists; --force replaces it");
}

#[test]
fn faults_name_file_and_line() {
    let place = Place::new();
    let pool = place.file("pool.groups.jsonl", POOL);
    let good = vote(AB, "0.5");
    for (line, message) in [
        ("{".to_string(), "EOF while parsing"),
        (vote(AB, "1.5"), "the vote is 1.5; it must be from 0 to 1"),
        (vote(AB, "\"b\""), "invalid type: string"),
        (format!("{{{AB}, \"judge\": \"j\"}}\n"), "missing field `vote`"),
        (vote(r#""query": "q9", "a": "a", "b": "b""#, "0"), "query q9 is not in the pool"),
        (vote(r#""query": "q1", "a": "a", "b": "z""#, "0"), "query q1 has no document z in the pool"),
        (vote(r#""query": "q1", "a": "a", "b": "a""#, "0"), "document a is compared with itself"),
    ] {
        let votes = place.file("votes.jsonl", &format!("{good}\n{line}"));
        fails(&["fit", &pool, "--votes", &votes], &format!("{votes}:3: "));
        fails(&["fit", &pool, "--votes", &votes], message);
    }
    let across = place.file("across.jsonl", &vote(ACROSS, "0.5"));
    fails(&["fit", &pool, "--votes", &across], "no vote between two documents");
    let sure = place.file("sure.jsonl", &vote(AB, "1"));
    fails(&["fit", &pool, "--votes", &sure, "--prior", "0"], "query q1: some documents never lost");
    fails(&["fit", &pool, "--votes", &sure, "--level", "9"], "both kinds are needed");
    fails(&["fit", &pool, "--votes", &sure, "--map", "1"], "two numbers");
    fails(&["fit", &pool, "--votes", &sure, "--bias-prior", "0"], "above 0");
    fails(&["fit", &pool, "--votes", "nowhere.jsonl"], "nowhere.jsonl");
    ok(&["fit", &pool, "--votes", &sure]);
}

#[test]
fn simulated_votes_go_all_the_way() {
    let place = Place::new();
    let folder = place.at("world");
    let make = ["simulate", "-o", &folder, "--queries", "30", "--documents", "20", "--seed", "3"];
    ok(&[&make[..], &["--judge", "1", "--judge", "0.5:0.4", "--abstain", "0.1"]].concat());
    fails(&make, "exists; --force replaces it");
    let [pool, pairs, votes] =
        ["pool.groups.jsonl", "pairs.jsonl", "votes.jsonl"].map(|name| place.at(&format!("world/{name}")));
    // The pairs are those that `sample` chooses.
    let sampled = ok(&["sample", &pool, "--seed", "3", "--quiet"]);
    assert_eq!(fs::read_to_string(&pairs).unwrap(), sampled);
    assert_eq!(fs::read_to_string(&votes).unwrap().lines().count(), 2 * sampled.lines().count());

    let fitted = place.at("fitted.groups.jsonl");
    let text = ok(&["fit", &pool, "--votes", &votes, "-o", &fitted, "--level", "2"]);
    assert!(
        text.contains("fitted to 600 labels") && text.contains("30 queries, 30 in one part")
            || text.contains("votes on 30 queries, 30 in one part"),
        "{text}"
    );
    let relevance: HashMap<(String, String), f64> = lines(&fs::read_to_string(&pool).unwrap())
        .iter()
        .flat_map(|row| documents(row, "relevance"))
        .collect();
    // Over all queries: only with their offsets are labels in one order.
    let of_truth = |fitted: &str| {
        let rows = lines(&fs::read_to_string(fitted).unwrap());
        let labels = rows.iter().flat_map(|row| documents(row, "label"));
        let both: Vec<(f64, f64)> = labels.map(|(key, label)| (label, relevance[&key])).collect();
        assert_eq!(both.len(), 600);
        correlation(&both)
    };
    assert!(of_truth(&fitted) > 0.95, "{}", of_truth(&fitted));

    // The same judges behind `vote`, with its journal.
    let again = place.at("again.jsonl");
    let judges = ["--judge", "a=simulated", "--judge", "b=simulated:0.5:0.3", "--quiet"];
    let ask = || ok(&[&["vote", &pool, &pairs, "-o", &again][..], &judges, &["--json"]].concat());
    let first: Value = serde_json::from_str(&ask()).unwrap();
    let count = |field: &str| first[field].as_u64().unwrap();
    assert_eq!(count("asked_now"), 2 * count("pairs"));
    assert_eq!(count("pairs") + count("repeated"), sampled.lines().count() as u64);
    let second: Value = serde_json::from_str(&ask()).unwrap();
    assert_eq!(second["asked_now"], 0);
    ok(&["fit", &pool, "--votes", &again, "-o", &fitted, "--level", "2", "--force"]);
    assert!(of_truth(&fitted) > 0.95, "{}", of_truth(&fitted));
    fails(&["vote", &pool, &pairs, "-o", &place.at("x"), "--judge", "simulated:much"], "not a number");
}

fn documents<'a>(row: &'a Value, field: &'a str) -> impl Iterator<Item = ((String, String), f64)> + 'a {
    row["documents"].as_array().unwrap().iter().map(move |document| {
        let id = |value: &Value| value.as_str().unwrap().to_string();
        ((id(&row["query_id"]), id(&document["id"])), document[field].as_f64().unwrap())
    })
}

fn correlation(pairs: &[(f64, f64)]) -> f64 {
    let count = pairs.len() as f64;
    let mean = |f: &dyn Fn(&(f64, f64)) -> f64| pairs.iter().map(f).sum::<f64>() / count;
    let (x, y) = (mean(&|pair| pair.0), mean(&|pair| pair.1));
    let product = mean(&|pair| (pair.0 - x) * (pair.1 - y));
    product / (mean(&|pair| (pair.0 - x).powi(2)) * mean(&|pair| (pair.1 - y).powi(2))).sqrt()
}

#[test]
fn simulate_says_how_many_votes_are_needed() {
    let arguments = ["simulate", "--queries", "5", "--documents", "30", "--format", "json"];
    let found: Value = serde_json::from_str(&ok(&arguments)).unwrap();
    let results = found["results"].as_array().unwrap();
    let (k, pairs): (Vec<&Value>, Vec<&Value>) = results.iter().map(|row| (&row["k"], &row["pairs"])).unzip();
    assert_eq!(k, [&Value::from(2), &Value::from(4), &Value::from(8), &Value::from(16), &Value::Null]);
    assert_eq!(
        pairs,
        [&Value::from(30), &Value::from(60), &Value::from(120), &Value::from(240), &Value::from(435)]
    );
    let taus: Vec<f64> = results.iter().map(|row| row["tau"].as_f64().unwrap()).collect();
    assert!(taus.is_sorted() && taus[0] > 0.5, "{taus:?}");
    let text = ok(&["simulate", "--queries", "2", "--documents", "10", "--k", "2", "--hard"]);
    assert_eq!(text.lines().count(), 3, "{text}");
    fails(&["simulate", "--documents", "1"], "one document cannot be compared");
    fails(&["simulate", "--judge", "one"], "not a number");
    fails(&["simulate", "--k", "2,4", "-o", "nowhere"], "-o takes one --k");
}
