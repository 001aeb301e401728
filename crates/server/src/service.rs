//! A request's way through the server, without HTTP: admitted, tokenised in parts, scored beside others, ranked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jointly::{Encoded, Long, Pair, Score, ScoreOptions, WindowOptions};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use crate::cascade;
use crate::config::Config;
use crate::keys::Client;
use crate::models::{Catalog, Loaded, Named, Slot, Stable};
use crate::queue::{Ask, Entry, Message, QueueOptions, Refusal, Ticket};
use crate::{
    Coverage, Failure, FailureKind, Hit, Items, Latency, Overlong, RerankRequest, RerankResponse, Timing,
    Usage, metrics,
};

/// Documents that are tokenised at once, by one thread.
const PART_DOCUMENTS: usize = 64;
/// Bytes of them, about.
const PART_BYTES: usize = 256 << 10;
/// Sequences of a request that wait for the model while no more of its documents are tokenised: enough for the model to be busy
/// meanwhile. Tokenising all of a large request at once would take the cores from everybody, and keep its tokens in memory.
const ENOUGH_WAITING: usize = 512;
/// Document tokens of the windows that relevant parts are looked for in: a few sentences.
const SPAN_TOKENS: usize = 64;
/// Windows of a document, whatever the client asks for.
const MOST_WINDOWS: usize = 1024;
/// Requests in no hurry come behind all others of the same client.
const SLOW: u16 = 1000;

/// What serves requests.
pub struct Service {
    /// Loads models.
    pub stable: Stable,
    /// Threads that tokenise at a time.
    pub tokenizers: Arc<Semaphore>,
    /// Cascades that run at a time, each on a thread.
    pub cascades: Arc<Semaphore>,
    /// Those that read beside the queues: what keeps one of them waiting keeps none of the others.
    pub cascades_beside: Arc<Semaphore>,
    /// Those that ask language models: one that hangs keeps none of the others.
    pub cascades_asking: Arc<Semaphore>,
}

/// What holds for a request from its beginning, whatever is reloaded meanwhile.
pub struct Context {
    /// The configuration.
    pub config: Arc<Config>,
    /// The models.
    pub catalog: Arc<Catalog>,
    /// Who asks.
    pub client: Arc<Client>,
    /// The request's id.
    pub id: String,
    /// When its head was read.
    pub began: Instant,
    /// Where documents go as they are scored, for streams.
    pub progress: Option<UnboundedSender<Progress>>,
}

/// Documents that were scored since the last time.
#[derive(Debug)]
pub struct Progress {
    /// The documents.
    pub hits: Vec<Hit>,
    /// How many there are by now.
    pub coverage: Coverage,
}

/// What the options of a queue are in a configuration.
#[must_use]
pub fn queue_options(config: &Config) -> QueueOptions {
    QueueOptions {
        batch_time: config.queue.batch_time,
        max_requests: config.queue.max_requests,
        max_tokens: config.queue.max_tokens,
        cached_scores: config.cache.scores,
    }
}

impl Service {
    /// Answers a request.
    ///
    /// # Errors
    /// Why not.
    pub async fn rerank(
        self: &Arc<Self>,
        request: RerankRequest,
        context: &Context,
    ) -> Result<RerankResponse, Failure> {
        check(&request, &context.config)?;
        let limits = &context.config.deadline;
        let deadline = context.began + request.deadline.unwrap_or(limits.default).min(limits.max);
        let response = match context.catalog.find(request.model.as_deref())? {
            Named::Model(slot) => self.rerank_with(slot, request, (context, deadline)).await?,
            Named::Cascade(plan) => cascade::rerank(self, plan, request, (context, deadline)).await?,
        };
        if response.is_partial() {
            metrics::partial();
        }
        let scores = response.hits.iter().map(|hit| hit.score.score);
        metrics::scored(scores, &response.usage, response.coverage.scored);
        metrics::stage("tokenize", response.timing.tokenization);
        metrics::stage("queue", response.timing.queue);
        metrics::stage("score", response.timing.inference);
        Ok(response)
    }

    /// Answers a request with one model.
    async fn rerank_with(
        &self,
        slot: &Arc<Slot>,
        request: RerankRequest,
        (context, deadline): (&Context, Instant),
    ) -> Result<RerankResponse, Failure> {
        let late =
            || Failure::new(FailureKind::DeadlineExceeded, "the deadline came before the model was loaded");
        let options = queue_options(&context.config);
        let loading = self.stable.get(&context.catalog, slot, &options);
        let loaded = tokio::time::timeout_at(deadline.into(), loading).await.map_err(|_| late())??;
        let model = request.model.clone().unwrap_or_else(|| slot.name.clone());

        let texts = Arc::new(Texts::new(request, loaded.queue.engine().card().max_length));
        let places = [(Arc::clone(&loaded), texts.price(&loaded))];
        let (mut places, latency) = admit(&texts.request, context, &places, deadline)?;
        let mut work = Work::new(&texts, &loaded, 0);
        for place in &mut places {
            match self.score(&mut work, place, context.progress.as_ref(), deadline).await {
                Err(failure) if failure.kind == FailureKind::DeadlineExceeded && texts.request.partial => {}
                ended => ended?,
            }
        }
        drop(places);
        work.into_response(context, model, latency)
    }

    /// Tokenises part after part and takes in what the queue gives, until all is there or the deadline.
    pub(crate) async fn score(
        &self,
        work: &mut Work,
        Place { ticket, receiver, .. }: &mut Place,
        progress: Option<&UnboundedSender<Progress>>,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let deadline = tokio::time::sleep_until(deadline.into());
        tokio::pin!(deadline);
        let mut parts = work.texts.parts().into_iter();
        let mut part = None;
        loop {
            if part.is_none() && work.waiting < ENOUGH_WAITING {
                let encode = |part| self.encode(Arc::clone(&work.texts), Arc::clone(&work.loaded), part);
                part = parts.next().map(|part| Box::pin(encode(part)));
            }
            if part.is_none() && work.is_done() {
                return Ok(());
            }
            tokio::select! {
                encoded = async { match part.as_mut() { Some(part) => part.await, None => std::future::pending().await } } => {
                    let entries = work.take(encoded?)?;
                    ticket.push(entries.0, entries.1);
                    part = None;
                }
                message = receiver.recv() => work.hear(message)?,
                () = &mut deadline => {
                    let (scored, given) = (work.scored, work.texts.len());
                    let message = format!("the deadline came when {scored} of {given} documents were scored");
                    return Err(Failure::new(FailureKind::DeadlineExceeded, message));
                }
            }
            work.tell(progress);
        }
    }

    async fn encode(
        &self,
        texts: Arc<Texts>,
        loaded: Arc<Loaded>,
        part: std::ops::Range<usize>,
    ) -> Result<Part, Failure> {
        let internal = |problem: String| {
            Failure::new(FailureKind::Internal, "the texts could not be read").inside(problem)
        };
        let permit = Arc::clone(&self.tokenizers)
            .acquire_owned()
            .await
            .map_err(|error| internal(error.to_string()))?;
        let task = tokio::task::spawn_blocking(move || {
            let part = texts.encode(part, &loaded);
            drop(permit);
            part
        });
        task.await.map_err(|error| internal(error.to_string()))?
    }
}

/// Refuses what is beyond the limits, before it costs anything.
fn check(request: &RerankRequest, config: &Config) -> Result<(), Failure> {
    let limits = &config.limits;
    let too_large =
        |message: String, field: &str| Err(Failure::new(FailureKind::TooLarge, message).field(field));
    let count = match &*request.items {
        Items::Documents { documents, .. } => documents.len(),
        Items::Pairs(pairs) => pairs.len(),
    };
    if count > limits.documents {
        return too_large(
            format!("{count} documents; at most {} are accepted", limits.documents),
            "documents",
        );
    }
    let query = |query: &str| {
        if query.trim().is_empty() {
            let message = "query must not be empty or be only whitespace";
            return Err(Failure::new(FailureKind::Invalid, message).field("query"));
        }
        if query.len() > limits.query_bytes {
            let message =
                format!("the query has {} bytes; at most {} are accepted", query.len(), limits.query_bytes);
            return Err(Failure::new(FailureKind::TooLong, message).field("query"));
        }
        Ok(())
    };
    let document = |index: usize, document: &str| {
        if document.len() > limits.document_bytes {
            let message = format!(
                "document {index} has {} bytes; at most {} are accepted",
                document.len(),
                limits.document_bytes
            );
            return Err(Failure::new(FailureKind::TooLong, message).field("documents"));
        }
        Ok(())
    };
    request.sub_queries.iter().try_for_each(|(text, _)| query(text))?;
    match &*request.items {
        Items::Documents { query: text, documents } => {
            query(text)?;
            documents.iter().enumerate().try_for_each(|(index, text)| document(index, text))
        }
        Items::Pairs(pairs) => pairs.iter().enumerate().try_for_each(|(index, pair)| {
            query(&pair.0)?;
            document(index, &pair.1)
        }),
    }
}

/// A request's place in the queue of a model.
pub(crate) struct Place {
    ticket: Ticket,
    receiver: UnboundedReceiver<Message>,
    /// Slots that have been used.
    pub(crate) slots: usize,
}

/// Places in the queues of models, each with its price in tokens, if all of it can be done in time, one after the other; and the
/// class that it goes in.
pub(crate) fn admit(
    request: &RerankRequest,
    context: &Context,
    wanted: &[(Arc<Loaded>, usize)],
    deadline: Instant,
) -> Result<(Vec<Place>, Latency), Failure> {
    let config = &context.config.queue;
    let mut priority = request.priority.min(SLOW - 1);
    let ask =
        |price_tokens, priority| Ask { tenant: Arc::clone(&context.client.name), priority, price_tokens };
    let time = |priority| -> Duration {
        wanted.iter().map(|(loaded, price)| loaded.queue.time_until(&ask(*price, priority))).sum()
    };
    let own: Duration = wanted.iter().map(|(loaded, price)| loaded.queue.time_of(*price)).sum();
    // What a request itself takes is no waiting.
    let wait = time(priority).saturating_sub(own);
    let is_fast = wait <= config.max_wait_fast;
    if request.latency == Latency::Fast && !is_fast {
        metrics::rejected("not_fast");
        let message = "this cannot be answered fast now; ask again, or with latency slow";
        return Err(Failure::new(FailureKind::QuotaExceeded, message)
            .retry_after(wait.saturating_sub(config.max_wait_fast)));
    }
    let (limit, class) = match request.latency {
        Latency::Fast => (config.max_wait_fast, Latency::Fast),
        Latency::Auto => (config.max_wait, if is_fast { Latency::Fast } else { Latency::Slow }),
        Latency::Slow => {
            priority += SLOW;
            (config.max_wait_slow, Latency::Slow)
        }
    };
    // What would not be done by its deadline is refused now, and not after it has waited; unless a part of it is welcome.
    let left = deadline.saturating_duration_since(Instant::now());
    let limit = if request.partial { limit } else { limit.min(left) };
    if wanted.len() > 1 {
        let wait = time(priority).saturating_sub(own);
        if wait > limit {
            return Err(Refusal::TooLate(wait - limit).into());
        }
    }
    let total: usize = wanted.iter().map(|(_, price)| price).sum();
    if wanted.is_empty() {
        context.client.spend(total).inspect_err(|_| metrics::rejected("quota"))?;
    }
    let mut places: Vec<Place> = Vec::with_capacity(wanted.len());
    for (loaded, price) in wanted {
        // Whoever is refused for lack of room has spent nothing: paid is at the last place.
        let is_last = places.len() + 1 == wanted.len();
        let pay = || match is_last {
            true => context.client.spend(total).inspect_err(|_| metrics::rejected("quota")),
            false => Ok(()),
        };
        match loaded.queue.admit(ask(*price, priority), limit, pay) {
            Ok((ticket, receiver)) => places.push(Place { ticket, receiver, slots: 0 }),
            Err(failure) => {
                places.iter().for_each(|place| place.ticket.settle());
                return Err(failure);
            }
        }
    }
    Ok((places, class))
}

/// What a client hears of a refusal, which is counted.
impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TooLate(excess) => {
                metrics::rejected("too_late");
                Self::new(FailureKind::Overloaded, "the server is full; try again later").retry_after(excess)
            }
            Refusal::Full(wait) => {
                metrics::rejected("full");
                Self::new(FailureKind::Overloaded, "the server is full; try again later").retry_after(wait)
            }
            Refusal::Closed => Self::new(FailureKind::Unavailable, "the model is being replaced; try again")
                .retry_after(Duration::from_secs(1)),
        }
    }
}

/// What a request asks to be read, and how.
pub(crate) struct Texts {
    request: RerankRequest,
    options: ScoreOptions,
    /// How its relevant parts are looked for, if at all.
    spans: Option<ScoreOptions>,
    max_length: usize,
}

/// Tokens of a query and a document of so many bytes that a request asks a model to read, of which it reads so many at most.
pub(crate) fn guess(
    (query_bytes, document_bytes): (usize, usize),
    request: &RerankRequest,
    max_length: usize,
    loaded: &Loaded,
) -> usize {
    let (query, document) =
        (loaded.queue.guess_tokens(query_bytes), loaded.queue.guess_tokens(document_bytes));
    let query = query.min(max_length * 3 / 4);
    let document = document.min(request.max_tokens_per_doc.unwrap_or(usize::MAX));
    let room = (max_length.saturating_sub(query)).max(1);
    let read = match request.overlong {
        // Windows overlap by half.
        Overlong::Windows { max_windows } if document > room => {
            let most = max_windows.unwrap_or(WindowOptions::DEFAULT_MAX_WINDOWS).clamp(1, MOST_WINDOWS);
            (2 * document).div_ceil(room).min(most) * max_length
        }
        _ => (query + document + 3).min(max_length),
    };
    match &request.spans {
        None => read,
        Some(_) => read + 2 * document + document.div_ceil(SPAN_TOKENS / 2) * query,
    }
}

/// The longest pair that a request asks a model to read.
pub(crate) fn longest(request: &RerankRequest, max_length: usize) -> usize {
    request.max_tokens_per_pair.map_or(max_length, |tokens| tokens.min(max_length))
}

/// Tokens of documents, one after another.
struct Part {
    documents: Vec<Document>,
    guessed_tokens: usize,
    took: Duration,
}

struct Document {
    sequences: Vec<(Arc<Encoded>, Vec<Known>)>,
}

/// What a sequence is called, and its logit, if it was computed before.
type Known = (crate::queue::Key, Option<f32>);

impl Texts {
    pub(crate) fn new(request: RerankRequest, max_length: usize) -> Self {
        let max_length = longest(&request, max_length);
        let mut base = ScoreOptions::new().max_length(max_length);
        if let Some(instruction) = &request.instruction {
            base = base.instruction(instruction);
        }
        if let Some(tokens) = request.max_tokens_per_doc {
            base = base.max_document_tokens(tokens);
        }
        let spans = request
            .spans
            .is_some()
            .then(|| base.clone().long(Long::Windows(WindowOptions::new().tokens(SPAN_TOKENS))));
        let options = base.long(match request.overlong {
            Overlong::TruncateEnd | Overlong::Refuse => Long::Truncate,
            Overlong::TruncateStart => Long::TruncateStart,
            Overlong::Windows { max_windows } => {
                let most = max_windows.unwrap_or(WindowOptions::DEFAULT_MAX_WINDOWS);
                Long::Windows(WindowOptions::new().max_windows(most.clamp(1, MOST_WINDOWS)))
            }
        });
        Self { request, options, spans, max_length }
    }

    fn len(&self) -> usize {
        match &*self.request.items {
            Items::Documents { documents, .. } => documents.len(),
            Items::Pairs(pairs) => pairs.len(),
        }
    }

    fn pair(&self, index: usize) -> Pair<'_> {
        match &*self.request.items {
            Items::Documents { query, documents } => Pair { query, document: &documents[index] },
            Items::Pairs(pairs) => Pair { query: &pairs[index].0, document: &pairs[index].1 },
        }
    }

    /// Tokens of a pair, guessed from its length.
    fn guess(&self, index: usize, loaded: &Loaded) -> usize {
        let Pair { query, document } = self.pair(index);
        guess((query.len(), document.len()), &self.request, self.max_length, loaded)
    }

    fn price(&self, loaded: &Loaded) -> usize {
        (0..self.len()).map(|index| self.guess(index, loaded)).sum()
    }

    fn parts(&self) -> Vec<std::ops::Range<usize>> {
        let mut parts = Vec::new();
        let (mut start, mut bytes) = (0, 0);
        for index in 0..self.len() {
            bytes += self.pair(index).document.len();
            if bytes >= PART_BYTES || index + 1 - start == PART_DOCUMENTS {
                parts.push(start..index + 1);
                (start, bytes) = (index + 1, 0);
            }
        }
        if start < self.len() {
            parts.push(start..self.len());
        }
        parts
    }

    fn encode(&self, part: std::ops::Range<usize>, loaded: &Loaded) -> Result<Part, Failure> {
        let began = Instant::now();
        let pairs: Vec<Pair<'_>> = part.clone().map(|index| self.pair(index)).collect();
        let engine = loaded.queue.engine();
        let encode = |options: &ScoreOptions| {
            engine.encode(&pairs, options).map_err(|error| failure_of(&error, part.start))
        };
        let mut documents: Vec<Document> = Vec::with_capacity(pairs.len());
        let (mut bytes, mut tokens) = (0, 0);
        for (pair, encoded) in pairs.iter().zip(encode(&self.options)?) {
            if self.request.overlong == Overlong::Refuse && encoded.truncated() {
                let index = part.start + documents.len();
                let message = format!(
                    "document {index} is longer than the {} tokens that the model reads",
                    self.max_length
                );
                return Err(Failure::new(FailureKind::TooLong, message).field("documents"));
            }
            if !encoded.truncated() && encoded.windows().len() == 1 {
                bytes += pair.query.len() + pair.document.len();
                tokens += encoded.tokens();
            }
            documents.push(Document { sequences: vec![known(encoded, loaded)] });
        }
        if let Some(spans) = &self.spans {
            for (document, encoded) in documents.iter_mut().zip(encode(spans)?) {
                document.sequences.push(known(encoded, loaded));
            }
        }
        loaded.queue.learn_bytes_per_token(bytes, tokens);
        let guessed_tokens = part.map(|index| self.guess(index, loaded)).sum();
        Ok(Part { documents, guessed_tokens, took: began.elapsed() })
    }
}

fn known(encoded: Encoded, loaded: &Loaded) -> (Arc<Encoded>, Vec<Known>) {
    let known = |window: &jointly::text::EncodedWindow| {
        let key = loaded.queue.key(&window.pair);
        (key, loaded.queue.cached(&key))
    };
    let keys = encoded.windows().iter().map(known).collect();
    (Arc::new(encoded), keys)
}

/// What a client hears of an error of the library.
pub(crate) fn failure_of(error: &jointly::Error, first: usize) -> Failure {
    use jointly::{Error, ErrorKind};
    match error {
        Error::Pair { index, source } => {
            let index = first + index;
            let failure = failure_of(source, first);
            match failure.field.as_deref() {
                Some("query" | "instruction") => failure,
                _ => Failure { message: format!("document {index}: {}", failure.message), ..failure },
            }
        }
        Error::EmptyQuery => {
            Failure::new(FailureKind::Invalid, "query must not be empty or be only whitespace").field("query")
        }
        Error::InvalidOption { option, problem } => {
            Failure::new(FailureKind::Invalid, format!("{option}: {problem}")).field(*option)
        }
        Error::Encode { what: "query", .. } => {
            Failure::new(FailureKind::Invalid, error.to_string()).field("query")
        }
        // What the stages of a cascade want of each other is not the client's.
        Error::WrongScale { .. } => {
            Failure::new(FailureKind::Internal, "the cascade failed").inside(error.to_string())
        }
        _ if error.kind() == ErrorKind::Input => {
            Failure::new(FailureKind::Invalid, error.to_string()).field("documents")
        }
        _ => Failure::new(FailureKind::Internal, "the model failed").inside(error.to_string()),
    }
}

/// What is known of a request so far.
pub(crate) struct Work {
    texts: Arc<Texts>,
    loaded: Arc<Loaded>,
    documents: Vec<Read>,
    /// Slots before the first of this work.
    first_slot: usize,
    /// By slot: the logit, and which document it is for.
    logits: Vec<f32>,
    owners: Vec<usize>,
    /// Slots that wait.
    waiting: usize,
    scored: usize,
    /// Documents that were scored since somebody was told.
    fresh: Vec<usize>,
    tokenization: Duration,
    inference: Covered,
    pushed: Option<Instant>,
    queue: Option<Duration>,
}

/// The time that batches took, what they took at once counted once: several threads may compute batches of one request.
#[derive(Debug, Default)]
struct Covered(Vec<(Instant, Instant)>);

impl Covered {
    /// Batches are told of when they end, so that only the last spans can overlap a new one.
    fn add(&mut self, began: Instant, took: Duration) {
        let (mut start, mut end) = (began, began + took);
        while let Some(last) = self.0.pop_if(|last| last.1 >= start) {
            (start, end) = (start.min(last.0), end.max(last.1));
        }
        self.0.push((start, end));
    }

    fn total(&self) -> Duration {
        self.0.iter().map(|(start, end)| *end - *start).sum()
    }
}

/// A document whose tokens are known.
struct Read {
    encoded: Arc<Encoded>,
    base: usize,
    spans: Option<(Arc<Encoded>, usize)>,
    /// Slots that wait.
    waiting: usize,
}

impl Work {
    pub(crate) fn new(texts: &Arc<Texts>, loaded: &Arc<Loaded>, first_slot: usize) -> Self {
        Self {
            texts: Arc::clone(texts),
            loaded: Arc::clone(loaded),
            documents: Vec::with_capacity(texts.len()),
            first_slot,
            logits: Vec::new(),
            owners: Vec::new(),
            waiting: 0,
            scored: 0,
            fresh: Vec::new(),
            tokenization: Duration::ZERO,
            inference: Covered::default(),
            pushed: None,
            queue: None,
        }
    }

    /// The slot after the last.
    pub(crate) fn end_slot(&self) -> usize {
        self.first_slot + self.logits.len()
    }

    /// Where the time went: reading the texts, waiting for others, in the model.
    pub(crate) fn times(&self) -> (Duration, Duration, Duration) {
        (self.tokenization, self.queue.unwrap_or_default(), self.inference.total())
    }

    fn is_done(&self) -> bool {
        self.documents.len() == self.texts.len() && self.waiting == 0
    }

    /// Takes tokens in. Gives what the queue has to compute, and the part of the price that this was.
    fn take(&mut self, part: Part) -> Result<(Vec<Entry>, usize), Failure> {
        self.tokenization += part.took;
        self.pushed.get_or_insert_with(Instant::now);
        let mut entries = Vec::new();
        let mut hits = 0;
        for document in part.documents {
            let owner = self.documents.len();
            let mut places = Vec::with_capacity(2);
            let mut waiting = 0;
            for (encoded, known) in document.sequences {
                places.push((Arc::clone(&encoded), self.logits.len()));
                for (window, (key, logit)) in known.into_iter().enumerate() {
                    let slot = self.logits.len();
                    self.owners.push(owner);
                    self.logits.push(logit.unwrap_or(f32::NAN));
                    if logit.is_some() {
                        hits += 1;
                        continue;
                    }
                    waiting += 1;
                    let slot = self.first_slot + slot;
                    entries.push(Entry { encoded: Arc::clone(&encoded), window, slot, key });
                }
            }
            let mut places = places.into_iter();
            let Some((encoded, base)) = places.next() else { continue };
            self.waiting += waiting;
            self.documents.push(Read { encoded, base, spans: places.next(), waiting });
            if waiting == 0 {
                self.scored += 1;
                self.fresh.push(owner);
            }
        }
        if hits > 0 {
            metrics::cache_hits(hits);
        }
        Ok((entries, part.guessed_tokens))
    }

    fn hear(&mut self, message: Option<Message>) -> Result<(), Failure> {
        let Some(Message::Scored { logits, began, took }) = message else {
            return Err(Failure::new(FailureKind::Internal, "the model failed").inside("a batch panicked"));
        };
        self.inference.add(began, took);
        let pushed = self.pushed.unwrap_or(began);
        self.queue.get_or_insert_with(|| began.saturating_duration_since(pushed));
        for (slot, logit) in logits {
            // Of work that was given up before, the rest may come.
            let Some(slot) = slot.checked_sub(self.first_slot) else { continue };
            self.logits[slot] = logit;
            self.waiting -= 1;
            let owner = self.owners[slot];
            let document = &mut self.documents[owner];
            document.waiting -= 1;
            if document.waiting == 0 {
                self.scored += 1;
                self.fresh.push(owner);
            }
        }
        Ok(())
    }

    /// Tells of documents that were scored, if somebody listens.
    fn tell(&mut self, progress: Option<&UnboundedSender<Progress>>) {
        let Some(progress) = progress else { return };
        if self.fresh.is_empty() {
            return;
        }
        let fresh = std::mem::take(&mut self.fresh);
        // A document that has no score fails the request in the end.
        let hits = fresh.into_iter().filter_map(|index| self.hit(index).ok()).collect();
        // Who no longer listens has dropped the request too.
        let _ = progress.send(Progress { hits, coverage: self.coverage() });
    }

    fn coverage(&self) -> Coverage {
        Coverage { scored: self.scored, given: self.texts.len() }
    }

    pub(crate) fn hit(&self, index: usize) -> Result<Hit, Failure> {
        let Read { encoded, base, spans, .. } = &self.documents[index];
        let engine = self.loaded.queue.engine();
        let score = |encoded: &Encoded, base: usize| {
            let logits = &self.logits[base..base + encoded.windows().len()];
            engine.score(encoded, logits).map_err(|error| {
                Failure::new(FailureKind::Internal, "the model failed")
                    .inside(format!("document {index}: {error}"))
            })
        };
        let score = score(encoded, *base)?;
        let mut hit = Hit { index, score, scale: engine.card().scale, stage: None, spans: Vec::new() };
        if let (Some((encoded, base)), Some(options)) = (spans, self.texts.request.spans) {
            let mut found: Vec<(std::ops::Range<usize>, Score)> = Vec::new();
            for (i, window) in encoded.windows().iter().enumerate() {
                let logit = self.logits[base + i];
                // The score of a window by itself: as of a document of one window.
                let score = engine.score_window(encoded, i, logit).map_err(|error| {
                    Failure::new(FailureKind::Internal, "the model failed").inside(error.to_string())
                })?;
                if score.probability.unwrap_or(score.score) >= options.threshold {
                    found.push((window.span.clone(), score));
                }
            }
            found.sort_by(|a, b| b.1.logit.total_cmp(&a.1.logit));
            // Windows overlap: of two that do, the better one stays.
            for (span, score) in found {
                if hit.spans.len() == options.max_spans {
                    break;
                }
                if !hit.spans.iter().any(|(other, _)| other.start < span.end && span.start < other.end) {
                    hit.spans.push((span, score));
                }
            }
        }
        Ok(hit)
    }

    fn into_response(
        self,
        context: &Context,
        model: String,
        latency: Latency,
    ) -> Result<RerankResponse, Failure> {
        let done = self.documents.iter().enumerate().filter(|(_, document)| document.waiting == 0);
        let mut hits: Vec<Hit> = done.map(|(index, _)| self.hit(index)).collect::<Result<_, _>>()?;
        let mut usage = Usage {
            tokens: hits.iter().map(|hit| hit.score.tokens).sum(),
            truncated: hits.iter().filter(|hit| hit.score.truncated).count(),
            ..Usage::default()
        };
        let mut count = |text: &str| {
            usage.bytes += text.len();
            usage.characters += text.chars().count();
        };
        match &*self.texts.request.items {
            Items::Documents { query, documents } => {
                count(query);
                documents.iter().for_each(|document| count(document));
                hits.sort_by(|a, b| b.score.logit.total_cmp(&a.score.logit));
                hits.truncate(self.texts.request.top_n.unwrap_or(usize::MAX));
            }
            Items::Pairs(pairs) => pairs.iter().for_each(|pair| {
                count(&pair.0);
                count(&pair.1);
            }),
        }
        Ok(RerankResponse {
            id: context.id.clone(),
            model,
            hits,
            scale: self.loaded.queue.engine().card().scale,
            usage,
            timing: Timing {
                total: context.began.elapsed(),
                tokenization: self.tokenization,
                queue: self.queue.unwrap_or_default(),
                inference: self.inference.total(),
            },
            coverage: self.coverage(),
            latency,
            stages: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_batches_share_is_counted_once() {
        let start = Instant::now();
        let ms = Duration::from_millis;
        let mut covered = Covered::default();
        for (began, took) in [(0, 5), (2, 6), (20, 5), (1, 30), (40, 1)] {
            covered.add(start + ms(began), ms(took));
        }
        assert_eq!(covered.total(), ms(31 + 1));
    }
}
