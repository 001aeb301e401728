//! A request to a cascade: its stages run on a thread of their own, its pairs wait in the queues of its models beside those of
//! everybody else. Room in all queues is asked for before the first stage begins, so that nobody who was taken in is refused later.
//! What a stage reads beside the queues it computes, or asks for, on that thread.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jointly::rank::{Budget, Cancel, Meter, Outcome, Placed, Request, Scorer, Similarity, Stop, SubQuery};
use jointly::text::EncodedPair;
use jointly::{Error, Pair, Score, ScoreOptions, ScoreScale};
use jointly_cascade::{ModelSpec, Models, OnePassSpec, OtherSpec, SharedScorer, SharedStage};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::beside::{Asking, Beside, Heard, LISTWISE, Need, Turns};
use super::{Plan, Reader};
use crate::cores::{Cores, give_way};
use crate::models::Loaded;
use crate::queue::Refusal;
use crate::service::{
    Context, Place, Service, Texts, Work, admit, failure_of, guess, longest, queue_options,
};
use crate::{
    Coverage, Failure, FailureKind, Hit, Items, Latency, Overlong, RerankRequest, RerankResponse, Timing,
    Usage,
};

/// So long after the deadline a stage that reads beside the queues may still say how far it came.
const LAST_WORDS: Duration = Duration::from_millis(250);

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
    let early = match plan.reads_beside() {
        true => Some(permitted_beside(service, plan, context, deadline).await?),
        false => None,
    };
    let wanted: Vec<(Arc<Loaded>, usize)> =
        loaded.iter().cloned().zip(prices(plan, &loaded, &asked)).collect();
    let (places, latency) = admit(&asked.request, context, &wanted, deadline)?;
    let permit = match early {
        Some(permit) => permit,
        None => permitted(&service.cascades, deadline).await.ok_or_else(late)?,
    };

    let (here, gone) = Here::new();
    let shared = Arc::new(Shared {
        service: Arc::clone(service),
        runtime: Handle::current(),
        gone,
        // Of a partial answer the budget sees to the deadline, between two batches.
        deadline: if asked.request.partial { deadline + context.config.queue.max_wait } else { deadline },
        found: Mutex::default(),
    });
    let turns = Turns::new(&service.stable.cores);
    let heard = Heard::default();
    let asking: Vec<SharedStage> = plan.asking.iter().map(|asking| asking.stage(&heard)).collect();
    let models = InTurn {
        queues: readers(plan, &shared, &asked.request, loaded.into_iter().zip(places)),
        asking: asking.into_iter(),
        beside: context.catalog.beside(),
        turns: Arc::clone(&turns),
        instruction: asked.request.instruction.clone(),
    };
    // Queues hear of the deadline and of a client that leaves by themselves.
    let mut budget = Budget::new();
    if asked.request.partial || plan.reads_beside() {
        budget = budget.deadline(deadline);
    }
    if plan.reads_beside() {
        budget = budget.cancel(here.cancel.clone());
    }
    // A time that the file gives may end it sooner. Then what there is by then is the answer, whoever asks.
    let own = Meter::start(plan.file.budget.budget()).time_left();
    let is_owed_whole = plan.reads_beside()
        && !asked.request.partial
        && own.is_none_or(|own| own >= deadline.saturating_duration_since(Instant::now()));
    let (sender, receiver) = oneshot::channel();
    let (running, theirs) = (Arc::clone(&shared), Arc::clone(plan));
    let failed = |problem: String| Failure::new(FailureKind::Internal, "the cascade failed").inside(problem);
    let thread = std::thread::Builder::new().name("jointly-cascade".into()).spawn(move || {
        give_way();
        let ended = run(&theirs, models, &asked, budget).map_err(|error| running.failure(&error));
        drop(permit);
        // Nobody listens to a request that was given up.
        let _ = sender.send(ended.map(|outcome| (outcome, asked)));
    });
    thread.map_err(|error| failed(error.to_string()))?;
    let ended = match is_owed_whole {
        // Its thread may wait for the cores then, or compute a block of a list: it hears that nobody waits for it when that is done,
        // and has its permit until it ends.
        true => {
            let last = tokio::time::timeout_at((deadline + LAST_WORDS).into(), receiver).await;
            last.map_err(|_| unfinished())?
        }
        false => receiver.await,
    };
    let ended = ended.map_err(|_| failed("it panicked".to_string()))?;
    let (outcome, asked) = ended?;
    if is_owed_whole && let Some(failure) = cut_short(&outcome) {
        return Err(failure);
    }
    log_unanswered(plan, &outcome, &heard, context);
    let mut found = std::mem::take(&mut *shared.found());
    let (waited, computed) = turns.times();
    found.queue += waited;
    found.inference += computed;
    Ok(response((plan, outcome), &asked, found, (context, model, latency)))
}

/// The right to run beside others, if there is one until then.
async fn permitted(permits: &Arc<Semaphore>, until: Instant) -> Option<OwnedSemaphorePermit> {
    let permit = tokio::time::timeout_at(until.into(), Arc::clone(permits).acquire_owned()).await;
    permit.ok()?.ok()
}

/// The same for what reads beside the queues. How long that takes is in no price: it is waited for before there is a place in any
/// queue, which others could have meanwhile, and no longer than a request may have to wait in one.
async fn permitted_beside(
    service: &Service,
    plan: &Plan,
    context: &Context,
    deadline: Instant,
) -> Result<OwnedSemaphorePermit, Failure> {
    let max_wait = context.config.queue.max_wait;
    let until = deadline.min(Instant::now() + max_wait);
    let permits = if plan.asking.is_empty() { &service.cascades_beside } else { &service.cascades_asking };
    let permit = permitted(permits, until).await;
    permit.ok_or_else(|| if until < deadline { Refusal::Full(max_wait).into() } else { late() })
}

fn late() -> Failure {
    Failure::new(FailureKind::DeadlineExceeded, "the deadline came before the first stage")
}

fn unfinished() -> Failure {
    Failure::new(FailureKind::DeadlineExceeded, "the deadline came before the last stage was done")
}

/// Whoever leaves drops this, and the stage that runs hears of it.
struct Here {
    _queues: watch::Sender<()>,
    cancel: Cancel,
}

impl Here {
    /// The other one is what a queue's stage listens to.
    fn new() -> (Self, watch::Receiver<()>) {
        let (sender, gone) = watch::channel(());
        (Self { _queues: sender, cancel: Cancel::new() }, gone)
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// What a client hears who wanted all, if the deadline came in a stage that makes an answer of it.
fn cut_short(outcome: &Outcome) -> Option<Failure> {
    if !matches!(outcome.stop, Some(Stop::Deadline | Stop::Cancelled)) {
        return None;
    }
    let place = outcome.stages.iter().position(|report| report.stop.is_some())?;
    let (read, incoming) = (outcome.stages[place].read, outcome.stages[place].incoming);
    let message = format!(
        "the deadline came in stage {} of {}, when it had read {read} of {incoming} documents",
        place + 1,
        outcome.stages.len()
    );
    Some(Failure::new(FailureKind::DeadlineExceeded, message))
}

/// Whoever runs the server is told, once for a request, that a language model did not answer. Why is among the notes, in which a server
/// may repeat what users wrote.
fn log_unanswered(plan: &Plan, outcome: &Outcome, heard: &Heard, context: &Context) {
    let (mut stages, mut unanswered) = (Vec::new(), 0);
    for report in &outcome.stages {
        let Some(asked) = report.asked.filter(|asked| asked.unanswered > 0) else { continue };
        stages.push(report.name.as_str());
        unanswered += asked.unanswered;
    }
    if unanswered == 0 {
        return;
    }
    let notes = if context.config.log.user_text { heard.notes().join("; ") } else { String::new() };
    let (cascade, stages) = (&plan.name, stages.join(", "));
    tracing::warn!(cascade, stages, unanswered, notes, "a language model did not answer");
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

/// What a stage asks of its model: as the request, where the stage says nothing else. What a request says of long texts is
/// not said of two documents in one, of which one would be lost.
fn of_stage(reader: &Reader, request: &RerankRequest) -> RerankRequest {
    let (overlong, max_tokens_per_doc, asked) = match reader.two {
        Some(_) => (Overlong::default(), None, None),
        None => (request.overlong, request.max_tokens_per_doc, request.max_tokens_per_pair),
    };
    let max_tokens_per_pair = match (reader.max_length, asked) {
        (Some(own), Some(asked)) => Some(own.min(asked)),
        (own, asked) => own.or(asked),
    };
    RerankRequest {
        max_tokens_per_pair,
        instruction: reader.instruction.clone().or_else(|| request.instruction.clone()),
        overlong,
        max_tokens_per_doc,
        ..RerankRequest::new(Items::Pairs(Vec::new()))
    }
}

/// The tokens that each reader reads at most: those of the longest documents, as many as it reads at most. Two that are read as one
/// text are taken for the two longest.
fn prices(plan: &Plan, loaded: &[Arc<Loaded>], asked: &Asked) -> Vec<usize> {
    let most = plan.most_read(asked.documents.len(), asked.request.sub_queries.len());
    let price = |((reader, loaded), most): ((&Reader, &Arc<Loaded>), usize)| {
        let stage = of_stage(reader, &asked.request);
        let max_length = longest(&stage, loaded.queue.engine().card().max_length);
        let tokens = |bytes: usize| guess((asked.query.len(), bytes), &stage, max_length, loaded);
        if let Some(two) = reader.two {
            return most.saturating_mul(tokens(two.longest(&asked.documents)));
        }
        let mut each: Vec<usize> = asked.documents.iter().map(|document| tokens(document.len())).collect();
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
) -> std::vec::IntoIter<SharedScorer> {
    let scorer = |(reader, (loaded, place)): (&Reader, (Arc<Loaded>, Place))| -> SharedScorer {
        let (shared, stage) = (Arc::clone(shared), of_stage(reader, request));
        Arc::new(QueueScorer { shared, stage, loaded, place: Mutex::new(place) })
    };
    plan.readers.iter().zip(places).map(scorer).collect::<Vec<_>>().into_iter()
}

/// What the stages of a plan ask for.
struct InTurn {
    /// In the order in which they ask.
    queues: std::vec::IntoIter<SharedScorer>,
    /// In the order in which they ask.
    asking: std::vec::IntoIter<SharedStage>,
    beside: Arc<Beside>,
    turns: Arc<Turns>,
    /// Of the request, for those that say none.
    instruction: Option<String>,
}

impl Models for InTurn {
    type Error = jointly_cascade::Error;

    fn scorer(&mut self, spec: &ModelSpec) -> Result<SharedScorer, Self::Error> {
        let found = match Need::scorer(spec) {
            Some(_) => self.beside.scorer(spec, &self.turns),
            None => self.queues.next(),
        };
        found.ok_or_else(|| not_here(&spec.model))
    }

    fn likeness(&mut self, name: &str) -> Result<Box<dyn Similarity + Send>, Self::Error> {
        self.beside.likeness(name, &self.turns).ok_or_else(|| not_here(name))
    }

    fn one_pass(&mut self, spec: &OnePassSpec) -> Result<SharedStage, Self::Error> {
        let mut spec = spec.clone();
        spec.model.instruction = spec.model.instruction.or_else(|| self.instruction.clone());
        self.beside.list(&spec, &self.turns).ok_or_else(|| not_here(&spec.model.model))
    }

    fn other(&mut self, spec: &OtherSpec) -> Result<Option<SharedStage>, Self::Error> {
        Ok(if spec.kind == LISTWISE { self.asking.next() } else { None })
    }
}

/// All that a plan asks for is there before a request is taken.
fn not_here(model: &str) -> jointly_cascade::Error {
    let (file, problem) = (model.to_string(), "it is not loaded".to_string());
    jointly_cascade::Error::Stage { file, number: 0, problem }
}

fn run(plan: &Plan, mut models: InTurn, asked: &Asked, budget: Budget) -> jointly::Result<Outcome> {
    let broken =
        |error: jointly_cascade::Error| Error::Stage { stage: plan.name.clone(), problem: error.to_string() };
    let cascade = plan.file.build(&mut models).map_err(broken)?;
    let documents: Vec<&str> = asked.documents.iter().map(String::as_str).collect();
    let sub_queries: Vec<SubQuery<'_>> =
        asked.request.sub_queries.iter().map(|(text, weight)| SubQuery { text, weight: *weight }).collect();
    let mut request = Request::new(&asked.query, &documents).sub_queries(&sub_queries).budget(budget);
    if let Some(scores) = &asked.request.first_scores {
        request = request.first_scores(scores);
    }
    cascade.run(&request)
}

/// All that is known of a document that stages have only put in a place: the further down, the less. The first has 0.
fn by_place(place: usize) -> Score {
    let score = 0.0 - place as f32;
    Score { logit: score, score, probability: None, tokens: 0, truncated: false, windows: 0, span: None }
}

fn response(
    (plan, outcome): (&Plan, Outcome),
    asked: &Asked,
    found: Found,
    (context, model, latency): (&Context, String, Latency),
) -> RerankResponse {
    let texts = std::iter::once(&asked.query).chain(&asked.documents);
    let (bytes, characters) =
        texts.fold((0, 0), |(bytes, chars), text| (bytes + text.len(), chars + text.chars().count()));
    let scale = outcome.hits.iter().find_map(|placed| placed.score.is_some().then_some(placed.scale));
    // What no stage has read has no score, and no place in an answer.
    let gives_scores = plan.gives_scores();
    let hit = |placed: &Placed, score: Score| Hit {
        index: placed.index,
        score,
        scale: placed.scale,
        stage: placed.stage,
        spans: Vec::new(),
    };
    let placed = outcome.hits.iter();
    let mut hits: Vec<Hit> = match gives_scores {
        true => placed.filter_map(|placed| Some(hit(placed, placed.score.clone()?))).collect(),
        false => {
            let placed = placed.filter(|placed| placed.value.is_some()).enumerate();
            placed.map(|(place, placed)| hit(placed, by_place(place))).collect()
        }
    };
    let read = outcome.stages.iter().map(|report| report.read).max().unwrap_or(0);
    let scored = if gives_scores { hits.len() } else { hits.len().min(read) };
    let coverage = Coverage { scored, given: asked.documents.len() };
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
/// before a client finds it. Language models are not asked: whether they answer is nothing that holds.
pub(crate) fn try_out(
    plan: &Plan,
    loaded: &[Arc<Loaded>],
    beside: Arc<Beside>,
    cores: &Arc<Cores>,
) -> Result<(), String> {
    let direct = |(reader, loaded): (&Reader, &Arc<Loaded>)| -> SharedScorer {
        let (reader, loaded, cores) = (reader.clone(), Arc::clone(loaded), Arc::clone(cores));
        Arc::new(Direct { reader, loaded, cores })
    };
    let models = InTurn {
        queues: plan.readers.iter().zip(loaded).map(direct).collect::<Vec<_>>().into_iter(),
        asking: plan.asking.iter().map(Asking::silent).collect::<Vec<_>>().into_iter(),
        beside,
        turns: Turns::new(cores),
        instruction: None,
    };
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
    run(plan, models, &asked, Budget::new()).map(drop).map_err(|error| error.to_string())
}

struct Direct {
    reader: Reader,
    loaded: Arc<Loaded>,
    cores: Arc<Cores>,
}

impl Scorer for Direct {
    fn scale(&self) -> ScoreScale {
        self.loaded.queue.engine().card().scale
    }

    fn score(&self, query: &str, documents: &[&str]) -> jointly::Result<Vec<Score>> {
        let _lent = self.cores.acquire();
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
