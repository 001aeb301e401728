"""Parity, batch invariance and speed on a GPU, beside sentence-transformers, in one table. scripts/gpu-check.sh runs it.

The models have seeded random weights in the shape of published ones: their times are those of that model, their scores are not.
Everybody reads the same folders and the same texts; times are from text to scores, the median of the rounds after one that is
not counted. The matrix rate is that of a product of two 8192 x 8192 matrices of bf16 in PyTorch, measured in the same run.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TESTDATA = ROOT / "testdata"
SEED = 7
ROUNDS = 5
WORDS = (
    "river bridge water stone night morning paper window garden letter engine signal winter summer market castle forest "
    "planet moon silver copper doctor teacher village harbour island mountain valley train ticket music violin colour number"
).split()

# Where PyTorch computes; "cpu" is for trying this program out.
DEVICE = os.environ.get("GPU_CHECK_TORCH_DEVICE", "cuda")

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


class Budget:
    """What a row needs, in seconds, against what is left."""

    def __init__(self, minutes):
        self.end = time.monotonic() + 60 * minutes
        self.skipped = 0

    def allows(self, seconds, what):
        if time.monotonic() + seconds <= self.end:
            return True
        self.skipped += 1
        print(f"skipped: {what}: no time left", flush=True)
        return False


def encoder(kind):
    import transformers as t

    if kind == "minilm-l6":
        config = t.BertConfig(vocab_size=30522, hidden_size=384, num_hidden_layers=6, num_attention_heads=12,
                              intermediate_size=1536, num_labels=1)
        return t.BertForSequenceClassification(config), "tiny-bert"
    if kind == "xlm-roberta-large":
        config = t.XLMRobertaConfig(vocab_size=250002, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16,
                                    intermediate_size=4096, max_position_embeddings=514, type_vocab_size=1, num_labels=1,
                                    layer_norm_eps=1e-5, pad_token_id=1, bos_token_id=0, eos_token_id=2)
        return t.XLMRobertaForSequenceClassification(config), "tiny-xlm-roberta"
    config = t.ModernBertConfig(vocab_size=50368, hidden_size=768, num_hidden_layers=22, num_attention_heads=12,
                                intermediate_size=1152, max_position_embeddings=8192, num_labels=1)
    return t.ModernBertForSequenceClassification(config), "tiny-modernbert"


def qwen3_4b():
    import transformers as t

    config = t.Qwen3Config(vocab_size=151936, hidden_size=2560, num_hidden_layers=36, num_attention_heads=32,
                           num_key_value_heads=8, head_dim=128, intermediate_size=9728, max_position_embeddings=40960,
                           rope_theta=1e6, tie_word_embeddings=True)
    return t.Qwen3ForCausalLM(config), "tiny-zerank"


def write_model(kind, folder):
    """A folder in Hugging Face layout, its weights in bf16."""
    import torch

    torch.manual_seed(SEED)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(DEVICE):
        model, tokenizer = qwen3_4b() if kind == "qwen3-4b" else encoder(kind)
    torch.set_default_dtype(torch.float32)
    shutil.copytree(TESTDATA / tokenizer, folder, ignore=shutil.ignore_patterns("expected.*", "gradients.*", "model.*"))
    keep = json.loads((folder / "config.json").read_text())
    model.save_pretrained(folder, max_shard_size="100GB")
    config = json.loads((folder / "config.json").read_text())
    # The tokenizer's own special tokens, and what the head reads.
    for field in ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"):
        if field in keep and kind != "xlm-roberta-large":
            config[field] = keep[field]
    config["architectures"] = keep["architectures"]
    config["dtype"] = "bfloat16"
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    limit = 8192 if kind in ("qwen3-4b", "modernbert-base") else 512
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["model_max_length"] = limit
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))
    del model
    torch.cuda.empty_cache()


def text_of(tokenizer, tokens, rng):
    """Words that make about so many tokens, at least one."""
    words = [rng.choice(WORDS)]
    length = len(tokenizer.encode(words[0], add_special_tokens=False).ids)
    while length < tokens:
        word = rng.choice(WORDS)
        length += len(tokenizer.encode(" " + word, add_special_tokens=False).ids)
        if length > tokens:
            break
        words.append(word)
    return " ".join(words)


def workload(folder, lengths, query_tokens):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    rng = random.Random(SEED)
    query = text_of(tokenizer, query_tokens, rng)
    return [{"query": query, "document": text_of(tokenizer, length, rng)} for length in lengths]


def msmarco_lengths():
    """Pairs of about N(95, 35) tokens, 20 to 256; less a query of 8 and what is special."""
    rng = random.Random(SEED)
    return [max(8, min(245, round(rng.gauss(95, 35))) - 11) for _ in range(100)]


def jointly(programs, folder, pairs, precision, out):
    file = out / "pairs.jsonl"
    file.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    command = [programs / "jointly", "bench", "--model", folder, "--device", "cuda", "--precision", precision, "--pairs", file,
               "--rounds", str(ROUNDS), "--format", "json", "--no-receipt-check", "--quiet"]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode != 0:
        return {"error": run.stderr.strip().splitlines()[-1:] or ["failed"]}
    report = json.loads(run.stdout)
    row = report["results"][0]
    return {"ms": row["median_ms"], "tokens": row["tokens"], "load_ms": row["load_ms"], "tau": row["kendall_tau"],
            "difference": row["largest_difference"], "device": report["device"]}


def peer(folder, pairs):
    """sentence-transformers in bf16: its best batch size and attention."""
    import torch
    from sentence_transformers import CrossEncoder

    best = None
    texts = [(pair["query"], pair["document"]) for pair in pairs]
    for attention in ("flash_attention_2", "sdpa"):
        try:
            model = CrossEncoder(str(folder), device=DEVICE,
                                 model_kwargs={"dtype": torch.bfloat16, "attn_implementation": attention})
        except Exception as error:  # an attention that is not installed
            print(f"{folder.name}: {attention}: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
            continue
        for batch in (25, 50, 100):
            times = []
            for round_ in range(4):
                torch.cuda.synchronize()
                began = time.perf_counter()
                model.predict(texts, batch_size=batch, show_progress_bar=False)
                torch.cuda.synchronize()
                if round_:
                    times.append((time.perf_counter() - began) * 1e3)
            found = statistics.median(times)
            if best is None or found < best["ms"]:
                best = {"ms": found, "batch": batch, "attention": attention}
        del model
        torch.cuda.empty_cache()
        break
    return best


def matrix_rate():
    import torch

    a, b = (torch.randn(8192, 8192, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(5):
        a @ b
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(20):
        a @ b
    torch.cuda.synchronize()
    return 20 * 2 * 8192**3 / (time.perf_counter() - began)


def prefix(folder, pairs, programs):
    """Tokens that all prompts begin with, as the template writes them."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    prompts = [tokenizer.apply_chat_template([{"role": "query", "content": pair["query"]},
                                              {"role": "document", "content": pair["document"]}], tokenize=True)
               for pair in pairs[:2]]
    prompts = [list(p["input_ids"]) if hasattr(p, "keys") else list(p) for p in prompts]
    return next((i for i, (a, b) in enumerate(zip(*prompts)) if a != b), min(map(len, prompts)))


# Operations for a token in the layers' products, and for a token and key in attention: METHODS of the literature, 2 a product.
QWEN_WEIGHTS = 2 * 36 * (2560 * 32 * 128 + 2 * 2560 * 8 * 128 + 32 * 128 * 2560 + 3 * 2560 * 9728)
QWEN_ATTENTION = 36 * 4 * 32 * 128


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--programs", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--minutes", type=float, default=8)
    arguments = parser.parse_args()
    budget = Budget(arguments.minutes)
    out, programs = arguments.out, arguments.programs
    results = []

    parity = subprocess.run([programs / "device_check", "cuda", TESTDATA], capture_output=True, text=True)
    print(parity.stdout + parity.stderr[-2000:], flush=True)
    results.append({"parity": parity.returncode == 0})

    try:
        import sentence_transformers  # noqa: F401
        import torch
    except ImportError as error:
        print(f"skipped: 9 rows of speed: {error}")
        return finish(results, budget, out, 9)
    rate = matrix_rate()
    print(f"matrix rate, bf16 8192^3 in PyTorch {torch.__version__}: {rate / 1e12:.0f} TFLOP/s", flush=True)
    results.append({"matrix_tflops": rate / 1e12})

    header = f"{'model':<18} {'workload':<12} {'tokens':>7} {'ours ms':>8} {'pairs/s':>8} {'peer ms':>8} {'ratio':>6} {'of matrix rate':>14}  notes"
    print(header, flush=True)
    models = pathlib.Path(tempfile.mkdtemp())
    plan = [("minilm-l6", "msmarco", msmarco_lengths(), 8), ("minilm-l6", "512", [490] * 100, 8),
            ("modernbert-base", "msmarco", msmarco_lengths(), 8), ("modernbert-base", "512", [490] * 100, 8),
            ("xlm-roberta-large", "msmarco", msmarco_lengths(), 8), ("xlm-roberta-large", "512", [490] * 100, 8),
            ("qwen3-4b", "100", [100] * 100, 20), ("qwen3-4b", "256", [256] * 100, 20), ("qwen3-4b", "512", [512] * 100, 20)]
    for kind, name, lengths, query_tokens in plan:
        if not budget.allows(90 if kind == "qwen3-4b" else 30, f"{kind} {name}"):
            continue
        folder = models / kind
        if not folder.exists():
            write_model(kind, folder)
        pairs = workload(folder, lengths, query_tokens)
        ours = jointly(programs, folder, pairs, "bf16", out)
        result = {"model": kind, "workload": name, "ours": ours}
        results.append(result)
        if "error" in ours:
            print(f"{kind:<18} {name:<12} {'':>7} {'FAILED':>8}  {ours['error'][0]}", flush=True)
            continue
        share, notes = "", f"tau {ours['tau']:.4f}, load {ours['load_ms']:.0f} ms" if ours["tau"] is not None else ""
        if kind == "qwen3-4b":
            shared = prefix(folder, pairs, programs)
            computed = ours["tokens"] - shared * (len(pairs) - 1)
            length = ours["tokens"] / len(pairs)
            # Of a token in attention, half of its keys on average; those of the prefix are computed once.
            keys = shared * shared / 2 + len(pairs) * (length - shared) * (shared + (length - shared) / 2)
            flops = QWEN_WEIGHTS * computed + QWEN_ATTENTION * keys
            reached = flops / (ours["ms"] / 1e3) / rate
            share = f"{100 * reached:.0f} %"
            result.update(shared_prefix=shared, computed_tokens=computed, of_matrix_rate=reached)
            notes += f", {shared} tokens shared"
        peers = peer(folder, pairs) if budget.allows(60 if kind == "qwen3-4b" else 20, f"peer of {kind} {name}") else None
        result["peer"] = peers
        ratio = f"{peers['ms'] / ours['ms']:.2f}" if peers else ""
        theirs = f"{peers['ms']:.1f}" if peers else ""
        if peers:
            notes += f"; peer: batches of {peers['batch']}, {peers['attention']}"
        print(f"{kind:<18} {name:<12} {ours['tokens']:>7} {ours['ms']:>8.1f} {len(pairs) / ours['ms'] * 1e3:>8.0f} {theirs:>8} "
              f"{ratio:>6} {share:>14}  {notes}", flush=True)
    shutil.rmtree(models, ignore_errors=True)
    return finish(results, budget, out, 0)


def finish(results, budget, out, more):
    (out / "results.json").write_text(json.dumps(results, indent=1))
    failed = sum("error" in result.get("ours", {}) or result.get("parity") is False for result in results)
    print(f"{len(results)} results, {failed} failed, {budget.skipped + more} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
