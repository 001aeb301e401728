//! Runs, judgements, collections and groups for `jointly-eval`. Every case is read by every reader, packed or plain as its
//! first bytes say.
#![no_main]

use std::fmt::Write;
use std::io::Cursor;

use jointly_eval::format::groups::{self, Groups};
use jointly_eval::format::{Lines, beir, trec, tsv};
use jointly_eval::{Error, JudgeOptions, JudgedRun, METRICS, Qrels, Run};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let lines = || Lines::new("case", Cursor::new(data.to_vec()));
    let (mut runs, mut judgements) = (Vec::<Run>::new(), Vec::<Qrels>::new());
    for reader in [trec::read_run, tsv::read_run] {
        runs.extend(accepted(lines().and_then(reader)));
    }
    for reader in [trec::read_qrels, trec::read_subtopic_qrels, tsv::read_qrels] {
        judgements.extend(accepted(lines().and_then(reader)));
    }
    accepted(lines().and_then(tsv::read_texts));
    accepted(lines().and_then(beir::read_corpus));
    accepted(lines().and_then(beir::read_queries));
    if let Some(read) = accepted(lines().and_then(|lines| Groups::new(lines).collect::<Result<Vec<_>, _>>()))
    {
        runs.push(groups::first_stage(&read).expect("a group is checked when it is read"));
        judgements.push(groups::qrels(&read));
    }
    for run in runs {
        assert!(!run.is_empty());
        assert_eq!(read_back(&run), run);
        // Judged by itself, every document relevant: each metric is a number, and most can give no more than 1.
        let mut qrels = Qrels::new();
        for (query, hits) in run.iter() {
            for hit in hits {
                qrels.insert_subtopic(query, "1", &hit.document, 1);
            }
        }
        judgements.push(qrels);
        for qrels in &judgements {
            let Ok(judged) = JudgedRun::new(qrels, &run, JudgeOptions::new()) else { continue };
            for kind in METRICS {
                for name in [kind.name.to_string(), format!("{}@3", kind.name)] {
                    let Some(values) = name.parse().ok().and_then(|metric| judged.evaluate(metric).ok())
                    else {
                        continue;
                    };
                    // The ideal of alpha-NDCG is found greedily, and can be beaten.
                    let most = if kind.name == "alpha_ndcg" { 2.0 } else { 1.0 + 1e-12 };
                    assert!(
                        values.0.values().all(|value| (0.0..=most).contains(value)),
                        "{name}: {values:?}"
                    );
                }
            }
        }
    }
});

/// What was read; or nothing, and an error that says where.
fn accepted<T>(read: Result<T, Error>) -> Option<T> {
    read.map_err(|error| assert!(error.to_string().starts_with("case"), "{error}")).ok()
}

/// The run written as TSV, document by document as it came, and read again.
fn read_back(run: &Run) -> Run {
    let mut text = "query-id\tcorpus-id\tscore\n".to_string();
    for (query, hits) in run.iter() {
        for hit in hits {
            if [query, &hit.document].iter().any(|id| id.contains(['\t', '\n', '\r'])) {
                return run.clone(); // JSON can hold what TSV cannot
            }
            writeln!(text, "{query}\t{}\t{}", hit.document, hit.score).expect("a string");
        }
    }
    tsv::read_run(Lines::new("again", Cursor::new(text.into_bytes())).expect("memory"))
        .expect("it was accepted before")
}
