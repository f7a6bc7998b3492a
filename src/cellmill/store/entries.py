"""The lists of a manifest (floor 3, pure): shards and sources, kept as columns, made into entries when asked for.

A store of many shards is opened at the price of a few columns, which are checked as wholes. What a column holds that
the format does not allow is a KeyError, TypeError or ValueError here; the manifest says of which file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Self, TypeVar, overload

import numpy as np
import numpy.typing as npt

__all__ = ["FileEntry", "ShardEntry", "Shards", "SourceEntry", "Sources", "checked_file", "checked_text"]

_MOST = 2**63 - 1  # of anything that becomes an int64
_MOST_CELLS_OF_A_SHARD = 2**32 - 1  # a frame has at least a byte, and offsets are uint32
# a path names a file of the store itself: no folder above it, no absolute path, no hidden file
_NAME = "[A-Za-z0-9_][A-Za-z0-9_.-]*"
_PATHS = {
    "cells": re.compile(rf"shards/{_NAME}\.cells"),
    "obs": re.compile(rf"obs/{_NAME}\.parquet"),
    "uids": re.compile(rf"obs/{_NAME}\.uids"),
    "report": re.compile(rf"reports/{_NAME}\.json"),
    "genes": re.compile(rf"{_NAME}\.parquet"),
    "vocabulary": re.compile(rf"{_NAME}\.json\.gz"),
    "head": re.compile(rf"{_NAME}\.bin"),
}
_HASH_DIGITS = 32

Numbers = npt.NDArray[np.int64]
Column = list[str] | Numbers
EntryT = TypeVar("EntryT")


@dataclass(frozen=True)
class FileEntry:
    """A file of the store: path relative to the store, length in bytes, xxh3-128."""

    path: str
    bytes: int
    xxh3: str


@dataclass(frozen=True)
class ShardEntry:
    """One shard: its frames, the obs and uids beside them, and their sizes."""

    cells: FileEntry
    obs: FileEntry
    uids: FileEntry
    n_cells: int
    nnz: int
    source: str

    @property
    def files(self) -> tuple[FileEntry, FileEntry, FileEntry]:
        """Its files: cells, obs, uids."""
        return self.cells, self.obs, self.uids


@dataclass(frozen=True)
class SourceEntry:
    """Where cells came from: dataset name, kind of input, path as given, bytes, xxh3-128, matrix, report."""

    name: str
    kind: str
    uri: str
    bytes: int
    xxh3: str
    matrix: str
    n_cells: int
    report: FileEntry


class _Entries(Sequence[EntryT], Generic[EntryT]):
    """Entries of one kind, in order; a slice is one of these too. Equal to another when all columns are.

    Parameters
    ----------
    entries
        In order.
    """

    _made: ClassVar[type]
    _files: ClassVar[tuple[str, ...]]
    _numbers: ClassVar[Mapping[str, int]]  # and the most that each may be
    _texts: ClassVar[tuple[str, ...]]

    def __init__(self, entries: Iterable[EntryT] = ()) -> None:
        listed = list(entries)
        columns: dict[tuple[str, ...], Column] = {}
        for key in self._files:
            files = [getattr(entry, key) for entry in listed]
            columns[key, "path"] = [file.path for file in files]
            columns[key, "bytes"] = np.array([file.bytes for file in files], dtype=np.int64)
            columns[key, "xxh3"] = [file.xxh3 for file in files]
        for key in self._numbers:
            columns[(key,)] = np.array([getattr(entry, key) for entry in listed], dtype=np.int64)
        for key in self._texts:
            columns[(key,)] = [getattr(entry, key) for entry in listed]
        self._columns = columns

    @classmethod
    def _of(cls, columns: dict[tuple[str, ...], Column]) -> Self:
        made = cls()
        made._columns = columns
        return made

    @classmethod
    def from_columns(cls, body: Any, *, where: str) -> Self:
        """Check the columns of a JSON object; a KeyError, TypeError or ValueError says what is wrong with them."""
        _require_keys(body, {*cls._files, *cls._numbers, *cls._texts}, where=where)
        columns: dict[tuple[str, ...], Column] = {}
        for key in cls._files:
            file = body[key]
            _require_keys(file, {"path", "bytes", "xxh3"}, where=f"{where}.{key}")
            columns[key, "path"] = _checked_paths(file["path"], key, where=f"{where}.{key}.path")
            columns[key, "bytes"] = _checked_numbers(file["bytes"], _MOST, where=f"{where}.{key}.bytes")
            columns[key, "xxh3"] = _checked_hashes(file["xxh3"], where=f"{where}.{key}.xxh3")
        for key, most in cls._numbers.items():
            columns[(key,)] = _checked_numbers(body[key], most, where=f"{where}.{key}")
        for key in cls._texts:
            columns[(key,)] = _checked_texts(body[key], where=f"{where}.{key}")
        lengths = {".".join(key): len(column) for key, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the columns of {where} must be of one length, found {lengths}")
        return cls._of(columns)

    def to_columns(self) -> dict[str, Any]:
        """Return the columns as plain JSON types; `from_columns` reads them."""
        body: dict[str, Any] = {}
        for key, column in self._columns.items():
            plain = column if isinstance(column, list) else column.tolist()
            if len(key) == 1:
                body[key[0]] = plain
            else:
                body.setdefault(key[0], {})[key[1]] = plain
        return body

    def paths(self) -> Iterator[str]:
        """Yield the paths of all files, kind by kind."""
        for key in self._files:
            yield from self.texts(key, "path")

    def texts(self, *key: str) -> list[str]:
        """Return a column of texts, such as `("obs", "path")`; not to be changed."""
        column = self._columns[key]
        assert isinstance(column, list)
        return column

    def numbers(self, *key: str) -> Numbers:
        """Return a column of numbers, int64, shape (n_entries,), such as `("obs", "bytes")`; not to be changed."""
        column = self._columns[key]
        assert not isinstance(column, list)
        return column

    def hashes(self, key: str) -> bytes:
        """Return the hashes of the files of a kind, 16 bytes each, end to end."""
        return bytes.fromhex("".join(self.texts(key, "xxh3")))

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    @overload
    def __getitem__(self, index: int) -> EntryT: ...

    @overload
    def __getitem__(self, index: slice) -> Self: ...

    def __getitem__(self, index: int | slice) -> EntryT | Self:
        if isinstance(index, slice):
            return self._of({key: column[index] for key, column in self._columns.items()})
        columns = self._columns
        values: dict[str, Any] = {
            key: FileEntry(
                self.texts(key, "path")[index], int(columns[key, "bytes"][index]), self.texts(key, "xxh3")[index]
            )
            for key in self._files
        }
        values |= {key: int(columns[(key,)][index]) for key in self._numbers}
        values |= {key: columns[(key,)][index] for key in self._texts}
        made: EntryT = self._made(**values)
        return made

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        theirs = other._columns
        return all(
            column == theirs[key] if isinstance(column, list) else np.array_equal(column, theirs[key])
            for key, column in self._columns.items()
        )

    def __hash__(self) -> int:
        return hash(tuple(self.paths()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} entries)"


class Shards(_Entries[ShardEntry]):
    """The shards of a store, in order of the row ids."""

    _made = ShardEntry
    _files = ("cells", "obs", "uids")
    _numbers: ClassVar = {"n_cells": _MOST_CELLS_OF_A_SHARD, "nnz": _MOST}
    _texts = ("source",)

    @property
    def n_cells(self) -> Numbers:
        """Cells of each shard, int64."""
        return self.numbers("n_cells")

    @property
    def nnz(self) -> Numbers:
        """Counts of each shard, int64."""
        return self.numbers("nnz")


class Sources(_Entries[SourceEntry]):
    """The inputs of a store."""

    _made = SourceEntry
    _files = ("report",)
    _numbers: ClassVar = {"bytes": _MOST, "n_cells": _MOST}
    _texts = ("name", "kind", "uri", "xxh3", "matrix")


# ---- checks ----------------------------------------------------------------------------------------------------


def checked_file(body: Any, kind: str) -> FileEntry:
    """Return the file entry in a JSON object; a KeyError, TypeError or ValueError says what is wrong with it."""
    _require_keys(body, {"path", "bytes", "xxh3"}, where=kind)
    path = _checked_paths([body["path"]], kind, where=f"{kind}.path")[0]
    n_bytes = _checked_numbers([body["bytes"]], _MOST, where=f"{kind}.bytes")[0]
    return FileEntry(path, int(n_bytes), _checked_hashes([body["xxh3"]], where=f"{kind}.xxh3")[0])


def checked_text(value: Any, *, where: str) -> str:
    """Return a text; anything else is a TypeError."""
    return _checked_texts([value], where=where)[0]


def _require_keys(body: Any, keys: set[str], *, where: str) -> None:
    if not isinstance(body, dict):
        raise TypeError(f"{where} must be an object, found {type(body).__name__}")
    if body.keys() != keys:
        raise KeyError(f"{where} must have the keys {', '.join(sorted(keys))}, found {', '.join(sorted(body))}")


def _checked_texts(column: Any, *, where: str) -> list[str]:
    if not isinstance(column, list):
        raise TypeError(f"{where} must be a list, found {type(column).__name__}")
    if not set(map(type, column)) <= {str}:
        raise TypeError(f"{where} must be text, found {next(v for v in column if type(v) is not str)!r}")
    return column


def _checked_paths(column: Any, kind: str, *, where: str) -> list[str]:
    paths = _checked_texts(column, where=where)
    match = _PATHS[kind].fullmatch
    if not all(map(match, paths)):
        raise ValueError(f"{where} must match {_PATHS[kind].pattern}, found {next(p for p in paths if not match(p))!r}")
    return paths


def _checked_hashes(column: Any, *, where: str) -> list[str]:
    hashes = _checked_texts(column, where=where)
    joined = "".join(hashes)
    try:
        sound = set(map(len, hashes)) <= {_HASH_DIGITS} and bytes.fromhex(joined).hex() == joined  # no capitals, blanks
    except ValueError:
        sound = False
    if not sound:
        wrong = next(text for text in hashes if not re.fullmatch(f"[0-9a-f]{{{_HASH_DIGITS}}}", text))
        raise ValueError(f"{where} must be {_HASH_DIGITS} hexadecimal digits, found {wrong!r}")
    return hashes


def _checked_numbers(column: Any, most: int, *, where: str) -> Numbers:
    """Return whole numbers from 0 to `most` that add up to no more than an int64 holds."""
    if not isinstance(column, list):
        raise TypeError(f"{where} must be a list, found {type(column).__name__}")
    if not set(map(type, column)) <= {int}:  # a truth value is no number
        raise TypeError(f"{where} must be whole numbers, found {next(v for v in column if type(v) is not int)!r}")
    if column and not 0 <= min(column) <= max(column) <= most:
        wrong = next(value for value in column if not 0 <= value <= most)
        raise ValueError(f"{where} must be whole numbers from 0 to {most}, found {wrong}")
    if sum(column) > _MOST:
        raise ValueError(f"{where} must add up to at most {_MOST}, found {sum(column)}")
    return np.array(column, dtype=np.int64)
