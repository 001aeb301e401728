"""Cascades from Python and from files are one thing."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from jointly import (
    Cascade,
    Confirm,
    CrossEncoder,
    Distinct,
    Dpp,
    Duo,
    InputError,
    IoError,
    Listwise,
    Mmr,
    OnePass,
    Rescore,
    Xquad,
)

from .conftest import DOCUMENTS, QUERY, ROOT

TEXTS = [*DOCUMENTS, DOCUMENTS[1] + "!", "Jaguars kill by biting through the skull of their prey."]


def test_a_cascade(model: CrossEncoder) -> None:
    cascade = Cascade([Rescore(model=model, keep=5), Distinct(), Mmr(keep=2, lambda_=0.7, min_max=True)], ms=60_000)
    assert len(cascade.names) == 3 and cascade.names[1:] == ["distinct", "mmr"]
    outcome = cascade.run(QUERY, TEXTS)
    assert sorted(hit.index for hit in outcome.hits) == list(range(len(TEXTS)))
    assert outcome.kept == 2 and len(outcome.best) == 2 and outcome.stop is None
    assert outcome.best[0].logit == model.rerank(QUERY, TEXTS, 1)[0].logit
    assert not {hit.index for hit in outcome.best} >= {1, 5}, "a copy is no second answer"
    assert [stage.incoming for stage in outcome.stages] == [len(TEXTS), 5, outcome.stages[1].kept]
    assert outcome.stages[0].pairs == len(TEXTS) and outcome.ms > 0


def test_a_file_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "cascade.toml"
    path.write_text('[[stage]]\nmodel = "default"\nkeep = 3\n[[stage]]\nkind = "mmr"\nkeep = 2\nmin_max = true\n')
    stages = [Rescore(model="default", keep=3), Mmr(keep=2, min_max=True)]
    assert Cascade.load(path, threads=1).run(QUERY, TEXTS).hits == Cascade(stages).run(QUERY, TEXTS).hits
    with pytest.raises(IoError, match="nowhere.toml"):
        Cascade.load(tmp_path / "nowhere.toml")


def test_confirm_keeps_the_first(model: CrossEncoder) -> None:
    cascade = Cascade([Confirm(model=model, screen_model="default", screen_precision="int8", slack=5.0, top_n=2)])
    outcome = cascade.run(QUERY, TEXTS)
    assert [hit.index for hit in outcome.hits[:2]] == [hit.index for hit in model.rerank(QUERY, TEXTS, 2)]
    assert outcome.stages[0].guarantee is not None and "first 2" in outcome.stages[0].guarantee
    near = Confirm(model=model, screen_model="default", screen_precision="int8", slack=0.2, top_n=2, same="set")
    found = Cascade([near]).run(QUERY, TEXTS)
    assert {hit.index for hit in found.hits[:2]} == {hit.index for hit in outcome.hits[:2]}
    assert found.stages[0].guarantee is not None and "in any order" in found.stages[0].guarantee


def test_budgets_and_what_a_run_is_given(model: CrossEncoder) -> None:
    stopped = Cascade([Rescore(model=model, batch_pairs=1)], tokens=1).run(QUERY, TEXTS)
    assert stopped.stop == "tokens" and len(stopped.hits) == len(TEXTS)
    blend = Cascade([Rescore(model=model, blend="rrf"), Dpp(keep=3, min_max=True)])
    assert len(blend.run(QUERY, TEXTS, first_scores=range(len(TEXTS), 0, -1), ms=1e6).hits) == len(TEXTS)
    with pytest.raises(InputError, match="1 scores for"):
        blend.run(QUERY, TEXTS, first_scores=[1.0])
    xquad = Cascade([Rescore(model=model), Xquad(model=model, keep=2)])
    assert xquad.run(QUERY, TEXTS).stages[1].notes == ["the request has no sub-queries"]
    with pytest.raises(InputError, match="document 1 is None"):
        blend.run(QUERY, ["a", None])  # type: ignore[list-item]
    with pytest.raises(InputError, match="the query is empty"):
        blend.run(" ", TEXTS)


def test_stages_that_cannot_be(model: CrossEncoder) -> None:
    for stages, message in (
        ([Mmr(keep=2, lambda_=1.5)], "lambda"),
        ([Confirm(model=model)], "slack is missing|screen"),
        ([Rescore(model=model, weight=0.5)], "go together"),
        ([Distinct(similarity="vectors")], "vectors"),
        ([], "no stage"),
    ):
        with pytest.raises(InputError, match=message):
            Cascade(stages)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="stage 1 is str"):
        Cascade(["mmr"])  # type: ignore[list-item]
    with pytest.raises(InputError, match="colour"):
        Cascade.parse('[[stage]]\nkind = "mmr"\nkeep = 1\ncolour = "red"\n')
    with pytest.raises(InputError, match="speed"):
        Cascade([Mmr(keep=1)], speed=3)


def test_stages_of_other_models(model: CrossEncoder) -> None:
    vectors, lists = str(ROOT / "testdata" / "embed-bert"), str(ROOT / "testdata" / "list-jina-v3")
    outcome = Cascade(
        [
            Rescore(model=f"bi:{vectors}", keep=5),
            OnePass(lists, keep=4, block=3),
            Duo(model=model, depth=3, aggregate="sum", max_chars=20),
            Mmr(keep=2, min_max=True, similarity=f"bi:{vectors}"),
        ]
    ).run(QUERY, TEXTS)
    assert sorted(hit.index for hit in outcome.hits) == list(range(len(TEXTS)))
    assert [(stage.read, stage.kept) for stage in outcome.stages[:3]] == [(len(TEXTS), 5), (5, 4), (3, 3)]
    assert outcome.stages[2].pairs == 6 and "6 of 6 pairs" in outcome.stages[2].notes[0]
    for stage, message in ((Duo(model=model, depth=1), "depth: 1"), (OnePass("default"), "reads no list")):
        with pytest.raises(InputError, match=message):
            Cascade([stage])


class Backwards(BaseHTTPRequestHandler):
    """A language model that names three documents, the last one first."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        said = {"role": "assistant", "content": "[3] > [2] > [1]"}
        usage = {"prompt_tokens": 100, "completion_tokens": 10}
        body = json.dumps({"choices": [{"message": said, "finish_reason": "stop"}], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_a_language_model() -> None:
    server = HTTPServer(("127.0.0.1", 0), Backwards)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        stage = Listwise(
            f"http://127.0.0.1:{server.server_port}/v1", "backwards", depth=3, usd_per_million_input_tokens=1.0
        )
        outcome = Cascade([stage]).run(QUERY, TEXTS)
        assert [hit.index for hit in outcome.hits] == [2, 1, 0, *range(3, len(TEXTS))]
        (report,) = outcome.stages
        assert report.tokens == 110 and report.usd == pytest.approx(1e-4) and "1 ok" in report.notes[0]
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(InputError, match="window is not for this method"):
        Cascade([Listwise("http://127.0.0.1:1/v1", "m", method="tournament", window=5)])


@pytest.mark.parametrize("name", ["rerank.py", "cascade.py"])
def test_the_examples_run(name: str) -> None:
    program = [sys.executable, str(ROOT / "examples" / "python" / name)]
    printed = subprocess.run(program, check=True, capture_output=True, text=True, timeout=120).stdout
    assert "shell" in printed
