"""Pairs on disk, and what one process says of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jointly import CrossEncoder

from ..conftest import DOCUMENTS, ROOT

PAIRS = 1000
FILES = 4
EXAMPLES = ROOT / "bindings" / "python" / "examples"
# Workers are processes of their own, which inherit the environment: they find the examples, and score_spark by its name.
sys.path.insert(0, str(EXAMPLES))

TEXTS = [text for text in DOCUMENTS if text]


def table(first: int, rows: int) -> pa.Table:
    numbers = range(first, first + rows)
    return pa.table({
        "id": pa.array(numbers, pa.int64()),
        "query": [f"what is said of item {number % 97}" for number in numbers],
        "document": [f"Item {number % 89}. {TEXTS[number % len(TEXTS)]}" for number in numbers],
    })


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    for number in range(FILES):
        pq.write_table(table(number * PAIRS // FILES, PAIRS // FILES), folder / f"{number}.parquet")
    return folder


@pytest.fixture(scope="session")
def expected(model: CrossEncoder) -> list[float]:
    """The logits by id, of one process."""
    rows = table(0, PAIRS)
    return [float(logit) for logit in model.score_pairs(queries=rows["query"], documents=rows["document"]).logits]
