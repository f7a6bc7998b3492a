"""Normalised profiles in NumPy, cell by cell (floor 1, kernel); the rules are stated in kernel/profiles.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cellmill.kernel.reference.tokens import gene_numbers, pick

if TYPE_CHECKING:
    from cellmill.kernel.profiles import PanelRows, ProfileNumbers, ProfileOut, ProfilePlan, ProfileRules
    from cellmill.kernel.token_cells import TokenCells

__all__ = ["tokenise_panel", "tokenise_profiles"]

I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

RAW, LOG1P, SCALED, GIVEN = range(4)
AXIS, TOKEN, COUNT, KEYED = range(4)
FIRST, UNIFORM, LOG_COUNT = range(3)
PURPOSES = {"sample": 2, "mask": 3, "order": 6}


def tokenise_profiles(
    cells: TokenCells,
    rules: ProfileRules,
    plan: ProfilePlan,
    numbers: ProfileNumbers,
    out: ProfileOut,
    threads: int,
) -> None:
    """Fill `out` with the rows of the cells; `threads` is ignored."""
    del threads
    for cell in range(len(cells)):
        _Row(cells, rules, plan, numbers, cell).write(out)


class _Row:
    """One cell on its way to its row. A gene is a column of the axis; `place` is where its count stands."""

    def __init__(
        self, cells: TokenCells, rules: ProfileRules, plan: ProfilePlan, numbers: ProfileNumbers, cell: int
    ) -> None:
        self.here = slice(int(cells.indptr[cell]), int(cells.indptr[cell + 1]))
        self.cell, self.rules, self.plan, self.numbers = cell, rules, plan, numbers
        self.key, self.token_of = int(cells.keys[cell]), cells.token_of
        own = cells.columns[self.here].astype(np.int64)
        self.count_of = np.zeros(len(self.token_of), dtype=np.uint32)
        self.count_of[own] = cells.counts[self.here]
        self.place_of = np.full(len(self.token_of), -1)
        self.place_of[own] = np.arange(len(own))
        room = max(int(plan.room[cell]), 0)
        kept = self._fitted(own, room)
        self.n_own = len(kept)
        if rules.zeros and self.n_own < room:
            lacking = np.flatnonzero((self.place_of < 0) & (self.token_of >= 0))
            kept = np.concatenate([kept, self._fitted(lacking, room - self.n_own)])
        self.kept = kept

    def _drawn(self, genes: I64, purpose: str) -> U64:
        keyed = gene_numbers(self.key, self.token_of[genes], PURPOSES[purpose])
        given: U64 | None = getattr(self.numbers, purpose)
        if given is None or not len(given):
            return keyed
        places = self.place_of[genes]
        there = places >= 0
        keyed[there] = given[self.here][places[there]]
        return keyed

    def _fitted(self, genes: I64, most: int) -> I64:
        if self.rules.choose != FIRST and len(genes) > most:
            genes = genes[pick(self._ranks(genes), most)]
        return self._ordered(genes)[:most]

    def _ranks(self, genes: I64) -> U64:
        drawn = self._drawn(genes, "sample")
        if self.rules.choose == UNIFORM or (self.place_of[genes] < 0).any():
            return drawn
        waits = 0.0 - np.log(
            ((drawn >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
        )  # not -0.0, whose bits are large
        with np.errstate(divide="ignore"):
            return (waits / np.log1p(self.count_of[genes].astype(np.float64))).view(np.uint64)

    def _ordered(self, genes: I64) -> I64:
        tokens = self.token_of[genes]
        if self.rules.order == TOKEN:
            return genes[np.argsort(tokens, kind="stable")]
        if self.rules.order == COUNT:
            return genes[np.lexsort((tokens, -self.count_of[genes].astype(np.int64)))]
        if self.rules.order == KEYED:
            return genes[np.argsort(self._drawn(genes, "order"), kind="stable")]
        return genes

    def _values(self) -> F32:
        rules, counts = self.rules, self.count_of[self.kept]
        if rules.values == GIVEN:
            assert self.plan.given is not None
            made = np.zeros(len(self.kept), dtype=np.float32)
            own = self.place_of[self.kept[: self.n_own]]
            made[: self.n_own] = self.plan.given[self.here][own]
        else:
            total = 1.0 if self.plan.totals is None else float(self.plan.totals[self.cell])
            made = _values(counts, float(counts.sum(dtype=np.float64)) if rules.of_kept else total, rules)
        made[made > np.float32(rules.clip)] = np.float32(rules.clip)
        made[self.n_own :] = 0
        return made

    def _marks(self) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Return which genes carry loss, and which are hidden."""
        loss, hidden = np.zeros(len(self.kept), dtype=bool), np.zeros(len(self.kept), dtype=bool)
        if self.rules.mask <= 0:
            return loss, hidden
        n_loss = int(self.rules.mask * self.n_own)
        own = slice(0, self.n_own)
        if n_loss == 0:
            loss[own] = self.rules.all_if_none
            return loss, hidden
        drawn = self._drawn(self.kept[own], "mask")
        loss[own] = pick(drawn, n_loss)
        hidden[own] = pick(drawn, int(self.rules.hidden * n_loss))
        return loss, hidden

    def write(self, out: ProfileOut) -> None:
        rules, plan = self.rules, self.plan
        start, end = int(out.starts[self.cell]), int(out.starts[self.cell + 1])
        shown = plan.tail_shown[self.cell].astype(bool)
        upto = start + len(self.kept) + int(shown.sum())
        if upto > end:
            raise ValueError(f"row {self.cell} is too short for its genes")
        values, tail = self._values(), plan.tail_values[self.cell][shown]
        loss, hidden = self._marks()
        tokens = [self.token_of[self.kept], plan.tail_tokens[self.cell][shown]]
        _put(out.genes, start, upto, end, tokens, rules.pad_token)
        _put(out.values, start, upto, end, [np.where(hidden, np.float32(0), values), tail], rules.pad_value)
        _put(out.target, start, upto, end, [values, tail], rules.pad_value)
        _put(out.mask, start, upto, end, [loss, np.zeros(len(tail))], 0)
        _put(out.hidden, start, upto, end, [hidden, np.zeros(len(tail))], 0)
        out.lengths[self.cell] = upto - start


def tokenise_panel(cells: TokenCells, rows: PanelRows, threads: int) -> None:
    """Fill `rows.out`; `threads` is ignored."""
    del threads
    if len(cells.token_of) and int(cells.token_of.max()) >= rows.n_genes:
        raise ValueError("a token is no place of the panel")
    places = cells.token_of[cells.columns]
    if len(places) and int(places.min()) < 0:
        raise ValueError("a gene of a cell has no token")
    cell = np.repeat(np.arange(len(cells)), cells.sizes)
    values = np.log1p(cells.counts.astype(np.float64) / rows.totals[cell] * rows.scale).astype(np.float32)
    out = rows.out.reshape(len(cells), rows.n_genes + rows.n_tail)
    out[:, : rows.n_genes] = 0
    out[cell, places] = np.where(values > np.float32(rows.clip), np.float32(rows.clip), values)
    out[:, rows.n_genes :] = rows.tail


def _values(counts: U32, total: float, rules: ProfileRules) -> F32:
    """Return the values of some counts of one cell."""
    if rules.values == LOG1P:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.log1p(counts.astype(np.float64) / total * rules.scale).astype(np.float32)
    if rules.values == SCALED:
        if total == 0:
            return np.zeros(len(counts), dtype=np.float32)
        return counts.astype(np.float32) / np.float32(total) * np.float32(rules.scale)
    return counts.astype(np.float32)


def _put(array: Any, start: int, upto: int, end: int, parts: list[npt.NDArray[Any]], padding: float) -> None:
    if array is not None:
        array[start:upto] = np.concatenate(parts)
        array[upto:end] = padding
