"""What `train`, `evaluate` and `run` share (floor 9): run an experiment up to a stage and show what became of it."""

from __future__ import annotations

from pathlib import Path

from rich.text import Text

import cellmill as cm
from cellmill.cli.display import console, print_json
from cellmill.cli.progress import drawn, is_quiet

__all__ = ["run_and_show"]


def run_and_show(path: Path, *, upto: str | None, as_json: bool) -> None:
    """Run the experiment at `path` up to the stage `upto` and print its result."""
    with drawn():
        config = cm.pipeline.load_experiment(path)  # before torch is imported, which takes seconds
        result = cm.pipeline.run_experiment(config, upto=upto)
    if as_json:
        print_json(result)
        return
    out = console()
    lines = str(result).splitlines()
    if not is_quiet():  # what became of each stage has just been said on standard error
        lines = lines[len(result.outcomes) :]
    for line in lines:
        out.print(Text(line), soft_wrap=True)
