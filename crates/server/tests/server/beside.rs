//! What cascades read with beside the queues.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use jointly::rank::listwise::{OnePass, OnePassOptions};
use jointly::rank::{Cascade, Duo, DuoScorer, Embedded, Mmr, Rescore};
use jointly::{BiEncoder, CrossEncoder, LoadOptions};
use jointly_cascade::BiScorer;
use jointly_server::config::KeyConfig;
use jointly_server::hash_key;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::cascades::{all_as_in_the_library, ask, file, planets, with};
use crate::client::{Answer, get, request, send};
use crate::endpoint::{Endpoint, Reply, Seen};
use crate::engine::Control;
use crate::running::{begin, config, start, until};

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name)
}

/// A stage that asks a language model there.
fn listwise(url: &str, more: &str) -> String {
    format!("[[stage]]\nkind = \"listwise\"\nendpoint = \"{url}\"\nmodel = \"m\"\nattempts = 1\n{more}\n")
}

/// Keeps five documents for it.
fn five_and(stage: &str) -> String {
    format!("[[stage]]\nmodel = \"default\"\nkeep = 5\n{stage}")
}

/// Who wants all documents the other way round.
fn reversed(seen: &Seen) -> Reply {
    let count = seen.message().matches("<document-").count();
    Reply::says(&(1..=count).rev().map(|id| format!("[{id}]")).collect::<Vec<_>>().join(" > "))
}

fn hangs() -> Reply {
    Reply { stall: Duration::from_secs(30), ..Reply::new(200, "") }
}

/// Nobody listens there.
const NOBODY: &str = "http://127.0.0.1:1/v1";

fn order(answer: &Answer) -> Vec<u64> {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["results"].as_array().unwrap().iter().map(|hit| hit["index"].as_u64().unwrap()).collect()
}

/// What a stage says to people.
fn notes(answer: &Answer, stage: usize) -> String {
    let notes = answer.json()["stages"][stage]["notes"].clone();
    notes.as_array().unwrap().iter().map(|note| note.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

/// The order of the first stage alone.
async fn without_it() -> Vec<u64> {
    let running = start(with(&five_and(""))).await;
    order(&ask(&running, json!({})).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn models_without_a_queue_read_as_the_library_has_them_read() {
    let (embeds, lists) = (testdata("embed-bert"), testdata("list-jina-v3"));
    let stages = format!(
        "[[stage]]\nmodel = 'bi:{embeds}'\nkeep = 12\n\
         [[stage]]\nkind = 'mmr'\nlambda = 0.5\nkeep = 8\nmin_max = true\nsimilarity = 'bi:{embeds}'\n\
         [[stage]]\nkind = 'one-pass'\nmodel = '{lists}'\n",
        embeds = embeds.display(),
        lists = lists.display(),
    );
    let running = start(with(&stages)).await;
    assert_eq!(running.control.loads_beside.load(SeqCst), 2, "what two stages name is loaded once");
    let answer = ask(&running, json!({})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let found = answer.json();

    let options = || LoadOptions::new().threads(1);
    let encoder = Arc::new(BiEncoder::load(embeds, options()).unwrap());
    let list = OnePass::load(lists, options()).unwrap();
    let cascade = Cascade::new()
        .stage(Rescore::all(BiScorer::new(Arc::clone(&encoder))).keep(12))
        .stage(Mmr::new(0.5, 8, Embedded::new(encoder)).unwrap().min_max())
        .stage(list.stage(OnePassOptions::new()).unwrap());
    let wanted = cascade.rerank("how many moons", &planets(20)).unwrap();
    all_as_in_the_library(&found, &wanted);
    let reads: Vec<_> =
        found["stages"].as_array().unwrap().iter().map(|stage| stage["read"].clone()).collect();
    assert_eq!(reads, [json!(20), json!(12), json!(8)]);
    assert!(found["timing_ms"]["inference"].as_f64().unwrap() > 0.0);
    // Whoever reloads loads them anew.
    running.handle.reload().await.unwrap();
    assert_eq!(running.control.loads_beside.load(SeqCst), 4);
    assert_eq!(ask(&running, json!({})).await.json()["results"], found["results"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_without_a_queue_that_cannot_be_loaded_ends_the_start() {
    let config = config(with("[[stage]]\nmodel = \"bi:/no/such/folder\"\n"));
    let mut running = begin(config, Arc::<Control>::default()).await;
    let problem = (&mut running.task).await.unwrap().unwrap_err();
    assert!(problem.starts_with("model \"bi:/no/such/folder@f32\": "), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_queue_ends_at_the_deadline() {
    let lists = testdata("list-jina-v3");
    let stages = format!("[[stage]]\nkind = 'one-pass'\nblock = 1\nmodel = '{}'\n", lists.display());
    let running = start(with(&stages)).await;
    // Some other model computes, and holds the cores for longer than the answer takes.
    let other = running.occupy().await;
    let answer = ask(&running, json!({"deadline": 0.1})).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (504, "deadline_exceeded".into()), "{answer:?}");
    running.control.release();
    assert_eq!(other.await.unwrap().status, 200);
    assert_eq!(order(&ask(&running, json!({})).await).len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_language_model_has_the_last_word() {
    let endpoint = Endpoint::start(|seen, _| reversed(seen));
    let prices = "usd_per_million_input_tokens = 1.0\nusd_per_million_output_tokens = 10.0";
    let running = start(with(&five_and(&listwise(&endpoint.url, prices)))).await;
    assert!(endpoint.seen().is_empty(), "the start asks nobody");
    let answer = ask(&running, json!({})).await;
    let mut wanted = without_it().await;
    wanted[..5].reverse();
    assert_eq!(order(&answer), wanted);
    let stage = &answer.json()["stages"][1];
    assert_eq!((&stage["read"], &stage["tokens"]), (&json!(5), &json!(110)));
    assert!((stage["usd"].as_f64().unwrap() - 200e-6).abs() < 1e-12, "{stage}");
    assert!(notes(&answer, 1).starts_with("1 calls: 1 ok"), "{stage}");
    assert_eq!(endpoint.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cascade_that_scores_nothing_has_an_order() {
    let endpoint = Endpoint::start(|seen, _| reversed(seen));
    let running = start(with(&listwise(&endpoint.url, ""))).await;
    let answer = ask(&running, json!({"documents": planets(4)})).await;
    assert_eq!(order(&answer), [3, 2, 1, 0]);
    let found = answer.json();
    let scores: Vec<_> =
        found["results"].as_array().unwrap().iter().map(|hit| hit["score"].as_f64().unwrap()).collect();
    assert_eq!(scores, [0.0, -1.0, -2.0, -3.0]);
    assert_eq!((&found["score_scale"], &found["coverage"]["complete"]), (&json!("ordinal"), &json!(true)));
    // It has no place in any queue, and is a request of its key all the same.
    let endpoint = Endpoint::start(|seen, _| reversed(seen));
    let running = start(|config| {
        with(&listwise(&endpoint.url, ""))(config);
        config.keys = vec![KeyConfig {
            name: "a".into(),
            sha256: hash_key("a secret"),
            tokens_per_minute: 0,
            requests_per_minute: 1,
            admin: false,
        }];
    })
    .await;
    let asked = json!({"model": "best", "query": "red", "documents": ["one", "two"]}).to_string();
    for status in [200, 429] {
        let headers = [("authorization", "Bearer a secret")];
        let answer =
            send(running.address, request("POST", "/jointly/v1/rerank", &headers, asked.clone())).await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_language_model_that_hangs_is_cut_at_the_deadline() {
    let endpoint = Endpoint::start(|_, _| hangs());
    let running = start(with(&five_and(&listwise(&endpoint.url, "")))).await;
    let began = Instant::now();
    let answer = ask(&running, json!({"deadline": 1})).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (504, "deadline_exceeded".into()), "{answer:?}");
    let message = answer.json()["error"]["message"].as_str().unwrap().to_string();
    // Where threads are slow to wake, nobody waits for what the stage would say.
    assert!(message.contains("stage 2 of 2") || message.contains("before the last stage"), "{message}");
    let answer = ask(&running, json!({"deadline": 1, "partial": true})).await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(order(&answer), without_it().await);
    assert_eq!(answer.json()["stages"][1]["stop"], "deadline");
    // A time of the file is no deadline of a client.
    let endpoint = Endpoint::start(|_, _| hangs());
    let stages = five_and(&listwise(&endpoint.url, ""));
    let running = start(with(&format!("[budget]\nms = 1000\n{stages}"))).await;
    let answer = ask(&running, json!({})).await;
    assert_eq!(order(&answer), without_it().await);
    assert_eq!(answer.json()["stages"][1]["stop"], "deadline");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_language_model_that_is_not_there_leaves_the_order_and_a_note() {
    let running = start(with(&five_and(&listwise(NOBODY, "")))).await;
    let answer = ask(&running, json!({})).await;
    assert_eq!(order(&answer), without_it().await);
    assert!(notes(&answer, 1).contains("no answer at all: this is the incoming order"), "{answer:?}");
    assert!(running.handle.is_ready());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_language_model_says_is_not_for_clients() {
    let said = "the key of gpu7.internal, asked about somebody's illness";
    let error = json!({"error": {"message": said}}).to_string();
    let bad_request = error.clone();
    let one = |reply: Reply| Endpoint::start(move |_, _| reply.clone());
    let as_it_came = without_it().await;
    for (endpoint, counted) in [
        (one(Reply::new(401, error)), "refused: the language model answers no questions"),
        (one(Reply::new(400, bad_request)), "1 calls: 0 ok"),
        (one(Reply::says(said)), "1 in a wrong format"),
        (one(Reply::new(200, said)), "1 unanswered"),
    ] {
        let running = start(with(&five_and(&listwise(&endpoint.url, "")))).await;
        let answer = ask(&running, json!({})).await;
        assert_eq!(order(&answer), as_it_came);
        assert!(notes(&answer, 1).contains(counted), "{answer:?}");
        let body = String::from_utf8_lossy(&answer.body);
        assert!(!["gpu7", "illness", "127.0.0.1"].iter().any(|word| body.contains(word)), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn language_models_that_hang_keep_no_other_cascade_waiting() {
    let endpoint = Endpoint::start(|_, _| hangs());
    let other = file(&format!("[[stage]]\nmodel = 'bi:{}'\n", testdata("embed-bert").display()));
    let running = start(|config| {
        with(&listwise(&endpoint.url, ""))(config);
        config.cascades.insert("other".into(), other);
        config.queue.max_wait = Duration::from_millis(200);
    })
    .await;
    let asked = json!({"model": "best", "query": "red", "documents": ["one", "two"], "deadline": 25});
    let hung: Vec<_> = (0..64).map(|_| running.spawn_rerank(asked.clone())).collect();
    until("all that may have asked", || endpoint.seen().len() == 64).await;
    let answer = running.rerank(asked).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (503, "overloaded".into()), "{answer:?}");
    assert_eq!(order(&ask(&running, json!({"model": "other"})).await).len(), 20);
    hung.iter().for_each(|task| task.abort());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cascade_without_a_queue_is_loaded() {
    let running = start(|config| {
        with(&listwise(NOBODY, ""))(config);
        config.default_model = "best".into();
    })
    .await;
    let cards = get(running.address, "/jointly/v1/models").await.json();
    let best = cards["models"].as_array().unwrap().iter().find(|card| card["name"] == "best").unwrap();
    assert_eq!((&best["loaded"], &best["architecture"]), (&json!(true), &json!("cascade")), "{best}");
    let info = get(running.address, "/tei/info").await;
    assert_eq!(info.status, 200, "{info:?}");
    assert_eq!(info.json()["model_sha"], json!(null));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_documents_are_read_as_one_text_whatever_the_request_says() {
    let folder = testdata("tiny-roberta");
    let source = folder.to_str().unwrap().to_string();
    let running = start(|config| {
        with("[[stage]]\nkind = \"duo\"\nmodel = \"default\"\ndepth = 5\n")(config);
        config.models.get_mut("default").unwrap().source = source;
    })
    .await;
    let answer = ask(&running, json!({})).await;
    let mut found = order(&answer);
    let model = CrossEncoder::load(folder, LoadOptions::new().threads(1)).unwrap();
    let cascade = Cascade::new().stage(Duo::new(DuoScorer::new(&model).unwrap(), 5));
    let wanted = cascade.rerank("how many moons", &planets(20)).unwrap();
    assert_eq!(found, wanted.hits[..5].iter().map(|hit| hit.index as u64).collect::<Vec<_>>());
    found.sort_unstable();
    assert_eq!(found, [0, 1, 2, 3, 4]);
    let stage = &answer.json()["stages"][0];
    assert_eq!((&stage["read"], &stage["pairs"]), (&json!(5), &json!(5 * 4)));
    // Nothing is known of a document but its place.
    let scores = |answer: &Answer| -> Vec<f64> {
        let found = answer.json();
        found["results"].as_array().unwrap().iter().map(|hit| hit["score"].as_f64().unwrap()).collect()
    };
    assert_eq!(scores(&answer), [0.0, -1.0, -2.0, -3.0, -4.0]);
    // What is said of long texts would cut the second document away.
    let cut = json!({"max_tokens_per_pair": 12, "max_tokens_per_doc": 4, "overlong": "windows"});
    let short = ask(&running, cut).await;
    assert_eq!(order(&short), order(&answer));
    assert_eq!(short.json()["stages"][0]["tokens"], stage["tokens"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_all_requests_may_cost_outlives_a_reload() {
    let endpoint = Endpoint::start(|_, _| {
        let choice = json!({"message": {"content": "[1] > [2]"}, "finish_reason": "stop"});
        let usage = json!({"prompt_tokens": 1_000_000, "completion_tokens": 10});
        Reply::new(200, json!({"choices": [choice], "usage": usage}).to_string())
    });
    let stage =
        |more: &str| five_and(&listwise(&endpoint.url, &format!("max_tokens_of_all = 100000\n{more}")));
    let running = start(with(&stage(""))).await;
    let is_spent = |answer: &Answer| notes(answer, 1).contains("the budget of all queries is spent");
    assert!(!is_spent(&ask(&running, json!({})).await));
    assert!(is_spent(&ask(&running, json!({})).await));
    // Whatever the cascade is called, also when none asked it for a while.
    for (name, stages) in [("best", five_and("")), ("best", stage("")), ("other", stage(""))] {
        running.config.lock().unwrap().cascades.insert(name.into(), file(&stages));
        running.handle.reload().await.unwrap();
    }
    for name in ["best", "other"] {
        assert!(is_spent(&ask(&running, json!({"model": name})).await), "{name}");
    }
    assert_eq!(endpoint.seen().len(), 1);
    // A stage that is another has a budget of its own.
    let path = file(&stage("seed = 7"));
    running.config.lock().unwrap().cascades.insert("best".into(), path);
    running.handle.reload().await.unwrap();
    assert!(!is_spent(&ask(&running, json!({})).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_is_asked_for_no_longer() {
    let endpoint = Endpoint::start(|_, _| Reply { stall: Duration::from_millis(100), ..Reply::says("[1]") });
    let pairs = "method = \"pairwise\"\nconcurrency = 1";
    let running = start(with(&five_and(&listwise(&endpoint.url, pairs)))).await;
    let asked = json!({"model": "best", "query": "how many moons", "documents": planets(20)}).to_string();
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let head =
        format!("POST /jointly/v1/rerank HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", asked.len());
    stream.write_all((head + &asked).as_bytes()).await.unwrap();
    until("the first pair is asked about", || !endpoint.seen().is_empty()).await;
    drop(stream);
    running.wait_for(0).await;
    let asked = endpoint.seen().len();
    assert!(asked < 20, "{asked} of 20 pairs");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(endpoint.seen().len(), asked);
}
