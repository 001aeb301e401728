"""NDCG@10 of a cross-encoder, a bi-encoder and BM25 on development sets, with paired randomisation tests.

NDCG@10 is trec_eval's: linear gain, ideal ranking from all judgements, unjudged = 0, ties by document id descending,
averaged over every query that has a judgement row.
Sets: trec-dl19, trec-dl21 (the BM25 top 100 in the data), scifact and nfcorpus (BM25 top 100 computed here).
"""
import argparse
import json
import math
import pathlib
import subprocess
import tempfile
import time

import numpy as np


def read_jsonl(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def ndcg(scores, judged, k=10):
    """scores: {document id: score}, judged: {document id: grade}."""
    ranked = sorted(scores, key=lambda d: (scores[d], d), reverse=True)[:k]
    gain = sum(max(judged.get(d, 0), 0) / math.log2(r + 2) for r, d in enumerate(ranked))
    ideal = sum(g / math.log2(r + 2) for r, g in enumerate(sorted((g for g in judged.values() if g > 0), reverse=True)[:k]))
    return gain / ideal if ideal else 0.0


def randomisation(a, b, rounds=100_000, seed=20):
    """Two-sided paired sign-flip test on the mean difference."""
    delta = np.asarray(a) - np.asarray(b)
    rng = np.random.default_rng(seed)
    observed, hits, done = abs(delta.mean()), 0, 0
    while done < rounds:
        signs = rng.integers(0, 2, (10_000, len(delta))) * 2 - 1
        hits += int((abs((signs * delta).mean(1)) >= observed - 1e-12).sum())
        done += 10_000
    return (hits + 1) / (done + 1)


def load_trec(folder):
    judged = {}
    with open(folder / "qrels.txt", encoding="utf-8") as lines:
        for line in lines:
            query, _, document, grade = line.split()
            judged.setdefault(query, {})[document] = int(grade)
    pools = []
    for row in read_jsonl(folder / "bm25.groups.jsonl"):
        if row["query_id"] in judged:
            documents = row["documents"][:100]
            pools.append((row["query_id"], row["query"], [d["id"] for d in documents], [d["text"] for d in documents],
                          [d["first_stage_score"] for d in documents]))
    return pools, {p[0]: judged[p[0]] for p in pools}


def load_beir(folder, split, limit):
    import bm25s

    corpus = read_jsonl(folder / "corpus.jsonl")
    texts = [(row.get("title", "") + " " + row["text"]).strip() for row in corpus]
    names = {row["_id"]: row["text"] for row in read_jsonl(folder / "queries.jsonl")}
    judged = {}
    with open(folder / f"qrels/{split}.tsv", encoding="utf-8") as lines:
        for line in list(lines)[1:]:
            query, document, grade = line.split("\t")
            judged.setdefault(query, {})[document] = int(grade)
    index = bm25s.BM25(k1=0.9, b=0.4)
    index.index(bm25s.tokenize(texts, stopwords="en", show_progress=False), show_progress=False)
    pools = []
    for query in sorted(judged)[:limit]:
        rows, scores = index.retrieve(bm25s.tokenize([names[query]], stopwords="en", show_progress=False), k=100, show_progress=False)
        pools.append((query, names[query], [corpus[i]["_id"] for i in rows[0]], [texts[i] for i in rows[0]], [float(s) for s in scores[0]]))
    return pools, {p[0]: judged[p[0]] for p in pools}


def load(name, data, limit):
    if name.startswith("trec"):
        return load_trec(data / name)
    return load_beir(data / name, "dev" if name == "nfcorpus" else "train", limit)


def bi_encoder_scores(path, pools, threads):
    from prepare import encode

    documents = sorted({text for pool in pools for text in pool[3]})
    at = {text: i for i, text in enumerate(documents)}
    embedded = encode(path, documents, 256, threads, "bi-encoder documents")
    queries = encode(path, [pool[1] for pool in pools], 64, threads, "bi-encoder queries")
    return [[float(s) for s in embedded[[at[t] for t in pool[3]]] @ queries[i]] for i, pool in enumerate(pools)]


def cross_encoder_scores(program, folder, pools, threads, max_length):
    """The logits that the program gives for the model folder."""
    with tempfile.TemporaryDirectory() as work:
        pairs = pathlib.Path(work) / "pairs.jsonl"
        with pairs.open("w", encoding="utf-8") as out:
            for _, query, _, texts, _ in pools:
                out.writelines(json.dumps({"query": query, "document": text}) + "\n" for text in texts)
        command = [program, "score", pairs, "--model", folder, "--max-length", max_length, "--threads", threads]
        done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, check=True, encoding="utf-8")
    logits = iter([json.loads(line)["logit"] for line in done.stdout.splitlines()])
    scores = [[next(logits) for _ in pool[3]] for pool in pools]
    assert next(logits, None) is None, "as many scores as pairs"
    return scores


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder with trec-dl19, trec-dl21, scifact, nfcorpus")
    parser.add_argument("--set", action="append", dest="sets", help="default: trec-dl19 and trec-dl21")
    parser.add_argument("--limit", type=int, default=100, help="scifact, nfcorpus: the first N queries by id")
    parser.add_argument("--model", action="append", default=[], help="cross-encoder folder")
    parser.add_argument("--bi-encoder", action="append", default=[])
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--jointly", type=pathlib.Path, default="target/release/jointly", help="the program that scores")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cache", type=pathlib.Path, help="folder for per-query bi-encoder figures")
    args = parser.parse_args()
    for name in args.sets or ["trec-dl19", "trec-dl21"]:
        pools, judged = load(name, args.data, args.limit)
        systems = {"bm25": [pool[4] for pool in pools]}
        for path in args.bi_encoder:
            label = f"bi-encoder {pathlib.Path(path).name}"
            saved = args.cache / f"{name}.{len(pools)}.{pathlib.Path(path).name}.json" if args.cache else None
            if saved and saved.exists():
                systems[label] = json.loads(saved.read_text())
                continue
            systems[label] = bi_encoder_scores(path, pools, args.threads)
            if saved:
                args.cache.mkdir(parents=True, exist_ok=True)
                saved.write_text(json.dumps(systems[label]))
        figures = {}
        for path in args.model:
            start = time.time()
            systems[path] = cross_encoder_scores(args.jointly, path, pools, args.threads, args.max_length)
            print(f"{name}: {sum(len(p[3]) for p in pools)} pairs in {time.time() - start:.0f} s", flush=True)
        for label, scores in systems.items():
            figures[label] = [ndcg(dict(zip(p[2], s)), judged[p[0]]) for p, s in zip(pools, scores)]
        for label, values in figures.items():
            line = f"{name} ({len(values)} queries) NDCG@10 {np.mean(values):.4f}  {label}"
            if label in args.model:
                for other in figures:
                    if other not in args.model:
                        line += f"; {np.mean(values) - np.mean(figures[other]):+.4f} against {other}, p = {randomisation(values, figures[other]):.5f}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
