//! The OpenAPI document of all dialects, served as `/openapi.json`. It is made from the types that bodies are read into and
//! written from; a test compares it with `openapi.json`, which is what is served.

use std::collections::{BTreeMap, BTreeSet};

use http::StatusCode;
use serde_json::{Map, Value, json};
use utoipa::openapi::schema::{ArrayBuilder, ArrayItems, Object, ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::{DIALECTS, Dialect, Route};
use crate::{Failure, FailureKind};

/// The document.
#[must_use]
pub fn document() -> &'static [u8] {
    include_bytes!("../../openapi.json")
}

/// What the document says of a route of a dialect.
pub struct Operation {
    /// The route.
    pub route: Route,
    /// A line for people.
    pub summary: &'static str,
    /// The body, of routes that have one.
    pub request: Option<Described>,
    /// The answer.
    pub response: Described,
    /// What failures with a status look like.
    pub error: fn(StatusCode) -> Described,
    /// A header that every request has, by its name.
    pub required_header: Option<&'static str>,
}

/// A type's schema, with those that it refers to.
#[derive(Clone)]
pub struct Described {
    schema: Value,
    components: BTreeMap<String, Value>,
    may_be_events: bool,
}

impl Described {
    /// The schema of a type.
    #[must_use]
    pub fn of<T: ToSchema>() -> Self {
        let mut nested = vec![(T::name().into_owned(), T::schema())];
        T::schemas(&mut nested);
        let components = nested.into_iter().map(|(name, schema)| (name, value(&schema))).collect();
        let schema = json!({"$ref": format!("#/components/schemas/{}", T::name())});
        Self { schema, components, may_be_events: false }
    }

    /// As an answer, it may also come as server-sent events.
    #[must_use]
    pub fn or_events(self) -> Self {
        Self { may_be_events: true, ..self }
    }

    /// A list of a type.
    #[must_use]
    pub fn list_of<T: ToSchema>() -> Self {
        let one = Self::of::<T>();
        Self { schema: json!({"type": "array", "items": one.schema}), ..one }
    }
}

/// Makes the document.
#[must_use]
pub fn generate() -> String {
    let mut paths = Map::new();
    let mut components = BTreeMap::new();
    let operations: Vec<(&dyn Dialect, Operation)> = DIALECTS
        .iter()
        .flat_map(|dialect| dialect.operations().into_iter().map(move |operation| (*dialect, operation)))
        .collect();
    for (dialect, operation) in &operations {
        for described in parts(*dialect, operation) {
            components.extend(described.components);
        }
        let path = format!("/{}{}", dialect.name(), operation.route.path);
        insert(&mut paths, &path, operation.route, one(*dialect, operation));
    }
    let routes: BTreeSet<(&str, &str)> = operations
        .iter()
        .map(|(_, operation)| (operation.route.path, operation.route.method.as_str()))
        .collect();
    for (path, method) in routes {
        let here: Vec<_> = operations
            .iter()
            .filter(|(_, operation)| operation.route.path == path && operation.route.method == method)
            .collect();
        if let Some((_, operation)) = here.first() {
            insert(&mut paths, path, operation.route, shared(&here));
        }
    }
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Jointly",
            "description": "Reranking in the dialects of many vendors. Every dialect has a prefix of its own; where several of \
                them share a path, the fields of the body decide (docs/dialects.md).",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "version": env!("CARGO_PKG_VERSION"),
        },
        "security": [{}, {"bearer": []}, {"api-key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "api-key": {"type": "apiKey", "in": "header", "name": "Api-Key"},
            },
            "schemas": components,
        },
    });
    // Of a value there is nothing that cannot be written.
    serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
}

/// All schemas of an operation.
fn parts(dialect: &dyn Dialect, operation: &Operation) -> Vec<Described> {
    let errors = statuses(dialect, operation.route).into_keys().map(operation.error);
    errors.chain(operation.request.clone()).chain([operation.response.clone()]).collect()
}

/// The statuses that failures of a route can have, and whether they have a body.
fn statuses(dialect: &dyn Dialect, route: Route) -> BTreeMap<StatusCode, bool> {
    let kinds = FailureKind::ALL
        .iter()
        .filter(|kind| !matches!(kind, FailureKind::NotFound | FailureKind::MethodNotAllowed));
    kinds
        .flat_map(|kind| [Failure::new(*kind, "why"), Failure::new(*kind, "why").field("field")])
        .map(|failure| {
            let rendered = dialect.failure(route.path, "id", &failure);
            (rendered.status, !rendered.body.is_empty())
        })
        .collect()
}

fn reason(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Failure")
}

fn content(schema: Value) -> Value {
    json!({"application/json": {"schema": schema}})
}

/// What is said of an answer.
fn ok(schema: Value, may_be_events: bool) -> Value {
    let mut content = content(schema);
    if may_be_events {
        let text = json!({"type": "string"});
        content["text/event-stream"] = json!({"schema": {
            "type": "object", "properties": {"event": text, "data": text}, "required": ["event", "data"],
        }});
    }
    json!({"description": "OK", "content": content})
}

/// What is said of the route of one dialect.
fn one(dialect: &dyn Dialect, operation: &Operation) -> Value {
    let mut responses = Map::new();
    responses.insert("200".into(), ok(operation.response.schema.clone(), operation.response.may_be_events));
    for (status, has_body) in statuses(dialect, operation.route) {
        let mut response = json!({"description": reason(status)});
        if has_body {
            response["content"] = content((operation.error)(status).schema);
        }
        responses.insert(status.as_str().into(), response);
    }
    let mut value = json!({"tags": [dialect.name()], "summary": operation.summary, "responses": responses});
    if let Some(request) = &operation.request {
        value["requestBody"] = json!({"required": true, "content": content(request.schema.clone())});
    }
    if let Some(name) = operation.required_header {
        let schema = json!({"type": "string", "pattern": "[!-~]"});
        value["parameters"] = json!([{"name": name, "in": "header", "required": true, "schema": schema}]);
    }
    value
}

/// What is said of a route without a prefix, of all dialects that have it.
fn shared(here: &[&(&dyn Dialect, Operation)]) -> Value {
    if let [(dialect, operation)] = here {
        return one(*dialect, operation);
    }
    let names: Vec<_> = here.iter().map(|(dialect, _)| dialect.name()).collect();
    let any = |schemas: Vec<Value>| {
        let mut different: Vec<Value> = Vec::new();
        for schema in schemas {
            if !different.contains(&schema) {
                different.push(schema);
            }
        }
        if different.len() == 1 { different.swap_remove(0) } else { json!({"anyOf": different}) }
    };
    let mut errors: BTreeMap<StatusCode, Vec<Value>> = BTreeMap::new();
    let mut without_body = BTreeSet::new();
    for (dialect, operation) in here {
        for (status, has_body) in statuses(*dialect, operation.route) {
            errors.entry(status).or_default().push((operation.error)(status).schema);
            if !has_body {
                without_body.insert(status);
            }
        }
    }
    let answers = any(here.iter().map(|(_, operation)| operation.response.schema.clone()).collect());
    let mut responses = Map::new();
    let may_be_events = here.iter().any(|(_, operation)| operation.response.may_be_events);
    responses.insert("200".into(), ok(answers, may_be_events));
    for (status, schemas) in errors {
        let mut response = json!({"description": reason(status)});
        if !without_body.contains(&status) {
            response["content"] = content(any(schemas));
        }
        responses.insert(status.as_str().into(), response);
    }
    let requests = requests(here);
    let summary = format!("As one of {}: the fields decide", names.join(", "));
    let mut value = json!({"tags": ["shared"], "summary": summary, "responses": responses});
    if !requests.is_empty() {
        value["requestBody"] = json!({"required": true, "content": content(any(requests))});
    }
    value
}

/// The bodies that a shared route takes: of each dialect those that have a sign of it and of none that is asked before it; of
/// the last one whatever is left. A dialect that only a header speaks for is described under its prefix alone.
fn requests(here: &[&(&dyn Dialect, Operation)]) -> Vec<Value> {
    let mut requests = Vec::new();
    let mut before: Vec<Value> = Vec::new();
    for (place, (dialect, operation)) in here.iter().enumerate() {
        let Some(request) = &operation.request else { continue };
        let signs: Vec<Value> =
            dialect.signs(operation.route.path).iter().flat_map(|sign| sign.schemas()).collect();
        let is_last = place + 1 == here.len();
        if signs.is_empty() && !is_last {
            continue;
        }
        let mut all = vec![request.schema.clone()];
        if !is_last {
            all.push(json!({"anyOf": signs}));
        }
        if !before.is_empty() {
            all.push(json!({"not": {"anyOf": before}}));
        }
        before.extend(signs);
        requests.push(json!({"allOf": all}));
    }
    requests
}

fn insert(paths: &mut Map<String, Value>, path: &str, route: Route, operation: Value) {
    let item = paths.entry(path).or_insert_with(|| json!({}));
    item[route.method.as_str().to_ascii_lowercase()] = operation;
}

fn value(schema: &RefOr<Schema>) -> Value {
    serde_json::to_value(schema).unwrap_or_default()
}

// --- schemas of what utoipa cannot derive ----------------------------------------------------------------------------

fn text(pattern: Option<&str>) -> Object {
    ObjectBuilder::new().schema_type(Type::String).pattern(pattern).build()
}

fn with_text(pattern: Option<&str>) -> Object {
    ObjectBuilder::new().property("text", text(pattern)).required("text").build()
}

fn integer(least: i64, most: Option<i64>) -> Object {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(least)).maximum(most).build()
}

fn stage() -> Object {
    let of = |kind| ObjectBuilder::new().schema_type(kind).build();
    let text = || of(Type::String);
    let mut stage = ObjectBuilder::new()
        .property("name", text())
        .property("ms", of(Type::Number))
        .property("usd", of(Type::Number))
        .property("stop", text())
        .property("guarantee", text())
        .property("notes", ArrayBuilder::new().items(text()).build())
        .required("name")
        .required("ms");
    for name in ["incoming", "read", "kept", "pairs", "tokens"] {
        stage = stage.property(name, integer(0, None)).required(name);
    }
    stage.build()
}

fn pair() -> ArrayBuilder {
    let any = ObjectBuilder::new().schema_type(Type::String);
    ArrayBuilder::new()
        .prefix_items([Schema::from(text(NON_BLANK)), Schema::from(any.build())])
        .items(ArrayItems::False)
        .min_items(Some(2))
        .max_items(Some(2))
}

const NON_BLANK: Option<&str> = Some(r"\S");

/// Gives a type without values a schema.
macro_rules! schemas {
    ($($(#[$doc:meta])* $name:ident = $schema:expr;)*) => {$(
        $(#[$doc])*
        pub(super) enum $name {}

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                RefOr::T(Schema::from($schema))
            }
        }

        impl ToSchema for $name {}
    )*};
}

schemas! {
    /// A string with something in it.
    NonBlank = text(NON_BLANK);
    /// A string, or an object with `text`.
    TextOrObject = OneOfBuilder::new().item(text(None)).item(with_text(None)).build();
    /// The same, with something in it.
    NonBlankOrObject = OneOfBuilder::new().item(text(NON_BLANK)).item(with_text(NON_BLANK)).build();
    /// An object with `text`.
    ObjectWithText = with_text(None);
    /// The same, with something in it.
    ObjectWithNonBlank = with_text(NON_BLANK);
    /// A string, or a list of them.
    TextOrMore = OneOfBuilder::new().item(text(None)).item(ArrayBuilder::new().items(text(None)).min_items(Some(1))).build();
    /// The same, with something in each.
    NonBlankOrMore =
        OneOfBuilder::new().item(text(NON_BLANK)).item(ArrayBuilder::new().items(text(NON_BLANK)).min_items(Some(1))).build();
    /// What a stage of a cascade did.
    Stage = stage();
    /// -1 for as many as there are, or how many.
    AllOrSome = OneOfBuilder::new().item(integer(-1, Some(-1))).item(integer(1, None)).build();
    /// A query and a document, or a list of such.
    Pairs = OneOfBuilder::new().item(pair()).item(ArrayBuilder::new().items(pair()).min_items(Some(1))).build();
}
