"""What goes between Python and Rust, and names for types."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, Protocol, TypedDict

Precision = Literal["f32", "bf16", "int8", "auto"]
Long = Literal["truncate", "windows"]
Path = str | os.PathLike[str]
Progress = Callable[[int], object]


class ArrowArray(Protocol):
    """Anything that gives itself as one Arrow array."""

    def __arrow_c_array__(self, requested_schema: object | None = None) -> Any: ...


class ArrowStream(Protocol):
    """Anything that gives itself as Arrow arrays, one after the other."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> Any: ...


Texts = Iterable[str] | ArrowArray | ArrowStream
Pairs = Iterable[Sequence[str]]


class LoadOptions(TypedDict):
    """How to load a model."""

    threads: int
    precision: str
    max_length: int | None
    check_receipt: bool
    calibration: str | None
    without_calibration: bool
    packed_cache: str | None
    revision: str | None
    token: str | None
    cache_folder: str | None
    local_files_only: bool


class ScoreOptions(TypedDict):
    """How to score."""

    long: str
    stride: int | None
    max_windows: int | None
    max_length: int | None
    instruction: str | None


class ModelInfo(TypedDict):
    """What a model is."""

    source: str
    architecture: str
    head: str
    template: str
    score_map: str
    score_scale: str
    hidden_size: int
    layers: int
    vocab_size: int
    parameters: int
    max_length: int
    licence: str | None
    receipt: str
    packed_cache: str
    calibrated: bool
    precision: str
    isa: str
    threads: int


class Request(TypedDict):
    """What a run of a cascade is given beside query and documents."""

    first_scores: list[float] | None
    sub_queries: list[tuple[str, float]]
    ms: float | None
    tokens: int | None


class HitRow(TypedDict):
    """A document where a cascade put it."""

    index: int
    stage: int | None
    value: float | None
    value_scale: str
    score: float | None
    logit: float | None
    probability: float | None
    truncated: bool | None
    span: tuple[int, int] | None


class StageRow(TypedDict):
    """What a stage did."""

    name: str
    incoming: int
    read: int
    kept: int
    ms: float
    pairs: int
    tokens: int
    usd: float
    stop: str | None
    guarantee: str | None
    notes: list[str]
