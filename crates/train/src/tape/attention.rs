//! Attention within each sequence of a packed batch, forwards and backwards. Source: arXiv 1706.03762, section 3.2.1.

use std::ops::Range;
use std::sync::Arc;

use jointly_kernels::{Epilogue, PackedMatrix, View, ViewMut};

use super::{Backward, Matrix, Op, Pool, Tape, Var};
use crate::parameters::{Gradients, ParameterId};
use crate::simd;

/// Values of a cache line: rows of scores begin at one.
const LINE: usize = 16;

/// What all sequences of an attention layer have in common.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Heads, of queries as of keys.
    pub heads: usize,
    /// Values per head.
    pub head_dim: usize,
    /// What a query-key product is multiplied by before the softmax.
    pub scale: f32,
    /// How far a query sees on either side; `None` if it sees its whole sequence.
    pub window: Option<usize>,
    /// What is added to the scores.
    pub bias: Bias,
}

/// What an architecture adds to the scaled scores, by the distance between query and key.
#[derive(Debug, Clone, Default)]
pub enum Bias {
    /// Nothing.
    #[default]
    None,
    /// A learnt number for each head, a table `[rows, heads]`. Source: arXiv 1910.10683, section 2.1.
    Table(ParameterId, Arc<Distances>),
    /// Products with projected positions.
    Disentangled(Disentangled),
}

/// DeBERTa's relative terms. Source: arXiv 2006.03654, equation 4.
#[derive(Debug, Clone)]
pub struct Disentangled {
    /// Keys of positions, `[rows, heads · head_dim]`: content to position.
    pub keys: Option<Var>,
    /// Queries of positions, likewise: position to content.
    pub queries: Option<Var>,
    /// The row of each distance.
    pub rows: Arc<Distances>,
}

/// A row of a table for each distance from key to query.
#[derive(Debug)]
pub struct Distances {
    rows: Vec<usize>,
    longest: usize,
}

impl Distances {
    /// For sequences of at most `longest` tokens; `row` is given query position - key position.
    pub fn new(longest: usize, row: impl Fn(i64) -> usize) -> Self {
        let far = longest as i64 - 1;
        Self { rows: (-far..=far).map(row).collect(), longest }
    }

    /// Those of a query at `query` to the keys from 0 to `keys`, the farthest first.
    fn of(&self, query: usize, keys: usize) -> impl Iterator<Item = usize> + '_ {
        let first = query + self.longest - 1;
        (0..keys).map(move |key| self.rows[first - key])
    }
}

/// What the backward pass needs.
pub(super) struct Attention {
    queries: Var,
    keys: Var,
    values: Var,
    shape: Shape,
    sequences: Vec<Sequence>,
    /// The probabilities of every sequence and head, one after another.
    probabilities: Matrix,
}

struct Sequence {
    /// Rows of the keys and values.
    tokens: Range<usize>,
    /// Rows of the queries.
    queries: Range<usize>,
    /// The place of the first query within its sequence.
    first: usize,
    /// Where its probabilities begin.
    at: usize,
}

impl Sequence {
    fn stride(&self) -> usize {
        self.tokens.len().next_multiple_of(LINE)
    }

    /// Where those of a head lie.
    fn of_head(&self, head: usize) -> Range<usize> {
        let size = self.queries.len() * self.stride();
        self.at + head * size..self.at + (head + 1) * size
    }
}

impl Attention {
    /// The table that its scores are biased by.
    pub(super) fn table(&self) -> Option<ParameterId> {
        match self.shape.bias {
            Bias::Table(table, _) => Some(table),
            Bias::None | Bias::Disentangled(_) => None,
        }
    }

    pub(super) fn give_back(self, pool: &mut Pool) {
        pool.give(self.probabilities);
    }
}

impl Shape {
    fn columns(&self, head: usize) -> Range<usize> {
        head * self.head_dim..(head + 1) * self.head_dim
    }
}

impl Tape<'_> {
    /// `softmax(queries · keysᵀ · scale + bias) · values` in each head and sequence. `keys` and `values` are `[T, heads · head_dim]`
    /// with `sequences` in them; `queries` has, of each sequence in turn, the rows that `read` says.
    pub fn attention(
        &mut self,
        [queries, keys, values]: [Var; 3],
        shape: &Shape,
        sequences: &[Range<usize>],
        read: impl Fn(usize) -> Range<usize>,
    ) -> Var {
        let (mut row, mut at) = (0, 0);
        let sequences: Vec<Sequence> = sequences
            .iter()
            .map(|tokens| {
                let wanted = read(tokens.len());
                let rows = row..row + wanted.len();
                let sequence = Sequence { tokens: tokens.clone(), queries: rows, first: wanted.start, at };
                row += wanted.len();
                at = sequence.of_head(shape.heads - 1).end;
                sequence
            })
            .collect();
        let mut probabilities = self.pool.take(1, at);
        let mut output = self.pool.take(row, shape.heads * shape.head_dim);
        let mut packed = PackedMatrix::new();
        let [q, k, v] = [queries, keys, values].map(|var| &self.nodes[var.0].value);
        for sequence in &sequences {
            let (rows, length, stride) = (sequence.queries.len(), sequence.tokens.len(), sequence.stride());
            if rows == 0 {
                continue;
            }
            for head in 0..shape.heads {
                let columns = shape.columns(head);
                let scores = &mut probabilities.data[sequence.of_head(head)];
                let head_queries = q.part(sequence.queries.clone(), columns.clone());
                let head_keys = k.part(sequence.tokens.clone(), columns.clone());
                self.kernels.pack(head_keys, self.precision, &mut packed);
                let to = ViewMut::strided(scores, rows, length, stride);
                self.kernels.matmul(head_queries, &packed, Epilogue::NONE, to);
                self.kernels.scale(scores, shape.scale);
                self.add_bias((shape, head), sequence, (head_queries, head_keys), scores);
                if let Some(window) = shape.window {
                    for (row, scores) in scores.chunks_exact_mut(stride).enumerate() {
                        let place = sequence.first + row;
                        scores[..place.saturating_sub(window)].fill(f32::NEG_INFINITY);
                        scores[(place + window + 1).min(length)..length].fill(f32::NEG_INFINITY);
                    }
                }
                self.kernels.softmax_rows(ViewMut::strided(scores, rows, length, stride));
                self.kernels.pack_transposed(
                    v.part(sequence.tokens.clone(), columns.clone()),
                    self.precision,
                    &mut packed,
                );
                self.kernels.matmul(
                    View::strided(scores, rows, length, stride),
                    &packed,
                    Epilogue::NONE,
                    output.part_mut(sequence.queries.clone(), columns),
                );
            }
        }
        let shape = shape.clone();
        let attention = Attention { queries, keys, values, shape, sequences, probabilities };
        self.push(output, Op::Attention(Box::new(attention)))
    }

    fn add_bias(
        &self,
        (shape, head): (&Shape, usize),
        sequence: &Sequence,
        (queries, keys): (View<'_>, View<'_>),
        scores: &mut [f32],
    ) {
        let length = sequence.tokens.len();
        let each = |scores: &mut [f32], add: &dyn Fn(usize, usize, usize) -> f32, rows: &Distances| {
            for (i, scores) in scores.chunks_exact_mut(sequence.stride()).enumerate() {
                for (j, row) in rows.of(sequence.first + i, length).enumerate() {
                    scores[j] += add(i, j, row);
                }
            }
        };
        match &shape.bias {
            Bias::None => {}
            Bias::Table(table, rows) => {
                let table = &self.parameters.get(*table).value;
                each(scores, &|_, _, row| table[row * shape.heads + head], rows);
            }
            Bias::Disentangled(Disentangled { keys: position_keys, queries: position_queries, rows }) => {
                let product = |content: View<'_>, positions: Var| {
                    let positions = &self.nodes[positions.0].value;
                    let part = positions.part(0..positions.rows, shape.columns(head));
                    let packed = self.kernels.packed(part, self.precision);
                    let mut product = vec![0.0; content.rows * positions.rows];
                    let to = ViewMut::new(&mut product, content.rows, positions.rows);
                    self.kernels.matmul(content, &packed, Epilogue::NONE, to);
                    (product, positions.rows)
                };
                if let Some(positions) = position_keys {
                    let (product, width) = product(queries, *positions);
                    each(scores, &|i, _, row| product[i * width + row] * shape.scale, rows);
                }
                if let Some(positions) = position_queries {
                    let (product, width) = product(keys, *positions);
                    each(scores, &|_, j, row| product[j * width + row] * shape.scale, rows);
                }
            }
        }
    }
}

impl Backward<'_> {
    /// `dy` is the gradient of the output.
    pub(super) fn attention(&mut self, attention: &Attention, dy: &Matrix, gradients: &mut Gradients) {
        let Attention { queries, keys, values, shape, sequences, probabilities } = attention;
        let nodes = self.nodes;
        let [q, k, v] = [queries, keys, values].map(|var| &nodes[var.0].value);
        let [mut dq, mut dk, mut dv] = [q, k, v].map(|value| self.pool.zeros(value.rows, value.cols));
        let mut scores = Vec::new();
        let mut transposed = Vec::new();
        for sequence in sequences {
            let (rows, length, stride) = (sequence.queries.len(), sequence.tokens.len(), sequence.stride());
            if rows == 0 {
                continue;
            }
            scores.resize(rows * stride, 0.0);
            transposed.resize(rows * length, 0.0);
            for head in 0..shape.heads {
                let columns = shape.columns(head);
                let probabilities = &probabilities.data[sequence.of_head(head)];
                let head_dy = dy.part(sequence.queries.clone(), columns.clone());
                // dV = Pᵀ · dO
                simd::transpose(probabilities, (rows, length, stride), &mut transposed);
                self.product(
                    View::new(&transposed, length, rows),
                    head_dy,
                    dv.part_mut(sequence.tokens.clone(), columns.clone()),
                );
                // dP = dO · Vᵀ
                let head_values = v.part(sequence.tokens.clone(), columns.clone());
                self.kernels.pack(head_values, self.precision, &mut self.packed);
                let to = ViewMut::strided(&mut scores, rows, length, stride);
                self.kernels.matmul(head_dy, &self.packed, Epilogue::NONE, to);
                // dS = P ∘ (dP - the row's sum of P ∘ dP)
                let (probabilities, scores) = (probabilities, scores.as_mut_slice());
                simd::on(
                    #[inline(always)]
                    || {
                        let rows = probabilities.chunks_exact(stride).zip(scores.chunks_exact_mut(stride));
                        for (p, ds) in rows {
                            let (p, ds) = (&p[..length], &mut ds[..length]);
                            let sum = simd::sum2(p, ds, |p, dp| p * dp);
                            for i in 0..length {
                                ds[i] = p[i] * (ds[i] - sum);
                            }
                        }
                    },
                );
                self.bias((shape, head), sequence, (q, k), (&mut dq, &mut dk), scores, gradients);
                // dQ = dS · K · scale and dK = dSᵀ · Q · scale
                self.kernels.scale(scores, shape.scale);
                let head_keys = k.part(sequence.tokens.clone(), columns.clone());
                let head_queries = q.part(sequence.queries.clone(), columns.clone());
                let to = dq.part_mut(sequence.queries.clone(), columns.clone());
                self.add_product(View::strided(scores, rows, length, stride), head_keys, to);
                simd::transpose(scores, (rows, length, stride), &mut transposed);
                let to = dk.part_mut(sequence.tokens.clone(), columns);
                self.add_product(View::new(&transposed, length, rows), head_queries, to);
            }
        }
        for (var, gradient) in [(queries, dq), (keys, dk), (values, dv)] {
            self.give(*var, gradient);
        }
    }

    /// `out = a · b`; `a` is `[m, k]`, `b` `[k, n]`.
    fn product(&mut self, a: View<'_>, b: View<'_>, out: ViewMut<'_>) {
        self.kernels.pack_transposed(b, self.precision, &mut self.packed);
        self.kernels.matmul(a, &self.packed, Epilogue::NONE, out);
    }

    /// `out += a · b`.
    fn add_product(&mut self, a: View<'_>, b: View<'_>, mut out: ViewMut<'_>) {
        let mut product = self.pool.take(out.rows, out.cols);
        self.product(a, b, product.view_mut());
        for row in 0..out.rows {
            self.kernels.add(out.row_mut(row), product.row(row));
        }
        self.pool.give(product);
    }

    /// The gradients of what was added to the scores; `ds` is that of the scores.
    fn bias(
        &mut self,
        (shape, head): (&Shape, usize),
        sequence: &Sequence,
        (q, k): (&Matrix, &Matrix),
        (dq, dk): (&mut Matrix, &mut Matrix),
        ds: &[f32],
        gradients: &mut Gradients,
    ) {
        let (queries, tokens) = (sequence.queries.clone(), sequence.tokens.clone());
        let stride = sequence.stride();
        match &shape.bias {
            Bias::None => {}
            Bias::Table(table, rows) => {
                let Some(gradient) = gradients.get_mut(*table) else { return };
                for (i, ds) in ds.chunks_exact(stride).enumerate() {
                    for (ds, row) in ds.iter().zip(rows.of(sequence.first + i, tokens.len())) {
                        gradient[row * shape.heads + head] += ds;
                    }
                }
            }
            Bias::Disentangled(Disentangled { keys, queries: position_queries, rows }) => {
                let terms = [(keys, q, &queries, dq, true), (position_queries, k, &tokens, dk, false)];
                for (positions, content, content_rows, to, by_query) in terms {
                    let Some(positions) = *positions else { continue };
                    let position_values = &self.nodes[positions.0].value;
                    let width = position_values.rows;
                    // The gradient of the product of content and positions, which the scores took entries of.
                    let mut product = self.pool.zeros(content_rows.len(), width);
                    for (i, ds) in ds.chunks_exact(stride).enumerate() {
                        for (j, row) in rows.of(sequence.first + i, tokens.len()).enumerate() {
                            let at = if by_query { i } else { j };
                            product.data[at * width + row] += ds[j] * shape.scale;
                        }
                    }
                    let columns = shape.columns(head);
                    let content = content.part(content_rows.clone(), columns.clone());
                    let part = position_values.part(0..width, columns.clone());
                    self.add_product(
                        product.view(),
                        part,
                        to.part_mut(content_rows.clone(), columns.clone()),
                    );
                    let mut transposed = self.pool.take(width, content_rows.len());
                    let shape = (product.rows, width, width);
                    simd::transpose(&product.data, shape, &mut transposed.data);
                    let mut gradient = self.sum(positions);
                    self.add_product(transposed.view(), content, gradient.part_mut(0..width, columns));
                    self.grads[positions.0] = Some(gradient);
                    self.pool.give(transposed);
                    self.pool.give(product);
                }
            }
        }
    }
}
