"""Counts that the kernel has gathered, or will, as matrices that recipes take (floor 5, tokens).

What the kernel makes is uint32 above 0 with columns ascending; to find that out again takes a fifth of the time of
making tokens. A matrix made of one of these, or one whose arrays were replaced, is looked at as any other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from cellmill.kernel import EncodedRows

__all__ = ["encoded_of", "is_of_kernel", "kernel_counts", "later_counts"]

I64 = npt.NDArray[np.int64]


def kernel_counts(
    indptr: I64, columns: npt.NDArray[np.int32], counts: npt.NDArray[np.uint32], n_columns: int
) -> sparse.csr_array:
    """Return what the kernel has gathered as a csr_array that `as_cells` knows."""
    made = sparse.csr_array((len(indptr) - 1, n_columns), dtype=np.uint32)  # of the arrays it would make copies
    made.indptr, made.indices, made.data = indptr, columns, counts
    made.has_sorted_indices = made.has_canonical_format = True
    made.of_kernel = (made.indptr, made.indices, made.data)
    return made


def later_counts(encoded: EncodedRows) -> sparse.csr_array:
    """Return cells that are not decoded as a csr_array that decodes them when its `indices` or `data` are asked for."""
    made = _Later((len(encoded.indptr) - 1, encoded.n_genes), dtype=np.uint32)
    made.indptr = encoded.indptr
    made.has_sorted_indices = made.has_canonical_format = True
    made.encoded = encoded
    return made


def is_of_kernel(counts: sparse.csr_array) -> bool:
    """Whether a matrix holds the arrays that the kernel gathered."""
    now = counts.indptr, counts.indices, counts.data  # first: a matrix that decodes itself is marked then
    marked = getattr(counts, "of_kernel", None)
    return marked is not None and all(one is other for one, other in zip(marked, now, strict=True))


def encoded_of(counts: sparse.csr_array) -> EncodedRows | None:
    """Return what a matrix will be decoded from; None of one that is, or whose rows were replaced."""
    encoded = getattr(counts, "encoded", None)
    if encoded is None or counts.indptr is not encoded.indptr:
        return None
    return encoded if counts.shape == (len(encoded.indptr) - 1, encoded.n_genes) else None


class _Later(sparse.csr_array):  # type: ignore[misc]  # scipy has no types
    """A csr_array whose entries are decoded when they are asked for; copies and pickles of it are plain."""

    encoded: EncodedRows | None = None

    def _decode(self) -> None:
        encoded, self.encoded = self.encoded, None
        if encoded is None:
            return
        try:
            counts = encoded.gather()
        except BaseException:
            self.encoded = encoded  # whoever asks again is told again
            raise
        self._indices, self._data = counts.indices, counts.values
        if self.indptr is encoded.indptr:
            self.of_kernel = (self.indptr, self._indices, self._data)

    @property
    def indices(self) -> npt.NDArray[Any]:
        self._decode()
        return self._indices

    @indices.setter
    def indices(self, value: npt.NDArray[Any]) -> None:
        self._decode()
        self._indices = value

    @property
    def data(self) -> npt.NDArray[Any]:
        self._decode()
        return self._data

    @data.setter
    def data(self, value: npt.NDArray[Any]) -> None:
        self._decode()
        self._data = value

    def __reduce__(self) -> tuple[Any, ...]:
        return sparse.csr_array, ((self.data, self.indices, self.indptr), self.shape)
