"""An input looked at (floor 4): opened, its matrix chosen, a few blocks of it read and proven; nothing written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellmill.errors import ConfigError, nearest
from cellmill.events import emit
from cellmill.ingest.audit import find_violation
from cellmill.ingest.options import BuildOptions
from cellmill.ingest.refuse import refusal
from cellmill.ingest.rounding import round_block
from cellmill.sources import CountBlock, Source, open_source

__all__ = ["Candidate", "open_candidate"]

_WINDOW_CELLS = 1024
_WINDOWS = 3


@dataclass(frozen=True, eq=False)
class Candidate:
    """A source that could be opened, with the windows read of it."""

    source: Source
    matrix: str
    windows: tuple[CountBlock, ...]


def open_candidate(path: Path, options: BuildOptions) -> Candidate:
    """Open an input and read windows of the matrix that is taken from it.

    Raises
    ------
    NotRawCountsError
        When a value in the windows is no raw count.
    InputError
        When the input cannot be read, or has no such matrix.
    """
    emit(f"looking at {path.name}")
    source = open_source(path, format=options.format)
    matrix = _choose_matrix(source, options.counts, allow_rounding=options.allow_rounding)
    windows = _windows(source, matrix, allow_rounding=options.allow_rounding)
    for window in windows:
        violation = find_violation(window)
        if violation is not None:
            raise refusal(source, matrix, violation, skip_bad=options.skip_bad)
    source.release()  # many inputs are planned before the first is built from
    return Candidate(source, matrix, windows)


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
