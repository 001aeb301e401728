//! By what a body on a path that several dialects serve is known. One list decides, and describes itself in the OpenAPI document.

use http::HeaderMap;
use serde_json::{Value, json};

use super::Outline;

/// Something that shows whose a body is.
#[derive(Debug, Clone, Copy)]
pub enum Sign {
    /// The body has one of these fields.
    Fields(&'static [&'static str]),
    /// It has this field, and its model's name does not begin so.
    FieldUnlessModel(&'static str, &'static str),
    /// Its model's name begins with one of these.
    Models(&'static [&'static str]),
    /// There is this header, whatever it says.
    Header(&'static str),
    /// There is this header, and it says this.
    HeaderIs(&'static str, &'static str),
}

impl Sign {
    /// Whether it is there.
    #[must_use]
    pub fn shows(self, outline: &Outline, headers: &HeaderMap) -> bool {
        match self {
            Self::Fields(fields) => outline.has_any(fields),
            Self::FieldUnlessModel(field, prefix) => {
                outline.has(field) && !outline.model_starts_with(&[prefix])
            }
            Self::Models(prefixes) => outline.model_starts_with(prefixes),
            Self::Header(name) => headers.contains_key(name),
            Self::HeaderIs(name, value) => headers.get(name).is_some_and(|found| found == value),
        }
    }

    /// JSON schemas of the bodies that have it, each of some; none of a sign outside the body.
    #[must_use]
    pub fn schemas(self) -> Vec<Value> {
        let model = |prefixes: &[&str]| {
            let pattern = format!("^({})", prefixes.join("|").replace('.', r"\."));
            json!({"required": ["model"], "properties": {"model": {"type": "string", "pattern": pattern}}})
        };
        match self {
            Self::Fields(fields) => fields.iter().map(|field| json!({"required": [field]})).collect(),
            Self::FieldUnlessModel(field, prefix) => {
                vec![json!({"required": [field], "not": model(&[prefix])})]
            }
            Self::Models(prefixes) => vec![model(prefixes)],
            Self::Header(_) | Self::HeaderIs(..) => Vec::new(),
        }
    }
}
