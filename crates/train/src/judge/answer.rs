//! Reading a model's answer: strict about what it means, patient about how it is written.

use serde_json::Value;

use super::brief;

/// What an answer says about the documents as they were shown.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The share of the second document, from 0 to 1.
    Share(f64),
    /// Nothing that can be used, and why.
    Unclear(String),
}

/// An answer is at its end; what stands before so many bytes is not read.
const MAX_BYTES: usize = 16 << 10;
/// Braces at which an object may begin.
const MAX_BRACES: usize = 256;

/// Reads a number from -1 (first document) to 1 (second): in a JSON object, behind the word "score", or alone.
pub fn parse_score(text: &str) -> Answer {
    let text = match said(text) {
        Ok(text) => text,
        Err(reason) => return Answer::Unclear(reason),
    };
    let score = match last_object_with(text, "score") {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => whole_number(&text),
        Some(_) => None,
        None => plain_number(text),
    };
    match score {
        Some(score) if (-1.0..=1.0).contains(&score) => Answer::Share((score + 1.0) / 2.0),
        Some(score) => Answer::Unclear(format!("the score {score} is not between -1 and 1")),
        None => Answer::Unclear(format!("no score in the answer: {:?}", brief(text))),
    }
}

/// Reads A (first document), B (second) or tie.
pub fn parse_letter(text: &str) -> Answer {
    let text = match said(text) {
        Ok(text) => text,
        Err(reason) => return Answer::Unclear(reason),
    };
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    // What models write around a letter that they were asked to write alone.
    let around = ["answer", "document", "more", "relevant", "final", "the", "is", "json", "choice"];
    let kept: Vec<String> =
        words.map(str::to_lowercase).filter(|word| !around.contains(&word.as_str())).take(2).collect();
    match kept.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["a"] => Answer::Share(0.0),
        ["b"] => Answer::Share(1.0),
        ["tie"] => Answer::Share(0.5),
        _ => Answer::Unclear(format!("neither A nor B: {:?}", brief(text))),
    }
}

/// What was said aloud: without thoughts, and without an endless beginning.
fn said(text: &str) -> Result<&str, String> {
    let after = match text.rfind("</think>") {
        Some(end) => &text[end + "</think>".len()..],
        None if text.contains("<think>") => return Err("it thought and did not come to an answer".into()),
        None => text,
    };
    let mut start = after.len().saturating_sub(MAX_BYTES);
    while !after.is_char_boundary(start) {
        start += 1;
    }
    let said = after[start..].trim();
    if said.is_empty() { Err("the answer is empty".into()) } else { Ok(said) }
}

/// The field's value in the last JSON object of the text that has it.
fn last_object_with(text: &str, field: &str) -> Option<Value> {
    let mut found = None;
    let mut end = 0;
    for (start, _) in text.match_indices('{').take(MAX_BRACES) {
        // Not the objects inside of one that was read.
        if start < end {
            continue;
        }
        let mut values = serde_json::Deserializer::from_str(&text[start..]).into_iter::<Value>();
        if let Some(Ok(Value::Object(mut object))) = values.next() {
            end = start + values.byte_offset();
            found = object.remove(field).or(found);
        }
    }
    found
}

fn whole_number(text: &str) -> Option<f64> {
    // U+2212 is how typography writes the minus.
    let text = text.trim().replace('\u{2212}', "-");
    let number: f64 = text.parse().ok()?;
    // `parse` takes "inf" and "nan" too.
    number.is_finite().then_some(number)
}

/// The number behind the last "score", else the only number of the text.
fn plain_number(text: &str) -> Option<f64> {
    let lower = text.to_ascii_lowercase();
    if let Some(place) = lower.rfind("score") {
        let behind = &text[place + "score".len()..];
        let value = behind.trim_start_matches(|c: char| c.is_whitespace() || "\"'`*:=>".contains(c));
        if let Some(number) = numbers(value).first()
            && number.0 == 0
        {
            return number.1;
        }
    }
    match numbers(text)[..] {
        [(_, number)] => number,
        _ => None,
    }
}

/// The first numbers of a text and where they begin; none for what looks like one and is part of something else.
fn numbers(text: &str) -> Vec<(usize, Option<f64>)> {
    let is_part = |c: char| c.is_ascii_digit() || ".+-\u{2212}".contains(c);
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(begin) = rest.find(|c: char| c.is_ascii_digit()) {
        // Signs and a point belong to the number.
        let start = rest[..begin]
            .rfind(|c: char| !is_part(c))
            .map_or(0, |place| place + rest[place..].chars().next().map_or(1, char::len_utf8));
        let length = rest[begin..].find(|c: char| !is_part(c)).unwrap_or(rest.len() - begin);
        let end = begin + length;
        let token = rest[start..end].trim_end_matches(['.', '-', '+']);
        let before = rest[..start].chars().next_back();
        let after = rest[end..].chars().next();
        let is_alone = !before.is_some_and(|c| c.is_alphanumeric() || "/_".contains(c))
            && !after.is_some_and(|c| c.is_alphanumeric() || "/%_".contains(c));
        let offset = text.len() - rest.len();
        found.push((offset + start, whole_number(token).filter(|_| is_alone)));
        if found.len() > 2 {
            break; // one too many already
        }
        rest = &rest[end..];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_as_models_write_them() {
        for (text, share) in [
            ("{\"score\": 0.5}", 0.75),
            ("{\"score\": -1}", 0.0),
            ("-1", 0.0),
            ("+1", 1.0),
            ("1", 1.0),
            ("-.5", 0.25),
            ("0", 0.5),
            ("0.0", 0.5),
            ("-0.0", 0.5),
            ("\u{2212}0.5", 0.25),
            ("{\"score\": \"-1\"}", 0.0),
            ("```json\n{\"score\": -0.5}\n```", 0.25),
            ("Here you are: {\"reasons\": \"a {b} 3\", \"score\": 1} I hope it helps 10 times.", 1.0),
            ("<think>{\"score\": 1}</think>{\"score\": -1}", 0.0),
            ("I think 0.2 of it...</think>\n-1", 0.0),
            ("first {\"score\": 1} no, {\"score\": -1}", 0.0),
            ("{\"score\": 1} {\"note\": 3}", 1.0),
            ("{ broken {\"score\": 1}", 1.0),
            ("**Score:** -1", 0.0),
            ("A has 3 facts, B has 4. Score: -0.5.", 0.25),
            ("The answer is 1.", 1.0),
            ("{\"score\": 1e-1}", 0.55),
        ] {
            match parse_score(text) {
                Answer::Share(found) => assert!((found - share).abs() < 1e-12, "{text}: {found}"),
                unclear @ Answer::Unclear(_) => panic!("{text}: {unclear:?}"),
            }
        }
    }

    #[test]
    fn what_has_no_clear_score_has_none() {
        for text in [
            "",
            "  \n",
            "A",
            "Document A is better",
            "{}",
            "{\"score\": null}",
            "{\"score\": []}",
            "{\"score\": 7}",
            "{\"score\": \"nan\"}",
            "{\"score\": 1e999}",
            "-2",
            "between 0.2 and 0.3",
            "80%",
            "1/2",
            "B2B",
            "<think>{\"score\": 1}",
            "<think>so</think>",
            "inf",
            "\u{0}\u{fffd}{{{{",
            "score score score",
            "1.2.3",
            "--1",
        ] {
            assert!(matches!(parse_score(text), Answer::Unclear(_)), "{text}: {:?}", parse_score(text));
        }
    }

    #[test]
    fn letters() {
        for (text, share) in [
            ("A", 0.0),
            (" b.", 1.0),
            ("Document B", 1.0),
            ("**Answer: A**", 0.0),
            ("{\"answer\": \"B\"}", 1.0),
            ("tie", 0.5),
            ("<think>A?</think>\nB", 1.0),
        ] {
            assert_eq!(parse_letter(text), Answer::Share(share), "{text}");
        }
        for text in ["", "A or B", "A document about bridges", "neither", "C", "AB", "B A"] {
            assert!(matches!(parse_letter(text), Answer::Unclear(_)), "{text}");
        }
    }

    #[test]
    fn no_text_takes_long_or_panics() {
        let started = std::time::Instant::now();
        let pieces =
            ["{", "{\"a\":", "[", "\"", "ä", "-", "1", "score", "\u{2212}", "<think>", "</think>", "\\u"];
        for (i, a) in pieces.iter().enumerate() {
            for b in pieces {
                let text = format!("{a}{b}").repeat(50_000 >> (i % 3));
                let _ = (parse_score(&text), parse_letter(&text));
                let _ = (parse_score(&format!("{text}1")), parse_score(&format!("x{text}ö")));
            }
        }
        assert!(started.elapsed().as_secs() < 30, "{:?}", started.elapsed());
    }
}
