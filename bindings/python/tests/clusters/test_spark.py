"""Spark in its local-cluster mode: two executors, processes of their own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyspark import sql

from .conftest import EXAMPLES, PAIRS

# Their own warnings are not ours to mend.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    os.environ["PYSPARK_PYTHON"] = sys.executable
    session = (
        sql.SparkSession.builder.master("local-cluster[2,1,1024]")
        .config("spark.executor.memory", "1024m")
        .config("spark.ui.enabled", "false")
        .config("spark.python.worker.faulthandler.enabled", "true")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    session.sparkContext.addPyFile(str(EXAMPLES / "score_spark.py"))
    yield session
    session.stop()


def test_every_pair_once_and_the_bits_of_one_process(spark: Any, pairs: Path, expected: list[float]) -> None:
    import score_spark

    frame = spark.read.parquet(str(pairs)).repartition(8)
    rows = score_spark.score(frame).orderBy("id").collect()
    assert [row["id"] for row in rows] == list(range(PAIRS))
    assert [row["logit"] for row in rows] == expected
    assert rows[0].__fields__ == ["id", "query", "document", "logit", "score"]
    executors = spark.sparkContext._jsc.sc().statusTracker().getExecutorInfos()
    assert len(executors) == 3  # the driver, and two


def test_a_pair_that_is_wrong_is_named(spark: Any) -> None:
    import score_spark

    wrong = spark.createDataFrame([("q", "d"), ("q", None)], "query string, document string").coalesce(1)
    with pytest.raises(Exception, match="document 1 is None; a text is needed"):
        score_spark.score(wrong).collect()
