//! The laws of stages and cascades, on scorers that read the score from the text.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jointly::rank::listwise::{ListJudge, Listwise, ListwiseOptions, Method, Prompt, Reply, Usage};
use jointly::rank::{
    Aggregate, Applied, Blend, Budget, Cancel, Cascade, Confirm, Context, Distinct, Dpp, Duo, DuoScorer,
    EarlyStop, Given, Guarantee, Kept, Meter, Mmr, Outcome, Placed, Preference, Preferred, Request, Rescore,
    Same, Scorer, Shingles, Spent, Stage, Stop, SubQuery, Xquad,
};
use jointly::{Error, ErrorKind, Result, Score, ScoreScale};
use proptest::prelude::*;

/// Reads the logit from the document: its first word, or the one after `query=`.
struct Reader {
    scale: ScoreScale,
    /// Added to each logit, by the length of the text: an error that is always the same.
    error: f32,
    calibrated: bool,
}

const LOGITS: Reader = Reader { scale: ScoreScale::Logit, error: 0.0, calibrated: false };
const SIGMOIDS: Reader = Reader { scale: ScoreScale::Probability, error: 0.0, calibrated: false };

fn sigmoid(logit: f32) -> f32 {
    1.0 / (1.0 + (-logit).exp())
}

impl Scorer for Reader {
    fn scale(&self) -> ScoreScale {
        self.scale
    }

    fn score(&self, query: &str, documents: &[&str]) -> Result<Vec<Score>> {
        let score = |document: &&str| {
            let own = document.split_whitespace().find_map(|word| word.strip_prefix(&format!("{query}=")));
            let word = own.unwrap_or_else(|| document.split_whitespace().next().unwrap());
            let truth: f32 = word.parse().unwrap();
            // From -1 to 1, and as good as random.
            let noise =
                document.bytes().fold(7_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
            let logit = truth + self.error * (noise % 2001) as f32 / 1000.0 - self.error;
            Score {
                logit,
                score: if self.scale == ScoreScale::Probability { sigmoid(logit) } else { logit },
                probability: self.calibrated.then(|| sigmoid(logit / 2.0)),
                tokens: 10,
                truncated: false,
                windows: 1,
                span: None,
            }
        };
        Ok(documents.iter().map(score).collect())
    }
}

/// The first document is better if its number is larger; always a little too good because it is the first.
struct Larger;

impl Preference for Larger {
    fn prefer(&self, _: &str, pairs: &[(&str, &str)]) -> Result<Preferred> {
        let number = |text: &str| text.split_whitespace().next().unwrap().parse::<f64>().unwrap();
        let prefer = |(a, b): &(&str, &str)| (0.5 + 0.1 * (number(a) - number(b)) + 0.05).clamp(0.0, 1.0);
        let spent = Spent { calls: 1, pairs: pairs.len() as u64, tokens: 100, usd: 0.001 };
        Ok(Preferred { probabilities: pairs.iter().map(prefer).collect(), spent, cut: 0 })
    }
}

fn indices(outcome: &Outcome) -> Vec<usize> {
    outcome.hits.iter().map(|hit| hit.index).collect()
}

fn texts(logits: &[f32]) -> Vec<String> {
    logits.iter().map(f32::to_string).collect()
}

/// What every query may mean here; the first word answers both.
const MEANINGS: [SubQuery<'static>; 2] =
    [SubQuery { text: "a", weight: 1.0 }, SubQuery { text: "b", weight: 2.0 }];

fn run(cascade: &Cascade<'_>, texts: &[String], scores: Option<&[f64]>) -> Result<Outcome> {
    let documents: Vec<&str> = texts.iter().map(String::as_str).collect();
    let request = Request::new("q", &documents).sub_queries(&MEANINGS);
    cascade.run(&match scores {
        Some(scores) => request.first_scores(scores),
        None => request,
    })
}

/// Answers every question with the same two, which may not be there.
struct Second;

impl ListJudge for Second {
    fn name(&self) -> &str {
        "second"
    }

    fn complete(&self, _: &Prompt, _: Option<Duration>) -> Reply {
        let usage = Usage { prompt_tokens: 90, completion_tokens: 8, cost: 0.0 };
        Reply { usage, outcome: Ok("[2] > [3]".into()) }
    }
}

/// What a generated stage is: its kind and two numbers.
type Plan = (u8, usize, usize);

fn boxed((kind, a, b): Plan) -> Box<dyn Stage + Send> {
    let likeness = |x: usize, y: usize| if x == y { 1.0 } else { ((x * 7 + y * 7) % 10) as f64 / 20.0 };
    let depth = a + 1;
    match kind {
        0 => Box::new(Rescore::new(LOGITS, depth)),
        1 => Box::new(Rescore::all(SIGMOIDS).keep(a)),
        2 => Box::new(Rescore::new(SIGMOIDS, depth).blend(Blend::ReciprocalRank).keep(b)),
        3 => Box::new(Rescore::all(SIGMOIDS).blend(Blend::Interpolate { weight: 0.5 })),
        4 => Box::new(
            Rescore::all(SIGMOIDS)
                .early_stop(EarlyStop::Unchanged { top_n: 3, patience: 1 })
                .batch_pairs(b + 1),
        ),
        5 => Box::new(Distinct::new(0.5, Shingles::new(1)).unwrap()),
        6 => Box::new(Mmr::new(b as f64 / 40.0, a, Given(likeness)).unwrap().min_max()),
        7 => Box::new(Dpp::new(b as f64 / 40.0, a, Given(likeness)).unwrap().min_max()),
        8 => Box::new(Duo::new(Larger, depth.min(6)).aggregate(Aggregate::Sum)),
        9 => {
            let same = if a % 2 == 0 { Same::Order } else { Same::Set };
            let confirm = Confirm::new(Reader { error: 0.5, ..LOGITS }, LOGITS, (depth, 0.5)).unwrap();
            Box::new(confirm.same(same).keep(b))
        }
        10 => Box::new(Rescore::all(SIGMOIDS).min_score(0.5).min_keep(b)),
        11 => Box::new(
            Rescore::all(SIGMOIDS)
                .blend(Blend::Interpolate { weight: b as f64 / 40.0 })
                .early_stop(EarlyStop::Proven { top_n: depth })
                .batch_pairs(b + 1),
        ),
        12 => Box::new(Xquad::new(b as f64 / 40.0, a, SIGMOIDS).unwrap()),
        13 => {
            let method = Method::SlidingWindow { window: 4, stride: 2, passes: 1 };
            Box::new(Listwise::new(Second, ListwiseOptions::new().method(method).depth(depth)).unwrap())
        }
        _ => Box::new(Rescore::all(Reader { calibrated: true, ..LOGITS }).min_probability(0.6)),
    }
}

proptest! {
    #[test]
    fn nothing_is_lost_or_doubled_and_what_is_not_kept_stays_in_its_order(
        logits in proptest::collection::vec((-80_i32..80).prop_map(|tenths| tenths as f32 / 10.0), 0..40),
        plans in proptest::collection::vec((0_u8..15, 0_usize..40, 0_usize..40), 1..5),
    ) {
        let texts = texts(&logits);
        let first: Vec<f64> = (0..logits.len()).map(|place| -(place as f64)).collect();
        let mut before: Vec<usize> = (0..logits.len()).collect();
        let mut kept_before = logits.len();
        for stages in 1..=plans.len() {
            let cascade = || plans[..stages].iter().fold(Cascade::new(), |cascade, plan| cascade.boxed(boxed(*plan)));
            let found = match run(&cascade(), &texts, Some(&first)) {
                Ok(found) => found,
                // Of documents that nobody has read there is no relevance: only as the first stage, or behind a stage without one.
                Err(Error::InvalidOption { option: "min_max", problem }) => {
                    prop_assert!(matches!(plans[stages - 1].0, 6 | 7) && problem.contains("no stage before it"), "{}", problem);
                    return Ok(());
                }
                // Nor can an order or a logit be weighed against probabilities.
                Err(Error::WrongScale { stage, .. }) => {
                    prop_assert!(plans[stages - 1].0 == 12 && stage == "xquad", "{}", stage);
                    return Ok(());
                }
                Err(error) => return Err(TestCaseError::fail(error.to_string())),
            };
            // Valid, each once.
            let order = indices(&found);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..logits.len()).collect::<Vec<_>>());
            // The same again.
            let again = run(&cascade(), &texts, Some(&first)).unwrap();
            prop_assert_eq!(&again.hits, &found.hits);
            // What this stage did not keep lies below in its former order.
            let report = &found.stages[stages - 1];
            prop_assert_eq!(report.incoming, kept_before);
            prop_assert_eq!(report.kept, found.kept);
            prop_assert!(report.kept <= report.incoming && report.read <= report.incoming);
            let kept = &order[..found.kept];
            let rest: Vec<usize> = before.iter().copied().filter(|index| !kept.contains(index)).collect();
            prop_assert_eq!(&order[found.kept..], &rest[..]);
            // It only keeps what came in, in an order of its own that never rises.
            prop_assert!(kept.iter().all(|index| before[..kept_before].contains(index)));
            for two in found.hits[..found.kept].windows(2) {
                prop_assert!(two[0].value.unwrap() >= two[1].value.unwrap());
                prop_assert_eq!(two[0].stage, Some(stages - 1));
            }
            prop_assert!(!found.is_partial());
            (before, kept_before) = (order, found.kept);
        }
    }

    /// The screen errs by up to 0.7: with that slack the first n are the exact ones, in the exact order.
    #[test]
    fn a_screen_with_enough_slack_loses_nothing(
        logits in proptest::collection::vec((-30_i32..30).prop_map(|tenths| tenths as f32 / 10.0), 1..60),
        top_n in 1_usize..12,
        batch in 1_usize..9,
    ) {
        // The place makes texts, and so errors, different.
        let texts: Vec<String> = logits.iter().enumerate().map(|(place, logit)| format!("{logit} {place}")).collect();
        let screen = Reader { error: 0.7, ..LOGITS };
        let exact = run(&Cascade::new().stage(Rescore::all(LOGITS)), &texts, None).unwrap();
        // 0.0001: sums of f32 are rounded.
        let confirm = Confirm::new(screen, LOGITS, (top_n, 0.7001)).unwrap().batch_pairs(batch).confidence(0.9);
        let found = run(&Cascade::new().stage(confirm), &texts, None).unwrap();
        let head = top_n.min(logits.len());
        prop_assert_eq!(&indices(&found)[..head], &indices(&exact)[..head]);
        let Some(Guarantee::SameTop { confirmed, confidence, .. }) = found.stages[0].guarantee else { panic!() };
        prop_assert!((head..=logits.len()).contains(&confirmed));
        prop_assert_eq!(confidence, Some(0.9));
        prop_assert_eq!(found.spent.pairs as usize, logits.len() + confirmed);
    }

    /// A set needs what lies near the cut alone: twice the error suffices, since the cut moves by no more than the error.
    #[test]
    fn a_set_is_the_exact_one_and_is_confirmed_near_the_cut_only(
        logits in proptest::collection::hash_set(-300_i32..300, 1..60),
        top_n in 1_usize..12,
        error in prop_oneof![Just(0.1_f32), Just(0.7)],
    ) {
        let texts: Vec<String> =
            logits.iter().enumerate().map(|(place, logit)| format!("{} {place}", *logit as f32 / 10.0)).collect();
        let screen = Reader { error, ..LOGITS };
        let exact = run(&Cascade::new().stage(Rescore::all(LOGITS)), &texts, None).unwrap();
        let slack = f64::from(2.0 * error) + 0.0001;
        let confirm = Confirm::new(&screen, LOGITS, (top_n, slack)).unwrap().same(Same::Set);
        let found = run(&Cascade::new().stage(confirm), &texts, None).unwrap();
        let head = |found: &Outcome| {
            let mut head = indices(found)[..top_n.min(texts.len())].to_vec();
            head.sort_unstable();
            head
        };
        prop_assert_eq!(head(&found), head(&exact));
        let Some(Guarantee::SameTop { confirmed, same, .. }) = found.stages[0].guarantee else { panic!() };
        prop_assert_eq!(same, Same::Set);
        prop_assert_eq!(found.spent.pairs as usize, texts.len() + confirmed);
        // Confirmed is what the screen puts near the cut, and nothing else.
        let screened = run(&Cascade::new().stage(Rescore::all(&screen)), &texts, None).unwrap();
        let at = |place: usize| screened.hits.get(place).and_then(|hit| hit.value);
        let near = at(top_n - 1).zip(at(top_n)).map_or(0, |(last, next)| {
            let cut = f64::midpoint(last, next);
            screened.hits.iter().filter(|hit| (hit.value.unwrap() - cut).abs() <= slack).count()
        });
        prop_assert_eq!(confirmed, near);
    }

    /// With interpolation, stopping once nothing can change is the same as reading everything.
    #[test]
    fn a_proven_stop_changes_nothing_at_the_top(
        pairs in proptest::collection::vec((-50_i32..50, 0_i32..100), 1..60),
        (top_n, batch, weight) in (1_usize..8, 1_usize..9, 0_u8..=10),
    ) {
        let texts: Vec<String> = pairs.iter().map(|(tenths, _)| (f64::from(*tenths) / 10.0).to_string()).collect();
        let mut first: Vec<f64> = pairs.iter().map(|(_, score)| f64::from(*score)).collect();
        first.sort_by(|a, b| b.total_cmp(a));
        let blend = Blend::Interpolate { weight: f64::from(weight) / 10.0 };
        let whole = Rescore::all(SIGMOIDS).blend(blend);
        let early = Rescore::all(SIGMOIDS).blend(blend).early_stop(EarlyStop::Proven { top_n }).batch_pairs(batch);
        let whole = run(&Cascade::new().stage(whole), &texts, Some(&first)).unwrap();
        let found = run(&Cascade::new().stage(early), &texts, Some(&first)).unwrap();
        let head = top_n.min(texts.len());
        prop_assert_eq!(&indices(&found)[..head], &indices(&whole)[..head]);
        let report = &found.stages[0];
        prop_assert_eq!(report.guarantee.is_some(), report.read < texts.len());
    }

    /// So it is where a threshold on the model's own score drops documents, but for the first `min_keep`.
    #[test]
    fn a_proven_stop_holds_with_a_threshold(
        pairs in proptest::collection::vec((-50_i32..50, 0_i32..100), 1..60),
        (top_n, batch, weight) in (1_usize..8, 1_usize..9, 0_u8..=10),
        (least, min_keep) in (0.0_f64..1.0, 0_usize..4),
    ) {
        let logit = |(tenths, _): &(i32, i32)| (f64::from(*tenths) / 10.0).to_string();
        let texts: Vec<String> = pairs.iter().map(logit).collect();
        let mut first: Vec<f64> = pairs.iter().map(|(_, score)| f64::from(*score)).collect();
        first.sort_by(|a, b| b.total_cmp(a));
        let stage = || {
            let blend = Blend::Interpolate { weight: f64::from(weight) / 10.0 };
            Rescore::all(SIGMOIDS).blend(blend).min_score(least).min_keep(min_keep)
        };
        let early = stage().early_stop(EarlyStop::Proven { top_n }).batch_pairs(batch);
        let whole = run(&Cascade::new().stage(stage()), &texts, Some(&first)).unwrap();
        let found = run(&Cascade::new().stage(early), &texts, Some(&first)).unwrap();
        let head = if found.stages[0].guarantee.is_some() { top_n } else { texts.len() };
        prop_assert_eq!(&indices(&found)[..head], &indices(&whole)[..head]);
    }

    /// Greedy by determinants, computed anew for each candidate.
    #[test]
    fn dpp_is_greedy_by_determinants(
        points in proptest::collection::vec((0.1_f64..1.0, 0.1_f64..1.0, 0.1_f64..1.0), 2..8),
        logits in proptest::collection::vec(-3.0_f32..3.0, 8),
        lambda in 0.1_f64..0.9,
    ) {
        let count = points.len();
        let unit: Vec<[f64; 3]> = points.iter().map(|(x, y, z)| {
            let norm = (x * x + y * y + z * z).sqrt();
            [x / norm, y / norm, z / norm]
        }).collect();
        let alike = |a: usize, b: usize| if a == b { 1.0 } else { (0..3).map(|i| unit[a][i] * unit[b][i]).sum::<f64>().min(1.0) };
        let keep = 3.min(count);
        let cascade = Cascade::new()
            .stage(Rescore::all(SIGMOIDS))
            .stage(Dpp::new(lambda, keep, Given(alike)).unwrap());
        let found = run(&cascade, &texts(&logits[..count]), None).unwrap();
        let picked: Vec<usize> = indices(&found)[..found.kept].to_vec();
        for step in 0..picked.len() {
            let value = |next: usize| {
                let mut set = picked[..step].to_vec();
                set.push(next);
                let matrix: Vec<Vec<f64>> = set.iter().map(|a| set.iter().map(|b| alike(*a, *b)).collect()).collect();
                let relevance: f64 = set.iter().map(|index| f64::from(sigmoid(logits[*index]))).sum();
                lambda * relevance + (1.0 - lambda) * determinant(matrix).ln()
            };
            let best = (0..count).filter(|next| !picked[..step].contains(next)).map(value).fold(f64::NEG_INFINITY, f64::max);
            // Vectors of three values: near a determinant of 0 the two ways of computing differ.
            prop_assert!(value(picked[step]) >= best - 1e-6, "{} {}", value(picked[step]), best);
        }
    }
}

fn determinant(mut matrix: Vec<Vec<f64>>) -> f64 {
    let mut product = 1.0;
    for column in 0..matrix.len() {
        product *= matrix[column][column];
        for row in column + 1..matrix.len() {
            let factor = matrix[row][column] / matrix[column][column];
            for i in column..matrix.len() {
                matrix[row][i] -= factor * matrix[column][i];
            }
        }
    }
    product
}

#[test]
fn too_little_slack_does_lose_something() {
    // By the screen's error of up to 2 either way; so the law above can fail.
    let texts: Vec<String> =
        (0..60).map(|place| format!("{} {place}", (place * 7 % 60) as f32 / 20.0)).collect();
    let exact = run(&Cascade::new().stage(Rescore::all(LOGITS)), &texts, None).unwrap();
    let confirm = Confirm::new(Reader { error: 2.0, ..LOGITS }, LOGITS, (10, 0.0)).unwrap();
    let found = run(&Cascade::new().stage(confirm), &texts, None).unwrap();
    assert_ne!(indices(&found)[..10], indices(&exact)[..10]);
}

/// Counts calls, and cancels at one of them.
struct Cancelling {
    calls: AtomicUsize,
    at: usize,
    cancel: Cancel,
}

impl Scorer for Cancelling {
    fn scale(&self) -> ScoreScale {
        ScoreScale::Logit
    }

    fn score(&self, query: &str, documents: &[&str]) -> Result<Vec<Score>> {
        if self.calls.fetch_add(1, Ordering::Relaxed) + 1 == self.at {
            self.cancel.cancel();
        }
        LOGITS.score(query, documents)
    }
}

#[test]
fn a_cancelled_cascade_ends_after_its_batch_and_keeps_every_document() {
    let texts: Vec<String> = (0..100).map(|place| (place as f32).to_string()).collect();
    let cancel = Cancel::new();
    let scorer = Cancelling { calls: AtomicUsize::new(0), at: 3, cancel: cancel.clone() };
    let cascade = Cascade::new()
        .stage(Rescore::all(&scorer).batch_pairs(10))
        .stage(Rescore::all(LOGITS))
        .budget(Budget::new().cancel(cancel));
    let found = run(&cascade, &texts, None).unwrap();
    assert_eq!(scorer.calls.load(Ordering::Relaxed), 3);
    assert_eq!((found.stop, found.is_partial()), (Some(Stop::Cancelled), true));
    // Thirty were read and stand above in their order; the others follow as they came.
    let expected: Vec<usize> = (0..30).rev().chain(30..100).collect();
    assert_eq!(indices(&found), expected);
    assert_eq!((found.stages[0].read, found.stages[1].read), (30, 0));
    assert_eq!(found.stages[1].stop, Some(Stop::Cancelled));
}

/// Ends each batch only when the deadline is over.
struct Late(Instant);

impl Scorer for Late {
    fn scale(&self) -> ScoreScale {
        ScoreScale::Logit
    }

    fn score(&self, query: &str, documents: &[&str]) -> Result<Vec<Score>> {
        while Instant::now() < self.0 {
            std::thread::yield_now();
        }
        LOGITS.score(query, documents)
    }
}

#[test]
fn a_deadline_is_overrun_by_no_more_than_a_batch() {
    let texts: Vec<String> = (0..100).map(|place| (place as f32).to_string()).collect();
    let deadline = Instant::now() + Duration::from_millis(5);
    let cascade = Cascade::new().stage(Rescore::all(Late(deadline)).batch_pairs(7));
    let documents: Vec<&str> = texts.iter().map(String::as_str).collect();
    let found = cascade.run(&Request::new("q", &documents).budget(Budget::new().deadline(deadline))).unwrap();
    assert!(found.stages[0].read <= 7, "{:?}", found.stages);
    assert_eq!((found.stop, found.hits.len()), (Some(Stop::Deadline), 100));
    // One that was over before it began reads nothing, and keeps the order.
    let over =
        cascade.run(&Request::new("q", &documents).budget(Budget::new().time(Duration::ZERO))).unwrap();
    assert_eq!((over.stages[0].read, over.stop), (0, Some(Stop::Deadline)));
    assert_eq!(indices(&over), (0..100).collect::<Vec<_>>());
}

#[test]
fn tokens_and_money_end_a_cascade_too() {
    let texts: Vec<String> = (0..100).map(|place| (place as f32).to_string()).collect();
    // 10 tokens for each pair.
    let read = |budget: Budget| {
        let stage = Rescore::all(LOGITS).batch_pairs(8).usd_per_million_tokens(100.0);
        let found = run(&Cascade::new().stage(stage).budget(budget), &texts, None).unwrap();
        (found.stages[0].read, found.spent.tokens, found.stop)
    };
    assert_eq!(read(Budget::new().tokens(200)), (20, 200, Some(Stop::Tokens)));
    // Not one more than there is room for, once it is known what a pair costs.
    assert_eq!(read(Budget::new().tokens(205)), (20, 200, Some(Stop::Tokens)));
    assert_eq!(read(Budget::new().tokens(1000)), (100, 1000, None));
    assert_eq!(read(Budget::new().usd(0.0305)), (30, 300, Some(Stop::Money)));
    // The tighter of the cascade's and the request's.
    assert_eq!(
        read(Budget::new().tokens(400).and(&Budget::new().tokens(160))),
        (16, 160, Some(Stop::Tokens))
    );
    // A duo stage that cannot finish leaves the order as it is.
    let duo = Cascade::new().stage(Duo::new(Larger, 10)).budget(Budget::new().usd(0.003));
    let found = run(&duo, &texts, None).unwrap();
    assert_eq!((indices(&found), found.stop), ((0..100).collect(), Some(Stop::Money)));
    assert_eq!(found.spent.calls, 3);
}

/// Counts questions, and cancels at one of them.
struct Fuse {
    cancel: Cancel,
    asked: AtomicUsize,
    at: usize,
}

impl Fuse {
    fn new(at: usize) -> Self {
        Self { cancel: Cancel::new(), asked: AtomicUsize::new(0), at }
    }

    fn ask(&self) {
        if self.asked.fetch_add(1, Ordering::Relaxed) + 1 == self.at {
            self.cancel.cancel();
        }
    }
}

/// A stage that asks the fuse at each comparison.
type Comparing = fn(&Fuse) -> Box<dyn Stage + Send + '_>;

#[test]
fn stages_that_compare_look_at_the_budget_too() {
    let texts: Vec<String> = (0..300).map(|place| (3.0 - place as f32 / 100.0).to_string()).collect();
    let stages: [Comparing; 3] = [
        |fuse| Box::new(Distinct::new(0.5, Given(move |a, b| alike(fuse, a, b))).unwrap()),
        |fuse| Box::new(Mmr::new(0.5, 300, Given(move |a, b| alike(fuse, a, b))).unwrap()),
        |fuse| Box::new(Dpp::new(0.5, 300, Given(move |a, b| alike(fuse, a, b))).unwrap()),
    ];
    for stage in stages {
        let fuse = Fuse::new(5000);
        let cascade = Cascade::new()
            .stage(Rescore::all(SIGMOIDS))
            .boxed(stage(&fuse))
            .budget(Budget::new().cancel(fuse.cancel.clone()));
        let found = run(&cascade, &texts, None).unwrap();
        let report = &found.stages[1];
        // Tens of thousands would have been made.
        let asked = fuse.asked.load(Ordering::Relaxed);
        assert!((5000..6000).contains(&asked), "{}: {asked}", report.name);
        assert_eq!((report.stop, found.is_partial()), (Some(Stop::Cancelled), true), "{}", report.name);
        let mut order = indices(&found);
        // The first is the most relevant of all; what was not reached is behind it in its order.
        assert_eq!((order[0], &order[report.kept..]), (0, &sorted(&order[report.kept..])[..]));
        order.sort_unstable();
        assert_eq!(order, (0..300).collect::<Vec<_>>());
    }
    // Nothing is lost of what could not be compared any more: only a document that is a copy goes down.
    let fuse = Fuse::new(5000);
    let copies = |a: usize, b: usize| if (a, b) == (1, 0) { 1.0 } else { alike(&fuse, a, b) };
    let cascade = Cascade::new()
        .stage(Distinct::new(0.5, Given(copies)).unwrap())
        .budget(Budget::new().cancel(fuse.cancel.clone()));
    let found = run(&cascade, &texts, None).unwrap();
    assert_eq!((found.stop, found.kept), (Some(Stop::Cancelled), 299));
    assert_eq!(indices(&found), [0].into_iter().chain(2..300).chain([1]).collect::<Vec<_>>());
    assert!(found.stages[0].read < 150, "{:?}", found.stages);
}

/// Nothing is like anything.
fn alike(fuse: &Fuse, a: usize, b: usize) -> f64 {
    fuse.ask();
    if a == b { 1.0 } else { 0.0 }
}

fn sorted(indices: &[usize]) -> Vec<usize> {
    let mut sorted = indices.to_vec();
    sorted.sort_unstable();
    sorted
}

#[test]
fn a_confirmation_that_is_stopped_does_not_mix_two_scales() {
    // The screen reads the first word, the exact scorer the second one: it is cancelled after a batch.
    struct Exact<'a>(&'a Cancel);
    impl Scorer for Exact<'_> {
        fn scale(&self) -> ScoreScale {
            ScoreScale::Logit
        }

        fn score(&self, _: &str, documents: &[&str]) -> Result<Vec<Score>> {
            self.0.cancel();
            let words: Vec<&str> =
                documents.iter().filter_map(|text| text.split_whitespace().nth(1)).collect();
            LOGITS.score("q", &words)
        }
    }
    // Two or four are confirmed, all of them far below the screen's logits of the others.
    let texts = ["6 -30", "5 -10", "4 -40", "3 -20", "2 90", "1 80"].map(String::from);
    for (same, expected) in [(Same::Order, [1, 0, 2, 3, 4, 5]), (Same::Set, [1, 3, 0, 2, 4, 5])] {
        let cancel = Cancel::new();
        // For the order, the first two are confirmed first; for the set, what is within 3 of 4.5: four of five.
        let (top_n, slack) = (2, 3.0);
        let confirm = Confirm::new(LOGITS, Exact(&cancel), (top_n, slack)).unwrap().same(same).batch_pairs(4);
        let cascade = Cascade::new().stage(confirm).budget(Budget::new().cancel(cancel.clone()));
        let found = run(&cascade, &texts, None).unwrap();
        assert_eq!((found.stop, found.kept), (Some(Stop::Cancelled), 6), "{same:?}");
        assert_eq!(indices(&found), expected, "{same:?}: {:?}", found.stages);
        // The places have the screen's values.
        let values: Vec<f64> = found.hits.iter().filter_map(|hit| hit.value).collect();
        assert_eq!(values, [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]);
        assert_eq!(found.hits[0].score.as_ref().unwrap().logit, -10.0);
    }
}

#[test]
fn a_stage_refuses_scores_on_the_wrong_scale() {
    let texts = texts(&[1.0, 2.0, 3.0]);
    let wrong = |cascade: Cascade<'_>| match run(&cascade, &texts, Some(&[3.0, 2.0, 1.0])) {
        Err(Error::WrongScale { stage, found, needed: ScoreScale::Probability, .. }) => (stage, found),
        other => panic!("{other:?}"),
    };
    let mmr = || Mmr::new(0.5, 2, Shingles::new(3)).unwrap();
    let logit = ScoreScale::Logit;
    assert_eq!(wrong(Cascade::new().stage(Rescore::all(LOGITS)).stage(mmr())), ("mmr".into(), logit));
    // Nobody has read them.
    assert_eq!(wrong(Cascade::new().stage(mmr())), ("mmr".into(), ScoreScale::Ordinal));
    let interpolate = Blend::Interpolate { weight: 0.5 };
    assert_eq!(
        wrong(Cascade::new().stage(Rescore::all(LOGITS).blend(interpolate))),
        ("rescore".into(), logit)
    );
    // A sigmoid that nobody has calibrated is not enough for a threshold on probabilities.
    let threshold = Rescore::all(SIGMOIDS).min_probability(0.5);
    assert_eq!(wrong(Cascade::new().stage(threshold)), ("rescore".into(), ScoreScale::Probability));
    // All of these can be used.
    let calibrated = || Rescore::all(Reader { calibrated: true, ..LOGITS });
    for cascade in [
        Cascade::new().stage(Rescore::all(SIGMOIDS)).stage(mmr()),
        Cascade::new().stage(calibrated()).stage(mmr()),
        Cascade::new().stage(Rescore::all(LOGITS)).stage(mmr().min_max()),
        Cascade::new().stage(Rescore::all(SIGMOIDS).blend(interpolate)).stage(mmr()),
        Cascade::new().stage(calibrated().min_probability(0.7)),
    ] {
        run(&cascade, &texts, Some(&[3.0, 2.0, 1.0])).unwrap();
    }
}

#[test]
fn options_and_requests_that_cannot_be_honoured_are_errors() {
    let texts = texts(&[1.0, 2.0]);
    let option = |found: Result<Outcome>| match found {
        Err(Error::InvalidOption { option, .. }) => option,
        other => panic!("{other:?}"),
    };
    let interpolate =
        || Cascade::new().stage(Rescore::all(SIGMOIDS).blend(Blend::Interpolate { weight: 0.5 }));
    assert_eq!(option(run(&interpolate(), &texts, None)), "first_scores");
    assert_eq!(option(run(&interpolate(), &texts, Some(&[1.0]))), "first_scores");
    assert_eq!(option(run(&interpolate(), &texts, Some(&[1.0, f64::NAN]))), "first_scores");
    let proven = Rescore::all(SIGMOIDS).early_stop(EarlyStop::Proven { top_n: 1 });
    assert_eq!(option(run(&Cascade::new().stage(proven), &texts, None)), "early_stop");
    for early_stop in [EarlyStop::Unchanged { top_n: 0, patience: 1 }, EarlyStop::Proven { top_n: 0 }] {
        let stage = Rescore::all(SIGMOIDS).early_stop(early_stop);
        assert_eq!(option(run(&Cascade::new().stage(stage), &texts, None)), "top_n");
    }
    for threshold in [f64::NAN, -0.1, 1.1, f64::INFINITY] {
        let stage = Rescore::all(SIGMOIDS).min_probability(threshold);
        assert_eq!(option(run(&Cascade::new().stage(stage), &texts, None)), "min_probability");
    }
    let stage = Rescore::all(SIGMOIDS).min_score(f64::NAN);
    assert_eq!(option(run(&Cascade::new().stage(stage), &texts, None)), "min_score");
    for confidence in [f64::NAN, -1.0, 0.0, 1.0, 95.0] {
        let stage = Confirm::new(LOGITS, LOGITS, (1, 1.0)).unwrap().confidence(confidence);
        assert_eq!(option(run(&Cascade::new().stage(stage), &texts, None)), "confidence");
    }
    // A mistake of who wrote the cascade, and no broken stage.
    let stage = Mmr::new(0.5, 2, Shingles::new(3)).unwrap().min_max();
    let error = run(&Cascade::new().stage(stage), &texts, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Input);
    assert_eq!(option(Err(error)), "min_max");
    assert!(matches!(Cascade::new().rerank(" ", &["a"]), Err(Error::EmptyQuery)));
    assert!(Mmr::new(1.1, 3, Shingles::new(3)).is_err() && Dpp::new(f64::NAN, 3, Shingles::new(3)).is_err());
    assert!(Distinct::new(0.0, Shingles::new(3)).is_err());
    assert!(
        Confirm::new(LOGITS, LOGITS, (0, 1.0)).is_err() && Confirm::new(LOGITS, LOGITS, (1, -1.0)).is_err()
    );
}

/// Answers what it was made with.
struct Answers(Vec<Kept>);

impl Stage for Answers {
    fn name(&self) -> &str {
        "answers"
    }

    fn apply(&self, _: &Context<'_>, _: &[Placed]) -> Result<Applied> {
        Ok(Applied::new(self.0.clone()))
    }
}

#[test]
fn a_stage_that_breaks_the_law_is_an_error() {
    let texts = texts(&[1.0, 2.0, 3.0]);
    let kept = |kept: &[(usize, f64)]| kept.iter().map(|&(index, value)| Kept { index, value }).collect();
    for (answer, problem) in [
        (kept(&[(0, 1.0), (0, 0.5)]), "document 0 is kept twice"),
        (kept(&[(3, 1.0)]), "document 3 did not come in"),
        (kept(&[(0, 1.0), (1, 2.0)]), "document 1 has 2 below 1"),
        (kept(&[(0, f64::NAN)]), "document 0 has NaN"),
    ] {
        match run(&Cascade::new().stage(Answers(answer)), &texts, None) {
            Err(Error::Stage { stage, problem: found }) => {
                assert!(stage == "answers" && found.contains(problem), "{found}");
            }
            other => panic!("{other:?}"),
        }
    }
    // Also a document that an earlier stage has not kept did not come in.
    let cascade = Cascade::new().stage(Rescore::all(LOGITS).keep(1)).stage(Answers(kept(&[(0, 1.0)])));
    assert!(matches!(run(&cascade, &texts, None), Err(Error::Stage { .. })));
}

#[test]
fn blends_by_hand() {
    // Sigmoids of 0 and ln 3: 1/2 and 3/4. First scores 5, 4, 1: 1, 3/4, 0.
    let ln3 = 3.0_f32.ln();
    let texts = texts(&[0.0, ln3, ln3]);
    let stage = Rescore::all(SIGMOIDS).blend(Blend::Interpolate { weight: 0.75 });
    let found = run(&Cascade::new().stage(stage), &texts, Some(&[5.0, 4.0, 1.0])).unwrap();
    assert_eq!(indices(&found), [1, 0, 2]);
    for (hit, expected) in found.hits.iter().zip([0.75 * 0.75 + 0.25 * 0.75, 0.75 * 0.5 + 0.25, 0.75 * 0.75])
    {
        assert!((hit.value.unwrap() - expected).abs() < 1e-7, "{hit:?}");
    }
    // Ranks by the model: 3, 1, 2.
    let stage = Rescore::all(LOGITS).blend(Blend::ReciprocalRank);
    let found = run(&Cascade::new().stage(stage), &texts, None).unwrap();
    assert_eq!(indices(&found), [1, 0, 2]);
    let expected = [1.0 / 62.0 + 1.0 / 61.0, 1.0 / 61.0 + 1.0 / 63.0, 1.0 / 63.0 + 1.0 / 62.0];
    for (hit, expected) in found.hits.iter().zip(expected) {
        assert!((hit.value.unwrap() - expected).abs() < 1e-12, "{hit:?}");
    }
}

#[test]
fn nothing_is_proven_of_a_document_that_the_threshold_drops() {
    // The first has more than the second can get. But the threshold drops the first, and not the second.
    let logit = |p: f32| (p / (1.0 - p)).ln();
    let texts = texts(&[0.2, 0.9].map(logit));
    let stage = Rescore::all(SIGMOIDS)
        .blend(Blend::Interpolate { weight: 0.5 })
        .early_stop(EarlyStop::Proven { top_n: 1 })
        .min_score(0.5)
        .batch_pairs(1);
    let found = run(&Cascade::new().stage(stage), &texts, Some(&[1.0, 0.0])).unwrap();
    assert_eq!((indices(&found), found.kept), (vec![1, 0], 1));
    assert_eq!((found.stages[0].read, &found.stages[0].guarantee), (2, &None));
}

#[test]
fn early_stops_read_less() {
    let mut logits = vec![8.0_f32; 10];
    logits.extend([-4.0; 90]);
    let texts = texts(&logits);
    let first: Vec<f64> = (0..100).map(|place| if place < 10 { 100.0 } else { 1.0 }).collect();
    let stage = |early_stop| {
        Rescore::all(SIGMOIDS).blend(Blend::Interpolate { weight: 0.3 }).early_stop(early_stop).batch_pairs(5)
    };
    let proven =
        run(&Cascade::new().stage(stage(EarlyStop::Proven { top_n: 10 })), &texts, Some(&first)).unwrap();
    assert_eq!(proven.stages[0].read, 10);
    assert_eq!(proven.stages[0].guarantee, Some(Guarantee::Settled { top_n: 10 }));
    let guess = EarlyStop::Unchanged { top_n: 10, patience: 2 };
    let guess = run(&Cascade::new().stage(stage(guess)), &texts, Some(&first)).unwrap();
    assert_eq!(guess.stages[0].read, 20);
    assert!(matches!(guess.stages[0].guarantee, Some(Guarantee::Heuristic { .. })));
    assert!(!guess.is_partial());
}

#[test]
fn mmr_by_hand() {
    // Relevance .9, .8, .7; the first two are the same.
    let logit = |p: f32| (p / (1.0 - p)).ln();
    let texts = texts(&[0.9, 0.8, 0.7].map(logit));
    let alike = |a: usize, b: usize| if a == b || a + b == 1 { 1.0 } else { 0.1 };
    let found = |lambda: f64, keep: usize| {
        let stage = Mmr::new(lambda, keep, Given(alike)).unwrap();
        run(&Cascade::new().stage(Rescore::all(SIGMOIDS)).stage(stage), &texts, None).unwrap()
    };
    let half = found(0.5, 3);
    assert_eq!(indices(&half), [0, 2, 1]);
    for (hit, expected) in half.hits.iter().zip([0.45, 0.35 - 0.05, 0.4 - 0.5]) {
        assert!((hit.value.unwrap() - expected).abs() < 1e-6, "{hit:?}");
    }
    assert_eq!(indices(&found(1.0, 3)), [0, 1, 2]);
    assert_eq!(found(0.5, 2).kept, 2);
    // All that is left of the most different: at 0, the first pick is the first document.
    assert_eq!(indices(&found(0.0, 3)), [0, 2, 1]);
}

#[test]
fn xquad_by_hand() {
    // Two meanings, equally likely. The first two documents answer the first one, the third answers the second.
    let logit = |p: f32| (p / (1.0 - p)).ln();
    let text = |q: f32, a: f32, b: f32| format!("0 q={} a={} b={}", logit(q), logit(a), logit(b));
    let texts = [text(0.9, 0.9, 0.1), text(0.8, 0.9, 0.1), text(0.5, 0.1, 0.8)];
    let documents: Vec<&str> = texts.iter().map(String::as_str).collect();
    let sub_queries = [SubQuery { text: "a", weight: 2.0 }, SubQuery { text: "b", weight: 2.0 }];
    let cascade = Cascade::new().stage(Rescore::all(SIGMOIDS)).stage(Xquad::new(0.4, 3, SIGMOIDS).unwrap());
    let request = Request::new("q", &documents).sub_queries(&sub_queries);
    let found = cascade.run(&request).unwrap();
    assert_eq!(indices(&found), [0, 2, 1]);
    let expected = [
        0.4 * 0.9 + 0.6 * (0.45 + 0.05),
        0.4 * 0.5 + 0.6 * (0.5 * 0.1 * 0.1 + 0.5 * 0.8 * 0.9),
        0.4 * 0.8 + 0.6 * (0.5 * 0.9 * (0.1 * 0.9) + 0.5 * 0.1 * (0.9 * 0.2)),
    ];
    for (hit, expected) in found.hits.iter().zip(expected) {
        assert!((hit.value.unwrap() - expected).abs() < 1e-6, "{hit:?} {expected}");
    }
    // Without sub-queries nothing changes, and it is said.
    let found = cascade.run(&Request::new("q", &documents)).unwrap();
    assert_eq!((indices(&found), found.stages[1].notes.len()), (vec![0, 1, 2], 1));
}

#[test]
fn near_copies_go_down() {
    let texts = ["1 the river is long and wide", "2 the sea is deep", "3 The river is long, and wide!"]
        .map(String::from);
    // Without the number, the first and last are copies: 6 of 8 words in common.
    let cascade =
        Cascade::new().stage(Rescore::all(SIGMOIDS)).stage(Distinct::new(0.7, Shingles::new(1)).unwrap());
    let found = run(&cascade, &texts, None).unwrap();
    assert_eq!((indices(&found), found.kept), (vec![2, 1, 0], 2));
    assert_eq!(found.stages[1].notes, ["1 near copies"]);
    // What stage before it ordered by is still there for the next one.
    assert_eq!(found.hits[0].value_scale, ScoreScale::Logit);
    assert!(found.hits[0].relevance().is_some());
}

#[test]
fn duo_puts_the_preferred_first_and_the_liking_for_the_first_cancels_out() {
    let logits = [3.0, 5.0, 1.0, 4.0, 2.0, 9.0];
    for aggregate in [Aggregate::Thurstone, Aggregate::Sum] {
        let cascade = Cascade::new().stage(Duo::new(Larger, 5).aggregate(aggregate).batch_pairs(3));
        let found = run(&cascade, &texts(&logits), None).unwrap();
        assert_eq!((indices(&found), found.kept), (vec![1, 3, 0, 4, 2, 5], 5));
        assert_eq!(found.spent.pairs, 20);
    }
}

/// How likely the first is better, by the numbers of both.
struct Table([[f64; 3]; 3]);

impl Preference for Table {
    fn prefer(&self, _: &str, pairs: &[(&str, &str)]) -> Result<Preferred> {
        let number = |text: &str| text.parse::<usize>().unwrap();
        let probabilities = pairs.iter().map(|(a, b)| self.0[number(a)][number(b)]).collect();
        let spent = Spent { calls: 1, pairs: pairs.len() as u64, ..Spent::default() };
        Ok(Preferred { probabilities, spent, cut: 0 })
    }
}

#[test]
fn to_thurstone_a_clear_preference_counts_for_more_than_to_the_sum() {
    // The sums are 1.38, 1.40 and 0.22. In z 0.98 is far out: -0.18 + 1.45 against 0.18 + 0.60.
    let table = Table([[0.5, 0.4, 0.98], [0.6, 0.5, 0.8], [0.02, 0.2, 0.5]]);
    for (aggregate, expected) in [(Aggregate::Thurstone, [0, 1, 2]), (Aggregate::Sum, [1, 0, 2])] {
        let cascade = Cascade::new().stage(Duo::new(&table, 3).aggregate(aggregate));
        assert_eq!(
            indices(&run(&cascade, &texts(&[0.0, 1.0, 2.0]), None).unwrap()),
            expected,
            "{aggregate:?}"
        );
    }
}

/// Remembers what it reads; the first of two documents is as good as its first number.
struct Reads(ScoreScale, Mutex<Vec<String>>);

impl Scorer for Reads {
    fn scale(&self) -> ScoreScale {
        self.0
    }

    fn score(&self, _: &str, documents: &[&str]) -> Result<Vec<Score>> {
        self.1.lock().unwrap().extend(documents.iter().map(ToString::to_string));
        let score = |document: &&str| {
            let digit = document.chars().find_map(|letter| letter.to_digit(10)).unwrap();
            let logit = digit as f32 - 2.0;
            let score = if self.0 == ScoreScale::Probability { sigmoid(logit) } else { logit };
            let truncated = document.contains("long");
            Score { logit, score, probability: None, tokens: 7, truncated, windows: 1, span: None }
        };
        Ok(documents.iter().map(score).collect())
    }
}

#[test]
fn a_scorer_reads_two_documents_as_one_text() {
    let documents = ["1 {b} x", "3 é y", "2"];
    let mut orders = Vec::new();
    for scale in [ScoreScale::Logit, ScoreScale::Probability] {
        let reads = Reads(scale, Mutex::default());
        let scorer = DuoScorer::new(&reads).unwrap().template("<{a}|{b}>").unwrap().max_chars(5);
        let found = Cascade::new().stage(Duo::new(scorer, 3)).run(&Request::new("q", &documents)).unwrap();
        assert_eq!((found.spent.pairs, found.spent.tokens), (6, 42));
        // "1 {b} x" is cut to 5 characters, and is in four of the pairs. What it spells is text.
        assert_eq!(found.stages[0].notes, ["4 of 6 pairs of documents were not read to their ends"]);
        assert_eq!(
            *reads.1.lock().unwrap(),
            ["<1 {b}|3 é y>", "<1 {b}|2>", "<3 é y|1 {b}>", "<3 é y|2>", "<2|1 {b}>", "<2|3 é y>"]
        );
        orders.push(found.hits.iter().map(|hit| (hit.index, hit.value)).collect::<Vec<_>>());
    }
    assert_eq!(orders[0].iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 2, 0]);
    for ((_, a), (_, b)) in orders[0].iter().zip(&orders[1]) {
        assert!((a.unwrap() - b.unwrap()).abs() < 1e-6);
    }
    // What the model itself cuts is told too.
    let reads = Reads(ScoreScale::Logit, Mutex::default());
    let duo = Duo::new(DuoScorer::new(&reads).unwrap(), 2);
    let found = Cascade::new().stage(duo).run(&Request::new("q", &["1 long", "2"])).unwrap();
    assert_eq!(found.stages[0].notes.len(), 1);
    assert_eq!(reads.1.lock().unwrap()[0], "Passage A: 1 long\n\nPassage B: 2");
    let ordinal = Reads(ScoreScale::Ordinal, Mutex::default());
    assert!(matches!(DuoScorer::new(&ordinal), Err(Error::WrongScale { .. })));
    for template in ["", "{a}", "{b} {a}", "{b}"] {
        assert!(DuoScorer::new(&reads).unwrap().template(template).is_err(), "{template}");
    }
}

#[test]
fn a_meter_knows_what_is_left() {
    let meter = Meter::start(Budget::new().tokens(100).usd(1.0));
    meter.spend(Spent { calls: 1, pairs: 2, tokens: 60, usd: 0.25 });
    assert_eq!((meter.tokens_left(), meter.usd_left(), meter.time_left()), (Some(40), Some(0.75), None));
    assert_eq!(meter.stop(), None);
    meter.spend(Spent { calls: 1, pairs: 2, tokens: 40, usd: 0.25 });
    assert_eq!(meter.stop(), Some(Stop::Tokens));
    assert!(!Meter::start(Budget::new()).is_limited());
}
