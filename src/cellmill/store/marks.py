"""Marks of equal cells as columns of obs (floor 3, pure): `duplicate_of` and `n_copies`, for who asks for them by name.

They are no columns of the store's files, which are written before anyone knows which cells will equal theirs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["MARK_COLUMNS", "MARK_SCHEMA", "named_marks", "with_marks"]

MARK_COLUMNS = {"duplicate_of": "int64", "n_copies": "int64"}
MARK_SCHEMA = pa.schema([("row", pa.int64()), *((name, pa.int64()) for name in MARK_COLUMNS)])


def named_marks(sql: str, columns: Iterable[str]) -> list[str]:
    """Return the marks that a text names, but for those that are columns of the store's own.

    Examples
    --------
    >>> named_marks("SELECT N_COPIES FROM obs", ["cell"])
    ['n_copies']
    """
    own = {name.casefold() for name in columns}
    return [name for name in MARK_COLUMNS if name not in own and re.search(rf"\b{name}\b", sql, re.IGNORECASE)]


def with_marks(table: pa.Table, marks: pa.Table, rows: npt.NDArray[np.int64], wanted: Sequence[str]) -> pa.Table:
    """Return a table of the cells `rows` with marks in the columns `wanted`, which stand at the end if it lacks them.

    `marks` is a table of `MARK_SCHEMA`, rows ascending; cells that it lacks equal no other.
    """
    at = pc.index_in(pa.array(rows), value_set=marks.column("row"))
    for name in wanted:
        column = marks.column(name).take(at)
        if name == "n_copies":
            column = pc.fill_null(column, 1)
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, column)
        else:
            table = table.append_column(name, column)
    return table
