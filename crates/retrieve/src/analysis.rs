//! Text -> terms, as Lucene's `EnglishAnalyzer` makes them, in this order: words by Unicode's rules (UAX #29), no
//! possessive `'s`, lower case, no stop words (Lucene's 33), stems. The stemmer is Porter's second (Snowball "English");
//! Lucene has the first. No published BM25 figure that we know of depends on which.

use std::collections::BTreeMap;

use tantivy::tokenizer::{
    Language, LowerCaser, RemoveLongFilter, Stemmer, StopWordFilter, TextAnalyzer, Token, TokenStream,
    Tokenizer,
};
use unicode_segmentation::{UnicodeSegmentation, UnicodeWordIndices};

/// Longer words, in bytes, are no words: encoded data, mostly.
const LONGEST_WORD: usize = 255;

/// The terms of a text and how often each stands in it.
#[must_use]
pub fn terms(text: &str) -> BTreeMap<String, u32> {
    let mut analyzer = analyzer();
    let mut terms = BTreeMap::new();
    analyzer.token_stream(text).process(&mut |token| *terms.entry(token.text.clone()).or_default() += 1);
    terms
}

/// The same for tantivy.
pub(crate) fn analyzer() -> TextAnalyzer {
    let words = TextAnalyzer::builder(Words).filter(RemoveLongFilter::limit(LONGEST_WORD)).filter(LowerCaser);
    match StopWordFilter::new(Language::English) {
        Some(stop_words) => words.filter(stop_words).filter(Stemmer::new(Language::English)).build(),
        None => words.filter(Stemmer::new(Language::English)).build(), // there is a list for English
    }
}

/// Unicode's words, without the possessive `'s`.
#[derive(Clone)]
struct Words;

struct WordStream<'a> {
    words: UnicodeWordIndices<'a>,
    token: Token,
}

impl Tokenizer for Words {
    type TokenStream<'a> = WordStream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> WordStream<'a> {
        WordStream { words: text.unicode_word_indices(), token: Token::default() }
    }
}

impl TokenStream for WordStream<'_> {
    fn advance(&mut self) -> bool {
        let Some((start, word)) = self.words.next() else { return false };
        let word = possessive(word).unwrap_or(word);
        self.token.text.clear();
        self.token.text.push_str(word);
        self.token.offset_from = start;
        self.token.offset_to = start + word.len();
        self.token.position = self.token.position.wrapping_add(1); // from 0: a new token has the largest number
        true
    }

    fn token(&self) -> &Token {
        &self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        &mut self.token
    }
}

/// What an `'s` belongs to, with any of the apostrophes that Lucene knows.
fn possessive(word: &str) -> Option<&str> {
    word.strip_suffix(['s', 'S'])?.strip_suffix(['\'', '\u{2019}', '\u{ff07}'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<(String, u32)> {
        terms(text).into_iter().collect()
    }

    #[test]
    fn terms_are_lucenes() {
        let found = of("The Dog's 3.5 running runs, O'Neil’s co-operation: cafés, foo_bar and NOT 東京!");
        let expected = [("3.5", 1), ("café", 1), ("co", 1), ("dog", 1), ("foo_bar", 1), ("o'neil", 1)];
        assert_eq!(found[..6], expected.map(|(term, count)| (term.to_string(), count)), "{found:?}");
        let rest: Vec<&str> = found[6..].iter().map(|(term, _)| term.as_str()).collect();
        assert_eq!(rest, ["oper", "run", "京", "東"]);
        assert_eq!(found[7].1, 2, "running, runs");
    }

    #[test]
    fn nothing_and_what_is_no_word() {
        assert_eq!(of(""), []);
        assert_eq!(of(" \u{0} ... — the of"), []);
        assert_eq!(of(&"a".repeat(300)), []);
        assert_eq!(of("'s s"), [("s".to_string(), 2)]);
    }
}
