"""The shipped experiment keeps what its comments promise."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellmill.ingest import build
from cellmill.mixture import Mixture
from cellmill.pipeline.cells import arm_mixture, evaluation_plan
from cellmill.pipeline.config import ExperimentConfig, load_experiment
from cellmill.simulate import write_atlas

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "compare-arms.yaml"


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> ExperimentConfig:
    """The example on cells of the same donors with fewer genes: which cells are meant does not depend on genes."""
    folder = tmp_path_factory.mktemp("example")
    config = load_experiment(EXAMPLE)
    assert config.data.simulate is not None
    paths = write_atlas(folder / "in", n_cells=config.data.simulate.n_cells, n_genes=200)
    store = build(folder / "atlas.mill", paths).path
    return config.model_copy(update={"data": config.data.model_copy(update={"store": store})})


def test_the_control_is_as_large_as_the_arm_with_a_second_tissue(example: ExperimentConfig) -> None:
    plans = {arm: Mixture.from_dict(arm_mixture(example, arm)).plan() for arm in example.arms}
    assert plans["blood-plus-gut"].n_cells == plans["twice-the-blood"].n_cells == 2 * plans["blood"].n_cells
    assert set(plans["blood"].rows(0)) < set(plans["twice-the-blood"].rows(0))
    assert set(plans["blood"].rows(0)) < set(plans["blood-plus-gut"].rows(0))


def test_three_donors_of_each_tissue_are_held_out_of_every_arm(example: ExperimentConfig) -> None:
    for one in example.evaluation:
        plan = evaluation_plan(example, one.name)
        donors = set(plan.stores[0].column("donor_id", plan.rows(0)).to_pylist())
        assert len(donors) >= 3
        for arm in example.arms:
            trained = Mixture.from_dict(arm_mixture(example, arm)).plan()
            assert not donors & set(trained.stores[0].column("donor_id", trained.rows(0)).to_pylist())


def test_a_copied_example_writes_nothing_outside_its_folder(tmp_path: Path) -> None:
    copied = tmp_path / "copied" / EXAMPLE.name
    copied.parent.mkdir()
    copied.write_bytes(EXAMPLE.read_bytes())
    config = load_experiment(copied)
    assert config.out is not None
    assert config.data.store is not None
    for written in (config.out, config.data.store):
        assert written.resolve().is_relative_to(copied.parent.resolve())
