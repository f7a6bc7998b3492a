"""Which stages a change of the experiment file reaches, and which it leaves as they are."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from cellmill.pipeline.config import parse_experiment
from cellmill.pipeline.stages import plan_stages, stages_upto

EXPERIMENT: dict[str, Any] = {
    "name": "small",
    "seeds": [0, 1],
    "data": {"simulate": {"n_cells": 600}},
    "split": {"by": "donor_id"},
    "evaluation": [{"name": "blood", "where": "tissue = 'blood'", "split": "test"}],
    "arms": {
        "base": {"components": [{"name": "blood", "choose": 100}]},
        "more": {"components": [{"name": "blood", "choose": 100}, {"name": "gut", "choose": 100}]},
    },
    "train": {"epochs": 3},
    "report": {"title": "first"},
}
INPUTS = {"input:a/x.h5ad": "11", "input:a/y.h5ad": "22"}


def changed(mutate: Any, facts: dict[str, str] | None = None) -> set[str]:
    """Return the names of the stages whose key a change alters."""
    after = copy.deepcopy(EXPERIMENT)
    mutate(after)
    old = {one.name: one.key for one in plan_stages(parse_experiment(EXPERIMENT, base=Path("/e")), {})}
    new = {one.name: one.key for one in plan_stages(parse_experiment(after, base=Path("/e")), facts or {})}
    return {name for name in {*old, *new} if old.get(name) != new.get(name)}


def test_the_same_experiment_has_the_same_keys_wherever_it_lies() -> None:
    here = plan_stages(parse_experiment(EXPERIMENT, base=Path("/here")), {})
    there = plan_stages(parse_experiment(EXPERIMENT, base=Path("/there")), {})
    assert [one.key for one in here] == [one.key for one in there]
    assert len({one.key for one in here}) == len(here)


def test_arms_that_say_the_same_are_still_two() -> None:
    content = copy.deepcopy(EXPERIMENT)
    content["arms"]["more"] = content["arms"]["base"]
    stages = plan_stages(parse_experiment(content, base=Path("/e")), {})
    assert len({one.key for one in stages}) == len(stages)


def test_stages_stand_after_what_they_need() -> None:
    done: set[str] = set()
    stages = plan_stages(parse_experiment(EXPERIMENT, base=Path("/e")), {})
    for one in stages:
        assert set(one.after) <= done
        done.add(one.name)
    assert len({one.slug for one in stages}) == len(stages)


def test_changing_one_arm_reaches_that_arm_and_the_report_only() -> None:
    def mutate(content: dict[str, Any]) -> None:
        content["arms"]["more"]["components"][1]["choose"] = 50

    assert changed(mutate) == {
        "plan more", "train more seed 0", "train more seed 1", "evaluate more seed 0", "evaluate more seed 1", "report",
    }  # fmt: skip


def test_changing_the_title_reaches_the_report_only() -> None:
    assert changed(lambda content: content["report"].update(title="second")) == {"report"}


def test_a_new_seed_adds_its_training_only() -> None:
    found = changed(lambda content: content.update(seeds=[0, 1, 2]))
    assert found == {*(f"{verb} {arm} seed 2" for verb in ("train", "evaluate") for arm in ("base", "more")), "report"}


def test_a_new_arm_leaves_the_others() -> None:
    found = changed(lambda c: c["arms"].update(third={"components": [{"name": "gut"}]}))
    assert {name for name in found if "base" in name or "more" in name} == set()


def test_epochs_reach_training_and_after() -> None:
    found = changed(lambda content: content["train"].update(epochs=4))
    assert {name.split()[0] for name in found} == {"train", "evaluate", "report"}


def test_evaluation_genes_do_not_reach_training() -> None:
    found = changed(lambda content: content.update(measure={"hvg": 50}))
    assert {name.split()[0] for name in found} == {"genes", "evaluate", "report"}
    assert "genes of the models" not in found


def test_held_out_cells_without_a_split_are_part_of_every_plan() -> None:
    extra = {"name": "gut", "where": "tissue = 'gut'"}
    assert "plan base" in changed(lambda content: content["evaluation"].append(extra))
    assert "plan base" not in changed(lambda content: content["evaluation"].append({**extra, "split": "test"}))


@pytest.mark.parametrize(
    ("name", "reached"),
    [
        ("FORMAT_VERSION", {"build", "genes", "plan", "train", "evaluate", "report"}),
        ("PLAN_FORMAT", {"plan", "train", "evaluate", "report"}),
        ("RESULT_FORMAT", {"evaluate", "report"}),
    ],
)
def test_another_format_reaches_what_is_written_in_it_and_after(
    name: str, reached: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = parse_experiment(EXPERIMENT, base=Path("/e"))
    old = {one.name: one.key for one in plan_stages(config, {})}
    monkeypatch.setattr(f"cellmill.pipeline.stages.{name}", 99)
    new = plan_stages(config, {})
    assert {one.kind for one in new if one.key != old[one.name]} == reached


def test_everything_hangs_on_the_inputs() -> None:
    content = copy.deepcopy(EXPERIMENT)
    content["data"] = {"inputs": ["a/*.h5ad"]}
    config = parse_experiment(content, base=Path("/e"))
    old = {one.name: one.key for one in plan_stages(config, INPUTS)}
    new = {one.name: one.key for one in plan_stages(config, {**INPUTS, "input:a/y.h5ad": "23"})}
    assert all(old[name] != new[name] for name in old)


def test_an_existing_store_needs_no_building_but_its_digest_counts() -> None:
    content = copy.deepcopy(EXPERIMENT)
    content["data"] = {"store": "atlas.mill"}
    config = parse_experiment(content, base=Path("/e"))
    old = plan_stages(config, {"/e/atlas.mill": "aa"})
    new = plan_stages(config, {"/e/atlas.mill": "bb"})
    assert "build" not in {one.kind for one in old}
    assert all(a.key != b.key for a, b in zip(old, new, strict=True))


@pytest.mark.parametrize(("upto", "last"), [("build", "build"), ("plan", "plan"), ("train", "train"), (None, "report")])
def test_upto_keeps_the_path_until_there(upto: str | None, last: str) -> None:
    stages = plan_stages(parse_experiment(EXPERIMENT, base=Path("/e")), {})
    kept = stages_upto(stages, upto)
    assert kept[-1].kind == last or {one.kind for one in kept if one.kind == last}
    assert all(set(one.after) <= {k.name for k in kept} for one in kept)
