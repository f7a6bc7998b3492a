"""zarr stores of format 2 and 3, sharded or not, in a folder or a zip file (floor 3, sources).

Knows zarr and gives its groups and arrays the face of `arrays.py`; the only place that imports zarr. Must not know
which layout of cells lies in a store.
"""

from __future__ import annotations

import importlib
import re
import zipfile
from bisect import bisect_left
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from posixpath import dirname
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cellmill.errors import FormatError, MissingDependencyError
from cellmill.sources.arrays import Array, ChunkVector, Group, Node, Vector

__all__ = ["ZarrStore", "is_zarr", "top_names"]

T = TypeVar("T")
MARKS = (".zgroup", "zarr.json", ".zattrs")
METADATA = frozenset({".zgroup", "zarr.json", ".zattrs", ".zmetadata"})
ZIP_MAGIC = b"PK\x03\x04"


def is_zarr(path: Path) -> bool:
    """Whether a folder, or a zip file, holds a zarr store."""
    if path.is_dir():
        return any((path / name).is_file() for name in MARKS)
    return zip_root(path) is not None


def zip_root(path: Path) -> str | None:
    """Return the folder within a zip file where its zarr store begins ("" for the top); None where there is none."""
    try:
        with path.open("rb") as file:
            if file.read(len(ZIP_MAGIC)) != ZIP_MAGIC:
                return None
        with zipfile.ZipFile(path) as archive:
            roots = [dirname(name) for name in archive.namelist() if name.rpartition("/")[2] in MARKS]
    except (OSError, zipfile.BadZipFile, ValueError):
        return None
    return min(roots, key=lambda root: (root.count("/") + bool(root), root), default=None)


def top_names(path: Path) -> list[str]:
    """Return what lies at the top of a zarr store, by the names of its files, sorted."""
    if path.is_dir():
        return sorted(item.name for item in path.iterdir() if item.name not in METADATA)
    root = zip_root(path)
    with zipfile.ZipFile(path) as archive:
        inside = [name.removeprefix(f"{root}/") if root else name for name in archive.namelist()]
    return sorted({name.split("/")[0] for name in inside} - METADATA)


def _zarr(path: Path) -> Any:
    try:
        zarr = importlib.import_module("zarr")
    except ImportError:
        zarr = None
    if zarr is None or int(zarr.__version__.split(".")[0]) < 3:
        raise MissingDependencyError("zarr>=3", extra="zarr", needed_for=f"{path}: reading a zarr store")
    return zarr


def _asked(ask: Callable[[], T]) -> T:
    """Return an answer of zarr; whatever its codecs raise on damaged bytes leaves as OSError."""
    try:
        return ask()
    except (OSError, KeyError, MemoryError):
        raise
    except Exception as error:  # each codec and compressor has errors of its own
        raise OSError(f"{type(error).__name__}: {error}") from error


class ZarrGroup(Group):
    """A group of a zarr store."""

    def __init__(self, group: Any, store: ZarrStore) -> None:
        self._group, self._store = group, store

    def attribute(self, name: str) -> Any:
        """Return an attribute, None when absent."""
        return self._group.attrs.get(name)

    def names(self) -> list[str]:
        """Return the names in this group, sorted: a folder has no order of its own."""
        return sorted(_asked(lambda: list(self._group.keys())))

    def get(self, name: str) -> Node | None:
        """Return what lies under a name, None where nothing does."""
        node = _asked(lambda: self._group.get(name))
        if node is None:
            return None
        if hasattr(node, "dtype"):
            return ZarrArray(node, self, self._store)
        return self._store.group(node.path)


class ZarrArray(Array):
    """An array of a zarr store."""

    def __init__(self, array: Any, parent: ZarrGroup, store: ZarrStore) -> None:
        self._array, self._parent, self._store = array, parent, store
        self.shape = tuple(array.shape)
        self.dtype = np.dtype(array.dtype)
        self.chunks = tuple(array.chunks) if self.shape else None  # within a shard, its inner chunks
        self.is_text = self.dtype.kind in "SUTO"

    def attribute(self, name: str) -> Any:
        """Return an attribute, None when absent."""
        return self._array.attrs.get(name)

    def read(self, *selection: slice) -> NDArray[Any]:
        """Return a part of the array, or all of it."""
        values = np.asarray(_asked(lambda: self._array[selection or ...]))
        return values.astype(object) if values.dtype.kind == "T" else values

    def field(self, name: str) -> NDArray[Any]:
        """Return one field of an array of records."""
        return self.read()[name]

    def vector(self) -> Vector:
        """Return a reader that unpacks each chunk once."""
        return ChunkVector(self)

    def referred(self, attribute: str) -> Node | None:
        """Return the array whose path, from the group of this one, an attribute holds."""
        path = self.text(attribute)
        return self._parent.get(path) if path else None

    def chunks_not_stored(self) -> int:
        """Return how many chunks, or shards, are not there."""
        if not self.shape or 0 in self.shape:
            return 0
        cut = self._array.shards or self._array.chunks
        expected = int(np.prod([-(-size // length) for size, length in zip(self.shape, cut, strict=True)]))
        # zarr counts them too, but trips over arrays in zip files of which one's name begins with another's
        key = re.compile(rf"(c/)?\d+([./]\d+){{{self.ndim - 1}}}")
        return expected - sum(key.fullmatch(name) is not None for name in self._store.keys_of(self._array.path))


class ZarrStore:
    """A zarr store opened for reading; `root` is its topmost group.

    Raises
    ------
    MissingDependencyError
        zarr 3 is not installed.
    FormatError
        There is no readable group at its root.
    """

    def __init__(self, path: Path) -> None:
        zarr = self._zarr = _zarr(path)
        self._path = path
        try:
            if path.is_dir():
                self._store, root = zarr.storage.LocalStore(path, read_only=True), ""
            else:
                self._store, root = zarr.storage.ZipStore(path, mode="r"), zip_root(path) or ""
            self.root = self.group(root)
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise FormatError(
                f"{path} is a zarr store that cannot be opened ({type(error).__name__}: {error}); expected a group of "
                "format 2 (.zgroup) or 3 (zarr.json). It is damaged or incomplete; get it again."
            ) from error

    def group(self, path: str) -> ZarrGroup:
        """Return a group by its path, without metadata put together in one place: they may be older than the store."""
        found = _asked(lambda: self._zarr.open_group(self._store, path=path, mode="r", use_consolidated=False))
        return ZarrGroup(found, self)

    def keys_of(self, path: str) -> list[str]:
        """Return the keys below a path, relative to it."""
        if self._path.is_dir():
            folder = self._path / path
            return [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
        keys, prefix = self._zip_keys, f"{path}/"
        first = bisect_left(keys, prefix)
        last = bisect_left(keys, f"{path}0")  # "0" follows "/"
        return [key.removeprefix(prefix) for key in keys[first:last]]

    @cached_property
    def _zip_keys(self) -> list[str]:
        with zipfile.ZipFile(self._path) as archive:
            return sorted(set(archive.namelist()))

    def close(self) -> None:
        """Close the store."""
        self._store.close()
