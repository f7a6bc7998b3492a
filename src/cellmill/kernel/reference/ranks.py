"""Genes by value in NumPy, cell by cell (floor 1, kernel); the rules are stated in kernel/ranks.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cellmill.kernel.reference.tokens import gene_numbers

if TYPE_CHECKING:
    from cellmill.kernel.ranks import RankOut, RankPlan, RankRules
    from cellmill.kernel.token_cells import TokenCells

__all__ = ["rank_genes"]

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

RATIO, DIVIDED, RECIPROCAL, SCALED = range(4)
ORDER = 6


def rank_genes(cells: TokenCells, rules: RankRules, plan: RankPlan, out: RankOut, threads: int) -> None:
    """Fill `out` with the rows of the cells; `threads` is ignored."""
    del threads
    for cell in range(len(cells)):
        _rank(cells, rules, plan, cell, out)


def _rank(cells: TokenCells, rules: RankRules, plan: RankPlan, cell: int, out: RankOut) -> None:
    here = slice(int(cells.indptr[cell]), int(cells.indptr[cell + 1]))
    x = cells.counts[here].astype(np.float64) if plan.values is None else plan.values[here]
    columns = cells.columns[here]
    tokens = cells.token_of[columns]
    total = 0.0 if plan.totals is None else float(plan.totals[cell])
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        values = _values(x, total, plan.divisors[columns], rules)
        per_10k = None if out.per_10k is None else _per_10k(x, total, rules)
    if plan.ties is not None:
        ties: npt.NDArray[Any] = plan.ties[here]
    else:
        ties = gene_numbers(int(cells.keys[cell]), tokens, ORDER) if rules.keyed_ties else tokens
    order = np.lexsort((ties, -values))[: max(int(plan.room[cell]), 0)]  # stable: the rest by place
    start, end = int(out.starts[cell]), int(out.starts[cell + 1])
    first = start + plan.n_head
    upto = first + len(order)
    behind = upto + len(plan.tail)
    if behind > end:
        raise ValueError(f"row {cell} is too short for its genes")
    out.genes[start:first], out.genes[upto:behind] = plan.head[cell], plan.tail
    out.genes[first:upto] = tokens[order] + rules.token_offset
    out.genes[behind:end] = rules.pad_token
    for array, own in ((out.values, values), (out.ranked, values), (out.per_10k, per_10k)):
        if array is not None and own is not None:
            array[start:end] = 0
            array[first:upto] = own[order]
    out.lengths[cell] = behind - start


def _values(x: F64, total: float, divisors: F64, rules: RankRules) -> F64:
    """Return what the genes of a cell are ranked by."""
    if rules.values == RATIO:
        return x / divisors
    if rules.values == SCALED:
        real = _real(rules)
        return np.asarray((x.astype(real) * (real(1e4) / real(total))).astype(np.float64) / divisors)
    scaled = _per_10k(x, total, rules)
    return scaled * (1.0 / divisors) if rules.values == RECIPROCAL else scaled / divisors


def _per_10k(x: F64, total: float, rules: RankRules) -> F64:
    real = _real(rules)
    one, n, per = real(1), real(total), real(1e4)
    scaled = x.astype(real) * (one / n) * per if rules.values == RECIPROCAL else x.astype(real) / n * per
    return np.asarray(scaled, dtype=np.float64)


def _real(rules: RankRules) -> type[Any]:
    return np.float32 if rules.single else np.float64
