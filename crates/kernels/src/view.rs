//! Row-major matrices that somebody else owns: a slice, a shape and a stride.

/// A row-major matrix of `f32` that is read. Row `i` is `data[i * stride..][..cols]`.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The elements. The last row needs only `cols` of them, not `stride`.
    pub data: &'a [f32],
    /// Number of rows; may be zero.
    pub rows: usize,
    /// Number of columns; may be zero.
    pub cols: usize,
    /// Elements from the start of one row to the start of the next; at least `cols`.
    pub stride: usize,
}

/// A row-major matrix of `f32` that is written. Row `i` is `data[i * stride..][..cols]`; what lies between rows
/// is never touched.
#[derive(Debug)]
pub struct ViewMut<'a> {
    /// The elements. The last row needs only `cols` of them, not `stride`.
    pub data: &'a mut [f32],
    /// Number of rows; may be zero.
    pub rows: usize,
    /// Number of columns; may be zero.
    pub cols: usize,
    /// Elements from the start of one row to the start of the next; at least `cols`.
    pub stride: usize,
}

/// Panics unless `rows` rows of `cols` elements, `stride` apart, lie within `len` elements.
///
/// The fields of a view are public, so every kernel calls this again before it makes a pointer.
#[track_caller]
fn assert_within(len: usize, (rows, cols, stride): (usize, usize, usize)) {
    assert!(stride >= cols, "a stride of {stride} is less than {cols} columns");
    if rows == 0 || cols == 0 {
        return;
    }
    // Checked: a product that wraps around would let an absurd shape through.
    let needed = (rows - 1).checked_mul(stride).and_then(|start| start.checked_add(cols));
    assert!(
        needed.is_some_and(|needed| needed <= len),
        "{rows} rows of {cols} columns with stride {stride} do not fit {len} elements"
    );
}

impl<'a> View<'a> {
    /// A dense matrix: `stride == cols`.
    ///
    /// # Panics
    /// If `data` is shorter than `rows * cols`.
    #[track_caller]
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// A matrix whose rows start `stride` elements apart, such as one head of `[T, heads * head_dim]`.
    ///
    /// # Panics
    /// If `stride < cols`, or the last row does not fit `data`.
    #[track_caller]
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, stride: usize) -> Self {
        let view = Self { data, rows, cols, stride };
        view.assert_valid();
        view
    }

    /// Row `i`, `cols` elements.
    ///
    /// # Panics
    /// If `i >= rows`.
    #[track_caller]
    pub fn row(&self, i: usize) -> &'a [f32] {
        assert!(i < self.rows, "row {i} of {}", self.rows);
        if self.cols == 0 { &[] } else { &self.data[i * self.stride..][..self.cols] }
    }

    #[track_caller]
    pub(crate) fn assert_valid(&self) {
        assert_within(self.data.len(), (self.rows, self.cols, self.stride));
    }
}

impl<'a> ViewMut<'a> {
    /// A dense matrix: `stride == cols`.
    ///
    /// # Panics
    /// If `data` is shorter than `rows * cols`.
    #[track_caller]
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// A matrix whose rows start `stride` elements apart.
    ///
    /// # Panics
    /// If `stride < cols`, or the last row does not fit `data`.
    #[track_caller]
    pub fn strided(data: &'a mut [f32], rows: usize, cols: usize, stride: usize) -> Self {
        let view = Self { data, rows, cols, stride };
        view.assert_valid();
        view
    }

    /// Row `i`, `cols` elements.
    ///
    /// # Panics
    /// If `i >= rows`.
    #[track_caller]
    pub fn row_mut(&mut self, i: usize) -> &mut [f32] {
        assert!(i < self.rows, "row {i} of {}", self.rows);
        if self.cols == 0 { &mut [] } else { &mut self.data[i * self.stride..][..self.cols] }
    }

    /// The same matrix, to read.
    pub fn as_view(&self) -> View<'_> {
        View { data: self.data, rows: self.rows, cols: self.cols, stride: self.stride }
    }

    /// The same matrix, lent for a shorter time.
    pub fn reborrow(&mut self) -> ViewMut<'_> {
        ViewMut { data: self.data, rows: self.rows, cols: self.cols, stride: self.stride }
    }

    #[track_caller]
    pub(crate) fn assert_valid(&self) {
        assert_within(self.data.len(), (self.rows, self.cols, self.stride));
    }
}
