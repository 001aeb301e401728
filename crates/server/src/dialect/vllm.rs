//! vLLM. Source: its documentation and `vllm/entrypoints/pooling` as of 0.29.
//!
//! Documents are always returned, and what is longer than the model reads is refused unless `truncate_prompt_tokens` is set.

use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderMap, Method, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{self, AtLeast, Whole};
use super::openapi::{Described, Operation};
use super::wire::{self, TextDocument, TokenUsage};
use super::{Dialect, Parsed, Rendered, Route, Sign};
use crate::{Failure, FailureKind, Items, ModelCard, Overlong, RerankRequest, RerankResponse};

/// The dialect.
pub(super) struct Vllm;

const MODELS: &str = "/v1/models";

/// A body of `/rerank`.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = VllmRerankRequest)]
pub(super) struct Rerank {
    /// A model that is served; the default one if there is none.
    #[schema(min_length = 1)]
    model: Option<String>,
    /// What is asked.
    #[schema(value_type = super::openapi::NonBlank)]
    query: Content,
    /// Strings, or objects whose `content` is a list of texts. Images are not read.
    #[schema(min_items = 1, value_type = Vec<String>)]
    documents: Vec<Content>,
    /// How many of the best to return; all of them if 0.
    #[schema(value_type = Option<u64>, minimum = 0, default = 0)]
    top_n: Option<AtLeast<0>>,
    /// Longer documents are cut to so many tokens, if it is not 0.
    #[schema(value_type = Option<u64>, minimum = 0, default = 0)]
    max_tokens_per_doc: Option<AtLeast<0>>,
    /// What to look for, for models whose template takes an instruction.
    instruction: Option<String>,
    /// Longer pairs are cut to so many tokens; -1 is as many as the model reads. Without it they are refused.
    #[schema(value_type = Option<super::openapi::AllOrSome>)]
    truncate_prompt_tokens: Option<Whole>,
    /// Which side is cut.
    truncation_side: Option<Side>,
    /// Not supported: only 0.
    #[schema(value_type = Option<u64>, minimum = 0, maximum = 0, default = 0)]
    max_tokens_per_query: Option<AtLeast<0>>,
    /// The lower, the sooner; what lies outside 0 to 999 counts as the nearer of them.
    #[schema(value_type = Option<i64>, default = 0)]
    priority: Option<Whole>,
    /// Whether scores are between 0 and 1; if not, they are logits.
    #[schema(default = true)]
    use_activation: Option<bool>,
}

/// A body of `/score`.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = VllmScoreRequest)]
pub(super) struct Score {
    /// A model that is served; the default one if there is none.
    #[schema(min_length = 1)]
    model: Option<String>,
    /// A query, or as many as there are documents.
    #[schema(value_type = super::openapi::NonBlankOrMore)]
    #[serde(alias = "queries", alias = "data_1")]
    text_1: OneOrMore,
    /// Documents.
    #[schema(value_type = super::openapi::TextOrMore)]
    #[serde(alias = "documents", alias = "items", alias = "data_2")]
    text_2: OneOrMore,
    /// What to look for, for models whose template takes an instruction.
    instruction: Option<String>,
    /// Longer pairs are cut to so many tokens; -1 is as many as the model reads. Without it they are refused.
    #[schema(value_type = Option<super::openapi::AllOrSome>)]
    truncate_prompt_tokens: Option<Whole>,
    /// Which side is cut.
    truncation_side: Option<Side>,
    /// Not supported: only 0.
    #[schema(value_type = Option<u64>, minimum = 0, maximum = 0, default = 0)]
    max_tokens_per_query: Option<AtLeast<0>>,
    /// The lower, the sooner; what lies outside 0 to 999 counts as the nearer of them.
    #[schema(value_type = Option<i64>, default = 0)]
    priority: Option<Whole>,
    /// Whether scores are between 0 and 1; if not, they are logits.
    #[schema(default = true)]
    use_activation: Option<bool>,
}

/// A side of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[schema(as = VllmSide)]
#[serde(rename_all = "lowercase")]
enum Side {
    Left,
    Right,
}

/// A text, or several.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
enum OneOrMore {
    One(Content),
    More(Vec<Content>),
}

/// A text as a string, or as a list of parts that are texts.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected a string, or an object whose `content` is a list of texts")]
enum Content {
    Text(String),
    Parts { content: Vec<Part> },
}

#[derive(Debug, Clone, Deserialize)]
struct Part {
    text: String,
}

impl Content {
    fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Parts { content } => {
                content.into_iter().map(|part| part.text).collect::<Vec<_>>().join("\n")
            }
        }
    }
}

impl OneOrMore {
    fn texts(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text.text()],
            Self::More(texts) => texts.into_iter().map(Content::text).collect(),
        }
    }
}

/// The answer of `/rerank`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VllmRerankResponse)]
pub(super) struct RerankAnswer<'a> {
    id: String,
    model: &'a str,
    usage: TokenUsage,
    results: Vec<Hit<'a>>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VllmHit)]
struct Hit<'a> {
    index: usize,
    document: TextDocument<'a>,
    relevance_score: f32,
}

/// The answer of `/score`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VllmScoreResponse)]
pub(super) struct ScoreAnswer<'a> {
    id: String,
    object: &'static str,
    /// In seconds since 1970.
    created: u64,
    model: &'a str,
    data: Vec<ScoreData>,
    usage: ScoreUsage,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VllmScoreData)]
struct ScoreData {
    index: usize,
    object: &'static str,
    score: f32,
}

/// As in OpenAI's API, whose answers also count what is written.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VllmScoreUsage)]
struct ScoreUsage {
    prompt_tokens: usize,
    total_tokens: usize,
    completion_tokens: usize,
    #[schema(value_type = Option<Object>)]
    prompt_tokens_details: Option<()>,
}

/// The answer of [`MODELS`].
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VllmModels)]
pub(super) struct Models<'a> {
    object: &'static str,
    data: Vec<Model<'a>>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VllmModel)]
struct Model<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    root: &'a str,
    max_model_len: Option<usize>,
}

/// What is wrong.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VllmError)]
pub(super) struct ErrorBody<'a> {
    error: ErrorDetail<'a>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = VllmErrorDetail)]
struct ErrorDetail<'a> {
    message: &'a str,
    r#type: &'static str,
    param: Option<&'a str>,
    code: u16,
}

/// What the answer repeats of the question.
struct Asked {
    use_activation: bool,
}

/// What both kinds of body have.
struct Common {
    model: Option<String>,
    instruction: Option<String>,
    truncate_prompt_tokens: Option<Whole>,
    truncation_side: Option<Side>,
    max_tokens_per_query: Option<AtLeast<0>>,
    priority: Option<Whole>,
}

impl Common {
    fn request(self, items: Items) -> Result<RerankRequest, Failure> {
        let mut request = RerankRequest::new(items);
        request.model = self.model;
        request.instruction = self.instruction;
        request.overlong = match (self.truncate_prompt_tokens, self.truncation_side) {
            (None, _) => Overlong::Refuse,
            (Some(_), Some(Side::Left)) => Overlong::TruncateStart,
            (Some(_), _) => Overlong::TruncateEnd,
        };
        request.max_tokens_per_pair = match self.truncate_prompt_tokens {
            None | Some(Whole(-1)) => None,
            Some(Whole(tokens)) => {
                let tokens = usize::try_from(tokens).ok().filter(|tokens| *tokens > 0);
                Some(
                    tokens
                        .ok_or_else(|| body::invalid("truncate_prompt_tokens", "must be -1 or at least 1"))?,
                )
            }
        };
        if self.max_tokens_per_query.is_some_and(|tokens| tokens.0 > 0) {
            return Err(body::invalid("max_tokens_per_query", "is not supported: a query is read whole"));
        }
        request.priority = self.priority.map_or(0, |priority| priority.0.clamp(0, 999)) as u16;
        Ok(request)
    }
}

fn parse_rerank(bytes: &[u8]) -> Result<Parsed, Failure> {
    let body: Rerank = body::read(bytes)?;
    let query = body.query.text();
    body::check_query("query", &query)?;
    body::check_list("documents", &body.documents)?;
    let documents = body.documents.into_iter().map(Content::text).collect();
    let Rerank {
        model,
        instruction,
        truncate_prompt_tokens,
        truncation_side,
        max_tokens_per_query,
        priority,
        ..
    } = body;
    let common = Common {
        model,
        instruction,
        truncate_prompt_tokens,
        truncation_side,
        max_tokens_per_query,
        priority,
    };
    let mut request = common.request(Items::Documents { query, documents })?;
    request.top_n = body.top_n.map(|n| n.0).filter(|n| *n > 0);
    request.max_tokens_per_doc = body.max_tokens_per_doc.map(|n| n.0).filter(|n| *n > 0);
    Ok(Parsed::new(request, Asked { use_activation: body.use_activation.unwrap_or(true) }))
}

fn parse_score(bytes: &[u8]) -> Result<Parsed, Failure> {
    let body: Score = body::read(bytes)?;
    let (mut queries, documents) = (body.text_1.texts(), body.text_2.texts());
    body::check_list("text_1", &queries)?;
    body::check_list("text_2", &documents)?;
    for (index, query) in queries.iter().enumerate() {
        body::check_query(&format!("text_1[{index}]"), query)?;
    }
    let pairs = match (queries.len(), documents.len()) {
        (1, _) => {
            let query: Arc<str> = queries.pop().unwrap_or_default().into();
            documents.into_iter().map(|document| (Arc::clone(&query), document)).collect()
        }
        (left, right) if left == right => queries.into_iter().map(Arc::from).zip(documents).collect(),
        (left, right) => {
            let problem = format!("has {left} texts and `text_2` has {right}; it must have 1, or as many");
            return Err(body::invalid("text_1", problem));
        }
    };
    let Score {
        model,
        instruction,
        truncate_prompt_tokens,
        truncation_side,
        max_tokens_per_query,
        priority,
        ..
    } = body;
    let common = Common {
        model,
        instruction,
        truncate_prompt_tokens,
        truncation_side,
        max_tokens_per_query,
        priority,
    };
    let request = common.request(Items::Pairs(pairs))?;
    Ok(Parsed::new(request, Asked { use_activation: body.use_activation.unwrap_or(true) }))
}

fn is_score(path: &str) -> bool {
    path.ends_with("/score")
}

impl Dialect for Vllm {
    fn name(&self) -> &'static str {
        "vllm"
    }

    fn routes(&self) -> &'static [Route] {
        const {
            &[
                Route { method: &Method::POST, path: "/rerank" },
                Route { method: &Method::POST, path: "/v1/rerank" },
                Route { method: &Method::POST, path: "/v2/rerank" },
                Route { method: &Method::POST, path: "/score" },
                Route { method: &Method::POST, path: "/v1/score" },
                Route { method: &Method::GET, path: MODELS },
            ]
        }
    }

    fn signs(&self, _path: &str) -> &'static [Sign] {
        &[Sign::Fields(&[
            "truncate_prompt_tokens",
            "truncation_side",
            "max_tokens_per_query",
            "use_activation",
            "activation",
            "cache_salt",
            "mm_processor_kwargs",
            "chat_template_kwargs",
            "add_special_tokens",
            "request_id",
            "user",
        ])]
    }

    fn parse(&self, path: &str, body: &[u8], _headers: &HeaderMap) -> Result<Parsed, Failure> {
        if is_score(path) { parse_score(body) } else { parse_rerank(body) }
    }

    fn render(&self, path: &str, parsed: &Parsed, response: &RerankResponse) -> Rendered {
        let use_activation = parsed.echo::<Asked>().is_none_or(|asked| asked.use_activation);
        let score = |hit: &crate::Hit| {
            if use_activation { wire::unit(hit.scale, &hit.score) } else { hit.score.logit }
        };
        let tokens = response.usage.tokens;
        if is_score(path) {
            let data = |hit: &crate::Hit| ScoreData { index: hit.index, object: "score", score: score(hit) };
            let body = ScoreAnswer {
                id: format!("score-{}", response.id),
                object: "list",
                created: now(),
                model: &response.model,
                data: response.hits.iter().map(data).collect(),
                usage: ScoreUsage {
                    prompt_tokens: tokens,
                    total_tokens: tokens,
                    completion_tokens: 0,
                    prompt_tokens_details: None,
                },
            };
            return wire::json(StatusCode::OK, &body);
        }
        let hit = |hit: &crate::Hit| Hit {
            index: hit.index,
            document: TextDocument { text: parsed.text(hit.index) },
            relevance_score: score(hit),
        };
        let body = RerankAnswer {
            id: format!("rerank-{}", response.id),
            model: &response.model,
            usage: TokenUsage::new(tokens),
            results: response.hits.iter().map(hit).collect(),
        };
        wire::json(StatusCode::OK, &body)
    }

    fn describe(&self, path: &str, models: &[ModelCard]) -> Option<Rendered> {
        let model = |model: &ModelCard| {
            let max_model_len = model.loaded.as_ref().map(|loaded| loaded.max_length);
            let names = std::iter::once(&model.name).chain(&model.aliases).cloned();
            names.map(|name| (name, model.name.clone(), max_model_len)).collect::<Vec<_>>()
        };
        let names: Vec<_> = models.iter().flat_map(model).collect();
        let data = names.iter().map(|(id, root, max_model_len)| Model {
            id,
            object: "model",
            created: now(),
            owned_by: "jointly",
            root,
            max_model_len: *max_model_len,
        });
        (path == MODELS).then(|| wire::json(StatusCode::OK, &Models { object: "list", data: data.collect() }))
    }

    fn operations(&self) -> Vec<Operation> {
        let operation = |route: &Route| {
            let (summary, request, response) = match route.path {
                MODELS => ("The models", None, Described::of::<Models<'_>>()),
                path if is_score(path) => {
                    ("vLLM's score", Some(Described::of::<Score>()), Described::of::<ScoreAnswer<'_>>())
                }
                _ => ("vLLM's rerank", Some(Described::of::<Rerank>()), Described::of::<RerankAnswer<'_>>()),
            };
            let error = |_| Described::of::<ErrorBody<'_>>();
            Operation { route: *route, summary, request, response, error, required_header: None }
        };
        self.routes().iter().map(operation).collect()
    }

    fn failure(&self, _path: &str, _request_id: &str, failure: &Failure) -> Rendered {
        let is_list = failure.kind == FailureKind::TooLarge && failure.field.is_some();
        let status = if is_list { StatusCode::BAD_REQUEST } else { wire::status(failure.kind) };
        let kind = match status {
            StatusCode::UNAUTHORIZED => "AuthenticationError",
            StatusCode::FORBIDDEN => "PermissionDeniedError",
            StatusCode::NOT_FOUND => "NotFoundError",
            StatusCode::TOO_MANY_REQUESTS => "RateLimitError",
            StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailableError",
            status if status.is_server_error() => "InternalServerError",
            _ => "BadRequestError",
        };
        let param = failure.field.as_deref();
        let error = ErrorDetail { message: &failure.message, r#type: kind, param, code: status.as_u16() };
        wire::json(status, &ErrorBody { error })
    }
}

/// Seconds since 1970; 0 if the clock stands before it.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
