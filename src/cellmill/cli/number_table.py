"""Tables of a number for each gene that published models come with, from a file."""

from __future__ import annotations

import csv
import io
import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cellmill.errors import InputError, NotFoundError

__all__ = ["read_number_table"]

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
        found = read(path)
    except (ValueError, pa.ArrowException, pickle.UnpicklingError, EOFError, csv.Error, UnicodeError) as error:
        raise InputError(f"{path}: this is no table of one number for each gene: {error}") from None
    return _checked(path, found)


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
    return json.loads(path.read_text(encoding="utf-8"))


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
            if number == 1:  # names of the columns
                continue
            raise ValueError(f"line {number}: {line[1]!r} is no number")
        if line[0] in made:
            raise ValueError(f"line {number}: gene {line[0]!r} is there twice")
        made[line[0]] = value
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


class _Plain(pickle.Unpickler):
    """Reads numbers and texts; whatever else a pickle asks for is refused, and with it anything that would run."""

    allowed = frozenset({
        ("numpy", "dtype"), ("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar"),
        ("collections", "OrderedDict"),
    })  # fmt: skip

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which is no number")
        return super().find_class(module, name)


def _read_pickle(path: Path) -> Any:
    with path.open("rb") as file:
        return _Plain(file).load()


_READERS: Mapping[str, Callable[[Path], Any]] = MappingProxyType({
    ".json": _read_json, ".csv": _read_text, ".tsv": _read_text, ".txt": _read_text, ".parquet": _read_parquet,
    ".npy": _read_npy, ".pkl": _read_pickle, ".pickle": _read_pickle,
})  # fmt: skip
_ENDINGS = ", ".join(_READERS)
