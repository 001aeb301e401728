"""Writes testdata/tiny-*/gradients.safetensors: the loss of the fixture's pairs and the gradient of every parameter, by PyTorch in fp32.

    pip install -r scripts/make_fixtures/requirements.txt
    python scripts/make_fixtures/gradients.py --data testdata

The loss is the mean binary cross-entropy of the pairs' logits against TARGETS. Every pair is computed alone, without
padding. Of a table most of whose rows have no gradient, only the others are kept, with their numbers in `NAME.rows`.
"""

import argparse
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

MODELS = ["bert", "electra", "roberta", "xlm-roberta", "mpnet", "deberta-v2", "modernbert", "modernbert-cls"]
TARGETS = [0.9, 0.1, 0.5, 1.0, 0.0, 0.7, 0.3, 0.6]


def write(folder):
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32).eval()
    expected = load_file(folder / "expected.safetensors")
    logits = []
    for i in range(len(TARGETS)):
        inputs = {"input_ids": expected[f"pair{i}.input_ids"].long()[None]}
        if getattr(model.config, "type_vocab_size", 0) > 1:
            inputs["token_type_ids"] = expected[f"pair{i}.token_type_ids"].long()[None]
        logits.append(model(**inputs).logits.reshape(1))
    logits = torch.cat(logits)
    difference = max(float((logits[i] - expected[f"pair{i}.logits"]).abs()) for i in range(len(TARGETS)))
    assert difference < 1e-5, f"{folder}: the logits are off by {difference}"
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor(TARGETS))
    loss.backward()
    tensors = {"loss": loss.detach().reshape(1), "logits": logits.detach()}
    for name, parameter in model.named_parameters():
        if parameter.grad is None:
            continue
        gradient = parameter.grad
        if gradient.dim() == 2:
            rows = gradient.abs().sum(1).nonzero()[:, 0]
            if len(rows) < gradient.shape[0] // 2:
                tensors[f"{name}.rows"] = rows.int()
                gradient = gradient[rows]
        tensors[name] = gradient.contiguous()
    metadata = {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__,
                "command": "python scripts/make_fixtures/gradients.py --data testdata"}
    save_file(tensors, folder / "gradients.safetensors", metadata)
    print(folder.name, f"loss {float(loss):.6f}", len(tensors), "tensors")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in MODELS:
        write(args.data / f"tiny-{name}")


if __name__ == "__main__":
    main()
