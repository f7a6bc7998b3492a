"""The manifest of a store (floor 3, pure): what belongs to it, named by hash.

A store is what its manifest says, and nothing else that lies in the folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from cellmill.errors import CorruptStoreError
from cellmill.storage import hash_bytes
from cellmill.store.format import FORMAT_VERSION

__all__ = ["MANIFEST_NAME", "VOCABULARY_NAME", "FileEntry", "Manifest", "ShardEntry", "SourceEntry"]

MANIFEST_NAME = "manifest.json"
VOCABULARY_NAME = "vocabulary.json.gz"


@dataclass(frozen=True)
class FileEntry:
    """A file of the store: path relative to the store, length in bytes, xxh3-128."""

    path: str
    bytes: int
    xxh3: str


@dataclass(frozen=True)
class ShardEntry:
    """One shard: its frames, the obs beside them, and their sizes."""

    cells: FileEntry
    obs: FileEntry
    n_cells: int
    nnz: int
    source: str


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

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return sum(shard.n_cells for shard in self.shards)

    @property
    def nnz(self) -> int:
        """Number of stored counts, all of them at least 1."""
        return sum(shard.nnz for shard in self.shards)

    def compute_digest(self) -> str:
        """Return the digest that belongs to the contents named here."""
        content = {
            "format_version": self.format_version,
            "vocabulary_hash": self.vocabulary_hash,
            "genes": self.genes.xxh3,
            "obs_schema": self.obs_schema,
            "shards": [(s.cells.xxh3, s.obs.xxh3, s.n_cells, s.nnz) for s in self.shards],
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
            When it is not JSON, lacks a key, or its own hash or digest does not hold.
        """
        try:
            body = json.loads(raw)
            stated = body.pop("manifest_xxh3")
            version = body["format_version"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptStoreError(f"{where}: not a cellmill manifest ({error!r})") from None
        if version != FORMAT_VERSION:
            raise CorruptStoreError(
                f"{where}: format version {version!r}; this cellmill reads version {FORMAT_VERSION}. "
                "Read it with a newer cellmill, or build the store again."
            )
        if stated != _self_hash(body):
            raise CorruptStoreError(
                f"{where}: its own checksum does not hold; the file was changed by hand or cut. "
                "Restore it from a copy or build the store again."
            )
        try:
            manifest = _manifest_from(body)
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptStoreError(f"{where}: not a manifest of version {FORMAT_VERSION} ({error!r})") from None
        if manifest.digest != manifest.compute_digest():
            raise CorruptStoreError(f"{where}: the digest does not belong to the contents named")
        return manifest


def _self_hash(body: Mapping[str, Any]) -> str:
    return hash_bytes(json.dumps(body, sort_keys=True, separators=(",", ":")).encode())


def _manifest_from(body: dict[str, Any]) -> Manifest:
    shards = tuple(
        ShardEntry(**{**s, "cells": FileEntry(**s["cells"]), "obs": FileEntry(**s["obs"])}) for s in body.pop("shards")
    )
    sources = tuple(SourceEntry(**{**s, "report": FileEntry(**s["report"])}) for s in body.pop("sources"))
    genes = FileEntry(**body.pop("genes"))
    vocabulary = FileEntry(**body.pop("vocabulary"))
    obs_schema = tuple((str(name), str(kind)) for name, kind in body.pop("obs_schema"))
    return Manifest(genes=genes, vocabulary=vocabulary, obs_schema=obs_schema, shards=shards, sources=sources, **body)
