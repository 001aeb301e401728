"""What can go wrong: one class for each kind, by who can do something about it."""

from __future__ import annotations

__all__ = ["Error", "ForkError", "InputError", "InternalError", "IoError", "ModelError"]


class Error(Exception):
    """Anything that Jointly says went wrong.

    ``index`` is the place of the text or pair that is wrong in the list that was given, where it is about one.
    """

    index: int | None

    def __init__(self, message: str, index: int | None = None) -> None:
        super().__init__(message)
        self.index = index


class InputError(Error, ValueError):
    """The caller's texts or options."""


class ModelError(Error):
    """The model: its configuration, tokenizer, weights, receipt or calibration; or that this user may not have it."""


class IoError(Error, OSError):
    """The file system, or the way to the hub."""


class InternalError(Error, RuntimeError):
    """This machine or this program."""


class ForkError(Error, RuntimeError):
    """This process was forked while another thread was scoring, and cannot score."""
