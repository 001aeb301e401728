use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use jointly_server::config::KeyConfig;
use jointly_server::hash_key;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::client::{request, send};
use crate::running::{body, start, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_is_an_error_or_what_there_is() {
    let running = start(|_| {}).await;
    let first = running.occupy().await;
    let mut asked = body("which planet is blue", 4);
    asked["deadline"] = json!(0.05);
    let answer = running.rerank(asked.clone()).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (504, "deadline_exceeded".into()), "{answer:?}");
    asked["partial"] = json!(true);
    let answer = running.rerank(asked).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["coverage"], json!({"scored": 0, "given": 4, "complete": false}));
    // By the header too.
    let headers = [("x-request-timeout", "0.05")];
    let asked = body("which planet is blue", 4).to_string();
    let answer = send(running.address, request("POST", "/jointly/v1/rerank", &headers, asked.clone())).await;
    assert_eq!(answer.status, 504);
    let headers = [("x-request-timeout", "soon")];
    let answer = send(running.address, request("POST", "/jointly/v1/rerank", &headers, asked)).await;
    assert_eq!(answer.status, 422);
    running.control.release();
    first.await.unwrap();
    running.wait_for(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_answer_has_what_was_scored() {
    let running = start(|config| config.queue.batch_time = Duration::from_micros(1)).await;
    // Enough for many batches, of which the tenth is held.
    let mut asked = body("which planet is blue", 10_000);
    asked["deadline"] = json!(2.0);
    asked["partial"] = json!(true);
    let asking = running.spawn_rerank(asked);
    until("some batches were computed", || running.control.pairs.load(SeqCst) > 100).await;
    running.control.hold();
    let answer = asking.await.unwrap().json();
    running.control.release();
    let scored = answer["coverage"]["scored"].as_u64().unwrap();
    assert!((1..10_000).contains(&scored), "{scored}");
    assert_eq!(answer["results"].as_array().unwrap().len() as u64, scored);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hangs_up_costs_nothing_more() {
    let running = start(|_| {}).await;
    let first = running.occupy().await;
    let asked = body("which planet is blue", 50).to_string();
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let head =
        format!("POST /jointly/v1/rerank HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", asked.len());
    stream.write_all((head + &asked).as_bytes()).await.unwrap();
    running.wait_for(2).await;
    let before = running.metric("jointly_cancelled_tokens_total").await;
    drop(stream);
    running.wait_for(1).await;
    assert!(running.metric("jointly_cancelled_tokens_total").await >= before + 50.0 * 5.0);
    running.control.release();
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(running.rerank(body("which planet is red", 1)).await.status, 200);
    assert_eq!(running.control.pairs.load(SeqCst), 2, "only the first and the last are computed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_says_so_at_once_and_when_to_come_again() {
    let running = start(|config| config.queue.max_requests = 2).await;
    let first = running.occupy().await;
    let second = running.spawn_rerank(body("which planet is blue", 2));
    running.wait_for(2).await;
    let third = running.rerank(body("which planet is green", 2)).await;
    assert_eq!((third.status.as_u16(), third.code()), (503, "overloaded".into()));
    assert!((1..=3600).contains(&third.header("retry-after").parse::<u64>().unwrap()));
    running.control.release();
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(second.await.unwrap().status, 200);
    assert_eq!(running.rerank(body("which planet is green", 2)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_whose_queue_is_full_keeps_nobody_from_another() {
    let running = start(|config| {
        config.queue.max_requests = 1;
        config.models.insert("other".into(), config.models["default"].clone());
    })
    .await;
    let first = running.occupy().await;
    assert_eq!(running.rerank(body("which planet is blue", 2)).await.status, 503);
    let mut asked = body("which planet is green", 2);
    asked["model"] = json!("other");
    let second = running.spawn_rerank(asked.clone());
    running.wait_for(2).await;
    // Now nobody is taken in, whatever the body says.
    assert_eq!(running.rerank(asked).await.status, 503);
    running.control.release();
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(second.await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_would_wait_too_long_is_refused_by_its_price() {
    let running = start(|config| config.queue.max_wait = Duration::from_nanos(1)).await;
    let first = running.occupy().await;
    let second = running.rerank(body("which planet is blue", 100)).await;
    assert_eq!((second.status.as_u16(), second.code()), (503, "overloaded".into()));
    // Who is in no hurry may wait longer.
    let mut patient = body("which planet is blue", 100);
    patient["latency"] = json!("slow");
    let third = running.spawn_rerank(patient);
    running.wait_for(2).await;
    running.control.release();
    assert_eq!(third.await.unwrap().json()["latency"], "slow");
    first.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lower_number_is_served_first() {
    let running = start(|config| config.queue.batch_time = Duration::from_micros(1)).await;
    let first = running.occupy().await;
    let ask = |priority: u16, documents| {
        let mut asked = body(&format!("which planet has priority {priority}"), documents);
        asked["priority"] = json!(priority);
        running.spawn_rerank(asked)
    };
    let last = ask(9, 5000);
    running.wait_for(2).await;
    let soon = ask(1, 20);
    running.wait_for(3).await;
    running.control.release();
    assert_eq!(soon.await.unwrap().status, 200);
    let computed = running.control.pairs.load(SeqCst);
    assert!(computed < 1 + 20 + 5000, "{computed}: the one with the higher number waits");
    assert_eq!(last.await.unwrap().status, 200);
    first.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_asked_for_and_its_quota_is_kept() {
    let key = |name: &str, requests_per_minute| KeyConfig {
        name: name.into(),
        sha256: hash_key(&format!("secret of {name}")),
        tokens_per_minute: 0,
        requests_per_minute,
        admin: false,
    };
    let running = start(|config| config.keys = vec![key("a", 2), key("b", 0)]).await;
    let ask = |headers: &'static [(&'static str, &'static str)]| {
        send(running.address, request("POST", "/jointly/v1/rerank", headers, body("red", 1).to_string()))
    };
    for headers in [
        &[][..],
        &[("authorization", "Bearer wrong")],
        &[("x-api-key", "")],
        &[("authorization", "Basic eA==")],
    ] {
        let answer = ask(headers).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (401, "unauthorized".into()), "{headers:?}");
    }
    assert_eq!(ask(&[("authorization", "Bearer secret of a")]).await.status, 200);
    assert_eq!(ask(&[("x-api-key", "secret of a")]).await.status, 200);
    let third = ask(&[("api-key", "secret of a")]).await;
    assert_eq!((third.status.as_u16(), third.code()), (429, "quota_exceeded".into()));
    assert!(third.header("retry-after").parse::<u64>().unwrap() >= 1);
    assert_eq!(ask(&[("api-key", "secret of b")]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_there_is_no_room_for_spends_no_quota() {
    let running = start(|config| {
        config.queue.max_requests = 1;
        config.keys = vec![KeyConfig {
            name: "a".into(),
            sha256: hash_key("secret of a"),
            tokens_per_minute: 0,
            requests_per_minute: 2,
            admin: false,
        }];
    })
    .await;
    running.control.hold();
    let ask = |query: &'static str| {
        let headers = [("authorization", "Bearer secret of a")];
        let asked = body(query, 1).to_string();
        let address = running.address;
        async move { send(address, request("POST", "/jointly/v1/rerank", &headers, asked)).await }
    };
    let first = tokio::spawn(ask("which planet is red"));
    running.wait_for(1).await;
    for _ in 0..5 {
        assert_eq!(ask("which planet is blue").await.status, 503);
    }
    running.control.release();
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(ask("which planet is blue").await.status, 200);
    assert_eq!(ask("which planet is blue").await.status, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_need_a_key_where_there_are_keys_unless_they_are_opened() {
    let key = KeyConfig {
        name: "a".into(),
        sha256: hash_key("secret of a"),
        tokens_per_minute: 0,
        requests_per_minute: 0,
        admin: false,
    };
    for open_metrics in [false, true] {
        let running = start(|config| {
            config.keys = vec![key.clone()];
            config.open_metrics = open_metrics;
        })
        .await;
        let without = crate::client::get(running.address, "/metrics").await;
        assert_eq!(without.status, if open_metrics { 200 } else { 401 });
        let headers = [("authorization", "Bearer secret of a")];
        let with = send(running.address, request("GET", "/metrics", &headers, "")).await;
        assert_eq!(with.status, 200);
        assert!(with.header("content-type").starts_with("text/plain"));
        // Probes have no keys.
        assert_eq!(crate::client::get(running.address, "/readyz").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_described() {
    let running = start(|_| {}).await;
    running.rerank(body("red", 3)).await;
    let text = crate::client::get(running.address, "/metrics").await;
    assert!(text.header("content-type").starts_with("text/plain"));
    let text = String::from_utf8(text.body.to_vec()).unwrap();
    let known: Vec<&str> = jointly_server::metrics::METRICS.iter().map(|(name, ..)| *name).collect();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap();
        assert!(known.contains(&name), "{name} is not in the list");
    }
    for name in [
        "jointly_requests_total",
        "jointly_queue_age_seconds",
        "jointly_padding_avoided_tokens_total",
        "jointly_score",
    ] {
        assert!(text.contains(&format!("# HELP {name} ")), "{name}\n{text}");
    }
}
