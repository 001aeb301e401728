"""A Ray cluster of two nodes on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from .conftest import EXAMPLES, PAIRS

# Their own warnings are not ours to mend.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def nodes() -> Iterator[int]:
    from ray.cluster_utils import Cluster

    os.environ["PYTHONPATH"] = os.pathsep.join([str(EXAMPLES), os.environ.get("PYTHONPATH", "")])
    # A core of each for a worker, and one for reading: workers keep theirs, and with none left nothing would be read.
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, log_to_driver=False)
    yield sum(node["Alive"] for node in ray.nodes())
    ray.shutdown()
    cluster.shutdown()


def test_every_pair_once_and_the_bits_of_one_process(nodes: int, pairs: Path, expected: list[float]) -> None:
    import score_ray

    assert nodes == 2
    rows = score_ray.score(ray.data.read_parquet(str(pairs)), workers=2).to_pandas().sort_values("id")
    assert rows["id"].tolist() == list(range(PAIRS))
    assert rows["logit"].tolist() == expected
    assert set(rows.columns) == {"id", "query", "document", "logit", "score"}


def test_a_pair_that_is_wrong_is_named(nodes: int) -> None:
    import score_ray

    wrong = ray.data.from_items([{"query": "q", "document": "d"}, {"query": "q", "document": None}])
    with pytest.raises(Exception, match="document 1 is None; a text is needed"):
        score_ray.score(wrong, workers=1).materialize()
