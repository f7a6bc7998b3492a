"""Arguments and options that several verbs share (floor 9), so that they are named and explained alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["AsJson", "Experiment", "StoreArgument", "Where", "listed"]

StoreArgument = Annotated[Path, typer.Argument(metavar="STORE", help="A store: a folder made by `cellmill build`.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON to standard output, for programs.")]
Where = Annotated[
    str | None,
    typer.Option("--where", metavar="SQL", help="Only cells for which this condition over obs holds."),
]
Experiment = Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The experiment: data, arms, model, evaluation.")]


def listed(text: str | None) -> list[str] | None:
    """Return the names in a comma-separated list, or None when none is given.

    Examples
    --------
    >>> listed("cell_type, donor_id")
    ['cell_type', 'donor_id']
    """
    if text is None:
        return None
    return [name.strip() for name in text.split(",") if name.strip()]
