//! `jointly zelo vote`, run as users run it, against an endpoint of this file and the tiny checkpoints of `testdata/`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "the tests of the judges look at more of a request")]
#[path = "../../train/tests/support/endpoint.rs"]
mod endpoint;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use endpoint::{Endpoint, Reply};
use serde_json::{Value, json};

struct Case {
    folder: tempfile::TempDir,
}

impl Case {
    /// Two queries with 21 documents each, 40 pairs, and one across queries.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut pools = String::new();
        let mut pairs = String::new();
        for query in ["1", "2"] {
            let documents: Vec<Value> = (0..21)
                .map(|i| json!({"id": format!("d{i}"), "text": format!("Text {i} of {query}.")}))
                .collect();
            let line = json!({"query_id": query, "query": format!("what {query}"), "documents": documents});
            pools += &format!("{line}\n");
            for i in 0..20 {
                let pair = json!({"query": query, "a": format!("d{i}"), "b": format!("d{}", i + 1)});
                pairs += &format!("{pair}\n");
            }
        }
        pairs += "{\"query\":\"1\",\"a\":\"d0\",\"query_b\":\"2\",\"b\":\"d0\"}\n";
        fs::write(folder.path().join("pools.jsonl"), pools).unwrap();
        fs::write(folder.path().join("pairs.jsonl"), pairs).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jointly"));
        command.env_remove("JOINTLY_ISA").env("HF_HUB_OFFLINE", "1").current_dir(self.folder.path());
        command.args(["zelo", "vote", "pools.jsonl", "pairs.jsonl", "-o", "votes.jsonl"]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn ok(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    #[track_caller]
    fn fails(&self, arguments: &[&str], code: i32, message: &str) {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{errors}");
        assert!(errors.contains(message), "{errors:?} does not say {message:?}");
    }

    fn votes(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.path("votes.jsonl")).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn wait_for_votes(&self, count: usize) {
        for _ in 0..600 {
            if self.path("votes.jsonl").exists() && self.votes().len() >= count {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("no {count} votes in 30 s");
    }
}

fn slow(stall: u64) -> Endpoint {
    Endpoint::start(move |_, _| Reply {
        stall: Duration::from_millis(stall),
        ..Reply::says("{\"score\": -0.5}")
    })
}

fn testdata(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name).display().to_string()
}

#[test]
fn an_ensemble_votes_and_the_summary_counts_it() {
    let (case, endpoint) = (Case::new(), slow(0));
    let chat = format!("chat={}#m", endpoint.url);
    let bi = format!("bi=bi:{}", testdata("embed-bert"));
    let tiny = testdata("tiny-bert");
    let summary = case.ok(&[
        "--judge",
        &chat,
        "--judge",
        &tiny,
        "--judge",
        &bi,
        "--both-orders",
        "--price",
        "chat=1/2",
    ]);
    assert_eq!(
        (&summary["ending"], &summary["pairs"], &summary["asked_now"]),
        (&json!("complete"), &json!(41), &json!(164))
    );
    let of = |name: &str| {
        let judges = summary["judges"].as_array().unwrap();
        judges.iter().find(|judge| judge["judge"] == name).unwrap().clone()
    };
    let chat = of("chat");
    assert_eq!(
        (&chat["votes"], &chat["first_share"], &chat["agreeing"]),
        (&json!(82), &json!(0.75), &json!(0))
    );
    assert_eq!((&chat["prompt_tokens"], &chat["completion_tokens"]), (&json!(8200), &json!(820)));
    assert!((chat["cost"].as_f64().unwrap() - (8200.0 + 1640.0) / 1e6).abs() < 1e-9);
    assert_eq!((&of("tiny-bert")["votes"], &of("tiny-bert")["first_share"]), (&json!(41), &Value::Null));
    assert!(of("bi")["scale"].as_f64().unwrap() > 0.0);
    let votes = case.votes();
    assert_eq!(votes.len(), 164);
    // Sorted by pair, then as the judges were given.
    let judges: Vec<_> = votes[..4].iter().map(|vote| vote["judge"].as_str().unwrap()).collect();
    assert_eq!(judges, ["chat", "chat", "tiny-bert", "bi"]);
    assert_eq!(votes[163]["query_b"], "2");
    // All is there already.
    let before = fs::read(case.path("votes.jsonl")).unwrap();
    let chat = format!("chat={}#m", endpoint.url);
    let again = case.ok(&["--judge", &chat, "--judge", &tiny, "--judge", &bi, "--both-orders"]);
    assert_eq!((&again["asked_now"], endpoint.seen().len()), (&json!(0), 82));
    assert_eq!(fs::read(case.path("votes.jsonl")).unwrap(), before);
    let output = case.run(&["--judge", &chat, "--both-orders"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.starts_with("chat: 82 votes, 0 of them ties; share of what is shown first 0.750; 0 of 41 pairs"),
        "{text}"
    );
}

#[test]
fn a_killed_run_goes_on_and_pays_for_little_twice() {
    let (case, endpoint) = (Case::new(), slow(30));
    let judge = format!("{}#m", endpoint.url);
    let arguments = ["--judge", judge.as_str(), "--concurrency", "2"];
    let mut child = case.command(&arguments).spawn().unwrap();
    case.wait_for_votes(10);
    child.kill().unwrap();
    child.wait().unwrap();
    // Half a line, as a write that was cut leaves it.
    let whole = case.votes().len();
    let mut text = fs::read(case.path("votes.jsonl")).unwrap();
    text.extend_from_slice(b"{\"query\":\"1\",\"a\":");
    fs::write(case.path("votes.jsonl"), text).unwrap();
    let summary = case.ok(&arguments);
    assert_eq!(summary["asked_now"], 41 - whole);
    assert_eq!((case.votes().len(), &summary["judges"][0]["votes"]), (41, &json!(41)));
    // No more than what was on its way when it was killed.
    assert!(endpoint.seen().len() <= 41 + 2, "{}", endpoint.seen().len());
}

#[cfg(unix)]
#[test]
fn an_interruption_waits_for_what_is_on_its_way() {
    let (case, endpoint) = (Case::new(), slow(50));
    let judge = format!("{}#m", endpoint.url);
    let arguments = ["--judge", judge.as_str(), "--concurrency", "2"];
    let child = case.command(&arguments).spawn().unwrap();
    case.wait_for_votes(6);
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("interrupted with ") && errors.contains("the same command goes on"), "{errors}");
    let whole = case.votes().len();
    assert!(whole < 41, "it was too fast for the test");
    assert_eq!(endpoint.seen().len(), whole);
    assert_eq!(case.ok(&arguments)["asked_now"], 41 - whole);
    assert_eq!(endpoint.seen().len(), 41);
}

#[test]
fn the_budget_stops_the_run_and_says_so() {
    let (case, endpoint) = (Case::new(), slow(0));
    let judge = format!("{}#m", endpoint.url);
    case.fails(&["--judge", &judge, "--max-tokens-total", "4000"], 1, "might exceed the budget");
    let spent = 110 * case.votes().len() as u64;
    assert!(spent <= 4000 && spent > 1000, "{spent}");
    case.fails(&["--judge", &judge, "--max-cost", "1"], 2, "--max-cost needs the price of m");
    let summary = case.ok(&["--judge", &judge, "--max-cost", "1", "--price", "0/0"]);
    assert_eq!((&summary["ending"], endpoint.seen().len()), (&json!("complete"), 41));
}

#[test]
fn the_key_comes_from_the_environment_and_is_written_nowhere() {
    const KEY: &str = "sk-not-to-be-seen";
    let case = Case::new();
    let endpoint = Endpoint::start(|seen, _| {
        let header = seen.headers.get("authorization").cloned().unwrap_or_default();
        Reply::new(401, json!({"error": {"message": format!("wrong: {header}")}}).to_string())
    });
    let judge = format!("{}#m", endpoint.url);
    let output =
        case.command(&["--judge", &judge, "--api-key-env", "MY_KEY"]).env("MY_KEY", KEY).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(said.contains("status 401: wrong: Bearer ***") && !said.contains(KEY), "{said}");
    assert!(!fs::read_to_string(case.path("votes.jsonl")).unwrap().contains(KEY));
    assert_eq!(endpoint.seen()[0].headers["authorization"], format!("Bearer {KEY}"));
    case.fails(&["--judge", &judge, "--api-key-env", "NOT_SET_AT_ALL"], 2, "NOT_SET_AT_ALL is not set");
    case.fails(&["--judge", "http://example.com/v1#m", "--api-key-env", "PATH"], 2, "https");
}

#[test]
fn what_cannot_be_used_is_said_before_anything_is_asked() {
    let (case, endpoint) = (Case::new(), slow(0));
    let judge = format!("{}#m", endpoint.url);
    case.fails(&["--judge", &judge, "--judge", &judge], 2, "two judges are called m");
    case.fails(&["--judge", &judge, "--price", "x=1/2"], 2, "no judge is called x");
    case.fails(&["--judge", &judge, "--price", "12"], 2, "two numbers are wanted");
    case.fails(&["--judge", &judge, "--scale", "0"], 2, "--scale is a number above 0");
    case.fails(&["--judge", "./nowhere"], 2, "there is no such folder");
    case.fails(&["--judge", "http://127.0.0.1/v1"], 2, "the model is missing");
    for (line, problem) in [
        ("{\"query\":\"3\",\"a\":\"d0\",\"b\":\"d1\"}", "pairs.jsonl:1: query 3 is not in"),
        ("{\"query\":\"1\",\"a\":\"d0\",\"b\":\"d99\"}", "document d99 is not among those of query 1"),
        ("{\"query\":\"1\",\"a\":\"d0\",\"b\":\"d0\"}", "compared with itself"),
        ("{\"query\":\"1\",\"a\":\"d0\"}", "missing field `b`"),
        ("", "no pair in it"),
    ] {
        fs::write(case.path("pairs.jsonl"), format!("{line}\n")).unwrap();
        case.fails(&["--judge", &judge], 2, problem);
    }
    assert!(endpoint.seen().is_empty());
}
