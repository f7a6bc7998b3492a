"""The manifest of a store (floor 3, pure): what belongs to it, named by hash.

A store is what its manifest says, and nothing else that lies in the folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from cellmill.errors import CorruptStoreError
from cellmill.storage import hash_bytes
from cellmill.store.format import FORMAT_VERSION, version_problem
from cellmill.store.obs_types import OBS_TYPES, STANDARD_COLUMNS

__all__ = ["HEAD_NAME", "MANIFEST_NAME", "VOCABULARY_NAME", "FileEntry", "Manifest", "ShardEntry", "SourceEntry"]

MANIFEST_NAME = "manifest.json"
VOCABULARY_NAME = "vocabulary.json.gz"
HEAD_NAME = "model.bin"

_MOST = 2**63 - 1  # of anything that becomes an int64
_MOST_CELLS_OF_A_SHARD = 2**32 - 1  # a frame has at least a byte, and offsets are uint32
# a path names a file of the store itself: no folder above it, no absolute path, no hidden file
_NAME = "[A-Za-z0-9_][A-Za-z0-9_.-]*"
_PATHS = {
    "cells": rf"shards/{_NAME}\.cells",
    "obs": rf"obs/{_NAME}\.parquet",
    "uids": rf"obs/{_NAME}\.uids",
    "report": rf"reports/{_NAME}\.json",
    "genes": rf"{_NAME}\.parquet",
    "vocabulary": rf"{_NAME}\.json\.gz",
    "head": rf"{_NAME}\.bin",
}


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


@dataclass(frozen=True)
class Manifest:
    """A store by name and hash.

    Attributes
    ----------
    digest : str
        xxh3-128 of everything that decides what a reader gets (genes, shards, obs); not of names or times.
    obs_schema : tuple of (name, Arrow type)
        Columns of obs in order, each with the type that readers see.
    head : FileEntry or None
        A file without which the frames cannot be decoded; None where they stand by themselves.
    """

    vocabulary_hash: str
    vocabulary_name: str
    vocabulary: FileEntry
    genes: FileEntry
    obs_schema: tuple[tuple[str, str], ...]
    shards: tuple[ShardEntry, ...]
    sources: tuple[SourceEntry, ...]
    cellmill_version: str = ""
    format_version: int = FORMAT_VERSION
    digest: str = field(default="")
    head: FileEntry | None = None

    @property
    def whole_files(self) -> tuple[FileEntry, ...]:
        """Files that belong to no shard and to no source."""
        return (self.genes, self.vocabulary) if self.head is None else (self.genes, self.vocabulary, self.head)

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return sum(shard.n_cells for shard in self.shards)

    @property
    def nnz(self) -> int:
        """Number of stored counts, all of them at least 1."""
        return sum(shard.nnz for shard in self.shards)

    @property
    def generation(self) -> int:
        """How often the store was added to; its table of genes is named after it."""
        match = re.fullmatch(r"genes-(\d+)\.parquet", self.genes.path)
        return int(match[1]) if match else 0

    @property
    def next_shard(self) -> int:
        """Number of the next shard: above that of every file of the shards there are."""
        return _next_number(file.path for shard in self.shards for file in shard.files)

    @property
    def next_report(self) -> int:
        """Number of the next report."""
        return _next_number(source.report.path for source in self.sources)

    def extends(self, older: Manifest) -> bool:
        """Whether this is `older` with cells added: the same rows are the same cells, and no file of it has changed."""
        return (
            self.vocabulary_hash == older.vocabulary_hash
            and self.shards[: len(older.shards)] == older.shards
            and self.head == older.head
            and (self.genes == older.genes or self.generation > older.generation)
        )

    def compute_digest(self) -> str:
        """Return the digest that belongs to the contents named here."""
        content = {
            "format_version": self.format_version,
            "vocabulary_hash": self.vocabulary_hash,
            "genes": self.genes.xxh3,
            "head": self.head.xxh3 if self.head else None,
            "obs_schema": self.obs_schema,
            "shards": [(s.cells.xxh3, s.obs.xxh3, s.uids.xxh3, s.n_cells, s.nnz) for s in self.shards],
        }
        return hash_bytes(json.dumps(content, sort_keys=True).encode())

    def sealed(self) -> Manifest:
        """Return the same manifest with its digest."""
        return replace(self, digest=self.compute_digest())

    def to_json(self) -> bytes:
        """Return the manifest as it is written: JSON, its own xxh3-128 in the key `manifest_xxh3`."""
        body = asdict(self)
        body["manifest_xxh3"] = _self_hash(body)
        return (json.dumps(body, indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def from_json(cls, raw: bytes, *, where: str) -> Manifest:
        """Read and check a manifest.

        Raises
        ------
        CorruptStoreError
            When it is not JSON, a key or value is not what the format says, or its own hash or digest does not hold.
        """
        try:
            body = json.loads(raw)
            stated = body.pop("manifest_xxh3")
            version = body["format_version"]
            own = _self_hash(body)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CorruptStoreError(f"{where}: not a cellmill manifest ({error!r})") from None
        if type(version) is not int or version != FORMAT_VERSION:
            raise CorruptStoreError(f"{where}: {version_problem(version)}")
        if stated != own:
            raise CorruptStoreError(
                f"{where}: its own checksum does not hold; the file was changed by hand or cut. "
                "Restore it from a copy or build the store again."
            )
        try:
            manifest = _manifest_from(body)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CorruptStoreError(f"{where}: not a manifest of version {FORMAT_VERSION} ({error!r})") from None
        if manifest.digest != manifest.compute_digest():
            raise CorruptStoreError(f"{where}: the digest does not belong to the contents named")
        return manifest


def _next_number(paths: Iterable[str]) -> int:
    stems = (path.rpartition("/")[2].partition(".")[0] for path in paths)
    return max((int(stem) for stem in stems if stem.isdecimal()), default=-1) + 1


def _self_hash(body: Mapping[str, Any]) -> str:
    return hash_bytes(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())


def _manifest_from(body: dict[str, Any]) -> Manifest:
    """Return the manifest in a JSON object; what the format does not allow is a ValueError, TypeError or KeyError."""
    listed = {key: _checked_list(key, body.pop(key)) for key in ("shards", "sources", "obs_schema")}
    values: dict[str, Any] = {key: _file_entry(key, body.pop(key)) for key in ("genes", "vocabulary")}
    head = body.pop("head", None)
    values["head"] = None if head is None else _file_entry("head", head)
    values |= {key: _checked_text(key, value) for key, value in body.items() if key != "format_version"}
    return Manifest(
        **values,
        obs_schema=_obs_schema(listed["obs_schema"]),
        shards=tuple(_shard_entry(shard) for shard in listed["shards"]),
        sources=tuple(_source_entry(source) for source in listed["sources"]),
    )


def _shard_entry(body: dict[str, Any]) -> ShardEntry:
    sizes = {"n_cells": _MOST_CELLS_OF_A_SHARD, "nnz": _MOST}
    entry = _checked_values(body, files=("cells", "obs", "uids"), numbers=sizes)
    return ShardEntry(**entry)


def _source_entry(body: dict[str, Any]) -> SourceEntry:
    return SourceEntry(**_checked_values(body, files=("report",), numbers={"bytes": _MOST, "n_cells": _MOST}))


def _file_entry(key: str, body: dict[str, Any]) -> FileEntry:
    entry = FileEntry(**_checked_values(body, files=(), numbers={"bytes": _MOST}))
    if not re.fullmatch(_PATHS[key], entry.path):
        raise ValueError(f"the path of {key} must match {_PATHS[key]}, found {entry.path!r}")
    if not re.fullmatch("[0-9a-f]{32}", entry.xxh3):
        raise ValueError(f"{entry.path}: xxh3 must be 32 hexadecimal digits, found {entry.xxh3!r}")
    return entry


def _checked_values(body: dict[str, Any], *, files: tuple[str, ...], numbers: dict[str, int]) -> dict[str, Any]:
    """Return the values of an object: file entries, whole numbers from 0 to a limit, and texts."""
    result: dict[str, Any] = {}
    for key, value in body.items():
        if key in files:
            result[key] = _file_entry(key, value)
        elif key in numbers:
            if type(value) is not int or not 0 <= value <= numbers[key]:
                raise ValueError(f"{key} must be a whole number from 0 to {numbers[key]}, found {value!r}")
            result[key] = value
        else:
            result[key] = _checked_text(key, value)
    return result


def _checked_text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{key} must be a text, found {value!r}")
    return value


def _checked_list(key: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{key} must be a list, found {type(value).__name__}")
    return value


def _obs_schema(listed: list[Any]) -> tuple[tuple[str, str], ...]:
    schema = tuple((_checked_text("column", name), _checked_text("type", kind)) for name, kind in listed)
    if schema[: len(STANDARD_COLUMNS)] != tuple(STANDARD_COLUMNS.items()):
        raise ValueError(f"obs_schema must begin with {list(STANDARD_COLUMNS.items())}")
    seen = {"row"}  # the row id in SQL, which does not tell upper from lower case
    for name, kind in schema:
        if kind not in OBS_TYPES or kind == "null":
            raise ValueError(f"obs column {name!r} has the type {kind!r}; known are {', '.join(OBS_TYPES)}")
        if name.lower() in seen:
            raise ValueError(f"obs column {name!r}: another column, or the row id, has this name (case aside)")
        seen.add(name.lower())
    return schema
