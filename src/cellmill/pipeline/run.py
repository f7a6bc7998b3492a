"""Running an experiment (floor 8): read its file, plan its stages, do those that are not up to date.

The public entry; everything else of this package is called from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellmill.errors import ConfigError, nearest
from cellmill.pipeline.config import ExperimentConfig, load_experiment
from cellmill.pipeline.execute import Outcome, execute
from cellmill.pipeline.stages import KINDS, plan_stages, stages_upto
from cellmill.pipeline.work import Workshop
from cellmill.pipeline.world import read_facts

__all__ = ["ExperimentResult", "run_experiment"]


@dataclass(frozen=True)
class ExperimentResult:
    """What became of an experiment.

    Attributes
    ----------
    name : str
    out : Path
        Its folder: store, plans, runs, report, records.
    outcomes : tuple of Outcome
        One for each stage, in order: done or up to date, and why.
    report : Path or None
        The report, when the run went as far.
    """

    name: str
    out: Path
    outcomes: tuple[Outcome, ...]
    report: Path | None

    @property
    def did_nothing(self) -> bool:
        """True when everything was up to date."""
        return not any(outcome.ran for outcome in self.outcomes)

    @property
    def seconds(self) -> float:
        """Time of the stages that were done now."""
        return sum(outcome.record.seconds for outcome in self.outcomes if outcome.ran)

    def results(self, stage: str) -> dict[str, Any]:
        """Return what a stage found out, by its name."""
        return next(dict(one.record.results) for one in self.outcomes if one.stage.name == stage)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return {
            "name": self.name,
            "out": str(self.out),
            "report": None if self.report is None else str(self.report),
            "did_nothing": self.did_nothing,
            "stages": [
                {
                    "name": one.stage.name,
                    "ran": one.ran,
                    "why": one.why,
                    "key": one.stage.key,
                    "finished": one.record.finished,
                    "seconds": one.record.seconds,
                    "results": dict(one.record.results),
                }
                for one in self.outcomes
            ],
        }

    def __str__(self) -> str:
        lines = [outcome.line for outcome in self.outcomes]
        if self.did_nothing:
            lines.append(f"nothing to do: all {len(lines)} stages are up to date")
        if self.report is not None:
            lines.append(f"report: {self.report}")
        return "\n".join(lines)


def run_experiment(experiment: str | Path | ExperimentConfig, *, upto: str | None = None) -> ExperimentResult:
    """Do everything that an experiment names, from inputs to report; what is up to date is skipped, and said so.

    Parameters
    ----------
    experiment : str, Path or ExperimentConfig
        The YAML file, or what `load_experiment` returns.
    upto : str, optional
        The last kind of stage to do: "simulate", "build", "plan", "genes", "train", "evaluate" or "report".

    Raises
    ------
    ConfigError
        For a file that says something that cannot be meant, with all problems and their lines.
    InputError
        For inputs that cannot be used, cells that are not there, and so on; a note names the stage.
    StoreLockedError
        When another process runs the same experiment; names it.

    Notes
    -----
    Killed at any moment, the same call continues: a finished stage stays finished, a training goes on from its last
    epoch. A stage is done again when its inputs have changed, when one it builds on was, or when its output is gone.

    Examples
    --------
    >>> result = run_experiment("examples/compare-arms.yaml")  # doctest: +SKIP
    >>> print(result)  # doctest: +SKIP
    """
    config = experiment if isinstance(experiment, ExperimentConfig) else load_experiment(experiment)
    if upto is not None and upto not in KINDS:
        raise ConfigError(f"there is no stage {upto!r}.{nearest(upto, KINDS)} Stages: {', '.join(KINDS)}.")
    assert config.out is not None
    assert config.data.store is not None
    facts = read_facts(config, cache_folder=config.out / "records")
    stages = stages_upto(plan_stages(config, facts), upto)
    places = {"@store": config.data.store / "manifest.json"}
    outcomes = execute(stages, Workshop(config).work(), out=config.out, places=places)
    report = config.out / "report.html" if any(one.stage.kind == "report" for one in outcomes) else None
    return ExperimentResult(config.name, config.out, tuple(outcomes), report)
