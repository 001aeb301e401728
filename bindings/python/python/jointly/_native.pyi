from collections.abc import Iterable, Mapping, Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from ._types import HitRow, LoadOptions, ModelInfo, Progress, Request, ScoreOptions, StageRow

__all__ = [
    "Cascade",
    "Model",
    "TextColumn",
    "__version__",
    "audit",
    "evaluate",
    "sigmoid",
]

__version__: str

@final
class TextColumn:
    def __new__(cls, chunks: Sequence[tuple[NDArray[np.int64], NDArray[np.uint8]]]) -> TextColumn: ...

@final
class Model:
    def __new__(cls, source: str, options: LoadOptions) -> Model: ...
    def info(self) -> ModelInfo: ...
    def score(
        self,
        texts: tuple[str | Iterable[str] | TextColumn, Iterable[str] | TextColumn],
        options: ScoreOptions,
        progress: Progress | None,
    ) -> tuple[
        NDArray[np.float32],
        NDArray[np.float32],
        NDArray[np.float32] | None,
        NDArray[np.uint32],
        NDArray[np.bool_],
        NDArray[np.uint32],
        NDArray[np.int64] | None,
    ]: ...

@final
class Cascade:
    def __new__(
        cls,
        file: tuple[str, str],
        models: Mapping[str, Model],
        options: tuple[LoadOptions, ScoreOptions],
    ) -> Cascade: ...
    def names(self) -> list[str]: ...
    def run(
        self, query: str, documents: Iterable[str] | TextColumn, given: Request
    ) -> tuple[list[HitRow], int, list[StageRow], str | None, float]: ...

def evaluate(
    qrels: Mapping[str, Mapping[str, int]],
    run: Mapping[str, Mapping[str, float]],
    metrics: Sequence[str],
    *,
    level: int,
    skip_missing: bool,
) -> dict[str, dict[str, float]]: ...
def audit(queries: Sequence[tuple[str, Sequence[float], Sequence[float]]]) -> str: ...
def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]: ...
