"""The checks of run.py: what each client makes of the answers of a server. Not run by itself."""

import argparse
import asyncio
import importlib.metadata
import json
import time
import traceback
import urllib.error
import urllib.request

QUERY = "Which planet is known as the Red Planet?"
DOCUMENTS = [
    "Venus is often called Earth's twin because of its similar size and proximity.",
    "Mars, known for its reddish appearance, is often referred to as the Red Planet.",
    "Jupiter, the largest planet in our solar system, has a prominent red spot.",
    "Saturn, famous for its rings, is sometimes mistaken for the Red Planet.",
]

CHECKS = []  # (name, packages, function)
SKIPPED = []


def check(name, *packages):
    """Registers a check of this name that needs these packages."""

    def register(function):
        CHECKS.append((name, packages, function))
        return function

    return register


class Servers:
    """The base URLs, and what the model says of QUERY and DOCUMENTS, by index."""

    def __init__(self, urls):
        self.open, self.closed, self.full = urls
        body = {"model": "rerank-v3.5", "query": QUERY, "documents": DOCUMENTS}
        answer = post(f"{self.open}/cohere/v2/rerank", body)
        self.scores = {hit["index"]: hit["relevance_score"] for hit in answer["results"]}
        self.order = [hit["index"] for hit in answer["results"]]
        assert sorted(self.order) == [0, 1, 2, 3], answer
        assert all(0 <= score <= 1 for score in self.scores.values()), answer


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def ranked(servers, pairs, count=4):
    """(index, score) pairs, best first: the order and the scores that every other client sees."""
    pairs = list(pairs)
    assert [index for index, _ in pairs] == servers.order[:count], pairs
    for index, score in pairs:
        assert abs(score - servers.scores[index]) < 1e-6, (index, score, servers.scores)


def raises(kind, function, *parts):
    """That a call raises, and that the message holds these parts."""
    try:
        function()
    except kind as error:
        text = f"{error} {getattr(error, 'body', '')}"
        for part in parts:
            assert part in text, f"{part!r} is not in {text}"
        return error
    raise AssertionError(f"{kind} was not raised")


def retried(function, seconds=0.5):
    """That a call succeeds after it has waited: the server refused it at first."""
    start = time.monotonic()
    answer = function()
    assert time.monotonic() - start >= seconds, "there was nothing to wait for"
    return answer


def spend(servers, path, key, body, header="Authorization", prefix="Bearer "):
    """Uses up the quota of a key: every bit of it, until the server refuses."""
    for _ in range(200):
        headers = {"Content-Type": "application/json", header: prefix + key}
        request = urllib.request.Request(f"{servers.closed}{path}", json.dumps(body).encode(), headers)
        try:
            urllib.request.urlopen(request, timeout=60).close()
        except urllib.error.HTTPError as error:
            assert error.code == 429, error
            assert int(error.headers["Retry-After"]) >= 1, error.headers
            return
    raise AssertionError("the quota has no end")


SPEND = ("/cohere/v2/rerank", {"model": "rerank-v3.5", "query": "q", "documents": ["d"]})


def use_up(servers, key):
    spend(servers, SPEND[0], key, SPEND[1])


# --- cohere ----------------------------------------------------------------------------------------------------------


@check("cohere-v2", "cohere")
def cohere_v2(servers):
    import cohere

    client = cohere.ClientV2("none", base_url=f"{servers.open}/cohere")
    call = lambda client=client, **more: client.rerank(
        **{"model": "rerank-v3.5", "query": QUERY, "documents": DOCUMENTS, **more}
    )
    answer = call()
    ranked(servers, ((hit.index, hit.relevance_score) for hit in answer.results))
    assert answer.id and answer.meta.api_version.version == "2" and answer.meta.billed_units.search_units == 1
    answer = call(top_n=2, max_tokens_per_doc=256, priority=5)
    ranked(servers, ((hit.index, hit.relevance_score) for hit in answer.results), 2)
    assert len(call(top_n=100).results) == 4
    # Without a prefix, too.
    answer = call(cohere.ClientV2("none", base_url=servers.open))
    ranked(servers, ((hit.index, hit.relevance_score) for hit in answer.results))
    no_retries = {"max_retries": 0}
    raises(cohere.NotFoundError, lambda: call(model="nothing"), "nothing")
    raises(cohere.BadRequestError, lambda: call(query=" "), "query must not be empty")
    raises(cohere.BadRequestError, lambda: call(documents=[]), "list of documents must not be empty")
    raises(cohere.BadRequestError, lambda: call(documents=["a", ""]), "document at index 1 cannot be empty")
    raises(cohere.BadRequestError, lambda: call(top_n=0), "top_n")
    raises(cohere.BadRequestError, lambda: call(priority=1000), "priority")
    raises(cohere.BadRequestError, lambda: call(documents=[{"text": "a"}]), "documents[0]")
    closed = cohere.ClientV2("wrong", base_url=f"{servers.closed}/cohere")
    raises(cohere.UnauthorizedError, lambda: call(closed))
    closed = cohere.ClientV2("good-key", base_url=f"{servers.closed}/cohere")
    ranked(servers, ((hit.index, hit.relevance_score) for hit in call(closed).results))
    use_up(servers, "spent-key")
    spent = cohere.ClientV2("spent-key", base_url=f"{servers.closed}/cohere")
    error = raises(cohere.TooManyRequestsError, lambda: call(spent, request_options=no_retries), "limit")
    assert int(error.headers["retry-after"]) > 0
    full = cohere.ClientV2("none", base_url=f"{servers.full}/cohere")
    error = raises(cohere.ServiceUnavailableError, lambda: call(full, request_options=no_retries))
    assert int(error.headers["retry-after"]) > 0
    use_up(servers, "slow-key")
    slow = cohere.ClientV2("slow-key", base_url=f"{servers.closed}/cohere")
    retried(lambda: call(slow))


@check("cohere-v1", "cohere")
def cohere_v1(servers):
    import cohere

    for base in [f"{servers.open}/cohere", servers.open]:
        client = cohere.Client("none", base_url=base)
        call = lambda client=client, **more: client.rerank(**{"query": QUERY, "documents": DOCUMENTS, **more})
        answer = call()
        ranked(servers, ((hit.index, hit.relevance_score) for hit in answer.results))
        assert answer.meta.api_version.version == "1" and answer.results[0].document is None
        answer = call(model="rerank-v3.5", top_n=1, return_documents=True, max_chunks_per_doc=2)
        assert answer.results[0].document.text == DOCUMENTS[servers.order[0]]
        objects = [{"title": "t", "text": text} for text in DOCUMENTS]
        answer = call(documents=objects, return_documents=True)
        ranked(servers, ((hit.index, hit.relevance_score) for hit in answer.results))
        assert answer.results[0].document.title == "t"
        answer = call(documents=objects, rank_fields=["title", "text"])
        assert len(answer.results) == 4
        raises(cohere.NotFoundError, lambda: call(model="nothing"), "nothing")
        raises(cohere.BadRequestError, lambda: call(documents=[]), "must not be empty")
        raises(cohere.BadRequestError, lambda: call(documents=[{"title": "t"}]), "documents[0]")
    closed = cohere.Client("wrong", base_url=f"{servers.closed}/cohere")
    raises(cohere.UnauthorizedError, lambda: call(closed))
    full = cohere.Client("none", base_url=f"{servers.full}/cohere")
    raises(cohere.ServiceUnavailableError, lambda: call(full, request_options={"max_retries": 0}))


@check("cohere-async", "cohere")
def cohere_async(servers):
    import cohere

    async def run():
        async with cohere.AsyncClientV2("none", base_url=f"{servers.open}/cohere") as client:
            calls = [client.rerank(model="rerank-v3.5", query=QUERY, documents=DOCUMENTS) for _ in range(16)]
            return await asyncio.gather(*calls)

    for answer in asyncio.run(run()):
        ranked(servers, ((hit.index, hit.relevance_score) for hit in answer.results))


@check("langchain-cohere", "langchain-cohere", "cohere")
def langchain_cohere(servers):
    import cohere
    from langchain_cohere import CohereRerank
    from langchain_core.documents import Document

    make = lambda base, key="none", **more: CohereRerank(
        **{"model": "rerank-v3.5", "cohere_api_key": key, "base_url": f"{base}/cohere", "top_n": 4, **more}
    )
    documents = [Document(text, metadata={"n": n}) for n, text in enumerate(DOCUMENTS)]
    best = make(servers.open).compress_documents(documents, QUERY)
    ranked(servers, ((document.metadata["n"], document.metadata["relevance_score"]) for document in best))
    hits = make(servers.open).rerank(documents, QUERY, top_n=2)
    ranked(servers, ((hit["index"], hit["relevance_score"]) for hit in hits), 2)
    hits = make(servers.open).rerank([{"text": text, "n": 1} for text in DOCUMENTS], QUERY, rank_fields=["text"])
    assert len(hits) == 4
    raises(cohere.NotFoundError, lambda: make(servers.open, model="nothing").rerank(DOCUMENTS, QUERY))
    raises(cohere.UnauthorizedError, lambda: make(servers.closed, "wrong").rerank(DOCUMENTS, QUERY))
    raises(cohere.BadRequestError, lambda: make(servers.open).rerank(DOCUMENTS, " "), "query")
    use_up(servers, "slow-key")
    retried(lambda: make(servers.closed, "slow-key").rerank(DOCUMENTS, QUERY))


@check("llama-index-cohere", "llama-index-postprocessor-cohere-rerank", "cohere")
def llama_index_cohere(servers):
    import cohere
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
    from llama_index.postprocessor.cohere_rerank import CohereRerank

    nodes = lambda: [NodeWithScore(node=TextNode(text=text, id_=str(n))) for n, text in enumerate(DOCUMENTS)]
    make = lambda base, key="none", **more: CohereRerank(
        **{"api_key": key, "top_n": 4, "model": "rerank-v3.5", "base_url": f"{base}/cohere", "max_retries": 1, **more}
    )
    run = lambda ranker, query=QUERY: ranker.postprocess_nodes(nodes(), QueryBundle(query))
    ranked(servers, ((int(node.node.node_id), node.score) for node in run(make(servers.open))))
    raises(cohere.NotFoundError, lambda: run(make(servers.open, model="nothing")))
    raises(cohere.UnauthorizedError, lambda: run(make(servers.closed, "wrong")))
    raises(cohere.BadRequestError, lambda: run(make(servers.open), " "))
    use_up(servers, "slow-key")
    retried(lambda: run(make(servers.closed, "slow-key")))


# --- voyage ----------------------------------------------------------------------------------------------------------


@check("voyageai", "voyageai")
def voyage(servers):
    import voyageai
    from voyageai import error

    make = lambda base, key="none", **more: voyageai.Client(api_key=key, base_url=f"{base}/voyage/v1", **more)
    call = lambda client=make(servers.open), **more: client.rerank(
        **{"query": QUERY, "documents": DOCUMENTS, "model": "rerank-2.5", **more}
    )
    answer = call()
    ranked(servers, ((hit.index, hit.relevance_score) for hit in answer.results))
    assert answer.total_tokens > 0 and answer.results[0].document == DOCUMENTS[servers.order[0]]
    ranked(servers, ((hit.index, hit.relevance_score) for hit in call(top_k=2).results), 2)
    assert len(call(top_k=2, truncation=False).results) == 2
    # Without a prefix, too.
    answer = call(voyageai.Client(api_key="none", base_url=f"{servers.open}/v1"), model="bge-reranker-v2-m3")
    ranked(servers, ((hit.index, hit.relevance_score) for hit in answer.results))
    raises(error.InvalidRequestError, lambda: call(model="nothing"), "nothing")
    raises(error.InvalidRequestError, lambda: call(query=""), "query")
    raises(error.InvalidRequestError, lambda: call(documents=[]), "documents")
    raises(error.InvalidRequestError, lambda: call(documents=["a", ""]), "documents[1]")
    raises(error.InvalidRequestError, lambda: call(top_k=0), "top_k")
    raises(error.InvalidRequestError, lambda: call(documents=["word " * 3000], truncation=False))
    assert len(call(documents=["word " * 3000]).results) == 1
    raises(error.AuthenticationError, lambda: call(make(servers.closed, "wrong")))
    use_up(servers, "spent-key")
    refused = raises(error.RateLimitError, lambda: call(make(servers.closed, "spent-key")))
    assert int(refused.headers["retry-after"]) > 0
    raises(error.ServiceUnavailableError, lambda: call(make(servers.full)))
    use_up(servers, "slow-key")
    # It backs off by itself and does not look at Retry-After.
    retried(lambda: call(make(servers.closed, "slow-key", max_retries=6)))

    async def run():
        client = voyageai.AsyncClient(api_key="none", base_url=f"{servers.open}/voyage/v1")
        return await client.rerank(query=QUERY, documents=DOCUMENTS, model="rerank-2.5")

    ranked(servers, ((hit.index, hit.relevance_score) for hit in asyncio.run(run()).results))


@check("langchain-voyageai", "langchain-voyageai", "voyageai")
def langchain_voyage(servers):
    from langchain_core.documents import Document
    from langchain_voyageai import VoyageAIRerank
    from voyageai import error

    make = lambda base, key="none", **more: VoyageAIRerank(
        **{"api_key": key, "base_url": f"{base}/voyage/v1", "model": "rerank-2.5", **more}
    )
    documents = [Document(text, metadata={"n": n}) for n, text in enumerate(DOCUMENTS)]
    best = make(servers.open).compress_documents(documents, QUERY)
    ranked(servers, ((document.metadata["n"], document.metadata["relevance_score"]) for document in best))
    assert len(make(servers.open, top_k=2).compress_documents(documents, QUERY)) == 2
    raises(error.InvalidRequestError, lambda: make(servers.open, model="nothing").compress_documents(documents, QUERY))
    raises(error.AuthenticationError, lambda: make(servers.closed, "wrong").compress_documents(documents, QUERY))
    raises(error.ServiceUnavailableError, lambda: make(servers.full).compress_documents(documents, QUERY))


# --- zeroentropy, mixedbread -----------------------------------------------------------------------------------------


@check("zeroentropy", "zeroentropy")
def zeroentropy_(servers):
    import zeroentropy

    make = lambda base, key="none", **more: zeroentropy.ZeroEntropy(
        api_key=key, base_url=f"{base}/zeroentropy/v1", **{"max_retries": 0, **more}
    )
    call = lambda client=make(servers.open), **more: client.models.rerank(
        **{"query": QUERY, "documents": DOCUMENTS, "model": "zerank-2", **more}
    )
    answer = call()
    ranked(servers, ((hit.index, hit.relevance_score) for hit in answer.results))
    size = sum(len(text.encode()) for text in [QUERY, *DOCUMENTS])
    assert answer.total_bytes == size and answer.total_tokens > 0, answer
    assert answer.actual_latency_mode == "fast" and 0 < answer.inference_latency <= answer.e2e_latency, answer
    ranked(servers, ((hit.index, hit.relevance_score) for hit in call(top_n=2, latency="fast").results), 2)
    assert call(latency="slow").actual_latency_mode == "slow"
    # Without a prefix, too: nobody shares this path.
    plain = zeroentropy.ZeroEntropy(api_key="none", base_url=f"{servers.open}/v1")
    ranked(servers, ((hit.index, hit.relevance_score) for hit in call(plain).results))
    raises(zeroentropy.NotFoundError, lambda: call(model="nothing"), "nothing")
    raises(zeroentropy.UnprocessableEntityError, lambda: call(latency="never"), "latency")
    raises(zeroentropy.UnprocessableEntityError, lambda: call(top_n=0), "top_n")
    raises(zeroentropy.BadRequestError, lambda: call(documents=[]), "documents")
    raises(zeroentropy.BadRequestError, lambda: call(query=""), "query")
    raises(zeroentropy.AuthenticationError, lambda: call(make(servers.closed, "wrong")))
    use_up(servers, "spent-key")
    refused = raises(zeroentropy.RateLimitError, lambda: call(make(servers.closed, "spent-key")))
    assert int(refused.response.headers["retry-after"]) > 0
    raises(zeroentropy.RateLimitError, lambda: call(make(servers.full)))
    use_up(servers, "slow-key")
    retried(lambda: call(make(servers.closed, "slow-key", max_retries=3)))


@check("mixedbread", "mixedbread")
def mixedbread_(servers):
    import mixedbread

    make = lambda base, key="none", **more: mixedbread.Mixedbread(
        api_key=key, base_url=f"{base}/mixedbread", **{"max_retries": 0, **more}
    )
    call = lambda client=make(servers.open), **more: client.rerank(**{"query": QUERY, "input": DOCUMENTS, **more})
    answer = call()
    ranked(servers, ((hit.index, hit.score) for hit in answer.data))
    assert answer.object == "list" and answer.top_k == 4 and answer.return_input is False and answer.data[0].input is None
    assert answer.usage.total_tokens > 0 and answer.data[0].object == "rank_result"
    answer = call(model="mixedbread-ai/mxbai-rerank-large-v2", top_k=2, return_input=True)
    ranked(servers, ((hit.index, hit.score) for hit in answer.data), 2)
    assert answer.data[0].input == DOCUMENTS[servers.order[0]] and answer.return_input is True
    objects = [{"title": "t", "text": text} for text in DOCUMENTS]
    answer = call(input=objects, rank_fields=["text"], return_input=True)
    ranked(servers, ((hit.index, hit.score) for hit in answer.data))
    assert answer.data[0].input == objects[servers.order[0]]
    plain = mixedbread.Mixedbread(api_key="none", base_url=servers.open)
    ranked(servers, ((hit.index, hit.score) for hit in call(plain).data))
    raises(mixedbread.NotFoundError, lambda: call(model="nothing"), "nothing")
    raises(mixedbread.UnprocessableEntityError, lambda: call(query=""), "query")
    raises(mixedbread.UnprocessableEntityError, lambda: call(input=[]), "input")
    raises(mixedbread.UnprocessableEntityError, lambda: call(top_k=-1), "top_k")
    raises(mixedbread.UnprocessableEntityError, lambda: call(rewrite_query=True), "rewrite_query")
    raises(mixedbread.AuthenticationError, lambda: call(make(servers.closed, "wrong")))
    use_up(servers, "spent-key")
    raises(mixedbread.RateLimitError, lambda: call(make(servers.closed, "spent-key")))
    raises(mixedbread.InternalServerError, lambda: call(make(servers.full)))  # its name for every 5xx
    use_up(servers, "slow-key")
    retried(lambda: call(make(servers.closed, "slow-key", max_retries=3)))


# --- clients that look at no status ----------------------------------------------------------------------------------


@check("llama-index-tei", "llama-index-postprocessor-tei-rerank")
def llama_index_tei(servers):
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
    from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

    nodes = lambda: [NodeWithScore(node=TextNode(text=text, id_=str(n))) for n, text in enumerate(DOCUMENTS)]
    run = lambda ranker, query=QUERY: ranker.postprocess_nodes(nodes(), QueryBundle(query))
    for base in [f"{servers.open}/tei", servers.open]:
        best = run(TextEmbeddingInference(base_url=base, top_n=4))
        ranked(servers, ((int(node.node.node_id), node.score) for node in best))
    ranker = TextEmbeddingInference(base_url=f"{servers.closed}/tei", auth_token="Bearer good-key")
    ranked(servers, ((int(node.node.node_id), node.score) for node in run(ranker)))
    # It looks at no status. An error body is not as long as the nodes; an empty one, of a 401, is no JSON.
    raises(AssertionError, lambda: run(TextEmbeddingInference(base_url=f"{servers.full}/tei")))
    raises(AssertionError, lambda: run(TextEmbeddingInference(base_url=f"{servers.open}/tei"), ""))
    wrong = TextEmbeddingInference(base_url=f"{servers.closed}/tei", auth_token="Bearer wrong")
    raises(json.JSONDecodeError, lambda: run(wrong))


@check("llama-index-jinaai", "llama-index-postprocessor-jinaai-rerank")
def llama_index_jina(servers):
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
    from llama_index.postprocessor.jinaai_rerank import JinaRerank

    nodes = lambda: [NodeWithScore(node=TextNode(text=text, id_=str(n))) for n, text in enumerate(DOCUMENTS)]
    make = lambda base, key="none", **more: JinaRerank(
        **{"api_key": key, "top_n": 4, "model": "jina-reranker-v3", "base_url": base, **more}
    )
    run = lambda ranker, query=QUERY: ranker.postprocess_nodes(nodes(), QueryBundle(query))
    for base in [f"{servers.open}/jina/v1", f"{servers.open}/v1"]:
        ranked(servers, ((int(node.node.node_id), node.score) for node in run(make(base))))
    # It raises with `detail`, whatever the status.
    raises(RuntimeError, lambda: run(make(f"{servers.open}/jina/v1", model="nothing")), "nothing")
    raises(RuntimeError, lambda: run(make(f"{servers.open}/jina/v1"), " "), "query")
    raises(RuntimeError, lambda: run(make(f"{servers.closed}/jina/v1", "wrong")), "key")
    use_up(servers, "spent-key")
    raises(RuntimeError, lambda: run(make(f"{servers.closed}/jina/v1", "spent-key")), "quota")
    raises(RuntimeError, lambda: run(make(f"{servers.full}/jina/v1")))


@check("rerankers", "rerankers")
def rerankers_(servers):
    from rerankers import Reranker

    providers = {
        "cohere": ("/cohere/v1/rerank", "rerank-v3.5"),
        "jina": ("/jina/v1/rerank", "jina-reranker-v3"),
        "voyage": ("/voyage/v1/rerank", "rerank-2.5"),
        "mixedbread.ai": ("/mixedbread/v1/reranking", "mixedbread-ai/mxbai-rerank-large-v2"),
        "pinecone": ("/pinecone/rerank", "bge-reranker-v2-m3"),
        "text-embeddings-inference": ("/tei/rerank", "default"),
    }
    for provider, (path, model) in providers.items():
        prefixes = [path] if path.startswith("/voyage") else [path, "/" + path.split("/", 2)[2]]
        for path in prefixes + ["/v1/rerank"] * (provider == "voyage"):
            for base, key in [(servers.open, "none"), (servers.closed, "good-key")]:
                make = lambda key, url: Reranker(
                    model, api_key=key, api_provider=provider, url=url, model_type="api", verbose=0
                )
                answer = make(key, base + path).rank(QUERY, DOCUMENTS, doc_ids=[0, 1, 2, 3])
                ranked(servers, ((hit.doc_id, hit.score) for hit in answer.results))
        # It looks at no status: what is missing is the field that the results should be in.
        broken = (KeyError, TypeError, ValueError)
        raises(broken, lambda: make("none", servers.full + path).rank(QUERY, DOCUMENTS))
        raises(broken, lambda: make("wrong", servers.closed + path).rank(QUERY, DOCUMENTS))


@check("litellm", "litellm")
def litellm_(servers):
    import litellm

    litellm.suppress_debug_info = True
    providers = {
        # It appends the path by itself.
        "cohere/rerank-v3.5": lambda base: f"{base}/cohere",
        # It keeps the host alone, and goes to /v1/rerank.
        "jina_ai/jina-reranker-v3": lambda base: base,
        "voyage/rerank-2.5": lambda base: f"{base}/voyage",
        "hosted_vllm/BAAI/bge-reranker-base": lambda base: f"{base}/vllm",
        "huggingface/default": lambda base: f"{base}/tei",
        "nvidia_nim/ranking/nvidia/llama-nemotron-rerank-1b-v2": lambda base: f"{base}/nim",
    }
    for model, at in providers.items():
        call = lambda base, key="none", model=model, **more: litellm.rerank(
            **{"model": model, "query": QUERY, "documents": DOCUMENTS, "api_base": at(base), "api_key": key, **more}
        )
        answer = call(servers.open)
        pairs = [(hit["index"], hit["relevance_score"]) for hit in answer.results]
        if model.startswith("nvidia_nim"):  # logits
            assert [index for index, _ in pairs] == servers.order, pairs
        else:
            ranked(servers, pairs)
        assert [hit["index"] for hit in call(servers.open, top_n=2).results] == servers.order[:2], model
        assert call(servers.closed, "good-key").results
        raises(litellm.AuthenticationError if "jina" not in model else Exception, lambda: call(servers.closed, "wrong"))
        raises(Exception, lambda: call(servers.full, num_retries=0))
        raises(Exception, lambda: call(servers.open, query=" "))
        if "huggingface" not in model and "jina" not in model:
            wrong = "/".join(model.split("/")[:2] if "ranking" in model else model.split("/")[:1]) + "/nothing"
            raises(Exception, lambda: call(servers.open, model=wrong), "nothing")
    use_up(servers, "spent-key")
    call = lambda key, **more: litellm.rerank(
        model="cohere/rerank-v3.5", query=QUERY, documents=DOCUMENTS, api_base=f"{servers.closed}/cohere", api_key=key, **more
    )
    raises(litellm.RateLimitError, lambda: call("spent-key", num_retries=0))
    raises(
        litellm.ServiceUnavailableError,
        lambda: litellm.rerank(
            model="cohere/rerank-v3.5", query=QUERY, documents=DOCUMENTS, api_base=f"{servers.full}/cohere", api_key="none"
        ),
    )


def main():
    parser = argparse.ArgumentParser()
    for name in ["open", "closed", "full", "missing"]:
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--no-skips", action="store_true")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    missing = [package.split("==")[0] for package in json.loads(arguments.missing)]
    servers = Servers([arguments.open, arguments.closed, arguments.full])
    passed, failed = 0, []
    for name, packages, function in CHECKS:
        if arguments.names and not any(name.startswith(begin) for begin in arguments.names):
            continue
        absent = [package for package in packages if package in missing]
        if absent:
            SKIPPED.append(name)
            print(f"skip {name}: {', '.join(absent)} could not be installed")
            continue
        start = time.monotonic()
        try:
            function(servers)
        except Exception:
            failed.append(name)
            print(f"FAIL {name}\n{traceback.format_exc()}")
        else:
            passed += 1
            versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)
            print(f"ok   {name} ({versions}), {time.monotonic() - start:.1f} s")
    print(f"{passed} passed, {len(failed)} failed, {len(SKIPPED)} skipped")
    raise SystemExit(1 if failed or not passed or SKIPPED and arguments.no_skips else 0)


if __name__ == "__main__":
    main()
