//! `jointly serve` as it is run: its settings, its signals, its end.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Nothing here takes so long, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

fn tiny_bert() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/tiny-bert")
}

fn serve(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jointly"));
    command.env("JOINTLY_PACKED_CACHE", "off").env("HF_HUB_OFFLINE", "1").env("HF_HOME", "/nonexistent");
    command.arg("serve").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn settings_are_checked_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jointly.toml");
    fs::write(&file, "[queue]\nmax_wait = \"3s\"\n").unwrap();
    let file = file.to_str().unwrap();
    let (code, out, _) = text(&serve(&["--config", file, "--check-config"]).output().unwrap());
    assert_eq!((code, out.as_str()), (Some(0), "the configuration is in order\n"));
    let printed = serve(&["--config", file, "--print-config", "--set", "queue.max_requests=7"])
        .env("JOINTLY_QUEUE_MAX_REQUESTS", "8")
        .env("JOINTLY_DRAIN_LIMIT", "9s")
        .output();
    let (code, out, _) = text(&printed.unwrap());
    assert_eq!(code, Some(0));
    for line in ["max_wait = \"3s\"", "max_requests = 7", "limit = \"9s\""] {
        assert!(out.lines().any(|found| found == line), "{line}: {out}");
    }
    // What is printed is a configuration.
    let whole = folder.path().join("whole.toml");
    fs::write(&whole, out).unwrap();
    assert!(
        serve(&["--config", whole.to_str().unwrap(), "--check-config"]).output().unwrap().status.success()
    );
    for (arguments, problem) in [
        (&["--set", "queue.max_wate=1s"][..], "queue.max_wate: there is no such setting"),
        (&["--set", "queue.max_wait=soon"], "queue.max_wait: "),
        (&["--listen", "nowhere"], "listen[0]: "),
        (&["--set", "nothing"], "--set nothing"),
        (&["--config", "/nonexistent/file.toml"], "/nonexistent/file.toml: "),
    ] {
        let (code, _, error) = text(&serve(arguments).output().unwrap());
        assert_eq!(code, Some(2), "{arguments:?}: {error}");
        assert!(error.contains(problem), "{arguments:?}: {error}");
    }
}

#[test]
fn a_key_is_hashed() {
    let mut child = serve(&["--hash-key"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"a key of more than 16 bytes\n").unwrap();
    let (code, out, _) = text(&child.wait_with_output().unwrap());
    // printf 'a key of more than 16 bytes' | sha256sum
    assert_eq!((code, out.trim()), (Some(0), HASH));
    let mut child = serve(&["--hash-key"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"short\n").unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(2));
}

const HASH: &str = "da88c540f9764a3f703b7e2ae7b7b8ec9bed7cf97d88e3cdbdab481b4f226ac5";

/// A server that runs; killed if a test fails.
struct Running {
    child: Child,
    address: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let mut child = serve(arguments).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address =
            lines.find_map(|line| line.unwrap().strip_prefix("jointly: listening on ").map(str::to_string));
        // Whoever closes the pipe must not stop the server, and who does not read it neither.
        std::thread::spawn(move || lines.for_each(drop));
        let running = Self { child, address: address.unwrap() };
        running.until("/readyz", 200);
        running
    }

    fn ask(&self, head: &str, body: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "{head} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    fn until(&self, path: &str, status: u16) {
        let began = Instant::now();
        let wanted = format!("HTTP/1.1 {status} ");
        while !self.ask(&format!("GET {path}"), "").is_ok_and(|answer| answer.starts_with(&wanted)) {
            assert!(began.elapsed() < PATIENCE, "{path} is {status}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }
}

#[test]
fn it_serves_reloads_and_ends_in_good_order() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jointly.toml");
    let write = |names: &str| {
        let model = tiny_bert();
        let text =
            format!("listen = [\"127.0.0.1:0\"]\n[models.default]\nsource = {model:?}\n[names]\n{names}\n");
        fs::write(&file, text).unwrap();
    };
    write("");
    let mut running = Running::start(&["--config", file.to_str().unwrap()]);
    let body = r#"{"model": "rerank-v3.5", "query": "which planet is red", "documents": ["mars", "venus"]}"#;
    let ask = || running.ask("POST /jointly/v1/rerank", body).unwrap();
    assert!(ask().starts_with("HTTP/1.1 404 "));
    write("\"rerank-v3.5\" = \"default\"");
    running.signal("-HUP");
    let began = Instant::now();
    while !ask().starts_with("HTTP/1.1 200 ") {
        assert!(began.elapsed() < PATIENCE, "the new name is known");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(ask().contains("\"results\""));
    // A configuration that is wrong changes nothing.
    write("\"rerank-v3.5\" = \"nobody\"");
    running.signal("-HUP");
    assert!(ask().starts_with("HTTP/1.1 200 "));
    running.signal("-TERM");
    assert_eq!(running.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_model_that_is_not_what_its_receipt_says_is_not_served() {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(tiny_bert()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    let mut verify = Command::new(env!("CARGO_BIN_EXE_jointly"));
    let verify = verify.env("JOINTLY_PACKED_CACHE", "off").args(["verify", "--write"]).arg(folder.path());
    assert!(verify.stdout(Stdio::null()).status().unwrap().success());
    let receipt = folder.path().join("receipt.json");
    let written = fs::read_to_string(&receipt).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&written).unwrap();
    json["pairs"][0]["logit"] = 99.0.into();
    fs::write(&receipt, json.to_string()).unwrap();
    let model = folder.path().to_str().unwrap();
    let output = serve(&["--listen", "127.0.0.1:0", "--model", model]).output().unwrap();
    let (code, _, error) = text(&output);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("the receipt pins 99"), "{error}");
}
