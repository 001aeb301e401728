//! What an evaluation comes to: numbers, with what they mean in words. The same for terminal, JSON and HTML.

use std::collections::BTreeMap;

use jointly_eval::significance::{CompareOptions, Comparison, Verdict, compare, compare_all};
use jointly_eval::{JudgeOptions, JudgedRun, Metric, PerQuery};
use serde::Serialize;

use super::collection::{Collection, Search};
use super::ranker::{Description, Kind, Method, Model, OfModels, Ranked, Ranker, first_scores, reranked};
use super::stages::StageSums;
use crate::error::Result;

/// Bins of the reliability diagram, each with as many pairs as the others.
const BINS: usize = 10;

/// Everything.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Of the program.
    pub version: &'static str,
    pub baseline: String,
    pub metrics: Vec<String>,
    pub options: CompareOptions,
    pub threads: usize,
    pub rankers: Vec<RankerEntry>,
    pub collections: Vec<CollectionReport>,
}

#[derive(Debug, Serialize)]
pub struct RankerEntry {
    pub name: String,
    /// What is behind it; more than one for a cascade.
    pub models: Vec<Description>,
}

#[derive(Debug, Serialize)]
pub struct CollectionReport {
    pub name: String,
    pub path: String,
    pub candidates: String,
    pub depth: usize,
    pub queries: usize,
    pub pairs: usize,
    pub relevant_from: i8,
    /// Judged queries without candidates: each counts as 0.
    pub queries_without_candidates: usize,
    /// They count nowhere.
    pub queries_without_judgements: usize,
    /// Judged queries without a relevant document: each counts as 0.
    pub queries_without_relevant: usize,
    /// Where there are judgements by subtopic, the judged queries without them: they count in no metric of subtopics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queries_without_subtopics: Option<usize>,
    pub pairs_computed: usize,
    pub pairs_from_cache: usize,
    pub results: Vec<ResultRow>,
    pub depth_curves: Vec<DepthCurve>,
    pub reliability: Vec<Reliability>,
}

/// One ranker on one collection.
#[derive(Debug, Serialize)]
pub struct ResultRow {
    pub ranker: String,
    pub ms_per_query: Option<f64>,
    /// Of a cascade from a file: what its stages did, over all queries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<StageSums>,
    pub metrics: Vec<MetricRow>,
}

#[derive(Debug, Serialize)]
pub struct MetricRow {
    pub metric: String,
    pub mean: f64,
    /// How much of it is the accident of document ids: the mean over all orders of tied documents.
    pub mean_over_ties: Option<f64>,
    /// None for the baseline, and for a single query.
    pub comparison: Option<Compared>,
    pub per_query: BTreeMap<String, f64>,
}

#[derive(Debug, Serialize)]
pub struct Compared {
    #[serde(flatten)]
    pub numbers: Comparison,
    /// `better`, `worse`, `equivalent` or `too_few_queries`.
    pub verdict: &'static str,
    /// With `too_few_queries`: about how many would settle it, if that can be said.
    pub queries_needed: Option<usize>,
    pub shows_no_loss: bool,
    /// The verdict for people.
    pub says: String,
}

/// What becomes of the first metric when only the best of the first stage are reranked.
#[derive(Debug, Serialize)]
pub struct DepthCurve {
    pub ranker: String,
    pub metric: String,
    pub points: Vec<DepthPoint>,
    pub finding: Finding,
    /// The finding for people.
    pub says: String,
}

#[derive(Debug, Serialize)]
pub struct DepthPoint {
    /// 0 is the first stage.
    pub depth: usize,
    pub mean: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// Fewer than all candidates give less than nine tenths of the gain: more of them might give more.
    StillRises,
    /// More depth gains little, and loses nothing that can be told from luck.
    Saturates,
    /// There is a depth beyond which the order gets worse, by more than luck.
    RisesThenFalls,
    /// The whole depth is below the first stage.
    EndsBelowFirstStage,
    /// No depth is above the first stage.
    NeverHelps,
}

/// What a model's probability means on one collection. Only judged pairs count.
#[derive(Debug, Serialize)]
pub struct Reliability {
    pub ranker: String,
    pub pairs: usize,
    pub relevant: usize,
    /// The mean distance of probability and share of relevant documents over bins of equal mass.
    pub ece: f64,
    pub brier: f64,
    pub bins: Vec<Bin>,
}

#[derive(Debug, Serialize)]
pub struct Bin {
    pub pairs: usize,
    pub probability: f64,
    pub relevant: f64,
    /// Wilson's interval of `relevant`, 95 %.
    pub low: f64,
    pub high: f64,
}

/// How rankers are judged and compared.
pub struct Judge<'a> {
    pub rankers: &'a [Ranker],
    pub baseline: usize,
    pub metrics: &'a [Metric],
    pub depths: &'a [usize],
    pub options: CompareOptions,
}

impl Judge<'_> {
    pub fn collection(
        &self,
        collection: &Collection,
        models: &OfModels,
        search: &Search<'_>,
    ) -> Result<CollectionReport> {
        let options = JudgeOptions::new().level(collection.level);
        let ranked: Vec<Ranked> = self
            .rankers
            .iter()
            .map(|ranker| ranker.method.rank(collection, models, search))
            .collect::<Result<_>>()?;
        let judged: Vec<JudgedRun> = ranked
            .iter()
            .map(|ranked| Ok(JudgedRun::new(&collection.qrels, &collection.run(&ranked.scores)?, options)?))
            .collect::<Result<_>>()?;
        let mut results: Vec<ResultRow> = self
            .rankers
            .iter()
            .zip(&ranked)
            .map(|(ranker, ranked)| ResultRow {
                ranker: ranker.name.clone(),
                ms_per_query: ranked.ms,
                stages: stages(&ranker.method, models),
                metrics: Vec::new(),
            })
            .collect();
        for &metric in self.metrics {
            let values: Vec<PerQuery> =
                judged.iter().map(|judged| judged.evaluate(metric)).collect::<jointly_eval::Result<_>>()?;
            let others: Vec<&PerQuery> = values
                .iter()
                .enumerate()
                .filter(|(place, _)| *place != self.baseline)
                .map(|(_, values)| values)
                .collect();
            let compared = match values[self.baseline].0.len() {
                0 | 1 => Vec::new(),
                _ => compare_all(&values[self.baseline], &others, self.options)?,
            };
            let mut compared = compared.into_iter();
            for (place, (row, values)) in results.iter_mut().zip(&values).enumerate() {
                let comparison = if place == self.baseline { None } else { compared.next() };
                row.metrics.push(MetricRow {
                    metric: metric.to_string(),
                    mean: values.mean(),
                    mean_over_ties: judged[place].ties(metric).ok().map(|ties| ties.expected.mean()),
                    comparison: comparison.map(Compared::new),
                    per_query: values.0.clone(),
                });
            }
        }
        let crosses = || {
            self.rankers.iter().zip(&ranked).filter(|(ranker, _)| matches!(ranker.method, Method::Cross(_)))
        };
        let depth_curves = crosses()
            .map(|(ranker, ranked)| self.depth_curve(&ranker.name, collection, ranked))
            .collect::<Result<_>>()?;
        let reliability = crosses().filter_map(|(ranker, _)| {
            let Method::Cross(model) = &ranker.method else { return None };
            reliability(&ranker.name, collection, models.get(&(model.clone(), Kind::Cross))?)
        });
        Ok(CollectionReport {
            name: collection.name.clone(),
            path: collection.path.display().to_string(),
            candidates: collection.origin.clone(),
            depth: collection.queries.iter().map(|query| query.candidates.len()).max().unwrap_or(0),
            queries: collection.qrels.len(),
            pairs: collection.pairs(),
            relevant_from: collection.level,
            queries_without_candidates: collection.missing,
            queries_without_judgements: collection.unjudged,
            queries_without_relevant: judged.first().map_or(0, |judged| judged.without_relevant().len()),
            queries_without_subtopics: collection.without_subtopics(),
            pairs_computed: models.values().map(|scores| scores.computed).sum(),
            pairs_from_cache: models.values().map(|scores| scores.cached).sum(),
            reliability: reliability.collect(),
            results,
            depth_curves,
        })
    }

    fn depth_curve(&self, name: &str, collection: &Collection, ranked: &Ranked) -> Result<DepthCurve> {
        let metric = self.metrics[0];
        let first = first_scores(collection);
        let whole = collection.queries.iter().map(|query| query.candidates.len()).max().unwrap_or(0);
        let mut depths: Vec<usize> = self.depths.iter().copied().filter(|depth| *depth < whole).collect();
        depths.extend([0, whole]);
        depths.sort_unstable();
        depths.dedup();
        let mut values = Vec::with_capacity(depths.len());
        for depth in &depths {
            let scores = reranked(collection, &first, &ranked.scores, *depth)?;
            let options = JudgeOptions::new().level(collection.level);
            let judged = JudgedRun::new(&collection.qrels, &collection.run(&scores)?, options)?;
            values.push(judged.evaluate(metric)?);
        }
        let means: Vec<f64> = values.iter().map(PerQuery::mean).collect();
        let best = means.iter().enumerate().skip(1).fold(
            0,
            |best, (place, mean)| {
                if *mean > means[best] { place } else { best }
            },
        );
        let last = means.len() - 1;
        let falls = best < last && values[0].0.len() > 1 && {
            let verdict = compare(&values[best], &values[last], self.options)?.verdict();
            matches!(verdict, Verdict::Worse { .. })
        };
        let (finding, says) = if best == 0 {
            (Finding::NeverHelps, format!("no depth is above the first stage ({:.4})", means[0]))
        } else {
            // The smallest depth with nine tenths of the largest gain: what saves most at little loss.
            let enough = means[0] + 0.9 * (means[best] - means[0]);
            let place = means.iter().position(|mean| *mean >= enough).unwrap_or(best);
            let enough = format!(
                "{} candidates give nine tenths of the largest gain ({:.4})",
                depths[place], means[place]
            );
            if means[last] < means[0] {
                let says = format!(
                    "highest at {} candidates ({:.4}); all {whole} end below the first stage; {enough}",
                    depths[best], means[best]
                );
                (Finding::EndsBelowFirstStage, says)
            } else if falls {
                let lost = means[best] - means[last];
                let says =
                    format!("rises, then falls: all {whole} lose {lost:.4} to {}; {enough}", depths[best]);
                (Finding::RisesThenFalls, says)
            } else if place == last {
                (Finding::StillRises, format!("still rises at all {whole} candidates ({:.4})", means[last]))
            } else {
                (Finding::Saturates, format!("saturates: {enough}; all {whole} give {:.4}", means[last]))
            }
        };
        let points = depths.iter().zip(&means).map(|(&depth, &mean)| DepthPoint { depth, mean }).collect();
        Ok(DepthCurve { ranker: name.into(), metric: metric.to_string(), points, finding, says })
    }
}

/// What the stages of its files did.
fn stages(method: &Method, models: &OfModels) -> Vec<StageSums> {
    let of_file = |(model, kind): (&Model, Kind)| models.get(&(model.clone(), kind));
    method.models().into_iter().filter_map(of_file).flat_map(|scores| scores.stages.clone()).collect()
}

impl Compared {
    fn new(numbers: Comparison) -> Self {
        let verdict = numbers.verdict();
        let (name, queries_needed) = match verdict {
            Verdict::Better { .. } => ("better", None),
            Verdict::Worse { .. } => ("worse", None),
            Verdict::Equivalent { .. } => ("equivalent", None),
            Verdict::TooFewQueries { needed, .. } => ("too_few_queries", needed),
        };
        let (shows_no_loss, says) = (numbers.shows_no_loss(), verdict.to_string());
        Self { numbers, verdict: name, queries_needed, shows_no_loss, says }
    }
}

fn reliability(name: &str, collection: &Collection, scores: &super::ranker::Scores) -> Option<Reliability> {
    let mut pairs: Vec<(f64, bool)> = Vec::new();
    for (query, scores) in collection.queries.iter().zip(&scores.of) {
        let labels = collection.qrels.get(&query.id)?;
        for (candidate, scored) in query.candidates.iter().zip(scores) {
            // A label below 0 is "not judged".
            if let Some(label) = labels.get(&candidate.id).filter(|label| **label >= 0) {
                pairs.push((f64::from(scored.probability?), *label >= collection.level));
            }
        }
    }
    if pairs.len() < BINS {
        return None;
    }
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let count = pairs.len();
    let bins: Vec<Bin> =
        (0..BINS).map(|bin| Bin::of(&pairs[bin * count / BINS..(bin + 1) * count / BINS])).collect();
    let ece = bins.iter().map(|bin| bin.pairs as f64 * (bin.probability - bin.relevant).abs()).sum::<f64>();
    let square = |(p, relevant): &(f64, bool)| (p - f64::from(u8::from(*relevant))).powi(2);
    Some(Reliability {
        ranker: name.into(),
        pairs: count,
        relevant: pairs.iter().filter(|(_, relevant)| *relevant).count(),
        ece: ece / count as f64,
        brier: pairs.iter().map(square).sum::<f64>() / count as f64,
        bins,
    })
}

impl Bin {
    fn of(pairs: &[(f64, bool)]) -> Self {
        const Z: f64 = 1.96;
        let n = pairs.len() as f64;
        let relevant = pairs.iter().filter(|(_, relevant)| *relevant).count() as f64 / n;
        let middle = (relevant + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
        let half = Z / (1.0 + Z * Z / n) * (relevant * (1.0 - relevant) / n + Z * Z / (4.0 * n * n)).sqrt();
        Self {
            pairs: pairs.len(),
            probability: pairs.iter().map(|(probability, _)| probability).sum::<f64>() / n,
            relevant,
            low: (middle - half).max(0.0),
            high: (middle + half).min(1.0),
        }
    }
}
