//! Training learns, repeats itself to the bit, and goes on after a kill as if nothing had happened.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::panic::{AssertUnwindSafe, catch_unwind};
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
    let bounds = [
        ("bce", 0.01),
        ("mse", 0.01),
        ("softmax", 0.01),
        ("ranknet", 0.01),
        // The pairs of 4 documents weigh less than 1 together, so this is at most RankNet's where that is as small for each pair; twice
        // its bound, because pairs far apart weigh little and are learnt later.
        ("lambda", 0.02),
        // The mean square of differences of errors is at most 8/3 of that of 4 errors.
        ("margin_mse", 0.03),
        // A softmax that says nothing is 0.12 away from that of one 1 and three 0.
        ("kl", 0.01),
    ];
    for (loss, most) in bounds {
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
    drop(resumed);

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

/// What a folder's log says, without the time that it took.
fn log(folder: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(folder.join("log.jsonl")).unwrap();
    let line = |line: &str| {
        let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
        line.as_object_mut().unwrap().remove("seconds");
        line
    };
    text.lines().map(line).collect()
}

#[test]
fn a_run_that_is_killed_ends_with_the_same_bits() {
    for precision in [Precision::F32, Precision::Bf16] {
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [whole, killed] = folders.each_ref().map(|folder| folder.path());
        let data = read(whole, "bce");
        let dev = Dev::read(&whole.join("train.jsonl"), 48).unwrap();
        let options = |save_seconds| Options { precision, dev_every: 2, save_seconds, ..options("bce", 12) };
        // Until somebody kills it at a step, whose checkpoint is not written any more.
        let train = |folder: &Path, save_seconds, killed_at| {
            let mut trainer = Trainer::new(open(), &data, Some(&dev), options(save_seconds), folder).unwrap();
            let begun = trainer.state().step;
            let ended = catch_unwind(AssertUnwindSafe(|| {
                let never = AtomicBool::new(false);
                let ending = trainer.run(WeightFormat::F32, &never, &mut |event| match event {
                    Event::Step { step, .. } if *step == killed_at => panic!("killed at step {step}"),
                    _ => {}
                });
                ending.unwrap()
            }));
            (begun, ended.ok(), trainer.state())
        };
        let (_, ending, state) = train(whole, 3600, 0);
        assert_eq!(ending, Some(Ending::Done));

        // A checkpoint after each step, up to the third.
        assert_eq!(train(killed, 0, 4).1, None);
        // None: steps 4 to 9 are lost, with three measurements, and are in the log.
        let (begun, ending, _) = train(killed, 3600, 9);
        assert_eq!((begun, ending, log(killed).len()), (3, None, 9 + 4));
        // Killed between the two renames that put a checkpoint in the place of another, and in the middle of a line.
        let checkpoint = killed.join("checkpoint");
        std::fs::rename(&checkpoint, killed.join("checkpoint.old")).unwrap();
        std::fs::create_dir(killed.join("checkpoint.partial")).unwrap();
        std::fs::write(killed.join("checkpoint.partial/state.json"), "{").unwrap();
        let path = killed.join("log.jsonl");
        let text = std::fs::read_to_string(&path).unwrap() + "{\"event\":\"step\",\"step\":1";
        std::fs::write(&path, text).unwrap();
        let (begun, ending, last) = train(killed, 3600, 0);
        assert_eq!((begun, ending, last), (3, Some(Ending::Done), state));

        assert_eq!(log(whole).len(), 12 + 6);
        assert_eq!(log(whole), log(killed), "{precision:?}");
        for model in ["final", "best"] {
            let weights =
                |folder: &Path| std::fs::read(folder.join(model).join("model.safetensors")).unwrap();
            assert!(weights(whole) == weights(killed), "{precision:?}: {model} differs");
        }
    }
}

#[test]
fn two_runs_do_not_write_into_one_folder() {
    let folder = tempfile::tempdir().unwrap();
    let data = read(folder.path(), "bce");
    let new = || Trainer::new(open(), &data, None, options("bce", 3), folder.path());
    let first = new().unwrap();
    assert!(new().err().unwrap().to_string().contains("another process is training in this folder"));
    drop(first);
    assert!(new().is_ok());
}

#[test]
fn what_decides_the_best_model_is_part_of_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let data = read(folder.path(), "bce");
    let dev = Dev::read(&folder.path().join("train.jsonl"), 48).unwrap();
    let new = |dev_every, patience| {
        let options = Options { dev_every, patience, ..options("bce", 2) };
        Trainer::new(open(), &data, Some(&dev), options, folder.path())
    };
    new(1, 3).unwrap().run(WeightFormat::F32, &AtomicBool::new(false), &mut |_| {}).unwrap();
    for (dev_every, patience, expected) in
        [(2, 3, "dev_every 1 there, 2 here"), (1, 4, "patience 3 there, 4 here")]
    {
        let error = new(dev_every, patience).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// One step whose update is nearly the gradient itself: with a large `eps`, AdamW's root of squares is nothing beside it.
fn plain_step(options: Options, folder: &Path, data: &Groups) -> (Vec<f64>, f64, f64) {
    let adam = AdamW { eps: 1e4, weight_decay: 0.0, ..AdamW::default() };
    let options = Options { rate: 1e4, warmup: 0, steps: 1, adam, ..options };
    let mut trainer = Trainer::new(open(), data, None, options, folder).unwrap();
    let before = values(&trainer);
    let mut told = (0.0, 0.0);
    trainer
        .run(WeightFormat::F32, &AtomicBool::new(false), &mut |event| {
            if let Event::Step { loss, norm, .. } = event {
                told = (*loss, *norm);
            }
        })
        .unwrap();
    let after = values(&trainer);
    let pairs = before.iter().flatten().zip(after.iter().flatten());
    (pairs.map(|(before, after)| f64::from(*after) - f64::from(*before)).collect(), told.0, told.1)
}

fn length(update: &[f64]) -> f64 {
    update.iter().map(|x| x * x).sum::<f64>().sqrt()
}

#[test]
fn a_step_does_not_depend_on_how_its_pairs_are_packed() {
    let folder = tempfile::tempdir().unwrap();
    let data = read(folder.path(), "bce");
    let mut first: Option<(Vec<f64>, f64)> = None;
    for lanes in [1, 2, 4] {
        for shard_tokens in [1, 100, 1 << 20] {
            let options = Options { lanes, shard_tokens, clip: f64::MAX, ..options("bce", 1) };
            let own = folder.path().join(format!("{lanes}-{shard_tokens}"));
            let (update, loss, _) = plain_step(options, &own, &data);
            let Some((wanted, wanted_loss)) = &first else {
                first = Some((update, loss));
                continue;
            };
            assert!((loss - wanted_loss).abs() <= 1e-5 * wanted_loss, "{loss} {wanted_loss}");
            // Sums of f32 in another order: relative to the whole gradient, as small parts of it are differences of large ones.
            let apart: Vec<f64> = update.iter().zip(wanted).map(|(a, b)| a - b).collect();
            let (apart, whole) = (length(&apart), length(wanted));
            assert!(apart <= 1e-5 * whole && whole > 1e-3, "{lanes} {shard_tokens}: {apart} of {whole}");
        }
    }
}

#[test]
fn a_gradient_that_is_too_long_is_scaled_down() {
    let folder = tempfile::tempdir().unwrap();
    let data = read(folder.path(), "bce");
    let step = |clip, name: &str| {
        plain_step(Options { clip, ..options("bce", 1) }, &folder.path().join(name), &data)
    };
    let (free, _, norm) = step(f64::MAX, "free");
    // The update is the gradient itself.
    assert!((length(&free) - norm).abs() < 0.01 * norm, "{} {norm}", length(&free));
    let clip = norm / 4.0;
    let (clipped, _, told) = step(clip, "clipped");
    assert_eq!(told, norm, "the log has the norm before clipping");
    assert!((length(&clipped) - clip).abs() < 0.01 * clip, "{} {clip}", length(&clipped));
    let apart: Vec<f64> = clipped.iter().zip(&free).map(|(clipped, free)| 4.0 * clipped - free).collect();
    assert!(length(&apart) < 0.01 * norm, "the direction is another one");
    // One that is short enough stays.
    assert!(step(2.0 * norm, "short").0 == free);
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
    drop(trainer);
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
