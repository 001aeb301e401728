"""Cascades from Python and from files are one thing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jointly import Cascade, Confirm, CrossEncoder, Distinct, Dpp, InputError, IoError, Mmr, Rescore, Xquad

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


@pytest.mark.parametrize("name", ["rerank.py", "cascade.py"])
def test_the_examples_run(name: str) -> None:
    program = [sys.executable, str(ROOT / "examples" / "python" / name)]
    printed = subprocess.run(program, check=True, capture_output=True, text=True, timeout=120).stdout
    assert "shell" in printed
