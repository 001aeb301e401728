//! Durations as people write them: `250ms`, `5s`, `2m`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

const UNITS: [(&str, f64); 4] = [("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];

/// Reads a duration.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as \"250ms\", \"5s\" or \"2m\"");
    let digits = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let (_, seconds) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    let number: f64 = number.trim().parse().map_err(|_| wrong())?;
    let value = number * seconds;
    if (0.0..=1e7).contains(&value) { Ok(Duration::from_secs_f64(value)) } else { Err(wrong()) }
}

/// Writes a duration so that it is read as the same.
pub fn write(duration: Duration) -> String {
    let milliseconds = duration.as_secs_f64() * 1e3;
    if duration.subsec_nanos() == 0 {
        format!("{}s", duration.as_secs())
    } else {
        format!("{milliseconds}ms")
    }
}

pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&write(*duration))
}

pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_written() {
        for text in ["250ms", "5s", "0s", "90s", "1.5ms"] {
            assert_eq!(write(parse(text).unwrap()), text);
        }
        assert_eq!(parse("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse("1.5h"), Ok(Duration::from_secs(5400)));
        for text in ["", "5", "s", "-1s", "5 days", "1e400s", "NaNs", "infs"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
