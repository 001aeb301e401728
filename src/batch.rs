//! Packed batches: many pairs end to end, with no padding between them.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::Range;

use crate::text::EncodedPair;

/// Pairs end to end. `T` is the number of their tokens, `B` the number of pairs.
///
/// A pair may begin with the same tokens as one in front of it. Where a token sees only those before it, what is computed for
/// them is the same in both, so they are here once, in the first pair: the other begins behind them.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Token ids, `[T]`.
    pub input_ids: Vec<u32>,
    /// Segment ids, `[T]`.
    pub token_type_ids: Vec<u8>,
    /// Where each pair begins, and after the last one where it ends, `[B + 1]`.
    pub cu_seqlens: Vec<usize>,
    /// Where the tokens are that each pair begins with and shares with another, `[B]`.
    pub shared: Vec<Range<usize>>,
    /// The rows that this thread computes; all `T`, unless a team shares the batch.
    pub own: Range<usize>,
}

impl Batch {
    /// Packs pairs in the order given.
    pub fn pack<'a>(pairs: impl IntoIterator<Item = &'a EncodedPair>) -> Self {
        Self::pack_shared(pairs.into_iter().map(|pair| (pair, Prefix::default())))
    }

    /// Packs pairs in the order given. Those of one group that come one after another share what they have in common.
    pub fn pack_shared<'a>(pairs: impl IntoIterator<Item = (&'a EncodedPair, Prefix)>) -> Self {
        let mut batch = Self { cu_seqlens: vec![0], ..Self::default() };
        let mut leader = None; // the group's first pair, and where it begins
        for (pair, prefix) in pairs {
            let start = batch.tokens();
            let shared = match leader {
                Some((of, at)) if of == prefix => at..at + prefix.tokens,
                _ => {
                    leader = Some((prefix, start));
                    start..start
                }
            };
            batch.input_ids.extend_from_slice(&pair.input_ids[shared.len()..]);
            batch.token_type_ids.extend_from_slice(&pair.token_type_ids[shared.len()..]);
            batch.cu_seqlens.push(batch.tokens());
            batch.shared.push(shared);
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

    /// The pairs, in order.
    pub fn sequences(&self) -> impl ExactSizeIterator<Item = Sequence> + '_ {
        let ends = self.cu_seqlens.windows(2).zip(&self.shared);
        ends.map(|(ends, shared)| Sequence { shared: shared.clone(), rows: ends[0]..ends[1] })
    }

    /// Those rows of a pair that are `read` and this thread's, counted from the pair's beginning.
    #[must_use]
    pub fn own_rows(&self, sequence: &Sequence, read: Read) -> Range<usize> {
        let Sequence { shared, rows } = sequence;
        let read = read.rows(sequence.tokens());
        let from = (self.own.start.saturating_sub(rows.start) + shared.len()).max(read.start);
        // Of a pair behind this thread's last row there is none, shared ones included.
        let to = (self.own.end.max(rows.start) - rows.start + shared.len()).min(read.end);
        from..to.max(from)
    }

    /// Those of this thread's rows that are read, in order, counted from its first.
    pub fn rows(&self, read: Read) -> impl Iterator<Item = usize> + '_ {
        self.sequences().flat_map(move |sequence| {
            let (start, shared) = (sequence.rows.start, sequence.shared.len());
            self.own_rows(&sequence, read).map(move |row| start + row - shared - self.own.start)
        })
    }

    /// The place within its pair, from 0, of each of this thread's tokens that is read.
    #[must_use]
    pub fn positions(&self, read: Read) -> Vec<usize> {
        self.sequences().flat_map(|sequence| self.own_rows(&sequence, read)).collect()
    }
}

/// Where a pair is in a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// The rows of its first tokens, if it shares them.
    pub shared: Range<usize>,
    /// The rows of the others.
    pub rows: Range<usize>,
}

impl Sequence {
    /// The number of its tokens.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.shared.len() + self.rows.len()
    }
}

/// What a pair has in common with those around it: all of its group begin with the same tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Prefix {
    /// The number of the group.
    pub group: usize,
    /// The tokens in common, fewer than any pair of the group has.
    pub tokens: usize,
}

/// A prefix of fewer tokens saves less than it costs.
const LEAST_SHARED: usize = 16;

/// What each of `pairs` has in common with its neighbours: the beginning of the template, and the query if it is the same.
#[must_use]
pub fn prefixes(pairs: &[&EncodedPair]) -> Vec<Prefix> {
    let mut prefixes = Vec::with_capacity(pairs.len());
    while let Some((leader, others)) = pairs[prefixes.len()..].split_first() {
        let mut tokens = None;
        let mut count = 1;
        for other in others {
            let (a, b) = (&leader.input_ids, &other.input_ids);
            let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
            // Each has at least its last token for itself.
            let same = same.min(a.len().saturating_sub(1)).min(b.len().saturating_sub(1));
            // With another query, only the template is the same.
            if same < LEAST_SHARED || tokens.is_some_and(|tokens| 4 * same < 3 * tokens) {
                break;
            }
            tokens = Some(tokens.map_or(same, |tokens: usize| tokens.min(same)));
            count += 1;
        }
        let prefix = Prefix { group: prefixes.len(), tokens: tokens.unwrap_or(0) };
        prefixes.extend(std::iter::repeat_n(prefix, count));
    }
    prefixes
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

/// Splits pairs of the given lengths, with the prefixes that they share, into batches of at most `max_batch_tokens` tokens (a
/// longer pair gets a batch of its own) for `threads` threads. Pairs of like length come together, longest first, and the
/// last batches are smaller, so that all threads finish at about the same time; one thread has no smaller ones, and takes up to half a
/// batch more for one. Batches that all have fewer than `least_together` tokens are not computed together.
#[must_use]
pub fn plan(
    pairs: &[(usize, Prefix)],
    max_batch_tokens: usize,
    least_together: usize,
    threads: usize,
) -> Plan {
    let threads = threads.max(1);
    let order = longest_first(pairs);
    let total: usize = pairs.iter().map(|(length, prefix)| length - prefix.tokens).sum();
    let is_shared = pairs.iter().any(|(_, prefix)| prefix.tokens > 0);
    let only = |batches: Vec<(Vec<usize>, usize)>| batches.into_iter().map(|(batch, _)| batch).collect();
    if threads == 1 {
        // Nobody waits for its last batch, which need not be small; and a little more than a batch is one.
        let is_one = !is_shared && 2 * total < 3 * max_batch_tokens;
        return Plan::Apart(only(split(&order, pairs, |_| if is_one { total } else { max_batch_tokens })));
    }
    let apart = split(&order, pairs, |done| {
        let left = total.saturating_sub(done);
        (left / (2 * threads)).clamp(max_batch_tokens / 4, max_batch_tokens)
    });
    // Each batch goes to the thread that is free first.
    let mut busy = vec![0; threads];
    for (_, tokens) in &apart {
        if let Some(least) = busy.iter_mut().min() {
            *least += tokens;
        }
    }
    let longest = busy.iter().max().copied().unwrap_or(0) as f64;
    // What is shared is computed once a batch. Of a larger one, each thread of a team still has no more rows.
    let most = if is_shared { max_batch_tokens * threads } else { max_batch_tokens };
    let together = split(&order, pairs, |_| most);
    let share = together.iter().map(|(_, tokens)| tokens).sum::<usize>() as f64 / threads as f64;
    // Models that share are large: what is computed again costs more than their meetings.
    let most_idle = if is_shared { 0.0 } else { MOST_IDLE };
    let is_little = together.iter().all(|(_, tokens)| *tokens < least_together);
    if is_little || share >= longest * (1.0 - most_idle) {
        Plan::Apart(only(apart))
    } else {
        Plan::Together(only(together))
    }
}

/// As [`plan`], for a device that computes one batch after the other: as many tokens at once as it may have.
#[must_use]
pub fn plan_for_device(pairs: &[(usize, Prefix)], max_batch_tokens: usize) -> Vec<Vec<usize>> {
    let batches = split(&longest_first(pairs), pairs, |_| max_batch_tokens);
    batches.into_iter().map(|(batch, _)| batch).collect()
}

/// The pairs, longest first. Groups stay together, in the order of their longest pairs.
fn longest_first(pairs: &[(usize, Prefix)]) -> Vec<usize> {
    let mut longest = HashMap::new();
    for (length, prefix) in pairs {
        let longest = longest.entry(prefix.group).or_insert(0);
        *longest = (*length).max(*longest);
    }
    let mut order: Vec<usize> = (0..pairs.len()).collect();
    order.sort_by_key(|&index| {
        let (length, Prefix { group, .. }) = pairs[index];
        (Reverse(longest[&group]), group, Reverse(length))
    });
    order
}

/// Batches of at most `budget` tokens, which may depend on the tokens that lie in batches before; and the tokens of each.
fn split(
    order: &[usize],
    pairs: &[(usize, Prefix)],
    budget: impl Fn(usize) -> usize,
) -> Vec<(Vec<usize>, usize)> {
    let mut batches: Vec<(Vec<usize>, usize)> = Vec::new();
    let (mut done, mut limit) = (0, 0);
    for &index in order {
        let (length, prefix) = pairs[index];
        if let Some((batch, tokens)) = batches.last_mut() {
            let has_prefix = batch.last().is_some_and(|last| pairs[*last].1 == prefix);
            let more = if has_prefix { length - prefix.tokens } else { length };
            if *tokens + more <= limit {
                batch.push(index);
                *tokens += more;
                continue;
            }
            done += *tokens;
        }
        limit = budget(done);
        batches.push((vec![index], length));
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A plan for pairs that share nothing.
    fn plan(lengths: &[usize], max_batch_tokens: usize, threads: usize) -> Plan {
        let pairs: Vec<(usize, Prefix)> = lengths.iter().map(|&length| (length, Prefix::default())).collect();
        super::plan(&pairs, max_batch_tokens, 0, threads)
    }

    fn pair(ids: impl IntoIterator<Item = u32>) -> EncodedPair {
        let input_ids: Vec<u32> = ids.into_iter().collect();
        EncodedPair { token_type_ids: vec![0; input_ids.len()], input_ids, ..EncodedPair::default() }
    }

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
        assert_eq!(plan(&[110; 6], 512, 1), Plan::Apart(vec![(0..6).collect()]), "little more than 512");
        let Plan::Apart(batches) = plan(&[100; 9], 512, 1) else { panic!("together") };
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [5, 4]);
        let one = |length| super::plan(&[(length, Prefix::default())], 512, 320, 2);
        assert_eq!([one(319), one(320)], [Plan::Apart(vec![vec![0]]), Plan::Together(vec![vec![0]])]);
    }

    #[test]
    fn a_share_has_the_rows_between_its_ends() {
        let batch = Batch::pack([&pair(0..3), &pair(0..4)]);
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

    #[test]
    fn neighbours_share_what_they_begin_with() {
        let with = |query: u32, document: std::ops::Range<u32>| {
            pair((0..20).chain((0..20).map(|i| 1000 * query + i)).chain(document.map(|i| 100 + i)))
        };
        let pairs = [
            with(1, 0..30),
            with(1, 40..50),
            with(1, 41..41), // all of it is the beginning of the others
            with(2, 0..9),
            with(2, 1..2),
            pair(0..15),
            pair(0..15),
            pair([]),
        ];
        let pairs: Vec<&EncodedPair> = pairs.iter().collect();
        let prefixes = prefixes(&pairs);
        let groups = [(0, 39), (0, 39), (0, 39), (3, 40), (3, 40), (5, 0), (6, 0), (7, 0)];
        assert_eq!(prefixes, groups.map(|(group, tokens)| Prefix { group, tokens }));

        let batch = Batch::pack_shared([0, 2, 1, 4, 3, 5].map(|i| (pairs[i], prefixes[i])));
        assert_eq!(batch.tokens(), 70 + 1 + 11 + 41 + 9 + 15);
        let sequences: Vec<Sequence> = batch.sequences().collect();
        assert_eq!(sequences[1], Sequence { shared: 0..39, rows: 70..71 });
        assert_eq!(sequences[4], Sequence { shared: 82..122, rows: 123..132 });
        for (sequence, &i) in sequences.iter().zip(&[0, 2, 1, 4, 3, 5]) {
            let rows = sequence.shared.clone().chain(sequence.rows.clone());
            assert!(rows.map(|row| batch.input_ids[row]).eq(pairs[i].input_ids.iter().copied()));
        }
        // Whoever computes them: each row once, in its place.
        for size in 1..5 {
            let shares: Vec<Batch> = (0..size).map(|member| batch.share(member, size)).collect();
            let positions = |read| shares.iter().flat_map(|share| share.positions(read)).collect::<Vec<_>>();
            let all = (0..70).chain(39..40).chain(39..50).chain(0..41).chain(40..49).chain(0..15);
            assert_eq!(positions(Read::All), all.collect::<Vec<_>>());
            assert_eq!(positions(Read::Last), [69, 39, 49, 40, 48, 14]);
            let rows = |read| -> Vec<usize> {
                shares.iter().flat_map(|share| share.rows(read).map(|row| share.own.start + row)).collect()
            };
            assert_eq!(rows(Read::All), (0..batch.tokens()).collect::<Vec<_>>());
            assert_eq!(rows(Read::Last), [69, 70, 81, 122, 131, 146]);
        }
    }

    #[test]
    fn a_plan_keeps_groups_together_and_counts_what_they_share_once() {
        let one = |length, group, tokens| (length, Prefix { group, tokens });
        let mut pairs = vec![one(120, 0, 80), one(300, 1, 0), one(130, 0, 80)];
        assert_eq!(super::plan(&pairs, 512, 0, 1), Plan::Apart(vec![vec![1, 2, 0]]), "300 + 130 + 40");
        pairs.extend([one(125, 2, 80); 20]);
        let batches = vec![vec![1, 2, 0], (3..12).collect(), (12..21).collect(), vec![21, 22]];
        assert_eq!(super::plan(&pairs, 512, 0, 1), Plan::Apart(batches), "125 + 8 * 45 in most of them");
        let batches = vec![(0..23).collect::<Vec<_>>()];
        let Plan::Together(mut found) = super::plan(&pairs, 1024, 0, 2) else { panic!("apart") };
        found[0].sort_unstable();
        assert_eq!(found, batches);
    }
}
