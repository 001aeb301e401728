"""What TREC's assessors judged of several candidate lists, as one file of groups: what a score is calibrated on.

    python models/train/judged.py DEV/trec-dl19 DEV/trec-dl21 --out judged.groups.jsonl

A folder has qrels.txt and candidates of several first stages, *.groups.jsonl. A document is taken once, with its grade; those that nobody
judged are left out. Candidates of one first stage alone, and only its best, are few, and a calibration error of few pairs is mostly luck.
Only Python's standard library is needed.
"""
import argparse
import json
import pathlib


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=pathlib.Path, nargs="+")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    with open(args.out, "w", encoding="utf-8") as out:
        for folder in args.folders:
            with open(folder / "qrels.txt", encoding="utf-8") as lines:
                grades = {(query, document): int(grade) for query, _, document, grade in map(str.split, lines)}
            pools = sorted(folder.glob("*.groups.jsonl"))
            if not pools:
                parser.error(f"{folder} has no *.groups.jsonl")
            groups = {}
            for pool in pools:
                with open(pool, encoding="utf-8") as lines:
                    for group in map(json.loads, lines):
                        name, documents = group["query_id"], groups.setdefault(group["query_id"], (group["query"], {}))[1]
                        for document in group["documents"]:
                            if (name, document["id"]) in grades:
                                documents.setdefault(document["id"], document["text"])
            pairs = 0
            for name, (query, documents) in groups.items():
                pairs += len(documents)
                judged = [{"id": id, "text": text, "label": grades[name, id]} for id, text in documents.items()]
                out.write(json.dumps({"query_id": f"{folder.name}-{name}", "query": query, "documents": judged}, ensure_ascii=False) + "\n")
            print(f"{folder}: {len(groups)} queries, {pairs} judged pairs of {len(pools)} first stages")


if __name__ == "__main__":
    main()
