"""`cellmill commit`: the parts of a build, done one by one, to a store."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

import cellmill as cm
from cellmill.cli.build import show_built
from cellmill.cli.display import examples
from cellmill.cli.parameters import AsJson, SkipBad
from cellmill.cli.progress import drawn

__all__ = ["EPILOG", "commit"]

EPILOG = examples("cellmill commit atlas.mill", "cellmill commit atlas.mill --skip-bad")


def commit(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="The folder that `build --task I/N` was given.")],
    skip_bad: SkipBad = False,
    as_json: AsJson = False,
) -> None:
    """Make a store of the parts that `cellmill build --task I/N` has done; says which are missing."""
    started = time.perf_counter()
    with drawn():
        built = cm.ingest.commit(store, skip_bad=skip_bad)
    show_built(built, store, seconds=time.perf_counter() - started, as_json=as_json)
