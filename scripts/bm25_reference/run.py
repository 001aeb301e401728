"""Jointly's BM25 against a reference: NDCG@10 of both on one collection.

    pip install -r scripts/bm25_reference/requirements.txt
    cargo build --release -p jointly-cli
    python scripts/bm25_reference/run.py --data dev/scifact --split train --jointly target/release/jointly

`--data` is a BEIR folder. The reference is bm25s with Lucene's formula, its own words (`\\w\\w+`), Lucene's stop words, and
PyStemmer's English stemmer. Documents are title and text together, as in BEIR's flat index. Status: 0 if the two differ by
less than 0.01 at every pair of parameters, 1 if not, 2 if something is missing.
"""

import argparse
import collections
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import bm25s
import Stemmer

BAR = 0.01
DEPTH = 100


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def judgements(path):
    qrels = collections.defaultdict(dict)
    for row in path.read_text(encoding="utf-8").splitlines()[1:]:
        query, document, label = row.split("\t")
        qrels[query][document] = int(label)
    return qrels


def ndcg(run, qrels):
    """The mean over the judged queries; `run` has the documents of each query, best first."""

    def gain(labels):
        return sum(label / math.log2(rank + 2) for rank, label in enumerate(labels[:10]))

    values = []
    for query, labels in qrels.items():
        ideal = gain(sorted((label for label in labels.values() if label > 0), reverse=True))
        values.append(gain([max(labels.get(document, 0), 0) for document in run.get(query, [])]) / ideal if ideal else 0.0)
    return sum(values) / len(values)


def reference(corpus, queries, k1, b):
    stemmer = Stemmer.Stemmer("english")

    def words(texts, vocabulary):
        return bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, return_ids=vocabulary, show_progress=False)

    model = bm25s.BM25(method="lucene", k1=k1, b=b)
    model.index(words([f"{d.get('title') or ''} {d['text']}" for d in corpus], True), show_progress=False)
    found, _ = model.retrieve(words([q["text"] for q in queries], False), k=min(DEPTH, len(corpus)), show_progress=False)
    return {query["_id"]: [corpus[place]["_id"] for place in row] for query, row in zip(queries, found)}


def ours(program, index, queries, k1, b):
    command = [program, "retrieve", index, "--queries", queries, "-k", str(DEPTH), "--k1", str(k1), "--b", str(b)]
    run = collections.defaultdict(list)
    for line in subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=True).stdout.splitlines():
        query, _, document, _, _, _ = line.split()
        run[query].append(document)
    return run


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", required=True)
    parser.add_argument("--jointly", type=Path, required=True)
    args = parser.parse_args()
    needed = [args.jointly, *(args.data / name for name in ("corpus.jsonl", "queries.jsonl", f"qrels/{args.split}.tsv"))]
    lacking = [str(path) for path in needed if not path.is_file()]
    if lacking:
        print(f"not there: {', '.join(lacking)}", file=sys.stderr)
        return 2
    corpus, queries = lines(args.data / "corpus.jsonl"), lines(args.data / "queries.jsonl")
    qrels = judgements(args.data / f"qrels/{args.split}.tsv")
    queries = [query for query in queries if query["_id"] in qrels]
    print(f"{len(corpus)} documents, {len(queries)} queries of split {args.split}; bm25s {bm25s.__version__}")
    print("| k1 | b | Jointly | bm25s | difference | same first document |\n|---|---|---|---|---|---|")
    holds = bool(queries)
    with tempfile.TemporaryDirectory() as work:
        asked = Path(work) / "queries.jsonl"
        asked.write_text("".join(json.dumps(query) + "\n" for query in queries), encoding="utf-8")
        index = Path(work) / "index"
        subprocess.run([args.jointly, "index", args.data, "-o", index], stdout=subprocess.DEVNULL, check=True)
        for k1, b in ((0.9, 0.4), (1.2, 0.75), (1.5, 0.75)):
            found, wanted = ours(args.jointly, index, asked, k1, b), reference(corpus, queries, k1, b)
            first = sum(found[query][:1] == wanted[query][:1] for query in wanted) / len(wanted)
            found, wanted = ndcg(found, qrels), ndcg(wanted, qrels)
            holds &= abs(found - wanted) < BAR
            print(f"| {k1} | {b} | {found:.4f} | {wanted:.4f} | {found - wanted:+.4f} | {first:.1%} |", flush=True)
    print("holds" if holds else f"FAILS: a difference is {BAR} or more")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
