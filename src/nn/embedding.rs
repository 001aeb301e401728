use super::Matrix;
use crate::error::Result;
use crate::weights::{Scope, Table};

/// A table of vectors, looked up by id.
#[derive(Debug)]
pub struct Embedding {
    table: Table,
    features: usize,
}

impl Embedding {
    /// `weight` `[rows, features]` below `scope`.
    ///
    /// # Errors
    /// Those of [`Scope::table`].
    pub fn load(scope: &Scope<'_>, rows: usize, features: usize) -> Result<Self> {
        Ok(Self { table: scope.table("weight", rows, features)?, features })
    }

    /// The vectors of `ids`, `[ids, features]`.
    #[must_use]
    pub fn forward(&self, ids: &[u32]) -> Matrix {
        let mut output = Matrix::reused(ids.len(), self.features);
        for (row, id) in ids.iter().enumerate() {
            self.table.read(*id as usize, output.row_mut(row));
        }
        output
    }

    /// Adds the vectors of `rows` to `x`, `[rows, features]`, row by row.
    pub fn add_to(&self, x: &mut Matrix, rows: impl IntoIterator<Item = usize>) {
        let mut vector = vec![0.0; self.features];
        for (row, id) in rows.into_iter().enumerate() {
            self.table.read(id, &mut vector);
            for (x, value) in x.row_mut(row).iter_mut().zip(&vector) {
                *x += value;
            }
        }
    }
}
