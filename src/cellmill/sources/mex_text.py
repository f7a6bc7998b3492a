"""Matrix Market coordinate text, plain or gzipped, streamed in chunks (floor 3, sources).

Knows the text format (NIST Matrix Market exchange formats, coordinate general) and where in it an error lies. Must not
know which axis holds cells.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from cellmill.errors import FormatError

__all__ = ["MtxHeader", "Triplets", "open_text", "read_header", "read_lines", "stream_triplets"]

GZIP_MAGIC = b"\x1f\x8b"
NEWLINE = b"\n"
LONGEST_LINE = 1 << 20


@dataclass(frozen=True)
class MtxHeader:
    """What the head of a Matrix Market file says.

    Attributes
    ----------
    n_rows, n_columns, stored : int
    field : {"integer", "real"}
    lines : int
        Lines up to and with the line of sizes.
    """

    n_rows: int
    n_columns: int
    stored: int
    field: Literal["integer", "real"]
    lines: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """int64 for "integer", float64 for "real"."""
        return np.dtype(np.int64 if self.field == "integer" else np.float64)


@dataclass(frozen=True)
class Triplets:
    """Consecutive entries: rows, columns int32[k], zero-based and in range; values int64 or float64 [k]."""

    rows: NDArray[np.int32]
    columns: NDArray[np.int32]
    values: NDArray[Any]


def open_text(path: Path) -> IO[bytes]:
    """Open a file for reading bytes, gunzipped if it is gzip by content, whatever its name."""
    with path.open("rb") as probe:
        zipped = probe.read(2) == GZIP_MAGIC
    return cast("IO[bytes]", gzip.open(path, "rb")) if zipped else path.open("rb")


def read_lines(path: Path) -> list[str]:
    """Return the lines of a small text file (barcodes, features) without line ends and trailing blank lines.

    Raises
    ------
    FormatError
        The gzip stream is broken off or damaged, or a name is no UTF-8.
    """
    try:
        with open_text(path) as file:
            raw = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise FormatError(
            f"{path}, line {line}: {raw.split(NEWLINE)[line - 1][:40]!r} is no UTF-8. Write the file again in UTF-8, "
            "for example with `iconv -f latin1 -t utf-8`."
        ) from error
    lines = text.replace("\r\n", "\n").split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def _unreadable(path: Path, error: Exception) -> FormatError:
    return FormatError(
        f"{path}: the file breaks off or is damaged ({type(error).__name__}: {error}); most likely an unfinished "
        "download or copy. Get it again."
    )


def read_header(path: Path) -> MtxHeader:
    """Return what the head of a Matrix Market file says.

    Raises
    ------
    FormatError
        No Matrix Market file, or a kind of matrix that holds no counts of cells and genes.
    """
    try:
        with open_text(path) as file:
            return _header(path, file)
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error


def _header(path: Path, file: IO[bytes]) -> MtxHeader:
    banner = file.readline(LONGEST_LINE).decode("latin-1").split()
    words = [word.lower() for word in banner]
    if len(words) != 5 or words[0] != "%%matrixmarket":
        raise FormatError(
            f"{path}, line 1: found {' '.join(banner)[:60]!r}, "
            "expected '%%MatrixMarket matrix coordinate integer general'."
        )
    if words[1:3] != ["matrix", "coordinate"] or words[3] not in ("integer", "real") or words[4] != "general":
        raise FormatError(
            f"{path}, line 1: a {' '.join(words[1:])} holds no counts of cells and genes that cellmill reads; expected "
            "'matrix coordinate integer general' (or real)."
        )
    lines = 1
    while raw := file.readline(LONGEST_LINE):
        lines += 1
        line = raw.decode("latin-1").strip()
        if line and not line.startswith("%"):
            sizes = line.split()
            if len(sizes) != 3 or not all(re.fullmatch(r"\d{1,18}", size) for size in sizes):
                raise FormatError(
                    f"{path}, line {lines}: found {line[:60]!r}, expected three sizes: rows, columns, entries."
                )
            field = cast("Literal['integer', 'real']", words[3])
            return MtxHeader(int(sizes[0]), int(sizes[1]), int(sizes[2]), field, lines)
    raise FormatError(f"{path}: the file ends before the line of sizes; it is truncated. Get it again.")


def stream_triplets(path: Path, header: MtxHeader, *, chunk_bytes: int) -> Iterator[Triplets]:
    """Yield all entries in file order; memory is bounded by `chunk_bytes` of text.

    Raises
    ------
    FormatError
        A line that is no entry, an index out of range, fewer or more entries than the header says, or a broken
        gzip stream; the line is named.
    """
    seen, line = 0, header.lines + 1
    for text in _chunks(path, header.lines, chunk_bytes):
        triplets = _parse(path, header, text, line)
        seen += triplets.rows.size
        line += text.count(b"\n")
        if seen > header.stored:
            raise FormatError(
                f"{path}: more entries than the {header.stored} that its header says, up to line {line - 1}."
            )
        yield triplets
    if seen != header.stored:
        raise FormatError(
            f"{path}: it ends after {seen} of the {header.stored} entries that its header says; it is truncated. "
            "Get the file again."
        )


def _chunks(path: Path, skip: int, chunk_bytes: int) -> Iterator[bytes]:
    """Yield whole lines, about `chunk_bytes` at a time, without the first `skip` lines."""
    try:
        with open_text(path) as file:
            for _ in range(skip):
                file.readline(LONGEST_LINE)
            rest = b""
            while raw := file.read(chunk_bytes):
                cut = raw.rfind(b"\n") + 1
                if cut:
                    yield rest + raw[:cut]
                    rest = raw[cut:]
                else:
                    rest += raw
                    if len(rest) > LONGEST_LINE:
                        raise FormatError(
                            f"{path}: a line is longer than {LONGEST_LINE} bytes; expected three numbers a line."
                        )
            if rest:
                yield rest + b"\n"
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(path, error) from error


def _parse(path: Path, header: MtxHeader, text: bytes, first_line: int) -> Triplets:
    plain = _single_spaces(text)
    if not plain.strip():
        empty = np.empty(0, np.int32)
        return Triplets(empty, empty, np.empty(0, header.dtype))
    kinds = {"row": pa.int64(), "column": pa.int64(), "value": pa.from_numpy_dtype(header.dtype)}
    try:
        table = pa_csv.read_csv(
            pa.BufferReader(plain),
            read_options=pa_csv.ReadOptions(
                column_names=list(kinds), use_threads=False, block_size=max(len(plain), 1 << 16)
            ),
            parse_options=pa_csv.ParseOptions(delimiter=" ", quote_char=False),
            convert_options=pa_csv.ConvertOptions(column_types=kinds, null_values=[], strings_can_be_null=False),
        )
    except pa.ArrowException as error:
        raise _bad_line(path, header, text, first_line, str(error)) from error
    rows = _zero_based(table.column(0), header.n_rows)
    columns = _zero_based(table.column(1), header.n_columns)
    if rows is None or columns is None:
        raise _bad_line(path, header, text, first_line, "an index is out of range")
    return Triplets(rows, columns, table.column(2).to_numpy())


def _single_spaces(text: bytes) -> bytes:
    """Return text with one space between numbers: Matrix Market allows any white space."""
    if b"\t" in text or b"\r" in text:
        text = text.replace(b"\t", b" ").replace(b"\r", b"")
    if b"  " in text or b" \n" in text or b"\n " in text or text.startswith(b" "):
        text = b"\n".join(b" ".join(line.split()) for line in text.split(b"\n"))
    return text


def _zero_based(column: Any, limit: int) -> NDArray[np.int32] | None:
    """Return indices less one, or None when one is outside 1..limit."""
    extent = pc.min_max(column).as_py()
    if extent["min"] < 1 or extent["max"] > limit:
        return None
    moved: NDArray[np.int32] = (column.to_numpy() - 1).astype(np.int32)
    return moved


def _bad_line(path: Path, header: MtxHeader, text: bytes, first_line: int, reason: str) -> FormatError:
    """Return the error for the first line of a chunk that is no entry."""
    value = (
        r"[+-]?\d{1,18}"
        if header.field == "integer"
        else r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)"
    )
    for number, raw in enumerate(text.split(b"\n"), first_line):
        fields = raw.decode("latin-1").split()
        if not fields:
            continue
        found = f"{path}, line {number}: found {' '.join(fields)[:60]!r}, "
        whole = len(fields) == 3 and all(re.fullmatch(r"\d{1,18}", item) for item in fields[:2])
        if not (whole and re.fullmatch(value, fields[2], re.IGNORECASE)):
            return FormatError(f"{found}expected row, column and a value of type {header.field}. The file is damaged.")
        if not (1 <= int(fields[0]) <= header.n_rows and 1 <= int(fields[1]) <= header.n_columns):
            return FormatError(
                f"{found}but rows run from 1 to {header.n_rows} and columns from 1 to {header.n_columns}. "
                "The file is damaged."
            )
    return FormatError(f"{path}, after line {first_line - 1}: {reason}.")
