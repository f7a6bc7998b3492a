"""STATE's sentences in NumPy, cell by cell (floor 1, kernel); the rules are stated in kernel/state_sentences.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cellmill.kernel.reference.tokens import gene_numbers, pick, to_uniform

if TYPE_CHECKING:
    from cellmill.kernel.state_sentences import StateOut, StatePlan
    from cellmill.kernel.token_cells import TokenCells

__all__ = ["tokenise_state"]

I64 = npt.NDArray[np.int64]
F32 = npt.NDArray[np.float32]
U64 = npt.NDArray[np.uint64]
SAMPLE, MASK, FILL, ORDER, DRAW, PART = 2, 3, 5, 6, 7, 8


def tokenise_state(cells: TokenCells, plan: StatePlan, out: StateOut, threads: int) -> None:
    """Fill `out`; `threads` is taken and ignored."""
    del threads
    if not plan.kept.any():
        raise ValueError("kept leaves no gene")
    by_token = np.argsort(cells.token_of, kind="stable")
    kept = by_token[plan.kept[by_token] > 0]
    for cell in range(len(cells)):
        _Cell(cells, cell, plan, kept).write(out)


class _Cell:
    """One cell; genes are columns, `kept` in the order of their tokens."""

    def __init__(self, cells: TokenCells, cell: int, plan: StatePlan, kept: I64) -> None:
        self.cells, self.cell, self.plan, self.kept = cells, cell, plan, kept
        self.key, self.fault = int(cells.keys[cell]), 0
        entries = slice(int(cells.indptr[cell]), int(cells.indptr[cell + 1]))
        self.counts = np.zeros(len(cells.token_of), dtype=np.int64)
        self.counts[cells.columns[entries]] = cells.counts[entries]
        self.counts[plan.kept == 0] = 0

    def _value(self, counts: I64) -> F32:
        logged = bool(self.plan.logged[self.cell])
        return (np.log1p(counts.astype(np.float64)) if logged else counts).astype(np.float32)

    def _drawn(self, purpose: int, k: int, n: int) -> I64:
        return (to_uniform(gene_numbers(self.key, np.arange(k), purpose)) * n).astype(np.int64)

    def _numbers(self, columns: I64, purpose: int) -> U64:
        if purpose == ORDER and self.plan.order is not None:
            given: U64 = self.plan.order.reshape(len(self.cells), -1)[self.cell, columns]
            return given
        return gene_numbers(self.key, self.cells.token_of[columns], purpose)

    def _tasks(self) -> I64:
        plan = self.plan
        high = self.kept[self.counts[self.kept] > 0]
        unexpressed = self._value(self.counts) < 1 if plan.faithful else self.counts == 0
        low = self.kept[unexpressed[self.kept]]
        if plan.faithful and not len(high):
            first = np.repeat(low[self._drawn(DRAW, 1, len(low))], plan.n_expressed)
        else:
            first = self._sample(high if len(high) else low, plan.n_expressed, DRAW)
        if not len(low) and plan.n_unexpressed:
            self.fault = 2
        return np.concatenate([first, self._sample(low if len(low) else high, plan.n_unexpressed, PART)])

    def _sample(self, pool: I64, k: int, purpose: int) -> I64:
        if len(pool) <= k:
            return pool[self._drawn(purpose, k, len(pool))]
        return pool[pick(self._numbers(pool, purpose), k)]

    def _downsample(self) -> None:
        fraction = float(self.plan.fraction[self.cell])
        genes = self.kept[self.counts[self.kept] > 0]
        if not fraction < 1 or not len(genes):
            return
        upto = np.cumsum(self.counts[genes].astype(np.float64))
        draws = int(upto[-1] * fraction)
        uniforms = to_uniform(gene_numbers(self.key, np.arange(draws), SAMPLE))
        at = np.minimum(np.searchsorted(upto, np.floor(uniforms * upto[-1]), side="right"), len(genes) - 1)
        self.counts[genes] = np.bincount(at, minlength=len(genes))

    def _ranked(self) -> I64:
        room = self.plan.width - 1
        genes = self.kept[self.counts[self.kept] > 0]
        numbers = self._numbers(genes, ORDER) >> np.uint64(32)
        ranked = genes[np.lexsort((numbers, -self.counts[genes]))][:room]
        missing = room - len(ranked)
        if not missing:
            return ranked
        low = self.kept[self.counts[self.kept] == 0]
        if len(self.kept) < room:
            if not len(low):
                self.fault = 1
                return ranked
            return np.concatenate([ranked, low[self._drawn(FILL, missing, len(low))]])
        drawn = self._numbers(low, ORDER)
        chosen = pick(drawn, missing)
        order = np.argsort(drawn[chosen] >> np.uint64(32), kind="stable")
        return np.concatenate([ranked, low[chosen][order]])

    def _shares(self, columns: I64) -> F32:
        values = self._value(self.counts[self.kept])
        values = values[values > 0]
        hundred = np.float32(100)
        if not len(values):
            return np.full(len(columns), np.float32(1) / np.float32(len(self.kept)) * hundred)
        whole = np.cumsum(values.astype(np.float64))[-1].astype(np.float32)
        made: F32 = self._value(self.counts[columns]) / whole * hundred
        return made

    def write(self, out: StateOut) -> None:
        plan, cell = self.plan, self.cell
        tasks = self._tasks()
        values = self._value(self.counts[tasks])
        shared, columns = plan.shared.reshape(len(self.cells), -1)[cell], plan.shared_columns
        columns = columns.reshape(len(self.cells), -1)[cell]
        theirs = np.where(columns >= 0, self._value(self.counts[columns]), np.float32(0))
        values = np.concatenate([values, theirs]).astype(np.float32)
        ids = np.concatenate([plan.ids[tasks], shared])
        at = slice(cell * len(ids), (cell + 1) * len(ids))
        out.task_genes[at], out.task_values[at] = ids, values > 0 if plan.binary else values
        out.totals[cell] = np.cumsum(np.concatenate([[0.0], values]))[-1]
        self._downsample()
        ranked = self._ranked()
        self._write_row(out, ranked)
        self._mark(out, ids, 1 + len(ranked))
        out.faults[cell] = self.fault

    def _write_row(self, out: StateOut, ranked: I64) -> None:
        plan, length = self.plan, 1 + len(ranked)
        genes, values = out.genes.reshape(-1, plan.width)[self.cell], out.values.reshape(-1, plan.width)[self.cell]
        genes[1:length], genes[length:] = plan.ids[ranked], plan.padding
        values[1:length], values[length:] = self._shares(ranked), 0
        genes[0] = plan.first if plan.first_column < 0 else plan.ids[plan.first_column]
        values[0] = 0 if plan.first_column < 0 else self._shares(np.array([plan.first_column]))[0]
        out.lengths[self.cell] = length

    def _mark(self, out: StateOut, tasks: I64, length: int) -> None:
        plan = self.plan
        genes = out.genes.reshape(-1, plan.width)[self.cell]
        mask = out.mask.reshape(-1, plan.width)[self.cell]
        mask[:] = 0
        slots = np.arange(length)
        first = slots[1:][np.isin(genes[1:length], tasks)]
        then = np.setdiff1d(slots[1:], first)
        wanted = int(plan.mask_ratio * length)
        known = len(first) + int(plan.faithful and genes[0] in tasks)
        for some, k in ((first, wanted if known > wanted else len(first)), (then, max(wanted - known, 0))):
            numbers = (
                gene_numbers(self.key, some, MASK)
                if plan.mask is None
                else plan.mask.reshape(-1, plan.width)[self.cell, some]
            )
            mask[some] = pick(numbers, k)
