//! What a body looks like from outside: enough to tell whose it is, without keeping its texts.

use std::fmt;

use serde::Deserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};

/// The names of a body's fields, and the model it names. Of a body that is no JSON, what comes before the fault.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outline {
    fields: Vec<String>,
    model: Option<String>,
}

impl Outline {
    /// Reads as far as it can.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        let mut outline = Self::default();
        let mut deserializer = serde_json::Deserializer::from_slice(body);
        // Whoever reads the body says what is wrong with it.
        let _ = deserializer.deserialize_map(&mut outline);
        outline
    }

    /// Whether the body has this field, of whatever value.
    #[must_use]
    pub fn has(&self, field: &str) -> bool {
        self.fields.iter().any(|name| name == field)
    }

    /// Whether the body has one of these fields.
    #[must_use]
    pub fn has_any(&self, fields: &[&str]) -> bool {
        fields.iter().any(|field| self.has(field))
    }

    /// The value of `model`, if it is a string.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// Whether the model's name begins with one of these.
    #[must_use]
    pub fn model_starts_with(&self, prefixes: &[&str]) -> bool {
        self.model().is_some_and(|model| prefixes.iter().any(|prefix| model.starts_with(prefix)))
    }
}

impl<'de> Visitor<'de> for &mut Outline {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        /// Of a hostile body with a million fields, no more than any dialect has.
        const MOST_FIELDS: usize = 64;
        while let Some(name) = map.next_key::<String>()? {
            if name == "model" {
                if let Text(Some(model)) = map.next_value()? {
                    self.model = Some(model);
                }
            } else {
                map.next_value::<IgnoredAny>()?;
            }
            if self.fields.len() < MOST_FIELDS {
                self.fields.push(name);
            }
        }
        Ok(())
    }
}

/// A string; of anything else, nothing.
struct Text(Option<String>);

impl<'de> serde::Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Any {
            Text(String),
            Other(IgnoredAny),
        }
        Ok(match serde::Deserialize::deserialize(deserializer)? {
            Any::Text(text) => Self(Some(text)),
            Any::Other(_) => Self(None),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_body_shows_what_comes_before_the_fault() {
        let outline = Outline::of(br#"{"model":"rerank-2.5","top_k":3,"documents":["a"#);
        assert_eq!(outline.model(), Some("rerank-2.5"));
        assert!(outline.has("top_k") && outline.model_starts_with(&["rerank-2"]));
        assert!(!outline.has("query"));
        assert_eq!(Outline::of(b"[1]"), Outline::default());
        assert_eq!(Outline::of(b"\xff"), Outline::default());
        assert_eq!(Outline::of(br#"{"model":{"a":[1]},"top_n":1}"#).model(), None);
    }
}
