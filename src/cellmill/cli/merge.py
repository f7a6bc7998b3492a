"""`cellmill merge`: several stores into one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

import cellmill as cm
from cellmill.cli.build import show_next
from cellmill.cli.display import examples, print_json, show_facts
from cellmill.cli.info import duplicates_text, written_summary
from cellmill.cli.parameters import AsJson, NoDuplicates, Threads
from cellmill.cli.progress import drawn
from cellmill.units import size_text, time_text

if TYPE_CHECKING:
    from cellmill.store.merge import ObsClash

__all__ = ["EPILOG", "merge"]

EPILOG = examples("cellmill merge atlas.mill blood.mill gut.mill", "cellmill merge atlas.mill parts/*.mill --json")


def merge(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make, for example atlas.mill.")],
    stores: Annotated[
        list[Path], typer.Argument(metavar="STORE", help="Stores of one vocabulary; they are not changed.")
    ],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the store if it is there.")] = False,
    obs_clash: Annotated[
        str,
        typer.Option("--obs-clash", metavar="WHAT", help="Columns of clashing types: error, or text for all of them."),
    ] = "error",
    no_duplicates: NoDuplicates = False,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Make one store of several of the same vocabulary; where their genes stand in one order, bytes are copied."""
    started = time.perf_counter()
    with drawn():
        merged = cm.merge(
            out,
            stores,
            overwrite=overwrite,
            threads=threads,
            duplicates=not no_duplicates,
            obs_clash=cast("ObsClash", obs_clash),  # checked there
        )
    found = written_summary(merged, out)
    found["seconds"] = round(time.perf_counter() - started, 3)
    if as_json:
        print_json(found)
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    show_facts(
        found["path"],
        {
            "cells": found["n_cells"],
            "genes": found["n_genes"],
            "sources": len(found["sources"]),
            "size": size_text(found["bytes_on_disk"]),
            "duplicates": duplicates_text(found),
            "time": time_text(found["seconds"]),
            "digest": found["digest"],
        },
    )
    show_next(found["path"])
