//! Every dialect against its golden file, `testdata/dialects/NAME.json`: what is made of a body, what is answered, and what each
//! kind of failure looks like. Walks [`DIALECTS`], so that none can be forgotten.
//!
//! `JOINTLY_BLESS=1 cargo test -p jointly-server --test dialects` writes the files anew, to be read before they are committed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jointly::{Score, ScoreScale};
use jointly_server::dialect::{DIALECTS, Dialect, Parsed, Rendered, choose};
use jointly_server::{
    Coverage, Failure, FailureKind, Hit, Items, Latency, LoadedCard, ModelCard, RerankRequest,
    RerankResponse, Timing, Usage,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// What a file holds.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Golden {
    cases: Vec<Case>,
    /// By the name of the kind, of failures that name no field.
    failures: BTreeMap<String, Answer>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Case {
    /// What it shows.
    name: String,
    path: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
    /// The body; none of GET.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<Value>,
    /// The body as text, where it matters how it is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    raw: Option<String>,
    /// What the model gives: a probability unless this is set.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    gives_logits: bool,
    /// What is made of the body: what differs from a plain request.
    #[serde(default)]
    asked: Value,
    #[serde(default)]
    answer: Answer,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Answer {
    status: u16,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
    body: Value,
}

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/dialects")
}

fn is_blessing() -> bool {
    std::env::var_os("JOINTLY_BLESS").is_some()
}

/// Compares a file with what it should hold, or writes it.
fn compare(path: &Path, expected: &str) {
    if is_blessing() {
        std::fs::write(path, expected).expect("the file can be written");
    }
    let found = std::fs::read_to_string(path).expect("the file can be read");
    assert!(found == expected, "{} is not what is made now; see the head of this test", path.display());
}

fn headers(of: &BTreeMap<String, String>) -> HeaderMap {
    let header = |(name, value): (&String, &String)| {
        let name: HeaderName = name.parse().expect("a header's name");
        (name, HeaderValue::from_str(value).expect("a header's value"))
    };
    of.iter().map(header).collect()
}

impl Case {
    fn body(&self) -> Vec<u8> {
        match (&self.raw, &self.body) {
            (Some(raw), _) => raw.clone().into_bytes(),
            (None, Some(body)) => serde_json::to_vec(body).expect("a value"),
            (None, None) => Vec::new(),
        }
    }

    /// The path as the dialect knows it: a file's paths may have its prefix.
    fn route(&self, dialect: &dyn Dialect) -> &'static str {
        let method = if self.body.is_none() && self.raw.is_none() { Method::GET } else { Method::POST };
        let (chosen, path) =
            choose(&method, &self.path, &self.body(), &headers(&self.headers)).expect("the path is served");
        assert_eq!(chosen.name(), dialect.name(), "{}: the body went to another dialect", self.name);
        path
    }
}

/// The scores of documents or pairs, in their order, whatever they say.
const LOGITS: &[f32] = &[1.5, -2.25, 4.0, 0.125, -0.5];

fn score(index: usize, gives_logits: bool) -> Score {
    let logit = LOGITS[index % LOGITS.len()];
    let sigmoid = (1.0 / (1.0 + (-f64::from(logit) / 5.0).exp())) as f32;
    Score {
        logit,
        score: if gives_logits { logit } else { sigmoid },
        probability: None,
        tokens: 10,
        truncated: false,
        windows: 1,
        span: None,
    }
}

/// What a model with these scores would give.
fn respond(request: &RerankRequest, gives_logits: bool) -> RerankResponse {
    let (texts, is_ranked): (Vec<(&str, &str)>, bool) = match &*request.items {
        Items::Documents { query, documents } => {
            (documents.iter().map(|document| (query.as_str(), document.as_str())).collect(), true)
        }
        Items::Pairs(pairs) => (pairs.iter().map(|(q, d)| (&**q, d.as_str())).collect(), false),
    };
    let spans = |index: usize| match &request.spans {
        Some(spans) if spans.max_spans > 0 => vec![(1..4, score(index, gives_logits))],
        _ => Vec::new(),
    };
    let scale = if gives_logits { ScoreScale::Logit } else { ScoreScale::Probability };
    let hit =
        |index| Hit { index, score: score(index, gives_logits), scale, stage: None, spans: spans(index) };
    let mut hits: Vec<Hit> = (0..texts.len()).map(hit).collect();
    if is_ranked {
        hits.sort_by(|a, b| b.score.logit.total_cmp(&a.score.logit));
        hits.truncate(request.top_n.unwrap_or(usize::MAX));
    }
    let ms = Duration::from_millis;
    RerankResponse {
        id: "11111111-2222-4333-8444-555555555555".into(),
        model: request.model.clone().unwrap_or_else(|| "default".into()),
        hits,
        scale,
        usage: Usage {
            tokens: 10 * texts.len(),
            bytes: texts.iter().map(|(q, d)| q.len() + d.len()).sum(),
            characters: texts.iter().map(|(q, d)| q.chars().count() + d.chars().count()).sum(),
            truncated: 0,
        },
        timing: Timing { total: ms(12), tokenization: ms(1), queue: ms(2), inference: ms(8) },
        coverage: Coverage { scored: texts.len(), given: texts.len() },
        latency: if request.latency == Latency::Slow { Latency::Slow } else { Latency::Fast },
        stages: Vec::new(),
    }
}

/// What differs from a plain request.
fn asked(request: &RerankRequest) -> Value {
    let RerankRequest {
        model,
        items,
        top_n,
        instruction,
        overlong,
        max_tokens_per_doc,
        max_tokens_per_pair,
        spans,
        first_scores,
        sub_queries,
        priority,
        latency,
        deadline,
        partial,
        stream,
    } = request;
    let plain = RerankRequest::new(Items::clone(items));
    let mut asked = Map::new();
    match &**items {
        Items::Documents { query, documents } => {
            asked.insert("query".into(), json!(query));
            asked.insert("documents".into(), json!(documents));
        }
        Items::Pairs(pairs) => {
            let pairs: Vec<(&str, &str)> = pairs.iter().map(|(q, d)| (&**q, d.as_str())).collect();
            asked.insert("pairs".into(), json!(pairs));
        }
    }
    let mut differs = |name: &str, value: Value, plain: Value| {
        if value != plain {
            asked.insert(name.into(), value);
        }
    };
    let debug = |value: &dyn std::fmt::Debug| json!(format!("{value:?}"));
    differs("model", json!(model), Value::Null);
    differs("top_n", json!(top_n), Value::Null);
    differs("instruction", json!(instruction), Value::Null);
    differs("overlong", debug(overlong), debug(&plain.overlong));
    differs("max_tokens_per_doc", json!(max_tokens_per_doc), Value::Null);
    differs("max_tokens_per_pair", json!(max_tokens_per_pair), Value::Null);
    differs("spans", debug(spans), debug(&plain.spans));
    differs("first_scores", json!(first_scores), Value::Null);
    differs("sub_queries", json!(sub_queries), json!([]));
    differs("priority", json!(priority), json!(0));
    differs("latency", debug(latency), debug(&plain.latency));
    differs("deadline", debug(deadline), debug(&plain.deadline));
    differs("partial", json!(partial), json!(false));
    differs("stream", json!(stream), json!(false));
    Value::Object(asked)
}

fn answer(rendered: &Rendered) -> Answer {
    let mut body = match rendered.body.as_slice() {
        [] => Value::Null,
        body => serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}: {body:?}")),
    };
    still(&mut body);
    let header = |(name, value): (&HeaderName, &HeaderValue)| {
        (name.to_string(), value.to_str().expect("a header of ours").to_string())
    };
    Answer { status: rendered.status.as_u16(), headers: rendered.headers.iter().map(header).collect(), body }
}

/// Stops the clock: `created` is 0.
fn still(body: &mut Value) {
    match body {
        Value::Object(fields) => {
            for (name, value) in fields {
                if name == "created" {
                    *value = json!(0);
                } else {
                    still(value);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(still),
        _ => {}
    }
}

fn cards() -> Vec<ModelCard> {
    let loaded = LoadedCard {
        architecture: "bert".into(),
        max_length: 512,
        precision: "f32".into(),
        scale: ScoreScale::Probability,
        is_calibrated: false,
        is_healthy: true,
        identity: "362f4fc1".into(),
        threads: 2,
        parameters: 22_700_000,
    };
    let default = ModelCard {
        name: "default".into(),
        aliases: vec!["rerank-v3.5".into()],
        is_default: true,
        stages: Vec::new(),
        loaded: Some(loaded),
    };
    let of = |name: &str, stages: &[&str]| ModelCard {
        name: name.into(),
        aliases: Vec::new(),
        is_default: false,
        stages: stages.iter().map(ToString::to_string).collect(),
        loaded: None,
    };
    vec![of("large", &[]), default, of("best", &["default", "large"])]
}

fn run(dialect: &dyn Dialect, case: &Case) -> (Value, Answer) {
    let path = case.route(dialect);
    if let Some(rendered) = dialect.describe(path, &cards()) {
        return (Value::Null, answer(&rendered));
    }
    match dialect.parse(path, &case.body(), &headers(&case.headers)) {
        Ok(parsed) => {
            let response = respond(&parsed.request, case.gives_logits);
            (asked(&parsed.request), answer(&dialect.render(path, &parsed, &response)))
        }
        Err(failure) => (Value::Null, answer(&dialect.failure(path, "11111111", &failure))),
    }
}

#[test]
fn dialects_answer_as_their_golden_files_say() {
    for dialect in DIALECTS {
        let path = testdata().join(format!("{}.json", dialect.name()));
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let golden: Golden =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let cases = golden.cases.iter().map(|case| {
            let (asked, answer) = run(*dialect, case);
            Case { asked, answer, ..case.clone() }
        });
        let route = dialect.routes().iter().find(|route| route.method == Method::POST).expect("a POST");
        let failures = FailureKind::ALL.iter().map(|kind| {
            let failure = Failure::new(*kind, "the reason").inside("not for clients");
            (format!("{kind:?}"), answer(&dialect.failure(route.path, "11111111", &failure)))
        });
        let made = Golden { cases: cases.collect(), failures: failures.collect() };
        if !is_blessing() {
            for (case, made) in golden.cases.iter().zip(&made.cases) {
                assert_eq!(case, made, "{}: {}", dialect.name(), case.name);
            }
        }
        compare(&path, &(serde_json::to_string_pretty(&made).expect("a value") + "\n"));
        for route in dialect.routes() {
            let named = |case: &Case| case.path == format!("/{}{}", dialect.name(), route.path);
            assert!(golden.cases.iter().any(named), "{}: no case for {}", dialect.name(), route.path);
        }
    }
}

#[test]
fn failures_are_of_the_client_or_the_server_and_keep_secrets() {
    for dialect in DIALECTS {
        for kind in FailureKind::ALL {
            for field in [None, Some("documents")] {
                let mut failure = Failure::new(*kind, "the reason").inside("a secret");
                failure.field = field.map(Into::into);
                let rendered = dialect.failure(dialect.routes()[0].path, "11111111", &failure);
                let what = format!("{} {kind:?}", dialect.name());
                let by_server = matches!(
                    kind,
                    FailureKind::Overloaded
                        | FailureKind::Unavailable
                        | FailureKind::DeadlineExceeded
                        | FailureKind::Internal
                );
                let status = rendered.status;
                assert!(
                    status.is_client_error() || by_server && status.is_server_error(),
                    "{what}: {status}"
                );
                let body = String::from_utf8(rendered.body).expect("UTF-8");
                assert!(!body.contains("secret"), "{what}: {body}");
            }
        }
    }
}

#[test]
fn an_answer_can_be_streamed_only_where_the_vendor_does() {
    for dialect in DIALECTS.iter().filter(|dialect| dialect.name() != "jointly") {
        let request = RerankRequest::new(Items::Documents { query: "q".into(), documents: vec!["d".into()] });
        let coverage = Coverage { scored: 1, given: 1 };
        assert_eq!(dialect.progress(&Parsed::new(request, ()), &[], coverage), None, "{}", dialect.name());
    }
}

#[test]
fn names_and_own_paths_are_unique() {
    let mut seen = std::collections::BTreeSet::new();
    for dialect in DIALECTS {
        for route in dialect.routes() {
            let path = format!("/{}{}", dialect.name(), route.path);
            let (chosen, inner) =
                choose(route.method, &path, b"{}", &HeaderMap::new()).expect("its own path is served");
            assert_eq!((chosen.name(), inner), (dialect.name(), route.path));
            assert!(seen.insert((route.method.as_str(), path)), "{}: {}", dialect.name(), route.path);
        }
    }
    assert!(choose(&Method::GET, "/v1/rerank", b"", &HeaderMap::new()).is_none());
    assert!(choose(&Method::POST, "/cohere", b"", &HeaderMap::new()).is_none());
    assert!(choose(&Method::POST, "/nobody/v1/rerank", b"", &HeaderMap::new()).is_none());
}

/// The table in `docs/dialects.md` between two marks: path, header or body, dialect.
#[test]
fn bodies_on_shared_paths_go_where_the_documentation_says() {
    let docs = include_str!("../../../docs/dialects.md");
    let table = docs.split("<!-- decisions -->").nth(1).expect("the table is between two marks");
    let mut rows = 0;
    for row in table.lines().filter(|row| row.starts_with("| `/")) {
        let cells: Vec<&str> = row.split(" | ").map(|cell| cell.trim_matches(['|', ' ', '`'])).collect();
        let [path, evidence, name] = cells[..] else { panic!("{row}: not three cells") };
        let mut given = HeaderMap::new();
        let body = match evidence.split_once(": ") {
            Some((header, value)) if !evidence.starts_with('{') => {
                let header: HeaderName = header.parse().expect("a header's name");
                given.insert(header, HeaderValue::from_str(value).expect("a value"));
                r#"{"model":"m","query":"q","documents":["d"]}"#
            }
            _ => evidence,
        };
        serde_json::from_str::<Value>(body).unwrap_or_else(|error| panic!("{row}: {error}"));
        let (chosen, _) = choose(&Method::POST, path, body.as_bytes(), &given).expect("the path is served");
        assert_eq!(chosen.name(), name, "{row}");
        rows += 1;
    }
    assert!(rows >= 20, "{rows} rows");
}

#[test]
fn the_openapi_document_is_what_the_types_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    compare(&path, &jointly_server::dialect::openapi::generate());
    let document: Value = serde_json::from_slice(jointly_server::dialect::openapi::document()).expect("JSON");
    for dialect in DIALECTS {
        for route in dialect.routes() {
            let method = route.method.as_str().to_ascii_lowercase();
            for path in [route.path.to_string(), format!("/{}{}", dialect.name(), route.path)] {
                assert!(document["paths"][&path][&method].is_object(), "{method} {path} is not described");
            }
        }
    }
    let schemas = document["components"]["schemas"].as_object().expect("schemas");
    let mut references = Vec::new();
    collect(&document, &mut references);
    for reference in references {
        let name = reference.rsplit('/').next().expect("a name");
        assert!(schemas.contains_key(name), "{reference} is not there");
    }
}

fn collect<'v>(value: &'v Value, references: &mut Vec<&'v str>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(reference) if name == "$ref" => references.push(reference),
                    value => collect(value, references),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, references)),
        _ => {}
    }
}
