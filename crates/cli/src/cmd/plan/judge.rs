//! Judgements where nobody has judged: a scorer's own order.

use jointly_eval::Qrels;
use jointly_eval::data::Label;

use super::Named;
use crate::Global;
use crate::cache::Cache;
use crate::cmd::eval::{Collection, Loaded, Search, order};
use crate::error::Result;
use crate::model;

/// So many of the best have a label: what a metric at 10 looks at.
const BEST: usize = 10;

/// Replaces all judgements: the best document has the label 10, the tenth 1, the others 0.
pub fn judge(
    collections: &mut [Collection],
    named: &Named,
    (max_length, search): (Option<usize>, &Search<'_>),
    global: Global,
) -> Result<()> {
    let (mut loaded, description) = Loaded::load(named.1, &named.0, max_length, global)?;
    let mut cache = Cache::open(search.cache, &loaded.made(&description)?)?;
    for collection in collections {
        let bar = model::bar(
            Some(collection.pairs() as u64),
            "judging {msg} [{bar:30}] {pos}/{len} pairs, {eta} left",
            global,
        );
        bar.set_message(collection.name.clone());
        let scores = loaded.score(collection, &mut cache, &bar)?;
        let mut qrels = Qrels::new();
        for (query, scores) in collection.queries.iter().zip(&scores.of) {
            let logits: Vec<f64> = scores.iter().map(|scored| f64::from(scored.logit)).collect();
            for (rank, place) in order(&query.candidates, &logits).into_iter().enumerate() {
                qrels.insert(&query.id, &query.candidates[place].id, BEST.saturating_sub(rank) as Label);
            }
        }
        collection.qrels = qrels;
        collection.level = 1;
    }
    Ok(())
}
