"""One small atlas of three studies for the tests of this folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from cellmill.ingest import build
from cellmill.simulate import simulate_atlas, write_atlas, write_h5ad
from cellmill.store import Store


@pytest.fixture(scope="session")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """300 cells of 3 studies, 2 tissues and 30 donors; 400 genes."""
    folder: Path = tmp_path_factory.mktemp("mixture")
    return build(folder / "atlas.mill", write_atlas(folder / "inputs", n_cells=300, n_genes=400, seed=1))


@pytest.fixture(scope="session")
def gut(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The cells of the third study in a store of their own: the same cells, once more."""
    folder: Path = tmp_path_factory.mktemp("gut")
    return build(folder / "gut.mill", write_atlas(folder / "inputs", n_cells=300, n_genes=400, seed=1)[2:])


@pytest.fixture(scope="session")
def screens(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Store]:
    """Two stores of a screen, 160 cells each: target (ctrl, KO1 to KO3, three cells of KO4), batch (1 to 3), line."""
    folder: Path = tmp_path_factory.mktemp("screens")
    stores = []
    for study in simulate_atlas(n_cells=320, n_genes=200, n_studies=2, seed=5):
        n = study.n_cells
        target = [("ctrl", "ctrl", "KO1", "KO2", "KO3")[i % 5] if i > 2 else "KO4" for i in range(n)]
        batch, line = [str(1 + i % 3) for i in range(n)], ["xy"[i % 2] for i in range(n)]
        obs = study.obs.select(["cell", "cell_type"])
        for name, values in {"target": target, "batch": batch, "line": line}.items():
            obs = obs.append_column(name, pa.array(values).dictionary_encode())
        file = write_h5ad(replace(study, obs=obs), folder / f"{study.name}.h5ad")
        stores.append(build(folder / f"{study.name}.mill", [file]))
    return stores[0], stores[1]
