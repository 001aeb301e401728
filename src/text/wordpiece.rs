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
    /// vocabulary.
    pub(crate) fn recognise(
        tokenizer: &tokenizers::Tokenizer,
        id_of: impl Fn(u32) -> Option<u32>,
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

        let vocab = model.get_vocab();
        let unknown = id_of(*vocab.get(&model.unk_token)?)?;
        let mut first = Vec::with_capacity(vocab.len());
        let mut next = Vec::new();
        for (piece, id) in &vocab {
            let id = id_of(*id)?;
            first.push((piece.as_bytes(), id));
            if let Some(rest) = piece.strip_prefix(&model.continuing_subword_prefix) {
                next.push((rest.as_bytes(), id));
            }
        }
        let mut known = Self {
            normalizer: *normalizer,
            ascii: [Ascii::Nothing; 128],
            pieces: Trie::build([first, next])?,
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
        let expected = (text.len() / 4 + 8).min(limit.saturating_add(self.max_chars_per_word).saturating_add(1));
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
                    Ascii::Letter(letter) => reader.letter(&[letter]),
                    Ascii::Space => reader.end_word(),
                    Ascii::Punctuation(mark) => {
                        reader.end_word();
                        reader.letter(&[mark]);
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
    tokenizer
        .post_process(probe, None, false)
        .is_ok_and(|found| found.get_ids() == ids && found.get_offsets() == offsets)
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
            self.end_word();
        } else if is_punctuation(c) {
            self.end_word();
            self.letter(c.encode_utf8(&mut [0; 4]).as_bytes());
            self.end_word();
        } else {
            self.letter(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }

    #[inline]
    fn letter(&mut self, bytes: &[u8]) {
        self.word.extend_from_slice(bytes);
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
struct Trie {
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
    const MAX_TRIES: usize = 1024;

    /// `None` for an id or a number of nodes that 32 bits do not hold.
    fn build(lists: [Vec<(&[u8], u32)>; 2]) -> Option<Self> {
        let mut trie = Self { nodes: vec![Node::FREE; 2] };
        // After the places of the roots.
        let mut first_free = 2;
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
                let children: Vec<&[(&[u8], u32)]> =
                    below.chunk_by(|a, b| a.0[depth] == b.0[depth]).collect();
                let bytes: Vec<usize> = children.iter().map(|group| usize::from(group[0].0[depth])).collect();
                if bytes.is_empty() {
                    continue;
                }
                let base = trie.place(&bytes, &mut first_free);
                trie.nodes[node as usize].base = u32::try_from(base).ok()?;
                for (group, byte) in children.into_iter().zip(&bytes) {
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
