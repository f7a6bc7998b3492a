"""`cellmill card`: what is in a store and where it came from, on one page."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

import cellmill as cm
from cellmill.cli.display import console, examples, print_json
from cellmill.cli.parameters import AsJson, StoreArgument, Threads, check_free, check_out
from cellmill.cli.progress import drawn

__all__ = ["EPILOG", "card"]

EPILOG = examples(
    "cellmill card atlas.mill",
    "cellmill card atlas.mill -o card.html --name 'Blood atlas, release 3'",
    "cellmill card atlas.mill --json",
)


def _name_of(store: cm.Store) -> str:
    """Return what the card of a store is called, so that those of several stores can lie in one folder."""
    return store.location.rstrip("/").rpartition("/")[2].removesuffix(".mill")


def card(
    store: StoreArgument,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE.html",
            help="Write the page here, and FILE.json beside it; STORE.card.html by default.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="TEXT", help="What the store is called on the page.")
    ] = None,
    gene_cells: Annotated[
        int,
        typer.Option(
            "--gene-cells", metavar="N", min=1, help="Cells that means and variances of genes are taken over."
        ),
    ] = 100_000,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace page and numbers if they are there.")] = False,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Write a card: cells, genes, counts, duplicates, provenance and licence of a store on one page."""
    opened = cm.open(store)
    target = out if out is not None or as_json else Path(f"{_name_of(opened)}.card.html")
    if target is not None:
        check_out(target, endings=(".html",))
        check_free(target, target.with_suffix(".json"), overwrite=overwrite)
    called = name or store.name
    with drawn():
        if target is None:
            body = (
                importlib.import_module("cellmill.card")
                .collect_card(opened, name=called, gene_cells=gene_cells, threads=threads)
                .to_dict()
            )
        else:
            files = cm.card(opened, target, name=called, gene_cells=gene_cells, threads=threads)
            body = json.loads(files.json.read_text(encoding="utf-8"))
    if as_json:
        print_json(body)
    elif target is not None:
        console().print(Text(f"card written to {files.html}, its numbers to {files.json}"), soft_wrap=True)
