"""What the fifth version takes of the queries of two collections, and of the questions that people asked elsewhere.

    python models/train/pick.py draw        # before the vectors' candidates are retrieved
    python models/train/pick.py join        # after it

Works in the current folder, on what collection.py made there: `web`, and `open`, whose queries `asked-…` nothing there is known to answer.
`draw` writes queries.jsonl of three folders: asked.web and asked.open, two samples of those questions, and own.open, some of the others.
`join` reads web.dense.run, asked.web.run, asked.open.run and own.open.run, which `jointly retrieve --by dense` makes of them, and writes two
collections, some.web and some.open (with the passages of `web` and `open`), and their some.web.dense.run and some.open.dense.run. A question asked
elsewhere is kept if some passage is near it: the others have nothing to rank. Only Python's standard library is needed.
"""
import argparse
import os
import pathlib
import random

from collection import read_jsonl
from webtext import write_jsonl

ASKED = {"web": 7000, "open": 10_000}
KEPT = {"web": 4000, "open": 6500}
NEAR = 0.5  # the cosine of the nearest passage, at least
SEED = 51


def draw(rng):
    queries = read_jsonl("open/queries.jsonl")
    asked = [query for query in queries if query["_id"].startswith("asked-")]
    rng.shuffle(asked)
    write_jsonl(pathlib.Path("asked.web/queries.jsonl"), asked[: ASKED["web"]])
    write_jsonl(pathlib.Path("asked.open/queries.jsonl"), asked[ASKED["web"] : ASKED["web"] + ASKED["open"]])
    # Of MedQuAD there is more than of anything else.
    medquad = [query for query in queries if query["_id"].startswith("medquad-")]
    others = [query for query in queries if not query["_id"].startswith(("asked-", "medquad-"))]
    write_jsonl(pathlib.Path("own.open/queries.jsonl"), rng.sample(medquad, 1500) + rng.sample(others, min(5500, len(others))))


def join(rng):
    names = [query["_id"] for query in read_jsonl("web/queries.jsonl")]
    typed = [name for name in names if name.startswith(("qed-q", "boolq-q"))]
    others = [name for name in names if not name.startswith(("qed-q", "boolq-q"))]
    of_web = set(rng.sample(typed, 6000) + rng.sample(others, 6000))
    of_open = {query["_id"] for query in read_jsonl("own.open/queries.jsonl")}
    for collection, own, run in (("web", of_web, "web.dense.run"), ("open", of_open, "own.open.run")):
        found, nearest = {}, {}
        with open(f"asked.{collection}.run", encoding="utf-8") as lines:
            for line in lines:
                name, _, _, rank, score, _ = line.split()
                found.setdefault(name, []).append(line)
                if rank == "1":
                    nearest[name] = float(score)
        kept = [name for name in sorted(nearest, key=lambda name: -nearest[name]) if nearest[name] >= NEAR]
        rng.shuffle(kept)
        kept = set(kept[: KEPT[collection]])
        out = pathlib.Path(f"some.{collection}")
        write_jsonl(out / "queries.jsonl", [query for query in read_jsonl(f"{collection}/queries.jsonl") if query["_id"] in own]
                    + [query for query in read_jsonl(f"asked.{collection}/queries.jsonl") if query["_id"] in kept])
        if not (out / "corpus.jsonl").exists():
            os.symlink(f"../{collection}/corpus.jsonl", out / "corpus.jsonl")
        (out / "qrels").mkdir(exist_ok=True)
        with open(f"{collection}/qrels/train.tsv", encoding="utf-8") as known, open(out / "qrels/train.tsv", "w", encoding="utf-8") as qrels:
            qrels.writelines(line for i, line in enumerate(known) if i == 0 or line.split("\t")[0] in own)
        with open(run, encoding="utf-8") as lines, open(f"some.{collection}.dense.run", "w", encoding="utf-8") as out_run:
            out_run.writelines(line for line in lines if line.split(" ", 1)[0] in own)
            for name in sorted(kept):
                out_run.writelines(found[name])
        print(f"some.{collection}: {len(own)} queries of its own, and {len(kept)} of {len(found)} asked elsewhere")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["draw", "join"])
    {"draw": draw, "join": join}[parser.parse_args().step](random.Random(SEED))


if __name__ == "__main__":
    main()
