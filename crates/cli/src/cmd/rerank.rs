use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use clap::Args;
use console::{Alignment, Style, Term};
use jointly::rank::{Outcome, Placed, Request, SubQuery};
use jointly::{Hit, RerankOptions, Score};
use serde::Serialize;
use serde_json::Value;

use crate::Global;
use crate::cascade::{self, Meaning, StageRow};
use crate::documents::{self, Document};
use crate::error::{CliError, Result};
use crate::input::{self, Lines};
use crate::model::{LongArguments, LongMode, ModelArguments};
use crate::output::{Output, printable, say};

/// Width of the text form where there is no terminal.
const COLUMNS: usize = 120;

/// Put documents in the order of their relevance to a query, best first
#[derive(Args)]
#[command(after_help = "\
A cascade is TOML: [budget] with ms, tokens or usd, and a [[stage]] for each step; docs/cascades.md has all keys. What a
stage did stands on standard error, and in --format json. A document that no stage has read has no score. Stages that
interpolate take what the first stage gave from the JSON lines: a number `first_stage_score`, or `score`, in each of them.
Without --input, names in .jsonl and .ndjson say that a file holds JSON lines; else a first line that is a JSON object with
`text` does. Blank lines are passed over, and not counted by `index`.")]
pub struct Rerank {
    /// What is asked
    #[arg(long, short)]
    query: String,
    /// Documents: one on each line, or JSON lines with `text` and optional `id`; `-` is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    inputs: Vec<PathBuf>,
    /// Read each FILE as one document; its path is its id
    #[arg(long)]
    files: bool,
    /// How FILE is written [auto: by its name, else by its first line]
    #[arg(long, value_enum, default_value_t = Input::Auto)]
    input: Input,
    /// How many of the best to print [default: all]
    #[arg(long, short = 'n', value_name = "N")]
    top_n: Option<usize>,
    /// How to print
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Leave the documents' texts out of the output
    #[arg(long)]
    no_text: bool,
    /// Run the stages and the budget of this file instead of one model; the documents come best first
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "max_length", "precision", "calibration", "no_receipt_check"])]
    cascade: Option<PathBuf>,
    /// One of the things that the query may have meant, for xquad; may be given often [WEIGHT default: 1]
    #[arg(long = "sub-query", value_name = "TEXT[=WEIGHT]", requires = "cascade")]
    sub_queries: Vec<Meaning>,
    #[command(flatten)]
    long: LongArguments,
    #[command(flatten)]
    model: ModelArguments,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Input {
    Auto,
    Lines,
    Jsonl,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
    Jsonl,
    Tsv,
}

/// One line of the output; the names and their order are part of the interface. Without a score, no stage of the
/// cascade has read the document.
#[derive(Serialize)]
struct Row<'a> {
    rank: usize,
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a Value>,
    #[serde(flatten)]
    scored: Option<Scored>,
    /// The number of the stage that placed it, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
}

#[derive(Serialize)]
struct Scored {
    score: f32,
    logit: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    probability: Option<f32>,
    tokens: usize,
    truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    span: Option<[usize; 2]>,
}

impl From<&Score> for Scored {
    fn from(score: &Score) -> Self {
        Self {
            score: score.score,
            logit: score.logit,
            probability: score.probability,
            tokens: score.tokens,
            truncated: score.truncated,
            span: score.span.as_ref().map(|span| [span.start, span.end]),
        }
    }
}

#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    by: By,
    query: &'a str,
    results: Vec<Row<'a>>,
}

/// What made the order.
#[derive(Serialize)]
#[serde(untagged)]
enum By {
    Model {
        model: String,
    },
    Cascade {
        cascade: String,
        stages: Vec<StageRow>,
        /// Why it ended early.
        stop: Option<&'static str>,
        ms: f64,
    },
}

impl Rerank {
    pub fn run(self, global: Global) -> Result<()> {
        if self.query.trim().is_empty() {
            return Err(CliError::Input("--query is empty".into()));
        }
        let mut documents = Vec::new();
        for path in &self.inputs {
            if path == Path::new("-")
                && Term::stdout().is_term()
                && std::io::stdin().is_terminal()
                && !global.quiet
            {
                say("reading documents from the terminal; end with Ctrl-D");
            }
            self.read(path, &mut documents)?;
        }
        let texts: Vec<&str> = documents.iter().map(|document| document.text.as_str()).collect();
        let top_n = self.top_n.unwrap_or(usize::MAX);
        if let Some(path) = &self.cascade {
            let outcome = self.run_cascade(path, (&documents, &texts), global)?;
            if !global.quiet {
                cascade::report(&outcome).iter().for_each(say);
            }
            let hits = outcome.hits.iter().take(top_n).enumerate();
            let rows = hits.map(|(i, placed)| self.placed(i + 1, placed, &documents)).collect();
            return self.print(by_cascade(path, &outcome), rows);
        }
        let model = self.model.load(global)?;
        let options = RerankOptions::new().score(self.long.options()).top_n(top_n);
        let ranking = model.rerank(&self.query, &texts, &options)?;
        let rows: Vec<Row<'_>> =
            ranking.hits.iter().enumerate().map(|(i, hit)| self.row(i + 1, hit, &documents)).collect();
        self.print(By::Model { model: model.info().source.clone() }, rows)
    }

    /// Runs the stages of a file.
    fn run_cascade(
        &self,
        path: &Path,
        (documents, texts): (&[Document], &[&str]),
        global: Global,
    ) -> Result<Outcome> {
        let file = cascade::read(path)?;
        let first = documents::first_stage_scores(documents)?;
        cascade::check(&file, &self.sub_queries, first.is_some() || documents.is_empty())?;
        let cascade = file.build(&mut cascade::models(&self.long.options(), global))?;
        let sub_queries: Vec<SubQuery<'_>> = self.sub_queries.iter().map(Meaning::sub_query).collect();
        let mut request = Request::new(&self.query, texts).sub_queries(&sub_queries);
        if let Some(first) = &first {
            request = request.first_scores(first);
        }
        let mut outcome = cascade.run(&request)?;
        if self.long.long == Some(LongMode::Windows) {
            cascade::forget_audited(&mut outcome);
        }
        Ok(outcome)
    }

    fn read(&self, path: &Path, documents: &mut Vec<Document>) -> Result<()> {
        if self.files {
            let id = Some(path.display().to_string().into());
            documents.push(Document { id, text: input::whole(path)?, first_stage_score: None });
            return Ok(());
        }
        let mut lines = Lines::open(path)?;
        let jsonl = match self.input {
            Input::Lines => Some(false),
            Input::Jsonl => Some(true),
            Input::Auto if input::is_jsonl(path) => Some(true),
            Input::Auto => None,
        };
        documents::read(&mut lines, jsonl, documents)
    }

    fn row<'a>(&self, rank: usize, hit: &Hit, documents: &'a [Document]) -> Row<'a> {
        let document = &documents[hit.index];
        Row {
            rank,
            index: hit.index,
            id: document.id.as_ref(),
            scored: Some(Scored::from(&hit.score)),
            stage: None,
            text: (!self.no_text).then_some(document.text.as_str()),
        }
    }

    fn placed<'a>(&self, rank: usize, placed: &Placed, documents: &'a [Document]) -> Row<'a> {
        let document = &documents[placed.index];
        Row {
            rank,
            index: placed.index,
            id: document.id.as_ref(),
            scored: placed.score.as_ref().map(Scored::from),
            stage: placed.stage.map(|stage| stage + 1),
            text: (!self.no_text).then_some(document.text.as_str()),
        }
    }

    fn print(&self, by: By, rows: Vec<Row<'_>>) -> Result<()> {
        let mut output = Output::new();
        match self.format {
            Format::Json => output.json(&Whole { by, query: &self.query, results: rows })?,
            Format::Jsonl => rows.iter().try_for_each(|row| output.json(row))?,
            Format::Tsv => {
                output.line("rank\tindex\tid\tscore\tlogit\ttokens\ttruncated\tspan\ttext\tprobability")?;
                rows.iter().try_for_each(|row| output.line(tsv(row)))?;
            }
            Format::Text => text(&rows).try_for_each(|line| output.line(line))?,
        }
        output.flush()
    }
}

fn by_cascade(path: &Path, outcome: &Outcome) -> By {
    By::Cascade {
        cascade: path.display().to_string(),
        stages: outcome.stages.iter().map(StageRow::from).collect(),
        stop: outcome.stop.map(jointly::rank::Stop::name),
        ms: (outcome.elapsed.as_secs_f64() * 1e6).round() / 1e3,
    }
}

/// For people: rank, score, id or index, notes, and as much of the document as the line has room for.
fn text(rows: &[Row<'_>]) -> impl Iterator<Item = String> {
    let terminal = Term::stdout();
    let room = if terminal.is_term() { usize::from(terminal.size().1) } else { COLUMNS };
    // The variable counts if it is there and not empty (no-color.org).
    let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_coloured = terminal.is_term() && console::colors_enabled() && !is_plain;
    let style = move |style: Style| style.force_styling(is_coloured);
    let ranks = rows.len().to_string().len();
    let scores: Vec<String> = rows
        .iter()
        .map(|row| row.scored.as_ref().map_or("-".to_string(), |scored| format!("{:.4}", scored.score)))
        .collect();
    let score_width = scores.iter().map(String::len).max().unwrap_or(0);
    let names: Vec<String> = rows
        .iter()
        .map(|row| match row.id {
            Some(Value::String(id)) => printable(id).into_owned(),
            Some(id) => printable(&id.to_string()).into_owned(),
            None => format!("#{}", row.index),
        })
        .map(|name| console::truncate_str(&name, room / 3, "…").into_owned())
        .collect();
    let name_width = names.iter().map(|name| console::measure_text_width(name)).max().unwrap_or(0);
    rows.iter().zip(scores).zip(names).map(move |((row, score), name)| {
        let name = console::pad_str(&name, name_width, Alignment::Left, None);
        let (rank, score) = (format!("{:>ranks$}", row.rank), format!("{score:>score_width$}"));
        let mut notes = String::new();
        let span = row.scored.as_ref().and_then(|scored| scored.span);
        if let Some(scored) = &row.scored {
            if let Some(probability) = scored.probability {
                notes.push_str(&format!("p={probability:.4} "));
            }
            if scored.truncated {
                notes.push_str("truncated ");
            }
        }
        if let Some([start, end]) = span {
            notes.push_str(&format!("[{start}..{end}] "));
        }
        let mut shown = String::new();
        if let Some(text) = row.text {
            let used = [&rank, &score, &*name, &notes].map(console::measure_text_width);
            let left = room.saturating_sub(used.iter().sum::<usize>() + 3 * "  ".len());
            // From where the best part begins. A line break is a column, a combining character is none: more is taken
            // than there is room for.
            let first = span.map_or(0, |[start, _]| start);
            let mut rest = text.chars().skip(first);
            let start: String = rest.by_ref().take(8 * room).collect();
            let mut line = printable(&start).split_whitespace().collect::<Vec<_>>().join(" ");
            if first > 0 {
                line.insert(0, '…');
            }
            if rest.next().is_some() {
                line.push('…');
            }
            shown = console::truncate_str(&line, left, "…").into_owned();
        }
        let (score, notes) =
            (style(Style::new().bold()).apply_to(score), style(Style::new().yellow()).apply_to(notes));
        let line = format!("{rank}  {score}  {}  {notes}{shown}", style(Style::new().dim()).apply_to(name));
        line.trim_end().to_string()
    })
}

fn tsv(row: &Row<'_>) -> String {
    let escaped = |text: &str| {
        text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
    };
    let id = match row.id {
        Some(Value::String(id)) => escaped(id),
        Some(id) => id.to_string(),
        None => String::new(),
    };
    let scored = row.scored.as_ref();
    let column = |value: Option<String>| value.unwrap_or_default();
    let span = scored.and_then(|scored| scored.span).map(|[start, end]| format!("{start}..{end}"));
    [
        row.rank.to_string(),
        row.index.to_string(),
        id,
        column(scored.map(|scored| scored.score.to_string())),
        column(scored.map(|scored| scored.logit.to_string())),
        column(scored.map(|scored| scored.tokens.to_string())),
        column(scored.map(|scored| scored.truncated.to_string())),
        column(span),
        column(row.text.map(escaped)),
        column(scored.and_then(|scored| scored.probability).map(|probability| probability.to_string())),
    ]
    .join("\t")
}
