//! The vectors of all documents in one file, and the search that compares a query with every one of them: exact, and with
//! the kernels of the matrix products about as fast as memory can be read.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;

use jointly::files::{Bytes, ModelFiles};
use jointly::nn::Matrix;
use jointly_kernels::{Epilogue, Kernels, Precision, View, ViewMut};

use crate::error::{Error, Result};
use crate::top::{Hit, Top};

/// Documents that a thread compares before it takes others.
const BLOCK: usize = 512;
/// Queries that are compared with a block while it is in the cache.
const MOST_QUERIES: usize = 64;

#[cfg(target_endian = "big")]
compile_error!("the files of vectors are read as they lie, least byte first");

/// Vectors as they lie on disk.
pub(crate) fn bytes(vectors: &Matrix) -> &[u8] {
    bytemuck::cast_slice(&vectors.data)
}

/// The vectors of all documents, read from the file when they are compared.
pub(crate) struct Vectors {
    path: PathBuf,
    bytes: Bytes,
    dimensions: usize,
}

impl Vectors {
    pub(crate) fn open(folder: &Path, name: &str, documents: usize, dimensions: usize) -> Result<Self> {
        let path = folder.join(name);
        let bytes = ModelFiles::Folder(folder.to_path_buf()).map(name)?;
        let expected = documents.checked_mul(dimensions).and_then(|values| values.checked_mul(4));
        if dimensions == 0 || expected != Some(bytes.len()) {
            let problem =
                format!("{} bytes, not those of {documents} vectors of {dimensions} values", bytes.len());
            return Err(Error::Damaged { path, problem });
        }
        let vectors = Self { path, bytes, dimensions };
        vectors.values()?;
        Ok(vectors)
    }

    fn values(&self) -> Result<&[f32]> {
        bytemuck::try_cast_slice(&self.bytes)
            .map_err(|error| Error::Damaged { path: self.path.clone(), problem: error.to_string() })
    }

    /// That of one document, `[dimensions]`.
    pub(crate) fn row(&self, document: u32) -> Result<&[f32]> {
        let start = document as usize * self.dimensions;
        let row = self.values()?.get(start..start + self.dimensions);
        row.ok_or_else(|| Error::Damaged {
            path: self.path.clone(),
            problem: format!("no vector {document}"),
        })
    }

    /// The best `k` documents for each row of `queries`.
    pub(crate) fn search(&self, queries: &Matrix, k: usize, threads: usize) -> Result<Vec<Vec<Hit>>> {
        let kernels = Kernels::select().map_err(jointly::Error::from)?;
        let values = self.values()?;
        let mut found = Vec::with_capacity(queries.rows);
        for first in (0..queries.rows).step_by(MOST_QUERIES) {
            let some = queries.take(first..queries.rows.min(first + MOST_QUERIES));
            found.extend(self.search_some(kernels, values, &some, k, threads)?);
        }
        Ok(found)
    }

    fn search_some(
        &self,
        kernels: &Kernels,
        values: &[f32],
        queries: &Matrix,
        k: usize,
        threads: usize,
    ) -> Result<Vec<Vec<Hit>>> {
        let count = queries.rows;
        // The queries stand where a layer has its weight, so that the documents need not be packed.
        let packed = kernels.packed(queries.view(), Precision::F32);
        let blocks = (values.len() / self.dimensions).div_ceil(BLOCK);
        let next = AtomicUsize::new(0);
        let work = || -> std::result::Result<Vec<Top>, Hit> {
            let mut tops: Vec<Top> = (0..count).map(|_| Top::new(k)).collect();
            let mut scores = vec![0.0; BLOCK * count];
            loop {
                let block = next.fetch_add(1, Ordering::Relaxed);
                if block >= blocks {
                    return Ok(tops);
                }
                let start = block * BLOCK;
                let rest = &values[start * self.dimensions..];
                let rows = (rest.len() / self.dimensions).min(BLOCK);
                let documents = View::new(&rest[..rows * self.dimensions], rows, self.dimensions);
                let scores = &mut scores[..rows * count];
                kernels.matmul(documents, &packed, Epilogue::NONE, ViewMut::new(scores, rows, count));
                for (document, scores) in (start as u32..).zip(scores.chunks_exact(count)) {
                    for (top, &score) in tops.iter_mut().zip(scores) {
                        let hit = Hit { document, score };
                        if !score.is_finite() {
                            return Err(hit);
                        }
                        if top.takes(score) {
                            top.offer(hit);
                        }
                    }
                }
            }
        };
        let mut tops: Vec<Top> = (0..count).map(|_| Top::new(k)).collect();
        let parts: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads.clamp(1, blocks.max(1))).map(|_| scope.spawn(work)).collect();
            threads.into_iter().map(join).collect()
        });
        for part in parts {
            let part = part.map_err(|hit| {
                let problem = format!("vector {} is not finite (product {})", hit.document, hit.score);
                Error::Damaged { path: self.path.clone(), problem }
            })?;
            for (top, part) in tops.iter_mut().zip(part) {
                part.into_sorted().into_iter().for_each(|hit| top.offer(hit));
            }
        }
        Ok(tops.into_iter().map(Top::into_sorted).collect())
    }
}

/// The result of a thread; its panic is a bug, and goes on here.
pub(crate) fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
