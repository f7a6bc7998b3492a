"""`cellmill tokens`: what a model is fed, in a table that a person can check."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.text import Text

import cellmill as cm
from cellmill.cli.commands import MillCommand, MillSubgroup
from cellmill.cli.display import console, examples, print_json, show_table
from cellmill.cli.parameters import AsJson, StoreArgument, Where, no_match_advice
from cellmill.cli.recipe_options import recipe_options
from cellmill.errors import ConfigError

__all__ = ["app", "preview", "token_rows"]

app = typer.Typer(
    cls=MillSubgroup,
    help="What models are fed: recipes of tokens, and the first cells in their form.",
    no_args_is_help=True,
    epilog=examples("cellmill tokens preview atlas.mill --recipe scgpt", "cellmill tokens list"),
)

_SHOWN = 12
_PER_TOKEN = ("genes", "values", "target", "mask")


def token_rows(store: cm.Store, recipe: Any, rows: Any, *, seed: int = 0) -> list[dict[str, Any]]:
    """Return what a recipe makes of cells, a dictionary for each: its tokens with their names, values and masks.

    Parameters
    ----------
    rows
        Row ids, int64[n].
    """
    from cellmill.loader import Dataset  # torch is imported where tokens are made

    dataset = Dataset(store, tokens=recipe, seed=seed)
    batch = dataset.__getitems__([int(row) for row in rows])
    recipe = dataset.reader.tokens
    names = _names(store, dataset.reader.axis, recipe)
    cells = []
    for i, row in enumerate(rows):
        uid = int(batch.cells[i]) & (2**64 - 1)
        cell: dict[str, Any] = {"row": int(row), "uid": uid, "total": int(batch.totals[i])}
        if batch.lengths is not None:
            n = int(batch.lengths[i])
            start = int(batch.cu_seqlens[i]) if batch.cu_seqlens is not None else 0
            cell["length"] = n
            for field in _PER_TOKEN:
                tensor = getattr(batch, field)
                if tensor is not None:
                    own = tensor if batch.cu_seqlens is not None else tensor[i]
                    cell[field] = own[start : start + n].tolist()
            by = cell.get("genes", []) if getattr(recipe, "panel", None) is None else range(n)
            cell["names"] = [names.get(token, "?") for token in by]
        elif batch.indptr is not None and batch.genes is not None:
            here = slice(int(batch.indptr[i]), int(batch.indptr[i + 1]))
            cell |= {"genes": batch.genes[here].tolist(), "values": batch.values[here].tolist()}
            cell["names"] = [_symbol(store, dataset.reader.axis, column) for column in cell["genes"]]
        else:
            cell["values"] = batch.values[i].float().tolist()
            named = hasattr(recipe, "numbers_of")  # what its columns are is the recipe's own affair
            cell["names"] = [
                names.get(column, "?") if named else _symbol(store, dataset.reader.axis, column)
                for column in range(len(cell["values"]))
            ]
        cell["extra"] = {
            name: tensor[i].tolist() for name, tensor in batch.extra.items() if tensor.ndim and len(tensor) == len(rows)
        }
        cells.append(cell)
    return cells


def _symbol(store: cm.Store, axis: Any, column: int) -> str:
    gene: str = axis.gene_ids[column]
    return _symbols(store).get(gene, gene)


def _symbols(store: cm.Store) -> dict[str, str]:
    pairs = zip(store.genes["gene_id"].to_pylist(), store.genes["symbol"].to_pylist(), strict=True)
    return {gene: symbol or gene for gene, symbol in pairs}


def _names(store: cm.Store, axis: Any, recipe: Any) -> dict[int, str]:
    """Name of each number that a recipe uses: the symbols of genes, what it adds itself as it is written."""
    symbols = _symbols(store)
    numbers = recipe.numbers_of(axis.tokens) if hasattr(recipe, "numbers_of") else axis.tokens
    names = {int(one): symbols.get(gene, gene) for one, gene in zip(numbers, axis.gene_ids, strict=True) if one >= 0}
    panel, vocabulary = getattr(recipe, "panel", None), getattr(recipe, "vocabulary", None)
    if panel is not None and vocabulary is not None:  # genes of the panel that the store lacks
        name_of = dict(
            zip(vocabulary.tokens.tolist(), zip(vocabulary.symbols, vocabulary.ids, strict=True), strict=True)
        )
        told = {place: name_of.get(token, ("", "?")) for place, token in enumerate(panel)}
        names = {place: symbol or gene for place, (symbol, gene) in told.items()} | names
    if hasattr(recipe, "own_names"):
        own: dict[int, str] = recipe.own_names()
        return names | own
    if hasattr(recipe, "numbers_of"):
        return names
    specials: Mapping[str, int] = vocabulary.specials if vocabulary is not None else {}
    return names | {token: name for name, token in specials.items()}


@app.command(
    "preview",
    cls=MillCommand,
    epilog=examples(
        "cellmill tokens preview atlas.mill --recipe scgpt",
        "cellmill tokens preview atlas.mill --recipe tahoe --set mask=0.5 -n 1",
        "cellmill tokens preview a.mill --recipe geneformer --set medians=m.pkl",
        "cellmill tokens preview atlas.mill --recipe scgpt --json",
    ),
)
def preview(
    store: StoreArgument,
    recipe: Annotated[str, typer.Option("--recipe", metavar="NAME", help="Name of the recipe, such as scgpt.")],
    n: Annotated[int, typer.Option("-n", metavar="N", min=1, help="How many cells.")] = 3,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="An option of the recipe; may be repeated. Of a table (medians, means, token_of, rows, chromosomes, "
            "starts, embedding) and of vocabulary the value may be a file.",
        ),
    ] = None,
    options_file: Annotated[
        Path | None, typer.Option("--options", metavar="FILE", help="Options of the recipe in a YAML file.")
    ] = None,
    shown: Annotated[int, typer.Option("--tokens", metavar="K", min=1, help="How many tokens of each cell.")] = _SHOWN,
    seed: Annotated[int, typer.Option("--seed", metavar="S", min=0, help="Seed of samples and masks.")] = 0,
    where: Where = None,
    as_json: AsJson = False,
) -> None:
    """Show the first cells as a recipe makes them: tokens with gene symbols, values, and what is masked."""
    from cellmill.tokens import recipe_named

    made = recipe_named(recipe, **recipe_options(recipe, options_file, options or []))
    opened = cm.open(store)
    rows = opened.select(where)[:n] if where is not None else np.arange(min(n, opened.n_cells), dtype=np.int64)
    if not len(rows):
        reason = f"no cell meets {where!r}. {no_match_advice(store)}" if where else "it holds no cells"
        raise ConfigError(f"{store}: {reason}")
    cells = token_rows(opened, made, rows, seed=seed)
    if as_json:
        print_json(cells)
        return
    for cell in cells:
        _show_cell(cell, shown)


def _show_cell(cell: dict[str, Any], shown: int) -> None:
    n = len(cell["names"])
    length = f", {cell['length']:,} tokens" if "length" in cell else f", {n:,} values"
    hidden = f", {sum(cell['mask']):,} masked" if "mask" in cell else ""
    out = console()
    out.print(Text(f"row {cell['row']:,}: {cell['total']:,} counts{length}{hidden}", style="bold"))
    columns = [name for name in _PER_TOKEN if name in cell and (name != "mask" or "target" in cell)]
    titles = {"genes": "token", "values": "value", "target": "behind the mask", "mask": "masked"}
    lines = [[str(i), cell["names"][i], *(_told(cell[name][i]) for name in columns)] for i in range(min(shown, n))]
    show_table(["", "gene", *(titles[name] for name in columns)], lines)
    if n > shown:
        out.print(Text(f"and {n - shown:,} more; --tokens {n} shows all", style="dim"))
    for name, value in cell["extra"].items():
        told = f"{len(value):,} values: {', '.join(map(_told, value[:8]))}" if isinstance(value, list) else _told(value)
        out.print(Text(f"{name}: {told}", style="dim"), soft_wrap=True)


def _told(value: Any) -> str:
    if isinstance(value, bool):
        return "masked" if value else ""
    return f"{value:g}" if isinstance(value, float) else str(value)


@app.command("list", cls=MillCommand, epilog=examples("cellmill tokens list"))
def recipes(as_json: AsJson = False) -> None:
    """List the recipes, with what they feed."""
    from cellmill.tokens import RECIPES

    told = {name: (made.__doc__ or "").strip().splitlines()[0] for name, made in RECIPES.items()}
    if as_json:
        print_json(told)
        return
    show_table(["recipe", "what it feeds"], [[name, line] for name, line in told.items()])
