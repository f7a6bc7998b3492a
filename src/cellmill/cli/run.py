"""`cellmill run`: an experiment file, from inputs to report, skipping what is up to date."""

from __future__ import annotations

from cellmill.cli.display import examples
from cellmill.cli.experiment import run_and_show
from cellmill.cli.parameters import AsJson, Experiment

__all__ = ["EPILOG", "run"]

EPILOG = examples("cellmill run examples/compare-arms.yaml", "cellmill run examples/compare-arms.yaml --json")


def run(experiment: Experiment, as_json: AsJson = False) -> None:
    """Do everything an experiment names, build to report; what is up to date is skipped, and said so."""
    run_and_show(experiment, upto=None, as_json=as_json)
