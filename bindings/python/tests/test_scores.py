"""Scores are those of the library: whatever way texts come in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jointly import CrossEncoder, InputError, ModelError, rerank

from .conftest import DOCUMENTS, QUERY, ROOT

PAIRS = [(QUERY, document) for document in DOCUMENTS]


def test_the_receipt_holds(model: CrossEncoder, pinned: list[dict[str, Any]]) -> None:
    scores = model.score_pairs([(pair["query"], pair["document"]) for pair in pinned])
    assert np.abs(scores.logits - np.array([pair["logit"] for pair in pinned], np.float32)).max() < 1e-3
    assert scores.logits.dtype == np.float32 and scores.tokens.dtype == np.uint32
    assert model.info["receipt"] == "holds"


def test_bits_are_those_of_the_command_line(model: CrossEncoder, folder: Path, tmp_path: Path) -> None:
    """Needs the program: it is built by `cargo build --release`; a machine without it counts a skip."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    programs = [target / kind / "jointly" for kind in ("release", "debug")]
    program = next((str(path) for path in programs if path.exists()), shutil.which("jointly"))
    if program is None:
        pytest.skip("no jointly program is built")
    lines = [json.dumps({"query": query, "document": document}) for query, document in PAIRS]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    # The folder, for the program may be older than the model that is embedded here.
    command = [program, "score", str(tmp_path / "pairs.jsonl"), "--model", str(folder), "--no-packed-cache"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    # A float32 is printed with as many digits as tell it from every other.
    logits = np.array([np.float32(json.loads(line)["logit"]) for line in printed], np.float32)
    assert logits.tobytes() == model.score_pairs(PAIRS).logits.tobytes()


def test_bits_do_not_depend_on_how_pairs_come(model: CrossEncoder) -> None:
    expected = model.score_pairs(PAIRS).logits.tobytes()
    one = CrossEncoder(threads=1)
    for found in (
        model.score_pairs(queries=QUERY, documents=DOCUMENTS),
        model.score_pairs(queries=[QUERY] * len(DOCUMENTS), documents=iter(DOCUMENTS)),
        model.score_pairs(queries=QUERY, documents=np.array(DOCUMENTS)),
        model.score_pairs([list(pair) for pair in PAIRS]),
        one.score_pairs(PAIRS),
    ):
        assert found.logits.tobytes() == expected
    alone = [model.score_pairs([pair]).logits[0] for pair in PAIRS]
    assert np.array(alone, np.float32).tobytes() == expected


def test_many_pairs_in_chunks(model: CrossEncoder) -> None:
    """More than fit in one chunk: nothing is lost, nothing moves, and progress adds up."""
    texts = [f"{DOCUMENTS[i % 3]} {i % 7}" for i in range(300)]
    done: list[int] = []
    scores = model.score_pairs(queries=QUERY, documents=texts, progress=done.append)
    assert sum(done) == 300 and len(done) > 1
    last = model.score_pairs(queries=QUERY, documents=texts[-5:])
    assert scores.logits[-5:].tobytes() == last.logits.tobytes()


def test_rerank(model: CrossEncoder) -> None:
    hits = model.rerank(QUERY, DOCUMENTS)
    assert hits[0].index == 1
    assert sorted(hit.index for hit in hits) == list(range(len(DOCUMENTS)))
    assert all(above.logit >= below.logit for above, below in zip(hits, hits[1:]))
    assert model.rerank(QUERY, DOCUMENTS, 2) == hits[:2]
    assert rerank(QUERY, DOCUMENTS, 1) == hits[:1]
    assert model.rerank(QUERY, []) == []
    ties = model.rerank(QUERY, [DOCUMENTS[0], DOCUMENTS[1], DOCUMENTS[0]])
    assert [hit.index for hit in ties] == [1, 0, 2]


def test_long_documents(model: CrossEncoder) -> None:
    long = f"{'Rain fell on the roofs of the town. ' * 120}{DOCUMENTS[1]} {'Nobody was there. ' * 120}"
    cut, windows = (model.rerank(QUERY, [long], long=how)[0] for how in ("truncate", "windows"))  # type: ignore[arg-type]
    assert cut.truncated and cut.span is None
    assert not windows.truncated and windows.span is not None and windows.logit > cut.logit
    start, end = windows.span
    assert DOCUMENTS[1] in long[start:end]
    spans = model.score_pairs([(QUERY, long)], long="windows", max_windows=2).spans
    assert spans is not None and spans.shape == (1, 2)
    short = model.rerank(QUERY, [long], max_length=40)[0]
    assert short.truncated and short.tokens == 40
    with pytest.raises(InputError, match="max_length"):
        model.rerank(QUERY, [long], max_length=100_000)
    with pytest.raises(InputError, match="middle"):
        model.rerank(QUERY, [long], long="middle")  # type: ignore[arg-type]


def test_the_same_model_as_files(model: CrossEncoder, folder: Path, tmp_path: Path) -> None:
    cached = CrossEncoder(folder, packed_cache=tmp_path / "packed", threads=1, max_length=128)
    assert cached.info["packed_cache"] in ("written", "postponed", "mapped") and cached.max_length == 128
    assert cached.score_pairs(PAIRS).logits.tobytes() == model.score_pairs(PAIRS).logits.tobytes()
    int8 = CrossEncoder(folder, precision="int8")
    assert int8.info["precision"] == "int8"
    assert CrossEncoder(precision="auto").info["precision"] in ("f32", "bf16", "int8")


def test_a_receipt_that_does_not_hold(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    receipt = json.loads((copy / "receipt.json").read_text(encoding="utf-8"))
    receipt["pairs"][0]["logit"] += 1.0
    (copy / "receipt.json").write_text(json.dumps(receipt), encoding="utf-8")
    with pytest.raises(ModelError, match="receipt.json"):
        CrossEncoder(copy)
    assert CrossEncoder(copy, check_receipt=False).info["receipt"] == "not checked"


def test_arrow(model: CrossEncoder) -> None:
    pa = pytest.importorskip("pyarrow")
    expected = model.score_pairs(PAIRS).logits.tobytes()
    padded = ["before", *DOCUMENTS, "after"]
    columns = {
        "string": pa.array(DOCUMENTS),
        "large_string": pa.array(DOCUMENTS, pa.large_string()),
        "string_view": pa.array(DOCUMENTS, pa.string_view()),
        "dictionary": pa.array(DOCUMENTS).dictionary_encode(),
        "slice": pa.array(padded)[1:-1],
        "chunks": pa.chunked_array([DOCUMENTS[:2], [], DOCUMENTS[2:]]),
        "table": pa.table({"d": DOCUMENTS})["d"],
    }
    for name, column in columns.items():
        assert model.score_pairs(queries=QUERY, documents=column).logits.tobytes() == expected, name
        queries = pa.array([QUERY] * len(DOCUMENTS))
        assert model.score_pairs(queries=queries, documents=column).logits.tobytes() == expected, name

    class Foreign:
        def __arrow_c_array__(self, requested_schema: object | None = None) -> Any:
            return columns["string"].__arrow_c_array__(requested_schema)

    assert model.score_pairs(queries=QUERY, documents=Foreign()).logits.tobytes() == expected
    assert len(model.score_pairs(queries=QUERY, documents=pa.array([], pa.string()))) == 0
    table = model.score_pairs(PAIRS).to_arrow()
    assert table["logit"].to_numpy().tobytes() == expected and table.num_rows == len(PAIRS)
    with pytest.raises(InputError, match="document 1 is None") as raised:
        model.score_pairs(queries=QUERY, documents=pa.array(["a", None]))
    assert raised.value.index == 1
    with pytest.raises(InputError, match="int64; a column of strings"):
        model.score_pairs(queries=QUERY, documents=pa.array([1, 2]))
