"""The part of a collection that is web passages, with the pools and pairs of the questions about it: what a slow judge votes on.

    python models/train/web.py --collection collection --pools pools.jsonl --pairs pairs.jsonl --out web [--votes votes.jsonl]

With --votes, OUT/votes.rest.jsonl gets a judge's votes on everything else: what the slow judge does not see. Only Python's standard library is needed.
"""
import argparse
import json
import pathlib

WEB = ("squad", "nq", "medquad")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collection", type=pathlib.Path, required=True)
    parser.add_argument("--pools", type=pathlib.Path, required=True)
    parser.add_argument("--pairs", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--votes", type=pathlib.Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    documents = set()
    with open(args.collection / "corpus.jsonl", encoding="utf-8") as lines, \
            open(args.out / "corpus.jsonl", "w", encoding="utf-8") as out:
        for line in lines:
            name = json.loads(line)["_id"]
            if name.split("-")[0] in WEB:
                documents.add(name)
                out.write(line)

    def asked(query):
        return query.split("-")[0] in WEB

    def is_web(pair):
        queries = (pair["query"], pair.get("query_b", pair["query"]))
        return {pair["a"], pair["b"]} <= documents and all(map(asked, queries))

    pools = pairs = rest = 0
    with open(args.pools, encoding="utf-8") as lines, open(args.out / "pools.jsonl", "w", encoding="utf-8") as out:
        for group in map(json.loads, lines):
            group["documents"] = [document for document in group["documents"] if document["id"] in documents]
            if asked(group["query_id"]) and len(group["documents"]) >= 2:
                out.write(json.dumps(group, ensure_ascii=False) + "\n")
                pools += 1
    with open(args.pairs, encoding="utf-8") as lines, open(args.out / "pairs.jsonl", "w", encoding="utf-8") as out:
        for line in lines:
            if is_web(json.loads(line)):
                out.write(line)
                pairs += 1
    if args.votes:
        with open(args.votes, encoding="utf-8") as lines, open(args.out / "votes.rest.jsonl", "w", encoding="utf-8") as out:
            for line in lines:
                if not is_web(json.loads(line)):
                    out.write(line)
                    rest += 1
        print(f"{rest} votes on the rest")
    print(f"{len(documents)} passages, {pools} queries, {pairs} pairs")


if __name__ == "__main__":
    main()
