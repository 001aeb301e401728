"""The 1,000 queries on which int8 as a screen is audited (bench/record/quality/audit.md): DL19, DL21, the dev queries of NFCorpus, and
601 train claims of SciFact, each with the best 100 of BM25, as one pool. Judgements play no part in it.

    jointly index DATA/scifact -o index.scifact && jointly retrieve index.scifact --queries DATA/scifact --by bm25 -k 100 -o scifact.run
    jointly index DATA/nfcorpus -o index.nfcorpus && jointly retrieve index.nfcorpus --queries DATA/nfcorpus --by bm25 -k 100 -o nfcorpus.run
    python3 bench/precision_pool.py DATA scifact.run nfcorpus.run pool.groups.jsonl        # DATA: ../shared/data/dev
    jointly audit default --precision int8 --against f32 --on pool.groups.jsonl --cache CACHE --cascade confirm.toml --same set

Of the claims, the 404 that no earlier audit had, and 197 of its 405: those among the first 312 of the run, then those whose SHA-256 of
seed 1 and id are smallest, as `jointly eval` samples.
"""

import hashlib
import json
import pathlib
import sys

EARLIER, FIRST, ALL = 405, 312, 601


def groups(path, name):
    for line in path.open(encoding="utf-8"):
        group = json.loads(line)
        yield {**group, "query_id": f"{name}:{group['query_id']}"}


def pooled(folder, split, run):
    """The queries of a split, in the order of the run, with the texts of their candidates."""
    name, corpus, candidates = folder.name, {}, {}
    for line in (folder / "corpus.jsonl").open(encoding="utf-8"):
        document = json.loads(line)
        title = document.get("title") or ""
        corpus[str(document["_id"])] = f"{title} {document['text']}" if title else document["text"]
    texts = {str(row["_id"]): row["text"] for row in map(json.loads, (folder / "queries.jsonl").open(encoding="utf-8"))}
    judged = {line.split("\t")[0] for line in (folder / "qrels" / f"{split}.tsv").open(encoding="utf-8")}
    for line in run.open(encoding="utf-8"):
        query, _, document, rank, *_ = line.split()
        candidates.setdefault(query, []).append((int(rank), document))
    for query, found in candidates.items():
        if query in judged:
            documents = [{"id": document, "text": corpus[document]} for _, document in sorted(found)[:100]]
            yield {"query_id": f"{name}:{query}", "query": texts[query], "documents": documents}


def chosen(claims):
    """The ids of the claims that are audited."""
    ids = [claim["query_id"] for claim in claims]
    smallest = sorted(ids, key=lambda id: hashlib.sha256(f"1\n{id.split(':')[1]}".encode()).hexdigest())
    earlier = set(smallest[:EARLIER])
    kept = {id for id in ids if id not in earlier} | (earlier & set(ids[:FIRST]))
    return kept | set([id for id in smallest[:EARLIER] if id not in kept][: ALL - len(kept)])


def main():
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    data, scifact, nfcorpus, out = map(pathlib.Path, sys.argv[1:])
    found = []
    for name in ("trec-dl19", "trec-dl21"):
        found += groups(data / name / "bm25.groups.jsonl", name)
    found += pooled(data / "nfcorpus", "dev", nfcorpus)
    claims = list(pooled(data / "scifact", "train", scifact))
    kept = chosen(claims)
    found += [claim for claim in claims if claim["query_id"] in kept]
    with out.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(group) + "\n" for group in found)
    print(len(found), "queries,", sum(len(group["documents"]) for group in found), "pairs")


if __name__ == "__main__":
    main()
