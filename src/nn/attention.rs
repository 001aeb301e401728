use std::ops::Range;

use jointly_kernels::{Kernels, PackedMatrix, View, ViewMut};

use super::Matrix;
use crate::batch::Batch;

/// Queries whose scores are computed at once: enough for the matrix kernel, few enough that the scores of an
/// 8,192-token document take 2 MiB.
const BLOCK_ROWS: usize = 64;

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

/// The shape of an attention layer. Query, key and value lie side by side in the columns of one matrix:
/// `heads · head_dim` columns of queries, then `kv_heads · head_dim` each of keys and values. With fewer key heads
/// than query heads, each serves a group of neighbouring query heads.
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

impl AttentionShape {
    /// The number of columns of query, key and value together.
    #[must_use]
    pub fn qkv_features(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }
}

/// Something added to the scaled scores before the softmax: relative positions.
pub trait ScoreBias {
    /// Adds to `scores` `[rows, keys]`. `sequence` is the pair's rows in the batch; `rows` and `keys` are counted
    /// from the pair's beginning.
    fn add(
        &self,
        sequence: &Range<usize>,
        head: usize,
        rows: &Range<usize>,
        keys: &Range<usize>,
        scores: &mut [f32],
    );
}

/// Attention within each pair of a packed batch. `qkv` is `[T, qkv_features]`; the result is
/// `[T, heads · head_dim]`.
///
/// A row of the result depends only on its own pair: the split into blocks counts from the pair's beginning.
#[must_use]
pub fn attention(
    kernels: &Kernels,
    qkv: &Matrix,
    batch: &Batch,
    shape: &AttentionShape,
    bias: Option<&dyn ScoreBias>,
) -> Matrix {
    let AttentionShape { heads, kv_heads, head_dim, .. } = *shape;
    let mut output = Matrix::zeros(qkv.rows, heads * head_dim);
    let group = heads / kv_heads;
    let mut scores = Vec::new();
    let mut keys = PackedMatrix::default();
    let mut values = PackedMatrix::default();
    for sequence in batch.sequences() {
        let length = sequence.len();
        let absolute = |range: &Range<usize>| sequence.start + range.start..sequence.start + range.end;
        for kv_head in 0..kv_heads {
            let key_columns = (heads + kv_head) * head_dim..(heads + kv_head + 1) * head_dim;
            let value_columns =
                (heads + kv_heads + kv_head) * head_dim..(heads + kv_heads + kv_head + 1) * head_dim;
            let mut packed = 0..0;
            for start in (0..length).step_by(BLOCK_ROWS) {
                let rows = start..(start + BLOCK_ROWS).min(length);
                let seen = shape.mask.keys(&rows, length);
                if seen != packed {
                    keys.repack(qkv.part(absolute(&seen), key_columns.clone()));
                    values.repack_transposed(qkv.part(absolute(&seen), value_columns.clone()));
                    packed = seen.clone();
                }
                for head in kv_head * group..(kv_head + 1) * group {
                    scores.clear();
                    scores.resize(rows.len() * seen.len(), 0.0);
                    let queries = qkv.part(absolute(&rows), head * head_dim..(head + 1) * head_dim);
                    kernels.matmul(queries, &keys, None, ViewMut::new(&mut scores, rows.len(), seen.len()));
                    kernels.scale(&mut scores, shape.scale);
                    if let Some(bias) = bias {
                        bias.add(&sequence, head, &rows, &seen, &mut scores);
                    }
                    if shape.mask != Mask::Full {
                        hide(shape.mask, &rows, &seen, length, &mut scores);
                    }
                    kernels.softmax_rows(ViewMut::new(&mut scores, rows.len(), seen.len()));
                    let first = (sequence.start + rows.start) * output.cols + head * head_dim;
                    let last = (sequence.start + rows.end - 1) * output.cols + (head + 1) * head_dim;
                    let stride = output.cols;
                    kernels.matmul(
                        View::new(&scores, rows.len(), seen.len()),
                        &values,
                        None,
                        ViewMut::strided(&mut output.data[first..last], rows.len(), head_dim, stride),
                    );
                }
            }
        }
    }
    output
}

/// Sets the scores of the keys that a query does not see to negative infinity.
fn hide(mask: Mask, rows: &Range<usize>, keys: &Range<usize>, length: usize, scores: &mut [f32]) {
    for (row, scores) in rows.clone().zip(scores.chunks_exact_mut(keys.len())) {
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
