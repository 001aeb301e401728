//! Hostile bodies: whatever is done to a good body, the dialect answers in its own form, with a 4xx that names what is wrong,
//! and nothing panics. The good bodies are those of the golden files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jointly_server::dialect::{DIALECTS, Dialect, choose};
use jointly_server::{Failure, FailureKind};
use serde_json::{Value, json};

struct Good {
    dialect: &'static dyn Dialect,
    path: &'static str,
    headers: HeaderMap,
    body: Value,
}

/// The bodies that are answered with 200.
fn good() -> Vec<Good> {
    let mut good = Vec::new();
    for dialect in DIALECTS {
        let path = format!("{}/testdata/dialects/{}.json", env!("CARGO_MANIFEST_DIR"), dialect.name());
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let golden: Value = serde_json::from_str(&text).expect("JSON");
        for case in golden["cases"].as_array().expect("cases") {
            if case["answer"]["status"] != 200 || !case["body"].is_object() {
                continue;
            }
            let mut headers = HeaderMap::new();
            for (name, value) in case["headers"].as_object().into_iter().flatten() {
                let name: HeaderName = name.parse().expect("a header's name");
                headers.insert(name, HeaderValue::from_str(value.as_str().expect("text")).expect("a value"));
            }
            let own = case["path"].as_str().expect("a path");
            let (_, path) = choose(&Method::POST, own, b"{}", &headers).expect("the path is served");
            good.push(Good { dialect: *dialect, path, headers, body: case["body"].clone() });
        }
    }
    assert!(good.len() >= DIALECTS.len(), "{} bodies", good.len());
    good
}

impl Good {
    /// What is said of a body: nothing if it is read.
    fn refusal(&self, body: &[u8]) -> Option<Failure> {
        let failure = self.dialect.parse(self.path, body, &self.headers).err()?;
        let shown = || format!("{}: {}: {failure:?}", self.dialect.name(), String::from_utf8_lossy(body));
        let names_it = failure.field.as_ref().is_some_and(|field| !field.is_empty())
            || failure.message.starts_with("the body is not");
        assert!(names_it, "{}", shown());
        assert!(
            matches!(failure.kind, FailureKind::Malformed | FailureKind::Invalid | FailureKind::TooLarge),
            "{}",
            shown()
        );
        let rendered = self.dialect.failure(self.path, "11111111", &failure);
        assert!(matches!(rendered.status.as_u16(), 400 | 413 | 422), "{}: {}", shown(), rendered.status);
        let answer: Value = serde_json::from_slice(&rendered.body).expect("JSON");
        let said = answer.to_string();
        let message = serde_json::to_string(&failure.message).expect("a string");
        assert!(said.contains(message.trim_matches('"')), "{}: {said}", shown());
        Some(failure)
    }

    fn refused(&self, body: &[u8]) -> Failure {
        self.refusal(body).unwrap_or_else(|| {
            panic!("{} {} reads {}", self.dialect.name(), self.path, String::from_utf8_lossy(body))
        })
    }

    /// Whether the dialect reads this field: whoever does takes no such value.
    fn knows(&self, field: &str) -> bool {
        self.refusal(&self.with(field, "[[[{}]]]")).is_some()
    }

    fn fields(&self) -> Vec<String> {
        self.body.as_object().expect("an object").keys().cloned().collect()
    }

    /// The body with this text in place of a field's value.
    fn with(&self, field: &str, text: &str) -> Vec<u8> {
        let mark = "\u{1}mark";
        let mut body = self.body.clone();
        body[field] = json!(mark);
        let mark = serde_json::to_string(mark).expect("a string");
        serde_json::to_string(&body).expect("a value").replace(&mark, text).into_bytes()
    }
}

#[test]
fn whatever_a_field_holds_is_read_or_refused() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let wide = format!("[{}1]", "1,".repeat(10_000));
    for good in good() {
        assert_eq!(good.refusal(&serde_json::to_vec(&good.body).expect("a value")), None);
        for field in good.fields().iter().map(String::as_str).chain(["an_unknown_field"]) {
            for text in [
                "null",
                "true",
                "-1",
                "0",
                "1",
                "1.5",
                "1e308",
                "-1e308",
                "18446744073709551616",
                "\"\"",
                "\" \"",
                "\"\\u0000\"",
                "\"a\"",
                "[]",
                "[null]",
                "[\"\"]",
                "[[]]",
                "[1e308]",
                "[{}]",
                "{}",
                "{\"text\":null}",
                "{\"text\":1}",
                "[{\"text\":[]}]",
                &wide,
            ] {
                let _ = good.refusal(&good.with(field, text));
            }
            // Of fields that nobody reads, too: what is no JSON is no JSON.
            for text in ["\"\u{1}\"", "\"\\x\"", "nul", "01", "[1,]", "{\"a\"}", "\"\n\"", ""] {
                good.refused(&good.with(field, text));
            }
            if good.refusal(&good.with(field, &deep)).is_none() {
                assert!(!good.knows(field), "{field} is {deep}");
            }
        }
    }
}

#[test]
fn a_field_given_twice_is_refused_by_name() {
    for good in good() {
        let body = serde_json::to_string(&good.body).expect("a value");
        for field in good.fields() {
            let twice = format!("{{{}:{},{}", json!(field), good.body[&field], &body[1..]);
            let failure = good.refusal(twice.as_bytes());
            match failure {
                // By its own name, or by the one that it is another name for.
                Some(failure) => assert!(
                    failure.message.contains(&format!("`{field}`"))
                        || ["queries", "items", "documents"].contains(&field.as_str())
                            && failure.message.contains("duplicate field `text_"),
                    "{field}: {failure:?}"
                ),
                // Fields that the dialect does not know may come as often as they like.
                None => assert!(!good.knows(&field), "{field}"),
            }
        }
    }
}

#[test]
fn a_body_cut_anywhere_is_refused() {
    for good in good() {
        let body = serde_json::to_vec(&good.body).expect("a value");
        for end in 0..body.len() {
            let failure = good.refused(&body[..end]);
            assert_eq!(failure.kind, FailureKind::Malformed);
        }
        good.refused(&[&body[..], b"}"].concat());
        for shape in ["[]", "[1,2]", "\"text\"", "3", "null", "true", "{}"] {
            good.refused(shape.as_bytes());
        }
    }
}

#[test]
fn texts_that_are_not_unicode_are_refused() {
    for good in good() {
        let body = serde_json::to_vec(&good.body).expect("a value");
        let mut in_texts = 0;
        for place in 0..body.len() {
            let bytes = [&body[..place], b"\xff", &body[place..]].concat();
            let failure = good.refusal(&bytes).expect("it is refused");
            in_texts += usize::from(failure.message.contains("UTF-8"));
        }
        assert!(in_texts > 0);
        // In the texts that are read; half of a pair of surrogates is no character.
        let text = String::from_utf8(body).expect("UTF-8");
        for half in ["\\ud800", "\\udc00", "\\ud800\\u0041"] {
            assert!(text.contains("What"), "{text}");
            good.refused(text.replacen("What", &format!("What{half}"), 1).as_bytes());
        }
    }
}

#[test]
fn nothing_to_ask_or_to_rank_is_refused() {
    for good in good() {
        let by_name = |names: &[&str]| {
            good.fields()
                .into_iter()
                .find(|field| names.contains(&field.as_str()))
                .expect("one of the fields")
        };
        if good.path == "/predict" {
            for inputs in [
                "[]",
                "[\"\", \"d\"]",
                "[[\" \", \"d\"]]",
                "[\"q\"]",
                "\"q\"",
                "[[\"q\"]]",
                "[[\"q\",\"d\",\"e\"]]",
            ] {
                good.refused(&good.with("inputs", inputs));
            }
            continue;
        }
        let query = by_name(&["query", "text_1", "queries"]);
        // The pairs of vLLM have two names for each side; failures say the first.
        let (shown_query, side) = match query.as_str() {
            "queries" => ("text_1", Some("text_2")),
            other => (other, None),
        };
        for blank in ["", " ", "\\n\\t ", "\\u2003", "\\u001c"] {
            let text = if good.body["query"].is_object() {
                format!("{{\"text\":\"{blank}\"}}")
            } else {
                format!("\"{blank}\"")
            };
            let failure = good.refused(&good.with(&query, &text));
            assert!(
                failure.field.as_ref().is_some_and(|field| field.starts_with(shown_query)),
                "{failure:?}"
            );
        }
        let documents = by_name(&["documents", "texts", "passages", "input", "text_2"]);
        let failure = good.refused(&good.with(&documents, "[]"));
        let name = side.unwrap_or(documents.as_str());
        assert!(failure.message.contains(name), "{failure:?}");
        // The index is named.
        let failure = good.refused(&good.with(&documents, "[3]"));
        let names = |field: &String| field.starts_with(name) || field.starts_with(&documents);
        assert!(failure.field.as_ref().is_some_and(names), "{failure:?}");
        for limit in ["top_n", "top_k"] {
            if good.body.get(limit).is_none() || !good.knows(limit) {
                continue;
            }
            for wrong in ["-1", "1.5", "\"3\"", "-1e308", "[1]"] {
                let failure = good.refused(&good.with(limit, wrong));
                assert_eq!(failure.field.as_deref(), Some(limit), "{failure:?}");
            }
            assert_eq!(good.refusal(&good.with(limit, "1000000")), None);
        }
    }
}
