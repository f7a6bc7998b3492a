"""Training (floor 7): from a mixture to a trained model in a run folder that says everything about itself.

Knows plans, data modules and models; must not know how a model is judged: evaluators are handed in.

The module itself can be called: `cellmill.train(run)` is `cellmill.train.train_run(run)`,
so that the verb of the public face and the package that holds its parts share one name.
"""

from __future__ import annotations

import sys
import types
from typing import Any

from cellmill.errors import MissingDependencyError
from cellmill.train.config import RunConfig, RunSeeds
from cellmill.train.record import RunRecord

try:
    from cellmill.train.run import Evaluator, train_run
except ModuleNotFoundError as error:
    if error.name not in ("torch", "lightning", "scvi", "safetensors"):
        raise
    raise MissingDependencyError(error.name, extra="scvi", needed_for="training") from error

__all__ = ["Evaluator", "RunConfig", "RunRecord", "RunSeeds", "train_run"]


class _CallableModule(types.ModuleType):
    """A module whose call is `train_run`."""

    def __call__(self, *args: Any, **kwargs: Any) -> RunRecord:
        return train_run(*args, **kwargs)


sys.modules[__name__].__class__ = _CallableModule
