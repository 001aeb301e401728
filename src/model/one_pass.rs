//! Models that read a query and many documents in one sequence: jina-reranker-v3, arXiv 2509.25085. A Qwen3 decoder, and a
//! projector over the states at the special token that ends each document, and at the one that ends the query.
//!
//! Names of tensors, the text of the prompt and the order of operations: `modeling.py` of jinaai/jina-reranker-v3.

use jointly_kernels::Kernels;

use super::config::Config;
use super::{Architecture, Trunk, published_max_length};
use crate::error::{Error, Result};
use crate::files::ModelFiles;
use crate::nn::{Activation, Linear, Matrix};
use crate::text::Tokenizer;
use crate::weights::{Checkpoint, Form};

/// The value of `architectures` in `config.json`.
const CLASS: &str = "JinaForRanking";
/// Ends a document.
const DOCUMENT_TOKEN: &str = "<|embed_token|>";
/// Ends the query.
const QUERY_TOKEN: &str = "<|rerank_token|>";
/// Ends and begins turns.
const TURN_TOKENS: [&str; 2] = ["<|im_start|>", "<|im_end|>"];

/// What the authors say before anything else; the model was trained with these words.
const SYSTEM: &str = "system\nYou are a search relevance expert who can determine a ranking of the passages based on how relevant they \
are to the query. If the query is a question, how relevant a passage is depends on how well it answers the question. If not, \
try to analyze the intent of the query and assess how well each passage satisfies the intent. If an instruction is provided, \
you should follow the instruction when determining the ranking.";

/// A loaded model: everything but the threads that run it.
pub(crate) struct OnePassModel {
    pub architecture: &'static str,
    pub trunk: Box<dyn Trunk>,
    first: Linear,
    second: Linear,
    pub tokenizer: Tokenizer,
    /// Ids of the tokens, in the order in which they are named above.
    document: u32,
    query: u32,
    turns: [u32; 2],
    /// The longest sequence, in tokens.
    pub max_length: usize,
    pub parameters: usize,
}

/// A sequence, and where it is read.
pub(crate) struct OnePassSequence {
    pub input_ids: Vec<u32>,
    /// The place of the token that ends each document.
    pub documents: Vec<usize>,
    /// The place of the token that ends the query: the last one.
    pub query: usize,
}

/// Whether a folder holds such a model.
///
/// # Errors
/// Those of its `config.json`.
pub(crate) fn is_one_pass(files: &ModelFiles) -> Result<bool> {
    Ok(Config::read(files, "config.json")?.class() == Some(CLASS))
}

impl OnePassModel {
    pub fn load(
        files: &ModelFiles,
        kernels: &'static Kernels,
        (form, max_length): (Form, Option<usize>),
    ) -> Result<Self> {
        let config = Config::read(files, "config.json")?;
        if config.class() != Some(CLASS) {
            let problem = format!("{:?}; a model that reads a list in one pass is {CLASS}", config.class());
            return Err(config.error("architectures", problem));
        }
        let architecture = Architecture::of(&config)?;
        let checkpoint = Checkpoint::open(files, "")?;
        let root = checkpoint.root(kernels);
        let trunk = (architecture.load)(&config, &root.in_form(form))?;
        let hidden = trunk.sizes().hidden;
        let projector = root.at("projector");
        let [first, second] = ["0", "2"].map(|layer| projector.at(layer));
        let rows = |scope: &crate::weights::Scope<'_>| {
            let missing = || root.no_score_head(format!("tensor {} is missing", scope.full("weight")));
            scope.shape("weight").and_then(|shape| shape.first().copied()).ok_or_else(missing)
        };
        let (inner, outer) = (rows(&first)?, rows(&second)?);
        let first = Linear::load_optional_bias(&first, hidden, inner)?;
        let second = Linear::load_optional_bias(&second, inner, outer)?;
        let tokenizer =
            Tokenizer::load(files, &[DOCUMENT_TOKEN, QUERY_TOKEN, TURN_TOKENS[0], TURN_TOKENS[1]])?;
        let id = |token: &str| {
            let problem = || Error::Tokenizer {
                file: tokenizer.file().to_string(),
                problem: format!("the vocabulary lacks {token}, which the model reads"),
            };
            tokenizer.token_id(token).ok_or_else(problem)
        };
        let (document, query) = (id(DOCUMENT_TOKEN)?, id(QUERY_TOKEN)?);
        let turns = [id(TURN_TOKENS[0])?, id(TURN_TOKENS[1])?];
        let own = published_max_length(files, "")?.unwrap_or(usize::MAX).min(trunk.sizes().max_length);
        let max_length = super::chosen_max_length(max_length, own, &*trunk)?;
        Ok(Self {
            architecture: architecture.name,
            first,
            second,
            document,
            query,
            turns,
            max_length,
            parameters: checkpoint.parameters(),
            trunk,
            tokenizer,
        })
    }

    /// Values of an embedding.
    pub fn dimensions(&self) -> usize {
        self.second.out_features()
    }

    /// The projector, of states `[rows, hidden_size]`.
    pub fn project(&self, kernels: &Kernels, states: &Matrix) -> Matrix {
        let inner = self.first.forward_then(kernels, states, Activation::Relu, None);
        self.second.forward(kernels, &inner)
    }

    /// The query and some documents as one sequence. What the authors write behind the query's token is left out: no state
    /// that is read sees it. Texts never give a special token, whatever they spell.
    pub fn encode(
        &self,
        query: &str,
        documents: &[&str],
        instruction: Option<&str>,
    ) -> Result<OnePassSequence> {
        let text = |text: &str, what| self.tokenizer.encode(text, what);
        let [start, end] = self.turns;
        let mut ids = vec![start];
        ids.extend(text(SYSTEM, "template")?);
        ids.push(end);
        ids.extend(text("\n", "template")?);
        ids.push(start);
        // A span between two control tokens is tokenised as one, as the authors' tokenizer does.
        let mut span = format!(
            "user\nI will provide you with {} passages, each indicated by a numerical identifier. Rank the passages \
             based on their relevance to query: {query}\n",
            documents.len()
        );
        if let Some(instruction) = instruction {
            span += &format!("<instruct>\n{instruction}\n</instruct>\n");
        }
        let mut places = Vec::with_capacity(documents.len());
        for (number, document) in documents.iter().enumerate() {
            span += &format!("<passage id=\"{number}\">\n{document}");
            ids.extend(text(&span, "document")?);
            places.push(ids.len());
            ids.push(self.document);
            span = "\n</passage>\n".to_string();
        }
        span += &format!("<query>\n{query}");
        ids.extend(text(&span, "query")?);
        let place = ids.len();
        ids.push(self.query);
        Ok(OnePassSequence { input_ids: ids, documents: places, query: place })
    }
}
