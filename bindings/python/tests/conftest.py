"""The embedded model, loaded once, and what its receipt pins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jointly import CrossEncoder

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def model() -> CrossEncoder:
    return CrossEncoder()


@pytest.fixture(scope="session")
def folder() -> Path:
    """The same model as files."""
    return ROOT / "models" / "default"


@pytest.fixture(scope="session")
def pinned(folder: Path) -> list[dict[str, Any]]:
    pairs: list[dict[str, Any]] = json.loads((folder / "receipt.json").read_text(encoding="utf-8"))["pairs"]
    assert len(pairs) > 3
    return pairs


QUERY = "how strong is the bite of a jaguar"
DOCUMENTS = [
    "Tomatoes do best in full sun.",
    "A jaguar can bite through a turtle's shell.",
    "The Jaguar E-Type reached 150 miles an hour.",
    "",
    "Größe und Gewicht: 猫は大きい.",
]
