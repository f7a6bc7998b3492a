"""Records too many for the memory, divided among buckets (floor 3): on disk as soon as they are more than is allowed.

Knows nothing of cells. A bucket gives its records back in the order in which they came.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from cellmill.storage import require_free_bytes

__all__ = ["Buckets"]

_MOST_BUCKETS = 4096


class Buckets:
    """Structured records by bucket. A context manager: at its end nothing is left on disk.

    Parameters
    ----------
    dtype
        Of the records.
    n_records
        How many will come, at most; decides how many buckets there are.
    memory_bytes
        What may be taken: a quarter of it is for records that wait, and a bucket is as large as an eighth, on average.
    folder
        Where files go; the system's temporary folder when None.
    """

    def __init__(self, dtype: np.dtype[Any], *, n_records: int, memory_bytes: int, folder: Path | None = None) -> None:
        self.dtype = dtype
        self._waiting_bytes = 0
        self._most_waiting = max(1, memory_bytes // 4)
        self._parent = folder
        self._folder: Path | None = None
        self.needed_bytes = n_records * dtype.itemsize
        in_one = self.needed_bytes <= self._most_waiting
        self.n_buckets = 1 if in_one else min(_MOST_BUCKETS, -(-self.needed_bytes * 8 // max(1, memory_bytes)))
        self._parts: list[list[npt.NDArray[Any]]] = [[] for _ in range(self.n_buckets)]

    @property
    def spilled(self) -> bool:
        """Whether anything was written to disk."""
        return self._folder is not None

    def add(self, bucket: npt.NDArray[np.int64], records: npt.NDArray[Any]) -> None:
        """Add records, each to the bucket named beside it: int64, shape (n_records,), below `n_buckets`."""
        if not len(records):
            return
        order = np.argsort(bucket.astype(np.uint16), kind="stable")  # of 16 bits: a radix sort
        sorted_records = records[order]
        used, starts = np.unique(bucket[order], return_index=True)
        for number, part in zip(used.tolist(), np.split(sorted_records, starts[1:]), strict=True):
            self._parts[number].append(part)
        self._waiting_bytes += records.nbytes
        if self.n_buckets > 1 and self._waiting_bytes > self._most_waiting:
            self._write()

    def take(self, bucket: int) -> npt.NDArray[Any]:
        """Return the records of a bucket, in the order in which they came; they are then forgotten."""
        parts = self._parts[bucket]
        self._parts[bucket] = []
        path = self._path(bucket)
        if path is not None and path.exists():
            parts = [np.fromfile(path, dtype=self.dtype), *parts]
            path.unlink()
        return np.concatenate(parts) if parts else np.empty(0, dtype=self.dtype)

    def _path(self, bucket: int) -> Path | None:
        return None if self._folder is None else self._folder / f"{bucket:05d}"

    def _write(self) -> None:
        if self._folder is None:
            parent = self._parent or Path(tempfile.gettempdir())
            require_free_bytes(parent, self.needed_bytes, what="looking for equal cells")
            self._folder = Path(tempfile.mkdtemp(prefix="cellmill-buckets-", dir=parent))
        for bucket, parts in enumerate(self._parts):
            if parts:
                with (self._folder / f"{bucket:05d}").open("ab") as file:
                    for part in parts:
                        part.tofile(file)
                self._parts[bucket] = []
        self._waiting_bytes = 0

    def __enter__(self) -> Buckets:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._parts = [[] for _ in range(self.n_buckets)]
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
