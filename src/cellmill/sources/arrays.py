"""Groups and arrays of a container of arrays, whichever it is (floor 3, sources).

Knows what HDF5 and zarr have in common: groups that hold arrays and groups by name, attributes, arrays that are cut
into chunks. Must not know either of them (`hdf5.py`, `zarr_arrays.py`), nor which layout of cells lies in one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cellmill.errors import CellmillError, FormatError
from cellmill.sources.base import Limits
from cellmill.sources.rows import BrokenRows
from cellmill.units import size_text

__all__ = ["Array", "ChunkVector", "Group", "Node", "Vector", "read_text", "reading", "require_chunks_within"]


class Node(ABC):
    """A group or an array; both carry attributes."""

    @abstractmethod
    def attribute(self, name: str) -> Any:
        """Return an attribute as the container gives it, None when absent."""

    def text(self, name: str) -> str:
        """Return a text attribute, "" when absent or no text."""
        value = self.attribute(name)
        if isinstance(value, np.ndarray) and value.size == 1:
            value = value.reshape(-1)[0]
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        return value if isinstance(value, str) else ""


class Vector(Protocol):
    """Reads stretches of a one-dimensional array."""

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return the values from `start` to `stop`."""
        ...


class Array(Node):
    """One array.

    Attributes
    ----------
    shape : tuple of int, or None
        None for an array that holds nothing at all (HDF5's null).
    dtype : numpy.dtype
    chunks : tuple of int, or None
        Shape of the pieces that have to be unpacked whole; None where any part can be read alone.
    is_text : bool
        Strings of fixed or variable length.
    """

    shape: tuple[int, ...] | None
    dtype: np.dtype[Any]
    chunks: tuple[int, ...] | None
    is_text: bool

    @abstractmethod
    def read(self, *selection: slice) -> NDArray[Any]:
        """Return a part of the array, or all of it; text as str or bytes objects or fixed-length strings."""

    @abstractmethod
    def field(self, name: str) -> NDArray[Any]:
        """Return one field of an array of records, whole."""

    @abstractmethod
    def vector(self) -> Vector:
        """Return the fastest way to read stretches of this array, which has one dimension."""

    @abstractmethod
    def referred(self, attribute: str) -> Node | None:
        """Return what an attribute refers to: by an object reference in HDF5, by a path in zarr."""

    def chunks_not_stored(self) -> int:
        """Return how many chunks are not there and read as the fill value."""
        return 0

    @property
    def ndim(self) -> int:
        """Number of dimensions; 0 for an array that holds nothing."""
        return len(self.shape or ())

    @property
    def chunk_bytes(self) -> int:
        """Bytes that a chunk takes unpacked; 0 where any part can be read alone."""
        return prod(self.chunks) * self.dtype.itemsize if self.chunks else 0


class Group(Node):
    """A group of arrays and groups by name."""

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names in this group, in order."""

    @abstractmethod
    def get(self, name: str) -> Node | None:
        """Return what lies under a name or a path of names, None where nothing does."""

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def group(self, name: str) -> Group | None:
        """Return the group of that name, None where there is none."""
        node = self.get(name)
        return node if isinstance(node, Group) else None

    def array(self, name: str) -> Array | None:
        """Return the array of that name, None where there is none."""
        node = self.get(name)
        return node if isinstance(node, Array) else None

    def listing(self) -> str:
        """Return the names in this group, for error messages."""
        names = sorted(self.names())
        return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") if names else "nothing"


class ChunkVector:
    """Stretches of a vector in large chunks: each chunk is unpacked once when they are read in order.

    Parameters
    ----------
    array : Array
        With chunks.

    Notes
    -----
    Holds the last chunk that was touched, for the next stretch to begin with.
    """

    def __init__(self, array: Array) -> None:
        assert array.chunks is not None
        assert array.shape is not None
        self._array, self._length, self._size = array, max(1, array.chunks[0]), array.shape[0]
        self._held: tuple[int, NDArray[Any]] = (-1, np.empty(0, array.dtype))

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return the values from `start` to `stop`."""
        if start >= stop:
            return np.empty(0, self._array.dtype)
        first, last = start // self._length, (stop - 1) // self._length
        held, values = self._held
        parts = []
        if held == first:
            parts.append(values[start - held * self._length : stop - held * self._length])
            first += 1
        if first <= last:
            begin = first * self._length
            read = self._array.read(slice(begin, min(self._size, (last + 1) * self._length)))
            parts.append(read[max(start, begin) - begin : stop - begin])
            tail = read[(last - first) * self._length :]
            self._held = (last, tail if first == last else tail.copy())
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def require_chunks_within(array: Array, limits: Limits, *, path: Path, place: str) -> None:
    """Refuse an array of which a single chunk is beyond the bound of memory.

    Raises
    ------
    FormatError
        With the chunk's shape and size, and the bound.
    """
    if array.chunk_bytes > limits.max_chunk_bytes:
        raise FormatError(
            f"{path}, {place}: it is stored in chunks of {array.chunks}, {size_text(array.chunk_bytes)} each, and a "
            f"chunk has to be unpacked whole; at most {size_text(limits.max_chunk_bytes)} are taken for one. Write the "
            "file again with smaller chunks (a few thousand cells, or a million entries, are good ones)."
        )


@contextmanager
def reading(path: Path, place: str) -> Iterator[None]:
    """Turn what a container's library raises on damaged bytes into a FormatError that names file and place."""
    try:
        yield
    except (CellmillError, BrokenRows):
        raise
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise FormatError(
            f"{path}, {place}: cannot be read ({type(error).__name__}: {error}). "
            "The file is damaged or incomplete; get it again, or write it again with the program that made it."
        ) from error


def read_text(values: Any) -> Any:
    """Return text as read from a container (bytes or str, None for missing) as an Arrow string array.

    Notes
    -----
    UTF-8; an array that is not valid UTF-8 is read as Latin-1, which old R exports wrote.
    """
    listed = np.asarray(values).reshape(-1).tolist()
    try:
        return _single(pa.array(listed, pa.string()))  # takes bytes and str alike
    except pa.ArrowInvalid:
        raw = [item.encode() if isinstance(item, str) else item for item in listed]
        return _single(pa.array([None if item is None else item.decode("latin-1") for item in raw], pa.string()))


def _single(array: Any) -> Any:
    """Return chunked text as one array, with 64-bit offsets where it is beyond 2 GiB."""
    if isinstance(array, pa.ChunkedArray):
        return array.cast(pa.large_string()).combine_chunks()
    return array
