"""Jointly reads a query and a document together and says how relevant the document is.

::

    from jointly import CrossEncoder

    model = CrossEncoder()
    for hit in model.rerank("how strong is the bite of a jaguar", documents, top_n=3):
        print(hit.score, documents[hit.index])

:mod:`jointly.cascade` has the stages of cascades, :mod:`jointly.metrics` metrics, :mod:`jointly.evaluator` what the evaluators of
sentence-transformers and MTEB accept, :mod:`jointly.langchain` and :mod:`jointly.llama_index` what those take.
"""

from __future__ import annotations

from . import metrics
from ._native import __version__
from ._types import Texts
from .cascade import Cascade, Confirm, Distinct, Dpp, Duo, Listwise, Mmr, OnePass, Outcome, Rescore, Xquad
from .cross_encoder import CrossEncoder, Hit, Scores
from .errors import Error, ForkError, InputError, InternalError, IoError, ModelError
from .evaluator import Evaluator
from .metrics import audit, audit_scores, evaluate, mean_average_precision, mrr, ndcg_at_k, recall_at_k

__all__ = [
    "Cascade",
    "Confirm",
    "CrossEncoder",
    "Distinct",
    "Dpp",
    "Duo",
    "Error",
    "Evaluator",
    "ForkError",
    "Hit",
    "InputError",
    "InternalError",
    "IoError",
    "Listwise",
    "Mmr",
    "ModelError",
    "OnePass",
    "Outcome",
    "Rescore",
    "Scores",
    "Xquad",
    "__version__",
    "audit",
    "audit_scores",
    "evaluate",
    "mean_average_precision",
    "metrics",
    "mrr",
    "ndcg_at_k",
    "recall_at_k",
    "rerank",
]


def rerank(
    query: str, documents: Texts, top_n: int | None = None, *, model: CrossEncoder | None = None
) -> list[Hit]:
    """The best documents for a query, by ``model``, or by the model that is in this package, which is loaded at the first call."""
    return (model or _default_model()).rerank(query, documents, top_n)


_default: CrossEncoder | None = None


def _default_model() -> CrossEncoder:
    global _default
    if _default is None:
        _default = CrossEncoder()
    return _default
