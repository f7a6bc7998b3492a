"""An input looked at (floor 4): opened, its matrix chosen, a few blocks of it read and proven; nothing written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from cellmill.errors import ConfigError, nearest
from cellmill.events import emit
from cellmill.ingest.audit import find_violation
from cellmill.ingest.options import BuildOptions
from cellmill.ingest.refuse import refusal
from cellmill.ingest.rounding import round_block
from cellmill.sources import CountBlock, GeneColumns, ReopenedSource, Source, open_source

__all__ = ["Candidate", "Candidates"]

_WINDOW_CELLS = 1024
_WINDOWS = 3
_WINDOW_BYTES = 192 << 20  # of all inputs together
_OPEN_INPUTS = 64


class Candidate:
    """A source that could be opened, with windows of the matrix that is taken from it.

    Attributes
    ----------
    kept : tuple of CountBlock or None
        The windows while they are in memory.
    """

    def __init__(self, source: Source, matrix: str, windows: tuple[CountBlock, ...], *, allow_rounding: float) -> None:
        self.source, self.matrix = source, matrix
        self.kept: tuple[CountBlock, ...] | None = windows
        self._allow_rounding = allow_rounding

    @property
    def windows(self) -> tuple[CountBlock, ...]:
        """A few blocks of the matrix; read again where they are not kept."""
        if self.kept is not None:
            return self.kept
        windows = _windows(self.source, self.matrix, allow_rounding=self._allow_rounding)
        self.source.release()
        return windows

    @property
    def window_bytes(self) -> int:
        """Bytes of memory that the windows take."""
        return sum(one.indptr.nbytes + one.indices.nbytes + one.data.nbytes for one in self.kept or ())

    def forget(self) -> None:
        """Let go of the windows."""
        self.kept = None


class Candidates:
    """Opens inputs one after the other, so that what is held of thousands of them stays small.

    Windows are kept up to a bound for all inputs together, and files closed beyond some number of inputs; what is let
    go is read again where it is needed. Which are kept depends on the inputs before alone.
    """

    def __init__(self, options: BuildOptions, *, n_inputs: int) -> None:
        self._options = options
        self._settle = n_inputs > _OPEN_INPUTS
        self._window_bytes_left = _WINDOW_BYTES
        self._axes: dict[str, GeneColumns] = {}

    def open(self, path: Path) -> Candidate:
        """Open an input and read windows of the matrix that is taken from it.

        Raises
        ------
        NotRawCountsError
            When a value in the windows is no raw count.
        InputError
            When the input cannot be read, or has no such matrix.
        """
        emit(f"looking at {path.name}")
        reopen = partial(open_source, path, format=self._options.format)
        source = reopen()
        try:
            candidate = self._candidate(source, reopen)
        except BaseException:
            source.close()
            raise
        if self._window_bytes_left <= 0:
            candidate.forget()
        self._window_bytes_left -= candidate.window_bytes
        return candidate

    def _candidate(self, source: Source, reopen: Callable[[], Source]) -> Candidate:
        options = self._options
        matrix = _choose_matrix(source, options.counts, allow_rounding=options.allow_rounding)
        windows = _windows(source, matrix, allow_rounding=options.allow_rounding)
        for window in windows:
            violation = find_violation(window)
            if violation is not None:
                raise refusal(source, matrix, violation, options=options)
        if self._settle:
            source = ReopenedSource(source, reopen=reopen, share=self._shared)
        source.release()  # many inputs are planned before the first is built from
        return Candidate(source, matrix, windows, allow_rounding=options.allow_rounding)

    def _shared(self, genes: GeneColumns) -> GeneColumns:
        return self._axes.setdefault(genes.key, genes)


def _choose_matrix(source: Source, counts: str, *, allow_rounding: float) -> str:
    names = [info.name for info in source.matrices()]
    if counts == "auto":
        return _auto_matrix(source, names, allow_rounding=allow_rounding)
    if counts == "X" and source.kind not in ("h5ad", "zarr"):
        return names[0]  # these formats have a main matrix by another name
    if counts not in names:
        raise ConfigError(
            f"{source.path}: there is no matrix {counts!r} in this file.{nearest(counts, names)} "
            f"It has: {', '.join(names)}"
        )
    return counts


def _auto_matrix(source: Source, names: Sequence[str], *, allow_rounding: float) -> str:
    passing = []
    for name in names:
        windows = _windows(source, name, allow_rounding=allow_rounding)
        if all(find_violation(window) is None for window in windows):
            passing.append((name, windows))
    if not passing:
        return names[0]  # refused by the caller, which says what else was looked at
    first, reference = passing[0]
    for name, windows in passing[1:]:
        if not _same(reference, windows):
            raise ConfigError(
                f"{source.path}: {' and '.join(n for n, _ in passing)} both look like raw counts and differ "
                f"({first} from {name}, for one). Say which to take, for example --counts {first}"
            )
    return first


def _same(first: Sequence[CountBlock], second: Sequence[CountBlock]) -> bool:
    return all(
        np.array_equal(a.indptr, b.indptr) and np.array_equal(a.indices, b.indices) and np.array_equal(a.data, b.data)
        for a, b in zip(first, second, strict=False)
    )


def _windows(source: Source, matrix: str, *, allow_rounding: float) -> tuple[CountBlock, ...]:
    """A few blocks of a matrix: spread over the file where rows can be read anywhere, else its first ones."""
    info = next(m for m in source.matrices() if m.name == matrix)
    n = info.n_cells
    starts = [0]
    if info.layout in ("csr", "dense") and n > _WINDOW_CELLS * _WINDOWS:
        starts = [round(i * (n - _WINDOW_CELLS) / (_WINDOWS - 1)) for i in range(_WINDOWS)]
    blocks: list[CountBlock] = []
    for start in starts:
        stop = min(n, start + _WINDOW_CELLS)
        blocks += source.blocks(matrix, block_cells=_WINDOW_CELLS, start=start, stop=stop)
    return tuple(round_block(block, allow_rounding)[0] for block in blocks)
