//! Layers: each checks its shapes once, when it is loaded, and calls one kernel.
//!
//! Activations are [`Matrix`], `[T, features]`, one row a token of a packed batch.

mod activation;
mod attention;
mod embedding;
mod inputs;
mod linear;
mod norm;
mod rotary;
mod team;

pub use activation::{Activation, gated};
pub use attention::{AttentionShape, Block, Mask, ScoreBias, attention};
pub use embedding::Embedding;
pub use inputs::{Inputs, Observation, Seen, Smoothing};
pub use linear::Linear;
pub use norm::{LayerNorm, RmsNorm};
pub use rotary::Rotary;
pub use team::Team;

use std::cell::RefCell;

use jointly_kernels::{Kernels, Precision, Values, View, ViewMut};

/// Row-major values, `[rows, cols]`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Matrix {
    /// The values, row after row.
    pub data: Values,
    /// The number of rows.
    pub rows: usize,
    /// The number of columns.
    pub cols: usize,
}

/// Buffers that a thread keeps: those of one layer serve the next.
const KEPT: usize = 12;

thread_local! {
    static BUFFERS: RefCell<Vec<Values>> = const { RefCell::new(Vec::new()) };
}

impl Drop for Matrix {
    fn drop(&mut self) {
        if self.data.capacity() > 0 {
            let data = std::mem::take(&mut self.data);
            // A thread that is ending keeps nothing.
            _ = BUFFERS.try_with(|buffers| {
                let mut buffers = buffers.borrow_mut();
                if buffers.len() < KEPT {
                    buffers.push(data);
                }
            });
        }
    }
}

impl Matrix {
    /// Values that are to be overwritten, all of them: whatever some earlier matrix of this thread held.
    #[must_use]
    pub fn reused(rows: usize, cols: usize) -> Self {
        let len = rows * cols;
        let mut data = BUFFERS.with_borrow_mut(|buffers| {
            // The smallest that is large enough.
            let fits = (0..buffers.len()).filter(|&i| buffers[i].capacity() >= len);
            let best = fits.min_by_key(|&i| buffers[i].capacity());
            best.map(|i| buffers.swap_remove(i)).unwrap_or_default()
        });
        data.set_len(len);
        Self { data, rows, cols }
    }

    /// All zeros.
    #[must_use]
    pub fn zeros(rows: usize, cols: usize) -> Self {
        Self { data: Values::zeros(rows * cols), rows, cols }
    }

    /// One row.
    #[must_use]
    pub fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.cols..(row + 1) * self.cols]
    }

    /// One row, to write.
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.data[row * self.cols..(row + 1) * self.cols]
    }

    /// Some of the rows, in the order given.
    #[must_use]
    pub fn take(&self, rows: impl IntoIterator<Item = usize>) -> Self {
        let mut data = Values::new();
        rows.into_iter().for_each(|row| data.extend_from_slice(self.row(row)));
        let rows = data.len() / self.cols.max(1);
        Self { data, rows, cols: self.cols }
    }

    /// All of it, for a kernel.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        View::new(&self.data, self.rows, self.cols)
    }

    /// All of it, for a kernel to write.
    pub fn view_mut(&mut self) -> ViewMut<'_> {
        ViewMut::new(&mut self.data, self.rows, self.cols)
    }

    /// Columns `columns` of rows `rows`, for a kernel.
    #[must_use]
    pub fn part(&self, rows: std::ops::Range<usize>, columns: std::ops::Range<usize>) -> View<'_> {
        let start = rows.start * self.cols + columns.start;
        if rows.is_empty() || columns.is_empty() {
            return View::new(&[], 0, columns.len());
        }
        let end = (rows.end - 1) * self.cols + columns.end;
        View::strided(&self.data[start..end], rows.len(), columns.len(), self.cols)
    }
}

/// Called with the name and the output of each layer.
pub type Listener<'a> = &'a mut dyn FnMut(&str, &Matrix);

/// What a forward pass carries along: the kernels, and who listens to what each layer gives.
pub struct Run<'a> {
    /// The kernels of the chosen instruction set.
    pub kernels: &'static Kernels,
    /// What attention multiplies in.
    pub attention_precision: Precision,
    /// The parity tests listen here.
    pub trace: Option<Listener<'a>>,
    /// The team that computes the batch, and which of its members this is; none if one thread computes all of it.
    pub team: Option<(&'a Team, usize)>,
}

impl Run<'_> {
    /// Some rows of a matrix, those of this thread, to all of them.
    #[must_use]
    pub fn gather(&self, rows: Matrix) -> Matrix {
        match self.team {
            None => rows,
            Some((team, member)) => team.gather(member, rows),
        }
    }

    /// Tells the listener, if there is one, what a layer gave.
    pub fn trace(&mut self, name: std::fmt::Arguments<'_>, output: &Matrix) {
        if let Some(listener) = self.trace.as_mut() {
            listener(&name.to_string(), output);
        }
    }
}
