//! Answers of language models to lists. Whatever they say, each method gives a permutation, and counts what was wrong.
#![no_main]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jointly::rank::listwise::{
    AnswerKind, Failure, Identifiers, ListJudge, Listwise, ListwiseOptions, Method, Prompt, Reply, Usage, Wanted, parse,
    repair,
};
use libfuzzer_sys::fuzz_target;

/// Says one of the texts after the other; nothing for an empty one.
struct Said<'a> {
    texts: Vec<&'a str>,
    next: AtomicUsize,
}

impl ListJudge for Said<'_> {
    fn name(&self) -> &str {
        "said"
    }

    fn complete(&self, prompt: &Prompt, _: Option<Duration>) -> Reply {
        let text = self.texts[self.next.fetch_add(1, Ordering::Relaxed) % self.texts.len()];
        let usage = Usage { prompt_tokens: prompt.bytes() as u64 / 4, completion_tokens: 9, cost: 0.0 };
        let outcome = match text {
            "" => Err(Failure::Unanswered { reason: text.into() }),
            "!" => Err(Failure::Refused { reason: text.into() }),
            text => Ok(text.into()),
        };
        Reply { usage, outcome }
    }
}

const METHODS: [Method; 6] = [
    Method::SlidingWindow { window: 5, stride: 2, passes: 2 },
    Method::Tournament { group: 4, tournaments: 2 },
    Method::SetwiseHeap { children: 3, top: 4 },
    Method::SetwiseBubble { children: 2, top: 4 },
    Method::PairwiseAll,
    Method::PairwiseBubble { top: 3 },
];

fuzz_target!(|data: &[u8]| {
    let [first, second, text @ ..] = data else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let count = usize::from(first & 15);
    let identifiers = if first & 16 == 0 { Identifiers::Numbers } else { Identifiers::Letters };
    for wanted in [Wanted::Order, Wanted::Select(usize::from(second >> 4)), Wanted::Best] {
        let parsed = parse(text, count, wanted, identifiers);
        let expected = wanted.expected(count);
        assert!(parsed.named.len() <= expected);
        assert!(parsed.kind != AnswerKind::Unanswered);
        assert!(parsed.kind != AnswerKind::Ok || parsed.named.len() == expected);
        let order = repair(&parsed.named, count);
        assert!(order.starts_with(&parsed.named), "each is there, and once");
        assert!(is_permutation(&order, count));
    }
    // Documents are made of the same bytes: they must not reach out of their tags.
    let documents: Vec<String> = (0..count).map(|place| text.chars().skip(place).take(40).collect()).collect();
    let judge = Said { texts: text.split('\u{1e}').collect(), next: AtomicUsize::new(0) };
    let options = ListwiseOptions::new()
        .method(METHODS[usize::from(second & 15) % METHODS.len()])
        .identifiers(identifiers)
        .shuffles(1 + usize::from(first >> 5) % 3)
        .seed(u64::from(*second));
    let ranked = Listwise::new(judge, options).expect("these can be used").order(text, &documents);
    assert!(is_permutation(&ranked.order, count), "{:?}", ranked.order);
    assert_eq!(ranked.report.answers.all(), ranked.report.calls.len());
    assert!(ranked.report.agreement.is_none_or(|tau| (-1.0..=1.0).contains(&tau)));
});

fn is_permutation(order: &[usize], count: usize) -> bool {
    let mut sorted = order.to_vec();
    sorted.sort_unstable();
    sorted == (0..count).collect::<Vec<_>>()
}
