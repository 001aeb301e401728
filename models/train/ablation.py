"""The same queries and documents twice: with zELO's labels, and with what is known alone, as plain BCE learns it.

    python models/train/ablation.py --pools pools.jsonl --fitted fitted.jsonl --zelo zelo.jsonl --bce bce.jsonl

Taken are the queries with a known answer, and of their pools the documents with a label: 1 for the answer, 0 for what the miner holds for none.
Only Python's standard library is needed.
"""
import argparse
import json
import pathlib


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("pools", "fitted", "zelo", "bce"):
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    parser.add_argument("--documents", type=int, default=6, help="a query has at least [6]")
    args = parser.parse_args()
    taken = {}
    with open(args.pools, encoding="utf-8") as lines, open(args.bce, "w", encoding="utf-8") as out:
        for group in map(json.loads, lines):
            labelled = [document for document in group["documents"] if document.get("label") is not None]
            if len(labelled) < args.documents or not any(document["label"] >= 1 for document in labelled):
                continue
            taken[group["query_id"]] = {document["id"] for document in labelled}
            group["documents"] = labelled
            out.write(json.dumps(group, ensure_ascii=False) + "\n")
    with open(args.fitted, encoding="utf-8") as lines, open(args.zelo, "w", encoding="utf-8") as out:
        for group in map(json.loads, lines):
            if group["query_id"] in taken:
                group["documents"] = [document for document in group["documents"] if document["id"] in taken[group["query_id"]]]
                out.write(json.dumps(group, ensure_ascii=False) + "\n")
    print(f"{len(taken)} queries")


if __name__ == "__main__":
    main()
