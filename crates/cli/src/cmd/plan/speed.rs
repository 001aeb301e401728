//! What a scorer costs on this machine: measured on a few queries, and computed for all pairs from their lengths.

use std::time::Instant;

use jointly::{Pair, Role, ScoreOptions};
use jointly_kernels::Kernels;

use super::Named;
use crate::cmd::bench::{Shape, peak, reads};
use crate::cmd::eval::{Collection, Description, Kind, Loaded};
use crate::error::{CliError, Result};

/// How often each query is timed; the fastest counts, for what else the machine did.
const ROUNDS: usize = 3;

/// How times are measured.
pub struct Timing {
    pub queries: usize,
    pub threads: usize,
}

/// A scorer that a cascade may have.
pub struct Part {
    pub name: String,
    pub named: Named,
    pub description: Description,
    /// For each collection, for each of its queries, what its candidates cost.
    pub work: Vec<Vec<QueryWork>>,
    /// Milliseconds of one unit of work.
    ms_per_unit: f64,
    /// Whether units are operations, and not tokens.
    pub is_in_flops: bool,
    /// Pairs that were timed.
    pub timed_pairs: usize,
    /// The share of this machine's peak that it reaches.
    pub share_of_peak: Option<f64>,
    /// The peak, in operations a second.
    pub peak: Option<f64>,
}

/// What one query costs a scorer, for each of its candidates in the order of the first stage.
pub struct QueryWork {
    /// Of each pair; of a bi-encoder, that of the query alone, whatever is read.
    pub tokens: Vec<u32>,
    /// Operations of each pair, where the architecture's are known.
    pub flops: Vec<f64>,
    /// Whether the first entry is all that there is.
    pub is_fixed: bool,
}

/// Of some pairs together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    pub pairs: f64,
    pub tokens: f64,
    pub flops: f64,
    pub ms: f64,
}

impl Cost {
    pub fn add(&mut self, other: Self) {
        self.pairs += other.pairs;
        self.tokens += other.tokens;
        self.flops += other.flops;
        self.ms += other.ms;
    }

    pub fn scaled(self, factor: f64) -> Self {
        let Self { pairs, tokens, flops, ms } = self;
        Self { pairs: pairs * factor, tokens: tokens * factor, flops: flops * factor, ms: ms * factor }
    }
}

impl Part {
    pub fn measure(
        (name, named): (&str, &Named),
        loaded: &Loaded,
        (collections, timing): (&[Collection], &Timing),
        description: Description,
    ) -> Result<Self> {
        let shape = match loaded {
            Loaded::Cross(model) => Shape::read(model.files())?,
            Loaded::Bi(model, _) => Shape::read(model.files())?,
        };
        let read = match loaded {
            Loaded::Cross(model) => reads(&model.info().head),
            Loaded::Bi(model, _) => reads(&model.info().head),
        };
        let precision = match loaded {
            Loaded::Cross(model) => model.info().precision,
            Loaded::Bi(model, _) => model.info().precision,
        };
        let flops = |tokens: u32| shape.as_ref().map(|shape| shape.pair(tokens as usize, read));
        let mut work = Vec::with_capacity(collections.len());
        for collection in collections {
            let of_query = |query| -> Result<QueryWork> {
                let (tokens, is_fixed) = lengths(loaded, collection, query)?;
                let flops =
                    tokens.iter().map(|&tokens| flops(tokens).map_or(0.0, |flops| flops.total())).collect();
                Ok(QueryWork { tokens, flops, is_fixed })
            };
            work.push((0..collection.queries.len()).map(of_query).collect::<Result<Vec<_>>>()?);
        }
        // Queries that lie evenly in all collections.
        let all: Vec<(usize, usize)> = collections
            .iter()
            .enumerate()
            .flat_map(|(place, collection)| (0..collection.queries.len()).map(move |query| (place, query)))
            .collect();
        let count = timing.queries.min(all.len()).max(1);
        let chosen: Vec<(usize, usize)> = (0..count).map(|i| all[i * all.len() / count]).collect();
        let mut part = Self {
            name: name.to_owned(),
            named: named.clone(),
            description,
            work,
            ms_per_unit: 0.0,
            is_in_flops: shape.is_some(),
            timed_pairs: 0,
            share_of_peak: None,
            peak: None,
        };
        let (mut ms, mut units, mut floor, mut peaks) = (0.0, 0.0, 0.0, Vec::new());
        let kernels = Kernels::select().map_err(jointly::Error::from)?;
        for &(place, query) in &chosen {
            let mut fastest = f64::INFINITY;
            for _ in 0..ROUNDS {
                fastest = fastest.min(once(loaded, &collections[place], query)?);
            }
            ms += fastest;
            let work = &part.work[place][query];
            units += part.units(work, work.tokens.len());
            part.timed_pairs += work.tokens.len();
            if let Some(peak) = peak(kernels, precision, timing.threads) {
                for flops in work.tokens.iter().filter_map(|&tokens| flops(tokens)) {
                    floor += 1e3 * (flops.weights / peak.weights + flops.attention / peak.attention);
                }
                peaks.push(peak.weights);
            }
        }
        if !(units > 0.0 && ms > 0.0) {
            return Err(CliError::Failed(format!("{name}: nothing to time")));
        }
        part.ms_per_unit = ms / units;
        if floor > 0.0 {
            peaks.sort_by(f64::total_cmp);
            part.peak = peaks.get(peaks.len() / 2).copied();
            part.share_of_peak = Some(floor / ms);
        }
        Ok(part)
    }

    fn units(&self, work: &QueryWork, read: usize) -> f64 {
        let read = if work.is_fixed { read.min(1) } else { read };
        match self.is_in_flops {
            true => work.flops.iter().take(read).sum(),
            false => work.tokens.iter().take(read).map(|tokens| f64::from(*tokens)).sum(),
        }
    }

    /// What it costs to read these candidates of a query, by their places in the order of the first stage.
    pub fn cost(&self, (collection, query): (usize, usize), places: &[usize]) -> Cost {
        let work = &self.work[collection][query];
        let mut cost = Cost { pairs: places.len() as f64, ..Cost::default() };
        for place in places.iter().map(|&place| if work.is_fixed { 0 } else { place }) {
            cost.tokens += f64::from(work.tokens[place]);
            cost.flops += work.flops[place];
            if work.is_fixed {
                break;
            }
        }
        cost.ms = self.ms_per_unit * if self.is_in_flops { cost.flops } else { cost.tokens };
        cost
    }

    /// Milliseconds of a query whose candidates are all read, in the mean.
    pub fn ms_of_all(&self) -> f64 {
        let of_query = |work: &QueryWork| self.ms_per_unit * self.units(work, work.tokens.len());
        let queries = self.work.iter().map(Vec::len).sum::<usize>().max(1);
        self.work.iter().flatten().map(of_query).sum::<f64>() / queries as f64
    }

    /// Tokens of a pair, in the mean.
    pub fn tokens_per_pair(&self) -> f64 {
        let count = self.work.iter().flatten().map(|work| work.tokens.len()).sum::<usize>().max(1);
        let tokens: f64 =
            self.work.iter().flatten().flat_map(|work| &work.tokens).map(|t| f64::from(*t)).sum();
        tokens / count as f64
    }

    pub fn is_bi(&self) -> bool {
        self.named.1 == Kind::Bi
    }
}

/// The tokens of each pair, or of the query alone.
fn lengths(loaded: &Loaded, collection: &Collection, query: usize) -> Result<(Vec<u32>, bool)> {
    let query = &collection.queries[query];
    match loaded {
        Loaded::Cross(model) => {
            let pairs: Vec<Pair<'_>> = query
                .candidates
                .iter()
                .map(|candidate| Pair { query: &query.text, document: &collection.texts[candidate.text] })
                .collect();
            let encoded = model.encode_pairs(&pairs, &ScoreOptions::new())?;
            let tokens = |windows: &Vec<jointly::text::EncodedWindow>| {
                windows.iter().map(|window| window.pair.input_ids.len() as u32).sum()
            };
            Ok((encoded.iter().map(tokens).collect(), false))
        }
        Loaded::Bi(model, _) => {
            let encoded = model.encode(&query.text, Role::Query)?;
            Ok((vec![encoded.input_ids.len() as u32], true))
        }
    }
}

/// Milliseconds of one query.
fn once(loaded: &Loaded, collection: &Collection, query: usize) -> Result<f64> {
    let query = &collection.queries[query];
    let pairs: Vec<Pair<'_>> = query
        .candidates
        .iter()
        .map(|candidate| Pair { query: &query.text, document: &collection.texts[candidate.text] })
        .collect();
    let started = Instant::now();
    match loaded {
        Loaded::Cross(model) => drop(model.score_pairs(&pairs)?),
        Loaded::Bi(model, _) => drop(model.embed(&[query.text.as_str()], Role::Query)?),
    }
    Ok(started.elapsed().as_secs_f64() * 1e3)
}
