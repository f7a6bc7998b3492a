"""Simulated studies as the files a lab would have (floor 3).

Knows the layouts of h5ad, 10x HDF5 and Matrix Market folders, and writes them with h5py alone. Must not know how the
counts came about, nor how cellmill reads such files.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import csv

from cellmill.events import emit
from cellmill.simulate.atlas import Study, simulate_atlas
from cellmill.simulate.h5ad_parts import begin_frame, mark, write_categorical, write_empty_groups, write_strings

__all__ = ["write_10x_h5", "write_atlas", "write_h5ad", "write_mex"]

_PACKED: dict[str, Any] = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
_GENOME = "GRCh38"


def write_h5ad(study: Study, path: str | Path) -> Path:
    """Write a study as h5ad (AnnData format 0.1.0): CSR float32 in X, var by Ensembl id with a column symbol.

    Returns
    -------
    Path
        The file.
    """
    target = Path(path)
    with h5py.File(target, "w") as file:
        mark(file, "anndata", "0.1.0")
        x = file.create_group("X")
        mark(x, "csr_matrix", "0.1.0")
        x.attrs["shape"] = np.array(study.counts.shape, dtype=np.int64)
        x.create_dataset("data", data=study.counts.data.astype(np.float32), **_PACKED)
        x.create_dataset("indices", data=study.counts.indices.astype(np.int32), **_PACKED)
        x.create_dataset("indptr", data=study.counts.indptr.astype(np.int64), **_PACKED)
        _write_obs(file, study.obs)
        var = begin_frame(file, "var", ["symbol"])
        write_strings(var, "_index", study.gene_ids)
        write_strings(var, "symbol", study.symbols)
        write_empty_groups(file)
    return target


def write_10x_h5(study: Study, path: str | Path) -> Path:
    """Write a study as 10x HDF5 (Cell Ranger 3 and later), and its labels to ``<stem>.obs.csv`` beside it.

    Returns
    -------
    Path
        The HDF5 file.
    """
    target = Path(path)
    with h5py.File(target, "w") as file:
        file.attrs["filetype"] = "matrix"
        file.attrs["version"] = 2
        matrix = file.create_group("matrix")
        counts = study.counts
        matrix.create_dataset("barcodes", data=_fixed(study.obs["cell"].to_pylist()), **_PACKED)
        matrix.create_dataset("data", data=counts.data.astype(np.int32), **_PACKED)
        matrix.create_dataset("indices", data=counts.indices.astype(np.int64), **_PACKED)
        matrix.create_dataset("indptr", data=counts.indptr.astype(np.int64), **_PACKED)
        matrix.create_dataset("shape", data=np.array([study.n_genes, study.n_cells], dtype=np.int32))
        features = matrix.create_group("features")
        features.create_dataset("_all_tag_keys", data=_fixed(["genome"]))
        features.create_dataset("id", data=_fixed(study.gene_ids), **_PACKED)
        features.create_dataset("name", data=_fixed(study.symbols), **_PACKED)
        features.create_dataset("feature_type", data=_fixed(["Gene Expression"] * study.n_genes), **_PACKED)
        features.create_dataset("genome", data=_fixed([_GENOME] * study.n_genes), **_PACKED)
    _write_labels(study, target.with_name(f"{target.stem}.obs.csv"))
    return target


def write_mex(study: Study, folder: str | Path) -> Path:
    """Write a study as a Matrix Market folder that knows its genes by symbol only, with its labels in ``obs.csv``.

    Returns
    -------
    Path
        The folder: matrix.mtx.gz (genes x cells, sorted by cell), features.tsv.gz, barcodes.tsv.gz, obs.csv.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    counts = study.counts
    head = f"%%MatrixMarket matrix coordinate integer general\n%\n{study.n_genes} {study.n_cells} {counts.nnz}\n"
    entries = pa.table(
        {
            "gene": pa.array(counts.indices.astype(np.int64) + 1),
            "cell": pa.array(np.repeat(np.arange(1, study.n_cells + 1), np.diff(counts.indptr))),
            "count": pa.array(counts.data),
        }
    )
    text = pa.BufferOutputStream()
    csv.write_csv(entries, text, csv.WriteOptions(include_header=False, delimiter=" ", quoting_style="none"))
    _gzip(target / "matrix.mtx.gz", head.encode() + text.getvalue().to_pybytes())
    features = "".join(f"{symbol}\t{symbol}\tGene Expression\n" for symbol in study.symbols)
    _gzip(target / "features.tsv.gz", features.encode())
    _gzip(target / "barcodes.tsv.gz", "".join(f"{cell}\n" for cell in study.obs["cell"].to_pylist()).encode())
    _write_labels(study, target / "obs.csv")
    return target


def write_atlas(
    folder: str | Path, *, n_cells: int = 3000, n_genes: int = 20_000, n_studies: int = 3, seed: int = 0
) -> list[Path]:
    """Simulate an atlas and write its studies as h5ad, 10x HDF5 and Matrix Market folder, in turn.

    Parameters
    ----------
    folder : path
        Made when it is not there.
    n_cells, n_genes, n_studies, seed
        As for `simulate_atlas`.

    Returns
    -------
    list of Path
        One input per study, in order.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    paths = []
    studies = simulate_atlas(n_cells=n_cells, n_genes=n_genes, n_studies=n_studies, seed=seed)
    for number, study in enumerate(studies):
        emit("writing", done=number, total=n_studies, unit="studies")
        if number % 3 == 0:
            paths.append(write_h5ad(study, target / f"{study.name}.h5ad"))
        elif number % 3 == 1:
            paths.append(write_10x_h5(study, target / f"{study.name}.h5"))
        else:
            paths.append(write_mex(study, target / study.name))
    emit("writing", done=n_studies, total=n_studies, unit="studies")
    return paths


def _write_obs(file: h5py.File, obs: pa.Table) -> None:
    columns = [name for name in obs.column_names if name != "cell"]
    frame = begin_frame(file, "obs", columns)
    write_strings(frame, "_index", obs["cell"].to_pylist())
    for name in columns:
        labels = obs[name].combine_chunks()
        codes = labels.indices.to_numpy(zero_copy_only=False)
        write_categorical(frame, name, codes, labels.dictionary.to_pylist())


def _fixed(values: Sequence[str]) -> npt.NDArray[np.bytes_]:
    return np.array([value.encode() for value in values])


def _write_labels(study: Study, path: Path) -> None:
    plain = pa.table({name: study.obs[name].cast(pa.string()) for name in study.obs.column_names})
    csv.write_csv(plain, path, csv.WriteOptions(quoting_style="needed"))


def _gzip(path: Path, content: bytes) -> None:
    with path.open("wb") as raw, gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=4, mtime=0) as packed:
        packed.write(content)
