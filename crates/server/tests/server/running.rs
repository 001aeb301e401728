use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jointly_server::config::Config;
use jointly_server::{Handle, Server};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::client::{self, Answer, PATIENCE};
use crate::engine::{Control, TinyLoader};

/// A server that runs.
pub struct Running {
    pub address: SocketAddr,
    pub handle: Handle,
    pub control: Arc<Control>,
    pub task: JoinHandle<Result<(), String>>,
    /// What a reload reads.
    pub config: Arc<std::sync::Mutex<Config>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.control.release();
    }
}

pub fn config(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config { listen: vec!["127.0.0.1:0".into()], ..Config::default() };
    change(&mut config);
    config.check().unwrap();
    config
}

/// Starts a server; its models may not be loaded yet.
pub async fn begin(config: Config, control: Arc<Control>) -> Running {
    let shared = Arc::new(std::sync::Mutex::new(config.clone()));
    let read = Arc::clone(&shared);
    let reader = Box::new(move || {
        let config = read.lock().unwrap().clone();
        config.check().map(|()| config)
    });
    let server = Server::bind(config, Arc::new(TinyLoader(Arc::clone(&control))), reader).await.unwrap();
    let address = server.addresses().first().copied().unwrap_or_else(|| "127.0.0.1:1".parse().unwrap());
    let handle = server.handle();
    Running { address, handle, control, task: tokio::spawn(server.run()), config: shared }
}

/// Starts a server and waits until it is ready.
pub async fn start(change: impl FnOnce(&mut Config)) -> Running {
    let running = begin(config(change), Arc::default()).await;
    until("the server is ready", || running.handle.is_ready()).await;
    running.warm().await;
    running
}

/// Waits for something that happens soon.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

impl Running {
    /// Waits for the batches that measure the speed: two of eight pairs for each model that was loaded.
    async fn warm(&self) {
        use std::sync::atomic::Ordering::SeqCst;
        let pairs = 16 * self.control.loads.load(SeqCst);
        until("the models are warm", || self.control.pairs.load(SeqCst) >= pairs).await;
        self.control.pairs.store(0, SeqCst);
        self.control.began.store(0, SeqCst);
    }

    pub async fn rerank(&self, body: Value) -> Answer {
        client::post(self.address, "/jointly/v1/rerank", &body).await
    }

    /// A request in the background.
    pub fn spawn_rerank(&self, body: Value) -> JoinHandle<Answer> {
        let address = self.address;
        tokio::spawn(async move { client::post(address, "/jointly/v1/rerank", &body).await })
    }

    /// Holds batches, and has one that is being computed for as long as they are held.
    pub async fn occupy(&self) -> JoinHandle<Answer> {
        self.control.hold();
        let before = self.control.began.load(std::sync::atomic::Ordering::SeqCst);
        let first = self.spawn_rerank(body("which planet is red", 1));
        until("a batch is held", || self.control.began.load(std::sync::atomic::Ordering::SeqCst) > before)
            .await;
        first
    }

    /// Waits until so many requests wait or are computed.
    pub async fn wait_for(&self, requests: usize) {
        until("so many requests wait", || self.handle.waiting() == requests).await;
    }

    pub async fn metric(&self, name: &str) -> f64 {
        let text = client::get(self.address, "/metrics").await;
        let text = String::from_utf8(text.body.to_vec()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0.0, |value| value.trim().parse().unwrap())
    }
}

/// A request for `documents` documents that no other request has.
pub fn body(query: &str, documents: usize) -> Value {
    let documents: Vec<String> = (0..documents).map(|i| format!("{query}: document {i}")).collect();
    json!({"query": query, "documents": documents})
}
