//! The pairs of all requests, in batches: one queue for each model, one model at a time on the cores.

mod state;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jointly::text::EncodedPair;
use jointly::{Pair, ScoreOptions};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

pub use state::{Ask, Batch, Entry, FlowId, Key, Message, State};

use crate::cores::{Cores, Lent, give_way};
use crate::engine::Engine;
use crate::metrics;

/// A batch has so many tokens for each thread at least: below, threads have too little work to be worth waking.
const LEAST_TOKENS_PER_THREAD: usize = 128;
/// No batch is larger, however fast the model is: its activations are in memory.
const MOST_BATCH_TOKENS: usize = 1 << 17;
/// The weight of a batch in the measured speed, if it was slower than those before it.
const SLOWER: f64 = 0.1;
/// The same, if it was faster. What is promised to clients by this speed should hold: it is sooner believed that it falls.
const FASTER: f64 = 0.02;

/// How a queue works.
#[derive(Debug, Clone)]
pub struct QueueOptions {
    /// How long a batch should take: short enough for deadlines and priorities to bite, long enough to be efficient.
    pub batch_time: Duration,
    /// Requests at most.
    pub max_requests: usize,
    /// Tokens at most that wait; a request that is alone may have more.
    pub max_tokens: usize,
    /// Logits that are kept; 0 keeps none.
    pub cached_scores: u64,
}

/// Why a request is not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It would be done too late: by so much.
    TooLate(Duration),
    /// There are too many requests or tokens; in such a time there may be fewer.
    Full(Duration),
    /// The model is being taken away.
    Closed,
}

impl Refusal {
    /// Of two, the one after which it is sooner worth trying again.
    #[must_use]
    pub fn sooner(self, other: Self) -> Self {
        let wait = |refusal: &Self| match refusal {
            Self::TooLate(wait) | Self::Full(wait) => *wait,
            Self::Closed => Duration::ZERO,
        };
        if wait(&other) < wait(&self) { other } else { self }
    }
}

/// The waiting pairs of one model, and the thread that has them scored.
pub struct Queue {
    engine: Arc<dyn Engine>,
    options: QueueOptions,
    state: Mutex<State>,
    work: Condvar,
    /// Tokens a second, as f64 bits; 0 until it is known.
    speed: AtomicU64,
    /// Bytes of text for each token, as f64 bits.
    bytes_per_token: AtomicU64,
    /// Tokens of a batch: as many as the model computes in [`QueueOptions::batch_time`].
    batch_tokens: AtomicUsize,
    least_batch_tokens: usize,
    unhealthy: Mutex<Option<String>>,
    is_unhealthy: AtomicBool,
    cache: Option<moka::sync::Cache<Key, f32>>,
    /// What keys of this model begin with.
    salt: Sha256,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Queue {
    /// Starts the thread. It ends once the queue is closed and empty.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(
        engine: Arc<dyn Engine>,
        cores: Arc<Cores>,
        options: QueueOptions,
    ) -> std::io::Result<Arc<Self>> {
        let mut salt = Sha256::new();
        for part in [&engine.card().identity, &engine.card().precision] {
            salt.update((part.len() as u64).to_le_bytes());
            salt.update(part);
        }
        let least_batch_tokens = LEAST_TOKENS_PER_THREAD * engine.card().threads.max(1);
        let cache = (options.cached_scores > 0).then(|| moka::sync::Cache::new(options.cached_scores));
        let queue = Arc::new(Self {
            engine,
            options,
            state: Mutex::default(),
            work: Condvar::new(),
            speed: AtomicU64::new(0),
            bytes_per_token: AtomicU64::new(4.0_f64.to_bits()),
            batch_tokens: AtomicUsize::new(least_batch_tokens),
            least_batch_tokens,
            unhealthy: Mutex::default(),
            is_unhealthy: AtomicBool::new(false),
            cache,
            salt,
        });
        let worker = Arc::clone(&queue);
        std::thread::Builder::new().name("jointly-score".into()).spawn(move || {
            give_way();
            worker.warm_up(&cores);
            // Should it panic beside the model, nobody would compute what is asked for: better to say so.
            if catch_unwind(AssertUnwindSafe(|| worker.run(&cores))).is_err() {
                worker.give_up();
            }
        })?;
        Ok(queue)
    }

    /// What scores.
    #[must_use]
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a request in, if it can be done within `limit` and then `pay` allows it.
    ///
    /// # Errors
    /// [`Refusal`], or that of `pay`.
    pub fn admit<E: From<Refusal>>(
        self: &Arc<Self>,
        ask: Ask,
        limit: Duration,
        pay: impl FnOnce() -> Result<(), E>,
    ) -> Result<(Ticket, UnboundedReceiver<Message>), E> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(Refusal::Closed.into());
        }
        self.room(&state, &ask, limit)?;
        pay()?;
        let (sender, receiver) = unbounded_channel();
        let id = state.open(ask, self.batch_tokens(), sender);
        drop(state);
        Ok((Ticket { queue: Arc::clone(self), id }, receiver))
    }

    /// Whether a request would be taken in now.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn would_admit(&self, ask: &Ask, limit: Duration) -> Result<(), Refusal> {
        self.room(&self.lock(), ask, limit)
    }

    fn room(&self, state: &State, ask: &Ask, limit: Duration) -> Result<(), Refusal> {
        // Alone, a request of any size is welcome.
        if state.requests() == 0 {
            return Ok(());
        }
        if state.requests() >= self.options.max_requests
            || state.tokens().saturating_add(ask.price_tokens) > self.options.max_tokens
        {
            let each = self.time_of(state.tokens()) / state.requests() as u32;
            return Err(Refusal::Full(each));
        }
        let wait = self.time_of(state.tokens_until(ask, self.batch_tokens()));
        // What is asked for takes its own time, however empty the queue is.
        let own = self.time_of(ask.price_tokens);
        match wait.saturating_sub(own).checked_sub(limit) {
            Some(excess) if !excess.is_zero() => Err(Refusal::TooLate(excess)),
            _ => Ok(()),
        }
    }

    /// How long it takes until a request would be done, its own time included.
    #[must_use]
    pub fn time_until(&self, ask: &Ask) -> Duration {
        self.time_of(self.lock().tokens_until(ask, self.batch_tokens()))
    }

    /// How long so many tokens take by themselves.
    #[must_use]
    pub fn time_of(&self, tokens: usize) -> Duration {
        let speed = self.tokens_per_second();
        if speed > 0.0 { Duration::from_secs_f64(tokens as f64 / speed) } else { Duration::ZERO }
    }

    fn batch_tokens(&self) -> usize {
        self.batch_tokens.load(Ordering::Relaxed)
    }

    /// The measured speed; 0 before the first batch.
    #[must_use]
    pub fn tokens_per_second(&self) -> f64 {
        f64::from_bits(self.speed.load(Ordering::Relaxed))
    }

    /// Tokens that texts of `bytes` bytes are expected to have.
    #[must_use]
    pub fn guess_tokens(&self, bytes: usize) -> usize {
        let each = f64::from_bits(self.bytes_per_token.load(Ordering::Relaxed));
        (bytes as f64 / each).ceil() as usize
    }

    /// Learns from texts that were tokenised.
    pub fn learn_bytes_per_token(&self, bytes: usize, tokens: usize) {
        if bytes == 0 || tokens == 0 {
            return;
        }
        let known = f64::from_bits(self.bytes_per_token.load(Ordering::Relaxed));
        // Beyond these bounds lie texts that were cut, and the special tokens of short ones.
        let found = (bytes as f64 / tokens as f64).clamp(1.0, 8.0);
        let learnt = known + (found - known) * 0.02;
        self.bytes_per_token.store(learnt.to_bits(), Ordering::Relaxed);
    }

    /// Requests, tokens, and the age of the oldest.
    #[must_use]
    pub fn load(&self) -> (usize, usize, Duration) {
        let state = self.lock();
        (state.requests(), state.tokens(), state.age())
    }

    /// Takes no more requests; those that were taken are served.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.work.notify_all();
    }

    /// Takes no more requests, and fails those that were taken.
    fn give_up(&self) {
        tracing::error!(
            "the thread that scores has ended by a panic; its model is out of use until it is loaded anew"
        );
        self.set_problem(Some("its thread has panicked".into()));
        *self.lock() = State::closed();
    }

    /// Why the model is not to be used, if so.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        if !self.is_unhealthy.load(Ordering::Acquire) {
            return None;
        }
        self.unhealthy.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_problem(&self, problem: Option<String>) {
        let mut known = self.unhealthy.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_unhealthy.store(problem.is_some(), Ordering::Release);
        *known = problem;
    }

    /// Checks the model; one that gave NaN is trusted again only if this passes.
    ///
    /// # Errors
    /// What does not hold.
    pub fn check(&self, cores: &Cores) -> Result<(), String> {
        // A queue that takes nothing more does not get better.
        if self.lock().is_closed {
            return Err(self.problem().unwrap_or_else(|| "it takes no more requests".into()));
        }
        let lent = cores.acquire();
        let found = catch_unwind(AssertUnwindSafe(|| self.engine.check()));
        drop(lent);
        let result = match found {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => Err("the self-check panicked".to_string()),
        };
        self.set_problem(result.clone().err());
        metrics::self_check(result.is_ok());
        result
    }

    /// What a sequence is called in the cache and among those that wait.
    #[must_use]
    pub fn key(&self, pair: &EncodedPair) -> Key {
        let mut hash = self.salt.clone();
        let mut bytes = Vec::with_capacity(pair.input_ids.len() * 4 + 8);
        bytes.extend_from_slice(&(pair.input_ids.len() as u64).to_le_bytes());
        pair.input_ids.iter().for_each(|id| bytes.extend_from_slice(&id.to_le_bytes()));
        hash.update(&bytes);
        hash.update(&pair.token_type_ids);
        hash.finalize().into()
    }

    /// A logit that was computed before.
    #[must_use]
    pub fn cached(&self, key: &Key) -> Option<f32> {
        self.cache.as_ref()?.get(key)
    }

    fn run(&self, cores: &Cores) {
        loop {
            let mut state = self.lock();
            while !state.has_work() {
                if state.is_closed && state.requests() == 0 {
                    return;
                }
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            drop(state);
            let asked = Instant::now();
            let lent = cores.acquire();
            let lanes = self.engine.lanes();
            if lanes > 1 && self.has_work_for(&self.lock(), lanes) {
                let has_ended = AtomicBool::new(false);
                std::thread::scope(|scope| {
                    for _ in 1..lanes {
                        // If the system gives no thread, this one does the work.
                        let another = std::thread::Builder::new().name("jointly-score".into());
                        let _ = another.spawn_scoped(scope, || self.lane(&lent, asked, lanes, &has_ended));
                    }
                    self.lane(&lent, asked, lanes, &has_ended);
                });
                continue;
            }
            // Chosen only now: whoever left meanwhile costs nothing.
            let batch = self.lock().fill(self.batch_tokens(), self.batch_tokens());
            if !batch.entries.is_empty() {
                self.compute(&batch, asked, 1);
            }
        }
    }

    /// Whether each of `lanes` threads can have a batch of its own. If not, all compute one together, so that none idles for long.
    fn has_work_for(&self, state: &State, lanes: usize) -> bool {
        state.has_parts(lanes, self.batch_tokens() / lanes)
    }

    /// Computes one batch after another on this thread, as others do beside it: none waits for another's batch to end. Goes on
    /// until there is too little for all, or another model waits. When one ends, all do: what comes later is again for all of them,
    /// and one that went on alone would keep the others from ever coming back.
    fn lane(&self, lent: &Lent<'_>, mut asked: Instant, lanes: usize, has_ended: &AtomicBool) {
        while !has_ended.load(Ordering::Relaxed) {
            let mut state = self.lock();
            if !self.has_work_for(&state, lanes) {
                break;
            }
            let batch = state.fill(self.batch_tokens() / lanes, self.batch_tokens());
            drop(state);
            if !batch.entries.is_empty() {
                self.compute(&batch, asked, lanes);
            }
            asked = Instant::now();
            if lent.is_wanted() {
                break;
            }
        }
        has_ended.store(true, Ordering::Relaxed);
    }

    /// Computes a batch: on all threads, or on this one if it is one of several lanes.
    fn compute(&self, batch: &Batch, asked: Instant, lanes: usize) {
        let pairs: Vec<&EncodedPair> =
            batch.entries.iter().map(|entry| &entry.encoded.windows()[entry.window].pair).collect();
        let began = Instant::now();
        let logits = catch_unwind(AssertUnwindSafe(|| match lanes {
            1 => self.engine.logits(&pairs),
            _ => self.engine.logits_here(&pairs),
        }));
        let took = began.elapsed();
        let problem = match &logits {
            Ok(Ok(_)) => None,
            // Too little memory for one pair says nothing of the next.
            Ok(Err(error @ jointly::Error::DeviceMemory { .. })) => Some((error.to_string(), false)),
            Ok(Err(error)) => Some((error.to_string(), true)),
            Err(_) => Some(("the model panicked on a batch".to_string(), true)),
        };
        if let Some((problem, is_final)) = problem {
            tracing::error!(pairs = pairs.len(), tokens = batch.tokens, problem, "a batch failed");
            if is_final {
                self.set_problem(Some(problem));
            }
            self.lock().fail(batch);
            return;
        }
        let Ok(Ok(logits)) = logits else { return };
        if let Some(logit) = logits.iter().find(|logit| !logit.is_finite()) {
            tracing::error!(%logit, "the model gave a logit that is not finite; it is not ready until a self-check passes");
            self.set_problem(Some(format!("it gave {logit} for a pair")));
        }
        if let Some(cache) = &self.cache {
            for (entry, logit) in batch.entries.iter().zip(&logits).filter(|(_, logit)| logit.is_finite()) {
                cache.insert(entry.key, *logit);
            }
        }
        let shared = self.lock().deliver(batch, &logits, (began, took));
        let longest = pairs.iter().map(|pair| pair.input_ids.len()).max().unwrap_or(0);
        metrics::batch(pairs.len(), batch.tokens, longest, took, shared);
        // What comes after the computing belongs to the time of a batch too: promises are made by it.
        self.measure(batch.tokens * lanes, asked.elapsed(), took);
    }

    /// Learns from `tokens` that all threads computed in some time, with and without the time that other models had before.
    fn measure(&self, tokens: usize, with_waiting: Duration, alone: Duration) {
        let speed_of = |took: Duration| tokens as f64 / took.as_secs_f64().max(1e-6);
        let batch_tokens = self.batch_tokens() as f64;
        // A small batch says little about the speed of full ones.
        let share = (tokens as f64 / batch_tokens).min(1.0);
        let (newest, known) = (speed_of(with_waiting), self.tokens_per_second());
        let weight = share * if newest < known { SLOWER } else { FASTER };
        self.set_speed(if known > 0.0 { known + (newest - known) * weight } else { newest });
        if share > 0.5 {
            let wanted = speed_of(alone) * self.options.batch_time.as_secs_f64();
            self.set_batch_tokens(batch_tokens + (wanted - batch_tokens) * SLOWER);
        }
        metrics::speed(self.tokens_per_second(), self.batch_tokens());
    }

    fn set_speed(&self, tokens_per_second: f64) {
        self.speed.store(tokens_per_second.to_bits(), Ordering::Relaxed);
    }

    fn set_batch_tokens(&self, wanted: f64) {
        let tokens = (wanted as usize).max(self.least_batch_tokens).min(MOST_BATCH_TOKENS);
        self.batch_tokens.store(tokens, Ordering::Relaxed);
    }

    /// Touches all weights, and measures the speed before the first client does.
    fn warm_up(&self, cores: &Cores) {
        let document = "A hearing aid's battery lasts between three and ten days. ".repeat(8);
        let documents: Vec<String> = (0..8).map(|i| format!("{i} {document}")).collect();
        let pairs: Vec<Pair<'_>> =
            documents.iter().map(|document| Pair { query: "battery life", document }).collect();
        let Ok(encoded) = self.engine.encode(&pairs, &ScoreOptions::new()) else { return };
        let sequences: Vec<&EncodedPair> =
            encoded.iter().flat_map(|encoded| encoded.windows()).map(|window| &window.pair).collect();
        let tokens: usize = sequences.iter().map(|pair| pair.input_ids.len()).sum();
        for _ in 0..2 {
            let lent = cores.acquire();
            let began = Instant::now();
            // A model that panics does so on the first request too, and is seen there.
            if catch_unwind(AssertUnwindSafe(|| drop(self.engine.logits(&sequences)))).is_err() {
                return;
            }
            let speed = tokens as f64 / began.elapsed().as_secs_f64().max(1e-6);
            self.set_speed(speed);
            self.set_batch_tokens(speed * self.options.batch_time.as_secs_f64());
            metrics::speed(speed, self.batch_tokens());
            drop(lent);
        }
    }
}

/// A request's place in the queue, given up when this is dropped.
#[derive(Debug)]
pub struct Ticket {
    queue: Arc<Queue>,
    id: FlowId,
}

impl Ticket {
    /// Adds sequences, in place of `guessed_tokens` of the price.
    pub fn push(&self, entries: Vec<Entry>, guessed_tokens: usize) {
        self.queue.lock().push(self.id, entries, guessed_tokens);
        self.queue.work.notify_one();
    }

    /// Says that what is left of the price is not coming.
    pub fn settle(&self) {
        self.queue.lock().push(self.id, Vec::new(), usize::MAX);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let left = self.queue.lock().close(self.id);
        if left > 0 {
            metrics::saved(left);
        }
        // The thread may wait for the last request before it ends.
        self.queue.work.notify_one();
    }
}

#[cfg(test)]
mod tests;
