//! Packed batches: many pairs end to end, with no padding between them.

use std::ops::Range;

use crate::text::EncodedPair;

/// Pairs end to end. `T` is the number of tokens of all of them, `B` the number of pairs.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Token ids, `[T]`.
    pub input_ids: Vec<u32>,
    /// Segment ids, `[T]`.
    pub token_type_ids: Vec<u8>,
    /// Where each pair begins, and after the last one where it ends, `[B + 1]`.
    pub cu_seqlens: Vec<usize>,
}

impl Batch {
    /// Packs pairs in the order given.
    pub fn pack<'a>(pairs: impl IntoIterator<Item = &'a EncodedPair>) -> Self {
        let mut batch = Self { cu_seqlens: vec![0], ..Self::default() };
        for pair in pairs {
            batch.input_ids.extend_from_slice(&pair.input_ids);
            batch.token_type_ids.extend_from_slice(&pair.token_type_ids);
            batch.cu_seqlens.push(batch.input_ids.len());
        }
        batch
    }

    /// `T`, the number of tokens.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.input_ids.len()
    }

    /// The rows of each pair, in order.
    pub fn sequences(&self) -> impl ExactSizeIterator<Item = Range<usize>> + '_ {
        self.cu_seqlens.windows(2).map(|ends| ends[0]..ends[1])
    }

    /// The rows that are read, in order: all `T`, or one a pair.
    pub fn rows(&self, read: Read) -> impl Iterator<Item = usize> + '_ {
        self.sequences()
            .flat_map(move |sequence| read.rows(sequence.len()).map(move |row| sequence.start + row))
    }

    /// The place of each token within its pair, from 0, `[T]`.
    #[must_use]
    pub fn positions(&self) -> Vec<usize> {
        self.sequences().flat_map(|rows| 0..rows.len()).collect()
    }
}

/// Which rows of the last hidden states a head reads. The last layer computes no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// Those of all tokens.
    All,
    /// That of each pair's first token.
    First,
    /// That of each pair's last token.
    Last,
}

impl Read {
    /// What layer `index` of `count` has to compute: the layers after the last one read all of it.
    #[must_use]
    pub fn in_layer(self, index: usize, count: usize) -> Self {
        if index + 1 == count { self } else { Self::All }
    }

    /// The rows of a pair of `length` tokens, counted from its beginning.
    #[must_use]
    pub fn rows(self, length: usize) -> Range<usize> {
        match self {
            Self::All => 0..length,
            Self::First => 0..length.min(1),
            Self::Last => length.saturating_sub(1)..length,
        }
    }
}

/// Splits pairs into batches of at most `max_batch_tokens` tokens (a longer pair gets a batch of its own), longest
/// first, so that the last thread to finish has little left to do. Gives the indices of `lengths`; pairs of like
/// length come together.
#[must_use]
pub fn plan(lengths: &[usize], max_batch_tokens: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(lengths[index]));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut tokens = usize::MAX;
    for index in order {
        match batches.last_mut() {
            Some(batch) if tokens + lengths[index] <= max_batch_tokens => {
                batch.push(index);
                tokens += lengths[index];
            }
            _ => {
                batches.push(vec![index]);
                tokens = lengths[index];
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_holds_every_pair_once_and_keeps_the_budget() {
        let lengths = [5, 700, 30, 0, 12, 256, 256, 1];
        let batches = plan(&lengths, 512);
        let mut seen: Vec<usize> = batches.concat();
        seen.sort_unstable();
        assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
        for batch in &batches {
            let tokens: usize = batch.iter().map(|&index| lengths[index]).sum();
            assert!(tokens <= 512 || batch.len() == 1, "{batch:?} has {tokens} tokens");
        }
        assert_eq!(batches[0], [1], "the longest comes first");
        assert!(plan(&[], 512).is_empty());
    }
}
