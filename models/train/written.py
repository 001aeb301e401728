"""Queries that a language model on this machine writes for the passages of a collection: a collection of its own, with the same passages.

    python models/train/written.py --collection web --model qwen2.5-coder-0.5b-instruct-q4_k_m.gguf --count 4000 --seed 33 --out written
    jointly retrieve index --queries written/ --by dense -k 60 -o written.dense.run
    python models/train/written.py --out written --run written.dense.run

The first call needs xllamacpp (requirements.txt). Three queries a passage are added to OUT/written.jsonl as they come; a run that is repeated goes
on after them. A small model's question is often not what its passage answers: the second call says in OUT/qrels/train.tsv that a passage answers
the queries that were written for it and that a first stage finds it for, among the first three; what else answers them, the judges say.
"""
import argparse
import collections
import concurrent.futures
import json
import pathlib
import random
import re
import shutil
import time
import urllib.request

from collection import read_jsonl

# Passages and what people typed who found them: our own sentences. A server keeps what these cost between requests.
EXAMPLES = [
    ("Most adults need between seven and nine hours of sleep a night. Newborn babies sleep up to seventeen hours, teenagers about nine.",
     ["how many hours of sleep does a teenager need", "recommended sleep by age", "do newborns sleep more than adults"]),
    ("The Treaty of Westphalia, signed in 1648 in two towns of northern Germany, ended the Thirty Years' War.",
     ["what treaty ended the thirty years war", "treaty of westphalia date signed", "where was the peace of westphalia signed"]),
    ("A heat pump moves warmth from the air or the ground outside into a house. It takes a third of the electricity of a plain heater.",
     ["is a heat pump cheaper than electric heating", "heat pump electricity use", "how does a heat pump work"]),
    ("Basalt forms when lava cools quickly at the surface. It is dark, fine-grained and rich in iron and magnesium.",
     ["how is basalt formed", "basalt rock characteristics", "why is basalt dark"]),
]
JOURNAL = "written.jsonl"
ASK = "Write three things that people type into a search engine who look for this passage, one on each line.\n\n"


def messages(passage):
    turns = []
    for text, queries in EXAMPLES:
        turns += [{"role": "user", "content": ASK + text}, {"role": "assistant", "content": "\n".join(queries)}]
    return [*turns, {"role": "user", "content": ASK + passage}]


def ask(address, passage, seed):
    body = {"messages": messages(passage), "max_tokens": 48, "temperature": 0.7, "seed": seed, "cache_prompt": True}
    request = urllib.request.Request(f"{address}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        choice = json.load(answer)["choices"][0]
    lines = choice["message"]["content"].strip().splitlines()
    # A line that the limit cut is not whole.
    return typed(lines[:-1] if choice["finish_reason"] == "length" else lines)


def typed(lines):
    """The lines that look like what people type, three at most."""
    queries = [re.sub(r"\s+", " ", re.sub(r"^\W*(\d+[.)])?\W*", "", line)).rstrip("?.\"'` ").lower() for line in lines]
    return [query for query in dict.fromkeys(queries) if 2 <= len(query.split()) <= 14 and "passage" not in query][:3]


def serve(model, slots, threads):
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.n_parallel = slots
    params.n_ctx = 1536 * slots
    params.cpuparams.n_threads = threads
    return xllamacpp.Server(params)


def write(args):
    passages = [row for row in read_jsonl(args.collection / "corpus.jsonl") if len(row["text"].split()) >= args.least]
    rng = random.Random(args.seed)
    chosen = [(row, rng.randrange(2**31)) for row in rng.sample(passages, min(args.count, len(passages)))]
    (args.out / "qrels").mkdir(parents=True, exist_ok=True)
    done = {row["passage"] for row in read_jsonl(args.out / JOURNAL)} if (args.out / JOURNAL).exists() else set()
    left = [item for item in chosen if item[0]["_id"] not in done]
    server = serve(args.model, args.slots, args.threads)
    start, shown = time.monotonic(), 0.0
    with concurrent.futures.ThreadPoolExecutor(args.slots) as pool, open(args.out / JOURNAL, "a", encoding="utf-8") as out:
        waiting = {pool.submit(ask, server.listening_address, " ".join(row["text"].split()[: args.most]), seed): row["_id"]
                   for row, seed in left}
        for count, future in enumerate(concurrent.futures.as_completed(waiting), 1):
            out.write(json.dumps({"passage": waiting[future], "queries": future.result()}, ensure_ascii=False) + "\n")
            spent = time.monotonic() - start
            if spent > shown + 20 or count == len(left):
                shown = spent
                out.flush()
                print(f"{count} of {len(left)}, {count / spent:.1f} a second", flush=True)
    shutil.copyfile(args.collection / "corpus.jsonl", args.out / "corpus.jsonl")
    queries = written(args.out)
    with open(args.out / "queries.jsonl", "w", encoding="utf-8") as out:
        for name, query, _ in queries:
            out.write(json.dumps({"_id": name, "text": query}, ensure_ascii=False) + "\n")
    print(f"{len(queries)} queries for {len(chosen)} passages")


def written(folder):
    """Each query once, with its name and the passage that it was first written for, in the order of the passages' names: the order in which
    a server answers depends on chance."""
    source = {}
    for row in sorted(read_jsonl(folder / JOURNAL), key=lambda row: row["passage"]):
        for query in row["queries"]:
            source.setdefault(query, row["passage"])
    return [(f"written-q{i}", query, passage) for i, (query, passage) in enumerate(source.items())]


def judge(args):
    found = collections.defaultdict(list)
    with open(args.run, encoding="utf-8") as lines:
        for query, _, passage, *_ in map(str.split, lines):
            found[query].append(passage)
    queries = written(args.out)
    known = [(name, passage) for name, _, passage in queries if passage in found[name][:3]]
    with open(args.out / "qrels/train.tsv", "w", encoding="utf-8") as out:
        out.write("query-id\tcorpus-id\tscore\n")
        out.writelines(f"{name}\t{passage}\t1\n" for name, passage in known)
    print(f"{len(known)} of {len(queries)} queries find their passage")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--run", type=pathlib.Path, help="what a first stage found for the queries: says what answers them")
    parser.add_argument("--collection", type=pathlib.Path)
    parser.add_argument("--model", type=pathlib.Path, help="GGUF file of an instruction-tuned language model")
    parser.add_argument("--count", type=int, help="passages to write queries for")
    parser.add_argument("--least", type=int, default=25, help="words of a passage [25]")
    parser.add_argument("--most", type=int, default=80, help="words of it that the model reads [80]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slots", type=int, default=4, help="requests at a time [4]")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if args.run:
        judge(args)
    elif args.collection and args.model and args.count:
        write(args)
    else:
        parser.error("--run, or --collection, --model and --count")


if __name__ == "__main__":
    main()
