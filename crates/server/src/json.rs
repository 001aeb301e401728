//! JSON as clients should write it: one value, each key once, not too deep, all of it text.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};

use crate::{Failure, FailureKind};

/// Checks a body. Beyond what `serde_json` refuses (invalid UTF-8, lone surrogates, numbers beyond f64) it refuses a key that is
/// there twice and what is deeper than `max_depth`. Nothing is kept of it: the dialect reads it.
///
/// # Errors
/// [`FailureKind::Malformed`].
pub fn check(body: &[u8], max_depth: usize) -> Result<(), Failure> {
    let malformed = |error: serde_json::Error| {
        Failure::new(FailureKind::Malformed, format!("the body is not JSON as expected: {error}"))
    };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    Strict { depth: max_depth }.deserialize(&mut deserializer).map_err(malformed)?;
    deserializer.end().map_err(malformed)
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
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        while items.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let inner = self.deeper()?;
        let mut keys = HashSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            entries.next_value_seed(inner)?;
            if let Some(key) = keys.replace(key) {
                return Err(A::Error::custom(format_args!("the key {key:?} is there twice")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_json_passes() {
        let text = r#" {"a": [1, -2, 2.5, true, null, "\u00e4\ud83d\ude00", {}], "b": {"a": 18446744073709551615}} "#;
        assert_eq!(check(text.as_bytes(), 8), Ok(()));
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
            let failure = check(body, 8).unwrap_err();
            assert_eq!(
                failure.kind,
                FailureKind::Malformed,
                "{}",
                String::from_utf8_lossy(&body[..body.len().min(40)])
            );
        }
        assert!(check(format!("{}1{}", "[".repeat(8), "]".repeat(8)).as_bytes(), 8).is_ok());
        assert!(check(b"1e308", 8).is_ok());
    }
}
