//! `jointly audit`: what it prints, and what its status says.

use super::*;

/// Twelve queries with eight documents each; the third document is relevant.
pub fn groups(folder: &Path, judged: bool) -> String {
    let text: String = (0..12)
        .map(|q| {
            let documents: Vec<Value> = (0..8)
                .map(|d| {
                    let text = format!("document {} about {} and {}", d * 37 % 11, q * 7 + d, d * d);
                    let label = if judged { Value::from(i32::from(d == 2)) } else { Value::Null };
                    serde_json::json!({"id": format!("d{d}"), "text": text, "label": label})
                })
                .collect();
            let group =
                serde_json::json!({"query_id": q, "query": format!("query {q}"), "documents": documents});
            format!("{group}\n")
        })
        .collect();
    let path = folder.join(if judged { "judged.groups.jsonl" } else { "pool.groups.jsonl" });
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn a_precision_is_audited_with_and_without_judgements() {
    let folder = tempfile::tempdir().unwrap();
    let (judged, pool) = (groups(folder.path(), true), groups(folder.path(), false));
    let tiny = tiny();
    let audit = |data: &str, more: &[&str]| {
        let all: Vec<&str> = ["audit", &tiny, "--precision", "bf16", "--against", "f32", "--on", data]
            .iter()
            .chain(more)
            .copied()
            .collect();
        run(&all, b"")
    };
    let output = audit(&judged, &["--format", "json"]);
    assert!(output.status.success());
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&found["queries"], &found["pairs"]), (&12.into(), &96.into()));
    assert_eq!(found["candidate"]["precision"], "bf16");
    assert_eq!(found["reference"]["precision"], "f32");
    let pairs: u64 =
        found["flips"].as_array().unwrap().iter().map(|bin| bin["pairs"].as_u64().unwrap()).sum();
    assert_eq!(pairs + found["ties_broken"].as_u64().unwrap(), 12 * 8 * 7 / 2, "{found}");
    assert!(found["difference"]["largest_distance"].as_f64().unwrap() > 0.0);
    let layers = found["layers"].as_array().unwrap();
    assert_eq!(layers[0]["name"], "embeddings");
    assert_eq!(layers[0]["relative_error"], 0.0, "what is looked up is not computed");
    assert!(layers[1]["relative_error"].as_f64().unwrap() > 0.0, "{found}");
    assert!(found["ndcg_at_10"]["comparison"]["interval"]["low"].is_f64(), "{found}");
    assert_eq!(found["limits"].as_array().unwrap().len(), 0);

    let output = audit(&pool, &["--min-tau", "0.5", "--min-overlap", "0.9"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    for part in ["overlap@10", "tau-b", "layer0", "ties created", "--min-tau        0.5: ", "\npassed\n"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!text.contains("NDCG"), "{text}");

    // Pairs on lines, and a BEIR folder with a run.
    let pairs = folder.path().join("pairs.tsv");
    fs::write(&pairs, "who\tYuri Gagarin\nwho\tthe café\nwhen\tin 1961\nwhen\tnever\n").unwrap();
    assert!(audit(pairs.to_str().unwrap(), &[]).status.success());
    let beir = collection(folder.path());
    let run_file = folder.path().join("run");
    fs::write(&run_file, "q1 Q0 b 1 2 t\nq1 Q0 v 2 1 t\nq2 Q0 12 1 2 t\nq2 Q0 v 2 1 t\n").unwrap();
    let run_file = run_file.display().to_string();
    assert!(audit(&beir, &["--run", &run_file]).status.success());
    let qrels = folder.path().join("qrels");
    fs::write(&qrels, "q1 0 b 1\nq2 0 v 1\n").unwrap();
    let judged = audit(&beir, &["--run", &run_file, "--judgements", qrels.to_str().unwrap()]);
    assert!(String::from_utf8(judged.stdout).unwrap().contains("NDCG@10"));
}

#[test]
fn an_audit_goes_on_where_it_was_killed_and_takes_the_scores_of_eval() {
    let folder = tempfile::tempdir().unwrap();
    let (pool, cache) = (groups(folder.path(), true), folder.path().join("cache"));
    let tiny = tiny();
    let kept = cache.display().to_string();
    let audit = |more: &[&str]| {
        let all: Vec<&str> =
            ["audit", &tiny, "--precision", "bf16", "--against", "f32", "--on", &pool, "--format", "json"]
                .iter()
                .chain(more)
                .copied()
                .collect();
        let output = run(&all, b"");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut found: Value = serde_json::from_slice(&output.stdout).unwrap();
        // Times differ.
        let screening = found["screening"].as_object_mut().unwrap();
        assert!(screening["reference_ms_per_pair"].as_f64().unwrap() > 0.0);
        screening.retain(|key, _| !key.ends_with("_ms_per_pair"));
        for levels in ["levels", "set_levels"] {
            for level in screening[levels].as_array_mut().unwrap() {
                assert!(level.as_object_mut().unwrap().remove("cost").unwrap().as_f64().unwrap() > 0.0);
            }
        }
        found
    };
    let files = || -> Vec<(PathBuf, String)> {
        let mut files: Vec<_> = fs::read_dir(&cache)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
            .collect();
        files.sort();
        files
    };
    let without = audit(&[]);
    assert!(!cache.exists());
    assert_eq!(audit(&["--cache", &kept]), without);
    let whole = files();
    assert_eq!(whole.len(), 2, "a file for each precision");
    for (path, text) in &whole {
        assert_eq!(text.lines().count(), 1 + 12 * 8, "a head, and a line for each pair");
        // As if it had been killed: some lines, and half of one.
        let end = text.match_indices('\n').nth(40).unwrap().0 + 20;
        fs::write(path, &text[..end]).unwrap();
    }
    assert_eq!(audit(&["--cache", &kept]), without);
    let again = files();
    for ((_, before), (_, after)) in whole.iter().zip(&again) {
        let logits = |text: &str| -> Vec<String> {
            let mut lines: Vec<String> =
                text.lines().skip(1).map(|line| line.split('\t').take(2).collect::<String>()).collect();
            lines.sort();
            lines
        };
        assert_eq!(logits(before), logits(after));
    }
    // Nothing is computed, nothing is added; another reading of long texts has scores of its own.
    assert_eq!(audit(&["--cache", &kept]), without);
    assert_eq!(files(), again);
    audit(&["--cache", &kept, "--long", "windows"]);
    assert_eq!(files().len(), 4);
    let ranker = format!("cross:{tiny}@bf16");
    let output = run(&["eval", &pool, "--cache", &kept, "--ranker", &ranker], b"");
    assert!(output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("96 pairs from the cache, 0 computed"), "{said}");
}

#[test]
fn the_status_says_whether_the_limits_hold() {
    let folder = tempfile::tempdir().unwrap();
    let (judged, pool) = (groups(folder.path(), true), groups(folder.path(), false));
    let tiny = tiny();
    let other = testdata("tiny-electra").display().to_string();
    let against = |reference: &str, data: &str, more: &[&str]| -> Vec<String> {
        ["audit", &tiny, "--against", reference, "--on", data]
            .iter()
            .chain(more)
            .map(ToString::to_string)
            .collect()
    };
    let fails = |arguments: Vec<String>, code: i32, message: &str| {
        fails(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), b"", code, message);
    };
    // Two models that know nothing do not agree.
    fails(against(&other, &pool, &["--min-tau", "0.99"]), 4, "not passed: --min-tau 0.99: fails");
    fails(against("f32", &pool, &[]), 2, "both are the same model in the same precision");
    fails(against("bf16", &pool, &["--max-ndcg-loss", "0.1"]), 2, "needs judgements");
    fails(against("bf16", &pool, &["--min-tau", "2"]), 2, "from 0 to 1");
    fails(against("bf16", &judged, &["--max-ndcg-loss", "0"]), 2, "above 0");
    fails(against("/nowhere", &pool, &[]), 2, "no such folder");
    let few = folder.path().join("few.tsv");
    fs::write(&few, "who\tYuri Gagarin\nwho\tthe café\nwhen\tin 1961\nwhen\tnever\n").unwrap();
    let few = few.display().to_string();
    fails(against("bf16", &few, &["--min-overlap", "0.1"]), 4, "--min-overlap 0.1: too few queries to tell");
    let arguments = against("bf16", &few, &["--min-overlap", "0.1", "--allow-inconclusive"]);
    assert!(
        ok(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), b"")
            .contains("too few queries to tell")
    );
    let arguments = against(&testdata("tiny-modernbert").display().to_string(), &pool, &[]);
    let text = ok(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), b"");
    assert!(text.contains("layers cannot be compared"), "{text}");
}
