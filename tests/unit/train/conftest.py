"""A small store with donors, and a run on it that takes a second."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("scvi")
pytest.importorskip("lightning")

from cellmill.ingest import build  # noqa: E402
from cellmill.simulate import write_atlas  # noqa: E402
from cellmill.store import Store  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("atlas")
    return build(folder / "atlas.mill", write_atlas(folder / "inputs", n_cells=300, n_genes=240, seed=0))


@pytest.fixture
def run_of(atlas: Store, tmp_path: Path) -> Any:
    """Make a mapping of a run: run_of("folder", epochs=3, ...)."""

    def make(folder: str = "run", /, **changes: Any) -> dict[str, Any]:
        mixture = {
            "split": {"by": "donor_id", "train": 0.6, "validation": 0.2, "test": 0.2},
            "components": [{"name": "blood", "store": str(atlas.path), "where": "tissue = 'blood'"}],
        }
        run = {
            "out": str(tmp_path / folder),
            "mixture": mixture,
            "model": {"n_latent": 4, "n_hidden": 16, "n_layers": 1},
            "epochs": 3,
            "batch_size": 32,
            "validation_every": 2,
            "seed": 1,
        }
        return {**run, **changes}

    return make
