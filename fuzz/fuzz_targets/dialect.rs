//! Bodies of every dialect of the server. A case is `path LF body`; the path has the dialect's name before it.
//! `JOINTLY_FUZZ_DIALECT` names the only dialect that is to read them.
#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jointly::{Score, ScoreScale};
use jointly_fuzz::case;
use jointly_server::dialect::{DIALECTS, choose};
use jointly_server::{
    Coverage, FailureKind, Hit, Items, Latency, RerankRequest, RerankResponse, Timing, Usage,
};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_target!(|data: &[u8]| {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (path, body) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static("x-pinecone-api-version"), HeaderValue::from_static("2026-04"));
    let path = String::from_utf8_lossy(path);
    let chosen = choose(&Method::POST, &path, body, &headers).filter(|(dialect, _)| is_wanted(dialect.name()));
    let (dialect, route) = chosen.unwrap_or_else(|| {
        // No case is wasted: any other path is one that depends on it.
        let routes: Vec<_> = DIALECTS
            .iter()
            .filter(|dialect| is_wanted(dialect.name()))
            .flat_map(|dialect| dialect.routes().iter().map(move |route| (*dialect, route)))
            .filter(|(_, route)| route.method == Method::POST)
            .collect();
        assert!(!routes.is_empty(), "there is no dialect of this name");
        let sum: usize = path.bytes().map(usize::from).sum();
        let (dialect, route) = routes[sum % routes.len()];
        (dialect, route.path)
    });
    // On shared paths everybody is asked.
    assert!(choose(&Method::POST, route, body, &headers).is_some());
    match dialect.parse(route, body, &headers) {
        Err(failure) => {
            assert!(failure.field.is_some() || failure.message.starts_with("the body is not"), "{failure:?}");
            assert!(
                matches!(failure.kind, FailureKind::Malformed | FailureKind::Invalid | FailureKind::TooLarge),
                "{failure:?}"
            );
            let rendered = dialect.failure(route, "id", &failure);
            assert!(rendered.status.is_client_error(), "{failure:?}: {}", rendered.status);
            is_json(&rendered.body);
        }
        Ok(parsed) => {
            let request = &parsed.request;
            match &*request.items {
                Items::Documents { query, documents } => {
                    assert!(!query.trim().is_empty() && !documents.is_empty());
                }
                Items::Pairs(pairs) => {
                    assert!(!pairs.is_empty() && pairs.iter().all(|(query, _)| !query.trim().is_empty()));
                }
            }
            assert!(request.top_n != Some(0) && request.priority <= 999);
            is_json(&dialect.render(route, &parsed, &respond(request)).body);
        }
    }
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    case::mutate(data, size, max_size, seed)
});

fn is_wanted(dialect: &str) -> bool {
    static ONLY: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("JOINTLY_FUZZ_DIALECT").ok());
    ONLY.as_ref().is_none_or(|only| only == dialect)
}

fn is_json(body: &[u8]) {
    serde_json::from_slice::<serde_json::Value>(body).expect("an answer is JSON");
}

/// What some model would give.
fn respond(request: &RerankRequest) -> RerankResponse {
    let given = match &*request.items {
        Items::Documents { documents, .. } => documents.len(),
        Items::Pairs(pairs) => pairs.len(),
    };
    let score = Score {
        logit: 0.5,
        score: 0.5,
        probability: None,
        tokens: 7,
        truncated: false,
        windows: 1,
        span: None,
    };
    let spans = if request.spans.is_some() { vec![(1..3, score.clone())] } else { Vec::new() };
    let scale = ScoreScale::Logit;
    let hit = |index| Hit { index, score: score.clone(), scale, stage: None, spans: spans.clone() };
    let count = if matches!(*request.items, Items::Pairs(_)) { given } else { request.top_n.unwrap_or(given).min(given) };
    RerankResponse {
        id: "id".into(),
        model: request.model.clone().unwrap_or_default(),
        hits: (0..count).rev().map(hit).collect(),
        scale,
        usage: Usage::default(),
        timing: Timing { total: Duration::from_millis(1), ..Timing::default() },
        coverage: Coverage { scored: given, given },
        latency: Latency::Fast,
        stages: Vec::new(),
    }
}
