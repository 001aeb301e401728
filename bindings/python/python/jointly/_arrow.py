"""Columns of text from Arrow, by their buffers; no text is copied."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._native import TextColumn
from .errors import InputError


def texts(value: Any, what: str) -> Any:
    """``value``, or the column that it is if it speaks Arrow and pyarrow is there to listen.

    ``what`` says in messages what the texts are. Strings with 64-bit offsets, 32-bit offsets (their offsets are copied), views and
    dictionaries (decoded: copied) are read; anything else, and a null, is an :class:`InputError`.
    """
    if not hasattr(value, "__arrow_c_stream__") and not hasattr(value, "__arrow_c_array__"):
        return value
    try:
        import pyarrow as pa
    except ImportError:
        return value  # read as the list that it may be too
    try:
        if isinstance(value, (pa.Array, pa.ChunkedArray)):
            column = value
        elif hasattr(value, "__arrow_c_stream__"):
            column = pa.chunked_array(value)
        else:
            column = pa.array(value)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, TypeError) as error:
        raise InputError(f"{what}: not a column of texts: {error}") from error
    kind = column.type
    if isinstance(kind, pa.DictionaryType):
        kind = kind.value_type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise InputError(f"{what}: the column has the type {column.type}; a column of strings is needed")
    if column.null_count:
        index = column.is_null().to_pylist().index(True)
        raise InputError(f"{what} {index} is None; a text is needed", index)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        column = column.cast(pa.large_string())
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return TextColumn([_buffers(chunk, pa) for chunk in chunks])


def _buffers(chunk: Any, pa: Any) -> tuple[Any, Any]:
    _, offsets, data = chunk.buffers()
    width = np.int64 if pa.types.is_large_string(chunk.type) else np.int32
    if offsets is None or len(chunk) == 0:
        return np.zeros(1, np.int64), np.zeros(0, np.uint8)
    ends = np.frombuffer(offsets, width, len(chunk) + 1, chunk.offset * np.dtype(width).itemsize)
    text = np.zeros(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)
    return ends.astype(np.int64, copy=False), text
