"""Real pairs of mixed length, the same ones for the same seed and files."""

import gzip
import json
import math
import random
import re

from missing import Missing

# Texts that spell control tokens: there Jointly and Transformers differ on purpose (testdata/templates.json has those).
CONTROL = re.compile(r"</?s>|<pad>|<unk>|<mask>|\[(SEP|CLS|PAD|UNK|MASK)\]|<\||</?(think|tool_call)>")


def lines(path):
    opened = gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")
    with opened as file:
        return [json.loads(line) for line in file]


def passages(data, _):
    """Web passages, a few hundred characters: TREC Deep Learning 2019, pools of three first stages."""
    for run in ("bm25", "splade_p_p_ensemble_distil", "d_bert_kd_tasb"):
        for group in lines(data / f"trec-dl19/{run}.groups.jsonl"):
            for document in group["documents"]:
                yield group["query"], document["text"]


def abstracts(data, _):
    """Claims and the abstracts that were judged for them, about 300 tokens: SciFact."""
    corpus = {d["_id"]: f"{d['title']} {d['text']}" for d in lines(data / "scifact/corpus.jsonl")}
    queries = {q["_id"]: q["text"] for q in lines(data / "scifact/queries.jsonl")}
    for row in (data / "scifact/qrels/train.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, document, _ = row.split("\t")
        yield queries[query], corpus[document]


def languages(data, _):
    """Questions in one language, paragraphs in the same or another, right-to-left and Cyrillic among them: XQuAD-R."""
    files = [json.loads((data / f"xquad-r/{name}.json").read_text(encoding="utf-8")) for name in ("ar", "de", "es", "ru")]
    paragraphs = [[p for article in file["data"] for p in article["paragraphs"]] for file in files]
    for index in range(min(map(len, paragraphs))):
        for shift in range(len(files)):
            asked, read = paragraphs[index % 4][index], paragraphs[(index + shift) % 4][index]
            yield asked["qas"][0]["question"], read["context"]


def reports(data, _):
    """Questions on company reports and whole pages of them, tables and all: FinanceBench."""
    for entry in lines(data / "financebench/financebench_open_source.jsonl"):
        for evidence in entry["evidence"]:
            yield entry["question"], evidence["evidence_text_full_page"]


def meetings(data, rng):
    """Questions on meetings and a stretch of the transcript, 60 to 3,000 words: QMSum."""
    for part in ("Academic", "Committee"):
        for meeting in lines(data / f"qmsum/{part}/val.jsonl"):
            words = " ".join(f"{turn['speaker']}: {turn['content']}" for turn in meeting["meeting_transcripts"]).split(" ")
            for entry in meeting["specific_query_list"]:
                length = round(math.exp(rng.uniform(math.log(60), math.log(3000))))
                start = rng.randrange(max(1, len(words) - length))
                yield entry["query"], " ".join(words[start:start + length])


def records(data, rng):
    """A key and a list of up to 75 random keys and values, where every token counts: Lost in the Middle."""
    for entry in lines(data / "lost-in-the-middle/kv-retrieval-75_keys.jsonl.gz"):
        kept = dict(entry["ordered_kv_records"][:rng.randint(3, 75)])
        yield f"What is the value of {rng.choice(list(kept))}?", json.dumps(kept, indent=1)


# Each source and its share of the pairs, in hundredths.
SOURCES = [(passages, 53), (abstracts, 11), (languages, 10), (reports, 12), (meetings, 10), (records, 4)]


def choose(data, count, seed):
    """`count` pairs from `data`, shuffled, as the objects that `jointly score` reads."""
    chosen = []
    try:
        for source, share in SOURCES:
            rng = random.Random(f"{seed} {source.__name__}")
            pool = list(dict.fromkeys(pair for pair in source(data, rng) if not CONTROL.search("\n".join(pair))))
            chosen += [(source.__name__, *pair) for pair in rng.sample(pool, count * share // 100)]
        rng = random.Random(seed)
        pool = [pair for pair in passages(data, rng) if ("passages", *pair) not in chosen]
        chosen += [("passages", *pair) for pair in rng.sample(pool, count - len(chosen))]
    except FileNotFoundError as error:
        raise Missing(f"{error.filename} is not there: --data is a folder with the collections that README.md lists") from None
    rng.shuffle(chosen)
    return [{"id": f"{i}:{source}", "query": query, "document": document} for i, (source, query, document) in enumerate(chosen)]
