//! What the integration tests share: the checkpoints of `testdata/` and their expected values.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde::Deserialize;

/// The folder of test data in the repository.
pub fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

/// The folders of `testdata` that hold a checkpoint with expected values, sorted.
pub fn tiny_checkpoints() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = fs::read_dir(testdata())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("expected.safetensors").is_file())
        .collect();
    folders.sort();
    folders
}

/// A pair of `expected.json`.
#[derive(Debug, Deserialize)]
pub struct ExpectedPair {
    pub query: String,
    pub document: String,
    pub score: Option<f32>,
}

#[derive(Deserialize)]
struct ExpectedTexts {
    pairs: Vec<ExpectedPair>,
}

/// What Transformers gave for a checkpoint.
pub struct Expected {
    pub pairs: Vec<ExpectedPair>,
    tensors: Vec<u8>,
}

impl Expected {
    pub fn read(folder: &Path) -> Self {
        let texts: ExpectedTexts =
            serde_json::from_slice(&fs::read(folder.join("expected.json")).unwrap()).unwrap();
        Self { pairs: texts.pairs, tensors: fs::read(folder.join("expected.safetensors")).unwrap() }
    }

    /// A tensor of f32.
    pub fn values(&self, name: &str) -> Vec<f32> {
        let tensors = SafeTensors::deserialize(&self.tensors).unwrap();
        let tensor = tensors.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(tensor.dtype(), safetensors::Dtype::F32, "{name}");
        tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    /// A tensor of ids, if there is one.
    pub fn maybe_ids(&self, name: &str) -> Option<Vec<u32>> {
        let tensors = SafeTensors::deserialize(&self.tensors).unwrap();
        let tensor = tensors.tensor(name).ok()?;
        let data = tensor.data();
        Some(match tensor.dtype() {
            safetensors::Dtype::I64 => {
                data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32).collect()
            }
            safetensors::Dtype::I32 | safetensors::Dtype::U32 => {
                data.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect()
            }
            other => panic!("{name}: {other:?}"),
        })
    }

    /// A tensor of ids.
    pub fn ids(&self, name: &str) -> Vec<u32> {
        self.maybe_ids(name).unwrap_or_else(|| panic!("{name}"))
    }
}
