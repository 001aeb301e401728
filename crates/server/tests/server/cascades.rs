use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use jointly::rank::{Cascade, Outcome, Rescore};
use jointly::{CrossEncoder, LoadOptions};
use jointly_server::config::Config;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::client::{Answer, post};
use crate::engine::{Control, tiny_bert};
use crate::running::{Running, begin, body, config, start, until};

/// A file with these stages. It lies there until the tests end.
pub fn file(stages: &str) -> String {
    let folder: PathBuf = tempfile::tempdir().unwrap().keep();
    let path = folder.join("cascade.toml");
    std::fs::write(&path, stages).unwrap();
    path.to_str().unwrap().to_string()
}

const TWO: &str = "[[stage]]\nmodel = \"default\"\nkeep = 6\nname = \"first\"\n\
                   [[stage]]\nmodel = \"default\"\nprecision = \"f32\"\nmax_length = 10\nname = \"second\"\n";

pub fn with(stages: &str) -> impl FnOnce(&mut Config) + use<> {
    let path = file(stages);
    move |config| {
        config.cascades.insert("best".into(), path);
        config.names.insert("rerank-v4.0-pro".into(), "best".into());
    }
}

pub fn planets(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("{i} planets and {} moons, seen from {i}", i * 7 % 13)).collect()
}

pub async fn ask(running: &Running, more: Value) -> Answer {
    let mut asked = json!({"model": "best", "query": "how many moons", "documents": planets(20)});
    asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    running.rerank(asked).await
}

/// Twenty results in the order of the library, with its logits, each from the same stage.
pub fn all_as_in_the_library(found: &Value, wanted: &Outcome) {
    let results = found["results"].as_array().unwrap();
    assert_eq!(results.len(), 20);
    for (result, wanted) in results.iter().zip(&wanted.hits) {
        assert_eq!(result["index"], wanted.index);
        assert_eq!(result["logit"].as_f64().unwrap() as f32, wanted.score.as_ref().unwrap().logit);
        assert_eq!(result["stage"].as_u64().map(|stage| stage as usize), wanted.stage);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stages_run_as_the_library_runs_them() {
    let running = start(with(TWO)).await;
    assert_eq!(running.control.loads.load(SeqCst), 2, "the second stage's precision is a model of its own");
    let answer = ask(&running, json!({})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let found = answer.json();
    let model = CrossEncoder::load(tiny_bert(), LoadOptions::new().threads(1)).unwrap();
    let short = jointly::rank::CrossScorer::new(&model, jointly::ScoreOptions::new().max_length(10));
    let cascade = Cascade::new().stage(Rescore::all(&model).keep(6)).stage(Rescore::all(short));
    let wanted = cascade.rerank("how many moons", &planets(20)).unwrap();
    all_as_in_the_library(&found, &wanted);
    let stages = found["stages"].as_array().unwrap();
    let counts = |stage: &Value| {
        let name = stage["name"].as_str().unwrap().to_string();
        (name, ["incoming", "read", "kept", "pairs"].map(|field| stage[field].as_u64().unwrap()))
    };
    assert_eq!(counts(&stages[0]), ("first".into(), [20, 20, 6, 20]));
    assert_eq!(counts(&stages[1]), ("second".into(), [6, 6, 6, 6]));
    let tokens: u64 = stages.iter().map(|stage| stage["tokens"].as_u64().unwrap()).sum();
    assert_eq!(found["usage"]["tokens"], tokens);
    assert_eq!(tokens, wanted.spent.tokens);
    assert_eq!(found["coverage"], json!({"scored": 20, "given": 20, "complete": true}));
    // Others get the order.
    let asked =
        json!({"model": "rerank-v4.0-pro", "query": "how many moons", "documents": planets(20), "top_k": 5});
    let answer = post(running.address, "/voyage/v1/rerank", &asked).await.json();
    let order: Vec<_> = answer["data"].as_array().unwrap().iter().map(|hit| hit["index"].clone()).collect();
    assert_eq!(order, wanted.hits[..5].iter().map(|hit| json!(hit.index)).collect::<Vec<_>>());
    running.wait_for(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stages_that_weigh_get_what_the_request_says() {
    let stages = "[[stage]]\nmodel = \"default\"\nprecision = \"auto\"\nblend = \"interpolate\"\nweight = 0.0\nkeep = 12\n\
                  [[stage]]\nkind = \"mmr\"\nlambda = 1.0\nkeep = 4\n\
                  [[stage]]\nkind = \"distinct\"\n";
    let running = start(|config| {
        with(stages)(config);
        // Its scores are between 0 and 1.
        let folder = tiny_bert().with_file_name("tiny-roberta");
        config.models.get_mut("default").unwrap().source = folder.to_str().unwrap().into();
    })
    .await;
    let scored: Vec<Value> =
        planets(20).iter().zip(0..).map(|(text, n)| json!({"text": text, "score": n})).collect();
    let answer = ask(&running, json!({"documents": scored})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let found = answer.json();
    let order: Vec<_> = found["results"].as_array().unwrap().iter().map(|hit| hit["index"].clone()).collect();
    assert_eq!(order[..4], [19, 18, 17, 16], "only the search's scores have a weight");
    let kept: Vec<_> =
        found["stages"].as_array().unwrap().iter().map(|stage| stage["kept"].clone()).collect();
    assert_eq!(kept[..2], [json!(12), json!(4)]);
    let without = ask(&running, json!({})).await;
    assert_eq!((without.status.as_u16(), without.code()), (422, "invalid".into()));
    // A model weighs nothing.
    let asked = json!({"query": "how many moons", "documents": scored, "sub_queries": [{"text": "moons"}]});
    assert_eq!(running.rerank(asked).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_cascade_cannot_do_is_refused() {
    let running = start(with(TWO)).await;
    let spans = ask(&running, json!({"spans": true})).await;
    assert_eq!((spans.status.as_u16(), spans.code()), (422, "invalid".into()));
    let pairs = json!({"model": "best", "text_1": "how many moons", "text_2": ["two"]});
    let answer = post(running.address, "/vllm/score", &pairs).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    let cards = crate::client::get(running.address, "/jointly/v1/models").await.json();
    let best = cards["models"].as_array().unwrap().iter().find(|card| card["name"] == "best").unwrap();
    assert_eq!(best["stages"], json!(["first", "second"]));
    assert_eq!(best["aliases"], json!(["rerank-v4.0-pro"]));
    assert_eq!(best["loaded"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cascade_that_cannot_run_ends_the_start() {
    let wrong = |stages: &str| {
        let mut config = Config { listen: vec!["127.0.0.1:0".into()], ..Config::default() };
        with(stages)(&mut config);
        config.check().unwrap_err().to_string()
    };
    let problem =
        wrong("[[stage]]\nmodel = \"default\"\n[[stage]]\nkind = \"listwise\"\nurl = \"http://127.0.0.1:1\"");
    assert!(problem.starts_with("cascades.best: ") && problem.contains("stage 2: listwise: "), "{problem}");
    // Of these scores a sum makes no sense, which is known once the model is there.
    let stages = "[[stage]]\nmodel = \"default\"\n[[stage]]\nkind = \"mmr\"\nkeep = 3\n";
    let mut running = begin(config(with(stages)), Arc::<Control>::default()).await;
    let problem = (&mut running.task).await.unwrap().unwrap_err();
    assert!(problem.starts_with("cascades.best: "), "{problem}");
    assert!(problem.contains("mmr"), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn room_for_all_stages_is_asked_for_before_the_first() {
    let running = start(|config| {
        with(TWO)(config);
        config.queue.max_requests = 1;
    })
    .await;
    running.control.hold();
    // The second stage's model is busy.
    let mut other = body("which planet is red", 1);
    other["model"] = json!("default@f32");
    let other = running.spawn_rerank(other);
    running.wait_for(1).await;
    let answer = ask(&running, json!({})).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (503, "overloaded".into()), "{answer:?}");
    assert_eq!(running.handle.waiting(), 1, "its place in the first queue was given back");
    running.control.release();
    assert_eq!(other.await.unwrap().status, 200);
    assert_eq!(ask(&running, json!({})).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_a_cascade() {
    let running = start(|config| {
        with(TWO)(config);
        config.queue.max_wait = Duration::from_millis(50);
    })
    .await;
    running.control.hold();
    for partial in [false, true] {
        let answer = ask(&running, json!({"deadline": 0.05, "partial": partial})).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (504, "deadline_exceeded".into()), "{answer:?}");
        running.wait_for(0).await;
    }
    running.control.release();
    let answer = ask(&running, json!({"deadline": 30, "partial": true})).await;
    assert_eq!(answer.json()["coverage"]["complete"], true, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_answer_has_the_order_reached_so_far() {
    let running = start(with("[[stage]]\nmodel = \"default\"\n")).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(2);
    let asked = json!({"model": "best", "query": "how many moons", "documents": planets(10_000), "deadline": 2, "partial": true});
    let asking = running.spawn_rerank(asked);
    until("some batches were computed", || running.control.pairs.load(SeqCst) > 100).await;
    running.control.hold();
    // The batch that has begun is done after the deadline, and counts.
    tokio::time::sleep_until(deadline + Duration::from_millis(100)).await;
    running.control.release();
    let found = asking.await.unwrap().json();
    let scored = found["coverage"]["scored"].as_u64().unwrap();
    assert!((1..10_000).contains(&scored), "{scored}");
    assert_eq!(found["stages"][0]["stop"], "deadline");
    assert_eq!(found["results"].as_array().unwrap().len() as u64, scored);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_a_cascade_ends_it() {
    let running = start(with(TWO)).await;
    running.control.hold();
    let asked = json!({"model": "best", "query": "how many moons", "documents": planets(50)}).to_string();
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let head =
        format!("POST /jointly/v1/rerank HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", asked.len());
    stream.write_all((head + &asked).as_bytes()).await.unwrap();
    running.wait_for(2).await; // in the queues of both
    drop(stream);
    running.wait_for(0).await;
    running.control.release();
    assert_eq!(ask(&running, json!({})).await.status, 200);
}
