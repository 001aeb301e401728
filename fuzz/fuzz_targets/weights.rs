//! `Checkpoint` over hostile safetensors and index files. What it opens, the safetensors crate's own reader opens too,
//! and both give the same values.
#![no_main]

use std::collections::BTreeMap;
use std::sync::Arc;

use jointly::files::{Bytes, ModelFiles};
use jointly::weights::Checkpoint;
use jointly_fuzz::case;
use jointly_kernels::Kernels;
use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use safetensors::{Dtype, SafeTensors};

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    case::mutate(data, size, max_size, seed)
});

fuzz_target!(|data: &[u8]| {
    let content: BTreeMap<String, Vec<u8>> = case::files(data)
        .into_iter()
        .map(|(name, bytes)| {
            let bytes = if name.ends_with(".safetensors") { case::framed(bytes) } else { bytes.to_vec() };
            (name, bytes)
        })
        .collect();
    let files =
        content.iter().map(|(name, bytes)| (name.clone(), Bytes::Owned(Arc::new(bytes.clone())))).collect();
    let files = ModelFiles::Memory { name: "case".into(), files: Arc::new(files) };
    let Ok(checkpoint) = Checkpoint::open(&files, "") else { return };

    let _ = (checkpoint.parameters(), checkpoint.dtype(), checkpoint.has_prefix("a"));
    let scope = checkpoint.root(Kernels::select().expect("some instruction set"));
    for (name, bytes) in content.iter().filter(|(name, _)| name.ends_with(".safetensors")) {
        let Ok(tensors) = SafeTensors::deserialize(bytes) else {
            assert_ne!(name, "model.safetensors", "opened, though it is damaged");
            continue;
        };
        for (name, tensor) in tensors.iter() {
            if !checkpoint.has(name) {
                continue; // in a file beside the one that counts
            }
            let shape = tensor.shape();
            let values = scope.values(name, shape);
            if let Ok(values) = &values {
                assert!(values.iter().all(|value| value.is_finite()));
                let count = content.keys().filter(|name| name.ends_with(".safetensors")).count();
                if count == 1 {
                    assert!(decode(&tensor).is_some_and(|expected| expected == *values), "{name}");
                }
            }
            let mut wrong = shape.to_vec();
            wrong.push(2);
            assert!(scope.values(name, &wrong).is_err());
            if let [rows, columns] = *shape {
                if let Ok(table) = scope.table(name, rows, columns)
                    && columns < 1 << 20
                {
                    let mut row = vec![0.0; columns];
                    for index in [0, rows / 2, rows.wrapping_sub(1), rows] {
                        table.read(index, &mut row);
                    }
                }
            }
        }
    }
});

/// The values of a tensor, computed another way.
fn decode(tensor: &safetensors::tensor::TensorView<'_>) -> Option<Vec<f32>> {
    let data = tensor.data();
    let half = |convert: fn([u8; 2]) -> f32| data.chunks_exact(2).map(|b| convert([b[0], b[1]])).collect();
    match tensor.dtype() {
        Dtype::F32 => {
            Some(data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
        }
        Dtype::F16 => Some(half(|b| half::f16::from_le_bytes(b).to_f32())),
        Dtype::BF16 => Some(half(|b| half::bf16::from_le_bytes(b).to_f32())),
        _ => None,
    }
}
