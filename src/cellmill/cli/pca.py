"""`cellmill pca`: principal components of cells, for sketches and baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

import cellmill as cm
from cellmill.cli.display import console, examples, print_json
from cellmill.cli.parameters import AsJson, BlockCells, OverwriteFile, StoreArgument, Threads, Where, check_free
from cellmill.cli.progress import drawn
from cellmill.units import count_text

__all__ = ["EPILOG", "pca"]

EPILOG = examples(
    "cellmill pca atlas.mill -o pcs.parquet",
    "cellmill pca atlas.mill -o pcs.parquet -n 30 --genes 3000",
)


def pca(
    store: StoreArgument,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="PARQUET", help="Where uids and coordinates go.")],
    n: Annotated[int, typer.Option("-n", metavar="N", min=1, help="How many components.")] = 50,
    genes: Annotated[
        int, typer.Option("--genes", metavar="N", min=2, help="Over so many highly variable genes (flavor seurat).")
    ] = 2000,
    where: Where = None,
    overwrite: OverwriteFile = False,
    block_cells: BlockCells = 4096,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Write the principal components of cells: of log1p counts per 10,000, scaled, cut at 10, in streaming passes."""
    opened = cm.open(store)
    check_free(out, overwrite=overwrite)
    rows = None if where is None else opened.select(where)
    with drawn():
        panel = cm.hvg(opened, genes, where=where, block_cells=block_cells, threads=threads).gene_ids
        found = cm.statistics.principal_components(
            opened, panel, n, rows=rows, block_cells=block_cells, threads=threads
        )
        cm.mixture.write_coordinates(out, opened.uids(rows), found.coordinates)
    n_cells, n_found = found.coordinates.shape
    if as_json:
        print_json({"out": str(out), "n_cells": n_cells, "n": n_found, "variance": found.variance.tolist()})
        return
    words = f"{count_text(n_found)} components of {count_text(n_cells)} cells written to {out}"
    console().print(Text(words), soft_wrap=True)
    line = f"  - {{name: sketch, store: {store}, choose: 10%, sketch: {out}}}"
    console().print(Text(f"For a geometric sketch, in mix.yaml:\n{line}"), soft_wrap=True)
