"""Cross-encoders: texts in, scores out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from . import _arrow
from ._native import Model, sigmoid
from ._options import check_count, load_options, name_of, score_options
from ._types import LoadOptions, Long, ModelInfo, Pairs, Path, Precision, Progress, Texts
from .errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CrossEncoder", "Hit", "Scores"]


@dataclass(frozen=True)
class Hit:
    """A document where its score puts it."""

    index: int
    """Its place among the documents given."""
    score: float
    """The score as the model's authors give it."""
    logit: float
    """What the head gave; rankings go by this."""
    probability: float | None
    """The probability that the document is relevant, if the model is calibrated."""
    tokens: int
    """Tokens read, over all windows."""
    truncated: bool
    """Whether any of the query or the document was left unread."""
    span: tuple[int, int] | None
    """The part of the document that scored best, in characters; only with windows."""


@dataclass(frozen=True)
class Scores:
    """Scores of pairs, a NumPy array for each thing that a score says; in the order of the pairs."""

    logits: NDArray[np.float32]
    scores: NDArray[np.float32]
    probabilities: NDArray[np.float32] | None
    tokens: NDArray[np.uint32]
    truncated: NDArray[np.bool_]
    windows: NDArray[np.uint32]
    spans: NDArray[np.int64] | None
    """Start and end of the best part of each document, in characters; only with windows."""

    def __len__(self) -> int:
        return len(self.logits)

    def order(self) -> NDArray[np.intp]:
        """Indices, the highest logit first; ties keep the order given."""
        bits = self.logits.view(np.int32).astype(np.int64)
        # As Rust's total_cmp: a negative number's bits count downwards.
        keys = np.where(bits < 0, bits ^ 0x7FFF_FFFF, bits)
        return np.argsort(-keys, kind="stable")

    def to_arrow(self) -> Any:
        """A ``pyarrow.Table``. Numbers are not copied; ``truncated`` is, for Arrow packs it into bits."""
        import pyarrow as pa

        columns = {
            "logit": self.logits,
            "score": self.scores,
            "probability": self.probabilities,
            "tokens": self.tokens,
            "truncated": self.truncated,
            "windows": self.windows,
        }
        return pa.table({name: pa.array(column) for name, column in columns.items() if column is not None})


class CrossEncoder:
    """Reads a query and a document together and says how relevant the document is.

    ``model_name_or_path`` is a model folder, a bundle, a hub id (``org/name``, looked up in the hub's cache first), or ``default``, the model that is
    in this package.

    :param threads: 0 is one for each core that this process may use.
    :param precision: what the layers multiply in; ``auto`` is the fastest that the model's receipt certifies.
    :param max_length: the longest pair in tokens, template included; None is the model's own.
    :param check_receipt: whether a model that has a receipt must reproduce its scores before it is used.
    :param calibration: the file of a calibration; ``beside`` is the one in the model folder, None is none.
    :param packed_cache: a folder for converted weights, which then are mapped at the next start; None keeps nothing.
    :param revision, token, cache_folder, local_files_only: of the hub.
    :param activation_fn: what :meth:`predict` and :meth:`rank` apply to logits; None is the model's own map.
    :param num_labels, device, trust_remote_code: for code that comes from sentence-transformers. A reranker has one label, this engine runs on the
        processor, and code that lies beside a model is never run.
    :raises InputError, ModelError, IoError: see :mod:`jointly.errors`.
    """

    def __init__(
        self,
        model_name_or_path: Path = "default",
        *,
        threads: int = 0,
        precision: Precision = "f32",
        max_length: int | None = None,
        check_receipt: bool = True,
        calibration: Path | None = "beside",
        packed_cache: Path | None = None,
        revision: str | None = None,
        token: str | None = None,
        cache_folder: Path | None = None,
        local_files_only: bool = False,
        activation_fn: Callable[[Any], Any] | str | None = None,
        num_labels: int | None = None,
        device: Any = None,
        trust_remote_code: bool = False,
        **other: Any,
    ) -> None:
        del trust_remote_code
        _refuse(other)
        _check_device(device)
        if num_labels not in (None, 1):
            raise InputError(f"num_labels {num_labels}: a reranker has 1")
        _check_activation(activation_fn)
        source = os.fspath(model_name_or_path)
        if source != "default" and os.path.exists(source):
            source = os.path.abspath(source)  # to be found again after unpickling, wherever that is
        self._source = source
        self._activation_fn = activation_fn
        self._options = load_options(
            threads=threads,
            precision=precision,
            max_length=max_length,
            check_receipt=check_receipt,
            calibration=calibration,
            packed_cache=packed_cache,
            revision=revision,
            token=token,
            cache_folder=cache_folder,
            local_files_only=local_files_only,
        )
        self._native = Model(source, self._options)

    @property
    def info(self) -> ModelInfo:
        """What the model is."""
        return self._native.info()

    @property
    def source(self) -> str:
        """Where it was loaded from: an absolute path, a hub id, or ``default``."""
        return self._source

    @property
    def max_length(self) -> int:
        """The longest pair in tokens."""
        return self.info["max_length"]

    @property
    def max_seq_length(self) -> int:
        """The same, as sentence-transformers calls it since 6."""
        return self.max_length

    @property
    def num_labels(self) -> int:
        """1."""
        return 1

    @property
    def device(self) -> str:
        """Where it computes: ``cpu``."""
        return "cpu"

    def score_pairs(
        self,
        pairs: Pairs | None = None,
        *,
        queries: str | Texts | None = None,
        documents: Texts | None = None,
        long: Long = "truncate",
        stride: int | None = None,
        max_windows: int | None = None,
        max_length: int | None = None,
        instruction: str | None = None,
        progress: bool | Progress = False,
    ) -> Scores:
        """Scores pairs of query and document, given as ``pairs``, or as the two columns ``queries`` (or one query) and ``documents``.

        A pair's score does not depend, bit for bit, on the pairs beside it, their order or the number of threads. Columns may be Arrow's, of
        any library that speaks its interface (pyarrow must be installed); their bytes are read in place. Other threads of Python run
        meanwhile. Ctrl-C is looked for after the first 16 pairs, and then about once a second.

        :param long: documents that are longer than the model reads: ``truncate`` reads the beginning, ``windows`` all of it in overlapping
            windows, the best one counts.
        :param stride, max_windows: tokens from one window to the next, and how many of them; None is half the room, and 64.
        :param max_length: the longest pair in tokens; at most the model's.
        :param instruction: what to look for, for models whose template takes it.
        :param progress: a bar, if tqdm is installed; or a function that is called with the number of pairs done since it was called last.
        :raises InputError: with the index of the first pair that is wrong.
        """
        if pairs is not None:
            if queries is not None or documents is not None:
                raise InputError("either pairs, or queries and documents")
            queries, documents = _columns(pairs)
        elif queries is None or documents is None:
            raise InputError("pairs, or queries and documents, are missing")
        options = score_options(long, stride, max_windows, max_length, instruction)
        total = len(documents) if isinstance(documents, Sized) else None
        if not isinstance(queries, str):
            queries = _arrow.texts(queries, "query")
        documents = _arrow.texts(documents, "document")
        with _bar(progress, total) as report:
            return Scores(*self._native.score((cast(Any, queries), cast(Any, documents)), options, report))

    def rerank(
        self,
        query: str,
        documents: Texts,
        top_n: int | None = None,
        *,
        long: Long = "truncate",
        stride: int | None = None,
        max_windows: int | None = None,
        max_length: int | None = None,
        instruction: str | None = None,
        progress: bool | Progress = False,
    ) -> list[Hit]:
        """The ``top_n`` best documents (all, if None), best first; ties keep the order given. Options as in :meth:`score_pairs`."""
        if not isinstance(query, str):
            raise InputError(f"the query is {name_of(query)}; a text is needed")
        top_n = check_count("top_n", top_n)
        scores = self.score_pairs(
            queries=query,
            documents=documents,
            long=long,
            stride=stride,
            max_windows=max_windows,
            max_length=max_length,
            instruction=instruction,
            progress=progress,
        )
        return [_hit(scores, int(index)) for index in scores.order()[:top_n]]

    def predict(
        self,
        sentences: Any = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Callable[[Any], Any] | str | None = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        *,
        inputs: Any = None,
        **other: Any,
    ) -> Any:
        """What sentence-transformers' ``CrossEncoder.predict`` gives for a model of one label: an array of float32, one for each pair, or
        one number for one pair.

        ``activation_fn`` may be ``torch.nn.Identity()``, ``torch.nn.Sigmoid()``, their names, or any function of the logits. ``batch_size``
        changes nothing: pairs are packed by their tokens. Nor does ``apply_softmax``, which is for several labels. Tensors need torch.
        Prompts are refused: ``instruction`` of :meth:`score_pairs` is what the templates of rerankers take.
        """
        sentences = inputs if sentences is None else sentences
        if sentences is None:
            raise InputError("sentences are missing")
        _check_predict(prompt_name, prompt, batch_size, device, other)
        del apply_softmax
        is_one = _is_one_pair(sentences)
        scores = self.score_pairs([sentences] if is_one else sentences, progress=bool(show_progress_bar))
        values = self._activated(scores, activation_fn)
        if convert_to_tensor:
            return _tensor(values[0] if is_one else values)
        if convert_to_numpy:
            return values[0] if is_one else values
        try:
            several = list(_tensor(values))
        except ImportError:
            several = list(values)
        return several[0] if is_one else several

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Callable[[Any], Any] | str | None = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        **other: Any,
    ) -> list[dict[str, Any]]:
        """What sentence-transformers' ``CrossEncoder.rank`` gives: a dict with ``corpus_id``, ``score`` and, with ``return_documents``,
        ``text`` for each document, best first.

        The order is that of the logits, which a sigmoid would make equal where it saturates. Arguments as in :meth:`predict`; what scores are
        converted to makes no difference, they are numbers.
        """
        del apply_softmax, convert_to_numpy, convert_to_tensor
        _check_predict(prompt_name, prompt, batch_size, device, other)
        top_k = check_count("top_k", top_k)
        if not isinstance(query, str):
            raise InputError(f"the query is {name_of(query)}; a text is needed")
        if not isinstance(documents, str) and hasattr(documents, "__iter__"):
            documents = list(documents)
        scores = self.score_pairs(queries=query, documents=documents, progress=bool(show_progress_bar))
        values = self._activated(scores, activation_fn)
        chosen = self._activation_fn if activation_fn is None else activation_fn
        is_monotone = chosen is None or _known(chosen) is not None
        order = scores.order() if is_monotone else np.argsort(-values, kind="stable")
        rows: list[dict[str, Any]] = []
        for index in order[:top_k]:
            row: dict[str, Any] = {"corpus_id": int(index), "score": float(values[index])}
            if return_documents:
                row["text"] = documents[index]
            rows.append(row)
        return rows

    def _activated(self, scores: Scores, function: Callable[[Any], Any] | str | None) -> NDArray[np.float32]:
        function = self._activation_fn if function is None else function
        if function is None:
            return scores.scores
        _check_activation(function)
        known = _known(function)
        if known == "identity":
            return scores.logits
        if known == "sigmoid":
            return sigmoid(scores.logits)
        apply = cast("Callable[[Any], Any]", function)
        if _is_torch(function):
            values = np.asarray(apply(_tensor(scores.logits)).detach().numpy(), dtype=np.float32)
        else:
            values = np.asarray(apply(scores.logits), dtype=np.float32)
        if values.shape != scores.logits.shape:
            raise InputError(f"activation_fn gave the shape {values.shape} for {scores.logits.shape}")
        return values

    def __repr__(self) -> str:
        info = self.info
        return f"CrossEncoder({self._source!r}, {info['architecture']}, {info['precision']}, {info['threads']} threads)"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reloaded, (type(self), self._source, dict(self._options), self._activation_fn)

    def __copy__(self) -> CrossEncoder:
        return self  # nothing of it ever changes

    def __deepcopy__(self, memo: dict[int, Any]) -> CrossEncoder:
        return self


def _reloaded(kind: type[CrossEncoder], source: str, options: LoadOptions, activation_fn: Any) -> CrossEncoder:
    """A pickled model, loaded again from where it was, with the options that it had."""
    model = kind.__new__(kind)
    model._source = source
    model._options = options
    model._activation_fn = activation_fn
    model._native = Model(source, options)
    return model


def _columns(pairs: Pairs) -> tuple[list[str], list[str]]:
    queries: list[str] = []
    documents: list[str] = []
    if isinstance(pairs, str) or not hasattr(pairs, "__iter__"):
        found = "one text" if isinstance(pairs, str) else name_of(pairs)
        raise InputError(f"{found} is given where a list of pairs is needed")
    for index, pair in enumerate(pairs):
        if isinstance(pair, (str, bytes)) or not hasattr(pair, "__len__") or len(pair) != 2:
            found = f"{len(pair)} texts" if isinstance(pair, (list, tuple)) else name_of(pair)
            raise InputError(f"pair {index} is {found}; a query and a document are needed", index)
        query, document = pair
        for what, text in (("query", query), ("document", document)):
            if not isinstance(text, str):
                raise InputError(f"pair {index}: the {what} is {name_of(text)}; a text is needed", index)
        queries.append(query)
        documents.append(document)
    return queries, documents


def _hit(scores: Scores, index: int) -> Hit:
    span = None
    if scores.spans is not None:
        start, end = scores.spans[index]
        span = (int(start), int(end))
    return Hit(
        index=index,
        score=float(scores.scores[index]),
        logit=float(scores.logits[index]),
        probability=None if scores.probabilities is None else float(scores.probabilities[index]),
        tokens=int(scores.tokens[index]),
        truncated=bool(scores.truncated[index]),
        span=span,
    )


@contextmanager
def _bar(progress: bool | Progress, total: int | None) -> Iterator[Progress | None]:
    if not isinstance(progress, bool):
        yield progress
        return
    if not progress:
        yield None
        return
    try:
        from tqdm.auto import tqdm
    except ImportError:
        yield None
        return
    with tqdm(total=total, unit="pair", desc="Scoring") as bar:
        yield bar.update


def _is_one_pair(sentences: Any) -> bool:
    """As sentence-transformers tells one pair from a list of pairs."""
    if isinstance(sentences, (list, tuple)):
        return len(sentences) > 0 and isinstance(sentences[0], str)
    return isinstance(sentences, np.ndarray) and sentences.size > 0 and sentences.ndim < 2


def _check_predict(
    prompt_name: str | None, prompt: str | None, batch_size: int, device: Any, other: dict[str, Any]
) -> None:
    if prompt_name is not None or prompt is not None:
        raise InputError("prompt and prompt_name are not for this engine; score_pairs and rerank take an instruction")
    if not check_count("batch_size", batch_size):
        raise InputError(f"batch_size {batch_size}: it is from 1")
    _check_device(device)
    _refuse(other)


def _check_device(device: Any) -> None:
    if device is not None and str(device) != "cpu":
        raise InputError(f"device {device}: this engine runs on the processor; leave it out, or say cpu")


def _refuse(other: dict[str, Any]) -> None:
    for name, value in other.items():
        if value is not None:
            raise InputError(f"{name} is not an option here; leave it out")


def _known(function: Any) -> str | None:
    """``identity`` or ``sigmoid``, if it is one of these: by name, or as torch has them."""
    if isinstance(function, str):
        name = function
    elif _is_torch(function) or isinstance(function, type(len)):
        name = getattr(function, "__name__", type(function).__name__)
    else:
        return None  # whatever else is called so may be something else
    return name.lower() if name in ("identity", "sigmoid", "Identity", "Sigmoid") else None


def _check_activation(function: Any) -> None:
    if function is not None and not callable(function) and _known(function) is None:
        raise InputError(f"activation_fn {function!r}: it is identity, sigmoid, or a function of the logits")


def _is_torch(function: Any) -> bool:
    modules = [kind.__module__ for kind in type(function).__mro__]
    modules.append(getattr(function, "__module__", None) or "")
    return any(module == "torch" or module.startswith("torch.") for module in modules)


def _tensor(values: Any) -> Any:
    import torch

    return torch.as_tensor(values)
