//! A cluster of processes on this machine.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{batch, bits, ids_and_bits, model, model_path, pairs, scores, write};
use jointly::ScoreOptions;
use jointly_bulk::engine::{Engine, Scoring};
use jointly_bulk::sql;

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(120), "{what}: waited two minutes");
        std::thread::sleep(Duration::from_millis(10));
    }
}

struct Cluster<'a> {
    folder: &'a Path,
    port: u16,
    _scheduler: Process,
}

impl<'a> Cluster<'a> {
    fn start(folder: &'a Path) -> Self {
        let port = free_port();
        let scheduler = Command::new(env!("CARGO_BIN_EXE_jointly-scheduler"))
            .args(["--port", &port.to_string(), "--executor-timeout", "6", "--quiet"])
            .stderr(fs::File::create(folder.join("scheduler.log")).unwrap())
            .spawn()
            .unwrap();
        wait_for("scheduler", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { folder, port, _scheduler: Process(scheduler) }
    }

    /// An executor; what it computes lies in the folder of its name.
    fn executor(&self, name: &str, model: &str) -> (Process, u16) {
        let port = free_port();
        let process = Command::new(env!("CARGO_BIN_EXE_jointly-executor"))
            .args(["--scheduler", &format!("127.0.0.1:{}", self.port), "--port", &port.to_string()])
            .arg("--work-folder")
            .arg(self.folder.join(name))
            .arg("--model")
            .arg(model_path(model))
            .args(["--threads", "1"])
            .env("JOINTLY_PACKED_CACHE", "off")
            .stderr(fs::File::create(self.folder.join(format!("{name}.log"))).unwrap())
            .spawn()
            .unwrap();
        let process = Process(process);
        wait_for(name, || TcpStream::connect(("127.0.0.1", port)).is_ok());
        (process, port)
    }

    fn sql(&self, sql: &str, output: &Path) -> Child {
        Command::new(env!("CARGO_BIN_EXE_jointly-sql"))
            .arg(sql)
            .current_dir(self.folder)
            .args(["--scheduler", &format!("127.0.0.1:{}", self.port), "--force", "-o"])
            .arg(output)
            .arg("--model")
            .arg(model_path("tiny-bert"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

#[track_caller]
fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn read(path: &Path) -> Vec<(i64, u32)> {
    let context = sql::local(&Arc::new(Engine::new(model(), None).unwrap()), Scoring::default()).unwrap();
    ids_and_bits(&context, &format!("SELECT id, logit FROM '{}' ORDER BY id", path.display())).await
}

/// The sizes of the files below a folder.
fn sizes(folder: &Path) -> Vec<u64> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let below = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => sizes(&entry.path()),
        Ok(metadata) => vec![metadata.len()],
        // Counted all the same: it has gone since the folder was read.
        Err(_) => vec![0],
    };
    entries.flatten().flat_map(below).collect()
}

/// A job of two executors, of which each has written more than `files` files.
struct Job<'a> {
    cluster: Cluster<'a>,
    one: Process,
    _two: Process,
    sql: Child,
    pairs: Vec<(String, String)>,
    expected: Vec<(i64, u32)>,
}

impl<'a> Job<'a> {
    /// Its pairs lie in `pairs.jsonl`, and `out.parquet` is what it writes.
    fn start(folder: &'a Path, count: usize, files: usize) -> Self {
        let pairs = pairs(count);
        let input = folder.join("pairs.jsonl");
        write(&input, &batch(&pairs));
        let expected = (0..).zip(bits(&scores(&model(), &pairs, &ScoreOptions::new()))).collect();
        let cluster = Cluster::start(folder);
        let (one, _) = cluster.executor("one", "tiny-bert");
        let (two, _) = cluster.executor("two", "tiny-bert");
        let query = format!("SELECT id, rerank_logit(query, document) AS logit FROM '{}'", input.display());
        let mut sql = cluster.sql(&query, &folder.join("out.parquet"));
        wait_for("work of one and two", || {
            let has_more = |name: &str| sizes(&folder.join(name)).len() > files;
            sql.try_wait().unwrap().is_some() || (has_more("one") && has_more("two"))
        });
        Self { cluster, one, _two: two, sql, pairs, expected }
    }
}

#[tokio::test]
async fn a_killed_executor_loses_nothing_and_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    // Each has done some of the work, which is lost with it, and is at more.
    let Job { cluster, one, _two, mut sql, pairs, expected } = Job::start(folder.path(), 40_000, 2);
    drop(one); // SIGKILL
    let is_running = sql.try_wait().unwrap().is_none();
    let output = sql.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", errors(&output));
    assert!(is_running, "the job ended before an executor could be killed");
    assert_eq!(read(&at("out.parquet")).await, expected);

    // The one that is left answers sorted queries, over Parquet and through a shuffle.
    write(&at("few.parquet"), &batch(&pairs[..3000]));
    // By a name without a folder.
    let query =
        "SELECT id, logit FROM (SELECT id, query, rerank_logit(query, document) AS logit FROM 'few.parquet')
                 ORDER BY logit DESC";
    let output = cluster.sql(query, &at("sorted.jsonl")).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", errors(&output));
    let logits: Vec<f64> = fs::read_to_string(at("sorted.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["logit"].as_f64().unwrap())
        .collect();
    assert!(logits.len() == 3000 && logits.is_sorted_by(|a, b| a >= b));
    assert_eq!(read(&at("sorted.jsonl")).await, expected[..3000]);
}

/// Waits until nothing has been written for so long: the sizes of the files then.
fn rest(still: Duration, sizes: impl Fn() -> Vec<u64>) -> Vec<u64> {
    let (mut last, mut since) = (sizes(), Instant::now());
    wait_for("the end of the work", || {
        let now = sizes();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        since.elapsed() > still
    });
    last
}

fn signal(process: &Child, signal: &str) {
    assert!(Command::new("kill").args([signal, &process.id().to_string()]).status().unwrap().success());
}

#[tokio::test]
async fn an_executor_killed_before_its_output_is_fetched_loses_nothing_that_goes_to_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let Job { cluster: _cluster, one, _two, mut sql, expected, .. } = Job::start(folder.path(), 10_000, 0);
    // It sleeps until all pieces are done, and one executor is gone with its own.
    signal(&sql, "-STOP");
    assert!(sql.try_wait().unwrap().is_none(), "the job ended before it could be stopped");
    rest(Duration::from_secs(3), || ["one", "two"].map(|name| sizes(&at(name))).concat());
    drop(one); // SIGKILL
    signal(&sql, "-CONT");
    let output = sql.wait_with_output().unwrap();
    let said = errors(&output);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches("the query is run once more").count(), 1, "{said}");
    assert_eq!(read(&at("out.parquet")).await, expected);
    assert_eq!(partial(folder.path()), 0);
}

/// Files in a folder that are not whole.
fn partial(folder: &Path) -> usize {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().ends_with(".partial")).count()
}

#[test]
fn ctrl_c_ends_the_job_of_a_cluster_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let Job { cluster: _cluster, one: _one, _two, mut sql, .. } = Job::start(folder.path(), 40_000, 2);
    assert_eq!(partial(folder.path()), 1);
    signal(&sql, "-INT");
    assert!(sql.try_wait().unwrap().is_none(), "the job ended before it could be interrupted");
    let output = sql.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", errors(&output));
    assert_eq!(errors(&output), "jointly: interrupted\n");
    assert_eq!(partial(folder.path()), 0);
    assert!(!folder.path().join("out.parquet").exists());
    // Each finishes the piece that it is at. A job that went on would write all 64.
    let files =
        rest(Duration::from_secs(5), || ["one", "two"].map(|name| sizes(&folder.path().join(name))).concat())
            .len();
    assert!(files < 32, "{files} files");
}

#[tokio::test]
async fn what_is_wrong_is_said_with_executor_or_column() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write(&at("pairs.parquet"), &batch(&pairs(100)));
    fs::write(
        at("null.jsonl"),
        "{\"query\": \"a\", \"document\": \"b\"}\n{\"query\": null, \"document\": \"b\"}\n",
    )
    .unwrap();
    let cluster = Cluster::start(folder.path());
    let (other, port) = cluster.executor("other", "tiny-roberta");
    let query = |file: &str| format!("SELECT rerank_logit(query, document) FROM '{}'", at(file).display());
    let output = cluster.sql(&query("pairs.parquet"), &at("out.csv")).wait_with_output().unwrap();
    let said = errors(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let identity = |name: &str| {
        jointly::receipt::identity(&jointly::files::ModelFiles::open(&model_path(name)).unwrap()).unwrap()
    };
    for part in [format!("executor 127.0.0.1:{port}"), identity("tiny-bert"), identity("tiny-roberta")] {
        assert!(said.contains(&part), "{said:?} does not say {part}");
    }
    drop(other);
    let (_right, _) = cluster.executor("right", "tiny-bert");
    let output = cluster.sql(&query("null.jsonl"), &at("out.csv")).wait_with_output().unwrap();
    let said = errors(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("null.jsonl: row 2: column query is null"), "{said}");

    let missing = Command::new(env!("CARGO_BIN_EXE_jointly-executor"))
        .args(["--model", "./absent", "--scheduler", &format!("127.0.0.1:{}", cluster.port)])
        .output()
        .unwrap();
    assert_eq!(missing.status.code(), Some(2));
    assert!(errors(&missing).contains("./absent: there is no such folder"), "{}", errors(&missing));

    let nobody = Command::new(env!("CARGO_BIN_EXE_jointly-sql"))
        .args(["SELECT 1", "--scheduler", &format!("127.0.0.1:{}", free_port())])
        .output()
        .unwrap();
    assert_eq!(nobody.status.code(), Some(1));
    assert!(errors(&nobody).contains("jointly-scheduler"), "{}", errors(&nobody));
}
