"""An input looked at (floor 4): opened, its matrix chosen, a few blocks of it read and proven; nothing written."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from cellmill.events import emit
from cellmill.ingest.audit import find_violation
from cellmill.ingest.matrix_choice import choose_matrix, windows_of
from cellmill.ingest.options import BuildOptions
from cellmill.ingest.refuse import refusal
from cellmill.sources import CountBlock, GeneColumns, ReopenedSource, Source, open_source

__all__ = ["Candidate", "Candidates", "open_limited"]

_WINDOW_BYTES = 192 << 20  # of all inputs together
_OPEN_INPUTS = 64


def open_limited(path: Path, options: BuildOptions) -> Source:
    """Return an input, open, with the memory and the folder for temporary files that a build gives it."""
    limits = options.limits
    return open_source(path, format=options.format, memory_budget=limits.memory_budget, spill_dir=limits.spill_dir)


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
        windows = windows_of(self.source, self.matrix, allow_rounding=self._allow_rounding)
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
        reopen = partial(open_limited, path, self._options)
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
        matrix = choose_matrix(source, options)
        windows = windows_of(source, matrix, allow_rounding=options.allow_rounding)
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
