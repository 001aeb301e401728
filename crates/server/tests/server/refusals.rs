use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{PATIENCE, get, request, send};
use crate::running::{body, start};

/// Every body that no dialect should read, by a name for messages.
fn bad_bodies() -> Vec<(&'static str, Bytes)> {
    let deep = format!("{{\"query\": \"a\", \"documents\": {}1{}}}", "[".repeat(5000), "]".repeat(5000));
    vec![
        ("nothing", "".into()),
        ("no JSON", "{\"query\": ".into()),
        ("an array", "[]".into()),
        ("a string", "\"query\"".into()),
        ("null", "null".into()),
        ("a key twice", r#"{"query": "a", "query": "b", "documents": ["c"]}"#.into()),
        ("an unknown key twice", r#"{"query": "a", "documents": ["c"], "x": {"y": 1, "y": 2}}"#.into()),
        ("a lone surrogate", r#"{"query": "\ud800", "documents": ["c"]}"#.into()),
        ("no UTF-8", Bytes::from_static(b"{\"query\": \"\xff\", \"documents\": [\"c\"]}")),
        ("too deep", deep.into()),
        ("a number beyond f64", r#"{"query": "a", "documents": ["c"], "top_n": 1e999}"#.into()),
        ("a huge number", r#"{"query": "a", "documents": ["c"], "top_n": 1e308, "top_k": -1e308}"#.into()),
        ("two values", r#"{"query": "a", "documents": ["c"]} {}"#.into()),
        (
            "documents of another type",
            r#"{"query": "a", "documents": [1], "texts": [1], "input": [1]}"#.into(),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_the_clients_fault_in_every_dialect() {
    let running = start(|_| {}).await;
    let mut asked = 0;
    for dialect in jointly_server::dialect::DIALECTS {
        for route in dialect.routes().iter().filter(|route| *route.method == "POST") {
            for path in [route.path.to_string(), format!("/{}{}", dialect.name(), route.path)] {
                for (what, body) in bad_bodies() {
                    // Some vendors take any number for `top_n`.
                    let answer = send(
                        running.address,
                        request("POST", &path, &[("content-type", "application/json")], body),
                    )
                    .await;
                    let is_number = what == "a huge number";
                    assert!(
                        answer.status.is_client_error() || is_number && answer.status.is_success(),
                        "{path}: {what}: {answer:?}"
                    );
                    assert!(
                        serde_json::from_slice::<Value>(&answer.body).is_ok()
                            || answer.header("content-type").starts_with("text/"),
                        "{path}: {what}: {answer:?}"
                    );
                    asked += 1;
                }
            }
        }
    }
    assert!(asked > 100);
    assert!(running.handle.is_ready());
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold() {
    let running = start(|config| {
        config.any_model_name = true;
        config.limits.body_bytes = 100_000;
        config.limits.documents = 20;
        config.limits.query_bytes = 100;
        config.limits.document_bytes = 1000;
    })
    .await;
    let long = "a".repeat(1001);
    let cases = [
        (body("red", 21), 413, "too_large"),
        (json!({"query": "a".repeat(101), "documents": ["a"]}), 422, "too_long"),
        (json!({"query": "a", "documents": ["a", long]}), 422, "too_long"),
        (json!({"query": " \t\n", "documents": ["a"]}), 422, "invalid"),
        (json!({"query": "a", "documents": []}), 422, "invalid"),
        (json!({"query": "a", "documents": ["a"], "priority": 1000}), 422, "invalid"),
        (json!({"query": "a", "documents": ["a"], "deadline": -1}), 422, "invalid"),
        (json!({"query": "a", "documents": ["a"], "deadline": 5e-324}), 422, "invalid"),
        (json!({"query": "a", "documents": ["a"], "deadline": 1e300}), 422, "invalid"),
        (json!({"query": "a", "documents": ["a"], "model": ""}), 404, "unknown_model"),
        (json!({"query": "a", "documents": ["a"], "instruction": "no template"}), 422, "invalid"),
        (json!({"query": "a", "documents": ["a"], "max_tokens_per_pair": 1}), 422, "invalid"),
        (json!({"query": "a".repeat(100_000), "documents": ["a"]}), 413, "too_large"),
    ];
    for (asked, status, code) in cases {
        let answer = running.rerank(asked.clone()).await;
        let shown: String = asked.to_string().chars().take(80).collect();
        assert_eq!((answer.status.as_u16(), answer.code()), (status, code.into()), "{shown}: {answer:?}");
    }
    assert_eq!(running.rerank(body("red", 20)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_very_large_body_is_refused_in_an_answer_that_the_client_can_read() {
    let running = start(|_| {}).await;
    let huge = vec![b'a'; 100 << 20];
    let answer = send(running.address, request("POST", "/jointly/v1/rerank", &[], huge)).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (413, "too_large".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn other_paths_methods_and_kinds_of_body_are_said_to_be_wrong() {
    let running = start(|_| {}).await;
    let answer = get(running.address, "/nothing/here").await;
    assert_eq!((answer.status.as_u16(), answer.code()), (404, "not_found".into()));
    let answer = get(running.address, "/jointly/v1/rerank").await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "POST"));
    for kind in ["text/plain", "application/x-www-form-urlencoded"] {
        let answer =
            send(running.address, request("POST", "/jointly/v1/rerank", &[("content-type", kind)], "{}"))
                .await;
        assert_eq!(answer.status, 415, "{kind}");
    }
    let headers = [("content-type", "application/json; charset=utf-8"), ("content-encoding", "gzip")];
    assert_eq!(
        send(running.address, request("POST", "/jointly/v1/rerank", &headers, "{}")).await.status,
        415
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_are_answered_only_if_they_are_named() {
    let preflight = |address, origin: &'static str| {
        send(address, request("OPTIONS", "/jointly/v1/rerank", &[("origin", origin)], ""))
    };
    let running = start(|_| {}).await;
    let answer = preflight(running.address, "https://a.example").await;
    assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (405, ""));
    let running = start(|config| config.cors.origins = vec!["https://a.example".into()]).await;
    let answer = preflight(running.address, "https://a.example").await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("access-control-allow-origin")),
        (204, "https://a.example")
    );
    assert_eq!(
        preflight(running.address, "https://b.example").await.header("access-control-allow-origin"),
        ""
    );
}

/// Sends bytes, and gives what comes until the server closes.
async fn raw(stream: &mut TcpStream, bytes: &[u8]) -> String {
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A connection that is reset has been closed too.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the server closes");
    String::from_utf8(answer).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stalls_is_cut_off() {
    let running = start(|config| {
        config.limits.header_timeout = Duration::from_millis(100);
        config.limits.body_timeout = Duration::from_millis(100);
    })
    .await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    raw(&mut stream, b"POST /jointly/v1/rerank HTTP/1.1\r\nhost: x\r\n").await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let answer = raw(&mut stream, b"POST /jointly/v1/rerank HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 50\r\n\r\n{\"query\"").await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    // Idle ones too.
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    raw(&mut stream, b"").await;
    assert_eq!(running.rerank(body("red", 1)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_are_told() {
    let running = start(|config| config.limits.connections = 1).await;
    let began = std::time::Instant::now();
    // Those of the start close in their own time.
    let stream = loop {
        assert!(began.elapsed() < PATIENCE);
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut start = [0; 12];
        stream.read_exact(&mut start).await.unwrap();
        if &start == b"HTTP/1.1 200" {
            break stream;
        }
    };
    let mut second = TcpStream::connect(running.address).await.unwrap();
    let answer = raw(&mut second, b"").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: "), "{answer}");
    drop(stream);
}
