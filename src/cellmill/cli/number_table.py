"""Tables of a number for each gene that published models come with, from a file."""

from __future__ import annotations

import csv
import io
import json
import pickle
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cellmill.errors import CellmillError, InputError, NotFoundError

__all__ = ["read_number_table"]

_MISSING = frozenset({"", ".", "-", "na", "n/a", "nan", "null", "none"})
Numbers = dict[str, float] | np.ndarray[Any, Any]


def read_number_table(path: str | Path) -> Numbers:
    """Return the number of each gene: a mapping of gene id to number, or an array over tokens.

    Parameters
    ----------
    path
        .json, an object of gene id to number or a list over tokens; .csv, .tsv, .txt or .parquet, of two columns, gene
        and number, with or without a line of names; .npy, over tokens; .pkl, a dictionary, as Geneformer's medians are
        published. Of a pickle only dictionaries, lists, texts and numbers are read, so that it cannot run anything.

    Raises
    ------
    NotFoundError
        When there is no such file.
    InputError
        For a file that holds something else, naming the place.
    """
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"{path}: there is no such file; give a table of one number for each gene ({_ENDINGS})")
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise InputError(f"{path}: a table of numbers of genes ends in {_ENDINGS}")
    try:
        return _checked(path, read(path))
    except CellmillError:
        raise
    except _UNREADABLE as error:
        told = str(error) or type(error).__name__
        raise InputError(f"{path}: this is no table of one number for each gene: {told}") from None


def _checked(path: Path, found: Any) -> Numbers:
    if isinstance(found, Mapping):
        for gene, number in found.items():
            if not isinstance(gene, str) or isinstance(number, bool) or not isinstance(number, (int, float, np.number)):
                raise InputError(f"{path}: each gene id must have a number; found {gene!r}: {number!r}")
        return {gene: number.item() if isinstance(number, np.generic) else number for gene, number in found.items()}
    array = np.asarray(found)
    if array.ndim != 1 or array.dtype.kind not in "iuf":
        raise InputError(
            f"{path}: must be a mapping of gene id to number, or one number for each token; found shape "
            f"{array.shape}, dtype {array.dtype}"
        )
    return array


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError(
            f"{next(gene for gene, n in Counter(gene for gene, _ in pairs).items() if n > 1)!r} is there twice"
        )
    return made


def _read_text(path: Path) -> dict[str, float]:
    text = path.read_text(encoding="utf-8-sig")
    lines = [
        line for line in csv.reader(io.StringIO(text), delimiter="," if path.suffix.lower() == ".csv" else "\t") if line
    ]
    made: dict[str, float] = {}
    for number, line in enumerate(lines, start=1):
        if len(line) < 2:
            raise ValueError(f"line {number} has one column; gene and number are needed")
        value = _as_number(line[1])
        if value is None:
            if number == 1 and line[1].strip().lower() not in _MISSING:  # names of the columns
                continue
            raise ValueError(f"line {number}: {line[1]!r} is no number")
        if line[0] in made:
            raise ValueError(f"line {number}: gene {line[0]!r} is there twice")
        made[line[0]] = value
    if not made:
        raise ValueError("it holds no number")
    return made


def _as_number(text: str) -> float | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


def _read_parquet(path: Path) -> dict[str, float]:
    table = pq.read_table(path)
    if table.num_columns < 2:
        raise ValueError(f"it has {table.num_columns} columns; gene and number are needed")
    genes = table.column(0).to_pylist()
    if len(set(genes)) < len(genes):
        raise ValueError("a gene is there twice")
    return dict(zip(genes, table.column(1).to_pylist(), strict=True))


def _read_npy(path: Path) -> Any:
    return np.load(path, allow_pickle=False)


# NumPy's own dtype and scalar would take an address for an object; what stands in for them takes numbers alone.
_CODES = frozenset({"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"})


class _Code:
    """A type of numbers as a pickle says it."""

    __slots__ = ("code", "order")
    code: str
    order: str

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("it holds a type of numbers that cannot be read")
        self.order = state[1]


class _AsCode:
    """Stands in for numpy.dtype."""

    __slots__ = ()

    def __call__(self, code: Any, *_: Any) -> _Code:
        if code not in _CODES:
            raise pickle.UnpicklingError(f"it holds the type {code!r}, which is none of numbers")
        made = _Code()
        made.code, made.order = code, "="
        return made


class _AsNumber:
    """Stands in for what NumPy makes a number of."""

    __slots__ = ()

    def __call__(self, kind: Any, raw: Any) -> int | float:
        dtype = np.dtype(kind.order.replace("|", "=") + kind.code) if isinstance(kind, _Code) else None
        if dtype is None or not isinstance(raw, bytes) or len(raw) != dtype.itemsize:
            raise pickle.UnpicklingError("it holds a number that cannot be read")
        number: int | float = np.frombuffer(raw, dtype)[0].item()
        return number


class _AsBytes:
    """Stands in for what older pickles make bytes by."""

    __slots__ = ()

    def __call__(self, text: Any, encoding: Any = "latin1") -> bytes:
        if not isinstance(text, str) or encoding != "latin1":
            raise pickle.UnpicklingError("it holds bytes that cannot be read")
        return text.encode("latin1")


class _Plain(pickle.Unpickler):
    """Reads numbers and texts; whatever else a pickle asks for is refused, and with it anything that would run."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "dtype"):
            return _AsCode()
        if (module, name) in (("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar")):
            return _AsNumber()
        if (module, name) == ("_codecs", "encode"):
            return _AsBytes()
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which is no number")


def _read_pickle(path: Path) -> Any:
    with path.open("rb") as file:
        return _Plain(file).load()


_READERS: Mapping[str, Callable[[Path], Any]] = MappingProxyType({
    ".json": _read_json, ".csv": _read_text, ".tsv": _read_text, ".txt": _read_text, ".parquet": _read_parquet,
    ".npy": _read_npy, ".pkl": _read_pickle, ".pickle": _read_pickle,
})  # fmt: skip
_ENDINGS = ", ".join(_READERS)
# what readers of JSON, Parquet, NumPy and pickles raise of bytes that are something else
_UNREADABLE = (
    ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError, MemoryError, OSError, EOFError,
    ImportError, zipfile.BadZipFile, pickle.UnpicklingError, csv.Error, pa.ArrowException,
)  # fmt: skip
