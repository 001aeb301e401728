//! Chat templates of decoders: the text that a language model was trained to judge, with holes for query, document
//! and instruction.
//!
//! A template comes from the model folder (Jinja, in the form of sentence-transformers 6: messages with the roles
//! `system`, `query`, `document`), or is one of the built-in recipes of models that were published without one. Jinja
//! runs at load only: what it renders around stand-ins becomes a list of pieces, and a template that does anything to
//! a text but put it somewhere, stripped or not, is refused. So no user text ever meets the template engine.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::files::ModelFiles;

/// Steps that a template may take; the longest published one takes a few thousand.
const JINJA_FUEL: u64 = 1_000_000;
/// Nesting of macros and includes.
const JINJA_RECURSION: usize = 50;
/// The longest published chat template has about 20 kB.
const MAX_TEMPLATE_BYTES: usize = 256 << 10;

const QWEN3_PREFIX: &str = "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query \
    and the Instruct provided. Note that the answer can only be \"yes\" or \"no\".<|im_end|>\n<|im_start|>user\n";
const QWEN3_SUFFIX: &str = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n";
const QWEN3_INSTRUCTION: &str = "Given a web search query, retrieve relevant passages that answer the query";
const MXBAI_PREFIX: &str = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful \
    assistant.<|im_end|>\n<|im_start|>user\n";
const MXBAI_TASK: &str = "You are a search relevance expert who evaluates how well documents match search queries. \
    For each query-document pair, carefully analyze the semantic relationship between them, then provide your binary \
    relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:";
const MXBAI_SUFFIX: &str = "<|im_end|>\n<|im_start|>assistant\n";

const ZERANK: &str = "zerank";

/// The tokens whose logits answer a built-in recipe's question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerTokens {
    /// The token that says "relevant".
    pub positive: &'static str,
    /// The token whose logit is subtracted, if there is one.
    pub negative: Option<&'static str>,
}

/// A decoder's template, as pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatTemplate {
    name: &'static str,
    file: String,
    plain: Option<Vec<Piece>>,
    instructed: Option<Vec<Piece>>,
    default_instruction: Option<String>,
    answer: Option<AnswerTokens>,
}

/// One piece of a rendered template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Text of the template.
    Fixed(String),
    /// A hole for a text.
    Hole(Hole, Trim),
    /// Here the authors tokenise what comes before and after apart from each other.
    Break,
}

/// Which text goes into a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hole {
    Query,
    Document,
    Instruction,
}

/// On which sides a template strips white space off a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Trim {
    pub(crate) start: bool,
    pub(crate) end: bool,
}

impl Trim {
    const NONE: Self = Self { start: false, end: false };
    const BOTH: Self = Self { start: true, end: true };

    /// The text as the template puts it in, and the number of code points stripped off its start.
    pub(crate) fn apply(self, text: &str) -> (&str, usize) {
        let mut inner = text;
        if self.start {
            inner = inner.trim_start_matches(is_python_space);
        }
        let skipped = text[..text.len() - inner.len()].chars().count();
        if self.end {
            inner = inner.trim_end_matches(is_python_space);
        }
        (inner, skipped)
    }
}

/// What Python's `str.strip` strips: `White_Space` and the four separators of ASCII.
fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn fixed(text: &str) -> Piece {
    Piece::Fixed(text.to_string())
}

impl ChatTemplate {
    /// The recipe of Qwen3-Reranker 0.6B, 4B and 8B as its authors publish it.
    #[must_use]
    pub fn qwen3_reranker() -> Self {
        let pieces = vec![
            fixed(QWEN3_PREFIX),
            Piece::Break,
            fixed("<Instruct>: "),
            Piece::Hole(Hole::Instruction, Trim::NONE),
            fixed("\n<Query>: "),
            Piece::Hole(Hole::Query, Trim::NONE),
            fixed("\n<Document>: "),
            Piece::Hole(Hole::Document, Trim::NONE),
            Piece::Break,
            fixed(QWEN3_SUFFIX),
        ];
        Self {
            name: "qwen3-reranker",
            file: "built-in template qwen3-reranker".into(),
            plain: None,
            instructed: Some(pieces),
            default_instruction: Some(QWEN3_INSTRUCTION.into()),
            answer: Some(AnswerTokens { positive: "yes", negative: Some("no") }),
        }
    }

    /// The recipe of zerank-1, zerank-1-small and zerank-2: query as system, document as user message.
    #[must_use]
    pub fn zerank() -> Self {
        let document = [
            fixed("<|im_end|>\n<|im_start|>user\n"),
            Piece::Hole(Hole::Document, Trim::BOTH),
            fixed("<|im_end|>\n<|im_start|>assistant\n"),
        ];
        let system = fixed("<|im_start|>system\n");
        let plain = [system, Piece::Hole(Hole::Query, Trim::BOTH)].into_iter().chain(document.clone());
        let instructed = [
            fixed("<|im_start|>system\n<query>"),
            Piece::Hole(Hole::Query, Trim::NONE),
            fixed("</query>\n<instruction>"),
            Piece::Hole(Hole::Instruction, Trim::NONE),
            fixed("</instruction>"),
        ];
        Self {
            name: ZERANK,
            file: "built-in template zerank".into(),
            plain: Some(plain.collect()),
            instructed: Some(merged(instructed.into_iter().chain(document))),
            default_instruction: None,
            answer: Some(AnswerTokens { positive: "Yes", negative: None }),
        }
    }

    /// The recipe of mxbai-rerank-base-v2 and -large-v2. The authors tokenise it in seven pieces.
    #[must_use]
    pub fn mxbai_v2() -> Self {
        let tail = [
            Piece::Break,
            fixed("\n"),
            Piece::Break,
            fixed("document: "),
            Piece::Hole(Hole::Document, Trim::NONE),
            Piece::Break,
            fixed("\n"),
            Piece::Break,
            fixed(MXBAI_TASK),
            Piece::Break,
            fixed(MXBAI_SUFFIX),
        ];
        let query = Piece::Hole(Hole::Query, Trim::NONE);
        let plain = [fixed(MXBAI_PREFIX), Piece::Break, fixed("query: "), query.clone()];
        let instructed = [
            fixed(MXBAI_PREFIX),
            Piece::Break,
            fixed("instruction: "),
            Piece::Hole(Hole::Instruction, Trim::NONE),
            fixed("\nquery: "),
            query,
        ];
        Self {
            name: "mxbai-rerank-v2",
            file: "built-in template mxbai-rerank-v2".into(),
            plain: Some(plain.into_iter().chain(tail.clone()).collect()),
            instructed: Some(instructed.into_iter().chain(tail).collect()),
            default_instruction: None,
            answer: Some(AnswerTokens { positive: "1", negative: Some("0") }),
        }
    }

    /// The folder's own template, if it has one that knows the roles `query` and `document`: `chat_template.jinja`,
    /// or `chat_template` of `tokenizer_config.json`. The default prompt of `config_sentence_transformers.json`
    /// becomes the default instruction.
    ///
    /// # Errors
    /// [`Error::Template`] for a template that fails, does not end, or changes the texts it is given; those of
    /// [`ModelFiles::read`] and [`Error::Json`].
    pub fn from_folder(files: &ModelFiles) -> Result<Option<Self>> {
        let config: Option<Value> = files.optional_json("tokenizer_config.json")?;
        let config = config.unwrap_or(Value::Null);
        let (file, source) = if files.exists("chat_template.jinja") {
            let file = files.name_of("chat_template.jinja");
            let bytes = files.read("chat_template.jinja")?;
            match std::str::from_utf8(&bytes) {
                Ok(text) => (file, text.to_string()),
                Err(error) => return Err(Error::Template { file, problem: error.to_string() }),
            }
        } else {
            let named = |value: &Value| {
                let list = value.as_array()?;
                let entry =
                    list.iter().find(|entry| entry.get("name").and_then(Value::as_str) == Some("default"))?;
                Some(entry.get("template")?.as_str()?.to_string())
            };
            let value = config.get("chat_template").unwrap_or(&Value::Null);
            let Some(source) = value.as_str().map(str::to_string).or_else(|| named(value)) else {
                return Ok(None);
            };
            (files.name_of("tokenizer_config.json"), source)
        };
        let names =
            |role: &str| source.contains(&format!("\"{role}\"")) || source.contains(&format!("'{role}'"));
        if !names("query") || !names("document") {
            return Ok(None);
        }

        let transformer: Option<Value> = files.optional_json("sentence_bert_config.json")?;
        let transformer = transformer.unwrap_or(Value::Null);
        let mut context = serde_json::Map::new();
        for name in
            ["bos_token", "eos_token", "pad_token", "unk_token", "cls_token", "sep_token", "mask_token"]
        {
            let token = config.get(name);
            if let Some(content) = token.and_then(|t| t.as_str().or_else(|| t.get("content")?.as_str())) {
                context.insert(name.into(), content.into());
            }
        }
        context.insert("add_generation_prompt".into(), false.into());
        if let Some(Value::Object(given)) = transformer.pointer("/processing_kwargs/chat_template") {
            context.extend(given.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        let formats = match transformer.pointer("/modality_config/message/format").and_then(Value::as_str) {
            Some("structured") => [true].as_slice(),
            Some("flat") => &[false],
            _ => &[false, true],
        };

        let prompts: Option<Value> = files.optional_json("config_sentence_transformers.json")?;
        let default_instruction = prompts.as_ref().and_then(|prompts| {
            let name = prompts.get("default_prompt_name")?.as_str()?;
            let prompt = prompts.get("prompts")?.get(name)?.as_str()?;
            (!prompt.is_empty()).then(|| prompt.to_string())
        });
        Self::compile(&Jinja { file: &file, source: &source, context }, formats)
            .map(|template| Some(Self { default_instruction, ..template }))
    }

    fn compile(jinja: &Jinja<'_>, formats: &[bool]) -> Result<Self> {
        let mut first_error = None;
        for structured in formats {
            let plain = jinja.pieces(*structured, false);
            let instructed = jinja.pieces(*structured, true);
            match (plain, instructed) {
                (Err(error), Err(_)) => {
                    first_error.get_or_insert(error);
                }
                (plain, instructed) => {
                    return Ok(Self {
                        name: "chat_template",
                        file: jinja.file.to_string(),
                        plain: plain.ok(),
                        instructed: instructed.ok(),
                        default_instruction: None,
                        answer: None,
                    });
                }
            }
        }
        Err(first_error.unwrap_or_else(|| jinja.problem("no message format to try".into())))
    }

    /// A short name, for `inspect`: of the built-in recipe, or `chat_template` for the folder's own.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn is_zerank(&self) -> bool {
        self.name == ZERANK
    }

    /// The answer tokens of a built-in recipe; `None` for a folder's own template, whose head says them.
    #[must_use]
    pub fn answer_tokens(&self) -> Option<AnswerTokens> {
        self.answer
    }

    /// The instruction that is used when the caller gives none.
    #[must_use]
    pub fn default_instruction(&self) -> Option<&str> {
        self.default_instruction.as_deref()
    }

    /// Whether the template has a place for an instruction.
    #[must_use]
    pub fn takes_instruction(&self) -> bool {
        self.instructed.is_some()
    }

    pub(crate) fn plain(&self) -> Option<&[Piece]> {
        self.plain.as_deref()
    }

    pub(crate) fn instructed(&self) -> Option<&[Piece]> {
        self.instructed.as_deref()
    }

    /// Everything that the template writes itself.
    pub(crate) fn written(&self) -> Vec<&str> {
        let pieces = self.plain.iter().chain(&self.instructed).flatten();
        pieces
            .filter_map(|piece| if let Piece::Fixed(text) = piece { Some(text.as_str()) } else { None })
            .collect()
    }
}

/// Joins neighbouring fixed pieces.
fn merged(pieces: impl IntoIterator<Item = Piece>) -> Vec<Piece> {
    let mut joined: Vec<Piece> = Vec::new();
    for piece in pieces {
        match (joined.last_mut(), piece) {
            (Some(Piece::Fixed(text)), Piece::Fixed(more)) => text.push_str(&more),
            (_, Piece::Fixed(text)) if text.is_empty() => {}
            (_, piece) => joined.push(piece),
        }
    }
    joined
}

/// A Jinja template and what it sees beside the messages.
struct Jinja<'a> {
    file: &'a str,
    source: &'a str,
    context: serde_json::Map<String, Value>,
}

/// The three texts of one trial rendering.
struct Texts {
    query: String,
    document: String,
    instruction: String,
}

impl Texts {
    fn map(&self, change: impl Fn(&str) -> String) -> Self {
        Self {
            query: change(&self.query),
            document: change(&self.document),
            instruction: change(&self.instruction),
        }
    }

    fn get(&self, hole: Hole) -> &str {
        match hole {
            Hole::Query => &self.query,
            Hole::Document => &self.document,
            Hole::Instruction => &self.instruction,
        }
    }
}

impl Jinja<'_> {
    fn problem(&self, problem: String) -> Error {
        Error::Template { file: self.file.to_string(), problem }
    }

    /// Renders the template around stand-ins and reads its pieces off the result.
    fn pieces(&self, structured: bool, instructed: bool) -> Result<Vec<Piece>> {
        let names = Texts { query: "qXq7Q".into(), document: "dXd7D".into(), instruction: "iXi7I".into() };
        let rendered = self.render(structured, instructed, &names)?;
        let mut pieces = self.cut(&rendered, &names, instructed)?;

        // White space around the texts shows whether the template strips it.
        let padded = names.map(|name| format!(" \n\t{name}\t\n "));
        let rendered_padded = self.render(structured, instructed, &padded)?;
        let candidates =
            [Trim::NONE, Trim::BOTH, Trim { start: true, end: false }, Trim { start: false, end: true }];
        for index in 0..pieces.len() {
            let Piece::Hole(hole, _) = pieces[index] else { continue };
            let written = expand(&pieces[..index], &padded);
            let fits = |trim: &Trim| {
                let (text, _) = trim.apply(padded.get(hole));
                let next = match pieces.get(index + 1) {
                    Some(Piece::Fixed(next)) => next.as_str(),
                    _ => "",
                };
                let rest = rendered_padded.strip_prefix(written.as_str());
                rest.and_then(|rest| rest.strip_prefix(text)).is_some_and(|rest| {
                    rest.starts_with(next) && (index + 1 < pieces.len() || rest.is_empty())
                })
            };
            // The least stripping first: what is not seen is not assumed.
            if let Some(trim) = candidates.into_iter().find(fits) {
                pieces[index] = Piece::Hole(hole, trim);
            }
        }
        let long = names.map(|name| {
            let odd = " \"it's\" <b>&amp; ÀÉß 日本\u{301}\\n{{ x }}{% y %}\r\n\n  A.b_C*d\u{0}";
            format!("{name}{}{name}", odd.repeat(500))
        });
        for texts in [&padded, &long] {
            if self.render(structured, instructed, texts)? != expand(&pieces, texts) {
                return Err(self
                    .problem("the template changes the texts in another way than by stripping them".into()));
            }
        }
        Ok(pieces)
    }

    fn cut(&self, rendered: &str, names: &Texts, instructed: bool) -> Result<Vec<Piece>> {
        let mut pieces = Vec::new();
        let mut rest = rendered;
        loop {
            let next = [Hole::Query, Hole::Document, Hole::Instruction]
                .into_iter()
                .filter_map(|hole| rest.find(names.get(hole)).map(|at| (at, hole)))
                .min_by_key(|(at, _)| *at);
            let Some((at, hole)) = next else { break };
            pieces.push(fixed(&rest[..at]));
            pieces.push(Piece::Hole(hole, Trim::NONE));
            rest = &rest[at + names.get(hole).len()..];
        }
        pieces.push(fixed(rest));
        let count =
            |wanted| pieces.iter().filter(|p| matches!(p, Piece::Hole(hole, _) if *hole == wanted)).count();
        if count(Hole::Query) == 0 {
            return Err(self.problem("the template does not render the message of role \"query\"".into()));
        }
        if count(Hole::Document) != 1 {
            return Err(
                self.problem("the template does not render the message of role \"document\" once".into())
            );
        }
        if instructed && count(Hole::Instruction) == 0 {
            return Err(self.problem("the template does not render the message of role \"system\"".into()));
        }
        Ok(merged(pieces))
    }

    fn render(&self, structured: bool, instructed: bool, texts: &Texts) -> Result<String> {
        if self.source.len() > MAX_TEMPLATE_BYTES {
            return Err(
                self.problem(format!("{} bytes; the limit is {MAX_TEMPLATE_BYTES}", self.source.len()))
            );
        }
        let content = |text: &str| {
            if structured { json!([{"type": "text", "text": text}]) } else { json!(text) }
        };
        let mut messages = Vec::new();
        if instructed {
            messages.push(json!({"role": "system", "content": content(&texts.instruction)}));
        }
        messages.push(json!({"role": "query", "content": content(&texts.query)}));
        messages.push(json!({"role": "document", "content": content(&texts.document)}));
        let mut context = self.context.clone();
        context.insert("messages".into(), messages.into());

        let mut environment = Environment::new();
        // As Transformers sets Jinja up.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| self.problem(error.to_string()))?);
        environment.set_fuel(Some(JINJA_FUEL));
        environment.set_recursion_limit(JINJA_RECURSION);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function(
            "raise_exception",
            |message: String| -> std::result::Result<String, minijinja::Error> {
                Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
            },
        );
        let template = environment.template_from_str(self.source);
        template
            .and_then(|template| template.render(minijinja::value::Serde(&context)))
            .map_err(|error| self.problem(format!("the template cannot be rendered: {error}")))
    }
}

/// What the pieces give for these texts.
fn expand(pieces: &[Piece], texts: &Texts) -> String {
    let mut text = String::new();
    for piece in pieces {
        match piece {
            Piece::Fixed(written) => text.push_str(written),
            Piece::Hole(hole, trim) => text.push_str(trim.apply(texts.get(*hole)).0),
            Piece::Break => {}
        }
    }
    text
}
