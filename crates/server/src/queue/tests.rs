use std::path::Path;

use jointly::{CrossEncoder, LoadOptions};

use super::*;

fn encoder() -> CrossEncoder {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/tiny-bert");
    CrossEncoder::load(folder, LoadOptions::new().threads(1)).unwrap()
}

/// Requests in a queue without a thread.
struct Bench {
    encoder: CrossEncoder,
    state: State,
    receivers: Vec<UnboundedReceiver<Message>>,
}

impl Bench {
    fn new() -> Self {
        Self { encoder: encoder(), state: State::default(), receivers: Vec::new() }
    }

    /// A request of as many documents, each of which is named for it, or for all requests.
    fn open(&mut self, tenant: &str, priority: u16, documents: &[String]) -> FlowId {
        let (sender, receiver) = unbounded_channel();
        self.receivers.push(receiver);
        let pairs: Vec<Pair<'_>> =
            documents.iter().map(|document| Pair { query: "which", document }).collect();
        let encoded = self.encoder.encode(&pairs, &ScoreOptions::new()).unwrap();
        let ask = Ask { tenant: tenant.into(), priority, price_tokens: 10 * documents.len() };
        let id = self.state.open(ask, sender);
        // Of the text: the model's vocabulary is so small that different texts have the same tokens.
        let entries = encoded.into_iter().zip(documents).enumerate().map(|(slot, (encoded, document))| {
            let key = Sha256::digest(document).into();
            Entry { encoded: Arc::new(encoded), window: 0, slot, key }
        });
        let entries = entries.collect();
        self.state.push(id, entries, 10 * documents.len());
        id
    }

    /// Serves a batch; gives the number of logits that each request got.
    fn serve(&mut self, budget: usize) -> Vec<usize> {
        let batch = self.state.fill(budget, budget);
        let logits = vec![1.0; batch.entries.len()];
        self.state.deliver(&batch, &logits, (Instant::now(), Duration::ZERO));
        self.receivers
            .iter_mut()
            .map(|receiver| {
                let mut got = 0;
                while let Ok(Message::Scored { logits, .. }) = receiver.try_recv() {
                    got += logits.len();
                }
                got
            })
            .collect()
    }
}

fn documents(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|i| format!("{name} {i}")).collect()
}

fn tokens(bench: &Bench, document: &str) -> usize {
    bench.encoder.encode(&[Pair { query: "which", document }], &ScoreOptions::new()).unwrap()[0].tokens()
}

#[test]
fn a_large_request_gives_way_after_each_turn() {
    let mut bench = Bench::new();
    let budget = 4 * tokens(&bench, "moon 0");
    bench.open("a", 0, &documents("moon", 1000));
    bench.open("a", 0, &documents("mars", 3));
    assert!(bench.serve(budget)[0] > 0);
    let second = bench.serve(budget);
    assert_eq!(second[1], 3, "the small one has its turn in the second batch: {second:?}");
}

#[test]
fn tenants_share_whatever_their_requests() {
    let mut bench = Bench::new();
    let budget = 2 * tokens(&bench, "moon 0");
    for i in 0..9 {
        bench.open("many", 0, &documents(&format!("moon {i}"), 50));
    }
    bench.open("one", 999, &documents("mars", 200));
    let mut got = [0, 0];
    for _ in 0..60 {
        let each = bench.serve(budget);
        got[0] += each[..9].iter().sum::<usize>();
        got[1] += each[9];
    }
    let share = got[1] as f64 / (got[0] + got[1]) as f64;
    assert!((0.4..0.6).contains(&share), "{got:?}");
}

#[test]
fn long_documents_bring_no_larger_share() {
    let mut bench = Bench::new();
    let budget = 2 * tokens(&bench, "moon 0");
    let long: Vec<String> = (0..60).map(|i| format!("{i} {}", "venus ".repeat(20))).collect();
    bench.open("short", 0, &documents("moon", 400));
    bench.open("long", 0, &long);
    let each = [tokens(&bench, "moon 0"), tokens(&bench, &long[0])];
    let mut got = [0, 0];
    for _ in 0..40 {
        let served = bench.serve(budget);
        got[0] += served[0] * each[0];
        got[1] += served[1] * each[1];
    }
    let share = got[1] as f64 / (got[0] + got[1]) as f64;
    assert!((0.35..0.65).contains(&share), "{got:?}");
}

#[test]
fn the_lowest_number_goes_first_within_a_tenant() {
    let mut bench = Bench::new();
    let budget = 3 * tokens(&bench, "moon 0");
    bench.open("a", 5, &documents("moon", 10));
    bench.open("a", 1, &documents("mars", 3));
    assert_eq!(bench.serve(budget)[1], 3);
}

#[test]
fn what_two_requests_ask_for_is_computed_once() {
    let mut bench = Bench::new();
    bench.open("a", 0, &documents("moon", 4));
    bench.open("b", 0, &documents("moon", 6));
    let batch = bench.state.fill(1 << 20, 1 << 20);
    assert_eq!(batch.entries.len(), 6);
    // Another comes while the batch is computed.
    bench.open("c", 0, &documents("moon", 2));
    let shared = bench.state.deliver(&batch, &[0.5; 6], (Instant::now(), Duration::ZERO));
    assert_eq!(shared, 4 + 2);
    assert!(bench.state.fill(1 << 20, 1 << 20).entries.is_empty());
    assert_eq!(bench.serve(1), [4, 6, 2]);
}

#[test]
fn who_leaves_is_not_computed() {
    let mut bench = Bench::new();
    let leaves = bench.open("a", 0, &documents("moon", 10));
    bench.open("a", 0, &documents("mars", 2));
    let saved = bench.state.close(leaves);
    assert!(saved >= 10 * tokens(&bench, "moon 0"));
    let batch = bench.state.fill(1 << 20, 1 << 20);
    assert_eq!(batch.entries.len(), 2);
    assert!(!bench.state.has_work());
}

#[test]
fn a_small_request_need_not_wait_for_all_of_a_large_one() {
    let mut bench = Bench::new();
    bench.open("a", 0, &documents("moon", 1000));
    let all = bench.state.tokens();
    let ask = |priority, price_tokens| Ask { tenant: "a".into(), priority, price_tokens };
    assert_eq!(bench.state.tokens_until(&ask(0, 50), 100), 150);
    assert_eq!(bench.state.tokens_until(&ask(1, 50), 100), all + 50, "behind a higher priority");
    let other = Ask { tenant: "b".into(), priority: 7, price_tokens: 50 };
    assert_eq!(bench.state.tokens_until(&other, 100), 100, "beside another tenant");
}

#[test]
fn the_thread_scores_as_the_library_does_and_ends() {
    let encoder = encoder();
    let pairs = [Pair { query: "which planet", document: "mars" }, Pair { query: "which", document: "x" }];
    let wanted: Vec<f32> = encoder.score_pairs(&pairs).unwrap().iter().map(|score| score.logit).collect();
    let engine = Arc::new(crate::engine::Model::new(encoder).unwrap());
    let options = QueueOptions {
        batch_time: Duration::from_millis(20),
        max_requests: 10,
        max_tokens: 1000,
        cached_scores: 10,
    };
    let queue = Queue::start(engine, Arc::default(), options).unwrap();
    let ask = Ask { tenant: "a".into(), priority: 0, price_tokens: 20 };
    let (ticket, mut receiver) = queue.admit(ask.clone(), Duration::from_secs(1)).unwrap();
    let encoded = queue.engine().encode(&pairs, &ScoreOptions::new()).unwrap();
    let entries: Vec<Entry> = encoded
        .into_iter()
        .enumerate()
        .map(|(slot, encoded)| {
            let key = queue.key(&encoded.windows()[0].pair);
            Entry { encoded: Arc::new(encoded), window: 0, slot, key }
        })
        .collect();
    let keys: Vec<Key> = entries.iter().map(|entry| entry.key).collect();
    ticket.push(entries, 20);
    let mut found = vec![0.0; 2];
    let mut left = 2;
    while left > 0 {
        match receiver.blocking_recv().unwrap() {
            Message::Scored { logits, .. } => {
                left -= logits.len();
                logits.into_iter().for_each(|(slot, logit)| found[slot] = logit);
            }
            Message::Failed => panic!("failed"),
        }
    }
    assert_eq!(found, wanted);
    assert_eq!(keys.iter().map(|key| queue.cached(key).unwrap()).collect::<Vec<_>>(), wanted);
    drop(ticket);
    queue.close();
    assert_eq!(queue.admit(ask, Duration::from_secs(1)).err(), Some(Refusal::Closed));
}
