"""A store as h5ad (floor 7): written in blocks, never whole; anndata reads it, and is not needed to write it.

Knows the h5ad layout (anndata 0.1.0 encodings, as anndata 0.8 and later read them) and nothing of other formats.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from cellmill.errors import InputError
from cellmill.events import emit
from cellmill.storage import require_free_bytes, sync_file, sync_folder
from cellmill.store import Store
from cellmill.store.rows import checked_rows

__all__ = ["h5ad"]

I64 = npt.NDArray[np.int64]
_BLOCK_CELLS = 4096
_CHUNK = 1 << 16
_EXACT_IN_FLOAT32 = 2**24
_TEXT = h5py.string_dtype()
# before HDF5 1.8 an attribute held 64 KiB at most: `column-order` of some 4,000 columns
_HDF5_VERSIONS = ("v108", "latest")
_H5_NAME = str.maketrans("/\0", "|_")
_RESERVED = {"", ".", "..", "_index"}


def h5ad(
    store: Store,
    path: str | Path,
    rows: npt.ArrayLike | None = None,
    *,
    overwrite: bool = False,
    compression: str | None = "gzip",
) -> Path:
    """Write cells of a store as h5ad and return its path: X raw counts (CSR), obs, var the genes in storage order.

    Parameters
    ----------
    rows : int64 (n,), optional
        Row ids, in the order in which they are written, or a mask of all cells; all cells when not given.
    overwrite : bool
        Replace a file that lies at `path`.
    compression : "gzip", "lzf" or None
        Of X, inside the file.

    Raises
    ------
    InputError
        When a file lies at `path`, or rows are not whole numbers.
    IndexError
        When a row is not in the store.
    DiskSpaceError
        When there is not enough room.

    Notes
    -----
    X is float32, as the field's tools expect; float64 when a cell's total is above 2^24, which float32 may not hold.
    Memory is one block of cells and one column of obs. The file appears under its name when it is complete.
    A slash in the name of a column becomes a bar, since h5ad takes it for a folder; an event tells each renaming.
    """
    target = Path(path)
    if target.exists() and not overwrite:
        raise InputError(f"{target}: a file lies here; give another name, or overwrite=True")
    everything = np.arange(store.n_cells, dtype=np.int64)
    chosen = everything if rows is None else checked_rows(rows, n_cells=store.n_cells, where=str(store.path))
    target.parent.mkdir(parents=True, exist_ok=True)
    share = len(chosen) / max(store.n_cells, 1)
    require_free_bytes(target.parent, int(store.nnz * share * 3), what=f"{target.name}")
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        with h5py.File(temporary, "w", libver=_HDF5_VERSIONS) as file:
            _mark(file, "anndata", "0.1.0")
            _write_counts(file, store, chosen, compression)
            _write_obs(file, store, chosen)
            _write_genes(file, store)
            for name in ("layers", "obsm", "obsp", "uns", "varm", "varp"):
                _mark(file.create_group(name), "dict", "0.1.0")
        sync_file(temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(target.parent)
    return target


def _mark(item: Any, kind: str, version: str) -> None:
    item.attrs["encoding-type"] = kind
    item.attrs["encoding-version"] = version


def _write_counts(file: h5py.File, store: Store, rows: I64, compression: str | None) -> None:
    totals = store.totals(rows)
    exact = len(totals) == 0 or int(totals.max()) <= _EXACT_IN_FLOAT32
    group = file.create_group("X")
    _mark(group, "csr_matrix", "0.1.0")
    group.attrs["shape"] = np.array([len(rows), store.n_genes], dtype=np.int64)
    options = {"shape": (0,), "maxshape": (None,), "chunks": (_CHUNK,), "compression": compression}
    data = group.create_dataset("data", dtype=np.float32 if exact else np.float64, **options)
    indices = group.create_dataset("indices", dtype=np.int32, **options)
    indptr = np.zeros(len(rows) + 1, dtype=np.int64)
    for start in range(0, len(rows), _BLOCK_CELLS):
        part = store.read(rows[start : start + _BLOCK_CELLS])
        written = len(data)
        for dataset, values in ((data, part.data), (indices, part.indices)):
            dataset.resize((written + len(values),))
            dataset[written:] = values
        indptr[start + 1 : start + 1 + part.shape[0]] = written + part.indptr[1:]
        emit(f"exporting {store.path.name}", done=min(start + _BLOCK_CELLS, len(rows)), total=len(rows), unit="cells")
    group.create_dataset("indptr", data=indptr)


def _write_obs(file: h5py.File, store: Store, rows: I64) -> None:
    names = _h5_names([name for name in store.obs.columns if name != "cell"])
    group = _frame(file, "obs", list(names.values()))
    _write_text(group, "_index", store.column("cell", rows).to_pylist())
    for name, written in names.items():
        if written != name:
            emit(f"exporting {store.path.name}", message=f"obs column {name!r} is called {written!r} in the file")
        _write_column(group, written, store.column(name, rows))


def _write_genes(file: h5py.File, store: Store) -> None:
    columns = [name for name in store.genes.column_names if name != "gene_id"]
    group = _frame(file, "var", columns)
    _write_text(group, "_index", store.genes.column("gene_id").to_pylist())
    for name in columns:
        _write_column(group, name, store.genes.column(name).combine_chunks())


def _h5_names(columns: Sequence[str]) -> dict[str, str]:
    """Return for each column the name that h5 can hold: without slash or NUL, not empty or a dot, each one once."""
    kept = {name for name in columns if name == name.translate(_H5_NAME) and name not in _RESERVED}
    taken = set(kept) | _RESERVED
    result = {}
    for name in columns:
        written = name
        if name not in kept:
            base = name.translate(_H5_NAME)
            tries = (base, *(f"{base}_{number}" for number in range(2, len(columns) + 3)))
            written = next(candidate for candidate in tries if candidate not in taken)
            taken.add(written)
        result[name] = written
    return result


def _frame(file: h5py.File, name: str, columns: list[str]) -> h5py.Group:
    group = file.create_group(name)
    _mark(group, "dataframe", "0.2.0")
    group.attrs["_index"] = "_index"
    group.attrs.create("column-order", np.array(columns, dtype=object), dtype=_TEXT)
    return group


def _write_text(group: h5py.Group, name: str, values: list[str]) -> None:
    dataset = group.create_dataset(name, data=np.array(values, dtype=object), dtype=_TEXT)
    _mark(dataset, "string-array", "0.2.0")


def _write_column(group: h5py.Group, name: str, column: pa.Array) -> None:
    """Write one column of obs; what is null stays null: categories by code -1, numbers as nullable or NaN."""
    if pa.types.is_dictionary(column.type):
        _write_categories(group, name, column)
    elif pa.types.is_string(column.type) or pa.types.is_null(column.type):
        if column.null_count:
            _write_categories(group, name, column.cast(pa.string()).dictionary_encode())
        else:
            _write_text(group, name, column.to_pylist())
    elif pa.types.is_floating(column.type):
        values = column.to_numpy(zero_copy_only=False)  # null becomes NaN
        _mark(group.create_dataset(name, data=values), "array", "0.2.0")
    elif column.null_count:
        _write_nullable(group, name, column)
    else:
        values = column.to_numpy(zero_copy_only=False)
        _mark(group.create_dataset(name, data=values), "array", "0.2.0")


def _write_categories(group: h5py.Group, name: str, column: pa.DictionaryArray) -> None:
    """Write only the categories that occur among these cells, in the order in which the column names them."""
    codes = column.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
    names = column.dictionary.cast(pa.string()).to_pylist()
    used = np.unique(codes[codes >= 0])
    place = np.full(len(names) + 1, -1, dtype=np.int32)  # the last for code -1
    place[used] = np.arange(len(used), dtype=np.int32)
    inner = group.create_group(name)
    _mark(inner, "categorical", "0.2.0")
    inner.attrs["ordered"] = False
    _mark(inner.create_dataset("codes", data=place[codes]), "array", "0.2.0")
    _write_text(inner, "categories", [names[i] for i in used])


def _write_nullable(group: h5py.Group, name: str, column: pa.Array) -> None:
    boolean = pa.types.is_boolean(column.type)
    inner = group.create_group(name)
    _mark(inner, "nullable-boolean" if boolean else "nullable-integer", "0.1.0")
    filled = pc.fill_null(column, pa.scalar(False if boolean else 0, column.type))
    values = (filled.to_numpy(zero_copy_only=False), column.is_null().to_numpy(zero_copy_only=False))
    for part, array in zip(("values", "mask"), values, strict=True):
        _mark(inner.create_dataset(part, data=array), "array", "0.2.0")
