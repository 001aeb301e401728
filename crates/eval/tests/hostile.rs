//! No bytes make a reader panic, and what it accepts keeps its promises.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::Cursor;

use jointly_eval::format::groups::{self, Groups};
use jointly_eval::format::{Lines, beir, trec, tsv};
use jointly_eval::{Error, Qrels, Run};
use proptest::prelude::*;

/// Reads the bytes with every reader; gives how many of them accepted.
fn read_with_all(bytes: &[u8]) -> usize {
    let lines = || Lines::new("case", Cursor::new(bytes.to_vec()));
    let (mut runs, mut qrels, mut others) = (Vec::<Run>::new(), Vec::<Qrels>::new(), 0);
    let mut note = |error: Error| assert!(error.to_string().starts_with("case"), "{error}");
    for reader in [trec::read_run, tsv::read_run] {
        lines().and_then(reader).map_or_else(&mut note, |run| runs.push(run));
    }
    for reader in [trec::read_qrels, trec::read_subtopic_qrels, tsv::read_qrels] {
        lines().and_then(reader).map_or_else(&mut note, |read| qrels.push(read));
    }
    lines().and_then(tsv::read_texts).map_or_else(&mut note, |_| others += 1);
    lines().and_then(beir::read_corpus).map_or_else(&mut note, |_| others += 1);
    lines().and_then(beir::read_queries).map_or_else(&mut note, |_| others += 1);
    match lines().and_then(|lines| Groups::new(lines).collect::<Result<Vec<_>, _>>()) {
        Ok(read) => {
            runs.push(groups::first_stage(&read).unwrap());
            others += 1;
        }
        Err(error) => note(error),
    }
    for run in &runs {
        assert!(!run.is_empty());
        assert!(run.iter().flat_map(|(_, hits)| hits).all(|hit| hit.score.is_finite()));
    }
    assert!(qrels.iter().all(|qrels| !qrels.is_empty()));
    runs.len() + qrels.len() + others
}

fn valid() -> Vec<Vec<u8>> {
    let texts = [
        "q1 Q0 d1 1 2.5 t\nq1 Q0 d2 2 1.5 t\nq2 Q0 d1 1 -1e-3 t\n",
        "q1 0 d1 1\nq1 0 d2 0\nq2 1 d1 -1\n",
        "query-id\tcorpus-id\tscore\nq1\ta b\t1\nq2\tc\t0\n",
        "{\"_id\": \"a\", \"title\": null, \"text\": \"x\"}\n{\"_id\": 2, \"text\": \"y\"}\n",
        "{\"query_id\": \"q\", \"query\": \"?\", \"documents\": [{\"id\": \"a\", \"text\": \"x\", \"first_stage_score\": 1, \"label\": 1}]}\n",
    ];
    let packed = texts.map(|text| {
        ruzstd::encoding::compress_to_vec(text.as_bytes(), ruzstd::encoding::CompressionLevel::Fastest)
    });
    texts.iter().map(|text| text.as_bytes().to_vec()).chain(packed).collect()
}

#[test]
fn the_seeds_are_accepted() {
    for seed in valid() {
        assert!(read_with_all(&seed) > 0, "{}", String::from_utf8_lossy(&seed));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300), packed in 0_usize..4) {
        let start: [&[u8]; 4] = [b"", &[0x1f, 0x8b, 8, 0], &[0x28, 0xb5, 0x2f, 0xfd], &[0x50, 0x2a, 0x4d, 0x18]];
        read_with_all(&[start[packed], &bytes].concat());
    }

    #[test]
    fn almost_right(
        seed in 0_usize..10,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = valid().swap_remove(seed);
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        read_with_all(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        read_with_all(&bytes);
    }
}
