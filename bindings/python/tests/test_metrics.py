"""Metrics are jointly-eval's; what is checked here is how they are asked for."""

from __future__ import annotations

import math

import pytest

from jointly import (
    CrossEncoder,
    InputError,
    audit,
    audit_scores,
    evaluate,
    mean_average_precision,
    mrr,
    ndcg_at_k,
    recall_at_k,
)

from .conftest import DOCUMENTS, QUERY


def test_one_query_by_hand() -> None:
    labels, scores = [0, 3, 2, 1], [4.0, 3.0, 2.0, 1.0]
    dcg = 3 / math.log2(3) + 2 / math.log2(4) + 1 / math.log2(5)
    ideal = 3 + 2 / math.log2(3) + 1 / math.log2(4)
    assert ndcg_at_k(labels, scores) == pytest.approx(dcg / ideal)
    assert mrr(labels, scores) == 0.5
    assert mean_average_precision(labels, scores) == pytest.approx((1 / 2 + 2 / 3 + 3 / 4) / 3)
    assert recall_at_k(labels, scores, 2) == pytest.approx(1 / 3)
    assert ndcg_at_k([1, 0], [2.0, 2.0]) == 1.0, "equal scores keep the order given"
    assert mrr([[1, 0], [0, 1]], [[2, 1], [2, 1]]) == 0.75


def test_queries_by_name() -> None:
    qrels = {"a": {"x": 1, "y": 0}, "b": {"x": 1}}
    found = evaluate(qrels, {"a": {"x": 1.0, "y": 2.0}}, ["mrr", "recall@1"])
    assert found == {"mrr": {"a": 0.5, "b": 0.0}, "recall@1": {"a": 0.0, "b": 0.0}}
    assert evaluate(qrels, {"a": {"x": 1.0}}, ["mrr"], skip_missing=True) == {"mrr": {"a": 1.0}}
    for arguments, message in (
        ((qrels, {"a": {"x": 1.0}}, ["speed"]), "no metric is called"),
        ((qrels, {"a": {"x": math.nan}}, ["mrr"]), "NaN|finite|number"),
        (({"a": {"x": 1000}}, {"a": {"x": 1.0}}, ["mrr"]), "label 1000"),
        ((qrels, {"c": {"x": 1.0}}, ["mrr"]), "quer"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate(*arguments)
    with pytest.raises(InputError, match="query 0: 1 labels, 2 scores"):
        mrr([1], [1.0, 2.0])
    with pytest.raises(InputError, match="score 1 is nan"):
        mrr([1, 0], [1.0, math.nan])


def test_audit(model: CrossEncoder) -> None:
    same = audit([(QUERY, DOCUMENTS), (QUERY, DOCUMENTS[:3])], model, model)
    assert same["queries"] == 2 and same["pairs"] == len(DOCUMENTS) + 3
    assert same["tau"]["mean"] == 1.0 and same["difference"]["largest_distance"] == 0.0
    turned = audit_scores({"q": [1.0, 2.0, 3.0]}, {"q": [3.0, 2.0, 1.0]})
    assert turned["tau"]["mean"] == -1.0
    assert turned["overlap"][0] == {"k": 1, "mean": 0.0, "per_query": {"0: q": 0.0}}
    with pytest.raises(InputError, match="query q is in one of the two only"):
        audit_scores({"q": [1.0]}, {"r": [1.0]})
    with pytest.raises(InputError):
        audit_scores({"q": [1.0]}, {"q": [1.0, 2.0]})
