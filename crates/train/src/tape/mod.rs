//! Reverse-mode differentiation over matrices: a forward pass writes down what it did, [`Tape::backward`] goes back
//! through it. The products run on the kernels that inference uses, so the two agree.
//!
//! A tape belongs to one thread. It reads the shared [`Parameters`], and adds to gradients of its own.

mod attention;

use std::ops::Range;
use std::sync::Arc;

use jointly_kernels::{Epilogue, Kernels, Map, PackedMatrix, Precision, Values, View, ViewMut};

pub use self::attention::{Bias, Disentangled, Distances, Shape};
use crate::parameters::{Gradients, LinearId, ParameterId, Parameters};
use crate::simd;

/// Row-major values, `[rows, cols]`. Its memory comes from a tape's pool and goes back there.
#[derive(Debug, Clone, Default)]
pub struct Matrix {
    /// Row after row.
    pub data: Values,
    /// The number of rows.
    pub rows: usize,
    /// The number of columns.
    pub cols: usize,
}

impl Matrix {
    fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.cols..(row + 1) * self.cols]
    }

    fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.data[row * self.cols..(row + 1) * self.cols]
    }

    fn view(&self) -> View<'_> {
        View::new(&self.data, self.rows, self.cols)
    }

    fn view_mut(&mut self) -> ViewMut<'_> {
        ViewMut::new(&mut self.data, self.rows, self.cols)
    }

    /// Columns of some rows.
    fn part(&self, rows: Range<usize>, columns: Range<usize>) -> View<'_> {
        let from = rows.start * self.cols + columns.start;
        let to = (rows.end - 1) * self.cols + columns.end;
        View::strided(&self.data[from..to], rows.len(), columns.len(), self.cols)
    }

    /// Columns of some rows, to write.
    fn part_mut(&mut self, rows: Range<usize>, columns: Range<usize>) -> ViewMut<'_> {
        let from = rows.start * self.cols + columns.start;
        let to = (rows.end - 1) * self.cols + columns.end;
        ViewMut::strided(&mut self.data[from..to], rows.len(), columns.len(), self.cols)
    }
}

/// Memory that a thread keeps from one tape to the next: a new page costs more than the arithmetic on it.
#[derive(Debug, Default)]
pub struct Pool {
    free: Vec<Values>,
}

impl Pool {
    /// A matrix whose values are to be overwritten, all of them.
    fn take(&mut self, rows: usize, cols: usize) -> Matrix {
        let len = rows * cols;
        let fits = (0..self.free.len()).filter(|&i| self.free[i].capacity() >= len);
        let best = fits.min_by_key(|&i| self.free[i].capacity());
        // If none is large enough the largest grows, so that there are never more than a tape needed at once.
        let best = best.or_else(|| (0..self.free.len()).max_by_key(|&i| self.free[i].capacity()));
        let mut data = best.map(|i| self.free.swap_remove(i)).unwrap_or_default();
        data.set_len(len);
        Matrix { data, rows, cols }
    }

    fn zeros(&mut self, rows: usize, cols: usize) -> Matrix {
        let mut matrix = self.take(rows, cols);
        matrix.data.fill(0.0);
        matrix
    }

    fn give(&mut self, matrix: Matrix) {
        if matrix.data.capacity() > 0 {
            self.free.push(matrix.data);
        }
    }
}

/// A value on a tape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Var(usize);

struct Node {
    value: Matrix,
    op: Op,
}

/// What made a value, and what its gradient needs.
enum Op {
    Embedding { table: ParameterId, ids: Arc<[u32]> },
    Parameter { id: ParameterId },
    Linear { x: Var, layer: LinearId },
    Add { a: Var, b: Var },
    Mul { a: Var, b: Var },
    LayerNorm { x: Var, gain: ParameterId, bias: Option<ParameterId>, normed: Matrix, scale: Vec<f32> },
    Map { x: Var, map: Map },
    Rows { x: Var, rows: Vec<usize> },
    Columns { x: Var, columns: Range<usize> },
    Mean { x: Var, sequences: Arc<[Range<usize>]> },
    Rotary { x: Var, angles: Arc<Angles>, positions: Arc<[usize]> },
    Attention(Box<attention::Attention>),
}

impl Op {
    /// What it reads of what is trained.
    fn parameters(&self, parameters: &Parameters) -> impl Iterator<Item = ParameterId> + use<> {
        let [first, second] = match self {
            Self::Embedding { table: id, .. } | Self::Parameter { id } => [Some(*id), None],
            Self::Linear { layer, .. } => {
                let (layer, _) = parameters.linear(*layer);
                [Some(layer.weight), layer.bias]
            }
            Self::LayerNorm { gain, bias, .. } => [Some(*gain), *bias],
            Self::Attention(attention) => [attention.table(), None],
            Self::Add { .. } | Self::Mul { .. } | Self::Map { .. } => [None; 2],
            Self::Rows { .. } | Self::Columns { .. } | Self::Mean { .. } | Self::Rotary { .. } => [None; 2],
        };
        first.into_iter().chain(second)
    }
}

/// Cosines and sines by position, each `[positions, head_dim / 2]`.
#[derive(Debug)]
pub struct Angles {
    /// Cosines.
    pub cos: Vec<f32>,
    /// Sines.
    pub sin: Vec<f32>,
    /// Half of the values of a head.
    pub half: usize,
}

impl Angles {
    /// For `positions` positions, with frequencies `theta^(-2i / head_dim)`. Source: arXiv 2104.09864.
    #[must_use]
    pub fn new(head_dim: usize, theta: f64, positions: usize) -> Self {
        let half = head_dim / 2;
        let frequency = |i: usize| (1.0 / theta.powf((2 * i) as f64 / head_dim as f64)) as f32;
        let angles: Vec<f64> =
            (0..positions * half).map(|at| f64::from((at / half) as f32 * frequency(at % half))).collect();
        Self {
            cos: angles.iter().map(|angle| angle.cos() as f32).collect(),
            sin: angles.iter().map(|angle| angle.sin() as f32).collect(),
            half,
        }
    }

    /// Rotates the heads of each row of `x`, forwards (`sign` 1) or back (-1).
    fn rotate(&self, x: &mut Matrix, positions: &[usize], sign: f32) {
        for (row, &position) in positions.iter().enumerate() {
            let cos = &self.cos[position * self.half..][..self.half];
            let sin = &self.sin[position * self.half..][..self.half];
            for head in x.row_mut(row).chunks_exact_mut(2 * self.half) {
                let (first, second) = head.split_at_mut(self.half);
                for i in 0..self.half {
                    let (a, b, sin) = (first[i], second[i], sign * sin[i]);
                    first[i] = a * cos[i] - b * sin;
                    second[i] = b * cos[i] + a * sin;
                }
            }
        }
    }
}

/// What a forward pass did.
pub struct Tape<'p> {
    kernels: &'static Kernels,
    precision: Precision,
    parameters: &'p Parameters,
    pool: Pool,
    nodes: Vec<Node>,
}

impl<'p> Tape<'p> {
    /// An empty tape over parameters that are packed for `precision`.
    #[must_use]
    pub fn new(
        kernels: &'static Kernels,
        precision: Precision,
        parameters: &'p Parameters,
        pool: Pool,
    ) -> Self {
        Self { kernels, precision, parameters, pool, nodes: Vec::new() }
    }

    /// The memory of a tape that is done with.
    #[must_use]
    pub fn into_pool(mut self) -> Pool {
        for node in std::mem::take(&mut self.nodes) {
            self.pool.give(node.value);
            match node.op {
                Op::LayerNorm { normed, .. } => self.pool.give(normed),
                Op::Attention(attention) => attention.give_back(&mut self.pool),
                _ => {}
            }
        }
        self.pool
    }

    /// A value.
    #[must_use]
    pub fn value(&self, var: Var) -> &Matrix {
        &self.nodes[var.0].value
    }

    fn push(&mut self, value: Matrix, op: Op) -> Var {
        self.nodes.push(Node { value, op });
        Var(self.nodes.len() - 1)
    }

    /// A copy that may be changed.
    fn copy(&mut self, var: Var) -> Matrix {
        let Matrix { rows, cols, .. } = self.nodes[var.0].value;
        let mut copy = self.pool.take(rows, cols);
        copy.data.copy_from_slice(&self.nodes[var.0].value.data);
        copy
    }

    /// Rows `ids` of a table `[rows, features]`: `[ids, features]`.
    pub fn embedding(&mut self, table: ParameterId, ids: Arc<[u32]>) -> Var {
        let parameter = self.parameters.get(table);
        let features = parameter.shape[1];
        let mut value = self.pool.take(ids.len(), features);
        for (row, &id) in ids.iter().enumerate() {
            value.row_mut(row).copy_from_slice(&parameter.value[id as usize * features..][..features]);
        }
        self.push(value, Op::Embedding { table, ids })
    }

    /// A parameter as it is, `[rows, cols]`.
    pub fn parameter(&mut self, id: ParameterId) -> Var {
        let parameter = self.parameters.get(id);
        let mut value = self.pool.take(parameter.shape[0], parameter.shape[1]);
        value.data.copy_from_slice(&parameter.value);
        self.push(value, Op::Parameter { id })
    }

    /// `x · Wᵀ + b`.
    pub fn linear(&mut self, x: Var, id: LinearId) -> Var {
        let (layer, packed) = self.parameters.linear(id);
        let bias = layer.bias.map(|bias| &self.parameters.get(bias).value[layer.rows.clone()]);
        let mut value = self.pool.take(self.nodes[x.0].value.rows, layer.rows.len());
        let then = Epilogue { bias, ..Epilogue::NONE };
        self.kernels.matmul(self.nodes[x.0].value.view(), &packed.forward, then, value.view_mut());
        self.push(value, Op::Linear { x, layer: id })
    }

    /// `a + b`.
    pub fn add(&mut self, a: Var, b: Var) -> Var {
        let mut value = self.copy(a);
        self.kernels.add(&mut value.data, &self.nodes[b.0].value.data);
        self.push(value, Op::Add { a, b })
    }

    /// `a · b`, element by element.
    pub fn mul(&mut self, a: Var, b: Var) -> Var {
        let mut value = self.copy(a);
        self.kernels.mul(&mut value.data, &self.nodes[b.0].value.data);
        self.push(value, Op::Mul { a, b })
    }

    /// `(x - mean) / sqrt(variance + eps) · gain + bias`, row by row.
    pub fn layer_norm(&mut self, x: Var, gain: ParameterId, bias: Option<ParameterId>, eps: f32) -> Var {
        let Matrix { rows, cols, .. } = self.nodes[x.0].value;
        let (mut value, mut normed) = (self.pool.take(rows, cols), self.pool.take(rows, cols));
        let mut scale = vec![0.0; rows];
        let gains = &self.parameters.get(gain).value;
        let biases = bias.map(|bias| self.parameters.get(bias).value.as_slice());
        let x_value = &self.nodes[x.0].value;
        simd::on(
            #[inline(always)]
            || {
                for row in 0..rows {
                    let x = x_value.row(row);
                    let mean = simd::sum2(x, x, |x, _| x) / cols as f32;
                    let variance = simd::sum2(x, x, |x, _| (x - mean) * (x - mean)) / cols as f32;
                    scale[row] = 1.0 / (variance + eps).sqrt();
                    let (normed, value) = (normed.row_mut(row), value.row_mut(row));
                    for i in 0..cols {
                        normed[i] = (x[i] - mean) * scale[row];
                        value[i] = normed[i] * gains[i];
                    }
                    if let Some(biases) = biases {
                        value.iter_mut().zip(biases).for_each(|(value, bias)| *value += bias);
                    }
                }
            },
        );
        self.push(value, Op::LayerNorm { x, gain, bias, normed, scale })
    }

    /// `map(x)`.
    pub fn map(&mut self, x: Var, map: Map) -> Var {
        if map == Map::Identity {
            return x;
        }
        let mut value = self.copy(x);
        self.kernels.map(map, &mut value.data);
        self.push(value, Op::Map { x, map })
    }

    /// Some of the rows.
    pub fn rows(&mut self, x: Var, rows: Vec<usize>) -> Var {
        let mut value = self.pool.take(rows.len(), self.nodes[x.0].value.cols);
        for (to, &from) in rows.iter().enumerate() {
            value.row_mut(to).copy_from_slice(self.nodes[x.0].value.row(from));
        }
        self.push(value, Op::Rows { x, rows })
    }

    /// Some of the columns.
    pub fn columns(&mut self, x: Var, columns: Range<usize>) -> Var {
        let from = &self.nodes[x.0].value;
        let mut value = self.pool.take(from.rows, columns.len());
        for row in 0..from.rows {
            value.row_mut(row).copy_from_slice(&from.row(row)[columns.clone()]);
        }
        self.push(value, Op::Columns { x, columns })
    }

    /// The mean row of each sequence.
    pub fn mean(&mut self, x: Var, sequences: Arc<[Range<usize>]>) -> Var {
        let from = &self.nodes[x.0].value;
        let mut value = self.pool.zeros(sequences.len(), from.cols);
        for (to, rows) in sequences.iter().enumerate() {
            let scale = 1.0 / rows.len() as f32;
            for row in rows.clone() {
                value.row_mut(to).iter_mut().zip(from.row(row)).for_each(|(to, from)| *to += from * scale);
            }
        }
        self.push(value, Op::Mean { x, sequences })
    }

    /// The heads of each row, rotated by its position.
    pub fn rotary(&mut self, x: Var, angles: &Arc<Angles>, positions: &Arc<[usize]>) -> Var {
        let mut value = self.copy(x);
        angles.rotate(&mut value, positions, 1.0);
        self.push(value, Op::Rotary { x, angles: angles.clone(), positions: positions.clone() })
    }

    /// Adds to `gradients` those of a number whose derivative with respect to `output` is `by`, as many values as
    /// `output` has. What lies before the first value that depends on a parameter with a gradient is not gone through: with the
    /// lower layers frozen, the way back is that much shorter.
    ///
    /// # Panics
    /// If the number of values differs.
    pub fn backward(&mut self, output: Var, by: &[f32], gradients: &mut Gradients) {
        let mut grads: Vec<Option<Matrix>> = (0..self.nodes.len()).map(|_| None).collect();
        let Matrix { rows, cols, .. } = self.nodes[output.0].value;
        let mut first = self.pool.take(rows, cols);
        first.data.copy_from_slice(by);
        grads[output.0] = Some(first);
        let mut pass = Backward {
            kernels: self.kernels,
            precision: self.precision,
            parameters: self.parameters,
            nodes: &self.nodes,
            pool: std::mem::take(&mut self.pool),
            grads,
            packed: PackedMatrix::new(),
        };
        let mut learns =
            |node: &Node| node.op.parameters(self.parameters).any(|id| gradients.get_mut(id).is_some());
        let begin = self.nodes.iter().position(&mut learns).unwrap_or(self.nodes.len());
        for index in (begin..=output.0).rev() {
            if let Some(dy) = pass.grads[index].take() {
                pass.step(index, dy, gradients);
            }
        }
        let Backward { mut pool, grads, .. } = pass;
        grads.into_iter().flatten().for_each(|grad| pool.give(grad));
        self.pool = pool;
    }
}

/// A backward pass on its way.
struct Backward<'a> {
    kernels: &'static Kernels,
    precision: Precision,
    parameters: &'a Parameters,
    nodes: &'a [Node],
    pool: Pool,
    grads: Vec<Option<Matrix>>,
    packed: PackedMatrix,
}

impl Backward<'_> {
    /// Adds to the gradient of a value.
    fn give(&mut self, to: Var, grad: Matrix) {
        match &mut self.grads[to.0] {
            Some(sum) => {
                self.kernels.add(&mut sum.data, &grad.data);
                self.pool.give(grad);
            }
            none => *none = Some(grad),
        }
    }

    /// The gradient of a value, to add to: zeros if nothing was added yet.
    fn sum(&mut self, to: Var) -> Matrix {
        let Matrix { rows, cols, .. } = self.nodes[to.0].value;
        self.grads[to.0].take().unwrap_or_else(|| self.pool.zeros(rows, cols))
    }

    /// One operation backwards: `dy` is the gradient of what it gave.
    fn step(&mut self, index: usize, mut dy: Matrix, gradients: &mut Gradients) {
        let nodes = self.nodes;
        let Node { op, value } = &nodes[index];
        match op {
            Op::Embedding { table, ids } => {
                if let Some(gradient) = gradients.get_mut(*table) {
                    let features = dy.cols;
                    for (row, &id) in ids.iter().enumerate() {
                        let to = &mut gradient[id as usize * features..][..features];
                        to.iter_mut().zip(dy.row(row)).for_each(|(to, dy)| *to += dy);
                    }
                }
            }
            Op::Parameter { id } => {
                if let Some(gradient) = gradients.get_mut(*id) {
                    self.kernels.add(gradient, &dy.data);
                }
            }
            Op::Linear { x, layer } => self.linear(*x, *layer, &dy, gradients),
            Op::Add { a, b } => {
                let mut copy = self.pool.take(dy.rows, dy.cols);
                copy.data.copy_from_slice(&dy.data);
                self.give(*a, copy);
                return self.give(*b, dy);
            }
            Op::Mul { a, b } => {
                let mut da = self.pool.take(dy.rows, dy.cols);
                da.data.copy_from_slice(&dy.data);
                self.kernels.mul(&mut da.data, &nodes[b.0].value.data);
                self.kernels.mul(&mut dy.data, &nodes[a.0].value.data);
                self.give(*a, da);
                return self.give(*b, dy);
            }
            Op::LayerNorm { x, gain, bias, normed, scale } => {
                self.layer_norm((*gain, *bias), (normed, scale), &mut dy, gradients);
                return self.give(*x, dy);
            }
            Op::Map { x, map } => {
                times_derivative(*map, &nodes[x.0].value.data, &value.data, &mut dy.data);
                return self.give(*x, dy);
            }
            Op::Rows { x, rows } => {
                let mut dx = self.sum(*x);
                for (from, &to) in rows.iter().enumerate() {
                    dx.row_mut(to).iter_mut().zip(dy.row(from)).for_each(|(to, from)| *to += from);
                }
                self.grads[x.0] = Some(dx);
            }
            Op::Columns { x, columns } => {
                let mut dx = self.sum(*x);
                for row in 0..dy.rows {
                    let to = &mut dx.row_mut(row)[columns.clone()];
                    to.iter_mut().zip(dy.row(row)).for_each(|(to, from)| *to += from);
                }
                self.grads[x.0] = Some(dx);
            }
            Op::Mean { x, sequences } => {
                let mut dx = self.sum(*x);
                for (from, rows) in sequences.iter().enumerate() {
                    let scale = 1.0 / rows.len() as f32;
                    for to in rows.clone() {
                        let to = dx.row_mut(to);
                        to.iter_mut().zip(dy.row(from)).for_each(|(to, from)| *to += from * scale);
                    }
                }
                self.grads[x.0] = Some(dx);
            }
            Op::Rotary { x, angles, positions } => {
                angles.rotate(&mut dy, positions, -1.0);
                return self.give(*x, dy);
            }
            Op::Attention(attention) => self.attention(attention, &dy, gradients),
        }
        self.pool.give(dy);
    }

    fn linear(&mut self, x: Var, id: LinearId, dy: &Matrix, gradients: &mut Gradients) {
        let (layer, packed) = self.parameters.linear(id);
        let x_value = &self.nodes[x.0].value;
        let (n, k) = (layer.rows.len(), layer.in_features);
        if let Some(gradient) = gradients.get_mut(layer.weight) {
            // dW = dyᵀ · x
            let mut dy_transposed = self.pool.take(n, dy.rows);
            simd::transpose(&dy.data, (dy.rows, n, n), &mut dy_transposed.data);
            self.kernels.pack_transposed(x_value.view(), self.precision, &mut self.packed);
            let mut dw = self.pool.take(n, k);
            self.kernels.matmul(dy_transposed.view(), &self.packed, Epilogue::NONE, dw.view_mut());
            self.kernels.add(&mut gradient[layer.rows.start * k..layer.rows.end * k], &dw.data);
            self.pool.give(dw);
            self.pool.give(dy_transposed);
        }
        if let Some(gradient) = layer.bias.and_then(|bias| gradients.get_mut(bias)) {
            let gradient = &mut gradient[layer.rows.clone()];
            dy.data.chunks_exact(n).for_each(|row| self.kernels.add(gradient, row));
        }
        let mut dx = self.pool.take(x_value.rows, x_value.cols);
        let before = self.grads[x.0].take();
        let add = before.as_ref().map(Matrix::view);
        self.kernels.matmul(dy.view(), &packed.backward, Epilogue { add, ..Epilogue::NONE }, dx.view_mut());
        if let Some(before) = before {
            self.pool.give(before);
        }
        self.grads[x.0] = Some(dx);
    }

    /// `dy` becomes the gradient of the input: with `g = dy · gain` and `n` the normed row,
    /// `scale · (g - mean(g) - n · mean(g · n))`.
    fn layer_norm(
        &self,
        (gain, bias): (ParameterId, Option<ParameterId>),
        (normed, scale): (&Matrix, &[f32]),
        dy: &mut Matrix,
        gradients: &mut Gradients,
    ) {
        let gains = &self.parameters.get(gain).value;
        let cols = dy.cols;
        if let Some(gradient) = bias.and_then(|bias| gradients.get_mut(bias)) {
            dy.data.chunks_exact(cols).for_each(|row| self.kernels.add(gradient, row));
        }
        let mut gain_gradient = gradients.get_mut(gain);
        simd::on(
            #[inline(always)]
            || {
                for row in 0..dy.rows {
                    let (dy, normed) = (dy.row_mut(row), normed.row(row));
                    if let Some(gradient) = &mut gain_gradient {
                        for i in 0..cols {
                            gradient[i] += dy[i] * normed[i];
                        }
                    }
                    dy.iter_mut().zip(gains).for_each(|(dy, gain)| *dy *= gain);
                    let mean = simd::sum2(dy, dy, |dy, _| dy) / cols as f32;
                    let slope = simd::sum2(dy, normed, |dy, normed| dy * normed) / cols as f32;
                    for i in 0..cols {
                        dy[i] = scale[row] * (dy[i] - mean - normed[i] * slope);
                    }
                }
            },
        );
    }
}

/// `dy *= map'(x)`, where `y = map(x)`.
fn times_derivative(map: Map, x: &[f32], y: &[f32], dy: &mut [f32]) {
    #[inline(always)]
    fn each(x: &[f32], y: &[f32], dy: &mut [f32], slope: impl Fn(f32, f32) -> f32) {
        simd::on(
            #[inline(always)]
            || {
                let length = dy.len();
                let (x, y) = (&x[..length], &y[..length]);
                for i in 0..length {
                    dy[i] *= slope(x[i], y[i]);
                }
            },
        );
    }
    match map {
        Map::Identity => {}
        Map::Tanh => each(x, y, dy, |_, y| 1.0 - y * y),
        Map::Sigmoid => each(x, y, dy, |_, y| y * (1.0 - y)),
        Map::Relu => each(x, y, dy, |x, _| if x > 0.0 { 1.0 } else { 0.0 }),
        Map::Silu => each(x, y, dy, |x, y| {
            let sigmoid = 1.0 / (1.0 + simd::exp(-x));
            sigmoid + y * (1.0 - sigmoid)
        }),
        // y = x Φ(x): the slope is Φ(x) + x φ(x), and Φ is y / x where x is not small.
        Map::GeluErf => each(x, y, dy, |x, y| {
            const INVERSE_ROOT_TAU: f32 = 0.398_942_3;
            let density = INVERSE_ROOT_TAU * simd::exp(-0.5 * x * x);
            let small = x.abs() < 1e-2;
            let ratio = y / if small { 1.0 } else { x };
            (if small { 0.5 + x * INVERSE_ROOT_TAU } else { ratio }) + x * density
        }),
        // y = x (1 + t) / 2, where t = tanh(u) and 1 + t = 2 sigmoid(2u).
        Map::GeluTanh => each(x, y, dy, |x, _| {
            const ROOT: f32 = 0.797_884_6;
            let u = ROOT * (x + 0.044_715 * x * x * x);
            let half = 1.0 / (1.0 + simd::exp(-2.0 * u));
            half + 2.0 * x * half * (1.0 - half) * ROOT * (1.0 + 3.0 * 0.044_715 * x * x)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::expect_used, reason = "a test")]
    fn derivatives_are_those_of_the_maps() {
        let kernels = Kernels::select().expect("kernels");
        for map in [Map::GeluErf, Map::GeluTanh, Map::Silu, Map::Relu, Map::Tanh, Map::Sigmoid] {
            let apply = |x: f64| match map {
                Map::Identity => x,
                Map::GeluErf => x * 0.5 * libm::erfc(-x / std::f64::consts::SQRT_2),
                Map::GeluTanh => {
                    0.5 * x
                        * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
                }
                Map::Silu => x / (1.0 + (-x).exp()),
                Map::Relu => x.max(0.0),
                Map::Tanh => x.tanh(),
                Map::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            };
            for i in -801..800 {
                let x = [i as f32 / 97.0 + 1e-3];
                let mut y = x;
                kernels.map(map, &mut y);
                let mut dy = [1.0];
                times_derivative(map, &x, &y, &mut dy);
                let h = 1e-5;
                let wanted = (apply(f64::from(x[0]) + h) - apply(f64::from(x[0]) - h)) / (2.0 * h);
                assert!((f64::from(dy[0]) - wanted).abs() < 2e-5, "{map:?} at {}: {} {wanted}", x[0], dy[0]);
            }
        }
    }
}
