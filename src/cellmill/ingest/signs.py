"""Signs that whole numbers are no raw counts, and that a matrix holds empty droplets (floor 4, pure).

Such files are taken, since each value is a count as far as one can prove, and the user is told. Judged by the windows
of a plan; a sign needs cells with enough counts to tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cellmill.sources import CountBlock
from cellmill.units import count_text

__all__ = ["empty_droplets_warning", "signs_of_processing", "sum_warning", "sums_among_genes"]

_FEWEST_CELLS = 10
_MOST_CELLS = 512
_FEWEST_NONZEROS = 16  # of a cell that can tell; that many even counts by chance: once in 65,536 cells at the very most
_MULTIPLES_SHARE = 0.1
_LOG_LARGEST = 16  # ln and log2 of anything below 65,536 stay below
_LOG_NONZEROS = 800  # a raw cell with counts of so many genes has some gene with more of them
_SAME_TOTAL = 0.001
_FEWEST_VALUES = 1000
_FEWEST_ADDENDS = 4  # nonzero values of a cell, the sum among them
_EMPTY_COUNTS = 10
_EMPTY_SHARE = 0.5
_EMPTY_BARCODES = 1000
_EMPTY_GENES = 5000  # of a panel, cells with few counts are cells
_ADVICE = "If counts before this step exist, build from them"


def signs_of_processing(windows: Sequence[CountBlock]) -> tuple[str, ...]:
    """Return a warning for each sign that whole values are not raw counts.

    Parameters
    ----------
    windows
        Blocks of cells whose values are proven to be counts, genes of a cell unique.

    Notes
    -----
    The signs: all counts of a cell are multiples of a number above 1 (counts multiplied, or of both strands); nowhere a
    count of 1; no count but 1 (presence of genes, not counts); cells of many hundreds of genes without a count of 16
    (logarithms, rounded); equal totals of all cells (scaled, then rounded; or sampled down to one depth).

    Counts of 1 alone are also what a few molecules a cell give, so that they tell in 1,000 values of cells with 16 and
    more. Two molecules of one cell are of one gene with the sum of the squares of the genes' shares, which is 0.001 or
    more in cells; 50 cells of 20 molecules then hold 10 such pairs, and none once in 10^4 files.
    """
    telling = [part for window in windows for part in _cells_that_tell(window)]
    step = -(-len(telling) // _MOST_CELLS) or 1
    cells = [part.astype(np.int64) for part in telling[::step]]
    if len(cells) < _FEWEST_CELLS:
        return ()
    # what holds ones alone is of the range of logarithms as well, but is nothing of the kind
    found = [_multiples(cells), _no_ones(cells), _only_ones(cells) or _log_range(cells), _same_totals(cells)]
    return tuple(f"{sign}. {_ADVICE}." for sign in found if sign)


def empty_droplets_warning(windows: Sequence[CountBlock], *, n_cells: int, n_genes: int) -> str | None:
    """Return a warning where most barcodes are of droplets without a cell, with the filters that help."""
    if n_cells < _EMPTY_BARCODES or n_genes < _EMPTY_GENES or not windows:
        return None
    totals = np.concatenate([_totals(window) for window in windows])
    empty = float(np.mean(totals <= _EMPTY_COUNTS)) if len(totals) else 0.0
    if empty < _EMPTY_SHARE:
        return None
    return (
        f"{empty:.0%} of the barcodes looked at have at most {_EMPTY_COUNTS} counts: {count_text(n_cells)} barcodes of "
        "an unfiltered droplet matrix (raw_feature_bc_matrix), most of them without a cell. Build from the filtered "
        "matrix where there is one, or keep the cells with --min-counts 500 --min-genes 200 (in Python: "
        "min_counts=500, min_genes=200); ambient RNA stays in the cells that are kept"
    )


def sums_among_genes(windows: Sequence[CountBlock], *, matched: npt.NDArray[np.bool_]) -> list[int]:
    """Return the genes whose count is the sum of all others in each cell looked at, or of all genes that matched.

    Parameters
    ----------
    windows
        Blocks of cells whose values are proven to be counts, genes of a cell unique.
    matched : bool, shape (n_genes,)
        Genes of the vocabulary: the only ones that count beside facts of cells of other kinds.
    """
    n_cells, hits = 0, np.zeros(len(matched), np.int64)
    for window in windows:
        cell_of = np.repeat(np.arange(window.n_cells), np.diff(window.indptr))
        values, known = window.data.astype(np.float64), matched[window.indices]
        totals = _totals(window)
        of_matched = np.bincount(cell_of, np.where(known, values, 0), minlength=window.n_cells)
        is_sum = (2 * values == totals[cell_of]) | (~known & (values == of_matched[cell_of]))
        tells = np.bincount(cell_of, values > 0, minlength=window.n_cells) >= _FEWEST_ADDENDS
        n_cells += int(np.count_nonzero(tells))
        hits += np.bincount(window.indices[is_sum & (values > 0) & tells[cell_of]], minlength=len(matched))
    return np.flatnonzero(hits == n_cells).tolist() if n_cells >= _FEWEST_CELLS else []


def sum_warning(gene: str) -> str:
    """Return the warning about a gene that is the sum of the others."""
    return (
        f"the gene {gene!r} is the sum of the others in all cells looked at; it is a total and no gene, and doubles "
        "total counts. Take it out of the file"
    )


def _cells_that_tell(window: CountBlock) -> list[npt.NDArray[Any]]:
    kept = window.data != 0
    bounds = np.concatenate([[0], np.cumsum(kept)])[window.indptr]
    values = window.data[kept]
    pairs = zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
    return [values[begin:end] for begin, end in pairs if end - begin >= _FEWEST_NONZEROS]


def _totals(window: CountBlock) -> npt.NDArray[np.float64]:
    sums = np.concatenate([[0.0], np.cumsum(window.data, dtype=np.float64)])
    return np.asarray(sums[window.indptr[1:]] - sums[window.indptr[:-1]])


def _multiples(cells: Sequence[npt.NDArray[np.int64]]) -> str | None:
    divisors = np.array([np.gcd.reduce(cell) for cell in cells])
    found = int(np.count_nonzero(divisors > 1))
    if found < _MULTIPLES_SHARE * len(cells):
        return None
    common = int(np.bincount(np.minimum(divisors[divisors > 1], 1 << 16)).argmax())
    return (
        f"in {count_text(found)} of {count_text(len(cells))} cells looked at, all counts are multiples of a number "
        f"above 1 (most often {common}): they were multiplied, or scaled by the cell"
    )


def _no_ones(cells: Sequence[npt.NDArray[np.int64]]) -> str | None:
    n_values = sum(map(len, cells))
    if n_values < _FEWEST_VALUES or any((cell == 1).any() for cell in cells):
        return None
    least = min(int(cell.min()) for cell in cells)
    return (
        f"none of {count_text(n_values)} counts looked at is 1 (the lowest is {least}), which of raw counts is the "
        "most frequent: they were scaled, or low ones were removed"
    )


def _only_ones(cells: Sequence[npt.NDArray[np.int64]]) -> str | None:
    n_values = sum(map(len, cells))
    if n_values < _FEWEST_VALUES or any((cell != 1).any() for cell in cells):
        return None
    return (
        f"all of {count_text(n_values)} counts looked at are 1: they say which genes were found, not how often (X > 0)"
    )


def _log_range(cells: Sequence[npt.NDArray[np.int64]]) -> str | None:
    rich = [cell for cell in cells if len(cell) >= _LOG_NONZEROS]
    largest = max((int(cell.max()) for cell in rich), default=0)
    if len(rich) < _FEWEST_CELLS or largest >= _LOG_LARGEST:
        return None
    return (
        f"the largest count is {largest} though {count_text(len(rich))} of {count_text(len(cells))} cells looked at "
        f"have {_LOG_NONZEROS} genes and more: the range of logarithms, rounded"
    )


def _same_totals(cells: Sequence[npt.NDArray[np.int64]]) -> str | None:
    totals = np.array([cell.sum() for cell in cells])
    middle = float(np.median(totals))
    if np.ptp(totals) > _SAME_TOTAL * middle:
        return None
    return (
        f"all {count_text(len(cells))} cells looked at have the same total, about {count_text(round(middle))}: they "
        "were scaled to it, or sampled down to it"
    )
