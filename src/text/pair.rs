//! The pair template of encoders: what the tokenizer's own post-processor puts around query and document.

use crate::error::{Error, Result};
use crate::text::tokenizer::Tokenizer;

/// Stand for query and document while the post-processor is watched; no vocabulary has ids this large.
const QUERY_MARK: u32 = u32::MAX - 1;
const DOCUMENT_MARK: u32 = u32::MAX;

/// The layout of a pair, learnt once from the post-processor (`TemplateProcessing`, `BertProcessing`,
/// `RobertaProcessing` or a sequence of them): `[CLS] q [SEP] d [SEP]`, `<s> q </s></s> d </s>`.
#[derive(Debug, Clone)]
pub(crate) struct PairTemplate {
    slots: Vec<Slot>,
}

#[derive(Debug, Clone, Copy)]
enum Slot {
    Special { id: u32, type_id: u8 },
    Query { type_id: u8 },
    Document { type_id: u8 },
}

impl PairTemplate {
    pub(crate) fn learn(tokenizer: &Tokenizer) -> Result<Self> {
        let problem = |problem: &str| Error::Tokenizer {
            file: tokenizer.file().to_string(),
            problem: format!("post_processor: {problem}"),
        };
        let encoding = tokenizer.post_process(&[QUERY_MARK], Some(&[DOCUMENT_MARK]))?;
        let mut slots = Vec::with_capacity(encoding.len());
        for (id, type_id) in encoding.get_ids().iter().zip(encoding.get_type_ids()) {
            let type_id = u8::try_from(*type_id).map_err(|_| problem("a token type id above 255"))?;
            slots.push(match *id {
                QUERY_MARK => Slot::Query { type_id },
                DOCUMENT_MARK => Slot::Document { type_id },
                id => Slot::Special { id, type_id },
            });
        }
        let queries = slots.iter().filter(|slot| matches!(slot, Slot::Query { .. })).count();
        let documents = slots.iter().filter(|slot| matches!(slot, Slot::Document { .. })).count();
        if (queries, documents) != (1, 1) {
            return Err(problem("a pair does not hold query and document once each"));
        }
        Ok(Self { slots })
    }

    /// The number of tokens of a pair of empty texts.
    pub(crate) fn overhead(&self) -> usize {
        self.slots.len() - 2
    }

    /// Writes the ids and type ids of a pair.
    pub(crate) fn fill(&self, query: &[u32], document: &[u32]) -> (Vec<u32>, Vec<u8>) {
        let length = self.overhead() + query.len() + document.len();
        let (mut ids, mut types) = (Vec::with_capacity(length), Vec::with_capacity(length));
        for slot in &self.slots {
            let type_id = match *slot {
                Slot::Special { id, type_id } => {
                    ids.push(id);
                    type_id
                }
                Slot::Query { type_id } => {
                    ids.extend_from_slice(query);
                    type_id
                }
                Slot::Document { type_id } => {
                    ids.extend_from_slice(document);
                    type_id
                }
            };
            types.resize(ids.len(), type_id);
        }
        (ids, types)
    }
}
