"""`cellmill evaluate`: an experiment up to the evaluation of its models."""

from __future__ import annotations

from cellmill.cli.display import examples
from cellmill.cli.experiment import run_and_show
from cellmill.cli.parameters import AsJson, Experiment

__all__ = ["EPILOG", "evaluate"]

EPILOG = examples("cellmill evaluate examples/compare-arms.yaml --json")


def evaluate(experiment: Experiment, as_json: AsJson = False) -> None:
    """Evaluate the models of an experiment on its held-out sets, training first what is not trained yet."""
    run_and_show(experiment, upto="evaluate", as_json=as_json)
