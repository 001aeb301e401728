"""A model as the evaluators of sentence-transformers and MTEB want it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .cross_encoder import CrossEncoder
from .errors import InputError

__all__ = ["Evaluator"]


class Evaluator:
    """Wraps a :class:`CrossEncoder` for other people's evaluators.

    sentence-transformers::

        CrossEncoderRerankingEvaluator(samples)(Evaluator(model))

    MTEB::

        mteb.evaluate(Evaluator(model), tasks)

    What an evaluator of sentence-transformers would write into a model card is kept in :attr:`results`.
    """

    def __init__(self, model: CrossEncoder, *, name: str | None = None, revision: str | None = None) -> None:
        self.model = model
        self.name = name
        self.revision = revision
        self.results: dict[str, dict[str, Any]] = {}

    def predict(self, sentences: Any = None, inputs2: Any = None, **arguments: Any) -> Any:
        """As :meth:`CrossEncoder.predict`; or, with MTEB's two loaders of batches, the scores of their texts side by side."""
        if inputs2 is None and "inputs1" not in arguments:
            return self.model.predict(sentences, **arguments)
        queries = _texts(arguments.pop("inputs1", sentences))
        documents = _texts(inputs2)
        if len(queries) != len(documents):
            raise InputError(f"{len(queries)} queries for {len(documents)} documents")
        progress = bool(arguments.get("show_progress_bar"))
        return self.model.score_pairs(queries=queries, documents=documents, progress=progress).logits

    def rank(self, query: str, documents: Any, *arguments: Any, **named: Any) -> list[dict[str, Any]]:
        """As :meth:`CrossEncoder.rank`."""
        return self.model.rank(query, documents, *arguments, **named)

    @property
    def model_card_data(self) -> Evaluator:
        """Where sentence-transformers puts results."""
        return self

    def set_evaluation_metrics(self, evaluator: Any, metrics: dict[str, Any], epoch: int = 0, step: int = 0) -> None:
        """Called by evaluators of sentence-transformers."""
        name = getattr(evaluator, "name", "") or type(evaluator).__name__
        plain = {key: value.item() if isinstance(value, np.generic) else value for key, value in metrics.items()}
        self.results[name] = plain

    @property
    def mteb_model_meta(self) -> Any:
        """What MTEB files results under. The name has the form ``org/name``."""
        from mteb.models import ModelMeta

        info = self.model.info
        name = self.name or "jointly/" + self.model.source.rsplit("/", 1)[-1]
        overwrites = {"name": name, "max_tokens": info["max_length"], "n_parameters": info["parameters"]}
        if self.revision is not None:
            overwrites["revision"] = self.revision
        return ModelMeta.create_empty(overwrites=overwrites)


def _texts(batches: Iterable[Any]) -> list[str]:
    return [text for batch in batches for text in batch["text"]]
