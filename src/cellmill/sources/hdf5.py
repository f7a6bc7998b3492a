"""HDF5 files opened and read with errors that help (floor 3, sources).

Knows HDF5 and its text encodings. Must not know which layout of cells lies in a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa

from cellmill.errors import CellmillError, FormatError
from cellmill.sources.rows import BrokenRows

__all__ = ["attribute_text", "is_text", "open_hdf5", "read_text", "reading", "top_level"]

CHUNK_CACHE_BYTES = 16 << 20


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
    file = _opened(path)
    try:
        with reading(path, "its structure"):
            _refuse_other_files(file, path)
    except BaseException:
        file.close()
        raise
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


@contextmanager
def reading(path: Path, place: str) -> Iterator[None]:
    """Turn what h5py raises on damaged bytes into a FormatError that names file and place."""
    try:
        yield
    except (CellmillError, BrokenRows):
        raise
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise FormatError(
            f"{path}, {place}: cannot be read ({type(error).__name__}: {error}). "
            "The file is damaged or incomplete; get it again, or write it again with the program that made it."
        ) from error


def attribute_text(node: Any, name: str) -> str:
    """Return a text attribute of a group or dataset, "" when absent or no text."""
    value = node.attrs.get(name)
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else ""


def is_text(dtype: np.dtype[Any]) -> bool:
    """Whether a dataset of this dtype holds text: HDF5 strings of fixed or variable length."""
    return dtype.kind in "SU" or h5py.check_string_dtype(dtype) is not None


def read_text(values: Any) -> pa.Array:
    """Return text read from HDF5 (bytes or str, None for missing) as an Arrow string array.

    Notes
    -----
    UTF-8; an array that is not valid UTF-8 is read as Latin-1, which old R exports wrote.
    """
    listed = np.asarray(values).reshape(-1).tolist()
    if all(isinstance(item, str) for item in listed):
        return _single(pa.array(listed, pa.string()))
    raw = [item.encode() if isinstance(item, str) else item for item in listed]
    try:
        return _single(pa.array(raw, pa.binary()).cast(pa.string()))
    except pa.ArrowInvalid:
        return _single(pa.array([None if item is None else item.decode("latin-1") for item in raw], pa.string()))


def _single(array: Any) -> Any:
    """Return chunked text as one array, with 64-bit offsets where it is beyond 2 GiB."""
    if isinstance(array, pa.ChunkedArray):
        return array.cast(pa.large_string()).combine_chunks()
    return array


def top_level(file: h5py.File) -> str:
    """Return the names at the root of a file, for error messages."""
    names = sorted(file)
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") if names else "nothing"
