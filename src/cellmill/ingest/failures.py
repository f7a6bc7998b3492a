"""Inputs that cannot be used (floor 4): each is told at once, the others are worked on, the end says all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cellmill import errors
from cellmill.errors import BadInputsError, CellmillError, InputError

__all__ = ["Refused", "as_error", "as_text", "is_about_input", "stop_for"]


@dataclass(frozen=True)
class Refused:
    """An input that cannot be used, and the error that says why."""

    path: Path
    error: CellmillError

    def to_dict(self) -> dict[str, str]:
        """Return it as plain data."""
        return {"path": str(self.path), "reason": str(self.error)}


def is_about_input(error: BaseException) -> bool:
    """Whether an error speaks of an input, so that others can still be used."""
    return isinstance(error, CellmillError) and error.exit_code == 2


def stop_for(refused: Sequence[Refused], *, n_inputs: int, kept: bool) -> CellmillError:
    """Return the error that a run ends with: the input's own where there is one, else a list of all.

    Parameters
    ----------
    n_inputs
        Inputs in all.
    kept
        Whether there is finished work on others.
    """
    advice = (
        "Work on the other inputs is finished and kept. Pass --skip-bad (in Python: skip_bad=True) to go on without "
        f"{'this one' if len(refused) == 1 else 'these'}; nothing is then read again."
    )
    if len(refused) == 1:
        error = refused[0].error
        if kept:
            error.add_note(advice)
        return error
    listed = "\n".join(f"  {one.path}: {str(one.error).removeprefix(f'{one.path}: ')}" for one in refused)
    told = BadInputsError(f"{len(refused)} of {n_inputs} inputs cannot be used:\n{listed}")
    if kept:
        told.add_note(advice)
    return told


def as_text(error: CellmillError) -> tuple[str, str]:
    """Return class and message of an error, to be sent to another process."""
    return type(error).__name__, str(error)


def as_error(name: str, message: str) -> CellmillError:
    """Return the error that `as_text` was given."""
    kind = getattr(errors, name, InputError)
    if not (isinstance(kind, type) and issubclass(kind, CellmillError)):
        kind = InputError
    error: CellmillError = kind.__new__(kind)  # not by its __init__, which may make the message from something else
    Exception.__init__(error, message)
    return error
