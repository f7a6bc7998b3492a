"""The head of a table of numbers as text: delimiter, header, columns of names (floor 3, sources).

Knows how R, pandas and spreadsheets write tables. Must not know which axis holds genes.
"""

from __future__ import annotations

import csv
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cellmill.errors import FormatError
from cellmill.sources.base import ENSEMBL, ID_COLUMNS, SYMBOL_COLUMNS
from cellmill.sources.mex_text import open_text
from cellmill.sources.not_genes import is_fact

__all__ = ["MISSING", "TableHead", "read_head"]

DELIMITERS = {"\t": "tab", ",": "comma", ";": "semicolon", " ": "space"}
MISSING = ("", "NA", "NaN", "nan", "N/A", "null", "NULL", "None", "<NA>")
"""How programs write that there is no value; read as NaN."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE)
WHOLE = re.compile(r"\d+(\.0*)?([eE]\+?\d+)?")
LONGEST_LINE = 1 << 30
FIRST_BYTES = 1 << 16
LINES_LOOKED_AT = 20
# Columns of numbers that stand between the names of genes and their counts, as featureCounts and others write them.
ANNOTATION = frozenset(
    {
        "chr", "chrom", "chromosome", "start", "end", "stop", "strand", "length", "width", "description", "entrez",
        "entrez_id", "entrezid", "entrez_gene_id", "gene_type", "gene_biotype", "biotype", "feature_type",
        *ID_COLUMNS, *SYMBOL_COLUMNS,
    }
)  # fmt: skip


@dataclass(frozen=True)
class TableHead:
    """What the first lines of a table say.

    Attributes
    ----------
    path : Path
    delimiter : str
        One of tab, comma, semicolon and space.
    header : list of str
        A name for each field of a line of data; "" for the first where the header is one field short.
    n_labels : int
        Columns of names before the numbers, at least 1.
    lines : int
        Lines up to and with the header.
    is_short : bool
        Whether the header has one field less than the lines of data, as R's `write.table` writes it.
    first_rows : list of list of str
        Names in front of the first rows, as far as they were looked at.
    looks_whole : bool
        Whether the numbers in those rows are whole and not negative.
    """

    path: Path
    delimiter: str
    header: list[str]
    n_labels: int
    lines: int
    is_short: bool
    first_rows: list[list[str]]
    looks_whole: bool

    @property
    def n_fields(self) -> int:
        """Fields of a line of data."""
        return len(self.header)

    @property
    def columns(self) -> list[str]:
        """Names of the columns that hold numbers."""
        return self.header[self.n_labels :]

    @property
    def corner(self) -> str:
        """What the header says over the names of rows."""
        return self.header[0]

    def __str__(self) -> str:
        short = ", its header one field short" if self.is_short else ""
        more = f" (the first {self.n_labels} hold names)" if self.n_labels > 1 else ""
        return f"text of {self.n_fields} fields a line{more}, with a {DELIMITERS[self.delimiter]} between{short}"


def read_head(path: Path) -> TableHead:
    """Return what the first lines of a table say.

    Raises
    ------
    FormatError
        No text, no table, no numbers in it, or broken off before the first line ends.
    """
    try:
        comments, lines, ended = _first_lines(path)
    except (OSError, EOFError, zlib.error) as error:
        raise broken_off(path, error) from error
    if not lines:
        raise FormatError(f"{path}: there is no line in it but comments; expected a table with a header.")
    if len(lines) == 1 and not ended:
        raise FormatError(
            f"{path}, line {comments + 1}: the file ends in its first line; it is truncated. Get it again."
        )
    rows, delimiter = _split(path, lines, comments + 1)
    header, data = rows[0], rows[1:]
    if len(header) < 2 and not (data and len(data[0]) == 2):
        raise FormatError(
            f"{path}, line {comments + 1}: found {lines[0][:60]!r}, expected a header of several names with tab, "
            "comma, semicolon or space between them."
        )
    is_short = bool(data) and len(data[0]) == len(header) + 1
    header = [name.strip() for name in (["", *header] if is_short else header)]
    whole = [row for row in data if len(row) == len(header)]
    if data and not whole:
        raise FormatError(
            f"{path}, line {comments + 2}: found {len(data[0])} fields ({lines[1][:40]!r}...), expected {len(header)} "
            "as in the header, or one more."
        )
    n_labels = _count_labels(path, header, whole, comments + 1)
    first_rows = [row[:n_labels] for row in whole]
    looks_whole = all(WHOLE.fullmatch(field.strip()) is not None for row in whole for field in row[n_labels:])
    return TableHead(path, delimiter, header, n_labels, comments + 1, is_short, first_rows, looks_whole)


def broken_off(path: Path, error: Exception) -> FormatError:
    """Return the error for a stream that ends early or cannot be unpacked."""
    return FormatError(
        f"{path}: the file breaks off or is damaged ({type(error).__name__}: {error}); most likely an unfinished "
        "download or copy. Get it again."
    )


def not_utf8(path: Path, line: int, error: UnicodeDecodeError) -> FormatError:
    """Return the error for a name in another encoding."""
    found = error.object[max(0, error.start - 10) : error.end + 10]
    return FormatError(
        f"{path}, line {line}: {found!r} is no UTF-8. Write the file again in UTF-8, for example with "
        "`iconv -f latin1 -t utf-8`."
    )


def _first_lines(path: Path) -> tuple[int, list[str], bool]:
    """Return how many lines of comments come first, the header and a few lines after it, and whether the last ended."""
    lines: list[str] = []
    n_comments, n_bytes, ended = 0, 0, False
    with open_text(path) as file:
        while len(lines) <= LINES_LOOKED_AT and (n_bytes < FIRST_BYTES or len(lines) < 2):
            raw = file.readline(LONGEST_LINE)
            if not raw:
                break
            if not n_bytes:
                _require_text(path, raw)
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            n_bytes, ended = n_bytes + len(raw), raw.endswith(b"\n")
            if len(raw) >= LONGEST_LINE:
                raise FormatError(f"{path}, line {n_comments + len(lines) + 1}: a line of more than 1 GiB is no table.")
            if not lines and (raw.startswith(b"#") or not raw.strip()):
                n_comments += 1
                continue
            try:
                lines.append(raw.decode("utf-8").rstrip("\r\n"))
            except UnicodeDecodeError as error:
                raise not_utf8(path, n_comments + len(lines) + 1, error) from error
    while lines and not lines[-1].strip():
        lines.pop()
    return n_comments, lines, ended


def _require_text(path: Path, raw: bytes) -> None:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\x00" in raw[:4096]:
        what = "text in UTF-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "binary"
        raise FormatError(f"{path}: the file is {what}; expected a table of text in UTF-8. Write it again so.")
    if b"\r" in raw[:-2].rstrip(b"\r\n"):
        raise FormatError(
            f"{path}, line 1: its lines end with carriage returns alone, as on Macs of old. Write it again with line "
            "feeds, for example with `tr '\\r' '\\n'`."
        )


def _split(path: Path, lines: Sequence[str], first_line: int) -> tuple[list[list[str]], str]:
    """Return the fields of each line, and what separates them: what cuts all lines into as many fields, and most."""
    best: tuple[list[list[str]], str] | None = None
    for delimiter in DELIMITERS:
        if delimiter not in lines[0] and not (len(lines) > 1 and delimiter in lines[1]):
            continue
        rows = fields_of(path, lines, delimiter, first_line)
        sizes = {len(row) for row in rows[1:]} or {len(rows[0])}
        agree = len(sizes) == 1 and max(sizes) - len(rows[0]) in (0, 1)
        if agree and (best is None or len(rows[-1]) > len(best[0][-1])):
            best = rows, delimiter
    if best is None:
        delimiter = max(DELIMITERS, key=lambda mark: lines[0].count(mark))
        rows = fields_of(path, lines, delimiter, first_line)
        return rows, delimiter
    return best


def fields_of(path: Path, lines: Sequence[str], delimiter: str, first_line: int) -> list[list[str]]:
    """Return the fields of each line, unquoted."""
    limit = csv.field_size_limit(LONGEST_LINE)
    try:
        return list(csv.reader(lines, delimiter=delimiter))
    except csv.Error as error:
        raise FormatError(f"{path}, line {first_line} or soon after: {error}; expected fields of a table.") from error
    finally:
        csv.field_size_limit(limit)


def is_number(text: str) -> bool:
    """Whether a field holds a number, or says that it has none."""
    text = text.strip()
    return text in MISSING or NUMBER.fullmatch(text) is not None


def _require_names(path: Path, name: str, fields: list[str], number: int, line: int) -> None:
    """Refuse to take counts, one of them damaged, for names: a gene or a cell would be lost."""
    text = next((at for at, field in enumerate(fields) if not is_number(field)), None)
    if text is None or name.strip().casefold() in ANNOTATION or is_fact(name):
        return
    n_numbers = sum(map(is_number, fields))
    if ENSEMBL.match(name) or 2 * n_numbers > len(fields):
        raise FormatError(
            f"{path}, line {line + 1 + text}, field {number} ({name[:40]!r}): a field is no number: found "
            f"{fields[text][:40]!r}, expected a count like the {n_numbers} of {len(fields)} fields around it. If the "
            "column holds names, leave it out, or write text in all of its rows."
        )


def _count_labels(path: Path, header: list[str], rows: list[list[str]], line: int) -> int:
    """Return how many columns hold names: the first, and those after it of text, or known to be of no counts."""
    n = at = 1
    while at < len(header):
        holds_names = header[at].strip().casefold() in ANNOTATION or any(not is_number(row[at]) for row in rows)
        if holds_names:
            _require_names(path, header[at], [row[at] for row in rows], at + 1, line)
            n = at + 1
        # Facts of cells are passed over on the way to text: they are numbers, and so may cells be called.
        elif not is_fact(header[at]):
            break
        at += 1
    if n == len(header) and not rows:
        raise FormatError(f"{path}, line {line}: found columns {', '.join(header)[:60]!r} and no numbers under them.")
    if n == len(header):
        raise FormatError(
            f"{path}, line {line + 1}: found {rows[0][-1][:40]!r} in the last field ({header[-1][:40]!r}), expected a "
            "number. A table of counts has names first and then numbers alone; move other columns to the front."
        )
    return n
