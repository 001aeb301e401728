//! Training learns, repeats itself to the bit, and goes on after a kill as if nothing had happened.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use jointly_kernels::Precision;
use jointly_train::data::{Groups, Source};
use jointly_train::folder::{Trainable, WeightFormat};
use jointly_train::optimizer::{AdamW, Schedule};
use jointly_train::trainer::{Dev, Ending, Event, Options, Trainer};

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/tiny-bert")
}

/// 8 queries with 4 documents each, of which the one that repeats the query's word is relevant.
fn write_groups(path: &Path) {
    let words = ["oak", "river", "jaguar", "lungs", "bridge", "vaccine", "Tokyo", "fog"];
    let lines: Vec<String> = (0..words.len())
        .map(|i| {
            let documents: Vec<String> = (0..4)
                .map(|j| {
                    let word = words[(i + j * (2 * i + 1)) % words.len()];
                    let label = u8::from(word == words[i]);
                    format!(r#"{{"id": "{i}-{j}", "text": "Something about {word}, number {j}.", "label": {label}}}"#)
                })
                .collect();
            format!(r#"{{"query_id": "{i}", "query": "{}", "documents": [{}]}}"#, words[i], documents.join(","))
        })
        .collect();
    std::fs::write(path, lines.join("\n")).unwrap();
}

fn options(loss: &str, steps: usize) -> Options {
    Options {
        loss: loss.parse().unwrap(),
        steps,
        queries: 4,
        documents: 4,
        rate: 3e-3,
        fresh_rate: 1.0,
        warmup: 2,
        schedule: Schedule::Constant,
        adam: AdamW::default(),
        clip: 1.0,
        freeze: Vec::new(),
        precision: Precision::F32,
        shard_tokens: 100,
        lanes: 2,
        threads: 2,
        seed: 5,
        dev_every: 0,
        patience: 0,
        save_seconds: 3600,
    }
}

fn read(folder: &Path, loss: &str) -> Groups {
    let path = folder.join("train.jsonl");
    write_groups(&path);
    Groups::read(&[Source { path, times: 1.0 }], &loss.parse().unwrap(), 1.0).unwrap()
}

fn open() -> Trainable {
    Trainable::open(&tiny(), 48, 1).unwrap()
}

fn values(trainer: &Trainer<'_>) -> Vec<Vec<f32>> {
    trainer.model().parameters.iter().map(|parameter| parameter.value.clone()).collect()
}

#[test]
fn a_tiny_model_learns_32_pairs_by_heart() {
    for (loss, most) in [("bce", 0.01), ("mse", 0.01), ("softmax", 0.01), ("ranknet", 0.01)] {
        let folder = tempfile::tempdir().unwrap();
        let data = read(folder.path(), loss);
        let mut trainer = Trainer::new(open(), &data, None, options(loss, 150), folder.path()).unwrap();
        let mut last = Vec::new();
        let ending = trainer
            .run(WeightFormat::F32, &AtomicBool::new(false), &mut |event| {
                if let Event::Step { loss, .. } = event {
                    last.push(*loss);
                }
            })
            .unwrap();
        assert_eq!(ending, Ending::Done);
        let end: f64 = last[140..].iter().sum::<f64>() / 10.0;
        assert!(end < most, "{loss} is {end} after {} steps, and began at {}", last.len(), last[0]);
    }
}

#[test]
fn a_run_that_is_stopped_and_resumed_ends_with_the_same_bits() {
    let never = AtomicBool::new(false);
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let data = read(folders[0].path(), "bce");
    let mut whole = Trainer::new(open(), &data, None, options("bce", 9), folders[0].path()).unwrap();
    whole.run(WeightFormat::F32, &never, &mut |_| {}).unwrap();

    // Stopped in the middle, at a step that is not the end of an epoch; and with one thread.
    let stop = AtomicBool::new(false);
    let one_thread = || Options { threads: 1, ..options("bce", 9) };
    let mut half = Trainer::new(open(), &data, None, one_thread(), folders[1].path()).unwrap();
    let ending = half.run(WeightFormat::F32, &stop, &mut |event| {
        if matches!(event, Event::Step { step: 5, .. }) {
            stop.store(true, Ordering::Relaxed);
        }
    });
    assert_eq!(ending.unwrap(), Ending::Interrupted);
    drop(half);
    let mut resumed = Trainer::new(open(), &data, None, options("bce", 9), folders[1].path()).unwrap();
    assert_eq!(resumed.state().step, 5);
    resumed.run(WeightFormat::F32, &never, &mut |_| {}).unwrap();
    assert!(values(&whole) == values(&resumed), "the values differ");
    let final_weights = |folder: &Path| std::fs::read(folder.join("final/model.safetensors")).unwrap();
    assert!(final_weights(folders[0].path()) == final_weights(folders[1].path()));
    // The log has every step once.
    let log = std::fs::read_to_string(folders[1].path().join("log.jsonl")).unwrap();
    assert_eq!(log.lines().count(), 9);

    // At its end a run stays as it is, with what was put beside its model; in another number format it is written anew.
    let beside = folders[1].path().join("final/calibration.json");
    std::fs::write(&beside, "{}").unwrap();
    for (format, stays) in [(WeightFormat::F32, true), (WeightFormat::F16, false)] {
        let mut again = Trainer::new(open(), &data, None, options("bce", 9), folders[1].path()).unwrap();
        assert_eq!(again.run(format, &never, &mut |_| {}).unwrap(), Ending::Done);
        assert_eq!(beside.is_file(), stays, "{format:?}");
    }

    // Another seed is another run, and so are other data, another model, and pairs of another length.
    let seed = Options { seed: 6, ..options("bce", 9) };
    let loss = "bce".parse().unwrap();
    let times = Source { path: folders[0].path().join("train.jsonl"), times: 2.0 };
    let twice = Groups::read(&[times], &loss, 1.0).unwrap();
    let others = [
        (open(), &data, seed, "seed 5 there, 6 here"),
        (open(), &twice, options("bce", 9), "of another run: data "),
        (
            Trainable::open(&folders[0].path().join("final"), 48, 1).unwrap(),
            &data,
            options("bce", 9),
            "model ",
        ),
        (Trainable::open(&tiny(), 47, 1).unwrap(), &data, options("bce", 9), "max_length 48 there, 47 here"),
    ];
    for (model, data, options, expected) in others {
        let error = Trainer::new(model, data, None, options, folders[1].path()).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn what_is_frozen_stays() {
    let folder = tempfile::tempdir().unwrap();
    let data = read(folder.path(), "bce");
    let options = Options { freeze: vec!["bert.embeddings.".into()], ..options("bce", 3) };
    let mut trainer = Trainer::new(open(), &data, None, options, folder.path()).unwrap();
    let before = values(&trainer);
    trainer.run(WeightFormat::F32, &AtomicBool::new(false), &mut |_| {}).unwrap();
    for ((parameter, before), after) in trainer.model().parameters.iter().zip(&before).zip(values(&trainer)) {
        let frozen = parameter.name.starts_with("bert.embeddings.");
        assert_eq!(*before == after, frozen, "{}", parameter.name);
    }
}

#[test]
fn what_is_above_frozen_layers_learns_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let data = read(folder.path(), "bce");
    let after = |freeze: &[&str], name: &str| {
        let freeze: Vec<String> = freeze.iter().map(|&start| start.to_owned()).collect();
        // One step, and none of it scaled down: the length of the gradient is that of what learns.
        let options = Options { freeze, clip: f64::MAX, ..options("bce", 1) };
        let mut trainer = Trainer::new(open(), &data, None, options, &folder.path().join(name)).unwrap();
        trainer.run(WeightFormat::F32, &AtomicBool::new(false), &mut |_| {}).unwrap();
        let names = trainer.model().parameters.iter().map(|parameter| parameter.name.clone());
        names.zip(values(&trainer)).collect::<Vec<_>>()
    };
    let frozen = ["bert.embeddings.", "bert.encoder.layer.0."];
    let (all, above) = (after(&[], "all"), after(&frozen, "above"));
    let mut learnt = 0;
    for ((name, all), (_, above)) in all.iter().zip(&above) {
        let is_frozen = frozen.iter().any(|start| name.starts_with(start));
        assert_eq!(all == above, !is_frozen, "{name}");
        learnt += usize::from(!is_frozen);
    }
    assert!(learnt > 10, "{learnt} parameters above");
}

#[test]
fn the_dev_set_stops_a_run_that_gets_no_better() {
    let folder = tempfile::tempdir().unwrap();
    let data = read(folder.path(), "bce");
    let dev = Dev::read(&folder.path().join("train.jsonl"), 48).unwrap();
    let options = Options { dev_every: 10, patience: 2, rate: 3e-3, ..options("bce", 400) };
    let mut trainer = Trainer::new(open(), &data, Some(&dev), options, folder.path()).unwrap();
    let mut measured = Vec::new();
    let ending = trainer
        .run(WeightFormat::F32, &AtomicBool::new(false), &mut |event| {
            if let Event::Dev { ndcg, .. } = event {
                measured.push(*ndcg);
            }
        })
        .unwrap();
    // It learns by heart, NDCG reaches 1, and two measurements later it ends.
    assert_eq!(ending, Ending::Early, "{measured:?}");
    assert!(measured.iter().any(|ndcg| *ndcg > 0.999), "{measured:?}");
    assert!(dev.ndcg(&folder.path().join("best"), 1, Precision::F32).unwrap() > 0.999);

    // The same command again takes no further step.
    let options = Options { dev_every: 10, patience: 2, rate: 3e-3, ..self::options("bce", 400) };
    let ended = trainer.state();
    let mut again = Trainer::new(open(), &data, Some(&dev), options, folder.path()).unwrap();
    let ending =
        again.run(WeightFormat::F32, &AtomicBool::new(false), &mut |event| panic!("{event:?}")).unwrap();
    assert_eq!((ending, again.state()), (Ending::Early, ended));
}

#[test]
fn a_pair_has_no_more_tokens_than_positions() {
    // RoBERTa and MPNet count positions from 2.
    for (name, longest) in [("tiny-bert", 96), ("tiny-xlm-roberta", 96), ("tiny-mpnet", 200)] {
        let folder = tiny().with_file_name(name);
        assert!(Trainable::open(&folder, longest, 1).is_ok(), "{name}");
        let error = Trainable::open(&folder, longest + 1, 1).err().unwrap().to_string();
        assert!(error.contains(&format!("positions for {longest} tokens")), "{error}");
    }
}

#[test]
fn bad_data_names_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.jsonl");
    let read = |text: &str, loss: &str| {
        std::fs::write(&path, text).unwrap();
        Groups::read(&[Source { path: path.clone(), times: 1.0 }], &loss.parse().unwrap(), 1.0)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    let line = |labels: [&str; 2]| {
        format!(
            r#"{{"query": "q", "documents": [{{"text": "a", "label": {}}}, {{"text": "b", "label": {}}}]}}"#,
            labels[0], labels[1]
        )
    };
    let error = read(&format!("{}\n{{", line(["1", "0"])), "mse");
    assert!(error.contains("bad.jsonl:2:"), "{error}");
    let error = read(&line(["1", "3"]), "bce");
    assert!(error.contains("bad.jsonl:1: document 1") && error.contains("from 0 to 1"), "{error}");
    let error = read(&line(["1", "null"]), "bce");
    assert!(error.contains("no query has two documents"), "{error}");
    assert_eq!(read(&line(["1", "3"]), "mse"), "");
}
