"""Scores the pairs of Parquet files with Spark, by ``mapInArrow``.

    python examples/score_spark.py 'pairs/*.parquet' scored [--master spark://host:7077] [--model MODEL]

The files need the columns ``query`` and ``document``; all columns are kept, ``logit`` and ``score`` are added. A Python worker loads the model once and
keeps it for the tasks that come after. The package must be installed on every machine, and MODEL be where each of them finds it.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterable, Iterator

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import FloatType, StructField, StructType

from jointly import CrossEncoder


def score(pairs: DataFrame, model: str = "default", threads: int = 1) -> DataFrame:
    """The same rows with ``logit`` and ``score``. ``threads`` should be what ``spark.task.cpus`` says."""
    added = [StructField(name, FloatType(), False) for name in ("logit", "score")]

    def batches(given: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import score_spark  # by its name, so that a worker keeps one model, and not one for each task

        for batch in given:
            scores = score_spark.loaded(model, threads).score_pairs(queries=batch["query"], documents=batch["document"])
            columns = [*batch.columns, pa.array(scores.logits), pa.array(scores.scores)]
            yield pa.RecordBatch.from_arrays(columns, names=[*batch.schema.names, "logit", "score"])

    return pairs.mapInArrow(batches, StructType([*pairs.schema.fields, *added]))


@functools.lru_cache(maxsize=1)
def loaded(model: str, threads: int) -> CrossEncoder:
    return CrossEncoder(model, threads=threads)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs")
    parser.add_argument("output", help="a folder for Parquet files")
    parser.add_argument("--master", default="local[*]")
    parser.add_argument("--model", default="default")
    args = parser.parse_args()
    spark = SparkSession.builder.master(args.master).appName("jointly").getOrCreate()
    spark.sparkContext.addPyFile(__file__)
    import score_spark

    score_spark.score(spark.read.parquet(args.pairs), args.model).write.parquet(args.output)


if __name__ == "__main__":
    main()
