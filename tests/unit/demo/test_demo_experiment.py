"""The experiment of a demonstration: no evaluated cell is trained on, and the report says what was held out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from cellmill.demo.experiment import OF_CELLS, OF_DONORS, data_section, own_experiment, simulated_experiment
from cellmill.errors import FormatError, InputError, NotFoundError
from cellmill.ingest import build
from cellmill.mixture import Mixture
from cellmill.pipeline import parse_experiment
from cellmill.pipeline.cells import arm_mixture, evaluation_plan, validation_mixture
from cellmill.simulate import Study, simulate_atlas, write_h5ad
from cellmill.store import Store, open_store


def write_store(folder: Path, studies: list[Study]) -> Store:
    paths = []
    for study in studies:
        path = folder / f"{study.name}.h5ad"
        write_h5ad(study, path)
        paths.append(path)
    return build(folder / "atlas.mill", paths)


def without(study: Study, *columns: str) -> Study:
    return replace(study, obs=study.obs.drop_columns(list(columns)))


def composed(store: Store) -> Mapping[str, Any]:
    """Return the experiment, after checking that its file can be read and no evaluated cell is trained on."""
    content = own_experiment({"store": str(store.path)}, store)
    config = parse_experiment(content, base=store.path.parent)
    held_out = {int(row) for one in config.evaluation for row in evaluation_plan(config, one.name).rows(0)}
    assert held_out
    for arm in config.arms:
        plan = Mixture.from_dict(arm_mixture(config, arm)).plan()
        assert not held_out & set(plan.rows(0).tolist())
        validation = validation_mixture(config, arm)
        if validation is not None:
            assert not held_out & set(Mixture.from_dict(validation).plan().rows(0).tolist())
    return content


@pytest.fixture(scope="module")
def studies() -> list[Study]:
    return simulate_atlas(n_cells=180, n_genes=300)


def test_donors_are_held_out_where_they_are_known(tmp_path: Path, studies: list[Study]) -> None:
    store = write_store(tmp_path, studies)
    content = composed(store)
    assert content["split"]["by"] == "donor_id"
    assert {one["note"] for one in content["evaluation"]} == {OF_DONORS}
    assert [one["name"] for one in content["evaluation"]] == ["blood-a", "blood-b", "gut-c"]
    assert list(content["arms"]) == ["all-data", "blood-a-alone", "blood-b-alone", "gut-c-alone"]
    config = parse_experiment(content, base=tmp_path)
    trained = Mixture.from_dict(arm_mixture(config, "all-data")).plan().rows(0)
    tested = [row for one in config.evaluation for row in evaluation_plan(config, one.name).rows(0)]
    donors = [set(store.column("donor_id", rows).to_pylist()) for rows in (trained, tested)]
    assert not donors[0] & donors[1]


def test_cells_are_held_out_where_donors_are_not_known_and_labelled_so(tmp_path: Path, studies: list[Study]) -> None:
    store = write_store(tmp_path, [without(study, "donor_id", "cell_type") for study in studies[:1]])
    content = composed(store)
    assert content["split"]["by"] == "cell"
    assert [one["note"] for one in content["evaluation"]] == [OF_CELLS]
    assert content["evaluation"][0]["cell_type"] is None
    assert list(content["arms"]) == ["all-data"]


def test_each_data_set_is_labelled_by_what_was_held_out_of_it(tmp_path: Path, studies: list[Study]) -> None:
    store = write_store(tmp_path, [without(studies[0], "donor_id"), studies[2]])
    notes = {one["name"]: one["note"] for one in composed(store)["evaluation"]}
    assert notes == {"blood-a": OF_CELLS, "gut-c": OF_DONORS}


def test_one_donor_means_cells(tmp_path: Path, studies: list[Study]) -> None:
    first = studies[0]
    donor = pa.array(["only"] * first.n_cells).dictionary_encode()
    alone = replace(first, obs=first.obs.set_column(2, "donor_id", donor))
    content = composed(write_store(tmp_path, [alone]))
    assert content["split"]["by"] == "cell"


def test_names_with_quotes_reach_sql_unhurt(tmp_path: Path, studies: list[Study]) -> None:
    odd = [replace(studies[0], name="o'brien; --"), replace(studies[1], name="ümlaut data")]
    content = composed(write_store(tmp_path, odd))
    assert len(content["arms"]) == 3


def test_a_handful_of_cells_is_refused(tmp_path: Path) -> None:
    store = write_store(tmp_path, simulate_atlas(n_cells=1, n_genes=300, n_studies=1))
    with pytest.raises(InputError, match="too few"):
        own_experiment({"store": str(store.path)}, store)


def test_columns_are_brought_to_one_name(tmp_path: Path, studies: list[Study]) -> None:
    first, second = studies[0], studies[1]
    obs = first.obs.rename_columns(["Celltype" if name == "cell_type" else name for name in first.obs.column_names])
    write_h5ad(replace(first, obs=obs), tmp_path / "a.h5ad")
    write_h5ad(second, tmp_path / "b.h5ad")
    section = data_section([tmp_path])
    assert section["rename"] == {"Celltype": "cell_type"}
    assert [Path(path).name for path in section["inputs"]] == ["a.h5ad", "b.h5ad"]


def test_bad_inputs_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="absent"):
        data_section([tmp_path / "absent.h5ad"])
    (tmp_path / "cut.h5ad").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(FormatError, match=r"cut\.h5ad"):
        data_section([tmp_path / "cut.h5ad"])


def test_the_simulated_experiment_can_be_planned(tmp_path: Path) -> None:
    content = simulated_experiment(n_cells=300)
    store = write_store(tmp_path, simulate_atlas(n_cells=300, n_genes=300))
    content["data"] = {"store": str(store.path)}
    config = parse_experiment(content, base=tmp_path)
    sizes = [Mixture.from_dict(arm_mixture(config, arm)).plan().n_cells for arm in config.arms]
    assert sizes == [100, 100]
    assert all(evaluation_plan(config, one.name).table[0].donors >= 3 for one in config.evaluation)
    assert open_store(store.path).n_cells == 300
