"""Sentences by chromosome in NumPy, cell by cell (floor 1, kernel); the rules: kernel/chromosome_sentences.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cellmill.kernel.reference.tokens import gene_numbers, to_uniform

if TYPE_CHECKING:
    from cellmill.kernel.chromosome_sentences import SentenceOut, SentencePlan
    from cellmill.kernel.token_cells import TokenCells

__all__ = ["drawing_weights", "tokenise_sentences"]

I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]
ORDER, DRAW = 6, 7


def drawing_weights(counts: npt.NDArray[np.uint32]) -> F32:
    """Return the weights of counts above 0, float32; one at least."""
    weights = np.log1p(counts.astype(np.float64)).astype(np.float32)
    weights = weights / np.cumsum(weights, dtype=np.float64)[-1].astype(np.float32)
    made: F32 = weights / np.cumsum(weights, dtype=np.float32)[-1]
    return made


def tokenise_sentences(cells: TokenCells, plan: SentencePlan, out: SentenceOut, threads: int) -> None:
    """Fill `out`; `threads` is taken and ignored."""
    del threads
    genes, values = out.genes.reshape(-1, plan.width), out.values.reshape(-1, plan.width)
    for cell in range(len(cells)):
        drawn, counts = _draw(cells, cell, plan)
        tokens: list[npt.ArrayLike] = [[plan.first]]
        behind: list[npt.ArrayLike] = [[0]]
        for chromosome in _chromosomes(cells, cell, plan, drawn):
            here = plan.chromosomes[drawn] == chromosome
            order = np.lexsort((cells.token_of[drawn[here]], plan.places[drawn[here]]))
            tokens += [[chromosome + plan.offset], plan.rows[drawn[here]][order], [plan.last]]
            behind += [[0], counts[here][order], [0]]
        row = np.concatenate([np.asarray(part) for part in tokens])
        out.lengths[cell], out.drawn[cell] = len(row), len(drawn)
        genes[cell, : len(row)], genes[cell, len(row) :] = row, plan.padding
        values[cell, : len(row)], values[cell, len(row) :] = np.concatenate([np.asarray(part) for part in behind]), 0


def _draw(cells: TokenCells, cell: int, plan: SentencePlan) -> tuple[I64, npt.NDArray[np.uint32]]:
    """Return the column and the count of each draw that fits."""
    entries = slice(int(cells.indptr[cell]), int(cells.indptr[cell + 1]))
    columns, counts = cells.columns[entries].astype(np.int64), cells.counts[entries]
    known = (plan.rows[columns] >= 0) & (counts > 0)
    columns, counts = columns[known], counts[known]
    if not len(columns):
        return columns, counts
    order = np.argsort(cells.token_of[columns], kind="stable")
    columns, counts = columns[order], counts[order]
    upto = np.cumsum(drawing_weights(counts).astype(np.float64))
    uniforms = (
        to_uniform(gene_numbers(int(cells.keys[cell]), np.arange(plan.n_draws), DRAW))
        if plan.uniforms is None
        else plan.uniforms.reshape(-1, plan.n_draws)[cell]
    )
    at = np.minimum(np.searchsorted(upto / upto[-1], uniforms, side="right"), len(columns) - 1)
    first_of = np.unique(plan.chromosomes[columns[at]], return_index=True)[1]
    steps = np.ones(len(at), dtype=np.int64)
    steps[first_of] = 3
    at = at[: int((1 + np.cumsum(steps) <= plan.width).sum())]
    return columns[at], counts[at]


def _chromosomes(cells: TokenCells, cell: int, plan: SentencePlan, drawn: I64) -> list[int]:
    """Return the chromosomes that were drawn from, in the order of their numbers."""
    there, at = np.unique(plan.chromosomes[drawn], return_index=True)
    numbers = (
        gene_numbers(int(cells.keys[cell]), there, ORDER)
        if plan.order is None
        else plan.order.reshape(len(cells), -1)[cell, drawn[at]]
    )
    return [int(one) for one in there[np.argsort(numbers, kind="stable")]]
