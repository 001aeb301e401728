//! zELO from pairs to scores.

// The helpers of the tests are tests too.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::num::NonZeroUsize;

use jointly_train::zelo::fit::{Fit, FitOptions, Tournament};
use jointly_train::zelo::sample::{Sampler, cycles};
use jointly_train::zelo::simulate::{SimulatedJudge, World, ask, power};
use jointly_train::zelo::votes::{Pair, Vote};
use jointly_train::zelo::{Error, Link};
use proptest::prelude::*;

fn ids(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

/// One query, one judge.
fn tournament(documents: usize, votes: &[(usize, usize, f64)]) -> Tournament {
    let ids = ids(documents);
    let mut tournament = Tournament::new();
    tournament.add_query("q", ids.iter().map(String::as_str)).unwrap();
    for &(a, b, share) in votes {
        tournament.add(&vote("q", &ids[a], None, &ids[b], Some(share))).unwrap();
    }
    tournament
}

fn vote<'a>(query: &'a str, a: &'a str, query_b: Option<&str>, b: &'a str, share: Option<f64>) -> Vote<'a> {
    Vote {
        query: query.into(),
        a: a.into(),
        query_b: query_b.map(str::to_string),
        b: b.into(),
        judge: "j".into(),
        vote: share,
        swapped: false,
    }
}

/// One judge has no scale, and its bias is not wanted here.
fn plain() -> FitOptions {
    FitOptions::new().calibrate(false)
}

fn scores(fit: &Fit) -> Vec<f64> {
    fit.scores(0).unwrap().scores.to_vec()
}

fn fitted(documents: usize, votes: &[(usize, usize, f64)], options: FitOptions) -> Vec<f64> {
    scores(&tournament(documents, votes).fit(&options).unwrap())
}

#[track_caller]
fn near(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    let far = found.iter().zip(expected).any(|(found, expected)| (found - expected).abs() > tolerance);
    assert!(!far, "{found:?} is not {expected:?}");
}

const THIRD: f64 = 1.0 / 3.0;

#[test]
fn golden_vectors() {
    let pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)];
    let thirds = pairs.map(|(a, b)| (a, b, THIRD));
    let mut one_sure = thirds;
    one_sure[2].2 = 0.0;
    let bradley_terry = plain().prior(0.0).link(Link::BradleyTerry);
    near(&fitted(4, &one_sure, bradley_terry), &[0.989415, 0.187490, -0.187490, -0.989415], 1e-5);
    near(&fitted(4, &thirds, bradley_terry), &[0.530181, 0.173511, -0.173511, -0.530181], 1e-5);
    let thurstone = plain().prior(0.0);
    near(&fitted(4, &thirds, thurstone), &[0.230098, 0.076159, -0.076159, -0.230098], 1e-5);
}

#[test]
fn two_documents_by_hand() {
    // Without a prior P(e_b - e_a) is the share.
    let [a, b] = fitted(2, &[(0, 1, 0.8)], plain().prior(0.0).link(Link::BradleyTerry))[..] else { panic!() };
    assert!((b - a - 4_f64.ln()).abs() < 1e-9 && (a + b).abs() < 1e-12);
    let b = fitted(2, &[(0, 1, 0.8)], plain().prior(0.0))[1];
    assert!((Link::Thurstone.probability(2.0 * b) - 0.8).abs() < 1e-9);
    // The difference of two scores has the variance 1 / (p (1 - p)), each less their mean a quarter of it.
    let fit = tournament(2, &[(0, 1, 0.8)]).fit(&plain().prior(0.0).link(Link::BradleyTerry)).unwrap();
    near(fit.scores(0).unwrap().standard_errors, &[(0.25_f64 / 0.16).sqrt(); 2], 1e-9);
}

#[test]
fn an_undefeated_document_is_finite_by_the_prior_alone() {
    let votes = [(0, 1, 0.0), (0, 2, 0.0), (1, 2, THIRD)];
    for link in [Link::Thurstone, Link::BradleyTerry] {
        let error = tournament(3, &votes).fit(&plain().prior(0.0).link(link)).unwrap_err();
        assert_eq!(error, Error::NoMaximum { query: "q".into() });
        let mut before = 0.0;
        for prior in [0.1, 1e-2, 1e-3, 1e-6] {
            let fit = tournament(3, &votes).fit(&plain().prior(prior).link(link)).unwrap();
            let found = scores(&fit);
            assert!(found[0] > before && found[0] < 20.0, "{found:?}");
            // At the maximum the prior's pull is the votes' push: λ e₀ = Σ (1 - P), for the logistic.
            if link == Link::BradleyTerry {
                let push: f64 = found[1..].iter().map(|other| 1.0 - link.probability(found[0] - other)).sum();
                assert!((prior * found[0] - push).abs() < 1e-9, "{prior}: {found:?}");
            }
            before = found[0];
            assert_eq!((fit.report.undefeated_documents, fit.report.winless_documents), (1, 0));
            assert_eq!(fit.report.separated_queries, 1);
        }
    }
}

#[test]
fn parts_that_no_vote_connects_have_their_own_middle() {
    // Two pairs, and a document nobody saw.
    let votes = [(0, 1, 0.9), (2, 3, 0.3)];
    let fit = tournament(5, &votes).fit(&plain()).unwrap();
    let found = scores(&fit);
    let sums = [found[0] + found[1], found[2] + found[3], found[4]];
    assert!(sums.iter().all(|sum| sum.abs() < 1e-9), "{found:?}");
    assert!(found[1] > found[0] && found[3] < found[2]);
    let errors = fit.scores(0).unwrap().standard_errors.to_vec();
    // The prior's own error, 1 / √λ, less the mean's.
    assert!((errors[4] - ((1.0 - 1.0 / 5.0) / FitOptions::PRIOR).sqrt()).abs() < 1e-9, "{errors:?}");
    assert!(errors[..4].iter().all(|error| *error < errors[4]));
    let report = &fit.report;
    assert_eq!((report.disconnected_queries, report.documents_without_votes, report.fewest_votes), (1, 1, 1));
    let error = tournament(5, &votes).fit(&plain().prior(0.0)).unwrap_err();
    assert_eq!(error, Error::NoMaximum { query: "q".into() });
}

#[test]
fn degenerate_pools() {
    assert_eq!(tournament(3, &[]).fit(&plain()).unwrap_err(), Error::NoVotes);
    assert_eq!(tournament(0, &[]).fit(&plain()).unwrap_err(), Error::NoVotes);
    let mut tournament = tournament(2, &[(0, 1, 1.0)]);
    tournament.add_query("alone", ["x"]).unwrap();
    tournament.add_query("empty", []).unwrap();
    assert_eq!(tournament.add_query("q", ["x"]).unwrap_err(), Error::QueryTwice { query: "q".into() });
    let twice = Error::DocumentTwice { query: "r".into(), document: "x".into() };
    assert_eq!(tournament.add_query("r", ["x", "x"]).unwrap_err(), twice);
    let document = Error::NoSuchDocument { query: "q".into(), document: "x".into() };
    for (vote, expected) in [
        (vote("?", "0", None, "1", Some(0.5)), Error::NoSuchQuery { query: "?".into() }),
        (vote("q", "0", Some("?"), "1", Some(0.5)), Error::NoSuchQuery { query: "?".into() }),
        (vote("q", "x", None, "1", Some(0.5)), document.clone()),
        (vote("alone", "x", Some("q"), "x", Some(0.5)), document),
        (vote("q", "1", None, "1", Some(0.5)), Error::SameDocument { document: "1".into() }),
        (vote("q", "0", None, "1", Some(1.5)), Error::Share { share: 1.5 }),
        (vote("q", "0", None, "1", Some(-0.0001)), Error::Share { share: -0.0001 }),
    ] {
        assert_eq!(tournament.add(&vote).unwrap_err(), expected);
    }
    let nan = tournament.add(&vote("q", "0", None, "1", Some(f64::NAN)));
    assert!(matches!(nan, Err(Error::Share { share }) if share.is_nan()));
    tournament.add(&vote("q", "0", None, "1", None)).unwrap();
    let fit = tournament.fit(&plain()).unwrap();
    assert_eq!(fit.report.judges[0].abstentions, 1);
    assert_eq!((fit.report.queries, fit.report.queries_without_votes), (3, 2));
    assert!(!fit.scores(1).unwrap().is_voted && fit.scores(1).unwrap().scores == [0.0]);
    assert!(fit.scores(2).unwrap().scores.is_empty() && fit.scores(3).is_none());
    for (prior, bias_prior) in [(-1.0, 1.0), (f64::NAN, 1.0), (1.0, 0.0), (1.0, f64::INFINITY)] {
        let fit = self::tournament(2, &[(0, 1, 1.0)]).fit(&plain().prior(prior).bias_prior(bias_prior));
        assert!(matches!(fit, Err(Error::Prior { .. })), "{prior} {bias_prior}");
    }
}

#[test]
fn circles_are_found() {
    let circle = [(0, 1, 1.0), (1, 2, 1.0), (0, 2, 0.0), (2, 3, 0.9), (0, 3, 0.5), (1, 3, 0.7)];
    let report = tournament(4, &circle).fit(&plain()).unwrap().report;
    // (0, 3) is a tie: of the four triples only (0, 1, 2) and (1, 2, 3) are decided.
    assert_eq!((report.triples, report.intransitive_triples, report.pairs), (2, 1, 6));
}

#[test]
fn judges_agree_or_not() {
    let mut tournament = tournament(3, &[(0, 1, 0.9), (1, 2, 0.8), (0, 2, 0.5)]);
    for (a, b, share) in [("1", "0", 0.2), ("1", "2", 0.1), ("0", "2", 0.9)] {
        tournament.add(&Vote { judge: "other".into(), ..vote("q", a, None, b, Some(share)) }).unwrap();
    }
    let report = tournament.fit(&plain()).unwrap().report;
    let [agreement] = &report.agreement[..] else { panic!("{:?}", report.agreement) };
    assert_eq!((agreement.a.as_str(), agreement.b.as_str(), agreement.pairs), ("j", "other", 2));
    assert!((agreement.agree - 0.5).abs() < 1e-12);
    assert_eq!(report.judges.iter().map(|judge| judge.votes).collect::<Vec<_>>(), [3, 3]);
}

/// Mean tau over 16 queries of 100 documents, of four seeds.
fn tau(k: Option<usize>, judges: usize, link: Link) -> f64 {
    let of_seed = |seed| {
        let judges: Vec<_> = (0..judges).map(|name| SimulatedJudge::new(name.to_string(), seed)).collect();
        power(&World::new(4, 100, seed), &judges, k, &FitOptions::new().link(link)).unwrap().tau
    };
    (0..4).map(of_seed).sum::<f64>() / 4.0
}

#[test]
fn tau_rises_with_the_comparisons_of_a_document() {
    // A panel of three, as zELO has; and one judge alone, whose noise 8 looks do not average out as well as 99 do. The simulated
    // votes are logistic, so that is the link that loses least.
    for (judges, link, lost) in [
        (3, Link::BradleyTerry, 0.02),
        (3, Link::Thurstone, 0.025),
        (1, Link::BradleyTerry, 0.035),
        (1, Link::Thurstone, 0.035),
    ] {
        let taus: Vec<f64> = [2, 4, 8, 16].map(|k| tau(Some(k), judges, link)).into();
        let dense = tau(None, judges, link);
        let all = format!("{judges} {link:?}: {taus:?} {dense}");
        assert!(taus.is_sorted() && taus[3] < dense, "{all}");
        assert!(dense - taus[2] < lost, "{all}");
    }
}

/// A fit of simulated votes over all of a world, with pairs across queries.
fn simulated(world: &World, judges: &[SimulatedJudge], options: &FitOptions) -> (Fit, Vec<Vec<f64>>) {
    let (queries, documents): (Vec<String>, Vec<String>) = (world.queries().collect(), world.documents());
    let truth: Vec<Vec<f64>> = queries.iter().map(|query| world.relevances(query)).collect();
    let sampler = Sampler::new(NonZeroUsize::new(4).unwrap(), 5);
    let mut tournament = Tournament::new();
    let mut pairs = Vec::new();
    for (place, query) in queries.iter().enumerate() {
        tournament.add_query(query, documents.iter().map(String::as_str)).unwrap();
        let within = sampler.within(query, &documents);
        let number = |id: &str| documents.iter().position(|document| document == id).unwrap();
        pairs.extend(within.into_iter().map(|pair| {
            let (a, b) = (truth[place][number(&pair.a)], truth[place][number(&pair.b)]);
            (pair, a, b)
        }));
    }
    for across in sampler.across(&vec![documents.len(); queries.len()]) {
        let ((query, a), (query_b, b)) = (across.a, across.b);
        let pair = Pair {
            query: queries[query].clone(),
            a: documents[a].clone(),
            query_b: Some(queries[query_b].clone()),
            b: documents[b].clone(),
        };
        pairs.push((pair, truth[query][a], truth[query_b][b]));
    }
    for (pair, a, b) in &pairs {
        judges.iter().for_each(|judge| tournament.add(&ask(judge, pair, *a, *b)).unwrap());
    }
    (tournament.fit(options).unwrap(), truth)
}

#[test]
fn judges_are_calibrated() {
    let world = World::new(40, 30, 1);
    let judge = |name: &str| SimulatedJudge::new(name, 1).hard();
    let judges =
        [judge("keen").scale(2.0), judge("leans").bias(0.5), judge("dull").scale(0.5).abstains(0.25)];
    let (fit, _) = simulated(&world, &judges, &FitOptions::new().link(Link::BradleyTerry));
    let [dull, keen, leans] = &fit.report.judges[..] else { panic!("{:?}", fit.report.judges) };
    assert_eq!([&*dull.judge, &keen.judge, &leans.judge], ["dull", "keen", "leans"]);
    // Some 5,000 votes each: ratios of scales and the bias are known to a tenth. The scale of the judge that weighs most comes out
    // somewhat large, for the scores follow its errors.
    assert!((keen.scale / leans.scale - 2.0).abs() < 0.25, "{keen:?} {leans:?}");
    assert!((dull.scale / leans.scale - 0.5).abs() < 0.1, "{dull:?} {leans:?}");
    assert!((leans.bias - 0.5).abs() < 0.15 && keen.bias.abs() < 0.15 && dull.bias.abs() < 0.15);
    assert!(keen.with_scores > leans.with_scores && leans.with_scores > dull.with_scores);
    let abstained = dull.abstentions as f64 / (dull.abstentions + dull.votes) as f64;
    assert!((abstained - 0.25).abs() < 0.03, "{abstained}");
    let weight: f64 = [dull, keen, leans].iter().map(|judge| judge.votes as f64 * judge.scale.powi(2)).sum();
    let votes: u64 = fit.report.judges.iter().map(|judge| judge.votes).sum();
    assert!((weight / votes as f64 - 1.0).abs() < 1e-9 && fit.report.judges_settled);
}

#[test]
fn offsets_make_queries_comparable() {
    let world = World::new(60, 20, 2).spread(1.5);
    let options = FitOptions::new().link(Link::BradleyTerry).bias_prior(1e-3).prior(0.01);
    let (fit, truth) = simulated(&world, &[SimulatedJudge::new("j", 2)], &options);
    assert_eq!((fit.report.across.parts, fit.report.across.queries), (1, 60));
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let middle = mean(&truth.concat());
    for (place, truth) in truth.iter().enumerate() {
        let found = fit.scores(place).unwrap();
        let expected = mean(truth) - middle;
        // b is the mean of a query's relevances, in the sign of y = e + b.
        // Soft votes are surer than the trials that the error counts them as.
        let error = found.bias_standard_error.unwrap();
        let far = (found.bias - expected).abs();
        assert!(error > 0.2 && far < 2.0 * error && far < 1.0, "{place}: {} {expected} {error}", found.bias);
    }
    let biases: f64 = (0..60).map(|place| fit.scores(place).unwrap().bias).sum();
    assert!(biases.abs() < 1e-6);
}

#[test]
fn standard_errors_cover_the_truth() {
    // Hard votes are the independent trials that the errors assume.
    let world = World::new(30, 30, 3);
    let judges: Vec<_> =
        (0..4).map(|name| SimulatedJudge::new(name.to_string(), 3).hard().noise(0.0).random(0.0)).collect();
    let options = plain().link(Link::BradleyTerry).prior(1e-3);
    let (fit, truth) = simulated(&world, &judges, &options);
    let (mut inside, mut all) = (0, 0);
    for (place, truth) in truth.iter().enumerate() {
        let found = fit.scores(place).unwrap();
        let mean = truth.iter().sum::<f64>() / truth.len() as f64;
        for ((score, error), truth) in found.scores.iter().zip(found.standard_errors).zip(truth) {
            inside += u32::from((score - (truth - mean)).abs() < 1.96 * error);
            all += 1;
        }
    }
    let covered = f64::from(inside) / f64::from(all);
    // 900 documents, whose errors are not independent.
    assert!((covered - 0.95).abs() < 0.03, "{covered}");
}

#[test]
fn threads_change_nothing() {
    let world = World::new(70, 10, 4).spread(1.0);
    let judges = [SimulatedJudge::new("a", 1), SimulatedJudge::new("b", 1).scale(0.5)];
    let fit = |threads| {
        let options = FitOptions::new().threads(NonZeroUsize::new(threads).unwrap());
        let (fit, _) = simulated(&world, &judges, &options);
        let scores = (0..70).map(|place| fit.scores(place).unwrap()).map(|of| (of.scores.to_vec(), of.bias));
        (scores.collect::<Vec<_>>(), serde_json::to_string(&fit.report).unwrap())
    };
    assert_eq!(fit(1), fit(3));
}

#[test]
fn unions_of_cycles() {
    for count in [0, 1] {
        assert!(cycles(count, 4, 0).is_empty());
    }
    let pairs = cycles(2, 4, 0);
    assert_eq!(pairs.len(), 4);
    assert!(pairs.iter().all(|pair| [(0, 1), (1, 0)].contains(pair)));
    let (mut distinct, mut seeds) = (0, 0);
    for seed in 0..200 {
        let pairs = cycles(100, 4, seed);
        assert_eq!(pairs.len(), 400);
        let mut unordered: Vec<_> = pairs.iter().map(|(a, b)| (a.min(b), a.max(b))).collect();
        unordered.sort_unstable();
        unordered.dedup();
        (distinct, seeds) = (distinct + unordered.len(), seeds + 1);
        assert_eq!(diameter(100, &pairs), Some(4), "seed {seed}");
    }
    // Two random cycles of n share 2 n / (n - 1) pairs on average: 400 - 6 · 2.02.
    assert!((f64::from(distinct as u32) / f64::from(seeds) - 387.9).abs() < 1.5, "{distinct}");
}

/// The most steps between any two; none if not all are connected.
fn diameter(count: usize, pairs: &[(usize, usize)]) -> Option<usize> {
    let mut next = vec![Vec::new(); count];
    for &(a, b) in pairs {
        next[a].push(b);
        next[b].push(a);
    }
    let mut largest = 0;
    for start in 0..count {
        let mut steps = vec![None; count];
        let mut todo = std::collections::VecDeque::from([start]);
        steps[start] = Some(0);
        while let Some(at) = todo.pop_front() {
            for &to in &next[at] {
                if steps[to].is_none() {
                    steps[to] = steps[at].map(|steps: usize| steps + 1);
                    todo.push_back(to);
                }
            }
        }
        largest = largest.max(steps.into_iter().collect::<Option<Vec<_>>>()?.into_iter().max()?);
    }
    Some(largest)
}

fn votes() -> impl Strategy<Value = (usize, Vec<(usize, usize, f64)>)> {
    let share = prop_oneof![Just(0.0), Just(1.0), Just(0.5), 0.0..=1.0];
    (2_usize..12).prop_flat_map(move |documents| {
        let pair = (0..documents, 1..documents, share.clone())
            .prop_map(move |(a, step, share)| (a, (a + step) % documents, share));
        (Just(documents), prop::collection::vec(pair, 1..60))
    })
}

fn link() -> impl Strategy<Value = Link> {
    prop_oneof![Just(Link::Thurstone), Just(Link::BradleyTerry)]
}

proptest! {
    #[test]
    fn the_order_of_votes_does_not_matter((documents, votes) in votes(), link in link(), shift in 0_usize..60) {
        let options = plain().link(link);
        let mut turned = votes.clone();
        turned.rotate_left(shift % votes.len());
        turned.reverse();
        prop_assert_eq!(fitted(documents, &votes, options), fitted(documents, &turned, options));
    }

    #[test]
    fn which_document_is_named_first_does_not_matter((documents, votes) in votes(), link in link()) {
        let turned: Vec<_> = votes.iter().map(|&(a, b, share)| (b, a, 1.0 - share)).collect();
        let (one, other) = (fitted(documents, &votes, plain().link(link)), fitted(documents, &turned, plain().link(link)));
        prop_assert!(one.iter().zip(&other).all(|(a, b)| (a - b).abs() < 1e-9), "{one:?} {other:?}");
    }

    #[test]
    fn a_win_never_lowers_the_winner((documents, votes) in votes(), link in link(), loser in 1_usize..11) {
        let options = plain().link(link);
        let before = fitted(documents, &votes, options);
        let mut more = votes.clone();
        let loser = 1 + (loser - 1) % (documents - 1);
        more.push((loser, 0, 1.0));
        let after = fitted(documents, &more, options);
        prop_assert!(after[0] >= before[0] - 1e-9 && after[loser] <= before[loser] + 1e-9, "{before:?} {after:?}");
        prop_assert!(after[0] - after[loser] > before[0] - before[loser]);
    }

    #[test]
    fn a_maximum_is_flat((documents, votes) in votes(), link in link()) {
        let options = plain().link(link);
        let found = fitted(documents, &votes, options);
        let loss = |e: &[f64]| -> f64 {
            let log = |share: f64, p: f64| if share > 0.0 { share * p.ln() } else { 0.0 };
            let of = |&(a, b, share): &(usize, usize, f64)| {
                let z = e[b] - e[a];
                log(share, link.probability(z)) + log(1.0 - share, link.probability(-z))
            };
            0.5 * FitOptions::PRIOR * e.iter().map(|e| e * e).sum::<f64>() - votes.iter().map(of).sum::<f64>()
        };
        prop_assert!(found.iter().sum::<f64>().abs() < 1e-9);
        for place in 0..documents {
            let moved = |by: f64| {
                let mut e = found.clone();
                e[place] += by;
                loss(&e)
            };
            let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            prop_assert!(slope.abs() < 1e-6, "{place}: {slope}");
        }
    }

    #[test]
    fn cycles_connect_and_are_balanced(count in 3_usize..60, number in 1_usize..6, seed: u64) {
        let pairs = cycles(count, number, seed);
        prop_assert_eq!(pairs.len(), count * number);
        prop_assert!(diameter(count, &pairs).is_some());
        for thing in 0..count {
            prop_assert_eq!(pairs.iter().filter(|(a, _)| *a == thing).count(), number);
            prop_assert_eq!(pairs.iter().filter(|(_, b)| *b == thing).count(), number);
        }
        prop_assert_eq!(&pairs, &cycles(count, number, seed));
    }
}
