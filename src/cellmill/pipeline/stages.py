"""What an experiment consists of (floor 8): its stages, in order, each with the key of everything it depends on. Pure.

Knows the words of the experiment file; knows no file, no store and no model. The hashes of the world (input files,
stores that exist) are handed in, so a plan can be computed, printed and tested without any data.

The key of a stage is the hash of its own inputs and of the keys of the stages before it. Two runs with the same key do
the same work, so the second need not do it. The formats of stores, plans and results are inputs too: when a version of
cellmill writes another one, what hangs on it is done again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from cellmill.evaluate.results import RESULT_FORMAT
from cellmill.mixture.plan import PLAN_FORMAT
from cellmill.pipeline.config import ArmConfig, ComponentConfig, ExperimentConfig
from cellmill.storage import hash_bytes
from cellmill.store.format import FORMAT_VERSION

__all__ = ["KINDS", "Facts", "Stage", "plan_stages", "stages_upto"]

KINDS = ("simulate", "build", "plan", "genes", "train", "evaluate", "report")
_KEY_FORMAT = 1  # raised when a stage begins to mean something else by the same inputs

Json = Any
Facts = Mapping[str, str]


@dataclass(frozen=True)
class Stage:
    """One piece of work of an experiment.

    Attributes
    ----------
    name : str
        In words: "train base seed 0".
    kind : str
        One of `KINDS`.
    subject : tuple of (str or int)
        What it is about: (), (arm,) or (arm, seed).
    inputs : dict
        Everything of the experiment that the work depends on, by name; JSON.
    after : tuple of str
        The names of the stages whose work it needs.
    outputs : tuple of str
        Files and folders that it leaves, from the experiment's folder.
    key : str
        Hash of kind, subject, inputs and the keys of `after`; 32 hexadecimal digits.
    """

    name: str
    kind: str
    subject: tuple[str | int, ...]
    inputs: Mapping[str, Json]
    after: tuple[str, ...]
    outputs: tuple[str, ...]
    key: str

    @property
    def slug(self) -> str:
        """The name as a file name."""
        return "_".join(str(part) for part in (self.kind, *self.subject))


def stage(
    kind: str,
    subject: tuple[str | int, ...] = (),
    *,
    name: str,
    inputs: Mapping[str, Json],
    after: Iterable[Stage] = (),
    outputs: Iterable[str] = (),
) -> Stage:
    """Return the stage with its key computed from what it depends on."""
    before = tuple(after)
    plain = json.loads(json.dumps(inputs))  # as it will be read back from a record: tuples are lists, keys are text
    identity = [_KEY_FORMAT, kind, list(subject), plain, [one.key for one in before]]
    key = hash_bytes(json.dumps(identity, sort_keys=True, separators=(",", ":")).encode())
    return Stage(name, kind, subject, plain, tuple(one.name for one in before), tuple(outputs), key)


def plan_stages(config: ExperimentConfig, facts: Facts) -> list[Stage]:
    """Return every stage of an experiment in an order in which they can be run.

    Parameters
    ----------
    config : ExperimentConfig
    facts : mapping of str to str
        Hash of each input file (by "input:folder/name"), digest of each store that exists and is read (by path), hash
        of the vocabulary file (by path), as `read_facts` gives them.

    Notes
    -----
    Titles and notes are inputs of the report alone; the arm is an input of its own plan, training and evaluation alone.
    """
    first = _data_stages(config, facts)
    data = first[-1:]
    panel, measure = _gene_stages(config, facts, data)
    stages, evaluations = [*first, panel, measure], []
    for name, arm in config.arms.items():
        plan = _plan_stage(config, name, arm, facts, data)
        stages.append(plan)
        for seed in config.seeds:
            training = _train_stage(config, name, seed, [plan, panel])
            evaluation = _evaluate_stage(config, name, seed, facts, [training, measure])
            stages += [training, evaluation]
            evaluations.append(evaluation)
    return [*stages, _report_stage(config, evaluations)]


def stages_upto(stages: Iterable[Stage], kind: str | None) -> list[Stage]:
    """Return the stages that stand before or at `kind` in the path; all of them for None."""
    if kind is None:
        return list(stages)
    last = KINDS.index(kind)
    return [one for one in stages if KINDS.index(one.kind) <= last]


def _data_stages(config: ExperimentConfig, facts: Facts) -> list[Stage]:
    data = config.data
    if data.simulate is None and not data.inputs:
        return []
    policy = {word: _plain(data)[word] for word in ("vocabulary", "min_match", "counts", "rename", "skip_bad")}
    if data.vocabulary in facts:
        policy["vocabulary"] = facts[str(data.vocabulary)]
    policy["store format"] = FORMAT_VERSION
    if data.simulate is None:
        files = {name: digest for name, digest in facts.items() if name.startswith("input:")}
        return [stage("build", name="build the store", inputs={**policy, "inputs": files}, outputs=["@store"])]
    simulate = stage("simulate", name="simulate the atlas", inputs=_plain(data.simulate), outputs=["simulated"])
    return [simulate, stage("build", name="build the store", inputs=policy, after=[simulate], outputs=["@store"])]


def _gene_stages(config: ExperimentConfig, facts: Facts, data: list[Stage]) -> tuple[Stage, Stage]:
    """Genes are chosen once for all arms, from cells that any arm may train on, so that arms can be compared."""
    inputs = {
        "genes": _plain(config.train)["genes"],
        "split": _plain(config.split),
        "seed": config.seed,
        "store": facts.get(str(config.data.store)),
    }
    panel = stage(
        "genes", ("model",), name="genes of the models", inputs=inputs, after=data, outputs=["genes/model.json"]
    )
    measure = stage(
        "genes",
        ("measure",),
        name="genes of the evaluation",
        inputs={"hvg": config.measure.hvg},
        after=[panel],
        outputs=["genes/measure.json"],
    )
    return panel, measure


def _plan_stage(config: ExperimentConfig, name: str, arm: ArmConfig, facts: Facts, data: list[Stage]) -> Stage:
    components = [_component(one, facts) for one in arm.components]
    inputs = {
        **_plain(arm),
        "components": components,
        "split": _plain(config.split),
        "seed": config.seed,
        "exclude": [_with_digest(_plain(one), facts) for one in arm.exclude],
        "plan format": PLAN_FORMAT,
        "held out": [_with_digest(_held_out(one), facts) for one in _plain_list(config.evaluation) if not one["split"]],
        "store": facts.get(str(config.data.store)),
    }
    return stage("plan", (name,), name=f"plan {name}", inputs=inputs, after=data, outputs=[f"plans/{name}.json"])


def _train_stage(config: ExperimentConfig, arm: str, seed: int, after: list[Stage]) -> Stage:
    training = {word: value for word, value in _plain(config.train).items() if word != "genes"}
    return stage(
        "train",
        (arm, seed),
        name=f"train {arm} seed {seed}",
        inputs={"model": _plain(config.model), **training, "seed": seed},
        after=after,
        outputs=[f"runs/{arm}/seed-{seed}/model"],
    )


def _evaluate_stage(config: ExperimentConfig, arm: str, seed: int, facts: Facts, after: list[Stage]) -> Stage:
    sets = [
        _with_digest({k: v for k, v in one.items() if k != "note"}, facts) for one in _plain_list(config.evaluation)
    ]
    return stage(
        "evaluate",
        (arm, seed),
        name=f"evaluate {arm} seed {seed}",
        inputs={"result format": RESULT_FORMAT, "sets": sets, "split": _plain(config.split), "seed": config.seed},
        after=after,
        outputs=[f"runs/{arm}/seed-{seed}/evaluation/evaluation.json"],
    )


def _report_stage(config: ExperimentConfig, after: list[Stage]) -> Stage:
    return stage(
        "report",
        name="report",
        inputs={
            "name": config.name,
            **_plain(config.report),
            "base": config.base_arm,
            "arms": list(config.arms),
            "seeds": list(config.seeds),
            "sets": {one.name: one.note for one in config.evaluation},
        },
        after=after,
        outputs=["report.html", "report.json", "report.csv"],
    )


def _component(component: ComponentConfig, facts: Facts) -> dict[str, Json]:
    return _with_digest(_plain(component), facts)


def _held_out(evaluation: Mapping[str, Json]) -> dict[str, Json]:
    return {"store": evaluation["store"], "where": evaluation["where"]}


def _with_digest(one: dict[str, Json], facts: Facts) -> dict[str, Json]:
    """Name a store by what is in it, not by where it lies."""
    return {**one, "store": facts.get(str(one["store"]), one["store"])} if one.get("store") else one


def _plain(model: BaseModel | None) -> dict[str, Json]:
    return {} if model is None else model.model_dump(mode="json")


def _plain_list(models: Iterable[BaseModel]) -> list[dict[str, Json]]:
    return [_plain(model) for model in models]
