"""`cellmill plan`: what a mixture would train on, before anything runs."""

from __future__ import annotations

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
        mixture = cm.Mixture.from_yaml(mix)
        cells = mixture.plan()
        rungs = [rung.plan() for rung in mixture.ladder()] if mixture.ladder_shares else []
        planned = [one if one.units is None else cm.mixture.plan_units(one, one.units) for one in (cells, *rungs)]
    if figure is not None:
        cells.figure(figure)
        error_console().print(Text(f"figure written to {figure}"), soft_wrap=True)
    if as_json:
        ladder = {"ladder": [one.to_dict() for one in planned[1:]]} if rungs else {}
        print_json(planned[0].to_dict() | ladder)
        return
    console().print(Text("\n\n".join(map(str, planned))), soft_wrap=True)
