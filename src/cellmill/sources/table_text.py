"""Numbers of a table as text, streamed as the entries that are not zero (floor 3, sources).

Knows fields, quotes and numbers, and where in a file an error lies. Must not know which axis holds cells. Fields are
told apart and read by whole arrays: a line may be cut anywhere, so that memory does not grow with its length.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from cellmill.errors import FormatError
from cellmill.sources.mex_text import open_text
from cellmill.sources.table_head import MISSING, NUMBER, TableHead, broken_off, not_utf8

__all__ = ["TablePiece", "stream_table"]

FIRST_INEXACT = float(2**53)
DIGITS_EXACT = 15
LONGEST_FIELD = 1 << 16
NEWLINE, QUOTE = 10, 34


@dataclass(frozen=True)
class TablePiece:
    """Consecutive fields of a table.

    Attributes
    ----------
    labels : list of str
        Names of rows that end in this piece, `n_labels` for each row, in order.
    rows, columns : int64[k], int32[k]
        Places of the numbers that are not zero; rows count lines of data, columns those of numbers.
    values : float64[k]
        Whole numbers below 2^53 exactly; NaN where a field says that there is no value.
    is_unended : bool
        Whether the file ends here without the end of a line: it may have been cut.
    """

    labels: list[str]
    rows: NDArray[np.int64]
    columns: NDArray[np.int32]
    values: NDArray[np.float64]
    is_unended: bool = False


@dataclass(frozen=True)
class _Fields:
    """Fields in one piece of text: where each ends, its length, and which of them hold names."""

    buffer: NDArray[np.uint8]
    ends: NDArray[np.int64]
    lengths: NDArray[np.int64]
    labels: NDArray[np.int64]


def stream_table(head: TableHead, *, chunk_bytes: int) -> Iterator[TablePiece]:
    """Yield all numbers of a table that are not zero, in file order; memory is bounded by `chunk_bytes` of text.

    Raises
    ------
    FormatError
        A line with too few or too many fields, a field that is no number or no exact one, a quoted field that is not
        closed, a name that is no UTF-8, or a broken gzip stream; line and field are named.
    """
    parser, rest = _Parser(head), b""
    try:
        with open_text(head.path) as file:
            for _ in range(head.lines):
                file.readline()
            while raw := file.read(chunk_bytes):
                text = (rest + raw).replace(b"\r\n", b"\n")
                done = 0
                if not (parser.column == 0 and not text.strip(b"\n ")):
                    piece, done = parser.parse(text)
                    if piece is not None:
                        yield piece
                rest = text[done:]
                if len(rest) - raw.count(b"\n") > LONGEST_FIELD + chunk_bytes:
                    raise parser.error(parser.column, "a field does not end", rest[:40].decode("latin-1"))
    except (OSError, EOFError, zlib.error) as error:
        raise broken_off(head.path, error) from error
    if rest.strip() or parser.column:
        piece, _ = parser.parse(rest.rstrip(b"\r\n") + b"\n")
        if piece is not None:
            yield replace(piece, is_unended=not rest.endswith(b"\n"))


class _Parser:
    """Reads text that may be cut after any field; remembers at which row and field it is."""

    def __init__(self, head: TableHead) -> None:
        self._head = head
        self._mark = ord(head.delimiter)
        self.row = 0
        self.column = 0

    def parse(self, text: bytes) -> tuple[TablePiece | None, int]:
        """Return what the whole fields of a text hold, and how many bytes they take."""
        buffer = np.frombuffer(text, np.uint8)
        ends = self._ends(text, buffer)
        # Blank lines at the end of a file are none: they are held back until more follows.
        while ends.size > 1 and text[ends[-1]] == NEWLINE and ends[-1] - ends[-2] == 1 and text[ends[-2]] == NEWLINE:
            ends = ends[:-1]
        if not ends.size:
            return None, 0
        taken = int(ends[-1]) + 1
        buffer = buffer[:taken]
        self._check_shape(text, buffer, ends)
        lengths = np.diff(ends, prepend=-1) - 1
        fields = _Fields(buffer, ends, lengths, self._label_fields(ends.size))
        labels = self._labels(text, fields)
        values = self._values(fields)
        found = np.flatnonzero(values)
        place = found + self.column
        rows, columns = np.divmod(place, self._head.n_fields)
        piece = TablePiece(labels, rows + self.row, (columns - self._head.n_labels).astype(np.int32), values[found])
        more, self.column = divmod(self.column + ends.size, self._head.n_fields)
        self.row += more
        return piece, taken

    def _ends(self, text: bytes, buffer: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return where fields end: delimiters and line ends outside quotes."""
        marks = (buffer == NEWLINE) | (buffer == self._mark)
        if b'"' in text:
            inside = (np.cumsum(buffer == QUOTE, dtype=np.uint8) & 1).astype(bool)
            broken = np.flatnonzero(inside & (buffer == NEWLINE))
            if broken.size:
                at = int(broken[0])
                before = int(np.count_nonzero(marks[:at] & ~inside[:at]))
                found = text[max(0, at - 40) : at].decode("latin-1")
                raise self.error(
                    self.column + before, "a quoted field is not closed before the line ends", found.split("\n")[-1]
                )
            marks &= ~inside
        return np.flatnonzero(marks)

    def _check_shape(self, text: bytes, buffer: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        """Refuse lines of too few or too many fields."""
        n = self._head.n_fields
        found = np.flatnonzero(buffer[ends] == NEWLINE)
        expected = np.arange(n - 1 - self.column, ends.size, n)
        if np.array_equal(found, expected):
            return
        common = min(found.size, expected.size)
        differ = np.flatnonzero(found[:common] != expected[:common])
        at = int(differ[0]) if differ.size else common
        line = self._head.lines + self.row + at + 1
        begin = int(found[at - 1]) + 1 if at else 0
        if at < found.size:
            n_found = str(int(found[at]) - begin + 1 + (0 if at else self.column))
        else:
            n_found = f"more than {n}"
        start = int(ends[begin - 1]) + 1 if begin else 0
        beginning = text[start : start + 40].split(b"\n")[0].decode("latin-1")
        raise FormatError(
            f"{self._head.path}, line {line}: found {n_found} fields ({beginning!r}...), expected {n} as in the first "
            "lines. The file is damaged or was written wrongly; get it again, or write it again."
        )

    def _label_fields(self, n: int) -> NDArray[np.int64]:
        """Return which of `n` fields, from the current one, hold names."""
        n_fields, n_labels = self._head.n_fields, self._head.n_labels
        starts = np.arange(-self.column, n, n_fields)
        found = (starts[:, None] + np.arange(n_labels)).reshape(-1)
        return found[(found >= 0) & (found < n)]

    def _labels(self, text: bytes, fields: _Fields) -> list[str]:
        ends = fields.ends[fields.labels]
        starts = ends - fields.lengths[fields.labels]
        raw = [text[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
        try:
            names = [item.decode("utf-8").strip() for item in raw]
        except UnicodeDecodeError as error:
            at = raw.index(error.object)
            line, _ = self._place(int(fields.labels[at]))
            raise not_utf8(self._head.path, line, error) from error
        if b'"' in text:
            names = [_unquoted(name).strip() for name in names]
        return names

    def _values(self, fields: _Fields) -> NDArray[np.float64]:
        """Return the number in each field, 0 for names."""
        buffer, ends, lengths = fields.buffer, fields.ends, fields.lengths
        odd = self._odd_fields(fields)
        plain = ~odd
        plain[fields.labels] = False
        values = (buffer[ends - 1] - np.uint8(48)).astype(np.float64)
        values[fields.labels] = 0
        longer, place = np.flatnonzero(plain & (lengths > 1)), 1
        while longer.size:
            values[longer] += (buffer[ends[longer] - (place + 1)] - np.uint8(48)) * 10.0**place
            place += 1
            longer = longer[lengths[longer] > place]
        which = np.flatnonzero(odd)
        if which.size:
            values[which] = self._parsed(fields, odd, which)
        return values

    def _odd_fields(self, fields: _Fields) -> NDArray[np.bool_]:
        """Return which fields are no plain digits, or too many to be read as such: signs, points, quotes, nothing."""
        buffer, ends = fields.buffer, fields.ends
        is_odd = (buffer - np.uint8(48)) > 9
        is_odd[ends] = False
        odd: NDArray[np.bool_] = (fields.lengths < 1) | (fields.lengths > DIGITS_EXACT)
        n_odd = int(np.count_nonzero(is_odd))
        if n_odd > ends.size // 8:
            starts = ends - fields.lengths
            odd |= np.logical_or.reduceat(is_odd, starts)
        elif n_odd:
            odd[np.searchsorted(ends, np.flatnonzero(is_odd))] = True
        odd[fields.labels] = False
        return odd

    def _parsed(self, fields: _Fields, odd: NDArray[np.bool_], which: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the numbers of odd fields, read by Arrow: one a line."""
        lines = fields.buffer.copy()
        lines[fields.ends] = NEWLINE
        text = lines[np.repeat(odd, fields.lengths + 1)].tobytes()
        try:
            table = pa_csv.read_csv(
                pa.BufferReader(text),
                read_options=pa_csv.ReadOptions(
                    column_names=["value"], use_threads=False, block_size=max(len(text), 1 << 16)
                ),
                parse_options=pa_csv.ParseOptions(delimiter="\x01", ignore_empty_lines=False),
                convert_options=pa_csv.ConvertOptions(
                    column_types={"value": pa.float64()}, null_values=list(MISSING), quoted_strings_can_be_null=True
                ),
            )
        except pa.ArrowException as error:
            raise self._no_number(text, which, str(error)) from error
        values: NDArray[np.float64] = table.column(0).to_numpy()
        with np.errstate(invalid="ignore"):
            large = np.flatnonzero(np.isfinite(values) & (np.abs(values) >= FIRST_INEXACT))
        if large.size:
            at = int(large[0])
            raise self.error(
                self.column + int(which[at]),
                "a number from 2^53 on is no exact count",
                text.split(b"\n")[at].decode("latin-1"),
            )
        return values

    def _no_number(self, text: bytes, which: NDArray[np.int64], reason: str) -> FormatError:
        for at, raw in enumerate(text.split(b"\n")[:-1]):
            field = _unquoted(raw.decode("latin-1").strip())
            if field not in MISSING and NUMBER.fullmatch(field) is None:
                return self.error(self.column + int(which[at]), "a field is no number", field)
        return self.error(self.column + int(which[0]), f"a field is no number ({reason})", "")

    def error(self, at: int, finding: str, found: str) -> FormatError:
        """Return the error for a field, counted from the beginning of the current row."""
        line, column = self._place(at - self.column)
        name = self._head.header[column]
        called = f" ({name[:40]!r})" if name else ""
        return FormatError(
            f"{self._head.path}, line {line}, field {column + 1}{called}: {finding}: found {found[:60]!r}, expected a "
            "count. Write the table with names first and counts alone behind them."
        )

    def _place(self, field: int) -> tuple[int, int]:
        """Return line and column of a field of the current text."""
        rows, column = divmod(self.column + field, self._head.n_fields)
        return self._head.lines + 1 + self.row + rows, column


def _unquoted(name: str) -> str:
    if len(name) > 1 and name[0] == name[-1] == '"':
        return name[1:-1].replace('""', '"')
    return name
