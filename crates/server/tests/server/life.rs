use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use jointly_server::config::KeyConfig;
use jointly_server::hash_key;
use serde_json::json;
use tokio::net::TcpStream;

use crate::client::{get, request, send};
use crate::engine::Control;
use crate::running::{begin, body, config, start, until};

#[tokio::test(flavor = "multi_thread")]
async fn it_is_alive_before_it_is_ready() {
    let control = Arc::new(Control::default());
    control.hold();
    let running = begin(config(|_| {}), control).await;
    assert_eq!(get(running.address, "/livez").await.status, 200);
    assert_eq!(get(running.address, "/healthz").await.status, 200);
    for path in ["/readyz", "/startupz"] {
        assert_eq!(get(running.address, path).await.status, 503, "{path}");
    }
    let early = running.rerank(body("red", 1)).await;
    assert_eq!((early.status.as_u16(), early.code()), (503, "unavailable".into()));
    assert!(!early.header("retry-after").is_empty());
    running.control.release();
    until("the server is ready", || running.handle.is_ready()).await;
    assert_eq!(get(running.address, "/readyz").await.json()["models"][0]["name"], "default");
    assert_eq!(get(running.address, "/startupz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_cannot_be_loaded_ends_the_start() {
    let control = Arc::new(Control::default());
    control.fails_load.store(true, SeqCst);
    let mut running = begin(config(|_| {}), control).await;
    let problem = (&mut running.task).await.unwrap().unwrap_err();
    assert!(problem.contains("model \"default\": a test asks for it"), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_is_finished_and_nothing_more_is_taken() {
    let mut running = start(|_| {}).await;
    let first = running.occupy().await;
    let second = running.spawn_rerank(body("which planet is blue", 40));
    running.wait_for(2).await;
    running.handle.stop();
    let began = std::time::Instant::now();
    while TcpStream::connect(running.address).await.is_ok() {
        assert!(began.elapsed() < crate::client::PATIENCE, "new connections are refused");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(!running.task.is_finished());
    running.control.release();
    assert_eq!(first.await.unwrap().status, 200);
    let second = second.await.unwrap();
    assert_eq!(second.json()["results"].as_array().unwrap().len(), 40);
    assert_eq!((&mut running.task).await.unwrap(), Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_has_a_limit() {
    let mut running = start(|config| config.drain.limit = Duration::from_millis(100)).await;
    let first = running.occupy().await;
    running.handle.stop();
    assert_eq!((&mut running.task).await.unwrap(), Ok(()));
    running.control.release();
    drop(first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_drops_no_request_and_brings_what_is_new() {
    let running = start(|_| {}).await;
    let first = running.occupy().await;
    // The new model is warmed up by the same engine, which is held: it is loaded beside.
    running.config.lock().unwrap().names.insert("new".into(), "default".into());
    let handle = running.handle.clone();
    let reload = tokio::spawn(async move { handle.reload().await });
    tokio::task::yield_now().await;
    running.control.release();
    assert_eq!(reload.await.unwrap(), Ok(()));
    assert_eq!(first.await.unwrap().status, 200);
    let mut asked = body("red", 2);
    asked["model"] = json!("new");
    assert_eq!(running.rerank(asked).await.status, 200);
    assert_eq!(running.control.loads.load(SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_fails_changes_nothing() {
    let running = start(|_| {}).await;
    running.control.fails_load.store(true, SeqCst);
    running.config.lock().unwrap().names.insert("new".into(), "default".into());
    let problem = running.handle.reload().await.unwrap_err();
    assert!(problem.contains("a test asks for it"), "{problem}");
    running.config.lock().unwrap().listen.clear();
    let problem = running.handle.reload().await.unwrap_err();
    assert!(problem.starts_with("listen: "), "{problem}");
    assert_eq!(running.rerank(body("red", 2)).await.status, 200);
    assert!(running.handle.is_ready());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_admin_may_reload() {
    let key = |name: &str, admin| KeyConfig {
        name: name.into(),
        sha256: hash_key(&format!("secret of {name}")),
        tokens_per_minute: 0,
        requests_per_minute: 0,
        admin,
    };
    let running = start(|config| config.keys = vec![key("user", false), key("admin", true)]).await;
    let reload = |headers: &'static [(&'static str, &'static str)]| {
        send(running.address, request("POST", "/admin/reload", headers, ""))
    };
    assert_eq!(reload(&[]).await.status, 401);
    assert_eq!(reload(&[("authorization", "Bearer secret of user")]).await.status, 403);
    assert_eq!(reload(&[("authorization", "Bearer secret of admin")]).await.status, 200);
    assert_eq!(get(running.address, "/admin/reload").await.status, 405);
    let open = start(|_| {}).await;
    assert_eq!(send(open.address, request("POST", "/admin/reload", &[], "")).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn nan_takes_a_model_out_until_a_check_passes() {
    let running = start(|config| config.health.self_check = Duration::from_millis(500)).await;
    running.control.fails_check.store(true, SeqCst);
    running.control.gives_nan.store(true, SeqCst);
    let answer = running.rerank(body("red", 2)).await;
    assert!([500, 503].contains(&answer.status.as_u16()), "{answer:?}");
    assert!(!running.handle.is_ready());
    assert_eq!(get(running.address, "/readyz").await.status, 503);
    let answer = running.rerank(body("red", 2)).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (503, "unavailable".into()));
    assert_eq!(get(running.address, "/livez").await.status, 200);
    running.control.gives_nan.store(false, SeqCst);
    running.control.fails_check.store(false, SeqCst);
    until("a check passes", || running.handle.is_ready()).await;
    assert_eq!(running.rerank(body("red", 2)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_device_takes_a_model_out() {
    let running = start(|config| config.health.self_check = Duration::from_millis(50)).await;
    until("it is ready", || running.handle.is_ready()).await;
    running.control.loses_device.store(true, SeqCst);
    let answer = running.rerank(body("red", 2)).await;
    assert!([500, 503].contains(&answer.status.as_u16()), "{answer:?}");
    assert!(!running.handle.is_ready());
    let ready = get(running.address, "/readyz").await;
    assert_eq!(ready.status, 503);
    // No check passes on a device that is lost.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!running.handle.is_ready());
    assert_eq!(get(running.address, "/livez").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_check_and_a_panic_take_a_model_out() {
    let running = start(|config| config.health.self_check = Duration::from_millis(50)).await;
    running.control.fails_check.store(true, SeqCst);
    until("the check fails", || !running.handle.is_ready()).await;
    running.control.fails_check.store(false, SeqCst);
    until("the check passes", || running.handle.is_ready()).await;

    let running = start(|config| config.health.self_check = Duration::ZERO).await;
    running.control.panics.store(true, SeqCst);
    let answer = running.rerank(body("red", 2)).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (500, "internal".into()));
    assert!(!running.handle.is_ready());
}
