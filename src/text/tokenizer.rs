//! One `tokenizer.json`, loaded so that text never becomes a special token.
//!
//! The file is changed in memory before the `tokenizers` crate sees it:
//! - truncation and padding are removed (the published all-MiniLM file cuts at 128 tokens);
//! - *control tokens*, that is special added tokens and added tokens that the template writes, are renamed to strings
//!   of noncharacters, in the list of added tokens and in the vocabulary. Their ids stay. Renaming is needed because
//!   a Unigram vocabulary holds `<s>` or `[CLS]` as pieces of score 0, which beat every other segmentation of a text
//!   that spells them, and because WordPiece and BPE look whole words up;
//! - dropout is removed: a score must not depend on chance.
//!
//! What the template writes is put in by id, never by text.
//!
//! A tokenizer of BERT's kind is then read by [`WordPiece`], which gives the same tokens in a fraction of the time.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use ahash::AHashMap;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use tokenizers::models::wordpiece::WordPiece as WordPieceModel;
use tokenizers::{AddedToken, Encoding};

use crate::error::{Error, Result};
use crate::files::ModelFiles;
use crate::text::wordpiece::{Trie, WordPiece};

/// The file's name in a model folder.
pub(crate) const TOKENIZER_FILE: &str = "tokenizer.json";

/// Bytes of document per token of room that are tokenised before the rest of a long document is looked at. English
/// has 4 to 5 bytes a token; a document that is denser or sparser costs a second, longer try.
pub(crate) const BYTES_PER_TOKEN: usize = 8;

/// A tokenizer that turns text into ids of ordinary tokens only.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The same, if it is of a kind that we read ourselves.
    wordpiece: Option<WordPiece>,
    file: String,
    /// Contents and ids of the control tokens.
    control: Vec<(String, u32)>,
    /// Ids of the control tokens that text must never give, ascending.
    forbidden: Vec<u32>,
    /// Stands for a forbidden id, if one comes out in spite of the renaming.
    unknown: Option<u32>,
    /// Ids of all added tokens by content.
    added: HashMap<String, u32>,
    /// Whether the tokens of a text cut before " x" (x a letter) are a prefix of the tokens of the whole text.
    cuts_at_spaces: bool,
}

/// The tokens of a text: ids, and where each one lies in it, in Unicode code points, half open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Token ids.
    pub ids: Vec<u32>,
    /// `[start, end)` of each token in the text as given, before any normalisation.
    pub offsets: Vec<(usize, usize)>,
}

/// A piece of what a template writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fixed<'a> {
    Control(u32),
    Text(&'a str),
}

impl Tokenizer {
    /// Reads `tokenizer.json`. `written` are the texts that the template writes around query and document: an added
    /// token that stands in one of them is a control token even if it is not marked as special (`<think>`).
    ///
    /// # Errors
    /// Those of [`ModelFiles::read`]; [`Error::Json`] or [`Error::Tokenizer`] for a file that is not a tokenizer.
    pub fn load(files: &ModelFiles, written: &[&str]) -> Result<Self> {
        let bytes = files.read(TOKENIZER_FILE)?;
        Self::from_bytes(&bytes, &files.name_of(TOKENIZER_FILE), written)
    }

    /// As [`Tokenizer::load`], from the content of the file; `file` names it in messages.
    ///
    /// # Errors
    /// [`Error::Json`], [`Error::Tokenizer`].
    pub fn from_bytes(bytes: &[u8], file: &str, written: &[&str]) -> Result<Self> {
        let (mut json, mut vocabulary) = match Vocabulary::apart(bytes) {
            Some((json, vocabulary)) => (json, Some(vocabulary)),
            None => {
                let whole = serde_json::from_slice(bytes);
                (whole.map_err(|source| Error::Json { file: file.to_string(), source })?, None)
            }
        };
        let problem = |problem: String| Error::Tokenizer { file: file.to_string(), problem };
        let cuts_at_spaces = cuts_at_spaces(&json);
        let rewrite = Rewrite::apply(&mut json, written).map_err(problem)?;
        if let Some(vocabulary) = &mut vocabulary {
            vocabulary.rename(&rewrite.renamed);
        }
        let (inner, pieces, post_processor_probe) = guarded(|| {
            let (inner, pieces): (tokenizers::Tokenizer, _) = match vocabulary {
                Some(vocabulary) => vocabulary.into_tokenizer(json, &rewrite)?,
                None => (serde_json::from_value(json).map_err(|error| error.to_string())?, None),
            };
            let probe = inner
                .post_process(Encoding::default(), Some(Encoding::default()), true)
                .map_err(|error| error.to_string());
            Ok((inner, pieces, probe))
        })
        .map_err(problem)?;
        post_processor_probe.map_err(problem)?;
        let mut inner = inner;
        inner.set_encode_special_tokens(true);

        let id_of =
            |content: &str| inner.token_to_id(rewrite.renamed.get(content).map_or(content, String::as_str));
        let unknown = match &rewrite.unknown {
            Some(Unknown::Content(content)) => id_of(content),
            Some(Unknown::Id(id)) => Some(*id),
            None => None,
        };
        let added: HashMap<String, u32> = rewrite
            .added
            .iter()
            .filter_map(|content| id_of(content).map(|id| (content.clone(), id)))
            .collect();
        let control: Vec<(String, u32)> = rewrite
            .control
            .iter()
            .filter_map(|content| added.get(content).map(|id| (content.clone(), *id)))
            .collect();
        let forbidden = forbidden(control.iter().map(|(_, id)| *id), unknown);
        let id_of = shown(&forbidden, unknown);
        let pieces = pieces.filter(|(_, made_for)| *made_for == (forbidden.clone(), unknown));
        let wordpiece = WordPiece::recognise(&inner, id_of, pieces.map(|(pieces, _)| pieces));
        let file = file.to_string();
        Ok(Self { inner, wordpiece, file, control, forbidden, unknown, added, cuts_at_spaces })
    }

    /// The file, for messages.
    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    /// The id of a token by its exact content, in the added tokens or in the vocabulary.
    #[must_use]
    pub fn token_id(&self, content: &str) -> Option<u32> {
        self.added.get(content).copied().or_else(|| self.inner.token_to_id(content))
    }

    /// The ids that text never gives: special tokens and those that the template writes. Ascending. The id of the
    /// unknown token is not among them: it stands for what the vocabulary cannot spell.
    #[must_use]
    pub fn control_ids(&self) -> &[u32] {
        &self.forbidden
    }

    /// Whether we read this text ourselves. What is not of a kind that we do, the `tokenizers` library reads, and gives
    /// the same tokens, more slowly.
    #[must_use]
    pub fn reads_itself(&self, text: &str) -> bool {
        self.read::<false>(text, usize::MAX).is_some()
    }

    /// Tokenises text without special tokens. `what` names it in messages ("query", "document").
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub fn encode(&self, text: &str, what: &'static str) -> Result<Vec<u32>> {
        match self.read::<false>(text, usize::MAX) {
            Some(tokens) => Ok(tokens.ids),
            None => self.library_encode(text, what),
        }
    }

    fn library_encode(&self, text: &str, what: &'static str) -> Result<Vec<u32>> {
        let encoding = self.run(what, || self.inner.encode_fast(text, false))?;
        let mut ids = encoding.get_ids().to_vec();
        if let Some(first) = ids.iter().position(|id| self.is_forbidden(*id)) {
            match self.unknown {
                Some(unknown) => {
                    ids[first..].iter_mut().filter(|id| self.is_forbidden(**id)).for_each(|id| *id = unknown);
                }
                None => ids.retain(|id| !self.is_forbidden(*id)),
            }
        }
        Ok(ids)
    }

    /// Tokenises text without special tokens, and says where each token lies.
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub fn encode_with_offsets(&self, text: &str, what: &'static str) -> Result<Tokens> {
        match self.read::<true>(text, usize::MAX) {
            Some(tokens) => Ok(tokens),
            None => self.library_encode_with_offsets(text, what),
        }
    }

    fn library_encode_with_offsets(&self, text: &str, what: &'static str) -> Result<Tokens> {
        let encoding = self.run(what, || self.inner.encode_char_offsets(text, false))?;
        let pairs = encoding.get_ids().iter().zip(encoding.get_offsets());
        let kept = pairs.filter_map(|(id, offsets)| {
            if self.is_forbidden(*id) { self.unknown.map(|id| (id, *offsets)) } else { Some((*id, *offsets)) }
        });
        let (ids, offsets) = kept.unzip();
        Ok(Tokens { ids, offsets })
    }

    /// The first tokens of `text`: all of them, or, if there are more than `limit`, at least `limit + 1` of them. A
    /// long text is not tokenised to its end where a cut is known not to change the tokens before it.
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub fn encode_start(&self, text: &str, limit: usize, what: &'static str) -> Result<Vec<u32>> {
        match self.read::<false>(text, limit) {
            Some(tokens) => Ok(tokens.ids),
            None => self.start(text, limit, |text| self.library_encode(text, what), Vec::len),
        }
    }

    /// As [`Tokenizer::encode_start`], with offsets.
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub fn encode_start_with_offsets(&self, text: &str, limit: usize, what: &'static str) -> Result<Tokens> {
        match self.read::<true>(text, limit) {
            Some(tokens) => Ok(tokens),
            None => {
                let encode = |text: &str| self.library_encode_with_offsets(text, what);
                self.start(text, limit, encode, |tokens| tokens.ids.len())
            }
        }
    }

    /// The first tokens, at least `limit + 1` if there are so many, if we can read the text ourselves.
    fn read<const OFFSETS: bool>(&self, text: &str, limit: usize) -> Option<Tokens> {
        self.wordpiece.as_ref()?.encode::<OFFSETS>(text, limit)
    }

    fn start<T>(
        &self,
        text: &str,
        limit: usize,
        encode: impl Fn(&str) -> Result<T>,
        count: impl Fn(&T) -> usize,
    ) -> Result<T> {
        let mut bytes = limit.saturating_add(1).saturating_mul(BYTES_PER_TOKEN);
        while let Some(start) = self.prefix(text, bytes) {
            let tokens = encode(start)?;
            if count(&tokens) > limit {
                return Ok(tokens);
            }
            bytes = bytes.saturating_mul(4);
        }
        encode(text)
    }

    /// The shortest prefix of `text` of at least `bytes` bytes, and shorter than half of it, whose tokens are a
    /// prefix of the tokens of `text`.
    pub(crate) fn prefix<'a>(&self, text: &'a str, bytes: usize) -> Option<&'a str> {
        if !self.cuts_at_spaces || bytes >= text.len() / 2 {
            return None;
        }
        let raw = text.as_bytes();
        // Between an ASCII letter and " x" every supported pre-tokenizer ends a word, no normaliser composes across,
        // and no added token that text may give lies across (checked at load).
        let at = (bytes.max(1)..raw.len() / 2).find(|at| {
            raw[at - 1].is_ascii_alphabetic() && raw[*at] == b' ' && raw[at + 1].is_ascii_alphabetic()
        })?;
        text.get(..at)
    }

    /// Runs the tokenizer's post-processor on a text of the given ids, or on two.
    pub(crate) fn post_process(&self, first: &[u32], second: Option<&[u32]>) -> Result<Encoding> {
        let encoding = |ids: &[u32], type_id: u32| {
            let n = ids.len();
            let tokens = vec![String::from("x"); n];
            let offsets = vec![(0, 1); n];
            let words = vec![None; n];
            let ids = ids.to_vec();
            Encoding::new(
                ids,
                vec![type_id; n],
                tokens,
                words,
                offsets,
                vec![0; n],
                vec![1; n],
                vec![],
                Default::default(),
            )
        };
        guarded(|| {
            self.inner
                .post_process(encoding(first, 0), second.map(|ids| encoding(ids, 1)), true)
                .map_err(|error| error.to_string())
        })
        .map_err(|problem| Error::Tokenizer { file: self.file.clone(), problem })
    }

    /// Splits what a template writes at control tokens, leftmost and longest first, as Transformers does.
    pub(crate) fn split<'a>(&self, text: &'a str) -> Vec<Fixed<'a>> {
        let mut parts = Vec::new();
        let (mut start, mut at) = (0, 0);
        while at < text.len() {
            let rest = &text[at..];
            let found = self
                .control
                .iter()
                .filter(|(content, _)| rest.starts_with(content.as_str()))
                .max_by_key(|(content, _)| content.len());
            if let Some((content, id)) = found {
                if start < at {
                    parts.push(Fixed::Text(&text[start..at]));
                }
                parts.push(Fixed::Control(*id));
                at += content.len();
                start = at;
            } else {
                at += rest.chars().next().map_or(1, char::len_utf8);
            }
        }
        if start < text.len() {
            parts.push(Fixed::Text(&text[start..]));
        }
        parts
    }

    fn is_forbidden(&self, id: u32) -> bool {
        self.forbidden.binary_search(&id).is_ok()
    }

    fn run(
        &self,
        what: &'static str,
        encode: impl FnOnce() -> tokenizers::Result<Encoding>,
    ) -> Result<Encoding> {
        guarded(|| encode().map_err(|error| error.to_string()))
            .map_err(|problem| Error::Encode { what, problem })
    }
}

/// Runs code of the `tokenizers` crate, which panics on some malformed files (a template that names an absent token,
/// a damaged table of the `Precompiled` normaliser) where it could return an error.
pub(crate) fn guarded<T>(
    run: impl FnOnce() -> std::result::Result<T, String>,
) -> std::result::Result<T, String> {
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|_| Err("the tokenizer panicked; its file is malformed".into()))
}

/// Ids of control tokens that text must never give, ascending.
fn forbidden(control: impl Iterator<Item = u32>, unknown: Option<u32>) -> Vec<u32> {
    let mut forbidden: Vec<u32> = control.filter(|id| Some(*id) != unknown).collect();
    forbidden.sort_unstable();
    forbidden.dedup();
    forbidden
}

/// What stands in the output for an id of the vocabulary.
fn shown(forbidden: &[u32], unknown: Option<u32>) -> impl Fn(u32) -> Option<u32> {
    move |id| match forbidden.binary_search(&id) {
        Ok(_) => unknown,
        Err(_) => Some(id),
    }
}

/// The model of a WordPiece file, apart from the rest of it: read as JSON of any kind, and read again by the library twice, its
/// vocabulary takes most of the time in which a small model is loaded.
#[derive(Deserialize)]
struct Vocabulary {
    #[serde(rename = "type", deserialize_with = "word_piece")]
    _type: (),
    unk_token: String,
    continuing_subword_prefix: String,
    max_input_chars_per_word: usize,
    vocab: AHashMap<String, u32>,
}

fn word_piece<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<(), D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "WordPiece" => Ok(()),
        other => Err(serde::de::Error::custom(format!("{other:?} is read as a whole"))),
    }
}

/// Pieces, and the forbidden ids and the unknown one that they were made for.
type Made = (Trie, (Vec<u32>, Option<u32>));

impl Vocabulary {
    /// The file with an empty vocabulary, and the vocabulary. `None` for any other file, and for one that is broken.
    fn apart(bytes: &[u8]) -> Option<(Value, Self)> {
        #[derive(Deserialize)]
        struct File {
            model: Vocabulary,
            #[serde(flatten)]
            rest: serde_json::Map<String, Value>,
        }
        let File { model, mut rest } = serde_json::from_slice(bytes).ok()?;
        let empty = json!({
            "type": "WordPiece",
            "unk_token": model.unk_token,
            "continuing_subword_prefix": model.continuing_subword_prefix,
            "max_input_chars_per_word": model.max_input_chars_per_word,
            "vocab": {},
        });
        rest.insert("model".into(), empty);
        Some((rest.into(), model))
    }

    fn rename(&mut self, renamed: &HashMap<String, String>) {
        for (old, new) in renamed {
            if let Some(id) = self.vocab.remove(old) {
                self.vocab.insert(new.clone(), id);
            }
        }
    }

    /// What the library makes of the whole file, and the pieces for the control tokens that are in the vocabulary: side by side.
    fn into_tokenizer(
        self,
        mut json: Value,
        rewrite: &Rewrite,
    ) -> std::result::Result<(tokenizers::Tokenizer, Option<Made>), String> {
        /// As the library has it, with an id that it only compares.
        #[derive(Deserialize)]
        struct Added {
            #[serde(rename = "id")]
            _id: u32,
            #[serde(flatten)]
            token: AddedToken,
        }
        let added = json["added_tokens"].take();
        let added: Vec<Added> = serde_json::from_value(added).map_err(|error| error.to_string())?;
        // Tokens are added last: they take their ids from the vocabulary.
        json["added_tokens"] = json!([]);
        let mut tokenizer: tokenizers::Tokenizer =
            serde_json::from_value(json).map_err(|error| error.to_string())?;

        let id_of =
            |content: &String| self.vocab.get(rewrite.renamed.get(content).unwrap_or(content)).copied();
        let unknown = id_of(&self.unk_token);
        let forbidden = forbidden(rewrite.control.iter().filter_map(id_of), unknown);
        let (model, pieces) = std::thread::scope(|scope| {
            let pieces = scope.spawn(|| {
                let vocab = self.vocab.iter().map(|(piece, id)| (piece.as_str(), *id));
                Trie::of(vocab, &self.continuing_subword_prefix, shown(&forbidden, unknown))
            });
            let model = WordPieceModel::builder()
                .vocab(self.vocab.clone())
                .unk_token(self.unk_token.clone())
                .continuing_subword_prefix(self.continuing_subword_prefix.clone())
                .max_input_chars_per_word(self.max_input_chars_per_word)
                .build();
            (model, pieces.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        tokenizer.with_model(model.map_err(|error| error.to_string())?);
        tokenizer
            .add_tokens(added.into_iter().map(|added| added.token))
            .map_err(|error| error.to_string())?;
        Ok((tokenizer, pieces.map(|pieces| (pieces, (forbidden, unknown)))))
    }
}

enum Unknown {
    Content(String),
    Id(u32),
}

/// What was changed in the JSON.
struct Rewrite {
    /// Contents of all added tokens, as in the file.
    added: Vec<String>,
    /// Contents of the control tokens, as in the file.
    control: Vec<String>,
    /// New content of each renamed control token.
    renamed: HashMap<String, String>,
    unknown: Option<Unknown>,
}

impl Rewrite {
    fn apply(json: &mut Value, written: &[&str]) -> std::result::Result<Self, String> {
        let root = json.as_object_mut().ok_or("not a JSON object")?;
        root.insert("truncation".into(), Value::Null);
        root.insert("padding".into(), Value::Null);

        let model = root.get_mut("model").and_then(Value::as_object_mut).ok_or("no model")?;
        // A probability of skipping merges: the ids would depend on chance.
        for field in ["dropout", "alpha", "nbest_size"] {
            if model.contains_key(field) {
                model.insert(field.into(), Value::Null);
            }
        }
        let unknown = match (model.get("unk_token"), model.get("unk_id")) {
            (Some(Value::String(content)), _) => Some(Unknown::Content(content.clone())),
            (_, Some(id)) => id.as_u64().and_then(|id| u32::try_from(id).ok()).map(Unknown::Id),
            _ => None,
        };

        let mut tokens = match root.remove("added_tokens") {
            Some(Value::Array(tokens)) => tokens,
            None | Some(Value::Null) => Vec::new(),
            Some(_) => return Err("added_tokens is not a list".into()),
        };
        let mut rewrite = Self { added: Vec::new(), control: Vec::new(), renamed: HashMap::new(), unknown };
        for (index, token) in tokens.iter_mut().enumerate() {
            let token =
                token.as_object_mut().ok_or_else(|| format!("added_tokens[{index}] is not an object"))?;
            let content = match token.get("content") {
                Some(Value::String(content)) if !content.is_empty() => content.clone(),
                _ => return Err(format!("added_tokens[{index}] has no content")),
            };
            let flag = |name: &str| token.get(name).and_then(Value::as_bool).unwrap_or(false);
            // Runs of spaces are added tokens of some vocabularies; they are ordinary text in every template.
            let is_written = !content.trim().is_empty() && written.iter().any(|text| text.contains(&content));
            rewrite.added.push(content.clone());
            if !flag("special") && !is_written {
                continue;
            }
            if is_written && (flag("lstrip") || flag("rstrip")) {
                return Err(format!(
                    "the template writes {content:?}, which takes white space off its neighbours"
                ));
            }
            rewrite.control.push(content.clone());
            token.insert("special".into(), Value::Bool(true));
            // The model looks its unknown token up by content, so that one keeps its name.
            let keeps_name = matches!(&rewrite.unknown, Some(Unknown::Content(name)) if *name == content);
            if !keeps_name {
                let count = rewrite.renamed.len();
                let name = rewrite
                    .renamed
                    .entry(content)
                    .or_insert_with(|| format!("\u{fdd0}\u{fdd1}{count}\u{fdd2}\u{fdd3}"));
                token.insert("content".into(), Value::String(name.clone()));
            }
        }
        root.insert("added_tokens".into(), Value::Array(tokens));
        if let Some(model) = root.get_mut("model") {
            rewrite.rename_in_model(model);
        }
        Ok(rewrite)
    }

    fn rename_in_model(&self, model: &mut Value) {
        match model.get_mut("vocab") {
            Some(Value::Object(vocab)) => {
                for (old, new) in &self.renamed {
                    if let Some(id) = vocab.remove(old) {
                        vocab.insert(new.clone(), id);
                    }
                }
            }
            Some(Value::Array(pieces)) => {
                for piece in pieces {
                    let content = piece.get_mut(0);
                    if let Some(Value::String(content)) = content
                        && let Some(new) = self.renamed.get(content.as_str())
                    {
                        content.clone_from(new);
                    }
                }
            }
            _ => {}
        }
        if let Some(Value::Array(merges)) = model.get_mut("merges") {
            let names: HashSet<&str> = self.renamed.keys().map(String::as_str).collect();
            let longest = names.iter().map(|name| name.len()).max().unwrap_or(0);
            let mut whole = String::new();
            // A merge that makes or takes a renamed token names a token that is no longer there.
            merges.retain(|merge| {
                let sides = match merge {
                    Value::String(line) => line.split_once(' '),
                    Value::Array(sides) => match sides.as_slice() {
                        [Value::String(left), Value::String(right)] => Some((left.as_str(), right.as_str())),
                        _ => None,
                    },
                    _ => None,
                };
                let Some((left, right)) = sides else { return true };
                if left.len() + right.len() > longest {
                    return !names.contains(left) && !names.contains(right);
                }
                whole.clear();
                whole.push_str(left);
                whole.push_str(right);
                !names.contains(left) && !names.contains(right) && !names.contains(whole.as_str())
            });
        }
    }
}

/// Whether the tokens of a text cut between a letter and a space before a letter are the first tokens of the whole.
/// That is known of these shapes and assumed of no other: words are split at spaces before the model sees them,
/// looking no further than one character beyond the space; normalisation is local; no added token that text may give
/// holds a space beside a letter.
fn cuts_at_spaces(json: &Value) -> bool {
    let kind = |value: &Value| value.get("type").and_then(Value::as_str).unwrap_or("").to_string();
    let parts = |value: Option<&Value>, list: &str| -> Vec<Value> {
        match value {
            None | Some(Value::Null) => vec![],
            Some(value) if kind(value) == "Sequence" => {
                value.get(list).and_then(Value::as_array).cloned().unwrap_or_default()
            }
            Some(value) => vec![value.clone()],
        }
    };
    let local =
        ["BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "StripAccents", "Strip", "Precompiled"];
    if !parts(json.get("normalizer"), "normalizers").iter().all(|part| local.contains(&kind(part).as_str())) {
        return false;
    }
    let words = parts(json.get("pre_tokenizer"), "pretokenizers");
    let splits = words.first().is_some_and(|first| match kind(first).as_str() {
        "BertPreTokenizer" | "WhitespaceSplit" => true,
        "Metaspace" => first.get("split").and_then(Value::as_bool).unwrap_or(true),
        "ByteLevel" => first.get("use_regex").and_then(Value::as_bool).unwrap_or(true),
        "Split" => {
            let pattern = first.pointer("/pattern/Regex").and_then(Value::as_str).unwrap_or("");
            KNOWN_SPLITS.contains(&pattern)
                && first.get("behavior").and_then(Value::as_str) == Some("Isolated")
        }
        _ => false,
    });
    let added = json.get("added_tokens").and_then(Value::as_array);
    let plain = added.is_none_or(|tokens| {
        tokens.iter().all(|token| {
            let content = token.get("content").and_then(Value::as_str).unwrap_or("");
            let flag = |name: &str| token.get(name).and_then(Value::as_bool).unwrap_or(false);
            flag("special") || !content.contains(' ') || content.trim().is_empty()
        })
    });
    splits && plain
}

/// The word patterns of GPT-2 and of Qwen2: both begin a new word at " x".
const KNOWN_SPLITS: [&str; 2] = [
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> Vec<u8> {
        std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name).join(TOKENIZER_FILE))
            .unwrap()
    }

    /// The library's tokenizer of a file whose vocabulary is read apart, and of the whole file.
    fn both(bytes: &[u8], written: &[&str]) -> Option<(String, String)> {
        let (mut json, mut vocabulary) = Vocabulary::apart(bytes)?;
        let rewrite = Rewrite::apply(&mut json, written).unwrap();
        vocabulary.rename(&rewrite.renamed);
        let (apart, pieces) = vocabulary.into_tokenizer(json, &rewrite).unwrap();
        assert!(pieces.is_some());
        let mut json: Value = serde_json::from_slice(bytes).unwrap();
        Rewrite::apply(&mut json, written).unwrap();
        let whole: tokenizers::Tokenizer = serde_json::from_value(json).unwrap();
        Some((apart.to_string(false).unwrap(), whole.to_string(false).unwrap()))
    }

    #[test]
    fn a_vocabulary_that_is_read_apart_makes_the_same_tokenizer() {
        for name in ["models/default", "testdata/tiny-bert", "testdata/tiny-electra", "testdata/tiny-mpnet"] {
            let (apart, whole) = both(&file(name), &[]).unwrap();
            assert_eq!(apart, whole, "{name}");
        }
        // Added tokens that are not in the vocabulary, one of them written by the template; ids with gaps.
        let bytes = br###"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [
            {"id": 9, "content": "[UNK]", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
            {"id": 5, "content": "new", "single_word": true, "lstrip": false, "rstrip": false, "normalized": true, "special": false},
            {"id": 6, "content": "<w>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": false},
            {"id": 3, "content": "ab", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
            "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
                "vocab": {"[UNK]": 9, "a": 1, "##b": 2, "ab": 3, "c": 4}}}"###;
        let (apart, whole) = both(bytes, &["it is <w> here"]).unwrap();
        assert_eq!(apart, whole);
        assert!(whole.contains("\u{fdd0}"), "{whole}");
    }

    #[test]
    fn other_files_are_read_as_a_whole() {
        for name in ["testdata/tiny-qwen3", "testdata/tiny-xlm-roberta"] {
            assert!(Vocabulary::apart(&file(name)).is_none(), "{name}");
        }
        for broken in [&b""[..], b"[]", b"{}", br#"{"model": {"type": "WordPiece"}}"#] {
            assert!(Vocabulary::apart(broken).is_none());
        }
    }
}
