"""Tables of cells: labels that lie beside a matrix, joined by barcode (floor 3, sources).

10x HDF5 and Matrix Market have no room for labels; `<file stem>.obs.csv` beside the file, or `obs.csv` in the folder,
gives them: first column barcodes, the rest labels. Must not know matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from cellmill.errors import FormatError

__all__ = ["cell_table", "join_side_table"]

NULLS = ["", "NA", "NaN", "nan"]
# A leading zero makes an identifier of a number: donor "007" stays text.
WHOLE = r"^-?(0|[1-9][0-9]{0,17})$"
DECIMAL = r"^[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|inf|Inf)$"
LEADING_ZERO = r"^-?0[0-9]"


def cell_table(cells: Any, columns: Mapping[str, Any], *, note: Callable[[str], None], file: str) -> pa.Table:
    """Return a table with `cells` first, as column "cell"; a column of that name is kept as "source_cell"."""
    named = {"cell": cells}
    for name, column in columns.items():
        kept = name
        while kept in named or (kept != name and kept in columns):
            kept = f"source_{kept}"
        if kept != name:
            note(f"{file}: obs column {name!r} is kept as {kept!r}")
        named[kept] = column
    return pa.table(named)


def join_side_table(barcodes: Any, path: Path | None, *, note: Callable[[str], None], file: str) -> pa.Table:
    """Return the table of cells for `barcodes`, with the columns of the CSV at `path` where there is one.

    Parameters
    ----------
    barcodes : pyarrow.StringArray
        Cells in file order.
    path : Path or None
        CSV with a header; its first column holds barcodes.

    Raises
    ------
    FormatError
        The CSV cannot be parsed, names a barcode twice, or shares no barcode with the matrix.
    """
    if path is None:
        return cell_table(barcodes, {}, note=note, file=file)
    side = _read_csv(path)
    keys = side.column(0).combine_chunks()
    if len(keys.unique()) != len(keys):
        twice = next(item["values"].as_py() for item in keys.value_counts() if item["counts"].as_py() > 1)
        raise FormatError(f"{path}: barcode {twice!r} stands in more than one row; expected one row a cell.")
    rows = pc.index_in(barcodes, keys)
    missing = rows.null_count
    if len(barcodes) and missing == len(barcodes):
        raise FormatError(
            f"{path}: none of its barcodes ({_examples(keys)}) is in {file} ({_examples(barcodes)}); its first column "
            "must hold the barcodes of the matrix."
        )
    if missing:
        note(f"{path.name}: {missing} of {len(barcodes)} cells have no row; their labels are null")
    unused = len(keys) - len(pc.unique(rows.drop_null()))
    if unused:
        note(f"{path.name}: {unused} rows belong to no cell of {file}; skipped")
    columns = {name: _typed(side.column(i).take(rows)) for i, name in enumerate(side.column_names) if i}
    return cell_table(barcodes, columns, note=note, file=file)


def _examples(names: Any) -> str:
    return ", ".join(names.slice(0, 2).to_pylist())


def _read_csv(path: Path) -> pa.Table:
    """Read all columns as strings; types are decided afterwards over all values."""
    try:
        with pa_csv.open_csv(path) as opened:
            names = opened.schema.names
        if len(set(names)) != len(names):
            raise FormatError(f"{path}: its header names a column twice: {', '.join(names)}.")
        options = pa_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), null_values=NULLS, strings_can_be_null=True
        )
        return pa_csv.read_csv(path, convert_options=options)
    except (pa.ArrowException, OSError) as error:
        raise FormatError(f"{path}: not a CSV of labels with a header and barcodes first ({error}).") from error


def _typed(column: Any) -> Any:
    """Return text as int64, float64 or bool where all of it is, else as it is; "007" is no number."""
    present = column.drop_null()
    if len(present) == 0:
        return column.combine_chunks()
    if _all_match(present, WHOLE):
        return column.cast(pa.int64()).combine_chunks()
    if _all_match(present, DECIMAL) and not pc.any(pc.match_substring_regex(present, LEADING_ZERO)).as_py():
        return column.cast(pa.float64()).combine_chunks()
    if set(pc.unique(present).to_pylist()) <= {"True", "False", "TRUE", "FALSE", "true", "false"}:
        flags = pc.equal(pc.ascii_lower(column), "true")
        return flags.combine_chunks()
    return column.combine_chunks()


def _all_match(column: Any, pattern: str) -> bool:
    return bool(np.all(pc.match_substring_regex(column, pattern).to_numpy()))
