//! The configuration files of a model folder: `config.json`, `modules.json` and the modules' own, `tokenizer_config.json`,
//! `chat_template.jinja` and so on. A case names a fixture (file `fixture`) and replaces files of it. Whatever they say,
//! loading gives a model or an error; and a model that is loaded scores pairs.
//!
//! A changed size alone would end at the first tensor of another shape. So the checkpoint is an obliging one: a tensor
//! that the loader misses, or wants in another shape, is made, within limits.
#![no_main]

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use jointly::files::{Bytes, ModelFiles};
use jointly::{CrossEncoder, Error, LoadOptions, Long, Pair, ScoreOptions, WindowOptions};
use jointly_fuzz::{case, fixture};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// Values of all tensors that are made for one case. What the loader allocates should be near what the checkpoint has,
/// so that a small checkpoint and the limit on memory find one who trusts a size.
const MAX_VALUES: usize = 1 << 18;
/// Tensors made for one case.
const MAX_REPAIRS: usize = 48;

/// Tensors that take the place of the fixture's.
type Made = BTreeMap<String, Vec<usize>>;

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    case::mutate(data, size, max_size, seed)
});

fuzz_target!(|data: &[u8]| {
    let mut changes = case::files(data);
    let fixture = fixture::named(changes.remove("fixture").unwrap_or_default());
    let mut files: BTreeMap<String, Bytes> =
        fixture.iter().map(|(name, bytes)| (name.clone(), owned(bytes.clone()))).collect();
    for (name, content) in changes {
        files.insert(name, owned(content.to_vec()));
    }
    let Some(model) = load(files) else { return };
    score(&model);
});

fn owned(bytes: Vec<u8>) -> Bytes {
    Bytes::Owned(Arc::new(bytes))
}

/// Loads the model, making tensors as they are asked for.
fn load(files: BTreeMap<String, Bytes>) -> Option<CrossEncoder> {
    let mut made = Made::new();
    let mut current = files.clone();
    for _ in 0..MAX_REPAIRS {
        let files_now = ModelFiles::Memory { name: "case".into(), files: Arc::new(current) };
        let (name, shape) = match CrossEncoder::from_files(files_now, LoadOptions::new().threads(1)) {
            Ok(model) => return Some(model),
            // Its shape comes with the next error.
            Err(Error::MissingTensor { name, .. }) => (name, vec![0]),
            Err(Error::TensorShape { name, expected, .. }) => (name, expected),
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return None;
            }
        };
        made.insert(name, shape);
        let values = made.values().try_fold(0, |sum: usize, shape| {
            shape.iter().try_fold(1, |product: usize, size| product.checked_mul(*size))?.checked_add(sum)
        });
        if values.is_none_or(|values| values > MAX_VALUES) {
            return None;
        }
        current = with_tensors(&files, &made)?;
    }
    None
}

/// The files, with the tensors that were made in every checkpoint among them.
fn with_tensors(files: &BTreeMap<String, Bytes>, made: &Made) -> Option<BTreeMap<String, Bytes>> {
    static VALUES: OnceLock<Vec<u8>> = OnceLock::new();
    let values = VALUES.get_or_init(|| {
        (0..MAX_VALUES as u32)
            .flat_map(|i| (f32::from((i * 37 % 101) as u8) / 101.0 - 0.5).to_le_bytes())
            .collect()
    });
    let mut files = files.clone();
    for (name, file) in &mut files {
        if !name.ends_with(".safetensors") {
            continue;
        }
        let Ok(old) = SafeTensors::deserialize(file) else { continue };
        let mut tensors: BTreeMap<String, TensorView<'_>> =
            old.iter().map(|(name, tensor)| (name.to_string(), tensor)).collect();
        for (name, shape) in made {
            let bytes = 4 * shape.iter().product::<usize>();
            let tensor = TensorView::new(Dtype::F32, shape.clone(), &values[..bytes]).ok()?;
            tensors.insert(name.clone(), tensor);
        }
        let bytes = safetensors::serialize(tensors, None).ok()?;
        *file = owned(bytes);
    }
    Some(files)
}

/// Every answer is a number or an error that says why.
fn score(model: &CrossEncoder) {
    let long = "the sea was calm that morning, and nobody spoke. ".repeat(12);
    let pairs = [
        Pair { query: "a planet", document: "Mars is called the Red Planet." },
        Pair { query: "what is it", document: "" },
        Pair { query: "who spoke", document: &long },
    ];
    let windows = Long::Windows(WindowOptions::new().max_windows(3));
    for options in
        [ScoreOptions::new(), ScoreOptions::new().long(windows), ScoreOptions::new().max_length(64)]
    {
        if let Ok(encoded) = model.encode_pairs(&pairs, &options) {
            for window in encoded.iter().flatten() {
                let (ids, types) = (&window.pair.input_ids, &window.pair.token_type_ids);
                assert!(ids.len() <= model.info().max_length && types.len() == ids.len());
                assert!(ids.iter().all(|id| (*id as usize) < model.info().vocab_size));
            }
        }
        if let Ok(scores) = model.score_pairs_with(&pairs, &options) {
            assert!(scores.len() == pairs.len() && scores.iter().all(|score| score.logit.is_finite()));
        }
    }
}
