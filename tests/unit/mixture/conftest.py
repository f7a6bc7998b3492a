"""One small atlas of three studies for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from cellmill.ingest import build
from cellmill.simulate import write_atlas
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
