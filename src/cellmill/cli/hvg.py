"""`cellmill hvg`: the most variable genes of a store or of a part of it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import pyarrow.compute as pc
import typer
from rich.text import Text

import cellmill as cm
from cellmill.cli.display import console, examples, print_json, show_table
from cellmill.cli.parameters import AsJson, StoreArgument, Where, check_out
from cellmill.cli.progress import drawn
from cellmill.cli.query import TABLE_ENDINGS, write_table
from cellmill.units import count_text

__all__ = ["EPILOG", "Flavor", "hvg"]

EPILOG = examples(
    "cellmill hvg atlas.mill -n 2000 -o hvg.txt",
    "cellmill hvg atlas.mill --flavor dispersion --where \"tissue = 'blood'\"",
)
_SHOWN_GENES = 20


class Flavor(StrEnum):
    """How variability is scored."""

    seurat = "seurat"
    dispersion = "dispersion"


def hvg(
    store: StoreArgument,
    n: Annotated[int, typer.Option("-n", metavar="N", min=1, help="How many genes.")] = 2000,
    flavor: Annotated[
        Flavor, typer.Option("--flavor", metavar="NAME", help="Score: seurat or dispersion.")
    ] = Flavor.seurat,
    where: Where = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            help="Write here: .txt for one gene id a line, .csv or .parquet for all scores.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find the n most variable genes, best first."""
    opened = cm.open(store)
    if out is not None:
        check_out(out, endings=(".txt", *TABLE_ENDINGS))
    rows = opened.select(where) if where else None
    with drawn():
        result = cm.hvg(opened, n, flavor=flavor.value, rows=rows)
    if out is not None and out.suffix == ".txt":
        out.write_text("".join(f"{gene_id}\n" for gene_id in result.gene_ids), encoding="utf-8")
    elif out is not None:
        write_table(result.table, out)
    if as_json:
        print_json({"flavor": flavor.value, "where": where, "gene_ids": result.gene_ids})
        return
    if out is not None:
        console().print(Text(f"{count_text(len(result.gene_ids))} genes written to {out}"), soft_wrap=True)
        return
    _show(result)


def _show(result: cm.statistics.HvgResult) -> None:
    names = ["gene_id", "symbol", "mean", "dispersion", "score"]
    table = result.table
    rank = {gene_id: i for i, gene_id in enumerate(result.gene_ids[:_SHOWN_GENES])}
    chosen = table.filter(pc.is_in(table["gene_id"], value_set=pc.cast(list(rank), table["gene_id"].type)))
    rows = sorted(chosen.select(names).to_pylist(), key=lambda row: rank[row["gene_id"]])
    show_table(names, [[row[name] for name in names] for row in rows])
    if len(result.gene_ids) > _SHOWN_GENES:
        rest = count_text(len(result.gene_ids) - _SHOWN_GENES)
        console().print(Text(f"... and {rest} genes more: -o FILE.txt or --json gives all"), soft_wrap=True)
