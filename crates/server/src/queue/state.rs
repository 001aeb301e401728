//! Whose pairs are scored next: the order of the queue, without threads.
//!
//! Three levels. Tenants (API keys) take turns, each for so many tokens: nobody buys another's share with many requests or
//! a priority. Among a tenant's requests the lowest priority number goes first. Among equals, requests take turns: a short one
//! is served whole, in the order of arrival; a long one gives way after each turn.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jointly::Encoded;
use tokio::sync::mpsc::UnboundedSender;

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
    /// What is left of its turn; below 0, what it had beyond it.
    deficit: i64,
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
    classes: BTreeMap<u16, VecDeque<FlowId>>,
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
    /// Tokens of the batch that is being computed.
    computing_tokens: usize,
    /// No new work is to be waited for.
    pub is_closed: bool,
}

impl State {
    /// Takes a request in.
    pub fn open(&mut self, ask: Ask, sender: UnboundedSender<Message>) -> FlowId {
        let id = self.next;
        self.next += 1;
        let flow = Flow {
            entries: VecDeque::new(),
            entry_tokens: 0,
            coming_tokens: ask.price_tokens,
            deficit: 0,
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
            flow.deficit = 0;
            let name = Arc::clone(&flow.ask.tenant);
            let tenant = self.tenants.entry(Arc::clone(&name)).or_insert_with(|| {
                self.ring.push_back(name);
                Tenant::default()
            });
            tenant.classes.entry(flow.ask.priority).or_default().push_back(id);
        }
    }

    /// Takes a request out, whatever of it is left. Gives the tokens that are not computed for it.
    pub fn close(&mut self, id: FlowId) -> usize {
        let Some(flow) = self.flows.remove(&id) else { return 0 };
        if flow.is_listed {
            self.unlist(&flow.ask, id);
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

    fn unlist(&mut self, ask: &Ask, id: FlowId) {
        let Some(tenant) = self.tenants.get_mut(&ask.tenant) else { return };
        if let Some(class) = tenant.classes.get_mut(&ask.priority) {
            class.retain(|flow| *flow != id);
            if class.is_empty() {
                tenant.classes.remove(&ask.priority);
            }
        }
        if tenant.classes.is_empty() {
            self.tenants.remove(&ask.tenant);
            self.ring.retain(|name| *name != ask.tenant);
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

    /// Tokens that will be computed until a request is done that comes now, by the rules of this queue.
    #[must_use]
    pub fn tokens_until(&self, ask: &Ask, quantum: usize) -> usize {
        let mine = ask.price_tokens;
        let turns = mine.div_ceil(quantum.max(1)) * quantum;
        let mut own = mine;
        let mut others: HashMap<&Arc<str>, usize> = HashMap::new();
        for flow in self.flows.values() {
            if flow.ask.tenant != ask.tenant {
                *others.entry(&flow.ask.tenant).or_default() += flow.left();
            } else if flow.ask.priority < ask.priority {
                own += flow.left();
            } else if flow.ask.priority == ask.priority {
                own += flow.left().min(turns);
            }
        }
        self.computing_tokens + own + others.values().map(|left| (*left).min(own)).sum::<usize>()
    }

    /// The next sequences, of `budget` tokens or a little more; one at least, if there is any. A request's turn is `quantum` tokens.
    pub fn fill(&mut self, budget: usize, quantum: usize) -> Batch {
        let mut batch = Batch::default();
        let mut keys = HashSet::new();
        while batch.tokens < budget {
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
            let flow = class.front().and_then(|id| self.flows.get_mut(id));
            let Some(flow) = flow else {
                class.pop_front();
                if class.is_empty() {
                    tenant.classes.remove(&priority);
                }
                continue;
            };
            // A turn may end with a sequence that is longer than it: what is beyond is taken off the next ones.
            if flow.deficit <= 0 {
                flow.deficit += quantum as i64;
            }
            if tenant.deficit <= 0 {
                tenant.deficit += quantum as i64;
            }
            while batch.tokens < budget && flow.deficit > 0 && tenant.deficit > 0 {
                let Some(entry) = flow.entries.pop_front() else { break };
                let tokens = entry.tokens();
                flow.entry_tokens -= tokens;
                if flow.done[entry.slot] || !keys.insert(entry.key) {
                    continue; // another's turn has paid for it
                }
                flow.deficit -= tokens as i64;
                tenant.deficit -= tokens as i64;
                batch.tokens += tokens;
                batch.entries.push(entry);
            }
            let is_spent = tenant.deficit <= 0;
            if flow.entries.is_empty() {
                flow.is_listed = false;
                class.pop_front();
                if class.is_empty() {
                    tenant.classes.remove(&priority);
                }
            } else if flow.deficit <= 0 {
                class.rotate_left(1);
            }
            if tenant.classes.is_empty() {
                self.tenants.remove(&name);
                self.ring.pop_front();
            } else if is_spent {
                self.ring.rotate_left(1);
            }
        }
        self.computing_tokens = batch.tokens;
        batch
    }

    /// Gives each logit to all requests that wait for it. Gives how many sequences were computed for others too.
    pub fn deliver(&mut self, batch: &Batch, logits: &[f32], timing: (Instant, Duration)) -> usize {
        self.computing_tokens = 0;
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
        self.computing_tokens = 0;
        for entry in &batch.entries {
            for (id, _) in self.waiting.remove(&entry.key).unwrap_or_default() {
                if let Some(flow) = self.flows.get(&id) {
                    let _ = flow.sender.send(Message::Failed);
                }
            }
        }
    }
}
