//! Cascades that are served: a name for stages, each of which asks a model of this server through its queue.

mod run;

use std::collections::BTreeMap;
use std::sync::Arc;

use jointly::rank::Scorer;
use jointly::{BiEncoder, Score, ScoreScale};
use jointly_cascade::{
    CascadeFile, ModelSpec, Models, PrecisionSpec, SharedScorer, SimilaritySpec, StageSpec,
};

use crate::config::ModelConfig;

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
    /// Who reads, in the order in which [`CascadeFile::build`] asks for them: one for most stages, two for those that confirm.
    pub readers: Vec<Reader>,
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
}

impl Plan {
    /// Reads a file. Models that it names and that are not in `models` are added there: those of the configuration go by
    /// their names, others by what they are loaded from, as on the command line.
    ///
    /// # Errors
    /// What the file says that cannot be served.
    pub fn read(name: &str, path: &str, models: &mut BTreeMap<String, ModelConfig>) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
        let file = CascadeFile::parse(path, &text).map_err(|error| error.to_string())?;
        let mut readers = Vec::new();
        for (place, stage) in file.stages.iter().enumerate() {
            let wrong = |problem: String| format!("{path}: stage {}: {problem}", place + 1);
            can_be_served(stage).map_err(wrong)?;
            for spec in stage.models() {
                readers.push(Reader {
                    model: place_of(spec, models).map_err(wrong)?,
                    max_length: spec.max_length,
                    instruction: spec.instruction.clone(),
                });
            }
        }
        // Options that no stage can have are said now, and not to the first client.
        let cascade = file.build(&mut Nobody).map_err(|error| error.to_string())?;
        let stages = cascade.names().map(String::from).collect();
        Ok(Self { name: name.to_string(), file, stages, readers })
    }

    /// How many documents each reader reads at most, of so many, with so many sub-queries.
    #[must_use]
    pub fn most_read(&self, documents: usize, sub_queries: usize) -> Vec<usize> {
        let mut left = documents;
        let mut most = Vec::with_capacity(self.readers.len());
        for stage in &self.file.stages {
            let (depth, keep) = match stage {
                StageSpec::Rescore(spec) => (spec.depth, spec.keep),
                StageSpec::Confirm(spec) => (spec.depth, spec.keep),
                StageSpec::Mmr(spec) | StageSpec::Dpp(spec) => (None, Some(spec.keep)),
                StageSpec::Xquad(spec) => (None, Some(spec.keep)),
                _ => (None, None),
            };
            let read = depth.map_or(left, |depth| depth.min(left));
            let times = if matches!(stage, StageSpec::Xquad(_)) { sub_queries } else { 1 };
            most.extend(stage.models().iter().map(|_| read * times));
            left = keep.map_or(read, |keep| keep.min(read));
        }
        most
    }
}

/// Why a stage is not served, if so.
fn can_be_served(stage: &StageSpec) -> Result<(), String> {
    let likeness = match stage {
        StageSpec::Mmr(spec) | StageSpec::Dpp(spec) => Some(&spec.similarity),
        StageSpec::Distinct(spec) => Some(&spec.similarity),
        StageSpec::Other(spec) => {
            let problem = "it is not served; `jointly rerank --cascade` may know it";
            return Err(format!("kind {:?}: {problem}", spec.kind));
        }
        _ => None,
    };
    match likeness {
        Some(SimilaritySpec::Bi(model)) => {
            Err(format!("similarity \"bi:{model}\": bi-encoders are not served; \"shingles\" is"))
        }
        _ => Ok(()),
    }
}

/// The name of a stage's model among those of the server, where it is put if it is not there.
fn place_of(spec: &ModelSpec, models: &mut BTreeMap<String, ModelConfig>) -> Result<String, String> {
    if spec.model.starts_with("bi:") {
        return Err(format!("model {:?}: bi-encoders are not served", spec.model));
    }
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
struct Nobody;

impl Scorer for Nobody {
    fn scale(&self) -> ScoreScale {
        ScoreScale::Probability
    }

    fn score(&self, _: &str, _: &[&str]) -> jointly::Result<Vec<Score>> {
        Ok(Vec::new())
    }
}

impl Models for Nobody {
    type Error = jointly_cascade::Error;

    fn scorer(&mut self, _: &ModelSpec) -> Result<SharedScorer, Self::Error> {
        Ok(Arc::new(Self))
    }

    fn bi_encoder(&mut self, name: &str) -> Result<Arc<BiEncoder>, Self::Error> {
        let problem = "bi-encoders are not served".into();
        Err(jointly_cascade::Error::Stage { file: name.to_string(), number: 0, problem })
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
    fn what_cannot_be_served_is_said_with_its_stage() {
        let first = "[[stage]]\nmodel = \"default\"\n[[stage]]\n";
        for (second, problem) in [
            (
                "kind = \"listwise\"\nurl = \"http://127.0.0.1:1\"",
                "stage 2: kind \"listwise\": it is not served",
            ),
            (
                "kind = \"mmr\"\nkeep = 3\nsimilarity = \"bi:x\"",
                "stage 2: similarity \"bi:x\": bi-encoders are not served",
            ),
            ("model = \"bi:x\"", "stage 2: model \"bi:x\": bi-encoders are not served"),
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
    }
}
