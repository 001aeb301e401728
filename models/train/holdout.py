"""Takes some queries out of a file of groups, at random: what a model was not trained on is what it is calibrated on.

    python models/train/holdout.py fitted.jsonl --pools pools.jsonl --queries 600 --seed 22 --train train.jsonl --held held.groups.jsonl

With --unlike, only queries are held out that none of those files has, in small letters and without a question mark: sets may share questions.

In what is held out, the label of a document is 1 where it is known to answer its query (the label that the pool came with), else 0.
Only Python's standard library is needed.
"""
import argparse
import json
import pathlib
import random

from collection import bare


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", type=pathlib.Path)
    parser.add_argument("--pools", type=pathlib.Path, required=True, help="the pools, with what is known")
    parser.add_argument("--queries", type=int, required=True)
    parser.add_argument("--of", action="append", default=[], metavar="TEXT", help="take them of queries whose id has this [all]")
    parser.add_argument("--unlike", action="append", default=[], type=pathlib.Path, metavar="QUERIES", help="queries.jsonl of what was trained on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", type=pathlib.Path, required=True)
    parser.add_argument("--held", type=pathlib.Path, required=True)
    args = parser.parse_args()
    seen = set()
    for path in args.unlike:
        with open(path, encoding="utf-8") as lines:
            seen.update(bare(json.loads(line)["text"]) for line in lines)
    with open(args.groups, encoding="utf-8") as lines:
        queries = {group["query_id"]: bare(group["query"]) for group in map(json.loads, lines)}
    names = list(queries)
    some = [name for name in names if queries[name] not in seen and (not args.of or any(part in name for part in args.of))]
    if args.queries > len(some) or args.queries == len(names):
        parser.error(f"{args.groups} has only {len(some)} such queries")
    held = set(random.Random(args.seed).sample(some, args.queries))
    with open(args.groups, encoding="utf-8") as lines, open(args.train, "w", encoding="utf-8") as out:
        for line in lines:
            if json.loads(line)["query_id"] not in held:
                out.write(line)
    written = 0
    with open(args.pools, encoding="utf-8") as lines, open(args.held, "w", encoding="utf-8") as out:
        for group in map(json.loads, lines):
            known = any((document.get("label") or 0) >= 1 for document in group["documents"])
            if group["query_id"] in held and known:
                for document in group["documents"]:
                    document["label"] = int((document.get("label") or 0) >= 1)
                out.write(json.dumps(group, ensure_ascii=False) + "\n")
                written += 1
    print(f"{len(names) - len(held)} queries to train on, {written} held out (of {len(held)}, those with a known answer)")


if __name__ == "__main__":
    main()
