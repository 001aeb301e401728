//! Cascades from files: `rerank --cascade`, `eval`'s `cascade:FILE`, what `audit --cascade` writes, and `search`.

use super::*;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn cascade(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text.replace("TINY", &tiny())).unwrap();
    path.display().to_string()
}

const TWO: &str = "\
[[stage]]
model = \"TINY\"
precision = \"bf16\"
keep = 2

[[stage]]
model = \"TINY\"
";

#[test]
fn rerank_runs_the_stages_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = cascade(folder.path(), "two.toml", TWO);
    let rerank = |more: &[&str]| {
        let all: Vec<&str> = ["rerank", "--query", "how old is the bridge", "--cascade", &file]
            .iter()
            .chain(more)
            .copied()
            .collect();
        run(&all, DOCUMENTS)
    };
    let output = rerank(&["--format", "json"]);
    let found = json(&String::from_utf8(output.stdout).unwrap());
    let stages = found["stages"].as_array().unwrap();
    assert_eq!(stages.len(), 2);
    assert_eq!(
        (&stages[0]["read"], &stages[0]["kept"], &stages[1]["read"]),
        (&3.into(), &2.into(), &2.into())
    );
    assert_eq!((&found["stop"], found["stages"][1]["name"].as_str().unwrap()), (&Value::Null, "tiny-bert"));
    let results = found["results"].as_array().unwrap();
    let mut indices: Vec<u64> = results.iter().map(|row| row["index"].as_u64().unwrap()).collect();
    // The last one was read by the first stage only, and was not kept: no stage has placed it.
    assert!(results[2].get("stage").is_none() && results[2]["score"].is_number(), "{found}");
    assert_eq!((&results[0]["stage"], &results[1]["stage"]), (&2.into(), &2.into()));
    indices.sort_unstable();
    assert_eq!(indices, [0, 1, 2]);
    // What a model alone gives to the two that were kept.
    let alone = rerank_alone();
    for row in &results[..2] {
        let same = alone.iter().find(|other| other["index"] == row["index"]).unwrap();
        assert_eq!(row["logit"], same["logit"]);
    }
    // What was done stands on standard error, unless nobody wants to know.
    let said = String::from_utf8(rerank(&[]).stderr).unwrap();
    assert!(said.contains("tiny-bert@bf16  3 in, 3 read, 2 kept"), "{said}");
    assert_eq!(String::from_utf8(rerank(&["--quiet"]).stderr).unwrap(), "");
    let table = String::from_utf8(rerank(&["--format", "tsv", "-n", "1"]).stdout).unwrap();
    assert_eq!(table.lines().count(), 2);
}

fn rerank_alone() -> Vec<Value> {
    let tiny = tiny();
    let text =
        ok(&["rerank", "--query", "how old is the bridge", "--model", &tiny, "--format", "jsonl"], DOCUMENTS);
    text.lines().map(json).collect()
}

#[test]
fn a_budget_that_is_spent_leaves_documents_without_a_score() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[budget]\ntokens = 1\n[[stage]]\nmodel = \"TINY\"\nbatch_pairs = 1\n";
    let file = cascade(folder.path(), "poor.toml", text);
    let rerank =
        |format: &str| ok(&["rerank", "-q", "bridge", "--cascade", &file, "--format", format], DOCUMENTS);
    let found = json(&rerank("json"));
    assert_eq!((&found["stop"], &found["stages"][0]["read"]), (&"tokens".into(), &1.into()));
    assert!(
        found["results"][0]["score"].is_number() && found["results"][1].get("score").is_none(),
        "{found}"
    );
    let text = rerank("text");
    assert!(text.lines().nth(1).unwrap().contains("  -"), "{text}");
    let last = rerank("tsv").lines().last().unwrap().to_string();
    assert!(last.starts_with("3\t2\t\t\t\t\t\t\t"), "{last:?}");
}

#[test]
fn what_is_wrong_with_a_file_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = |text: &str, message: &str| {
        let file = cascade(folder.path(), "wrong.toml", text);
        fails(&["rerank", "-q", "x", "--cascade", &file], DOCUMENTS, 2, message);
    };
    wrong("[[stage]]\nkind = \"mmr\"\n", "wrong.toml: stage 1: mmr: missing field `keep`");
    wrong("[[stage]]\nmodel = \"./nowhere\"\n", "./nowhere: there is no such folder");
    // Logits that nobody has calibrated are on no scale that likeness could be weighed against.
    wrong("[[stage]]\nmodel = \"TINY\"\nmin_probability = 0.5\n", "needs a model with a calibration");
    let file = cascade(folder.path(), "two.toml", TWO);
    fails(
        &["rerank", "-q", "x", "--cascade", &file, "--precision", "int8"],
        DOCUMENTS,
        2,
        "cannot be used with",
    );
    fails(&["rerank", "-q", "x", "--cascade", "/nonexistent.toml"], DOCUMENTS, 2, "/nonexistent.toml");
}

#[test]
fn eval_scores_only_what_a_cascade_reads() {
    let folder = tempfile::tempdir().unwrap();
    let file = cascade(folder.path(), "two.toml", TWO);
    let data = super::audit::groups(folder.path(), true);
    let cache = folder.path().join("cache");
    let report = folder.path().join("report.json");
    let tiny = tiny();
    let eval = |rankers: &[&str]| {
        let mut all = vec!["eval", &data, "--metric", "ndcg@10,p@1", "--force"];
        let (cache, report) = (cache.to_str().unwrap(), report.to_str().unwrap());
        all.extend(["--cache", cache, "--json", report]);
        rankers.iter().for_each(|ranker| all.extend(["-r", *ranker]));
        ok(&all, b"");
        json(&fs::read_to_string(report).unwrap())
    };
    let by_file = format!("cascade:{file}");
    let found = eval(&[&by_file]);
    // Twelve queries: eight documents in bf16, two in f32.
    assert_eq!(found["collections"][0]["pairs_computed"], 12 * 8 + 12 * 2);
    assert_eq!(found["rankers"][0]["models"][0]["kind"], "cascade");
    let again = eval(&[&by_file]);
    assert_eq!(again["collections"][0]["pairs_computed"], 0);
    // The time of what is not cached is another each time.
    let without_ms = |report: &serde_json::Value| {
        let mut results = report["collections"][0]["results"].clone();
        results[0]["ms_per_query"] = 0.into();
        results[0]["stages"].as_array_mut().unwrap().iter_mut().for_each(|stage| stage["ms"] = 0.into());
        results
    };
    assert_eq!(without_ms(&again), without_ms(&found));
    // The first document of a cascade of one model over everything is that model's.
    let (whole, model) = (format!("all=cross:{tiny} > 8 > cross:{tiny}"), format!("cross:{tiny}"));
    let found = eval(&[&model, &whole]);
    let rows = found["collections"][0]["results"].as_array().unwrap();
    assert_eq!(rows[0]["metrics"][0]["mean"], rows[1]["metrics"][0]["mean"]);
}

#[test]
fn the_first_stage_and_sub_queries_come_from_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let reads = "[[stage]]\nmodel = \"TINY\"\n";
    let plain = cascade(folder.path(), "plain.toml", reads);
    let interpolates = format!("{reads}blend = \"interpolate\"\nweight = 0.5\n");
    let interpolates = cascade(folder.path(), "interpolate.toml", &interpolates);
    let covers = format!("{reads}[[stage]]\nkind = \"xquad\"\nmodel = \"TINY\"\nkeep = 2\n");
    let covers = cascade(folder.path(), "xquad.toml", &covers);
    let rerank = |file: &str, more: &[&str], documents: &str, message: &str| {
        let all = [&["rerank", "-q", "bridge", "--cascade", file], more].concat();
        fails(&all, documents.as_bytes(), 2, message);
    };
    let scored =
        "{\"text\": \"a bridge\", \"first_stage_score\": 2}\n{\"text\": \"a cat\", \"score\": 1.5}\n";
    // With scores it goes as far as the model, whose logits nobody has calibrated; without, the option is named.
    rerank(&interpolates, &[], scored, "interpolation adds relevance between 0 and 1");
    rerank(&interpolates, &[], "a bridge\n", "stage 1: it interpolates with the first stage's scores");
    let some = format!("{scored}{{\"text\": \"none\", \"id\": \"d7\", \"score\": \"high\"}}\n");
    rerank(&plain, &[], &some, "document 2 (\"d7\") has no `first_stage_score`");
    let text = "{\"text\": \"a\", \"first_stage_score\": \"high\"}\n";
    rerank(&plain, &[], text, "document 0: `first_stage_score` is \"high\"");
    // A model alone has no use for them.
    let tiny = tiny();
    ok(&["rerank", "-q", "bridge", "--model", &tiny], some.as_bytes());

    rerank(
        &covers,
        &[],
        "a bridge\n",
        "stage 2: xquad covers what the query may have meant; --sub-query TEXT",
    );
    let sub_queries = ["--sub-query", "age of a bridge=0.7", "--sub-query", "card game"];
    rerank(&covers, &sub_queries, "a bridge\n", "relevance and likeness must lie on one scale");
    rerank(&plain, &sub_queries, "a bridge\n", "--sub-query is for xquad");
    rerank(&covers, &["--sub-query", "x=0"], "a bridge\n", "the weight 0");
    fails(&["rerank", "-q", "x", "--sub-query", "y"], b"x\n", 2, "--cascade");
}

#[test]
fn a_confidence_is_not_repeated_where_documents_are_read_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[[stage]]\nkind = \"confirm\"\nmodel = \"TINY\"\nscreen_precision = \"bf16\"\ntop_n = 1\nslack = 9\n";
    let file = cascade(folder.path(), "confirm.toml", &format!("{text}confidence = 0.95\n"));
    let promise = |more: &[&str]| {
        let all = [&["rerank", "-q", "bridge", "--cascade", &file, "--format", "json"], more].concat();
        let found = json(&ok(&all, DOCUMENTS));
        let stage = &found["stages"][0];
        (stage["guarantee"].as_str().unwrap().to_string(), stage["notes"].to_string())
    };
    let (cut, notes) = promise(&[]);
    assert!(cut.contains("probability of 0.9500") && notes == "null", "{cut} {notes}");
    let (windows, notes) = promise(&["--long", "windows"]);
    assert!(
        windows.contains("if the slack is enough") && notes.contains("--long truncate"),
        "{windows} {notes}"
    );
}

#[test]
fn eval_says_what_a_cascade_did() {
    let folder = tempfile::tempdir().unwrap();
    // Nobody listens at this port.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = format!(
        "[[stage]]\nmodel = \"TINY\"\nkeep = 4\n\
         [[stage]]\nmodel = \"TINY\"\nprecision = \"f32\"\nmax_length = 96\nkeep = 3\n\
         [[stage]]\nmodel = \"bi:{}\"\n\
         [[stage]]\nkind = \"listwise\"\nname = \"llm\"\nendpoint = \"http://127.0.0.1:{port}/v1\"\n\
         model = \"m\"\nattempts = 1\n",
        testdata("embed-bert").display()
    );
    let file = cascade(folder.path(), "four.toml", &text);
    let data = super::audit::groups(folder.path(), true);
    let (cache, report) = (folder.path().join("cache"), folder.path().join("report.json"));
    let ranker = format!("cascade:{file}");
    let all = ["eval", &data, "--cache", cache.to_str().unwrap(), "--json", report.to_str().unwrap()];
    let output = run(&[&all[..], &["-r", &ranker, "--metric", "ndcg@10"]].concat(), b"");
    let said = String::from_utf8(output.stderr).unwrap();
    // Two spellings of one model share their scores, and the file that holds them.
    assert!(output.status.success(), "{said}");
    assert!(said.contains("stage llm: ") && said.contains("incoming order"), "{said}");
    let found = json(&fs::read_to_string(report).unwrap());
    assert_eq!(found["collections"][0]["pairs_computed"], 12 * 8);
    let row = &found["collections"][0]["results"][0];
    let stages = row["stages"].as_array().unwrap();
    let counts = |stage: usize| {
        let count = |field: &str| stages[stage][field].as_u64().unwrap();
        [count("queries"), count("incoming"), count("kept"), count("partial")]
    };
    assert_eq!([counts(0), counts(1), counts(2)], [[12, 96, 48, 0], [12, 48, 36, 0], [12, 36, 36, 0]]);
    assert!(counts(3)[3] > 0 && stages[3]["unanswered"].as_u64() > Some(0), "{}", stages[3]);
    let ms: f64 = stages.iter().map(|stage| stage["ms"].as_f64().unwrap()).sum();
    assert!((row["ms_per_query"].as_f64().unwrap() - ms / 12.0).abs() < 1e-6, "{row}");
    assert!(
        stages[2]["ms"].as_f64().unwrap() > 0.0 && stages[2]["tokens"].as_u64() > Some(0),
        "{}",
        stages[2]
    );
    let named = found["rankers"][0]["models"][0]["model"].as_str().unwrap();
    assert!(named.contains("tiny-bert") && named.contains("bi:") && named.ends_with("listwise:m"), "{named}");
}

#[test]
fn a_list_in_one_pass_and_documents_two_by_two() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "[[stage]]\nkind = \"one-pass\"\nmodel = \"{}\"\nblock = 2\nkeep = 3\n\
         [[stage]]\nkind = \"duo\"\nmodel = \"TINY\"\ndepth = 2\n",
        testdata("list-jina-v3").display()
    );
    let file = cascade(folder.path(), "lists.toml", &text);
    let found = json(&ok(&["rerank", "-q", "bridge", "--cascade", &file, "--format", "json"], DOCUMENTS));
    let stages = found["stages"].as_array().unwrap();
    assert_eq!(
        (&stages[0]["name"], &stages[0]["read"], &stages[0]["pairs"]),
        (&"list-jina-v3".into(), &3.into(), &3.into())
    );
    assert_eq!(
        (&stages[1]["name"], &stages[1]["kept"], &stages[1]["pairs"]),
        (&"duo tiny-bert".into(), &2.into(), &2.into())
    );
    // Of the two that were compared, what the list gave them; of the third too.
    let alone = cascade(folder.path(), "one.toml", text.split_once("[[stage]]\nkind = \"duo\"").unwrap().0);
    let alone = json(&ok(&["rerank", "-q", "bridge", "--cascade", &alone, "--format", "json"], DOCUMENTS));
    let indices = |found: &Value| -> Vec<u64> {
        found["results"].as_array().unwrap().iter().map(|row| row["index"].as_u64().unwrap()).collect()
    };
    let (with, without) = (indices(&found), indices(&alone));
    assert_eq!(with[2], without[2]);
    assert_eq!(alone["stages"][0], {
        let mut same = stages[0].clone();
        same["ms"] = alone["stages"][0]["ms"].clone();
        same
    });
    let data = super::audit::groups(folder.path(), true);
    let (cache, report) = (folder.path().join("cache"), folder.path().join("report.json"));
    let ranker = format!("cascade:{file}");
    let all = ["eval", &data, "--cache", cache.to_str().unwrap(), "--json", report.to_str().unwrap()];
    let output = run(&[&all[..], &["-r", &ranker, "--metric", "ndcg@10"]].concat(), b"");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found = json(&fs::read_to_string(report).unwrap());
    let named = found["rankers"][0]["models"][0]["model"].as_str().unwrap();
    assert!(named.contains("one-pass:") && named.contains("tiny-bert"), "{named}");
    assert_eq!(found["collections"][0]["pairs_computed"], 12 * 2);
    // Documents in windows would show the model one of the two.
    let texts = format!("{}\n{}\n", "the bridge ".repeat(200), "a jaguar ".repeat(200));
    let of_two = |long: &str| {
        let all = ["rerank", "-q", "bridge", "--cascade", &file, "--format", "json", "--long", long];
        let mut stage = json(&ok(&all, texts.as_bytes()))["stages"][1].clone();
        stage["ms"] = 0.into();
        stage
    };
    assert_eq!(of_two("windows"), of_two("truncate"));
    assert!(of_two("windows")["notes"][0].as_str().unwrap().starts_with("2 of 2 pairs"));
    for (kind, model, problem) in [
        ("one-pass", "default", "reads a query and a document together and no list"),
        ("one-pass", "TINY", "JinaForRanking"),
        ("duo", "default", "depth is missing"),
    ] {
        let text = format!("[[stage]]\nkind = \"{kind}\"\nmodel = \"{model}\"\n");
        let file = cascade(folder.path(), "wrong.toml", &text);
        let output = run(&["rerank", "-q", "x", "--cascade", &file], DOCUMENTS);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(problem), "{said}");
    }
}

#[test]
fn a_bi_encoder_as_a_stage_counts_what_it_reads() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("[[stage]]\nmodel = \"bi:{}\"\n", testdata("embed-bert").display());
    let file = cascade(folder.path(), "bi.toml", &text);
    let documents = format!("a bridge\n{}\n", "the bridge ".repeat(60));
    let rerank = |query: &str| {
        let all = ["rerank", "--query", query, "--cascade", &file, "--format", "json"];
        json(&ok(&all, documents.as_bytes()))
    };
    let found = rerank("how old");
    let results = found["results"].as_array().unwrap();
    let row = |index: u64| results.iter().find(|row| row["index"] == index).unwrap();
    // The model reads 64 tokens at most.
    assert_eq!(
        (&row(1)["tokens"], &row(1)["truncated"], &row(0)["truncated"]),
        (&64.into(), &true.into(), &false.into())
    );
    let first = row(0)["tokens"].as_u64().unwrap();
    assert!((6..30).contains(&first), "{found}");
    assert_eq!(found["stages"][0]["tokens"], 64 + first);
    // In batches, as under a budget, the query is read once too.
    let budget = format!("[budget]\ntokens = 1000\n{text}batch_pairs = 1\n");
    let budget = cascade(folder.path(), "budget.toml", &budget);
    let all = ["rerank", "--query", "how old", "--cascade", &budget, "--format", "json"];
    assert_eq!(json(&ok(&all, documents.as_bytes()))["stages"][0]["tokens"], 64 + first);
    let long = rerank(&"how old ".repeat(60));
    assert!(long["results"].as_array().unwrap().iter().all(|row| row["truncated"] == true), "{long}");
}

#[test]
fn audit_writes_a_cascade_that_keeps_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let data = super::audit::groups(folder.path(), false);
    let file = folder.path().join("confirm.toml").display().to_string();
    let tiny = tiny();
    let audit = |more: &[&str]| {
        let all: Vec<&str> =
            ["audit", &tiny, "--precision", "bf16", "--against", "f32", "--on", &data, "--top-n", "3"]
                .iter()
                .chain(more)
                .copied()
                .collect();
        run(&all, b"")
    };
    let output = audit(&["--format", "json", "--cascade", &file]);
    let found = json(&String::from_utf8(output.stdout).unwrap());
    let levels = found["screening"]["levels"].as_array().unwrap();
    let last = levels.last().unwrap();
    assert!((last["confidence"].as_f64().unwrap() - 12.0 / 13.0).abs() < 1e-12, "{last}");
    assert!(last["confirmed"].as_f64().unwrap() >= 3.0 / 8.0, "{last}");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("kind = \"confirm\"") && text.contains("screen_precision = \"bf16\""), "{text}");
    assert!(text.contains("read with --long truncate"), "{text}");
    // The file is not replaced, unless it is said; and no more is promised than so few queries can tell.
    assert_eq!(audit(&["--cascade", &file]).status.code(), Some(2));
    assert_eq!(audit(&["--cascade", &file, "--force", "--confidence", "0.99"]).status.code(), Some(2));
    let said = String::from_utf8(audit(&[]).stdout).unwrap();
    assert!(said.contains("the first 3 stay, in their order") && said.contains("in any order"), "{said}");

    let rerank = |more: &[&str]| -> Vec<Value> {
        let all: Vec<&str> = ["rerank", "-q", "query 1", "--format", "jsonl", "-n", "3", "--no-text"]
            .iter()
            .chain(more)
            .copied()
            .collect();
        let documents: String =
            (0..8).map(|d| format!("document {} about {} and {}\n", d * 37 % 11, 7 + d, d * d)).collect();
        ok(&all, documents.as_bytes()).lines().map(json).collect()
    };
    let (by_cascade, by_model) = (rerank(&["--cascade", &file]), rerank(&["--model", &tiny]));
    for (a, b) in by_cascade.iter().zip(&by_model) {
        assert_eq!((&a["index"], &a["logit"]), (&b["index"], &b["logit"]));
    }

    // The same documents in any order are cheaper.
    assert_eq!(audit(&["--same", "set"]).status.code(), Some(2)); // it is for a cascade
    audit(&["--cascade", &file, "--force", "--same", "set"]);
    assert!(fs::read_to_string(&file).unwrap().contains("same = \"set\""));
    let set = found["screening"]["set_levels"].as_array().unwrap().last().unwrap();
    assert!(set["confirmed"].as_f64().unwrap() < last["confirmed"].as_f64().unwrap(), "{set} {last}");
    let indices = |rows: &[Value]| {
        let mut indices: Vec<u64> = rows.iter().map(|row| row["index"].as_u64().unwrap()).collect();
        indices.sort_unstable();
        indices
    };
    assert_eq!(indices(&rerank(&["--cascade", &file])), indices(&by_model));
}

#[test]
fn search_goes_the_whole_road_over_a_folder_of_texts() {
    let folder = tempfile::tempdir().unwrap();
    let notes = folder.path().join("notes");
    fs::create_dir_all(notes.join("town")).unwrap();
    fs::write(
        notes.join("town/bridge.md"),
        "# The bridge\n\nThe old bridge was built in 1897. It fell in 1921.\n",
    )
    .unwrap();
    fs::write(
        notes.join("town/copy.txt"),
        "# The bridge\n\nThe old bridge was built in 1897. It fell in 1921!\n",
    )
    .unwrap();
    fs::write(notes.join("cats.txt"), "A jaguar is a cat. It swims under the bridge.").unwrap();
    fs::write(notes.join("data.bin"), [0, 159, 146, 150]).unwrap();
    fs::write(notes.join(".hidden.md"), "bridge bridge bridge").unwrap();
    let (notes, tiny) = (notes.display().to_string(), tiny());
    let search = |more: &[&str]| -> Output {
        let all: Vec<&str> = ["search", &notes, "when was the old bridge built", "--model", &tiny]
            .iter()
            .chain(more)
            .copied()
            .collect();
        jointly()
            .args(all)
            .env("XDG_CACHE_HOME", folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .output()
            .unwrap()
    };
    let output = search(&["--format", "json"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("indexing 3 documents"), "{said}");
    let found = json(&String::from_utf8(output.stdout).unwrap());
    assert_eq!((&found["documents"], &found["candidates"]), (&3.into(), &3.into()));
    let ids: Vec<&str> =
        found["results"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 3);
    // The copy is the last, whatever the tiny model thinks of it.
    assert!(["town/bridge.md", "town/copy.txt"].contains(&ids[2]), "{found}");
    assert!(found["results"][0]["span"].is_array(), "{found}");
    // The index is there now; the text is for people.
    let output = search(&["-n", "2", "--diversity", "0.7"]);
    let (text, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(!said.contains("indexing") && said.contains("mmr"), "{said}");
    assert!(text.starts_with(" 1  ") && text.contains("bridge"), "{text}");
    // A file that has changed is found.
    fs::write(Path::new(&notes).join("cats.txt"), "Zebra.").unwrap();
    let output = search(&["--format", "json"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("indexing 3 documents"));
    assert_eq!(json(&String::from_utf8(output.stdout).unwrap())["candidates"], 2);
    // So is a bi-encoder that has.
    let model = folder.path().join("model");
    let source = Path::new(&tiny).with_file_name("embed-bert");
    for part in ["", "1_Pooling"] {
        fs::create_dir_all(model.join(part)).unwrap();
        for path in fs::read_dir(source.join(part)).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_file() {
                fs::copy(&path, model.join(part).join(path.file_name().unwrap())).unwrap();
            }
        }
    }
    for (change, is_made) in [("", true), ("", false), ("\n", true)] {
        let config = fs::read_to_string(model.join("config.json")).unwrap() + change;
        fs::write(model.join("config.json"), config).unwrap();
        let output = search(&["--dense", model.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert_eq!(said.contains("indexing 3 documents"), is_made, "{change:?}: {said}");
    }

    // With a cascade, and an index made before.
    let file = cascade(folder.path(), "two.toml", TWO);
    let index = folder.path().join("index").display().to_string();
    ok(&["index", &notes, "-o", &index], b"");
    let text = ok(
        &["search", &notes, "old bridge", "--index", &index, "--cascade", &file, "--keep-copies", "--quiet"],
        b"",
    );
    assert_eq!(text.lines().filter(|line| line.contains("town/")).count(), 2, "{text}");
    fails(
        &["search", folder.path().join("index").to_str().unwrap(), "x"],
        b"",
        2,
        "no corpus.jsonl, plain, .gz or .zst, and no text",
    );
    fails(&["search", &notes, " "], b"", 2, "the query is empty");
    fails(
        &["search", &notes, "x", "--index", &index, "--model", &tiny, "--diversity", "7"],
        b"",
        2,
        "lambda: 7",
    );
}
