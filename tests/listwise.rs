//! The listwise stage: what it asks, and what it makes of every answer.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Mutex;
use std::time::{Duration, Instant};

use jointly::rank::listwise::{
    AnswerKind, Ended, Failure, Identifiers, ListJudge, ListRanking, Listwise, ListwiseOptions, Method,
    Price, Prompt, Reply, Usage, Wanted, parse, repair,
};
use jointly::rank::{Budget, Cancel, Cascade, Meter, Request, Stop};
use proptest::prelude::*;

const METHODS: [Method; 8] = [
    Method::SlidingWindow { window: 20, stride: 10, passes: 1 },
    Method::SlidingWindow { window: 4, stride: 2, passes: 3 },
    Method::Tournament { group: 20, tournaments: 1 },
    Method::Tournament { group: 4, tournaments: 3 },
    Method::SetwiseHeap { children: 3, top: 10 },
    Method::SetwiseBubble { children: 3, top: 10 },
    Method::PairwiseAll,
    Method::PairwiseBubble { top: 5 },
];

/// A judge that a function plays, who gets the prompt and the number of the call.
struct Judge<F> {
    answer: F,
    concurrency: usize,
    price: Price,
    seen: Mutex<Vec<Prompt>>,
}

impl<F: Fn(&Prompt, usize) -> Result<String, Failure> + Sync> Judge<F> {
    fn new(answer: F) -> Self {
        Self { answer, concurrency: 1, price: Price::default(), seen: Mutex::default() }
    }

    fn calls(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

impl<F: Fn(&Prompt, usize) -> Result<String, Failure> + Sync> ListJudge for Judge<F> {
    fn name(&self) -> &str {
        "played"
    }

    fn complete(&self, prompt: &Prompt, _: Option<Duration>) -> Reply {
        let number = {
            let mut seen = self.seen.lock().unwrap();
            seen.push(prompt.clone());
            seen.len() - 1
        };
        // Four bytes a token, and a millionth for each.
        let usage = Usage {
            prompt_tokens: prompt.bytes() as u64 / 4,
            completion_tokens: 10,
            cost: prompt.bytes() as f64 / 4e6,
        };
        Reply { usage, outcome: (self.answer)(prompt, number) }
    }

    fn concurrency(&self) -> usize {
        self.concurrency
    }

    fn price(&self) -> Price {
        self.price
    }
}

/// What each document of a prompt is worth, in the order of the prompt.
fn worths(prompt: &Prompt) -> Vec<usize> {
    let worth = |part: &str| part.split(['\n', ' ']).next().unwrap().parse().unwrap();
    prompt.user.split("worth ").skip(1).map(worth).collect()
}

/// Who knows what each document is worth: the answer for each kind of question.
fn honest(prompt: &Prompt) -> String {
    let worths = worths(prompt);
    let mut order: Vec<usize> = (0..worths.len()).collect();
    order.sort_by_key(|place| std::cmp::Reverse(worths[*place]));
    let number = match &prompt.user {
        user if user.contains("Put all") => order.len(),
        user if user.contains("Choose the ") => {
            let (_, rest) = user.rsplit_once("Choose the ").unwrap();
            rest.split(' ').next().unwrap().parse().unwrap()
        }
        _ => 1,
    };
    let is_letters = prompt.user.starts_with("[A]");
    let id = |place: &usize| match is_letters {
        true => format!("[{}]", char::from(b'A' + *place as u8)),
        false => format!("[{}]", place + 1),
    };
    order[..number].iter().map(id).collect::<Vec<_>>().join(" > ")
}

/// So many documents, the worth of each once.
fn documents(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("worth {}", i * 7 % count)).collect()
}

fn sorted(documents: &[String]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..documents.len()).collect();
    let worth = |i: usize| documents[i]["worth ".len()..].parse::<usize>().unwrap();
    order.sort_by_key(|&i| std::cmp::Reverse(worth(i)));
    order
}

fn is_permutation(order: &[usize], count: usize) -> bool {
    let mut sorted = order.to_vec();
    sorted.sort_unstable();
    sorted == (0..count).collect::<Vec<_>>()
}

#[test]
fn an_honest_judge_gets_the_best_to_the_top_for_the_calls_that_were_said() {
    for count in [0, 1, 2, 3, 5, 19, 20, 23, 50, 100] {
        let documents = documents(count);
        for method in METHODS {
            for identifiers in [Identifiers::Numbers, Identifiers::Letters] {
                let options = ListwiseOptions::new().method(method).identifiers(identifiers);
                let load = options.load(count);
                let stage = Listwise::new(Judge::new(|p: &Prompt, _| Ok(honest(p))), options).unwrap();
                let ListRanking { order, report, .. } = stage.order("which", &documents);
                let what = format!("{method:?} of {count}");
                assert!(is_permutation(&order, count), "{what}: {order:?}");
                assert_eq!(report.answers.ok, stage.judge().calls(), "{what}: {:?}", report.reasons);
                let read: usize = report.calls.iter().map(|call| call.documents).sum();
                match method {
                    Method::SlidingWindow { .. } | Method::Tournament { .. } | Method::PairwiseAll => {
                        assert_eq!((load.calls, load.documents), (report.calls.len(), read), "{what}");
                    }
                    _ => assert!(report.calls.len() <= load.calls && read <= load.documents, "{what}"),
                }
                let places = match method {
                    Method::SlidingWindow { stride, passes, .. } => stride * passes,
                    Method::SetwiseHeap { top, .. }
                    | Method::SetwiseBubble { top, .. }
                    | Method::PairwiseBubble { top } => top,
                    Method::Tournament { .. } => 1,
                    _ => count,
                };
                let places = places.min(count);
                assert_eq!(order[..places], sorted(&documents)[..places], "{what}: {order:?}");
            }
        }
    }
    // As published: 9 calls that read each document 1.8 times; and 13, to which ours adds the final of the last two.
    let load = |method| ListwiseOptions::new().method(method).load(100);
    assert_eq!((load(METHODS[0]).calls, load(METHODS[0]).documents), (9, 180));
    assert_eq!(load(METHODS[2]).calls, 14);
    assert_eq!(load(Method::PairwiseAll).calls, 9900);
    // The others of the table in docs/listwise.md.
    assert_eq!(load(Method::SetwiseHeap { children: 3, top: 10 }).calls, 172);
    assert_eq!(load(Method::SetwiseBubble { children: 3, top: 10 }).calls, 318);
    assert_eq!(load(Method::PairwiseBubble { top: 10 }).calls, 1890);
}

#[test]
fn every_kind_of_answer_is_counted_and_every_one_gives_a_permutation() {
    let answers: [(&str, AnswerKind); 8] = [
        ("[2] > [1] > [4] > [3] > [5]", AnswerKind::Ok),
        ("Sure! [2] > [1] > [4] > [3] > [5]", AnswerKind::WrongFormat),
        ("[6] > [1] > [4] > [3] > [5]", AnswerKind::WrongFormat),
        ("[2] > [2] > [4] > [3] > [5] > [1]", AnswerKind::Repetition),
        ("[2] > [1]", AnswerKind::Missing),
        ("I am sorry, I cannot rank documents.", AnswerKind::WrongFormat),
        ("<think>hm [1] > [2]", AnswerKind::WrongFormat),
        ("\u{0}\u{202e}]]>[[", AnswerKind::WrongFormat),
    ];
    let documents = documents(5);
    for (answer, kind) in answers {
        let stage =
            Listwise::new(Judge::new(|_: &Prompt, _| Ok(answer.into())), ListwiseOptions::new()).unwrap();
        let ListRanking { order, report, .. } = stage.order("which", &documents);
        assert!(is_permutation(&order, 5), "{answer}");
        assert_eq!(report.calls[0].kind, kind, "{answer}");
        assert_eq!((report.answers.all(), report.reasons.len()), (1, usize::from(kind != AnswerKind::Ok)));
        assert!(report.usage.tokens() > 0 && report.calls[0].usage == report.usage);
        assert!(report.notes()[0].starts_with("1 calls: "), "{:?}", report.notes());
    }
}

#[test]
fn without_answers_the_incoming_order_stays_and_says_so() {
    let documents = documents(30);
    let identity: Vec<usize> = (0..30).collect();
    let failures = [
        (Failure::Unanswered { reason: "timeout".into() }, Ended::Complete, "no answer at all"),
        (Failure::Refused { reason: "no key".into() }, Ended::Refused("no key".into()), "refused: no key"),
        (Failure::BudgetSpent, Ended::JudgeBudget, "budget"),
        (Failure::Interrupted, Ended::Stopped(Stop::Cancelled), "cancelled"),
    ];
    for (failure, ended, says) in failures {
        for method in METHODS {
            let options = ListwiseOptions::new().method(method);
            let stage = Listwise::new(Judge::new(|_: &Prompt, _| Err(failure.clone())), options).unwrap();
            let ranked = stage.order("which", &documents);
            assert_eq!(ranked.order, identity, "{method:?} {failure:?}");
            assert_eq!(ranked.report.ended, ended);
            assert_eq!(ranked.report.answers.unanswered, stage.judge().calls());
            assert!(
                ranked.report.notes().iter().any(|note| note.contains(says)),
                "{:?}",
                ranked.report.notes()
            );
            if ended != Ended::Complete {
                assert_eq!(
                    stage.judge().calls(),
                    1,
                    "{method:?}: nothing is asked of one who answers nobody"
                );
                assert_eq!(ranked.read, ranked.report.calls[0].documents, "{method:?}");
            }
        }
    }
}

#[test]
fn a_failure_in_the_middle_keeps_what_was_reached() {
    let documents = documents(40);
    let judge = Judge::new(|prompt: &Prompt, number| match number {
        0 => Ok(honest(prompt)),
        _ => Err(Failure::Refused { reason: "gone".into() }),
    });
    let stage = Listwise::new(judge, ListwiseOptions::new()).unwrap();
    let ranked = stage.order("which", &documents);
    assert_eq!(ranked.order[..20], (0..20).collect::<Vec<_>>());
    let worth = |i: &usize| documents[*i]["worth ".len()..].parse::<usize>().unwrap();
    assert!(ranked.order[20..].is_sorted_by_key(|i| std::cmp::Reverse(worth(i))));
}

#[test]
fn a_budget_is_kept_and_the_order_reached_is_the_answer() {
    let documents: Vec<String> =
        documents(40).iter().map(|d| format!("{d} {}", "text ".repeat(100))).collect();
    let stage = Listwise::new(Judge::new(|p: &Prompt, _| Ok(honest(p))), ListwiseOptions::new()).unwrap();
    let texts: Vec<&str> = documents.iter().map(String::as_str).collect();
    let order = |budget: Budget| stage.order_within("which", &texts, &Meter::start(budget));
    let all = order(Budget::new()).report;
    assert_eq!((all.calls.len(), &all.ended), (3, &Ended::Complete));
    // The first call is judged by half its bytes, twice its tokens; later ones by what it took.
    let one = all.calls[0].usage.tokens();
    for (tokens, calls) in [(one, 0), (2 * one + 200, 1), (3 * one / 2 + 300, 0), (4 * one, 3)] {
        let ListRanking { order, report, .. } = order(Budget::new().tokens(tokens));
        assert!(is_permutation(&order, 40));
        assert_eq!(report.calls.len(), calls, "{tokens} of {one}");
        assert!(report.usage.tokens() <= tokens);
        let ended = if calls == 3 { Ended::Complete } else { Ended::Stopped(Stop::Tokens) };
        assert_eq!(report.ended, ended);
    }
    let usd = all.usage.cost / 2.0;
    let paid = order(Budget::new().usd(usd)).report;
    assert_eq!((paid.calls.len(), paid.ended), (1, Ended::Stopped(Stop::Money)));
    assert!(paid.usage.cost <= usd);
    assert_eq!(order(Budget::new().time(Duration::ZERO)).report.ended, Ended::Stopped(Stop::Deadline));
    let cancel = Cancel::new();
    cancel.cancel();
    assert_eq!(order(Budget::new().cancel(cancel)).report.ended, Ended::Stopped(Stop::Cancelled));
}

#[test]
fn money_holds_for_the_first_calls_too() {
    let documents = documents(60);
    let texts: Vec<&str> = documents.iter().map(String::as_str).collect();
    let run = |price: Price, usd: f64| {
        let mut judge = Judge::new(|p: &Prompt, _| Ok(honest(p)));
        (judge.concurrency, judge.price) = (8, price);
        let options = ListwiseOptions::new().method(Method::Tournament { group: 5, tournaments: 2 });
        let stage = Listwise::new(judge, options).unwrap();
        let report = stage.order_within("which", &texts, &Meter::start(Budget::new().usd(usd))).report;
        (report.calls.len(), report.usage.cost, report.ended)
    };
    let known = Price { input: 1.0, output: 1.0 };
    let money = Ended::Stopped(Stop::Money);
    assert_eq!(run(known, 1e-9), (0, 0.0, money.clone()));
    // Enough for some, but not for all of the first eight.
    let one = run(known, 1.0).1 / run(known, 1.0).0 as f64;
    let (calls, cost, ended) = run(known, 7.0 * one);
    assert!((1..8).contains(&calls) && cost <= 7.0 * one, "{calls} {cost} of {one}");
    assert_eq!(ended, money);
    // Of a judge that names no price, one call tells it, and not eight.
    let (calls, cost, ended) = run(Price::default(), 1e-9);
    assert!(calls == 1 && cost > 1e-9, "{calls} {cost}");
    assert_eq!(ended, money);
    assert_eq!(run(Price::default(), 1.0).0, run(known, 1.0).0);
}

#[test]
fn a_deadline_that_cuts_the_last_call_is_reported() {
    let documents = documents(10);
    let texts: Vec<&str> = documents.iter().map(String::as_str).collect();
    let deadline = Instant::now() + Duration::from_millis(200);
    // One window, whose answer does not come in time.
    let judge = Judge::new(move |_: &Prompt, _| {
        while Instant::now() < deadline {
            std::thread::yield_now();
        }
        Err(Failure::Unanswered { reason: "timeout".into() })
    });
    let cascade = Cascade::new().stage(Listwise::new(judge, ListwiseOptions::new()).unwrap());
    let run = |budget| cascade.run(&Request::new("which", &texts).budget(budget)).unwrap();
    let found = run(Budget::new().deadline(deadline));
    assert_eq!((found.stop, found.stages[0].stop), (Some(Stop::Deadline), Some(Stop::Deadline)));
    assert!(found.is_partial() && found.stages[0].notes.iter().any(|note| note.contains("deadline")));
    assert_eq!(found.stages[0].spent.calls, 1);
    // The same without a deadline, or with a budget that cuts nothing: all was asked.
    assert_eq!(run(Budget::new()).stop, None);
    assert_eq!(run(Budget::new().usd(1.0)).stop, None);
}

#[test]
fn shuffles_undo_a_bias_for_the_first_position() {
    // Whatever it is, the first is best, the last is worst.
    let biased = |prompt: &Prompt, _| {
        let ids: Vec<String> = (1..=prompt.documents).map(|id| format!("[{id}]")).collect();
        Ok(ids.join(" > "))
    };
    let documents = documents(10);
    let options = |shuffles| ListwiseOptions::new().shuffles(shuffles);
    let once = Listwise::new(Judge::new(biased), options(1)).unwrap().order("which", &documents);
    assert_eq!((once.order, once.report.agreement), ((0..10).collect::<Vec<_>>(), None));
    let often = Listwise::new(Judge::new(biased), options(9)).unwrap().order("which", &documents);
    // Such answers agree as little as chance, and that is shown.
    assert!(often.report.agreement.unwrap().abs() < 0.3, "{:?}", often.report.agreement);
    let honest = Listwise::new(Judge::new(|p: &Prompt, _| Ok(honest(p))), options(5)).unwrap();
    let ranked = honest.order("which", &documents);
    assert_eq!((ranked.order, ranked.report.agreement), (sorted(&documents), Some(1.0)));
    assert_eq!(ranked.report.calls.len(), 5);
    // In pairs, both orders cancel out.
    let first = |_: &Prompt, _| Ok("[1]".to_string());
    let pairs = Listwise::new(Judge::new(first), ListwiseOptions::new().method(Method::PairwiseAll)).unwrap();
    let ranked = pairs.order("which", &documents);
    assert_eq!((ranked.order, ranked.report.agreement), ((0..10).collect::<Vec<_>>(), Some(-1.0)));
}

#[test]
fn many_at_once_give_what_one_after_the_other_gives() {
    let documents = documents(60);
    for method in METHODS {
        let order = |concurrency| {
            let mut judge = Judge::new(|p: &Prompt, _| Ok(honest(p)));
            judge.concurrency = concurrency;
            let options = ListwiseOptions::new().method(method).shuffles(2).seed(3);
            Listwise::new(judge, options).unwrap().order("which", &documents).order
        };
        assert_eq!(order(1), order(7), "{method:?}");
    }
}

#[test]
fn it_is_a_stage_of_a_cascade() {
    let documents = documents(30);
    let options = ListwiseOptions::new().depth(20);
    let cascade =
        Cascade::new().stage(Listwise::new(Judge::new(|p: &Prompt, _| Ok(honest(p))), options).unwrap());
    let outcome = cascade.rerank("which", &documents).unwrap();
    let order: Vec<usize> = outcome.hits.iter().map(|placed| placed.index).collect();
    assert!(is_permutation(&order, 30));
    assert_eq!(order[20..], (20..30).collect::<Vec<_>>());
    let report = &outcome.stages[0];
    assert_eq!((report.name.as_str(), report.read, report.spent.calls), ("listwise played", 20, 1));
    assert!(report.spent.tokens > 0 && report.notes[0].contains("1 ok"), "{report:?}");
}

#[test]
fn options_that_cannot_be_used_are_refused() {
    let judge = || Judge::new(|_: &Prompt, _| Ok(String::new()));
    for method in [
        Method::SlidingWindow { window: 1, stride: 1, passes: 1 },
        Method::SlidingWindow { window: 20, stride: 20, passes: 1 },
        Method::SlidingWindow { window: 20, stride: 0, passes: 1 },
        Method::SlidingWindow { window: 2000, stride: 10, passes: 1 },
        Method::Tournament { group: 1, tournaments: 1 },
        Method::SetwiseHeap { children: 0, top: 1 },
        Method::SetwiseBubble { children: 1, top: 0 },
        Method::PairwiseBubble { top: 0 },
    ] {
        assert!(Listwise::new(judge(), ListwiseOptions::new().method(method)).is_err(), "{method:?}");
    }
    for options in [
        ListwiseOptions::new().shuffles(0),
        ListwiseOptions::new().max_chars(0),
        ListwiseOptions::new().depth(0),
        ListwiseOptions::new().answer_tokens(0),
        ListwiseOptions::new().identifiers(Identifiers::Letters).method(Method::SlidingWindow {
            window: 27,
            stride: 10,
            passes: 1,
        }),
    ] {
        assert!(Listwise::new(judge(), options.clone()).is_err(), "{options:?}");
    }
}

/// Texts that look like answers more often than chance would have it.
fn answers() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => (0_usize..30).prop_map(|id| format!("[{id}]")),
        1 => (0_usize..30).prop_map(|id| id.to_string()),
        1 => "[A-Z]".prop_map(|id| format!("[{id}]")),
        4 => Just(" > ".to_string()),
        1 => Just("\n1. ".to_string()),
        1 => Just("</think>".to_string()),
        1 => Just("<think>".to_string()),
        1 => any::<String>(),
        1 => "\\PC{0,8}",
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_answer_gives_a_permutation(
        answers in prop::collection::vec(answers(), 1..8),
        count in 0_usize..45,
        method in prop::sample::select(METHODS.to_vec()),
        shuffles in 1_usize..4,
        letters in any::<bool>(),
    ) {
        let documents = documents(count);
        let identifiers = if letters { Identifiers::Letters } else { Identifiers::Numbers };
        let options = ListwiseOptions::new().method(method).shuffles(shuffles).identifiers(identifiers);
        let judge = Judge::new(|_: &Prompt, number: usize| match &answers[number % answers.len()] {
            answer if answer.len() % 7 == 6 => Err(Failure::Unanswered { reason: answer.clone() }),
            answer => Ok(answer.clone()),
        });
        let ranked = Listwise::new(judge, options).unwrap().order("which", &documents);
        prop_assert!(is_permutation(&ranked.order, count), "{:?}", ranked.order);
        prop_assert_eq!(ranked.report.answers.all(), ranked.report.calls.len());
    }

    #[test]
    fn what_is_named_is_there_and_named_once(answer in answers(), count in 0_usize..45, number in 0_usize..20) {
        for identifiers in [Identifiers::Numbers, Identifiers::Letters] {
            for wanted in [Wanted::Order, Wanted::Select(number), Wanted::Best] {
                let parsed = parse(&answer, count, wanted, identifiers);
                prop_assert!(parsed.named.len() <= wanted.expected(count));
                prop_assert!(is_permutation(&repair(&parsed.named, count), count));
                prop_assert_eq!(&repair(&parsed.named, count)[..parsed.named.len()], &parsed.named[..]);
                if parsed.kind == AnswerKind::Ok {
                    prop_assert_eq!(parsed.named.len(), wanted.expected(count));
                }
            }
        }
    }

    #[test]
    fn an_answer_as_it_was_asked_for_is_taken_as_it_is(seed in any::<u64>(), count in 1_usize..60) {
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by_key(|i| (*i as u64 + 1).wrapping_mul(seed | 1));
        let text = order.iter().map(|i| format!("[{}]", i + 1)).collect::<Vec<_>>().join(" > ");
        let parsed = parse(&text, count, Wanted::Order, Identifiers::Numbers);
        prop_assert_eq!((parsed.named, parsed.kind), (order, AnswerKind::Ok));
    }
}
