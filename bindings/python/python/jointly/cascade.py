"""Cascades: a cheap stage sees many documents, a strong one few. ``docs/cascades.md`` says which stage when.

A cascade is stages, or a file in TOML that has the same keys::

    cascade = Cascade([Rescore(model, keep=30), Distinct(), Mmr(keep=10, min_max=True)], ms=200)
    cascade = Cascade.load("cascade.toml")
    outcome = cascade.run(query, documents)
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, Union

from . import _arrow
from ._native import Cascade as NativeCascade
from ._native import Model
from ._options import load_options, score_options
from ._types import Long, Path, Texts
from .cross_encoder import CrossEncoder
from .errors import InputError, IoError

__all__ = [
    "Cascade",
    "Confirm",
    "Distinct",
    "Dpp",
    "Duo",
    "Hit",
    "Listwise",
    "Mmr",
    "OnePass",
    "Outcome",
    "Rescore",
    "Stage",
    "StageReport",
    "Xquad",
]

ModelOrName = Union[CrossEncoder, str]
"""A model, or the name of one: a folder, a bundle, a hub id, or ``default``."""


@dataclass(frozen=True, kw_only=True)
class _Stage:
    kind: ClassVar[str]
    name: str | None = None
    """What it is called in reports."""


@dataclass(frozen=True)
class Rescore(_Stage):
    """Reads the first ``depth``, sorts them, keeps the best."""

    kind: ClassVar[str] = "rescore"
    model: ModelOrName = "default"
    keep: int | None = None
    depth: int | None = None
    precision: str | None = None
    """Of a model that is given by name."""
    max_length: int | None = None
    instruction: str | None = None
    blend: Literal["model", "interpolate", "rrf"] | None = None
    weight: float | None = None
    early_stop: Literal["proven", "unchanged"] | None = None
    top_n: int | None = None
    patience: int | None = None
    min_probability: float | None = None
    min_score: float | None = None
    min_keep: int | None = None
    batch_pairs: int | None = None
    usd_per_million_tokens: float | None = None


@dataclass(frozen=True)
class Confirm(_Stage):
    """Screens everything with one model, confirms with the exact one what can be among the first ``top_n``."""

    kind: ClassVar[str] = "confirm"
    model: ModelOrName = "default"
    screen_model: ModelOrName | None = None
    screen_precision: str | None = None
    slack: float | None = None
    """How far from the cut documents are confirmed, in logits: ``jointly audit`` measures it."""
    same: Literal["order", "set"] | None = None
    """Whether the first are to be in the exact model's order, which is the default, or only the same, which costs less."""
    top_n: int | None = None
    confidence: float | None = None
    precision: str | None = None
    max_length: int | None = None
    instruction: str | None = None
    depth: int | None = None
    keep: int | None = None


@dataclass(frozen=True)
class Mmr(_Stage):
    """Maximal marginal relevance: relevant, and unlike what stands above it."""

    kind: ClassVar[str] = "mmr"
    keep: int = 10
    lambda_: float = 0.7
    """1 is relevance alone, 0 diversity alone."""
    similarity: str = "shingles"
    """``shingles``, ``shingles:N`` (words in a run), or ``bi:MODEL``."""
    min_max: bool = False
    """Takes any values as relevance, between their smallest and largest: for scores that are no probabilities."""


@dataclass(frozen=True)
class Dpp(_Stage):
    """A determinantal point process: as :class:`Mmr`, where a document can be a mixture of several."""

    kind: ClassVar[str] = "dpp"
    keep: int = 10
    lambda_: float = 0.7
    similarity: str = "shingles"
    min_max: bool = False


@dataclass(frozen=True)
class Xquad(_Stage):
    """Covers what the query may have meant: the sub-queries that a run is given."""

    kind: ClassVar[str] = "xquad"
    model: ModelOrName = "default"
    keep: int = 10
    lambda_: float = 0.7
    precision: str | None = None
    max_length: int | None = None
    instruction: str | None = None


@dataclass(frozen=True)
class Distinct(_Stage):
    """Puts near copies of what stands above them down."""

    kind: ClassVar[str] = "distinct"
    limit: float = 0.8
    similarity: str = "shingles"


@dataclass(frozen=True)
class Duo(_Stage):
    """Compares the first ``depth`` with each other, by a model that was made to read two documents: depth * (depth - 1) readings."""

    kind: ClassVar[str] = "duo"
    model: ModelOrName
    depth: int = 10
    aggregate: Literal["thurstone", "sum"] | None = None
    template: str | None = None
    """Where ``{a}`` and ``{b}`` stand in what the model reads."""
    max_chars: int | None = None
    """Of each document."""
    batch_pairs: int | None = None
    precision: str | None = None
    max_length: int | None = None
    instruction: str | None = None


@dataclass(frozen=True)
class OnePass(_Stage):
    """A model that reads the query and many documents in one sequence: a folder, a bundle or a hub id."""

    kind: ClassVar[str] = "one-pass"
    model: str
    keep: int | None = None
    depth: int | None = None
    block: int | None = None
    """Most documents of one sequence; scores depend on it."""
    max_query_tokens: int | None = None
    max_document_tokens: int | None = None
    precision: str | None = None
    max_length: int | None = None
    instruction: str | None = None


@dataclass(frozen=True)
class Listwise(_Stage):
    """A language model behind an endpoint that speaks the chat-completions protocol; ``docs/listwise.md`` has the methods."""

    kind: ClassVar[str] = "listwise"
    endpoint: str
    model: str
    method: Literal["sliding-window", "tournament", "setwise-heap", "setwise-bubble", "pairwise", "pairwise-bubble"] | None = None
    depth: int | None = None
    window: int | None = None
    stride: int | None = None
    passes: int | None = None
    group: int | None = None
    tournaments: int | None = None
    children: int | None = None
    top: int | None = None
    identifiers: Literal["numbers", "letters"] | None = None
    shuffles: int | None = None
    seed: int | None = None
    max_chars: int | None = None
    answer_tokens: int | None = None
    temperature: float | None = None
    api_key_env: str | None = None
    """The environment variable that has the key."""
    usd_per_million_input_tokens: float | None = None
    usd_per_million_output_tokens: float | None = None
    timeout_ms: int | None = None
    attempts: int | None = None
    concurrency: int | None = None
    max_usd_of_all: float | None = None
    """What all runs of this cascade may cost together."""
    max_tokens_of_all: int | None = None


Stage = Union[Rescore, Confirm, Mmr, Dpp, Xquad, Distinct, Duo, OnePass, Listwise]


@dataclass(frozen=True)
class Hit:
    """A document where the cascade put it."""

    index: int
    """Its place among the documents given."""
    stage: int | None
    """The number of the stage that placed it, from 0; None if it lies where it lay."""
    value: float | None
    """What that stage ordered by."""
    value_scale: str
    score: float | None
    """Of the last model that read it, as its authors give it."""
    logit: float | None
    probability: float | None
    truncated: bool | None
    span: tuple[int, int] | None


@dataclass(frozen=True)
class StageReport:
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
    """Why it ended early, or was not begun: ``deadline``, ``tokens``, ``money`` or ``cancelled``."""
    guarantee: str | None
    notes: list[str]


@dataclass(frozen=True)
class Outcome:
    """Every document once, best first, and how it came to be so."""

    hits: list[Hit]
    kept: int
    """How many hits, from the first, the last stage that ran has kept."""
    stages: list[StageReport]
    stop: str | None
    """What ended it early; the order is the one reached so far."""
    ms: float

    @property
    def best(self) -> list[Hit]:
        """The hits that were kept."""
        return self.hits[: self.kept]


@dataclass
class _Text:
    """The TOML of some stages, and the models that it names."""

    name: str
    text: str
    models: dict[str, CrossEncoder] = field(default_factory=dict)


class Cascade:
    """Stages one after the other; each reads what the one before it kept. No document is lost or doubled.

    :param ms, tokens, usd: what a query may cost. Then the order reached so far is the answer, and says so.
    :param long, stride, max_windows: as in :meth:`CrossEncoder.score_pairs`, for all models.
    :param load: how models that are given by name are loaded: arguments of :class:`CrossEncoder` but for ``precision``, which each
        stage says for itself.
    :raises InputError: for a stage that cannot be what it says.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        ms: float | None = None,
        tokens: int | None = None,
        usd: float | None = None,
        long: Long = "truncate",
        stride: int | None = None,
        max_windows: int | None = None,
        **load: Any,
    ) -> None:
        budget = {"ms": ms, "tokens": tokens, "usd": usd}
        self._make(_written(stages, budget), (long, stride, max_windows), load)

    @classmethod
    def load(cls, path: Path, **options: Any) -> Cascade:
        """Reads a file; ``options`` are those of the class but for stages and budget, which are in the file."""
        name = os.fspath(path)
        try:
            with open(name, encoding="utf-8") as file:
                text = file.read()
        except (OSError, UnicodeDecodeError) as error:
            raise IoError(f"{name}: {error}") from error
        return cls.parse(text, name=name, **options)

    @classmethod
    def parse(cls, text: str, *, name: str = "cascade", **options: Any) -> Cascade:
        """Reads the text of a file, which ``name`` is called in messages."""
        cascade = cls.__new__(cls)
        reading = (options.pop("long", "truncate"), options.pop("stride", None), options.pop("max_windows", None))
        cascade._make(_Text(name, text), reading, options)
        return cascade

    def _make(self, text: _Text, reading: tuple[str, int | None, int | None], load: dict[str, Any]) -> None:
        self._made_of = (text, reading, load)
        if "precision" in load:
            raise InputError("precision: each stage says its own; in a file, the key precision of the stage")
        try:
            options = load_options(**load)
        except TypeError as error:
            raise InputError(str(error)) from error
        models: dict[str, Model] = {name: model._native for name, model in text.models.items()}
        read = score_options(*reading, None, None)
        self._native = NativeCascade((text.name, text.text), models, (options, read))

    @property
    def names(self) -> list[str]:
        """The names of the stages."""
        return self._native.names()

    def run(
        self,
        query: str,
        documents: Texts,
        *,
        first_scores: Iterable[float] | None = None,
        sub_queries: Iterable[tuple[str, float]] = (),
        ms: float | None = None,
        tokens: int | None = None,
    ) -> Outcome:
        """Orders documents that come in the order of the first stage.

        :param first_scores: what the first stage gave each document, larger is better.
        :param sub_queries: what the query may have meant, each with a weight above 0.
        :param ms, tokens: what this query may cost, beyond what the cascade allows.
        """
        hits, kept, stages, stop, elapsed = self._native.run(
            query,
            _arrow.texts(documents, "document"),
            {
                "first_scores": None if first_scores is None else [float(score) for score in first_scores],
                "sub_queries": [(text, float(weight)) for text, weight in sub_queries],
                "ms": ms,
                "tokens": tokens,
            },
        )
        return Outcome([Hit(**hit) for hit in hits], kept, [StageReport(**stage) for stage in stages], stop, elapsed)

    def __repr__(self) -> str:
        return f"Cascade({' > '.join(self.names)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade, (type(self), *self._made_of)

    def __copy__(self) -> Cascade:
        return self  # nothing of it ever changes

    def __deepcopy__(self, memo: dict[int, Any]) -> Cascade:
        return self


def _remade(kind: type[Cascade], *made_of: Any) -> Cascade:
    cascade = kind.__new__(kind)
    cascade._make(*made_of)
    return cascade


def _written(stages: Sequence[Stage], budget: dict[str, Any]) -> _Text:
    """Stages as TOML: what is right in a stage is then said in one place, in Rust."""
    written = _Text("cascade", "")
    lines = [f"{key} = {_value(value)}" for key, value in budget.items() if value is not None]
    if lines:
        lines.insert(0, "[budget]")
    for number, stage in enumerate(stages, 1):
        if not isinstance(stage, _Stage):
            raise InputError(f"stage {number} is {type(stage).__name__}; a stage is needed", number - 1)
        lines += ["[[stage]]", f"kind = {_value(stage.kind)}"]
        keys = {of.name.rstrip("_"): getattr(stage, of.name) for of in fields(stage)}
        if keys["name"] is None:
            keys["name"] = _name(stage)
        for key, value in keys.items():
            if isinstance(value, CrossEncoder):
                value = _registered(value, written.models)
            if value is not None:
                lines.append(f"{key} = {_value(value)}")
    written.text = "\n".join(lines)
    return written


def _registered(model: CrossEncoder, models: dict[str, CrossEncoder]) -> str:
    """The name of a model that is given as an object. No path, hub id or `default` begins so."""
    for name, known in models.items():
        if known is model:
            return name
    name = f"#{len(models)}"
    models[name] = model
    return name


def _name(stage: _Stage) -> str | None:
    """What a stage of objects is called in reports: as one of names would be."""

    def of(model: CrossEncoder) -> str:
        name, precision = model.source.rsplit("/", 1)[-1], model.info["precision"]
        return name if precision == "f32" else f"{name}@{precision}"

    if isinstance(stage, Rescore) and isinstance(stage.model, CrossEncoder):
        return of(stage.model)
    if isinstance(stage, Duo) and isinstance(stage.model, CrossEncoder):
        return f"duo {of(stage.model)}"
    if isinstance(stage, Confirm) and isinstance(stage.model, CrossEncoder) and isinstance(stage.screen_model, CrossEncoder):
        return f"{of(stage.screen_model)} > {of(stage.model)}"
    return None


def _value(value: Any) -> str:
    # TOML and JSON write these alike, but for the sign DEL.
    if isinstance(value, (bool, int, float, str)):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    raise InputError(f"{value!r}: a stage has numbers, texts and models")
