//! Reading a model's answer to a list, and making a permutation of it whatever it says.
//!
//! An answer is asked for as `[2] > [3] > [1]`. Models also number their lines, write prose around the list, leave
//! documents out, name some twice or such as are not there, answer in JSON, in digits of other scripts, or not at all.
//! [`parse`] finds the identifiers that are meant and says what was wrong; [`repair`] completes them.

use super::prompt::{Identifiers, Wanted};

/// What was wrong with an answer. Of several faults the first in this order counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AnswerKind {
    /// Nothing: it is `[2] > [3] > [1]`, each document once.
    Ok,
    /// It is written otherwise, or names a document that is not there.
    WrongFormat,
    /// A document stands in it twice.
    Repetition,
    /// A document is missing.
    Missing,
    /// There was no answer: the incoming order stays.
    Unanswered,
}

/// What an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// Documents in the order of the answer, from 0, each once, all of them there.
    pub named: Vec<usize>,
    /// What was wrong.
    pub kind: AnswerKind,
}

/// An answer is at its end; what stands before so many bytes is not read.
const MAX_BYTES: usize = 16 << 10;

/// Reads an answer about `count` documents. Never fails: what cannot be read names nothing.
#[must_use]
pub fn parse(text: &str, count: usize, wanted: Wanted, identifiers: Identifiers) -> Parsed {
    let nothing = Parsed { named: Vec::new(), kind: AnswerKind::WrongFormat };
    let Some(said) = said(text) else { return nothing };
    let plain: String = said.chars().map(plain).collect();
    let ids = without_numbering(&plain, find(&plain, identifiers));
    let chosen = choose(&plain, &ids, wanted);
    let expected = wanted.expected(count);
    let mut named = Vec::new();
    let (mut is_repeated, mut is_foreign) = (false, false);
    for id in chosen {
        match id.value.checked_sub(1).filter(|place| *place < count) {
            None => is_foreign = true,
            Some(place) if named.contains(&place) => is_repeated = true,
            Some(place) => named.push(place),
        }
    }
    // Of an order where one was asked for, the first is taken.
    let is_long = named.len() > expected || (wanted == Wanted::Best && said.contains(" > "));
    named.truncate(expected);
    let kind = if is_foreign || is_long || !is_strict(said, identifiers) {
        AnswerKind::WrongFormat
    } else if is_repeated {
        AnswerKind::Repetition
    } else if named.len() < expected {
        AnswerKind::Missing
    } else {
        AnswerKind::Ok
    };
    Parsed { named, kind }
}

/// A permutation of `0..count`: what is named, each once, then all others in their order.
#[must_use]
pub fn repair(named: &[usize], count: usize) -> Vec<usize> {
    let mut is_there = vec![false; count];
    let mut order = Vec::with_capacity(count);
    for &place in named {
        if let Some(there @ false) = is_there.get_mut(place) {
            *there = true;
            order.push(place);
        }
    }
    order.extend((0..count).filter(|place| !is_there[*place]));
    order
}

/// What was said aloud: without thoughts, and without an endless beginning.
fn said(text: &str) -> Option<&str> {
    let after = match text.rfind("</think>") {
        Some(end) => &text[end + "</think>".len()..],
        None if text.contains("<think>") => return None,
        None => text,
    };
    let mut start = after.len().saturating_sub(MAX_BYTES);
    while !after.is_char_boundary(start) {
        start += 1;
    }
    Some(after[start..].trim()).filter(|said| !said.is_empty())
}

/// ASCII for digits of all scripts, and for what typography makes of brackets and signs.
fn plain(c: char) -> char {
    match c {
        _ if c.is_ascii() => c,
        '［' | '【' | '〔' | '⟦' => '[',
        '］' | '】' | '〕' | '⟧' => ']',
        '＞' | '›' | '»' | '→' | '≻' | '⟩' => '>',
        '，' | '、' => ',',
        '\u{2212}' => '-',
        'Ａ'..='Ｚ' => char::from_u32(c as u32 - 'Ａ' as u32 + 'A' as u32).unwrap_or(c),
        _ => digit(c).unwrap_or(c),
    }
}

/// The ASCII digit of a decimal digit. In every script the ten stand side by side, from zero on.
fn digit(c: char) -> Option<char> {
    let is_digit = |code: u32| {
        char::from_u32(code).is_some_and(unicode_categories::UnicodeCategories::is_number_decimal_digit)
    };
    let code = c as u32;
    if !is_digit(code) {
        return None;
    }
    // Five rows of digits without a gap is the most that there is (mathematical ones).
    let before = (1..50).take_while(|back| code.checked_sub(*back).is_some_and(is_digit)).count() as u32;
    char::from_digit(before % 10, 10)
}

/// An identifier in a text: where it stands, and its number from 1.
#[derive(Debug, Clone, Copy)]
struct Id {
    start: usize,
    end: usize,
    value: usize,
    is_bracketed: bool,
}

/// All that may be an identifier. Where some stand in brackets, only these.
fn find(text: &str, identifiers: Identifiers) -> Vec<Id> {
    let bytes = text.as_bytes();
    let mut ids = Vec::new();
    let is_part = |c: u8| match identifiers {
        Identifiers::Numbers => c.is_ascii_digit(),
        Identifiers::Letters => c.is_ascii_uppercase(),
    };
    let mut at = 0;
    while at < bytes.len() {
        if !is_part(bytes[at]) {
            at += 1;
            continue;
        }
        let start = at;
        while at < bytes.len() && is_part(bytes[at]) {
            at += 1;
        }
        let value = match identifiers {
            // What does not fit is no document of any list.
            Identifiers::Numbers => text[start..at].parse().unwrap_or(usize::MAX),
            Identifiers::Letters if at - start == 1 => usize::from(bytes[start] - b'A') + 1,
            Identifiers::Letters => continue,
        };
        let before = start.checked_sub(1).map(|place| bytes[place]);
        let after = bytes.get(at).copied();
        let is_word = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == b'_' || c >= 0x80);
        let digit_at =
            |place: Option<usize>| place.and_then(|place| bytes.get(place)).is_some_and(u8::is_ascii_digit);
        // Part of a word, of a fraction, or negative.
        let is_fraction = (after == Some(b'.') && digit_at(Some(at + 1)))
            || (before == Some(b'.') && digit_at(start.checked_sub(2)));
        let is_negative = before == Some(b'-')
            && !start.checked_sub(2).is_some_and(|place| bytes[place].is_ascii_alphanumeric());
        // "A document", "I think": words of a sentence.
        let is_article = identifiers == Identifiers::Letters
            && after == Some(b' ')
            && bytes.get(at + 1).is_some_and(u8::is_ascii_lowercase);
        let is_other = is_fraction || is_negative || is_article || after == Some(b'%');
        if is_word(before) || is_word(after) || is_other {
            continue;
        }
        let is_bracketed = before == Some(b'[') && after == Some(b']');
        ids.push(Id { start, end: at, value, is_bracketed });
    }
    if ids.iter().any(|id| id.is_bracketed) {
        ids.retain(|id| id.is_bracketed);
    }
    ids
}

/// Without the numbers of the lines, where lines are numbered from 1 and each names a document behind its number.
fn without_numbering(text: &str, ids: Vec<Id>) -> Vec<Id> {
    let (mut kept, mut numbers, mut start) = (Vec::with_capacity(ids.len()), 0, 0);
    let mut rest = ids.iter().copied().peekable();
    for line in text.split_inclusive('\n') {
        let end = start + line.len();
        let mut of_line = Vec::new();
        while let Some(id) = rest.next_if(|id| id.start < end) {
            of_line.push(id);
        }
        start = end;
        let Some(first) = of_line.first() else { continue };
        let is_at_start =
            line[..first.start + line.len() - end].trim_matches([' ', '\t', '*', '(', '#']).is_empty();
        let is_mark = matches!(text.as_bytes().get(first.end), Some(b'.' | b')' | b':'));
        if first.is_bracketed || !is_at_start || !is_mark || first.value != numbers + 1 || of_line.len() < 2 {
            return ids; // not a numbered list
        }
        numbers += 1;
        kept.extend_from_slice(&of_line[1..]);
    }
    kept
}

/// The identifiers that are the answer: the longest chain of them, the last of equals.
fn choose<'a>(text: &str, ids: &'a [Id], wanted: Wanted) -> &'a [Id] {
    let (mut best, mut start) = (&ids[..0], 0);
    for place in 1..=ids.len() {
        let goes_on = ids.get(place).is_some_and(|id| is_between(&text[ids[place - 1].end..id.start]));
        if !goes_on {
            let chain = &ids[start..place];
            if chain.len() >= best.len() {
                best = chain;
            }
            start = place;
        }
    }
    let is_one = ids.iter().all(|id| Some(id.value) == ids.first().map(|first| first.value));
    match wanted {
        // "[2] is better than [1]" says it in words, and those are not read.
        Wanted::Best if best.len() == 1 && !is_one => &ids[..0],
        Wanted::Best => &best[..best.len().min(1)],
        // Ids all over the prose, without a list: in the order in which they are named.
        Wanted::Order | Wanted::Select(_) if best.len() == 1 => ids,
        Wanted::Order | Wanted::Select(_) => best,
    }
}

/// Whether a text only separates two identifiers.
fn is_between(text: &str) -> bool {
    const WORDS: [&str; 5] = ["document", "doc", "passage", "and", "then"];
    let is_sign = |c: char| c.is_whitespace() || c.is_ascii_punctuation();
    let mut words = text.split(is_sign).filter(|word| !word.is_empty());
    words.all(|word| WORDS.iter().any(|known| word.eq_ignore_ascii_case(known)))
}

/// Whether it is written as it was asked for, to the letter.
fn is_strict(said: &str, identifiers: Identifiers) -> bool {
    said.split(" > ").all(|part| {
        let id = part.strip_prefix('[').and_then(|part| part.strip_suffix(']')).unwrap_or("");
        match identifiers {
            Identifiers::Numbers => !id.is_empty() && id.bytes().all(|c| c.is_ascii_digit()),
            Identifiers::Letters => id.len() == 1 && id.bytes().all(|c| c.is_ascii_uppercase()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(text: &str, count: usize) -> (Vec<usize>, AnswerKind) {
        let parsed = parse(text, count, Wanted::Order, Identifiers::Numbers);
        (parsed.named.iter().map(|place| place + 1).collect(), parsed.kind)
    }

    #[test]
    fn answers_as_models_write_them() {
        use AnswerKind::{Missing, Ok, Repetition, WrongFormat};
        for (text, named, kind) in [
            ("[2] > [3] > [1]", &[2, 3, 1][..], Ok),
            ("  [2] > [3] > [1]\n", &[2, 3, 1], Ok),
            ("[2] > [3] > [2] > [1]", &[2, 3, 1], Repetition),
            ("[3] > [1]", &[3, 1], Missing),
            ("[3] > [3]", &[3], Repetition),
            ("[4] > [3] > [2] > [1]", &[3, 2, 1], WrongFormat),
            ("[0] > [1] > [2]", &[1, 2], WrongFormat),
            ("[2]>[3]>[1]", &[2, 3, 1], WrongFormat),
            ("2 > 3 > 1", &[2, 3, 1], WrongFormat),
            ("[2, 3, 1]", &[2, 3, 1], WrongFormat),
            ("{\"order\": [2, 3, 1]}", &[2, 3, 1], WrongFormat),
            ("Of the 3 documents, [1] is short. Ranking: [2] > [3] > [1]", &[2, 3, 1], WrongFormat),
            ("[3] > [1] > [2]\n\n[3] names the city, [1] does not.", &[3, 1, 2], WrongFormat),
            ("1. Document 3\n2. Document 1\n3. Document 2", &[3, 1, 2], WrongFormat),
            ("1. [3]\n2. [1]\n3. [2]", &[3, 1, 2], WrongFormat),
            ("**1.** 3\n", &[3], WrongFormat),
            ("Document 2, Document 3 and Document 1", &[2, 3, 1], WrongFormat),
            ("<think>[1] > [2] > [3]?</think>[2] > [3] > [1]", &[2, 3, 1], Ok),
            ("<think>[1] > [2] > [3]", &[], WrongFormat),
            ("[٢] > [٣] > [١]", &[2, 3, 1], WrongFormat),
            ("[２] > [３] > [１]", &[2, 3, 1], WrongFormat),
            ("【2】→【𝟑】→【1】", &[2, 3, 1], WrongFormat),
            ("[2] is best, it is about [3].", &[2, 3], WrongFormat),
            ("the score is 2.5 of 3.5, or 90%, B2B, -1", &[], WrongFormat),
            ("[99999999999999999999999] > [1]", &[1], WrongFormat),
            ("I cannot rank these.", &[], WrongFormat),
            ("[] > []", &[], WrongFormat),
            ("", &[], WrongFormat),
        ] {
            assert_eq!(order(text, 3), (named.to_vec(), kind), "{text}");
        }
    }

    #[test]
    fn one_or_some_of_several() {
        let read = |text, wanted, identifiers| {
            let parsed = parse(text, 4, wanted, identifiers);
            (parsed.named, parsed.kind)
        };
        use AnswerKind::{Missing, Ok, WrongFormat};
        use Identifiers::{Letters, Numbers};
        assert_eq!(read("[3]", Wanted::Best, Numbers), (vec![2], Ok));
        assert_eq!(read("Document 3.", Wanted::Best, Numbers), (vec![2], WrongFormat));
        assert_eq!(read("[3] is best. [3]", Wanted::Best, Numbers), (vec![2], WrongFormat));
        assert_eq!(read("[3] > [1]", Wanted::Best, Numbers), (vec![2], WrongFormat));
        assert_eq!(read("[3] beats [1].", Wanted::Best, Numbers), (vec![], WrongFormat));
        assert_eq!(read("[C]", Wanted::Best, Letters), (vec![2], Ok));
        assert_eq!(read("A document about ABBA", Wanted::Best, Letters), (vec![], WrongFormat));
        assert_eq!(read("Document B", Wanted::Best, Letters), (vec![1], WrongFormat));
        assert_eq!(read("[B] > [D] > [A] > [C]", Wanted::Order, Letters), (vec![1, 3, 0, 2], Ok));
        assert_eq!(read("[B] > [E]", Wanted::Select(2), Letters), (vec![1], WrongFormat));
        assert_eq!(read("[4] > [2]", Wanted::Select(2), Numbers), (vec![3, 1], Ok));
        assert_eq!(read("[4]", Wanted::Select(2), Numbers), (vec![3], Missing));
        assert_eq!(read("[4] > [2] > [1]", Wanted::Select(2), Numbers), (vec![3, 1], WrongFormat));
    }

    #[test]
    fn repair_gives_a_permutation() {
        assert_eq!(repair(&[2, 2, 9, 0], 4), [2, 0, 1, 3]);
        assert_eq!(repair(&[], 3), [0, 1, 2]);
        assert_eq!(repair(&[5], 0), [0_usize; 0]);
    }

    #[test]
    fn no_text_takes_long_or_panics() {
        let started = std::time::Instant::now();
        let pieces = ["[", "[1]", "1", "1.", "]", ">", "ä", "𝟗", "<think>", "</think>", "\n1) [2]\n", "."];
        for (i, a) in pieces.iter().enumerate() {
            for b in pieces {
                let text = format!("{a}{b}").repeat(30_000 >> (i % 3));
                for identifiers in [Identifiers::Numbers, Identifiers::Letters] {
                    let parsed = parse(&text, 20, Wanted::Order, identifiers);
                    assert!(parsed.named.iter().all(|place| *place < 20));
                }
            }
        }
        assert!(started.elapsed().as_secs() < 30, "{:?}", started.elapsed());
    }
}
