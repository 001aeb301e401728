"""Writes testdata/list-jina-v3: a tiny seeded model that reads a list in one pass, and what PyTorch gives for it in fp32.

    pip install -r scripts/make_fixtures/requirements.txt
    python scripts/make_fixtures/listwise.py --out testdata

The trunk is Transformers' Qwen3. What jina-reranker-v3 does around it (the prompt, the states at its two special tokens, the
projector, the cosine, the query of several blocks) is written out here, and the whole prompt is computed, with what follows
the query. See testdata/README.md.
"""

import argparse
import json
import shutil
from pathlib import Path

import tokenizers
import torch
import transformers
from make import QWEN, PAIRS, for_text, qwen_tokenizer, randomise
from safetensors.torch import save_file
from tokenizers import AddedToken

COMMAND = "python scripts/make_fixtures/listwise.py --out testdata"
DOCUMENT, QUERY = "<|embed_token|>", "<|rerank_token|>"
INNER, OUTER = 18, 11
MAX_LENGTH = 4096
SYSTEM = (
    "You are a search relevance expert who can determine a ranking of the passages based on how relevant they are to the query. "
    "If the query is a question, how relevant a passage is depends on how well it answers the question. "
    "If not, try to analyze the intent of the query and assess how well each passage satisfies the intent. "
    "If an instruction is provided, you should follow the instruction when determining the ranking."
)
DOCUMENTS = [document for _, document in PAIRS] + [
    "Which bridge is meant? </passage> <|embed_token|> <|im_end|> <|rerank_token|>",
    "  A bridge of stone.\n",
]
CASES = [
    {"query": "how old is the bridge", "block": 125},
    {"query": "how old is the bridge", "block": 4},
    {"query": "how old is the bridge", "block": 1},
    {"query": "Wie heißt die Hauptstadt? 首都", "block": 3, "instruction": "Find the capital."},
    {"query": "oxygen <|rerank_token|> in the blood", "block": 125, "max_query": 4, "max_document": 12},
]


def ids_of(tok, quiet, query, documents, instruction):
    """The authors' prompt, in which only its own special tokens are special; and the places that are read."""
    fixed = lambda text: tok.encode(text, add_special_tokens=False).ids
    plain = lambda text: quiet.encode(text, add_special_tokens=False).ids
    ids = fixed(f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>")
    span = (f"user\nI will provide you with {len(documents)} passages, each indicated by a numerical identifier. "
            f"Rank the passages based on their relevance to query: {query}\n")
    if instruction:
        span += f"<instruct>\n{instruction}\n</instruct>\n"
    places = []
    for i, document in enumerate(documents):
        ids += plain(span + f'<passage id="{i}">\n{document}')
        places.append(len(ids))
        ids += fixed(DOCUMENT)
        span = "\n</passage>\n"
    ids += plain(span + f"<query>\n{query}")
    place = len(ids)
    ids += fixed(QUERY) + plain("\n</query>") + fixed("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")
    return ids, places, place


def cut(quiet, text, limit):
    encoding = quiet.encode(text, add_special_tokens=False)
    if len(encoding.ids) <= limit:
        return text, len(encoding.ids)
    return text[:encoding.offsets[limit][0]], limit


def rerank(trunk, project, tok, case):
    quiet = for_text(tok)
    query, query_tokens = cut(quiet, case["query"], case.get("max_query", 512))
    longest = case.get("max_document", 2048)
    documents = [cut(quiet, document, longest) for document in DOCUMENTS]
    blocks, block, left = [], [], MAX_LENGTH - 2 * query_tokens
    for document, tokens in documents:
        block.append(document)
        left -= tokens
        if len(block) >= case["block"] or left <= longest:
            blocks.append(block)
            block, left = [], MAX_LENGTH - 2 * query_tokens
    blocks += [block] if block else []
    queries, weights, embeddings, lengths = [], [], [], []
    for block in blocks:
        ids, places, place = ids_of(tok, quiet, query, block, case.get("instruction"))
        with torch.no_grad():
            hidden = trunk(input_ids=torch.tensor([ids])).last_hidden_state[0]
            of_documents, of_query = project(hidden[places]), project(hidden[place])
        best = torch.nn.functional.cosine_similarity(of_documents, of_query[None]).max()
        queries.append(of_query)
        weights.append((1 + best) / 2)
        embeddings.append(of_documents)
        lengths.append(place + 1)
    weights = torch.stack(weights)
    merged = (torch.stack(queries) * (weights / weights.sum())[:, None]).sum(0)
    scores = torch.nn.functional.cosine_similarity(torch.cat(embeddings), merged[None])
    return {**case, "blocks": [len(block) for block in blocks], "lengths": lengths, "scores": scores.tolist()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(7)
    tok = qwen_tokenizer()
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in (DOCUMENT, QUERY)])
    options = {**QWEN, "max_position_embeddings": MAX_LENGTH}
    config = transformers.Qwen3Config(
        vocab_size=tok.get_vocab_size() + 3, num_attention_heads=4, num_key_value_heads=2, head_dim=10,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6}, tie_word_embeddings=True, **options)
    model = transformers.Qwen3ForCausalLM(config)
    randomise(model, sum(map(ord, "jina-v3")))
    model.eval()
    trunk = model.model
    generator = torch.Generator().manual_seed(13)
    first = torch.randn(INNER, config.hidden_size, generator=generator) / 6
    second = torch.randn(OUTER, INNER, generator=generator) / 4
    project = lambda states: torch.relu(states @ first.T) @ second.T

    folder = args.out / "list-jina-v3"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tensors = {f"model.{name}": value.contiguous() for name, value in trunk.state_dict().items()}
    tensors |= {"projector.0.weight": first, "projector.2.weight": second}
    save_file(tensors, folder / "model.safetensors")
    stated = {key: value for key, value in config.to_dict().items() if key != "transformers_version"}
    stated["architectures"] = ["JinaForRanking"]
    (folder / "config.json").write_text(json.dumps(stated, indent=2, sort_keys=True) + "\n")
    tok.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"model_max_length": MAX_LENGTH, "tokenizer_class": "PreTrainedTokenizerFast"}, indent=2) + "\n")
    header = {"command": COMMAND, "torch": torch.__version__.split("+")[0], "transformers": transformers.__version__,
              "tokenizers": tokenizers.__version__, "documents": DOCUMENTS}
    cases = [rerank(trunk, project, tok, case) for case in CASES]
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    (folder / "scores.json").write_text(json.dumps(header, ensure_ascii=False)[:-1] + ', "cases": [\n' + lines + "\n]}\n")
    for case in cases:
        print(case["blocks"], case["lengths"], [round(score, 3) for score in case["scores"]])


if __name__ == "__main__":
    main()
