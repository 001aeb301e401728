//! `jointly calibrate`: fitted, stored, applied by the other commands, refused for another model; drift.

use super::*;

/// Pairs of forty queries that are labelled by the model's own logits, with some labels turned over.
fn labelled(folder: &Path) -> (String, Vec<f64>) {
    let mut pairs = String::new();
    for i in 0..400 {
        let (query, document) = (format!("query {}", i / 10), format!("document {i} of {}", i * 7919 % 1000));
        pairs += &serde_json::json!({"query": query, "document": document, "query_id": i / 10}).to_string();
        pairs.push('\n');
    }
    let scores = ok(&["score", "-", "--model", &tiny(), "--input", "jsonl"], pairs.as_bytes());
    let logits: Vec<f64> = scores.lines().map(|line| json(line)["logit"].as_f64().unwrap()).collect();
    let mut sorted = logits.clone();
    sorted.sort_by(f64::total_cmp);
    let mut text = String::new();
    for (i, line) in pairs.lines().enumerate() {
        let mut row = json(line);
        row["label"] = u8::from((logits[i] > sorted[250]) != (i % 9 == 0)).into();
        text += &format!("{row}\n");
    }
    let path = folder.join("labelled.jsonl");
    fs::write(&path, text).unwrap();
    (path.display().to_string(), logits)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_calibration_is_fitted_stored_and_applied() {
    let folder = tempfile::tempdir().unwrap();
    let model = copy_of_tiny(folder.path()).display().to_string();
    let (data, logits) = labelled(folder.path());
    let uncalibrated = ok(&["rerank", "-q", "bridge", "--model", &model, "--format", "jsonl"], DOCUMENTS);
    let arguments = ["calibrate", &data, "--model", &model, "--precision-at", "0.7", "--precision-at", "1"];
    let text = ok(&arguments, b"");
    for part in [
        "fitted on 20 queries, 200 pairs",
        "held out  20 queries, 200 pairs",
        "ECE width",
        "precision 0.7: logit",
    ] {
        assert!(text.contains(part), "{text}");
    }
    fails(&arguments, b"", 2, "calibration.json exists; --force replaces it");

    let stored = json(&fs::read_to_string(Path::new(&model).join("calibration.json")).unwrap());
    assert_eq!(stored["fitted_on"]["files"][0]["name"], "labelled.jsonl");
    assert_eq!(stored["fitted_on"]["queries"], 20);
    assert_eq!(stored["cross_validated_log_loss"].as_array().unwrap().len(), 4);
    let counted: u64 =
        stored["scores"]["counts"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(counted, logits.len() as u64);

    // Each method's probability is the same here and in the mathematics that fitted it, and the order is the logit's.
    for method in ["platt", "temperature", "isotonic", "beta"] {
        let arguments =
            ["calibrate", &data, "--model", &model, "--method", method, "--force", "--format", "json"];
        if method == "temperature" {
            // The tiny model's logits do not lie around 0; whether a slope alone fits is up to them.
            let output = run(&arguments, b"");
            if output.status.code() == Some(2) {
                assert!(String::from_utf8_lossy(&output.stderr).contains("do not go with relevance"));
                continue;
            }
            assert!(output.status.success());
        } else {
            ok(&arguments, b"");
        }
        let stored = json(&fs::read_to_string(Path::new(&model).join("calibration.json")).unwrap());
        assert_eq!(stored["map"]["method"], method);
        let map: jointly_eval::calibration::Map = serde_json::from_value(stored["map"].clone()).unwrap();
        let rows = ok(&["rerank", "-q", "bridge", "--model", &model, "--format", "jsonl"], DOCUMENTS);
        assert_eq!(rows.lines().count(), 3);
        for (row, before) in rows.lines().zip(uncalibrated.lines()) {
            let (row, before) = (json(row), json(before));
            assert_eq!((&row["index"], &row["logit"]), (&before["index"], &before["logit"]));
            let probability = row["probability"].as_f64().unwrap();
            assert!((probability - map.apply(row["logit"].as_f64().unwrap())).abs() < 1e-6, "{row}");
            assert!(before.get("probability").is_none());
        }
    }
    let scored = ok(&["score", "-", "--model", &model], b"a\tb\n");
    assert!(json(&scored)["probability"].is_f64(), "{scored}");
    assert!(ok(&["rerank", "-q", "bridge", "--model", &model], DOCUMENTS).contains(" p=0."));
    ok(&["verify", "--write", &model], b"");
    ok(&["score", "-", "--model", &model], b"a\tb\n");
}

#[test]
fn labelled_scores_are_not_scored_again_and_the_file_may_lie_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let scores = folder.path().join("scores.jsonl");
    let text: String = (0..300)
        .map(|i| {
            let logit = f64::from(i * 37 % 100) / 10.0 - 5.0;
            let label = i32::from(f64::from(i * 61 % 100) / 10.0 - 5.0 < logit);
            format!("{{\"query_id\": {}, \"logit\": {logit}, \"label\": {label}}}\n", i / 10)
        })
        .collect();
    fs::write(&scores, &text).unwrap();
    let (scores, output) = (scores.display().to_string(), folder.path().join("c.json").display().to_string());
    let printed =
        json(&ok(&["calibrate", &scores, "--model", &tiny(), "-o", &output, "--format", "json"], b""));
    assert!(printed["held_out"]["log_loss"].as_f64().unwrap() < 0.69, "{printed}");
    assert_eq!(printed["held_out"]["equal_mass"]["bins"].as_array().unwrap().len(), 10, "{printed}");
    let row = ok(&["score", "-", "--model", &tiny(), "--calibration", &output], b"a\tb\n");
    assert!(json(&row)["probability"].is_f64(), "{row}");

    // Of another model: the same numbers under another hash.
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    let other = copy_of_tiny(&other);
    fs::write(other.join("more.json"), "{}").unwrap();
    let other = other.display().to_string();
    fails(
        &["score", "-", "--model", &other, "--calibration", &output],
        b"a\tb\n",
        1,
        "fitted on another model",
    );
    fails(&["score", "-", "--model", &tiny(), "--calibration", &scores], b"a\tb\n", 1, "scores.jsonl: ");

    // Drift: the same scores, and scores that are two higher.
    let check = |live: &str| run(&["calibrate", "--check", live, "--calibration", &output], b"");
    let same = check(&scores);
    assert!(same.status.success());
    assert!(String::from_utf8_lossy(&same.stdout).ends_with("no drift\n"));
    let moved = folder.path().join("moved.jsonl");
    let text: String =
        (0..300).map(|i| format!("{{\"logit\": {}}}\n", f64::from(i * 37 % 100) / 10.0 - 3.0)).collect();
    fs::write(&moved, text).unwrap();
    let moved = check(moved.to_str().unwrap());
    assert_eq!(moved.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&moved.stderr).contains("have drifted"));
    let arguments = ["calibrate", "--check", &scores, "--calibration", &output, "--format", "json"];
    assert_eq!(json(&ok(&arguments, b""))["drifted"], false);
}

#[test]
fn what_cannot_be_calibrated_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let model = copy_of_tiny(folder.path()).display().to_string();
    let bad = |name: &str, text: &str, code: i32, message: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        fails(&["calibrate", path.to_str().unwrap(), "--model", &model], b"", code, message);
        assert!(!Path::new(&model).join("calibration.json").exists());
    };
    let row = |query: u32, logit: &str, label: u8| {
        format!("{{\"query_id\": {query}, \"logit\": {logit}, \"label\": {label}}}\n")
    };
    bad(
        "one-class.jsonl",
        &(0..20).map(|i| row(i, "1", 1)).collect::<String>(),
        2,
        "relevant pairs and 0 others",
    );
    bad("nan.jsonl", &(row(1, "1.5", 1) + &row(2, "NaN", 0)), 2, "nan.jsonl:2: ");
    bad("huge.jsonl", &(row(1, "1.5", 1) + &row(2, "1e999", 0)), 2, "huge.jsonl:2: ");
    bad("null.jsonl", &(row(1, "1.5", 1) + &row(2, "null", 0)), 2, "null.jsonl:2: neither");
    bad(
        "some.jsonl",
        &(row(1, "1", 1) + "{\"query\": \"a\", \"document\": \"b\", \"label\": 0}\n"),
        2,
        "1 of 2 lines",
    );
    bad("one-query.jsonl", &(row(1, "1", 1) + &row(1, "0", 0)), 2, "one query alone");
    let reversed: String = (0..40).map(|i| row(i, &format!("{i}"), u8::from(i < 20))).collect();
    bad("reversed.jsonl", &reversed, 2, "do not go with relevance");
    bad("no-label.tsv", "a\tb\tc\n", 2, "no-label.tsv:1: the last column is \"c\"");
    bad("unlabelled.tsv", "a\tb\n", 2, "no pair has a label");
    bad("empty.jsonl", "", 2, "no pair in it");
    bad(
        "twice.tsv",
        "q\td\ta\tb\t1\nq\td\ta\tc\t0\n",
        2,
        "twice.tsv:2: document d stands under query q already",
    );
    bad("groups.jsonl", "{\"documents\": 1}\n", 2, "groups.jsonl:1: ");
    let data = folder.path().join("nan.jsonl").display().to_string();
    fails(&["calibrate", &data], b"", 2, "default is no folder");
    fails(&["calibrate", &data, "--model", &model, "--split", "1.5"], b"", 2, "--split is 1.5");
    fails(&["calibrate", &data, "--model", &model, "--run", &data], b"", 2, "this is a file");
    fails(&["calibrate"], b"", 2, "DATA");
    fails(&["calibrate", "--check", &data, "--model", &model], b"", 2, "calibration.json");
}
