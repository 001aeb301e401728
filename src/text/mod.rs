//! From two texts to the token ids that a model was trained on: tokenizer, templates, truncation, windows.
//!
//! What holds for every model:
//! - Text never becomes a special token, whatever it spells ([`Tokenizer`]).
//! - A pair has at most `max_length` tokens. Only document tokens are cut, from the end; a query is cut only if it
//!   would take more than three quarters of the room; the template is never cut.
//! - Positions in a document are Unicode code points of the text as given.

mod chat;
mod pair;
mod single;
mod tokenizer;
mod window;
mod wordpiece;

use std::borrow::Cow;
use std::ops::Range;

use serde_json::Value;

pub use chat::{AnswerTokens, ChatTemplate};
pub use single::SingleEncoder;
pub use tokenizer::{Tokenizer, Tokens};
pub use window::WindowOptions;

use crate::error::{Error, Result};
use crate::files::ModelFiles;
use chat::{Hole, Piece, Trim};
use pair::PairTemplate;
use tokenizer::{BYTES_PER_TOKEN, Fixed};

/// The largest share of the room (`max_length` without the template) that a query may take: 3/4, as in the authors'
/// code of mxbai-rerank-v2. A longer query is cut to it, since a pair without any document can only score alike.
const QUERY_SHARE: (usize, usize) = (3, 4);

/// How a pair is written for the model.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TemplateKind {
    /// An encoder's pair: the tokenizer's own post-processor puts the special tokens in.
    Pair,
    /// A decoder's prompt.
    Chat(ChatTemplate),
}

impl TemplateKind {
    /// Everything that the template writes itself.
    pub(crate) fn written(&self) -> Vec<&str> {
        match self {
            Self::Pair => Vec::new(),
            Self::Chat(chat) => chat.written(),
        }
    }

    /// Reads off the folder which template the model was trained with. `config` is `config.json`.
    ///
    /// Encoders take the pair template. Decoders take the folder's own template if it has one with the roles `query`
    /// and `document` (sentence-transformers 6); otherwise the recipe of their family: zerank if the folder names it
    /// or scores "Yes" alone, Qwen3-Reranker for Qwen3, mxbai-rerank-v2 for Qwen2.
    ///
    /// # Errors
    /// [`Error::Config`] for a decoder of another family without a template, [`Error::Template`], and those of
    /// reading the files.
    pub fn detect(files: &ModelFiles, config: &Value) -> Result<Self> {
        let text = |field: &str| config.get(field).and_then(Value::as_str).unwrap_or("");
        let model_type = text("model_type");
        let architecture = config.pointer("/architectures/0").and_then(Value::as_str).unwrap_or("");
        let is_decoder = architecture.ends_with("ForCausalLM") || DECODERS.contains(&model_type);
        if !is_decoder {
            return Ok(Self::Pair);
        }
        if let Some(template) = ChatTemplate::from_folder(files)? {
            return Ok(Self::Chat(template));
        }
        match model_type {
            "qwen3" if is_zerank(files, config)? => Ok(Self::Chat(ChatTemplate::zerank())),
            "qwen3" => Ok(Self::Chat(ChatTemplate::qwen3_reranker())),
            "qwen2" => Ok(Self::Chat(ChatTemplate::mxbai_v2())),
            _ => Err(Error::Config {
                file: files.name_of("config.json"),
                field: "model_type".into(),
                problem: format!(
                    "no template is known for {model_type:?}; the folder needs a chat_template.jinja with the roles \
                     \"query\" and \"document\""
                ),
            }),
        }
    }

    /// A short name, for `inspect`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pair => "pair",
            Self::Chat(template) => template.name(),
        }
    }

    /// The answer tokens of a built-in recipe ([`ChatTemplate::answer_tokens`]).
    #[must_use]
    pub fn answer_tokens(&self) -> Option<AnswerTokens> {
        match self {
            Self::Pair => None,
            Self::Chat(template) => template.answer_tokens(),
        }
    }
}

/// Model types that are language models, whatever head was put on them.
const DECODERS: [&str; 6] = ["qwen2", "qwen3", "llama", "mistral", "gemma", "gemma2"];

/// The id of "Yes" in Qwen's vocabulary.
const QWEN_YES: u64 = 9454;

/// Whether a Qwen3 folder is one of ZeroEntropy's: it names its own code, or its head is the logit of "Yes" alone.
pub(crate) fn is_zerank(files: &ModelFiles, config: &Value) -> Result<bool> {
    let named =
        |value: Option<&Value>| value.is_some_and(|v| v.to_string().to_lowercase().contains("zerank"));
    if named(config.get("auto_map"))
        || named(config.get("_name_or_path"))
        || files.exists("modeling_zeranker.py")
    {
        return Ok(true);
    }
    let modules: Option<Value> = files.optional_json("modules.json")?;
    for module in modules.as_ref().and_then(Value::as_array).into_iter().flatten() {
        let field = |name: &str| module.get(name).and_then(Value::as_str).unwrap_or("");
        if !field("type").ends_with("LogitScore") {
            continue;
        }
        let head: Option<Value> = files.optional_json(&format!("{}/config.json", field("path")))?;
        let id = |name: &str| head.as_ref().and_then(|head| head.get(name)?.as_u64());
        if id("true_token_id") == Some(QWEN_YES) && id("false_token_id").is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A query, tokenised once for all documents of a request.
#[derive(Debug, Clone)]
pub struct EncodedQuery {
    query: String,
    instruction: Option<String>,
    /// The largest pair it was encoded for.
    max_length: usize,
    /// Tokens of the template without query and document.
    overhead: usize,
    /// Tokens of the query.
    length: usize,
    truncated: bool,
    form: QueryForm,
}

#[derive(Debug, Clone)]
enum QueryForm {
    Pair(Vec<u32>),
    Chat(Box<Prompt>),
}

impl EncodedQuery {
    /// Whether the query was cut.
    #[must_use]
    pub fn truncated(&self) -> bool {
        self.truncated
    }
}

/// A pair as the model reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EncodedPair {
    /// Token ids, at most `max_length`.
    pub input_ids: Vec<u32>,
    /// Segment ids, as many as `input_ids`; for models that have such embeddings.
    pub token_type_ids: Vec<u8>,
    /// Whether the end of the query is missing.
    pub query_truncated: bool,
    /// Whether the end of the document is missing, here or (of a window) in all windows together.
    pub document_truncated: bool,
}

impl EncodedPair {
    /// Whether anything was cut.
    #[must_use]
    pub fn truncated(&self) -> bool {
        self.query_truncated || self.document_truncated
    }
}

/// A pair of the query and one window of the document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedWindow {
    /// What the model reads.
    pub pair: EncodedPair,
    /// The window in the document, in Unicode code points, half open.
    pub span: Range<usize>,
}

/// Writes queries and documents for one model.
#[derive(Debug)]
pub struct TextEncoder {
    tokenizer: Tokenizer,
    layout: Layout,
    max_length: usize,
}

#[derive(Debug)]
enum Layout {
    Pair(PairTemplate),
    Chat(Box<Chat>),
}

/// A chat template whose fixed text is split at control tokens.
#[derive(Debug)]
struct Chat {
    template: ChatTemplate,
    plain: Option<Vec<Segment>>,
    instructed: Option<Vec<Segment>>,
}

#[derive(Debug, Clone)]
enum Segment {
    Control(u32),
    /// Tokenised as one string, since tokens may reach over the borders of its parts.
    Span(Vec<Part>),
}

#[derive(Debug, Clone)]
enum Part {
    Text(String),
    Hole(Hole, Trim),
}

/// A chat template with the query in it.
#[derive(Debug, Clone)]
struct Prompt {
    /// Ids before the span that holds the document.
    head: Vec<u32>,
    /// Text of that span before and after the document, and the ids of each by itself.
    before: String,
    after: String,
    before_ids: Vec<u32>,
    after_ids: Vec<u32>,
    /// Ids after that span.
    tail: Vec<u32>,
    /// How the template strips the document.
    trim: Trim,
}

impl Prompt {
    fn overhead(&self) -> usize {
        self.head.len() + self.before_ids.len() + self.after_ids.len() + self.tail.len()
    }
}

/// The tokens of the span that holds the document.
struct SpanTokens {
    before: Vec<u32>,
    document: Vec<u32>,
    /// Where the document's tokens lie in the stripped document.
    offsets: Vec<(usize, usize)>,
    /// `None` if the span was not read to its end.
    after: Option<Vec<u32>>,
}

impl TextEncoder {
    /// Reads the tokenizer and fits the template to it. `max_length` is the model's largest pair, in tokens.
    ///
    /// # Errors
    /// Those of [`Tokenizer::load`]; [`Error::NoRoom`] if `max_length` does not hold the template and two tokens.
    pub fn load(files: &ModelFiles, template: TemplateKind, max_length: usize) -> Result<Self> {
        let tokenizer = Tokenizer::load(files, &template.written())?;
        Self::new(tokenizer, template, max_length)
    }

    /// As [`TextEncoder::load`], with the tokenizer read already.
    pub(crate) fn new(tokenizer: Tokenizer, template: TemplateKind, max_length: usize) -> Result<Self> {
        let layout = match template {
            TemplateKind::Pair => Layout::Pair(PairTemplate::learn(&tokenizer)?),
            TemplateKind::Chat(template) => {
                let split = |pieces: Option<&[Piece]>| pieces.map(|pieces| segments(&tokenizer, pieces));
                let (plain, instructed) = (split(template.plain()), split(template.instructed()));
                Layout::Chat(Box::new(Chat { template, plain, instructed }))
            }
        };
        let encoder = Self { tokenizer, layout, max_length };
        encoder.encode_query("", None)?;
        Ok(encoder)
    }

    /// The model's largest pair, in tokens.
    #[must_use]
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The id of a token by its exact content.
    #[must_use]
    pub fn token_id(&self, content: &str) -> Option<u32> {
        self.tokenizer.token_id(content)
    }

    /// The template's name, for `inspect`.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.layout {
            Layout::Pair(_) => TemplateKind::Pair.name().to_string(),
            Layout::Chat(chat) => chat.template.name().to_string(),
        }
    }

    /// Whether the template is the recipe of zerank's original folders, whose score is `sigmoid(logit / 5)`.
    #[must_use]
    pub fn is_zerank(&self) -> bool {
        matches!(&self.layout, Layout::Chat(chat) if chat.template.is_zerank())
    }

    /// Whether the template has a place for an instruction.
    #[must_use]
    pub fn takes_instruction(&self) -> bool {
        matches!(&self.layout, Layout::Chat(chat) if chat.template.takes_instruction())
    }

    /// Tokenises a query for pairs of at most the model's length. Without `instruction` the template's default is
    /// used.
    ///
    /// # Errors
    /// [`Error::Encode`]; [`Error::InvalidOption`] for an instruction that the template has no place for, unless it is empty.
    pub fn encode_query(&self, query: &str, instruction: Option<&str>) -> Result<EncodedQuery> {
        self.encode_query_within(query, instruction, self.max_length)
    }

    /// As [`TextEncoder::encode_query`], for pairs of at most `max_length` tokens (of the model's, if that is less).
    ///
    /// # Errors
    /// As there, and [`Error::NoRoom`] if `max_length` does not hold the template and two tokens.
    pub fn encode_query_within(
        &self,
        query: &str,
        instruction: Option<&str>,
        max_length: usize,
    ) -> Result<EncodedQuery> {
        let max_length = max_length.min(self.max_length);
        match &self.layout {
            Layout::Pair(template) => {
                if instruction.is_some_and(|text| !text.is_empty()) {
                    return Err(no_instruction());
                }
                let overhead = template.overhead();
                let limit = query_limit(max_length, overhead)?;
                let mut ids = self.tokenizer.encode_start(query, limit, "query")?;
                let truncated = ids.len() > limit;
                ids.truncate(limit);
                Ok(EncodedQuery {
                    query: query.to_string(),
                    instruction: None,
                    max_length,
                    overhead,
                    length: ids.len(),
                    truncated,
                    form: QueryForm::Pair(ids),
                })
            }
            Layout::Chat(chat) => self.encode_chat_query(chat, query, instruction, max_length),
        }
    }

    fn encode_chat_query(
        &self,
        chat: &Chat,
        query: &str,
        instruction: Option<&str>,
        max_length: usize,
    ) -> Result<EncodedQuery> {
        let given = instruction.or(chat.template.default_instruction());
        let (segments, used) = match (given, &chat.plain, &chat.instructed) {
            (Some(text), _, Some(segments)) => (segments, text),
            (Some(""), Some(segments), None) => (segments, ""),
            (Some(_), _, None) => return Err(no_instruction()),
            (None, Some(segments), _) => (segments, ""),
            (None, None, _) => {
                let problem = "this model's template needs one".into();
                return Err(Error::InvalidOption { option: "instruction", problem });
            }
        };
        let overhead = self.prompt(segments, "", used)?.overhead();
        let limit = query_limit(max_length, overhead)?;

        let tokens = self.tokenizer.encode_start_with_offsets(query, limit, "query")?;
        let mut keep = limit;
        let mut truncated = tokens.ids.len() > limit;
        loop {
            let text = if truncated { code_points(query, 0, tokens.offsets[keep].0) } else { query };
            let prompt = self.prompt(segments, text, used)?;
            // Within the span the query may take a token more than alone.
            let excess = prompt.overhead().saturating_sub(overhead + limit);
            if excess == 0 || keep == 0 || tokens.ids.is_empty() {
                return Ok(EncodedQuery {
                    query: query.to_string(),
                    instruction: instruction.map(str::to_string),
                    max_length,
                    overhead,
                    length: prompt.overhead().saturating_sub(overhead),
                    truncated,
                    form: QueryForm::Chat(Box::new(prompt)),
                });
            }
            truncated = true;
            keep = keep.min(tokens.ids.len()).saturating_sub(excess);
        }
    }

    /// Puts query and instruction into a chat template.
    fn prompt(&self, segments: &[Segment], query: &str, instruction: &str) -> Result<Prompt> {
        let mut prompt = Prompt {
            head: Vec::new(),
            before: String::new(),
            after: String::new(),
            before_ids: Vec::new(),
            after_ids: Vec::new(),
            tail: Vec::new(),
            trim: Trim::default(),
        };
        let mut seen_document = false;
        for segment in segments {
            let parts = match segment {
                Segment::Control(id) => {
                    if seen_document { &mut prompt.tail } else { &mut prompt.head }.push(*id);
                    continue;
                }
                Segment::Span(parts) => parts,
            };
            let mut text = String::new();
            let mut before = None;
            for part in parts {
                match part {
                    Part::Text(written) => text.push_str(written),
                    Part::Hole(Hole::Query, trim) => text.push_str(trim.apply(query).0),
                    Part::Hole(Hole::Instruction, trim) => text.push_str(trim.apply(instruction).0),
                    Part::Hole(Hole::Document, trim) => {
                        prompt.trim = *trim;
                        before = Some(std::mem::take(&mut text));
                    }
                }
            }
            if let Some(before) = before {
                seen_document = true;
                prompt.before_ids = self.tokenizer.encode(&before, "query")?;
                prompt.after_ids = self.tokenizer.encode(&text, "query")?;
                prompt.before = before;
                prompt.after = text;
            } else {
                let ids = self.tokenizer.encode(&text, "query")?;
                if seen_document { &mut prompt.tail } else { &mut prompt.head }.extend(ids);
            }
        }
        Ok(prompt)
    }

    /// The first `tokens` tokens of a document, as text.
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub(crate) fn start<'d>(&self, document: &'d str, tokens: usize) -> Result<&'d str> {
        let found = self.tokenizer.encode_start_with_offsets(document, tokens, "document")?;
        if found.ids.len() <= tokens {
            return Ok(document);
        }
        let end = tokens.checked_sub(1).map_or(0, |last| found.offsets[last].1);
        Ok(code_points(document, 0, end))
    }

    /// The query for pairs of at most `max_length` tokens: as it is if it fits, else encoded anew.
    fn fitted<'q>(&self, query: &'q EncodedQuery, max_length: usize) -> Result<Cow<'q, EncodedQuery>> {
        let limit = query_limit(max_length, query.overhead)?;
        if query.length <= limit && (!query.truncated || max_length <= query.max_length) {
            return Ok(Cow::Borrowed(query));
        }
        let instruction = query.instruction.as_deref();
        self.encode_query_within(&query.query, instruction, max_length).map(Cow::Owned)
    }

    /// Writes a pair of at most `max_length` tokens (of the model's, if that is less); a document that is too long is
    /// cut at its end.
    ///
    /// # Errors
    /// [`Error::Encode`]; [`Error::NoRoom`] if `max_length` does not hold the template and two tokens.
    pub fn encode_pair(
        &self,
        query: &EncodedQuery,
        document: &str,
        max_length: usize,
    ) -> Result<EncodedPair> {
        let max_length = max_length.min(self.max_length);
        let query = &*self.fitted(query, max_length)?;
        match (&self.layout, &query.form) {
            (Layout::Pair(template), QueryForm::Pair(ids)) => {
                let room = max_length.saturating_sub(template.overhead() + ids.len());
                let mut tokens = self.tokenizer.encode_start(document, room, "document")?;
                let document_truncated = tokens.len() > room;
                tokens.truncate(room);
                Ok(pair(query, template.fill(ids, &tokens), document_truncated))
            }
            (_, QueryForm::Chat(prompt)) => {
                let (document, _) = prompt.trim.apply(document);
                let span = self.span(prompt, document, max_length)?;
                if let Some(ids) = whole(prompt, &span, max_length) {
                    return Ok(pair(query, (ids, vec![]), false));
                }
                let around =
                    prompt.head.len() + span.before.len() + prompt.after_ids.len() + prompt.tail.len();
                let room = room(max_length, around)?.min(span.document.len());
                let parts =
                    [&prompt.head, &span.before, &span.document[..room], &prompt.after_ids, &prompt.tail];
                Ok(pair(query, (parts.concat(), vec![]), true))
            }
            (Layout::Chat(_), QueryForm::Pair(_)) => Err(foreign_query()),
        }
    }

    /// Writes a pair for every window over a document, in the order of the document. A document that fits, an empty
    /// one too, is one window. Every window's end but the last one's, and every window's start but the first one's,
    /// is where a token ends or starts.
    ///
    /// # Errors
    /// Those of [`TextEncoder::encode_pair`]; [`Error::InvalidOption`] for a stride or number of windows of 0.
    pub fn encode_windows(
        &self,
        query: &EncodedQuery,
        document: &str,
        max_length: usize,
        options: &WindowOptions,
    ) -> Result<Vec<EncodedWindow>> {
        options.check()?;
        let max_length = max_length.min(self.max_length);
        let query = &*self.fitted(query, max_length)?;
        // A window is shorter because the pair is.
        let max_length = options.tokens.map_or(max_length, |tokens| {
            query.overhead.saturating_add(query.length).saturating_add(tokens).min(max_length)
        });
        match (&self.layout, &query.form) {
            (Layout::Pair(template), QueryForm::Pair(ids)) => {
                let room = room(max_length, template.overhead() + ids.len())?;
                let limit = options.reach(room);
                let tokens = self.tokenizer.encode_start_with_offsets(document, limit, "document")?;
                let place = Place { document, skipped: 0, offsets: &tokens.offsets, room };
                Ok(place.windows(query, options, |window, _| template.fill(ids, &tokens.ids[window])))
            }
            (_, QueryForm::Chat(prompt)) => {
                let (stripped, skipped) = prompt.trim.apply(document);
                let limit = options.reach(max_length);
                let span = self.span(prompt, stripped, limit)?;
                if let Some(ids) = whole(prompt, &span, max_length) {
                    let pair = pair(query, (ids, vec![]), false);
                    return Ok(vec![EncodedWindow { pair, span: 0..document.chars().count() }]);
                }
                let after = span.after.as_ref().unwrap_or(&prompt.after_ids);
                let before_len = span.before.len().max(prompt.before_ids.len());
                let after_len = after.len().max(prompt.after_ids.len());
                let around = prompt.head.len() + before_len + after_len + prompt.tail.len();
                let room = room(max_length, around)?;
                let place = Place { document, skipped, offsets: &span.offsets, room };
                Ok(place.windows(query, options, |window, is_last| {
                    // The first tokens of the document may be joined to the template's text before it, and the last
                    // ones to the text after it.
                    let before = if window.start == 0 { &span.before } else { &prompt.before_ids };
                    let after = if is_last { after } else { &prompt.after_ids };
                    let parts = [&prompt.head, before, &span.document[window], after, &prompt.tail];
                    (parts.concat(), vec![])
                }))
            }
            (Layout::Chat(_), QueryForm::Pair(_)) => Err(foreign_query()),
        }
    }

    /// Tokenises the span that holds the document: all of it, or so much that more than `limit` document tokens are
    /// known.
    fn span(&self, prompt: &Prompt, document: &str, limit: usize) -> Result<SpanTokens> {
        let start = prompt.before.chars().count();
        let mut whole = String::with_capacity(prompt.before.len() + prompt.after.len());
        let mut bytes = limit.saturating_add(1).saturating_mul(BYTES_PER_TOKEN);
        loop {
            let prefix = self.tokenizer.prefix(document, bytes);
            whole.clear();
            whole.push_str(&prompt.before);
            whole.push_str(prefix.unwrap_or(document));
            if prefix.is_none() {
                whole.push_str(&prompt.after);
            }
            let Tokens { ids, offsets } = self.tokenizer.encode_with_offsets(&whole, "document")?;
            let end = start + prefix.unwrap_or(document).chars().count();
            let first = offsets.iter().position(|(begin, _)| *begin >= start).unwrap_or(ids.len());
            let last =
                offsets.iter().rposition(|(begin, _)| *begin < end).map_or(0, |index| index + 1).max(first);
            if prefix.is_some() && last - first <= limit {
                bytes = bytes.saturating_mul(4);
                continue;
            }
            let inside =
                |(begin, stop): &(usize, usize)| (begin - start, (*stop).min(end).max(*begin) - start);
            return Ok(SpanTokens {
                before: ids[..first].to_vec(),
                document: ids[first..last].to_vec(),
                offsets: offsets[first..last].iter().map(inside).collect(),
                after: prefix.is_none().then(|| ids[last..].to_vec()),
            });
        }
    }
}

/// A document that does not fit, and where its tokens lie in it.
struct Place<'a> {
    document: &'a str,
    /// Code points that the template strips off the document's start.
    skipped: usize,
    offsets: &'a [(usize, usize)],
    room: usize,
}

impl Place<'_> {
    /// Makes the windows; `write` gets the tokens of one and whether it ends the document.
    fn windows(
        &self,
        query: &EncodedQuery,
        options: &WindowOptions,
        write: impl Fn(Range<usize>, bool) -> (Vec<u32>, Vec<u8>),
    ) -> Vec<EncodedWindow> {
        let tokens = self.offsets.len();
        let (ranges, complete) = options.ranges(tokens, self.room);
        let make = |range: Range<usize>| {
            let is_last = complete && range.end == tokens;
            let start = if range.start == 0 { 0 } else { self.skipped + self.offsets[range.start].0 };
            let end = if is_last {
                self.document.chars().count()
            } else {
                self.skipped + self.offsets[range.end - 1].1
            };
            let pair = pair(query, write(range, is_last), !complete);
            EncodedWindow { pair, span: start..end.max(start) }
        };
        ranges.into_iter().map(make).collect()
    }
}

/// The ids of the pair, if the whole document fits.
fn whole(prompt: &Prompt, span: &SpanTokens, max_length: usize) -> Option<Vec<u32>> {
    let after = span.after.as_ref()?;
    let parts = [&prompt.head, &span.before, &span.document, after, &prompt.tail];
    let length: usize = parts.iter().map(|part| part.len()).sum();
    (length <= max_length).then(|| parts.map(Vec::as_slice).concat())
}

fn pair(query: &EncodedQuery, ids: (Vec<u32>, Vec<u8>), document_truncated: bool) -> EncodedPair {
    let (input_ids, mut token_type_ids) = ids;
    token_type_ids.resize(input_ids.len(), 0);
    EncodedPair { input_ids, token_type_ids, query_truncated: query.truncated, document_truncated }
}

fn room(max_length: usize, needed: usize) -> Result<usize> {
    match max_length.checked_sub(needed) {
        Some(room) if room > 0 => Ok(room),
        _ => Err(Error::NoRoom { max_length, needed }),
    }
}

/// The largest number of tokens of a query, where the template takes `overhead`: at least 1, and at least 1 less than
/// the room.
fn query_limit(max_length: usize, overhead: usize) -> Result<usize> {
    // One token of the query is needed before the first of the document.
    let room = room(max_length, overhead + 1)? + 1;
    Ok((room * QUERY_SHARE.0 / QUERY_SHARE.1).max(1))
}

fn no_instruction() -> Error {
    Error::InvalidOption {
        option: "instruction",
        problem: "this model's template has no place for one".into(),
    }
}

fn foreign_query() -> Error {
    Error::InvalidOption { option: "query", problem: "it was encoded for a model of another kind".into() }
}

/// The part of a text between two positions in code points.
fn code_points(text: &str, start: usize, end: usize) -> &str {
    let byte = |position: usize| text.char_indices().nth(position).map_or(text.len(), |(at, _)| at);
    &text[byte(start)..byte(end)]
}

/// Splits a template's pieces at control tokens and breaks.
fn segments(tokenizer: &Tokenizer, pieces: &[Piece]) -> Vec<Segment> {
    let mut segments = Vec::new();
    let mut parts: Vec<Part> = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Fixed(text) => {
                for part in tokenizer.split(text) {
                    match part {
                        Fixed::Text(text) => parts.push(Part::Text(text.to_string())),
                        Fixed::Control(id) => {
                            close(&mut segments, &mut parts);
                            segments.push(Segment::Control(id));
                        }
                    }
                }
            }
            Piece::Hole(hole, trim) => parts.push(Part::Hole(*hole, *trim)),
            Piece::Break => close(&mut segments, &mut parts),
        }
    }
    close(&mut segments, &mut parts);
    segments
}

fn close(segments: &mut Vec<Segment>, parts: &mut Vec<Part>) {
    if !parts.is_empty() {
        segments.push(Segment::Span(std::mem::take(parts)));
    }
}
