//! Reading bodies: what the dialects have in common.

use std::fmt;

use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::{Failure, FailureKind};

/// Reads a JSON body.
///
/// # Errors
/// [`FailureKind::Malformed`], with the field if there is JSON but not of the right shape.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    // All of it, also what no field reads: the parser does not look into that.
    let text = std::str::from_utf8(body).map_err(|error| {
        let message = format!("the body is not UTF-8: byte {}", error.valid_up_to());
        Failure::new(FailureKind::Malformed, message)
    })?;
    // A list of values in the order of a type's fields would be read too.
    let is_object = text.trim_start().starts_with('{');
    let no_object =
        || Failure::new(FailureKind::Malformed, "`body`: expected an object".to_string()).field("body");
    let error = match serde_json::from_str(text) {
        Ok(value) if is_object => return Ok(value),
        Ok(_) => return Err(no_object()),
        Err(error) if !is_object && error.classify() == Category::Data => return Err(no_object()),
        Err(error) => error,
    };
    // Read again to learn where the fault is: keeping track of that costs time that a good body need not pay.
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let path = match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
        Ok(_) => String::new(),
        Err(error) => error.path().to_string(),
    };
    let message = error.to_string();
    let path = match path.as_str() {
        "" | "." => message.split('`').nth(1).filter(|_| message.contains(" field `")).unwrap_or_default(),
        path => path,
    };
    let of_path = if path.is_empty() { String::new() } else { format!("`{path}`: ") };
    let failure = match error.classify() {
        Category::Data => Failure::new(FailureKind::Malformed, format!("{of_path}{message}")),
        _ => {
            return Err(Failure::new(
                FailureKind::Malformed,
                format!("the body is not JSON: {of_path}{message}"),
            ));
        }
    };
    // Of an array or a number in place of an object, the body itself is the field.
    Err(failure.field(if path.is_empty() { "body" } else { path }))
}

/// A value that is of the right type and cannot be honoured: `` `field` problem ``.
pub(super) fn invalid(field: impl Into<String>, problem: impl fmt::Display) -> Failure {
    let field = field.into();
    Failure::new(FailureKind::Invalid, format!("`{field}` {problem}")).field(field)
}

/// Whether there is nothing to read: no character, or only white space, as Python's `\s` has it, which is what the patterns of
/// the OpenAPI document are tested with.
pub(super) fn is_blank(text: &str) -> bool {
    text.chars().all(|c| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c))
}

/// Refuses a query with nothing in it.
///
/// # Errors
/// [`FailureKind::Invalid`].
pub(super) fn check_query(field: &str, query: &str) -> Result<(), Failure> {
    if is_blank(query) { Err(invalid(field, "must not be empty or only white space")) } else { Ok(()) }
}

/// Refuses an empty list.
///
/// # Errors
/// [`FailureKind::Invalid`].
pub(super) fn check_list<T>(field: &str, list: &[T]) -> Result<(), Failure> {
    if list.is_empty() { Err(invalid(field, "must not be an empty list")) } else { Ok(()) }
}

/// The least number that is too large.
const BEYOND: f64 = (1_u64 << 63) as f64;
const TOO_LARGE: &str = "an integer below 2^63";

/// An integer of at least `MIN` that fits 64 bits with a sign, also if it is written as `3.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AtLeast<const MIN: u64>(pub(super) usize);

impl<'de, const MIN: u64> Deserialize<'de> for AtLeast<MIN> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Integer<const MIN: u64>;
        impl<const MIN: u64> Visitor<'_> for Integer<MIN> {
            type Value = u64;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "an integer of at least {MIN}")
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<u64, E> {
                let unexpected = serde::de::Unexpected::Unsigned(value);
                match value {
                    _ if value < MIN => Err(E::invalid_value(unexpected, &self)),
                    _ if value > i64::MAX as u64 => Err(E::invalid_value(unexpected, &TOO_LARGE)),
                    _ => Ok(value),
                }
            }

            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<u64, E> {
                let unexpected = serde::de::Unexpected::Float(value);
                if value.fract() != 0.0 || value < 0.0 {
                    return Err(E::invalid_value(unexpected, &self));
                }
                if value >= BEYOND {
                    return Err(E::invalid_value(unexpected, &TOO_LARGE));
                }
                self.visit_u64(value as u64)
            }
        }
        let value = deserializer.deserialize_any(Integer::<MIN>)?;
        Ok(Self(usize::try_from(value).unwrap_or(usize::MAX)))
    }
}

/// An integer that fits 64 bits with a sign, also if it is written as `3.0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Whole(pub(super) i64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Integer;
        impl Visitor<'_> for Integer {
            type Value = i64;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an integer")
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<i64, E> {
                Ok(value)
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<i64, E> {
                let unexpected = serde::de::Unexpected::Unsigned(value);
                i64::try_from(value).map_err(|_| E::invalid_value(unexpected, &TOO_LARGE))
            }

            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<i64, E> {
                let unexpected = serde::de::Unexpected::Float(value);
                match value.fract() == 0.0 {
                    _ if value.abs() >= BEYOND => Err(E::invalid_value(unexpected, &TOO_LARGE)),
                    true => Ok(value as i64),
                    false => Err(E::invalid_type(unexpected, &self)),
                }
            }
        }
        deserializer.deserialize_any(Integer).map(Self)
    }
}

/// A document as a string or as an object with fields.
#[derive(Debug, Clone)]
pub(super) enum Document {
    /// The text.
    Text(String),
    /// Fields in their order, and the object as it was written.
    Object(Vec<(String, Value)>, Box<RawValue>),
}

impl Document {
    /// The text that is ranked: of an object, the values of `fields` in that order, each on lines of its own.
    ///
    /// # Errors
    /// [`FailureKind::Invalid`] naming `place` (`documents[3]`) if an object has none of the fields, or a `text` that is none.
    pub(super) fn text(&self, place: &str, fields: &[String]) -> Result<String, Failure> {
        let object = match self {
            Self::Text(text) => return Ok(text.clone()),
            Self::Object(object, _) => object,
        };
        let value = |name: &str| object.iter().find(|(field, _)| field == name).map(|(_, value)| value);
        // Other fields may be anything; of this one the vendors say that it is a string.
        if value("text").is_some_and(|text| !text.is_string()) {
            return Err(invalid(format!("{place}.text"), "must be a string"));
        }
        let texts: Vec<String> = fields
            .iter()
            .filter_map(|name| value(name))
            .filter_map(|value| match value {
                Value::Null => None,
                Value::String(text) => Some(text.clone()),
                other => Some(other.to_string()),
            })
            .collect();
        if texts.is_empty() {
            return Err(invalid(
                place,
                format!("has none of the fields that are ranked: {}", fields.join(", ")),
            ));
        }
        Ok(texts.join("\n"))
    }
}

/// Fields that a client may have ranked.
const MOST_FIELDS: usize = 100;

/// The fields of a document that are ranked: those asked for, each once, or `text`.
///
/// # Errors
/// [`FailureKind::Invalid`] if there are more than anybody has: each is looked for in each document.
pub(super) fn rank_fields(asked: Option<Vec<String>>) -> Result<Vec<String>, Failure> {
    let mut fields: Vec<String> = Vec::new();
    for field in asked.unwrap_or_default() {
        if fields.len() == MOST_FIELDS {
            return Err(invalid("rank_fields", format!("has more than {MOST_FIELDS} fields")));
        }
        if !fields.contains(&field) {
            fields.push(field);
        }
    }
    if fields.is_empty() {
        fields.push("text".into());
    }
    Ok(fields)
}

/// The texts that are ranked, of documents in the field of this name.
///
/// # Errors
/// As [`Document::text`].
pub(super) fn texts(field: &str, documents: &[Document], fields: &[String]) -> Result<Vec<String>, Failure> {
    let text = |(index, document): (usize, &Document)| document.text(&format!("{field}[{index}]"), fields);
    documents.iter().enumerate().map(text).collect()
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        // The position within the document would be taken for one within the body.
        let plain = |error: serde_json::Error| {
            let message = error.to_string();
            D::Error::custom(message.split(" at line ").next().unwrap_or_default())
        };
        match raw.get().as_bytes().first() {
            Some(b'"') => Ok(Self::Text(serde_json::from_str(raw.get()).map_err(plain)?)),
            Some(b'{') => {
                let Fields(fields) = serde_json::from_str(raw.get()).map_err(plain)?;
                Ok(Self::Object(fields, raw))
            }
            _ => Err(D::Error::custom("expected a string or an object")),
        }
    }
}

/// An object whose fields keep their order and have different names.
struct Fields(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Vec<(String, Value)>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                let mut names = std::collections::HashSet::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if !names.insert(name.clone()) {
                        return Err(A::Error::custom(format!("duplicate field `{name}`")));
                    }
                    fields.push((name, value));
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Object).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Body {
        #[allow(dead_code)]
        query: String,
        #[serde(default)]
        #[allow(dead_code)]
        documents: Vec<Document>,
        top_n: Option<AtLeast<1>>,
    }

    fn failure(body: &str) -> Failure {
        read::<Body>(body.as_bytes()).expect_err("it is refused")
    }

    #[test]
    fn failures_name_the_field() {
        for (body, field, message) in [
            (r#"{}"#, "query", "`query`: missing field `query`"),
            (r#"{"query":3}"#, "query", "`query`: invalid type: integer `3`, expected a string"),
            (r#"{"query":"a","query":"b"}"#, "query", "`query`: duplicate field `query`"),
            (r#"{"query":"a","documents":["a",3]}"#, "documents[1]", "expected a string or an object"),
            (r#"{"query":"a","documents":[{"a":1,"a":2}]}"#, "documents[0]", "duplicate field `a`"),
            (r#"{"query":"a","documents":["\ud800"]}"#, "documents[0]", "hex escape"),
            (r#"{"query":"a","documents":[{"a":"\ud800"}]}"#, "documents[0]", "hex escape"),
            (r#"{"query":"a","top_n":-1}"#, "top_n", "expected an integer of at least 1"),
            (r#"{"query":"a","top_n":0}"#, "top_n", "expected an integer of at least 1"),
            (r#"{"query":"a","top_n":1.5}"#, "top_n", "floating point `1.5`"),
            ("[1]", "body", "expected an object"),
        ] {
            let failure = failure(body);
            assert_eq!(failure.field.as_deref(), Some(field), "{body}: {failure}");
            assert!(failure.message.contains(message), "{body}: {failure}");
        }
    }

    #[test]
    fn what_is_no_json_names_no_field() {
        let deep = format!(r#"{{"query":"a","documents":[{}"#, "[".repeat(100_000));
        for body in ["", "{", "nul", r#"{"query":"\ud800"}"#, r#"{"query":"a","top_n":1e999}"#, deep.as_str()]
        {
            let failure = failure(body);
            assert_eq!((failure.kind, failure.field.as_ref()), (FailureKind::Malformed, None), "{failure}");
            assert!(failure.message.starts_with("the body is not JSON: "), "{failure}");
        }
        let failure = read::<Body>(b"{\"query\":\"\xff\"}").expect_err("it is refused");
        assert_eq!(failure.message, "the body is not UTF-8: byte 10");
    }

    #[test]
    fn numbers_that_no_count_can_be_are_refused() {
        let read = |number| read::<Body>(format!(r#"{{"query":"a","top_n":{number}}}"#).as_bytes());
        for (number, read_as) in [("3.0", 3), ("9223372036854775807", i64::MAX as usize)] {
            assert_eq!(read(number).expect("it is read").top_n, Some(AtLeast(read_as)));
        }
        for number in ["1e308", "9223372036854775808", "9223372036854775808.0", "18446744073709551616"] {
            let failure = read(number).expect_err("it is refused");
            assert!(
                failure.message.contains("expected an integer below 2^63"),
                "{number}: {}",
                failure.message
            );
            assert_eq!(failure.field.as_deref(), Some("top_n"));
        }
    }

    #[test]
    fn integers_are_integers_however_they_are_written() {
        let numbers = [("141.0", 141), ("-1", -1), ("-1e0", -1), ("9223372036854775807", i64::MAX)];
        for (number, read_as) in numbers {
            assert_eq!(
                serde_json::from_str::<Whole>(number).expect("it is read"),
                Whole(read_as),
                "{number}"
            );
        }
        for number in ["1e308", "-1e308", "9223372036854775808", "18446744073709551616"] {
            let error = serde_json::from_str::<Whole>(number).expect_err("it is refused").to_string();
            assert!(error.contains("expected an integer below 2^63"), "{number}: {error}");
        }
        for number in ["1.5", "\"1\"", "true", "null"] {
            let error = serde_json::from_str::<Whole>(number).expect_err("it is refused").to_string();
            assert!(error.contains("expected an integer"), "{number}: {error}");
        }
    }

    #[test]
    fn a_field_is_ranked_once_however_often_it_is_named() {
        let asked = |names: &[&str]| rank_fields(Some(names.iter().map(ToString::to_string).collect()));
        assert_eq!(rank_fields(None).as_deref(), Ok(&["text".to_string()][..]));
        assert_eq!(asked(&[]).as_deref(), Ok(&["text".to_string()][..]));
        assert_eq!(
            asked(&["b", "a", "b"].repeat(1000)).as_deref(),
            Ok(&["b".to_string(), "a".to_string()][..])
        );
        let many = rank_fields(Some((0..101).map(|i| i.to_string()).collect())).expect_err("too many");
        assert_eq!((many.kind, many.field.as_deref()), (FailureKind::Invalid, Some("rank_fields")));
    }

    #[test]
    fn fields_are_ranked_in_the_order_asked_for() {
        let document: Document =
            serde_json::from_str(r#"{"text":"t","title":"T","n":1.50,"no":null,"in":{"b":1}}"#)
                .expect("an object");
        let fields = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let text = |names: &[&str]| document.text("documents[0]", &fields(names));
        assert_eq!(text(&["title", "text"]).as_deref(), Ok("T\nt"));
        assert_eq!(text(&["missing", "n", "no"]).as_deref(), Ok("1.5"));
        assert_eq!(text(&["in"]).as_deref(), Ok(r#"{"b":1}"#));
        assert_eq!(text(&["no"]).expect_err("nothing is left").field.as_deref(), Some("documents[0]"));
        let document: Document = serde_json::from_str(r#"{"text":{},"title":"T"}"#).expect("an object");
        let failure = document.text("documents[0]", &fields(&["title"])).expect_err("it is no text");
        assert_eq!(failure.field.as_deref(), Some("documents[0].text"));
    }
}
