//! A chat-completions endpoint on the loopback interface, whose every answer a test writes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub at: Instant,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Value,
}

impl Seen {
    /// What the user's message says.
    pub fn message(&self) -> &str {
        self.body["messages"][1]["content"].as_str().unwrap()
    }

    /// What stands between the tags of this name.
    pub fn text(&self, name: &str) -> &str {
        let rest = self.message().split_once(&format!("<{name}-")).unwrap().1;
        rest.split_once(">\n").unwrap().1.split_once("\n</").unwrap().0
    }
}

/// An answer to send.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
    pub stall: Duration,
    /// Close the connection after so many bytes of the body.
    pub cut: Option<usize>,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<String>) -> Self {
        Self { status, headers: Vec::new(), body: body.into(), stall: Duration::ZERO, cut: None }
    }

    /// A model says this, for 100 tokens of a prompt and 10 of the answer.
    pub fn says(text: &str) -> Self {
        let choice = json!({"message": {"role": "assistant", "content": text}, "finish_reason": "stop"});
        let usage = json!({"prompt_tokens": 100, "completion_tokens": 10});
        Self::new(200, json!({"choices": [choice], "usage": usage}).to_string())
    }
}

pub struct Endpoint {
    pub url: String,
    log: Arc<Mutex<Vec<Seen>>>,
}

impl Endpoint {
    /// The handler gets the request and how many came before it. The thread ends with the test's process.
    pub fn start(handler: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let (handler, seen) = (Arc::new(handler), Arc::clone(&log));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (handler, seen) = (Arc::clone(&handler), Arc::clone(&seen));
                // A client that goes away is part of some tests.
                thread::spawn(move || drop(serve(&stream.unwrap(), &*handler, &seen)));
            }
        });
        Self { url, log }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.log.lock().unwrap().clone()
    }
}

fn serve(
    mut stream: &TcpStream,
    handler: &(impl Fn(&Seen, usize) -> Reply + ?Sized),
    log: &Mutex<Vec<Seen>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let mut body = vec![0; headers.get("content-length").map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body)?;
    let seen = Seen { at: Instant::now(), path, headers, body: serde_json::from_slice(&body).unwrap() };
    let before = {
        let mut log = log.lock().unwrap();
        log.push(seen.clone());
        log.len() - 1
    };
    let reply = handler(&seen, before);
    let mut head = format!("HTTP/1.1 {} x\r\nconnection: close\r\n", reply.status);
    head += &format!("content-length: {}\r\n", reply.body.len());
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    thread::sleep(reply.stall);
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(&reply.body.as_bytes()[..reply.cut.unwrap_or(reply.body.len())])
}
