"""With the packages themselves. They are large and bring torch: `OTHERS=1 ./test.sh` installs and runs them."""

from __future__ import annotations

import importlib

import pytest

from jointly import CrossEncoder, Evaluator

from ..conftest import DOCUMENTS, QUERY


def test_langchain(model: CrossEncoder) -> None:
    documents = importlib.import_module("langchain_core.documents")
    from jointly.langchain import JointlyRerank

    found = [documents.Document(page_content=text, metadata={"n": n}) for n, text in enumerate(DOCUMENTS)]
    ranked = JointlyRerank(model=model, top_n=2).compress_documents(found, QUERY)
    hits = model.rerank(QUERY, DOCUMENTS, 2)
    assert [document.metadata["n"] for document in ranked] == [hit.index for hit in hits]
    assert [document.metadata["relevance_score"] for document in ranked] == [hit.score for hit in hits]
    assert "relevance_score" not in found[1].metadata
    assert JointlyRerank(model=model).compress_documents([], QUERY) == []


def test_llama_index(model: CrossEncoder) -> None:
    schema = importlib.import_module("llama_index.core.schema")
    from jointly.llama_index import JointlyRerank

    nodes = [schema.NodeWithScore(node=schema.TextNode(text=text), score=0.1) for text in DOCUMENTS]
    ranked = JointlyRerank(model=model, top_n=2).postprocess_nodes(nodes, query_str=QUERY)
    hits = model.rerank(QUERY, DOCUMENTS, 2)
    assert [node.node.node_id for node in ranked] == [nodes[hit.index].node.node_id for hit in hits]
    assert [node.score for node in ranked] == [hit.score for hit in hits]
    assert nodes[0].score == 0.1
    with pytest.raises(ValueError, match="the query is missing"):
        JointlyRerank(model=model).postprocess_nodes(nodes)


def test_sentence_transformers(model: CrossEncoder) -> None:
    """The same folder in both; their evaluator with our model."""
    theirs = importlib.import_module("sentence_transformers.cross_encoder")
    evaluation = importlib.import_module("sentence_transformers.cross_encoder.evaluation")
    import numpy as np

    from ..conftest import ROOT

    reference = theirs.CrossEncoder(str(ROOT / "models" / "default"), device="cpu")
    pairs = [(QUERY, document) for document in DOCUMENTS]
    assert np.abs(reference.predict(pairs) - model.predict(pairs)).max() < 1e-3
    assert type(reference.predict(pairs[0])) is type(model.predict(pairs[0]))
    rows, ours = reference.rank(QUERY, DOCUMENTS, return_documents=True), model.rank(QUERY, DOCUMENTS, return_documents=True)
    assert [row["corpus_id"] for row in rows] == [row["corpus_id"] for row in ours]
    assert [set(row) for row in rows] == [set(row) for row in ours]
    tensor = model.predict(pairs, convert_to_tensor=True)
    assert type(tensor) is type(reference.predict(pairs, convert_to_tensor=True)) and tensor.shape == (len(pairs),)
    samples = [{"query": QUERY, "positive": [DOCUMENTS[1]], "documents": DOCUMENTS}]
    evaluator = evaluation.CrossEncoderRerankingEvaluator(samples, name="tiny", write_csv=False)
    adapter = Evaluator(model)
    assert evaluator(adapter)["tiny_ndcg@10"] == 1.0
    assert adapter.results["tiny"]


def test_mteb(model: CrossEncoder) -> None:
    protocols = importlib.import_module("mteb.models.models_protocols")
    adapter = Evaluator(model)
    assert isinstance(adapter, protocols.CrossEncoderProtocol)
    assert adapter.mteb_model_meta.name == "jointly/default"
