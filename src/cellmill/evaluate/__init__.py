"""Evaluation (floor 7): how well trained models reconstruct unseen cells, and a report that a person reads gladly.

Knows run folders, models and stores; must not know how training goes. anndata and pandas are allowed here, torch comes
with `models`.

The module itself can be called: `cellmill.evaluate(run)` is `cellmill.evaluate.evaluate_run(run)`,
so that the verb of the public face and the package that holds its parts share one name.
"""

from __future__ import annotations

import sys
import types
from typing import Any

from cellmill.evaluate.cells import EvalSet
from cellmill.evaluate.collect import collect_report
from cellmill.evaluate.metrics import Interval, interval, pearson_per_cell, r2_per_cell
from cellmill.evaluate.reconstruction import choose_genes, evaluate_run
from cellmill.evaluate.report import Headline, ReportData, ReportFiles, write_report
from cellmill.evaluate.results import EvaluationResult

__all__ = [
    "EvalSet",
    "EvaluationResult",
    "Headline",
    "Interval",
    "ReportData",
    "ReportFiles",
    "choose_genes",
    "collect_report",
    "evaluate_run",
    "interval",
    "pearson_per_cell",
    "r2_per_cell",
    "write_report",
]


class _CallableModule(types.ModuleType):
    """A module whose call is `evaluate_run`."""

    def __call__(self, *args: Any, **kwargs: Any) -> EvaluationResult:
        return evaluate_run(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
