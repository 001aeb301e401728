//! Layers: each checks its shapes once, when it is loaded, and calls one kernel.
//!
//! Activations are [`Matrix`], `[T, features]`, one row a token of a packed batch.

mod activation;
mod attention;
pub(crate) mod device;
mod embedding;
mod inputs;
mod linear;
mod norm;
mod rotary;
mod team;

pub use activation::{Activation, gated};
pub use attention::{AttentionShape, Block, Mask, ScoreBias, attention};
pub use device::OnDevice;
pub use embedding::Embedding;
pub use inputs::{Inputs, Observation, Seen, Smoothing};
pub use linear::Linear;
pub use norm::{LayerNorm, RmsNorm};
pub use rotary::{Angles, Positions, Rotary};
pub use team::Team;

use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};

use jointly_cuda::Tensor;
use jointly_kernels::{Kernels, Precision, Values, View, ViewMut};

use crate::batch::{Batch, Read};

/// Row-major values, `[rows, cols]`, of this process or on a device.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Matrix {
    /// The values, row after row; none if they are on a device.
    pub data: Values,
    /// The number of rows.
    pub rows: usize,
    /// The number of columns.
    pub cols: usize,
    /// Where they are, if not in `data`.
    device: Option<Tensor>,
}

/// Buffers that a thread keeps: those of one layer serve the next.
const KEPT: usize = 12;

thread_local! {
    static BUFFERS: RefCell<Vec<Values>> = const { RefCell::new(Vec::new()) };
}

/// Buffers that threads have left, one entry for each: a thread ends with its request, and to take fresh memory from the system,
/// page by page, costs a short request a third of its time.
static LEFT: Mutex<Vec<Vec<Values>>> = Mutex::new(Vec::new());

/// Runs `work` with the buffers that an earlier thread left, and leaves them to a later one: there are as many as threads ever ran
/// at once.
pub(crate) fn with_buffers<T>(work: impl FnOnce() -> T) -> T {
    let left = || LEFT.lock().unwrap_or_else(PoisonError::into_inner);
    let buffers = left().pop().unwrap_or_default();
    BUFFERS.set(buffers);
    let result = work();
    let buffers = BUFFERS.take();
    if !buffers.is_empty() {
        left().push(buffers);
    }
    result
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
    /// Of values at hand, row after row.
    ///
    /// # Panics
    /// If there are not `rows · cols` of them.
    #[must_use]
    pub fn new(data: impl Into<Values>, rows: usize, cols: usize) -> Self {
        let data = data.into();
        assert_eq!(data.len(), rows * cols, "values of a matrix of {rows} x {cols}");
        Self { data, rows, cols, device: None }
    }

    /// Values that are to be overwritten, all of them: whatever some earlier matrix of this thread held.
    #[must_use]
    pub fn reused(rows: usize, cols: usize) -> Self {
        let len = rows * cols;
        let mut data = BUFFERS.with_borrow_mut(|buffers| {
            // The smallest that is large enough. If none is, the largest makes room for a larger one, so that there are never
            // more of them than are in use at once.
            let fits = (0..buffers.len()).filter(|&i| buffers[i].capacity() >= len);
            match fits.min_by_key(|&i| buffers[i].capacity()) {
                Some(best) => buffers.swap_remove(best),
                None => {
                    let largest = (0..buffers.len()).max_by_key(|&i| buffers[i].capacity());
                    drop(largest.map(|i| buffers.swap_remove(i)));
                    Values::new()
                }
            }
        });
        data.set_len(len);
        Self { data, rows, cols, device: None }
    }

    /// All zeros.
    #[must_use]
    pub fn zeros(rows: usize, cols: usize) -> Self {
        Self { data: Values::zeros(rows * cols), rows, cols, device: None }
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
        if let Some(tensor) = &self.device {
            let rows: Vec<u32> = rows.into_iter().map(|row| row as u32).collect();
            return Self::of_tensor(tensor.take(&rows));
        }
        let mut data = Values::new();
        rows.into_iter().for_each(|row| data.extend_from_slice(self.row(row)));
        let rows = data.len() / self.cols.max(1);
        Self { data, rows, cols: self.cols, device: None }
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
    /// The batch on the device that computes it; none if this thread does.
    pub device: Option<OnDevice>,
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

    /// The place within its pair of each of this thread's tokens that is read, for [`Angles::apply`].
    #[must_use]
    pub fn positions(&self, batch: &Batch, read: Read) -> Positions {
        Positions::new(batch.positions(read), self.device.as_ref())
    }

    /// Tells the listener, if there is one, what a layer gave.
    pub fn trace(&mut self, name: std::fmt::Arguments<'_>, output: &Matrix) {
        if let Some(listener) = self.trace.as_mut() {
            match &output.device {
                None => listener(&name.to_string(), output),
                Some(_) => listener(&name.to_string(), &output.clone().into_host()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_outlives_its_thread() {
        // Larger than any other test's, so that nobody else takes it: a buffer serves whoever fits it best.
        const LEN: usize = 1 << 22;
        let address = |len| with_buffers(|| Matrix::reused(1, len).data.as_ptr().addr());
        let first = std::thread::spawn(move || address(LEN)).join().expect("a thread that ends");
        let again = (0..100).any(|_| std::thread::spawn(move || address(LEN - 1)).join().ok() == Some(first));
        assert!(again, "the buffers of a thread that ended are taken by one that begins");
    }

    #[test]
    fn a_buffer_that_is_too_small_makes_room() {
        std::thread::spawn(|| {
            for len in [100, 1000, 10_000, 5000] {
                drop(Matrix::reused(1, len));
                let kept = BUFFERS.with_borrow(Vec::len);
                assert_eq!(kept, 1, "one is in use at a time, so one is kept");
            }
        })
        .join()
        .expect("the assertions above");
    }
}
