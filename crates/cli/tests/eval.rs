//! `jointly eval`, run as users run it, on collections of a few lines and the tiny checkpoints of `testdata/`.

// The helpers of the tests are tests too.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn testdata(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name).display().to_string()
}

fn jointly(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jointly"));
    command.env_remove("JOINTLY_ISA").env("HF_HUB_OFFLINE", "1").env("HF_HOME", "/nonexistent");
    command.env("JOINTLY_PACKED_CACHE", "off");
    command.stdin(Stdio::null()).arg("eval").args(arguments);
    command
}

fn eval(arguments: &[&str]) -> Output {
    jointly(arguments).output().unwrap()
}

#[track_caller]
fn ok(arguments: &[&str]) -> String {
    let output = eval(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn fails(arguments: &[&str], code: i32, message: &str) {
    let output = eval(arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{errors}");
    assert!(errors.contains(message), "{errors:?} does not say {message:?}");
    assert!(!errors.contains("panicked"), "{errors}");
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
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Eight queries on four documents; the words of a query are in the document that is relevant.
    fn beir(&self) -> String {
        let corpus = [
            ("moon", "Io is a moon of Jupiter and has volcanoes"),
            ("bridge", "The bridge was built of iron in 1897"),
            ("cat", "A jaguar is a large cat of the forest"),
            ("clinic", "The clinic gave a vaccine to the children"),
        ];
        let queries = [
            ("q1", "moon of Jupiter", "moon"),
            ("q2", "moon volcanoes", "moon"),
            ("q3", "iron bridge", "bridge"),
            ("q4", "bridge built when", "bridge"),
            ("q5", "jaguar forest", "cat"),
            ("q6", "a large cat or the bridge built of iron", "cat"),
            ("q7", "vaccine", "clinic"),
            ("q8", "children of the moon", "clinic"),
        ];
        let mut files = [String::new(), String::new(), "query-id\tcorpus-id\tscore\n".to_string()];
        for (id, text) in corpus {
            writeln!(files[0], "{{\"_id\": \"{id}\", \"text\": \"{text}\"}}").unwrap();
        }
        for (id, text, relevant) in queries {
            writeln!(files[1], "{{\"_id\": \"{id}\", \"text\": \"{text}\"}}").unwrap();
            for (document, _) in corpus {
                writeln!(files[2], "{id}\t{document}\t{}", u8::from(document == relevant)).unwrap();
            }
        }
        self.file("beir/corpus.jsonl", &files[0]);
        self.file("beir/queries.jsonl", &files[1]);
        self.file("beir/qrels/test.tsv", &files[2]);
        self.at("beir")
    }

    /// A pool without any sense, large enough to be interrupted.
    fn pool(&self, queries: usize, documents: usize) -> String {
        let mut text = String::new();
        for query in 0..queries {
            let documents: Vec<Value> = (0..documents)
                .map(|document| {
                    let words = format!("bridge {} was built in {}", document * 7 % 13, 1800 + query + document);
                    serde_json::json!({
                        "id": format!("d{document}"), "text": words, "label": u8::from(document % 5 == query % 5),
                        "first_stage_score": 1.0 / (1.0 + document as f64),
                    })
                })
                .collect();
            let query = serde_json::json!({
                "query_id": format!("q{query}"), "query": format!("how old is bridge {query}"), "documents": documents,
            });
            writeln!(text, "{query}").unwrap();
        }
        self.file("pool.groups.jsonl", &text)
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_str(&fs::read_to_string(self.at(name)).unwrap()).unwrap()
    }
}

/// Without what differs from machine to machine and run to run: times, paths, hashes, what came from the cache.
fn lasting(value: &Value) -> Value {
    const PASSING: [&str; 10] = [
        "ms_per_query",
        "path",
        "threads",
        "version",
        "isa",
        "model",
        "sha256",
        "pairs_computed",
        "pairs_from_cache",
        "reliability",
    ];
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(key, _)| !PASSING.contains(&key.as_str()))
            .map(|(k, v)| (k.clone(), lasting(v)))
            .collect(),
        Value::Array(values) => values.iter().map(lasting).collect(),
        // Sums may be made in another order on another machine.
        Value::Number(number) if number.is_f64() => Value::String(format!("{:.5}", number.as_f64().unwrap())),
        other => other.clone(),
    }
}

#[test]
fn a_tiny_collection_gives_the_numbers_it_always_gave() {
    let place = Place::new();
    let (beir, cache, json, html) =
        (place.beir(), place.at("cache"), place.at("out.json"), place.at("out.html"));
    let (cross, bi) =
        (format!("cross=cross:{}", testdata("tiny-electra")), format!("bi=bi:{}", testdata("embed-bert")));
    let hybrid = format!("hybrid=hybrid:{}", testdata("embed-bert"));
    let cascade = format!("cascade=bi:{} > 2 > cross:{}", testdata("embed-bert"), testdata("tiny-electra"));
    let mut arguments = vec![beir.as_str()];
    for ranker in ["first", "bm25", &bi, &hybrid, &cross, &cascade] {
        arguments.extend(["--ranker", ranker]);
    }
    arguments.extend(["--metric", "ndcg@10,mrr@10,recall@100", "--depths", "1,2,3", "--cache", &cache]);
    arguments.extend(["--json", &json, "--html", &html]);
    let table = ok(&arguments);
    assert!(table.starts_with("beir: 8 queries, "), "{table}");
    assert!(table.contains("baseline") && table.contains("p 1.0000  "), "{table}");

    let found = place.json("out.json");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/eval.json");
    // Regenerate with JOINTLY_WRITE_SNAPSHOTS=1.
    if std::env::var_os("JOINTLY_WRITE_SNAPSHOTS").is_some() {
        let text = serde_json::to_string_pretty(&lasting(&found)).unwrap();
        fs::write(&golden, text + "\n").unwrap();
    }
    let golden: Value = serde_json::from_str(&fs::read_to_string(&golden).unwrap()).unwrap();
    assert_eq!(lasting(&found), golden, "the numbers have changed: look at them, then regenerate");
    // By hand: only `children of the moon` has its document behind another, at rank 2.
    let mean = |ranker: usize, metric: usize| {
        found["collections"][0]["results"][ranker]["metrics"][metric]["mean"].as_f64().unwrap()
    };
    assert!((mean(0, 0) - (7.0 + 1.0 / 3_f64.log2()) / 8.0).abs() < 1e-9, "{}", mean(0, 0));
    assert!((mean(0, 1) - 7.5 / 8.0).abs() < 1e-9);
    assert_eq!(mean(0, 0), mean(1, 0), "the candidates are those of BM25");

    // One file that needs no other, and well formed.
    let page = fs::read_to_string(place.at("out.html")).unwrap();
    for outside in ["<script", "<link", "<img", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    let addresses: Vec<&str> = page.match_indices("http").map(|(at, _)| &page[at..at + 26]).collect();
    assert!(addresses.iter().all(|address| *address == "http://www.w3.org/2000/svg"), "{addresses:?}");
    assert!(!page.contains("NaN") && !page.contains("inf"), "a number is missing in a plot");
    let plots = page.matches("<svg").count();
    assert_eq!(plots, 2 + 5 + 1, "cost, depth, gains of five rankers, reliability of the cross-encoder");
    let reliability = &found["collections"][0]["reliability"][0];
    let bins = reliability["bins"].as_array().unwrap();
    let pairs: u64 = bins.iter().map(|bin| bin["pairs"].as_u64().unwrap()).sum();
    assert!(
        bins.len() == 10 && reliability["pairs"] == pairs && reliability["relevant"] == 8,
        "{reliability}"
    );
    balanced(&page);

    fails(&arguments, 2, "out.json exists; --force replaces it");
    // Scored once, and never again.
    arguments.push("--force");
    ok(&arguments);
    let again = place.json("out.json");
    assert_eq!(lasting(&again), lasting(&found));
    assert_eq!(again["collections"][0]["pairs_computed"], 0);
    assert_eq!(again["collections"][0]["pairs_from_cache"], found["collections"][0]["pairs_computed"]);
}

/// Every element that is opened is closed, in order.
fn balanced(page: &str) {
    const VOID: [&str; 2] = ["meta", "!DOCTYPE"];
    let mut open = Vec::new();
    for part in page.split('<').skip(1) {
        let (tag, _) = part.split_once('>').unwrap();
        let name = tag.trim_start_matches('/').split([' ', '/', '\n']).next().unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "{tag}");
        } else if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn a_killed_run_goes_on_and_ends_as_if_never_killed() {
    let place = Place::new();
    let (pool, cross) = (place.pool(300, 20), format!("cross:{}", testdata("tiny-bert")));
    let arguments = |cache: &str, json: &str| -> Vec<String> {
        let arguments = [
            &pool,
            "--ranker",
            "first",
            "--ranker",
            &cross,
            "--cache",
            &place.at(cache),
            "--json",
            &place.at(json),
        ];
        arguments.map(str::to_string).to_vec()
    };
    let run = |arguments: &[String]| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        String::from_utf8(eval(&arguments).stderr).unwrap()
    };
    run(&arguments("whole", "whole.json"));

    let killed = arguments("cache", "out.json");
    let rows = || -> u64 {
        let files = fs::read_dir(place.at("cache")).into_iter().flatten().flatten();
        files.map(|file| file.metadata().map_or(0, |metadata| metadata.len())).sum()
    };
    for _ in 0..2 {
        let before = rows();
        let mut child = jointly(&killed.iter().map(String::as_str).collect::<Vec<_>>())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Past the first line of the file, which is not a score.
        while rows() < before + 2000 {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it could be killed");
            std::thread::yield_now();
        }
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success(), "it was done before it was killed");
        assert!(!Path::new(&place.at("out.json")).exists());
        // What a machine that lost power may leave: half a line.
        let file = fs::read_dir(place.at("cache")).unwrap().flatten().next().unwrap().path();
        let half = [&fs::read(&file).unwrap()[..], b"0011\t"].concat();
        fs::write(&file, half).unwrap();
    }
    let said = run(&killed);
    assert!(said.contains("pairs from the cache, "), "{said}");
    let (whole, found) = (place.json("whole.json"), place.json("out.json"));
    assert_eq!(lasting(&found), lasting(&whole));
    let count = |report: &Value, what: &str| report["collections"][0][what].as_u64().unwrap();
    assert_eq!(count(&whole, "pairs_computed"), 6000);
    assert_eq!(count(&found, "pairs_computed") + count(&found, "pairs_from_cache"), 6000);
    assert!(count(&found, "pairs_from_cache") > 0 && count(&found, "pairs_computed") > 0);
    // The same texts under another name are not scored again; other options are another score.
    let copy = place.file("copy.groups.jsonl", &fs::read_to_string(&pool).unwrap());
    let computed = |more: &[&str], json: &str| {
        let json = place.at(json);
        ok(&[&[copy.as_str(), "--ranker", &cross, "--cache", &place.at("cache"), "--json", &json], more]
            .concat());
        count(&serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap(), "pairs_computed")
    };
    assert_eq!(computed(&[], "a.json"), 0);
    assert_eq!(computed(&["--max-length", "20", "--depth", "2"], "b.json"), 600);
}

#[test]
fn candidates_come_from_a_pool_a_run_or_bm25_and_judgements_from_where_they_are() {
    let place = Place::new();
    let beir = place.beir();
    let cache = place.at("cache");
    let mean = |collection: &str| -> f64 {
        let json = place.at("out.json");
        ok(&[
            collection, "--ranker", "first", "--metric", "mrr@10", "--cache", &cache, "--json", &json,
            "--force",
        ]);
        place.json("out.json")["collections"][0]["results"][0]["metrics"][0]["mean"].as_f64().unwrap()
    };
    let by_folder = mean(&beir);
    let (corpus, queries) = (place.at("beir/corpus.jsonl"), place.at("beir/queries.jsonl"));
    let qrels = place.at("beir/qrels/test.tsv");
    assert_eq!(mean(&format!("{corpus},queries={queries},qrels={qrels}")), by_folder);
    // A run and judgements in TREC's columns: of four judged queries one has no candidates and counts as 0.
    let trec = place.file("q.txt", "q1 0 moon 1\nq2 0 moon 1\nq3 0 bridge 1\nq4 0 nowhere 1\n");
    let run =
        "q1 Q0 cat 1 2.0 r\nq1 Q0 moon 2 1.0 r\nq2 Q0 moon 1 3 r\nq3 Q0 bridge 1 3 r\nq8 Q0 cat 1 1 r\n";
    let run = place.file("a.run", run);
    let of_run = format!("{corpus},queries={queries},qrels={trec},run={run}");
    assert_eq!(mean(&of_run), (0.5 + 1.0 + 1.0) / 4.0);
    let said = eval(&[&of_run, "--ranker", "first", "--cache", &cache]).stderr;
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("1 judged queries have no candidates; each counts as 0"), "{said}");
    assert!(said.contains("1 queries with candidates have no judgements"), "{said}");
    // A pool by its labels, and by judgements beside it, which know of a document that was not retrieved.
    let pool = place.pool(3, 5);
    let own = mean(&pool);
    let qrels = place.file("pool.txt", "q0 0 d4 1\n");
    assert_eq!(mean(&format!("{pool},qrels={qrels}")), 0.2);
    assert!(own > 0.2);
    assert_eq!(mean(&format!("{pool},qrels={qrels},level=2")), 0.0);
}

/// The values of one ranker's metric on the first collection, query by query.
fn per_query(report: &Value, ranker: usize, metric: usize) -> &Value {
    &report["collections"][0]["results"][ranker]["metrics"][metric]["per_query"]
}

#[test]
fn alpha_ndcg_by_hand_from_judgements_by_subtopic() {
    let place = Place::new();
    // `copy` says what `one` says; `two` is about two other things.
    let (one, two) =
        ("the jaguar is a cat of the forest", "the Jaguar car has a large engine, as the guitar has not");
    let candidates = |texts: &[(&str, &str)]| -> Vec<Value> {
        texts.iter().map(|(id, text)| serde_json::json!({"id": id, "text": text})).collect()
    };
    let groups = [
        ("p", vec![("one", one), ("copy", one), ("two", two), ("none", "nothing of what was asked")]),
        ("q", vec![("one", one), ("two", two)]),
    ];
    let mut text = String::new();
    for (query, documents) in &groups {
        let group =
            serde_json::json!({"query_id": query, "query": "jaguar", "documents": candidates(documents)});
        writeln!(text, "{group}").unwrap();
    }
    let pool = place.file("pool.groups.jsonl", &text);
    let subtopics = "p cat one 1\np cat copy 1\np car two 2\np guitar two 1\np car none 0\np guitar one -1\nq cat one 1\n";
    let subtopics = place.file("subtopics.txt", subtopics);
    let distinct = place.file("distinct.toml", "[[stage]]\nkind = \"distinct\"\n");
    let (pool, distinct) = (format!("{pool},subtopics={subtopics}"), format!("distinct=cascade:{distinct}"));
    let (cache, json, html) = (place.at("cache"), place.at("out.json"), place.at("out.html"));
    let mut arguments = vec![pool.as_str(), "--ranker", "first", "--ranker", &distinct, "--cache", &cache];
    arguments.extend(["--json", &json, "--html", &html]);
    let table = ok(&arguments);

    // alpha is 0.5, so a subtopic is worth 1, then 1/2, then 1/4; the rank r divides by log2(r + 1).
    // The best order of p is two (2: car and guitar), one (1: cat), copy (1/2: cat again); of one and copy, which come to the
    // same, `one` is first, as its id is higher:
    //     2 / log2(2) + 1 / log2(3) + 0.5 / log2(4) = 2 + 0.630930 + 0.25 = 2.880930
    // As it came, one, copy, two, none: 1 / log2(2) + 0.5 / log2(3) + 2 / log2(4) = 1 + 0.315465 + 1 = 2.315465; the share of
    // the best is 0.803721. With the copy put last, one, two, none, copy:
    //     1 / log2(2) + 2 / log2(3) + 0 + 0.5 / log2(5) = 1 + 1.261860 + 0.215338 = 2.477198; 0.859861.
    // q has its only relevant document first: 1.
    let found = place.json("out.json");
    assert_eq!(found["metrics"], serde_json::json!(["ndcg@10", "mrr@10", "recall@100", "alpha_ndcg@10"]));
    for (ranker, expected) in [(0, 0.803_721), (1, 0.859_861)] {
        let values = per_query(&found, ranker, 3);
        let p = values["p"].as_f64().unwrap();
        assert!((p - expected).abs() < 2e-6, "{ranker}: {p}, expected {expected}");
        assert_eq!(values["q"], 1.0);
        let row = &found["collections"][0]["results"][ranker]["metrics"][3];
        assert!((row["mean"].as_f64().unwrap() - (p + 1.0) / 2.0).abs() < 1e-12, "{row}");
        assert!(row["mean_over_ties"].is_null(), "{row}");
        // Like any other metric: beside the baseline, with interval and test.
        assert_eq!(row["comparison"].is_null(), ranker == 0, "{row}");
    }
    let compared = &found["collections"][0]["results"][1]["metrics"][3]["comparison"];
    let difference = compared["difference"].as_f64().unwrap();
    assert!((difference - (0.859_861 - 0.803_721) / 2.0).abs() < 2e-6, "{compared}");
    assert!(compared["interval"].is_object() && compared["verdict"].is_string(), "{compared}");
    // There are no other judgements: a document is as relevant as it is to any subtopic, and `two` has label 2.
    //     (1 + 1 / log2(3) + 2 / 2) / (2 + 1 / log2(3) + 1 / 2) = 2.630930 / 3.130930 = 0.840303
    let ndcg = per_query(&found, 0, 0)["p"].as_f64().unwrap();
    assert!((ndcg - 0.840_303).abs() < 2e-6, "{ndcg}");
    assert_eq!(found["collections"][0]["queries_without_subtopics"], 0);
    assert!(table.contains("  alpha_ndcg@10\n    first     0.9019 "), "{table}");
    let page = fs::read_to_string(place.at("out.html")).unwrap();
    assert!(page.contains("<h3>alpha_ndcg@10</h3>"), "a cascade without a model has a page too");
    balanced(&page);
}

#[test]
fn judgements_by_subtopic_stand_beside_the_others_or_alone() {
    let place = Place::new();
    let (beir, cache, json) = (place.beir(), place.at("cache"), place.at("out.json"));
    let report = |collection: &str, metrics: &str| -> (Value, String) {
        let arguments = [
            collection, "--ranker", "first", "--metric", metrics, "--cache", &cache, "--json", &json,
            "--force",
        ];
        let output = eval(&arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        (place.json("out.json"), said)
    };
    // Two of the eight queries; q1 by labels that differ from those of the folder, and q6, whose document is at rank 2.
    let subtopics = place.file("s.txt", "q1 1 bridge 1\nq6 1 cat 1\n");
    let (plain, _) = report(&beir, "mrr@10");
    let (both, said) = report(&format!("{beir},subtopics={subtopics}"), "mrr@10,alpha_ndcg@10");
    assert_eq!(per_query(&both, 0, 0), per_query(&plain, 0, 0), "the other metrics stay what they are");
    let of_subtopics = per_query(&both, 0, 1);
    assert_eq!(of_subtopics.as_object().unwrap().len(), 2, "{of_subtopics}");
    assert!((of_subtopics["q6"].as_f64().unwrap() - 1.0 / 3_f64.log2()).abs() < 1e-9, "{of_subtopics}");
    assert_eq!(both["collections"][0]["queries_without_subtopics"], 6);
    assert!(said.contains("6 judged queries have no judgements by subtopic"), "{said}");
    assert!(plain["collections"][0].get("queries_without_subtopics").is_none());

    // Alone: a folder without qrels, and texts. There the subtopics are all that is judged.
    let (corpus, queries) = (place.at("beir/corpus.jsonl"), place.at("beir/queries.jsonl"));
    let texts = format!("{corpus},queries={queries},subtopics={subtopics}");
    fs::remove_dir_all(place.at("beir/qrels")).unwrap();
    for collection in [format!("{beir},subtopics={subtopics}"), texts] {
        let (alone, _) = report(&collection, "mrr@10,alpha_ndcg@10");
        assert_eq!(alone["collections"][0]["queries"], 2);
        assert_eq!(per_query(&alone, 0, 0)["q6"], 0.5);
        assert_eq!(per_query(&alone, 0, 1), of_subtopics);
    }
    let split = format!("{beir},split=test,subtopics={subtopics}");
    fails(&[&split, "--ranker", "first", "--cache", &cache], 2, "no qrels.tsv or qrels.jsonl");
}

#[test]
fn too_few_queries_and_no_difference_are_different_answers() {
    let place = Place::new();
    let beir = place.beir();
    let arguments =
        [beir.as_str(), "--ranker", "first", "--ranker", "same=bm25", "--cache", &place.at("cache")];
    let table = ok(&arguments);
    assert!(table.contains("no difference (equivalent within 0.01)"), "{table}");
    let cross = format!("cross:{}", testdata("tiny-bert"));
    let few = format!("{beir},sample=5");
    let table = ok(&[&few, "--ranker", "first", "--ranker", &cross, "--cache", &place.at("cache")]);
    assert!(table.starts_with("beir,sample=5: 5 queries") || table.starts_with("beir: 5 queries"), "{table}");
    assert!(table.contains("too few queries to tell (5 can find a difference of "), "{table}");
    let one = format!("{beir},sample=1");
    let table = ok(&[&one, "--ranker", "first", "--ranker", &cross, "--cache", &place.at("cache")]);
    assert!(table.contains("one query: nothing to compare"), "{table}");
}

#[test]
fn bad_input_is_named_by_file_and_line() {
    let place = Place::new();
    let (beir, cache) = (place.beir(), place.at("cache"));
    let with = |collection: &str, more: &[&str]| -> Vec<String> {
        [&[collection, "--cache", &cache, "--ranker", "first"], more]
            .concat()
            .iter()
            .map(|s| (*s).to_string())
            .collect()
    };
    let fails = |arguments: Vec<String>, message: &str| {
        fails(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), 2, message);
    };
    fails(with(&format!("{beir},split=dev"), &[]), "qrels/dev.tsv");
    fails(with(&place.at("nothing.groups.jsonl"), &[]), "nothing.groups.jsonl");
    fails(with(&place.at("beir/corpus.jsonl"), &[]), "needs queries=FILE and qrels=FILE");
    fails(with(&beir, &["--ranker", "first"]), "two rankers are called first");
    fails(with(&beir, &["--baseline", "bm25"]), "it is none of the rankers");
    fails(with(&beir, &["--metric", "ndgc@10"]), "ndgc@10");
    let needs = "beir: alpha_ndcg@10 needs judgements by subtopic; subtopics=FILE behind the path names them";
    fails(with(&beir, &["--metric", "ndcg@10,alpha_ndcg@10"]), needs);
    fails(with(&beir, &["--ranker", "cross:./nowhere"]), "nowhere: there is no such folder or bundle");
    fails(with(&beir, &["--ranker", "bi:default"]), "name a bi-encoder");
    fails(with(&beir, &["--margin", "0"]), "--margin 0");
    fails(with(&beir, &[&beir]), "two collections are called beir");

    let (corpus, queries) = (place.at("beir/corpus.jsonl"), place.at("beir/queries.jsonl"));
    let qrels = place.file("q.txt", "q1 0 moon 1\n");
    let of_run = |run: &str| {
        let run = place.file("a.run", run);
        with(&format!("{corpus},queries={queries},qrels={qrels},run={run}"), &[])
    };
    fails(of_run("q1 Q0 moon 1 3 r\nq1 Q0 mars 2 1 r\n"), "a.run:2: document mars has no text");
    fails(of_run("q1 Q0 moon 1 nan r\n"), "a.run:1");
    fails(of_run("q1 Q0 moon 1 3 r\nq1 Q0 moon 2 1 r\n"), "a.run:2");
    fails(of_run("q9 Q0 moon 1 3 r\n"), "no query has both judgements and candidates");
    let of_subtopics = |text: &str| {
        let file = place.file("s.qrels", text);
        with(&format!("{beir},subtopics={file}"), &[])
    };
    let columns = "s.qrels:2: 3 columns where there should be: query, subtopic, document, label";
    fails(of_subtopics("q1 1 moon 1\nq1 moon 1\n"), columns);
    fails(of_subtopics("q1 1 moon 1\n\nq1 2 moon yes\n"), "s.qrels:3: the label is \"yes\"");
    let twice = "s.qrels:2: document moon stands under query q1 already";
    fails(of_subtopics("q1 1 moon 1\nq1 1 moon 0\n"), twice);
    fails(of_subtopics("\n"), "s.qrels: no judgement in it");
    fails(with(&format!("{beir},subtopics={}", place.at("none.qrels")), &[]), "none.qrels");
    let few = place.file("few.qrels", "q1 1 moon 1\n");
    // Of the eight queries, another one is taken.
    let sampled = with(&format!("{beir},subtopics={few},sample=1"), &[]);
    fails(sampled, "no query of the sample is judged by subtopic");
    let qrels = place.file("beir/qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\tmars\t1\n");
    fails(with(&beir, &[]), &format!("{qrels}:2"));
    let pool = place.file("x.groups.jsonl", "{\"query_id\": 1, \"query\": \"a\", \"documents\": []}\n");
    fails(with(&pool, &[]), "x.groups.jsonl:1");
}
