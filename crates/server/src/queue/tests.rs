use std::collections::HashSet;
use std::path::Path;
use std::thread::ThreadId;

use jointly::{CrossEncoder, Encoded, LoadOptions, Score};

use super::*;
use crate::LoadedCard;
use crate::engine::Model;

fn encoder() -> CrossEncoder {
    encoder_on(1)
}

fn encoder_on(threads: usize) -> CrossEncoder {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/tiny-bert");
    CrossEncoder::load(folder, LoadOptions::new().threads(threads)).unwrap()
}

/// Requests in a queue without a thread. Its model computes a token in a tick of its clock.
struct Bench {
    encoder: CrossEncoder,
    state: State,
    batch_tokens: usize,
    now: usize,
    asked: Vec<Asked>,
}

/// A request, and how it goes on with it.
struct Asked {
    receiver: UnboundedReceiver<Message>,
    documents: usize,
    scored: usize,
    came: usize,
    /// When the last of its documents was scored.
    done: Option<usize>,
}

impl Bench {
    fn new(batch_tokens: usize) -> Self {
        Self { encoder: encoder(), state: State::default(), batch_tokens, now: 0, asked: Vec::new() }
    }

    /// A request of these documents, of [`TOKENS`] each.
    fn open(&mut self, tenant: &str, priority: u16, documents: &[String]) -> FlowId {
        self.open_long(tenant, priority, (documents, 1))
    }

    /// A request of these documents, of so many words each.
    fn open_long(&mut self, tenant: &str, priority: u16, (documents, words): (&[String], usize)) -> FlowId {
        let (sender, receiver) = unbounded_channel();
        let document = "moon ".repeat(words);
        let pairs = vec![Pair { query: "which", document: &document }; documents.len()];
        let encoded = self.encoder.encode(&pairs, &ScoreOptions::new()).unwrap();
        let price_tokens = encoded.iter().map(Encoded::tokens).sum();
        let ask = Ask { tenant: tenant.into(), priority, price_tokens };
        let id = self.state.open(ask, self.batch_tokens, sender);
        let asked = Asked { receiver, documents: documents.len(), scored: 0, came: self.now, done: None };
        self.asked.push(asked);
        // Of the name, so that each is computed.
        let entries = encoded.into_iter().zip(documents).enumerate().map(|(slot, (encoded, document))| {
            let key = Sha256::digest(document).into();
            Entry { encoded: Arc::new(encoded), window: 0, slot, key }
        });
        let entries = entries.collect();
        self.state.push(id, entries, price_tokens);
        id
    }

    /// Serves a batch, just after whose beginning others may come; gives the number of logits that each request got.
    fn serve_while(&mut self, come: impl FnOnce(&mut Self)) -> Vec<usize> {
        let batch = self.state.fill(self.batch_tokens, self.batch_tokens);
        come(self);
        self.now += batch.tokens;
        let logits = vec![1.0; batch.entries.len()];
        self.state.deliver(&batch, &logits, (Instant::now(), Duration::ZERO));
        let now = self.now;
        let hear = |asked: &mut Asked| {
            let mut got = 0;
            while let Ok(Message::Scored { logits, .. }) = asked.receiver.try_recv() {
                got += logits.len();
            }
            asked.scored += got;
            if asked.scored == asked.documents && asked.done.is_none() {
                asked.done = Some(now);
            }
            got
        };
        self.asked.iter_mut().map(hear).collect()
    }

    fn serve(&mut self) -> Vec<usize> {
        self.serve_while(|_| ())
    }

    /// Ticks from its coming to its end.
    fn took(&self, request: usize) -> Option<usize> {
        self.asked[request].done.map(|done| done - self.asked[request].came)
    }
}

/// Names of documents.
fn documents(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|i| format!("{name} {i}")).collect()
}

fn tokens(words: usize) -> usize {
    let pair = Pair { query: "which", document: &"moon ".repeat(words) };
    encoder().encode(&[pair], &ScoreOptions::new()).unwrap()[0].tokens()
}

/// Of a document of one word, with the query.
const TOKENS: usize = 9;

#[test]
fn documents_have_as_many_tokens_as_these_tests_say() {
    assert_eq!(tokens(1), TOKENS);
}

#[test]
fn a_small_request_waits_for_the_batch_that_has_begun_and_for_nothing_else() {
    for larges in 1..4 {
        let mut bench = Bench::new(10 * TOKENS);
        for large in 0..larges {
            bench.open("a", 0, &documents(&format!("moon {large}"), 2000));
        }
        for small in 0..20 {
            // It comes just after a batch has begun.
            bench.serve_while(|bench| {
                bench.open("a", 0, &documents(&format!("mars {small}"), 3));
            });
            let got = bench.serve();
            assert_eq!(got[larges + small], 3);
            assert_eq!(
                got.iter().sum::<usize>(),
                3,
                "its batch is not filled up with what is of the large ones"
            );
            assert_eq!(bench.took(larges + small), Some(10 * TOKENS + 3 * TOKENS));
        }
    }
}

#[test]
fn a_large_request_gets_a_fifth_of_the_time_beside_any_number_of_small_ones() {
    let mut bench = Bench::new(10 * TOKENS);
    bench.open("a", 0, &documents("moon", 10_000));
    // Thirty clients that ask again as soon as they are answered.
    let mut number = 0;
    let mut ask = |bench: &mut Bench| {
        bench.open("a", 0, &documents(&format!("mars {number}"), 4));
        number += 1;
    };
    (0..30).for_each(|_| ask(&mut bench));
    for _ in 0..500 {
        let before = bench.asked.iter().filter(|asked| asked.done.is_some()).count();
        bench.serve();
        let after = bench.asked.iter().filter(|asked| asked.done.is_some()).count();
        (before..after).for_each(|_| ask(&mut bench));
    }
    let share = (bench.asked[0].scored * TOKENS) as f64 / bench.now as f64;
    assert!((0.18..0.22).contains(&share), "{share}");
    // Alone, each would wait for the other twenty-nine.
    let alone = 30 * 4 * TOKENS;
    let longest = (1..bench.asked.len()).filter_map(|request| bench.took(request)).max().unwrap();
    assert!(longest <= alone * 5 / 4 + 2 * 10 * TOKENS, "{longest}; alone {alone}");
}

#[test]
fn equal_requests_are_served_whole_in_the_order_of_arrival() {
    let mut bench = Bench::new(10 * TOKENS);
    for i in 0..5 {
        bench.open("a", 0, &documents(&format!("moon {i}"), 100));
    }
    while bench.state.has_work() {
        bench.serve();
    }
    let took: Vec<_> = (0..5).map(|request| bench.took(request).unwrap()).collect();
    assert_eq!(took, [1, 2, 3, 4, 5].map(|n| n * 100 * TOKENS));
}

#[test]
fn what_is_accepted_under_overload_waits_no_longer_than_it_was_told() {
    let mut bench = Bench::new(10 * TOKENS);
    let limit = 100 * TOKENS;
    let (mut promised, mut refused) = (Vec::new(), 0);
    // In the time of one batch there come requests for ten, small ones and larger ones.
    for round in 0..400 {
        bench.serve_while(|bench| {
            for i in 0..10 {
                let count = [2, 10, 10, 10, 18][(round + i) % 5];
                let ask = Ask { tenant: "a".into(), priority: 0, price_tokens: count * TOKENS };
                let until = bench.state.tokens_until(&ask, bench.batch_tokens);
                if until - ask.price_tokens > limit {
                    refused += 1;
                    continue;
                }
                bench.open("a", 0, &documents(&format!("mars {round} {i}"), count));
                promised.push(until);
            }
        });
    }
    while bench.state.has_work() {
        bench.serve();
    }
    assert!(refused > 3000, "{refused}");
    for (request, promised) in promised.iter().enumerate() {
        let took = bench.took(request).unwrap();
        // Its last batch may have some of the next request in it.
        assert!(took <= promised + bench.batch_tokens, "request {request}: {took}; promised {promised}");
    }
    // The promise is not kept by leaving the model idle.
    let computed: usize = bench.asked.iter().map(|asked| asked.documents * TOKENS).sum();
    assert_eq!(computed, bench.now);
}

#[test]
fn tenants_share_whatever_their_requests() {
    let mut bench = Bench::new(2 * TOKENS);
    for i in 0..9 {
        bench.open("many", 0, &documents(&format!("moon {i}"), 50));
    }
    bench.open("one", 999, &documents("mars", 200));
    let mut got = [0, 0];
    for _ in 0..60 {
        let each = bench.serve();
        got[0] += each[..9].iter().sum::<usize>();
        got[1] += each[9];
    }
    let share = got[1] as f64 / (got[0] + got[1]) as f64;
    assert!((0.4..0.6).contains(&share), "{got:?}");
}

#[test]
fn long_documents_bring_no_larger_share() {
    let mut bench = Bench::new(2 * TOKENS);
    bench.open("short", 0, &documents("moon", 400));
    bench.open_long("long", 0, (&documents("venus", 60), 20));
    let each = [TOKENS, tokens(20)];
    let mut got = [0, 0];
    for _ in 0..40 {
        let served = bench.serve();
        got[0] += served[0] * each[0];
        got[1] += served[1] * each[1];
    }
    let share = got[1] as f64 / (got[0] + got[1]) as f64;
    assert!((0.35..0.65).contains(&share), "{got:?}");
}

#[test]
fn the_lowest_number_goes_first_within_a_tenant() {
    let mut bench = Bench::new(3 * TOKENS);
    bench.open("a", 5, &documents("moon", 10));
    bench.open("a", 1, &documents("mars", 3));
    assert_eq!(bench.serve()[1], 3);
}

#[test]
fn what_two_requests_ask_for_is_computed_once() {
    let mut bench = Bench::new(1 << 20);
    bench.open("a", 0, &documents("moon", 4));
    bench.open("b", 0, &documents("moon", 6));
    let batch = bench.state.fill(1 << 20, 1 << 20);
    assert_eq!(batch.entries.len(), 6);
    // Another comes while the batch is computed.
    bench.open("c", 0, &documents("moon", 2));
    let shared = bench.state.deliver(&batch, &[0.5; 6], (Instant::now(), Duration::ZERO));
    assert_eq!(shared, 4 + 2);
    assert!(bench.state.fill(1 << 20, 1 << 20).entries.is_empty());
    assert_eq!(bench.serve(), [4, 6, 2]);
}

#[test]
fn who_leaves_is_not_computed() {
    let mut bench = Bench::new(1 << 20);
    let leaves = bench.open("a", 0, &documents("moon", 10));
    bench.open("a", 0, &documents("mars", 2));
    let saved = bench.state.close(leaves);
    assert!(saved >= 10 * TOKENS);
    let batch = bench.state.fill(1 << 20, 1 << 20);
    assert_eq!(batch.entries.len(), 2);
    assert!(!bench.state.has_work());
}

#[test]
fn what_a_request_has_to_wait_for_is_told() {
    let mut bench = Bench::new(90);
    bench.open("a", 0, &documents("moon", 1000));
    let all = bench.state.tokens();
    assert_eq!(all, 1000 * TOKENS);
    let ask = |priority, price_tokens| Ask { tenant: "a".into(), priority, price_tokens };
    assert_eq!(bench.state.tokens_until(&ask(0, 50), 90), 50 + 90, "a turn of the large one");
    assert_eq!(
        bench.state.tokens_until(&ask(0, 500), 90),
        500 + 3 * 90,
        "its two shares of the round, three times"
    );
    assert_eq!(bench.state.tokens_until(&ask(0, 5000), 90), 5000 + all, "behind the other large one");
    assert_eq!(bench.state.tokens_until(&ask(1, 50), 90), all + 50, "behind a higher priority");
    let other = Ask { tenant: "b".into(), priority: 7, price_tokens: 50 };
    assert_eq!(bench.state.tokens_until(&other, 90), 50 + 90, "a turn of another tenant");
    bench.serve_while(|bench| {
        assert_eq!(bench.state.tokens_until(&ask(0, 50), 90), 50 + 90 + 90, "the batch that is computed too");
    });
}

#[test]
fn the_thread_scores_as_the_library_does_and_ends() {
    let encoder = encoder();
    let pairs = [Pair { query: "which planet", document: "mars" }, Pair { query: "which", document: "x" }];
    let wanted: Vec<f32> = encoder.score_pairs(&pairs).unwrap().iter().map(|score| score.logit).collect();
    let queue = start(Arc::new(Model::new(encoder).unwrap()), Duration::from_millis(20));
    let (ticket, receiver) = admit(&queue).unwrap();
    let keys = push(&ticket, &pairs);
    assert_eq!(all_logits(receiver, 2), wanted);
    assert_eq!(keys.iter().map(|key| queue.cached(key).unwrap()).collect::<Vec<_>>(), wanted);
    drop(ticket);
    queue.close();
    assert_eq!(admit(&queue).err(), Some(Refusal::Closed));
}

#[test]
fn a_sequence_is_in_one_part_however_long_it_is() {
    let mut bench = Bench::new(256);
    bench.open_long("a", 0, (&documents("moon", 1), 200));
    assert!(bench.state.has_parts(1, 20));
    assert!(!bench.state.has_parts(2, 20), "the other thread would have nothing");
    bench.open_long("b", 0, (&documents("sun", 1), 200));
    assert!(bench.state.has_parts(2, 20));
    assert!(!bench.state.has_parts(2, 1 << 20));
}

/// A model that waits, in each thread's first batch, until two threads are in it; while it is held, until it is not.
struct Meets {
    model: Model,
    inside: Mutex<HashSet<ThreadId>>,
    met: Condvar,
    is_held: AtomicBool,
}

impl Meets {
    fn new(model: Model, is_held: bool) -> Arc<Self> {
        let is_held = AtomicBool::new(is_held);
        Arc::new(Self { model, inside: Mutex::default(), met: Condvar::new(), is_held })
    }

    /// Waits for a change, as long as it is as `wanted` says.
    fn wait_while(&self, mut wanted: impl FnMut(&HashSet<ThreadId>) -> bool) {
        let inside = self.inside.lock().unwrap();
        let (inside, waited) =
            self.met.wait_timeout_while(inside, Duration::from_secs(60), |inside| wanted(inside)).unwrap();
        drop(inside);
        assert!(!waited.timed_out(), "nobody came");
    }

    /// Lets those go that are in it, and waits for two again.
    fn release(&self) {
        self.inside.lock().unwrap().clear();
        self.is_held.store(false, Ordering::SeqCst);
        self.met.notify_all();
    }
}

impl Engine for Meets {
    fn card(&self) -> &LoadedCard {
        self.model.card()
    }

    fn encode(&self, pairs: &[Pair<'_>], options: &ScoreOptions) -> jointly::Result<Vec<Encoded>> {
        self.model.encode(pairs, options)
    }

    fn logits(&self, sequences: &[&EncodedPair]) -> jointly::Result<Vec<f32>> {
        self.model.logits(sequences)
    }

    fn lanes(&self) -> usize {
        self.model.lanes()
    }

    fn logits_here(&self, sequences: &[&EncodedPair]) -> jointly::Result<Vec<f32>> {
        self.inside.lock().unwrap().insert(std::thread::current().id());
        self.met.notify_all();
        if self.is_held.load(Ordering::SeqCst) {
            self.wait_while(|_| self.is_held.load(Ordering::SeqCst));
        } else {
            self.wait_while(|inside| inside.len() < 2);
        }
        self.model.logits_here(sequences)
    }

    fn score(&self, encoded: &Encoded, logits: &[f32]) -> jointly::Result<Score> {
        self.model.score(encoded, logits)
    }

    fn score_window(&self, encoded: &Encoded, window: usize, logit: f32) -> jointly::Result<Score> {
        self.model.score_window(encoded, window, logit)
    }

    fn check(&self) -> jointly::Result<()> {
        self.model.check()
    }
}

#[test]
fn while_there_is_enough_threads_compute_batches_of_their_own() {
    let encoder = encoder_on(2);
    let texts = documents("a planet of its own", 400);
    let pairs: Vec<Pair<'_>> =
        texts.iter().map(|document| Pair { query: "which planet", document }).collect();
    let wanted: Vec<f32> = encoder.score_pairs(&pairs).unwrap().iter().map(|score| score.logit).collect();
    let model = Model::new(encoder).unwrap();
    let engine = Meets::new(model, false);
    // Batches of no time are the smallest that there are.
    let queue = start(Arc::clone(&engine) as Arc<dyn Engine>, Duration::ZERO);
    let (first, first_receiver) = admit(&queue).unwrap();
    let (second, second_receiver) = admit(&queue).unwrap();
    push(&first, &pairs[..250]);
    push(&second, &pairs[250..]);
    let found = [all_logits(first_receiver, 250), all_logits(second_receiver, 150)].concat();
    assert_eq!(found, wanted);
    assert_eq!(engine.inside.lock().unwrap().len(), 2, "two lanes, in one session");
    assert_eq!(queue.load().1, 0);
}

#[test]
fn a_thread_that_had_nothing_to_do_comes_back_when_there_is_enough() {
    let model = Model::new(encoder_on(2)).unwrap();
    let engine = Meets::new(model, true);
    let queue = start(Arc::clone(&engine) as Arc<dyn Engine>, Duration::ZERO);
    let texts = documents("a planet of its own", 400);
    let pairs: Vec<Pair<'_>> =
        texts.iter().map(|document| Pair { query: "which planet", document }).collect();
    let tokens = queue.engine().encode(&pairs[..1], &ScoreOptions::new()).unwrap()[0].tokens();
    // Enough for two threads to begin, and once one has its batch not enough for the other.
    let few = queue.batch_tokens().div_ceil(tokens);
    let (first, first_receiver) = admit(&queue).unwrap();
    push(&first, &pairs[..few]);
    engine.wait_while(HashSet::is_empty);
    std::thread::sleep(Duration::from_millis(50)); // the other has looked, and gone
    let (second, second_receiver) = admit(&queue).unwrap();
    push(&second, &pairs[few..]);
    engine.release();
    all_logits(first_receiver, few);
    all_logits(second_receiver, pairs.len() - few);
    assert_eq!(engine.inside.lock().unwrap().len(), 2);
}

fn start(engine: Arc<dyn Engine>, batch_time: Duration) -> Arc<Queue> {
    let options = QueueOptions { batch_time, max_requests: 10, max_tokens: 100_000, cached_scores: 10 };
    Queue::start(engine, Arc::default(), options).unwrap()
}

fn admit(queue: &Arc<Queue>) -> Result<(Ticket, UnboundedReceiver<Message>), Refusal> {
    let ask = Ask { tenant: "a".into(), priority: 0, price_tokens: 20 };
    queue.admit(ask, Duration::from_secs(100), || Ok(()))
}

fn push(ticket: &Ticket, pairs: &[Pair<'_>]) -> Vec<Key> {
    let encoded = ticket.queue.engine().encode(pairs, &ScoreOptions::new()).unwrap();
    let entry = |(slot, encoded): (usize, Encoded)| {
        let key = ticket.queue.key(&encoded.windows()[0].pair);
        Entry { encoded: Arc::new(encoded), window: 0, slot, key }
    };
    let entries: Vec<Entry> = encoded.into_iter().enumerate().map(entry).collect();
    let keys = entries.iter().map(|entry| entry.key).collect();
    ticket.push(entries, 20);
    keys
}

/// The logits of a request's sequences, each told once.
fn all_logits(mut receiver: UnboundedReceiver<Message>, count: usize) -> Vec<f32> {
    let mut found = vec![None; count];
    for _ in 0..count {
        if found.iter().all(Option::is_some) {
            break;
        }
        match receiver.blocking_recv().unwrap() {
            Message::Scored { logits, .. } => {
                for (slot, logit) in logits {
                    assert_eq!(found[slot].replace(logit), None, "told twice");
                }
            }
            Message::Failed => panic!("failed"),
        }
    }
    found.into_iter().map(Option::unwrap).collect()
}
