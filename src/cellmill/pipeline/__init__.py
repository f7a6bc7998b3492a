"""The pipeline (floor 8): a YAML file -> build, plan, train, evaluate, report; each stage skipped when up to date.

Knows every floor below by its public face. An experiment file is read and checked without torch (`config`), so that
one that is wrong is told at once; stages and `run_experiment` bring the rest when they are first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cellmill.pipeline.config import ExperimentConfig, load_experiment, parse_experiment

if TYPE_CHECKING:
    from cellmill.pipeline.execute import Outcome as Outcome
    from cellmill.pipeline.run import ExperimentResult as ExperimentResult
    from cellmill.pipeline.run import run_experiment as run_experiment
    from cellmill.pipeline.stages import Stage as Stage
    from cellmill.pipeline.stages import plan_stages as plan_stages

__all__ = [
    "ExperimentConfig",
    "ExperimentResult",
    "Outcome",
    "Stage",
    "load_experiment",
    "parse_experiment",
    "plan_stages",
    "run_experiment",
]


_LATER = {
    "ExperimentResult": "run",
    "Outcome": "execute",
    "Stage": "stages",
    "plan_stages": "stages",
    "run_experiment": "run",
}  # name -> module


def __getattr__(name: str) -> Any:
    """Bring what needs torch when it is first asked for (PEP 562)."""
    if name in _LATER:
        return getattr(importlib.import_module(f"cellmill.pipeline.{_LATER[name]}"), name)
    raise AttributeError(f"module 'cellmill.pipeline' has no attribute {name!r}")
