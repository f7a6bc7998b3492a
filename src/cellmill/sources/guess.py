"""What lies at a path, and the source that reads it (floor 3, sources).

Knows how to tell formats apart by content, never by name alone, and how to find inputs in folders and globs.
"""

from __future__ import annotations

import glob
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import h5py

from cellmill.errors import FormatError, InputError, NotFoundError, nearest
from cellmill.events import emit
from cellmill.sources.archive import file_behind, inputs_of_archive, is_archive, passed_over, unpacked
from cellmill.sources.archived import ArchivedSource
from cellmill.sources.arrays import reading
from cellmill.sources.base import DEFAULT_MEMORY_BUDGET, Limits, Source
from cellmill.sources.h5ad import H5adSource
from cellmill.sources.hdf5 import open_hdf5, top_level
from cellmill.sources.loom import PARTS as LOOM_PARTS
from cellmill.sources.loom import LoomSource
from cellmill.sources.mex import MTX_NAME, MexSource, find_matrices, find_members
from cellmill.sources.mex_text import open_text
from cellmill.sources.parquet import ParquetSource, find_token_shards
from cellmill.sources.parquet_file import open_parquet
from cellmill.sources.passed import UNREAD, PassedOver, listed_names, passed_over_file
from cellmill.sources.scbank import ScbankSource, is_scbank
from cellmill.sources.side_table import TABLE_ENDING, find_side_table, is_side_name
from cellmill.sources.table import TableSource, explain_table, looks_like_counts
from cellmill.sources.tenx import TenxSource, genome_groups
from cellmill.sources.three_ca import ThreeCaSource, find_3ca
from cellmill.sources.token_lists import EXPRESSIONS, GENES, has_token_lists
from cellmill.sources.zarr import ZarrSource
from cellmill.sources.zarr_arrays import is_zarr, top_names

__all__ = [
    "FORMATS",
    "expand_inputs",
    "explain_guess",
    "find_inputs",
    "guess_format",
    "open_source",
    "register_format",
]

FORMATS: dict[str, Callable[..., Source]] = {
    "h5ad": H5adSource,
    "zarr": ZarrSource,
    "loom": LoomSource,
    "10x-h5": TenxSource,
    "mex": MexSource,
    "mex-genes-x-cells": partial(MexSource, orientation="genes-x-cells"),
    "mex-cells-x-genes": partial(MexSource, orientation="cells-x-genes"),
    "3ca": ThreeCaSource,
    "parquet": ParquetSource,
    "scbank": ScbankSource,
    "csv": TableSource,
    "csv-genes-x-cells": partial(TableSource, orientation="genes-x-cells"),
    "csv-cells-x-genes": partial(TableSource, orientation="cells-x-genes"),
}
SUPPORTED = (
    "cellmill reads h5ad, AnnData zarr, loom, 10x HDF5 (version 2 and 3), Matrix Market folders (matrix.mtx, "
    "barcodes.tsv, features.tsv or genes.tsv), studies as 3CA has them, tables of counts as text (CSV, TSV; all text "
    "plain or .gz), tar archives of these, Parquet of token lists and scBank folders"
)
FOREIGN = (
    (b"PK\x03\x04", "a zip archive; unpack it first"),
    (b"\xfd7zXZ", "an xz archive; unpack it first"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"RDX", "an R data file; save its counts as h5ad, or with DropletUtils::write10xCounts"),
    (b"X\n", "an R data file; save its counts as h5ad, or with DropletUtils::write10xCounts"),
    (b"<", "a web page, most likely an error page saved by a download"),
)
# Text that belongs to a matrix beside it: barcodes, features, labels of cells.
COMPANION = re.compile(r"((barcodes|features|genes)\.(tsv|txt)(\.gz)?|(^|[._-])obs\.csv)$", re.IGNORECASE)
TAR_ENDING = re.compile(r"\.(tar|tar\.gz|tgz)$", re.IGNORECASE)
_LISTED = 8
NAMED_INPUTS = (".h5ad", ".loom", ".zarr.zip")
STORE_SUFFIXES = frozenset({".mill"})


_recognisers: dict[str, Callable[[Path], str | None]] = {}


def register_format(kind: str, opener: Callable[..., Source], *, recognise: Callable[[Path], str | None]) -> None:
    """Make a kind of folder an input that a floor above knows how to read.

    Parameters
    ----------
    kind : str
        For `--format`.
    opener : callable
        Takes a path and `limits`.
    recognise : callable
        Takes a folder that was named as an input; returns why it is one of this kind, or None.
    """
    FORMATS[kind] = opener
    _recognisers[kind] = recognise


def _registered(folder: Path) -> tuple[str, str] | None:
    for kind, recognise in _recognisers.items():
        if why := recognise(folder):
            return kind, why
    return None


def open_source(
    path: str | Path,
    *,
    format: str | None = None,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
    spill_dir: str | Path | None = None,
) -> Source:
    """Open one input for reading by blocks; its format is told by content.

    Parameters
    ----------
    path : str or Path
        A file or folder of one of `FORMATS`.
    format : str, optional
        One of `FORMATS`: open it as this, without looking.
    memory_budget : int
        Bytes for sorting matrices by cell that are stored otherwise; beyond it they go through files in `spill_dir`.
    spill_dir : str or Path, optional
        Folder for those files; the system's temporary folder when None.

    Raises
    ------
    NotFoundError
        There is nothing at `path`.
    FormatError
        What lies there is none of the supported formats, truncated, or contradicts itself.
    """
    path = Path(path)
    _require_file_or_folder(path)
    if format is not None and format not in FORMATS:
        raise InputError(f"Unknown format {format!r}; supported are {', '.join(FORMATS)}.{nearest(format, FORMATS)}")
    limits = Limits(memory_budget=memory_budget, spill_dir=Path(spill_dir) if spill_dir is not None else None)
    if is_archive(path):
        path = _only_input(path)
    if file_behind(path) != path:
        return ArchivedSource(path, open_unpacked=partial(_open, format=format, limits=limits), limits=limits)
    return _open(path, format=format, limits=limits)


def _open(path: Path, *, format: str | None, limits: Limits) -> Source:
    if not path.exists():
        raise _nothing_at(str(path))
    kind = guess_format(path)[0] if format is None else format
    return FORMATS[kind](path, limits=limits)


def _require_file_or_folder(path: Path) -> None:
    """Refuse pipes, sockets and devices: looking into one would wait for whoever writes to it, or never end."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise FormatError(
            f"{path} is no file but a pipe, a socket or a device; an input is read more than once. Write what comes "
            "out of it to a file, and name that."
        )


def _only_input(archive: Path) -> Path:
    inputs = inputs_of_archive(archive)
    if len(inputs) != 1:
        listed = "".join(f" {path}" for path in inputs[:3])
        raise FormatError(
            f"{archive} is a tar archive of {len(inputs)} inputs."
            + (f" Name those that you mean:{listed}{' ...' if len(inputs) > 3 else ''}" if inputs else f" {SUPPORTED}.")
        )
    return inputs[0]


def guess_format(path: str | Path) -> tuple[str, str]:
    """Return (format, why) of what lies at `path`, told by its content.

    Raises
    ------
    NotFoundError
        There is nothing at `path`.
    FormatError
        None of the supported formats; the message says what was found.
    """
    path = Path(path)
    _require_file_or_folder(path)
    if is_archive(path):
        path = _only_input(path)
    if file_behind(path) != path:
        with unpacked(path, into=None) as file:
            kind, why = guess_format(file)
            return kind, why.replace(f"{file.parent}/", "")
    if not path.exists():
        raise _nothing_at(str(path))
    if path.is_dir() and not is_zarr(path):
        return _guess_folder(path)
    if find_3ca(path):
        return "3ca", f"{path.name} lies beside Genes.txt and Cells.csv, as 3CA has them"
    if path.is_file() and h5py.is_hdf5(path):
        return _guess_hdf5(path)
    if is_zarr(path):
        return _guess_zarr(path)
    if MTX_NAME.fullmatch(path.name):
        return "mex", f"{path.name} is a Matrix Market file"
    if _starts_with(path, b"PAR1"):
        return _guess_parquet(path)
    found = _describe(path)
    if "text, beginning with '%%MatrixMarket" in found:
        return "mex", f"{path.name} is a Matrix Market file"
    if "text, beginning" in found:
        return "csv", _explained_table(path, found)
    raise FormatError(f"{path} is {found}. {SUPPORTED}.")


def _starts_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _guess_parquet(path: Path) -> tuple[str, str]:
    with open_parquet(path) as file:
        schema = file.schema_arrow
    if has_token_lists(schema):
        return "parquet", f"Parquet with the lists {GENES} and {EXPRESSIONS}"
    raise FormatError(
        f"{path} is a Parquet file of another kind: its columns are {', '.join(schema.names[:8]) or 'none'}; token "
        f"lists need the lists {GENES} and {EXPRESSIONS}. {SUPPORTED}."
    )


def explain_guess(path: str | Path) -> str:
    """Return one line: what a path is read as, and what in it says so.

    Raises
    ------
    NotFoundError, FormatError
        As `guess_format` does.

    Examples
    --------
    >>> explain_guess("study/matrix.mtx.gz")  # doctest: +SKIP
    'study/matrix.mtx.gz: read as mex, since matrix.mtx.gz is a Matrix Market file'
    """
    kind, why = guess_format(path)
    return f"{path}: read as {kind}, since it is {why}" if kind == "csv" else f"{path}: read as {kind}, since {why}"


def _explained_table(path: Path, found: str) -> str:
    try:
        return explain_table(path)
    except FormatError as error:
        raise FormatError(f"{path} is {found}, and no table of counts: {error} {SUPPORTED}.") from error


def _guess_folder(path: Path) -> tuple[str, str]:
    if registered := _registered(path):
        return registered
    if is_scbank(path):
        return "scbank", "the folder holds the tables of an scBank with gene_vocab.json or manifest.json"
    if shards := find_token_shards(path):
        return "parquet", f"the folder holds {len(shards)} Parquet files of token lists, the first {shards[0].name}"
    studies = [files.matrix for files in find_3ca(path)]
    if len(studies) == 1:
        return "3ca", f"the folder holds {studies[0].name}, Genes.txt and Cells.csv, as 3CA has them"
    found = studies or find_matrices(path)
    if len(found) == 1:
        return "mex", f"the folder holds {found[0].name}"
    if len(found) > 1:
        raise FormatError(
            f"{path} holds {len(found)} Matrix Market files ({found[0].name}, {found[1].name}, ...); "
            "name each as an input."
        )
    names = sorted(item.name for item in path.iterdir())
    listed = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "") if names else "nothing"
    raise FormatError(f"{path} is a folder without matrix.mtx; it holds {listed}. {SUPPORTED}.")


def _guess_hdf5(path: Path) -> tuple[str, str]:
    with open_hdf5(path) as file, reading(path, "top level"):
        names = set(file)
        if {"obs", "var"} <= names:
            return (
                "h5ad",
                f"HDF5 with {', '.join(name for name in ('obs', 'var', 'X', 'raw', 'layers') if name in names)}",
            )
        groups = genome_groups(file)
        if groups:
            return "10x-h5", f"HDF5 with the 10x group{'s' if len(groups) > 1 else ''} {', '.join(groups)}"
        if names >= LOOM_PARTS:
            return "loom", f"HDF5 with {', '.join(sorted(LOOM_PARTS))}"
        raise FormatError(f"{path} is an HDF5 file of another kind: it holds {top_level(file)}. {SUPPORTED}.")


def _guess_zarr(path: Path) -> tuple[str, str]:
    names = top_names(path)
    if not {"obs", "var"} <= set(names):
        listed = ", ".join(names[:_LISTED]) or "nothing"
        raise FormatError(f"{path} is a zarr store of another kind: it holds {listed}. {SUPPORTED}.")
    return "zarr", f"zarr with {', '.join(name for name in ('obs', 'var', 'X', 'raw', 'layers') if name in names)}"


def _describe(path: Path) -> str:
    """Say what a file that is no HDF5 seems to be."""
    if path.stat().st_size == 0:
        return "empty; most likely an unfinished download. Get it again"
    zipped = ""
    try:
        with path.open("rb") as file:
            head = file.read(64)
        if head.startswith(b"\x1f\x8b"):
            zipped = "gzipped: "
            with open_text(path) as text:
                head = text.read(64)
    except (OSError, EOFError, zlib.error) as error:
        return f"a damaged gzip file ({error})"
    if zipped and head.startswith(b"\x89HDF"):
        return "a gzipped HDF5 file; unpack it first with gunzip"
    for magic, what in FOREIGN:
        if head.startswith(magic):
            return zipped + what
    if all(byte >= 32 or byte in b"\t\r\n" for byte in head):
        line = head.splitlines()[0].decode("latin-1")[:40] if head.splitlines() else ""
        return f"{zipped}text, beginning with {line!r}"
    start = head[:8].hex(" ")
    return f"{zipped}binary of an unknown kind, beginning with {start}; if it should be HDF5, its start is damaged"


def expand_inputs(inputs: Iterable[str | Path] | str | Path, *, keep_unusable: bool = False) -> list[Path]:
    """Return the inputs that are meant, each once, in the order of first mention.

    Parameters
    ----------
    inputs : str, Path or iterable of them
        Files, zarr stores, Matrix Market folders, globs, and folders that hold such inputs at any depth. In a folder
        .h5ad, .loom and .zarr.zip files, .h5 and .hdf5 files but HDF5 of another kind, AnnData zarr stores, Matrix
        Market folders, and tables of text with known genes on an axis count; stores and hidden names do not. What else
        in a folder may hold counts (.h5ad.gz, other tables) is passed over and told as an event.
    keep_unusable : bool
        Return a folder that holds no input as it is, for opening to refuse, instead of raising.

    Raises
    ------
    NotFoundError
        Something named does not exist, or holds no input.
    """
    return find_inputs(inputs, keep_unusable=keep_unusable)[0]


def find_inputs(
    inputs: Iterable[str | Path] | str | Path, *, keep_unusable: bool = False
) -> tuple[list[Path], list[PassedOver]]:
    """Return what `expand_inputs` does, and what else lies in the folders and archives among them, with the reasons.

    Hidden files, and those that belong to an input beside them, are in neither.
    """
    listed = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    found: dict[Path, Path] = {}
    passed: dict[Path, PassedOver] = {}
    for item in listed:
        for path in _matches(item):
            others: list[PassedOver] = []
            for one in _inputs_at(path, others, keep_unusable=keep_unusable):
                found.setdefault(_identity(one), one)
            for other in others:
                passed.setdefault(_identity(other.path), other)
    if not found:
        raise NotFoundError(f"No input was named. {SUPPORTED}.")
    return list(found.values()), [other for identity, other in passed.items() if identity not in found]


def _inputs_at(path: Path, passed: list[PassedOver], *, keep_unusable: bool) -> list[Path]:
    if path.is_dir():
        return _inputs_in(path, passed, keep_unusable=keep_unusable)
    return _inputs_packed(path, passed, keep_unusable=keep_unusable) if is_archive(path) else [path]


def _inputs_packed(archive: Path, passed: list[PassedOver], *, keep_unusable: bool) -> list[Path]:
    """Return the inputs of an archive; what else is in it goes into `passed`, and is told as an event."""
    try:
        found = inputs_of_archive(archive)
        others = [PassedOver(archive / name, "belongs to no input of the archive") for name in passed_over(archive)]
    except FormatError:
        if keep_unusable:
            return [archive]
        raise
    if not found:
        return [archive]
    _tell_passed(archive, others)
    passed += others
    return found


def _tell_passed(place: Path, passed: list[PassedOver]) -> None:
    if likely := [one for one in passed if one.likely]:
        names = listed_names(likely, below=place)
        emit(f"looking into {place.name}", message=f"{place}: passed over {len(likely)} that are no input: {names}")


def _matches(item: str | Path) -> list[Path]:
    path = Path(item).expanduser()
    if path.exists() or file_behind(path) != path:
        return [path]
    hits = sorted(glob.glob(str(path), recursive=True)) if glob.has_magic(str(path)) else []  # noqa: PTH207 - absolute patterns
    if not hits:
        raise _nothing_at(str(item))
    return [Path(hit) for hit in hits]


def _identity(path: Path) -> Path:
    """Return the path without symbolic links; a link that leads to itself stays as it is, for opening to refuse."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path.absolute()


def _inputs_in(folder: Path, passed: list[PassedOver], *, keep_unusable: bool) -> list[Path]:
    if _registered(folder):
        return [folder]
    others: list[PassedOver] = []
    found = list(_search(folder, others, set()))
    if not found and keep_unusable:
        return [folder]
    if not found:
        likely = [one for one in others if one.likely]
        looked = f" It holds {listed_names(likely, below=folder)}, which cellmill does not read." if likely else ""
        raise NotFoundError(f"{folder}: no input in this folder.{looked} {SUPPORTED}.")
    _tell_passed(folder, [one for one in others if one.path.parent.is_dir()])  # what is in archives is told of those
    passed += others
    return found


def _search(folder: Path, passed: list[PassedOver], visited: set[Path]) -> Iterator[Path]:
    """Yield the inputs of a folder and those below it; what else lies there goes into `passed`."""
    # A link may lead back up: without this, the search would never end.
    if (identity := _identity(folder)) in visited:
        return
    visited.add(identity)
    if is_zarr(folder) or is_scbank(folder):
        yield folder
        return
    shards = find_token_shards(folder)
    if shards and shards[0].parent == folder:
        yield folder  # all of its shards are one input
    matrices = [files.matrix for files in find_3ca(folder)] or find_matrices(folder)
    yield from [folder] if len(matrices) == 1 else matrices
    members = find_members(folder)
    tables = _tables_in(folder, members)
    yield from tables
    labels = {find_side_table(table) for table in tables}
    of_tokens = {".parquet", ".json"} if shards else set()
    for path in sorted(folder.iterdir()):
        suffix = path.suffix.lower()
        if path.name.startswith(".") or COMPANION.search(path.name):
            continue
        if path in members or path in tables or path in labels or suffix in of_tokens:
            continue
        if suffix in STORE_SUFFIXES:
            passed.append(PassedOver(path, "a store; name it, if its cells are meant", likely=False))
        elif UNREAD.search(path.name):
            passed.append(passed_over_file(path))
        elif TAR_ENDING.search(path.name) and is_archive(path):
            yield from _inputs_packed(path, passed, keep_unusable=True)
        elif path.is_dir() and is_zarr(path) and not {"obs", "var"} <= set(top_names(path)):
            passed.append(PassedOver(path, "zarr without obs and var"))
        elif path.is_dir():
            yield from _search(path, passed, visited)
        elif path.name.lower().endswith(NAMED_INPUTS) or (suffix in (".h5", ".hdf5") and not _is_other_hdf5(path)):
            yield path
        elif suffix in (".h5", ".hdf5"):
            passed.append(PassedOver(path, "HDF5 of another kind"))
        else:
            passed.append(passed_over_file(path))


def _tables_in(folder: Path, members: set[Path]) -> list[Path]:
    """Return the files of a folder that are most likely tables of counts; labels and lists beside a matrix are not."""
    texts = (path for path in sorted(folder.iterdir()) if TABLE_ENDING.search(path.name) and path.is_file())
    return [
        path
        for path in texts
        if not (path.name.startswith(".") or path in members or COMPANION.search(path.name) or is_side_name(path))
        and looks_like_counts(path)
    ]


def _is_other_hdf5(path: Path) -> bool:
    """Whether a file is sound HDF5 of a kind that is not read: those lie beside inputs (weights, loom).

    Anything else named so is an input: if it is truncated, opening it will say so, and no cells are missed silently.
    """
    if not h5py.is_hdf5(path):
        return False
    try:
        with open_hdf5(path) as file:
            return not ({"obs", "var"} <= set(file) or genome_groups(file) or set(file) >= LOOM_PARTS)
    except (FormatError, OSError, KeyError, RuntimeError):
        return False


def _nothing_at(item: str) -> NotFoundError:
    path = Path(item)
    beside = sorted(other.name for other in path.parent.iterdir()) if path.parent.is_dir() else []
    if glob.has_magic(item):
        return NotFoundError(f"{item}: nothing matches this pattern.")
    return NotFoundError(f"{item}: no such file or folder.{nearest(path.name, beside)}")
