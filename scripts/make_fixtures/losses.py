"""Writes testdata/losses.json: every loss of `jointly train` and its derivative with respect to each logit, by PyTorch in fp64.

    pip install -r scripts/make_fixtures/requirements.txt
    python scripts/make_fixtures/losses.py --data testdata

The definitions are written here anew, from PyTorch's own losses where it has one, and differentiated by autograd.
"""

import argparse
import json
from pathlib import Path

import torch
from torch.nn import functional

COMMAND = "python scripts/make_fixtures/losses.py --data testdata"
SIZES = [2, 3, 5, 9, 32]


def unequal(labels):
    """Places (better, worse)."""
    return (labels[:, None] > labels[None, :]).nonzero(as_tuple=True)


def ranknet(logits, labels):
    better, worse = unequal(labels)
    return functional.softplus(-(logits[better] - logits[worse])).mean()


def lambda_loss(logits, labels):
    """NDCG-Loss2 of LambdaLoss, the weights of pairs held fast; in bits."""
    gains = 2.0 ** labels.clamp(0, 30) - 1
    discount = lambda rank: torch.log2(rank + 1)
    ranks = torch.arange(1, len(labels) + 1, dtype=torch.float64)
    ideal = (gains.sort(descending=True).values / discount(ranks)).sum()
    place = torch.empty_like(ranks)
    place[logits.argsort(descending=True, stable=True)] = ranks
    better, worse = unequal(labels)
    apart = (place[better] - place[worse]).abs()
    delta = 1 / discount(apart) - 1 / discount(apart + 1)
    weight = (delta * (gains[better] - gains[worse]) / ideal).detach()
    return (weight * -torch.log2(torch.sigmoid(logits[better] - logits[worse]))).sum()


def margin_mse(logits, labels):
    pairs = torch.combinations(torch.arange(len(labels)))
    margins = lambda values: values[pairs[:, 0]] - values[pairs[:, 1]]
    return functional.mse_loss(margins(logits), margins(labels))


LOSSES = {
    "mse": lambda logits, labels, _: functional.mse_loss(logits, labels),
    "bce": lambda logits, _, probabilities: functional.binary_cross_entropy_with_logits(logits, probabilities),
    "ranknet": lambda logits, labels, _: ranknet(logits, labels),
    "lambda": lambda logits, labels, _: lambda_loss(logits, labels),
    "softmax": lambda logits, labels, _: functional.cross_entropy(logits, labels.clamp(min=0) / labels.clamp(min=0).sum()),
    "margin_mse": lambda logits, labels, _: margin_mse(logits, labels),
    "kl": lambda logits, labels, _: functional.kl_div(
        logits.log_softmax(0), labels.log_softmax(0), reduction="sum", log_target=True),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(5)
    normal = lambda size: torch.randn(size, generator=generator).double()
    cases = []
    for size in SIZES:
        # Grades with ties, as people give them, and scores of both signs, as a fit does.
        grades = torch.arange(size).remainder(4).flip(0).double()
        for labels in (grades, 1.5 * normal(size)):
            labels[0] = labels[0].abs() + 0.5  # at least one gains something
            logits = (2 * normal(size)).float().double().requires_grad_()
            labels, probabilities = labels.float().double(), torch.rand(size, generator=generator).float().double()
            case = {"logits": logits.tolist(), "labels": labels.tolist(), "probabilities": probabilities.tolist(), "losses": {}}
            for name, loss in LOSSES.items():
                value = loss(logits, labels, probabilities)
                (gradient,) = torch.autograd.grad(value, logits)
                case["losses"][name] = {"loss": float(value.detach()), "gradient": gradient.tolist()}
            cases.append(case)
    header = {"command": COMMAND, "torch": torch.__version__.split("+")[0], "cases": cases}
    (args.data / "losses.json").write_text(json.dumps(header, indent=1) + "\n")
    print(len(cases), "cases of", len(LOSSES), "losses")


if __name__ == "__main__":
    main()
