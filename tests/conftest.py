"""What all tests share: where real cells lie, and small files of known counts."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy import sparse

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real cells; tests that need it skip where it is not."""
    folder = Path(os.environ.get("CELLMILL_SHARED", REPOSITORY.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip("no real cells beside the repository (set CELLMILL_SHARED to the folder that holds data/)")
    return folder


@dataclass
class TinyFile:
    """A small h5ad and what is in it."""

    path: Path
    counts: sparse.csr_matrix
    genes: list[str]
    cells: list[str]
    obs: dict[str, list[str]] = field(default_factory=dict)


def write_tiny_h5ad(
    path: Path,
    counts: np.ndarray,
    *,
    genes: list[str] | None = None,
    cells: list[str] | None = None,
    obs: dict[str, list[str]] | None = None,
    layers: dict[str, np.ndarray] | None = None,
    dtype: str = "float32",
) -> TinyFile:
    """Write a dense array of counts as an h5ad with CSR X; ids default to Ensembl-like ones."""
    n_cells, n_genes = counts.shape
    genes = genes or [f"ENSG{i:011d}" for i in range(n_genes)]
    cells = cells or [f"cell{i}" for i in range(n_cells)]
    obs = obs or {}
    text = h5py.string_dtype()
    with h5py.File(path, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        for name, values in {"X": counts, **{f"layers/{k}": v for k, v in (layers or {}).items()}}.items():
            matrix = sparse.csr_matrix(values)
            group = file.create_group(name)
            group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": matrix.shape})
            group["data"], group["indices"], group["indptr"] = matrix.data.astype(dtype), matrix.indices, matrix.indptr
        for name, index, columns in (("obs", cells, obs), ("var", genes, {})):
            group = file.create_group(name)
            group.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"})
            group.attrs.create("column-order", list(columns), dtype=text)
            for column, strings in {"_index": index, **columns}.items():
                data = group.create_dataset(column, data=strings, dtype=text)
                data.attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})
    return TinyFile(path, sparse.csr_matrix(counts), genes, cells, obs)


def random_counts(n_cells: int, n_genes: int, *, seed: int = 0, density: float = 0.3) -> np.ndarray:
    """Return overdispersed counts, mostly zero, with an empty cell and an unexpressed gene where there is room."""
    rng = np.random.default_rng(seed)
    counts = rng.negative_binomial(1, 0.4, (n_cells, n_genes)) * (rng.random((n_cells, n_genes)) < density)
    if n_cells > 3 and n_genes > 3:
        counts[1] = 0
        counts[:, 2] = 0
        counts[0, 0] = 70_000
    return counts.astype(np.int64)


@pytest.fixture
def tiny_h5ad(tmp_path: Path) -> Callable[..., TinyFile]:
    """Make small h5ad files: tiny_h5ad("name", n_cells=..., n_genes=..., seed=...) or tiny_h5ad("name", counts=...)."""

    def make(
        name: str = "tiny",
        *,
        n_cells: int = 60,
        n_genes: int = 40,
        seed: int = 0,
        counts: np.ndarray | None = None,
        **kw: object,
    ) -> TinyFile:
        values = random_counts(n_cells, n_genes, seed=seed) if counts is None else counts
        donors = [f"donor{i % 4}" for i in range(len(values))]
        kw.setdefault("obs", {"donor_id": donors, "tissue": ["blood" if i % 3 else "gut" for i in range(len(values))]})
        return write_tiny_h5ad(tmp_path / f"{name}.h5ad", values, **kw)

    return make


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes minutes, unless it is asked for."""
    if config.option.markexpr or os.environ.get("CELLMILL_SLOW"):
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="takes minutes; run with -m slow"))
