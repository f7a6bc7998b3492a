"""`cellmill duplicates`: which cells are stored twice, and between which sources."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

import cellmill as cm
from cellmill.cli.display import console, examples, print_json, show_facts, show_table
from cellmill.cli.parameters import AsJson, store_path
from cellmill.cli.progress import drawn
from cellmill.units import count_text

__all__ = ["EPILOG", "duplicates"]

EPILOG = examples(
    "cellmill duplicates atlas.mill",
    "cellmill duplicates atlas.mill new.mill --json",
    "cellmill duplicates atlas.mill --min-counts 200 --mark",
    'cellmill query atlas.mill "SELECT row, n_copies FROM obs WHERE n_copies > 1"',
)
_SHOWN_SQUARE = 8  # sources that fit beside each other
_SHOWN_PAIRS = 40


def duplicates(
    stores: Annotated[
        list[Path],
        typer.Argument(metavar="STORE...", parser=store_path, help="A store, or several that are looked at together."),
    ],
    min_counts: Annotated[
        int,
        typer.Option("--min-counts", metavar="N", min=0, help="Cells of fewer counts are counted apart."),
    ] = 50,
    mark: Annotated[
        bool, typer.Option("--mark", help="Write what is found into the store: obs gets duplicate_of and n_copies.")
    ] = False,
    memory: Annotated[
        int, typer.Option("--memory", metavar="MIB", min=1, help="Memory to take, in MiB; the rest goes to disk.")
    ] = 512,
    as_json: AsJson = False,
) -> None:
    """Find cells with equal counts within and between sources, and show a table of source by source."""
    opened = [cm.open(store) for store in stores]
    known = opened[0].duplicates if len(opened) == 1 and not mark else None
    if known is None or known.min_counts != min_counts:
        with drawn():
            known = cm.store.find_duplicates(opened, min_counts=min_counts, memory_bytes=memory << 20, mark=mark)
    if as_json:
        print_json(known)
    else:
        _show(", ".join(str(store) for store in stores), known, str(stores[0]) if len(stores) == 1 else None)


def _show(title: str, found: cm.store.Duplicates, store: str | None) -> None:
    few = found.few
    show_facts(
        title,
        {
            "cells": found.n_cells,
            "duplicates": f"{count_text(found.n_duplicates)} cells equal an earlier one "
            f"({count_text(found.n_groups)} sets of equal cells)",
            f"fewer than {found.min_counts} counts": f"{count_text(few['cells'])} cells, of which "
            f"{count_text(few['repeats'])} equal an earlier one, maybe by chance; not in the table",
            "without counts": few["empty"],
            "equal fingerprints of other cells": found.fingerprint_collisions,
            "uids that an earlier cell has": found.uid_repeats,
        },
    )
    _show_table(found)
    if found.wide_groups:
        line = f"{count_text(found.wide_groups)} sets are of more than 256 sources each, and not in the table"
        console().print(Text(line), soft_wrap=True)
    if found.n_duplicates:
        out = console()
        out.print("To train without them: `dedupe: true` in the mixture.", soft_wrap=True)
        if store is not None:
            sql = "SELECT row, duplicate_of FROM obs WHERE duplicate_of IS NOT NULL"
            out.print(Text(f'To list them: cellmill query {store} "{sql}"'), soft_wrap=True)


def _show_table(found: cm.store.Duplicates) -> None:
    names = list(dict.fromkeys(one.source for one in sorted(found.table, key=lambda one: one.source)))
    if not names:
        return
    title = "cells of the source in each row that equal a cell of the source in each column (or another of their own)"
    if len(names) <= _SHOWN_SQUARE:
        cells = {(one.source, one.other): one.n_cells for one in found.table}
        rows: Sequence[Sequence[Any]] = [[a, *(cells.get((a, b), 0) for b in names)] for a in names]
        show_table(["source", *names], rows, title=title)
        return
    pairs = [[one.source, one.other, one.n_cells] for one in found.table]
    show_table(["source", "other", "cells"], pairs[:_SHOWN_PAIRS], title="cells of a source that equal one of another")
    if len(pairs) > _SHOWN_PAIRS:
        rest = count_text(len(pairs) - _SHOWN_PAIRS)
        console().print(Text(f"... and {rest} pairs more: --json gives all"), soft_wrap=True)
