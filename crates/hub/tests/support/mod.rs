//! A server with the hub's layout on the loopback interface, whose every answer a test can replace.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use jointly_hub::{Backoff, HubOptions, Progress};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    /// With its query.
    pub path: String,
    pub headers: BTreeMap<String, String>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// First byte that the request asks for.
    pub fn from(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// An answer to send.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Close the connection after so many bytes of the body.
    pub cut: Option<usize>,
    /// Keep silent so long before the body.
    pub stall: Duration,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), cut: None, stall: Duration::ZERO }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn cut(mut self, bytes: usize) -> Self {
        self.cut = Some(bytes);
        self
    }
}

type Handler = dyn Fn(&Seen) -> Reply + Send + Sync;

pub struct Server {
    pub address: SocketAddr,
    log: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    /// The thread ends with the test's process.
    pub fn start(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let handler: Arc<Handler> = Arc::new(handler);
        let seen = Arc::clone(&log);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (handler, log) = (Arc::clone(&handler), Arc::clone(&seen));
                // A client that goes away is part of some tests.
                thread::spawn(move || drop(serve(&stream.unwrap(), &*handler, &log)));
            }
        });
        Self { address, log }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.log.lock().unwrap().clone()
    }

    pub fn paths(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.path).collect()
    }

    /// Requests for this file.
    pub fn seen_for(&self, name: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.path.ends_with(name)).collect()
    }

    pub fn forget(&self) {
        self.log.lock().unwrap().clear();
    }
}

fn serve(mut stream: &TcpStream, handler: &Handler, log: &Mutex<Vec<Seen>>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let seen = Seen { method, path, headers };
    log.lock().unwrap().push(seen.clone());
    let reply = handler(&seen);
    let mut head = format!("HTTP/1.1 {} x\r\nconnection: close\r\n", reply.status);
    if !reply.headers.iter().any(|(name, _)| name == "transfer-encoding") {
        head += &format!("content-length: {}\r\n", reply.body.len());
    }
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    thread::sleep(reply.stall);
    if seen.method != "HEAD" {
        stream.write_all(&reply.body[..reply.cut.unwrap_or(reply.body.len())])?;
    }
    Ok(())
}

/// A model repository.
#[derive(Debug, Clone)]
pub struct Repo {
    pub id: String,
    pub commit: String,
    /// Branches and tags of that commit.
    pub names: Vec<String>,
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Repo {
    /// A small model with everything that is fetched, and much that is not.
    pub fn model() -> Self {
        let weights: Vec<u8> =
            (0..200_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let files = [
            ("config.json", b"{\"model_type\":\"bert\"}".to_vec()),
            ("tokenizer.json", b"{}".to_vec()),
            ("vocab.txt", b"a\nb\n".to_vec()),
            ("1_Pooling/config.json", b"{\"a\":1}".to_vec()),
            ("README.md", b"card".to_vec()),
            ("model.safetensors", weights),
            ("pytorch_model.bin", b"no".to_vec()),
            ("onnx/model.onnx", b"no".to_vec()),
            (".gitattributes", b"no".to_vec()),
            ("runs/10:30/events", b"no".to_vec()),
        ];
        Self {
            id: "org/name".to_owned(),
            commit: "c".repeat(40),
            names: vec!["main".to_owned(), "v1.0".to_owned(), "refs%2Fpr%2F1".to_owned()],
            files: files.into_iter().map(|(name, data)| (name.to_owned(), data)).collect(),
        }
    }

    pub fn weights(&self) -> &[u8] {
        &self.files["model.safetensors"]
    }

    /// The revision's answer, as the hub gives it.
    pub fn info(&self) -> serde_json::Value {
        let siblings: Vec<_> = self
            .files
            .iter()
            .map(|(name, data)| {
                let mut sibling = serde_json::json!({
                    "rfilename": name, "size": data.len(), "blobId": git_sha1(data),
                });
                if is_lfs(name) {
                    sibling["blobId"] = "f".repeat(40).into();
                    sibling["lfs"] = serde_json::json!({
                        "sha256": sha256(data), "size": data.len(), "pointerSize": 134,
                    });
                }
                sibling
            })
            .collect();
        serde_json::json!({"id": self.id, "sha": self.commit, "siblings": siblings, "private": false})
    }

    /// The hub's answer to a request.
    pub fn answer(&self, seen: &Seen) -> Reply {
        let path = seen.path.split('?').next().unwrap();
        let api = format!("/api/models/{}", self.id);
        if path == api {
            return Reply::new(200, self.info().to_string());
        }
        if let Some(revision) = path.strip_prefix(&format!("{api}/revision/")) {
            return if revision == self.commit || self.names.iter().any(|name| name == revision) {
                Reply::new(200, self.info().to_string())
            } else {
                Reply::new(404, "{}").header("X-Error-Code", "RevisionNotFound")
            };
        }
        if let Some(name) = path.strip_prefix(&format!("/{}/resolve/{}/", self.id, self.commit))
            && let Some(data) = self.files.get(name)
        {
            return file(seen, name, data);
        }
        Reply::new(404, "{}").header("X-Error-Code", "RepoNotFound")
    }
}

/// A file, or the rest of it.
pub fn file(seen: &Seen, name: &str, data: &[u8]) -> Reply {
    let tag = if is_lfs(name) { sha256(data) } else { git_sha1(data) };
    let reply = match seen.from() {
        Some(from) => Reply::new(206, &data[from..])
            .header("content-range", format!("bytes {from}-{}/{}", data.len() - 1, data.len())),
        None => Reply::new(200, data),
    };
    reply.header("etag", format!("\"{tag}\""))
}

pub fn is_lfs(name: &str) -> bool {
    name.ends_with(".safetensors") || name.ends_with(".bin")
}

pub fn sha256(data: &[u8]) -> String {
    Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn git_sha1(data: &[u8]) -> String {
    let digest = Sha1::new_with_prefix(format!("blob {}\0", data.len())).chain_update(data).finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The server, an empty cache, and no waiting.
pub fn options(server: &Server, cache: &tempfile::TempDir) -> HubOptions {
    let millisecond = Duration::from_millis(1);
    HubOptions::new(cache.path())
        .endpoint(server.url())
        .backoff(Backoff { attempts: 4, first: millisecond, longest: millisecond })
        .idle_timeout(Duration::from_secs(5))
}

/// Notes what it is told.
#[derive(Debug, Default)]
pub struct Notes {
    pub plan: (usize, u64),
    /// Name, size, bytes already there.
    pub files: Vec<(String, u64, u64)>,
    pub advanced: u64,
    pub done: Vec<String>,
    pub retries: Vec<String>,
}

impl Progress for Notes {
    fn plan(&mut self, files: usize, bytes: u64) {
        self.plan = (files, bytes);
    }
    fn file(&mut self, name: &str, total: u64, resumed: u64) {
        self.files.push((name.to_owned(), total, resumed));
    }
    fn advance(&mut self, bytes: u64) {
        self.advanced += bytes;
    }
    fn done(&mut self, name: &str) {
        self.done.push(name.to_owned());
    }
    fn retrying(&mut self, _: u32, reason: &str) {
        self.retries.push(reason.to_owned());
    }
}
