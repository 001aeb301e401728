//! Cascades from files, over models of this machine; and what is said about what they did.

use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::AtomicBool;

use jointly::rank::listwise::OnePass;
use jointly::rank::{Guarantee, Outcome, SubQuery};
use jointly::{BiEncoder, CrossEncoder, LoadOptions, Precision, ScoreOptions};
pub use jointly_cascade::StageRow;
use jointly_cascade::{BlendSpec, CascadeFile, Load, LocalModels, OtherSpec, SharedStage, StageSpec};
use jointly_chat::ListwiseSpec;

use crate::Global;
use crate::error::{CliError, Result};
use crate::input;
use crate::model;

/// Reads a file of a cascade.
pub fn read(path: &Path) -> Result<CascadeFile> {
    Ok(CascadeFile::parse(&path.display().to_string(), &input::whole(path)?)?)
}

/// One of the things that the query may have meant, as it is given: `TEXT`, or `TEXT=WEIGHT`.
#[derive(Debug, Clone, PartialEq)]
pub struct Meaning {
    text: String,
    /// Above 0; 1 if nothing is said.
    weight: f64,
}

impl FromStr for Meaning {
    type Err = String;

    fn from_str(given: &str) -> std::result::Result<Self, String> {
        // Only a number behind the last = is a weight: a text may have = in it.
        let weighed = given
            .rsplit_once('=')
            .and_then(|(text, weight)| Some((text, weight.trim().parse::<f64>().ok()?)));
        let (text, weight) = weighed.unwrap_or((given, 1.0));
        if text.trim().is_empty() {
            return Err("the text of a sub-query is empty".into());
        }
        if !(weight > 0.0 && weight <= MOST_WEIGHT) {
            return Err(format!("the weight {weight}; it is above 0, and {MOST_WEIGHT:e} at most"));
        }
        Ok(Self { text: text.into(), weight })
    }
}

/// As in the server: sums of weights stay finite.
const MOST_WEIGHT: f64 = 1e30;

impl Meaning {
    /// For a request.
    pub fn sub_query(&self) -> SubQuery<'_> {
        SubQuery { text: &self.text, weight: self.weight }
    }
}

/// Whether a request has what the stages of the file need of it, asked before models are loaded.
///
/// # Errors
/// If a stage covers sub-queries and there are none, or none does and there are; if a stage interpolates and there
/// are no scores of the first stage.
pub fn check(file: &CascadeFile, sub_queries: &[Meaning], has_first_scores: bool) -> Result<()> {
    let problem = |place: usize, problem: &str| {
        Err(CliError::Input(format!("{}: stage {}: {problem}", file.name, place + 1)))
    };
    let covers = file.stages.iter().position(|stage| matches!(stage, StageSpec::Xquad(_)));
    match covers {
        Some(place) if sub_queries.is_empty() => {
            return problem(
                place,
                "xquad covers what the query may have meant; --sub-query TEXT says what that is",
            );
        }
        None if !sub_queries.is_empty() => {
            let name = &file.name;
            return Err(CliError::Input(format!("{name}: --sub-query is for xquad, and no stage is that")));
        }
        _ => {}
    }
    let interpolates = |stage: &StageSpec| match stage {
        StageSpec::Rescore(spec) => spec.blend == Some(BlendSpec::Interpolate),
        _ => false,
    };
    match file.stages.iter().position(interpolates) {
        Some(place) if !has_first_scores => problem(
            place,
            "it interpolates with the first stage's scores: JSON lines with a number `first_stage_score` hold them",
        ),
        _ => Ok(()),
    }
}

/// Takes back what an audit has promised of documents that were read otherwise. A slack is audited on documents that
/// are cut, unless that audit was told otherwise, which no key of the file says; so in windows nobody knows how likely
/// it is enough.
pub fn forget_audited(outcome: &mut Outcome) {
    for stage in &mut outcome.stages {
        if let Some(Guarantee::SameTop { confidence, .. }) = &mut stage.guarantee
            && confidence.take().is_some()
        {
            let note = "its confidence is not repeated: here long documents are read in windows, and audits cut \
                        them unless told otherwise; --long truncate reads them so";
            stage.notes.push(note.into());
        }
    }
}

/// The models that the stages of a file name, found as everywhere on the command line; `reading` holds for all of them.
pub fn models(reading: &ScoreOptions, global: Global) -> LocalModels<Loader> {
    LocalModels::new(Loader(global), reading.clone())
}

/// Loads models as everywhere on the command line.
pub struct Loader(Global);

impl Load for Loader {
    type Error = CliError;

    fn cross_encoder(&mut self, name: &str, precision: Option<Precision>) -> Result<CrossEncoder> {
        model::load(name, LoadOptions::new().precision_or_auto(precision), self.0)
    }

    fn bi_encoder(&mut self, name: &str, options: LoadOptions) -> Result<BiEncoder> {
        model::bi_encoder(name, options, self.0)
    }

    fn one_pass(&mut self, name: &str, options: LoadOptions) -> Result<OnePass> {
        model::one_pass(name, options, self.0)
    }

    /// The stage that asks a language model. Nothing ends it from outside but the end of the process.
    fn other(&mut self, spec: &OtherSpec) -> Result<Option<SharedStage>> {
        static GO_ON: AtomicBool = AtomicBool::new(false);
        if spec.kind != "listwise" {
            return Ok(None);
        }
        let wrong = |problem: String| CliError::Input(format!("a stage of the kind listwise: {problem}"));
        let spec: ListwiseSpec = spec.read().map_err(wrong)?;
        Ok(Some(Box::new(spec.build(&GO_ON).map_err(wrong)?)))
    }
}

/// For people: a line for each stage, and why it ended early.
pub fn report(outcome: &Outcome) -> Vec<String> {
    let rows: Vec<StageRow> = outcome.stages.iter().map(StageRow::from).collect();
    let width = rows.iter().map(|row| console::measure_text_width(&row.name)).max().unwrap_or(0);
    let mut lines = Vec::new();
    for row in rows {
        let name = console::pad_str(&row.name, width, console::Alignment::Left, None);
        let StageRow { incoming, read, kept, ms, tokens, usd, .. } = row;
        let mut line =
            format!("{name}  {incoming} in, {read} read, {kept} kept, {ms:.1} ms, {tokens} tokens");
        if usd > 0.0 {
            line.push_str(&format!(", ${usd:.6}"));
        }
        if let Some(stop) = row.stop {
            line.push_str(&format!("; ended early: {stop}"));
        }
        for note in row.guarantee.iter().chain(&row.notes) {
            line.push_str(&format!("; {note}"));
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sub_query_may_have_a_weight() {
        for (given, text, weight) in [
            ("big cat", "big cat", 1.0),
            ("big cat=0.5", "big cat", 0.5),
            ("a=b", "a=b", 1.0),
            ("a=b=2", "a=b", 2.0),
        ] {
            assert_eq!(given.parse::<Meaning>(), Ok(Meaning { text: text.into(), weight }));
        }
        for wrong in ["", " ", "=1", "cat=0", "cat=-1", "cat=inf", "cat=NaN"] {
            assert!(wrong.parse::<Meaning>().is_err(), "{wrong}");
        }
    }
}
