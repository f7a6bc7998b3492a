"""The manifest of a store (floor 3, pure): what belongs to it, named by hash.

A store is what its manifest says, and nothing else that lies in the folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import xxhash

from cellmill.errors import CorruptStoreError
from cellmill.storage import hash_bytes
from cellmill.store.entries import FileEntry, ShardEntry, Shards, SourceEntry, Sources, checked_file, checked_text
from cellmill.store.format import FORMAT_VERSION, version_problem
from cellmill.store.obs_types import OBS_TYPES, STANDARD_COLUMNS

__all__ = [
    "HEAD_NAME",
    "MANIFEST_NAME",
    "VOCABULARY_NAME",
    "FileEntry",
    "Manifest",
    "ShardEntry",
    "Shards",
    "SourceEntry",
    "Sources",
]

MANIFEST_NAME = "manifest.json"
VOCABULARY_NAME = "vocabulary.json.gz"
HEAD_NAME = "model.bin"

# a manifest begins with its own hash, so that nobody has to write it anew to check it
_BEGINNING = b'{\n "manifest_xxh3": "'
_HASH_ENDS = len(_BEGINNING) + 32
_TEXTS = ("vocabulary_hash", "vocabulary_name", "cellmill_version", "digest")
_FILES = ("genes", "vocabulary")
_KEYS = {"format_version", "obs_schema", "shards", "sources", *_TEXTS, *_FILES}


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
    shards: Shards
    sources: Sources
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
        return int(self.shards.n_cells.sum())

    @property
    def nnz(self) -> int:
        """Number of stored counts, all of them at least 1."""
        return int(self.shards.nnz.sum())

    @property
    def generation(self) -> int:
        """How often the store was added to; its table of genes is named after it."""
        match = re.fullmatch(r"genes-(\d+)\.parquet", self.genes.path)
        return int(match[1]) if match else 0

    @property
    def next_shard(self) -> int:
        """Number of the next shard: above that of every file of the shards there are."""
        return _next_number(self.shards.paths())

    @property
    def next_report(self) -> int:
        """Number of the next report."""
        return _next_number(self.sources.paths())

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
        shards = self.shards
        sizes = (column.astype("<u8").tobytes() for column in (shards.n_cells, shards.nnz))
        content = {
            "format_version": self.format_version,
            "vocabulary_hash": self.vocabulary_hash,
            "genes": self.genes.xxh3,
            "head": self.head.xxh3 if self.head else None,
            "obs_schema": self.obs_schema,
            "shards": hash_bytes(b"".join([*map(shards.hashes, ("cells", "obs", "uids")), *sizes])),
        }
        return hash_bytes(json.dumps(content, sort_keys=True).encode())

    def sealed(self) -> Manifest:
        """Return the same manifest with its digest."""
        return replace(self, digest=self.compute_digest())

    def to_json(self) -> bytes:
        """Return the manifest as it is written: JSON, its own xxh3-128 first, a column of shards or sources a line."""
        body = {key: getattr(self, key) for key in ("format_version", *_TEXTS, "obs_schema")}
        body |= {key: vars(getattr(self, key)) for key in _FILES}
        body |= {"head": vars(self.head) if self.head else None}
        body |= {"shards": self.shards.to_columns(), "sources": self.sources.to_columns()}
        raw = (_as_lines({"manifest_xxh3": "0" * 32, **dict(sorted(body.items()))}) + "\n").encode()
        return raw[: len(_BEGINNING)] + _self_hash(raw).encode() + raw[_HASH_ENDS:]

    @classmethod
    def from_json(cls, raw: bytes, *, where: str) -> Manifest:
        """Read and check a manifest.

        Raises
        ------
        CorruptStoreError
            When it is not JSON, a key or value is not what the format says, or its own hash or digest does not hold.
        """
        try:
            body = json.loads(raw, object_pairs_hook=_object, parse_constant=_no_constant)
            stated = body.pop("manifest_xxh3")
            version = body["format_version"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CorruptStoreError(f"{where}: not a cellmill manifest ({_short(error)}). {_FOREIGN}") from None
        if type(version) is not int or version != FORMAT_VERSION:
            raise CorruptStoreError(f"{where}: {version_problem(version)}")
        if not raw.startswith(_BEGINNING) or stated != _self_hash(raw):
            raise CorruptStoreError(
                f"{where}: its own checksum does not hold; the file was changed by hand or cut. "
                "Restore it from a copy or build the store again."
            )
        try:
            manifest = _manifest_from(body)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CorruptStoreError(f"{where}: not a manifest of version {FORMAT_VERSION} ({_short(error)})") from None
        if manifest.digest != manifest.compute_digest():
            raise CorruptStoreError(f"{where}: the digest does not belong to the contents named")
        return manifest


_FOREIGN = "Is this the folder or URL of a store, and does a server send the file as it lies (not packed by gzip)?"


def _short(error: Exception) -> str:
    """Name an error without the bytes that it may carry along: a text that is not UTF-8 is in it whole."""
    return f"{type(error).__name__}: {error}"[:200]


def _next_number(paths: Iterable[str]) -> int:
    stems = (path.rpartition("/")[2].partition(".")[0] for path in paths)
    return max((int(stem) for stem in stems if stem.isdecimal()), default=-1) + 1


def _self_hash(raw: bytes) -> str:
    """Return the hash of a manifest's bytes with zeros where the hash stands."""
    state = xxhash.xxh3_128(_BEGINNING)
    state.update(b"0" * 32)
    state.update(memoryview(raw)[_HASH_ENDS:])
    return state.hexdigest()


def _as_lines(body: Mapping[str, Any], depth: int = 1) -> str:
    """Return an object as JSON, a key a line, lists and numbers compact."""
    lines = [
        f"{' ' * depth}{json.dumps(key)}: "
        + (_as_lines(value, depth + 1) if isinstance(value, dict) else json.dumps(value, separators=(",", ":")))
        for key, value in body.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n" + " " * (depth - 1) + "}"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    body = dict(pairs)
    if len(body) != len(pairs):
        raise ValueError(f"a key stands twice in an object with the keys {', '.join(body)}")
    return body


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _manifest_from(body: dict[str, Any]) -> Manifest:
    """Return the manifest in a JSON object; what the format does not allow is a ValueError, TypeError or KeyError."""
    head = body.pop("head", None)
    if body.keys() != _KEYS:
        raise KeyError(f"unknown or missing keys: {', '.join(sorted(body.keys() ^ _KEYS))}")
    values: dict[str, Any] = {key: checked_text(body[key], where=key) for key in _TEXTS}
    values |= {key: checked_file(body[key], key) for key in _FILES}
    return Manifest(
        **values,
        head=None if head is None else checked_file(head, "head"),
        obs_schema=_obs_schema(body["obs_schema"]),
        shards=Shards.from_columns(body["shards"], where="shards"),
        sources=Sources.from_columns(body["sources"], where="sources"),
    )


def _obs_schema(listed: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(listed, list) or not all(isinstance(column, list) and len(column) == 2 for column in listed):
        raise TypeError("obs_schema must be a list of pairs of name and type")
    schema = tuple((checked_text(name, where="column"), checked_text(kind, where="type")) for name, kind in listed)
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
