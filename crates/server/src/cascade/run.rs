//! A request to a cascade: its stages run on a thread of their own, its pairs wait in the queues of its models beside those of
//! everybody else. Room in all queues is asked for before the first stage begins, so that nobody who was taken in is refused later.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jointly::rank::{Budget, Outcome, Request, Scorer, SubQuery};
use jointly::text::EncodedPair;
use jointly::{BiEncoder, Error, Pair, Score, ScoreOptions, ScoreScale};
use jointly_cascade::{ModelSpec, Models, SharedScorer};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use super::{Plan, Reader};
use crate::cores::give_way;
use crate::models::Loaded;
use crate::service::{
    Context, Place, Service, Texts, Work, admit, failure_of, guess, longest, queue_options,
};
use crate::{
    Coverage, Failure, FailureKind, Hit, Items, Latency, RerankRequest, RerankResponse, Timing, Usage,
};

/// What is known of a request to a cascade before it is begun.
struct Asked {
    request: RerankRequest,
    query: String,
    documents: Vec<String>,
}

/// Answers a request.
pub(crate) async fn rerank(
    service: &Arc<Service>,
    plan: &Arc<Plan>,
    request: RerankRequest,
    (context, deadline): (&Context, Instant),
) -> Result<RerankResponse, Failure> {
    let model = request.model.clone().unwrap_or_else(|| plan.name.clone());
    let asked = asked(request)?;
    let mut loaded = Vec::with_capacity(plan.readers.len());
    let options = queue_options(&context.config);
    for reader in &plan.readers {
        let slot = context.catalog.slot(&reader.model)?;
        let loading = service.stable.get(&context.catalog, slot, &options);
        let late =
            |_| Failure::new(FailureKind::DeadlineExceeded, "the deadline came before the model was loaded");
        loaded.push(tokio::time::timeout_at(deadline.into(), loading).await.map_err(late)??);
    }
    let wanted: Vec<(Arc<Loaded>, usize)> =
        loaded.iter().cloned().zip(prices(plan, &loaded, &asked)).collect();
    let (places, latency) = admit(&asked.request, context, &wanted, deadline)?;
    let late = |_| Failure::new(FailureKind::DeadlineExceeded, "the deadline came before the first stage");
    let permit =
        tokio::time::timeout_at(deadline.into(), Arc::clone(&service.cascades).acquire_owned()).await;
    let permit = permit.map_err(late)?;

    // Whoever leaves drops this, and the stage that runs hears of it.
    let (_here, gone) = watch::channel(());
    let shared = Arc::new(Shared {
        service: Arc::clone(service),
        runtime: Handle::current(),
        gone,
        // Of a partial answer the budget sees to the deadline, between two batches.
        deadline: if asked.request.partial { deadline + context.config.queue.max_wait } else { deadline },
        found: Mutex::default(),
    });
    let readers = readers(plan, &shared, &asked.request, loaded.into_iter().zip(places));
    let (sender, receiver) = oneshot::channel();
    let (running, plan) = (Arc::clone(&shared), Arc::clone(plan));
    let failed = |problem: String| Failure::new(FailureKind::Internal, "the cascade failed").inside(problem);
    let thread = std::thread::Builder::new().name("jointly-cascade".into()).spawn(move || {
        give_way();
        let ended = run(&plan, readers, &asked, deadline).map_err(|error| running.failure(&error));
        drop(permit);
        // Nobody listens to a request that was given up.
        let _ = sender.send(ended.map(|outcome| (outcome, asked)));
    });
    thread.map_err(|error| failed(error.to_string()))?;
    let ended = receiver.await.map_err(|_| failed("it panicked".to_string()))?;
    let (outcome, asked) = ended?;
    let found = std::mem::take(&mut *shared.found());
    Ok(response(outcome, &asked, found, (context, model, latency)))
}

/// What of a request a cascade can be asked.
fn asked(request: RerankRequest) -> Result<Asked, Failure> {
    let invalid = |field: &str, problem: &str| {
        Err(Failure::new(FailureKind::Invalid, format!("{field}: {problem}")).field(field))
    };
    if request.spans.is_some() {
        return invalid("spans", "a cascade says no relevant parts; a model does");
    }
    let Items::Documents { query, documents } = &*request.items else {
        return invalid("model", "a cascade ranks documents; name a model for pairs");
    };
    let (query, documents) = (query.clone(), documents.clone());
    Ok(Asked { request, query, documents })
}

/// What a stage asks of its model: as the request, where the stage says nothing else.
fn of_stage(reader: &Reader, request: &RerankRequest) -> RerankRequest {
    let own = reader.max_length;
    let max_tokens_per_pair = match (own, request.max_tokens_per_pair) {
        (Some(own), Some(asked)) => Some(own.min(asked)),
        (own, asked) => own.or(asked),
    };
    RerankRequest {
        max_tokens_per_pair,
        instruction: reader.instruction.clone().or_else(|| request.instruction.clone()),
        overlong: request.overlong,
        max_tokens_per_doc: request.max_tokens_per_doc,
        ..RerankRequest::new(Items::Pairs(Vec::new()))
    }
}

/// The tokens that each reader reads at most: those of the longest documents, as many as it reads at most.
fn prices(plan: &Plan, loaded: &[Arc<Loaded>], asked: &Asked) -> Vec<usize> {
    let most = plan.most_read(asked.documents.len(), asked.request.sub_queries.len());
    let price = |((reader, loaded), most): ((&Reader, &Arc<Loaded>), usize)| {
        let stage = of_stage(reader, &asked.request);
        let max_length = longest(&stage, loaded.queue.engine().card().max_length);
        let tokens =
            |document: &String| guess(Pair { query: &asked.query, document }, &stage, max_length, loaded);
        let mut each: Vec<usize> = asked.documents.iter().map(tokens).collect();
        each.sort_unstable_by(|a, b| b.cmp(a));
        // Sub-queries have documents read more than once.
        each.iter().cycle().take(if each.is_empty() { 0 } else { most }).sum()
    };
    plan.readers.iter().zip(loaded).zip(most).map(price).collect()
}

/// What the stages of a request have in common.
struct Shared {
    service: Arc<Service>,
    runtime: Handle,
    gone: watch::Receiver<()>,
    deadline: Instant,
    found: Mutex<Found>,
}

/// What the stages found beside scores.
#[derive(Default)]
struct Found {
    failure: Option<Failure>,
    tokenization: Duration,
    queue: Duration,
    inference: Duration,
}

impl Shared {
    fn found(&self) -> std::sync::MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a client hears of an error: the queue's own reason, if that is where it comes from.
    fn failure(&self, error: &Error) -> Failure {
        self.found().failure.take().unwrap_or_else(|| failure_of(error, 0))
    }
}

/// A model of a stage, for one request.
struct QueueScorer {
    shared: Arc<Shared>,
    stage: RerankRequest,
    loaded: Arc<Loaded>,
    place: Mutex<Place>,
}

impl Scorer for QueueScorer {
    fn scale(&self) -> ScoreScale {
        self.loaded.queue.engine().card().scale
    }

    fn score(&self, query: &str, documents: &[&str]) -> jointly::Result<Vec<Score>> {
        let Shared { service, runtime, gone, deadline, .. } = &*self.shared;
        let documents: Vec<String> = documents.iter().map(ToString::to_string).collect();
        let count = documents.len();
        let items = Arc::new(Items::Documents { query: query.to_string(), documents });
        let max_length = self.loaded.queue.engine().card().max_length;
        let texts = Arc::new(Texts::new(RerankRequest { items, ..self.stage.clone() }, max_length));
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        let mut work = Work::new(&texts, &self.loaded, place.slots);
        let mut gone = gone.clone();
        let ended = runtime.block_on(async {
            tokio::select! {
                ended = service.score(&mut work, &mut place, None, *deadline) => ended,
                // Only ever an error: nothing is sent.
                _ = gone.changed() => Err(Failure::new(FailureKind::Unavailable, "the client has left")),
            }
        });
        place.slots = work.end_slot();
        let mut found = self.shared.found();
        let (tokenization, queue, inference) = work.times();
        found.tokenization += tokenization;
        found.queue += queue;
        found.inference += inference;
        let scores: Result<Vec<Score>, Failure> =
            ended.and_then(|()| (0..count).map(|index| Ok(work.hit(index)?.score)).collect());
        // The library's errors have no place for a failure: it is kept aside, and `Shared::failure` finds it.
        scores.map_err(|failure| {
            let problem = failure.message.clone();
            found.failure = Some(failure);
            Error::Stage { stage: "of a queue".into(), problem }
        })
    }
}

fn readers(
    plan: &Plan,
    shared: &Arc<Shared>,
    request: &RerankRequest,
    places: impl Iterator<Item = (Arc<Loaded>, Place)>,
) -> InTurn {
    let scorer = |(reader, (loaded, place)): (&Reader, (Arc<Loaded>, Place))| -> SharedScorer {
        let (shared, stage) = (Arc::clone(shared), of_stage(reader, request));
        Arc::new(QueueScorer { shared, stage, loaded, place: Mutex::new(place) })
    };
    InTurn(plan.readers.iter().zip(places).map(scorer).collect::<Vec<_>>().into_iter())
}

/// Scorers in the order in which the stages ask for them.
struct InTurn(std::vec::IntoIter<SharedScorer>);

impl Models for InTurn {
    type Error = jointly_cascade::Error;

    fn scorer(&mut self, spec: &ModelSpec) -> Result<SharedScorer, Self::Error> {
        self.0.next().ok_or_else(|| not_served(&spec.model))
    }

    fn bi_encoder(&mut self, name: &str) -> Result<Arc<BiEncoder>, Self::Error> {
        Err(not_served(name))
    }
}

/// It was refused when the file was read.
fn not_served(model: &str) -> jointly_cascade::Error {
    let (file, problem) = (model.to_string(), "it is not served".to_string());
    jointly_cascade::Error::Stage { file, number: 0, problem }
}

fn run(plan: &Plan, mut readers: InTurn, asked: &Asked, deadline: Instant) -> jointly::Result<Outcome> {
    let broken =
        |error: jointly_cascade::Error| Error::Stage { stage: plan.name.clone(), problem: error.to_string() };
    let cascade = plan.file.build(&mut readers).map_err(broken)?;
    let documents: Vec<&str> = asked.documents.iter().map(String::as_str).collect();
    let sub_queries: Vec<SubQuery<'_>> =
        asked.request.sub_queries.iter().map(|(text, weight)| SubQuery { text, weight: *weight }).collect();
    let mut request = Request::new(&asked.query, &documents).sub_queries(&sub_queries);
    if let Some(scores) = &asked.request.first_scores {
        request = request.first_scores(scores);
    }
    if asked.request.partial {
        request = request.budget(Budget::new().deadline(deadline));
    }
    cascade.run(&request)
}

fn response(
    outcome: Outcome,
    asked: &Asked,
    found: Found,
    (context, model, latency): (&Context, String, Latency),
) -> RerankResponse {
    let texts = std::iter::once(&asked.query).chain(&asked.documents);
    let (bytes, characters) =
        texts.fold((0, 0), |(bytes, chars), text| (bytes + text.len(), chars + text.chars().count()));
    let scale = outcome.hits.iter().find_map(|placed| placed.score.is_some().then_some(placed.scale));
    // What no stage has read has no score, and no place in an answer.
    let hit = |placed: &jointly::rank::Placed| {
        let score = placed.score.clone()?;
        Some(Hit { index: placed.index, score, scale: placed.scale, stage: placed.stage, spans: Vec::new() })
    };
    let mut hits: Vec<Hit> = outcome.hits.iter().filter_map(hit).collect();
    let coverage = Coverage { scored: hits.len(), given: asked.documents.len() };
    let truncated = hits.iter().filter(|hit| hit.score.truncated).count();
    hits.truncate(asked.request.top_n.unwrap_or(usize::MAX));
    RerankResponse {
        id: context.id.clone(),
        model,
        hits,
        scale: scale.unwrap_or(ScoreScale::Ordinal),
        usage: Usage { tokens: outcome.spent.tokens as usize, bytes, characters, truncated },
        timing: Timing {
            total: context.began.elapsed(),
            tokenization: found.tokenization,
            queue: found.queue,
            inference: found.inference,
        },
        coverage,
        latency,
        stages: outcome.stages,
    }
}

/// Runs a cascade on a query of its own, past the queues: what no stage can do with the scores of its models is found
/// before a client finds it.
pub(crate) fn try_out(plan: &Plan, loaded: &[Arc<Loaded>]) -> Result<(), String> {
    let direct = |(reader, loaded): (&Reader, &Arc<Loaded>)| -> SharedScorer {
        Arc::new(Direct { reader: reader.clone(), loaded: Arc::clone(loaded) })
    };
    let scorers: Vec<SharedScorer> = plan.readers.iter().zip(loaded).map(direct).collect();
    let request = RerankRequest {
        first_scores: Some(vec![3.0, 2.0, 1.0]),
        sub_queries: vec![("hearing aids".into(), 1.0)],
        ..RerankRequest::new(Items::Pairs(Vec::new()))
    };
    let documents = ["A week.", "Between three and ten days, by its size.", "The hearing lasted a week."];
    let asked = Asked {
        request,
        query: "how long does a battery last".into(),
        documents: documents.map(String::from).to_vec(),
    };
    run(plan, InTurn(scorers.into_iter()), &asked, Instant::now())
        .map(drop)
        .map_err(|error| error.to_string())
}

struct Direct {
    reader: Reader,
    loaded: Arc<Loaded>,
}

impl Scorer for Direct {
    fn scale(&self) -> ScoreScale {
        self.loaded.queue.engine().card().scale
    }

    fn score(&self, query: &str, documents: &[&str]) -> jointly::Result<Vec<Score>> {
        let engine = self.loaded.queue.engine();
        let mut options = ScoreOptions::new();
        if let Some(tokens) = self.reader.max_length {
            options = options.max_length(tokens.min(engine.card().max_length));
        }
        if let Some(instruction) = &self.reader.instruction {
            options = options.instruction(instruction);
        }
        let pairs: Vec<Pair<'_>> = documents.iter().map(|&document| Pair { query, document }).collect();
        let encoded = engine.encode(&pairs, &options)?;
        let score = |encoded: &jointly::Encoded| {
            let sequences: Vec<&EncodedPair> = encoded.windows().iter().map(|window| &window.pair).collect();
            engine.score(encoded, &engine.logits(&sequences)?)
        };
        encoded.iter().map(score).collect()
    }
}
