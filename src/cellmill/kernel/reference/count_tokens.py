"""Count tokens in NumPy, cell by cell (floor 1, kernel); the rules are stated in kernel/count_tokens.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cellmill.kernel.reference.tokens import gene_numbers, pick, to_uniform

if TYPE_CHECKING:
    from cellmill.kernel.count_tokens import CountTokenOut, CountTokenPlan
    from cellmill.kernel.token_cells import TokenCells

__all__ = ["tokenise_counts"]

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
SAMPLE, MASK = 2, 3


def tokenise_counts(cells: TokenCells, plan: CountTokenPlan, out: CountTokenOut, threads: int) -> None:
    """Fill `out`; `threads` is taken and ignored."""
    del threads
    for cell in range(len(cells)):
        if plan.panel is None:
            _expressed(cells, cell, plan, out)
        else:
            _panel(cells, cell, plan, out)


def _panel(cells: TokenCells, cell: int, plan: CountTokenPlan, out: CountTokenOut) -> None:
    assert plan.panel is not None
    assert plan.slot_of is not None
    entries = slice(int(cells.indptr[cell]), int(cells.indptr[cell + 1]))
    start, end = int(out.starts[cell]), int(out.starts[cell + 1])
    there = plan.panel >= 0
    tokens = np.where(there, _tokens(np.zeros(1, np.uint32), plan), plan.pad_token)
    slots = plan.slot_of[cells.columns[entries]]
    tokens[slots[slots >= 0]] = _tokens(cells.counts[entries], plan)[slots >= 0]
    numbers = (
        gene_numbers(int(cells.keys[cell]), cells.token_of[plan.panel], MASK)
        if plan.mask is None
        else plan.mask[start:end]
    )
    _write(out, cell, tokens, there & (to_uniform(numbers) < plan.ratio[cell]), plan)


def _expressed(cells: TokenCells, cell: int, plan: CountTokenPlan, out: CountTokenOut) -> None:
    assert plan.room is not None
    assert out.genes is not None
    entries = np.arange(int(cells.indptr[cell]), int(cells.indptr[cell + 1]))
    tokens, key, room = cells.token_of[cells.columns[entries]], int(cells.keys[cell]), max(int(plan.room[cell]), 0)
    if len(entries) > room:
        numbers = gene_numbers(key, tokens, SAMPLE)
        if plan.largest:
            inverted = (~cells.counts[entries]).astype(np.uint64)
            numbers = (inverted << np.uint64(32)) | (numbers >> np.uint64(32))
        stays = pick(numbers, room)
        entries, tokens = entries[stays], tokens[stays]
    numbers = gene_numbers(key, tokens, MASK) if plan.mask is None else plan.mask[entries]
    start, end = int(out.starts[cell]), int(out.starts[cell + 1])
    if start + len(entries) > end:
        raise ValueError(f"row {cell} is too short for its genes")
    out.genes[start : start + len(entries)], out.genes[start + len(entries) : end] = tokens, plan.pad_gene
    _write(out, cell, _tokens(cells.counts[entries], plan), to_uniform(numbers) < plan.ratio[cell], plan)


def _tokens(counts: npt.NDArray[np.uint32], plan: CountTokenPlan) -> I64:
    return np.searchsorted(plan.edges, counts, side="right").astype(np.int64)


def _write(out: CountTokenOut, cell: int, tokens: I64, hidden: Bools, plan: CountTokenPlan) -> None:
    start, end = int(out.starts[cell]), int(out.starts[cell + 1])
    upto = start + len(tokens)
    out.target[start:upto], out.target[upto:end] = tokens, plan.pad_token
    out.values[start:upto], out.values[upto:end] = np.where(hidden, plan.mask_token, tokens), plan.pad_token
    out.mask[start:upto], out.mask[upto:end] = hidden, 0
    out.lengths[cell] = len(tokens)
