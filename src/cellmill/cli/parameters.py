"""Arguments and options that several verbs share (floor 9), so that they are named and explained alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellmill.errors import ConfigError, NotFoundError

__all__ = ["AsJson", "Experiment", "StoreArgument", "Where", "check_out", "listed"]

StoreArgument = Annotated[Path, typer.Argument(metavar="STORE", help="A store: a folder made by `cellmill build`.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON to standard output, for programs.")]
Where = Annotated[
    str | None,
    typer.Option("--where", metavar="SQL", help="Only cells for which this condition over obs holds."),
]
Experiment = Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The experiment: data, arms, model, evaluation.")]


def check_out(path: Path, *, endings: tuple[str, ...] = ()) -> None:
    """Check, before anything is computed, that a file can be written at `path`.

    Raises
    ------
    ConfigError
        When the ending is not one of `endings` (if there are any), or `path` is a folder.
    NotFoundError
        When the folder of `path` is not there.
    """
    if endings and path.suffix not in endings:
        known = " or ".join([", ".join(endings[:-1]), endings[-1]] if len(endings) > 1 else endings)
        raise ConfigError(f"{path}: cannot tell the format by the ending {path.suffix!r}; use {known}")
    if path.is_dir():
        raise ConfigError(f"{path}: this is a folder; give the name of a file to write, for example {path / 'out'}")
    if not path.parent.is_dir():
        raise NotFoundError(f"{path.parent}: there is no such folder to write {path.name} in; make it first")


def listed(text: str | None) -> list[str] | None:
    """Return the names in a comma-separated list, or None when no list is given.

    Raises
    ------
    ConfigError
        When the list names nothing.

    Examples
    --------
    >>> listed("cell_type, donor_id")
    ['cell_type', 'donor_id']
    """
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ConfigError(f"expected names with commas between, for example cell_type,donor_id; found {text!r}")
    return names
