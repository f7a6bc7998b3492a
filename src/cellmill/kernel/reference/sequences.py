"""Sequences of genes in NumPy, cell by cell (floor 1, kernel); the rules are stated in kernel/sequences.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cellmill.kernel.keys import GAMMA, MASK64, mix64_int
from cellmill.kernel.reference.random import permute
from cellmill.kernel.reference.tokens import between, edges32, edges64, gene_numbers, pick, to_uniform

if TYPE_CHECKING:
    from cellmill.kernel.sequences import SequenceNumbers, SequenceOut, SequencePlan, SequenceRules
    from cellmill.kernel.token_cells import TokenCells

__all__ = ["tokenise_sequences"]

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
F32 = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

RAW, BINS64, BINS32, LOG1P = range(4)
KEYED, LOWEST, HIGHEST = range(3)
FIRST, UNIFORM, EXPRESSION, LARGEST = range(4)
FILL, GENE = 5, 9


def tokenise_sequences(
    cells: TokenCells,
    rules: SequenceRules,
    plan: SequencePlan,
    numbers: SequenceNumbers,
    out: SequenceOut,
    threads: int,
) -> None:
    """Fill `out` with the rows of the cells; `threads` is ignored."""
    del threads
    for cell in range(len(cells)):
        _Row(cells, rules, plan, numbers, cell).write(out)


class _Row:
    """One cell on its way to its row."""

    def __init__(
        self, cells: TokenCells, rules: SequenceRules, plan: SequencePlan, numbers: SequenceNumbers, cell: int
    ) -> None:
        here = slice(int(cells.indptr[cell]), int(cells.indptr[cell + 1]))
        self.cell, self.rules, self.plan = cell, rules, plan
        self.key = int(cells.keys[cell])
        columns, counts = cells.columns[here].astype(np.int64), cells.counts[here]
        tokens = cells.token_of[columns]
        given = {name: None if (all_ := getattr(numbers, name)) is None else all_[here] for name in ("sample", "mask")}
        self.given_sample, self.given_mask = given["sample"], given["mask"]
        u = to_uniform(to_bin(gene_numbers(self.key, tokens, GENE))) if numbers.bin is None else numbers.bin[here]
        self.tokens, self.counts = tokens, counts
        self.fixed = np.arange(min(rules.keep, len(counts)))
        free = len(self.fixed)
        self.values = np.concatenate([counts[:free].astype(np.float32), _values(counts[free:], rules, u[free:])])
        everything = np.arange(free, len(counts))
        if rules.split_first:
            assert plan.part_room is not None
            hidden = self._masked(everything)
            self.kept = self._fitted(everything[~hidden], int(plan.room[cell]))
            self.part = self._fitted(everything[hidden], int(plan.part_room[cell]))
            self.hidden = np.zeros(len(self.kept), dtype=bool)
            self._fill_parts(cells, columns)
            return
        kept = self._fitted(everything, int(plan.room[cell]))
        wanted = 0 if plan.n_fill is None else int(plan.n_fill[cell])
        kept = np.concatenate([kept, self._fill(cells, columns, wanted)])
        hidden = self._masked(kept)
        self.part = kept[hidden]
        self.kept, self.hidden = (kept[~hidden], hidden[~hidden]) if rules.split else (kept, hidden)

    def _fitted(self, genes: I64, most: int) -> I64:
        most = max(most, 0)
        if len(genes) <= most:
            return genes
        if self.rules.choose == FIRST:
            return genes[:most]
        drawn = to_sample(gene_numbers(self.key, self.tokens[genes], GENE))
        ranks = self._ranks(drawn if self.given_sample is None else self.given_sample[genes], self.counts[genes])
        chosen = pick(ranks, most)
        genes, ranks = genes[chosen], ranks[chosen]
        return genes[np.argsort(ranks, kind="stable")] if self.rules.shuffled else genes

    def _ranks(self, drawn: U64, counts: npt.NDArray[np.uint32]) -> U64:
        if self.rules.choose == EXPRESSION:
            with np.errstate(divide="ignore"):
                waits = (0.0 - np.log(((drawn >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53)) / counts
            return np.where(counts == 0, np.uint64(2**64 - 1), waits.view(np.uint64))
        if self.rules.choose == LARGEST:
            return ((~counts).astype(np.uint64) << np.uint64(32)) | (drawn >> np.uint64(32))
        return drawn

    def _fill_parts(self, cells: TokenCells, columns: I64) -> None:
        if self.plan.n_fill is None or self.plan.n_fill[self.cell] <= 0:
            return
        assert self.plan.part_room is not None
        room = max(int(self.plan.room[self.cell]), 0) - len(self.kept)
        part_room = max(int(self.plan.part_room[self.cell]), 0) - len(self.part)
        places = self._fill(cells, columns, room + part_room)
        self.kept = np.concatenate([self.kept, places[:room]])
        self.part = np.concatenate([self.part, places[room:]])
        self.hidden = np.zeros(len(self.kept), dtype=bool)

    def _fill(self, cells: TokenCells, columns: I64, wanted: int) -> I64:
        """Add genes that the cell lacks to what is known of it, and return their places."""
        if wanted <= 0:
            return np.empty(0, dtype=np.int64)
        assert self.plan.fillers is not None
        assert self.plan.source is not None
        n_columns = len(cells.token_of)
        free = self.plan.fillers[int(self.plan.source[self.cell])].astype(bool).copy()
        free[columns] = False
        key = keyed_stream(self.key, FILL)
        by_token = np.argsort(cells.token_of, kind="stable")
        order = by_token[permute(np.arange(n_columns, dtype=np.uint64), n_columns, key).astype(np.int64)]
        added = order[free[order]][:wanted]
        places = np.arange(len(self.tokens), len(self.tokens) + len(added))
        self.tokens = np.concatenate([self.tokens, cells.token_of[added]])
        self.counts = np.concatenate([self.counts, np.zeros(len(added), dtype=np.uint32)])
        self.values = np.concatenate([self.values, np.zeros(len(added), dtype=np.float32)])
        if self.given_mask is not None:
            own = to_mask(gene_numbers(self.key, cells.token_of[added], GENE))
            self.given_mask = np.concatenate([self.given_mask, own])
        return places

    def _masked(self, genes: I64) -> Bools:
        """Say which heads are masked, and return which genes are."""
        hidden, n_head = np.zeros(len(genes), dtype=bool), self.plan.n_head
        self.heads_hidden = np.zeros(n_head, dtype=bool)
        if self.plan.n_mask is None:
            return hidden
        assert self.plan.maskable is not None
        assert self.plan.ratio is not None
        may = np.zeros(len(genes), dtype=bool)
        may[self.rules.skip : max(int(self.plan.maskable[self.cell]), 0)] = True
        if not np.isnan(self.rules.spared):
            may &= self.values[genes].astype(np.float64) != self.rules.spared
        open_ = genes[may]
        own = to_mask(gene_numbers(self.key, self.tokens[open_], GENE))
        drawn = own if self.given_mask is None else self.given_mask[open_]
        heads = np.zeros(n_head, dtype=bool)
        if self.rules.mask_heads:
            heads = self.plan.head_values[self.cell].astype(np.float64) != self.rules.spared
        of_heads = to_mask(gene_numbers(self.key, self.plan.head_tokens[self.cell][heads], GENE))
        chosen = self._chosen(np.concatenate([of_heads, drawn]))
        self.heads_hidden[heads], hidden[may] = chosen[: len(of_heads)], chosen[len(of_heads) :]
        return hidden

    def _chosen(self, drawn: U64) -> Bools:
        assert self.plan.n_mask is not None
        assert self.plan.ratio is not None
        n_mask, ratio = int(self.plan.n_mask[self.cell]), float(self.plan.ratio[self.cell])
        if n_mask == -1:
            return to_uniform(drawn) < ratio
        return pick(drawn, int(len(drawn) * ratio) if n_mask < 0 else n_mask)

    def write(self, out: SequenceOut) -> None:
        cell, rules = self.cell, self.rules
        start, end = int(out.starts[cell]), int(out.starts[cell + 1])
        n_head = self.plan.n_head
        fixed = self.tokens[self.fixed], self.counts[self.fixed]
        upto = start + n_head + len(self.fixed) + len(self.kept)
        if upto > end:
            raise ValueError(f"row {cell} is too short for its genes")
        heads, own = self.plan.head_values[cell], self.values[self.kept]
        seen_heads = np.where(self.heads_hidden, np.float32(rules.mask_value), heads)
        seen = np.where(self.hidden, np.float32(rules.mask_value), own)
        _put(
            out.genes,
            start,
            upto,
            end,
            [self.plan.head_tokens[cell], fixed[0], self.tokens[self.kept]],
            rules.pad_token,
        )
        _put(out.values, start, upto, end, [seen_heads, fixed[1], seen], rules.pad_value)
        _put(out.target, start, upto, end, [heads, fixed[1], own], rules.pad_value)
        _put(out.raw, start, upto, end, [heads, fixed[1], self.counts[self.kept]], rules.pad_value)
        _put(out.mask, start, upto, end, [self.heads_hidden, np.zeros(len(self.fixed)), self.hidden], 0)
        out.lengths[cell] = upto - start
        if rules.split or rules.split_first:
            self._write_part(out)

    def _write_part(self, out: SequenceOut) -> None:
        assert out.part_starts is not None
        assert out.part_lengths is not None
        start, end = int(out.part_starts[self.cell]), int(out.part_starts[self.cell + 1])
        upto = start + len(self.part)
        if upto > end:
            raise ValueError(f"part {self.cell} is too short for its genes")
        _put(out.part_genes, start, upto, end, [self.tokens[self.part]], self.rules.pad_token)
        _put(out.part_target, start, upto, end, [self.values[self.part]], self.rules.pad_value)
        _put(out.part_raw, start, upto, end, [self.counts[self.part]], self.rules.pad_value)
        out.part_lengths[self.cell] = len(self.part)


def to_sample(numbers: U64) -> U64:
    """Return what genes are kept by: the upper half of their numbers."""
    return numbers >> np.uint64(32) << np.uint64(32)


def to_mask(numbers: U64) -> U64:
    """Return what genes are masked by: the lower half of their numbers."""
    return numbers << np.uint64(32)


def to_bin(numbers: U64) -> U64:
    """Return what bins are drawn by: a multiple of the number, whose upper bits hang on all of it."""
    return numbers * np.uint64(GAMMA)


def keyed_stream(key: int, purpose: int) -> int:
    """Return the key of one purpose of a cell."""
    return mix64_int((mix64_int(key) + purpose * GAMMA) & MASK64)


def _put(array: Any, start: int, upto: int, end: int, parts: list[npt.NDArray[Any]], padding: float) -> None:
    if array is not None:
        array[start:upto] = np.concatenate(parts)
        array[upto:end] = padding


def _values(counts: npt.NDArray[np.uint32], rules: SequenceRules, u: npt.NDArray[np.float64]) -> F32:
    """Return the value of each entry of a cell, before anything is masked or dropped."""
    made = np.full(len(counts), rules.zero_value, dtype=np.float32)
    there = counts > 0
    x = counts[there]
    if not len(x):
        return made
    if rules.values == RAW:
        made[there] = x
    elif rules.values == LOG1P:
        divisor = np.float32(x.sum(dtype=np.float64)) + np.float32(1e-9)
        scaled = x.astype(np.float32) / divisor * np.float32(rules.target_sum)
        made[there] = np.log1p(scaled.astype(np.float64))
    elif rules.values == BINS32:
        below, upto = between(x.astype(np.float32), edges32(x.astype(np.float32), rules.n_bins - 1))
        made[there] = upto if rules.ties == HIGHEST else below + 1
    else:
        below, upto = between(x.astype(np.float64), edges64(x.astype(np.float64), rules.n_bins - 1))
        drawn = np.ceil(u[there] * (below - upto) + upto)
        chosen = {KEYED: np.maximum(drawn, below + 1), LOWEST: below + 1, HIGHEST: upto}[rules.ties]
        made[there] = np.where(below == upto, upto, chosen)
    return made
