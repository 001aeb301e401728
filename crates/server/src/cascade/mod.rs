//! Cascades that are served: a name for stages. Most ask a model of this server through its queue; others read beside the queues.

mod beside;
mod run;

use std::collections::BTreeMap;
use std::sync::Arc;

use jointly::rank::{DuoScorer, Scorer, Shingles, Similarity};
use jointly::{Score, ScoreScale};
use jointly_cascade::{
    CascadeFile, DuoSpec, ModelSpec, Models, OnePassSpec, OtherSpec, PrecisionSpec, SharedScorer,
    SharedStage, SimilaritySpec, StageSpec,
};

use crate::LoadedCard;
use crate::config::ModelConfig;
use beside::{LISTWISE, Passing};

pub(crate) use beside::{Asking, Beside, Need};
pub(crate) use run::{rerank, try_out};

/// A cascade of the configuration.
#[derive(Debug)]
pub struct Plan {
    /// Its name there.
    pub name: String,
    /// Its stages.
    pub file: CascadeFile,
    /// Their names.
    pub stages: Vec<String>,
    /// Who reads through a queue, in the order in which [`CascadeFile::build`] asks for them: one for most stages, two for those that
    /// confirm.
    pub readers: Vec<Reader>,
    /// The models that it reads with beside the queues.
    pub beside: Vec<Need>,
    /// The stages that ask a language model, in their order.
    pub asking: Vec<Asking>,
}

/// A model of a stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Reader {
    /// The name of the model on this server.
    pub model: String,
    /// The longest pair in tokens, if the stage says.
    pub max_length: Option<usize>,
    /// What to look for, if the stage says.
    pub instruction: Option<String>,
    /// How it reads two documents as one text, if it does.
    pub two: Option<Two>,
}

/// Two documents that are read as one text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Two {
    /// Characters of each at most.
    pub max_chars: usize,
    /// Bytes around them at most.
    pub around_bytes: usize,
}

impl Two {
    fn of(spec: &DuoSpec) -> Self {
        let template = spec.template.as_deref().unwrap_or(DuoScorer::<SharedScorer>::DEFAULT_TEMPLATE);
        Self { max_chars: spec.max_chars, around_bytes: template.len() }
    }

    /// Bytes of the longest text that two of these documents make.
    #[must_use]
    pub fn longest(self, documents: &[String]) -> usize {
        let read = |document: &String| match document.char_indices().nth(self.max_chars) {
            Some((end, _)) => end,
            None => document.len(),
        };
        let mut longest = [0; 2];
        for bytes in documents.iter().map(read) {
            if bytes > longest[0] {
                longest = [bytes, longest[0]];
            } else {
                longest[1] = longest[1].max(bytes);
            }
        }
        self.around_bytes + longest[0] + longest[1]
    }
}

impl Plan {
    /// Reads a file. Models that it names and that are not in `models` are added there: those of the configuration go by
    /// their names, others by what they are loaded from, as on the command line. Those that have no queue are no part of it.
    ///
    /// # Errors
    /// What the file says that cannot be served.
    pub fn read(name: &str, path: &str, models: &mut BTreeMap<String, ModelConfig>) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
        let file = CascadeFile::parse(path, &text).map_err(|error| error.to_string())?;
        let (mut readers, mut beside, mut asking) = (Vec::new(), Vec::new(), Vec::new());
        for (place, stage) in file.stages.iter().enumerate() {
            let wrong = |problem: String| format!("{path}: stage {}: {problem}", place + 1);
            for spec in stage.models() {
                if let Some(need) = Need::scorer(spec) {
                    need.check(spec).map_err(wrong)?;
                    beside.push(need);
                    continue;
                }
                readers.push(Reader {
                    model: place_of(spec, models).map_err(wrong)?,
                    max_length: spec.max_length,
                    instruction: spec.instruction.clone(),
                    two: match stage {
                        StageSpec::Duo(spec) => Some(Two::of(spec)),
                        _ => None,
                    },
                });
            }
            match stage {
                StageSpec::OnePass(spec) => {
                    let need = Need::list(spec);
                    need.check(&spec.model).map_err(wrong)?;
                    beside.push(need);
                }
                StageSpec::Other(spec) if spec.kind == LISTWISE => {
                    asking.push(Asking::read(spec).map_err(wrong)?);
                }
                _ => beside.extend(likeness(stage)),
            }
        }
        // Options that no stage can have, and kinds that nobody knows, are said now, and not to the first client.
        let cascade = file.build(&mut Nobody { asking: asking.iter() }).map_err(|error| error.to_string())?;
        let stages = cascade.names().map(String::from).collect();
        Ok(Self { name: name.to_string(), file, stages, readers, beside, asking })
    }

    /// Whether a stage reads without a queue that would hear of deadlines and of clients that leave.
    #[must_use]
    pub fn reads_beside(&self) -> bool {
        !(self.beside.is_empty() && self.asking.is_empty())
    }

    /// Whether a stage gives scores. Otherwise nothing is known of a document but its place.
    #[must_use]
    pub fn gives_scores(&self) -> bool {
        let gives = |stage: &StageSpec| {
            matches!(stage, StageSpec::Rescore(_) | StageSpec::Confirm(_) | StageSpec::OnePass(_))
        };
        self.file.stages.iter().any(gives)
    }

    /// Goes on with those of the language models that are asked the same, and adds the others to them: what they may cost is of the
    /// process.
    pub fn go_on_with(&mut self, known: &mut Vec<Asking>) {
        for asking in &mut self.asking {
            match known.iter().find(|known| known.is_as(asking)) {
                Some(same) => *asking = same.clone(),
                None => known.push(asking.clone()),
            }
        }
    }

    /// What is known of it where no model of a queue can say it, once all that it reads with is there. What reads a text whole reads
    /// so many tokens at most.
    #[must_use]
    pub fn card(&self, beside: &Beside, whole: usize) -> Option<LoadedCard> {
        if !self.beside.iter().all(|need| beside.has(need)) {
            return None;
        }
        let lists = self.file.stages.iter().filter_map(|stage| match stage {
            StageSpec::OnePass(spec) => Some(spec.options().longest_pair()),
            _ => None,
        });
        let encoders = self.beside.iter().filter_map(|need| beside.max_length(need));
        let longest = encoders.chain(lists).chain(self.asking.iter().map(Asking::max_length)).max();
        let precision = self.beside.last().map(|need| need.config().precision.clone());
        Some(LoadedCard {
            architecture: "cascade".into(),
            max_length: longest.unwrap_or(whole),
            precision: precision.unwrap_or_else(|| "unknown".into()),
            scale: ScoreScale::Ordinal,
            is_calibrated: false,
            is_healthy: true,
            identity: String::new(),
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            parameters: 0,
        })
    }

    /// How many texts each reader reads at most, of so many documents, with so many sub-queries.
    #[must_use]
    pub fn most_read(&self, documents: usize, sub_queries: usize) -> Vec<usize> {
        let mut left = documents;
        let mut most = Vec::with_capacity(self.readers.len());
        for stage in &self.file.stages {
            let (depth, keep) = match stage {
                StageSpec::Rescore(spec) => (spec.depth, spec.keep),
                StageSpec::Confirm(spec) => (spec.depth, spec.keep),
                StageSpec::OnePass(spec) => (spec.depth, spec.keep),
                StageSpec::Duo(spec) => (Some(spec.depth), None),
                StageSpec::Mmr(spec) | StageSpec::Dpp(spec) => (None, Some(spec.keep)),
                StageSpec::Xquad(spec) => (None, Some(spec.keep)),
                _ => (None, None),
            };
            let read = depth.map_or(left, |depth| depth.min(left));
            let texts = match stage {
                StageSpec::Xquad(_) => read * sub_queries,
                StageSpec::Duo(_) => read.saturating_mul(read.saturating_sub(1)),
                _ => read,
            };
            let in_queues = stage.models().into_iter().filter(|spec| Need::scorer(spec).is_none());
            most.extend(in_queues.map(|_| texts));
            left = keep.map_or(read, |keep| keep.min(read));
        }
        most
    }
}

/// The bi-encoder that says for a stage how alike documents are, if one does.
fn likeness(stage: &StageSpec) -> Option<Need> {
    let similarity = match stage {
        StageSpec::Mmr(spec) | StageSpec::Dpp(spec) => &spec.similarity,
        StageSpec::Distinct(spec) => &spec.similarity,
        _ => return None,
    };
    match similarity {
        SimilaritySpec::Bi(source) => Some(Need::likeness(source)),
        _ => None,
    }
}

/// The name of a stage's model among those of the server, where it is put if it is not there.
fn place_of(spec: &ModelSpec, models: &mut BTreeMap<String, ModelConfig>) -> Result<String, String> {
    let unknown =
        || ModelConfig { source: spec.model.clone(), precision: "f32".into(), ..ModelConfig::default() };
    let named = models.get(&spec.model).cloned().unwrap_or_else(unknown);
    let precision = match spec.precision {
        PrecisionSpec::Unsaid => named.precision.clone(),
        PrecisionSpec::Auto => "auto".into(),
        PrecisionSpec::Exactly(precision) => precision.name().into(),
    };
    let wanted = ModelConfig { precision, ..named };
    let is_wanted = |model: &ModelConfig| ModelConfig { load: wanted.load, ..model.clone() } == wanted;
    let is_named = models.get(&spec.model).is_some_and(is_wanted);
    if is_named {
        return Ok(spec.model.clone());
    }
    if let Some((name, _)) = models.iter().find(|(_, model)| is_wanted(model)) {
        return Ok(name.clone());
    }
    let name = format!("{}@{}", spec.model, wanted.precision);
    match models.insert(name.clone(), wanted) {
        None => Ok(name),
        Some(_) => Err(format!("the configuration has another model that is called {name:?}")),
    }
}

/// What stands for all models while a file is checked.
struct Nobody<'a> {
    asking: std::slice::Iter<'a, Asking>,
}

impl Models for Nobody<'_> {
    type Error = jointly_cascade::Error;

    fn scorer(&mut self, spec: &ModelSpec) -> Result<SharedScorer, Self::Error> {
        let is_bi = Need::scorer(spec).is_some();
        Ok(Arc::new(Unread(if is_bi { ScoreScale::Ordinal } else { ScoreScale::Probability })))
    }

    fn likeness(&mut self, _: &str) -> Result<Box<dyn Similarity + Send>, Self::Error> {
        Ok(Box::new(Shingles::new(1)))
    }

    fn one_pass(&mut self, spec: &OnePassSpec) -> Result<SharedStage, Self::Error> {
        Ok(Box::new(Passing(spec.stage_name())))
    }

    fn other(&mut self, spec: &OtherSpec) -> Result<Option<SharedStage>, Self::Error> {
        Ok(if spec.kind == LISTWISE { self.asking.next().map(Asking::silent) } else { None })
    }
}

/// A scorer that nobody asks.
struct Unread(ScoreScale);

impl Scorer for Unread {
    fn scale(&self) -> ScoreScale {
        self.0
    }

    fn score(&self, _: &str, _: &[&str]) -> jointly::Result<Vec<Score>> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file's cascade, and the models that there are with it.
    fn read(text: &str, models: &[(&str, ModelConfig)]) -> Result<(Plan, Vec<String>), String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cascade.toml");
        std::fs::write(&path, text).unwrap();
        let mut models: BTreeMap<String, ModelConfig> =
            models.iter().map(|(name, model)| ((*name).to_string(), model.clone())).collect();
        let plan = Plan::read("best", path.to_str().unwrap(), &mut models)?;
        Ok((plan, models.into_keys().collect()))
    }

    fn model(source: &str, precision: &str) -> ModelConfig {
        ModelConfig { source: source.into(), precision: precision.into(), ..ModelConfig::default() }
    }

    #[test]
    fn stages_use_the_models_of_the_configuration_and_bring_their_own() {
        let file = "[[stage]]\nmodel = \"small\"\nkeep = 50\n\
                    [[stage]]\nkind = \"confirm\"\nmodel = \"small\"\nprecision = \"f32\"\nscreen_precision = \"int8\"\nslack = 1\n\
                    [[stage]]\nmodel = \"some/large\"\nprecision = \"bf16\"\n\
                    [[stage]]\nmodel = \"some/other\"";
        let configured = [("small", model("default", "auto")), ("big", model("some/large", "bf16"))];
        let (plan, models) = read(file, &configured).unwrap();
        let names: Vec<&str> = plan.readers.iter().map(|reader| reader.model.as_str()).collect();
        assert_eq!(names, ["small", "small@int8", "small@f32", "big", "some/other@f32"]);
        assert_eq!(models, ["big", "small", "small@f32", "small@int8", "some/other@f32"]);
    }

    #[test]
    fn what_has_no_queue_is_asked_for_beside_them() {
        let file = "[[stage]]\nmodel = \"bi:some/small\"\nkeep = 50\n\
                    [[stage]]\nkind = \"distinct\"\nsimilarity = \"bi:some/small\"\n\
                    [[stage]]\nkind = \"confirm\"\nmodel = \"some/large\"\nscreen_model = \"bi:some/small\"\n\
                    screen_precision = \"bf16\"\nslack = 1\n\
                    [[stage]]\nkind = \"one-pass\"\nmodel = \"some/list\"\nprecision = \"auto\"\nmax_length = 900\n\
                    [[stage]]\nkind = \"listwise\"\nendpoint = \"http://127.0.0.1:1/v1\"\nmodel = \"m\"";
        let (plan, models) = read(file, &[]).unwrap();
        assert_eq!(models, ["some/large@f32"]);
        assert_eq!((plan.readers.len(), plan.asking.len()), (1, 1));
        let labels: Vec<String> = plan.beside.iter().map(Need::label).collect();
        assert_eq!(
            labels,
            ["bi:some/small@f32", "bi:some/small@f32", "bi:some/small@bf16", "some/list@f32/900"]
        );
        assert_eq!(plan.stages[3..], ["list@auto", "listwise m"]);
        assert!(plan.reads_beside() && plan.gives_scores());
        let (plan, _) = read("[[stage]]\nmodel = \"default\"", &[]).unwrap();
        assert!(!plan.reads_beside());
    }

    #[test]
    fn what_cannot_be_served_is_said_with_its_stage() {
        let first = "[[stage]]\nmodel = \"default\"\n[[stage]]\n";
        for (second, problem) in [
            ("kind = \"nonsense\"", "stage 2: kind \"nonsense\" is not known here"),
            ("kind = \"listwise\"\nurl = \"http://127.0.0.1:1\"", "stage 2: listwise: unknown field `url`"),
            (
                "kind = \"listwise\"\nendpoint = \"ftp://a\"\nmodel = \"m\"",
                "stage 2: listwise: the endpoint is not an http or https URL",
            ),
            (
                "model = \"bi:x\"\ninstruction = \"y\"",
                "stage 2: model \"bi:x\": a bi-encoder takes no instruction",
            ),
            ("model = \"bi:x\"\nmax_length = 0", "stage 2: model \"bi:x\": max_length is 0"),
            ("kind = \"duo\"\nmodel = \"bi:x\"\ndepth = 3", "stage 2: "),
            ("kind = \"one-pass\"\nmodel = \"x\"\nblock = 0", "stage 2: block: 0"),
            ("kind = \"mmr\"\nkeep = 3\nlambda = 2", "stage 2: "),
            ("model = \"default\"\ndeep = 3", "stage 2: deep is no key"),
        ] {
            let error = read(&format!("{first}{second}"), &[]).unwrap_err();
            assert!(error.contains(problem), "{second}: {error}");
        }
        let error = Plan::read("best", "no/such/file.toml", &mut BTreeMap::new()).unwrap_err();
        assert!(error.starts_with("no/such/file.toml: "), "{error}");
    }

    #[test]
    fn what_each_stage_reads_is_bounded_before_it_begins() {
        let file = "[[stage]]\nmodel = \"default\"\ndepth = 200\nkeep = 50\n\
                    [[stage]]\nkind = \"distinct\"\n\
                    [[stage]]\nkind = \"confirm\"\nmodel = \"default\"\nscreen_precision = \"int8\"\nslack = 1\nkeep = 20\n\
                    [[stage]]\nkind = \"xquad\"\nmodel = \"default\"\nkeep = 5\n\
                    [[stage]]\nmodel = \"default\"";
        let (plan, _) = read(file, &[]).unwrap();
        assert_eq!(plan.most_read(1000, 3), [200, 50, 50, 60, 5]);
        assert_eq!(plan.most_read(10, 0), [10, 10, 10, 0, 5]);
        // What is read beside the queues bounds what comes after it.
        let file = "[[stage]]\nmodel = \"bi:x\"\nkeep = 100\n\
                    [[stage]]\nkind = \"one-pass\"\nmodel = \"y\"\ndepth = 40\n\
                    [[stage]]\nmodel = \"default\"\n\
                    [[stage]]\nkind = \"duo\"\nmodel = \"default\"\ndepth = 10\n\
                    [[stage]]\nmodel = \"default\"";
        let (plan, _) = read(file, &[]).unwrap();
        assert_eq!(plan.most_read(1000, 0), [40, 10 * 9, 10]);
        assert_eq!(plan.most_read(0, 0), [0, 0, 0]);
    }

    #[test]
    fn two_documents_are_as_long_as_the_two_longest() {
        let two = Two { max_chars: 3, around_bytes: 10 };
        let longest =
            |documents: &[&str]| two.longest(&documents.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(longest(&[]), 10);
        assert_eq!(longest(&["ab"]), 12);
        // Of the last one, three characters of two bytes.
        assert_eq!(longest(&["a", "abcdef", "ab", "\u{e9}\u{e9}\u{e9}\u{e9}"]), 10 + 6 + 3);
    }

    #[test]
    fn a_language_model_goes_on_where_it_is_asked_the_same() {
        let file = |model: &str| {
            format!("[[stage]]\nkind = \"listwise\"\nendpoint = \"http://127.0.0.1:1/v1\"\nmodel = {model:?}")
        };
        let mut known = Vec::new();
        let plan = |model: &str| read(&file(model), &[]).unwrap().0;
        let mut first = plan("m");
        first.go_on_with(&mut known);
        let is_first = |plan: &Plan, place: usize| plan.asking[place].goes_on(&first.asking[0]);
        // Whatever the cascade is called, and twice in one.
        let (mut same, _) = read(&format!("{}\n{}", file("m"), file("m")), &[]).unwrap();
        assert!(!is_first(&same, 0) && !is_first(&same, 1));
        same.go_on_with(&mut known);
        assert!(is_first(&same, 0) && is_first(&same, 1));
        let mut other = plan("n");
        other.go_on_with(&mut known);
        assert!(!is_first(&other, 0));
        assert_eq!(known.len(), 2);
    }

    #[test]
    fn what_has_no_queue_has_a_card() {
        let stage = "[[stage]]\nkind = \"listwise\"\nendpoint = \"http://127.0.0.1:1/v1\"\nmodel = \"m\"\n";
        let card = |stages: &str| read(stages, &[]).unwrap().0.card(&Beside::default(), 9);
        let found = card(&format!("{stage}max_chars = 700")).unwrap();
        assert_eq!((found.max_length, found.precision.as_str(), found.is_healthy), (1400, "unknown", true));
        assert_eq!(card("[[stage]]\nkind = \"mmr\"\nkeep = 3").unwrap().max_length, 9);
        // It is not there yet.
        assert_eq!(card("[[stage]]\nkind = \"one-pass\"\nmodel = \"some/list\""), None);
    }
}
