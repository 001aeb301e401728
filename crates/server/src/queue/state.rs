//! Whose pairs are scored next: the order of the queue, without threads.
//!
//! Tenants (API keys) take turns, each for so many tokens: nobody buys another's share with many requests or a priority. Among a
//! tenant's requests the lowest priority number goes first. Among equals, requests are sorted by size into [`SIZES`], which
//! share the time by deficit round robin, the small ones first: whoever asks for little does not wait behind somebody who asks
//! for much, and whoever asks for much gets on all the same. Within a size, requests are served whole, in the order of arrival:
//! taking turns among equals would only make all of them late.
//!
//! So the longest wait can be told when a request comes ([`State::tokens_until`]): the batch that is being computed, the requests
//! of its size before it, and the turns of the other sizes and tenants meanwhile.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jointly::Encoded;
use tokio::sync::mpsc::UnboundedSender;

/// Requests of about one size, and what part of the time they get while others wait too.
#[derive(Debug, Clone, Copy)]
struct Size {
    /// The largest of them has so many batches of tokens.
    most_batches: usize,
    /// And they have so many in a round.
    turn_batches: usize,
}

/// From small to large. Of the time of a tenant, the small ones get at least four sevenths if there are all three, and four
/// fifths beside one large request.
const SIZES: [Size; 3] = [
    Size { most_batches: 4, turn_batches: 4 },
    Size { most_batches: 32, turn_batches: 2 },
    Size { most_batches: usize::MAX, turn_batches: 1 },
];

/// The place in [`SIZES`] of a request of so many tokens.
fn size_of(price_tokens: usize, batch_tokens: usize) -> usize {
    let fits = |size: &Size| price_tokens <= batch_tokens.saturating_mul(size.most_batches);
    SIZES.iter().position(fits).unwrap_or(SIZES.len() - 1)
}

/// What a sequence is: equal keys have equal logits. A SHA-256, since scores of one client may be given to another.
pub type Key = [u8; 32];

/// A sequence that waits.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What it is of.
    pub encoded: Arc<Encoded>,
    /// Which of its windows.
    pub window: usize,
    /// Where its logit belongs among those of the request.
    pub slot: usize,
    /// What it is.
    pub key: Key,
}

impl Entry {
    /// The number of its tokens.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.encoded.windows()[self.window].pair.input_ids.len()
    }
}

/// What a request hears of its sequences.
#[derive(Debug)]
pub enum Message {
    /// Logits by slot, from a batch.
    Scored {
        /// Slot and logit.
        logits: Vec<(usize, f32)>,
        /// When the batch began.
        began: Instant,
        /// How long it took.
        took: Duration,
    },
    /// The model could not compute them.
    Failed,
}

/// What a request asks of the queue before its texts are tokenised.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Who asks.
    pub tenant: Arc<str>,
    /// Lower goes first.
    pub priority: u16,
    /// Tokens, as far as they can be guessed from the lengths of the texts.
    pub price_tokens: usize,
}

/// The number of a request in its queue.
pub type FlowId = u64;

/// A request in the queue.
#[derive(Debug)]
struct Flow {
    ask: Ask,
    entries: VecDeque<Entry>,
    entry_tokens: usize,
    /// Guessed tokens that are not tokenised yet.
    coming_tokens: usize,
    /// Its place in [`SIZES`].
    size: usize,
    is_listed: bool,
    done: Vec<bool>,
    since: Instant,
    sender: UnboundedSender<Message>,
}

impl Flow {
    fn left(&self) -> usize {
        self.entry_tokens + self.coming_tokens
    }
}

#[derive(Debug, Default)]
struct Tenant {
    deficit: i64,
    classes: BTreeMap<u16, Class>,
}

/// Requests of a tenant that are equal but for their size.
#[derive(Debug, Default)]
struct Class([Line; SIZES.len()]);

/// Requests of one size, in the order of arrival.
#[derive(Debug, Default)]
struct Line {
    flows: VecDeque<FlowId>,
    /// What is left of its part of the round; below 0, what it had beyond it.
    deficit: i64,
}

impl Class {
    fn is_empty(&self) -> bool {
        self.0.iter().all(|line| line.flows.is_empty())
    }

    /// The size whose turn it is: the smallest that has something left of its part. None if nobody waits.
    fn next(&mut self, batch_tokens: usize) -> Option<usize> {
        let is_next = |line: &Line| !line.flows.is_empty() && line.deficit > 0;
        loop {
            if let Some(size) = self.0.iter().position(is_next) {
                return Some(size);
            }
            if self.is_empty() {
                return None;
            }
            // A new round. What is left of the last one is lost, what was had beyond it is owed.
            for (line, size) in self.0.iter_mut().zip(SIZES) {
                line.deficit = line.deficit.min(0) + (size.turn_batches * batch_tokens) as i64;
            }
        }
    }
}

/// Sequences to be computed together.
#[derive(Debug, Default)]
pub struct Batch {
    /// Each sequence once.
    pub entries: Vec<Entry>,
    /// Tokens of all.
    pub tokens: usize,
}

/// The requests that wait.
#[derive(Debug, Default)]
pub struct State {
    flows: HashMap<FlowId, Flow>,
    tenants: HashMap<Arc<str>, Tenant>,
    ring: VecDeque<Arc<str>>,
    waiting: HashMap<Key, Vec<(FlowId, usize)>>,
    next: FlowId,
    /// Tokens of the batches that are being computed.
    computing_tokens: usize,
    /// No new work is to be waited for.
    pub is_closed: bool,
}

impl State {
    /// Without requests, and with none to come.
    pub fn closed() -> Self {
        Self { is_closed: true, ..Self::default() }
    }

    /// Takes a request in. What is small and what is large is measured in batches, of `batch_tokens` each.
    pub fn open(&mut self, ask: Ask, batch_tokens: usize, sender: UnboundedSender<Message>) -> FlowId {
        let id = self.next;
        self.next += 1;
        let flow = Flow {
            entries: VecDeque::new(),
            entry_tokens: 0,
            coming_tokens: ask.price_tokens,
            size: size_of(ask.price_tokens, batch_tokens),
            is_listed: false,
            done: Vec::new(),
            since: Instant::now(),
            sender,
            ask,
        };
        self.flows.insert(id, flow);
        id
    }

    /// Adds sequences of a request, in place of `guessed` tokens of its price.
    pub fn push(&mut self, id: FlowId, entries: Vec<Entry>, guessed_tokens: usize) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        flow.coming_tokens = flow.coming_tokens.saturating_sub(guessed_tokens);
        if entries.is_empty() {
            return;
        }
        if flow.entries.is_empty() {
            flow.since = Instant::now();
        }
        for entry in entries {
            self.waiting.entry(entry.key).or_default().push((id, entry.slot));
            if flow.done.len() <= entry.slot {
                flow.done.resize(entry.slot + 1, false);
            }
            flow.entry_tokens += entry.tokens();
            flow.entries.push_back(entry);
        }
        if !flow.is_listed {
            flow.is_listed = true;
            let name = Arc::clone(&flow.ask.tenant);
            let tenant = self.tenants.entry(Arc::clone(&name)).or_insert_with(|| {
                self.ring.push_back(name);
                Tenant::default()
            });
            let class = tenant.classes.entry(flow.ask.priority).or_default();
            class.0[flow.size].flows.push_back(id);
        }
    }

    /// Takes a request out, whatever of it is left. Gives the tokens that are not computed for it.
    pub fn close(&mut self, id: FlowId) -> usize {
        let Some(flow) = self.flows.remove(&id) else { return 0 };
        if flow.is_listed {
            self.unlist(&flow, id);
        }
        for entry in &flow.entries {
            if let Some(waiting) = self.waiting.get_mut(&entry.key) {
                waiting.retain(|(flow, _)| *flow != id);
                if waiting.is_empty() {
                    self.waiting.remove(&entry.key);
                }
            }
        }
        flow.left()
    }

    fn unlist(&mut self, flow: &Flow, id: FlowId) {
        let Ask { tenant: name, priority, .. } = &flow.ask;
        let Some(tenant) = self.tenants.get_mut(name) else { return };
        if let Some(class) = tenant.classes.get_mut(priority) {
            class.0[flow.size].flows.retain(|flow| *flow != id);
            if class.is_empty() {
                tenant.classes.remove(priority);
            }
        }
        if tenant.classes.is_empty() {
            self.tenants.remove(name);
            self.ring.retain(|other| other != name);
        }
    }

    /// Whether there is anything to compute.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.ring.is_empty()
    }

    /// The number of requests.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.flows.len()
    }

    /// Tokens that wait, or are expected.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.flows.values().map(Flow::left).sum()
    }

    /// How long the request has waited that has waited longest.
    #[must_use]
    pub fn age(&self) -> Duration {
        let listed = self.flows.values().filter(|flow| flow.is_listed);
        listed.map(|flow| flow.since.elapsed()).max().unwrap_or_default()
    }

    /// Tokens that will be computed until a request is done that comes now, by the rules of this queue, if nobody comes after it.
    #[must_use]
    pub fn tokens_until(&self, ask: &Ask, batch_tokens: usize) -> usize {
        let batch_tokens = batch_tokens.max(1);
        let size = size_of(ask.price_tokens, batch_tokens);
        let mut own = ask.price_tokens;
        let mut sizes = [0; SIZES.len()];
        let mut others: HashMap<&Arc<str>, usize> = HashMap::new();
        for flow in self.flows.values() {
            if flow.ask.tenant != ask.tenant {
                *others.entry(&flow.ask.tenant).or_default() += flow.left();
            } else if flow.ask.priority < ask.priority {
                own += flow.left();
            } else if flow.ask.priority == ask.priority {
                sizes[flow.size] += flow.left();
            }
        }
        // While those of its size have their turns, the other sizes have theirs.
        let first = ask.price_tokens + sizes[size];
        let rounds = first.div_ceil(SIZES[size].turn_batches * batch_tokens);
        for (other, left) in sizes.into_iter().enumerate() {
            let turns = rounds.saturating_mul(SIZES[other].turn_batches * batch_tokens);
            own += if other == size { left } else { left.min(turns) };
        }
        // And so have other tenants, all as long as this one.
        let turns = own.div_ceil(batch_tokens) * batch_tokens;
        self.computing_tokens + own + others.values().map(|left| (*left).min(turns)).sum::<usize>()
    }

    /// Whether there are `parts` parts of `tokens` tokens to be computed now, where a sequence is in one part, however long it is.
    #[must_use]
    pub fn has_parts(&self, parts: usize, tokens: usize) -> bool {
        let mut wanted = parts * tokens;
        let mut sequences = 0;
        for entry in self.flows.values().flat_map(|flow| &flow.entries) {
            sequences += 1;
            wanted = wanted.saturating_sub(entry.tokens().min(tokens));
            if wanted == 0 && sequences >= parts {
                return true;
            }
        }
        false
    }

    /// The next sequences, of `tokens` tokens or a little more; one at least, if there is any. A batch is not filled up with
    /// sequences of larger requests: small ones would wait for them. Turns are measured in `batch_tokens`.
    pub fn fill(&mut self, tokens: usize, batch_tokens: usize) -> Batch {
        let (limit, batch_tokens) = (tokens.max(1), batch_tokens.max(1));
        let mut batch = Batch::default();
        let mut keys = HashSet::new();
        let mut largest = None;
        while batch.tokens < limit {
            let Some(name) = self.ring.front().cloned() else { break };
            let Some(tenant) = self.tenants.get_mut(&name) else {
                self.ring.pop_front();
                continue;
            };
            let Some((&priority, class)) = tenant.classes.iter_mut().next() else {
                self.tenants.remove(&name);
                self.ring.pop_front();
                continue;
            };
            let Some(size) = class.next(batch_tokens) else {
                tenant.classes.remove(&priority);
                continue;
            };
            if largest.is_some_and(|largest| size > largest) {
                break;
            }
            let line = &mut class.0[size];
            let Some(flow) = line.flows.front().and_then(|id| self.flows.get_mut(id)) else {
                line.flows.pop_front();
                continue;
            };
            // A turn may end with a sequence that is longer than it: what is beyond is taken off the next ones.
            if tenant.deficit <= 0 {
                tenant.deficit += batch_tokens as i64;
            }
            while batch.tokens < limit && line.deficit > 0 && tenant.deficit > 0 {
                let Some(entry) = flow.entries.pop_front() else { break };
                let tokens = entry.tokens();
                flow.entry_tokens -= tokens;
                if flow.done[entry.slot] || !keys.insert(entry.key) {
                    continue; // another's turn has paid for it
                }
                line.deficit -= tokens as i64;
                tenant.deficit -= tokens as i64;
                batch.tokens += tokens;
                batch.entries.push(entry);
                largest = largest.max(Some(size));
            }
            let is_spent = tenant.deficit <= 0;
            if flow.entries.is_empty() {
                flow.is_listed = false;
                line.flows.pop_front();
                if class.is_empty() {
                    tenant.classes.remove(&priority);
                }
            }
            if tenant.classes.is_empty() {
                self.tenants.remove(&name);
                self.ring.pop_front();
            } else if is_spent {
                self.ring.rotate_left(1);
            }
        }
        self.computing_tokens += batch.tokens;
        batch
    }

    /// Gives each logit to all requests that wait for it. Gives how many sequences were computed for others too.
    pub fn deliver(&mut self, batch: &Batch, logits: &[f32], timing: (Instant, Duration)) -> usize {
        self.computing_tokens = self.computing_tokens.saturating_sub(batch.tokens);
        let mut outgoing: HashMap<FlowId, Vec<(usize, f32)>> = HashMap::new();
        let mut shared = 0;
        for (entry, logit) in batch.entries.iter().zip(logits) {
            let waiting = self.waiting.remove(&entry.key).unwrap_or_default();
            shared += waiting.len().saturating_sub(1);
            for (id, slot) in waiting {
                if let Some(flow) = self.flows.get_mut(&id)
                    && !std::mem::replace(&mut flow.done[slot], true)
                {
                    outgoing.entry(id).or_default().push((slot, *logit));
                }
            }
        }
        let (began, took) = timing;
        for (id, logits) in outgoing {
            if let Some(flow) = self.flows.get_mut(&id) {
                flow.since = Instant::now();
                // A request that no longer listens is about to be closed.
                let _ = flow.sender.send(Message::Scored { logits, began, took });
            }
        }
        shared
    }

    /// Says to all requests of a batch that it failed.
    pub fn fail(&mut self, batch: &Batch) {
        self.computing_tokens = self.computing_tokens.saturating_sub(batch.tokens);
        for entry in &batch.entries {
            for (id, _) in self.waiting.remove(&entry.key).unwrap_or_default() {
                if let Some(flow) = self.flows.get(&id) {
                    let _ = flow.sender.send(Message::Failed);
                }
            }
        }
    }
}
