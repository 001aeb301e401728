use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use jointly_eval::PerQuery;
use jointly_eval::significance::{CompareOptions, Comparison, Interaction, compare_all, holm, interaction};
use jointly_eval::slices::{CONTROL, Items, PUBLIC, Slice, challenge, public};
use serde::Serialize;

use super::eval::{AtWork, Collection, OfModels, Ranker, Search, p_value};
use crate::Global;
use crate::cache::default_folder;
use crate::error::{CliError, Result};
use crate::model;
use crate::output::{Output, printable, say, write_file};

/// Say where a ranker is strong: hard negatives, long documents, polysemy, negation, numbers
#[derive(Args)]
#[command(after_help = "\
CHALLENGE is the folder of our challenge set, `challenge/` of the repository: five slices and an easy control, in items of two
queries and two documents, of which each query wants its own. Paired accuracy: the share of items with both in the right order;
a coin has .25. NAME=FOLDER is a public set in a folder in which it lies as published; sets of judged pools have NDCG@10.

RANKER is one of those of `jointly eval` (bi:MODEL, cross:MODEL, bm25, ...), and reads the beginning of long texts.

`edge` is the difference to the baseline with its 95 % bootstrap interval and p of the randomisation test, corrected by Holm for
all lines of the table. `beyond the control` is the edge less the edge on the easy control: only if that is above 0 does
the ranker win *here*, and not everywhere. Its p is that of a permutation test, corrected likewise.

Scores are kept in the cache folder, which is that of `jointly eval`.")]
pub struct Slices {
    /// The folder of the challenge set
    #[arg(value_name = "CHALLENGE")]
    challenge: Option<PathBuf>,
    /// A public set, and the folder that it lies in; may be given often
    #[arg(long, value_name = "NAME=FOLDER")]
    public: Vec<PublicSource>,
    /// What to compare; may be given often [default: bm25 and cross:default]
    #[arg(long = "ranker", short, value_name = "RANKER")]
    rankers: Vec<Ranker>,
    /// Items of each public set, at most
    #[arg(long, value_name = "N")]
    sample: Option<usize>,
    /// Longest text or pair in tokens [default: each model's own maximum]
    #[arg(long, value_name = "N")]
    max_length: Option<usize>,
    /// The folder for scores [default: jointly/eval in the user's cache folder]
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,
    /// Write all numbers here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Replace this file if it exists
    #[arg(long)]
    force: bool,
}

/// A public set and its folder.
#[derive(Debug, Clone)]
struct PublicSource {
    name: String,
    folder: PathBuf,
}

impl FromStr for PublicSource {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let known: Vec<&str> = PUBLIC.iter().map(|set| set.name).collect();
        match text.split_once('=') {
            Some((name, folder)) if known.contains(&name) && !folder.is_empty() => {
                Ok(Self { name: name.into(), folder: folder.into() })
            }
            _ => Err(format!("NAME=FOLDER is expected, NAME one of {}", known.join(", "))),
        }
    }
}

/// What one slice gave.
#[derive(Serialize)]
struct SliceReport {
    name: String,
    /// The slice of the challenge set that it belongs to.
    slice: String,
    items: usize,
    metric: &'static str,
    rankers: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    ranker: String,
    mean: f64,
    per_item: PerQuery,
    /// None for the baseline, and for a slice of a single item.
    comparison: Option<Comparison>,
    /// None for the baseline, the control, and sets that are not measured as it is.
    beyond_the_control: Option<BeyondTheControl>,
}

#[derive(Serialize)]
struct BeyondTheControl {
    #[serde(flatten)]
    numbers: Interaction,
    holm: f64,
}

#[derive(Serialize)]
struct Report {
    version: &'static str,
    baseline: String,
    options: CompareOptions,
    slices: Vec<SliceReport>,
}

impl Slices {
    pub fn run(self, global: Global) -> Result<()> {
        if let Some(path) = self.json.as_ref().filter(|path| path.exists() && !self.force) {
            return Err(CliError::Input(format!("{} exists; --force replaces it", path.display())));
        }
        let slices = self.read()?;
        let mut rankers = self.rankers.clone();
        if rankers.is_empty() {
            let parse = |text: &str| text.parse::<Ranker>().map_err(CliError::Input);
            rankers = vec![parse("bm25")?, parse("cross:default")?];
        }
        let folder = match &self.cache {
            Some(folder) => folder.clone(),
            None => default_folder()?,
        };
        fs::create_dir_all(&folder).map_err(|error| CliError::file(&folder, &error))?;
        let search = Search { depth: usize::MAX, cache: &folder, threads: model::threads(global) };
        let collections: Vec<Collection> =
            slices.iter().map(|(slice, ..)| Collection::of_groups(&slice.name, slice.groups())).collect();
        let models = self.score(&rankers, &collections, &search, global)?;
        let report = judge(&rankers, &slices, &collections, &models, &search)?;
        table(&report)?;
        if let Some(path) = &self.json {
            let mut text =
                serde_json::to_string_pretty(&report).map_err(|e| CliError::Failed(e.to_string()))?;
            text.push('\n');
            write_file(path, &text)?;
        }
        Ok(())
    }

    /// The slices, each with the one of the challenge set that it belongs to.
    fn read(&self) -> Result<Vec<(Slice, String)>> {
        let mut slices: Vec<(Slice, String)> = Vec::new();
        if let Some(folder) = &self.challenge {
            slices.extend(challenge(folder)?.into_iter().map(|slice| {
                let name = slice.name.clone();
                (slice, name)
            }));
        }
        for PublicSource { name, folder } in &self.public {
            let mut slice = public(name, folder)?;
            if let Some(count) = self.sample {
                match &mut slice.items {
                    Items::Contrasts(items) => thin(items, count),
                    Items::Pools(items) => thin(items, count),
                }
            }
            let belongs = PUBLIC.iter().find(|set| set.name == name).map_or("", |set| set.slice);
            slices.push((slice, belongs.to_string()));
        }
        if slices.is_empty() {
            return Err(CliError::Input(
                "nothing to measure: CHALLENGE or --public NAME=FOLDER is missing".into(),
            ));
        }
        Ok(slices)
    }

    /// Every model over every slice, one model after the other.
    fn score(
        &self,
        rankers: &[Ranker],
        collections: &[Collection],
        search: &Search<'_>,
        global: Global,
    ) -> Result<Vec<OfModels>> {
        let mut all: Vec<OfModels> = collections.iter().map(|_| HashMap::new()).collect();
        for (named, kind) in rankers.iter().flat_map(|ranker| ranker.method.models()) {
            let key = (named.clone(), kind);
            if all.iter().all(|models| models.contains_key(&key)) {
                continue;
            }
            let mut at_work = AtWork::load((named, kind), search.cache, self.max_length, global)?;
            let pairs = collections.iter().map(|collection| collection.pairs() as u64).sum();
            let bar = model::bar(Some(pairs), "{msg} [{bar:30}] {pos}/{len} pairs, {eta} left", global);
            for (collection, models) in collections.iter().zip(&mut all) {
                bar.set_message(format!("{} on {}", named.name, collection.name));
                models.insert(key.clone(), at_work.score(collection, &bar)?);
            }
            drop(bar);
            let length = at_work.description().max_length;
            if !global.quiet && length < 2048 {
                let name = &named.name;
                say(format_args!("{name} reads the first {length} tokens of a text or pair"));
            }
        }
        Ok(all)
    }
}

/// `count` items, evenly from first to last.
fn thin<T>(items: &mut Vec<T>, count: usize) {
    let all = items.len();
    if count < all {
        let mut place = 0;
        items.retain(|_| {
            let keep = (place + 1) * count / all > place * count / all;
            place += 1;
            keep
        });
    }
}

fn judge(
    rankers: &[Ranker],
    slices: &[(Slice, String)],
    collections: &[Collection],
    models: &[OfModels],
    search: &Search<'_>,
) -> Result<Report> {
    let options = CompareOptions::new();
    let mut measured: Vec<Vec<PerQuery>> = Vec::new();
    for (((slice, _), collection), models) in slices.iter().zip(collections).zip(models) {
        let of_ranker = |ranker: &Ranker| -> Result<PerQuery> {
            let ranked = ranker.method.rank(collection, models, search)?;
            Ok(slice.measure(&collection.run(&ranked.scores)?)?)
        };
        measured.push(rankers.iter().map(of_ranker).collect::<Result<_>>()?);
    }
    let control = slices.iter().position(|(slice, _)| slice.name == CONTROL);
    let mut reports = Vec::new();
    for (place, ((slice, belongs), values)) in slices.iter().zip(&measured).enumerate() {
        let (baseline, others) = values.split_first().ok_or_else(|| CliError::Failed("no ranker".into()))?;
        let mut compared = match slice.len() {
            0 | 1 => Vec::new(),
            _ => compare_all(baseline, &others.iter().collect::<Vec<_>>(), options)?,
        }
        .into_iter();
        let mut rows = Vec::new();
        for (number, (ranker, values)) in rankers.iter().zip(values).enumerate() {
            let beyond = match control {
                Some(control)
                    if number > 0 && control != place && matches!(slice.items, Items::Contrasts(_)) =>
                {
                    let easy = &measured[control];
                    let numbers = interaction((baseline, values), (&easy[0], &easy[number]), options)?;
                    Some(BeyondTheControl { holm: numbers.p, numbers })
                }
                _ => None,
            };
            rows.push(Row {
                ranker: ranker.name.clone(),
                mean: values.mean(),
                per_item: values.clone(),
                comparison: if number == 0 { None } else { compared.next() },
                beyond_the_control: beyond,
            });
        }
        reports.push(SliceReport {
            name: slice.name.clone(),
            slice: belongs.clone(),
            items: slice.len(),
            metric: slice.metric(),
            rankers: rows,
        });
    }
    correct(&mut reports);
    let baseline = rankers.first().map(|ranker| ranker.name.clone()).unwrap_or_default();
    Ok(Report { version: env!("CARGO_PKG_VERSION"), baseline, options, slices: reports })
}

/// Holm's correction over all lines, for the edges and for what lies beyond the control.
fn correct(reports: &mut [SliceReport]) {
    fn rows(reports: &mut [SliceReport]) -> impl Iterator<Item = &mut Row> {
        reports.iter_mut().flat_map(|report| &mut report.rankers)
    }
    let edges: Vec<f64> =
        rows(reports).filter_map(|row| Some(row.comparison.as_ref()?.different.p)).collect();
    let mut edges = holm(&edges).into_iter();
    let beyond: Vec<f64> =
        rows(reports).filter_map(|row| Some(row.beyond_the_control.as_ref()?.numbers.p)).collect();
    let mut beyond = holm(&beyond).into_iter();
    for row in rows(reports) {
        if let Some(comparison) = &mut row.comparison {
            comparison.different.holm = edges.next().unwrap_or(1.0);
        }
        if let Some(interaction) = &mut row.beyond_the_control {
            interaction.holm = beyond.next().unwrap_or(1.0);
        }
    }
}

fn table(report: &Report) -> Result<()> {
    let mut output = Output::new();
    let names = report.slices.iter().flat_map(|slice| &slice.rankers).map(|row| &row.ranker);
    let width = names.map(|name| console::measure_text_width(name)).max().unwrap_or(0);
    for slice in &report.slices {
        let belongs = if slice.slice == slice.name { String::new() } else { format!(" ({})", slice.slice) };
        output.line(format_args!(
            "{}{belongs}: {} items, {}",
            printable(&slice.name),
            slice.items,
            slice.metric
        ))?;
        for row in &slice.rankers {
            let pad = " ".repeat(width - console::measure_text_width(&row.ranker));
            let edge = match &row.comparison {
                None => "baseline".to_string(),
                Some(c) => format!(
                    "edge {:+.3} [{:+.3}, {:+.3}]  p {}",
                    c.difference,
                    c.interval.low,
                    c.interval.high,
                    p_value(c.different.holm)
                ),
            };
            let beyond = row.beyond_the_control.as_ref().map_or(String::new(), |b| {
                let Interaction { difference, interval, .. } = b.numbers;
                format!(
                    "; beyond the control {difference:+.3} [{:+.3}, {:+.3}]  p {}",
                    interval.low,
                    interval.high,
                    p_value(b.holm)
                )
            });
            output.line(format_args!(
                "  {}{pad}  {:.3}  {edge}{beyond}",
                printable(&row.ranker),
                row.mean
            ))?;
        }
    }
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_so_many_from_first_to_last() {
        for (all, count) in [(10, 3), (7, 7), (5, 9), (100, 1), (341, 60)] {
            let mut items: Vec<usize> = (0..all).collect();
            thin(&mut items, count);
            assert_eq!(items.len(), count.min(all));
            assert!(count >= all || items.last() == Some(&(all - 1)));
        }
    }

    #[test]
    fn a_public_set_has_a_known_name_and_a_folder() {
        assert_eq!("tatqa=a=b".parse::<PublicSource>().unwrap().folder, PathBuf::from("a=b"));
        for wrong in ["tatqa", "tatqa=", "other=folder"] {
            assert!(wrong.parse::<PublicSource>().is_err(), "{wrong}");
        }
    }
}
