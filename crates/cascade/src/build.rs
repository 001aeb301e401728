//! A file and its models -> a cascade.

use std::borrow::Borrow;
use std::sync::Arc;

use jointly::rank::listwise::{OnePass, OnePassOptions, OnePassStage};
use jointly::rank::{
    Aggregate, Blend, Cascade, Confirm, Distinct, Dpp, Duo, DuoScorer, EarlyStop, Mmr, Rescore, Same, Scorer,
    Shingles, Similarity, Stage, Xquad,
};

use crate::Error;
use crate::spec::{
    AggregateSpec, BlendSpec, CascadeFile, ConfirmSpec, DiversitySpec, DuoSpec, EarlyStopSpec, ModelSpec,
    OnePassSpec, OtherSpec, RescoreSpec, SameSpec, SimilaritySpec, StageSpec,
};

/// A scorer that several stages may share.
pub type SharedScorer = Arc<dyn Scorer + Send + Sync>;

/// A stage that is handed over whole.
pub type SharedStage = Box<dyn Stage + Send>;

/// Where the models of a file come from: the command line loads them, a server has them.
pub trait Models {
    /// Why there is none.
    type Error: From<Error>;

    /// The scorer of a model, with its `max_length` and instruction. `bi:NAME` is a bi-encoder's: [`BiScorer`](crate::BiScorer).
    ///
    /// # Errors
    /// If there is no such model here.
    fn scorer(&mut self, model: &ModelSpec) -> Result<SharedScorer, Self::Error>;

    /// The scorer of a model that reads two documents as one text, which no option of the caller may cut or read in windows: one of
    /// the two would be lost.
    ///
    /// # Errors
    /// If there is no such model here.
    fn scorer_of_two(&mut self, model: &ModelSpec) -> Result<SharedScorer, Self::Error> {
        self.scorer(model)
    }

    /// What says how alike documents are, by the vectors of the bi-encoder of this name:
    /// [`Embedded`](jointly::rank::Embedded).
    ///
    /// # Errors
    /// If there is no such model here.
    fn likeness(&mut self, name: &str) -> Result<Box<dyn Similarity + Send>, Self::Error>;

    /// A model that reads a list in one pass, as a stage: [`OnePassSpec::stage`].
    ///
    /// # Errors
    /// If there is no such model here.
    fn one_pass(&mut self, spec: &OnePassSpec) -> Result<SharedStage, Self::Error>;

    /// A stage of a kind that this crate does not know. None: nor is it known here.
    ///
    /// # Errors
    /// If it is known and cannot be made.
    fn other(&mut self, spec: &OtherSpec) -> Result<Option<SharedStage>, Self::Error> {
        let _ = spec;
        Ok(None)
    }
}

impl CascadeFile {
    /// Makes the cascade.
    ///
    /// # Errors
    /// Those of `models`; [`Error::Stage`] for an option that cannot be honoured, or a kind that nobody knows.
    pub fn build<M: Models>(&self, models: &mut M) -> Result<Cascade<'static>, M::Error> {
        let mut cascade = Cascade::new().budget(self.budget.budget());
        for (place, spec) in self.stages.iter().enumerate() {
            let fault = |problem: String| {
                M::Error::from(Error::Stage { file: self.name.clone(), number: place + 1, problem })
            };
            let option = |error: jointly::Error| fault(error.to_string());
            let stage: SharedStage = match spec {
                StageSpec::Rescore(spec) => Box::new(rescore(spec, models.scorer(&spec.model)?)),
                StageSpec::Confirm(spec) => {
                    let (screen, exact) = (models.scorer(&spec.screen)?, models.scorer(&spec.model)?);
                    Box::new(confirm(spec, screen, exact).map_err(option)?)
                }
                StageSpec::Mmr(spec) => {
                    let DiversitySpec { lambda, keep, similarity, min_max, name } = spec;
                    let stage = Mmr::new(*lambda, *keep, likeness(similarity, models)?).map_err(option)?;
                    let stage = if *min_max { stage.min_max() } else { stage };
                    Box::new(stage.name(name.as_deref().unwrap_or("mmr")))
                }
                StageSpec::Dpp(spec) => {
                    let DiversitySpec { lambda, keep, similarity, min_max, name } = spec;
                    let stage = Dpp::new(*lambda, *keep, likeness(similarity, models)?).map_err(option)?;
                    let stage = if *min_max { stage.min_max() } else { stage };
                    Box::new(stage.name(name.as_deref().unwrap_or("dpp")))
                }
                StageSpec::Xquad(spec) => {
                    let stage =
                        Xquad::new(spec.lambda, spec.keep, models.scorer(&spec.model)?).map_err(option)?;
                    Box::new(stage.name(spec.name.as_deref().unwrap_or("xquad")))
                }
                StageSpec::Distinct(spec) => {
                    let stage =
                        Distinct::new(spec.limit, likeness(&spec.similarity, models)?).map_err(option)?;
                    Box::new(stage.name(spec.name.as_deref().unwrap_or("distinct")))
                }
                StageSpec::Duo(spec) => {
                    Box::new(duo(spec, models.scorer_of_two(&spec.model)?).map_err(option)?)
                }
                StageSpec::OnePass(spec) => {
                    spec.check().map_err(option)?;
                    models.one_pass(spec)?
                }
                StageSpec::Other(spec) => models.other(spec)?.ok_or_else(|| {
                    let kinds = "rescore, confirm, duo, one-pass, mmr, dpp, xquad and distinct";
                    fault(format!("kind {:?} is not known here; {kinds} are", spec.kind))
                })?,
            };
            cascade = cascade.boxed(stage);
        }
        Ok(cascade)
    }
}

fn likeness<M: Models>(
    spec: &SimilaritySpec,
    models: &mut M,
) -> Result<Box<dyn Similarity + Send>, M::Error> {
    Ok(match spec {
        SimilaritySpec::Shingles(words) => Box::new(Shingles::new(*words)),
        SimilaritySpec::Bi(name) => models.likeness(name)?,
    })
}

/// The last part of the model's name, and its precision where that is not f32.
fn name_of(model: &ModelSpec) -> String {
    let name = model.model.trim_end_matches('/').rsplit('/').next().unwrap_or(&model.model);
    match model.precision.precision() {
        Some(jointly::Precision::F32) => name.to_string(),
        Some(precision) => format!("{name}@{precision}"),
        None => format!("{name}@auto"),
    }
}

fn rescore(spec: &RescoreSpec, scorer: SharedScorer) -> Rescore<SharedScorer> {
    let mut stage = match spec.depth {
        Some(depth) => Rescore::new(scorer, depth),
        None => Rescore::all(scorer),
    };
    stage = stage.name(spec.name.clone().unwrap_or_else(|| name_of(&spec.model)));
    if let Some(keep) = spec.keep {
        stage = stage.keep(keep);
    }
    stage = match (spec.blend, spec.weight) {
        (Some(BlendSpec::Interpolate), Some(weight)) => stage.blend(Blend::Interpolate { weight }),
        (Some(BlendSpec::Rrf), _) => stage.blend(Blend::ReciprocalRank),
        _ => stage,
    };
    stage = match (spec.early_stop, spec.top_n) {
        (Some(EarlyStopSpec::Proven), Some(top_n)) => stage.early_stop(EarlyStop::Proven { top_n }),
        (Some(EarlyStopSpec::Unchanged), Some(top_n)) => {
            stage.early_stop(EarlyStop::Unchanged { top_n, patience: spec.patience.unwrap_or(2) })
        }
        _ => stage,
    };
    if let Some(probability) = spec.min_probability {
        stage = stage.min_probability(probability);
    }
    if let Some(score) = spec.min_score {
        stage = stage.min_score(score);
    }
    if let Some(min_keep) = spec.min_keep {
        stage = stage.min_keep(min_keep);
    }
    if let Some(pairs) = spec.batch_pairs {
        stage = stage.batch_pairs(pairs);
    }
    match spec.usd_per_million_tokens {
        Some(usd) => stage.usd_per_million_tokens(usd),
        None => stage,
    }
}

fn duo(spec: &DuoSpec, scorer: SharedScorer) -> jointly::Result<Duo<DuoScorer<SharedScorer>>> {
    let scorer = DuoScorer::new(scorer)?.max_chars(spec.max_chars);
    let scorer = match &spec.template {
        Some(template) => scorer.template(template)?,
        None => scorer,
    };
    let aggregate = match spec.aggregate {
        AggregateSpec::Thurstone => Aggregate::Thurstone,
        AggregateSpec::Sum => Aggregate::Sum,
    };
    let stage = Duo::new(scorer, spec.depth).aggregate(aggregate);
    let stage = stage.name(spec.name.clone().unwrap_or_else(|| format!("duo {}", name_of(&spec.model))));
    Ok(match spec.batch_pairs {
        Some(pairs) => stage.batch_pairs(pairs),
        None => stage,
    })
}

impl OnePassSpec {
    /// What the stage is called in reports.
    #[must_use]
    pub fn stage_name(&self) -> String {
        self.name.clone().unwrap_or_else(|| name_of(&self.model))
    }

    /// How it reads.
    #[must_use]
    pub fn options(&self) -> OnePassOptions {
        let mut options = OnePassOptions::new();
        if let Some(documents) = self.block {
            options = options.block(documents);
        }
        if let Some(tokens) = self.max_query_tokens {
            options = options.max_query_tokens(tokens);
        }
        if let Some(tokens) = self.max_document_tokens {
            options = options.max_document_tokens(tokens);
        }
        if let Some(instruction) = &self.model.instruction {
            options = options.instruction(instruction);
        }
        match self.depth {
            Some(depth) => options.depth(depth),
            None => options,
        }
    }

    /// Whether its numbers can be.
    ///
    /// # Errors
    /// [`InvalidOption`](jointly::Error::InvalidOption).
    pub fn check(&self) -> jointly::Result<()> {
        self.options().check()
    }

    /// The stage, of a model that was loaded.
    ///
    /// # Errors
    /// As [`OnePassSpec::check`].
    pub fn stage<M: Borrow<OnePass> + Sync>(&self, model: M) -> jointly::Result<OnePassStage<M>> {
        let stage = OnePassStage::new(model, self.options())?.name(self.stage_name());
        Ok(match self.keep {
            Some(keep) => stage.keep(keep),
            None => stage,
        })
    }
}

fn confirm(
    spec: &ConfirmSpec,
    screen: SharedScorer,
    exact: SharedScorer,
) -> jointly::Result<Confirm<SharedScorer, SharedScorer>> {
    let same = match spec.same {
        SameSpec::Order => Same::Order,
        SameSpec::Set => Same::Set,
    };
    let mut stage = Confirm::new(screen, exact, (spec.top_n, spec.slack))?.same(same);
    let name = || format!("{} > {}", name_of(&spec.screen), name_of(&spec.model));
    stage = stage.name(spec.name.clone().unwrap_or_else(name));
    if let Some(confidence) = spec.confidence {
        stage = stage.confidence(confidence);
    }
    if let Some(depth) = spec.depth {
        stage = stage.depth(depth);
    }
    Ok(match spec.keep {
        Some(keep) => stage.keep(keep),
        None => stage,
    })
}
