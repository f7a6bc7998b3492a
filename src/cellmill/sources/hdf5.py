"""HDF5 files opened and read with errors that help (floor 3, sources).

Knows HDF5 and gives its groups and datasets the face of `arrays.py`. Must not know which layout of cells lies in a
file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
from numpy.typing import NDArray

from cellmill.errors import FormatError
from cellmill.sources.arrays import Array, ChunkVector, Group, Node, Vector, reading
from cellmill.sources.hdf5_filters import filters_of, require_filters
from cellmill.sources.hdf5_plain import plain_vector
from cellmill.sources.known_files import FileStamp, KnownFiles, file_stamp

__all__ = ["Hdf5Array", "Hdf5Group", "as_node", "open_hdf5", "top_level"]

CHUNK_CACHE_BYTES = 16 << 20

# Files that lead to no other, as they were when that was looked at.
_SELF_CONTAINED: KnownFiles[FileStamp, bool] = KnownFiles(65_536)


def open_hdf5(path: Path) -> h5py.File:
    """Open an HDF5 file for reading; without a lock where the file system refuses locks.

    Raises
    ------
    FormatError
        The file is truncated, no HDF5, or leads to other files.

    Notes
    -----
    Every object of the file is looked at once, so that none takes its values from another file: a foreign input could
    otherwise hand out any file that its reader may read.
    """
    stamp = file_stamp(path)
    file = _opened(path)
    if stamp is not None and _SELF_CONTAINED.get(stamp):
        return file
    try:
        with reading(path, "its structure"):
            _refuse_other_files(file, path)
    except BaseException:
        file.close()
        raise
    if stamp is not None:
        _SELF_CONTAINED.put(stamp, True)
    return file


def _refuse_other_files(file: h5py.File, path: Path) -> None:
    groups, visited = [file["/"]], set()
    while groups:
        group = groups.pop()
        for name in group:
            place = f"{group.name.rstrip('/')}/{name}"
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise _leads_elsewhere(path, place, f"a link to {link.filename!r}")
            if isinstance(link, h5py.SoftLink):
                continue  # what it leads to is met under its own name, as a link to another file on the way would be
            try:
                node = group[name]
            except (OSError, KeyError, RuntimeError, ValueError, TypeError):
                continue  # damaged: whoever reads it says so
            if isinstance(node, h5py.Group):
                # Hard links may lead back up.
                address = h5py.h5o.get_info(node.id).addr
                if address not in visited:
                    visited.add(address)
                    groups.append(node)
            elif isinstance(node, h5py.Dataset):
                for other in _other_files(node):
                    raise _leads_elsewhere(path, place, f"values stored in {other!r}")


def _other_files(dataset: h5py.Dataset) -> Iterator[str]:
    """Yield the other files that hold values of a dataset: its external storage, a virtual dataset's sources."""
    properties = dataset.id.get_create_plist()
    for i in range(properties.get_external_count()):
        yield properties.get_external(i)[0].decode("utf-8", "replace")
    if properties.get_layout() == h5py.h5d.VIRTUAL:
        for i in range(properties.get_virtual_count()):
            name = properties.get_virtual_filename(i)
            if name != ".":
                yield name


def _leads_elsewhere(path: Path, place: str, what: str) -> FormatError:
    return FormatError(
        f"{path}, {place}: it is {what}; expected a file that holds its values itself. If the other file is meant, "
        "copy its values into this one (h5repack, or read and write it again)."
    )


def _opened(path: Path) -> h5py.File:
    try:
        return _open(path)
    except (OSError, RuntimeError, ValueError) as error:
        if h5py.is_hdf5(path):
            raise FormatError(
                f"{path} is an HDF5 file that cannot be opened, most likely truncated by an unfinished download "
                f"or copy ({path.stat().st_size} bytes are here). HDF5 says: {error}. Get the file again."
            ) from error
        raise FormatError(f"{path} is no HDF5 file (expected an .h5ad or a 10x .h5). HDF5 says: {error}.") from error


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r", rdcc_nbytes=CHUNK_CACHE_BYTES)
    except OSError as error:
        # Network and read-only file systems refuse locks; reading needs none. Not the first choice, because HDF5
        # refuses to open a file with and without locking in one process.
        if "lock" not in str(error):
            raise
        return h5py.File(path, "r", rdcc_nbytes=CHUNK_CACHE_BYTES, locking=False)


class Hdf5Group(Group):
    """A group of an HDF5 file."""

    def __init__(self, group: h5py.Group) -> None:
        self._group = group

    def attribute(self, name: str) -> Any:
        """Return an attribute, None when absent."""
        return self._group.attrs.get(name)

    def names(self) -> list[str]:
        """Return the names in this group."""
        return list(self._group)

    def get(self, name: str) -> Node | None:
        """Return what lies under a name, None where nothing does."""
        return as_node(self._group.get(name))

    def __contains__(self, name: str) -> bool:
        return name in self._group


class Hdf5Array(Array):
    """A dataset of an HDF5 file."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset = dataset
        self.shape, self.dtype = dataset.shape, dataset.dtype
        # without filters, HDF5 reads the part of a chunk that is asked for
        self.chunks = dataset.chunks if filters_of(dataset) else None
        self.is_text = dataset.dtype.kind in "SU" or h5py.check_string_dtype(dataset.dtype) is not None

    def attribute(self, name: str) -> Any:
        """Return an attribute, None when absent."""
        return self._dataset.attrs.get(name)

    def read(self, *selection: slice) -> NDArray[Any]:
        """Return a part of the dataset, or all of it."""
        values: NDArray[Any] = self._read(self._dataset, selection or ())
        return values

    def field(self, name: str) -> NDArray[Any]:
        """Return one field of a compound dataset."""
        values: NDArray[Any] = self._read(self._dataset.fields(name), ())
        return values

    def _read(self, view: Any, selection: tuple[slice, ...]) -> Any:
        try:
            return view[selection]
        except OSError:
            if not require_filters(self._dataset):
                raise
            return view[selection]

    def vector(self) -> Vector:
        """Return where HDF5 adds nothing a reader past it, one that holds the last chunk where chunks are large."""
        if self.chunk_bytes > CHUNK_CACHE_BYTES:
            return ChunkVector(self)
        return plain_vector(self._dataset) or _Stretches(self)

    def referred(self, attribute: str) -> Node | None:
        """Return the object that a reference in an attribute leads to."""
        reference = self._dataset.attrs.get(attribute)
        return as_node(self._dataset.file[reference]) if isinstance(reference, h5py.Reference) else None


class _Stretches:
    """A vector read through HDF5, which keeps its chunks in its own cache."""

    def __init__(self, array: Array) -> None:
        self._array = array

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return self._array.read(slice(start, stop))


def as_node(node: Any) -> Node | None:
    """Return an object of h5py as a group or an array; None for anything else."""
    if isinstance(node, h5py.Group):
        return Hdf5Group(node)
    return Hdf5Array(node) if isinstance(node, h5py.Dataset) else None


def top_level(file: h5py.File) -> str:
    """Return the names at the root of a file, for error messages."""
    names = sorted(file)
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") if names else "nothing"
