"""Some of the queries of pools, with a few documents of each: what a judge votes on that is too slow for all.

    python models/train/few.py pools.jsonl --of web.train.jsonl --queries 4500 --documents 8 --seed 41 --out few.pools.jsonl

Queries are drawn at random from those that --of has too, so that what is held out there stays held out. Of a query's documents those that are
known to answer it stay; the others are drawn at random. Only Python's standard library is needed.
"""
import argparse
import json
import pathlib
import random


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pools", type=pathlib.Path)
    parser.add_argument("--of", type=pathlib.Path, required=True, help="groups of the queries to draw from")
    parser.add_argument("--queries", type=int, required=True)
    parser.add_argument("--documents", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    draw = random.Random(args.seed)
    with open(args.of, encoding="utf-8") as lines:
        names = [json.loads(line)["query_id"] for line in lines]
    if args.queries > len(names):
        parser.error(f"{args.of} has only {len(names)} queries")
    chosen = set(draw.sample(names, args.queries))
    queries = documents = 0
    with open(args.pools, encoding="utf-8") as lines, open(args.out, "w", encoding="utf-8") as out:
        for group in map(json.loads, lines):
            if group["query_id"] not in chosen:
                continue
            known = [document for document in group["documents"] if (document.get("label") or 0) > 0]
            other = [document for document in group["documents"] if (document.get("label") or 0) <= 0]
            group["documents"] = known + draw.sample(other, min(len(other), max(0, args.documents - len(known))))
            out.write(json.dumps(group, ensure_ascii=False) + "\n")
            queries += 1
            documents += len(group["documents"])
    print(f"{queries} queries, {documents} documents")


if __name__ == "__main__":
    main()
