"""Jointly as a document compressor of LangChain. Needs langchain-core.

::

    from jointly import CrossEncoder
    from jointly.langchain import JointlyRerank

    compressor = JointlyRerank(model=CrossEncoder(), top_n=5)
    compressor.compress_documents(documents, query)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, Field

from .cross_encoder import CrossEncoder

__all__ = ["JointlyRerank"]


class JointlyRerank(BaseDocumentCompressor):
    """Keeps the ``top_n`` best documents (all, if None), best first, each a copy with ``relevance_score`` in its metadata."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model: CrossEncoder = Field(default_factory=CrossEncoder)
    top_n: int | None = 10
    options: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of :meth:`CrossEncoder.rerank`: ``long``, ``instruction``."""

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """The best documents for a query."""
        hits = self.model.rerank(query, [document.page_content for document in documents], self.top_n, **self.options)
        ranked = []
        for hit in hits:
            document = documents[hit.index].model_copy(deep=True)
            document.metadata["relevance_score"] = hit.score
            ranked.append(document)
        return ranked
