"""predict and rank have the shapes, types and keys of sentence-transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from jointly import CrossEncoder, Evaluator, InputError

from .conftest import DOCUMENTS, QUERY

PAIRS = [(QUERY, document) for document in DOCUMENTS]


def test_predict(model: CrossEncoder) -> None:
    scores = model.predict(PAIRS)
    assert isinstance(scores, np.ndarray) and scores.dtype == np.float32 and scores.shape == (len(PAIRS),)
    assert scores.tobytes() == model.score_pairs(PAIRS).scores.tobytes()
    for sentences in (list(map(list, PAIRS)), tuple(PAIRS), np.array(PAIRS)):
        assert model.predict(sentences, batch_size=1, show_progress_bar=False).tobytes() == scores.tobytes()
    assert model.predict(inputs=PAIRS, apply_softmax=True).tobytes() == scores.tobytes()
    one = model.predict(PAIRS[1])
    assert isinstance(one, np.float32) and one == scores[1]
    assert model.predict(list(PAIRS[1])) == model.predict(np.array(PAIRS[1])) == one
    assert model.predict([]).shape == (0,)
    assert len(model.predict(PAIRS, convert_to_numpy=False)) == len(PAIRS)


def test_activations(model: CrossEncoder) -> None:
    logits = model.score_pairs(PAIRS).logits
    assert model.predict(PAIRS, activation_fn="identity").tobytes() == logits.tobytes()
    probabilities = model.predict(PAIRS, activation_fn="sigmoid")
    assert np.allclose(probabilities, 1 / (1 + np.exp(-logits.astype(np.float64))), rtol=1e-6)
    twice: Callable[[Any], Any] = lambda found: found * 2  # noqa: E731
    assert np.array_equal(model.predict(PAIRS, activation_fn=twice), logits * 2)
    assert np.array_equal(CrossEncoder(activation_fn="identity").predict(PAIRS), logits)
    with pytest.raises(InputError, match="activation_fn gave the shape"):
        model.predict(PAIRS, activation_fn=lambda found: found[:1])
    with pytest.raises(InputError, match="activation_fn 'relu'"):
        model.predict(PAIRS, activation_fn="relu")


def test_rank(model: CrossEncoder) -> None:
    rows = model.rank(QUERY, DOCUMENTS, return_documents=True)
    assert [set(row) for row in rows] == [{"corpus_id", "score", "text"}] * len(DOCUMENTS)
    assert [type(rows[0][key]) for key in ("corpus_id", "score", "text")] == [int, float, str]
    assert [row["corpus_id"] for row in rows] == [hit.index for hit in model.rerank(QUERY, DOCUMENTS)]
    assert all(row["text"] == DOCUMENTS[row["corpus_id"]] for row in rows)
    top = model.rank(QUERY, DOCUMENTS, top_k=2, batch_size=8, show_progress_bar=False)
    assert [set(row) for row in top] == [{"corpus_id", "score"}] * 2
    reverse = model.rank(QUERY, DOCUMENTS, activation_fn=lambda logits: -logits)
    assert [row["corpus_id"] for row in reverse] == [row["corpus_id"] for row in rows][::-1]
    assert model.rank(QUERY, []) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "cuda:0"}, "device cuda:0"),
        ({"num_labels": 3}, "num_labels 3"),
        ({"backend": "onnx"}, "backend is not an option"),
        ({"model_kwargs": {}}, "model_kwargs"),
        ({"threads": -1}, "threads -1"),
        ({"precision": "f16"}, "f16"),
    ],
)
def test_what_cannot_be_honoured_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CrossEncoder(**arguments)


def test_what_means_nothing_here_is_accepted(model: CrossEncoder) -> None:
    same = CrossEncoder("default", max_length=None, num_labels=1, device="cpu", trust_remote_code=False, model_kwargs=None)
    assert (same.num_labels, same.device, same.max_seq_length) == (1, "cpu", model.max_length)
    for arguments in ({"prompt": "x"}, {"prompt_name": "x"}, {"pool": {}}, {"batch_size": 0}):
        with pytest.raises(InputError, match=next(iter(arguments))):
            model.predict(PAIRS, **arguments)  # type: ignore[arg-type]


def test_the_adapter(model: CrossEncoder) -> None:
    """As the evaluators call it; with the packages themselves: tests/others."""
    adapter = Evaluator(model)
    scores = adapter.predict(PAIRS, prompt_name=None, batch_size=64, convert_to_numpy=True, show_progress_bar=False)
    assert scores.tobytes() == model.predict(PAIRS).tobytes()
    adapter.model_card_data.set_evaluation_metrics(None, {"map": np.float64(0.5)}, 0, 0)
    assert adapter.results == {"NoneType": {"map": 0.5}}
    queries, documents = [{"text": [QUERY, QUERY]}, {"text": [QUERY]}], [{"text": DOCUMENTS[:1]}, {"text": DOCUMENTS[1:3]}]
    found = adapter.predict(queries, documents, task_metadata=None, hf_split="test", hf_subset="default")
    assert found.tobytes() == model.score_pairs(PAIRS[:3]).logits.tobytes()
    with pytest.raises(InputError, match="3 queries for 1 documents"):
        adapter.predict(queries, documents[:1], task_metadata=None)
    assert adapter.rank(QUERY, DOCUMENTS, top_k=1) == model.rank(QUERY, DOCUMENTS, top_k=1)
