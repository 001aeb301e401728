//! One text by itself, as bi-encoders read it.

use crate::error::{Error, Result};
use crate::files::ModelFiles;
use crate::text::EncodedPair;
use crate::text::tokenizer::Tokenizer;

/// Stands for the text while the post-processor is watched; no vocabulary has an id this large.
const TEXT_MARK: u32 = u32::MAX;

/// Writes single texts for one model: what the tokenizer's own post-processor puts around them, `[CLS] text [SEP]`.
#[derive(Debug)]
pub struct SingleEncoder {
    tokenizer: Tokenizer,
    /// Ids and segments before the text.
    before: Vec<(u32, u8)>,
    /// The segment of the text.
    type_id: u8,
    /// Ids and segments after it.
    after: Vec<(u32, u8)>,
    lowercase: bool,
    max_length: usize,
}

impl SingleEncoder {
    /// Reads the tokenizer and learns the layout. `max_length` is in tokens; with `lowercase`, texts are put into lower
    /// case first.
    ///
    /// # Errors
    /// Those of [`Tokenizer::load`]; [`Error::NoRoom`] if `max_length` does not hold the special tokens and one more.
    pub fn load(files: &ModelFiles, lowercase: bool, max_length: usize) -> Result<Self> {
        let tokenizer = Tokenizer::load(files, &[])?;
        let problem = |problem: &str| Error::Tokenizer {
            file: tokenizer.file().to_string(),
            problem: format!("post_processor: {problem}"),
        };
        let encoding = tokenizer.post_process(&[TEXT_MARK], None)?;
        let mut slots = Vec::with_capacity(encoding.len());
        for (&id, &type_id) in encoding.get_ids().iter().zip(encoding.get_type_ids()) {
            slots.push((id, u8::try_from(type_id).map_err(|_| problem("a token type id above 255"))?));
        }
        let Some(at) = slots.iter().position(|(id, _)| *id == TEXT_MARK) else {
            return Err(problem("a single text does not hold the text"));
        };
        let after = slots.split_off(at + 1);
        if after.iter().any(|(id, _)| *id == TEXT_MARK) {
            return Err(problem("a single text holds the text twice"));
        }
        let (_, type_id) = slots.remove(at);
        let template = slots.len() + after.len();
        if max_length <= template {
            return Err(Error::NoRoom { max_length, needed: template });
        }
        Ok(Self { tokenizer, before: slots, type_id, after, lowercase, max_length })
    }

    /// The longest text, in tokens, special ones included.
    #[must_use]
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// The ids of `prompt` and `text` together, cut at the end. White space around both is not read, as in
    /// sentence-transformers.
    ///
    /// # Errors
    /// [`Error::Encode`].
    pub fn encode(&self, prompt: &str, text: &str) -> Result<EncodedPair> {
        let room = self.max_length - self.before.len() - self.after.len();
        let text = format!("{prompt}{text}");
        let text = if self.lowercase { text.trim().to_lowercase() } else { text.trim().to_string() };
        let mut ids = self.tokenizer.encode_start(&text, room, "text")?;
        let truncated = ids.len() > room;
        ids.truncate(room);
        let slots = || {
            let text = ids.iter().map(|id| (*id, self.type_id));
            self.before.iter().copied().chain(text).chain(self.after.iter().copied())
        };
        Ok(EncodedPair {
            input_ids: slots().map(|(id, _)| id).collect(),
            token_type_ids: slots().map(|(_, type_id)| type_id).collect(),
            document_truncated: truncated,
            ..EncodedPair::default()
        })
    }
}
