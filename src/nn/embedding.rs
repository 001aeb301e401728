use jointly_cuda::Tensor;

use super::{Matrix, device};
use crate::error::Result;
use crate::weights::{Scope, Table};

/// A table of vectors, looked up by id.
#[derive(Debug)]
pub struct Embedding {
    table: Table,
    features: usize,
    /// The table on the device that computes.
    on_device: Option<Tensor>,
}

impl Embedding {
    /// `weight` `[rows, features]` below `scope`.
    ///
    /// # Errors
    /// Those of [`Scope::table`].
    pub fn load(scope: &Scope<'_>, rows: usize, features: usize) -> Result<Self> {
        let table = scope.table("weight", rows, features)?;
        let on_device = match &scope.form().device {
            Some(device) => {
                Some(device::loaded(device, device.load([rows, features], table.format(), &[table.bytes()]))?)
            }
            None => None,
        };
        Ok(Self { table, features, on_device })
    }

    /// The vectors of `ids`, `[ids, features]`.
    #[must_use]
    pub fn forward(&self, ids: &[u32]) -> Matrix {
        if let Some(table) = &self.on_device {
            return Matrix::of_tensor(table.device().embed(table, ids));
        }
        let mut output = Matrix::reused(ids.len(), self.features);
        for (row, id) in ids.iter().enumerate() {
            self.table.read(*id as usize, output.row_mut(row));
        }
        output
    }

    /// Adds the vectors of `rows` to `x`, `[rows, features]`, row by row.
    pub fn add_to(&self, x: &mut Matrix, rows: impl IntoIterator<Item = usize>) {
        if let (Some(table), Some(x)) = (&self.on_device, &mut x.device) {
            let rows: Vec<u32> = rows.into_iter().map(|row| row as u32).collect();
            return x.add_rows(table, &rows);
        }
        let mut vector = vec![0.0; self.features];
        for (row, id) in rows.into_iter().enumerate() {
            self.table.read(id, &mut vector);
            for (x, value) in x.row_mut(row).iter_mut().zip(&vector) {
                *x += value;
            }
        }
    }
}
