"""Writes a checkpoint as the model folder that is shipped: fp16 weights, tokenizer without truncation or padding.

Prints the largest difference between the logits of the f32 checkpoint and of the fp16 export on `--check` groups.
"""
import argparse
import json
import os
import pathlib
import tempfile

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import BertForSequenceClassification


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="existing files are replaced one by one, atomically")
    parser.add_argument("--check", type=pathlib.Path, help="a *.groups.jsonl file")
    parser.add_argument("--check-pairs", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    model = BertForSequenceClassification.from_pretrained(args.checkpoint, num_labels=1, dtype=torch.float32).eval()
    config = {
        "architectures": ["BertForSequenceClassification"],
        "attention_probs_dropout_prob": 0.1,
        "classifier_dropout": None,
        "dtype": "float16",
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": model.config.hidden_size,
        "id2label": {"0": "LABEL_0"},
        "initializer_range": 0.02,
        "intermediate_size": model.config.intermediate_size,
        "label2id": {"LABEL_0": 0},
        "layer_norm_eps": model.config.layer_norm_eps,
        "max_position_embeddings": model.config.max_position_embeddings,
        "model_type": "bert",
        "num_attention_heads": model.config.num_attention_heads,
        "num_hidden_layers": model.config.num_hidden_layers,
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
        "sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid", "version": "5.1.0"},
        "torch_dtype": "float16",
        "type_vocab_size": model.config.type_vocab_size,
        "use_cache": True,
        "vocab_size": model.config.vocab_size,
    }
    tokenizer = json.loads((args.checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["truncation"] = tokenizer["padding"] = None
    special = {"cls_token": "[CLS]", "mask_token": "[MASK]", "pad_token": "[PAD]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    tokenizer_config = {**special, "do_basic_tokenize": True, "do_lower_case": True, "model_max_length": 512, "never_split": None,
                        "strip_accents": None, "tokenize_chinese_chars": True, "tokenizer_class": "BertTokenizer"}

    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out.parent) as temporary:
        temporary = pathlib.Path(temporary)
        tensors = {k: v.to(torch.float16).contiguous() for k, v in sorted(model.state_dict().items()) if not k.endswith("position_ids")}
        if not all(torch.isfinite(v).all() for v in tensors.values()):
            raise SystemExit("a weight does not fit fp16")
        save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
        (temporary / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        for name, value in (("config.json", config), ("tokenizer_config.json", tokenizer_config), ("special_tokens_map.json", special)):
            (temporary / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
        for path in sorted(temporary.iterdir()):
            path.chmod(0o644)
            os.replace(path, args.out / path.name)

    if args.check:
        exported = BertForSequenceClassification.from_pretrained(args.out, dtype=torch.float32).eval()
        encoder = Tokenizer.from_file(str(args.out / "tokenizer.json"))
        encoder.enable_truncation(512, strategy="only_second")
        rows = [json.loads(line) for line in args.check.read_text(encoding="utf-8").splitlines()]
        pairs = [(row["query"], d["text"]) for row in rows for d in row["documents"]]
        worst, before, total = 0.0, [], 0.0
        with torch.inference_mode():
            pairs = pairs[:: max(1, len(pairs) // args.check_pairs)][: args.check_pairs]
            for query, document in pairs:
                e = encoder.encode(query, document)
                inputs = {"input_ids": torch.tensor([e.ids]), "token_type_ids": torch.tensor([e.type_ids])}
                a, b = float(model(**inputs).logits), float(exported(**inputs).logits)
                worst, total = max(worst, abs(a - b)), total + abs(a - b)
                before.append(a)
        print(f"{len(pairs)} pairs: max |fp16 weights - f32 weights| = {worst:.5f}, mean {total / len(pairs):.5f}; "
              f"logits from {min(before):.2f} to {max(before):.2f}")


if __name__ == "__main__":
    main()
