use std::sync::atomic::Ordering::SeqCst;

use jointly::{CrossEncoder, LoadOptions, RerankOptions};
use serde_json::json;

use jointly_server::config::{Load, ModelConfig};

use crate::client::{request, send};
use crate::engine::tiny_bert;
use crate::running::{begin, body, config, start, until};

#[tokio::test(flavor = "multi_thread")]
async fn scores_are_the_librarys_and_the_best_is_first() {
    let running = start(|_| {}).await;
    let documents: Vec<String> = (0..150).map(|i| format!("{i} planets and {} moons", i * 7 % 13)).collect();
    let answer =
        running.rerank(json!({"query": "how many moons", "documents": documents, "top_n": 20})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let model = CrossEncoder::load(tiny_bert(), LoadOptions::new().threads(1)).unwrap();
    let wanted = model.rerank("how many moons", &documents, &RerankOptions::new().top_n(20)).unwrap();
    let found = answer.json();
    assert_eq!(found["results"].as_array().unwrap().len(), 20);
    for (hit, result) in wanted.hits.iter().zip(found["results"].as_array().unwrap()) {
        assert_eq!(result["index"], hit.index);
        assert_eq!(result["logit"].as_f64().unwrap() as f32, hit.score.logit);
        assert_eq!(result["tokens"], hit.score.tokens);
    }
    assert_eq!(found["coverage"], json!({"scored": 150, "given": 150, "complete": true}));
    assert!(answer.header("server-timing").contains("score;dur="), "{answer:?}");
    assert_eq!(answer.header("x-request-id"), found["id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_keeps_its_id_if_it_is_a_plain_one() {
    let running = start(|_| {}).await;
    let ask = |id: &'static str| {
        let headers = [("x-request-id", id)];
        send(running.address, request("POST", "/jointly/v1/rerank", &headers, body("red", 1).to_string()))
    };
    assert_eq!(ask("abc-1.2").await.header("x-request-id"), "abc-1.2");
    let made = ask("a b<c>").await;
    assert_eq!(made.header("x-request-id").len(), 36);
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_documents_and_windows_and_spans_are_reported() {
    let running = start(|_| {}).await;
    let long: String = (0..100).map(|i| format!("Moon {i} is grey. ")).collect();
    let ask = |more: serde_json::Value| {
        let mut body = json!({"query": "which moon", "documents": ["short", long], "return_documents": true});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        running.rerank(body)
    };
    let of_long = |answer: &crate::client::Answer| {
        let found = answer.json();
        let results = found["results"].as_array().unwrap_or_else(|| panic!("{answer:?}"));
        results.iter().find(|result| result["index"] == 1).unwrap().clone()
    };
    let cut = of_long(&ask(json!({})).await);
    assert_eq!((&cut["truncated"], &cut["windows"]), (&json!(true), &json!(1)));
    let windows = of_long(&ask(json!({"overlong": "windows"})).await);
    assert_eq!(windows["truncated"], json!(false), "{windows}");
    assert!(windows["windows"].as_u64().unwrap() > 1 && windows["best_window"].is_array());
    let end = of_long(&ask(json!({"overlong": "truncate_start"})).await);
    assert_ne!(end["logit"], cut["logit"]);
    let refused = ask(json!({"overlong": "refuse"})).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (422, "too_long".into()));
    assert!(refused.json()["error"]["message"].as_str().unwrap().starts_with("document 1 "));
    let spans = of_long(&ask(json!({"spans": {"max_spans": 2}})).await);
    let spans = spans["spans"].as_array().unwrap().clone();
    assert_eq!(spans.len(), 2);
    for span in spans {
        let (start, end) = (span["start"].as_u64().unwrap() as usize, span["end"].as_u64().unwrap() as usize);
        let text: String = long.chars().skip(start).take(end - start).collect();
        assert_eq!(span["text"], text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_tells_what_is_scored_and_ends_with_the_whole() {
    let running = start(|_| {}).await;
    let mut asked = body("which planet is red", 100);
    asked["stream"] = json!(true);
    let answer = running.rerank(asked.clone()).await;
    assert_eq!(answer.header("content-type"), "text/event-stream");
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    let events: Vec<(&str, serde_json::Value)> = text
        .split_terminator("\n\n")
        .map(|event| {
            let (name, data) = event.split_once('\n').unwrap();
            let data = data.strip_prefix("data: ").unwrap();
            (name.strip_prefix("event: ").unwrap(), serde_json::from_str(data).unwrap())
        })
        .collect();
    let (last, others) = events.split_last().unwrap();
    assert_eq!(last.0, "result");
    assert_eq!(last.1["results"].as_array().unwrap().len(), 100);
    let mut told: Vec<u64> = others
        .iter()
        .inspect(|(name, _)| assert_eq!(*name, "progress"))
        .flat_map(|(_, data)| data["results"].as_array().unwrap())
        .map(|result| result["index"].as_u64().unwrap())
        .collect();
    told.sort_unstable();
    assert_eq!(told, (0..100).collect::<Vec<u64>>());
    // What fails before it begins is an ordinary answer.
    asked["model"] = json!("nobody");
    assert_eq!(running.rerank(asked).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_pairs_of_two_requests_are_computed_once() {
    let running = start(|_| {}).await;
    let first = running.occupy().await;
    let asked = body("which planet is green", 30);
    let (second, third) = (running.spawn_rerank(asked.clone()), running.spawn_rerank(asked));
    running.wait_for(3).await;
    running.control.release();
    let (second, third) = (second.await.unwrap().json(), third.await.unwrap().json());
    assert_eq!(second["results"], third["results"]);
    first.await.unwrap();
    // The model's vocabulary is so small that some documents have the same tokens.
    let alone = start(|_| {}).await;
    alone.rerank(body("which planet is green", 30)).await;
    assert_eq!(running.control.pairs.load(SeqCst), 1 + alone.control.pairs.load(SeqCst));
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_scores_are_the_same_and_cost_nothing() {
    let running = start(|config| config.cache.scores = 1000).await;
    let first = running.rerank(body("which planet is red", 20)).await.json();
    let pairs = running.control.pairs.load(SeqCst);
    let second = running.rerank(body("which planet is red", 20)).await.json();
    assert_eq!(first["results"], second["results"]);
    assert_eq!(running.control.pairs.load(SeqCst), pairs);
}

#[tokio::test(flavor = "multi_thread")]
async fn models_have_names_and_are_loaded_when_asked_for() {
    let running = start(|config| {
        let other = ModelConfig { load: Load::Demand, ..ModelConfig::default() };
        config.models.insert("other".into(), other);
        config.names.insert("rerank-v3.5".into(), "other".into());
    })
    .await;
    assert_eq!(running.control.loads.load(SeqCst), 1);
    let mut asked = body("which planet is red", 3);
    asked["model"] = json!("rerank-v3.5");
    let answer = running.rerank(asked.clone()).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["model"]), (200, &json!("rerank-v3.5")));
    assert_eq!(running.control.loads.load(SeqCst), 2);
    running.rerank(asked.clone()).await;
    assert_eq!(running.control.loads.load(SeqCst), 2);
    asked["model"] = json!("rerank-v9");
    let answer = running.rerank(asked).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (404, "unknown_model".into()));
    let models = crate::client::get(running.address, "/v1/models").await.json();
    assert_eq!(models["models"][1]["aliases"], json!(["rerank-v3.5"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_give_up_do_not_load_a_model_twice() {
    let running = start(|config| {
        let other = ModelConfig { load: Load::Demand, ..ModelConfig::default() };
        config.models.insert("other".into(), other);
    })
    .await;
    running.control.hold();
    let mut asked = body("which planet is red", 3);
    asked["model"] = json!("other");
    asked["deadline"] = json!(0.05);
    for _ in 0..3 {
        assert_eq!(running.rerank(asked.clone()).await.status, 504);
    }
    running.control.release();
    asked["deadline"] = json!(30);
    assert_eq!(running.rerank(asked).await.status, 200);
    assert_eq!(running.control.loads.load(SeqCst), 2); // with the one that is there from the start
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_nobody_uses_makes_room_for_another() {
    let parameters = {
        let encoder = CrossEncoder::load(tiny_bert(), LoadOptions::new()).unwrap();
        encoder.info().parameters as u64
    };
    let config = config(|config| {
        let model = ModelConfig { load: Load::Demand, ..ModelConfig::default() };
        config.models = [("a".to_string(), model.clone()), ("b".to_string(), model)].into();
        config.default_model = "a".into();
        config.limits.models_bytes = parameters * 6; // one in f32, and a half
    });
    let running = begin(config, std::sync::Arc::default()).await;
    until("the server is ready", || running.handle.is_ready()).await;
    for (model, loads) in [("a", 1), ("b", 2), ("b", 2), ("a", 3)] {
        let mut asked = body("which planet is red", 1);
        asked["model"] = json!(model);
        assert_eq!(running.rerank(asked).await.status, 200);
        assert_eq!(running.control.loads.load(SeqCst), loads);
    }
}
