//! An index is built, opened again and searched; and what it finds is what comparing everything finds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use jointly::files::ModelFiles;
use jointly::{BiEncoder, LoadOptions, Role};
use jointly_retrieve::analysis::terms;
use jointly_retrieve::{
    BuildOptions, Document, Error, ErrorKind, Hit, Index, Parameters, Progress, build, fusion,
};

fn model(threads: usize) -> BiEncoder {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/embed-bert");
    BiEncoder::load(folder, LoadOptions::new().threads(threads)).unwrap()
}

/// Texts of some words each, always the same, none longer than 40 terms: up to there BM25's lengths are exact.
fn documents(count: usize) -> Vec<Document> {
    const WORDS: [&str; 12] = [
        "river", "bridge", "oxygen", "blood", "vaccine", "jaguar", "ships", "fog", "metres", "keeper",
        "group", "Brücke",
    ];
    let mut state = 7_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    (0..count)
        .map(|i| {
            let length = random(30);
            // The later words are rarer.
            let words: Vec<&str> =
                (0..length).map(|_| WORDS[random(WORDS.len()).min(random(WORDS.len()))]).collect();
            Document { id: format!("d {i}"), text: words.join(" ") }
        })
        .collect()
}

const QUERIES: [&str; 6] = [
    "the river and the bridge",
    "jaguars",
    "blood blood oxygen",
    "brücke fog",
    "nothing of that stands anywhere",
    "",
];

fn new_index(folder: &Path, documents: &[Document], options: BuildOptions<'_>) -> Index {
    let path = folder.join("index");
    build(&path, documents, options, &mut |_| ()).unwrap();
    Index::open(&path).unwrap()
}

/// BM25 by its definition, every document against every term.
fn bm25_by_hand(documents: &[Document], query: &str, Parameters { k1, b }: Parameters) -> Vec<f64> {
    let all: Vec<BTreeMap<String, u32>> = documents.iter().map(|document| terms(&document.text)).collect();
    let length = |terms: &BTreeMap<String, u32>| terms.values().map(|count| f64::from(*count)).sum::<f64>();
    let average = all.iter().map(length).sum::<f64>() / all.len() as f64;
    let (k1, b) = (f64::from(k1), f64::from(b));
    let asked: Vec<(String, f64)> = terms(query)
        .into_iter()
        .map(|(term, count)| {
            let having = all.iter().filter(|document| document.contains_key(&term)).count() as f64;
            let idf = (1.0 + (all.len() as f64 - having + 0.5) / (having + 0.5)).ln();
            (term, f64::from(count) * idf)
        })
        .collect();
    let score = |document: &BTreeMap<String, u32>| {
        let norm = k1 * (1.0 - b + b * length(document) / average);
        let of_term = |(term, weight): &(String, f64)| match document.get(term) {
            Some(&tf) => weight * f64::from(tf) / (f64::from(tf) + norm),
            None => 0.0,
        };
        asked.iter().map(of_term).sum()
    };
    all.iter().map(score).collect()
}

/// Whether `hits` are the best `k` of `scores`, which are computed otherwise and differ in the last digits.
fn assert_best(hits: &[Hit], scores: &[f64], k: usize, what: &str) {
    let mut sorted: Vec<f64> = scores.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    assert_eq!(hits.len(), k.min(sorted.len()), "{what}");
    for (hit, wanted) in hits.iter().zip(&sorted) {
        for score in [scores[hit.document as usize], *wanted] {
            let difference = (f64::from(hit.score) - score).abs();
            assert!(difference < 1e-5 * wanted.abs().max(1.0), "{what}: {hit:?}, {score}");
        }
    }
    for pair in hits.windows(2) {
        let order = pair[1].score.total_cmp(&pair[0].score).then(pair[0].document.cmp(&pair[1].document));
        assert!(order.is_lt(), "{what}: {pair:?}");
    }
}

#[test]
fn bm25_is_its_definition_whatever_the_parameters_and_threads() {
    let documents = documents(700);
    for threads in [1, 3] {
        let folder = tempfile::tempdir().unwrap();
        let index = new_index(folder.path(), &documents, BuildOptions::new().threads(threads));
        assert_eq!((index.len(), index.id(699)), (700, "d 699"));
        assert_eq!(index.bm25_parameters(), Parameters { k1: 0.9, b: 0.4 });
        for parameters in
            [Parameters::default(), Parameters { k1: 1.2, b: 0.75 }, Parameters { k1: 0.0, b: 1.0 }]
        {
            for k in [0, 1, 10, 1000] {
                let found = index.bm25(&QUERIES, parameters, k, threads).unwrap();
                assert_eq!(found.len(), QUERIES.len());
                for (query, hits) in QUERIES.iter().zip(&found) {
                    let scores = bm25_by_hand(&documents, query, parameters);
                    let matching = scores.iter().filter(|score| **score > 0.0).count();
                    assert_best(hits, &scores, k.min(matching), &format!("{query:?}, {parameters:?}, {k}"));
                }
            }
        }
        let found = index.bm25(&QUERIES, Parameters::default(), 10, threads).unwrap();
        assert!(found[..4].iter().all(|hits| hits.len() == 10) && found[4..].iter().all(Vec::is_empty));
    }
}

#[test]
fn dense_is_every_product_and_hybrid_is_both_fused() {
    // More than a block, and not a whole number of them.
    let documents = documents(1300);
    let one = model(1);
    let folder = tempfile::tempdir().unwrap();
    let index = new_index(folder.path(), &documents, BuildOptions::new().dense(&one, "embed-bert"));
    let info = index.dense_info().unwrap();
    assert_eq!((info.model.as_str(), info.dimensions, info.precision.as_str()), ("embed-bert", 36, "f32"));
    index.check_model(&one).unwrap();

    let texts: Vec<&str> = documents.iter().map(|document| document.text.as_str()).collect();
    let vectors = one.embed(&texts, Role::Document).unwrap();
    // More queries than are compared at a time.
    let many: Vec<String> = (0..70).map(|i| format!("{} {i}", QUERIES[i % QUERIES.len()])).collect();
    let wanted = one.embed(&many, Role::Query).unwrap();
    let found = index.dense(&many, &one, 10).unwrap();
    for (i, hits) in found.iter().enumerate() {
        let product =
            |row: &[f32]| row.iter().zip(wanted.row(i)).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        let scores: Vec<f64> = (0..documents.len()).map(|row| product(vectors.row(row))).collect();
        assert_best(hits, &scores, 10, &many[i]);
    }
    // Bit for bit, whatever the threads and whichever other queries there are.
    let three = model(3);
    assert_eq!(index.dense(&many, &three, 10).unwrap(), found);
    for i in [0, 13, 69] {
        assert_eq!(index.dense(&many[i..=i], &three, 10).unwrap()[0], found[i]);
    }
    assert_eq!(index.dense(&many[..1], &one, 5000).unwrap()[0].len(), 1300);

    let hybrid = index.hybrid(&QUERIES, Parameters::default(), &one, 10).unwrap();
    let dense = index.dense(&QUERIES, &one, 100).unwrap();
    let bm25 = index.bm25(&QUERIES, Parameters::default(), 100, 1).unwrap();
    for (i, fused) in hybrid.iter().enumerate() {
        assert_eq!(*fused, fusion::reciprocal_rank(&[&bm25[i], &dense[i]], 10));
    }
}

#[test]
fn another_model_and_no_vectors_are_refused() {
    let one = model(1);
    let folder = tempfile::tempdir().unwrap();
    let index = new_index(folder.path(), &documents(3), BuildOptions::new());
    let refused = |error: Error, message: &str| {
        assert!(error.kind() == ErrorKind::Input && error.to_string().contains(message), "{error}");
    };
    let none = "has no vectors; `jointly index --dense";
    refused(index.check_model(&one).unwrap_err(), none);
    refused(index.check_files(one.files(), None).unwrap_err(), none);
    refused(index.dense(&["q"], &one, 1).unwrap_err(), none);
    refused(index.hybrid(&["q"], Parameters::default(), &one, 1).unwrap_err(), none);

    let path = folder.path().join("index");
    build(&path, &documents(3), BuildOptions::new().dense(&one, "m").force(true), &mut |_| ()).unwrap();
    let index = Index::open(&path).unwrap();
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata");
    for (name, options, message) in [
        ("embed-bert", LoadOptions::new().precision(jointly::Precision::Int8), "in f32, and this is int8"),
        ("embed-bert", LoadOptions::new().max_length(20), "reading up to 64 tokens, and this reads 20"),
        ("embed-mpnet", LoadOptions::new().max_length(64), "they have 36 values, and this makes 20"),
    ] {
        let other = BiEncoder::load(testdata.join(name), options).unwrap();
        refused(index.check_model(&other).unwrap_err(), message);
        refused(index.dense(&["q"], &other, 1).unwrap_err(), message);
    }
    index.check_files(one.files(), None).unwrap();
    let other = ModelFiles::open(&testdata.join("embed-mpnet")).unwrap();
    refused(index.check_files(&other, None).unwrap_err(), "made by another model: the files of");
}

#[test]
fn what_cannot_be_indexed_is_refused_and_leaves_nothing_to_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let fails = |path: &Path, documents: &[Document], options: BuildOptions<'_>, message: &str| {
        let error = build(path, documents, options, &mut |_| ()).unwrap_err();
        assert!(error.kind() == ErrorKind::Input && error.to_string().contains(message), "{error}");
    };
    let open_fails = |path: &Path, message: &str| {
        let error = Index::open(path).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    };
    open_fails(&path, "there is no such index");
    fails(&path, &[], BuildOptions::new(), "no document");
    let twice = [documents(2), documents(1)].concat();
    fails(&path, &twice, BuildOptions::new(), "documents 0 and 2 (from 0) have the same id \"d 0\"");
    for (k1, b, message) in [
        (-1.0, 0.4, "k1 is -1; it must be 0 or more"),
        (f32::NAN, 0.4, "k1 is NaN; it must be 0 or more"),
        (0.9, 1.5, "b is 1.5; it must be from 0 to 1"),
    ] {
        fails(&path, &documents(2), BuildOptions::new().bm25(Parameters { k1, b }), message);
    }
    assert!(!path.exists());

    let index = new_index(folder.path(), &documents(5), BuildOptions::new());
    fails(&path, &documents(2), BuildOptions::new(), "is an index already; --force");
    assert_eq!(index.len(), 5);

    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("thesis.txt"), "all there is").unwrap();
    for force in [false, true] {
        fails(&other, &documents(2), BuildOptions::new().force(force), "a folder of something else");
    }
    open_fails(&other, "not an index: it has no manifest.json");
    assert_eq!(fs::read_dir(&other).unwrap().count(), 1);
    let file = other.join("thesis.txt");
    open_fails(&file, "not an index");
    assert!(build(&file, &documents(2), BuildOptions::new(), &mut |_| ()).is_err());
}

/// The files of a folder and below it, with their contents.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.clone(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn a_new_build_replaces_the_old_one_whole_and_searching_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let first = new_index(folder.path(), &documents(5), BuildOptions::new());
    let path = folder.path().join("index");
    // What a killed build leaves: a folder with something in it, and a manifest that was not renamed.
    fs::create_dir(path.join("build-7")).unwrap();
    fs::write(path.join("build-7/ids.jsonl"), "\"half a li").unwrap();
    fs::write(path.join("manifest.json.new"), "{").unwrap();
    assert_eq!(Index::open(&path).unwrap().len(), 5);
    let options = BuildOptions::new().force(true).bm25(Parameters { k1: 2.0, b: 0.0 });
    let second = new_index(folder.path(), &documents(9), options);
    assert_eq!((second.len(), second.bm25_parameters().k1), (9, 2.0));
    let mut names: Vec<String> =
        fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["build-8", "lock", "manifest.json"]);
    // Whoever had the old one open goes on with it.
    let all = first.bm25(&["river bridge oxygen blood"], Parameters::default(), 9, 1).unwrap();
    assert_eq!(all[0].iter().map(|hit| hit.document).max(), Some(4));

    let before = contents(&path);
    let again = Index::open(&path).unwrap();
    let hits = again.bm25(&QUERIES, Parameters::default(), 5, 2).unwrap();
    assert_eq!(hits, second.bm25(&QUERIES, Parameters::default(), 5, 1).unwrap());
    assert_eq!(contents(&path), before);
}

#[test]
fn two_builds_at_once_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index");
    let mut inside = None;
    build(&path, &documents(3), BuildOptions::new(), &mut |progress| {
        if progress == Progress::Finishing {
            let error =
                build(&path, &documents(3), BuildOptions::new().force(true), &mut |_| ()).unwrap_err();
            inside = Some(error.to_string());
            assert!(Index::open(&path).unwrap_err().to_string().contains("its building did not finish"));
        }
    })
    .unwrap();
    assert!(inside.unwrap().contains("another process is building this index"));
    assert_eq!(Index::open(&path).unwrap().len(), 3);
}

#[test]
fn a_panic_while_building_leaves_the_old_index_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let old = new_index(folder.path(), &documents(5), BuildOptions::new());
    let path = folder.path().join("index");
    let before = contents(&path);
    let result = std::panic::catch_unwind(|| {
        build(&path, &documents(9), BuildOptions::new().force(true), &mut |progress| {
            assert!(progress != Progress::Finishing, "a bug");
        })
    });
    assert!(result.is_err());
    assert_eq!(contents(&path), before);
    assert_eq!(old.len(), Index::open(&path).unwrap().len());
}

#[test]
fn damage_is_found_when_the_index_is_opened() {
    let one = model(1);
    let folder = tempfile::tempdir().unwrap();
    drop(new_index(folder.path(), &documents(40), BuildOptions::new().dense(&one, "m")));
    let path = folder.path().join("index");
    let whole = contents(&path);
    let mut tried = 0;
    for (file, bytes) in &whole {
        let name = file.file_name().unwrap().to_str().unwrap();
        if name.ends_with("lock") {
            continue;
        }
        for damaged in [None, Some(&bytes[..bytes.len() - 1])] {
            match damaged {
                None => fs::remove_file(file).unwrap(),
                Some(bytes) => fs::write(file, bytes).unwrap(),
            }
            let error = Index::open(&path).unwrap_err().to_string();
            assert!(error.starts_with(path.to_str().unwrap()), "{error}");
            fs::write(file, bytes).unwrap();
            tried += 1;
        }
    }
    assert!(tried >= 2 * 6, "{:?}", whole.keys());
    let manifest = String::from_utf8(whole[&path.join("manifest.json")].clone()).unwrap();
    for (from, to, message) in [
        ("\"format\": 1", "\"format\": 2", "format 2; this program reads 1"),
        ("\"format\": 1,", "", "no format"),
        ("\"build-1\"", "\"../build-1\"", "is not the name of a build"),
        ("\"documents\": 40", "\"documents\": 41", "40 documents instead of 41"),
        ("\"dimensions\": 36", "\"dimensions\": 35", "not those of 40 vectors of 35 values"),
        ("\"dimensions\": 36", "\"dimensions\": 0", "not those of 40 vectors of 0 values"),
    ] {
        assert!(manifest.contains(from), "{manifest}");
        fs::write(path.join("manifest.json"), manifest.replace(from, to)).unwrap();
        let error = Index::open(&path).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    // A manifest that cannot be read is no reason not to build anew.
    fs::write(path.join("manifest.json"), "{").unwrap();
    assert!(build(&path, &documents(4), BuildOptions::new(), &mut |_| ()).is_err());
    build(&path, &documents(4), BuildOptions::new().force(true), &mut |_| ()).unwrap();
    assert_eq!(Index::open(&path).unwrap().len(), 4);

    // Vectors that are no numbers are found when they are compared.
    build(&path, &documents(40), BuildOptions::new().force(true).dense(&one, "m"), &mut |_| ()).unwrap();
    let vectors = contents(&path).into_keys().find(|file| file.ends_with("vectors.f32")).unwrap();
    let mut bytes = fs::read(&vectors).unwrap();
    bytes[36 * 4 * 17..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&vectors, bytes).unwrap();
    let error = Index::open(&path).unwrap().dense(&["q"], &one, 3).unwrap_err().to_string();
    assert!(error.contains("vector 17 is not finite"), "{error}");
}
