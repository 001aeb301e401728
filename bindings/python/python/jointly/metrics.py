"""Metrics of rankings, with trec_eval's numbers; and what a cheaper model does to the order."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from . import _native
from .cross_encoder import Scores
from .errors import InputError

__all__ = [
    "audit",
    "audit_scores",
    "evaluate",
    "mean_average_precision",
    "mrr",
    "ndcg_at_k",
    "recall_at_k",
]


def evaluate(
    qrels: Mapping[str, Mapping[str, int]],
    run: Mapping[str, Mapping[str, float]],
    metrics: Sequence[str] = ("ndcg@10",),
    *,
    level: int = 1,
    skip_missing: bool = False,
) -> dict[str, dict[str, float]]:
    """Each metric's value for each query, from labels and scores by query and document.

    :param metrics: ``ndcg``, ``ndcg_exp``, ``mrr``, ``map``, ``p``, ``recall``, ``rprec``, ``success``; with a cut-off: ``ndcg@10``.
    :param level: from which label on a document is relevant, for the metrics that know only relevant and not.
    :param skip_missing: leaves out queries that the run does not have; else they count as 0, so that no run is better for leaving hard ones out.
    :raises InputError: for an unknown metric, a label that is none, a score that is not finite, or no query in common.
    """
    labels = {query: dict(documents) for query, documents in qrels.items()}
    scores = {query: dict(documents) for query, documents in run.items()}
    return _native.evaluate(labels, scores, list(metrics), level=level, skip_missing=skip_missing)


Labels = Sequence[int] | Sequence[Sequence[int]]
Values = Sequence[float] | Sequence[Sequence[float]]


def ndcg_at_k(labels: Labels, scores: Values, k: int | None = 10) -> float:
    """Normalised discounted cumulative gain of one query, or its mean over several; the gain is the label.

    ``labels`` are those of all judged documents, ``scores`` what each of them got; equal scores keep the order given. None as ``k`` is the
    whole ranking.
    """
    return _mean("ndcg", labels, scores, k)


def mrr(labels: Labels, scores: Values, k: int | None = None) -> float:
    """1 / rank of the first relevant document; 0 if there is none. Arguments as in :func:`ndcg_at_k`."""
    return _mean("mrr", labels, scores, k)


def mean_average_precision(labels: Labels, scores: Values, k: int | None = None) -> float:
    """The mean of the precisions at the relevant documents. Arguments as in :func:`ndcg_at_k`."""
    return _mean("map", labels, scores, k)


def recall_at_k(labels: Labels, scores: Values, k: int) -> float:
    """The share of the relevant documents that are among the first ``k``. Arguments as in :func:`ndcg_at_k`."""
    return _mean("recall", labels, scores, k)


def _mean(metric: str, labels: Any, scores: Any, k: int | None) -> float:
    name = metric if k is None else f"{metric}@{k}"
    labels, scores = list(labels), list(scores)
    if not labels or not hasattr(labels[0], "__len__"):
        labels, scores = [labels], [scores]
    if len(labels) != len(scores):
        raise InputError(f"labels of {len(labels)} queries, scores of {len(scores)}")
    qrels: dict[str, dict[str, int]] = {}
    run: dict[str, dict[str, float]] = {}
    for index, (of_query, given) in enumerate(zip(labels, scores)):
        if len(of_query) != len(given):
            raise InputError(f"query {index}: {len(of_query)} labels, {len(given)} scores", index)
        wrong = next((place for place, score in enumerate(given) if not math.isfinite(score)), None)
        if wrong is not None:
            raise InputError(f"query {index}: score {wrong} is {given[wrong]}, which is not a number", index)
        order = sorted(range(len(given)), key=lambda place: -given[place])
        qrels[str(index)] = {str(place): int(label) for place, label in enumerate(of_query)}
        # By rank: equal scores would be ordered by the names of the documents, which these do not have.
        run[str(index)] = {str(place): float(len(order) - rank) for rank, place in enumerate(order)}
    values = evaluate(qrels, run, [name])[name]
    return sum(values.values()) / len(values) if values else 0.0


class _Scorer(Protocol):
    def score_pairs(self, *, queries: str, documents: Sequence[str]) -> Scores: ...


def audit(queries: Sequence[tuple[str, Sequence[str]]], candidate: _Scorer, reference: _Scorer) -> dict[str, Any]:
    """What ``candidate`` does to the order that ``reference`` gives: flips by margin, ties, overlaps, Kendall's tau, rank-biased overlap.

    ``queries`` are queries with their documents. The names in the answer are those of ``jointly audit --format json`` where both have them.
    """
    scored: list[tuple[str, list[float], list[float]]] = []
    for query, documents in queries:
        of = [model.score_pairs(queries=query, documents=documents).logits.tolist() for model in (reference, candidate)]
        scored.append((query, of[0], of[1]))
    return _audited(scored)


def audit_scores(
    candidate: Mapping[str, Sequence[float]], reference: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    """The same of scores that are there already: for each query those of its documents, in one order for both."""
    if candidate.keys() != reference.keys():
        odd = sorted(candidate.keys() ^ reference.keys())[0]
        raise InputError(f"query {odd} is in one of the two only")
    return _audited([(query, list(reference[query]), list(candidate[query])) for query in reference])


def _audited(scored: list[tuple[str, list[float], list[float]]]) -> dict[str, Any]:
    # Two queries may have the same text.
    numbered = [(f"{index}: {query}", reference, candidate) for index, (query, reference, candidate) in enumerate(scored)]
    found: dict[str, Any] = json.loads(_native.audit(numbered))
    for name in ("tau", "rbo"):
        found[name] = _with_mean(found[name])
    found["overlap"] = [{"k": k, **_with_mean(values)} for k, values in found["overlap"]]
    return found


def _with_mean(values: dict[str, float]) -> dict[str, Any]:
    mean = sum(values.values()) / len(values) if values else None
    return {"mean": mean, "per_query": values}
