"""`cellmill export`: a store, or a part of it, in a format of others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

import cellmill as cm
from cellmill.cli.commands import MillCommand, MillSubgroup
from cellmill.cli.display import console, examples, print_json
from cellmill.cli.parameters import AsJson, OverwriteFile, StoreArgument, Where, check_free, check_out, no_match_advice
from cellmill.cli.progress import drawn
from cellmill.errors import InputError
from cellmill.units import count_text, size_text

__all__ = ["app", "h5ad"]


class _Formats(MillSubgroup):
    """The formats; whoever names none is told where one belongs."""

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]
        """Return the verb of a format."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            formats = ", ".join(self.commands)
            ctx.fail(f"{args[0]!r} is no format. The format comes first ({formats}): cellmill export h5ad STORE FILE")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_Formats,
    no_args_is_help=True,
    help="Write a store, or a part of it, in a format of others.",
    epilog=examples("cellmill export h5ad atlas.mill blood.h5ad --where \"tissue = 'blood'\""),
)


@app.callback()
def _export() -> None:
    # A callback keeps `h5ad` a verb of its own while it is the only one.
    pass


@app.command(
    "h5ad",
    cls=MillCommand,
    epilog=examples(
        "cellmill export h5ad atlas.mill atlas.h5ad",
        "cellmill export h5ad atlas.mill blood.h5ad --where \"tissue = 'blood'\"",
    ),
)
def h5ad(
    store: StoreArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT.h5ad", help="The file to write.")],
    where: Where = None,
    overwrite: OverwriteFile = False,
    as_json: AsJson = False,
) -> None:
    """Write cells as an AnnData file: raw counts in X, obs, genes; as a stream, so memory stays small."""
    check_out(out, endings=(".h5ad",))
    check_free(out, overwrite=overwrite)
    opened = cm.open(store)
    rows = None if where is None else opened.select(where)
    if rows is not None and len(rows) == 0:
        raise InputError(f"{store}: no cell meets {where!r}, so there is nothing to write. {no_match_advice(store)}")
    with drawn():
        cm.export.h5ad(opened, out, rows=rows, overwrite=overwrite)
    n_cells = opened.n_cells if rows is None else len(rows)
    size = out.stat().st_size
    if as_json:
        print_json({"path": out, "n_cells": n_cells, "bytes": size})
    else:
        console().print(Text(f"{out}: {count_text(n_cells)} cells, {size_text(size)}"), soft_wrap=True)
