"""Scores the pairs of Parquet files with Ray Data, each worker with a model of its own.

    python examples/score_ray.py 'pairs/*.parquet' scored [--address auto] [--model MODEL] [--workers 1]

The files need the columns ``query`` and ``document``; all columns are kept, ``logit`` and ``score`` are added. Without --address a Ray of its own is
started on this machine. Where every machine of a cluster finds MODEL, and the package is installed, nothing else is needed.
"""

from __future__ import annotations

import argparse

import pyarrow as pa
import ray
import ray.data

from jointly import CrossEncoder


class Score:
    """What a worker keeps: the model, loaded once."""

    def __init__(self, model: str, threads: int) -> None:
        self.model = CrossEncoder(model, threads=threads)

    def __call__(self, batch: pa.Table) -> pa.Table:
        scores = self.model.score_pairs(queries=batch["query"], documents=batch["document"])
        return batch.append_column("logit", pa.array(scores.logits)).append_column("score", pa.array(scores.scores))


def score(pairs: ray.data.Dataset, model: str = "default", workers: int = 2, threads: int = 1) -> ray.data.Dataset:
    """The same rows with ``logit`` and ``score``. ``threads`` is how many cores each worker takes of its node, and keeps: leave
    some for reading, or nothing will ever begin."""
    return pairs.map_batches(
        Score,
        fn_constructor_kwargs={"model": model, "threads": threads},
        batch_format="pyarrow",
        batch_size=1024,
        num_cpus=threads,
        concurrency=workers,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs")
    parser.add_argument("output", help="a folder for Parquet files")
    parser.add_argument("--address", help="of a running cluster")
    parser.add_argument("--model", default="default")
    parser.add_argument("--workers", type=int, default=1, help="fewer than cores")
    parser.add_argument("--threads", type=int, default=1, help="of each worker")
    args = parser.parse_args()
    ray.init(address=args.address)
    score(ray.data.read_parquet(args.pairs), args.model, args.workers, args.threads).write_parquet(args.output)


if __name__ == "__main__":
    main()
