use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use console::{Style, Term};
use jointly::rank::{
    Budget, Cascade, Distinct, Embedded, Mmr, Outcome, Placed, Request, Rescore, Shingles, Similarity, Stage,
    SubQuery,
};
use jointly::{BiEncoder, LoadOptions, ScoreScale};
use jointly_retrieve::{BuildOptions, Document, Hit, Index};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::Global;
use crate::cascade::{self, Meaning, StageRow};
use crate::collection;
use crate::error::{CliError, Result};
use crate::model::{self, LongArguments, LongMode, ModelArguments};
use crate::output::{Output, printable, say, write_file};

/// Characters of a document that are shown.
const SHOWN: usize = 240;

/// Search a folder of texts, or a collection: words, vectors, reranking and diversity in one command
#[derive(Args)]
#[command(after_help = "\
COLLECTION is what `jointly index` takes: a folder of texts (.md, .txt, .rst and the like), a BEIR folder, JSON lines or
TSV. The first search makes an index in jointly/search in the user's cache folder; it is made again when a text or the
bi-encoder has changed. With --index it is that one, as `jointly index` made it.
The road: the best --candidates by words, and with vectors (--dense) by those too, put together by reciprocal rank
fusion; the model (or the stages of --cascade) reads each of them with the query, long ones in windows unless --long says
otherwise, and the best part is shown; near copies go down; with --diversity, each next document is also unlike those
above it.")]
pub struct Search {
    /// What is searched
    #[arg(value_name = "COLLECTION")]
    collection: PathBuf,
    /// What is asked
    #[arg(value_name = "QUERY")]
    query: String,
    /// How many of the best to print
    #[arg(long, short = 'n', value_name = "N", default_value_t = 10)]
    top_n: usize,
    /// How many documents the model reads
    #[arg(long, value_name = "N", default_value_t = 50)]
    candidates: usize,
    /// Look by vectors too, with this bi-encoder: a folder of sentence-transformers, a bundle of one, or a hub id
    #[arg(long, value_name = "MODEL")]
    dense: Option<String>,
    /// Search this index instead of one in the cache folder
    #[arg(long, value_name = "INDEX")]
    index: Option<PathBuf>,
    /// Weigh relevance (1) against being unlike what is above (0); 0.7 is usual [default: relevance alone]
    #[arg(long, value_name = "LAMBDA")]
    diversity: Option<f64>,
    /// Leave near copies where they are
    #[arg(long)]
    keep_copies: bool,
    /// Give the best that is known after so many milliseconds, from when everything is loaded
    #[arg(long, value_name = "MS")]
    deadline: Option<u64>,
    /// Run the stages and the budget of this file instead of one model
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "max_length", "precision", "calibration", "no_receipt_check"])]
    cascade: Option<PathBuf>,
    /// One of the things that the query may have meant, for xquad; may be given often [WEIGHT default: 1]
    #[arg(long = "sub-query", value_name = "TEXT[=WEIGHT]", requires = "cascade")]
    sub_queries: Vec<Meaning>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    long: LongArguments,
    #[command(flatten)]
    model: ModelArguments,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

/// What is printed as JSON; the names are part of the interface.
#[derive(Serialize)]
struct Printed<'a> {
    query: &'a str,
    documents: usize,
    candidates: usize,
    first_stage_ms: f64,
    ms: f64,
    stages: Vec<StageRow>,
    stop: Option<&'static str>,
    results: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    rank: usize,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    probability: Option<f32>,
    first_stage: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    span: Option<[usize; 2]>,
    /// The part that is shown.
    text: String,
}

impl Search {
    pub fn run(self, global: Global) -> Result<()> {
        if self.query.trim().is_empty() {
            return Err(jointly::Error::EmptyQuery.into());
        }
        let documents = collection::documents(&self.collection)?;
        let (path, index) = self.index(&documents, global)?;
        let dense = match index.dense_info() {
            Some(_) => Some(model::of_index((&path, &index), self.dense.as_deref(), global)?),
            None if self.dense.is_some() => {
                return Err(jointly_retrieve::Error::NoVectors { path }.into());
            }
            None => None,
        };
        let cascade = self.stages(dense.as_ref(), global)?;

        let started = Instant::now();
        let parameters = index.bm25_parameters();
        let found = match &dense {
            Some(model) => index.hybrid(&[&self.query], parameters, model, self.candidates),
            None => index.bm25(&[&self.query], parameters, self.candidates, model::threads(global)),
        }?;
        let found = found.into_iter().next().unwrap_or_default();
        let first_stage_ms = started.elapsed().as_secs_f64() * 1e3;

        let places: HashMap<&str, usize> =
            documents.iter().zip(0..).map(|(document, place)| (document.id.as_str(), place)).collect();
        let candidates: Vec<&Document> = found
            .iter()
            .map(|hit: &Hit| {
                let id = index.id(hit.document);
                places.get(id).map(|&place| &documents[place]).ok_or_else(|| {
                    let problem =
                        format!("document {id} of the index is not in it; is it another collection's?");
                    CliError::Input(format!("{}: {problem}", self.collection.display()))
                })
            })
            .collect::<Result<_>>()?;
        let texts: Vec<&str> = candidates.iter().map(|document| document.text.as_str()).collect();
        let scores: Vec<f64> = found.iter().map(|hit| f64::from(hit.score)).collect();
        let sub_queries: Vec<SubQuery<'_>> = self.sub_queries.iter().map(Meaning::sub_query).collect();
        let mut request = Request::new(&self.query, &texts).first_scores(&scores).sub_queries(&sub_queries);
        // A time that no clock can hold is no limit.
        if let Some(deadline) = self.deadline.and_then(|ms| started.checked_add(Duration::from_millis(ms))) {
            request = request.budget(Budget::new().deadline(deadline));
        }
        let mut outcome = cascade.run(&request)?;
        if self.long.long != Some(LongMode::Truncate) {
            cascade::forget_audited(&mut outcome);
        }
        let row = |(rank, placed): (usize, &Placed)| {
            let document = candidates[placed.index];
            let score = placed.score.as_ref();
            let span = score.and_then(|score| score.span.clone());
            Row {
                rank: rank + 1,
                id: &document.id,
                score: score.map(|score| score.score),
                probability: score.and_then(|score| score.probability),
                first_stage: scores[placed.index],
                text: snippet(&document.text, span.clone(), &self.query),
                span: span.map(|span| [span.start, span.end]),
            }
        };
        let printed = Printed {
            query: &self.query,
            documents: documents.len(),
            candidates: candidates.len(),
            first_stage_ms: (first_stage_ms * 1e3).round() / 1e3,
            ms: (outcome.elapsed.as_secs_f64() * 1e6).round() / 1e3,
            stages: outcome.stages.iter().map(StageRow::from).collect(),
            stop: outcome.stop.map(jointly::rank::Stop::name),
            results: outcome.hits.iter().take(self.top_n).enumerate().map(row).collect(),
        };
        self.print(&printed, &outcome, global)
    }

    /// The stages of the file, or the model; then what makes the answer varied.
    fn stages<'a>(&self, dense: Option<&'a BiEncoder>, global: Global) -> Result<Cascade<'a>> {
        let long = self.long.windows_unless_said();
        let (mut cascade, is_probability): (Cascade<'a>, bool) = match &self.cascade {
            Some(path) => {
                let file = cascade::read(path)?;
                cascade::check(&file, &self.sub_queries, true)?;
                (file.build(&mut cascade::models(&long, global))?, false)
            }
            None => {
                let model = self.model.load(global)?;
                let is_probability =
                    model.info().score_scale == ScoreScale::Probability || model.calibration().is_some();
                let name = model.info().architecture;
                let scorer = jointly::rank::CrossScorer::new(std::sync::Arc::new(model), long);
                (Cascade::new().stage(Rescore::all(scorer).name(name)), is_probability)
            }
        };
        if !self.keep_copies {
            cascade = cascade.stage(Distinct::new(0.8, Shingles::new(3))?.name("copies"));
        }
        if let Some(lambda) = self.diversity {
            cascade = match dense {
                Some(model) => {
                    diverse(cascade, Mmr::new(lambda, self.top_n, Embedded::new(model))?, is_probability)
                }
                None => diverse(cascade, Mmr::new(lambda, self.top_n, Shingles::new(1))?, is_probability),
            };
        }
        Ok(cascade)
    }

    /// The index of the collection, made first if need be.
    fn index(&self, documents: &[Document], global: Global) -> Result<(PathBuf, Index)> {
        if let Some(path) = &self.index {
            return Ok((path.clone(), Index::open(path)?));
        }
        let folder = jointly::cache_folder("search").ok_or_else(|| {
            CliError::Input(
                "there is no home folder to keep the index in; jointly index and --index name one".into(),
            )
        })?;
        let failed = |error| CliError::open(&self.collection, &error);
        let source = fs::canonicalize(&self.collection).map_err(failed)?;
        let hex = |bytes: &[u8]| bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>();
        let dense = self.dense.as_deref().map(|name| model::find_bi_encoder(name, global)).transpose()?;
        let named = format!("{}\0{}", source.display(), dense.as_ref().map_or("", |(_, name)| name));
        let path = folder.join(hex(&Sha256::digest(named)));
        // What the index is of: every id and text. Reading them is little beside reading them with a model.
        let mut hash = Sha256::new();
        for Document { id, text } in documents {
            for part in [id, text] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part);
            }
        }
        let of = format!("{:x}\n{}\n", hash.finalize(), source.display());
        let note = path.join("search.txt");
        let cache = model::packed_cache(global);
        if fs::read_to_string(&note).is_ok_and(|found| found == of)
            && let Ok(index) = Index::open(&path)
            && dense.as_ref().is_none_or(|(files, _)| index.check_files(files, cache.as_deref()).is_ok())
        {
            return Ok((path, index));
        }
        let dense = match dense {
            None => None,
            Some((files, name)) => Some((model::load_bi_encoder(files, LoadOptions::new(), global)?, name)),
        };
        let mut options = BuildOptions::new().threads(model::threads(global)).force(true);
        if let Some((model, name)) = &dense {
            options = options.dense(model, name);
        }
        if !global.quiet {
            say(format_args!("indexing {} documents of {}", documents.len(), self.collection.display()));
        }
        fs::create_dir_all(&folder).map_err(|error| CliError::file(&folder, &error))?;
        // An index whose note is gone is made again: never one whose texts have changed.
        drop(fs::remove_file(&note));
        jointly_retrieve::build(&path, documents, options, &mut |_| ())?;
        write_file(&note, &of)?;
        let index = Index::open(&path)?;
        Ok((path, index))
    }

    fn print(&self, printed: &Printed<'_>, outcome: &Outcome, global: Global) -> Result<()> {
        let mut output = Output::new();
        if self.format == Format::Json {
            output.json(printed)?;
            return output.flush();
        }
        let terminal = Term::stdout();
        let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_coloured = terminal.is_term() && console::colors_enabled() && !is_plain;
        let style = |style: Style| style.force_styling(is_coloured);
        let (bold, dim) = (style(Style::new().bold()), style(Style::new().dim()));
        if printed.results.is_empty() {
            output.line("no document has a word of the query")?;
        }
        for row in &printed.results {
            let mut head = format!("{:>2}  {}", row.rank, bold.apply_to(printable(row.id)));
            match (row.score, row.probability) {
                (Some(score), Some(probability)) => {
                    head.push_str(&format!("  {score:.4}  p={probability:.4}"))
                }
                (Some(score), None) => head.push_str(&format!("  {score:.4}")),
                (None, _) => head.push_str("  not read"),
            }
            output.line(head)?;
            for line in wrapped(&row.text, 100) {
                output.line(dim.apply_to(format!("    {line}")))?;
            }
        }
        output.flush()?;
        if !global.quiet {
            let Printed { documents, candidates, first_stage_ms, .. } = printed;
            say(format_args!("{candidates} candidates of {documents} documents in {first_stage_ms:.1} ms"));
            cascade::report(outcome).iter().for_each(say);
        }
        Ok(())
    }
}

/// A model without probabilities is weighed by its smallest and largest value.
fn diverse<'a>(
    cascade: Cascade<'a>,
    mmr: Mmr<impl Similarity + Send + 'a>,
    is_probability: bool,
) -> Cascade<'a> {
    cascade.boxed(boxed(if is_probability { mmr } else { mmr.min_max() }))
}

fn boxed<'a>(stage: impl Stage + Send + 'a) -> Box<dyn Stage + Send + 'a> {
    Box::new(stage)
}

/// What of a document is shown: of its best part, from the sentence that has the most words of the query.
fn snippet(text: &str, span: Option<std::ops::Range<usize>>, query: &str) -> String {
    let lower = |text: &str| text.to_lowercase();
    let words = |text: &str| -> Vec<String> {
        text.split(|letter: char| !letter.is_alphanumeric())
            .filter(|word| word.len() > 2)
            .map(lower)
            .collect()
    };
    let part: String = match &span {
        Some(span) => text.chars().skip(span.start).take(span.end - span.start).collect(),
        None => text.to_string(),
    };
    let asked = words(query);
    let mut best = (0, 0);
    let mut start = 0;
    for sentence in part.split_inclusive(['.', '!', '?', '\n']) {
        let found = words(sentence);
        let count = asked.iter().filter(|word| found.contains(word)).count();
        if count > best.0 {
            best = (count, start);
        }
        start += sentence.len();
    }
    let rest = &part[best.1..];
    let joined = printable(rest).split_whitespace().collect::<Vec<_>>().join(" ");
    let mut shown: String = joined.chars().take(SHOWN).collect();
    if best.1 > 0 || span.is_some_and(|span| span.start > 0) {
        shown.insert(0, '…');
    }
    if joined.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// Lines of at most so many columns, broken between words.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.len() - 1;
        let width = console::measure_text_width(&lines[last]);
        if width > 0 && width + 1 + console::measure_text_width(word) > columns {
            lines.push(word.to_string());
        } else {
            if width > 0 {
                lines[last].push(' ');
            }
            lines[last].push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_begins_where_the_words_are() {
        let text = "Nothing here. The old bridge fell in 1897. It was long.";
        assert_eq!(
            snippet(text, None, "when did the bridge fall"),
            "…The old bridge fell in 1897. It was long."
        );
        assert_eq!(snippet(text, Some(14..26), "long"), "…The old brid");
        assert_eq!(snippet("a\u{1b}b  c", None, "x"), "ab c");
        let long = "word ".repeat(100);
        assert_eq!(snippet(&long, None, "x").chars().count(), SHOWN + 1);
        assert_eq!(wrapped("aa bb cc", 5), ["aa bb", "cc"]);
        assert_eq!(wrapped("", 5), [""]);
    }
}
