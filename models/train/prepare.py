"""Builds the training groups: passages, queries, mined candidates and teacher scores.

Output folder:
  passages.jsonl  {text, source}
  queries.jsonl   {text, source, gold: [passage index, ...]}
  candidates.npz  candidates i32 [queries, C], cosine_small / cosine_large f32 [queries, C] (NaN: not scored)

A query's candidates are, in order: its gold passage first (-1 if it has none), then BM25 ranks, then
bi-encoder ranks, then random passages. Teacher scores are bi-encoder cosines, one column per candidate.
"""
import argparse
import collections
import json
import pathlib
import random
import tarfile
import time
import xml.etree.ElementTree as ElementTree

import numpy as np

from collection import clean, keywords, read_jsonl, split_passages, web_query


class Pool:
    def __init__(self, rng, words):
        self.rng, self.words = rng, words
        self.passages, self.queries, self.index = [], [], {}

    def add(self, text, title, source):
        if text in self.index:
            return self.index[text]
        shown = text
        if title and self.rng.random() < 0.25:
            shown = f"{title}. {text}" if self.rng.random() < 0.5 else f"{title} {text}"
        self.index[text] = len(self.passages)
        self.passages.append({"text": shown, "source": source})
        return self.index[text]

    def add_document(self, text, title, source, limit=4):
        # Passages of several lengths, so that length itself carries no signal.
        words = self.rng.choice([int(self.words * 0.6), self.words, self.words, int(self.words * 1.5)])
        return [self.add(part, title, source) for part in split_passages(text, words)[:limit]]

    def ask(self, text, gold, source, keyword_share):
        text = web_query(text, self.rng)
        if self.rng.random() < keyword_share:
            short = keywords(text)
            if len(short.split()) >= 2:
                text = short
        if len(text) > 2:
            self.queries.append({"text": text, "source": source, "gold": gold})


def load(data, pool, limits, keyword_share):
    rng = pool.rng
    for name in ("squad", "nq"):
        corpus = {row["_id"]: row for row in read_jsonl(data / name / "corpus.jsonl")}
        texts = {row["_id"]: row["text"] for row in read_jsonl(data / name / "queries.jsonl")}
        with open(data / name / "qrels/train.tsv", encoding="utf-8") as lines:
            pairs = [line.split() for line in lines][1:]
        by_doc = collections.defaultdict(list)
        for query, doc, _ in pairs:
            by_doc[doc].append(query)
        docs = sorted(by_doc)
        rng.shuffle(docs)
        taken, titles = 0, set()
        for doc in docs:
            if taken >= limits[name]:
                break
            row = corpus[doc]
            gold = pool.add_document(row["text"], row["title"], name)
            questions = rng.sample(by_doc[doc], min(3, len(by_doc[doc])))
            for query in questions:
                pool.ask(texts[query], gold, name, keyword_share)
                taken += 1
            titles.add(row["title"])
        for title in sorted(titles)[: limits["title"] // 2]:
            pool.ask(title.replace("_", " "), [], name + "-title", 0)

    items = []
    with tarfile.open(data / "medquad/MedQuAD-HEAD.tar.gz") as tar:
        for member in tar:
            if not member.name.endswith(".xml"):
                continue
            root = ElementTree.fromstring(tar.extractfile(member).read())
            focus = root.findtext("Focus") or ""
            for pair in root.iter("QAPair"):
                question, answer = pair.findtext("Question"), pair.findtext("Answer")
                if question and answer and len(answer.split()) > 15:
                    items.append((clean(question).replace("What is (are)", "what is"), clean(answer), clean(focus)))
    rng.shuffle(items)
    for question, answer, focus in items[: limits["medquad"]]:
        gold = pool.add_document(answer, focus, "medquad", limit=2)
        pool.ask(question.lower(), gold, "medquad", keyword_share)

    taken = 0
    for path in sorted((data / "bioasq12b-golden").glob("*.json")):
        for question in json.loads(path.read_text(encoding="utf-8"))["questions"]:
            snippets = [s["text"] for s in question["snippets"] if len(s["text"].split()) > 8]
            gold = [pool.add(clean(" ".join(s.split()[:110])), None, "bioasq") for s in dict.fromkeys(snippets[:4])]
            if gold and taken < limits["bioasq"]:
                pool.ask(question["body"], gold, "bioasq", keyword_share)
                taken += 1

    papers = sorted(json.loads((data / "pubmedqa/ori_pqal.json").read_text(encoding="utf-8")).items())
    rng.shuffle(papers)
    for _, paper in papers[: limits["pubmedqa"]]:
        gold = [pool.add(clean(paper["LONG_ANSWER"]), None, "pubmedqa")]
        gold += pool.add_document(" ".join(paper["CONTEXTS"]), None, "pubmedqa", limit=2)
        pool.ask(paper["QUESTION"], gold, "pubmedqa", keyword_share)

    covid = json.loads((data / "covid-qa/200423_covidQA.json").read_text(encoding="utf-8"))["data"]
    items = [(qa, par["context"]) for article in covid for par in article["paragraphs"] for qa in par["qas"] if qa["answers"]]
    rng.shuffle(items)
    for qa, context in items[: limits["covid-qa"]]:
        start = qa["answers"][0]["answer_start"]
        end = start + len(qa["answers"][0]["text"])
        left = max(context.rfind(". ", 0, max(0, start - 150)) + 2, start - 400, 0)
        right = context.find(". ", end + 150)
        right = min(right + 1 if right > 0 else end + 400, end + 400)
        passage = " ".join(clean(context[left:right]).split()[:120])
        pool.ask(qa["question"], [pool.add(passage, None, "covid-qa")], "covid-qa", keyword_share)


def encode(path, texts, max_length, threads, what, normalize=True):
    """Mean-pooled, normalised embeddings of a sentence-transformers folder, in bf16, sorted by length."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModel.from_pretrained(path, dtype=torch.float32).to(torch.bfloat16).eval()
    ids = tokenizer(texts, truncation=True, max_length=max_length, padding=False)["input_ids"]
    order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
    out = np.zeros((len(ids), model.config.hidden_size), np.float32)
    start, done, said = time.time(), 0, 0
    with torch.inference_mode():
        while done < len(order):
            longest = len(ids[order[done]])
            batch = order[done : done + max(1, 6144 // longest)]
            tokens = torch.full((len(batch), longest), tokenizer.pad_token_id)
            mask = torch.zeros((len(batch), longest), dtype=torch.long)
            for row, i in enumerate(batch):
                tokens[row, : len(ids[i])] = torch.tensor(ids[i])
                mask[row, : len(ids[i])] = 1
            states = model(input_ids=tokens, attention_mask=mask).last_hidden_state.float()
            pooled = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            out[batch] = torch.nn.functional.normalize(pooled, dim=1).numpy()
            done += len(batch)
            if time.time() - said > 20:
                said = time.time()
                print(f"{what}: {done}/{len(order)} in {said - start:.0f} s", flush=True)
    print(f"{what}: {len(order)} texts in {time.time() - start:.0f} s", flush=True)
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder with squad, nq, medquad, ...")
    parser.add_argument("--small", required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--large", help="folder of all-mpnet-base-v2; without it there is one teacher")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--words", type=int, default=58, help="words per passage, about")
    parser.add_argument("--keyword-share", type=float, default=0.3, help="share of questions turned into keywords")
    parser.add_argument("--limit", action="append", default=[], metavar="SET=N", help="queries per set")
    parser.add_argument("--bm25", type=int, default=14, help="BM25 candidates per query, sampled from the top 40")
    parser.add_argument("--dense", type=int, default=10, help="bi-encoder candidates, sampled from the top 60")
    parser.add_argument("--random", type=int, default=8)
    args = parser.parse_args()
    limits = {"squad": 6000, "nq": 2655, "medquad": 2600, "bioasq": 340, "pubmedqa": 900, "covid-qa": 400, "title": 800}
    limits.update((k, int(v)) for k, v in (item.split("=") for item in args.limit))
    args.out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(args.seed)

    pool = Pool(rng, args.words)
    load(args.data, pool, limits, args.keyword_share)
    passages, queries = [p["text"] for p in pool.passages], [q["text"] for q in pool.queries]
    print(len(passages), "passages", sum(len(p.split()) for p in passages) / len(passages), "words;", len(queries), "queries")
    print(collections.Counter(q["source"] for q in pool.queries), collections.Counter(p["source"] for p in pool.passages), flush=True)

    small_p = encode(args.small, passages, 160, args.threads, "small passages")
    small_q = encode(args.small, queries, 64, args.threads, "small queries")

    import bm25s

    index = bm25s.BM25(k1=0.9, b=0.4)
    index.index(bm25s.tokenize(passages, stopwords="en", show_progress=False), show_progress=False)
    lexical, _ = index.retrieve(bm25s.tokenize(queries, stopwords="en", show_progress=False), k=40, show_progress=False)

    columns = 1 + args.bm25 + args.dense + args.random
    candidates = np.full((len(queries), columns), -1, np.int32)
    cosine = np.full((len(queries), columns), np.nan, np.float32)
    for q, query in enumerate(pool.queries):
        sims = small_p @ small_q[q]
        # The gold passage of a longer gold document is the one the teacher likes best; its siblings are
        # neither positive nor negative, so they stay out of the group.
        best = max(query["gold"], key=lambda p: sims[p], default=-1)
        siblings = set(query["gold"])
        top = np.argpartition(-sims, 61)[:61]
        top = top[np.argsort(-sims[top])]
        bm25_head = [int(p) for p in lexical[q] if int(p) not in siblings]
        dense_head = [int(p) for p in top if int(p) not in siblings]
        # Half of each from its first ranks, the rest from further down.
        def pick(head, count, near):
            chosen = rng.sample(head[:near], min(count // 2, len(head[:near])))
            rest = [p for p in head if p not in chosen]
            return chosen + rng.sample(rest, min(count - len(chosen), len(rest)))

        row = dict.fromkeys(pick(bm25_head, args.bm25, 12))
        row.update(dict.fromkeys(pick([p for p in dense_head if p not in row], args.dense, 12)))
        while len(row) < columns - 1:
            extra = rng.randrange(len(passages))
            if extra not in siblings:
                row[extra] = None
        members = [best, *list(row)[: columns - 1]]
        candidates[q, : len(members)] = members
        known = candidates[q] >= 0
        cosine[q, known] = sims[candidates[q, known]]

    def save(large):
        temporary = args.out / "candidates.tmp.npz"
        np.savez(temporary, candidates=candidates, cosine_small=cosine, cosine_large=large)
        temporary.replace(args.out / "candidates.npz")

    for name, rows in (("passages", pool.passages), ("queries", pool.queries)):
        with open(args.out / f"{name}.jsonl", "w", encoding="utf-8") as out:
            out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    large = np.full_like(cosine, np.nan)
    save(large)
    if args.large:
        large_q = encode(args.large, queries, 64, args.threads, "large queries")
        large_p = encode(args.large, passages, 160, args.threads, "large passages")
        for q in range(len(queries)):
            known = candidates[q] >= 0
            large[q, known] = large_p[candidates[q, known]] @ large_q[q]
        save(large)
    print("done", flush=True)


if __name__ == "__main__":
    main()
