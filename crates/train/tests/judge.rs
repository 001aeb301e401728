//! Judges behind an endpoint that this file writes the answers of, and judges that are models of `testdata/`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/endpoint.rs"]
mod endpoint;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use endpoint::{Endpoint, Reply, Seen};
use jointly::{BiEncoder, CrossEncoder, LoadOptions};
use jointly_train::judge::{
    ApiKey, Ask, Ballot, Budget, ChatJudge, ChatOptions, Ending, Error, Halt, Item, Journal, Judge, Ledger,
    LocalJudge, Pair, Price, Progress, Question, RunOptions, Scorer, Side, VoteLine, run,
};
use serde_json::json;

/// Documents that say how good they are, in pairs of neighbours.
struct Case {
    ids: Vec<Pair>,
    documents: Vec<String>,
}

impl Case {
    fn new(pairs: usize) -> Self {
        let id = |i: usize| format!("d{i}");
        let pair = |i| Pair { query: "q".into(), a: id(i), query_b: None, b: id(i + 1) };
        Self {
            ids: (0..pairs).map(pair).collect(),
            documents: (0..=pairs).map(|i| format!("worth {}", i * 7 % 11)).collect(),
        }
    }

    fn items(&self) -> Vec<Item<'_>> {
        let side = |i: usize| Side { query: "what", document: &self.documents[i] };
        self.ids.iter().enumerate().map(|(i, ids)| Item { ids, a: side(i), b: side(i + 1) }).collect()
    }

    fn expected(&self, pair: usize) -> f64 {
        let worth = |i: usize| (i * 7 % 11) as f64;
        let difference = worth(pair + 1) - worth(pair);
        if difference > 0.0 {
            1.0
        } else if difference < 0.0 {
            0.0
        } else {
            0.5
        }
    }
}

/// Who tells truly which document is worth more.
fn honest(seen: &Seen) -> Reply {
    let worth = |name| seen.text(name).strip_prefix("worth ").unwrap().parse::<f64>().unwrap();
    let difference: f64 = worth("document-B") - worth("document-A");
    Reply::says(&json!({"score": difference.clamp(-1.0, 1.0)}).to_string())
}

fn options(endpoint: &Endpoint) -> ChatOptions {
    let mut options = ChatOptions::new(&endpoint.url, "m");
    options.client.backoff = Duration::from_millis(1);
    options.client.timeout = Duration::from_secs(10);
    options
}

fn judge(endpoint: &Endpoint) -> ChatJudge {
    ChatJudge::new(options(endpoint)).unwrap()
}

fn vote(
    judge: &dyn Judge,
    case: &Case,
    path: &Path,
    options: RunOptions,
) -> (Result<Ending, Error>, Progress, Vec<VoteLine>) {
    let (stop, mut last) = (AtomicBool::new(false), Progress::default());
    let mut journal = Journal::open(path, false).unwrap();
    let mut observe = |progress: &Progress| last = *progress;
    let ending = run(&[judge], &case.items(), &mut journal, &options, (&stop, &mut observe));
    journal.sort(case.ids.iter(), &[judge.name()]).unwrap();
    (ending, last, lines(path))
}

fn lines(path: &Path) -> Vec<VoteLine> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// One question to a server that answers this.
fn ballot_of(reply: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> (Ballot, Endpoint) {
    let endpoint = Endpoint::start(reply);
    let mut options = options(&endpoint);
    options.client.attempts = 3;
    options.client.timeout = Duration::from_millis(500);
    let ballot = ask(&ChatJudge::new(options).unwrap()).unwrap();
    (ballot, endpoint)
}

fn ask(judge: &dyn Judge) -> Result<Ballot, Error> {
    let case = Case::new(1);
    let Item { ids, a, b } = case.items()[0];
    let stop = AtomicBool::new(false);
    let (ledger, halt) = (Ledger::new(Budget::default(), Default::default()), Halt::new(&stop));
    judge.ask(&[Question { ids, a, b, swapped: false }], &ledger, &halt).map(|mut ballots| ballots.remove(0))
}

#[test]
fn votes_are_for_b_of_the_pair_whatever_was_shown_first() {
    let folder = tempfile::tempdir().unwrap();
    let case = Case::new(40);
    let mut files = Vec::new();
    for concurrency in [1, 7] {
        let endpoint = Endpoint::start(|seen, _| honest(seen));
        let mut options = options(&endpoint);
        options.client.concurrency = concurrency;
        let path = folder.path().join(format!("votes{concurrency}"));
        let (ending, progress, lines) =
            vote(&ChatJudge::new(options).unwrap(), &case, &path, RunOptions::default());
        assert_eq!(ending.unwrap(), Ending::Complete);
        assert_eq!((progress.questions, progress.asked, progress.abstained), (40, 40, 0));
        assert_eq!(progress.usage.tokens(), 40 * 110);
        for (i, line) in lines.iter().enumerate() {
            assert_eq!((&line.pair, line.vote), (&case.ids[i], Some(case.expected(i))));
            // The order that was drawn is the order that was shown.
            let seen = endpoint.seen();
            let first = &case.documents[i + usize::from(line.swapped)];
            let second = &case.documents[i + usize::from(!line.swapped)];
            assert!(seen.iter().any(|s| s.text("document-A") == first && s.text("document-B") == second));
        }
        let swapped = lines.iter().filter(|line| line.swapped).count();
        assert!((8..=32).contains(&swapped), "{swapped} of 40");
        let seen = &endpoint.seen()[0];
        assert_eq!(seen.path, "/v1/chat/completions");
        assert_eq!(seen.body["response_format"]["type"], "json_schema");
        let schema = &seen.body["response_format"]["json_schema"]["schema"]["properties"]["score"];
        assert!(schema["enum"].as_array().unwrap().len() == 21 && schema["enum"][0] == -1, "{schema}");
        files.push(
            lines.into_iter().map(|line| VoteLine { settings: String::new(), ..line }).collect::<Vec<_>>(),
        );
    }
    assert_eq!(files[0], files[1], "the file depends on who was faster");
}

#[test]
fn what_is_no_answer_is_an_abstention() {
    for (text, reason) in [
        ("I prefer not to say", "no score"),
        ("", "empty"),
        ("{\"score\": 9}", "not between"),
        ("<think>hm", "did not come to an answer"),
        ("\u{0}\u{1b}[31m{{{", "no score"),
    ] {
        let (ballot, endpoint) = ballot_of(move |_, _| Reply::says(text));
        assert_eq!(ballot.vote, None, "{text}");
        let found = ballot.reason.unwrap();
        assert!(found.contains(reason) && !found.contains('\u{1b}'), "{found}");
        assert_eq!((ballot.unanswered, ballot.usage.tokens()), (false, 110));
        assert_eq!(endpoint.seen().len(), 1, "it was paid for, and would be the same again");
    }
    for (body, reason) in [
        ("no json".to_owned(), "not a chat completion"),
        ("{}".to_owned(), "without choices"),
        (
            json!({"choices": [{"message": {"content": null, "refusal": "I cannot"}}]}).to_string(),
            "refused: I cannot",
        ),
        (
            json!({"choices": [{"message": {"content": "{\"sc"}, "finish_reason": "length"}]}).to_string(),
            "cut at 64",
        ),
        ("x".repeat(5 << 20), "longer than 4 MiB"),
    ] {
        let (ballot, _) = ballot_of(move |_, _| Reply::new(200, body.clone()));
        assert_eq!(ballot.vote, None);
        let found = ballot.reason.unwrap();
        assert!(found.contains(reason), "{found}");
        assert!(ballot.usage.tokens() > 110, "without a report the most is counted that it can have been");
    }
}

#[test]
fn a_passing_failure_is_tried_again() {
    for status in [408, 429, 500, 502, 503, 529] {
        let (ballot, endpoint) =
            ballot_of(move |seen, n| if n < 2 { Reply::new(status, "{\"error\": 1}") } else { honest(seen) });
        assert_eq!((ballot.vote, endpoint.seen().len()), (Some(1.0), 3), "{status}");
        assert_eq!(ballot.usage.tokens(), 110);
    }
    // As some servers tell of one behind them.
    let busy = json!({"error": {"code": 503, "message": "busy"}}).to_string();
    let (ballot, endpoint) =
        ballot_of(move |seen, n| if n < 1 { Reply::new(200, busy.clone()) } else { honest(seen) });
    assert_eq!((ballot.vote, endpoint.seen().len()), (Some(1.0), 2));
    let (ballot, endpoint) = ballot_of(|_, _| Reply::new(500, "oh"));
    assert_eq!((ballot.vote, ballot.unanswered, endpoint.seen().len()), (None, true, 3));
    assert!(ballot.reason.unwrap().contains("status 500: oh (3 attempts)"));
    // An answer that breaks off was computed, and may be on the bill.
    let (ballot, _) = ballot_of(|seen, n| match n {
        0 => Reply { cut: Some(5), ..honest(seen) },
        _ => honest(seen),
    });
    assert!(ballot.vote == Some(1.0) && ballot.usage.tokens() > 1000, "{ballot:?}");
}

#[test]
fn the_server_says_how_long_to_wait() {
    for after in ["0.4".to_owned(), "date".to_owned()] {
        let is_date = after == "date";
        let (ballot, endpoint) = ballot_of(move |seen, n| {
            let mut reply = Reply::new(429, "slow down");
            let after =
                if is_date { http_date(SystemTime::now() + Duration::from_secs(2)) } else { after.clone() };
            reply.headers.push(("Retry-After", after));
            if n == 0 { reply } else { honest(seen) }
        });
        let seen = endpoint.seen();
        let waited = seen[1].at - seen[0].at;
        assert_eq!(ballot.vote, Some(1.0));
        let least = Duration::from_millis(if is_date { 900 } else { 400 });
        assert!(waited >= least && waited < Duration::from_secs(5), "{waited:?}");
    }
}

/// Of a day in the year 2026 or later, by counting days.
fn http_date(at: SystemTime) -> String {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let (mut days, mut year) = (seconds / 86_400, 1970);
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let names = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("Xxx, {:02} {} {year} {hour:02}:{minute:02}:{second:02} GMT", days + 1, names[month])
}

#[test]
fn a_server_that_hangs_is_given_up_and_counted_at_its_dearest() {
    let started = Instant::now();
    let (ballot, endpoint) =
        ballot_of(|_, _| Reply { stall: Duration::from_secs(30), ..Reply::new(200, "") });
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!((ballot.vote, ballot.unanswered, endpoint.seen().len()), (None, true, 3));
    assert!(ballot.reason.unwrap().contains("no answer in 500ms"));
    assert!(ballot.usage.tokens() > 3000);
}

#[test]
fn nobody_at_home_is_an_abstention_that_costs_nothing() {
    let mut options = ChatOptions::new("http://127.0.0.1:1/v1", "m");
    (options.client.attempts, options.client.backoff) = (2, Duration::from_millis(1));
    let ballot = ask(&ChatJudge::new(options).unwrap()).unwrap();
    assert_eq!((ballot.vote, ballot.unanswered, ballot.usage.tokens()), (None, true, 0));
}

#[test]
fn what_refuses_every_question_stops_the_run() {
    let folder = tempfile::tempdir().unwrap();
    // A server that repeats the key; any variable will do for one.
    let path_key = ApiKey::from_env("CARGO_PKG_NAME").unwrap();
    let secret = env!("CARGO_PKG_NAME");
    for status in [401, 403, 404, 302] {
        let endpoint = Endpoint::start(move |seen, _| {
            Reply::new(status, json!({"error": {"message": seen.headers["authorization"]}}).to_string())
        });
        let mut options = options(&endpoint);
        options.client.key = Some(path_key.clone());
        let path = folder.path().join(status.to_string());
        let (ending, _, lines) =
            vote(&ChatJudge::new(options).unwrap(), &Case::new(100), &path, RunOptions::default());
        let error = ending.unwrap_err().to_string();
        assert!(
            error.contains(&format!("status {status}: Bearer ***")) && !error.contains(secret),
            "{error}"
        );
        assert!(lines.is_empty() && endpoint.seen().len() <= 8);
        assert_eq!(endpoint.seen()[0].headers["authorization"], format!("Bearer {secret}"));
    }
    let endpoint = Endpoint::start(|_, _| {
        let error = json!({"error": {"code": "insufficient_quota", "message": "pay"}});
        Reply::new(429, error.to_string())
    });
    assert!(matches!(ask(&judge(&endpoint)), Err(Error::Refused { .. })));
    // Twenty questions in a row without an answer.
    let endpoint = Endpoint::start(|_, _| Reply::new(400, "no such thing"));
    let path = folder.path().join("row");
    let (ending, _, lines) = vote(&judge(&endpoint), &Case::new(100), &path, RunOptions::default());
    assert!(ending.unwrap_err().to_string().contains("20 questions in a row"));
    assert!((19..40).contains(&endpoint.seen().len()), "{}", endpoint.seen().len());
    assert!(lines.iter().all(|line| line.vote.is_none() && line.unanswered));
    // The next run asks these again, wherever the model is served then.
    let endpoint = Endpoint::start(|seen, _| honest(seen));
    let (ending, progress, _) = vote(&judge(&endpoint), &Case::new(100), &path, RunOptions::default());
    assert_eq!((ending.unwrap(), progress.known, endpoint.seen().len()), (Ending::Complete, 0, 100));
    // Votes of another kind do not go into the same file.
    let mut options = options(&endpoint);
    options.hard = true;
    let ending = vote(&ChatJudge::new(options).unwrap(), &Case::new(100), &path, RunOptions::default()).0;
    assert!(ending.unwrap_err().to_string().contains("m voted with other settings"));
}

#[test]
fn what_the_server_does_not_know_is_left_out() {
    let (ballot, endpoint) = ballot_of(|seen, _| {
        let refuse = |field: &str| {
            Reply::new(400, json!({"error": {"message": format!("unsupported: {field}")}}).to_string())
        };
        if seen.body.get("max_tokens").is_some() {
            return refuse("use max_completion_tokens");
        }
        match ["temperature", "response_format"].into_iter().find(|field| seen.body.get(field).is_some()) {
            Some(field) => refuse(field),
            None => honest(seen),
        }
    });
    assert_eq!((ballot.vote, endpoint.seen().len()), (Some(1.0), 4));
    assert_eq!(endpoint.seen()[3].body["max_completion_tokens"], 64);
    // A server that complains for ever is not asked for ever.
    let (ballot, endpoint) =
        ballot_of(|_, _| Reply::new(400, "temperature response_format max_completion_tokens"));
    assert_eq!((ballot.vote, endpoint.seen().len()), (None, 4));
}

#[test]
fn the_budget_is_not_exceeded_and_a_larger_one_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let case = Case::new(60);
    let endpoint = Endpoint::start(|seen, _| honest(seen));
    let mut options = options(&endpoint);
    options.client.price = Price { input: 1.0, output: 10.0 };
    let judge = ChatJudge::new(options).unwrap();
    let path = folder.path().join("votes");
    let with = |max_tokens, max_cost| RunOptions {
        budget: Budget { max_tokens, max_cost },
        ..RunOptions::default()
    };
    let (ending, progress, lines) = vote(&judge, &case, &path, with(Some(5000), None));
    assert_eq!(ending.unwrap(), Ending::BudgetSpent);
    let spent = progress.usage.tokens();
    // A request of 110 tokens may have been one of some 2500, as far as anybody could tell.
    assert!((2000..=5000).contains(&spent) && spent == 110 * lines.len() as u64, "{spent}");
    // What the file has cost already counts.
    let (ending, progress, _) = vote(&judge, &case, &path, with(Some(5000), None));
    assert_eq!((ending.unwrap(), progress.asked), (Ending::BudgetSpent, 0));
    let (ending, progress, _) = vote(&judge, &case, &path, with(None, Some(0.0080)));
    assert_eq!(ending.unwrap(), Ending::BudgetSpent);
    assert!(progress.usage.cost <= 0.0080 && progress.usage.cost > 0.004, "{:?}", progress.usage);
    let (ending, progress, lines) = vote(&judge, &case, &path, with(Some(20_000), Some(1.0)));
    assert_eq!((ending.unwrap(), lines.len()), (Ending::Complete, 60));
    assert_eq!(endpoint.seen().len(), 60, "nothing was paid for twice");
    assert!((progress.usage.cost - 60.0 * 200e-6).abs() < 1e-9);
}

#[test]
fn an_interrupted_run_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let case = Case::new(50);
    let endpoint = Endpoint::start(|seen, n| if n % 10 == 3 { Reply::says("?") } else { honest(seen) });
    let (judge, path) = (judge(&endpoint), folder.path().join("votes"));
    let stop = AtomicBool::new(false);
    let mut journal = Journal::open(&path, false).unwrap();
    let mut observe = |progress: &Progress| stop.store(progress.asked >= 20, Ordering::Relaxed);
    let ending = run(&[&judge], &case.items(), &mut journal, &RunOptions::default(), (&stop, &mut observe));
    assert_eq!(ending.unwrap(), Ending::Interrupted);
    drop(journal);
    let before = lines(&path).len();
    assert!((20..50).contains(&before), "{before}");
    assert_eq!(endpoint.seen().len(), before, "every answer that was paid for is in the file");
    // With another seed too: an answer in another order is an answer.
    let options = RunOptions { seed: 5, ..RunOptions::default() };
    let (ending, progress, lines) = vote(&judge, &case, &path, options);
    assert_eq!((ending.unwrap(), progress.known), (Ending::Complete, before as u64));
    assert_eq!((lines.len(), endpoint.seen().len()), (50, 50));
    assert_eq!(lines.iter().filter(|line| line.vote.is_none()).count(), 5, "garbage is not bought again");
}

#[test]
fn position_bias_shows_in_both_orders() {
    let folder = tempfile::tempdir().unwrap();
    let (case, path) = (Case::new(12), folder.path().join("votes"));
    let endpoint = Endpoint::start(|_, _| Reply::says("-1"));
    let judge = judge(&endpoint);
    let options = RunOptions { both_orders: true, ..RunOptions::default() };
    let (_, progress, lines) = vote(&judge, &case, &path, options);
    assert_eq!((progress.questions, lines.len()), (24, 24));
    let mean = lines.iter().filter_map(|line| line.vote).sum::<f64>() / 24.0;
    assert_eq!(mean, 0.5, "both orders together are no vote for a side");
    let tally = Journal::open(&path, false).unwrap().tally("m", case.ids.iter(), true);
    assert_eq!((tally.first_share, tally.both_orders, tally.agreeing), (Some(1.0), 12, 0));
}

#[test]
fn letters_with_probabilities_are_soft_votes_and_hard_ones_are_not() {
    let logprobs = json!({"content": [{"token": "B", "logprob": -0.3, "top_logprobs":
        [{"token": "B", "logprob": 0.6_f64.ln()}, {"token": "A", "logprob": 0.2_f64.ln()}]}]});
    let body = json!({"choices": [{"message": {"content": "B"}, "logprobs": logprobs}]}).to_string();
    let endpoint = Endpoint::start(move |_, _| Reply::new(200, body.clone()));
    let mut options = options(&endpoint);
    options.ask = Ask::Letter;
    let soft = ask(&ChatJudge::new(options.clone()).unwrap()).unwrap().vote.unwrap();
    assert!((soft - 0.75).abs() < 1e-9, "{soft}");
    options.hard = true;
    assert_eq!(ask(&ChatJudge::new(options).unwrap()).unwrap().vote, Some(1.0));
    assert_eq!(endpoint.seen()[0].body["logprobs"], true);
}

#[test]
fn local_models_vote_by_the_difference_of_their_scores() {
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata");
    let load = || CrossEncoder::load(testdata.join("tiny-bert"), LoadOptions::new().threads(1)).unwrap();
    let (query, other) = ("how old is the bridge", "what is a jaguar");
    let texts = ["The bridge was built in 1897.", "A jaguar is a cat.", "No vaccine was given."];
    let score = |query, document| {
        f64::from(load().score_pairs(&[jointly::Pair { query, document }]).unwrap()[0].logit)
    };
    let ids = |query_b: Option<&str>, a: usize, b: usize| Pair {
        query: "1".into(),
        a: a.to_string(),
        query_b: query_b.map(Into::into),
        b: b.to_string(),
    };
    let all = [ids(None, 0, 1), ids(None, 1, 0), ids(Some("2"), 0, 1), ids(None, 2, 1)];
    let items: Vec<Item<'_>> = all
        .iter()
        .map(|ids| {
            let text = |id: &str| texts[id.parse::<usize>().unwrap()];
            let query_b = if ids.query_b.is_some() { other } else { query };
            Item {
                ids,
                a: Side { query, document: text(&ids.a) },
                b: Side { query: query_b, document: text(&ids.b) },
            }
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let votes = |judge: &dyn Judge| -> Vec<f64> {
        let stop = AtomicBool::new(false);
        let path = folder.path().join(judge.settings());
        let mut journal = Journal::open(&path, false).unwrap();
        let both = RunOptions { both_orders: true, ..RunOptions::default() };
        run(&[judge], &items, &mut journal, &both, (&stop, &mut |_| ())).unwrap();
        lines(&path).into_iter().map(|line| line.vote.unwrap()).collect()
    };
    let cross = LocalJudge::new("cross", Scorer::Cross(Box::new(load())), false).unwrap().scale(3.0);
    let found = votes(&cross);
    assert_eq!(found.len(), 4, "order is nothing to a model that reads documents one by one");
    for (item, vote) in items.iter().zip(&found) {
        let difference = score(item.b.query, item.b.document) - score(item.a.query, item.a.document);
        assert!((1.0 / (1.0 + (-3.0 * difference).exp()) - vote).abs() < 1e-6, "{difference} {vote}");
    }
    assert!((found[0] + found[1] - 1.0).abs() < 1e-7);
    let hard = votes(&LocalJudge::new("hard", Scorer::Cross(Box::new(load())), true).unwrap());
    assert_eq!(hard, found.iter().map(|vote| f64::from(u8::from(*vote > 0.5))).collect::<Vec<_>>());
    // The typical difference of two documents of a query becomes 2.
    let fitted =
        LocalJudge::new("fit", Scorer::Cross(Box::new(load())), false).unwrap().fit_scale(&items).unwrap();
    let own = [(0, 1), (1, 0), (2, 1)]
        .map(|(a, b): (usize, usize)| (score(query, texts[b]) - score(query, texts[a])).powi(2));
    let typical = (own.iter().sum::<f64>() / 3.0).sqrt();
    let scale = fitted.scale_in_use().unwrap();
    assert!((scale * typical - 2.0).abs() < 1e-2, "{scale} {typical}");

    let bi = BiEncoder::load(testdata.join("embed-bert"), LoadOptions::new().threads(1)).unwrap();
    let bi = LocalJudge::new("bi", Scorer::Bi(Box::new(bi)), false).unwrap().fit_scale(&items).unwrap();
    let found = votes(&bi);
    assert!((found[0] + found[1] - 1.0).abs() < 1e-6 && found[0] != 0.5, "{found:?}");
}

#[test]
fn what_was_paid_in_vain_is_in_the_file_however_the_run_ends() {
    let folder = tempfile::tempdir().unwrap();
    let hangs = || Reply { stall: Duration::from_secs(30), ..Reply::new(200, "") };
    let judge = |endpoint: &Endpoint, attempts, concurrency| {
        let mut options = options(endpoint);
        options.client.timeout = Duration::from_millis(500);
        (options.client.attempts, options.client.concurrency) = (attempts, concurrency);
        ChatJudge::new(options).unwrap()
    };
    let endpoint = Endpoint::start(move |_, _| hangs());
    // Room for one attempt, and not for a second one.
    let most = ask(&judge(&endpoint, 1, 1)).unwrap().usage.tokens();
    let budget = Budget { max_tokens: Some(most * 3 / 2), max_cost: None };
    let within = RunOptions { budget, ..RunOptions::default() };
    let path = folder.path().join("budget");
    for asked in [1, 0] {
        let (ending, progress, lines) = vote(&judge(&endpoint, 3, 1), &Case::new(5), &path, within);
        assert_eq!((ending.unwrap(), progress.asked, lines.len()), (Ending::BudgetSpent, asked, 1));
        assert!(lines[0].unanswered && lines[0].reason.as_ref().unwrap().contains("the budget is spent"));
        let written = lines[0].prompt_tokens + lines[0].completion_tokens;
        assert!(written > most / 2 && progress.usage.tokens() == written, "{lines:?}");
    }
    assert_eq!(endpoint.seen().len(), 2);

    // Somebody asks for the end while a request hangs.
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let asked = std::sync::Arc::clone(&stop);
    let endpoint = Endpoint::start(move |_, _| {
        asked.store(true, Ordering::Relaxed);
        hangs()
    });
    let path = folder.path().join("interrupt");
    let case = Case::new(5);
    let mut journal = Journal::open(&path, false).unwrap();
    let judges: [&dyn Judge; 1] = [&judge(&endpoint, 3, 1)];
    let ending = run(&judges, &case.items(), &mut journal, &RunOptions::default(), (&stop, &mut |_| ()));
    assert_eq!(ending.unwrap(), Ending::Interrupted);
    assert!(journal.usage().tokens() > most / 2, "{:?}", journal.usage());
    drop(journal);
    assert_eq!((lines(&path).len(), endpoint.seen().len()), (1, 1));

    // Twenty in a row that were paid for end the run as twenty do that were not, and are in the file.
    let endpoint = Endpoint::start(move |_, _| hangs());
    let path = folder.path().join("row");
    let (ending, _, lines) = vote(&judge(&endpoint, 1, 8), &Case::new(100), &path, RunOptions::default());
    assert!(ending.unwrap_err().to_string().contains("20 questions in a row"));
    assert!((20..40).contains(&lines.len()), "{}", lines.len());
    assert!(lines.iter().all(|line| line.unanswered && line.prompt_tokens > 0));
}

/// A judge of this machine that takes its time and costs nothing.
struct Slow;

impl Judge for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }

    fn settings(&self) -> String {
        "slow".into()
    }

    fn reads_in_order(&self) -> bool {
        false
    }

    fn appetite(&self) -> (usize, usize) {
        (1, 1)
    }

    fn ask(&self, questions: &[Question<'_>], _: &Ledger, _: &Halt<'_>) -> Result<Vec<Ballot>, Error> {
        std::thread::sleep(Duration::from_millis(20));
        Ok(questions.iter().map(|_| Ballot { vote: Some(0.5), ..Ballot::default() }).collect())
    }
}

#[test]
fn a_judge_that_costs_nothing_goes_on_when_the_budget_is_spent() {
    let folder = tempfile::tempdir().unwrap();
    let case = Case::new(30);
    let endpoint = Endpoint::start(|seen, _| honest(seen));
    let paid = judge(&endpoint);
    let judges: [&dyn Judge; 2] = [&paid, &Slow];
    let options =
        RunOptions { budget: Budget { max_tokens: Some(1), max_cost: None }, ..RunOptions::default() };
    let path = folder.path().join("votes");
    let mut journal = Journal::open(&path, false).unwrap();
    let stop = AtomicBool::new(false);
    let ending = run(&judges, &case.items(), &mut journal, &options, (&stop, &mut |_| ())).unwrap();
    assert_eq!((ending, endpoint.seen().len()), (Ending::BudgetSpent, 0));
    let lines = lines(&path);
    assert!(lines.len() == 30 && lines.iter().all(|line| line.judge == "slow"), "{}", lines.len());
}
