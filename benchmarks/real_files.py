"""Files of any kind as plain h5ad copies (CSR float32), so that all systems start from the same matrix."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

from cellmill.sources import open_source


def copies_of(files: Sequence[Path], work: Path) -> Iterator[tuple[Path, Path, int]]:
    """Yield each file, its plain copy, and the bytes that the counts take in h5ad with gzip."""
    work.mkdir(parents=True, exist_ok=True)
    for path in files:
        counts, genes = read_counts(path)
        if (counts.data < 0).any() or (counts.data % 1 != 0).any():
            print(f"{path.name}: not raw counts, left out", flush=True)
            continue
        counts.sum_duplicates()
        counts.eliminate_zeros()
        adata = anndata.AnnData(
            X=counts.astype(np.float32),
            obs=pd.DataFrame(index=[f"c{i}" for i in range(counts.shape[0])]),
            var=pd.DataFrame(index=genes),
        )
        adata.var_names_make_unique()
        plain, zipped = work / f"{path.name}.h5ad", work / f"{path.name}.gzip.h5ad"
        adata.write_h5ad(plain)
        adata.write_h5ad(zipped, compression="gzip")
        with h5py.File(zipped) as file:
            n_bytes = sum(file[f"X/{name}"].id.get_storage_size() for name in ("data", "indices", "indptr"))
        zipped.unlink()
        yield path, plain, n_bytes


def read_counts(path: Path) -> tuple[sp.csr_matrix, list[str]]:
    """Return cells x genes and the names of the genes."""
    if path.suffix == ".loom":
        return _read_loom(path)
    if path.suffix == ".zarr":
        return _read_old_zarr(path)
    if ".csv" in path.name:
        return _read_csv(path)
    with open_source(path) as source:
        matrix = source.matrices()[0].name
        blocks = [
            sp.csr_matrix((block.data, block.indices, block.indptr), shape=(block.n_cells, block.n_genes))
            for block in source.blocks(matrix)
        ]
        return sp.vstack(blocks, format="csr"), list(source.genes_of(matrix).ids)


def _read_loom(path: Path) -> tuple[sp.csr_matrix, list[str]]:
    with h5py.File(path) as file:
        names = [name.decode() if isinstance(name, bytes) else str(name) for name in file["row_attrs/Gene"][:]]
        return sp.csr_matrix(file["matrix"][:].T), names


def _read_csv(path: Path) -> tuple[sp.csr_matrix, list[str]]:
    """Read genes x cells, with a header that may be one field short."""
    names, rows = [], []
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as stream:
        reader = csv.reader(stream)
        next(reader)
        for row in reader:
            names.append(row[0])
            rows.append(sp.csr_matrix(np.array(row[1:], dtype=np.float64)))
    return sp.vstack(rows).T.tocsr(), names


def _read_old_zarr(path: Path) -> tuple[sp.csr_matrix, list[str]]:
    """Read a dense X of zarr version 2 in anndata's layout of 2018: var is one structured array."""
    import zarr

    group = zarr.open_group(path, mode="r")
    dense = np.asarray(group["X"][:])
    try:
        table = np.asarray(group["var"][:])
        names = [str(name) for name in table[table.dtype.names[0]]]
    except (ValueError, TypeError, json.JSONDecodeError):
        names = [f"gene{i}" for i in range(dense.shape[1])]
    return sp.csr_matrix(dense), names
