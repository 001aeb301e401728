//! NegConstraint, `corpus.jsonl`, `queries.jsonl` and `test.tsv`: negation and quantifiers.
//!
//! "Introduce Aarhus without Denmark": a query names a subject and what is not to be spoken of. The corpus lists, for
//! each query, the passage that keeps to this, and after it passages on the same subject that do not. The pool is the
//! relevant passage and what follows it up to the next query's, ten passages at most. Only the relevant ones were judged;
//! that the others are wrong is inferred from how the corpus was built.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::{Items, candidate};
use crate::error::Result;
use crate::format::Lines;
use crate::format::beir::{read_corpus, read_queries};
use crate::format::groups::Group;
use crate::format::tsv::read_qrels;

const MAX_POOL: usize = 10;

pub(super) fn read(folder: &Path) -> Result<Items> {
    let corpus = read_corpus(Lines::open(folder.join("corpus.jsonl"))?)?;
    let queries = read_queries(Lines::open(folder.join("queries.jsonl"))?)?;
    let qrels = read_qrels(Lines::open(folder.join("test.tsv"))?)?;
    let places: HashMap<&str, usize> = corpus.iter().enumerate().map(|(i, d)| (d.id.as_str(), i)).collect();
    let relevant =
        qrels.iter().flat_map(|(_, labels)| labels.keys()).filter_map(|id| places.get(id.as_str()));
    let starts: HashSet<usize> = relevant.copied().collect();
    let mut pools = Vec::new();
    for query in queries {
        let judged = qrels.get(&query.id).and_then(|labels| labels.keys().next());
        let Some(&start) = judged.and_then(|id| places.get(id.as_str())) else { continue };
        let others = (start + 1..corpus.len()).take_while(|place| !starts.contains(place));
        let pool = std::iter::once(start).chain(others).take(MAX_POOL);
        let documents: Vec<_> = pool
            .map(|place| candidate(&corpus[place].id, &corpus[place].full_text(), place == start))
            .collect();
        if documents.len() > 1 {
            pools.push(Group { query_id: query.id, query: query.text, documents });
        }
    }
    Ok(Items::Pools(pools))
}

#[cfg(test)]
mod tests {
    use super::super::read::tests::folder;
    use super::*;

    #[test]
    fn the_pool_ends_where_the_next_begins() {
        let corpus: String = (0..5).map(|i| format!("{{\"_id\": \"{i}\", \"text\": \"t{i}\"}}\n")).collect();
        let files = folder(&[
            ("corpus.jsonl", &corpus),
            (
                "queries.jsonl",
                "{\"_id\": \"a\", \"text\": \"A\"}\n{\"_id\": \"b\", \"text\": \"B\"}\n{\"_id\": \"c\", \"text\": \"C\"}",
            ),
            ("test.tsv", "query-id\tcorpus-id\tscore\na\t0\t1\nb\t3\t1\n"),
        ]);
        let Items::Pools(pools) = read(files.path()).unwrap() else { panic!() };
        let ids: Vec<Vec<&str>> =
            pools.iter().map(|pool| pool.documents.iter().map(|d| d.id.as_str()).collect()).collect();
        assert_eq!(ids, [vec!["0", "1", "2"], vec!["3", "4"]]);
        assert_eq!(pools[1].documents[0].label, Some(1));
    }
}
