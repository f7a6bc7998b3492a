"""`cellmill plan`: what a mixture would train on, before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

import cellmill as cm
from cellmill.cli.display import console, error_console, examples, print_json
from cellmill.cli.parameters import AsJson
from cellmill.cli.progress import drawn

__all__ = ["EPILOG", "plan"]

EPILOG = examples("cellmill plan mix.yaml", "cellmill plan mix.yaml --json", "cellmill plan mix.yaml --figure plan.png")


def plan(
    mix: Annotated[Path, typer.Argument(metavar="MIX.yaml", help="Components, quotas, split and exclusions.")],
    figure: Annotated[
        Path | None, typer.Option("--figure", metavar="PNG", help="Write the plan as a figure as well.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a mixture would train on: cells, draws, epochs, shares, donors, and what it would leak."""
    with drawn():
        planned = cm.Mixture.from_yaml(mix).plan()
    if figure is not None:
        planned.figure(figure)
        error_console().print(Text(f"figure written to {figure}"), soft_wrap=True)
    if as_json:
        print_json(json.loads(planned.to_json()))
        return
    console().print(Text(str(planned)), soft_wrap=True)
    shown = str(planned)
    for warning in planned.warnings:
        if warning not in shown:
            error_console().print(Text(f"warning: {warning}", style="yellow"), soft_wrap=True)
