"""A source whose files lie in an archive (floor 3, sources): unpacked when it is read, removed when it is let go."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from cellmill.errors import FormatError, NotFoundError
from cellmill.sources.archive import unpack
from cellmill.sources.base import GeneColumns, Limits, MatrixInfo, MatrixReader, Source
from cellmill.sources.rows import Rows
from cellmill.sources.three_ca import study_name

__all__ = ["ArchivedSource"]


class ArchivedSource(Source):
    """An input in an archive, read as what it is once unpacked; messages name its place in the archive.

    Parameters
    ----------
    path : Path
        It goes into the archive.
    open_unpacked : callable
        Returns the source of an unpacked file.
    limits : Limits
        `spill_dir` is where files are unpacked.
    """

    def __init__(self, path: Path, *, open_unpacked: Callable[[Path], Source], limits: Limits) -> None:
        super().__init__(path, limits=limits)
        self._open_unpacked = open_unpacked
        self._folder: Path | None = None
        self._inner: Source | None = None
        self._kept_remarks: list[str] = []
        self._kept_cautions: list[str] = []
        source = self._opened()
        self.kind, self.n_cells, self.genes, self.dropped = source.kind, source.n_cells, source.genes, source.dropped
        self._infos = source.matrices()
        self._genes = {info.name: source.genes_of(info.name) for info in self._infos}

    def _opened(self) -> Source:
        self._check_open()
        if self._inner is None:
            self._folder = unpack(self.path, into=self.limits.spill_dir)
            try:
                with self._named():
                    self._inner = self._open_unpacked(self._folder / self.path.name)
            except BaseException:
                self._remove()
                raise
        return self._inner

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Let messages name the place in the archive, where a user can look, not that of the unpacked file."""
        try:
            yield
        except (FormatError, NotFoundError) as error:
            said = str(error).replace(str(self._folder), str(self.path.parent))
            raise type(error)(said) from error

    @property
    def name(self) -> str:
        """Name of the data set, by the names in the archive."""
        return study_name(self.path) if self.kind == "3ca" else super().name

    @property
    def remarks(self) -> list[str]:
        """The notes of the source within, kept while it is not unpacked."""
        if self._inner is not None:
            self._kept_remarks = self._inner.remarks
        return [*self._notes, *self._kept_remarks]

    @property
    def cautions(self) -> list[str]:
        """The cautions of the source within, kept while it is not unpacked."""
        if self._inner is not None:
            self._kept_cautions = self._inner.cautions
        return [*self._cautions, *self._kept_cautions]

    @property
    def _readers(self) -> Mapping[str, MatrixReader]:
        return self._opened()._readers

    def matrices(self) -> list[MatrixInfo]:
        """Return what can be read from this source, the default matrix first."""
        return list(self._infos)

    def genes_of(self, matrix: str) -> GeneColumns:
        """Return the gene axis of a matrix."""
        return self._genes[matrix] if matrix in self._genes else super().genes_of(matrix)

    def _read_obs(self) -> pa.Table:
        source = self._opened()
        with self._named():
            return source.obs()

    def _sound_rows(self, reader: MatrixReader, start: int, stop: int, block_cells: int) -> Iterator[Rows]:
        with self._named():
            yield from super()._sound_rows(reader, start, stop, block_cells)

    def release(self) -> None:
        """Close and remove the unpacked files; they are unpacked again for the next read."""
        if self._inner is not None:
            self.obs()
            self._remove()

    def _remove(self) -> None:
        if self._inner is not None:
            self._kept_remarks, self._kept_cautions = self._inner.remarks, self._inner.cautions
            self._inner.close()
            self._inner = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def close(self) -> None:
        """Remove the unpacked files; may be called twice."""
        if not self._closed:
            self._remove()
            self._closed = True
