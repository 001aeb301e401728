"""Votes of a first stage on pairs: the one with the higher score in a run is better, by how much as `jointly zelo vote` has it.

    python models/train/lexical.py --pairs pairs.jsonl --run bm25.run --queries statement --out lexical.jsonl

RUN is what `jointly retrieve` prints. A document that the run does not have leaves the pair without a vote, for its score is not
known. Only pairs within a query whose id has one of the `--queries` in it are voted on: for claims and papers words are good
evidence, for questions less so. Only Python's standard library is needed.
"""
import argparse
import json
import math
import pathlib


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=pathlib.Path, required=True)
    parser.add_argument("--run", type=pathlib.Path, required=True)
    parser.add_argument("--queries", action="append", default=[], metavar="TEXT", help="part of the ids of queries [all]")
    parser.add_argument("--name", default="bm25", help="of the judge")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    scores = {}
    with open(args.run, encoding="utf-8") as lines:
        for line in lines:
            query, _, document, _, score, _ = line.split()
            scores[query, document] = float(score)
    pairs = []
    with open(args.pairs, encoding="utf-8") as lines:
        for pair in map(json.loads, lines):
            query = pair["query"]
            if "query_b" in pair or (args.queries and not any(part in query for part in args.queries)):
                continue
            a, b = scores.get((query, pair["a"])), scores.get((query, pair["b"]))
            if a is not None and b is not None:
                pairs.append((pair, b - a))
    # The typical difference becomes 2, as for local models.
    scale = 2 / math.sqrt(sum(difference ** 2 for _, difference in pairs) / len(pairs))
    with open(args.out, "w", encoding="utf-8") as out:
        for pair, difference in pairs:
            vote = 1 / (1 + math.exp(-scale * difference))
            out.write(json.dumps({**pair, "judge": args.name, "vote": round(vote, 6), "swapped": False}) + "\n")
    print(f"{len(pairs)} votes; scale {scale:.4f}")


if __name__ == "__main__":
    main()
