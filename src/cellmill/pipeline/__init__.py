"""The pipeline (floor 8): a YAML file -> build, plan, train, evaluate, report; each stage skipped when up to date.

Knows every floor below by its public face. The planning half (`config`, `stages`, `records`, `execute`) is imported
without torch; `run_experiment` brings the rest when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cellmill.pipeline.config import ExperimentConfig, load_experiment, parse_experiment
from cellmill.pipeline.execute import Outcome
from cellmill.pipeline.stages import Stage, plan_stages

if TYPE_CHECKING:
    from cellmill.pipeline.run import ExperimentResult as ExperimentResult
    from cellmill.pipeline.run import run_experiment as run_experiment

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


def __getattr__(name: str) -> Any:
    """Bring what needs torch when it is first asked for (PEP 562)."""
    if name in ("ExperimentResult", "run_experiment"):
        return getattr(importlib.import_module("cellmill.pipeline.run"), name)
    raise AttributeError(f"module 'cellmill.pipeline' has no attribute {name!r}")
