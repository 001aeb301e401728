//! The challenge set keeps the rules that its README states: how many items, domains, words and depths, and that knowing
//! which words a text contains does not answer it. What items mean, no program can check; two readings did that.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use jointly_eval::slices::{CHALLENGE, CONTROL, Contrast, Items, Slice, challenge};
use jointly_eval::{Retrieved, Run};
use serde::Deserialize;

const MIN_ITEMS: usize = 60;
const MIN_DOMAINS: usize = 8;
/// Words of a document. 1,700 words of such prose are over 2,000 tokens of the embedded model's vocabulary: the shortest
/// document has 1,799 words and 2,080 tokens.
const SHORT_WORDS: std::ops::RangeInclusive<usize> = 30..=120;
const LONG_WORDS: std::ops::RangeInclusive<usize> = 1700..=2400;
const QUERY_WORDS: std::ops::RangeInclusive<usize> = 3..=20;
/// The words before the deciding passage, of all: at least so many items in each fifth of the document.
const MIN_PER_FIFTH: usize = 8;
/// A tie counts as wrong. Chance is a quarter.
const MAX_BAG_OF_WORDS: f64 = 0.25;
const MIN_BAG_OF_WORDS_ON_CONTROL: f64 = 0.9;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../challenge")
}

fn contrasts(slice: &Slice) -> &[Contrast] {
    match &slice.items {
        Items::Contrasts(items) => items,
        Items::Pools(_) => panic!("{}: not contrast items", slice.name),
    }
}

fn words(text: &str) -> Vec<String> {
    let parts = text.split(|c: char| !c.is_alphanumeric()).filter(|part| !part.is_empty());
    parts.map(str::to_lowercase).collect()
}

#[test]
fn items_domains_and_lengths() {
    let slices = challenge(folder()).unwrap();
    assert_eq!(slices.len(), CHALLENGE.len() + 1);
    for slice in &slices {
        let items = contrasts(slice);
        assert!(items.len() >= MIN_ITEMS, "{}: {} items", slice.name, items.len());
        let domains: BTreeSet<&str> = items.iter().map(|item| item.domain.as_str()).collect();
        assert!(domains.len() >= MIN_DOMAINS, "{}: {domains:?}", slice.name);
        let range = if slice.name == "long-documents" { LONG_WORDS } else { SHORT_WORDS };
        for item in items {
            for document in &item.documents {
                let count = document.split_whitespace().count();
                assert!(range.contains(&count), "{}: a document of {count} words", item.id);
            }
            for query in &item.queries {
                let count = query.split_whitespace().count();
                assert!(QUERY_WORDS.contains(&count), "{}: a query of {count} words", item.id);
            }
        }
    }
}

#[test]
fn no_text_stands_twice() {
    let mut queries = HashMap::new();
    let mut documents = HashMap::new();
    let mut ids = BTreeSet::new();
    for slice in challenge(folder()).unwrap() {
        for item in contrasts(&slice) {
            assert!(ids.insert(item.id.clone()), "{} stands twice", item.id);
            for (seen, texts) in [(&mut queries, &item.queries), (&mut documents, &item.documents)] {
                for text in texts {
                    let before = seen.insert(words(text), item.id.clone());
                    assert_eq!(before, None, "the same text as in {}: {text}", item.id);
                }
            }
        }
    }
}

/// The fields that the loader does not need.
#[derive(Deserialize)]
struct Fields {
    id: String,
    slice: String,
    domain: String,
    phenomenon: String,
    note: String,
}

#[derive(Deserialize)]
struct Place {
    base: String,
    after: usize,
}

fn lines<T: for<'a> Deserialize<'a>>(name: &str) -> Vec<T> {
    let text = std::fs::read_to_string(folder().join(format!("{name}.jsonl"))).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_fields_for_readers_are_filled() {
    for name in CHALLENGE.iter().chain([&CONTROL]) {
        let items: Vec<Fields> = lines(name);
        let prefix = items[0].id.split('-').next().unwrap().to_string();
        for (number, item) in (1..).zip(items) {
            assert_eq!(item.id, format!("{prefix}-{number:03}"), "{name}");
            assert_eq!(item.slice, *name, "{}", item.id);
            for field in [item.domain, item.phenomenon, item.note] {
                assert!(!field.is_empty() && field.trim() == field, "{}: {field:?}", item.id);
            }
        }
    }
}

#[test]
fn the_fact_stands_at_every_depth_and_bases_repeat_nothing() {
    let mut bases: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for entry in std::fs::read_dir(folder().join("long-documents/bases")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let paragraphs: Vec<&str> = text.trim_end().split("\n\n").collect();
        for paragraph in &paragraphs {
            assert!(paragraph.split_whitespace().count() >= 40, "{}: {paragraph}", path.display());
            assert!(seen.insert(paragraph.to_string()), "{}: twice: {paragraph}", path.display());
        }
        let lengths = paragraphs.iter().map(|p| p.split_whitespace().count()).collect();
        bases.insert(path.file_stem().unwrap().to_str().unwrap().to_string(), lengths);
    }
    assert!(bases.len() >= MIN_DOMAINS);
    let mut fifths = [0; 5];
    for place in lines::<Place>("long-documents") {
        let lengths = &bases[&place.base];
        let before: usize = lengths[..place.after].iter().sum();
        let all: usize = lengths.iter().sum();
        fifths[(5 * before / all).min(4)] += 1;
    }
    assert!(fifths.iter().all(|count| *count >= MIN_PER_FIFTH), "{fifths:?}");
}

/// The number of distinct words of the query that the document contains.
fn overlap(query: &str, document: &str) -> f64 {
    let document: BTreeSet<String> = words(document).into_iter().collect();
    words(query).into_iter().collect::<BTreeSet<_>>().intersection(&document).count() as f64
}

/// BM25 (k1 = 0.9, b = 0.4) with the statistics of the slice's own documents.
struct Bm25 {
    frequency: HashMap<String, f64>,
    documents: f64,
    mean_length: f64,
}

impl Bm25 {
    fn new(items: &[Contrast]) -> Self {
        let documents: Vec<Vec<String>> =
            items.iter().flat_map(|item| item.documents.iter().map(|d| words(d))).collect();
        let mut frequency = HashMap::new();
        for document in &documents {
            for word in document.iter().collect::<BTreeSet<_>>() {
                *frequency.entry(word.clone()).or_insert(0.0) += 1.0;
            }
        }
        let count = documents.len() as f64;
        let mean_length = documents.iter().map(Vec::len).sum::<usize>() as f64 / count;
        Self { frequency, documents: count, mean_length }
    }

    fn score(&self, query: &str, document: &str) -> f64 {
        let document = words(document);
        let norm = 0.9 * (0.6 + 0.4 * document.len() as f64 / self.mean_length);
        let query: BTreeSet<String> = words(query).into_iter().collect();
        let weights = query.iter().map(|word| {
            let tf = document.iter().filter(|other| *other == word).count() as f64;
            let df = self.frequency.get(word).copied().unwrap_or_default();
            (1.0 + (self.documents - df + 0.5) / (df + 0.5)).ln() * tf / (tf + norm)
        });
        weights.sum()
    }
}

#[test]
fn a_bag_of_words_answers_the_control_and_nothing_else() {
    for slice in challenge(folder()).unwrap() {
        let items = contrasts(&slice);
        let bm25 = Bm25::new(items);
        for name in ["overlap", "bm25"] {
            let score = |query: &str, document: &str| match name {
                "overlap" => overlap(query, document),
                _ => bm25.score(query, document),
            };
            let mut run = Run::new();
            for group in slice.groups() {
                let hits = group.documents.iter();
                let hits =
                    hits.map(|document| Retrieved::new(&document.id, score(&group.query, &document.text)));
                run.insert(&group.query_id, hits.collect()).unwrap();
            }
            let accuracy = slice.measure(&run).unwrap().mean();
            println!("{} {name}: {accuracy:.3}", slice.name);
            if slice.name == CONTROL {
                assert!(accuracy >= MIN_BAG_OF_WORDS_ON_CONTROL, "{} {name}: {accuracy}", slice.name);
            } else {
                assert!(accuracy <= MAX_BAG_OF_WORDS, "{} {name}: {accuracy}", slice.name);
            }
        }
    }
}
