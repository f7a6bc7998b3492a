"""`cellmill train`: an experiment up to its trained models."""

from __future__ import annotations

from cellmill.cli.display import examples
from cellmill.cli.experiment import run_and_show
from cellmill.cli.parameters import AsJson, Experiment

__all__ = ["EPILOG", "train"]

EPILOG = examples("cellmill train examples/compare-arms.yaml")


def train(experiment: Experiment, as_json: AsJson = False) -> None:
    """Build, plan and train what an experiment names; stopped or killed, the same command continues."""
    run_and_show(experiment, upto="train", as_json=as_json)
