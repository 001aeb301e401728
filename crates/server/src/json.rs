//! JSON as clients should write it: one value, each key once, not too deep, all of it text.

use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::{Failure, FailureKind};

/// Reads a body. Beyond what `serde_json` refuses (invalid UTF-8, lone surrogates, numbers beyond f64) it refuses a key that is
/// there twice and what is deeper than `max_depth`.
///
/// # Errors
/// [`FailureKind::Malformed`].
pub fn read(body: &[u8], max_depth: usize) -> Result<Value, Failure> {
    let malformed = |error: &dyn fmt::Display| {
        Failure::new(FailureKind::Malformed, format!("the body is not JSON as expected: {error}"))
    };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = Strict { depth: max_depth }.deserialize(&mut deserializer).map_err(|error| malformed(&error))?;
    deserializer.end().map_err(|error| malformed(&error))?;
    Ok(value)
}

#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Self { depth }),
            None => Err(E::custom("arrays and objects lie too deep in each other")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_string()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(inner)?;
            if map.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key {key:?} is there twice")));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_json_is_read_as_by_serde_json() {
        let text = r#" {"a": [1, -2, 2.5, true, null, "\u00e4\ud83d\ude00", {}], "b": {"a": 18446744073709551615}} "#;
        assert_eq!(read(text.as_bytes(), 8).unwrap(), serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn what_is_no_json_is_refused() {
        let deep = format!("{}1{}", "[".repeat(9), "]".repeat(9));
        let very_deep = "[".repeat(1_000_000);
        let bodies: [&[u8]; 14] = [
            b"",
            b"{",
            b"{} {}",
            b"{\"a\": 1, \"a\": 1}",
            b"{\"a\": {\"b\": 1, \"\\u0062\": 2}}",
            b"\"\xff\"",
            b"\"\\ud800\"",
            b"\"\\udc00\\ud800\"",
            b"1e999",
            b"NaN",
            b"{\"a\": 'b'}",
            b"\"a\nb\"",
            deep.as_bytes(),
            very_deep.as_bytes(),
        ];
        for body in bodies {
            let failure = read(body, 8).unwrap_err();
            assert_eq!(failure.kind, FailureKind::Malformed, "{}", String::from_utf8_lossy(&body[..body.len().min(40)]));
        }
        assert!(read(format!("{}1{}", "[".repeat(8), "]".repeat(8)).as_bytes(), 8).is_ok());
        assert!(read(b"1e308", 8).is_ok());
    }
}
