//! BM25 over a collection's texts. The index lies in the cache, named for what is in it.

use std::path::Path;
use std::time::Instant;

use jointly_retrieve::{BuildOptions, Document, Index};
use sha2::{Digest, Sha256};

use crate::cache::hex;
use crate::error::Result;

/// Places of texts with their scores, best first.
type Found = Vec<(usize, f64)>;

pub struct Words {
    index: Index,
    threads: usize,
}

impl Words {
    /// Opens the index of these texts, and makes it first if need be.
    pub fn open(cache: &Path, texts: &[String], threads: usize) -> Result<Self> {
        let mut hash = Sha256::new();
        for text in texts {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
        let path = cache.join(format!("bm25-{}", &hex(&hash.finalize())[..16]));
        let index = match Index::open(&path) {
            Ok(index) => index,
            // Not there, or what a killed build left.
            Err(_) => {
                let document =
                    |(place, text): (usize, &String)| Document { id: place.to_string(), text: text.clone() };
                let documents: Vec<Document> = texts.iter().enumerate().map(document).collect();
                let options = BuildOptions::new().threads(threads).force(true);
                jointly_retrieve::build(&path, &documents, options, &mut |_| ())?;
                Index::open(&path)?
            }
        };
        Ok(Self { index, threads })
    }

    /// The best texts of each query, by their places, with scores; and the milliseconds that a query took.
    pub fn best(&self, queries: &[&str], count: usize) -> Result<(Vec<Found>, f64)> {
        let started = Instant::now();
        let found = self.index.bm25(queries, self.index.bm25_parameters(), count, self.threads)?;
        let ms = started.elapsed().as_secs_f64() * 1e3 / queries.len().max(1) as f64;
        let hits = |hits: Vec<jointly_retrieve::Hit>| {
            hits.into_iter().map(|hit| (hit.document as usize, f64::from(hit.score))).collect()
        };
        Ok((found.into_iter().map(hits).collect(), ms))
    }

    /// The number of texts.
    pub fn len(&self) -> usize {
        self.index.len()
    }
}
