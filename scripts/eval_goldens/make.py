"""Writes crates/eval/tests/golden/: what other people's programs compute on seeded random runs.

    pip install -r scripts/eval_goldens/requirements.txt
    python scripts/eval_goldens/make.py --out crates/eval/tests/golden

metrics.json        pytrec_eval (trec_eval 9's C code) and ir_measures
alpha_ndcg.json     pyndeval (TREC's ndeval.c)
agreement.json      scipy's Kendall tau-b, the rbo package, p-MRR as MTEB defines it
significance.json   scipy and statsmodels
"""

import argparse
import json
import math
import random
from pathlib import Path

import ir_measures
import numpy as np
import pyndeval
import pytrec_eval
import rbo
import scipy.stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import ttost_paired

CUTOFFS = [1, 3, 5, 10, 20, 100]
NOT_POOLED = -1


def trec_order(scores, width):
    """Document ids as trec_eval sorts them: score descending, then id descending, byte by byte."""
    kind = np.float32 if width == "f32" else np.float64
    return sorted(scores, key=lambda doc: (kind(scores[doc]), doc.encode()), reverse=True)


def document_ids(rng, count):
    """Ids whose byte order is not their numeric order, some beyond ASCII."""
    ids = set()
    while len(ids) < count:
        ids.add(rng.choice(["d", "D", "doc-", "é", "MED-", ""]) + str(rng.randrange(1, 300)))
    return sorted(ids)


def random_score(rng, style):
    if style == "distinct":
        return rng.gauss(0, 5)
    if style == "few":
        return rng.choice([-1.5, 0.0, 0.25, 0.5, 7.0])
    if style == "constant":
        return 1.0
    # Sigmoids near 1 that are equal in 32 bits and different in 64.
    return 1.0 - rng.randrange(1, 40) * 1e-9


def random_case(rng, style, width):
    qrels, run = {}, {}
    for number in range(rng.randrange(5, 9)):
        query = f"q{number}"
        ids = document_ids(rng, 40)
        judged = rng.sample(ids, rng.randrange(3, 25))
        labels = {doc: rng.choices([0, 1, 2, 3, NOT_POOLED], [5, 3, 2, 1, 1])[0] for doc in judged}
        labels[judged[0]] = 0  # pytrec_eval reads uninitialised memory where no label is 0 or higher
        if number == 1:
            labels = {doc: 0 for doc in judged}  # nothing relevant
        retrieved = rng.sample(ids, rng.randrange(1, 36))  # some of them not judged
        if number != 2:  # judged, and not in the run
            run[query] = {doc: random_score(rng, style) for doc in retrieved}
        if number != 3:  # in the run, and not judged
            qrels[query] = labels
    return {"style": style, "width": width, "qrels": qrels, "run": run}


def pytrec(qrels, run, level):
    measures = {"map", "ndcg", "recip_rank", "Rprec"}
    for family in ["ndcg_cut", "P", "recall", "map_cut", "success"]:
        measures.add(f"{family}." + ",".join(map(str, CUTOFFS)))
    return pytrec_eval.RelevanceEvaluator(qrels, measures, relevance_level=level).evaluate(run)


def expected_metrics(case, level):
    qrels, run = case["qrels"], case["run"]
    if case["width"] == "f64":
        # pytrec_eval compares 32 bits; ranks in the order of 64 bits are the same in both.
        run = {q: {doc: float(-i) for i, doc in enumerate(trec_order(scores, "f64"))} for q, scores in run.items()}
    names = {"map": "map", "ndcg": "ndcg", "recip_rank": "mrr", "Rprec": "rprec"}
    for cutoff in CUTOFFS:
        for theirs, ours in [("ndcg_cut", "ndcg"), ("P", "p"), ("recall", "recall"), ("map_cut", "map"), ("success", "success")]:
            names[f"{theirs}_{cutoff}"] = f"{ours}@{cutoff}"
    found = {}
    for query, values in pytrec(qrels, run, level).items():
        for theirs, ours in names.items():
            found.setdefault(ours, {})[query] = values[theirs]
    for cutoff in CUTOFFS:
        # The reciprocal rank of the first k documents of each ranking.
        cut = {q: {doc: float(-i) for i, doc in enumerate(trec_order(s, "f32")[:cutoff])} for q, s in run.items()}
        for query, values in pytrec(qrels, cut, level).items():
            found.setdefault(f"mrr@{cutoff}", {})[query] = values["recip_rank"]
    if level == 1:
        gains = {q: {doc: 2**label - 1 if label > 0 else label for doc, label in ls.items()} for q, ls in qrels.items()}
        for query, values in pytrec(gains, run, level).items():
            found.setdefault("ndcg_exp", {})[query] = values["ndcg"]
            for cutoff in CUTOFFS:
                found.setdefault(f"ndcg_exp@{cutoff}", {})[query] = values[f"ndcg_cut_{cutoff}"]
    check_ir_measures(qrels, run, level, found)
    return {metric: [[q, round(v, 9)] for q, v in sorted(values.items())] for metric, values in sorted(found.items())}


def check_ir_measures(qrels, run, level, found):
    """ir_measures must agree before anything is written."""
    pairs = [
        (ir_measures.nDCG @ 10, "ndcg@10"),
        (ir_measures.AP(rel=level), "map"),
        (ir_measures.AP(rel=level) @ 5, "map@5"),
        (ir_measures.P(rel=level) @ 5, "p@5"),
        (ir_measures.R(rel=level) @ 20, "recall@20"),
        (ir_measures.RR(rel=level), "mrr"),
        (ir_measures.Rprec(rel=level), "rprec"),
        (ir_measures.Success(rel=level) @ 3, "success@3"),
    ]
    if level == 1:
        pairs.append((ir_measures.nDCG(gains={1: 1, 2: 3, 3: 7}) @ 10, "ndcg_exp@10"))
    for measure, name in pairs:
        ours = found[name]
        theirs = {m.query_id: m.value for m in ir_measures.pytrec_eval.iter_calc([measure], qrels, run)}
        for query, value in theirs.items():
            # ir_measures fills queries that the run lacks with 0; pytrec_eval leaves them out.
            assert abs(value - ours.get(query, 0.0)) < 1e-9, (name, query, value, ours.get(query))


def metrics(rng):
    cases = []
    for style in ["distinct", "few", "few", "constant", "near", "near"]:
        for width in ["f32", "f64"]:
            case = random_case(rng, style, width)
            case["expected"] = {f"{level}": expected_metrics(case, level) for level in (1, 2)}
            cases.append(case)
    return {"cases": cases}


def alpha_ndcg(rng):
    cases = []
    for alpha in [0.5, 0.25, 1.0, 0.0]:
        qrels, run, flat = [], {}, []
        for number in range(6):
            query, ids = f"q{number}", document_ids(rng, 30)
            for doc in rng.sample(ids, 20):
                for subtopic in rng.sample(["1", "2", "3", "4", "5"], rng.randrange(1, 4)):
                    label = 0 if number == 1 else rng.choice([0, 1, 1, 2])
                    qrels.append([query, subtopic, doc, label])
            if number != 2:
                run[query] = {doc: random_score(rng, "few") for doc in rng.sample(ids, rng.randrange(1, 28))}
                # pyndeval breaks ties its own way; distinct scores in trec_eval's order leave it no choice.
                flat += [(query, doc, float(-i)) for i, doc in enumerate(trec_order(run[query], "f32"))]
        expected = {}
        for level in (1, 2):
            evaluator = pyndeval.RelevanceEvaluator(
                [tuple(row) for row in qrels], [f"alpha-nDCG@{k}" for k in (1, 5, 10, 20)], level, alpha
            )
            values = {}
            for query, found in evaluator.evaluate(flat).items():
                for k in (1, 5, 10, 20):
                    values.setdefault(f"alpha_ndcg@{k}", []).append([query, round(found[f"alpha-nDCG@{k}"], 9)])
            expected[f"{level}"] = {metric: sorted(rows) for metric, rows in values.items()}
        cases.append({"alpha": alpha, "qrels": qrels, "run": run, "expected": expected})
    return {"cases": cases}


def agreement(rng):
    taus, rbos, p_mrrs = [], [], []
    for count in [2, 5, 20, 50]:
        for style in ["distinct", "few"]:
            a = [random_score(rng, style) for _ in range(count)]
            b = [x + rng.gauss(0, 3) if style == "distinct" else random_score(rng, style) for x in a]
            tau = float(scipy.stats.kendalltau(a, b, variant="b").statistic)
            taus.append({"a": a, "b": b, "tau_b": None if math.isnan(tau) else tau})
    for lengths in [(1, 1), (5, 5), (10, 10), (30, 30), (5, 12), (12, 3), (1, 20)]:
        for p in [0.5, 0.9, 0.98]:
            a = rng.sample(range(40), lengths[0])
            b = rng.sample(range(40), lengths[1])
            value = float(rbo.RankingSimilarity(a, b).rbo_ext(p=p))
            rbos.append({"a": a, "b": b, "p": p, "rbo": value})
    for _ in range(4):
        original, altered, changed, per_query = {}, {}, {}, []
        for number in range(4):
            query, ids = f"q{number}", [f"d{i}" for i in range(30)]
            original[query] = {doc: rng.gauss(0, 1) for doc in rng.sample(ids, 25)}
            altered[query] = {doc: rng.gauss(0, 1) for doc in rng.sample(ids, 20)}
            changed[query] = rng.sample(ids, 4)
            changes = []
            for doc in changed[query]:
                ranks = []
                for scores in (original[query], altered[query]):
                    order = sorted(scores, key=scores.get, reverse=True)
                    ranks.append(order.index(doc) + 1 if doc in scores else len(order) + 1)
                before, after = ranks
                changes.append((1 / before) / (1 / after) - 1 if before >= after else 1 - (1 / after) / (1 / before))
            per_query.append([query, sum(changes) / len(changes)])
        p_mrrs.append({"original": original, "altered": altered, "changed": changed, "expected": per_query})
    return {"kendall": taus, "rbo": rbos, "p_mrr": p_mrrs}


def significance(rng):
    samples = []
    for count, sd, mean in [(3, 0.1, 0.05), (8, 0.1, 0.08), (10, 0.05, 0.0), (14, 0.1, -0.06), (43, 0.1, 0.02), (300, 0.05, 0.001)]:
        a = [min(1.0, max(0.0, rng.gauss(0.5, 0.2))) for _ in range(count)]
        b = [min(1.0, max(0.0, x + rng.gauss(mean, sd))) for x in a]
        for i in range(0, count, 5):
            b[i] = a[i]  # queries on which nothing changes are common
        d = np.array(b) - np.array(a)
        found = {"a": a, "b": b, "sd": float(d.std(ddof=1)), "tost": {}}
        for margin in (0.005, 0.02, 0.1):
            p, (_, p_lower, _), (_, p_upper, _) = ttost_paired(np.array(b), np.array(a), -margin, margin)
            assert abs(p - max(p_lower, p_upper)) < 1e-12
            found["tost"][f"{margin}"] = [float(p_lower), float(p_upper)]
        if count <= 14:
            test = scipy.stats.permutation_test((d,), lambda x, axis: x.mean(axis=axis), permutation_type="samples", n_resamples=np.inf, vectorized=True)
            found["exact_p"] = float(test.pvalue)
        else:
            test = scipy.stats.permutation_test((d,), lambda x, axis: x.mean(axis=axis), permutation_type="samples", n_resamples=200_000, rng=np.random.default_rng(7), vectorized=True, batch=10_000)
            found["sampled_p"] = float(test.pvalue)
        interval = scipy.stats.bootstrap((d,), np.mean, method="percentile", n_resamples=100_000, batch=5_000, rng=np.random.default_rng(7)).confidence_interval
        found["percentile_95"] = [float(interval.low), float(interval.high)]
        # Smallest difference that a two-sided paired t-test at 0.05 finds with probability 0.8 (noncentral t).
        effect = TTestPower().solve_power(nobs=count, alpha=0.05, power=0.8, alternative="two-sided")
        found["detectable_80"] = float(effect) * found["sd"]
        samples.append(found)
    holm = []
    for count in (1, 2, 5, 9):
        p = [rng.choice([rng.random() * 0.05, rng.random()]) for _ in range(count)]
        if count == 9:
            p[3] = p[4] = 0.01
        holm.append({"p": p, "adjusted": [float(x) for x in multipletests(p, method="holm")[1]]})
    return {"samples": samples, "holm": holm}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    for name, make, seed in [("metrics", metrics, 1), ("alpha_ndcg", alpha_ndcg, 2), ("agreement", agreement, 3), ("significance", significance, 4)]:
        content = {"command": "python scripts/eval_goldens/make.py --out crates/eval/tests/golden", **make(random.Random(seed))}
        path = out / f"{name}.json"
        path.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n")
        print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
