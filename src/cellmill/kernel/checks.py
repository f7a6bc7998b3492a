"""Checks of what callers hand to the kernel (floor 1, kernel).

Knows shapes and dtypes. What is inside a frame is checked by the implementations, not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cellmill.kernel.threads import default_threads

__all__ = [
    "as_i64",
    "as_integers",
    "check_cells",
    "check_column_count",
    "check_panel",
    "check_rows",
    "check_u64",
    "count_threads",
]

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.integer[Any]]

MAX_GENES = (1 << 31) - 1


def count_threads(threads: int) -> int:
    """Return the number of threads that a call asked for; 0 is the default."""
    if threads < 0:
        raise ValueError(f"threads must be 0 (automatic) or more, found {threads}")
    return threads or default_threads()


def as_integers(array: Integers, name: str) -> Integers:
    """Return `array` as a 1-d integer array, or raise ValueError."""
    checked = np.asarray(array)
    if checked.ndim != 1:
        raise ValueError(f"{name} must have one dimension, found shape {checked.shape}")
    if checked.dtype.kind not in "iu":
        if checked.size:
            raise ValueError(f"{name} must hold integers, found dtype {checked.dtype}")
        checked = checked.astype(np.int64)
    return checked


def check_u64(array: Integers, length: int, name: str) -> U64:
    """Return `array` as contiguous u64 of `length`; negative numbers are refused."""
    checked = as_integers(array, name)
    if len(checked) != length:
        raise ValueError(f"{name} must have {length} entries, found {len(checked)}")
    if checked.dtype.kind == "i" and len(checked) and int(checked.min()) < 0:
        raise ValueError(f"{name} must not be negative, found {checked.min()}")
    return np.ascontiguousarray(checked, dtype=np.uint64)


def as_i64(array: Integers, name: str) -> I64:
    """Return `array` as contiguous i64 of one dimension, or raise ValueError."""
    checked = as_integers(array, name)
    if checked.dtype == np.uint64 and len(checked) and int(checked.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"{name} must be below 2^63, found {checked.max()}")
    return np.ascontiguousarray(checked, dtype=np.int64)


def check_cells(indptr: Integers, indices: Integers, values: Integers) -> tuple[I64, Integers, U32]:
    """Return the arrays of CSR cells in the kernel's dtypes: i64, i32 or i64, u32."""
    pointers, counts = as_i64(indptr, "indptr"), as_integers(values, "values")
    genes = as_integers(indices, "indices")
    if len(pointers) < 1:
        raise ValueError("indptr must have one entry more than there are cells, found none")
    if len(genes) != len(counts):
        raise ValueError(f"indices and values must be of one length, found {len(genes)} and {len(counts)}")
    if counts.dtype != np.uint32 and len(counts) and not (int(counts.min()) >= 0 and int(counts.max()) < 1 << 32):
        raise ValueError(f"values must lie in 0..2^32-1, found {counts.min()}..{counts.max()}")
    genes = np.ascontiguousarray(genes) if genes.dtype == np.int32 else as_i64(genes, "indices")
    return pointers, genes, np.ascontiguousarray(counts, dtype=np.uint32)


def check_column_count(n: int, name: str) -> None:
    """Raise ValueError unless `n` columns can be numbered by int32."""
    if not 0 <= n <= MAX_GENES:
        raise ValueError(f"{name} must lie in 0..{MAX_GENES:,}, found {n}")


def check_rows(
    shards: Sequence[npt.NDArray[np.uint8]], shard_of: Integers, start: Integers, stop: Integers
) -> tuple[I64, I64, I64]:
    """Return the three row arrays as i64; a shard that is not there is refused."""
    number, begin, end = as_i64(shard_of, "shard_of"), as_i64(start, "start"), as_i64(stop, "stop")
    if not len(number) == len(begin) == len(end):
        raise ValueError(
            f"shard_of, start and stop must be of one length, found {len(number)}, {len(begin)} and {len(end)}"
        )
    if len(number) and (int(number.min()) < 0 or int(number.max()) >= len(shards)):
        raise ValueError(f"shard_of must lie in 0..{len(shards) - 1}, found {number.min()}..{number.max()}")
    return number, begin, end


def check_panel(panel: Integers | None, n_genes: int, n_columns: int | None) -> tuple[I32 | None, int]:
    """Return (panel as i32 or None, number of columns); a column that is named twice or is out of range is refused."""
    check_column_count(n_genes, "n_genes")
    if n_columns is not None:
        check_column_count(n_columns, "n_columns")
    if panel is None:
        if n_columns is not None and n_columns != n_genes:
            raise ValueError(f"n_columns must be n_genes ({n_genes}) without a panel, found {n_columns}")
        return None, n_genes
    checked = as_integers(panel, "panel")
    if len(checked) != n_genes:
        raise ValueError(f"panel must have one entry per gene ({n_genes}), found {len(checked)}")
    columns = checked[checked >= 0]
    largest = int(columns.max(initial=-1))
    width = largest + 1 if n_columns is None else n_columns
    if largest >= width or (len(checked) and int(checked.min()) < -1):
        raise ValueError(f"panel entries must lie in -1..{width - 1}, found {checked.min()}..{checked.max()}")
    seen = np.zeros(width, bool)
    seen[columns] = True
    if int(seen.sum()) != len(columns):
        raise ValueError("two genes of the panel go to one column; each column may be named once")
    return np.ascontiguousarray(checked, dtype=np.int32), width
