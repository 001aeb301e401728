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
    /// The rows that this thread computes; all `T`, unless a team shares the batch.
    pub own: Range<usize>,
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
        batch.own = 0..batch.tokens();
        batch
    }

    /// The part of a member of a team: the same batch, and its share of the rows.
    #[must_use]
    pub fn share(&self, member: usize, size: usize) -> Self {
        let own = self.tokens() * member / size..self.tokens() * (member + 1) / size;
        Self { own, ..self.clone() }
    }

    /// Ids of this thread's tokens.
    #[must_use]
    pub fn own_ids(&self) -> &[u32] {
        &self.input_ids[self.own.clone()]
    }

    /// Segments of this thread's tokens.
    pub fn own_types(&self) -> impl Iterator<Item = usize> + '_ {
        self.token_type_ids[self.own.clone()].iter().map(|&id| usize::from(id))
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

    /// Those rows of a pair that are `read` and this thread's, counted from the pair's beginning.
    #[must_use]
    pub fn own_rows(&self, sequence: &Range<usize>, read: Read) -> Range<usize> {
        let read = read.rows(sequence.len());
        let from = self.own.start.saturating_sub(sequence.start).max(read.start);
        let to = self.own.end.saturating_sub(sequence.start).min(read.end);
        from..to.max(from)
    }

    /// Those of this thread's rows that are read, in order, counted from its first.
    pub fn rows(&self, read: Read) -> impl Iterator<Item = usize> + '_ {
        self.sequences().flat_map(move |sequence| {
            let start = sequence.start;
            self.own_rows(&sequence, read).map(move |row| start + row - self.own.start)
        })
    }

    /// The place within its pair, from 0, of each of this thread's tokens that is read.
    #[must_use]
    pub fn positions(&self, read: Read) -> Vec<usize> {
        self.sequences().flat_map(|sequence| self.own_rows(&sequence, read)).collect()
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

/// How the pairs of a request are shared among threads. Batches hold indices of pairs.
#[derive(Debug, PartialEq, Eq)]
pub enum Plan {
    /// Each thread takes batches of its own: no waiting, but the last ones to finish must not be long.
    Apart(Vec<Vec<usize>>),
    /// All threads compute each batch together: for one long pair, or few.
    Together(Vec<Vec<usize>>),
}

/// A member of a team waits for the others once a layer, and packs keys and values that others pack too. Apart is better
/// as long as its threads stand idle for less than about this share of the time.
const MOST_IDLE: f64 = 0.15;

/// Splits pairs of the given lengths into batches of at most `max_batch_tokens` tokens (a longer pair gets a batch of
/// its own) for `threads` threads. Pairs of like length come together, longest first, and the last batches are smaller,
/// so that all threads finish at about the same time.
#[must_use]
pub fn plan(lengths: &[usize], max_batch_tokens: usize, threads: usize) -> Plan {
    let threads = threads.max(1);
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(lengths[index]));
    let total: usize = lengths.iter().sum();
    let apart = split(&order, lengths, |done| {
        let left = total - done;
        (left / (2 * threads)).clamp(max_batch_tokens / 4, max_batch_tokens)
    });
    if threads == 1 || total == 0 {
        return Plan::Apart(apart);
    }
    // Each batch goes to the thread that is free first.
    let mut busy = vec![0; threads];
    for batch in &apart {
        if let Some(least) = busy.iter_mut().min() {
            *least += batch.iter().map(|&index| lengths[index]).sum::<usize>();
        }
    }
    let longest = busy.iter().max().copied().unwrap_or(0) as f64;
    if 1.0 - total as f64 / (threads as f64 * longest) <= MOST_IDLE {
        Plan::Apart(apart)
    } else {
        Plan::Together(split(&order, lengths, |_| max_batch_tokens))
    }
}

/// Batches of at most `budget` tokens, which may depend on the tokens that lie in batches before.
fn split(order: &[usize], lengths: &[usize], budget: impl Fn(usize) -> usize) -> Vec<Vec<usize>> {
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let (mut done, mut tokens, mut limit) = (0, 0, 0);
    for &index in order {
        match batches.last_mut() {
            Some(batch) if tokens + lengths[index] <= limit => batch.push(index),
            _ => {
                done += tokens;
                (tokens, limit) = (0, budget(done));
                batches.push(vec![index]);
            }
        }
        tokens += lengths[index];
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_holds_every_pair_once_and_keeps_the_budget() {
        let lengths = [5, 700, 30, 0, 12, 256, 256, 1, 300, 300, 200, 40];
        for threads in 1..5 {
            let (Plan::Apart(batches) | Plan::Together(batches)) = plan(&lengths, 512, threads);
            let mut seen: Vec<usize> = batches.concat();
            seen.sort_unstable();
            assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
            for batch in &batches {
                let tokens: usize = batch.iter().map(|&index| lengths[index]).sum();
                assert!(tokens <= 512 || batch.len() == 1, "{batch:?} has {tokens} tokens");
            }
            assert_eq!(batches[0], [1], "the longest comes first");
        }
        assert_eq!(plan(&[], 512, 2), Plan::Apart(Vec::new()));
    }

    #[test]
    fn few_pairs_are_computed_together_and_many_apart() {
        assert_eq!(plan(&[128], 512, 2), Plan::Together(vec![vec![0]]));
        assert_eq!(plan(&[128], 512, 1), Plan::Apart(vec![vec![0]]));
        assert_eq!(plan(&[128, 128], 512, 2), Plan::Apart(vec![vec![0], vec![1]]));
        assert_eq!(plan(&[512, 512, 512], 512, 2), Plan::Together(vec![vec![0], vec![1], vec![2]]));
        assert!(matches!(plan(&[95; 100], 512, 2), Plan::Apart(_)));
    }

    #[test]
    fn a_share_has_the_rows_between_its_ends() {
        let pair = |length| EncodedPair {
            input_ids: (0..length).collect(),
            token_type_ids: vec![0; length as usize],
            ..EncodedPair::default()
        };
        let batch = Batch::pack([&pair(3), &pair(4)]);
        let shares: Vec<Batch> = (0..2).map(|member| batch.share(member, 2)).collect();
        assert_eq!(shares[0].own_ids(), [0, 1, 2]);
        assert_eq!(shares[1].own_ids(), [0, 1, 2, 3]);
        let shares: Vec<Batch> = (0..3).map(|member| batch.share(member, 3)).collect();
        assert_eq!(shares.iter().map(|share| share.own.clone()).collect::<Vec<_>>(), [0..2, 2..4, 4..7]);
        assert_eq!(shares[1].positions(Read::All), [2, 0]);
        assert_eq!(shares[1].rows(Read::First).collect::<Vec<_>>(), [1]);
        assert_eq!(shares[1].rows(Read::Last).collect::<Vec<_>>(), [0]);
        assert_eq!(shares[2].positions(Read::Last), [3]);
        assert_eq!(shares[2].rows(Read::First).count(), 0);
    }
}
