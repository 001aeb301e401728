"""Jointly as a node postprocessor of LlamaIndex. Needs llama-index-core.

::

    from jointly import CrossEncoder
    from jointly.llama_index import JointlyRerank

    reranker = JointlyRerank(model=CrossEncoder(), top_n=5)
    reranker.postprocess_nodes(nodes, query_str=query)
"""

from __future__ import annotations

from typing import Any

from llama_index.core.bridge.pydantic import Field
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from .cross_encoder import CrossEncoder
from .errors import InputError

__all__ = ["JointlyRerank"]


class JointlyRerank(BaseNodePostprocessor):
    """Keeps the ``top_n`` best nodes (all, if None), best first, with the model's score; the nodes that come in are left as they are."""

    model: CrossEncoder = Field(default_factory=CrossEncoder, exclude=True)
    top_n: int | None = 10
    options: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of :meth:`CrossEncoder.rerank`: ``long``, ``instruction``."""

    @classmethod
    def class_name(cls) -> str:
        """As LlamaIndex names it."""
        return "JointlyRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise InputError("the query is missing: give query_str or query_bundle")
        texts = [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
        hits = self.model.rerank(query_bundle.query_str, texts, self.top_n, **self.options)
        return [NodeWithScore(node=nodes[hit.index].node, score=hit.score) for hit in hits]
