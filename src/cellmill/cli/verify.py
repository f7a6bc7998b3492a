"""`cellmill verify`: is a store, byte by byte and cell by cell, what its manifest says?"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

import cellmill as cm
from cellmill.cli.display import console, examples, print_json
from cellmill.cli.errors import EXIT_FAILURE
from cellmill.cli.parameters import AsJson, StoreArgument
from cellmill.cli.progress import drawn
from cellmill.units import count_text, size_text

__all__ = ["EPILOG", "verify"]

EPILOG = examples("cellmill verify atlas.mill", "cellmill verify atlas.mill --sample 0.01 --json")


def _show(store: cm.Store, report: cm.store.VerifyReport) -> None:
    out = console()
    for problem in report.problems:
        out.print(Text.assemble(("✗ ", "red"), problem), soft_wrap=True)
    checked = (
        f"{count_text(report.n_files)} files ({size_text(report.n_bytes)}) against their checksums, "
        f"{count_text(report.n_cells_decoded)} of {count_text(report.n_cells)} cells decoded"
    )
    if report.ok:
        out.print(Text.assemble(("✓ ", "green"), f"{store.path} is sound: {checked}"), soft_wrap=True)
    else:
        advice = f"{store.path} is damaged ({checked}): restore those files from a copy, or build the store again"
        out.print(Text(advice, style="red"), soft_wrap=True)


def verify(
    store: StoreArgument,
    sample: Annotated[
        float,
        typer.Option(
            "--sample", metavar="SHARE", help="Share of the cells to decode; checksums are always all checked."
        ),
    ] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Check every byte of a store against its checksum and decode every cell; exit code 1 when anything is wrong."""
    opened = cm.open(store)
    with drawn():
        report = opened.verify(sample=sample)
    if as_json:
        print_json(report)
    else:
        _show(opened, report)
    if not report.ok:
        raise typer.Exit(EXIT_FAILURE)
