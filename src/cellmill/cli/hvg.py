"""`cellmill hvg`: the most variable genes of a store or of a part of it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pyarrow.compute as pc
import typer
from rich.text import Text

import cellmill as cm
from cellmill.cli.display import console, error_console, examples, print_json, show_table
from cellmill.cli.parameters import (
    AsJson,
    BlockCells,
    OverwriteFile,
    StoreArgument,
    Threads,
    Where,
    check_free,
    check_out,
)
from cellmill.cli.progress import drawn
from cellmill.cli.query import TABLE_ENDINGS, write_table
from cellmill.units import count_text, plural

__all__ = ["EPILOG", "Flavor", "hvg"]

EPILOG = examples(
    "cellmill hvg atlas.mill -n 2000 -o hvg.txt",
    "cellmill hvg atlas.mill --where \"tissue = 'blood'\" -o hvg/",
    "cellmill hvg atlas.mill --flavor seurat_v3 --batch donor_id --json",
)
_SHOWN_GENES = 20
_SHOWN_SOURCES = 5


class Flavor(StrEnum):
    """How variability is scored."""

    seurat = "seurat"
    seurat_v3 = "seurat_v3"
    pearson = "pearson"
    dispersion = "dispersion"


def hvg(
    store: StoreArgument,
    n: Annotated[int, typer.Option("-n", metavar="N", min=1, help="How many genes.")] = 2000,
    flavor: Annotated[
        Flavor, typer.Option("--flavor", metavar="NAME", help="Score: seurat, seurat_v3, pearson or dispersion.")
    ] = Flavor.seurat,
    where: Where = None,
    batch: Annotated[
        str | None,
        typer.Option("--batch", metavar="COLUMN", help="Score within each value of this column of obs; best in most."),
    ] = None,
    min_cells_percent: Annotated[
        float,
        typer.Option(
            "--min-cells-percent", metavar="PERCENT", min=0, max=100, help="dispersion: leave out genes in fewer cells."
        ),
    ] = 0.1,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="PATH",
            help="Write here: .txt for one gene id a line, .csv or .parquet for all scores; "
            "a folder for hvg_info.json and hvg_analysis.png.",
        ),
    ] = None,
    overwrite: OverwriteFile = False,
    block_cells: BlockCells = 4096,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Find the n most variable genes, best first."""
    opened = cm.open(store)
    if out is not None:
        if not _is_folder(out):
            check_out(out, endings=(".txt", *TABLE_ENDINGS))
        check_free(*_files_of(out), overwrite=overwrite)
    with drawn():
        result = cm.hvg(
            opened,
            n,
            flavor=flavor.value,
            where=where,
            batch=batch,
            min_cells_percent=min_cells_percent,
            block_cells=block_cells,
            threads=threads,
        )
    lacking = cm.statistics.unmeasured_genes(opened, result.gene_ids, where=where)
    asked = {"n": n, "flavor": flavor.value, "where": where, "batch": batch}
    written = _write(result, out, opened, asked, lacking) if out is not None else ""
    if as_json:
        print_json({**asked, "n_cells": result.n_cells, "not_measured": lacking, "gene_ids": result.gene_ids})
    elif written:
        console().print(Text(f"{count_text(len(result.gene_ids))} genes written to {written}"), soft_wrap=True)
    else:
        _show(result)
    warnings = [_fewer_text(result, n, min_cells_percent)] if len(result.gene_ids) < n else []
    if lacking:
        as_zero = cm.statistics.counts_unmeasured_as_zero(opened, batch=batch, where=where)
        warnings.append(_unmeasured_text(lacking, len(result.gene_ids), as_zero=as_zero))
    for warning in warnings:  # beside the result, which programs read
        error_console().print(Text(f"warning: {warning}", style="yellow"), soft_wrap=True)


def _fewer_text(result: cm.statistics.HvgResult, n: int, min_cells_percent: float) -> str:
    few = result.flavor == "dispersion" and result.least_detected > 1
    rare = (
        f" and those in fewer than {count_text(result.least_detected)} cells ({min_cells_percent:g} %)" if few else ""
    )
    return (
        f"{count_text(len(result.gene_ids))} genes instead of the {count_text(n)} asked for: no more of them have a "
        f"score; genes that do not vary among these cells{rare} have none"
    )


def _unmeasured_text(lacking: dict[str, int], n_chosen: int, *, as_zero: bool) -> str:
    """Return what it means that sources did not measure genes that were chosen, the source that lacks most first."""
    ordered = sorted(lacking.items(), key=lambda one: -one[1])
    named = ", ".join(f"{count_text(n)} in {source}" for source, n in ordered[:_SHOWN_SOURCES])
    more = plural(len(ordered) - _SHOWN_SOURCES, "more source")
    named += f", and some in {more}" if len(ordered) > _SHOWN_SOURCES else ""
    what = f"of the {plural(n_chosen, 'chosen gene')}, these were not measured: {named}."
    if as_zero:
        return f"{what} There they count as zero, which makes them look variable: --batch dataset scores within sources"
    return f"{what} They were scored among the cells of the other sources alone"


def _is_folder(out: Path) -> bool:
    return out.is_dir() or not out.suffix


def _files_of(out: Path) -> list[Path]:
    if not _is_folder(out):
        return [out]
    return [out / name for name in (cm.statistics.INFO_NAME, cm.statistics.FIGURE_NAME)]


def _write(
    result: cm.statistics.HvgResult, out: Path, store: cm.Store, asked: dict[str, Any], lacking: dict[str, int]
) -> str:
    """Write what the path asks for, and return where it lies."""
    if _is_folder(out):
        info, figure = cm.statistics.write_analysis(result, out, store=store, asked=asked, not_measured=lacking)
        return f"{info} and {figure}"
    if out.suffix == ".txt":
        out.write_text("".join(f"{gene_id}\n" for gene_id in result.gene_ids), encoding="utf-8")
    else:
        write_table(result.table, out)
    return str(out)


def _show(result: cm.statistics.HvgResult) -> None:
    table = result.table
    shown = ("gene_id", "symbol", "mean", "n_detected", "dispersion", "score", "n_batches", "median_rank")
    names = [name for name in shown if name in table.column_names]
    rank = {gene_id: i for i, gene_id in enumerate(result.gene_ids[:_SHOWN_GENES])}
    chosen = table.filter(pc.is_in(table["gene_id"], value_set=pc.cast(list(rank), table["gene_id"].type)))
    rows = sorted(chosen.select(names).to_pylist(), key=lambda row: rank[row["gene_id"]])
    show_table(names, [[row[name] for name in names] for row in rows])
    if len(result.gene_ids) > _SHOWN_GENES:
        rest = count_text(len(result.gene_ids) - _SHOWN_GENES)
        console().print(Text(f"... and {rest} genes more: -o FILE.txt or --json gives all"), soft_wrap=True)
