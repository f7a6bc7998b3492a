"""The reference sample as files: h5ad shards as CELLxGENE gives them (floor 3).

Knows the layout of h5ad and how a shard is written block by block. Must not know how counts are drawn, nor who reads
the files.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from cellmill.errors import ConfigError
from cellmill.events import emit
from cellmill.genes import GeneTable
from cellmill.simulate.h5ad_parts import (
    begin_frame,
    mark,
    write_categorical,
    write_empty_groups,
    write_numbers,
    write_strings,
)
from cellmill.simulate.reference import ReferenceModel, reference_blocks, reference_model

__all__ = ["reference_genes", "shard_sizes", "write_reference"]

_CHUNK_VALUES = 1 << 16
_DONORS = 12
# purpose numbers after the seed: 0 and 1 belong to the counts
_LABELS = 2
_CHOICES = {
    "assay": (("10x 3' v2", "10x 3' v3"), (0.3, 0.7)),
    "disease": (("COVID-19", "melanoma", "normal"), (0.2, 0.2, 0.6)),
    "sex": (("female", "male", "unknown"), (0.48, 0.48, 0.04)),
    "tissue": (("blood", "brain", "kidney", "liver", "lung"), (0.2, 0.2, 0.2, 0.2, 0.2)),
}


def write_reference(
    folder: str | Path,
    *,
    n_cells: int = 200_000,
    n_genes: int = 36_000,
    n_shards: int = 4,
    seed: int = 0,
    processes: int = 1,
) -> list[Path]:
    """Simulate the reference sample and write it as ``shard_0.h5ad``, ``shard_1.h5ad``, ...

    Each file has X as CSR, float32 with int32 indices, uncompressed; obs with the labels of CELLxGENE (cell_type,
    tissue, disease, donor_id, assay, sex, is_primary_data) and n_counts; var by Ensembl id with feature_name.

    Parameters
    ----------
    folder : path
        Made when it is not there.
    n_cells : int
        Cells in all, divided evenly over the shards.
    n_genes : int
        At most the number of human genes that have not been retired.
    n_shards : int
        Files.
    seed : int
        A shard's contents depend on (seed, its number, its cells, n_genes) alone, not on `processes`.
    processes : int
        Shards that are written at the same time.

    Returns
    -------
    list of Path
        The files, in order; each appears under its name when it is complete.

    Raises
    ------
    ConfigError
        When the numbers fit no sample.

    Notes
    -----
    Memory is bounded by a block of cells for each process, whatever the number of cells. 200,000 cells take 2.9 GB.
    """
    sizes = shard_sizes(n_cells, n_shards)
    ids, _ = reference_genes(n_genes)
    if processes < 1 or seed < 0:
        raise ConfigError(f"expected at least one process and a seed from 0, found processes={processes}, seed={seed}")
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    jobs = [(target / f"shard_{number}.h5ad", number, size, len(ids), seed) for number, size in enumerate(sizes)]
    if processes == 1:
        done = 0
        for job in jobs:
            done = _write_shard(*job, done_before=done, total=n_cells)
    else:
        done = 0
        # spawn: a forked child would inherit locks of HDF5 and of the caller's threads in whatever state they are
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            for future in as_completed([pool.submit(_write_shard, *job) for job in jobs]):
                done += future.result()
                emit("simulating the reference sample", done=done, total=n_cells, unit="cells")
    return [job[0] for job in jobs]


def shard_sizes(n_cells: int, n_shards: int) -> list[int]:
    """Return the number of cells of each shard, as even as can be.

    Raises
    ------
    ConfigError
        When there are fewer cells than shards.

    Examples
    --------
    >>> shard_sizes(10, 4)
    [2, 3, 2, 3]
    """
    if n_shards < 1 or n_cells < n_shards:
        raise ConfigError(f"cannot divide {n_cells} cells over {n_shards} shards: at least one cell each is needed")
    return [n_cells * (k + 1) // n_shards - n_cells * k // n_shards for k in range(n_shards)]


def reference_genes(n_genes: int) -> tuple[list[str], list[str]]:
    """Return the ids and symbols of the genes of a reference sample: the first human genes that are not retired.

    Raises
    ------
    ConfigError
        When there are not so many.
    """
    table = GeneTable.load("human")
    retired = table.arrow["retired"].to_pylist()
    kept = [position for position, gone in enumerate(retired) if not gone]
    if not 1 <= n_genes <= len(kept):
        raise ConfigError(f"n_genes is {n_genes:,}; expected 1 to {len(kept):,}, the human genes in use")
    return [table.ids[p] for p in kept[:n_genes]], [table.symbols[p] for p in kept[:n_genes]]


def _write_shard(
    path: Path, number: int, n_cells: int, n_genes: int, seed: int, *, done_before: int = 0, total: int = 0
) -> int:
    """Write one shard under a temporary name and rename it; returns the cells done so far."""
    temporary = path.with_name(f".{path.name}.tmp")
    model = reference_model(n_genes=n_genes, seed=seed)
    with h5py.File(temporary, "w") as file:
        mark(file, "anndata", "0.1.0")
        cell_type, n_counts = [], []
        with _growing_csr(file, n_genes) as x:
            for block in reference_blocks(model, n_cells=n_cells, shard=number, seed=seed):
                counts = block.counts
                x.append(counts.data.astype(np.float32), counts.indices, counts.indptr)
                cell_type.append(block.cell_type)
                n_counts.append(np.asarray(counts.sum(axis=1), dtype=np.float32))
                emit("simulating the reference sample", done=done_before + x.n_cells, total=total, unit="cells")
        rng = np.random.default_rng([seed, _LABELS, number])
        _write_obs(file, number, model, np.concatenate(cell_type), np.concatenate(n_counts), rng)
        ids, symbols = reference_genes(n_genes)
        var = begin_frame(file, "var", ["feature_name"])
        write_strings(var, "_index", ids)
        write_strings(var, "feature_name", symbols)
        write_empty_groups(file)
    temporary.replace(path)
    return done_before + n_cells


class _GrowingCsr:
    """The arrays of X while cells are appended."""

    def __init__(self, group: h5py.Group) -> None:
        layout = {"shape": (0,), "maxshape": (None,), "chunks": (_CHUNK_VALUES,)}
        self._data = group.create_dataset("data", dtype=np.float32, **layout)
        self._indices = group.create_dataset("indices", dtype=np.int32, **layout)
        self.indptr: list[npt.NDArray[np.int64]] = [np.zeros(1, np.int64)]
        self.n_cells = 0

    def append(
        self, data: npt.NDArray[np.float32], indices: npt.NDArray[np.int32], indptr: npt.NDArray[np.int64]
    ) -> None:
        at = self._data.shape[0]
        for dataset, values in ((self._data, data), (self._indices, indices)):
            dataset.resize((at + values.size,))
            dataset[at:] = values
        self.indptr.append(at + indptr[1:].astype(np.int64))
        self.n_cells += indptr.size - 1


@contextmanager
def _growing_csr(file: h5py.File, n_genes: int) -> Iterator[_GrowingCsr]:
    group = file.create_group("X")
    mark(group, "csr_matrix", "0.1.0")
    x = _GrowingCsr(group)
    yield x
    group.create_dataset("indptr", data=np.concatenate(x.indptr))
    group.attrs["shape"] = np.array([x.n_cells, n_genes], dtype=np.int64)


def _write_obs(
    file: h5py.File,
    number: int,
    model: ReferenceModel,
    cell_type: npt.NDArray[np.int64],
    n_counts: npt.NDArray[np.float32],
    rng: np.random.Generator,
) -> None:
    n_cells = cell_type.size
    frame = begin_frame(file, "obs", ["cell_type", *_CHOICES, "donor_id", "is_primary_data", "n_counts"])
    write_strings(frame, "_index", [f"s{number}_{i}" for i in range(n_cells)])
    write_categorical(frame, "cell_type", cell_type, [f"cell type {k}" for k in range(model.n_types)])
    for name, (categories, shares) in _CHOICES.items():
        write_categorical(frame, name, rng.choice(len(categories), n_cells, p=shares), categories)
    donors = [f"donor_{number}_{k:02d}" for k in range(_DONORS)]
    write_categorical(frame, "donor_id", rng.integers(0, _DONORS, n_cells), donors)
    write_numbers(frame, "is_primary_data", np.ones(n_cells, dtype=bool))
    write_numbers(frame, "n_counts", n_counts)
