use std::ops::Range;

use jointly_kernels::{Epilogue, PackedMatrix, Values, View, ViewMut};

use super::{Matrix, Run};
use crate::batch::{Batch, Read};
use jointly_cuda::Bias;

/// Queries whose scores are computed at once: enough for the matrix kernel, few enough that the scores of an
/// 8,192-token document take 2 MiB.
const BLOCK_ROWS: usize = 64;
/// Values of a cache line: rows of scores begin at one.
const LINE: usize = 16;

/// Which keys a query sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    /// All of its pair.
    Full,
    /// Itself and those before it.
    Causal,
    /// Those at most this many places away, on either side.
    Window(usize),
}

impl Mask {
    /// The keys that any of the queries `rows` sees, in a pair of `length` tokens.
    fn keys(self, rows: &Range<usize>, length: usize) -> Range<usize> {
        match self {
            Self::Full => 0..length,
            Self::Causal => 0..rows.end,
            Self::Window(reach) => rows.start.saturating_sub(reach)..(rows.end + reach).min(length),
        }
    }

    /// The keys that one query sees.
    fn keys_of(self, row: usize, length: usize) -> Range<usize> {
        self.keys(&(row..row + 1), length)
    }
}

/// The shape of an attention layer. Queries are one matrix, `[rows, heads · head_dim]`; keys and values lie side by side
/// in the columns of another, `[T, 2 · kv_heads · head_dim]`. With fewer key heads than query heads, each serves a group
/// of neighbouring query heads.
#[derive(Debug, Clone, Copy)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Values per head.
    pub head_dim: usize,
    /// What a query-key product is multiplied by before the softmax.
    pub scale: f32,
    /// Which keys a query sees.
    pub mask: Mask,
}

/// The scores of some queries of one pair and head, over some of its keys.
pub struct Block<'a> {
    /// The query head.
    pub head: usize,
    /// Places of the queries, counted from the pair's beginning.
    pub rows: Range<usize>,
    /// Places of the keys.
    pub keys: Range<usize>,
    /// The queries of the head, `[rows, head_dim]`.
    pub queries: View<'a>,
    /// The keys of the head, `[keys, head_dim]`.
    pub key_vectors: View<'a>,
}

/// Something added to the scaled scores before the softmax: relative positions.
pub trait ScoreBias {
    /// Adds to `scores` `[rows, keys]`.
    fn add(&self, block: &Block<'_>, scores: ViewMut<'_>);

    /// The same on the device that it was loaded for.
    fn on_device(&self) -> Bias<'_>;
}

/// Attention within each pair of a packed batch. `queries` holds this thread's rows that are `read`, `keys_values` those
/// of all tokens; the result has a row for each query, `[rows, heads · head_dim]`.
///
/// A row of the result depends only on its own pair: the split into blocks counts from the pair's beginning, and a key
/// that a query does not see weighs exactly nothing.
#[must_use]
pub fn attention(
    run: &Run<'_>,
    (queries, keys_values): (&Matrix, &Matrix),
    (batch, read): (&Batch, Read),
    shape: &AttentionShape,
    bias: Option<&dyn ScoreBias>,
) -> Matrix {
    if let (Some(device), Some(queries), Some(keys_values)) =
        (&run.device, &queries.device, &keys_values.device)
    {
        let bias = bias.map_or(Bias::None, ScoreBias::on_device);
        let tiles = device.tiles(batch, read);
        return Matrix::of_tensor(queries.attention(keys_values, &tiles, &shape.on_device(), bias));
    }
    let AttentionShape { heads, kv_heads, head_dim, .. } = *shape;
    let (kernels, precision) = (run.kernels, run.attention_precision);
    let mut output = Matrix::reused(queries.rows, heads * head_dim);
    let group = heads / kv_heads;
    let mut scores = Values::new();
    let mut keys = PackedMatrix::default();
    let mut values = PackedMatrix::default();
    let mut first_query = 0; // of the pair, among the rows of `queries`
    for sequence in batch.sequences() {
        let length = sequence.tokens();
        let wanted = batch.own_rows(&sequence, read);
        if wanted.is_empty() {
            continue;
        }
        // Keys and values that it shares lie apart from its own: copied, they are side by side.
        let copy = (!sequence.shared.is_empty())
            .then(|| keys_values.take(sequence.shared.clone().chain(sequence.rows.clone())));
        let (keys_values, start) = copy.as_ref().map_or((keys_values, sequence.rows.start), |copy| (copy, 0));
        for kv_head in 0..kv_heads {
            let part = |seen: &Range<usize>, head: usize| {
                let columns = head * head_dim..(head + 1) * head_dim;
                keys_values.part(start + seen.start..start + seen.end, columns)
            };
            let mut packed = 0..0;
            let first_block = wanted.start - wanted.start % BLOCK_ROWS;
            for start in (first_block..wanted.end).step_by(BLOCK_ROWS) {
                let block = start..(start + BLOCK_ROWS).min(length);
                let rows = start.max(wanted.start)..block.end.min(wanted.end);
                // The keys of the whole block, whichever of its rows are wanted: sums begin at the same key, and add in the
                // same order.
                let seen = shape.mask.keys(&block, length);
                let key_vectors = part(&seen, kv_head);
                if seen != packed {
                    kernels.pack(key_vectors, precision, &mut keys);
                    kernels.pack_transposed(part(&seen, kv_heads + kv_head), precision, &mut values);
                    packed = seen.clone();
                }
                let first = first_query + rows.start - wanted.start;
                let stride = seen.len().next_multiple_of(LINE);
                for head in kv_head * group..(kv_head + 1) * group {
                    scores.set_len(rows.len() * stride);
                    let columns = head * head_dim..(head + 1) * head_dim;
                    let queries = queries.part(first..first + rows.len(), columns.clone());
                    let to = ViewMut::strided(&mut scores, rows.len(), seen.len(), stride);
                    kernels.matmul(queries, &keys, Epilogue::NONE, to);
                    kernels.scale(&mut scores, shape.scale);
                    if let Some(bias) = bias {
                        let (rows, keys) = (rows.clone(), seen.clone());
                        let to = ViewMut::strided(&mut scores, rows.len(), seen.len(), stride);
                        bias.add(&Block { head, rows, keys, queries, key_vectors }, to);
                    }
                    if shape.mask != Mask::Full {
                        hide(shape.mask, &rows, &seen, length, scores.chunks_exact_mut(stride));
                    }
                    kernels.softmax_rows(ViewMut::strided(&mut scores, rows.len(), seen.len(), stride));
                    let from = first * output.cols + columns.start;
                    let to = (first + rows.len() - 1) * output.cols + columns.end;
                    kernels.matmul(
                        View::strided(&scores, rows.len(), seen.len(), stride),
                        &values,
                        Epilogue::NONE,
                        ViewMut::strided(&mut output.data[from..to], rows.len(), head_dim, heads * head_dim),
                    );
                }
            }
        }
        first_query += wanted.len();
    }
    output
}

/// Sets the scores of the keys that a query does not see to negative infinity.
fn hide<'a>(
    mask: Mask,
    rows: &Range<usize>,
    keys: &Range<usize>,
    length: usize,
    scores: impl Iterator<Item = &'a mut [f32]>,
) {
    for (row, scores) in rows.clone().zip(scores) {
        let scores = &mut scores[..keys.len()];
        let seen = mask.keys_of(row, length);
        scores[..seen.start - keys.start].fill(f32::NEG_INFINITY);
        scores[seen.end - keys.start..].fill(f32::NEG_INFINITY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_show_what_they_say() {
        assert_eq!(Mask::Full.keys_of(3, 9), 0..9);
        assert_eq!(Mask::Causal.keys_of(3, 9), 0..4);
        assert_eq!(Mask::Window(2).keys_of(3, 9), 1..6);
        assert_eq!(Mask::Window(2).keys_of(8, 9), 6..9);
        assert_eq!(Mask::Window(4).keys(&(64..128), 130), 60..130);
    }
}
