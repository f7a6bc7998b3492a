"""Panels and the largest other genes in NumPy, cell by cell (floor 1, kernel); the rules: kernel/hvg_panels.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from cellmill.kernel.hvg_panels import PanelOut, PanelPlan
    from cellmill.kernel.token_cells import TokenCells

__all__ = ["count_other_genes", "tokenise_panels"]

RAW, SCALED, LOG1P = range(3)


def count_other_genes(cells: TokenCells, plan: PanelPlan, out: PanelOut, threads: int) -> None:
    """Fill the lengths; `threads` is taken and ignored."""
    del threads
    for cell in range(len(cells)):
        columns, counts = _expressed(cells, cell)
        inside = int((plan.slot_of[columns] >= 0).sum())
        out.other_lengths[cell] = min(max(plan.fill_to - inside, 0), len(counts) - inside)


def tokenise_panels(cells: TokenCells, plan: PanelPlan, out: PanelOut, threads: int) -> None:
    """Fill the rest of `out`; `threads` is taken and ignored."""
    del threads
    matrix = out.values.reshape(len(cells), plan.n_slots)
    matrix[:] = 0
    for cell in range(len(cells)):
        columns, counts = _expressed(cells, cell)
        slots = plan.slot_of[columns]
        inside = slots >= 0
        scale = float(plan.scales[cell])
        matrix[cell, slots[inside]] = _values(counts[inside], plan.values, scale)
        tokens, others = cells.token_of[columns[~inside]], counts[~inside]
        largest = np.lexsort((tokens, -others.astype(np.int64)))[: max(plan.fill_to - int(inside.sum()), 0)]
        start, end = int(out.other_starts[cell]), int(out.other_starts[cell + 1])
        upto = start + len(largest)
        if upto > end:
            raise ValueError(f"row {cell} of other genes is too short")
        out.other_genes[start:upto], out.other_genes[upto:end] = tokens[largest], plan.pad_token
        out.other_values[start:upto] = _values(others[largest], plan.values, scale)
        out.other_values[upto:end] = 0


def _expressed(cells: TokenCells, cell: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint32]]:
    entries = slice(int(cells.indptr[cell]), int(cells.indptr[cell + 1]))
    there = cells.counts[entries] > 0
    return cells.columns[entries][there], cells.counts[entries][there]


def _values(counts: npt.NDArray[np.uint32], values: int, scale: float) -> npt.NDArray[np.float32]:
    if values == RAW:
        return counts.astype(np.float32)
    scaled = counts.astype(np.float64) * scale
    return (np.log1p(scaled) if values == LOG1P else scaled).astype(np.float32)
