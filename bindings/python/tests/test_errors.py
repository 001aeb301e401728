"""Every error says what is wrong and where."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from jointly import CrossEncoder, Error, InputError, IoError, ModelError

from .conftest import QUERY


@pytest.mark.parametrize(
    ("pairs", "index", "message"),
    [
        ([("q", "d"), (None, "d")], 1, "pair 1: the query is None"),
        ([("q", "d"), ("q", 3.5)], 1, "pair 1: the document is float"),
        ([("q", "d"), ("q",)], 1, "pair 1 is 1 texts"),
        (["qd"], 0, "pair 0 is str"),
        ([None], 0, "pair 0 is None"),
        ([("q", "d"), ("q", "d"), (" ", "d")], 2, "pair 2: the query is empty"),
        ([("q", "d")] * 400 + [("", "d")], 400, "pair 400: the query is empty"),
        ([("q", "a \ud800 b")], 0, "document 0 has half of a surrogate pair"),
        ("q", None, "one text"),
        (7, None, "int is given where a list of pairs is needed"),
    ],
)
def test_pairs(model: CrossEncoder, pairs: Any, index: int | None, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        model.score_pairs(pairs)
    assert raised.value.index == index


@pytest.mark.parametrize(
    ("query", "documents", "index", "message"),
    [
        ("", ["d"], None, "the query is empty"),
        ("", [], None, "the query is empty"),
        (None, ["d"], None, "the query is None"),
        (QUERY, ["d", None], 1, "document 1 is None; a text is needed"),
        (QUERY, ["d", b"d"], 1, "document 1 is bytes"),
        (QUERY, ["d", float("nan")], 1, "document 1 is float"),
        (QUERY, "one text", None, "one document is given where a list of texts is needed"),
        (QUERY, None, None, "missing"),
        (QUERY, 5, None, "this is int"),
    ],
)
def test_documents(model: CrossEncoder, query: Any, documents: Any, index: int | None, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        model.rerank(query, documents)
    assert raised.value.index == index
    with pytest.raises(InputError):
        model.rank(query, documents)


def test_columns(model: CrossEncoder) -> None:
    with pytest.raises(InputError, match="2 queries for 1 documents"):
        model.score_pairs(queries=["a", "b"], documents=["d"])
    with pytest.raises(InputError, match="either pairs"):
        model.score_pairs([("q", "d")], queries="q")
    with pytest.raises(InputError, match="missing"):
        model.score_pairs(queries="q")
    with pytest.raises(InputError, match="top_n"):
        model.rerank(QUERY, ["d"], -1)


def test_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="there is no such folder"):
        CrossEncoder("./nowhere")
    with pytest.raises(InputError, match="not a hub id"):
        CrossEncoder("no such thing")
    with pytest.raises(InputError, match="nobody/nothing"):
        CrossEncoder("nobody/nothing", local_files_only=True, cache_folder=tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="config.json"):
        CrossEncoder(tmp_path / "empty")
    # A relative path is a path, also where it looks like a hub id.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "model").mkdir(parents=True)
    with pytest.raises(ModelError, match="config.json"):
        CrossEncoder("org/model")


def test_classes() -> None:
    assert issubclass(InputError, ValueError) and issubclass(IoError, OSError)
    for kind in (InputError, ModelError, IoError):
        assert issubclass(kind, Error)
        error = pickle.loads(pickle.dumps(kind("what is wrong", 3)))
        assert (type(error), str(error), error.index) == (kind, "what is wrong", 3)
