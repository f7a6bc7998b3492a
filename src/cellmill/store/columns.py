"""Between Arrow columns and NumPy arrays (floor 3), without pandas. Knows numbers only.

pyarrow's own `to_numpy`, `pa.array` and `pa.scalar` import pandas, to ask whether something is a Series: up to half a
second that the first batch of a run would wait for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["arrow_rows", "numbers_of"]


def numbers_of(column: pa.Array | pa.ChunkedArray, *, null: float = 0) -> npt.NDArray[Any]:
    """Return a column of numbers as an array of the same type, `null` where it has none.

    Nothing is copied of a single chunk without nulls.

    Examples
    --------
    >>> numbers_of(pa.chunked_array([[1, None], [3]]), null=-1).tolist()
    [1, -1, 3]
    """
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    parts = [_numbers(chunk, null) for chunk in chunks if len(chunk)]
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else np.empty(0, dtype=column.type.to_pandas_dtype())


def arrow_rows(rows: npt.NDArray[np.int64]) -> pa.Array:
    """Return row ids, int64[n], as an Arrow array; nothing is copied of contiguous ones."""
    held = np.ascontiguousarray(rows, dtype=np.int64)
    return pa.Array.from_buffers(pa.int64(), len(rows), [None, pa.py_buffer(held)])


def _numbers(chunk: pa.Array, null: float) -> npt.NDArray[Any]:
    if not chunk.null_count:
        return np.from_dlpack(chunk)
    stored = np.frombuffer(chunk.buffers()[1], dtype=chunk.type.to_pandas_dtype())
    is_valid = np.from_dlpack(pc.is_valid(chunk).cast(pa.int8())).astype(bool)
    values = stored[chunk.offset : chunk.offset + len(chunk)].copy()
    values[~is_valid] = null
    return values
