//! The built program, run as users run it, on the tiny checkpoints of `testdata/`.

// The helpers of the tests are tests too.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

#[path = "cli/audit.rs"]
mod audit;
#[path = "cli/calibrate.rs"]
mod calibrate;
#[path = "cli/cascade.rs"]
mod cascade;
#[path = "cli/slices.rs"]
mod slices;
#[cfg(unix)]
#[path = "cli/sql.rs"]
mod sql;

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name)
}

fn jointly() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jointly"));
    command.env_remove("JOINTLY_ISA").env("HF_HUB_OFFLINE", "1").env("HF_HOME", "/nonexistent");
    command.env("JOINTLY_PACKED_CACHE", "off");
    command.stdin(Stdio::null());
    command
}

fn run(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = jointly()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A program that refuses its input does not read it.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn ok(arguments: &[&str], input: &[u8]) -> String {
    let output = run(arguments, input);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

fn stderr_of(arguments: &[&str]) -> String {
    let output = run(arguments, b"x\n");
    assert!(output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[track_caller]
fn fails(arguments: &[&str], input: &[u8], code: i32, message: &str) {
    let output = run(arguments, input);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    assert!(errors.contains(message), "{errors:?} does not say {message:?}");
    assert!(errors.starts_with("jointly: ") || errors.starts_with("error: "), "{errors:?}");
    assert!(!errors.contains("panicked"), "{errors}");
}

fn tiny() -> String {
    testdata("tiny-bert").display().to_string()
}

const DOCUMENTS: &[u8] = b"The bridge was built in 1897.\nA jaguar is a cat.\n\nNo vaccine was given.\n";

fn rerank(arguments: &[&str], input: &[u8]) -> String {
    let tiny = tiny();
    let all: Vec<&str> = ["rerank", "--query", "how old is the bridge", "--model", &tiny]
        .into_iter()
        .chain(arguments.iter().copied())
        .collect();
    ok(&all, input)
}

#[test]
fn rerank_prints_every_format() {
    let raw = rerank(&["--format", "json"], DOCUMENTS);
    assert_eq!(raw.lines().count(), 1);
    let model = serde_json::to_string(&tiny()).unwrap();
    assert!(
        raw.starts_with(&format!(
            r#"{{"model":{model},"query":"how old is the bridge","results":[{{"rank":1,"#
        )),
        "{raw}"
    );
    let whole: Value = serde_json::from_str(&raw).unwrap();
    assert_eq!(whole["query"], "how old is the bridge");
    let results = whole["results"].as_array().unwrap();
    assert_eq!(results.len(), 3, "a blank line is no document");
    let keys: Vec<&str> = results[0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["index", "logit", "rank", "score", "text", "tokens", "truncated"]);
    let logits: Vec<f64> = results.iter().map(|row| row["logit"].as_f64().unwrap()).collect();
    assert!(logits.is_sorted_by(|a, b| a >= b), "{logits:?}");

    let lines = rerank(&["--format", "jsonl", "--top-n", "2", "--no-text"], DOCUMENTS);
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["logit"], results[0]["logit"]);
    assert!(lines[0].get("text").is_none());

    let table = rerank(&["--format", "tsv"], DOCUMENTS);
    assert!(
        table.starts_with("rank\tindex\tid\tscore\tlogit\ttokens\ttruncated\tspan\ttext\tprobability\n1\t"),
        "{table}"
    );
    assert!(table.lines().all(|line| line.split('\t').count() == 10));

    let people = rerank(&[], DOCUMENTS);
    assert_eq!(people.lines().count(), 3);
    let columns = |line: &str| line.find('#').unwrap();
    assert!(people.lines().all(|line| columns(line) == columns(people.lines().next().unwrap())), "{people}");
    assert!(!people.contains('\u{1b}'), "no colour into a pipe");
}

/// The numbers that differ from one instruction set to another in the last digits, as `~`.
fn masked(line: &str) -> String {
    let mut line = line.to_string();
    for key in ["\"score\":", "\"logit\":"] {
        if let Some(at) = line.find(key).map(|at| at + key.len()) {
            let end = at + line[at..].find([',', '}']).unwrap();
            let number: f64 = line[at..end].parse().unwrap();
            assert!(number.is_finite());
            line.replace_range(at..end, "~");
        }
    }
    line
}

#[test]
fn the_names_and_order_of_fields_are_stable() {
    let text = "{\"id\": \"a\\tb\", \"text\": \"Say \\\"old\\\".\\nC:\\\\x\"}\n";
    let row = rerank(&["--format", "jsonl"], text.as_bytes());
    let all = "{\"rank\":1,\"index\":0,\"id\":\"a\\tb\",\"score\":~,\"logit\":~,\"tokens\":";
    assert!(masked(&row).starts_with(all), "{row}");
    assert!(row.ends_with(",\"truncated\":false,\"text\":\"Say \\\"old\\\".\\nC:\\\\x\"}\n"), "{row}");
    let row = rerank(&["--format", "jsonl", "--long", "windows", "--no-text"], b"old\n");
    assert!(row.ends_with(",\"truncated\":false,\"span\":[0,3]}\n"), "{row}");
    let row = rerank(&["--format", "tsv"], text.as_bytes());
    let cells: Vec<&str> = row.lines().nth(1).unwrap().split('\t').collect();
    assert_eq!((cells[2], cells[8]), ("a\\tb", "Say \"old\".\\nC:\\\\x"));
    assert_eq!(
        rerank(&["--format", "tsv"], b""),
        "rank\tindex\tid\tscore\tlogit\ttokens\ttruncated\tspan\ttext\tprobability\n"
    );
    assert!(rerank(&["--format", "json"], b"\n \r\n").ends_with("\"results\":[]}\n"));

    let tiny = tiny();
    let pair = b"\n{\"document\": \"b\", \"query\": \"a\", \"document_id\": [1], \"query_id\": \"q\", \"id\": 1.5, \"x\": {}}";
    let row = ok(&["score", "-", "--model", &tiny], pair);
    let expected =
        "{\"line\":2,\"id\":1.5,\"query_id\":\"q\",\"document_id\":[1],\"logit\":~,\"score\":~,\"tokens\":";
    assert!(masked(&row).starts_with(expected), "{row}");
    assert!(row.ends_with(",\"truncated\":false}\n"), "{row}");
    let row = ok(&["score", "-", "--model", &tiny, "--long", "windows"], b"a\tbc");
    assert!(
        masked(&row).starts_with("{\"line\":1,\"logit\":~") && row.ends_with("\"span\":[0,2]}\n"),
        "{row}"
    );
    assert_eq!(ok(&["score", "-", "--model", &tiny], b""), "");

    let about = ok(&["inspect", &tiny, "--format", "json"], b"");
    let keys: Vec<&str> = about
        .split(['{', ','])
        .filter_map(|part| part.strip_prefix('"')?.split_once("\":"))
        .map(|(key, _)| key)
        .collect();
    let names = [
        "source",
        "architecture",
        "head",
        "template",
        "score",
        "scale",
        "hidden_size",
        "layers",
        "vocab_size",
        "parameters",
        "dtype",
        "max_length",
        "licence",
        "receipt",
        "isa",
        "threads",
    ];
    assert_eq!(keys, names, "{about}");
    assert!(about.contains("\"receipt\":\"none\""), "{about}");
    let about = ok(&["inspect", &tiny, "--threads", "3"], b"");
    assert_eq!(about.lines().count(), 14, "{about}");
    assert!(about.contains(", 3 threads"), "{about}");
}

#[test]
fn the_samples_are_read() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples");
    let documents = rerank(&[samples.join("hearing-aids.txt").to_str().unwrap()], b"");
    assert!(documents.lines().count() >= 12, "{documents}");
    let rows = ok(&["score", samples.join("pairs.jsonl").to_str().unwrap(), "--model", &tiny()], b"");
    assert_eq!(rows.lines().count(), 4, "{rows}");
}

#[test]
fn rerank_reads_json_lines_files_and_windows_line_ends() {
    let jsonl = b"{\"id\": \"a\", \"text\": \"The bridge.\"}\n{\"id\": 7, \"text\": \"A\\tcat.\"}\n";
    let rows = rerank(&["--format", "jsonl"], jsonl);
    assert!(rows.contains("\"id\":\"a\"") && rows.contains("\"id\":7"), "{rows}");
    assert!(rerank(&["--format", "tsv"], jsonl).contains("A\\tcat."));

    let plain = rerank(&["--format", "jsonl"], b"one\ntwo");
    assert_eq!(rerank(&["--format", "jsonl"], b"\xef\xbb\xbfone\r\ntwo\r\n"), plain);

    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a.txt"), folder.path().join("b.txt"));
    fs::write(&a, "The bridge\nwas built in 1897.").unwrap();
    fs::write(&b, "").unwrap();
    let rows = rerank(&["--format", "jsonl", "--files", a.to_str().unwrap(), b.to_str().unwrap()], b"");
    assert!(rows.contains("was built in 1897.") && rows.contains("b.txt"), "{rows}");
    assert_eq!(rerank(&["--format", "jsonl"], b""), "", "no document, no result");
}

#[test]
fn long_documents_are_reported_or_read_in_windows() {
    let document = format!("{} the bridge was built in 1897\n", "nothing to see here ".repeat(60));
    let cut: Value = serde_json::from_str(&rerank(&["--format", "jsonl"], document.as_bytes())).unwrap();
    assert_eq!(cut["truncated"], true);
    assert_eq!(cut["tokens"], 96);
    let read = rerank(&["--format", "jsonl", "--long", "windows"], document.as_bytes());
    let read: Value = serde_json::from_str(&read).unwrap();
    assert_eq!(read["truncated"], false);
    let span: Vec<usize> =
        read["span"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
    assert!(span[0] < span[1] && span[1] <= document.trim_end().chars().count(), "{span:?}");
    assert!(read["logit"].as_f64() >= cut["logit"].as_f64(), "the first window is among them");
    let people = rerank(&["--long", "windows", "--max-windows", "1"], document.as_bytes());
    assert!(people.contains("truncated [0.."), "{people}");
    assert!(people.trim_end().chars().count() <= 120, "{people}");
}

#[test]
fn bad_input_is_named_by_file_and_line() {
    let tiny = tiny();
    let rerank = |more: &[&'static str]| -> Vec<String> {
        ["rerank", "--query", "q", "--model", &tiny]
            .into_iter()
            .chain(more.iter().copied())
            .map(String::from)
            .collect()
    };
    let fails = |arguments: Vec<String>, input: &[u8], code, message: &str| {
        fails(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), input, code, message);
    };
    fails(rerank(&[]), b"good\nb\xffd\n", 2, "standard input:2: byte 2 of the line is not UTF-8");
    fails(rerank(&[]), b"\xff\xfea\0", 2, "UTF-16");
    fails(rerank(&["--input", "jsonl"]), b"{\"text\": 3}\n", 2, "standard input:1: invalid type");
    fails(rerank(&["--input", "jsonl"]), b"{\"text\": \"\\ud800\"}\n", 2, "standard input:1:");
    fails(rerank(&[]), b"{\"text\": \"\\ud800\"}\n", 2, "standard input:1: half of a surrogate pair");
    fails(rerank(&[]), b"{\"text\": \"a\"}\n\n{\"id\": 3}\n", 2, "standard input:3: missing field `text`");
    fails(rerank(&[]), b"{\"contents\": \"a\"}\n", 2, "standard input:1: a JSON object without `text`");
    fails(rerank(&["--threads", "0"]), b"x\n", 2, "1..=1024");
    fails(rerank(&["--threads", "1025"]), b"x\n", 2, "1..=1024");
    fails(rerank(&["--files"]), b"a\n\nb\xff", 2, "standard input:3: byte 2 of the line is not UTF-8");
    fails(rerank(&["--files"]), b"\xfe\xff\0a", 2, "UTF-16");
    fails(rerank(&["no-such-file"]), b"", 2, "no-such-file");
    fails(rerank(&["."]), b"", 2, "is a directory");
    fails(rerank(&["--max-length", "0"]), b"x\n", 2, "max_length");
    fails(rerank(&["--max-length", "5000"]), b"x\n", 2, "max_length");
    fails(rerank(&["--instruction", "x"]), b"x\n", 2, "instruction");
    let query = |query: &str| ["rerank", "--query", query, "--model", &tiny].map(String::from).to_vec();
    fails(query("  "), b"x\n", 2, "empty");
    let model = |model: &str| ["rerank", "--query", "q", "--model", model].map(String::from).to_vec();
    fails(model("../no/such/model"), b"x\n", 2, "no such folder");
    fails(model("org/name"), b"x\n", 2, "org/name: offline");
    let mut isa = jointly();
    let output = isa.args(["inspect", &tiny]).env("JOINTLY_ISA", "mmx").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("mmx"));
}

#[test]
fn unusual_texts_are_scored() {
    let documents = "\u{0}\u{1}\n\u{202e}مرحبا\u{202c}\ne\u{301}e\u{301}\n[SEP] [CLS] <|im_end|> </s>\n🏳️‍🌈\n";
    assert_eq!(rerank(&["--format", "jsonl"], documents.as_bytes()).lines().count(), 5);
    let shown = rerank(&[], "\u{1b}[31mred\n".as_bytes());
    assert!(!shown.contains('\u{1b}'), "a document does not steer the terminal");
    let id = "{\"id\": \"\\u202ea\\u0007\", \"text\": \"\\u2067b\\u001b[2J\"}\n";
    let shown = rerank(&[], id.as_bytes());
    assert!(shown.trim_end().ends_with("a  b[2J"), "{shown:?}");
    let long = vec![b'a'; 1 << 20];
    assert_eq!(rerank(&["--format", "jsonl", "--no-text"], &long).lines().count(), 1);
}

fn pairs(count: usize) -> String {
    (0..count)
        .map(|i| format!("{{\"id\": {i}, \"query\": \"how old is bridge {}\", \"document\": \"Bridge {i} was built.{}\"}}\n", i / 9, " word".repeat(i % 30)))
        .collect()
}

#[test]
fn score_keeps_order_ids_and_streams() {
    let tiny = tiny();
    let input = pairs(3000);
    let output = ok(&["score", "-", "--model", &tiny], input.as_bytes());
    let rows: Vec<Value> = output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 3000);
    assert!(rows.iter().enumerate().all(|(i, row)| row["id"] == i && row["line"] == i + 1));
    let rows =
        ["how old\tThe bridge\n", "id9\thow old\tThe bridge\n", "q\td\thow old\tThe bridge\n"].map(|tsv| {
            serde_json::from_str::<Value>(&ok(&["score", "-", "--model", &tiny], tsv.as_bytes())).unwrap()
        });
    assert_eq!((rows[1]["id"].as_str(), rows[2]["document_id"].as_str()), (Some("id9"), Some("d")));
    assert_eq!(rows[0]["logit"], rows[2]["logit"]);
    // A stray tab must not make a query of an id.
    let stray = b"how old\tThe bridge\nhow\told\tThe bridge\n";
    fails(&["score", "-", "--model", &tiny], stray, 2, "standard input:2: 3 columns; the first line has 2");
    fails(&["score", "-", "--model", &tiny], b"how old\n", 2, "--input jsonl");
}

#[test]
fn score_names_bad_lines_or_skips_them() {
    let tiny = tiny();
    let input = b"{\"query\": \"a\", \"document\": \"b\"}\nnot json\n{\"query\": \" \", \"document\": \"b\"}\n{\"query\": \"a\"}\n\xff\n{\"query\": \"a\", \"document\": \"\"}\n";
    fails(&["score", "-", "--model", &tiny], input, 2, "standard input:2:");
    let output = run(&["score", "-", "--model", &tiny, "--skip-bad"], input);
    assert!(output.status.success());
    let lines: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.iter().map(|row| row["line"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 6]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("4 lines skipped"));
    let no_pairs = b"not json\nnor this\n";
    fails(&["score", "-", "--model", &tiny, "--skip-bad"], no_pairs, 2, "none of 2 lines could be used");
    fails(
        &["score", "-", "--model", &tiny],
        b"{\"query\": \"\", \"document\": \"b\"}\n",
        2,
        "standard input:1: the query is empty",
    );
    fails(&["score", "-", "--model", &tiny], b"only one column\n", 2, "1 column; a pair");
}

/// Starts a job and ends it by `signal` as soon as it has written more than there was. Whether it was still running.
fn interrupt(arguments: &[&str], partial: &str, signal: &str) -> bool {
    let mut child = jointly()
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(if signal == "INT" { Stdio::piped() } else { Stdio::null() })
        .spawn()
        .unwrap();
    let size = || fs::metadata(partial).map_or(0, |metadata| metadata.len());
    let before = size();
    while size() <= before && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    if child.try_wait().unwrap().is_some() {
        return false;
    }
    if signal == "KILL" {
        child.kill().unwrap();
        child.wait().unwrap();
        return true;
    }
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.lines().all(|line| line.starts_with("jointly: going on after line ")), "{said}");
    true
}

#[test]
#[cfg(unix)] // signals
fn an_interrupted_score_goes_on_and_ends_as_if_never_interrupted() {
    let tiny = tiny();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::write(path("in.jsonl"), pairs(20_000)).unwrap();
    ok(&["score", &path("in.jsonl"), "--model", &tiny, "-o", &path("whole.jsonl")], b"");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left behind");

    let (input, out, partial) = (path("in.jsonl"), path("out.jsonl"), path("out.jsonl.partial"));
    let arguments = ["score", &input, "--model", &tiny, "-o", &out];
    for signal in ["KILL", "INT", "KILL"] {
        assert!(interrupt(&arguments, &partial, signal), "the job was over before it could be interrupted");
        assert!(!Path::new(&out).exists());
        // What a machine that lost power may leave: half a line.
        fs::OpenOptions::new().append(true).open(&partial).unwrap().write_all(b"{\"line\":1,\"lo").unwrap();
    }
    let other = |more: &[&str], message: &str| {
        let all: Vec<&str> = arguments.iter().chain(more).copied().collect();
        fails(&all, b"", 2, message);
    };
    other(&["--max-length", "50"], "begun with other options");
    other(&["--long", "windows"], "begun with other options");
    other(&["--precision", "bf16"], "begun with other options");
    let electra = testdata("tiny-electra").display().to_string();
    fails(
        &["score", &input, "--model", &electra, "-o", &out, "--max-length", "96"],
        b"",
        2,
        "begun with another model",
    );
    fs::copy(&input, path("copy.jsonl")).unwrap();
    fails(&["score", &path("copy.jsonl"), "--model", &tiny, "-o", &out], b"", 2, "another input file");
    {
        let file = fs::File::open(&partial).unwrap();
        file.lock().unwrap();
        fails(&arguments, b"", 1, "another process is writing it");
    }
    let said = run(&arguments, b"").stderr;
    assert!(String::from_utf8(said).unwrap().starts_with("jointly: going on after line "));
    assert!(fs::read(path("whole.jsonl")).unwrap() == fs::read(&out).unwrap(), "byte for byte");
    other(&[], "--force");
    ok(&["score", &input, "--model", &tiny, "-o", &out, "--force"], b"");
}

#[test]
fn a_score_that_a_bad_line_stopped_goes_on_with_skip_bad() {
    let tiny = tiny();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let good = pairs(300);
    let lines: Vec<&str> = good.lines().collect();
    let input = format!(
        "{}\n\nnot json\n{}\n{{\"query\": \"\", \"document\": \"b\"}}\n",
        lines[..200].join("\n"),
        lines[200..].join("\n")
    );
    let (file, out) = (path("in.txt"), path("out.jsonl"));
    fs::write(&file, &input).unwrap();
    let arguments = ["score", &file, "--model", &tiny, "-o", &out];
    fails(&arguments, b"", 2, "in.txt:202: ");
    let partial = fs::read_to_string(path("out.jsonl.partial")).unwrap();
    assert_eq!(partial.lines().count(), 200, "what comes before the bad line is not lost");
    let skip: Vec<&str> = arguments.into_iter().chain(["--skip-bad"]).collect();
    let output = run(&skip, b"");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("going on after line 200") && said.contains("2 lines skipped"), "{said}");
    let through_pipe = ok(&["score", "-", "--model", &tiny, "--skip-bad", "--quiet"], input.as_bytes());
    assert_eq!(fs::read_to_string(&out).unwrap(), through_pipe);

    // A pipe cannot be read again: nothing to go on with, but the file appears whole or not at all.
    let from_pipe = path("from-pipe.jsonl");
    ok(&["score", "-", "--model", &tiny, "--skip-bad", "-o", &from_pipe], input.as_bytes());
    assert_eq!(fs::read_to_string(&from_pipe).unwrap(), through_pipe);
    let quiet = run(&["score", "-", "--model", &tiny, "--skip-bad", "--quiet"], input.as_bytes());
    assert_eq!(String::from_utf8(quiet.stderr).unwrap(), "");

    // A file that has been changed is another one.
    fails(&["score", &file, "--model", &tiny, "-o", &path("again.jsonl")], b"", 2, "in.txt:202: ");
    fs::write(&file, input.replace("not json\n", "")).unwrap();
    fails(&["score", &file, "--model", &tiny, "-o", &path("again.jsonl")], b"", 2, "changed since");
    fails(&["score", &file, "--model", &tiny, "-o", &file, "--force"], b"", 2, "both input and output");
    // Options that no line can help are said once, not skipped line by line.
    fails(
        &["score", &file, "--model", &tiny, "--skip-bad", "--instruction", "x"],
        b"",
        2,
        "jointly: instruction",
    );
}

#[test]
fn pairs_that_can_be_read_but_not_scored_are_bad_lines_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let model = copy_of_tiny(folder.path());
    // A token that the checkpoint has no row for.
    let tokenizer = model.join("tokenizer.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&tokenizer).unwrap()).unwrap();
    assert!(json["model"]["vocab"]["oxygen"].is_u64());
    json["model"]["vocab"]["oxygen"] = 5000.into();
    fs::write(&tokenizer, json.to_string()).unwrap();

    let (file, out, partial) = (path("in.tsv"), path("out.jsonl"), path("out.jsonl.partial"));
    fs::write(&file, "a\tb\na\toxygen\na\tc\none column\na\td\n").unwrap();
    let arguments = ["score", &file, "--model", model.to_str().unwrap(), "-o", &out];
    fails(&arguments, b"", 2, "in.tsv:2: pair could not be tokenised");
    let first = fs::read_to_string(&partial).unwrap();
    assert!(first.starts_with("{\"line\":1,") && first.lines().count() == 1, "{first}");

    // As an interrupted run with --skip-bad leaves it: the third line is done, the second was skipped.
    fs::write(&partial, format!("{first}{}", first.replace("\"line\":1", "\"line\":3"))).unwrap();
    let skip: Vec<&str> = arguments.into_iter().chain(["--skip-bad"]).collect();
    let said = String::from_utf8(run(&skip, b"").stderr).unwrap();
    assert!(said.contains("going on after line 3") && said.contains("2 lines skipped"), "{said}");
    ok(&skip.iter().copied().chain(["--force", "--quiet"]).collect::<Vec<_>>(), b"");
    let lines = fs::read_to_string(&out).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|row| row["line"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 3, 5]);
}

#[test]
fn a_closed_pipe_is_no_error() {
    let tiny = tiny();
    let mut child = jointly()
        .args(["score", "-", "--model", &tiny])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || drop(stdin.write_all(pairs(50_000).as_bytes())));
    let mut first = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap(); // and closed here
    let output = child.wait_with_output().unwrap();
    drop(writer);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

fn copy_of_tiny(folder: &Path) -> PathBuf {
    let model = folder.join("model");
    fs::create_dir(&model).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(testdata("tiny-bert").join(name), model.join(name)).unwrap();
    }
    model
}

#[test]
fn receipts_are_written_held_and_broken() {
    let folder = tempfile::tempdir().unwrap();
    let model = copy_of_tiny(folder.path());
    let name = model.to_str().unwrap();
    fails(&["verify", name], b"", 3, "no receipt");
    // What nobody certified is computed exactly.
    let auto = ["rerank", "--query", "q", "--model", name, "--precision", "auto"];
    assert!(stderr_of(&auto).contains("precision f32"));
    let written = ok(&["verify", name, "--write"], b"");
    assert!(
        written.contains("7 pairs") && written.contains("bf16: moves") && written.contains("int8: moves")
    );
    let receipt = fs::read_to_string(model.join("receipt.json")).unwrap();
    let none = receipt.replace("\"certified\": true", "\"certified\": false");
    fs::write(model.join("receipt.json"), &none).unwrap();
    assert!(stderr_of(&auto).contains("precision f32"));
    fs::write(model.join("receipt.json"), &receipt).unwrap();
    assert!(ok(&["verify", name], b"").contains("7 pairs reproduced"));
    assert!(ok(&["inspect", name], b"").contains("holds"));
    // The pins are of the model's own length, whatever this run reads.
    ok(&["rerank", "--query", "q", "--model", name, "--max-length", "24"], b"x\n");

    // A changed configuration that still loads: the hash tells, the scores do not.
    let config = model.join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}\n")).unwrap();
    fails(&["verify", name], b"", 1, "config.json");
    fs::write(&config, text.replace("\"gelu\"", "\"relu\"")).unwrap();
    fails(&["rerank", "--query", "q", "--model", name], b"x\n", 1, "receipt pins");
    ok(&["rerank", "--query", "q", "--model", name, "--no-receipt-check"], b"x\n");
    assert!(ok(&["inspect", name, "--format", "json"], b"").contains("\"receipt\":\"does not hold: "));
    let bundle = folder.path().join("broken.jointly");
    fails(&["bundle", name, "-o", bundle.to_str().unwrap()], b"", 1, "receipt pins");
    assert!(!bundle.exists());
    fs::write(model.join("receipt.json"), "{}").unwrap();
    fails(&["verify", name], b"", 1, "receipt.json");
}

#[test]
fn a_bundle_scores_as_its_folder_does() {
    let folder = tempfile::tempdir().unwrap();
    let model = copy_of_tiny(folder.path());
    ok(&["verify", model.to_str().unwrap(), "--write"], b"");
    let bundle = folder.path().join("tiny.jointly");
    ok(&["bundle", model.to_str().unwrap(), "-o", bundle.to_str().unwrap()], b"");
    let by = |model: &Path| ok(&["score", "-", "--model", model.to_str().unwrap()], pairs(20).as_bytes());
    assert_eq!(by(&bundle), by(&model));
    assert!(ok(&["verify", bundle.to_str().unwrap()], b"").contains("reproduced"));
    let again = folder.path().join("again.jointly");
    fails(&["bundle", bundle.to_str().unwrap(), "-o", again.to_str().unwrap()], b"", 2, "a bundle already");
    fails(
        &["bundle", model.to_str().unwrap(), "-o", bundle.to_str().unwrap()],
        b"",
        2,
        "--force replaces it",
    );
    let inside = model.join("config.json");
    let over = ["bundle", model.to_str().unwrap(), "--force", "-o", inside.to_str().unwrap()];
    fails(&over, b"", 2, "lies in the model's folder");
    fails(&["bundle", "default", "-o", again.to_str().unwrap()], b"", 2, "in every program");
    fails(&["verify", bundle.to_str().unwrap(), "--write"], b"", 2, "not a folder");
    let mut bytes = fs::read(&bundle).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&bundle, bytes).unwrap();
    fails(&["inspect", bundle.to_str().unwrap()], b"", 1, "tiny.jointly");
}

#[test]
fn hostile_folders_are_refused() {
    let check = |change: &dyn Fn(&Path), message: &str| {
        let folder = tempfile::tempdir().unwrap();
        let model = copy_of_tiny(folder.path());
        change(&model);
        fails(&["inspect", model.to_str().unwrap()], b"", 1, message);
    };
    let edit = |from: &'static str, to: &'static str| {
        move |model: &Path| {
            let text = fs::read_to_string(model.join("config.json")).unwrap();
            assert!(text.contains(from), "{from}");
            fs::write(model.join("config.json"), text.replace(from, to)).unwrap();
        }
    };
    check(&|model| fs::remove_file(model.join("config.json")).unwrap(), "no config.json");
    check(&|model| fs::remove_file(model.join("tokenizer.json")).unwrap(), "no tokenizer.json");
    check(&|model| fs::remove_file(model.join("model.safetensors")).unwrap(), "no model.safetensors");
    check(&|model| fs::write(model.join("tokenizer.json"), "{}").unwrap(), "tokenizer.json");
    check(&|model| fs::write(model.join("config.json"), "[").unwrap(), "config.json");
    check(&|model| fs::write(model.join("model.safetensors"), "").unwrap(), "not a whole safetensors file");
    check(
        &|model| fs::write(model.join("model.safetensors"), [255; 64]).unwrap(),
        "not a whole safetensors file",
    );
    check(
        &|model| {
            let bytes = fs::read(model.join("model.safetensors")).unwrap();
            fs::write(model.join("model.safetensors"), &bytes[..bytes.len() - 100]).unwrap();
        },
        "not a whole safetensors file",
    );
    check(&edit("\"hidden_size\": 36", "\"hidden_size\": 39"), "has shape");
    check(&edit("\"hidden_size\": 36", "\"hidden_size\": 4294967296"), "hidden_size");
    check(&edit("\"num_attention_heads\": 3", "\"num_attention_heads\": 5"), "does not divide");
    check(&edit("\"num_attention_heads\": 3", "\"num_attention_heads\": 0"), "num_attention_heads: is 0");
    check(&edit("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4"), "tensor bert.encoder.layer.3");
    check(&edit("\"LABEL_0\"\n  }", "\"LABEL_0\", \"1\": \"LABEL_1\"\n  }"), "2 labels");
    check(&edit("BertForSequenceClassification", "BertForMaskedLM"), "no score head");
    check(&edit("\"model_type\": \"bert\"", "\"model_type\": \"t5\""), "\"t5\" is not supported");
    check(&edit("\"hidden_act\": \"gelu\"", "\"hidden_act\": \"snake\""), "snake");
    check(
        &|model| {
            fs::remove_file(model.join("model.safetensors")).unwrap();
            fs::write(
                model.join("model.safetensors.index.json"),
                r#"{"weight_map": {"a": "../../x.safetensors"}}"#,
            )
            .unwrap();
        },
        "not the name of a shard",
    );
}

/// Serves a model in the hub's layout to one client, for `requests` requests.
fn hub(model: PathBuf) -> (String, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let names = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
    let server = std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
                request.push(byte[0]);
            }
            let request = String::from_utf8(request).unwrap();
            let path = request.split(' ').nth(1).unwrap_or("/stop").to_string();
            if path == "/stop" {
                return;
            }
            let commit = "0123456789abcdef0123456789abcdef01234567";
            let body = if path.starts_with("/api/models/org/tiny/revision/") {
                let siblings: Vec<Value> = names
                    .iter()
                    .map(|name| {
                        let bytes = fs::read(model.join(name)).unwrap();
                        let sha256: String = {
                            use sha2::Digest;
                            sha2::Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect()
                        };
                        serde_json::json!({"rfilename": name, "size": bytes.len(), "lfs": {"sha256": sha256, "size": bytes.len()}})
                    })
                    .collect();
                serde_json::json!({"id": "org/tiny", "sha": commit, "siblings": siblings})
                    .to_string()
                    .into_bytes()
            } else {
                let name = path.rsplit('/').next().unwrap();
                assert_eq!(path, format!("/org/tiny/resolve/{commit}/{name}"));
                fs::read(model.join(name)).unwrap()
            };
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    (address, server)
}

#[test]
fn a_model_is_pulled_by_its_id_and_used_offline_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let (address, server) = hub(testdata("tiny-bert"));
    let with_hub = |arguments: &[&str], offline: &str| {
        jointly()
            .args(arguments)
            .env("HF_ENDPOINT", &address)
            .env("HF_HOME", folder.path().join("hub-home"))
            .env("HF_HUB_OFFLINE", offline)
            .output()
            .unwrap()
    };
    let pulled = with_hub(&["pull", "org/tiny"], "0");
    assert!(pulled.status.success(), "{}", String::from_utf8_lossy(&pulled.stderr));
    let snapshot = String::from_utf8(pulled.stdout).unwrap();
    assert!(Path::new(snapshot.trim()).join("model.safetensors").is_file(), "{snapshot}");
    std::net::TcpStream::connect(address.trim_start_matches("http://"))
        .unwrap()
        .write_all(b"GET /stop HTTP/1.1\r\n\r\n")
        .unwrap();
    server.join().unwrap();

    let found = with_hub(&["inspect", "org/tiny", "--format", "json"], "1");
    assert!(String::from_utf8(found.stdout).unwrap().contains("\"architecture\":\"BERT\""));
    let listed = with_hub(&["models", "--format", "json"], "1");
    assert!(String::from_utf8(listed.stdout).unwrap().contains("org/tiny"));
    let listed = with_hub(&["models"], "1");
    assert!(String::from_utf8(listed.stdout).unwrap().contains("BertForSequenceClassification"));
    let bundle = folder.path().join("tiny.jointly");
    let bundled = with_hub(&["bundle", "org/tiny", "-o", bundle.to_str().unwrap()], "1");
    let said = String::from_utf8(bundled.stderr).unwrap();
    assert!(bundled.status.success() && said.contains("org/tiny has no receipt"), "{said}");
    let bytes = fs::read(&bundle).unwrap();
    let manifest = String::from_utf8_lossy(&bytes[..4096]);
    assert!(manifest.contains("org/tiny") && manifest.contains("0123456789abcdef0123456789abcdef01234567"));
    let missing = with_hub(&["inspect", "org/other"], "1");
    assert_eq!(missing.status.code(), Some(2), "{}", String::from_utf8_lossy(&missing.stderr));
}

/// The fields of a result of `bench`, in the order of the alphabet.
const BENCH_FIELDS: [&str; 21] = [
    "batch",
    "gflop",
    "gflop_computed",
    "gflop_computed_per_s",
    "gflop_per_s",
    "kendall_tau",
    "largest_difference",
    "load_ms",
    "median_ms",
    "p50_ms",
    "p99_ms",
    "pairs",
    "pairs_per_s",
    "peak_gflop_per_s",
    "peak_rss_bytes",
    "precision",
    "share_of_peak",
    "threads",
    "tokens",
    "tokens_per_s",
    "workload",
];

#[test]
fn bench_times_every_combination_and_says_how_accurate_it_is() {
    let tiny = tiny();
    let arguments = ["bench", "--model", &tiny, "--tokens", "40", "--count", "6", "--rounds", "2"];
    let all = [&arguments[..], &["--threads", "1,2,1", "--batch", "1,6,100", "--format", "json"]].concat();
    let report: Value = serde_json::from_str(&ok(&all, b"")).unwrap();
    assert_eq!(
        (&report["model"], &report["architecture"]),
        (&Value::from(tiny.as_str()), &Value::from("BERT"))
    );
    assert_eq!(report["rounds"], 2);
    let results = report["results"].as_array().unwrap();
    let combination = |row: &Value| {
        (row["precision"].as_str().unwrap().to_string(), row["threads"].as_u64(), row["batch"].as_u64())
    };
    let mut combinations: Vec<_> = results.iter().map(combination).collect();
    combinations.dedup();
    assert_eq!(combinations.len(), 3 * 2 * 2, "what is asked for twice is timed once: {combinations:?}");
    for row in results {
        let keys: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, BENCH_FIELDS);
        let number = |key: &str| row[key].as_f64().unwrap();
        assert_eq!((number("pairs"), number("tokens")), (6.0, 240.0));
        assert!(number("median_ms") > 0.0 && number("load_ms") > 0.0, "{row}");
        assert!(number("p50_ms") <= number("p99_ms"), "{row}");
        let rate = number("pairs_per_s") * number("median_ms");
        assert!((rate - 6000.0).abs() < 1e-6, "{row}");
        assert!(number("gflop_computed") < number("gflop"), "{row}");
        if cfg!(target_os = "linux") {
            assert!(number("peak_rss_bytes") > 1e6, "{row}");
        }
        let difference = number("largest_difference");
        if row["precision"] == "f32" {
            assert_eq!((difference, number("kendall_tau")), (0.0, 1.0));
        } else {
            assert!(difference > 0.0 && difference < 0.5, "{row}");
        }
    }

    let table = ok(&[&arguments[..], &["--precision", "f32,bf16"]].concat(), b"");
    assert!(table.contains("40 tokens: 6 pairs, 240 tokens, "), "{table}");
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[3].starts_with("precision ") && lines[3].ends_with(" tau"), "{table}");
    assert!(lines[4].starts_with("f32 ") && lines[4].ends_with(" 1.0000"), "{table}");
    assert!(lines[5].starts_with("bf16 ") && lines.len() == 6, "{table}");

    // One number for all commands, before the command's name.
    let one = ok(&[&["--threads", "1"], &arguments[..], &["--precision", "int8"]].concat(), b"");
    assert_eq!(one.lines().last().unwrap().split_whitespace().nth(1), Some("1"), "{one}");
}

#[test]
fn bench_scores_the_pairs_of_a_file_and_names_its_lines() {
    let folder = tempfile::tempdir().unwrap();
    let tiny = tiny();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let bench = |pairs: &str| {
        run(&["bench", "--model", &tiny, "--rounds", "1", "--precision", "f32", "--pairs", pairs], b"")
    };
    let pairs = file("pairs.tsv", "how old\ta bridge\nhow old\ta bridge\nhow old\ta cat\n");
    let output = bench(&pairs);
    let (table, notes) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success() && table.contains("pairs.tsv: 2 pairs, "), "{table}{notes}");
    assert!(notes.contains("1 pairs left out"), "{notes}");

    let refused = |pairs: &str, message: &str| {
        let output = bench(pairs);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.starts_with("jointly: ") && errors.contains(message), "{errors}");
    };
    refused(&file("bad.tsv", "how old\ta bridge\n \ta cat\n"), "bad.tsv:2: ");
    refused(&file("empty.jsonl", "\n"), "empty.jsonl: there are no pairs");
    refused("-", "must be in a file");
    refused("/nonexistent/pairs.jsonl", "/nonexistent/pairs.jsonl");
    let model = ["bench", "--model", &tiny];
    fails(
        &[&model[..], &["--tokens", "100000"]].concat(),
        b"",
        2,
        "--tokens 100000: this model reads at most",
    );
    fails(&[&model[..], &["--tokens", "5"]].concat(), b"", 2, "--tokens 5");
    fails(&[&model[..], &["--tokens", "0"]].concat(), b"", 2, "--tokens");
    fails(&[&model[..], &["--threads", "2,0"]].concat(), b"", 2, "--threads");
    fails(&[&model[..], &["--pairs", &pairs, "--tokens", "9"]].concat(), b"", 2, "cannot be used with");
}

#[test]
fn bench_on_the_reference_has_no_peak() {
    let tiny = tiny();
    let output = jointly()
        .args([
            "bench", "--model", &tiny, "--tokens", "32", "--count", "2", "--rounds", "1", "--format", "json",
        ])
        .env("JOINTLY_ISA", "scalar")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["isa"], "scalar");
    for row in report["results"].as_array().unwrap() {
        assert!(row["peak_gflop_per_s"].is_null() && row["share_of_peak"].is_null(), "{row}");
        assert!(row["gflop_per_s"].as_f64().unwrap() > 0.0, "{row}");
    }
}

/// Converted weights lie in the user's cache folder, or where the variable says, or nowhere; the output is the same.
#[test]
fn converted_weights_are_kept_where_users_expect_them() {
    let home = tempfile::tempdir().unwrap();
    let named = home.path().join("named");
    let expected = rerank(&["--precision", "int8"], DOCUMENTS);
    let run = |variable: Option<&str>, more: &[&str]| {
        let mut command = jointly();
        command.env_remove("JOINTLY_PACKED_CACHE").env("XDG_CACHE_HOME", home.path());
        variable.map(|value| command.env("JOINTLY_PACKED_CACHE", value));
        let documents = home.path().join("documents.txt");
        fs::write(&documents, DOCUMENTS).unwrap();
        let output = command
            .args(["rerank", "--query", "how old is the bridge", "--model", &tiny(), "--precision", "int8"])
            .args(more)
            .arg(&documents)
            .output()
            .unwrap();
        assert!(output.status.success());
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
        String::from_utf8(output.stderr).unwrap()
    };
    let count = |folder: &Path| {
        let files = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|extension| extension == "packed")).count()
    };
    let usual = home.path().join("jointly/packed");
    assert_eq!(run(Some("off"), &[]) + &run(None, &["--no-packed-cache"]), "");
    assert_eq!(count(&usual), 0);
    assert_eq!(run(Some(named.to_str().unwrap()), &[]), "");
    assert_eq!((count(&named), count(&usual)), (1, 0));
    for _ in 0..2 {
        assert_eq!(run(None, &[]), "");
        assert_eq!(count(&usual), 1);
    }
    let file = home.path().join("documents.txt");
    let note = run(Some(file.to_str().unwrap()), &[]);
    assert!(note.contains("documents.txt") && note.contains("not kept"), "{note:?}");
    assert_eq!(run(Some(file.to_str().unwrap()), &["--quiet"]), "");
}

#[test]
fn the_device_is_chosen_and_said() {
    let rerank = |device: &'static str, more: &[&'static str]| {
        let model = tiny();
        let mut arguments = vec!["rerank", "--model", &model, "--query", "x", "--device", device];
        arguments.extend(more);
        run(&arguments, b"a document\n")
    };
    let said = |device, more: &[&'static str]| String::from_utf8(rerank(device, more).stderr).unwrap();
    assert_eq!(said("cpu", &[]), "jointly: device cpu\n");
    assert_eq!(said("cpu", &["--quiet"]), "");
    // With a reason, where there is no device; both are answers.
    let auto = said("auto", &[]);
    assert!(
        auto.starts_with("jointly: device cpu (") || auto.starts_with("jointly: device cuda:0 ("),
        "{auto}"
    );
    let none = rerank("cuda:999", &[]);
    let error = String::from_utf8(none.stderr).unwrap();
    assert_eq!(none.status.code(), Some(1), "{error}");
    assert!(error.starts_with("jointly: cuda") && !error.contains("panicked"), "{error}");
    assert_eq!(rerank("gpu", &[]).status.code(), Some(2));
    let f16 = rerank("cpu", &["--precision", "f16"]);
    assert_eq!(f16.status.code(), Some(2));
    assert!(String::from_utf8(f16.stderr).unwrap().contains("f16 is for devices"));
}

#[test]
fn completions_and_help() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(ok(&["completions", shell], b"").contains("rerank"), "{shell}");
    }
    #[cfg(unix)]
    {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("jointly.bash");
        fs::write(&script, ok(&["completions", "bash"], b"")).unwrap();
        assert!(Command::new("bash").arg("-n").arg(&script).status().unwrap().success(), "bash can parse it");
    }
    assert_eq!(ok(&["--version"], b""), format!("jointly {}\n", env!("CARGO_PKG_VERSION")));

    // Regenerate with JOINTLY_WRITE_SNAPSHOTS=1.
    let snapshot = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help.txt");
    let mut help = ok(&["--help"], b"");
    let list = help.split_once("Commands:\n").unwrap().1.split_once("\n\n").unwrap().0.to_string();
    // The lines of the list that begin with a name.
    let commands = list.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    for command in commands.filter(|name| !name.is_empty() && *name != "help") {
        help += &format!("\n$ jointly {command} --help\n{}", ok(&[command, "--help"], b""));
    }
    if std::env::var_os("JOINTLY_WRITE_SNAPSHOTS").is_some() {
        fs::write(&snapshot, &help).unwrap();
    }
    assert_eq!(
        fs::read_to_string(&snapshot).unwrap(),
        help,
        "the help has changed: look at it, then regenerate"
    );
    fails(&["rerank"], b"", 2, "--query");
    fails(&["frobnicate"], b"", 2, "frobnicate");
}

#[test]
#[cfg(feature = "default-model")]
fn the_default_model_is_there_and_holds_its_receipt() {
    assert!(ok(&["verify"], b"").contains("reproduced"));
    assert!(ok(&["models"], b"").contains("default"));
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples/hearing-aids.txt");
    let query = "how long does a hearing aid battery last";
    let best =
        ok(&["rerank", "--query", query, "--top-n", "1", "--format", "jsonl", sample.to_str().unwrap()], b"");
    let best: Value = serde_json::from_str(&best).unwrap();
    assert_eq!(best["index"], 0, "{best}");
}

/// A BEIR folder of three documents and two queries.
fn collection(folder: &Path) -> String {
    let corpus = "{\"_id\": \"v\", \"title\": \"Venus\", \"text\": \"The hottest planet.\"}\n\
                  {\"_id\": 12, \"text\": \"The Red Planet is Mars.\"}\n\
                  {\"id\": \"b\", \"text\": \"The bridge was built in 1897.\"}\n";
    let queries =
        "{\"_id\": \"q2\", \"text\": \"planets\"}\n{\"_id\": \"q1\", \"text\": \"who built bridges\"}\n";
    fs::write(folder.join("corpus.jsonl"), corpus).unwrap();
    fs::write(folder.join("queries.jsonl"), queries).unwrap();
    folder.display().to_string()
}

/// Query, document, rank and tag of each line of a run, whose scores must be numbers that do not grow under a query.
fn run_lines(run: &str) -> Vec<String> {
    let mut last = (String::new(), f64::INFINITY);
    run.lines()
        .map(|line| {
            let columns: Vec<&str> = line.split(' ').collect();
            let [query, "Q0", document, rank, score, tag] = columns[..] else { panic!("{line}") };
            let score: f64 = score.parse().unwrap();
            assert!(last.0 != query || score <= last.1, "{run}");
            last = (query.to_string(), score);
            format!("{query} {document} {rank} {tag}")
        })
        .collect()
}

#[test]
fn an_index_is_built_and_searched_by_words_vectors_and_both() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let data = collection(folder.path());
    let (index, model) = (at("index"), testdata("embed-mpnet").display().to_string());
    let said = ok(&["index", &data, "-o", &index], b"");
    assert_eq!(said, format!("{index}: the words of 3 documents\n"));
    let by_words = ["q2 v 1 jointly-bm25", "q2 12 2 jointly-bm25", "q1 b 1 jointly-bm25"];
    assert_eq!(run_lines(&ok(&["retrieve", &index, "--queries", &data], b"")), by_words);
    assert_eq!(
        run_lines(&ok(&["retrieve", &index, "-q", "red Mars", "-k", "1"], b"")),
        ["1 12 1 jointly-bm25"]
    );
    assert_eq!(ok(&["retrieve", &index, "-q", "nothing like it"], b""), "");
    // Parameters of the index, and others for one search.
    let run = |arguments: &[&str]| ok(&[&["retrieve", &index, "-q", "planet"], arguments].concat(), b"");
    assert_eq!(run(&[]), run(&["--k1", "0.9", "--b", "0.4"]));
    assert_ne!(run(&[]), run(&["--k1", "1.2"]));
    for by in ["dense", "hybrid"] {
        fails(
            &["retrieve", &index, "-q", "x", "--by", by],
            b"",
            2,
            "has no vectors; `jointly index --dense MODEL`",
        );
    }

    fails(&["index", &data, "-o", &index, "--dense", &model], b"", 2, "is an index already; --force");
    let said = ok(&["index", &data, "-o", &index, "--dense", &model, "--force"], b"");
    assert_eq!(said, format!("{index}: the words of 3 documents, and their vectors of 20 values\n"));
    let dense = ok(&["retrieve", &index, "--queries", &data, "--by", "dense"], b"");
    assert_eq!(dense.lines().count(), 6, "every document is near every query, more or less:\n{dense}");
    assert_eq!(run_lines(&dense).len(), 6);
    let one = ok(&["retrieve", &index, "--queries", &data, "--by", "dense", "--threads", "1"], b"");
    assert_eq!(dense, one);
    let hybrid = run_lines(&ok(&["retrieve", &index, "--queries", &data, "--by", "hybrid", "-k", "2"], b""));
    assert_eq!(hybrid.len(), 4);
    assert!(hybrid[2].starts_with("q1 b 1 "), "the only one with its words: {hybrid:?}");
    // The model is named by where it lies, from whichever folder the program runs; another is refused.
    let other = testdata("embed-bert").display().to_string();
    fails(
        &["retrieve", &index, "-q", "x", "--by", "dense", "--model", &other],
        b"",
        2,
        "its vectors were made by another model: the files of",
    );
    fails(
        &["index", &data, "-o", &at("x"), "--dense", "default"],
        b"",
        2,
        "has no vectors; name a bi-encoder",
    );
    fails(
        &["index", &data, "-o", &at("x"), "--dense", &tiny()],
        b"",
        1,
        "modules.json: type: there is no such file",
    );
    assert!(!folder.path().join("x").exists());

    // Into a file: whole, and not over another.
    let file = at("run.txt");
    let arguments = ["retrieve", &index, "--queries", &data, "-o", &file];
    assert_eq!(ok(&arguments, b""), "");
    assert_eq!(run_lines(&fs::read_to_string(&file).unwrap()), by_words);
    fails(&arguments, b"", 2, "run.txt exists; --force replaces it");
    ok(&[&arguments[..], &["--force"]].concat(), b"");
    assert!(!Path::new(&at("run.txt.partial")).exists());
}

#[test]
fn collections_are_read_in_every_form_and_faults_name_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (index, file) = (at("index"), at("corpus"));
    for (content, queries) in [
        ("a\tthe red planet\nb\tthe\tbridge\n", "q\tplanets\n"),
        (
            "{\"id\": \"a\", \"title\": null, \"text\": \"the red planet\"}\n",
            "\n{\"id\": \"q\", \"text\": \"planets\"}\n",
        ),
    ] {
        fs::write(&file, content).unwrap();
        fs::write(at("queries"), queries).unwrap();
        ok(&["index", &file, "-o", &index, "--force"], b"");
        let run = ok(&["retrieve", &index, "--queries", &at("queries")], b"");
        assert_eq!(run_lines(&run), ["q a 1 jointly-bm25"]);
    }
    let index_fails = |name: &str, content: &str, message: &str| {
        fs::write(at(name), content).unwrap();
        fails(&["index", &at(name), "-o", &at("new")], b"", 2, message);
        assert!(!Path::new(&at("new")).exists());
    };
    index_fails("c.tsv", "a\tx\nb x\n", "c.tsv:2: 1 columns where there should be: id, text");
    index_fails("c.tsv", "a\tx\n\na\ty\n", "c.tsv:3: id a stands in line 1 already");
    index_fails(
        "c.jsonl",
        "{\"_id\": \"a\", \"text\": \"x\"}\n{\"_id\": \"b\"}\n",
        "c.jsonl:2: missing field `text`",
    );
    index_fails("c.jsonl", "{\"text\": \"x\"}\n", "c.jsonl:1: missing field `_id`");
    index_fails("c.jsonl", "\n", "c.jsonl: no document in it");
    let nowhere = at("nowhere");
    fails(&["index", &nowhere, "-o", &at("new")], b"", 2, "nowhere: ");
    fails(
        &["index", folder.path().to_str().unwrap(), "-o", &at("new")],
        b"",
        2,
        "no corpus.jsonl, plain, .gz or .zst",
    );
    fails(&["index", &file, "-o", &at("new"), "--b", "2"], b"", 2, "b is 2; it must be from 0 to 1");
    fs::write(at("c.tsv"), "a\tx\n").unwrap();
    fs::create_dir(at("mine")).unwrap();
    fs::write(at("mine/thesis"), "").unwrap();
    fails(&["index", &at("c.tsv"), "-o", &at("mine"), "--force"], b"", 2, "a folder of something else");

    fails(&["retrieve", &nowhere, "-q", "x"], b"", 2, "there is no such index");
    fails(&["retrieve", &at("mine"), "-q", "x"], b"", 2, "not an index");
    fails(&["retrieve", &index], b"", 2, "required");
    fails(&["retrieve", &index, "-q", " "], b"", 2, "the query is empty");
    fails(&["retrieve", &index, "-q", "x", "--k1=-1"], b"", 2, "k1 is -1");
    fs::write(at("q.tsv"), "q\tx\np\t \n").unwrap();
    fails(&["retrieve", &index, "--queries", &at("q.tsv")], b"", 2, "q.tsv: query p is empty");
    fs::write(at("q.tsv"), "q 1\tx\n").unwrap();
    fails(&["retrieve", &index, "--queries", &at("q.tsv")], b"", 2, "query id \"q 1\" has white space in it");
    fs::write(at("c.tsv"), "a b\tx\n").unwrap();
    ok(&["index", &at("c.tsv"), "-o", &index, "--force"], b"");
    fails(&["retrieve", &index, "-q", "x"], b"", 2, "document id \"a b\" has white space in it");
}

#[test]
fn a_killed_build_leaves_nothing_to_open_and_the_next_one_cleans_up() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (index, model) = (at("index"), testdata("embed-mpnet").display().to_string());
    let text = "In 2019 the river rose 4.5 metres, in 2021 only 2.75 metres. ".repeat(8);
    // Its vectors take a while, even of a tiny model.
    let lines: String = (0..40_000).map(|i| format!("{i}\t{text}{i}\n")).collect();
    let many = at("many.tsv");
    fs::write(&many, lines).unwrap();
    fs::write(at("few.tsv"), "a\tthe red planet\n").unwrap();
    let kill = |force: &[&str]| {
        let arguments =
            [&["index", &many, "-o", &index, "--dense", &model, "--threads", "1"], force].concat();
        let mut child =
            jointly().args(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let has_vectors = || {
            let entries = fs::read_dir(&index).into_iter().flatten();
            entries.flatten().any(|entry| {
                // An index that was there has one document: 80 bytes.
                fs::metadata(entry.path().join("vectors.f32")).is_ok_and(|file| file.len() > 80)
            })
        };
        while !has_vectors() {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it could be killed");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        child.kill().unwrap(); // SIGKILL
        assert!(!child.wait().unwrap().success(), "it was done before it was killed");
        assert!(has_vectors(), "nobody cleaned up");
    };
    kill(&[]);
    fails(&["retrieve", &index, "-q", "river"], b"", 2, "its building did not finish; build it again");
    // Without --force: what a killed build left is no index.
    ok(&["index", &at("few.tsv"), "-o", &index, "--dense", &model], b"");
    let builds = || {
        let names = fs::read_dir(&index).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with("build-")).count()
    };
    assert_eq!(builds(), 1);
    let search = || ok(&["retrieve", &index, "-q", "planets", "--by", "hybrid"], b"");
    let before = search();
    assert_eq!(run_lines(&before), ["1 a 1 jointly-hybrid"]);
    // Killed while it replaces an index: the index is what it was.
    kill(&["--force"]);
    assert_eq!((search(), builds()), (before, 2));
    ok(&["index", &at("few.tsv"), "-o", &index, "--force"], b"");
    assert_eq!(builds(), 1);
}
