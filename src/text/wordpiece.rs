//! BERT's tokenizer, without what makes the library's slow: copies of the text, alignments of every byte, an
//! allocation for every token.
//!
//! [`WordPiece::recognise`] takes a tokenizer only if every part of it is of a kind that is proved equal here (the
//! tests compare every code point, texts at random, and what the other tokenizers of `testdata` hold). Whatever is not
//! recognised, and a text that [`WordPiece::encode`] gives back, goes to the library.
//!
//! BERT's normaliser looks at one code point at a time, with one exception: canonical decomposition sorts marks. The
//! marks are dropped after it, so the order shows only where one is kept, and such texts are given back.

use tokenizers::models::ModelWrapper;
use tokenizers::normalizers::{BertNormalizer, NormalizerWrapper};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::{Encoding, Model};
use unicode_categories::UnicodeCategories;
use unicode_normalization_alignments::char::{canonical_combining_class, decompose_canonical};

use crate::text::Tokens;
use crate::text::tokenizer::guarded;

/// A tokenizer of BERT's kind.
#[derive(Debug)]
pub(crate) struct WordPiece {
    normalizer: BertNormalizer,
    /// What each ASCII byte becomes.
    ascii: [Ascii; 128],
    pieces: Trie,
    unknown: u32,
    max_chars_per_word: usize,
}

/// What an ASCII byte becomes.
#[derive(Debug, Clone, Copy)]
enum Ascii {
    Nothing,
    Space,
    Punctuation(u8),
    Letter(u8),
}

impl WordPiece {
    /// The same tokenizer, if it is of a known kind. `id_of` gives the id that stands in the output for one of the
    /// vocabulary; `pieces` are those of its vocabulary, if they were made before.
    pub(crate) fn recognise(
        tokenizer: &tokenizers::Tokenizer,
        id_of: impl Fn(u32) -> Option<u32>,
        pieces: Option<Trie>,
    ) -> Option<Self> {
        let (
            Some(NormalizerWrapper::BertNormalizer(normalizer)),
            Some(PreTokenizerWrapper::BertPreTokenizer(_)),
            ModelWrapper::WordPiece(model),
        ) = (tokenizer.get_normalizer(), tokenizer.get_pre_tokenizer(), tokenizer.get_model())
        else {
            return None;
        };
        let added = tokenizer.get_added_tokens_decoder();
        let special_is_text = tokenizer.get_encode_special_tokens() && added.values().all(|t| t.special);
        let whole = tokenizer.get_truncation().is_none() && tokenizer.get_padding().is_none();
        if !special_is_text || !whole || !leaves_text_alone(tokenizer) {
            return None;
        }

        let unknown = id_of(model.token_to_id(&model.unk_token)?)?;
        let pieces = match pieces {
            Some(pieces) => pieces,
            None => {
                let vocab = model.get_vocab();
                let pieces = vocab.iter().map(|(piece, id)| (piece.as_str(), *id));
                Trie::of(pieces, &model.continuing_subword_prefix, id_of)?
            }
        };
        let mut known = Self {
            normalizer: *normalizer,
            ascii: [Ascii::Nothing; 128],
            pieces,
            unknown,
            max_chars_per_word: model.max_input_chars_per_word,
        };
        for byte in 0..128_u8 {
            known.ascii[usize::from(byte)] = known.ascii(byte);
        }
        Some(known)
    }

    /// The first tokens of `text`: all of them, or, if there are more than `limit`, at least `limit + 1`. Offsets are
    /// found if `OFFSETS`, in code points. `None` for a text that the library has to read.
    pub(crate) fn encode<const OFFSETS: bool>(&self, text: &str, limit: usize) -> Option<Tokens> {
        // English has 4 to 5 bytes a token.
        let expected =
            (text.len() / 4 + 8).min(limit.saturating_add(self.max_chars_per_word).saturating_add(1));
        let tokens = Tokens {
            ids: Vec::with_capacity(expected),
            offsets: Vec::with_capacity(if OFFSETS { expected } else { 0 }),
        };
        let mut reader = Reader::<OFFSETS> {
            tokenizer: self,
            tokens,
            word: Vec::with_capacity(64),
            chars: 0,
            positions: Vec::new(),
            position: 0,
        };
        let mut rest = text.as_bytes().iter();
        while let Some(&byte) = rest.as_slice().first() {
            if let Some(ascii) = self.ascii.get(usize::from(byte)) {
                rest.next();
                match *ascii {
                    Ascii::Nothing => {}
                    Ascii::Letter(letter) => reader.ascii(letter),
                    Ascii::Space => reader.end_word(),
                    Ascii::Punctuation(mark) => {
                        reader.end_word();
                        reader.ascii(mark);
                        reader.end_word();
                    }
                }
            } else {
                let at = text.len() - rest.len();
                let c = text[at..].chars().next()?;
                rest.nth(c.len_utf8() - 1);
                if !self.normalise(c, |c| reader.char(c)) {
                    return None;
                }
            }
            reader.position += 1;
            if reader.tokens.ids.len() > limit {
                return Some(reader.tokens);
            }
        }
        reader.end_word();
        Some(reader.tokens)
    }

    /// Gives what the normaliser makes of a code point. `false` if its place among its neighbours may change.
    fn normalise(&self, c: char, mut emit: impl FnMut(char)) -> bool {
        let BertNormalizer { clean_text, handle_chinese_chars, strip_accents, lowercase, .. } =
            self.normalizer;
        let mut c = c;
        if clean_text {
            let is_space = matches!(c, '\t' | '\n' | '\r');
            if c == '\0' || c == char::REPLACEMENT_CHARACTER || (!is_space && c.is_other()) {
                return true;
            }
            if c.is_whitespace() {
                c = ' ';
            }
        }
        let apart = handle_chinese_chars && is_ideograph(c);
        if apart {
            emit(' ');
        }
        let mut emit_lowercase = |c: char| {
            if lowercase { c.to_lowercase().for_each(&mut emit) } else { emit(c) }
        };
        let mut in_order = true;
        if strip_accents.unwrap_or(lowercase) {
            decompose_canonical(c, |c| {
                if !c.is_mark_nonspacing() {
                    in_order &= canonical_combining_class(c) == 0;
                    emit_lowercase(c);
                }
            });
        } else {
            emit_lowercase(c);
        }
        if apart {
            emit(' ');
        }
        in_order
    }

    fn ascii(&self, byte: u8) -> Ascii {
        let mut found = Ascii::Nothing;
        self.normalise(char::from(byte), |c| {
            found = match u8::try_from(c) {
                _ if c.is_whitespace() => Ascii::Space,
                Ok(mark) if is_punctuation(c) => Ascii::Punctuation(mark),
                Ok(letter) => Ascii::Letter(letter),
                // No ASCII character becomes another than ASCII.
                Err(_) => Ascii::Nothing,
            };
        });
        found
    }
}

/// Whether the post-processor, asked for no special tokens, gives ids and offsets as they are.
fn leaves_text_alone(tokenizer: &tokenizers::Tokenizer) -> bool {
    // Some take the offset of white space at the ends of a token away.
    let token = String::from("  x  ");
    let (ids, offsets) = (vec![1, 2], vec![(0, 5), (5, 10)]);
    let probe = Encoding::new(
        ids.clone(),
        vec![0; 2],
        vec![token; 2],
        vec![None; 2],
        offsets.clone(),
        vec![0; 2],
        vec![1; 2],
        vec![],
        Default::default(),
    );
    let found = guarded(|| tokenizer.post_process(probe, None, false).map_err(|error| error.to_string()));
    found.is_ok_and(|found| found.get_ids() == ids && found.get_offsets() == offsets)
}

/// BERT sets Chinese characters apart, not Japanese syllables or Korean ones.
fn is_ideograph(c: char) -> bool {
    matches!(
        c,
        '\u{3400}'..='\u{4dbf}'
            | '\u{4e00}'..='\u{9fff}'
            | '\u{f900}'..='\u{faff}'
            | '\u{20000}'..='\u{2a6df}'
            | '\u{2a700}'..='\u{2b81f}'
            // The library leaves U+2B820 to U+2B91F out.
            | '\u{2b920}'..='\u{2ceaf}'
            | '\u{2f800}'..='\u{2fa1f}'
    )
}

fn is_punctuation(c: char) -> bool {
    c.is_ascii_punctuation() || c.is_punctuation()
}

/// One pass over a text.
struct Reader<'a, const OFFSETS: bool> {
    tokenizer: &'a WordPiece,
    tokens: Tokens,
    /// The normalised word that is being read, and its length in code points.
    word: Vec<u8>,
    chars: usize,
    /// The code point of the text that each byte of the word comes from; only if `OFFSETS`.
    positions: Vec<usize>,
    /// The code point of the text that is being read.
    position: usize,
}

impl<const OFFSETS: bool> Reader<'_, OFFSETS> {
    /// Takes a code point that the normaliser gives.
    fn char(&mut self, c: char) {
        if c.is_whitespace() {
            return self.end_word();
        }
        let is_apart = is_punctuation(c);
        if is_apart {
            self.end_word();
        }
        self.word.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        self.grown();
        if is_apart {
            self.end_word();
        }
    }

    /// Takes one that is ASCII and does not end the word.
    fn ascii(&mut self, byte: u8) {
        self.word.push(byte);
        self.grown();
    }

    fn grown(&mut self) {
        self.chars += 1;
        if OFFSETS {
            self.positions.resize(self.word.len(), self.position);
        }
    }

    /// Splits the word into the longest pieces from its beginning. A word that cannot be split, or is too long, is
    /// one unknown token.
    fn end_word(&mut self) {
        if self.word.is_empty() {
            return;
        }
        let before = self.tokens.ids.len();
        let mut start = 0;
        let mut list = Trie::FIRST;
        let mut is_known = self.chars <= self.tokenizer.max_chars_per_word;
        while is_known && start < self.word.len() {
            match self.tokenizer.pieces.longest(list, &self.word[start..]) {
                Some((length, id)) => {
                    self.token(id, start, start + length);
                    start += length;
                    list = Trie::NEXT;
                }
                None => is_known = false,
            }
        }
        if !is_known {
            self.tokens.ids.truncate(before);
            if OFFSETS {
                self.tokens.offsets.truncate(before);
            }
            self.token(self.tokenizer.unknown, 0, self.word.len());
        }
        self.word.clear();
        self.positions.clear();
        self.chars = 0;
    }

    fn token(&mut self, id: u32, start: usize, end: usize) {
        self.tokens.ids.push(id);
        if OFFSETS {
            self.tokens.offsets.push((self.positions[start], self.positions[end - 1] + 1));
        }
    }
}

/// Two lists of pieces, those that begin a word and those that go on, as a double array: the child of a node by a byte
/// is at the node's `base` plus that byte, and is there if its `parent` is the node.
#[derive(Debug)]
pub(crate) struct Trie {
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    base: u32,
    parent: u32,
    /// The id of the piece that ends here.
    id: u32,
}

impl Node {
    const NONE: u32 = u32::MAX;
    const FREE: Self = Self { base: 0, parent: Self::NONE, id: Self::NONE };
}

impl Trie {
    /// The root of the pieces that begin a word.
    const FIRST: u32 = 0;
    /// The root of the pieces that go on.
    const NEXT: u32 = 1;
    /// Places that are tried before they are given up for new ones: bounds the time for a vocabulary of any shape.
    const MAX_TRIES: usize = 256;

    /// Of a vocabulary's pieces and their ids; those that begin with `prefix` go on within a word. `None` if one of them has no id in
    /// the output.
    pub(crate) fn of<'a>(
        vocab: impl ExactSizeIterator<Item = (&'a str, u32)>,
        prefix: &str,
        id_of: impl Fn(u32) -> Option<u32>,
    ) -> Option<Self> {
        let mut first = Vec::with_capacity(vocab.len());
        let mut next = Vec::new();
        for (piece, id) in vocab {
            let id = id_of(id)?;
            first.push((piece.as_bytes(), id));
            if let Some(rest) = piece.strip_prefix(prefix) {
                next.push((rest.as_bytes(), id));
            }
        }
        Self::build([first, next])
    }

    /// `None` for an id or a number of nodes that 32 bits do not hold.
    fn build(lists: [Vec<(&[u8], u32)>; 2]) -> Option<Self> {
        let mut trie = Self { nodes: vec![Node::FREE; 2] };
        // After the places of the roots.
        let mut first_free = 2;
        let mut bytes = Vec::new();
        for (root, mut pieces) in (0..).zip(lists) {
            pieces.sort_unstable();
            // Nodes whose children are not placed yet: the node, the depth, and the pieces below.
            let mut open = vec![(root, 0, pieces.as_slice())];
            while let Some((node, depth, pieces)) = open.pop() {
                let (ended, below) =
                    pieces.split_at(pieces.iter().take_while(|(piece, _)| piece.len() == depth).count());
                if let Some((_, id)) = ended.first() {
                    if *id == Node::NONE {
                        return None;
                    }
                    trie.nodes[node as usize].id = *id;
                }
                let children = || below.chunk_by(|a, b| a.0[depth] == b.0[depth]);
                bytes.clear();
                bytes.extend(children().map(|group| usize::from(group[0].0[depth])));
                if bytes.is_empty() {
                    continue;
                }
                let base = trie.place(&bytes, &mut first_free);
                trie.nodes[node as usize].base = u32::try_from(base).ok()?;
                for (group, byte) in children().zip(&bytes) {
                    trie.nodes[base + byte].parent = node;
                    open.push((u32::try_from(base + byte).ok()?, depth + 1, group));
                }
            }
        }
        Some(trie)
    }

    /// A base whose places for `bytes`, which ascend, are free.
    fn place(&mut self, bytes: &[usize], first_free: &mut usize) -> usize {
        let is_free = |at: usize| self.nodes.get(at).is_none_or(|node| node.parent == Node::NONE);
        let (lowest, highest) = (bytes[0], bytes[bytes.len() - 1]);
        while !is_free(*first_free) {
            *first_free += 1;
        }
        let from = (*first_free).max(lowest);
        let fits = |at: &usize| bytes.iter().all(|byte| is_free(at - lowest + byte));
        let at = (from..from + Self::MAX_TRIES).find(fits).unwrap_or_else(|| {
            *first_free = from + Self::MAX_TRIES;
            self.nodes.len().max(*first_free)
        });
        let base = at - lowest;
        if self.nodes.len() <= base + highest {
            self.nodes.resize(base + highest + 1, Node::FREE);
        }
        base
    }

    /// The longest piece that `text` begins with: its length and id. No piece is empty.
    #[inline]
    fn longest(&self, root: u32, text: &[u8]) -> Option<(usize, u32)> {
        let mut node = root;
        let mut base = self.nodes[node as usize].base;
        let mut found = None;
        for (at, byte) in text.iter().enumerate() {
            let child = base + u32::from(*byte);
            match self.nodes.get(child as usize) {
                Some(next) if next.parent == node => {
                    if next.id != Node::NONE {
                        found = Some((at + 1, next.id));
                    }
                    (node, base) = (child, next.base);
                }
                _ => break,
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use tokenizers::{NormalizedString, Normalizer};

    use super::*;

    fn file(path: &str) -> Value {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        let mut json: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        json["truncation"] = Value::Null;
        json["padding"] = Value::Null;
        json
    }

    fn library(json: &Value) -> tokenizers::Tokenizer {
        let mut library: tokenizers::Tokenizer = serde_json::from_value(json.clone()).unwrap();
        library.set_encode_special_tokens(true);
        library
    }

    fn recognised(library: &tokenizers::Tokenizer) -> Option<WordPiece> {
        WordPiece::recognise(library, Some, None)
    }

    fn tiny() -> Value {
        file("testdata/tiny-bert/tokenizer.json")
    }

    fn with(mut json: Value, pointer: &str, value: Value) -> Value {
        *json.pointer_mut(pointer).unwrap() = value;
        json
    }

    /// The tokenizers of BERT's kind that there are here, and others that differ in one thing.
    fn all() -> Vec<(tokenizers::Tokenizer, WordPiece)> {
        let cased = with(tiny(), "/normalizer/lowercase", false.into());
        let vocab = json!({"[UNK]": 0, "a": 1, "_b": 2, "_ba": 3, "ab": 4, "__": 5, "e": 6, "_e": 7, "é": 8, "_é": 9});
        let files = [
            file("models/default/tokenizer.json"),
            tiny(),
            file("testdata/tiny-electra/tokenizer.json"),
            file("testdata/tiny-mpnet/tokenizer.json"),
            with(tiny(), "/normalizer/strip_accents", false.into()),
            with(cased.clone(), "/normalizer/strip_accents", true.into()),
            cased,
            with(tiny(), "/normalizer/clean_text", false.into()),
            with(tiny(), "/normalizer/handle_chinese_chars", false.into()),
            with(tiny(), "/model/max_input_chars_per_word", 3.into()),
            with(tiny(), "/model/continuing_subword_prefix", "".into()),
            with(
                with(with(tiny(), "/model/continuing_subword_prefix", "_".into()), "/model/vocab", vocab),
                "/normalizer/strip_accents",
                false.into(),
            ),
        ];
        files
            .iter()
            .map(|json| {
                let library = library(json);
                let ours = recognised(&library).unwrap_or_else(|| panic!("{}", json["normalizer"]));
                (library, ours)
            })
            .collect()
    }

    /// Whether we read the text; panics if the tokens are not the library's.
    fn is_same(library: &tokenizers::Tokenizer, ours: &WordPiece, text: &str) -> bool {
        let Some(found) = ours.encode::<true>(text, usize::MAX) else {
            assert!(ours.encode::<false>(text, usize::MAX).is_none());
            return false;
        };
        let expected = library.encode_char_offsets(text, false).unwrap();
        assert_eq!(found.ids, expected.get_ids(), "{text:?}");
        assert_eq!(found.offsets, expected.get_offsets(), "{text:?}");
        assert_eq!(ours.encode::<false>(text, usize::MAX).unwrap().ids, found.ids, "{text:?}");
        for limit in 0..found.ids.len().min(4) {
            let start = ours.encode::<true>(text, limit).unwrap();
            assert!(start.ids.len() > limit, "{text:?}");
            assert!(found.ids.starts_with(&start.ids), "{text:?}");
            assert!(found.offsets.starts_with(&start.offsets), "{text:?}");
        }
        true
    }

    /// All code points but four planes of unassigned ones in five.
    fn code_points() -> impl Iterator<Item = char> {
        ('\0'..='\u{3ffff}').chain('\u{e0000}'..='\u{e0fff}').chain('\u{10ff00}'..=char::MAX)
    }

    #[test]
    fn every_code_point_is_normalised_as_the_library_does() {
        for options in 0..16 {
            let is = |bit: u32| options >> bit & 1 == 1;
            let normalizer = BertNormalizer::new(is(0), is(1), Some(is(2)), is(3));
            let (_, ours) = all().swap_remove(1);
            let ours = WordPiece { normalizer, ..ours };
            let mut given_back = 0;
            for c in code_points() {
                // A letter on each side: no mark has a neighbour to change places with.
                let text = ['x', c, 'y'];
                let mut found = String::new();
                let in_order = text.map(|c| ours.normalise(c, |c| found.push(c)))[1];
                given_back += usize::from(!in_order);
                let mut expected = NormalizedString::from(String::from_iter(text));
                normalizer.normalize(&mut expected).unwrap();
                assert_eq!(found, expected.get(), "{c:?} {normalizer:?}");
            }
            assert!(if is(2) { (1..200).contains(&given_back) } else { given_back == 0 }, "{given_back}");
        }
    }

    #[test]
    fn every_code_point_is_split_as_the_library_does() {
        let (library, ours) = all().swap_remove(1);
        let mut given_back = 0;
        for c in code_points() {
            given_back += usize::from(!is_same(&library, &ours, &format!("a{c}b {c}")));
        }
        assert!((1..200).contains(&given_back), "{given_back}");
    }

    /// Pieces of text in which a tokenizer may go wrong, with bars between them.
    const ODD: &str = " |  |\t\n|\u{a0}|\u{200b}|\u{2028}|\0|\u{1}|\u{7f}|\u{ad}|\u{fffd}|\u{fdd0}|the|The|planet|unaffable|\
        12,345.67|don't|e-mail|C++|a_b|...|«»|¿|—|é|e\u{301}|É|ñ|ß|İ|ı|ﬁ|Å|Ω|ё|й|ά|ς|Σ|ǆ|ﬀ|½|²|ⅷ|\u{344}|\u{f73}|\
        a\u{327}\u{301}|\u{302e}\u{301}|\u{1d165}\u{1d16e}|\u{9be}|\u{11f42}|中文|日本語|ひらがな|カタカナ|한국어|한|\u{f900}|\
        \u{2b820}|\u{20000}|、|العربية|שלום|हिन्दी|ไทย|👍🏽|👨\u{200d}👩\u{200d}👧|🇩🇪|☃\u{fe0f}|€|№|😀x|[CLS]|[SEP]|[PAD]|\
        [UNK]|[MASK]|<s>|</s>|##s|##|#|[unused0]|@@|$|`";

    fn fragment() -> impl Strategy<Value = String> {
        let odd: Vec<String> = ODD.split('|').map(String::from).collect();
        prop_oneof![
            6 => prop::sample::select(odd),
            3 => "[a-zA-Z]{1,12}",
            1 => "[a-z]{90,120}",
            1 => "[é中]{1,3}[a-z]{95,104}",
            1 => any::<String>(),
            1 => "[\u{300}-\u{36f}a-eé]{1,8}",
            1 => any::<char>().prop_map(String::from),
        ]
    }

    #[test]
    fn texts_at_random_have_the_librarys_tokens() {
        let all = all();
        let texts = prop::collection::vec((fragment(), prop::bool::ANY), 0..24);
        proptest!(ProptestConfig::with_cases(2_000), |(parts in texts)| {
            let text: String =
                parts.iter().flat_map(|(part, space)| [part.as_str(), if *space { " " } else { "" }]).collect();
            for (library, ours) in &all {
                is_same(library, ours, &text);
            }
        });
    }

    #[test]
    fn long_texts_have_the_librarys_tokens() {
        let text = "The quick, brown naïve fox — jumps over 13 lazy dogs; 中国 isn't far. ".repeat(300);
        for (library, ours) in all() {
            assert!(is_same(&library, &ours, &text));
            assert!(is_same(&library, &ours, &"x".repeat(5_000)));
            assert!(is_same(&library, &ours, ""));
        }
    }

    #[test]
    fn what_is_not_of_this_kind_is_left_to_the_library() {
        let normalizer = tiny()["normalizer"].clone();
        let mut named = tiny();
        named["added_tokens"][4]["special"] = false.into();
        let mut unknown = tiny();
        unknown["model"]["unk_token"] = "[NONE]".into();
        let mut twice = tiny();
        let sequence = json!({"Sequence": {"id": "A", "type_id": 0}});
        twice["post_processor"]["single"] = json!([sequence, sequence]);
        let mut second = tiny();
        second["post_processor"]["single"] = json!([{"Sequence": {"id": "B", "type_id": 0}}]);
        let mut trims = file("testdata/tiny-mpnet/tokenizer.json");
        trims["post_processor"]["trim_offsets"] = true.into();
        let others = [
            file("testdata/tiny-roberta/tokenizer.json"),
            file("testdata/tiny-xlm-roberta/tokenizer.json"),
            with(tiny(), "/normalizer", Value::Null),
            with(tiny(), "/normalizer", json!({"type": "Lowercase"})),
            with(tiny(), "/normalizer", json!({"type": "Sequence", "normalizers": [normalizer]})),
            with(tiny(), "/pre_tokenizer", Value::Null),
            with(tiny(), "/pre_tokenizer", json!({"type": "Whitespace"})),
            with(tiny(), "/model", json!({"type": "WordLevel", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"})),
            named,
            unknown,
            twice,
            second,
            trims,
        ];
        for (i, json) in others.iter().enumerate() {
            assert!(recognised(&library(json)).is_none(), "{i}");
        }
        let mut library = library(&tiny());
        assert!(recognised(&library).is_some());
        assert!(WordPiece::recognise(&library, |id| (id > 4).then_some(id), None).is_none());
        library.set_encode_special_tokens(false);
        assert!(recognised(&library).is_none());
    }

    #[test]
    fn a_vocabulary_of_any_shape_is_held() {
        proptest!(|(words in prop::collection::hash_set(prop::collection::vec(any::<u8>(), 0..4), 0..400))| {
            let words: Vec<Vec<u8>> = words.into_iter().collect();
            let list = |n: usize| -> Vec<(&[u8], u32)> {
                words.iter().enumerate().filter(|(i, _)| i % 3 != n).map(|(i, w)| (w.as_slice(), i as u32)).collect()
            };
            let trie = Trie::build([list(0), list(1)]).unwrap();
            for (root, n) in [(Trie::FIRST, 0), (Trie::NEXT, 1)] {
                for text in &words {
                    let text = [text.as_slice(), b"ab"].concat();
                    let expected = list(n)
                        .into_iter()
                        .filter(|(word, _)| !word.is_empty() && text.starts_with(word))
                        .max_by_key(|(word, _)| word.len())
                        .map(|(word, id)| (word.len(), id));
                    prop_assert_eq!(trie.longest(root, &text), expected);
                }
            }
        });
        assert!(Trie::build([vec![(b"a".as_slice(), u32::MAX)], vec![]]).is_none());
    }
}
