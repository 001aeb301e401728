//! Values that begin where a cache line does: no register of them lies across two lines, if rows are whole lines.

use std::ops::{Deref, DerefMut};

/// A cache line, and the widest register there is.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [u32; Line::WORDS]);

impl Line {
    pub(crate) const WORDS: usize = 16;
    pub(crate) const ZERO: Self = Self([0; Self::WORDS]);

    /// The words of lines, one after another.
    pub(crate) fn words(lines: &[Self]) -> &[u32] {
        // SAFETY: `Line` is `repr(C)` around exactly 16 `u32` and as large as they are (64 bytes), so the lines are
        // that many initialised `u32` in a row, borrowed as long as `lines`.
        unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * Self::WORDS) }
    }

    /// As [`words`](Self::words), to write.
    pub(crate) fn words_mut(lines: &mut [Self]) -> &mut [u32] {
        // SAFETY: as in `words`; `&mut` makes this the only borrow.
        unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * Self::WORDS) }
    }
}

/// A vector of `f32` that begins at a cache line.
#[derive(Clone, Default)]
pub struct Values {
    lines: Vec<Line>,
    len: usize,
}

impl Values {
    /// None; no memory is taken.
    pub const fn new() -> Self {
        Self { lines: Vec::new(), len: 0 }
    }

    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        Self { lines: vec![Line::ZERO; len.div_ceil(Line::WORDS)], len }
    }

    /// How many there may be without another allocation.
    pub fn capacity(&self) -> usize {
        self.lines.capacity() * Line::WORDS
    }

    /// Sets the length. What is new has any value, of this vector's past or zero.
    pub fn set_len(&mut self, len: usize) {
        let lines = len.div_ceil(Line::WORDS);
        if lines > self.lines.len() {
            self.lines.resize(lines, Line::ZERO);
        }
        self.len = len;
    }

    /// Appends `values`.
    pub fn extend_from_slice(&mut self, values: &[f32]) {
        let start = self.len;
        self.set_len(start + values.len());
        self[start..].copy_from_slice(values);
    }
}

impl Deref for Values {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        let words = &Line::words(&self.lines)[..self.len];
        // SAFETY: `f32` and `u32` have the same size and alignment, and every bit pattern is an `f32`.
        unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), words.len()) }
    }
}

impl DerefMut for Values {
    fn deref_mut(&mut self) -> &mut [f32] {
        let words = &mut Line::words_mut(&mut self.lines)[..self.len];
        // SAFETY: as in `deref`; `&mut self` makes this the only borrow.
        unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), words.len()) }
    }
}

impl From<&[f32]> for Values {
    fn from(values: &[f32]) -> Self {
        let mut all = Self::new();
        all.extend_from_slice(values);
        all
    }
}

impl From<Vec<f32>> for Values {
    fn from(values: Vec<f32>) -> Self {
        values.as_slice().into()
    }
}

impl PartialEq for Values {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

impl std::fmt::Debug for Values {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self[..].fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_begin_at_a_line_and_keep_what_they_held() {
        let mut values = Values::new();
        assert!(values.is_empty() && values.capacity() == 0);
        for n in 0..70_usize {
            assert_eq!(values.as_ptr().addr() % 64, 0);
            values.extend_from_slice(&[n as f32; 3]);
            assert_eq!(values.len(), 3 * n + 3);
        }
        assert!(values.chunks_exact(3).enumerate().all(|(n, three)| three == [n as f32; 3]));
        values.set_len(4);
        assert_eq!(values, Values::from(vec![0.0, 0.0, 0.0, 1.0]));
        values.set_len(6);
        assert_eq!(values[3..], [1.0, 1.0, 1.0], "what was there, or zero");
        assert_eq!(Values::zeros(17), Values::from(vec![0.0; 17]));
    }
}
