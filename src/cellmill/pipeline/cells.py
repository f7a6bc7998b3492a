"""Which cells an experiment means (floor 8): the mixture of each arm, the cells of each evaluation set. Row ids only.

Turns the words of the experiment file into the words of `cellmill.mixture`; knows nothing of models.
"""

from __future__ import annotations

from typing import Any

from cellmill.errors import MixtureError
from cellmill.mixture import Mixture, Plan
from cellmill.pipeline.config import ArmConfig, ExclusionConfig, ExperimentConfig

__all__ = ["arm_mixture", "evaluation_plan", "panel_plan", "validation_mixture"]

Json = Any


def arm_mixture(config: ExperimentConfig, name: str) -> dict[str, Json]:
    """Return the mixture that an arm is trained on, as `Mixture.from_dict` reads it; stores by absolute path."""
    arm = config.arms[name]
    components = []
    for one in arm.components:
        given = one.model_dump(mode="json", exclude_none=True)
        components.append({**given, "store": str(one.store or config.data.store)})
    return {**_frame(config, name, arm), "components": components}


def validation_mixture(config: ExperimentConfig, name: str) -> dict[str, Json] | None:
    """Return all validation cells of an arm's components; None when there are none or no split.

    Components without validation cells are left out.
    """
    arm = config.arms[name]
    if config.split is None or not config.split.validation:
        return None
    frame = {key: value for key, value in _frame(config, name, arm).items() if key not in ("cells", "draws")}
    kept = []
    for one in arm.components:
        component = {"name": one.name, "store": str(one.store or config.data.store), "split": "validation"}
        if one.where is not None:
            component["where"] = one.where
        try:
            Mixture.from_dict({**frame, "components": [component]}).plan()
        except MixtureError:
            continue
        kept.append(component)
    return {**frame, "name": f"{name} validation", "components": kept} if kept else None


def evaluation_plan(config: ExperimentConfig, name: str) -> Plan:
    """Return the cells of an evaluation set.

    Raises
    ------
    MixtureError
        When it has none.
    """
    one = next(each for each in config.evaluation if each.name == name)
    component: dict[str, Json] = {
        "name": name,
        "store": str(one.store or config.data.store),
        "split": one.split or "all",
    }
    if one.where is not None:
        component["where"] = one.where
    content = {"name": name, "seed": _seed(config), "split": _split(config), "components": [component]}
    return Mixture.from_dict({key: value for key, value in content.items() if value is not None}).plan()


def panel_plan(config: ExperimentConfig) -> Plan:
    """Return all cells of the data's store that any arm may train on: genes are chosen over these."""
    arm = ArmConfig.model_validate({"components": [{"name": "training cells"}]})
    component = {"name": "training cells", "store": str(config.data.store)}
    return Mixture.from_dict({**_frame(config, "training cells", arm), "components": [component]}).plan()


def _frame(config: ExperimentConfig, name: str, arm: ArmConfig) -> dict[str, Json]:
    """All of a mixture but its components."""
    exclude = [_exclusion(config, one) for one in arm.exclude]
    exclude += [_held_out(config, one.name) for one in config.evaluation if one.split is None]
    content = {
        "name": name,
        "seed": _seed(config),
        "split": _split(config),
        "exclude": exclude,
        "dedupe": arm.dedupe,
        "cells": arm.cells,
        "draws": arm.draws,
    }
    return {key: value for key, value in content.items() if value is not None}


def _held_out(config: ExperimentConfig, name: str) -> dict[str, Json]:
    one = next(each for each in config.evaluation if each.name == name)
    by = ["uid", "fingerprint"]
    if config.split is not None and config.split.by != "cell":
        by.append(config.split.by)
    return _exclusion(config, ExclusionConfig(store=one.store, where=one.where, by=tuple(by)))


def _exclusion(config: ExperimentConfig, one: ExclusionConfig) -> dict[str, Json]:
    content = {"store": str(one.store or config.data.store), "where": one.where, "by": list(one.by)}
    return {key: value for key, value in content.items() if value is not None}


def _seed(config: ExperimentConfig) -> dict[str, int]:
    return {"data": config.seed, "split": config.seed}


def _split(config: ExperimentConfig) -> dict[str, Json] | None:
    return None if config.split is None else config.split.model_dump(mode="json")
