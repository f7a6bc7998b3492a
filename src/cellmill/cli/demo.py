"""`cellmill demo`: cells to a trained, evaluated, reported model in one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

import cellmill as cm
from cellmill.cli.display import console, examples, print_json
from cellmill.cli.parameters import AsJson
from cellmill.cli.progress import drawn

__all__ = ["EPILOG", "demo"]

EPILOG = examples("cellmill demo", "cellmill demo blood.h5ad gut.h5ad --out my-demo")


def demo(
    data: Annotated[
        list[str] | None, typer.Argument(metavar="INPUT", help="Files of your own; a simulated atlas without any.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to write to.")] = Path("cellmill-demo"),
    as_json: AsJson = False,
) -> None:
    """Take a small atlas, simulated or your own, through store, mixture, training and evaluation to report.html."""
    with drawn():
        result = cm.demo.run_demo(out, data=data or None)
    if as_json:
        print_json(result)
    else:
        console().print(Text(str(result)), soft_wrap=True)
