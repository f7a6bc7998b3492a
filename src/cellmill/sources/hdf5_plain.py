"""Vectors of HDF5 that lie in their file as they lie in memory, read without HDF5 in between (floor 3, sources).

HDF5 copies each chunk into its cache and from there to the caller; reading the bytes themselves takes a quarter of the
time. Knows where HDF5 keeps a dataset's bytes. Must not know what they mean; whatever is not plain is left to h5py.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

__all__ = ["PlainVector", "plain_vector"]

LEAST_CHUNK_BYTES = 1 << 12  # many smaller chunks would cost more to list than to read
KEPT_BUFFERS = 3  # a block in use, one that is ready, one that is being read
SHARED_BY_NOBODY = 2  # references to a buffer that only `_Buffers` holds: the list, and the call that counts


class _Buffers:
    """Memory that is used again once no array looks at it: fresh pages cost as much as the reading."""

    def __init__(self) -> None:
        self._kept: list[NDArray[np.uint8]] = []

    def take(self, n_bytes: int) -> NDArray[np.uint8]:
        for i in range(len(self._kept)):
            if len(self._kept[i]) >= n_bytes and sys.getrefcount(self._kept[i]) <= SHARED_BY_NOBODY:
                return self._kept[i][:n_bytes]
        self._kept = [*self._kept[-(KEPT_BUFFERS - 1) :], np.empty(n_bytes + n_bytes // 8, np.uint8)]
        return self._kept[-1][:n_bytes]


class PlainVector:
    """The stretches of a file that hold a vector, in order.

    Parameters
    ----------
    dataset : h5py.Dataset
        Keeps the file open.
    first : int64[n]
        Number of the first value of each stretch.
    at : int64[n]
        Its place in the file, in bytes.
    """

    def __init__(self, dataset: h5py.Dataset, first: NDArray[np.int64], at: NDArray[np.int64]) -> None:
        self._dataset, self._first, self._at = dataset, first, at
        self._descriptor = dataset.file.id.get_vfd_handle()
        self._stops = np.append(first[1:], dataset.shape[0])
        self._buffers = _Buffers()

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Return the values from `start` to `stop`.

        Raises
        ------
        OSError
            The file ends before them, or cannot be read.
        ValueError
            The file was closed.
        """
        if not self._dataset.id.valid:
            raise ValueError("the file was closed")
        dtype = self._dataset.dtype
        size = dtype.itemsize
        data = self._buffers.take((stop - start) * size)
        stretch = int(np.searchsorted(self._first, start, side="right")) - 1
        done = start
        while done < stop:
            end = min(stop, int(self._stops[stretch]))
            offset = int(self._at[stretch]) + (done - int(self._first[stretch])) * size
            _read_whole(self._descriptor, data[(done - start) * size : (end - start) * size], offset)
            done, stretch = end, stretch + 1
        return data.view(dtype)


def plain_vector(dataset: h5py.Dataset) -> PlainVector | None:
    """Return where the values of a vector lie in its file; None where HDF5 has to make them from what lies there.

    Notes
    -----
    Plain are numbers of this machine's byte order, contiguous or in chunks without filters, all of them written, in a
    file that is read through the ordinary driver.
    """
    dtype = dataset.dtype
    if dtype.kind not in "iuf" or not dtype.isnative or h5py.h5t.py_create(dtype) != dataset.id.get_type():
        return None
    file = dataset.file
    if dataset.shape[0] == 0 or file.driver != "sec2" or file.userblock_size:
        return None
    properties = dataset.id.get_create_plist()
    if properties.get_external_count() or properties.get_nfilters():
        return None
    layout = properties.get_layout()
    if layout == h5py.h5d.CONTIGUOUS:
        at = dataset.id.get_offset()
        return None if at is None else PlainVector(dataset, np.zeros(1, np.int64), np.array([at], np.int64))
    if layout != h5py.h5d.CHUNKED or dataset.chunks[0] * dtype.itemsize < LEAST_CHUNK_BYTES:
        return None
    return _chunked(dataset)


def _chunked(dataset: h5py.Dataset) -> PlainVector | None:
    size, length = dataset.dtype.itemsize, dataset.chunks[0]
    found: list[tuple[int, int]] = []
    sound = True

    def look(chunk: Any) -> None:
        nonlocal sound
        sound = sound and chunk.filter_mask == 0 and chunk.size == length * size and chunk.byte_offset is not None
        found.append((int(chunk.chunk_offset[0]), int(chunk.byte_offset or 0)))

    dataset.id.chunk_iter(look)
    chunks = np.array(sorted(found), np.int64).reshape(-1, 2)
    expected = np.arange(0, dataset.shape[0], length)
    if not sound or not np.array_equal(chunks[:, 0], expected):
        return None  # what was never written is the fill value, which HDF5 knows
    # neighbours in the vector that are neighbours in the file are read at once
    borders = np.flatnonzero(np.diff(chunks[:, 1], prepend=-1) != length * size)
    return PlainVector(dataset, chunks[borders, 0], chunks[borders, 1])


def _read_whole(descriptor: int, data: NDArray[np.uint8], offset: int) -> None:
    done = 0
    while done < len(data):
        got = os.preadv(descriptor, [data.data[done:]], offset + done)
        if got == 0:
            raise OSError(f"the file ends at byte {offset + done}, {len(data) - done} bytes too early")
        done += got
