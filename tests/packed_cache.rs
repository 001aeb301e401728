//! Packed weights on disk: they change no bit of a score, and what is wrong with their file is found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use common::{testdata, tiny_checkpoints};
use jointly::calibration::{Calibration, ProbabilityMap};
use jointly::files::ModelFiles;
use jointly::{BiEncoder, CrossEncoder, LoadOptions, PackedCacheState, Pair, Precision, Role};

const PAIRS: [(&str, &str); 3] = [
    ("how old is the bridge", "The bridge was built in 1897, and rebuilt after the flood of 1954."),
    ("how old is the bridge", "A jaguar is a cat."),
    ("wie alt ist die Brücke", ""),
];

fn options(precision: Precision, cache: Option<&Path>) -> LoadOptions {
    LoadOptions::new().threads(2).precision(precision).packed_cache(cache.map(PathBuf::from))
}

/// What was done about packed weights, and the bits of the logits.
fn load(model: &Path, precision: Precision, cache: Option<&Path>) -> (PackedCacheState, Vec<u32>) {
    let model = CrossEncoder::load(model, options(precision, cache)).unwrap();
    let pairs = PAIRS.map(|(query, document)| Pair { query, document });
    let scores = model.score_pairs(&pairs).unwrap();
    (model.info().packed_cache.clone(), scores.iter().map(|score| score.logit.to_bits()).collect())
}

/// The one file of packed weights of a folder.
fn packed_in(cache: &Path) -> PathBuf {
    let files = fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path());
    let mut packed = files.filter(|path| path.extension().is_some_and(|extension| extension == "packed"));
    let found = packed.next().unwrap();
    assert_eq!(packed.next(), None);
    found
}

/// A copy of a model whose files were written an hour ago, as far as the usual time tells.
fn old_copy(of: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(testdata().join(of)).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let copy = folder.path().join(path.file_name().unwrap());
            fs::copy(&path, &copy).unwrap();
            make_old(&copy);
        }
    }
    folder
}

fn make_old(path: &Path) {
    let hour_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    fs::File::options().write(true).open(path).unwrap().set_modified(hour_ago).unwrap();
}

#[test]
fn packed_weights_change_no_bit() {
    for (model, precision) in tiny_checkpoints()
        .into_iter()
        .flat_map(|model| Precision::ALL.map(|precision| (model.clone(), precision)))
    {
        let name = format!("{} in {precision}", model.display());
        let cache = tempfile::tempdir().unwrap();
        let below = cache.path().join("made/when/needed");
        let (off, expected) = load(&model, precision, None);
        assert_eq!(off, PackedCacheState::Off, "{name}");
        assert_eq!(
            load(&model, precision, Some(&below)),
            (PackedCacheState::Written, expected.clone()),
            "{name}"
        );
        assert_eq!(load(&model, precision, Some(&below)), (PackedCacheState::Mapped, expected), "{name}");
    }
}

#[test]
fn a_bi_encoder_has_them_too() {
    let cache = tempfile::tempdir().unwrap();
    for precision in Precision::ALL {
        let vectors = |cache| {
            let model = BiEncoder::load(testdata().join("embed-bert"), options(precision, cache)).unwrap();
            let vectors = model.embed(&PAIRS.map(|(_, document)| document), Role::Document).unwrap();
            (model.info().packed_cache.clone(), vectors)
        };
        let (_, expected) = vectors(None);
        assert_eq!(vectors(Some(cache.path())), (PackedCacheState::Written, expected.clone()));
        assert_eq!(vectors(Some(cache.path())), (PackedCacheState::Mapped, expected));
    }
}

#[test]
fn a_damaged_file_is_written_again() {
    let cache = tempfile::tempdir().unwrap();
    let model = testdata().join("tiny-bert");
    let (_, expected) = load(&model, Precision::Int8, Some(cache.path()));
    let path = packed_in(cache.path());
    let whole = fs::read(&path).unwrap();
    let mut damaged: Vec<(String, Vec<u8>)> = Vec::new();
    // The whole header, the end of the table, and some of all between.
    for at in (0..64).chain((64..whole.len()).step_by(whole.len() / 40)).chain([whole.len() - 1]) {
        for bit in [0, 7] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            damaged.push((format!("bit {bit} of byte {at}"), bytes));
        }
    }
    for length in [0, 1, 8, 32, 63, 64, 65, whole.len() / 2, whole.len() - 64, whole.len() - 1] {
        damaged.push((format!("cut to {length} bytes"), whole[..length].to_vec()));
    }
    damaged.push(("longer".to_string(), [&whole[..], &[0; 64]].concat()));
    damaged.push(("zeros".to_string(), vec![0; whole.len()]));
    damaged.push(("text".to_string(), b"something else\n".repeat(whole.len() / 15)));
    for (what, bytes) in damaged {
        fs::write(&path, bytes).unwrap();
        let again = load(&model, Precision::Int8, Some(cache.path()));
        assert_eq!(again, (PackedCacheState::Written, expected.clone()), "{what}");
        assert_eq!(fs::read(&path).unwrap(), whole, "{what}");
    }
}

/// A file of the same model in the same place, but of another precision, is not taken for this one.
#[test]
fn a_foreign_file_is_not_used() {
    let cache = tempfile::tempdir().unwrap();
    let others = tempfile::tempdir().unwrap();
    let model = testdata().join("tiny-bert");
    let (_, expected) = load(&model, Precision::Int8, Some(cache.path()));
    for (model, precision) in [("tiny-bert", Precision::F32), ("tiny-electra", Precision::Int8)] {
        load(&testdata().join(model), precision, Some(others.path()));
        fs::rename(packed_in(others.path()), packed_in(cache.path())).unwrap();
        let again = load(&testdata().join("tiny-bert"), Precision::Int8, Some(cache.path()));
        assert_eq!(again, (PackedCacheState::Written, expected.clone()), "{model} in {precision}");
    }
}

/// The weights change, and neither their length nor the time that a program may set.
#[test]
#[cfg(unix)]
fn a_model_that_has_changed_is_packed_again() {
    let cache = tempfile::tempdir().unwrap();
    let model = old_copy("tiny-bert");
    let weights = model.path().join("model.safetensors");
    let load = |cache| {
        let options = options(Precision::F32, cache).check_receipt(false);
        let model = CrossEncoder::load(model.path(), options).unwrap();
        let score = model.score_pairs(&[Pair { query: "q", document: "d" }]).unwrap();
        (model.info().packed_cache.clone(), score[0].logit.to_bits())
    };
    let (state, before) = load(Some(cache.path()));
    assert_eq!(state, PackedCacheState::Written);
    let mut bytes = fs::read(&weights).unwrap();
    // The exponent of values all over the file.
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[header..].iter_mut().skip(2).step_by(4 * 37).for_each(|byte| *byte ^= 0x40);
    fs::write(&weights, bytes).unwrap();
    make_old(&weights);
    let (_, expected) = load(None);
    assert_ne!(expected, before, "the change shows");
    assert_eq!(load(Some(cache.path())), (PackedCacheState::Written, expected));
    assert_eq!(load(Some(cache.path())), (PackedCacheState::Mapped, expected));
    packed_in(cache.path()); // one: the old one is gone
}

#[test]
fn what_cannot_be_written_is_no_error() {
    let model = testdata().join("tiny-bert");
    let (_, expected) = load(&model, Precision::F32, None);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a-file");
    fs::write(&file, "").unwrap();
    let (state, logits) = load(&model, Precision::F32, Some(&file));
    assert_eq!(logits, expected);
    assert!(
        matches!(state, PackedCacheState::NotWritten(ref problem) if problem.contains("a-file")),
        "{state:?}"
    );

    // Files that are a moment old may change again before the clock moves on.
    let young = old_copy("tiny-bert");
    let config = young.path().join("config.json");
    fs::write(&config, fs::read(&config).unwrap()).unwrap();
    let again = load(young.path(), Precision::F32, Some(folder.path()));
    assert_eq!(again, (PackedCacheState::Postponed, expected));
}

#[test]
#[cfg(unix)]
fn nobody_else_can_read_or_write_them() {
    use std::os::unix::fs::PermissionsExt;
    let cache = tempfile::tempdir().unwrap();
    let below = cache.path().join("packed");
    load(&testdata().join("tiny-bert"), Precision::F32, Some(&below));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&below), mode(&packed_in(&below))), (0o700, 0o600));
}

/// What a calibration is checked against is kept too, and no longer than the files stay as they are.
#[test]
fn the_identity_is_kept() {
    let cache = tempfile::tempdir().unwrap();
    let model = old_copy("tiny-bert");
    let files = ModelFiles::open(model.path()).unwrap();
    let calibration = Calibration::new(&files, ProbabilityMap::Platt { a: 1.0, b: 0.0 }).unwrap();
    let beside = model.path().join("calibration.json");
    fs::write(&beside, serde_json::to_string(&calibration).unwrap()).unwrap();
    let load =
        || CrossEncoder::load(model.path(), options(Precision::F32, Some(cache.path())).check_receipt(false));
    load().unwrap();
    let mut kept = fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().path());
    let kept = kept.find(|path| path.extension().is_some_and(|extension| extension == "identity")).unwrap();
    let text = fs::read_to_string(&kept).unwrap();
    assert!(text.starts_with(&format!("{} ", calibration.model)));

    // It is read: another hash there is another model. What is no hash is not believed.
    for (begins, is_refused) in [("0".repeat(64), true), ("0".repeat(63), false)] {
        fs::write(&kept, text.replace(&calibration.model, &begins)).unwrap();
        let answer = load();
        assert_eq!(answer.is_err(), is_refused, "{begins}");
        assert!(answer.err().is_none_or(|error| error.to_string().contains("another model")));
    }
    assert_eq!(fs::read_to_string(&kept).unwrap(), text, "written again");

    let config = model.path().join("config.json");
    fs::write(&config, fs::read_to_string(&config).unwrap() + "\n").unwrap();
    make_old(&config);
    let error = load().unwrap_err().to_string();
    assert!(error.contains("another model"), "{error}");
}

/// The embedded model is known by the hashes of its receipt: they must be right.
#[test]
#[cfg(feature = "default-model")]
fn the_default_model_has_the_hashes_of_its_receipt() {
    use jointly::receipt::Receipt;
    let cache = tempfile::tempdir().unwrap();
    let load = || CrossEncoder::load_default(options(Precision::Bf16, Some(cache.path()))).unwrap();
    let (first, second) = (load(), load());
    assert_eq!(first.info().packed_cache, PackedCacheState::Written);
    assert_eq!(second.info().packed_cache, PackedCacheState::Mapped);
    let report = Receipt::read(first.files()).unwrap().unwrap().verify(&second).unwrap();
    assert_eq!(report.files, 5);
}
