"""Tables of cells: labels that lie beside a matrix, joined by barcode (floor 3, sources).

10x HDF5, Matrix Market and tables of counts have no room for labels; `<file stem>.obs.csv` beside the file, or
`obs.csv` in the folder, gives them, and beside a table of counts `<name>.metadata.csv` and its like: first column
barcodes, the rest labels; commas, tabs or semicolons, gzipped or not. Must not know matrices.
"""

from __future__ import annotations

import csv
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from cellmill.errors import FormatError
from cellmill.sources.mex_text import open_text

__all__ = [
    "cell_table",
    "find_side_table",
    "is_side_name",
    "join_side_table",
    "read_cells",
    "read_labels",
    "side_barcodes",
    "table_stem",
    "typed_column",
]

TABLE_ENDING = re.compile(r"(\.(csv|tsv|txt|tab|gz))+$", re.IGNORECASE)
COUNT_WORD = re.compile(
    r"(^|[._-])(umi|raw|gene|read|expr|expression|dge|count|counts|matrix|table|umicounts|cells?|data)$", re.IGNORECASE
)
OWN_NAMES = ("obs.csv", "obs.csv.gz", "obs.tsv", "obs.tsv.gz", "obs.txt", "obs.txt.gz")
SIDE_NAME = re.compile(
    r"(?P<stem>.*?)[._-]?(obs|meta|meta[._-]?data|cell[._-]?meta[._-]?data|cell[._-]?info|annotations?"
    r"|cell[._-]?annotations?|labels|cell[._-]?labels|col[._-]?data)\.(csv|tsv|txt)(\.gz)?",
    re.IGNORECASE,
)

NULLS = ["", "NA", "NaN", "nan"]
# A leading zero makes an identifier of a number: donor "007" stays text.
WHOLE = r"^-?(0|[1-9][0-9]{0,17})$"
DECIMAL = r"^[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|inf|Inf)$"
ROW_NUMBERS = re.compile(r"\s*|Unnamed: ?0")
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


def join_side_table(
    barcodes: Any, path: Path | None, *, note: Callable[[str], None], caution: Callable[[str], None], file: str
) -> pa.Table:
    """Return the table of cells for `barcodes`, with the columns of the CSV at `path` where there is one.

    Parameters
    ----------
    barcodes : pyarrow.StringArray
        Cells in file order.
    path : Path or None
        CSV with a header; its first column holds barcodes. Where that holds none of them, another column that does,
        or barcodes as R rewrites names of columns, are joined if they are one to one.
    note, caution : callable
        Take what is worth a remark, and what a person has to see.

    Raises
    ------
    FormatError
        The CSV cannot be parsed, names a barcode twice, or shares no barcode with the matrix. Where it is not called
        obs, this is a caution, and no labels are joined.
    """
    if path is None:
        return cell_table(barcodes, {}, note=note, file=file)
    if not path.name.casefold().endswith(OWN_NAMES):
        try:
            return _joined(barcodes, path, note=note, file=file)
        except FormatError as error:
            # Meant for these cells by its name alone: what else it may be is no reason to refuse them.
            caution(f"{str(error).replace(str(path), path.name)} It was left out.")
            return cell_table(barcodes, {}, note=note, file=file)
    return _joined(barcodes, path, note=note, file=file)


def _joined(barcodes: Any, path: Path, *, note: Callable[[str], None], file: str) -> pa.Table:
    side = _read_csv(path)
    key, rows = _rows_of(barcodes, side, path, note=note, file=file)
    missing = rows.null_count
    if missing:
        note(f"{path.name}: {missing} of {len(barcodes)} cells have no row; their labels are null")
    unused = side.num_rows - len(pc.unique(rows.drop_null()))
    if unused:
        note(f"{path.name}: {unused} rows belong to no cell of {file}; skipped")
    # Where another column holds the barcodes, the first one numbers the rows, or tells something.
    kept = [at for at, name in enumerate(side.column_names) if at != key and (at or not ROW_NUMBERS.fullmatch(name))]
    columns = {side.column_names[at]: _typed(side.column(at).take(rows)) for at in kept}
    return cell_table(barcodes, columns, note=note, file=file)


def _rows_of(
    barcodes: Any, side: pa.Table, path: Path, *, note: Callable[[str], None], file: str
) -> tuple[int, pa.Int32Array]:
    """Return the column of a table that holds the barcodes, and the row of each one; null where it has none."""
    try:
        return 0, _rows_by_first(barcodes, side, path, file=file)
    except FormatError:
        if (found := _rows_by_other(barcodes, side)) is None:
            raise
    key, rows, as_r = found
    how = ""
    if as_r:
        theirs, ours = side.column(key).combine_chunks().take(rows.drop_null()), barcodes.filter(rows.is_valid())
        how = f", compared as R writes names: {_examples(theirs)} there, {_examples(ours)} here"
    called = f"its column {side.column_names[key]!r}" if side.column_names[key] else "its first column"
    note(f"{path.name}: labels were joined by {called}{how}")
    return key, rows


def _rows_by_first(barcodes: Any, side: pa.Table, path: Path, *, file: str) -> pa.Int32Array:
    keys = side.column(0).combine_chunks()
    if len(keys.unique()) != len(keys):
        twice = next(item["values"].as_py() for item in keys.value_counts() if item["counts"].as_py() > 1)
        raise FormatError(f"{path}: barcode {twice!r} stands in more than one row; expected one row a cell.")
    rows = pc.index_in(barcodes, keys)
    if len(barcodes) and rows.null_count == len(barcodes):
        raise FormatError(
            f"{path}: none of its barcodes ({_examples(keys)}) is in {file} ({_examples(barcodes)}); its first column "
            "must hold the barcodes of the matrix."
        )
    return rows


def _rows_by_other(barcodes: Any, side: pa.Table) -> tuple[int, pa.Int32Array, bool] | None:
    """Return (column, row of each barcode, whether compared as R writes names) where they match one to one, or None.

    Notes
    -----
    At least half of the smaller side must match: a label may be called as a cell is by chance.
    """
    for as_r in (False, True):
        names = _as_r_names(barcodes) if as_r else barcodes
        if len(pc.unique(names)) != len(names):
            continue
        for at in range(side.num_columns):
            keys = side.column(at).combine_chunks()
            keys = _as_r_names(keys) if as_r else keys
            present = keys.drop_null()
            if len(present.unique()) != len(present):
                continue
            rows = pc.index_in(names, keys)
            found = len(rows) - rows.null_count
            if found and 2 * found >= min(len(names), len(keys)):
                return at, rows, as_r
    return None


def _as_r_names(names: Any) -> Any:
    """Return names as `make.names` of R makes them for columns: dots for other signs, X before a digit."""
    dotted = pc.replace_substring_regex(names, r"[^\p{L}\p{N}._]", ".")
    return pc.replace_substring_regex(dotted, r"^([0-9_]|\.[0-9])", r"X\1")


def _examples(names: Any) -> str:
    return ", ".join(names.slice(0, 2).to_pylist())


def read_labels(path: Path) -> pa.Table:
    """Return a table of labels as texts, a column for each name of its header.

    Raises
    ------
    FormatError
        It cannot be parsed, or names a column twice.
    """
    return _read_csv(path)


def read_cells(path: Path, named: Sequence[str]) -> tuple[list[str], pa.Table]:
    """Return the names of cells that a table lists, and its other columns as texts, all in its order.

    Parameters
    ----------
    path : Path
    named : sequence of str
        What the column of names may be called, in lower case; the first column where none is.

    Raises
    ------
    FormatError
        It cannot be parsed, names a column twice, or a cell has no name.
    """
    table = _read_csv(path)
    keys = [name for name in table.column_names if name.strip().casefold() in named]
    key = keys[0] if keys else table.column_names[0]
    names = table.column(key)
    if names.null_count:
        row = names.to_pylist().index(None)
        raise FormatError(f"{path}, line {row + 2}: the cell has no name in column {key!r}.")
    return [str(name) for name in names.to_pylist()], table.drop_columns([key])


def side_barcodes(path: Path | None) -> frozenset[str]:
    """Return the names of cells in a table of labels; none where there is no table, or none that can be read."""
    try:
        return frozenset() if path is None else frozenset(_read_csv(path).column(0).drop_null().to_pylist())
    except FormatError:  # joining it says so
        return frozenset()


def find_side_table(path: Path) -> Path | None:
    """Return the table of labels that belongs to a table of counts: of its name, but for the word for counts.

    Raises
    ------
    FormatError
        Several tables could be meant.

    Examples
    --------
    >>> find_side_table(Path("study.count.csv.gz"))  # doctest: +SKIP
    PosixPath('study.metadata.csv.gz')
    """
    stem = table_stem(path)
    if not path.parent.is_dir():
        return None
    called = _side_files(path.parent, path.parent.stat().st_mtime_ns)
    found = [path.with_name(name) for name, its_stem in called if its_stem in stem and name != path.name]
    own = [beside for beside in found if beside.name.casefold().startswith(f"{stem[0]}.obs.csv")]
    found = own or found
    if len(found) > 1:
        raise FormatError(
            f"{path}: labels could come from {', '.join(item.name for item in found)}. Leave one of them beside the "
            "counts, or call the right one " + f"{stem[0]}.obs.csv."
        )
    return found[0] if found else None


@lru_cache(maxsize=16)
def _side_files(folder: Path, changed_ns: int) -> tuple[tuple[str, str], ...]:
    """Return the files of a folder that are called as tables of labels, with their stems; looked up once a change."""
    del changed_ns  # part of the key
    matches = (SIDE_NAME.fullmatch(item.name) for item in sorted(folder.iterdir()))
    return tuple((match.string, match["stem"].casefold()) for match in matches if match)


def table_stem(path: Path) -> tuple[str, ...]:
    """Return the names, in lower case, that a table of labels for the counts at `path` may begin with."""
    whole = TABLE_ENDING.sub("", path.name).casefold()
    stems = [whole]
    while (shorter := COUNT_WORD.sub("", stems[-1])) != stems[-1]:
        stems.append(shorter)
    return tuple(stems)


def is_side_name(path: Path) -> bool:
    """Whether a file is called as tables of labels are."""
    return SIDE_NAME.fullmatch(path.name) is not None


def _head_of(path: Path) -> tuple[list[str], str, int]:
    """Return names for all columns, the delimiter, and how many lines the header takes."""
    with open_text(path) as file:
        lines = [file.readline(1 << 20).decode("utf-8-sig").rstrip("\r\n") for _ in range(2)]
    delimiter = max("\t,;", key=lines[0].count)
    header, first = (next(csv.reader([line], delimiter=delimiter), []) for line in lines)
    # As R writes a table with row names: the header names one column less than there are.
    names = ["cell", *header] if len(first) == len(header) + 1 else header
    return names, delimiter, 1


def _read_csv(path: Path) -> pa.Table:
    """Read all columns as strings; types are decided afterwards over all values."""
    try:
        names, delimiter, skip = _head_of(path)
        if len(set(names)) != len(names):
            raise FormatError(f"{path}: its header names a column twice: {', '.join(names)}.")
        options = pa_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), null_values=NULLS, strings_can_be_null=True
        )
        with open_text(path) as file:
            return pa_csv.read_csv(
                file,
                read_options=pa_csv.ReadOptions(column_names=names, skip_rows=skip, use_threads=False),
                parse_options=pa_csv.ParseOptions(delimiter=delimiter),
                convert_options=options,
            )
    except (pa.ArrowException, OSError, EOFError, zlib.error, csv.Error, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: not a CSV of labels with a header and barcodes first ({error}).") from error


def typed_column(texts: Sequence[str] | pa.ChunkedArray) -> Any:
    """Return a column of texts as whole numbers, numbers or flags where all of it is; no text is null."""
    column = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else pa.array(texts, pa.string())
    missing = pc.is_in(column, pa.array(NULLS))
    return _typed(pa.chunked_array([pc.if_else(missing, pa.scalar(None, pa.string()), column)]))


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
