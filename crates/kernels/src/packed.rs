//! The right-hand side of a matrix product, laid out as the inner loop reads it.

use crate::View;

/// Output columns in one panel: two AVX-512 vectors, four AVX2 vectors.
pub(crate) const PANEL: usize = 32;

/// Sixteen `f32`: one cache line, so that no vector load of a panel crosses two.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

const ZERO: Line = Line([0.0; 16]);
const LINES_PER_ROW: usize = PANEL / 16;

/// A weight `[n, k]` (n output columns, k inner), ready for [`Kernels::matmul`](crate::Kernels::matmul).
///
/// Panel `p` holds output columns `32 p .. 32 p + 32`; inside it, the 32 values of one inner index lie together:
/// `panel[p][kk][c] = weight[32 p + c][kk]`. Columns past `n` are zero. The layout is the same for every
/// instruction set.
#[derive(Clone, Default)]
pub struct PackedMatrix {
    lines: Vec<Line>,
    n: usize,
    k: usize,
}

impl std::fmt::Debug for PackedMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackedMatrix").field("n", &self.n).field("k", &self.k).finish_non_exhaustive()
    }
}

impl PackedMatrix {
    /// An empty matrix (`n == k == 0`), to be filled by one of the `repack` functions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Packs a weight `[n, k]` = `[out_features, in_features]`, row-major as in checkpoints.
    ///
    /// # Panics
    /// If the fields of `weight` do not describe a matrix within its data.
    #[track_caller]
    pub fn pack(weight: View<'_>) -> Self {
        let mut packed = Self::new();
        packed.repack(weight);
        packed
    }

    /// Packs a weight given as `[k, n]`, such as the values of attention.
    ///
    /// # Panics
    /// If the fields of `weight` do not describe a matrix within its data.
    #[track_caller]
    pub fn pack_transposed(weight: View<'_>) -> Self {
        let mut packed = Self::new();
        packed.repack_transposed(weight);
        packed
    }

    /// As [`pack`](Self::pack), in the memory this matrix already has.
    ///
    /// # Panics
    /// As [`pack`](Self::pack).
    #[track_caller]
    pub fn repack(&mut self, weight: View<'_>) {
        weight.assert_valid();
        let (n, k) = (weight.rows, weight.cols);
        self.reshape(n, k);
        // The other size may be anything then, up to what a panel of it cannot count.
        if n == 0 || k == 0 {
            return;
        }
        for (p, panel) in self.elements_mut().chunks_exact_mut(PANEL * k).enumerate() {
            let columns = PANEL.min(n - p * PANEL);
            if columns < PANEL {
                panel.fill(0.0);
            }
            let mut c = 0;
            while c + 4 <= columns {
                let rows = [0, 1, 2, 3].map(|i| weight.row(p * PANEL + c + i));
                interleave4(rows, c, panel);
                c += 4;
            }
            while c < columns {
                for (to, &from) in panel[c..].iter_mut().step_by(PANEL).zip(weight.row(p * PANEL + c)) {
                    *to = from;
                }
                c += 1;
            }
        }
    }

    /// As [`pack_transposed`](Self::pack_transposed), in the memory this matrix already has.
    ///
    /// # Panics
    /// As [`pack_transposed`](Self::pack_transposed).
    #[track_caller]
    pub fn repack_transposed(&mut self, weight: View<'_>) {
        weight.assert_valid();
        let (n, k) = (weight.cols, weight.rows);
        self.reshape(n, k);
        // The other size may be anything then, up to what a panel of it cannot count.
        if n == 0 || k == 0 {
            return;
        }
        for (p, panel) in self.elements_mut().chunks_exact_mut(PANEL * k).enumerate() {
            let first = p * PANEL;
            let columns = PANEL.min(n - first);
            for (kk, to) in panel.chunks_exact_mut(PANEL).enumerate() {
                to[..columns].copy_from_slice(&weight.row(kk)[first..first + columns]);
                to[columns..].fill(0.0);
            }
        }
    }

    /// Output columns: rows of a checkpoint's weight.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Inner size: columns of the left-hand side.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Bytes of memory held, padding and spare capacity included.
    pub fn allocated_bytes(&self) -> usize {
        self.lines.capacity() * size_of::<Line>()
    }

    /// The 32 values of inner index `kk`, panel `p`.
    pub(crate) fn panel_row(&self, p: usize, kk: usize) -> &[f32] {
        &self.elements()[(p * self.k + kk) * PANEL..][..PANEL]
    }

    /// All panels, one after another: `[ceil(n / 32), k, 32]`.
    pub(crate) fn elements(&self) -> &[f32] {
        // SAFETY: `Line` is `repr(C)` around exactly 16 `f32` and as large as they are (64 bytes), so the lines are
        // that many initialised `f32` in a row, borrowed as long as `self`.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.lines.len() * 16) }
    }

    fn elements_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `elements`; `&mut self` makes this the only borrow.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.lines.len() * 16) }
    }

    /// Sets the shape. The elements are left as they were, or zero: the caller writes all of them.
    #[track_caller]
    fn reshape(&mut self, n: usize, k: usize) {
        let lines = n.div_ceil(PANEL).checked_mul(k).and_then(|rows| rows.checked_mul(LINES_PER_ROW));
        assert!(lines.is_some(), "a weight of {n} x {k} does not fit the address space");
        self.lines.resize(lines.unwrap_or(0), ZERO);
        (self.n, self.k) = (n, k);
    }
}

/// Writes four rows of a weight as columns `c..c + 4` of `panel`.
///
/// Every sequence packs its keys here, so the 4 x 4 transpose is in registers: one store for four elements.
fn interleave4(rows: [&[f32]; 4], c: usize, panel: &mut [f32]) {
    let k = rows[0].len();
    let blocks = k - k % 4;
    #[cfg(target_arch = "x86_64")]
    for kk in (0..blocks).step_by(4) {
        use std::arch::x86_64::{
            _mm_loadu_ps, _mm_movehl_ps, _mm_movelh_ps, _mm_storeu_ps, _mm_unpackhi_ps, _mm_unpacklo_ps,
        };
        let from = rows.map(|row| row[kk..kk + 4].as_ptr());
        let to = panel[kk * PANEL + c..][..3 * PANEL + 4].as_mut_ptr();
        // SAFETY: each pointer of `from` is that of a slice of exactly four elements; `to` is that of a slice that
        // ends four elements after its third multiple of PANEL; and SSE belongs to every x86_64 CPU.
        unsafe {
            let [a, b, c, d] = from.map(|p| _mm_loadu_ps(p));
            let (ab_low, cd_low) = (_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d));
            let (ab_high, cd_high) = (_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d));
            _mm_storeu_ps(to, _mm_movelh_ps(ab_low, cd_low));
            _mm_storeu_ps(to.add(PANEL), _mm_movehl_ps(cd_low, ab_low));
            _mm_storeu_ps(to.add(2 * PANEL), _mm_movelh_ps(ab_high, cd_high));
            _mm_storeu_ps(to.add(3 * PANEL), _mm_movehl_ps(cd_high, ab_high));
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    for kk in 0..blocks {
        for i in 0..4 {
            panel[kk * PANEL + c + i] = rows[i][kk];
        }
    }
    for kk in blocks..k {
        for i in 0..4 {
            panel[kk * PANEL + c + i] = rows[i][kk];
        }
    }
}
