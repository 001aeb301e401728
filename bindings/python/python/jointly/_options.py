"""Arguments as Rust takes them."""

from __future__ import annotations

import os

from ._types import LoadOptions, Path, ScoreOptions
from .errors import InputError


def name_of(value: object) -> str:
    """What a value that is none of the right ones is called in messages."""
    return "None" if value is None else type(value).__name__


def load_options(
    *,
    threads: int = 0,
    precision: str = "f32",
    max_length: int | None = None,
    check_receipt: bool = True,
    calibration: Path | None = "beside",
    packed_cache: Path | None = None,
    revision: str | None = None,
    token: str | None = None,
    cache_folder: Path | None = None,
    local_files_only: bool = False,
) -> LoadOptions:
    """As Rust takes them. Paths are made absolute: a pickled model may be loaded in another folder."""

    def absolute(path: Path | None) -> str | None:
        return None if path is None else os.path.abspath(os.path.expanduser(os.fspath(path)))

    is_file = calibration is not None and os.fspath(calibration) != "beside"
    return {
        "threads": check_count("threads", threads) or 0,
        "precision": precision,
        "max_length": check_count("max_length", max_length),
        "check_receipt": check_receipt,
        "calibration": absolute(calibration) if is_file else None,
        "without_calibration": calibration is None,
        "packed_cache": absolute(packed_cache),
        "revision": revision,
        "token": token,
        "cache_folder": absolute(cache_folder),
        "local_files_only": local_files_only,
    }


def score_options(
    long: str,
    stride: int | None,
    max_windows: int | None,
    max_length: int | None,
    instruction: str | None,
) -> ScoreOptions:
    """As Rust takes them."""
    if instruction is not None and not isinstance(instruction, str):
        raise InputError(f"the instruction is {name_of(instruction)}; a text is needed")
    return {
        "long": long,
        "stride": check_count("stride", stride),
        "max_windows": check_count("max_windows", max_windows),
        "max_length": check_count("max_length", max_length),
        "instruction": instruction,
    }


def check_count(what: str, value: int | None) -> int | None:
    """A whole number from 0, as an ``int``; or None."""
    if value is None:
        return None
    try:
        number = value.__index__()
    except AttributeError:
        raise InputError(f"{what} is {name_of(value)}; a whole number is needed") from None
    if number < 0:
        raise InputError(f"{what} {number}: it is from 0")
    return number
