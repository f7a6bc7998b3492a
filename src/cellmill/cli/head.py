"""`cellmill head`: the first cells of a store, with their highest counts."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import typer
from rich.text import Text

import cellmill as cm
from cellmill.cli.display import console, examples, plain, print_json, show_table
from cellmill.cli.parameters import AsJson, StoreArgument, Where, listed, no_match_advice
from cellmill.units import count_text

__all__ = ["EPILOG", "first_cells", "head"]

EPILOG = examples(
    "cellmill head atlas.mill",
    "cellmill head atlas.mill -n 20 --columns cell,cell_type",
    "cellmill head atlas.mill --where \"tissue = 'blood'\"",
)
_SHOWN_BY_DEFAULT = 6
_NAMED_COLUMNS = 12
_HIDDEN_BY_DEFAULT = {"uid", "fingerprint"}


def first_cells(
    store: cm.Store, *, n: int, columns: list[str] | None, where: str | None, n_top: int = 4
) -> list[dict[str, Any]]:
    """Return the first `n` cells that `where` chooses, as dictionaries: row, obs columns, genes of highest count."""
    rows = store.select(where)[:n] if where is not None else np.arange(min(n, store.n_cells), dtype=np.int64)
    obs = store.obs.to_arrow(columns=columns, rows=rows).to_pylist()
    names = _gene_names(store)
    counts = store.read(rows).tocsr()
    cells = []
    for i, row in enumerate(rows):
        genes = counts.indices[counts.indptr[i] : counts.indptr[i + 1]]
        values = counts.data[counts.indptr[i] : counts.indptr[i + 1]]
        best = np.argsort(-values.astype(np.int64), kind="stable")[:n_top]
        cells.append({"row": int(row), **obs[i], "top_genes": {names[genes[j]]: int(values[j]) for j in best}})
    return cells


def _gene_names(store: cm.Store) -> list[str]:
    pairs = zip(store.genes["gene_id"].to_pylist(), store.genes["symbol"].to_pylist(), strict=True)
    return [symbol or gene_id for gene_id, symbol in pairs]


def head(
    store: StoreArgument,
    n: Annotated[int, typer.Option("-n", metavar="N", min=1, help="How many cells.")] = 10,
    columns: Annotated[
        str | None, typer.Option("--columns", metavar="A,B", help="Columns of obs; a few by default, all with --json.")
    ] = None,
    where: Where = None,
    as_json: AsJson = False,
) -> None:
    """Show the first cells of a store: their obs and their highest counts."""
    wanted = listed(columns)
    opened = cm.open(store)
    left_out: list[str] = []
    if wanted is None and not as_json:
        shown = [name for name in opened.obs.columns if name not in _HIDDEN_BY_DEFAULT]
        standard = [name for name in ("cell", "dataset", "total_counts", "n_genes_detected") if name in shown]
        others = sorted((name for name in shown if name not in standard), key=cm.store.FACT_COLUMNS.__contains__)
        wanted = standard + others[: _SHOWN_BY_DEFAULT - len(standard)]  # the authors' columns before those of ours
        left_out = others[_SHOWN_BY_DEFAULT - len(standard) :] + sorted(_HIDDEN_BY_DEFAULT & set(opened.obs.columns))
    cells = first_cells(opened, n=n, columns=wanted, where=where)
    if as_json:
        print_json(cells)
        return
    if not cells:
        reason = f"no cell meets {where!r}. {no_match_advice(store)}" if where else "it holds no cells"
        console().print(Text(f"{store}: {reason}"), soft_wrap=True)
        return
    names = ["row", *(wanted or []), "highest counts"]
    lines = []
    for cell in cells:
        top = ", ".join(f"{gene} {count}" for gene, count in cell.pop("top_genes").items())
        lines.append([*(plain(value) for value in cell.values()), top])
    show_table(names, lines, raw=["row", "uid", "fingerprint"], whole=names[:-1])
    if left_out:
        more = len(left_out) - _NAMED_COLUMNS
        named = ", ".join(left_out[:_NAMED_COLUMNS]) + (f" and {count_text(more)} more" if more > 0 else "")
        example = ",".join(left_out[:2])
        advice = f"(--columns {example} shows those that you name, --json shows all)"
        console().print(Text(f"columns left out: {named} {advice}"), soft_wrap=True)
