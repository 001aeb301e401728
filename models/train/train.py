"""Trains a BERT cross-encoder on the groups of prepare.py: graded targets from bi-encoders, pushed by gold labels.

Target logit of a pair:  y = slope * (z - centre) + bonus * is_gold,  z = mean over teachers of the standardised cosine.
Loss:  KL(softmax y || softmax s) over the query's group  +  binary cross-entropy of s against sigmoid(y).
A negative whose teacher cosine exceeds 95% of the gold passage's may be an unlabelled positive: it stays out of the KL.
Master weights, logits and loss are f32; matrix products run in bf16 (autocast). Word embeddings stay frozen.
"""
import argparse
import json
import math
import pathlib
import random
import shutil
import time

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from transformers import BertForSequenceClassification

CLS, SEP, PAD = 101, 102, 0
MAX_QUERY = 48


def texts_of(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def tokenize(tokenizer, texts):
    return [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]


class Groups:
    def __init__(self, folder, tokenizer, args):
        self.args = args
        queries, passages = texts_of(folder / "queries.jsonl"), texts_of(folder / "passages.jsonl")
        repeats = dict(item.split("=") for item in args.repeat)
        self.order = [i for i, q in enumerate(queries) for _ in range(int(repeats.get(q["source"], 1)))]
        self.query_ids = tokenize(tokenizer, [q["text"] for q in queries])
        self.passage_ids = tokenize(tokenizer, [p["text"] for p in passages])
        data = np.load(folder / "candidates.npz")
        self.candidates = data["candidates"]
        small, large = data["cosine_small"], data["cosine_large"]
        teachers = [(small, args.small_weight)]
        if np.isfinite(large).any():
            teachers.append((large, 1 - args.small_weight))
        mined = slice(1, 1 + args.bm25_columns)
        self.cosine = sum(w * t for t, w in teachers) / sum(w for _, w in teachers)
        self.z = sum(w * (t - np.nanmean(t[:, mined])) / np.nanstd(t[:, mined]) for t, w in teachers) / sum(w for _, w in teachers)
        gold, hard = self.z[:, 0], self.z[:, mined]
        print(f"{len(queries)} queries, {len(passages)} passages, {len(teachers)} teacher(s); z: gold median "
              f"{np.nanmedian(gold):.2f}, mined 50/90/97%: {np.nanquantile(hard, [.5, .9, .97]).round(2)}", flush=True)

    def group(self, q, rng):
        """(query ids, [document ids], targets, in-KL flags) of one query."""
        a = self.args
        row = self.candidates[q]
        bm25 = range(1, 1 + a.bm25_columns)
        dense = range(1 + a.bm25_columns, 1 + a.bm25_columns + a.dense_columns)
        other = range(1 + a.bm25_columns + a.dense_columns, len(row))
        columns = [0] if row[0] >= 0 else []
        columns += rng.sample([c for c in bm25 if row[c] >= 0], a.group // 2)
        columns += rng.sample([c for c in dense if row[c] >= 0], (a.group - len(columns)) * 2 // 3)
        columns += rng.sample([c for c in other if row[c] >= 0], a.group - len(columns))
        is_gold = np.array([c == 0 for c in columns])
        y = a.slope * (self.z[q, columns] - a.centre) + a.bonus * is_gold
        keep = np.ones(len(columns), bool)
        if is_gold[0]:
            keep = is_gold | (self.cosine[q, columns] <= a.guard * self.cosine[q, 0])
        return self.query_ids[q], [self.document(row[c], rng) for c in columns], y, keep

    def document(self, passage, rng):
        ids = self.passage_ids[passage]
        # A longer document whose best passage is this one: the score of a document is that of its best part.
        if rng.random() < self.args.long_share:
            parts = [ids] + [self.passage_ids[rng.randrange(len(self.passage_ids))] for _ in range(rng.randint(1, 3))]
            rng.shuffle(parts)
            ids = [i for part in parts for i in part]
        return ids


def forward(model, pairs, max_length, micro):
    """Logits f32 of (query ids, document ids) pairs, run in length-sorted micro-batches."""
    rows = []
    for query, document in pairs:
        query = query[:MAX_QUERY]
        document = document[: max_length - len(query) - 3]
        rows.append(([CLS, *query, SEP, *document, SEP], len(query) + 2))
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]))
    logits = []
    for start in range(0, len(order), micro):
        batch = [rows[i] for i in order[start : start + micro]]
        longest = max(len(ids) for ids, _ in batch)
        tokens = torch.full((len(batch), longest), PAD)
        types, mask = torch.zeros_like(tokens), torch.zeros_like(tokens)
        for r, (ids, first) in enumerate(batch):
            tokens[r, : len(ids)] = torch.tensor(ids)
            types[r, first : len(ids)] = 1
            mask[r, : len(ids)] = 1
        with torch.autocast("cpu", dtype=torch.bfloat16):
            states = model.bert(input_ids=tokens, token_type_ids=types, attention_mask=mask).last_hidden_state
        # The head in f32: its rounding would be the score's.
        first = states[:, 0].float()
        pooled = torch.tanh(model.bert.pooler.dense(first))
        logits.append(model.classifier(pooled)[:, 0])
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.tensor(order)] = torch.arange(len(order))
    return torch.cat(logits)[back]


def save(model, tokenizer_from, folder):
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(pathlib.Path(tokenizer_from) / name, temporary / name)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=pathlib.Path, required=True, help="output folder of prepare.py")
    parser.add_argument("--init", required=True, help="model folder: the trunk, or a checkpoint to go on from")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--minutes", type=float, default=1e9, help="decay faster if this would be exceeded")
    parser.add_argument("--save-minutes", type=float, default=4)
    parser.add_argument("--lr", type=float, default=1.2e-4)
    parser.add_argument("--head-lr", type=float, default=5e-4)
    parser.add_argument("--warmup", type=int, default=80)
    parser.add_argument("--queries", type=int, default=8, help="groups per step")
    parser.add_argument("--group", type=int, default=8, help="documents per group")
    parser.add_argument("--micro", type=int, default=16, help="pairs per micro-batch")
    parser.add_argument("--repeat", action="append", default=[], metavar="SET=N", help="a set's queries N times an epoch")
    parser.add_argument("--max-length", type=int, default=112)
    parser.add_argument("--long-share", type=float, default=0.0)
    parser.add_argument("--small-weight", type=float, default=0.4)
    parser.add_argument("--slope", type=float, default=2.0)
    parser.add_argument("--centre", type=float, default=0.8)
    parser.add_argument("--bonus", type=float, default=1.5)
    parser.add_argument("--guard", type=float, default=0.95)
    parser.add_argument("--bm25-columns", type=int, default=14)
    parser.add_argument("--dense-columns", type=int, default=10)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(str(pathlib.Path(args.init) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    groups = Groups(args.groups, tokenizer, args)

    # Dropout costs a third of the time on a CPU and less than one pass is made over the data. Eager attention:
    # its bf16 backward is faster than the fused one at these lengths.
    model = BertForSequenceClassification.from_pretrained(
        args.init, num_labels=1, attn_implementation="eager", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model.float().train()
    model.bert.embeddings.word_embeddings.weight.requires_grad_(False)
    head = list(model.classifier.parameters()) + list(model.bert.pooler.parameters())
    in_head = {id(p) for p in head}
    body = [p for p in model.parameters() if p.requires_grad and id(p) not in in_head]
    head_lr = args.head_lr
    optimizer = torch.optim.AdamW([{"params": body, "lr": args.lr}, {"params": head, "lr": head_lr}],
                                  betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    peaks = [args.lr, head_lr]

    order, start, saved, average, pairs_done = [], time.time(), time.time(), {}, 0
    step = 0
    while True:
        minutes = (time.time() - start) / 60
        progress = max(step / args.steps, minutes / args.minutes)
        if progress >= 1:
            break
        scale = min(1.0, (step + 1) / args.warmup) * max(0.02, 1 - progress)
        for peak, param_group in zip(peaks, optimizer.param_groups):
            param_group["lr"] = peak * scale
        pairs, target, keep = [], [], []
        for _ in range(args.queries):
            if not order:
                order = list(groups.order)
                rng.shuffle(order)
            query, documents, y, k = groups.group(order.pop(), rng)
            pairs += [(query, d) for d in documents]
            target.append(y)
            keep.append(k)
        y, keep = torch.tensor(np.array(target), dtype=torch.float32), torch.tensor(np.array(keep))
        s = forward(model, pairs, args.max_length, args.micro).view_as(y)
        inf = torch.finfo(torch.float32).min
        wanted = F.log_softmax(y.masked_fill(~keep, inf), -1)
        given = F.log_softmax(s.masked_fill(~keep, inf), -1)
        kl = (wanted.exp() * (wanted - given)).masked_fill(~keep, 0).sum(-1).mean()
        bce = F.binary_cross_entropy_with_logits(s, torch.sigmoid(y)) - F.binary_cross_entropy_with_logits(y, torch.sigmoid(y))
        loss = kl + bce
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        pairs_done += len(pairs)
        corr = torch.corrcoef(torch.stack([s.detach().flatten(), y.flatten()]))[0, 1]
        for name, value in (("kl", kl.detach()), ("bce", bce.detach()), ("corr", corr), ("norm", norm)):
            average[name] = average.get(name, float(value)) * 0.97 + float(value) * 0.03
        if not math.isfinite(float(loss)):
            raise SystemExit(f"loss is {float(loss)} at step {step}")
        if step % 20 == 0:
            said = " ".join(f"{k} {v:.3f}" for k, v in average.items())
            print(f"step {step} {minutes:.1f} min {pairs_done / (time.time() - start):.0f} pairs/s lr {peaks[0] * scale:.2e} {said}", flush=True)
        if time.time() - saved > args.save_minutes * 60:
            saved = time.time()
            save(model, args.init, args.out / "checkpoint")
            print(f"saved at step {step}", flush=True)
    save(model, args.init, args.out / "final")
    print(f"done: {step} steps, {pairs_done} pairs, {(time.time() - start) / 60:.1f} min", flush=True)


if __name__ == "__main__":
    main()
