"""A source that lets go of its file between reads, for plans over thousands of inputs (floor 3, sources)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pyarrow as pa

from cellmill.sources.base import GeneColumns, MatrixInfo, MatrixReader, Source

__all__ = ["ReopenedSource"]


class ReopenedSource(Source):
    """What is known of an open source without its file, which is closed by `release` and opened again when it is read.

    An open HDF5 file holds a descriptor and about a megabyte, and a gene axis some more: a plan over ten thousand
    inputs could hold neither.

    Parameters
    ----------
    source : Source
        Open; belongs to this one from now on.
    reopen : callable
        Opens the same input again.
    share : callable
        Returns a gene axis that is equal to the one it is given: inputs of one study share theirs.
    """

    def __init__(
        self, source: Source, *, reopen: Callable[[], Source], share: Callable[[GeneColumns], GeneColumns]
    ) -> None:
        super().__init__(source.path, limits=source.limits)
        self._inner: Source | None = source
        self._reopen = reopen
        self.kind, self.n_cells, self.dropped = source.kind, source.n_cells, dict(source.dropped)
        self._name = source.name
        self._infos = source.matrices()
        self._genes = {info.name: share(source.genes_of(info.name)) for info in self._infos}
        self.genes = share(source.genes)
        self._anywhere = {info.name: source.starts_anywhere(info.name) for info in self._infos}
        self._spilt = {info.name: source.spill_bytes(info.name) for info in self._infos}
        self._kept_remarks: list[str] = source.remarks
        self._kept_cautions: list[str] = source.cautions

    def _opened(self) -> Source:
        self._check_open()
        if self._inner is None:
            self._inner = self._reopen()
        return self._inner

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self._name

    @property
    def remarks(self) -> list[str]:
        """The notes of the source within, kept while it is closed."""
        if self._inner is not None:
            self._kept_remarks = self._inner.remarks
        return [*self._notes, *self._kept_remarks]

    @property
    def cautions(self) -> list[str]:
        """The cautions of the source within, kept while it is closed."""
        if self._inner is not None:
            self._kept_cautions = self._inner.cautions
        return [*self._cautions, *self._kept_cautions]

    @property
    def _readers(self) -> Mapping[str, MatrixReader]:
        return self._opened()._readers

    def matrices(self) -> list[MatrixInfo]:
        """Return what can be read from this source, the default matrix first."""
        return list(self._infos)

    def starts_anywhere(self, matrix: str) -> bool:
        """Whether reading a matrix from some cell on costs no more than those cells."""
        return self._anywhere[matrix] if matrix in self._anywhere else super().starts_anywhere(matrix)

    def genes_of(self, matrix: str) -> GeneColumns:
        """Return the gene axis of a matrix."""
        return self._genes[matrix] if matrix in self._genes else super().genes_of(matrix)

    def spill_bytes(self, matrix: str | None = None) -> int:
        """Return the bytes of disk that reading a matrix takes at most."""
        return self._spilt[matrix or self._infos[0].name]

    def _read_obs(self) -> pa.Table:
        return self._opened().obs()

    def origins(self) -> pa.Table | None:
        """Return the data set and uid of each cell, where the input settles them."""
        return self._opened().origins()

    def release(self) -> None:
        """Close the file; it is opened again for the next read."""
        if self._inner is not None:
            self._kept_remarks, self._kept_cautions = self._inner.remarks, self._inner.cautions
            self._inner.close()
            self._inner = None

    def close(self) -> None:
        """Close the file for good; may be called twice."""
        self.release()
        self._closed = True
