//! `jointly plan`, run as users run it, on small collections and the tiny checkpoints of `testdata/`; and a listwise stage in a
//! cascade file.

// The helpers of the tests are tests too.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

fn testdata(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name).display().to_string()
}

fn jointly(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jointly"));
    command.env_remove("JOINTLY_ISA").env("HF_HUB_OFFLINE", "1").env("HF_HOME", "/nonexistent");
    command.env("JOINTLY_PACKED_CACHE", "off");
    command.stdin(Stdio::null()).args(arguments).output().unwrap()
}

#[track_caller]
fn ok(arguments: &[&str]) -> String {
    let output = jointly(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn fails(arguments: &[&str], message: &str) {
    let output = jointly(arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains(message), "{errors:?} does not say {message:?}");
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn file(&self, name: &str, text: &str) -> String {
        fs::write(self.at(name), text).unwrap();
        self.at(name)
    }

    /// A pool of which the first stage knows nothing.
    fn pool(&self, queries: usize, documents: usize, is_judged: bool) -> String {
        let mut text = String::new();
        for query in 0..queries {
            let documents: Vec<Value> = (0..documents)
                .map(|document| {
                    let words =
                        format!("bridge {} was built in {}", document * 7 % 13, 1800 + query + document);
                    let mut row = json!({"id": format!("d{document}"), "text": words,
                        "first_stage_score": 1.0 / (1.0 + document as f64)});
                    if is_judged {
                        // The first stage has them last.
                        row["label"] = u8::from(document + 3 >= documents).into();
                    }
                    row
                })
                .collect();
            let query = json!({"query_id": format!("q{query}"), "query": format!("how old is bridge {query}"),
                "documents": documents});
            writeln!(text, "{query}").unwrap();
        }
        self.file(if is_judged { "judged.groups.jsonl" } else { "plain.groups.jsonl" }, &text)
    }
}

#[test]
fn a_plan_is_a_cascade_of_the_front_and_can_be_run() {
    let place = Place::new();
    let pool = place.pool(12, 15, true);
    let prices = place.file(
        "prices.toml",
        "[machine]\nusd_per_hour = 0.36\nwatts = 50\n[[service]]\nname = 'api'\nusd_per_1000_queries = 2\n\
         [[listwise]]\nname = 'llm'\nusd_per_million_input_tokens = 1\nusd_per_million_output_tokens = 4\n",
    );
    let (cache, output, report) = (place.at("cache"), place.at("cascade.toml"), place.at("plan.json"));
    let bert = format!("cross:{}", testdata("tiny-bert"));
    let qwen = format!("cross:{}", testdata("tiny-qwen3"));
    let bi = format!("bi:{}", testdata("embed-bert"));
    let scorers = ["-s", &bert, "-s", &qwen, "-s", &bi];
    let arguments =
        ["plan", &pool, "--depths", "3,6,9", "--time-queries", "2", "--prices", &prices, "--cache", &cache];
    let all = [&arguments[..], &scorers, &["-o", &output, "--json", &report]].concat();
    let table = ok(&all);
    assert!(table.contains("cost of 1,000 queries") && table.contains("api, 15 documents"), "{table}");
    let plan: Value = serde_json::from_str(&fs::read_to_string(&report).unwrap()).unwrap();
    // Four depths, three scorers, three stages: as the library counts them.
    assert_eq!(plan["cascades_tried"], 1 + 12 + 3 * 6 + 4);
    assert_eq!(plan["queries"], 12);
    let front = plan["front"].as_array().unwrap();
    let numbers = |field: &str| front.iter().map(|row| row[field].as_f64().unwrap()).collect::<Vec<_>>();
    assert!(numbers("ms_per_query").is_sorted() && numbers("mean").is_sorted(), "{front:?}");
    assert_eq!(front[0]["stages"], json!([]), "the first stage costs nothing");
    let best = front.last().unwrap()["mean"].as_f64().unwrap();
    assert!(best >= plan["reference"]["mean"].as_f64().unwrap(), "the reference is a cascade too");
    let chosen = &front[plan["plan"]["place"].as_u64().unwrap() as usize];
    assert_eq!(chosen["stages"], plan["plan"]["stages"]);
    let rows = plan["cost"]["rows"].as_array().unwrap();
    for row in rows.iter().filter(|row| row["kind"] == "cascade") {
        let (ms, usd) =
            (row["ms_per_query"].as_f64().unwrap(), row["usd_per_1000_queries"].as_f64().unwrap());
        // 0.36 USD an hour is 1e-4 a second, and a thousand queries take a thousand times as long.
        assert!((usd - 1e-4 * ms).abs() < 1e-12, "{row}");
        assert!((row["joules_per_query"].as_f64().unwrap() - 0.05 * ms).abs() < 1e-9, "{row}");
    }
    assert!(
        rows.iter().any(|row| row["kind"] == "listwise" && row["usd_per_1000_queries"].as_f64() > Some(0.0))
    );
    // The file that was written is one that `rerank` runs.
    let documents = place.file("documents.txt", "bridge 1 was built in 1801\nbridge 2\nbridge 3\n");
    let ranked = ok(&[
        "rerank",
        "--query",
        "how old is bridge 1",
        &documents,
        "--cascade",
        &output,
        "--format",
        "json",
    ]);
    let ranked: Value = serde_json::from_str(&ranked).unwrap();
    assert_eq!(ranked["results"].as_array().unwrap().len(), 3);
    assert_eq!(ranked["stages"].as_array().unwrap().len(), plan["plan"]["stages"].as_array().unwrap().len());
    // Again: nothing is scored again, and the metric is the same.
    let again = jointly(&[&arguments[..], &scorers, &["--json", "-"]].concat());
    let errors = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(errors.contains("180 pairs from the cache, 0 computed"), "{errors}");
    let again: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(again["reference"]["mean"], plan["reference"]["mean"]);
    fails(&all, "--force");
    // The file reads as much of a text as the scores did that it was planned with.
    let short = place.at("short.toml");
    ok(&[&arguments[..], &["-s", &bert, "-s", &bi, "--max-length", "48", "-o", &short]].concat());
    let text = fs::read_to_string(&short).unwrap();
    let count = |what: &str| text.matches(what).count();
    assert!(count("[[stage]]") > 0 && count("[[stage]]") == count("max_length = 48\n"), "{text}");
}

#[test]
fn a_pool_that_nobody_judged_is_judged_by_a_scorer() {
    let place = Place::new();
    let (pool, cache) = (place.pool(8, 12, false), place.at("cache"));
    let bert = format!("cross:{}", testdata("tiny-bert"));
    let qwen = format!("cross:{}", testdata("tiny-qwen3"));
    let arguments =
        ["plan", &pool, "--cache", &cache, "--time-queries", "1", "-s", &bert, "-s", &qwen, "--json", "-"];
    fails(&arguments, "no document has a label");
    let plan = ok(&[&arguments[..], &["--judge-with", &qwen]].concat());
    let plan: Value = serde_json::from_str(&plan).unwrap();
    // Nothing is better than the judge itself.
    assert_eq!(plan["reference"]["mean"], 1.0);
    assert_eq!(plan["reference"]["stages"][0]["scorer"], "cross:tiny-qwen3");
}

#[test]
fn what_cannot_be_planned_is_refused() {
    let place = Place::new();
    let pool = place.pool(6, 5, true);
    let bert = format!("cross:{}", testdata("tiny-bert"));
    let plan = |more: &[&str], message: &str| {
        fails(&[&["plan", &pool, "--cache", &place.at("c")], more].concat(), message)
    };
    plan(&["-s", "first"], "bi:MODEL or cross:MODEL");
    plan(&["-s", &bert, "-s", &bert], "twice");
    plan(&["-s", &bert, "--margin", "0"], "--margin");
    plan(&["-s", &bert, "--folds", "7"], "too few for 7 folds");
    plan(&["-s", &bert, "--reference", "cross:other"], "none of the scorers");
    plan(&["-s", &bert, "--prices", &place.file("p.toml", "[machine]\nwatt = 1\n")], "watt");
}

/// Answers one request after the other, with what a model may say.
fn endpoint(answers: Vec<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for (stream, answer) in listener.incoming().zip(answers.into_iter().cycle()) {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut line, mut length) = (String::new(), 0);
            while reader.read_line(&mut line).unwrap() > 2 {
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            reader.read_exact(&mut vec![0; length]).unwrap();
            let choice = json!({"message": {"content": answer}, "finish_reason": "stop"});
            let body = json!({"choices": [choice], "usage": {"prompt_tokens": 90, "completion_tokens": 9}})
                .to_string();
            let head =
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes()).unwrap();
        }
    });
    url
}

#[test]
fn a_language_model_is_the_last_stage_and_its_answers_are_counted() {
    let place = Place::new();
    let url = endpoint(vec!["[3] > [1] > [2]", "I think [2] > [2]"]);
    let documents = place.file("documents.txt", "one\ntwo\nthree\n");
    let cascade = |more: &str| {
        let stage = format!(
            "[[stage]]\nkind = 'listwise'\nendpoint = '{url}'\nmodel = 'm'\nusd_per_million_input_tokens = 10\n{more}"
        );
        place.file("cascade.toml", &stage)
    };
    let rank = |path: &str| {
        let said =
            jointly(&["rerank", "--query", "which", &documents, "--cascade", path, "--format", "json"]);
        let errors = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(said.status.success(), "{errors}");
        let answer: Value = serde_json::from_slice(&said.stdout).unwrap();
        let order: Vec<u64> =
            answer["results"].as_array().unwrap().iter().map(|row| row["index"].as_u64().unwrap()).collect();
        (order, answer["stages"][0].clone(), errors)
    };
    let path = cascade("");
    let (order, stage, _) = rank(&path);
    assert_eq!(order, [2, 0, 1]);
    assert_eq!((stage["tokens"].as_u64(), stage["usd"].as_f64()), (Some(99), Some(900e-6)));
    assert!(stage["notes"][0].as_str().unwrap().starts_with("1 calls: 1 ok"), "{stage}");
    let (order, stage, errors) = rank(&path);
    assert_eq!(order, [1, 0, 2]);
    assert!(
        stage["notes"][0].as_str().unwrap().contains("1 in a wrong format")
            && errors.contains("wrong format"),
        "{stage} {errors}"
    );
    for (more, message) in [
        ("windos = 3\n", "windos"),
        ("window = 1\n", "window 1"),
        ("api_key_env = 'NO_SUCH_KEY_HERE'\n", "NO_SUCH_KEY_HERE"),
    ] {
        let path = cascade(more);
        fails(&["rerank", "--query", "which", &documents, "--cascade", &path], message);
    }
}
