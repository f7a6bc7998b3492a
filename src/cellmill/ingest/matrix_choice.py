"""Which matrix of an input is taken (floor 4): the one that is asked for, or the one that is proven to be raw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xxhash

from cellmill.errors import ConfigError, nearest
from cellmill.events import emit
from cellmill.ingest.audit import Violation, find_violation
from cellmill.ingest.options import BuildOptions
from cellmill.ingest.refuse import refusal
from cellmill.ingest.rounding import round_block
from cellmill.sources import CountBlock, Source

__all__ = ["choose_matrix", "look_raw", "windows_of"]

_WINDOW_CELLS = 1024
_WINDOWS = 3


def choose_matrix(source: Source, options: BuildOptions) -> str:
    """Return the name of the matrix that counts are taken from.

    Raises
    ------
    ConfigError
        When there is no matrix of the name asked for, or several that are raw and differ.
    NotRawCountsError
        When more than one looked raw and none is.

    Notes
    -----
    With "auto" a few blocks of each matrix are looked at. Where one alone passes it is taken, and the build proves the
    rest of it; of several that pass every value is read here, one matrix after the other.
    """
    counts, names = options.counts, [info.name for info in source.matrices()]
    if counts == "auto":
        return _auto_matrix(source, names, options)
    if counts == "X" and source.kind not in ("h5ad", "zarr"):
        return names[0]  # these formats have a main matrix by another name
    if counts not in names:
        raise ConfigError(
            f"{source.path}: there is no matrix {counts!r} in this file.{nearest(counts, names)} "
            f"It has: {', '.join(names)}"
        )
    return counts


def windows_of(source: Source, matrix: str, *, allow_rounding: float) -> tuple[CountBlock, ...]:
    """Return a few blocks of a matrix: spread over the file where rows can be read anywhere, else its first ones."""
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


def look_raw(windows: Sequence[CountBlock]) -> bool:
    """Whether all values of some blocks are raw counts."""
    return all(find_violation(window) is None for window in windows)


def _auto_matrix(source: Source, names: Sequence[str], options: BuildOptions) -> str:
    if len(names) == 1:
        return names[0]
    passing = []
    for name in names:
        if look_raw(windows_of(source, name, allow_rounding=options.allow_rounding)):
            passing.append(name)
        _let_go(source, name)
    if len(passing) < 2:
        return next(iter(passing), names[0])  # where none passes, the caller refuses and says what was looked at
    found = {}
    for name in passing:
        emit(f"looking at {source.path.name}", message=f"proving {name} of {source.path.name}")
        found[name] = _prove(source, name, allow_rounding=options.allow_rounding)
        _let_go(source, name)
    raw = {name: one for name, one in found.items() if isinstance(one, _Contents)}
    if not raw:
        violation = found[passing[0]]
        assert isinstance(violation, Violation)
        raise refusal(source, passing[0], violation, options=options)
    if len(set(raw.values())) > 1:
        raise _ambiguous(source, raw)
    return next(iter(raw))


def _let_go(source: Source, matrix: str) -> None:
    """Hold nothing that was sorted by cell of one matrix beside that of the next."""
    if not source.starts_anywhere(matrix):
        source.release()


@dataclass(frozen=True)
class _Contents:
    """Two matrices of one file are equal if these are; zeros that are stored do not count.

    Attributes
    ----------
    counts : str
        xxh3-128 of how many counts each cell has, of their genes, and of their values.
    genes : tuple of str
        Names of the genes, since "raw" has its own.
    """

    counts: str
    genes: tuple[str, ...]


def _prove(source: Source, matrix: str, *, allow_rounding: float) -> _Contents | Violation:
    """Read a whole matrix, block by block: what it holds, or the first value that is no raw count."""
    sizes, genes, values = xxhash.xxh3_128(), xxhash.xxh3_128(), xxhash.xxh3_128()
    for stored in source.blocks(matrix):
        block, _ = round_block(stored, allow_rounding)
        violation = find_violation(block)
        if violation is not None:
            return violation
        kept = block.data != 0
        bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept, dtype=np.int64)])[block.indptr]
        sizes.update(np.diff(bounds).tobytes())
        genes.update(block.indices[kept].tobytes())
        values.update(block.data[kept].astype(np.uint32).tobytes())  # proven to fit
    digests = " ".join(digest.hexdigest() for digest in (sizes, genes, values))
    return _Contents(digests, tuple(source.genes_of(matrix).index))


def _ambiguous(source: Source, raw: Mapping[str, _Contents]) -> ConfigError:
    names = list(raw)
    first, other = names[0], next(name for name in names if raw[name] != raw[names[0]])
    sizes = [len(raw[name].genes) for name in (first, other)]
    genes = f": {sizes[0]} genes and {sizes[1]}" if sizes[0] != sizes[1] else ""
    return ConfigError(
        f"{source.path}: {' and '.join(names)} are all raw counts, every value of them, and differ ({first} from "
        f"{other}, for one{genes}). Say which to take, for example --counts {first} (in Python: counts={first!r})"
    )
